"""Labels, attributes and splits from the names or the table of a folder."""

import sys

import numpy as np
import pytest
from image_files import save, table, values
from PIL import Image

from jaxdd.data import folders

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


@pytest.mark.parametrize(
    "kind, column",
    [
        ("csv", "file"),
        ("csv with bom", "file_name"),
        ("semantically equal csv", "file"),
        ("parquet", "file_name"),
    ],
)
def test_labels_attributes_and_splits_from_a_table(tmp_path, kind, column):
    """Labels 10, 9, 9, 10 are sorted as numbers; images keep the order of the rows."""
    for value, file in enumerate([*ROWS["file"], "unlisted.png", "cat/x.png"]):
        save(tmp_path / file, value)
    write_table(tmp_path, kind, column)
    folder = folders.read(tmp_path)
    assert values(folder) == [0, 1, 2, 3]
    assert folder.class_names == ("9", "10") and folder.labels.tolist() == [1, 0, 0, 1]
    assert folder.attribute_names == ("blue", "red") and folder.attributes.tolist() == [1, 0, 1, 1]
    assert folder.attributes.dtype == np.int32
    assert folder.test.tolist() == [False, False, True, True]


@pytest.mark.parametrize("text", ["label,file\nx,a.png", "file,label,attribute,split\na.png,x,,\n"])
def test_attribute_and_split_are_optional(tmp_path, text):
    folder = folders.read(table(tmp_path, text, "a.png"))
    assert (folder.attributes, folder.attribute_names, folder.test) == (None, None, None)
    assert folder.class_names == ("x",)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "'file'.*none"),
        ("file,label\n", "metadata.csv has no rows"),
        ("filename,label\na.png,x", "'file'.*'filename'"),
        ("file,file_name,label\na.png,a.png,x", "file_name"),
        ("file_name,label\na.png,x\n,x", "row 2 of .*metadata.csv has no file"),
        ("file_name,label\na.png,x\n./a.png,y", r"row 2 .*\./a\.png.*row 1"),
        ("file,Label\na.png,x", "'label'.*'Label'.*file, Label"),
        ("file;label\na.png;x", "'file'.*file;label"),
        ("file,label,attributes\na.png,x,1", "'attribute'.*'attributes'"),
        ("file,label\na.png,x\n,x", "row 2 of .*metadata.csv has no file"),
        ("file,label\na.png,x\nb.png", "row 2 of .*metadata.csv has no label"),
        ("file,label\na.png, ", "row 1 of .*metadata.csv has no label"),
        ("file,label,split\na.png,x,val", "row 1 .*split.*'val'"),
        ("file,label\na.png,x\nb.png,x\n./a.png,y", r"row 3 .*\./a\.png.*row 1"),
        ("file,label\n../a.png,x", r"row 1 .*'\.\./a\.png'"),
        ("file,label,label\na.png,x,y", "metadata.csv.*'label', got 2"),
        ("file,label\na.png,x\nb.png,y,z,1", "row 2 of .*metadata.csv must have 2 cells, got 4"),
        ("file,label\na.png,x\0", "row 1 of .*metadata.csv: label.*NUL"),
        ("file,label\n\0,x", "row 1 of .*metadata.csv: file.*NUL"),
        ("file,label\n/etc/a.png,x", "row 1 .*'/etc/a.png'"),
        ("file,label\nlink.png,x", "row 1 .*'link.png'"),
        (
            "file,label,attribute\na.png,x,1\nb.png,x,\nc.png,x,",
            "attribute.*1 of 3.* 2",
        ),
        ("file,label,split\na.png,x,train\nb.png,x,", "split.*1 of 2"),
        ("file,label,split\na.png,x,train\nb.png,y,test", "'y'"),
        ("file,label,split\na.png,x,train\nb.png,x,train", "test split"),
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
    """Absolute paths into the folder are rejected too, because a folder may be moved."""
    table(tmp_path, f"file,label\n{tmp_path}/a.png,x", "a.png")
    with pytest.raises(ValueError, match="row 1 .*'/"):
        folders.read(tmp_path)


def test_unrelated_columns_are_ignored(tmp_path):
    table(tmp_path, "file,label,attractive,profile\na.png,x,1,2", "a.png")
    assert folders.read(tmp_path).attributes is None


def test_other_encodings_are_rejected(tmp_path):
    (tmp_path / "metadata.csv").write_bytes("file,label\nä.png,x".encode("latin-1"))
    with pytest.raises(ValueError, match="metadata.csv.*0xe4"):
        folders.read(tmp_path)


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"file": ["a.png", "a.png"], "label": ["x", None]}, "row 2 of .*parquet has no label"),
        ({"file": ["a.png"], "label": [1.0]}, "label.*float"),
        ({"file": ["a.png"]}, "'label'"),
        (None, "metadata.parquet is not readable"),
    ],
)
def test_bad_parquet_files_are_rejected(tmp_path, columns, message):
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
    with pytest.raises(ImportError, match="pip install pyarrow"):
        folders.read(tmp_path)


def test_two_tables_are_rejected(tmp_path):
    for name in ("metadata.csv", "metadata.parquet"):
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match="metadata.csv and metadata.parquet"):
        folders.read(tmp_path)


@pytest.mark.parametrize(
    "files, message",
    [
        ([], "data has no images"),
        (["x.png"], r"x\.png is in no class.*metadata.csv"),
        (["cat/x.png", "y.png"], r"y\.png is in no class"),
        (["cat/x.png", "dog/x.txt"], "dog has no images.*.png .jpg"),
        (["train/cat/x.png"], "got train"),
        (["test/cat/x.png", "val/cat/x.png"], "got test, val"),
        (["train/x/x.png", "test/x/x.png", "other/x/x.png"], "got other, test, train"),
        (["all/cat/x.png", "all/dog/x.png"], "single folder, all"),
        (["train/cat/x.png", "test/x.png"], r"test/x\.png is in no class"),
        (["train/cat/x.png", "test/dog/x.png"], "'dog'"),
    ],
)
def test_bad_layouts_are_rejected(tmp_path, files, message):
    root = tmp_path / "data"
    root.mkdir()
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("not even an image")
    with pytest.raises(ValueError, match=message):
        folders.read(root)
