"""X in ranges of bins, each from its own source: the same verbs, the sums of the shards added up.

A shard stands for the bins from ``first`` to ``stop``. Its source also gives the halo: the bins
from ``begin`` to ``first``, which complete the windows and whose rows are not in the fit. Only the
events of one shard are in memory at a time. A fit to a day therefore takes as much memory as a fit
to an hour. `Shards.valid` is one byte a bin; passes do not read it. A pass reads every shard once.

A source has ``begin``, ``first``, ``stop``, ``load()`` (features and events from ``begin`` on) and
``silent(n_units)`` (the features of a bin or so). `recordings.stream.Source` makes the features of
spikes on disk; `_streams.Chunk` takes those of a user's loader.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np

from fastglm._products.kinds import Work
from fastglm._products.local import Local
from fastglm._products.protocol import Chunk, Sums
from fastglm._products.sums import Moments
from fastglm.features import Events, FeatureMatrix


class Reader:
    """Reads shards. The last one is kept, and freed before the next one is read.

    Attributes
    ----------
    sources : list of sources
    parts : WeakKeyDictionary
        What products have made of the shard that is kept.
    counts : tuple (index, Events)
        The last bins that were read from several shards, and their events: whoever asks for rows of
        X asks for counts next, and no shard is read a second time for them.
    """

    def __init__(self, sources: list):
        self.sources, self.parts = sources, WeakKeyDictionary()
        self._number, self._kept = None, None
        self.counts = None, []

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
    sources : list of sources
        Ascending; every source begins at the bin where the previous one ends.
    columns_used : ndarray of bool, optional
        Features that the products hold; see `select`.
    restricted : ndarray of bool, shape (n_bins,), optional
        Bins outside it are not valid; see `restrict`.
    reader : Reader, optional
        The reader of other products of these sources, which then keep no shard of their own.
    spread : object, optional
        What makes sums over all shards elsewhere: ``spread.total(shards, function, observed)``, as
        `fastglm._batches.spread.Spread`. By default they are made here.
    """

    sources: list
    columns_used: np.ndarray | None = None
    restricted: np.ndarray | None = None
    reader: Reader | None = None
    spread: object | None = None
    n_bins: int = field(init=False, default=0)  # valid ones

    concurrent = False  # threads that walk side by side would each keep a shard

    def __post_init__(self):
        self.reader = self.reader or Reader(self.sources)
        events = self.reader.load(0)[1]
        self.n_units, self.dense = events.n_units, events.values is not None
        del events
        silent = self.sources[0].silent(self.n_units)
        if self.columns_used is not None:
            silent, _ = silent.select(self.columns_used)
        self.taken = silent.taken
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
        parts, counts = list(_by_shard(self.sources, index)), []
        for k, places in parts:
            own = index[places] - self.sources[k].begin
            out[places] = function(self.load(k), own)
            if len(parts) > 1:
                counts.append((places, self.reader.load(k)[1].at(own)))
        if counts:
            self.reader.counts = index, counts
        return out

    def rows(self, index: np.ndarray, dtype=np.float64) -> np.ndarray:
        """The rows at ascending valid bins."""
        out = np.empty((len(index), self.shape[1]), dtype)
        return self._from_rows(index, out, lambda part, own: part.rows(own, dtype))

    def seen(self, index: np.ndarray) -> np.ndarray:
        """The activity of some bins, scaled to mean 1 over their shard."""
        out = np.empty(len(index), np.float32)
        return self._from_rows(index, out, lambda part, own: part.seen(own))

    def total(self, function: Callable, observed=None):
        """The sum over the shards of ``function(products, its observations)``."""
        if self.spread is not None and _travels(observed):
            return self.spread.total(self, function, observed)
        return self.total_of(range(len(self.sources)), function, observed)

    def total_of(
        self, numbers: Iterable, function: Callable, observed=None, check: Callable | None = None
    ):
        """`total` over the shards of some numbers; ``check()`` is called after each."""
        total = None
        for k in numbers:
            part, first = self.load(k), self.sources[k].begin
            own = None if observed is None else observed.part(first, first + part.shape[0])
            found = function(part, own)
            total = found if total is None else add(total, found)
            del part, own, found
            if check is not None:
                check()
        return total

    def viewed(self, columns_used: np.ndarray | None, reader: Reader | None) -> "Shards":
        """The shards for `total_of`, with some columns and another reader; none is read."""
        other = copy(self)
        other.columns_used, other.reader, other.spread = columns_used, reader, None
        return other

    def gram(self, weight: np.ndarray | None = None) -> np.ndarray:
        """``X'X``, or ``X' diag(weight) X``."""
        return self.total(Local.gram, _Values.of(weight))

    def project(self, values: np.ndarray) -> np.ndarray:
        """``X' values``."""
        return self.total(Local.project, _Values.of(values))

    def column_sums(self, weight: np.ndarray | None = None) -> np.ndarray:
        """``X'1``, or ``X' weight``."""
        return self.total(Local.column_sums, _Values.of(weight))

    def moments(self, observed, known: np.ndarray | None = None) -> Moments:
        """``X'Y``, ``X'1`` and the sums of Y, with the weights; ``known`` is ``X'1``."""
        found = self.total(partial(Local.moments, known=known), observed)
        return found if known is None else found._replace(x=known)

    def smallest_positive(self) -> np.ndarray:
        """A lower bound, per column, of its values above zero."""
        return self._least

    def select(self, columns: np.ndarray) -> tuple["Shards", np.ndarray]:
        """Products with the senders of some columns, and the index of the columns they hold."""
        silent, whole = self.sources[0].silent(self.n_units), columns
        if self.columns_used is not None:
            silent, index = silent.select(self.columns_used)
            whole = np.zeros(self.columns_used.size, bool)
            whole[index] = columns
        _, index = silent.select(columns)
        return Shards(self.sources, whole, self.restricted, self.reader, self.spread), index

    def restrict(self, valid: np.ndarray) -> "Shards":
        """The products over fewer bins."""
        return Shards(self.sources, self.columns_used, valid, self.reader, self.spread)

    def work(self, used: np.ndarray | None = None) -> Work:
        """Work of one product for one receiver, in proportion to the number of features."""
        part = 1.0 if used is None else float(used.mean())
        return Work(*(part * number for number in self._work))

    def events(self) -> "ShardEvents":
        """The counts of the receivers, read shard by shard."""
        return ShardEvents(self.reader, self.n_units, self.dense)


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
        one = partial(
            _evaluate, arguments=self._arguments, loss=loss, receivers=receivers, coef=coef,
            intercept=intercept, precise=precise,
        )  # fmt: skip
        return self.shards.total(one, observed)

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


def _evaluate(part, own, arguments, **point):
    """The sums of a pass over one shard."""
    return part.passes(*arguments).evaluate(own, **point)


def add(total: object, found: object) -> object:
    """The sum of two arrays, or of two named tuples of arrays."""
    if isinstance(total, tuple):
        return type(total)(*(a + b for a, b in zip(total, found, strict=True)))
    return total + found


class _Values:
    """Numbers of every bin, as the observations of `Shards.total`."""

    plain = False

    def __init__(self, values):
        self.values = values

    @classmethod
    def of(cls, values):
        return None if values is None else cls(values)

    def part(self, first, stop):
        return self.values[first:stop]


def _travels(observed):
    """Whether workers can read the observations themselves: without weights and offsets."""
    return observed is None or observed.plain


def _by_shard(sources, index):
    """The shards that hold some ascending bins, and the places of their bins."""
    edges = np.searchsorted(index, [*(s.first for s in sources), sources[-1].stop])
    for k, (low, high) in enumerate(itertools.pairwise(edges)):
        if low < high:
            yield k, slice(low, high)


class ShardEvents:
    """The counts of receivers, read shard by shard, with the methods of `Events` for a fit."""

    by_unit = None  # a shard is sorted when it is read

    def __init__(
        self, reader: Reader, n_units: int, dense: bool, receivers: np.ndarray | None = None
    ):
        self.reader, self._all, self.receivers = reader, n_units, receivers
        self.values = self if dense else None  # whether y has a number in every bin
        self.n_bins = reader.sources[-1].stop
        self.n_units = n_units if receivers is None else len(receivers)

    def select(self, receivers: np.ndarray) -> "ShardEvents":
        """The counts of some receivers."""
        own = receivers if self.receivers is None else self.receivers[receivers]
        return ShardEvents(self.reader, self._all, self.values is not None, own)

    def part(self, first: int, stop: int) -> Events:
        """`Events` of the bins of a shard, halo included."""
        for k, source in enumerate(self.reader.sources):
            if (source.begin, source.stop) == (first, stop):
                return self._own(k)
        raise ValueError(f"No shard holds the bins from {first} to {stop}.")

    def rows(self, index: np.ndarray) -> np.ndarray:
        """The counts at some ascending bins."""
        out = np.zeros((len(index), self.n_units))
        known, counts = self.reader.counts
        if known is index:
            for places, events in counts:
                out[places] = self._select(events).rows(np.arange(events.n_bins))
            return out
        for k, places in _by_shard(self.reader.sources, index):
            out[places] = self._own(k).rows(index[places] - self.reader.sources[k].begin)
        return out

    def _own(self, k):
        return self._select(self.reader.load(k)[1])

    def _select(self, events):
        return events if self.receivers is None else events.select(self.receivers)
