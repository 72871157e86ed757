"""Sizes and accuracies by class and group; the images of largest and smallest weight."""

import json
import types

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import evaluate
from jaxdd.data import datasets, files
from jaxdd.runs import old_results as results
from jaxdd.runs import pipeline
from jaxdd.runs.folder import store
from jaxdd.runs.reports import figure_data, plot


@pytest.fixture(scope="module")
def data():
    """Ten images a class, image i all of brightness i; class 0 has the attributes 0 0 … 0 1."""
    labels = np.arange(20) % 2
    attributes = np.where(np.arange(20) < 18, labels, 1 - labels)
    images = (np.arange(20, dtype=np.uint8))[:, None, None, None] * np.ones((4, 4, 1), np.uint8)
    part = datasets.Dataset(images, labels, attributes)
    return datasets.Benchmark(
        "made", part, part, 2, 2, (0, 1), (0.5,), (0.5,), (), ("cat", "dog"), ("red", "blue")
    )


def scores(classes, groups):
    nan = np.full(len(classes), np.nan)
    means = np.mean(classes, 1)
    return evaluate.Scores(means, nan, nan, nan, nan, nan, np.array(groups), np.array(classes))


def test_classes_and_groups_are_counted_and_averaged(data):
    """Two networks, 0.8 and 1.0 right in class 0: 0.9 ± 0.2 / √2."""
    found = figure_data.breakdown(
        data, scores([[0.8, 1.0], [1.0, 1.0]], [[[0.8, 0.8], [1, 1]], [[1.0, 1.0], [1, np.nan]]])
    )
    assert found["by_class"]["train"] == found["by_class"]["test"] == [10, 10]
    assert found["by_class"]["mean"] == pytest.approx([0.9, 1.0])
    assert found["by_class"]["std"] == pytest.approx([0.2 / 2**0.5, 0.0])
    assert found["by_class"]["names"] == ["cat", "dog"]
    assert found["by_group"]["names"] == ["red", "blue"]
    assert found["by_group"]["train"] == [[9, 1], [1, 9]]
    assert found["by_group"]["mean"][1] == [1.0, None] and found["learnt"]
    row = {"accuracy": {"mean": 0.75}, **json.loads(json.dumps(found))}
    results._check_row(row, "row")
    assert results.smallest_group(row) == 1


def test_without_attributes_there_are_classes_alone(data):
    plain = data._replace(
        train=data.train._replace(attributes=None), test=data.test._replace(attributes=None),
        aligned=None, num_attributes=0, class_names=(),
    )  # fmt: skip
    found = figure_data.breakdown(plain, scores([[0.5, 0.5]], np.zeros((1, 2, 0))))
    assert found["by_group"] is None and found["by_class"]["names"] == []
    assert found["by_class"]["std"] == [0, 0] and found["learnt"] is False


@pytest.mark.parametrize(
    "mean, aligned, test, expected",
    [
        (0.11, None, [1000] * 10, False),  # three standard errors are .028
        (0.08, None, [1000] * 10, False),
        (0.15, None, [1000] * 10, True),
        (0.10, 0.9, [1000] * 10, True),  # the bias, and nothing else
        (0.04, None, [100] * 100, True),
        (0.54, None, [5000, 5000], False),
        (0.96, None, [9500, 500], True),
        (0.95, None, [9500, 500], False),
        (0.5, None, None, None),
    ],
)
def test_networks_that_did_not_learn_are_told_from_others(mean, aligned, test, expected):
    row = {"accuracy": {"mean": mean}, "aligned": {"mean": aligned}}
    row |= {} if test is None else {"by_class": {"test": test}}
    assert results.learnt(row) is expected
    text = results.remark(row | {"learnt": expected})
    assert (text is not None) == (expected is False)
    assert text is None or f"{100 * mean:.1f} % right" in text


@pytest.mark.parametrize(
    "change, message",
    [
        ({"mean": [0.5]}, "must be of one shape"),
        ({"mean": [0.5, 7]}, "mean must be shares"),
        ({"test": [1.5, 2]}, "test must be sizes"),
        ({"test": [None, 2]}, "test must be sizes"),
        ({"train": "x"}, "train must hold numbers"),
        ({"names": ["a"]}, "must be of one shape"),
        ({"names": [1, 2]}, "names must be words"),
        ({"std": []}, "std must be shares"),
    ],
)
def test_damaged_sizes_are_named(change, message):
    sound = dict(names=[], train=[1, 2], test=[1, 2], mean=[0.5, None], std=[0.0, None])
    row = {"accuracy": {"mean": 0.5}, "by_class": sound}
    results._check_row(row, "here")
    with pytest.raises(ValueError, match=f"here: by_class.*{message}"):
        results._check_row({**row, "by_class": sound | change}, "here")


@pytest.fixture
def folder(data, tmp_path):
    weights = np.arange(20) / np.array([90, 100])[np.arange(20) % 2]
    plane = plot.plane(np.random.default_rng(0).normal(size=(20, 4)))
    figure_data.write(tmp_path / figure_data.FILE, data, weights, plane=plane)
    files.write_arrays(tmp_path / "weights.npz", files.sealed({"weights": weights}))
    return tmp_path


def test_heaviest_and_lightest_images_are_those_of_the_weights(folder):
    """Image i weighs i, so that class 0 is led by 18, 16, … and 0, 2, …; brightness i is kept."""
    found = figure_data.read(folder)
    assert found.heaviest[:, :3, 0, 0, 0].tolist() == [[18, 16, 14], [19, 17, 15]]
    assert found.lightest[:, :3, 0, 0, 2].tolist() == [[0, 2, 4], [1, 3, 5]]
    assert found.class_names == ("cat", "dog") and found.attribute_names == ("red", "blue")
    assert found.plane.total == 20 and found.plane.points.shape == (20, 2)
    assert found.relative()[18] == pytest.approx(10 * 18 / 90)
    assert found.attributes.tolist()[-2:] == [1, 0] and found.aligned.tolist() == [0, 1]


def test_what_is_missing_is_no_evidence_and_what_is_damaged_is_named(folder):
    path = folder / figure_data.FILE
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 255
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="figures.npz is not .*delete it, since a report needs"):
        figure_data.read(folder)
    files.write_arrays(path, files.sealed({"labels": np.zeros(20, np.int32)}))
    with pytest.raises(ValueError, match="figures.npz lacks"):
        figure_data.read(folder)
    path.unlink()
    assert figure_data.read(folder) is None


def test_a_set_is_scored_on_the_way_where_a_multiple_is_passed():
    """Every 10 steps, in chunks of 4: after 12, 20 and 32 of 40, and not at the end."""
    options = types.SimpleNamespace(score_every=10, steps=40, formation=1)
    asked = []

    def score(images, name, whitening):
        assert whitening is None
        asked.append(name)
        one = np.array([[0.25, 0.75]])
        return scores(one, one[:, None])

    attempt = types.SimpleNamespace(work=types.SimpleNamespace(options=options), score=score)
    state = types.SimpleNamespace(images=jnp.zeros(1))
    due = [
        step
        for step in range(4, 41, 4)
        if pipeline._Attempt.score_on_the_way(attempt, step - 4, step, state, "kde", None)
    ]
    assert due == [12, 20, 32] and set(asked) == {"kde on the way"}
    options.score_every = None
    assert pipeline._Attempt.score_on_the_way(attempt, 8, 12, state, "kde", None) == {}


def test_evidence_is_read_in_no_published_set(folder):
    from jaxdd.runs.folder import manifest

    assert figure_data.FILE in manifest._BESIDE and figure_data.FILE not in store.PRODUCTS
