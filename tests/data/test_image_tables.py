"""Tables next to images: their formats, columns and values."""

import importlib.util
import sys

import numpy as np
import pytest
from image_files import save, table, values, write_table
from PIL import Image

from jaxdd.data import datasets, folders

ROWS = {
    "file": ["b.png", "sub/a.png", "./c.png", "d.png"],
    "label": [10, 9, 9, 10],
    "attribute": ["red", "blue", "red", "red"],
    "split": ["train", "train", "test", "test"],
}


@pytest.mark.parametrize(
    "name, options",
    [
        ("metadata.csv", {}),
        ("Metadata.CSV", {}),
        ("labels.csv", {"encoding": "utf-8-sig"}),
        ("my_annotations.csv", {"delimiter": ";"}),
        ("metadata.tsv", {"delimiter": "\t"}),
        ("metadata.jsonl", {}),
        ("METADATA.parquet", {}),
    ],
)
@pytest.mark.parametrize("renamed", [{}, {"file": "file_name", "label": "Class", "split": "Split"}])
def test_labels_attributes_and_splits_from_a_table(tmp_path, name, options, renamed):
    """Labels 10, 9, 9, 10 are sorted as numbers; images keep the order of the rows."""
    for value, file in enumerate([*ROWS["file"], "unlisted.png", "cat/x.png"]):
        save(tmp_path / file, value)
    columns = {renamed.get(use, use): values for use, values in ROWS.items()}
    write_table(tmp_path / name, columns, **options)
    folder = folders.read(tmp_path)
    assert values(folder) == [0, 1, 2, 3]
    assert folder.class_names == ("9", "10") and folder.labels.tolist() == [1, 0, 0, 1]
    assert folder.attribute_names == ("blue", "red") and folder.attributes.tolist() == [1, 0, 1, 1]
    assert folder.attributes.dtype == np.int32
    assert folder.test.tolist() == [False, False, True, True]
    notes = "; ".join(folder.notes)
    assert f"table {name}: file is {renamed.get('file', 'file')}" in notes
    assert "2 images are in no table" in notes and "9 2, 10 2" in notes


def test_quoted_cells_and_surplus_columns(tmp_path):
    text = 'id,file,label,attractive,profile\n"a\nb",a.png,x,1,2\n\nc,"b.png",x ,3,4\n'
    folder = folders.read(table(tmp_path, text, "a.png", "b.png"))
    assert folder.class_names == ("x",) and folder.attributes is None and len(folder.labels) == 2


@pytest.mark.parametrize("text", ["label,file\nx,a.png", "file,label,attribute,split\na.png,x,,\n"])
def test_attribute_and_split_are_optional(tmp_path, text):
    folder = folders.read(table(tmp_path, text, "a.png"))
    assert (folder.attributes, folder.attribute_names, folder.test) == (None, None, None)
    assert folder.class_names == ("x",)


def test_attributes_may_be_known_for_some_images(tmp_path):
    """Indices are those of the known attributes in order, -1 where the cell is empty."""
    rows = ["a.png,x,red,train", "b.png,x,,train", "c.png,x,blue,train", "d.png,x,blue,test"]
    text = "\n".join(["file,label,attribute,split", *rows])
    folder = folders.read(table(tmp_path, text, *(f"{name}.png" for name in "abcd")))
    assert folder.attribute_names == ("blue", "red")
    assert folder.attributes.tolist() == [1, -1, 0, 0]
    assert "attribute known for 2 of 3 training images and 1 of 1 test images" in folder.notes
    data = datasets.from_folder(folder)
    assert data.bias_labels.tolist() == [1, -1, 0] and data.test.attributes.tolist() == [0]
    assert data.attribute_names == ("blue", "red") and data.num_attributes == 2


def test_crossed_columns(tmp_path):
    """Each pair of values is an attribute; it is unknown if one value is."""
    rows = ["a.png,x,woman,old", "b.png,x,man,old", "c.png,y,woman,young", "d.png,y,man,"]
    text = "\n".join(["file,label,gender,age", *rows])
    table(tmp_path, text, *(f"{name}.png" for name in "abcd"))
    for name in ("gender+age", "gender + age"):
        folder = folders.read(tmp_path, attribute=name)
        assert folder.attribute_names == ("man, old", "woman, old", "woman, young")
        assert folder.attributes.tolist() == [1, 0, 2, -1]
    note = "table metadata.csv: file is file, label is label, attribute is gender+age"
    assert note in folder.notes
    table(tmp_path, text.replace("gender", "gender+age"))
    assert folders.read(tmp_path, attribute="gender+age").attribute_names == ("man", "woman")


@pytest.mark.parametrize(
    "attribute, message",
    [
        ("gender+agee", "'agee' for the attribute .did you mean 'age'"),
        ("gender+", "no column ''"),
        ("gender+gender", "attribute must be two columns, got 'gender' twice"),
        ("gender+label", "label and attribute must be two columns, got 'label' twice"),
        ("gender+place", "row 2 of .*crossed.*'x, y'"),
    ],
)
def test_columns_that_cannot_be_crossed(tmp_path, attribute, message):
    rows = ["a.png,x,woman,old,z", 'b.png,x,man,old,"x, y"']
    table(tmp_path, "\n".join(["file,label,gender,age,place", *rows]), "a.png", "b.png")
    with pytest.raises(ValueError, match=message):
        folders.read(tmp_path, attribute=attribute)


@pytest.mark.parametrize(
    "cells, classes",
    [
        ([0.0, 1.0, float("nan")], "row 3 of .*parquet has no label"),
        ([0.0, 1.0, 10.0], ("0.0", "1.0", "10.0")),
        ([True, False, True], ("False", "True")),
        (["b", "a", None], "row 3 of .*parquet has no label"),
        ([["b"], ["a"], ["a"]], "row 1 of .*label.*list"),
    ],
)
def test_types_of_parquet_columns(tmp_path, cells, classes):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / name)
    columns = {"file": ["a.png", "b.png", "c.png"], "label": cells}
    write_table(tmp_path / "metadata.parquet", columns)
    if isinstance(classes, tuple):
        assert folders.read(tmp_path).class_names == classes
        return
    with pytest.raises(ValueError, match=classes):
        folders.read(tmp_path)


def test_spellings_of_a_value_are_joined(tmp_path):
    """Composed and decomposed accents, invisible characters and blanks; a name from macOS."""
    rows = ["a.png,caf\u00e9,1", "b.png,cafe\u0301,1\u200b", "c.png,caf\u00e9\u200d , 2"]
    text = "\n".join(["file,label,attribute", *rows, "\u00fc.png,b,2"])
    folder = folders.read(table(tmp_path, text, "a.png", "b.png", "c.png", "u\u0308.png"))
    assert folder.class_names == ("b", "caf\u00e9") and folder.labels.tolist() == [1, 1, 1, 0]
    assert folder.attribute_names == ("1", "2")
    joined = next(note for note in folder.notes if note.startswith("joined"))
    assert "label 'caf\u00e9'" in joined and "attribute '1'" in joined


@pytest.mark.parametrize(
    "splits, train, test",
    [
        (["Train", "TEST", "train", "test"], 2, 2),
        (["train", "val", "training", "valid"], 2, 2),
        (["train", "val", "train", "test"], 2, 1),
        (["train", "dev", "train", "validation"], 2, 2),
        (["train"] * 4, 4, None),
    ],
)
def test_names_of_splits(tmp_path, splits, train, test):
    """Validation images are for testing if there are no test images, and else left out."""
    files = [f"{i}.png" for i in range(4)]
    rows = [f"{file},x,{split}" for file, split in zip(files, splits, strict=True)]
    folder = folders.read(table(tmp_path, "\n".join(["file,label,split", *rows]), *files))
    if test is None:
        assert folder.test is None and len(folder.labels) == train
    else:
        assert (int((~folder.test).sum()), int(folder.test.sum())) == (train, test)


@pytest.mark.parametrize(
    "names, file",
    [(["1", "2"], "images/1.png"), (["1.png", "2.png"], "a/b/1.png"), (["s\\1.png"], "s/1.png")],
)
def test_names_without_their_ending_or_folder(tmp_path, names, file):
    rows = [f"{name},{'xy'[i]}" for i, name in enumerate(names)]
    table(tmp_path, "\n".join(["id,label", *rows]), file, file.replace("1", "2"))
    assert values(folders.read(tmp_path)) == [1, 2][: len(names)]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "'file'.*none"),
        ("file,label\n", "metadata.csv has no rows"),
        ("fil,label\na.png,x", "'file'.*'fil'"),
        ("file_name,label\na.png,x\n,x", "row 2 of .*metadata.csv has no file"),
        ("file_name,label\na.png,x\n./a.png,y", r"row 2 .*\./a\.png.*row 1"),
        ("file,lable\na.png,x", "'label'.*'lable'.*--label"),
        ("file,class,category\na.png,x,y", "'label', got class, category"),
        ("file,label,attributes\na.png,x,1", "'attribute'.*'attributes'"),
        ("file,label\na.png,x\nb.png", "row 2 of .*metadata.csv has no label"),
        ("file,label\na.png, ", "row 1 of .*metadata.csv has no label"),
        ("file,label,split\na.png,x,val", "no training images, got val"),
        ("file,label,split\na.png,x,0", "row 1 .*split.*'0'"),
        ("file,label\na.png,x\nb.png,x\n./a.png,y", r"row 3 .*\./a\.png.*row 1"),
        ("file,label\n../a.png,x", r"row 1 .*'\.\./a\.png'"),
        ("file,label,label\na.png,x,y", "metadata.csv.*'label', got label, label"),
        ("file,label\na.png,x\nb.png,y,z,1", "row 2 of .*metadata.csv must have 2 cells, got 4"),
        ("file,label\na.png,x\0", "row 1 of .*metadata.csv: label.*NUL"),
        ("file,label\n\0,x", "row 1 of .*metadata.csv: file.*NUL"),
        ("file,label\n/etc/a.png,x", "row 1 .*'/etc/a.png'"),
        ("file,label\nlink.png,x", "row 1 .*'link.png'"),
        ("file,label,attribute\na.png,x,1\nb.png,x,\nc.png,x,1", "all known 2 images have '1'"),
        ("file,label,split\na.png,x,train\nb.png,x,", "split.*1 of 2"),
        ("file,label,split\na.png,x,train\nb.png,y,test", "'y'"),
        ("file,label\na.png,1\nb.png,01", "classes '01' and '1'"),
        ("file,label,attribute\na.png,x,0\nb.png,x,0.0\nc.png,x,2", "attributes '0' and '0.0'"),
        ('file,label\n"a.png,x', "metadata.csv is not readable as CSV"),
    ],
)
def test_bad_tables_are_rejected(tmp_path, text, message, monkeypatch):
    """The error comes before any image is opened."""
    save(tmp_path / "outside.png")
    root = tmp_path / "data"
    table(root, text, "a.png", "b.png", "c.png")
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(ValueError, match=message) as caught:
        folders.read(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line, message", [("[1]", "line 2.*jsonl"), ("{", "line 2"), ('{"file": "a"}', "no label")]
)
def test_bad_json_lines_are_rejected(tmp_path, line, message):
    save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text(f'{{"file": "a.png", "label": 0}}\n{line}\n')
    with pytest.raises(ValueError, match=message):
        folders.read(tmp_path)


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_file_in_the_table_must_exist(tmp_path, skip_bad):
    table(tmp_path, "file,label\na.png,x\nno.png,x", "a.png")
    with pytest.raises(FileNotFoundError, match=r"row 2 of .*metadata.csv: .*no\.png"):
        folders.read(tmp_path, skip_bad=skip_bad)


def test_a_link_within_the_folder_may_be_named(tmp_path):
    root = table(tmp_path, "file,label\nlink.png,x", "a.png")
    (root / "link.png").symlink_to("a.png")
    assert values(folders.read(root)) == [1]
    table(root, "file,label\nlink.png,x\na.png,y")
    with pytest.raises(ValueError, match="row 2 .*a.png.*row 1"):
        folders.read(root)


def test_a_path_in_the_table_must_be_relative(tmp_path):
    """Even if it leads into the folder, because a folder must be movable."""
    table(tmp_path, f"file,label\n{tmp_path}/a.png,x", "a.png")
    with pytest.raises(ValueError, match="row 1 .*'/"):
        folders.read(tmp_path)


def test_other_encodings_are_rejected(tmp_path):
    (tmp_path / "metadata.csv").write_bytes("file,label\nä.png,x".encode("latin-1"))
    with pytest.raises(ValueError, match="metadata.csv.*0xe4"):
        folders.read(tmp_path)


def test_parquet_files_that_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path / "metadata.parquet").write_text("no parquet at all")
    if importlib.util.find_spec("pyarrow"):
        with pytest.raises(ValueError, match="metadata.parquet is not readable") as caught:
            folders.read(tmp_path)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        folders.read(tmp_path)
