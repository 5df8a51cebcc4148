"""Recordings for examples: those that NeMoS's pages use, from where they are published.

Downloads need pooch (``pip install "fastglm[fetch]"``). A file that is already in the folder of
`data_folder` is taken from there, without pooch and without a network.
"""

from __future__ import annotations

import os
from pathlib import Path

from fastglm._checks import import_extra

_FOLDER = "NEMOS_DATA_DIR"  # NeMoS's variable: its users have the files already
_OSF = "https://osf.io/download/{}/"
# Name, identifier at the Open Science Framework.
_FILES = {
    "A0670-221213.nwb": "sbnaw",
    "A2929-200711.nwb": "y7zwd",
    "Achilles_10252013.nwb": "hu5ma",
    "Achilles_10252013_EEG.nwb": "2dfvp",
    "Mouse32-140822.nwb": "jb2gd",
    "allen_478498617.nwb": "vf2nj",
    "m691l1.nwb": "xesdm",
}
DOWNLOADABLE_FILES = list(_FILES)


def data_folder(path: str | Path | None = None) -> Path:
    """The folder of the recordings: ``path``, the variable NEMOS_DATA_DIR, or a cache of the user.

    The cache is ``~/.cache/nemos``, ``~/Library/Caches/nemos`` or ``%LOCALAPPDATA%/nemos``, as in
    NeMoS.
    """
    given = path or os.environ.get(_FOLDER)
    if given:
        return Path(given).expanduser()
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home()), "nemos", "nemos", "Cache")
    mac = Path.home() / "Library" / "Caches"
    base = mac if mac.is_dir() else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "nemos"


def fetch_data(dataset_name: str, path: str | Path | None = None) -> str:
    """The path of a recording, which is downloaded if it is not there yet.

    Parameters
    ----------
    dataset_name : str
        One of `DOWNLOADABLE_FILES`.
    path : path, optional
        Folder of the recordings; see `data_folder`.

    Raises
    ------
    ValueError
        If there is no such recording.
    ImportError
        If it must be downloaded and pooch is not installed.
    ConnectionError
        If it cannot be downloaded. The message names the folder to put the file in.
    """
    folder = data_folder(path)
    file = folder / dataset_name
    if file.is_file():
        return str(file)
    if dataset_name not in _FILES:
        raise ValueError(f"dataset_name is {dataset_name!r}; expected one of {DOWNLOADABLE_FILES}.")
    return _download(_OSF.format(_FILES[dataset_name]), file)


def download_dandi_data(dandiset_id: str, file_path: str, force_download: bool = False) -> object:
    """A recording of the DANDI Archive, open: ``io.read()`` gives the NWB file.

    Parameters
    ----------
    dandiset_id : str
        Six digits, such as "000582".
    file_path : str
        Path of the file in the dandiset.
    force_download : bool, default False
        Download it even if it is in the folder of `data_folder` already.

    Returns
    -------
    pynwb.NWBHDF5IO

    Raises
    ------
    ImportError
        If pynwb is not installed, or pooch where a download is needed.
    ConnectionError
        If it cannot be downloaded. The message names the folder to put the file in.
    """
    pynwb = import_extra("pynwb")
    file = data_folder() / "dandi" / dandiset_id / Path(file_path).name
    if force_download:
        file.unlink(missing_ok=True)
    if not file.is_file():
        url = (
            f"https://api.dandiarchive.org/api/dandisets/{dandiset_id}/versions/draft/assets/"
            f"?path={file_path}"
        )
        _download(_dandi_url(url, file), file)
    return pynwb.NWBHDF5IO(str(file), "r", load_namespaces=True)


def _dandi_url(listing, file):
    """Where the one file of a listing of the archive can be downloaded."""
    import json
    from urllib.request import urlopen

    try:
        with urlopen(listing, timeout=30) as answer:
            (asset,) = json.load(answer)["results"]
    except (OSError, ValueError) as error:
        raise _offline(listing, file, error) from None
    return f"https://api.dandiarchive.org/api/assets/{asset['asset_id']}/download/"


def _download(url, file):
    pooch = import_extra("pooch")
    try:
        return pooch.retrieve(url, None, fname=file.name, path=file.parent, progressbar=True)
    except Exception as error:  # whatever the network and its libraries raise
        raise _offline(url, file, error) from None


def _offline(url, file, error):
    return ConnectionError(
        f"{file.name} cannot be downloaded from {url} ({type(error).__name__}). Download it where "
        f"there is a network, and put it in the folder {file.parent}."
    )


__all__ = ["DOWNLOADABLE_FILES", "data_folder", "download_dandi_data", "fetch_data"]
