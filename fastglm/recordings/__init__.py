"""Recordings: spike times in files and containers, and their counts in bins.

| file | what it holds |
|---|---|
| `spikes` | `SpikeTimes`, `bin_spikes` |
| `load` | `load_spikes`, which finds the reader of a file or object |
| `table` | the table of units that every format gives, and the recording that it makes |
| `conditions` | conditions on the columns of units |
| `nwb` | the units of NWB, wherever they are kept |
| `nwb_hdf5`, `nwb_objects`, `nwb_zarr` | where they are kept: HDF5 files, PyNWB's objects, Zarr |
| `kilosort` | folders of Kilosort and Phy |
| `tables` | tables of units and times, CSV and parquet |
| `sortings` | SpikeInterface's sortings and analyzers |
| `blocks` | Neo's spike trains, segments and blocks |
| `stream` | `stream_spikes`: spikes on disk, shard by shard |
| `npz` | recordings in `.npz` files |
| `series` | `load_series`: position, speed, trials of a file |
| `units` | spike times of units, from any container |
| `covariates` | what else drives the cells, at the bins of a recording |
| `bins` | bins in seconds: when a bin is, and what it holds |
| `trains` | spike times as arrays: checked, and counted in bins |
| `channels` | which units are of one channel |
| `intervals` | epochs, trials and observed times |
| `times` | units of time, their resolution, and whether times can be seconds |
"""

from fastglm.recordings.load import load_spikes
from fastglm.recordings.series import load_series
from fastglm.recordings.spikes import SpikeTimes, bin_spikes
from fastglm.recordings.stream import SpikeStream, stream_spikes

__all__ = ["SpikeStream", "SpikeTimes", "bin_spikes", "load_series", "load_spikes", "stream_spikes"]
