"""Whatever comes through the doors for numbers is refused in one line, or finite goes out.

Sound arguments are taken and one value, dtype or shape of some is changed, so that what gets in is
near what should. All that gets in has one shape, for which a program is compiled once.
"""

import functools

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxdd import evaluate, kde, kernel_sums, sampling
from jaxdd.data import datasets
from jaxdd.weights import formulas

N, K = 6, 2
RNG = np.random.default_rng(0)
LABELS, ATTRIBUTES = np.arange(N) % K, np.arange(N) // K % 2
IMAGES = RNG.integers(0, 256, (N, 4, 4, 3), dtype=np.uint8)
WEIGHTS = RNG.uniform(0.1, 1, N).astype(np.float32)
POINTS = RNG.normal(size=(N, 2)).astype(np.float32)
STATISTICS = dict(mean=np.full(3, 0.5), std=np.full(3, 0.25))
GROUPS = dict(num_classes=K, num_attributes=2)


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    """Loops that would be compiled anew in every call."""
    for module, name, static in (
        (kernel_sums, "own_sums", "tile"),
        (formulas, "_overflowing", "num_classes"),
    ):
        monkeypatch.setattr(module, name, program(getattr(module, name), static))


@functools.cache
def program(function, static):
    return jax.jit(function, static_argnames=static)


def made(images, labels, attributes):
    found = datasets.from_arrays(images, labels, attributes, test=(IMAGES, LABELS, ATTRIBUTES))
    assert found.train.images.dtype == np.uint8 and found.num_classes <= N
    return found.mean, found.std


def scored(**given):
    found = evaluate.score(**given)
    assert 0 <= found.accuracy <= 1
    return found.accuracy, found.worst_group


def drawn(**given):
    found = sampling.pool(**given)
    sums = np.bincount(found.labels, found.weights)
    np.testing.assert_allclose(sums, 1, rtol=1e-5)
    return found.weights, found.cumulative, found.mean, found.std


def asked(**given):
    found = evaluate.task(**given)
    return found.mean, found.std, found.labels


def weighed(function, **given):
    found = function(**given)
    sums = np.bincount(given["labels"], found)[np.unique(given["labels"])]
    np.testing.assert_allclose(sums, 1, rtol=1e-4)
    return found


DENSITY = dict(log_density=POINTS[:, 0], labels=LABELS, num_classes=K, temperature=1.0)
DOORS = {
    "density": (
        kde.class_log_density,
        dict(embeddings=POINTS, labels=LABELS, bandwidth=1.0, num_classes=K),
    ),
    "bandwidth": (kde.mean_distance, dict(points=POINTS, weights=WEIGHTS, factor=0.2)),
    "inverse": (functools.partial(weighed, formulas.inverse_density), DENSITY),
    "clip": (
        functools.partial(weighed, formulas.clip),
        dict(weights=WEIGHTS, labels=LABELS, num_classes=K, limit=2.0),
    ),
    "arrays": (made, dict(images=IMAGES, labels=LABELS, attributes=ATTRIBUTES)),
    "pool": (
        drawn,
        dict(images=IMAGES, labels=LABELS, weights=WEIGHTS, num_classes=K, **STATISTICS),
    ),
    "task": (
        asked,
        dict(images=IMAGES, labels=LABELS, attributes=ATTRIBUTES, **GROUPS, **STATISTICS),
    ),
    "score": (
        scored,
        dict(predictions=LABELS, labels=LABELS, attributes=ATTRIBUTES, aligned=[0, 1], **GROUPS),
    ),
}
WRONG = {
    "f": (np.float64, [np.nan, np.inf, -np.inf, -1.0, 0.0, 1e-45, 1e-38, 1e-20, 1e10, 1e30, 3e38]),
    "i": (np.int64, [-1, 1, K, 2**31, 2**40]),
    "u": (np.uint8, [0, 1, 255]),
}


@st.composite
def changed(draw, argument):
    """An argument with a value, its dtype or its shape changed, or all of its values."""
    array = np.array(argument)
    if isinstance(argument, int):
        return draw(st.sampled_from([-1, 0, 1, 1.5, None, "2"]))  # not sizes that no memory has
    how = draw(st.sampled_from(["value", "value", "values", "dtype", "shape"]))
    if how == "dtype":
        return array.astype(draw(st.sampled_from([bool, np.int64, np.float64])))
    if how == "shape":
        return draw(st.sampled_from([array[None], array[..., None], np.stack([array] * 2)]))
    dtype, values = WRONG[array.dtype.kind]
    array = array.astype(dtype)
    where = draw(st.integers(0, len(array) - 1)) if array.ndim and how == "value" else ...
    array[where] = draw(st.sampled_from(values))
    return array if array.ndim else array.item()


@pytest.mark.parametrize("door", DOORS)
def test_sound_numbers_get_in(door):
    function, sound = DOORS[door]
    assert all(np.isfinite(each).all() for each in jax.tree.leaves(function(**sound)))


@pytest.mark.parametrize("door", DOORS)
@settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_what_is_not_refused_is_finite(door, data):
    function, sound = DOORS[door]
    names = data.draw(st.lists(st.sampled_from(sorted(sound)), min_size=1, max_size=2, unique=True))
    given = sound | {name: data.draw(changed(sound[name]), label=name) for name in names}
    try:
        found = jax.device_get(function(**given))
    except (ValueError, TypeError) as refusal:
        assert "\n" not in str(refusal)
    else:
        assert all(np.isfinite(each).all() for each in jax.tree.leaves(found)), found
