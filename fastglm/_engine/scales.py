"""Scales that are estimated with the coefficients: the loop around the fits of a batch.

A receiver whose family fits its scale s minimises, over s, b and c together,

    -mean_t log p(y_t | mu_t(b, c), s) + penalty(c)

A fit at a scale leaves a function of s alone, the profile. Its slope is the slope of the likelihood
in s at the fitted means, which is one pass. The loop finds the zero of the slope in ``log s`` by
the secant method, within the bracket that the signs of the slopes so far give. The first fit is
that at scale 0: if the profile does not rise there, this is the optimum.

For the negative binomial family s and the coefficients are orthogonal in the expected information
(Lawless, "Negative binomial and mixed Poisson regression", 1987), so that few steps are needed.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np

from fastglm._engine.batch import Task, fit_task, share_batch
from fastglm._engine.result import Result, is_one_of

_ROUNDS = 50  # fits of a receiver
_STEP = 1e-8  # change of ``log s`` by a last step
_FAR = 2.0  # largest change of ``log s`` by a step without a bracket
_LEAST = 1e-12  # a slope at scale 0, as a part of the size of its terms, that is rounding


def fit_scales(task: Task, watch: Callable | None = None) -> list[Result]:
    """As `fit_task`, for a loss whose scale is open; `Result.scale` is the estimate.

    The decrement includes what the likelihood may gain in the scale, to second order.
    """
    if task.shared is None and task.batch.method == "newton-cg":
        budget = task.settings.memory_budget
        task = replace(task, shared=share_batch(task.products, task.batch, budget))
    results, start = [], task.start
    for k in range(len(task.penalties)):
        if task.guide is not None:
            start = task.guide[k]
        results.append(_Profile(task, k, start).run(watch))
        start = results[-1].coef, results[-1].intercept
        if (results[-1].status == "interrupted").any():
            break
    return results


class _Profile:
    """The fits of a batch with one penalty, and the scales so far.

    ``low`` and ``high`` are the scales of the bracket. ``last`` holds ``log s`` and the slope of
    the last round, NaN after that at scale 0.
    """

    def __init__(self, task, k, start):
        self.task, self.penalty, self.start = task, task.penalties[k], start
        shape = task.free.shape
        self.result = Result.empty(*shape)
        self.scale = self.result.scale
        self.scale[:] = 0
        self.low, self.high = np.zeros(shape[1]), np.full(shape[1], np.inf)
        self.last = np.full((2, shape[1]), np.nan)
        self.live = np.arange(shape[1])

    def run(self, watch):
        """The result for every receiver."""
        for _ in range(_ROUNDS):
            self._fit(watch)
            if (self.result.status[self.live] == "interrupted").any():
                self.result.status[self.live] = "interrupted"
                return self.result
            self._move(*self._slopes())
            if not self.live.size:
                return self.result
        status = self.result.status
        status[self.live[status[self.live] == "converged"]] = "max_iter"
        return self.result

    def _fit(self, watch):
        """Fit the receivers that are not done at their scales, from their last points."""
        live, task, result = self.live, self.task, self.result
        loss = task.settings.loss.at(self.scale[live])
        penalty = self.penalty.select(receivers=live)
        start = self.start and (self.start[0][:, live], self.start[1][live])
        own = replace(
            task,
            observed=task.observed.select(live),
            free=task.free[:, live],
            penalties=[penalty],
            settings=replace(task.settings, loss=loss),
            start=start,
            guide=None if start is None or penalty.sparse.any() else [start],
        )
        (found,) = fit_task(own, watch and partial(self._tell, watch))
        found.scale = self.scale[live]
        result.go_on(live, found)
        self.start = result.coef.copy(), result.intercept.copy()

    def _tell(self, watch, found):
        """Call a watch with the whole batch: no receiver is done while its scale is open."""
        shown = deepcopy(self.result)
        shown.put(self.live, replace(found, status=np.full_like(found.status, "")))
        watch(shown)

    def _slopes(self):
        """Slope and curvature of the mean log likelihood in the scale, and the slope's size."""
        live, task = self.live, self.task
        loss, observed = task.settings.loss, task.observed.select(live)
        scale = self.scale[live]
        slope, curvature, size = np.zeros((3, live.size))
        passes = task.products.passes(live.size, task.batch.lanes, task.batch.products)
        coef = np.nan_to_num(self.result.coef[:, live])
        for chunk in passes.forward(coef):
            inside = np.flatnonzero(chunk.valid)
            index = chunk.index.start + inside
            if not index.size:
                continue
            eta = chunk.eta[inside] + self.result.intercept[live]
            shift, factor = observed.shift(index, False), observed.factor(index, False)
            mu = loss.mean(eta if shift is None else eta + shift)
            values = loss.observation_model.scale_derivatives(observed(index), mu, scale)
            with np.errstate(invalid="ignore", over="ignore"):
                for total, part in zip((slope, curvature), values, strict=True):
                    part = part if factor is None else factor * part
                    # One receiver in a row: the bits must not depend on how many there are.
                    total += np.ascontiguousarray(part.T).sum(axis=1)
                size += np.ascontiguousarray(np.abs(values[0]).T).sum(axis=1)
        n_bins = task.products.n_bins
        return slope / n_bins, curvature / n_bins, size / n_bins

    def _move(self, slope, curvature, size):
        """Take the next scales; receivers that are done leave."""
        live, result, scale = self.live, self.result, self.scale[self.live]
        first = scale == 0
        at = np.where(first, 1.0, scale)
        slope, curvature = at * slope, at * (at * curvature + np.where(first, 0.0, slope))
        with np.errstate(all="ignore"):
            where = np.log(at)
            secant = (slope - self.last[1, live]) / (where - self.last[0, live])
            bend = np.where(secant < 0, secant, curvature)
            step = np.where(bend < 0, -slope / bend, np.sign(slope) * _FAR)
        gap = 0.5 * np.abs(slope * step)
        self.last[:, live] = np.where(first, np.nan, [where, slope])
        self.low[live] = np.where(slope > 0, scale, self.low[live])
        self.high[live] = np.where(slope > 0, self.high[live], scale)
        usable = is_one_of(result.status[live], "converged", "separated")
        poisson = first & (slope <= _LEAST * size)
        tight = np.abs(step) <= max(_STEP, np.sqrt(self.task.settings.tol))
        done = ~first & (bend < 0) & (gap <= self.task.settings.tol) & tight
        done &= curvature < 0
        result.newton_decrement[live[done]] += gap[done]
        status = result.status[live]
        status[poisson & (status == "converged")] = "underdispersed"
        result.status[live] = status
        stay = ~(poisson | done) & usable
        self.scale[live] = np.where(stay, self._next(scale, step, first), scale)
        self.live = live[stay]

    def _next(self, scale, step, first):
        """Scales after the steps, kept inside their brackets."""
        low, high = self.low[self.live], self.high[self.live]
        with np.errstate(all="ignore"):
            new = np.where(first, step, scale * np.exp(np.clip(step, -_FAR, _FAR)))
            middle = np.where(low > 0, np.sqrt(low * high), high * np.exp(-_FAR))
            outside = ~((new > low) & (new < high))
        return np.where(outside & np.isfinite(high), middle, new)
