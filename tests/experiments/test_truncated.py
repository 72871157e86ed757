"""What networks say of samples that they have not seen; most of each class are bright or dark."""

import functools

import jax
import numpy as np
import pytest

from experiments.tools import truncated
from jaxdd import networks, sampling, weights

KEY, K, N = jax.random.key(0), 2, 120
RNG = np.random.default_rng(0)
LABELS = np.arange(N) % K
CONFLICTS = RNG.permutation(N) < N // 10
BRIGHT = np.where(CONFLICTS, 1 - LABELS, LABELS)
IMAGES = (60 + 120 * BRIGHT)[:, None, None, None] + RNG.integers(0, 40, (N, 8, 8, 1))
GIVEN = dict(num_classes=K, mean=(0.5,), std=(0.25,))
POOL = sampling.pool(IMAGES.astype(np.uint8), LABELS, **GIVEN)
NETWORK = networks.ConvNet(K, width=4, depth=1, norm=networks.BatchNorm)
LINEAR = networks.ConvNet(K, depth=0)
crossfit = functools.partial(truncated.crossfit, network=NETWORK, steps=80, batch_size=16)


@pytest.fixture(scope="module")
def told():
    return crossfit(KEY, POOL)


def test_networks_say_what_most_of_a_class_have_in_common(told):
    """Brightness is all that there is to see."""
    assert told.shape == (N, K)
    np.testing.assert_allclose(told.sum(1), 1, rtol=1e-5)
    assert np.mean(told.argmax(1) == BRIGHT) > 0.95


def test_their_groups_share_the_mass(told):
    found = weights.from_probabilities(told, POOL)
    mass = np.asarray(found.weights)[CONFLICTS].sum() / K
    assert 0.3 < mass < 0.6  # 0.5 where they are told for sure, 0.1 where they are not
    doubt = np.asarray(found.conflict_score)
    assert doubt[CONFLICTS].mean() > 0.5 > doubt[~CONFLICTS].mean()


def test_no_network_speaks_of_what_it_has_seen():
    """Of noise with labels by chance it would have learnt the labels of all that it has seen."""
    noise = np.random.default_rng(1).integers(0, 256, (N, 8, 8, 1), dtype=np.uint8)
    told = crossfit(KEY, sampling.pool(noise, LABELS, **GIVEN), steps=300)
    assert 0.3 < np.mean(told.argmax(1) == LABELS) < 0.7


def test_the_same_key_says_the_same_and_states_on_the_way_count(told):
    np.testing.assert_array_equal(crossfit(KEY, POOL), told)
    assert not np.allclose(crossfit(KEY, POOL, checkpoints=1), told)


def test_without_truncation_the_loss_is_the_cross_entropy():
    """Which is what q → 0 comes to."""
    plain, nearly, cut = (crossfit(KEY, POOL, network=LINEAR, q=q) for q in (0.0, 1e-5, 0.7))
    np.testing.assert_allclose(plain, nearly, atol=1e-3)
    assert not np.allclose(plain, cut, atol=1e-2)


def test_another_network_can_be_asked_with_the_parameters():
    def contrary(params, images):
        features, logits = LINEAR.apply(params, images)
        return features, -logits

    asked = networks.Functions(LINEAR.init, contrary)
    said = crossfit(KEY, POOL, network=LINEAR, asked=asked)
    np.testing.assert_allclose(said[:, ::-1], crossfit(KEY, POOL, network=LINEAR), rtol=1e-4)


def test_the_default_network_fits_the_images():
    network = truncated.default_network(POOL, width=4)
    assert network.depth == 3 and network.norm is networks.BatchNorm and network.num_classes == K


@pytest.mark.parametrize(
    "given, part",
    [
        (dict(folds=1), "folds must be at least 2, found 1"),
        (dict(steps=0), "steps must be at least 1, found 0"),
        (dict(checkpoints=0), "checkpoints must be at least 1"),
        (dict(batch_size=0), "batch_size must be at least 1"),
        (dict(q=-1.0), "q must be at least 0 and finite, found -1.0"),
        (dict(q=np.inf), "q must be finite"),
        (dict(asked=networks.ConvNet(3, 4, 1)), "3"),
        (dict(network=networks.ConvNet(3, 4, 1)), "3"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(given, part):
    with pytest.raises(ValueError, match=part):
        crossfit(KEY, POOL, **given)


def test_a_class_of_one_sample_is_refused():
    pool = sampling.pool(np.asarray(POOL.images)[:3], [0, 0, 1], **GIVEN)
    with pytest.raises(ValueError, match="class 1 has 1"):
        crossfit(KEY, pool)


@pytest.mark.parametrize(
    "told, given, part",
    [
        (np.ones((N, 3)), {}, r"\(120, 2\) here, found \(120, 3\)"),
        (np.ones((N, K)), dict(blocks=[0, 0]), r"\(120, 1\) here"),
        (np.ones((N, K)), dict(conflict=0.0), "conflict must lie between 0 and 1"),
        (np.ones((N, K)), dict(clip=0.5), "clip must be at least 1"),
        (np.full((N, K), np.nan), {}, "finite"),
        (np.full((N, K), -0.5, np.float32), {}, "must be at least 0 and finite, found -0.5"),
        (np.zeros((N, K), np.float32), {}, "must sum to 1, found 0.0"),
        (np.ones((N, K), np.float32), {}, "must sum to 1, found 2.0"),
        (np.full((N, K), 1 / K, np.float32), dict(conflict=1e-40), "between 0 and 1, found 1e-40"),
    ],
    ids=str,
)
def test_probabilities_that_do_not_fit_are_refused(told, given, part):
    with pytest.raises(ValueError, match=part):
        weights.from_probabilities(told, POOL, **given)
