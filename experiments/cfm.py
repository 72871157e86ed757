"""How accurate is curriculum frequency matching (CFM), and which parts need weights?

    python -m experiments.cfm --data-dir DIR

Coloured MNIST, 5 % bias-conflicting samples, and CIFAR-10, at 14 and 16 pixels with 10,000 training
and 2,000 test images, ten images per class. The teacher is a ConvNet of width 16 and depth 2 with
batch norm, 600 updates; each image takes 200 updates (β from 0.1, floor 0.001, η 0.1, Φ, crops of
at least half of the area). Three networks each, 150 epochs; with soft labels they have the network
of the teacher and learn from its predictions alone.

On coloured MNIST weights enter the initial images, the teacher, Ψ and Φ. All four use density
weights, auto, or the bias labels (oracle). With the oracle, each of teacher, Ψ and Φ is also
weighted alone, and all three with uniformly drawn initial images. RDED
(`experiments.tools.anchors`) takes the crops of real images that the same teacher classifies best,
without gradient descent: one crop per image, as the authors do for small images.

Hypotheses, written before the run: without weights CFM copies the colour like DM. The teacher
matters most, because its cross-entropy depends on the class. Φ matters less, and Ψ hardly, because
a covariance over all classes contains little information on which colour belongs to which class.
Density weights are within two points of the oracle. On CIFAR-10 CFM is better than random images
with hard labels, by less than DM. With soft labels random images gain most, and the order changes.
Without weights RDED's images show the colour of the class and are worse than random images on
bias-conflicting samples, less so if each place has its own candidates (stratified); with density
weights they are close to the weighted real images with hard labels, and better with soft labels.

Cost: a tenth of the literature's updates on a quarter of its pixels, which is not its scale.
Result: without weights networks do worse on bias-conflicting samples than with random images, as
expected. Weighting the teacher has the whole effect; weighting Φ alone has none, against the
hypothesis, and weighting Ψ has none. Density weights are within two points of the oracle, but
neither is useful: the weighted real images that the sets start from are better by forty points with
hard labels and by twenty-five with soft ones. On CIFAR-10 with hard labels, CFM is barely above
random and far below DM; with soft labels the three are indistinguishable. RDED is six points better
than random images on CIFAR-10 with hard labels and equal with soft ones. On coloured MNIST it needs
weights, which gain 30 points on bias-conflicting samples with hard labels and 50 with soft ones.
With density weights it is far better than CFM, but 21 and 6 points below the weighted real images,
against the hypothesis. Stratified places do not help.
"""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.tools import anchors, grid, markdown, record, small
from jaxdd import augment, methods, networks, sampling, training
from jaxdd.data import datasets
from jaxdd.methods import cfm
from jaxdd.runs import pretrained, programs
from jaxdd.training import teachers

OUT = grid.RESULTS / "cfm.json"
UPDATES, TEACHER_STEPS = 200, 600
TEACHER = networks.ConvNet(10, 16, 2, norm=networks.BatchNorm)
SAMPLER = functools.partial(sampling.weighted_batch, size=13)
NONE, ALL = (), ("init", "teacher", "covariance", "signal")

SETS = {
    "cmnist": {
        "random": None,
        "random-density": None,
        "plain": ("oracle", NONE),
        "density": ("density", ALL),
        "auto": ("auto", ALL),
        "oracle": ("oracle", ALL),
        "oracle: teacher": ("oracle", ("teacher",)),
        "oracle: Ψ": ("oracle", ("covariance",)),
        "oracle: Φ": ("oracle", ("signal",)),
        "oracle: all three": ("oracle", ALL[1:]),
    },
    "cifar10": {"random": None, "dm": None, "plain": ("oracle", NONE)},
}
"""Sets of each data set: real images, DM, or CFM with a kind of weights and the weighted parts."""

RDED = {
    "rded": ("plain", False),
    "rded, stratified": ("plain", True),
    "rded, density": ("density", False),
    "rded, density, stratified": ("density", True),
}
"""Weights of the teacher and the candidates, and whether each place has its own candidates."""

PROTOCOLS = ("standard", "soft")
ROWS = [
    *(("cmnist", name, "standard") for name in SETS["cmnist"]),
    *(("cmnist", name, "soft") for name in ("random-density", "density")),
    *(("cifar10", name, protocol) for protocol in PROTOCOLS for name in SETS["cifar10"]),
    *(("cmnist", name, protocol) for name in RDED for protocol in PROTOCOLS),
    *(("cifar10", "rded", protocol) for protocol in PROTOCOLS),
]
"""Data set, set and protocol; the teacher of soft labels was trained with the set's weights."""


@functools.cache
def matching(flip: bool) -> methods.Method:
    """Return CFM, one object per augmentation, so that its program is compiled once."""
    optimizer = optax.adam(optax.cosine_decay_schedule(0.25, UPDATES), 0.5, 0.9)
    crop = functools.partial(augment.resized_crop, min_area=0.5, flip=flip, shift=2)
    return methods.curriculum_matching(TEACHER, optimizer, length=UPDATES, strategy=crop)


class Bench:
    """A data set at this size with its weighted pools, teachers and sets, each made once."""

    def __init__(self, name: str, data_dir: pathlib.Path | None, *, conflict: float = 0.05):
        fields = {} if name == "cifar10" else {"conflict": conflict}
        self.name, self.data = name, small.load(name, data_dir, **fields)
        self.task, self.pool = datasets.task(self.data), datasets.pool(self.data)
        self.keys = jax.random.split(jax.random.key(0), 7)
        # Cached per object: a cache on the method would keep all data sets in memory.
        for method in ("weighted", "teacher", "images"):
            setattr(self, method, functools.cache(getattr(self, method)))

    def weighted(self, kind: str) -> sampling.Pool:
        """Return the pool with a kind of weights."""
        if kind == "plain":
            return self.pool
        values = small.weigh(kind, self.keys[0], self.pool, self.data)
        return sampling.reweight(self.pool, values)

    def teacher(self, kind: str) -> Any:
        """Return the parameters of a teacher trained with a kind of weights."""
        strategy = self.task.strategy
        course = pretrained.teacher_training(
            TEACHER, steps=TEACHER_STEPS, rate=0.1, strategy=strategy
        )
        pool = self.weighted(kind)
        first = sampling.take(pool, jnp.zeros(1, int))
        state = course.init(jax.jit(TEACHER.init)(self.keys[1], first))
        loop = dict(sampler=SAMPLER, steps=TEACHER_STEPS, chunk_length=50)
        return training.merge_params(small.run(self.keys[2], state, pool, method=course, **loop))

    def images(self, name: str) -> jax.Array:
        """Return a set `[k, ipc, h, w, c]`."""
        initial = functools.partial(sampling.initial_real, ipc=small.IPC)
        if name == "random":
            return initial(self.keys[4], self.pool)
        if name == "random-density":
            return initial(self.keys[3], self.weighted("density"), weighted=True)
        if name == "dm":
            start = initial(self.keys[3], self.pool, weighted=True)
            arguments = self.keys[5], start, self.pool, self.task.strategy
            return small.match_distribution(*arguments, steps=400)
        if name in RDED:
            kind, stratified = RDED[name]
            teacher = teachers.Teacher(self.teacher(kind), TEACHER)
            settings: Any = dict(ipc=small.IPC, stratified=stratified)
            select = jax.jit(functools.partial(anchors.select, **settings))
            return select(self.keys[6], self.weighted(kind), teacher).images
        return self.match_curriculum(*SETS[self.name][name])

    def match_curriculum(self, kind: str, parts: Sequence[str]) -> jax.Array:
        """Return the set of CFM with a kind of weights in some of the parts `ALL`."""
        pools = {part: self.weighted(kind if part in parts else "plain") for part in ALL}
        params = self.teacher(kind if "teacher" in parts else "plain")
        guide = measure_guide(params, pools["covariance"], signals=pools["signal"])
        start = sampling.initial_real(self.keys[3], pools["init"], ipc=small.IPC, weighted=True)
        method = matching("flip" in self.task.strategy)
        loop = dict(sampler=cfm.guide_sampler, steps=small.IPC * UPDATES, chunk_length=100)
        return small.run(self.keys[5], method.init(start), guide, method=method, **loop).images

    def score(self, name: str, protocol: str = "standard") -> dict[str, Any]:
        """Return the scores of a set."""
        size = {"set_bytes": self.images(name).size * 4}
        if protocol == "standard":
            return size | small.score(self.images(name), self.task)
        params = self.teacher("density" if "density" in name else "plain")
        arrays = {"teacher": teachers.Teacher(params, TEACHER)}
        soft: Any = dict(train=teachers.train_on_soft_labels, arrays=arrays)
        return size | small.score(self.images(name), self.task, TEACHER, **soft)

    def score_teachers(self) -> dict[str, dict[str, float]]:
        """Return the accuracies of the teachers."""
        kinds = ("plain", "density", "oracle") if self.name == "cmnist" else ("plain",)
        return {kind: small.score_network(TEACHER, self.teacher(kind), self.task) for kind in kinds}


measure_guide = jax.jit(functools.partial(cfm.guide, TEACHER))


def tables(path: pathlib.Path = OUT) -> list[list[str]]:
    """Return the table of the results."""
    measured, rows = record.measured(path), []
    for dataset, name, protocol in ROWS:
        if (row := measured.get(", ".join([dataset, name, protocol]))) is None:
            continue
        title = f"CFM, {name}" if SETS[dataset].get(name) else name.replace("rded", "RDED")
        title = "DM" if name == "dm" else title
        numbers = [record.percent(row[score]) for score in ("accuracy", "conflicting")]
        labels = "soft" if protocol == "soft" else "hard"
        rows.append([dataset, title, labels, *numbers])
    titles = (markdown.link("data", path), "set", "labels", "accuracy in %", "conflicting")
    return [markdown.table(titles, rows, left=range(3))]


def tasks(data_dir: pathlib.Path | None) -> record.Tasks:
    """Return functions that make and score each set, then the teachers."""
    programs.prepare()
    bench = functools.cache(functools.partial(Bench, data_dir=data_dir))
    scores = {
        ", ".join([name, *row]): lambda name=name, row=row: bench(name).score(*row)
        for name, *row in ROWS
    }
    teachers = {
        f"{name}, teachers": lambda name=name: bench(name).score_teachers() for name in SETS
    }
    return scores | teachers


if __name__ == "__main__":
    record.main(OUT, tasks, tables)
