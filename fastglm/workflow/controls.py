"""What the recipe finds where nothing can be: in controls, and among impossible pairs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fastglm.connectivity import CouplingMap
from fastglm.connectivity.controls import CONTROLS, false_discoveries, reciprocal, turned_rows
from fastglm.features.matrix import FeatureMatrix
from fastglm.observation_models import as_observation_model


def read_impossible(impossible: object, n_cells: int) -> np.ndarray | None:
    """Pairs that cannot be connected, booleans of shape (n_cells, n_cells), or None.

    Raises
    ------
    ValueError
        If it is another array.
    """
    if impossible is None:
        return None
    impossible = np.asarray(impossible)
    if impossible.shape != (n_cells, n_cells) or not np.isin(impossible, (0, 1)).all():
        raise ValueError(
            f"impossible has shape {impossible.shape} and dtype {impossible.dtype}; expected "
            f"booleans of shape (n_senders, n_receivers) = {(n_cells, n_cells)}, True for pairs "
            "that cannot be connected."
        )
    return impossible.astype(bool)


def add_controls(
    result: CouplingMap,
    controls: Sequence[str],
    impossible: np.ndarray | None,
    recipe: object,
    epochs: np.ndarray,
    covariates: FeatureMatrix | None,
) -> None:
    """Write to a map what each control finds, and warn where one finds as much as the data.

    Parameters
    ----------
    result : CouplingMap
        Of the data.
    controls : sequence of str
        Of `fastglm.connectivity.controls.CONTROLS`.
    impossible : ndarray of bool, shape (n_cells, n_cells), or None
    recipe : fastglm.workflow.recipe.Recipe
        Controls go through the choices of the data.
    epochs : ndarray of shape (n_epochs, 2)
    covariates : FeatureMatrix or None
    """
    found, texts, as_many = result.significant(), [], []
    # Moved events have no table of units, and their pairs of one channel are those of the data.
    progress = None if callable(recipe.progress) else recipe.progress
    recipe = replace(recipe, channel=result.same_channel, progress=progress)
    for name in controls:
        control = _control(name, result.model, recipe, epochs, covariates)
        number = result.controls[name] = false_discoveries(name, found, control)
        texts.append(f"{name} {number}")
        if name == "reversed":
            both_ways = result.controls["reciprocal"] = reciprocal(found, control)
            texts[-1] += f" (and {both_ways} of reciprocal pairs)"
        if number >= max(found.sum(), 1):
            as_many.append(f"{name}: as many couplings as in the data are found")
    if impossible is not None:
        tested = np.isfinite(result.q_value)
        inside, outside = tested & impossible, tested & ~impossible
        number = result.controls["impossible"] = int((found & inside).sum())
        texts.append(f"impossible {number} of {inside.sum():,} such pairs")
        others = (found & outside).sum() / max(outside.sum(), 1)
        if number and number / inside.sum() >= others:
            as_many.append("impossible pairs: couplings are found as often as among the others")
    text = ", ".join(texts)
    if text:
        result.settings["controls"] = f"discoveries beside {found.sum()} in the data: {text}"
    if as_many:
        warnings.warn(
            f"{'; '.join(as_many)} ({text}; {found.sum()} in the data), where none can be.",
            UserWarning,
            stacklevel=3,
        )


def _control(name, model, recipe, epochs, covariates):
    """What is significant in a control, (n_cells, n_cells)."""
    events = CONTROLS[name](model.counts_, epochs, recipe.bin_size)
    largest = as_observation_model(model.observation_model).largest
    if largest is not None:
        events.amplitudes = np.minimum(events.amplitudes, largest)
    if name == "reversed" and covariates is not None:
        covariates = turned_rows(covariates, epochs)
    return recipe.couplings(events, recipe.design(events, epochs), covariates).significant()
