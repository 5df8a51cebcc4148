"""Recordings: spike times in files and containers, and their counts in bins."""

from fastglm.recordings.spikes import SpikeTimes, bin_spikes, load_spikes

__all__ = ["SpikeTimes", "bin_spikes", "load_spikes"]
