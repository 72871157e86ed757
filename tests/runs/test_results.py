"""Results: reading them back, and the quantities derived from them."""

import pathlib

import numpy as np
import pytest

from jaxdd.data import files
from jaxdd.runs import results
from jaxdd.runs.results import Breakdown, Result, Score, Scores

RESULTS = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "results"


def make_result(**fields):
    by_class = Breakdown(("a", "b"), *np.array([[9, 5], [6, 4]]), *np.array([[0.5, np.nan]] * 2))
    scores = dict(accuracy=Score(0.5, 0.1, 2, (0.4, 0.6)), by_class=by_class, learned=True)
    fields = dict(config={"ipc": 1, "debias": "density"}, seconds={"data": 1.0}) | fields
    return Result(**scores, random=Scores(**scores), date="2026-01-01", seed=0, **fields)


def test_results_survive_json(tmp_path):
    result = make_result()
    files.write_json(tmp_path / "result.json", result.timeless())
    files.write_json(tmp_path / "timing.json", {"seconds": {"data": 1.0}, "date": "2026-01-01"})
    rows = results.read(tmp_path / "result.json")
    assert list(rows) == ["random", "density"]
    assert rows["density"].to_dict() == result.to_dict()
    assert rows["random"].accuracy == result.accuracy and np.isnan(result.aligned.mean)
    assert np.isnan(rows["density"].by_class.mean[1]) and rows["density"].by_group is None
    unknown = result.by_class._replace(train=None)
    unknown = results.Scores(accuracy=result.accuracy, by_group=unknown).to_dict()
    assert results.Scores.from_dict(unknown).by_group.train is None
    files.write_json(tmp_path / "compare.json", {"rows": {"plain": result.to_dict()}})
    assert results.read(tmp_path / "compare.json")["plain"].date == "2026-01-01"


@pytest.mark.parametrize(
    "content",
    [
        [1], {}, {"rows": {"plain": {}}}, {"accuracy": 1}, {"accuracy": {"mean": "x"}},
        {"accuracy": {"mean": None}}, {"accuracy": {"mean": 0.5}, "by_class": {"names": []}},
    ],
    ids=str,
)  # fmt: skip
def test_files_without_results(tmp_path, content):
    files.write_json(tmp_path / "a.json", content)
    with pytest.raises(ValueError, match="a.json"):
        results.read(tmp_path / "a.json")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"seconds": 1}'])
def test_damaged_timings_are_ignored(tmp_path, content):
    (tmp_path / "timing.json").write_text(content)
    assert results.read_timing(tmp_path) == {}


def test_a_network_that_predicts_one_class_has_not_learned():
    by_class = Breakdown((), *np.full((4, 10), 1000))
    scores = Scores(accuracy=Score(0.105, 0.0, 1), by_class=by_class)
    assert results.has_learned(scores) is False
    assert results.has_learned(Scores(accuracy=Score(0.9))) is None
    result = Result(accuracy=scores.accuracy, by_class=by_class, learned=False)
    assert "10.5" in results.remark(result) and "10.0" in results.remark(result)
    assert results.remark(make_result()) is None


def test_the_smallest_group_has_some_images():
    groups = Breakdown((), *np.array([[[40, 3], [0, 40]]] * 4))
    assert results.smallest_group(Scores(by_group=groups)) == 3
    assert results.smallest_group(Scores()) is None


def test_the_committed_comparison_can_be_read():
    rows = results.read(RESULTS / "demo.json")
    assert {"plain", "density"} <= rows.keys()
    assert rows["density"].accuracy.mean > rows["plain"].accuracy.mean
