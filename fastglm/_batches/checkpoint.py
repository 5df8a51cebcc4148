"""A file that keeps the results of finished receivers."""

import hashlib
import os
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np

from fastglm._engine.result import Result

_FORMAT = "fastglm checkpoint"


class Checkpoint:
    """A file with the result so far, and a key of the data and settings that it belongs to.

    A new file is written beside the old one, and then replaces it. A process that is killed while
    it writes leaves the old file whole.
    """

    def __init__(self, path: str | os.PathLike, key: str):
        self.path, self.key = Path(path), key
        if not self.path.parent.is_dir():
            raise ValueError(
                f"checkpoint is {str(path)!r}, but there is no folder {self.path.parent}; "
                "create it first."
            )

    def load(self, n_features: int, n: int) -> Result:
        """The saved result, or an empty one if there is no file.

        Raises
        ------
        ValueError
            If the file belongs to other data or settings, or is not a checkpoint.
        """
        if not self.path.exists():
            return Result.empty(n_features, n)
        try:
            with np.load(self.path, allow_pickle=False) as saved:
                if str(saved["format"]) != _FORMAT:
                    raise KeyError("format")
                key = str(saved["key"])
                arrays = {f.name: saved[f.name] for f in fields(Result)}
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile):
            raise ValueError(
                f"{self.path} is not a checkpoint of fastglm, or is damaged; give another path or "
                "delete it."
            ) from None
        if key != self.key:
            raise ValueError(
                f"{self.path} is a checkpoint of other data or settings; give another path, or "
                "delete it to start anew."
            )
        return Result(**arrays)

    def save(self, result: Result) -> None:
        """Write the result."""
        temporary = self.path.with_name(self.path.name + f".{os.getpid()}.part")
        arrays = {f.name: getattr(result, f.name) for f in fields(Result)}
        try:
            with open(temporary, "wb") as file:
                np.savez(file, format=np.array(_FORMAT), key=np.array(self.key), **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)


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
