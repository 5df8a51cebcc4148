"""Single bases: a family of functions on the lags of a window (Conv) or at samples (Eval)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import numpy as np
import scipy.sparse

from fastglm._checks import (
    as_numbers,
    check_choice,
    check_memory,
    is_number,
    join,
    positive_int,
    read_trials,
    shown,
)
from fastglm._pynapple import (
    Timeline,
    common_timeline,
    intersect,
    keeps_times,
    pynapple_type,
    read_values,
)
from fastglm.basis.composition import Basis
from fastglm.features.dense import DenseColumns, SlowColumns
from fastglm.features.events import Events, columns_of
from fastglm.features.history import HistoryColumns
from fastglm.features.matrix import FeatureMatrix
from fastglm.features.traces import TraceColumns, is_dense

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


_LARGE_KERNEL = 1e8  # bytes
_CAUSALITIES = ("causal", "anti-causal", "acausal")
_CONV_KWARGS = (
    "predictor_causality",
    "shift",
    "batch_size_samples",
    "batch_size_channels",
    "batch_size_basis",
)


class Leaf(Basis):
    """A single basis: a family of functions, on a window or at samples."""

    bounds = None
    _fill_value = np.nan
    _orthogonal = False
    _rescales = False
    _learned = None  # for each input, lowest sample, length of the range, highest; see `learn`

    def set_params(self, **params: object) -> Self:
        """Set parameters by name; see scikit-learn."""
        super().set_params(**params)
        self._check()
        self.forget()
        return self

    def learn(self, *inputs: np.ndarray) -> None:
        """Keep the range of every column of the samples as its domain, where there are no bounds.

        A transformer calls it in its fit, so that a sample has the same features in every batch.
        """
        self.forget()
        if self._rescales and self.bounds is None:
            points = [as_columns(read_points(x)) for x in inputs]
            self._learned = [self._range_of(p) for p in points]

    def forget(self) -> None:
        """Forget what `learn` found."""
        self._learned = None

    @property
    def fill_value(self) -> float:
        """Value of the functions at a sample out of bounds."""
        return self._fill_value

    @fill_value.setter
    def fill_value(self, value: float) -> None:
        nothing = isinstance(value, float | np.floating) and np.isnan(value)
        if not nothing and not is_number(value):
            raise ValueError(f"fill_value is {value!r}; expected a number or NaN.")
        self._fill_value = value

    def _check(self):
        """Raise ValueError where parameters do not fit each other."""

    def _functions_of(self, u, j):
        """The functions at the rescaled points of column j."""
        return self._functions(u)

    def _density(self, scale):
        """Divisor of the functions on a domain of length ``scale``."""
        return np.ones_like(scale)

    @keeps_times
    def evaluate(self, *sample_pts: ArrayLike) -> np.ndarray:
        """The functions at the samples; each column of samples is rescaled to [0, 1].

        Parameters
        ----------
        *sample_pts : array of shape (n_samples, ...)
            The domain is given by the bounds, or by the range of each column without bounds.

        Returns
        -------
        ndarray of shape (n_samples, ..., n_basis_funcs)
            NaN where the sample is not finite, ``fill_value`` where it is out of bounds.

        Raises
        ------
        ValueError
            If there are neither bounds nor a finite sample: the domain is then not known. No
            samples have no values, and need no domain.
        """
        points = [read_points(x) for x in self._one_each(sample_pts)]
        shape = self._one_shape({p.shape for p in points})
        values = self._values(*map(as_columns, points))
        return values.reshape(*shape, values.shape[-1])

    def _values(self, points):
        """The functions at points of shape (n_samples, n_inputs), along one more axis."""
        if points.size == 0:
            return np.empty((*points.shape, self.n_basis_funcs))
        finite = np.isfinite(points)
        low, scale = self._range(points, self.bounds)
        with np.errstate(invalid="ignore"):
            u = (points - low) / scale
        outside = self._outside(points)
        if self._orthogonal:  # over the samples of each input
            parts = [self._functions_of(u[f, j], j) for j, f in enumerate(finite.T)]
            out = np.full((*points.shape, max(p.shape[1] for p in parts)), np.nan)
            for j, part in enumerate(parts):
                out[finite[:, j], j, : part.shape[1]] = part
        else:
            known = finite & ~outside
            values = self._functions(np.clip(u[known], 0, 1))
            out = np.full((*points.shape, values.shape[1]), np.nan)
            out[known] = values / self._density(scale[np.nonzero(known)[1], None])
        out[outside] = self.fill_value
        return out

    def _range(self, points, bounds, k=0):
        """Lowest point of every column of input k and the length of its range.

        The range of a constant column is 1.
        """
        if bounds is not None:
            low, high = (np.full(points.shape[1], b) for b in bounds)
            return low, high - low
        learned = self._learned_of(points, k)
        low, scale, _ = self._range_of(points) if learned is None else learned
        return low, scale

    def _range_of(self, points):
        """Lowest point of every column, the length of its range, and the highest point."""
        finite = np.isfinite(points)
        if not finite.any():
            raise ValueError(
                f"The samples of {self.label} hold no finite number; a range needs one."
            )
        low = np.where(finite, points, np.inf).min(axis=0)
        high = np.where(finite, points, -np.inf).max(axis=0)
        varies = high > low
        low[np.isinf(low)] = 0.0
        high = np.where(varies, high, low + 1.0)
        return low, high - low, high

    def _learned_of(self, points, k=0):
        """What was learned about input k; None if nothing was, or of other columns."""
        if self._learned is None or self._learned[k][0].size != points.shape[1]:
            return None
        return self._learned[k]

    def _outside(self, points):
        if self.bounds is not None:
            return (points < self.bounds[0]) | (points > self.bounds[1])
        learned = self._learned_of(points)
        if learned is None:
            return np.zeros(points.shape, bool)
        low, _, high = learned
        return (points < low) | (points > high)


class Conv(Leaf):
    """A basis that is convolved with the counts: a family on the lags of a window."""

    # --- parameters ---

    @property
    def window_size(self) -> int:
        """Length of the window in bins."""
        return self._window_size

    @window_size.setter
    def window_size(self, value: int) -> None:
        if value is None:
            raise ValueError("You must provide a window_size: a number of bins.")
        self._window_size = positive_int("window_size", value)

    @property
    def conv_kwargs(self) -> dict | None:
        """``predictor_causality`` and ``shift``; the batch sizes of NeMoS have no effect."""
        return self._conv_kwargs

    @conv_kwargs.setter
    def conv_kwargs(self, value: dict | None) -> None:
        if not isinstance(value, Mapping | None):
            raise ValueError(f"conv_kwargs is {shown(value)}; expected a dict or None.")
        kwargs = dict(value or {})
        if kwargs.get("axis", 0) != 0 or "axis" in kwargs:
            raise ValueError(
                "conv_kwargs holds `axis`; the bins are always axis 0. Transpose the counts?"
            )
        unknown = sorted(set(kwargs) - set(_CONV_KWARGS))
        if unknown:
            raise ValueError(
                f"conv_kwargs holds {unknown}; expected names from {list(_CONV_KWARGS)}."
            )
        causality = kwargs.get("predictor_causality", "causal")
        check_choice("predictor_causality", causality, _CAUSALITIES)
        if causality == "acausal" and kwargs.get("shift"):
            raise ValueError("shift=True needs a causal or anti-causal predictor.")
        self._conv_kwargs = value

    # --- kernel ---

    @property
    def kernel_(self) -> np.ndarray:
        """Kernel of shape (window_size, n_basis_funcs); row 0 weighs lag 1."""
        self._check_size()
        kernel = self._functions(np.linspace(0, 1, self.window_size))
        return np.ascontiguousarray(kernel)

    def _check_size(self, longest=None):
        """Raise ValueError if the kernel is too large for the memory, or for the longest epoch.

        A kernel that no epoch can use is made as long as it is small.
        """
        n_bytes = 8 * self.window_size * (self.n_basis_funcs or 1)
        what = (
            f"The kernel of {self.label}, {self.window_size:,} bins and {self.n_basis_funcs:,} "
            "functions,"
        )
        check_memory(what, 3 * n_bytes, "use a shorter window or fewer functions")
        if longest is not None and self.window_size > longest and n_bytes > _LARGE_KERNEL:
            raise ValueError(
                f"{what} is longer than the longest epoch, {longest:,} bins; use a shorter window. "
                "It is in bins, not in seconds."
            )

    def evaluate_on_grid(self, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
        """The functions on ``n_samples`` equally spaced points of [0, 1].

        Returns
        -------
        grid : ndarray of shape (n_samples,)
        values : ndarray of shape (n_samples, n_basis_funcs)
        """
        grid = np.linspace(0, 1, positive_int("n_samples", n_samples))
        return grid, self._functions(grid)

    # --- features ---

    def compute_features(
        self, xi: object, *more: object, epochs: object | None = None
    ) -> FeatureMatrix:
        """Features of the counts, as a matrix that is never stored.

        ``X[t, i * B + b] = sum_l kernel_[l, b] * counts[t - 1 - l, i]``. The first
        ``window_size`` rows of every epoch have no complete history: they are NaN, and `fit` and
        `score` drop them. NaN in the counts spreads to all rows whose window holds it.

        Parameters
        ----------
        xi : array of shape (n_bins, n_senders) or (n_bins,), or a list of such NumPy arrays
            Events per bin, or values such as calcium traces and field potentials. A SciPy sparse
            array, `Events` of a recording, and pynapple's TsdFrame or Tsd are accepted. A list
            holds trials: they are put end to end, and no history crosses from one trial to the
            next.
        epochs : array-like of shape (n_epochs, 2), or IntervalSet, optional
            First bin and one past the last of every epoch, ascending, not overlapping. Rows of bins
            outside all epochs are NaN. Default: one epoch, or the time support of a TsdFrame.
            Epochs of a TsdFrame are cut to its time support.

        Returns
        -------
        FeatureMatrix of shape (n_bins, n_senders * n_basis_funcs)
            Keeps 28 bytes for every count that is not zero. Where more than half of them are not
            zero (traces), it keeps a copy of the numbers: 8 bytes each, or 4 in float32. The window
            has no effect on memory.

        Raises
        ------
        ValueError
            If the counts are not numbers, the epochs do not fit them, or the basis is a part of a
            sum or a product. No bins have features without rows, and no senders features without
            columns.
        TypeError
            If there is a second input.
        """
        self._check_whole()
        if more:
            raise TypeError(
                f"{self.label} takes one input; {1 + len(more)} were given. Epochs are given by "
                "name: compute_features(counts, epochs=epochs)."
            )
        return self._compute_features(xi, epochs=epochs)

    def _compute_features(self, xi, *, epochs):
        counts, epochs, timeline = _read_samples(xi, epochs, "Counts")
        if timeline is not None:
            timeline.check_regular("Counts")
        self._input_shape = counts.shape[1:]
        n_bins = counts.shape[0]
        if isinstance(counts, np.ndarray):
            counts = as_columns(counts)
        self._check_size(int((epochs[:, 1] - epochs[:, 0]).max(initial=0)))
        kernel, shift = self.kernel_, self._shift()
        window_size = kernel.shape[0]
        complete = np.zeros(n_bins, bool)
        for begin, end in epochs:
            first = begin + max(0, window_size - shift)
            complete[first : max(first, min(end, end - shift + 1))] = True
        n_short = int(np.sum(epochs[:, 1] - epochs[:, 0] < window_size)) if n_bins else 0
        if n_short:
            warnings.warn(
                f"{n_short} of {len(epochs)} epochs are shorter than the window of "
                f"{window_size} bins; all their rows are NaN.",
                UserWarning,
                stacklevel=3,
            )
        rest = kernel, shift, self.label, complete
        if isinstance(counts, np.ndarray) and is_dense(counts):
            block = TraceColumns(counts, *rest)
        else:
            block = _of_events(Events.of(counts), *rest)
        block.inputs = columns_of(xi, timeline)
        return FeatureMatrix([block], timeline=timeline)

    def _domain(self):
        return f"window of {self.window_size:,} bins"

    def _shift(self):
        """Bins by which the window is moved into the future, from the causality."""
        kwargs = self.conv_kwargs or {}
        causality = kwargs.get("predictor_causality", "causal")
        shift = kwargs.get("shift")
        if causality == "causal":
            return 0 if shift in (None, True) else 1
        if causality == "anti-causal":
            return self.window_size + (1 if shift in (None, True) else 0)
        return self.window_size - (self.window_size - 1) // 2


class Eval(Leaf):
    """A basis of functions at the samples of covariates."""

    _bounds = None
    _rescales = True  # the functions depend on the domain

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lowest and highest sample of the domain; None is the range of the samples."""
        return self._bounds

    @bounds.setter
    def bounds(self, value: ArrayLike | None) -> None:
        self._bounds = None if value is None else read_bounds(value, self._rescales)

    def evaluate_on_grid(self, *n_samples: int) -> tuple[np.ndarray, ...]:
        """The functions on equally spaced points of the bounds, or of [0, 1].

        Parameters
        ----------
        *n_samples : int
            Number of points, for each input.

        Returns
        -------
        *grids : ndarrays of shape n_samples
        values : ndarray of shape (*n_samples, n_basis_funcs)
        """
        bounds = self._bounds_of_inputs()
        axes = [
            np.linspace(*(b or (0, 1)), positive_int("n_samples", n))
            for b, n in zip(bounds, self._one_each(n_samples), strict=True)
        ]
        grids = np.meshgrid(*axes, indexing="ij")
        values = self._values(*(g.reshape(-1, 1) for g in grids))
        return *grids, values.reshape(*grids[0].shape, -1)

    def _bounds_of_inputs(self):
        if self.bounds is None and self._learned is not None:
            # The grid of several columns with ranges of their own is [0, 1].
            return [(low[0], high[0]) if low.size == 1 else None for low, _, high in self._learned]
        return [self.bounds] * self._n_inputs

    def _domain(self):
        bounds = self._bounds_of_inputs()
        return ", ".join(f"{b[0]:g} to {b[1]:g}" if b else "range of the samples" for b in bounds)

    def compute_features(self, *xi: object, epochs: object | None = None) -> FeatureMatrix:
        """The functions at the samples of every bin, as ordinary columns.

        Parameters
        ----------
        *xi : array of shape (n_bins,) or (n_bins, ...), a list of such arrays, or `hold`
            One for each input; most bases have one input. Every column is evaluated on its own. A
            list holds trials, which are put end to end. A matrix from `fastglm.features.hold` is
            evaluated and kept once for each sample. A Tsd, TsdFrame or TsdTensor of pynapple is
            accepted.
        epochs : array-like of shape (n_epochs, 2), or IntervalSet, optional
            First bin and one past the last of every epoch. Rows of bins outside all epochs are NaN.

        Returns
        -------
        FeatureMatrix of shape (n_bins, n_inputs * n_basis_funcs)
            Keeps 8 bytes for each entry. A row with a sample that is not finite holds NaN. A row
            with a sample out of bounds is ``fill_value`` in all columns.

        Raises
        ------
        ValueError
            If the samples are not numbers, several inputs differ in shape, there are neither bounds
            nor a finite sample, the epochs do not fit, or the basis is a part of a sum or a
            product. No samples have features without rows.
        """
        self._check_whole()
        return self._compute_features(*xi, epochs=epochs)

    def _compute_features(self, *xi, epochs):
        held = [_held(x) for x in self._one_each(xi)]
        slow, timelines = held[0], [getattr(x, "timeline", None) for x in xi]
        if slow is not None and all(_same_runs(slow, h) for h in held):
            n_bins = slow.n_bins
            inputs = [h.values.reshape(-1, *h.sample_shape).astype(np.float64) for h in held]
            epochs = read_epochs(epochs, n_bins, timelines[0])
        else:
            slow, given = None, epochs
            inputs = []
            for k, (x, block) in enumerate(zip(xi, held, strict=True)):
                samples, epochs, timelines[k] = _read_samples(x, given, "Samples")
                if block is not None:
                    samples = samples.reshape(-1, *block.sample_shape)
                inputs.append(_as_floats(samples))
            n_bins = inputs[0].shape[0]
        shape = self._one_shape({x.shape for x in inputs})
        self._input_shape = shape[1:]
        values = self._features(*inputs)
        complete = None
        if (epochs[:, 1] - epochs[:, 0]).sum() < n_bins:
            complete = np.zeros(n_bins, bool)
            for begin, end in epochs:
                complete[begin:end] = True
        n_funcs = values.shape[-1]
        values = as_columns(values)
        timeline = common_timeline(timelines, [f"input {k}" for k in range(len(timelines))])
        if slow is not None:
            block = slow.with_values(values, self.label, n_funcs, complete)
        else:
            block = DenseColumns(values, self.label, n_funcs, complete)
        block.inputs = columns_of(xi[0], timeline)
        return FeatureMatrix([block], timeline=timeline)

    def _features(self, *inputs):
        """Values of shape (n_samples, ..., n_columns); the last axis is that of the functions."""
        inputs = [as_columns(x) for x in inputs]
        values = self._values(*inputs)
        outside = np.any([self._outside(x).any(axis=1) for x in inputs], axis=0)
        values[outside] = self.fill_value
        return values


def read_bounds(value: ArrayLike, finite: bool = True) -> tuple[float, float]:
    """Bounds as a pair of floats, the lower first; with ``finite`` none is infinite.

    Raises
    ------
    TypeError
        If the value does not hold numbers.
    ValueError
        If the numbers are no such pair.
    """
    fits, wrong = False, ValueError
    try:
        if any(v is None for v in value):
            raise TypeError
        low, high = as_numbers(list(value), "bounds").astype(np.float64)
        fits = bool(low < high) and not (finite and np.isinf([low, high]).any())
    except (TypeError, ValueError) as error:
        wrong = type(error)
    if not fits:
        raise wrong(f"bounds is {value!r}; expected a pair of numbers, low < high.")
    low, high = float(low), float(high)
    return low, high


def read_points(points: ArrayLike) -> np.ndarray:
    """Samples as an array of floats with at least one axis."""
    return np.atleast_1d(_as_floats(as_numbers(points, "Samples")))


def as_columns(array: np.ndarray) -> np.ndarray:
    """An array with all axes but the first as one; the array may have no rows."""
    return array.reshape(array.shape[0], math.prod(array.shape[1:]))


def _as_floats(array):
    array = array.toarray() if scipy.sparse.issparse(array) else array
    return array.astype(np.float64, copy=False)


def _held(x):
    """The slow block of a matrix that `hold` made; None for all other inputs."""
    if isinstance(x, FeatureMatrix) and len(x.blocks) == 1 and x.bins is None:
        return x.blocks[0] if isinstance(x.blocks[0], SlowColumns) else None
    return None


def _same_runs(block, other):
    return (
        other is not None
        and block.n_bins == other.n_bins
        and np.array_equal(block.starts, other.starts)
        and np.array_equal(block.samples, other.samples)
    )


def _of_events(events, *rest):
    """The history of counts that are 0 in most bins."""
    unknown, missing = ~np.isfinite(events.amplitudes), None
    if unknown.any():
        missing = np.column_stack([events.bins[unknown], events.units[unknown]])
        events = events.take(~unknown)
    return HistoryColumns(events, *rest, missing=missing)


def _read_samples(counts, epochs, name):
    """Counts or samples as an array with bins first, epochs (n_epochs, 2), and the timeline."""
    timeline = getattr(counts, "timeline", None)
    if isinstance(counts, Events) and name == "Counts":
        return counts, read_epochs(epochs, counts.n_bins, timeline), timeline
    if timeline is None:
        counts, timeline = read_values(counts, name)
    trials = read_trials(counts, name, (1, 2, 3, 4))
    if trials is not None:
        if epochs is not None:
            raise ValueError("epochs cannot be given with a list of trials, which are the epochs.")
        stops = np.cumsum([t.shape[0] for t in trials])
        epochs = np.column_stack([np.concatenate([[0], stops[:-1]]), stops])
        counts = join(trials)
    counts = as_numbers(counts, name)
    if counts.ndim == 0:  # a single sample
        counts = counts[None]
    if counts.shape[0] >= 2**31 - 2**20:
        raise ValueError(
            f"{name} have {counts.shape[0]} bins; at most 2**31 - 2**20 are supported."
        )
    return counts, read_epochs(epochs, counts.shape[0], timeline), timeline


def read_epochs(epochs: object, n_bins: int, timeline: Timeline | None = None) -> np.ndarray:
    """Epochs as a checked int64 array of shape (n_epochs, 2); None is one epoch of all bins.

    With a timeline, None is the epochs of the timeline, and given epochs are cut to them.

    Raises
    ------
    ValueError
        If a bound is not an integer, an epoch is empty, or epochs overlap or leave the bins.
    """
    own = np.array([[0, n_bins]]) if timeline is None else timeline.epochs
    if epochs is None:
        return own
    if pynapple_type(epochs) == "IntervalSet":
        if timeline is None:
            raise ValueError(
                "epochs is an IntervalSet, in seconds, but the counts have no times. Pass them as "
                "a TsdFrame, or epochs as first bin and one past the last."
            )
        array = timeline.within(epochs.values)
    else:
        array = _read_bounds_of_epochs(epochs, n_bins)
    array = intersect(array, own)
    if len(array) == 0:
        raise ValueError(f"epochs hold none of the {timeline or f'{n_bins} bins'}.")
    return array


def _read_bounds_of_epochs(epochs, n_bins):
    array = as_numbers(epochs, "epochs")
    if (
        scipy.sparse.issparse(array)
        or array.ndim != 2
        or array.shape[1] != 2
        or array.shape[0] == 0
    ):
        raise ValueError(
            f"epochs has shape {array.shape}; expected (n_epochs, 2): first bin and one past the "
            "last."
        )
    if array.dtype.kind not in "iu":
        if not (np.isfinite(array).all() and (array == np.round(array)).all()):
            raise ValueError(
                "epochs holds numbers that are not whole bins. Divide times by bin_size?"
            )
        array = array.astype(np.int64)
    if (array[:, 1] <= array[:, 0]).any() or (array[1:, 0] < array[:-1, 1]).any():
        raise ValueError(
            "epochs must be ascending, not empty and not overlapping; sort them or merge them."
        )
    if array[0, 0] < 0 or array[-1, 1] > n_bins:
        raise ValueError(
            f"epochs run from bin {array[0, 0]} to {array[-1, 1]}; the counts have bins 0 to "
            f"{n_bins}."
        )
    return array.astype(np.int64)


class Family:
    """Base of families of functions: the number of functions."""

    @property
    def n_basis_funcs(self) -> int:
        """Number of basis functions."""
        return self._n_basis_funcs

    @n_basis_funcs.setter
    def n_basis_funcs(self, value: int) -> None:
        self._n_basis_funcs = positive_int("n_basis_funcs", value)
