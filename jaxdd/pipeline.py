"""The whole way from a data set to a scored synthetic set, in a run folder.

Here options become keyword arguments; the rooms below never see them. `run` makes one set,
`compare` makes the table that shows what the weights are worth. Both can be killed at any time and
resumed to the same bits: what happens in step i depends on the seed and i alone, the weights are
kept in the folder, and the state of the distillation is saved every few seconds.
"""

import contextlib
import dataclasses
import datetime
import functools
import pathlib
import platform
import signal
import threading
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdd import (
    checkpoint,
    contrastive,
    datasets,
    distill,
    evaluate,
    kde,
    networks,
    parallel,
    plot,
    processes,
    reweight,
    sampling,
    store,
)
from jaxdd.options import Options

ROWS = ("random", "random-kde", "none", "kde", "oracle")

class Interrupted(Exception):
    """The user stopped the run; its state is saved."""


class Weighing(NamedTuple):
    """Weights `[n]` and log density `[n]` of the training samples, and where it was estimated.

    `encode` maps normalised images to embeddings, `bandwidth` is `[k]`; embeddings are `[n, d]`.
    """

    weights: jax.Array
    log_density: jax.Array
    bandwidth: jax.Array
    encode: Callable[[jax.Array], jax.Array]
    embeddings: jax.Array


class Job(NamedTuple):
    """What all rows of a comparison share; made by `prepare`, compiled at most once."""

    benchmark: datasets.Benchmark
    options: Options
    network: Any
    method: distill.Method
    draw: distill.Draw
    score: Callable[[jax.Array], evaluate.Scores]
    seconds: dict[str, float]
    report: Callable[..., None]
    digest: str
    mesh: jax.sharding.Mesh | None


def _silent(task: str, done: int, total: int, **fields: Any) -> None:
    """Reports nothing."""


@contextlib.contextmanager
def _timed(seconds, name):
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


@contextlib.contextmanager
def _compilation_counted(seconds):
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


def _network(options, num_classes):
    dtype = jnp.dtype(options.dtype)
    if options.network == "convnet":
        return networks.ConvNet(num_classes, options.width, options.depth, dtype=dtype)
    return networks.NETWORKS[options.network](num_classes, dtype=dtype)


def _method(options, network, strategy):
    optimizer = optax.sgd(options.learning_rate, momentum=0.5)
    if options.method == "dm":
        return distill.distribution_matching(network, optimizer, strategy=strategy)
    return distill.gradient_matching(
        network, optimizer, outer=options.outer, inner=options.inner,
        strategy=strategy if options.method == "dsa" else (),
    )


def _key(options, purpose):
    purposes = ("encoder", "init", "distill", "evaluate", "median")
    return jax.random.fold_in(jax.random.key(options.seed), purposes.index(purpose))


def prepare(
    benchmark: datasets.Benchmark,
    options: Options,
    report: Callable[..., None] = _silent,
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
        ValueError: for options out of range.
    """
    options = options.resolved()
    side = min(benchmark.train.images.shape[1:3])
    if options.network == "convnet" and side < 2**options.depth:
        raise ValueError(
            f"images must have sides of {2**options.depth} pixels or more for a ConvNet of depth "
            f"{options.depth}, found {side}; choose a smaller depth or larger images"
        )
    network = _network(options, benchmark.num_classes)
    batch = sampling.weighted_batch if options.weighting == "draw" else sampling.uniform_batch
    aligned = None if benchmark.aligned is None else jnp.asarray(benchmark.aligned)
    protocol = functools.partial(
        evaluate.evaluate, aligned=aligned, mean=jnp.asarray(benchmark.mean),
        std=jnp.asarray(benchmark.std), num_attributes=benchmark.num_attributes,
        epochs=options.epochs, strategy=benchmark.strategy,
    )
    evaluation = lambda *arrays: protocol(arrays[0], network, *arrays[1:])
    draw = functools.partial(batch, size=options.batch_size)
    if mesh is None:
        method = _method(options, network, benchmark.strategy)
    else:
        split = parallel.split_network(network, mesh)
        method = parallel.keep_whole(_method(options, split, benchmark.strategy), mesh)
        draw, evaluation = parallel.split_draw(draw, mesh), parallel.map_rows(evaluation, mesh)
    compiled = jax.jit(evaluation)
    test = _placed(jax.tree.map(jnp.asarray, tuple(benchmark.test)), mesh)
    keys = jax.random.split(_key(options, "evaluate"), options.eval_seeds)

    def score(images):
        labels = jnp.broadcast_to(jnp.arange(images.shape[0])[:, None], images.shape[:2])
        return jax.tree.map(np.asarray, compiled(keys, *_placed((images, labels), mesh), test))

    digest = datasets.digest(benchmark)
    return Job(benchmark, options, network, method, draw, score, {}, report, digest, mesh)


def _placed(tree, mesh):
    return tree if mesh is None else parallel.replicate(tree, mesh)


def _bandwidth(job, embeddings, labels):
    options, classes = job.options, job.benchmark.num_classes
    factor = {} if options.bandwidth is None else dict(factor=options.bandwidth)
    rules = {
        "mean-distance": kde.mean_distance,
        "median-distance": functools.partial(kde.median_distance, _key(options, "median")),
        "scott": kde.scott,
        "silverman": kde.silverman,
    }
    if options.bandwidth_rule == "fixed":
        return jnp.full(classes, options.bandwidth)
    if options.bandwidth_rule == "likelihood":
        scale = kde.class_bandwidth(
            functools.partial(kde.mean_distance, factor=1.0), embeddings, labels,
            num_classes=classes,
        )
        candidates = jnp.geomspace(0.01, 1, 13)[:, None] ** 0.5 * scale
        return kde.likelihood(embeddings, labels, candidates, num_classes=classes)
    rule = functools.partial(rules[options.bandwidth_rule], **factor)
    return kde.class_bandwidth(rule, embeddings, labels, num_classes=classes)


def weigh(job: Job) -> Weighing:
    """Embeds the training set, estimates its density per class and turns it into weights.

    Bias labels are not looked at.
    """
    options, classes = job.options, job.benchmark.num_classes
    pool = datasets.pool(job.benchmark)
    labels = jnp.asarray(job.benchmark.train.labels)
    body = networks.ConvNet(classes, options.encoder_width, options.depth, norm=None)
    encoder = contrastive.Encoder(body)
    # The colour operation would teach the encoder to ignore the cue that it is here to find.
    strategy = tuple(name for name in job.benchmark.strategy if name != "color")
    trainer = contrastive.trainer(encoder, optax.adam(1e-3), strategy=strategy)
    job.report("embedding", 0, 1)
    with _timed(job.seconds, "embed"):
        train = functools.partial(
            contrastive.train, trainer=trainer, steps=options.encoder_steps, batch_size=256
        )
        state, _ = jax.jit(train)(_key(options, "encoder"), pool=pool)
        state = processes.agreed(state)
        embed = jax.jit(functools.partial(contrastive.embed, encoder))
        embeddings = getattr(embed(state.params, pool), options.embedding)
        jax.block_until_ready(embeddings)
    with _timed(job.seconds, "density"):
        bandwidth = _bandwidth(job, embeddings, labels)
        density = jax.jit(functools.partial(kde.class_log_density, num_classes=classes))
        log_density = density(embeddings, labels, bandwidth)
        weights = reweight.inverse_density(
            log_density, labels, num_classes=classes, temperature=options.temperature
        )
        if options.clip is not None:
            weights = reweight.clip(weights, labels, num_classes=classes, limit=options.clip)
        weights = processes.agreed(weights)
        jax.block_until_ready(weights)
    job.report("embedding", 1, 1)
    encode = lambda images: getattr(encoder.apply(state.params, images), options.embedding)
    return Weighing(weights, log_density, bandwidth, encode, embeddings)


def oracle(job: Job) -> jax.Array:
    """Weights that give every bias group of a class the same mass; needs attributes.

    Raises:
        ValueError: when the training set has none.
    """
    train = job.benchmark.train
    if train.attributes is None:
        raise ValueError(f"the oracle needs bias attributes, {job.benchmark.name} has none")
    return reweight.oracle(
        jnp.asarray(train.labels), jnp.asarray(train.attributes),
        num_classes=job.benchmark.num_classes, num_attributes=job.benchmark.num_attributes,
    )


def _density_weights(job, folder):
    """The KDE weights `[n]`, read from the folder if an earlier run got that far."""
    path = folder / "weights.npz"
    if path.exists() and job.options.weighting != "batch":
        return _stored_weights(path, len(job.benchmark.train.labels)), None
    weighing = weigh(job)
    arrays = dict(zip(("weights", "log_density", "bandwidth"), map(np.asarray, weighing[:3])))
    train = job.benchmark.train
    plot.embedding_map(
        folder / "embedding.png", np.asarray(weighing.embeddings), train.labels, train.attributes
    )
    plot.weights_by_group(
        folder / "weights.png", arrays["weights"], train.labels, train.attributes,
        job.benchmark.aligned,
    )
    store.write_arrays(path, arrays)  # last, since its presence says that this stage is done
    return weighing.weights, weighing


def _stored_weights(path, n):
    weights = store.read_arrays(path).get("weights")
    if weights is None or weights.shape != (n,) or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(f"{path} does not hold the weights of {n} samples; delete it and resume")
    return jnp.asarray(weights)


def _draw(job, debias, weighing):
    if job.options.weighting != "batch" or debias != "kde":
        return job.draw
    return distill.density_weighted(
        job.draw, weighing.encode, bandwidth=weighing.bandwidth,
        temperature=job.options.temperature,
    )


def _initial(job, pool):
    options = job.options
    if options.init == "noise":
        return distill.initial_noise(_key(options, "init"), pool, ipc=options.ipc)
    return subset(job, pool, weighted=options.init == "weighted")


def subset(job: Job, pool: sampling.Pool, *, weighted: bool) -> jax.Array:
    """The baseline: real images `[k, ipc, h, w, c]`, drawn uniformly or by the weights."""
    key = _key(job.options, "init")
    return distill.initial_real(key, pool, ipc=job.options.ipc, weighted=weighted)


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


def distill_into(
    job: Job, folder: pathlib.Path, pool: sampling.Pool, draw: distill.Draw, name: str
) -> jax.Array:
    """Distils from the newest checkpoint of `folder` on and returns the synthetic images.

    Raises:
        Interrupted: after Ctrl-C, once the state is saved.
    """
    options, steps = job.options, job.options.steps
    state = job.method.init(_initial(job, pool))
    first, state = checkpoint.restore(folder, state) or (0, state)
    store.rewind(folder, first)
    if steps == 0:
        return state.images
    state, pool = _placed((state, pool), job.mesh)
    iterator = distill.run(
        _key(options, "distill"), state, pool, method=job.method, draw=draw, steps=steps,
        first=first, chunk_length=options.chunk,
    )
    begun = saved = time.perf_counter()
    job.report(name, first, steps)
    with _timed(job.seconds, "distill"), _catch_interrupt() as stopped:
        for step, state, info in iterator:
            loss, now = float(info["loss"].mean()), time.perf_counter()
            rate = (step - first) / (now - begun)
            job.report(name, step, steps, loss=loss, rate=rate)
            store.append(folder, {"step": step, "loss": loss, "steps_per_second": rate})
            stop = processes.agreed(np.int32(stopped.is_set()))
            if now - saved > options.save_every or step == steps or stop:
                checkpoint.save(folder, step, jax.device_get(state))
                saved = now
            if stop:
                raise Interrupted(f"stopped at step {step} of {steps}; the state is saved")
    return jax.device_get(state.images)


def _summary(scores):
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
        reweight.diagnose, num_classes=benchmark.num_classes,
        num_attributes=benchmark.num_attributes,
    )
    attributes, aligned = jnp.asarray(train.attributes), jnp.asarray(benchmark.aligned)
    found = jax.jit(diagnose)(weights, labels, attributes, aligned)
    return {name: float(value) for name, value in found._asdict().items()}


def circumstances() -> dict[str, Any]:
    """Device, versions and date, without which no number can be judged."""
    versions = {"python": platform.python_version()}
    for name in ("jaxdd", "jax", "jaxlib", "flax", "optax", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "device": str(jax.devices()[0].device_kind),
        "versions": versions,
        "date": datetime.date.today().isoformat(),
    }


def _finish(job, folder, images, scores, weights, random):
    """Writes the synthetic set, its picture and result.json of a row, and returns the result."""
    options, benchmark = job.options, job.benchmark
    result = {
        **_summary(scores),
        "random": random,
        "weights": _diagnosis(job, weights),
        "seconds": dict(job.seconds),
        **circumstances(),
        "seed": options.seed,
        "config": store.read_json(folder / "config.json"),
    }
    labels = np.broadcast_to(np.arange(images.shape[0])[:, None], images.shape[:2])
    provenance = {name: result[name] for name in ("config", "device", "versions")}
    provenance["class_names"] = benchmark.class_names
    store.write_synthetic(
        folder / "synthetic.npz",
        store.Synthetic(
            np.asarray(images, np.float32), labels.astype(np.int32),
            np.asarray(benchmark.mean, np.float32), np.asarray(benchmark.std, np.float32),
            provenance,
        ),
    )
    title = f"{benchmark.name}: {100 * result['accuracy']['mean']:.1f} % on the test set"
    plot.synthetic_grid(
        folder / "synthetic.png", np.asarray(images), mean=benchmark.mean, std=benchmark.std,
        title=title,
    )
    store.write_json(folder / "result.json", result)
    return store.read_json(folder / "result.json")


def _stored_result(path):
    result = store.read_json(path)
    if not isinstance(result, dict) or not {"accuracy", "random", "weights"} <= result.keys():
        raise ValueError(f"{path} does not hold a result; delete it and resume")
    return result


def _config(job, command, **more):
    return {
        "command": command, "dataset": job.benchmark.name, "data": job.digest, **more,
        **dataclasses.asdict(job.options),
    }


def run(
    job: Job, folder: pathlib.Path, *, debias: Literal["none", "kde", "oracle"], resume: bool
) -> dict[str, Any]:
    """Distils one set into `folder`: weights, synthetic set, pictures, result.json.

    Args:
        job: from `prepare`.
        folder: the run folder.
        debias: where the weights come from; oracle uses the bias labels.
        resume: continue what the folder holds.

    Returns:
        The content of result.json.
    """
    if debias == "oracle":
        oracle(job)  # fails before the folder is touched
    folder = store.create(folder, _config(job, "run", debias=debias), resume=resume)
    if (folder / "result.json").exists():
        return _stored_result(folder / "result.json")
    with _compilation_counted(job.seconds):
        uniform, weights, weighing = datasets.pool(job.benchmark), None, None
        if debias == "kde":
            weights, weighing = _density_weights(job, folder)
        elif debias == "oracle":
            weights = oracle(job)
        pool = datasets.pool(job.benchmark, weights)
        images = distill_into(job, folder, pool, _draw(job, debias, weighing), debias)
        random = _summary(_scored(job, subset(job, uniform, weighted=False), "random"))
        scores = _scored(job, images, debias)
    result = _finish(job, folder, images, scores, pool.weights, random)
    _bars(folder, {"random": random, debias: result})
    return result


def _scored(job, images, name):
    job.report(f"evaluate {name}", 0, 1)
    with _timed(job.seconds, "evaluate"):
        scores = job.score(images)
    job.report(f"evaluate {name}", 1, 1)
    return scores


def compare(job: Job, folder: pathlib.Path, *, resume: bool) -> dict[str, Any]:
    """Makes every row of `ROWS` under one protocol: compare.json, figures, one run folder a row.

    random and random-kde are real images, drawn uniformly and by the KDE weights; none, kde and
    oracle are distilled with these weights. Without bias labels there is no oracle row.

    Args:
        job: from `prepare`.
        folder: the comparison's folder.
        resume: continue what the folder holds; finished rows are read back.

    Returns:
        The content of compare.json.
    """
    folder = store.create(folder, _config(job, "compare"), resume=resume)
    with _compilation_counted(job.seconds):
        kde_weights, weighing = _density_weights(job, folder)
    pools = {"uniform": datasets.pool(job.benchmark), "kde": datasets.pool(job.benchmark, kde_weights)}
    if job.benchmark.train.attributes is not None:
        pools["oracle"] = datasets.pool(job.benchmark, oracle(job))
    rows, images = {}, {}
    for name in ROWS:
        source = {"random": "uniform", "random-kde": "kde", "none": "uniform"}.get(name, name)
        if source not in pools:
            continue
        draw = _draw(job, name, weighing)
        rows[name], images[name] = _row(job, folder / "rows" / name, name, pools[source], draw, rows)
        store.write_json(folder / "compare.json", {"rows": rows})
    _compare_figures(job, folder, rows, images)
    return store.read_json(folder / "compare.json")


def _row(job, folder, name, pool, draw, rows):
    """The result and the images of one row, read back if an earlier run finished it."""
    if (folder / "result.json").exists():
        stored = store.read_synthetic(folder / "synthetic.npz")
        return _stored_result(folder / "result.json"), stored.images
    store.create(folder, _config(job, "compare", row=name), resume=True)
    job = job._replace(seconds=dict(job.seconds))
    with _compilation_counted(job.seconds):
        if name.startswith("random"):
            images = subset(job, pool, weighted=name == "random-kde")
        else:
            images = distill_into(job, folder, pool, draw, name)
        scores = _scored(job, images, name)
    random = _summary(scores) if name == "random" else rows["random"]["random"]
    return _finish(job, folder, images, scores, pool.weights, random), np.asarray(images)


def _bars(folder, rows):
    shown = ("accuracy", "aligned", "conflicting", "worst_group")
    bars = {name: {score: row[score] for score in shown} for name, row in rows.items()}
    plot.accuracy_bars(folder / "accuracy.png", bars)


def _compare_figures(job, folder, rows, images):
    _bars(folder, rows)
    titles = {"none": "plain distillation", "kde": "density weights", "oracle": "oracle weights"}
    shown = {name: images[name] for name in ("none", "kde") if name in images}
    plot.comparison(
        folder / "synthetic.png", shown, mean=job.benchmark.mean, std=job.benchmark.std,
        titles={
            name: f"{titles[name]}: {100 * rows[name]['accuracy']['mean']:.0f} %" for name in shown
        },
    )
