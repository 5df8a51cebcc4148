"""A smoke of the yardstick: every method that is installed finds one strong connection."""

import json
import warnings

import field
import numpy as np
import pytest
import yardstick
from scipy.stats import false_discovery_control
from sklearn.metrics import matthews_corrcoef, precision_score, recall_score


@pytest.fixture(scope="module")
def population():
    return yardstick.small()


@pytest.fixture(scope="module")
def correlograms(population):
    return population.correlograms


@pytest.mark.parametrize("title", field.METHODS)
def test_a_method_ranks_the_connection_first(title, population, correlograms):
    answer = field.METHODS[title](correlograms)
    row = yardstick.measure(answer, population.adjacency)
    # What i does to j and what j does to i have one modulus in a difference.
    assert row["auc"] == 1.0
    assert row["precision"] == row["mcc_best"] == 1.0 or answer.score[1, 0] == -answer.score[0, 1]
    if answer.p is not None:
        assert row["at"]["0.05"]["recall"] == 1.0
        assert row["at"]["0.05"]["found"] <= 2


def test_tspe_goes_from_sender_to_receiver(population):
    pytest.importorskip("elephant")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (answer,) = yardstick.tspe(population).values()
    assert yardstick.measure(answer, population.adjacency)["auc"] == 1.0


def test_correlograms_count_pairs(correlograms):
    one, other = (np.zeros(correlograms.n_bins) for _ in range(2))
    one[correlograms.bins[0]] = other[correlograms.bins[1]] = 1
    assert correlograms.pairs[4, 0, 1] == one[:-4] @ other[4:]
    assert correlograms.both_sides(4)[0, 1, 0] == one[:-4] @ other[4:]


def test_decisions_are_counted_as_elsewhere():
    rng = np.random.default_rng(0)
    adjacency = rng.choice([-1, 0, 0, 0, 1], (12, 12))
    answer = field.Answer(adjacency + rng.normal(size=(12, 12)), rng.random((12, 12)) ** 8)
    row, off = yardstick.measure(answer, adjacency), ~np.eye(12, dtype=bool)
    size, true = np.abs(answer.score[off]), adjacency[off] != 0
    found = false_discovery_control(answer.p[off]) <= 0.1
    assert row["at"]["0.1"] == {
        "found": found.sum(),
        "false": pytest.approx(1 - precision_score(true, found)),
        "recall": pytest.approx(recall_score(true, found)),
        "mcc": pytest.approx(matthews_corrcoef(true, found)),
    }
    assert row["mcc_best"] == pytest.approx(
        max(matthews_corrcoef(true, size >= cut) for cut in size)
    )


def test_a_page_is_made(population, tmp_path):
    names = "difference", "glmcc", "fastglm"
    for method in names:
        for answers in yardstick.METHODS[method][:1]:
            rows = yardstick.rows_of(answers, population)
            found = yardstick.rows_of(answers, yardstick.Recording(population.spikes, None, 60.0))
            for name in ("spycon, 3600 s", "states"):
                yardstick.update(tmp_path / "y.json", name, rows)
            results = yardstick.update(tmp_path / "y.json", "retina", found)
    assert results == json.loads((tmp_path / "y.json").read_text())
    text = yardstick.page(results)
    for title in ("GLMCC", "fastglm, 1 ms", "GLM against zero, 1 ms"):
        assert text.count(f"\n| {title} |") >= 3
