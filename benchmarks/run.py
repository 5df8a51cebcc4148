"""Fit every case with every implementation; write ``results.json`` and the table of the README.

    python benchmarks/run.py [--cases page tiny small medium locust placecells] [--write]

Times are ratios within one run: fastglm's is 1. The gap is the mean objective minus the lowest
that any implementation reached for the same receivers, relative to it.
"""

import argparse
import importlib.util
import json
import platform
import warnings
from importlib.metadata import version
from pathlib import Path

import numba
import numpy as np
from cases import CASES, IMPLEMENTATIONS, run

import fastglm

HERE = Path(__file__).resolve().parent
_MODULES = {
    "scikit-learn newton-cholesky": "sklearn",
    "glum": "glum",
    "NeMoS LBFGS float64": "nemos",
}
_TOO_LONG = {("medium", "glum")}  # hours


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=["page", "tiny"], choices=CASES)
    parser.add_argument("--write", action="store_true", help="update the files in git")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    results = {"machine": machine(), "cases": {}}
    for name in args.cases:
        try:
            case = CASES[name]()
        except FileNotFoundError:
            print(f"{name}: no recordings here, skipped")
            continue
        results["cases"][name] = measure(name, case)
    text = to_markdown(results)
    print(text)
    if args.write:
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        replace_section("table", text)


def replace_section(name, text):
    """Put a text between the marks of that name in the README."""
    readme = HERE / "README.md"
    before, rest = readme.read_text().split(f"<!-- {name} -->\n")
    _, after = rest.split(f"<!-- end of {name} -->")
    readme.write_text(f"{before}<!-- {name} -->\n{text}\n<!-- end of {name} -->{after}")


def table(head, rows):
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def made_by(script, machine, more=""):
    """The line below a table: who made it, on what, and whatever else there is to say."""
    made = ", ".join(f"{name} {value}" for name, value in machine.items())
    return f"\n\nMade by `{script}` on {made}{more}."


def machine(*more):
    """The processor, and the versions of what is measured."""
    packages = ["numpy", "scipy", "numba", "scikit-learn", "glum", "nemos", "jax", *more]
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except Exception:
            versions[package] = "absent"
    processor = platform.processor() or platform.machine()
    if platform.system() == "Linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    return {
        "processor": processor,
        "threads": numba.get_num_threads(),
        "python": platform.python_version(),
        "fastglm": fastglm.__version__,
        **versions,
    }


def measure(name, case):
    rows = {}
    for implementation in IMPLEMENTATIONS:
        module = _MODULES.get(implementation)
        if module is not None and importlib.util.find_spec(module) is None:
            continue
        if (name, implementation) in _TOO_LONG:
            continue
        rows[implementation] = run(case, implementation)
        print(name, implementation, f"{rows[implementation]['seconds']:.3g} s", flush=True)
    for row in rows.values():
        n = row["receivers"]
        best = np.min([r["objective"][:n] for r in rows.values() if r["receivers"] >= n], axis=0)
        row["gap"] = float(np.max(row["objective"] - best))
        row["mean_objective"] = float(np.mean(row["objective"]))
    base = rows["fastglm"]["seconds"]
    return {
        "n_bins": case.counts.shape[0],
        "n_cells": case.counts.shape[1],
        "n_features": case.X.shape[1],
        "ridge": case.ridge,
        "rows": {
            key: {
                "seconds": row["seconds"],
                "times_fastglm": row["seconds"] / base,
                "gap": row["gap"],
                "gradient": float(row["gradient"]),
                "peak_mb": row["peak"] / 1e6,
                "receivers_timed": row["receivers"],
            }
            for key, row in rows.items()
        },
    }


def to_markdown(results):
    head = ["case", "implementation", "time / fastglm", "fastglm's seconds",
            "largest gap in the objective", "largest gradient", "peak memory (MB)"]  # fmt: skip
    rows = []
    for name, case in results["cases"].items():
        title = (
            f"{name}: {case['n_bins']:,} bins, {case['n_cells']} cells, "
            f"{case['n_features']} features, ridge {case['ridge']:g}"
        )
        for implementation, row in case["rows"].items():
            own = f"{row['seconds']:.3g}" if implementation == "fastglm" else ""
            note = (
                ""
                if row["receivers_timed"] == case["n_cells"]
                else f" ({row['receivers_timed']} receivers timed)"
            )
            rows.append(
                [title, f"{implementation}{note}", f"{row['times_fastglm']:.3g}", own,
                 f"{row['gap']:.1e}", f"{row['gradient']:.1e}", f"{row['peak_mb']:.3g}"]
            )  # fmt: skip
            title = ""
    return table(head, rows) + made_by("run.py", results["machine"])


if __name__ == "__main__":
    main()
