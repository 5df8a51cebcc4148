"""Bars that appear by themselves where somebody waits for more than two seconds.

Somebody waits in a terminal and in a notebook. Elsewhere, in a pipe, a test or a batch job, no bar
is drawn, and the log ("fastglm.progress", level INFO) has a line a minute. A bar is drawn by a
thread of its own, so that it moves while a kernel is compiled.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

from fastglm._kernels.compiler import COMPILING, compilations

_AFTER, _EVERY = 2.0, 0.5  # seconds before a bar appears, and between its looks
_LINE_EVERY = 60.0  # seconds between lines of the log, where no bar is drawn
_FORM = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
_FORM_OF_UNKNOWN = "{desc}: {elapsed}{postfix}"
_log = logging.getLogger("fastglm.progress")
_open = threading.Lock()  # held by the bar that is on show: one inside another is not shown


class Progress:
    """How far something is that may take long; a context.

    Parameters
    ----------
    what : str
        What is done, such as "fitting".
    total : float, optional
        Number of steps, if it is known.
    show : bool, optional
        True draws a bar at once, False none. By default it appears after two seconds, if somebody
        waits and no other bar is there, and vanishes at the end.
    """

    def __init__(self, what: str, total: float | None = None, show: bool | None = None):
        self.what, self.total, self.n, self.text = what, total, 0.0, ""
        self._always, self._bar, self._ended = show is True, None, threading.Event()
        self._begun = time.monotonic()
        self._next = self._begun + _LINE_EVERY if show is None and not somebody_waits() else inf
        self._mine = (show is True or (show is None and somebody_waits())) and _open.acquire(False)
        self._thread = None
        if self._always and self._mine:
            self._begin()
        if self._mine:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    @property
    def shown(self) -> bool:
        """Whether there is a bar, or will be one."""
        return bool(self._mine)

    def to(self, n: float, text: str = "") -> None:
        """Say that n steps are done, and a text."""
        self.n, self.text = max(self.n, n), text
        self._tell()

    def add(self, n: float = 1.0) -> None:
        """Say that n more steps are done."""
        self.n += n
        self._tell()

    def close(self) -> None:
        """End the bar."""
        if not self._mine or self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        if self._bar is not None:
            self._look()
            self._bar.close()
        _open.release()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _tell(self):
        """A line of the log, if it is due."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _LINE_EVERY
            part = "" if self.total is None else f" {100 * min(self.n / self.total, 1):.0f} %,"
            text = f", {self.text}" if self.text else ""
            _log.info("%s:%s after %.0f s%s", self.what, part, now - self._begun, text)

    def _begin(self):
        self._bar = import_tqdm()(
            total=self.total,
            desc=self.what,
            leave=self._always,
            bar_format=_FORM_OF_UNKNOWN if self.total is None else _FORM,
        )

    def _run(self):
        if self._bar is None:
            if self._ended.wait(_AFTER):
                return
            self._begin()
            self._bar.start_t -= _AFTER
        self._look()
        while not self._ended.wait(_EVERY):
            self._look()

    def _look(self):
        self._bar.n = self.n if self.total is None else min(self.n, self.total)
        busy = compilations.running and not self._ended.is_set()
        self._bar.set_postfix_str(COMPILING if busy else self.text)


@contextmanager
def quiet() -> Iterator[None]:
    """Context in which no bar is drawn, but for one that is open."""
    mine = _open.acquire(False)
    try:
        yield
    finally:
        if mine:
            _open.release()


def somebody_waits() -> bool:
    """Whether standard error is a terminal, or the code runs in a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if "IPKernelApp" in getattr(shell, "config", ()):
        return True
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # no standard error, or a closed one
        return False


def import_tqdm() -> type:
    """``tqdm.auto.tqdm``: a widget in notebooks that have ipywidgets, else text.

    The warning of tqdm about missing ipywidgets is silenced, since the text works as well.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        from tqdm.auto import tqdm
    return tqdm
