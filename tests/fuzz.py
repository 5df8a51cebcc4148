"""Random fits against an oracle that knows only the formulas of the documentation.

    python tests/fuzz.py --n 10000 --seed 0     # cases 0 to 9,999
    python tests/fuzz.py --case 1234            # one case, with all that was found
    python tests/fuzz.py --more                 # of Gamma and negative binomial observations

Every case is a call of `fit` (`fuzz_cases.draw`). The optimum of every receiver is found anew by
`oracle.solve`. The last lines say what was covered.
"""

import argparse
import collections
import contextlib
import os
import signal
import sys
import time
import traceback
import warnings
from dataclasses import replace

import numpy as np
import oracle
from fuzz_cases import draw
from sklearn.exceptions import ConvergenceWarning

from fastglm.features import as_feature_matrix

# From the most serious to the least.
KINDS = (
    "wrong certificate",  # converged_ is True, and the objective is above twice the claim
    "negative claim",
    "rounding as a feature",  # of a column that is constant up to rounding
    "exception",
    "hang",
    "slow",
    "NumPy warning",
    "false objective_",  # not the objective at the returned point
    "claim above tol",
    "below the oracle",  # the fault is the oracle's, or the fit's in a direction of rounding
    "alone and in company",
    "other bits",  # the same call twice
    "masked coefficient",
    "features",
    "predict",
    "residuals",
    "score",
    "scale",
    "standard errors",
    "least norm",
    "grad_norm_",
    "refused",  # a ValueError for input that is right
    "float64 has no answer",  # rounding of the coefficients costs more than the gap allows
    "not converged",
)
HERE = os.path.dirname(os.path.abspath(__file__))
SLOW = 10  # seconds of CPU for a fit
LIMIT = 60  # seconds of CPU a case
ROUNDING = 1e-9  # of the scale of the objective
# Receivers whose fits had steps enough: without and with an optimum by the oracle, and ended there.
ENDS = "no optimum known", "optimum known", "optimum known, and converged"


class Hang(BaseException):
    """A case took longer than its limit."""


def check(case):
    """What is wrong with the fit of a case, as (kind, sentence), and what it covered.

    The last value counts receivers: by status, and by whether the oracle has found an optimum that
    the fit was asked for.
    """
    found, facts, ends = [], set(case.tags), collections.Counter()
    _check_features(case, found)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = _call(case, found)
        if model is not None:
            case.scales = model.scale_
            for j in range(case.counts.shape[1]):
                ends[f"status {model.status_[j]}"] += 1
                ends.update(_check_receiver(case, model, j, found, facts))
            _check_views(case, model, found)
            _check_again(case, model, found)
    kinds = (ConvergenceWarning, UserWarning)
    for w in caught:
        if w.filename.startswith(HERE):
            continue
        if not issubclass(w.category, kinds) or issubclass(w.category, RuntimeWarning):
            place = f"{w.filename.rsplit('/', 1)[-1]}:{w.lineno}"
            found.append(("NumPy warning", f"{w.category.__name__} at {place}: {w.message}"))
    facts |= {fact for fact in ends if fact.startswith("status")}
    return list(dict.fromkeys(found)), facts, ends


def _check_features(case, found):
    """Features against the formulas; from here on the design is what fastglm made."""
    made = np.asarray(case.X, float)
    size = np.abs(np.nan_to_num(case.design)).max(axis=0)
    known = np.isfinite(case.design).all(axis=1)
    if not np.array_equal(known, np.isfinite(made).all(axis=1)):
        found.append(("features", "NaN stands in other rows than by the formulas"))
    elif np.any(np.abs(made - case.design)[known] > 1e-12 * size + 1e-15):
        off = np.abs(made - case.design)[known].max(axis=0)
        k = int(np.argmax(off - 1e-12 * size))
        found.append(("features", f"column {k} is off by {off[k]:.1e} of {size[k]:.1e}"))
    case.design = np.where(known[:, None], made, np.nan)


def _call(case, found):
    """The fitted model, or None after an error."""
    model, start = case.model(), time.process_time()
    try:
        model.fit(case.X, case.y, case.init, **case.adjust())
        if time.process_time() - start > SLOW:  # once more, for the first may have compiled
            start = time.process_time()
            model.fit(case.X, case.y, case.init, **case.adjust())
            took = time.process_time() - start
            if took > SLOW:
                found.append(("slow", f"{took:.1f} s of CPU"))
        return model
    except ValueError as error:
        own = traceback.extract_tb(error.__traceback__)[-1].filename
        sentence = str(error)
        if case.valid.any() or "fastglm" not in own:
            kind = "refused" if "fastglm" in own else "exception"
            found.append((kind, f"ValueError: {sentence}"))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename.rsplit('/', 1)[-1]}:{place.lineno}"
        found.append(("exception", f"{type(error).__name__} at {where}: {error}"))
    return None


def _point(case, model, j):
    coef = np.asarray(model.coef_, float)
    return coef.reshape(case.design.shape[1], -1)[:, j], float(model.intercept_[j])


def _check_receiver(case, model, j, found, facts):
    """What the receiver counts as: one of `ENDS`, or nothing."""
    status, claim = str(model.status_[j]), float(model.newton_decrement_[j])
    coef, intercept = _point(case, model, j)
    free = case.free(j)
    if case.rows(j).sum() == 0:
        if status != "no_bins":
            found.append(("exception", f"receiver {j} has no bins, and its status is {status}"))
        return ()
    if np.any(coef[~free] != 0):
        found.append(("masked coefficient", f"receiver {j}: {np.abs(coef[~free]).max():.2g}"))
    if not (np.isfinite(coef).all() and np.isfinite(intercept)):
        found.append(("exception", f"receiver {j}, {status}: coefficients are not finite"))
        return ()
    r = case.receiver(j)
    best = oracle.solve(r)
    _check_scale(case, model, j, r, best, found)
    facts |= {"separation"} if 0 < best.separated < len(r.y) else set()
    facts |= {"condition below 1e-3"} if best.condition < 1e-3 else set()
    facts |= {"oracle unsure"} if best.gap > 1e-11 * best.scale else set()
    value = float(r.value(coef[free], intercept))
    gap = value - best.value
    if best.X is not None:  # beside coefficients of 1e11 what is taken out is rounded too
        judged = float(replace(r, X=best.X).value(coef[free], intercept))
        gap = min(gap, judged - best.value, key=abs)
    about = f"receiver {j}, {status}, claim {claim:.1e}"
    about += f", gap {gap:.1e} at scale {best.scale:.1e}"
    rough = ROUNDING * best.scale
    if best.noise is not None and np.any(best.noise & (coef[free] != 0)):
        top = np.abs(coef[free] * (np.ptp(r.X, axis=0)))[best.noise].max()
        if top > 1e-6:
            found.append(("rounding as a feature", f"{about}: it moves eta by {top:.2g}"))
            return ()
    below = gap < -rough - best.slack - best.gap  # the oracle's point is not the optimum
    asked = "few steps" not in case.tags and status != "overflow"
    known = best.gap < 1e-11 * best.scale and not below
    tight = f"condition {best.condition:.0e}, {best.separated} bins at infinity"
    if model.converged_[j]:
        if not claim >= 0:
            found.append(("negative claim", f"{about}; {tight}"))
        if not gap <= 2 * max(claim, 0.0) + rough and _is_another_minimum(r, coef[free], intercept):
            facts.add("another minimum")
        elif not gap <= 2 * max(claim, 0.0) + rough:
            hidden = gap <= 2 * max(claim, 0.0) + rough + 10 * max(best.slack, _moved(r, best))
            hidden |= value < best.value - rough  # lower in what is rounding of the columns
            kind = "float64 has no answer" if hidden else "wrong certificate"
            found.append((kind, f"{about}, {best.slack:.0e} by rounding; {tight}"))
        tol = (case.params.get("solver_kwargs") or {}).get("tol", 1e-16)
        if status == "converged" and claim > tol + ROUNDING * best.scale:
            found.append(("claim above tol", f"{about}; tol {tol}"))
    elif asked:
        facts.add("not converged" if known else "not converged, nor the oracle")
        if known:
            found.append(("not converged", f"{about}; {tight}"))
    if below:
        found.append(("below the oracle", f"{about}, the oracle's gap {best.gap:.0e}; {tight}"))
    _check_numbers(case, model, j, r, best, value, found)
    if not asked:
        return ()
    return (ENDS[0],) if not known else ENDS[1:] if model.converged_[j] else ENDS[1:2]


def _moved(r, best):
    """How much the optimum moves when the last digit of the columns does."""
    rng, moved = np.random.default_rng(0), 0.0
    for _ in range(3):
        X = r.X * (1 + oracle.EPS * rng.integers(-1, 2, r.X.shape))
        moved = max(moved, abs(float(oracle.solve(replace(r, X=X)).value - best.value)))
    return moved


def _is_another_minimum(r, coef, intercept):
    """Whether a point is a minimum of an objective that is not convex: it is flat, and bends up."""
    if not (r.link in oracle.MORE and r.link.endswith("softplus")):
        return False
    grad, _ = r.gradient(coef, intercept)
    _, bend = oracle.derivatives(r.X @ coef + intercept + r.offset, r.y, r.link, r.scale)
    free = np.ones(len(coef), bool)
    for features, _ in r.groups:
        free[features] &= coef[features] != 0
    size = np.sqrt(r.share @ r.X[:, free] ** 2)
    Z = np.column_stack([r.X[:, free] / np.where(size > 0, size, 1), np.ones(len(r.y))])
    hess = Z.T @ (Z * (r.share * bend)[:, None]) + np.diag(np.append(r.ridge[free] / size**2, 0.0))
    slope = np.append(_least_subgradient(r, coef, grad)[:-1][free] / size, grad[-1])
    return bool(np.abs(slope).max() < 1e-6 and np.linalg.eigvalsh(hess)[0] > -1e-9)


def _check_scale(case, model, j, r, best, found):
    """A scale that was fitted, against the optima at other scales."""
    status, scale = str(model.status_[j]), float(model.scale_[j])
    if case.scale != "estimate" or status not in ("converged", "underdispersed"):
        return

    def value(s, optimum):
        """Minus the log likelihood and the penalty, at the optimum at a scale."""
        eta = r.X @ optimum.coef + optimum.intercept + r.offset
        likelihood = oracle.log_likelihood(r.y, oracle.mean(eta, r.link), r.link, s)
        return float(r.penalty(optimum.coef) - np.sum(r.share * likelihood))

    here = value(scale, best)
    for other in (1e-3, 0.03) if scale == 0 else (0.9 * scale, 1.1 * scale):
        there = value(other, oracle.solve(replace(r, scale=other)))
        if not there >= here - 1e-9 * max(1.0, abs(here)):
            text = f"receiver {j}, {status}: {here:.15g} at {scale:.6g}"
            found.append(("scale", f"{text}, and {there:.15g} at {other:.6g}"))


def _check_numbers(case, model, j, r, best, value, found):
    """objective_, grad_norm_ and the norm, at the point that was returned."""
    coef, intercept = _point(case, model, j)
    free, status = case.free(j), str(model.status_[j])
    grad, noise = r.gradient(coef[free], intercept)
    slope, size = _slope_of_rounding(r, coef[free], intercept)
    off = abs(float(model.objective_[j]) - value)
    room = 1e-11 * max(best.scale, abs(value)) + slope
    if status in ("silent", "saturated", "separated"):
        room += ROUNDING * best.scale
    if not off <= room:
        text = f"receiver {j}, {status}: {model.objective_[j]:.15g}, at the point {value:.15g}"
        found.append(("false objective_", text))
    reported = float(model.grad_norm_[j])
    shift = np.append(r.share @ r.X, 0.0)
    centres = 0.0 * shift, shift, np.append(r.X.mean(axis=0), 0.0)  # as columns are, or centred
    true = [np.abs(_least_subgradient(r, coef[free], grad - c * grad[-1])).max() for c in centres]
    room = 4 * noise.max() + 1e-12 * size
    spread = np.sqrt(r.share @ (r.X - shift[:-1]) ** 2)
    if np.any(np.abs(shift[:-1]) > 100 * spread):
        room += 2 * max(true)  # which constant was taken off is not documented
    if (
        status in ("converged", "max_iter", "stalled")
        and np.isfinite(max(true))
        and not (min(true) * 0.98 - room <= reported <= max(true) * 1.02 + room)
    ):
        text = f"receiver {j}, {status}: {reported:.3g}, at the point {true[0]:.3g}"
        found.append(("grad_norm_", f"{text}, of centred columns {true[1]:.3g}"))
    tight = best.sure and float(model.newton_decrement_[j]) < 1e-12 * best.scale
    if status == "converged" and tight and best.null is not None and best.null.shape[1]:
        along = np.abs(best.null.T @ coef[free]).max()
        if along > 1e-4 * np.linalg.norm(coef[free]) + 1e-9:
            text = f"receiver {j}: {along:.2g} along collinear features, norm "
            found.append(("least norm", f"{text}{np.linalg.norm(coef[free]):.2g}"))


def _slope_of_rounding(r, coef, intercept):
    """Change of the objective by the rounding of eta, and the size of a gradient entry."""
    size = np.abs(r.X) @ np.abs(coef) + abs(intercept) + np.abs(r.offset)
    eta = r.X @ coef + intercept + r.offset
    with np.errstate(over="ignore"):
        slope, bend = oracle.derivatives(eta, r.y, r.link, r.scale)
    step = (2 + np.sqrt(len(coef))) * oracle.EPS * size
    change = np.sum(r.share * (np.abs(slope) * step + np.abs(bend) * step**2))
    largest = np.abs(r.X).max(initial=1) * np.sum(r.share * np.abs(slope))
    return float(np.nan_to_num(change)), float(np.nan_to_num(largest))


def _least_subgradient(r, coef, grad):
    """The subgradient of least norm, group by group; the intercept last."""
    out = grad.copy()
    for features, size in r.groups:
        norm = np.linalg.norm(coef[features])
        if norm > 0:
            out[features] += size * coef[features] / norm
        else:
            length = np.linalg.norm(grad[features])
            out[features] *= max(0.0, 1 - size / length) if length > 0 else 0.0
    return out


# --- predictions, residuals, scores, standard errors ---------------------------------------------


def _eta(case, model, j):
    """eta of the valid rows at the returned point, and a bound of its rounding."""
    coef, intercept = _point(case, model, j)
    rows = np.isfinite(case.design).all(axis=1)
    X, offset = case.design[rows], case.offset_of(j)[rows]
    eta = X.astype(np.longdouble) @ coef + np.longdouble(intercept) + offset
    size = np.abs(X) @ np.abs(coef) + abs(intercept) + np.abs(offset)
    return rows, eta.astype(float), 16 * (2 + len(coef) ** 0.5) * oracle.EPS * size


def _check_views(case, model, found):
    n = case.counts.shape[1]
    try:
        with np.errstate(over="ignore"):
            mu = model.predict(case.X, case.offset).reshape(-1, n)
            left = {
                kind: model.residuals(case.X, case.y, kind, offset=case.offset).reshape(-1, n)
                for kind in ("response", "pearson", "deviance")
            }
    except Exception as error:
        found.append(("exception", f"{type(error).__name__} in predict or residuals: {error}"))
        return
    for j in range(n):
        if np.isfinite(_point(case, model, j)[0]).all() and np.isfinite(model.intercept_[j]):
            _check_bins(case, model, j, mu[:, j], {k: v[:, j] for k, v in left.items()}, found)
    usable = np.isfinite(model.intercept_).all() and case.valid.any()
    if usable and not np.isin(model.status_, ("overflow",)).any():
        _check_scores(case, model, mu, found)
        _check_errors(case, model, found)


def _check_bins(case, model, j, mu, left, found):
    rows, eta, error = _eta(case, model, j)
    about = f"receiver {j}, {model.status_[j]}"
    if case.link.endswith("one_over_x"):  # no mean where eta is not above 0
        outside = np.flatnonzero(rows)[eta <= error]
        rows[outside] = False
        mu, inside = np.where(np.isin(np.arange(len(mu)), outside), np.nan, mu), eta > error
        eta, error = eta[inside], error[inside]
    if np.isfinite(mu[~rows]).any() or np.isnan(mu[rows]).any():
        found.append(("predict", f"{about}: NaN does not stand where X has NaN"))
        return
    with np.errstate(over="ignore", under="ignore"):
        low, high = np.sort([oracle.mean(eta + s * error, case.link) for s in (-1, 1)], axis=0)
    room = 1e-12 * np.abs(high) + 1e-300
    off = (mu[rows] < low - room) | (mu[rows] > high + room)
    if off.any():
        k = int(np.argmax(off))
        found.append(("predict", f"{about}: {mu[rows][k]!r} where eta is {eta[k]!r}"))
    y = case.counts[rows, j]
    known = np.isfinite(y)
    scale = float(model.scale_[j])
    if not (scale > 0 or oracle.FAMILIES[case.link] not in ("Gaussian", "Gamma")):
        return  # a perfect fit, or no bins to spare
    for kind, values in left.items():
        with np.errstate(all="ignore"):
            middle, low, high = (
                oracle.residuals(eta[known] + s * error[known], y[known], kind, case.link, scale)
                for s in (0, -1, 1)
            )
        ends = np.sort([low, middle, high], axis=0)
        # The root of a deviance that is rounding of terms as large as the count.
        room = 1e-7 + 1e-6 * np.abs(middle) + 4 * np.sqrt(oracle.EPS * y[known].clip(min=0))
        if oracle.FAMILIES[case.link] == "Bernoulli":  # a mean near 1 has few digits of 1 - mean
            with np.errstate(all="ignore"):
                rest = np.exp(-np.exp(eta)) if case.link == "cloglog" else np.exp(-eta)
            few = rest[known] < 1e-6
            room[few], ends[:, few & (y[known] == 0)] = np.inf, np.inf
            room[few & (y[known] == 1)] = 1e-7
        ours = values[rows][known]
        wrong = ~((ours >= ends[0] - room) & (ours <= ends[2] + room))
        wrong &= np.isfinite(ends).all(axis=0) & (np.abs(eta[known]) < 600)
        if wrong.any():
            k = int(np.argmax(wrong))
            text = (
                f"{about}, {kind}: {ours[k]!r}, expected {middle[k]!r} at eta {eta[known][k]:.4g}"
            )
            found.append(("residuals", text + f", y {y[known][k]:g}"))


def _check_scores(case, model, mu, found):
    rows, counts = case.valid, case.counts
    known = rows[:, None] & np.isfinite(counts)
    if not known.any() or not np.isfinite(mu[rows]).all():
        return
    weight = np.ones(len(rows)) if case.weight is None else case.weight
    wide = np.broadcast_to(weight[:, None], counts.shape)
    y = np.where(known, counts, 1.0)
    null = np.ones_like(mu)
    for j in range(counts.shape[1]):
        if not known[:, j].any():
            continue
        w = weight[known[:, j]]
        offset = case.offset_of(j)
        own = y[known[:, j], j], w / w.sum(), offset[known[:, j]], case.link
        b = oracle.null_intercept(*own, float(model.scale_[j]))
        with np.errstate(over="ignore"):
            null[:, j] = oracle.mean(b + offset, case.link)
    total = {}
    with np.errstate(all="ignore"):
        for name, at in (("model", mu), ("null", null)):
            at = np.where(known, at, 0.5)
            for what, values in (
                ("LL", oracle.log_likelihood(y, at, case.link, model.scale_)),
                ("D", oracle.deviance(y, at, case.link, model.scale_)),
            ):
                total[name, what] = np.sum(np.where(known, wide * values, 0)) / np.sum(wide[known])
        expected = {
            "log-likelihood": total["model", "LL"],
            "pseudo-r2-McFadden": 1 - total["model", "LL"] / total["null", "LL"],
            "pseudo-r2-Cohen": 1 - total["model", "D"] / total["null", "D"],
        }
    # Of counts that do not vary, the deviance of the null model is rounding.
    rough = 1e-24 * np.mean(y[known] ** 2)
    rough += 0 if case.link == "identity" else 1e-14 * np.mean(y[known])
    if total["null", "D"] <= rough:
        expected["pseudo-r2-Cohen"] = np.nan
    unit = np.mean(y**2, axis=0) if case.link == "identity" else 1.0
    perfect = model.scale_ <= 1e-20 * unit  # a scale of rounding
    if oracle.FAMILIES[case.link] in ("Gaussian", "Gamma") and perfect.any():
        expected["log-likelihood"] = expected["pseudo-r2-McFadden"] = np.nan
    room = {"log-likelihood": abs(total["model", "LL"])}
    for name, value in expected.items():
        try:
            ours = float(model.score(case.X, case.y, name, **case.adjust()))
        except Exception as error:
            found.append(("exception", f"{type(error).__name__} in score {name}: {error}"))
            continue
        if not np.isfinite(value) or abs(value) > 1e8:
            continue
        size = 1e-7 * max(1.0, abs(value), room.get(name, 0))
        if not abs(ours - value) <= size:
            found.append(("score", f"{name}: {ours!r}, expected {value!r}"))


def _check_errors(case, model, found):
    n = case.counts.shape[1]
    usable = [j for j in range(n) if model.status_[j] == "converged" and case.rows(j).any()]
    if not usable:
        return
    for kind in ("observed", "expected", "robust"):
        try:
            ours = model.standard_errors(case.X, case.y, kind, **case.adjust())
        except Exception as error:
            found.append(("exception", f"{type(error).__name__} in standard_errors: {error}"))
            return
        for j in usable:
            _check_error(case, model, j, kind, ours.reshape(-1, n)[:, j], found)


def _check_error(case, model, j, kind, ours, found):
    coef, intercept = _point(case, model, j)
    r, free = case.receiver(j), np.flatnonzero(case.free(j))
    held = np.zeros(len(free), bool)
    for features, _ in r.groups:
        held[features] |= coef[free][features] == 0
    kept = np.flatnonzero(~held)
    scale = 1.0
    if oracle.FAMILIES[case.link] in ("Gaussian", "Gamma"):
        n_free = len(kept) + 1
        rest = r.weight.sum() - n_free
        eta = r.X.astype(np.longdouble) @ coef[free] + np.longdouble(intercept) + r.offset
        mu = oracle.mean(eta, r.link)
        of_mean = 1.0 if case.link == "identity" else mu**2
        squares = float(np.sum(r.weight * (r.y - mu) ** 2 / of_mean))
        spread = np.sum(r.weight * (r.y - r.offset - np.sum(r.share * (r.y - r.offset))) ** 2)
        spread = spread if case.link == "identity" else 0.0
        constant = oracle.centred(r.X, r.share)[2] == 0
        of_mean = r.y**2 if case.link == "identity" else 1.0
        rest_of_rounding = 1e-10 * spread + 1e-20 * np.sum(r.weight * of_mean)
        if rest <= 0 or squares <= rest_of_rounding or constant[kept].any():
            return  # nothing to compare, or p counts what is the intercept's
        scale = squares / rest
        if not abs(model.scale_[j] - scale) <= 1e-6 * scale:
            text = f"receiver {j}: {model.scale_[j]:.9g}, expected {scale:.9g}"
            found.append(("scale", text))
            return
    if not kept.size:
        return
    small = oracle.Receiver(
        r.X[:, kept], r.y, r.weight, r.offset, r.link, r.ridge[kept], [], r.scale
    )  # a lasso has no curvature
    filters = as_feature_matrix(case.X).filters[free[kept]]
    weight = None if case.weight is None else case.weight[case.valid]
    center = np.average(case.design[case.valid][:, free[kept]], axis=0, weights=weight)
    at = coef[free[kept]], intercept
    expected = oracle.standard_errors(small, *at, kind, scale, filters, center)
    if expected is None or not np.isfinite(expected).all():
        return
    ours = ours[free[kept]]
    # Along a feature without a part in any residual, a robust error is rounding beside the model's.
    of_model = expected
    if kind == "robust":
        of_model = oracle.standard_errors(small, *at, "observed", scale)
    room = 1e-5 * expected + np.where(expected < 1e-3 * of_model, 1e-6 * of_model, 0)
    off = ~(np.abs(ours - expected) <= room)
    if off.any():
        k = int(np.argmax(off))
        text = f"receiver {j}, {kind}, feature {free[kept][k]}: {ours[k]:.6g}"
        found.append(("standard errors", f"{text}, expected {expected[k]:.6g}"))


# --- the same again, and alone ------------------------------------------------------------------


def _check_again(case, model, found):
    rng = np.random.default_rng([case.seed, 1])
    n = case.counts.shape[1]
    if rng.random() < 0.1:
        again = _call(case, found)
        if again is not None and not (
            np.array_equal(again.coef_, model.coef_, equal_nan=True)
            and np.array_equal(again.intercept_, model.intercept_, equal_nan=True)
        ):
            off = np.abs(again.objective_ - model.objective_).max()
            found.append(("other bits", f"objectives differ by {off:.1e}"))
    if n > 1 and rng.random() < 0.35:
        _check_alone(case, model, int(rng.integers(n)), found)


def alone(case, j):
    """The case of one receiver by itself."""
    one = type(case)(**vars(case))
    one.y, one.single = case.y[:, [j]], False
    one.params = dict(case.params)
    if case.offset is not None and case.offset.ndim == 2 and case.offset.shape[1] > 1:
        one.offset = case.offset[:, [j]]
    if case.mask is not None:
        one.mask = case.mask[:, [j]]
        one.params["feature_mask"] = case.params["feature_mask"][:, [j]]
    strength = case.params.get("regularizer_strength")
    if isinstance(strength, np.ndarray):
        one.params["regularizer_strength"] = strength[..., [j]]
    one.ridge, one.norms = case.ridge[:, [j]], [case.norms[j]]
    one.init = None if case.init is None else (case.init[0][:, [j]], case.init[1][[j]])
    return one


def _check_alone(case, model, j, found):
    single = _call(alone(case, j), found)
    if single is None or case.rows(j).sum() == 0:
        return
    r, free = case.receiver(j), case.free(j)
    values = [float(r.value(c[free], b)) for c, b in (_point(case, model, j), _first(single))]
    status = str(model.status_[j]), str(single.status_[0])
    both = model.converged_[j] and single.converged_[0]
    claims = float(model.newton_decrement_[j] + single.newton_decrement_[0]) if both else 0.0
    scale = max(abs(values[0]), abs(values[1]))
    rough = _slope_of_rounding(r, _point(case, model, j)[0][free], _point(case, model, j)[1])[0]
    if (
        status[0] != status[1]
        or not abs(values[0] - values[1]) <= 1e-13 * scale + 2 * claims + rough
    ):
        text = f"receiver {j}: {status[0]} in company, {status[1]} alone"
        found.append(("alone and in company", f"{text}; objectives differ by "
                      f"{abs(values[0] - values[1]):.1e} at {scale:.1e}"))  # fmt: skip


def _first(model):
    return np.asarray(model.coef_, float).reshape(-1, 1)[:, 0], float(model.intercept_[0])


# --- the run ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _limit(seconds):
    """Raise Hang after so many seconds of CPU, which a busy machine gives slowly, or 20 times that.

    The second limit is of the wall clock: who waits for ever uses no CPU.
    """
    clocks = {signal.ITIMER_PROF: signal.SIGPROF, signal.ITIMER_REAL: signal.SIGALRM}

    def stop(*_):
        raise Hang

    before = {one: signal.signal(one, stop) for one in clocks.values()}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 20 * seconds)
    try:
        yield
    finally:
        for clock, one in clocks.items():
            signal.setitimer(clock, 0)
            signal.signal(one, before[one])


def run(seeds, limit=LIMIT, largest=3000, tell=None, more=False):
    """Check the cases of some seeds.

    Returns
    -------
    found : dict of kind to list of (seed, sentence, description)
    covered : Counter of facts over cases
    ended : Counter of statuses and `ENDS` over receivers
    """
    found, covered = collections.defaultdict(list), collections.Counter()
    ended = collections.Counter()
    for seed in seeds:
        facts, wrong, text = set(), [], ""
        try:
            with _limit(limit):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # epochs that are shorter than a window
                    case = draw(seed, largest, more)
                text = case.describe()
                wrong, facts, ends = check(case)
        except Hang:
            wrong = [("hang", f"more than {limit} s of CPU, or {20 * limit} s")]
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.filename.rsplit('/', 1)[-1]}:{place.lineno}"
            wrong = [("exception", f"in the fuzzer, {type(error).__name__} at {where}: {error}")]
        else:
            facts |= {f"link {case.link}", f"penalty {case.penalty}"}
            facts |= {f"solver {case.params.get('solver_name')}"}
            ended.update(ends)
        covered["cases"] += 1
        covered.update(facts)
        for kind, sentence in wrong:
            found[kind].append((seed, sentence, text))
        if tell is not None:
            tell(seed, wrong, text)
    return found, covered, ended


def show(found, covered, ended, examples=5):
    """The failures by kind, the receivers by status, and the share of cases with each fact."""
    lines = []
    for kind in sorted(found, key=KINDS.index):
        seeds = {seed for seed, *_ in found[kind]}
        lines.append(f"\n{kind}: {len(found[kind])} in {len(seeds)} cases")
        for seed, sentence, text in found[kind][:examples]:
            lines.append(f"  --case {seed}: {sentence}\n      {text}")
    lines.append("\nreceivers: " + ", ".join(f"{fact} {n:,}" for fact, n in sorted(ended.items())))
    lines.append(f"covered, in % of {covered['cases']:,} cases:")
    shares = [
        f"{fact} {100 * n / covered['cases']:.1f}"
        for fact, n in sorted(covered.items())
        if fact != "cases"
    ]
    lines += ["  " + ", ".join(shares[k : k + 6]) for k in range(0, len(shares), 6)]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=200, help="number of cases")
    parser.add_argument("--seed", type=int, default=0, help="the first case")
    parser.add_argument("--case", type=int, help="only this case")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of CPU a case")
    parser.add_argument("--largest", type=int, default=3000, help="most bins of a case")
    parser.add_argument("--examples", type=int, default=5, help="failures that are shown of a kind")
    parser.add_argument("--more", action="store_true", help="cases of the later families")
    parser.add_argument("--quiet", action="store_true", help="no line when a case fails")
    given = parser.parse_args()

    def tell(seed, wrong, text):
        serious = [w for w in wrong if w[0] != "not converged"]
        if serious and not given.quiet:
            print(f"{seed}: {serious[0][0]}: {serious[0][1]} [{text}]", flush=True)

    seeds = range(given.seed, given.seed + given.n)
    if given.case is not None:
        seeds, tell = [given.case], None
    start = time.perf_counter()
    found, *counts = run(seeds, given.limit, given.largest, tell, given.more)
    print(show(found, *counts, given.examples if given.case is None else 100))
    print(f"{time.perf_counter() - start:.0f} s")
    return int(any(kind not in KINDS[-3:] for kind in found))


if __name__ == "__main__":
    sys.exit(main())
