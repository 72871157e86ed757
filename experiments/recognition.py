"""How much of the bias is visible in synthetic images?

    python -m experiments.recognition --data-dir DIR

Reads the synthetic sets that `experiments.amplification` leaves in its work folder. For each data
set a network learns to recognise the bias attribute from the unbiased test images, where the
attribute is independent of the class; its accuracy on a fifth of them is "recognised" in the table.
Each set is then scored by the share of its images that show the attribute with which their class is
aligned. 95 % of the training images have it, but how many show it depends on how well it is
recognised, so compare with the column of the training set. "network trained on all" shows what the
bias costs without distillation: it is the accuracy on bias-conflicting test samples of a network
trained on the whole training set for three epochs.

Cost: two minutes per data set on two cores.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import amplification
from experiments.tools import grid, markdown, record
from jaxdd import evaluate, sampling, training
from jaxdd.data import datasets
from jaxdd.runs import components
from jaxdd.runs import networks as named_networks
from jaxdd.runs.folder import store
from jaxdd.runs.options import DM

OUT = grid.RESULTS / "recognition.json"


def train(
    data: datasets.Benchmark, options: DM, images: np.ndarray, targets: np.ndarray, **protocol: Any
) -> Callable[[np.ndarray], np.ndarray]:
    """Train a network on uint8 images and return the function from images to its predictions.

    `protocol` is `classes`, `epochs` and `strategy`.
    """
    network = named_networks.from_options(options, protocol.pop("classes"))
    pixels = dict(mean=jnp.asarray(data.mean), std=jnp.asarray(data.std))
    protocol |= dict(network=network, learning_rate=0.05, batch_size=128)
    fit = jax.jit(functools.partial(training.train, **protocol))
    normal = sampling.normalise(jnp.asarray(images), **pixels)
    params = fit(components.key(options, "evaluate"), images=normal, labels=jnp.asarray(targets))
    predict = jax.jit(functools.partial(evaluate.predict, network, params, **pixels))
    return lambda images: np.asarray(predict(jnp.asarray(images)))


def measure(data: datasets.Benchmark, options: DM, sets: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return how often the attribute is recognised in the data and in sets."""
    test, aligned = data.test, np.asarray(data.aligned)
    # Every fifth test image measures how well the attribute is recognised.
    held_out = np.arange(len(test.labels)) % 5 == 0
    attribute = train(
        data, options, test.images[~held_out], test.attributes[~held_out],
        classes=data.num_attributes, epochs=20,
        strategy=tuple(name for name in data.strategy if name != "color"),
    )  # fmt: skip
    classify = train(
        data, options, data.train.images, data.train.labels,
        classes=data.num_classes, epochs=3, strategy=data.strategy,
    )  # fmt: skip
    show = lambda images: np.mean(
        attribute(images.reshape(-1, *images.shape[2:])) == aligned.repeat(images.shape[1])
    )
    real = np.mean(attribute(data.train.images) == aligned[data.train.labels])
    conflicting = test.attributes != aligned[test.labels]
    recognised = attribute(test.images[held_out]) == test.attributes[held_out]
    return {
        "recognised": float(np.mean(recognised)),
        "all images": float(np.mean((classify(test.images) == test.labels)[conflicting])),
        "showing": {"training set": float(real)}
        | {name: float(show(images)) for name, images in sets.items()},
    }


def synthetic_set(folder: pathlib.Path, row: str) -> np.ndarray:
    """Return the images of a row, `[k, ipc, h, w, c]`, real ones in [0, 1]."""
    path = folder / "rows" / row / "synthetic.npz"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; delete the lines of the cells of experiments.amplification "
            "from experiments/results/*.jsonl and compute them again"
        )
    stored = store.read_synthetic(path)
    return stored.images * stored.std + stored.mean


def tables(path: pathlib.Path = OUT) -> list[list[str]]:
    """Return the table of the results."""
    measured = record.measured(path)
    sets = next(iter(measured.values()))["showing"]
    rows = []
    for name, row in measured.items():
        shares = (row["recognised"], *row["showing"].values(), row["all images"])
        rows.append([name, *(f"{100 * share:.1f}" for share in shares)])
    titles = (markdown.link("data set", path), "recognised", *sets, "network trained on all")
    return [markdown.table(titles, rows)]


def tasks(data_dir: pathlib.Path | None, work: pathlib.Path = grid.WORK) -> record.Tasks:
    """Return functions that measure the sets of each data set in the work folder of the grid."""
    cells = amplification.cells("quick")

    def task(dataset):
        own = [cell for cell in cells if cell.dataset == dataset]
        folder, options = grid.workplace(own[0], work.expanduser()), own[0].options
        data = grid.load(dataset, options, data_dir=data_dir)
        return measure(data, options, {c.row: synthetic_set(folder, c.row) for c in own})

    names = dict.fromkeys(cell.dataset for cell in cells)
    return {name: functools.partial(task, name) for name in names}


if __name__ == "__main__":
    record.main(OUT, tasks, tables)
