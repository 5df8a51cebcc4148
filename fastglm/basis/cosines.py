"""Raised cosines, in linear or in log time."""

from __future__ import annotations

import numpy as np

from fastglm._checks import is_number, positive_int
from fastglm.basis.leaf import Conv, Eval, Family


class RaisedCosineLinear(Family):
    """``0.5 * (cos(clip(pi * (u - p_b) / (d * width), -pi, pi)) + 1)``; peaks p_b are d apart."""

    @property
    def n_basis_funcs(self) -> int:
        """Number of basis functions."""
        return self._n_basis_funcs

    @n_basis_funcs.setter
    def n_basis_funcs(self, value: int) -> None:
        self._n_basis_funcs = positive_int("n_basis_funcs", value)
        if self._n_basis_funcs < 2:
            raise ValueError(
                f"n_basis_funcs is {value}; {type(self).__name__} needs at least 2, since the "
                "spacing of the peaks sets the width."
            )

    @property
    def width(self) -> float:
        """Half-width of a bump in units of the spacing."""
        return self._width

    @width.setter
    def width(self, value: float) -> None:
        number = is_number(value) and 1 < value <= 1e300
        if not number or not np.isclose(2 * value, round(2 * value)):
            raise ValueError(
                f"width is {value!r}; expected a number greater than 1 with an integer 2 * width, "
                "or the bumps would not sum to a constant. Use 2.0?"
            )
        self._width = value

    def _functions(self, u):
        return _raised_cosines(u, np.linspace(0, 1, self.n_basis_funcs), self.width)


class RaisedCosineLog(RaisedCosineLinear):
    """Raised cosines of ``log(s * u + 1) / log(s + 1)``."""

    @property
    def time_scaling(self) -> float:
        """Stretch of the logarithmic axis."""
        return self._time_scaling

    @time_scaling.setter
    def time_scaling(self, value: float | None) -> None:
        value = 50.0 if value is None else value
        if not is_number(value) or not value > 0:
            raise ValueError(f"time_scaling is {value!r}; expected a number above 0 (50 is usual).")
        self._time_scaling = value

    @property
    def enforce_decay_to_zero(self) -> bool:
        """Whether the last bump is zero at the end."""
        return self._enforce_decay_to_zero

    @enforce_decay_to_zero.setter
    def enforce_decay_to_zero(self, value: bool) -> None:
        if not isinstance(value, bool | np.bool_ | int):
            raise ValueError(f"enforce_decay_to_zero is {value!r}; expected True or False.")
        self._enforce_decay_to_zero = value

    def _functions(self, u):
        x = np.log1p(self.time_scaling * u) / np.log1p(self.time_scaling)
        last = 1.0
        if self.enforce_decay_to_zero:
            last = (self.n_basis_funcs - 1) / (self.n_basis_funcs + self.width - 1)
        return _raised_cosines(x, np.linspace(0, last, self.n_basis_funcs), self.width)


def _raised_cosines(x, peaks, width):
    spacing = peaks[1] - peaks[0]
    phase = np.pi * (x[:, None] - peaks) / (spacing * width)
    return 0.5 * (np.cos(np.clip(phase, -np.pi, np.pi)) + 1)


class RaisedCosineLinearConv(RaisedCosineLinear, Conv):
    """Raised cosine bumps with equally spaced peaks (Pillow et al., 2005).

    ``0.5 * (cos(clip(pi * (u - p_b) / (d * width), -pi, pi)) + 1)`` with peaks
    ``p = linspace(0, 1, n_basis_funcs)`` and ``d = p[1] - p[0]``.

    Parameters
    ----------
    n_basis_funcs : int, at least 2
    window_size : int
        Lags, in bins.
    width : float, default 2.0
        Half-width of a bump in units of the spacing: greater than 1, and ``2 * width`` an integer.
        The bumps then sum to a constant.
    label : str
    conv_kwargs : dict, optional
    """

    def __init__(
        self,
        n_basis_funcs: int,
        window_size: int,
        width: float = 2.0,
        label: str = "RaisedCosineLinearConv",
        conv_kwargs: dict | None = None,
    ) -> None:
        self.n_basis_funcs = n_basis_funcs
        self.window_size = window_size
        self.width = width
        self.label = label
        self.conv_kwargs = conv_kwargs


class RaisedCosineLogConv(RaisedCosineLog, Conv):
    """Raised cosine bumps on a logarithmic axis: fine at short lags (Pillow et al., 2008).

    As `RaisedCosineLinearConv` with ``x = log(s * u + 1) / log(s + 1)`` in place of u. The last
    peak is at ``1 - width / (n_basis_funcs + width - 1)`` if the last bump must decay to zero at
    the end of the window, else at 1.

    Parameters
    ----------
    n_basis_funcs : int, at least 2
    window_size : int
        Lags, in bins.
    width : float, default 2.0
    time_scaling : float, default 50.0
        The stretch s; near 0 the axis is linear.
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
        n_basis_funcs: int,
        window_size: int,
        width: float = 2.0,
        time_scaling: float | None = None,
        enforce_decay_to_zero: bool = True,
        label: str = "RaisedCosineLogConv",
        conv_kwargs: dict | None = None,
    ) -> None:
        self.n_basis_funcs = n_basis_funcs
        self.window_size = window_size
        self.width = width
        self.time_scaling = time_scaling
        self.enforce_decay_to_zero = enforce_decay_to_zero
        self.label = label
        self.conv_kwargs = conv_kwargs


class RaisedCosineLinearEval(RaisedCosineLinear, Eval):
    """Raised cosine bumps with equally spaced peaks (Pillow et al., 2005).

    ``0.5 * (cos(clip(pi * (u - p_b) / (d * width), -pi, pi)) + 1)`` with peaks
    ``p = linspace(0, 1, n_basis_funcs)``, ``d = p[1] - p[0]`` and ``u`` the sample rescaled to
    [0, 1].

    Parameters
    ----------
    n_basis_funcs : int, at least 2
    width : float, default 2.0
        Half-width of a bump in units of the spacing: greater than 1, and ``2 * width`` an integer.
        The bumps then sum to a constant.
    bounds : pair of floats, optional
        Domain. Default: the range of the samples.
    fill_value : float, default NaN
        Value for samples out of bounds.
    label : str

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> speed = np.array([0.0, 2.0, 4.0, 9.0])
    >>> X = fastglm.basis.RaisedCosineLinearEval(3, bounds=(0, 4)).compute_features(speed)
    >>> np.asarray(X)
    array([[1. , 0.5, 0. ],
           [0.5, 1. , 0.5],
           [0. , 0.5, 1. ],
           [nan, nan, nan]])
    """

    def __init__(
        self,
        n_basis_funcs: int,
        width: float = 2.0,
        bounds: tuple[float, float] | None = None,
        fill_value: float = np.nan,
        label: str = "RaisedCosineLinearEval",
    ) -> None:
        self.n_basis_funcs = n_basis_funcs
        self.width = width
        self.bounds = bounds
        self.fill_value = fill_value
        self.label = label


class RaisedCosineLogEval(RaisedCosineLog, Eval):
    """Raised cosine bumps on a logarithmic axis: fine at small values (Pillow et al., 2008).

    As `RaisedCosineLinearEval` with ``log(s * u + 1) / log(s + 1)`` in place of u. The last peak is
    at ``1 - width / (n_basis_funcs + width - 1)`` if the last bump must decay to zero at the
    highest sample, else at 1.

    Parameters
    ----------
    n_basis_funcs : int, at least 2
    width : float, default 2.0
    time_scaling : float, default 50.0
        The stretch s; near 0 the axis is linear.
    enforce_decay_to_zero : bool, default True
    bounds : pair of floats, optional
        Domain. Default: the range of the samples.
    fill_value : float, default NaN
        Value for samples out of bounds.
    label : str

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> fastglm.basis.RaisedCosineLogEval(4).compute_features(np.arange(100.0)).shape
    (100, 4)
    """

    def __init__(
        self,
        n_basis_funcs: int,
        width: float = 2.0,
        time_scaling: float | None = None,
        enforce_decay_to_zero: bool = True,
        bounds: tuple[float, float] | None = None,
        fill_value: float = np.nan,
        label: str = "RaisedCosineLogEval",
    ) -> None:
        self.n_basis_funcs = n_basis_funcs
        self.width = width
        self.time_scaling = time_scaling
        self.enforce_decay_to_zero = enforce_decay_to_zero
        self.bounds = bounds
        self.fill_value = fill_value
        self.label = label
