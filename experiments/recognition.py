"""How much of the bias shows in synthetic images, and how much does a network take from all data?

    python -m experiments.recognition --preset quick --data-dir DIR

Reads the synthetic sets that the cells of `experiments.amplification` leave in the work folder. For
each of its data sets, one network learns to recognise the bias attribute from the unbiased test
images, where the attribute says nothing of the class; a fifth of them say how well it does. Then it
looks at the synthetic images: "showing" is the share in which it sees the attribute that their
class is aligned with. 95 % of the training images have it, but how many show it depends on how well
it is recognised, so compare with the column of the training set.

"all images" is the accuracy, over conflicting test samples, of a network trained on the whole
training set for three epochs: what the bias costs without any distillation. About two minutes for a
data set on two cores.

Colours are seen in every image; natural backgrounds of 32 pixels are hard to tell even for a
network that is told what to look for. Plain distillation keeps the bias of the images that it
starts from; density moves colours all of the way that the oracle does, the others a part of it.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments import amplification
from experiments.tools import grid
from jaxdd import augment, evaluate, sampling, training
from jaxdd.data import datasets, files
from jaxdd.runs import components
from jaxdd.runs import networks as named_networks
from jaxdd.runs import old_results as results
from jaxdd.runs.folder import store
from jaxdd.runs.options import Options

PROTOCOL = dict(learning_rate=0.05, batch_size=128)


def learned(
    data: datasets.Benchmark,
    options: Options,
    images: np.ndarray,
    targets: np.ndarray,
    *,
    classes: int,
    epochs: int,
    strategy: augment.Strategy,
) -> Callable[[np.ndarray], np.ndarray]:
    """Trains a network on uint8 images and returns the function from images to its predictions."""
    network = named_networks.from_options(options, classes)
    pixels = dict(mean=jnp.asarray(data.mean), std=jnp.asarray(data.std))
    protocol = dict(network=network, epochs=epochs, strategy=strategy, **PROTOCOL)
    fit = jax.jit(functools.partial(training.train, **protocol))
    normal = sampling.normalise(jnp.asarray(images), **pixels)
    params = fit(components.key(options, "evaluate"), images=normal, labels=jnp.asarray(targets))
    predict = jax.jit(functools.partial(evaluate.predict, network, params, **pixels))
    return lambda images: np.asarray(predict(jnp.asarray(images)))


def measured(
    data: datasets.Benchmark, options: Options, sets: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Recognises the attribute in synthetic sets, see `distilled`."""
    test, aligned = data.test, np.asarray(data.aligned)
    held = np.arange(len(test.labels)) % 5 == 0
    train = functools.partial(learned, data, options)
    attribute = train(
        test.images[~held],
        test.attributes[~held],
        classes=data.num_attributes,
        epochs=20,
        strategy=tuple(name for name in data.strategy if name != "color"),
    )
    shows = lambda images: np.mean(
        attribute(images.reshape(-1, *images.shape[2:])) == aligned.repeat(images.shape[1])
    )
    real = np.mean(attribute(data.train.images) == aligned[data.train.labels])
    every = data.train.images, data.train.labels
    known = train(*every, classes=data.num_classes, epochs=3, strategy=data.strategy)
    conflicts = test.attributes != aligned[test.labels]
    return {
        "recognised": float(np.mean(attribute(test.images[held]) == test.attributes[held])),
        "all images": float(np.mean((known(test.images) == test.labels)[conflicts])),
        "showing": {"training set": float(real)}
        | {name: float(shows(images)) for name, images in sets.items()},
    }


def main(
    *,
    preset: Literal["quick", "paper"] = "quick",
    data_dir: pathlib.Path | None = None,
    work: pathlib.Path = files.CACHE / "experiments",
    out: pathlib.Path = grid.RESULTS / "recognition.json",
) -> None:
    """Looks at every set of the grid that has been distilled.

    Args:
        preset: of the grid.
        data_dir: folder with the original files.
        work: where the grid keeps its synthetic sets.
        out: JSON file.
    """
    found = {}
    cells = amplification.cells(preset)
    for dataset in dict.fromkeys(cell.dataset for cell in cells):
        own = [cell for cell in cells if cell.dataset == dataset]
        options = own[0].options
        data = grid.load(dataset, options, data_dir=data_dir)
        sets = {
            cell.row: distilled(grid.workplace(cell, work.expanduser()), cell.row) for cell in own
        }
        found[dataset] = measured(data, options, sets)
        print(dataset, found[dataset], flush=True)
    files.write_json(out, results.circumstances() | {"found": found})


def distilled(folder: pathlib.Path, row: str) -> np.ndarray:
    """The images of a row, `[k, ipc, h, w, c]`, the real ones among them in [0, 1]."""
    path = folder / "rows" / row / "synthetic.npz"
    if not path.exists():
        raise FileNotFoundError(
            f"there is no {path}, which computing a cell leaves there; delete the lines of "
            "the cells of experiments.amplification from experiments/results/*.jsonl and run it"
        )
    stored = store.read_synthetic(path)
    return stored.images * stored.std + stored.mean


if __name__ == "__main__":
    tyro.cli(main)
