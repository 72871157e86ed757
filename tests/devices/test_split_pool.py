"""A training set split over four simulated devices gives the batches of an undivided one."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdd import sampling, weights
from jaxdd.devices import parallel, split_pool
from jaxdd.weights import blind_features

N, K, SIZE = 58, 3, 8
KEY = jax.random.key(0)


def random_set():
    """Return the arguments of a pool: 58 images, so that four devices have 15 rows, two padded."""
    rng = np.random.default_rng(0)
    labels = np.arange(N) % K
    images = rng.integers(0, 128, (N, SIZE, SIZE, 3)) + 40 * labels[:, None, None, None]
    arrays = dict(images=images.astype(np.uint8), labels=labels, weights=rng.uniform(0.1, 2, N))
    return arrays | dict(num_classes=K, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(scope="module")
def whole():
    return sampling.pool(**random_set())


@pytest.fixture(scope="module")
def split(mesh):
    return split_pool.pool(**random_set(), mesh=mesh)


def test_a_split_pool_holds_every_image_once(mesh, whole, split):
    parts = [np.asarray(shard.data) for shard in split.images.array.addressable_shards]
    assert [len(rows) for rows in parts] == [15] * 4
    np.testing.assert_array_equal(np.concatenate(parts)[:N], whole.images)
    assert not np.concatenate(parts)[N:].any()
    placed = parallel.replicate(split, mesh)
    assert placed.images is split.images and placed.weights.is_fully_replicated
    assert split.images.shape == (N, SIZE, SIZE, 3) and len(split.images) == N
    jax.tree.map(np.testing.assert_array_equal, split, whole._replace(images=split.images))


@pytest.mark.parametrize("batch", [sampling.uniform_batch, sampling.weighted_batch])
def test_a_split_pool_gives_the_same_batches(mesh, whole, split, collectives, batch):
    """Only a batch of bytes is sent, 3 × 8 images of 8 × 8 × 3, and never all 58 images."""
    sampler = functools.partial(batch, size=8)
    expected = jax.jit(sampler)
    sample = jax.jit(parallel.split_sampler(sampler, mesh))
    placed = parallel.replicate(split, mesh)
    for i in range(5):
        key = jax.random.fold_in(KEY, i)
        np.testing.assert_array_equal(sample(key, placed).images, expected(key, whole).images)
        np.testing.assert_allclose(
            sample(key, placed).weights, expected(key, whole).weights, rtol=1e-6
        )
    compiled = sample.lower(KEY, placed).compile()
    assert {kind for kind, _ in collectives(compiled)} == {"all-reduce"}
    assert max(size for _, size in collectives(compiled)) == 3 * 8 * SIZE * SIZE * 3
    assert not re.findall(r"u8\[(58|60),8,8,3\]", compiled.as_text())


def test_a_split_pool_is_sampled_by_its_weights(mesh, split):
    """Pearson's chi-square over 400 batches is not significant; stratified samples vary less."""
    sampler = functools.partial(sampling.weighted_batch, size=8)
    index = jnp.arange(60, dtype=jnp.float32)[:, None, None, None] / 60
    arguments = dict(num_classes=K, mean=(0.0,), std=(1.0,), weights=split.weights, mesh=mesh)
    marked = split_pool.pool(index[:N], split.labels, **arguments)
    sample = jax.jit(jax.vmap(sampler, in_axes=(0, None)))
    images = sample(jax.random.split(KEY, 400), parallel.replicate(marked, mesh)).images
    counts = np.bincount(np.rint(60 * np.asarray(images).ravel()).astype(int), minlength=60)
    expected = 400 * 8 * np.asarray(split.weights)
    assert counts[N:].sum() == 0
    assert stats.chi2.sf(((counts[:N] - expected) ** 2 / expected).sum(), N - K) > 0.01


def test_weights_of_a_split_pool_are_the_same(whole, split):
    encoder = weights.default_encoder(whole, width=4, depth=1)
    by_density = functools.partial(weights.by_density, KEY, strategy=(), encoder=encoder, steps=2)
    expected, result = by_density(whole), by_density(split)
    np.testing.assert_allclose(result.log_density, expected.log_density, atol=1e-5)
    np.testing.assert_allclose(result.embeddings, expected.embeddings, atol=1e-5)
    assert len(result.weights.sharding.device_set) == 1
    tone = functools.partial(weights.by_features, KEY, features=blind_features.tone)
    np.testing.assert_allclose(tone(split).weights, tone(whole).weights, atol=1e-4)


def test_a_process_reads_only_the_rows_of_its_devices(mesh, tmp_path):
    """Each of four devices has three rows of a memory map of eleven."""
    slices = []

    class Map(np.memmap):
        def __getitem__(self, where):
            slices.append(where)
            return super().__getitem__(where)

    images = Map(tmp_path / "rows", np.uint8, "w+", shape=(11, 4, 4, 1))
    arguments = dict(num_classes=2, mean=(0.5,), std=(0.5,), mesh=mesh)
    pool = split_pool.pool(images, np.arange(11) % 2, **arguments)
    assert slices == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 11)]
    assert pool.images.shape == (11, 4, 4, 1) and pool.images.array.shape == (12, 4, 4, 1)


@pytest.mark.parametrize(
    "images, labels, error, value",
    [
        (np.zeros((8, 4, 4, 1), np.uint8), np.zeros(8, int), ValueError, "class 1"),
        (2 * np.eye(8)[:, :, None, None], np.arange(8) % 2, ValueError, "0.0..2.0"),
        (np.zeros((8, 4, 4, 1), int), np.arange(8) % 2, TypeError, "int32"),
    ],
)
def test_invalid_pools_are_rejected_before_they_are_split(mesh, images, labels, error, value):
    with pytest.raises(error, match=value):
        split_pool.pool(images, labels, num_classes=2, mean=(0.5,), std=(0.5,), mesh=mesh)
