"""Makes quickstart.ipynb of the code in README.md: `python experiments/notebooks/build.py`.

What the README runs stands in cells as it is, with pictures in cells between. Outputs that the
notebook has are dropped; `jupyter execute --inplace quickstart.ipynb` makes them again.
"""

import doctest
import json
import pathlib
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
README = HERE.parents[1] / "README.md"

TITLE = """\
# jaxdd: a small data set that does not inherit the bias of the large one

Handwritten digits in ten colours; 90 % of the samples of a digit have the colour of that digit.
Plain dataset distillation makes a hundred images that teach a network colours. Weights from a
kernel density, which see no colour label, make a hundred images that teach it digits. Two CPU cores
need a minute or two.
"""

INSTALL = """\
import importlib.util
import subprocess
import sys

# A checkout of jaxdd; on Colab the address of the repository, as in "git+https://HOST/PATH/jaxdd.git".
REPOSITORY = "../.."

if importlib.util.find_spec("jaxdd") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", REPOSITORY], check=True)
"""

SHOW_DATA = """\
import matplotlib.pyplot as plt
import numpy as np

from jaxdd.runs import plot

labels = data.train.labels
conflicting = data.train.attributes != np.array(data.aligned)[labels]
shown = np.stack([data.train.images[labels == k][:10] for k in range(data.num_classes)])
plt.figure(figsize=(3.5, 3.5), layout="constrained")
plt.imshow(plot.tiles(shown / 255.0, mean=[0] * 3, std=[1] * 3))
plt.title(f"{len(labels):,} images, {conflicting.mean():.0%} in another colour", fontsize=10)
plt.axis("off")
plt.show()
"""

SHOW_WEIGHTS = """\
relative = np.asarray(found.weights) * np.bincount(labels)[labels]
bins = np.geomspace(relative.min(), relative.max(), 40)
plt.figure(figsize=(6, 3), layout="constrained")
for name, members in {"aligned": ~conflicting, "conflicting": conflicting}.items():
    share = np.asarray(found.weights)[members].sum() / data.num_classes
    plt.hist(relative[members], bins, alpha=0.7, label=f"{name}: {share:.0%} of the weight")
plt.xscale("log")
plt.xlabel("weight, relative to a uniform one")
plt.ylabel("samples")
plt.legend()
plt.show()
"""

SHOW_IMAGES = """\
plt.figure(figsize=(3.5, 3.5), layout="constrained")
plt.imshow(plot.tiles(state.images, mean=data.mean, std=data.std))
plt.title(f"step {step}, loss {info['loss'][-1]:.2f}", fontsize=10)
plt.axis("off")
plt.show()
"""

SHOW_SCORES = """\
for name in ("accuracy", "aligned", "conflicting"):
    print(f"{name:<11} {getattr(scores, name).mean():.3f}")
"""

NEXT = """\
## From here

* `benchmarks.load("cmnist", conflict=0.05)` downloads MNIST and colours it; `jaxdd datasets list`
  names the others.
* `datasets.from_arrays(images, labels)` takes your own.
* Without the line that makes the pool `reweighted` this is plain distillation.
* On a GPU, `!jaxdd compare cmnist --conflict 0.05 --preset paper --out out` makes the whole table
  at the scale of the literature, and `!jaxdd report out` a page about it.
"""

DATA = """\
## Data

The attributes are the colours. They only score.
"""

WEIGHTS = """\
## Weights

An encoder that is trained for a moment learns what is easiest, the colour. Where its embeddings of
a class are dense, samples are of the majority; the weight is one over the density.
"""

IMAGES = """\
## Distillation

A step draws the batch, a fresh random network and the augmentation, and moves the images. Ten steps
are one XLA program.
"""

SCORES = """\
## Scores

Fresh networks learn from the set and are scored on a test set in which every digit has every
colour.
"""

PARTS = {
    "data": (DATA, "pool, task =", SHOW_DATA),
    "weights": (WEIGHTS, "pool = sampling.reweighted", SHOW_WEIGHTS),
    "distil": (IMAGES, "for step", SHOW_IMAGES),
    "scores": (SCORES, "bool", SHOW_SCORES),
}
"""Sections: text, how the last statement of the README that belongs here begins, the picture."""


def statements() -> list[str]:
    """Returns the statements of the README, without prompts."""
    text = README.read_text(encoding="utf-8")
    return [example.source for example in doctest.DocTestParser().get_examples(text)]


def notebook() -> dict[str, Any]:
    """Returns the notebook in nbformat 4.5, without outputs."""
    left, cells = statements(), [_cell("title", TITLE), _cell("install", INSTALL, code=True)]
    for name, (text, last, picture) in PARTS.items():
        end = 1 + next(i for i, statement in enumerate(left) if statement.startswith(last))
        cells.append(_cell(f"{name}-text", text))
        cells.append(_cell(name, "".join(left[:end]), code=True))
        cells.append(_cell(f"{name}-shown", picture, code=True))
        left = left[end:]
    cells.append(_cell("next", NEXT))
    return {
        "cells": cells,
        "metadata": {
            "accelerator": "GPU",
            "colab": {"provenance": []},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _cell(name, source, *, code=False):
    cell = {"cell_type": "code" if code else "markdown", "id": name, "metadata": {}}
    cell["source"] = source.strip("\n").splitlines(keepends=True)
    return cell | {"execution_count": None, "outputs": []} if code else cell


def main() -> None:
    """Writes the notebook."""
    text = json.dumps(notebook(), indent=1, ensure_ascii=False)
    (HERE / "quickstart.ipynb").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
