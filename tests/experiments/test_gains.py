"""Gains as a share of the oracle's gain."""

import numpy as np

from experiments.tools import gains


def test_a_table_has_means_over_seeds_and_the_share_of_their_sum():
    scores = {
        ("plain", "conflicting"): 0.2, ("auto", "conflicting"): 0.5, ("oracle", "conflicting"): 0.6,
        ("plain", "accuracy"): 0.3, ("auto", "accuracy"): 0.5,
    }  # fmt: skip
    gain = gains.gain(lambda row, score: scores[row, score], "auto")
    assert np.allclose(gain, (0.2, 0.5, 0.6, 0.2))
    other = gains.Gain(0.2, 0.2, 0.4, 0.0)
    assert gains.table([("bar", [gain, other])])[2:] == [
        "| bar | 2 | 20.0 | 35.0 | 50.0 | 50 % | +10.0 |"
    ]
    missing = gains.Gain(0.2, np.nan, 0.4, np.nan)
    assert gains.table([("bar", [missing])])[2].endswith("| – | – |")
