"""Density weights against the formula in float64, their steps, and densities on four devices."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import kde, networks, sampling, weights
from jaxdd.devices import parallel
from jaxdd.weights import contrastive, density_weights

KEY = jax.random.key(0)
ON_MESH = density_weights._class_log_density_on_mesh


def small_pool(counts=(11, 5), shape=(8, 8, 1), dtype=np.uint8):
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), *shape), dtype=np.uint8)
    images = images if dtype == np.uint8 else images.astype(dtype) / 255
    statistics = dict(mean=(0.5,) * shape[-1], std=(0.25,) * shape[-1])
    return sampling.pool(images, labels, num_classes=len(counts), **statistics)


def small_encoder(num_classes=2):
    network = networks.ConvNet(num_classes, width=4, depth=1, norm=None)
    return contrastive.Encoder(network, hidden=4, dimension=3)


OPTIONS = dict(strategy=("color", "crop"), encoder=small_encoder())
POOL = small_pool()
EMBEDDINGS = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_by_density_consists_of_its_three_steps():
    options = dict(steps=2, layer="features")
    rest = dict(bandwidth=kde.scott, temperature=0.7, clip=1.5)
    whole = weights.by_density(KEY, POOL, **OPTIONS, **options, **rest)
    encoded = weights.encode(KEY, POOL, **OPTIONS, **options)
    density = weights.density(encoded.embeddings, POOL, bandwidth=kde.scott)
    values = weights.from_density(density.log_density, POOL, temperature=0.7, clip=1.5)
    chex.assert_trees_all_equal(whole, weights.DensityWeights(values, *density, *encoded))
    chex.assert_shape(whole.embeddings, (16, 64))  # 4 channels of 4 × 4


@pytest.mark.parametrize("bandwidth", [0.8, [0.5, 1.3]])
@pytest.mark.parametrize("temperature, clip", [(1.0, None), (0.7, 1.2)])
def test_density_and_weights_follow_the_formula(bandwidth, temperature, clip):
    """f(x) = mean over the class of the normal density, w ∝ f^(−1/t), at most clip / n, float64.

    Weights above the limit are set to it and the rest is scaled up, until none is above it.
    """
    density = weights.density(EMBEDDINGS, POOL, bandwidth=jnp.asarray(bandwidth))
    values = weights.from_density(density.log_density, POOL, temperature=temperature, clip=clip)
    np.testing.assert_allclose(density.bandwidth, np.broadcast_to(bandwidth, 2), rtol=1e-6)
    for c, h in enumerate(np.broadcast_to(bandwidth, 2)):
        own = np.asarray(POOL.labels) == c
        points = EMBEDDINGS[own].astype(float)
        squared = ((points[:, None] - points) ** 2).sum(2)
        f = np.exp(-squared / (2 * h**2)).mean(1) / (2 * np.pi * h**2) ** 1.5
        np.testing.assert_allclose(density.log_density[own], np.log(f), atol=1e-4)
        expected = f ** (-1 / temperature) / (f ** (-1 / temperature)).sum()
        if clip is not None:
            limit, over = clip / len(points), np.zeros(len(points), bool)
            while (expected > limit + 1e-12).any():
                over |= expected > limit
                rest = (1 - limit * over.sum()) / expected[~over].sum()
                expected = np.where(over, limit, expected * rest)
        np.testing.assert_allclose(values[own], expected, rtol=1e-4)


def test_bandwidth_rule_is_applied_to_each_class():
    bandwidth = weights.density(EMBEDDINGS, POOL, bandwidth=kde.scott).bandwidth
    expected = [kde.scott(EMBEDDINGS[:11]), kde.scott(EMBEDDINGS[11:])]
    np.testing.assert_allclose(bandwidth, expected, rtol=1e-5)


def test_several_bandwidths_give_the_densities_of_each():
    bandwidths = [kde.scott, 0.5, jnp.array([0.3, 2.0])]
    together = density_weights._densities(EMBEDDINGS, POOL, bandwidths=bandwidths)
    alone = [weights.density(EMBEDDINGS, POOL, bandwidth=h) for h in bandwidths]
    chex.assert_trees_all_close(together, alone, rtol=1e-5)


def test_colour_augmentation_is_left_out_of_names_but_not_of_functions():
    encode = functools.partial(weights.encode, KEY, POOL, encoder=OPTIONS["encoder"], steps=1)
    plain = encode(strategy=("crop",))
    chex.assert_trees_all_equal(encode(strategy=("color", "crop")), plain)
    brighter = encode(strategy=lambda key, image: image + 1)
    assert (brighter.embeddings != plain.embeddings).any()


def test_training_lengths_share_a_program_and_continue_each_other():
    """One trace of the loop serves all lengths."""
    traces = []
    strategy = lambda key, image: traces.append(0) or image
    options = dict(strategy=strategy, encoder=OPTIONS["encoder"])
    training = density_weights.EncoderTraining(KEY, POOL, **options)
    encoded = {steps: training.encode(steps) for steps in (1, 5, 3)}
    count = len(traces)
    for steps in (3, 5):
        expected = weights.encode(KEY, POOL, steps=steps, **options)
        chex.assert_trees_all_equal(encoded[steps], expected)
    assert len(traces) == count


def test_training_embeds_any_pool():
    training = density_weights.EncoderTraining(KEY, POOL, **OPTIONS)
    expected = weights.encode(KEY, POOL, steps=2, **OPTIONS).embeddings
    options = dict(num_classes=POOL.num_classes, mean=POOL.mean, std=POOL.std)
    part = sampling.pool(POOL.images[9:14], POOL.labels[9:14], **options)
    np.testing.assert_allclose(training.embed(part, steps=2), expected[9:14], rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(training.embed(POOL, steps=2), expected)


def test_oracle_gives_groups_equal_weight():
    pool = small_pool((12, 5, 1))
    attributes = np.array([0] * 9 + [1] * 3 + [1] * 4 + [2] + [0])
    values = weights.oracle(pool, attributes, num_attributes=3)
    totals = np.zeros((3, 3))
    np.add.at(totals, (np.asarray(pool.labels), attributes), np.asarray(values))
    np.testing.assert_allclose(totals, [[0.5, 0.5, 0], [0, 0.5, 0.5], [1, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize("shape, depth", [((8, 8, 1), 3), ((4, 6, 3), 2), ((1, 5, 1), 0)])
def test_default_encoder_halves_the_sides_up_to_three_times(shape, depth):
    encoder = weights.default_encoder(small_pool(shape=shape), width=4)
    assert encoder.network.depth == depth and encoder.network.norm is None


def test_uneven_classes_of_floating_images():
    counts = (9, 1, 3)
    pool = small_pool(counts, (4, 6, 3), np.float32)
    encoder = weights.default_encoder(pool, width=4, depth=1)
    result = weights.by_density(KEY, pool, strategy=(), encoder=encoder, steps=1)
    totals = np.bincount(np.asarray(pool.labels), np.asarray(result.weights))
    np.testing.assert_allclose(totals, np.ones(len(counts)), rtol=1e-5)
    assert np.isfinite(result.log_density).all() and (result.weights > 0).all()


@pytest.mark.parametrize(
    "call, error, value",
    [
        (lambda: weights.encode(KEY, POOL, strategy="flip"), TypeError, "'flip'"),
        (lambda: weights.encode(KEY, POOL, strategy=(), layer="zz"), ValueError, "'zz'"),
        (lambda: weights.encode(KEY, POOL, strategy=(), steps=-1), ValueError, "-1"),
        (lambda: weights.density(np.full((16, 2), np.nan), POOL), ValueError, "nan"),
        (lambda: weights.density(np.zeros((4, 2)), POOL, bandwidth=1.0), ValueError, "16"),
        (lambda: weights.density(np.zeros((16, 2), int), POOL), TypeError, "int"),
        (lambda: weights.density(EMBEDDINGS, POOL, bandwidth=0.0), ValueError, "0.0"),
    ],
)
def test_invalid_arguments_are_rejected(call, error, value):
    with pytest.raises(error, match=value):
        call()


def test_clip_below_one_is_rejected_before_training(monkeypatch):
    monkeypatch.setattr(density_weights, "encode", None)
    with pytest.raises(ValueError, match="0.5"):
        weights.by_density(KEY, POOL, strategy=(), clip=0.5)


# --- several devices -----------------------------------------------------------------------------


def test_density_on_several_devices(mesh):
    """The 43 samples are in random order; class 1 has a single one and class 2 none."""
    n = 43
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.concatenate([[1], rng.choice([0, 0, 3, 4], n - 1)]))
    x = normal(1, n, 12) + 5 * labels[:, None].astype(np.float32)
    values = rng.uniform(0, 2, n).astype(np.float32)
    h = np.array([0.5, 1, 2, 0.7, 1.5])
    options = dict(num_classes=5, leave_one_out=True, tile=4)
    on_mesh = jax.jit(functools.partial(ON_MESH, mesh=mesh, **options))(
        x, labels, h, weights=values
    )
    on_one = functools.partial(kde.class_log_density, **options)
    np.testing.assert_allclose(on_mesh, on_one(x, labels, h, weights=values), rtol=1e-5)
    assert (np.isneginf(on_mesh) == (labels == 1)).all()


def test_gradient_on_several_devices(mesh):
    x, labels = normal(0, 10, 3), np.arange(10) % 2
    options = dict(num_classes=2, leave_one_out=True, tile=4)

    def gradient(estimate):
        total = lambda x, h: estimate(x, labels, h, **options).sum()
        return jax.jit(jax.grad(total, (0, 1)))(x, 0.8)

    on_mesh = gradient(functools.partial(ON_MESH, mesh=mesh))
    expected = gradient(kde.class_log_density)
    chex.assert_trees_all_close(on_mesh, expected, rtol=1e-4, atol=1e-5)


def test_points_are_passed_around_and_never_gathered(mesh, collectives):
    """At most 1,000 of 4,000 samples are sent at a time, and memory holds a few such pieces."""
    n, d = 4000, 16
    by_row = jax.NamedSharding(mesh, jax.P(parallel.AXIS))
    x, labels = jax.device_put((jnp.zeros((n, d)), jnp.zeros(n, jnp.int32)), by_row)
    density = functools.partial(ON_MESH, num_classes=1, mesh=mesh, tile=128)
    compiled = jax.jit(density).lower(x, labels, 1.0).compile()
    transfers = list(collectives(compiled))
    assert "collective-permute" in {kind for kind, _ in transfers}
    assert max(size for _, size in transfers) <= n // 4 * d
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * n * d * 4
