"""Do two checkouts compute the same? Every fit of `fits`, bit by bit.

    python benchmarks/same_bits.py OLD NEW [--close] [--fresh] [--fits NAME ...]

OLD and NEW are folders that hold the package ``fastglm``. Each runs in a process of its own, with
this interpreter and the ``fits.py`` beside this file; the checkouts' own benchmarks are not read.

The table has a row for each fit and a column for each array: "same", or the largest absolute and
relative difference. The exit status is 1 if any array differs. With ``--close``, for a change of
arithmetic, a fit passes if its statuses are the same, its passes are within one, and its objective
is within 1e-13 relative (`CLOSE_OF` for two fits that end before an optimum). The other differences
are printed only.

Numba does not notice a change to a helper in another file. ``--fresh`` gives both checkouts empty
caches of compiled kernels, which takes a minute or two more for each.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
NAMES = ("coef", "intercept", "status", "n_passes", "n_iter", "objective", "scores")
CLOSE = 1e-13  # relative, of an objective
# Fits that end before the optimum, where the objective depends on the last point. Another
# processor changes the first by 6e-12, and a separated receiver, whose optimum is at infinity,
# by 1e-12.
CLOSE_OF = {"loose_tolerance": 1e-10, "separated_and_silent_cg": 1e-11}


def run(checkout, file, fits, cache=None):
    """Results of the fits with the package in a checkout.

    A process that compiles kernels is followed by one that does not; see `fits`.
    """
    checkout = Path(checkout).resolve()
    before = os.environ.get("PYTHONPATH")
    paths = [str(checkout), *([before] if before else [])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(HERE / "fits.py"), str(file)]
    if fits:
        command += ["--fits", *fits]
    if cache is not None:
        env["NUMBA_CACHE_DIR"] = str(cache)
    for _ in range(2):
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
        line = done.stdout.splitlines()[-1]
        print(line, flush=True)
        package, _, summary = line.rpartition(": ")
        if Path(package) != checkout / "fastglm":
            sys.exit(f"The fits of {checkout} ran with {package}; is fastglm/ in that folder?")
        if not summary.endswith("compiled"):
            break
    return load(file)


def load(file):
    """Read what `fits.save` has written: ``{fit: {name: array}}``."""
    fits = {}
    with np.load(file) as arrays:
        for key in arrays.files:
            fit, name = key.split("/")
            fits.setdefault(fit, {})[name] = arrays[key]
    return fits


def same(old, new):
    """Whether two arrays have the same bits, shape and dtype; NaN and the sign of 0 included."""
    if old is None or new is None:
        return old is new
    return (old.dtype, old.shape, old.tobytes()) == (new.dtype, new.shape, new.tobytes())


def difference(old, new):
    """Largest absolute and relative difference of two arrays; NaN where only one is NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.abs(new - old, dtype=float)
        gap[(old == new) | (np.isnan(old) & np.isnan(new))] = 0
        relative = np.where(gap == 0, 0, gap / np.maximum(np.abs(old), np.abs(new)))
    return gap.max(initial=0), relative.max(initial=0)


def describe(old, new):
    """A cell of the table."""
    if same(old, new):
        return "-" if old is None else "same"
    if old is None or new is None:
        return f"only in {'new' if old is None else 'old'}"
    if old.shape != new.shape:
        return f"{old.shape} {new.shape}".replace(", ", ",")
    if old.dtype.kind == "U":
        return f"{(old != new).sum()} differ"
    if old.dtype != new.dtype:
        return f"{old.dtype} {new.dtype}"
    if old.dtype.kind == "i":
        return f"{int(np.abs(new - old).max()):d}"
    return "{:.1e} {:.1e}".format(*difference(old, new))


def close(name, old, new):
    """Whether the results of a fit differ by no more than the order of sums explains."""
    allowed = CLOSE_OF.get(name, CLOSE)
    arrays = ("status", "n_passes", "objective")
    if any(describe(old.get(a), new.get(a)).startswith(("only", "(")) for a in arrays):
        return False
    return (
        (old["status"] == new["status"]).all()
        and np.abs(old["n_passes"] - new["n_passes"]).max(initial=0) <= 1
        and difference(old["objective"], new["objective"])[1] <= allowed
    )


def row(first, cells):
    """A line of the table."""
    return f"{first:<24}" + "".join(f" {cell:<16}" for cell in cells).rstrip()


def compare(old, new, allow=None):
    """Print the table; give the names of the fits that differ.

    Parameters
    ----------
    old, new : dict
        From `load`.
    allow : callable, optional
        Of a name and the results of that fit in both: whether it passes although bits differ.
    """
    print(row("fit", NAMES))
    failed = []
    for name in dict.fromkeys([*old, *new]):
        ours, theirs = old.get(name, {}), new.get(name, {})
        cells = [describe(ours.get(array), theirs.get(array)) for array in NAMES]
        fine = all(same(ours.get(a), theirs.get(a)) for a in {*ours, *theirs})
        if not fine and not (allow and allow(name, ours, theirs)):
            failed.append(name)
        print(row(name, cells))
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("new", type=Path, metavar="NEW")
    parser.add_argument("--close", action="store_true", help="allow another order of sums")
    parser.add_argument("--fresh", action="store_true", help="compile all kernels anew")
    parser.add_argument("--fits", nargs="+", metavar="NAME", help="only these")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        old, new = (
            run(
                checkout,
                Path(folder) / f"{k}.npz",
                args.fits,
                Path(folder) / f"cache{k}" if args.fresh else None,
            )
            for k, checkout in enumerate((args.old, args.new))
        )
    failed = compare(old, new, close if args.close else None)
    wanted = "close" if args.close else "the same"
    if failed:
        sys.exit(f"{len(failed)} of {len(old)} fits are not {wanted}: {', '.join(failed)}")
    print(f"All {len(old)} fits are {wanted}.")


if __name__ == "__main__":
    main()
