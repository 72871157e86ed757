"""Stages of a run: sample weights, whitening, synthetic set, scores and figures.

A stage names the files that it produces. `ensure` computes them unless the manifest of the folder
lists all of them and their checksums match. Resuming a run, redrawing a figure and repairing a
damaged file therefore all work by running the same stages again: what is intact is read back,
anything else is computed again to the same bits.
"""

import contextlib
import dataclasses
import datetime
import functools
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdd import evaluate, methods, networks, sampling
from jaxdd.data import datasets, files
from jaxdd.devices import split_pool
from jaxdd.methods import zca
from jaxdd.runs import components, experts, processes, results, timing, weightings
from jaxdd.runs import methods as run_methods
from jaxdd.runs import networks as named_networks
from jaxdd.runs.components import Components
from jaxdd.runs.folder import checkpoint, manifest, store
from jaxdd.runs.options import DM
from jaxdd.runs.reports import figure_data, plot

SPLIT_FROM = 2**30
"""Bytes of training images from which the devices of a run split them; smaller pools are copied."""


class Interrupted(Exception):
    """The user stopped the run; its state is saved."""


class Interruption:
    """Ctrl-C during a distillation: the first one stops it after the current chunk of steps.

    A second Ctrl-C, or one while nothing is being distilled, raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        """Nothing is being distilled and nothing has been requested."""
        self.requested = threading.Event()
        self.active: set[str] = set()

    @contextlib.contextmanager
    def deferred(self, *names: str) -> Iterator[None]:
        """Defer Ctrl-C while the block runs; `names` are the distillations in it."""
        previous = signal.getsignal(signal.SIGINT)
        in_main_thread = threading.current_thread() is threading.main_thread()

        def stop(*_):
            self.requested.set()
            signal.signal(signal.SIGINT, previous)
            if not self.active:
                raise KeyboardInterrupt

        if in_main_thread:
            signal.signal(signal.SIGINT, stop)
        self.active.update(names)
        try:
            yield
        finally:
            self.active.difference_update(names)
            if in_main_thread:
                signal.signal(signal.SIGINT, previous)


@dataclasses.dataclass(frozen=True)
class Context:
    """What all stages of a run or a comparison share.

    Attributes:
        data: training and test set.
        options: of the run.
        components: network, method, sampler and evaluation.
        pool: all training samples, with uniform weights.
        index: from arrays to a pool, on the devices of the run.
        own_method: name of a custom method, or None.
        custom_weights: `[n]` weights of the user, or None.
        mesh: devices that share the work, or None.
        threads: CPU threads of each row, or None for all.
        report: `report(task, done, total, **fields)`; rows call it one at a time.
        spent: wall time of earlier stages.
        interruption: Ctrl-C of the process.
    """

    data: datasets.Benchmark
    options: DM
    components: Components
    pool: sampling.Pool
    index: Callable[..., sampling.Pool]
    own_method: str | None
    custom_weights: np.ndarray | None
    mesh: jax.sharding.Mesh | None
    threads: int | None
    report: Callable[..., None]
    spent: Mapping[str, float]
    interruption: Interruption

    @property
    def follows(self) -> str | None:
        """Kind of networks that the method follows, or None."""
        return None if self.own_method else run_methods.follows(self.options)

    @functools.cached_property
    def data_digest(self) -> str:
        """Digest of the data set."""
        return datasets.digest(self.data)

    def config(self, command: str, **fields: Any) -> dict[str, Any]:
        """Return the configuration by which a folder is recognised when it is resumed."""
        strategy = self.components.strategy
        named = named_networks.qualified_name(strategy) if callable(strategy) else list(strategy)
        if self.own_method is not None:
            fields["own_method"] = self.own_method
        if self.custom_weights is not None:
            fields["weights"] = files.digest(np.asarray(self.custom_weights, np.float32))
        return {
            "command": command, "dataset": self.data.name, "data": self.data_digest, **fields,
            "augmentation": named, **dataclasses.asdict(self.options),
        }  # fmt: skip


def build_context(
    data: datasets.Benchmark,
    options: DM,
    *,
    weights: ArrayLike | None = None,
    network: networks.Network | None = None,
    method: methods.Method | None = None,
    mesh: jax.sharding.Mesh | None = None,
    split_from: int = SPLIT_FROM,
    spent: Mapping[str, float] = {},
    report: Callable[..., None],
    rows_at_once: int = 1,
) -> Context:
    """Build what the stages of a run share and check that options and data fit together.

    Args:
        data: training and test set.
        options: of the run.
        weights: `[n]` of the training samples, for the weighting "custom".
        network: your own, instead of that of the options.
        method: your own, instead of that of the options.
        mesh: devices that share the work, None for one device.
        split_from: bytes of training images from which these devices split them.
        spent: seconds of earlier stages.
        report: called as `report(task, done, total, **fields)`.
        rows_at_once: rows that run at the same time.
    """
    if network is not None:
        options = dataclasses.replace(options, network=named_networks.qualified_name(network))
    if options.zca != "none":
        zca.check_size(data.train.images.shape[1:])
    threads = max(1, rows_at_once // len(weightings.DEFAULT_ROWS)) if rows_at_once > 1 else None
    parts = components.build(
        data, options, network=network, method=method, mesh=mesh, threads=threads
    )
    index = sampling.pool
    is_large = data.train.images.nbytes >= split_from
    if mesh is not None and is_large and options.zca == "none":
        index = functools.partial(split_pool.pool, mesh=mesh)
    pool = datasets.pool(data, index=index)
    if weights is not None:
        sampling.reweight(pool, weights)  # which checks them before any work
    return Context(
        data, options, parts, pool, index,
        own_method=None if method is None else named_networks.qualified_name(method.step),
        custom_weights=None if weights is None else np.asarray(weights),
        mesh=mesh, threads=threads, report=_one_at_a_time(report), spent=spent,
        interruption=Interruption(),
    )  # fmt: skip


def _one_at_a_time(function):
    """Return a function that only one thread calls at a time."""
    lock = threading.Lock()

    def locked(*args, **kwargs):
        with lock:
            function(*args, **kwargs)

    return locked


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
    if weighting.compute is None:
        return Source(context.pool.weights, context.pool, parts.sampler, parts.method)
    weights_file, choice_file = f"{prefix}weights.npz", f"{prefix}choice.json"
    products = (weights_file, *[choice_file] * (name == "auto"))
    computed: list[weightings.SampleWeights] = []

    def compute():
        (folder / prefix).mkdir(parents=True, exist_ok=True)
        computed.append(weighting.compute(context, seconds))
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
        result = computed[0] if computed else weighting.compute(context, seconds)
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
    kept = functools.cache(lambda: figure_data.read(folder / prefix))

    def draw_weights():
        plot.weights_by_group(
            folder / f"{prefix}weights.png", kept().weights, train.labels, train.attributes,
            data.aligned,
        )  # fmt: skip

    def draw_embedding():
        plot.embedding_map(
            folder / f"{prefix}embedding.png", kept().plane, train.labels, train.attributes,
            class_names=data.class_names, attribute_names=data.attribute_names,
        )  # fmt: skip

    ensure(folder, draw_weights, figures=(f"{prefix}weights.png",))
    if not manifest.is_intact(folder, f"{prefix}embedding.png") and kept().plane is not None:
        ensure(folder, draw_embedding, figures=(f"{prefix}embedding.png",))


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
        scores = context.components.score(zca.whiten(images, whitening), whitening)
    context.report(f"evaluate {name}", 1, 1)
    if context.interruption.requested.is_set():
        raise Interrupted("stopped; finished rows are kept")
    return summarize(context.data, scores)


def summarize(data: datasets.Benchmark, scores: evaluate.Scores) -> results.Scores:
    """Return mean and deviation of scores over networks, in total, by class and by group."""
    summary = {name: results.Score(**x) for name, x in evaluate.summary(scores).items()}
    summary = results.Scores(**summary, **figure_data.breakdown(data, scores))
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
