"""What all pages share: templates, pictures that they carry, and numbers as people read them.

A page is one HTML file that carries its pictures and loads nothing. Words and elements are those of
templates/*.j2, the look is that of templates/style.css.
"""

import base64
import io
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jinja2
import numpy as np
from PIL import Image

from jaxdd.data import files
from jaxdd.runs import old_results as results
from jaxdd.runs.reports import plot


class Picture(NamedTuple):
    """A PNG file.

    Attributes:
        png: its content.
        width: in pixels.
        height: in pixels.
    """

    png: bytes
    width: int
    height: int


class Grid(NamedTuple):
    """A drawn synthetic set.

    Attributes:
        pictures: one with a row per class, or one of each class that has a single image.
        names: of the classes, those drawn and no others.
        columns: images of each class, those drawn.
        cut: what is not drawn whole, "classes" or "images per class": its name, how many are drawn
            and how many there are.
    """

    pictures: list[Picture]
    names: list[str]
    columns: int
    cut: list[tuple[str, int, int]]


def check_path(path: pathlib.Path) -> None:
    """Raise ValueError if a page cannot be written to a path, before any work."""
    if path.is_dir() or not path.name:
        raise ValueError(f"out must be a file, got the folder {path}")
    if path.suffix not in (".html", ".htm"):
        raise ValueError(f"out must end in .html, got {path}")


def picture_size(path: str | os.PathLike) -> tuple[int, int]:
    """Return width and height of a PNG file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or no PNG file.
    """
    with open(path, "rb") as file:
        # A damaged file raises nearly anything, from SyntaxError to zlib.error.
        try:
            with Image.open(file, formats=["PNG"]) as image:
                image.verify()
                return image.size
        except Exception as error:
            raise ValueError(f"{path} is not a readable PNG file") from error


def write(path: str | os.PathLike, page: str) -> None:
    """Writes a page, whole or not at all.

    Args:
        path: the HTML file.
        page: what it holds.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    with files.atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def tiles(images: np.ndarray, *, mean: Any, std: Any) -> Picture:
    """Draws images `[k, m, h, w, c]`, a row for each class, as `plot.tiles` has them."""
    pixels, buffer = plot.tiles(images, mean=mean, std=std), io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return Picture(buffer.getvalue(), pixels.shape[1], pixels.shape[0])


def grid(
    images: np.ndarray, *, mean: Any, std: Any, names: list[str], cut: list[tuple[str, int, int]]
) -> Grid:
    """Draws images `[k, m, h, w, c]` of classes with their names, as `tiles` does."""
    parts = np.split(images, len(images)) if images.shape[1] == 1 else [images]
    pictures = [tiles(part, mean=mean, std=std) for part in parts]
    return Grid(pictures, names, images.shape[1], cut)


def by_temperature(choice: Mapping[str, Any]) -> dict[str, list[float]]:
    """Returns encoder steps and bandwidth factor -> balance at each temperature.

    Args:
        choice: as `weights.Choice.record` has it.
    """
    lines: dict[str, list[float]] = {}
    for each in choice["candidates"]:
        name = ", ".join(results.number(each[part], "g") for part in ("encoder_steps", "bandwidth"))
        lines.setdefault(name, []).append(each["evenness"])
    return lines


def mean(score: Mapping[str, Any] | None) -> str:
    """Returns a mean in percent, without what follows it."""
    return results.percent(score).partition(" ")[0]


TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("jaxdd.runs.reports"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
TEMPLATES.filters |= {
    "base64": lambda content: base64.b64encode(content).decode(),
    "finite": results.finite,
    "interval": results.interval,
    "mean": mean,
    "number": results.number,
    "percent": results.percent,
}
"""The templates of all pages, which they fill in by `get_template(name).render(values)`."""
