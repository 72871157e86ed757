"""Image files, decoded by threads: a few rows at a time, handed on in their order.

Threads suffice, because pillow decodes and resizes outside of Python's lock, and need no guard in
the user's script. What holds the lock is little, and is kept so: rows go through in blocks, files
are read in one piece, and images that have their mode or shape already are not copied.
"""

import collections
import contextlib
import numbers
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP")
"""What images are, whatever their names say; Pillow opens others only with programs of theirs."""

PIXELS = 100_000_000
"""Pixels that an image may have."""

LARGEST = 256
"""The largest side of decoded images."""

_GREY = ("1", "L", "LA", "F", "I", "I;16", "I;16B", "I;16L", "I;16N")
_BLOCK = 2**22  # bytes of decoded images that a thread holds
_ROWS = 64  # of a block, at most
_BUFFER = 2**16  # bytes read at once: a small file whole


def survey(
    files: Sequence[str],
    resize: int | None,
    *,
    skip_bad: bool = False,
    threads: int | None = None,
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Says what images are decoded to, and which can be, as far as that shows before.

    All headers are read, unless size and channels are known without: by `resize` and a first image
    in colour. Then a look at how each file begins tells whether it is an image.

    Args:
        files: the images.
        resize: height and width; None for those of all images, or else the median of their shorter
            sides within 8..32.
        skip_bad: leave out what is no image, instead of raising.
        threads: as in `decode`.

    Returns:
        Which files seem to be images, bool [n], and height, width and channels.

    Raises:
        ValueError: a file that is no image, or none that is one.
    """
    first = _attempt(_header, files[0], skip_bad=True)
    side = None if first is None or first.grey else resize
    function = _header if side is None else _check_beginning
    found = []

    def block(part):
        return [_attempt(function, file, skip_bad=skip_bad) for file in part]

    _in_turn(block, files, _ROWS, found.extend, threads)
    fine = np.array([each is not None for each in found])
    if side is not None:
        return fine, (side, side, 3)
    if not fine.any():
        raise ValueError(f"none of {len(files)} images decodes, such as {files[0]}")
    return fine, _shape([each for each in found if each is not None], resize)


def decode(
    files: Sequence[str],
    shape: tuple[int, int, int],
    add: Callable[[np.ndarray], Any],
    *,
    skip_bad: bool = False,
    threads: int | None = None,
) -> np.ndarray:
    """Decodes images, of which a few blocks are in memory at a time, however many there are.

    Args:
        files: the images.
        shape: height, width and channels of what they become.
        add: is called with one block of images after another, uint8 [b, h, w, c], in their order.
        skip_bad: leave out images that do not decode, instead of raising.
        threads: how many decode; one for each core, at most eight, where omitted.

    Returns:
        Which images have been decoded, bool [n].

    Raises:
        ValueError: an image that does not decode, the first one of them.
    """
    good = []

    def block(part):
        images = np.empty((len(part), *shape), np.uint8)
        fine = [
            bool(_attempt(_fill, file, image, skip_bad=skip_bad))
            for file, image in zip(part, images, strict=True)
        ]
        return (images if all(fine) else images[fine]), fine

    def take(block):
        images, fine = block
        add(images)
        good.extend(fine)

    _in_turn(block, files, min(_ROWS, _BLOCK // int(np.prod(shape)) or 1), take, threads)
    return np.array(good, bool)


def check_size(resize: int) -> None:
    """Raises for what is no size of images.

    Raises:
        TypeError: a size that is no integer.
        ValueError: one beyond 1..256.
    """
    if isinstance(resize, bool) or not isinstance(resize, numbers.Integral):
        raise TypeError(f"resize must be an integer, found {resize!r}")
    if not 1 <= resize <= LARGEST:
        raise ValueError(f"resize must lie in 1..{LARGEST}, found {resize}")


def _in_turn(function, files, rows, take, threads):
    """Takes function(part) of every few files, in their order; no more than wait for threads."""
    from PIL import Image

    threads = min(8, os.cpu_count() or 1) if threads is None else threads
    rows = max(1, min(rows, len(files) // (8 * threads)))
    # All formats now: pillow would load the rarer ones when first met, unsafely among threads.
    Image.init()
    waiting = collections.deque()
    with warnings.catch_warnings(), _cancelling(ThreadPoolExecutor(threads)) as pool:
        warnings.filterwarnings("ignore", module="PIL")
        for first in range(0, len(files), rows):
            waiting.append(pool.submit(function, files[first : first + rows]))
            if len(waiting) > 2 * threads:
                take(waiting.popleft().result())
        while waiting:
            take(waiting.popleft().result())


@contextlib.contextmanager
def _cancelling(pool):
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class _Header(NamedTuple):
    """Size of an image, upright, and whether it is grey."""

    size: tuple[int, ...]
    grey: bool


def _attempt(function, file, *arguments, skip_bad):
    """Returns function(file, *arguments), None where it fails and may be skipped."""
    from PIL import UnidentifiedImageError

    try:
        return function(file, *arguments)
    except Exception as error:  # pillow raises OSError, SyntaxError, struct.error and more
        if skip_bad:
            return None
        unknown = isinstance(error, UnidentifiedImageError)
        reason = f"it is none of {', '.join(FORMATS)}" if unknown else repr(error)
        raise ValueError(f"{file} does not decode: {reason}") from error


@contextlib.contextmanager
def _opened(file):
    from PIL import Image

    # By name, pillow garbles an uncompressed TIFF that EXIF says to turn.
    with open(file, "rb", _BUFFER) as stream, Image.open(stream, formats=FORMATS) as image:
        _check_pixels(image)
        yield image


def _check_beginning(file):
    from PIL import Image, UnidentifiedImageError

    with open(file, "rb", 0) as stream:
        beginning = stream.read(16)  # as much as pillow looks at
    accept = (Image.OPEN[name][1] for name in FORMATS)
    if not any(accepts(beginning) for accepts in accept if accepts is not None):
        raise UnidentifiedImageError(file)
    return True


def _check_pixels(image):
    width, height = image.size
    if width * height > PIXELS:
        raise ValueError(f"expected at most {PIXELS:,} pixels, found {width} × {height}")


def _header(file):
    with _opened(file) as image:
        # Asked for EXIF that `info` has not, pillow decodes a PNG. A TIFF gives its upright size.
        turned = "exif" in image.info and image.getexif().get(0x0112) in (5, 6, 7, 8)
        return _Header(image.size[::-1] if turned else image.size, image.mode in _GREY)


def _shape(headers, resize):
    sizes, grey = zip(*headers, strict=True)
    channels = 1 if all(grey) else 3
    if resize is None and len(set(sizes)) == 1 and max(sizes[0]) <= LARGEST:
        return *sizes[0][::-1], channels
    median = round(np.median([min(size) for size in sizes]))
    side = resize or min(max(median, 8), 32)
    return side, side, channels


def _fill(file, out):
    with _opened(file) as image:
        _convert(image, out)
    return True


def _convert(image, out):
    from PIL import Image, ImageOps

    height, width, channels = out.shape
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode[0] in "FI":
        image = _eight_bits(image)
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, "black")
        image = Image.alpha_composite(black, image.convert("RGBA"))
    mode = "L" if channels == 1 else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    if image.size != (width, height):
        image = _resize_square(image, width)
    out[...] = np.frombuffer(image.tobytes(), np.uint8).reshape(out.shape)


def _eight_bits(image):
    from PIL import Image

    levels = np.asarray(image)
    if levels.dtype.kind == "f" or levels.min() < 0 or levels.max() > 65535:
        found = f"{levels.dtype} {levels.min()}..{levels.max()}"
        raise ValueError(f"expected integers of at most 16 bits, found {found}")
    return Image.fromarray(((levels.astype(np.int32) + 128) // 257).astype(np.uint8))


def _resize_square(image, side):
    from PIL.Image import Resampling

    short = min(image.size)
    left, top = ((length - short) // 2 for length in image.size)
    if image.size != (short, short):
        image = image.crop((left, top, left + short, top + short))
    return image.resize((side, side), Resampling.LANCZOS if short > side else Resampling.BICUBIC)
