"""A basis as a transformer of scikit-learn."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Self

import numpy as np
from sklearn import get_config
from sklearn.base import BaseEstimator, TransformerMixin

from fastglm._checks import as_numbers
from fastglm._pynapple import read_values
from fastglm.features.matrix import as_feature_matrix

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class TransformerBasis(TransformerMixin, BaseEstimator):
    """A basis as a transformer of scikit-learn, for pipelines and searches over parameters.

    The transformer has the attributes and parameters of the basis. In a pipeline whose step is
    called "basis", ``n_basis_funcs`` is ``basis__n_basis_funcs``; ``n_basis_funcs`` of the summand
    "speed" is ``basis__speed__n_basis_funcs``.

    Parameters
    ----------
    basis : basis
        A copy is kept. An input whose shape is not known counts as one column; `set_input_shape`
        sets another shape.

    Notes
    -----
    An Eval basis without ``bounds`` learns its domain in `fit`: the range of every column of these
    samples. A sample beyond it becomes ``fill_value``, as beyond bounds that were given: by default
    its prediction is NaN. Apart from that `transform` computes the features of its samples alone,
    as ``compute_features``.

    Samples with times (a Tsd or TsdFrame) keep them through a pipeline: features and predictions
    have the same times. No history crosses from one interval of their time support to the next, nor
    the bins that a fold leaves out: splits that keep bins together (``KFold`` without shuffling)
    lose one window at every edge. Samples without times are taken as consecutive bins.
    `fastglm.model_selection` takes epochs and windows into account.
    """

    def __init__(self, basis: object) -> None:
        self.basis = basis

    @property
    def basis(self) -> object:
        """The basis."""
        return self._basis

    @basis.setter
    def basis(self, value: object) -> None:
        value = getattr(value, "basis", value) if isinstance(value, TransformerBasis) else value
        if not hasattr(value, "evaluate_on_grid"):
            raise TypeError(f"basis is {value!r}; expected a basis.")
        self._basis = copy.deepcopy(value)
        for leaf in self._basis._leaves():
            leaf.forget()
            if leaf._input_shape is None:
                leaf._set_input_shape(*[1] * leaf._n_inputs)

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Learn the domain of every Eval basis without bounds.

        Parameters
        ----------
        X : array of shape (n_bins, n_columns)
            The inputs of the basis side by side.
        y : array of shape (n_bins, ...), optional
            Only its length is looked at.

        Raises
        ------
        ValueError
            If X does not have one column for each input of the basis, a basis that needs a range
            finds no finite sample, or y has another number of bins.
        """
        inputs, _ = self._split(X)
        _check_length(inputs[0], y)
        inputs = iter(inputs)
        for leaf in self._basis._leaves():
            leaf.learn(*itertools.islice(inputs, leaf._n_inputs))
        return self

    def transform(self, X: ArrayLike, y: object = None) -> object:
        """The features, a `FeatureMatrix` with the times of X; after `set_output` a DataFrame.

        Of ``y`` only the length is looked at.
        """
        inputs, timeline = self._split(X)
        _check_length(inputs[0], y)
        if inputs[0].shape[0] == 0:
            features = as_feature_matrix(np.zeros((0, self.basis.n_output_features)))
        elif timeline is None:
            features = self.basis.compute_features(*inputs)
        else:
            features = self.basis.compute_features(*map(timeline.wrap, inputs))
        own = getattr(self, "_sklearn_output_config", {})
        if own.get("transform", get_config()["transform_output"]) == "default":
            return features
        return np.asarray(features)  # scikit-learn makes a DataFrame of it

    def _split(self, X):
        """The inputs of the leaves, and the times of the samples or None."""
        timeline = getattr(X, "timeline", None)
        if isinstance(X, Mapping):
            raise ValueError(
                "X is a dict; expected an array of shape (n_bins, n_columns), the inputs side by "
                "side."
            )
        if timeline is None:
            X, timeline = read_values(X, "X")
        X = X if hasattr(X, "toarray") else as_numbers(X, "X")
        shapes = self.basis.input_shape
        edges = np.cumsum([0] + [int(np.prod(s, dtype=int)) for s in shapes])
        if X.ndim != 2 or X.shape[1] != edges[-1]:
            raise ValueError(
                f"X has shape {tuple(X.shape)}; expected (n_bins, {edges[-1]}), the inputs of "
                f"{self.basis.label} side by side. Call set_input_shape to change their number."
            )
        parts = [X[:, a:b] for a, b in itertools.pairwise(edges)]
        inputs = [
            part if hasattr(part, "toarray") else part.reshape(X.shape[0], *shape)
            for part, shape in zip(parts, shapes, strict=True)
        ]
        return inputs, None if timeline is None else timeline.split_at_gaps()

    def __sklearn_is_fitted__(self):
        return True

    # --- the basis shows through ---

    def __getattr__(self, name):
        if name.startswith("_") or "_basis" not in self.__dict__:
            raise AttributeError(f"TransformerBasis has no attribute {name!r}")
        return getattr(self._basis, name)

    def __dir__(self):
        return sorted({*super().__dir__(), *(n for n in dir(self._basis) if n[0] != "_")})

    def __setattr__(self, name, value):
        if name == "basis" or name.startswith("_"):
            super().__setattr__(name, value)
        elif hasattr(self._basis, name):
            setattr(self._basis, name, value)
            for leaf in self._basis._leaves():
                leaf.forget()
        else:
            raise ValueError(f"{self._basis.label} has no attribute {name!r} that could be set.")

    def set_input_shape(self, *xi: object) -> Self:
        """Tell the basis the shape of one sample of its inputs; see the basis."""
        self._basis.set_input_shape(*xi)
        return self

    def get_params(self, deep: bool = True) -> dict[str, object]:
        """``basis``, and with ``deep`` the parameters of the basis."""
        return {"basis": self._basis, **(self._basis.get_params() if deep else {})}

    def set_params(self, **params: object) -> Self:
        """Set ``basis``, or parameters of the basis, not both."""
        if "basis" in params and len(params) > 1:
            raise ValueError("Set a new basis or parameters of the present basis, not both.")
        if "basis" in params:
            self.basis = params["basis"]
        elif params:
            self._basis.set_params(**params)
        return self

    def __sklearn_clone__(self):
        copied = TransformerBasis(self._basis)
        if hasattr(self, "_sklearn_output_config"):
            copied._sklearn_output_config = dict(self._sklearn_output_config)
        return copied

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """Names of the features: "speed_3", or "coupling_0_3" for function 3 of input 0.

        With ``set_output(transform="pandas")``, `transform` gives a DataFrame with these columns. A
        DataFrame is stored, unlike a `FeatureMatrix`. ``input_features`` is not used.

        Examples
        --------
        >>> import fastglm
        >>> basis = fastglm.basis.BSplineEval(4, label="speed").to_transformer()
        >>> basis.get_feature_names_out().tolist()
        ['speed_0', 'speed_1', 'speed_2', 'speed_3']
        """
        names = np.empty(self._basis.n_output_features, dtype=object)
        for label, numbers in self._basis.split_by_feature(np.arange(names.size), axis=0).items():
            for place in np.ndindex(numbers.shape):
                names[numbers[place]] = "_".join([label, *map(str, place)])
        return names

    def __getitem__(self, label: str) -> TransformerBasis:
        return TransformerBasis(self._basis[label])

    def __iter__(self) -> Iterator[TransformerBasis]:
        return (TransformerBasis(b) for b in self._basis)

    def __len__(self) -> int:
        return len(self._basis)

    def __add__(self, other: object) -> TransformerBasis:
        return TransformerBasis(self._basis + getattr(other, "basis", other))

    def __mul__(self, other: object) -> TransformerBasis:
        return TransformerBasis(self._basis * getattr(other, "basis", other))

    __rmul__ = __mul__

    def __pow__(self, exponent: int) -> TransformerBasis:
        return TransformerBasis(self._basis**exponent)


def _check_length(X, y):
    if y is not None and len(y) != X.shape[0]:
        raise ValueError(
            f"X has {X.shape[0]} bins and y {len(y)}; X and y must have the same number of samples."
        )
