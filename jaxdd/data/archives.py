"""Read the original files of data sets that come as archives.

A file is read only if it has the official checksum. A download gets into the cache only if its
checksum is right.
"""

import functools
import gzip
import hashlib
import io
import os
import pickle
import sys
import tarfile
from typing import NamedTuple

import numpy as np

from jaxdd.data import files

TIMEOUT = 3, 30
"""Seconds to wait for a server to accept a connection, and for data to arrive."""

_TRAIN = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
_TEST = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")


class Archive(NamedTuple):
    """Address of the original files of a data set, and the md5 checksum of each by file name."""

    url: str
    md5: dict[str, str]


def _idx(url, *md5):
    """Return the archive of a set in the format of MNIST."""
    return Archive(url, dict(zip((*_TRAIN, *_TEST), md5, strict=True)))


ARCHIVES = {
    "mnist": _idx(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "fashion_mnist": _idx(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    "kmnist": _idx(
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    ),
    "svhn": Archive(
        "http://ufldl.stanford.edu/housenumbers/",
        {
            "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
            "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        },
    ),
    "cifar10": Archive(
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
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
"""Original files by the name of their data set."""

# Files that are read from archives, with their md5 checksums in case they were unpacked.
_UNPACKED = {
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

_CIFAR10_FOLDER = "cifar-10-batches-bin"
_CIFAR10_PYTHON = "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"
_CIFAR10_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
_CIFAR10_BYTES = 10_000 * 3_073


def read(
    name: str, data_dir: str | os.PathLike | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read an image set, after downloading what is missing into `files.CACHE`.

    CIFAR-10 may be the official binary folder, the binary archive or the Python archive. CIFAR-100
    and STL-10 may be the binary archive or the folder that it unpacks to. The files of the binary
    folder of CIFAR-10 have no official checksums, so only their size and the range of labels are
    checked.

    Args:
        name: one of `ARCHIVES`.
        data_dir: folder that holds the original files, directly or in a sub-folder called `name`.

    Returns:
        Images and labels (from 0), both uint8, of the training and of the test set. Images are
        [n, h, w] if they are grey and [n, h, w, 3] in colour.

    Raises:
        FileNotFoundError: files are missing, and their server cannot be reached within `TIMEOUT`.
        ValueError: a file differs from the original one.
        OSError: a download failed.
    """
    return _READERS.get(name, functools.partial(_read_idx, name))(data_dir)


def fingerprint(name: str, data_dir: str | os.PathLike | None = None) -> str:
    """Return a string that identifies the content that `read` returns, without unpacking it."""
    if name == "cifar10":
        folder, archive = _cifar10_source(data_dir)
        if archive is None:
            digest = hashlib.md5(usedforsecurity=False)
            for batch in _CIFAR10_BATCHES:
                digest.update(_read_bytes(folder / f"{batch}.bin"))
            return digest.hexdigest()
    return "-".join(ARCHIVES[name].md5.values())


# --- formats -----------------------------------------------------------------------------------


def _read_idx(name, data_dir):
    """Read MNIST or a set in its format."""
    paths, md5 = _find(name, data_dir), ARCHIVES[name].md5
    parse = lambda file: _parse_idx(_read_verified(name, paths[file], md5[file]))
    return [(parse(images), parse(labels)) for images, labels in (_TRAIN, _TEST)]


def _parse_idx(content):
    """Parse an idx-ubyte.gz file: two zero bytes, type 8, rank, big-endian sizes, values."""
    content = gzip.decompress(content)
    rank = content[3]
    shape = np.frombuffer(content, ">i4", rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _read_cifar10(data_dir):
    folder, archive = _cifar10_source(data_dir)
    if archive is None:
        paths = [folder / f"{batch}.bin" for batch in _CIFAR10_BATCHES]
        batches = [_parse_cifar10(path, _read_bytes(path)) for path in paths]
    else:
        parse = _unpickle_cifar10 if archive == _CIFAR10_PYTHON[0] else _unpack_cifar10
        md5 = dict((_CIFAR10_PYTHON,)) | ARCHIVES["cifar10"].md5
        batches = parse(_read_verified("cifar10", folder / archive, md5[archive]))
    return [
        (np.concatenate([images for images, _ in part]), np.concatenate([y for _, y in part]))
        for part in (batches[:5], batches[5:])
    ]


def _cifar10_source(data_dir):
    """Return a folder and the archive in it, or None if the folder itself holds the batches."""
    for folder in _folders("cifar10", data_dir):
        for batches in (folder / _CIFAR10_FOLDER, folder):
            if batches.name == _CIFAR10_FOLDER and batches.is_dir():
                return batches, None
        if (folder / _CIFAR10_PYTHON[0]).is_file():
            return folder, _CIFAR10_PYTHON[0]
    (path,) = _find("cifar10", data_dir).values()
    return path.parent, path.name


def _parse_cifar10(path, content):
    if len(content) != _CIFAR10_BYTES:
        raise ValueError(f"{path} must have {_CIFAR10_BYTES:,} bytes, got {len(content):,}.")
    records = _bytes(content).reshape(-1, 3073)
    labels = records[:, 0]
    if labels.max() > 9:
        raise ValueError(f"{path} must have labels in 0..9, got {labels.max()}.")
    return _channels_last(records[:, 1:]), labels


def _unpack_cifar10(content):
    members = _members(content, [f"{_CIFAR10_FOLDER}/{batch}.bin" for batch in _CIFAR10_BATCHES])
    return [_parse_cifar10(name, member) for name, member in members.items()]


def _unpickle_cifar10(content):
    # Safe only because the checksum has shown that this is the official file.
    members = _members(content, [f"cifar-10-batches-py/{batch}" for batch in _CIFAR10_BATCHES])
    batches = [pickle.loads(member, encoding="bytes") for member in members.values()]
    return [(_channels_last(batch[b"data"]), np.uint8(batch[b"labels"])) for batch in batches]


def _bytes(content):
    return np.frombuffer(content, np.uint8)


def _channels_last(pixels):
    """Return the images of records of CIFAR, which hold red, then green, then blue."""
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _read_svhn(data_dir):
    from scipy.io import loadmat

    parts = []
    for file, path in _find("svhn", data_dir).items():
        content = _read_verified("svhn", path, ARCHIVES["svhn"].md5[file])
        arrays = loadmat(io.BytesIO(content))
        # In the files, the digit zero has label 10.
        parts.append((arrays["X"].transpose(3, 0, 1, 2), np.uint8(arrays["y"].ravel() % 10)))
    return parts


def _read_cifar100(data_dir):
    # A record is the coarse label, the fine label, and the pixels.
    parts = [_bytes(content).reshape(-1, 3074) for content in _unpacked("cifar100", data_dir)]
    return [(_channels_last(part[:, 2:]), part[:, 1]) for part in parts]


def _read_stl10(data_dir):
    arrays = [_bytes(content) for content in _unpacked("stl10", data_dir)]
    # A file of images holds them by channel, column and row.
    return [
        (images.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1), labels - np.uint8(1))
        for images, labels in (arrays[:2], arrays[2:])
    ]


_READERS = {
    "cifar10": _read_cifar10,
    "cifar100": _read_cifar100,
    "svhn": _read_svhn,
    "stl10": _read_stl10,
}


# --- files -------------------------------------------------------------------------------------


def _folders(name, data_dir):
    """Return the folders that files may be in; earlier folders take precedence."""
    cache = files.CACHE.expanduser() / name
    if data_dir is None:
        return [cache]
    data_dir = files.expand(data_dir)
    return [data_dir / name, data_dir, cache]


def _find(name, data_dir):
    """Return the path of each file of an archive, after downloading the missing ones."""
    folders = _folders(name, data_dir)
    # Missing files will be in the last folder, which is the cache.
    paths = {
        file: next((f / file for f in folders if (f / file).is_file()), folders[-1] / file)
        for file in ARCHIVES[name].md5
    }
    if missing := [file for file, path in paths.items() if not path.is_file()]:
        _download(name, missing, folders)
    return paths


def _unpacked(name, data_dir):
    """Read the files of `_UNPACKED`, from a folder that holds them or from the archive."""
    md5 = _UNPACKED[name]
    for folder in _folders(name, data_dir):
        if all((folder / file).is_file() for file in md5):
            return [_read_verified(name, folder / file, md5[file]) for file in md5]
    ((archive, path),) = _find(name, data_dir).items()
    content = _read_verified(name, path, ARCHIVES[name].md5[archive])
    return list(_members(content, list(md5)).values())


def _members(content, names):
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = {name: archive.extractfile(name) for name in names}
        return {name: member.read() for name, member in members.items() if member is not None}


def _read_bytes(path):
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is not in {path.parent}")
    return path.read_bytes()


def _read_verified(name, path, md5):
    content = path.read_bytes()
    actual = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if actual != md5:
        raise ValueError(
            f"{path} is not the original file of {name}: expected md5 {md5}, got {actual} "
            f"({len(content):,} bytes); replace it or choose another data_dir."
        )
    return content


def _download(name, missing, folders):
    """Download files into the last folder."""
    import requests

    url, md5 = ARCHIVES[name]
    for file in missing:
        print(f"downloading {url}{file} into {folders[-1]}", file=sys.stderr)
        try:
            with files.atomic_path(folders[-1] / file) as path:
                if (actual := _fetch(url + file, path)) != md5[file]:
                    raise ValueError(
                        f"{url}{file} is not the original file: expected md5 {md5[file]}, "
                        f"got {actual}"
                    )
        except requests.ConnectionError as error:
            raise FileNotFoundError(
                f"{name}: {', '.join(missing)} not in {' or '.join(map(str, folders))}, and "
                f"{url} cannot be reached; put {'them' if missing[1:] else 'it'} into one of these "
                "folders, or pass another data_dir."
            ) from error
        except requests.RequestException as error:
            raise OSError(f"download of {url}{file} failed: {error}") from error


def _fetch(url, path):
    """Write the content of a URL to a file, and return its md5 checksum."""
    import requests

    digest = hashlib.md5(usedforsecurity=False)
    with requests.get(url, stream=True, timeout=TIMEOUT) as response, open(path, "wb") as file:
        response.raise_for_status()
        for chunk in response.iter_content(2**20):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()
