"""Options that `infer` and `fit` have in common, and the job that they make.

Names and defaults are those of `fastglm.infer_connectivity` and `fastglm.fit_coupling`. All that
can be checked without the recording is checked before it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from fastglm._checks import check_share
from fastglm.cli.covariates import Covariates, read_wanted
from fastglm.cli.files import read_pairs
from fastglm.inference import KINDS
from fastglm.observation_models import (
    FAMILIES,
    NegativeBinomialObservations,
    as_observation_model,
)
from fastglm.regularizer import REGULARIZERS

BASES = {
    "raised-cosine-log": "RaisedCosineLogConv",
    "raised-cosine-linear": "RaisedCosineLinearConv",
    "history": "HistoryConv",
    "bspline": "BSplineConv",
}
# Counts of spikes are not all above 0.
_FAMILIES = {name.lower(): name for name in FAMILIES if not as_observation_model(name).positive}
_REGULARIZERS = {name.lower(): name for name in REGULARIZERS if name != "Quadratic"}
_PATH = click.Path(path_type=Path)


def file_options(command: Callable) -> Callable:
    """FILE... and what is read of it."""
    return _with(
        click.argument("files", nargs=-1, required=True, metavar="FILE...", type=_PATH),
        click.option(
            "--where",
            help="Units to read, a condition on their columns, such as "
            "\"quality == 'good' and rate > 1\".",
        ),
        click.option(
            "--epochs",
            metavar="obs|trials|...",
            help="Intervals to fit: those that the recording has as observed (obs), or a table of "
            "intervals of NWB files. [default: obs where there are some]",
        ),
        click.option(
            "--channel",
            metavar="COLUMN",
            help="Column of the units that names the channel of each: pairs of one channel are "
            "marked. [default: the recording's, if it has one]",
        ),
        click.option(
            "--covariate",
            "covariates",
            multiple=True,
            metavar="NAME[:FORM[:N]]",
            help="What else drives the units, from the file: a series such as position, two as "
            "x,y, or events such as trials. FORM is spline (default), linear or past for a series, "
            "and past (default) for events; N is the number of functions. May be repeated.",
        ),
        click.option(
            "--covariates-from",
            type=_PATH,
            metavar="FILE",
            help="Another file with the series: NWB, .npz, or a table with a column of times.",
        ),
        click.option(
            "--covariate-window",
            default=1.0,
            show_default=True,
            help="Length of a covariate's past, seconds.",
        ),
    )(command)


def model_options(bin_size: float, window: float, n_basis: int) -> Callable:
    """Bins, histories, penalty and family, with the defaults of a command."""
    return _with(
        click.option("--bin-size", default=bin_size, show_default=True, help="Seconds."),
        click.option(
            "--window", type=float, help=f"Length of history, seconds.  [default: {window:g}]"
        ),
        click.option(
            "--basis",
            "basis_name",
            default="raised-cosine-log",
            show_default=True,
            type=click.Choice(list(BASES)),
        ),
        click.option(
            "--n-basis",
            type=int,
            help=f"Functions of the basis; not for history.  [default: {n_basis}]",
        ),
        click.option(
            "--own-window",
            type=float,
            help="Length of each unit's own history, seconds, if it differs.",
        ),
        click.option(
            "--mask",
            "mask_path",
            type=_PATH,
            help="Couplings to fit: sender-by-receiver map of 0 and 1, .npy.",
        ),
        click.option(
            "--regularizer",
            default="ridge",
            show_default=True,
            type=click.Choice(list(_REGULARIZERS), case_sensitive=False),
            help="Penalty.",
        ),
        click.option(
            "--regularizer-strength",
            "--ridge",
            "strength",
            type=float,
            help="Strength of the penalty. [default of a ridge: 1 / (bins * sd^2), which expects "
            "couplings of sd = 0.2 in log rate]",
        ),
        click.option(
            "--family",
            default="poisson",
            show_default=True,
            type=click.Choice(list(_FAMILIES), case_sensitive=False),
            help="Distribution of the counts of a bin.",
        ),
        click.option(
            "--link",
            help="exp or softplus (poisson, negativebinomial), logistic or cloglog (bernoulli), "
            "identity (gaussian). [default: the first]",
        ),
        click.option(
            "--scale",
            metavar="estimate|NUMBER",
            help="Scale of negativebinomial: the variance of a count is mu + scale * mu^2.  "
            "[default: 1]",
        ),
        click.option("--clip", is_flag=True, help="Count several spikes of a unit and bin as one."),
    )


def result_options(standard_errors: str, null: str, out: str) -> Callable:
    """Tests, and the files that are written."""
    return _with(
        click.option(
            "--standard-errors",
            "kind",
            type=click.Choice(["none", *KINDS]),
            help=f"How they are computed.  [default: {standard_errors}]",
        ),
        click.option(
            "--null",
            default=null,
            show_default=True,
            type=click.Choice(["empirical", "model"]),
            help="What couplings are tested against: the bulk of all filters, or zero.",
        ),
        click.option("--q", default=0.05, show_default=True, help="Largest q-value of a find."),
        click.option("--out", type=_PATH, help=f"{out}, .npz; with several FILEs their folder."),
        click.option(
            "--table", type=_PATH, help="Table with a row for each coupling, .csv or .parquet."
        ),
        click.option("--plot", type=_PATH, help="Picture, .png, .svg or .pdf."),
        click.option("--report", type=_PATH, help="Page, .html."),
        click.option(
            "--value",
            default="strength",
            show_default=True,
            type=click.Choice(["strength", "strength_ms", "added_spikes", "peak"]),
            help="What the picture shows of a coupling.",
        ),
        click.option(
            "--mark",
            default="auto",
            show_default=True,
            type=click.Choice(["auto", "dots", "fade", "none"]),
            help="How the picture marks the couplings that are found.",
        ),
        click.option(
            "--level", default=0.95, show_default=True, help="Level of the bands of filters."
        ),
    )


def session_options(command: Callable) -> Callable:
    """Who does the sessions."""
    return _with(
        click.option(
            "--jobs",
            default=1,
            show_default=True,
            type=click.IntRange(min=1),
            help="Sessions at a time, in processes that share the cores of this machine.",
        ),
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            help="Dask scheduler whose workers do the sessions, such as tcp://node1:8786, or its "
            "scheduler file.",
        ),
        click.option(
            "--task",
            metavar="I/N",
            help="Only the I-th of N shares of the sessions, for an array of jobs.",
        ),
    )(command)


def _with(*options: Callable) -> Callable:
    """A decorator that adds options, the first one on top of the help."""

    def add(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@dataclass(frozen=True)
class Job:
    """Options that hold for every file."""

    bin_size: float
    basis: object | None  # None: that of the call, over the window
    window: float | None
    own_window: float | None
    mask: np.ndarray | None
    mask_path: Path | None
    regularizer: str
    strength: float | None
    model: object
    link: str
    clip: bool
    where: str | None
    epochs: str | None
    channel: str | None
    covariates: Covariates
    kind: str | None
    null: str
    q: float
    value: str
    mark: str
    level: float

    def arguments(self) -> dict:
        """What `fastglm.fit_coupling` and `fastglm.infer_connectivity` are given alike."""
        return {
            "bin_size": self.bin_size,
            "basis": self.basis,
            "window": None if self.basis is not None else self.window,
            "own_window": self.own_window,
            "mask": self.mask,
            "regularizer": self.regularizer,
            "regularizer_strength": self.strength,
            "observation_model": self.model,
            "inverse_link_function": self.link,
            "clip": self.clip,
        }

    def chosen(self) -> dict:
        """Choices that a page lists beside the settings of the fit."""
        names = ("where", "epochs", "channel")
        chosen = {"mask": self.mask_path and str(self.mask_path), "clip": self.clip or None}
        chosen |= {name: getattr(self, name) for name in names}
        return {name: value for name, value in chosen.items() if value is not None}


def read_job(
    bin_size, window, basis_name, n_basis, own_window, mask_path, regularizer, strength, family,
    link, scale, covariates, covariates_from, covariate_window, default_window, default_n_basis,
    **more,
) -> Job:  # fmt: skip
    """Options that hold for all files, checked before the first file is read."""
    _check_penalty(regularizer, strength)
    if not (np.isfinite(bin_size) and bin_size > 0):
        raise ValueError(f"--bin-size is {bin_size}; expected seconds above 0.")
    for name, value in (("window", window), ("own-window", own_window)):
        if value is not None and not (np.isfinite(value) and value / bin_size >= 0.5):
            raise ValueError(f"--{name} is {value} s; expected at least one bin of {bin_size} s.")
    check_share("--q", more["q"], 0.05)
    check_share("--level", more["level"])
    model = _read_family(family, scale)
    if link is not None and link not in model.losses:
        raise ValueError(f"--link is {link}; {family} takes {' or '.join(model.losses)}.")
    basis = None
    if basis_name != "raised-cosine-log" or n_basis is not None:
        n_lags = round((default_window if window is None else window) / bin_size)
        n_basis = default_n_basis if n_basis is None else n_basis
        basis = _make_basis(basis_name, n_basis, max(n_lags, 1))
    return Job(
        bin_size=bin_size,
        window=window,
        own_window=own_window,
        basis=basis,
        mask_path=mask_path,
        mask=None if mask_path is None else read_pairs(mask_path),
        regularizer=_REGULARIZERS[regularizer.lower()],
        strength=strength,
        model=model,
        link=model.loss(link).link,
        covariates=Covariates(
            read_wanted(covariates), covariates_from, round(covariate_window / bin_size)
        ),
        **more,
    )


def _check_penalty(regularizer, strength):
    if strength is None and regularizer not in ("ridge", "unregularized"):
        raise ValueError(
            f"--regularizer {regularizer} needs --regularizer-strength; only a ridge has a "
            "strength by default."
        )
    if strength is not None and regularizer == "unregularized":
        raise ValueError("--regularizer unregularized has no strength; leave one of them out.")
    if strength is not None and not (np.isfinite(strength) and strength >= 0):
        raise ValueError(f"--ridge is {strength}; expected a strength of at least 0.")


def _read_family(family, scale):
    name = _FAMILIES[family.lower()]
    if scale is None:
        return as_observation_model(name)
    if name != NegativeBinomialObservations.name:
        raise ValueError(f"--scale is {scale}; {family} has none, only negativebinomial has.")
    if scale == "estimate":
        return NegativeBinomialObservations(scale=scale)
    try:
        number = float(scale)
    except ValueError:
        number = np.nan
    if not (np.isfinite(number) and number > 0):
        raise ValueError(f"--scale is {scale}; expected estimate, or a number above 0.")
    return NegativeBinomialObservations(scale=number)


def _make_basis(name, n_basis, window_size):
    import fastglm

    cls = getattr(fastglm.basis, BASES[name])
    arguments = (window_size,) if name == "history" else (n_basis, window_size)
    return cls(*arguments, label="coupling")
