"""Assigning attributes: exact counts, and independence of everything else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdd.data import bias

KEY = jax.random.key(0)


def assign(key, labels, conflict=0.1, k=10, attributes=10, aligned=None):
    return bias.assign(
        key, labels, num_classes=k, num_attributes=attributes, conflict=conflict, aligned=aligned
    )


# Jitted, because without jit every operation would be compiled for every shape.
quick = jax.jit(assign, static_argnames=("k", "attributes"))


def table(labels, attributes, k, num_attributes):
    """Counts by class (rows) and attribute (columns)."""
    counts = np.zeros((k, num_attributes), int)
    np.add.at(counts, (np.asarray(labels), np.asarray(attributes)), 1)
    return counts


def test_counts_of_each_class_are_exact_and_even():
    """In classes of 100, 37 and 4, a share of .2 is 20, 7.4 -> 7 and .8 -> 1 conflicting samples.

    The three other attributes get 20 = 7 + 7 + 6, 7 = 3 + 2 + 2 and 1 = 1 + 0 + 0 of them.
    """
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [100, 37, 4]))
    counts = table(labels, quick(KEY, labels, 0.2, k=3, attributes=4), 3, 4)
    assert np.diag(counts).tolist() == [80, 30, 3]
    others = [sorted(np.delete(counts[c], c).tolist()) for c in range(3)]
    assert others == [[6, 7, 7], [2, 2, 3], [0, 0, 1]]


@pytest.mark.parametrize("conflict, expected", [(0.0, 0), (1.0, 25), (0.5, 12), (0.1, 2)])
def test_share_rounds_half_to_even(conflict, expected):
    """For 25 samples, shares of .5 and .1 are 12.5 -> 12 and 2.5 -> 2."""
    labels = np.zeros(25, int)
    attributes = quick(KEY, labels, conflict, k=1, attributes=3)
    assert int((attributes != 0).sum()) == expected


def test_aligned_wraps_around_and_can_be_overridden():
    labels = np.arange(5)
    assert quick(KEY, labels, 0.0, k=5, attributes=2).tolist() == [0, 1, 0, 1, 0]
    aligned = np.array([1, 1, 0, 0, 1])
    assert quick(KEY, labels, 0.0, k=5, attributes=2, aligned=aligned).tolist() == aligned.tolist()
    flipped = quick(KEY, labels, 1.0, k=5, attributes=2, aligned=aligned)
    assert flipped.tolist() == (1 - aligned).tolist()


def test_uniform_attribute_is_independent_of_the_class():
    """A class of 1,003 has each of ten attributes 100 or 101 times; chi2 detects no dependence."""
    labels = np.tile(np.arange(10), 1003)
    counts = table(labels, quick(KEY, labels, 1 - 1 / 10), 10, 10)
    assert set(counts.ravel().tolist()) <= {100, 101}
    assert stats.chi2_contingency(counts).pvalue > 0.01


def test_every_sample_is_as_likely_to_conflict_and_every_attribute_to_get_the_remainder():
    """4 of 20 conflict, over 3 other attributes: P(conflict) = .2, P(a occurs twice) = 1/3."""
    labels = np.zeros(20, int)
    draw = jax.vmap(lambda key: quick(key, labels, 0.2, k=1, attributes=4))
    drawn = draw(jax.random.split(KEY, 3000))
    per_sample = np.asarray((drawn != 0).sum(0))
    # The number is fixed, so the covariance is p(1 - p)·20/19·(I - J/20), of rank 19.
    statistic = ((per_sample - 600) ** 2 / (600 * 0.8)).sum() * 19 / 20
    assert stats.chi2.sf(statistic, 19) > 0.001
    twice = np.asarray(jax.vmap(lambda a: jnp.bincount(a, length=4))(drawn) == 2).sum(0)[1:]
    assert twice.sum() == 3000
    assert stats.chisquare(twice).pvalue > 0.001


def test_any_number_of_classes_and_attributes():
    labels = np.repeat(np.arange(40), 30)
    counts = table(labels, quick(KEY, labels, 0.5, k=40, attributes=16), 40, 16)
    assert (counts[np.arange(40), np.arange(40) % 16] == 15).all()
    assert counts.max() == 15 and (counts >= 1).all()


def test_assign_jit_vmap_and_double_precision_agree():
    labels = np.random.default_rng(1).integers(0, 10, 500)
    draw = jax.jit(assign)
    plain = draw(KEY, labels, 0.3)
    shares = jnp.array([0.3, 0.7])
    mapped = jax.jit(jax.vmap(lambda share: assign(KEY, labels, share)))(shares)
    assert mapped[0].tolist() == plain.tolist()
    assert mapped[1].tolist() == draw(KEY, labels, 0.7).tolist()
    with jax.enable_x64(True):
        assert draw(KEY, labels, 0.3).tolist() == plain.tolist()
    assert plain.dtype == jnp.int32
    assert draw(jax.random.key(1), labels, 0.3).tolist() != plain.tolist()


def test_majority_by_hand():
    """Class 0 has attribute 1 twice; class 1 ties 0 with 2 (the first wins); class 2 is empty."""
    labels, attributes = jnp.array([0, 0, 0, 1, 1]), jnp.array([1, 1, 0, 2, 0])
    actual = bias.majority(labels, attributes, num_classes=3, num_attributes=3)
    assert actual.tolist() == [1, 0, 0]


def test_majority_finds_what_was_aligned():
    labels = np.repeat(np.arange(10), 50)
    aligned = np.random.default_rng(2).permutation(10)
    attributes = quick(KEY, labels, 0.4, aligned=aligned)
    majority = jax.jit(lambda a: bias.majority(labels, a, num_classes=10, num_attributes=10))
    assert majority(attributes).tolist() == aligned.tolist()


LABELS = np.array([0, 1, 2])


@pytest.mark.parametrize(
    "change, error, match",
    [
        (dict(labels=LABELS / 2), TypeError, "labels.*float"),
        (dict(labels=LABELS[:, None]), ValueError, r"labels.*\(3, 1\)"),
        (dict(labels=LABELS + 8), ValueError, r"labels.*8..10"),
        (dict(labels=LABELS - 1), ValueError, r"labels.*-1..1"),
        (dict(conflict=1.5), ValueError, "1.5"),
        (dict(conflict=float("nan")), ValueError, "nan"),
        (dict(conflict=jnp.zeros(3)), ValueError, r"\(3,\)"),
        (dict(attributes=1), ValueError, "got 1"),
        (dict(aligned=LABELS), ValueError, r"aligned.*\(10,\).*\(3,\)"),
        (dict(aligned=np.arange(10) + 1), ValueError, "aligned.*1..10"),
    ],
)
def test_assign_rejects_bad_arguments(change, error, match):
    with pytest.raises(error, match=match):
        assign(KEY, **{"labels": LABELS, **change})


def test_majority_rejects_lengths_that_differ():
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
        bias.majority(LABELS, LABELS[:2], num_classes=3, num_attributes=3)
