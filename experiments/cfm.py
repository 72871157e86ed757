"""What is curriculum frequency matching worth beside DM and real images, and where do weights help?

    python -m experiments.cfm --data-dir DIR

Coloured MNIST with 5 % bias-conflicting samples and CIFAR-10, both halved to 14 and 16 pixels and
cut to 10,000 training and 2,000 test images, ten images per class. The teacher is a ConvNet of
width 16 and depth 2 with batch norm, 600 updates; each image takes 200 updates (β from 0.1, floor
0.001, η 0.1, Φ, crops of at least half of the area, since 8 % of so few pixels is nothing). Three
networks each, 150 epochs; with soft labels they are that of the teacher, and learn from its
opinion alone. A tenth of the literature's updates on a quarter of its pixels, and thus no measure
of CFM at its own scale. What stopped runs left is kept; a table without all rows is one that was
stopped.

On coloured MNIST weights enter the initial images, the teacher, Ψ and Φ. All four follow density
weights, those that are chosen (auto) or the bias labels (oracle); with the latter also each of
teacher, Ψ and Φ alone, and all three, from initial images that are drawn uniformly.

Hypotheses, written before the run. Without weights CFM copies the colour, as DM does: its first
images match the directions of most variance, and colour is one. The teacher is worth most of the
three, since the cross-entropy names the class; Φ some, as it is what the class means differ by; Ψ
next to nothing, because a covariance over all classes hardly knows which colour belongs to which.
Density weights come within two points of the oracle. On CIFAR-10 CFM beats random images with hard
labels, but by less than DM does, as published; with soft labels random images gain most, and the
order of the three is no longer that of hard labels.

Anchors (RDED, `experiments.tools.anchors`) stand beside them: four patches of real images side by side, of
which the same teacher is surest, without any descent. Supposed before their run: without weights
the surest patches are those with the colour of the class, and networks do worse on conflicting
samples than with random images; where each place is taken by the surest of its own candidates
(stratified) less so; with density weights in teacher and candidates they come near the weighted
real images with hard labels, and above them with soft ones, which they were made for.

Found. Without weights networks do worse on conflicting samples than with random images, as
supposed. The teacher is worth all there is; Φ alone nothing, against the hypothesis, and Ψ nothing,
as supposed. Density weights come within two points of the oracle, and neither is worth much: the
weighted real images that the sets start from are better by forty points with hard labels, by
twenty-five with soft ones. On CIFAR-10 CFM is above random with hard labels by little more than the
spread, and far below DM; with soft labels the three cannot be told apart, random having gained
most. So CFM is not above random under both. It may be the narrow teacher, or the few pixels: that
is for the literature's scale to say. Anchors are of no use at this size: with hard labels networks
guess, since what they train on are quarters of images, and augmentation does not enlarge them as
the random crops of RDED's evaluation do; with soft labels weights bring 15 to 18 points on
conflicting samples, as supposed, and stratified places next to nothing, against what was supposed,
but whole real images under the same labels are better by forty.
"""

import functools
import pathlib
import sys
import time
from collections.abc import Container, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tyro

from experiments.elf import halved
from experiments.tools import anchors, grid
from jaxdd import augment, evaluate, methods, networks, sampling, training, weights
from jaxdd.data import benchmarks, datasets, files
from jaxdd.methods import cfm
from jaxdd.runs import old_results as results
from jaxdd.runs import programs
from jaxdd.runs.folder import guides
from jaxdd.training import teachers

IPC, UPDATES, LESSONS, EPOCHS, NETWORKS = 10, 200, 600, 150, 3
STUDENT = networks.ConvNet(10, 16, 2)
TEACHER = networks.ConvNet(10, 16, 2, norm=networks.BatchNorm)
SAMPLER = functools.partial(sampling.weighted_batch, size=13)
NONE, ALL = (), ("init", "teacher", "covariance", "signal")

SETS = {
    "cmnist": {
        "random": None,
        "random-kde": None,
        "none": ("oracle", NONE),
        "kde": ("kde", ALL),
        "auto": ("auto", ALL),
        "oracle": ("oracle", ALL),
        "oracle: teacher": ("oracle", ("teacher",)),
        "oracle: Ψ": ("oracle", ("covariance",)),
        "oracle: Φ": ("oracle", ("signal",)),
        "oracle: all three": ("oracle", ALL[1:]),
    },
    "cifar10": {"random": None, "dm": None, "none": ("oracle", NONE)},
}
"""Sets of each data set: real images, DM, or CFM with weights and where these enter."""

ANCHORS = {
    "anchors": (None, False),
    "anchors, stratified": (None, True),
    "anchors, kde": ("kde", False),
    "anchors, kde, stratified": ("kde", True),
}
"""Weights of the teacher and the candidates, and whether each place has candidates of its own."""

ROWS = [
    *(("cmnist", name, "plain") for name in SETS["cmnist"]),
    *(("cmnist", name, "soft") for name in ("random-kde", "kde")),
    *(("cifar10", name, protocol) for protocol in ("plain", "soft") for name in SETS["cifar10"]),
    *(("cmnist", name, protocol) for name in ANCHORS for protocol in ("plain", "soft")),
    *(("cifar10", "anchors", protocol) for protocol in ("plain", "soft")),
]
"""Data set, set and protocol; the teacher of soft labels saw the data by the set's weights."""


@functools.cache
def cropping(flip: bool) -> Any:
    """The augmentation of CFM."""
    return functools.partial(augment.resized_crop, least=0.5, flip=flip, shift=2)


@functools.cache
def matching(flip: bool) -> methods.Method:
    """CFM, one object for all sets of a data set, whose program is compiled once."""
    optimizer = optax.adam(optax.cosine_decay_schedule(0.25, UPDATES), 0.5, 0.9)
    return methods.curriculum_matching(TEACHER, optimizer, length=UPDATES, strategy=cropping(flip))


class Bench:
    """A data set at this size, and what is made of it: pools by weights, teachers, sets."""

    def __init__(self, name: str, data_dir: pathlib.Path | None, *, conflict: float = 0.05):
        asked = {} if name == "cifar10" else {"conflict": conflict}
        data = benchmarks.load(name, data_dir=data_dir, **asked)
        data = data._replace(train=halved(data.train, 10_000), test=halved(data.test, 2_000))
        self.name, self.data = name, data
        self.task, self.pool = datasets.task(data), datasets.pool(data)
        self.keys = jax.random.split(jax.random.key(0), 7)
        self.weighted = functools.cache(self.weighted)
        self.teacher = functools.cache(self.teacher)

    def weighted(self, kind: str | None) -> sampling.Pool:
        """The pool by a kind of weights, None for uniform ones."""
        if kind is None:
            return self.pool
        if kind == "kde":
            found = weights.by_density(self.keys[0], self.pool, strategy=self.task.strategy).weights
        elif kind == "auto":
            found = weights.choose(self.keys[0], self.pool, strategy=self.task.strategy).weights
        else:
            count = self.data.num_attributes
            found = weights.oracle(self.pool, self.data.train.attributes, num_attributes=count)
        return sampling.reweight(self.pool, found)

    def teacher(self, kind: str | None) -> Any:
        """The parameters of a teacher of the data by a kind of weights."""
        strategy = self.task.strategy
        course = guides.course(TEACHER, steps=LESSONS, rate=0.1, strategy=strategy)
        pool = self.weighted(kind)
        first = sampling.take(pool, jnp.zeros(1, int))
        state = course.init(jax.jit(TEACHER.init)(self.keys[1], first))
        given: dict[str, Any] = dict(method=course, sampler=SAMPLER, steps=LESSONS, chunk_length=50)
        *_, (_, state, _) = methods.run(self.keys[2], state, pool, **given)
        log(f"{self.name} teacher {kind}")
        return training.merge_params(state)

    def images(self, name: str) -> jax.Array:
        """A set `[k, ipc, h, w, c]`."""
        if name == "random":
            return sampling.initial_real(self.keys[4], self.pool, ipc=IPC)
        if name == "random-kde":
            return sampling.initial_real(self.keys[3], self.weighted("kde"), ipc=IPC, weighted=True)
        if name == "dm":
            return self.matched()
        if name in ANCHORS:
            kind, stratified = ANCHORS[name]
            teacher = teachers.Teacher(self.teacher(kind), TEACHER)
            given: dict[str, Any] = dict(ipc=IPC, least=0.5, stratified=stratified)
            select = jax.jit(functools.partial(anchors.select, **given))
            return select(self.keys[6], self.weighted(kind), teacher).images
        return self.descended(*SETS[self.name][name])

    def descended(self, kind: str, where: Sequence[str]) -> jax.Array:
        """The set of CFM by a kind of weights, out of `ALL` where these enter."""
        of = {part: self.weighted(kind if part in where else None) for part in ALL}
        params = self.teacher(kind if "teacher" in where else None)
        guide = measure(params, of["covariance"], signals=of["signal"])
        start = sampling.initial_real(self.keys[3], of["init"], ipc=IPC, weighted=True)
        method, steps = matching("flip" in self.task.strategy), IPC * UPDATES
        given: dict[str, Any] = dict(
            method=method, sampler=cfm.guide_sampler, steps=steps, chunk_length=100
        )
        *_, (_, state, _) = methods.run(self.keys[5], method.init(start), guide, **given)
        log(f"{self.name} cfm {kind} {where} distilled")
        return state.images

    def matched(self) -> jax.Array:
        """The set of distribution matching, from the same initial images."""
        strategy = self.task.strategy
        method = methods.distribution_matching(STUDENT, optax.sgd(1.0, 0.5), strategy=strategy)
        state = method.init(sampling.initial_real(self.keys[3], self.pool, ipc=IPC, weighted=True))
        sampler = functools.partial(sampling.weighted_batch, size=64)
        given: dict[str, Any] = dict(method=method, sampler=sampler, steps=400)
        *_, (_, state, _) = methods.run(self.keys[5], state, self.pool, **given)
        log(f"{self.name} dm distilled")
        return state.images

    def scores(self, name: str, images: jax.Array, protocol: str) -> dict[str, Any]:
        """The scores of a set, as in a result."""
        keys = jax.random.split(jax.random.key(1), NETWORKS)
        given: dict[str, Any] = dict(epochs=EPOCHS)
        if protocol == "plain":
            return evaluate.summary(evaluate.evaluate(keys, STUDENT, images, self.task, **given))
        params = self.teacher("kde" if "kde" in name else None)
        arrays = {"teacher": teachers.Teacher(params, TEACHER)}
        given |= dict(train=teachers.train_on_soft_labels, arrays=arrays)
        return evaluate.summary(evaluate.evaluate(keys, TEACHER, images, self.task, **given))

    def judged(self) -> dict[str, dict[str, float]]:
        """Accuracies of the teachers that were made."""
        predict, task, found = jax.jit(functools.partial(evaluate.predict, TEACHER)), self.task, {}
        codes = task.labels, task.attributes, task.aligned
        sizes = dict(num_classes=task.num_classes, num_attributes=task.num_attributes)
        for kind in (None, "kde", "oracle") if self.name == "cmnist" else (None,):
            guesses = predict(self.teacher(kind), task.images, mean=task.mean, std=task.std)
            scores = evaluate.score(guesses, *codes, **sizes)
            found[str(kind)] = {n: float(getattr(scores, n)) for n in ("accuracy", "conflicting")}
        return found


measure = jax.jit(functools.partial(cfm.guide, TEACHER))


def log(text: str) -> None:
    """Says on stderr what is done, and when."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def made(
    data_dir: pathlib.Path | None,
    done: Sequence[dict[str, Any]] = (),
    judged: Container[str] = (),
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yields rows that are not done, and how good the teachers are of data not judged before."""
    have = {(row["data"], row["set"], row["protocol"]) for row in done}
    missing = [row for row in ROWS if row not in have]
    for name in dict.fromkeys(row[0] for row in missing):
        bench = Bench(name, data_dir)
        images = functools.cache(bench.images)
        for row in (row for row in missing if row[0] == name):
            found = bench.scores(row[1], images(row[1]), row[2])
            log(" ".join(row))
            about = dict(zip(("data", "set", "protocol"), row, strict=True))
            size = {"set_bytes": images(row[1]).size * 4}
            yield about | size | found, {} if name in judged else {name: bench.judged()}


def lines(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of the table of what was measured."""
    titles = ("labels", "accuracy", "conflicting", "n, one set")
    yield f"| [data](experiments/results/{path.name}) | set | {' | '.join(titles)} |"
    yield "|---|---|---|--:|--:|--:|"
    place = lambda row: ROWS.index((row["data"], row["set"], row["protocol"]))
    for row in sorted(files.read_json(path)["rows"], key=place):
        name = "DM" if row["set"] == "dm" else row["set"]
        name = f"CFM, {name}" if SETS[row["data"]].get(name) else name
        labels = "soft" if row["protocol"] == "soft" else "hard"
        numbers = [results.percent(row[score]) for score in ("accuracy", "conflicting")]
        yield f"| {' | '.join([row['data'], name, labels, *numbers, str(row['accuracy']['n'])])} |"


def main(
    *, data_dir: pathlib.Path | None = None, out: pathlib.Path = grid.RESULTS / "cfm.json"
) -> None:
    """Makes the sets and scores them.

    It writes after every row, and keeps rows that the file has.

    Args:
        data_dir: folder with the original files.
        out: JSON file.
    """
    programs.prepare()
    before = files.read_json(out) if out.exists() else {"rows": [], "teachers": {}}
    rows, judged = before["rows"], before["teachers"]
    for row, teacher in made(data_dir, rows, judged):
        rows.append(row)
        judged |= teacher
        files.write_json(out, results.circumstances() | {"teachers": judged, "rows": rows})
    print("\n".join(lines(out)))


if __name__ == "__main__":
    tyro.cli(main)
