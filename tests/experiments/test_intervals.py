"""The two-level bootstrap against its moments by hand, what it must leave alone, and bad scores."""

import jax
import numpy as np
import pytest

from experiments.tools import intervals

KEY = jax.random.key(0)
SCORES = np.random.default_rng(0).normal(0.8, 0.05, (6, 4)).astype(np.float32)


bootstrap = jax.jit(intervals.bootstrap)


def half(interval):
    return float(interval.high - interval.low) / 2


def test_the_width_is_that_of_both_levels():
    """The mean of a resample has the variance B / s + W / sn, and 95 % lie within 1.96 of its root.

    B is the variance of the means of the s sets, W the mean of the variances within them, both
    with the divisor of their number, since both are drawn with replacement.
    """
    s, n = SCORES.shape
    variance = SCORES.mean(axis=1).var() / s + SCORES.var(axis=1).mean() / (s * n)
    found = bootstrap(KEY, SCORES)
    assert half(found) == pytest.approx(1.96 * variance**0.5, rel=0.05)
    assert float(found.mean) == pytest.approx(SCORES.mean()) and found.low < found.mean < found.high
    narrow = jax.jit(lambda: intervals.bootstrap(KEY, SCORES, level=0.68))()
    assert half(narrow) == pytest.approx(variance**0.5, rel=0.08)


def test_networks_of_one_set_do_not_stand_in_for_sets():
    """Scores that differ between sets alone: more networks make the interval no narrower."""
    sets = SCORES[:, :1]
    few, many = (bootstrap(KEY, np.repeat(sets, n, axis=1)) for n in (1, 4))
    assert half(few) == pytest.approx(half(many), rel=0.1)
    assert half(many) == pytest.approx(1.96 * (sets.var() / len(sets)) ** 0.5, rel=0.15)


def test_what_seeds_have_in_common_cancels():
    """A row that is .1 better for every seed is .1 better for certain."""
    difference = jax.jit(intervals.difference)
    found = difference(KEY, SCORES + np.float32(0.1), SCORES)
    np.testing.assert_allclose(found, 0.1, atol=1e-6)
    direct = bootstrap(KEY, SCORES - SCORES[::-1])
    np.testing.assert_allclose(difference(KEY, SCORES, SCORES[::-1]), direct, atol=1e-7)


def test_the_same_key_gives_the_same_interval():
    first, same, other = (bootstrap(jax.random.key(k), SCORES) for k in (1, 1, 2))
    assert first == same and first != other and first.mean == other.mean


@pytest.mark.parametrize(
    "scores, options, error, said",
    [
        (SCORES[:1], {}, ValueError, r"at least two sets, found shape \(1, 4\)"),
        (SCORES[0], {}, ValueError, r"\[sets, networks\].*found shape \(4,\)"),
        (SCORES[:, :0], {}, ValueError, r"found shape \(6, 0\)"),
        (np.full((2, 2), np.nan), {}, ValueError, "scores must be finite"),
        (np.ones((2, 2), int), {}, TypeError, "scores must be floating, found int"),
        (SCORES, {"level": 95}, ValueError, "level must lie between 0 and 1, found 95"),
        (SCORES, {"samples": 1}, ValueError, "samples must be at least 2, found 1"),
    ],
)
def test_bad_scores_are_named(scores, options, error, said):
    with pytest.raises(error, match=said):
        intervals.bootstrap(KEY, scores, **options)


def test_rows_of_other_seeds_are_no_pairs():
    with pytest.raises(ValueError, match=r"one shape, found \(6, 4\) and \(5, 4\)"):
        intervals.difference(KEY, SCORES, SCORES[:5])
