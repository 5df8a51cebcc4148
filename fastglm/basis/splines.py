"""B-splines, cyclic B-splines and M-splines."""

from __future__ import annotations

import numpy as np

from fastglm._checks import positive_int
from fastglm.basis.leaf import Conv, Eval, Family


class BSpline(Family):
    """B-splines with equally spaced knots, clamped at both ends."""

    _min_order = 1

    @property
    def order(self) -> int:
        """Degree of the polynomials plus one."""
        return self._order

    @order.setter
    def order(self, value: int) -> None:
        self._order = positive_int("order", value)
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


class CyclicBSpline(BSpline):
    """B-splines on a circle: a function that leaves at the end comes in at the start."""

    _min_order = 2

    def _functions(self, u):
        n, order = self.n_basis_funcs, self.order
        knots = np.arange(1 - order, n + order) * ((1 + np.finfo(float).eps) / n)
        values = _bsplines(u, knots, order)
        values[:, : order - 1] += values[:, n:]
        return values[:, :n]


class MSpline(BSpline):
    """B-splines scaled to integrate to 1 over the domain."""

    def _functions(self, u):
        knots, order = self._knots(), self.order
        span = knots[order:] - knots[: self.n_basis_funcs]
        return _bsplines(u, knots, order) * (order / span)

    def _density(self, scale):
        return scale


def _bsplines(u, knots, order):
    from scipy.interpolate import BSpline  # late: its import takes a tenth of a second

    if u.size == 0:
        return np.empty((0, knots.size - order))
    values = BSpline.design_matrix(u, knots, order - 1).toarray()
    # At a knot, which is rounded, a function that begins or ends there is a few eps instead of 0. A
    # column with an event at that lag alone would be a feature of rounding.
    values[values < order * knots.size * np.finfo(float).eps] = 0.0
    return values


class BSplineConv(BSpline, Conv):
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

    def __init__(
        self,
        n_basis_funcs: int,
        window_size: int,
        order: int = 4,
        label: str = "BSplineConv",
        conv_kwargs: dict | None = None,
    ) -> None:
        self.n_basis_funcs = n_basis_funcs
        self.window_size = window_size
        self.order = order
        self.label = label
        self.conv_kwargs = conv_kwargs
        self._check()


class CyclicBSplineConv(CyclicBSpline, Conv):
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
        self,
        n_basis_funcs: int,
        window_size: int,
        order: int = 4,
        label: str = "CyclicBSplineConv",
        conv_kwargs: dict | None = None,
    ) -> None:
        self.n_basis_funcs = n_basis_funcs
        self.window_size = window_size
        self.order = order
        self.label = label
        self.conv_kwargs = conv_kwargs
        self._check()


class MSplineConv(MSpline, Conv):
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
        n_basis_funcs: int,
        window_size: int,
        order: int = 4,
        label: str = "MSplineConv",
        conv_kwargs: dict | None = None,
    ) -> None:
        self.n_basis_funcs = n_basis_funcs
        self.window_size = window_size
        self.order = order
        self.label = label
        self.conv_kwargs = conv_kwargs
        self._check()


class BSplineEval(BSpline, Eval):
    """B-splines with equally spaced knots, clamped at both ends (de Boor, 1978).

    The functions are piecewise polynomials of degree ``order - 1`` in the sample, rescaled to [0,
    1]. They sum to 1.

    Parameters
    ----------
    n_basis_funcs : int, at least ``order``
    order : int, default 4
        Degree plus one.
    bounds : pair of floats, optional
        Domain. Default: the range of the samples.
    fill_value : float, default NaN
        Value for samples out of bounds.
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

    def __init__(
        self,
        n_basis_funcs: int,
        order: int = 4,
        bounds: tuple[float, float] | None = None,
        fill_value: float = np.nan,
        label: str = "BSplineEval",
    ) -> None:
        self.n_basis_funcs = n_basis_funcs
        self.order = order
        self.bounds = bounds
        self.fill_value = fill_value
        self.label = label
        self._check()


class CyclicBSplineEval(CyclicBSpline, Eval):
    """B-splines on a circle, for angles and phases: both ends of the range meet smoothly.

    The functions that leave at the end come in at the start. Give the period as ``bounds``.

    Parameters
    ----------
    n_basis_funcs : int, at least ``order``
    order : int, at least 2, default 4
    bounds : pair of floats, optional
        Domain. Default: the range of the samples.
    fill_value : float, default NaN
        Value for samples out of bounds.
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
        self,
        n_basis_funcs: int,
        order: int = 4,
        bounds: tuple[float, float] | None = None,
        fill_value: float = np.nan,
        label: str = "CyclicBSplineEval",
    ) -> None:
        self.n_basis_funcs = n_basis_funcs
        self.order = order
        self.bounds = bounds
        self.fill_value = fill_value
        self.label = label
        self._check()


class MSplineEval(MSpline, Eval):
    """M-splines: B-splines scaled to integrate to 1 over the domain (Ramsay, 1988).

    The domain is the bounds, or the range of the samples. Twice the domain halves the values.

    Parameters
    ----------
    n_basis_funcs : int, at least ``order``
    order : int, default 4
    bounds : pair of floats, optional
        Domain. Default: the range of the samples.
    fill_value : float, default NaN
        Value for samples out of bounds.
    label : str

    Examples
    --------
    >>> import fastglm, scipy.integrate
    >>> grid, values = fastglm.basis.MSplineEval(5, bounds=(0, 2)).evaluate_on_grid(2001)
    >>> scipy.integrate.trapezoid(values, grid, axis=0).round(4)
    array([1., 1., 1., 1., 1.])
    """

    def __init__(
        self,
        n_basis_funcs: int,
        order: int = 4,
        bounds: tuple[float, float] | None = None,
        fill_value: float = np.nan,
        label: str = "MSplineEval",
    ) -> None:
        self.n_basis_funcs = n_basis_funcs
        self.order = order
        self.bounds = bounds
        self.fill_value = fill_value
        self.label = label
        self._check()
