"""Out-of-fold predictions on samples whose brightness mostly follows their class."""

import functools

import jax
import numpy as np
import pytest

from experiments.tools import truncated
from jaxdd import networks, sampling, weights

KEY, K, N = jax.random.key(0), 2, 120
RNG = np.random.default_rng(0)
LABELS = np.arange(N) % K
CONFLICTING = RNG.permutation(N) < N // 10
BRIGHT = np.where(CONFLICTING, 1 - LABELS, LABELS)
IMAGES = (60 + 120 * BRIGHT)[:, None, None, None] + RNG.integers(0, 40, (N, 8, 8, 1))
MOMENTS = dict(num_classes=K, mean=(0.5,), std=(0.25,))
POOL = sampling.pool(IMAGES.astype(np.uint8), LABELS, **MOMENTS)
NETWORK = networks.ConvNet(K, width=4, depth=1, norm=networks.BatchNorm)
LINEAR = networks.ConvNet(K, depth=0)
crossfit = functools.partial(truncated.crossfit, network=NETWORK, steps=80, batch_size=16)


@pytest.fixture(scope="module")
def probabilities():
    return crossfit(KEY, POOL)


def test_networks_learn_what_most_of_a_class_have_in_common(probabilities):
    """Predictions follow the brightness of an image."""
    assert probabilities.shape == (N, K)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert np.mean(probabilities.argmax(1) == BRIGHT) > 0.95


def test_groups_have_equal_weight(probabilities):
    by_group = weights.from_probabilities(probabilities, POOL)
    share = np.asarray(by_group.weights)[CONFLICTING].sum() / K
    assert 0.3 < share < 0.6  # 0.5 if all are detected, 0.1 if none
    score = np.asarray(by_group.conflict_score)
    assert score[CONFLICTING].mean() > 0.5 > score[~CONFLICTING].mean()


def test_predictions_are_out_of_fold():
    """On noise with random labels a network would have memorised its own samples."""
    noise = np.random.default_rng(1).integers(0, 256, (N, 8, 8, 1), dtype=np.uint8)
    predictions = crossfit(KEY, sampling.pool(noise, LABELS, **MOMENTS), steps=300).argmax(1)
    assert 0.3 < np.mean(predictions == LABELS) < 0.7


def test_same_key_gives_the_same_result_and_checkpoints_matter(probabilities):
    np.testing.assert_array_equal(crossfit(KEY, POOL), probabilities)
    assert not np.allclose(crossfit(KEY, POOL, checkpoints=1), probabilities)


def test_q_of_zero_is_the_cross_entropy():
    plain, nearly, truncated_loss = (
        crossfit(KEY, POOL, network=LINEAR, q=q) for q in (0.0, 1e-5, 0.7)
    )
    np.testing.assert_allclose(plain, nearly, atol=1e-3)
    assert not np.allclose(plain, truncated_loss, atol=1e-2)


def test_predictor_uses_the_trained_parameters():
    def negated(params, images):
        features, logits = LINEAR.apply(params, images)
        return features, -logits

    predictor = networks.Functions(LINEAR.init, negated)
    negative = crossfit(KEY, POOL, network=LINEAR, predictor=predictor)
    np.testing.assert_allclose(negative[:, ::-1], crossfit(KEY, POOL, network=LINEAR), rtol=1e-4)


def test_bad_networks_and_classes_are_rejected():
    for name in ("network", "predictor"):
        with pytest.raises(ValueError, match="3"):
            crossfit(KEY, POOL, **{name: networks.ConvNet(3, 4, 1)})
    pool = sampling.pool(np.asarray(POOL.images)[:3], [0, 0, 1], **MOMENTS)
    with pytest.raises(ValueError, match="class 1"):
        crossfit(KEY, pool)
