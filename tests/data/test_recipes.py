"""Biased benchmarks follow their recipe, on small stand-ins for the original files."""

import functools
import hashlib

import numpy as np
import pytest
from PIL import Image

from jaxdd.data import archives, benchmarks, citations, recipes, rendering


def digest(benchmark):
    arrays = [a for d in (benchmark.train, benchmark.test) for a in d if a is not None]
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()


def test_sources_have_as_many_names_as_classes():
    counts = {name: len(set(source.classes)) for name, source in recipes.SOURCES.items()}
    assert counts == dict.fromkeys(counts, 10) | {"cifar100": 100}


@pytest.mark.parametrize("name", benchmarks.NAMES)
def test_every_benchmark_has_a_description_and_citations(name):
    assert all(benchmarks.describe(name))
    assert citations.BIBTEX.keys() >= {*benchmarks.describe(name).citations}


def test_images_show_the_colour_of_their_attribute():
    """The brightest pixel, scaled to white, is nearest to the mean colour of its attribute."""
    grey, coloured = benchmarks.load("digits"), benchmarks.load("cdigits")
    for shown, plain in ((coloured.train, grey.train), (coloured.test, grey.test)):
        assert (shown.labels == plain.labels).all()
        flat = plain.images.reshape(len(plain.images), -1)
        brightest = shown.images.reshape(len(flat), -1, 3)[np.arange(len(flat)), flat.argmax(1)]
        color = brightest / flat.max(1, keepdims=True)
        distance = np.abs(color[:, None] - np.array(rendering.LFF_COLORS) / 255).sum(-1)
        assert (distance.argmin(1) == shown.attributes).all()


def test_solid_colours(small):
    """FG is coloured where the grey image is at least 128 and black elsewhere; BG is reversed."""
    folder, arrays = small
    bright = np.pad(arrays[archives._TRAIN[0]], ((0, 0), (2, 2), (2, 2)))[..., None] >= 128
    for name, mask in (("cmnist-fg", bright), ("cmnist-bg", ~bright)):
        data = benchmarks.load(name, data_dir=folder, conflict=0.25)
        color = np.array(rendering.SOLID_COLORS)[data.train.attributes][:, None, None]
        assert (data.train.images == np.where(mask, color, 0)).all()
        # Four images per class, of which one conflicts.
        assert (data.train.attributes != data.train.labels).sum() == 10
        assert data.name == name and data.mean == (0.5, 0.5, 0.5)
        data.train.images[0] = 0  # arrays can be written to


@pytest.mark.parametrize(
    "name, render, background",
    [
        ("cfmnist-fg", rendering.shade, False),
        ("cfmnist-bg", rendering.shade, True),
        ("cfmnist-solid", rendering.paint, False),
        ("cfmnist-solid-bg", rendering.paint, True),
    ],
)
def test_clothes_are_shaded_or_solid(clothes, name, render, background):
    """Attributes equal those of digits with the same seed: they do not depend on the name."""
    grey = benchmarks.load("fashion_mnist", data_dir=clothes).train.images
    digits, shown = (benchmarks.load(n, data_dir=clothes).train for n in ("cmnist-fg", name))
    assert (shown.attributes == digits.attributes).all()
    assert (shown.images == render(grey, shown.attributes, background=background)).all()


@pytest.fixture
def small_chunks(monkeypatch):
    """Corrupt 32 images at a time, because small sets are padded to the size of a chunk."""
    recipe = recipes.RECIPES["ccifar10"]
    render = functools.partial(recipe.render, chunk=32)
    monkeypatch.setitem(recipes.RECIPES, "ccifar10", recipe._replace(render=render))


def test_corrupted_cifar10_shows_the_corruption_of_its_attribute(cifar, small_chunks):
    """Contrast and pixelation by hand, because they are not random."""
    plain = benchmarks.load("cifar10", data_dir=cifar)
    data = benchmarks.load("ccifar10", data_dir=cifar, conflict=0.2, severity=2)
    assert data.attribute_names[:4] == ("snow", "frost", "fog", "brightness")
    assert (data.train.labels == plain.train.labels).all()
    assert (data.train.attributes != data.train.labels).sum() == 60  # 20 % of 30 in each class
    for old, new in ((plain.train, data.train), (plain.test, data.test)):
        dull = new.attributes == 4
        levels = old.images[dull].astype(float)
        mean = levels.mean((1, 2), keepdims=True)
        # Half a level is rounded up even if float arithmetic gives slightly less.
        assert (new.images[dull] == np.floor((levels - mean) * 0.4 + mean + 0.5 + 1e-9)).all()
        coarse = new.images[new.attributes == 8].astype(int)
        assert len(np.unique(coarse[0].reshape(-1, 3), axis=0)) == int(32 * 0.85) ** 2
    assert data.mean == plain.mean


def test_frost_from_photographs(cifar, small_chunks, tmp_path):
    """With a uniformly blue photograph, pixels are .9 of the image plus .4 of the photograph."""
    folder = tmp_path / "frost"
    folder.mkdir()
    Image.new("RGB", (200, 175), (0, 0, 255)).save(folder / "window.png")
    plain = benchmarks.load("cifar10", data_dir=cifar)
    options = dict(data_dir=cifar, conflict=0.0, severity=2)
    data = benchmarks.load("ccifar10", frost=folder, **options)
    frosted = data.train.attributes == 1
    expected = plain.train.images[frosted] * 0.9 + np.array([0, 0, 0.4 * 255])
    assert (np.abs(data.train.images[frosted] - np.minimum(expected, 255)) <= 0.5 + 1e-6).all()
    drawn = benchmarks.load("ccifar10", **options)
    assert (drawn.train.images[~frosted] == data.train.images[~frosted]).all()
    assert (drawn.train.images[frosted] != data.train.images[frosted]).any()
    Image.new("L", (159, 175)).save(folder / "small.png")
    with pytest.raises(ValueError, match=r"small.png.*\(159, 175\)"):
        benchmarks.load("ccifar10", frost=folder, **options)
    noise = np.random.default_rng(0).integers(0, 256, (163, 171, 3), np.uint8)
    Image.fromarray(noise).save(folder / "small.png")
    every_fifth = benchmarks._photographs(folder)[0]  # cut to the size of the other
    assert every_fifth.shape == (33, 34, 3) and (every_fifth == noise[2::5, 2::5]).all()
    (folder / "small.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="small.png does not decode"):
        benchmarks.load("ccifar10", frost=folder, **options)
    with pytest.raises(FileNotFoundError, match="photographs"):
        benchmarks.load("ccifar10", frost=cifar, data_dir=cifar)


def test_cifar10_s(cifar):
    """3 of 30 images of a class conflict; the test set contains every image twice."""
    plain = benchmarks.load("cifar10", data_dir=cifar)
    data = benchmarks.load("cifar10-s", data_dir=cifar)
    assert (data.aligned, data.num_attributes) == ((0,) * 5 + (1,) * 5, 2)
    colour = data.train.attributes == 1
    assert np.bincount(data.train.labels[colour], minlength=10).tolist() == [3] * 5 + [27] * 5
    assert (data.train.images[colour] == plain.train.images[colour]).all()
    luma = plain.train.images[~colour] @ np.array([0.299, 0.587, 0.114])
    assert (np.abs(data.train.images[~colour] - luma[..., None]) <= 0.5 + 1e-2).all()
    assert len(data.test.labels) == 120 and data.test.attributes.tolist() == [0] * 60 + [1] * 60
    assert (data.test.images[60:] == plain.test.images).all()
    conflicting = benchmarks.load("cifar10-s", data_dir=cifar, test="conflicting")
    assert (conflicting.test.attributes == (plain.test.labels < 5)).all()


def test_two_biases_are_drawn_independently(cifar):
    """For each factor, 3 of the 30 images of a class conflict; images show both factors."""
    plain = benchmarks.load("cifar10", data_dir=cifar)
    data = benchmarks.load("cifar10-two", data_dir=cifar, conflict=0.1)
    train, labels = data.train, data.train.labels
    assert data.aligned == tuple(10 * (k >= 5) + k for k in range(10))
    assert data.attribute_names[13] == "colour, 3"
    halves, places = np.divmod(train.attributes, 10)
    for conflicts in (halves != (labels >= 5), places != labels):
        assert np.bincount(labels[conflicts], minlength=10).tolist() == [3] * 10
    luma = plain.train.images @ np.array([0.299, 0.587, 0.114])
    is_luma = np.abs(train.images - luma[..., None]).max(-1) <= 0.51
    grey = halves == 0
    # All pixels except those of the mark, which is coloured.
    assert (is_luma[grey].mean((1, 2)) == 1 - 16 / 1024).all()
    assert (train.images[~grey] != plain.train.images[~grey]).any(-1).sum((1, 2)).max() <= 16
    biased = benchmarks.load("cifar10-two", data_dir=cifar, test="conflicting").test
    halves, places = np.divmod(biased.attributes, 10)
    assert (places != biased.labels).all() and (halves != (biased.labels >= 5)).all()


def test_clothes_are_in_front_of_a_scene_of_their_attribute(clothes):
    """The top row is padding, so it shows the scene: a training image of category a."""
    scenes = benchmarks.load("cifar10", data_dir=clothes)
    data = benchmarks.load("bgfmnist", data_dir=clothes, conflict=0.25)
    for part, behind in ((data.train, scenes.train), (data.test, scenes.test)):
        category = {i[0].tobytes(): label for i, label in zip(*behind[:2], strict=True)}
        assert [category[image[0].tobytes()] for image in part.images] == part.attributes.tolist()
    inverted = scenes._replace(train=scenes.train._replace(images=255 - scenes.train.images))
    other = benchmarks.load("bgfmnist", data_dir=clothes, conflict=0.25, scenes=inverted)
    assert (other.train.images[:, 0] == 255 - data.train.images[:, 0]).all()
    with pytest.raises(ValueError, match=r"\(32, 32, 3\).*\(16, 16, 1\)"):
        benchmarks.load("bgfmnist", data_dir=clothes, scenes=benchmarks.load("digits"))


def test_few_scenes_are_shared_by_training_and_test_set(clothes):
    """The top row shows one of the first five training images of category a."""
    scenes = benchmarks.load("cifar10", data_dir=clothes)
    data = benchmarks.load("bgfmnist-few", data_dir=clothes, conflict=0.25)
    category = {}
    for k in range(10):
        rows = np.flatnonzero(scenes.train.labels == k)[:5]
        category |= {scenes.train.images[row, 0].tobytes(): k for row in rows}
    for part in (data.train, data.test):
        shown = [image[0].tobytes() for image in part.images]
        assert [category[row] for row in shown] == part.attributes.tolist()
        assert 20 < len(set(shown)) < 40
    inverted = scenes._replace(train=scenes.train._replace(images=255 - scenes.train.images))
    other = benchmarks.load("bgfmnist-few", data_dir=clothes, conflict=0.25, scenes=inverted)
    assert (other.test.images[:, 0] == 255 - data.test.images[:, 0]).all()


def test_coloured_clothes_in_front_of_scenes(clothes):
    """Pixels of level 64 and above are opaque and have the value level × colour."""
    grey = benchmarks.load("fashion_mnist", data_dir=clothes).train
    data = benchmarks.load("cbgfmnist", data_dir=clothes, conflict=0.25).train
    colours = set()
    for image, cloth in zip(data.images, grey.images[..., 0], strict=True):
        brightest = np.unravel_index(cloth.argmax(), cloth.shape)
        colour = np.rint(image[brightest] * (255 / cloth[brightest]))
        opaque = cloth >= 64
        assert np.abs(image[opaque] - cloth[opaque, None] * (colour / 255)).max() <= 1
        colours.add(tuple(colour.tolist()))
    assert len(colours) > 5


@pytest.mark.parametrize("name", ["cmnist-pairs", "fmnist-scale"])
def test_two_classes_share_one_of_five_values(clothes, name):
    """One of four images of a class conflicts; the test set has each value equally often."""
    data = benchmarks.load(name, data_dir=clothes, conflict=0.25)
    assert data.aligned == (0, 1, 2, 3, 4) * 2 and data.num_attributes == 5
    conflicts = data.train.attributes != data.train.labels % 5
    assert np.bincount(data.train.labels[conflicts], minlength=10).tolist() == [1] * 10
    groups = benchmarks.group_counts(data, data.test)
    assert groups.max() == 1 and groups.sum(1).tolist() == [4] * 10


def test_pairs_sizes_and_patterns(clothes):
    """Attributes are pairs of colours, sizes, or patterns that darken half of the pixels."""
    pairs = benchmarks.load("cmnist-pairs", data_dir=clothes).train
    brightest = pairs.images.reshape(40, -1, 3).max(1).astype(int)
    distance = np.abs(brightest[:, None] - rendering.LFF_COLORS).sum(-1)
    assert (distance.argmin(1) % 5 == pairs.attributes).all()
    sizes = benchmarks.load("fmnist-scale", data_dir=clothes).train
    height = sizes.images.any((2, 3)).sum(1)  # padded by a sixteenth on either side
    assert (np.abs(height - 3.5 * (4 + sizes.attributes)) < 2).all()
    grey = benchmarks.load("fashion_mnist", data_dir=clothes).train.images
    patterns = benchmarks.load("fmnist-texture", data_dir=clothes).train.images
    assert (patterns == grey // 4)[grey[..., 0] > 0].mean() == pytest.approx(0.5, abs=0.02)
    assert ((patterns == grey // 4) | (patterns == grey)).all()


DIGESTS = {
    "cfmnist-bg": "6d1963946173c8f4950471db5514de929126a68da09db39b25ce4d0edb2f46ec",
    "cfmnist-solid-bg": "e44aa14a5db8e62d43035e4ce959251b3bdb817d026b8c1ae5e96340b6d178d8",
    "cmnist-pairs": "617b160179498215db75cf51ed99dd277a629dbe15801226774610cca67347cd",
    "bgfmnist-few": "d68b72217991b3c0a45b0afff32f8bed4560a1663e50e0c9f6ed2d8bb1a25c8a",
    "cbgfmnist": "d5bd30573173df8b28d71dd49339f8920280c5b9e157328f8f2df079766e2c40",
    "fmnist-scale": "3cf8978a19bbb2b81d8743f4d6d29638f965e16940e2ef4a0e89b3bf238c8033",
    "fmnist-texture": "baa10a7fbd08b6e35c0df2b770c5b84ddad1cd71744a02fa74933f6fd771bf97",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_bytes_are_the_same_everywhere(clothes, name):
    """Recorded with JAX 0.10 on Python 3.11; JAX 0.12 on Python 3.13 gives the same."""
    assert digest(benchmarks.load(name, data_dir=clothes)) == DIGESTS[name]


def test_dd_benchmarks_are_the_same_at_fixed_ratios(small):
    folder, _ = small
    options = dict(data_dir=folder, conflict=0.5, severity=1)
    data = benchmarks.load("cmnist-dd", **options)
    assert data.name == "cmnist-dd"
    assert digest(data) == digest(benchmarks.load("cmnist", **options))
