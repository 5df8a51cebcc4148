"""Columns that are the history of senders, weighted by a kernel."""

from __future__ import annotations

import numpy as np

from fastglm import _kernels as kernels
from fastglm.features.events import Events

_ROUNDING = 1e-12  # kernel entries above -1e-12 count as not negative
_NEGLIGIBLE = 1e-6  # kernel entries below 1e-6 of the peak count as zero


class HistoryColumns:
    """Causal history of every sender, weighted by a temporal kernel.

    Column ``i * n_funcs + b`` is ``sum_l kernel[l, b] * counts[t + shift - 1 - l, i]``.

    Parameters
    ----------
    counts : ndarray of shape (n_bins, n_senders), or Events
        Finite. Only the entries that are not zero are kept, in two orders: 32 bytes an event.
    kernel : ndarray of shape (window_size, n_funcs)
        Row 0 weighs lag 1.
    shift : int
        Number of bins by which the window is moved into the future; 0 is strictly causal.
    label : str
    complete : ndarray of bool, shape (n_bins,), optional
        Bins whose whole window lies inside one epoch. Default: all bins.
    missing : ndarray of int, shape (n_missing, 2), optional
        Bin and sender of every unknown count (NaN in the input).
    """

    may_be_nan = False  # `rows` gives numbers where `mark` writes NaN
    inputs = None  # names of the senders, if they have names

    def __init__(
        self,
        counts: np.ndarray | Events,
        kernel: np.ndarray,
        shift: int = 0,
        label: str = "history",
        complete: np.ndarray | None = None,
        missing: np.ndarray | None = None,
    ) -> None:
        self.kernel = np.ascontiguousarray(kernel, dtype=np.float64)
        events = counts if isinstance(counts, Events) else Events.of(counts)
        self._set_events(events.shift(-shift))
        self.label = label
        self.complete = np.ones(events.n_bins, bool) if complete is None else complete
        self.missing = missing
        self.shift = shift

    def _set_events(self, events):
        self._events, self.n_bins = events, events.n_bins
        order, self.starts = events.by_unit
        self.bins_by_sender = events.bins[order]
        self.amplitudes_by_sender = events.amplitudes[order]
        del events.by_unit  # 4 bytes an event; not used again

    @property
    def events(self) -> Events:
        """The events sorted by bin."""
        if self._events is None:
            order = np.argsort(self.bins_by_sender, kind="stable")
            units = np.repeat(np.arange(self.n_senders, dtype=np.int32), np.diff(self.starts))
            self._events = Events(
                self.bins_by_sender[order],
                units[order],
                self.amplitudes_by_sender[order],
                (self.n_bins, self.n_senders),
            )
        return self._events

    def is_of(self, events: Events) -> bool:
        """Whether the senders are these units, by all counts that are known."""
        own = self.events.shift(self.shift)
        same = (own.n_bins, own.n_units) == (events.n_bins, events.n_units)
        return same and events.matches(own)

    @property
    def n_senders(self) -> int:
        """Number of senders."""
        return self.starts.size - 1

    @property
    def lags(self) -> int:
        """Bins of history that a row sees."""
        return self.kernel.shape[0]

    taken = None  # centring takes nothing off

    def centred(self) -> tuple:
        """The block, whose columns are never far from zero, and zeros."""
        return self, np.zeros(self.n_columns)

    def describe(self) -> str:
        """A description of the columns in words."""
        return (
            f"history of {self.n_senders:,} cells over {self.lags:,} bins, {self.n_funcs} "
            "functions each"
        )

    @property
    def n_funcs(self) -> int:
        """Number of basis functions."""
        return self.kernel.shape[1]

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return self.n_senders * self.n_funcs

    @property
    def n_events(self) -> int:
        """Number of counts that are not zero."""
        return self.bins_by_sender.size

    def arrays(self) -> list[np.ndarray]:
        """The arrays that determine the columns."""
        events = self.events
        return [self.kernel, events.bins, events.units, events.amplitudes]

    @property
    def valid(self) -> np.ndarray:
        """Rows whose window lies inside one epoch and holds no missing count."""
        valid = self.complete
        if self.missing is not None:
            valid = valid.copy()
            for seen, _ in self._missing_rows():
                valid[seen] = False
        return valid

    @property
    def reach(self) -> tuple[int, int]:
        """Bins before a row and bins after it whose counts the row depends on."""
        return max(self.kernel.shape[0] - self.shift, 0), max(self.shift - 1, 0)

    @property
    def epochs(self) -> np.ndarray:
        """First bin and one past the last of each epoch with a complete bin, (n_epochs, 2)."""
        # A stretch of complete bins is an epoch without the rows that see beyond it.
        edges = np.flatnonzero(np.diff(self.complete.astype(np.int8), prepend=0, append=0))
        before, after = self.reach
        return edges.reshape(-1, 2) + [-before, after]

    def _missing_rows(self):
        """For each missing count, the slice of rows whose window holds it, and its sender."""
        window_size = self.kernel.shape[0]
        for t, sender in self.missing:
            first = t + 1 - self.shift
            yield slice(max(first, 0), max(first + window_size, 0)), sender

    def mark(self, index: np.ndarray, out: np.ndarray) -> None:
        """Write NaN where the rows at the ascending bins ``index`` are not known."""
        out[~self.complete[index]] = np.nan
        if self.missing is not None:
            for seen, sender in self._missing_rows():
                inside = slice(*np.searchsorted(index, [seen.start, seen.stop]))
                out[inside, sender * self.n_funcs : (sender + 1) * self.n_funcs] = np.nan

    @property
    def nonnegative(self) -> np.ndarray:
        """For each column, whether it can never be negative."""
        positive_sender = np.ones(self.n_senders, bool)
        positive_sender[self.events.units[self.events.amplitudes < 0]] = False
        return np.outer(positive_sender, (self.kernel >= -_ROUNDING).all(axis=0)).ravel()

    def smallest_positive(self) -> np.ndarray:
        """For each column, a lower bound of its values above zero."""
        amplitude = np.full(self.n_senders, np.inf)
        np.minimum.at(amplitude, self.events.units, self.events.amplitudes)
        floor = _NEGLIGIBLE * self.kernel.max(axis=0)
        positive = np.where(self.kernel > floor, self.kernel, np.inf).min(axis=0)
        return np.outer(amplitude, positive).ravel()

    def rows(self, index: np.ndarray, out: np.ndarray) -> None:
        """Write the rows at the ascending bins ``index`` into ``out``."""
        kernels.launch(
            kernels.history_rows,
            self.events.bins,
            self.events.units,
            self.events.amplitudes,
            self.kernel,
            index,
            out,
        )

    def select(self, columns: np.ndarray) -> tuple[HistoryColumns, np.ndarray]:
        """The block with only the senders that have a column in the boolean array ``columns``.

        Returns the block and the numbers of its columns in this block.
        """
        senders = np.flatnonzero(columns.reshape(self.n_senders, self.n_funcs).any(1))
        block = object.__new__(HistoryColumns)
        block.__dict__.update(self.__dict__, missing=None, _events=None)
        sizes = np.diff(self.starts)[senders]
        block.starts = np.concatenate([[0], np.cumsum(sizes)])
        # The order by bin is made on demand: a product for one receiver does not need it.
        parts = [slice(self.starts[i], self.starts[i + 1]) for i in senders]
        for name in ("bins_by_sender", "amplitudes_by_sender"):
            values = getattr(self, name)
            setattr(block, name, np.concatenate([values[:0], *(values[part] for part in parts)]))
        index = senders[:, None] * self.n_funcs + np.arange(self.n_funcs)
        return block, index.ravel()
