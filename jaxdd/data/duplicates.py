"""Find images that occur more than once, and test images that are also training images.

`exact` compares pixels, `near` perceptual hashes. Near-duplicates are images that were saved again,
compressed, resized, brightened or converted to grey values. Images that were shifted, cropped or
mirrored are not recognised.

The hash is `phash(image, hash_size=16)` of the library ImageHash (`hash_size=8` for images with
fewer than 24 pixels per side): the signs of the low frequencies of the cosine transform of the grey
values, relative to their median. ImageHash hashes one image at a time, which takes 11 seconds for
60,000 images of 28 × 28 pixels. Resizing and the cosine transform are linear, so here both are one
matrix per side, and a batch of images is hashed by two matrix products in a tenth of a second.
"""

import functools
import hashlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from scipy import fft

from jaxdd.data import datasets

MAX_IMAGES = 200_000
"""Maximum number of images among which `near` looks for near-duplicates, in half a minute."""

_OVERSAMPLING = 4  # pixels per frequency of the resized image, as in ImageHash
_SMALL = 24  # images with fewer pixels per side have hashes of 64 instead of 256 bits
_LUMA = (0.299, 0.587, 0.114)  # of RGB; other images are averaged over channels
_BATCH = 2**22  # pixels that are hashed at once
_BLOCK = 2048  # images per side of a block of comparisons


class Duplicates(NamedTuple):
    """Which of n training and m test images are duplicates.

    Attributes:
        train: training images that equal an earlier training image, bool `[n]`.
        test: test images that equal an earlier test image, bool `[m]`.
        between: test images that equal a training image, bool `[m]`.
        contradictory: training images that equal a training image of another class, bool `[n]`.
    """

    train: np.ndarray
    test: np.ndarray
    between: np.ndarray
    contradictory: np.ndarray

    def counts(self) -> dict[str, int]:
        """Return the number of images by attribute."""
        return {name: int(mask.sum()) for name, mask in self._asdict().items()}


def digests(images: np.ndarray) -> np.ndarray:
    """Return a BLAKE2b hash of each image, uint64 `[n]`.

    Args:
        images: uint8 `[n, h, w, c]`, decoded.
    """
    hashes = (hashlib.blake2b(np.ascontiguousarray(x).data, digest_size=8).digest() for x in images)
    return np.frombuffer(b"".join(hashes), "<u8")


def exact(benchmark: datasets.Benchmark) -> Duplicates:
    """Return which images have the same pixels as another image.

    >>> images = np.uint8([[[1]], [[2]], [[2]], [[3]]])
    >>> data = datasets.from_arrays(images[:3], [0, 0, 1], test=(images[2:], [0, 0]))
    >>> exact(data).counts()
    {'train': 1, 'test': 0, 'between': 1, 'contradictory': 2}
    """
    train, test = digests(benchmark.train.images), digests(benchmark.test.images)
    _, first, image = np.unique(train, return_index=True, return_inverse=True)
    classes = np.unique(np.stack([image, benchmark.train.labels]), axis=1)[0]
    return Duplicates(
        ~np.isin(np.arange(len(train)), first),
        ~np.isin(np.arange(len(test)), np.unique(test, return_index=True)[1]),
        np.isin(test, train),
        (np.bincount(classes) > 1)[image],
    )


def near(benchmark: datasets.Benchmark) -> Duplicates | None:
    """Return which images have nearly the same perceptual hash as another image.

    Hashes may differ in 5 % of their bits. Images that have the same pixels as an earlier image
    are left out, see `exact`.

    Returns:
        The near-duplicates, or None for more than `MAX_IMAGES` images.
    """
    copies = exact(benchmark)
    kept = np.concatenate([~copies.train, ~(copies.test | copies.between)])
    (rows,) = np.nonzero(kept)
    if len(rows) > MAX_IMAGES:
        return None
    n = len(benchmark.train.labels)
    sets = benchmark.train, benchmark.test
    hashes = np.concatenate([hash_images(data.images) for data in sets])[rows]
    labels = np.concatenate([data.labels for data in sets])
    result = Duplicates(*(np.zeros(size, bool) for size in (n, len(kept) - n, len(kept) - n, n)))
    for first, second in _near_pairs(hashes):
        first, second = rows[first], rows[second]  # training images come first
        result.train[second[second < n]] = True
        result.test[second[first >= n] - n] = True
        result.between[second[(first < n) & (second >= n)] - n] = True
        contradict = (second < n) & (labels[first] != labels[second])
        result.contradictory[first[contradict]] = True
        result.contradictory[second[contradict]] = True
    return result


def hash_images(images: np.ndarray) -> np.ndarray:
    """Return the perceptual hash of each image, uint32 `[n, words]` of 32 bits.

    Args:
        images: uint8 `[n, h, w, c]`.
    """
    h, w, c = images.shape[1:]
    size = 8 if min(h, w) < _SMALL else 16
    grey = np.array(_LUMA if c == 3 else [1 / c] * c, np.float32)
    rows, columns = _basis(h, size), _basis(w, size).T
    step, hashes = max(1, _BATCH // (h * w * c)), []
    for batch in (images[first : first + step] for first in range(0, len(images), step)):
        pixels = batch @ grey
        pixels -= pixels.mean((1, 2), keepdims=True)
        # Rounded, so that constant images, whose frequencies are rounding errors, have one hash.
        frequencies = np.rint(rows @ pixels @ columns).reshape(len(batch), -1)
        frequencies[:, 0] = np.inf  # the mean, which is above the median before it is subtracted
        bits = frequencies > np.median(frequencies, axis=1, keepdims=True)
        hashes.append(np.packbits(bits, axis=1))
    return np.concatenate(hashes).view(np.uint32)


def _basis(length, size):
    """Return the matrix `[size, length]` that resizes a side and transforms it to frequencies."""
    identity = Image.fromarray(np.eye(length, dtype=np.float32))
    resized = identity.resize((length, size * _OVERSAMPLING), Image.Resampling.LANCZOS)
    return np.asarray(fft.dct(np.asarray(resized), axis=0))[:size]


def _near_pairs(hashes):
    """Yield the pairs i < j of images with similar hashes, as two arrays of indices per block."""
    is_near = functools.partial(_is_near, limit=32 * hashes.shape[1] // 20)
    starts = range(0, len(hashes), _BLOCK)
    blocks = [jnp.asarray(hashes[start : start + _BLOCK]) for start in starts]
    for i, block in zip(starts, blocks, strict=True):
        for j, other in zip(starts[i // _BLOCK :], blocks[i // _BLOCK :], strict=True):
            near, has_near = map(np.asarray, is_near(block, other))
            # Searching all of `near` on the host would take longer than computing it.
            (with_near,) = np.nonzero(has_near)
            first, second = np.nonzero(near[with_near])
            first, second = i + with_near[first], j + second
            is_ordered = first < second
            yield first[is_ordered], second[is_ordered]


@functools.partial(jax.jit, static_argnames="limit")
def _is_near(a, b, *, limit):
    """Return which pairs of hashes differ in at most `limit` bits, and which rows have such a pair.

    The hashes are `[n, words]` and `[m, words]`, the results bool `[n, m]` and `[n]`.
    """
    bits = (jax.lax.population_count(x[:, None] ^ y) for x, y in zip(a.T, b.T, strict=True))
    near = sum(bits, jnp.zeros((len(a), len(b)), jnp.uint32)) <= limit
    return near, near.any(1)
