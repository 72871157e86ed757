"""Small image files for tests, mostly of a single value that identifies the image."""

import functools
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from jaxdd.data import folders

read = functools.partial(folders.read, layout="classes")
"""Reads a folder that may have a single class."""


def save(path, value=0, *, mode="L", size=(12, 12), **options):
    """Write an image of one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)


def values(folder):
    """Return the first channel of the first pixel of each image."""
    return folder.images[:, 0, 0, 0].tolist()


def table(folder, text, *files):
    """Write metadata.csv, and an image for each file: 1, 2, ..."""
    for value, file in enumerate(files, 1):
        save(folder / file, value)
    (folder / "metadata.csv").write_text(text, encoding="utf-8")
    return folder


def truncated(path):
    """Write an image whose pixels are cut off."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-60])


def shades(folder, *, bad=(), side=12):
    """Write two classes of 11 images, each of one shade of red; some are cut off."""
    for number in range(22):
        path = folder / "ab"[number % 2] / f"{number:02}.png"
        save(path, (10 * number, 0, 7), mode="RGB", size=(side, side))
        if number in bad:
            path.write_bytes(path.read_bytes()[:-30])
    return folder


def cached(folder):
    """Return the names of the files of a cache, without locks."""
    return sorted(path.name for path in pathlib.Path(folder).iterdir() if path.suffix != ".lock")


def write_table(path, columns, *, delimiter=",", **options):
    """Write columns as the ending of the path says."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        return parquet.write_table(pyarrow.table(columns), path)
    lines = [json.dumps(row) for row in rows]
    if path.suffix != ".jsonl":
        lines = [delimiter.join(map(str, row)) for row in (columns, *(r.values() for r in rows))]
    path.write_text("\r\n".join(lines), **options)
