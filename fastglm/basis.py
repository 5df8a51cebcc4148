"""Temporal bases and bases of covariates: the functions that filters and tuning curves are made of.

A convolution basis (Conv) has a kernel ``K`` of shape (window_size, n_basis_funcs), its functions
on the grid ``u = linspace(0, 1, window_size)``; row ``l`` weighs lag ``l + 1`` bins. Its features
are

    X[t, i * B + b] = sum_l K[l, b] * counts[t - 1 - l, i]

strictly causal, sender-major, basis function fast. An evaluation basis (Eval) gives its functions
at the samples of a covariate, rescaled to [0, 1] by its bounds or else by the range of the samples:

    X[t, i * B + b] = f_b((x[t, i] - low) / (high - low))

Bases are added and multiplied (`AdditiveBasis`, `MultiplicativeBasis`). Names, parameters and
defaults are those of NeMoS (Balzani et al., 2024), whose values these equal to 1e-12.
"""

import inspect
import itertools
import warnings

import numpy as np

from fastglm import _families as families
from fastglm._composition import (
    AdditiveBasis,
    MultiplicativeBasis,
    TransformerBasis,
    sample_shape,
)
from fastglm._families import positive_int
from fastglm._leaf import Conv, Eval, read_bounds, read_points

# --- convolutions -------------------------------------------------------------------------------


class HistoryConv(Conv):
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


class RaisedCosineLinearConv(families.RaisedCosineLinear, Conv):
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


class RaisedCosineLogConv(families.RaisedCosineLog, Conv):
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
        self.n_basis_funcs = n_basis_funcs
        self.window_size = window_size
        self.width = width
        self.time_scaling = time_scaling
        self.enforce_decay_to_zero = enforce_decay_to_zero
        self.label = label
        self.conv_kwargs = conv_kwargs


class BSplineConv(families.BSpline, Conv):
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

    def __init__(self, n_basis_funcs, window_size, order=4, label="BSplineConv", conv_kwargs=None):
        self.n_basis_funcs = n_basis_funcs
        self.window_size = window_size
        self.order = order
        self.label = label
        self.conv_kwargs = conv_kwargs
        self._check()


class CyclicBSplineConv(families.CyclicBSpline, Conv):
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

    def __init__(
        self, n_basis_funcs, window_size, order=4, label="CyclicBSplineConv", conv_kwargs=None
    ):
        self.n_basis_funcs = n_basis_funcs
        self.window_size = window_size
        self.order = order
        self.label = label
        self.conv_kwargs = conv_kwargs
        self._check()


class MSplineConv(families.MSpline, Conv):
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

    def __init__(self, n_basis_funcs, window_size, order=4, label="MSplineConv", conv_kwargs=None):
        self.n_basis_funcs = n_basis_funcs
        self.window_size = window_size
        self.order = order
        self.label = label
        self.conv_kwargs = conv_kwargs
        self._check()


class OrthExponentialConv(families.OrthExponential, Conv):
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
        self, n_basis_funcs, window_size, decay_rates, label="OrthExponentialConv", conv_kwargs=None
    ):
        self.n_basis_funcs = n_basis_funcs
        self.window_size = window_size
        self.decay_rates = decay_rates
        self.label = label
        self.conv_kwargs = conv_kwargs
        self._check()

    @property
    def _n_columns(self):
        return self.kernel_.shape[1]


# --- functions of covariates --------------------------------------------------------------------


class RaisedCosineLinearEval(families.RaisedCosineLinear, Eval):
    """Raised cosine bumps with equally spaced peaks (Pillow et al., 2005).

    ``0.5 * (cos(clip(pi * (u - p_b) / (d * width), -pi, pi)) + 1)`` with peaks
    ``p = linspace(0, 1, n_basis_funcs)``, ``d = p[1] - p[0]`` and ``u`` the sample rescaled to
    [0, 1].

    Parameters
    ----------
    n_basis_funcs : int, at least 2
    width : float, default 2.0
        Half-width of a bump in units of the spacing; greater than 1, ``2 * width`` an integer, so
        that the bumps sum to a constant.
    bounds : pair of floats, optional
        Domain; default: the range of the samples.
    fill_value : float, default NaN
        For samples out of bounds.
    label : str

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> speed = np.array([0.0, 2.0, 4.0, 9.0])
    >>> fastglm.basis.RaisedCosineLinearEval(3, bounds=(0, 4)).compute_features(speed)[:]
    array([[1. , 0.5, 0. ],
           [0.5, 1. , 0.5],
           [0. , 0.5, 1. ],
           [nan, nan, nan]])
    """

    def __init__(
        self,
        n_basis_funcs,
        width=2.0,
        bounds=None,
        fill_value=np.nan,
        label="RaisedCosineLinearEval",
    ):
        self.n_basis_funcs = n_basis_funcs
        self.width = width
        self.bounds = bounds
        self.fill_value = fill_value
        self.label = label


class RaisedCosineLogEval(families.RaisedCosineLog, Eval):
    """Raised cosine bumps on a logarithmic axis: fine at small values (Pillow et al., 2008).

    As `RaisedCosineLinearEval` with ``log(s * u + 1) / log(s + 1)`` for u. The peaks reach
    ``1 - width / (n_basis_funcs + width - 1)`` if the last bump must decay to zero at the highest
    sample, else 1.

    Parameters
    ----------
    n_basis_funcs : int, at least 2
    width : float, default 2.0
    time_scaling : float, default 50.0
        s above; near 0 the axis is linear.
    enforce_decay_to_zero : bool, default True
    bounds : pair of floats, optional
        Domain; default: the range of the samples.
    fill_value : float, default NaN
        For samples out of bounds.
    label : str

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> fastglm.basis.RaisedCosineLogEval(4).compute_features(np.arange(100.0)).shape
    (100, 4)
    """

    def __init__(
        self,
        n_basis_funcs,
        width=2.0,
        time_scaling=None,
        enforce_decay_to_zero=True,
        bounds=None,
        fill_value=np.nan,
        label="RaisedCosineLogEval",
    ):
        self.n_basis_funcs = n_basis_funcs
        self.width = width
        self.time_scaling = time_scaling
        self.enforce_decay_to_zero = enforce_decay_to_zero
        self.bounds = bounds
        self.fill_value = fill_value
        self.label = label


class BSplineEval(families.BSpline, Eval):
    """B-splines with equally spaced knots, clamped at both ends (de Boor, 1978).

    Piecewise polynomials of degree ``order - 1`` in the sample rescaled to [0, 1], that sum to 1.

    Parameters
    ----------
    n_basis_funcs : int, at least ``order``
    order : int, default 4
        Degree plus one.
    bounds : pair of floats, optional
        Domain; default: the range of the samples.
    fill_value : float, default NaN
        For samples out of bounds.
    label : str

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> position = np.random.default_rng(0).random((1000, 2))
    >>> basis = fastglm.basis.BSplineEval(6, bounds=(0, 1), label="position")
    >>> X = basis.compute_features(position)
    >>> X.shape, basis.split_by_feature(X)["position"].shape
    ((1000, 12), (1000, 2, 6))
    """

    def __init__(self, n_basis_funcs, order=4, bounds=None, fill_value=np.nan, label="BSplineEval"):
        self.n_basis_funcs = n_basis_funcs
        self.order = order
        self.bounds = bounds
        self.fill_value = fill_value
        self.label = label
        self._check()


class CyclicBSplineEval(families.CyclicBSpline, Eval):
    """B-splines on a circle, for angles and phases: both ends of the range meet smoothly.

    The functions that leave at the end come in at the start. Give the period as ``bounds``.

    Parameters
    ----------
    n_basis_funcs : int, at least ``order``
    order : int, at least 2, default 4
    bounds : pair of floats, optional
        Domain; default: the range of the samples.
    fill_value : float, default NaN
        For samples out of bounds.
    label : str

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> basis = fastglm.basis.CyclicBSplineEval(8, bounds=(0, 2 * np.pi))
    >>> start, end = basis.evaluate([0, 2 * np.pi])
    >>> np.allclose(start, end)
    True
    """

    def __init__(
        self, n_basis_funcs, order=4, bounds=None, fill_value=np.nan, label="CyclicBSplineEval"
    ):
        self.n_basis_funcs = n_basis_funcs
        self.order = order
        self.bounds = bounds
        self.fill_value = fill_value
        self.label = label
        self._check()


class MSplineEval(families.MSpline, Eval):
    """M-splines: B-splines scaled to integrate to 1 over the domain (Ramsay, 1988).

    The domain is that of the bounds or of the samples: twice the range halves the values.

    Parameters
    ----------
    n_basis_funcs : int, at least ``order``
    order : int, default 4
    bounds : pair of floats, optional
        Domain; default: the range of the samples.
    fill_value : float, default NaN
        For samples out of bounds.
    label : str

    Examples
    --------
    >>> import fastglm, scipy.integrate
    >>> grid, values = fastglm.basis.MSplineEval(5, bounds=(0, 2)).evaluate_on_grid(2001)
    >>> scipy.integrate.trapezoid(values, grid, axis=0).round(4)
    array([1., 1., 1., 1., 1.])
    """

    def __init__(self, n_basis_funcs, order=4, bounds=None, fill_value=np.nan, label="MSplineEval"):
        self.n_basis_funcs = n_basis_funcs
        self.order = order
        self.bounds = bounds
        self.fill_value = fill_value
        self.label = label
        self._check()


class OrthExponentialEval(families.OrthExponential, Eval):
    """An orthonormal basis of the span of decaying exponentials ``exp(-rate * u)``.

    Orthonormal over the samples that it is given, so its values at a sample depend on the others:
    a model has to be given the samples of the fit again. Where the exponentials are numerically
    dependent there are fewer columns than rates.

    Parameters
    ----------
    n_basis_funcs : int
    decay_rates : array of shape (n_basis_funcs,)
        Distinct, per range.
    bounds : pair of floats, optional
        Domain; default: the range of the samples.
    fill_value : float, default NaN
        For samples out of bounds.
    label : str

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> basis = fastglm.basis.OrthExponentialEval(2, decay_rates=[1.0, 5.0])
    >>> X = basis.compute_features(np.linspace(0, 1, 50))
    >>> (X.T @ X[:]).round(6) + 0.0
    array([[1., 0.],
           [0., 1.]])
    """

    def __init__(
        self,
        n_basis_funcs,
        decay_rates,
        bounds=None,
        fill_value=np.nan,
        label="OrthExponentialEval",
    ):
        self.n_basis_funcs = n_basis_funcs
        self.decay_rates = decay_rates
        self.bounds = bounds
        self.fill_value = fill_value
        self.label = label
        self._check()

    @property
    def _n_columns(self):
        return getattr(self, "_n_found", self.n_basis_funcs)

    def _features(self, *inputs):
        values = super()._features(*inputs)
        self._n_found = values.shape[-1]
        return values


class IdentityEval(Eval):
    """The covariate itself, as a column.

    Parameters
    ----------
    bounds : pair of floats, optional
        Samples out of bounds become ``fill_value``.
    fill_value : float, default NaN
    label : str

    Examples
    --------
    >>> import fastglm
    >>> fastglm.basis.IdentityEval(bounds=(0, 5)).compute_features([1.0, 7.0, 2.0])[:, 0]
    array([ 1., nan,  2.])
    """

    def __init__(self, bounds=None, fill_value=np.nan, label="IdentityEval"):
        self.bounds = bounds
        self.fill_value = fill_value
        self.label = label

    @property
    def n_basis_funcs(self):
        """Number of basis functions: one."""
        return 1

    def _values(self, points):
        values = np.where(np.isfinite(points), points, np.nan)
        values[self._outside(points)] = self.fill_value
        return values[..., None]


class Zero(Eval):
    """No function: keeps the place of an input in a sum that leaves it out.

    Parameters
    ----------
    label : str

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> basis = fastglm.basis.Zero() + fastglm.basis.BSplineEval(5)
    >>> basis.compute_features(np.arange(9), np.arange(9)).shape
    (9, 5)
    """

    def __init__(self, label="Zero"):
        self.label = label

    @property
    def n_basis_funcs(self):
        """Number of basis functions: none."""
        return 0

    def _values(self, points):
        return np.empty((*points.shape, 0))


class FourierEval(Eval):
    """Cosines and sines of one or several inputs.

    With ``x_d`` rescaled so that the bounds, or the range of the samples, are one period, and
    frequencies ``f = (f_1, ..., f_ndim)``, the functions are ``cos(2 pi f x)`` for all f and
    then ``sin(2 pi f x)`` for all f but 0.

    Parameters
    ----------
    frequencies : int, pair, ndarray or list
        ``k``: 0 to k - 1; ``(low, high)``: low to high - 1; an array of whole numbers >= 0. A list
        has one of these for each dimension; else it is the same for all. All combinations are
        taken.
    ndim : int, default 1
        Number of inputs, of the same shape.
    bounds : pair of floats or a pair for each input, optional
        One period; samples beyond it are wrapped, not filled.
    frequency_mask : "no-intercept", "all", None, array or callable
        "no-intercept" leaves frequency 0 out; "all" and None keep it. An array of 0 and 1 has one
        axis a dimension; a function of the frequencies of a combination returns True to keep it.
    label : str

    Raises
    ------
    ValueError
        If frequencies are negative or not whole, or the mask does not fit them.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> heading = np.random.default_rng(0).uniform(0, 2 * np.pi, size=100)
    >>> basis = fastglm.basis.FourierEval(4, bounds=(0, 2 * np.pi))
    >>> basis.compute_features(heading).shape  # cos and sin of 1, 2, 3 periods
    (100, 6)
    >>> fastglm.basis.FourierEval(3, ndim=2, frequency_mask=lambda f, g: f + g < 3).n_basis_funcs
    11
    """

    is_complex = True

    def __init__(
        self, frequencies, ndim=1, bounds=None, frequency_mask="no-intercept", label="FourierEval"
    ):
        self._n_inputs = positive_int("ndim", ndim)
        self.frequencies = frequencies
        self.bounds = bounds
        self.frequency_mask = frequency_mask
        self.label = label
        self._check()

    @property
    def ndim(self):
        """Number of inputs."""
        return self._n_inputs

    @property
    def frequencies(self):
        """Frequencies of every dimension, a list of arrays."""
        return self._frequencies

    @frequencies.setter
    def frequencies(self, value):
        if not isinstance(value, list):
            value = [value] * self.ndim
        if len(value) != self.ndim:
            raise ValueError(
                f"frequencies is a list of {len(value)}; expected one entry for each of the "
                f"{self.ndim} dimensions. Pass an array for the frequencies of one?"
            )
        self._frequencies = [_read_frequencies(f) for f in value]

    @property
    def bounds(self):
        """One period: a pair, or a pair for each input; None takes the range of the samples."""
        return self._bounds

    @bounds.setter
    def bounds(self, value):
        pairs = value is not None and np.ndim(value) == 2
        if pairs and len(value) != self.ndim:
            raise ValueError(
                f"bounds holds {len(value)} pairs; expected one for each of the {self.ndim} inputs."
            )
        if pairs:
            self._bounds = tuple(read_bounds(b) for b in value)
        else:
            self._bounds = None if value is None else read_bounds(value)

    def _bounds_of_inputs(self):
        if self.bounds is None or np.ndim(self.bounds) == 1:
            return [self.bounds] * self.ndim
        return list(self.bounds)

    @property
    def masked_frequencies(self):
        """Frequencies that are used, shape (ndim, n_combinations)."""
        combinations = np.array(list(itertools.product(*self.frequencies))).reshape(-1, self.ndim)
        mask = self.frequency_mask
        if mask is None or isinstance(mask, str):
            if mask not in (None, "all", "no-intercept"):
                raise ValueError(
                    f"frequency_mask is {mask!r}; expected 'no-intercept', 'all', an array or a "
                    "function."
                )
            keep = np.ones(len(combinations), bool)
            if mask == "no-intercept":
                keep = combinations.any(axis=1)
        else:
            if callable(mask):
                keep = np.array([mask(*f) for f in combinations])
                shape = (len(combinations),)
            else:
                keep, shape = np.asarray(mask), tuple(f.size for f in self.frequencies)
            if keep.shape != shape or not np.isin(keep, (0, 1)).all():
                raise ValueError(
                    f"frequency_mask gives an array of shape {keep.shape}; expected 0 or 1 for "
                    f"each frequency, shape {shape}."
                )
            keep = keep.astype(bool).ravel()
        return combinations[keep].T

    def _check(self):
        self.masked_frequencies  # noqa: B018  (raises where the mask does not fit)

    @property
    def n_basis_funcs(self):
        """Number of cosines and sines."""
        frequencies = self.masked_frequencies
        return 2 * frequencies.shape[1] - int((~frequencies.any(axis=0)).sum())

    def _values(self, *points):
        turns = []
        for x, bounds in zip(points, self._bounds_of_inputs(), strict=True):
            low, scale = self._range(x, bounds)
            turns.append(np.where(np.isfinite(x), (x - low) / scale, np.nan))
        frequencies = self.masked_frequencies
        angles = 2 * np.pi * (np.stack(turns, axis=-1) @ frequencies)
        waves = frequencies.any(axis=0)
        return np.concatenate([np.cos(angles), np.sin(angles[..., waves])], axis=-1)

    def _features(self, *inputs):
        return self._values(*(x.reshape(x.shape[0], -1) for x in inputs))


class CustomBasis(Eval):
    """Functions of the user's own.

    Column b is ``funcs[b](*inputs, **basis_kwargs)``, an array whose first axis is that of the
    samples. Axes of the inputs beyond ``ndim_input`` are inputs of their own, and every function
    is called once for each.

    Parameters
    ----------
    funcs : callable or list of callables
        All take the same number of positional arguments without default: the inputs.
    ndim_input : int, default 1
        Axes of an input that the functions work on, that of the samples among them.
    output_shape : int or tuple, optional
        Shape of a function's value at one sample; found at the first evaluation.
    basis_kwargs : dict, optional
        Further arguments of all functions.
    pynapple_support : bool
        Has no effect: the functions are given NumPy arrays.
    label : str
    is_complex : bool, default False
        The functions are cosines and sines; such bases cannot be multiplied with each other.
    bounds : pair of floats, optional
        In ``compute_features`` a row with a sample out of bounds becomes ``fill_value``.
    fill_value : float, default NaN

    Raises
    ------
    ValueError
        If ``funcs`` are not callable, or differ in their number of inputs.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> basis = fastglm.basis.CustomBasis([lambda x: x, lambda x: x**2], label="powers")
    >>> basis.compute_features(np.arange(1.0, 4.0))[:]
    array([[1., 1.],
           [2., 4.],
           [3., 9.]])
    """

    def __init__(
        self,
        funcs,
        ndim_input=1,
        output_shape=None,
        basis_kwargs=None,
        pynapple_support=True,
        label=None,
        is_complex=False,
        bounds=None,
        fill_value=np.nan,
    ):
        self.funcs = funcs
        self.ndim_input = positive_int("ndim_input", ndim_input)
        self.output_shape = output_shape
        self.basis_kwargs = basis_kwargs
        self.pynapple_support = pynapple_support
        self.label = label
        self.is_complex = bool(is_complex)
        self.bounds = bounds
        self.fill_value = fill_value

    @property
    def funcs(self):
        """The functions."""
        return self._funcs

    @funcs.setter
    def funcs(self, value):
        funcs = [value] if callable(value) else list(value)
        if not funcs or not all(callable(f) for f in funcs):
            raise ValueError(f"funcs is {value!r}; expected functions.")
        numbers = {_n_arguments(f) for f in funcs}
        if len(numbers) > 1 or 0 in numbers:
            raise ValueError(
                f"The functions take {sorted(numbers)} inputs; expected the same number, at least "
                "one, for all. Give the others a default or use functools.partial?"
            )
        self._funcs, self._n_inputs = funcs, numbers.pop()

    @property
    def output_shape(self):
        """Shape of a function's value at one sample."""
        return self._output_shape

    @output_shape.setter
    def output_shape(self, value):
        shape = () if value is None else value
        self._output_shape = sample_shape(shape if isinstance(shape, int) else tuple(shape))

    @property
    def basis_kwargs(self):
        """Further arguments of all functions."""
        return self._basis_kwargs

    @basis_kwargs.setter
    def basis_kwargs(self, value):
        self._basis_kwargs = {} if value is None else dict(value)

    @property
    def n_basis_funcs(self):
        """Number of functions."""
        return len(self.funcs)

    @property
    def _vector_shape(self):
        return None if self._input_shape is None else self._input_shape[self.ndim_input - 1 :]

    @property
    def _n_columns(self):
        return int(np.prod(self.output_shape, dtype=int)) * self.n_basis_funcs

    def _feature_shape(self):
        if self._input_shape is None:
            return None
        return (*self.output_shape, *self._vector_shape, self.n_basis_funcs)

    def evaluate(self, *sample_pts):
        """The functions at samples.

        Parameters
        ----------
        *sample_pts : arrays of shape (n_samples, ...)
            One for each argument of the functions, all of the same shape.

        Returns
        -------
        ndarray of shape (n_samples, *output_shape, n_basis_funcs)
            With one more axis before the last, that of all inputs, where there are axes beyond
            ``ndim_input``.
        """
        inputs = [read_points(x) for x in self._one_each(sample_pts)]
        shape = self._one_shape({x.shape for x in inputs})
        if len(shape) < self.ndim_input:
            raise ValueError(
                f"The inputs of {self.label} have shape {shape}; expected at least "
                f"ndim_input = {self.ndim_input} axes."
            )
        return self._call(inputs, len(shape) > self.ndim_input)

    def _call(self, inputs, several):
        axes = inputs[0].shape[: self.ndim_input]
        inputs = [x.reshape(*axes, -1) for x in inputs]
        values = [
            [
                np.asarray(f(*(x[..., i] for x in inputs), **self.basis_kwargs))
                for i in range(inputs[0].shape[-1])
            ]
            for f in self.funcs
        ]
        out = np.stack([np.stack(of_inputs, axis=-1) for of_inputs in values], axis=-1)
        if out.shape[0] != axes[0]:
            raise ValueError(
                f"The functions of {self.label} return {out.shape[0]} rows for {axes[0]} samples; "
                "the first axis of what they return must be that of the samples."
            )
        self._output_shape = out.shape[1:-2]
        out = out.astype(np.float64, copy=False)
        return out if several else out[..., 0, :]

    def evaluate_on_grid(self, *n_samples):
        """The functions on equally spaced points of the bounds, or of [0, 1]; see `BSplineEval`."""
        if self.ndim_input > 1:
            raise ValueError(
                f"{self.label} takes inputs of {self.ndim_input} axes, which have no grid."
            )
        return super().evaluate_on_grid(*n_samples)

    def _values(self, *points):
        return self._call([p[:, 0] for p in points], False)

    def _features(self, *inputs):
        values = self.evaluate(*inputs)
        if self.bounds is not None:
            outside = [self._outside(x).reshape(x.shape[0], -1).any(axis=1) for x in inputs]
            values[np.any(outside, axis=0)] = self.fill_value
        return values


def _n_arguments(function):
    """Number of positional arguments without default."""
    if isinstance(function, np.ufunc):
        return function.nin
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return sum(p.kind in positional and p.default is p.empty for p in parameters)


def _read_frequencies(value):
    """One dimension's frequencies as an ascending array."""
    if isinstance(value, tuple) and len(value) == 2:
        array = np.arange(*value)
        fits = all(isinstance(v, int | np.integer) for v in value) and 0 <= value[0] < value[1]
    elif np.ndim(value) == 0:
        fits = isinstance(value, int | np.integer) and value >= 0
        array = np.arange(value) if fits else value
    else:
        array = np.asarray(value)
        fits = array.ndim == 1 and (array == np.round(array)).all() and (array >= 0).all()
        if fits and (np.diff(array) < 0).any():
            warnings.warn("frequencies are not ascending; they are sorted.", stacklevel=4)
            array = np.sort(array)
    if not fits:
        raise ValueError(
            f"frequencies holds {value!r}; expected a number k >= 0, a pair 0 <= low < high, or "
            "an array of whole numbers >= 0."
        )
    return array.astype(np.float64)


__all__ = [
    "AdditiveBasis",
    "BSplineConv",
    "BSplineEval",
    "CustomBasis",
    "CyclicBSplineConv",
    "CyclicBSplineEval",
    "FourierEval",
    "HistoryConv",
    "IdentityEval",
    "MSplineConv",
    "MSplineEval",
    "MultiplicativeBasis",
    "OrthExponentialConv",
    "OrthExponentialEval",
    "RaisedCosineLinearConv",
    "RaisedCosineLinearEval",
    "RaisedCosineLogConv",
    "RaisedCosineLogEval",
    "TransformerBasis",
    "Zero",
]
