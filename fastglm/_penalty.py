"""The penalty that is added to the mean loss: a quadratic and a sparse part, per receiver.

For receiver j with coefficients c,

    0.5 * sum_f ridge[f, j] * c_f^2  +  0.5 * strength_j * c' Q c  +  sum_g weight[g, j] * |c_g|

where the groups g do not overlap and ``|c_g|`` is the Euclidean norm. A group of one feature is the
lasso. The solvers know these three terms alone, and no name of a penalty.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse

COUPLING = 0.2  # standard deviation of a coupling that is expected, in eta


def strength_of_prior(n_bins: int, sd):
    """Strength of a ridge for coefficients that are expected to have a standard deviation."""
    return 1 / (n_bins * sd**2)


@dataclass(frozen=True)
class Penalty:
    """Penalties of a batch of receivers.

    Attributes
    ----------
    ridge : ndarray of shape (1, n_receivers) or (n_features, n_receivers)
    matrix : scipy.sparse.csr_array of shape (n_features, n_features) or None
        Q, symmetric and positive semidefinite.
    strength : ndarray of shape (n_receivers,) or None
        Factor of Q.
    group_of : ndarray of int, shape (n_features,), or None
        The group of every feature, 0 to n_groups - 1. None if there is no sparse part.
    weight : ndarray of shape (n_groups, n_receivers) or None
        Weights of the groups' norms.
    """

    ridge: np.ndarray
    matrix: object = None
    strength: np.ndarray | None = None
    group_of: np.ndarray | None = None
    weight: np.ndarray | None = None

    @property
    def n_receivers(self):
        """Number of receivers."""
        return self.ridge.shape[1]

    @property
    def sparse(self):
        """Whether each receiver has a sparse part, (n_receivers,)."""
        if self.weight is None:
            return np.zeros(self.n_receivers, bool)
        return (self.weight > 0).any(axis=0)

    @property
    def quadratic(self):
        """Whether any receiver has a quadratic part."""
        return self.matrix is not None or bool(self.ridge.any())

    @cached_property
    def level(self):
        """Mean of each receiver's diagonal; a ridge, if it is the same for all features."""
        # A row for each receiver: the bits do not depend on the number of receivers.
        return np.ascontiguousarray(self.diagonal(slice(None)).T).mean(axis=1)

    def diagonal(self, receivers):
        """Second derivatives of the quadratic part, (n_features or 1, n)."""
        diagonal = self.ridge[:, receivers]
        if self.matrix is not None:
            diagonal = diagonal + self.matrix.diagonal()[:, None] * self.strength[receivers]
        return diagonal

    def times(self, v, receivers):
        """Hessian of the quadratic part of some receivers times the columns of v."""
        out = self.ridge[:, receivers] * v
        if self.matrix is not None:
            out += self.strength[receivers] * (self.matrix @ v)
        return out

    def hessian(self, j, free):
        """Hessian of the quadratic part of receiver j over some features."""
        out = np.zeros((free.size, free.size))
        self.add_hessian(j, free, out)
        return out

    def add_hessian(self, j, free, out, factor=1.0):
        """Add a multiple of `hessian` to a matrix."""
        ridge, matrix = self.hessian_parts(j, free)
        np.einsum("aa->a", out)[:] += factor * ridge
        if matrix is not None:
            out += factor * matrix

    def add_hessians(self, receivers, free, out):
        """Add the `hessian` of each of some receivers to a contiguous stack of matrices."""
        ridge = self.ridge[:, receivers]
        diagonal = out.reshape(len(out), -1)[:, :: free.size + 1]
        diagonal += (ridge if len(ridge) == 1 else ridge[free]).T
        if self.matrix is not None:
            matrix = self.matrix[free][:, free].toarray()
            out += self.strength[receivers, None, None] * matrix

    def hessian_parts(self, j, free):
        """The diagonal of the ridge, and the quadratic matrix of receiver j, or None."""
        ridge = self.ridge[:, j] if self.ridge.shape[0] == 1 else self.ridge[free, j]
        matrix = None
        if self.matrix is not None:
            matrix = self.strength[j] * self.matrix[free][:, free].toarray()
        return np.broadcast_to(ridge, (free.size,)), matrix

    def unpenalised(self, n_features):
        """Whether a coefficient has no penalty, (n_features, n_receivers)."""
        free = np.empty((n_features, self.n_receivers), bool)
        free[:] = self.diagonal(slice(None)) == 0
        if self.weight is not None:
            free &= self.weight[self.group_of] == 0
        return free

    def select(self, features=slice(None), receivers=slice(None)):
        """The penalty of some features and receivers."""
        matrix, group_of, weight = self.matrix, self.group_of, self.weight
        if matrix is not None:
            matrix = matrix[features][:, features]
        if group_of is not None:
            group_of = group_of[features]
            weight = weight[:, receivers]
        return replace(
            self,
            ridge=self.ridge[features if self.ridge.shape[0] > 1 else slice(None)][:, receivers],
            matrix=matrix,
            strength=None if self.strength is None else self.strength[receivers],
            group_of=group_of,
            weight=weight,
        )

    def copy(self):
        """The same with copies of the arrays, which `put` may change."""
        return replace(
            self,
            ridge=self.ridge.copy(),
            strength=None if self.strength is None else self.strength.copy(),
            weight=None if self.weight is None else self.weight.copy(),
        )

    def put(self, receivers, other):
        """Copy some receivers from another penalty with the same groups and matrix."""
        self.__dict__.pop("level", None)
        for name in ("ridge", "strength", "weight"):
            if getattr(self, name) is not None:
                getattr(self, name)[..., receivers] = getattr(other, name)[..., receivers]

    def arrays(self):
        """All arrays on which a fit depends."""
        parts = [self.ridge]
        if self.matrix is not None:
            parts += [self.matrix.indptr, self.matrix.indices, self.matrix.data, self.strength]
        if self.group_of is not None:
            parts += [self.group_of, self.weight]
        return parts


def ridge(strength):
    """A ridge with a strength for each receiver, or for each coefficient."""
    return Penalty(np.atleast_2d(np.asarray(strength, np.float64)))


def as_matrix(matrix, filters):
    """A sparse matrix over all features; a smaller matrix is repeated for filters of its size.

    ``filters`` holds the number of the filter of every feature, ascending.

    Raises
    ------
    ValueError
        If the shape does not fit, or the matrix is not symmetric and positive semidefinite.
    """
    if not scipy.sparse.issparse(matrix):
        matrix = np.asarray(matrix, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"matrix has shape {matrix.shape}; expected a square matrix.")
    size, n_features = matrix.shape[0], filters.size
    sizes = np.bincount(filters)
    if size == 0 or size not in (n_features, *sizes):
        raise ValueError(
            f"matrix has shape {matrix.shape}; expected (n_features, n_features) = "
            f"({n_features}, {n_features}), or the size of a filter, which is one of "
            f"{np.unique(sizes).tolist()}. For ordinary columns pass np.kron(np.eye(n), matrix)?"
        )
    dense = matrix.toarray() if scipy.sparse.issparse(matrix) else matrix
    scale = max(abs(dense).max(initial=0), np.finfo(float).tiny)
    if not np.isfinite(dense).all() or abs(dense - dense.T).max() > 1e-10 * scale:
        raise ValueError("matrix is not finite and symmetric; pass 0.5 * (matrix + matrix.T)?")
    if np.linalg.eigvalsh(dense)[0] < -1e-10 * scale * size:
        raise ValueError("matrix has a negative eigenvalue; a penalty must be semidefinite.")
    if size == n_features:
        return scipy.sparse.csr_array(matrix)
    block = scipy.sparse.csr_array(dense)
    blocks = [block if n == size else scipy.sparse.csr_array((n, n)) for n in sizes]
    return scipy.sparse.block_diag(blocks, format="csr")
