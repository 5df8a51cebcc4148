"""Data that come chunk by chunk: a user's loader, read once at the door, as the problem of a fit.

A loader is iterated as often as a fit needs it. Each pass gives the same pairs (X, y) in the same
order. One chunk is in memory at a time; what is known of all of them is a few numbers each.
"""

from __future__ import annotations

import copy
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fastglm._batches.executors import Workers
from fastglm._batches.fit import Tasks, any_known, by_missing
from fastglm._batches.mapped import pickling_error
from fastglm._batches.spread import Spread
from fastglm._checks import shown
from fastglm._engine.observed import Observed
from fastglm._files import describe
from fastglm._inputs import (
    Problem,
    check_rows,
    cut,
    feature_names,
    read_counts,
    read_mask,
    read_penalty,
    read_settings,
    warn_unused,
)
from fastglm._products.kinds import kind_of
from fastglm._products.shards import Shards
from fastglm.features.dense import DenseColumns
from fastglm.features.events import Events
from fastglm.features.matrix import FeatureMatrix, as_feature_matrix
from fastglm.pytrees import is_tree, shape_of

_SOME_ROWS = 1000  # rows of one chunk that are kept, for what does not depend on the data


@dataclass(frozen=True)
class Chunk:
    """The source of a shard: chunk ``number`` of a loader, in the bins from ``first`` to ``stop``.

    See `fastglm._products.shards`. A chunk has no halo: X has the history of its rows.
    """

    number: int
    first: int
    stop: int
    chunks: Chunks

    @property
    def begin(self) -> int:
        """The first bin."""
        return self.first

    def load(self) -> tuple[FeatureMatrix, Events]:
        """The features and the events of the receivers."""
        return self.chunks.load(self.number)

    def silent(self, n_units: int) -> FeatureMatrix:
        """Some rows of the features."""
        return self.chunks.X


class Chunks:
    """The chunks of a loader, checked.

    Attributes
    ----------
    X : FeatureMatrix
        Some rows of the first chunk that has valid ones.
    shift : ndarray of shape (n_features,)
        What is taken off the columns that are far from zero; see `FeatureMatrix.centred`. Traces
        stay as they are.
    sources : list of Chunk
        Those with rows.
    missing : Events
        The counts of all chunks that are not known, in rows whose features are.
    columns : Columns or None
        Names of the receivers.
    names, shape
        As in `Problem`.
    """

    def __init__(self, model: object, data: object):
        self.model, self.data = model, data
        self._own = threading.local()  # the walk of each thread that reads, and its next chunk
        self._marks, self._layout, self._deviations = [], None, {}
        self.shift = self.X = None
        self._scan()

    def _scan(self):
        """Read every chunk once."""
        n_bins, known, self.sources, missing = 0, False, [], []
        while (given := self._given(len(self._marks))) is not None:
            k = len(self._marks)
            if self._layout is None:
                self.names = feature_names(given[0])
                self.shape = shape_of(given[0]) if is_tree(given[0]) else None
            X, y = self._read(given, k)
            del given
            self._marks.append(_mark(y))
            self._check_layout(X, y, k)
            self._add_moments(X)
            if X.shape[0]:
                self.sources.append(Chunk(k, n_bins, n_bins + X.shape[0], self))
            known |= bool((X.valid & any_known(y)).any())
            gone = np.isnan(y.amplitudes) & X.valid[y.bins]
            missing.append((y.bins[gone].astype(np.int64) + n_bins, y.units[gone]))
            if self.X is None and X.valid.any():
                self.X = _some_rows(X)
            n_bins += X.shape[0]
        if not self._marks:
            raise ValueError("The loader has no chunk; expected pairs (X, y).")
        if not known:
            raise ValueError(
                "No chunk of the loader has a row whose features and counts are known. A row needs "
                "a whole window of history in its epoch."
            )
        bins, units = (np.concatenate(parts) for parts in zip(*missing, strict=True))
        shape = n_bins, self._n_units
        self.missing = Events(bins, units, np.full(bins.size, np.nan), shape)
        self.X, self.shift = self._centred(self.X)

    def __getstate__(self):
        """What `load` needs in another process."""
        model = type(self.model)(**self.model.get_params(deep=False))  # without what it keeps
        return {**vars(self), "model": model, "missing": None, "_own": None}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._own = threading.local()

    def load(self, k: int) -> tuple[FeatureMatrix, Events]:
        """Features and events of chunk k.

        Raises
        ------
        ValueError
            If it is not what it was when it was read first.
        """
        given = self._given(k)
        if given is None:
            raise ValueError(
                f"The loader gave {len(self._marks)} chunks in its first pass, and {k} in another; "
                "expected an object that begins anew whenever it is iterated."
            )
        X, y = self._read(given, k)
        if _mark(y) != self._marks[k]:
            raise ValueError(
                f"Chunk {k} of the loader is not the one of its first pass. Every pass must give "
                "the same chunks in the same order: pass shuffle=False?"
            )
        return self._centred(X)[0], y

    def _given(self, k):
        """Chunk k as the loader gives it, None after the last; others are read on the way."""
        if isinstance(self.data, Sequence):
            return self.data[k] if k < len(self.data) else None
        own = self._own
        walk, own.walk = getattr(own, "walk", None), None  # an error or an interrupt ends the walk
        if walk is None or own.next > k:
            walk, own.next = iter(self.data), 0
        given = None
        while own.next <= k:
            given = None  # frees the memory before the next chunk is made
            given = next(walk, None)
            own.next += 1
            if given is None:
                return None
        own.walk = walk
        return given

    def _read(self, given, k):
        """A pair as features and events over the bins that the rows need."""
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise ValueError(f"Chunk {k} of the loader is {shown(given)}; expected a pair (X, y).")
        return _read_rows(self.model, as_feature_matrix(given[0]), given[1], f"X of chunk {k}")

    def _check_layout(self, X, y, k):
        """Raise ValueError if a chunk has other features or receivers than the first one."""
        names = None if y.columns is None else [str(name) for name in y.columns.names]
        kernels = [getattr(c, "kernel", np.zeros(0)) for c in X.blocks]
        layout = [(c.label, c.n_columns) for c in X.blocks], y.n_units, names
        if self._layout is None:
            self._layout, self._kernels = layout, kernels
            self._n_units, self.columns = y.n_units, y.columns
        same = all(map(np.array_equal, kernels, self._kernels))
        if layout != self._layout or not same:
            raise ValueError(
                f"Chunk {k} has {X.shape[1]} features of {X.labels} and {y.n_units} receivers, and "
                "they are not those of the first chunk; compute all chunks with one basis, from "
                "the same cells in the same order."
            )

    def _add_moments(self, X):
        """Add rows, mean and sum of squares of the ordinary columns to those of other chunks."""
        for b, c in enumerate(X.blocks):
            if not isinstance(c, DenseColumns):
                continue
            n, mean, spread = c.moments()
            total, middle, squares = self._deviations.get(b, (0, mean, 0.0))
            if n:
                with np.errstate(over="ignore", invalid="ignore"):
                    off = mean - middle
                    squares = squares + n * spread**2 + off**2 * (n * total / (n + total))
                    middle = middle + off * (n / (n + total))
                self._deviations[b] = total + n, middle, squares

    def _centred(self, X):
        """X with columns far from zero centred, by what is known of all chunks, and the shift."""
        blocks, shifts = list(X.blocks), [np.zeros(c.n_columns) for c in X.blocks]
        for b, (n, mean, squares) in self._deviations.items():
            blocks[b], shifts[b] = blocks[b].around(mean, np.sqrt(squares / n))
        return FeatureMatrix(blocks, X.valid), np.concatenate(shifts)


class StreamProblem(Problem):
    """The `Problem` of the chunks of a loader.

    X, valid and y are those of some rows; the data are in ``shards``. Sums over all shards are made
    by the workers, if there are any.
    """

    def __init__(self, model: object, chunks: Chunks, workers: Workers | None = None):
        spread = None if workers is None else Spread(workers, chunks.sources)
        shards = Shards(chunks.sources, spread=spread)
        self.__dict__.update(shards=shards, unknown=chunks.missing)
        y = Events(*(np.zeros(0, np.int32),) * 2, np.zeros(0), chunks.missing.shape)
        y.columns = chunks.columns
        X, free = chunks.X, read_mask(model, (shards.shape[1], y.n_units), chunks.X)
        rest = free, read_penalty(model, X, free), read_settings(model), chunks.names
        super().__init__(X, Observed(y), 0.0, chunks.shift, X.valid, *rest, shape=chunks.shape)

    @property
    def size(self) -> np.ndarray:
        """Number of every receiver's bins, (n_receivers,)."""
        return self.shards.n_bins - np.bincount(self.unknown.units, minlength=self.n_receivers)

    def by_missing(self) -> Iterator[tuple]:
        """As `Problem.by_missing`; bins are None where all counts are known."""
        if not self.unknown.bins.size:
            yield None, np.arange(self.n_receivers)
            return
        yield from by_missing(np.ones(self.unknown.n_bins, bool), self.unknown)

    def tasks(self, valid: np.ndarray | None, start: tuple | None) -> Tasks:
        """The `Tasks` over some bins, None for all."""
        shards = self.shards if valid is None else self.shards.restrict(valid)
        observed = Observed(self.shards.events())
        return Tasks(shards, observed, self.free, [self.penalty], start, self.settings)

    def parts(self) -> Iterator[Problem]:
        """The problem of every chunk, in turn."""
        events = self.shards.events()
        for begin, part in self.shards.parts():
            y = events.part(begin, begin + part.shape[0])
            yield Problem(
                part.X, Observed(y), 0.0, self.shift, part.valid, self.free, self.penalty,
                self.settings, self.names,
            )  # fmt: skip
            del part, y


def read_stream(model: object, data: object, workers: Workers | None = None) -> StreamProblem:
    """Parameters of a model and a loader for its fit; called by the method that a user calls.

    Raises
    ------
    TypeError, ValueError
        If something is not usable; the sentence says what was given and what is expected.
    """
    _check_loader(data)
    if workers is not None and not workers.here:
        _check_travels(data)
    problem = StreamProblem(model, Chunks(model, data), workers)
    warn_unused(model)
    return problem


def read_chunk(model: object, X: object, y: object) -> tuple[FeatureMatrix, Events]:
    """Features of events and counts, as small as a model can keep them.

    Raises
    ------
    NotImplementedError
        If X has columns that are stored.
    """
    if not isinstance(X, FeatureMatrix) or not all(kind_of(c).from_events for c in X.blocks):
        raise NotImplementedError(
            "A chunk of a plain X cannot be forgotten: the optimum of all data needs all its rows "
            "again, and update keeps events only. Give X from a basis with a window on spikes, or "
            "all chunks to stochastic_fit."
        )
    X, y = _read_rows(model, X, y, "X")
    y = copy.copy(y)
    y.timeline = None
    return X, y


def _read_rows(model, X, y, name):
    """Features and counts over the bins that the rows need."""
    y = read_counts(model, y, X)
    check_rows(X, y, name)
    X, _, (y, _, _) = cut(X, y, None, None)
    return X, y


def _check_loader(data):
    if not hasattr(data, "__iter__") and not isinstance(data, Sequence):
        raise TypeError(
            f"data is {shown(data)}; expected a loader: an object that gives pairs (X, y) whenever "
            "it is iterated, such as a list of them."
        )
    if hasattr(data, "__next__"):
        raise ValueError(
            f"data is {shown(data)}, an iterator, which can be used once; a fit makes many passes. "
            "Pass an object whose __iter__ begins anew, such as a list of pairs (X, y) or a class "
            "with a generator as its __iter__."
        )


def _check_travels(data):
    error = pickling_error(data)
    if error is not None:
        raise TypeError(
            f"data is {shown(data)}, which cannot be pickled ({describe(error)}), and the workers "
            "of the executor are other processes, which need a copy of it. Open files inside "
            "__iter__ or __getitem__ and not before, or pass an executor of threads."
        )


def _mark(y):
    """A number of bins and a checksum, by which the counts of a chunk are known again."""
    total = 0
    for part in y.arrays():
        total = zlib.crc32(np.ascontiguousarray(part), total)
    return y.n_bins, total


def _some_rows(X):
    """Some rows of features, without the memory of the others."""
    first = int(X.valid.argmax())
    some, _ = X.take_rows(np.arange(first, min(first + _SOME_ROWS, X.shape[0]))).cut()
    return copy.deepcopy(some)
