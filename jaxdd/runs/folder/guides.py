"""Disk: the teacher of a run and what it sees of the real images, made once and used by many runs.

manifest.json    what the teacher and the moments depend on
checkpoint/      the teacher in the making; a killed training goes on from it to the same bits
guide-000.npz    its parameters, and the moments at the input of each of its convolutions
"""

import functools
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdd import methods, networks, sampling, training
from jaxdd.data import files
from jaxdd.methods import cfm, experts
from jaxdd.runs.folder import buffers, checkpoint
from jaxdd.training import teachers


def fill(
    key: jax.Array,
    folder: str | os.PathLike,
    manifest: dict[str, Any],
    network: networks.Network,
    pools: Mapping[str, sampling.Pool],
    *,
    teach: methods.Method,
    sampler: sampling.Sampler,
    steps: int,
    chunk: int = 10,
    save_every: float = 15.0,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Any:
    """Returns the `cfm.Guide` in a folder, or makes it there.

    Args:
        key: of the teacher's initialisation, batches and augmentation.
        folder: made if need be.
        manifest: as in `buffers.fill`.
        network: of the teacher.
        pools: the same images with the weights of the "teacher", Ψ ("covariance") and Φ ("signal").
        teach: from `experts.supervised_training`.
        sampler: of the teacher's batches.
        steps: updates of the teacher.
        chunk: updates compiled into one call.
        save_every: seconds after which the teacher is saved, when the current chunk ends.
        report: called as `report(done, total)`.

    Raises:
        ValueError: as in `buffers.fill`, or a teacher whose loss is not finite.
    """
    folder = pathlib.Path(folder)
    start, measure = _programs(network)
    signals = None if pools["signal"] is pools["covariance"] else pools["signal"]
    first = sampling.take(pools["teacher"], jnp.zeros(1, int))
    shapes = jax.eval_shape(network.init, key, first)
    how = dict(sampler=sampler, steps=steps, chunk=chunk, save_every=save_every, report=report)

    def made(_):
        params = _taught(key, folder, start, pools["teacher"], first, teach, **how)
        return measure(params, pools["covariance"], signals=signals)

    found = buffers.fill(
        folder,
        manifest,
        made,
        count=1,
        like=jax.eval_shape(measure, shapes, pools["covariance"], signals=signals),
        kind="guide",
    )
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return jax.tree.map(lambda x: jnp.asarray(x[0]), found)


def read(
    folder: str | os.PathLike,
    pool: sampling.Pool,
    network: Callable[[dict[str, Any]], networks.Network],
    *,
    data: str,
) -> teachers.Teacher:
    """Returns the teacher in a folder that `fill` filled.

    Args:
        folder: of the teacher.
        pool: real images like those that it saw.
        network: from the manifest to the network of the teacher.
        data: digest of what it must have seen.

    Raises:
        FileNotFoundError: the folder holds no teacher that is finished.
        ValueError: other data, another network, or a file that is damaged.
    """
    folder = pathlib.Path(folder)
    path = folder / "guide-000.npz"
    if not path.exists():
        raise FileNotFoundError(
            f"{folder} holds no {path.name}, expected teacher/ of a finished run by cfm"
        )
    with files.hint(f"delete {folder} and distil again"):
        manifest = files.read_json(folder / "manifest.json")
        if not isinstance(manifest, dict) or not isinstance(manifest.get("data"), str):
            raise ValueError(f"{folder / 'manifest.json'} must say what the teacher saw")
    if manifest["data"] != data:
        raise ValueError(
            f"the teacher in {folder} saw other data: digest {manifest['data']} there, {data} here"
        )
    known = network(manifest)
    start, measure = _programs(known)
    shapes = jax.eval_shape(start, jax.random.key(0), sampling.take(pool, jnp.zeros(1, int)))
    found = buffers.read(path, jax.eval_shape(measure, shapes, pool))
    return teachers.Teacher(jax.tree.map(jnp.asarray, found.params), known)


@functools.cache
def _programs(network):
    """What makes fresh parameters, and what measures real images; one each for all rows."""
    return jax.jit(network.init), jax.jit(functools.partial(cfm.guide, network))


def _taught(key, folder, start, pool, first, teach, *, sampler, steps, chunk, save_every, report):
    """The parameters of the teacher, trained from its newest state on."""
    key_network, key_train = jax.random.split(key)
    fresh = teach.init(start(key_network, first))
    begun, descent = newest = checkpoint.restore(folder, fresh) or (0, fresh)
    given: dict[str, Any] = dict(method=teach, sampler=sampler, steps=steps, chunk_length=chunk)
    saved = time.perf_counter()
    report(begun, steps)
    try:
        for step, descent, _ in methods.run(key_train, newest[1], pool, first=begun, **given):
            report(step, steps)
            if time.perf_counter() - saved > save_every and step < steps:
                checkpoint.save(folder, step, jax.device_get(descent))
                saved = time.perf_counter()
    except ValueError as error:
        raise ValueError(f"the teacher diverged; try a smaller lr_teacher: {error}") from error
    return training.merge_params(descent)


@functools.cache
def course(network: networks.Network, *, steps: int, rate: float, strategy: Any) -> methods.Method:
    """The training of a teacher as the literature does it: SGD along a cosine to zero.

    Args:
        network: of the teacher.
        steps: updates.
        rate: learning rate of the first.
        strategy: of augmentation.
    """
    schedule = optax.cosine_decay_schedule(rate, steps)
    optimizer = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(schedule, momentum=0.9))
    return experts.supervised_training(network, optimizer, strategy=strategy)
