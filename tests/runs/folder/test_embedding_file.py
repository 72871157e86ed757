"""Reading embeddings: rows in the order of the samples or by file, and bad files."""

import numpy as np
import pytest

from jaxdd.data import datasets
from jaxdd.runs.folder import embedding_file

ROWS = np.arange(20, dtype=np.float16).reshape(10, 2)


@pytest.fixture
def data():
    """Return 10 training and 10 test images, with names as in a folder."""
    images, labels = np.zeros((10, 4, 4), np.uint8), np.arange(10) % 2
    data = datasets.from_arrays(images, labels, test=(images, labels), name="pets")
    names = {part: tuple(f"{part}/{i}.png" for i in range(10)) for part in ("train", "test")}
    return data._replace(train_files=names["train"], test_files=names["test"])


def test_rows_in_the_order_of_the_samples(data, tmp_path):
    np.save(tmp_path / "a.npy", ROWS)
    np.savez(tmp_path / "b.npz", features=ROWS)
    np.savez(tmp_path / "c.npz", embedding=ROWS, labels=np.arange(10))
    for name in ("a.npy", "b.npz", "c.npz"):
        rows = embedding_file.read_for(tmp_path / name, data)
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, ROWS)


def test_rows_by_file(data, tmp_path):
    """Rows of training and test images in any order; those of test images are ignored."""
    names = np.array([*data.test_files, *data.train_files[::-1]])
    np.savez(tmp_path / "a.npz", file_name=names, embedding=np.concatenate([-ROWS, ROWS[::-1]]))
    np.testing.assert_array_equal(embedding_file.read_for(tmp_path / "a.npz", data), ROWS)
    np.savez(tmp_path / "b.npz", file_name=names[10:19], embedding=ROWS[:9])
    with pytest.raises(ValueError, match="no row of 'train/0.png'"):
        embedding_file.read_for(tmp_path / "b.npz", data)
    with pytest.raises(ValueError, match="pets"):
        embedding_file.read_for(tmp_path / "a.npz", data._replace(train_files=()))


@pytest.mark.parametrize(
    "rows, value",
    [
        (ROWS[:9], r"\(9, 2\)"),
        (ROWS[:, 0], r"\(10,\)"),
        (ROWS[:, :0], r"\(10, 0\)"),
        (np.zeros((10, 8193), np.float16), r"\(10, 8193\)"),
        (np.where(ROWS == 6, np.nan, ROWS), "nan in row 3"),
        (np.where(ROWS == 6, 1e39, ROWS.astype(float)), "inf in row 3"),
        (ROWS.astype(complex), "complex"),
        (ROWS.astype(str), "U"),
    ],
    ids=str,
)
def test_bad_rows(rows, value, data, tmp_path):
    np.save(tmp_path / "rows.npy", rows)
    with pytest.raises(ValueError, match=f"rows.npy.*{value}"):
        embedding_file.read_for(tmp_path / "rows.npy", data)


def test_bad_files(data, tmp_path):
    with pytest.raises(ValueError, match=r"rows\.csv"):
        embedding_file.read_for(tmp_path / "rows.csv", data)
    np.savez(tmp_path / "two.npz", a=ROWS, b=ROWS)
    with pytest.raises(ValueError, match="a, b"):
        embedding_file.read_for(tmp_path / "two.npz", data)
    np.savez(tmp_path / "number.npz", file_name=np.array(data.train_files), embedding=np.float32(1))
    with pytest.raises(ValueError, match=r"number\.npz"):
        embedding_file.read_for(tmp_path / "number.npz", data)
