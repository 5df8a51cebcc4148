"""Small fits that reach every way through the solvers: the record of what fastglm computes.

    python benchmarks/fits.py tests/record.npz

writes the results of all fits into one file. ``benchmarks/same_bits.py`` compares the results of
two checkouts, and ``tests/test_record.py`` compares the installed package with the file in git.

A fit is a function without arguments that returns arrays by name. The functions use the public
interface alone, so a change of private modules leaves this file as it is. Two rules keep the bits
the same on machines with the same processor:

- Counts and covariates come from comparisons, sums and products of dyadic numbers. They are the
  same on every machine.
- ``memory_budget`` is given. The default depends on the machine's memory, and sizes samples of
  bins.

A process that compiles a kernel may run another copy of its helpers than one that loads it from
Numba's cache, with other last digits. So `main` says if kernels were compiled. The next process has
the results of every later one.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from numba.core.event import install_recorder
from sklearn.exceptions import ConvergenceWarning

import fastglm
from fastglm.basis import BSplineEval, HistoryConv, IdentityEval, RaisedCosineLogConv
from fastglm.features import hold, hstack
from fastglm.model_selection import cross_validate, regularization_path

MEMORY = "1GB"
# A coefficient is as exact as the root of the decrement. At the default tolerance of 1e-16 two
# processors differ by up to 7e-7 in a coefficient, at 1e-20 by 1e-9.
TOL = 1e-20
# Sparse fits and `masks_of_groups` keep the default: below it, another processor takes two or three
# passes more or less.
DEFAULT_TOL = 1e-16


# --- data ---


def network(n_bins, n_cells, seed, rate=1 / 16):
    """Spikes of cells that excite and inhibit each other over three bins, 0 or 1 in a bin.

    A cell fires if a uniform number is below ``rate`` plus the couplings of the last spikes. All
    terms are multiples of 2^-10, so that their sum is exact in any order.
    """
    rng = np.random.default_rng(seed)
    coupling = rng.choice([-1 / 64, 0, 0, 1 / 16, 1 / 8], size=(n_cells, n_cells))
    np.fill_diagonal(coupling, -1 / 32)
    uniform = rng.random((n_bins, n_cells))
    counts = np.zeros((n_bins, n_cells), np.int64)
    for t in range(3, n_bins):
        recent = counts[t - 1] + counts[t - 2] / 2 + counts[t - 3] / 4
        counts[t] = uniform[t] < np.clip(rate + recent @ coupling, 1 / 256, 1 / 2)
    return counts


def uniform_numbers(shape, seed):
    """Numbers in [0, 1), multiples of 2^-16."""
    return np.random.default_rng(seed).integers(0, 1 << 16, size=shape) / (1 << 16)


# --- fits ---


def fit(X, y, sample_weight=None, offset=None, tol=TOL, products="auto", **settings):
    """Results of a model by name. The status tells what the warning of a fit tells."""
    model = fastglm.PopulationGLM(
        memory_budget=MEMORY, solver_kwargs={"tol": tol, "products": products}, **settings
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y, sample_weight=sample_weight, offset=offset)
    return results(model)


def results(model):
    """The arrays that the record keeps of a fitted model."""
    return {
        "coef": model.coef_,
        "intercept": model.intercept_,
        "status": model.status_,
        "n_passes": model.n_passes_,
        "n_iter": model.n_iter_,
        "objective": model.objective_,
    }


def path(X, y, strengths, tol=TOL, **settings):
    """Results of a regularization path by name, one row a strength. A path counts no steps."""
    model = fastglm.PopulationGLM(memory_budget=MEMORY, solver_kwargs={"tol": tol}, **settings)
    fits = regularization_path(model, X, y, strengths)
    names = ("coef", "intercept", "status", "n_passes", "objective")
    return {name: getattr(fits, name) for name in names}


def plain_cosines(solver_name=None):
    """The cost model chooses the solver."""
    counts = network(3000, 4, 1)
    X = RaisedCosineLogConv(4, 20).compute_features(counts)
    return fit(X, counts, solver_name=solver_name)


def plain_cosines_cholesky():
    return plain_cosines("newton-cholesky")


def raw_lags_ridge():
    """Every receiver has its own strength."""
    counts = network(3000, 5, 2)
    return fit(
        HistoryConv(8).compute_features(counts),
        counts,
        regularizer="Ridge",
        regularizer_strength=np.array([0, 1e-4, 1e-3, 1e-2, 1e-1]),
        solver_name="newton-cg",
    )


def smooth_lags(solver_name="newton-cholesky"):
    """Second differences of every filter are small."""
    counts = network(3000, 4, 3)
    differences = np.diff(np.eye(10), 2, axis=0)
    return fit(
        HistoryConv(10).compute_features(counts),
        counts,
        regularizer=fastglm.regularizer.Quadratic(differences.T @ differences),
        regularizer_strength=1e-2,
        solver_name=solver_name,
    )


def smooth_lags_cg():
    return smooth_lags("newton-cg")


def softplus_plain():
    counts = network(3000, 4, 4)
    return fit(
        RaisedCosineLogConv(3, 12).compute_features(counts),
        counts,
        inverse_link_function="softplus",
        solver_name="newton-cholesky",
    )


def softplus_ridge():
    counts = network(3000, 6, 5)
    return fit(
        RaisedCosineLogConv(4, 16).compute_features(counts),
        counts,
        inverse_link_function="softplus",
        regularizer="Ridge",
        regularizer_strength=1e-3,
        solver_name="newton-cg",
    )


def lasso():
    counts = network(3000, 6, 6)
    return fit(
        RaisedCosineLogConv(4, 16).compute_features(counts),
        counts,
        regularizer="Lasso",
        regularizer_strength=2e-3,
        solver_name="newton-cg",
        tol=DEFAULT_TOL,
    )


def elastic_net_softplus():
    counts = network(3000, 5, 7)
    return fit(
        HistoryConv(6).compute_features(counts),
        counts,
        inverse_link_function="softplus",
        regularizer="ElasticNet",
        regularizer_strength=(3e-3, 0.5),
        solver_name="newton-cholesky",
        tol=DEFAULT_TOL,
    )


def group_lasso():
    """Some filters are exactly 0."""
    counts = network(3000, 6, 8)
    return fit(
        RaisedCosineLogConv(4, 16).compute_features(counts),
        counts,
        regularizer="GroupLasso",
        regularizer_strength=2e-3,
        solver_name="newton-cg",
        tol=DEFAULT_TOL,
    )


def masks_of_groups():
    """Three groups of seven receivers, each with the senders of its own group.

    Receivers of one mask share tiles, and there are more receivers than one tile holds.
    """
    counts = network(3000, 21, 9, 1 / 32)
    group = np.arange(21) // 7
    return fit(
        RaisedCosineLogConv(3, 12).compute_features(counts),
        counts,
        feature_mask=np.repeat(group[:, None] == group, 3, axis=0),
        regularizer="Ridge",
        regularizer_strength=1e-3,
        solver_name="newton-cg",
        tol=DEFAULT_TOL,
    )


def masks_of_their_own():
    """Every receiver has three senders that no other receiver has: fits side by side."""
    counts = network(3000, 12, 10)
    far = (np.arange(12)[:, None] - np.arange(12)) % 12
    return fit(
        RaisedCosineLogConv(4, 12).compute_features(counts),
        counts,
        feature_mask=np.repeat(far < 3, 4, axis=0),
        regularizer="Ridge",
        regularizer_strength=1e-3,
        solver_name="newton-cg",
    )


def masks_with_lasso():
    """Every receiver misses other features, and some coefficients are exactly 0."""
    counts = network(3000, 6, 11)
    far = (np.arange(6)[:, None] - np.arange(6)) % 6
    return fit(
        RaisedCosineLogConv(4, 12).compute_features(counts),
        counts,
        feature_mask=np.repeat(far < 4, 4, axis=0),
        regularizer="Lasso",
        regularizer_strength=1e-3,
        solver_name="newton-cg",
        tol=DEFAULT_TOL,
    )


def weights_and_offsets():
    """Weights from 0 to 3, and an offset for every receiver."""
    counts = network(3000, 4, 12)
    return fit(
        RaisedCosineLogConv(4, 16).compute_features(counts),
        counts,
        sample_weight=np.random.default_rng(12).integers(0, 4, size=3000),
        offset=uniform_numbers((3000, 4), 13) - 0.5,
        regularizer="Ridge",
        regularizer_strength=1e-3,
        solver_name="newton-cg",
    )


def weights_softplus():
    """Weights and one offset for all receivers, with a link that is not canonical."""
    counts = network(3000, 4, 14)
    return fit(
        RaisedCosineLogConv(3, 12).compute_features(counts),
        counts,
        sample_weight=np.random.default_rng(14).integers(0, 4, size=3000),
        offset=uniform_numbers(3000, 15) - 0.5,
        inverse_link_function="softplus",
        regularizer="Ridge",
        regularizer_strength=1e-3,
        solver_name="newton-cg",
    )


def missing_counts():
    """Two receivers miss the same bins, a third one others; missing bins are no history either."""
    counts = network(3000, 5, 16).astype(float)
    counts[400:460, :2] = np.nan
    counts[2000:2100, 3] = np.nan
    return fit(
        RaisedCosineLogConv(4, 16).compute_features(counts),
        counts,
        regularizer="Ridge",
        regularizer_strength=1e-3,
        solver_name="newton-cg",
    )


def held_covariate():
    """Splines of a covariate that is sampled every ten bins, beside history."""
    history, speed = network(3000, 3, 17), uniform_numbers(300, 18)
    counts = history + (uniform_numbers((3000, 3), 19) < speed.repeat(10)[:, None] ** 2 / 8)
    X = hstack(
        [
            RaisedCosineLogConv(4, 16).compute_features(history),
            BSplineEval(5, bounds=(0, 1)).compute_features(hold(speed, 3000, every=10)),
        ]
    )
    return fit(X, counts, regularizer="Ridge", regularizer_strength=1e-3, solver_name="newton-cg")


def dense_covariates():
    """Ordinary columns alone, some of which are not finite in some bins."""
    x = uniform_numbers((3000, 6), 20)
    counts = (uniform_numbers((3000, 3), 21) < (x[:, :3] + x[:, 3:]) / 8).astype(int)
    x[500:520, 0] = np.nan
    return fit(x - 0.5, counts, solver_name="newton-cholesky")


def sum_of_bases():
    """History, a covariate and its value, with a covariate in every bin."""
    history, x = network(3000, 3, 22), uniform_numbers(3000, 23)
    counts = history + (uniform_numbers((3000, 3), 24) < x[:, None] / 8)
    basis = RaisedCosineLogConv(4, 12) + IdentityEval()
    return fit(
        basis.compute_features(history, x),
        counts,
        regularizer="Ridge",
        regularizer_strength=1e-3,
        solver_name="newton-cg",
    )


def product_of_bases():
    """The filter of a sender depends on a covariate."""
    history, gain = network(3000, 1, 25, 1 / 8)[:, 0], uniform_numbers(3000, 26)
    counts = np.zeros((3000, 2), int)
    chance = 1 / 16 + (gain[1:] * history[:-1] / 4)[:, None]
    counts[1:] = uniform_numbers((2999, 2), 27) < chance
    basis = RaisedCosineLogConv(4, 10) * BSplineEval(4, bounds=(0, 1))
    return fit(
        basis.compute_features(history, gain),
        counts,
        regularizer="Ridge",
        regularizer_strength=1e-3,
        solver_name="newton-cg",
    )


def epochs():
    """Three epochs, one of which ends where the next begins, and bins in none of them."""
    counts = network(3000, 5, 28)
    X = RaisedCosineLogConv(4, 20).compute_features(
        counts, epochs=[[0, 900], [1000, 2000], [2000, 2900]]
    )
    return fit(X, counts, regularizer="Ridge", regularizer_strength=1e-3, solver_name="newton-cg")


def products_from_rows():
    """``X C`` and ``X' R`` come from rows of X instead of events."""
    counts = network(3000, 6, 29, 1 / 8)
    return fit(
        RaisedCosineLogConv(4, 16).compute_features(counts),
        counts,
        regularizer="Ridge",
        regularizer_strength=1e-3,
        solver_name="newton-cg",
        products="rows",
    )


def separated_and_silent(solver_name="newton-cholesky"):
    """Receiver 1 fires only after sender 0 has; receiver 2 never fires."""
    counts = network(3000, 4, 30)
    counts[1:, 1] = counts[:-1, 0] & (uniform_numbers(2999, 31) < 0.5)
    counts[:20, 1] = 0
    counts[:, 2] = 0
    X = HistoryConv(4).compute_features(counts[:, [0, 3]])
    return fit(X, counts, solver_name=solver_name)


def separated_and_silent_cg():
    return separated_and_silent("newton-cg")


def collinear():
    """A sender that is there twice: of all optima the one of least norm."""
    counts = network(3000, 4, 32)
    X = RaisedCosineLogConv(3, 12).compute_features(counts[:, [0, 1, 2, 3, 3]])
    return fit(X, counts, solver_name="newton-cg")


def own_bins():
    """Few events for many features and a weak ridge: receivers that take long.

    Senders fire in bursts and receivers seldom, so that receivers are given bins of their own.
    There are more bins than a chunk holds, and more than the solver samples.
    """
    rng = np.random.default_rng(33)
    burst = (rng.random(20_000) < 1 / 200).astype(int)
    burst = sum(np.roll(burst, k) for k in range(8)) > 0
    chance = np.where(burst, 1 / 4, 1 / 512)[:, None]
    counts = (rng.random((20_000, 8)) < chance).astype(int)
    return fit(
        RaisedCosineLogConv(6, 60).compute_features(counts),
        counts[:, :4],
        regularizer="Ridge",
        regularizer_strength=1e-6,
        solver_name="newton-cg",
    )


def default_tolerance(tol=DEFAULT_TOL):
    """Most fits of users end at this decrement."""
    counts = network(3000, 5, 34)
    return fit(
        RaisedCosineLogConv(4, 16).compute_features(counts),
        counts,
        regularizer="Ridge",
        regularizer_strength=1e-3,
        solver_name="newton-cg",
        tol=tol,
    )


def loose_tolerance():
    """The point at which a fit ends early."""
    return default_tolerance(1e-6)


def lasso_path():
    counts = network(3000, 3, 35)
    X = RaisedCosineLogConv(4, 16).compute_features(counts)
    return path(X, counts, 5, DEFAULT_TOL, regularizer="Lasso", solver_name="newton-cg")


def ridge_path():
    counts = network(3000, 4, 36)
    X = RaisedCosineLogConv(4, 16).compute_features(counts)
    strengths = [1e-1, 1e-2, 1e-3]
    return path(X, counts, strengths, regularizer="Ridge", solver_name="newton-cg")


def cross_validation():
    """The model with the strengths that two folds choose, and their held-out scores."""
    counts = network(3000, 3, 37)
    X = RaisedCosineLogConv(4, 16).compute_features(counts)
    model = fastglm.PopulationGLM(
        regularizer="GroupLasso", solver_name="newton-cg", memory_budget=MEMORY
    )
    chosen = cross_validate(model, X, counts, [1e-2, 1e-3], folds=2)
    return results(chosen.model) | {"scores": chosen.scores}


FITS = {
    f.__name__: f
    for f in (
        plain_cosines,
        plain_cosines_cholesky,
        raw_lags_ridge,
        smooth_lags,
        smooth_lags_cg,
        softplus_plain,
        softplus_ridge,
        lasso,
        elastic_net_softplus,
        group_lasso,
        masks_of_groups,
        masks_of_their_own,
        masks_with_lasso,
        weights_and_offsets,
        weights_softplus,
        missing_counts,
        held_covariate,
        dense_covariates,
        sum_of_bases,
        product_of_bases,
        epochs,
        products_from_rows,
        separated_and_silent,
        separated_and_silent_cg,
        collinear,
        own_bins,
        default_tolerance,
        loose_tolerance,
        lasso_path,
        ridge_path,
        cross_validation,
    )
}


# --- the file ---


def save(file, fits):
    """Write arrays ``{fit: {name: array}}`` under ``fit/name``; `same_bits.load` reads them."""
    arrays = {f"{f}/{name}": a for f, found in fits.items() for name, a in found.items()}
    np.savez_compressed(file, **arrays)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="the npz file to write")
    parser.add_argument("--fits", nargs="+", choices=FITS, metavar="NAME", help="only these")
    parser.add_argument("--times", action="store_true", help="print seconds and passes of each")
    args = parser.parse_args()
    found, begin = {}, time.perf_counter()
    with install_recorder("numba:compile") as compiled:
        for name in args.fits or FITS:
            start = time.perf_counter()
            found[name] = FITS[name]()
            if args.times:
                seconds, passes = time.perf_counter() - start, found[name]["n_passes"].max()
                statuses = ", ".join(np.unique(found[name]["status"]))
                print(f"{name:<24}{seconds:6.2f} s {passes:3d} passes  {statuses}")
    save(args.file, found)
    seconds = time.perf_counter() - begin
    note = ", kernels compiled" if compiled.buffer else ""
    print(f"{Path(fastglm.__file__).parent}: {len(found)} fits in {seconds:.1f} s{note}")


if __name__ == "__main__":
    main()
