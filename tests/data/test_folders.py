"""Folders of images are read as described, in every layout, or rejected with a clear error."""

import os

import numpy as np
import pytest
from image_files import cached, read, save, shades, table, truncated, values

from jaxdd.data import folders


def test_sub_folders_are_classes(tmp_path):
    """Images are in the order of their paths: cat/a.png, cat/deep/er/b.JPG, dog/c.bmp."""
    save(tmp_path / "dog" / "c.bmp", 3)
    save(tmp_path / "cat" / "deep" / "er" / "b.JPG", 2)
    save(tmp_path / "cat" / "a.png", 1)
    save(tmp_path / "cat" / ".hidden.png")
    save(tmp_path / "cat" / ".cache" / "x.png")
    save(tmp_path / "__MACOSX" / "cat" / "x.png")
    save(tmp_path / ".git" / "x.png")
    for name in (".DS_Store", "Thumbs.db", "cat/Thumbs.db", "cat/._a.png", "notes.txt"):
        (tmp_path / name).write_text("no image")
    folder = folders.read(str(tmp_path))
    assert folder.images.shape == (3, 12, 12, 1) and folder.images.dtype == np.uint8
    assert values(folder) == [1, 2, 3]
    assert folder.labels.tolist() == [0, 0, 1] and folder.labels.dtype == np.int32
    assert folder.class_names == ("cat", "dog")
    assert (folder.attributes, folder.attribute_names, folder.test) == (None, None, None)
    assert folder.skipped == ()


def test_numbers_are_sorted_as_numbers(tmp_path):
    for name in range(11):
        save(tmp_path / str(name) / "x.png", name)
    folder = folders.read(tmp_path)
    assert folder.class_names == tuple(map(str, range(11)))
    assert folder.labels.tolist() == values(folder)


def test_names_that_are_not_utf8_are_escaped(tmp_path):
    """Two names that differ only in such a byte stay two classes."""
    for value, name in enumerate((b"caf\xe8", b"caf\xe9")):
        save(tmp_path / os.fsdecode(name) / "x.png", value)
    folder = folders.read(tmp_path)
    assert folder.class_names == (r"caf\udce8", r"caf\udce9") and values(folder) == [0, 1]


@pytest.mark.parametrize("unused", [(), ("valid",), ("val", "valid")])
def test_train_and_test_hold_the_classes(tmp_path, unused):
    for split, value in (("test", 10), ("train", 0), *((name, 99) for name in unused)):
        for label in ("b", "a"):
            save(tmp_path / split / label / "x.png", value + ord(label) - ord("a"))
    folder = folders.read(tmp_path)
    assert values(folder) == [0, 1, 10, 11] and folder.labels.tolist() == [0, 1, 0, 1]
    assert folder.test.tolist() == [False, False, True, True] and folder.test.dtype == bool


def test_missing_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent does not exist"):
        folders.read(tmp_path / "absent")
    (tmp_path / "data.zip").write_text("")
    with pytest.raises(ValueError, match="data.zip is a file"):
        folders.read(tmp_path / "data.zip")


@pytest.mark.parametrize(
    "write", [lambda path: path.write_text("no image"), truncated], ids=["header", "pixels"]
)
@pytest.mark.parametrize(
    "bad, message",
    [
        (["train/a/1.png"], "'a'"),
        (["test/a/1.png"], "test split"),
        (["train/a/1.png", "train/b/1.png", "test/a/1.png"], "no training|none of 3 images"),
    ],
)
def test_every_class_must_keep_an_image(tmp_path, write, bad, message):
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
    folder = folders.read(tmp_path, skip_bad=True)
    assert folder.skipped == ("1.png", "4.png")
    assert values(folder) == [1, 3, 4, 6] and folder.labels.tolist() == [0, 0, 1, 1]
    assert folder.attributes.tolist() == [0, 2, 3, 5] and len(folder.attribute_names) == 6
    assert folder.test.tolist() == [False, False, False, True]


def test_a_relative_path_gives_the_same_names_and_cache(tmp_path, monkeypatch):
    save(tmp_path / "data" / "cat" / "x.png")
    truncated(tmp_path / "data" / "cat" / "y.png")
    monkeypatch.chdir(tmp_path / "data")
    for path in (".", "../data", tmp_path / "data"):
        folder = read(path, skip_bad=True, cache=tmp_path / "cache")
        assert folder.skipped == ("cat/y.png",)
    assert len(cached(tmp_path / "cache")) == 2


def test_integers_of_numpy_with_a_cache(tmp_path):
    shades(tmp_path / "data")
    options = dict(resize=np.int64(9), seed=np.uint32(3), cache=tmp_path / "cache")
    assert folders.read(tmp_path / "data", **options).images.shape == (22, 9, 9, 3)
    with pytest.raises(ValueError, match="seed.*-1"):
        folders.read(tmp_path / "data", seed=-1)
