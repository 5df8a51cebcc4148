"""Real and simulated recordings, where the folder of them is beside the project."""

import sys
from pathlib import Path

import naive_glm
import numpy as np
import pytest
from sklearn.linear_model import PoissonRegressor

import fastglm

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import cases

pytestmark = [
    pytest.mark.skipif(not cases.DATA.is_dir(), reason="no recordings here"),
    pytest.mark.slow,
]
RIDGE = 1e-4


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("name", "bin_size", "receivers"),
    [
        ("locust10_al", 0.005, [0, 4, 9]),
        ("placecells49_ca1", 0.01, [3, 40]),
        ("spycon20_gt", 0.01, [0, 11, 19]),
    ],
)
def test_agrees_with_scikit_learn(name, bin_size, receivers, masked):
    case = cases.recorded(name, bin_size, 0.1, 5, RIDGE)
    X = case.X
    mask = None
    if masked:
        rng = np.random.default_rng(0)
        n = case.counts.shape[1]
        mask = np.repeat(rng.random((n, n)) < 0.3, 5, axis=0)[:, receivers]
    y = case.counts[:, receivers]
    models = [
        fastglm.PopulationGLM(
            regularizer="Ridge",
            regularizer_strength=RIDGE,
            solver_name=path,
            feature_mask=mask,
        ).fit(X, y)
        for path in ("newton-cholesky", "newton-cg")
    ]
    rows, y = X.rows(np.flatnonzero(X.valid)), y[X.valid]
    for k in range(len(receivers)):
        columns = slice(None) if mask is None else mask[:, k]
        peer = PoissonRegressor(alpha=RIDGE, solver="newton-cholesky", tol=1e-9)
        peer.fit(rows[:, columns], y[:, k])
        value = naive_glm.objective(rows[:, columns], y[:, k], peer.coef_, peer.intercept_, RIDGE)
        for model in models:
            assert model.status_[k] == "converged"
            np.testing.assert_allclose(model.coef_[columns, k], peer.coef_, atol=1e-5)
            assert model.objective_[k] == pytest.approx(value, abs=1e-8)


def test_epochs_of_the_recording_keep_history_apart():
    spikes = fastglm.load_spikes(cases.DATA / "locust10_al.npz")
    counts, epochs = spikes.bin(0.005)
    assert len(epochs) == 28
    X = fastglm.basis.HistoryConv(20).compute_features(counts, epochs=epochs)
    assert X.valid.sum() == counts.shape[0] - 28 * 20
    for begin, end in epochs[:3]:
        alone = fastglm.basis.HistoryConv(20).compute_features(counts[begin:end])
        np.testing.assert_array_equal(X[begin:end], np.asarray(alone))
