"""Where tasks run: one after another, a thread each, or with an executor of somebody else.

An executor has ``run(items, function, take, stop)``, which calls ``take(item, function(item))`` as
items are done. ``take`` is called in the thread of the caller. An interrupt calls ``stop``. The
items that have begun then return early, and ``take`` gets their results, and a second time one that
it was taking; the other items do not begin. Another machine is another executor.

`Workers` is what users hand over: an executor with ``submit``, such as that of a cluster, with what
it does not tell of itself. `Submitted` runs items there. What all items share is written once
(`fastglm._batches.mapped`); an item travels with a reference to it.
"""

import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import (
    CancelledError,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
)
from contextlib import contextmanager, suppress
from functools import partial

import numba
import numpy as np

from fastglm._batches.jobs import Call, Failed, Unseen, added, same, work, work_here, work_of_dask
from fastglm._batches.mapped import Reference, Store
from fastglm._checks import positive_int, shown
from fastglm._files import describe
from fastglm._kernels.threads import alone

# Tasks for each worker: with one, a slow worker would keep all others waiting for longer; more
# tasks have more tiles that are not full.
_PER_WORKER = 2
_PER_CORE = 4  # tasks for each core of this machine, if nobody knows the number of workers
_TRIES = 2  # times that a task is submitted before the calling process does it
_PAUSES = 1e-3, 0.1  # shortest and longest time between two looks at what is done, seconds


class Serial:
    """One task after another; each has all threads."""

    def run(self, items: Iterable, function: Callable, take: Callable, stop: Callable) -> None:
        """Call ``take(item, function(item))`` for every item."""
        for item in items:
            take(item, function(item))


class Threads:
    """Some tasks at a time, each on one thread: for tasks too small to be divided.

    Kernels inside a task run on its thread alone.
    """

    def __init__(self, n_threads: int):
        self.n_threads = n_threads

    def run(self, items: Iterable, function: Callable, take: Callable, stop: Callable) -> None:
        """Call ``take(item, function(item))`` as items are done."""
        state = np.geterr()

        def call(item):
            with np.errstate(**state), alone():
                return function(item)

        with ThreadPoolExecutor(self.n_threads, "fit", numba.set_num_threads, (1,)) as pool:
            left = {}
            try:
                for item in items:
                    left[pool.submit(call, item)] = item
                for future in as_completed(list(left)):
                    take(left.pop(future), future.result())
            except BaseException:
                stop()
                pool.shutdown(wait=False, cancel_futures=True)
                for future, item in left.items():
                    # Only the first exception is raised.
                    with suppress(CancelledError, Exception, KeyboardInterrupt):
                        take(item, future.result())
                raise


class Workers:
    """An executor, and what it does not tell of its workers.

    ``executor=`` of `PopulationGLM.fit` and of other functions takes an executor as it is. This
    class is for an executor that does not know how many workers it has, such as submitit's, and
    for workers that should take another number of threads or that see another folder.

    As a context it keeps what fits have in common, such as X, on the disk until its end. Each fit
    writes and removes it otherwise.

    Parameters
    ----------
    executor : object
        Anything that has ``submit(function, *arguments)``, whose jobs have ``done()`` and
        ``result()``: executors of `concurrent.futures`, loky, submitit and mpi4py, a Client of
        dask.distributed or its ``get_executor()``.
    n_workers : int, optional
        Number of tasks that run at once. Default: what the executor tells.
    n_threads : int, optional
        Threads of a task. Default: ``SLURM_CPUS_PER_TASK`` of a worker, over the number of tasks
        that run at once on its machine; else its ``OMP_NUM_THREADS``, which Dask sets to 1; else
        its cores over the same number.
    folder : path, optional
        Folder that this process and the workers see, for what tasks share. Default: that of the
        system for temporary files. Workers that do not see it are sent the bytes.

    Raises
    ------
    ValueError
        If the executor has no ``submit``, or a number is not positive, or there is no folder.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> import numpy as np, fastglm
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(5000, 40))
    >>> X = fastglm.basis.RaisedCosineLogConv(3, window_size=20).compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3)
    >>> with ThreadPoolExecutor(2) as pool:
    ...     model = model.fit(X, counts, executor=fastglm.Workers(pool, n_threads=1))
    >>> bool(model.converged_.all())
    True
    """

    def __init__(
        self,
        executor: object,
        n_workers: int | None = None,
        n_threads: int | None = None,
        folder: str | os.PathLike | None = None,
    ) -> None:
        self.executor = _read_executor(executor)
        self._n_workers = n_workers if n_workers is None else positive_int("n_workers", n_workers)
        self.n_threads = n_threads if n_threads is None else positive_int("n_threads", n_threads)
        if folder is not None and not os.path.isdir(folder):
            raise ValueError(f"folder is {str(folder)!r}, which is no folder; create it first.")
        self.folder, self._store, self._n_open = folder, None, 0
        self._slots, self._asks, self.warned = [], True, False

    def __enter__(self) -> "Workers":
        self._n_open += 1
        self._asks, self.warned = True, False  # each fit opens the context
        return self

    def __exit__(self, *error: object) -> None:
        self._n_open -= 1
        if not self._n_open:
            self.close()

    def close(self) -> None:
        """Remove what was written for the workers; those that are still at work stop."""
        if self._store is not None:
            self._store.close()
            self._store = None

    @property
    def here(self) -> bool:
        """Whether the workers are threads of this process."""
        return isinstance(self.executor, ThreadPoolExecutor)

    @property
    def n_workers(self) -> int | None:
        """Number of tasks that run at once; None if nobody knows."""
        if self._n_workers is not None:
            return self._n_workers
        if self.client is not None:
            return len(self.slots) or None
        return getattr(self.executor, "_max_workers", None)

    @property
    def n_tasks(self) -> int:
        """Number of tasks to make of a fit."""
        n = self.n_workers
        return _PER_CORE * (os.cpu_count() or 1) if n is None else _PER_WORKER * n

    @property
    def sharing(self) -> int:
        """Most tasks that run at once on one machine."""
        if self.client is not None:
            machines = Counter(address.rpartition(":")[0] for address in self.slots)
            return max(machines.values(), default=1)
        local = self.here or isinstance(self.executor, ProcessPoolExecutor)
        local = local or "loky" in type(self.executor).__module__.split(".")
        return self.n_workers or 1 if local else 1

    @property
    def slots(self) -> list[str]:
        """With Dask, the addresses of the workers, each as often as it runs tasks at once.

        Dask is asked once a fit. If it gives no answer, the last one stays.
        """
        if self._asks:
            self._asks = False
            with suppress(Exception):  # any: the scheduler may have gone
                found = sorted(self.client.nthreads().items())
                self._slots = [address for address, n_slots in found for _ in range(n_slots)]
        return self._slots

    @property
    def client(self) -> object | None:
        """The Client of Dask, if the executor is one of its."""
        client = getattr(self.executor, "_client", None)
        return client if hasattr(client, "scatter") and hasattr(client, "nthreads") else None

    def submitted(self, function: Callable, value: object) -> "Submitted":
        """An executor of ``function(value, item, n_threads, watch)`` for items.

        The value is written for the workers, unless they are threads of this process.
        """
        if self.here:
            return Submitted(self, None)
        if self._store is None:
            self._store = Store(self.folder)
        reference = self._store.put(value)
        return Submitted(self, Call(function, reference, self.n_threads, self.sharing, np.geterr()))

    @property
    def n_bytes(self) -> int:
        """Bytes that have been written for the workers."""
        return 0 if self._store is None else self._store.n_bytes

    def send(self, reference: Reference) -> object:
        """A value for workers that do not see the folder; with Dask it goes out once."""
        sent = self._store.bytes_of(reference)
        return sent if self.client is None else self.client.scatter([sent])[0]


def _read_executor(executor):
    if hasattr(executor, "get_executor"):  # a Client of Dask
        executor = executor.get_executor(pure=False)
    if isinstance(executor, type) or not callable(getattr(executor, "submit", None)):
        raise ValueError(
            f"executor is {shown(executor)}; expected an object with submit(), such as "
            "concurrent.futures.ProcessPoolExecutor(4), loky.get_reusable_executor(4), or the "
            "Client of dask.distributed. See the page 'Fits on many machines'."
        )
    return executor


@contextmanager
def opened(executor: object):
    """Yield `Workers` of what the user gave as ``executor=``, or None."""
    if executor is None:
        yield None
        return
    with executor if isinstance(executor, Workers) else Workers(executor) as workers:
        yield workers


class Submitted:
    """Items go to the executor of `Workers`, and are taken as they are done.

    An item that is lost with its worker is submitted once more. If the executor takes no more, or
    loses it again, the calling process does it; one warning a fit says so.
    """

    def __init__(self, workers: Workers, call: Call | None):
        self.workers, self.call, self.reason = workers, call, None
        self._bytes, self._n_sent = None, 0

    def run(self, items: Iterable, function: Callable, take: Callable, stop: Callable) -> None:
        """Call ``take(item, function(item))`` as items are done."""
        waiting, running, lost, pause = [_Job(item) for item in items], [], [], _PAUSES[0]
        n = len(waiting)
        try:
            while waiting or running:
                while waiting:
                    job = waiting.pop(0)
                    (running if self._submit(job, function) else lost).append(job)
                job = next((job for job in running if job.future.done()), None)
                if job is None:
                    time.sleep(pause)
                    pause = min(1.5 * pause, _PAUSES[1])
                    continue
                pause, found = _PAUSES[0], self._result(job)
                if found is None:
                    (waiting if job.n_lost < _TRIES else lost).append(job)
                else:
                    take(job.item, found)
                running.remove(job)  # last: after an interrupt, what is done is taken again
        except BaseException:
            stop()
            self._end(running, take)
            raise
        if lost:
            self._warn(len(lost), n)
        for job in lost:
            take(job.item, function(job.item))

    def merged(self, items: list, common: object, function: Callable, add: Callable) -> object:
        """The results of ``(item, common)``, added in pairs until one is left.

        The pairs follow from the number of items. Dask adds them on the workers, each item on the
        worker that had it before; the last sum alone comes here. With other executors this process
        adds them.
        """
        n_lost, sends = 0, False
        while self.workers.client is not None and n_lost < _TRIES:
            found = self._of_dask(items, common, add, n_lost, sends)
            if isinstance(found, Failed):
                raise found.error
            if found is not None and not isinstance(found, Unseen):
                return found
            sends = found is not None and self._bytes is None
            if not sends:
                n_lost, self._bytes = n_lost + 1, None
        jobs, pairs = [(item, common, k) for k, item in enumerate(items)], Pairs(len(items), add)
        if not n_lost:
            self.run(jobs, function, lambda job, found: pairs.put(job[2], found), lambda: None)
            return pairs.total
        self._warn(len(items), len(items))
        for job in jobs:
            pairs.put(job[2], function(job))
        return pairs.total

    def _of_dask(self, items, common, add, n_lost, sends):
        """The sum of the results of items from the workers of Dask; None if it is lost.

        Dask does again what a lost worker has had, as long as some worker has the rest.
        """
        given = getattr(self.workers.executor, "_kwargs", {})  # of Client.get_executor
        submit = partial(self.workers.client.submit, **{**given, "pure": False})
        try:
            slots = self.workers.slots
            if sends:
                self._bytes = self.workers.send(self.call.reference)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sending large graph")  # coefficients
                known = submit(same, common)
            pairs = Pairs(len(items), lambda a, b: submit(added, add, a, b))
            for k, item in enumerate(items):
                where = {}
                if slots and "workers" not in given:
                    home = slots[k % len(slots)]
                    where = {"workers": [home], "allow_other_workers": True}
                leaf = submit(work_of_dask, self.call, item, known, n_lost, self._bytes, **where)
                pairs.put(k, leaf)
            del known, leaf  # the workers keep what the total needs
            return pairs.total.result()
        except Exception as error:
            self.reason = error
            return None
        except BaseException:
            self.workers.close()
            raise

    def _warn(self, n_lost, n):
        """Say that this process does what is lost, once a fit."""
        if self.workers.warned:
            return
        self.workers.warned = True
        warnings.warn(
            f"The executor lost {n_lost} of {n} tasks ({describe(self.reason)}), and this "
            "process does them. Start its workers anew before the next fit. If they ran out "
            "of memory, take fewer at a time, or lower memory_budget.",
            UserWarning,
            stacklevel=3,
        )

    def _submit(self, job, function):
        """Whether the executor takes a job."""
        submit, workers = self.workers.executor.submit, self.workers
        try:
            if self.call is None:
                each = max(1, numba.get_num_threads() // workers.n_workers)
                n_threads = workers.n_threads or each
                job.future = submit(work_here, function, job.item, n_threads, np.geterr())
            else:
                job.future = submit(work, self.call, job.item, job.n_lost, self._sent(job))
        except Exception as error:
            self.reason = error
            return False
        return True

    def _sent(self, job):
        """The bytes of the value for a worker that may not see them, or None.

        The first ones go to different workers, which keep the value for the jobs that follow.
        """
        if not job.n_unseen or (
            job.n_unseen == 1 and self._n_sent >= (self.workers.n_workers or 0)
        ):
            return None
        if self._bytes is None:
            self._bytes = self.workers.send(self.call.reference)
        self._n_sent += 1
        return self._bytes

    def _result(self, job):
        """What a job that has ended gives, or None if it must be done again."""
        try:
            found = job.future.result()
        except Exception as error:
            self.reason = error
            job.n_lost += 1
            return None
        if isinstance(found, Failed):
            raise found.error
        if isinstance(found, Unseen):
            job.n_unseen += 1
            if job.n_unseen > _TRIES:  # it was sent the bytes
                self.reason = FileNotFoundError("a worker found no files")
                job.n_lost += 1
            return None
        return found

    def _end(self, running, take):
        """Take what is done, and leave the rest: workers stop where the folder has gone."""
        self.workers.close()
        for job in running:
            with suppress(Exception):  # not every job can be cancelled
                job.future.cancel()
        for job in running:
            # Only the first exception is raised.
            with suppress(CancelledError, Exception, KeyboardInterrupt):
                if self.workers.here or job.future.done():
                    found = self._result(job)
                    if found is not None:
                        take(job.item, found)


class Pairs:
    """The sum of n values: neighbours are added, then neighbours of these sums, and so on.

    Two values are added when both are there, which may be in any order.
    """

    def __init__(self, n: int, add: Callable):
        self.n, self.add, self.total = n, add, None
        self._waiting = {}

    def put(self, k: int, value: object) -> None:
        """Add value number k."""
        n = self.n
        while n > 1:
            if k ^ 1 < n:  # the last of an odd number waits for nobody
                other = self._waiting.pop((n, k ^ 1), None)
                if other is None:
                    self._waiting[n, k] = value
                    return
                value = self.add(other, value) if k & 1 else self.add(value, other)
            k, n = k // 2, -(-n // 2)
        self.total = value


class _Job:
    """An item, its future, and how often it was lost, or met a worker that saw no files."""

    def __init__(self, item):
        self.item, self.future, self.n_lost, self.n_unseen = item, None, 0, 0
