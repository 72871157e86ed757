"""Public functions reject invalid arguments in one line, or return finite numbers.

Hypothesis changes one value, dtype or shape of valid arguments, so that invalid arguments are close
to valid ones. All valid arguments have the same shapes, so that programs are compiled once.
"""

import functools

import chex
import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxdd import _checks, evaluate, kde, kernel_sums, sampling
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
def compile_loops(monkeypatch):
    """Compile loops once that would otherwise be compiled in every call."""
    for module, name, static in (
        (kernel_sums, "own_sums", "tile"),
        (formulas, "_overflowing", "num_classes"),
    ):
        monkeypatch.setattr(module, name, compiled(getattr(module, name), static))


@functools.cache
def compiled(function, static):
    return jax.jit(function, static_argnames=static)


def from_arrays(images, labels, attributes):
    data = datasets.from_arrays(images, labels, attributes, test=(IMAGES, LABELS, ATTRIBUTES))
    assert data.train.images.dtype == np.uint8 and data.num_classes <= N
    return data.mean, data.std


def score(**arguments):
    scores = evaluate.score(**arguments)
    assert 0 <= scores.accuracy <= 1
    return scores.accuracy, scores.worst_group


def pool(**arguments):
    pool = sampling.pool(**arguments)
    sums = np.bincount(pool.labels, pool.weights)
    np.testing.assert_allclose(sums, 1, rtol=1e-5)
    return pool.weights, pool.cumulative, pool.mean, pool.std


def task(**arguments):
    task = evaluate.task(**arguments)
    return task.mean, task.std, task.labels


def normalised(function, **arguments):
    weights, labels = function(**arguments), arguments["labels"]
    sums = np.bincount(labels, weights)[np.unique(labels)]
    np.testing.assert_allclose(sums, 1, rtol=1e-4)
    return weights


DENSITY = dict(log_density=POINTS[:, 0], labels=LABELS, num_classes=K, temperature=1.0)
CALLS = {
    "density": (
        kde.class_log_density,
        dict(embeddings=POINTS, labels=LABELS, bandwidth=1.0, num_classes=K),
    ),
    "bandwidth": (kde.mean_distance, dict(points=POINTS, weights=WEIGHTS, factor=0.2)),
    "inverse": (functools.partial(normalised, formulas.inverse_density), DENSITY),
    "clip": (
        functools.partial(normalised, formulas.clip),
        dict(weights=WEIGHTS, labels=LABELS, num_classes=K, limit=2.0),
    ),
    "arrays": (from_arrays, dict(images=IMAGES, labels=LABELS, attributes=ATTRIBUTES)),
    "pool": (
        pool,
        dict(images=IMAGES, labels=LABELS, weights=WEIGHTS, num_classes=K, **STATISTICS),
    ),
    "task": (
        task,
        dict(images=IMAGES, labels=LABELS, attributes=ATTRIBUTES, **GROUPS, **STATISTICS),
    ),
    "score": (
        score,
        dict(predictions=LABELS, labels=LABELS, attributes=ATTRIBUTES, aligned=[0, 1], **GROUPS),
    ),
}
VALUES = {
    "f": (np.float64, [np.nan, np.inf, -np.inf, -1.0, 0.0, 1e-45, 1e-38, 1e-20, 1e10, 1e30, 3e38]),
    "i": (np.int64, [-1, 1, K, 2**31, 2**40]),
    "u": (np.uint8, [0, 1, 255]),
}


@st.composite
def changed(draw, argument):
    """Change one value, all values, the dtype or the shape of an argument."""
    array = np.array(argument)
    if isinstance(argument, int):
        return draw(st.sampled_from([-1, 0, 1, 1.5, None, "2"]))  # sizes that fit the memory
    change = draw(st.sampled_from(["value", "value", "values", "dtype", "shape"]))
    if change == "dtype":
        return array.astype(draw(st.sampled_from([bool, np.int64, np.float64])))
    if change == "shape":
        return draw(st.sampled_from([array[None], array[..., None], np.stack([array] * 2)]))
    dtype, values = VALUES[array.dtype.kind]
    array = array.astype(dtype)
    where = draw(st.integers(0, len(array) - 1)) if array.ndim and change == "value" else ...
    array[where] = draw(st.sampled_from(values))
    return array if array.ndim else array.item()


@pytest.mark.parametrize("call", CALLS)
def test_valid_arguments_are_accepted(call):
    function, valid = CALLS[call]
    chex.assert_tree_all_finite(function(**valid))


@pytest.mark.parametrize("call", CALLS)
@settings(
    max_examples=12,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_results_of_accepted_arguments_are_finite(call, data):
    function, valid = CALLS[call]
    names = data.draw(st.lists(st.sampled_from(sorted(valid)), min_size=1, max_size=2, unique=True))
    arguments = valid | {name: data.draw(changed(valid[name]), label=name) for name in names}
    try:
        result = function(**arguments)
    except (ValueError, TypeError) as error:
        assert "\n" not in str(error)
    else:
        chex.assert_tree_all_finite(result)


@pytest.mark.parametrize(
    "check, error, message",
    [
        (lambda: _checks.count("ipc", 0), ValueError, "ipc must be a positive integer, got 0."),
        (lambda: _checks.count("steps", -1, minimum=0), ValueError, "got -1."),
        (lambda: _checks.count("folds", 1, minimum=2), ValueError, "at least 2, got 1."),
        (lambda: _checks.count("ipc", 1.5), TypeError, "got 1.5."),
        (lambda: _checks.keys("keys", jax.random.key(0)), ValueError, r"\(\)"),
        (lambda: _checks.keys("keys", jax.random.PRNGKey(0)), ValueError, r"\(2,\)"),
        (lambda: _checks.integers("labels", [0, 2**40], 3), ValueError, r"got 0\.\.1099511627776"),
        (lambda: _checks.pixels("images", np.zeros((0, 2, 2, 1))), ValueError, r"\(0, 2, 2, 1\)"),
        (lambda: _checks.pixels("images", np.full((1, 2, 2, 1), 2.0)), ValueError, "2.0"),
        (lambda: _checks.normalised("images", np.array([0.0, 17.0])), ValueError, "17.0"),
        (lambda: _checks.normalised("images", np.array([0.5, 2.0**64])), ValueError, "0.5"),
        (lambda: _checks.moments([0.5], [60.0], 1), ValueError, "60"),
        (lambda: _checks.moments([0.5], [0.0], 1), ValueError, "got .0"),
        (lambda: _checks.positive("h", 1e-45), ValueError, "1e-45"),
        (lambda: _checks.nonnegative("w", np.array([3e38, 3e38])), ValueError, r"3e\+38"),
    ],
)  # fmt: skip
def test_checks_state_the_value(check, error, message):
    with pytest.raises(error, match=message):
        check()


def test_traced_values_are_not_checked():
    assert _checks.values(np.ones(2)).tolist() == [1, 1]
    assert not np.isfinite(jax.jit(lambda x: _checks.finite("x", x))(np.inf))
