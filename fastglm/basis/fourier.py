"""Cosines and sines."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import numpy as np

from fastglm._checks import as_numbers, positive_int
from fastglm.basis.leaf import Eval, as_columns, read_bounds

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class FourierEval(Eval):
    """Cosines and sines of one or several inputs.

    Inputs ``x_d`` are rescaled so that one period is the bounds, or the range of the samples.
    Frequencies are ``f = (f_1, ..., f_ndim)``. The functions are ``cos(2 pi f x)`` for all f, then
    ``sin(2 pi f x)`` for all f but 0.

    Parameters
    ----------
    frequencies : int, pair, ndarray or list
        ``k`` stands for 0 to k - 1, ``(low, high)`` for low to high - 1, and an array holds whole
        numbers >= 0. A list has one of these for each dimension; without a list all dimensions have
        the same frequencies. All combinations are taken.
    ndim : int, default 1
        Number of inputs, of the same shape.
    bounds : pair of floats or a pair for each input, optional
        One period. Samples beyond it are wrapped, not filled.
    frequency_mask : "no-intercept", "all", None, array or callable
        "no-intercept" leaves frequency 0 out; "all" and None keep it. An array of 0 and 1 has one
        axis for each dimension. A function takes the frequencies of a combination and returns
        whether to keep it. Other frequencies that are set later make an array or a function
        "no-intercept" again, with a warning.
    label : str

    Raises
    ------
    TypeError
        If frequencies or ``ndim`` are no integers.
    ValueError
        If they are negative, or the mask does not fit the frequencies.

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
        self,
        frequencies: int | tuple[int, int] | np.ndarray | list,
        ndim: int = 1,
        bounds: tuple | list | None = None,
        frequency_mask: str | ArrayLike | Callable | None = "no-intercept",
        label: str = "FourierEval",
    ) -> None:
        if isinstance(ndim, str):
            raise TypeError(f"ndim is {ndim!r}; expected a positive integer.")
        self._n_inputs = positive_int("ndim", ndim)
        self.frequencies = frequencies
        self.bounds = bounds
        self.frequency_mask = frequency_mask
        self.label = label
        self._check()

    @property
    def ndim(self) -> int:
        """Number of inputs."""
        return self._n_inputs

    @property
    def frequencies(self) -> list[np.ndarray]:
        """Frequencies of every dimension, a list of arrays."""
        return self._frequencies

    @frequencies.setter
    def frequencies(self, value: int | tuple[int, int] | np.ndarray | list) -> None:
        if not isinstance(value, list):
            value = [value] * self.ndim
        if len(value) != self.ndim:
            raise ValueError(
                f"frequencies is a list of {len(value)}; expected one entry for each of the "
                f"{self.ndim} dimensions. Pass an array for the frequencies of one?"
            )
        frequencies = [_read_frequencies(f) for f in value]
        mask = getattr(self, "frequency_mask", None)
        made_for = mask is not None and not isinstance(mask, str)
        if made_for and not all(map(np.array_equal, frequencies, self._frequencies)):
            warnings.warn(
                "frequency_mask was made for other frequencies; it is now 'no-intercept', all "
                "frequencies but 0. Set a mask after the frequencies, or both with set_params.",
                UserWarning,
                stacklevel=2,
            )
            self.frequency_mask = "no-intercept"
        self._frequencies = frequencies

    @property
    def bounds(self) -> tuple | None:
        """One period: a pair, or a pair for each input; None is the range of the samples."""
        return self._bounds

    @bounds.setter
    def bounds(self, value: tuple | list | None) -> None:
        pairs = value is not None and np.ndim(value) == 2
        if pairs and len(value) != self.ndim:
            raise ValueError(
                f"bounds holds {len(value)} pairs; expected one for each of the {self.ndim} inputs."
            )
        if pairs:
            self._bounds = tuple(read_bounds(b) for b in value)
        else:
            self._bounds = None if value is None else read_bounds(value)

    def set_params(self, **params: object) -> Self:
        """Set parameters by name; a mask that is set together with frequencies is made for them."""
        if {"frequencies", "frequency_mask"} <= params.keys():
            self.frequency_mask = "no-intercept"
            self.frequencies = params.pop("frequencies")
        return super().set_params(**params)

    def _bounds_of_inputs(self):
        if self.bounds is None or np.ndim(self.bounds) == 1:
            return super()._bounds_of_inputs()
        return list(self.bounds)

    @property
    def masked_frequencies(self) -> np.ndarray:
        """Frequencies that the mask keeps, shape (ndim, n_combinations)."""
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
        self.masked_frequencies  # noqa: B018  (raises if the mask does not fit)

    @property
    def n_basis_funcs(self) -> int:
        """Number of cosines and sines."""
        frequencies = self.masked_frequencies
        return 2 * frequencies.shape[1] - int((~frequencies.any(axis=0)).sum())

    def _values(self, *points):
        if points[0].size == 0:
            return np.empty((*points[0].shape, self.n_basis_funcs))
        turns = []
        for k, (x, bounds) in enumerate(zip(points, self._bounds_of_inputs(), strict=True)):
            low, scale = self._range(x, bounds, k)
            turns.append(np.where(np.isfinite(x), (x - low) / scale, np.nan))
        frequencies = self.masked_frequencies
        angles = 2 * np.pi * (np.stack(turns, axis=-1) @ frequencies)
        waves = frequencies.any(axis=0)
        return np.concatenate([np.cos(angles), np.sin(angles[..., waves])], axis=-1)

    def _features(self, *inputs):
        return self._values(*map(as_columns, inputs))


def _read_frequencies(value):
    """The frequencies of one dimension as an ascending array."""
    whole = True
    if isinstance(value, tuple) and len(value) == 2:
        whole = all(isinstance(v, int | np.integer) for v in value)
        fits = whole and 0 <= value[0] < value[1]
        array = np.arange(*value) if fits else value
    elif np.ndim(value) == 0:
        whole = isinstance(value, int | np.integer)
        fits = whole and value >= 0
        array = np.arange(value) if fits else value
    else:
        array = as_numbers(value, "frequencies")
        fits = array.ndim == 1 and (array == np.round(array)).all() and (array >= 0).all()
        if fits and (np.diff(array) < 0).any():
            warnings.warn("frequencies are not ascending; they are sorted.", stacklevel=4)
            array = np.sort(array)
    if not fits:
        raise (ValueError if whole else TypeError)(
            f"frequencies holds {value!r}; expected a number k >= 0, a pair 0 <= low < high, or "
            "an array of whole numbers >= 0."
        )
    return array.astype(np.float64)
