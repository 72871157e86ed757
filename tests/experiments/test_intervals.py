"""The two-level bootstrap: its width agrees with the variance derived by hand."""

import jax
import numpy as np
import pytest

from experiments.tools import intervals

KEY = jax.random.key(0)
SCORES = np.random.default_rng(0).normal(0.8, 0.05, (6, 4)).astype(np.float32)
bootstrap = jax.jit(intervals.bootstrap)


def half_width(interval):
    return float(interval.high - interval.low) / 2


def test_width_reflects_both_levels():
    """The mean of a resample has the variance B / s + W / sn, and 95 % lie within 1.96 of its root.

    B is the variance of the means of the s sets, W the mean of the variances within them, both
    with the divisor of their number, since both are drawn with replacement.
    """
    s, n = SCORES.shape
    variance = SCORES.mean(axis=1).var() / s + SCORES.var(axis=1).mean() / (s * n)
    interval = bootstrap(KEY, SCORES)
    assert half_width(interval) == pytest.approx(1.96 * variance**0.5, rel=0.05)
    assert float(interval.mean) == pytest.approx(SCORES.mean())
    assert interval.low < interval.mean < interval.high


def test_more_networks_do_not_replace_sets():
    """If scores differ between sets only, more networks do not narrow the interval."""
    few, many = (bootstrap(KEY, np.repeat(SCORES[:, :1], n, axis=1)) for n in (1, 4))
    assert half_width(few) == pytest.approx(half_width(many), rel=0.1)


def test_paired_differences_cancel_common_seeds():
    """A row that is better by 0.1 for every seed is better by exactly 0.1."""
    interval = intervals.difference(KEY, SCORES + np.float32(0.1), SCORES)
    np.testing.assert_allclose(interval, 0.1, atol=1e-6)


def test_bad_shapes_are_rejected():
    with pytest.raises(ValueError, match=r"got \(1, 4\)"):
        intervals.bootstrap(KEY, SCORES[:1])
    with pytest.raises(ValueError, match=r"\(6, 4\), \(5, 4\)"):
        intervals.difference(KEY, SCORES, SCORES[:5])
