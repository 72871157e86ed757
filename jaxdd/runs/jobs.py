"""From options to the network, the method, the draw and the evaluation that they ask for."""

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from jaxdd import debiased, distill, draws, evaluate, formation, networks, parallel, sampling
from jaxdd.data import benchmarks, datasets
from jaxdd.runs.options import Options


class Job(NamedTuple):
    """What all rows of a comparison share; made by `prepare`, compiled at most once.

    Attributes:
        benchmark: the data.
        options: resolved.
        network: that sets are distilled with and evaluated on.
        method: of distillation.
        draw: of real batches.
        score: from images `[k, m, h, w, c]`, as networks see them, to their scores.
        seconds: wall time of each stage so far.
        report: called as `report(task, done, total, **fields)`.
        digest: of the data.
        mesh: of the devices to distil and evaluate on; None for one device.
        density: the weights `[n]` that rows share, and how they were found.
    """

    benchmark: datasets.Benchmark
    options: Options
    network: Any
    method: distill.Method
    draw: draws.Draw
    score: Callable[[jax.Array], evaluate.Scores]
    seconds: dict[str, float]
    report: Callable[..., None]
    digest: str
    mesh: jax.sharding.Mesh | None
    density: tuple[jax.Array, Any] | None = None


def silent(task: str, done: int, total: int, **fields: Any) -> None:
    """Reports nothing."""


def load(
    name: str, options: Options, *, data_dir: str | os.PathLike | None = None
) -> datasets.Benchmark:
    """Makes the benchmark that options ask for, or reads it from the cache; see `benchmarks.load`."""
    return benchmarks.load(
        name,
        data_dir=data_dir,
        conflict=options.conflict,
        severity=options.severity,
        seed=options.seed,
        test=options.test,
    )


@contextlib.contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Adds the time that the block takes to `seconds[name]`."""
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


@contextlib.contextmanager
def compilation_counted(seconds: dict[str, float]) -> Iterator[None]:
    """Adds the time XLA compiles to `seconds["compile"]`; the stages' own times contain it."""
    seconds.setdefault("compile", 0.0)

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seconds["compile"] += duration

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def network(options: Options, num_classes: int) -> nn.Module:
    """The network that a set is distilled with and evaluated on."""
    dtype = jnp.dtype(options.dtype)
    if options.network == "convnet":
        return networks.ConvNet(num_classes, options.width, options.depth, dtype=dtype)
    return networks.NETWORKS[options.network](num_classes, dtype=dtype)


def decode(options: Options) -> distill.Decode:
    """From stored images to those that networks see; one object, so that programs compile once."""
    if options.formation == 1:
        return distill.as_they_are
    return functools.partial(formation.split, factor=options.formation)


def method(
    options: Options,
    module: nn.Module,
    strategy: tuple[str, ...],
    *,
    groups: int = 1,
    mesh: jax.sharding.Mesh | None = None,
) -> distill.Method:
    """The method for a network, with a loss for each of `groups` bias groups, on the mesh."""
    if mesh is not None:
        split = method(options, parallel.split_network(module, mesh), strategy, groups=groups)
        return parallel.keep_whole(split, mesh)
    given = module, optax.sgd(options.learning_rate, momentum=0.5)
    if options.method == "dm":
        return distill.distribution_matching(
            *given, strategy=strategy, decode=decode(options), groups=groups
        )
    if options.method == "mtt":
        return distill.trajectory_matching(
            *given,
            inner=options.inner,
            rate=options.expert_rate,
            strategy=strategy,
            decode=decode(options),
        )
    return distill.gradient_matching(
        *given,
        outer=options.outer,
        inner=options.inner,
        decode=decode(options),
        groups=groups,
        strategy=strategy if options.method == "dsa" else (),
    )


def _batches(options, num_classes):
    """The draw of batches, of representatives if candidates are asked for."""
    batch = sampling.weighted_batch if options.weighting == "draw" else sampling.uniform_batch
    if options.candidates is None:
        return functools.partial(batch, size=options.batch_size)
    module = network(options, num_classes)

    def embed(images):
        params = module.init(key(options, "representative"), images[:1])
        return module.apply(params, images).features

    candidates = functools.partial(batch, size=options.candidates)
    return draws.representative(candidates, embed, size=options.batch_size)


def key(options: Options, purpose: str) -> jax.Array:
    """The random key of a purpose; adding purposes at the end changes none of the others."""
    purposes = (
        "encoder",
        "init",
        "distill",
        "evaluate",
        "median",
        "experts",
        "representative",
        "auto",
    )
    return jax.random.fold_in(jax.random.key(options.seed), purposes.index(purpose))


def placed(tree: Any, mesh: jax.sharding.Mesh | None) -> Any:
    """Puts arrays on every device of a mesh, if there is one."""
    return tree if mesh is None else parallel.replicate(tree, mesh)


def prepare(
    benchmark: datasets.Benchmark,
    options: Options,
    report: Callable[..., None] = silent,
    *,
    mesh: jax.sharding.Mesh | None = None,
) -> Job:
    """Builds the network, the method and the evaluation of a run, without computing anything.

    Args:
        benchmark: the data.
        options: resolved here.
        report: called as `report(task, done, total, **fields)`.
        mesh: from `parallel.mesh`, to distil and evaluate on its devices; None for one device.

    Raises:
        ValueError: for options out of range, or a method that cannot be split over devices.
    """
    options = options.resolved()
    side = min(benchmark.train.images.shape[1:3])
    if options.network == "convnet" and side < 2**options.depth:
        raise ValueError(
            f"images must have sides of {2**options.depth} pixels or more for a ConvNet of depth "
            f"{options.depth}, found {side}; choose a smaller depth or larger images"
        )
    module = network(options, benchmark.num_classes)
    if side < options.formation:
        raise ValueError(
            f"formation must be at most the images' side {side}, found {options.formation}"
        )
    aligned = None if benchmark.aligned is None else jnp.asarray(benchmark.aligned)
    protocol = functools.partial(
        evaluate.evaluate,
        aligned=aligned,
        mean=jnp.asarray(benchmark.mean),
        std=jnp.asarray(benchmark.std),
        num_attributes=benchmark.num_attributes,
        train=debiased.TRAININGS[options.training],
        epochs=options.epochs,
        strategy=benchmark.strategy,
    )
    evaluation = lambda *arrays: protocol(arrays[0], module, *arrays[1:])
    draw = _batches(options, benchmark.num_classes)
    if mesh is None:
        compiled = parallel.thread_rows(evaluation)
    elif options.method == "mtt":
        raise ValueError("dm, dc and dsa can be split over devices, found mtt")
    else:
        draw = parallel.split_draw(draw, mesh)
        compiled = jax.jit(parallel.map_rows(evaluation, mesh))
    test = placed(jax.tree.map(jnp.asarray, tuple(benchmark.test)), mesh)
    keys = jax.random.split(key(options, "evaluate"), options.eval_seeds)

    def score(images):
        labels = jnp.broadcast_to(jnp.arange(images.shape[0])[:, None], images.shape[:2])
        return jax.tree.map(np.asarray, compiled(keys, *placed((images, labels), mesh), test))

    return Job(
        benchmark,
        options,
        module,
        method(options, module, benchmark.strategy, mesh=mesh),
        draw,
        score,
        {},
        report,
        datasets.digest(benchmark),
        mesh,
    )
