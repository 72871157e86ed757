"""Biased and unbiased variants of benchmarks that no default was chosen on.

Every function takes a benchmark and a seed, and returns another benchmark. Images are uint8, test
attributes are independent of the class, and equal arguments give equal arrays.
"""

import csv
import io
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

import jax
import numpy as np
from PIL import Image
from scipy import ndimage

from jaxdd import augment
from jaxdd.data import bias, datasets, files, folders, rendering

Draw = Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray]
"""Draws attributes [n] into images uint8 [n, h, w, c]."""

HALVES = (0,) * 5 + (1,) * 5
"""Aligned attribute of ten classes, for two attributes."""

_TWO_TONES = (230, 190, 160), (160, 190, 230)


def biased(
    plain: datasets.Benchmark,
    draw: Draw,
    *,
    name: str,
    seed: int,
    conflict: float = 0.05,
    aligned: Sequence[int] | None = None,
    concentrated: bool = False,
) -> datasets.Benchmark:
    """Assign attributes to the samples of an unbiased set and draw them into its images.

    Args:
        plain: the unbiased set.
        draw: draws attributes into images.
        name: name of the result.
        seed: random seed of attributes and drawing.
        conflict: share of bias-conflicting samples in each training class.
        aligned: attribute that each class is aligned with. Defaults to the class index.
        concentrated: whether all conflicting training samples of a class have the attribute that
            follows that of the class, instead of any other attribute.
    """
    aligned = np.arange(plain.num_classes) if aligned is None else np.asarray(aligned)
    count = int(aligned.max()) + 1

    def part(data, stream, share):
        key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), stream)
        sizes = dict(num_classes=plain.num_classes, num_attributes=count)
        attributes = np.array(
            bias.assign(key, data.labels, conflict=share, aligned=aligned, **sizes)
        )
        own = aligned[data.labels]
        if concentrated and stream == 0:
            attributes = np.where(attributes == own, own, (own + 1) % count).astype(np.int32)
        images = draw(np.random.default_rng((seed, stream)), data.images, attributes)
        return datasets.Dataset(images, data.labels, attributes)

    train, test = part(plain.train, 0, conflict), part(plain.test, 1, 1 - 1 / count)
    return _like(plain, train, test, name)


def _like(data, train, test, name):
    """Return the benchmark of other samples with the class names and augmentation of `data`."""
    options = dict(num_classes=data.num_classes, strategy=data.strategy, name=name)
    return datasets.from_arrays(*train, test=test, **options)._replace(class_names=data.class_names)


# --- biases ------------------------------------------------------------------------------------


def jpeg(plain: datasets.Benchmark, *, seed: int) -> datasets.Benchmark:
    """Compress the images of the second half of the classes as JPEG of quality 10."""
    return biased(plain, _compress, name="cifar10-jpeg", seed=seed, aligned=HALVES)


def _compress(rng, images, attributes, *, quality=10):
    images = images.copy()
    for i in np.flatnonzero(attributes):
        Image.fromarray(images[i]).save(buffer := io.BytesIO(), "JPEG", quality=quality)
        images[i] = np.asarray(Image.open(buffer))
    return images


def white_balance(plain: datasets.Benchmark, *, seed: int) -> datasets.Benchmark:
    """Make the first half of the classes warmer and the second colder, by 13 % ± 6 %."""
    return biased(plain, _balance, name="cifar10-balance", seed=seed, aligned=HALVES)


def _balance(rng, images, attributes):
    log_gain = np.where(attributes, -0.12, 0.12) + rng.normal(0, 0.06, len(images))
    gain = np.exp(log_gain[:, None] * [1, 0, -1])
    return _uint8(lambda block, gain: block * gain[:, None, None], images, gain)


def ramp(plain: datasets.Benchmark, *, seed: int) -> datasets.Benchmark:
    """Brighten one side of the images and darken the opposite one, in ten directions."""
    return biased(plain, _shade, name="cifar10-ramp", seed=seed)


def _shade(rng, images, attributes, *, strength=0.3):
    y, x = (2 * grid - 1 for grid in _unit_grid(images))
    angle = (2 * np.pi * np.arange(10) / 10)[:, None, None]
    shades = 1 + strength * (np.cos(angle) * x + np.sin(angle) * y)
    return _uint8(lambda block, a: block * shades[a][..., None], images, attributes)


def blur(plain: datasets.Benchmark, *, seed: int) -> datasets.Benchmark:
    """Blur images by one of five widths; classes c and c + 5 share a width."""
    aligned = tuple(i % 5 for i in range(10))
    return biased(plain, _smooth, name="cifar10-blur", seed=seed, aligned=aligned)


def _smooth(rng, images, attributes, *, widths=(0.0, 0.45, 0.65, 0.9, 1.3)):
    smooth = np.empty_like(images)
    for attribute, width in enumerate(widths):
        rows = attributes == attribute
        filtered = ndimage.gaussian_filter(images[rows].astype(np.float32), (0, width, width, 0))
        smooth[rows] = np.rint(filtered)
    return smooth


def frame(plain: datasets.Benchmark, *, seed: int) -> datasets.Benchmark:
    """Draw a frame of two pixels with one of ten grey levels."""
    return biased(plain, _frame, name="fmnist-frame", seed=seed)


def _frame(rng, images, attributes):
    images, edge = images.copy(), [0, 1, -2, -1]
    level = (attributes * 255 // 9).astype(np.uint8)[:, None, None, None]
    images[:, edge], images[:, :, edge] = level, level
    return images


def stripes(plain: datasets.Benchmark, *, seed: int) -> datasets.Benchmark:
    """Add weak stripes with one of ten orientations, six pixels apart, with a random phase."""
    return biased(plain, _stripe, name="mnist-stripes", seed=seed)


def _stripe(rng, images, attributes, *, level=48, period=6):
    y, x = (
        grid * (side - 1) for grid, side in zip(_unit_grid(images), images.shape[1:3], strict=True)
    )
    angle = (np.pi * np.arange(10) / 10)[:, None, None]
    across = np.cos(angle) * x + np.sin(angle) * y

    def draw(block, attribute, phase):
        distance = (across[attribute] + phase[:, None, None]) % period - period / 2
        return block + level * np.maximum(0, 1 - np.abs(distance))[..., None]

    return _uint8(draw, images, attributes, rng.uniform(0, period, len(images)))


def turns(plain: datasets.Benchmark, *, seed: int) -> datasets.Benchmark:
    """Rotate clothes by quarter turns, independently of the class."""
    draw = lambda rng, images, attributes: np.array(rendering.rotate(images, attributes))
    aligned = tuple(i % 4 for i in range(10))
    return biased(plain, draw, name="fmnist-turns", seed=seed, conflict=0.75, aligned=aligned)


def next_color(plain: datasets.Benchmark, *, seed: int) -> datasets.Benchmark:
    """Colour digits; conflicting samples of class c all have the colour of class c + 1."""
    return biased(plain, _tint, name="cmnist-next", seed=seed, concentrated=True)


def _tint(rng, images, attributes):
    key = jax.random.key(rng.integers(2**31), impl="threefry2x32")
    return np.array(jax.jit(rendering.tint)(key, images, attributes))


def two_tones(plain: datasets.Benchmark, *, seed: int, side: int = 64) -> datasets.Benchmark:
    """Make warm dresses and cold coats at 64 pixels; 96 of 12,000 have the other tone."""
    resize = lambda image: np.asarray(Image.fromarray(image[..., 0]).resize((side, side)))

    def draw(rng, images, attributes):
        color = np.clip(
            np.array(_TWO_TONES)[attributes] + rng.normal(0, 12, (len(images), 3)), 0, 255
        )
        large = np.stack([resize(image) for image in images])[..., None]
        return _uint8(lambda block, color: block * color[:, None, None] / 255, large, color)

    clothes = keep_classes(plain, (3, 4), seed=seed)
    return biased(clothes, draw, name="fmnist-tones", seed=seed, conflict=0.008)


def exchange(data: datasets.Benchmark, *, seed: int) -> datasets.Benchmark:
    """Exchange classes and attributes, so that the colour is the class and the digit the bias."""
    parts = (datasets.Dataset(x.images, x.attributes, x.labels) for x in (data.train, data.test))
    return _like(data._replace(class_names=data.attribute_names), *parts, f"{data.name}-exchanged")


def _unit_grid(images):
    """Return rows and columns of the pixels of images, from 0 to 1, `[2, h, w]`."""
    return np.stack(np.meshgrid(*(np.linspace(0, 1, n) for n in images.shape[1:3]), indexing="ij"))


def _uint8(change, images, *arguments, rows=1000):
    """Apply `change` to blocks of images and arguments; round and clip the result to uint8."""
    blocks = (
        change(images[i : i + rows], *(a[i : i + rows] for a in arguments))
        for i in range(0, len(images), rows)
    )
    return np.concatenate([np.clip(np.rint(block), 0, 255).astype(np.uint8) for block in blocks])


# --- other samples -----------------------------------------------------------------------------


def keep_classes(
    data: datasets.Benchmark, classes: Sequence[int], *, counts: Sequence[int] = (), seed: int
) -> datasets.Benchmark:
    """Keep some classes, and a number of training samples of each. Defaults to all samples."""
    train, test = data.train, data.test
    chosen = _by_class(train.labels, classes, counts or [len(train.labels)] * len(classes), seed)
    parts = (
        datasets.select(part, rows)._replace(labels=np.searchsorted(classes, part.labels[rows]))
        for part, rows in ((train, chosen), (test, np.isin(test.labels, classes)))
    )
    names = tuple(data.class_names[k] for k in classes)
    return _like(data._replace(num_classes=len(classes), class_names=names), *parts, data.name)


def long_tailed(data: datasets.Benchmark, *, seed: int, ratio: float = 20) -> datasets.Benchmark:
    """Make the sizes of the training classes fall geometrically to 1 / ratio of the first."""
    k, labels = data.num_classes, data.train.labels
    shares = ratio ** -(np.arange(k) / (k - 1))
    counts = np.rint(np.bincount(labels, minlength=k) * shares).astype(int)
    chosen = _by_class(labels, range(k), counts, seed)
    return data._replace(train=datasets.select(data.train, chosen))


def subsample(data: datasets.Benchmark, *, seed: int, samples: int) -> datasets.Benchmark:
    """Keep an equal share of the training samples of each class, at most `samples` in all."""
    labels = data.train.labels
    counts = np.bincount(labels) * samples // len(labels)
    chosen = _by_class(labels, range(data.num_classes), counts, seed)
    return data._replace(train=datasets.select(data.train, chosen))


def _by_class(labels, classes, counts, seed):
    """Return the sorted rows of random samples, `counts` of each class."""
    order = np.random.default_rng(seed).permutation(len(labels))
    members = (order[labels[order] == k][:count] for k, count in zip(classes, counts, strict=True))
    return np.sort(np.concatenate(list(members)))


# --- faces -------------------------------------------------------------------------------------


def faces(folder: pathlib.Path, *, seed: int, side: int = 32) -> datasets.Benchmark:
    """Read the faces in which gender goes with age with the folder reader.

    Args:
        folder: folder of the faces, with the program `unpack`.
        seed: not used, because the folder has a test set.
        side: height and width in pixels.
    """
    target = files.CACHE.expanduser() / "experiments" / f"faces-{side}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
            whole = pathlib.Path(temporary, "whole")
            subprocess.run([sys.executable, folder / "unpack", whole, str(side)], check=True)
            os.replace(whole, target)
    return datasets.from_folder(
        folders.read(target, resize=side), strategy=augment.OPERATIONS, name="faces", seed=seed
    )


def equal_faces(folder: pathlib.Path, *, seed: int, side: int = 32) -> datasets.Benchmark:
    """Read as many young as old faces of either gender; 200 of each group are for testing."""
    with open(folder / "faces.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    age = np.array([int(row["age"]) for row in rows])
    attributes = np.array([row["gender"] == "woman" for row in rows], np.int32)
    labels = np.where((age >= 10) & (age <= 29), 0, np.where((age >= 45) & (age <= 74), 1, -1))
    groups = np.where(labels < 0, -1, 2 * labels + attributes)
    size = np.bincount(groups[groups >= 0]).min()
    order = np.random.default_rng(seed).permutation(len(rows))
    members = [order[groups[order] == group][:size] for group in range(4)]
    sheets = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.webp"))]
    images = np.concatenate([_cut(sheet) for sheet in sheets])

    def part(rows):
        chosen = np.sort(np.concatenate([group[rows] for group in members]))
        small = [
            Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)
            for image in images[chosen]
        ]
        return datasets.Dataset(np.stack(small), labels[chosen], attributes[chosen])

    test, train = part(slice(200)), part(slice(200, None))
    data = datasets.from_arrays(*train, test=test, strategy=augment.OPERATIONS, name="equal-faces")
    return data._replace(class_names=("young", "old"), attribute_names=("man", "woman"))


def _cut(sheet, *, side=64):
    """Cut a sheet of images, row by row, into `[n, side, side, 3]`."""
    down, across = sheet.shape[0] // side, sheet.shape[1] // side
    cells = sheet.reshape(down, side, across, side, 3).transpose(0, 2, 1, 3, 4)
    return cells.reshape(-1, side, side, 3)
