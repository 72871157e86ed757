"""Distillation from batches that are computed ahead, for one run or for rows of a comparison.

With distribution matching, most of the time goes into features of real images, which do not depend
on the synthetic ones. On a CPU they are therefore computed ahead, one batch per core, which takes
three quarters of the time of one batch on all cores.

Rows of a comparison that differ only in their weights use the same random network in each step, so
one batch serves all of them, see `sampling.mixture_batch`. Its features are computed once. Each row
updates its own images by the features' weighted means, and has a folder of its own.

The batches depend on the weights of all rows that share them. `config.json` of each of these rows
therefore lists their names as `batch_rows`. The images of the other rows have no influence, so a
single row can be distilled again.
"""

import contextlib
import functools
import pathlib
from collections.abc import Mapping, Sequence
from concurrent import futures

import jax
import numpy as np

from jaxdd import methods, sampling
from jaxdd.data import files
from jaxdd.devices import parallel
from jaxdd.runs import components, processes, stages, weightings
from jaxdd.runs import methods as run_methods
from jaxdd.runs.context import Context, Run, Source
from jaxdd.runs.options import NETWORKS

_AHEAD_BYTES = 4 * 2**30
"""Limit for the images of the batches that are computed at the same time."""


def batch_rows(
    context: Context, folder: pathlib.Path, names: Sequence[str], *, separate: bool
) -> dict[str, tuple[str, ...]]:
    """Return, for each row that shares its batches, the names of all rows that do.

    Rows share the batches that their configurations record. New rows share those of each other.

    Args:
        context: what the rows of the comparison have in common.
        folder: folder of the comparison.
        names: names of its rows.
        separate: whether new rows have batches of their own.
    """
    configs = {path.parent.name: _read(path) for path in folder.glob("rows/*/config.json")}
    recorded = {tuple(config.get("batch_rows", ())) for config in configs.values()}
    known = weightings.rows()
    if unknown := {name for group in recorded for name in group} - known.keys():
        raise ValueError(f"batch_rows in {folder}/rows has the unknown row {min(unknown)!r}")
    shared = {name: group for group in recorded for name in group}
    new = tuple(
        name
        for name in names
        if name not in shared | configs
        and known[name].distilled
        and weightings.WEIGHTINGS[known[name].weighting].group_loss is None
    )
    if len(new) > 1 and not separate and _can_share(context):
        shared |= dict.fromkeys(new, new)
    return shared


def _read(path):
    try:
        config = files.read_json(path)
    except (OSError, ValueError):  # reported when this row is resumed
        return {}
    return config if isinstance(config, dict) else {}


def can_compute_ahead(context: Context, source: Source) -> bool:
    """Return whether `distil` can compute the batches of a run ahead, which pays off on a CPU."""
    is_own = source.method is context.components.method  # without a loss per bias group
    return components.uses_one_cpu(context.mesh) and is_own and _is_separable(context)


def _can_share(context):
    options = context.options
    is_plain = options.candidates is None and options.zca == "none" and options.weighting == "draw"
    return is_plain and _is_separable(context)


def _is_separable(context):
    """Return whether the features of real images can be computed apart from the synthetic ones."""
    options, network = context.options, context.components.network
    if options.method != "dm" or context.own_method is not None:
        return False
    if options.network in NETWORKS:
        return True
    # Real and synthetic images initialise the network of a step separately.
    shape = (1, *context.data.train.images.shape[1:])
    init = lambda images: network.init(components.key(options, "distill"), images)
    params = (init(fill(shape, np.float32)) for fill in (np.zeros, np.ones))
    return jax.tree.all(jax.tree.map(np.array_equal, *params))


def distil(
    context: Context, runs: Sequence[Run], sources: Mapping[str, Source], *, workers: int
) -> None:
    """Distil rows from the same batches, until the last state of each row is saved in its folder.

    Each row continues from its newest checkpoint. The result of a row depends neither on the chunks
    nor on which of the rows are distilled again.

    Args:
        context: what the rows have in common.
        runs: the rows to distil.
        sources: sources of all rows that share the batches, by the names of the rows. The batches
            of a single row are those of its source.
        workers: number of threads that compute, one per core of a CPU. Fewer are used if their
            batches would take more than 4 GiB.
    """
    options = context.options
    recorders = []
    for run in runs:
        first, state = stages.restore(run, sources[run.name])
        if first < options.steps:
            state = parallel.replicate(state, context.mesh)
            whitening = sources[run.name].whitening
            recorder = stages.Recorder(run, first, state, whitening=whitening, rows=len(runs))
            recorders.append(recorder)
    if not recorders:
        return
    batch = _batches(context, [*sources.values()])
    index = {name: i for i, name in enumerate(sources)}

    def update(recorder, batches, end):
        # A row may have been saved at a later step than the others.
        if recorder.step < end:
            of_row = jax.tree.map(lambda x: x[:, index[recorder.run.name]], batches.batches)
            chunks = methods.run(
                components.key(options, "distill"), recorder.state,
                batches._replace(batches=of_row), method=context.components.method, sampler=None,
                steps=end, first=recorder.step, chunk_length=options.chunk,
            )  # fmt: skip
            for chunk in chunks:
                recorder.record(*chunk)

    update, batch = map(parallel.with_settings, (update, batch))
    starts = range(min(recorder.step for recorder in recorders), options.steps, options.chunk)
    submit_batches = lambda start: [
        pool.submit(batch, i) for i in range(start, min(start + options.chunk, options.steps))
    ]
    # Each worker holds the images of a batch, as drawn and augmented.
    images = context.data.num_classes * max(options.batch_size, options.candidates or 0)
    values = images * context.data.train.images[0].size
    workers = max(1, min(workers, _AHEAD_BYTES // (2 * 4 * values)))
    pool = futures.ThreadPoolExecutor(workers, thread_name_prefix=processes.ROW_THREADS)
    try:
        with context.interruption.deferred(*(recorder.run.name for recorder in recorders)):
            ahead = submit_batches(starts[0])
            for start in starts:
                computed = [job.result() for job in ahead]
                end = start + len(computed)
                # All chunks have one shape, so that their programs are compiled once.
                computed += computed[-1:] * (options.chunk - len(computed))
                batches = methods.Batches(start, jax.tree.map(lambda *x: np.stack(x), *computed))
                jobs = [pool.submit(update, recorder, batches, end) for recorder in recorders]
                # Cores that no row uses compute the next batches.
                ahead = submit_batches(end) if end < options.steps else []
                futures.wait(jobs)
                for job in jobs:
                    job.result()
                stages.stop_if_requested(context, recorders)
    except Exception:
        pool.shutdown(cancel_futures=True)
        for recorder in recorders:
            with contextlib.suppress(Exception):  # the first error is raised
                recorder.save()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _batches(context, sources):
    """Return a function from the number of a step to the `methods.Features` of all rows."""
    options, parts, mesh = context.options, context.components, context.mesh
    prepare = run_methods.build_mean_features(parts.network, parts.strategy, mesh=mesh)
    if len(sources) == 1:
        pool, sampler = sources[0].pool, _for_one_row(sources[0].sampler)
    else:
        pool = sampling.mixture(context.pool, [source.weights for source in sources])
        sampler = _sampler(options.batch_size, mesh)
    pool, key = parallel.replicate(pool, mesh), components.key(options, "distill")

    def batch(i):
        arguments = key, pool, jax.device_put(np.int32(i))
        return jax.device_get(methods.batch(*arguments, sampler=sampler, prepare=prepare))

    return batch


@functools.lru_cache(maxsize=64)
def _for_one_row(sampler):
    """Return a sampler whose batches have weights `[k, size, 1]`, as `sampling.mixture_batch`."""

    def sample(key, pool):
        batch = sampler(key, pool)
        return batch._replace(weights=batch.weights[..., None])

    return sample


@functools.cache
def _sampler(size, mesh):
    """Return the sampler of batches for several rows; equal samplers share compiled programs."""
    sampler = functools.partial(sampling.mixture_batch, size=size)
    return sampler if mesh is None else parallel.split_sampler(sampler, mesh)
