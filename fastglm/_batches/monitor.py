"""Progress bar, log and checkpoint of a fit that is running."""

import logging
import threading
import time
import warnings
from collections.abc import Callable

import numpy as np

from fastglm import _html
from fastglm._files import one_line
from fastglm._progress import Progress

_SAVE_EVERY = 20.0  # least seconds between checkpoints inside a batch
_SAVE_PART = 20  # least pause between them, in durations of the last one
logger = logging.getLogger("fastglm")


class Monitor:
    """Reports progress and saves results while receivers are fitted.

    Parameters
    ----------
    result : Result
        Result of all receivers; it is filled as batches end.
    tol : float
    progress : None, bool or callable
        True draws a bar, False none; by default it appears by itself, see `Progress`. A callable
        gets the number of receivers done since its last call; the
        thread that fits them calls it.
    checkpoint : Checkpoint or None
    log : str
        First word of the lines of the log; without it there are no lines.
    """

    def __init__(self, result, tol: float, progress=None, checkpoint=None, log: str = ""):
        self.result, self.tol, self.checkpoint = result, tol, checkpoint
        self._log, self._done = log, np.zeros(result.status.shape, bool)
        self.lock, self.stopped = threading.RLock(), False
        self._unsaved, self._cost = False, 0.0  # seconds of the last whole checkpoint
        self._told_loss = False
        self._saved = self._began = self._begun = time.monotonic()
        if checkpoint is not None:
            self._try(checkpoint.check)
        self._report, self._told = (progress if callable(progress) else None), 0
        show = False if callable(progress) else progress
        self._bar = Progress("fitting", result.intercept.size, show)

    def watch(self, receivers: np.ndarray, columns) -> Callable:
        """A function to call after every pass with the result of a batch so far.

        Any thread may call it. It raises KeyboardInterrupt after `stop`.
        """

        def watch(solved):
            if self.stopped:
                raise KeyboardInterrupt
            with self.lock:
                self._tell(receivers, columns, solved)

        return watch

    def _tell(self, receivers: np.ndarray, columns, solved) -> None:
        """Report the progress of a batch, and save its result if a checkpoint is due."""
        logs = bool(self._log) and logger.isEnabledFor(logging.DEBUG)
        if not (logs or self._report or self._bar.shown or self.checkpoint is not None):
            return  # nobody listens
        running = solved.status == ""
        passes = int(solved.n_passes.max(initial=0))
        # Decrements fall by about the same factor with every pass, so the part of a fit that is
        # done grows with their logarithm.
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.log10(solved.newton_decrement / 1e-2) / np.log10(self.tol / 1e-2)
        # Far from the optimum the decrement is no guide: a fit takes some eight passes.
        part = np.clip(np.nan_to_num(part), passes / (passes + 8), 0.95)
        if logs:
            known = solved.newton_decrement[running & np.isfinite(solved.newton_decrement)]
            gap = f", largest decrement {known.max():.1e}" if known.size else ""
            logger.debug(
                "%s: pass %d, %d of %d receivers go on%s",
                self._log, passes, running.sum(), running.size, gap,
            )  # fmt: skip
        self._show(int((~running).sum()), float(part[running].sum()), passes)
        pause = max(_SAVE_EVERY, _SAVE_PART * self._cost)
        if self.checkpoint is not None and time.monotonic() - self._saved > pause:
            self.result.put(receivers, solved, columns)
            self.result.status[receivers] = ""  # other steps may follow those that are watched
            self._save()

    def stop(self) -> None:
        """Make every watching function end its fit."""
        self.stopped = True

    def end(self, receivers: np.ndarray) -> None:
        """Save and report receivers whose results have been stored."""
        if self.checkpoint is not None and len(receivers):
            self._unsaved = True  # an interrupt leaves it so
            self._unsaved = not self._try(self.checkpoint.add, receivers, self.result)
        self._done[receivers] = True  # an interrupt may bring them twice
        if self._log and len(receivers) and logger.isEnabledFor(logging.INFO):
            now, some = time.monotonic(), self.result.status[receivers]
            logger.info(
                "%s: %d of %d receivers, %d now in %.3g s: %s",
                self._log, self._done.sum(), self._done.size, len(receivers),
                now - self._begun, _html.tally(some),
            )  # fmt: skip
            self._begun = now
        self._show(0, 0.0, int(self.result.n_passes.max(initial=0)))

    def _save(self) -> None:
        """Save all receivers."""
        begin = time.monotonic()
        if self._try(self.checkpoint.save, self.result):
            self._unsaved = False
        self._saved = time.monotonic()
        self._cost = self._saved - begin

    def _try(self, write: Callable, *arguments) -> bool:
        """Write a checkpoint; a failure is a warning, once, and the fit goes on."""
        try:
            write(*arguments)
        except (OSError, ValueError) as error:
            if not self._told_loss:
                self._told_loss = True
                warnings.warn(
                    f"The checkpoint {self.checkpoint.path} could not be written "
                    f"({one_line(error)}). The fit goes on, and keeps in memory what it has "
                    "finished.",
                    UserWarning,
                    stacklevel=2,
                )
            return False
        return True

    def _show(self, n_more: int, part: float, passes: int) -> None:
        n = int(self._done.sum()) + n_more
        if self._report is not None:
            new = n - self._told
            if new > 0:
                self._told = n  # first: an interrupt may end the call
                try:
                    self._report(new)
                except KeyboardInterrupt:  # a search whose last receiver is done does not see it
                    self.stop()
                    raise
        self._bar.to(n + part, f"{n} of {self._bar.total} receivers, pass {passes}")

    def flush(self) -> None:
        """Save results that are not saved yet."""
        if self._unsaved:
            self._save()

    def tell_shared(self, seconds: float, total: float, workers) -> None:
        """Write to the log what part of a fit all its batches share, for some workers."""
        if not self._log:
            return
        n, written = workers.n_workers, ""
        if workers.n_bytes:
            written = f", {_html.size(workers.n_bytes)} written once for them"
        logger.info(
            "%s: parts that all batches share took %.3g of %.3g s (%.0f %%); %s workers%s",
            self._log, seconds, total, 100 * seconds / max(total, 1e-9),
            "unknown number of" if n is None else n, written,
        )  # fmt: skip

    def close(self) -> None:
        """End the bar, save results that are not saved yet, and write a last line to the log."""
        self.flush()
        self._bar.close()
        if self._log:
            logger.info(
                "%s: ended after %.3g s: %r", self._log, time.monotonic() - self._began, self.result
            )
