"""What a task refuses, and that it passes through compiled functions as a tree."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxdd import augment, tasks

IMAGES, LABELS = np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 1, 1, 0])
OPTIONS = dict(num_classes=2, num_attributes=3, mean=(0.5,), std=(0.25,))


def test_a_task_is_a_tree_of_arrays_whose_sizes_are_static():
    task = tasks.task(IMAGES, LABELS, [2, 0, 1, 1], [2, 0], strategy=["crop"], **OPTIONS)
    traces = []

    @jax.jit
    def same(task):
        traces.append((task.num_classes, task.num_attributes, task.strategy))
        return task

    for _ in range(2):
        found = same(task)
    assert traces == [(2, 3, ("crop",))]
    for field in ("images", "labels", "attributes", "aligned", "mean", "std"):
        np.testing.assert_array_equal(getattr(found, field), getattr(task, field))
    assert found.labels.dtype == np.int32 and found.images.dtype == np.uint8


def test_what_is_not_known_is_none():
    task = tasks.task(IMAGES, LABELS, num_classes=2, mean=(0.5,), std=(0.25,))
    assert task.attributes is None and task.aligned is None and task.num_attributes == 0
    assert task.strategy == augment.OPERATIONS
    assert dataclasses.replace(task, strategy=()).strategy == ()


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(images=IMAGES / 255), TypeError, "test images must be uint8, 0..255, found float"),
        (dict(images=IMAGES[0]), ValueError, r"\[n, h, w, c\] with n ≥ 1, found \(2, 2, 1\)"),
        (dict(images=IMAGES[:0]), ValueError, r"n ≥ 1, found \(0, 2, 2, 1\)"),
        (dict(mean=(0.5, 0.5)), ValueError, "one entry for each of the 1 channels"),
        (dict(std=(0.0,)), ValueError, "std must be positive"),
        (dict(labels=LABELS[:3]), ValueError, r"labels must have the shape \(4,\), found \(3,\)"),
        (dict(labels=LABELS * 1.0), TypeError, "test labels must be integers, found float64"),
        (dict(labels=LABELS + 1), ValueError, r"test labels must lie in 0\.\.1, found 1\.\.2"),
        (dict(attributes=LABELS - 1), ValueError, r"attributes must lie in 0\.\.2, found -1"),
        (dict(labels=LABELS[:, None]), ValueError, r"labels must have .* found \(4, 1\)"),
        (dict(mean=(127.0,)), ValueError, r"mean must be that of pixels on the scale \[0, 1\]"),
        (dict(attributes=LABELS, num_attributes=0), ValueError, "num_attributes .* found 0"),
        (dict(strategy="flip"), TypeError, "sequence of names, found the string 'flip'"),
        (dict(aligned=[0, 3]), ValueError, r"aligned must lie in 0\.\.2, found 0\.\.3"),
        (dict(aligned=[0, 1, 2]), ValueError, r"aligned must have the shape \(2,\), found \(3,\)"),
    ],
)
def test_bad_input(change, error, message):
    with pytest.raises(error, match=message):
        tasks.task(**(dict(images=IMAGES, labels=LABELS) | OPTIONS | change))
