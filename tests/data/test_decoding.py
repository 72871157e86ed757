"""Image files of every mode, orientation and size are decoded, and bad ones are named."""

import os
import pathlib
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib

import numpy as np
import pytest
from image_files import read, save, truncated, values
from PIL import Image, TiffImagePlugin

from jaxdd.data import decoding


def palette_with_transparency(path):
    """Write a palette image with a transparent colour; pillow warns when it converts it to RGB."""
    image = Image.new("P", (12, 12), 0)
    image.putpalette([200, 100, 50, 9, 9, 9])
    image.save(path, transparency=bytes([128, 255]))


@pytest.mark.parametrize(
    "name, mode, value, expected",
    [
        ("1.png", "1", 1, (255,)),
        ("l.png", "L", 77, (77,)),
        ("l.pgm", "L", 77, (77,)),
        ("rgb.gif", "RGB", (1, 2, 3), (1, 2, 3)),
        ("la.png", "LA", (200, 128), (100,)),
        ("i16.png", "I;16", 17000, (66,)),
        ("i16.tif", "I;16", 65535, (255,)),
        ("i16b.tiff", "I;16B", 30000, (117,)),
        ("i12.png", "I;16", 2048, (128,)),
        ("i8.tif", "I", 128, (128,)),
        ("black.png", "I;16", 0, (0,)),
        ("rgb.bmp", "RGB", (1, 2, 3), (1, 2, 3)),
        ("rgb.ppm", "RGB", (1, 2, 3), (1, 2, 3)),
        ("rgba.png", "RGBA", (200, 100, 50, 128), (100, 50, 25)),
        ("rgba.webp", "RGBA", (200, 100, 50, 0), (0, 0, 0)),
        ("cmyk.tif", "CMYK", (0, 255, 0, 0), (255, 0, 255)),
        ("cmyk.jpg", "CMYK", (0, 0, 0, 255), (0, 0, 0)),
    ],
)
def test_every_mode_is_read(tmp_path, name, mode, value, expected):
    """16-bit levels are divided by 257 and rounded; alpha 128 of 255 halves a value."""
    save(tmp_path / "x" / name, value, mode=mode)
    pixels = read(tmp_path).images
    assert pixels.shape == (1, 12, 12, len(expected))
    assert (pixels == expected).all()


def test_a_palette_is_colour_and_pillow_does_not_warn(tmp_path):
    (tmp_path / "x").mkdir()
    palette_with_transparency(tmp_path / "x" / "p.png")
    save(tmp_path / "x" / "q.png", 40)
    pixels = read(tmp_path).images
    assert pixels[0, 0, 0].tolist() == [100, 50, 25]
    assert pixels[1, 0, 0].tolist() == [40, 40, 40], "grey among colour is repeated"


def test_an_animation_is_its_first_frame(tmp_path):
    frames = [Image.new("L", (12, 12), value) for value in (10, 20)]
    (tmp_path / "x").mkdir()
    frames[0].save(tmp_path / "x" / "a.gif", save_all=True, append_images=frames[1:])
    assert values(read(tmp_path)) == [10]


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.T,
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored.T, 2),
    8: lambda stored: np.rot90(stored),
}


@pytest.mark.parametrize("ending", ["png", "tif", "jpg"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_images_are_turned_upright(tmp_path, orientation, ending):
    """EXIF orientation 6 is that of an upright camera: the image must be rotated clockwise."""
    stored = np.kron(np.array([[40, 80, 120], [160, 200, 240]], np.uint8), np.ones((8, 8), int))
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "x").mkdir()
    image = Image.fromarray(stored.astype(np.uint8))
    image.save(tmp_path / "x" / f"a.{ending}", exif=exif)
    pixels = read(tmp_path).images[0, ..., 0]
    assert np.abs(pixels - UPRIGHT[orientation](stored)).max() <= 1


def test_sizes_are_compared_upright(tmp_path):
    """A 20 x 10 image and a 10 x 20 image that is rotated have one size: nothing is cropped."""
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "x" / "wide.jpg", 50, size=(20, 10))
    save(tmp_path / "x" / "tall.jpg", 50, size=(10, 20), exif=exif)
    assert read(tmp_path).images.shape == (2, 10, 20, 1)


@pytest.mark.parametrize(
    "sizes, resize, expected",
    [
        ([(256, 9), (256, 9)], None, (9, 256)),
        ([(1, 1)], None, (1, 1)),
        ([(300, 300)], None, (32, 32)),
        ([(257, 20)], None, (20, 20)),
        ([(20, 90), (30, 30), (99, 41)], None, (30, 30)),
        ([(20, 20), (25, 90)], None, (22, 22)),
        ([(64, 64)] * 3 + [(63, 63)], None, (64, 64)),
        ([(20, 40)] * 5 + [(30, 30)], None, (40, 20)),
        ([(64, 64)] * 2 + [(63, 63)], None, (32, 32)),
        ([(3, 3), (4, 4)], None, (8, 8)),
        ([(90, 100), (80, 80)], None, (32, 32)),
        ([(12, 12)], 20, (20, 20)),
        ([(40, 30), (7, 9)], 256, (256, 256)),
        ([(40, 30)], np.int64(1), (1, 1)),
    ],
)
def test_sizes(tmp_path, sizes, resize, expected):
    """The median of 20, 30 and 41 is 30; that of 20 and 25 is 22.5, rounded to 22."""
    for number, size in enumerate(sizes):
        save(tmp_path / "x" / f"{number}.png", 9, size=size)
    folder = read(tmp_path, resize=resize)
    assert folder.images.shape == (len(sizes), *expected, 1)
    assert (folder.images == 9).all()


@pytest.mark.parametrize("side, method", [(10, "LANCZOS"), (20, "LANCZOS"), (50, "BICUBIC")])
def test_the_central_square_is_resized(tmp_path, side, method):
    """Of 20 rows and 31 columns, columns 5..24 are the centre; a square of 20 stays as it is."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 31, 3), dtype=np.uint8)
    (tmp_path / "x").mkdir()
    Image.fromarray(pixels).save(tmp_path / "x" / "a.png")
    centre = Image.fromarray(pixels[:, 5:25])
    expected = np.asarray(centre.resize((side, side), Image.Resampling[method]))
    assert (read(tmp_path, resize=side).images[0] == expected).all()


def test_shrinking_does_not_alias(tmp_path):
    """A chequerboard of single pixels becomes grey, 127.5, everywhere."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    (tmp_path / "x").mkdir()
    Image.fromarray(board).save(tmp_path / "x" / "a.png")
    pixels = read(tmp_path, resize=8).images.astype(int)
    assert np.abs(pixels - 127).max() <= 3


@pytest.mark.parametrize(
    "resize, error", [(0, ValueError), (257, ValueError), (True, TypeError), (32.0, TypeError)]
)
def test_bad_sizes(tmp_path, resize, error):
    with pytest.raises(error, match="resize"):
        read(tmp_path, resize=resize)


def postscript(path):
    Image.new("L", (12, 12)).save(path, "EPS")


BAD = {
    "postscript.png": postscript,
    "text.png": lambda path: path.write_text("no image"),
    "empty.jpg": lambda path: path.write_text(""),
    "truncated.png": truncated,
    "truncated.jpg": truncated,
    "truncated.tif": truncated,
    "floats.tif": lambda path: Image.new("F", (12, 12)).save(path),
    "32 bits.tif": lambda path: Image.new("I", (12, 12), 10**6).save(path),
    "dangling.png": lambda path: path.symlink_to("nowhere"),
    "bomb.png": lambda path: Image.new("L", (40, 40)).save(path),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_reported_or_skipped(tmp_path, name, monkeypatch):
    """With a limit of 400 pixels, 1,600 are a decompression bomb and 12 x 12 are not."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    save(tmp_path / "cat" / "a.png", 1)
    save(tmp_path / "cat" / "z.png", 2)
    save(tmp_path / "dog" / "a.png", 3)
    BAD[name](tmp_path / "cat" / name)
    with pytest.raises(ValueError, match=f"cat/{name} does not decode: ") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
    folder = read(tmp_path, skip_bad=True)
    assert folder.skipped == (f"cat/{name}",)
    assert values(folder) == [1, 2, 3] and folder.labels.tolist() == [0, 0, 1]
    assert folder.images.shape == (3, 12, 12, 1)


def test_large_images_give_no_warning(tmp_path, monkeypatch):
    """Beyond the limit pillow warns, beyond twice the limit it raises."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    save(tmp_path / "x" / "a.png", 5)
    assert values(read(tmp_path)) == [5]


def test_a_program_named_like_an_image_is_not_run(tmp_path):
    """Pillow hands EPS to Ghostscript, where that is installed."""
    save(tmp_path / "cat" / "a.png")
    postscript(tmp_path / "cat" / "b.png")
    with pytest.raises(ValueError, match=r"b\.png.*PNG, JPEG"):
        read(tmp_path)


def test_too_many_pixels_are_rejected_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "PIXELS", 143)
    save(tmp_path / "cat" / "a.png")
    monkeypatch.setattr(decoding, "_fill", None)
    with pytest.raises(ValueError, match="a.png.*143.*12 × 12"):
        read(tmp_path)


def test_the_first_of_several_bad_images_is_reported(tmp_path):
    for name in "abcdef":
        save(tmp_path / "x" / f"{name}.png")
    for name in "ec":
        (tmp_path / "x" / f"{name}.png").write_text("")
    for _ in range(5):
        with pytest.raises(ValueError, match=r"x/c\.png does not decode"):
            read(tmp_path)


def test_order_does_not_depend_on_threads(tmp_path, monkeypatch):
    """Large originals, which take longer to decode, are among small ones."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for value in range(40):
        side = 600 if value % 7 == 0 else 9
        save(tmp_path / str(value % 2) / f"{value:02}.png", value, size=(side, side))
    folder = read(tmp_path)
    assert values(folder) == [*range(0, 40, 2), *range(1, 40, 2)]
    assert folder.images.shape[1:] == (9, 9, 1)
    assert (folder.images == folder.images[:, :1, :1]).all()


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="needs Linux")
def test_memory_does_not_hold_the_originals(tmp_path):
    """25 originals of 1500 x 1500 x 4 bytes are 225 MB; two threads hold three copies each.

    Pillow also loads TIFF and WebP in these threads.
    """
    for number in range(5):
        save(tmp_path / "x" / f"{number}.tif", mode="RGB")
        save(tmp_path / "x" / f"{number}.webp", mode="RGB")
    save(tmp_path / "x" / "large.png", mode="RGB", size=(1500, 1500))
    for number in range(24):
        (tmp_path / "x" / f"large {number}.png").symlink_to("large.png")
    code = f"""
import os, re
from jaxdd.data import folders
import PIL.Image, PIL.ImageOps
os.cpu_count = lambda: 2
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
assert folders.read({str(tmp_path)!r}, layout="classes").images.shape == (35, 32, 32, 3)
print(peak() - before)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 150_000


def test_memory_holds_few_blocks(tmp_path, monkeypatch):
    """Four thousand images of 3 KB have 12 MB; two threads hold at most six blocks of 64 images."""
    save(tmp_path / "data" / "a" / "0.png", (1, 2, 3), mode="RGB")
    names = [str(tmp_path / "data" / "a" / "0.png")] * 4_000
    waiting, most, lock = [0], [0], threading.Lock()

    def counted(file, out, white):
        with lock:
            waiting[0] += 1
            most[0] = max(most[0], waiting[0])
        return 32, 32

    def add(block):
        with lock:
            waiting[0] -= len(block)

    monkeypatch.setattr(decoding, "_fill", counted)
    tracemalloc.start()
    try:
        sizes = decoding.decode(names, (32, 32, 3), add, threads=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sizes == [(32, 32)] * 4_000 and waiting == [0]
    assert most[0] <= 6 * 64 and peak < 8 * 64 * 32 * 32 * 3 + 500_000


def xmp(orientation):
    return f'<x:xmpmeta><d tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


def chunk(kind, content):
    """A chunk of a PNG file: length, kind, content, checksum."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", checksum)


def save_turned(path, where):
    """Write a 10 x 20 image with an orientation of a quarter turn, stored in one of five places."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("L", (10, 20), 50)
    path.parent.mkdir(exist_ok=True)
    if where == "xmp in jpg":
        return image.save(path.with_suffix(".jpg"), xmp=xmp(6))
    if where == "xmp in webp":
        return image.convert("RGB").save(path.with_suffix(".webp"), lossless=True, xmp=xmp(6))
    if where == "xmp in tif":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[700] = xmp(6)
        tags.tagtype[700] = 1
        return image.save(path.with_suffix(".tif"), tiffinfo=tags)
    text = b"XML:com.adobe.xmp" + bytes(5) + xmp(6)
    late = (
        chunk(b"iTXt", text) if where == "late xmp in png" else chunk(b"eXIf", exif.tobytes()[6:])
    )
    image.save(path.with_suffix(".png"))
    content = path.with_suffix(".png").read_bytes()
    end = content.rindex(b"IEND") - 4
    path.with_suffix(".png").write_bytes(content[:end] + late + content[end:])


@pytest.mark.parametrize(
    "where", ["xmp in jpg", "xmp in webp", "xmp in tif", "late xmp in png", "late exif in png"]
)
def test_orientation_outside_of_the_exif_header(tmp_path, where):
    """Oblong images of one upright size keep it, wherever their orientation is stored."""
    save(tmp_path / "x" / "wide.png", 50, size=(20, 10))
    save_turned(tmp_path / "x" / "turned", where)
    images = read(tmp_path).images
    assert images.shape[:3] == (2, 10, 20)
    assert np.abs(images.astype(int) - 50).max() <= 2
    (tmp_path / "x" / "wide.png").unlink()
    assert read(tmp_path).images.shape[:3] == (1, 10, 20)


def test_colours_of_12_bits_in_16_are_rejected(tmp_path):
    """Pillow reads only the upper eight bits, which are at most 15."""
    pixels = b"".join(b"\0" + struct.pack(">HHH", 4095, 2048, 100) * 12 for _ in range(12))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 12, 12, 16, 2, 0, 0, 0))
    content = header + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    save(tmp_path / "x" / "a.png", mode="RGB")
    (tmp_path / "x" / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(ValueError, match="deep.png.*4,095"):
        read(tmp_path)


def test_an_odd_size_is_cut_to_the_ratio_of_the_others(tmp_path):
    """Of 30 rows and 30 columns, 40 x 20 keeps columns 7..22, and enlarges them."""
    pixels = np.tile(np.arange(30, dtype=np.uint8), (30, 1))
    for number in range(3):
        save(tmp_path / "x" / f"{number}.png", 9, size=(20, 40))
    Image.fromarray(pixels).save(tmp_path / "x" / "odd.png")
    folder = read(tmp_path)
    expected = Image.fromarray(pixels[:, 7:22]).resize((20, 40), Image.Resampling.BICUBIC)
    assert (folder.images[3, ..., 0] == np.asarray(expected)).all()
    assert "resized 1 of 4 images to 20×40: 1 of 30×30" in folder.notes


def test_all_images_of_16_bits_share_their_white(tmp_path):
    """A level of 4,095 in one image keeps the others dark, and the folder says so."""
    save(tmp_path / "x" / "dark.png", 1000, mode="I;16")
    save(tmp_path / "x" / "light.png", 4095, mode="I;16")
    folder = read(tmp_path)
    assert values(folder) == [62, 255] and any("4,095" in note for note in folder.notes)
    save(tmp_path / "x" / "lighter.png", 65535, mode="I;16")
    assert values(read(tmp_path)) == [4, 16, 255]


@pytest.mark.parametrize("threads", [0, -1, 1.5])
def test_threads_must_be_positive(tmp_path, threads):
    save(tmp_path / "x" / "a.png")
    with pytest.raises((ValueError, TypeError), match=f"threads.*{threads}"):
        read(tmp_path, threads=threads)
