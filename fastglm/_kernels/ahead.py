"""Kernels compiled ahead, in a process of their own, while this one compiles the first ones.

Numba's compiler holds one lock a process. When a process compiles its first kernel, another one is
started that compiles those that a fit and its map need last, and puts them into the same cache. On
two cores the first fit on a machine takes about half the time. Where both come to the same kernel,
both compile it, and nothing else happens: nobody waits for the other process, and all its errors
are lost.
"""

import multiprocessing
import os
import subprocess
import sys
import threading

OFF = "FASTGLM_COMPILE_AHEAD"  # "0" in the environment: no process is started

_KERNEL = "Tuple((float64[:, ::1], int64[:, ::1]))"
_PAIR = "UniTuple(int64, 2)"
_SENDERS = "Tuple((int32[::1], float64[::1], int64[::1]))"
_LATER = "Tuple((int32[::1], int32[::1], float64[::1]))"
_CHUNK = "int64, int64, int64, int64[::1]"
# Names and types, those that a Poisson fit in float64 needs last first, then those of its map.
# `tests/test_ahead.py` compares them with those of a fit.
KERNELS = (
    ("project_filters", "(float64[:, ::1], float64[:, ::1], int64, int64[::1], "
     "float64[:, :, :, ::1])"),
    ("history_forward", f"(int32[::1], int32[::1], float64[::1], float64[:, ::1], {_CHUNK}, "
     "float64[:, ::1])"),
    ("poisson_exp", "(float64[:, ::1], float64[:, ::1], float64[::1], float64[::1], boolean[::1], "
     f"{_CHUNK}, float64[:, :, :, ::1])"),
    ("history_backward", f"(int32[::1], int64[::1], float64[::1], float64[:, ::1], {_CHUNK}, "
     "float64[:, :, ::1])"),
    ("add_rows", f"(float64[:, ::1], int64[::1], float64[:, ::1], {_PAIR}, float64[:, :, ::1])"),
    ("add_pairs", f"({_SENDERS}, {_KERNEL}, {_LATER}, {_KERNEL}, boolean[:, ::1], float64[:, ::1], "
     f"{_PAIR}, {_PAIR}, float64[:, :, ::1])"),
    ("add_crossed", f"({_SENDERS}, {_KERNEL}, float64[:, ::1], int64[::1], float64[:, ::1], "
     f"{_PAIR}, int64, float64[:, :, ::1])"),
)  # fmt: skip


def compile_ahead() -> None:
    """Compile the kernels, or read them from the cache."""
    from fastglm import _kernels

    for name, types in KERNELS:
        getattr(_kernels, name).compile(arguments(types))


def arguments(types: str) -> tuple:
    """Types as those of a call, which the cache knows a kernel by."""
    from numba.core.sigutils import normalize_signature

    return normalize_signature(types)[0]


def start() -> None:
    """Start the other process, where there is a second core for it."""
    if os.environ.get(OFF) == "0" or _n_cores() < 2 or not _is_plain():
        return
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        "from fastglm._kernels.ahead import compile_ahead; compile_ahead()"
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
