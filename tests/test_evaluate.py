import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdd import evaluate, networks

KEY = jax.random.key(0)
NETWORK = networks.ConvNet(num_classes=2, width=4, depth=2)
STATISTICS = dict(mean=jnp.array([0.5]), std=jnp.array([0.25]))


def stripes(n, seed=0):
    """Class 0 has bright rows, class 1 bright columns; uint8 `[n, 8, 8, 1]`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = rng.integers(0, 80, (n, 8, 8))
    rows = np.arange(8) % 2 * 150
    images = images + np.where(labels[:, None, None] == 0, rows[:, None], rows[None, :])
    return images[..., None].astype(np.uint8), labels


def test_scores_by_hand():
    """Two classes, aligned attributes 0 and 1.

    Group (0, 0): 2 of 2 right, (0, 1): 1 of 2, (1, 0): 0 of 1, (1, 1): 3 of 3. Accuracy 6/8, aligned
    5/5, conflicting 1/3, worst 0; gaps .5 and 1, so .75 in the mean and 1 at most.
    """
    labels = jnp.array([0, 0, 0, 0, 1, 1, 1, 1])
    attributes = jnp.array([0, 0, 1, 1, 0, 1, 1, 1])
    predictions = jnp.array([0, 0, 0, 1, 0, 1, 1, 1])
    scores = evaluate.score(
        predictions, labels, attributes, jnp.array([0, 1]), num_classes=2, num_attributes=2
    )
    np.testing.assert_allclose(scores.groups, [[1, 0.5], [0, 1]])
    np.testing.assert_allclose(scores[:6], [0.75, 1, 1 / 3, 0, 1, 0.75], rtol=1e-6)


def test_empty_groups_are_left_out():
    """Attribute 2 never occurs and class 1 has one group: no gap there, nan for the empty ones."""
    labels, attributes = jnp.array([0, 0, 1]), jnp.array([0, 1, 1])
    scores = evaluate.score(
        jnp.array([0, 1, 1]),
        labels,
        attributes,
        jnp.array([0, 1]),
        num_classes=2,
        num_attributes=3,
    )
    np.testing.assert_array_equal(scores.groups, [[1, 0, np.nan], [np.nan, 1, np.nan]])
    assert scores.worst_group == 0 and scores.deo_max == 1 and scores.deo_mean == 0.5


def test_without_attributes_only_accuracy_is_known():
    scores = evaluate.score(jnp.array([0, 1]), jnp.array([0, 0]), num_classes=2)
    assert scores.accuracy == 0.5
    assert all(jnp.isnan(value) for value in scores[1:6])


def test_a_network_learns_the_stripes_and_the_random_labels_it_is_given():
    images, labels = stripes(16)
    test_images, test_labels = stripes(40, seed=1)
    scores = jax.jit(
        lambda keys, labels: evaluate.evaluate(
            keys,
            NETWORK,
            (images / 255.0 - 0.5) / 0.25,
            labels,
            (jnp.asarray(test_images), jnp.asarray(test_labels), None),
            aligned=None,
            epochs=60,
            strategy=(),
            **STATISTICS,
        )
    )
    keys = jax.random.split(KEY, 2)
    assert (scores(keys, labels).accuracy > 0.95).all()
    assert (scores(keys, 1 - labels).accuracy < 0.05).all()
    assert scores(keys, labels).groups.shape == (2, 2, 0)


def test_seeds_are_those_of_single_runs():
    images, labels = stripes(8)
    test = (jnp.asarray(images), jnp.asarray(labels), jnp.asarray(labels))
    score = functools.partial(
        evaluate.evaluate,
        network=NETWORK,
        images=images / 255.0 - 0.5,
        labels=labels,
        test=test,
        aligned=jnp.array([0, 1]),
        num_attributes=2,
        epochs=2,
        strategy=("flip", "scale"),
        **STATISTICS,
    )
    keys, score = jax.random.split(KEY, 2), jax.jit(score)
    together = score(keys)
    for i in range(2):
        alone = score(keys[i : i + 1])
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x[i], y[0]), together, alone)


def test_training_is_sgd_with_momentum_decay_and_a_drop():
    """Four full-batch epochs, order irrelevant, written out with torch's update rule.

    v ← µ v + g + λ p and p ← p − η v, with η / 10 in epochs 3 and 4.
    """
    images, labels = stripes(6)
    images = jnp.asarray(images / 255.0 - 0.5)
    found = evaluate.train(KEY, NETWORK, images, labels, epochs=4, strategy=())

    def loss(params):
        logits = NETWORK.apply(params, images).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    params = NETWORK.init(jax.random.split(KEY)[0], images[:1])
    velocity = jax.tree.map(jnp.zeros_like, params)
    for epoch in range(4):
        rate, gradient = 0.01 if epoch < 2 else 0.001, jax.grad(loss)(params)
        velocity = jax.tree.map(lambda v, g, p: 0.9 * v + g + 5e-4 * p, velocity, gradient, params)
        params = jax.tree.map(lambda p, v, rate=rate: p - rate * v, params, velocity)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), found, params)


@pytest.mark.parametrize("m, batch_size", [(7, 3), (5, 256), (6, 3), (1, 1)])
def test_any_set_and_batch_size(m, batch_size):
    images, labels = stripes(m)
    params = evaluate.train(
        KEY, NETWORK, jnp.asarray(images / 255.0), labels, epochs=2, batch_size=batch_size
    )
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(params))


def test_an_uneven_epoch_sees_every_sample_once():
    """Three samples in batches of two: the second batch is one sample, not padded with a repeat.

    At a tiny learning rate without momentum or decay the parameters move by −η (g_ab + g_c / 10),
    where g are gradients of batch means, c is the sample left over (one of three candidates), and
    the second of the two updates is in the half with a tenth of the rate.
    """
    images, labels = stripes(3)
    images = jnp.asarray(images / 255.0)
    params = NETWORK.init(jax.random.split(KEY)[0], images[:1])
    after = evaluate.train(
        KEY,
        NETWORK,
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
            logits = NETWORK.apply(params, images[chosen]).logits
            chosen_labels = jnp.asarray(labels)[chosen]
            return optax.softmax_cross_entropy_with_integer_labels(logits, chosen_labels).mean()

        return jax.grad(loss)(params)

    moved = jax.tree.map(lambda x, y: (x - y) / -1e-5, after, params)["params"]["classifier"]
    candidates = []
    for single in range(3):
        pair = [i for i in range(3) if i != single]
        slopes = gradient(jnp.array(pair)), gradient(jnp.array([single]))
        total = jax.tree.map(lambda x, y: x + y / 10, *slopes)
        total = total["params"]["classifier"]
        candidates.append(float(jnp.abs(total["kernel"] - moved["kernel"]).max()))
    assert min(candidates) < 0.02 and sorted(candidates)[1] > 2 * min(candidates)


def test_prediction_does_not_depend_on_its_batch():
    images, _ = stripes(11)
    params = NETWORK.init(KEY, jnp.zeros((1, 8, 8, 1)))
    predict = functools.partial(
        evaluate.predict, NETWORK, params, jnp.asarray(images), **STATISTICS
    )
    np.testing.assert_array_equal(predict(batch_size=11), predict(batch_size=4))


@pytest.mark.parametrize(
    "images, labels",
    [
        (np.zeros((0, 8, 8, 1)), np.zeros(0, int)),
        (np.zeros((2, 8, 8, 1)), np.zeros(3, int)),
        (np.zeros((2, 8, 8)), np.zeros(2, int)),
    ],
)
def test_bad_input(images, labels):
    with pytest.raises(ValueError, match=r"images must be \[m, h, w, c\] and labels \[m\]"):
        evaluate.train(KEY, NETWORK, images, labels)
