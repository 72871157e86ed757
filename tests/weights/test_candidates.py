"""Evidence of hand-made predictions, and candidates of features and of embeddings of a user."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import sampling, weights
from jaxdd.weights import blind_features, candidates, probes

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def make_pool(labels, num_classes, side=8):
    images = RNG.integers(0, 256, (len(labels), side, side, 1), dtype=np.uint8)
    return sampling.pool(images, labels, num_classes=num_classes, mean=(0.5,), std=(0.25,))


def predictions(labels, num_classes, *, conflicting, ambiguous, sure=0.995):
    """Return probabilities that name another class for some samples and two classes for others.

    Of each class, the first `conflicting` samples are surely of the next class, and the following
    `ambiguous` ones half of it.
    """
    rank = np.arange(len(labels)) % np.bincount(labels)[0]
    named = np.where(rank < conflicting, (labels + 1) % num_classes, labels)
    low = (1 - sure) / (num_classes - 1)
    probabilities = np.where(np.eye(num_classes)[named] > 0, sure, low)
    unsure = 0.2 * np.eye(num_classes) + 0.8 * np.roll(np.eye(num_classes), 1, 1)
    is_unsure = (rank >= conflicting) & (rank < conflicting + ambiguous)
    return np.where(is_unsure[:, None], unsure[labels], probabilities).astype(np.float32)


def test_bimodality_counts_confident_and_ambiguous_samples():
    """12 of 120 samples of a class conflict and 24 are ambiguous; halves are alike."""
    labels = np.repeat(np.arange(3), 120)
    probabilities = predictions(labels, 3, conflicting=12, ambiguous=24)
    blocks, bimodality, share = candidates.find_blocks(probabilities, labels)
    assert blocks == (0, 1, 2)
    np.testing.assert_allclose((bimodality, share), (0.5, 0.1), rtol=1e-6)


@pytest.mark.parametrize("conflicting, ambiguous", [(0, 24), (0, 0)])
def test_without_confident_samples_the_bimodality_is_zero(conflicting, ambiguous):
    labels = np.repeat(np.arange(3), 120)
    probabilities = predictions(labels, 3, conflicting=conflicting, ambiguous=ambiguous)
    assert candidates.find_blocks(probabilities, labels) == ((0, 1, 2), 0.0, 0.0)


def test_classes_that_share_an_attribute_form_blocks():
    """Classes 0 and 2 share an attribute, and 1 and 3: predictions within a pair are random."""
    labels, row = np.repeat(np.arange(4), 100), np.arange(400)
    pair = np.where(row % 100 < 10, 1 - labels % 2, labels % 2)
    probabilities = np.full((400, 4), 0.001, np.float32)
    first = pair + 2 * (row // 2 % 2)
    probabilities[row, first], probabilities[row, (first + 2) % 4] = 0.797, 0.201
    blocks, bimodality, share = candidates.find_blocks(probabilities, labels)
    assert blocks[0] == blocks[2] != blocks[1] == blocks[3]
    assert bimodality > 10 and share == pytest.approx(0.1)


def test_a_class_with_most_samples_is_no_block():
    labels = np.repeat([0, 1], [190, 10])
    probabilities = np.eye(2, dtype=np.float32)[np.where(np.arange(200) % 10, labels, 1 - labels)]
    assert candidates.find_blocks(probabilities, labels) == ((0, 1), 0.0, 0.0)


def test_scores_of_density_weights_are_ranks_within_the_class():
    pool = make_pool(np.array([1, 0, 1, 0, 1]), 2)
    sample_weights = jnp.array([0.2, 0.9, 0.5, 0.1, 0.3])
    candidate = candidates.from_density(sample_weights, jnp.zeros(5, int), pool)
    np.testing.assert_allclose(
        candidate.conflict_score, [0.5 / 3, 1.5 / 2, 2.5 / 3, 0.5 / 2, 1.5 / 3], rtol=1e-6
    )
    assert not candidate.is_bimodal and candidate.record()["blocks"] == [0, 1]


def test_a_candidate_without_blocks_has_the_weights_of_its_features():
    """The classes differ in brightness, so that no sample conflicts."""
    pool = make_pool(np.arange(60) % 3, 3)
    pool = pool._replace(images=pool.images // 4 + 90 * pool.labels[:, None, None, None])
    pool = pool._replace(images=pool.images.astype(jnp.uint8))
    candidate = weights.by_candidate(KEY, pool, "border", strategy=())
    expected = weights.by_features(candidates.folds_key(KEY), pool, blind_features.border)
    assert candidate.blocks == (0, 1, 2)
    np.testing.assert_array_equal(candidate.weights, expected.weights)
    np.testing.assert_array_equal(candidate.groups, expected.groups.argmax(1))
    np.testing.assert_array_equal(candidate.conflict_score, expected.conflict_score)


def test_probabilities_by_an_embedding_of_the_user_are_those_of_a_probe():
    pool = make_pool(np.arange(60) % 3, 3)
    embedding = RNG.normal(size=(60, 5)).astype(np.float32)
    options = dict(strategy=(), embeddings={"mine": embedding})
    result = weights.feature_probabilities(KEY, pool, ["mine"], **options)["mine"]
    key = candidates.folds_key(KEY)
    expected = probes.crossfit(key, embedding, pool.labels, num_classes=3, power=0.7)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    "name, embedding, value",
    [
        ("mine", np.zeros((59, 2)), "59"),
        ("mine", np.full((60, 2), np.nan), "mine"),
        ("mine", np.zeros(60), "60"),
        ("shape", np.zeros((60, 2)), "shape"),
    ],
)
def test_invalid_embeddings_and_names_are_rejected(name, embedding, value):
    pool = make_pool(np.arange(60) % 3, 3)
    with pytest.raises(ValueError, match=value):
        weights.by_candidate(KEY, pool, name, strategy=(), embeddings={"mine": embedding})
