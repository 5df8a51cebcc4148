"""The plan of a fit: method, batches, memory and time, before anything is computed.

A cost model turns counts of operations into seconds with rates that are measured once per process,
in some 50 ms. The choice for a receiver looks at its own mask and the data only, so that its result
does not depend on who else is fitted, but for the last digits where many masks differ
(`Plan.common`).
"""

import os
import time
from dataclasses import dataclass
from functools import cache

import numba
import numpy as np

from fastglm import _html
from fastglm import _kernels as kernels
from fastglm._newton import MAX_FALLBACK
from fastglm._quasi_newton import SKETCH, Steps, n_own_factors, sample_size
from fastglm._threads import run_threads, single_threaded_blas
from fastglm.features import CHUNK, FeatureMatrix, HistoryColumns, Sweep

PRODUCTS = ("events", "rows")
_FREE_PART = 0.5  # of the memory that is free, unless said
_SHARED = 0.4  # a mask that keeps this part of the work is cheaper inside a tile of 16
_COMMON = 0.2  # of the memory, that the sums of all features may take while they are made
# Squares of the features of small masks, as a part of the square of all: for forty masks of a
# tenth of 500 cells the sums of all features cost as much as they save.
_WORTH = 0.4
_SMALL_WORK = 2e9  # multiply-adds below which the rates of `TYPICAL` will do
_UNITS = {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


@dataclass(frozen=True)
class Rates:
    """What a machine does in a second: additions of events and multiply-adds of BLAS."""

    events: float  # float32 additions in X C and X' R from events
    events64: float  # the same in float64
    rows: float  # float32 multiply-adds of products with rows
    hessian: float  # float64 multiply-adds of X' diag(w) X


TYPICAL = Rates(events=28e9, events64=14e9, rows=60e9, hessian=25e9)  # 2 cores of an AMD EPYC


@cache
def measure_rates():
    """Rates of this machine, from the kernels of a fit on made-up events."""
    rng = np.random.default_rng(0)
    counts = (rng.random((CHUNK, 64)) < 0.02).astype(np.uint8)
    window_size, n_funcs, n = 100, 8, 32
    X = FeatureMatrix([HistoryColumns(counts, rng.random((window_size, n_funcs)))])
    additions = 2 * X.columns[0].n_events * window_size * n
    coef = rng.normal(size=(X.shape[1], n))

    def one_pass(dtype):
        sweep = Sweep(X, n, dtype)
        sweep.set_coef(coef)

        def run():
            eta = sweep.forward(0, X.shape[0])
            sweep.backward(0, X.shape[0], eta)

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


def _best_time(function):
    function()
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return min(times)


@dataclass
class Batch:
    """Receivers that go through the solver as one value.

    Attributes
    ----------
    receivers : ndarray of int
    method : "newton-cholesky" or "newton-cg"
    products : "events" or "rows"
        How ``X C`` and ``X' R`` are computed.
    lanes : int
        Receivers a tile; 1 for a receiver with a mask of its own.
    selected : bool
        The batch sees only the senders that its masks leave in.
    n_features : int
        Largest number of free features of a receiver.
    bytes : float
        Memory beside the events, as estimated.
    seconds : float
        Time, as estimated.
    """

    receivers: np.ndarray
    method: str
    products: str
    lanes: int
    selected: bool
    n_features: int
    bytes: float
    seconds: float

    @property
    def alone(self):
        """Whether it is one or two receivers whose senders nobody shares: a thread's work."""
        return self.selected and self.lanes == 1


_HEAD = ["batches", "receivers", "features", "method", "products", "memory", "time"]


@dataclass
class Plan:
    """What a fit is going to do. ``print(plan)`` shows it as a table.

    Attributes
    ----------
    batches : list of Batch
    peak_bytes : float
        Largest memory of a batch beside the events, as estimated.
    memory_budget : float
        Bytes that it was planned for.
    seconds : float
        Estimated time of the whole fit.
    n_bins, n_features, n_receivers : int
    rates : Rates
        Measured on this machine, or typical ones where the problem is small.
    common : int
        Where many small masks take their sums from those of all features, made once: the bins that
        are sampled for all of them. 0 where they do not.
    at_once : int
        Batches of single receivers that are fitted side by side, a thread each.
    """

    batches: list
    memory_budget: float
    n_bins: int
    n_features: int
    rates: Rates
    common: int = 0
    at_once: int = 1

    @property
    def n_receivers(self):
        """Receivers that are fitted."""
        return sum(batch.receivers.size for batch in self.batches)

    @property
    def peak_bytes(self):
        """Largest memory of a batch."""
        return max((batch.bytes for batch in self.batches), default=0.0)

    @property
    def seconds(self):
        """Estimated time of all batches."""
        return sum(batch.seconds for batch in self.batches)

    def __repr__(self):
        return (
            f"{self.n_receivers} receivers x {self.n_features} features, {self.n_bins:,} bins: "
            f"about {_duration(self.seconds)}, {_size(self.peak_bytes)} of "
            f"{_size(self.memory_budget)} beside the events"
        )

    def __str__(self):
        forms = "{:>7}  {:>9}  {:>8}  {:<15}  {:<8}  {:>8}  {:>8}"
        return "\n".join([repr(self), *(forms.format(*row) for row in [_HEAD, *self._rows()])])

    def _repr_html_(self):
        return _html.table(repr(self), self._rows(), _HEAD)

    def _rows(self):
        """Batches that are alike, a row each."""
        groups = {}
        for batch in self.batches:
            key = batch.method, batch.products, batch.lanes
            groups.setdefault(key, []).append(batch)
        return [
            [
                str(len(group)),
                str(sum(b.receivers.size for b in group)),
                str(max(b.n_features for b in group)),
                method,
                products if method == "newton-cg" else "rows",
                _size(max(b.bytes for b in group)),
                _duration(sum(b.seconds for b in group)),
            ]
            for (method, products, _), group in groups.items()
        ]


def make_plan(X, n_bins, receivers, free, settings, events=None):
    """Sort receivers into batches by method, mask and memory.

    Parameters
    ----------
    X : FeatureMatrix
    n_bins : int
        Valid bins.
    receivers : ndarray of int
        Those to be fitted.
    free : ndarray of bool, shape (n_features, n_receivers)
    settings : Settings
        Of the fit.
    events : ndarray, shape (n_receivers,), optional
        From `events_a_feature`, for the time alone: few events for many features take long.

    Raises
    ------
    ValueError
        If the budget does not hold the smallest batch.
    """
    rates = measure_rates() if _is_large(X, n_bins, receivers.size) else TYPICAL
    cost = _Cost(X, n_bins, rates, settings, events)
    dense, wide, narrow = [], [], {}
    total = cost.work(None)
    for j in receivers:
        column = free[:, j]
        n_free = int(column.sum())
        whole = n_free == column.size
        work = total if whole else cost.work(column)
        hessian, passes = cost.hessian(n_free), cost.passes(work, n_free, 1)
        if settings.method == "newton-cholesky" or (
            settings.method == "auto" and hessian <= passes and n_free <= 1000
        ):
            dense.append(j)
        elif min(work) >= _SHARED * min(total):
            wide.append(j)
        else:
            narrow.setdefault(column.tobytes(), []).append(j)
    batches = cost.split(dense, "newton-cholesky", kernels.LANES, free)
    batches += cost.split(wide, "newton-cg", kernels.LANES, free)
    # Receivers of one mask share its senders: a tile of them costs what two alone do.
    groups = [(group, kernels.LANES if len(group) > 2 else 1) for group in narrow.values()]
    sizes = [int(free[:, group].sum(axis=0).max()) for group, _ in groups]
    n_sample, making, keeping, seconds = cost.common(sizes)
    small = []
    for group, lanes in groups:
        small += cost.split(group, "newton-cg", lanes, free, selected=True, common=n_sample)
    n_threads, alone = numba.get_num_threads(), [batch for batch in small if batch.alone]
    each = max((batch.bytes for batch in alone), default=1.0)
    room = max(1, (settings.memory_budget - keeping) // each)
    at_once = int(max(1, min(n_threads, len(alone), room)))
    if 2 * at_once < n_threads:  # one after the other, each on all threads
        at_once = 1
    for batch in small:
        batch.bytes = max(making, keeping + (at_once if batch.alone else 1) * batch.bytes)
        batch.seconds *= n_threads / at_once if batch.alone and at_once > 1 else 1
    if n_sample:
        small[0].seconds += seconds
    return Plan(
        batches + small, settings.memory_budget, n_bins, X.shape[1], rates, n_sample, at_once
    )


def events_a_feature(X, n_bins, sums, ridge):
    """Events of each receiver for each feature whose curvature outweighs its ridge.

    Of senders that are independent and fire at the mean rate, in closed form: the curvature along
    an eigenvector of ``kernel' kernel`` is its eigenvalue times both rates.

    Parameters
    ----------
    X : FeatureMatrix
    n_bins : int
        Valid bins.
    sums, ridge : ndarray, shape (n_receivers,)
        Sum of the counts in those bins, and strength of the ridge.
    """
    n_features = np.zeros(sums.size)
    for c in X.columns:
        if not hasattr(c, "kernel"):
            n_features += c.n_columns
            continue
        rate = c.n_events / max(c.n_senders * X.shape[0], 1)
        values = np.linalg.eigvalsh(c.kernel.T @ c.kernel).clip(min=0)
        curvature = rate * np.outer(sums / n_bins, values)
        part = curvature / np.maximum(curvature + ridge[:, None], np.finfo(float).tiny)
        n_features += c.n_senders * part.sum(axis=1)
    return sums / np.maximum(n_features, 1.0)


def _is_large(X, n_bins, n_receivers):
    return n_bins * X.shape[1] * n_receivers > _SMALL_WORK


class _Cost:
    """Seconds and bytes of batches."""

    def __init__(self, X, n_bins, rates, settings, events):
        self.X, self.n_bins, self.rates, self.settings = X, n_bins, rates, settings
        self.events = events
        precise = max(np.log10(min(1e-11, 1.0) / min(settings.tol, 1e-11)), 0)
        coarse = np.log10(3e-4 / max(settings.tol, 1e-11)).clip(0)
        # A pass gains a digit; about 2 more to begin and to certify.
        self.n_coarse, self.n_precise = 1 + coarse, 1.5 + precise

    def work(self, column):
        """Additions from events, and multiply-adds from rows, of one product for one receiver."""
        events = rows = 0
        for c, (start, stop) in zip(self.X.columns, self.X.column_ranges, strict=True):
            used = None if column is None else column[start:stop]
            if hasattr(c, "kernel"):
                n_events = c.n_events
                if used is not None:
                    senders = used.reshape(c.n_senders, -1).any(axis=1)
                    n_events = np.diff(c.starts)[senders].sum()
                events += n_events * c.kernel.shape[0]
                rows += self.X.shape[0] * (c.n_columns if used is None else int(used.sum()))
            else:
                both = self.X.shape[0] * (c.n_columns if used is None else int(used.sum()))
                events, rows = events + both * self.rates.events / self.rates.rows, rows + both
        return events, rows

    def products(self, work):
        """The cheaper way to multiply, unless one is asked for."""
        if self.settings.products != "auto":
            return self.settings.products
        from_events, from_rows = work[0] / self.rates.events, work[1] / self.rates.rows
        return "events" if from_events <= from_rows else "rows"

    def hessian(self, n_free):
        """Seconds of one receiver by exact Hessians: eight of them."""
        return 8 * self.n_bins * (n_free**2 / self.rates.hessian + n_free * 6e-9 + 2e-8)

    def passes(self, work, n_free, n):
        """Seconds of n receivers by passes, the shared part left out."""
        if self.products(work) == "events":
            coarse, precise = work[0] / self.rates.events, work[0] / self.rates.events64
        else:
            coarse, precise = work[1] / self.rates.rows, 2 * work[1] / self.rates.rows
        n_sample = sample_size(n_free, self.n_bins, self.settings.memory_budget)
        n_passes = self.n_coarse + self.n_precise
        return n * (
            self.n_coarse * 2 * coarse
            + self.n_precise * 2 * precise
            + n_passes * 2e-9 * self.n_bins
            + (30 + 6 * n_passes) * 2 * n_sample * n_free / self.rates.rows
            + 2e-3
        )

    def scarce(self, seconds, receivers, n_free):
        """Seconds of `passes` where events are few, and factors on bins of their own are made.

        With ten, 1.7, 0.85 and 0.43 events a feature, fits to 1e-8 took 6, 6, 11 and 18 passes; of
        the receivers in the last two 0.2 and 0.6 had a factor.
        """
        if self.events is None or n_free == 0:
            return seconds
        events = max(float(self.events[receivers].mean()) * self.X.shape[1] / n_free, 1e-2)
        factor = n_free**3 * (2.5 / self.rates.rows + 1 / 6 / self.rates.hessian)
        seconds *= max(1.0, 0.43 + 0.86 / events)
        return seconds + receivers.size * max(1 - events, 0.0) * factor

    def alone(self, work, n_free, n):
        """Seconds of n receivers with senders of their own, on all threads, a receiver on each.

        Their additions take twice as long as in a tile; a Hessian or two on the sample, and 30 ms
        of a thread for all that is small.
        """
        n_sample = sample_size(n_free, self.n_bins, self.settings.memory_budget)
        return self.passes([2 * part for part in work], n_free, n) + n * (
            n_sample * n_free**2 / self.rates.rows + 0.03 / numba.get_num_threads()
        )

    def pairs(self, n_features):
        """Seconds of the pairs of events within a window of some features: 3 ns each."""
        seconds = 0.0
        for c in self.X.columns:
            if hasattr(c, "kernel"):
                n_events = c.n_events * min(1, n_features / self.X.shape[1])
                seconds += 3e-9 * n_events**2 * c.kernel.shape[0] / max(self.n_bins, 1)
        return seconds

    def shared(self, n_features):
        """Seconds of the parts that all receivers of a matrix share: spectrum and sample.

        A tenth of 300 cells, 1e6 bins: 0.02 s select the events, 0.03 s sum them up for every bin,
        0.07 s count their pairs, 0.05 s make rows of the bins that are looked at.
        """
        n_sample = sample_size(n_features, self.n_bins, self.settings.memory_budget)
        return (
            10 * n_features**3 / self.rates.hessian
            + 4 * n_sample * n_features * min(n_features, SKETCH) / self.rates.rows
            + 1.5e-8 * n_sample * n_features
            + 5e-8 * self.n_bins
            + self.pairs(n_features)
        )

    def common(self, sizes):
        """What masks of these sizes take from all features: a sample, bytes and seconds.

        Bins of the sample, bytes while it and the sums are made, bytes afterwards, and seconds; all
        0 where every mask makes its own.
        """
        n_features = self.X.shape[1]
        if np.square(np.array(sizes, float)).sum() <= _WORTH * n_features**2:
            return 0, 0.0, 0.0, 0.0
        n_sample = self.common_sample(sizes)
        gram, rows = 8 * n_features**2, 4 * n_sample * n_features
        keeping = gram + rows + 4 * self.X.shape[0]
        making = keeping + max(gram, rows)
        if making >= _COMMON * self.settings.memory_budget:
            return 0, 0.0, 0.0, 0.0
        seconds = self.pairs(n_features) + 1e-8 * n_sample * n_features + 1e-7 * self.n_bins
        return n_sample, making, keeping, seconds

    def common_sample(self, sizes):
        """Bins of a sample for all masks.

        Drawn by what all senders do, it tells less than one drawn for each mask: 20 bins a feature
        in a bursting culture, 100 cells for an hour, took 10.4 passes in place of 7.8; 40 took 8.1,
        80 took 6.3. So many that a Hessian costs what a pass does, on a typical machine: no result
        may depend on what was measured on this one.
        """
        n_features, typical = self.X.shape[1], float(np.mean(sizes))
        histories = [c for c in self.X.columns if hasattr(c, "kernel")]
        additions = sum(c.n_events * c.kernel.shape[0] for c in histories)
        seconds = 4 * additions * typical / n_features / TYPICAL.events + 2e-9 * self.n_bins
        n = seconds * TYPICAL.rows / max(typical, 1) ** 2
        n = max(sample_size(typical, self.n_bins), min(n, sample_size(4 * typical, self.n_bins)))
        return min(int(n), sample_size(n_features, self.n_bins, self.settings.memory_budget))

    def shared_bytes(self, n_features):
        """Bytes of Gram matrix, eigenvectors and sample while they are made, and afterwards."""
        making, keeping = (36, 12) if n_features <= MAX_FALLBACK else (20, 4)
        n_sample = sample_size(n_features, self.n_bins, self.settings.memory_budget)
        keeping = keeping * n_features**2 + 4 * n_sample * n_features
        return max(making * n_features**2, keeping) + 5e7, keeping + 5e7

    def alone_bytes(self, n_features, n_sample):
        """Bytes of a receiver with senders of its own: covariance, factors, rows and their copy.

        ``n_sample`` is the number of bins of a sample that is there, or 0.
        """
        own = sample_size(n_features, self.n_bins, self.settings.memory_budget)
        total = 44 * n_features**2 + 8 * max(n_sample, own) * n_features
        return total + (5e6 if n_sample else 5e7)

    def lane_bytes(self, n_features):
        """Bytes of one receiver: filters and their sums, pairs of steps, weights, chunks."""
        total = Steps.bytes_per_feature * n_features
        total += 4 * sample_size(n_features, self.n_bins, self.settings.memory_budget) * 3
        for c in self.X.columns:
            if hasattr(c, "kernel"):
                senders = min(c.n_senders, -(-n_features // c.n_funcs))
                lags = c.kernel.shape[0] + 2 * kernels.PAD
                total += senders * lags * 12 + senders * (lags - kernels.PAD) * 16
        return total + 12 * (CHUNK + 2 * kernels.PAD)

    def split(self, receivers, method, lanes, free, selected=False, common=0):
        """Batches of as many receivers as the budget holds."""
        if len(receivers) == 0:
            return []
        receivers = np.array(receivers)
        alone = selected and lanes == 1
        n_free = int(free[:, receivers].sum(axis=0).max())
        n_features = n_free if selected else self.X.shape[1]
        if method == "newton-cholesky":
            fixed, each = 3e8 if n_free > 100 else 1e6, 40 * n_free**2 + 1e4
            making, lanes = fixed, 1
        else:
            making, fixed = self.shared_bytes(n_features)
            if alone:
                making = fixed = self.alone_bytes(n_features, common)
            each = self.lane_bytes(n_features)
            if self.products(self.work(free[:, receivers].any(axis=1))) == "rows":
                fixed += 8 * CHUNK * n_features
        budget = self.settings.memory_budget
        if method == "newton-cg":
            n_own = n_own_factors(n_features, budget)
            fixed += 4 * n_features**2 * (min(n_own, receivers.size) + 3) * (n_own > 0)
        needed = max(making, fixed + lanes * each)
        if needed > budget:
            raise ValueError(
                f"memory_budget is {_size(budget)}; a batch of {lanes} receivers with {n_features} "
                f"features needs {_size(needed)}. Raise the budget, use fewer basis functions, or "
                "mask features."
            )
        size = int((budget - fixed) / each) // lanes * lanes
        # Batches of even size: the last one costs as much a receiver as the others.
        n_batches = -(-receivers.size // size)
        size = -(-receivers.size // n_batches)
        size = -(-size // lanes) * lanes
        batches = []
        for first in range(0, receivers.size, size):
            some = receivers[first : first + size]
            work = self.work(free[:, some].any(axis=1))
            if method == "newton-cholesky":
                seconds = sum(self.hessian(int(free[:, j].sum())) for j in some)
            else:
                seconds = (self.alone if alone else self.passes)(work, n_features, some.size)
                seconds = self.scarce(seconds, some, n_free)
                if not common and (selected or not first):
                    seconds += self.shared(n_features)
            batches.append(
                Batch(
                    some,
                    method,
                    self.products(work),
                    lanes,
                    selected,
                    n_free,
                    max(making, fixed + each * (-(-some.size // lanes) * lanes)),
                    float(seconds),
                )
            )
        return batches


def read_budget(memory_budget):
    """Bytes from a number or a string such as "2GB" or "512 MiB"; None is half of what is free.

    Raises
    ------
    ValueError
        If it is not a positive amount of memory.
    """
    if memory_budget is None:
        return _FREE_PART * _free_memory()
    amount = memory_budget
    if isinstance(amount, str):
        text = amount.strip().lower().replace(" ", "")
        digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
        unit = text[len(digits) :] or "b"
        try:
            amount = float(digits) * _UNITS[unit]
        except (ValueError, KeyError):
            amount = -1.0
    if (
        isinstance(amount, bool)
        or not isinstance(amount, int | float | np.number)
        or not amount > 0
    ):
        raise ValueError(
            f"memory_budget is {memory_budget!r}; expected bytes, or a string such as '2GB' or "
            "'512MiB'."
        )
    return float(amount)


def _free_memory():
    """Bytes that are free now, as far as the system tells; 4 GB if it does not."""
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return 1024.0 * int(line.split()[1])
    except OSError:
        pass
    try:
        return 0.5 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 4e9


def _size(n_bytes):
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes:.0f} B"


def _duration(seconds):
    for unit, size, limit in (
        ("ms", 1e-3, 1),
        ("s", 1, 100),
        ("min", 60, 6000),
        ("h", 3600, np.inf),
    ):
        if seconds < limit:
            return f"{float(f'{seconds / size:.2g}'):g} {unit}"
