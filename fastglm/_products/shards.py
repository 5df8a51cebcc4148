"""X in ranges of bins, each from its own source: the same verbs, the sums of the shards added up.

A shard stands for the bins from ``first`` to ``stop``. Its source also gives the halo: the bins of
one window before ``first``, which complete the windows and whose rows are not in the fit. Only the
events of one shard are in memory at a time. A fit to a day therefore takes as much memory as a fit
to an hour, beside `Shards.valid`: one byte a bin. A pass reads every shard once.
"""

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from weakref import WeakKeyDictionary

import numpy as np

from fastglm._products.kinds import Work
from fastglm._products.local import Local
from fastglm._products.protocol import Chunk, Sums
from fastglm._products.sums import Moments
from fastglm.features import Events, FeatureMatrix

_BLOCK = 1 << 20  # spikes of a file that are looked at together
_ROUNDING = 1e-6  # part of a bin by which a spike before an edge belongs to the next bin


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

    @property
    def begin(self) -> int:
        """First bin of the halo."""
        return max(self.first - self.basis.window_size, 0)

    def load(self) -> tuple[FeatureMatrix, Events]:
        """The features from the halo on, and the events of the receivers."""
        events = self.read(self.begin, self.stop)
        epochs = np.clip(self.epochs, self.begin, self.stop) - self.begin
        X = self._features(events, epochs[epochs[:, 1] > epochs[:, 0]])
        X.valid[: self.first - self.begin] = False
        return X, events

    def silent(self, n_units: int) -> FeatureMatrix:
        """The features of one bin without events."""
        none = np.zeros(0, np.int32)
        return self._features(Events(none, none, np.zeros(0), (1, n_units)), np.array([[0, 1]]))

    def _features(self, events, epochs):
        with warnings.catch_warnings():
            # The rest of an epoch that a shard cuts may be shorter than a window.
            warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ epochs are shorter", UserWarning)
            return self.basis.compute_features(events, epochs=epochs)


def from_events(events: Events, basis, edges, epochs=None) -> list[Source]:
    """Sources of events in memory, cut at some bins."""
    return sources_of(events.part, basis, edges, epochs)


def sources_of(read: Callable, basis, edges, epochs=None) -> list[Source]:
    """Sources of one function of (first, stop), cut at some bins; by default in one epoch."""
    epochs = np.array([[edges[0], edges[-1]]]) if epochs is None else np.asarray(epochs)
    return [Source(int(a), int(b), read, basis, epochs) for a, b in itertools.pairwise(edges)]


@dataclass(frozen=True)
class SpikeFile:
    """Spikes in two raw files, sorted by time: seconds (float64), and units (int32).

    ``index[k]`` is the number of the first spike in bin ``k * every`` or later; the last entry is
    the number of spikes. `SpikeFile.scan` makes it.
    """

    times: str
    units: str
    n_units: int
    bin_size: float
    every: int
    index: np.ndarray

    @classmethod
    def scan(cls, times: str, units: str, n_units: int, bin_size: float, every: int) -> "SpikeFile":
        """Read the times of two files once, for the index; 8 MB at a time."""
        found, n_spikes = [np.zeros(1, np.int64)], 0
        while True:
            part = np.fromfile(times, np.float64, _BLOCK, offset=8 * n_spikes)
            if part.size == 0:
                break
            step = _bins(part, bin_size) // every
            # Each multiple of `every` up to the bin of a spike, that none before has reached.
            n_known = sum(known.size for known in found)
            wanted = np.arange(n_known, step[-1] + 1)
            found.append(n_spikes + np.searchsorted(step, wanted))
            n_spikes += part.size
        return cls(
            times, units, n_units, bin_size, every, np.append(np.concatenate(found), n_spikes)
        )

    def read(self, first: int, stop: int) -> Events:
        """`Events` of a range of bins."""
        low, high = (
            int(self.index[min(k, self.index.size - 1)])
            for k in (first // self.every, -(-stop // self.every))
        )
        times = np.fromfile(self.times, np.float64, high - low, offset=8 * low)
        units = np.fromfile(self.units, np.int32, high - low, offset=4 * low)
        bins = _bins(times, self.bin_size) - first
        del times
        inside = (bins >= 0) & (bins < stop - first)
        cells, counts = np.unique(bins[inside] * self.n_units + units[inside], return_counts=True)
        del bins, units, inside
        bins, units = np.divmod(cells, self.n_units)
        shape = stop - first, self.n_units
        return Events(bins.astype(np.int32), units.astype(np.int32), counts.astype(float), shape)


def _bins(times, bin_size):
    return np.floor(times / bin_size + _ROUNDING).astype(np.int64)


class Reader:
    """Reads shards. The last one is kept, and freed before the next one is read.

    Attributes
    ----------
    sources : list of Source
    parts : WeakKeyDictionary
        What products have made of the shard that is kept.
    """

    def __init__(self, sources: list[Source]):
        self.sources, self.parts = sources, WeakKeyDictionary()
        self._number, self._kept = None, None

    def __reduce__(self):
        return Reader, (self.sources,)

    def load(self, k: int) -> tuple[FeatureMatrix, Events]:
        """Features and events of shard k, halo included."""
        if self._number != k:
            self.parts.clear()
            self._number, self._kept = None, None
            self._kept = self.sources[k].load()
            self._number = k
        return self._kept


@dataclass(eq=False)
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
    reader : Reader, optional
        The reader of other products of these sources, which then keep no shard of their own.

    Raises
    ------
    ValueError
        If the window of the basis is not causal: it would need bins of the next shard.
    """

    sources: list
    columns_used: np.ndarray | None = None
    restricted: np.ndarray | None = None
    reader: Reader | None = None
    n_bins: int = field(init=False, default=0)  # valid ones

    concurrent = False  # threads that walk side by side would each keep a shard

    def __post_init__(self):
        self.reader = self.reader or Reader(self.sources)
        self.n_units = self.reader.load(0)[1].n_units
        silent = self.sources[0].silent(self.n_units)
        if silent.reach[1] > 0:
            raise ValueError(
                f"The window of the basis reaches {silent.reach[1]} bins ahead. Shards need a "
                "causal window: predictor_causality='causal'."
            )
        if self.columns_used is not None:
            silent, _ = silent.select(self.columns_used)
        self.columns = silent.blocks  # for the memory of a plan, which does not depend on events
        self.shape = self.sources[-1].stop, silent.shape[1]
        work, self.nonnegative, self._least = Work(0, 0, 0), True, np.inf
        for _, part in self.parts():
            self.n_bins += part.n_bins
            work += part.work()
            self.nonnegative = part.nonnegative & self.nonnegative
            self._least = np.minimum(self._least, part.smallest_positive())
            del part
        self._work = work

    def load(self, k: int) -> Local:
        """The products of shard k, halo included; the shard read last is kept."""
        X, _ = self.reader.load(k)
        if self not in self.reader.parts:
            begin, valid = self.sources[k].begin, X.valid
            if self.restricted is not None:
                valid = valid & self.restricted[begin : begin + X.shape[0]]
            products = Local(X, valid)
            if self.columns_used is not None:
                products, _ = products.select(self.columns_used)
            self.reader.parts[self] = products
        return self.reader.parts[self]

    # A loop over shards deletes its names of a shard before it asks for the next one: two shards
    # would be in memory otherwise.

    def parts(self) -> Iterator[tuple[int, Local]]:
        """First bin, and products in memory, of every shard."""
        for k, source in enumerate(self.sources):
            yield source.begin, self.load(k)

    @property
    def valid(self) -> np.ndarray:
        """Whether each bin is in the fit, (n_bins,); every shard is read."""
        valid = np.zeros(self.shape[0], bool)
        for begin, part in self.parts():
            valid[begin : begin + part.shape[0]] |= part.valid
            del part
        return valid

    def passes(self, n_receivers: int, lanes: int, multiply: str) -> "ShardPasses":
        """Products with that many receivers."""
        return ShardPasses(self, n_receivers, lanes, multiply)

    def _from_rows(self, index, out, function):
        """Fill ``out`` with ``function(products, bins of the shard)``, shard by shard."""
        index = np.asarray(index)
        for k, places in _by_shard(self.sources, index):
            out[places] = function(self.load(k), index[places] - self.sources[k].begin)
        return out

    def rows(self, index: np.ndarray, dtype=np.float64) -> np.ndarray:
        """The rows at ascending valid bins."""
        out = np.empty((len(index), self.shape[1]), dtype)
        return self._from_rows(index, out, lambda part, own: part.rows(own, dtype))

    def seen(self, index: np.ndarray) -> np.ndarray:
        """The activity of some bins, scaled to mean 1 over their shard."""
        out = np.empty(len(index), np.float32)
        return self._from_rows(index, out, lambda part, own: part.seen(own))

    def _sum(self, function):
        """The sum over shards of ``function(products, bins)``."""
        total = 0
        for begin, part in self.parts():
            total = total + function(part, slice(begin, begin + part.shape[0]))
            del part
        return total

    def gram(self, weight: np.ndarray | None = None) -> np.ndarray:
        """``X'X``, or ``X' diag(weight) X``."""
        return self._sum(lambda part, bins: part.gram(weight if weight is None else weight[bins]))

    def project(self, values: np.ndarray) -> np.ndarray:
        """``X' values``."""
        return self._sum(lambda part, bins: part.project(values[bins]))

    def column_sums(self, weight: np.ndarray | None = None) -> np.ndarray:
        """``X'1``, or ``X' weight``."""
        return self._sum(
            lambda part, bins: part.column_sums(weight if weight is None else weight[bins])
        )

    def moments(self, observed, known: np.ndarray | None = None) -> Moments:
        """``X'Y``, ``X'1`` and the sums of Y, with the weights; ``known`` is ``X'1``."""
        found = list(observed.over(self, lambda part, own: part.moments(own, known)))
        x = sum(m.x for m in found) if known is None else known
        return Moments(sum(m.xty for m in found), x, sum(m.sum_y for m in found))

    def smallest_positive(self) -> np.ndarray:
        """A lower bound, per column, of its values above zero."""
        return self._least

    @property
    def taken(self) -> np.ndarray:
        """Zeros: columns of history are never centred."""
        return np.zeros(self.shape[1])

    def select(self, columns: np.ndarray) -> tuple["Shards", np.ndarray]:
        """Products with the senders of some columns, and the index of the columns they hold."""
        silent, whole = self.sources[0].silent(self.n_units), columns
        if self.columns_used is not None:
            silent, index = silent.select(self.columns_used)
            whole = np.zeros(self.columns_used.size, bool)
            whole[index] = columns
        _, index = silent.select(columns)
        return Shards(self.sources, whole, self.restricted, self.reader), index

    def restrict(self, valid: np.ndarray) -> "Shards":
        """The products over fewer bins."""
        return Shards(self.sources, self.columns_used, valid, self.reader)

    def work(self, used: np.ndarray | None = None) -> Work:
        """Work of one product for one receiver, in proportion to the number of features."""
        part = 1.0 if used is None else float(used.mean())
        return Work(*(part * number for number in self._work))

    def events(self) -> "ShardEvents":
        """The counts of the receivers, read shard by shard."""
        return ShardEvents(self.reader, self.n_units)


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

        def one(part, own):
            passes = part.passes(*self._arguments)
            return passes.evaluate(own, loss, receivers, coef, intercept, precise)

        return reduce(_add, observed.over(self.shards, one))

    def forward(
        self, coef: np.ndarray, precise: bool = True, seen: bool = False
    ) -> Iterator[Chunk]:
        """``X C`` of every bin, chunk by chunk; bins of a halo are not valid."""
        for begin, part in self.shards.parts():
            passes = part.passes(*self._arguments)
            for chunk in passes.forward(coef, precise, seen):
                bins = slice(chunk.index.start + begin, chunk.index.stop + begin)
                yield chunk._replace(index=bins)
            del part, passes


def _add(sums, others):
    return Sums(*(a + b for a, b in zip(sums, others, strict=True)))


def _by_shard(sources, index):
    """The shards that hold some ascending bins, and the places of their bins."""
    edges = np.searchsorted(index, [*(s.first for s in sources), sources[-1].stop])
    for k, (low, high) in enumerate(itertools.pairwise(edges)):
        if low < high:
            yield k, slice(low, high)


class ShardEvents:
    """The counts of receivers, read shard by shard, with the methods of `Events` for a fit."""

    by_unit = None  # a shard is sorted when it is read
    values = None  # a shard has the counts of its spikes alone

    def __init__(self, reader: Reader, n_units: int, receivers: np.ndarray | None = None):
        self.reader, self._all, self._receivers = reader, n_units, receivers
        self.n_bins = reader.sources[-1].stop
        self.n_units = n_units if receivers is None else len(receivers)

    def select(self, receivers: np.ndarray) -> "ShardEvents":
        """The counts of some receivers."""
        own = receivers if self._receivers is None else self._receivers[receivers]
        return ShardEvents(self.reader, self._all, own)

    def part(self, first: int, stop: int) -> Events:
        """`Events` of the bins of a shard, halo included."""
        for k, source in enumerate(self.reader.sources):
            if (source.begin, source.stop) == (first, stop):
                return self._own(k)
        raise ValueError(f"No shard holds the bins from {first} to {stop}.")

    def rows(self, index: np.ndarray) -> np.ndarray:
        """The counts at some ascending bins."""
        out = np.zeros((len(index), self.n_units))
        for k, places in _by_shard(self.reader.sources, index):
            out[places] = self._own(k).rows(index[places] - self.reader.sources[k].begin)
        return out

    def _own(self, k):
        _, events = self.reader.load(k)
        return events if self._receivers is None else events.select(self._receivers)
