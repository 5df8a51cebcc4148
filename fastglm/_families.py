"""Families of functions on [0, 1] and their parameters.

A family gives ``_functions(u)``: the values of its functions at u in [0, 1], shape
(u.size, n_basis_funcs). The public bases evaluate it at covariates or on the lags of a window.
"""

import numpy as np
import scipy.linalg

from fastglm.features import as_numbers


class Family:
    """What families share: the number of functions."""

    @property
    def n_basis_funcs(self):
        """Number of basis functions."""
        return self._n_basis_funcs

    @n_basis_funcs.setter
    def n_basis_funcs(self, value):
        self._n_basis_funcs = positive_int("n_basis_funcs", value)


class RaisedCosineLinear(Family):
    """``0.5 * (cos(clip(pi * (u - p_b) / (d * width), -pi, pi)) + 1)``, p equally spaced by d."""

    @property
    def n_basis_funcs(self):
        """Number of basis functions."""
        return self._n_basis_funcs

    @n_basis_funcs.setter
    def n_basis_funcs(self, value):
        self._n_basis_funcs = positive_int("n_basis_funcs", value)
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


class RaisedCosineLog(RaisedCosineLinear):
    """Raised cosines of ``log(s * u + 1) / log(s + 1)``."""

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


class BSpline(Family):
    """B-splines with equally spaced knots, clamped at both ends."""

    _min_order = 1

    @property
    def order(self):
        """Degree of the polynomials plus one."""
        return self._order

    @order.setter
    def order(self, value):
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
    """B-splines on a circle: what leaves at the end comes in at the start."""

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
    from scipy.interpolate import BSpline  # a tenth of a second that only splines pay

    if u.size == 0:
        return np.empty((0, knots.size - order))
    return BSpline.design_matrix(u, knots, order - 1).toarray()


class OrthExponential(Family):
    """An orthonormal basis, over the points, of the span of ``exp(-rate * u)``."""

    _orthogonal = True  # over the points of each input on its own

    @property
    def decay_rates(self):
        """Decay rates, per unit of u."""
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

    def _functions(self, u):
        if u.size < self.n_basis_funcs:
            raise ValueError(
                f"{u.size} points for {self.n_basis_funcs} exponentials; {type(self).__name__} "
                "needs at least as many points (window_size) as functions."
            )
        rates = np.asarray(self.decay_rates, dtype=np.float64)
        return scipy.linalg.orth(np.exp(-u[:, None] * rates))


def positive_int(name, value):
    """The value as an int.

    Raises
    ------
    ValueError
        If it is not a positive whole number.
    """
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not 1 <= value < np.inf or int(value) != value:
        raise ValueError(f"{name} is {value!r}; expected a positive integer.")
    return int(value)
