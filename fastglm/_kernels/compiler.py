"""Numba's decorator with a cache that may fail.

Numba keeps compiled kernels in a folder beside the source, else in the user's home. Where neither
can be written, an ordinary ``njit(cache=True)`` raises at import, and a disk that is full raises in
the first call. Here kernels are then compiled in every process, and one warning says so.
"""

import logging
import warnings

import numba
from numba.core import event

from fastglm._kernels import ahead

COMPILING = "compiling kernels, on this machine's first use only"
_told = False  # one warning in a process


def njit(*, cache, **options):
    """``numba.njit``; without a place for its cache it compiles without one.

    No kernel is called from C: an entry for that would be a twelfth of the compilation.
    """
    options["no_cfunc_wrapper"] = True

    def decorate(function):
        try:
            kernel = numba.njit(cache=cache, **options)(function)
        except (RuntimeError, OSError) as error:
            _tell(error)
            return numba.njit(**options)(function)
        if hasattr(kernel, "_cache"):  # without the compiler it is the function itself
            kernel._cache = _Tolerant(kernel._cache)
        return kernel

    return decorate


class _Tolerant:
    """A cache of Numba whose reading and writing may fail."""

    def __init__(self, cache):
        self._cache = cache

    def load_overload(self, sig, target_context):
        try:
            return self._cache.load_overload(sig, target_context)
        except Exception as error:  # a damaged file raises whatever its bytes make pickle do
            _tell(error)
            return None

    def save_overload(self, sig, data):
        try:
            self._cache.save_overload(sig, data)
        except Exception as error:  # the index is read before it is written
            _tell(error)

    def __getattr__(self, name):
        return getattr(self._cache, name)


class _Compilations(event.Listener):
    """Counts the kernels of fastglm that are being compiled.

    The first one is written to the log, and starts the process that compiles others ahead.
    """

    def __init__(self):
        self.running, self.begun = 0, 0

    def on_start(self, event):
        if self._is_ours(event):
            self.running, self.begun = self.running + 1, self.begun + 1
            if self.begun == 1:
                logging.getLogger("fastglm").info(COMPILING)
                if not _told:  # without a cache the other process would work in vain
                    ahead.start()

    def on_end(self, event):
        self.running -= self._is_ours(event)

    def _is_ours(self, event):
        function = getattr(event.data["dispatcher"], "py_func", None)
        return str(getattr(function, "__module__", "")).startswith("fastglm.")


compilations = _Compilations()
event.register("numba:compile", compilations)


def _tell(error):
    global _told
    if not _told:
        _told = True
        warnings.warn(
            f"Numba's cache of compiled kernels cannot be used ({error}): every process compiles "
            "them anew, which takes half a minute. Set NUMBA_CACHE_DIR to a folder that can be "
            "written?",
            UserWarning,
            stacklevel=3,
        )
