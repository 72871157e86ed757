"""Multi-formation: splitting equals pillow's bilinear enlargement, and joining inverts it."""

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


@pytest.mark.parametrize("factor", [2, 3])
def test_pieces_are_enlarged_bilinearly(factor):
    """Pieces are in row order; three does not divide the sides 28 and 20."""
    images = np.float32(np.random.default_rng(0).uniform(size=(2, 28, 20, 1)))
    pieces = formation.split(jnp.asarray(images), factor=factor)
    assert pieces.shape == (2 * factor**2, 28, 20, 1)
    edges = lambda side: [i * side // factor for i in range(factor + 1)]
    number = 0
    for image in images:
        for top, bottom in itertools.pairwise(edges(28)):
            for left, right in itertools.pairwise(edges(20)):
                piece = Image.fromarray(image[top:bottom, left:right, 0])
                expected = np.asarray(piece.resize((20, 28), Image.Resampling.BILINEAR))
                np.testing.assert_allclose(pieces[number, ..., 0], expected, atol=1e-5)
                number += 1


def test_split_undoes_join_for_smooth_images():
    ramp = np.linspace(0, 1, 16, dtype=np.float32)
    columns = np.stack([ramp, 1 - ramp, ramp**2, ramp * 0])[None, :, :, None, None]
    images = jnp.asarray(np.broadcast_to(columns, (3, 4, 16, 16, 2)))
    joined = formation.join(images, factor=2)
    assert joined.shape == (3, 1, 16, 16, 2)
    again = formation.split(joined, factor=2)
    np.testing.assert_allclose(again[:, :, 2:-2], images[:, :, 2:-2], atol=0.02)


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
