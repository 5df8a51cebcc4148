"""The cost of a fit in seconds and bytes.

What decides a batch follows from counts of operations, the rates `TYPICAL` and the memory budget:
the same call makes the same batches, whatever else the machine does. The rates of the machine at
hand are measured for the time that a plan shows, and for nothing else.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numba
import numpy as np

from fastglm import _html
from fastglm import _kernels as kernels
from fastglm._algebra.sampling import n_own_factors, sample_size
from fastglm._engine.batch import MAX_FALLBACK
from fastglm._engine.blocks import BLOCK, N_SHARED, ROUNDS
from fastglm._engine.lbfgs import Steps
from fastglm._engine.shared import SKETCH
from fastglm._kernels.threads import run_threads, single_threaded_blas
from fastglm._products.kinds import kind_of
from fastglm._products.rows import chunk_of_rows
from fastglm._products.sweep import CHUNK, Sweep
from fastglm.features.history import HistoryColumns
from fastglm.features.matrix import FeatureMatrix

PRODUCTS = ("events", "rows")
SHARED = 0.4  # a mask that keeps at least this part of the work is cheaper inside a tile of 16
_COMMON = 0.2  # largest part of the memory for the sums of all features, while they are made
# The sums of all features are made if the squared sizes of the small masks add up to more than this
# part of the squared number of features. At 40 masks of a tenth of 500 cells, a part of 0.4, the
# sums cost as much as they save.
_WORTH = 0.4
_SMALL_WORK = 2e9  # with fewer multiply-adds, the time is that of `TYPICAL`


@dataclass(frozen=True)
class Rates:
    """Operations of a machine in a second: additions of events, and multiply-adds of BLAS."""

    events: float  # float32 additions in X C and X' R from events
    events64: float  # the same in float64
    rows: float  # float32 multiply-adds of products with rows
    hessian: float  # float64 multiply-adds of X' diag(w) X


TYPICAL = Rates(events=28e9, events64=14e9, rows=60e9, hessian=25e9)  # 2 cores of an AMD EPYC


@cache
def measure_rates() -> Rates:
    """Rates of this machine, from the kernels of a fit on random events, once a process: 50 ms.

    They change from moment to moment. No batch, sample or amount of memory may depend on them.
    """
    rng = np.random.default_rng(0)
    counts = (rng.random((CHUNK, 64)) < 0.02).astype(np.uint8)
    window_size, n_funcs, n = 100, 8, 32
    X = FeatureMatrix([HistoryColumns(counts, rng.random((window_size, n_funcs)))])
    additions = 2 * X.blocks[0].n_events * window_size * n
    coef = rng.normal(size=(X.shape[1], n))

    def one_pass(dtype):
        sweep = Sweep(X, n, dtype)
        sweep.set_coef(coef)

        def run():
            for chunks in sweep.rounds():
                sweep.forward(chunks)
                sweep.backward(chunks)

        return additions / _best_time(run)

    rows = rng.random((CHUNK, X.shape[1]))
    small, some = rows.astype(np.float32), rng.random((X.shape[1], 64)).astype(np.float32)
    blocks = range(0, CHUNK, CHUNK // 4)

    def dense(first):
        part = small[first : first + CHUNK // 4]
        return part.T @ (part @ some)

    def square(first):
        part = rows[first : first + CHUNK // 4]
        return part.T @ part

    with single_threaded_blas():
        dense_time = _best_time(lambda: run_threads(dense, blocks))
        square_time = _best_time(lambda: run_threads(square, blocks))
    return Rates(
        events=one_pass(np.float32),
        events64=one_pass(np.float64),
        rows=2 * small.size * some.shape[1] / dense_time,
        hessian=rows.size * rows.shape[1] / square_time,
    )


def _best_time(function: Callable) -> float:
    function()
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return min(times)


def events_a_feature(
    X: FeatureMatrix, n_bins: int, sums: np.ndarray, ridge: np.ndarray
) -> np.ndarray:
    """Events of each receiver for each feature whose curvature outweighs its ridge.

    A closed form for independent senders that fire at the mean rate: the curvature along an
    eigenvector of ``kernel' kernel`` is its eigenvalue times both rates.

    Parameters
    ----------
    X : FeatureMatrix
    n_bins : int
        Valid bins.
    sums, ridge : ndarray, shape (n_receivers,)
        Sum of the counts in those bins, and strength of the ridge.
    """
    n_features = np.zeros(sums.size)
    for c in X.blocks:
        values, n_senders = kind_of(c).curvature(c, X.shape[0])
        with np.errstate(divide="ignore", invalid="ignore"):
            part = 1 / (1 + ridge[:, None] / (values * (sums / n_bins)[:, None]))
        n_features += n_senders * np.nan_to_num(part).sum(axis=1)
    return sums / np.maximum(n_features, 1.0)


def is_large(products, n_receivers: int) -> bool:
    """Whether a fit is so large that its time is worth a measurement of `measure_rates`."""
    return products.n_bins * products.shape[1] * n_receivers > _SMALL_WORK


@dataclass
class Batch:
    """Receivers that go through the solver together.

    Attributes
    ----------
    receivers : ndarray of int
    method : "newton-cholesky", "newton-cg" or "normal-equations"
    products : "events" or "rows"
        The way to compute ``X C`` and ``X' R``.
    lanes : int
        Receivers a tile; 1 for a receiver with a mask of its own.
    selected : bool
        Whether the products hold only the senders of the batch's masks.
    n_features : int
        Largest number of free features of a receiver.
    bytes : float
        Estimated memory beside the events.
    seconds : float
        Estimated time.
    gram : bool
        Whether ``X'X`` of all features is formed. If not, its blocks precondition the steps.
    """

    receivers: np.ndarray
    method: str
    products: str
    lanes: int
    selected: bool
    n_features: int
    bytes: float
    seconds: float
    gram: bool = True

    @property
    def alone(self) -> bool:
        """Whether its receivers, one or two, have senders of their own: work for one thread."""
        return self.selected and self.lanes == 1

    def cut(self, n: int) -> "list[Batch]":
        """The batch in n parts of whole tiles, or in as many as it has tiles."""
        size = self.receivers.size
        n_tiles = -(-size // self.lanes)
        n = min(n, n_tiles)
        edges = np.arange(1, n) * n_tiles // n * self.lanes
        return [
            replace(self, receivers=some, seconds=self.seconds * some.size / size)
            for some in np.split(self.receivers, edges)
        ]


class Cost:
    """Seconds and bytes of batches. Only the seconds depend on the rates."""

    def __init__(self, products, rates: Rates, settings, events: np.ndarray | None):
        self.products, self.n_bins = products, products.n_bins
        self.rates, self.settings = rates, settings
        self.events = events
        precise = max(np.log10(min(1e-11, 1.0) / min(settings.tol, 1e-11)), 0)
        coarse = np.log10(3e-4 / max(settings.tol, 1e-11)).clip(0)
        # A pass gains a digit. About two more passes begin and certify the fit.
        self.n_coarse, self.n_precise = 1 + coarse, 1.5 + precise
        self.n_senders = sum(c.n_senders for c in products.columns if kind_of(c).from_events)

    def work(self, column: np.ndarray | None) -> tuple[float, float]:
        """Additions from events, and multiply-adds from rows, of one product for one receiver."""
        work = self.products.work(column)
        events = work.additions + work.products * TYPICAL.events / TYPICAL.rows
        return events, work.rows

    def multiply(self, work: Sequence[float]) -> str:
        """The way to multiply with X, "events" or "rows": the cheaper one, unless it is set.

        The two differ in the rounding of their sums, so the costs are those of `TYPICAL`.
        """
        if self.settings.products != "auto":
            return self.settings.products
        if not any(kind_of(c).from_events for c in self.products.columns):
            return "rows"
        from_events, from_rows = work[0] / TYPICAL.events, work[1] / TYPICAL.rows
        return "events" if from_events <= from_rows else "rows"

    def hessian(self, n_free: int) -> float:
        """Seconds of one receiver by exact Hessians, of which a fit takes five in eight passes."""
        return self.n_bins * (5 * n_free**2 / self.rates.hessian + n_free * 1.3e-8 + 6e-8)

    def calls(self, n_free: int) -> float:
        """Seconds of the calls of Python in a batch of passes, which its receivers share."""
        return 12e-3 + 2.5e-4 * n_free

    def passes_of_one(self, work: Sequence[float], n_free: int) -> float:
        """Seconds of a receiver by passes, with its share of `calls`.

        The method of a receiver must not depend on others. So it counts as one of as many as there
        are senders among its features, and of four at least.
        """
        n = max(4.0, self.n_senders * n_free / max(self.products.shape[1], 1))
        return self.passes(work, n_free, 1) + self.calls(n_free) / n

    def products_of(self, work: Sequence[float]) -> tuple[float, float]:
        """Seconds of one product for one receiver, in float32 and in float64."""
        if self.multiply(work) == "events":
            return work[0] / self.rates.events, work[0] / self.rates.events64
        return work[1] / self.rates.rows, 2 * work[1] / self.rates.rows

    def passes(self, work: Sequence[float], n_free: int, n: int, gram: bool = True) -> float:
        """Seconds of n receivers by passes, without the parts that all receivers share."""
        coarse, precise = self.products_of(work)
        n_passes = self.n_coarse + self.n_precise
        if gram:
            n_sample = sample_size(n_free, self.n_bins, self.settings.memory_budget)
            model = (30 + 6 * n_passes) * 2 * n_sample * n_free
        else:
            model = n_passes * n_free * (2 * BLOCK + N_SHARED**2)
        return n * (
            self.n_coarse * 2 * coarse
            + self.n_precise * 2 * precise
            + n_passes * 2e-9 * self.n_bins
            + model / self.rates.rows
            + 1e-3
        )

    def scarce(
        self, seconds: float, receivers: np.ndarray, n_free: int, gram: bool = True
    ) -> float:
        """Seconds of `passes` where events are few, and late receivers get factors of their own.

        Fits with 10, 1.7, 0.85 and 0.43 events a feature took 6, 6, 11 and 18 passes to 1e-8. In
        the last two, 0.2 and 0.6 of the receivers had a factor. By blocks of ``X'X``, without such
        factors, fits with 0.67, 0.34, 0.14 and 0.07 events took 12, 18, 48 and 74 passes.
        """
        if self.events is None or n_free == 0:
            return seconds
        events = max(float(self.events[receivers].mean()) * self.products.shape[1] / n_free, 1e-2)
        if not gram:
            return seconds * max(1.0, 0.5 + 0.75 / events)
        factor = n_free**3 * (2.5 / self.rates.rows + 1 / 6 / self.rates.hessian)
        seconds *= max(1.0, 0.43 + 0.86 / events)
        return seconds + receivers.size * max(1 - events, 0.0) * factor

    def alone(self, work: Sequence[float], n_free: int, n: int) -> float:
        """Seconds of n receivers with senders of their own, a receiver on each thread.

        Their additions take twice as long as in a tile. A receiver also takes a Hessian or two on
        the sample, and 30 ms of a thread for small parts.
        """
        n_sample = sample_size(n_free, self.n_bins, self.settings.memory_budget)
        return self.passes([2 * part for part in work], n_free, n) + n * (
            n_sample * n_free**2 / self.rates.rows + 0.03 / numba.get_num_threads()
        )

    def pairs(self, n_features: int) -> float:
        """Seconds of ``X'X`` for some features: 3 ns for a pair of events within a window."""
        seconds = 0.0
        for c in self.products.columns:
            additions = kind_of(c).work(c, None, self.n_bins).additions
            n_events = additions / max(c.lags, 1) * min(1, n_features / self.products.shape[1])
            seconds += 3e-9 * n_events**2 * c.lags / max(self.n_bins, 1)
        built = self.built(n_features)
        return seconds + self.n_bins * built * (n_features - built / 2) / self.rates.hessian

    def built(self, n_features: int, multiply: str = "events") -> int:
        """Columns whose rows are built for a product, of a matrix with so many features."""
        if multiply == "rows":
            return n_features
        columns = self.products.columns
        n = sum(c.n_columns for c in columns if not kind_of(c).from_events)
        return -(-n * n_features // self.products.shape[1])

    def chunk_bytes(self, n_features: int, multiply: str = "events") -> float:
        """Bytes of the rows that are built for a chunk of bins, in float32 and in float64."""
        n, n_bins = self.built(n_features, multiply), self.products.shape[0]
        return sum(
            np.dtype(dtype).itemsize * n * min(n_bins, chunk_of_rows(n, dtype))
            for dtype in (np.float32, np.float64)
        )

    def shared_blocks(self, n_features: int, work: Sequence[float], lanes: int) -> float:
        """Seconds of the blocks of ``X'X``, and of the passes that find what they share."""
        size = max(min(BLOCK, n_features), 1)
        n_blocks = -(-n_features // size)
        seconds = n_blocks * (10 * size**3 / self.rates.hessian + self.pairs(size))
        if lanes > 1 and n_blocks > 1:
            seconds += 2 * ROUNDS * N_SHARED * self.products_of(work)[0]
        return seconds

    def shared(self, n_features: int) -> float:
        """Seconds of the parts that all receivers of a matrix share: spectrum and sample.

        For a tenth of 300 cells and 1e6 bins, the selection of events takes 0.02 s, their sum for
        every bin 0.03 s, the count of pairs 0.07 s, and the rows for the leverage 0.05 s.
        """
        n_sample = sample_size(n_features, self.n_bins, self.settings.memory_budget)
        return (
            10 * n_features**3 / self.rates.hessian
            + 4 * n_sample * n_features * min(n_features, SKETCH) / self.rates.rows
            + 1.5e-8 * n_sample * n_features
            + 5e-8 * self.n_bins
            + self.pairs(n_features)
        )

    def common(self, sizes: Sequence[int]) -> tuple[int, float, float, float]:
        """Size and cost of the sums and the sample that masks of these sizes have in common.

        Returns the bins of the sample, the bytes while it and the sums are made, the bytes
        afterwards, and the seconds. All are 0 if every mask makes its own sums.
        """
        n_features = self.products.shape[1]
        if np.square(np.array(sizes, float)).sum() <= _WORTH * n_features**2:
            return 0, 0.0, 0.0, 0.0
        n_sample = self.common_sample(sizes)
        gram, rows = 8 * n_features**2, 4 * n_sample * n_features
        keeping = gram + rows + 4 * self.products.shape[0]
        making = keeping + max(gram, rows)
        if making >= _COMMON * self.settings.memory_budget:
            return 0, 0.0, 0.0, 0.0
        seconds = self.pairs(n_features) + 1e-8 * n_sample * n_features + 1e-7 * self.n_bins
        return n_sample, making, keeping, seconds

    def common_sample(self, sizes: Sequence[int]) -> int:
        """Number of bins of a sample for all masks.

        The sample is drawn by the activity of all senders, so a mask needs more bins of it than of
        a sample of its own: in a bursting culture, 20, 40 and 80 bins a feature took 10.4, 8.1 and
        6.3 passes, and 20 own bins a feature took 7.8. The size is chosen so that a Hessian on the
        sample costs as much as a pass, at the rates of `TYPICAL`.
        """
        n_features, typical = self.products.shape[1], float(np.mean(sizes))
        additions = self.products.work().additions
        seconds = 4 * additions * typical / n_features / TYPICAL.events + 2e-9 * self.n_bins
        n = seconds * TYPICAL.rows / max(typical, 1) ** 2
        n = max(sample_size(typical, self.n_bins), min(n, sample_size(4 * typical, self.n_bins)))
        return min(int(n), sample_size(n_features, self.n_bins, self.settings.memory_budget))

    def shared_bytes(self, n_features: int) -> tuple[float, float]:
        """Bytes of Gram matrix, eigenvectors and sample while they are made, and afterwards."""
        making, keeping = (36, 12) if n_features <= MAX_FALLBACK else (20, 4)
        n_sample = sample_size(n_features, self.n_bins, self.settings.memory_budget)
        keeping = keeping * n_features**2 + 4 * n_sample * n_features
        return max(making * n_features**2, keeping) + 5e7, keeping + 5e7

    def dense_bytes(self, n_free: int) -> tuple[float, float, float]:
        """Bytes of exact Hessians: while parts are made, kept, and of each receiver."""
        # For a loss that is not convex, another Hessian and its copy.
        matrices = 40 if self.settings.loss.convex else 56
        fixed = 3e8 if n_free > 100 else 1e6
        return fixed, fixed, matrices * n_free**2 + 1e4

    def gram_bytes(
        self, n_features: int, n: float, chunk: float, common: int | None
    ) -> tuple[float, float, float]:
        """Bytes with ``X'X``: while shared parts are made, kept, and of each of n receivers.

        ``common`` is that of `alone_bytes`, or None for receivers that share their senders.
        """
        making, fixed = self.shared_bytes(n_features)
        if common is not None:
            making = fixed = self.alone_bytes(n_features, common)
        n_own = n_own_factors(n_features, self.settings.memory_budget)
        fixed += chunk + 4 * n_features**2 * (min(n_own, n) + 3) * (n_own > 0)
        return making, fixed, self.lane_bytes(n_features)

    def blocks_bytes(self, n_features: int, lanes: int, chunk: float) -> tuple[float, float, float]:
        """Bytes with blocks of ``X'X``: while they are made, kept, and of each receiver."""
        size, each = min(BLOCK, n_features), self.lane_bytes(n_features, gram=False)
        fixed = n_features * (4 * size + 24 * N_SHARED) + 36 * size**2 + 5e7 + chunk
        return fixed + (lanes > 1) * N_SHARED * each, fixed, each

    def alone_bytes(self, n_features: int, n_sample: int) -> float:
        """Bytes of a receiver with senders of its own: covariance, factors, rows and their copy.

        ``n_sample`` is the number of bins of the common sample, or 0.
        """
        own = sample_size(n_features, self.n_bins, self.settings.memory_budget)
        total = 44 * n_features**2 + 8 * max(n_sample, own) * n_features
        return total + (5e6 if n_sample else 5e7)

    def lane_bytes(self, n_features: int, gram: bool = True) -> float:
        """Bytes of one receiver: filters and their sums, pairs of steps, weights, chunks."""
        total = Steps.bytes_per_feature * n_features
        if gram:
            total += 4 * sample_size(n_features, self.n_bins, self.settings.memory_budget) * 3
        for c in self.products.columns:
            total += kind_of(c).lane_bytes(c, n_features)
        return total + 12 * (CHUNK + 2 * kernels.PAD)

    def project(self, n: int) -> float:
        """Seconds of ``X'Y`` in float64 for n receivers whose y has a value in every bin."""
        return n * (self.products_of(self.work(None))[1] + 8e-9 * self.n_bins)

    def quadratic(
        self, receivers: np.ndarray, free: np.ndarray, weighted: bool, dense: bool
    ) -> list[Batch]:
        """Batches that are solved from ``X'X``; none if the memory budget does not hold it."""
        if receivers.size == 0:
            return []
        n_features, budget = self.products.shape[1], self.settings.memory_budget
        fixed = 36 * n_features**2 + 1e7 + self.chunk_bytes(n_features)
        each = 12 * 8 * n_features + (24 * CHUNK if dense else 0)
        if fixed + each > 0.8 * budget:
            return []
        size = int(min(receivers.size, (budget - fixed) // each))
        masks = len({column.tobytes() for column in free[:, receivers].T})
        making = self.n_bins * n_features**2 if weighted else 0
        seconds = making / self.rates.hessian + self.pairs(n_features)
        seconds += masks * free.sum(axis=0).max(initial=0) ** 3 / 3 / self.rates.hessian
        seconds += self.project(receivers.size) if dense else 0
        batches = []
        for first in range(0, receivers.size, size):
            some = receivers[first : first + size]
            n_free = int(free[:, some].sum(axis=0).max(initial=0))
            part = seconds * some.size / receivers.size
            batches.append(
                Batch(
                    some, "normal-equations", "rows", kernels.LANES, False, n_free,
                    float(fixed + each * some.size), float(part),
                )
            )  # fmt: skip
        return batches

    def split(
        self,
        receivers: Sequence[int],
        method: str,
        lanes: int,
        free: np.ndarray,
        selected: bool = False,
        common: int = 0,
        sparse: bool = False,
    ) -> list[Batch]:
        """Batches of as many receivers as the memory budget holds.

        Where it does not hold ``X'X``, the batches do without, unless penalties are ``sparse``.
        """
        if len(receivers) == 0:
            return []
        receivers = np.array(receivers)
        alone = selected and lanes == 1
        n_free = int(free[:, receivers].sum(axis=0).max())
        n_features = n_free if selected else self.products.shape[1]
        budget = self.settings.memory_budget
        if method == "newton-cholesky":
            making, fixed, each = self.dense_bytes(n_free)
            gram, lanes = True, 1
        else:
            way = self.multiply(self.work(free[:, receivers].any(axis=1)))
            chunk = self.chunk_bytes(n_features, way)
            given = chunk, common if alone else None
            making, fixed, each = self.gram_bytes(n_features, receivers.size, *given)
            # With as many factors as there may be: the choice depends on no other receiver.
            most, kept, _ = self.gram_bytes(n_features, np.inf, *given)
            gram = sparse or max(most, kept + lanes * each) <= budget
            if not gram:
                making, fixed, each = self.blocks_bytes(n_features, lanes, chunk)
        needed = max(making, fixed + lanes * each)
        if needed > budget:
            raise ValueError(
                f"memory_budget is {_html.size(budget)}; a batch of {lanes} receivers with "
                f"{n_features} features needs {_html.size(needed)}. Raise the budget, use fewer "
                "basis functions, or mask features."
            )
        size = int((budget - fixed) / each) // lanes * lanes
        # Batches of even size: a small last one would cost more for each receiver.
        n_batches = -(-receivers.size // size)
        size = -(-receivers.size // n_batches)
        size = -(-size // lanes) * lanes
        batches = []
        for first in range(0, receivers.size, size):
            some = receivers[first : first + size]
            work = self.work(free[:, some].any(axis=1))
            if method == "newton-cholesky":
                seconds = sum(map(self.hessian, free[:, some].sum(axis=0).tolist()))
            else:
                if alone and gram:
                    seconds = self.alone(work, n_features, some.size)
                else:
                    seconds = self.passes(work, n_features, some.size, gram) + self.calls(n_free)
                seconds = self.scarce(seconds, some, n_free, gram)
                if not common and (selected or not first):
                    seconds += (
                        self.shared(n_features)
                        if gram
                        else self.shared_blocks(n_features, work, lanes)
                    )
            batches.append(
                Batch(
                    some,
                    method,
                    self.multiply(work),
                    lanes,
                    selected,
                    n_free,
                    max(making, fixed + each * (-(-some.size // lanes) * lanes)),
                    float(seconds),
                    gram,
                )
            )
        return batches
