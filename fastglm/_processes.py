"""Processes of this machine as an executor in which a process that ends costs one job."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context, parent_process


class Processes:
    """An executor of new processes; a context.

    Each is a pool of one process. So a process that ends costs the job that it had and no other,
    and the job is known. An interrupt ends them all.
    """

    def __init__(self, number: int):
        self._own, self._pools, self._ids = threading.local(), [], []
        self._threads = ThreadPoolExecutor(number)

    def submit(self, function: Callable, *args: object) -> Future:
        """A job, which runs in one of the processes."""
        return self._threads.submit(self._run, function, args)

    def _run(self, function, args):
        if getattr(self._own, "pool", None) is None:
            self._own.pool = ProcessPoolExecutor(1, get_context("spawn"), _begin)
            self._pools.append(self._own.pool)
            self._ids.append(self._own.pool.submit(os.getpid).result())
        try:
            return self._own.pool.submit(function, *args).result()
        except BrokenExecutor:
            self._own.pool = None
            raise

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        if kind is not None:
            for number in self._ids:
                with suppress(OSError):  # it has ended
                    os.kill(number, signal.SIGTERM)
        self._threads.shutdown()
        for pool in self._pools:
            pool.shutdown()


def _begin():
    """In a new process: interrupts are for the one that started it, and it ends with that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent_process(),), daemon=True).start()


def _end_with(parent):
    parent.join()
    os._exit(1)
