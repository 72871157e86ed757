"""A small data set and a fake method, with which whole runs take a second."""

import types

import jax
import numpy as np
import pytest

from jaxdd import methods, networks
from jaxdd.data import datasets
from jaxdd.runs import options

TINY = options.DM(
    ipc=2, steps=6, batch_size=8, depth=1, epochs=2, eval_seeds=2, chunk=2, encoder_steps=2,
    encoder_width=4, temperature=0.3,
)  # fmt: skip


def shades(*, attributes=True, counts=(12, 30), strategy=()):
    """Return dark and bright 8×8 images, two classes, with a corner marked by the attribute."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], counts)
    marks = np.where(rng.random(len(labels)) < 0.2, 1 - labels, labels)
    images = rng.integers(0, 100, (len(labels), 8, 8)) + 100 * labels[:, None, None]
    images[:, :2, :2] = 255 * marks[:, None, None]
    marks = marks if attributes else None
    return datasets.from_arrays(images.astype(np.uint8), labels, marks, strategy=strategy)


def _init(key, images):
    return jax.random.normal(key, (images[0].size, 2)) / images[0].size


def _apply(params, images):
    flat = images.reshape(len(images), -1)
    return flat, flat @ params


def add_one(key, state, batch):
    images = state.images + 1
    return methods.State(images, ()), {"loss": batch.weights.sum() + jax.random.uniform(key)}


NETWORK = networks.Functions(_init, _apply)
METHOD = methods.Method(lambda images: methods.State(images, ()), add_one)


@pytest.fixture(scope="session")
def fake():
    """Return options, data, a network of one matrix, and a method that adds one to all images."""
    own = dict(network=NETWORK, method=METHOD)
    return types.SimpleNamespace(
        TINY=TINY, shades=shades, NETWORK=NETWORK, METHOD=METHOD, OWN=own, add_one=add_one
    )
