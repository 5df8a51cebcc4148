"""How a pass is cut into chunks of bins, and a round of chunks into pieces for the threads.

Threads work on a *round* of several chunks side by side, so that each has enough to do even where
tiles are few. What a piece computes depends on no other piece, and sums over chunks run in the
order of the chunks: the bits do not depend on the number of threads.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from fastglm import _kernels as kernels
from fastglm._kernels.threads import cut, run_kernels


class Chunk(NamedTuple):
    """A range of bins, and the place of its eta among those of a round."""

    slot: int
    start: int
    n_rows: int

    @property
    def bins(self) -> slice:
        return slice(self.start, self.start + self.n_rows)


class Piece(NamedTuple):
    """Rows of one chunk and one tile; ``begin`` is a multiple of the segment."""

    chunk: Chunk
    tile: int
    begin: int
    end: int


def interior(eta: np.ndarray, begin: int, end: int, lanes: int) -> np.ndarray:
    """A view of some rows of eta, of one tile or of several: its last axes are rows and lanes."""
    rows = eta.reshape(*eta.shape[:-1], -1, lanes)
    return rows[..., kernels.PAD + begin : kernels.PAD + end, :]


def run_pieces(function: Callable, chunks: list[Chunk], tiles: np.ndarray, lanes: int) -> None:
    """Call a function with every piece of some chunks and tiles, on all threads."""

    def call(share):
        for piece in pieces(chunks, tiles, segment, *share):
            function(piece)

    segment = kernels.SEGMENT if lanes > 1 else kernels.NARROW_SEGMENT
    n_segments = sum(-(-chunk.n_rows // segment) for chunk in chunks)
    run_kernels(call, cut(tiles.size * n_segments), work_of(chunks, tiles, lanes))


def pieces(
    chunks: list[Chunk], tiles: np.ndarray, segment: int, first: int, last: int
) -> Iterator[Piece]:
    """The pieces of the segments ``first`` to ``last``, counted tile by tile.

    A thread stays with a tile, whose filters are in its cache.
    """
    n_before = 0
    for tile in tiles.tolist():
        for chunk in chunks:
            n = -(-chunk.n_rows // segment)
            low, high = max(first - n_before, 0), min(last - n_before, n)
            if low < high:
                yield Piece(chunk, tile, low * segment, min(high * segment, chunk.n_rows))
            n_before += n


def work_of(chunks: list[Chunk], tiles: np.ndarray, lanes: int) -> int:
    """The size of a round, as `run_kernels` wants it: about ten operations for each number."""
    return 10 * sum(chunk.n_rows for chunk in chunks) * tiles.size * lanes
