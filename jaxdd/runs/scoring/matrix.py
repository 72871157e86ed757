"""Score sets with many networks and training protocols, computing each combination once.

| protocol | what networks learn from, in addition to images and labels |
| --- | --- |
| `standard` | nothing: hard labels, SGD, last epoch |
| `soft` | a teacher's predictions for mixed images (`teachers.train_on_soft_labels`) |
| `kd` | a teacher's logits (`teachers.train_on_logits`) |
| `elf` | a teacher's features (`elf.train`) |

A teacher has seen all real data, which improves the score of any set. Each row therefore lists the
settings that affect it and the bytes needed in addition to the set. Rows of random real images and
of noise show how much of a score comes from the teacher.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import filelock
import jax
import jax.numpy as jnp
import numpy as np

from jaxdd import augment, evaluate, networks, sampling, training
from jaxdd.data import datasets, files
from jaxdd.devices import parallel
from jaxdd.methods import zca
from jaxdd.runs import components, options, results
from jaxdd.runs import networks as named_networks
from jaxdd.runs.scoring.labelled_sets import LabelledSet
from jaxdd.training import elf, teachers

_PROTOCOLS = {
    "standard": training.train,
    "soft": teachers.train_on_soft_labels,
    "kd": teachers.train_on_logits,
    "elf": elf.train,
}
_SETS = ("set", "random", "noise")


class TeacherOptions(NamedTuple):
    """Training of teachers: updates, and real images per class in a batch.

    Batches follow the sample weights `[n]`, uniform by default. With a trained teacher, nothing is
    trained and the other fields are ignored.
    """

    steps: int = 2000
    batch_size: int = 26
    weights: np.ndarray | None = None
    teacher: teachers.Teacher | None = None


class Cell(NamedTuple):
    """A row of results: name, settings that a stored row must have, function that computes it."""

    name: str
    settings: dict[str, Any]
    score: Callable[[], dict[str, Any]]


# --- the file of results -----------------------------------------------------------------------


def read(path: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Read the rows that `fill` wrote, by name; raise ValueError if the file is damaged."""
    with files.hint("delete it and evaluate again"):
        rows = files.read_json(path)
        if not isinstance(rows, dict):
            raise ValueError(f"{path} must hold rows by name, got {type(rows).__name__}")
        for name, row in rows.items():
            try:
                results.Scores.from_dict(row)
            except ValueError as error:
                raise ValueError(f"{path}, {name}: {error}") from error
    return rows


def fill(path: str | os.PathLike, cells: Iterable[Cell]) -> dict[str, dict[str, Any]]:
    """Compute the cells that a JSON file lacks, write it after each, and return their rows.

    Other rows in the file stay. Several processes on one machine may fill the same file. On a CPU,
    several cells are computed at the same time.
    """
    path, by_name = pathlib.Path(path), {cell.name: cell for cell in cells}
    stored = lambda: read(path) if path.exists() else {}

    def compute(cell):
        row = stored().get(cell.name, {})
        same_settings = all(row.get(name) == x for name, x in cell.settings.items())
        if same_settings and results.SCORES.keys() <= row.keys():
            return
        row = {**cell.score(), **cell.settings, **results.circumstances()}
        with _lock(path):  # another cell or process may have written rows in the meantime
            files.write_json(path, stored() | {cell.name: row})

    parallel.call_all([functools.partial(compute, cell) for cell in by_name.values()])
    rows = stored()
    return {name: rows[name] for name in by_name}


def _lock(path):
    # Not next to the file, because a run folder must hold no files that its manifest does not list.
    name = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=8).hexdigest()
    return filelock.FileLock(pathlib.Path(tempfile.gettempdir(), f"jaxdd-{name}.lock"))


# --- the cells ---------------------------------------------------------------------------------


def cells(
    labelled: LabelledSet,
    benchmark: datasets.Benchmark,
    run_options: options.DM,
    *,
    names: Sequence[str] = ("convnet",),
    protocols: Sequence[str] = ("standard",),
    sets: Sequence[str] = ("set",),
    teacher: TeacherOptions = TeacherOptions(),
    report: Callable[..., None] = lambda task, done, total: None,
) -> list[Cell]:
    """Return the cells of all networks, protocols and sets, without computing them.

    Args:
        labelled: The set, from `labelled_sets.read`.
        benchmark: The data that the set replaces.
        run_options: Options, of which epochs, eval_seeds, width, depth, strategy and seed are used.
        names: Networks from `named_networks.NAMES`, or MODULE:ATTRIBUTE.
        protocols: Protocols from the table at the top of this module.
        sets: "set", as many random real images per class ("random"), or "noise".
        teacher: How teachers are trained.
        report: Called as `report(task, done, total)`.

    Raises:
        ValueError: An unknown name, a network that cannot be split for elf, or elf with a trained
            teacher, whose features need not have the shape that the network expects.
    """
    _check(names, protocols, sets, teacher)
    weights = None if teacher.weights is None else jnp.asarray(teacher.weights)
    pool = zca.whiten_pool(datasets.pool(benchmark, weights), labelled.whitening)
    moments = benchmark.mean, benchmark.std
    images = zca.whiten(jnp.asarray(labelled.images), labelled.whitening, *moments)
    arrays = components.baselines(images, labelled.labels, pool, run_options, sets)
    one_image, rows = sampling.take(pool, jnp.zeros(1, int)), []
    report, train_teacher = map(parallel.one_at_a_time, (report, _teacher))
    for name in names:
        network = named_networks.from_options(run_options, pool.num_classes, name=name)
        # Options name networks without batch norm only; the network itself is passed to `build`.
        network_options = dataclasses.replace(run_options, network=name.removesuffix("-bn"))
        # Teachers are expensive: each is trained when the first cell needs it, and then shared.
        arguments = pool, one_image, benchmark, network, network_options, teacher
        make_teacher = functools.cache(functools.partial(train_teacher, *arguments))
        make_teacher = parallel.one_at_a_time(make_teacher)
        for protocol in protocols:
            if protocol == "elf":  # raises before any work if the network cannot be split
                networks.count_parts(network)
                _teacher_network(network, one_image, run_options)
            train = _PROTOCOLS[protocol]
            built = components.build(benchmark, network_options, network=network, train=train)
            score = functools.partial(built.score, whitening=labelled.whitening)
            settings = _settings(protocol, built.strategy, run_options, teacher)
            settings |= {"storage": labelled.storage, "data": datasets.digest(benchmark)}
            for kind in sets:
                task = f"{name} {protocol} {kind}"
                digest = files.digest(*map(np.asarray, arrays[kind]))
                row = dict(network=name, protocol=protocol, set=kind, **settings, images=digest)
                report_cell = functools.partial(report, f"evaluate {task}")
                arguments = score, protocol, arrays[kind], make_teacher, report_cell
                num_bytes = labelled.num_bytes if kind == "set" else None
                compute = functools.partial(_score, *arguments, num_bytes)
                rows.append(Cell(task, files.to_json(row), compute))
    return rows


def _check(names, protocols, sets, teacher):
    """Raise ValueError before any work if arguments of `cells` cannot be used."""
    library_networks = [name for name in names if ":" not in name]
    known_names = {"network": named_networks.NAMES, "protocol": _PROTOCOLS, "set": _SETS}
    arguments = zip(known_names.items(), (library_networks, protocols, sets), strict=True)
    for (kind, known), values in arguments:
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"unknown {kind} {unknown[0]!r}; choose from {', '.join(known)}")
    if teacher.steps < 1:
        raise ValueError(f"teacher steps must be at least 1, got {teacher.steps}")
    if teacher.teacher is not None and "elf" in protocols:
        raise ValueError("elf trains its own teacher for each network; leave out the teacher")


def _settings(protocol, strategy, run_options, teacher):
    """Return everything that affects a score, apart from the images."""
    fields = ("epochs", "eval_seeds", "seed", "width", "depth", "dtype")
    named = named_networks.qualified_name(strategy) if callable(strategy) else list(strategy)
    return {
        **{field: getattr(run_options, field) for field in fields},
        "augmentation": named, "labels": "soft" if protocol == "soft" else "hard", "epoch": "last",
        "teacher": None if protocol == "standard" else _teacher_settings(teacher),
        "level": "networks on one set",
    }  # fmt: skip


def _teacher_settings(teacher):
    if teacher.teacher is not None:
        arrays = map(np.asarray, jax.tree.leaves(teacher.teacher.params))
        return {"network": repr(teacher.teacher.network), "parameters": files.digest(*arrays)}
    data = {"data": "uniform weights"}
    if teacher.weights is not None:
        data = {"data": "sample weights", "weights": files.digest(np.asarray(teacher.weights))}
    return {**data, "steps": teacher.steps, "batch_size": teacher.batch_size}


def _score(score, protocol, arrays, make_teacher, report, num_bytes):
    """Return the scores of a cell, and the bytes that it needs in addition to the set."""
    images, labels = arrays
    others, extra_bytes = {}, None
    report(0, 1)
    if protocol == "elf":
        # Its networks learn from the features of the images, not from the teacher itself.
        others["features"] = jax.jit(elf.teacher_features)(make_teacher(), images)
        extra_bytes = elf.extra_bytes(others["features"], make_teacher())
    elif protocol != "standard":
        others["teacher"] = make_teacher()
        extra_bytes = {"teacher": teachers.num_bytes(make_teacher())}
    scores = evaluate.summary(score(images, labels=labels, **others))
    report(1, 1)
    set_bytes = images.size * images.dtype.itemsize if num_bytes is None else num_bytes
    return scores | {"set_bytes": set_bytes, "extra_bytes": extra_bytes}


# --- teachers ----------------------------------------------------------------------------------


def train_teacher(
    network: networks.Network,
    pool: sampling.Pool,
    run_options: options.DM,
    strategy: augment.Strategy,
    teacher: TeacherOptions,
) -> teachers.Teacher:
    """Train a teacher on batches drawn by the weights of a pool, with the seed of a run."""
    sampler = functools.partial(sampling.weighted_batch, size=teacher.batch_size)
    schedule: dict[str, Any] = dict(sampler=sampler, steps=teacher.steps, strategy=strategy)
    train = jax.jit(lambda key, pool: teachers.train_teacher(key, network, pool, **schedule))
    return train(components.key(run_options, "experts"), pool)


def _teacher_network(network, images, run_options):
    """Return the ConvNet with instance norm whose features fit behind the front of a network.

    It has the width and depth of the options for a network that cannot be split.
    """
    classes = networks.count_classes(network, images[:1])
    if getattr(network, "parts", None) is None:
        return networks.ConvNet(classes, run_options.width, run_options.depth)
    *sides, width = elf.front_shape(network, images)
    for depth in range(1, 9):
        convnet = networks.ConvNet(classes, width, depth)
        if elf.front_shape(convnet, images) == (*sides, width):
            return convnet
    kind = type(network).__name__
    raise ValueError(f"no ConvNet has features of {sides} pixels, as the front of {kind}")


def _teacher(pool, images, benchmark, network, run_options, teacher):
    if teacher.teacher is not None:
        return teacher.teacher
    strategy = benchmark.strategy if run_options.strategy is None else run_options.strategy
    network = _teacher_network(network, images, run_options)
    return train_teacher(network, pool, run_options, strategy, teacher)
