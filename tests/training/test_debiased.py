"""Debiased trainings: their losses are checked by hand, and they unlearn a bias."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdd import evaluate, networks, training
from jaxdd.training import debiased

KEY = jax.random.key(0)
TRAININGS = [debiased.learning_from_failure, debiased.selective_mixup]


def test_the_gradient_is_that_of_the_cross_entropy_times_p_to_the_q():
    logits, label = jnp.array([[1.0, -0.5, 2.0]]), jnp.array([1])
    ours = jax.grad(lambda x: debiased.generalised_cross_entropy(x, label)[0])(logits)
    p = np.exp(np.float64(logits[0])) / np.exp(np.float64(logits[0])).sum()
    expected = p[1] ** 0.7 * (p - np.array([0, 1, 0]))
    np.testing.assert_allclose(ours[0], expected, rtol=1e-5)


def test_a_small_q_gives_the_cross_entropy_and_q_of_one_gives_one_minus_p():
    logits, labels = jax.random.normal(KEY, (5, 3)), jnp.array([0, 1, 2, 0, 1])
    small = debiased.generalised_cross_entropy(logits, labels, q=1e-4)
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    np.testing.assert_allclose(small, cross_entropy, rtol=1e-3)
    wrong = 1 - jax.nn.softmax(logits)[jnp.arange(5), labels]
    np.testing.assert_allclose(
        debiased.generalised_cross_entropy(logits, labels, q=1.0), wrong, rtol=1e-5
    )


@pytest.mark.parametrize("q", [0.0, -0.5, 1e-45, 1e-38, float("inf"), float("nan")])
def test_q_is_positive(q):
    with pytest.raises(ValueError, match=f"q.*{q}"):
        debiased.generalised_cross_entropy(jnp.zeros((1, 4)), jnp.array([0]), q=q)


@pytest.mark.parametrize(
    "logits, labels, error, match",
    [
        (np.zeros(4), [0], ValueError, r"float64 \(4,\)"),
        (np.zeros((1, 4), int), [0], ValueError, "int64"),
        (np.full((1, 4), np.nan), [0], ValueError, "logits.*nan"),
        (np.zeros((1, 4)), [4], ValueError, r"labels.*4\.\.4"),
        (np.zeros((2, 4)), [0], ValueError, r"labels.*\(1,\)"),
        (np.zeros((1, 4)), [0.5], TypeError, "labels.*float64"),
    ],
)
def test_generalised_cross_entropy_checks_its_arguments(logits, labels, error, match):
    with pytest.raises(error, match=match):
        debiased.generalised_cross_entropy(logits, np.asarray(labels))


@pytest.mark.parametrize("train", TRAININGS)
@pytest.mark.parametrize("value, label, match", [(0, 3, r"0\.\.3"), (1e20, 0, "squares|e.20")])
def test_trainings_check_the_set(train, value, label, match):
    images = np.full((2, 4, 4, 1), 0.5, np.float32)
    images[0] = value
    with pytest.raises(ValueError, match=match):
        train(KEY, networks.MLP(3, 4), images, np.array([0, label]), epochs=1)


def test_the_biased_loss_is_that_of_lff():
    """The authors multiply the cross-entropy by the constant q p^q; q = 0.7 and p = 1/4."""
    gradient = jax.grad(lambda x: debiased._biased_losses(x, jnp.array([0]))[0])(jnp.zeros((1, 4)))
    expected = 0.7 * 0.25**0.7 * np.array([-0.75, 0.25, 0.25, 0.25])
    np.testing.assert_allclose(gradient[0], expected, rtol=1e-5)


def test_weights_of_lff_by_hand():
    """Two classes of two samples. Averages start at the first loss, and absent samples have none.

    First batch, samples 0 and 2: both have the maximum of their class. Second batch, sample 1 and,
    absent, sample 3: 1 of 2 and 1 of 4, so 1/2 / (1/2 + 1/4). Third batch, sample 0: averages
    3/4 · 2 + 1/4 · 6 = 3 and 3/4 · 4 + 1/4 · 0 = 3, again the maximum.
    """
    averages, labels = jnp.full((2, 4), -1.0), jnp.array([0, 0, 1, 1])
    batches = [
        ([[2, 1], [4, 3]], [0, 2], [1, 1], [1 / 2, 1 / 2]),
        ([[1, 9], [1, 9]], [1, 3], [1, 0], [2 / 3]),
        ([[6], [0]], [0], [1], [1 / 2]),
    ]
    for losses, indices, present, expected in batches:
        weights, averages = debiased._relative_losses(
            jnp.array(losses, jnp.float32), averages, *map(jnp.array, (indices, present, labels)),
            smoothing=0.75, num_classes=2,
        )  # fmt: skip
        np.testing.assert_allclose(weights[: len(expected)], expected, rtol=1e-6)
    np.testing.assert_allclose(averages, [[3, 1, 1, -1], [3, 1, 3, -1]], rtol=1e-6)


def partners(features, labels, present=None):
    """Partners of each sample: of the same class, and of another one."""
    features, labels = jnp.asarray(features, jnp.float32), jnp.asarray(labels)
    present = jnp.ones(len(labels)) if present is None else jnp.asarray(present)
    return [
        debiased._contradicting_partners(same, features, labels, present).tolist()
        for same in (True, False)
    ]


def test_partners_contradict_the_bias():
    """Features have angles 0, 30, 80 in class 0 and 40, 170 in class 1, in degrees."""
    angles = np.deg2rad([0, 30, 80, 40, 170])
    features = 3 * np.stack([np.cos(angles), np.sin(angles)], 1)  # lengths do not matter
    assert partners(features, [0, 0, 0, 1, 1]) == [[2, 2, 0, 4, 3], [3, 3, 3, 1, 2]]


def test_partners_without_a_sample_of_the_same_or_of_another_class():
    """Without other classes the partner is the least similar sample, else the most similar one."""
    angles = np.deg2rad([0, 30, 80])
    features = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert partners(features[:1], [0]) == [[0], [0]]  # alone
    assert partners(features, [0, 1, 2]) == [[1, 0, 1], [1, 0, 1]]  # no other of the class
    assert partners(features, [0, 0, 0]) == [[2, 2, 0], [2, 2, 0]]  # no other class
    # Samples that only fill up the batch are never partners.
    assert [column[:2] for column in partners(np.ones((3, 2)), [0, 0, 1], [1, 1, 0])] == [
        [1, 0]
    ] * 2


def marked(n, conflict):
    """Return grey 8×8 images with a faint pattern per class and a bright corner as bias."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    corner = np.where(rng.random(n) < conflict, 1 - labels, labels)
    images = rng.normal(0, 0.3, (n, 8, 8, 1))
    images[:, :, ::2] += np.where(labels, 0.1, -0.1)[:, None, None, None]
    images[:, :2, :2] += np.where(corner, 3, -3)[:, None, None, None]
    return np.float32(images), labels


def accuracy(train):
    """Train on images of which 5 % conflict, and return the accuracy on images that all do."""
    network = networks.MLP(2, width=32)
    options = dict(epochs=40, batch_size=100, strategy=(), learning_rate=0.05)

    def score(images, labels, test_images, test_labels):
        params = train(KEY, network, images, labels, **options)
        return (network.apply(params, test_images).logits.argmax(1) == test_labels).mean()

    return float(jax.jit(score)(*marked(400, 0.05), *marked(200, 1.0)))


def test_they_unlearn_a_bias_that_standard_training_learns():
    """Standard training learns the corner."""
    assert accuracy(training.train) < 0.1
    assert min(map(accuracy, TRAININGS)) > 0.3


@pytest.mark.parametrize("train", TRAININGS)
@pytest.mark.parametrize("m, classes, batch_size", [(1, 1, 4), (5, 3, 2)])
def test_parameters_are_finite_and_depend_on_the_key(train, m, classes, batch_size):
    images = np.float32(np.random.default_rng(0).normal(size=(m, 8, 8, 3)))
    labels = np.arange(m) % classes
    run = jax.jit(
        functools.partial(
            train,
            network=networks.MLP(classes, width=4),
            images=images,
            labels=labels,
            epochs=2,
            batch_size=batch_size,
            strategy=("crop",),
        )
    )
    first, again, other = map(jax.device_get, (run(KEY), run(KEY), run(jax.random.key(1))))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(first))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (jax.tree.leaves(first)[0] != jax.tree.leaves(other)[0]).any()


@pytest.mark.parametrize("train", TRAININGS)
def test_shapes_must_agree(train):
    with pytest.raises(ValueError, match=r"\(3, 8, 8, 1\) and \(2,\)"):
        train(KEY, networks.MLP(2), jnp.zeros((3, 8, 8, 1)), jnp.zeros(2, jnp.int32))


def test_an_evaluation_can_use_them():
    images, labels = marked(20, 0.2)
    pixels = np.zeros((6, 8, 8, 1), np.uint8)
    statistics = dict(num_classes=2, mean=(0,), std=(1,))
    task = evaluate.task(pixels, np.arange(6) % 2, **statistics, strategy=())
    score = functools.partial(
        evaluate.evaluate,
        network=networks.MLP(2, width=4),
        task=task,
        train=debiased.learning_from_failure,
        epochs=1,
    )
    scores = jax.eval_shape(score, jax.random.split(KEY, 2), images=images, labels=labels)
    assert scores.accuracy.shape == (2,)
