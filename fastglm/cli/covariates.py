"""``--covariate NAME[:FORM[:N]]``: series and events of a file, each with its basis."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import mul
from pathlib import Path

import numpy as np

FORMS = ("spline", "linear", "past")
_N_FUNCS = {1: 8, 2: 6}  # functions of each of so many inputs; 5 of more
_N_PAST = 8


@dataclass(frozen=True)
class Wanted:
    """A covariate that was asked for.

    Attributes
    ----------
    text : str
        As it was given; the label of its columns.
    names : list of str
        Series, or one kind of events. Several are the inputs of a common basis.
    form : str or None
        Of `FORMS`; None is the default.
    n_funcs : int or None
        Functions of each input.
    """

    text: str
    names: list[str]
    form: str | None
    n_funcs: int | None


def read_wanted(texts: tuple[str, ...]) -> list[Wanted]:
    """The covariates of ``--covariate``.

    Raises
    ------
    ValueError
        If one has no name, stands twice, or has an unknown form.
    """
    found = [_read(text) for text in texts]
    labels = [",".join(one.names) for one in found]
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise ValueError(f"--covariate {twice[0]} stands twice; give it once.")
    return found


def _read(text):
    name, *more = text.split(":")
    names = [one.strip() for one in name.split(",")]
    form = more.pop(0) if more else None
    number = more.pop(0) if more else None
    if more or not all(names) or (form is not None and form not in FORMS):
        raise ValueError(
            f"--covariate is {text}; expected NAME, NAME:FORM or NAME:FORM:N, with a FORM of "
            f"{', '.join(FORMS)}, such as position:spline:12."
        )
    if number is not None and not (number.isdigit() and int(number) > 0):
        raise ValueError(f"--covariate is {text}; expected a number of functions for N.")
    if number is not None and form == "linear":
        raise ValueError(f"--covariate is {text}; a linear one has no functions, leave N out.")
    return Wanted(text, names, form, None if number is None else int(number))


@dataclass(frozen=True)
class Covariates:
    """What the options say about covariates: a function from recordings to their covariates.

    Attributes
    ----------
    wanted : list of Wanted
    source : Path or None
        Another file with the series.
    window_size : int
        Bins of the past.
    """

    wanted: list[Wanted]
    source: Path | None
    window_size: int

    def __call__(self, file: Path) -> dict | None:
        """Covariates as `fastglm.infer_connectivity` takes them; None if there are none."""
        file = self.source or file
        found = {
            ",".join(one.names): _covariate(file, one, self.window_size) for one in self.wanted
        }
        return found or None


def _covariate(file, wanted, window_size):
    from fastglm.basis import BSplineEval, RaisedCosineLogConv
    from fastglm.recordings import load_series

    inputs = [load_series(file, name) for name in wanted.names]
    past = RaisedCosineLogConv(wanted.n_funcs or _N_PAST, window_size=window_size)
    if any(isinstance(one, list) for one in inputs):
        if len(inputs) > 1 or wanted.form not in (None, "past"):
            raise ValueError(
                f"--covariate is {wanted.text}, and {file} holds times of events; expected "
                "NAME or NAME:past for events, each for itself."
            )
        return past, inputs[0]
    columns = [column for one in inputs for column in _columns(*one)]
    if wanted.form == "linear":
        if len(inputs) > 1:
            raise ValueError(f"--covariate is {wanted.text}; give linear covariates one by one.")
        return inputs[0]
    if wanted.form == "past":
        if len(columns) > 1:
            raise ValueError(
                f"--covariate is {wanted.text}, which has {len(columns)} columns; the past is for "
                "series of one column."
            )
        return past, columns[0]
    n_funcs = wanted.n_funcs or _N_FUNCS.get(len(columns), 5)
    return reduce(mul, [BSplineEval(n_funcs) for _ in columns]), *columns


def _columns(times, values):
    """A series as one of times and values for each of its columns."""
    return [(times, column) for column in np.atleast_2d(np.asarray(values).T)]


def what_else(file: Path, wanted: list[Wanted]) -> str:
    """A sentence on series of a file that were not asked for; empty if there are none."""
    from fastglm.recordings.series import series_names

    left = [name for name in series_names(file) if not any(name in w.names for w in wanted)]
    if not left:
        return ""
    more = f" and {len(left) - 5} more" if len(left) > 5 else ""
    return f"{', '.join(left[:5])}{more} not used; --covariate NAME takes one into the model"
