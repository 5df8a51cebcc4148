"""X in ranges of bins, each from its own source; sums over bins add up the sums of the shards.

A shard stands for the bins from ``first`` to ``stop``. It is read with a halo: earlier bins that
complete its windows, and are not in the fit. Only the events of one shard are in memory at a time.
A fit to a day therefore takes as much memory as a fit to an hour; `Shards.valid` alone takes one
byte a bin. A pass reads every shard once.
"""

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from fastglm._products.kinds import Work
from fastglm._products.local import Local
from fastglm._products.protocol import Chunk, Sums
from fastglm._products.sums import Moments
from fastglm.features import Events


@dataclass(frozen=True)
class Source:
    """The source of a shard.

    Attributes
    ----------
    first, stop : int
        First bin of the shard, and one past its last bin.
    read : function of (first, stop)
        `Events` of a range of bins, numbered from 0. A range may begin before ``first``.
    basis : convolution basis
    epochs : ndarray of int, shape (n_epochs, 2)
        First bin and one past the last of every epoch of the whole recording.
    """

    first: int
    stop: int
    read: Callable
    basis: object
    epochs: np.ndarray

    def load(self) -> tuple:
        """First bin of the halo, the features, and the events of the receivers."""
        begin = max(self.first - self.basis.window_size, 0)
        events = self.read(begin, self.stop)
        epochs = np.clip(self.epochs, begin, self.stop) - begin
        with warnings.catch_warnings():
            # The rest of an epoch that a shard cuts may be shorter than a window.
            warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ epochs are shorter", UserWarning)
            X = self.basis.compute_features(events, epochs=epochs[epochs[:, 1] > epochs[:, 0]])
        X.valid[: self.first - begin] = False
        return begin, X, events


def from_events(events: Events, basis, edges, epochs=None) -> list[Source]:
    """Sources of events in memory, cut at some bins."""
    epochs = np.array([[0, events.n_bins]]) if epochs is None else np.asarray(epochs)
    return [
        Source(int(a), int(b), events.part, basis, epochs) for a, b in itertools.pairwise(edges)
    ]


@dataclass(frozen=True)
class SpikeFile:
    """Spikes in two raw files, sorted by time: seconds (float64), and units (int32).

    ``index[k]`` is the number of the first spike at or after bin ``k * every``.
    """

    times: str
    units: str
    n_units: int
    bin_size: float
    every: int
    index: np.ndarray

    def read(self, first: int, stop: int) -> Events:
        """`Events` of a range of bins."""
        low = int(self.index[first // self.every])
        high = int(self.index[min(-(-stop // self.every), self.index.size - 1)])
        count = high - low
        times = np.fromfile(self.times, np.float64, count, offset=8 * low)
        units = np.fromfile(self.units, np.int32, count, offset=4 * low)
        bins = np.floor(times / self.bin_size + 1e-6).astype(np.int64)
        inside = (bins >= first) & (bins < stop)
        cells = (bins[inside] - first) * self.n_units + units[inside]
        cells, counts = np.unique(cells, return_counts=True)
        bins, units = np.divmod(cells, self.n_units)
        shape = stop - first, self.n_units
        return Events(bins.astype(np.int32), units.astype(np.int32), counts.astype(float), shape)


@dataclass
class Shards:
    """The `protocol.Products` of some sources.

    Parameters
    ----------
    sources : list of Source
        Ascending; every source begins at the bin where the previous one ends.
    columns_used : ndarray of bool, optional
        Features that the products hold; see `select`.
    restricted : ndarray of bool, shape (n_bins,), optional
        Bins outside it are not valid; see `restrict`.
    """

    sources: list
    columns_used: np.ndarray | None = None
    restricted: np.ndarray | None = None
    n_bins: int = field(init=False, default=0)  # valid ones

    def __post_init__(self):
        self._loaded = None
        work, self.nonnegative, self._least = Work(0, 0, 0), True, np.inf
        for _, part in self.parts():
            self.n_bins += part.n_bins
            work += part.work()
            self.nonnegative = part.nonnegative & self.nonnegative
            self._least = np.minimum(self._least, part.smallest_positive())
            self.shape = self.sources[-1].stop, part.shape[1]
            self.columns = part.columns  # of the last shard, for estimates of cost
        self._work = work
        self._loaded = None

    def load(self, k: int) -> tuple:
        """First bin, products, events and columns of shard k; the shard read last is kept."""
        if self._loaded is None or self._loaded[0] != k:
            self._loaded = None  # frees the memory before the next shard is read
            begin, X, events = self.sources[k].load()
            valid, index = X.valid, None
            if self.restricted is not None:
                valid = valid & self.restricted[begin : begin + X.shape[0]]
            products = Local(X, valid)
            if self.columns_used is not None:
                products, index = products.select(self.columns_used)
            self._loaded = k, begin, products, events, index
        return self._loaded[1:]

    def parts(self) -> Iterator[tuple[int, Local]]:
        """First bin, and products in memory, of every shard."""
        for k in range(len(self.sources)):
            begin, products, _, _ = self.load(k)
            yield begin, products

    @property
    def valid(self) -> np.ndarray:
        """Whether each bin is in the fit, (n_bins,); every shard is read."""
        valid = np.zeros(self.shape[0], bool)
        for source, (begin, part) in zip(self.sources, self.parts(), strict=True):
            valid[source.first : source.stop] = part.valid[source.first - begin :]
        return valid

    def passes(self, n_receivers: int, lanes: int, multiply: str) -> "ShardPasses":
        """Products with that many receivers."""
        return ShardPasses(self, n_receivers, lanes, multiply)

    def _by_shard(self, index: np.ndarray) -> Iterator[tuple[slice, Local, np.ndarray]]:
        """Ascending bins by shard: their places, the products, and the bins in the shard."""
        edges = np.searchsorted(index, [*(s.first for s in self.sources), self.sources[-1].stop])
        for k, (low, high) in enumerate(itertools.pairwise(edges)):
            if low < high:
                begin, part, _, _ = self.load(k)
                yield slice(low, high), part, index[low:high] - begin

    def rows(self, index: np.ndarray, dtype=np.float64) -> np.ndarray:
        """The rows at ascending valid bins."""
        out = np.empty((len(index), self.shape[1]), dtype)
        for place, part, own in self._by_shard(np.asarray(index)):
            out[place] = part.rows(own, dtype)
        return out

    def seen(self, index: np.ndarray) -> np.ndarray:
        """The activity of some bins, scaled to mean 1 over their shard."""
        out = np.empty(len(index), np.float32)
        for place, part, own in self._by_shard(np.asarray(index)):
            out[place] = part.seen(own)
        return out

    def gram(self, weight: np.ndarray | None = None) -> np.ndarray:
        """``X'X``, or ``X' diag(weight) X``."""
        return sum(
            part.gram(weight if weight is None else weight[begin : begin + part.shape[0]])
            for begin, part in self.parts()
        )

    def project(self, values: np.ndarray) -> np.ndarray:
        """``X' values``."""
        return sum(part.project(values[b : b + part.shape[0]]) for b, part in self.parts())

    def column_sums(self, weight: np.ndarray | None = None) -> np.ndarray:
        """``X'1``, or ``X' weight``."""
        return sum(
            part.column_sums(weight if weight is None else weight[begin : begin + part.shape[0]])
            for begin, part in self.parts()
        )

    def moments(self, observed, known: np.ndarray | None = None) -> Moments:
        """``X'Y``, ``X'1`` and the sums of Y, with the weights; ``known`` is ``X'1``."""
        found = [part.moments(own) for part, own in observed.over(self)]
        x = sum(m.x for m in found) if known is None else known
        return Moments(sum(m.xty for m in found), x, sum(m.sum_y for m in found))

    def smallest_positive(self) -> np.ndarray:
        """A lower bound, per column, of its values above zero."""
        return self._least

    def select(self, columns: np.ndarray) -> tuple["Shards", np.ndarray]:
        """Products with the senders of some columns, and the index of the columns they hold."""
        _, products, _, index = self.load(0)
        whole = columns
        if index is not None:
            whole = np.zeros(self.columns_used.size, bool)
            whole[index] = columns
        _, index = products.select(columns)
        return Shards(self.sources, whole, self.restricted), index

    def restrict(self, valid: np.ndarray) -> "Shards":
        """The products over fewer bins."""
        return Shards(self.sources, self.columns_used, valid)

    def work(self, used: np.ndarray | None = None) -> Work:
        """Work of one product for one receiver, in proportion to the number of features."""
        part = 1.0 if used is None else float(used.mean())
        return Work(*(part * number for number in self._work))

    def events(self) -> "ShardEvents":
        """The counts of the receivers, read shard by shard."""
        return ShardEvents(self)


class ShardPasses:
    """The `protocol.Passes` of shards, which runs the passes of one shard after another."""

    def __init__(self, shards: Shards, n_receivers: int, lanes: int, multiply: str):
        self.shards, self._arguments = shards, (n_receivers, lanes, multiply)

    def evaluate(
        self,
        observed,
        loss,
        receivers: np.ndarray,
        coef: np.ndarray,
        intercept: np.ndarray,
        precise: bool,
    ) -> Sums:
        """The sums of all shards."""
        found = None
        for part, own in observed.over(self.shards):
            passes = part.passes(*self._arguments)
            one = passes.evaluate(own, loss, receivers, coef, intercept, precise)
            found = (
                one if found is None else Sums(*(a + b for a, b in zip(found, one, strict=True)))
            )
        return found

    def forward(
        self, coef: np.ndarray, precise: bool = True, seen: bool = False
    ) -> Iterator[Chunk]:
        """``X C`` of every bin, chunk by chunk; bins of a halo are not valid."""
        for begin, part in self.shards.parts():
            for chunk in part.passes(*self._arguments).forward(coef, precise, seen):
                bins = slice(chunk.index.start + begin, chunk.index.stop + begin)
                yield chunk._replace(index=bins)


class ShardEvents:
    """The counts of receivers, read shard by shard, with the methods of `Events` for a fit."""

    def __init__(self, shards: Shards, receivers: np.ndarray | None = None):
        self.shards, self._receivers = shards, receivers
        events = shards.load(0)[2]
        self.n_bins = shards.shape[0]
        self.n_units = events.n_units if receivers is None else len(receivers)

    by_unit = None  # a shard is sorted when it is read

    def select(self, receivers: np.ndarray) -> "ShardEvents":
        """The counts of some receivers."""
        own = receivers if self._receivers is None else self._receivers[receivers]
        return ShardEvents(self.shards, own)

    def part(self, first: int, stop: int) -> Events:
        """`Events` of the bins of a shard, halo included."""
        for k, source in enumerate(self.shards.sources):
            begin, _, events, _ = self.shards.load(k) if source.stop == stop else (None,) * 4
            if begin == first:
                return events if self._receivers is None else events.select(self._receivers)
        raise ValueError(f"No shard holds the bins from {first} to {stop}.")

    def rows(self, index: np.ndarray) -> np.ndarray:
        """The counts at some ascending bins."""
        out = np.zeros((len(index), self.n_units))
        edges = [*(s.first for s in self.shards.sources), self.n_bins]
        edges = np.searchsorted(index, edges)
        for k, (low, high) in enumerate(itertools.pairwise(edges)):
            if low < high:
                begin, _, events, _ = self.shards.load(k)
                counts = events.rows(index[low:high] - begin)
                out[low:high] = counts if self._receivers is None else counts[:, self._receivers]
        return out
