"""Public functions with invalid arrays: they must raise jaxdd's errors, or return finite numbers.

One of the valid arguments is changed: a value, all values, the type or the shape.
"""

import functools
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from experiments.attacks import laboratory as lab
from jaxdd import evaluate, kde, networks, sampling, training
from jaxdd.data import datasets
from jaxdd.runs.folder import store
from jaxdd.training import debiased
from jaxdd.weights import contrastive, formulas

N, K = 12, 3
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
LABELS = np.arange(N) % K
ATTRIBUTES = np.arange(N) // K % 2
IMAGES = RNG.integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
NORMALISED = RNG.normal(size=(N, 8, 8, 3)).astype(np.float32)
WEIGHTS = RNG.uniform(0.1, 1, N).astype(np.float32)
POINTS = RNG.normal(size=(N, 2)).astype(np.float32)
LOGITS = RNG.normal(size=(N, K)).astype(np.float32)
UNIT = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
MOMENTS = dict(mean=np.full(3, 0.5, np.float32), std=np.full(3, 0.25, np.float32))
CLASSES = dict(num_classes=K)
GROUPS = dict(num_classes=K, num_attributes=2)
ALIGNED = np.array([0, 1, 0])
NETWORK = networks.MLP(K, 4)


def _pool(weights=WEIGHTS):
    return sampling.pool(IMAGES, LABELS, weights=weights, **CLASSES, **MOMENTS)


def _batch(sampler, weights, size):
    return sampler(KEY, _pool(weights), size).images


def _initial(initialise, weights, ipc):
    return initialise(KEY, _pool(weights), ipc=ipc)


def _train(train, images, labels, **schedule):
    params = train(KEY, NETWORK, images, labels, strategy=(), **schedule)
    return networks.outputs(NETWORK, params, NORMALISED).logits


def _evaluate(images, test, labels, attributes):
    task = evaluate.task(test, labels, attributes, aligned=ALIGNED, **GROUPS, **MOMENTS)
    keys = jax.random.split(KEY, 1)
    return evaluate.evaluate(keys, NETWORK, images, task, epochs=1).accuracy


def _score(**arguments):
    scores = evaluate.score(**arguments)
    return scores.accuracy, scores.worst_group


def _from_arrays(images, labels, attributes):
    data = datasets.from_arrays(images, labels, attributes, test=(IMAGES, LABELS, ATTRIBUTES))
    return data.mean, data.std


def _density_weighted(bandwidth, temperature):
    encode = lambda images: images.reshape(len(images), -1)[:, :2]
    batch = functools.partial(sampling.uniform_batch, size=3)
    sampler = sampling.density_weighted(batch, encode, bandwidth=bandwidth, temperature=temperature)
    return sampler(KEY, _pool()).weights


def _checked(images, labels, mean, std):
    store.checked(images, labels, mean, std)
    return images, mean, std


_with = functools.partial
LABELLED = dict(labels=LABELS, **CLASSES)
WEIGHED = dict(weights=WEIGHTS, **LABELLED)
ESTIMATE = dict(embeddings=POINTS, **LABELLED)
ATTRIBUTED = dict(labels=LABELS, attributes=ATTRIBUTES)
RULE = dict(points=POINTS, weights=WEIGHTS, factor=0.2)
TRAINING = dict(images=NORMALISED, labels=LABELS, epochs=1, batch_size=4)
SET = NORMALISED.reshape(K, 4, 8, 8, 3)
SET_LABELS = np.arange(K, dtype=np.int32).repeat(4).reshape(K, 4)
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "kde.log_density": (kde.log_density, dict(queries=POINTS, points=POINTS, bandwidth=1.0)),
    "kde.class_log_density": (kde.class_log_density, dict(bandwidth=1.0, **ESTIMATE)),
    "kde.scott": (kde.scott, RULE),
    "kde.silverman": (kde.silverman, RULE),
    "kde.mean_distance": (kde.mean_distance, RULE),
    "kde.median_distance": (_with(kde.median_distance, KEY), RULE | dict(pairs=16)),
    "kde.class_bandwidth": (_with(kde.class_bandwidth, kde.scott), ESTIMATE),
    "kde.likelihood": (
        kde.likelihood, dict(candidates=np.full((2, K), [[0.5], [1.0]], np.float32), **ESTIMATE)
    ),
    "formulas.uniform": (formulas.uniform, LABELLED),
    "formulas.inverse_density": (
        formulas.inverse_density, dict(log_density=POINTS[:, 0], temperature=1.0, **LABELLED)
    ),
    "formulas.clip": (formulas.clip, dict(limit=2.0, **WEIGHED)),
    "formulas.oracle": (formulas.oracle, ATTRIBUTED | GROUPS),
    "formulas.balance_groups": (
        formulas.balance_groups, dict(memberships=np.full((N, 2), 0.5, np.float32), **LABELLED)
    ),
    "formulas.effective_sample_size": (formulas.effective_sample_size, WEIGHED),
    "formulas.group_evenness": (formulas.group_evenness, WEIGHED | ATTRIBUTED | GROUPS),
    "formulas.diagnose": (
        formulas.diagnose, WEIGHED | ATTRIBUTED | GROUPS | dict(aligned=ALIGNED)
    ),
    "sampling.pool": (
        lambda **fields: sampling.pool(**fields).weights, dict(images=IMAGES, **WEIGHED, **MOMENTS)
    ),
    **{
        f"sampling.{sampler.__name__}": (_with(_batch, sampler), dict(weights=WEIGHTS, size=2))
        for sampler in (sampling.uniform_batch, sampling.weighted_batch)
    },
    **{
        f"sampling.{initial.__name__}": (_with(_initial, initial), dict(weights=WEIGHTS, ipc=2))
        for initial in (sampling.initial_noise, sampling.initial_real)
    },
    "sampling.density_weighted": (
        _density_weighted, dict(bandwidth=np.float32(1.0), temperature=1.0)
    ),
    "evaluate.task": (
        lambda **fields: evaluate.task(**fields).std,
        dict(images=IMAGES, aligned=ALIGNED, **ATTRIBUTED, **GROUPS, **MOMENTS),
    ),
    "evaluate.score": (_score, dict(predictions=LABELS, aligned=ALIGNED, **ATTRIBUTED, **GROUPS)),
    "evaluate.evaluate": (_evaluate, dict(images=SET, test=IMAGES, **ATTRIBUTED)),
    "training.train": (_with(_train, training.train), TRAINING),
    "debiased.learning_from_failure": (_with(_train, debiased.learning_from_failure), TRAINING),
    "debiased.generalised_cross_entropy": (
        debiased.generalised_cross_entropy, dict(logits=LOGITS, labels=LABELS, q=0.7)
    ),
    "contrastive.supervised_contrastive": (
        contrastive.supervised_contrastive, dict(embeddings=UNIT, labels=LABELS, temperature=0.1)
    ),
    "datasets.from_arrays": (_from_arrays, dict(images=IMAGES, **ATTRIBUTED)),
    "store.checked": (_checked, dict(images=SET, labels=SET_LABELS, **MOMENTS)),
}  # fmt: skip
"""Functions by name, each with valid arguments."""

VALUES = {
    "f": [np.nan, np.inf, -np.inf, -1.0, 0.0, 1e-45, 1e-20, 1e20, 3e38],
    "i": [-1, K, 2**31, 2**40, -(2**31)],
    "u": [0, 1, 255],
}
TYPES = (bool, np.int64, np.float64, np.complex64, object, str)


def attacks(laboratory: lab.Laboratory, round_: int) -> Iterator[lab.Attack]:
    """Yield the attacks of a round; the round seeds the places of changed values."""
    for function, (_, valid) in CALLS.items():
        yield lab.Attack(f"{function} as is, round {round_}", functools.partial(_call, function))
        for name, argument in valid.items():
            for how, changed in _changes(argument, round_):
                title = f"{function} {name} {how}, round {round_}"
                yield lab.Attack(title, functools.partial(_call, function, {name: changed}))


def _changes(argument, round_):
    """Yield names of changes of an argument, and the changed argument."""
    array = np.asarray(argument)
    kind = array.dtype.kind
    if array.ndim == 0:
        # Large numbers are tried for floats only; as sizes they would exceed the memory.
        for value in VALUES["f"] if kind == "f" else (-1, 0, 1):
            yield f"{value:g}", type(argument)(value)
        yield from (("text", "2"), ("none", None), ("1.5", 1.5), ("an array", np.ones(5)))
        return
    for value in VALUES[kind]:
        wide = array.astype(np.int64) if kind == "i" else array
        where = np.random.default_rng(round_).integers(0, array.shape)
        with np.errstate(all="ignore"):
            once, everywhere = wide.copy(), np.full_like(wide, value)
            once[tuple(where)] = value
        yield f"once {value:g}", once
        yield f"all {value:g}", everywhere
    for kind in TYPES:
        yield f"as {kind.__name__}", array.astype(kind)
    shapes = dict(deeper=array[None], wider=array[..., None], twice=np.stack([array] * 2))
    shapes |= dict(empty=array[:0], shorter=array[:-1], flat=array.reshape(-1, 1)[:, 0])
    yield from ((name, x) for name, x in shapes.items() if x.shape != array.shape)


def _call(function, changed: dict[str, Any] | None = None) -> lab.Outcome:
    call, valid = CALLS[function]
    text = "; ".join(f"{k} {np.shape(v)} {v!r:.60}" for k, v in (changed or {}).items())
    command = f"{function}(…, {text})"
    try:
        value = jax.device_get(call(**valid | (changed or {})))
    except (ValueError, TypeError) as error:
        if not str(error) or not (_is_ours(error) or _has_no_numbers(changed or {})):
            return lab.Outcome("traceback", command, f"{type(error).__name__}: {error!s:.400}")
        if changed is None:
            return lab.Outcome("silent", command, f"valid arguments are refused: {error}")
        return lab.Outcome("refused", command, str(error))
    except Exception:
        return lab.Outcome("traceback", command, traceback.format_exc()[-600:])
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(value)]
    finite = all(np.isfinite(leaf).all() for leaf in leaves if leaf.dtype.kind == "f")
    return lab.Outcome("right" if finite else "silent", command, "" if finite else f"{leaves}")


def _has_no_numbers(changed):
    """Return whether an argument is text or an object, whose type JAX itself rejects."""
    return any(np.asarray(value).dtype.kind in "OUS" for value in changed.values())


def _is_ours(error):
    """Return whether jaxdd raised the error, and not a library that it calls."""
    return "jaxdd" in traceback.extract_tb(error.__traceback__)[-1].filename
