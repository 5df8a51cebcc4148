"""Recordings in ``.npz`` files: spike times, the unit of each, and the range."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastglm._checks import is_number
from fastglm._files import read_npz
from fastglm.recordings.intervals import check_segments
from fastglm.recordings.spikes import SpikeTimes
from fastglm.recordings.table import within
from fastglm.recordings.times import warn_of_doubt
from fastglm.recordings.trains import check_spikes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_MANY_UNITS = 100_000  # of a file: more need spikes, since every unit takes memory


def read_recording(
    path: Path, where: str | None = None, epochs: str | ArrayLike | None = None
) -> SpikeTimes:
    """The recording of an ``.npz`` file; see `fastglm.load_spikes`."""
    if where is not None:
        raise ValueError(
            f"{path} has no columns of units for where={where!r}; that needs a format with "
            "columns, such as NWB."
        )
    if isinstance(epochs, str) and epochs != "obs":
        raise ValueError(
            f"{path} has no intervals {epochs!r}; an .npz file has segments only (epochs='obs')."
        )
    data = read_npz(path, "a recording")
    wanted = ("spike_times", "unit", "n_units", "t_start", "t_stop")
    missing = [name for name in wanted if name not in data]
    if missing:
        raise ValueError(
            f"{path} has no {', '.join(missing)}; a recording holds {', '.join(wanted)}."
        )
    for name in ("n_units", "t_start", "t_stop"):
        if data[name].size != 1 or not is_number(data[name].item()):
            raise ValueError(f"{path}: {name} is not one finite number.")
    n_units, t_start, t_stop = (data[name].item() for name in ("n_units", "t_start", "t_stop"))
    spikes = check_spikes(data["spike_times"], data["unit"], n_units, t_start, t_stop)
    segments = within(check_segments(data.get("segments"), t_start, t_stop), epochs)
    n_units = spikes.n_units
    if n_units > max(_MANY_UNITS, 100 * spikes.spike_times.size):
        raise ValueError(
            f"{path}: n_units is {n_units:,}, and there are {spikes.spike_times.size} spikes; "
            "expected the number of units."
        )
    adjacency = data.get("adjacency")
    if adjacency is not None and (
        adjacency.shape != (n_units, n_units) or adjacency.dtype.kind not in "fiub"
    ):
        raise ValueError(
            f"{path}: adjacency has shape {adjacency.shape}; expected {(n_units, n_units)}, "
            f"numbers (dtype {adjacency.dtype})."
        )
    channel = data.get("channel")
    if channel is not None and (channel.shape != (n_units,) or channel.dtype.kind not in "iufUS"):
        raise ValueError(
            f"{path}: channel has shape {channel.shape}; expected {(n_units,)}, numbers or texts "
            f"(dtype {channel.dtype})."
        )
    warn_of_doubt(spikes.doubt(segments), f"{path}: ")
    return SpikeTimes(
        *spikes[:3],
        t_start,
        t_stop,
        segments,
        adjacency,
        resolution=spikes.resolution,
        metadata={} if channel is None else {"channel": channel.tolist()},
    )
