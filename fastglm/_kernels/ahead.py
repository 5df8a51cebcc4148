"""Kernels compiled ahead, in a process of their own, while this one compiles the first ones.

Numba's compiler holds one lock a process. When a process compiles its first kernel, another one is
started that compiles those that a fit and its map need last, and puts them into the same cache.
`infer_connectivity` starts it before the first kernel. On two cores the first fit on a machine
takes about half the time. Where both come to the same kernel, both compile it, and nothing else
happens: nobody waits for the other process, and all its errors are lost.
"""

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

OFF = "FASTGLM_COMPILE_AHEAD"  # "0" in the environment: no process is started
_started = False

_KERNEL = "Tuple((float64[:, ::1], int64[:, ::1]))"
_PAIR = "UniTuple(int64, 2)"
_SENDERS = "Tuple((int32[::1], float64[::1], int64[::1]))"
_LATER = "Tuple((int32[::1], int32[::1], float64[::1]))"
_ROWS = "int64, int64, int64"
_LANES = "UniTuple(int64, 8)"  # as long as `pairs.PAIR_LANES`
# Names and types; `tests/test_ahead.py` compares them with those of a fit.


def _pass_over_bins(dtype):
    """The kernels of a pass with Poisson counts, in their order."""
    rows, line = f"{dtype}[:, ::1]", f"{dtype}[::1]"
    runs = f"{rows}, int64[::1], int64[::1]"
    return {
        "project_filters": f"(float64[:, ::1], float64[:, ::1], int64, {dtype}[:, :, ::1])",
        "history_forward": f"(int32[::1], int32[::1], {line}, {line}, int64, {_ROWS}, {line})",
        "runs_forward": f"({runs}, {line}, int64, int64, {line})",
        "poisson_exp": f"({line}, {line}, {line}, {line}, boolean[::1], {_ROWS}, "
        "float64[:, :, ::1])",
        "history_backward": f"(int32[::1], int64[::1], {line}, {line}, int64, int64, int64, "
        "float64[:, ::1])",
        "runs_backward": f"({runs}, {line}, int64, int64, {rows})",
    }


_COARSE, _PRECISE = _pass_over_bins("float32"), _pass_over_bins("float64")
_MAP = {
    "multiply_rows": f"(float64[:, ::1], float64[::1], int64, int64, {_LANES}, float64[:, ::1])",
    "add_sender_pairs": f"(int64, {_SENDERS}, {_KERNEL}, {_LATER}, {_KERNEL}, boolean[:, ::1], "
    f"float64[:, ::1], {_PAIR}, {_PAIR}, {_LANES}, float64[:, :, ::1])",
    "add_sender_crossed": f"(int64, int64, {_SENDERS}, {_KERNEL}, float64[:, ::1], int64[::1], "
    f"float64[:, ::1], {_PAIR}, int64, {_LANES}, float64[:, :, ::1])",
}
_NULL = {
    "add_filters": "(float64[:, ::1], float64[:, :, ::1], float64[::1], float64[:, ::1], "
    "Tuple((float64[:, ::1], float64[::1], float64[::1], float64)), int64, int64, "
    "Tuple((float64[::1], float64[:, ::1], float64[::1], float64[::1], float64[:, ::1])))",
}
# What a fit in float64 needs, which follows one in float32, then what its map needs.
FIT = tuple((k, v) for k, v in (_PRECISE | _MAP).items() if not k.startswith("runs"))
# What `infer_connectivity` needs, the last first: the processes meet in the middle.
RECIPE = tuple(item for part in (_NULL, _MAP, _PRECISE, _COARSE) for item in reversed(part.items()))


def compile_ahead(kernels: str) -> None:
    """Compile the kernels of a list, or read them from the cache."""
    from fastglm import _kernels

    for name, types in globals()[kernels]:
        getattr(_kernels, name).compile(arguments(types))


def arguments(types: str) -> tuple:
    """Types as those of a call, which the cache knows a kernel by."""
    from numba.core.sigutils import normalize_signature

    return normalize_signature(types)[0]


def prepare(kernels: str) -> None:
    """Start the other process before the first kernel, if the cache lacks the one needed last."""
    from fastglm import _kernels

    name, _ = globals()[kernels][0]
    stats = getattr(getattr(_kernels, name), "stats", None)  # nothing without the compiler
    folder = getattr(stats, "cache_path", None)  # nothing without a cache
    if folder and not any(Path(folder).glob(f"*.{name}-*.nbi")):
        start(kernels)


def start(kernels: str = "FIT") -> None:
    """Start the other process, once, where there is a second core for it."""
    global _started
    if _started or os.environ.get(OFF) == "0" or _n_cores() < 2 or not _is_plain():
        return
    _started = True
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"from fastglm._kernels.ahead import compile_ahead; compile_ahead({kernels!r})"
    )
    nothing = subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code],
            stdin=nothing, stdout=nothing, stderr=nothing, env={**os.environ, OFF: "0"},
        )  # fmt: skip
    except (OSError, ValueError):
        return  # this process compiles all
    threading.Thread(target=process.wait, daemon=True).start()


def _n_cores():
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _is_plain():
    """Whether this is no worker of another process, and Python itself, not a frozen program."""
    is_python = os.path.basename(sys.executable or "").startswith("python")
    return is_python and multiprocessing.parent_process() is None
