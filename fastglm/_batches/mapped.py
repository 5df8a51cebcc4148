"""Values for many tasks: written once into files, which workers map into their memory.

A value is pickled with its arrays apart. Each large array is a file, whose name is a hash of its
bytes: what several values have in common, such as X for all folds, is written once. Processes of
one machine that map a file share its memory. Files are mapped copy-on-write, since Numba compiles
kernels anew for arrays that cannot be written.

A worker that does not see the files gets their bytes, and keeps the value in place of the map.
"""

import gc
import io
import mmap
import os
import pickle
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from fastglm._files import replacing

_LARGE = 1 << 16  # bytes of an array that is a file of its own
_MOST, _IDLE = 2, 60.0  # values that a worker keeps, and seconds for which it keeps them unused


class Reference(NamedTuple):
    """Where a value is: a folder, and the name of a file there."""

    folder: str
    key: str

    @property
    def wanted(self) -> bool:
        """Whether the folder is still there: it goes when nobody waits for results any more."""
        return os.path.isdir(self.folder)


class Store:
    """A folder with values that tasks share.

    Parameters
    ----------
    folder : path, optional
        Where the folder is made. Default: that of the system for temporary files.
    """

    def __init__(self, folder: str | os.PathLike | None = None):
        self._path, self.n_bytes = Path(tempfile.mkdtemp(prefix="fastglm-", dir=folder)), 0

    def put(self, value: object) -> Reference:
        """Write a value, but for arrays that are there already."""
        names = []

        def apart(buffer):
            raw = buffer.raw()
            if raw.nbytes < _LARGE:
                return True  # goes into the pickle
            names.append(self._write(raw))
            return False

        head = io.BytesIO()
        _pickler(head, apart).dump(value)
        return Reference(str(self._path), self._write(pickle.dumps((head.getvalue(), names))))

    def _write(self, data):
        name = blake2b(data, digest_size=16).hexdigest()
        path = self._path / name
        if not path.exists():
            with replacing(path, lasting=False) as file:
                file.write(data)
            self.n_bytes += len(data)
        return name

    def bytes_of(self, reference: Reference) -> dict[str, bytes]:
        """The files of a value, for workers that do not see them."""
        head = (self._path / reference.key).read_bytes()
        names = pickle.loads(head)[1]
        return {reference.key: head} | {name: (self._path / name).read_bytes() for name in names}

    def close(self) -> None:
        """Remove the folder. What is mapped stays until it is unmapped."""
        shutil.rmtree(self._path, ignore_errors=True)


def pickling_error(value: object) -> Exception | None:
    """Why a value cannot be pickled, or None; arrays are not copied."""
    try:
        _pickler(_Nowhere(), lambda buffer: None).dump(value)
    except Exception as error:
        return error
    return None


class _Nowhere:
    """A file that forgets what is written."""

    def write(self, data):
        return len(data)


def _pickler(file, apart):
    """A pickler; with cloudpickle, functions and classes of the main program go by value.

    Workers of Dask and loky, which bring cloudpickle, do not import that program.
    """
    try:
        from cloudpickle import Pickler
    except ImportError:
        Pickler = pickle.Pickler
    return Pickler(file, protocol=5, buffer_callback=apart)


# --- in a worker ---

_kept, _lock = OrderedDict(), threading.RLock()
_n_jobs, _timer = 0, None  # jobs at work, and what forgets after them


def load(reference: Reference, sent: Mapping[str, bytes] | None = None) -> object:
    """The value, as the last call in this process has left it.

    Parameters
    ----------
    reference : Reference
    sent : dict of bytes, optional
        From `Store.bytes_of`.

    Raises
    ------
    FileNotFoundError
        If this process neither has the value nor sees the files, and was not sent them.
    """
    with _lock:
        if reference.key not in _kept:
            head, names = pickle.loads(_read(reference, reference.key, sent))
            buffers = [_read(reference, name, sent) for name in names]
            _kept[reference.key] = pickle.loads(head, buffers=buffers)
        _kept.move_to_end(reference.key)
        while len(_kept) > _MOST:
            _kept.popitem(last=False)
        return _kept[reference.key]


def _read(reference, name, sent):
    if sent is not None:
        return bytearray(sent[name])
    with open(Path(reference.folder, name), "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


@contextmanager
def in_use() -> Iterator[None]:
    """Values stay while a job of this process runs, and `_IDLE` seconds after the last one.

    Mapped files take room on the disk after their folder has been removed.
    """
    global _n_jobs, _timer
    with _lock:
        _n_jobs += 1
    try:
        yield
    finally:
        with _lock:
            _n_jobs -= 1
            if _timer is not None:
                _timer.cancel()
            _timer = threading.Timer(_IDLE, _forget)
            _timer.daemon = True
            _timer.start()


def _forget():
    with _lock:
        if _n_jobs:  # the last of them begins the time anew
            return
        _kept.clear()
    gc.collect()  # cycles of short jobs, which hold values
