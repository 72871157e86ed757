"""Archives: original files are read in every official form, verified, and downloaded if missing.

No test touches the network: downloads are replaced, or come from a server on this machine.
"""

import functools
import hashlib
import http.server
import io
import pickle
import shutil
import socket
import tarfile
import threading

import numpy as np
import pytest
import requests
from scipy.io import savemat

from jaxdd.data import archives, benchmarks, datasets

get = requests.get


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def write_tar(path, contents):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return md5(path.read_bytes())


def register(monkeypatch, name, md5, url=""):
    monkeypatch.setitem(archives.ARCHIVES, name, archives.Archive(url, md5))


# --- formats -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["data_dir/mnist", "data_dir"])
@pytest.mark.parametrize("placement, start", [("centre", 2), ("corner", 4)])
def test_mnist_is_read_and_padded(small, layout, placement, start):
    folder, arrays = small
    data_dir = folder.parent if layout == "data_dir/mnist" else str(folder)
    data = benchmarks.load("mnist", data_dir=data_dir, placement=placement)
    for part, (images, labels) in ((data.train, archives._TRAIN), (data.test, archives._TEST)):
        inner = part.images[:, start : start + 28, start : start + 28, 0]
        assert (inner == arrays[images]).all()
        assert part.images.shape[1:] == (32, 32, 1)
        assert part.images.sum(dtype=int) == arrays[images].sum(dtype=int)
        assert (part.labels == arrays[labels]).all() and part.labels.dtype == np.int32
    assert (data.mean, data.std) == ((0.1307,), (0.3081,)) and "flip" not in data.strategy


def moments(images):
    """Return mean and deviation of the unpadded images, from the counts of their 256 levels."""
    counts = np.bincount(images[:, 2:30, 2:30].ravel(), minlength=256)
    shares, levels = counts / counts.sum(), np.arange(256) / 255
    mean = shares @ levels
    return mean, np.sqrt(shares @ (levels - mean) ** 2)


def test_original_mnist(data_dir):
    """Mean and deviation of unpadded images are the published ones; labels begin with 5 0 4 1 9."""
    data = benchmarks.load("mnist", data_dir=data_dir)
    assert moments(data.train.images) == pytest.approx((data.mean[0], data.std[0]), abs=5e-5)
    assert data.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert len(data.train.labels) == 60_000 and len(data.test.labels) == 10_000


def test_original_fashion_mnist_is_not_mnist(data_dir):
    data = benchmarks.load("fashion_mnist", data_dir=data_dir)
    assert moments(data.train.images) == pytest.approx((data.mean[0], data.std[0]), abs=1e-4)
    assert np.bincount(data.train.labels).tolist() == [6000] * 10
    assert "flip" in data.strategy
    with pytest.raises(ValueError, match="train-images.*8d4fb7e6"):
        benchmarks.load("fashion_mnist", data_dir=data_dir / "mnist")


def pack_cifar(cifar, monkeypatch, kind):
    """Replace the folder of batches by the binary or the Python archive, and return its path."""
    folder = cifar / "cifar10" / "cifar-10-batches-bin"
    path = cifar / "cifar10" / f"cifar-10-{kind}.tar.gz"
    contents = {}
    for name in archives._CIFAR10_BATCHES:
        content = (folder / f"{name}.bin").read_bytes()
        if kind == "binary":
            contents[f"{folder.name}/{name}.bin"] = content
        else:
            records = np.frombuffer(content, np.uint8).reshape(-1, 3073)
            batch = {b"data": records[:, 1:], b"labels": records[:, 0].tolist()}
            contents[f"cifar-10-batches-py/{name}"] = pickle.dumps(batch)
    shutil.rmtree(folder)
    checksum = write_tar(path, contents)
    if kind == "python":
        monkeypatch.setattr(archives, "_CIFAR10_PYTHON", (path.name, checksum))
    else:
        register(monkeypatch, "cifar10", {path.name: checksum})
    return path


def test_cifar10_from_the_binary_folder(cifar):
    """A record is the label, then 1,024 red, green and blue levels, row by row."""
    data = benchmarks.load("cifar10", data_dir=cifar)
    assert data.train.images.shape == (300, 32, 32, 3) and data.test.labels.shape == (60,)
    content = (cifar / "cifar10" / "cifar-10-batches-bin" / "data_batch_2.bin").read_bytes()
    record = content[3073 * 7 : 3073 * 8]
    assert data.train.labels[67] == record[0]
    for channel, row, column in ((0, 0, 0), (1, 5, 30), (2, 31, 2)):
        level = record[1 + 1024 * channel + 32 * row + column]
        assert data.train.images[67, row, column, channel] == level
    assert data.num_attributes == 0 and data.class_names[3] == "cat" and "flip" in data.strategy


@pytest.mark.parametrize("kind", ["binary", "python"])
def test_cifar10_from_an_archive(cifar, monkeypatch, kind):
    expected = datasets.digest(benchmarks.load("cifar10", data_dir=cifar))
    path = pack_cifar(cifar, monkeypatch, kind)
    assert datasets.digest(benchmarks.load("cifar10", data_dir=cifar)) == expected
    assert datasets.digest(benchmarks.load("cifar10", data_dir=path.parent)) == expected
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{path} is not the original file"):
        benchmarks.load("cifar10", data_dir=cifar)


def test_damaged_batches_of_cifar10_are_reported(cifar):
    folder = cifar / "cifar10" / "cifar-10-batches-bin"
    path = folder / "data_batch_3.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="data_batch_3.bin.*184,380.*184,379"):
        benchmarks.load("cifar10", data_dir=cifar)
    path.write_bytes(b"\x0a" + content[1:])
    with pytest.raises(ValueError, match="0..9.*10"):
        benchmarks.load("cifar10", data_dir=cifar)
    (folder / "data_batch_1.bin").unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_1.bin"):
        benchmarks.load("ccifar10", data_dir=cifar)
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError, match="cifar10: cifar-10-binary.tar.gz"):
        benchmarks.load("cifar10", data_dir=cifar)


def records(name, part):
    """Return the binary files of a part, whose pixels are numbered in the order of the file."""
    n = {"train": 4, "test": 2}[part]
    if name == "cifar100":
        pixels = np.arange(n * 3072, dtype=np.uint32).reshape(n, 3072).astype(np.uint8)
        heads = np.stack([np.full(n, 7), np.arange(n) * 33], 1).astype(np.uint8)
        return {f"cifar-100-binary/{part}.bin": np.hstack([heads, pixels]).tobytes()}
    pixels = np.arange(n * 3 * 96 * 96, dtype=np.uint32).astype(np.uint8)
    labels = (np.arange(n) % 10 + 1).astype(np.uint8)
    contents = {"X": pixels.tobytes(), "y": labels.tobytes()}
    return {f"stl10_binary/{part}_{kind}.bin": content for kind, content in contents.items()}


def write(folder, contents):
    for file, content in contents.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("name", ["cifar100", "stl10"])
def test_binary_sets(tmp_path, monkeypatch, name, packed):
    """Pixels are stored by channel, then by row (in STL-10, by column)."""
    contents = records(name, "train") | records(name, "test")
    if packed:
        (archive,) = archives.ARCHIVES[name].md5
        register(monkeypatch, name, {archive: write_tar(tmp_path / archive, contents)})
    else:
        write(tmp_path / name, contents)
        sums = {file: md5(content) for file, content in contents.items()}
        monkeypatch.setitem(archives._UNPACKED, name, sums)
    (images, labels), (test_images, _) = archives.read(name, tmp_path)
    side = images.shape[1]
    assert images.shape == (4, side, side, 3) and len(test_images) == 2
    assert labels.tolist() == ([0, 33, 66, 99] if name == "cifar100" else [0, 1, 2, 3])
    second, first = (1, 2) if name == "cifar100" else (2, 1)
    image = images[0].astype(int)
    assert image.take(1, first - 1)[0, 0] == 1 and image.take(1, second - 1)[0, 0] == side
    assert image[0, 0].tolist() == [0, side * side % 256, 2 * side * side % 256]


def test_a_changed_binary_file_is_reported(tmp_path):
    write(tmp_path, records("stl10", "train") | records("stl10", "test"))
    with pytest.raises(ValueError, match="train_X.bin is not the original file of stl10"):
        benchmarks.load("stl10", data_dir=tmp_path)


def test_svhn(tmp_path, monkeypatch):
    """Files hold images [h, w, c, n], and label 10 for the digit zero."""
    sums, rng = {}, np.random.default_rng(0)
    for part, labels in (("train", [10, 1, 9]), ("test", [2, 10])):
        images = rng.integers(0, 256, (32, 32, 3, len(labels)), np.uint8)
        images[0, 1, 2] = np.arange(len(labels))
        path = tmp_path / f"{part}_32x32.mat"
        savemat(path, {"X": images, "y": np.array(labels, np.uint8)[:, None]})
        sums[path.name] = md5(path.read_bytes())
    register(monkeypatch, "svhn", sums)
    data = benchmarks.load("svhn", data_dir=tmp_path)
    assert data.train.labels.tolist() == [0, 1, 9] and data.test.labels.tolist() == [2, 0]
    assert data.train.images[:, 0, 1, 2].tolist() == [0, 1, 2]
    assert data.num_classes == 10 and data.strategy == datasets.UNFLIPPED and len(data.mean) == 3


# --- files and downloads -----------------------------------------------------------------------


@pytest.mark.parametrize("damage", [lambda c: c[:-1] + b"?", lambda c: c[:-5], lambda c: b""])
def test_damaged_files_are_reported_with_both_checksums(small, damage):
    folder, _ = small
    path = folder / archives._TEST[1]
    content = path.read_bytes()
    path.write_bytes(damage(content))
    expected, actual = md5(content), md5(damage(content))
    with pytest.raises(ValueError, match=f"{path}.*{expected}.*{actual}"):
        benchmarks.load("mnist", data_dir=folder)


def test_missing_files_without_network(small, tmp_path):
    folder, _ = small
    (folder / archives._TRAIN[0]).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        benchmarks.load("cmnist", data_dir=folder.parent)
    message = str(caught.value)
    for part in (folder, folder.parent, tmp_path / "cache" / "mnist", archives._TRAIN[0]):
        assert f"{part}" in message
    assert "https://storage.googleapis.com/cvdf-datasets/mnist/" in message
    assert "labels" not in message and "\n" not in message


@pytest.fixture
def online(monkeypatch):
    """Allow downloads, without the proxies of this machine."""
    monkeypatch.setattr(requests, "get", get)
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)


def move(monkeypatch, url):
    register(monkeypatch, "mnist", archives.ARCHIVES["mnist"].md5, url)


def test_a_closed_port_and_an_unknown_host(online, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/", "https://nowhere.invalid/"):
        move(monkeypatch, url)
        with pytest.raises(FileNotFoundError, match=f"{url} cannot be reached"):
            benchmarks.load("mnist")


def test_a_server_that_does_not_answer(online, monkeypatch):
    monkeypatch.setattr(archives, "TIMEOUT", (3, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as server:
        move(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}/")
        with pytest.raises(OSError, match="http://127.*train-images.*timed out"):
            benchmarks.load("mnist")


def test_only_missing_files_are_downloaded_and_only_once(small, monkeypatch):
    folder, arrays = small
    path = folder / archives._TRAIN[1]
    content = path.read_bytes()
    path.unlink()
    downloads = []

    def download(url, *, timeout, stream):
        downloads.append((url, timeout, stream))
        response = requests.Response()
        response.status_code, response.raw = 200, io.BytesIO(content)
        return response

    monkeypatch.setattr(requests, "get", download)
    for _ in range(2):
        labels = benchmarks.load("mnist", data_dir=folder).train.labels
        assert (labels == arrays[archives._TRAIN[1]]).all()
    url = archives.ARCHIVES["mnist"].url + archives._TRAIN[1]
    assert downloads == [(url, archives.TIMEOUT, True)]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(small, online, monkeypatch):
    """Serve the small archive on this machine, under its folder name."""
    folder, _ = small
    handler = functools.partial(_Quiet, directory=str(folder.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        move(monkeypatch, f"http://127.0.0.1:{server.server_port}/mnist/")
        yield folder
        server.shutdown()
        thread.join()


def test_downloads_are_kept_in_the_cache(small, server, tmp_path):
    _, arrays = small
    data = benchmarks.load("mnist")
    assert (data.test.labels == arrays[archives._TEST[1]]).all()
    cached = tmp_path / "cache" / "mnist"
    assert sorted(p.name for p in cached.iterdir()) == sorted(arrays)


def test_downloads_go_through_a_proxy(server, monkeypatch):
    """The proxy is the server, which answers 404 for a host that does not exist."""
    proxy = archives.ARCHIVES["mnist"].url
    move(monkeypatch, "http://nowhere.invalid/")
    for variable, address in (("http_proxy", proxy), ("all_proxy", proxy[7:])):
        with monkeypatch.context() as patch:
            patch.setenv("no_proxy", "")
            patch.setenv(variable, address)
            with pytest.raises(OSError, match="http://nowhere.invalid/.*404"):
                benchmarks.load("mnist")


@pytest.mark.parametrize("fault", ["absent", "corrupt"])
def test_failed_downloads_leave_nothing_behind(server, tmp_path, fault):
    path = server / archives._TEST[0]
    path.unlink()
    if fault == "corrupt":
        path.write_bytes(b"<html>please log in</html>")
    error, match = {
        "absent": (OSError, "http://127.0.0.1:.*t10k-images.*404"),
        "corrupt": (ValueError, "t10k-images.* is not the original file"),
    }[fault]
    with pytest.raises(error, match=match):
        benchmarks.load("mnist")
    assert {p.name for p in (tmp_path / "cache" / "mnist").iterdir()} == {*archives._TRAIN}
