"""Trees of features: dicts and lists, nested or not, whose leaves are features of the same bins.

A model takes such a tree as X and gives its coefficients back in the same shape:
``coef_["speed"]`` are the coefficients of ``X["speed"]``. A leaf has a path, its keys joined by
"/", which is the label of its block of columns. Keys of a dict are taken in alphabetical order, as
JAX does, so that the order in which a dict was filled has no effect.

`FeaturePytree` is NeMoS's tree of one level, with slices over bins.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping

import numpy as np
import scipy.sparse


class FeaturePytree(MutableMapping):
    """Features by name, with the same bins in each: a dict that is sliced along its bins.

    ``X["speed"]`` is one entry, and ``X[:100]`` is a tree of the first 100 bins of each. Where JAX
    is in use, ``jax.tree_util.tree_map`` goes through it.

    Parameters
    ----------
    **features : arrays of shape (n_bins, ...), `FeatureMatrix` or objects of pynapple

    Attributes
    ----------
    shape : tuple (n_bins,)
    ndim : int
        1: only the bins are common to all entries.
    data : dict

    Raises
    ------
    ValueError
        If an entry is no array, or has another number of bins.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> rng = np.random.default_rng(0)
    >>> X = fastglm.pytrees.FeaturePytree(
    ...     speed=rng.normal(size=(500, 3)), light=rng.normal(size=(500, 2))
    ... )
    >>> y = rng.poisson(np.exp(0.4 * X["speed"][:, 0] - 1))
    >>> model = fastglm.GLM(regularizer="Ridge", regularizer_strength={"speed": 0.1, "light": 1.0})
    >>> model = model.fit(X, y)
    >>> {name: coef.shape for name, coef in model.coef_.items()}
    {'light': (2,), 'speed': (3,)}
    """

    ndim = 1

    def __init__(self, **features: object) -> None:
        _register()
        self.data = {}
        for name, values in features.items():
            self[name] = values

    @property
    def shape(self) -> tuple[int | None]:
        """The number of bins, as a tuple."""
        return (next((values.shape[0] for values in self.data.values()), None),)

    def __len__(self) -> int:
        return self.shape[0] or 0

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __setitem__(self, name: str, values: object) -> None:
        if not isinstance(name, str):
            raise ValueError(f"The name of features is {name!r}; expected a text.")
        if not getattr(values, "shape", ()):
            raise ValueError(f"{name} is {values!r}; expected an array of at least 1 dimension.")
        n_bins = self.shape[0]
        if n_bins is not None and values.shape[0] != n_bins:
            raise ValueError(
                f"{name} has {values.shape[0]} bins; expected {n_bins}, as all arrays of the tree."
            )
        self.data[name] = values

    def __getitem__(self, key: object) -> object:
        if isinstance(key, str):
            return self.data[key]
        return FeaturePytree(**{name: values[key] for name, values in self.data.items()})

    def __delitem__(self, name: str) -> None:
        del self.data[name]

    def __repr__(self) -> str:
        return "\n".join(f"{k}: shape {v.shape}, dtype {v.dtype}" for k, v in self.data.items())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FeaturePytree) or sorted(self) != sorted(other):
            return False
        return all(np.array_equal(self[name], other[name]) for name in self)

    __hash__ = None


_REGISTERED = []  # the JAX that knows of the class


def _register():
    """Tell JAX, if it is in use, how to go through a `FeaturePytree`."""
    jax = sys.modules.get("jax")
    if jax is None or _REGISTERED:
        return

    def flatten(tree):
        names = tuple(sorted(tree))
        return [tree[name] for name in names], names

    def unflatten(names, leaves):
        leaves = dict(zip(names, leaves, strict=True))
        try:
            return FeaturePytree(**leaves)
        except ValueError:  # a function that gives no arrays, such as a mean
            return leaves

    jax.tree_util.register_pytree_node(FeaturePytree, flatten, unflatten)
    _REGISTERED.append(jax)


def is_tree(values: object) -> bool:
    """Whether features are a tree: a dict, or a list of arrays and trees.

    Rows of numbers are an array, and objects of pynapple in a list are trials.
    """
    if isinstance(values, Mapping):
        return not scipy.sparse.issparse(values)  # a dictionary of keys is one
    if not isinstance(values, list | tuple):
        return False
    nodes = [is_tree(v) or (len(getattr(v, "shape", ())) == 2 and _has_no_times(v)) for v in values]
    return bool(nodes) and all(nodes)


def _has_no_times(values):
    return not hasattr(values, "time_support")


def is_container(values: object) -> bool:
    """Whether values are a dict or a list, whatever they hold."""
    return isinstance(values, Mapping | list | tuple)


def _children(tree):
    if isinstance(tree, Mapping):
        return [(key, tree[key]) for key in sorted(tree, key=str)]
    return list(enumerate(tree))


def leaves(tree: object, is_node: Callable[[object], bool] = is_tree) -> dict[str, object]:
    """The leaves of a tree by their paths.

    Parameters
    ----------
    tree : dict or list
    is_node : function, default `is_tree`
        Whether a part is a tree; what is none is a leaf.

    Examples
    --------
    >>> from fastglm.pytrees import leaves
    >>> leaves({"b": {"x": 1.0, "a": 2.0}, "a": 3.0})
    {'a': 3.0, 'b/a': 2.0, 'b/x': 1.0}
    """
    found = {}
    for key, part in _children(tree):
        if is_node(part):
            found |= {f"{key}/{path}": leaf for path, leaf in leaves(part, is_node).items()}
        else:
            found[str(key)] = part
    return found


def paths(values: object, is_node: Callable[[object], bool] = is_tree) -> list[str] | None:
    """The paths of a tree, or None for what is no tree."""
    return list(leaves(values, is_node)) if is_node(values) else None


def shape_of(tree: object) -> dict | list:
    """A tree of features with the number of columns of every leaf, which JSON can hold."""
    return _map(tree, is_tree, lambda leaf: leaf.shape[1])


def lengths_of(tree: object) -> dict | list:
    """The shape of the features of a tree of coefficients, as `shape_of` gives it."""
    return _map(tree, is_container, len)


def _map(tree, is_node, function):
    parts = [
        (key, _map(part, is_node, function) if is_node(part) else function(part))
        for key, part in _children(tree)
    ]
    return dict(parts) if isinstance(tree, Mapping) else [part for _, part in parts]


def split(values: np.ndarray, shape: dict | list) -> dict | list:
    """Rows of an array as a tree of the shape that `shape_of` gives.

    Examples
    --------
    >>> import numpy as np
    >>> from fastglm.pytrees import split, stack
    >>> tree = split(np.arange(3), {"a": 1, "b": [2]})
    >>> tree
    {'a': array([0]), 'b': [array([1, 2])]}
    >>> stack(tree)
    array([0, 1, 2])
    """
    stop = 0

    def take(node):
        nonlocal stop
        if isinstance(node, dict):
            return {key: take(part) for key, part in node.items()}
        if isinstance(node, list):
            return [take(part) for part in node]
        start, stop = stop, stop + node
        return values[start:stop]

    return take(shape)


def stack(values: object) -> np.ndarray:
    """The array that `split` took apart, or the array that ``values`` are already."""
    if isinstance(values, Mapping) or (
        is_container(values) and any(hasattr(v, "shape") or is_container(v) for v in values)
    ):
        return np.concatenate([np.asarray(v) for v in leaves(values, is_container).values()])
    return values if scipy.sparse.issparse(values) else np.asarray(values)
