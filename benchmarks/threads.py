"""Where the time of a fit goes: threads busy, threads waiting, one thread alone.

    python benchmarks/threads.py [--cells 100] [--bins 1e6] [--threads 1 2] [--write]

The fits with each number of threads alternate, so that other work on the machine meets all of them,
and the fastest of each counts. ``alone`` is the time in which no work is shared, ``busy`` the time
of all threads with shared work, and ``waiting`` what they spend until the last of them has done its
part. Times of ``alone`` and ``busy`` are those of the processor. A sampler looks at the calling
thread every 2 ms and says what it does alone. ``--write`` keeps the numbers in ``threads.json`` and
draws ``docs/images/threads.png``.
"""

import argparse
import collections
import json
import sys
import threading
import time
from pathlib import Path

import numba
import numpy as np
from run import machine

import fastglm
from fastglm._kernels import threads

HERE = Path(__file__).resolve().parent
RATE, WINDOW, N_FUNCS, TOL = 0.008, 100, 8, 1e-8  # events a bin of 1 ms; bins
MANY = 16  # threads for which the share of one thread alone gives a bound


class Account:
    """The time of one fit, by what the threads do."""

    def __init__(self):
        self.shared = self.busy = self.inside = self.waiting = 0.0
        self.places = collections.Counter()

    def observe(self, function, wall, busy):
        """After work on several threads; the calling thread is one of them."""
        self.shared += wall
        self.busy += sum(busy)
        self.waiting += len(busy) * wall - sum(busy)

    def sample(self, thread, stop):
        """Time in the functions of fastglm that a thread is in while it shares no work.

        A call that holds the interpreter's lock ends before it is seen: all the time since the last
        look counts.
        """
        own, now = str(Path(fastglm.__file__).parent), time.perf_counter()
        while not stop.wait(0.002):
            before, now = now, time.perf_counter()
            frame, place, shares = sys._current_frames().get(thread), None, False
            while frame is not None:
                code = frame.f_code
                shares |= code.co_name == "take_part" or "concurrent" in code.co_filename
                helper = code.co_filename.endswith("dots.py")  # its caller says more
                if place is None and code.co_filename.startswith(own) and not helper:
                    place = f"{Path(code.co_filename).stem}.{code.co_qualname}"
                frame = frame.f_back
            if place is not None and not shares:
                self.places[place] += now - before


def account(fit, n_threads):
    """Seconds of a fit on some threads, by what they do."""
    numba.set_num_threads(n_threads)
    found, stop = Account(), threading.Event()
    sampler = threading.Thread(target=found.sample, args=(threading.get_ident(), stop))
    threads.observer = found.observe
    sampler.start()
    begin, used = time.perf_counter(), time.process_time()
    try:
        model = fit()
    finally:
        seconds, used = time.perf_counter() - begin, time.process_time() - used
        threads.observer = None
        stop.set()
        sampler.join()
    total = max(sum(found.places.values()), 1)
    alone = seconds - found.shared
    return {
        "threads": n_threads,
        "seconds": seconds,
        "processor": used,
        "alone": alone,
        "busy": found.busy,
        "waiting": found.waiting,
        "places": {name: alone * n / total for name, n in found.places.most_common(12)},
        "passes": int(model.n_passes_.max()),
        "converged": int(model.converged_.sum()),
        "decrement": float(model.newton_decrement_.max()),
    }


def draw(rows, path):
    """A bar for each number of threads, of their seconds together: full use keeps its length."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(7, 0.9 + 0.55 * len(rows)), constrained_layout=True)
    colours = {"busy": "#0072B2", "waiting": "#E69F00", "alone": "#D55E00", "idle": "0.85"}
    labels = {
        "busy": "threads busy",
        "waiting": "waiting for the last thread",
        "alone": "one thread alone",
        "idle": "the others meanwhile",
    }
    for k, row in enumerate(rows):
        n, left = row["threads"], 0.0
        parts = {
            "busy": row["busy"] if n > 1 else 0.0,
            "waiting": row["waiting"],
            "alone": row["alone"],
            "idle": (n - 1) * row["alone"],
        }
        for name, value in parts.items():
            label = labels[name] if k == 0 else None
            ax.barh(k, value, left=left, color=colours[name], label=label)
            left += value
        ax.text(left, k, f"  {row['seconds']:.1f} s", va="center", fontsize=9)
    names = ["1 thread" if row["threads"] == 1 else f"{row['threads']} threads" for row in rows]
    ax.set_yticks(range(len(rows)), names)
    ax.invert_yaxis()
    ax.set_xlabel("threads x seconds")
    ax.set_xlim(0, 1.12 * max(row["threads"] * row["seconds"] for row in rows))
    ax.legend(frameon=False, fontsize=8, ncol=2, loc="upper center", bbox_to_anchor=(0.5, -0.35))
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100)
    parser.add_argument("--bins", type=float, default=1e6)
    parser.add_argument("--ridge", type=float, default=1e-5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, numba.get_num_threads()])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    table = np.zeros((int(options.bins), options.cells), np.uint8)
    for block in np.array_split(table, 100):
        block[:] = rng.random(block.shape, np.float32) < RATE
    counts = fastglm.features.Events.of(table)
    X = fastglm.basis.RaisedCosineLogConv(N_FUNCS, WINDOW).compute_features(counts)

    def fit():
        model = fastglm.PopulationGLM(
            regularizer="Ridge", regularizer_strength=options.ridge, solver_kwargs={"tol": TOL}
        )
        return model.fit(X, counts, progress=False)

    short = fastglm.features.Events.of(table[:20_000])
    warm = fastglm.basis.RaisedCosineLogConv(N_FUNCS, WINDOW).compute_features(short)
    fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3).fit(warm, short)
    best = {}
    for _ in range(options.repeats):
        for n_threads in options.threads:
            row = account(fit, n_threads)
            if n_threads not in best or row["seconds"] < best[n_threads]["seconds"]:
                best[n_threads] = row
    rows = [best[n] for n in options.threads]
    one = rows[0]["seconds"]
    for row in rows:
        n = row["threads"]
        share = row["alone"] / one if n > 1 else 1.0
        row["faster"], row["share_alone"] = one / row["seconds"], share
        row["bound"] = 1 / (share + (1 - share) / MANY)
        print(
            f"{n:2d} threads: {row['seconds']:6.2f} s, {row['faster']:.2f} times as fast as one; "
            f"alone {row['alone']:.2f} s ({100 * share:.1f} % of the time of one), "
            f"busy {row['busy']:.2f}, waiting {row['waiting']:.2f}; {row['converged']} converged "
            f"in {row['passes']} passes, decrement {row['decrement']:.1e}; at most "
            f"{row['bound']:.1f} times on {MANY} threads"
        )
        for name, seconds in row["places"].items() if n > 1 else ():
            print(f"      {seconds:7.3f} s alone in {name}")
    if options.write:
        found = {"machine": machine(), "cells": options.cells, "bins": options.bins, "rows": rows}
        (HERE / "threads.json").write_text(json.dumps(found, indent=1) + "\n")
        draw(rows, HERE.parent / "docs" / "images" / "threads.png")


if __name__ == "__main__":
    main()
