"""Is curriculum frequency matching above real images and DM, by hard labels and by soft ones?

    python -m experiments.curriculum --preset quick --data-dir DIR

The quick preset is CIFAR-10 at ten images per class: 100 updates of each image, a teacher of width
32 and 600 updates, a quarter of an hour on two cores. The paper preset is CIFAR-10 and CIFAR-100
at ten and fifty images, 1,000 updates of each image, a ResNet18 with batch norm for the teacher and
for the networks that learn soft labels; published are 52.1 and 64.0 %, 58.3 and 67.1 %, with the
best epoch by the test set, where this has the last. With `--budget 9m` it stops after nine minutes
and goes on when it is run again, until it ends with exit code 0.

Networks that learn hard labels are ConvNets with instance norm; those of soft labels are that of
the teacher, which is the same for all sets (`teachers.train_on_soft_labels`). Three networks each,
one set; the random subset under the same labels says how much is the teacher's.

Expected before the run, after `experiments.cfm` had shown the same at a quarter of the pixels: by
hard labels CFM is above random images and below DM; by soft ones the three are within a point.

Found with the quick preset (24 November 2026, sixteen minutes of one core): by hard labels as
expected, 30.2 % against 28.6 of random images and 36.6 of DM. By soft ones random images and DM are
half a point apart, and CFM is one and a half below the first: not within a point, and not above
random under both. What soft labels give, 26 points to random images, is the teacher's.
"""

import dataclasses
import functools
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import tyro

from experiments.tools import grid
from experiments.tools.budget import deadline, seconds
from jaxdd.commands import scoring
from jaxdd.data import benchmarks, datasets, files
from jaxdd.runs import components, options, pipeline, programs
from jaxdd.runs import old_results as results
from jaxdd.runs.folder import store
from jaxdd.runs.scoring import matrix


class Plan(NamedTuple):
    """What a preset measures, and the network of teachers and of soft labels."""

    data: tuple[str, ...]
    ipcs: tuple[int, ...]
    teacher: str


PLANS = {
    "quick": Plan(("cifar10",), (10,), "convnet-bn"),
    "paper": Plan(("cifar10", "cifar100"), (10, 50), "resnet18-bn"),
}
SETS = ("random", "dm", "cfm")
NETWORKS = 3


class Bench:
    """A data set and a size: its sets, made in a folder when they are first asked for."""

    def __init__(
        self,
        data: datasets.Benchmark,
        work: pathlib.Path,
        *,
        ipc: int,
        teacher: str,
        **given: Any,
    ):
        self.data, self.ipc, self.work = data, ipc, work / f"{data.name}-{ipc}"
        self.teachers, self.teacher = work / f"{data.name}-teachers", teacher
        common: dict[str, Any] = dict(ipc=ipc, eval_seeds=NETWORKS, **given)
        guided = dict(method="cfm", teacher=teacher, buffer_path=str(self.teachers))
        self.asked: dict[str, Any] = {
            "dm": options.make(**common),
            "cfm": options.make(**guided, **common),
        }
        self.compared = functools.cache(self.compared)

    def cells(self) -> Iterator[matrix.Cell]:
        """Every set by hard labels, and by soft ones with each network."""
        for name in SETS:
            asked = dataclasses.asdict(self.asked["cfm"]) | {"buffer_path": None}
            told = {"data": self.data.name, "ipc": self.ipc, "set": name, "options": asked}
            title = f"{self.data.name} {self.ipc} {name}"
            hard = functools.partial(self.hard, name)
            yield matrix.Cell(f"{title} hard", files.to_json(told | {"labels": "hard"}), hard)
            for seed in range(NETWORKS):
                settings = files.to_json(told | {"labels": "soft", "seed": seed})
                soft = functools.partial(self.soft, name, seed)
                yield matrix.Cell(f"{title} soft {seed}", settings, soft)

    def compared(self, name: str) -> tuple[dict[str, Any], pathlib.Path]:
        """The rows of a comparison, by hard labels, and the folder of its set."""
        folder = self.work / name
        given: dict[str, Any] = dict(rows=["none"], report=log, resume=folder.exists())
        table = pipeline.compare(self.data, folder, self.asked[name], **given)
        return table["rows"], folder / "rows" / "none"

    def hard(self, name: str) -> dict[str, Any]:
        """The scores of a set by hard labels."""
        rows, _ = self.compared("cfm" if name == "cfm" else "dm")
        row = rows["random" if name == "random" else "none"]
        return {score: row[score] for score in results.SCORES}

    def soft(self, name: str, seed: int) -> dict[str, Any]:
        """The scores of a set by the opinion of the teacher, with one network."""
        self.compared("cfm")  # which trains the teacher
        asked = self.asked["dm"]
        if name == "random":
            images = components.subset(datasets.pool(self.data), asked, weighted=False)
        else:
            _, folder = self.compared(name)
            images = store.read_synthetic(folder / "synthetic.npz").images
        labels = np.arange(len(images)).repeat(images.shape[1])
        teacher = scoring.read_teacher(self.teachers / "none", self.data)
        (cell,) = matrix.cells(
            np.asarray(images).reshape(-1, *images.shape[2:]),
            labels,
            self.data,
            dataclasses.replace(asked, eval_seeds=1, seed=seed),
            names=(self.teacher,),
            protocols=("soft",),
            teacher=matrix.TeacherOptions(teacher=teacher),
            report=log,
        )
        return cell.score()


def log(task: str, done: int, total: int, **_: Any) -> None:
    """Says on stderr what is done, and when."""
    if done in (0, total):
        print(time.strftime("%H:%M:%S"), task, f"{done}/{total}", file=sys.stderr, flush=True)


def lines(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of the table of what was measured."""
    rows, found = files.read_json(path).values(), {}
    for row in rows:
        of = row["data"], row["ipc"], row["set"]
        found.setdefault(of, {}).setdefault(row["labels"], []).extend(row["accuracy"]["each"])
    yield f"| [data](experiments/results/{path.name}) | ipc | set | hard labels | soft labels |"
    yield "|---|--:|---|--:|--:|"
    for (data, ipc, name), labels in found.items():
        numbers = (_percent(labels.get(each)) for each in ("hard", "soft"))
        yield f"| {' | '.join([data, str(ipc), name, *numbers])} |"


def _percent(each):
    if not each:
        return "–"
    return results.percent({"mean": np.mean(each), "std": np.std(each, ddof=1), "n": len(each)})


def main(
    *,
    preset: Literal["quick", "paper"] = "quick",
    data_dir: pathlib.Path | None = None,
    budget: str | None = None,
    work: pathlib.Path = files.CACHE / "experiments" / "curriculum",
    out: pathlib.Path | None = None,
) -> None:
    """Makes the sets and scores them, and goes on where it stopped.

    Args:
        preset: quick fits two CPU cores, paper one GPU.
        data_dir: folder with the original files.
        budget: time after which to stop, such as 90s, 20m or 1h.
        work: folder for checkpoints and sets.
        out: JSON file; by default results/curriculum-PRESET.json.
    """
    out = grid.RESULTS / f"curriculum-{preset}.json" if out is None else out
    plan, where = PLANS[preset], work.expanduser() / preset
    programs.prepare()
    try:
        with deadline(None if budget is None else seconds(budget)):
            for name in plan.data:
                data = benchmarks.load(name, data_dir=data_dir)
                for ipc in plan.ipcs:
                    bench = Bench(data, where, ipc=ipc, teacher=plan.teacher, preset=preset)
                    matrix.fill(out, bench.cells())
    except (KeyboardInterrupt, pipeline.Interrupted):
        print("stopped; run the command again", file=sys.stderr)
        sys.exit(3)
    print("\n".join(lines(out)))


if __name__ == "__main__":
    tyro.cli(main)
