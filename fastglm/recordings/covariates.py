"""Covariates as people have them, brought to the bins of a recording.

A covariate is a value. A basis may stand before it, in a tuple with one input for each of its
inputs: the basis is then evaluated at the input (a place field) or convolved with it (a stimulus,
an event of a task).

| value or input | at the bins |
|---|---|
| array of n_bins rows | row t goes to bin t |
| Tsd or TsdFrame | a bin sees the last sample that is not after its middle |
| (times, values) | the same; times in seconds |
| Ts, TsGroup, or a list or dict of arrays of times | number of events in each bin; needs a basis |
| FeatureMatrix | its rows are the bins |

Samples are kept at their own rate; see `fastglm.features.hold`. A sample holds until the next one,
the last one for as long as the longest step between samples, and none beyond the time support of a
Tsd. A bin that sees no sample, or NaN, is left out of the fit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np

from fastglm._checks import as_dense_numbers, is_number, join, read_trials, shown
from fastglm._pynapple import Columns, pynapple_type
from fastglm.basis.composition import Basis
from fastglm.basis.leaf import Eval
from fastglm.features.events import Events
from fastglm.features.held import hold
from fastglm.features.matrix import FeatureMatrix, as_feature_matrix, hstack
from fastglm.recordings.bins import Bins
from fastglm.recordings.times import as_seconds, edge_of
from fastglm.recordings.trains import as_vector, count_events
from fastglm.recordings.units import read_trains

_SAMPLED = "Tsd", "TsdFrame", "TsdTensor"


def read_covariates(
    covariates: Mapping | FeatureMatrix | None, bins: Bins, taken: Sequence[str] = ()
) -> FeatureMatrix | None:
    """Covariates as features; see the head of this module.

    Parameters
    ----------
    covariates : dict of str to covariate, or FeatureMatrix, or None
    bins : Bins
    taken : sequence of str
        Labels that the features beside them have.

    Returns
    -------
    FeatureMatrix of shape (n_bins, n_columns) or None
        A block of columns has the name of its covariate as label; the blocks of a sum of bases have
        their own label after it.

    Raises
    ------
    ValueError
        If a covariate does not fit the bins or its basis, or is known in no bin. The sentence names
        it.
    """
    if covariates is None or (isinstance(covariates, Mapping) and not covariates):
        return None
    if isinstance(covariates, FeatureMatrix):
        return _check_rows("covariates", covariates, bins)
    if not isinstance(covariates, Mapping):
        raise ValueError(
            f"covariates is {shown(covariates)}; expected a dict from names to covariates, such as "
            "{'speed': speed}, or a FeatureMatrix."
        )
    twice = [name for name in covariates if name in taken]
    if twice:
        raise ValueError(
            f"covariate {twice[0]!r} has the label of a history, {list(taken)}; give it another "
            "name."
        )
    return hstack([_features(str(name), given, bins) for name, given in covariates.items()])


def _features(name, given, bins):
    """The columns of one covariate, labelled."""
    basis, inputs = None, (given,)
    if isinstance(given, tuple):
        if given and isinstance(given[0], Basis):
            basis, *inputs = given
        elif any(isinstance(one, Basis) for one in given):
            raise ValueError(
                f"covariate {name!r} has its basis after its input; expected (basis, input)."
            )
    at_bins = [_at_bins(name, one, bins) for one in inputs]
    if basis is None and isinstance(at_bins[0], Events):
        raise ValueError(
            f"covariate {name!r} holds times of events; expected a convolution basis before them, "
            "such as (fastglm.basis.RaisedCosineLogConv(5, window_size=50), times)."
        )
    if isinstance(basis, Eval) and any(isinstance(one, Events) for one in at_bins):
        raise ValueError(
            f"covariate {name!r} holds times of events, and {type(basis).__name__} is evaluated at "
            "values; expected a convolution basis, such as RaisedCosineLogConv."
        )
    try:
        if basis is None:
            X = as_feature_matrix(at_bins[0], one_column=True)
        else:
            X = basis.compute_features(*at_bins, epochs=bins.epochs)
    except (TypeError, ValueError) as error:
        raise type(error)(f"covariate {name!r}: {error}") from None
    if not X.valid.any():
        raise ValueError(f"covariate {name!r} is known in none of the {bins.n_bins} bins.")
    blocks = [copy.copy(block) for block in X.blocks]
    for block in blocks:
        block.label = name if len(blocks) == 1 else f"{name}.{block.label}"
    return FeatureMatrix(blocks, timeline=X.timeline)


def _at_bins(name, value, bins):
    """A value as an array with a row for each bin, a FeatureMatrix, or Events."""
    kind = pynapple_type(value)
    if isinstance(value, FeatureMatrix):
        return _check_rows(f"covariate {name!r}", value, bins)
    if kind in ("Ts", "TsGroup") or isinstance(value, dict):
        return _events(name, value, bins)
    if isinstance(value, list) and len(value) != bins.n_bins and not all(map(is_number, value)):
        return _events(name, value, bins) if bins.grid is not None else _trials(name, value, bins)
    if kind in _SAMPLED and bins.grid is not None:
        return _held(name, value.t, value.values, value.time_support.values, bins)
    if isinstance(value, tuple):
        if len(value) != 2:
            raise ValueError(
                f"covariate {name!r} is a tuple of {len(value)}; expected (times, values), or a "
                "basis and its inputs."
            )
        return _held(name, *value, None, bins)
    return _rows(name, value, bins)


def _rows(name, value, bins):
    array = as_dense_numbers(value.values if pynapple_type(value) else value, f"covariate {name!r}")
    if array.ndim == 0 or array.shape[0] != bins.n_bins or 0 in array.shape:
        hint = (
            " Samples at other times go in as (times, values), times of events in a list, [times]."
            if bins.grid is not None
            else ""
        )
        raise ValueError(
            f"covariate {name!r} has shape {array.shape}; expected {bins.n_bins} rows, one for "
            f"each bin.{hint}"
        )
    # Tables keep the names of their columns.
    return value if hasattr(value, "iloc") else array


def _check_rows(name, X, bins):
    if X.shape[0] != bins.n_bins:
        raise ValueError(
            f"{name} is a FeatureMatrix of {X.shape[0]} rows; expected {bins.n_bins}, one for each "
            "bin. Compute it from the same bins."
        )
    return X.unselected()


def _trials(name, value, bins):
    trials = read_trials(value, f"covariate {name!r}", (1, 2))
    if trials is None:
        raise ValueError(
            f"covariate {name!r} is a list, and the counts have no times; expected an array of "
            f"{bins.n_bins} rows, or an array for each trial. For times in seconds pass spike "
            "times, or counts as a TsdFrame."
        )
    return _rows(name, join(trials), bins)


def _need_times(name, what, bins):
    if bins.grid is None:
        raise ValueError(
            f"covariate {name!r} has {what} in seconds, and the counts have no times; pass spike "
            f"times, counts as a TsdFrame, or an array of {bins.n_bins} rows, one for each bin."
        )


def _events(name, value, bins):
    """Events of each bin."""
    _need_times(name, "times", bins)
    columns = None
    if pynapple_type(value) == "TsGroup":
        columns = Columns.of(value)
        value = {key: value[key] for key in columns.names}
    elif pynapple_type(value) == "Ts":
        value = [value]
    try:
        trains = read_trains(value)
    except ValueError as error:
        raise ValueError(f"covariate {name!r}: {error}") from None
    times = np.concatenate(trains.times)
    unit = np.repeat(np.arange(len(trains.times)), [t.size for t in trains.times])
    grid, segments = bins.grid, bins.grid.segments
    edge = edge_of(grid.bin_size, segments)
    events = count_events(
        times, unit, len(trains.times), grid.bin_size, segments, grid.lengths, edge
    )
    if events.n_events == 0:
        raise ValueError(
            f"covariate {name!r} has {times.size} events, none in the bins, which run from "
            "{:g} to {:g} s.".format(*bins.grid.ends)
        )
    if columns is None and trains.names is not None:
        columns = Columns(trains.names)
    events.columns = columns
    return events


def _held(name, times, values, support, bins):
    """Samples at their own rate as a FeatureMatrix, or as an array if they are as fast as bins."""
    what = f"times of covariate {name!r}"
    times = as_vector(what, as_seconds(times, what)).astype(np.float64)
    _need_times(name, "times", bins)
    values = as_dense_numbers(values, f"covariate {name!r}")
    if values.ndim == 0 or values.shape[0] != times.size or 0 in values.shape:
        raise ValueError(
            f"covariate {name!r} has {times.size} times and values of shape {values.shape}; "
            "expected a row of values for each time."
        )
    if not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise ValueError(f"{what} are not finite and ascending; sort them, seconds.")
    longest = np.diff(times).max(initial=0.0) if times.size > 1 else np.inf
    until = np.append(times[1:], times[-1] + longest)
    if support is not None:
        interval = np.searchsorted(support[:, 0], times, side="right") - 1
        until = np.minimum(until, support[interval.clip(min=0), 1])
    starts, samples = bins.grid.runs(times, until)
    if (samples < 0).all():
        raise ValueError(
            f"covariate {name!r} has samples from {times[0]:g} to {times[-1]:g} s, and the bins "
            "run from {:g} to {:g} s; expected seconds of the same clock.".format(*bins.grid.ends)
        )
    values = values.astype(np.float64)
    values = np.concatenate([values, np.full_like(values[:1], np.nan)])[samples]
    if 2 * starts.size > bins.n_bins:
        return np.repeat(values, np.diff(starts, append=bins.n_bins), axis=0)
    return hold(values, bins.n_bins, starts=starts, label=name)


__all__ = ["read_covariates"]
