"""Interface of all bases: labels, sums, products, splitting, and the step of a pipeline.

Bases form a tree whose leaves are single bases. ``a + b`` puts features side by side; ``a * b``
multiplies every function of a with every function of b. An input belongs to a leaf. Inputs are
given in the order of the leaves.
"""

from __future__ import annotations

import copy
import itertools
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

import numpy as np
from sklearn.base import BaseEstimator

from fastglm import _html
from fastglm._checks import positive_int, shown
from fastglm._pynapple import common_timeline, keeps_times
from fastglm.basis.transformer import TransformerBasis
from fastglm.features.matrix import FeatureMatrix, hstack
from fastglm.features.product import ProductColumns

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_MOST_CURVES = 20  # functions of a basis that are drawn in a notebook


class Basis(BaseEstimator):
    """Interface of single bases, sums and products."""

    _input_shape = None  # of one sample of every input
    _n_inputs = 1
    _parent = None  # the sum or product that the basis is a part of
    is_complex = False

    # --- labels and the tree ---

    @property
    def label(self) -> str:
        """Name of the basis in ``split_by_feature`` and in feature masks."""
        return self._label

    @label.setter
    def label(self, value: str | None) -> None:
        if not isinstance(value, str | None):
            raise TypeError(f"label is {shown(value)}; expected a string.")
        default = value is None or self._is_default(value)  # numbers are given by the whole
        if not default:
            self._check_label(value)
        self._label = type(self).__name__ if default else str(value)
        self._root()._number_labels()

    def _root(self):
        """The whole that the basis is a part of."""
        return self if self._parent is None else self._parent._root()

    def _check_label(self, label):
        """Raise ValueError if the label is that of another part, or the name of another class."""
        if re.sub(r"_\d+$", "", str(label)) in _kinds(Basis):
            raise ValueError(
                f"The label {label!r} is the name of another class than {type(self).__name__}; "
                "give the basis another label."
            )
        taken = [node.label for node in self._root()._nodes() if node is not self]
        if str(label) in taken:
            raise ValueError(
                f"Another part of {self._root().label} has the label {label!r}; there are {taken}. "
                "Give this one another label."
            )

    def _number_labels(self):
        """A single basis has no labels to tell apart."""

    def __getstate__(self):
        # A copy of a part stands on its own; a copy of a whole tells its parts anew.
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_parent"}

    def _is_default(self, label):
        """Whether a label is the name of the class, with or without a number."""
        return re.fullmatch(rf"{type(self).__name__}(_\d+)?", label) is not None

    @property
    def _has_default_label(self):
        return self._is_default(self._label)

    def _leaves(self):
        return [self]

    def _nodes(self):
        return [self]

    def __iter__(self) -> Iterator[Basis]:
        """The summands in order; a single basis or a product is its own summand."""
        yield self

    def __len__(self) -> int:
        """Number of summands."""
        return 1

    def __getitem__(self, label: str) -> Basis:
        """The part with the label."""
        if not isinstance(label, str):
            raise IndexError(
                f"A basis is indexed with labels, not with {label!r}; use list(basis) for numbers."
            )
        for node in self._nodes():
            if node.label == label:
                return node
        raise IndexError(
            f"No basis has the label {label!r}; there are {[n.label for n in self._nodes()]}."
        )

    def _html_repr(self):  # scikit-learn shows it in a notebook
        rows, drawn = [], []
        for leaf in self._leaves():
            n = leaf.n_output_features
            columns = "set by the inputs" if n is None else str(n)
            kind = type(leaf).__name__
            rows.append([leaf.label, kind, str(leaf.n_basis_funcs), leaf._domain(), columns])
            n = min(_MOST_CURVES, getattr(leaf, "window_size", 0) - 1)
            if leaf.n_basis_funcs <= n:
                drawn.append(_html.curves(leaf.kernel_))
        name = self.label.removeprefix("(").removesuffix(")") if len(rows) > 1 else self.label
        head = ["part", "basis", "functions", "domain", "columns"]
        return _html.table(name, rows, head, below="".join(drawn))

    def __sklearn_clone__(self):
        # A clone knows its inputs, so that it can be fitted as a step of a pipeline.
        return copy.deepcopy(self)

    # --- arithmetic ---

    def __add__(self, other: object) -> Basis | TransformerBasis:
        if isinstance(other, TransformerBasis):
            return TransformerBasis(self + other.basis)
        return AdditiveBasis(self, other) if isinstance(other, Basis) else NotImplemented

    def __mul__(self, other: object) -> Basis | TransformerBasis:
        if isinstance(other, TransformerBasis):
            return TransformerBasis(self * other.basis)
        if isinstance(other, int) and not isinstance(other, bool):
            return self._repeat(other, AdditiveBasis)
        return MultiplicativeBasis(self, other) if isinstance(other, Basis) else NotImplemented

    __rmul__ = __mul__

    def __pow__(self, exponent: int) -> Basis:
        if not isinstance(exponent, int) or isinstance(exponent, bool):
            raise TypeError(f"The exponent of a basis is {exponent!r}; expected an integer.")
        return self._repeat(exponent, MultiplicativeBasis)

    def _repeat(self, times, composite):
        if times < 1:
            raise ValueError(f"A basis cannot be repeated {times} times; expected at least 1.")
        chosen = [n.label for n in self._nodes() if not n._has_default_label]
        if chosen:
            raise ValueError(
                f"A basis with the labels {chosen} cannot be repeated, since labels must differ; "
                "set labels afterwards."
            )
        result = copy.deepcopy(self)
        for _ in range(times - 1):
            result = composite(result, self)
        return result

    def to_transformer(self) -> TransformerBasis:
        """The basis as a transformer of scikit-learn: a step of a pipeline.

        Examples
        --------
        >>> import numpy as np, fastglm
        >>> from sklearn.model_selection import GridSearchCV
        >>> from sklearn.pipeline import Pipeline
        >>> x = np.random.default_rng(0).uniform(size=(300, 1))
        >>> y = np.random.default_rng(1).poisson(np.exp(np.sin(6 * x[:, 0])))
        >>> basis = fastglm.basis.RaisedCosineLinearEval(4, bounds=(0, 1)).to_transformer()
        >>> glm = fastglm.GLM(regularizer="Ridge", regularizer_strength=1e-3)
        >>> pipeline = Pipeline([("basis", basis), ("glm", glm)])
        >>> search = GridSearchCV(pipeline, {"basis__n_basis_funcs": [2, 6]}, cv=3).fit(x, y)
        >>> search.best_params_
        {'basis__n_basis_funcs': 6}
        """
        return TransformerBasis(self)

    # --- inputs and features ---

    @property
    def input_shape(self) -> list[tuple[int, ...] | None]:
        """List with the shape of one sample of every input; None if it is not known yet."""
        return [b._input_shape for b in self._leaves() for _ in range(b._n_inputs)]

    @property
    def n_output_features(self) -> int | None:
        """Number of columns of the features; None before the inputs are known."""
        shape = self._feature_shape()
        return None if shape is None else int(np.prod(shape, dtype=int))

    @property
    def _vector_shape(self):
        """Shape of the array of inputs; the functions are applied to each input on its own."""
        return self._input_shape

    def _feature_shape(self):
        """Shape of the unfolded axis of features: the shape of an input, then the functions."""
        if self._input_shape is None:
            return None
        return (*self._input_shape, self._n_columns)

    @property
    def _n_columns(self):
        """Number of columns of one input."""
        return self.n_basis_funcs

    def set_input_shape(self, *xi: object) -> Self:
        """Tell the basis the shape of one sample of its inputs.

        Parameters
        ----------
        *xi : int, tuple or array
            One for each input: its number of columns (1 is an input of one dimension), its shape
            without the axis of samples, or an array of samples. The inputs of a product have the
            same shape.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the basis is a part of a sum or a product, which is told all shapes at once.
        """
        if self._parent is not None:
            raise ValueError(
                f"{self.label} is a part of {self._root().label}; call set_input_shape of the "
                f"whole, with {self._root()._n_inputs} shapes."
            )
        self._set_input_shape(*xi)
        return self

    def _set_input_shape(self, *xi):
        shapes = {sample_shape(x) for x in self._one_each(xi, ValueError)}
        self._input_shape = self._one_shape(shapes)

    def _check_whole(self):
        """Raise ValueError if the basis is a part, whose inputs are told to the whole."""
        if self._parent is not None:
            raise ValueError(
                f"{self.label} is a part of {self._root().label}; call compute_features of the "
                f"whole and split its features, or of a copy: copy.deepcopy(basis[{self.label!r}])."
            )

    def setup_basis(self, *xi: object) -> Self:
        """As `set_input_shape`, with NeMoS's name: kernels are made when they are used."""
        return self.set_input_shape(*xi)

    def _evaluate_columns(self, *sample_pts):
        """As `evaluate`, with all columns of one input along the last axis."""
        return self.evaluate(*sample_pts)

    def _one_shape(self, shapes):
        if len(shapes) > 1:
            raise ValueError(
                f"The inputs of {self.label} have samples of shapes {sorted(shapes)}; a product "
                "needs the same shape in each."
            )
        return next(iter(shapes))

    def _check_shapes(self):
        """The shape of a product's inputs, if it is known; ValueError if factors have others."""

    def _one_each(self, inputs, wrong=TypeError):
        if len(inputs) != self._n_inputs:
            raise wrong(
                f"{len(inputs)} inputs for {len(self._leaves())} bases; {self.label} takes one "
                f"input for each, in order (the same counts may be given twice): {self._n_inputs} "
                "in all."
            )
        return inputs

    def split_by_feature(self, x: ArrayLike, axis: int = 1) -> dict[str, np.ndarray]:
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
            ``{label: array}``, one array for each summand. The axis is reshaped to (n_senders,
            n_basis_funcs), so that coupling coefficients become (sender, basis function, receiver).
            For a one-dimensional input the axis is (n_basis_funcs,). A product is one summand; the
            functions of its first factor vary slowest. Features with times
            (`FeatureMatrix.timeline`) give one TsdFrame or TsdTensor for each summand.

        Raises
        ------
        ValueError
            Before `compute_features`, or if the length of the axis is not the number of features.
        """
        timeline, x = getattr(x, "timeline", None), np.asarray(x)
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
        for basis in self:
            stop = start + basis.n_output_features
            part = x[(slice(None),) * axis + (slice(start, stop),)]
            shape = basis._feature_shape()
            parts[basis.label] = part.reshape(*x.shape[:axis], *shape, *x.shape[axis + 1 :])
            start = stop
        if timeline is not None:
            parts = {label: timeline.wrap(part) for label, part in parts.items()}
        return parts


class _Composite(Basis):
    """A sum or a product of two bases, which may be sums and products."""

    def __init__(self, basis1, basis2, label=None):
        for name, basis in (("basis1", basis1), ("basis2", basis2)):
            if not isinstance(basis, Basis):
                raise TypeError(f"{name} is {basis!r}; expected a basis.")
        self._label = None
        self._parts = [copy.deepcopy(basis1), copy.deepcopy(basis2)]
        self._adopt()
        self.label = label

    @property
    def basis1(self):
        """The left part. A basis that is set is copied."""
        return self._parts[0]

    @basis1.setter
    def basis1(self, value):
        self.set_params(basis1=value)

    @property
    def basis2(self):
        """The right part. A basis that is set is copied."""
        return self._parts[1]

    @basis2.setter
    def basis2(self, value):
        self.set_params(basis2=value)

    def _adopt(self):
        for part in self._parts:
            part._parent = self

    def __setstate__(self, state):
        super().__setstate__(state)
        self._adopt()

    @property
    def label(self):
        """The label that was given, or a label made of the labels of the parts."""
        return self._label or self._default_label()

    def _default_label(self):
        return f"({self.basis1.label} {self._sign} {self.basis2.label})"

    @label.setter
    def label(self, value):
        default = value in (None, self._default_label(), type(self).__name__)
        if not default:
            self._check_label(value)
        self._label = None if default else str(value)
        self._root()._number_labels()

    @property
    def _has_default_label(self):
        return self._label is None

    def _number_labels(self):
        """Give every default label its number, in order; chosen labels must differ."""
        nodes, taken = self._nodes(), set()
        for node in nodes:
            if not node._has_default_label:
                if node.label in taken:
                    raise ValueError(
                        f"Two bases have the label {node.label!r}; give one of them another label."
                    )
                taken.add(node.label)
        for node in nodes:
            if node._has_default_label and not isinstance(node, _Composite):
                name = type(node).__name__
                names = itertools.chain([name], (f"{name}_{n}" for n in itertools.count(1)))
                node._label = next(name for name in names if name not in taken)
                taken.add(node._label)

    def _leaves(self):
        return self.basis1._leaves() + self.basis2._leaves()

    def _nodes(self):
        return [self, *self.basis1._nodes(), *self.basis2._nodes()]

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        # That of scikit-learn takes twice as long for every further part.
        parts = [f"basis1={self.basis1!r}", f"basis2={self.basis2!r}"]
        parts += [] if self._label is None else [f"label={self._label!r}"]
        text = " ".join(f"{type(self).__name__}({', '.join(parts)})".split())
        half = N_CHAR_MAX // 2
        return text if len(text) <= N_CHAR_MAX else f"{text[:half]}...{text[-half:]}"

    # --- parameters, by label ---

    def get_params(self, deep=True):
        """Parameters by label: ``{label: basis, label__name: value}`` for every part.

        Parameters
        ----------
        deep : bool, default True
            False gives ``basis1``, ``basis2`` and ``label``.
        """
        if not deep:
            return {"basis1": self.basis1, "basis2": self.basis2, "label": self._label}
        params = {"label": self.label}
        for node in self._nodes()[1:]:
            own = {"label": node.label}
            if not isinstance(node, _Composite):
                own = node.get_params(deep=False)
            params[node.label] = node
            params.update({f"{node.label}__{name}": value for name, value in own.items()})
        return params

    def set_params(self, **params):
        """Set parameters by label: ``label__name=value``, or ``label=basis`` for a whole part.

        The names ``basis1``, ``basis2`` and ``basis1__name`` are accepted too.

        Raises
        ------
        ValueError
            If no part has that label or parameter, or parameters do not fit each other.
        """
        places = {"basis1": (0,), "basis2": (1,)}
        places |= {self._at(place).label: place for place in self._places()}
        replaced, changed = {}, {}
        for key, value in params.items():
            if key == "label":
                self.label = value
                continue
            fitting = [name for name in places if key == name or key.startswith(f"{name}__")]
            if not fitting:
                raise ValueError(
                    f"{self.label} has no parameter {key!r}; there are {sorted(self.get_params())}."
                )
            name = max(fitting, key=len)
            if key == name:
                replaced[places[name]] = value
            else:
                changed.setdefault(places[name], {})[key[len(name) + 2 :]] = value
        # Parameters are those of the new parts, and inner parts are in the new outer ones.
        for place, new in sorted(replaced.items(), key=lambda item: len(item[0])):
            old = self._at(place)
            if not isinstance(new, Basis):
                raise TypeError(f"{old.label} cannot be set to {new!r}; expected a basis.")
            new = copy.deepcopy(new)
            if not isinstance(new, _Composite) and not isinstance(old, _Composite):
                if new._has_default_label and not old._has_default_label:
                    new.label = old.label
                if new._input_shape is None and new._n_inputs == old._n_inputs:
                    new._input_shape = old._input_shape
            old._parent._replace(old, new)
        for place, values in changed.items():
            self._at(place).set_params(**values)
        return self

    def _places(self):
        """Where the parts are: tuples of 0 (left) and 1 (right), outer before inner."""
        for k, part in enumerate(self._parts):
            yield (k,)
            if isinstance(part, _Composite):
                yield from ((k, *place) for place in part._places())

    def _at(self, place):
        """The part at a place."""
        part = self
        for k in place:
            if not isinstance(part, _Composite):
                raise ValueError(
                    f"{part.label} has no parts; it was set in the place of a sum or a product "
                    "whose part is set too."
                )
            part = part._parts[k]
        return part

    def _replace(self, old, new):
        """Put a basis in the place of a part; nothing changes if it does not fit the others."""
        before, self._parts = self._parts, [new if part is old else part for part in self._parts]
        self._adopt()
        try:
            self._root()._number_labels()
            for node in self._root()._nodes():
                node._check_shapes()
        except ValueError:
            self._parts = before
            raise

    # --- inputs ---

    @property
    def _n_inputs(self):
        return self.basis1._n_inputs + self.basis2._n_inputs

    @property
    def bounds(self):
        """Bounds of every input, in order; None where an input has none."""
        given = [leaf.bounds for leaf in self._leaves()]
        return [b for own in given for b in (own if isinstance(own, list) else [own])]

    @property
    def is_complex(self):
        """True if a part is made of cosines and sines."""
        return self.basis1.is_complex or self.basis2.is_complex

    def _halves(self, inputs):
        """Both parts, each with its inputs."""
        inputs = self._one_each(inputs)
        n = self.basis1._n_inputs
        return (self.basis1, inputs[:n]), (self.basis2, inputs[n:])

    def _set_input_shape(self, *xi):
        for basis, some in self._halves(self._one_each(xi, ValueError)):
            basis._set_input_shape(*some)

    def evaluate_on_grid(self, *n_samples):
        """The functions on a grid with one axis for each input, over the bounds or [0, 1].

        Returns
        -------
        *grids : ndarrays of shape n_samples
        values : ndarray of shape (*n_samples, n_basis_funcs)
        """
        (first, some), (second, others) = self._halves(n_samples)
        *grids1, left = first.evaluate_on_grid(*some)
        *grids2, right = second.evaluate_on_grid(*others)
        ones, more = (1,) * len(some), (1,) * len(others)
        shape = left.shape[:-1] + right.shape[:-1]
        grids = [g.reshape(*g.shape, *more) for g in grids1]
        grids += [g.reshape(*ones, *g.shape) for g in grids2]
        left = left.reshape(*left.shape[:-1], *more, -1)
        right = right.reshape(*ones, *right.shape)
        left, right = (np.broadcast_to(v, (*shape, v.shape[-1])) for v in (left, right))
        return *(np.array(np.broadcast_to(g, shape)) for g in grids), self._join(left, right)


class AdditiveBasis(_Composite):
    """Bases side by side: ``a + b``. One input for each basis, features in order, split by label.

    Parameters
    ----------
    basis1, basis2 : bases
        Copies are kept. A default label that occurs twice gets a number.
    label : str, optional

    Raises
    ------
    ValueError
        If two bases share a label that a user chose.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(500, 3))
    >>> speed = np.random.default_rng(1).random(500)
    >>> basis = fastglm.basis.RaisedCosineLogConv(4, 50, label="coupling")
    >>> basis = basis + fastglm.basis.BSplineEval(5, label="speed")
    >>> X = basis.compute_features(counts, speed)
    >>> {label: part.shape for label, part in basis.split_by_feature(X).items()}
    {'coupling': (500, 3, 4), 'speed': (500, 5)}
    """

    _sign = "+"

    def __iter__(self) -> Iterator[Basis]:
        yield from self.basis1
        yield from self.basis2

    def __len__(self) -> int:
        return len(self.basis1) + len(self.basis2)

    @property
    def n_basis_funcs(self) -> int:
        """Number of basis functions of all summands."""
        return self.basis1.n_basis_funcs + self.basis2.n_basis_funcs

    @property
    def _n_columns(self):
        return self.basis1._n_columns + self.basis2._n_columns

    @property
    def n_output_features(self) -> int | None:
        """Number of columns of the features; None before the inputs are known."""
        numbers = [b.n_output_features for b in self]
        return None if None in numbers else sum(numbers)

    def compute_features(self, *xi: object, epochs: object | None = None) -> FeatureMatrix:
        """Features of every summand side by side; one input for each leaf, in order.

        See ``compute_features`` of the summands. A row is complete if it is complete for all
        summands.
        """
        self._check_whole()
        return self._compute_features(*xi, epochs=epochs)

    def _compute_features(self, *xi, epochs):
        return hstack([b._compute_features(*x, epochs=epochs) for b, x in self._halves(xi)])

    @keeps_times
    def evaluate(self, *sample_pts: ArrayLike) -> np.ndarray:
        """The functions of all summands at samples, from one array for each input, of one shape.

        Returns
        -------
        ndarray of shape (*samples.shape, n_basis_funcs)
            Functions with values of several dimensions (`CustomBasis`) have one entry for each
            number of their values.
        """
        values = [b._evaluate_columns(*x) for b, x in self._halves(sample_pts)]
        if len({v.shape[:-1] for v in values}) > 1:
            raise ValueError(
                f"The summands of {self.label} have samples of shapes "
                f"{[v.shape[:-1] for v in values]}; expected the same shape in each. Use "
                "compute_features for inputs of different shapes?"
            )
        return self._join(*values)

    @staticmethod
    def _join(left, right):
        return np.concatenate([left, right], axis=-1)


class MultiplicativeBasis(_Composite):
    """Products of the functions of two bases: ``a * b``, an interaction of two inputs.

    Feature ``j * n2 + k`` is the product of function j of the first basis at its input and function
    k of the second basis at its input. Inputs of several dimensions are paired and have the same
    shape. The features are never stored: products are taken a chunk of bins at a time. A factor may
    be a convolution: the strength of a coupling then follows a covariate.

    Parameters
    ----------
    basis1, basis2 : bases
        Copies are kept. A default label that occurs twice gets a number.
    label : str, optional

    Raises
    ------
    ValueError
        If two bases share a label that a user chose, or both bases are made of cosines and sines;
        their product would mix cosines and sines.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> x, y = np.random.default_rng(0).random((2, 500))  # position in an arena
    >>> place = fastglm.basis.BSplineEval(6, label="x") * fastglm.basis.BSplineEval(5, label="y")
    >>> X = place.compute_features(x, y)
    >>> X.shape, place.split_by_feature(X)["(x * y)"].shape
    ((500, 30), (500, 30))
    """

    _sign = "*"

    def __init__(self, basis1: Basis, basis2: Basis, label: str | None = None) -> None:
        if getattr(basis1, "is_complex", False) and getattr(basis2, "is_complex", False):
            raise ValueError(
                "Two bases of cosines and sines cannot be multiplied, which would mix both; use "
                "FourierEval(..., ndim=2)?"
            )
        super().__init__(basis1, basis2, label)
        shapes = {b._vector_shape or () for b in self._leaves()}
        if len(shapes) > 1:
            warnings.warn(
                f"The factors of {self.label} were told inputs of shapes {sorted(shapes)}; a "
                "product needs the same shape in each. The product knows none of them; "
                "compute_features or set_input_shape tells it.",
                UserWarning,
                stacklevel=3,
            )
            for basis in self._leaves():
                basis._input_shape = None

    @property
    def n_basis_funcs(self) -> int:
        """Number of pairs of functions."""
        return self.basis1.n_basis_funcs * self.basis2.n_basis_funcs

    @property
    def _n_columns(self):
        return self.basis1._n_columns * self.basis2._n_columns

    @property
    def _input_shape(self):
        return self._check_shapes()

    def _set_input_shape(self, *xi):
        super()._set_input_shape(*xi)
        self._check_shapes()

    def _check_shapes(self):
        shapes = {b._vector_shape for b in self._leaves()}
        return None if None in shapes else self._one_shape(shapes)

    def compute_features(self, *xi: object, epochs: object | None = None) -> FeatureMatrix:
        """Products of the factors' features, input by input; one input for each leaf, in order.

        See ``compute_features`` of the factors. A row is complete if it is complete for all
        factors.

        Returns
        -------
        FeatureMatrix of shape (n_bins, n_inputs * n_basis_funcs)

        Raises
        ------
        ValueError
            If the inputs do not have the same shape.
        """
        self._check_whole()
        return self._compute_features(*xi, epochs=epochs)

    def _compute_features(self, *xi, epochs):
        left, right = (b._compute_features(*x, epochs=epochs) for b, x in self._halves(xi))
        n_inputs = int(np.prod(self._input_shape, dtype=int))
        if n_inputs > 1 and any(getattr(b, "output_shape", ()) for b in self._leaves()):
            raise ValueError(
                f"{self.label} multiplies functions with values of several dimensions at "
                f"{n_inputs} inputs; compute the features input by input."
            )
        factors = self.basis1.label, self.basis2.label
        timeline = common_timeline([left.timeline, right.timeline], factors)
        if left.shape[0] != right.shape[0]:
            raise ValueError(
                f"The factors of {self.label} have {left.shape[0]} and {right.shape[0]} samples; "
                "expected the same number in each."
            )
        if n_inputs == 0:  # there is nothing to multiply
            return FeatureMatrix([left.blocks[0]], timeline=timeline)
        block = ProductColumns(left.blocks, right.blocks, n_inputs, self.label)
        block.inputs = left.blocks[0].inputs if n_inputs > 1 else None
        return FeatureMatrix([block], timeline=timeline)

    @keeps_times
    def evaluate(self, *sample_pts: ArrayLike) -> np.ndarray:
        """Products of the functions at samples, from one array for each input, of one shape.

        Returns
        -------
        ndarray of shape (*samples.shape, n_basis_funcs)
            Functions with values of several dimensions (`CustomBasis`) have one entry for each
            number of their values; the entries are in the order of `compute_features`.
        """
        left, right = (b._evaluate_columns(*x) for b, x in self._halves(sample_pts))
        self._one_shape({left.shape[:-1], right.shape[:-1]})
        return self._join(left, right)

    @staticmethod
    def _join(left, right):
        product = left[..., :, None] * right[..., None, :]
        return product.reshape(*left.shape[:-1], left.shape[-1] * right.shape[-1])


def _kinds(cls):
    """Names of the bases that users make: classes without subclasses."""
    below = cls.__subclasses__()
    return set().union(*map(_kinds, below)) if below else {cls.__name__}


def sample_shape(xi: object) -> tuple[int, ...]:
    """Shape of one sample, from a number, a shape or an array of samples."""
    if isinstance(xi, tuple):
        if not all(isinstance(n, int | np.integer) for n in xi):
            raise ValueError(f"A number of columns is no integer in {xi}; expected integers.")
        return tuple(positive_int("A number of columns", n) for n in xi)
    if getattr(xi, "shape", ()):
        return tuple(xi.shape[1:])
    n = positive_int("A number of columns", xi)
    return () if n == 1 else (n,)
