"""Stages of a run: sample weights, whitening, synthetic set, scores and figures.

A stage names the files that it produces. `ensure` computes them unless the manifest of the folder
lists all of them and their checksums match. Resuming a run, redrawing a figure and repairing a
damaged file therefore all work by running the same stages again: intact products are read back, all
others are computed again, bit for bit the same.
"""

import dataclasses
import datetime
import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdd import evaluate, methods, sampling
from jaxdd.data import datasets, files
from jaxdd.devices import parallel
from jaxdd.methods import zca
from jaxdd.runs import components, pretrained, processes, results, weightings
from jaxdd.runs import methods as run_methods
from jaxdd.runs.context import Context, Interrupted, Run, Source
from jaxdd.runs.folder import checkpoint, manifest, store, weights_file
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
        folder: run folder, with the manifest.
        compute: computes the products and writes each of them atomically.
        products: files that belong to the set.
        figures: files that do not, such as pictures; those that `compute` did not write are absent.
    """
    if not all(manifest.is_intact(folder, name) for name in (*products, *figures)):
        compute()
        manifest.record(folder, products)
        drawn = [name for name in figures if (folder / name).is_file()]
        manifest.record(folder, drawn, section="figures")


# --- sample weights ----------------------------------------------------------------------------


def weigh(run: Run, kind: str, *, prefix: str = "") -> Source:
    """Return the source of a weighting, whose weights are a product of the folder.

    `prefix` precedes the names of files, such as "weights/auto/" in the folder of a comparison.
    """
    context, parts = run.context, run.context.components
    weighting = weightings.WEIGHTINGS[kind]
    compute_weights = weighting.compute
    if compute_weights is None:
        return Source(context.pool.weights, context.pool, parts.sampler, parts.method)
    weights_name, choice_file = f"{prefix}weights.npz", f"{prefix}choice.json"
    products = (weights_name, *[choice_file] * weighting.keeps_choice)
    computed: list[weightings.SampleWeights] = []

    def compute():
        (run.folder / prefix).mkdir(parents=True, exist_ok=True)
        computed.append(compute_weights(run))
        _write_weights(context, run.folder / prefix, computed[0])
        store.write_timing(run.folder / prefix, run.seconds)

    ensure(run.folder, compute, products=products, figures=(f"{prefix}{figure_data.FILE}",))
    _draw_weights(run, prefix)
    values = weights_file.read(run.folder / weights_name, count=len(context.data.train.labels))
    pool = sampling.reweight(context.pool, values)
    source = Source(pool.weights, pool, parts.sampler, parts.method)
    if weighting.keeps_choice:
        source = source._replace(choice=files.read_json(run.folder / choice_file))
    if weighting.group_loss is not None:
        return source._replace(**_by_group(context, weighting.group_loss))
    if context.options.weighting == "batch" and weighting.batch_sampler is not None:
        # The encoder is not stored. Training it again gives the same parameters bit for bit.
        result = computed[0] if computed else compute_weights(run)
        source = source._replace(sampler=weighting.batch_sampler(context, result))
    return source


def _by_group(context, group_loss):
    """Return pool, sampler and method for batches that are drawn by bias group."""
    options, parts, groups = context.options, context.components, context.data.num_attributes
    method = run_methods.build(
        options, parts.network, parts.strategy, groups=groups, group_loss=group_loss,
        mesh=context.mesh, threads=context.threads,
    )  # fmt: skip
    return {
        "pool": datasets.group_pool(context.data, index=context.index),
        "sampler": _group_sampler(options.batch_size, groups),
        "method": method,
    }


@functools.cache
def _group_sampler(batch_size, groups):
    """Return the sampler for methods with a loss per bias group, `batch_size` images per class."""
    size = -(-batch_size // groups)
    return sampling.grouped(functools.partial(sampling.uniform_batch, size=size), groups=groups)


def _write_weights(context, folder, result):
    """Write the weights, the densities or the choice behind them, and the data of their figures."""
    values, density = np.asarray(result.weights), result.density
    arrays = {"weights": values, "samples": np.array(weights_file.sample_digest(context.data))}
    if density is not None:
        arrays["log_density"] = np.asarray(density.log_density)
        arrays["bandwidth"] = np.asarray(density.bandwidth)

    def write_figure_data():
        plane = None if density is None else plot.plane(np.asarray(density.embeddings))
        figure_data.write(folder / figure_data.FILE, context.data, values, plane=plane)

    plot.attempt(figure_data.FILE, write_figure_data)
    if result.choice is not None:
        files.write_json(folder / "choice.json", result.choice)
    files.write_arrays(folder / "weights.npz", arrays)


def _draw_weights(run, prefix):
    """Draw the weights by group and, for density weights, the embeddings."""
    folder, data, train = run.folder / prefix, run.context.data, run.context.data.train
    has_density = bool(files.read_arrays(folder / "weights.npz", names=["bandwidth"]))
    names = ["weights.png", *["embedding.png"] * has_density]
    if all(manifest.is_intact(run.folder, prefix + name) for name in names):
        return
    if (stored := figure_data.read(folder)) is None:
        return
    _draw(
        run.folder, f"{prefix}weights.png", plot.weights_by_group, stored.weights, train.labels,
        train.attributes, data.aligned,
    )  # fmt: skip
    if stored.plane is not None:
        _draw(
            run.folder, f"{prefix}embedding.png", plot.embedding_map, stored.plane, train.labels,
            train.attributes, class_names=data.class_names, attribute_names=data.attribute_names,
        )  # fmt: skip


def whiten(run: Run, source: Source) -> Source:
    """Return the source, with whitened images if the options set whitening."""
    context, path = run.context, run.folder / store.WHITENING
    if context.options.zca == "none":
        return source

    def compute():
        context.report("whitening", 0, 1)
        with run.timed("whiten"):
            pool = sampling.reweight(context.pool, source.weights)
            whitening = zca.fit(pool, weighted=context.options.zca == "weighted")
            store.write_whitening(path, processes.broadcast(whitening))
        context.report("whitening", 1, 1)

    ensure(run.folder, compute, products=(store.WHITENING,))
    whitening = store.read_whitening(path)
    return source._replace(pool=zca.whiten_pool(source.pool, whitening), whitening=whitening)


# --- distillation ------------------------------------------------------------------------------


def synthesize(run: Run, source: Source, *, distilled: bool = True) -> store.Synthetic:
    """Return the synthetic set of a run, distilled or of real images sampled by the weights."""
    context, path = run.context, run.folder / store.SYNTHETIC

    def compute():
        if distilled:
            images = _distill(run, source)
        else:
            pool = sampling.reweight(context.pool, source.weights)
            weighted = source.weights is not context.pool.weights
            images = components.subset(pool, context.options, weighted=weighted)
        store.write_synthetic(path, _synthetic(run, source, np.asarray(images, np.float32)))

    ensure(run.folder, compute, products=(store.SYNTHETIC,))
    return store.read_synthetic(path)


def _synthetic(run, source, images):
    data = run.context.data
    labels = np.broadcast_to(np.arange(images.shape[0])[:, None], images.shape[:2])
    provenance = {
        "config": files.read_json(run.folder / "config.json"),
        **results.circumstances(),
        "class_names": data.class_names,
        "weights": manifest.array_digest(np.asarray(source.weights, np.float32)),
    }
    moments = np.asarray(data.mean, np.float32), np.asarray(data.std, np.float32)
    return store.Synthetic(images, labels.astype(np.int32), *moments, provenance)


def _distill(run, source):
    """Distill, starting from the newest checkpoint, and return unwhitened images."""
    context, options, steps = run.context, run.context.options, run.context.options.steps
    first, state = restore(run, source)
    images = state.images
    if first < steps:
        source = pretrained.follow(run, source)
        state, pool = parallel.replicate((state, source.pool), context.mesh)
        chunks = methods.run(
            components.key(options, "distill"), state, pool, method=source.method,
            sampler=source.sampler, steps=steps, first=first, chunk_length=options.chunk,
        )  # fmt: skip
        recorder = Recorder(run, first, state, whitening=source.whitening)
        with context.interruption.deferred(run.name):
            for chunk in chunks:
                recorder.record(*chunk)
                stop_if_requested(context, [recorder])
        images = recorder.state.images
    moments = context.data.mean, context.data.std
    return jax.device_get(zca.unwhiten(images, source.whitening, *moments))


def restore(run: Run, source: Source) -> tuple[int, Any]:
    """Return the step and the state from which a distillation starts or continues."""
    pool = sampling.reweight(run.context.pool, source.weights)
    images = components.initial(pool, run.context.options, whitening=source.whitening)
    state = source.method.init(images)
    # Keys are folded with the step number, so the steps after a checkpoint repeat bit for bit.
    first, state = checkpoint.restore(run.folder, state) or (0, state)
    store.rewind(run.folder, first)
    return first, state


class Recorder:
    """Log, score and save a distillation chunk by chunk.

    Args:
        run: the run, whose seconds it adds to.
        first: number of steps that are done.
        state: the state after these steps.
        whitening: whitening of the images of the state, or None.
        rows: number of rows that are distilled together, among which their time is divided.
    """

    def __init__(
        self,
        run: Run,
        first: int,
        state: Any,
        *,
        whitening: zca.Whitening | None = None,
        rows: int = 1,
    ) -> None:
        self.run, self.step, self.state = run, first, state
        self._first, self._whitening, self._rows, self._saved_step = first, whitening, rows, first
        self._spent = run.seconds.get("distill", 0.0)
        self._start = self._saved = time.perf_counter()
        run.context.report(run.name, first, run.context.options.steps)

    def record(self, step: int, state: Any, info: Mapping[str, Any]) -> None:
        """Log a chunk, score its state if that is scheduled, and save it if that is due."""
        run, options = self.run, self.run.context.options
        means = {key: float(x.mean()) for key, x in info.items()}
        now = time.perf_counter()
        speed = (step - self._first) / (now - self._start)
        run.seconds["distill"] = self._spent + (now - self._start) / self._rows
        scores = _score_at(run, self.step, step, state, self._whitening)
        fields = dict(loss=means["loss"], speed=speed, **scores)
        run.context.report(run.name, step, options.steps, **fields)
        store.check_exists(run.folder)  # writing a file would create the folder again
        # The time of evaluations is added to the start, so that it does not count as distillation.
        self._start += time.perf_counter() - now
        self.step, self.state = step, state
        store.append(run.folder, {"step": step, **means, **scores, "steps_per_second": speed})
        if step == options.steps or now - self._saved > options.save_every:
            self.save()
            self._saved = now

    def save(self) -> None:
        """Save the state, unless it is saved already."""
        if self._saved_step != self.step:
            checkpoint.save(self.run.folder, self.step, jax.device_get(self.state))
            store.write_timing(self.run.folder, self.run.seconds)
            self._saved_step = self.step


def stop_if_requested(context: Context, recorders: Sequence[Recorder]) -> None:
    """Save states and raise Interrupted after Ctrl-C."""
    # All processes of a run must stop at the same step: the first one decides.
    if processes.broadcast(np.int32(context.interruption.requested.is_set())):
        for recorder in recorders:
            recorder.save()
        step = max(recorder.step for recorder in recorders)
        raise Interrupted(f"stopped at step {step} of {context.options.steps}; the state is saved")


def _score_at(run, previous, step, state, whitening):
    """Return mean accuracies of the set at this step, if the options schedule them."""
    every = run.context.options.score_every
    if every is None or previous // every == step // every or step >= run.context.options.steps:
        return {}
    data = run.context.data
    images = zca.unwhiten(state.images, whitening, data.mean, data.std)
    with run.timed("evaluate"):
        scores = _score(run, images, whitening, name=f"{run.name} at step {step}")
    return {key: getattr(scores, key).mean for key in ("accuracy", "conflicting")}


# --- scores ------------------------------------------------------------------------------------


def _score(run: Run, images: ArrayLike, whitening, *, name: str, stored=True) -> results.Scores:
    """Train networks on normalised images `[k, m, h, w, c]` and return scores on the test set.

    With `stored`, each image may hold several smaller ones, as in files, see `formation`.
    """
    context = run.context
    if stored:
        images = run_methods.decode(context.options.formation)(jnp.asarray(images))
    context.report(f"evaluate {name}", 0, 1)
    moments = context.data.mean, context.data.std
    seen = zca.whiten(jnp.asarray(images), whitening, *moments)
    scores = context.components.score(seen, whitening)
    context.report(f"evaluate {name}", 1, 1)
    if context.interruption.requested.is_set():
        raise Interrupted("stopped; finished rows are kept")
    summary = {name: results.Score(**x) for name, x in evaluate.summary(scores).items()}
    breakdown: dict[str, Any] = figure_data.breakdown(context.data, scores)
    summary = results.Scores(**summary, **breakdown)
    return dataclasses.replace(summary, learned=results.has_learned(summary))


def evaluate_run(
    run: Run,
    source: Source,
    synthetic: store.Synthetic,
    *,
    stored: bool = True,
    baseline: Callable[[], results.Scores] | None = None,
) -> results.Result:
    """Return the result of a run: scores of the set and of a random subset of the same size.

    With `stored`, each image of the set may hold several smaller ones, see `formation`. `baseline`
    returns the scores of the random subset, which is evaluated here by default.
    """
    context, whitening = run.context, source.whitening

    def compute():
        sets, score = {}, functools.partial(_score, run, whitening=whitening)
        if baseline is None:
            subset = components.subset(context.pool, context.options, weighted=False)
            sets["random"] = functools.partial(score, subset, name="random", stored=False)
        if run.name != "random":
            sets[run.name] = functools.partial(
                score, synthetic.images, name=run.name, stored=stored
            )
        with run.timed("evaluate"):
            called = parallel.call_all([*sets.values()], mesh=context.mesh)
        scored = dict(zip(sets, called, strict=True))
        random = scored["random"] if baseline is None else baseline()
        scores = scored.get(run.name, random)
        result = results.Result(
            **vars(scores), random=random, weights=weightings.diagnose(context, source.weights),
            choice=source.choice, config=synthetic.provenance["config"], seed=context.options.seed,
            **results.circumstances(),
        )  # fmt: skip
        # Without date and times, equal runs write the same bytes and get the same root.
        files.write_json(run.folder / store.RESULT, result.timeless())
        store.write_timing(run.folder, run.seconds, date=datetime.date.today().isoformat())

    ensure(run.folder, compute, products=(store.RESULT,))
    return store.read_result(run.folder)


# --- figures -----------------------------------------------------------------------------------


def draw(run: Run, synthetic: store.Synthetic, result: results.Result) -> None:
    """Draw the synthetic set and the accuracies of a run."""
    data = run.context.data
    title = f"{data.name}: {100 * result.accuracy.mean:.1f} % on the test set"
    _draw(
        run.folder, "synthetic.png", plot.comparison, {title: synthetic.images}, mean=data.mean,
        std=data.std, class_names=data.class_names,
    )  # fmt: skip
    name = result.config.get("debias")
    if name is not None and result.random is not None:
        rows = {"random": result.random, name: result}
        _draw(run.folder, "accuracy.png", plot.accuracy_bars, rows)


def draw_comparison(
    context: Context,
    folder: pathlib.Path,
    rows: Mapping[str, results.Result],
    sets: Mapping[str, store.Synthetic],
) -> None:
    """Draw the accuracies of a comparison, and its sets plain and density, or all without these."""
    data = context.data
    _draw(folder, "accuracy.png", plot.accuracy_bars, rows)
    shown = [name for name in ("plain", "density") if name in sets] or list(sets)
    accuracies = {name: f"{100 * rows[name].accuracy.mean:.0f} %" for name in shown}
    titles = {name: f"{weightings.title(name)}: {accuracies[name]}" for name in shown}
    _draw(
        folder, "synthetic.png", plot.comparison, {titles[x]: sets[x].images for x in shown},
        mean=data.mean, std=data.std, class_names=data.class_names,
    )  # fmt: skip


def _draw(folder, name, draw, *args, **options):
    """Draw a figure into a file unless it is intact, with a warning if it cannot be drawn."""
    if not manifest.is_intact(folder, name):
        path = folder / name
        if plot.attempt(str(path), lambda: draw(path, *args, **options)) is None:
            manifest.record(folder, (name,), section="figures")
