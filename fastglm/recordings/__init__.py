"""Recordings: spike times in files and containers, and their counts in bins.

| file | what it holds |
|---|---|
| `spikes` | `SpikeTimes`, `load_spikes`, `bin_spikes` |
| `nwb` | the units of NWB files |
| `units` | spike times of units, from any container |
| `covariates` | what else drives the cells, at the bins of a recording |
| `bins` | bins in seconds: when a bin is, and what it holds |
| `trains` | spike times as arrays: checked, and counted in bins |
| `channels` | which units are of one channel |
| `intervals` | epochs, trials and observed times |
| `times` | units of time, their resolution, and whether times can be seconds |
"""

from fastglm.recordings.spikes import SpikeTimes, bin_spikes, load_spikes

__all__ = ["SpikeTimes", "bin_spikes", "load_spikes"]
