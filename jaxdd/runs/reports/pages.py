"""Templates and pictures that all HTML pages share.

A page is one HTML file that contains its pictures and loads nothing else. Its text is in
templates/*.j2, its look in templates/style.css.
"""

import base64
import io
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np
from PIL import Image

from jaxdd.data import files
from jaxdd.runs import results
from jaxdd.runs.reports import plot


class Picture(NamedTuple):
    """The content of a PNG file, with its width and height in pixels."""

    png: bytes
    width: int
    height: int

    @classmethod
    def from_png(cls, png: bytes) -> "Picture":
        """Build a picture from the content of a PNG file."""
        with Image.open(io.BytesIO(png)) as image:
            return cls(png, *image.size)


class Grid(NamedTuple):
    """Images of classes, ready for a page: one picture, or one per class with a single image.

    `omitted` lists each kind of omission ("classes" or "images per class") with the numbers shown
    and available.
    """

    pictures: list[Picture]
    names: list[str]
    columns: int
    omitted: list[tuple[str, int, int]]


def check_path(path: pathlib.Path) -> None:
    """Raise ValueError before any work if a page cannot be written to a path."""
    if path.is_dir() or not path.name:
        raise ValueError(f"out must be an HTML file, got the folder {path}")
    if path.suffix not in (".html", ".htm"):
        raise ValueError(f"out must end in .html, got {path}")


def write(path: str | os.PathLike, page: str) -> None:
    """Write a page atomically."""
    with files.atomic_path(path) as temporary:
        temporary.write_text(files.to_utf8(page), encoding="utf-8")


def grid(
    images: np.ndarray,
    names: Sequence[str],
    *,
    mean: Any = 0.0,
    std: Any = 1.0,
    num_classes: int | None = None,
) -> Grid:
    """Draw the first images of the first classes.

    Args:
        images: Images `[k, m, h, w, c]`, normalised by mean and std.
        names: Names of all classes, or empty for their numbers.
        mean: Mean of each channel that was subtracted. Defaults to 0: images in [0, 1].
        std: Standard deviation of each channel that was divided by. Defaults to 1.
        num_classes: Number of classes that there are. Defaults to k.
    """
    totals = {"classes": num_classes or len(images), "images per class": images.shape[1]}
    shown = images[: plot.MAX_ROWS, : plot.MAX_COLUMNS]
    sizes = zip(totals.items(), shown.shape, strict=False)
    omitted = [(what, n, total) for (what, total), n in sizes if n < total]
    parts = np.split(shown, len(shown)) if shown.shape[1] == 1 else [shown]
    pictures = [_picture(part, mean, std) for part in parts]
    labels = list(map(str, names or range(len(shown))))[: len(shown)]
    return Grid(pictures, labels, shown.shape[1], omitted)


def _picture(images, mean, std):
    """Draw images `[k, m, h, w, c]` with one row per class."""
    pixels, buffer = plot.tiles(images, mean=mean, std=std), io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return Picture(buffer.getvalue(), pixels.shape[1], pixels.shape[0])


TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("jaxdd.runs.reports"), autoescape=True,
    undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    keep_trailing_newline=True,
)  # fmt: skip
TEMPLATES.filters |= {
    "base64": lambda content: base64.b64encode(content).decode(),
    "finite": results.finite,
    "interval": results.interval,
    "mean": lambda score: results.number(None if score is None else 100 * score.mean, ".1f"),
    "number": results.number,
}
"""Templates of all pages: `TEMPLATES.get_template(name).render(values)`."""
