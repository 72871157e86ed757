"""Experts against SGD written out, and segments by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdd import networks, sampling
from jaxdd.methods import expert_training

KEY = jax.random.key(0)
NETWORK = networks.ConvNet(num_classes=2, width=4, depth=1)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 1), dtype=np.uint8)
LABELS = np.repeat([0, 1], 6)


def pool(weights, images=IMAGES):
    return sampling.pool(images, LABELS, num_classes=2, mean=(0.5,), std=(0.5,), weights=weights)


def train(sampler):
    arguments = dict(epochs=2, updates=2, optimizer=optax.sgd(0.1), strategy=())
    return jax.jit(
        functools.partial(expert_training.train, network=NETWORK, sampler=sampler, **arguments)
    )


def test_an_expert_is_sgd_on_the_weighted_risk():
    """Four full-batch updates are done by hand; parameters are stored after two and four."""
    weights = np.random.default_rng(1).uniform(size=12)
    sampler = functools.partial(sampling.uniform_batch, size=6)
    trajectory = train(sampler)(KEY, pool=pool(weights))
    for c in range(2):
        weights[LABELS == c] /= weights[LABELS == c].sum()
    images = jnp.asarray((IMAGES / 255 - 0.5) / 0.5, jnp.float32)

    @jax.jit
    @jax.grad
    def gradient(params):
        logits = NETWORK.apply(params, images).logits
        return -weights @ jax.nn.log_softmax(logits)[jnp.arange(12), LABELS] / 2

    params = jax.jit(NETWORK.init)(jax.random.split(KEY)[0], images[:1])
    for epoch in range(3):
        stored = jax.tree.map(lambda x, epoch=epoch: x[epoch], trajectory)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), stored, params)
        for _ in range(2):
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient(params))


def test_samples_without_weight_do_not_affect_an_expert():
    weights = np.eye(12)[2] + np.eye(12)[9]
    other = np.where(weights[:, None, None, None] > 0, IMAGES, 7).astype(np.uint8)
    trained = train(functools.partial(sampling.weighted_batch, size=4))
    trajectories = (trained(KEY, pool=pool(weights, images)) for images in (IMAGES, other))
    jax.tree.map(np.testing.assert_array_equal, *trajectories)


def test_segments_are_of_one_expert_and_span_epochs_apart():
    """Expert e has the value 10 e + t after epoch t."""
    trajectories = {"x": 10 * jnp.arange(3)[:, None] + jnp.arange(6)}
    segment = lambda key: expert_training.segment(key, trajectories, span=2, starts=4)
    start, target = (x["x"] for x in jax.jit(jax.vmap(segment))(jax.random.split(KEY, 400)))
    assert (target == start + 2).all()
    values, counts = np.unique(start, return_counts=True)
    assert values.tolist() == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]
    assert counts.min() > 400 / 12 / 2


@pytest.mark.parametrize("span, starts", [(0, 1), (2, 5), (1, 6), (1, 0)])
def test_a_segment_beyond_the_trajectory_raises(span, starts):
    with pytest.raises(ValueError, match=rf"\({span}\).*\({starts}\).* 5 epochs"):
        expert_training.segment(KEY, {"x": jnp.zeros((3, 6))}, span=span, starts=starts)


def test_zero_epochs_raise():
    with pytest.raises(ValueError, match="epochs.*got 0"):
        expert_training.train(KEY, NETWORK, pool(None), sampler=None, epochs=0, updates=2)
