"""Tests of what commands print: scores, and remarks on groups, learning and choices of weights."""

import numpy as np

from jaxdd.commands import screen
from jaxdd.runs import results

SCORES = {name: results.Score(0.5, 0.1, 2) for name in results.SCORES}


def test_choices_of_weights_are_explained(capsys):
    rejected = dict(verdict="none", uniform=True, chosen=[], candidates=[{"name": "tone"}])
    detected = dict(verdict="biased", uniform=False, chosen=["texture"], candidates=[])
    rows = {
        "random": results.Result(**SCORES),
        "auto": results.Result(**SCORES, choice=rejected),
        "other": results.Result(**SCORES, choice=detected, weights={"conflict_weight_share": 0.85}),
    }
    screen.show(rows, "out")
    printed = capsys.readouterr().out
    assert "other uses weights against a bias in fine structure (texture)" in printed
    assert "auto kept uniform weights: no evidence of a bias" in printed
    assert "50.0 ± 10.0" in printed and "0.85" in printed and "wrote out" in printed


def test_unreliable_scores_are_reported(capsys):
    """Small groups are reported on stdout, networks that learned nothing on stderr."""
    counts = np.array([[500, 9], [40, 451]])
    by_group = results.Breakdown((), counts, counts, np.full((2, 2), 0.5), np.zeros((2, 2)))
    by_class = results.Breakdown((), *[np.array([500, 500])] * 2, np.full(2, 0.5), np.zeros(2))
    poor = results.Result(**SCORES, by_class=by_class, by_group=by_group, learned=False)
    screen.show({"density": poor, "plain": results.Result(**SCORES)}, "out")
    output = capsys.readouterr()
    assert "smallest group has 9 test images" in output.out
    assert output.err.startswith("jaxdd: density: ") and output.err.count("\n") == 1
    assert "50.0 %" in output.err
    screen.show({"plain": results.Result(worst_group=results.Score(0.9))}, "out")
    assert "attributes of all training images" in capsys.readouterr().out
    screen.show({"plain": results.Result(accuracy=results.Score(0.9))}, "out")
    assert "no bias attributes" in capsys.readouterr().out
