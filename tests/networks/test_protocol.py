"""Networks of other libraries and plain functions distil and are evaluated like jaxdd's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxdd import evaluate, methods, networks, sampling

KEY = jax.random.key(0)


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(48, 5, rngs=rngs)
        self.classifier = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, images):
        features = jnp.tanh(self.hidden(images.reshape(len(images), -1)))
        return features, self.classifier(features)


def nnx_init(key, images):
    return nnx.split(Nnx(nnx.Rngs(key)))[1]


def nnx_apply(params, images):
    structure = nnx.split(nnx.eval_shape(lambda: Nnx(nnx.Rngs(0))))[0]
    return nnx.merge(structure, params)(images)


def plain_init(key, images):
    return {"features": jax.random.normal(key, (48, 5)) / 7, "classifier": jnp.zeros((5, 3))}


def plain_apply(params, images):
    features = jnp.tanh(jnp.einsum("nhwc,hwcd->nd", images, params["features"].reshape(4, 4, 3, 5)))
    return [features, features @ params["classifier"]]


@pytest.mark.parametrize(
    "network",
    [
        networks.MLP(num_classes=3, width=16),
        networks.Functions(nnx_init, nnx_apply),
        networks.Functions(plain_init, plain_apply),
    ],
    ids=["linen", "nnx", "functions"],
)
def test_any_network_distils_and_is_evaluated(network):
    """Three classes of one colour each: the loss falls, and networks learn the colours."""
    labels = np.arange(30) % 3
    images = np.random.default_rng(0).integers(0, 90, (30, 4, 4, 3)).astype(np.uint8)
    images[np.arange(30), :, :, labels] += 150
    statistics = dict(num_classes=3, mean=(0.4,) * 3, std=(0.3,) * 3)
    pool = sampling.pool(images, labels, **statistics)
    method = methods.distribution_matching(network, optax.adam(0.1), strategy=())
    state = method.init(sampling.initial_noise(KEY, pool, ipc=2))
    sampler = lambda key, pool: sampling.uniform_batch(key, pool, 10)
    ((_, state, info),) = methods.run(
        KEY, state, pool, method=method, sampler=sampler, steps=40, chunk_length=40
    )
    assert info["loss"][-10:].mean() < info["loss"][:10].mean()
    task = evaluate.task(images, labels, **statistics, strategy=())
    score = jax.jit(
        lambda images: evaluate.evaluate(
            KEY[None], network, images, task, epochs=60, learning_rate=0.1
        )
    )
    assert score(state.images).accuracy[0] > 0.9


def test_the_number_of_classes_must_match():
    network, images = networks.MLP(num_classes=3), jnp.zeros((1, 4, 4, 3))
    networks.check_classes(network, images, 3)
    with pytest.raises(ValueError, match="4 .* got 3"):
        networks.check_classes(network, images, 4)


@pytest.mark.parametrize(
    "result, shapes",
    [
        (lambda n: jnp.zeros((n, 3)), r"\(2, 3\)"),
        (lambda n: (jnp.zeros((n, 3)), jnp.zeros((n, 2, 2, 4))), r"\(\(2, 3\), \(2, 2, 2, 4\)\)"),
        (lambda n: (jnp.zeros((4, n)), jnp.zeros((3, n))), r"\(\(4, 2\), \(3, 2\)\)"),
        (lambda n: (jnp.zeros((n, 4)), jnp.zeros(n)), r"\(\(2, 4\), \(2,\)\)"),
        (lambda n: (jnp.zeros((n, 4)), jnp.zeros((n, 3)), 0), r"\(\(2, 4\), \(2, 3\), \(\)\)"),
        (lambda n: None, "None"),
    ],
    ids=["logits", "swapped", "transposed", "no classes", "three", "nothing"],
)
def test_a_network_must_return_features_and_logits(result, shapes):
    network = networks.Functions(lambda key, images: (), lambda params, images: result(len(images)))
    with pytest.raises(TypeError, match=f"n = 2; got shapes {shapes}"):
        networks.outputs(network, (), jnp.zeros((2, 4, 4, 3)))


def test_features_of_any_shape_are_flattened():
    network = networks.Functions(None, lambda params, images: (images, images[:, 0, 0]))
    images = np.arange(120, dtype=np.float32).reshape(2, 4, 5, 3)
    features, logits = networks.outputs(network, (), images)
    np.testing.assert_array_equal(features, images.reshape(2, 60))
    assert logits.shape == (2, 3)


def test_training_mode_updates_running_statistics_only():
    network = networks.ConvNet(2, width=3, depth=1, norm=networks.BatchNorm)
    images = np.float32(np.random.default_rng(0).normal(size=(8, 4, 4, 1)))
    params = jax.jit(network.init)(KEY, images)
    train = jax.jit(functools.partial(networks.apply_in_training, network))
    _, updated = train(params, images)
    learned, statistics = networks.split_batch_stats(updated)
    before = networks.split_batch_stats(params)
    jax.tree.map(np.testing.assert_array_equal, learned, before[0])
    assert not np.allclose(*(jax.tree.leaves(s)[0] for s in (statistics, before[1])))
