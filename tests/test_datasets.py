"""Benchmarks hold what they promise, files are checked, and bad input is told what is wrong.

No test touches the network: the probe is replaced, and downloads come from a server on this
machine. Tests on the original MNIST skip where ../shared/data is absent.
"""

import functools
import gzip
import hashlib
import http.server
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from scipy import stats

from jaxdd import archives, bias, datasets

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
needs_originals = pytest.mark.skipif(
    not (SHARED / "mnist").is_dir(), reason=f"the original files are not in {SHARED}"
)
reachable = archives._reachable


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network, and an empty cache."""
    monkeypatch.setattr(archives, "_reachable", lambda url: False)
    monkeypatch.setattr(archives, "CACHE", tmp_path / "cache")


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
    return datasets.cdigits()


def digest(benchmark):
    arrays = [a for d in (benchmark.train, benchmark.test) for a in d if a is not None]
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()


# ------------------------------------------------------------------ benchmarks by name


def test_digits_are_split_once_and_for_all():
    """1,797 = 1,437 + 360; each class sends a fifth of its 174 to 183 images: 34.8..36.6."""
    found = datasets.digits()
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
    found = datasets.digits(size=8)
    images = np.concatenate([found.train.images, found.test.images])[..., 0]
    key = functools.partial(np.ndarray.tobytes)
    assert sorted(map(key, images)) == sorted(map(key, expected))
    with pytest.raises(ValueError, match="size must lie in 1..4096, found 0"):
        datasets.digits(size=0)


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
    grey = datasets.digits()
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
    other = datasets.load("cdigits", seed=1)
    assert (other.train.attributes != cdigits.train.attributes).any()
    assert (other.test.attributes != cdigits.test.attributes).any()
    assert (other.train.labels == cdigits.train.labels).all()


def test_the_test_set_does_not_depend_on_the_conflict(cdigits):
    other = datasets.cdigits(conflict=0.5)
    assert (other.test.images == cdigits.test.images).all()
    assert (other.train.attributes != other.train.labels).mean() == pytest.approx(0.5, abs=0.01)


def test_shades_vary_with_severity_only_where_there_are_shades(small):
    folder, _ = small
    load = functools.partial(datasets.load, data_dir=folder)
    weak, strong = load("cmnist", severity=4), load("cmnist", severity=1)
    assert (weak.train.attributes == strong.train.attributes).all()
    assert (weak.train.images != strong.train.images).any()


def test_solid_colours_on_generated_files(small):
    """FG has its colour where the grey image is 128 or more and black elsewhere; BG the reverse."""
    folder, arrays = small
    bright = np.pad(arrays[archives.TRAIN[0]], ((0, 0), (2, 2), (2, 2)))[..., None] >= 128
    for name, mask in (("cmnist-fg", bright), ("cmnist-bg", ~bright)):
        found = datasets.load(name, data_dir=folder, conflict=0.25)
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
    found = datasets.mnist(data_dir, placement=placement)
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
    found = datasets.load("mnist", data_dir=SHARED)
    inner = found.train.images[:, 2:30, 2:30] / np.float32(255)
    assert inner.mean(dtype=float) == pytest.approx(found.mean[0], abs=5e-5)
    assert inner.std(dtype=float) == pytest.approx(found.std[0], abs=5e-5)
    assert found.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert len(found.train.labels) == 60_000 and len(found.test.labels) == 10_000


@needs_originals
def test_original_fashion_mnist_is_not_mnist():
    found = datasets.fashion_mnist(SHARED)
    inner = found.train.images[:, 2:30, 2:30] / np.float32(255)
    assert inner.mean(dtype=float) == pytest.approx(found.mean[0], abs=1e-4)
    assert inner.std(dtype=float) == pytest.approx(found.std[0], abs=1e-4)
    assert np.bincount(found.train.labels).tolist() == [6000] * 10
    assert "flip" in found.strategy
    with pytest.raises(ValueError, match="train-images.*8d4fb7e6"):
        datasets.fashion_mnist(SHARED / "mnist")


@needs_originals
def test_original_coloured_mnist():
    """5 % of 60,000, within rounding in each class, and the bytes of both stacks."""
    found = datasets.cmnist(SHARED)
    assert (found.train.attributes != found.train.labels).sum() == pytest.approx(3000, abs=5)
    assert digest(found) == "30a4a18c4b85f82b29c4961dd363cdc84ceb72c7d9727a24503c8805d36733ff"


# ------------------------------------------------------------------ names and options


@pytest.mark.parametrize(
    "name, options, error, match",
    [
        ("cmist", {}, ValueError, "'cmist'; did you mean 'cmnist'.* known are digits, mnist"),
        ("Fashion-MNIST", {}, ValueError, "did you mean 'fashion_mnist'"),
        ("imagenet", {}, ValueError, "unknown data set 'imagenet'; known are digits"),
        (3, {}, TypeError, "name must be a string, found int"),
        ("cdigits", dict(conflict=1.2), ValueError, r"conflict must lie in \[0, 1\], found 1.2"),
        ("cdigits", dict(conflict=float("nan")), ValueError, "found nan"),
        ("cdigits", dict(conflict="5%"), TypeError, "conflict must be a number, found str"),
        ("cdigits", dict(severity=5), ValueError, "severity must lie in 1..4, found 5"),
        ("cdigits", dict(severity=2.0), TypeError, "severity must be an integer, found 2.0"),
        ("cdigits", dict(seed=-1), ValueError, "seed must lie in 0..4294967295, found -1"),
        ("cdigits", dict(seed=0.5), TypeError, "seed must be an integer, found 0.5"),
        ("mnist", dict(conflict=0.1), ValueError, "mnist is unbiased and takes no conflict"),
        ("digits", dict(severity=4), ValueError, "digits has no shades and takes no severity"),
        ("cmnist-bg", dict(severity=4), ValueError, "cmnist-bg has no shades"),
        ("mnist", dict(placement="left"), ValueError, "'centre' or 'corner', found 'left'"),
    ],
)
def test_load_refuses(name, options, error, match):
    with pytest.raises(error, match=match):
        datasets.load(name, **options)


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
        datasets.mnist(folder)


def test_absent_files_are_named_at_once_where_there_is_no_network(small, tmp_path):
    folder, _ = small
    (folder / archives.TRAIN[0]).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        datasets.load("cmnist", data_dir=folder.parent)
    message = str(caught.value)
    assert message.startswith("mnist: train-images-idx3-ubyte.gz not found in ")
    for part in (folder, folder.parent, tmp_path / "cache" / "mnist"):
        assert f"{part}" in message
    assert "https://storage.googleapis.com/cvdf-datasets/mnist/ cannot be reached" in message
    assert "labels" not in message and "\n" not in message


def test_the_probe_gives_up_on_a_closed_port_and_sees_an_open_one(monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        url = f"http://127.0.0.1:{server.server_port}/mnist/"
        assert reachable(url)
        monkeypatch.setenv("no_proxy", "")
        for variable, proxy in (("http_proxy", url), ("all_proxy", url[7:])):
            with monkeypatch.context() as patch:
                patch.setenv(variable, proxy)
                assert reachable("http://nowhere.invalid/")  # asks the proxy, not the host
    started = time.monotonic()
    assert not reachable(url) and not reachable("https://nowhere.invalid/")
    assert time.monotonic() - started < 30


def test_absent_files_are_downloaded_once(small, tmp_path, monkeypatch):
    """Only what is missing is asked for; the second time nothing is."""
    folder, arrays = small
    path = folder / archives.TRAIN[1]
    content = path.read_bytes()
    path.unlink()
    asked = []

    def download(archive, files, target):
        asked.append(files)
        target.mkdir(parents=True)
        (target / files[0]).write_bytes(content)

    monkeypatch.setattr(archives, "_reachable", lambda url: True)
    monkeypatch.setattr(archives, "_download", download)
    for _ in range(2):
        assert (datasets.mnist(folder).train.labels == arrays[archives.TRAIN[1]]).all()
    assert asked == [[archives.TRAIN[1]]]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(small, tmp_path, monkeypatch):
    """The small archive on a local server, under its folder name; nothing on disk elsewhere."""
    folder, _ = small
    handler = functools.partial(_Quiet, directory=str(folder.parent))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        archive = archives.ARCHIVES["mnist"]._replace(
            url=f"http://127.0.0.1:{server.server_port}/mnist/"
        )
        monkeypatch.setitem(archives.ARCHIVES, "mnist", archive)
        monkeypatch.setattr(archives, "_reachable", reachable)
        yield folder
        server.shutdown()
        thread.join()


@pytest.mark.filterwarnings("default")  # of tensorflow-datasets and what it imports
def test_download_through_tensorflow_datasets(small, server, tmp_path):
    _, arrays = small
    found = datasets.load("mnist")
    assert (found.test.labels == arrays[archives.TEST[1]]).all()
    cached = tmp_path / "cache" / "mnist"
    assert sorted(p.name for p in cached.iterdir()) == sorted(arrays)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("fault", ["absent", "corrupt"])
def test_failed_downloads_leave_nothing_behind(server, tmp_path, fault):
    path = server / archives.TEST[0]
    path.unlink()
    if fault == "corrupt":
        path.write_bytes(b"<html>please log in</html>")
    error, match = {
        "absent": (OSError, "download of http://127.0.0.1:.*t10k-images.* failed: .*404"),
        "corrupt": (ValueError, "is not the original file"),
    }[fault]
    with pytest.raises(error, match=match):
        datasets.mnist()
    assert not (tmp_path / "cache" / "mnist" / archives.TEST[0]).exists()
    assert not [p for p in (tmp_path / "cache" / "mnist").iterdir() if p.is_dir()]


def test_import_stays_light():
    code = (
        "import sys, jaxdd.datasets\n"
        "heavy = {'tensorflow_datasets', 'tensorflow', 'matplotlib', 'sklearn', 'PIL'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    root = pathlib.Path(datasets.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


# ------------------------------------------------------------------ people's own arrays


def own(n=40, channels=3, k=4):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 6, 5, channels), dtype=np.uint8)
    return images, np.arange(n) % k, np.arange(n) // k % 3


def test_from_arrays_splits_each_class():
    """40 images in four classes, a quarter split off: 10 of each class lose round-about 2.5."""
    images, labels, attributes = own()
    found = datasets.from_arrays(images, labels, attributes, test_fraction=0.25, name="mine")
    assert len(found.train.labels) == 30 and len(found.test.labels) == 10
    assert set(np.bincount(found.test.labels).tolist()) == {2, 3}
    rows = {i.tobytes(): (y, a) for i, y, a in zip(images, labels, attributes, strict=True)}
    kept = [(d, i) for d in (found.train, found.test) for i in range(len(d.labels))]
    assert len({d.images[i].tobytes() for d, i in kept}) == 40
    for d, i in kept:
        assert rows[d.images[i].tobytes()] == (d.labels[i], d.attributes[i])
    scaled = found.train.images / 255
    np.testing.assert_allclose(found.mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.std, scaled.std((0, 1, 2)), rtol=1e-9)
    assert (found.name, found.num_classes, found.num_attributes) == ("mine", 4, 3)
    assert "flip" in found.strategy


def test_from_arrays_split_follows_the_seed():
    first, again, other = (datasets.from_arrays(*own(), seed=s) for s in (0, 0, 1))
    assert (first.test.images == again.test.images).all()
    assert (first.test.images != other.test.images).any()


@pytest.mark.parametrize("fraction, counts", [(0.01, [1, 1]), (0.99, [1, 9])])
def test_from_arrays_leaves_every_class_on_both_sides(fraction, counts):
    """Classes of 2 and 10 keep at least one image on either side, whatever the fraction."""
    images, labels = np.zeros((12, 2, 2), np.uint8), np.repeat([0, 1], [2, 10])
    found = datasets.from_arrays(images, labels, test_fraction=fraction)
    assert np.bincount(found.test.labels).tolist() == counts


def test_from_arrays_takes_floats_and_grey_images():
    """0, .5 and 1 become 0, 128 (127.5 rounds to even) and 255; [n, h, w] gains a channel."""
    images = np.array([0, 0.5, 1, 1], np.float32).reshape(4, 1, 1)
    found = datasets.from_arrays(images, np.zeros(4, int), test=(images[:2], np.zeros(2, int)))
    assert found.train.images.ravel().tolist() == [0, 128, 255, 255]
    assert found.test.images.shape == (2, 1, 1, 1)
    assert (found.num_attributes, found.aligned) == (0, None)


def test_from_arrays_aligned_is_the_majority_of_the_training_set():
    images, labels = np.zeros((6, 2, 2), np.uint8), np.array([0, 0, 0, 1, 1, 1])
    test = (images, labels, np.full(6, 7))
    found = datasets.from_arrays(images, labels, np.array([2, 2, 0, 1, 0, 1]), test=test)
    assert (found.aligned, found.num_attributes) == ((2, 1), 8)
    without = datasets.from_arrays(images, labels, test=test)
    assert (without.aligned, without.num_attributes) == (None, 8)
    assert found.std == (1.0,)  # a constant channel can be divided by


IMAGES, CLASSES, ATTRIBUTES = own()


@pytest.mark.parametrize(
    "change, error, match",
    [
        (dict(images=IMAGES[0, 0]), ValueError, r"\[n, h, w\].*found shape \(5, 3\)"),
        (dict(images=IMAGES[:0]), ValueError, r"not empty, found shape \(0, 6, 5, 3\)"),
        (dict(images=IMAGES.astype(int)), TypeError, "images must be uint8, or floats.*int64"),
        (dict(images=IMAGES / 1.0), ValueError, r"must lie in \[0, 1\].*found 0.0..255.0"),
        (dict(images=IMAGES * np.nan), ValueError, "found nan..nan"),
        (dict(images=IMAGES / -255), ValueError, "found -1.0..-0.0"),
        (dict(labels=CLASSES / 1), TypeError, "labels must be integers, found float64"),
        (dict(labels=CLASSES - 1), ValueError, "labels must count from 0, found -1..2"),
        (dict(labels=CLASSES[:9]), ValueError, r"each of 40 images, found \(9,\)"),
        (dict(labels=CLASSES[:, None]), ValueError, r"each of 40 images, found \(40, 1\)"),
        (dict(labels=CLASSES * 2), ValueError, "class 1 of 7 has no training images"),
        (dict(num_classes=5), ValueError, "class 4 of 5 has no training images"),
        (dict(num_classes=3), ValueError, "labels must lie in 0..2, found 3"),
        (dict(num_classes=0), ValueError, "num_classes must lie in 1"),
        (dict(num_classes=4.0), TypeError, "num_classes must be an integer, found 4.0"),
        (dict(labels=np.r_[4, CLASSES[1:]]), ValueError, "class 4 needs at least 2.*found 1"),
        (dict(attributes=ATTRIBUTES[:3]), ValueError, r"attributes must have.*found \(3,\)"),
        (dict(attributes=ATTRIBUTES - 1), ValueError, "attributes must count from 0, found -1"),
        (dict(attributes=ATTRIBUTES * 0.5), TypeError, "attributes must be integers"),
        (dict(test_fraction=0), ValueError, r"test_fraction must lie in \(0, 1\), found 0"),
        (dict(test_fraction=1.0), ValueError, r"in \(0, 1\), found 1.0"),
        (dict(seed=-1), ValueError, "seed must lie in 0"),
        (dict(test=IMAGES), ValueError, r"test must be \(images, labels\) or"),
        (dict(test=(IMAGES,)), ValueError, r"test must be \(images, labels\) or"),
        (dict(test=(IMAGES[:, 1:], CLASSES)), ValueError, r"\(6, 5, 3\) and \(5, 5, 3\)"),
        (dict(test=(IMAGES, CLASSES[1:])), ValueError, "test labels must have one entry"),
        (dict(test=(IMAGES, CLASSES + 1)), ValueError, "test labels must lie in 0..3, found 4"),
        (dict(test=(IMAGES, CLASSES, -CLASSES)), ValueError, "test attributes must count from 0"),
        (dict(test=(IMAGES.astype(int), CLASSES)), TypeError, "test images must be uint8"),
    ],
)
def test_from_arrays_refuses(change, error, match):
    given = dict(images=IMAGES, labels=CLASSES, attributes=ATTRIBUTES) | change
    with pytest.raises(error, match=match):
        datasets.from_arrays(**given)


def test_pool_holds_the_training_set(cdigits):
    pool = datasets.pool(cdigits)
    assert pool.images.dtype == np.uint8 and pool.images.shape == cdigits.train.images.shape
    assert pool.count.tolist() == np.bincount(cdigits.train.labels).tolist()
    weights = np.random.default_rng(0).random(len(cdigits.train.labels))
    weighted = datasets.pool(cdigits, weights)
    zeros = cdigits.train.labels == 0
    np.testing.assert_allclose(
        weighted.weights[zeros], weights[zeros] / weights[zeros].sum(), rtol=1e-5
    )
