"""`summary` of a fit: its numbers are those of the fit, of statsmodels' formulas and of `score`."""

import numpy as np
import pytest

import fastglm

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 2))
Y = RNG.poisson(np.exp(X @ [0.5, -0.2]))


def rows(summary):
    return dict(summary.rows)


def test_a_glm_has_its_coefficients_with_tests():
    model = fastglm.GLM().fit(X, Y)
    summary = model.summary(X, Y)
    assert summary.head == ["", "coef", "std err", "z", "P>|z|", "[0.025", "0.975]"]
    assert [row[0] for row in summary.body] == ["intercept", "0", "1"]
    design = np.column_stack([np.ones(400), X])
    mean = np.exp(design @ np.append(model.intercept_, model.coef_))
    errors = np.sqrt(np.diag(np.linalg.inv(design.T @ (mean[:, None] * design))))
    for row, value, error in zip(
        summary.body, np.append(model.intercept_, model.coef_), errors, strict=True
    ):
        assert [float(v) for v in row[1:4]] == pytest.approx(
            [value, error, value / error], rel=1e-3
        )
        assert float(row[5]) == pytest.approx(value - 1.95996 * error, rel=1e-3)
        assert float(row[6]) == pytest.approx(value + 1.95996 * error, rel=1e-3)
    assert rows(summary)["status"] == "1 converged"
    assert rows(summary)["bins"] == "400 of 400"
    assert float(rows(summary)["mean log-likelihood"]) == pytest.approx(model.score(X, Y), rel=1e-4)


def test_names_of_features_are_shown():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["speed", "angle"])
    summary = fastglm.GLM().fit(frame, Y).summary()
    assert [row[0] for row in summary.body] == ["intercept", "speed", "angle"]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_population_has_its_receivers():
    counts = np.column_stack([Y, np.zeros(400, int), RNG.poisson(0.5, 400)])
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=0.01).fit(X, counts)
    summary = model.summary(X, counts)
    assert rows(summary)["status"] == "2 converged, 1 silent"
    assert rows(summary)["penalty"] == "Ridge, strength 0.01"
    assert [row[1] for row in summary.body] == ["converged", "silent", "converged"]
    column = summary.head.index("pseudo-R2")
    one = fastglm.GLM(regularizer="Ridge", regularizer_strength=0.01).fit(X, Y)
    expected = one.score(X, Y, score_type="pseudo-r2-McFadden")
    assert float(summary.body[0][column]) == pytest.approx(expected, abs=1e-4)
    assert any(note.startswith("silent: no events") for note in summary.notes)
    assert "pseudo-R2" not in model.summary().head


def test_text_and_html_have_every_number():
    summary = fastglm.GLM().fit(X, Y).summary(X, Y)
    assert str(summary) == repr(summary) == summary.as_text()
    lines = summary.as_text().splitlines()
    assert lines[0] == "GLM: Poisson observations, link exp"
    assert len({len(line) for line in lines if set(line) <= set("=-")}) == 1
    for row in summary.body:
        assert all(text in summary.as_text() and text in summary._repr_html_() for text in row)


def test_the_data_of_a_fit_are_its_default():
    units = {name: np.sort(RNG.uniform(0, 20, 200)) for name in "ab"}
    model = fastglm.fit_coupling(units, 0.01, 0.05, t_stop=20)
    assert rows(model.summary())["bins"] == "1,995 of 2,000"
    assert [row[0] for row in model.summary().body] == ["a", "b"]


def test_many_receivers_are_cut():
    counts = RNG.poisson(0.5, (400, 35))
    summary = fastglm.PopulationGLM().fit(X, counts).summary()
    assert len(summary.body) == 30
    assert summary.notes[0] == "5 more rows are not shown."


def test_half_of_the_data_is_refused():
    model = fastglm.GLM().fit(X, Y)
    with pytest.raises(ValueError, match="one of X and y; pass both, or none"):
        model.summary(X)
    with pytest.raises(ValueError, match="not fitted"):
        fastglm.GLM().summary()
