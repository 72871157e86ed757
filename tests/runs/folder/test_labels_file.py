"""Bias labels of training images in CSV files."""

import numpy as np
import pytest

from jaxdd.data import datasets
from jaxdd.runs.folder import labels_file

FILES = ("a/0.png", "a/1.png", "b/0.png", "b/caf\u00e9.png")


def make_data(*, files=FILES, test_files=("b/2.png",), attribute_names=()):
    images = np.arange(64, dtype=np.uint8).reshape(4, 4, 4)
    data = datasets.from_arrays(images, [0, 0, 1, 1], test=(images, [0, 0, 1, 1]))
    return data._replace(train_files=files, test_files=test_files, attribute_names=attribute_names)


@pytest.fixture
def read(tmp_path):
    def read(content, data=None, name="labels.csv"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return labels_file.read_for(tmp_path / name, make_data() if data is None else data)

    return read


@pytest.mark.parametrize(
    "content",
    [
        "file,attribute\na/0.png,man\nb/0.png,woman\n",
        "attribute,file\nman,./a/0.png\nwoman,b/0.png\n",
        b'\xef\xbb\xbffile,attribute\r\n"a/0.png","man"\r\nb/0.png, woman \r\n',
        "file;gender\na/0.png;man\nb/0.png;woman\n",
        "File_Name,Gender\na/0.png,man\nb/0.png,woman\n",
        "file,class,attribute\na/0.png,cat,man\nb/0.png,dog,woman\n",
        "index,attribute\n0,man\n2,woman\n",
        "file,attribute\na/0.png,man\nb/0.png,woman\na/1.png,\nb/2.png,other\na/0.png,man\n",
    ],
)
def test_labels_by_file_or_index(read, content):
    """Images without a label, test images and repeated labels change nothing."""
    labels = read(content)
    np.testing.assert_array_equal(labels.attributes, [0, -1, 1, -1])
    assert labels.names == ("man", "woman")


def test_names_with_decomposed_accents(read):
    labels = read("file,attribute\nb/cafe\u0301.png,1\na/0.png,0\n")
    np.testing.assert_array_equal(labels.attributes, [0, -1, -1, 1])


def test_names_are_those_of_the_data_if_they_are_the_same(read):
    content = "file,attribute\na/0.png,man\nb/0.png,woman\n"
    labels = read(content, make_data(attribute_names=("woman", "child", "man")))
    np.testing.assert_array_equal(labels.attributes, [2, -1, 0, -1])
    assert labels.names == ("woman", "child", "man")
    assert read(content, make_data(attribute_names=("a", "b"))).names == ("man", "woman")


@pytest.mark.parametrize(
    "content, match",
    [
        ("file,attribute\na/9.png,man\nb/0.png,woman\n", "'a/9.png'"),
        ("file,attribute\na/0.png,man\na/0.png,woman\n", "'man' and 'woman'"),
        ("file,attribute\na/0.png,man\n./a/0.png,woman\n", "'man' and 'woman'"),
        ("file,attribute\na/0.png,man\na/1.png,man\n", r"\['man'\] for 2"),
        ("file,attribute\nb/2.png,man\n", r"got \[\] for 0"),
        ("file,attribute\n", r"got \[\] for 0"),
        ("index,attribute\n0,man\n4,woman\n", r"0\.\.3, got '4'"),
        ("index,attribute\n0,man\n-1,woman\n", "'-1'"),
        ("index,attribute\n0,man\n1.5,woman\n", "'1.5'"),
        ("name,attribute\n0,man\n1,woman\n", "name, attribute"),
        ("file,gender,age\na/0.png,man,old\n", "gender, age"),
        ("file\na/0.png\n", "none"),
        ("", "none"),
        (b"file,attribute\na/0.png,m\xe4n\n", "UTF-8"),
        ("file,attribute\na/0.png,man,old\n", "row 1"),
    ],
)
def test_bad_files_are_rejected(read, content, match):
    with pytest.raises(ValueError, match=match):
        read(content)


def test_other_formats_and_data_without_files_are_rejected(read):
    with pytest.raises(ValueError, match="labels.npy"):
        read("", name="labels.npy")
    with pytest.raises(ValueError, match="arrays"):
        read("file,attribute\na/0.png,man\n", make_data(files=()))


def test_labels_of_the_data():
    data = make_data(attribute_names=("man", "woman"))
    assert labels_file.of_data(data) is None
    some = np.array([0, -1, 1, -1], np.int32)
    assert labels_file.of_data(data._replace(bias_labels=some)).names == ("man", "woman")


@pytest.mark.parametrize(
    "attributes, match",
    [([0, 1], r"\(2,\)"), ([0.0, 1, 1, 1], "float64"), ([0, 0, -1, -1], r"\[0\] for 2")],
)
def test_bad_arrays_are_rejected(attributes, match):
    with pytest.raises(ValueError, match=match):
        labels_file.check(labels_file.BiasLabels(np.array(attributes)), make_data())
