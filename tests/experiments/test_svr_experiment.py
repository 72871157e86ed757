"""The experiment on support vector regression: its noises, its rules and its results."""

import numpy as np
import pytest

from experiments import svr as experiment
from experiments.tools import record
from jaxdd import svr
from jaxdd.data import files


def test_noises_have_the_same_standard_deviation():
    rng = np.random.default_rng(6)
    draws = {name: draw(rng, 40_000) for name, draw in experiment.NOISES.items()}
    core = np.abs(draws.pop("outliers")) < 3
    assert 0.03 < 1 - core.mean() < 0.05  # a quarter of the 5 % is within three
    for name, draw in draws.items():
        assert draw.std() == pytest.approx(1, abs=0.02), name
    tube = svr.fit(draws["ε-Laplacian"])
    assert tube.half_width == pytest.approx(tube.scale, rel=0.1)


def test_cherkassky_ma_by_hand():
    """Residuals ±1 of a level line leave 4 / (4 − 2): 3 · √2 · √(log 4 / 4)."""
    x, y = np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([1.0, -1.0, 1.0, -1.0])
    expected = 3 * np.sqrt(2) * np.sqrt(np.log(4) / 4)
    assert experiment.cherkassky_ma(x, y, "linear") == pytest.approx(expected)


def test_results_are_resumed_and_reproducible(monkeypatch, tmp_path):
    cells = [cell for cell in experiment.cells() if cell[0] == "nonlinear, uniform, 20"]
    monkeypatch.setattr(experiment, "cells", lambda: iter(cells))
    out = tmp_path / "svr.json"
    record.fill(out, experiment.tasks(repeats=2))
    before = files.read_json(out)["measured"][cells[0][0]]
    with monkeypatch.context() as context:
        context.setattr(experiment, "measure", lambda *_, **__: pytest.fail("measured again"))
        record.fill(out, experiment.tasks(repeats=2))
    name, draw, options = cells[0]
    again = experiment.measure(name, draw, 2, **options)
    for method in experiment.METHODS:
        assert again["methods"][method]["mean"] == before["methods"][method]["mean"]
        assert again["methods"][method]["width"] == before["methods"][method]["width"]
    difference = before["paired"]["likelihood"]["fixed"]["mean"]
    means = [before["methods"][method]["mean"] for method in ("likelihood", "fixed")]
    assert difference == pytest.approx(means[0] - means[1])


def test_the_committed_results_have_every_cell():
    measured = files.read_json(experiment.OUT)["measured"]
    assert list(measured) == [name for name, *_ in experiment.cells()]
    assert {row["repeats"] for row in measured.values()} == {100}
