"""The whole way from a data set to a scored synthetic set, in a run folder.

`run` makes one set, `compare` makes the table that shows what the weights are worth. Both can be
killed at any time and resumed to the same bits: what happens in step i depends on the seed and i
alone, the weights are kept in the folder, and the state of the distillation is saved every few
seconds.
"""

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import pathlib
import platform
import signal
import threading
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdd import __version__, distill, draws, evaluate, formation, reweight, sampling, trajectories
from jaxdd.data import datasets, files
from jaxdd.runs import auto, buffers, checkpoint, jobs, plot, processes, results, store, weighing

ROWS = results.ROWS
"""What `compare` makes, unless told otherwise."""

DEBIAS = ("none", "kde", "auto", "oracle", "fairdd")
"""Ways to distil: four kinds of weights, and the loss over bias groups of FairDD."""


class Interrupted(Exception):
    """The user stopped the run; its state is saved."""


class Source(NamedTuple):
    """What a set is distilled from and how: weights `[n]`, the pool to draw from, draw and method.

    `choice` is the record of a choice of weights, if there was one.
    """

    weights: jax.Array
    pool: sampling.Pool
    draw: draws.Draw
    method: distill.Method
    choice: dict[str, Any] | None = None


def _density_weights(job, folder):
    """The KDE weights `[n]`, read from the folder if an earlier run got that far."""
    path = folder / "weights.npz"
    if path.exists() and job.options.weighting != "batch":
        return _stored_weights(path, len(job.benchmark.train.labels)), None
    found = weighing.weigh(job)
    _write_weights(job, folder, found.weights, found)
    return found.weights, found


def _chosen_weights(job, folder):
    """The weights `[n]` of `auto.choose` and the record of its choice, read back if they are there."""
    weights, record = folder / "weights.npz", folder / "choice.json"
    if not (weights.exists() and record.exists()):
        choice = auto.choose(job)
        files.write_json(record, auto.record(choice))
        _write_weights(job, folder, choice.weights, choice.weighed)
    return _stored_weights(weights, len(job.benchmark.train.labels)), _stored_choice(record)


def _write_weights(job, folder, weights, found):
    """Writes weights and what they follow from, which is nothing if they are uniform."""
    train, arrays = job.benchmark.train, {"weights": np.asarray(weights)}
    if found is not None:
        arrays["log_density"] = np.asarray(found.log_density)
        arrays["bandwidth"] = np.asarray(found.bandwidth)
        plot.embedding_map(
            folder / "embedding.png", np.asarray(found.embeddings), train.labels, train.attributes
        )
    plot.weights_by_group(
        folder / "weights.png",
        arrays["weights"],
        train.labels,
        train.attributes,
        job.benchmark.aligned,
    )
    _keep_seconds(job, folder)
    # Last, since its presence says that this stage is done.
    files.write_arrays(folder / "weights.npz", arrays)


def _stored_choice(path):
    try:
        choice = files.read_json(path)
        results.check_choice(choice, str(path))
    except ValueError as error:
        raise ValueError(
            f"{path} does not hold the record of a choice; delete it and resume"
        ) from error
    return choice


def _stored_weights(path, n):
    weights = files.read_arrays(path).get("weights")
    if (
        weights is None
        or weights.shape != (n,)
        or not (np.isfinite(weights) & (weights >= 0)).all()
    ):
        raise ValueError(f"{path} does not hold the weights of {n} samples; delete it and resume")
    return jnp.asarray(weights)


def _source(job, folder, debias):
    """The source of a row; density weights are estimated, or read from the folder."""
    options, benchmark, draw, choice = job.options, job.benchmark, job.draw, None
    if debias == "auto":
        weights, choice = _chosen_weights(job, folder)
    elif debias == "kde":
        weights, found = job.density or _density_weights(job, folder)
        if options.weighting == "batch":
            draw = draws.density_weighted(
                draw, found.encode, bandwidth=found.bandwidth, temperature=options.temperature
            )
    else:
        weights = None if debias == "none" else weighing.oracle(job)
    pool = datasets.pool(benchmark, weights)
    if debias != "fairdd":
        return Source(pool.weights, pool, draw, job.method, choice)
    groups = benchmark.num_attributes
    size = -(-options.batch_size // groups)
    draw = draws.grouped(functools.partial(sampling.uniform_batch, size=size), groups=groups)
    method = jobs.method(options, job.network, benchmark.strategy, groups=groups, mesh=job.mesh)
    return Source(pool.weights, datasets.group_pool(benchmark), draw, method)


def _check_debias(job, debias):
    """Refuses what the data or the method cannot do, before any folder is touched."""
    if debias == "auto":
        auto.checked(job.options)
    if debias in ("oracle", "fairdd") and job.benchmark.train.attributes is None:
        raise ValueError(f"{debias} needs bias attributes, {job.benchmark.name} has none")
    if debias == "fairdd" and job.options.method == "mtt":
        raise ValueError("fairdd needs a loss of groups: dm, dc or dsa, found mtt")


def _initial(job, weights):
    options, pool = job.options, datasets.pool(job.benchmark, weights)
    if options.init == "noise":
        return distill.initial_noise(jobs.key(options, "init"), pool, ipc=options.ipc)
    images = subset(
        job, pool, weighted=options.init == "weighted", ipc=options.ipc * options.formation**2
    )
    return formation.join(images, factor=options.formation)


def subset(
    job: jobs.Job, pool: sampling.Pool, *, weighted: bool, ipc: int | None = None
) -> jax.Array:
    """The baseline: real images `[k, ipc, h, w, c]`, drawn uniformly or by the weights."""
    key, ipc = jobs.key(job.options, "init"), job.options.ipc if ipc is None else ipc
    return distill.initial_real(key, pool, ipc=ipc, weighted=weighted)


@contextlib.contextmanager
def _catch_interrupt():
    """Turns the first Ctrl-C into an event, so that a chunk can end; the second one is immediate."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(*_):
        stopped.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


def _experts(job, folder, source, name):
    """The source of trajectory matching: experts, read from their folder or trained into it."""
    options, classes = job.options, job.benchmark.num_classes
    train = jax.jit(
        functools.partial(
            trajectories.train,
            network=job.network,
            draw=source.draw,
            epochs=options.expert_epochs,
            updates=options.expert_updates,
            optimizer=optax.sgd(options.expert_rate),
            strategy=job.benchmark.strategy,
        )
    )
    key = jobs.key(options, "experts")
    expert = lambda i: train(jax.random.fold_in(key, i), pool=source.pool)
    fields = (
        "network",
        "width",
        "depth",
        "dtype",
        "batch_size",
        "candidates",
        "weighting",
        "expert_epochs",
        "expert_updates",
        "expert_rate",
        "seed",
    )
    manifest = {
        "dataset": job.benchmark.name,
        "data": job.digest,
        "classes": classes,
        "weights": hashlib.blake2b(np.asarray(source.weights), digest_size=16).hexdigest(),
        **{name: getattr(options, name) for name in fields},
    }
    buffer = folder / "experts" if options.buffer is None else pathlib.Path(options.buffer) / name
    with jobs.timed(job.seconds, "experts"):
        experts = buffers.fill(
            buffer,
            manifest,
            expert,
            count=options.experts,
            like=jax.eval_shape(train, key, pool=source.pool),
            report=lambda done: job.report(f"{name} experts", done, options.experts),
        )
    draw = functools.partial(trajectories.segment, span=options.span, latest=options.latest)
    return source._replace(pool=jax.tree.map(jnp.asarray, experts), draw=draw)


def distill_into(job: jobs.Job, folder: pathlib.Path, source: Source, name: str) -> jax.Array:
    """Distils from the newest checkpoint of `folder` on and returns the synthetic images.

    Raises:
        Interrupted: after Ctrl-C, once the state is saved.
    """
    options, steps = job.options, job.options.steps
    state = source.method.init(_initial(job, source.weights))
    first, state = checkpoint.restore(folder, state) or (0, state)
    store.rewind(folder, first)
    if first >= steps:
        return jax.device_get(state.images)
    if options.method == "mtt":
        source = _experts(job, folder, source, name)
    state, data = jobs.placed((state, source.pool), job.mesh)
    iterator = distill.run(
        jobs.key(options, "distill"),
        state,
        data,
        method=source.method,
        draw=source.draw,
        steps=steps,
        first=first,
        chunk_length=options.chunk,
    )
    spent, begun = job.seconds.get("distill", 0.0), time.perf_counter()
    saved = begun
    job.report(name, first, steps)
    with _catch_interrupt() as stopped:
        for step, state, info in iterator:
            means, now = {name: float(x.mean()) for name, x in info.items()}, time.perf_counter()
            speed = (step - first) / (now - begun)
            job.report(name, step, steps, loss=means["loss"], speed=speed)
            store.append(folder, {"step": step, **means, "steps_per_second": speed})
            job.seconds["distill"] = spent + now - begun
            due = now - saved > options.save_every or step == steps
            if due:
                _save(job, folder, step, state)
                saved = now
            if processes.broadcast(np.int32(stopped.is_set())):
                if not due:
                    _save(job, folder, step, state)
                raise Interrupted(f"stopped at step {step} of {steps}; the state is saved")
    return jax.device_get(state.images)


def _save(job, folder, step, state):
    checkpoint.save(folder, step, jax.device_get(state))
    _keep_seconds(job, folder)


def _keep_seconds(job, folder):
    files.write_json(folder / "seconds.json", job.seconds)


def _with_seconds(job, folder):
    """The job with the seconds that earlier attempts in the folder took, each stage for itself."""
    path = folder / "seconds.json"
    found = files.read_json(path) if path.exists() else {}
    if not isinstance(found, dict) or any(results.finite(x) is None for x in found.values()):
        raise ValueError(f"{path} does not hold seconds by stage; delete it and resume")
    return job._replace(seconds={**job.seconds, **found})


def summary(scores: evaluate.Scores) -> dict[str, dict[str, float]]:
    """Mean, standard deviation (n − 1) and number of networks of each score."""

    def one(values):
        values = np.asarray(values, float)
        std = values.std(ddof=1) if len(values) > 1 else 0.0
        return {"mean": float(values.mean()), "std": float(std), "n": len(values)}

    names = ("accuracy", "aligned", "conflicting", "worst_group", "deo_max", "deo_mean")
    return {name: one(getattr(scores, name)) for name in names}


def _diagnosis(job, weights):
    benchmark, train = job.benchmark, job.benchmark.train
    labels = jnp.asarray(train.labels)
    if train.attributes is None:
        size = reweight.effective_sample_size(weights, labels, num_classes=benchmark.num_classes)
        unknown = dict.fromkeys(("conflict_auc", "conflict_mass", "group_balance"))
        return {"effective_sample_size": float(size.mean()), **unknown}
    diagnose = functools.partial(
        reweight.diagnose,
        num_classes=benchmark.num_classes,
        num_attributes=benchmark.num_attributes,
    )
    attributes, aligned = jnp.asarray(train.attributes), jnp.asarray(benchmark.aligned)
    found = jax.jit(diagnose)(weights, labels, attributes, aligned)
    return {name: float(value) for name, value in found._asdict().items()}


def circumstances() -> dict[str, Any]:
    """Device, versions and date, without which no number can be judged."""
    versions = {"python": platform.python_version(), "jaxdd": __version__}
    for name in ("jax", "jaxlib", "flax", "optax", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "device": str(jax.devices()[0].device_kind),
        "versions": versions,
        "date": datetime.date.today().isoformat(),
    }


def _finish(job, folder, images, scores, source, random):
    """Writes the synthetic set, its picture and result.json of a row, and returns the result."""
    options, benchmark = job.options, job.benchmark
    result = {
        **summary(scores),
        "random": random,
        "weights": _diagnosis(job, source.weights),
        "seconds": dict(job.seconds),
        **circumstances(),
        "seed": options.seed,
        "config": files.read_json(folder / "config.json"),
    }
    if source.choice is not None:
        result["choice"] = source.choice
    labels = np.broadcast_to(np.arange(images.shape[0])[:, None], images.shape[:2])
    provenance = {name: result[name] for name in ("config", "device", "versions")}
    provenance["class_names"] = benchmark.class_names
    store.write_synthetic(
        folder / "synthetic.npz",
        store.Synthetic(
            np.asarray(images, np.float32),
            labels.astype(np.int32),
            np.asarray(benchmark.mean, np.float32),
            np.asarray(benchmark.std, np.float32),
            provenance,
        ),
    )
    title = f"{benchmark.name}: {100 * result['accuracy']['mean']:.1f} % on the test set"
    plot.synthetic_grid(
        folder / "synthetic.png",
        np.asarray(images),
        mean=benchmark.mean,
        std=benchmark.std,
        title=title,
    )
    files.write_json(folder / "result.json", result)
    return files.read_json(folder / "result.json")


def _stored_result(path):
    result = files.read_json(path)
    if not isinstance(result, dict) or not {"accuracy", "random", "weights"} <= result.keys():
        raise ValueError(f"{path} does not hold a result; delete it and resume")
    return result


def _config(job, command, **more):
    return {
        "command": command,
        "dataset": job.benchmark.name,
        "data": job.digest,
        **more,
        **dataclasses.asdict(job.options),
    }


def run(
    job: jobs.Job, folder: pathlib.Path, *, debias: Literal[DEBIAS], resume: bool
) -> dict[str, Any]:
    """Distils one set into `folder`: weights, synthetic set, pictures, result.json.

    Args:
        job: from `jobs.prepare`.
        folder: the run folder.
        debias: one of `DEBIAS`; oracle and fairdd use the bias labels, auto chooses how to weigh.
        resume: continue what the folder holds.

    Returns:
        The content of result.json.
    """
    _check_debias(job, debias)
    folder = store.create(folder, _config(job, "run", debias=debias), resume=resume)
    if (folder / "result.json").exists():
        return _stored_result(folder / "result.json")
    with store.alone(folder):
        job = _with_seconds(job, folder)
        with jobs.compilation_counted(job.seconds):
            source = _source(job, folder, debias)
            images = distill_into(job, folder, source, debias)
            uniform = subset(job, datasets.pool(job.benchmark), weighted=False)
            random = summary(scored(job, uniform, "random"))
            scores = scored(job, jobs.decode(job.options)(images), debias)
        result = _finish(job, folder, images, scores, source, random)
        _bars(folder, {"random": random, debias: result})
        return result


def scored(job: jobs.Job, images: jax.Array, name: str) -> evaluate.Scores:
    """Evaluates images as networks see them, `[k, m, h, w, c]`, with time and report."""
    job.report(f"evaluate {name}", 0, 1)
    with jobs.timed(job.seconds, "evaluate"):
        scores = job.score(images)
    job.report(f"evaluate {name}", 1, 1)
    return scores


def compare(
    job: jobs.Job, folder: pathlib.Path, *, resume: bool, names: Sequence[str] = ROWS
) -> dict[str, Any]:
    """Makes rows under one protocol: compare.json, figures, one run folder a row.

    random and random-kde are real images, drawn uniformly and by the KDE weights; the others are
    distilled as `DEBIAS` says. Without bias labels there is no oracle row and no fairdd row.

    Args:
        job: from `jobs.prepare`.
        folder: the comparison's folder.
        names: of the rows.
        resume: continue what the folder holds; finished rows are read back and kept.

    Returns:
        The content of compare.json.
    """
    known = dict.fromkeys((*ROWS, *DEBIAS))
    if unknown := set(names) - known.keys():
        raise ValueError(f"unknown row {min(unknown)!r}; known are {', '.join(known)}")
    if job.benchmark.train.attributes is None:
        names = [name for name in names if name not in ("oracle", "fairdd")]
    names = ["random", *(name for name in names if name != "random")]  # the others refer to it
    for name in names:
        _check_debias(job, name)
    folder = store.create(folder, _config(job, "compare"), resume=resume)
    with store.alone(folder):
        finished = [name for name in known if (folder / "rows" / name / "result.json").exists()]
        names = list(dict.fromkeys(["random", *finished, *names]))
        (folder / "synthetic.png").unlink(missing_ok=True)  # which says that all is done
        job = _with_seconds(job, folder)
        with jobs.compilation_counted(job.seconds):
            if {"kde", "random-kde"} & set(names) - set(finished):
                job = job._replace(density=_density_weights(job, folder))
        rows, images = {}, {}
        for name in names:
            rows[name], images[name] = _row(job, folder, name, rows)
            files.write_json(folder / "compare.json", {"rows": rows})
        _compare_figures(job, folder, rows, images)
        return files.read_json(folder / "compare.json")


def _row(job, whole, name, rows):
    """The result and the images of one row, read back if an earlier run finished it."""
    folder = whole / "rows" / name
    if (folder / "result.json").exists():
        stored = store.read_synthetic(folder / "synthetic.npz")
        return _stored_result(folder / "result.json"), stored.images
    store.create(folder, _config(job, "compare", row=name), resume=True)
    source = {"random": "none", "random-kde": "kde"}.get(name, name)
    shared = whole
    if source == "auto":  # beside the weights with the options' own values
        shared = whole / "auto"
        shared.mkdir(exist_ok=True)
        job = _with_seconds(job, shared)
    job = _with_seconds(job, folder)
    with jobs.compilation_counted(job.seconds):
        source = _source(job, shared, source)
        if name.startswith("random"):
            images = subset(job, source.pool, weighted=name == "random-kde")
            scores = scored(job, images, name)
        else:
            images = distill_into(job, folder, source, name)
            scores = scored(job, jobs.decode(job.options)(images), name)
    random = summary(scores) if name == "random" else rows["random"]["random"]
    return _finish(job, folder, images, scores, source, random), np.asarray(images)


def _bars(folder, rows):
    shown = ("accuracy", "aligned", "conflicting", "worst_group")
    bars = {name: {score: row[score] for score in shown} for name, row in rows.items()}
    plot.accuracy_bars(folder / "accuracy.png", bars)


def _compare_figures(job, folder, rows, images):
    _bars(folder, rows)
    titles = {"none": "plain distillation", "kde": "density weights"}
    shown = {name: images[name] for name in titles if name in images} or images
    accuracies = {name: f"{100 * rows[name]['accuracy']['mean']:.0f} %" for name in shown}
    plot.comparison(
        folder / "synthetic.png",
        shown,
        mean=job.benchmark.mean,
        std=job.benchmark.std,
        titles={name: f"{titles.get(name, name)}: {accuracies[name]}" for name in shown},
    )
