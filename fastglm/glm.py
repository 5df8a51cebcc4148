"""GLMs of one receiver or a population, with the interface of NeMoS and scikit-learn.

For every receiver j on its own, over the bins where its features and its count are known,

    minimise  mean_t loss(eta_tj, y_tj) + penalty_j(coef_j),   eta_tj = x_t . coef_j + intercept_j

with the loss of an observation model (`fastglm.observation_models`): for Poisson observations
``mu - y * log(mu)`` with ``mu = exp(eta)`` expected events per bin. The intercept is never
penalised. This module is the interface: `fastglm._inputs` reads what is given, `fastglm._engine`
fits, and `fastglm._fitted` is what everything else sees of a fit.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.exceptions import ConvergenceWarning as ConvergenceWarning

from fastglm import _remarks, connectivity, inference
from fastglm._absent import OneCall, refuse, refuse_steps
from fastglm._batches.checkpoint import Checkpoint
from fastglm._batches.cost import TYPICAL, events_a_feature, is_large, measure_rates
from fastglm._batches.executors import opened
from fastglm._batches.fit import by_missing, fit_tasks, key_of
from fastglm._batches.monitor import Monitor
from fastglm._batches.plan import Plan, plan_fit
from fastglm._checks import check_choice, read_key
from fastglm._engine.result import Result
from fastglm._fitted import Fitted, fitted_scale, residual_dof, store
from fastglm._inputs import read_loss, read_problem, read_start
from fastglm._kernels.threads import single_threaded_blas
from fastglm._parameters import Parameters
from fastglm._products.local import Local
from fastglm._scores import score
from fastglm._streams import read_chunk, read_stream
from fastglm._summary import Summary, summarise
from fastglm.io import save_model
from fastglm.observation_models import RESIDUAL_KINDS


class PopulationGLM(RegressorMixin, Parameters, OneCall):
    """GLMs of a population: every receiver its own exact fit on the same features.

    Parameters
    ----------
    observation_model : "Poisson", "Bernoulli", "Gaussian", "Gamma", "NegativeBinomial" or object
        Family of the counts; see `fastglm.observation_models`.
    inverse_link_function : None, str or function
        "exp" or "softplus" (Poisson, NegativeBinomial), "logistic" or "cloglog" (Bernoulli),
        "identity" (Gaussian), "one_over_x", "exp" or "softplus" (Gamma), or a function of that
        name. None is the first of the family.
    regularizer : None, str or object of `fastglm.regularizer`
        "UnRegularized", "Ridge", "Lasso", "ElasticNet" or "GroupLasso". Ridge adds
        ``0.5 * strength * |coef|^2`` to the mean loss; see `fastglm.regularizer` for the others.
    regularizer_strength : float, array or dict, optional
        A number, one for each receiver, or one for each coefficient, shape (n_features,
        n_receivers); ``{label: strength}`` for blocks of features. ElasticNet takes a pair
        ``(strength, ratio)`` too. Default 1.0, as in NeMoS.
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
        exactly 0. ``{label: (n_receivers,)}`` switches whole blocks of features;
        ``{label: (n_features, n_receivers)}`` those of a block.
    memory_budget : float or str, optional
        Bytes, or a string such as "2GB", that a fit may use beside the counts and events; it sets
        how many receivers are fitted at a time. Default: two fifths of the memory of the machine or
        container. See `plan`.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features, n_receivers)
    intercept_ : ndarray of shape (n_receivers,)
    scale_ : ndarray of shape (n_receivers,)
        For Gaussian observations the residual sum of squares over ``n - p``, with p free
        coefficients, the intercept included; for Gamma observations Pearson's statistic over
        ``n - p``; for negative binomial observations the scale of the fit; else 1.
    dof_resid_ : ndarray of shape (n_receivers,)
        ``n - p``. NaN where the coefficients come from elsewhere.
    status_ : ndarray of str, shape (n_receivers,)
        "converged", "silent", "saturated", "separated", "underdispersed", "max_iter", "stalled",
        "overflow" or "no_bins"; one warning says what to do. "imported" after `fastglm.from_nemos`.
    converged_ : ndarray of bool, shape (n_receivers,)
        The objective is at its minimum or infimum: "converged", "silent", "saturated",
        "separated" or "underdispersed". With Gamma and negative binomial observations and the
        softplus link, whose loss is not convex, it is a local minimum.
    newton_decrement_, grad_norm_, objective_ : ndarrays of shape (n_receivers,)
        Predicted gap to the optimum; largest gradient entry; mean loss plus penalty.
    n_iter_ : ndarray of int, shape (n_receivers,)
        Newton steps.
    n_passes_ : ndarray of int, shape (n_receivers,)
        Passes over the data, one ``X C`` and one ``X' R`` each.
    solver_result_ : Result
        All of these in one object.
    weighted_, shifted_ : bool
        The fit had ``sample_weight``; had an ``offset``.
    receivers_ : Columns or None
        Names of the receivers, where y has named columns.
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

    single_receiver = False

    def __repr__(self, N_CHAR_MAX=700) -> str:
        with np.printoptions(threshold=8, edgeitems=2):  # of a mask its corners and its shape
            text = super().__repr__(N_CHAR_MAX)
        return f"{text}\nfitted: {self.solver_result_}" if hasattr(self, "solver_result_") else text

    def _html_repr(self):  # what scikit-learn shows in a notebook
        fitted = hasattr(self, "solver_result_")
        return super()._html_repr() + (self.solver_result_._repr_html_() if fitted else "")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.positive_only = _has_no_negative_counts(self)
        tags.target_tags.multi_output = not self.single_receiver
        tags.target_tags.single_output = self.single_receiver
        tags.input_tags.allow_nan = True  # rows with NaN are dropped
        tags.regressor_tags.poor_score = True  # the score is a log-likelihood, which is not R2
        return tags

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
        executor=None,
    ) -> PopulationGLM:
        """Fit every receiver.

        An interrupt from the keyboard (Ctrl-C) leaves the model with what is finished: ``status_``
        is "interrupted" for the others, and KeyboardInterrupt goes on to the caller.

        Parameters
        ----------
        X : FeatureMatrix, array of shape (n_bins, n_features), or a tree of them
            From ``basis.compute_features``: never stored. A dict or list of features is a tree,
            whose shape ``coef_`` has (`fastglm.pytrees`).
        y : array of shape (n_bins, n_receivers), or a list of such arrays (trials)
            Events per bin, or what the observation model has in their place; a SciPy sparse array,
            `Events` or pynapple's TsdFrame will do. Bins where X or a receiver's y is NaN are
            dropped.
        init_params : tuple (coef, intercept), optional
            Where to start; the optimum does not depend on it.
        progress : bool or callable, optional
            True draws a bar with receivers done, passes and time left, False none. By default it
            appears in a terminal or notebook where a fit takes longer than two seconds; elsewhere
            the log has what is done. A callable is given the number of receivers done since its
            last call, from whatever thread fits them.
        checkpoint : path, optional
            File that keeps what is finished: a batch when it ends, and batches under way every
            20 s. A fit with the same data and settings goes on from there, however it ended.
        sample_weight : array of shape (n_bins,), optional
            How often each bin counts: the fit is that of rows repeated so many times. A bin of
            weight 0 is left out; its counts still are history of the next ones.
        offset : array of shape (n_bins,) or (n_bins, n_receivers), optional
            Added to eta, ``eta = X @ coef + intercept + offset``: with the exponential link the
            log of an exposure (time that a bin was observed, number of trials in it). All that
            takes X needs the offsets of its bins again.
        executor : object, optional
            Where batches of receivers are fitted: an executor of threads, processes, loky, Dask,
            submitit or mpi4py, or `fastglm.Workers` with one. Batches are merged as they are done;
            ``progress`` and ``checkpoint`` have them when they end. The answer is that of a fit
            without an executor. Default: this process.

        Raises
        ------
        ValueError
            If shapes do not fit, y holds what the family cannot have, a parameter is not known, no
            bin is left, the memory budget is too small, the checkpoint is of another fit, or the
            executor has no ``submit``.

        Warns
        -----
        ConvergenceWarning
            Once, if a receiver has another status than "converged".
        UserWarning
            Once, if the checkpoint cannot be written, and once, if an executor loses batches, which
            this process then fits. The fit goes on. Before it begins, if a large fit has no penalty
            and its data separate, or the default ridge of 1.0 leaves nothing of the history.

        Notes
        -----
        Weights and offsets cost one addition a bin and receiver in each pass, and
        ``8 * n_bins`` bytes a column.
        """
        with opened(executor) as workers:
            problem = read_problem(self, X, y, sample_weight, offset)
            _remarks.before(self, problem)
            result, interrupted = _solve(problem, init_params, progress, checkpoint, workers)
        given = sample_weight is not None, offset is not None
        self._store(problem, result, interrupted, *given)
        _remarks.after(problem, result)
        return self

    def _store(self, problem, result, interrupted, weighted=False, shifted=False):
        """Set what a fit has found; raises KeyboardInterrupt if it was interrupted."""
        scale = fitted_scale(problem, result)  # with the intercepts of centred offsets
        store(
            self,
            problem.uncenter(result),
            scale=scale,
            dof=residual_dof(problem, result),
            weighted=weighted,
            shifted=shifted,
            names=problem.names,
            receivers=problem.y.columns,
            shape=problem.shape,
        )
        if interrupted:
            n_done = int((result.status != "interrupted").sum())
            raise KeyboardInterrupt(
                f"fit interrupted with {n_done} of {problem.n_receivers} receivers finished; the "
                "model keeps them, and status_ tells which"
            )

    def stochastic_fit(
        self,
        data,
        *,
        init_params=None,
        num_epochs=None,
        callbacks=None,
        progress=None,
        executor=None,
    ) -> PopulationGLM:
        """Fit every receiver to data that come chunk by chunk, exactly.

        The name is NeMoS's, the steps are those of `fit`: whole passes over the chunks, until every
        receiver is certified. The answer is that of `fit` to all chunks put end to end.

        Parameters
        ----------
        data : loader
            An object that gives the same pairs (X, y) whenever it is iterated: a list, an object
            with a generator as its ``__iter__``, NeMoS's loaders with ``shuffle=False``, or what
            `fastglm.recordings.stream_spikes` makes of files. X and y are as in `fit`. A list or
            another `collections.abc.Sequence` is read at any place, all else from its beginning.
        init_params, progress
            As in `fit`.
        num_epochs, callbacks : optional
            Settings of NeMoS's descents; they are not used.
        executor : object, optional
            Whose workers read the chunks, as in `fit`: each some consecutive ones. Their sums are
            added in pairs, with Dask by the workers. The answer is that without an executor.
            Default: this process.

        Raises
        ------
        TypeError
            If data cannot be iterated, or cannot be pickled and the workers are other processes.
        ValueError
            If data can be iterated only once, if its passes differ, if a chunk has other features
            or receivers than the first one, or as in `fit`.

        Warns
        -----
        ConvergenceWarning
            As in `fit`.
        UserWarning
            Once, if settings of descents are given, and once, if an executor loses its workers.

        Notes
        -----
        Memory: one chunk and what a fit takes beside its data, as in `fit`; the next chunk
        as well, if a generator makes it while it holds the last one. It does not grow with the
        recording, but for three cases: exact Hessians ("newton-cholesky") take eight bytes a bin,
        Gaussian counts whose mean is a hundred standard deviations from zero nine, and counts that
        are not known 24 bytes each and up to three a bin.

        A chunk is read once a pass, and twice where the rows of a block lie in two chunks. A mask
        that leaves few senders to a receiver takes passes of its own, so `fit` is better for
        narrow masks. Traces are not centred: subtract their baseline.

        With an executor a worker has one chunk in memory, and the sums. This process reads the
        chunks too: twice to check them, and once to draw a sample of bins. Late receivers,
        scales and the rows of exact Hessians ("newton-cholesky") are read here alone.

        Examples
        --------
        >>> import numpy as np, fastglm
        >>> rng, basis = np.random.default_rng(0), fastglm.basis.RaisedCosineLogConv(3, 20)
        >>> trials = [rng.poisson(0.2, size=(1000, 4)) for _ in range(5)]
        >>> class Trials:
        ...     def __iter__(self):
        ...         for counts in trials:  # here: read a file
        ...             yield basis.compute_features(counts), counts
        >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4)
        >>> whole = model.stochastic_fit(Trials()).coef_
        >>> X = np.concatenate([basis.compute_features(counts) for counts in trials])
        >>> bool(np.abs(model.fit(X, np.concatenate(trials)).coef_ - whole).max() < 1e-6)
        True
        """
        given = {"num_epochs": num_epochs, "callbacks": callbacks}
        unused = [name for name, value in given.items() if value is not None]
        if unused:
            warnings.warn(
                f"{unused} are settings of descents and are not used: passes go on until every "
                "receiver is at its optimum.",
                UserWarning,
                stacklevel=2,
            )
        with opened(executor) as workers:
            problem = read_stream(self, data, workers)
            result, interrupted = _solve(problem, init_params, progress)
            self._store(problem, result, interrupted)
            _remarks.after(problem, result)
        return self

    def update(self, X, y, *step, earlier=None, **of_step) -> PopulationGLM:
        """Append data and fit again, from the last coefficients: the fit to all data so far.

        As with scikit-learn's ``partial_fit``, the first call fits the first data. The model keeps
        what it is given here: 28 bytes for each event of X, 16 for each count of y that is not 0,
        and a byte a bin. `fit` and `stochastic_fit` keep no data, and forget what was kept.

        Parameters
        ----------
        X : FeatureMatrix
            Features of events, from the basis of the earlier data. Rows whose window begins before
            the first bin of X are not in the fit; ``X[n:]`` of a longer recording has them.
        y : array of shape (n_bins, n_receivers)
            As in `fit`.
        earlier : tuple (X, y), optional
            The data of the last `fit`, for a model that was fitted by it.

        Raises
        ------
        NotImplementedError
            If X has stored columns; or for ``update(params, opt_state, X, y)``, a single step in
            NeMoS, which fastglm has not.
        ValueError
            If the model was fitted otherwise and ``earlier`` is missing, if it was fitted with
            weights or offsets, or as in `stochastic_fit`.

        Notes
        -----
        Each call makes whole passes over all data so far; it begins near the optimum, and takes
        fewer of them than a new fit. Pickles have the data that are kept, files of `save_params`
        have not.

        Examples
        --------
        >>> import numpy as np, fastglm
        >>> counts = np.random.default_rng(0).poisson(0.2, size=(5000, 4))
        >>> X = fastglm.basis.RaisedCosineLogConv(3, window_size=20).compute_features(counts)
        >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4)
        >>> model = model.update(X[:4000], counts[:4000]).update(X[4000:], counts[4000:])
        >>> coef = model.coef_
        >>> bool(np.abs(model.fit(X, counts).coef_ - coef).max() < 1e-6)
        True
        """
        if step or of_step:
            refuse_steps()
        chunks = list(vars(self).get("_chunks", []))
        fitted = hasattr(self, "coef_")
        if fitted and not chunks and earlier is None:
            raise ValueError(
                "This model keeps no data of its fit; pass them too, "
                "update(X, y, earlier=(X_of_fit, y_of_fit)), or begin with update in place of fit."
            )
        if getattr(self, "weighted_", False) or getattr(self, "shifted_", False):
            raise ValueError(
                "The fit had sample_weight or offset, which update does not take; fit all data by "
                "fit."
            )
        if earlier is not None:
            chunks = [read_chunk(self, *earlier)]
        chunks.append(read_chunk(self, X, y))
        problem, start = read_stream(self, chunks), None
        if fitted and np.isfinite(self.coef_).all() and np.isfinite(self.intercept_).all():
            start = self.coef_, self.intercept_
        result, interrupted = _solve(problem, start)
        try:
            self._store(problem, result, interrupted)
        finally:
            self._chunks = chunks
        _remarks.after(problem, result)
        return self

    def plan(self, X, y) -> Plan:
        """What `fit` would do, before anything is computed: method, batches, memory and time.

        Parameters
        ----------
        X, y
            As in `fit`.

        Returns
        -------
        Plan
            ``print(plan)`` shows it as a table; see `fastglm._batches.plan.Plan`.

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
        return _plan(read_problem(self, X, y))

    # --- what a fitted model gives ---

    def predict(self, X, offset=None):
        """Expected events per bin, ``mu``, of shape (n_bins, n_receivers).

        Every row is kept: NaN where X has NaN, and where eta is outside of the range of one_over_x
        (Gamma), with one warning. Features that have times (`FeatureMatrix.timeline`,
        or a TsdFrame) give a TsdFrame, with the columns and metadata of the counts of the fit.
        ``offset`` is added to eta, as in `fit`; without it, it is 0.
        """
        fit = Fitted.of(self, X, offset=offset)
        return _with_times(fit, _expected(fit))

    def score(
        self,
        X,
        y,
        score_type="log-likelihood",
        aggregate_sample_scores=np.mean,
        *,
        sample_weight=None,
        offset=None,
        skip_impossible=False,
    ):
        """Goodness of fit over the bins where X and y are finite; larger is better.

        Parameters
        ----------
        X, y
            As in `fit`.
        score_type : {"log-likelihood", "pseudo-r2-McFadden", "pseudo-r2-Cohen"}
            The mean over bins and receivers of the log likelihood, which is
            ``y*log(mu) - mu - gammaln(y + 1)`` for Poisson observations; or ``1 - LL / LL0``; or
            ``1 - D / D0`` with the deviance D. The null model is each receiver's mean of the scored
            y, with the scale of the fit.
        aggregate_sample_scores : callable, default np.mean
            Replaces the mean: it is given an array of shape (n_bins_kept, n_receivers), NaN where
            only that receiver's count is missing. ``lambda x: x.mean(axis=0)`` scores each
            receiver. Of a GLM the shape is (n_bins_kept,).
        sample_weight, offset
            As in `fit`; without them they are 1 and 0. Scores are then those of repeated rows; the
            null model has the same offsets, and an intercept.
        skip_impossible : bool, default False
            Leave out the bins of a receiver whose count has probability 0 in the fit. A single one,
            such as an event inside the dead time, makes the score minus infinity. The warning says
            how many each receiver has.

        Returns
        -------
        float, or what ``aggregate_sample_scores`` returns
            A pseudo-R2 is NaN where the null model is perfect, as for a silent receiver.

        Raises
        ------
        ValueError
            If the score type is not known, y does not fit, or an aggregate is to be weighted.

        Warns
        -----
        UserWarning
            Where counts have probability 0, if ``skip_impossible`` is False.
        """
        fit = Fitted.of(self, X, y, sample_weight=sample_weight, offset=offset, needs=())
        return score(fit, score_type, aggregate_sample_scores, skip_impossible)

    def residuals(self, X, y, kind="response", offset=None):
        """What the model leaves of the counts, bin by bin.

        | kind | residual | Poisson |
        |---|---|---|
        | "response" | ``y - mu`` | |
        | "pearson" | ``(y - mu) / sqrt(variance)`` | ``(y - mu) / sqrt(mu)`` |
        | "deviance" | ``sign(y - mu) * sqrt(deviance / scale)`` | deviance \
``2 * (y * log(y / mu) - (y - mu))`` |

        The variance of the family has the scale of the fit.

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
            If the kind is not known, y does not fit, or the fit had an offset and none is given.
        """
        check_choice("kind", kind, RESIDUAL_KINDS)
        fit = Fitted.of(self, X, y, offset=offset, needs=("offset",))
        out = np.full((fit.X.shape[0], fit.n_receivers), np.nan)
        for index, mu in fit.rates():
            if fit.loss.least is not None:
                mu = np.where(np.isinf(mu), np.nan, mu)
            out[index] = fit.family.residuals(fit.y.rows(index), mu, kind, fit.scale)
        return _with_times(fit, out[:, 0] if fit.single else out)

    def summary(self, X=None, y=None, *, sample_weight=None, offset=None) -> Summary:
        """A readable table of the fit, for a terminal and a notebook.

        Family, link, penalty, receivers by status, and the gap to the optimum. With data also bins,
        scores, and for a `GLM` standard errors, tests and intervals of its coefficients.

        Parameters
        ----------
        X, y, sample_weight, offset : optional
            As in `fit`. Default after `fastglm.fit_coupling` and `fastglm.infer_connectivity`: the
            data of the fit.

        Returns
        -------
        Summary
            ``print`` shows it; ``as_text()`` and ``as_html()`` are texts.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If one of X and y is given without the other, or they do not fit the model.

        Examples
        --------
        >>> import numpy as np, fastglm
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(1000, 2))
        >>> y = rng.poisson(np.exp(X @ [0.5, -0.2]))
        >>> summary = fastglm.GLM().fit(X, y).summary(X, y)
        >>> summary.title, summary.head[:3]
        ('GLM: Poisson observations, link exp', ['', 'coef', 'std err'])
        """
        return summarise(self, X, y, sample_weight, offset)

    def standard_errors(self, X, y, kind="observed", *, sample_weight=None, offset=None):
        """Standard errors of the coefficients, shape of ``coef_``.

        inf where the data do not determine a coefficient, NaN where it is not in the fit.
        `fastglm.inference.uncertainty` gives covariances, bands and tests as well.

        Parameters
        ----------
        X, y, sample_weight, offset
            As in `fit`.
        kind : {"observed", "expected", "robust", "blocks"}
            From the observed or the expected information; from residuals, which allows for over-
            and underdispersion; or also for dependence within blocks of time. The last two need
            cells with many events. See `fastglm.inference`, also for ridge fits.

        Examples
        --------
        >>> import numpy as np, fastglm
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(1000, 2))
        >>> y = rng.poisson(np.exp(X @ [0.5, -0.2]))
        >>> fastglm.GLM().fit(X, y).standard_errors(X, y).round(3)
        array([0.031, 0.031])
        """
        errors = inference.uncertainty(
            self, X, y, kind, sample_weight=sample_weight, offset=offset
        ).standard_errors
        return errors[:, 0] if self.single_receiver else errors

    def coupling_map(self, X, y, kind="observed", **kwargs) -> connectivity.CouplingMap:
        """Strength, standard error and significance of every coupling.

        Parameters
        ----------
        X, y
            As in `fit`, with X from a convolution basis.
        kind : {"observed", "expected", "robust", "blocks"}
            See `standard_errors`.
        **kwargs
            ``label``, ``senders``, ``receivers``, ``sample_weight``, ``offset`` of
            `fastglm.connectivity.coupling_map`.
        """
        return connectivity.coupling_map(self, X, y, kind, **kwargs)

    def simulate(self, random_key=None, feedforward_input=None, offset=None, *, random_state=None):
        """Draw counts given features; for a network that hears itself see `simulate_recurrent`.

        Parameters
        ----------
        random_key : int, array of int, key of JAX, numpy Generator or None
        feedforward_input : FeatureMatrix or array of shape (n_bins, n_features)
        offset : array, optional
            As in `fit`.
        random_state : int, numpy RandomState or Generator, optional
            The name of scikit-learn for ``random_key``; one of them.

        Returns
        -------
        counts : ndarray of shape (n_bins, n_receivers)
            Float with NaN where the features have NaN; else int64, or float64 for Gaussian
            observations.
        rates : ndarray of shape (n_bins, n_receivers)
        """
        rng = read_key(random_key, random_state)
        if feedforward_input is None:
            raise ValueError(
                "feedforward_input is missing; pass the features X of the bins to draw."
            )
        fit = Fitted.of(self, feedforward_input, offset=offset)
        rates = _expected(fit)
        known = np.isfinite(rates)
        drawn = fit.family.sample(rng, np.where(known, rates, 0.0), fit.scale)
        drawn = drawn if known.all() else np.where(known, drawn, np.nan)
        return _with_times(fit, drawn), _with_times(fit, rates)

    def save_params(self, filename) -> None:
        """Write the model, fitted or not, to a ``.npz`` file; `fastglm.load_model` reads it."""
        save_model(self, filename)


class GLM(PopulationGLM):
    """GLM of one receiver: as `PopulationGLM`, with y of shape (n_bins,).

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

    single_receiver = True


def __getattr__(name: str):
    refuse(name, __name__)


def _has_no_negative_counts(model):
    try:
        return read_loss(model).low is not None
    except ValueError:  # a parameter that is not known is an error of fit
        return True


def _solve(problem, init_params, progress=None, checkpoint=None, workers=None):
    """The result for every receiver, and whether an interrupt from the keyboard ended the fit."""
    free, n, settings = problem.free, problem.n_receivers, problem.settings
    n_features = len(free)
    start = read_start(init_params, n_features, n)
    if start is not None:
        start = start[0], start[1] + problem.intercept_of(start[0])
    result, saved = Result.empty(n_features, n), None
    if checkpoint is not None:
        data = problem.X, problem.observed, free, problem.penalty
        saved = Checkpoint(checkpoint, key_of(*data, start, settings))
        result = saved.load(n_features, n)
        result.status[result.status == "interrupted"] = ""
    # What an earlier process had begun goes on from its last point.
    begun = (result.status == "") & (result.n_passes > 0)
    again = result.coef.copy(), result.intercept.copy()
    monitor = Monitor(result, settings.tol, progress, saved, log="fit")
    monitor.end(np.flatnonzero(result.status != ""))
    try:
        with single_threaded_blas():
            for known, receivers in problem.by_missing():
                for some, point in (
                    (receivers[begun[receivers]], again),
                    (receivers[~begun[receivers]], start),
                ):
                    some = some[result.status[some] == ""]
                    if some.size:
                        tasks = problem.tasks(known, point)
                        fit_tasks(tasks, receivers, [result], monitor, some, workers)
    except KeyboardInterrupt:
        monitor.flush()
        left = result.status == ""
        result.coef[:, left] = result.intercept[left] = np.nan
        result.status[left] = "interrupted"
        return result, True
    finally:
        monitor.close()
    return result, False


def _plan(problem):
    X, y, free, settings = problem.X, problem.y, problem.free, problem.settings
    batches, plan = [], None
    for valid, receivers in by_missing(problem.valid, y):
        sums, n_bins = y.sums(valid), int(valid.sum())
        status, _ = settings.loss.ends(sums[receivers], n_bins)
        receivers = receivers[status == ""]
        events = events_a_feature(X, n_bins, sums, problem.penalty.level)
        weighted, products = problem.observed.weight is not None, Local(X, valid)
        rates = measure_rates() if is_large(products, receivers.size) else TYPICAL
        dense, sparse = y.values is not None, bool(problem.penalty.sparse.any())
        plan = plan_fit(products, receivers, free, settings, events, weighted, rates, dense, sparse)
        batches += plan.batches
    plan.batches = batches
    return plan


def _expected(fit):
    out = np.full((fit.X.shape[0], fit.n_receivers), np.nan)
    for index, mu in fit.rates():
        out[index] = mu
    if fit.loss.least is not None:
        out[np.isinf(out)] = np.nan
        _warn_outside(fit, out)
    return out[:, 0] if fit.single else out


def _warn_outside(fit, mu):
    """One warning where rows have no mean; it names the receivers and the numbers of rows."""
    n_outside = (np.isnan(mu) & fit.kept[:, None] & np.isfinite(fit.intercept)).sum(axis=0)
    if n_outside.any():
        receivers = np.flatnonzero(n_outside)
        names = range(mu.shape[1]) if fit.receivers is None else fit.receivers.names
        listed = ", ".join(f"{names[j]} ({n_outside[j]} rows)" for j in receivers[:10])
        more = f" and {receivers.size - 10} more" if receivers.size > 10 else ""
        warnings.warn(
            f"eta is not above {fit.loss.least:g} in rows of receiver {listed}{more}, where "
            f"{fit.loss.link} has no mean: these predictions are NaN. Fit with "
            'inverse_link_function="exp", or leave these rows out.',
            UserWarning,
            stacklevel=4,
        )


def _with_times(fit, values):
    values, timeline = fit.by_row(values), fit.timeline
    return values if timeline is None else timeline.wrap(values, fit.receivers)
