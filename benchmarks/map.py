"""The map of many cells on made-up filters: time and memory of a pair.

    python benchmarks/map.py 300 [--seed 0] [--check FILE] [--short]
    python benchmarks/map.py 2000 --receivers 24 [--seconds 100] [--budget 2GB] [--write]

The filters, their covariances and a small share of synapses are drawn; no recording is fitted. A
receiver has a template of the information of a filter, scaled by the rates of sender and receiver,
and a ridge. What unobserved input does is added with a size for each cell. Then the map and its
empirical null are made as by `coupling_map`. Printed are the time of the steps, the bytes that the
standard errors of a fit hold before the map begins, and the peak of the process beyond them, beside
the formula of ``docs/engine.md``. ``--check`` keeps the numbers of the map in a file, or compares
them with the file if there is one. ``--short`` ends the search for the bulk after a few steps. Its
memory is that of the whole search, and its time and its null are not.

With ``--receivers`` nothing is made up: so many receivers are fitted to a recording of all senders,
and their map is made. Printed are the seconds of a receiver, on the clock and of the processor, the
part of them that inverses take, and the peak of the process beyond what it held after the fit,
beside the formula. ``--write`` keeps them in ``map.json``.
"""

import argparse
import json
import resource
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

BIN, WINDOW, K = 0.001, 100, 8
SHARE, CONFOUNDING = 0.003, 0.3  # of synapses; standard deviation, in standard errors
SECONDS, RIDGE = 3600.0, 1e-6
SAMPLE, FIXED = 200_000, 70e6  # pairs that the bulk is fitted to; bytes of what threads work on


def formula(n, k):
    """Bytes of the map of n x n pairs beyond the standard errors; see ``docs/engine.md``."""
    return n * n * (24 * k + 215) + 16 * k * k * min(n * n, SAMPLE) + FIXED


def status(name):
    """A number of bytes that Linux knows of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"{name} is not in /proc/self/status; this benchmark needs Linux.")


def made_up(n, seed):
    """A fit as the map sees it, its standard errors, the kernel and the true synapses."""
    from fastglm.basis import RaisedCosineLogConv
    from fastglm.connectivity.synapse import shapes
    from fastglm.inference import Uncertainty
    from fastglm.observation_models import PoissonExp

    rng = np.random.default_rng(seed)
    kernel = RaisedCosineLogConv(K, WINDOW).kernel_
    rate = np.exp(rng.normal(np.log(5.0), 0.8, size=n))
    gram = kernel.T @ kernel
    templates = [
        (0.7 * gram + 0.3 * np.diag(np.diag(gram))) * np.outer(w, w)
        for w in np.exp(0.2 * rng.normal(size=(4, K)))
    ]
    templates = np.stack(templates)[rng.integers(4, size=n)]
    root = 0.5 * np.linalg.cholesky(0.7 * np.ones((K, K)) + 0.3 * np.eye(K))
    typical = np.sqrt(np.diag(np.linalg.inv(templates[0] * SECONDS * 25.0 * BIN)))
    root = CONFOUNDING * typical[:, None] * root
    size = np.exp(0.2 * rng.normal(size=(2, n)))
    _, synapse = shapes(kernel, BIN, 0.006)
    coef, errors = np.empty((n * K, n)), np.empty((n * K, n))
    covariance, true = [], np.zeros((n, n), bool)
    n_bins = SECONDS / BIN
    prior = RIDGE * n_bins * np.eye(K)
    for i in range(n):
        information = templates * (SECONDS * BIN * rate[i] * rate)[:, None, None]
        v = np.linalg.inv(information + prior)
        v = 0.5 * (v + v.transpose(0, 2, 1))
        noise = np.linalg.cholesky(np.linalg.inv(information)) @ rng.normal(size=(n, K, 1))
        c = noise[:, :, 0] + (size[0, i] * size[1])[:, None] * (rng.normal(size=(n, K)) @ root.T)
        linked = rng.random(n) < SHARE
        linked[i] = False
        sign = rng.choice([-1.0, 1.0, 1.0], size=linked.sum())
        at = rng.integers(1, 6, size=linked.sum())
        c[linked] += (sign * rng.uniform(0.2, 1.5, linked.sum()))[:, None] * synapse[at]
        c = (v @ information @ c[:, :, None])[:, :, 0]
        own = slice(i * K, i * K + K)
        coef[own], errors[own] = c.T, np.sqrt(np.diagonal(v, axis1=1, axis2=2)).T
        covariance.append(v)
        true[i] = linked
    filters = np.repeat(np.arange(n), K)
    explained = np.full(n, 1e3)
    u = Uncertainty(coef, errors, np.ones(n), "observed", filters, covariance, explained=explained)
    penalty = SimpleNamespace(
        ridge=RIDGE, matrix=None, strength=np.ones(n), sparse=np.zeros(n, bool)
    )
    fit = SimpleNamespace(
        coef=coef, penalty=penalty, total=np.full(n, n_bins), precision=np.ones(n), model=None,
        loss=PoissonExp(), mean_count=rate * BIN, regularizer="Ridge",
    )  # fmt: skip
    return fit, u, kernel, true


def watched():
    """Times of the steps of the null, which fill as they are done."""
    from fastglm.connectivity import couplings, empirical

    times = {}

    def watch(module, name):
        plain = getattr(module, name)

        def timed(*given):
            begin = time.process_time()
            try:
                return plain(*given)
            finally:
                times[name] = times.get(name, 0.0) + time.process_time() - begin

        setattr(module, name, timed)

    watch(couplings, "read_filters")
    watch(empirical, "fit_bulk")
    watch(empirical, "scans")
    return times


def measure(n, seed, null="empirical", warm=False):
    from fastglm.connectivity.couplings import _judged, _summarise

    fit, u, kernel, true = made_up(n, seed)
    cells = np.arange(n)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    begin = time.perf_counter(), time.process_time()
    found = _summarise(fit, u, kernel, 0, True, cells, cells)
    middle = time.perf_counter()
    steps = watched()
    found = _judged(found, fit, null, BIN)
    wall, busy = time.perf_counter() - begin[0], time.process_time() - begin[1]
    if warm:
        return None
    peak = status("VmHWM") - before
    pairs, mb = n * (n - 1), 1e6
    held = n * n * 8 * K * (K + 2)
    significant = found.significant()
    false = int((significant & ~true).sum())
    print(found.null.sentence)
    print(
        f"{n} cells, {pairs:,} pairs, {true.sum():,} synapses: {significant.sum():,} found, "
        f"{false:,} false"
    )
    print(
        f"map {middle - begin[0]:.1f} s, null {wall - middle + begin[0]:.1f} s "
        f"(of the processor: {', '.join(f'{name} {t:.1f} s' for name, t in steps.items())}); "
        f"{1e6 * wall / pairs:.0f} us a pair ({1e6 * busy / pairs:.0f} us of the processor)"
    )
    print(
        f"standard errors {held / mb:.0f} MB; map and null {peak / mb:.0f} MB beyond them "
        f"({peak / pairs:.0f} bytes a pair), by the formula {formula(n, K) / mb:.0f} MB"
    )
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"peak of the process {most / mb:.0f} MB")
    return found


def compare(found, path):
    """Keep a map's numbers, or print how far they are from those that were kept."""
    names = "strength", "standard_error", "peak", "p_value", "q_value", "z", "delay"
    if not path.exists():
        np.savez(path, **{name: getattr(found, name) for name in names})
        return
    kept = np.load(path)
    for name in names:
        one, other = getattr(found, name), kept[name]
        known = np.isfinite(other)
        apart = np.abs(one - other)[known] / np.maximum(np.abs(other[known]), 1e-300)
        same = np.array_equal(one, other, equal_nan=True)
        print(f"{name}: {'same bits' if same else f'{apart.max():.1e} apart at most'}")


def errors_formula(n_features, n_events, receivers, n_threads):
    """Bytes of standard errors at a time; see ``docs/engine.md``."""
    from fastglm import _information
    from fastglm._products.event_gram import lanes_of, triangle_bytes

    lanes = lanes_of(n_features)
    tile = triangle_bytes(n_features, lanes)
    tiles = min(max(_information.MATRIX_BYTES // tile, 1), 4, -(-receivers // lanes))
    at_once = min(n_threads, receivers, lanes * tiles)
    rest = (4096 + 2048 * n_threads) * n_features + 44 * n_events + FIXED
    return tile * tiles + 8 * (n_features + 1) ** 2 * at_once + rest


def fired(n, n_bins, rng):
    """`Events` of cells that fire on their own, at 7 Hz on average, and their rates per bin."""
    from fastglm.features import Events

    rate = BIN * np.exp(rng.normal(np.log(5.0), 0.8, size=n))
    bins = [np.unique(rng.integers(n_bins, size=rng.poisson(r * n_bins))) for r in rate]
    units = np.repeat(np.arange(n), [len(own) for own in bins])
    bins = np.concatenate(bins)
    order = np.lexsort((units, bins))
    bins, units = bins[order].astype(np.int32), units[order].astype(np.int32)
    return Events(bins, units, np.ones(bins.size), (n_bins, n))


def measure_receivers(n, receivers, seconds, budget):
    """Time and memory of the map of some receivers of a recording of n senders."""
    import numba

    import fastglm
    from fastglm import inference

    events = fired(n, int(seconds / BIN), np.random.default_rng(0))
    X = fastglm.basis.RaisedCosineLogConv(K, WINDOW).compute_features(events)
    model = fastglm.PopulationGLM(
        regularizer="Ridge", regularizer_strength=1e-4, solver_kwargs={"tol": 1e-6},
        memory_budget=budget,
    )  # fmt: skip
    begin = time.perf_counter()
    y = events.select(np.arange(receivers))
    model.fit(X, y)
    fitted = time.perf_counter() - begin
    plain, inverses = inference._fill, [0.0, 0.0]

    def fill(*given):
        clocks = time.perf_counter(), time.process_time()
        plain(*given)
        inverses[0] += time.perf_counter() - clocks[0]
        inverses[1] += time.process_time() - clocks[1]

    inference._fill = fill
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    clocks = time.perf_counter(), time.process_time()
    found = model.coupling_map(X, y, null="empirical", bin_size=BIN)
    wall, busy = time.perf_counter() - clocks[0], time.process_time() - clocks[1]
    peak, per, n_threads = status("VmHWM") - before, 1 / receivers, numba.get_num_threads()
    result = {
        "senders": n,
        "receivers": receivers,
        "bins": events.n_bins,
        "features": X.shape[1],
        "threads": n_threads,
        "fit_seconds_a_receiver": fitted * per,
        "seconds_a_receiver": wall * per,
        "processor_a_receiver": busy * per,
        "inverse_processor_a_receiver": inverses[1] * per,
        "bytes_before": before,
        "bytes_of_the_map": peak,
        "bytes_by_the_formula": errors_formula(X.shape[1], events.n_events, receivers, n_threads),
        "finite": bool(np.isfinite(found.standard_error[:, 0]).any()),
    }
    print(json.dumps(result, indent=1))
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", type=Path)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--receivers", type=int)
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--budget", default="2GB", help="memory of the fit of receivers")
    parser.add_argument(
        "--write", action="store_true", help="keep the run of receivers in map.json"
    )
    given = parser.parse_args()
    if given.short:
        from fastglm.connectivity import null as searched

        searched._ROUNDS, searched._STEPS, searched._UPDATES = 1, 3, 1
    if given.receivers:
        result = measure_receivers(given.cells, given.receivers, given.seconds, given.budget)
        if given.write:
            path = Path(__file__).with_name("map.json")
            results = json.loads(path.read_text()) if path.exists() else []
            kept = [r for r in results if r["senders"] != given.cells]
            results = sorted([*kept, result], key=lambda r: r["senders"])
            path.write_text(json.dumps(results, indent=1) + "\n")
    else:
        measure(20, 1, warm=True)
        result = measure(given.cells, given.seed)
        if given.check:
            compare(result, given.check)
