"""Decode the images of a folder into memory, or once into a file that is memory-mapped.

Large sets are decoded into an .npy file that is memory-mapped: training images first, then test
images, so that each split is a slice that needs no copy. The file name is a hash of everything that
the content depends on. A JSON file next to it holds checksums of its blocks and is written last. An
array file without it was left by a killed process and is never read.
"""

import collections
import contextlib
import errno
import glob
import hashlib
import itertools
import json
import math
import os
import pathlib
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import Any, NamedTuple

import filelock
import numpy as np

from jaxdd.data import decoding, files, splits
from jaxdd.data._layouts import Row

_VERSION = 2  # increase if decoding changes
_SPLITS = ("train", "test")


class Request(NamedTuple):
    """Images to read, and how.

    Attributes:
        root: the folder, as an absolute path.
        rows: image files in it; all or none have a split.
        class_names: classes in the order of their index.
        resize: height and width, or None; see `decoding.survey`.
        skip_bad: whether to leave out images that do not decode, instead of raising.
        seed: random seed of the test split if no row has a split; None for no split.
        threads: number of decoding threads.
    """

    root: pathlib.Path
    rows: Sequence[Row]
    class_names: tuple[str, ...]
    resize: int | None
    skip_bad: bool
    seed: int | None
    threads: int | None

    @property
    def draws_test(self) -> bool:
        """Whether the test images are drawn."""
        return self.seed is not None and self.rows[0].split is None

    @property
    def decoding_options(self) -> dict[str, Any]:
        """Keyword arguments of `decoding.survey` and `decoding.decode`."""
        return {"skip_bad": self.skip_bad, "threads": self.threads}

    def name(self, row: Row) -> str:
        """Return the path of an image relative to the folder."""
        return row.file.removeprefix(str(self.root)).lstrip(os.sep)

    def missing(self, rows: Sequence[Row]) -> list[str]:
        """Return the relative paths of images that are not among these rows."""
        present = {row.file for row in rows}
        return [self.name(row) for row in self.rows if row.file not in present]


class Decoded(NamedTuple):
    """Decoded images.

    Attributes:
        images: uint8 [n, h, w, c], training images first.
        rows: their rows.
        notes: sentences on how sizes and levels were changed.
    """

    images: np.ndarray
    rows: list[Row]
    notes: list[str]


def read(request: Request, cache: pathlib.Path | None, *, map_from: int, budget: int) -> Decoded:
    """Decode images, or map them if they are in the cache.

    Args:
        request: the images.
        cache: folder of mapped files, which is used for images of any size. None for the default
            cache, which is used for at least `map_from` bytes and pruned to `budget` bytes.
        map_from: minimum size in bytes of the decoded images for mapping them.
        budget: maximal size of the default cache in bytes.
    """
    # An upper bound; the size is known only after the headers have been read.
    most = len(request.rows) * 3 * (request.resize or decoding.LARGEST) ** 2
    path = None if cache is None and most < map_from else _path(request, cache)
    if path is not None and (cached := _read_cached(path, request)) is not None:
        return cached
    names = [row.file for row in request.rows]
    readable, shape, white = decoding.survey(names, request.resize, **request.decoding_options)
    rows = list(itertools.compress(request.rows, readable))
    size = len(rows) * math.prod(shape)
    if path is None or (cache is None and size < map_from):
        return _decode(request, rows, shape, white)
    path.parent.mkdir(parents=True, exist_ok=True)
    # One lock for all files of a folder, so that whoever holds it may delete unfinished ones.
    prefix, _ = path.name.rsplit("-", 1)
    with filelock.FileLock(path.with_name(prefix + files.LOCK)):
        if (cached := _read_cached(path, request)) is not None:  # just written
            return cached
        for unfinished in path.parent.glob(f".{glob.escape(prefix)}*{files.TEMPORARY}"):
            unfinished.unlink(missing_ok=True)
        if cache is None:
            files.prune(path.parent, budget - size)
        if (free := shutil.disk_usage(path.parent).free) < size:
            reason = f"{size:,} bytes of images, room for {free:,}; pass another folder as cache"
            raise OSError(errno.ENOSPC, reason, str(path))
        return _decode(request, rows, shape, white, path)


def _decode(request, rows, shape, white, path=None):
    """Decode images into memory, or into a file that is mapped."""
    ordered, facts = _training_first(request, rows), {}
    images = np.empty((len(rows) if path is None else 0, *shape), np.uint8)
    with _row_filler(images) if path is None else _row_writer(path, shape, facts) as add:
        names = [row.file for row in ordered]
        sizes = decoding.decode(names, shape, add, white=white, **request.decoding_options)
        decoded = [row for row, size in zip(ordered, sizes, strict=True) if size is not None]
        facts["skipped"], facts["order"] = request.missing(decoded), _order(request, decoded)
        facts["notes"] = _notes(sizes, shape, white)
    if len(decoded) < len(rows) and request.draws_test:
        # The split must not include images that do not decode. These are known only now, so decode
        # again.
        good = {row.file for row in decoded}
        return _decode(request, [row for row in rows if row.file in good], shape, white, path)
    if path is not None:
        images = np.lib.format.open_memmap(path, mode="r")
    return Decoded(images[: len(decoded)], decoded, facts["notes"])


@contextlib.contextmanager
def _row_filler(images):
    """Yield a function that fills an array row by row."""
    start = 0

    def add(rows):
        nonlocal start
        images[start : start + len(rows)] = rows
        start += len(rows)

    yield add


def _notes(sizes, shape, white):
    """Return sentences on images of other sizes and on 16-bit images that do not use 16 bits."""
    height, width, _ = shape
    counts = collections.Counter(size for size in sizes if size is not None)
    total, resized = counts.total(), counts.total() - counts.pop((width, height), 0)
    notes = []
    if resized:
        common = ", ".join(f"{n} of {w}×{h}" for (w, h), n in counts.most_common(3))
        rest = f" and {len(counts) - 3} other sizes" if len(counts) > 3 else ""
        notes.append(f"resized {resized} of {total} images to {width}×{height}: {common}{rest}")
    if white < 2**16 - 1:
        notes.append(f"no level of 16-bit images exceeds {white:,}, which is taken for white")
    return notes


def _training_first(request, rows):
    """Sort rows by split, after drawing the splits if they are not given."""
    if request.draws_test:
        index = {name: i for i, name in enumerate(request.class_names)}
        labels = np.array([index[row.label] for row in rows])
        test = splits.draw_test(labels, seed=request.seed, names=request.class_names)
        rows = [row._replace(split=_SPLITS[int(t)]) for row, t in zip(rows, test, strict=True)]
    return sorted(rows, key=lambda row: row.split == "test")


def _read_cached(path, request):
    """Return cached images and their rows, or None if they are absent or damaged."""
    try:
        images, facts = _read_rows(path)
        skipped, notes = set(facts["skipped"]), list(facts["notes"])
        rows = [row for row in request.rows if request.name(row) not in skipped]
        rows = _training_first(request, rows)
        if facts["order"] != _order(request, rows):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with contextlib.suppress(OSError):  # a cache that is read-only for this user
        _touch(path)
    return Decoded(images, rows, notes)


def _order(request, rows):
    # A file name cannot contain a NUL character.
    names = "\0".join(map(request.name, rows))
    return hashlib.sha256(os.fsencode(names)).hexdigest()


def _path(request, cache):
    """Return a file name that is a hash of everything the images depend on."""
    folder = files.CACHE.expanduser() / "folders" if cache is None else cache
    root = os.path.realpath(request.root)
    options = [request.resize, request.skip_bad, request.seed if request.draws_test else None]
    key = [_VERSION, metadata.version("pillow"), root, options]
    hashed = hashlib.sha256(json.dumps(key).encode())
    for row in request.rows:
        stratum = row.label if request.draws_test else row.split
        with contextlib.suppress(OSError):  # a dangling link, which does not decode
            status = os.stat(row.file)
            facts = request.name(row), stratum, status.st_size, status.st_mtime_ns
            hashed.update(json.dumps(facts).encode())
    prefix = f"{os.path.basename(root)[:64]}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}"
    return folder / f"{prefix}-{hashed.hexdigest()[:24]}.npy"


# --- files of rows -----------------------------------------------------------------------------


@contextlib.contextmanager
def _row_writer(path, shape, facts):
    """Yield a function that appends rows of uint8 to an .npy file, which appears on success.

    Rows are written, not mapped, so that they need no memory and a full disk is an error instead of
    a signal. The checksums and the facts, to which the block may add, are written last.
    """
    blocks = []
    with files.atomic_path(path) as temporary, open(temporary, "wb") as file:

        def add(rows):
            file.write(np.ascontiguousarray(rows, np.uint8).data)
            blocks.append((len(rows), files.digest(rows)))

        # The header is rewritten with the final number of rows; NumPy pads it to the same length.
        _write_header(file, (0, *shape))
        yield add
        file.seek(0)
        _write_header(file, (sum(count for count, _ in blocks), *shape))
    files.write_json(_checksums(path), {"shape": shape, "blocks": blocks, "facts": facts})
    _touch(path)


def _read_rows(path):
    """Verify and memory-map the rows that `_row_writer` wrote, and return them with the facts."""
    stored = files.read_json(_checksums(path))
    try:
        rows = np.lib.format.open_memmap(path, mode="r")
        counts, digests = zip(*stored["blocks"], strict=True)
        intact = rows.dtype == np.uint8 and rows.shape == (sum(counts), *stored["shape"])
        facts = stored["facts"]
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path} is not a readable .npy file") from error
    # Each block has its own checksum, so that threads verify them independently.
    size = math.prod(rows.shape[1:])
    starts = [rows.offset + size * first for first in itertools.accumulate(counts, initial=0)]

    def is_intact(start, end, digest):
        # Read instead of mapped, because mapped pages would count as memory of this process.
        return files.digest(np.fromfile(path, np.uint8, end - start, offset=start)) == digest

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        if not intact or not all(pool.map(is_intact, starts, starts[1:], digests)):
            raise ValueError(f"{path} is not a readable .npy file: its checksums do not match")
    return rows, facts


def _touch(path):
    """Mark mapped rows as just used for `files.prune`, and their checksums just before."""
    os.utime(_checksums(path))
    os.utime(path)


def _write_header(file, shape):
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _checksums(path):
    return pathlib.Path(path).with_suffix(".json")
