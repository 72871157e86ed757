"""Densities around a ring of four simulated devices against those of one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import kde
from jaxdd.devices import parallel, split_pool

exact = jax.jit(kde.log_density, static_argnames="leave_one_out")


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("n, m", [(20, 32), (21, 30), (3, 5)])
@pytest.mark.parametrize("d", [3, 12])
def test_density_around_the_ring(mesh, n, m, d):
    q, x = normal(0, n, d) + 5, normal(1, m, d) + 5
    weights = np.random.default_rng(2).uniform(0, 2, m).astype(np.float32)
    found = jax.jit(functools.partial(split_pool.log_density, mesh=mesh, tile=4))
    expected = exact(q, x, 0.8, weights=weights)
    np.testing.assert_allclose(found(q, x, 0.8, weights=weights), expected, rtol=1e-5)
    np.testing.assert_allclose(found(q, x, 0.8), exact(q, x, 0.8), rtol=1e-5)


@pytest.mark.parametrize("m", [24, 27])
def test_leaving_one_out_around_the_ring(mesh, m):
    x, weights = normal(0, m, 12), np.arange(m, dtype=np.float32)
    ring = functools.partial(split_pool.log_density, mesh=mesh, leave_one_out=True, tile=4)
    found = jax.jit(ring)(x, x, 0.8, weights=weights)
    expected = exact(x, x, 0.8, weights=weights, leave_one_out=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize("n", [40, 43])
def test_classes_around_the_ring(mesh, n, leave_one_out):
    """Classes of uneven sizes in random order; class 1 is a single sample, class 2 empty."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.concatenate([[1], rng.choice([0, 0, 3, 4], n - 1)]))
    x = normal(1, n, 12) + 5 * labels[:, None].astype(np.float32)
    weights = rng.uniform(0, 2, n).astype(np.float32)
    h = np.array([0.5, 1, 2, 0.7, 1.5])
    options = dict(num_classes=5, leave_one_out=leave_one_out, tile=4)
    ring = functools.partial(split_pool.class_log_density, mesh=mesh, **options)
    found = jax.jit(ring)(x, labels, h, weights=weights)
    every = jax.jit(functools.partial(kde.class_log_density, **options))
    expected = every(x, labels, h, weights=weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (np.isneginf(found) == (leave_one_out & (labels == 1))).all()


def test_gradient_around_the_ring(mesh):
    x, weights = normal(0, 10, 3), np.ones(10, np.float32)

    def total(density):
        return lambda x, h: density(x, x, h, weights=weights, leave_one_out=True).sum()

    ring = functools.partial(split_pool.log_density, mesh=mesh, tile=4)
    found, expected = (
        jax.jit(jax.grad(total(density), (0, 1)))(x, 0.8) for density in (ring, kde.log_density)
    )
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, expected
    )


def test_the_ring_gathers_nothing(mesh, collectives):
    """Nothing of the size of all 4,000 points: their pieces of 1,000 pass from hand to hand."""
    n, d = 4000, 16
    split = parallel.split(jnp.zeros((n, d)), mesh)
    density = functools.partial(split_pool.log_density, mesh=mesh, leave_one_out=True, tile=128)
    compiled = jax.jit(density).lower(split, split, 1.0).compile()
    found = list(collectives(compiled))
    assert "collective-permute" in {kind for kind, _ in found}
    assert max(size for _, size in found) <= n // 4 * d
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * n * d * 4
