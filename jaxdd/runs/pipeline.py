"""The whole way from a data set to a scored synthetic set, in a run folder.

`run` makes one set, `compare` makes the table that shows what the weights are worth. Both can be
killed at any time and resumed to the same bits: what happens in step i depends on the seed and i
alone, the weights are kept in the folder, and the state of the distillation is saved every few
seconds.
"""

import contextlib
import dataclasses
import functools
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from jaxdd import augment, evaluate, kde, methods, networks, sampling, weights
from jaxdd.data import benchmarks, datasets, files
from jaxdd.devices import split_pool
from jaxdd.methods import cfm, experts, zca
from jaxdd.runs import old_results as results
from jaxdd.runs import parts, processes, timing
from jaxdd.runs import results as typed_results
from jaxdd.runs.folder import buffers, checkpoint, guides, manifest, store, whitenings
from jaxdd.runs.options import WEIGHTED, Options
from jaxdd.runs.options import read as options_of
from jaxdd.runs.reports import figure_data, plot
from jaxdd.weights import blind_features, formulas

# In a configuration beside the options.
_SAID = ("command", "dataset", "data", "debias", "row", "own_method", "weights")

_FIGURES = ("synthetic.png", "accuracy.png")

# Weights that are kept in a folder.
_ESTIMATED = ("kde", "auto", *blind_features.NAMED, "given")

DEBIAS = ("none", "kde", "auto", *blind_features.NAMED, "oracle", "fairdd", "given")
"""Ways to distil: kinds of weights, and the loss over bias groups of FairDD."""

ROWS = results.ROWS
"""What `compare` makes, unless told otherwise."""

SPLIT_FROM = 2**30
"""Bytes of training images from which on the devices of a run share them."""


class Interrupted(Exception):
    """The user stopped the run; its state is saved."""


class Source(NamedTuple):
    """What a set is distilled from and how: weights `[n]`, the pool, its sampler and method.

    `choice` is the record of a choice of weights, `whitening` that of the pool's images, if there
    was one.
    """

    weights: jax.Array
    pool: sampling.Pool
    sampler: sampling.Sampler
    method: methods.Method
    choice: dict[str, Any] | None = None
    whitening: zca.Whitening | None = None


def silent(task: str, done: int, total: int, **fields: Any) -> None:
    """Reports nothing."""


def run(
    data: datasets.Benchmark,
    folder: pathlib.Path | str,
    options: Options,
    *,
    debias: str = "auto",
    weights: ArrayLike | None = None,
    network: networks.Network | None = None,
    method: methods.Method | None = None,
    mesh: jax.sharding.Mesh | None = None,
    split_from: int = SPLIT_FROM,
    spent: Mapping[str, float] = {},
    report: Callable[..., None] = silent,
    resume: bool = False,
) -> dict[str, Any]:
    """Distils one set into a folder: weights, synthetic set, pictures, result.json, manifest.json.

    Args:
        data: what `jaxdd.data` makes of any data.
        folder: the run folder.
        options: of a method, such as `DM(ipc=10)`; see `jaxdd.runs.options`.
        debias: one of `DEBIAS`; oracle and fairdd use the bias labels, auto chooses how to weigh,
            names of views weigh by these.
        weights: `[n]` of the training samples, non-negative, anybody's; debias is "given" then.
        network: one's own, see `networks.Network`.
        method: one's own, see `methods.Method`; it has its network, optimizer and augmentation.
        mesh: from `parallel.mesh`, to use its devices; None for one device.
        split_from: bytes of training images from which on the devices of the mesh share them,
            unless they are to be whitened; of less each has a copy.
        spent: seconds that earlier stages took, by stage.
        report: called as `report(task, done, total, **fields)`.
        resume: continue what the folder holds. Of a finished run what is missing or damaged is made
            again.

    Returns:
        The content of result.json.

    Raises:
        ValueError: for what the options, the data or the folder do not allow, before anything is
            written; or for a damaged file that has to be deleted first.
        Interrupted: after Ctrl-C, once the state is saved.
    """
    if weights is not None:
        if debias not in ("auto", "given"):
            raise ValueError(f"there are weights, so there is nothing to debias by {debias}")
        debias = "given"
    work = _Work(
        data,
        options,
        weights,
        network=network,
        method=method,
        mesh=mesh,
        split_from=split_from,
        report=report,
        spent=spent,
    )
    work.check(debias)
    config = work.config("run", debias=debias)
    folder = store.create(folder, config, resume=resume, translate=work.translated)
    attempt = _Attempt(work, folder)
    if attempt.result is not None and not (
        attempt.lacking
        or attempt.undrawn()
        or store.litter(folder)
        or not manifest.is_sealed(folder)
    ):
        return attempt.result
    with store.lock(folder):
        store.sweep(folder)
        attempt = _Attempt(work, folder)  # another process may have made it in the meantime
        undrawn = attempt.undrawn()
        if attempt.result is not None and not attempt.lacking:
            attempt.draw(undrawn)
            _seal(folder)
            return attempt.result
        if "weights.png" in undrawn and not attempt.lacks(folder / "weights.npz"):
            attempt.draw({"weights.png"})
        with timing.compilation_counted(attempt.seconds):
            source = attempt.whitened(attempt.source(debias, folder))
            images = attempt.distil(source, debias)
            scored = attempt.score(work.subset(), "random", source.whitening)
            random = work.summary(scored)
            decoded = parts.decode(work.options)(images)
            scores = attempt.score(decoded, debias, source.whitening)
        return attempt.finish(images, scores, source, random, beside={"random": random})


def compare(
    data: datasets.Benchmark,
    folder: pathlib.Path | str,
    options: Options,
    *,
    rows: Sequence[str] = ROWS,
    weights: ArrayLike | None = None,
    network: networks.Network | None = None,
    method: methods.Method | None = None,
    mesh: jax.sharding.Mesh | None = None,
    split_from: int = SPLIT_FROM,
    spent: Mapping[str, float] = {},
    report: Callable[..., None] = silent,
    resume: bool = False,
) -> dict[str, Any]:
    """Makes rows under one protocol: compare.json, figures, one run folder a row.

    random and random-kde are real images, drawn uniformly and by the KDE weights; the others are
    distilled as `DEBIAS` says. Without bias labels there is no oracle row and no fairdd row. A CPU
    makes the rows of dm, dc and dsa side by side (`parts.rows_at_once`), unless they are whitened.

    Args:
        data: as in `run`.
        folder: the comparison's folder.
        options: as in `run`.
        rows: of `results.KINDS`; with `weights` there is a row "given" besides.
        weights: as in `run`.
        network: as in `run`.
        method: as in `run`.
        mesh: as in `run`.
        split_from: as in `run`.
        spent: as in `run`.
        report: as in `run`.
        resume: continue what the folder holds; finished rows are read back and kept, and made again
            where their sets are missing or damaged.

    Returns:
        The content of compare.json.

    Raises:
        ValueError: as in `run`, or for an unknown row.
        Interrupted: as in `run`.
    """
    given = ["given"] if weights is not None else []
    names: list[str] = list(dict.fromkeys(["random", *rows, *given]))
    if unknown := set(names) - results.KINDS.keys():
        raise ValueError(f"unknown row {min(unknown)!r}; known are {', '.join(results.KINDS)}")
    if data.train.attributes is None:
        names = [name for name in names if name not in ("oracle", "fairdd")]
    work = _Work(
        data,
        options,
        weights,
        network=network,
        method=method,
        mesh=mesh,
        split_from=split_from,
        report=report,
        spent=spent,
        at_once=parts.rows_at_once(options, method=method, mesh=mesh),
    )
    for name in names:
        work.check(results.KINDS[name].weights)
    config = work.config("compare")
    folder = store.create(folder, config, resume=resume, translate=work.translated)
    with store.lock(folder):
        store.sweep(folder)
        whole = _Attempt(work, folder)
        table = results.read_comparison(folder / "compare.json")
        stored = {name: whole.stored_row(name) for name in results.KINDS}
        made: dict[str, Any] = {name: row for name, row in stored.items() if row is not None}
        names += [name for name in table["rows"] if name in results.KINDS and name not in names]
        whole.keep_weights(name for name in names if name in made)
        finished = results.is_finished(folder / "compare.json") and whole.is_illustrated()
        if finished and all(_same_set(table["rows"].get(name), made.get(name)) for name in names):
            return table
        made |= whole.rows([name for name in names if name not in made], made.get("random"))
        ordered = {name: made[name] for name in results.KINDS if name in made}
        found = {name: row for name, (row, _) in ordered.items()}
        _bars(folder, found)
        _comparison(work, folder, found, {name: images for name, (_, images) in ordered.items()})
        # Last, since it says that all is done.
        files.write_json(folder / "compare.json", {"rows": found, "finished": True})
        return files.read_json(folder / "compare.json")


class _Work:
    """What the rows of a comparison share: data, options, parts, and the whole pool."""

    def __init__(
        self, data, options, given, *, network, method, report, spent, mesh=None,
        split_from=SPLIT_FROM, at_once=1,
    ):  # fmt: skip
        self.options = options.resolved()
        if network is not None:
            self.options = dataclasses.replace(self.options, network=parts.name_of(network))
        self.at_once = at_once
        self.threads = max(1, at_once // len(ROWS)) if at_once > 1 else None
        self.parts = parts.build(
            data, self.options, network=network, method=method, mesh=mesh, threads=self.threads
        )
        self.own_method = None if method is None else parts.name_of(method.step)
        self.data, self.mesh, self.spent = data, mesh, dict(spent)
        self.report = _one_at_a_time(report)
        self.digest = datasets.digest(data)
        self.index = sampling.pool
        large = data.train.images.nbytes >= split_from
        if mesh is not None and large and self.options.zca == "none":
            self.index = functools.partial(split_pool.pool, mesh=mesh)
        self.pool = datasets.pool(data, index=self.index)
        self.stopped, self.following = threading.Event(), set()
        self.given = None if given is None else sampling.reweight(self.pool, given).weights
        self.given_digest = None if given is None else files.digest(np.asarray(given, np.float32))

    @contextlib.contextmanager
    def heeding(self, *rows):
        """Has the first Ctrl-C stop at the end of a chunk what is distilled: `rows`, from now on.

        The second Ctrl-C is immediate, as is one while nothing is distilled.
        """
        before = signal.getsignal(signal.SIGINT)
        here = threading.current_thread() is threading.main_thread()

        def stop(*_):
            self.stopped.set()
            signal.signal(signal.SIGINT, before)
            if not self.following:
                raise KeyboardInterrupt

        if here:
            signal.signal(signal.SIGINT, stop)
        self.following.update(rows)
        try:
            yield
        finally:
            self.following.difference_update(rows)
            if here:
                signal.signal(signal.SIGINT, before)

    def check(self, debias):
        """Refuses what the data or the method cannot do, before any folder is touched."""
        if debias not in DEBIAS:
            raise ValueError(f"debias must be one of {', '.join(DEBIAS)}, found {debias!r}")
        if debias == "given" and self.given is None:
            raise ValueError("given weights need weights, found none")
        if debias == "auto":
            _check_choice(self.options)
        n, h, w, c = self.data.train.images.shape
        if self.options.zca != "none":
            zca.check_size((h, w, c))
        if debias in blind_features.NAMED and (n < 3 or min(h, w) < 4):
            raise ValueError(
                f"{debias} needs at least 3 images with sides of 4 pixels or more, "
                f"found {n} of {h}×{w}"
            )
        if debias in ("oracle", "fairdd") and self.data.train.attributes is None:
            raise ValueError(f"{debias} needs bias attributes, {self.data.name} has none")
        if debias == "fairdd" and (self.options.method in parts.GUIDED or self.own_method):
            found = self.own_method or self.options.method
            raise ValueError(f"fairdd needs a loss of groups: dm, dc or dsa, found {found}")

    def config(self, command, **more):
        """What a folder is compared by when it is resumed."""
        strategy = self.parts.strategy
        augmentation = parts.name_of(strategy) if callable(strategy) else list(strategy)
        own = {} if self.own_method is None else {"own_method": self.own_method}
        given = {} if self.given is None else {"weights": self.given_digest}
        return {
            "command": command, "dataset": self.data.name, "data": self.digest, **more,
            "augmentation": augmentation, **own, **given, **dataclasses.asdict(self.options),
        }  # fmt: skip

    def subset(self):
        """A random subset of the real images, as many as the synthetic set has."""
        return parts.subset(self.pool, self.options, weighted=False)

    def summary(self, scores):
        """What a result says of networks: their scores, by class and by group, too."""
        parts = files.to_json(figure_data.breakdown(self.data, scores))
        summary = evaluate.summary(scores) | parts
        return summary | {"learnt": results.learnt(summary)}

    def translated(self, stored):
        """Returns a stored configuration, one of the version before this in today's terms."""
        if "augmentation" in stored:
            return {"zca": "none"} | stored
        kept = {name: stored[name] for name in _SAID if name in stored}
        options = dataclasses.asdict(options_of(stored))
        options["strategy"] = self.options.strategy  # which was the data's; augmentation decides
        return files.to_json(kept | {"augmentation": self.augmentation_before()} | options)

    def translated_experts(self, stored):
        """Returns the stored manifest of experts, one of the version before in today's terms."""
        if "augmentation" in stored:
            return stored
        now = {"expert_epochs": "train_epochs", "expert_rate": "lr_teacher"}
        renamed = {now.get(name, name): value for name, value in stored.items()}
        return renamed | {"augmentation": list(self.augmentation_before())}

    def augmentation_before(self):
        """The strategy that the version before this had for these data."""
        known = self.data.name in benchmarks.NAMES
        return self.data.strategy if known else augment.OPERATIONS


class _Attempt:
    """One process at work in a folder, and the seconds that it and those before it have spent."""

    def __init__(self, work, folder, seconds=None):
        self.work, self.folder, self.weighed = work, folder, None
        spent = work.spent if seconds is None else seconds
        self.seconds = spent | results.read_seconds(folder / "seconds.json")
        path = folder / "result.json"
        self.result = results.read_result(path) if path.exists() else None
        self.lacking = set()
        if self.result is not None:
            self.lacking = set(store.lacking(folder, self.result.get("digests")))

    def save(self, step, state):
        """Saves the state of a distillation, and what was spent so far."""
        checkpoint.save(self.folder, step, jax.device_get(state))
        files.write_json(self.folder / "seconds.json", self.seconds)

    def lacks(self, path):
        """Whether a product is missing, or not the one that the finished run made."""
        return not path.exists() or path.name in self.lacking

    # --- weights ---

    def source(self, debias, shared):
        """What to distil from; weights are estimated, or read from the `shared` folder."""
        work = self.work
        pool, sampler, method, choice = work.pool, work.parts.sampler, work.parts.method, None
        if debias == "auto":
            found, choice = self.chosen_weights(shared)
            pool = sampling.reweight(pool, found)
        elif debias == "kde" and work.options.weighting == "batch":
            sampler = self.weighed_batches(shared)
            pool = sampling.reweight(pool, self.stored_weights(shared / "weights.npz"))
        elif debias == "kde":
            pool = sampling.reweight(pool, self.density_weights(shared))
        elif debias in blind_features.NAMED:
            pool = sampling.reweight(pool, self.view_weights(shared, debias))
        elif debias == "given":
            if self.lacks(shared / "weights.npz"):
                self.write_weights(shared, work.given)
            pool = sampling.reweight(pool, work.given)
        elif debias in ("oracle", "fairdd"):
            attributes, count = work.data.train.attributes, work.data.num_attributes
            found = weights.oracle(pool, attributes, num_attributes=count)
            pool = sampling.reweight(pool, found)
        if debias != "fairdd":
            return Source(pool.weights, pool, sampler, method, choice)
        groups = work.data.num_attributes
        sampler = parts.group_sampler(work.options, groups=groups)
        method = parts.named_method(
            work.options,
            work.parts.network,
            work.parts.strategy,
            groups=groups,
            mesh=work.mesh,
            threads=work.threads,
        )
        groups = datasets.group_pool(work.data, index=work.index)
        return Source(pool.weights, groups, sampler, method)

    def whitened(self, source):
        """The source with its images whitened, if the options ask for it."""
        work, path = self.work, self.folder / store.WHITENING
        if work.options.zca == "none":
            return source
        if self.lacks(path):
            work.report("whitening", 0, 1)
            with timing.timed(self.seconds, "whiten"):
                pool = sampling.reweight(work.pool, source.weights)
                found = zca.fit(pool, weighted=work.options.zca == "weighted")
                whitenings.write(path, processes.broadcast(found))
            work.report("whitening", 1, 1)
        with files.hint("delete it and resume"):
            found = whitenings.read(path)
        return source._replace(pool=zca.whiten_pool(source.pool, found), whitening=found)

    def density_weights(self, folder):
        """The KDE weights `[n]`, read from the folder if an earlier run got that far."""
        path = folder / "weights.npz"
        if self.lacks(path):
            found = self.weigh()
            self.write_weights(folder, found.weights, found)
        return self.stored_weights(path)

    def weigh(self):
        """Embeds the training set, estimates its density and turns it into weights."""
        work, options = self.work, self.work.options
        work.report("embedding", 0, 1)
        with timing.timed(self.seconds, "embed"):
            encoded = jax.block_until_ready(weights.encode(
                parts.key(options, "encoder"), work.pool, steps=options.encoder_steps,
                **_encoding(work),
            ))  # fmt: skip
        with timing.timed(self.seconds, "density"):
            bandwidth = _bandwidth(options, encoded.embeddings, work.pool)
            found = weights.density(encoded.embeddings, work.pool, bandwidth=bandwidth)
            jax.block_until_ready(found)
        work.report("embedding", 1, 1)
        weighed = weights.from_density(
            found.log_density, work.pool, temperature=options.temperature, clip=options.clip
        )
        return processes.broadcast(weights.DensityWeights(weighed, *found, *encoded))

    def weighed_batches(self, folder):
        """The sampler whose batches are weighed by the density of their own samples."""
        if self.weighed is None:
            self.weighed = self.weigh()
            self.write_weights(folder, self.weighed.weights, self.weighed)
        work, found = self.work, self.weighed
        how = _encoding(work)
        encode = lambda images: getattr(how["encoder"].apply(found.params, images), how["layer"])
        return sampling.density_weighted(
            work.parts.sampler,
            encode,
            bandwidth=found.bandwidth,
            temperature=work.options.temperature,
        )

    def chosen_weights(self, folder):
        """The weights `[n]` of `weights.choose` and the record of it, kept in the folder."""
        work, options = self.work, self.work.options
        path, record = folder / "weights.npz", folder / "choice.json"
        if self.lacks(path) or self.lacks(record):
            k, width, depth = work.pool.num_classes, options.encoder_width, options.depth
            check = functools.partial(
                weights.check_with_probe_networks, parts.key(options, "auto"),
                strategy=work.parts.strategy, network=networks.ConvNet(k, width, depth),
            )  # fmt: skip
            with timing.timed(self.seconds, "choose"):
                choice = weights.choose(
                    parts.key(options, "encoder"), work.pool, search=_search(work),
                    clip=options.clip, check=check, strategy=work.parts.strategy,
                    report=functools.partial(work.report, "choosing weights"),
                )  # fmt: skip
            files.write_json(record, results.sealed(choice.record()))
            self.write_weights(folder, processes.broadcast(choice.weights), choice.density)
        return self.stored_weights(path), results.read_choice(record)

    def view_weights(self, folder, name):
        """The weights `[n]` by a view, read from the folder if an earlier run got that far."""
        work, path = self.work, folder / "weights.npz"
        if self.lacks(path):
            with timing.timed(self.seconds, "choose"):
                key, clip = parts.key(work.options, "encoder"), work.options.clip
                found = weights.by_features(key, work.pool, blind_features.NAMED[name], clip=clip)
                found = processes.broadcast(found.weights)
            self.write_weights(folder, found)
        return self.stored_weights(path)

    def stored_weights(self, path):
        """The weights in a file, if they are those of the training samples and it is whole."""
        with files.hint("delete it and resume"):
            files.read_arrays(path)
            return store.read_weights(path, count=len(self.work.data.train.labels))

    def write_weights(self, folder, found, weighing=None):
        """Writes weights and what they follow from, which is nothing if they are uniform."""
        data, train = self.work.data, self.work.data.train
        arrays, plane = {"weights": np.asarray(found)}, None
        if weighing is not None:
            arrays["log_density"] = np.asarray(weighing.log_density)
            arrays["bandwidth"] = np.asarray(weighing.bandwidth)
            plane = plot.plane(np.asarray(weighing.embeddings))
            plot.embedding_map(
                folder / "embedding.png", plane, train.labels, train.attributes,
                class_names=data.class_names, attribute_names=data.attribute_names,
            )  # fmt: skip
        self.draw_weights(folder, arrays["weights"])
        figure_data.write(folder / figure_data.FILE, data, arrays["weights"], plane=plane)
        files.write_json(folder / "seconds.json", self.seconds)
        # Last, since its presence says that this stage is done.
        files.write_arrays(folder / "weights.npz", files.sealed(arrays))

    def draw_weights(self, folder, found):
        """Draws the weights by class and group."""
        data, train = self.work.data, self.work.data.train
        plot.weights_by_group(
            folder / "weights.png", found, train.labels, train.attributes, data.aligned
        )

    # --- distillation ---

    def distil(self, source, name):
        """Distils from the newest checkpoint of the folder on and returns the synthetic images."""
        work, steps = self.work, self.work.options.steps
        if self.result is not None and "synthetic.npz" not in self.lacking:
            return jnp.asarray(store.read_synthetic(self.folder / "synthetic.npz").images)
        pool = sampling.reweight(work.pool, source.weights)
        state = source.method.init(parts.initial(pool, work.options, whitening=source.whitening))
        saved = checkpoint.restore(self.folder, state)
        if saved is None and steps and self.result is not None:
            raise ValueError(
                f"{self.folder / 'synthetic.npz'} is missing or damaged, without a checkpoint to "
                f"make it from; delete {self.folder / 'result.json'} and resume to distil anew"
            )
        first, state = saved or (0, state)
        store.rewind(self.folder, first)
        if first >= steps:
            return jax.device_get(zca.unwhiten(state.images, source.whitening))
        if work.options.method in parts.GUIDED and work.own_method is None:
            guided = {"mtt": self.experts, "cfm": self.guide}[work.options.method]
            source = guided(source, name)
        state, pool = parts.replicated((state, source.pool), work.mesh)
        chunks = methods.run(
            parts.key(work.options, "distill"), state, pool, method=source.method,
            sampler=source.sampler, steps=steps, first=first, chunk_length=work.options.chunk,
        )  # fmt: skip
        work.report(name, first, steps)
        images = self.follow(chunks, name, first, source.whitening)
        return jax.device_get(zca.unwhiten(images, source.whitening))

    def follow(self, chunks, name, first, whitening):
        """Logs and saves a distillation chunk by chunk, and stops it after Ctrl-C."""
        options, steps = self.work.options, self.work.options.steps
        spent, begun = self.seconds.get("distill", 0.0), time.perf_counter()
        saved, images, before = begun, None, first
        with self.work.heeding(name):
            for step, state, info in chunks:
                means = {name: float(x.mean()) for name, x in info.items()}
                now = time.perf_counter()
                speed = (step - first) / (now - begun)
                self.work.report(name, step, steps, loss=means["loss"], speed=speed)
                store.check_there(self.folder)
                self.seconds["distill"] = spent + now - begun
                scores = self.score_on_the_way(before, step, state, name, whitening)
                begun, before = begun + time.perf_counter() - now, step
                record = {"step": step, **means, **scores, "steps_per_second": speed}
                store.append(self.folder, record)
                due = now - saved > options.save_every or step == steps
                if due:
                    self.save(step, state)
                    saved = now
                if processes.broadcast(np.int32(self.work.stopped.is_set())):
                    if not due:
                        self.save(step, state)
                    raise Interrupted(f"stopped at step {step} of {steps}; the state is saved")
                images = state.images
        return jax.device_get(images)

    def score_on_the_way(self, before, step, state, name, whitening):
        """Mean accuracies of the set so far, if they are due, for a line of progress.jsonl."""
        every = self.work.options.score_every
        if every is None or before // every == step // every or step >= self.work.options.steps:
            return {}
        decoded = parts.decode(self.work.options)(zca.unwhiten(state.images, whitening))
        found = evaluate.summary(self.score(decoded, f"{name} on the way", whitening))
        return {score: found[score]["mean"] for score in ("accuracy", "conflicting")}

    def experts(self, source, name):
        """The source of trajectory matching: experts, read from their folder or trained into it."""
        work, options = self.work, self.work.options
        train = jax.jit(functools.partial(
            experts.train, network=work.parts.network, sampler=source.sampler,
            epochs=options.train_epochs, updates=options.expert_updates,
            optimizer=optax.sgd(options.lr_teacher), strategy=work.parts.strategy,
        ))  # fmt: skip
        key = parts.key(options, "experts")
        expert = lambda i: train(jax.random.fold_in(key, i), pool=source.pool)
        told = "train_epochs", "expert_updates"
        manifest = self.expert_manifest(*told, weights=files.digest(np.asarray(source.weights)))
        if source.whitening is not None:
            manifest["whitening"] = files.digest(*map(np.asarray, source.whitening))
        with timing.timed(self.seconds, "experts"):
            found = buffers.fill(
                self.buffer("experts", name), manifest, expert, count=options.num_experts,
                like=jax.eval_shape(train, key, pool=source.pool),
                report=lambda done: work.report(f"{name} experts", done, options.num_experts),
                translate=work.translated_experts,
            )  # fmt: skip
        sampler = functools.partial(
            experts.segment, span=options.expert_epochs, latest=options.max_start_epoch
        )
        return source._replace(pool=jax.tree.map(jnp.asarray, found), sampler=sampler)

    def guide(self, source, name):
        """The source of curriculum frequency matching: a teacher, and moments of what it sees."""
        work, options = self.work, self.work.options
        pools = {part: source.pool if part in options.weighted else work.pool for part in WEIGHTED}
        network = parts.named_teacher(work.data, options)
        weights = {part: files.digest(np.asarray(pool.weights)) for part, pool in pools.items()}
        manifest = self.expert_manifest("teacher", "teacher_steps", weights=weights)
        teach = guides.course(
            network, steps=options.teacher_steps, rate=options.lr_teacher,
            strategy=work.parts.strategy,
        )  # fmt: skip
        with timing.timed(self.seconds, "experts"):
            found = guides.fill(
                parts.key(options, "experts"), self.buffer("teacher", name), manifest, network,
                pools, teach=teach, steps=options.teacher_steps, chunk=options.chunk,
                sampler=source.sampler if "teacher" in options.weighted else work.parts.sampler,
                save_every=options.save_every,
                report=functools.partial(work.report, f"{name} teacher"),
            )  # fmt: skip
        return source._replace(pool=found, sampler=cfm.guide_sampler)

    def buffer(self, kind, name):
        """The folder of the networks that a row of a name follows."""
        path = self.work.options.buffer_path
        return self.folder / kind if path is None else pathlib.Path(path) / name

    def expert_manifest(self, *fields, weights):
        """What experts and teachers depend on."""
        fields += (
            "network", "width", "depth", "dtype", "batch_size", "candidates", "weighting",
            "lr_teacher", "seed",
        )  # fmt: skip
        config = self.work.config("experts")
        return {
            "dataset": self.work.data.name, "data": self.work.digest,
            "classes": self.work.data.num_classes, "augmentation": config["augmentation"],
            "weights": weights,
            **{name: config[name] for name in fields},
        }  # fmt: skip

    # --- results ---

    def score(self, images, name, whitening=None):
        """Evaluates decoded images `[k, m, h, w, c]` through a whitening, with time and report."""
        self.work.report(f"evaluate {name}", 0, 1)
        with timing.timed(self.seconds, "evaluate"):
            scores = self.work.parts.score(zca.whiten(images, whitening), whitening)
        self.work.report(f"evaluate {name}", 1, 1)
        if self.work.stopped.is_set():  # by another row
            raise Interrupted("stopped; finished rows are kept")
        return scores

    def finish(self, images, scores, source, random, beside=None):
        """Writes the set, its picture, result.json and what follows from it; returns the result."""
        work, data = self.work, self.work.data
        result = {
            **work.summary(scores),
            "random": random,
            "weights": _diagnosis(data, work.pool, source.weights),
            "seconds": dict(self.seconds),
            **results.circumstances(),
            "seed": work.options.seed,
            "config": files.read_json(self.folder / "config.json"),
        } | ({} if source.choice is None else {"choice": source.choice})
        labels = np.broadcast_to(np.arange(images.shape[0])[:, None], images.shape[:2])
        provenance = {name: result[name] for name in ("config", "device", "versions")}
        provenance["class_names"] = data.class_names
        provenance["weights"] = manifest.array_digest(np.asarray(source.weights, np.float32))
        synthetic = store.Synthetic(
            np.asarray(images, np.float32), labels.astype(np.int32),
            np.asarray(data.mean, np.float32), np.asarray(data.std, np.float32), provenance,
        )  # fmt: skip
        store.write_synthetic(self.folder / "synthetic.npz", synthetic)
        self.draw_set(result, synthetic.images)
        if beside is not None:
            self.draw_scores(result)
        result["digests"] = store.digests(self.folder)
        files.write_json(self.folder / "result.json", results.sealed(result))
        _seal(self.folder)
        return files.read_json(self.folder / "result.json")

    def draw_set(self, result, images):
        """Draws the synthetic set."""
        data = self.work.data
        title = f"{data.name}: {100 * result['accuracy']['mean']:.1f} % on the test set"
        plot.synthetic_grid(
            self.folder / "synthetic.png", images, mean=data.mean, std=data.std, title=title,
            class_names=data.class_names,
        )  # fmt: skip

    def draw_scores(self, result):
        """Draws the accuracies of a run beside those of a random subset."""
        name = result["config"].get("debias", "distilled")
        _bars(self.folder, {"random": result["random"], name: result})

    # --- a finished run ---

    def undrawn(self):
        """The figures of a finished run that are missing or damaged."""
        names = {*_FIGURES}
        if (self.folder / "weights.npz").exists():
            names.add("weights.png")
        _check_embedding(self.folder)
        return {name for name in names if not store.is_drawn(self.folder / name)}

    def draw(self, names):
        """Draws figures of a finished run again."""
        if "synthetic.png" in names:
            images = store.read_synthetic(self.folder / "synthetic.npz").images
            self.draw_set(self.result, images)
        if "accuracy.png" in names:
            self.draw_scores(self.result)
        if "weights.png" in names:
            self.draw_weights(self.folder, self.stored_weights(self.folder / "weights.npz"))

    # --- rows of a comparison ---

    def row_folder(self, name, *path):
        """The folder of a row, or a file in it."""
        return self.folder.joinpath("rows", name, *path)

    def stored_row(self, name):
        """The result and the images of a row that an earlier run finished, if they are whole."""
        found = _Attempt(self.work, self.row_folder(name), self.seconds)
        if found.result is None or found.lacking:
            return None
        if not store.is_drawn(found.folder / "synthetic.png"):
            found.draw({"synthetic.png"})
        found.keep_config()
        _seal(found.folder)
        return found.result, store.read_synthetic(found.folder / "synthetic.npz").images

    def keep_config(self):
        """Writes config.json as the result has it, if it is missing or damaged."""
        path, told = self.folder / "config.json", (self.result or {}).get("config")
        with contextlib.suppress(OSError, ValueError):
            if told is None or files.read_json(path) == told:
                return
        files.write_json(path, told)

    def is_illustrated(self):
        """Whether the figures of a comparison are there and whole."""
        return all(map(store.is_drawn, map(self.folder.joinpath, _FIGURES)))

    def keep_weights(self, names):
        """Checks the weights that finished rows share; makes those that are missing."""
        for kind in (results.KINDS[name] for name in names):
            if kind.weights not in _ESTIMATED:
                continue
            shared = self.folder / kind.folder
            if not (shared / "weights.npz").exists():
                shared.mkdir(exist_ok=True)
                _Attempt(self.work, shared, self.seconds).source(kind.weights, shared)
            _check_embedding(shared)
            found = self.stored_weights(shared / "weights.npz")
            if not store.is_drawn(shared / "weights.png"):
                self.draw_weights(shared, found)

    def rows(self, names, first):
        """Makes rows and returns them by name; `first` is the random one, if it is there.

        Weights are made one after the other, for all rows that share them: each estimate keeps all
        cores busy.
        """
        work, made = self.work, {"random": first}
        kinds = dict.fromkeys(results.KINDS[name] for name in names)
        sources = {kind.weights: self.shared_source(kind) for kind in kinds}
        make = lambda name, random: self.row(name, sources[results.KINDS[name].weights], random)
        if work.at_once == 1:
            for name in names:
                made[name] = make(name, lambda: made["random"])
            return {name: made[name] for name in names}
        begun = {}
        random = lambda: first or begun["random"].result()
        pool = futures.ThreadPoolExecutor(work.at_once, thread_name_prefix=processes.ROW)
        try:
            with work.heeding():
                # Real images last, since they take less; but all rows need the random ones.
                for name in sorted(names, key=lambda name: name == "random-kde"):
                    begun[name] = pool.submit(make, name, random)
                for row in futures.as_completed(begun.values()):
                    row.result()
        except BaseException:
            work.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            while work.following:
                time.sleep(0.02)
            raise
        pool.shutdown()
        return {name: row.result() for name, row in begun.items()}

    def shared_source(self, kind):
        """What rows of a kind of weights are distilled from, and the seconds that it took."""
        shared = self.folder / kind.folder
        shared.mkdir(exist_ok=True)
        attempt = _Attempt(self.work, shared)
        with timing.compilation_counted(attempt.seconds):
            source = attempt.source(kind.weights, shared)
        return source, attempt.seconds if kind.weights in _ESTIMATED else None

    def row(self, name, shared, random):
        """Makes a row of a shared source and returns its result and its images.

        Args:
            name: of `results.KINDS`.
            shared: from `shared_source`.
            random: returns the random row, as soon as it is there.
        """
        work, kind = self.work, results.KINDS[name]
        folder = self.row_folder(name)
        config = work.config("compare", row=name)
        store.create(folder, config, resume=True, translate=work.translated)
        source, spent = shared
        attempt = _Attempt(work, folder, spent)
        with timing.compilation_counted(attempt.seconds):
            source = attempt.whitened(source)
            if kind.distilled:
                images = attempt.distil(source, name)
                decoded = parts.decode(work.options)(images)
            else:
                pool = sampling.reweight(work.pool, source.weights)
                weighted = kind.weights != "none"
                images = decoded = parts.subset(pool, work.options, weighted=weighted)
            scores = attempt.score(decoded, name, source.whitening)
        random = evaluate.summary(scores) if name == "random" else random()[0]["random"]
        return attempt.finish(images, scores, source, random), np.asarray(images)


# --- from options to weights -------------------------------------------------------------------


def _encoding(work) -> dict[str, Any]:
    """How the training set is embedded."""
    options = work.options
    encoder = weights.default_encoder(work.pool, width=options.encoder_width, depth=options.depth)
    return dict(strategy=work.parts.strategy, encoder=encoder, layer=options.embedding)


def _rule(options):
    """The rule of the bandwidth by its name."""
    median = functools.partial(kde.median_distance, parts.key(options, "median"))
    return {
        "mean-distance": kde.mean_distance,
        "median-distance": median,
        "scott": kde.scott,
        "silverman": kde.silverman,
    }[options.bandwidth_rule]


def _bandwidth(options, embeddings, pool):
    """The bandwidth as a number, one for each class, or the rule that it follows from."""
    if options.bandwidth_rule == "fixed":
        return options.bandwidth
    if options.bandwidth_rule == "likelihood":
        classes = dict(num_classes=pool.num_classes)
        widest = functools.partial(kde.mean_distance, factor=1.0)
        scale = kde.class_bandwidth(widest, embeddings, pool.labels, **classes)
        candidates = jnp.geomspace(0.01, 1, 13)[:, None] ** 0.5 * scale
        return kde.likelihood(embeddings, pool.labels, candidates, **classes)
    factor = {} if options.bandwidth is None else dict(factor=options.bandwidth)
    return functools.partial(_rule(options), **factor)


def _search(work):
    """What auto tries: multiples of the options' own values."""
    options, encoding = work.options, _encoding(work)
    bandwidth = kde.FACTOR if options.bandwidth is None else options.bandwidth
    usual = weights.Search()
    return weights.Search(
        tuple(options.encoder_steps * times // 30 for times in usual.encoder_steps),
        tuple(bandwidth * times for times in (0.5, 1, 2, 4)),
        tuple(options.temperature * times for times in usual.temperature),
        _rule(options),
        encoding["encoder"],
        encoding["layer"],
    )


def _check_choice(options):
    """Refuses options that leave nothing to choose."""
    rules = "mean-distance", "median-distance"
    if options.bandwidth_rule not in rules:
        raise ValueError(
            f"auto chooses the factor of a bandwidth_rule among {' and '.join(rules)}, "
            f"found {options.bandwidth_rule}; debias by kde"
        )
    if options.weighting == "batch":
        raise ValueError(
            "auto chooses weights of the whole set, found weighting batch; debias by kde"
        )


def _diagnosis(data, pool, found):
    """What weights did to the bias, as far as the attributes are known."""
    if data.train.attributes is None:
        size = formulas.effective_sample_size(found, pool.labels, num_classes=data.num_classes)
        unknown = dict.fromkeys(("conflict_auc", "conflict_weight_share", "group_evenness"))
        return {"effective_sample_size": float(size.mean()), **unknown}
    diagnose = jax.jit(formulas.diagnose, static_argnames=("num_classes", "num_attributes"))
    attributes, aligned = jnp.asarray(data.train.attributes), jnp.asarray(data.aligned)
    sizes = dict(num_classes=data.num_classes, num_attributes=data.num_attributes)
    diagnosed = diagnose(found, pool.labels, attributes, aligned, **sizes)
    return {name: float(value) for name, value in diagnosed._asdict().items()}


# --- while it goes on --------------------------------------------------------------------------


def _one_at_a_time(function):
    """A function that threads call one after the other."""
    lock = threading.Lock()

    def called(*arguments, **options):
        with lock:
            function(*arguments, **options)

    return called


def _same_set(told, made):
    """Whether a row of compare.json tells of the set that is in the row's folder."""
    return bool(told and made) and told.get("digests") == made[0].get("digests")


def _check_embedding(folder):
    """Refuses a damaged figure that cannot be drawn again, for want of the embeddings."""
    if (folder / "embedding.png").exists():
        with files.hint("delete it and resume"):
            store.picture_size(folder / "embedding.png")


def _bars(folder, rows):
    bars = {name: typed_results.Scores.from_dict(files.to_json(row)) for name, row in rows.items()}
    plot.accuracy_bars(folder / "accuracy.png", bars)


def _comparison(work, folder, rows, images):
    titles = {"none": "plain distillation", "kde": "density weights"}
    shown = {name: images[name] for name in titles if name in images} or images
    accuracies = {name: f"{100 * rows[name]['accuracy']['mean']:.0f} %" for name in shown}
    plot.comparison(
        folder / "synthetic.png", shown, mean=work.data.mean, std=work.data.std,
        titles={name: f"{titles.get(name, name)}: {accuracies[name]}" for name in shown},
        class_names=work.data.class_names,
    )  # fmt: skip


def _seal(folder):
    """Record the files of a finished run and seal its manifest."""
    folder = pathlib.Path(folder)
    present = lambda names: [name for name in names if (folder / name).is_file()]
    figures = present((*_FIGURES, "weights.png", "embedding.png", "figures.npz"))
    manifest.record(folder, present(("config.json", "result.json", *store.PRODUCTS)))
    manifest.record(folder, figures, section="figures")
    manifest.seal(folder, manifest.describe(store.read_synthetic(folder / "synthetic.npz")))
