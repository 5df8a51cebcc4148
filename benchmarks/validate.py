"""The validation report: uncertainty, penalties and known connectivity against the truth.

    python benchmarks/validate.py [--sections coverage discovery calibration ...] [--write]

Every section is a function: it returns numbers and draws a figure where there is something to see.
With ``--write`` the numbers go to ``validate.json``, the figures to ``docs/images``, and the page
``docs/validation.md`` is made anew from the numbers of all sections.
"""

import argparse
import json
import sys
import time
import warnings
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import scipy.sparse
from cases import DATA, auc, simulated
from populations import KINDS
from run import machine, table
from scipy import stats
from sklearn.exceptions import ConvergenceWarning

import fastglm
from fastglm import inference, model_selection
from fastglm.simulation import random_network

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
# Safe for colour-blind readers (Okabe & Ito, 2008).
BLUE, ORANGE = "#0072B2", "#D55E00"
LEVELS = [0.01, 0.02, 0.05, 0.1, 0.2]
COLOURS = BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442"


def network_fit(key, n_cells, n_bins):
    """A coupled network at 5 ms and 15 Hz, its counts, and its fit without a penalty."""
    basis = fastglm.basis.RaisedCosineLogConv(5, window_size=20)
    network = random_network(n_cells, basis, 15.0, bin_size=0.005, random_key=key)
    counts = network.simulate(n_bins, random_key=1000 + key)
    X = basis.compute_features(counts)
    return network, X, counts, fastglm.PopulationGLM().fit(X, counts)


# --- sections -----------------------------------------------------------------------------------


def coverage(n_networks=25, n_cells=10, n_bins=120_000):
    """Whether bands of 95 % hold the true filters between different cells.

    Own histories are left out: a slow cell that never fires twice within a few bins has no finite
    estimate there.
    """
    inside, z = [], []
    other = ~np.eye(n_cells, dtype=bool)
    for key in range(n_networks):
        network, X, counts, model = network_fit(key, n_cells, n_bins)
        couplings = model.coupling_map(X, counts)
        _, low, high = couplings.filters(0.95)
        true = network.filters.transpose(1, 0, 2)
        # At the last lag of the window the basis is zero, and so is any filter.
        some = np.flatnonzero(X.blocks[0].kernel.any(axis=1))
        inside.append(((low <= true) & (true <= high))[some][:, other])
        z.append(((couplings.strength - true.sum(axis=0)) / couplings.standard_error)[other])
    inside, z = np.concatenate(inside, axis=1), np.concatenate(z)
    assert np.isfinite(z).all()  # nothing that is not determined counts as covered
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), constrained_layout=True)
    lags = 5 * np.arange(1, inside.shape[0] + 1)
    axes[0].axhspan(94, 96, color="0.9")
    axes[0].plot(lags, 100 * inside.mean(axis=1), "o-", color=BLUE, ms=4)
    axes[0].set(xlabel="lag (ms)", ylabel="bands that hold the truth (%)", ylim=(90, 100))
    bins = np.linspace(-4.5, 4.5, 46)
    axes[1].hist(z, bins, density=True, color=BLUE, alpha=0.5)
    x = np.linspace(-4.5, 4.5, 200)
    axes[1].plot(x, stats.norm.pdf(x), color="0.2")
    axes[1].set(xlabel="(strength - truth) / standard error", ylabel="density")
    save(figure, "coverage")
    return {
        "networks": n_networks,
        "n_cells": n_cells,
        "n_bins": n_bins,
        "filters": inside.shape[1],
        "bands_percent": 100 * float(inside.mean()),
        "bands_percent_worst_lag": 100 * float(inside.mean(axis=1).min()),
        "strength_percent": 100 * float((np.abs(z) <= stats.norm.ppf(0.975)).mean()),
    }


def discovery(n_networks=40, n_cells=20, n_bins=60_000):
    """How many of the couplings found at a q-value are none."""
    levels = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.3])
    false, power = np.zeros((n_networks, levels.size)), np.zeros((n_networks, levels.size))
    for key in range(n_networks):
        network, X, counts, model = network_fit(100 + key, n_cells, n_bins)
        couplings = model.coupling_map(X, counts)
        linked = network.adjacency != 0
        for k, q in enumerate(levels):
            found = couplings.significant(q)
            false[key, k] = (found & ~linked).sum() / max(found.sum(), 1)
            power[key, k] = (found & linked).sum() / linked.sum()
    mean, error = false.mean(axis=0), false.std(axis=0, ddof=1) / np.sqrt(n_networks)
    figure, ax = plt.subplots(figsize=(4.2, 3.4), constrained_layout=True)
    ax.plot([0, 0.3], [0, 0.3], "--", color="0.6", label="bound")
    ax.errorbar(levels, mean, 2 * error, fmt="o-", color=BLUE, ms=4, label="false among found")
    ax.plot(levels, power.mean(axis=0), "s-", color=ORANGE, ms=4, label="found among true")
    ax.set(xlabel="q", ylabel="part", ylim=(0, 1))
    ax.legend(frameon=False)
    save(figure, "discovery")
    at = int(np.flatnonzero(levels == 0.1)[0])
    return {
        "networks": n_networks,
        "n_cells": n_cells,
        "n_bins": n_bins,
        "false_at_0.1": float(mean[at]),
        "standard_error": float(error[at]),
        "power_at_0.1": float(power.mean(axis=0)[at]),
    }


def calibration(n_networks=6, n_cells=16, n_bins=120_000):
    """P-values of couplings that are none: uniform, for all three tests."""
    p = {"Wald": [], "likelihood ratio": [], "score": []}
    for key in range(n_networks):
        network, X, counts, model = network_fit(200 + key, n_cells, n_bins)
        null = (network.adjacency == 0) & ~np.eye(n_cells, dtype=bool)
        wald = inference.uncertainty(model, X, counts).wald_test()
        ratio = inference.likelihood_ratio_test(model, X, counts, pairs=np.argwhere(null))
        true = fastglm.PopulationGLM(feature_mask=np.repeat(~null, 5, axis=0)).fit(X, counts)
        score = inference.score_test(true, X, counts)
        for name, test in zip(p, (wald, ratio, score), strict=True):
            p[name].append(test.p_value[null])
    p = {name: np.sort(np.concatenate(values)) for name, values in p.items()}
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), constrained_layout=True, sharey=True)
    for ax, (name, values) in zip(axes, p.items(), strict=True):
        k = np.arange(1, values.size + 1)
        low, high = stats.beta.ppf([[0.025], [0.975]], k, values.size + 1 - k)
        expected = -np.log10(k / (values.size + 1))
        ax.fill_between(expected, -np.log10(high), -np.log10(low), color="0.88", lw=0)
        ax.plot(expected, expected, color="0.5", lw=1)
        ax.plot(expected, -np.log10(values), ".", color=BLUE, ms=3)
        ax.set(title=name, xlabel="expected $-\\log_{10} p$")
    axes[0].set_ylabel("observed $-\\log_{10} p$")
    save(figure, "calibration")
    return {
        "networks": n_networks,
        "n_cells": n_cells,
        "n_bins": n_bins,
        "tests": {
            name: {
                "n": values.size,
                "ks": float(stats.kstest(values, "uniform").statistic),
                "ks_p_value": float(stats.kstest(values, "uniform").pvalue),
                "rejected_at_5_percent": 100 * float((values <= 0.05).mean()),
            }
            for name, values in p.items()
        },
    }


def errors(n_cells=4, n_bins=60_000):
    """Standard errors against statsmodels, relative."""
    import statsmodels.api as sm

    _, X, counts, model = network_fit(300, n_cells, n_bins)
    rows = np.asarray(X)
    kept = np.flatnonzero(np.isfinite(rows).all(axis=1))
    block = 10 * 20
    kinds = {
        "observed": {"cov_type": "nonrobust"},
        "robust": {"cov_type": "HC0"},
        "blocks": {
            "cov_type": "cluster",
            "cov_kwds": {"groups": kept // block, "use_correction": False},
        },
    }
    result = {}
    for kind, kwargs in kinds.items():
        ours = inference.uncertainty(model, X, counts, kind, block_size=block)
        worst = 0.0
        for j in range(n_cells):
            z = np.column_stack([rows[kept], np.ones(kept.size)])
            peer = sm.GLM(counts[kept, j], z, family=sm.families.Poisson())
            theirs = peer.fit(tol=1e-14, maxiter=100, **kwargs).bse
            if kind == "blocks":  # ours has the factor of a variance of as many blocks
                n_blocks = np.unique(kept // block).size
                theirs = theirs * np.sqrt(n_blocks / (n_blocks - 1))
            mine = np.append(ours.standard_errors[:, j], ours.intercept_standard_errors[j])
            worst = max(worst, float(np.abs(mine / theirs - 1).max()))
        result[kind] = worst
    return result


def objectives():
    """The least objective of every peer and penalty, minus ours."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    import test_peers as peers

    counts = np.random.default_rng(3).poisson(0.3, size=(800, 4))
    X = fastglm.basis.RaisedCosineLogConv(3, 12).compute_features(counts)
    rows, y = np.asarray(X)[12:], counts[12:, 0].astype(float)
    result = {}
    for peer, (solve, name) in peers.PEERS.items():
        kind, strength, terms = peers.PENALTIES[name]
        model = fastglm.PopulationGLM(regularizer=kind, regularizer_strength=strength)
        model.fit(X, counts)
        coef, intercept = solve(name, rows, y)
        theirs = peers.penalised(rows, y, coef, intercept, **terms)
        ours = peers.penalised(rows, y, model.coef_[:, 0], model.intercept_[0], **terms)
        result[peer] = {
            "theirs_minus_ours": float(theirs - ours),
            "zeros_differ": int(((model.coef_[:, 0] == 0) != (np.ravel(coef) == 0)).sum()),
            "decrement": float(model.newton_decrement_[0]),
        }
    return result


def truth():
    """`infer_connectivity` with its defaults where the links are known."""
    result, curves = {}, {}
    for name, (counts, adjacency) in known_networks():
        begin = time.perf_counter()
        found = fastglm.infer_connectivity(counts, bin_size=0.001)
        seconds = time.perf_counter() - begin
        off = ~np.eye(adjacency.shape[0], dtype=bool)
        none = off & (adjacency == 0)
        plain = correlogram_score(counts)
        row = {
            "n_cells": counts.shape[1],
            "n_bins": counts.shape[0],
            "seconds": seconds,
            "statuses": {str(s): int((found.model.status_ == s).sum())
                         for s in np.unique(found.model.status_)},
        }  # fmt: skip
        for sign, kind in ((1, "excitatory"), (-1, "inhibitory")):
            links = off & (sign * adjacency > 0)
            if links.any():
                row[kind] = {
                    "links": int(links.sum()),
                    "auc": auc(sign * found.strength, links, none),
                    "auc_correlogram": auc(sign * plain, links, none),
                }
                curves[f"{name}, {kind}"] = roc(sign * found.strength, links, none)
        row |= discoveries(found, adjacency)
        result[name] = row
        print(name, row, flush=True)
    figure, ax = plt.subplots(figsize=(5, 4), constrained_layout=True)
    for (name, (x, y)), color in zip(curves.items(), COLOURS, strict=False):
        ax.plot(x, y, label=name, color=color)
    ax.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 0.3))
    ax.legend(frameon=False, fontsize=8)
    save(figure, "truth")
    return result


def populations(seed=1):
    """Discoveries of `infer_connectivity` in populations most of whose inputs are not recorded."""
    result = {}
    for name, make in KINDS.items():
        population = make(seed)
        trains = dict(enumerate(population.spikes))
        found = fastglm.infer_connectivity(trains, epochs=[[0, population.seconds]])
        result[name] = {"n_cells": len(trains), **discoveries(found, population.adjacency)}
        print(name, result[name], flush=True)
    draw_populations(result)
    return result


def draw_populations(result):
    """False part and power against q, with the empirical null and without."""
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.4), constrained_layout=True)
    connected = [name for name, row in result.items() if row["links"]]
    for ax, what in zip(axes, ("false", "power"), strict=True):
        for name, color in zip(connected, COLOURS, strict=True):
            for null, style in (("empirical", "-"), ("zero", ":")):
                ax.plot(LEVELS, result[name][null][what], style, color=color,
                        label=name if style == "-" else None)  # fmt: skip
        ax.set(xlabel="q", ylim=(0, 1))
    axes[0].plot(LEVELS, LEVELS, color="0.7", lw=4, zorder=0)
    axes[0].set_ylabel("false among found")
    axes[1].set_ylabel("found among true")
    beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    axes[1].legend(frameon=False, fontsize=8, title="dotted: against zero", **beside)
    save(figure, "populations")


def discoveries(found, adjacency):
    """What was found at q = 0.05, and false parts and power over q, against both nulls."""
    off = ~np.eye(len(adjacency), dtype=bool)
    links, none = off & (adjacency != 0), off & (adjacency == 0)
    p = found.uncertainty.wald_test().p_value[: len(adjacency)]
    zero = inference.benjamini_hochberg(np.where(off, p, np.nan))
    row = {"links": int(links.sum()), "pairs": int(off.sum()), "null": found.null.name,
           "confounding": found.null.confounding}  # fmt: skip
    for name, q in (("empirical", found.q_value), ("zero", zero)):
        with np.errstate(invalid="ignore"):
            chosen = q <= 0.05
            some = [q <= level for level in LEVELS]
        row[name] = {
            "found": int(chosen.sum()),
            "false_found": int((chosen & none).sum()),
            "false": [float((s & none).sum() / max(s.sum(), 1)) for s in some],
            "power": [float((s & links).sum() / max(links.sum(), 1)) for s in some],
        }
    return row


def cost(n_cells=50, n_bins=100_000):
    """A lasso path and a cross-validation in units of one ridge fit, all to the same decrement."""
    case = simulated("cost", n_cells, n_bins, 1e-6)
    X, kwargs = case.X, {"solver_kwargs": {"tol": 1e-8}}
    ridge = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-6, **kwargs)
    lasso = fastglm.PopulationGLM(regularizer="Lasso", **kwargs)
    any_ridge = fastglm.PopulationGLM(regularizer="Ridge", **kwargs)
    timed(lambda: ridge.fit(X, case.counts))
    one = min(timed(lambda: ridge.fit(X, case.counts)) for _ in range(3))
    path = timed(lambda: model_selection.regularization_path(lasso, X, case.counts, 30))
    folds = timed(lambda: model_selection.cross_validate(any_ridge, X, case.counts, 10, 5))
    return {"seconds_ridge": one, "lasso_path": path / one, "cross_validation": folds / one}


SECTIONS = {
    "coverage": coverage,
    "discovery": discovery,
    "calibration": calibration,
    "errors": errors,
    "objectives": objectives,
    "truth": truth,
    "populations": populations,
    "cost": cost,
}


# --- what sections share ------------------------------------------------------------------------


def known_networks():
    """Name, and counts at 1 ms with the adjacency (row = sender)."""
    for name in ("spycon20_gt", "tspe100_gt"):
        path = DATA / f"{name}.npz"
        if not path.exists():
            print(f"{name}: no recording here, skipped")
            continue
        with np.load(path) as data:
            adjacency = data["adjacency"]
        counts, _ = fastglm.load_spikes(path).bin(0.001)
        yield name, (counts, adjacency)
    basis = fastglm.basis.RaisedCosineLogConv(8, 100)
    network = random_network(30, basis, random_key=5)
    yield "simulated", (network.simulate(1_200_000, 6, sparse=True), network.adjacency)


def correlogram_score(counts, lags=(2, 15)):
    """(j after i) minus (i after j) over some lags, over the root of the expected number."""
    columns = scipy.sparse.csc_array(counts).astype(float)
    n_bins, n = columns.shape
    score = np.zeros((n, n))
    for lag in range(lags[0], lags[1] + 1):
        score += (columns[:-lag].T @ columns[lag:]).toarray()
    total = columns.sum(axis=0)
    expected = np.outer(total, total) * (lags[1] - lags[0] + 1) / n_bins
    return (score - score.T) / np.sqrt(np.maximum(expected, 1))


def roc(score, positive, negative):
    cuts = np.concatenate([[np.inf], np.unique(score[positive])[::-1], [-np.inf]])
    return [np.array([(score[part] >= c).mean() for c in cuts]) for part in (negative, positive)]


def timed(function):
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function()
    return time.perf_counter() - begin


def save(figure, name):
    for ax in figure.axes:
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(OUT / f"validation-{name}.png", dpi=150)
    plt.close(figure)


# --- the page -----------------------------------------------------------------------------------

PAGE = """\
# Validation

This page compares fits with the truth, on networks whose couplings are known, and with other
packages. All fits are Poisson with the exponential link. `python benchmarks/validate.py --write`
makes the numbers, the figures and this page.

## Bands hold the truth

{coverage[networks]} random networks have {coverage[n_cells]} cells and {coverage[n_bins]:,} bins of
5 ms each, at 15 Hz. They are fitted all to all without a penalty, which gives {coverage[filters]:,}
filters between different cells.

| interval of 95 % | holds the truth |
| --- | --- |
| pointwise bands of the filters | at {coverage[bands_percent]:.2f} % of all lags, \
{coverage[bands_percent_worst_lag]:.2f} % at the worst lag |
| strengths of the couplings | in {coverage[strength_percent]:.2f} % of the filters |

![coverage over lags, and errors in units of the standard error](images/validation-coverage.png)

## False discoveries stay below q

{discovery[networks]} random networks have {discovery[n_cells]} cells and {discovery[n_bins]:,} bins
of 5 ms. Of the couplings with q at most 0.1, a part of {discovery[false_at_0.1]:.3f} (standard
error {discovery[standard_error]:.3f}) does not exist. Of the true couplings,
{discovery[power_at_0.1]:.2f} are found. The bars are two standard errors.

![false discoveries and power against q](images/validation-discovery.png)

## Tests are calibrated

The p-values are those of absent couplings, in {calibration[networks]} networks of
{calibration[n_cells]} cells and {calibration[n_bins]:,} bins that have other couplings. Wald and
likelihood-ratio tests belong to the fit of all couplings. Score tests belong to the fit of the true
ones. The grey area holds 95 % of uniform p-values, each by itself.

{tests}

![observed against expected p-values](images/validation-calibration.png)

A score test beside a fit that leaves true couplings out answers another question: whether a sender
helps to predict a receiver, be it through a third cell.

## Sparse cells

{sparse_networks} networks of {sparse_cells} independent cells have 20 to 20,000 events in
{sparse_minutes:.0f} minutes. They are fitted at 1 ms with the defaults of `fastglm.fit_coupling`, a
ridge among them, and every pair is tested by Wald's test. Under "sandwich alone" is what "robust"
would be without the model's part for sparse cells. `python benchmarks/sparse_cells.py --write`
makes the numbers and the figure.

{sparse}

![share of low p-values against events](images/validation-sparse.png)

A number is given for every pair. With the ridge "observed" is on the safe side, since it is the
posterior of couplings that the ridge expects to be small.

## Standard errors are those of statsmodels

The table has the largest relative difference over all coefficients and intercepts of a coupled fit.
"robust" is compared with `HC0`, and "blocks" with `cluster` times n / (n - 1) for n blocks.

{errors}

## Penalised optima are those of the peers

The table compares the mean objective at the peer's solution with that at ours. Both are computed by
separate code, and 1e-16 is rounding. It also counts the zeros that differ. Every fit of ours has a
certificate: the last column bounds its own gap.

{objectives}

## Known connectivity

`fastglm.infer_connectivity(counts, bin_size=0.001)` runs with its defaults, and the score of a pair
is the area of its filter. The table has the area under the ROC curve over ordered pairs, beside
that of a correlogram score. The correlogram score is the number of events of j 2 to 15 ms after
those of i, minus the reverse, over the root of their expected number.

The first two networks are not Poisson GLMs: they are spiking neurons, published with their
connectivity. Of the second network only 100 of 1,000 cells are observed. The last network is a GLM.

{truth}

![ROC curves](images/validation-truth.png)

"against zero" is what a Wald test of every filter finds. Unobserved cells move every filter a
little, and with enough data everything is significant. `infer_connectivity` tests against what the
bulk of all filters shows instead; the notes of `fastglm.connectivity.null` and
`fastglm.connectivity.scan` have the mathematics.
[The yardstick](yardstick.md) has other methods beside it.

## Populations most of whose inputs are not recorded

`benchmarks/populations.py` simulates them for 900 s: integrate-and-fire cells in balance (60 of
200 recorded), Izhikevich cells on a graph with hubs, a random graph and a small world (100 of
1,000; the last two with synapses half as strong again), coupled GLMs under hidden states, fast
input, drift and steps of their rates, and cells without any connection that share the same or
hidden sequences. `infer_connectivity` runs with its defaults at 1 ms. Confounding is the standard
deviation of what unobserved input does to a filter, over the median standard error. Most links are
missed where hidden hubs drive many cells. Hidden sequences leave some false couplings, and strong
synapses of unrecorded cells leave more than q says. The grey line of the figure is q.

{populations}

![false part and power against q](images/validation-populations.png)

## Cost

The unit is one fit with a ridge of 1e-6 to a decrement of 1e-8 ({cost[seconds_ridge]:.2f} s here),
for 50 cells, 100,000 bins and 400 features. All fits go to that decrement, for all receivers.

| what | units |
| --- | --- |
| a lasso path of 30 strengths, three to four passes for each strength of a receiver \
| {cost[lasso_path]:.1f} |
| a cross-validation of 10 ridge strengths in 5 folds | {cost[cross_validation]:.1f} |

Measured on {where}.
"""


def page(results):
    """The text with the numbers of all sections."""
    tests = table(
        ["test", "p-values", "KS statistic", "p of the KS test", "rejected at 5 %"],
        [
            [name, f"{t['n']:,}", f"{t['ks']:.4f}", f"{t['ks_p_value']:.2f}",
             f"{t['rejected_at_5_percent']:.1f} %"]
            for name, t in results["calibration"]["tests"].items()
        ],
    )  # fmt: skip
    errors = table(
        ["kind", "largest difference"], [[k, f"{v:.0e}"] for k, v in results["errors"].items()]
    )
    objectives = table(
        ["peer, penalty", "theirs - ours", "zeros that differ", "decrement"],
        [
            [name, f"{r['theirs_minus_ours']:.0e}", r["zeros_differ"], f"{r['decrement']:.0e}"]
            for name, r in results["objectives"].items()
        ],
    )
    rows = []
    for name, r in results["truth"].items():
        for kind in ("excitatory", "inhibitory"):
            if kind in r:
                k = r[kind]
                rows.append(
                    [name, r["n_cells"], f"{k['links']} {kind}", f"{k['auc']:.3f}",
                     f"{k['auc_correlogram']:.3f}", share_found(r, "empirical"),
                     share_found(r, "zero")]
                )  # fmt: skip
    head = ["network", "cells", "links", "area under ROC", "correlogram",
            "found at q = 0.05 (false)", "against zero"]  # fmt: skip
    unrecorded = [
        [name, r["n_cells"], r["links"], share_found(r, "empirical"), power(r, "empirical"),
         share_found(r, "zero"), power(r, "zero"), f"{r['confounding']:.2f}"]
        for name, r in results["populations"].items()
    ]  # fmt: skip
    head_of_unrecorded = ["population", "cells", "links", "found at q = 0.05 (false)",
                          "of the links", "against zero", "of the links",
                          "confounding"]  # fmt: skip
    m, sparse = results["machine"], json.loads((HERE / "sparse_cells.json").read_text())
    return PAGE.format(
        sparse=table_of_sparse(sparse),
        sparse_networks=sparse["networks"],
        sparse_cells=sparse["n_cells"],
        sparse_minutes=sparse["seconds"] / 60,
        **{
            k: v
            for k, v in results.items()
            if k in ("coverage", "discovery", "calibration", "cost")
        },
        tests=tests,
        errors=errors,
        objectives=objectives,
        truth=table(head, rows),
        populations=table(head_of_unrecorded, unrecorded),
        where=f"{m['processor']}, {m['threads']} threads",
    )


def share_found(row, null):
    """Number of discoveries, false ones in brackets."""
    return f"{row[null]['found']} ({row[null]['false_found']})"


def power(row, null):
    """Found part of the links at q = 0.05."""
    return f"{row[null]['power'][LEVELS.index(0.05)]:.2f}" if row["links"] else "-"


def table_of_sparse(result):
    """Pairs with p < 0.05, by the events of the sparser cell."""
    edges = result["edges"]
    groups = [f"{a:,} to {b:,}" for a, b in pairwise(edges[:-1])]
    head = ["pairs with p < 0.05, by events of the sparser cell", *groups, f"from {edges[-2]:,}"]
    rows = [
        [kind, *(f"{100 * share:.1f} %" for share in r["groups"])]
        for kind, r in result["kinds"].items()
    ]
    return table(head, [["pairs", *map(str, result["pairs"])], *rows])


def main():
    global OUT
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=SECTIONS)
    parser.add_argument("--out", type=Path, default=Path("."), help="for figures, without --write")
    parser.add_argument("--write", action="store_true", help="update the files in git")
    args = parser.parse_args()
    OUT = DOCS / "images" if args.write else args.out
    path = HERE / "validate.json"
    # Own histories of slow cells: their other coefficients are exact.
    warnings.filterwarnings("ignore", "separated", ConvergenceWarning)
    results = json.loads(path.read_text()) if path.exists() else {}
    results["machine"] = machine()
    for name in args.sections:
        begin = time.perf_counter()
        results[name] = SECTIONS[name]()
        print(f"{name} in {time.perf_counter() - begin:.0f} s", json.dumps(results[name], indent=1),
              flush=True)  # fmt: skip
        if args.write:
            path.write_text(json.dumps(results, indent=1) + "\n")
            if results.keys() >= SECTIONS.keys():
                (DOCS / "validation.md").write_text(page(results))


if __name__ == "__main__":
    main()
