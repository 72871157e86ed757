"""Trajectory matching against the formula written out, its memory and its order of images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from toy import IMAGES, KEY, NETWORK

from jaxdd import methods, sampling
from jaxdd.methods import expert_training


def make_segment():
    """Return two sets of parameters of NETWORK that are some distance apart."""
    start = jax.jit(NETWORK.init)(KEY, np.zeros((1, 8, 8, 3), np.float32))
    rng = np.random.default_rng(0)
    end = jax.tree.map(lambda x: np.float32(x + 0.02 * rng.normal(size=x.shape)), start)
    return expert_training.Segment(start, end)


SEGMENT = make_segment()


def mtt(inner=2, **options):
    return methods.trajectory_matching(NETWORK, optax.sgd(1.0), inner=inner, strategy=(), **options)


METHOD = mtt()


def test_a_step_is_the_written_out_formula():
    """Two full-batch steps of SGD by hand; the gradient of the rate is in its logarithm."""
    labels = jnp.arange(3).repeat(2)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def loss(images, log_rate):
        def cross_entropy(params):
            logits = NETWORK.apply(params, images.reshape(6, 8, 8, 3)).logits
            return -jax.nn.log_softmax(logits)[jnp.arange(6), labels].mean()

        params = SEGMENT.start
        for _ in range(2):
            gradient = jax.grad(cross_entropy)(params)
            params = jax.tree.map(lambda p, g: p - jnp.exp(log_rate) * g, params, gradient)
        distance = lambda x, y: sum(
            ((a - b) ** 2).sum()
            for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
        )
        return distance(params, SEGMENT.target) / distance(SEGMENT.start, SEGMENT.target)

    value, (gradient, rate_gradient) = jax.device_get(loss(IMAGES, np.float32(np.log(0.01))))
    after, info = jax.device_get(jax.jit(METHOD.step)(KEY, METHOD.init(IMAGES), SEGMENT))
    assert float(info["loss"]) == pytest.approx(float(value), rel=1e-4)
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(
        (np.asarray(IMAGES) - after.images) / scale, gradient / scale, atol=1e-4
    )
    expected = np.log(0.01) - 0.1 * float(rate_gradient)
    assert float(after.log_rate) == pytest.approx(expected, rel=1e-5)


def test_recomputing_gives_the_same_gradient_in_the_memory_of_one_inner_step():
    """With 50 instead of 5 inner steps, only the memory of the parameters increases."""
    images = np.tile(IMAGES, (1, 4, 1, 1, 1))

    def program(inner, recompute):
        method = mtt(inner, recompute=recompute, batch_size=24)
        return jax.jit(method.step).lower(KEY, method.init(images), SEGMENT).compile()

    recomputed, stored = program(5, True), program(5, False)
    state = mtt().init(images)
    update, expected = (
        np.asarray(p(KEY, state, SEGMENT)[0].images) - images for p in (recomputed, stored)
    )
    scale = np.abs(expected).max()
    np.testing.assert_allclose(update / scale, expected / scale, atol=1e-4)
    temporary = lambda p: p.memory_analysis().temp_size_in_bytes
    parameters = sum(x.nbytes for x in jax.tree.leaves(SEGMENT.start))
    assert temporary(program(50, True)) < 1.3 * temporary(recomputed) + 2 * 45 * parameters
    assert temporary(stored) > 2 * temporary(recomputed)


@pytest.mark.parametrize("inner, used", [(1, 2), (2, 4)])
def test_the_student_sees_all_images_in_turn(inner, used):
    """Of four images in batches of two, one inner step uses two and two steps use all four."""
    network, options = toy.linear(2), dict(inner=inner, strategy=(), batch_size=2)
    method = methods.trajectory_matching(network, optax.sgd(1.0), **options)
    state = method.init(IMAGES[:2])
    params = network.init(KEY, IMAGES[0])
    after, _ = jax.jit(method.step)(KEY, state, expert_training.Segment(params, params + 0.1))
    assert (after.images != state.images).any((2, 3, 4)).sum() == used


def test_resuming_is_bit_identical_and_the_loss_falls():
    sampler = lambda key, segment: segment
    options = dict(pool=SEGMENT, sampler=sampler)
    toy.assert_resumes_bit_for_bit(METHOD, METHOD.init(IMAGES), **options)
    states = toy.run(METHOD, METHOD.init(IMAGES), 6, chunk_length=2, **options)
    infos = [info for _, info in states.values()]
    assert infos[-1]["loss"][0] < infos[0]["loss"][0]


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="inner.*got 0"):
        mtt(0)
    with pytest.raises(ValueError, match=r"rate.*got 0\.0"):
        mtt(rate=0.0)
    with pytest.raises(ValueError, match="2 .*got 3"):
        METHOD.init(sampling.initial_noise(KEY, toy.POOL, ipc=1)[:2])
