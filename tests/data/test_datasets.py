"""Arrays of one's own become benchmarks, and bad input is told what is wrong."""

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
    """40 images in four classes, a quarter split off: 10 of each class lose round-about 2.5."""
    images, labels, attributes = own()
    found = datasets.from_arrays(images, labels, attributes, test_fraction=0.25, name="mine")
    assert len(found.train.labels) == 30 and len(found.test.labels) == 10
    assert set(np.bincount(found.test.labels).tolist()) == {2, 3}
    rows = {i.tobytes(): (y, a) for i, y, a in zip(images, labels, attributes, strict=True)}
    kept = [(d, i) for d in (found.train, found.test) for i in range(len(d.labels))]
    assert len({d.images[i].tobytes() for d, i in kept}) == 40
    for d, i in kept:
        assert rows[d.images[i].tobytes()] == (d.labels[i], d.attributes[i])
    scaled = found.train.images / 255
    np.testing.assert_allclose(found.mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.std, scaled.std((0, 1, 2)), rtol=1e-9)
    assert (found.name, found.num_classes, found.num_attributes) == ("mine", 4, 3)


def test_nothing_is_flipped_unless_one_says_so():
    """Mirrored images keep their class, or not: nobody but the owner of the images knows."""
    found = datasets.from_arrays(*own())
    assert found.strategy == ("color", "crop", "cutout", "scale", "rotate")
    chosen = datasets.from_arrays(*own(), strategy=["flip", "crop", "crop"])
    assert chosen.strategy == ("flip", "crop", "crop")
    assert datasets.from_arrays(*own(), strategy=()).strategy == ()


def test_a_function_that_augments_is_kept_as_it_is():
    augmenting = lambda key, image: image
    assert datasets.from_arrays(*own(), strategy=augmenting).strategy is augmenting


def test_images_of_a_folder_are_augmented_likewise():
    images, labels, attributes = own()
    names = tuple("abcd"), tuple("xyz")
    folder = folders.Folder(images, labels, attributes, np.arange(40) > 30, *names, ())
    assert datasets.from_folder(folder).strategy == datasets.UNFLIPPED
    assert datasets.from_folder(folder, strategy=["flip"]).strategy == ("flip",)
    with pytest.raises(ValueError, match="found 'rotat'; did you mean 'rotate'"):
        datasets.from_folder(folder, strategy=["rotat"])


def test_channels_come_last():
    with pytest.raises(ValueError, match=r"found shape \(6, 3, 16, 16\).*transpose"):
        datasets.from_arrays(np.zeros((6, 3, 16, 16), np.uint8), np.arange(6) % 2)
    for shape in ((6, 3, 4, 4), (6, 2, 8, 8), (6, 7, 8, 8)):
        with pytest.raises(ValueError, match="looks like .*transpose"):
            datasets.from_arrays(np.zeros(shape, np.uint8), np.arange(6) % 2)
    unusual = datasets.from_arrays(np.zeros((6, 3, 16, 13), np.uint8), np.arange(6) % 2)
    assert unusual.train.images.shape[1:] == (3, 16, 13)


def test_from_arrays_split_follows_the_seed():
    first, again, other = (datasets.from_arrays(*own(), seed=s) for s in (0, 0, 1))
    assert (first.test.images == again.test.images).all()
    assert (first.test.images != other.test.images).any()


@pytest.mark.parametrize("fraction, counts", [(0.01, [1, 1]), (0.99, [1, 9])])
def test_from_arrays_leaves_every_class_on_both_sides(fraction, counts):
    """Classes of 2 and 10 keep at least one image on either side, whatever the fraction."""
    images, labels = np.zeros((12, 2, 2), np.uint8), np.repeat([0, 1], [2, 10])
    found = datasets.from_arrays(images, labels, test_fraction=fraction)
    assert np.bincount(found.test.labels).tolist() == counts


def test_from_arrays_takes_floats_and_grey_images():
    """0, .5 and 1 become 0, 128 (127.5 rounds to even) and 255; [n, h, w] gains a channel."""
    images = np.array([0, 0.5, 1, 1], np.float32).reshape(4, 1, 1)
    found = datasets.from_arrays(images, np.zeros(4, int), test=(images[:2], np.zeros(2, int)))
    assert found.train.images.ravel().tolist() == [0, 128, 255, 255]
    assert found.test.images.shape == (2, 1, 1, 1)
    assert (found.num_attributes, found.aligned) == (0, None)


def test_from_arrays_aligned_is_the_majority_of_the_training_set():
    images, labels = np.zeros((6, 2, 2), np.uint8), np.array([0, 0, 0, 1, 1, 1])
    test = (images, labels, np.full(6, 7))
    found = datasets.from_arrays(images, labels, np.array([2, 2, 0, 1, 0, 1]), test=test)
    assert (found.aligned, found.num_attributes) == ((2, 1), 8)
    without = datasets.from_arrays(images, labels, test=test)
    assert (without.aligned, without.num_attributes) == (None, 8)
    assert found.std == (1.0,)  # a constant channel can be divided by


IMAGES, CLASSES, ATTRIBUTES = own()


@pytest.mark.parametrize(
    "change, error, match",
    [
        (dict(images=IMAGES[0, 0]), ValueError, r"\[n, h, w\].*found shape \(5, 3\)"),
        (dict(images=IMAGES[:0]), ValueError, r"not empty, found shape \(0, 6, 5, 3\)"),
        (dict(images=IMAGES.astype(int)), TypeError, "images must be uint8, or floats.*int64"),
        (dict(images=IMAGES / 1.0), ValueError, r"must lie in \[0, 1\].*found 0.0..255.0"),
        (dict(images=IMAGES // 128), ValueError, "multiply masks of 0 and 1 by 255"),
        (dict(images=IMAGES / 255**2), ValueError, "divided by 255 twice"),
        (dict(name="../x"), ValueError, "name must be no path out of a folder, found '../x'"),
        (dict(name="/x"), ValueError, "no path out of a folder"),
        (dict(name="..\\x"), ValueError, "no path out of a folder"),
        (dict(name=3), TypeError, "name must be a string, found 3"),
        (dict(images=IMAGES * np.nan), ValueError, "found nan..nan"),
        (dict(images=IMAGES / -255), ValueError, "found -1.0..-0.0"),
        (dict(labels=CLASSES / 1), TypeError, "labels must be integers, found float64"),
        (dict(labels=CLASSES - 1), ValueError, "labels must lie in 0..2147483646, found -1..2"),
        (dict(labels=CLASSES + 2**32), ValueError, "found 4294967296..4294967299"),
        (dict(labels=CLASSES[:9]), ValueError, r"labels must have the shape \(40,\), found \(9,\)"),
        (dict(labels=CLASSES[:, None]), ValueError, r"shape \(40,\), found \(40, 1\)"),
        (dict(labels=CLASSES * 2), ValueError, "class 1 of 7 has no training images"),
        (dict(num_classes=5), ValueError, "class 4 of 5 has no training images"),
        (dict(num_classes=3), ValueError, "labels must lie in 0..2, found 0..3"),
        (dict(num_classes=0), ValueError, "num_classes must lie in 1"),
        (dict(num_classes=4.0), TypeError, "num_classes must be an integer, found 4.0"),
        (dict(labels=np.r_[4, CLASSES[1:]]), ValueError, "class 4 needs at least 2.*found 1"),
        (dict(attributes=ATTRIBUTES[:3]), ValueError, r"attributes must have.*found \(3,\)"),
        (dict(attributes=ATTRIBUTES - 1), ValueError, "attributes must lie in 0..65535, found -1"),
        (dict(attributes=ATTRIBUTES * 10**5), ValueError, "lie in 0..65535, found 0..200000"),
        (dict(attributes=ATTRIBUTES * 0.5), TypeError, "attributes must be integers"),
        (dict(test_fraction=0), ValueError, r"test_fraction must lie in \(0, 1\), found 0"),
        (dict(test_fraction=1.0), ValueError, r"in \(0, 1\), found 1.0"),
        (dict(seed=-1), ValueError, "seed must lie in 0"),
        (dict(strategy=["crop", "flop"]), ValueError, "found 'flop'; did you mean 'flip'"),
        (dict(strategy="crop"), TypeError, "sequence of names, found the string 'crop'"),
        (dict(test=IMAGES), ValueError, r"test must be \(images, labels\) or"),
        (dict(test=(IMAGES,)), ValueError, r"test must be \(images, labels\) or"),
        (dict(test=(IMAGES[:, 1:], CLASSES)), ValueError, r"\(6, 5, 3\) and \(5, 5, 3\)"),
        (dict(test=(IMAGES, CLASSES[1:])), ValueError, r"test labels must have the shape \(40,\)"),
        (dict(test=(IMAGES, CLASSES + 1)), ValueError, "test labels must lie in 0..3, found 1..4"),
        (
            dict(test=(IMAGES, CLASSES, -CLASSES)),
            ValueError,
            "test attributes must lie in 0..65535",
        ),
        (dict(test=(IMAGES.astype(int), CLASSES)), TypeError, "test images must be uint8"),
    ],
)
def test_from_arrays_refuses(change, error, match):
    given = dict(images=IMAGES, labels=CLASSES, attributes=ATTRIBUTES) | change
    with pytest.raises(error, match=match):
        datasets.from_arrays(**given)


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
