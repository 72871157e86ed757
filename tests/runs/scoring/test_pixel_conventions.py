"""Tests of pixel conventions: what is guessed, and what is rejected as implausible."""

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.datasets

from jaxdd.data import datasets
from jaxdd.methods import zca
from jaxdd.runs.scoring import pixel_conventions

DIGITS = sklearn.datasets.load_digits()
PIXELS = np.rint(DIGITS.images[..., None] * 255 / 16).astype(np.uint8)
IMAGENET = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def make_data(channels=1, contrast=1.0):
    images = np.repeat(PIXELS[:400], channels, axis=-1) * contrast + 127.5 * (1 - contrast)
    return datasets.from_arrays(images.astype(np.uint8), DIGITS.target[:400])


DATA, COLOURED = make_data(), make_data(3, contrast=0.6)


def pixels_of(data, count=40, noise=0.0):
    unit = data.train.images[:count] / np.float32(255)
    return unit + noise * np.random.default_rng(0).normal(size=unit.shape).astype(np.float32)


def encode(pixels, convention, data):
    mean, std = {
        "unit": (0, 1), "bytes": (0, 1 / 255), "signed": (0.5, 0.5), "imagenet": IMAGENET,
        "normalised": (np.float32(data.mean), np.float32(data.std)),
    }[convention]  # fmt: skip
    return np.asarray((pixels - mean) / std, np.float32)


@pytest.mark.parametrize("data", [DATA, COLOURED], ids=["grey", "coloured"])
@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("convention", pixel_conventions.CONVENTIONS)
def test_a_guess_is_right_or_is_not_made(convention, noise, data):
    """Stated conventions always give the same images; guesses do, unless they are rejected."""
    if convention == "imagenet" and data is DATA:
        return
    pixels = pixels_of(data, noise=noise)
    stored, expected = encode(pixels, convention, data), encode(pixels, "normalised", data)
    images, _ = pixel_conventions.normalise(stored, data, convention=convention)
    np.testing.assert_allclose(images, expected, atol=1e-4)
    is_clear = convention in ("unit", "normalised") or (not noise and convention == "bytes")
    try:
        images, guess = pixel_conventions.normalise(stored, data)
    except ValueError:
        assert not is_clear
    else:
        assert guess == convention
        np.testing.assert_allclose(images, expected, atol=1e-4)


def test_two_values_beyond_the_range_are_unit_pixels():
    pixels = pixels_of(DATA)
    pixels[0, 0, 0], pixels[1, 1, 1] = -0.02, 1.02
    images, guess = pixel_conventions.normalise(pixels, DATA)
    assert guess == "unit"
    np.testing.assert_allclose(images, encode(pixels, "normalised", DATA), atol=1e-5)


def whitened(data):
    pool = datasets.pool(data)
    images = encode(pixels_of(data), "normalised", data)
    return np.asarray(zca.whiten(jnp.asarray(images), zca.fit(pool), data.mean, data.std))


IMPLAUSIBLE = {
    "whitened": whitened,
    "noise": lambda data: np.random.default_rng(0).normal(size=(9, 8, 8, 1)).astype(np.float32),
    "centred only": lambda data: pixels_of(data) - np.float32(data.mean),
    "divided by 16": lambda data: pixels_of(data) / 16,
    "0..16": lambda data: DIGITS.images[:9, ..., None],
    "0..16 as bytes": lambda data: DIGITS.images[:9, ..., None].astype(np.uint8),
    "normalised twice": lambda data: encode(
        encode(pixels_of(data), "normalised", data), "normalised", data
    ),
    "constant": lambda data: np.full((9, 8, 8, 1), -0.5, np.float32),
}


@pytest.mark.parametrize("case", IMPLAUSIBLE)
@pytest.mark.filterwarnings("ignore:ZCA")
def test_implausible_values_are_rejected(case):
    images = IMPLAUSIBLE[case](DATA)
    with pytest.raises(ValueError, match=f"{float(images.max()):.4g}.*--pixels"):
        pixel_conventions.normalise(images, DATA)


@pytest.mark.parametrize(
    ("images", "convention", "message"),
    [
        (PIXELS[:9], "signed", "'signed'"),
        (PIXELS[:9] / 1.0, "unit", r"0\.\.255"),
        (PIXELS[:9] / 1.0, "normalised", r"0\.\.255"),
        (PIXELS[:9] / 255, "bytes", r"0\.\.1 "),
        (PIXELS[:9] / 255, "imagenet", "got 1"),
        (PIXELS[:9] / 255, "half", "'half'"),
    ],
)
def test_conventions_that_do_not_fit_are_rejected(images, convention, message):
    with pytest.raises(ValueError, match=message):
        pixel_conventions.normalise(images, DATA, convention=convention)
