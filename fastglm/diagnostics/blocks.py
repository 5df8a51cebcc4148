"""Does coupling help: held-out scores with and without each block of features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fastglm import _html
from fastglm._checks import check_choice, import_extra, shown
from fastglm._inputs import read_counts, read_penalty, read_problem
from fastglm.diagnostics.explained import HeldOut, held_out
from fastglm.features.matrix import as_feature_matrix
from fastglm.model_selection import split

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

MEASURES = ("bits_per_spike", "deviance_explained")
COUPLING, OWN = "coupling", "own history"


@dataclass
class Contributions:
    """Held-out scores of a model, and of the model without each block of features.

    Attributes
    ----------
    full : HeldOut
        Of the whole model.
    without : dict of str to HeldOut
        Of the model without a block, by the name of the block. The folds are the same.
    receivers : ndarray of shape (n_receivers,)
        Names, or numbers without names.
    """

    full: HeldOut
    without: dict[str, HeldOut]
    receivers: np.ndarray

    @property
    def measure(self) -> str:
        """The default measure: bits per spike, or for Gaussian observations deviance explained."""
        return MEASURES[0 if np.isfinite(self.full.bits_per_spike).any() else 1]

    def by_fold(self, block: str, measure: str | None = None) -> np.ndarray:
        """What a block adds to the held-out score, fold by fold: the score less that without it.

        Parameters
        ----------
        block : str
        measure : {"bits_per_spike", "deviance_explained"}, optional
            Default: ``measure`` of the object.

        Returns
        -------
        ndarray of shape (n_folds, n_receivers)
            Where a fit gives probability 0 to held-out counts, both scores are those without them.

        Raises
        ------
        ValueError
            If there is no such block or measure.
        """
        check_choice("block", block, self.without, f"one of {list(self.without)}")
        measure = self.measure if measure is None else measure
        check_choice("measure", measure, MEASURES, f"one of {list(MEASURES)}")
        scores = [self.full, self.without[block]]
        if any(score.possible is not None for score in scores):
            scores = [score.possible or score for score in scores]
        full, rest = (getattr(score, measure) for score in scores)
        return full - rest

    def gain(self, block: str, measure: str | None = None) -> np.ndarray:
        """What a block adds to the held-out score: mean of `by_fold`, (n_receivers,)."""
        return self.by_fold(block, measure).mean(axis=0)

    def standard_error(self, block: str, measure: str | None = None) -> np.ndarray:
        """Standard error of `gain`, (n_receivers,).

        The folds share the bins of their fits, so that their scores are not independent. With k
        folds the variance of a difference is multiplied by ``1 / k + 1 / (k - 1)`` instead of
        ``1 / k`` [1]_.

        References
        ----------
        .. [1] Nadeau and Bengio (2003), "Inference for the generalization error", Machine Learning
           52.
        """
        gain = self.by_fold(block, measure)
        k = len(gain)
        if k < 2:
            return np.full(gain.shape[1], np.nan)
        return gain.std(axis=0, ddof=1) * np.sqrt(1 / k + 1 / (k - 1))

    def to_frame(self) -> object:
        """One row for each block and receiver, a pandas DataFrame.

        For both measures it has the score of the whole model, what the block adds to it, and the
        standard error of that.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = import_extra("pandas")
        n = self.receivers.size
        columns = {
            "block": np.repeat(list(self.without), n),
            "receiver": np.tile(self.receivers, len(self.without)),
        }
        for measure in MEASURES:
            whole = getattr(self.full.possible or self.full, measure).mean(axis=0)
            columns[measure] = np.tile(whole, len(self.without))
            gains = [self.gain(block, measure) for block in self.without]
            errors = [self.standard_error(block, measure) for block in self.without]
            columns[f"{measure}_gain"] = np.concatenate(gains)
            columns[f"{measure}_error"] = np.concatenate(errors)
        return pandas.DataFrame(columns)

    def __repr__(self) -> str:
        n_folds, n = self.full.status.shape
        parts = "; ".join(f"{name} {gain}, {helps}" for name, gain, helps in self._summary())
        unit = self.measure.replace("_", " ")
        return f"Contributions to {n:,} receivers in {n_folds} folds, median {unit}: {parts}"

    def _repr_html_(self):
        head = ["block", f"{self.measure.replace('_', ' ')}, median", "receivers"]
        title = "What each block adds to the held-out score"
        return _html.table(title, [list(row) for row in self._summary()], head)

    def _summary(self) -> Iterator[tuple[str, str, str]]:
        """Name of a block, its median gain, and how many receivers it helps."""
        for block in self.without:
            gain, error = self.gain(block), self.standard_error(block)
            known = np.isfinite(gain)
            helped = int((gain[known] > 2 * error[known]).sum())
            median = _html.number(np.median(gain[known]), "+.3g") if known.any() else "unknown"
            yield block, median, f"{helped} of {int(known.sum())} above twice their error"


def contributions(
    model: object,
    X: object,
    y: object,
    folds: object = 5,
    *,
    blocks: dict | None = None,
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    offset: ArrayLike | None = None,
) -> Contributions:
    """Does coupling help? Held-out scores of a model with and without each block of its features.

    The whole model and the model without a block are fitted to the same bins and scored in the same
    held-out bins, with the same penalty. The difference is taken fold by fold, so that what folds
    differ in (rate, state) drops out. A difference above 0 says that the block predicts something
    that the rest of the model does not.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Its parameters hold for every fit. The model is not changed and need not be fitted.
    X, y, sample_weight, offset
        As in `fit`.
    folds, groups
        As in `fastglm.model_selection.cross_validate`.
    blocks : dict, optional
        Features to leave out, by a name of your choice: the label of a block of X, a list of
        labels, or a boolean array of shape (n_features,) or (n_features, n_receivers). Default: the
        history of the receivers themselves is "coupling" (all senders but the receiver itself) and
        "own history", and every other block of X goes by its label.

    Returns
    -------
    Contributions

    Raises
    ------
    ValueError
        If X and y cannot be fitted, a fold leaves no bins to fit or to score, or a block has no
        feature, an unknown label or another shape.

    See Also
    --------
    fastglm.plotting.plot_contributions : A picture of the differences with their errors.

    Notes
    -----
    ``(1 + n_blocks) * n_folds`` fits. A block that is left out costs nothing, like a mask.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> basis = fastglm.basis.RaisedCosineLogConv(4, window_size=20, label="history")
    >>> network = fastglm.simulation.random_network(4, basis, bin_size=0.005)
    >>> counts = network.simulate(20_000, random_key=0)
    >>> X = basis.compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4)
    >>> found = fastglm.diagnostics.contributions(model, X, counts)
    >>> list(found.without)
    ['coupling', 'own history']
    >>> found.gain("coupling").shape, bool(found.gain("own history").min() > 0)
    ((4,), True)
    """
    problem = read_problem(model, X, y, sample_weight, offset)
    if blocks is None:
        left_out = _blocks_of(as_feature_matrix(X), read_counts(model, y), problem.free)
    else:
        left_out = _read_blocks(blocks, problem)
    parts = list(split(problem.X, folds, problem.y, groups=groups, places=problem.places))
    full = held_out(problem, parts)
    without = {}
    for name, features in left_out.items():
        free = problem.free & ~features
        penalty = read_penalty(model, problem.X, free)
        rest = replace(problem, free=free, penalty=penalty)
        without[name] = held_out(rest, parts, f"without {name}, ")
    columns = problem.y.columns
    names = np.arange(problem.n_receivers) if columns is None else np.array(columns.names)
    return Contributions(full, without, names)


def _blocks_of(X, y, free):
    """The features of every block, by name; see `contributions`."""
    n, found = y.n_units, {}
    for block, (start, stop) in zip(X.blocks, X.column_ranges, strict=True):
        if block.lags and n > 1 and block.is_history_of(y, X.bins):
            sender = np.arange(block.n_columns) // block.n_funcs
            own = sender[:, None] == np.arange(n)
            named = {COUPLING: ~own, OWN: own}
        else:
            named = {block.label: np.ones((block.n_columns, 1), bool)}
        for name, features in named.items():
            found.setdefault(name, np.zeros(free.shape, bool))[start:stop] |= features
    return {name: features for name, features in found.items() if (features & free).any()}


def _read_blocks(blocks, problem):
    """The features that a user leaves out, by name, (n_features, n_receivers)."""
    if not isinstance(blocks, dict) or not blocks:
        raise ValueError(
            f"blocks is {shown(blocks)}; expected a dict of names and what to leave out, such as "
            "{'position': 'position'}."
        )
    found = {}
    for name, given in blocks.items():
        features = _read_features(name, given, problem)
        if not (features & problem.free).any():
            raise ValueError(f"blocks[{name!r}] leaves out no feature that is in the fit.")
        found[str(name)] = features
    return found


def _read_features(name, given, problem):
    X, (n_features, n) = problem.X, problem.free.shape
    if isinstance(given, str) or (
        isinstance(given, list | tuple) and given and all(isinstance(g, str) for g in given)
    ):
        labels = [given] if isinstance(given, str) else given
        unknown = [label for label in labels if label not in X.labels]
        if unknown:
            raise ValueError(f"blocks[{name!r}] names {unknown}; X has the labels {X.labels}.")
        inside = np.concatenate([[c.label in labels] * c.n_columns for c in X.blocks])
        return np.broadcast_to(inside[:, None], (n_features, n))
    features = np.asarray(given)
    if features.dtype == bool and features.ndim == 1 and features.size == n_features:
        features = features[:, None]
    if features.dtype != bool or features.shape not in ((n_features, 1), (n_features, n)):
        raise ValueError(
            f"blocks[{name!r}] has shape {features.shape} and type {features.dtype}; expected a "
            f"label, a list of labels, or booleans of shape ({n_features},) or ({n_features}, {n})."
        )
    return np.broadcast_to(features, (n_features, n))
