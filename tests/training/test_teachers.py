"""Teachers, trainings with a teacher, and batch norm in training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import evaluate, networks, sampling, training
from jaxdd.training import teachers

KEY = jax.random.key(0)
NETWORK = networks.ConvNet(2, width=4, depth=1, norm=networks.BatchNorm)
PLAIN = networks.ConvNet(2, width=4, depth=1)
LABELS = np.arange(8) // 4
NOISE = 0.1 * np.random.default_rng(0).normal(size=(8, 4, 4, 1))
IMAGES = np.float32(np.where(LABELS == 0, 1, -1)[:, None, None, None] + NOISE)
POOL = sampling.pool(
    np.clip(128 + 60 * IMAGES, 0, 255).astype(np.uint8),
    LABELS,
    num_classes=2,
    mean=(0.5,),
    std=(0.25,),
)


def test_batch_norm_is_that_of_torch():
    """Training uses batch statistics and updates the running ones; evaluation uses these."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    network, peer = networks.BatchNorm(), torch.nn.BatchNorm2d(3)
    images = np.float32(np.random.default_rng(0).normal(1, 2, (5, 2, 2, 3)))
    tensor = torch.tensor(np.asarray(images)).permute(0, 3, 1, 2)
    params = network.init(KEY, images)
    output, moved = network.apply(params, images, mutable=["batch_stats"])
    expected = peer(tensor).permute(0, 2, 3, 1).detach()
    np.testing.assert_allclose(output, expected, atol=1e-5)
    for name, running in (("mean", peer.running_mean), ("var", peer.running_var)):
        np.testing.assert_allclose(moved["batch_stats"][name], running, rtol=1e-5)
    after = network.apply({**params, **moved}, images)
    np.testing.assert_allclose(after, peer.eval()(tensor).permute(0, 2, 3, 1).detach(), atol=1e-5)


def test_training_updates_statistics_without_weight_decay():
    """Two steps with momentum 0.9 start at (0, 1); a weight decay of 0.5 would halve the values."""
    train = functools.partial(training.train, strategy=(), epochs=2, learning_rate=0.0)

    @jax.jit
    def run(key):
        start = networks.init_params(jax.random.split(key)[0], NETWORK, IMAGES[:1])
        conv = start["params"]["Conv_0"]
        seen = networks.conv2d(IMAGES, conv["kernel"], (1, 1)) + conv["bias"]
        params = train(key, NETWORK, IMAGES, LABELS, weight_decay=0.5)
        return params, conv, (1 - 0.9**2) * seen.mean((0, 1, 2))

    params, conv, expected = run(KEY)
    mean = params["batch_stats"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(params["params"]["Conv_0"]["kernel"], conv["kernel"])


def test_kl_divergences_equal_those_of_numpy():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 4))
    softmax = lambda x: np.exp(x / 20) / np.exp(x / 20).sum(1, keepdims=True)
    p, q = softmax(a), softmax(b)
    expected = (p * np.log(p / q)).sum(1)
    values = teachers._kl_divergences(jnp.asarray(a), jnp.asarray(b), temperature=20.0)
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-7)


def test_cutmix_replaces_one_box():
    """A mixture of two constant images has at most two values, one of which fills a box."""
    images = np.arange(6, dtype=np.float32)[:, None, None, None] * np.ones((6, 5, 7, 1), np.float32)
    mix = jax.jit(teachers._cutmix)
    for i in range(5):
        mixed = np.asarray(mix(jax.random.key(i), images))[..., 0]
        changed = (mixed != np.arange(6)[:, None, None]).any(0)
        rows, columns = changed.any(1), changed.any(0)
        assert (changed == rows[:, None] & columns).all()
        assert all(len(np.unique(image)) <= 2 for image in mixed)


@functools.cache
def teacher():
    teach = functools.partial(
        teachers.train_teacher,
        network=NETWORK,
        sampler=functools.partial(sampling.uniform_batch, size=4),
        steps=30,
        strategy=(),
        learning_rate=0.1,
    )
    return jax.jit(lambda key: teach(key, pool=POOL))(KEY)


def test_a_teacher_learns_the_real_data():
    images = sampling.take(POOL, jnp.arange(8))
    logits = jax.jit(teacher().network.apply)(teacher().params, images).logits
    np.testing.assert_array_equal(logits.argmax(1), LABELS)


@pytest.mark.parametrize("train", [teachers.train_on_soft_labels, teachers.train_on_logits])
def test_students_learn_from_a_teacher(train):
    """The evaluation gets the teacher as a tree of arrays."""
    task = evaluate.task(
        POOL.images, POOL.labels, num_classes=2, mean=(0.5,), std=(0.25,), strategy=()
    )
    rate = 0.05 if train is teachers.train_on_soft_labels else 0.1
    images = sampling.take(POOL, jnp.arange(8)).reshape(2, 4, 4, 4, 1)
    options = dict(arrays={"teacher": teacher()}, epochs=40, learning_rate=rate, train=train)
    scores = evaluate.evaluate(jax.random.split(KEY, 1), PLAIN, images, task, **options)
    assert scores.accuracy[0] == 1


@pytest.mark.parametrize("train", [teachers.train_on_soft_labels, teachers.train_on_logits])
def test_a_teacher_must_have_the_classes_of_the_student(train):
    other = networks.ConvNet(3, width=4, depth=1)
    teacher = teachers.Teacher(jax.eval_shape(other.init, KEY, IMAGES), other)
    with pytest.raises(ValueError, match="2 classes, got 3"):
        train(KEY, PLAIN, IMAGES, LABELS, teacher=teacher)
