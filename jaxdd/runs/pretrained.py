"""Networks trained on real data before a distillation: expert trajectories (mtt), a teacher (cfm).

They lie in a folder of their own, which several runs can share:

    settings.json    what the networks depend on
    manifest.json    checksums of the files below
    expert-000.npz   parameters after each epoch, `[epochs + 1, ...]` each
    teacher-000.npz  parameters of the teacher, and the feature moments of the real images
    checkpoint/      state of an unfinished training of the teacher

Existing networks are read; missing or damaged ones are trained again.
"""

import functools
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdd import methods, networks, sampling, training
from jaxdd.data import files
from jaxdd.methods import cfm, expert_training
from jaxdd.runs import components
from jaxdd.runs import methods as run_methods
from jaxdd.runs import networks as named_networks
from jaxdd.runs.context import Run, Source
from jaxdd.runs.folder import checkpoint, manifest
from jaxdd.runs.options import WEIGHTED_PARTS
from jaxdd.training import teachers

_TEACHER_FILE = "teacher-000.npz"


def follow(run: Run, source: Source) -> Source:
    """Replace real data by trained experts or a teacher, if the method of a run needs them.

    The pool of the returned source holds expert trajectories (mtt) or a `cfm.Guide` (cfm), trained
    with the weights of the given source.
    """
    if (kind := run.context.follows) is None:
        return source
    options: Any = run.context.options
    shared = options.buffer_path
    folder = run.folder / kind if shared is None else pathlib.Path(shared) / run.name
    with run.timed("experts"):
        return _FOLLOW[kind](run, source, folder)


# --- experts of trajectory matching --------------------------------------------------------------


def _follow_experts(run, source, folder):
    context, options = run.context, run.context.options
    train = _trajectory_training(
        context.components.network, source.sampler, context.components.strategy,
        options.train_epochs, options.expert_updates, options.lr_teacher,
    )  # fmt: skip
    key = components.key(options, "experts")
    settings = _settings(context, "train_epochs", "expert_updates")
    settings["weights"] = files.digest(np.asarray(source.weights))
    if source.whitening is not None:
        settings["whitening"] = files.digest(*map(np.asarray, source.whitening))
    trajectories = _load_or_train(
        folder, settings, lambda i: train(jax.random.fold_in(key, i), pool=source.pool),
        [f"expert-{i:03d}.npz" for i in range(options.num_experts)],
        like=jax.eval_shape(train, key, pool=source.pool),
        report=functools.partial(context.report, f"{run.name} experts"),
    )  # fmt: skip
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *trajectories)
    segment = _segment(
        expert_training.segment, span=options.expert_epochs, starts=options.max_start_epoch
    )
    return source._replace(pool=stacked, sampler=segment)


_segment = functools.cache(functools.partial)  # equal samplers share programs


@functools.cache
def _trajectory_training(network, sampler, strategy, epochs, updates, rate):
    return jax.jit(functools.partial(
        expert_training.train, network=network, sampler=sampler, epochs=epochs, updates=updates,
        optimizer=optax.sgd(rate), strategy=strategy,
    ))  # fmt: skip


# --- the teacher of curriculum frequency matching ------------------------------------------------


def _follow_teacher(run, source, folder):
    context, options = run.context, run.context.options
    # Each part of the method may use the weights: the training of the teacher, the covariance of
    # its features, and the signal that is filtered.
    weighted = {part: part in options.weighted for part in WEIGHTED_PARTS}
    pools = {part: source.pool if weighted[part] else context.pool for part in weighted}
    settings = _settings(context, "teacher", "teacher_steps")
    settings["weights"] = {
        part: files.digest(np.asarray(pool.weights)) for part, pool in pools.items()
    }
    network = run_methods.teacher_network(options, context.data.num_classes)
    signals = None if pools["signal"] is pools["covariance"] else pools["signal"]
    sampler = source.sampler if weighted["teacher"] else context.components.sampler

    def train(_):
        params = _train_teacher(run, folder, network, pools["teacher"], sampler)
        return _measure(network)(params, pools["covariance"], signals=signals)

    like = _guide_shapes(network, pools["covariance"], signals)
    (guide,) = _load_or_train(folder, settings, train, [_TEACHER_FILE], like=like)
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return source._replace(pool=jax.tree.map(jnp.asarray, guide), sampler=cfm.guide_sampler)


@functools.cache
def _init(network):
    return jax.jit(network.init)


@functools.cache
def _measure(network):
    """Return the compiled function that measures real images in a teacher, see `cfm.guide`."""
    return jax.jit(functools.partial(cfm.guide, network))


def _guide_shapes(network, pool, signals=None):
    """Return shapes and dtypes of a `cfm.Guide`."""
    params = jax.eval_shape(_init(network), jax.random.key(0), _first_image(pool))
    return jax.eval_shape(_measure(network), params, pool, signals=signals)


def _first_image(pool):
    return sampling.take(pool, jnp.zeros(1, int))


@functools.cache
def teacher_training(
    network: networks.Network, *, steps: int, rate: float, strategy: Any
) -> methods.Method:
    """Return the training of a teacher: SGD with momentum, weight decay and cosine decay to 0."""
    schedule = optax.cosine_decay_schedule(rate, steps)
    optimizer = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(schedule, momentum=0.9))
    return expert_training.supervised_training(network, optimizer, strategy=strategy)


def _train_teacher(run, folder, network, pool, sampler):
    """Train a teacher, starting from its newest checkpoint, and return its parameters."""
    context, options, steps = run.context, run.context.options, run.context.options.teacher_steps
    method = teacher_training(
        network, steps=steps, rate=options.lr_teacher, strategy=context.components.strategy
    )
    key_network, key_train = jax.random.split(components.key(options, "experts"))
    fresh = method.init(_init(network)(key_network, _first_image(pool)))
    start, state = checkpoint.restore(folder, fresh) or (0, fresh)
    report = functools.partial(context.report, f"{run.name} teacher", total=steps)
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
    """Return the teacher in the folder of a run of cfm.

    It must have been trained on data with the digest `data`. `pool` holds images like these.
    """
    folder = pathlib.Path(folder)
    if not manifest.is_intact(folder, _TEACHER_FILE):
        raise FileNotFoundError(
            f"{folder} holds no intact {_TEACHER_FILE}, expected teacher/ of a finished run of cfm"
        )
    settings = files.read_json(folder / "settings.json")
    if settings.get("data") != data:
        raise ValueError(
            f"the teacher in {folder} was trained on other data: expected digest {data}, "
            f"got {settings.get('data')}"
        )
    fields = {name: settings[name] for name in ("width", "depth", "dtype")}
    network = named_networks.build(settings["teacher"], num_classes, **fields)
    guide = _read_params(folder / _TEACHER_FILE, _guide_shapes(network, pool))
    return teachers.Teacher(jax.tree.map(jnp.asarray, guide.params), network)


_FOLLOW = {"experts": _follow_experts, "teacher": _follow_teacher}
"""How each kind of networks is trained and sampled, by `MethodEntry.follows`."""


# --- files -------------------------------------------------------------------------------------


def _settings(context, *fields):
    """Return what experts and teachers depend on, except the weights."""
    fields += (
        "dataset", "data", "augmentation", "network", "width", "depth", "dtype", "batch_size",
        "candidates", "weighting", "lr_teacher", "seed",
    )  # fmt: skip
    config = context.config("experts") | {"classes": context.data.num_classes}
    names = (*fields, "classes", *["settings"] * bool(context.settings))
    return files.to_json({name: config[name] for name in names})


def _load_or_train(
    folder: pathlib.Path,
    settings: dict[str, Any],
    train: Callable[[int], Any],
    names: Sequence[str],
    *,
    like: Any,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[Any]:
    """Return trained networks: those in the folder, and new ones for missing or damaged files.

    Args:
        folder: folder of the networks; created if it does not exist.
        settings: JSON values that the networks depend on; those in the folder must be equal.
        train: from the number of a network to a pytree of arrays.
        names: names of the files, in order.
        like: shapes and dtypes of the pytree.
        report: called as `report(done, total)`.
    """
    _check_settings(folder, settings)
    trees = []
    for i, name in enumerate(names):
        report(i, len(names))
        if not manifest.is_intact(folder, name):
            arrays = _flatten(jax.device_get(train(i)))
            if diverged := [part for part, x in arrays.items() if not np.isfinite(x).all()]:
                raise ValueError(
                    f"{name} diverged: {diverged[0]} is not finite; try a smaller lr_teacher or "
                    "more epochs"
                )
            files.write_arrays(folder / name, arrays)
            manifest.record(folder, (name,))
        trees.append(_read_params(folder / name, like))
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


def _read_params(path: pathlib.Path, like: Any) -> Any:
    """Return the pytree of arrays in a file; names, shapes and dtypes must be those of `like`."""
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
