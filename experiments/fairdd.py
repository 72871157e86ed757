"""How do weights without bias labels compare with FairDD and COBRA, which need them?

    python -m experiments.fairdd --data-dir DIR
    python -m experiments.fairdd --preset long|paper --data-dir DIR [--budget 9m] [--only cmnist-fg]

The data sets of FairDD (NeurIPS 2025, tables 1 and 2) with 10 % bias-conflicting samples and ten
images per class, distilled by distribution matching. `oracle`, `fairdd` and `cobra-l1` use the bias
labels. `cobra-l1` has the L1 norm of the code that the authors released; the squared distance of
the paper has the same target as the oracle.

* quick: coloured digits and 200 steps, 20 minutes on two cores.
* long: all data sets, three seeds and 2,000 steps, four hours on two cores.
* paper: the same with the published protocol, for a GPU: 20,000 steps, width 128, 256 real images
  per class and step, and 1,000 epochs of evaluation. The other presets have width 32, 64 real
  images (long) and 300 epochs.

In the presets long and paper one program distils all rows from the same real images
(`experiments.long`), so their features are computed once. Images are drawn by the mean of the rows'
weights, and each row corrects for that. For FairDD, the images of a class are divided into their
bias groups; a group without images is left out, as in the code of the authors. A stopped run
continues.
"""

import functools
import itertools
import pathlib
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments import long, seeds
from experiments.tools import grid, markdown, record, small
from jaxdd import augment, evaluate, matching, methods, networks, sampling
from jaxdd.data import benchmarks, datasets, files
from jaxdd.devices import microbatch
from jaxdd.runs import programs
from jaxdd.runs.folder import checkpoint
from jaxdd.runs.options import make

SETS = "cmnist-fg", "cmnist-bg", "cfmnist-bg", "cifar10-s"
ROWS = "plain", "density", "auto", "fairdd", "cobra-l1", "oracle"
SEEDS, IPC, CONFLICT = 3, 10, 0.1
STEPS = {"long": 2_000, "paper": 20_000}
SCALES = {"long": long.Scale(), "paper": long.SCALES["paper"]}
SCORES = {"accuracy": "all test samples", "deo_mean": "mean gap between groups"}

PUBLISHED = {
    "cmnist-fg": {"random": 30.8, "plain": 25.0, "density": 90.4, "fairdd": 94.6},
    "cmnist-bg": {"random": 28.0, "plain": 23.4, "fairdd": 94.9},
    "cfmnist-bg": {"random": 25.0, "plain": 22.3, "fairdd": 71.1},
    "cifar10-s": {"random": 23.6, "plain": 37.9, "density": 41.4, "fairdd": 45.2},
}
"""Accuracies in % that FairDD reports, with density weights as its authors ran them."""


class Pools(NamedTuple):
    """Samples and the weights of all rows.

    Attributes:
        pool: samples, whose weights are the mean over rows.
        weights: `[rows, n]`, of each row.
        groups: `[n]`, bias group of each sample.
    """

    pool: sampling.Pool
    weights: jax.Array
    groups: jax.Array


def sample(key: jax.Array, pools: Pools, *, num_groups: int, size: int) -> sampling.Batch:
    """Draw images, and return their weights by row and target, `[rows, k, targets * size]`.

    The rows `fairdd` and `cobra-l1` have the weights of the oracle. FairDD has one target per bias
    group, the mean of its images. The other rows use the first target only.
    """
    indices = sampling.with_replacement(key, pools.pool, size)
    relative = pools.weights[:, indices] / pools.pool.weights[indices]
    groups = jax.nn.one_hot(pools.groups[indices], num_groups, axis=1)  # [k, targets, b]
    oracle = relative[ROWS.index("oracle")]
    by_group = _normalise(groups * oracle[:, None])
    present = (by_group.sum(-1) > 0).sum(1)
    first = jnp.zeros(num_groups).at[0].set(1)[:, None]
    targets = {row: first * x[:, None] for row, x in zip(ROWS, relative, strict=True)}
    targets["fairdd"] = by_group
    targets["cobra-l1"] = first * (by_group.sum(1) / present[:, None])[:, None]
    by_row = jnp.stack([targets[row].reshape(len(indices), -1) for row in ROWS])
    return sampling.Batch(sampling.take(pools.pool, indices), by_row)


@functools.cache  # Equal samplers and methods share compiled programs.
def _sampler(num_groups, size):
    return functools.partial(sample, num_groups=num_groups, size=size)


def _normalise(weights):
    total = weights.sum(-1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1)


def distance(
    real: jax.Array, synthetic: jax.Array, weights: jax.Array, *, is_l1: jax.Array
) -> jax.Array:
    """Return the distance of synthetic means to all targets, summed over targets and classes.

    Args:
        real: features `[k, b, d]`.
        synthetic: features `[k, m, d]`.
        weights: `[k, targets * b]`; a target whose weights are all zero contributes nothing.
        is_l1: whether differences are summed without being squared.
    """
    by_target = weights.reshape(len(real), -1, real.shape[1]).swapaxes(0, 1)
    squared = jax.vmap(functools.partial(matching.distribution, real, synthetic))(by_target)
    absolute = functools.partial(matching.barycentre, real, synthetic, groups=1, norm=1)
    return jnp.where(is_l1, jax.vmap(absolute)(by_target), squared).sum()


@functools.cache
def method(network: networks.Network, strategy: tuple[str, ...]) -> methods.Method:
    """Return the method that distils all rows from the same real images."""

    def row_method(is_l1):
        return methods.distribution_matching(
            network,
            optax.sgd(1.0, momentum=0.5),
            loss=functools.partial(distance, is_l1=is_l1),
            strategy=strategy,
            activation_bytes=microbatch.CORE_BYTES,
        )

    def step(key, state, batch):
        step_row = lambda is_l1, state, batch: row_method(is_l1).step(key, state, batch)
        # Images have no axis of rows, so vmap computes their features once for all rows.
        shared_images = sampling.Batch(images=None, weights=0)
        is_l1 = jnp.array([row == "cobra-l1" for row in ROWS])
        state, info = jax.vmap(step_row, in_axes=(0, 0, shared_images))(is_l1, state, batch)
        return state, {"loss": info["loss"].mean()}

    return methods.Method(jax.vmap(row_method(False).init), step)


def measure(
    preset: str, name: str, seed: int, folder: pathlib.Path, data_dir: pathlib.Path | None
) -> Any:
    """Return the scores of all rows for a data set and a seed.

    Args:
        preset: long or paper.
        name: name of the data set.
        seed: random seed of the data set and of the distillation.
        folder: folder for weights and checkpoints, from which a stopped run continues.
        data_dir: folder with the original files.
    """
    data = benchmarks.load(name, data_dir=data_dir, conflict=CONFLICT, seed=seed)
    keys = jax.random.split(jax.random.key(seed), 4)
    pool, path = datasets.pool(data), folder / "weights.npz"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        kinds = ["oracle" if row in ("fairdd", "cobra-l1") else row for row in ROWS]
        by_kind = {kind: small.weigh(kind, keys[0], pool, data) for kind in {*kinds}}
        files.write_arrays(path, {"weights": np.stack([by_kind[kind] for kind in kinds])})
        record.log(f"{name}, seed {seed}: weights")
    by_row = jnp.asarray(files.read_arrays(path)["weights"])
    mixed = sampling.reweight(pool, by_row.mean(0))
    initial = functools.partial(sampling.initial_real, keys[1], ipc=IPC)
    start = [initial(sampling.reweight(pool, row), weighted=True) for row in by_row]
    scale = SCALES[preset]
    network = scale.network(data.num_classes)
    matching = method(network, augment.as_strategy(data.strategy))
    state = matching.init(jnp.stack(start))
    first, state = checkpoint.restore(folder, state) or (0, state)
    chunks = methods.run(
        keys[2], state, Pools(mixed, by_row, jnp.asarray(data.train.attributes)), method=matching,
        sampler=_sampler(data.num_attributes, scale.batch), steps=STEPS[preset], first=first,
        chunk_length=long.CHUNK,
    )  # fmt: skip
    for step, state, _ in chunks:
        if step % long.SAVED == 0:
            checkpoint.save(folder, step, jax.device_get(state))
            record.log(f"{name}, seed {seed}: step {step}")
    sets = dict(zip(("random", *ROWS), (initial(pool), *state.images), strict=True))
    evaluation = jax.random.split(keys[3], scale.count), network
    task = datasets.task(data)
    score = lambda images: evaluate.evaluate(*evaluation, images, task, epochs=scale.epochs)
    return {row: evaluate.summary(score(images)) for row, images in sets.items()}


def cells(preset: str) -> list[grid.Cell]:
    """Return the cells of the quick preset."""
    rows = "random", "random-density", "plain", "density", "auto", "oracle", "fairdd"
    chosen = make(preset=preset, conflict=CONFLICT)
    return [grid.Cell(name, row, chosen) for name, row in itertools.product(SETS[:2], rows)]


GRID = grid.Grid(
    "fairdd", cells, down=("dataset", "seed"), scores=("accuracy", "conflicting", "deo_mean")
)


def results_path(preset: str) -> pathlib.Path:
    """Return the file of the results of the preset long or paper."""
    return grid.RESULTS / f"fairdd-{preset}.json"


def tables(path: pathlib.Path = results_path("long")) -> list[list[str]]:
    """Return a table for each score: mean over seeds with a 95 % confidence interval.

    Data sets that have not been measured are left out.
    """
    if not path.exists():
        return []
    measured, columns = record.measured(path), ("random", *ROWS)
    result = []
    for score, title in SCORES.items():
        rows = []
        for name in SETS:
            entries = [measured.get(f"{name}, seed {seed}") for seed in range(SEEDS)]
            by_row = [np.array([x[row][score]["mean"] for x in entries if x]) for row in columns]
            if not any(entries):
                continue
            rows.append([name, *map(seeds.format_interval, by_row)])
            if score == "accuracy":
                published = (PUBLISHED[name].get(row, "–") for row in columns)
                rows.append(["published", *map(str, published)])
        result.append(
            markdown.table([f"{markdown.link('dataset', path)} ({title})", *columns], rows)
        )
    return result


def main(
    *,
    preset: Literal["quick", "long", "paper"] = "quick",
    data_dir: pathlib.Path | None = None,
    only: str = "",
    budget: str | None = None,
    work: pathlib.Path = grid.WORK,
    out: pathlib.Path | None = None,
) -> None:
    """Compute the missing results and print the tables.

    Args:
        preset: quick and long fit two CPU cores, paper one GPU.
        data_dir: folder with the original files.
        only: text that the name of an entry of long or paper must contain, such as "seed 0".
        budget: time after which to stop, such as 90s, 20m or 1h.
        work: folder for checkpoints, from which a stopped run continues.
        out: JSON file; by default results/fairdd-PRESET.json.
    """
    if preset == "quick":
        return grid.run(GRID, preset=preset, data_dir=data_dir, budget=budget, work=work)
    programs.prepare()
    folder, out = work.expanduser() / f"fairdd-{preset}", out or results_path(preset)
    tasks = {
        f"{name}, seed {seed}": functools.partial(
            measure, preset, name, seed, folder / f"{name}-{seed}", data_dir
        )
        for seed, name in itertools.product(range(SEEDS), SETS)
    }
    record.run(out, {name: task for name, task in tasks.items() if only in name}, budget)
    record.show(tables(out))


if __name__ == "__main__":
    tyro.cli(main)
