"""Names among choices: whatever else stands there is refused in a sentence of ours."""

import matplotlib
import numpy as np
import pytest

import fastglm
from fastglm._checks import shown
from fastglm.inference import uncertainty
from fastglm.model_selection import cross_validate
from fastglm.observation_models import PoissonObservations
from fastglm.report import write_report

matplotlib.use("Agg")
NO_NAMES = [
    (np.array(["observed", "robust"]), r"ndarray of shape \(2,\)"),
    (np.zeros((2, 2)), r"ndarray of shape \(2, 2\)"),
    (["observed"], r"\['observed'\]"),
    ({}, r"\{\}"),
    (b"observed", "b'observed'"),
    (3, "3"),
]


@pytest.fixture(scope="module")
def fitted():
    counts = np.random.default_rng(0).poisson(0.2, size=(300, 2))
    X = fastglm.basis.RaisedCosineLogConv(3, window_size=9).compute_features(counts)
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3)
    return model.fit(X, counts), X, counts


def fit(X, counts, **parameters):
    return fastglm.PopulationGLM(**parameters).fit(X, counts)


def conv(causality):
    return fastglm.basis.RaisedCosineLogConv(
        3, window_size=9, conv_kwargs={"predictor_causality": causality}
    )


DOORS = {
    "observation_model": lambda v, m, X, y: fit(X, y, observation_model=v),
    "regularizer": lambda v, m, X, y: fit(X, y, regularizer=v),
    "inverse_link_function": lambda v, m, X, y: fit(X, y, inverse_link_function=v),
    "solver_name": lambda v, m, X, y: fit(X, y, solver_name=v),
    "products of solver_kwargs": lambda v, m, X, y: fit(X, y, solver_kwargs={"products": v}),
    "kind": lambda v, m, X, y: uncertainty(m, X, y, v),
    "kind ": lambda v, m, X, y: m.coupling_map(X, y, kind=v),
    " kind": lambda v, m, X, y: m.residuals(X, y, v),
    " kind ": lambda v, m, X, y: PoissonObservations().residuals(y, y + 1.0, v),
    "score_type": lambda v, m, X, y: m.score(X, y, score_type=v),
    "score_type ": lambda v, m, X, y: PoissonObservations().pseudo_r2(y, y + 1.0, v),
    "rule": lambda v, m, X, y: cross_validate(m, X, y, 2, 2, rule=v),
    "predictor_causality": lambda v, m, X, y: conv(v),
    "standard_errors": lambda v, m, X, y: write_report("page.html", m, X, y, standard_errors=v),
    "value": lambda v, m, X, y: draw(m, X, y, value=v),
    "mark": lambda v, m, X, y: draw(m, X, y, mark=v),
}
TYPED = ("regularizer", "solver_name")  # as NeMoS: what is no text is of the wrong type


def draw(model, X, y, **parameters):
    from fastglm.plotting import plot_connectivity

    return plot_connectivity(model.coupling_map(X, y), **parameters)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("given", "said"), NO_NAMES, ids=[said for _, said in NO_NAMES])
def test_what_is_no_name_is_said_and_so_is_what_is_wanted(fitted, tmp_path, door, given, said):
    kind = TypeError if door in TYPED and not isinstance(given, str) else ValueError
    with pytest.raises(kind, match=rf"^{door.strip()} is {said}[;.] ?.*('|take)"):
        DOORS[door](given, *fitted)


def test_solver_kwargs_that_are_an_array_are_said_in_one_line(fitted):
    with pytest.raises(ValueError, match=r"^solver_kwargs is ndarray of shape \(3, 3\); expected"):
        fit(*fitted[1:], solver_kwargs=np.zeros((3, 3)))


def test_a_value_is_shown_in_one_short_line():
    assert shown("a\nb" * 100) == "'" + ("a\\nb" * 100)[:79] + "..."
    assert shown(np.float64(2)) in ("np.float64(2.0)", "2.0")  # the second before NumPy 2
    assert shown([1,
                  np.zeros((2, 2))]) == "[1, array([[0., 0.], [0., 0.]])]"  # fmt: skip
