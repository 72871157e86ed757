"""Weights from object-blind features, on noise whose brightness is the bias, and shortcut tests."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import sampling, weights
from jaxdd.weights import blind_features, formulas

KEY = jax.random.key(0)


def bright_or_dark(conflict=0.1, counts=(180, 120), seed=0):
    """Return noise, bright in the first and dark in the second class, reversed for a share."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    groups = np.where(rng.random(len(labels)) < conflict, 1 - labels, labels)
    images = rng.uniform(0, 160, (len(labels), 8, 8, 1)) + 80 * (1 - groups)[:, None, None, None]
    statistics = dict(num_classes=len(counts), mean=(0.5,), std=(0.25,))
    return sampling.pool(images.astype(np.uint8), labels, **statistics), groups


def brightness(images):
    return images.mean((1, 2))


def one_pixel(key, images):
    """Baseline features that show little."""
    return lambda images: images[:, 0, 0]


POOL, GROUPS = bright_or_dark()


def test_groups_get_equal_weight():
    """Brightness is predicted without error, so the weights are those of the oracle."""
    result = weights.by_features(KEY, POOL, brightness)
    np.testing.assert_array_equal(result.groups.argmax(1), GROUPS)
    np.testing.assert_allclose(result.groups.sum(1), 1, rtol=1e-5)
    oracle = weights.oracle(POOL, GROUPS, num_attributes=2)
    np.testing.assert_allclose(result.weights, oracle, rtol=0.1)
    conflicts = GROUPS != np.asarray(POOL.labels)
    np.testing.assert_array_equal(result.conflict_score > 0.5, conflicts)
    clipped = weights.by_features(KEY, POOL, brightness, clip=1.5).weights
    assert float(clipped.max() * 120) <= 1.5 * (1 + 1e-5) < float(result.weights.max() * 120)


def test_uninformative_features_leave_weights_uniform():
    result = weights.by_features(KEY, POOL, lambda images: images[:, 0, 0] * 0)
    uniform = formulas.uniform(POOL.labels, num_classes=2)
    np.testing.assert_allclose(result.weights, uniform, rtol=0.02)  # folds differ a little


def test_classes_that_share_an_attribute_form_one_block():
    """Two of four classes are bright; the groups of each class are bright and dark."""
    labels = 2 * POOL.labels + jnp.arange(300) % 2
    four = sampling.pool(POOL.images, labels, num_classes=4, mean=(0.5,), std=(0.25,))
    result = weights.by_features(KEY, four, brightness, blocks=(0, 0, 1, 1))
    assert result.groups.shape == (300, 2)
    oracle = weights.oracle(four, GROUPS, num_attributes=2)
    np.testing.assert_allclose(result.weights, oracle, rtol=0.1)
    single = weights.by_features(KEY, four, brightness, blocks=(0, 0, 0, 0)).weights
    np.testing.assert_allclose(single, formulas.uniform(labels, num_classes=4), rtol=1e-5)


def test_probabilities_are_combined_with_the_prior_by_hand():
    """Two samples per class; one has probability 0.8 for the other class, and the prior is 0.1.

    The likelihoods are 0.2 / 2 and 0.8 / 2, so the odds of a conflict are 0.8 · 0.1 : 0.2 · 0.9.
    """
    images = np.zeros((4, 8, 8, 1), np.uint8)
    pool = sampling.pool(images, np.array([0, 0, 1, 1]), num_classes=2, mean=(0,), std=(1,))
    probabilities = np.array([[0.2, 0.8], [1, 0], [0, 1], [0, 1]], np.float32)
    result = weights.from_probabilities(probabilities, pool, conflict=0.1)
    np.testing.assert_allclose(result.conflict_score, [0.08 / 0.26, 0, 0, 0], atol=1e-6)


@pytest.mark.parametrize(
    "change, error, value",
    [
        (dict(blocks=(0, 1, 1)), ValueError, r"got \(3,\)"),
        (dict(blocks=(0, -1)), ValueError, r"got -1\.\.0"),
        (dict(blocks=(1, 1)), ValueError, r"got \[1, 1\]"),
        (dict(blocks=(0.0, 1.0)), TypeError, "float64"),
        (dict(conflict=0), ValueError, "got 0"),
        (dict(conflict=2), ValueError, "got 2"),
        (dict(clip=0.5), ValueError, "0.5"),
        (dict(pool=sampling.pool(POOL.images[:2], [0, 1], num_classes=2, mean=(0,), std=(1,))),
         ValueError, "got 2"),
    ],
)  # fmt: skip
def test_invalid_arguments_are_rejected_before_features_are_computed(change, error, value):
    with pytest.raises(error, match=value):
        weights.by_features(KEY, **(dict(pool=POOL, features=None) | change))


@pytest.mark.parametrize(
    "probabilities, error, value",
    [
        (np.ones((300, 2), int), TypeError, "int"),
        (np.ones((300, 3), np.float32), ValueError, r"\(300, 3\)"),
        (np.ones((300, 2), np.float32), ValueError, "got 2"),
        (np.full((300, 2), -0.5, np.float32), ValueError, "-0.5"),
    ],
)
def test_invalid_probabilities_are_rejected(probabilities, error, value):
    with pytest.raises(error, match=value):
        weights.from_probabilities(probabilities, POOL)


def test_shortcut_test_compares_errors_on_the_testing_half():
    comparisons = {"brightness": blind_features.Comparison(brightness, one_pixel)}
    test = weights.shortcuts(KEY, POOL, comparisons=comparisons)["brightness"]
    assert weights.is_shortcut(test) and test.z_score > 3
    testing = np.argsort(np.asarray(POOL.labels), kind="stable")[1::2]
    assert test.blind == pytest.approx(np.mean((GROUPS != POOL.labels)[testing]))
    unbiased, _ = bright_or_dark(conflict=0.5)
    assert weights.shortcuts(KEY, unbiased, comparisons=comparisons)["brightness"].z_score < 2


@pytest.mark.parametrize("conflict, used", [(0.1, [100, 300]), (0.5, [100])])
def test_a_first_test_ends_clear_failures(conflict, used):
    """With conflict 0.5, brightness shows nothing, but the baseline features show the class.

    Known features are not computed again.
    """
    pool, _ = bright_or_dark(conflict)
    sizes = []

    def baseline(key, images):
        sizes.append(len(images))
        return lambda images: images[:, 0, 0]

    def fail(images):
        raise AssertionError("called")

    if conflict == 0.5:
        label = (100 * pool.labels).astype(jnp.uint8)
        pool = pool._replace(images=pool.images.at[:, 0, 0, 0].set(label))
    comparisons = {"brightness": blind_features.Comparison(fail, baseline)}
    values = {"brightness": brightness(pool.images / 255)}
    test = weights.shortcuts(KEY, pool, comparisons=comparisons, values=values, first=100)
    assert sizes == used
    assert weights.is_shortcut(test["brightness"]) == (conflict == 0.1)
    everything = weights.shortcuts(KEY, pool, comparisons=comparisons, values=values)
    assert (everything == test) == (conflict == 0.1)
    sizes.clear()
    weights.shortcuts(KEY, pool, comparisons=comparisons, values=values, first=151)
    assert sizes == [300]


def test_no_shortcut_test_for_too_little_data():
    """There are too few samples, one class, images of three pixels, or no features."""

    def pool(n, side, classes):
        images, labels = np.zeros((n, side, side, 1), np.uint8), np.arange(n) % classes
        return sampling.pool(images, labels, num_classes=classes, mean=(0,), std=(1,))

    for too_little in (pool(19, 8, 2), pool(40, 8, 1), pool(40, 3, 2)):
        assert weights.shortcuts(KEY, too_little) == {}
    assert weights.shortcuts(KEY, pool(40, 8, 2), comparisons={}) == {}


def test_feature_sets_are_required():
    with pytest.raises(ValueError, match="none"):
        weights.by_feature_sets(POOL, [])
