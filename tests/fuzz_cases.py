"""Random problems for `fuzz.py`: what `fit` is given, and the same by the formulas.

A case is drawn from its seed alone, and of the families that came later if ``more`` is asked for.
Features are made twice: as fastglm makes them, and as an array from the formulas of the
conventions.
"""

from dataclasses import dataclass, field

import numpy as np
from oracle import FAMILIES, MORE, Receiver, mean
from scipy.interpolate import BSpline

import fastglm
from fastglm import basis as bases
from fastglm import regularizer as regularizers
from fastglm.observation_models import NegativeBinomialObservations


@dataclass
class Case:
    """One call of `fit`, and its problem by the formulas."""

    seed: int
    X: object
    design: np.ndarray  # (n_bins, n_features), NaN where a row is not known
    y: np.ndarray
    link: str
    penalty: str
    params: dict = field(default_factory=dict)  # of the model
    weight: np.ndarray | None = None
    offset: np.ndarray | None = None
    init: tuple | None = None
    ridge: np.ndarray | None = None  # (n_features, n_receivers)
    norms: list | None = None  # for each receiver, (features, size)
    mask: np.ndarray | None = None
    single: bool = False
    tags: set = field(default_factory=set)
    scale: float | str = 1.0  # of the observation model
    scales: np.ndarray | None = None  # of each receiver, once they are known

    @property
    def counts(self):
        """y as floats, with receivers in columns."""
        y = np.asarray(self.y, float)
        return y[:, None] if y.ndim == 1 else y

    @property
    def valid(self):
        rows = np.isfinite(self.design).all(axis=1)
        return rows if self.weight is None else rows & (self.weight > 0)

    def model(self):
        kind, family = fastglm.GLM if self.single else fastglm.PopulationGLM, FAMILIES[self.link]
        if family == "NegativeBinomial":
            family = NegativeBinomialObservations(self.scale)
        return kind(family, self.link.split()[-1], **self.params)

    def adjust(self):
        return {"sample_weight": self.weight, "offset": self.offset}

    def free(self, j):
        p = self.design.shape[1]
        return np.ones(p, bool) if self.mask is None else self.mask[:, j]

    def rows(self, j):
        return self.valid & np.isfinite(self.counts[:, j])

    def offset_of(self, j):
        if self.offset is None:
            return np.zeros(len(self.design))
        offset = self.offset if self.offset.ndim == 2 else self.offset[:, None]
        return offset[:, j % offset.shape[1]]

    def receiver(self, j) -> Receiver:
        """The problem of one receiver over its free features."""
        rows, free = self.rows(j), self.free(j)
        number = np.cumsum(free) - 1
        groups = []
        for features, size in self.norms[j] if self.norms else ():
            inside = features[free[features]]
            if inside.size:
                groups.append((number[inside], size))
        weight = np.ones(len(self.design)) if self.weight is None else self.weight
        return Receiver(
            self.design[np.ix_(rows, free)],
            self.counts[rows, j],
            weight[rows].astype(float),
            self.offset_of(j)[rows],
            self.link,
            self.ridge[free, j],
            groups,
            1.0 if self.scales is None else float(self.scales[j]),
        )

    def describe(self):
        T, p = self.design.shape
        n = self.counts.shape[1]
        strength = self.params.get("regularizer_strength")
        if isinstance(strength, np.ndarray):
            strength = f"array{strength.shape}"
        given = [
            f"{T}x{p} features, {n} receivers, {self.link}, {self.penalty} {strength}",
            f"solver {self.params.get('solver_name')} {self.params.get('solver_kwargs')}",
            ", ".join(sorted(self.tags)),
        ]
        return "; ".join(given)


# --- features by the formulas -------------------------------------------------------------------


def kernel_of(basis):
    """Kernel of a Conv basis from the formulas of the conventions."""
    W, n = basis.window_size, basis.n_basis_funcs
    u = np.linspace(0, 1, W)
    name = type(basis).__name__
    if name == "HistoryConv":
        return np.eye(W)
    if name == "RaisedCosineLinearConv":
        return cosines(u, np.linspace(0, 1, n), basis.width)
    if name == "RaisedCosineLogConv":
        x = np.log(50.0 * u + 1) / np.log(51.0)
        return cosines(x, np.linspace(0, 1 - basis.width / (n + basis.width - 1), n), basis.width)
    return bsplines(u, n, basis.order)


def cosines(x, peaks, width):
    phase = np.pi * (x[:, None] - peaks) / ((peaks[1] - peaks[0]) * width)
    return 0.5 * (np.cos(np.clip(phase, -np.pi, np.pi)) + 1)


def bsplines(u, n, order):
    knots = np.r_[[0.0] * (order - 1), np.linspace(0, 1, n - order + 2), [1.0] * (order - 1)]
    return BSpline(knots, np.eye(n), order - 1)(u)


def history(counts, kernel, epochs):
    """``sum_l kernel[l, b] counts[t - 1 - l, i]``, NaN where the window is not complete."""
    T, n_senders = counts.shape
    W, n = kernel.shape
    out = np.zeros((T, n_senders, n))
    for l in range(min(W, T - 1)):
        out[l + 1 :] += counts[: T - 1 - l, :, None] * kernel[l]
    complete = np.zeros(T, bool)
    for begin, end in epochs:
        complete[min(begin + W, end) : end] = True
    for t in np.flatnonzero(np.isnan(counts).any(axis=1)):  # 0 * NaN is a missing count as well
        complete[t + 1 : t + 1 + W] = False
    out[~complete] = np.nan
    return out


def outer(left, right):
    """Products of functions, input by input: (T, n_inputs, a), (T, n_inputs, b)."""
    return (left[..., :, None] * right[..., None, :]).reshape(*left.shape[:2], -1)


# --- drawing ------------------------------------------------------------------------------------


class _Features:
    """Draws features; every method takes the next numbers of one generator."""

    def __init__(self, seed, largest=3000):
        self.rng = np.random.default_rng(seed)
        self.seed, self.tags = seed, set()
        self.T = int(np.exp(self.rng.uniform(np.log(30), np.log(largest))))
        self.epochs = None

    def chance(self, p):
        return self.rng.random() < p

    def pick(self, *items):
        return items[int(self.rng.integers(len(items)))]

    def power(self, low, high):
        return float(10.0 ** self.rng.uniform(low, high))

    def _senders(self):
        n = self.pick(1, 2, 3, 4)
        rates = np.array([self.power(-1.7, 0.3) for _ in range(n)])
        counts = self.rng.poisson(rates, size=(self.T, n)).astype(float)
        if self.chance(0.1):
            counts[:, 0] = np.arange(self.T) % self.pick(2, 3, 5) == 0
            self.tags.add("periodic sender")
        if self.chance(0.07):
            counts[:, -1] = 0.0
            self.tags.add("silent sender")
        if self.chance(0.05):
            counts[:, -1] = self.pick(1.0, 2.0)
            self.tags.add("constant sender")
        if self.family == "Bernoulli":
            counts = counts.clip(max=1)
        return counts

    def _features(self):
        """X as fastglm takes it, the design by the formulas, and the number of each group."""
        blocks, sizes = [], 0
        makers = [self._conv, self._dense, self._eval, self._product, self._held]
        chosen = self.rng.choice(5, size=self.pick(1, 1, 2, 2, 3), p=[0.3, 0.4, 0.12, 0.1, 0.08])
        for k in chosen:
            X, *designs = makers[k]()  # designs of shape (T, n_inputs, n_functions)
            size = sum(d.shape[1] * d.shape[2] for d in designs)
            if blocks and sizes + size > 60:
                continue
            blocks.append((X, designs))
            sizes += size
        groups, first = [], 0
        designs = [design for _, some in blocks for design in some]
        for design in designs:
            groups.append(np.repeat(first + np.arange(design.shape[1]), design.shape[2]))
            first += design.shape[1]
        design = np.concatenate([d.reshape(self.T, -1) for d in designs], axis=1)
        given = [X for X, _ in blocks]
        X = given[0]
        if len(given) > 1:
            X = fastglm.features.hstack(given)
            if all(isinstance(g, np.ndarray) for g in given):
                X = np.hstack(given)
                groups = [np.zeros(design.shape[1], int)]
        return X, design, np.concatenate(groups)

    def _where(self):
        return np.array([[0, self.T]]) if self.epochs is None else self.epochs

    def _with_missing(self, values, p, tag):
        if self.chance(p):
            bins = self.rng.integers(len(values), size=self.pick(1, 3))
            values = values.copy()
            values[bins, self.rng.integers(values.shape[1])] = np.nan
            self.tags.add(tag)
        return values

    def _conv_basis(self):
        kind = self.pick("History", "Log", "Log", "Linear", "Spline")
        W = self.pick(2, 3, 5, 8, 13, 20)
        if kind == "History":
            return bases.HistoryConv(min(W, 8))
        if kind == "Spline":
            order = self.pick(2, 3, 4)
            return bases.BSplineConv(order + self.pick(0, 1, 2), max(W, 5), order=order)
        n = self.pick(2, 3, 4, 5)
        if kind == "Linear":
            return bases.RaisedCosineLinearConv(n, W)
        return bases.RaisedCosineLogConv(n, W)

    def _conv(self):
        basis = self._conv_basis()
        counts = self._with_missing(self.senders, 0.1, "missing in X")
        while counts.shape[1] * basis.n_basis_funcs > 40:
            counts = counts[:, 1:]
        X = basis.compute_features(counts, epochs=self.epochs)
        self.tags.add("conv")
        return X, history(counts, kernel_of(basis), self._where())

    def _signal(self):
        rng, T = self.rng, self.T
        kind = self.pick("normal", "normal", "uniform", "trend", "rare", "heavy", "sine", "walk")
        if kind == "normal":
            return rng.normal(size=T)
        if kind == "uniform":
            return rng.uniform(-1, 1, size=T)
        if kind == "trend":
            return np.linspace(-1, 1, T)
        if kind == "rare":
            return (rng.random(T) < self.power(-2, -0.3)).astype(float)
        if kind == "heavy":
            return np.exp(1.2 * rng.normal(size=T))
        if kind == "sine":
            return np.sin(2 * np.pi * np.arange(T) / self.pick(2, 7, 50.5) + rng.random())
        walk = np.cumsum(rng.normal(size=T))
        return walk / walk.std()

    def _dense(self):
        far, columns = self.chance(0.45), []
        for _ in range(int(self.rng.integers(1, 9))):
            columns.append(self._column(columns, far))
        values = np.column_stack(columns)
        if self.chance(0.08):
            values = values.astype(np.float32)
            self.tags.add("float32 X")
        elif self.chance(0.05) and np.abs(values).max() < 1e6:
            values = np.round(100 * values).astype(self.pick(np.int32, np.int64))
            self.tags.add("int X")
        else:
            values = self._with_missing(values, 0.06, "missing in X")
        self.tags.add("dense")
        return values, values.astype(float)[:, None, :]

    def _column(self, columns, far):
        roll = self.rng.random()
        if roll < 0.07:
            self.tags.add("constant column")
            return np.full(self.T, self.pick(1.0, 0.1, np.pi, 2.5, 1e3, -7e-7, 0.0, 3.3e8))
        if roll < 0.10:  # a constant up to rounding
            self.tags.add("rounding-noise column")
            noise = self.rng.integers(-1, 2, size=self.T) * np.finfo(float).eps
            return self.pick(1.0, 0.3, 1e5) * (1 + noise)
        if roll < 0.24 and columns:
            old = columns[int(self.rng.integers(len(columns)))]
            new = self._close(columns, old)
            if new is not None:
                return new
        loc = 0.0
        if far and self.chance(0.6):
            loc = self.power(0, 9) * self.pick(-1, 1)
        scale = self.power(-9, 9) if far and self.chance(0.4) else self.pick(1.0, 1.0, 0.1, 20.0)
        signal = self._signal()
        sd = signal.std() or 1.0
        if abs(loc) > 1e4:
            self.tags.add("mean above 1e4 sd")
        if not 1e-4 < scale < 1e4:
            self.tags.add("far scale")
        return scale * (loc * sd + signal)

    def _close(self, columns, old):
        sd, size = old.std(), np.abs(old).max()
        if sd <= 1e-6 * size or sd == 0:  # rounding would be a feature of its own
            return None
        kind = self.pick("near", "near", "copy", "sum")
        self.tags.add("near-collinear" if kind == "near" else "collinear")
        if kind == "near":
            return self.pick(1.0, 4.0) * (old + self.power(-8, -1) * sd * self._signal())
        if kind == "copy" or size > 100 * sd:
            return self.pick(1.0, -1.0, 2.0**-20, 2.0**20) * old
        other = columns[int(self.rng.integers(len(columns)))]
        if np.abs(other).max() > 100 * other.std() or not 0.01 < other.std() / sd < 100:
            return old.copy()
        return old + other

    def _eval_basis(self):
        n = self.pick(4, 5, 7)
        kind = self.pick("spline", "spline", "cosine", "identity")
        if kind == "spline":
            return bases.BSplineEval(n, bounds=(0, 1), order=self.pick(3, 4))
        if kind == "cosine":
            return bases.RaisedCosineLinearEval(n, bounds=(0, 1))
        return bases.IdentityEval()

    def _evaluate(self, basis, x):
        """Functions of an Eval basis at samples (T, n_inputs), outside epochs too."""
        name = type(basis).__name__
        if name == "IdentityEval":
            return x[:, :, None]
        u, n = x, basis.n_basis_funcs
        flat = np.where(np.isnan(u), 0.5, u).ravel()
        if name == "BSplineEval":
            values = bsplines(flat, n, basis.order)
        else:
            values = cosines(flat, np.linspace(0, 1, n), basis.width)
        values = values.reshape(*x.shape, n)
        values[np.isnan(u)] = np.nan
        return values

    def _outside(self, values):
        if self.epochs is None:
            return values
        inside = np.zeros(self.T, bool)
        for begin, end in self.epochs:
            inside[begin:end] = True
        return np.where(inside[:, None, None], values, np.nan)

    def _samples(self, basis, n_inputs):
        if type(basis).__name__ != "IdentityEval":
            return self._with_missing(self.rng.random((self.T, n_inputs)), 0.06, "missing in X")
        loc = self.pick(0.0, 0.0, self.power(0, 4), self.power(4, 9))
        if loc > 1e4:
            self.tags.add("mean above 1e4 sd")
        return loc + self.rng.normal(size=(self.T, n_inputs))

    def _eval(self):
        basis = self._eval_basis()
        x = self._samples(basis, self.pick(1, 1, 2))
        X = basis.compute_features(x, epochs=self.epochs)
        self.tags.add("eval")
        return X, self._outside(self._evaluate(basis, x))

    def _product(self):
        right = self._eval_basis()
        self.tags.add("product")
        if self.chance(0.5):
            left = bases.RaisedCosineLogConv(self.pick(2, 3), self.pick(5, 10))
            counts = self.senders[:, : self.pick(1, 2)]
            x = self._samples(right, counts.shape[1])
            first = history(counts, kernel_of(left), self._where())
            inputs = (counts, x)
        else:
            left = bases.BSplineEval(4, bounds=(0, 1), order=3)
            a, x = self.rng.random((self.T, 1)), self._samples(right, 1)
            first = self._outside(self._evaluate(left, a))
            inputs = (a, x)
        X = (left * right).compute_features(*inputs, epochs=self.epochs)
        design = outer(first, self._outside(self._evaluate(right, x)))
        if self.chance(0.5):  # the factor beside the product: t h and h
            single = (left + left * right).compute_features(inputs[0], *inputs, epochs=self.epochs)
            self.tags.add("factor beside its product")
            return single, first, design
        return X, design

    def _held(self):
        every = self.pick(2, 7, 20)
        n = -(-self.T // every)
        values = self._column([], self.chance(0.3))[:n] if n <= self.T else None
        if self.chance(0.5):
            values = np.column_stack([values, self.rng.normal(size=n)])
        X = fastglm.features.hold(values, self.T, every=every)
        self.tags.add("hold")
        slow = values.reshape(n, -1)[np.arange(self.T) // every]
        return X, slow[:, None, :]


class Draw(_Features):
    """Draws a case."""

    LINKS = "exp", "exp", "exp", "softplus", "logistic", "cloglog", "identity"

    def case(self) -> Case:
        rng = self.rng
        if self.chance(0.25):
            edges = np.sort(rng.choice(self.T + 1, size=2 * self.pick(1, 2, 3), replace=False))
            self.epochs = edges.reshape(-1, 2)
            self.tags.add("epochs")
        self.link = self.pick(*self.LINKS)
        self.family = FAMILIES[self.link]
        self.n = self.pick(1, 1, 2, 3, 4)
        self.senders = self._senders()
        X, design, groups = self._features()
        valid = np.isfinite(design).all(axis=1)
        self.offset = self._offset()
        y = self._counts(design, valid)
        weight = self._weight()
        case = Case(self.seed, X, design, y, self.link, "None", tags=self.tags)
        case.weight, case.offset = weight, self.offset
        case.single = self.n == 1 and self.chance(0.5)
        self._mask(case)
        self._penalty(case, groups)
        self._solver(case)
        if self.chance(0.2):
            self._init(case)
        self._types(case)
        return case

    # --- counts, weights, offsets ---

    def _counts(self, design, valid):
        rng, T = self.rng, self.T
        Z = np.zeros_like(design)
        if valid.any():
            Z[valid] = design[valid] - design[valid].mean(axis=0)
            sd = Z[valid].std(axis=0)
            live = sd > 1e-12 * np.abs(design[valid]).max(axis=0)
            Z = np.where(live, Z / np.where(live, sd, 1), 0.0)
        Z = Z.clip(-4, 4)
        y = np.zeros((T, self.n))
        shift = 0.0 if self.offset is None else self.offset.reshape(T, -1)
        shift = np.broadcast_to(shift - np.mean(shift), (T, self.n))
        for j in range(self.n):
            w = rng.normal(size=Z.shape[1]) * (rng.random(Z.shape[1]) < 0.6)
            w *= self.pick(0.0, 0.3, 0.8, 1.5) / max(1.0, np.sqrt((w**2).sum()))
            eta = Z @ w + shift[:, j].clip(-3, 3)
            y[:, j] = self._draw(eta)
        return self._special(y)

    def _draw(self, eta):
        rng = self.rng
        if self.family == "Gaussian":
            sd = self.pick(1.0, 1.0, self.power(-6, 6))
            return sd * (self.pick(0.0, 5.0, self.power(0, 6)) + rng.normal(eta, 0.7))
        b = self.rng.uniform(-4, 1.5) if self.link != "softplus" else self.rng.uniform(-4, 8)
        with np.errstate(over="ignore"):
            mu = mean((eta + b).clip(max=7), self.link)
        if self.family == "Bernoulli":
            return (rng.random(self.T) < mu).astype(float)
        return rng.poisson(mu).astype(float)

    def _special(self, y):
        T, j = self.T, int(self.rng.integers(self.n))
        roll = self.rng.random()
        if self.chance(0.15) and self.family != "Gaussian":
            y[:, j] = self.senders[:, 0]
            self.tags.add("own history")
        elif roll < 0.03:
            y[:, j] = 0.0
        elif roll < 0.05:
            y[:, j] = 1.0
        elif roll < 0.07:
            y[:, j] = 0.0
            y[self.rng.integers(T), j] = 1.0
        elif roll < 0.09:
            y[:, j] = np.arange(T) % self.pick(2, 3, 10) == 0
            self.tags.add("periodic y")
        elif roll < 0.11 and self.family == "Poisson":
            y[:, j] *= 0.37
            self.tags.add("y not whole")
        if self.chance(0.12):
            y[self.rng.integers(T, size=self.pick(1, 5)), j] = np.nan
            self.tags.add("missing in y")
        return y

    def _weight(self):
        if self.chance(0.75):
            return None
        self.tags.add("weights")
        kind = self.pick("whole", "exponential", "wide")
        if kind == "whole":
            weight = self.rng.integers(0, 4, size=self.T).astype(float)
        elif kind == "exponential":
            weight = self.rng.exponential(size=self.T)
        else:
            weight = 10.0 ** self.rng.uniform(-3, 3, size=self.T)
        weight[self.rng.integers(self.T)] = 1.0
        return weight

    def _offset(self):
        if self.chance(0.75):
            return None
        self.tags.add("offsets")
        shape = self.pick((self.T,), (self.T, 1), (self.T, self.n))
        kind = self.pick("normal", "exposure", "constant", "large")
        if kind == "normal":
            return self.rng.normal(size=shape)
        if kind == "exposure":
            return np.log(self.rng.uniform(0.05, 1, size=shape))
        if kind == "constant":
            return np.full(shape, self.pick(-30.0, 10.0, 100.0))
        return self.pick(5.0, 40.0) + 3 * self.rng.normal(size=shape)

    # --- the model ---

    def _mask(self, case):
        if self.chance(0.75):
            return
        p = case.design.shape[1]
        mask = self.rng.random((p, self.n)) < self.pick(0.3, 0.7, 0.9)
        if self.chance(0.1):
            mask[:, 0] = False
        case.mask = mask
        given = mask.astype(self.pick(bool, int, float))
        case.params["feature_mask"] = given[:, 0] if case.single else given
        self.tags.add("mask")

    def _penalty(self, case, groups):
        p, n = case.design.shape[1], self.n
        case.ridge, case.norms = np.zeros((p, n)), [[] for _ in range(n)]
        kinds = {"None": 7, "Ridge": 5, "Lasso": 3, "ElasticNet": 2, "GroupLasso": 3}
        case.penalty = self.pick(*(kind for kind, times in kinds.items() for _ in range(times)))
        if case.penalty == "None":
            return
        gradient, variance = self._sizes(case)
        if case.penalty == "Ridge":
            base = self.power(-8, 0.5) * (variance if self.chance(0.5) else 1.0)
            strength = self._strengths(case, base)
            case.ridge = np.broadcast_to(strength, (p, n)).copy()
            given = "Ridge"
        elif case.penalty == "GroupLasso":
            given, strength = self._group_lasso(case, groups, gradient * self.power(-3, 0.2))
        else:
            strength = self._strengths(case, gradient * self.power(-3, 0.2))
            ratio = 1.0 if case.penalty == "Lasso" else self.pick(0.0, 0.1, 0.5, 0.9, 1.0)
            size = np.broadcast_to(strength * ratio, (p, n))
            case.ridge = np.broadcast_to(strength * (1 - ratio), (p, n)).copy()
            for j in range(n):
                case.norms[j] = [(np.array([f]), size[f, j]) for f in range(p) if size[f, j] > 0]
            given = "Lasso" if case.penalty == "Lasso" else regularizers.ElasticNet(ratio)
        case.params["regularizer"] = given
        case.params["regularizer_strength"] = self._as_given(case, strength)

    def _as_given(self, case, strength):
        strength = np.asarray(strength)
        if strength.size == 1:
            return float(strength.ravel()[0])
        if strength.shape[0] == 1:
            return strength[0]
        return strength[:, 0] if case.single else strength

    def _strengths(self, case, base):
        p, n = case.design.shape[1], self.n
        shape = self.pick((1, 1), (1, 1), (1, n), (p, n))
        if shape == (1, 1):
            return np.full(shape, base)
        self.tags.add("strength for each")
        strength = base * 10.0 ** self.rng.uniform(-1, 1, size=shape)
        if shape == (p, n):
            strength[self.rng.random(shape) < 0.2] = 0.0
        return strength

    def _sizes(self, case):
        """Typical gradient at the null model, and typical variance of a column."""
        valid = case.valid & np.isfinite(case.counts).all(axis=1)
        if valid.sum() < 3:
            return 1e-3, 1.0
        Z = case.design[valid] - case.design[valid].mean(axis=0)
        y = case.counts[valid] - case.counts[valid].mean(axis=0)
        gradient, variance = np.abs(Z.T @ y / len(Z)).max(axis=1), (Z**2).mean(axis=0)
        q = self.pick(0.3, 0.6, 1.0)
        return float(np.quantile(gradient, q)) or 1e-3, float(np.quantile(variance, q)) or 1.0

    def _group_lasso(self, case, groups, base):
        p, n = case.design.shape[1], self.n
        given, group_of = "GroupLasso", groups
        if self.chance(0.6):
            k = int(self.rng.integers(1, min(p, 6) + 1))
            group_of = self.rng.integers(-1 if self.chance(0.3) else 0, k, size=p)
            given = regularizers.GroupLasso(mask=(np.arange(k)[:, None] == group_of).astype(int))
            n_groups = k
        else:
            n_groups = int(groups.max()) + 1
        shape = self.pick((1, 1), (1, 1), (1, n), (n_groups, n))
        strength = np.full(shape, base)
        if shape != (1, 1):
            strength = base * 10.0 ** self.rng.uniform(-1, 1, size=shape)
            self.tags.add("strength for each")
        full = np.broadcast_to(strength, (n_groups, n))
        for j in range(n):
            free = case.free(j)
            for g in range(n_groups):
                features = np.flatnonzero(group_of == g)
                size = full[g, j] * np.sqrt(free[features].sum())
                if features.size and size > 0:
                    case.norms[j].append((features, size))
        return given, strength

    def _solver(self, case):
        case.params["solver_name"] = self.pick(
            None, "auto", "auto", "newton-cholesky", "newton-cg", "newton-cg"
        )
        kwargs = {}
        if self.chance(0.3):
            kwargs["tol"] = self.pick(1e-6, 1e-8, 1e-10, 1e-12)
        if self.chance(0.06):
            kwargs["maxiter"] = self.pick(1, 3, 8)
            self.tags.add("few steps")
        if self.chance(0.3):
            kwargs["products"] = self.pick("events", "rows")
        if kwargs:
            case.params["solver_kwargs"] = kwargs
        if self.chance(0.15):
            case.params["memory_budget"] = self.pick("60MB", "100MB", 5e8, "2GB")
            self.tags.add("memory budget")

    def _init(self, case):
        design = case.design[case.valid]
        if not len(design):
            return
        sd = np.sqrt(((design - design.mean(axis=0)) ** 2).mean(axis=0))
        sd[sd < 1e-10 * np.abs(design).max(axis=0)] = np.inf
        coef = self.pick(0.01, 0.3, 2.0, 8.0) * self.rng.normal(size=(len(sd), self.n))
        coef = np.where(sd[:, None] > 0, coef / np.where(sd > 0, sd, 1)[:, None], 0.0)
        if self.chance(0.5):
            coef[self.rng.random(coef.shape) < 0.5] = 0.0
        intercept = self.rng.normal(size=self.n) - coef.T @ design.mean(axis=0)
        case.init = (coef[:, 0], intercept) if case.single else (coef, intercept)
        self.tags.add("init_params")

    def _types(self, case):
        y = case.y
        whole = np.isfinite(y).all() and (y == np.round(y)).all() and np.abs(y).max() < 2e9
        kinds = [np.float64, np.float64, np.float32]
        if whole:
            kinds += [np.int64, np.int32]
            if y.min() >= 0:
                kinds += [np.uint16] if y.max() < 65536 else []
                kinds += [np.int8, np.uint8] if y.max() < 128 else []
                kinds += [bool] if y.max() <= 1 else []
        case.y = y.astype(self.pick(*kinds))
        if case.y.dtype != np.float64:
            self.tags.add(f"y {case.y.dtype}")
        if case.single:
            case.y = case.y[:, 0]


class DrawMore(Draw):
    """Draws a case of the families that came later."""

    LINKS = MORE

    def case(self) -> Case:
        case = super().case()
        if self.family == "NegativeBinomial":
            case.scale = self.pick("estimate", "estimate", 1.0, 0.05, 4.0)
            self.tags.add(f"scale {case.scale}")
        return case

    def _draw(self, eta):
        rng, b = self.rng, self.rng.uniform(-3, 2)
        with np.errstate(over="ignore"):
            mu = mean((eta + b).clip(max=5), "exp" if "over" in self.link else self.link)
        if self.family == "Gamma":
            shape = self.pick(0.3, 1.0, 5.0, 100.0)
            drawn = self.pick(1.0, 1.0, self.power(-4, 4)) * rng.gamma(shape, mu / shape)
            return np.maximum(drawn, 1e-30)
        kind, scale = self.pick("over", "over", "over", "poisson", "under"), self.power(-1.5, 0.7)
        if kind == "under":
            return rng.binomial(4, (mu / 4).clip(max=0.95)).astype(float)
        rate = mu * rng.gamma(1 / scale, scale, size=mu.shape) if kind == "over" else mu
        return rng.poisson(rate).astype(float)

    def _special(self, y):
        y = super()._special(y)
        return np.where(y <= 0, 1.0, y) if self.family == "Gamma" else y


def draw(seed, largest=3000, more=False) -> Case:
    """The case of a seed."""
    return (DrawMore if more else Draw)(seed, largest).case()
