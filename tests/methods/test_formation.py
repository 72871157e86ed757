"""Multi-formation: splitting equals pillow's bilinear enlargement; joining copies pixels."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxdd.methods import formation


def test_factor_one_changes_nothing():
    images = np.float32(np.random.default_rng(0).normal(size=(2, 3, 8, 6, 1)))
    np.testing.assert_array_equal(formation.split(images, factor=1), images)
    np.testing.assert_array_equal(formation.join(images, factor=1), images)


EDGES = {
    (28, 2): (0, 14, 28), (28, 3): (0, 10, 19, 28), (20, 2): (0, 10, 20), (20, 3): (0, 7, 14, 20)
}  # fmt: skip


@pytest.mark.parametrize("factor", [2, 3])
def test_pieces_are_enlarged_bilinearly(factor):
    """Pieces are in row order; three does not divide the sides 28 and 20."""
    images = np.float32(np.random.default_rng(0).uniform(size=(2, 28, 20, 1)))
    pieces = formation.split(jnp.asarray(images), factor=factor)
    assert pieces.shape == (2 * factor**2, 28, 20, 1)
    number = 0
    for image in images:
        for top, bottom in itertools.pairwise(EDGES[28, factor]):
            for left, right in itertools.pairwise(EDGES[20, factor]):
                piece = Image.fromarray(image[top:bottom, left:right, 0])
                expected = np.asarray(piece.resize((20, 28), Image.Resampling.BILINEAR))
                np.testing.assert_allclose(pieces[number, ..., 0], expected, atol=1e-5)
                number += 1


def test_join_copies_every_second_pixel():
    images = np.float32(np.random.default_rng(0).uniform(size=(3, 8, 6, 4, 2)))
    joined = np.asarray(formation.join(jnp.asarray(images), factor=2))
    assert joined.shape == (3, 2, 6, 4, 2)
    pieces = images.reshape(3, 2, 2, 2, 6, 4, 2)[..., ::2, ::2, :]
    np.testing.assert_array_equal(joined[:, :, :3, 2:], pieces[:, :, 0, 1])
    np.testing.assert_array_equal(joined[:, :, 3:, :2], pieces[:, :, 1, 0])


def test_join_of_factors_that_do_not_divide():
    """Seven pixels hold pieces of 3, 2 and 2; these are pixels 0, 2, 4 and 0, 3 of seven."""
    rows = np.float32(np.arange(9 * 7).reshape(9, 7, 1, 1)) * np.ones((1, 1, 7, 1), np.float32)
    joined = np.asarray(formation.join(jnp.asarray(rows), factor=3))[0, :, 0, 0]
    np.testing.assert_array_equal(joined, [0, 2, 4, 21, 24, 42, 45])


def test_the_gradient_reaches_every_pixel():
    total = lambda x: formation.split(x, factor=2).sum()
    gradient = jax.jit(jax.grad(total))(jnp.zeros((1, 9, 9, 1)))
    assert (gradient > 0).all()


@pytest.mark.parametrize("factor", [0, 5])
def test_factors_out_of_range_raise(factor):
    for function in (formation.split, formation.join):
        with pytest.raises(ValueError, match=rf"1\.\.4.*got {factor}"):
            function(jnp.zeros((25, 4, 6, 1)), factor=factor)


def test_a_number_of_images_that_cannot_be_packed_raises():
    with pytest.raises(ValueError, match="4, got 3"):
        formation.join(jnp.zeros((3, 4, 4, 1)), factor=2)
