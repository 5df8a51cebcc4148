"""fastglm on a processor beside NeMoS on a GPU of the same machine.

    python benchmarks/gpu.py [--sizes 50x100000 100x1000000] [--iterations 100 400 1600] [--write]

What is timed favours NeMoS: its features are made and lie on the GPU, and the fit that is timed is
the second of two alike, so that nothing compiles. fastglm's time goes from counts to certificate.
All objectives are computed in float64 from the same features. Writes ``gpu.json`` and the table of
the README; without a GPU it stops and says so.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numba
import numpy as np
from cases import nemos_model, simulated
from run import machine, made_by, replace_section, table
from scale import RIDGE, TOL, best, fit, report

HERE = Path(__file__).resolve().parent
ROWS = 50_000  # of a block of features: 0.3 GB at 800 features


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["50x100000", "100x1000000"])
    parser.add_argument("--iterations", nargs="+", type=int, default=[100, 400, 1600])
    parser.add_argument("--write", action="store_true", help="update gpu.json and the README")
    args = parser.parse_args()
    device = jax.devices()[0]
    if device.platform != "gpu":
        parser.exit(1, f"JAX sees no GPU here, only {device}\n")
    results = {"machine": machine() | {"gpu": device.device_kind}, "sizes": {}}
    for size in args.sizes:
        n_cells, n_bins = map(int, size.split("x"))
        case = simulated(size, n_cells, n_bins, RIDGE)
        rows = results["sizes"][size] = {}
        for name, row in compare(case, args.iterations):
            rows[name] = row
            print(size, name, row, flush=True)
            if args.write:  # a run that is cut off leaves what it has
                (HERE / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
    text = to_markdown(results)
    print(text)
    if args.write:
        replace_section("gpu", text)


def compare(case, iterations):
    """Name, seconds and gap of fastglm on 1, 2, 4, ... threads, then of NeMoS."""
    exact, _ = fit(case, 1e-16)
    jax.config.update("jax_enable_x64", True)
    X = on_device(case)
    y = jnp.asarray(case.counts[case.X.valid], float)
    least = objective(X, y, exact.coef_, exact.intercept_, case.ridge)

    def gap(coef, intercept):
        return float((objective(X, y, coef, intercept, case.ridge) - least).mean())

    most = numba.get_num_threads()
    for n_threads in sorted({min(2**k, most) for k in range(most.bit_length() + 1)}):
        numba.set_num_threads(n_threads)
        model, seconds = best(case)
        left = gap(model.coef_, model.intercept_)
        yield f"fastglm, {n_threads} threads", {**report(model, seconds), "gap": left}
    for dtype in ("float64", "float32"):
        for maxiter in iterations:
            jax.config.update("jax_enable_x64", dtype == "float64")
            coef, intercept, seconds = fit_nemos(X.astype(dtype), y.astype(dtype), case, maxiter)
            jax.config.update("jax_enable_x64", True)
            row = {"seconds": seconds, "gap": gap(coef, intercept)}
            yield f"NeMoS {dtype}, {maxiter} iterations", row


def on_device(case):
    """The features of valid bins in float64, on the GPU."""
    valid = np.flatnonzero(case.X.valid)
    blocks = np.array_split(valid, -(-valid.size // ROWS))
    return jnp.concatenate([jnp.asarray(case.X.rows(block)) for block in blocks])


def objective(X, y, coef, intercept, ridge):
    """Mean objective of each receiver in float64."""
    coef, intercept = jnp.asarray(coef, float), jnp.asarray(intercept, float)
    total = 0.0
    for start in range(0, X.shape[0], ROWS):
        eta = X[start : start + ROWS] @ coef + intercept
        total = total + (jnp.exp(eta) - y[start : start + ROWS] * eta).sum(axis=0)
    return np.asarray(total / X.shape[0] + 0.5 * ridge * (coef**2).sum(axis=0))


def fit_nemos(X, y, case, maxiter):
    """LBFGS; seconds of the second of two fits."""
    for _ in range(2):
        model = nemos_model(case.ridge, maxiter)
        begin = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(X, y)
        coef = np.asarray(model.coef_, float)  # waits for the device
        seconds = time.perf_counter() - begin
    return coef, np.asarray(model.intercept_, float), seconds


def to_markdown(results):
    head = ["cells x bins", "implementation", "seconds", "mean gap in the objective"]
    rows = []
    for size, result in results["sizes"].items():
        for name, row in result.items():
            gap = "not computed" if row["gap"] is None else f"{row['gap']:.1e}"  # cut off
            rows.append([size, name, f"{row['seconds']:.3g}", gap])
            size = ""
    more = f"; fastglm to a decrement of {TOL:g}"
    return table(head, rows) + made_by("gpu.py", results["machine"], more)


if __name__ == "__main__":
    main()
