"""Small stand-ins for the original files of image sets, and an empty cache without network."""

import gzip
import hashlib
import shutil

import numpy as np
import pytest
import requests

from jaxdd.data import archives, files


def unreachable(*_, **__):
    raise requests.ConnectionError("no network")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Replace downloads by failures without network, and the cache by an empty folder."""
    for method in ("get", "head"):
        monkeypatch.setattr(requests, method, unreachable)
    monkeypatch.setattr(files, "CACHE", tmp_path / "cache")


def idx(array):
    """Return the gzipped idx file of a uint8 array."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return gzip.compress(header + array.tobytes(), mtime=0)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A folder with 40 + 40 random images in the format of MNIST, and their arrays by file."""
    rng = np.random.default_rng(0)
    arrays = {}
    for images, labels in (archives._TRAIN, archives._TEST):
        arrays[images] = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8)
        arrays[labels] = rng.permutation(np.arange(40, dtype=np.uint8) % 10)
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for file, array in arrays.items():
        (folder / file).write_bytes(idx(array))
    md5 = {file: hashlib.md5((folder / file).read_bytes()).hexdigest() for file in arrays}
    archive = archives.ARCHIVES["mnist"]._replace(md5=md5)
    monkeypatch.setitem(archives.ARCHIVES, "mnist", archive)
    return folder, arrays


@pytest.fixture
def cifar(monkeypatch, tmp_path):
    """A data_dir with a random CIFAR-10: six batches of 60 images in the binary format."""
    monkeypatch.setattr(archives, "_CIFAR10_BYTES", 60 * 3073)
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name in archives._CIFAR10_BATCHES:
        records = rng.integers(0, 256, (60, 3073), dtype=np.uint8)
        records[:, 0] = rng.permutation(60) % 10
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return tmp_path / "data"


@pytest.fixture
def clothes(small, cifar, monkeypatch):
    """A data_dir with random MNIST, Fashion-MNIST and CIFAR-10."""
    folder, _ = small
    shutil.copytree(folder, cifar / "fashion_mnist")
    monkeypatch.setitem(archives.ARCHIVES, "fashion_mnist", archives.ARCHIVES["mnist"])
    return cifar
