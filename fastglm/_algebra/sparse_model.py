"""The model of a proximal step in float64: its minimum, and how far a point is above it.

The model of a receiver at a point c is ``g (z - c) + (z - c) S (z - c) / 2 + sum_g weight_g |z_g|``
over the features of a working set. `kernels.solve_groups` minimises it in float32 systems. Where
features are so nearly collinear that these have no factor, it does not come near the minimum, and
the diagonal of S says nothing about how far it is away.
"""

from typing import NamedTuple

import numpy as np

from fastglm._algebra.linear import cho_solve, cholesky

_EPS = np.finfo(np.float64).eps
_TINY = 1e-280  # a smaller size of a group is zero
ONE = np.ones(1)  # the unit of features whose squares float32 holds
_RANGE = 1e15  # largest square, and one over the smallest, of a feature without a unit of its own
_STEPS = 30  # most steps with a barrier of one strength


class Model(NamedTuple):
    """The model at c over the features of some groups, sorted by group."""

    schur: np.ndarray  # S
    g: np.ndarray
    c: np.ndarray
    starts: np.ndarray  # of every group, and the number of features
    weight: np.ndarray  # of every group

    def scaled(self):
        """The model in units whose squares float32 holds, and the unit of each feature.

        The features of a group have one unit, a power of two.
        """
        diagonal = np.einsum("ii->i", self.schur)
        if not diagonal.size or (diagonal.min() >= 1 / _RANGE and diagonal.max() <= _RANGE):
            return self, ONE
        size = np.maximum.reduceat(diagonal.astype(np.float64), self.starts[:-1])
        far = (size > _RANGE) | ((size < 1 / _RANGE) & (size > 0))
        if not far.any():
            return self, ONE
        unit = np.where(far, np.exp2(np.round(0.5 * np.log2(np.where(far, size, 1.0)))), 1.0)
        each = np.repeat(unit, np.diff(self.starts))
        schur = self.schur / each / each[:, None]
        model = Model(schur, self.g / each, self.c * each, self.starts, self.weight / unit)
        return model, each

    def value(self, z, weight=None):
        """The model, or with other weights."""
        d, weight = z - self.c, self.weight if weight is None else weight
        return self.g @ d + 0.5 * d @ (self.schur @ d) + weight @ group_norms(z, self.starts)

    def gain(self, z, slope):
        """How much lower the model is at z, where the quadratic has a slope, than at c."""
        c, starts, d = self.c, self.starts, z - self.c
        # |z| - |c| = (z + c)'d / (|z| + |c|): terms of the same size are subtracted first.
        size = group_norms(c, starts) + group_norms(z, starts)
        pull = np.divide(self.weight, size, out=np.zeros(size.size), where=size > _TINY)
        if size.size < d.size:
            pull = np.repeat(pull, np.diff(starts))
        return -(0.5 * (self.g + slope) + pull * (z + c)) @ d

    def reach(self, excess, ridge):
        """Largest size of coefficients whose penalties are no larger than the excess."""
        weight = np.repeat(self.weight, np.diff(self.starts))
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.fmin(excess / weight, np.sqrt(2 * excess / ridge))
        return np.fmin(reach, 1e300)

    def gap(self, z, slope, reach, rounding, seen=lambda n, least: False):
        """Bound of the distance from the minimum at z, where the quadratic has a slope.

        Along an eigenvector of S with value s, where the subgradient has the part a, the model
        falls by at most ``a^2 / (2 s)``. It also falls by at most ``|a|`` times the distance of the
        minimum, whose coefficients are at most `reach`. This holds where rounding has taken s.
        Where it has, and a is rounding as well, the features are collinear.

        ``rounding`` holds the squares that were taken off the diagonal of S, to which its rounding
        is in proportion, and the rounding of each entry of the gradient. ``seen(n, least)`` is
        whether the rows see one of n directions whose squares are below a part of the diagonal.
        Such a direction is not collinear, and rounding may hide its slope as well.
        """
        left, diagonal = self._subgradient(slope, z), np.diag(self.schur).clip(min=0)
        unit = np.where(diagonal > 0, np.sqrt(diagonal), 1.0)
        # NumPy's: SciPy 1.11 fails with driver="evd" at a single feature.
        values, vectors = np.linalg.eigh(self.schur / unit / unit[:, None])
        part = np.abs(vectors.T @ (left / unit))
        squares, noise = rounding
        # An entry is off by eps times the roots of both squares: v' S v by n times their mean.
        rough = 4 * _EPS * unit.size * (1 + (vectors**2).T @ (squares / unit**2))
        values = values - rough
        hidden = np.abs(vectors).T @ (noise / unit)
        collinear = (values <= 0) & (part <= hidden)
        if collinear.any() and seen(int(collinear.sum()), 2 * rough[collinear].max()):
            part = np.where(collinear, hidden, part)
            collinear[:] = False
        with np.errstate(divide="ignore", over="ignore"):
            curved = np.where(values > 0, part**2 / (2 * values), np.inf)
            far = np.abs(vectors).T @ (unit * (np.abs(z) + reach))
            least = np.minimum(curved, part * np.minimum(far, 1e300))
        moved = unit * (z - self.c)
        return least[~collinear].sum() + 0.5 * rough.max(initial=0) * (moved @ moved)

    def breach(self, slope, z):
        """Largest norm of the subgradient of least norm over the groups."""
        return group_norms(self._subgradient(slope, z), self.starts).max(initial=0)

    def _subgradient(self, slope, z):
        """The subgradient of least norm at z, where the quadratic has a slope."""
        group = np.repeat(np.arange(self.weight.size), np.diff(self.starts))
        return least_subgradient(slope, z, group, self.weight)

    def minimum(self, goal):
        """The minimum to within a goal, and the slope of the quadratic there.

        A barrier takes the place of every norm, and its strength falls. The optimum with ``w t - mu
        log(t^2 - |z|^2)`` in the place of ``w |z|`` is at most ``2 mu`` a group above the minimum
        (Boyd & Vandenberghe, 2004, chapter 11). Groups that the barrier alone keeps from zero are
        then set to zero.
        """
        z, n = self.c.copy(), max(self.weight.size, 1)
        damped = self.schur.copy()  # rounding may have left it without a minimum
        damped[np.diag_indices_from(damped)] *= 1 + 4 * _EPS * z.size
        damped = self._replace(schur=damped)
        curved = np.diag(self.schur)
        fall = np.divide(self.g**2, curved, out=np.zeros(z.size), where=curved > 0).sum()
        size = max(self.weight @ group_norms(z, self.starts), fall, goal)
        mu = size / n if np.isfinite(size) else 0.0
        while mu > 0.1 * goal / n:
            mu *= 0.1
            for _ in range(_STEPS):
                if not damped._step(z, mu):
                    break
        small = (self.weight > 0) & (self.weight * group_norms(z, self.starts) < np.sqrt(mu * size))
        zero = np.where(np.repeat(small, np.diff(self.starts)), 0.0, z)
        z = zero if self.value(zero) <= self.value(z) + goal else z
        return z, self.g + self.schur @ (z - self.c)

    def _step(self, z, mu):
        """Take a step of Newton's method with a barrier in place; whether more are needed."""
        weight, starts, hess = self.weight, self.starts, self.schur.copy()
        root = np.sqrt(mu**2 + (weight * group_norms(z, starts)) ** 2)
        bend = np.repeat(weight**2 / (mu + root), np.diff(starts))  # w / t
        slope = self.g + self.schur @ (z - self.c) + bend * z
        hess[np.diag_indices_from(hess)] += bend
        for k in np.flatnonzero(weight > 0):
            part = slice(starts[k], starts[k + 1])
            factor = bend[starts[k]] ** 2 / root[k]
            hess[part, part] -= factor * np.outer(z[part], z[part])
        step = -cho_solve(cholesky(hess), slope)
        drop = -slope @ step
        before, length = self._smoothed(z, mu), 1.0
        while drop > 1e-3 * mu and length > 1e-9:
            new = z + length * step
            if self._smoothed(new, mu) <= before - 1e-4 * length * drop:
                z[:] = new
                return True
            length *= 0.5
        return False

    def _smoothed(self, z, mu):
        w = self.weight[self.weight > 0]
        root = np.sqrt(mu**2 + (w * group_norms(z, self.starts)[self.weight > 0]) ** 2)
        return self.value(z, 0 * self.weight) + np.sum(root - mu * np.log(mu + root))


def least_subgradient(slope, z, group, weight):
    """The subgradient of least norm of ``slope z + sum_g weight_g |z_g|`` at z."""
    norm, steep = (np.sqrt(np.bincount(group, v * v, weight.size)) for v in (z, slope))
    with np.errstate(divide="ignore", invalid="ignore"):
        pull = np.where(norm > 0, weight / norm, 0.0)[group]
        part = np.where(steep > weight, 1 - weight / steep, 0.0)[group]
    return np.where((norm > 0)[group], slope + pull * z, part * slope)


def group_norms(c, starts):
    """``|c_g|`` of every group."""
    if c.size == 0:
        return np.zeros(0)
    return np.sqrt(np.add.reduceat(c * c, starts[:-1]))
