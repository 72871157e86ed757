"""Data sets of `experiments.decisions`: counts of classes and attributes, and what is drawn."""

import numpy as np
import pytest
from PIL import Image

from experiments import decisions
from experiments.tools import biased_sets
from jaxdd.data import datasets

PER_CLASS = 40


def plain(channels=1, *, level=None, side=16):
    """Return ten classes of noise, or of one level, with half as many test images."""
    rng, n = np.random.default_rng(0), 10 * PER_CLASS
    images = rng.integers(0, 256, (n, side, side, channels), np.uint8)
    images = images if level is None else np.full_like(images, level)
    labels = np.arange(n) % 10
    test = images[: n // 2], labels[: n // 2]
    data = datasets.from_arrays(images, labels, test=test)
    return data._replace(class_names=tuple("abcdefghij"))


def is_aligned(data):
    return data.train.attributes == np.array(data.aligned)[data.train.labels]


@pytest.mark.parametrize(
    ("change", "channels", "values"),
    [
        (biased_sets.jpeg, 3, 2),
        (biased_sets.white_balance, 3, 2),
        (biased_sets.ramp, 3, 10),
        (biased_sets.blur, 3, 5),
        (biased_sets.frame, 1, 10),
        (biased_sets.stripes, 1, 10),
        (biased_sets.next_color, 1, 10),
    ],
)
def test_two_samples_of_each_class_conflict(change, channels, values):
    data, again, other = (change(plain(channels), seed=seed) for seed in (0, 0, 1))
    assert data.num_attributes == values == len(set(data.aligned))
    assert np.bincount(data.train.labels[~is_aligned(data)]).tolist() == [2] * 10
    assert data.train.images.dtype == np.uint8 and data.train.labels.dtype == np.int32
    test = np.zeros((10, values), int)
    np.add.at(test, (data.test.labels, data.test.attributes), 1)
    assert np.ptp(test, axis=1).max() <= 1 and data.class_names[9] == "j"
    assert datasets.digest(data) == datasets.digest(again) != datasets.digest(other)


def test_looks():
    """Levels of grey images and of noise after each change, by hand."""
    grey = plain(3, level=100)
    ramp = biased_sets.ramp(grey, seed=0).train
    first = ramp.images[ramp.attributes == 0][0]
    assert first[:, 0].tolist() == [[70] * 3] * 16 and first[3, -1].tolist() == [130] * 3
    balance = biased_sets.white_balance(grey, seed=0).train
    red = balance.images[:, 0, 0, 0].astype(float)
    assert abs(red[balance.attributes == 0].mean() - 113) < 2
    assert abs(red[balance.attributes == 1].mean() - 89) < 2
    assert (balance.images[..., 1] == 100).all()
    framed = biased_sets.frame(plain(level=7), seed=0).train
    edge, middle = framed.images[:, [0, 1, -2, -1]], framed.images[:, 2:-2, 2:-2]
    assert (edge == (framed.attributes * 255 // 9)[:, None, None, None]).all() and (
        middle == 7
    ).all()
    striped = biased_sets.stripes(plain(level=0), seed=0).train.images
    assert striped.max() <= 48 and 0.02 < striped.mean() / 48 < 0.3
    noise = plain(3)
    jpeg, blur = (change(noise, seed=0).train for change in (biased_sets.jpeg, biased_sets.blur))
    same = (jpeg.images == noise.train.images).all((1, 2, 3))
    assert (same == (jpeg.attributes == 0)).all()
    deviation = [blur.images[blur.attributes == a].std() for a in range(5)]
    assert deviation == sorted(deviation, reverse=True)


def test_conflicting_samples_have_the_next_colour():
    train = biased_sets.next_color(plain(), seed=0).train
    conflicts = train.attributes != train.labels
    assert (train.attributes[conflicts] == (train.labels[conflicts] + 1) % 10).all()


def test_two_classes_of_large_clothes_have_two_tones():
    data = biased_sets.two_tones(plain(side=32, level=255), seed=0, side=64)
    assert data.train.images.shape == (80, 64, 64, 3) and data.class_names == ("d", "e")
    warm = data.train.attributes == 0
    red, blue = data.train.images[..., 0].mean((1, 2)), data.train.images[..., 2].mean((1, 2))
    assert (red[warm] > blue[warm]).mean() > 0.9 and (red[~warm] < blue[~warm]).mean() > 0.9


def test_classes_and_attributes_are_exchanged():
    coloured = biased_sets.next_color(plain(), seed=0)
    data = biased_sets.exchange(coloured._replace(attribute_names=tuple("ABCDEFGHIJ")), seed=0)
    assert (data.train.labels == coloured.train.attributes).all()
    assert (data.train.attributes == coloured.train.labels).all()
    assert data.aligned == tuple(range(10)) and data.class_names == tuple("ABCDEFGHIJ")


def test_turns_are_independent_of_the_class():
    counts = np.zeros((10, 4), int)
    train = biased_sets.turns(plain(), seed=0).train
    np.add.at(counts, (train.labels, train.attributes), 1)
    assert (counts == PER_CLASS // 4).all()


def test_some_samples_are_kept():
    data = plain()
    pair = biased_sets.keep_classes(data, (3, 5), counts=(30, 6), seed=0)
    assert np.bincount(pair.train.labels).tolist() == [30, 6]
    assert np.bincount(pair.test.labels).tolist() == [20, 20] and pair.class_names == ("d", "f")
    assert pair.train.labels.dtype == np.int32
    tail = biased_sets.long_tailed(data, seed=0)
    counts = np.bincount(tail.train.labels)
    assert counts[0] == 40 and counts[9] == 2 and (np.diff(counts) < 0).all()
    other = biased_sets.long_tailed(data, seed=1)
    assert datasets.digest(tail) != datasets.digest(other)


def test_equal_faces_have_four_equal_groups(tmp_path):
    """Sheets of 2 × 450 grey squares, of which those aged 10–29 and 45–74 are used."""
    ages = np.repeat([20, 35, 60], [420, 20, 460])
    genders = np.array(["man", "woman"])[np.arange(900) % 2]
    rows = [f"{age},{gender}" for age, gender in zip(ages, genders, strict=True)]
    (tmp_path / "faces.csv").write_text("\n".join(["age,gender", *rows]), encoding="utf-8")
    for sheet in range(2):
        levels = np.arange(450 * sheet, 450 * (sheet + 1)).reshape(15, 30) // 4
        pixels = np.repeat(levels.astype(np.uint8).repeat(64, 0).repeat(64, 1)[..., None], 3, -1)
        Image.fromarray(pixels).save(tmp_path / f"faces-{sheet}.webp", lossless=True)
    data = biased_sets.equal_faces(tmp_path, seed=0)
    assert data.train.images.shape == (40, 32, 32, 3) and len(data.test.labels) == 800
    for part in (data.train, data.test):
        groups = np.bincount(2 * part.labels + part.attributes)
        assert (groups == len(part.labels) // 4).all()
    levels = np.concatenate([data.train.images, data.test.images])[:, 0, 0, 0]
    labels = np.concatenate([data.train.labels, data.test.labels])
    assert levels[labels == 0].max() <= 419 // 4 and levels[labels == 1].min() >= 440 // 4


def test_no_set_is_both_for_development_and_for_testing():
    assert not decisions.DEVELOPMENT.keys() & decisions.TEST.keys()
    sets = [*decisions.DEVELOPMENT.values(), *decisions.TEST.values()]
    looks = [(x.source, x.conflict, x.severity) for x in decisions.DEVELOPMENT.values()]
    unchanged = [x for x in decisions.TEST.values() if x.change is decisions.DataSet("").change]
    assert all((x.source, x.conflict, x.severity) not in looks for x in unchanged)
    assert sum(x.biased is True for x in sets) > 20 and sum(x.biased is False for x in sets) > 10


def test_missing_faces_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "faces")):
        decisions.load(decisions.TEST["equal faces"], seed=0, data_dir=tmp_path)


def test_sets_are_made_of_benchmarks():
    digits = decisions.DataSet("cdigits", True, biased_sets.exchange, 0.05)
    data = decisions.load(digits, seed=1)
    assert data.num_classes == 10 and 0.03 < (~is_aligned(data)).mean() < 0.07
