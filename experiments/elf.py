"""Does a teacher bring bias back into a debiased set, and how much does it add to a score?

    python -m experiments.elf --data-dir DIR

Coloured MNIST, 5 % bias-conflicting samples, at 16 pixels with 10,000 training and 2,000 test
images; ten images per class, distilled with density weights for 200 steps. Evaluation networks: a
ConvNet of width 16 and depth 2, and ResNet18 and VGG11 with a sixteenth of their channels, split
where they have 4×4 pixels; three networks each, 150 epochs. Two teachers (the same ConvNet, 300
updates) were trained, on batches drawn uniformly and by density weights. ELF and logit distillation
(kd) use either teacher, on the set, on random real images and on noise.

Hypotheses, written before the run: the unweighted teacher brings the bias back. With it, kd and ELF
have a lower accuracy on bias-conflicting samples than standard training on the same set; kd has the
lowest, because the logits predict the class of the colour, while ELF still has two losses on the
labels. The weighted teacher does not bring the bias back. With it, ELF improves the random subset
more than the distilled set, and noise is above chance: part of the score of ELF comes from the
teacher.

Cost: ten minutes on one core. This is not the scale of the literature, and a single set.
Result for ConvNet: biased logits bring the bias back and cost ten points on bias-conflicting
samples, as expected. Features of the biased teacher do not, against the hypothesis. With the
weighted teacher, kd gains more than ELF. ELF gains six times as much on a random, biased subset;
most of that score comes from the teacher. Noise stays at chance or below, against the hypothesis.
Result for ResNet18: with standard training it is 23 points worse than ConvNet. In contrast to
ConvNet it gains nine points by biased logits, and seven by biased features, although these networks
differ widely. VGG11 loses three points by biased logits and 20 by the features of either teacher.
"""

import functools
import pathlib
from typing import Any

import jax

from experiments.tools import grid, markdown, record, small
from jaxdd import networks, sampling, weights
from jaxdd.data import datasets
from jaxdd.runs import programs
from jaxdd.training import elf, teachers

OUT = grid.RESULTS / "elf.json"
_STAGES = tuple(tuple(n // 16 for n in stage) for stage in networks.VGG11(10).stages)
NETWORKS = {
    "convnet": small.STUDENT,
    "resnet18": networks.ResNet18(10, widths=(4, 8, 16, 32)),
    "vgg11-bn": networks.VGG11(10, networks.BatchNorm, stages=_STAGES),
}
# Each front yields 16 channels of 4×4 pixels, like the teacher. One object per network, so that its
# program is compiled once.
ELF = {
    name: functools.partial(elf.train, split=split)
    for name, split in {"convnet": 2, "resnet18": 7, "vgg11-bn": 3}.items()
}
ROWS = (
    ("standard", "none", "distilled"),
    ("kd", "as they are", "distilled"),
    ("elf", "as they are", "distilled"),
    ("kd", "weights", "distilled"),
    ("elf", "weights", "distilled"),
    ("standard", "none", "random"),
    ("elf", "weights", "random"),
    ("elf", "weights", "noise"),
)
"""Protocol, training data of the teacher, and set."""
WORDS = {
    "standard": "labels", "kd": "logits", "elf": "features (ELF)", "none": "–",
    "as they are": "biased data", "weights": "weighted data",
}  # fmt: skip


def prepare(data_dir: pathlib.Path | None) -> tuple[Any, dict[str, Any], dict[str, jax.Array]]:
    """Return the task, the teachers and the sets."""
    data = small.load("cmnist", data_dir, conflict=0.05)
    pool, task = datasets.pool(data), datasets.task(data)
    keys = jax.random.split(jax.random.key(0), 7)
    by_density = weights.by_density(keys[0], pool, strategy=task.strategy)
    weighted = sampling.reweight(pool, by_density.weights)
    start = sampling.initial_real(keys[1], weighted, ipc=small.IPC, weighted=True)
    distilled = small.match_distribution(keys[2], start, weighted, task.strategy, steps=200)
    train = jax.jit(
        functools.partial(
            teachers.train_teacher,
            network=small.STUDENT,
            sampler=functools.partial(sampling.weighted_batch, size=20),
            steps=300,
            strategy=task.strategy,
            learning_rate=0.05,
        )
    )
    pools = {"as they are": pool, "weights": weighted}
    sets = {
        "distilled": distilled,
        "random": sampling.initial_real(keys[4], pool, ipc=small.IPC),
        "noise": sampling.initial_noise(keys[5], pool, ipc=small.IPC),
    }
    return task, {name: train(keys[3], pool=pools[name]) for name in pools}, sets


def measure(name: str, protocol: str, teacher: Any, images: jax.Array, task: Any) -> dict[str, Any]:
    """Return the scores of a set by networks trained with a protocol, and the stored bytes."""
    training, extra = {}, None
    if protocol == "kd":
        training = {"train": teachers.train_on_logits, "arrays": {"teacher": teacher}}
    if protocol == "elf":
        flat = images.reshape(-1, *images.shape[2:])
        features = jax.jit(elf.teacher_features)(teacher, flat)
        training = {"train": ELF[name], "arrays": {"features": features}}
        extra = elf.extra_bytes(features, teacher)
    size = {"set_bytes": images.size * images.dtype.itemsize, "extra_bytes": extra}
    return size | small.score(images, task, NETWORKS[name], **training)


def tables(path: pathlib.Path = OUT) -> list[list[str]]:
    """Return the table of the results."""
    rows = []
    for title, row in record.measured(path).items():
        if title == "teachers":
            continue
        name, protocol, teacher, which = title.split(", ")
        numbers = [record.percent(row[score]) for score in ("accuracy", "conflicting")]
        rows.append([name, which, WORDS[protocol], WORDS[teacher], *numbers])
    titles = ("set", "training", "teacher trained on", "accuracy in %", "conflicting")
    titles = [markdown.link("network", path), *titles]
    return [markdown.table(titles, rows, left=range(4))]


def tasks(data_dir: pathlib.Path | None) -> record.Tasks:
    """Return functions that score each set, then the teachers."""
    programs.prepare()
    prepared = functools.cache(functools.partial(prepare, data_dir))

    def task(name, protocol, teacher, which):
        problem, known, sets = prepared()
        return measure(name, protocol, known.get(teacher), sets[which], problem)

    def score_teachers():
        problem, known, _ = prepared()
        scores = {
            name: small.score_network(teacher.network, teacher.params, problem)
            for name, teacher in known.items()
        }
        return {"scores": scores, "bytes": teachers.num_bytes(known["weights"])}

    rows = [(name, *row) for name in NETWORKS for row in ROWS]
    scores = {", ".join(row): functools.partial(task, *row) for row in rows}
    return scores | {"teachers": score_teachers}


if __name__ == "__main__":
    record.main(OUT, tasks, tables)
