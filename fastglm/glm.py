"""Poisson GLMs of one receiver or a population, with the interface of NeMoS and scikit-learn.

For every receiver j on its own, over the bins where its history is complete,

    minimise  mean_t( mu_tj - y_tj * log(mu_tj) ) + 0.5 * strength_j * |coef_j|^2
    with      mu_tj = g(x_t . coef_j + intercept_j)   expected events per bin.

The intercept is never penalised. This module checks inputs, sorts receivers into batches and
reports; `fastglm._newton` does the numbers.
"""

import warnings

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from fastglm._checks import as_numbers
from fastglm._engine.batch import Settings
from fastglm._engine.checkpoint import Checkpoint
from fastglm._engine.cost import PRODUCTS, events_a_feature
from fastglm._engine.fit import any_known, by_missing, fit_group, key_of, mean_count, sum_counts
from fastglm._engine.monitor import Monitor
from fastglm._engine.observed import Observed
from fastglm._engine.plan import make_plan, read_budget
from fastglm._engine.result import STATUSES, Result
from fastglm._inputs import (
    check_names,
    feature_names,
    keep_names,
    read_binary,
    read_offset,
    read_weight,
)
from fastglm._kernels.threads import single_threaded_blas
from fastglm._products.sweep import Sweep
from fastglm._pynapple import common_timeline, read_values
from fastglm.features.events import Events
from fastglm.features.matrix import as_feature_matrix
from fastglm.observation_models import RESIDUAL_KINDS, as_observation_model
from fastglm.regularizer import UnRegularized, as_regularizer
from fastglm.simulation import read_key

_SOLVERS = ("auto", "newton-cholesky", "newton-cg")
_NEMOS_SOLVERS = (
    "GradientDescent",
    "ProximalGradient",
    "LBFGS",
    "BFGS",
    "NonlinearCG",
    "SVRG",
    "ProxSVRG",
)
_SCORES = ("log-likelihood", "pseudo-r2-McFadden", "pseudo-r2-Cohen")


class PopulationGLM(RegressorMixin, BaseEstimator):
    """Poisson GLMs of a population: every receiver its own exact fit on the same features.

    Parameters
    ----------
    observation_model : "Poisson"
    inverse_link_function : None, "exp" or "softplus"
        Or a function of that name. None is the exponential.
    regularizer : None, str or object of `fastglm.regularizer`
        "UnRegularized", "Ridge", "Lasso", "ElasticNet" or "GroupLasso". Ridge adds
        ``0.5 * strength * |coef|^2`` to the mean loss; see `fastglm.regularizer` for the others.
    regularizer_strength : float or array, optional
        A number, one for each receiver, or one for each coefficient, shape (n_features,
        n_receivers). ElasticNet takes a pair ``(strength, ratio)`` too. Default 1.0, as in NeMoS.
    solver_name : None, "auto", "newton-cholesky" or "newton-cg"
        Exact Hessians, or quasi-Newton steps whose passes see all events. "auto" takes the
        cheaper for each receiver; without ridge, exact Hessians take over where these steps
        meet separation. NeMoS's names are accepted and mean "auto": the optimum does not depend on
        the solver.
    solver_kwargs : dict, optional
        ``tol``: Newton decrement at which a receiver has converged, default 1e-16 (1e-8
        is within a fraction of a standard error at half the passes); ``maxiter``: steps, default
        100; ``products``: "auto", "events" or "rows", how ``X C`` and ``X' R`` are computed.
    feature_mask : array of shape (n_features, n_receivers) or dict, optional
        True or 1 where a feature is in the fit of a receiver; elsewhere the coefficient is
        exactly 0. ``{label: (n_receivers,)}`` switches whole blocks of features.
    memory_budget : float or str, optional
        Bytes, or a string such as "2GB", that a fit may use beside the counts and events; it sets
        how many receivers are fitted at a time. Default: half of what is free. See `plan`.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features, n_receivers)
    intercept_ : ndarray of shape (n_receivers,)
    status_ : ndarray of str, shape (n_receivers,)
        "converged", "silent", "separated", "max_iter", "stalled", "overflow" or "no_bins"; one
        warning says what to do. "imported" after `fastglm.from_nemos`.
    converged_ : ndarray of bool, shape (n_receivers,)
        The objective is at its minimum or infimum: "converged", "silent" or "separated".
    newton_decrement_, grad_norm_, objective_ : ndarrays of shape (n_receivers,)
        Predicted gap to the optimum; largest gradient entry; mean loss plus penalty.
    n_iter_ : ndarray of int, shape (n_receivers,)
        Newton steps.
    n_passes_ : ndarray of int, shape (n_receivers,)
        Passes over the data, one ``X C`` and one ``X' R`` each.
    solver_result_ : Result
        All of these in one object.
    n_features_in_ : int
    feature_names_in_ : ndarray of str, shape (n_features,)
        Only after a fit to a DataFrame.

    Notes
    -----
    Memory of a fit: the events (28 and 16 bytes each as senders and receivers), what all receivers
    share (up to 36 bytes times n_features**2 and a sample of bins), and a batch of receivers sized
    by ``memory_budget``; `plan` tells how much. Nothing grows with n_bins * n_features.

    Where features are collinear and there is no ridge, the answer is the optimum of least norm.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(5000, 4))
    >>> basis = fastglm.basis.RaisedCosineLogConv(5, window_size=50)
    >>> X = basis.compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4)
    >>> model = model.fit(X, counts)
    >>> model.coef_.shape, bool(model.converged_.all())
    ((20, 4), True)
    """

    def __init__(
        self,
        observation_model="Poisson",
        inverse_link_function=None,
        regularizer=None,
        regularizer_strength=None,
        solver_name=None,
        solver_kwargs=None,
        feature_mask=None,
        memory_budget=None,
    ):
        self.observation_model = observation_model
        self.inverse_link_function = inverse_link_function
        self.regularizer = regularizer
        self.regularizer_strength = regularizer_strength
        self.solver_name = solver_name
        self.solver_kwargs = solver_kwargs
        self.feature_mask = feature_mask
        self.memory_budget = memory_budget

    _adjusted = False  # the last fit had weights or an offset
    _names = None  # of the features of the last fit, where they have some
    _receiver_columns = None  # what the receivers are called, where y has named columns

    def __repr__(self, N_CHAR_MAX=700):
        with np.printoptions(threshold=8, edgeitems=2):  # of a mask its corners and its shape
            text = super().__repr__(N_CHAR_MAX)
        return f"{text}\nfitted: {self.solver_result_}" if hasattr(self, "solver_result_") else text

    def _html_repr(self):  # what scikit-learn shows in a notebook
        fitted = hasattr(self, "solver_result_")
        return super()._html_repr() + (self.solver_result_._repr_html_() if fitted else "")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.positive_only = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        tags.input_tags.allow_nan = True  # rows with NaN are dropped
        tags.regressor_tags.poor_score = True  # the score is a log-likelihood, which is not above 0
        return tags

    # --- fit ---

    def fit(
        self,
        X,
        y,
        init_params=None,
        progress=None,
        checkpoint=None,
        *,
        sample_weight=None,
        offset=None,
    ):
        """Fit every receiver.

        An interrupt from the keyboard (Ctrl-C) leaves the model with what is finished: ``status_``
        is "interrupted" for the others, and KeyboardInterrupt goes on to the caller.

        Parameters
        ----------
        X : FeatureMatrix or array of shape (n_bins, n_features)
            From ``basis.compute_features``: never stored.
        y : array of shape (n_bins, n_receivers), or a list of such arrays (trials)
            Events per bin; a SciPy sparse array, `Events` or pynapple's TsdFrame will do. Bins
            where X or a receiver's y is not finite are dropped.
        init_params : tuple (coef, intercept), optional
            Where to start; the optimum does not depend on it.
        progress : True or callable, optional
            True draws a bar with receivers done, passes and time left. A callable is given the
            number of receivers done since its last call, from whatever thread fits them.
        checkpoint : path, optional
            File that keeps what is finished, written after a batch and every 20 s. A fit with
            the same data and settings goes on from there, however it ended.
        sample_weight : array of shape (n_bins,), optional
            How often each bin counts: the fit is that of rows repeated so many times. A bin of
            weight 0 is left out; its counts still are history of the next ones.
        offset : array of shape (n_bins,) or (n_bins, n_receivers), optional
            Added to eta, ``eta = X @ coef + intercept + offset``: with the exponential link the
            log of an exposure (time that a bin was observed, number of trials in it). Needed again
            in `predict` and `score`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If shapes do not fit, y is negative or infinite, a parameter is not known, no bin is
            left, the memory budget is too small, or the checkpoint is of another fit.

        Warns
        -----
        ConvergenceWarning
            Once, if a receiver has another status than "converged".

        Notes
        -----
        Weights and offsets cost one addition a bin and receiver in each pass, and
        ``8 * n_bins`` bytes a column. Weights with the softplus link cost more: there the loss is
        weighed in NumPy, some 50 ns a bin and receiver in each pass.
        """
        names = feature_names(X)
        X, y, free, settings = self._read(X, y)
        weight = read_weight(sample_weight, y.n_bins)
        offset, center = read_offset(offset, y.n_bins, y.n_units), 0.0
        if offset is not None:  # what all bins share is the intercept's: float32 has no room for it
            center = offset[X.valid].mean(axis=0)
            offset = offset - center
        observed, valid = Observed(y, weight, offset), X.valid
        if weight is not None:
            valid = valid & (weight > 0)
        if not (valid & any_known(y)).any():
            raise ValueError("Every bin that has a history and a count has weight 0.")
        self._names, self._adjusted = names, not observed.plain
        self._receiver_columns = None if y.timeline is None else y.timeline.columns
        n_features, n = X.shape[1], y.n_units
        penalty = self._read_penalty(X, free)
        start = self._read_init(init_params, n_features, n)
        if start is not None:
            start = start[0], start[1] + center
        result, saved = Result.empty(n_features, n), None
        if checkpoint is not None:
            saved = Checkpoint(checkpoint, key_of(X, observed, free, penalty, start, settings))
            result = saved.load(n_features, n)
            result.status[result.status == "interrupted"] = ""
        # What an earlier process had begun goes on from its last point.
        begun = (result.status == "") & (result.n_passes > 0)
        again = result.coef.copy(), result.intercept.copy()
        monitor = Monitor(result, settings.tol, progress, saved, log="fit")
        monitor.end(np.flatnonzero(result.status != ""))
        try:
            with single_threaded_blas():
                for known, receivers in by_missing(valid, y):
                    for some, point in (
                        (receivers[begun[receivers]], again),
                        (receivers[~begun[receivers]], start),
                    ):
                        some = some[result.status[some] == ""]
                        fit_group(
                            X, observed, known, some, free, [penalty], point, settings, [result],
                            monitor,
                        )  # fmt: skip
        except KeyboardInterrupt:
            monitor.flush()
            left = result.status == ""
            result.coef[:, left] = result.intercept[left] = np.nan
            result.status[left] = "interrupted"
            result.intercept -= center
            n_left = int((result.status == "interrupted").sum())
            self._finish(result)
            raise KeyboardInterrupt(
                f"fit interrupted with {n - n_left} of {n} receivers finished; the model keeps "
                "them, and status_ tells which"
            ) from None
        finally:
            monitor.close()
        result.intercept -= center
        self._finish(result)
        _warn(result.status)
        return self

    def plan(self, X, y):
        """What `fit` would do, before anything is computed: method, batches, memory and time.

        Parameters
        ----------
        X, y
            As in `fit`.

        Returns
        -------
        Plan
            ``print(plan)`` shows it as a table; see `fastglm._plan.Plan` for its attributes.

        Raises
        ------
        ValueError
            As in `fit`.

        Examples
        --------
        >>> import numpy as np, fastglm
        >>> counts = np.random.default_rng(0).poisson(0.01, size=(5000, 20))
        >>> X = fastglm.basis.RaisedCosineLogConv(8, window_size=100).compute_features(counts)
        >>> model = fastglm.PopulationGLM(regularizer="Ridge", memory_budget="1GB")
        >>> plan = model.plan(X, counts)
        >>> plan.n_receivers, plan.n_features, plan.peak_bytes < 1e9
        (20, 160, True)
        """
        X, y, free, settings = self._read(X, y)
        penalty = self._read_penalty(X, free)
        batches, plan = [], None
        for valid, receivers in by_missing(X.valid, y):
            sums, n_bins = sum_counts(y, valid), int(valid.sum())
            receivers = receivers[sums[receivers] > 0]
            events = events_a_feature(X, n_bins, sums, penalty.level)
            plan = make_plan(X, n_bins, receivers, free, settings, events)
            batches += plan.batches
        plan.batches = batches
        return plan

    def _read(self, X, y):
        """X, y, mask and settings as the solver wants them; raises on what it cannot use."""
        loss = self._loss()
        tol, maxiter, products = self._tolerances()
        method = self._method()
        budget = read_budget(self.memory_budget)
        X = as_feature_matrix(X)
        y = self._read_counts(y, X)
        n_bins = X.shape[0]
        if y.n_bins != n_bins:
            raise ValueError(
                f"X has {n_bins} rows and y {y.n_bins}; expected one row of each per bin."
            )
        if not X.valid.any():
            raise ValueError(
                f"None of the {n_bins} rows of X is finite. A row needs a whole window of history "
                "in its epoch: use longer epochs or a shorter window."
            )
        if not (X.valid & any_known(y)).any():
            raise ValueError("y is NaN in every bin that has a history; nothing to fit.")
        free = self._read_mask(X, y.n_units)
        settings = Settings(loss, tol, maxiter, method, products, budget)
        return X, y, free, settings

    def _finish(self, result):
        self.n_features_in_ = result.coef.shape[0]
        keep_names(self, self._names)
        self._store(result)

    def _store(self, result):
        self.solver_result_ = result
        self.coef_, self.intercept_ = result.coef, result.intercept
        self.status_ = result.status
        self.objective_ = result.objective
        self.grad_norm_ = result.grad_norm
        self.newton_decrement_ = result.newton_decrement
        self.n_iter_, self.n_passes_ = result.n_iter, result.n_passes
        self.converged_ = np.isin(result.status, ("converged", "silent", "separated"))

    # --- what a fitted model gives ---

    def standard_errors(self, X, y, kind="observed"):
        """Standard errors of the coefficients, shape of ``coef_``.

        inf where the data do not determine a coefficient, NaN where it is not in the fit.
        `fastglm.inference.uncertainty` gives covariances, bands and tests as well.

        Parameters
        ----------
        X, y
            As in `fit`.
        kind : {"observed", "robust", "blocks"}
            From the observed information; robust to over- and underdispersion; or also to
            dependence within blocks of time. See `fastglm.inference`, also for ridge fits.

        Examples
        --------
        >>> import numpy as np, fastglm
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(1000, 2))
        >>> y = rng.poisson(np.exp(X @ [0.5, -0.2]))
        >>> fastglm.GLM().fit(X, y).standard_errors(X, y).round(3)
        array([0.031, 0.031])
        """
        from fastglm import inference

        return self._like_coef(inference.uncertainty(self, X, y, kind).standard_errors)

    def coupling_map(self, X, y, kind="observed", **kwargs):
        """Strength, standard error and significance of every coupling.

        Parameters
        ----------
        X, y
            As in `fit`, with X from a convolution basis.
        kind : {"observed", "robust", "blocks"}
            See `standard_errors`.
        **kwargs
            ``label``, ``senders``, ``receivers`` of `fastglm.connectivity.coupling_map`.

        Returns
        -------
        fastglm.connectivity.CouplingMap
        """
        from fastglm import connectivity

        return connectivity.coupling_map(self, X, y, kind, **kwargs)

    def predict(self, X, offset=None):
        """Expected events per bin, shape (n_bins, n_receivers).

        Every row is kept: NaN where X has NaN. Features that have times (`FeatureMatrix.timeline`,
        or a TsdFrame) give a TsdFrame, with the columns and metadata of the counts of the fit.
        ``offset`` is added to eta, as in `fit`; without it, it is 0.
        """
        X = self._check_fitted(X)
        return self._with_times(X, self._expected(X, offset))

    def residuals(self, X, y, kind="response", offset=None):
        """What the model leaves of the counts, bin by bin.

        | kind | residual |
        |---|---|
        | "response" | ``y - mu`` |
        | "pearson" | ``(y - mu) / sqrt(mu)``, variance about 1 where counts are Poisson |
        | "deviance" | ``sign(y - mu) * sqrt(2 * (y * log(y / mu) - (y - mu)))`` |

        Parameters
        ----------
        X, y, offset
            As in `fit`.
        kind : {"response", "pearson", "deviance"}

        Returns
        -------
        array of shape (n_bins, n_receivers), or TsdFrame
            NaN where X or the count is NaN; with times where `predict` has them.

        Raises
        ------
        ValueError
            If the kind is not known, or y does not fit.
        """
        if kind not in RESIDUAL_KINDS:
            raise ValueError(f"kind is {kind!r}; expected one of {list(RESIDUAL_KINDS)}.")
        X = self._check_fitted(X)
        y = self._read_counts(y, X)
        n, model = self._coef().shape[1], self._loss().observation_model
        self._check_shape(y, X, n)
        out = np.full((X.shape[0], n), np.nan)
        for index, mu in self._rates(X, read_offset(offset, X.shape[0], n)):
            out[index] = model.residuals(y.rows(index), mu, kind)
        return self._with_times(X, self._like_y(out))

    def _expected(self, X, offset=None):
        n = self._coef().shape[1]
        out = np.full((X.shape[0], n), np.nan)
        for index, mu in self._rates(X, read_offset(offset, X.shape[0], n)):
            out[index] = mu
        return self._like_y(out)

    def _with_times(self, X, values):
        if X.timeline is None:
            return values
        return X.timeline.wrap(values, self._receiver_columns)

    def score(
        self,
        X,
        y,
        score_type="log-likelihood",
        aggregate_sample_scores=np.mean,
        *,
        sample_weight=None,
        offset=None,
    ):
        """Goodness of fit over the bins where X and y are finite; larger is better.

        Parameters
        ----------
        X, y
            As in `fit`.
        score_type : {"log-likelihood", "pseudo-r2-McFadden", "pseudo-r2-Cohen"}
            The mean over bins and receivers of ``y*log(mu) - mu - gammaln(y + 1)``; or
            ``1 - LL / LL0``; or ``1 - D / D0`` with the deviance D. The null model is each
            receiver's mean of the scored y.
        aggregate_sample_scores : callable, default np.mean
            Replaces the mean: it is given an array of shape (n_bins_kept, n_receivers), NaN where
            only that receiver's count is missing. ``lambda x: x.mean(axis=0)`` scores each
            receiver.
        sample_weight, offset
            As in `fit`. Scores are then those of repeated rows; the null model has the same
            offsets, and an intercept.

        Returns
        -------
        float, or what ``aggregate_sample_scores`` returns

        Raises
        ------
        ValueError
            If the score type is not known, y does not fit, or an aggregate is to be weighted.
        """
        if score_type not in _SCORES:
            raise ValueError(f"score_type is {score_type!r}; expected one of {list(_SCORES)}.")
        X = self._check_fitted(X)
        y = self._read_counts(y, X)
        n = self._coef().shape[1]
        self._check_shape(y, X, n)
        weight = read_weight(sample_weight, y.n_bins)
        offset = read_offset(offset, y.n_bins, n)
        kept = X.valid & any_known(y)
        if weight is not None:
            kept &= weight > 0
            if aggregate_sample_scores is not np.mean:
                raise ValueError(
                    "sample_weight goes with the mean only; weigh the scores in "
                    "aggregate_sample_scores instead."
                )
        if not kept.any():
            raise ValueError("No bin has finite X and y, so there is nothing to score.")
        null = self._null_rates(Observed(y, weight, offset), kept, score_type)
        if aggregate_sample_scores is np.mean:
            aggregate = _RunningMean
        else:
            aggregate = _Collect
        family = self._loss().observation_model
        value = family.deviance if score_type == "pseudo-r2-Cohen" else family.log_likelihood
        model, base = aggregate(), aggregate()
        for index, mu in self._rates(X, offset):
            inside = kept[index]
            index = index[inside]
            counts, weights = y.rows(index), None if weight is None else weight[index][:, None]
            model.add(value(counts, mu[inside]), weights)
            if score_type != "log-likelihood":
                base.add(value(counts, null(index)), weights)
        score = model.result(aggregate_sample_scores)
        if score_type != "log-likelihood":
            with np.errstate(divide="ignore", invalid="ignore"):
                # 0 / 0 where the null model is perfect: the score is NaN.
                score = 1 - np.divide(score, base.result(aggregate_sample_scores))
        return score

    @staticmethod
    def _check_shape(y, X, n):
        if (y.n_bins, y.n_units) != (X.shape[0], n):
            raise ValueError(
                f"y has shape {(y.n_bins, y.n_units)}; expected (n_bins, n_receivers) = "
                f"{(X.shape[0], n)}."
            )

    def _null_rates(self, observed, kept, score_type):
        """A function of bins: the rates of the model without features."""
        if observed.plain or score_type == "log-likelihood":
            mean = mean_count(observed.events, kept)
            return lambda index: mean
        nothing = as_feature_matrix(np.zeros((observed.events.n_bins, 1)))
        n, loss = observed.events.n_units, self._loss()
        free, result = np.zeros((1, n), bool), Result.empty(1, n)
        settings = Settings(loss, 1e-16, 100, "newton-cholesky", "rows", 1e9)
        penalty = UnRegularized().penalty(None, nothing, free)
        monitor = Monitor(result, settings.tol)
        for known, receivers in by_missing(kept, observed.events):
            fit_group(
                nothing, observed, known, receivers, free, [penalty], None, settings, [result],
                monitor,
            )  # fmt: skip
        offset = observed.offset
        return lambda index: loss.mean(result.intercept + (0 if offset is None else offset[index]))

    def simulate(self, random_key, feedforward_input):
        """Draw counts given features; for a network that hears itself see `simulate_recurrent`.

        Parameters
        ----------
        random_key : int, array of int, key of JAX, numpy Generator or None
        feedforward_input : FeatureMatrix or array of shape (n_bins, n_features)

        Returns
        -------
        counts : ndarray of shape (n_bins, n_receivers)
            Float with NaN where the features have NaN, else int64.
        rates : ndarray of shape (n_bins, n_receivers)
        """
        X = self._check_fitted(feedforward_input)
        rates = self._expected(X)
        rng = read_key(random_key)
        known = np.isfinite(rates)
        drawn = rng.poisson(np.where(known, rates, 0.0))
        drawn = drawn if known.all() else np.where(known, drawn, np.nan)
        return self._with_times(X, drawn), self._with_times(X, rates)

    def save_params(self, filename):
        """Write the fitted model to a ``.npz`` file; `fastglm.load_model` reads it."""
        from fastglm.io import save_model

        self._check_fitted()
        save_model(self, filename)

    # --- reading of inputs ---

    def _loss(self):
        return as_observation_model(self.observation_model).loss(self.inverse_link_function)

    def _method(self):
        name = "auto" if self.solver_name is None else str(self.solver_name)
        if name.split("[")[0] in _NEMOS_SOLVERS:
            return "auto"
        if name not in _SOLVERS:
            raise ValueError(f"solver_name is {name!r}; expected one of {list(_SOLVERS)} or None.")
        return name

    def _tolerances(self):
        if not isinstance(self.solver_kwargs, dict | type(None)):
            raise ValueError(
                f"solver_kwargs is {self.solver_kwargs!r}; expected a dict of 'tol' and 'maxiter'."
            )
        kwargs = dict(self.solver_kwargs or {})
        tol = kwargs.pop("tol", 1e-16)
        maxiter = kwargs.pop("maxiter", 100)
        products = kwargs.pop("products", "auto")
        if kwargs:
            raise ValueError(
                f"solver_kwargs holds {sorted(kwargs)}; expected 'tol', 'maxiter' and 'products' "
                "only."
            )
        if products not in ("auto", *PRODUCTS):
            raise ValueError(
                f"solver_kwargs has products={products!r}; expected 'auto', 'events' or 'rows'."
            )
        numbers = all(isinstance(v, int | float | np.number) for v in (tol, maxiter))
        if not numbers or not tol > 0 or not maxiter >= 1:
            raise ValueError(
                f"solver_kwargs has tol={tol} and maxiter={maxiter}; expected tol > 0 and "
                "maxiter >= 1."
            )
        return float(tol), int(maxiter), products

    def _read_counts(self, y, X=None):
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None; give "
                "the counts of the receivers."
            )
        y, timeline = (y, y.timeline) if isinstance(y, Events) else read_values(y, "y")
        if X is not None:
            common_timeline([X.timeline, timeline], ["X", "y"])
        if isinstance(y, list | tuple) and all(
            isinstance(trial, np.ndarray) and trial.ndim == 2 for trial in y
        ):
            if len({trial.shape[1] for trial in y}) != 1:
                raise ValueError(
                    f"Trials of y have shapes {[trial.shape for trial in y]}; expected (n_bins, "
                    "n_receivers) with the same n_receivers in each."
                )
            y = np.concatenate(y)
        y = y if isinstance(y, Events) else as_numbers(y, "y")
        events = Events.of(self._shape_counts(y))
        events.timeline = timeline
        if np.isinf(events.amplitudes).any():
            raise ValueError(
                "y holds infinite counts; expected finite numbers or NaN (bin left out)."
            )
        if (events.amplitudes < 0).any():
            raise ValueError("y holds negative counts; expected the number of events in each bin.")
        return events

    def _shape_counts(self, y):
        if y.ndim != 2 or y.shape[1] == 0:
            raise ValueError(
                f"y has shape {y.shape}; expected (n_bins, n_receivers). For one receiver use "
                "GLM, or y[:, None]."
            )
        return y

    def _read_mask(self, X, n):
        mask, n_features = self.feature_mask, X.shape[1]
        if mask is None:
            return np.ones((n_features, n), bool)
        if isinstance(mask, dict):
            unknown = [label for label in mask if label not in X.labels]
            if unknown:
                raise ValueError(
                    f"feature_mask has labels {unknown}; the features have {X.labels}."
                )
            full = np.ones((n_features, n), bool)
            for label, (start, stop) in zip(X.labels, X.column_ranges, strict=True):
                if label in mask:
                    part = read_binary(mask[label])
                    if part.shape != (n,):
                        raise ValueError(
                            f"feature_mask[{label!r}] has shape {part.shape}; expected "
                            f"(n_receivers,) = ({n},)."
                        )
                    full[start:stop] = part
            return full
        mask = self._shape_mask(read_binary(mask))
        if mask.shape != (n_features, n):
            hint = (
                " Pass feature_mask.T?"
                if mask.shape == (n, n_features)
                else " From a sender-by-receiver map: np.repeat(map, n_basis_funcs, axis=0)."
            )
            raise ValueError(
                f"feature_mask has shape {mask.shape}; expected (n_features, n_receivers) = "
                f"({n_features}, {n}).{hint}"
            )
        return mask

    def _shape_mask(self, mask):
        return mask

    def _read_penalty(self, X, free, strength=None):
        """The penalty of every receiver, with the model's strength or another."""
        regularizer = as_regularizer(self.regularizer)
        given = self.regularizer_strength if strength is None else strength
        if isinstance(regularizer, UnRegularized) and given is not None:
            warnings.warn(
                "regularizer_strength is not used without a regularizer; pass regularizer='Ridge'?",
                UserWarning,
                stacklevel=3,
            )
        return regularizer.penalty(given, X, free)

    def _read_init(self, init_params, n_features, n):
        if init_params is None:
            return None
        if not isinstance(init_params, tuple | list) or len(init_params) != 2:
            raise ValueError("init_params is not a pair; expected (coef, intercept).")
        coef, intercept = (as_numbers(p, "init_params").astype(np.float64) for p in init_params)
        intercept = intercept.ravel()
        coef = coef[:, None] if coef.ndim == 1 else coef
        if coef.shape != (n_features, n) or intercept.shape != (n,):
            raise ValueError(
                f"init_params has shapes {coef.shape} and {intercept.shape}; expected "
                f"(n_features, n_receivers) = {(n_features, n)} and ({n},)."
            )
        if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
            raise ValueError("init_params holds NaN or infinity; expected finite numbers.")
        return coef, intercept

    def _check_fitted(self, X=None):
        if not hasattr(self, "coef_"):
            raise NotFittedError(
                f"This {type(self).__name__} is not fitted yet; call fit(X, y) first."
            )
        if X is None:
            return None
        check_names(self, X)
        X = as_feature_matrix(X)
        n_features = self._coef().shape[0]
        if X.shape[1] != n_features:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting {n_features} "
                "features as input; compute them with the same basis and senders."
            )
        return X

    # --- shapes of one receiver and of many ---

    def _coef(self):
        return self.coef_

    def _like_coef(self, values):
        return values

    def _like_y(self, values):
        return values

    def _rates(self, X, offset=None):
        """Yield the valid bins of each chunk and their expected counts, in float64."""
        loss, coef = self._loss(), self._coef()
        sweep = Sweep(X, coef.shape[1])
        with single_threaded_blas():
            sweep.set_coef(coef)
            for start, n_rows in sweep.chunks():
                index = start + np.flatnonzero(X.valid[start : start + n_rows])
                sweep.forward(start, n_rows)
                eta = sweep.get(n_rows, coef.shape[1])[index - start] + self.intercept_
                yield index, loss.mean(eta if offset is None else eta + offset[index])


class GLM(PopulationGLM):
    """Poisson GLM of one receiver: as `PopulationGLM`, with y of shape (n_bins,).

    ``coef_`` has shape (n_features,), ``intercept_`` (1,), predictions (n_bins,), and
    ``feature_mask`` (n_features,).

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(1000, 2))
    >>> y = np.exp(X @ [0.5, -0.2] + 0.1)
    >>> fastglm.GLM().fit(X, y).coef_.round(6)
    array([ 0.5, -0.2])
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = False
        tags.target_tags.single_output = True
        return tags

    def _store(self, result):
        super()._store(result)
        self.coef_ = result.coef[:, 0]

    def _shape_counts(self, y):
        if isinstance(y, Events) and y.n_units == 1:
            return y
        if y.ndim != 1:
            raise ValueError(
                f"y has shape {y.shape}; expected (n_bins,). For many receivers use PopulationGLM."
            )
        return y[:, None]

    def _shape_mask(self, mask):
        return mask[:, None] if mask.ndim == 1 else mask

    def _coef(self):
        return self.coef_[:, None]

    def _like_coef(self, values):
        return values[:, 0]

    def _like_y(self, values):
        return values[:, 0]


class _RunningMean:
    """Mean over all entries that are not NaN, without keeping them."""

    def __init__(self):
        self.total, self.n = 0.0, 0

    def add(self, values, weights=None):
        known = ~np.isnan(values)
        if weights is None:
            self.total += float(np.sum(values, where=known))
            self.n += int(known.sum())
        else:
            self.total += float(np.sum(weights * values, where=known))
            self.n += float(np.sum(np.broadcast_to(weights, values.shape), where=known))

    def result(self, aggregate):
        return self.total / self.n


class _Collect:
    """All entries, for an aggregate of the user's."""

    def __init__(self):
        self.parts = []

    def add(self, values, weights=None):
        self.parts.append(values)

    def result(self, aggregate):
        return aggregate(np.concatenate(self.parts))


def _warn(status):
    """One warning that names the receivers and the remedy."""
    parts = []
    for name, sentence in STATUSES.items():
        receivers = np.flatnonzero(status == name)
        if name == "converged" or receivers.size == 0:
            continue
        listed = ", ".join(map(str, receivers[:10]))
        if receivers.size > 10:
            listed += f" and {receivers.size - 10} more"
        parts.append(f"{name} (receiver {listed}): {sentence}")
    if parts:
        warnings.warn("; ".join(parts) + ".", ConvergenceWarning, stacklevel=3)
