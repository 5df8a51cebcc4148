"""Penalties by their names in the field: ridge, lasso, elastic net, group lasso, smoothness.

A penalty is added to the mean loss of each receiver. It sees the coefficients c of the receiver and
not its intercept:

| name | penalty | exact zeros |
|---|---|---|
| `UnRegularized` | 0 | |
| `Ridge` | ``strength / 2 * |c|^2`` | |
| `Lasso` | ``strength * sum_f |c_f|`` | features |
| `ElasticNet` | ``strength * ((1 - ratio) / 2 * |c|^2 + ratio * sum_f |c_f|)`` | features |
| `GroupLasso` | ``strength * sum_g sqrt(dim_g) * |c_g|`` | groups |
| `Quadratic` | ``strength / 2 * c' matrix c`` | |

Strengths mean the same as in NeMoS and scikit-learn: ``alpha`` of ``PoissonRegressor`` for the
ridge, ``alpha`` of ``Lasso``, on the mean loss, for the lasso. A strength is a number, an array of
shape (n_receivers,), or an array of shape (n_features, n_receivers). A `GroupLasso` takes shape
(n_groups, n_receivers) in place of the last. An `ElasticNet` also takes a pair
``(strength, ratio)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from sklearn.base import BaseEstimator

from fastglm._absent import refuse
from fastglm._checks import as_dense_numbers, as_numbers, shown
from fastglm._penalty import Penalty, as_matrix
from fastglm.pytrees import leaves

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class _Regularizer(BaseEstimator):
    default_strength = 1.0

    def __str__(self) -> str:
        return type(self).__name__

    @classmethod
    def allow_solver(cls, name: str) -> NoReturn:
        """Not available: raises NotImplementedError, since there is no registry of solvers."""
        refuse("solvers", __name__)

    def of_blocks(self, strength: np.ndarray, X: object) -> np.ndarray:
        """Strengths as `penalty` takes them, from one for each feature and receiver."""
        return strength

    def penalty(self, strength: ArrayLike | tuple | None, X: object, free: np.ndarray) -> Penalty:
        """The penalty of every receiver at a strength.

        Parameters
        ----------
        strength : None, number, tuple or array
        X : FeatureMatrix
        free : ndarray of bool, shape (n_features, n_receivers)
            Features that the mask leaves in the fit.

        Returns
        -------
        fastglm._penalty.Penalty

        Raises
        ------
        ValueError
            If the strength is negative, not finite, or of another shape.
        """
        strength = self.default_strength if strength is None else strength
        return self._penalty(strength, X, free)


class UnRegularized(_Regularizer):
    """No penalty: the maximum of the likelihood."""

    default_strength = None

    def _penalty(self, strength, X, free):
        return Penalty(np.zeros((1, free.shape[1])))


class Ridge(_Regularizer):
    """``strength / 2 * |c|^2``: shrinks all coefficients; the optimum always exists."""

    def _penalty(self, strength, X, free):
        return Penalty(_read(strength, free.shape))


class Lasso(_Regularizer):
    """``strength * sum_f |c_f|``: sets the coefficients of features to exactly 0."""

    def _penalty(self, strength, X, free):
        strength = _read(strength, free.shape)
        weight = np.broadcast_to(strength, free.shape).copy()
        return Penalty(np.zeros((1, free.shape[1])), group_of=np.arange(len(free)), weight=weight)


class ElasticNet(_Regularizer):
    """``strength * ((1 - ratio) / 2 * |c|^2 + ratio * sum_f |c_f|)``.

    Parameters
    ----------
    ratio : float between 0 and 1
        Share of the lasso. A strength that is a pair ``(strength, ratio)``, as in NeMoS, replaces
        it.
    """

    def __init__(self, ratio: ArrayLike = 0.5) -> None:
        self.ratio = ratio

    def _penalty(self, strength, X, free):
        ratio = self.ratio
        if isinstance(strength, tuple | list):
            if len(strength) != 2:
                raise TypeError(
                    f"regularizer_strength has {len(strength)} parts; expected a pair (strength, "
                    "ratio), or an array."
                )
            strength, ratio = strength
        ratio = _read(ratio, free.shape, "ratio")
        if (ratio > 1).any():
            raise ValueError(f"ratio is {ratio.max():g}; expected numbers from 0 to 1.")
        strength = _read(strength, free.shape)
        weight = np.broadcast_to(strength * ratio, free.shape).copy()
        return Penalty(strength * (1 - ratio), group_of=np.arange(len(free)), weight=weight)


class GroupLasso(_Regularizer):
    """``strength * sum_g sqrt(dim_g) * |c_g|``: sets whole groups to exactly 0.

    Parameters
    ----------
    mask : array of shape (n_groups, n_features) or (n_groups, n_features, n_receivers), optional
        1 where a feature belongs to a group. A feature belongs to one group at most; a feature of
        no group is not penalised. With three axes a group belongs to one receiver, as in NeMoS; the
        groups of all receivers are the same sets of features. ``{label: mask}`` has the columns of
        each block of features. By default every filter from one sender to one receiver is a group,
        and every block of ordinary columns is a group.

    Notes
    -----
    ``dim_g`` is the number of features of the group that the receiver's mask leaves in the fit.
    """

    def __init__(self, mask: ArrayLike | None = None) -> None:
        self.mask = mask

    def of_blocks(self, strength: np.ndarray, X: object) -> np.ndarray:
        """Strengths of the groups: each that of its first feature."""
        if self.mask is None:
            return strength[np.unique(X.filters, return_index=True)[1]]
        mask, _ = same_groups(_side_by_side(self.mask, X), 1.0)
        return strength[np.argmax(mask != 0, axis=1)]

    def _penalty(self, strength, X, free):
        n = free.shape[1]
        if self.mask is None:
            group_of = X.filters
            n_groups = int(group_of.max()) + 1
        else:
            mask, strength = same_groups(_side_by_side(self.mask, X), strength, n)
            group_of, n_groups = _read_groups(mask, len(free)), len(mask)
        strength = _read(strength, (n_groups, n), each="group")
        member = np.zeros((n_groups + 1, len(free)))  # the last row: features of no group
        member[group_of, np.arange(len(free))] = 1
        weight = np.zeros((n_groups + 1, n))
        weight[:-1] = strength * np.sqrt(member[:-1] @ free)
        return Penalty(np.zeros((1, n)), group_of=group_of, weight=weight)


class Quadratic(_Regularizer):
    """``strength / 2 * c' matrix c``, for instance the squared second differences of each filter.

    Parameters
    ----------
    matrix : array of shape (n_features, n_features) or (n_basis_funcs, n_basis_funcs)
        Symmetric and positive semidefinite; dense or sparse. A matrix of shape (n_basis_funcs,
        n_basis_funcs) is applied to every filter of n_basis_funcs features; filters of another size
        are not penalised.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> D = np.diff(np.eye(10), 2, axis=0)  # second differences over 10 lags
    >>> smooth = fastglm.regularizer.Quadratic(D.T @ D)
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(2000, 3))
    >>> X = fastglm.basis.HistoryConv(10).compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer=smooth, regularizer_strength=0.1).fit(X, counts)
    >>> model.coef_.shape
    (30, 3)
    """

    def __init__(self, matrix: ArrayLike) -> None:
        self.matrix = matrix

    def _penalty(self, strength, X, free):
        n = free.shape[1]
        strength = _read(strength, (1, n))
        matrix = as_matrix(self.matrix, X.filters)
        return Penalty(np.zeros((1, n)), matrix=matrix, strength=strength[0].copy())


REGULARIZERS = {
    c.__name__: c for c in (UnRegularized, Ridge, Lasso, ElasticNet, GroupLasso, Quadratic)
}


def as_regularizer(regularizer: object) -> _Regularizer:
    """The regularizer that a name or an object stands for; None stands for `UnRegularized`.

    Raises
    ------
    TypeError
        If ``regularizer`` is neither a name nor a regularizer of fastglm or NeMoS.
    ValueError
        If it is a name that is not known.
    """
    if regularizer is None:
        return UnRegularized()
    if isinstance(regularizer, _Regularizer):
        return regularizer
    name = regularizer if isinstance(regularizer, str) else type(regularizer).__name__
    if name in REGULARIZERS and name != "Quadratic":
        kind = REGULARIZERS[name]
        mask = getattr(regularizer, "mask", None)  # of a GroupLasso of NeMoS
        return kind(mask=mask) if name == "GroupLasso" and mask is not None else kind()
    wrong = ValueError if isinstance(regularizer, str) else TypeError
    raise wrong(
        f"regularizer is {shown(regularizer)}; expected None, one of "
        f"{[n for n in REGULARIZERS if n != 'Quadratic']}, or an object of fastglm.regularizer."
    )


def _read(strength, shape, name="regularizer_strength", each="coefficient"):
    """Strengths of shape (1, n_receivers) or ``shape``."""
    try:
        strength = as_dense_numbers(strength, name).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} is {strength!r}; expected numbers.") from None
    n_features, n = shape
    if strength.shape in ((), (n,)):
        strength = np.broadcast_to(strength, (1, n)).copy()
    elif strength.shape == (n_features,) and n == 1:
        strength = strength[:, None]
    if strength.shape not in ((1, n), (n_features, n)):
        raise ValueError(
            f"{name} has shape {strength.shape}; expected a number, (n_receivers,) = ({n},), or "
            f"one for each {each}, {(n_features, n)}."
        )
    if not (np.isfinite(strength).all() and (strength >= 0).all()):
        raise ValueError(f"{name} must be finite and not negative; 0 is no penalty.")
    return strength


def _side_by_side(mask, X):
    """A mask as an array; that of a dict is put together in the order of the features."""
    mask = getattr(mask, "coef", mask)  # of NeMoS's parameters, coefficients and intercept
    if not isinstance(mask, Mapping):
        return mask
    parts = leaves(mask, lambda node: isinstance(node, Mapping))
    if sorted(parts) != sorted(X.labels):
        raise ValueError(
            f"mask of GroupLasso has labels {sorted(parts)}; expected {X.labels}, one for each "
            "block of features."
        )
    return np.concatenate([as_dense_numbers(parts[label], "mask") for label in X.labels], axis=1)


def same_groups(
    mask: ArrayLike, strength: ArrayLike, n: int | None = None
) -> tuple[np.ndarray, ArrayLike]:
    """Groups that all receivers have, from groups that belong to one receiver each.

    Parameters
    ----------
    mask : array of shape (n_groups, n_features, n_receivers)
        An array of two axes is returned as it is.
    strength : number, or array with one for each group
    n : int, optional
        Number of receivers that the mask must have.

    Returns
    -------
    mask : ndarray of shape (n_groups, n_features)
        The groups of a receiver, in the order of their first features.
    strength : number, or ndarray of shape (n_groups, n_receivers)

    Raises
    ------
    ValueError
        If a group holds features of several receivers, or receivers have other groups.
    """
    mask = as_numbers(mask, "mask of GroupLasso")
    if mask.ndim != 3:
        return mask, strength
    if n not in (None, mask.shape[2]):
        raise ValueError(
            f"mask of GroupLasso has shape {mask.shape}; expected (n_groups, n_features, "
            f"n_receivers) with n_receivers = {n}."
        )
    if ((mask != 0).any(axis=1).sum(axis=1) > 1).any():
        raise ValueError(
            "Some group of GroupLasso holds features of several receivers; in fastglm every "
            "receiver is fitted on its own. Give each receiver its own groups."
        )
    order = [_by_first_feature(mask[:, :, j]) for j in range(mask.shape[2])]
    first = mask[order[0], :, 0]
    if not all(np.array_equal(mask[o, :, j], first) for j, o in enumerate(order)):
        raise ValueError(
            "The groups of GroupLasso differ between receivers; fastglm has the same groups for "
            "all. Fit receivers with other groups as models of their own."
        )
    if np.shape(strength) == (len(mask),):
        strength = np.stack([np.asarray(strength)[o] for o in order], axis=1)
    return first, strength


def _by_first_feature(groups):
    """Groups that hold something, by their first feature."""
    there = np.flatnonzero(groups.any(axis=1))
    return there[np.argsort(groups[there].argmax(axis=1))]


def _read_groups(mask, n_features):
    """The number of the group of every feature; features of no group share the number n_groups."""
    mask = as_numbers(mask, "mask of GroupLasso")
    if mask.ndim != 2 or mask.shape[1] != n_features:
        raise ValueError(
            f"mask of GroupLasso has shape {mask.shape}; expected (n_groups, n_features) with "
            f"n_features = {n_features}."
        )
    if not np.isin(mask, (0, 1)).all() or (mask.sum(axis=0) > 1).any():
        raise ValueError(
            "mask of GroupLasso must hold 0 and 1, with every feature in one group at most."
        )
    return np.where(mask.sum(axis=0) > 0, mask.argmax(axis=0), mask.shape[0])
