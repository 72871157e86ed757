"""Do the results of 200 steps still hold after 20,000, the literature's number?

    python -m experiments.long --data-dir DIR --work WORK [--preset paper]

Coloured MNIST, 5 % bias-conflicting samples, distribution matching with ConvNets of width 32:
without weights, with density weights, with auto and with the oracle. Synthetic images start as real
images and have hardly changed after 200 steps, so amplification and its removal have to be checked
after longer runs. Three networks evaluate every set along the way.

One program distils the four sets. All of them use the same batches, so the features of the real
images are computed once. A batch of 64 per class is drawn by a mixture of the four weights, and its
features are averaged by the weights of each set (`sampling.mixture_batch`). The stored results of
width 32 are from batches that were drawn by the mean of the four weights. A stopped run continues.

A step of four sets leaves one of two cores idle half of the time. Two processes with one core and
two sets each take 30 % less; they use the same batches, and the last to end writes the table:

    taskset -c 0 python -m experiments.long --data-dir DIR --work WORK --rows plain density &
    taskset -c 1 python -m experiments.long --data-dir DIR --work WORK --rows auto oracle

Cost: two and a half hours on two cores with ten images per class, three with fifty. The preset
paper has the width, batches and evaluation of the literature, for a GPU.
"""

import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments.tools import grid, markdown, record, small
from jaxdd import evaluate, methods, networks, sampling
from jaxdd.data import benchmarks, datasets, files
from jaxdd.devices import microbatch
from jaxdd.runs import programs
from jaxdd.runs.folder import checkpoint

Row = Literal["plain", "density", "auto", "oracle"]
ROWS: tuple[Row, ...] = get_args(Row)
STEPS = (0, 200, 2000, 8000, 20_000)
CHUNK, SAVED = 20, 500


class Scale(NamedTuple):
    """Sizes of distillation and evaluation.

    Attributes:
        width: channels of the networks.
        batch: real images per class and step.
        epochs: epochs of an evaluation.
        count: networks that evaluate a set.
    """

    width: int = 32
    batch: int = 64
    epochs: int = 300
    count: int = 3

    def network(self, num_classes: int) -> networks.Network:
        """Return the network of distillation and evaluation."""
        return networks.ConvNet(num_classes, self.width, 3)


SCALES = {"quick": Scale(), "paper": Scale(128, 256, 1000, 5)}


def joint(
    method: methods.Method,
    features: Callable[[jax.Array, sampling.Batch], methods.Features],
    rows: Sequence[str],
) -> methods.Method:
    """Return a method for several sets that use the same batches with their own weights.

    Args:
        method: distribution matching of one set.
        features: from `methods.mean_features`.
        rows: names of the sets.
    """
    step = jax.vmap(method.step, in_axes=(None, 0, 0))

    def joint_step(key, state, batch):
        state, info = step(key, state, features(key, batch))
        return state, {"loss": info["loss"].mean()} | dict(zip(rows, info["loss"], strict=True))

    return methods.Method(jax.vmap(method.init), joint_step)


def distil(
    data: datasets.Benchmark,
    work: pathlib.Path,
    ipc: int,
    rows: Sequence[str],
    steps: int,
    scale: Scale = Scale(),
) -> Iterator[tuple[int, jax.Array, dict[str, float]]]:
    """Yield the step, the sets `[rows, k, ipc, h, w, c]` and the mean losses since the last.

    The state of a step is saved when the caller asks for the next.
    """
    # Processes with other rows use the same keys and mixture, so they draw the same images.
    keys = jax.random.split(jax.random.key(0), 3)
    pool, path = datasets.pool(data), work.parent / "weights.npz"
    if not path.exists():
        by_row = [small.weigh(row, keys[0], pool, data) for row in ROWS]
        files.write_arrays(path, {"weights": np.stack(by_row)})
        record.log("weights")
    by_row = jnp.asarray(files.read_arrays(path)["weights"])
    mixture, own = sampling.mixture(pool, by_row), jnp.array([ROWS.index(row) for row in rows])
    mixture, by_row = mixture._replace(weights=mixture.weights[:, own]), by_row[own]
    initial = functools.partial(sampling.initial_real, keys[1], ipc=ipc, weighted=True)
    start = jnp.stack([initial(sampling.reweight(pool, row)) for row in by_row])
    network = scale.network(data.num_classes)
    fields: dict[str, Any] = dict(strategy=data.strategy, activation_bytes=microbatch.CORE_BYTES)
    matching = methods.distribution_matching(network, optax.sgd(1.0, momentum=0.5), **fields)
    method = joint(matching, methods.mean_features(network, **fields), rows)
    state = method.init(start)
    first, state = checkpoint.restore(work, state) or (0, state)
    yield first, state.images, {}
    sampler = functools.partial(sampling.mixture_batch, size=scale.batch)
    chunks = methods.run(
        keys[2], state, mixture, method=method, sampler=sampler, steps=max(steps, first),
        first=first, chunk_length=CHUNK,
    )  # fmt: skip
    losses = []
    for step, state, info in chunks:
        losses.append([float(info[row].mean()) for row in rows])
        if step % SAVED == 0 or step in STEPS:
            yield step, state.images, dict(zip(rows, np.mean(losses, 0), strict=True))
            checkpoint.save(work, step, jax.device_get(state))
            losses = []


def tables() -> list[list[str]]:
    """Return the tables of scores along the way, for both sizes."""
    return [
        table(path, score)
        for path in sorted(grid.RESULTS.glob("long-*.json"))
        for score in ("conflicting", "accuracy")
    ]


def table(path: pathlib.Path, score: str) -> list[str]:
    """Return the table of a score along the way."""
    points = [point for point in files.read_json(path)["way"] if point["scores"]]
    rows = [
        [f"{point['step']:,}", *(record.percent(point["scores"][row][score]) for row in ROWS)]
        for point in points
    ]
    corner = f"{markdown.link('step, in %', path)} ({grid.score_title(score)})"
    return markdown.table([corner, *ROWS], rows)


def score_sets(
    images: jax.Array, data: datasets.Benchmark, rows: Sequence[str], scale: Scale = Scale()
) -> dict[str, dict[str, Any]]:
    """Return the scores of the sets, as in a result."""
    keys, task = jax.random.split(jax.random.key(1), scale.count), datasets.task(data)
    network = scale.network(data.num_classes)
    score = functools.partial(evaluate.evaluate, keys, network, task=task, epochs=scale.epochs)
    return {row: evaluate.summary(score(x)) for row, x in zip(rows, images, strict=True)}


def merge(ways: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Merge the stored points of some rows into those of all rows."""
    union = lambda points, kind: {
        name: value for point in points for name, value in point[kind].items()
    }
    return [
        {"step": points[0]["step"], **{kind: union(points, kind) for kind in ("loss", "scores")}}
        for points in zip(*ways, strict=False)
    ]


def main(
    *,
    preset: Literal["quick", "paper"] = "quick",
    ipc: int = 10,
    rows: tuple[Row, ...] = ROWS,
    steps: int = STEPS[-1],
    data_dir: pathlib.Path | None = None,
    work: pathlib.Path,
    out: pathlib.Path = grid.RESULTS,
) -> None:
    """Distil the sets and score them along the way.

    Args:
        preset: quick fits two CPU cores, paper one GPU.
        ipc: images per class.
        rows: rows that this process distils.
        steps: number of steps, one of `STEPS` or a multiple of `SAVED`; a later run may continue.
        data_dir: folder with the original files.
        work: folder for weights and states, from which a stopped run continues.
        out: folder of long-IPC.json, or long-paper-IPC.json.
    """
    programs.prepare()
    name, scale = f"{'' if preset == 'quick' else 'paper-'}{ipc}", SCALES[preset]
    out, own = out / f"long-{name}.json", work / name / "-".join(rows)
    own.mkdir(parents=True, exist_ok=True)
    data = benchmarks.load("cmnist", data_dir=data_dir, conflict=0.05)
    way = files.read_json(own / "way.json")["way"] if (own / "way.json").exists() else []
    for step, images, losses in distil(data, own, ipc, rows, steps, scale):
        if step in (point["step"] for point in way):
            continue
        scores = score_sets(images, data, rows, scale) if step in STEPS else {}
        way.append({"step": step, "loss": losses, "scores": scores})
        files.write_json(own / "way.json", files.to_json({"way": way}))
        record.log(f"step {step}")
    ways = [files.read_json(path)["way"] for path in sorted(own.parent.glob("*/way.json"))]
    files.write_json(out, record.circumstances() | {"ipc": ipc, "way": merge(ways)})
    if set(merge(ways)[-1]["loss"]) == set(ROWS):
        print("\n".join(table(out, "conflicting")))


if __name__ == "__main__":
    tyro.cli(main)
