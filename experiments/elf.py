"""Does a teacher carry bias back into a de-biased set, and how much of a score is the teacher's?

    python -m experiments.elf --data-dir DIR

Coloured MNIST with 5 % bias-conflicting samples, halved to 16 pixels, 10,000 training and 2,000
test images, ten images per class, distilled with density weights for 200 steps. A ConvNet of width
16 and depth 2, and ResNet18 and VGG11 with a sixteenth of their channels, split where they have 4×4
pixels; three networks each, 150 epochs. Two teachers (the same ConvNet, 300 updates) saw the same
data, as they are and drawn by the density weights. ELF and logit distillation (kd) use either, on
the set, and on a random subset of real images and on noise in its place. Ten minutes of one core,
and thus no measure of these methods at the literature's scale. What stopped runs left is kept; a
table without all networks is one that was stopped.

Hypotheses, written before the run. The teacher of the data as they are carries the bias back: with
it kd and ELF have a lower conflicting accuracy than plain training on the same set, kd the lowest,
because its logits name the class of the colour, while ELF still has two losses on the labels. The
teacher of the weights does not. With that one, ELF lifts the random subset by more than the
distilled set, and noise above chance: a part of what ELF shows is then the teacher's.

Found, for the ConvNet. Logits carry the bias back, as supposed, and cost ten points of conflicting
accuracy against plain training. Features of the biased teacher do not, which refutes the half of
the hypothesis about ELF. With the teacher of the weights, kd gains more than ELF. ELF gains six
times as much on a random, biased subset, which has more to gain, and most of that score is the
teacher's. Noise stays at chance or below, against the hypothesis.

ResNet18 and VGG11, whose networks differ by far more, gain as much by kd from the teacher of the
weights, and lose little or nothing by the biased logits, but much by the biased features (13 and 33
points), the other way round. VGG11 loses by the features of the other teacher as well (7), so that
in a network that is not the teacher's ELF is harmful by itself here. All of this is one set.
"""

import functools
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import optax
import tyro

from experiments.tools import grid
from jaxdd import evaluate, methods, networks, sampling, training, weights
from jaxdd.data import benchmarks, datasets, files
from jaxdd.runs import old_results as results
from jaxdd.runs import programs
from jaxdd.training import elf, teachers

IPC, EPOCHS, NETWORKS = 10, 150, 3
STAGES = tuple(tuple(n // 16 for n in stage) for stage in networks.VGG11(10).stages)
JUDGES = {
    "convnet": networks.ConvNet(10, 16, 2),
    "resnet18": networks.ResNet18(10, widths=(4, 8, 16, 32)),
    "vgg11-bn": networks.VGG11(10, networks.BatchNorm, stages=STAGES),
}
ELF = {
    name: functools.partial(elf.train, split=split)
    for name, split in {"convnet": 2, "resnet18": 7, "vgg11-bn": 3}.items()
}
"""Each front gives 16 channels of 4×4 pixels, as the teacher. One object each, as a program."""

ROWS = (
    ("plain", "none", "distilled"),
    ("kd", "as they are", "distilled"),
    ("elf", "as they are", "distilled"),
    ("kd", "weights", "distilled"),
    ("elf", "weights", "distilled"),
    ("plain", "none", "random"),
    ("elf", "weights", "random"),
    ("elf", "weights", "noise"),
)
"""Protocol, what the teacher was trained on, and the set."""


def prepared(data_dir: pathlib.Path | None) -> tuple[Any, dict[str, Any], dict[str, jax.Array]]:
    """The task, the teachers and the sets."""
    data = benchmarks.load("cmnist", data_dir=data_dir, conflict=0.05)
    data = data._replace(train=halved(data.train, 10_000), test=halved(data.test, 2_000))
    pool, task = datasets.pool(data), datasets.task(data)
    keys = jax.random.split(jax.random.key(0), 7)
    found = weights.by_density(keys[0], pool, strategy=task.strategy)
    weighted = sampling.reweight(pool, found.weights)
    judge = JUDGES["convnet"]
    method = methods.distribution_matching(judge, optax.sgd(1.0, 0.5), strategy=task.strategy)
    sampler = functools.partial(sampling.weighted_batch, size=64)
    state = method.init(sampling.initial_real(keys[1], weighted, ipc=IPC, weighted=True))
    run = methods.run(keys[2], state, weighted, method=method, sampler=sampler, steps=200)
    *_, (_, state, _) = run
    _log("distilled")
    teach = jax.jit(
        functools.partial(
            teachers.train_teacher,
            network=judge,
            sampler=functools.partial(sampling.weighted_batch, size=20),
            steps=300,
            strategy=task.strategy,
            learning_rate=0.05,
        )
    )
    known = {
        name: teach(keys[3], pool=each)
        for name, each in {"as they are": pool, "weights": weighted}.items()
    }
    sets = {
        "distilled": state.images,
        "random": sampling.initial_real(keys[4], pool, ipc=IPC),
        "noise": sampling.initial_noise(keys[5], pool, ipc=IPC),
    }
    return task, known, sets


def halved(split: datasets.Dataset, count: int) -> datasets.Dataset:
    """The first images at half of their height and width, by the mean of 2×2 pixels."""
    found = datasets.select(split, np.arange(count))
    n, height, width, channels = found.images.shape
    pixels = found.images.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))
    return found._replace(images=np.rint(pixels).astype(np.uint8))


def scored(
    task: Any,
    known: dict[str, Any],
    sets: dict[str, jax.Array],
    done: Sequence[dict[str, Any]] = (),
) -> Iterator[dict[str, Any]]:
    """Yields the row of every network, protocol, teacher and set, but those that are done."""
    names = ("network", "protocol", "teacher", "set")
    have = {tuple(row[each] for each in names) for row in done}
    keys = jax.random.split(jax.random.key(1), NETWORKS)
    for name, judge in JUDGES.items():
        for protocol, teacher, which in ROWS:
            if (name, protocol, teacher, which) in have:
                continue
            images, given, extra = sets[which], {}, None
            train: Callable[..., Any] = training.train
            if protocol == "kd":
                train, given = teachers.train_on_logits, {"teacher": known[teacher]}
            if protocol == "elf":
                flat = images.reshape(-1, *images.shape[2:])
                train = ELF[name]
                given = {"features": jax.jit(elf.teacher_features)(known[teacher], flat)}
                extra = elf.extra_bytes(given["features"], known[teacher])
            found = evaluate.evaluate(
                keys, judge, images, task, train=train, epochs=EPOCHS, arrays=given
            )
            _log(f"{name} {protocol} {teacher} {which}")
            about = dict(zip(names, (name, protocol, teacher, which), strict=True))
            size = {"set_bytes": images.size * images.dtype.itemsize, "extra_bytes": extra}
            yield about | size | evaluate.summary(found)


def _teachers(task: Any, known: dict[str, Any]) -> dict[str, Any]:
    """Accuracies of the teachers themselves."""
    found = {}
    for name, teacher in known.items():
        predict = jax.jit(functools.partial(evaluate.predict, teacher.network))
        predictions = predict(teacher.params, task.images, mean=task.mean, std=task.std)
        codes = task.labels, task.attributes, task.aligned
        sizes = dict(num_classes=task.num_classes, num_attributes=task.num_attributes)
        scores = evaluate.score(predictions, *codes, **sizes)
        found[name] = {each: float(getattr(scores, each)) for each in ("accuracy", "conflicting")}
    return found


def _log(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def lines(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of the table of what was measured."""
    found = files.read_json(path)
    titles = ("protocol", "teacher saw", "accuracy", "conflicting", "n, one set", "bytes beside")
    yield f"| [network](experiments/results/{path.name}) | set | {' | '.join(titles)} |"
    yield "|---|---|---|---|--:|--:|--:|--:|"
    for row in found["rows"]:
        beside = "0" if row["extra_bytes"] is None else str(min(row["extra_bytes"].values()))
        if row["protocol"] == "kd":
            beside = str(found["teacher_bytes"])
        numbers = [results.percent(row[score]) for score in ("accuracy", "conflicting")]
        numbers += [str(row["accuracy"]["n"]), f"{beside} ({row['set_bytes']})"]
        words = (row["network"], row["set"], row["protocol"], row["teacher"])
        yield f"| {' | '.join([*words, *numbers])} |"


def main(
    *,
    data_dir: pathlib.Path | None = None,
    out: pathlib.Path = grid.RESULTS / "elf.json",
) -> None:
    """Trains the teachers, makes the sets and scores them.

    It writes after every row, and keeps rows that the file has.

    Args:
        data_dir: folder with the original files.
        out: JSON file.
    """
    programs.prepare()
    task, known, sets = prepared(data_dir)
    judged = _teachers(task, known)
    size = teachers.num_bytes(known["weights"])
    about = results.circumstances() | {"teachers": judged, "teacher_bytes": size}
    _log(f"teachers {judged}")
    rows = files.read_json(out)["rows"] if out.exists() else []
    for row in scored(task, known, sets, rows):
        rows.append(row)
        files.write_json(out, about | {"rows": rows})
    print("\n".join(lines(out)))


if __name__ == "__main__":
    tyro.cli(main)
