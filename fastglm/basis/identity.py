"""Raw lags, samples as they are, and nothing."""

from __future__ import annotations

import numpy as np

from fastglm.basis.leaf import Conv, Eval


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

    def __init__(
        self, window_size: int, label: str = "HistoryConv", conv_kwargs: dict | None = None
    ) -> None:
        self.window_size = window_size
        self.label = label
        self.conv_kwargs = conv_kwargs

    @property
    def n_basis_funcs(self) -> int:
        """Number of basis functions: one per lag."""
        return self.window_size

    def _functions(self, u):
        return np.eye(u.size, self.window_size)


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

    _rescales = False

    def __init__(
        self,
        bounds: tuple[float, float] | None = None,
        fill_value: float = np.nan,
        label: str = "IdentityEval",
    ) -> None:
        self.bounds = bounds
        self.fill_value = fill_value
        self.label = label

    @property
    def n_basis_funcs(self) -> int:
        """Number of basis functions: one."""
        return 1

    def _values(self, points):
        values = np.where(np.isfinite(points), points, np.nan)
        values[self._outside(points)] = self.fill_value
        return values[..., None]


class Zero(Eval):
    """A basis without functions: it keeps the place of an input that a sum leaves out.

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

    _rescales = False

    def __init__(self, label: str = "Zero") -> None:
        self.label = label

    @property
    def n_basis_funcs(self) -> int:
        """Number of basis functions: none."""
        return 0

    @property
    def bounds(self) -> None:
        """Always None: no function depends on a domain."""

    def _values(self, points):
        return np.empty((*points.shape, 0))
