"""Columns that are the history of senders, weighted by a kernel."""

from __future__ import annotations

import numpy as np

from fastglm import _kernels as kernels
from fastglm._kernels.threads import cut, run_kernels
from fastglm.features.events import Events
from fastglm.features.ranges import end_to_end, offsets, runs_of

_ROUNDING = 1e-12  # kernel entries above -1e-12 count as not negative
_NEGLIGIBLE = 1e-6  # kernel entries below 1e-6 of the peak count as zero


class History:
    """Causal history of every sender, weighted by a temporal kernel.

    Column ``i * n_funcs + b`` is ``sum_l kernel[l, b] * counts[t + shift - 1 - l, i]``. The classes
    below differ in what they keep of the counts.

    Parameters
    ----------
    kernel : ndarray of shape (window_size, n_funcs)
        Row 0 weighs lag 1.
    n_bins : int
    shift : int
        Number of bins by which the window is moved into the future; 0 is strictly causal.
    label : str
    complete : ndarray of bool, shape (n_bins,), optional
        Bins whose whole window lies inside one epoch. Default: all bins.
    """

    may_be_nan = False  # `rows` gives numbers where `mark` writes NaN
    inputs = None  # names of the senders, if they have names
    taken = None  # what centring took off each column

    def __init__(
        self,
        kernel: np.ndarray,
        n_bins: int,
        shift: int = 0,
        label: str = "history",
        complete: np.ndarray | None = None,
    ) -> None:
        self.kernel = np.ascontiguousarray(kernel, dtype=np.float64)
        self.n_bins, self.shift, self.label = n_bins, shift, label
        self.complete = np.ones(n_bins, bool) if complete is None else complete

    @property
    def lags(self) -> int:
        """Bins of history that a row sees."""
        return self.kernel.shape[0]

    @property
    def n_funcs(self) -> int:
        """Number of basis functions."""
        return self.kernel.shape[1]

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return self.n_senders * self.n_funcs

    def describe(self) -> str:
        """A description of the columns in words."""
        return (
            f"history of {self.n_senders:,} cells over {self.lags:,} bins, {self.n_funcs} "
            "functions each"
        )

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

    def pick(self, columns: np.ndarray) -> list[History]:
        """Blocks with the given columns, in the given order, side by side."""
        return [self._pick(*run) for run in runs_of(columns, self.n_funcs)]

    def _signs(self, positive_sender):
        """For each column, whether it can never be negative, from what is known of each sender."""
        return np.outer(positive_sender, (self.kernel >= -_ROUNDING).all(axis=0)).ravel()

    def _least(self, amplitude):
        """A lower bound of each column above zero, from that of each sender."""
        floor = _NEGLIGIBLE * self.kernel.max(axis=0)
        positive = np.where(self.kernel > floor, self.kernel, np.inf).min(axis=0)
        return np.outer(amplitude, positive).ravel()


class HistoryColumns(History):
    """History of senders that are 0 in most bins, such as spikes: it keeps the other bins.

    Parameters
    ----------
    counts : ndarray of shape (n_bins, n_senders), or Events
        Finite. Only the entries that are not zero are kept, in two orders: 28 bytes an event.
    kernel, shift, label, complete
        As in `History`.
    missing : ndarray of int, shape (n_missing, 2), optional
        Bin and sender of every unknown count (NaN in the input).
    """

    def __init__(
        self,
        counts: np.ndarray | Events,
        kernel: np.ndarray,
        shift: int = 0,
        label: str = "history",
        complete: np.ndarray | None = None,
        missing: np.ndarray | None = None,
    ) -> None:
        events = counts if isinstance(counts, Events) else Events.of(counts)
        super().__init__(kernel, events.n_bins, shift, label, complete)
        self._set_events(events.shift(-shift))
        self.missing = missing

    def _set_events(self, events):
        self._events = events
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

    @property
    def n_senders(self) -> int:
        """Number of senders."""
        return self.starts.size - 1

    def by_events(self) -> HistoryColumns:
        """The block itself; see `TraceColumns.by_events`."""
        return self

    def centred(self) -> tuple:
        """The block, whose columns are never far from zero, and zeros."""
        return self, np.zeros(self.n_columns)

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
        return self._signs(positive_sender)

    def smallest_positive(self) -> np.ndarray:
        """For each column, a lower bound of its values above zero."""
        amplitude = np.full(self.n_senders, np.inf)
        np.minimum.at(amplitude, self.events.units, self.events.amplitudes)
        return self._least(amplitude)

    def rows(self, index: np.ndarray, out: np.ndarray) -> None:
        """Write the rows at the ascending bins ``index`` into ``out``."""
        events = self.events

        def build(piece):
            some = slice(*piece)
            own = events.bins, events.units, events.amplitudes, self.kernel
            kernels.history_rows(*own, index[some], out[some])

        run_kernels(build, cut(index.size), out.size)

    def is_history_of(self, counts: Events, bins: np.ndarray | None = None) -> bool:
        """Whether the senders are the cells of some counts, where both are known.

        ``bins`` are those of the counts, by default all.
        """
        own = self.events.shift(self.shift)
        own = own if bins is None else own.at(bins)
        return own.shape == counts.shape and counts.matches(own)

    def own_of(self, counts: Events, bins: np.ndarray | None = None) -> np.ndarray:
        """Which sender each cell of some counts is, booleans of shape (n_senders, n_cells).

        A sender is the cell whose known events are at the same places; a cell without events is
        none. ``bins`` are those of the counts, by default all.
        """
        found = np.zeros((self.n_senders, counts.n_units), dtype=bool)
        own = self.events.shift(self.shift)
        own = own if bins is None else own.at(bins)
        if own.n_bins != counts.n_bins:
            return found
        trains = own.trains()
        sizes = np.array([train.size for train in trains])
        for j, train in enumerate(counts.take(~np.isnan(counts.amplitudes)).trains()):
            same = np.flatnonzero(sizes == train.size) if train.size else ()
            i = next((i for i in same if np.array_equal(trains[i], train)), None)
            if i is not None:
                found[i, j] = True
        return found

    def select(self, columns: np.ndarray) -> tuple[HistoryColumns, np.ndarray]:
        """The block with only the senders that have a column in the boolean array ``columns``.

        Returns the block and the numbers of its columns in this block.
        """
        senders = np.flatnonzero(columns.reshape(self.n_senders, self.n_funcs).any(1))
        index = senders[:, None] * self.n_funcs + np.arange(self.n_funcs)
        return self._of_senders(senders), index.ravel()

    def _of_senders(self, senders):
        """The block of some senders, in the given order, which forgets what is missing."""
        block = object.__new__(HistoryColumns)
        block.__dict__.update(self.__dict__, missing=None, _events=None)
        sizes = np.diff(self.starts)[senders]
        block.starts = np.concatenate([[0], np.cumsum(sizes)])
        # The order by bin is made on demand: a product for one receiver does not need it.
        parts = [slice(self.starts[i], self.starts[i + 1]) for i in senders]
        for name in ("bins_by_sender", "amplitudes_by_sender"):
            values = getattr(self, name)
            setattr(block, name, np.concatenate([values[:0], *(values[part] for part in parts)]))
        return block

    def _pick(self, senders, funcs):
        if np.array_equal(senders, np.arange(self.n_senders)):
            block = object.__new__(HistoryColumns)
            block.__dict__.update(self.__dict__)
        else:
            block = self._of_senders(senders)
            if self.missing is not None:
                place = np.full(self.n_senders, -1)
                place[senders] = np.arange(senders.size)
                bins, units = self.missing.T
                block.missing = np.column_stack([bins, place[units]])[place[units] >= 0]
            if self.inputs is not None:
                block.inputs = self.inputs.take(senders)
        block.kernel = np.ascontiguousarray(self.kernel[:, funcs])
        return block

    def cut(self, ranges: np.ndarray) -> HistoryColumns:
        """The columns over some ranges of bins, put end to end, without the events elsewhere.

        Every range but the first begins with the bins that its own rows see. The first one keeps
        the events before it, in bins below 0.
        """
        block = object.__new__(HistoryColumns)
        block.__dict__.update(self.__dict__, complete=end_to_end(self.complete, ranges))
        block._set_events(self.events.cut(ranges, self.lags))
        if self.missing is not None:
            bins, units = self.missing.T
            first = bins + 1 - self.shift  # of the rows that see the count
            k = np.searchsorted(ranges[:, 1], first, side="right").clip(max=len(ranges) - 1)
            seen = (first < ranges[k, 1]) & (first + self.lags > ranges[k, 0])
            block.missing = np.column_stack([bins + offsets(ranges)[k], units])[seen]
        return block
