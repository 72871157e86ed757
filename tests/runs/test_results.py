"""Scores as text."""

from jaxdd.runs import results


def test_one_network_has_no_interval():
    score = results.Score(0.5, 0.0, 1)
    assert results.interval(score) is None and results.percent(score) == "50.0"
    assert results.interval(results.Score(0.99, 0.02, 3))[1] == 1
