"""The plan of a fit: method, batches, memory and time, before anything is computed.

A cost model turns counts of operations into seconds, at the rates of a typical machine. The
batches therefore depend neither on the speed of this one nor on its load. The method of a receiver
follows from its own mask and the data alone, so that its result does not depend on the other
receivers. There is one exception: where many masks differ (`Plan.common`), the last digits depend
on the other masks.
"""

import math
from dataclasses import dataclass, replace

import numba
import numpy as np

from fastglm import _html
from fastglm import _kernels as kernels
from fastglm._batches.cost import SHARED, TYPICAL, Cost, Rates
from fastglm._checks import group_limit, installed_memory, is_number

_PART = 0.4  # part of the machine's memory that is the default budget
_UNITS = {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_HEAD = ["batches", "receivers", "features", "method", "products", "memory", "time"]


@dataclass
class Plan:
    """The batches of a fit, before it runs. ``print(plan)`` shows them as a table.

    Attributes
    ----------
    batches : list of Batch
    peak_bytes : float
        Largest estimated memory of a batch beside the events.
    memory_budget : float
        Bytes that the fit may use.
    seconds : float
        Estimated time of the whole fit.
    n_bins, n_features, n_receivers : int
    rates : Rates
        Rates of the estimated time.
    common : int
        Number of sampled bins that many small masks share. They then take their sums from those of
        all features, which are made once. 0 if every mask makes its own sums.
    at_once : int
        Number of batches of single receivers that are fitted side by side, a thread each.
    """

    batches: list
    memory_budget: float
    n_bins: int
    n_features: int
    rates: Rates
    common: int = 0
    at_once: int = 1

    @property
    def n_receivers(self) -> int:
        """Number of receivers that are fitted."""
        return sum(batch.receivers.size for batch in self.batches)

    @property
    def peak_bytes(self) -> float:
        """Largest memory of a batch."""
        return max((batch.bytes for batch in self.batches), default=0.0)

    @property
    def seconds(self) -> float:
        """Estimated time of all batches."""
        return sum(batch.seconds for batch in self.batches)

    def divide(self, n_tasks: int, sharing: int) -> None:
        """Cut batches until there are about so many, for workers that take one at a time.

        Batches of single receivers stay: several of them make a task.

        Parameters
        ----------
        n_tasks : int
            Number of batches with all features, and of those with some.
        sharing : int
            Number of batches that share the memory of a machine.
        """
        batches = []
        for selected in (False, True):
            some = [batch for batch in self.batches if batch.selected is selected]
            seconds = sum(batch.seconds for batch in some if not batch.alone)
            for batch in some:
                n = 1.0
                if not batch.alone:
                    n = n_tasks * batch.seconds / max(seconds, 1e-300)
                    n = max(n, sharing * batch.bytes / self.memory_budget, 1.0)
                batches += batch.cut(math.ceil(n))
        self.batches = batches

    def restrict(self, receivers: np.ndarray) -> None:
        """Leave only some receivers in the batches."""
        kept = []
        for batch in self.batches:
            some = batch.receivers[np.isin(batch.receivers, receivers)]
            if some.size:
                kept.append(replace(batch, receivers=some))
        self.batches = kept

    def __repr__(self) -> str:
        return (
            f"{self.n_receivers} receivers x {self.n_features} features, {self.n_bins:,} bins: "
            f"about {_html.duration(self.seconds)}, {_html.size(self.peak_bytes)} of "
            f"{_html.size(self.memory_budget)} beside the events"
        )

    def __str__(self) -> str:
        forms = "{:>7}  {:>9}  {:>8}  {:<15}  {:<8}  {:>8}  {:>8}"
        return "\n".join([repr(self), *(forms.format(*row) for row in [_HEAD, *self._rows()])])

    def _repr_html_(self) -> str:
        return _html.table(repr(self), self._rows(), _HEAD)

    def _rows(self) -> list[list[str]]:
        """Rows of the table, one for each method, way of multiplying and width of a tile."""
        groups = {}
        for batch in self.batches:
            method = batch.method if batch.gram else f"{batch.method}, blocks"
            key = method, batch.products, batch.lanes
            groups.setdefault(key, []).append(batch)
        return [
            [
                str(len(group)),
                str(sum(b.receivers.size for b in group)),
                str(max(b.n_features for b in group)),
                method,
                {"normal-equations": "X'X", "newton-cholesky": "rows"}.get(method, products),
                _html.size(max(b.bytes for b in group)),
                _html.duration(sum(b.seconds for b in group)),
            ]
            for (method, products, _), group in groups.items()
        ]


def plan_fit(
    products,
    receivers: np.ndarray,
    free: np.ndarray,
    settings,
    events: np.ndarray | None = None,
    weighted: bool = False,
    rates: Rates = TYPICAL,
    dense: bool = False,
    sparse: bool = False,
) -> Plan:
    """Sort receivers into batches by method, mask and memory.

    Parameters
    ----------
    products : Products
    receivers : ndarray of int
        Receivers of the fit.
    free : ndarray of bool, shape (n_features, n_receivers)
    settings : Settings
    events : ndarray, shape (n_receivers,), optional
        From `events_a_feature`. Only the estimated time depends on it: it is long for few events
        with many features.
    weighted : bool
        Whether bins have weights.
    rates : Rates
        Only the estimated time depends on them.
    dense : bool
        Whether y has a value in every bin, which costs time where ``X'Y`` is all that is summed.
    sparse : bool
        Whether penalties have a sparse part, whose steps need ``X'X``.

    Raises
    ------
    ValueError
        If the memory budget does not hold the smallest batch.
    """
    n_bins = products.n_bins
    cost = typical = Cost(products, rates, settings, events)
    if rates is not TYPICAL:
        typical = Cost(products, TYPICAL, settings, events)
    if settings.loss.constant_curvature and settings.method == "auto":
        batches = cost.quadratic(receivers, free, weighted, dense)
        if batches:
            budget, n_features = settings.memory_budget, products.shape[1]
            return Plan(batches, budget, n_bins, n_features, rates)
    dense, wide, narrow = [], [], {}
    total, ways = cost.work(None), {}
    for j in receivers:
        column = free[:, j]
        mask = column.tobytes()
        if mask not in ways:
            n_free = int(column.sum())
            work = total if n_free == column.size else cost.work(column)
            hessian, passes = typical.hessian(n_free), typical.passes_of_one(work, n_free)
            if settings.method == "newton-cholesky" or (
                settings.method == "auto" and hessian <= passes and n_free <= 1000
            ):
                ways[mask] = dense
            elif min(work) >= SHARED * min(total):
                ways[mask] = wide
            else:
                ways[mask] = narrow.setdefault(mask, [])
        ways[mask].append(j)
    batches = cost.split(dense, "newton-cholesky", kernels.LANES, free)
    batches += cost.split(wide, "newton-cg", kernels.LANES, free, sparse=sparse)
    # Receivers of one mask share its senders: a tile of them costs as much as two single ones.
    groups = [(group, kernels.LANES if len(group) > 2 else 1) for group in narrow.values()]
    sizes = [int(free[:, group].sum(axis=0).max()) for group, _ in groups]
    n_sample, making, keeping, seconds = cost.common(sizes)
    small = []
    for group, lanes in groups:
        small += cost.split(group, "newton-cg", lanes, free, True, n_sample, sparse)
    n_threads, alone = numba.get_num_threads(), [batch for batch in small if batch.alone]
    each = max((batch.bytes for batch in alone), default=1.0)
    room = max(1, (settings.memory_budget - keeping) // each)
    at_once = side_by_side(len(alone), n_threads, room) if products.concurrent else 1
    for batch in small:
        batch.bytes = max(making, keeping + (at_once if batch.alone else 1) * batch.bytes)
        batch.seconds *= n_threads / at_once if batch.alone and at_once > 1 else 1
    if n_sample:
        small[0].seconds += seconds
    return Plan(
        batches + small, settings.memory_budget, n_bins, products.shape[1], rates, n_sample, at_once
    )


def side_by_side(n_batches: int, n_threads: int, room: float) -> int:
    """Number of batches of single receivers that go side by side, a thread each.

    ``room`` is the number of them that the memory holds. Where less than half of the threads would
    work, it is 1: in turn, each on all threads.
    """
    at_once = int(max(1, min(n_threads, n_batches, room)))
    return 1 if 2 * at_once < n_threads else at_once


def read_budget(memory_budget: float | str | None) -> float:
    """Bytes from a number or a string such as "2GB" or "512 MiB".

    None is `_PART` of the memory of the machine, or of the control group of the process if that is
    less. What is free at the moment does not matter: batches and samples would depend on it.

    Raises
    ------
    ValueError
        If ``memory_budget`` is not a positive amount of memory.
    """
    if memory_budget is None:
        return _PART * min(installed_memory(8e9), group_limit())
    amount = memory_budget
    if isinstance(amount, str):
        text = amount.strip().lower().replace(" ", "")
        digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
        unit = text[len(digits) :] or "b"
        try:
            amount = float(digits) * _UNITS[unit]
        except (ValueError, KeyError):
            amount = -1.0
    if not is_number(amount) or not 0 < amount < 1e30:
        raise ValueError(
            f"memory_budget is {memory_budget!r}; expected bytes, or a string such as '2GB' or "
            "'512MiB'."
        )
    return float(amount)
