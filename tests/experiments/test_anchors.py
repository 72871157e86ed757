"""Anchors of a teacher that measures brightness, compared with values computed by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tools import anchors
from jaxdd import networks, sampling
from jaxdd.methods import formation
from jaxdd.training import teachers

K, SIDE = 2, 6


def brightness(params, images):
    """Return a teacher that predicts class 1 for bright and class 0 for dark images."""
    mean = images.mean((1, 2, 3))
    return mean[:, None], jnp.stack([-mean, mean], 1) * params


TEACHER = teachers.Teacher(
    jnp.ones(()), networks.Functions(lambda key, images: jnp.ones(()), brightness)
)
SHADES = np.random.default_rng(0).permutation(40) * 6
LABELS = np.arange(40) % K


@functools.cache
def pool(weights=None):
    """Return images of one shade each, so that all crops of an image are alike."""
    images = np.broadcast_to(SHADES[:, None, None, None], (40, SIDE, SIDE, 1)).astype(np.uint8)
    given = dict(num_classes=K, mean=(0.5,), std=(0.5,))
    return sampling.pool(images, LABELS, **given, weights=None if weights is None else weights)


@functools.cache
def program(stratified, weighted):
    given = dict(ipc=2, factor=2, candidates=20, crops=2, stratified=stratified, weighted=weighted)
    return jax.jit(functools.partial(anchors.select, **given))


def select(weights=None, stratified=False, weighted=True):
    return program(stratified, weighted)(jax.random.key(0), pool(weights), TEACHER)


def test_takes_the_darkest_and_the_brightest_patches():
    chosen = select()
    shades = SHADES[np.asarray(chosen.sources)]
    darkest = np.sort(SHADES[LABELS == 0])[:8]
    brightest = np.sort(SHADES[LABELS == 1])[::-1][:8]
    np.testing.assert_array_equal(shades[0], darkest.reshape(4, 2).T)
    np.testing.assert_array_equal(shades[1], brightest.reshape(4, 2).T)
    cells = np.asarray(chosen.images).reshape(K, 2, 2, 3, 2, 3).mean((3, 5)).reshape(K, 2, 4)
    np.testing.assert_allclose(cells, shades / 255 * 2 - 1, atol=1e-5)


def test_losses_are_those_of_zero_padded_patches():
    """A patch of half the sides has a quarter of the area."""
    chosen = select()
    mean = (SHADES[np.asarray(chosen.sources)] / 255 * 2 - 1) / 4
    sign = np.array([1, -1])[:, None, None]
    np.testing.assert_allclose(chosen.losses, np.log1p(np.exp(2 * sign * mean)), rtol=1e-4)


def test_samples_of_weight_zero_are_not_drawn_by_weight():
    weights = tuple(float(shade > 60) for shade in SHADES)
    assert SHADES[np.asarray(select(weights=weights).sources)].min() > 60
    assert SHADES[np.asarray(select(weights=weights, weighted=False).sources[0])].max() < 121


def test_stratified_takes_the_best_of_each_place():
    losses, drawn = jnp.array([5.0, 1, 4, 2, 3, 0, 9]), jnp.arange(7)
    assert anchors.choose(losses, drawn, 3).tolist() == [5, 1, 3]
    # Places have candidates 0 3, 1 4 and 2 5.
    assert anchors.choose(losses, drawn, 3, stratified=True).tolist() == [5, 1, 3]
    losses = jnp.array([1.0, 9, 8, 2, 7, 6])
    assert anchors.choose(losses, drawn[:6], 3, stratified=True).tolist() == [0, 5, 4]
    spread = SHADES[np.asarray(select(stratified=True).sources[1])]
    assert set(spread.ravel()) != set(np.sort(SHADES[LABELS == 1])[::-1][:8])


def test_a_small_class_is_reused_evenly():
    """Three images with weight for eight patches: two or three patches of each."""
    few = (np.arange(40) < 6) | (LABELS == 1)
    sources = np.asarray(select(weights=tuple(few.astype(float))).sources)
    counts = np.bincount(sources[0].ravel(), minlength=40)
    assert sorted(counts[(LABELS == 0) & few]) == [2, 3, 3] and counts.sum() == 8
    assert len(set(sources[1].ravel())) == 8


@jax.jit
def cropped(image, ramp):
    crop = functools.partial(anchors._crop, jax.random.key(2), image, 1.0)
    keys = jax.random.split(jax.random.key(3), 200)
    parts = jax.vmap(lambda key: anchors._crop(key, ramp, 0.25, (6, 6)))(keys)
    return crop((6, 5)), crop((3, 2)), jnp.ptp(parts, (1, 2, 3))


def test_crops_are_resized_parts():
    """The sides have shares whose squares are uniform in [1/4, 1], 7/9 on average."""
    image = jax.random.normal(jax.random.key(1), (6, 5, 3))
    ramp = jnp.broadcast_to(jnp.linspace(0, 1, 60)[:, None, None], (60, 60, 1))
    whole, half, heights = cropped(image, ramp)
    np.testing.assert_allclose(whole, image, atol=1e-5)
    expected = jax.image.resize(image, (3, 2, 3), "linear")
    np.testing.assert_allclose(half, expected, atol=1e-5)
    heights *= 6 / 5  # between the centres of the outer pixels
    assert heights.min() > 0.45 and heights.max() < 1.05
    assert heights.mean() == pytest.approx(7 / 9, abs=0.05)


def test_remainders_of_sides_are_filled():
    pieces = jnp.arange(4.0)[:, None, None, None] * jnp.ones((4, 2, 2, 1))
    joined = formation.join(pieces, factor=2, size=(5, 5))[0, :, :, 0]
    np.testing.assert_allclose(np.diag(joined), [0, 0, 0, 3, 3])
    assert joined.shape == (5, 5) and (joined[0, 3:] == 1).all() and (joined[3:, 0] == 2).all()


def test_memory_does_not_grow_with_the_classes():
    def temporary(k):
        shapes = jax.eval_shape(
            lambda: sampling.pool(
                jnp.zeros((4 * k, 8, 8, 3), jnp.uint8), jnp.arange(4 * k) % k, num_classes=k,
                mean=(0.5,) * 3, std=(0.5,) * 3,
            )
        )  # fmt: skip
        run = functools.partial(anchors.select, ipc=1, candidates=64, teacher=wide(k))
        lowered = jax.jit(lambda key, pool: run(key, pool)).lower(jax.random.key(0), shapes)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    def wide(k):
        spread = lambda images: jnp.tanh(images.reshape(len(images), 1, -1) * jnp.ones((50, 1)))
        logits = lambda params, images: (images, jnp.tile(spread(images).mean((1, 2)), (k, 1)).T)
        return teachers.Teacher((), networks.Functions(lambda key, images: (), logits))

    assert temporary(100) < 2 * temporary(10)


def test_too_few_candidates_and_other_classes_are_rejected():
    with pytest.raises(ValueError, match="got 7"):
        anchors.select(jax.random.key(0), pool(), TEACHER, ipc=2, factor=2, candidates=7)
    three = sampling.pool(
        np.zeros((6, SIDE, SIDE, 1), np.uint8), np.arange(6) % 3, num_classes=3,
        mean=(0.5,), std=(0.5,),
    )  # fmt: skip
    with pytest.raises(ValueError, match="3"):
        anchors.select(jax.random.key(0), three, TEACHER, ipc=2, candidates=20)


def test_whole_crops_by_default():
    chosen = jax.jit(functools.partial(anchors.select, ipc=3, candidates=20, crops=2))(
        jax.random.key(0), pool(), TEACHER
    )
    brightest = np.sort(SHADES[LABELS == 1])[::-1][:3]
    np.testing.assert_array_equal(SHADES[np.asarray(chosen.sources)[1, :, 0]], brightest)
    expected = np.broadcast_to((brightest / 127.5 - 1)[:, None, None, None], (3, SIDE, SIDE, 1))
    np.testing.assert_allclose(chosen.images[1], expected, atol=1e-5)
