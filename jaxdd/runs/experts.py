"""Networks trained on real data before a distillation: expert trajectories (mtt), a teacher (cfm).

They lie in a folder of their own, which several runs can share:

    settings.json    what the networks depend on
    manifest.json    checksums of the files below
    expert-000.npz   parameters after each epoch, `[epochs + 1, ...]` each
    teacher-000.npz  parameters of the teacher, and the feature moments of the real images
    checkpoint/      state of an unfinished training of the teacher

Existing networks are read, missing or damaged ones trained again.
"""

import functools
import os
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdd import methods, networks, sampling, training
from jaxdd.data import files
from jaxdd.methods import cfm, experts
from jaxdd.runs import components, timing
from jaxdd.runs import methods as run_methods
from jaxdd.runs import networks as named_networks
from jaxdd.runs.folder import checkpoint, manifest
from jaxdd.runs.options import CFM, MTT, WEIGHTED_PARTS
from jaxdd.training import teachers

TEACHER_FILE = "teacher-000.npz"
"""File of a teacher in its folder."""


# --- experts of trajectory matching --------------------------------------------------------------


def follow_experts(context, source, folder: pathlib.Path, seconds: dict[str, float], name: str):
    """Return a source whose pool are expert trajectories, trained by the weights of the source.

    Args:
        context: `stages.Context` of the run.
        source: `stages.Source` of the real data.
        folder: of the run.
        seconds: wall time by stage, which is added to.
        name: of the row.
    """
    options: MTT = context.options
    train = _trajectory_training(
        context.components.network, source.sampler, context.components.strategy,
        options.train_epochs, options.expert_updates, options.lr_teacher,
    )  # fmt: skip
    key = components.key(options, "experts")
    settings = _settings(context, "train_epochs", "expert_updates")
    settings["weights"] = files.digest(np.asarray(source.weights))
    if source.whitening is not None:
        settings["whitening"] = files.digest(*map(np.asarray, source.whitening))
    with timing.timed(seconds, "experts"):
        trajectories = load_or_train(
            _folder(options, folder, "experts", name), settings,
            lambda i: train(jax.random.fold_in(key, i), pool=source.pool),
            [f"expert-{i:03d}.npz" for i in range(options.num_experts)],
            like=jax.eval_shape(train, key, pool=source.pool),
            report=functools.partial(context.report, f"{name} experts"),
        )  # fmt: skip
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *trajectories)
    segments = _segments(options.expert_epochs, options.max_start_epoch)
    return source._replace(pool=stacked, sampler=segments)


@functools.cache
def _trajectory_training(network, sampler, strategy, epochs, updates, rate):
    return jax.jit(functools.partial(
        experts.train, network=network, sampler=sampler, epochs=epochs, updates=updates,
        optimizer=optax.sgd(rate), strategy=strategy,
    ))  # fmt: skip


@functools.cache
def _segments(span, latest):
    return functools.partial(experts.segment, span=span, latest=latest)


# --- the teacher of curriculum frequency matching ------------------------------------------------


def follow_teacher(context, source, folder: pathlib.Path, seconds: dict[str, float], name: str):
    """Return a source whose pool is a `cfm.Guide`: a teacher and the moments of its features.

    Args:
        context: `stages.Context` of the run.
        source: `stages.Source` of the real data.
        folder: of the run.
        seconds: wall time by stage, which is added to.
        name: of the row.
    """
    options: CFM = context.options
    weighted = options.weighted
    pools = {part: source.pool if part in weighted else context.pool for part in WEIGHTED_PARTS}
    settings = _settings(context, "teacher", "teacher_steps")
    settings["weights"] = {
        part: files.digest(np.asarray(pool.weights)) for part, pool in pools.items()
    }
    network = run_methods.teacher_network(options, context.data.num_classes)
    first = sampling.take(pools["teacher"], jnp.zeros(1, int))
    init, measure = _teacher_programs(network)
    signals = None if pools["signal"] is pools["covariance"] else pools["signal"]
    key = components.key(options, "experts")
    teacher_folder = _folder(options, folder, "teacher", name)

    def train(_):
        sampler = source.sampler if "teacher" in weighted else context.components.sampler
        params = _train_teacher(
            context, key, teacher_folder, network, pools["teacher"], first, sampler, name
        )
        return measure(params, pools["covariance"], signals=signals)

    params = jax.eval_shape(init, key, first)
    with timing.timed(seconds, "experts"):
        (guide,) = load_or_train(
            teacher_folder, settings, train, [TEACHER_FILE],
            like=jax.eval_shape(measure, params, pools["covariance"], signals=signals),
        )  # fmt: skip
    shutil.rmtree(teacher_folder / "checkpoint", ignore_errors=True)
    return source._replace(pool=jax.tree.map(jnp.asarray, guide), sampler=cfm.guide_sampler)


@functools.cache
def _teacher_programs(network):
    """Return compiled functions: fresh parameters, and the moments of real images."""
    return jax.jit(network.init), jax.jit(functools.partial(cfm.guide, network))


@functools.cache
def teacher_training(
    network: networks.Network, *, steps: int, rate: float, strategy: Any
) -> methods.Method:
    """Return the training of a teacher: SGD with momentum, weight decay and cosine decay to zero.

    Args:
        network: of the teacher.
        steps: of training.
        rate: initial learning rate.
        strategy: of augmentation.
    """
    schedule = optax.cosine_decay_schedule(rate, steps)
    optimizer = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(schedule, momentum=0.9))
    return experts.supervised_training(network, optimizer, strategy=strategy)


def _train_teacher(context, key, folder, network, pool, first, sampler, name):
    """Train a teacher from its newest checkpoint on and return its parameters."""
    options, steps = context.options, context.options.teacher_steps
    method = teacher_training(
        network, steps=steps, rate=options.lr_teacher, strategy=context.components.strategy
    )
    key_network, key_train = jax.random.split(key)
    fresh = method.init(_teacher_programs(network)[0](key_network, first))
    start, state = checkpoint.restore(folder, fresh) or (0, fresh)
    report = functools.partial(context.report, f"{name} teacher", total=steps)
    report(done=start)
    saved = time.perf_counter()
    try:
        for step, state, _ in methods.run(  # noqa: B020
            key_train, state, pool, method=method, sampler=sampler, steps=steps, first=start,
            chunk_length=options.chunk,
        ):  # fmt: skip
            report(done=step)
            if time.perf_counter() - saved > options.save_every and step < steps:
                checkpoint.save(folder, step, jax.device_get(state))
                saved = time.perf_counter()
    except ValueError as error:
        raise ValueError(f"the teacher diverged; try a smaller lr_teacher: {error}") from error
    return training.merge_params(state)


def read_teacher(
    folder: str | os.PathLike, pool: sampling.Pool, num_classes: int, *, data: str
) -> teachers.Teacher:
    """Return the teacher that a run of cfm left in a folder.

    Args:
        folder: of the teacher.
        pool: real images like those it was trained on.
        num_classes: number of classes.
        data: digest of the data that it must have been trained on.

    Raises:
        FileNotFoundError: the folder holds no finished teacher.
        ValueError: other data or a damaged file.
    """
    folder = pathlib.Path(folder)
    if not manifest.is_intact(folder, TEACHER_FILE):
        raise FileNotFoundError(
            f"{folder} holds no intact {TEACHER_FILE}, expected teacher/ of a finished run of cfm"
        )
    settings = files.read_json(folder / "settings.json")
    if settings.get("data") != data:
        raise ValueError(
            f"the teacher in {folder} was trained on other data: expected digest {data}, "
            f"got {settings.get('data')}"
        )
    fields = {name: settings[name] for name in ("width", "depth", "dtype")}
    network = named_networks.build(settings["teacher"], num_classes, **fields)
    init, measure = _teacher_programs(network)
    first = sampling.take(pool, jnp.zeros(1, int))
    shapes = jax.eval_shape(init, jax.random.key(0), first)
    guide = read_params(folder / TEACHER_FILE, jax.eval_shape(measure, shapes, pool))
    return teachers.Teacher(jax.tree.map(jnp.asarray, guide.params), network)


# --- files -------------------------------------------------------------------------------------


FOLLOW: dict[str, Callable[..., Any]] = {"experts": follow_experts, "teacher": follow_teacher}
"""How a run prepares the networks that its method follows, by `MethodEntry.follows`."""


def _settings(context, *fields):
    """Return what experts and teachers depend on, besides the weights."""
    fields += (
        "network", "width", "depth", "dtype", "batch_size", "candidates", "weighting",
        "lr_teacher", "seed",
    )  # fmt: skip
    config = context.config("experts")
    names = ("dataset", "data", "augmentation", *fields)
    return files.to_json(
        {name: config[name] for name in names} | {"classes": context.data.num_classes}
    )


def _folder(options, folder, kind, name):
    return (
        folder / kind if options.buffer_path is None else pathlib.Path(options.buffer_path) / name
    )


def load_or_train(
    folder: pathlib.Path,
    settings: dict[str, Any],
    train: Callable[[int], Any],
    names: list[str],
    *,
    like: Any,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[Any]:
    """Return trained networks: those in the folder, and new ones for missing or damaged files.

    Args:
        folder: created if need be.
        settings: JSON values that the networks depend on; those in the folder must be equal.
        train: from the number of a network to a pytree of arrays.
        names: of the files, in order.
        like: shapes and dtypes of the pytree.
        report: called as `report(done, total)`.

    Raises:
        ValueError: the folder holds networks with other settings, or a training diverged.
        OSError: the disk is full; finished networks are kept.
    """
    _check_settings(folder, settings)
    trees = []
    for i, name in enumerate(names):
        report(i, len(names))
        if not manifest.is_intact(folder, name):
            tree = jax.device_get(train(i))
            _check_finite(tree, f"{name} diverged; try a smaller lr_teacher or more epochs")
            files.write_arrays(folder / name, _flatten(tree))
            manifest.record(folder, (name,))
        trees.append(read_params(folder / name, like))
    report(len(names), len(names))
    return trees


def _check_settings(folder, settings):
    path = folder / "settings.json"
    if not path.exists():
        files.write_json(path, settings)
        return
    stored = files.read_json(path)
    if not isinstance(stored, dict) or (text := files.differences(stored, settings)):
        text = text if isinstance(stored, dict) else "no settings"
        raise ValueError(f"{folder} holds networks with other settings: {text}")


def read_params(path: pathlib.Path, like: Any) -> Any:
    """Return the pytree of arrays in a file.

    Raises:
        ValueError: names, shapes or dtypes are not those of `like`.
    """
    stored, expected = files.read_arrays(path), _flatten(like)
    form = lambda arrays: {name: (x.shape, np.dtype(x.dtype).name) for name, x in arrays.items()}
    if form(stored) != form(expected):
        text = files.differences(form(stored), form(expected))
        raise ValueError(f"{path} holds parameters of another network: {text}")
    return jax.tree.unflatten(jax.tree.structure(like), [stored[name] for name in expected])


def _flatten(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _check_finite(tree, message):
    for name, leaf in _flatten(tree).items():
        if not np.isfinite(leaf).all():
            raise ValueError(f"{message}: {name} is not finite")
