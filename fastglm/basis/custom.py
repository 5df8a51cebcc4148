"""A basis of functions that the user writes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from fastglm._checks import positive_int
from fastglm._pynapple import keeps_times
from fastglm.basis.composition import sample_shape
from fastglm.basis.leaf import Eval, as_columns, read_points

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class CustomBasis(Eval):
    """A basis of functions that the user writes.

    Column b is ``funcs[b](*inputs, **basis_kwargs)``: an array whose first axis is the axis of the
    samples. Axes of the inputs beyond ``ndim_input`` hold further inputs; every function is called
    once for each of them.

    Parameters
    ----------
    funcs : callable or list of callables
        All functions take the same number of positional arguments without default: the inputs.
    ndim_input : int, default 1
        Number of axes of an input that a function takes, the axis of the samples included.
    output_shape : int or tuple, optional
        Shape of the value of a function at one sample. Default: found at the first evaluation.
    basis_kwargs : dict, optional
        Further arguments of all functions.
    pynapple_support : bool
        Has no effect: the functions are given NumPy arrays.
    label : str
    is_complex : bool, default False
        The functions are cosines and sines. Two such bases cannot be multiplied.
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
    >>> np.asarray(basis.compute_features(np.arange(1.0, 4.0)))
    array([[1., 1.],
           [2., 4.],
           [3., 9.]])
    """

    _rescales = False

    def __init__(
        self,
        funcs: Callable | list[Callable],
        ndim_input: int = 1,
        output_shape: int | tuple[int, ...] | None = None,
        basis_kwargs: dict | None = None,
        pynapple_support: bool = True,
        label: str | None = None,
        is_complex: bool = False,
        bounds: tuple[float, float] | None = None,
        fill_value: float = np.nan,
    ) -> None:
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
    def funcs(self) -> list[Callable]:
        """The functions."""
        return self._funcs

    @funcs.setter
    def funcs(self, value: Callable | list[Callable]) -> None:
        listed = isinstance(value, list | tuple)
        funcs = [value] if callable(value) else list(value) if listed else []
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
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the value of a function at one sample."""
        return self._output_shape

    @output_shape.setter
    def output_shape(self, value: int | tuple[int, ...] | None) -> None:
        shape = () if value is None else value
        if not isinstance(shape, int | tuple | list):
            raise TypeError(f"output_shape is {value!r}; expected whole numbers.")
        self._output_shape = sample_shape(shape if isinstance(shape, int) else tuple(shape))

    @property
    def basis_kwargs(self) -> dict:
        """Further arguments of all functions."""
        return self._basis_kwargs

    @basis_kwargs.setter
    def basis_kwargs(self, value: dict | None) -> None:
        if not isinstance(value, dict | None):
            raise ValueError(f"basis_kwargs is {value!r}; expected a dict of arguments.")
        self._basis_kwargs = {} if value is None else dict(value)

    @property
    def n_basis_funcs(self) -> int:
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

    @keeps_times
    def evaluate(self, *sample_pts: ArrayLike) -> np.ndarray:
        """The functions at samples.

        Parameters
        ----------
        *sample_pts : arrays of shape (n_samples, ...)
            One array for each argument of the functions; all have the same shape.

        Returns
        -------
        ndarray of shape (n_samples, *output_shape, n_basis_funcs)
            Where there are axes beyond ``ndim_input``, one axis of all inputs comes before the last
            axis.
        """
        inputs = [read_points(x) for x in self._one_each(sample_pts)]
        shape = self._one_shape({x.shape for x in inputs})
        if len(shape) < self.ndim_input:
            raise ValueError(
                f"The inputs of {self.label} have shape {shape}; expected at least "
                f"ndim_input = {self.ndim_input} axes."
            )
        return self._call(inputs, len(shape) > self.ndim_input)

    def _evaluate_columns(self, *sample_pts):
        values = self.evaluate(*sample_pts)
        samples = values.shape[:1] + np.shape(sample_pts[0])[self.ndim_input :]
        n = len(self.output_shape)
        values = np.moveaxis(values, range(1, 1 + n), range(-1 - n, -1))
        return values.reshape(*samples, self._n_columns)

    def _call(self, inputs, several):
        axes = inputs[0].shape[: self.ndim_input]
        inputs = [x.reshape(*axes, math.prod(x.shape[self.ndim_input :])) for x in inputs]
        if inputs[0].shape[-1] == 0:
            return np.empty((axes[0], *self.output_shape, 0, self.n_basis_funcs))
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
                "the first axis of the returned array must be the axis of the samples."
            )
        self._output_shape = out.shape[1:-2]
        out = out.astype(np.float64, copy=False)
        return out if several else out[..., 0, :]

    def evaluate_on_grid(self, *n_samples: int) -> tuple[np.ndarray, ...]:
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
            outside = [as_columns(self._outside(x)).any(axis=1) for x in inputs]
            values[np.any(outside, axis=0)] = self.fill_value
        return values


def _n_arguments(function):
    """Number of positional arguments without default."""
    if isinstance(function, np.ufunc):
        return function.nin
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return sum(p.kind in positional and p.default is p.empty for p in parameters)
