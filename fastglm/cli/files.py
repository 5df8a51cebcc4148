"""Files in and out of the command line."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from fastglm._files import check_declared, npz_path
from fastglm.cli.terminal import shown_log
from fastglm.connectivity.files import check_table, write_table


def check_outputs(paths: dict) -> dict:
    """Paths of what is written of one file, checked before it is read."""
    own = dict(paths)
    if own["out"] is not None:
        own["out"] = npz_path(own["out"])
    if own["table"] is not None:
        check_table(own["table"])
    if own["plot"] is not None:
        plotting_of().check_path(own["plot"])
    if own["report"] is not None:
        plotting_of()
        from fastglm.report import check_path

        check_path(own["report"])
    return own


def write_results(
    couplings: object,
    file: Path,
    job: object,
    paths: dict,
    seconds: float,
    say: Callable = click.echo,
) -> None:
    """Write table, picture and page, each only if its path is given."""
    model = couplings.model
    if paths["table"] is not None:
        write_table(couplings, paths["table"])
        say(f"table: {paths['table']}")
    if paths["plot"] is not None:
        plotting_of().fit_figure(
            couplings, job.bin_size, paths["plot"],
            q=job.q, value=job.value, mark=job.mark, level=job.level,
        )  # fmt: skip
        say(f"picture: {paths['plot']}")
    if paths["report"] is not None:
        from fastglm.report import write_report

        source, how = couplings, {}
        if not couplings.tested:
            source, how = model, {"standard_errors": False}
        write_report(
            paths["report"],
            source,
            bin_size=job.bin_size,
            basis=model.basis_,
            recording=file.absolute().name,
            seconds=seconds,
            settings={**couplings.settings, **job.chosen()},
            q=job.q,
            **how,
        )
        say(f"report: {paths['report']}")


def plotting_of() -> object:
    """`fastglm.plotting`; raises ValueError with how to install what it needs."""
    try:
        from fastglm import plotting
    except ImportError:
        raise ValueError(
            "Pictures need matplotlib: python -m pip install 'fastglm[plot]'."
        ) from None
    return plotting


def load(file: Path, job: object) -> object:
    """The spikes of a file; what is too large for its bins is said alone, without its doubts."""
    import fastglm
    from fastglm.recordings.intervals import full_bins
    from fastglm.recordings.trains import check_n_bins

    with warnings.catch_warnings(record=True) as caught, shown_log():
        warnings.simplefilter("always")
        spikes = fastglm.load_spikes(file, job.where, job.epochs)
        lengths = full_bins(spikes.segments, job.bin_size, spikes.resolution)
        check_n_bins(lengths, job.bin_size, spikes.spike_times.size)
    for one in caught:
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return spikes


def check_recording(spikes: object, job: object, window: float) -> None:
    """Raise ValueError where the window or the family does not fit, before a bar is drawn.

    Parameters
    ----------
    spikes : SpikeTimes
    job : Job
    window : float
        Seconds of history if none is given.
    """
    from fastglm.recordings.intervals import as_epochs, full_bins
    from fastglm.recordings.units import read_units
    from fastglm.workflow import cut_counts

    lengths = full_bins(spikes.segments, job.bin_size, spikes.resolution)
    longest = int(np.diff(as_epochs(lengths)).max())
    n_lags = round((window if job.window is None else job.window) / job.bin_size)
    if n_lags >= longest:
        raise ValueError(
            f"--window of {n_lags} bins leaves no bin of the longest epoch, {longest} bins; "
            "use a shorter window."
        )
    if job.mask is not None and job.mask.shape != (spikes.n_units,) * 2:
        raise ValueError(
            f"{job.mask_path} has shape {job.mask.shape}; expected a map of "
            f"(n_senders, n_receivers) = {(spikes.n_units, spikes.n_units)}."
        )
    if not job.clip and job.model.largest is not None:
        events, _, columns = read_units(spikes, job.bin_size)
        cut_counts(events, False, job.model, spikes, job.bin_size, columns.names)


def read_pairs(path: Path) -> np.ndarray:
    """A sender-by-receiver map of 0 and 1."""
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    with open(path, "rb") as file:
        if file.read(2) == b"PK":
            raise ValueError(f"{path} is an .npz archive; expected one array, .npy.")
        try:
            file.seek(0)
            check_declared(file, path.stat().st_size)
            file.seek(0)
            array = np.load(file, allow_pickle=False)
        except Exception:  # any: NumPy raises several types on a damaged file
            raise ValueError(f"{path} could not be read as an .npy array.") from None
    if array.dtype.kind not in "fiub" or not np.isin(array, (0, 1)).all():
        raise ValueError(f"{path} holds other values than 0 and 1.")
    return array.astype(bool)
