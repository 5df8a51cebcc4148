"""A file that keeps the results of finished receivers.

The file begins with a line of its format and a head: key, number of features, number of receivers.
Records follow. A record holds some receivers: how many, their numbers, their part of every field of
`Result` as raw bytes, and a checksum. Later records replace earlier ones.

The first record holds all receivers. It is written to a file beside, which then takes the place of
the old one. A batch that ends is appended, so that its cost is that of its own receivers. A process
that is killed while it appends leaves the begin of a record, which is left out.
"""

import hashlib
import math
import os
import struct
import zlib
from dataclasses import fields
from pathlib import Path

import numpy as np

from fastglm._engine.result import STATUSES, Result
from fastglm._files import check_output, replacing

_NAME, _VERSION = b"fastglm checkpoint ", 2  # 1 was an .npz file
_LINE = _NAME + b"%d\n" % _VERSION
_HEAD = struct.Struct("<32sQQ")
_COUNT, _SUM = struct.Struct("<Q"), struct.Struct("<I")
_DTYPES = {f.name: getattr(Result.empty(0, 0), f.name).dtype for f in fields(Result)}


class Checkpoint:
    """A file with the result so far, and a key of the data and settings that it belongs to."""

    def __init__(self, path: str | os.PathLike, key: str):
        if not isinstance(path, str | os.PathLike):
            raise ValueError(f"checkpoint is {path!r}; expected the name of a file.")
        self.path, self.key = Path(path), key
        self._appends = False  # whether the file holds a whole record of this process
        if not self.path.parent.is_dir():
            raise ValueError(
                f"checkpoint is {str(path)!r}, but there is no folder {self.path.parent}; "
                "create it first."
            )
        if self.path.is_dir():
            raise ValueError(f"checkpoint is {str(path)!r}, a folder; expected the name of a file.")

    def check(self) -> None:
        """Raise ValueError if the file cannot be written."""
        check_output(self.path)

    def load(self, n_features: int, n: int) -> Result:
        """The saved result, or an empty one if there is no file.

        Raises
        ------
        ValueError
            If the file belongs to other data, settings, shapes or another version, or is not a
            checkpoint, or is damaged.
        """
        if not self.path.exists():
            return Result.empty(n_features, n)
        try:
            with open(self.path, "rb") as file:
                self._check_head(file, n_features, n)
                result, record = Result.empty(n_features, n), self._read(file, n_features, n)
                if record is None:
                    raise self._damaged()
                while record is not None:
                    result.put(*record)
                    record = self._read(file, n_features, n)
        except OSError as error:
            raise ValueError(f"{self.path} could not be read: {error.strerror}.") from None
        if not np.isin(result.status, ["", *STATUSES]).all():
            raise self._damaged()
        return result

    def _check_head(self, file, n_features, n):
        """Read the head; raises if it is not that of this fit."""
        line, head = file.read(len(_LINE)), file.read(_HEAD.size)
        if line.startswith(_NAME) and len(line) == len(_LINE) and line != _LINE:
            raise ValueError(
                f"{self.path} is a checkpoint of another version of fastglm; give another path, or "
                "delete it to start anew."
            )
        if line != _LINE or len(head) < _HEAD.size:
            raise self._damaged()
        if head != self._head(n_features, n):
            raise ValueError(
                f"{self.path} is a checkpoint of other data or settings; give another path, or "
                "delete it to start anew."
            )

    def _read(self, file, n_features, n):
        """Receivers and result of the next record; None at the end, or if it is cut off there."""
        count = file.read(_COUNT.size)
        if len(count) < _COUNT.size:
            return None
        (size,) = _COUNT.unpack(count)
        if size > n:
            raise self._damaged()
        forms = [(np.dtype(np.int64), (size,))]
        for name, dtype in _DTYPES.items():
            forms.append((dtype, (n_features, size) if name == "coef" else (size,)))
        sizes = [dtype.itemsize * math.prod(shape) for dtype, shape in forms]
        left = os.fstat(file.fileno()).st_size - file.tell()
        if sum(sizes) + _SUM.size > left:
            return None
        arrays, checksum = [], zlib.crc32(count)
        for (dtype, shape), n_bytes in zip(forms, sizes, strict=True):
            data = file.read(n_bytes)
            checksum = zlib.crc32(data, checksum)
            arrays.append(np.frombuffer(data, dtype).reshape(shape))
        receivers, *values = arrays
        known = _SUM.unpack(file.read(_SUM.size))[0] == checksum
        if not known or (receivers < 0).any() or (receivers >= n).any():
            raise self._damaged()
        return receivers, Result(*values)

    def _head(self, n_features, n):
        return _HEAD.pack(self.key.encode(), n_features, n)

    def _damaged(self):
        return ValueError(
            f"{self.path} is not a checkpoint of fastglm, or is damaged; give "
            "another path or delete it."
        )

    def save(self, result: Result) -> None:
        """Write the result of all receivers."""
        self._appends = False
        n_features, n = result.coef.shape
        with replacing(self.path) as file:
            file.write(_LINE + self._head(n_features, n))
            _write(file, np.arange(n), result)
        self._appends = True

    def add(self, receivers: np.ndarray, result: Result) -> None:
        """Write the result of some receivers, or of all if the file does not hold them yet."""
        if not self._appends:
            self.save(result)
            return
        self._appends = False  # a record that is cut off must be the last
        with open(self.path, "r+b") as file:
            file.seek(0, os.SEEK_END)
            _write(file, receivers, result, receivers)
        self._appends = True


def _write(file, receivers, result, columns=slice(None)):
    """Write a record of some receivers, which are these columns of the result."""
    parts = [np.array(receivers, np.int64)]
    for name, dtype in _DTYPES.items():
        parts.append(np.ascontiguousarray(getattr(result, name)[..., columns], dtype))
    count = _COUNT.pack(len(receivers))
    file.write(count)
    checksum = zlib.crc32(count)
    for part in parts:
        data = part.reshape(-1).view(np.uint8).data
        checksum = zlib.crc32(data, checksum)
        file.write(data)
    file.write(_SUM.pack(checksum))


def fingerprint(*parts) -> str:
    """A key of arrays and of the representations of other objects, the same in every process."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).view(np.uint8).reshape(-1))
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()
