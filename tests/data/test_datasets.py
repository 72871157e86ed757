"""Benchmarks from arrays: splits, conversions and rejected input."""

import re
import tracemalloc

import numpy as np
import pytest

from jaxdd.data import benchmarks, datasets, folders


@pytest.fixture(scope="module")
def cdigits():
    return benchmarks.load("cdigits")


def own(n=40, channels=3, k=4):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 6, 5, channels), dtype=np.uint8)
    return images, np.arange(n) % k, np.arange(n) // k % 3


def test_from_arrays_splits_each_class():
    """A quarter of 40 images in four classes is split off: 2 or 3 of the 10 of each class."""
    images, labels, attributes = own()
    data = datasets.from_arrays(images, labels, attributes, test_fraction=0.25, name="mine")
    assert len(data.train.labels) == 30 and len(data.test.labels) == 10
    assert set(np.bincount(data.test.labels).tolist()) == {2, 3}
    rows = {i.tobytes(): (y, a) for i, y, a in zip(images, labels, attributes, strict=True)}
    samples = [(d, i) for d in (data.train, data.test) for i in range(len(d.labels))]
    assert len({d.images[i].tobytes() for d, i in samples}) == 40
    for d, i in samples:
        assert rows[d.images[i].tobytes()] == (d.labels[i], d.attributes[i])
    scaled = data.train.images / 255
    np.testing.assert_allclose(data.mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(data.std, scaled.std((0, 1, 2)), rtol=1e-9)
    assert (data.name, data.num_classes, data.num_attributes) == ("mine", 4, 3)


def test_flips_are_off_by_default():
    """Whether mirrored images keep their class depends on the data."""
    data = datasets.from_arrays(*own())
    assert data.strategy == ("color", "crop", "cutout", "scale", "rotate")
    chosen = datasets.from_arrays(*own(), strategy=["flip", "crop", "crop"])
    assert chosen.strategy == ("flip", "crop", "crop")
    assert datasets.from_arrays(*own(), strategy=()).strategy == ()


def test_a_function_that_augments_is_kept_as_it_is():
    augmenting = lambda key, image: image
    assert datasets.from_arrays(*own(), strategy=augmenting).strategy is augmenting


def test_augmentation_of_a_folder():
    images, labels, attributes = own()
    names = tuple("abcd"), tuple("xyz")
    folder = folders.Folder(images, labels, attributes, np.arange(40) > 30, *names, ())
    assert datasets.from_folder(folder).strategy == datasets.UNFLIPPED
    assert datasets.from_folder(folder, strategy=["flip"]).strategy == ("flip",)
    with pytest.raises(ValueError, match="'rotat'.*'rotate'"):
        datasets.from_folder(folder, strategy=["rotat"])


def test_channels_come_last():
    with pytest.raises(ValueError, match=r"\(6, 3, 16, 16\).*transpose"):
        datasets.from_arrays(np.zeros((6, 3, 16, 16), np.uint8), np.arange(6) % 2)
    for shape in ((6, 3, 4, 4), (6, 2, 8, 8), (6, 7, 8, 8), (6, 3, 8, 12), (6, 1, 12, 8)):
        with pytest.raises(ValueError, match="transpose"):
            datasets.from_arrays(np.zeros(shape, np.uint8), np.arange(6) % 2)
    unusual = datasets.from_arrays(np.zeros((6, 5, 16, 13), np.uint8), np.arange(6) % 2)
    assert unusual.train.images.shape[1:] == (5, 16, 13)


def test_tensors_that_require_gradients_are_detached():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    images = torch.linspace(0, 1, 6 * 64).reshape(6, 8, 8).requires_grad_()
    data = datasets.from_arrays(images, np.arange(6) % 2)
    assert data.train.images.dtype == np.uint8


def test_from_arrays_split_follows_the_seed():
    first, again, other = (datasets.from_arrays(*own(), seed=s) for s in (0, 0, 1))
    assert (first.test.images == again.test.images).all()
    assert (first.test.images != other.test.images).any()


@pytest.mark.parametrize("fraction, counts", [(0.01, [1, 1]), (0.99, [1, 9])])
def test_from_arrays_leaves_every_class_on_both_sides(fraction, counts):
    """Classes of 2 and 10 have at least one image in both sets, whatever the fraction."""
    images, labels = np.zeros((12, 2, 2), np.uint8), np.repeat([0, 1], [2, 10])
    data = datasets.from_arrays(images, labels, test_fraction=fraction)
    assert np.bincount(data.test.labels).tolist() == counts


def test_from_arrays_takes_floats_and_grey_images():
    """0, .5 and 1 become 0, 128 (127.5 rounds to even) and 255; [n, h, w] gains a channel."""
    images = np.array([0, 0.5, 1, 1], np.float32).reshape(4, 1, 1)
    data = datasets.from_arrays(images, np.zeros(4, int), test=(images[:2], np.zeros(2, int)))
    assert data.train.images.ravel().tolist() == [0, 128, 255, 255]
    assert data.test.images.shape == (2, 1, 1, 1)
    assert (data.num_attributes, data.aligned) == (0, None)


def test_attributes_of_some_training_images_are_bias_labels():
    """Attributes of all test images are kept, those of some are not used."""
    images, labels = np.zeros((4, 2, 2), np.uint8), np.array([0, 0, 1, 1])
    some, all_known = np.array([-1, 2, 0, -1]), np.array([0, 1, 0, 1])
    data = datasets.from_arrays(images, labels, some, test=(images, labels, all_known))
    assert data.bias_labels.tolist() == [-1, 2, 0, -1] and data.bias_labels.dtype == np.int32
    assert data.train.attributes is None and data.aligned is None and data.num_attributes == 3
    assert data.test.attributes.tolist() == [0, 1, 0, 1]
    task = datasets.task(data)
    assert task.aligned is None and task.attributes.tolist() == [0, 1, 0, 1]
    other = datasets.from_arrays(images, labels, [2, -1, 0, -1], test=(images, labels, all_known))
    assert datasets.digest(other) != datasets.digest(data)

    known = datasets.from_arrays(images, labels, all_known, test=(images, labels, some))
    assert known.bias_labels is None and known.aligned == (0, 0)
    assert known.test.attributes is None
    unknown = datasets.from_arrays(images, labels, np.full(4, -1), test=(images, labels))
    assert unknown.bias_labels is None and unknown.num_attributes == 0


def test_from_arrays_aligned_is_the_majority_of_the_training_set():
    images, labels = np.zeros((6, 2, 2), np.uint8), np.array([0, 0, 0, 1, 1, 1])
    test = (images, labels, np.full(6, 7))
    data = datasets.from_arrays(images, labels, np.array([2, 2, 0, 1, 0, 1]), test=test)
    assert (data.aligned, data.num_attributes) == ((2, 1), 8)
    without = datasets.from_arrays(images, labels, test=test)
    assert (without.aligned, without.num_attributes) == (None, 8)
    assert data.std == (1.0,)  # a constant channel has standard deviation 1


@pytest.mark.parametrize(
    "attributes, expected",
    [
        ([0, 0, 1, 1, 1, 1, 1, 0], ["class cat .* 2 .* blue, green: blue"]),
        ([2, 0, 1, 1, 2, 2, 1, 0], []),
        ([0, 1, 2, 2, 2, 1, 0, 0], []),
        ([2, 1, 0, 0, 3, 3, 1, 1], ["class dog .* 2 .* green, red: green"]),
    ],
)
def test_classes_without_a_single_majority_attribute_are_named(attributes, expected):
    """Four images of each class; in the second and third cases one attribute has most."""
    images, labels = np.zeros((8, 2, 2), np.uint8), np.repeat([0, 1], 4)
    data = datasets.from_arrays(images, labels, np.array(attributes), test=(images, labels))
    names = dict(class_names=("cat", "dog"), attribute_names=("blue", "green", "white", "red"))
    sentences = datasets.ties(data._replace(**names))
    assert len(sentences) == len(expected)
    assert all(map(re.search, expected, sentences))


IMAGES, CLASSES, ATTRIBUTES = own()


@pytest.mark.parametrize(
    "change, error, match",
    [
        (dict(images=IMAGES[0, 0]), ValueError, r"images.*\(5, 3\)"),
        (dict(images=IMAGES[:0]), ValueError, r"images.*\(0, 6, 5, 3\)"),
        (dict(images=IMAGES.astype(int)), TypeError, "images.*int64"),
        (dict(images=IMAGES / 1.0), ValueError, r"0.0..255.0"),
        (dict(images=IMAGES // 128), ValueError, "masks of 0 and 1"),
        (dict(images=IMAGES / 255**2), ValueError, "twice"),
        (dict(name="../x"), ValueError, "'../x'"),
        (dict(name="/x"), ValueError, "'/x'"),
        (dict(name="..\\x"), ValueError, "name"),
        (dict(name=3), TypeError, "name.*3"),
        (dict(images=IMAGES * np.nan), ValueError, "nan..nan"),
        (dict(images=IMAGES / -255), ValueError, "-1.0..-0.0"),
        (dict(labels=CLASSES / 1), TypeError, "labels.*float64"),
        (dict(labels=CLASSES - 1), ValueError, "labels.*0..2147483646.*-1..2"),
        (dict(labels=CLASSES + 2**32), ValueError, "4294967296..4294967299"),
        (dict(labels=CLASSES[:9]), ValueError, r"labels.*\(40,\).*\(9,\)"),
        (dict(labels=CLASSES[:, None]), ValueError, r"\(40,\).*\(40, 1\)"),
        (dict(labels=CLASSES * 2), ValueError, "class 1 of 7"),
        (dict(labels=CLASSES + 1), ValueError, r"class 0 of 5 .* from 0, got 1\.\.4"),
        (dict(num_classes=5), ValueError, "class 4 of 5"),
        (dict(num_classes=3), ValueError, "labels.*0..2.*0..3"),
        (dict(num_classes=0), ValueError, "num_classes.* 0"),
        (dict(num_classes=4.0), TypeError, "num_classes.*4.0"),
        (dict(labels=np.r_[4, CLASSES[1:]]), ValueError, "class 4.* 1"),
        (dict(attributes=ATTRIBUTES[:3]), ValueError, r"attributes.*\(3,\)"),
        (dict(attributes=ATTRIBUTES - 2), ValueError, "attributes.*0..65535.*-2"),
        (dict(attributes=np.where(CLASSES, -1, 1)), ValueError, "two values, got 1 for all"),
        (dict(attributes=ATTRIBUTES * 10**5), ValueError, "0..65535.*0..200000"),
        (dict(attributes=ATTRIBUTES * 0.5), TypeError, "attributes"),
        (dict(test_fraction=0), ValueError, "test_fraction.* 0"),
        (dict(test_fraction=1.0), ValueError, "1.0"),
        (dict(seed=-1), ValueError, "seed.*-1"),
        (dict(strategy=["crop", "flop"]), ValueError, "'flop'.*'flip'"),
        (dict(strategy="crop"), TypeError, "'crop'"),
        (dict(test=IMAGES), ValueError, "test must be"),
        (dict(test=(IMAGES,)), ValueError, "test must be"),
        (dict(test=(IMAGES[:, 1:], CLASSES)), ValueError, r"\(6, 5, 3\) and \(5, 5, 3\)"),
        (dict(test=(IMAGES, CLASSES[1:])), ValueError, r"test labels.*\(40,\)"),
        (dict(test=(IMAGES, CLASSES + 1)), ValueError, "test labels.*0..3.*1..4"),
        (dict(test=(IMAGES, CLASSES, -CLASSES)), ValueError, "test attributes.*0..65535"),
        (dict(test=(IMAGES.astype(int), CLASSES)), TypeError, "test images"),
    ],
)
def test_from_arrays_rejects_bad_arguments(change, error, match):
    arguments = dict(images=IMAGES, labels=CLASSES, attributes=ATTRIBUTES) | change
    with pytest.raises(error, match=match):
        datasets.from_arrays(**arguments)


def test_pool_holds_the_training_set(cdigits):
    pool = datasets.pool(cdigits)
    assert pool.images.dtype == np.uint8 and pool.images.shape == cdigits.train.images.shape
    assert pool.count.tolist() == np.bincount(cdigits.train.labels).tolist()
    weights = np.random.default_rng(0).random(len(cdigits.train.labels))
    weighted = datasets.pool(cdigits, weights)
    zeros = cdigits.train.labels == 0
    np.testing.assert_allclose(
        weighted.weights[zeros], weights[zeros] / weights[zeros].sum(), rtol=1e-5
    )


def test_statistics_need_no_second_copy(tmp_path):
    """The images have twelve million bytes; their squares would have twice as many."""
    images = np.random.default_rng(0).integers(0, 256, (4_000, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(4_000) % 2
    test = images[:2], labels[:2]
    tracemalloc.start()
    try:
        data = datasets.from_arrays(images, labels, test=test)
        assert tracemalloc.get_traced_memory()[1] < images.nbytes
    finally:
        tracemalloc.stop()
    flat = images.reshape(-1, 3).astype(np.float64)
    mean, square = flat.mean(axis=0), np.square(flat).mean(axis=0)
    assert data.mean == tuple(mean / 255) and data.std == tuple(np.sqrt(square - mean**2) / 255)
