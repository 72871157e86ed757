"""Experts against SGD written out, segments by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdd import networks, sampling
from jaxdd.methods import experts

KEY = jax.random.key(0)
NETWORK = networks.ConvNet(num_classes=2, width=4, depth=1)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 1), dtype=np.uint8)
LABELS = np.repeat([0, 1], 6)


def pool(weights=None):
    return sampling.pool(IMAGES, LABELS, num_classes=2, mean=(0.5,), std=(0.5,), weights=weights)


@functools.cache
def trainer(sampler=sampling.uniform_batch, size=6):
    return jax.jit(
        functools.partial(
            experts.train,
            network=NETWORK,
            sampler=functools.partial(sampler, size=size),
            epochs=2,
            updates=2,
            optimizer=optax.sgd(0.1),
            strategy=(),
        )
    )


def test_an_expert_is_sgd_on_the_weighted_risk():
    """Batches of all samples, whatever their order: four updates, kept after two and four."""
    weights = np.random.default_rng(1).uniform(size=12)
    found = trainer()(KEY, pool=pool(weights))
    for c in range(2):
        weights[LABELS == c] /= weights[LABELS == c].sum()
    images = (IMAGES / 255 - 0.5) / 0.5

    @jax.jit
    @jax.grad
    def slope(params):
        logits = NETWORK.apply(params, jnp.asarray(images, jnp.float32)).logits
        return -weights @ jax.nn.log_softmax(logits)[jnp.arange(12), LABELS] / 2

    first = jnp.asarray(images[:1], jnp.float32)
    params = jax.jit(NETWORK.init)(jax.random.split(KEY)[0], first)
    for moment in range(3):
        kept = jax.tree.map(lambda x, moment=moment: x[moment], found)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), kept, params)
        for _ in range(2):
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, slope(params))


def test_weights_that_leave_one_sample_are_an_expert_of_it():
    """Drawn by weights that are zero elsewhere, the others may be anything."""
    one = np.eye(12)[2] + np.eye(12)[9]
    other = sampling.pool(
        np.where(one[:, None, None, None] > 0, IMAGES, 7).astype(np.uint8),
        LABELS,
        num_classes=2,
        mean=(0.5,),
        std=(0.5,),
        weights=one,
    )
    train = trainer(sampling.weighted_batch, 4)
    jax.tree.map(np.testing.assert_array_equal, train(KEY, pool=pool(one)), train(KEY, pool=other))


def test_segments_are_of_one_expert_and_span_apart():
    """Expert e has the value 10 e + t after epoch t."""
    trajectories = {"x": 10 * jnp.arange(3)[:, None] + jnp.arange(6)}
    draw = jax.jit(jax.vmap(lambda key: experts.segment(key, trajectories, span=2, latest=3)))
    start, target = (x["x"] for x in draw(jax.random.split(KEY, 400)))
    assert (target == start + 2).all()
    values, counts = np.unique(start, return_counts=True)
    assert values.tolist() == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]
    assert counts.min() > 400 / 12 / 2


@pytest.mark.parametrize("span, latest", [(0, 1), (2, 4), (1, 5), (1, -1)])
def test_segments_beyond_the_trajectory(span, latest):
    with pytest.raises(ValueError, match=f"{span} epochs from epoch {latest} on .* of 5 epochs"):
        experts.segment(KEY, {"x": jnp.zeros((3, 6))}, span=span, latest=latest)


def test_no_epochs():
    with pytest.raises(ValueError, match="at least 1, found 0 and 2"):
        experts.train(KEY, NETWORK, pool(), sampler=sampling.uniform_batch, epochs=0, updates=2)
