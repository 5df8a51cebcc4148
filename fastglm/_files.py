"""Files: written whole or not at all, and read without trust in what they declare."""

from __future__ import annotations

import os
import shutil
import threading
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

_MOST_RATIO = 1040  # bytes that one byte of a deflated file can stand for: 1032, and its blocks


def as_path(path: object) -> Path:
    """The path; raises ValueError if it is neither text nor a Path."""
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"The path is {path!r}; expected the name of a file, as text or Path.")
    return Path(path)


# --- writing ---


def check_output(path: str | Path) -> Path:
    """The path, after a trial that a file can be written there.

    Raises
    ------
    ValueError
        If the path is no regular file, or its folder does not exist or cannot be written to.
    """
    path = as_path(path)
    try:
        folder = path.resolve().parent
        if not folder.is_dir():
            raise ValueError(f"There is no folder {folder} to write to.")
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file"
            raise ValueError(f"{path} is {kind}; expected the name of a file.")
        if path.exists() and not os.access(path, os.W_OK):
            raise ValueError(f"{path} is read-only; give another name.")
        temporary = _beside(path)
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}.") from None
    return path


def npz_path(path: str | Path) -> Path:
    """The ``.npz`` file that is written to: the ending is appended where it is missing.

    Raises
    ------
    ValueError
        If the path is a folder, or no file can be written there.
    """
    path = as_path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected the name of a file.")
    return check_output(path if path.suffix == ".npz" else path.with_name(path.name + ".npz"))


@contextmanager
def replacing(path: str | Path, lasting: bool = True) -> Iterator[IO[bytes]]:
    """A file to write beside the path; it takes the place of the path when the block ends.

    Nothing is left beside the path, and the old file stays as it is, if the block raises. A process
    that is killed leaves the old file, and the new one beside it. ``lasting`` has the new file on
    the disk before it takes the place of the old one: a machine that stops has one of them.
    """
    path = Path(path).resolve()  # the file that a link stands for
    temporary = _beside(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _beside(path):
    """A name in the folder of a path that no other thread uses."""
    return path.with_name(f".{path.name[:40]}.{os.getpid()}.{threading.get_ident()}")


# --- reading ---


@contextmanager
def reading(path: str | Path, what: str) -> Iterator[None]:
    """Turns every error of the libraries that read a damaged file into one sentence.

    Which exceptions they raise on damaged bytes is not documented: zipfile, zlib, NumPy and h5py
    raise some fifteen types. A ValueError that names the path is ours and passes.

    Raises
    ------
    ValueError
        Always with the path, in one line.
    """
    try:
        yield
    except (ImportError, FileNotFoundError, PermissionError):
        raise
    except ValueError as error:
        text = one_line(error)
        raise ValueError(text if str(path) in text else f"{path}: {text}") from None
    except MemoryError:
        raise ValueError(
            f"{path} could not be read as {what}: it is too large for the memory, or damaged."
        ) from None
    except Exception as error:
        raise ValueError(
            f"{path} could not be read as {what}: it is damaged ({describe(error)})."
        ) from None


def one_line(error: object) -> str:
    """The text of an error in one line."""
    return " ".join(str(error).split())


def describe(error: Exception) -> str:
    """Type and text of an error in one line."""
    return f"{type(error).__name__}: {one_line(error)}".removesuffix(": ")


def sentence(error: BaseException) -> str:
    """An error as one line for users."""
    if isinstance(error, ValueError | OSError | ImportError):
        return one_line(error)
    if isinstance(error, MemoryError):
        return f"The memory is not enough. {one_line(error)}".strip()
    return (
        f"{describe(error)}. This is a fault of fastglm; please report it, with what "
        "FASTGLM_TRACEBACK=1 shows."
    )


def check_version(path: str | Path, version: int, newest: int) -> None:
    """Raise ValueError if the format of a file is newer than the newest that is known."""
    if version > newest:
        raise ValueError(
            f"{path} has format version {version}; this fastglm reads up to {newest}. Upgrade "
            "fastglm."
        )


PICKLED = np.array("pickled, which is not read, since a pickle can run code")


def read_npz(path: str | Path, what: str, pickles: bool = False) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file, without pickle.

    An array is read only if the file holds as many bytes as the array declares. An array of
    objects is pickled: it is an error, or with ``pickles`` the text `PICKLED` stands for it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no ``.npz`` file of plain arrays, or is damaged.
    """
    path = as_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    size = path.stat().st_size
    with open(path, "rb") as file:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of NumPy, about headers of Python 2
                pickled = _check_members(file, size)
                file.seek(0)
                with np.load(file, allow_pickle=False) as archive:
                    return {
                        name: PICKLED if pickles and f"{name}.npy" in pickled else archive[name]
                        for name in archive.files
                    }
        except Exception:  # any: zipfile, zlib and NumPy raise some ten types
            raise ValueError(
                f"{path} could not be read as {what}: it is not an .npz file of plain arrays, or "
                "it is damaged."
            ) from None


def read_npy(path: str | Path, what: str) -> np.ndarray:
    """The array of an ``.npy`` file, without pickle; see `open_npy`."""
    return np.array(open_npy(path, what))


def open_npy(path: str | Path, what: str) -> np.ndarray:
    """The array of an ``.npy`` file, of which only what is used is read from the disk.

    Raises
    ------
    ValueError
        If the file is no plain array, or holds fewer bytes than it declares.
    """
    path = as_path(path)
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of NumPy, about headers of Python 2
            check_declared(file, path.stat().st_size)
            if file.tell() == path.stat().st_size:  # nothing to map
                file.seek(0)
                return np.load(file, allow_pickle=False)
            return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # any: NumPy raises some five types
        raise ValueError(
            f"{path} could not be read as {what}: it is not an .npy file of a plain array, or it "
            "is damaged."
        ) from None


def _check_members(file, size):
    """Names of the pickled arrays of an archive.

    ValueError if an array declares more than the archive holds.
    """
    pickled = set()
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError
            ratio = 1 if member.compress_type == zipfile.ZIP_STORED else _MOST_RATIO
            if member.file_size > ratio * min(member.compress_size, size) + _MOST_RATIO:
                raise ValueError
            with archive.open(member) as stream:
                if check_declared(stream, member.file_size).hasobject:
                    pickled.add(member.filename)
    return pickled


def check_declared(stream: IO[bytes], size: int) -> np.dtype:
    """The dtype of an array of NumPy's format, which must not declare more bytes than there are.

    Parameters
    ----------
    stream : binary file
        At the start of the array.
    size : int
        Bytes of the stream.

    Raises
    ------
    ValueError
        If the array declares more bytes than the stream has.
    """
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:  # version 3 is for names of fields in other alphabets
        raise ValueError
    shape, _, dtype = read(stream)
    declared = max(dtype.itemsize, 1)
    for length in shape:  # whole numbers of Python do not wrap
        declared *= length
    if min(shape, default=0) < 0 or declared > size:
        raise ValueError
    return dtype
