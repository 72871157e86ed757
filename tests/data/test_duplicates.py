"""Copies of images are counted, whether they are exact or were changed slightly."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxdd.data import datasets, duplicates


def photographs(count, size=32, channels=3, seed=0):
    """Smooth random images with most power in low frequencies, uint8 `[count, size, size, c]`."""
    noise = np.random.default_rng(seed).normal(size=(count, size, size, channels))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)) + 1 / size
    smooth = np.fft.ifft2(np.fft.fft2(noise, axes=(1, 2)) / frequency[..., None], axes=(1, 2)).real
    smooth /= smooth.std(axis=(1, 2), keepdims=True)
    return np.clip(128 + 40 * smooth, 0, 255).astype(np.uint8)


def jpeg(image, quality=75):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def resized(image):
    small = Image.fromarray(image).resize((24, 24), Image.Resampling.LANCZOS)
    return np.asarray(small.resize((32, 32), Image.Resampling.BICUBIC))


CHANGES = {
    "jpeg": jpeg,
    "resized": resized,
    "brightened": lambda image: np.minimum(image * 1.1, 255).astype(np.uint8),
    "grey": lambda image: np.asarray(Image.fromarray(image).convert("L").convert("RGB")),
}
OTHERS = {
    "shifted": lambda image: np.roll(image, 2, axis=1),
    "mirrored": lambda image: image[:, ::-1],
    "turned": lambda image: np.rot90(image),
    "inverted": lambda image: 255 - image,
}


def benchmark(train, test, train_labels=None):
    labels = np.arange(len(train)) % 2 if train_labels is None else train_labels
    return datasets.from_arrays(train, labels, test=(test, np.arange(len(test)) % 2), num_classes=2)


def test_exact_copies():
    """Image 0 occurs three times in training, once in another class, and twice in test."""
    shades = np.arange(8, dtype=np.uint8)[:, None, None] * np.ones((2, 2), np.uint8)
    data = benchmark(shades[[0, 0, 0, 1, 2]], shades[[0, 0, 2, 3, 3]], [0, 1, 0, 1, 0])
    copies = duplicates.exact(data)
    assert np.flatnonzero(copies.train).tolist() == [1, 2]
    assert np.flatnonzero(copies.test).tolist() == [1, 4]
    assert np.flatnonzero(copies.between).tolist() == [0, 1, 2]
    assert np.flatnonzero(copies.contradictory).tolist() == [0, 1, 2]
    assert copies.counts() == dict(train=2, test=2, between=3, contradictory=3)


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_near_duplicates(change):
    images = photographs(40)
    changed = np.stack([CHANGES[change](image) for image in images])
    near = duplicates.near(benchmark(images, changed))
    assert near.between.mean() > 0.9
    assert near._replace(between=near.test).counts() == dict.fromkeys(near._fields, 0)


@pytest.mark.parametrize("change", OTHERS)
def test_other_images_are_no_near_duplicates(change):
    images = photographs(40)
    changed = np.stack([OTHERS[change](image) for image in images])
    assert not any(duplicates.near(benchmark(images, changed)).counts().values())


@pytest.mark.parametrize("block", [3, 2048])
def test_near_duplicates_within_and_between(monkeypatch, block):
    """Exact copies are left out; each near-duplicate is marked where it belongs.

    Training: A A' A" B C B (the last one is an exact copy); test: D D' A''' C (an exact copy).
    """
    monkeypatch.setattr(duplicates, "_BLOCK", block)
    a, b, c, d = photographs(4)
    train = np.stack([a, jpeg(a, 90), jpeg(a, 80), b, c, b])
    test = np.stack([d, jpeg(d, 90), jpeg(a, 95), c])
    near = duplicates.near(benchmark(train, test, [0, 0, 1, 1, 0, 0]))
    assert near.train.tolist() == [False, True, True, False, False, False]
    assert near.test.tolist() == [False, True, False, False]
    assert near.between.tolist() == [False, False, True, False]
    assert near.contradictory.tolist() == [True, True, True, False, False, False]


@pytest.mark.parametrize("size, hash_size", [(16, 8), (28, 16), (32, 16), (40, 16)])
@pytest.mark.parametrize("channels", [1, 3])
def test_hashes_are_those_of_imagehash(size, hash_size, channels):
    """They differ in few bits, because ImageHash rounds the resized pixels to integers."""
    imagehash = pytest.importorskip("imagehash")
    images = photographs(20, size, channels)
    pictures = [Image.fromarray(x if channels == 3 else x[..., 0]) for x in images]
    expected = np.stack([imagehash.phash(x, hash_size=hash_size).hash.ravel() for x in pictures])
    bits = np.unpackbits(duplicates.hash_images(images).view(np.uint8), axis=1)
    assert bits.shape == expected.shape and (bits != expected).mean() < 0.01


def test_hashes_do_not_depend_on_batches(monkeypatch):
    images = photographs(5)
    expected = duplicates.hash_images(images)
    monkeypatch.setattr(duplicates, "_BATCH", 2 * images[0].size)
    np.testing.assert_array_equal(duplicates.hash_images(images), expected)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 40, 2), (64, 8, 4)])
def test_any_size_and_number_of_channels(shape):
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    assert len(duplicates.hash_images(images)) == 3


def test_constant_images_have_equal_hashes():
    """Their frequencies are zero, without the signs of rounding errors."""
    shades = np.uint8([3, 77, 200])[:, None, None, None] * np.ones((32, 32, 3), np.uint8)
    assert len(np.unique(duplicates.hash_images(shades), axis=0)) == 1
    assert duplicates.near(benchmark(shades, shades[:1], [0, 0, 1])).counts() == dict(
        train=2, test=0, between=0, contradictory=3
    )


def test_too_many_images_are_not_compared(monkeypatch):
    images = photographs(4)
    monkeypatch.setattr(duplicates, "MAX_IMAGES", 5)
    assert duplicates.near(benchmark(images, images[:1])) is not None  # a copy is not compared
    assert duplicates.near(benchmark(images, photographs(2, seed=1))) is None
