"""Benchmarks hold what they promise, files are checked, and bad input is told what is wrong.

No test touches the network: the downloader is replaced, or asks a server on this machine. Tests
on the original MNIST skip where ../shared/data is absent.
"""

import errno
import functools
import gzip
import hashlib
import http.server
import io
import os
import pathlib
import pickle
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time

import numpy as np
import pooch
import pytest
import requests
from PIL import Image
from scipy import stats

from jaxdd import augment
from jaxdd.data import archives, benchmarks, bias, datasets, files

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
needs_originals = pytest.mark.skipif(
    not (SHARED / "mnist").is_dir(), reason=f"the original files are not in {SHARED}"
)
fetch = pooch.HTTPDownloader.__call__


def unreachable(*_, **__):
    raise requests.ConnectionError("no network")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network, and an empty cache."""
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", unreachable)
    monkeypatch.setattr(files, "CACHE", tmp_path / "cache")


def idx(array):
    """The idx file of a uint8 array, gzipped."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return gzip.compress(header + array.tobytes(), mtime=0)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A folder with twice 40 made-up images in MNIST's files, whose md5 sums are registered."""
    rng = np.random.default_rng(0)
    arrays = {}
    for images, labels in (archives.TRAIN, archives.TEST):
        arrays[images] = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8)
        arrays[labels] = rng.permutation(np.arange(40, dtype=np.uint8) % 10)
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    md5 = {}
    for file, array in arrays.items():
        content = idx(array)
        md5[file] = hashlib.md5(content).hexdigest()
        (folder / file).write_bytes(content)
    archive = archives.ARCHIVES["mnist"]._replace(md5=md5)
    monkeypatch.setitem(archives.ARCHIVES, "mnist", archive)
    return folder, arrays


@pytest.fixture(scope="module")
def cdigits():
    return benchmarks.load("cdigits")


def digest(benchmark):
    arrays = [a for d in (benchmark.train, benchmark.test) for a in d if a is not None]
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()


# ------------------------------------------------------------------ benchmarks by name


def test_digits_are_split_once_and_for_all():
    """1,797 = 1,437 + 360; each class sends a fifth of its 174 to 183 images: 34.8..36.6."""
    found = benchmarks.digits()
    assert found.train.images.shape == (1437, 16, 16, 1) and found.train.images.dtype == np.uint8
    assert found.test.images.shape == (360, 16, 16, 1) and found.test.labels.dtype == np.int32
    assert set(np.bincount(found.test.labels).tolist()) <= {34, 35, 36, 37}
    assert found.train.images.max() == 255 and found.train.images.min() == 0
    assert (found.num_attributes, found.aligned, found.train.attributes) == (0, None, None)
    scaled = found.train.images / 255
    assert found.mean + found.std == pytest.approx((scaled.mean(), scaled.std()))
    assert "flip" not in found.strategy


def test_digits_at_their_own_size_are_the_levels_of_scikit_learn():
    """At 8x8 nothing is interpolated: level v of 16 becomes round(v·255/16)."""
    from sklearn.datasets import load_digits

    expected = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    found = benchmarks.digits(size=8)
    images = np.concatenate([found.train.images, found.test.images])[..., 0]
    key = functools.partial(np.ndarray.tobytes)
    assert sorted(map(key, images)) == sorted(map(key, expected))
    with pytest.raises(ValueError, match="size must lie in 1..4096, found 0"):
        benchmarks.digits(size=0)


def test_coloured_digits_have_exact_counts(cdigits):
    """Train: round(n_k/10) conflict, evenly over nine. Test: every colour n_k/10 within one."""
    for data, share in ((cdigits.train, 0.1), (cdigits.test, 0.9)):
        assert data.images.shape[1:] == (16, 16, 3) and data.images.dtype == np.uint8
        for k in range(10):
            counts = np.bincount(data.attributes[data.labels == k], minlength=10)
            others = np.delete(counts, k)
            assert others.sum() == round(counts.sum() * share)
            assert others.max() - others.min() <= 1
    assert (cdigits.num_attributes, cdigits.aligned) == (10, tuple(range(10)))
    assert cdigits.mean == cdigits.std == (0.5, 0.5, 0.5)


def test_test_colours_say_nothing_about_the_class(cdigits):
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (cdigits.test.labels, cdigits.test.attributes), 1)
    assert stats.chi2_contingency(counts).pvalue > 0.01
    np.add.at(counts, (cdigits.train.labels, cdigits.train.attributes), 1)
    assert stats.chi2_contingency(counts).pvalue < 1e-9


def test_images_show_the_colour_of_their_attribute(cdigits):
    """The brightest pixel, brought to white: its own mean colour is the nearest of the ten."""
    grey = benchmarks.digits()
    for coloured, plain in ((cdigits.train, grey.train), (cdigits.test, grey.test)):
        assert (coloured.labels == plain.labels).all()
        flat = plain.images.reshape(len(plain.images), -1)
        brightest = coloured.images.reshape(len(flat), -1, 3)[np.arange(len(flat)), flat.argmax(1)]
        color = brightest / flat.max(1, keepdims=True)
        distance = np.abs(color[:, None] - np.array(bias.LFF_COLORS) / 255).sum(-1)
        assert (distance.argmin(1) == coloured.attributes).all()


def test_one_seed_gives_the_same_bytes_everywhere(cdigits):
    """Written down from jax 0.10 on Python 3.11, met by jax 0.12 on Python 3.13."""
    assert digest(cdigits) == "6abf223b389a41206ea9824faf4a78e45550b73569a1575328029a787eca911c"
    other = benchmarks.load("cdigits", seed=1)
    assert (other.train.attributes != cdigits.train.attributes).any()
    assert (other.test.attributes != cdigits.test.attributes).any()
    assert (other.train.labels == cdigits.train.labels).all()


def test_the_test_set_does_not_depend_on_the_conflict(cdigits):
    other = benchmarks.load("cdigits", conflict=0.5)
    assert (other.test.images == cdigits.test.images).all()
    assert (other.train.attributes != other.train.labels).mean() == pytest.approx(0.5, abs=0.01)


def test_shades_vary_with_severity_only_where_there_are_shades(small):
    folder, _ = small
    load = functools.partial(benchmarks.load, data_dir=folder)
    weak, strong = load("cmnist", severity=4), load("cmnist", severity=1)
    assert (weak.train.attributes == strong.train.attributes).all()
    assert (weak.train.images != strong.train.images).any()


def test_solid_colours_on_generated_files(small):
    """FG has its colour where the grey image is 128 or more and black elsewhere; BG the reverse."""
    folder, arrays = small
    bright = np.pad(arrays[archives.TRAIN[0]], ((0, 0), (2, 2), (2, 2)))[..., None] >= 128
    for name, mask in (("cmnist-fg", bright), ("cmnist-bg", ~bright)):
        found = benchmarks.load(name, data_dir=folder, conflict=0.25)
        color = np.array(bias.SOLID_COLORS)[found.train.attributes][:, None, None]
        assert (found.train.images == np.where(mask, color, 0)).all()
        # Four images per class, of which one conflicts.
        assert (found.train.attributes != found.train.labels).sum() == 10
        assert found.name == name and found.mean == (0.5, 0.5, 0.5)
        found.train.images[0] = 0  # arrays are the caller's to change


@pytest.mark.parametrize("layout", ["data_dir/mnist", "data_dir"])
@pytest.mark.parametrize("placement, start", [("centre", 2), ("corner", 4)])
def test_mnist_is_read_and_padded(small, layout, placement, start):
    folder, arrays = small
    data_dir = folder.parent if layout == "data_dir/mnist" else str(folder)
    found = benchmarks.load("mnist", data_dir=data_dir, placement=placement)
    for data, (images, labels) in ((found.train, archives.TRAIN), (found.test, archives.TEST)):
        inner = data.images[:, start : start + 28, start : start + 28, 0]
        assert (inner == arrays[images]).all()
        assert data.images.shape[1:] == (32, 32, 1)
        assert data.images.sum(dtype=int) == arrays[images].sum(dtype=int)
        assert (data.labels == arrays[labels]).all() and data.labels.dtype == np.int32
    assert (found.mean, found.std) == ((0.1307,), (0.3081,)) and "flip" not in found.strategy


@needs_originals
def test_original_mnist():
    """Mean and deviation of the unpadded images are the literature's; it begins with 5 0 4 1 9."""
    found = benchmarks.load("mnist", data_dir=SHARED)
    inner = found.train.images[:, 2:30, 2:30] / np.float32(255)
    assert inner.mean(dtype=float) == pytest.approx(found.mean[0], abs=5e-5)
    assert inner.std(dtype=float) == pytest.approx(found.std[0], abs=5e-5)
    assert found.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert len(found.train.labels) == 60_000 and len(found.test.labels) == 10_000


@needs_originals
def test_original_fashion_mnist_is_not_mnist():
    found = benchmarks.load("fashion_mnist", data_dir=SHARED)
    inner = found.train.images[:, 2:30, 2:30] / np.float32(255)
    assert inner.mean(dtype=float) == pytest.approx(found.mean[0], abs=1e-4)
    assert inner.std(dtype=float) == pytest.approx(found.std[0], abs=1e-4)
    assert np.bincount(found.train.labels).tolist() == [6000] * 10
    assert "flip" in found.strategy
    with pytest.raises(ValueError, match="train-images.*8d4fb7e6"):
        benchmarks.load("fashion_mnist", data_dir=SHARED / "mnist")


@needs_originals
def test_original_coloured_mnist():
    """5 % of 60,000, within rounding in each class, and the bytes of both stacks."""
    found = benchmarks.load("cmnist", data_dir=SHARED)
    assert (found.train.attributes != found.train.labels).sum() == pytest.approx(3000, abs=5)
    assert digest(found) == "30a4a18c4b85f82b29c4961dd363cdc84ceb72c7d9727a24503c8805d36733ff"


# ------------------------------------------------------------------ CIFAR-10 and what is made of it


@pytest.fixture
def cifar(monkeypatch, tmp_path):
    """A data_dir with a made-up CIFAR-10: six batches of 60 images in the binary format."""
    monkeypatch.setattr(archives, "_CIFAR10_BYTES", 60 * 3073)
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name in archives._CIFAR10_BATCHES:
        records = rng.integers(0, 256, (60, 3073), dtype=np.uint8)
        records[:, 0] = rng.permutation(60) % 10
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return tmp_path / "data"


def packed(cifar, monkeypatch, kind):
    """The same batches in the binary or the Python archive; the folder is gone."""
    folder = cifar / "cifar10" / "cifar-10-batches-bin"
    path = cifar / "cifar10" / f"cifar-10-{kind}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in archives._CIFAR10_BATCHES:
            content, member = (folder / f"{name}.bin").read_bytes(), f"{folder.name}/{name}.bin"
            if kind == "python":
                records = np.frombuffer(content, np.uint8).reshape(-1, 3073)
                batch = {b"data": records[:, 1:], b"labels": records[:, 0].tolist()}
                content, member = pickle.dumps(batch), f"cifar-10-batches-py/{name}"
            information = tarfile.TarInfo(member)
            information.size = len(content)
            archive.addfile(information, io.BytesIO(content))
    shutil.rmtree(folder)
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    if kind == "python":
        monkeypatch.setattr(archives, "_CIFAR10_PYTHON", (path.name, md5))
    else:
        archive = archives.ARCHIVES["cifar10"]._replace(md5={path.name: md5})
        monkeypatch.setitem(archives.ARCHIVES, "cifar10", archive)
    return path


def test_cifar10_from_the_binary_folder(cifar):
    """A record is the label, then 1,024 red, green and blue levels, row by row."""
    found = benchmarks.load("cifar10", data_dir=cifar)
    assert found.train.images.shape == (300, 32, 32, 3) and found.test.labels.shape == (60,)
    content = (cifar / "cifar10" / "cifar-10-batches-bin" / "data_batch_2.bin").read_bytes()
    record = content[3073 * 7 : 3073 * 8]
    assert found.train.labels[67] == record[0]
    for channel, row, column in ((0, 0, 0), (1, 5, 30), (2, 31, 2)):
        level = record[1 + 1024 * channel + 32 * row + column]
        assert found.train.images[67, row, column, channel] == level
    assert (found.num_attributes, found.class_names[3], "flip" in found.strategy) == (
        0,
        "cat",
        True,
    )


@pytest.mark.parametrize("kind", ["binary", "python"])
def test_cifar10_from_an_archive(cifar, monkeypatch, kind):
    expected = digest(benchmarks.load("cifar10", data_dir=cifar))
    path = packed(cifar, monkeypatch, kind)
    assert digest(benchmarks.load("cifar10", data_dir=cifar)) == expected
    assert digest(benchmarks.load("cifar10", data_dir=path.parent)) == expected
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{path} is not the original file"):
        benchmarks.load("cifar10", data_dir=cifar)


def test_cifar10_refuses_what_is_not_cifar10(cifar):
    folder = cifar / "cifar10" / "cifar-10-batches-bin"
    path = folder / "data_batch_3.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(
        ValueError, match=r"data_batch_3.bin must have 184,380 bytes, found 184,379"
    ):
        benchmarks.load("cifar10", data_dir=cifar)
    path.write_bytes(b"\x0a" + content[1:])
    with pytest.raises(ValueError, match=r"labels in 0..9, found 10"):
        benchmarks.load("cifar10", data_dir=cifar)
    path.unlink()
    (folder / "data_batch_1.bin").unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_1.bin not found in"):
        benchmarks.load("ccifar10", data_dir=cifar)
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError, match="cifar10: cifar-10-binary.tar.gz not found in"):
        benchmarks.load("cifar10", data_dir=cifar)


def test_corrupted_cifar10_shows_the_corruption_of_its_attribute(cifar):
    """Contrast and pixelation by hand: they need no key, and follow from image and severity."""
    plain = benchmarks.load("cifar10", data_dir=cifar)
    found = benchmarks.load("ccifar10", data_dir=cifar, conflict=0.2, severity=2)
    assert found.attribute_names[:4] == ("snow", "frost", "fog", "brightness")
    assert (found.train.labels == plain.train.labels).all()
    assert (found.train.attributes != found.train.labels).sum() == 60  # 20 % of 30 in each class
    for old, new in ((plain.train, found.train), (plain.test, found.test)):
        dull = new.attributes == 4
        levels = old.images[dull].astype(float)
        mean = levels.mean((1, 2), keepdims=True)
        # Half a level is rounded up even where floats fall short of it.
        assert (new.images[dull] == np.floor((levels - mean) * 0.4 + mean + 0.5 + 1e-9)).all()
        coarse = new.images[new.attributes == 8].astype(int)
        assert len(np.unique(coarse[0].reshape(-1, 3), axis=0)) == int(32 * 0.85) ** 2
    assert found.mean == plain.mean


def test_frost_of_photographs(cifar, tmp_path):
    """A uniformly blue photograph, at a fifth of its size: .4 of it, and .9 of the image."""
    folder = tmp_path / "frost"
    folder.mkdir()
    Image.new("RGB", (200, 175), (0, 0, 255)).save(folder / "window.png")
    plain = benchmarks.load("cifar10", data_dir=cifar)
    options = dict(data_dir=cifar, conflict=0.0, severity=2)
    found = benchmarks.load("ccifar10", frost=folder, **options)
    frosted = found.train.attributes == 1
    expected = plain.train.images[frosted] * 0.9 + np.array([0, 0, 0.4 * 255])
    assert (np.abs(found.train.images[frosted] - np.minimum(expected, 255)) <= 0.5 + 1e-6).all()
    drawn = benchmarks.load("ccifar10", **options)
    assert (drawn.train.images[~frosted] == found.train.images[~frosted]).all()
    assert (drawn.train.images[frosted] != found.train.images[frosted]).any()
    Image.new("L", (159, 175)).save(folder / "small.png")
    with pytest.raises(ValueError, match="small.png must have sides of 160 pixels or more"):
        benchmarks.load("ccifar10", frost=folder, **options)
    (folder / "small.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="small.png does not decode"):
        benchmarks.load("ccifar10", frost=folder, **options)
    with pytest.raises(FileNotFoundError, match="no photographs of frost in"):
        benchmarks.load("ccifar10", frost=cifar, data_dir=cifar)


def test_cifar10_s_is_grey_where_it_says(cifar):
    """3 of 30 images of a class conflict; the test set holds every image twice."""
    plain = benchmarks.load("cifar10", data_dir=cifar)
    found = benchmarks.load("cifar10-s", data_dir=cifar)
    assert (found.aligned, found.num_attributes) == ((0,) * 5 + (1,) * 5, 2)
    colour = found.train.attributes == 1
    assert np.bincount(found.train.labels[colour], minlength=10).tolist() == [3] * 5 + [27] * 5
    assert (found.train.images[colour] == plain.train.images[colour]).all()
    luma = plain.train.images[~colour] @ np.array([0.299, 0.587, 0.114])
    assert (np.abs(found.train.images[~colour] - luma[..., None]) <= 0.5 + 1e-2).all()
    assert len(found.test.labels) == 120 and found.test.attributes.tolist() == [0] * 60 + [1] * 60
    assert (found.test.images[60:] == plain.test.images).all()
    conflicting = benchmarks.load("cifar10-s", data_dir=cifar, test="conflicting")
    assert (conflicting.test.attributes == (plain.test.labels < 5)).all()


def test_two_biases_are_drawn_one_by_one(cifar):
    """Of each factor 3 of the 30 images of a class conflict; both are seen in the image."""
    plain = benchmarks.load("cifar10", data_dir=cifar)
    found = benchmarks.load("cifar10-two", data_dir=cifar, conflict=0.1)
    train, labels = found.train, found.train.labels
    assert found.aligned == tuple(10 * (k >= 5) + k for k in range(10))
    assert found.attribute_names[13] == "colour, 3"
    halves, places = np.divmod(train.attributes, 10)
    for conflicts in (halves != (labels >= 5), places != labels):
        assert np.bincount(labels[conflicts], minlength=10).tolist() == [3] * 10
    luma = plain.train.images @ np.array([0.299, 0.587, 0.114])
    kept = np.abs(train.images - luma[..., None]).max(-1) <= 0.51
    grey = halves == 0
    assert (
        kept[grey].mean((1, 2)) == 1 - 16 / 1024
    ).all()  # all but the mark, where it is in colour
    assert (train.images[~grey] != plain.train.images[~grey]).any(-1).sum((1, 2)).max() <= 16
    biased = benchmarks.load("cifar10-two", data_dir=cifar, test="conflicting").test
    halves, places = np.divmod(biased.attributes, 10)
    assert (places != biased.labels).all() and (halves != (biased.labels >= 5)).all()


@pytest.fixture
def clothes(cifar, monkeypatch, small):
    """A data_dir with a made-up Fashion-MNIST beside the made-up CIFAR-10."""
    folder, _ = small
    shutil.copytree(folder, cifar / "fashion_mnist")
    monkeypatch.setitem(archives.ARCHIVES, "fashion_mnist", archives.ARCHIVES["mnist"])
    return cifar


def test_clothes_stand_before_a_scene_of_their_category(clothes):
    """Where the cloth is black the scene shows, which is a training image of category a."""
    scenes = benchmarks.load("cifar10", data_dir=clothes)
    found = benchmarks.load("bgfmnist", data_dir=clothes, conflict=0.25)
    for data, behind in ((found.train, scenes.train), (found.test, scenes.test)):
        known = {i[0].tobytes(): label for i, label in zip(*behind[:2], strict=True)}
        shown = [known[image[0].tobytes()] for image in data.images]  # row 0 is padding
        assert shown == data.attributes.tolist()
    own = scenes._replace(train=scenes.train._replace(images=255 - scenes.train.images))
    other = benchmarks.load("bgfmnist", data_dir=clothes, conflict=0.25, scenes=own)
    assert (other.train.images[:, 0] == 255 - found.train.images[:, 0]).all()
    with pytest.raises(ValueError, match=r"ten classes of images \(32, 32, 3\), found 10 of \(16"):
        benchmarks.load("bgfmnist", data_dir=clothes, scenes=benchmarks.digits())


def test_few_scenes_are_those_of_training_and_test_set(clothes):
    """Row 0, which is padding, shows one of the first five training images of category a."""
    scenes = benchmarks.load("cifar10", data_dir=clothes)
    found = benchmarks.load("bgfmnist-few", data_dir=clothes, conflict=0.25)
    known = {}
    for category in range(10):
        rows = np.flatnonzero(scenes.train.labels == category)[:5]
        known |= {scenes.train.images[row, 0].tobytes(): category for row in rows}
    for data in (found.train, found.test):
        shown = [image[0].tobytes() for image in data.images]
        assert [known[row] for row in shown] == data.attributes.tolist()
        assert 20 < len(set(shown)) < 40
    own = scenes._replace(train=scenes.train._replace(images=255 - scenes.train.images))
    other = benchmarks.load("bgfmnist-few", data_dir=clothes, conflict=0.25, scenes=own)
    assert (other.test.images[:, 0] == 255 - found.test.images[:, 0]).all()


def test_coloured_clothes_stand_before_scenes(clothes):
    """Pixels of level 64 and more are opaque, and level times colour; the colour is any."""
    grey = benchmarks.load("fashion_mnist", data_dir=clothes)
    scenes = benchmarks.load("cifar10", data_dir=clothes)
    found = benchmarks.load("cbgfmnist", data_dir=clothes, conflict=0.25)
    for data, plain, behind in (
        (found.train, grey.train, scenes.train),
        (found.test, grey.test, scenes.test),
    ):
        known = {i[0].tobytes(): label for i, label in zip(*behind[:2], strict=True)}
        assert [known[i[0].tobytes()] for i in data.images] == data.attributes.tolist()
        colours = set()
        for image, cloth in zip(data.images, plain.images[..., 0], strict=True):
            at = np.unravel_index(cloth.argmax(), cloth.shape)
            colour = np.rint(image[at] * (255 / cloth[at]))
            opaque = cloth >= 64
            expected = cloth[opaque, None] * (colour / 255)
            assert np.abs(image[opaque] - expected).max() <= 1
            colours.add(tuple(colour.tolist()))
        assert len(colours) > 5


@pytest.mark.parametrize("name", ["cmnist-pairs", "fmnist-scale"])
def test_two_classes_share_one_of_five_values(clothes, small, name):
    """One of four images of a class conflicts, and the test set has each value equally often."""
    folder, _ = small
    found = benchmarks.load(name, data_dir=clothes if name[0] == "f" else folder, conflict=0.25)
    assert found.aligned == (0, 1, 2, 3, 4) * 2 and found.num_attributes == 5
    conflicts = found.train.attributes != found.train.labels % 5
    assert np.bincount(found.train.labels[conflicts], minlength=10).tolist() == [1] * 10
    groups = benchmarks.group_counts(found, found.test)
    assert groups.max() == 1 and groups.sum(1).tolist() == [4] * 10


def test_looks_of_made_up_files(clothes, small):
    """A pair has the colours of two; sizes are those asked for; a texture darkens half."""
    folder, _ = small
    pairs = benchmarks.load("cmnist-pairs", data_dir=folder).train
    brightest = pairs.images.reshape(40, -1, 3).max(1).astype(int)
    distance = np.abs(brightest[:, None] - bias.LFF_COLORS).sum(-1)
    assert (distance.argmin(1) % 5 == pairs.attributes).all()
    sizes = benchmarks.load("fmnist-scale", data_dir=clothes).train
    height = sizes.images.any((2, 3)).sum(1)  # padded by a sixteenth on either side
    assert (np.abs(height - 3.5 * (4 + sizes.attributes)) < 2).all()
    grey = benchmarks.load("fashion_mnist", data_dir=clothes).train.images
    looks = benchmarks.load("fmnist-texture", data_dir=clothes).train.images
    dark = (looks == grey // 4)[grey[..., 0] > 0]
    assert dark.mean() == pytest.approx(0.5, abs=0.02)
    assert ((looks == grey // 4) | (looks == grey)).all()


LOOKS = {
    "cmnist-pairs": "617b160179498215db75cf51ed99dd277a629dbe15801226774610cca67347cd",
    "bgfmnist-few": "d68b72217991b3c0a45b0afff32f8bed4560a1663e50e0c9f6ed2d8bb1a25c8a",
    "cbgfmnist": "d5bd30573173df8b28d71dd49339f8920280c5b9e157328f8f2df079766e2c40",
    "fmnist-scale": "3cf8978a19bbb2b81d8743f4d6d29638f965e16940e2ef4a0e89b3bf238c8033",
    "fmnist-texture": "baa10a7fbd08b6e35c0df2b770c5b84ddad1cd71744a02fa74933f6fd771bf97",
}


@pytest.mark.parametrize("name", LOOKS)
def test_made_up_files_have_the_same_looks_everywhere(clothes, small, name):
    """Written down from jax 0.10 on Python 3.11, met by jax 0.12 on Python 3.13."""
    folder, _ = small
    found = benchmarks.load(name, data_dir=folder if name[1] == "m" else clothes)
    assert digest(found) == LOOKS[name]


def test_dd_sets_are_named_configurations(small):
    folder, _ = small
    found = benchmarks.load("cmnist-dd", data_dir=folder, conflict=0.5, severity=1)
    assert found.name == "cmnist-dd"
    assert digest(found) == digest(
        benchmarks.load("cmnist", data_dir=folder, conflict=0.5, severity=1)
    )


@pytest.mark.parametrize("name", ["cdigits", "cmnist-bg"])
def test_conflicting_test_sets_have_no_aligned_sample(small, cifar, name):
    found = benchmarks.load(name, data_dir=cifar, test="conflicting")
    assert (found.test.attributes != found.test.labels).all()
    uniform = benchmarks.load(name, data_dir=cifar)
    assert (found.test.labels == uniform.test.labels).all()
    assert (found.train.images == uniform.train.images).all()


def test_bffhq(tmp_path):
    """Four faces, one of which conflicts; two for testing."""
    names = (
        "0.5pct/align/0/1_0_0",
        "0.5pct/align/0/2_0_0",
        "0.5pct/align/1/3_1_1",
        "0.5pct/conflict/1/4_1_0",
        "test/5_0_0",
        "test/6_1_0",
    )
    for level, name in enumerate(names):
        path = tmp_path / "bffhq" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 80), (level, 0, 0)).save(path)
    found = benchmarks.load("bffhq", data_dir=tmp_path)
    assert found.train.images.shape == (4, 64, 64, 3) and found.aligned == (0, 0)
    assert found.train.labels.tolist() == [0, 0, 1, 1]
    assert found.train.attributes.tolist() == [0, 0, 1, 0]
    assert benchmarks.load("bffhq", data_dir=tmp_path, test="conflicting").test.labels.size == 0
    assert found.strategy == augment.OPERATIONS


def test_one_attribute_for_all_is_no_conflict():
    images = np.zeros((6, 4, 4), np.uint8)
    arrays = images, np.arange(6) % 2, np.zeros(6, int)
    found = benchmarks.statistics(datasets.from_arrays(*arrays, test=arrays))
    assert (found["conflict"], found["spread"], found["independence p"]) == (0, 0, 1)


def test_statistics_count(cdigits):
    """Chi-square of the test set by scipy on the table of counts; a made-up set by hand."""
    found = benchmarks.statistics(cdigits)
    assert found["train"] == 1437 and found["shape"] == "16×16×3" and found["spread"] <= 1
    conflicts = (cdigits.train.attributes != cdigits.train.labels).mean()
    assert found["conflict"] == pytest.approx(conflicts) and found["independence p"] > 0.9
    plain = benchmarks.statistics(benchmarks.digits())
    assert plain == {"train": 1437, "test": 360, "classes": 10, "shape": "16×16×1"}
    images = np.zeros((5, 4, 4), np.uint8)
    arrays = images, np.zeros(5, int), np.array([0, 0, 0, 1, 2])
    made = datasets.from_arrays(*arrays, test=arrays)
    assert benchmarks.statistics(made)["conflict"] == 0.4


@pytest.mark.parametrize("name", benchmarks.NAMES)
def test_every_benchmark_is_described(name):
    assert len(benchmarks.describe(name)) == 7 and all(benchmarks.describe(name))


# ------------------------------------------------------------------ the cache


def cached(tmp_path):
    return sorted((tmp_path / "cache" / "benchmarks").glob("*"))


def test_the_second_use_is_from_the_cache(small, tmp_path, monkeypatch):
    folder, _ = small
    first = benchmarks.load("cmnist", data_dir=folder)
    assert len(cached(tmp_path)) == 1
    monkeypatch.delattr(benchmarks, "_biased")
    again = benchmarks.load("cmnist", data_dir=folder)
    assert digest(again) == digest(first) and again[3:] == first[3:]
    again.train.images[0] = 0  # arrays are the caller's to change


def test_the_cache_is_keyed_by_parameters(small, tmp_path):
    folder, _ = small
    changes = dict(seed=1), dict(conflict=0.1), dict(severity=1), dict(test="conflicting")
    for options in ({}, *changes, dict(placement="corner")):
        benchmarks.load("cmnist", data_dir=folder, **options)
    assert len(cached(tmp_path)) == 6


def test_the_cache_is_keyed_by_content(cifar, tmp_path):
    """One changed byte of one batch gives another benchmark."""
    first = benchmarks.load("cifar10-s", data_dir=cifar)
    path = cifar / "cifar10" / "cifar-10-batches-bin" / "data_batch_1.bin"
    content = bytearray(path.read_bytes())
    content[1] ^= 255
    path.write_bytes(content)
    assert digest(benchmarks.load("cifar10-s", data_dir=cifar)) != digest(first)
    assert len(cached(tmp_path)) == 2


def changed(path):
    """The file with a label that is another one, well-formed."""
    stored = files.read_arrays(path)
    stored["train-labels"][0] += 50
    with np.load(path) as whole:
        np.savez(path, **(dict(whole) | stored))
    return path.read_bytes()


def unsealed(path):
    """The file without the digests of its arrays."""
    np.savez(path, **files.read_arrays(path))
    return path.read_bytes()


DAMAGES = {
    "truncated": lambda path: path.read_bytes()[:-100],
    "empty": lambda path: b"",
    "other": lambda path: b"text",
    "changed": changed,
    "unsealed": unsealed,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_in_the_cache_is_built_again(small, tmp_path, damage):
    folder, _ = small
    first = benchmarks.load("cmnist", data_dir=folder)
    (path,) = cached(tmp_path)
    content = path.read_bytes()
    path.write_bytes(DAMAGES[damage](path))
    assert digest(benchmarks.load("cmnist", data_dir=folder)) == digest(first)
    assert path.read_bytes() == content


def test_the_least_recently_used_is_deleted_first(small, tmp_path, monkeypatch):
    """Room for two and a half: of a, b, a, c b is to go. An old temporary file goes, too."""
    folder, _ = small
    load = functools.partial(benchmarks.load, "cmnist", data_dir=folder)
    load(seed=0)
    (first,) = cached(tmp_path)
    monkeypatch.setattr(benchmarks, "CACHE_BYTES", int(2.5 * first.stat().st_size))
    os.utime(first, (1, 1))
    load(seed=1)
    (second,) = set(cached(tmp_path)) - {first}
    os.utime(second, (2, 2))
    left = first.with_name(f".x.npz{files.TEMPORARY}")
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    load(seed=0)
    load(seed=2)
    assert first in cached(tmp_path) and second not in cached(tmp_path) and not left.exists()
    assert len(cached(tmp_path)) == 2


@pytest.mark.parametrize("fault", ["a file in its place", "no room"])
def test_what_cannot_be_kept_is_still_returned(small, tmp_path, monkeypatch, fault):
    folder, _ = small
    if fault == "no room":

        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(files, "write_arrays", full)
    else:
        (tmp_path / "cache").write_text("not a folder")
    with pytest.warns(UserWarning, match="cmnist could not be kept for the next time: "):
        found = benchmarks.load("cmnist", data_dir=folder)
    assert found.train.images.shape == (40, 32, 32, 3)


LOADING = """
import pathlib, sys
from jaxdd.data import archives, benchmarks
folder = pathlib.Path(sys.argv[1])
archive = archives.ARCHIVES["mnist"]
import hashlib
md5 = {f: hashlib.md5((folder / f).read_bytes()).hexdigest() for f in archive.md5}
archives.ARCHIVES["mnist"] = archive._replace(md5=md5)
files.CACHE = pathlib.Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
found = benchmarks.load("cmnist", data_dir=folder)
print(hashlib.sha256(found.train.images.tobytes()).hexdigest())
"""


def test_processes_that_build_at_once_and_one_that_is_killed(small, tmp_path):
    """All start together, one is killed in between; the others and a later run agree."""
    folder, _ = small
    command = [sys.executable, "-c", LOADING, folder, tmp_path / "cache"]
    root = pathlib.Path(benchmarks.__file__).parents[2]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
    builders = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for process in builders:
        assert process.stdout.readline() == "ready\n"
    for process in builders:
        process.stdin.write("\n")
        process.stdin.flush()
    time.sleep(0.3)
    builders[2].kill()
    found = {process.communicate()[0].strip() for process in builders[:2]}
    builders[2].communicate()
    expected = hashlib.sha256(
        benchmarks.load("cmnist", data_dir=folder).train.images.tobytes()
    ).hexdigest()
    assert found == {expected}


# ------------------------------------------------------------------ names and options

IMAGE = np.zeros((1, 4, 4), np.uint8)


@pytest.mark.parametrize(
    "name, options, error, match",
    [
        ("cmist", {}, ValueError, "'cmist'; did you mean 'cmnist'.* known are digits, mnist"),
        ("Fashion-MNIST", {}, ValueError, "did you mean 'fashion_mnist'"),
        ("nonsense", {}, ValueError, "unknown data set 'nonsense'; known are digits"),
        (3, {}, TypeError, "name must be a string, found int"),
        ("cdigits", dict(conflict=1.2), ValueError, r"conflict must lie in \[0, 1\], found 1.2"),
        ("cdigits", dict(conflict=float("nan")), ValueError, "found nan"),
        ("cdigits", dict(conflict="5%"), TypeError, "conflict must be a number, found str"),
        ("cdigits", dict(severity=5), ValueError, "severity must lie in 1..4, found 5"),
        ("cdigits", dict(severity=2.0), TypeError, "severity must be an integer, found 2.0"),
        ("cdigits", dict(seed=-1), ValueError, "seed must lie in 0..4294967295, found -1"),
        ("cdigits", dict(seed=0.5), TypeError, "seed must be an integer, found 0.5"),
        ("mnist", dict(conflict=0.1), ValueError, "mnist takes no conflict, found 0.1"),
        ("digits", dict(severity=4), ValueError, "digits takes no severity, found 4"),
        ("cmnist-bg", dict(severity=4), ValueError, "cmnist-bg takes no severity, found 4"),
        ("mnist", dict(test="conflicting"), ValueError, "mnist is unbiased and has no conflicting"),
        ("cmnist", dict(test="biased"), ValueError, "uniform or conflicting, found 'biased'"),
        ("cmnist", dict(frost="."), ValueError, "cmnist takes no frost"),
        ("ccifar10", dict(scenes=benchmarks.digits()), ValueError, "ccifar10 takes no scenes"),
        ("cmnist-dd", dict(conflict=0.3), ValueError, "conflicts of 0, 0.05, .*1, found 0.3"),
        ("bffhq", {}, ValueError, "bffhq must be downloaded by hand"),
        (
            "mnist",
            dict(data_dir="/no/where"),
            FileNotFoundError,
            "data_dir must be a folder.*/no/where",
        ),
        ("bgfmnist", dict(scenes=IMAGE), TypeError, "scenes must be a Benchmark, found ndarray"),
        ("mnist", dict(placement="left"), ValueError, "'centre' or 'corner', found 'left'"),
    ],
)
def test_load_refuses(name, options, error, match):
    with pytest.raises(error, match=match):
        benchmarks.load(name, **options)


# ------------------------------------------------------------------ files and downloads


@pytest.mark.parametrize("damage", ["corrupt", "truncated", "empty"])
def test_files_that_are_not_the_original_are_named(small, damage):
    folder, _ = small
    path = folder / archives.TEST[1]
    content = path.read_bytes()
    damaged = {"corrupt": content[:-1] + b"?", "truncated": content[:-5], "empty": b""}[damage]
    path.write_bytes(damaged)
    found, expected = (hashlib.md5(c).hexdigest() for c in (damaged, content))
    with pytest.raises(ValueError, match=f"{path}.*{found}.*expected {expected}"):
        benchmarks.load("mnist", data_dir=folder)


def test_absent_files_are_named_at_once_where_there_is_no_network(small, tmp_path):
    folder, _ = small
    (folder / archives.TRAIN[0]).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        benchmarks.load("cmnist", data_dir=folder.parent)
    message = str(caught.value)
    assert message.startswith("mnist: train-images-idx3-ubyte.gz not found in ")
    for part in (folder, folder.parent, tmp_path / "cache" / "mnist"):
        assert f"{part}" in message
    assert "https://storage.googleapis.com/cvdf-datasets/mnist/ cannot be reached" in message
    assert "labels" not in message and "\n" not in message


@pytest.fixture
def online(monkeypatch):
    """The real downloader, without the proxies that this machine may have."""
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fetch)
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)


def moved(monkeypatch, url):
    archive = archives.ARCHIVES["mnist"]._replace(url=url)
    monkeypatch.setitem(archives.ARCHIVES, "mnist", archive)


def test_a_closed_port_and_an_unknown_host_cannot_be_reached(online, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/", "https://nowhere.invalid/"):
        moved(monkeypatch, url)
        with pytest.raises(FileNotFoundError, match=f"{url} cannot be reached"):
            benchmarks.load("mnist")


def test_a_server_that_accepts_and_says_nothing_is_given_up(online, monkeypatch):
    monkeypatch.setattr(archives, "TIMEOUT", (3, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as server:
        moved(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}/")
        with pytest.raises(OSError, match="download of http://127.*train-images.*Read timed out"):
            benchmarks.load("mnist")


def test_absent_files_are_downloaded_once(small, tmp_path, monkeypatch):
    """Only what is missing is asked for; the second time nothing is."""
    folder, arrays = small
    path = folder / archives.TRAIN[1]
    content = path.read_bytes()
    path.unlink()
    asked = []

    def download(downloader, url, output_file, *_, **__):
        asked.append((url, downloader.kwargs["timeout"]))
        pathlib.Path(output_file).write_bytes(content)

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", download)
    for _ in range(2):
        assert (
            benchmarks.load("mnist", data_dir=folder).train.labels == arrays[archives.TRAIN[1]]
        ).all()
    assert asked == [(archives.ARCHIVES["mnist"].url + archives.TRAIN[1], archives.TIMEOUT)]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(small, online, monkeypatch):
    """The small archive on a local server, under its folder name; nothing on disk elsewhere."""
    folder, _ = small
    handler = functools.partial(_Quiet, directory=str(folder.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        moved(monkeypatch, f"http://127.0.0.1:{server.server_port}/mnist/")
        yield folder
        server.shutdown()
        thread.join()


def test_downloads_are_kept_in_the_cache(small, server, tmp_path):
    _, arrays = small
    found = benchmarks.load("mnist")
    assert (found.test.labels == arrays[archives.TEST[1]]).all()
    cached = tmp_path / "cache" / "mnist"
    assert sorted(p.name for p in cached.iterdir()) == sorted(arrays)


def test_downloads_go_through_a_proxy(server, monkeypatch):
    """Which, here, is the server: asked for a host that there is not, it answers 404."""
    proxy = archives.ARCHIVES["mnist"].url
    moved(monkeypatch, "http://nowhere.invalid/")
    for variable, address in (("http_proxy", proxy), ("all_proxy", proxy[7:])):
        with monkeypatch.context() as patch:
            patch.setenv("no_proxy", "")
            patch.setenv(variable, address)
            with pytest.raises(OSError, match="download of http://nowhere.invalid/.* failed: 404"):
                benchmarks.load("mnist")


@pytest.mark.parametrize("fault", ["absent", "corrupt"])
def test_failed_downloads_leave_nothing_behind(server, tmp_path, fault):
    path = server / archives.TEST[0]
    path.unlink()
    if fault == "corrupt":
        path.write_bytes(b"<html>please log in</html>")
    error, match = {
        "absent": (OSError, "download of http://127.0.0.1:.*t10k-images.* failed: .*404"),
        "corrupt": (ValueError, "t10k-images.* is not the original file: MD5.*expected md5:"),
    }[fault]
    with pytest.raises(error, match=match):
        benchmarks.load("mnist")
    left = {p.name for p in (tmp_path / "cache" / "mnist").iterdir()}
    assert left == {*archives.TRAIN}


def test_import_stays_light():
    code = (
        "import sys, jaxdd.data.benchmarks\n"
        "heavy = {'tensorflow_datasets', 'tensorflow', 'matplotlib', 'sklearn', 'PIL'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    root = pathlib.Path(benchmarks.__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
