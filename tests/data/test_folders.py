"""A folder is read as it says, whatever its layout and files, or told in one line what is wrong.

All images are made here, mostly of a single value, which says which one it is.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from jaxdd.data import datasets, decoding, files, folders


def save(path, value=0, *, mode="L", size=(12, 12), **options):
    """Writes an image of one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)


def values(found):
    """The first channel of the first pixel of each image."""
    return found.images[:, 0, 0, 0].tolist()


def table(folder, text, *files):
    """Writes metadata.csv, and an image for each file: 1, 2, ..."""
    for value, file in enumerate(files, 1):
        save(folder / file, value)
    (folder / "metadata.csv").write_text(text, encoding="utf-8")
    return folder


# ------------------------------------------------------------------ a folder for each class


def test_sub_folders_are_classes_and_all_else_is_ignored(tmp_path):
    """In order of the paths: cat/a.png, cat/deep/er/b.JPG, dog/c.bmp."""
    save(tmp_path / "dog" / "c.bmp", 3)
    save(tmp_path / "cat" / "deep" / "er" / "b.JPG", 2)
    save(tmp_path / "cat" / "a.png", 1)
    save(tmp_path / "cat" / ".hidden.png")
    save(tmp_path / "cat" / ".cache" / "x.png")
    save(tmp_path / "__MACOSX" / "cat" / "x.png")
    save(tmp_path / ".git" / "x.png")
    for name in (".DS_Store", "Thumbs.db", "cat/Thumbs.db", "cat/._a.png", "notes.txt"):
        (tmp_path / name).write_text("no image")
    found = folders.read(str(tmp_path))
    assert found.images.shape == (3, 12, 12, 1) and found.images.dtype == np.uint8
    assert values(found) == [1, 2, 3]
    assert found.labels.tolist() == [0, 0, 1] and found.labels.dtype == np.int32
    assert found.class_names == ("cat", "dog")
    assert (found.attributes, found.attribute_names, found.test) == (None, None, None)
    assert found.skipped == ()


def test_numbers_are_sorted_as_numbers(tmp_path):
    for name in range(11):
        save(tmp_path / str(name) / "x.png", name)
    found = folders.read(tmp_path)
    assert found.class_names == tuple(map(str, range(11)))
    assert found.labels.tolist() == values(found)


@pytest.mark.parametrize("unused", [(), ("valid",), ("val", "valid")])
def test_train_and_test_hold_the_classes(tmp_path, unused):
    for split, value in (("test", 10), ("train", 0), *((name, 99) for name in unused)):
        for label in ("b", "a"):
            save(tmp_path / split / label / "x.png", value + ord(label) - ord("a"))
    found = folders.read(tmp_path)
    assert values(found) == [0, 1, 10, 11] and found.labels.tolist() == [0, 1, 0, 1]
    assert found.test.tolist() == [False, False, True, True] and found.test.dtype == bool


def test_a_train_among_other_vehicles_is_a_class(tmp_path):
    for name in ("bus", "car", "train"):
        save(tmp_path / name / "x.png")
    found = folders.read(tmp_path)
    assert found.class_names == ("bus", "car", "train") and found.test is None


def test_one_class_is_enough_and_links_are_followed(tmp_path):
    """To a place in the folder; where a class or an image leads elsewhere, nothing is read."""
    save(tmp_path / "data" / ".kept" / "x.png", 7)
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "data" / ".kept")
    (tmp_path / "data" / "cat" / "y.png").symlink_to("x.png")
    found = folders.read(tmp_path / "data")
    assert found.class_names == ("cat",) and values(found) == [7, 7]
    save(tmp_path / "elsewhere" / "x.png", 7)
    for name, outside in (("cat/z.png", "elsewhere/x.png"), ("dog", "elsewhere")):
        (tmp_path / "data" / name).symlink_to(tmp_path / outside)
        with pytest.raises(ValueError, match=f"{name} leads to .*{outside}, expected a place in"):
            folders.read(tmp_path / "data", skip_bad=True)
        (tmp_path / "data" / name).unlink()


@pytest.mark.parametrize(
    "files, message",
    [
        ([], "no images in .*data, expected a folder for each class, or metadata.csv"),
        (["x.png"], r"x\.png is in no class, expected a folder for each class, or metadata.csv"),
        (["cat/x.png", "y.png"], r"y\.png is in no class"),
        (["cat/x.png", "dog/x.txt"], "no images in .*dog, expected names that end in .png .jpg"),
        (["train/cat/x.png"], "holds train; expected train and test, maybe valid, or classes"),
        (["test/cat/x.png", "val/cat/x.png"], "holds test, val; expected train and test"),
        (["train/x/x.png", "test/x/x.png", "other/x/x.png"], "holds other, test, train; expected"),
        (["all/cat/x.png", "all/dog/x.png"], "holds all alone, whose folders may be the classes"),
        (["train/cat/x.png", "test/x.png"], r"test/x\.png is in no class"),
        (["train/cat/x.png", "test/dog/x.png"], "class 'dog' has no training image"),
    ],
)
def test_layouts_that_cannot_be_right(tmp_path, files, message):
    root = tmp_path / "data"
    root.mkdir()
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("not even an image")
    with pytest.raises(ValueError, match=message):
        folders.read(root)


@pytest.mark.parametrize("reader", [folders.read, folders.bffhq])
def test_no_folder(tmp_path, reader):
    with pytest.raises(FileNotFoundError, match="absent does not exist, expected a folder of im"):
        reader(tmp_path / "absent")
    (tmp_path / "data.zip").write_text("")
    with pytest.raises(ValueError, match="data.zip is a file, expected a folder of images"):
        reader(tmp_path / "data.zip")


# ------------------------------------------------------------------ a table


ROWS = {
    "file": ["b.png", "sub/a.png", "./c.png", "d.png"],
    "label": [10, 9, 9, 10],
    "attribute": ["red", "blue", "red", "red"],
    "split": ["train", "train", "test", "test"],
}


def write_table(folder, kind, file="file"):
    columns = {file if name == "file" else name: values for name, values in ROWS.items()}
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        split = pyarrow.array(ROWS["split"]).dictionary_encode()
        data = pyarrow.table(columns | {"split": split})
        return parquet.write_table(data, folder / "metadata.parquet")
    lines = [",".join(columns)] + [
        ",".join(map(str, row)) for row in zip(*columns.values(), strict=True)
    ]
    if kind == "semantically equal csv":
        lines = [f"id,{lines[0]}", *(f'"a\nb", {line} ' for line in lines[1:]), ""]
    encoding = "utf-8-sig" if kind == "csv with bom" else "utf-8"
    (folder / "metadata.csv").write_text("\r\n".join(lines), encoding=encoding)


@pytest.mark.parametrize("column", ["file", "file_name"])
@pytest.mark.parametrize("kind", ["csv", "csv with bom", "semantically equal csv", "parquet"])
def test_a_table_says_it_all(tmp_path, kind, column):
    """Labels 10, 9, 9, 10 are sorted as numbers, 9 before 10; images keep the order of the rows."""
    for value, file in enumerate([*ROWS["file"], "unlisted.png", "cat/x.png"]):
        save(tmp_path / file, value)
    write_table(tmp_path, kind, column)
    found = folders.read(tmp_path)
    assert values(found) == [0, 1, 2, 3]
    assert found.class_names == ("9", "10") and found.labels.tolist() == [1, 0, 0, 1]
    assert found.attribute_names == ("blue", "red") and found.attributes.tolist() == [1, 0, 1, 1]
    assert found.attributes.dtype == np.int32
    assert found.test.tolist() == [False, False, True, True]


@pytest.mark.parametrize("text", ["label,file\nx,a.png", "file,label,attribute,split\na.png,x,,\n"])
def test_attribute_and_split_are_optional(tmp_path, text):
    found = folders.read(table(tmp_path, text, "a.png"))
    assert (found.attributes, found.attribute_names, found.test) == (None, None, None)
    assert found.class_names == ("x",)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no column 'file': expected file, label and maybe attribute, split, found none"),
        ("file,label\n", "metadata.csv has no rows"),
        ("filename,label\na.png,x", r"no column 'file' \(is 'filename' meant\?\)"),
        ("file,file_name,label\na.png,a.png,x", "the columns file and file_name, expected one"),
        ("file_name,label\na.png,x\n,x", "row 2 of .*metadata.csv has no file"),
        ("file_name,label\na.png,x\n./a.png,y", r"row 2 .*: \./a\.png is in row 1 already"),
        ("file,Label\na.png,x", r"no column 'label' \(is 'Label' meant\?\): .* found file, Label"),
        ("file;label\na.png;x", "no column 'file'.* found file;label"),
        ("file,label,attributes\na.png,x,1", r"no column 'attribute' \(is 'attributes' meant\?\)"),
        ("file,label\na.png,x\n,x", "row 2 of .*metadata.csv has no file"),
        ("file,label\na.png,x\nb.png", "row 2 of .*metadata.csv has no label"),
        ("file,label\na.png, ", "row 1 of .*metadata.csv has no label"),
        ("file,label,split\na.png,x,val", "row 1 .*: split must be train or test, found 'val'"),
        ("file,label\na.png,x\nb.png,x\n./a.png,y", r"row 3 .*: \./a\.png is in row 1 already"),
        ("file,label\n../a.png,x", r"row 1 .*: expected a path relative to .*'\.\./a\.png'"),
        ("file,label,label\na.png,x,y", "metadata.csv has 2 columns 'label', expected one"),
        ("file,label\na.png,x\nb.png,y,z,1", "row 2 of .*metadata.csv has 4 cells under 2 columns"),
        ("file,label\na.png,x\0", "row 1 of .*metadata.csv: label must not hold a NUL character"),
        ("file,label\n\0,x", "row 1 of .*metadata.csv: file must not hold a NUL character"),
        ("file,label\n/etc/a.png,x", "row 1 .*: expected a path relative to .*'/etc/a.png'"),
        ("file,label\nlink.png,x", "row 1 .*: expected a path relative to .*, found 'link.png'"),
        (
            "file,label,attribute\na.png,x,1\nb.png,x,\nc.png,x,",
            "gives the attribute of 1 of 3 rows, expected all or none; .* without is row 2",
        ),
        ("file,label,split\na.png,x,train\nb.png,x,", "gives the split of 1 of 2 rows"),
        ("file,label,split\na.png,x,train\nb.png,y,test", "class 'y' has no training image"),
        ("file,label,split\na.png,x,train\nb.png,x,train", "the test split has no image"),
        ('file,label\n"a.png,x', "metadata.csv is not readable as CSV in UTF-8: unexpected end"),
    ],
)
def test_tables_that_cannot_be_right(tmp_path, text, message, monkeypatch):
    """Told before any image is opened."""
    save(tmp_path / "outside.png")
    root = tmp_path / "data"
    table(root, text, "a.png", "b.png", "c.png")
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(ValueError, match=message) as caught:
        folders.read(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_file_in_the_table_must_exist(tmp_path, skip_bad):
    table(tmp_path, "file,label\na.png,x\nno.png,x", "a.png")
    with pytest.raises(FileNotFoundError, match=r"row 2 of .*metadata.csv: there is no file .*no"):
        folders.read(tmp_path, skip_bad=skip_bad)


def test_a_link_within_the_folder_may_be_named(tmp_path):
    root = table(tmp_path, "file,label\nlink.png,x", "a.png")
    (root / "link.png").symlink_to("a.png")
    assert values(folders.read(root)) == [1]
    table(root, "file,label\nlink.png,x\na.png,y")
    with pytest.raises(ValueError, match="row 2 .*: a.png is in row 1 already"):
        folders.read(root)


def test_a_path_in_the_table_must_be_relative(tmp_path):
    """Even to where it leads, for a folder must be movable."""
    table(tmp_path, f"file,label\n{tmp_path}/a.png,x", "a.png")
    with pytest.raises(ValueError, match="row 1 .*: expected a path relative to .*, found '/"):
        folders.read(tmp_path)


def test_an_unrelated_column_is_not_taken_for_a_misspelt_one(tmp_path):
    table(tmp_path, "file,label,attractive,profile\na.png,x,1,2", "a.png")
    assert folders.read(tmp_path).attributes is None


def test_other_encodings_are_refused(tmp_path):
    (tmp_path / "metadata.csv").write_bytes("file,label\nä.png,x".encode("latin-1"))
    with pytest.raises(ValueError, match="metadata.csv is not readable as CSV in UTF-8: .* 0xe4"):
        folders.read(tmp_path)


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"file": ["a.png", "a.png"], "label": ["x", None]}, "row 2 of .*parquet has no label"),
        ({"file": ["a.png"], "label": [1.0]}, "label must be a string or an integer, found a flo"),
        ({"file": ["a.png"]}, "no column 'label'"),
        (None, "metadata.parquet is not readable as parquet"),
    ],
)
def test_parquet_that_cannot_be_right(tmp_path, columns, message):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    save(tmp_path / "a.png")
    (tmp_path / "metadata.parquet").write_text("no parquet at all")
    if columns:
        parquet.write_table(pyarrow.table(columns), tmp_path / "metadata.parquet")
    with pytest.raises(ValueError, match=message) as caught:
        folders.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_parquet_needs_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "metadata.parquet").write_text("")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match="metadata.parquet needs pyarrow: pip install pyarrow"):
        folders.read(tmp_path)


def test_two_tables_are_one_too_many(tmp_path):
    for name in ("metadata.csv", "metadata.parquet"):
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match="both metadata.csv and metadata.parquet, expected one"):
        folders.read(tmp_path)


# ------------------------------------------------------------------ pixels


def palette_with_transparency(path):
    """Index 0 is (200, 100, 50) at alpha 128, index 1 opaque; pillow warns when it becomes RGB."""
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
        ("i16.png", "I;16", 1000, (4,)),
        ("i16.tif", "I;16", 65535, (255,)),
        ("i16b.tiff", "I;16B", 30000, (117,)),
        ("i.tif", "I", 128, (0,)),
        ("rgb.bmp", "RGB", (1, 2, 3), (1, 2, 3)),
        ("rgb.ppm", "RGB", (1, 2, 3), (1, 2, 3)),
        ("rgba.png", "RGBA", (200, 100, 50, 128), (100, 50, 25)),
        ("rgba.webp", "RGBA", (200, 100, 50, 0), (0, 0, 0)),
        ("cmyk.tif", "CMYK", (0, 255, 0, 0), (255, 0, 255)),
        ("cmyk.jpg", "CMYK", (0, 0, 0, 255), (0, 0, 0)),
    ],
)
def test_every_mode_is_read(tmp_path, name, mode, value, expected):
    """16 bits: 1000/257 = 3.9, 30000/257 = 116.7, 128/257 = .5 less. Alpha 128 of 255: half."""
    save(tmp_path / "x" / name, value, mode=mode)
    pixels = folders.read(tmp_path).images
    assert pixels.shape == (1, 12, 12, len(expected))
    assert (pixels == expected).all()


def test_a_palette_is_colour_and_pillow_does_not_warn(tmp_path):
    (tmp_path / "x").mkdir()
    palette_with_transparency(tmp_path / "x" / "p.png")
    save(tmp_path / "x" / "q.png", 40)
    found = folders.read(tmp_path).images
    assert found[0, 0, 0].tolist() == [100, 50, 25]
    assert found[1, 0, 0].tolist() == [40, 40, 40], "grey among colour is repeated"


def test_an_animation_is_its_first_frame(tmp_path):
    frames = [Image.new("L", (12, 12), value) for value in (10, 20)]
    (tmp_path / "x").mkdir()
    frames[0].save(tmp_path / "x" / "a.gif", save_all=True, append_images=frames[1:])
    assert values(folders.read(tmp_path)) == [10]


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
    """The orientations of EXIF: 6 is a camera held upright, whose image is to turn clockwise."""
    stored = np.kron(np.array([[40, 80, 120], [160, 200, 240]], np.uint8), np.ones((8, 8), int))
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "x").mkdir()
    image = Image.fromarray(stored.astype(np.uint8))
    image.save(tmp_path / "x" / f"a.{ending}", exif=exif)
    found = folders.read(tmp_path).images[0, ..., 0]
    assert np.abs(found - UPRIGHT[orientation](stored)).max() <= 1


def test_sizes_are_compared_upright(tmp_path):
    """20 x 10 as it is, and 10 x 20 to be turned: one size, so nothing is cropped."""
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "x" / "wide.jpg", 50, size=(20, 10))
    save(tmp_path / "x" / "tall.jpg", 50, size=(10, 20), exif=exif)
    assert folders.read(tmp_path).images.shape == (2, 10, 20, 1)


# ------------------------------------------------------------------ sizes


@pytest.mark.parametrize(
    "sizes, resize, expected",
    [
        ([(256, 9), (256, 9)], None, (9, 256)),
        ([(1, 1)], None, (1, 1)),
        ([(300, 300)], None, (32, 32)),
        ([(257, 20)], None, (20, 20)),
        ([(20, 90), (30, 30), (99, 41)], None, (30, 30)),
        ([(20, 20), (25, 90)], None, (22, 22)),
        ([(3, 3), (4, 4)], None, (8, 8)),
        ([(90, 100), (80, 80)], None, (32, 32)),
        ([(12, 12)], 20, (20, 20)),
        ([(40, 30), (7, 9)], 256, (256, 256)),
        ([(40, 30)], np.int64(1), (1, 1)),
    ],
)
def test_sizes(tmp_path, sizes, resize, expected):
    """Medians: 20, 30, 41 is 30; 20, 25 is 22.5, rounded to even."""
    for number, size in enumerate(sizes):
        save(tmp_path / "x" / f"{number}.png", 9, size=size)
    found = folders.read(tmp_path, resize=resize)
    assert found.images.shape == (len(sizes), *expected, 1)
    assert (found.images == 9).all()


@pytest.mark.parametrize("side, method", [(10, "LANCZOS"), (20, "LANCZOS"), (50, "BICUBIC")])
def test_the_central_square_is_resized(tmp_path, side, method):
    """Of 20 rows and 31 columns, columns 5..24 are the centre; a square of 20 stays as it is."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 31, 3), dtype=np.uint8)
    (tmp_path / "x").mkdir()
    Image.fromarray(pixels).save(tmp_path / "x" / "a.png")
    centre = Image.fromarray(pixels[:, 5:25])
    expected = np.asarray(centre.resize((side, side), Image.Resampling[method]))
    assert (folders.read(tmp_path, resize=side).images[0] == expected).all()


def test_shrinking_does_not_alias(tmp_path):
    """A chequerboard of single pixels has no other mean than grey, 127.5, anywhere."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    (tmp_path / "x").mkdir()
    Image.fromarray(board).save(tmp_path / "x" / "a.png")
    found = folders.read(tmp_path, resize=8).images.astype(int)
    assert np.abs(found - 127).max() <= 3


@pytest.mark.parametrize("reader", [folders.read, folders.bffhq])
@pytest.mark.parametrize(
    "resize, error", [(0, ValueError), (257, ValueError), (True, TypeError), (32.0, TypeError)]
)
def test_bad_sizes(tmp_path, reader, resize, error):
    with pytest.raises(error, match="resize must .*, found"):
        reader(tmp_path, resize=resize)


# ------------------------------------------------------------------ images that do not decode


def truncated(path):
    noise = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-60])


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
def test_what_does_not_decode_is_named_or_skipped(tmp_path, name, monkeypatch):
    """With a limit of 400 pixels, 1,600 are a bomb; of 12 x 12 the others are at ease."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    save(tmp_path / "cat" / "a.png", 1)
    save(tmp_path / "cat" / "z.png", 2)
    save(tmp_path / "dog" / "a.png", 3)
    BAD[name](tmp_path / "cat" / name)
    with pytest.raises(ValueError, match=f"cat/{name} does not decode: ") as caught:
        folders.read(tmp_path)
    assert "\n" not in str(caught.value)
    found = folders.read(tmp_path, skip_bad=True)
    assert found.skipped == (f"cat/{name}",)
    assert values(found) == [1, 2, 3] and found.labels.tolist() == [0, 0, 1]
    assert found.images.shape == (3, 12, 12, 1)


def test_a_large_image_is_no_bomb_and_pillow_does_not_warn(tmp_path, monkeypatch):
    """Beyond the limit pillow warns, beyond twice the limit it raises."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    save(tmp_path / "x" / "a.png", 5)
    assert values(folders.read(tmp_path)) == [5]


def test_a_program_named_like_an_image_is_not_run(tmp_path):
    """Pillow hands EPS to Ghostscript, where that is installed."""
    save(tmp_path / "cat" / "a.png")
    postscript(tmp_path / "cat" / "b.png")
    with pytest.raises(ValueError, match=r"b\.png does not decode: it is none of PNG, JPEG, B"):
        folders.read(tmp_path)


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "PIXELS", 143)
    save(tmp_path / "cat" / "a.png")
    monkeypatch.setattr(decoding, "_fill", None)
    with pytest.raises(ValueError, match="a.png does .*expected at most 143 pixels, found 12 × 12"):
        folders.read(tmp_path)


def test_of_several_bad_images_the_first_is_named(tmp_path):
    for name in "abcdef":
        save(tmp_path / "x" / f"{name}.png")
    for name in "ec":
        (tmp_path / "x" / f"{name}.png").write_text("")
    for _ in range(5):
        with pytest.raises(ValueError, match=r"x/c\.png does not decode"):
            folders.read(tmp_path)


@pytest.mark.parametrize("write", [BAD["text.png"], truncated], ids=["header", "pixels"])
@pytest.mark.parametrize(
    "bad, message",
    [
        (["train/a/1.png"], "class 'a' has no training image that decodes"),
        (["test/a/1.png"], "the test split has no image that decodes"),
        (["train/a/1.png", "train/b/1.png", "test/a/1.png"], "has no training|none of 3 images"),
    ],
)
def test_skipping_must_leave_every_class(tmp_path, write, bad, message):
    for file in ("train/a/1.png", "train/b/1.png", "test/a/1.png"):
        save(tmp_path / file)
        if file in bad:
            write(tmp_path / file)
    with pytest.raises(ValueError, match=message):
        folders.read(tmp_path, skip_bad=True)


def test_skipping_in_a_table_keeps_rows_together(tmp_path):
    rows = [f"{n}.png,{'xy'[n % 2]},{n},{'train' if n < 4 else 'test'}" for n in range(6)]
    text = "\n".join(["file,label,attribute,split", *rows])
    table(tmp_path, text, *(f"{n}.png" for n in range(6)))
    truncated(tmp_path / "1.png")
    truncated(tmp_path / "4.png")
    found = folders.read(tmp_path, skip_bad=True)
    assert found.skipped == ("1.png", "4.png")
    assert values(found) == [1, 3, 4, 6] and found.labels.tolist() == [0, 0, 1, 1]
    assert found.attributes.tolist() == [0, 2, 3, 5] and len(found.attribute_names) == 6
    assert found.test.tolist() == [False, False, False, True]


# ------------------------------------------------------------------ threads and memory


def test_the_order_is_not_that_of_the_threads(tmp_path, monkeypatch):
    """Large originals, which are ready late, among small ones."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for value in range(40):
        side = 600 if value % 7 == 0 else 9
        save(tmp_path / str(value % 2) / f"{value:02}.png", value, size=(side, side))
    found = folders.read(tmp_path)
    assert values(found) == [*range(0, 40, 2), *range(1, 40, 2)]
    assert found.images.shape[1:] == (9, 9, 1)
    assert (found.images == found.images[:, :1, :1]).all()


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="needs Linux")
def test_originals_are_not_kept(tmp_path):
    """40 originals of 1500 x 1500 pixels of 4 bytes are 360 MB; two threads hold three copies each.

    Pillow meets TIFF and WebP for the first time in these threads, too.
    """
    for number in range(5):
        save(tmp_path / "x" / f"{number}.tif", mode="RGB")
        save(tmp_path / "x" / f"{number}.webp", mode="RGB")
    save(tmp_path / "x" / "large.png", mode="RGB", size=(1500, 1500))
    for number in range(39):
        (tmp_path / "x" / f"large {number}.png").symlink_to("large.png")
    code = f"""
import os, re
from jaxdd.data import folders
import PIL.Image, PIL.ImageOps
os.cpu_count = lambda: 2
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
assert folders.read({str(tmp_path)!r}).images.shape == (50, 32, 32, 3)
print(peak() - before)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 150_000


# ------------------------------------------------------------------ a map


def shaded(folder, *, bad=(), side=12):
    """Two classes of 11 images, each of one shade of red; some of them are cut off."""
    for number in range(22):
        path = folder / "ab"[number % 2] / f"{number:02}.png"
        save(path, (10 * number, 0, 7), mode="RGB", size=(side, side))
        if number in bad:
            path.write_bytes(path.read_bytes()[:-30])
    return folder


def same(one, other):
    """Whether two benchmarks hold the same bytes, under the same statistics."""
    same = [one.mean, one.std, one.aligned] == [other.mean, other.std, other.aligned]
    return same and datasets.digest(one) == datasets.digest(other)


def maps(cache):
    return sorted(path.name for path in pathlib.Path(cache).iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("resize", [None, 8])
@pytest.mark.parametrize("bad", [(), (3, 4, 17)])
@pytest.mark.parametrize("layout", ["classes", "splits", "table"])
def test_a_map_holds_what_memory_would(tmp_path, layout, bad, resize):
    """Each split is a slice of the map, its rows those that are drawn or given otherwise."""
    if layout == "splits":
        for split in ("train", "test"):
            shaded(tmp_path / "data" / split, bad=bad)
    else:
        shaded(tmp_path / "data", bad=bad)
    if layout == "table":
        rows = [f"{'ab'[n % 2]}/{n:02}.png,{n % 2},{n % 3},{'train test'.split()[n % 5 == 0]}"
                for n in range(22)]  # fmt: skip
        text = "\n".join(["file,label,attribute,split", *rows])
        (tmp_path / "data" / "metadata.csv").write_text(text)
    how = dict(skip_bad=True, resize=resize)
    plain = folders.read(tmp_path / "data", **how)
    made = datasets.from_folder(plain, seed=3)
    for _ in range(2):  # made, and found
        found = folders.read(tmp_path / "data", seed=3, cache=tmp_path / "cache", **how)
        assert isinstance(found.images, np.memmap) and isinstance(plain.images, np.ndarray)
        assert found.skipped == plain.skipped and len(found.skipped) == len(bad) * (
            1 + (layout == "splits")
        )
        other = datasets.from_folder(found, seed=5)
        assert same(made, other)
        for part in (other.train, other.test):
            assert np.shares_memory(part.images, found.images)
    assert same(made, datasets.from_folder(folders.read(tmp_path / "data", seed=3, **how)))


def test_a_map_begins_at_a_size(tmp_path):
    shaded(tmp_path / "data")
    size = 22 * 12 * 12 * 3
    found = folders.read(tmp_path / "data", map_from=size + 1)
    assert not isinstance(found.images, np.memmap)


def test_the_default_cache_is_that_of_jaxdd(tmp_path, monkeypatch):
    """It is cut to its budget before another map is made; a named one is not."""
    monkeypatch.setattr(files, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(folders, "MAP_BYTES", 21_000)
    shaded(tmp_path / "data")
    for resize in (12, 12, 11):
        found = folders.read(tmp_path / "data", resize=resize, map_from=1)
        assert isinstance(found.images, np.memmap) and not found.images.flags.writeable
    assert len(maps(tmp_path / "cache" / "folders")) == 4
    folders.read(tmp_path / "data", resize=13, map_from=1)
    left = maps(tmp_path / "cache" / "folders")
    assert [pathlib.Path(name).suffix for name in left] == [".json", ".npy"] * 2
    for resize in (12, 11):
        folders.read(tmp_path / "data", resize=resize, cache=tmp_path / "own")
    assert len(maps(tmp_path / "own")) == 4


def decoded(monkeypatch):
    """Counts the images that are decoded from now on."""
    count, fill = [], decoding._fill

    def counted(file, out):
        count.append(pathlib.Path(file).name)
        return fill(file, out)

    monkeypatch.setattr(decoding, "_fill", counted)
    return count


def test_images_of_a_map_are_decoded_once(tmp_path, monkeypatch):
    shaded(tmp_path / "data")
    count, read = (
        decoded(monkeypatch),
        lambda **how: folders.read(
            **(dict(path=tmp_path / "data", seed=0, cache=tmp_path / "cache") | how)
        ),
    )
    first = read()
    assert len(count) == 22
    monkeypatch.chdir(tmp_path)
    assert values(read(path="data")) == values(first) and len(count) == 22
    for changed in (dict(seed=1), dict(resize=9), dict(skip_bad=True)):
        read(**changed)
        read(**changed)
    assert len(count) == 4 * 22


@pytest.mark.parametrize("change", ["content", "time", "more", "fewer", "name"])
def test_other_files_are_another_map(tmp_path, change):
    path = shaded(tmp_path / "data") / "a" / "04.png"
    before = folders.read(tmp_path / "data", cache=tmp_path / "cache")
    status = path.stat()
    if change == "content":
        save(path, (99, 0, 7), mode="RGB")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10))
    elif change == "time":
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10))
    elif change == "more":
        save(path.with_name("98.png"), (98, 0, 7), mode="RGB")
    elif change == "fewer":
        path.unlink()
    else:
        path.rename(path.with_name("97.png"))
    after = folders.read(tmp_path / "data", cache=tmp_path / "cache")
    assert len(maps(tmp_path / "cache")) == 4
    assert (values(after) == values(before)) == (change == "time")
    assert values(after) == values(folders.read(tmp_path / "data"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda rows, told: rows.write_bytes(rows.read_bytes()[:-1] + b"x"),
        lambda rows, told: rows.write_bytes(rows.read_bytes()[:-1]),
        lambda rows, told: rows.unlink(),
        lambda rows, told: told.unlink(),
        lambda rows, told: told.write_text("{"),
        lambda rows, told: told.write_text("[]"),
        lambda rows, told: told.write_text(told.read_text().replace("/a/02.png", "/a/06.png")),
    ],
    ids=["byte", "cut", "no rows", "no digests", "no JSON", "list", "another skipped"],
)
def test_a_damaged_map_is_made_anew(tmp_path, damage, monkeypatch):
    shaded(tmp_path / "data", bad=[2])
    how = dict(cache=tmp_path / "cache", skip_bad=True)
    expected = values(folders.read(tmp_path / "data", **how))
    told, rows = (tmp_path / "cache" / name for name in maps(tmp_path / "cache"))
    damage(rows, told)
    count = decoded(monkeypatch)
    for _ in range(2):
        found = folders.read(tmp_path / "data", **how)
        assert values(found) == expected and found.skipped == ("a/02.png",)
    assert len(count) == 22


def test_an_image_that_does_not_decode_leaves_no_map(tmp_path):
    shaded(tmp_path / "data", bad=[5])
    for _ in range(2):
        with pytest.raises(ValueError, match=r"b/05\.png does not decode"):
            folders.read(tmp_path / "data", cache=tmp_path / "cache")
        assert maps(tmp_path / "cache") == []


def test_what_is_no_image_is_named_before_one_is_decoded(tmp_path, monkeypatch):
    """Even where the size is given and the first image in colour, so that no header is needed."""
    shaded(tmp_path / "data")
    count, last = decoded(monkeypatch), tmp_path / "data" / "b" / "21.png"
    for content in (b"", b"no image"):
        last.write_bytes(content)
        with pytest.raises(ValueError, match=r"b/21\.png does not decode: it is none of PNG, JPEG"):
            folders.read(tmp_path / "data", resize=8)
    last.unlink()
    last.symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"b/21\.png does not decode: FileNotFoundError"):
        folders.read(tmp_path / "data", resize=8)
    assert count == []


def test_a_killed_build_leaves_nothing_that_is_read_and_is_swept_up(tmp_path):
    """Killed after the eighth of 22 images, when some of them are on the disk."""
    shaded(tmp_path / "data")
    code = f"""
import os, signal
from jaxdd.data import decoding, folders
fill, count = decoding._fill, []
def killing(file, out):
    count.append(file)
    if len(count) == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return fill(file, out)
decoding._fill = killing
folders.read({str(tmp_path / "data")!r}, cache={str(tmp_path / "cache")!r}, threads=1)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stderr
    (left,) = maps(tmp_path / "cache")
    assert left.startswith(".data-") and left.endswith(files.TEMPORARY)
    found = folders.read(tmp_path / "data", cache=tmp_path / "cache")
    assert values(found) == values(folders.read(tmp_path / "data"))
    assert len(maps(tmp_path / "cache")) == 2 and left not in maps(tmp_path / "cache")


def test_a_disk_that_fills_up_is_an_error_and_leaves_nothing(tmp_path, full_disk):
    shaded(tmp_path / "data")
    with pytest.raises(OSError, match="No space left"):
        folders.read(tmp_path / "data", cache=tmp_path / "cache")
    assert maps(tmp_path / "cache") == []


def test_a_disk_without_room_is_told_before_the_first_image(tmp_path, monkeypatch):
    shaded(tmp_path / "data")
    count = decoded(monkeypatch)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 0, 9_503))
    with pytest.raises(OSError, match="9,504 bytes of images, room for 9,503; name another folder"):
        folders.read(tmp_path / "data", cache=tmp_path / "cache")
    assert count == []


def test_two_that_build_at_once_decode_once(tmp_path, monkeypatch):
    shaded(tmp_path / "data")
    count = decoded(monkeypatch)
    read = lambda _: folders.read(tmp_path / "data", cache=tmp_path / "cache", threads=1)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(read, range(2))
    assert len(count) == 22 and values(one) == values(other)


def test_too_few_to_draw_from_are_told_before_the_first_image(tmp_path, monkeypatch):
    shaded(tmp_path / "data")
    save(tmp_path / "data" / "c" / "x.png", (1, 2, 3), mode="RGB")
    count = decoded(monkeypatch)
    with pytest.raises(ValueError, match="class 'c' needs at least 2 images, .* found 1"):
        folders.read(tmp_path / "data", seed=0, cache=tmp_path / "cache")
    assert count == []


def test_few_blocks_are_in_memory_whatever_their_number(tmp_path, monkeypatch):
    """Four thousand images of 3 KB are 12 MB: two threads hold at most six blocks of 64."""
    save(tmp_path / "data" / "a" / "0.png", (1, 2, 3), mode="RGB")
    names = [str(tmp_path / "data" / "a" / "0.png")] * 4_000
    waiting, most, lock = [0], [0], threading.Lock()

    def counted(file, out):
        with lock:
            waiting[0] += 1
            most[0] = max(most[0], waiting[0])
        return True

    def add(block):
        with lock:
            waiting[0] -= len(block)

    monkeypatch.setattr(decoding, "_fill", counted)
    tracemalloc.start()
    try:
        good = decoding.decode(names, (32, 32, 3), add, threads=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert good.all() and len(good) == 4_000 and waiting == [0]
    assert most[0] <= 6 * 64 and peak < 8 * 64 * 32 * 32 * 3 + 500_000


def test_statistics_need_no_second_copy(tmp_path):
    """Twelve million bytes, whose squares would be twice as many."""
    images = np.random.default_rng(0).integers(0, 256, (4_000, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(4_000) % 2
    test = images[:2], labels[:2]
    tracemalloc.start()
    try:
        made = datasets.from_arrays(images, labels, test=test)
        assert tracemalloc.get_traced_memory()[1] < images.nbytes
    finally:
        tracemalloc.stop()
    flat = images.reshape(-1, 3).astype(np.float64)
    mean, square = flat.mean(axis=0), np.square(flat).mean(axis=0)
    assert made.mean == tuple(mean / 255) and made.std == tuple(np.sqrt(square - mean**2) / 255)


# ------------------------------------------------------------------ from here on


def test_a_folder_becomes_a_benchmark(tmp_path):
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            for number in range(3):
                save(tmp_path / split / label / f"{number}.png", number)
    found = folders.read(tmp_path)
    test = found.images[found.test], found.labels[found.test]
    made = datasets.from_arrays(found.images[~found.test], found.labels[~found.test], test=test)
    assert made.num_classes == 2 and len(made.train.labels) == len(made.test.labels) == 6


# ------------------------------------------------------------------ BFFHQ


@pytest.fixture
def faces(tmp_path):
    """Value 10y + b, plus 100 in the test set; 0.5 % and 1 % conflicting."""
    root = tmp_path / "bffhq"
    for share in ("0.5pct", "1pct"):
        for y in (0, 1):
            save(root / share / "align" / str(y) / f"7_{y}_{y}.png", 11 * y, mode="RGB")
            save(root / share / "conflict" / str(y) / f"8_{y}_{1 - y}.png", 9 * y + 1, mode="RGB")
    save(root / "1pct" / "align" / "1" / "more_1_1.png", 11, mode="RGB")
    for y, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
        save(root / "test" / f"12{y}{b}_{y}_{b}.png", 100 + 10 * y + b, mode="RGB")
    save(root / "valid" / "5_0_0.png", 255, mode="RGB")
    return root


@pytest.mark.parametrize("above", [False, True])
def test_bffhq(faces, above):
    found = folders.bffhq(faces.parent if above else faces, resize=16)
    assert found.images.shape == (8, 16, 16, 3)
    assert values(found) == [0, 11, 1, 10, 100, 101, 110, 111]
    tens, ones = np.divmod(np.array(values(found)) % 100, 10)
    assert (found.labels == tens).all() and (found.attributes == ones).all()
    assert found.test.tolist() == [False] * 4 + [True] * 4
    assert found.class_names == found.attribute_names == ("0", "1")


def test_bffhq_has_other_shares_and_64_pixels(faces):
    found = folders.bffhq(faces, conflict=0.01)
    assert found.images.shape == (9, 64, 64, 3) and (~found.test).sum() == 5


def test_bffhq_that_is_not(faces):
    with pytest.raises(FileNotFoundError, match="5pct does not exist, found 0.5pct, 1pct"):
        folders.bffhq(faces, conflict=0.05)
    with pytest.raises(FileNotFoundError, match="0.5pct does not exist, found no folder of that"):
        folders.bffhq(faces / "valid")
    save(faces / "test" / "face_2_0.png")
    with pytest.raises(ValueError, match="face_2_0.png: expected a name that ends in _y_b"):
        folders.bffhq(faces)
    (faces / "test").rename(faces / "tests")
    with pytest.raises(ValueError, match="no images in .*bffhq/test, expected names that end"):
        folders.bffhq(faces)
