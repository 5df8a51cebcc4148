"""Couplings against the empirical null: which filters depart from what the bulk explains.

A coupling must depart from both nulls of `fastglm.connectivity.null`, with and without what the
other direction predicts, and with one sign. Its p-value is the larger one, times how often a filter
of the bulk has such a p-value of 0.01, over 0.01: the larger of two is conservative. It is 1 where
slow input explains the filter better than a synapse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastglm._fitted import Fitted
from fastglm.connectivity.filters import Filters, evenly
from fastglm.connectivity.null import Bulk, fit_bulk
from fastglm.connectivity.scan import Against, Scan, Ways, largest_p_value, scans, synapses

_FEWEST, _ENOUGH = 200, 1000  # pairs: without fewer there is no null, with fewer T is shrunk
_LONGEST, _COARSE = 0.005, 0.002  # seconds of a bin
_MOST_COUPLED = 0.4  # part of the pairs
_LEVEL, _SAMPLE, _DRAWS = 0.01, 400, 200  # p-value, filters and draws of each for calibration


@dataclass
class Null:
    """What couplings were tested against.

    Attributes
    ----------
    name : {"model", "empirical"}
        "model": a filter is zero, and its error is the standard error. "empirical": filters of
        unconnected pairs are like the bulk of all filters.
    n_pairs : int
        Pairs that the bulk was learned from.
    confounding : float
        Standard deviation of what unobserved input does to a filter, over the median standard
        error; the mean over basis functions. 0.1 is clean. From 1 on the standard errors say
        little. NaN with "model".
    why : str
        What else is to know: why the null is the model's though the empirical one was asked for, or
        what limits it.
    """

    name: str = "model"
    n_pairs: int = 0
    confounding: float = np.nan
    why: str = ""

    @property
    def sentence(self) -> str:
        """One or two sentences for a reader."""
        if self.name == "model":
            text = "Tested against the model: unobserved input is not accounted for"
            return f"{text}, because {self.why}." if self.why else f"{text}."
        text = (
            f"Tested against an empirical null of {self.n_pairs:,} pairs; confounding is "
            f"{self.confounding:.2g} of the standard errors."
        )
        return f"{text} {self.why}".strip()


def empirical_test(fit: Fitted, filters: Filters) -> tuple[Scan | None, Null]:
    """The scan of all filters against the empirical null, or why there is none.

    Parameters
    ----------
    fit : Fitted
    filters : Filters
        Of all pairs of different cells.

    Returns
    -------
    scan : Scan or None
        z is 0 where the two nulls find different signs. None if there is no empirical null.
    null : Null
    """
    n, why = filters.lit.size, _why_not(fit, filters)
    if why:
        return None, Null(why=why)
    bulk = fit_bulk(filters)
    if not np.isfinite(bulk.spread).all():
        return None, Null(why="the distribution of the filters has no finite maximum")
    if bulk.outliers > _MOST_COUPLED:
        part = f"{bulk.outliers:.0%} of the pairs are far from the bulk"
        return None, Null(why=f"{part}, and most pairs must be unconnected")
    bulks = [bulk]
    if (filters.reverse >= 0).any():
        bulks.append(fit_bulk(filters, bulk))
    nulls = [Against(b.mean, _Confounding(filters, b), b) for b in bulks]
    found = scans(filters, nulls)  # of both at once: their covariances are made once
    found = found[0] if len(found) == 1 else _both(*found)
    found.calibration = _calibration(filters, bulks)
    confounding = float(np.mean(np.sqrt(np.diag(bulk.spread)) / np.sqrt(filters.variance)))
    return found, Null("empirical", n, confounding, _limits(n, filters.bin_size))


def _why_not(fit, filters):
    n, bin_size = filters.lit.size, filters.bin_size
    if fit.penalty.sparse.any():
        return f"after {fit.regularizer} coefficients that are not zero have no free covariance"
    if bin_size > _LONGEST:
        return f"bins of {1e3 * bin_size:g} ms are longer than {1e3 * _LONGEST:g} ms"
    if n < _FEWEST:
        dark = " and are not of one channel" if filters.shadowed.any() else ""
        return f"{n} pairs have a covariance{dark}, and an empirical null needs {_FEWEST}"
    return ""


def _limits(n, bin_size):
    text = []
    if n < _ENOUGH:
        text.append(
            f"From fewer than {_ENOUGH:,} pairs confounding is poorly known: {n / _ENOUGH:.0%} of "
            "what was found is used."
        )
    if bin_size >= _COARSE:
        text.append(f"Bins of {1e3 * bin_size:g} ms lose the fine timing of synapses.")
    return " ".join(text)


class _Confounding:
    """The covariance of what unobserved input does to each filter, made for the rows that are read.

    ``a_i b_j T``, less where pairs are few.
    """

    def __init__(self, filters: Filters, bulk: Bulk):
        self.pairs, self.bulk = filters.pairs, bulk
        self.part = min(1.0, filters.lit.size / _ENOUGH)

    def __getitem__(self, rows):
        sender, receiver = self.pairs[rows].T
        factor = self.part * self.bulk.sender[sender] * self.bulk.receiver[receiver]
        return factor[:, None, None] * self.bulk.spread


def _both(one, other):
    """The weaker of two scans of the same filters, with 0 where their signs differ."""
    weaker = np.abs(other.z) / other.scale < np.abs(one.z) / one.scale
    z = np.where(weaker, other.z / other.scale, one.z / one.scale)
    z[np.sign(one.z) != np.sign(other.z)] = 0.0
    path, share = (
        np.where(weaker, getattr(other, name), getattr(one, name)) for name in ("path", "share")
    )
    slow = one.slow | other.slow
    return Scan(z, one.delay, path, one.coincidences, share, slow=slow)


def _calibration(filters, bulks):
    """How often filters that are drawn from the last bulk have a p-value of 0.01, over 0.01."""
    some = evenly(filters.lit, _SAMPLE)
    _, coef = synapses(filters)
    normal = np.random.default_rng(0).normal(size=(len(some), coef.shape[1], _DRAWS))
    last, p, signs = bulks[-1], 0.0, []
    ways = [Ways(filters.covariance[some] + _Confounding(filters, b)[some], coef) for b in bulks]
    residual = ways[-1].root @ normal
    for bulk, way in zip(bulks, ways, strict=True):
        z = way.departures(residual + (last.mean - bulk.mean)[some, :, None])
        z = np.take_along_axis(z, np.abs(z).argmax(axis=1, keepdims=True), axis=1)[:, 0]
        p = np.maximum(p, largest_p_value(np.abs(z), way.path[:, None]))
        signs.append(np.sign(z))
    return float(((p <= _LEVEL) & (signs[0] == signs[-1])).mean() / _LEVEL)
