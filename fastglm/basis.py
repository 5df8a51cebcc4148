"""Temporal bases: the functions of lag that a coupling filter is made of.

A convolution basis has a kernel ``K`` of shape (window_size, n_basis_funcs), its functions on the
grid ``u = linspace(0, 1, window_size)``; row ``l`` weighs lag ``l + 1`` bins. The features are

    X[t, i * B + b] = sum_l K[l, b] * counts[t - 1 - l, i]

strictly causal, sender-major, basis function fast. Names, parameters and defaults are those of
NeMoS (Balzani et al., 2024), whose kernels these equal to 1e-12.
"""

import warnings

import numpy as np
import scipy.linalg
import scipy.sparse
from sklearn.base import BaseEstimator, clone

from fastglm.features import Events, FeatureMatrix, HistoryColumns, as_numbers, hstack

_CAUSALITIES = ("causal", "anti-causal", "acausal")
_CONV_KWARGS = (
    "predictor_causality",
    "shift",
    "batch_size_samples",
    "batch_size_channels",
    "batch_size_basis",
)


class _Basis(BaseEstimator):
    """What single bases and sums of bases share."""

    def __add__(self, other):
        if not isinstance(other, _Basis):
            return NotImplemented
        return AdditiveBasis(self, other)

    def split_by_feature(self, x, axis=1):
        """Split an array along its feature axis into one array per label.

        Parameters
        ----------
        x : array
            ``x.shape[axis]`` is the number of features of the last `compute_features`.
        axis : int, default 1
            The axis of features; 0 for ``coef_``.

        Returns
        -------
        dict
            ``{label: array}`` with the axis reshaped to (n_senders, n_basis_funcs): coupling
            coefficients become (sender, basis function, receiver). For a basis that was given a
            one-dimensional input the axis is (n_basis_funcs,).

        Raises
        ------
        ValueError
            Before `compute_features`, or if the length of the axis is not the number of features.
        """
        x = np.asarray(x)
        if self.n_output_features is None:
            raise ValueError(
                f"{self.label} does not know its number of inputs yet; call compute_features or "
                "set_input_shape first."
            )
        if not -x.ndim <= axis < x.ndim or x.shape[axis] != self.n_output_features:
            raise ValueError(
                f"x has shape {x.shape}; expected {self.n_output_features} features along axis "
                f"{axis}. Pass the axis that holds the features (0 for coef_)?"
            )
        axis %= x.ndim
        parts, start = {}, 0
        for basis in self._components():
            stop = start + basis.n_output_features
            part = x[(slice(None),) * axis + (slice(start, stop),)]
            shape = (*basis._input_shape, basis._n_kernel_columns)
            parts[basis.label] = part.reshape(*x.shape[:axis], *shape, *x.shape[axis + 1 :])
            start = stop
        return parts


class _ConvBasis(_Basis):
    """A basis that is convolved with the counts.

    Subclasses give ``_functions(u)``: their values on u in [0, 1], shape (n, n_basis_funcs).
    """

    _input_shape = None

    # --- parameters ---

    @property
    def window_size(self):
        """Length of the window in bins."""
        return self._window_size

    @window_size.setter
    def window_size(self, value):
        if value is None:
            raise ValueError("You must provide a window_size: a number of bins.")
        self._window_size = _positive_int("window_size", value)

    @property
    def n_basis_funcs(self):
        """Number of basis functions."""
        return self._n_basis_funcs

    @n_basis_funcs.setter
    def n_basis_funcs(self, value):
        self._n_basis_funcs = _positive_int("n_basis_funcs", value)

    @property
    def label(self):
        """Name of the basis in ``split_by_feature`` and in feature masks."""
        return self._label

    @label.setter
    def label(self, value):
        self._label = type(self).__name__ if value is None else str(value)

    @property
    def conv_kwargs(self):
        """``predictor_causality`` and ``shift``; the batch sizes of NeMoS change nothing here."""
        return self._conv_kwargs

    @conv_kwargs.setter
    def conv_kwargs(self, value):
        kwargs = {} if value is None else dict(value)
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
        if causality not in _CAUSALITIES:
            raise ValueError(
                f"predictor_causality is {causality!r}; expected one of {list(_CAUSALITIES)}."
            )
        if causality == "acausal" and kwargs.get("shift"):
            raise ValueError("shift=True needs a causal or anti-causal predictor.")
        self._conv_kwargs = value

    # --- kernel ---

    @property
    def kernel_(self):
        """Kernel of shape (window_size, n_basis_funcs); row 0 weighs lag 1."""
        kernel = self._functions(np.linspace(0, 1, self.window_size))
        return np.ascontiguousarray(kernel)

    @property
    def _n_kernel_columns(self):
        return self.n_basis_funcs

    def evaluate(self, sample_pts):
        """The functions at the sample points, which are rescaled to [0, 1] by their range.

        Parameters
        ----------
        sample_pts : array of shape (n_samples,)

        Returns
        -------
        ndarray of shape (n_samples, n_basis_funcs)
            NaN where the point is not finite.
        """
        points = as_numbers(sample_pts, "sample_pts").astype(np.float64)
        known = np.isfinite(points.ravel())
        if not known.any():
            raise ValueError("sample_pts holds no finite point; the functions need a range.")
        finite = points.ravel()[known]
        scale = np.ptp(finite) or 1.0
        values = self._functions((finite - finite.min()) / scale) / self._density(scale)
        out = np.full((known.size, values.shape[1]), np.nan)
        out[known] = values
        return out.reshape(*points.shape, -1)

    def _check(self):
        """Raise ValueError where parameters do not fit each other."""

    def set_params(self, **params):
        """Set parameters by name; see scikit-learn."""
        super().set_params(**params)
        self._check()
        return self

    def _density(self, scale):
        """What the functions are divided by when their domain has length ``scale``."""
        return 1.0

    def evaluate_on_grid(self, n_samples):
        """The functions on ``n_samples`` equally spaced points of [0, 1].

        Returns
        -------
        grid : ndarray of shape (n_samples,)
        values : ndarray of shape (n_samples, n_basis_funcs)
        """
        grid = np.linspace(0, 1, _positive_int("n_samples", n_samples))
        return grid, self._functions(grid)

    # --- features ---

    @property
    def n_output_features(self):
        """Number of columns of the features; None before the inputs are known."""
        if self._input_shape is None:
            return None
        return int(np.prod(self._input_shape, dtype=int)) * self._n_kernel_columns

    def set_input_shape(self, xi):
        """Tell the basis the shape of one bin of its input: a number of senders or an array."""
        if isinstance(xi, np.ndarray):
            self._input_shape = xi.shape[1:]
        else:
            self._input_shape = tuple(xi) if isinstance(xi, tuple) else (int(xi),)
        return self

    def compute_features(self, xi, epochs=None):
        """Features of the counts, as a matrix that is never stored.

        ``X[t, i * B + b] = sum_l kernel_[l, b] * counts[t - 1 - l, i]``. The first
        ``window_size`` rows of every epoch have no complete history: they are NaN, and `fit` and
        `score` drop them. NaN in the counts spreads to the rows that see it.

        Parameters
        ----------
        xi : array of shape (n_bins, n_senders) or (n_bins,), or a list of such NumPy arrays
            Events per bin; a SciPy sparse array will do. A list is a list of trials: they are put
            end to end, and no history crosses from one to the next.
        epochs : array-like of shape (n_epochs, 2), optional
            First bin and one past the last of every epoch, ascending, not overlapping. Bins
            outside have NaN rows. Default: one epoch.

        Returns
        -------
        FeatureMatrix of shape (n_bins, n_senders * n_basis_funcs)
            Keeps 32 bytes for every bin and sender with events, whatever the window.

        Raises
        ------
        ValueError
            If the counts are not numbers or empty, or the epochs do not fit them.
        """
        counts, epochs = _read_counts(xi, epochs)
        self._input_shape = counts.shape[1:]
        n_bins = counts.shape[0]
        if not scipy.sparse.issparse(counts):
            counts = counts.reshape(n_bins, -1)
        kernel, shift = self.kernel_, self._shift()
        window_size = kernel.shape[0]
        events, missing = Events.of(counts), None
        unknown = ~np.isfinite(events.amplitudes)
        if unknown.any():
            missing = np.column_stack([events.bins[unknown], events.units[unknown]])
            events = events.take(~unknown)
        complete = np.zeros(n_bins, bool)
        for begin, end in epochs:
            first = begin + max(0, window_size - shift)
            complete[first : max(first, min(end, end - shift + 1))] = True
        n_short = int(np.sum(epochs[:, 1] - epochs[:, 0] < window_size))
        if n_short:
            warnings.warn(
                f"{n_short} of {len(epochs)} epochs are shorter than the window of "
                f"{window_size} bins; all their rows are NaN.",
                UserWarning,
                stacklevel=2,
            )
        block = HistoryColumns(
            events, kernel, shift, self.label, complete=complete, missing=missing
        )
        return FeatureMatrix([block])

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

    def _components(self):
        return [self]


class HistoryConv(_ConvBasis):
    """Raw counts at every lag of the window: ``kernel_ = eye(window_size)``.

    Parameters
    ----------
    window_size : int
        Lags, in bins.
    label : str, default "HistoryConv"
    conv_kwargs : dict, optional
        ``predictor_causality`` ("causal", "anti-causal", "acausal") and ``shift``.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> counts = np.random.default_rng(0).poisson(0.5, size=(100, 4))
    >>> basis = fastglm.basis.HistoryConv(window_size=10, label="spike-history")
    >>> basis.compute_features(counts).shape
    (100, 40)
    """

    def __init__(self, window_size, label="HistoryConv", conv_kwargs=None):
        self.window_size = window_size
        self.label = label
        self.conv_kwargs = conv_kwargs

    @property
    def n_basis_funcs(self):
        """Number of basis functions: one per lag."""
        return self.window_size

    def _functions(self, u):
        return np.eye(u.size, self.window_size)


class RaisedCosineLinearConv(_ConvBasis):
    """Raised cosine bumps with equally spaced peaks (Pillow et al., 2005).

    ``0.5 * (cos(clip(pi * (u - p_b) / (d * width), -pi, pi)) + 1)`` with peaks
    ``p = linspace(0, 1, n_basis_funcs)`` and ``d = p[1] - p[0]``.

    Parameters
    ----------
    n_basis_funcs : int, at least 2
    window_size : int
        Lags, in bins.
    width : float, default 2.0
        Half-width of a bump in units of the spacing; greater than 1, ``2 * width`` an integer, so
        that the bumps sum to a constant.
    label : str
    conv_kwargs : dict, optional
    """

    def __init__(
        self,
        n_basis_funcs,
        window_size,
        width=2.0,
        label="RaisedCosineLinearConv",
        conv_kwargs=None,
    ):
        self.n_basis_funcs = n_basis_funcs
        self.window_size = window_size
        self.width = width
        self.label = label
        self.conv_kwargs = conv_kwargs

    @property
    def n_basis_funcs(self):
        """Number of basis functions."""
        return self._n_basis_funcs

    @n_basis_funcs.setter
    def n_basis_funcs(self, value):
        self._n_basis_funcs = _positive_int("n_basis_funcs", value)
        if self._n_basis_funcs < 2:
            raise ValueError(
                f"n_basis_funcs is {value}; {type(self).__name__} needs at least 2, since the "
                "spacing of the peaks sets the width."
            )

    @property
    def width(self):
        """Half-width of a bump in units of the spacing."""
        return self._width

    @width.setter
    def width(self, value):
        if not 1 < value < np.inf or not np.isclose(2 * value, round(2 * value)):
            raise ValueError(
                f"width is {value}; expected a number greater than 1 with an integer 2 * width, "
                "or the bumps would not sum to a constant. Use 2.0?"
            )
        self._width = value

    def _functions(self, u):
        return _raised_cosines(u, np.linspace(0, 1, self.n_basis_funcs), self.width)


class RaisedCosineLogConv(RaisedCosineLinearConv):
    """Raised cosine bumps on a logarithmic axis: fine at short lags (Pillow et al., 2008).

    As `RaisedCosineLinearConv` with ``x = log(s * u + 1) / log(s + 1)`` for u. The peaks reach
    ``1 - width / (n_basis_funcs + width - 1)`` if the last bump must decay to zero at the end of
    the window, else 1.

    Parameters
    ----------
    n_basis_funcs : int, at least 2
    window_size : int
        Lags, in bins.
    width : float, default 2.0
    time_scaling : float, default 50.0
        s above; near 0 the axis is linear.
    enforce_decay_to_zero : bool, default True
    label : str
    conv_kwargs : dict, optional

    Examples
    --------
    >>> import fastglm
    >>> fastglm.basis.RaisedCosineLogConv(3, window_size=3).kernel_.round(3)
    array([[1.   , 0.5  , 0.   ],
           [0.   , 0.   , 0.263],
           [0.   , 0.   , 0.   ]])
    """

    def __init__(
        self,
        n_basis_funcs,
        window_size,
        width=2.0,
        time_scaling=None,
        enforce_decay_to_zero=True,
        label="RaisedCosineLogConv",
        conv_kwargs=None,
    ):
        super().__init__(n_basis_funcs, window_size, width, label, conv_kwargs)
        self.time_scaling = time_scaling
        self.enforce_decay_to_zero = enforce_decay_to_zero

    @property
    def time_scaling(self):
        """Stretch of the logarithmic axis."""
        return self._time_scaling

    @time_scaling.setter
    def time_scaling(self, value):
        value = 50.0 if value is None else value
        if not value > 0:
            raise ValueError(f"time_scaling is {value}; expected a number above 0 (50 is usual).")
        self._time_scaling = value

    def _functions(self, u):
        x = np.log(self.time_scaling * u + 1) / np.log(self.time_scaling + 1)
        last = 1.0
        if self.enforce_decay_to_zero:
            last = 1 - self.width / (self.n_basis_funcs + self.width - 1)
        return _raised_cosines(x, np.linspace(0, last, self.n_basis_funcs), self.width)


def _raised_cosines(x, peaks, width):
    spacing = peaks[1] - peaks[0]
    phase = np.pi * (x[:, None] - peaks) / (spacing * width)
    return 0.5 * (np.cos(np.clip(phase, -np.pi, np.pi)) + 1)


class BSplineConv(_ConvBasis):
    """B-splines with equally spaced knots, clamped at both ends (de Boor, 1978).

    Parameters
    ----------
    n_basis_funcs : int, at least ``order``
    window_size : int
        Lags, in bins.
    order : int, default 4
        Degree plus one.
    label : str
    conv_kwargs : dict, optional
    """

    _min_order = 1

    def __init__(
        self,
        n_basis_funcs,
        window_size,
        order=4,
        label="BSplineConv",
        conv_kwargs=None,
    ):
        self.n_basis_funcs = n_basis_funcs
        self.window_size = window_size
        self.order = order
        self.label = label
        self.conv_kwargs = conv_kwargs
        self._check()

    @property
    def order(self):
        """Degree of the polynomials plus one."""
        return self._order

    @order.setter
    def order(self, value):
        self._order = _positive_int("order", value)
        if self._order < self._min_order:
            raise ValueError(
                f"order is {value}; {type(self).__name__} needs at least {self._min_order}."
            )

    def _check(self):
        if self.n_basis_funcs < self.order:
            raise ValueError(
                f"n_basis_funcs is {self.n_basis_funcs} and order {self.order}; "
                f"{type(self).__name__} needs at least as many functions as its order."
            )

    def _knots(self):
        # The last knot lies one eps beyond 1, so that the last function is not 0 at u = 1.
        end = 1 + np.finfo(float).eps
        inner = np.linspace(0, end, self.n_basis_funcs - self.order + 2)
        return np.concatenate([np.zeros(self.order - 1), inner, np.full(self.order - 1, end)])

    def _functions(self, u):
        return _bsplines(u, self._knots(), self.order)


class CyclicBSplineConv(BSplineConv):
    """B-splines on a circle: the functions that leave at the end come in at the start.

    Parameters
    ----------
    n_basis_funcs : int, at least ``order``
    window_size : int
        Lags, in bins.
    order : int, at least 2, default 4
    label : str
    conv_kwargs : dict, optional
    """

    _min_order = 2

    def __init__(
        self,
        n_basis_funcs,
        window_size,
        order=4,
        label="CyclicBSplineConv",
        conv_kwargs=None,
    ):
        super().__init__(n_basis_funcs, window_size, order, label, conv_kwargs)

    def _functions(self, u):
        n, order = self.n_basis_funcs, self.order
        knots = np.arange(1 - order, n + order) * ((1 + np.finfo(float).eps) / n)
        values = _bsplines(u, knots, order)
        values[:, : order - 1] += values[:, n:]
        return values[:, :n]


class MSplineConv(BSplineConv):
    """M-splines: B-splines scaled to integrate to 1 over the domain (Ramsay, 1988).

    Parameters
    ----------
    n_basis_funcs : int, at least ``order``
    window_size : int
        Lags, in bins.
    order : int, default 4
    label : str
    conv_kwargs : dict, optional
    """

    def __init__(
        self,
        n_basis_funcs,
        window_size,
        order=4,
        label="MSplineConv",
        conv_kwargs=None,
    ):
        super().__init__(n_basis_funcs, window_size, order, label, conv_kwargs)

    def _functions(self, u):
        knots, order = self._knots(), self.order
        span = knots[order:] - knots[: self.n_basis_funcs]
        return _bsplines(u, knots, order) * (order / span)

    def _density(self, scale):
        return scale


def _bsplines(u, knots, order):
    from scipy.interpolate import BSpline  # a tenth of a second that only splines pay

    return BSpline.design_matrix(u, knots, order - 1).toarray()


class OrthExponentialConv(_ConvBasis):
    """An orthonormal basis of the span of decaying exponentials ``exp(-rate * u)``.

    Where the exponentials are numerically dependent there are fewer columns than rates.

    Parameters
    ----------
    n_basis_funcs : int
    window_size : int, at least ``n_basis_funcs``
        Lags, in bins.
    decay_rates : array of shape (n_basis_funcs,)
        Distinct, per window.
    label : str
    conv_kwargs : dict, optional
    """

    def __init__(
        self,
        n_basis_funcs,
        window_size,
        decay_rates,
        label="OrthExponentialConv",
        conv_kwargs=None,
    ):
        self.n_basis_funcs = n_basis_funcs
        self.window_size = window_size
        self.decay_rates = decay_rates
        self.label = label
        self.conv_kwargs = conv_kwargs
        self._check()

    @property
    def decay_rates(self):
        """Decay rates, per window."""
        return self._decay_rates

    @decay_rates.setter
    def decay_rates(self, value):
        rates = as_numbers(value, "decay_rates")
        if np.unique(rates).size != rates.size:
            raise ValueError("decay_rates holds a rate twice, which makes the functions dependent.")
        self._decay_rates = value

    def _check(self):
        shape = np.shape(self.decay_rates)
        if shape != (self.n_basis_funcs,):
            raise ValueError(
                f"decay_rates has shape {shape}; expected one rate for each of the "
                f"{self.n_basis_funcs} basis functions."
            )

    @property
    def _n_kernel_columns(self):
        return self.kernel_.shape[1]

    def _functions(self, u):
        if u.size < self.n_basis_funcs:
            raise ValueError(
                f"{u.size} points for {self.n_basis_funcs} exponentials; OrthExponentialConv "
                "needs at least as many points (window_size) as functions."
            )
        rates = np.asarray(self.decay_rates, dtype=np.float64)
        return scipy.linalg.orth(np.exp(-u[:, None] * rates))


class AdditiveBasis(_Basis):
    """Bases side by side: ``a + b``. One input a basis, features in order, split by label.

    Parameters
    ----------
    basis1, basis2 : bases
        Copies are kept. Labels that stand twice get a number where they are default labels.
    label : str, optional

    Raises
    ------
    ValueError
        If two bases share a label that a user chose.
    """

    def __sklearn_clone__(self):
        return AdditiveBasis(clone(self.basis1), clone(self.basis2), self._label)

    def __init__(self, basis1, basis2, label=None):
        self.basis1 = _copy(basis1)
        self.basis2 = _copy(basis2)
        self.label = label
        taken = {b.label for b in self.basis1._components()}
        for basis in self.basis2._components():
            default = type(basis).__name__
            stem, _, number = basis.label.rpartition("_")
            is_default = basis.label == default or (stem == default and number.isdigit())
            if basis.label in taken and not is_default:
                raise ValueError(
                    f"Two bases have the label {basis.label!r}; give one of them another label."
                )
            n = 1
            while basis.label in taken:
                basis.label, n = f"{default}_{n}", n + 1
            taken.add(basis.label)

    @property
    def label(self):
        """Name of the sum."""
        return self._label or f"({self.basis1.label} + {self.basis2.label})"

    @label.setter
    def label(self, value):
        self._label = value

    @property
    def n_basis_funcs(self):
        """Number of basis functions of all components."""
        return sum(b.n_basis_funcs for b in self._components())

    @property
    def n_output_features(self):
        """Number of columns of the features; None before the inputs are known."""
        numbers = [b.n_output_features for b in self._components()]
        return None if None in numbers else sum(numbers)

    def set_input_shape(self, *xi):
        """Tell every component the shape of one bin of its input."""
        for basis, x in zip(self._components(), self._one_each(xi), strict=True):
            basis.set_input_shape(x)
        return self

    def compute_features(self, *xi, epochs=None):
        """Features of every component side by side; one input for each, in order.

        See the components' ``compute_features``; a row is complete where it is for all of them.
        """
        pairs = zip(self._components(), self._one_each(xi), strict=True)
        return hstack([basis.compute_features(x, epochs=epochs) for basis, x in pairs])

    def evaluate_on_grid(self, *n_samples):
        """The functions of all components on a grid with one axis a component.

        Returns
        -------
        *grids : ndarrays of shape n_samples
        values : ndarray of shape (*n_samples, n_basis_funcs)
        """
        n_samples = self._one_each(n_samples)
        parts = [b.evaluate_on_grid(n) for b, n in zip(self._components(), n_samples, strict=True)]
        grids = np.meshgrid(*(grid for grid, _ in parts), indexing="ij")
        values = []
        for axis, (_, value) in enumerate(parts):
            shape = [1] * len(n_samples) + [value.shape[1]]
            shape[axis] = value.shape[0]
            values.append(np.broadcast_to(value.reshape(shape), (*n_samples, value.shape[1])))
        return *grids, np.concatenate(values, axis=-1)

    def _one_each(self, inputs):
        n = len(self._components())
        if len(inputs) != n:
            raise ValueError(
                f"{len(inputs)} inputs for {n} bases; {self.label} takes one input for each, in "
                "order (the same counts may be given twice)."
            )
        return inputs

    def _components(self):
        return self.basis1._components() + self.basis2._components()


def _copy(basis):
    """A copy with the same parameters that also knows its inputs."""
    if isinstance(basis, AdditiveBasis):
        return AdditiveBasis(basis.basis1, basis.basis2, basis._label)
    copy = type(basis)(**basis.get_params(deep=False))
    copy._input_shape = basis._input_shape
    return copy


def _positive_int(name, value):
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not 1 <= value < np.inf or int(value) != value:
        raise ValueError(f"{name} is {value!r}; expected a positive integer.")
    return int(value)


def _read_counts(counts, epochs):
    """Counts as one numeric array with bins first, epochs as an array of shape (n_epochs, 2)."""
    if isinstance(counts, list | tuple) and all(isinstance(c, np.ndarray) for c in counts):
        trials = [np.atleast_1d(c) for c in counts]
        if epochs is not None:
            raise ValueError("epochs cannot be given with a list of trials, which are the epochs.")
        if len({t.shape[1:] for t in trials}) != 1:
            raise ValueError(
                f"Trials have shapes {[t.shape for t in trials]}; expected (n_bins, n_senders) "
                "with the same n_senders in each."
            )
        stops = np.cumsum([t.shape[0] for t in trials])
        epochs = np.column_stack([np.concatenate([[0], stops[:-1]]), stops])
        counts = np.concatenate(trials)
    counts = as_numbers(counts, "Counts")
    if counts.ndim == 0 or 0 in counts.shape:
        raise ValueError(
            f"Counts have shape {counts.shape}; expected (n_bins, n_senders), at least 1 by 1."
        )
    if counts.shape[0] >= 2**31 - 2**20:
        raise ValueError(
            f"Counts have {counts.shape[0]} bins; at most 2**31 - 2**20 are supported."
        )
    return counts, read_epochs(epochs, counts.shape[0])


def read_epochs(epochs, n_bins):
    """Epochs as an int64 array of shape (n_epochs, 2), checked; None is one epoch of all bins.

    Raises
    ------
    ValueError
        If a bound is not an integer, an epoch is empty, or epochs overlap or leave the bins.
    """
    if epochs is None:
        return np.array([[0, n_bins]])
    array = np.asarray(epochs)
    if array.ndim != 2 or array.shape[1] != 2 or array.shape[0] == 0:
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
