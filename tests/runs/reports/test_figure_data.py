"""Tests of scores by class and group, and of the images of largest and smallest weight."""

import numpy as np
import pytest

from jaxdd import evaluate
from jaxdd.data import datasets, files
from jaxdd.runs.folder import manifest
from jaxdd.runs.reports import figure_data, plot


@pytest.fixture(scope="module")
def data():
    """Return ten images per class, where image i has brightness i and one of class 0 conflicts."""
    labels = np.arange(20) % 2
    attributes = np.where(np.arange(20) < 18, labels, 1 - labels)
    images = (np.arange(20, dtype=np.uint8))[:, None, None, None] * np.ones((4, 4, 1), np.uint8)
    part = datasets.Dataset(images, labels, attributes)
    return datasets.Benchmark(
        "name", part, part, 2, 2, (0, 1), (0.5,), (0.5,), (), ("cat", "dog"), ("red", "blue")
    )


def make_scores(classes, groups):
    unknown = np.full(len(classes), np.nan)
    means = np.mean(classes, 1)
    return evaluate.Scores(means, *[unknown] * 5, np.array(groups), np.array(classes))


def test_classes_and_groups_are_counted_and_averaged(data):
    """Two networks with accuracies 0.8 and 1.0 in class 0 give 0.9 ± 0.2 / √2."""
    groups = [[[0.8, 0.8], [1, 1]], [[1.0, 1.0], [1, np.nan]]]
    parts = figure_data.breakdown(data, make_scores([[0.8, 1.0], [1.0, 1.0]], groups))
    by_class, by_group = parts["by_class"], parts["by_group"]
    assert by_class.train.tolist() == by_class.test.tolist() == [10, 10]
    np.testing.assert_allclose(by_class.mean, [0.9, 1.0])
    np.testing.assert_allclose(by_class.std, [0.2 / 2**0.5, 0.0])
    assert by_class.names == ("cat", "dog") and by_group.names == ("red", "blue")
    assert by_group.train.tolist() == [[9, 1], [1, 9]]
    np.testing.assert_array_equal(by_group.mean[1], [1.0, np.nan])


def test_groups_need_the_attributes_of_test_images_only(data):
    some = data._replace(train=data.train._replace(attributes=None), aligned=None)
    by_group = figure_data.breakdown(some, make_scores([[1, 1]], np.ones((1, 2, 2))))["by_group"]
    assert by_group.train is None and by_group.test.tolist() == [[9, 1], [1, 9]]


def test_classes_with_several_groups_in_the_test_set_are_counted(data):
    """Without the last conflicting image, class 0 has one group."""
    scores, part = make_scores([[1, 1]], np.ones((1, 2, 2))), datasets.Dataset(*data.test)
    assert figure_data.breakdown(data, scores)["deo_classes"] == 2
    conflicts = (part.labels == 0) & (part.attributes == 1)
    fewer = data._replace(test=datasets.select(part, ~conflicts))
    assert figure_data.breakdown(fewer, scores)["deo_classes"] == 1


def test_without_attributes_there_are_classes_only(data):
    unknown = data._replace(
        train=data.train._replace(attributes=None), test=data.test._replace(attributes=None),
        aligned=None, num_attributes=0, class_names=(),
    )  # fmt: skip
    parts = figure_data.breakdown(unknown, make_scores([[0.5, 0.5]], np.zeros((1, 2, 0))))
    assert parts["by_group"] is parts["deo_classes"] is None and parts["by_class"].names == ()
    assert parts["by_class"].std.tolist() == [0, 0]


@pytest.fixture
def folder(data, tmp_path):
    """Write weights i of image i: the heaviest of class 0 are 18, 16, …, the lightest 0, 2, …"""
    weights = np.arange(20) / np.array([90, 100])[np.arange(20) % 2]
    plane = plot.plane(np.random.default_rng(0).normal(size=(20, 4)))
    figure_data.write(tmp_path / figure_data.FILE, data, weights, plane=plane)
    files.write_arrays(tmp_path / "weights.npz", {"weights": weights})
    return tmp_path


def test_heaviest_and_lightest_images_follow_the_weights(folder):
    stored = figure_data.read(folder)
    assert stored.heaviest[:, :3, 0, 0, 0].tolist() == [[18, 16, 14], [19, 17, 15]]
    assert stored.lightest[:, :3, 0, 0, 2].tolist() == [[0, 2, 4], [1, 3, 5]]
    assert stored.class_names == ("cat", "dog") and stored.attribute_names == ("red", "blue")
    assert stored.plane.total == 20 and stored.plane.points.shape == (20, 2)
    assert stored.extremes()["heaviest"].max() == pytest.approx(19 / 255)
    assert stored.attributes.tolist()[-2:] == [1, 0] and stored.aligned.tolist() == [0, 1]
    assert not stored.is_uniform() and stored._replace(weights=np.full(20, 0.1)).is_uniform()


def test_a_missing_file_is_none_and_a_damaged_file_is_reported(folder):
    path = folder / figure_data.FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"figures.npz"):
        figure_data.read(folder)
    files.write_arrays(path, {"labels": np.zeros(20, np.int32)})
    with pytest.raises(ValueError, match="attribute_names"):
        figure_data.read(folder)
    path.unlink()
    assert figure_data.read(folder) is None


def test_the_file_is_a_figure_of_the_manifest(folder):
    """Training images are recorded in another section than published files."""
    manifest.record(folder, [figure_data.FILE], section="figures")
    assert manifest.is_intact(folder, figure_data.FILE)
    assert figure_data.FILE not in files.read_json(folder / manifest.NAME).get("files", {})
