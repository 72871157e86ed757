"""One picture with all images that a page shows, some of them several times.

The page contains the picture once and shows parts of it, so an image that occurs in several places
needs no more space.
"""

import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxdd.runs.reports import plot

_COLUMNS = 32
_BORDER = 1  # repeated edge pixels around an image, for screens that scale by fractions of a pixel
_MAX_PNG_BYTES = 2**21  # a larger picture is written as JPEG
_SIDES = 64, 96, 192  # sides of an image on the screen, in CSS pixels; the last is for a large view


class Tile(NamedTuple):
    """An image of a sheet: its column and row, and a description for screen readers."""

    column: int
    row: int
    description: str


class Picture(NamedTuple):
    """The picture of a sheet.

    Attributes:
        content: the image file.
        kind: "png" or "jpeg".
        width: width of the picture in pixels.
        pitch: distance between neighbouring images in pixels, horizontal and vertical.
        size: width and height of an image in pixels.
        scale: screen pixels per image pixel in a grid.
        medium: the same for random images of a class.
        large: the same for a large view.
    """

    content: bytes
    kind: str
    width: int
    pitch: tuple[int, int]
    size: tuple[int, int]
    scale: int
    medium: int
    large: int


class Sheet:
    """Images that a page shows, each of them once."""

    def __init__(self, images: np.ndarray) -> None:
        """Start without any of the images, uint8 `[n, h, w, c]`."""
        self._images = images
        self._positions: dict[int, int] = {}

    def tile(self, index: Any, description: str) -> Tile:
        """Return the place of image `index`, which is added if it is new."""
        position = self._positions.setdefault(int(index), len(self._positions))
        row, column = divmod(position, _COLUMNS)
        return Tile(column, row, description)

    def draw(self) -> Picture | None:
        """Return the picture of all images that were added, None if there are none."""
        if not self._positions:
            return None
        images = self._images[list(self._positions)] / np.float32(255)
        pixels = plot.thumbnails(images[None])[0]
        height, width = pixels.shape[1:3]
        border = (_BORDER, _BORDER)
        pixels = np.pad(pixels, ((0, 0), border, border, (0, 0)), mode="edge")
        rows = -(-len(pixels) // _COLUMNS)
        columns = min(len(pixels), _COLUMNS)
        grid = np.zeros((rows * columns, *pixels.shape[1:]), np.uint8)
        grid[: len(pixels)] = pixels
        grid = grid.reshape(rows, columns, *pixels.shape[1:]).swapaxes(1, 2)
        whole = Image.fromarray(grid.reshape(rows * pixels.shape[1], columns * pixels.shape[2], 3))
        kind, content = _encode(whole)
        scales = (max(1, round(side / max(width, height))) for side in _SIDES)
        pitch = (pixels.shape[2], pixels.shape[1])
        return Picture(content, kind, whole.width, pitch, (width, height), *scales)


def _encode(image):
    """Return kind and content of an image file: PNG, or JPEG if PNG is too large."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    if buffer.tell() <= _MAX_PNG_BYTES:
        return "png", buffer.getvalue()
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, subsampling=0)
    return "jpeg", buffer.getvalue()
