"""Public functions with arrays that they cannot mean: refused by what was found, or finite.

Sound arguments are taken and one of them is changed: a value, all values, the type or the shape.
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
SEEN = RNG.normal(size=(N, 8, 8, 3)).astype(np.float32)
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


def _drawn(draw, weights, size):
    return draw(KEY, _pool(weights), size).images


def _initial(make, weights, ipc):
    return make(KEY, _pool(weights), ipc=ipc)


def _trained(train, images, labels, **schedule):
    params = train(KEY, NETWORK, images, labels, strategy=(), **schedule)
    return networks.outputs(NETWORK, params, SEEN).logits


def _evaluated(images, test, labels, attributes):
    task = evaluate.task(test, labels, attributes, aligned=ALIGNED, **GROUPS, **MOMENTS)
    keys = jax.random.split(KEY, 1)
    found = evaluate.evaluate(keys, NETWORK, images, task, epochs=1)
    return found.accuracy


def _scored(**given):
    found = evaluate.score(**given)
    return found.accuracy, found.worst_group


def _from_arrays(images, labels, attributes):
    found = datasets.from_arrays(images, labels, attributes, test=(IMAGES, LABELS, ATTRIBUTES))
    return found.mean, found.std


def _weighted_batch(bandwidth, temperature):
    encode = lambda images: images.reshape(len(images), -1)[:, :2]
    batch = functools.partial(sampling.uniform_batch, size=3)
    sampler = sampling.density_weighted(batch, encode, bandwidth=bandwidth, temperature=temperature)
    return sampler(KEY, _pool()).weights


def _written(images, labels, mean, std):
    store._checked(images, labels, mean, std)
    return images, mean, std


DENSITY = dict(log_density=POINTS[:, 0], labels=LABELS, temperature=1.0, **CLASSES)
ESTIMATE = dict(embeddings=POINTS, labels=LABELS, **CLASSES)
WEIGHED = dict(weights=WEIGHTS, labels=LABELS, **CLASSES)
RULE = dict(points=POINTS, weights=WEIGHTS, factor=0.2)
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "kde.log_density": (kde.log_density, dict(queries=POINTS, points=POINTS, bandwidth=1.0)),
    "kde.class_log_density": (kde.class_log_density, dict(bandwidth=1.0, **ESTIMATE)),
    "kde.scott": (kde.scott, RULE),
    "kde.silverman": (kde.silverman, RULE),
    "kde.mean_distance": (kde.mean_distance, RULE),
    "kde.median_distance": (functools.partial(kde.median_distance, KEY), RULE | dict(pairs=16)),
    "kde.class_bandwidth": (functools.partial(kde.class_bandwidth, kde.scott), ESTIMATE),
    "kde.likelihood": (
        kde.likelihood,
        dict(candidates=np.full((2, K), [[0.5], [1.0]], np.float32), **ESTIMATE),
    ),
    "formulas.uniform": (formulas.uniform, dict(labels=LABELS, **CLASSES)),
    "formulas.inverse_density": (formulas.inverse_density, DENSITY),
    "formulas.clip": (formulas.clip, dict(limit=2.0, **WEIGHED)),
    "formulas.oracle": (formulas.oracle, dict(labels=LABELS, attributes=ATTRIBUTES, **GROUPS)),
    "formulas.balance_groups": (
        formulas.balance_groups,
        dict(labels=LABELS, memberships=np.full((N, 2), 0.5, np.float32), **CLASSES),
    ),
    "formulas.effective_sample_size": (formulas.effective_sample_size, WEIGHED),
    "formulas.group_evenness": (
        formulas.group_evenness,
        dict(attributes=ATTRIBUTES, num_attributes=2, **WEIGHED),
    ),
    "formulas.diagnose": (
        formulas.diagnose,
        dict(attributes=ATTRIBUTES, aligned=ALIGNED, num_attributes=2, **WEIGHED),
    ),
    "sampling.pool": (
        lambda **given: sampling.pool(**given).weights,
        dict(images=IMAGES, **WEIGHED, **MOMENTS),
    ),
    "sampling.uniform_batch": (
        functools.partial(_drawn, sampling.uniform_batch),
        dict(weights=WEIGHTS, size=2),
    ),
    "sampling.weighted_batch": (
        functools.partial(_drawn, sampling.weighted_batch),
        dict(weights=WEIGHTS, size=2),
    ),
    "sampling.initial_noise": (
        functools.partial(_initial, sampling.initial_noise),
        dict(weights=WEIGHTS, ipc=2),
    ),
    "sampling.initial_real": (
        functools.partial(_initial, sampling.initial_real),
        dict(weights=WEIGHTS, ipc=2),
    ),
    "evaluate.task": (
        lambda **given: evaluate.task(**given).std,
        dict(
            images=IMAGES,
            labels=LABELS,
            attributes=ATTRIBUTES,
            aligned=ALIGNED,
            **GROUPS,
            **MOMENTS,
        ),
    ),
    "evaluate.score": (
        _scored,
        dict(predictions=LABELS, labels=LABELS, attributes=ATTRIBUTES, aligned=ALIGNED, **GROUPS),
    ),
    "evaluate.evaluate": (
        _evaluated,
        dict(images=SEEN.reshape(K, 4, 8, 8, 3), test=IMAGES, labels=LABELS, attributes=ATTRIBUTES),
    ),
    "training.train": (
        functools.partial(_trained, training.train),
        dict(images=SEEN, labels=LABELS, epochs=1, batch_size=4),
    ),
    "debiased.learning_from_failure": (
        functools.partial(_trained, debiased.learning_from_failure),
        dict(images=SEEN, labels=LABELS, epochs=1, batch_size=4),
    ),
    "debiased.generalised_cross_entropy": (
        debiased.generalised_cross_entropy,
        dict(logits=LOGITS, labels=LABELS, q=0.7),
    ),
    "contrastive.supervised_contrastive": (
        contrastive.supervised_contrastive,
        dict(embeddings=UNIT, labels=LABELS, temperature=0.1),
    ),
    "sampling.density_weighted": (
        _weighted_batch,
        dict(bandwidth=np.float32(1.0), temperature=1.0),
    ),
    "datasets.from_arrays": (
        _from_arrays,
        dict(images=IMAGES, labels=LABELS, attributes=ATTRIBUTES),
    ),
    "store.write_synthetic": (
        _written,
        dict(
            images=SEEN.reshape(K, 4, 8, 8, 3),
            labels=np.repeat(np.arange(K, dtype=np.int32)[:, None], 4, 1),
            **MOMENTS,
        ),
    ),
}
"""Functions by name, each with sound arguments."""

VALUES = {
    "f": [np.nan, np.inf, -np.inf, -1.0, 0.0, 1e-45, 1e-20, 1e20, 3e38],
    "i": [-1, K, 2**31, 2**40, -(2**31)],
    "u": [0, 1, 255],
}
TYPES = (bool, np.int64, np.float64, np.complex64, object, str)


def attacks(laboratory: lab.Laboratory, round_: int) -> Iterator[lab.Attack]:
    """Yields the attacks of a round, which decides where a value is changed."""
    for function in CALLS:
        yield lab.Attack(f"{function} as is, round {round_}", functools.partial(_called, function))
        for argument, sound in CALLS[function][1].items():
            for how, changed in _changes(sound, round_):
                title = f"{function} {argument} {how}, round {round_}"
                yield lab.Attack(title, functools.partial(_called, function, {argument: changed}))


def _changes(sound, round_):
    """Names of changes of an argument, and what it becomes."""
    array = np.asarray(sound)
    kind = array.dtype.kind
    if array.ndim == 0:
        for value in VALUES["f"] if kind == "f" else (-1, 0, 1):  # not sizes that no memory has
            yield f"{value:g}", type(sound)(value)
        yield from (("text", "2"), ("none", None), ("1.5", 1.5), ("an array", np.ones(5)))
        return
    for value in VALUES[kind]:
        wide = array.astype({"f": array.dtype, "i": np.int64, "u": array.dtype}[kind])
        where = np.random.default_rng(round_).integers(0, array.shape)
        with np.errstate(all="ignore"):
            one, all_ = wide.copy(), np.full_like(wide, value)
            one[tuple(where)] = value
        yield f"once {value:g}", one
        yield f"all {value:g}", all_
    for kind in TYPES:
        yield f"as {kind.__name__}", array.astype(kind)
    shapes = dict(deeper=array[None], wider=array[..., None], twice=np.stack([array] * 2))
    shapes |= dict(empty=array[:0], shorter=array[:-1], flat=array.reshape(-1, 1)[:, 0])
    for name, changed in shapes.items():
        if changed.shape != array.shape:
            yield name, changed


def _called(function, changed: dict[str, Any] | None = None) -> lab.Outcome:
    call, sound = CALLS[function]
    said = "; ".join(f"{k} {np.shape(v)} {v!r:.60}" for k, v in (changed or {}).items())
    command = f"{function}(…, {said})"
    try:
        found = jax.device_get(call(**sound | (changed or {})))
    except (ValueError, TypeError) as refusal:
        if not str(refusal) or not (_is_ours(refusal) or _holds_no_numbers(changed or {})):
            return lab.Outcome("traceback", command, f"{type(refusal).__name__}: {refusal!s:.400}")
        if changed is None:
            return lab.Outcome("silent", command, f"sound arguments are refused: {refusal}")
        return lab.Outcome("refused", command, str(refusal))
    except Exception:
        return lab.Outcome("traceback", command, traceback.format_exc()[-600:])
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(found)]
    finite = all(np.isfinite(leaf).all() for leaf in leaves if leaf.dtype.kind == "f")
    return lab.Outcome("right" if finite else "silent", command, "" if finite else f"{leaves}")


def _holds_no_numbers(changed):
    """Whether something is changed to text or objects, which JAX itself refuses by their type."""
    return any(np.asarray(value).dtype.kind in "OUS" for value in changed.values())


def _is_ours(refusal):
    """Whether jaxdd refused, and not what it would have called."""
    return "jaxdd" in traceback.extract_tb(refusal.__traceback__)[-1].filename
