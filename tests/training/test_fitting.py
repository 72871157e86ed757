"""Training against SGD written out by hand, on images of stripes."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdd import augment, networks, training

KEY = jax.random.key(0)
NETWORK = networks.ConvNet(num_classes=2, width=4, depth=1)
INIT = jax.jit(NETWORK.init)


def train(images, labels, **options):
    run = functools.partial(training.train, network=NETWORK, **options)
    return jax.device_get(jax.jit(run)(KEY, images=np.float32(images), labels=labels))


def stripes(n, seed=0):
    """Class 0 has bright rows, class 1 bright columns; uint8 `[n, 8, 8, 1]`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = rng.integers(0, 80, (n, 8, 8))
    rows = np.arange(8) % 2 * 150
    images = images + np.where(labels[:, None, None] == 0, rows[:, None], rows[None, :])
    return images[..., None].astype(np.uint8), labels


def test_training_is_sgd_with_momentum_decay_and_a_drop():
    """Four full-batch epochs equal torch's update rule written out, whatever the order.

    v ← µ v + g + λ p and p ← p − η v, with η / 10 in epochs 3 and 4.
    """
    images, labels = stripes(6)
    images = np.float32(images / 255.0 - 0.5)
    trained = train(images, labels, epochs=4, strategy=())

    @jax.jit
    @jax.grad
    def slope(params):
        logits = NETWORK.apply(params, images).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    params = jax.device_get(INIT(jax.random.split(KEY)[0], images[:1]))
    velocity = jax.tree.map(np.zeros_like, params)
    for epoch in range(4):
        rate, gradient = 0.01 if epoch < 2 else 0.001, jax.device_get(slope(params))
        velocity = jax.tree.map(lambda v, g, p: 0.9 * v + g + 5e-4 * p, velocity, gradient, params)
        params = jax.tree.map(lambda p, v, rate=rate: p - rate * v, params, velocity)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), trained, params)


@pytest.mark.parametrize("m, batch_size", [(7, 3), (5, 256), (6, 3), (1, 1)])
def test_any_set_and_batch_size(m, batch_size):
    images, labels = stripes(m)
    params = train(images / 255.0, labels, epochs=2, batch_size=batch_size)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))


def test_an_uneven_epoch_sees_every_sample_once():
    """Of three samples in batches of two, the second batch is one sample, without padding.

    At a tiny learning rate without momentum or decay the parameters move by −η (g_ab + g_c / 10),
    where g are gradients of batch means, c is the sample left over (one of three candidates), and
    the second of the two updates is in the half with a tenth of the rate.
    """
    images, labels = stripes(3)
    images = np.float32(images / 255.0)
    params = jax.device_get(INIT(jax.random.split(KEY)[0], images[:1]))
    after = train(
        images,
        labels,
        epochs=1,
        batch_size=2,
        learning_rate=1e-5,
        momentum=0.0,
        weight_decay=0.0,
        strategy=(),
    )

    @jax.jit
    def gradient(chosen):
        def loss(params):
            logits = NETWORK.apply(params, jnp.asarray(images)[chosen]).logits
            chosen_labels = jnp.asarray(labels)[chosen]
            return optax.softmax_cross_entropy_with_integer_labels(logits, chosen_labels).mean()

        return jax.grad(loss)(params)

    moved = jax.tree.map(lambda x, y: (x - y) / -1e-5, after, params)["params"]["classifier"]
    candidates = []
    for single in range(3):
        pair = [i for i in range(3) if i != single]
        slopes = jax.device_get([gradient(np.array(part)) for part in (pair, [single])])
        total = jax.tree.map(lambda x, y: x + y / 10, *slopes)
        total = total["params"]["classifier"]
        candidates.append(np.abs(total["kernel"] - moved["kernel"]).max())
    assert min(candidates) < 0.02 and sorted(candidates)[1] > 2 * min(candidates)


@pytest.mark.parametrize(
    "images, labels",
    [
        (np.zeros((0, 8, 8, 1)), np.zeros(0, int)),
        (np.zeros((2, 8, 8, 1)), np.zeros(3, int)),
        (np.zeros((2, 8, 8)), np.zeros(2, int)),
    ],
)
def test_shapes_must_agree(images, labels):
    with pytest.raises(ValueError, match=re.escape(str(images.shape))):
        training.train(KEY, NETWORK, images, labels)


SET = dict(images=np.zeros((2, 8, 8, 1), np.float32), labels=np.arange(2))


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(labels=np.arange(2) + 1), ValueError, r"labels.*1\.\.2"),
        (dict(labels=np.arange(2) - 1), ValueError, r"labels.*-1\.\.0"),
        (dict(labels=np.arange(2) / 1), TypeError, "labels.*float64"),
        (dict(images=SET["images"] * np.nan), ValueError, "images.*nan"),
        (dict(images=SET["images"] + 255), ValueError, "255.0"),
        (dict(images=SET["images"].astype(np.uint8)), TypeError, "uint8"),
        (dict(epochs=0), ValueError, "epochs.*0"),
        (dict(epochs=-1), ValueError, "epochs.*-1"),
        (dict(epochs=1.5), TypeError, "epochs.*1.5"),
        (dict(batch_size=0), ValueError, "batch_size.*0"),
        (dict(learning_rate=np.nan), ValueError, "learning_rate.*nan"),
        (dict(momentum=-1.0), ValueError, "momentum.*-1"),
    ],
)
def test_train_checks_its_arguments(change, error, message):
    with pytest.raises(error, match=message):
        training.train(KEY, NETWORK, **(SET | change))


def test_a_single_update_has_the_full_learning_rate():
    optimizer = training.sgd(
        1, epochs=1, batch_size=1, learning_rate=0.5, momentum=0.0, weight_decay=0.0
    )
    updates, _ = optimizer.update(jnp.array(2.0), optimizer.init(jnp.array(0.0)), jnp.array(0.0))
    assert updates == -1


@pytest.mark.parametrize("total, full", [(2, 1), (3, 1), (4, 2), (5, 2)])
def test_the_learning_rate_drops_halfway(total, full):
    optimizer = training.sgd(1, epochs=total, batch_size=1, learning_rate=1.0, momentum=0.0)
    state, steps = optimizer.init(0.0), []
    for _ in range(total):
        update, state = optimizer.update(1.0, state, 0.0)
        steps.append(-float(update))
    np.testing.assert_allclose(steps, [1] * full + [0.1] * (total - full), rtol=1e-6)


def test_an_epoch_has_every_sample_once():
    """Seven samples in batches of at most three give three updates, with two samples repeated."""

    def count(carry, key, indices, present):
        return carry.at[indices].add(present)

    run = functools.partial(training.run_epochs, num_samples=7, epochs=4, batch_size=3)
    seen = jax.jit(lambda: run(KEY, count, jnp.zeros(7)))()
    np.testing.assert_array_equal(seen, np.full(7, 4.0))


def test_a_custom_augmentation_equals_the_named_one():
    images, labels = stripes(6)
    names = ("crop", "cutout")

    def own(key, image):
        return augment.apply(augment.draw(key, image.shape, strategy=names), image)

    params, expected = (
        train(images / 255.0, labels, epochs=2, batch_size=3, strategy=strategy)
        for strategy in (own, names)
    )
    jax.tree.map(np.testing.assert_array_equal, params, expected)
