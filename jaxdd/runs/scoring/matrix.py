"""One matrix of evaluations: sets × networks × protocols, each cell computed once and kept.

| protocol | what the networks learn from, besides images and labels |
| --- | --- |
| `plain` | nothing: hard labels, SGD, last epoch |
| `soft` | a teacher's opinion of mixed images, instead of the labels (`teachers.train_on_soft_labels`) |
| `kd` | a teacher's logits (`teachers.train_on_logits`) |
| `elf` | a teacher's features (`elf.train`) |

The teacher saw all real data, which flatters any set. So each row lists its switches and the bytes
that it needs beside those of the set; rows of real images (`random`) and of noise in the place of
the set say how much of a score is the teacher's.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdd import evaluate, networks, sampling, training
from jaxdd.data import datasets, files
from jaxdd.methods import zca
from jaxdd.runs import options, parts
from jaxdd.runs.scoring import cells
from jaxdd.training import elf, teachers

PROTOCOLS = {
    "plain": training.train,
    "soft": teachers.train_on_soft_labels,
    "kd": teachers.train_on_logits,
    "elf": elf.train,
}
"""How the networks that score are trained."""

SETS = ("set", "random", "noise")
"""What can stand in a row: the set, or as many real images of each class, or noise."""


class Teaching(NamedTuple):
    """How teachers are made.

    Attributes:
        steps: updates.
        batch_size: real images of each class in one.
        weights: of the training samples `[n]`; None trains on the data as they are.
        teacher: that is asked in place of new ones, whatever the three above are.
    """

    steps: int = 2000
    batch_size: int = 26
    weights: np.ndarray | None = None
    teacher: teachers.Teacher | None = None


def evaluations(
    images: np.ndarray,
    labels: np.ndarray,
    benchmark: datasets.Benchmark,
    asked: options.Resolved,
    *,
    names: Sequence[str] = ("convnet",),
    protocols: Sequence[str] = ("plain",),
    which: Sequence[str] = ("set",),
    stored: Mapping[str, str] | None = None,
    whitening: zca.Whitening | None = None,
    teaching: Teaching = Teaching(),
    report: Callable[..., None] = lambda task, done, total: None,
) -> list[cells.Cell]:
    """Returns the cells of all networks, protocols and sets; nothing is computed yet.

    Args:
        images: of the set, `[m, h, w, c]`, normalised.
        labels: `[m]` of it.
        benchmark: the data that it stands for.
        asked: options, of which epochs, eval_seeds, width, depth, strategy and seed count.
        names: of networks, out of `parts.JUDGES`, or MODULE:ATTRIBUTE.
        protocols: out of `PROTOCOLS`.
        which: out of `SETS`.
        stored: how the set was stored, in words by name.
        whitening: what all networks, teachers too, see images through.
        teaching: of the teachers that protocols ask.
        report: called as `report(task, done, total)`.

    Raises:
        ValueError: an unknown name, a network that cannot be split for elf, or a teacher that is
            given for elf, whose features must have the shape of the network's front.
    """
    for what, given, known in (
        ("network", [n for n in names if ":" not in n], parts.JUDGES),
        ("protocol", protocols, PROTOCOLS),
        ("set", which, SETS),
    ):
        if unknown := sorted(set(given) - set(known)):
            raise ValueError(f"unknown {what} {unknown[0]!r}; known are {', '.join(known)}")
    if teaching.steps < 1:
        raise ValueError(f"a teacher must be trained for at least 1 step, found {teaching.steps}")
    if teaching.teacher is not None and "elf" in protocols:
        raise ValueError("elf trains a teacher that fits each network, found one that is given")
    weights = None if teaching.weights is None else jnp.asarray(teaching.weights)
    pool = zca.whiten_pool(datasets.pool(benchmark, weights), whitening)
    seen = zca.whiten(jnp.asarray(images), whitening)
    arrays = parts.beside(seen, labels, pool, asked, which)
    digest, found = datasets.digest(benchmark), []
    for name in names:
        options_of = dataclasses.replace(asked, network=name)
        teach = functools.cache(functools.partial(_taught, pool, benchmark, options_of, teaching))
        for protocol in protocols:
            made = parts.build(benchmark, options_of, train=PROTOCOLS[protocol])
            made = made._replace(score=functools.partial(made.score, whitening=whitening))
            if protocol == "elf":
                _check_fits(made.network, pool, options_of)
            for each in which:
                task = f"{name} {protocol} {each}"
                settings = {
                    **dict(network=name, protocol=protocol, set=each),
                    **_switches(protocol, made, options_of, teaching),
                    **dict(stored=dict(stored or {}), data=digest),
                    "images": files.digest(*map(np.asarray, arrays[each])),
                }
                score = functools.partial(
                    _scored, made, protocol, arrays[each], teach, report, f"evaluate {task}"
                )
                found.append(cells.Cell(task, files.to_json(settings), score))
    return found


def teacher_network(
    network: networks.Network, images: jax.Array, options: options.Resolved
) -> networks.ConvNet:
    """Returns the ConvNet, instance norm, whose features have the shape of a network's front.

    Args:
        network: that is taught.
        images: `[n, h, w, c]` of the data.
        options: whose width and depth count for a network of one piece.

    Raises:
        ValueError: no depth gives features as small as the front's.
    """
    classes = networks.count_classes(network, images[:1])
    if getattr(network, "parts", None) is None:
        return networks.ConvNet(classes, options.width, options.depth)
    *sides, width = elf.front_shape(network, images)
    for depth in range(1, 9):
        found = networks.ConvNet(classes, width, depth)
        if elf.front_shape(found, images) == (*sides, width):
            return found
    raise ValueError(
        f"no ConvNet has features of {sides} pixels, as the front of {type(network).__name__}"
    )


def _check_fits(network, pool, asked):
    networks.count_parts(network)
    teacher_network(network, sampling.take(pool, jnp.zeros(1, int)), asked)


def _taught(pool, benchmark, asked, teaching):
    if teaching.teacher is not None:
        return teaching.teacher
    network = parts.build(benchmark, asked).network
    network = teacher_network(network, sampling.take(pool, jnp.zeros(1, int)), asked)
    sampler = functools.partial(sampling.weighted_batch, size=teaching.batch_size)
    strategy = benchmark.strategy if asked.strategy is None else asked.strategy
    given: dict[str, Any] = dict(sampler=sampler, steps=teaching.steps, strategy=strategy)
    teach = jax.jit(lambda key, pool: teachers.train_teacher(key, network, pool, **given))
    return teach(parts.key(asked, "experts"), pool)


def _switches(protocol, made, asked, teaching):
    """All that may flatter a row, and what it was trained by."""
    strategy = made.strategy if isinstance(made.strategy, tuple) else parts.name_of(made.strategy)
    return {
        "epochs": asked.epochs,
        "eval_seeds": asked.eval_seeds,
        "seed": asked.seed,
        "width": asked.width,
        "depth": asked.depth,
        "dtype": asked.dtype,
        "augmentation": strategy,
        "labels": "soft" if protocol == "soft" else "hard",
        "epoch": "last",
        "teacher": None if protocol == "plain" else _told(teaching),
        "level": "networks on one set",
    }


def _told(teaching):
    """What teachers saw, or which one it is."""
    if teaching.teacher is not None:
        arrays = map(np.asarray, jax.tree.leaves(teaching.teacher.params))
        return {"network": repr(teaching.teacher.network), "parameters": files.digest(*arrays)}
    if teaching.weights is None:
        seen = {"data": "as they are"}
    else:
        seen = {"data": "by weights", "weights": files.digest(np.asarray(teaching.weights))}
    return {**seen, "steps": teaching.steps, "batch_size": teaching.batch_size}


def _scored(made, protocol, arrays, teach, report, task):
    """The scores of a cell, and the bytes that it needs beside those of the set."""
    images, labels = arrays
    given: dict[str, Any] = {"labels": labels}
    size: dict[str, Any] = {"set_bytes": images.size * images.dtype.itemsize, "extra_bytes": None}
    report(task, 0, 1)
    if protocol == "elf":
        given["features"] = jax.jit(elf.teacher_features)(teach(), images)
        size["extra_bytes"] = elf.extra_bytes(given["features"], teach())
    elif protocol != "plain":
        given["teacher"] = teach()
        size["extra_bytes"] = {"teacher": teachers.num_bytes(teach())}
    found = evaluate.summary(made.score(images, **given))
    report(task, 1, 1)
    return found | size
