"""Layer 3, disk: the original files of MNIST and Fashion-MNIST, found, downloaded, verified.

No file is read whose checksum is not the official one. Downloads go through tensorflow-datasets,
which needs no TensorFlow for that.
"""

import gzip
import hashlib
import os
import pathlib
import socket
import tempfile
import urllib.parse
import urllib.request
from typing import NamedTuple

import numpy as np

CACHE = pathlib.Path("~/.cache/jaxdd")
"""Where downloads are kept, one folder per archive."""

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
}


def find(name: str, data_dir: str | os.PathLike | None = None) -> dict[str, pathlib.Path]:
    """Finds the four files of an archive, or downloads what is missing into `CACHE`.

    Args:
      name: of the archive.
      data_dir: folder that holds the files, or a folder with the archive's name that does.

    Returns:
      The path of each file, by its name; not yet verified unless downloaded.

    Raises:
      FileNotFoundError: files are missing and cannot be downloaded, which a probe of three seconds
        finds out.
      ValueError: a download that is not the original file.
      OSError: a download that failed.
    """
    cache = CACHE.expanduser() / name
    folders = [cache]
    if data_dir is not None:
        data_dir = pathlib.Path(data_dir).expanduser()
        folders = [data_dir / name, data_dir, cache]
    archive = ARCHIVES[name]
    found = {
        file: next((f / file for f in folders if (f / file).is_file()), None)
        for file in archive.md5
    }
    missing = [file for file, path in found.items() if path is None]
    if not missing:
        return found
    if not _reachable(archive.url):
        raise FileNotFoundError(
            f"{name}: {', '.join(missing)} not found in {' or '.join(map(str, folders))}, and "
            f"{archive.url} cannot be reached; put the four files into one of these folders"
        )
    _download(archive, missing, cache)
    return found | {file: cache / file for file in missing}


def read(name: str, path: pathlib.Path) -> np.ndarray:
    """Returns the uint8 array in an idx-ubyte.gz file of an archive, once its checksum is right.

    The format is two zero bytes, type 8, the rank, big-endian sizes, then the values.

    Raises:
      ValueError: the file is not the original one; its checksum and the expected one are named.
    """
    # Unpacked in memory: an extraction folder shared by both archives, whose files have the same
    # names, hands out one for the other.
    content = gzip.decompress(_read_verified(path, ARCHIVES[name].md5[path.name]))
    rank = content[3]
    shape = np.frombuffer(content, ">i4", rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _reachable(url):
    # Asked first, because TFDS goes on trying for minutes where there is no network.
    parts = urllib.parse.urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme, proxies.get("all"))
    if proxy and not urllib.request.proxy_bypass(parts.hostname):
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=3).close()
    except OSError:
        return False
    return True


def _download(archive, files, folder):
    import tensorflow_datasets as tfds

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        manager = tfds.download.DownloadManager(download_dir=scratch)
        # One at a time: after a failure TFDS leaves the other downloads of a batch running.
        for file in files:
            try:
                path = manager.download(archive.url + file)
            except Exception as error:  # TFDS, requests and promise each raise their own kinds
                raise OSError(f"download of {archive.url}{file} failed: {error}") from error
            _read_verified(path, archive.md5[file])
            os.replace(path, folder / file)


def _read_verified(path, expected):
    content = pathlib.Path(path).read_bytes()
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} is not the original file: found md5 {found} ({len(content):,} bytes), "
            f"expected {expected}; delete or replace it"
        )
    return content
