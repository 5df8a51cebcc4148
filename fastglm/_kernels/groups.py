"""Sparse penalties: the model of one receiver, and its minimum over groups of features."""

import math

import numpy as np

from fastglm._kernels.compiler import njit
from fastglm._kernels.tiles import FASTMATH


@njit(cache=True, nogil=True, error_model="numpy")
def screen_groups(coef, grad, free, group_of, order, weights, margin):
    """How far a point is from optimality, and the groups that a step may move.

    The breach is the largest one over the groups of free features. It is ``|grad_g + weight_g c_g /
    |c_g||`` for a group that is not zero, and ``|grad_g| - weight_g`` for a group at zero. A step
    may move groups that are not zero, and groups at zero whose gradient is above ``weight_g * (1 -
    margin)``.

    Returns the breach, the largest entry of the subgradient of least norm, the features of these
    groups sorted by group, the start of each group among them, and its weight. ``order`` sorts all
    features by group.
    """
    n, n_groups = coef.shape[0], weights.shape[0]
    size, slope, left = np.zeros(n_groups), np.zeros(n_groups), np.zeros(n_groups)
    for k in range(n):
        if free[k]:
            size[group_of[k]] += coef[k] * coef[k]
            slope[group_of[k]] += grad[k] * grad[k]
    size, slope = np.sqrt(size), np.sqrt(slope)
    largest = 0.0
    for k in range(n):
        group = group_of[k]
        if free[k] and size[group] > 0:
            entry = grad[k] + weights[group] * coef[k] / size[group]
            left[group] += entry**2
            largest = max(largest, abs(entry))
        elif free[k] and slope[group] > weights[group]:
            largest = max(largest, abs(grad[k]) * (1 - weights[group] / slope[group]))
    breach = 0.0
    for group in range(n_groups):
        at_zero = slope[group] - weights[group]
        breach = max(breach, math.sqrt(left[group]) if size[group] > 0 else at_zero)
    features = np.empty(n, np.int64)
    starts, weight = np.empty(n_groups + 1, np.int64), np.empty(n_groups)
    count, found, last = 0, 0, -1
    for place in range(n):
        k = order[place]
        group = group_of[k]
        if free[k] and (size[group] > 0 or slope[group] > weights[group] * (1 - margin)):
            if group != last:
                starts[found], weight[found] = count, weights[group]
                found, last = found + 1, group
            features[count] = k
            count += 1
    starts[found] = count
    return breach, largest, features[:count], starts[: found + 1], weight[:found]


@njit(cache=True, nogil=True, error_model="numpy")
def _shrink_group(S, r, z, begin, end, weight, bound):
    """One proximal step of a group: changes z and ``r = g + S (z - c)``.

    Returns the largest change of z times ``bound``.
    """
    size = 0.0
    for k in range(begin, end):
        u = z[k] - r[k] / bound
        size += u * u
    size = math.sqrt(size)
    factor = max(0.0, 1.0 - weight / (bound * size)) if size > 0 else 0.0
    change = 0.0
    for k in range(begin, end):
        new = factor * (z[k] - r[k] / bound)
        delta = new - z[k]
        if delta != 0:
            z[k] = new
            change = max(change, abs(delta) * bound)
            for m in range(r.shape[0]):
                r[m] += S[k, m] * delta
    return change


@njit(cache=True, nogil=True, error_model="numpy")
def _group_violation(r, z, starts, weights):
    """Largest breach of the optimality condition over the groups."""
    worst = 0.0
    for group in range(weights.shape[0]):
        begin, end = starts[group], starts[group + 1]
        size = 0.0
        for k in range(begin, end):
            size += z[k] * z[k]
        size = math.sqrt(size)
        left = 0.0
        for k in range(begin, end):
            v = r[k] + (weights[group] * z[k] / size if size > 0 else 0.0)
            left += v * v
        left = math.sqrt(left) - (0.0 if size > 0 else weights[group])
        worst = max(worst, left)
    return worst


@njit(cache=True, nogil=True, error_model="numpy")
def group_leftover(r, z, starts, weights, curvature):
    """``sum_k v_k^2 / h_k`` for the subgradient v of least norm at z; r is the slope.

    h is the curvature, and that of the norm of the group where the group is not zero.
    """
    total = 0.0
    for group in range(weights.shape[0]):
        begin, end = starts[group], starts[group + 1]
        size, slope = 0.0, 0.0
        for k in range(begin, end):
            size += z[k] * z[k]
            slope += r[k] * r[k]
        size, slope = math.sqrt(size), math.sqrt(slope)
        for k in range(begin, end):
            v, bend = 0.0, curvature[k]
            if size > 0:
                v = r[k] + weights[group] * z[k] / size
                bend += weights[group] / size * max(1 - (z[k] / size) ** 2, 0.0)
            elif slope > weights[group]:
                v = r[k] * (1 - weights[group] / slope)
            if v != 0:
                total += v * v / bend
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _penalty_of_groups(z, starts, weights):
    """``sum_g weight_g |z_g|``."""
    total = 0.0
    for group in range(weights.shape[0]):
        size = 0.0
        for k in range(starts[group], starts[group + 1]):
            size += z[k] * z[k]
        total += weights[group] * math.sqrt(size)
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _group_objective(g, r, c, z, starts, weights):
    """``g (z - c) + (z - c) S (z - c) / 2 + sum_g weight_g |z_g|`` with ``r = g + S (z - c)``."""
    total = _penalty_of_groups(z, starts, weights)
    for k in range(c.shape[0]):
        total += 0.5 * (g[k] + r[k]) * (z[k] - c[k])
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def learn_curvature(data, moved, step, change):
    """Correct a Hessian in place, so that it gives the change of the gradient over a step (BFGS).

    The step moves only the coordinates ``moved``; ``change`` has all coordinates.
    """
    n = data.shape[0]
    image = np.zeros(n)
    for k in range(moved.shape[0]):
        row = data[moved[k]]
        for b in range(n):
            image[b] += row[b] * step[k]
    inner, model = 0.0, 0.0
    for k in range(moved.shape[0]):
        inner += step[k] * change[moved[k]]
        model += step[k] * image[moved[k]]
    if not inner > 1e-4 * model or not model > 0:
        return
    for a in range(n):
        row = data[a]
        up, down = change[a] / inner, image[a] / model
        for b in range(n):
            row[b] += up * change[b] - down * image[b]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def reduce_model(data, chosen, mean, schur):
    """The model of one receiver over some features, with the intercept eliminated.

    ``data`` is a Hessian over more features. ``chosen`` lists the places of the features in it, the
    intercept last. ``schur`` becomes the Schur complement. ``mean`` becomes the row of the
    intercept divided by its diagonal entry, which is returned.
    """
    n = chosen.shape[0] - 1
    last = data[chosen[n], chosen[n]]
    row = data[chosen[n]]
    for a in range(n):
        mean[a] = row[chosen[a]] / last
    for a in range(n):
        row, out, factor = data[chosen[a]], schur[a], mean[a] * last
        for b in range(n):
            out[b] = row[chosen[b]] - factor * mean[b]
    return last


@njit(cache=True, nogil=True, error_model="numpy")
def _descend_groups(S, z, r, starts, weights, bounds, goal, n_sweeps):
    """Sweeps of block descent on ``g (z - c) + (z - c) S (z - c) / 2 + sum_g weight_g |z_g|``.

    Group ``i`` has the coefficients ``starts[i]`` to ``starts[i + 1]``. ``bounds`` is at least the
    largest eigenvalue of each group's block. Changes z and ``r = g + S (z - c)``. Returns the
    largest breach of the optimality condition.
    """
    for _sweep in range(n_sweeps):
        if _group_violation(r, z, starts, weights) <= goal:
            break
        for group in range(weights.shape[0]):
            begin, end = starts[group], starts[group + 1]
            for _ in range(1 if end - begin == 1 else 5):
                if _shrink_group(S, r, z, begin, end, weights[group], bounds[group]) < goal:
                    break
    return _group_violation(r, z, starts, weights)


@njit(cache=True, nogil=True, error_model="numpy")
def _bound_groups(S, starts, bounds):
    """Largest absolute row sum of each group's block, a bound of its largest eigenvalue."""
    for group in range(bounds.shape[0]):
        bounds[group] = 1e-300
        for k in range(starts[group], starts[group + 1]):
            row = 0.0
            for m in range(starts[group], starts[group + 1]):
                row += abs(S[k, m])
            bounds[group] = max(bounds[group], row)


@njit(cache=True, nogil=True, error_model="numpy")
def _newton_groups(S, r, z, starts, weights, support, hess, rhs):
    """Newton's system over the coefficients that are not zero, where the penalty is smooth."""
    m = support.shape[0]
    for a in range(m):
        row = S[support[a]]
        rhs[a] = -r[support[a]]
        for b in range(m):
            hess[a, b] = row[support[b]]
        hess[a, a] *= 1 + 1e-12
    first = 0
    for group in range(weights.shape[0]):
        begin, end = starts[group], starts[group + 1]
        size, last = 0.0, first
        while last < m and support[last] < end:
            size += z[support[last]] ** 2
            last += 1
        if last > first and weights[group] > 0:
            size = math.sqrt(size)
            for a in range(first, last):
                u = z[support[a]] / size
                rhs[a] = -(r[support[a]] + weights[group] * u)  # float64, where they cancel
                if end - begin > 1:
                    hess[a, a] += weights[group] / size
                    for b in range(first, last):
                        hess[a, b] -= weights[group] / size * u * z[support[b]] / size
        first = last


@njit(cache=True, nogil=True, error_model="numpy")
def _step_groups(S, g, c, z, r, starts, weights, support, step):
    """Take Newton's step, or a part of it that lowers the objective; changes z and r.

    The step ends where a coefficient that is a group of its own reaches zero, since the penalty
    bends there. Returns whether the whole step was taken.
    """
    n, m = c.shape[0], support.shape[0]
    length, stop, a = 1.0, -1, 0
    for group in range(weights.shape[0]):
        begin, end = starts[group], starts[group + 1]
        while a < m and support[a] < begin:
            a += 1
        alone = end - begin == 1 and weights[group] > 0 and a < m and support[a] == begin
        if alone and step[a] * z[begin] < 0 and -z[begin] / step[a] < length:
            length, stop = -z[begin] / step[a], begin
    before = _group_objective(g, r, c, z, starts, weights)
    before += 1e-15 * abs(before) + 1e-15 * _penalty_of_groups(z, starts, weights)  # rounding
    image = np.zeros(n)
    for a in range(m):
        row = S[support[a]]
        for k in range(n):
            image[k] += row[k] * step[a]
    whole = stop < 0
    for _halving in range(20):
        new, new_r = z.copy(), r + length * image
        for a in range(m):
            new[support[a]] += length * step[a]
        if stop >= 0:
            new[stop] = 0.0
        if _group_objective(g, new_r, c, new, starts, weights) <= before:
            z[:] = new
            r[:] = new_r
            return whole
        length, stop, whole = 0.5 * length, -1, False
    return False


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def solve_triangles(lower, v):
    """``v = (L L')^-1 v`` in place.

    Both loops read slices of rows of L. An index that may be negative to Numba would keep LLVM from
    vectorising.
    """
    for k in range(v.shape[0]):
        row, done = lower[k, :k], v[:k]
        total = np.float32(0)
        for a in range(k):
            total += row[a] * done[a]
        v[k] = (v[k] - total) / lower[k, k]
    for k in range(v.shape[0] - 1, -1, -1):
        row, rest = lower[k, :k], v[:k]
        value = v[k] / lower[k, k]
        v[k] = value
        for a in range(k):
            rest[a] -= row[a] * value


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def _solve_nearby(hess, rhs, at, lower):
    """Solve a positive definite system into ``rhs`` with the factor of a similar system.

    Conjugate gradients are preconditioned by the factor, in which coefficient ``a`` has the place
    ``at[a]``; a coefficient of negative place is preconditioned by the diagonal. Returns whether
    ten steps were enough.
    """
    m, n = rhs.shape[0], lower.shape[0]
    x, r, z, p = np.zeros_like(rhs), rhs.copy(), np.empty_like(rhs), np.zeros_like(rhs)
    v = np.empty(n, rhs.dtype)
    first = before = 1.0
    for step in range(11):
        v[:] = 0
        for a in range(m):
            if at[a] >= 0:
                v[at[a]] = r[a]
        solve_triangles(lower, v)
        rho = 0.0
        for a in range(m):
            z[a] = v[at[a]] if at[a] >= 0 else r[a] / hess[a, a]
            rho += r[a] * z[a]
        if step == 0:
            first = rho
        if not rho > 1e-6 * first:
            rhs[:] = x
            return rho >= 0
        if step == 10:
            break
        for a in range(m):
            p[a] = z[a] + (rho / before if step > 0 else 0.0) * p[a]
        bend = 0.0
        for a in range(m):
            row, total = hess[a], np.float32(0)
            for b in range(m):
                total += row[b] * p[b]
            z[a] = total
            bend += p[a] * total
        if not bend > 0:
            break
        for a in range(m):
            x[a] += rho / bend * p[a]
            r[a] -= rho / bend * z[a]
        before = rho
    return False


@njit(cache=True, nogil=True, error_model="numpy")
def _factorise(hess):
    """Whether a matrix is positive definite, and its lower Cholesky factor, by rows."""
    try:
        return True, np.linalg.cholesky(hess)
    except Exception:
        return False, hess


@njit(cache=True, nogil=True, error_model="numpy")
def _locate(features, place):
    """Write the place of each of some features into ``place``, and -1 for all others."""
    place[:] = -1
    for k in range(features.shape[0]):
        place[features[k]] = k


@njit(cache=True, nogil=True, error_model="numpy")
def solve_groups(S, g, c, starts, weights, goal, features, held, lower):
    """Minimise ``g (z - c) + (z - c) S (z - c) / 2 + sum_g weight_g |z_g|`` over z.

    Sweeps of block descent find the support, and Newton's method on the support finds the values.
    Descent alone takes hundreds of sweeps where basis functions overlap. The search ends when the
    breach of the optimality condition is at most ``goal``, or after 60 rounds.

    The coefficients belong to ``features``. ``lower`` is the factor of an earlier system, over the
    features ``held``. Systems change little from step to step, and from strength to strength:
    conjugate gradients with the earlier factor cost a tenth of a new factor.

    Returns z, the slope ``g + S (z - c)`` of the quadratic at z, and the features and the factor of
    the last system that was factorised.
    """
    z, r, bounds = c.copy(), g.copy(), np.empty(weights.shape[0])
    _bound_groups(S, starts, bounds)
    last = max(np.append(features, 0).max(), np.append(held, 0).max())
    place = np.empty(last + 1, np.int64)
    _locate(held, place)
    n_sweeps = 0  # the support of the last step is the best guess
    for _ in range(60):
        if _descend_groups(S, z, r, starts, weights, bounds, goal, n_sweeps) <= goal:
            break
        n_sweeps = 5
        support = np.flatnonzero(z)
        if support.shape[0] == 0:
            continue
        # The system is float32, as the model. The residual r is float64, so the next round corrects
        # the rounding of this one.
        hess = np.empty((support.shape[0], support.shape[0]), np.float32)
        step = np.empty(support.shape[0], np.float32)
        _newton_groups(S, r, z, starts, weights, support, hess, step)
        at = place[features[support]]
        solved = 4 * (at >= 0).sum() > 3 * at.size and _solve_nearby(hess, step, at, lower)
        if not solved:
            solved, own = _factorise(hess)
            if solved:
                held, lower = features[support], own
                _locate(held, place)
                solve_triangles(lower, step)
        if solved and np.isfinite(step).all():
            _step_groups(S, g, c, z, r, starts, weights, support, step)
    return z, r, held, lower
