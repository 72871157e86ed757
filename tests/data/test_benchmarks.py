"""Loading benchmarks by name: counts, splits, fixed bytes, options and the cache.

Tests on the original MNIST skip if ../shared/data is absent.
"""

import errno
import functools
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import stats

from jaxdd.data import benchmarks, datasets, files
from jaxdd.weights import formulas


@pytest.fixture(scope="module")
def cdigits():
    return benchmarks.load("cdigits")


def digest(benchmark):
    arrays = [a for d in (benchmark.train, benchmark.test) for a in d if a is not None]
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()


def test_digits_have_a_fixed_stratified_split():
    """1,797 = 1,437 + 360; the test set has a fifth of the 174 to 183 images of each class."""
    data = benchmarks.load("digits")
    assert data.train.images.shape == (1437, 16, 16, 1) and data.train.images.dtype == np.uint8
    assert data.test.images.shape == (360, 16, 16, 1) and data.test.labels.dtype == np.int32
    assert set(np.bincount(data.test.labels).tolist()) <= {34, 35, 36, 37}
    assert data.train.images.max() == 255 and data.train.images.min() == 0
    assert (data.num_attributes, data.aligned, data.train.attributes) == (0, None, None)
    scaled = data.train.images / 255
    assert data.mean + data.std == pytest.approx((scaled.mean(), scaled.std()))
    assert "flip" not in data.strategy


def test_digits_of_8_pixels_have_the_levels_of_scikit_learn():
    """At 8x8 nothing is interpolated: level v of 16 becomes round(v·255/16)."""
    from sklearn.datasets import load_digits

    expected = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    np.testing.assert_array_equal(benchmarks._digits(size=8)[0], expected)


def test_coloured_digits_have_exact_counts(cdigits):
    """In training round(n_k/10) conflict, evenly over nine colours; in the test all are even."""
    for data, share in ((cdigits.train, 0.1), (cdigits.test, 0.9)):
        assert data.images.shape[1:] == (16, 16, 3) and data.images.dtype == np.uint8
        for k in range(10):
            counts = np.bincount(data.attributes[data.labels == k], minlength=10)
            others = np.delete(counts, k)
            assert others.sum() == round(counts.sum() * share)
            assert others.max() - others.min() <= 1
    assert (cdigits.num_attributes, cdigits.aligned) == (10, tuple(range(10)))
    assert cdigits.mean == cdigits.std == (0.5, 0.5, 0.5)


def test_test_colours_are_independent_of_the_class(cdigits):
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (cdigits.test.labels, cdigits.test.attributes), 1)
    assert stats.chi2_contingency(counts).pvalue > 0.01
    np.add.at(counts, (cdigits.train.labels, cdigits.train.attributes), 1)
    assert stats.chi2_contingency(counts).pvalue < 1e-9


def test_a_seed_gives_the_same_bytes_everywhere(cdigits):
    """Recorded with JAX 0.10 on Python 3.11; JAX 0.12 on Python 3.13 gives the same."""
    assert digest(cdigits) == "6abf223b389a41206ea9824faf4a78e45550b73569a1575328029a787eca911c"
    other = benchmarks.load("cdigits", seed=1)
    assert (other.train.attributes != cdigits.train.attributes).any()
    assert (other.test.attributes != cdigits.test.attributes).any()
    assert (other.train.labels == cdigits.train.labels).all()


def test_the_test_set_does_not_depend_on_the_conflict(cdigits):
    other = benchmarks.load("cdigits", conflict=0.5)
    assert (other.test.images == cdigits.test.images).all()
    assert (other.train.attributes != other.train.labels).mean() == pytest.approx(0.5, abs=0.01)


def test_severity_changes_shades_but_not_attributes(small):
    folder, _ = small
    weak, strong = (benchmarks.load("cmnist", data_dir=folder, severity=s) for s in (4, 1))
    assert (weak.train.attributes == strong.train.attributes).all()
    assert (weak.train.images != strong.train.images).any()


def test_original_coloured_mnist(data_dir, monkeypatch):
    """5 % of 60,000 conflict, up to rounding in each class, and the bytes are fixed."""
    monkeypatch.setattr(benchmarks, "_write_cache", lambda *_: None)
    data = benchmarks.load("cmnist", data_dir=data_dir)
    assert (data.train.attributes != data.train.labels).sum() == pytest.approx(3000, abs=5)
    assert digest(data) == "30a4a18c4b85f82b29c4961dd363cdc84ceb72c7d9727a24503c8805d36733ff"


@pytest.mark.parametrize("name", ["cdigits", "cmnist-bg"])
def test_conflicting_test_sets_have_no_aligned_sample(small, name):
    folder, _ = small
    data_dir = folder.parent
    data = benchmarks.load(name, data_dir=data_dir, test="conflicting")
    assert (data.test.attributes != data.test.labels).all()
    uniform = benchmarks.load(name, data_dir=data_dir)
    assert (data.test.labels == uniform.test.labels).all()
    assert (data.train.images == uniform.train.images).all()


def test_statistics(cdigits):
    """The p-value equals that of scipy for the table of counts; small sets are computed by hand."""
    numbers = benchmarks.statistics(cdigits)
    assert numbers["train"] == 1437 and numbers["shape"] == "16×16×3" and numbers["spread"] <= 1
    conflicts = (cdigits.train.attributes != cdigits.train.labels).mean()
    assert numbers["conflict"] == pytest.approx(conflicts) and numbers["independence p"] > 0.9
    plain = benchmarks.statistics(benchmarks.load("digits"))
    assert plain == {"train": 1437, "test": 360, "classes": 10, "shape": "16×16×1"}
    images = np.zeros((5, 4, 4), np.uint8)
    arrays = images, np.zeros(5, int), np.array([0, 0, 0, 1, 2])
    assert benchmarks.statistics(datasets.from_arrays(*arrays, test=arrays))["conflict"] == 0.4
    arrays = images, np.arange(5) % 2, np.zeros(5, int)
    numbers = benchmarks.statistics(datasets.from_arrays(*arrays, test=arrays))
    assert (numbers["conflict"], numbers["spread"], numbers["independence p"]) == (0, 0, 1)
    assert numbers["oracle ess"] == 2.5  # one group in each of two classes: the mean of 3 and 2


def test_the_effective_sample_size_of_oracle_weights():
    """It follows from the group sizes; empty groups do not count."""
    labels, attributes = np.repeat([0, 1], [6, 4]), np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
    counts = np.array([[4, 2, 0], [0, 0, 4]])
    sizes = dict(num_classes=2, num_attributes=3)
    oracle = formulas.oracle(labels, attributes, **sizes)
    expected = formulas.effective_sample_size(oracle, labels, num_classes=2)
    np.testing.assert_allclose(benchmarks.oracle_sample_sizes(counts), expected, rtol=1e-6)
    np.testing.assert_allclose(expected, [16 / 3, 4], rtol=1e-6)


# --- names and options -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, options, error, match",
    [
        ("cmist", {}, ValueError, "'cmist'.*'cmnist'.*digits, mnist"),
        ("Fashion-MNIST", {}, ValueError, "'fashion_mnist'"),
        ("nonsense", {}, ValueError, "'nonsense'"),
        (3, {}, TypeError, "int"),
        ("cdigits", dict(conflict=1.2), ValueError, "1.2"),
        ("cdigits", dict(conflict=float("nan")), ValueError, "nan"),
        ("cdigits", dict(conflict="5%"), TypeError, "str"),
        ("cdigits", dict(severity=5), ValueError, "1..4.*5"),
        ("cdigits", dict(severity=2.0), TypeError, "2.0"),
        ("cdigits", dict(seed=-1), ValueError, "-1"),
        ("cdigits", dict(seed=0.5), TypeError, "0.5"),
        ("mnist", dict(conflict=0.1), ValueError, "conflict=0.1"),
        ("cmnist-bg", dict(severity=4), ValueError, "severity=4"),
        ("mnist", dict(test="conflicting"), ValueError, "'conflicting'"),
        ("cmnist", dict(test="biased"), ValueError, "'biased'"),
        ("cmnist", dict(frost="."), ValueError, "frost"),
        ("cmnist", dict(unknown=1), ValueError, "unknown=1"),
        ("cmnist-dd", dict(conflict=0.3), ValueError, "0.05.*0.3"),
        ("bffhq", {}, ValueError, "data_dir"),
        ("mnist", dict(data_dir="/no/where"), FileNotFoundError, "/no/where"),
        ("bgfmnist", dict(scenes=np.zeros((1, 4, 4))), TypeError, "ndarray"),
        ("mnist", dict(placement="left"), ValueError, "'left'"),
    ],
)
def test_load_rejects_bad_arguments(name, options, error, match):
    with pytest.raises(error, match=match):
        benchmarks.load(name, **options)


def test_options_that_are_not_set_are_ignored(cdigits):
    options = dict(conflict=None, label=None, skip_bad=False)
    assert digest(benchmarks.load("cdigits", **options)) == digest(cdigits)


# --- the cache ---------------------------------------------------------------------------------


def cached(tmp_path):
    return sorted((tmp_path / "cache" / "benchmarks").glob("*"))


def test_the_second_load_reads_the_cache(small, tmp_path, monkeypatch):
    folder, _ = small
    first = benchmarks.load("cmnist", data_dir=folder)
    assert len(cached(tmp_path)) == 1
    monkeypatch.delattr(benchmarks, "_make_biased")
    again = benchmarks.load("cmnist", data_dir=folder)
    assert digest(again) == digest(first) and again[3:] == first[3:]
    again.train.images[0] = 0  # arrays can be written to


def test_the_cache_is_keyed_by_options(small, tmp_path):
    folder, _ = small
    changes = dict(seed=1), dict(conflict=0.1), dict(severity=1), dict(test="conflicting")
    for options in ({}, *changes, dict(placement="corner")):
        benchmarks.load("cmnist", data_dir=folder, **options)
    assert len(cached(tmp_path)) == 6


def test_the_cache_is_keyed_by_content(cifar, tmp_path):
    """A changed byte in one batch gives another benchmark."""
    first = benchmarks.load("cifar10-s", data_dir=cifar)
    path = cifar / "cifar10" / "cifar-10-batches-bin" / "data_batch_1.bin"
    content = bytearray(path.read_bytes())
    content[1] ^= 255
    path.write_bytes(content)
    assert digest(benchmarks.load("cifar10-s", data_dir=cifar)) != digest(first)
    assert len(cached(tmp_path)) == 2


def with_another_label(path):
    arrays = files.read_arrays(path)
    arrays["train-labels"][0] += 50
    np.savez(path, **arrays)
    return path.read_bytes()


def without_checksum(path):
    arrays = files.read_arrays(path)
    del arrays["checksum"]
    np.savez(path, **arrays)
    return path.read_bytes()


DAMAGES = {
    "truncated": lambda path: path.read_bytes()[:-100],
    "empty": lambda path: b"",
    "changed": with_another_label,
    "no checksum": without_checksum,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_in_the_cache_is_made_again(small, tmp_path, damage):
    folder, _ = small
    first = benchmarks.load("cmnist", data_dir=folder)
    (path,) = cached(tmp_path)
    content = path.read_bytes()
    path.write_bytes(DAMAGES[damage](path))
    assert digest(benchmarks.load("cmnist", data_dir=folder)) == digest(first)
    assert path.read_bytes() == content


def test_the_least_recently_used_is_deleted_first(small, tmp_path, monkeypatch):
    """A cache for 2.5 files, used in the order a, b, a, c, loses b and an old temporary file."""
    folder, _ = small
    load = functools.partial(benchmarks.load, "cmnist", data_dir=folder)
    load(seed=0)
    (first,) = cached(tmp_path)
    monkeypatch.setattr(benchmarks, "_CACHE_BYTES", int(2.5 * first.stat().st_size))
    os.utime(first, (1, 1))
    load(seed=1)
    (second,) = set(cached(tmp_path)) - {first}
    os.utime(second, (2, 2))
    left_over = first.with_name(f".x.npz{files.TEMPORARY}")
    left_over.write_bytes(b"half")
    os.utime(left_over, (1, 1))
    load(seed=0)
    load(seed=2)
    assert first in cached(tmp_path) and second not in cached(tmp_path)
    assert not left_over.exists() and len(cached(tmp_path)) == 2


@pytest.mark.parametrize("fault", ["a file in its place", "no room"])
def test_a_benchmark_that_cannot_be_cached_is_returned(small, tmp_path, monkeypatch, fault):
    folder, _ = small
    if fault == "no room":

        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(files, "write_arrays", full)
    else:
        (tmp_path / "cache").write_text("not a folder")
    with pytest.warns(UserWarning, match="cmnist could not be cached"):
        data = benchmarks.load("cmnist", data_dir=folder)
    assert data.train.images.shape == (40, 32, 32, 3)


def test_processes_that_make_a_benchmark_at_once_agree(small, tmp_path):
    folder, _ = small
    with ThreadPoolExecutor(2) as pool:
        load = lambda _: digest(benchmarks.load("cmnist", data_dir=folder))
        assert len(set(pool.map(load, range(2)))) == 1
    assert len(cached(tmp_path)) == 1
