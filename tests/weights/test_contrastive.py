"""The supervised contrastive loss against its definition, and the training of an encoder."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from jaxdd import augment, networks, sampling
from jaxdd.devices import microbatch
from jaxdd.weights import contrastive

# Jitted, because compiling one operation after the other takes most of the time.
supervised_contrastive = jax.jit(contrastive.supervised_contrastive)
embed = jax.jit(contrastive.embed, static_argnums=0, static_argnames="batch_size")


@functools.partial(jax.jit, static_argnums=0, static_argnames=("steps", "batch_size"))
def fit(trainer, pool, key, *, steps, batch_size):
    step = lambda state, i: contrastive.update(key, trainer, pool, state, i, batch_size=batch_size)
    return jax.lax.scan(step, contrastive.init(key, trainer, pool), jnp.arange(steps))


def unit(shape, seed=0):
    z = np.random.default_rng(seed).normal(size=shape)
    return np.float32(z / np.linalg.norm(z, axis=-1, keepdims=True))


def by_definition(z, labels, temperature):
    """Equation 2 of Khosla et al. in float64, one anchor and one positive at a time."""
    z, total = np.asarray(z, np.float64), 0.0
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        denominator = sum(np.exp(z[i] @ z[a] / temperature) for a in others)
        for p in positives:
            share = np.exp(z[i] @ z[p] / temperature) / denominator
            total -= np.log(share) / len(positives)
    return total / len(z)


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 2], [0, 1, 2, 3, 4, 5]])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_loss_follows_the_definition(labels, temperature):
    z, labels = unit((6, 4)), np.array(labels)
    loss = supervised_contrastive(z, labels, temperature=temperature)
    assert loss == pytest.approx(by_definition(z, labels, temperature), rel=1e-4, abs=1e-6)


def test_two_opposite_pairs_by_hand():
    """Positives coincide, negatives are opposite; τ = 1: −log(e / (e + 2/e)) for every anchor."""
    z = np.float32([[1, 0], [1, 0], [-1, 0], [-1, 0]])
    loss = supervised_contrastive(z, np.array([0, 0, 1, 1]), temperature=1.0)
    assert loss == pytest.approx(-np.log(np.e / (np.e + 2 / np.e)), rel=1e-5)


def test_loss_without_positives_is_zero_with_zero_gradient():
    loss = lambda z: supervised_contrastive(z, jnp.arange(4))
    value, gradient = jax.value_and_grad(loss)(unit((4, 3)))
    assert value == 0 and not gradient.any()


def test_loss_is_invariant_to_order_and_class_names():
    z, labels = unit((6, 4)), np.array([0, 0, 1, 1, 2, 2])
    expected = float(supervised_contrastive(z, labels))
    order = [5, 2, 0, 3, 4, 1]
    loss = supervised_contrastive(z[order], 7 - labels[order])
    assert loss == pytest.approx(expected, rel=1e-5)


def test_gradient():
    labels = jnp.array([0, 0, 1, 1, 2])
    loss = lambda z: supervised_contrastive(z, labels, temperature=0.5)
    check_grads(loss, (unit((5, 3)),), order=1, modes=["rev"])


@pytest.mark.parametrize(
    "change, error, value",
    [
        (dict(temperature=0.0), ValueError, "got 0.0"),
        (dict(temperature=-1.0), ValueError, "got -1.0"),
        (dict(temperature=1e-40), ValueError, "temperature"),
        (dict(labels=np.zeros(4)), TypeError, "float64"),
        (dict(embeddings=3 * np.eye(4)), ValueError, r"3\.\.3"),
        (dict(embeddings=np.full((4, 4), np.inf)), ValueError, "inf"),
        (dict(embeddings=np.eye(4, dtype=int)), TypeError, "int"),
        (dict(labels=np.zeros(5, int)), ValueError, r"got \(5,\)"),
    ],
)
def test_invalid_arguments_are_rejected(change, error, value):
    sound = dict(embeddings=np.eye(4), labels=np.zeros(4, int))
    with pytest.raises(error, match=value):
        contrastive.supervised_contrastive(**(sound | change))


@pytest.fixture(scope="module")
def trained():
    """Two classes that differ in brightness; a brighter quarter of each is bias-conflicting."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 60)
    images = rng.integers(0, 60, (120, 8, 8, 1)) + 120 * labels[:, None, None, None]
    pool = sampling.pool(images.astype(np.uint8), labels, num_classes=2, mean=(0.4,), std=(0.3,))
    network = networks.ConvNet(2, width=8, depth=2, norm=None)
    encoder = contrastive.Encoder(network, hidden=16, dimension=8)
    trainer = contrastive.trainer(encoder, optax.adam(1e-2), strategy=("crop", "cutout"))
    train = functools.partial(fit, trainer, pool, steps=40, batch_size=32)
    state, info = train(jax.random.key(0))
    return encoder, pool, labels, state, info, train


def test_training_reaches_the_lowest_loss_and_separates_the_classes(trained):
    """With 16 samples of a class in two views, 31 positives share all similarity: log 31."""
    encoder, pool, labels, state, info, _ = trained
    assert info["loss"][0] > np.log(31) + 0.3
    assert float(info["loss"][-1]) == pytest.approx(np.log(31), abs=0.02)
    z = embed(encoder, state.params, pool).projection
    same = labels[:, None] == labels
    similarity = np.asarray(z @ z.T)
    assert similarity[same].mean() > similarity[~same].mean() + 0.5


@pytest.mark.parametrize("kept_bytes", [contrastive._KEPT_BYTES, 0])
def test_step_in_micro_batches_follows_the_gradient_of_the_whole_batch(
    trained, kept_bytes, monkeypatch
):
    """150 views in micro-batches give the gradient of the whole batch, kept or recomputed."""
    encoder, *_ = trained
    monkeypatch.setattr(contrastive, "_KEPT_BYTES", kept_bytes)
    monkeypatch.setattr(microbatch, "GRADIENT_BYTES", 2**16)
    monkeypatch.setattr(microbatch, "_FORWARD_BYTES", 2**17)
    trainer = contrastive.trainer(encoder, optax.sgd(1.0), strategy=())
    images = np.float32(np.random.default_rng(0).normal(size=(3, 25, 8, 8, 1)))
    state = jax.jit(trainer.init)(jax.random.key(1), images[0])
    batch = sampling.Batch(images, np.full((3, 25), 1 / 25, np.float32))
    new, info = jax.jit(trainer.step)(jax.random.key(2), state, batch)

    def loss(params):
        views = jnp.tile(images.reshape(75, 8, 8, 1), (2, 1, 1, 1))
        z = encoder.apply(params, views).projection
        return contrastive.supervised_contrastive(z, jnp.arange(150) // 25 % 3)

    value, gradient = jax.jit(jax.value_and_grad(loss))(state.params)
    assert float(info["loss"]) == pytest.approx(float(value), rel=1e-5)
    expected = optax.apply_updates(state.params, jax.tree.map(jnp.negative, gradient))
    chex.assert_trees_all_close(new.params, expected, atol=2e-5)


def test_augmentation_function_equals_the_names_it_implements():
    def own(key, image):
        return augment.apply(augment.draw(key, image.shape, strategy=("crop",)), image)

    network = networks.ConvNet(2, width=2, depth=1, norm=None)
    encoder = contrastive.Encoder(network, hidden=2, dimension=2)
    batch = sampling.Batch(unit((2, 3, 8, 8, 1)), jnp.full((2, 3), 1 / 3))
    one, other = (
        contrastive.trainer(encoder, optax.sgd(1.0), strategy=strategy)
        for strategy in (own, ("crop",))
    )
    state = jax.jit(one.init)(jax.random.key(1), batch.images[0])
    chex.assert_trees_all_equal(
        *(jax.jit(trainer.step)(jax.random.key(2), state, batch) for trainer in (one, other))
    )


def test_training_depends_on_the_key_alone(trained):
    *_, state, _, train = trained
    again, _ = train(jax.random.key(0))
    chex.assert_trees_all_equal(state, again)
    other, _ = train(jax.random.key(1))
    assert any((x != y).any() for x, y in zip(*map(jax.tree.leaves, (state, other)), strict=True))


def test_embedding_is_independent_of_the_batch_and_of_unit_length(trained):
    encoder, pool, _, state, *_ = trained
    whole = embed(encoder, state.params, pool, batch_size=120)
    parts = embed(encoder, state.params, pool, batch_size=7)
    chex.assert_trees_all_close(whole, parts, atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(whole.projection, axis=1), 1, rtol=1e-4)
    assert whole.features.shape == (120, 32)


def test_embedding_memory_is_bounded_by_the_batch(trained):
    encoder, pool, _, state, *_ = trained
    many = pool._replace(images=jax.ShapeDtypeStruct((20_000, 32, 32, 1), jnp.uint8))
    params = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
    compiled = embed.lower(encoder, params, many).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 128 * 2**20  # activations: 650 MB


def test_two_samples_per_class_if_the_batch_is_smaller():
    labels = np.repeat(np.arange(30), 3)
    images = np.random.default_rng(0).integers(0, 255, (90, 8, 8, 3), dtype=np.uint8)
    pool = sampling.pool(images, labels, num_classes=30, mean=(0.5,) * 3, std=(0.5,) * 3)
    encoder = contrastive.Encoder(networks.ConvNet(30, width=4, depth=1), hidden=8, dimension=4)
    trainer = contrastive.trainer(encoder, optax.sgd(0.1), strategy=("crop",))
    _, info = fit(trainer, pool, jax.random.key(0), steps=2, batch_size=20)
    assert jnp.isfinite(info["loss"]).all() and (info["loss"] > 0).all()
