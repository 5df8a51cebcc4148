"""Lasso paths beside others: time of a whole path, and how far each optimum is from the lowest.

    python benchmarks/lasso.py [--cases tiny small locust] [--strengths 30] [--write]

All take the same strengths, from that at which every coefficient is 0 down to a hundredth of it.
fastglm fits all receivers from counts. The others fit `N_TIMED` receivers on stored features, which
they are given, one strength after the other from the last solution; their time is scaled to all
receivers. Every objective is computed here, in float64. The gap is the largest over receivers and
strengths, against the lowest objective that any of them reached. ``--write`` keeps the numbers in
``lasso.json`` and the table in the README.
"""

import argparse
import importlib.util
import json
import time
import warnings
from pathlib import Path

import numpy as np
from cases import CASES
from run import machine, made_by, replace_section, table

import fastglm
from fastglm.model_selection import regularization_path

HERE = Path(__file__).resolve().parent
N_TIMED, LEAST = 2, 1e-2  # receivers; the last strength, as a part of the first


def fit_fastglm(case, strengths, tol):
    """Coefficients (n_strengths, n_features, n_receivers), intercepts, and seconds."""
    model = fastglm.PopulationGLM(regularizer="Lasso", solver_kwargs={"tol": tol})
    begin = time.perf_counter()
    path = regularization_path(model, case.X, case.counts, strengths)
    seconds = time.perf_counter() - begin
    return path.coef[:, :, :N_TIMED], path.intercept[:, :N_TIMED], seconds


def fit_adelie(rows, y, strengths, tol):
    import adelie as ad

    state = ad.grpnet(
        X=np.asfortranarray(rows), glm=ad.glm.poisson(y=y), lmda_path=strengths, tol=tol,
        irls_tol=tol, early_exit=False, progress_bar=False, n_threads=2,
    )  # fmt: skip
    return state.betas.toarray(), np.asarray(state.intercepts)


def fit_skglm(rows, y, strengths, tol):
    import skglm

    solver = skglm.solvers.ProxNewton(tol=tol, max_iter=200, fit_intercept=True, warm_start=True)
    model = skglm.GeneralizedLinearEstimator(
        skglm.datafits.Poisson(), skglm.penalties.L1(strengths[0]), solver
    )
    coef, intercept = [], []
    for strength in strengths:
        model.penalty = skglm.penalties.L1(strength)
        model.fit(rows, y)
        coef.append(np.ravel(model.coef_))
        intercept.append(float(np.ravel(model.intercept_)[0]))
    return np.array(coef), np.array(intercept)


def fit_glum(rows, y, strengths, tol):
    from glum import GeneralizedLinearRegressor

    model = GeneralizedLinearRegressor(
        family="poisson", l1_ratio=1, warm_start=True, gradient_tol=tol, max_iter=500
    )
    coef, intercept = [], []
    for strength in strengths:
        model.set_params(alpha=float(strength)).fit(rows, y)
        coef.append(model.coef_.copy())
        intercept.append(model.intercept_)
    return np.array(coef), np.array(intercept)


# name: (function, tolerances that are tried, loose and tight)
PEERS = {
    "adelie": (fit_adelie, (1e-7, 1e-12)),
    "skglm": (fit_skglm, (1e-4, 1e-9)),
    "glum": (fit_glum, (1e-4, 1e-9)),
}


def objectives(rows, counts, strengths, coef, intercept):
    """``mean(exp(eta) - y * eta) + strength * sum(|c|)``, (n_strengths, n_receivers)."""
    found = np.empty((len(strengths), counts.shape[1]))
    for k, strength in enumerate(strengths):
        eta = rows @ coef[k] + intercept[k]
        penalty = strength * np.abs(coef[k]).sum(axis=0)
        found[k] = (np.exp(eta) - counts * eta).mean(axis=0) + penalty
    return found


def measure(case, n_strengths, missing):
    """Rows of the table: seconds for all receivers, objectives, and the tolerance."""
    X, n = case.X, case.counts.shape[1]
    rows = np.asarray(X)[X.valid]
    counts = case.counts[X.valid].astype(float)
    slope = np.abs(rows.T @ (counts - counts.mean(axis=0))).max(axis=0) / len(rows)
    strengths = slope[:N_TIMED].max() * np.geomspace(1, LEAST, n_strengths)
    found = {}
    fit_fastglm(case, strengths, 1e-8)  # compiles
    for tol in (1e-8, 1e-14):
        coef, intercept, seconds = fit_fastglm(case, strengths, tol)
        found["fastglm", tol] = (
            seconds,
            objectives(rows, counts[:, :N_TIMED], strengths, coef, intercept),
        )
        print("fastglm", tol, f"{seconds:.3g} s", flush=True)
    for name, (fit, tolerances) in PEERS.items():
        if importlib.util.find_spec(name) is None:
            missing.add(name)
            continue
        fit(rows[:500], counts[:500, 0], strengths[:2], 1e-4)  # compiles
        for tol in tolerances:
            begin = time.perf_counter()
            fits = [fit(rows, counts[:, j], strengths, tol) for j in range(N_TIMED)]
            seconds = (time.perf_counter() - begin) * n / N_TIMED
            coef = np.stack([coef for coef, _ in fits], axis=2)
            intercept = np.stack([intercept for _, intercept in fits], axis=1)
            value = objectives(rows, counts[:, :N_TIMED], strengths, coef, intercept)
            found[name, tol] = seconds, value
            print(name, tol, f"{seconds:.3g} s", flush=True)
    least = np.min([value for _, value in found.values()], axis=0)
    return {
        "n_bins": case.counts.shape[0], "n_cells": n, "n_features": X.shape[1],
        "n_strengths": n_strengths,
        "rows": [
            {"name": name, "tol": tol, "seconds": seconds, "gap": float((value - least).max())}
            for (name, tol), (seconds, value) in found.items()
        ],
    }  # fmt: skip


def to_markdown(results):
    """The table of the README; times are ratios to fastglm at an equal gap or a smaller one."""
    lines = []
    for name, case in results["cases"].items():
        title = f"{name}: {case['n_cells']} cells, {case['n_bins']:,} bins, "
        title += f"{case['n_features']} features, {case['n_strengths']} strengths"
        own = [row for row in case["rows"] if row["name"] == "fastglm"]
        for row in case["rows"]:
            as_good = [one["seconds"] for one in own if one["gap"] <= max(row["gap"], 1e-15)]
            times = ""
            if row["name"] != "fastglm" and as_good:
                times = f"{row['seconds'] / min(as_good):.3g}"
            lines.append(
                [title, f"{row['name']}, tol {row['tol']:g}", f"{row['seconds']:.3g}",
                 f"{row['gap']:.1e}", times]
            )  # fmt: skip
            title = ""
    head = ["case", "implementation", "seconds of a path", "largest gap", "times fastglm"]
    return table(head, lines) + made_by("lasso.py", results["machine"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=["tiny"], choices=CASES)
    parser.add_argument("--strengths", type=int, default=30)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    results, missing = {"machine": machine("adelie", "skglm"), "cases": {}}, set()
    for name in options.cases:
        results["cases"][name] = measure(CASES[name](), options.strengths, missing)
    text = to_markdown(results)
    print(text)
    if missing:
        print("not installed:", *sorted(missing))
    if options.write:
        (HERE / "lasso.json").write_text(json.dumps(results, indent=1) + "\n")
        replace_section("lasso", text)


if __name__ == "__main__":
    main()
