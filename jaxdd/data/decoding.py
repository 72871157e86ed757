"""Decode image files with threads, a block at a time, in their order.

Threads suffice, because pillow decodes and resizes without holding Python's lock. Unlike processes,
they need no main guard in the user's script. Work that holds the lock is kept small: files are
handled in blocks and read in one piece, and images that already have the right mode or shape are
not copied.
"""

import collections
import contextlib
import os
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from jaxdd.data import _arguments

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP")
"""Accepted formats, whatever the file names; pillow runs external programs for some others."""

PIXELS = 100_000_000
"""Maximal number of pixels of an image file."""

LARGEST = 256
"""Maximal side of decoded images."""

_GREY = ("1", "L", "LA", "F", "I", "I;16", "I;16B", "I;16L", "I;16N")
_BLOCK = 2**22  # bytes of decoded images per block
_ROWS = 64  # maximal number of images per block
_BUFFER = 2**16  # bytes read at once, which is all of a small file
_ORIENTATION = 0x0112  # tag of EXIF
_QUARTER_TURNS = (5, 6, 7, 8)  # orientations that swap height and width


def survey(
    files: Sequence[str], resize: int | None, *, skip_bad: bool = False, threads: int | None = None
) -> tuple[np.ndarray, tuple[int, int, int], int]:
    """Return which files are images, and the shape to decode them to, without decoding them.

    All headers are read, unless the shape follows from `resize` and a first image in colour. Then
    only the first bytes of each file are checked.

    Args:
        files: the image files.
        resize: height and width. None for the size that at least three quarters of the images have,
            if it is at most `LARGEST`, or else the median of the shorter sides, within 8..32.
        skip_bad: whether to leave out files that are not images, instead of raising.
        threads: number of threads; see `decode`.

    Returns:
        Whether each file seems to be an image, bool [n]; (height, width, channels); and the level
        of white in images of 16 bits, 2^b - 1 with the fewest bits b of 8, 10, 12, 14 or 16 that
        hold all their levels, because cameras and scanners store 12 bits in 16.
    """
    first = _attempt(_header, files[0], skip_bad=True)
    side = None if first is None or first.grey else resize
    function = _header if side is None else _check_beginning
    headers = []

    def read_block(part):
        return [_attempt(function, file, skip_bad=skip_bad) for file in part]

    map_blocks(read_block, files, _ROWS, headers.extend, threads)
    readable = np.array([header is not None for header in headers])
    if side is not None:
        return readable, (side, side, 3), 2**16 - 1
    if not readable.any():
        raise ValueError(f"none of {len(files)} images decodes, such as {files[0]}")
    known = [header for header in headers if header is not None]
    brightest = max(header.brightest for header in known)
    white = next((2**bits - 1 for bits in (8, 10, 12, 14) if 0 < brightest < 2**bits), 2**16 - 1)
    return readable, _shape(known, resize), white


def decode(
    files: Sequence[str],
    shape: tuple[int, int, int],
    add: Callable[[np.ndarray], Any],
    *,
    white: int = 2**16 - 1,
    skip_bad: bool = False,
    threads: int | None = None,
) -> list[tuple[int, int] | None]:
    """Decode images block by block, with few blocks in memory at a time.

    Args:
        files: the image files.
        shape: (height, width, channels) of the decoded images.
        add: function that is called with one block after another, uint8 [b, h, w, c], in order.
        white: level of white in images of 16 bits, see `survey`.
        skip_bad: whether to leave out images that do not decode, instead of raising.
        threads: number of threads, at least 1. Defaults to one per core, at most eight.

    Returns:
        Upright (width, height) of each file, None for those that do not decode.

    Raises:
        ValueError: the first image that does not decode.
    """
    sizes, known = [], {}  # equal sizes share a tuple

    def decode_block(part):
        images = np.empty((len(part), *shape), np.uint8)
        part_sizes = [
            _attempt(_fill, file, image, white, skip_bad=skip_bad)
            for file, image in zip(part, images, strict=True)
        ]
        good = np.array([size is not None for size in part_sizes])
        return (images if good.all() else images[good]), part_sizes

    def take(block):
        images, part_sizes = block
        add(images)
        sizes.extend(known.setdefault(size, size) for size in part_sizes)

    rows = min(_ROWS, _BLOCK // int(np.prod(shape)) or 1)
    map_blocks(decode_block, files, rows, take, threads)
    return sizes


def check_size(resize: int) -> int:
    """Return `resize` as an int, after checking that it is an integer in 1..`LARGEST`."""
    return _arguments.integer("resize", resize, 1, LARGEST)


def map_blocks(
    function: Callable[[Sequence[str]], Any],
    files: Sequence[str],
    rows: int,
    take: Callable[[Any], Any],
    threads: int | None,
) -> None:
    """Call `take(function(block))` for every block of files, in order.

    Args:
        function: function of a block of files; threads call it.
        files: the files.
        rows: maximum number of files per block.
        take: function that is called with one result after another.
        threads: number of threads; see `decode`.
    """
    from PIL import Image

    threads = min(8, os.cpu_count() or 1) if threads is None else threads
    threads = _arguments.integer("threads", threads, 1, 1024)
    rows = max(1, min(rows, len(files) // (8 * threads)))
    # Load all formats now: pillow would load the rarer ones when needed, which is not thread-safe.
    Image.init()
    pending = collections.deque()
    pool = ThreadPoolExecutor(threads)
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        stack.callback(pool.shutdown, cancel_futures=True)
        warnings.filterwarnings("ignore", module="PIL")
        for first in range(0, len(files), rows):
            pending.append(pool.submit(function, files[first : first + rows]))
            # At most two blocks per thread wait, so that memory does not grow with the number of
            # files.
            if len(pending) > 2 * threads:
                take(pending.popleft().result())
        while pending:
            take(pending.popleft().result())


class _Header(NamedTuple):
    """Upright (width, height) of an image, whether it is grey, and its largest level if 16 bits."""

    size: tuple[int, ...]
    grey: bool
    brightest: int


def _attempt(function, file, *arguments, skip_bad):
    """Return function(file, *arguments), or None if it fails and may be skipped."""
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
def open_image(file: str) -> Iterator[Any]:
    """Open an image, reading only its header; reject images with too many pixels."""
    from PIL import Image

    # Opened as a stream, because pillow garbles a rotated, uncompressed TIFF opened by name.
    with open(file, "rb", _BUFFER) as stream, Image.open(stream, formats=FORMATS) as image:
        width, height = image.size
        if width * height > PIXELS:
            raise ValueError(f"expected at most {PIXELS:,} pixels, got {width} × {height}")
        yield image


def _check_beginning(file):
    from PIL import Image, UnidentifiedImageError

    with open(file, "rb", 0) as stream:
        beginning = stream.read(16)  # pillow looks at the same bytes
    accept = (Image.OPEN[name][1] for name in FORMATS)
    if not any(accepts(beginning) for accepts in accept if accepts is not None):
        raise UnidentifiedImageError(file)
    return True


def _header(file):
    with open_image(file) as image:
        size = image.size[::-1] if _is_turned(file, image) else image.size
        brightest = int(np.asarray(image).max()) if image.mode[0] == "I" else 0
        return _Header(size, image.mode in _GREY, brightest)


def _is_turned(file, image):
    """Return whether an opened image swaps height and width when it is turned upright.

    The orientation may be in EXIF or in XMP. `getexif` reads both, but that of PNG files decodes
    the whole image, because the metadata may be at the end. The method of the base class does not.
    """
    from PIL import Image

    if image.width == image.height:
        return False
    if image.format == "TIFF" and _ORIENTATION in image.tag_v2:
        return False  # pillow states the upright size of a TIFF
    late = image.format == "PNG" and _has_late_metadata(file)
    exif = image.getexif() if late else Image.Image.getexif(image)
    return exif.get(_ORIENTATION) in _QUARTER_TURNS


def _has_late_metadata(file):
    """Return whether a PNG file has EXIF or text after its pixels, from its chunk headers."""
    pixels = False
    with open(file, "rb", _BUFFER) as stream:
        stream.seek(8)
        while len(head := stream.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if pixels and kind in (b"eXIf", b"iTXt", b"zTXt", b"tEXt"):
                return True
            pixels = pixels or kind == b"IDAT"
            stream.seek(length + 4, os.SEEK_CUR)  # content and checksum
    return False


def _shape(headers, resize):
    channels = 1 if all(header.grey for header in headers) else 3
    sizes = collections.Counter(header.size for header in headers)
    (width, height), count = sizes.most_common(1)[0]
    if resize is None and max(width, height) <= LARGEST and 4 * count >= 3 * len(headers):
        return height, width, channels
    # The median of the shorter sides keeps most images near their own resolution.
    median = round(np.median([min(header.size) for header in headers]))
    side = resize or min(max(median, 8), 32)
    return side, side, channels


def _fill(file, out, white):
    """Decode a file into an array [h, w, c], and return its upright (width, height)."""
    with open_image(file) as image:
        _convert(image, out, white)
        return image.size


def _convert(image, out, white):
    from PIL import Image, ImageOps

    height, width, channels = out.shape
    is_deep = any(";16" in str(tile[3]) for tile in image.tile)
    # Also decodes the image, which is when pillow reads metadata at the end of a PNG.
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode[0] in "FI":
        image = _eight_bits(image, white)
    # Pillow keeps the upper 8 bits of colours of 16 bits.
    elif is_deep and 0 < (brightest := int(np.max(image.getextrema()))) < 16:
        levels = 256 * brightest + 255
        raise ValueError(f"expected colours of 16 bits to use them, got levels up to {levels:,}")
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, "black")
        image = Image.alpha_composite(black, image.convert("RGBA"))
    mode = "L" if channels == 1 else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    if image.size != (width, height):
        image = _resize_centre(image, width, height)
    out[...] = np.frombuffer(image.tobytes(), np.uint8).reshape(out.shape)


def _eight_bits(image, white):
    from PIL import Image

    levels = np.asarray(image)
    if levels.dtype.kind == "f" or levels.min() < 0 or levels.max() > 65535:
        raise ValueError(
            f"expected integers of at most 16 bits, got {levels.dtype} {levels.min()}.."
            f"{levels.max()}"
        )
    # Rounds to the nearest of 256 levels.
    scaled = (levels.astype(np.int32) * 510 + white) // (2 * white)
    return Image.fromarray(np.minimum(scaled, 255).astype(np.uint8))


def _resize_centre(image, width, height):
    """Resize the largest part in the centre that has the ratio of the new sides."""
    from PIL.Image import Resampling

    inner = (
        min(image.width, max(1, image.height * width // height)),
        min(image.height, max(1, image.width * height // width)),
    )
    left, top = ((outer - side) // 2 for outer, side in zip(image.size, inner, strict=True))
    if image.size != inner:
        image = image.crop((left, top, left + inner[0], top + inner[1]))
    shrinks = inner[0] > width
    return image.resize((width, height), Resampling.LANCZOS if shrinks else Resampling.BICUBIC)
