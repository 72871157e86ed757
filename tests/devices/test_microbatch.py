"""Micro-batches give the results of whole batches, in bounded memory."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import networks, training
from jaxdd.devices import microbatch

SIZES = [1, 32, 33, 64, 128, 129, 300]


@pytest.fixture(autouse=True)
def few_bytes(monkeypatch):
    monkeypatch.setattr(microbatch, "_FORWARD_BYTES", 4 * 128)
    monkeypatch.setattr(microbatch, "GRADIENT_BYTES", 4 * 32)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_apply_keeps_the_order_of_any_number_of_rows(n, transform):
    rows = jnp.arange(2.0 * n).reshape(n, 2)
    result = transform(lambda x: microbatch.apply(lambda x: (x + 1, x.sum(1)), x))(rows)
    np.testing.assert_array_equal(result[0], rows + 1)
    np.testing.assert_array_equal(result[1], rows.sum(1))


@pytest.mark.parametrize("n", SIZES)
def test_total_is_the_sum_over_all_rows(n):
    """The sum of 0, …, n − 1 is n (n − 1) / 2; padding has weight 0."""
    sums = lambda i, w: {"i": (i * w).sum(), "w": w.sum()}
    result = jax.jit(lambda i, w: microbatch.total(sums, i, w))(jnp.arange(n), jnp.ones(n))
    assert result["i"] == n * (n - 1) / 2 and result["w"] == n


@pytest.mark.parametrize("pad", [1, 10])
def test_no_batch_is_larger_than_the_limit_nor_needlessly_small(pad):
    """300 rows of 4 · pad bytes are cut into parts of at most 128 / pad: 3 of 100, 25 of 12."""
    sizes = []
    grown = lambda x: jnp.pad(x[:, None], ((0, 0), (0, pad - 1))).sum(1)
    microbatch.apply(lambda x: sizes.append(len(x)) or grown(x), jnp.arange(300.0))
    size = {1: 100, 10: 12}[pad]
    assert size in sizes and set(sizes) <= {microbatch._ROWS, size, 300}


def test_the_limit_counts_arrays_inside_of_jit():
    """The largest array, with rows of ten numbers, occurs inside of a jitted function."""
    sizes = []
    grown = jax.jit(lambda x: jnp.repeat(x[:, None], 10, 1).sum(1))
    microbatch.apply(lambda x: sizes.append(len(x)) or grown(x), jnp.arange(300.0))
    assert 12 in sizes and set(sizes) <= {microbatch._ROWS, 12, 300}


def test_padding_keeps_gradients_finite():
    """The function divides rows by their norm, whose gradient is undefined at 0."""
    rows = np.float32(np.random.default_rng(0).normal(size=(133, 4)))
    unit = lambda x: x / jnp.sqrt(jnp.square(x).sum(-1, keepdims=True))
    weights = np.arange(133, dtype=np.float32)

    def through_apply(rows):
        return (microbatch.apply(unit, rows).sum(-1) * weights).sum()

    def through_total(rows):
        return microbatch.total(lambda x, w: (unit(x).sum(-1) * w).sum(), rows, weights)

    expected = jax.jit(jax.grad(lambda rows: (unit(rows).sum(-1) * weights).sum()))(rows)
    for loss in (through_apply, through_total):
        np.testing.assert_allclose(jax.jit(jax.grad(loss))(rows), expected, rtol=1e-4, atol=1e-4)


def test_differentiable_and_vmappable_with_closed_over_values():
    rows = jnp.arange(290.0)
    loss = lambda a, x: (microbatch.apply(lambda x: a * jnp.sin(x), x) ** 2).sum()
    plain = lambda a, x: ((a * jnp.sin(x)) ** 2).sum()
    factors = jnp.array([1.0, 3.0])
    for argument in (0, 1):
        result, expected = (
            jax.jit(jax.vmap(jax.grad(f, argument), (0, None)))(factors, rows)
            for f in (loss, plain)
        )
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_the_training_gradient_is_that_of_the_cross_entropy(monkeypatch):
    """The gradient is over 70 images in micro-batches of 24."""
    monkeypatch.setattr(microbatch, "GRADIENT_BYTES", 24 * 8 * 8 * 4 * 4)
    network = networks.ConvNet(num_classes=3, width=4, depth=2)
    images = np.float32(np.random.default_rng(0).normal(size=(70, 8, 8, 1)))
    labels, weights = np.arange(70) % 3, np.float32(np.arange(70) % 3)
    params = jax.jit(network.init)(jax.random.key(1), images[:1])
    gradient = jax.jit(lambda p, weights: training.gradient(network, p, images, labels, weights))
    result = gradient(params, weights)
    loss = lambda p: training.cross_entropy(network, p, images, labels, weights)
    expected = jax.jit(jax.grad(loss))(params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), result, expected)
    nothing = gradient(params, 0 * weights)
    assert all((x == 0).all() for x in jax.tree.leaves(nothing))


def test_memory_does_not_grow_with_the_batch(monkeypatch):
    """For 2 and 16 micro-batches, temporaries are those of one micro-batch, plus the input."""
    monkeypatch.setattr(microbatch, "_FORWARD_BYTES", 128 * 16 * 16 * 16 * 4)
    network = networks.ConvNet(num_classes=3, width=16, depth=2)
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))

    def temporary(n):
        run = lambda x: microbatch.apply(lambda x: network.apply(params, x).logits, x)
        compiled = jax.jit(run).lower(jnp.zeros((n, 16, 16, 1))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    pixels = 16 * 16 * 4
    assert temporary(2048) - temporary(256) < 3 * (2048 - 256) * pixels


@pytest.mark.parametrize("rows, parts", [(8, 1), (64, 2), (300, 3)])
def test_sums_of_gradients_are_cut_above_one_mebibyte(rows, parts, monkeypatch):
    """Rows of 32 KiB: 8 are one part, 64 (2 MiB) two, and 300 three, of 128 (4 MiB) at most."""
    monkeypatch.setattr(microbatch, "GRADIENT_BYTES", 4 * 2**20)
    total = lambda x: microbatch.total(lambda x: x.sum(0), x)
    jaxpr = str(jax.make_jaxpr(total)(jnp.zeros((rows, 8192))))
    assert re.findall(r"length=(\d+)", jaxpr) == ([] if parts == 1 else [str(parts)])
