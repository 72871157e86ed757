"""Stages of a run: sample weights, whitening, synthetic set, scores and figures.

A stage names the files that it produces. `ensure` computes them unless the manifest of the folder
lists all of them and their checksums match. Resuming a run, redrawing a figure and repairing a
damaged file therefore all work by running the same stages again: what is intact is read back,
anything else is computed again to the same bits.
"""

import dataclasses
import datetime
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdd import evaluate, methods, sampling
from jaxdd.data import datasets, files
from jaxdd.methods import zca
from jaxdd.runs import components, experts, processes, results, timing, weightings
from jaxdd.runs import methods as run_methods
from jaxdd.runs.context import Context, Interrupted
from jaxdd.runs.folder import checkpoint, manifest, store
from jaxdd.runs.reports import figure_data, plot


def ensure(
    folder: pathlib.Path,
    compute: Callable[[], None],
    *,
    products: tuple[str, ...] = (),
    figures: tuple[str, ...] = (),
) -> None:
    """Run a stage unless all of its products are intact, and record them in the manifest.

    Args:
        folder: of the run, with the manifest.
        compute: computes the products and writes each of them atomically.
        products: files that belong to the set.
        figures: files that do not, such as pictures.
    """
    if not all(manifest.is_intact(folder, name) for name in (*products, *figures)):
        compute()
        manifest.record(folder, products)
        manifest.record(folder, figures, section="figures")


# --- sample weights ----------------------------------------------------------------------------


class Source(NamedTuple):
    """What a set is distilled from, and how.

    Attributes:
        weights: `[n]` of the training samples.
        pool: that batches are sampled from.
        sampler: of batches.
        method: of distillation.
        choice: record of the choice of weights, or None.
        whitening: of the images of the pool, or None.
    """

    weights: jax.Array
    pool: Any
    sampler: Any
    method: methods.Method
    choice: dict[str, Any] | None = None
    whitening: zca.Whitening | None = None


def weigh(
    context: Context,
    name: str,
    folder: pathlib.Path,
    seconds: dict[str, float],
    *,
    prefix: str = "",
) -> Source:
    """Return what to distill from with a weighting; its weights are a product of the folder.

    Args:
        context: of the run.
        name: key of `weightings.WEIGHTINGS`.
        folder: with the manifest.
        seconds: wall time by stage, which is added to.
        prefix: of the file names, such as "weights/auto/" in the folder of a comparison.
    """
    parts, weighting = context.components, weightings.WEIGHTINGS[name]
    compute_weights = weighting.compute
    if compute_weights is None:
        return Source(context.pool.weights, context.pool, parts.sampler, parts.method)
    weights_file, choice_file = f"{prefix}weights.npz", f"{prefix}choice.json"
    products = (weights_file, *[choice_file] * (name == "auto"))
    computed: list[weightings.SampleWeights] = []

    def compute():
        (folder / prefix).mkdir(parents=True, exist_ok=True)
        computed.append(compute_weights(context, seconds))
        _write_weights(context, folder / prefix, computed[0])
        store.write_timing(folder / prefix, seconds)

    ensure(folder, compute, products=products, figures=(f"{prefix}{figure_data.FILE}",))
    _draw_weights(context, folder, prefix)
    values = store.read_weights(folder / weights_file, count=len(context.data.train.labels))
    choice = files.read_json(folder / choice_file) if name == "auto" else None
    pool = sampling.reweight(context.pool, values)
    sampler, method = parts.sampler, parts.method
    if context.options.weighting == "batch" and weighting.batch_sampler is not None:
        # The encoder is not kept: it is trained again to the same bits.
        result = computed[0] if computed else compute_weights(context, seconds)
        sampler = weighting.batch_sampler(context, result)
    if not weighting.grouped:
        return Source(pool.weights, pool, sampler, method, choice)
    groups = context.data.num_attributes
    method = run_methods.build(
        context.options, parts.network, parts.strategy, groups=groups, mesh=context.mesh,
        threads=context.threads,
    )  # fmt: skip
    sampler = components.group_sampler(context.options.batch_size, groups)
    group_pool = datasets.group_pool(context.data, index=context.index)
    return Source(pool.weights, group_pool, sampler, method)


def _write_weights(context, folder, result):
    """Write weights, what they follow from, and what figures of them are drawn from."""
    values, plane = np.asarray(result.weights), None
    arrays = {"weights": values}
    if result.density is not None:
        arrays["log_density"] = np.asarray(result.density.log_density)
        arrays["bandwidth"] = np.asarray(result.density.bandwidth)
        plane = plot.plane(np.asarray(result.density.embeddings))
    figure_data.write(folder / figure_data.FILE, context.data, values, plane=plane)
    if result.choice is not None:
        files.write_json(folder / "choice.json", result.choice)
    files.write_arrays(folder / "weights.npz", arrays)


def _draw_weights(context, folder, prefix):
    """Draw the weights by group and, for density weights, the embeddings."""
    data, train = context.data, context.data.train
    weights_name, embedding_name = f"{prefix}weights.png", f"{prefix}embedding.png"
    if all(manifest.is_intact(folder, name) for name in (weights_name, embedding_name)):
        return
    stored = figure_data.read(folder / prefix)
    if stored is None:
        return
    draw_weights = lambda: plot.weights_by_group(
        folder / weights_name, stored.weights, train.labels, train.attributes, data.aligned
    )
    ensure(folder, draw_weights, figures=(weights_name,))
    if (plane := stored.plane) is not None:
        draw_embedding = lambda: plot.embedding_map(
            folder / embedding_name, plane, train.labels, train.attributes,
            class_names=data.class_names, attribute_names=data.attribute_names,
        )  # fmt: skip
        ensure(folder, draw_embedding, figures=(embedding_name,))


def whiten(
    context: Context, source: Source, folder: pathlib.Path, seconds: dict[str, float]
) -> Source:
    """Return the source with whitened images, if the options ask for it."""
    zca_option = context.options.zca
    if zca_option == "none":
        return source
    path = folder / store.WHITENING

    def compute():
        context.report("whitening", 0, 1)
        with timing.timed(seconds, "whiten"):
            pool = sampling.reweight(context.pool, source.weights)
            whitening = zca.fit(pool, weighted=zca_option == "weighted")
            store.write_whitening(path, processes.broadcast(whitening))
        context.report("whitening", 1, 1)

    ensure(folder, compute, products=(store.WHITENING,))
    whitening = store.read_whitening(path)
    return source._replace(pool=zca.whiten_pool(source.pool, whitening), whitening=whitening)


# --- distillation ------------------------------------------------------------------------------


def synthesize(
    context: Context,
    source: Source,
    folder: pathlib.Path,
    seconds: dict[str, float],
    *,
    name: str,
    distilled: bool = True,
) -> store.Synthetic:
    """Return the synthetic set of a run: distilled, or real images for the baselines.

    Args:
        context: of the run.
        source: what to distill from.
        folder: of the run.
        seconds: wall time by stage, which is added to.
        name: of the row, for messages.
        distilled: whether to distill; otherwise real images are sampled by the weights.
    """
    path = folder / store.SYNTHETIC

    def compute():
        if distilled:
            images = _distill(context, source, folder, seconds, name)
        else:
            pool = sampling.reweight(context.pool, source.weights)
            weighted = source.weights is not context.pool.weights
            images = components.subset(pool, context.options, weighted=weighted)
        _write_synthetic(context, source, folder, images)

    ensure(folder, compute, products=(store.SYNTHETIC,))
    return store.read_synthetic(path)


def _write_synthetic(context, source, folder, images):
    images, data = np.asarray(images, np.float32), context.data
    labels = np.broadcast_to(np.arange(images.shape[0])[:, None], images.shape[:2])
    provenance = {
        "config": files.read_json(folder / "config.json"),
        **results.circumstances(),
        "class_names": data.class_names,
        "weights": manifest.array_digest(np.asarray(source.weights, np.float32)),
    }
    moments = np.asarray(data.mean, np.float32), np.asarray(data.std, np.float32)
    synthetic = store.Synthetic(images, labels.astype(np.int32), *moments, provenance)
    store.write_synthetic(folder / store.SYNTHETIC, synthetic)


def _distill(context, source, folder, seconds, name):
    """Distill from the newest checkpoint on and return images as pixels are stored."""
    options, steps = context.options, context.options.steps
    pool = sampling.reweight(context.pool, source.weights)
    state = source.method.init(components.initial(pool, options, whitening=source.whitening))
    first, state = checkpoint.restore(folder, state) or (0, state)
    store.rewind(folder, first)
    images = state.images
    if first < steps:
        if context.follows is not None:
            source = experts.FOLLOW[context.follows](context, source, folder, seconds, name)
        state, pool = components.replicated((state, source.pool), context.mesh)
        chunks = methods.run(
            components.key(options, "distill"), state, pool, method=source.method,
            sampler=source.sampler, steps=steps, first=first, chunk_length=options.chunk,
        )  # fmt: skip
        context.report(name, first, steps)
        images = _follow(context, chunks, folder, seconds, name, first, source.whitening)
    return jax.device_get(zca.unwhiten(images, source.whitening))


def _follow(context, chunks, folder, seconds, name, first, whitening):
    """Run a distillation chunk by chunk: log, save, and stop after Ctrl-C."""
    options, steps = context.options, context.options.steps
    spent, start = seconds.get("distill", 0.0), time.perf_counter()
    saved, images, previous = start, None, first

    def save(step, state):
        checkpoint.save(folder, step, jax.device_get(state))
        store.write_timing(folder, seconds)

    with context.interruption.deferred(name):
        for step, state, info in chunks:
            means = {key: float(x.mean()) for key, x in info.items()}
            now = time.perf_counter()
            speed = (step - first) / (now - start)
            context.report(name, step, steps, loss=means["loss"], speed=speed)
            store.check_exists(folder)
            seconds["distill"] = spent + now - start
            scores = _score_at(context, previous, step, state, seconds, name, whitening)
            start, previous = start + time.perf_counter() - now, step  # without the evaluation
            record = {"step": step, **means, **scores, "steps_per_second": speed}
            store.append(folder, record)
            is_due = step == steps or now - saved > options.save_every
            if is_due:
                save(step, state)
                saved = now
            if processes.broadcast(np.int32(context.interruption.requested.is_set())):
                if not is_due:
                    save(step, state)
                raise Interrupted(f"stopped at step {step} of {steps}; the state is saved")
            images = state.images
    return jax.device_get(images)


def _score_at(context, previous, step, state, seconds, name, whitening):
    """Return mean accuracies of the set at this step, if the options ask for them now."""
    every = context.options.score_every
    if every is None or previous // every == step // every or step >= context.options.steps:
        return {}
    images = zca.unwhiten(state.images, whitening)
    scores = score(context, images, seconds, f"{name} at step {step}", whitening)
    return {key: getattr(scores, key).mean for key in ("accuracy", "conflicting")}


# --- scores ------------------------------------------------------------------------------------


def score(
    context: Context,
    images: ArrayLike,
    seconds: dict[str, float],
    name: str,
    whitening: zca.Whitening | None = None,
    *,
    stored: bool = True,
) -> results.Scores:
    """Train networks on images `[k, m, h, w, c]` and return their scores on the test set.

    Args:
        context: of the run.
        images: normalised pixels.
        seconds: wall time by stage, which is added to.
        name: for messages.
        whitening: through which networks see images.
        stored: whether the images are in the form in which a set is stored, see `formation`.
    """
    if stored:
        images = run_methods.decode(context.options.formation)(jnp.asarray(images))
    context.report(f"evaluate {name}", 0, 1)
    with timing.timed(seconds, "evaluate"):
        seen = zca.whiten(jnp.asarray(images), whitening)
        scores = context.components.score(seen, whitening)
    context.report(f"evaluate {name}", 1, 1)
    if context.interruption.requested.is_set():
        raise Interrupted("stopped; finished rows are kept")
    return summarize(context.data, scores)


def summarize(data: datasets.Benchmark, scores: evaluate.Scores) -> results.Scores:
    """Return mean and deviation of scores over networks, in total, by class and by group."""
    summary = {name: results.Score(**x) for name, x in evaluate.summary(scores).items()}
    breakdown: dict[str, Any] = figure_data.breakdown(data, scores)
    summary = results.Scores(**summary, **breakdown)
    return dataclasses.replace(summary, learned=results.has_learned(summary))


def evaluate_run(
    context: Context,
    source: Source,
    synthetic: store.Synthetic,
    folder: pathlib.Path,
    seconds: dict[str, float],
    *,
    name: str,
    stored: bool = True,
    baseline: Callable[[], results.Scores] | None = None,
) -> results.Result:
    """Return the result of a run: scores of the set and of a random subset of the same size.

    Args:
        context: of the run.
        source: what the set was distilled from.
        synthetic: the set.
        folder: of the run.
        seconds: wall time by stage, which is added to.
        name: of the row, for messages.
        stored: as in `score`.
        baseline: returns the scores of the random subset; evaluated here by default.
    """

    def compute():
        random = None if baseline is None else baseline()
        if random is None:
            subset = components.subset(context.pool, context.options, weighted=False)
            args = context, subset, seconds, "random", source.whitening
            random = score(*args, stored=False)
        args = context, synthetic.images, seconds, name, source.whitening
        scores = random if name == "random" else score(*args, stored=stored)
        result = results.Result(
            **vars(scores), random=random, weights=weightings.diagnose(context, source.weights),
            choice=source.choice, config=synthetic.provenance["config"], seed=context.options.seed,
            **results.circumstances(),
        )  # fmt: skip
        files.write_json(folder / store.RESULT, result.timeless())
        store.write_timing(folder, seconds, date=datetime.date.today().isoformat())

    ensure(folder, compute, products=(store.RESULT,))
    return store.read_result(folder)


# --- figures -----------------------------------------------------------------------------------


def draw(
    context: Context, folder: pathlib.Path, synthetic: store.Synthetic, result: results.Result
) -> None:
    """Draw the synthetic set and the accuracies of a run."""
    data = context.data
    title = f"{data.name}: {100 * result.accuracy.mean:.1f} % on the test set"

    def draw_set():
        plot.synthetic_grid(
            folder / "synthetic.png", synthetic.images, mean=data.mean, std=data.std, title=title,
            class_names=data.class_names,
        )  # fmt: skip

    ensure(folder, draw_set, figures=("synthetic.png",))
    name = result.config.get("debias")
    if name is not None and result.random is not None:
        draw_bars(folder, {"random": result.random, name: result})


def draw_bars(folder: pathlib.Path, rows: Mapping[str, results.Scores]) -> None:
    """Draw the accuracies of rows."""
    compute = lambda: plot.accuracy_bars(folder / "accuracy.png", rows)
    ensure(folder, compute, figures=("accuracy.png",))


def draw_comparison(
    context: Context,
    folder: pathlib.Path,
    rows: Mapping[str, results.Result],
    sets: Mapping[str, store.Synthetic],
) -> None:
    """Draw the sets of a comparison side by side: plain and density, or all if these are absent."""
    chosen = [name for name in ("plain", "density") if name in sets] or list(sets)
    accuracies = {name: f"{100 * rows[name].accuracy.mean:.0f} %" for name in chosen}
    titles = {name: f"{weightings.title(name)}: {accuracies[name]}" for name in chosen}

    def compute():
        plot.comparison(
            folder / "synthetic.png", {name: sets[name].images for name in chosen},
            mean=context.data.mean, std=context.data.std, titles=titles,
            class_names=context.data.class_names,
        )  # fmt: skip

    ensure(folder, compute, figures=("synthetic.png",))
