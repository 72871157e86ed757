"""Is what 200 steps say still true after 20,000, the literature's number?

    python -m experiments.long --data-dir DIR --work WORK

Coloured MNIST, 5 % bias-conflicting samples, distribution matching by ConvNets of width 32 without
weights, with density weights, with those that are chosen (auto) and with the bias labels (oracle).
Synthetic sets begin as real images, and after 200 steps they nearly are these: whether distillation
amplifies a bias, and whether weights undo that, has to be seen where they have left them behind.
Three networks judge every set on the way.

The four sets are distilled by one program: `vmap` over sets and weights, so that what depends on
neither, the features of the real images, is computed once. They have to draw the same images for
that. So a batch of 64 in each class is drawn by the mean of the four weights, and weighs what a
row's own are of it in the loss: the mean that a row matches is its own, and no sample counts more
than four times what it would by a draw of the row's own. A stopped run goes on.

A step of four sets leaves one of two cores idle half of the time, so that two processes with a core
and two sets each need three tenths less:

    taskset -c 0 python -m experiments.long --data-dir DIR --work WORK --rows none kde &
    taskset -c 1 python -m experiments.long --data-dir DIR --work WORK --rows auto oracle

They see the same images, and whichever ends last writes the table. Two and a half hours on two
cores with ten images per class, of which the first half was made by one process; three with fifty,
at the speed of the last 18,000 steps; the first thousand were made in larger micro-batches.
"""

import functools
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments.cfm import log
from experiments.tools import grid
from jaxdd import evaluate, methods, networks, sampling, weights
from jaxdd.data import benchmarks, datasets, files
from jaxdd.devices import microbatch
from jaxdd.runs import old_results as results
from jaxdd.runs import programs
from jaxdd.runs.folder import checkpoint
from jaxdd.runs.reports import plot

Row = Literal["none", "kde", "auto", "oracle"]
ROWS: tuple[Row, ...] = get_args(Row)
STEPS = (0, 200, 2000, 8000, 20_000)
STUDENT = networks.ConvNet(10, 32, 3)
BATCH, CHUNK, SAVED, EPOCHS, NETWORKS = 64, 20, 500, 300, 3


def weightings(data: datasets.Benchmark, pool: sampling.Pool, key: jax.Array) -> np.ndarray:
    """The weights of the rows, `[rows, n]`."""
    by = dict(strategy=data.strategy)
    count = data.num_attributes
    found = {
        "none": pool.weights,
        "kde": weights.by_density(key, pool, **by).weights,
        "auto": weights.choose(key, pool, **by).weights,
        "oracle": weights.oracle(pool, data.train.attributes, num_attributes=count),
    }
    return np.stack([found[row] for row in ROWS])


def joint(method: methods.Method, rows: Sequence[str]) -> methods.Method:
    """A method of several sets at once, that see the same images with weights of their own."""
    see = sampling.Batch(images=None, weights=0)
    step = jax.vmap(method.step, in_axes=(None, 0, see), out_axes=0)

    def together(key, state, batch):
        state, info = step(key, state, batch)
        return state, {"loss": info["loss"].mean()} | dict(zip(rows, info["loss"], strict=True))

    return methods.Method(jax.vmap(method.init), together)


def sampler(key: jax.Array, pools: tuple[sampling.Pool, jax.Array]) -> sampling.Batch:
    """Images by a pool's weights, and what each row's weigh of these, `[rows, k, b]`."""
    pool, each = pools
    indices = sampling.with_replacement(key, pool, BATCH)
    return sampling.Batch(sampling.take(pool, indices), each[:, indices] / pool.weights[indices])


def distilled(
    data: datasets.Benchmark, work: pathlib.Path, ipc: int, rows: Sequence[str], steps: int
) -> Iterator[tuple[int, jax.Array, dict[str, float]]]:
    """Yields the step, the sets `[rows, k, ipc, h, w, c]` and the rows' mean losses since.

    The state of a step is saved once the caller asks for more.
    """
    keys = jax.random.split(jax.random.key(0), 3)
    pool, kept = datasets.pool(data), work.parent / "weights.npz"
    if not kept.exists():
        files.write_arrays(kept, files.sealed({"weights": weightings(data, pool, keys[0])}))
        log("weights")
    each = jnp.asarray(files.read_arrays(kept)["weights"])
    mixed = sampling.reweight(pool, each.mean(0))
    each = each[jnp.array([ROWS.index(row) for row in rows])]
    first = [
        sampling.initial_real(keys[1], sampling.reweight(pool, one), ipc=ipc, weighted=True)
        for one in each
    ]
    optimizer = optax.sgd(1.0, momentum=0.5)
    given = dict(strategy=data.strategy, activation_bytes=microbatch.CORE_BYTES)
    method = joint(methods.distribution_matching(STUDENT, optimizer, **given), rows)
    state = method.init(jnp.stack(first))
    begun, state = checkpoint.restore(work, state) or (0, state)
    yield begun, state.images, {}
    chunks = methods.run(
        keys[2], state, (mixed, each), method=method, sampler=sampler, steps=max(steps, begun),
        first=begun, chunk_length=CHUNK,
    )  # fmt: skip
    losses = []
    for step, state, info in chunks:
        losses.append({row: float(info[row].mean()) for row in rows})
        if step % SAVED and step not in STEPS:
            continue
        yield step, state.images, {row: np.mean([e[row] for e in losses]) for row in rows}
        checkpoint.save(work, step, jax.device_get(state))
        losses = []


def lines(path: pathlib.Path, score: str) -> Iterator[str]:
    """Yields the lines of a table: a score of `results.SCORES` along the way."""
    way = files.read_json(path)["way"]
    what = f"[step](experiments/results/{path.name}) ({results.SCORES[score]} test samples)"
    yield f"| {what} | {' | '.join(ROWS)} |"
    yield f"|---|{'--:|' * len(ROWS)}"
    for point in (point for point in way if point["scores"]):
        told = [results.percent(point["scores"][row][score]) for row in ROWS]
        yield f"| {' | '.join([str(point['step']), *told])} |"


def draw_curves(path: pathlib.Path) -> None:
    """Draws losses and accuracies along the way, beside the file of results."""
    way = files.read_json(path)["way"]
    pulled, judged = ([point for point in way if point[kind]] for kind in ("loss", "scores"))
    steps = lambda points: [point["step"] for point in points]
    conflicting = lambda row: [point["scores"][row]["conflicting"]["mean"] for point in judged]
    panels = {
        "conflicting": {row: (steps(judged), conflicting(row)) for row in ROWS},
        "loss": {row: (steps(pulled), [point["loss"][row] for point in pulled]) for row in ROWS},
    }
    plot.curves(path.with_suffix(".png"), panels)


def scored(
    images: jax.Array, data: datasets.Benchmark, rows: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The scores of the sets, as in a result."""
    keys, task = jax.random.split(jax.random.key(1), NETWORKS), datasets.task(data)
    judge = functools.partial(evaluate.evaluate, keys, STUDENT, task=task, epochs=EPOCHS)
    return {row: evaluate.summary(judge(each)) for row, each in zip(rows, images, strict=True)}


def joined(ways: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The way of all rows, as far as each has come, from those of some."""
    both = lambda points, kind: {
        name: each for point in points for name, each in point[kind].items()
    }
    return [
        {"step": points[0]["step"], "loss": both(points, "loss"), "scores": both(points, "scores")}
        for points in zip(*ways, strict=False)
    ]


def main(
    *,
    ipc: int = 10,
    rows: tuple[Row, ...] = ROWS,
    steps: int = STEPS[-1],
    data_dir: pathlib.Path | None = None,
    work: pathlib.Path,
    out: pathlib.Path = grid.RESULTS,
) -> None:
    """Distils the sets and scores them on the way.

    Args:
        ipc: images per class.
        rows: that this process makes.
        steps: where it stops, one of `STEPS` or a multiple of `SAVED`; with more it goes on later.
        data_dir: folder with the original files.
        work: folder for weights and states, from which a stopped run goes on.
        out: folder of long-IPC.json and of its figure.
    """
    programs.prepare()
    out, own = out / f"long-{ipc}.json", work / str(ipc) / "-".join(rows)
    own.mkdir(parents=True, exist_ok=True)
    data = benchmarks.load("cmnist", data_dir=data_dir, conflict=0.05)
    way = files.read_json(own / "way.json")["way"] if (own / "way.json").exists() else []
    for step, images, losses in distilled(data, own, ipc, rows, steps):
        if step in (point["step"] for point in way):
            continue
        scores = scored(images, data, rows) if step in STEPS else {}
        way.append({"step": step, "loss": losses, "scores": scores})
        files.write_json(own / "way.json", {"way": files.to_json(way)})
        log(f"scored {step}" if scores else f"went {step}")
    ways = [files.read_json(path)["way"] for path in sorted(own.parent.glob("*/way.json"))]
    files.write_json(out, results.circumstances() | {"ipc": ipc, "way": joined(ways)})
    if set(joined(ways)[-1]["loss"]) == set(ROWS):
        draw_curves(out)
        print("\n".join(lines(out, "conflicting")))


if __name__ == "__main__":
    tyro.cli(main)
