"""Disk: original files of data sets that come as archives, found and verified.

No archive is read whose checksum is not the official one. Downloads go through pooch, which puts
a file into the cache only once its checksum is right.
"""

import functools
import gzip
import hashlib
import io
import os
import pathlib
import pickle
import tarfile
from typing import Any, NamedTuple

import numpy as np

from jaxdd.data import files

TIMEOUT = 3, 30
"""Seconds that a server may take to accept a connection, and to send anything at all."""

TRAIN = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
TEST = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")


class Archive(NamedTuple):
    """Where the files of a data set come from: address, and md5 checksum by file name."""

    url: str
    md5: dict[str, str]


ARCHIVES = {
    "mnist": Archive(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        {
            TRAIN[0]: "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            TRAIN[1]: "d53e105ee54ea40749a09fcbcd1e9432",
            TEST[0]: "9fb629c4189551a2d022fa330f9573f3",
            TEST[1]: "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion_mnist": Archive(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            TRAIN[0]: "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            TRAIN[1]: "25c81989df183df01b3e8a0aad5dffbe",
            TEST[0]: "bef4ecab320f06d8554ea6380940ec79",
            TEST[1]: "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    "cifar10": Archive(
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
    ),
    "kmnist": Archive(
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        {
            TRAIN[0]: "bdb82020997e1d708af4cf47b453dcf7",
            TRAIN[1]: "e144d726b3acfaa3e44228e80efcd344",
            TEST[0]: "5c965bf0a639b31b8f53240b1b52f4d7",
            TEST[1]: "7320c461ea6c1c855c0b718fb2a4b134",
        },
    ),
    "svhn": Archive(
        "http://ufldl.stanford.edu/housenumbers/",
        {
            "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
            "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        },
    ),
    "cifar100": Archive(
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
    ),
    "stl10": Archive(
        "http://ai.stanford.edu/~acoates/stl10/",
        {"stl10_binary.tar.gz": "91f7769df0f17e558f3565bffb0c7dfb"},
    ),
}

UNPACKED = {
    "cifar100": {
        "cifar-100-binary/train.bin": "6172c7755cfe09b2fe270c85cebc1b15",
        "cifar-100-binary/test.bin": "4499cfba6c016c1be1438163640a0898",
    },
    "stl10": {
        "stl10_binary/train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
        "stl10_binary/train_y.bin": "5a34089d4802c674881badbb80307741",
        "stl10_binary/test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
        "stl10_binary/test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
    },
}
"""What is read of archives, and the md5 checksum of each file where somebody unpacked them."""

_CIFAR10_FOLDER = "cifar-10-batches-bin"
_CIFAR10_PYTHON = "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"
_CIFAR10_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
_CIFAR10_BYTES = 10_000 * 3_073


def find(name: str, data_dir: str | os.PathLike | None = None) -> dict[str, pathlib.Path]:
    """Finds the files of an archive, or downloads what is missing into `files.CACHE`.

    Args:
        name: of the archive.
        data_dir: folder that holds the files, or a folder with the archive's name that does.

    Returns:
        The path of each file, by its name; not yet verified unless downloaded.

    Raises:
        FileNotFoundError: files are missing, and their server cannot be reached within `TIMEOUT`.
        ValueError: a download that is not the original file.
        OSError: a download that failed.
    """
    files, folders = ARCHIVES[name].md5, _folders(name, data_dir)
    found = {
        file: path
        for folder in reversed(folders)  # the first one has the last word
        for file in files
        if (path := folder / file).is_file()
    }
    missing = [file for file in files if file not in found]
    return found | _download(name, missing, folders) if missing else found


def read(name: str, path: pathlib.Path) -> np.ndarray:
    """Returns the uint8 array in an idx-ubyte.gz file of an archive, once its checksum is right.

    The format is two zero bytes, type 8, the rank, big-endian sizes, then the values.

    Raises:
        ValueError: the file is not the original one; its checksum and the expected one are named.
    """
    # Unpacked in memory: an extraction folder shared by both archives, whose files have the same
    # names, hands out one for the other.
    content = gzip.decompress(_read_verified(name, path, ARCHIVES[name].md5[path.name]))
    rank = content[3]
    shape = np.frombuffer(content, ">i4", rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def cifar10(data_dir: str | os.PathLike | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Reads CIFAR-10 from the official binary folder, or the binary or Python archive.

    Args:
        data_dir: folder that holds `cifar-10-batches-bin`, `cifar-10-binary.tar.gz` or
            `cifar-10-python.tar.gz`, or a folder `cifar10` that does. Without any of them, the
            binary archive is looked for in `files.CACHE` and downloaded there.

    Returns:
        Images [n, 32, 32, 3] and labels [n], both uint8, of the 50,000 training and the 10,000 test
        images. The files of the binary folder have no official checksums: their size and the range
        of their labels are checked.

    Raises:
        ValueError: an archive that is not the official one, or a batch of another size or content.
        FileNotFoundError, OSError: as `find`.
    """
    folder, archive = _cifar10_source(data_dir)
    if archive is None:
        batches = [_cifar10_batch(folder / f"{batch}.bin") for batch in _CIFAR10_BATCHES]
    else:
        unpack = _cifar10_pickled if archive == _CIFAR10_PYTHON[0] else _cifar10_unpacked
        expected = dict((_CIFAR10_PYTHON,)) | ARCHIVES["cifar10"].md5
        batches = unpack(_read_verified("cifar10", folder / archive, expected[archive]))
    return [
        (np.concatenate([images for images, _ in part]), np.concatenate([y for _, y in part]))
        for part in (batches[:5], batches[5:])
    ]


def svhn(data_dir: str | os.PathLike | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Reads the cropped digits of SVHN from `train_32x32.mat` and `test_32x32.mat`.

    Args:
        data_dir: folder that holds them, or a folder `svhn` that does.

    Returns:
        Images [n, 32, 32, 3] and labels [n], both uint8, for training and for testing; the zero,
        which the files call 10, is 0.

    Raises:
        ValueError, FileNotFoundError, OSError: as `find` and `read`.
    """
    from scipy.io import loadmat

    parts = []
    for name, path in find("svhn", data_dir).items():
        content = _read_verified("svhn", path, ARCHIVES["svhn"].md5[name])
        found = loadmat(io.BytesIO(content))
        parts.append((found["X"].transpose(3, 0, 1, 2), np.uint8(found["y"].ravel() % 10)))
    return parts


def cifar100(data_dir: str | os.PathLike | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Reads CIFAR-100 from the official binary archive, or the folder that it unpacks to.

    Args:
        data_dir: folder that holds `cifar-100-binary.tar.gz` or `cifar-100-binary`, or a folder
            `cifar100` that does.

    Returns:
        Images [n, 32, 32, 3] and fine labels [n], both uint8, for training and for testing.

    Raises:
        ValueError, FileNotFoundError, OSError: as `find` and `read`.
    """
    records = [
        np.frombuffer(content, np.uint8).reshape(-1, 3074)
        for content in _contents("cifar100", data_dir)
    ]
    return [(r[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), r[:, 1]) for r in records]


def stl10(data_dir: str | os.PathLike | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Reads the labelled images of STL-10 from the binary archive, or the folder it unpacks to.

    Args:
        data_dir: folder that holds `stl10_binary.tar.gz` or `stl10_binary`, or a folder `stl10`
            that does.

    Returns:
        Images [n, 96, 96, 3] and labels [n] from 0, both uint8, for training and for testing.

    Raises:
        ValueError, FileNotFoundError, OSError: as `find` and `read`.
    """
    contents = [np.frombuffer(content, np.uint8) for content in _contents("stl10", data_dir)]
    # The files hold columns first.
    return [
        (images.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1), labels - np.uint8(1))
        for images, labels in (contents[:2], contents[2:])
    ]


def fingerprint(name: str, data_dir: str | os.PathLike | None = None) -> str:
    """Returns a digest of the content that reading the archive gives, without unpacking it.

    Raises:
        FileNotFoundError, OSError: as `find`.
    """
    if name == "cifar10":
        folder, archive = _cifar10_source(data_dir)
        if archive is None:
            digest = hashlib.md5(usedforsecurity=False)
            for batch in _CIFAR10_BATCHES:
                digest.update(_existing(folder / f"{batch}.bin").read_bytes())
            return digest.hexdigest()
    return "-".join(ARCHIVES[name].md5.values())


def _folders(name, data_dir):
    """Where files may lie, the cache last."""
    folders = [files.CACHE.expanduser() / name]
    if data_dir is not None:
        data_dir = files.expand(data_dir)
        folders = [data_dir / name, data_dir, *folders]
    return folders


def _contents(name, data_dir):
    """The files of `UNPACKED`, verified, from a folder that holds them or from the archive."""
    expected = UNPACKED[name]
    for folder in _folders(name, data_dir):
        if all((folder / file).is_file() for file in expected):
            return [_read_verified(name, folder / file, md5) for file, md5 in expected.items()]
    ((archive, path),) = find(name, data_dir).items()
    content = _read_verified(name, path, ARCHIVES[name].md5[archive])
    return list(_members(content, list(expected)).values())


def _cifar10_source(data_dir):
    """A folder, and the archive in it, or None if the folder itself holds the batches."""
    for folder in _folders("cifar10", data_dir):
        for batches in (folder / _CIFAR10_FOLDER, folder):
            if batches.name == _CIFAR10_FOLDER and batches.is_dir():
                return batches, None
        if (folder / _CIFAR10_PYTHON[0]).is_file():
            return folder, _CIFAR10_PYTHON[0]
    (path,) = find("cifar10", data_dir).values()
    return path.parent, path.name


def _cifar10_batch(path, content=None):
    content = _existing(path).read_bytes() if content is None else content
    if len(content) != _CIFAR10_BYTES:
        raise ValueError(f"{path} must have {_CIFAR10_BYTES:,} bytes, found {len(content):,}")
    records = np.frombuffer(content, np.uint8).reshape(-1, 3073)
    images, labels = records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]
    if labels.max() > 9:
        raise ValueError(f"{path} must have labels in 0..9, found {labels.max()}")
    return images.transpose(0, 2, 3, 1), labels


def _cifar10_unpacked(content):
    members = _members(content, [f"{_CIFAR10_FOLDER}/{batch}.bin" for batch in _CIFAR10_BATCHES])
    return [_cifar10_batch(name, member) for name, member in members.items()]


def _cifar10_pickled(content):
    # Unpickled only because the checksum says that this is the official file.
    members = _members(content, [f"cifar-10-batches-py/{batch}" for batch in _CIFAR10_BATCHES])
    stored = [pickle.loads(member, encoding="bytes") for member in members.values()]
    return [
        (batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.uint8(batch[b"labels"]))
        for batch in stored
    ]


def _members(content, names):
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = {name: archive.extractfile(name) for name in names}
        return {name: file.read() for name, file in files.items() if file is not None}


def _existing(path):
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} not found in {path.parent}")
    return path


def _download(name, files, folders):
    import pooch
    import requests

    url, md5 = ARCHIVES[name]
    downloader: Any = pooch.HTTPDownloader(timeout=TIMEOUT)  # which pooch's own protocol disowns
    keep = functools.partial(pooch.retrieve, path=folders[-1], downloader=downloader)
    found = {}
    for file in files:
        try:
            found[file] = pathlib.Path(keep(url + file, f"md5:{md5[file]}", file))
        except requests.ConnectionError as error:
            raise FileNotFoundError(
                f"{name}: {', '.join(files)} not found in {' or '.join(map(str, folders))}, and "
                f"{url} cannot be reached; put {'them' if files[1:] else 'it'} into one of these "
                "folders, or give the folder above yours as data-dir"
            ) from error
        except requests.RequestException as error:
            raise OSError(f"download of {url}{file} failed: {error}") from error
        except ValueError as error:
            raise ValueError(f"{url}{file} is not the original file: {error}") from error
    return found


def _read_verified(name, path, expected):
    content = path.read_bytes()
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} is not the original file of {name}: found md5 {found} "
            f"({len(content):,} bytes), expected {expected}; replace it or choose another data_dir"
        )
    return content
