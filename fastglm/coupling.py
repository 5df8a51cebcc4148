"""From spike times to a fitted population in one call, without a table of counts."""

import numpy as np

from fastglm._times import Columns, Timeline, intersect, make_support, pynapple_type
from fastglm.basis import RaisedCosineLogConv
from fastglm.glm import PopulationGLM
from fastglm.recording import (
    SpikeTimes,
    as_epochs,
    check_bin_size,
    check_lengths,
    check_segments,
    check_spikes,
    count_events,
    end_of_last_bin,
    full_bins,
    is_number,
)

_WINDOW = 0.1  # seconds
_HALF_NANOSECOND = 5e-10  # pynapple rounds times to nanoseconds


def fit_coupling(
    units,
    bin_size=0.005,
    window=None,
    basis=None,
    regularizer="Ridge",
    regularizer_strength=1e-4,
    *,
    epochs=None,
    t_start=None,
    t_stop=None,
    progress=None,
    checkpoint=None,
    **settings,
):
    """Fit all-to-all coupling to spike times.

    The same as ``PopulationGLM(...).fit(basis.compute_features(counts, epochs), counts)``, but the
    counts are never a table: the spikes of each bin and unit become events, 16 bytes each (48 with
    the features). Beside them there is one byte a bin, so that bins of 0.1 ms will do; what the fit
    itself takes follows ``memory_budget``.

    Parameters
    ----------
    units : TsGroup, SpikeTimes, dict of arrays, or list of arrays
        Spike times in seconds, ascending: pynapple's TsGroup, what `fastglm.load_spikes` gives, or
        an array (or Ts) for each unit. Keys, ids and the metadata of a TsGroup name the cells of
        the coupling map.
    bin_size : float
        Seconds.
    window : float, optional
        Length of history, seconds. Default: 0.1, or that of the basis.
    basis : convolution basis, optional
        Default: ``RaisedCosineLogConv`` with 8 functions, or one a lag in a shorter window.
    regularizer, regularizer_strength
        As in `PopulationGLM`.
    epochs : array of shape (n_epochs, 2) or IntervalSet, optional
        Observed intervals, seconds. Default: the time support, the segments of the recording, or
        one epoch. No history crosses from one to the next, other spikes are left out.
    t_start, t_stop : float, optional
        Range, seconds, of which the epochs are a part. Default for arrays: 0, and the end of the
        last spike's bin.
    progress, checkpoint
        As in ``fit``.
    **settings
        Of `PopulationGLM`, such as ``feature_mask`` or ``memory_budget``.

    Returns
    -------
    PopulationGLM
        Fitted, with what other functions want beside the model:

        - ``X_``: FeatureMatrix of shape (n_bins, n_features). Of a TsGroup it has times, so that
          predictions are TsdFrames.
        - ``counts_``: `Events` of shape (n_bins, n_units), for functions that take y;
          ``counts_.toarray()`` is the table.
        - ``basis_`` and ``bin_size_``.
        - ``epochs_``: ndarray of shape (n_epochs, 2), first bin and one past the last.

        These are kept in pickles (48 bytes an event), not by `save_params`.

    Raises
    ------
    ValueError
        If units are not spike times, epochs or parameters do not fit them, or `fit` raises.

    Notes
    -----
    Bins of arrays are those of `fastglm.bin_spikes`: whole ones, from the start of each epoch on.
    Those of a TsGroup are those of ``units.count(bin_size)``, where the last bin of an epoch may
    reach over its end by less than half.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> rng = np.random.default_rng(0)
    >>> units = {name: np.sort(rng.uniform(0, 60, 500)) for name in ("a", "b", "c")}
    >>> model = fastglm.fit_coupling(units, bin_size=0.005, window=0.1, t_stop=60)
    >>> model.coef_.shape, bool(model.converged_.all())
    ((24, 3), True)
    >>> model.coupling_map(model.X_, model.counts_)
    CouplingMap of 3 senders x 3 receivers, 0 couplings with q <= 0.05
    >>> model.predict(model.X_).shape
    (12000, 3)
    """
    check_bin_size(bin_size)
    events, bounds, columns = read_units(units, bin_size, epochs, t_start, t_stop)
    basis = _read_basis(basis, window, bin_size)
    X = basis.compute_features(events, epochs=bounds)
    if regularizer is None:
        regularizer_strength = None
    model = PopulationGLM(
        regularizer=regularizer, regularizer_strength=regularizer_strength, **settings
    )
    model.fit(X, events, progress=progress, checkpoint=checkpoint)
    X.columns[0].inputs = model._receiver_columns = columns
    model.X_, model.counts_, model.basis_ = X, events, basis
    model.bin_size_, model.epochs_ = bin_size, bounds
    return model


def read_units(units, bin_size, epochs=None, t_start=None, t_stop=None):
    """Events of the counts, epochs in bins, and `Columns` of the units; see `fit_coupling`."""
    if pynapple_type(units) == "TsGroup":
        return _read_group(units, bin_size, epochs, t_start, t_stop)
    if isinstance(units, SpikeTimes):
        spikes = units.spike_times, units.unit, units.n_units
        names, own, whole = units.names, units.segments, (units.t_start, units.t_stop)
    else:
        spikes, names = _concatenate(units)
        low = 0.0 if t_start is None and epochs is None else float(spikes[0].min(initial=0.0))
        spikes = check_spikes(*spikes, min(low, 0.0), None)
        start = low if t_start is None else t_start
        _check_range(start, t_stop)
        whole = start, end_of_last_bin(spikes[0], start, bin_size)
        own = None
    if epochs is not None:
        given = check_segments(epochs, -np.inf, np.inf)
        own = given if own is None else intersect(given, own)
    segments = _cut(own, whole, t_start, t_stop)
    lengths = full_bins(segments, bin_size)
    events = count_events(*spikes, bin_size, segments, lengths)
    names = list(range(spikes[2])) if names is None else names
    return events, as_epochs(lengths), Columns(names)


def _read_group(units, bin_size, epochs, t_start, t_stop):
    """Those of a TsGroup, in the bins of its ``count``, whose edges are rounded to nanoseconds."""
    support = units.time_support
    segments = support.values
    if epochs is not None:
        segments = intersect(check_segments(epochs, -np.inf, np.inf), segments)
    segments = _cut(segments, None, t_start, t_stop)
    if not np.array_equal(segments, support.values):
        support = make_support(support, segments)
        segments = support.values
    bin_size = round(bin_size, 9)
    lengths = np.diff(segments)[:, 0] / bin_size + 0.5 + 1e-6
    lengths = check_lengths(lengths, bin_size, segments)
    columns = Columns.of(units)
    times = [units[name].t for name in columns.names]
    unit = np.repeat(np.arange(len(times)), [t.size for t in times])
    spike_times = np.concatenate(times)
    events = count_events(
        spike_times, unit, len(times), bin_size, segments, lengths, _HALF_NANOSECOND
    )
    events.timeline = Timeline(support, grid=(segments[:, 0], lengths, bin_size), columns=columns)
    return events, as_epochs(lengths), columns


def _cut(segments, whole, t_start, t_stop):
    """The segments, or the whole range, inside t_start and t_stop."""
    _check_range(t_start, t_stop)
    if segments is None:
        segments = np.array([whole], dtype=np.float64)
        if t_stop is not None:  # the range goes on where the spikes end
            segments[0, 1] = t_stop
    if t_start is not None or t_stop is not None:
        low = -np.inf if t_start is None else t_start
        segments = intersect(segments, [[low, np.inf if t_stop is None else t_stop]])
    if len(segments) == 0:
        raise ValueError(
            "Nothing is left of the recording: epochs, t_start and t_stop have no time in common "
            "with each other or with the time support. All are seconds."
        )
    return segments


def _check_range(t_start, t_stop):
    for name, value in (("t_start", t_start), ("t_stop", t_stop)):
        if value is not None and not is_number(value):
            raise ValueError(f"{name} is {value!r}; expected seconds.")
    if t_start is not None and t_stop is not None and t_stop <= t_start:
        raise ValueError(
            f"The recording runs from {t_start} to {t_stop} s; expected t_start < t_stop."
        )


def _concatenate(units):
    """Spike times, units and number of units of a list or dict of arrays, and the names."""
    if not isinstance(units, dict | list | tuple) or len(units) == 0:
        raise ValueError(
            f"units is a {type(units).__name__}; expected a TsGroup, what load_spikes gives, or a "
            "list or dict with an array of spike times for each unit. Counts go into "
            "basis.compute_features and PopulationGLM.fit."
        )
    names = list(units) if isinstance(units, dict) else None
    times = []
    for name, values in units.items() if names is not None else enumerate(units):
        array = np.asarray(values.t if pynapple_type(values) is not None else values)
        array = array.astype(np.float64) if array.size == 0 else array
        if array.ndim != 1 or array.dtype.kind not in "fiu":
            raise ValueError(
                f"unit {name!r} has shape {array.shape} and dtype {array.dtype}; expected a "
                "one-dimensional array of spike times in seconds."
            )
        times.append(array)
    unit = np.repeat(np.arange(len(times)), [t.size for t in times])
    return (np.concatenate(times), unit, len(times)), names


def _read_basis(basis, window, bin_size):
    if window is not None and not (is_number(window) and window / bin_size >= 0.5):
        raise ValueError(f"window is {window!r}; expected at least one bin of {bin_size} s.")
    if basis is None:
        size = max(round((_WINDOW if window is None else window) / bin_size), 1)
        if size < 2:
            raise ValueError(
                f"A window of one bin of {bin_size} s is too short for raised cosines; pass a "
                "longer window, or basis=fastglm.basis.HistoryConv(1)."
            )
        return RaisedCosineLogConv(min(8, size), window_size=size, label="coupling")
    size = getattr(basis, "window_size", None)
    if size is None:
        raise ValueError(
            f"basis is {basis!r}; expected a convolution basis, such as RaisedCosineLogConv."
        )
    if window is not None and round(window / bin_size) != size:
        raise ValueError(
            f"window is {window} s, {round(window / bin_size)} bins of {bin_size} s, but the basis "
            f"has window_size={size}; leave window out, or make the basis with "
            f"window_size={round(window / bin_size)}."
        )
    return basis


__all__ = ["fit_coupling"]
