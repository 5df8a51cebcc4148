"""Orthogonalised decaying exponentials."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from fastglm._checks import as_numbers
from fastglm.basis.leaf import Conv, Eval, Family, as_columns, read_points

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class OrthExponential(Family):
    """An orthonormal basis of the span of ``exp(-rate * u)`` at the given points."""

    _orthogonal = True  # at the points of each input on its own

    @property
    def decay_rates(self) -> ArrayLike:
        """Decay rates, per unit of u."""
        return self._decay_rates

    @decay_rates.setter
    def decay_rates(self, value: ArrayLike) -> None:
        rates = as_numbers(value, "decay_rates")
        if not np.isfinite(rates).all():
            raise ValueError(f"decay_rates is {value!r}; expected finite numbers.")
        if np.unique(rates).size != rates.size:
            raise ValueError("decay_rates holds a rate twice, which makes the functions dependent.")
        self._decay_rates = value

    def _check_rates(self):
        shape = np.shape(self.decay_rates)
        if shape != (self.n_basis_funcs,):
            raise ValueError(
                f"decay_rates has shape {shape}; expected one rate for each of the "
                f"{self.n_basis_funcs} basis functions."
            )

    def _functions(self, u):
        n_rates = np.size(self.decay_rates)
        if u.size < n_rates:
            raise ValueError(
                f"{u.size} points for {n_rates} exponentials; {type(self).__name__} needs at least "
                "as many points (window_size) as functions."
            )
        return scipy.linalg.orth(self._exponentials(u))

    def _exponentials(self, u):
        rates = np.asarray(self.decay_rates, dtype=np.float64).ravel()
        if rates.size != self.n_basis_funcs:  # they are set one by one
            warnings.warn(
                f"n_basis_funcs of {self.label} is {self.n_basis_funcs}, and there are "
                f"{rates.size} decay_rates: there is one function for each rate. Set both.",
                UserWarning,
                stacklevel=2,
            )
        return np.exp(-u[:, None] * rates)


class OrthExponentialConv(OrthExponential, Conv):
    """An orthonormal basis of the span of decaying exponentials ``exp(-rate * u)``.

    If the exponentials are numerically dependent, there are fewer columns than rates.

    Parameters
    ----------
    n_basis_funcs : int
    window_size : int, at least ``n_basis_funcs``
        Lags, in bins.
    decay_rates : array of shape (n_basis_funcs,)
        Distinct rates per window.
    label : str
    conv_kwargs : dict, optional
    """

    def __init__(
        self,
        n_basis_funcs: int,
        window_size: int,
        decay_rates: ArrayLike,
        label: str = "OrthExponentialConv",
        conv_kwargs: dict | None = None,
    ) -> None:
        self.n_basis_funcs = n_basis_funcs
        self.window_size = window_size
        self.decay_rates = decay_rates
        self.label = label
        self.conv_kwargs = conv_kwargs
        self._check_rates()

    @property
    def _n_columns(self):
        return self.kernel_.shape[1]


class OrthExponentialEval(OrthExponential, Eval):
    """An orthonormal basis of the span of decaying exponentials ``exp(-rate * u)``.

    The functions are orthonormal over the given samples, so that their values at a sample depend on
    all samples: a prediction needs the samples of the fit. In a pipeline they are orthonormal over
    the samples of the fit. If the exponentials are numerically
    dependent, there are fewer columns than rates.

    Parameters
    ----------
    n_basis_funcs : int
    decay_rates : array of shape (n_basis_funcs,)
        Distinct rates per range.
    bounds : pair of floats, optional
        Domain. Default: the range of the samples.
    fill_value : float, default NaN
        Value for samples out of bounds.
    label : str

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> basis = fastglm.basis.OrthExponentialEval(2, decay_rates=[1.0, 5.0])
    >>> X = basis.compute_features(np.linspace(0, 1, 50))
    >>> (X.T @ X).round(6) + 0.0
    array([[1., 0.],
           [0., 1.]])
    """

    def __init__(
        self,
        n_basis_funcs: int,
        decay_rates: ArrayLike,
        bounds: tuple[float, float] | None = None,
        fill_value: float = np.nan,
        label: str = "OrthExponentialEval",
    ) -> None:
        self.n_basis_funcs = n_basis_funcs
        self.decay_rates = decay_rates
        self.bounds = bounds
        self.fill_value = fill_value
        self.label = label
        self._check_rates()

    _mixing = ()  # of every column, from `learn`

    @property
    def _n_columns(self):
        return getattr(self, "_n_found", np.size(self.decay_rates))

    def learn(self, *inputs: np.ndarray) -> None:
        """Keep the domain, and the combinations that are orthonormal over these samples."""
        super().learn(*inputs)
        points = as_columns(read_points(inputs[0]))
        low, scale = self._range(points, self.bounds)
        mixing = []
        for x, begin, length in zip(points.T, low, scale, strict=True):
            table = self._exponentials((x[np.isfinite(x)] - begin) / length)
            _, s, v = scipy.linalg.svd(table, full_matrices=False)
            used = s > s.max(initial=0) * np.finfo(float).eps * max(table.shape)  # as in `orth`
            mixing.append(v[used].T / s[used])
        self._mixing = mixing

    def forget(self) -> None:
        """Forget what `learn` found."""
        super().forget()
        self._mixing = ()

    def _functions_of(self, u, j):
        if j >= len(self._mixing):
            return self._functions(u)
        return self._exponentials(u) @ self._mixing[j]

    def _features(self, *inputs):
        values = super()._features(*inputs)
        self._n_found = values.shape[-1]
        return values
