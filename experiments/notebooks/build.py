"""Builds and runs the notebooks of this folder: `python experiments/notebooks/build.py [NAME …]`.

A notebook is made of a program in the percent format, in which `# %% NAME` begins a cell of code
and `# %% NAME [markdown]` one of text. quickstart has none: its code is that of the README, with
pictures between. Each gets a badge for Colab, a cell that installs jaxdd, a word on GPUs, and the
outputs of a fresh kernel (`pip install '.[notebook]'`), without warnings and times.
"""

import base64
import doctest
import io
import json
import pathlib
import re
import sys
from typing import Any

from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
README = HERE.parents[1] / "README.md"

REPOSITORY = "OWNER/jaxdd"
"""Owner and name on GitHub. Where jaxdd will be is not known yet: OWNER stands for it. Badges and
cells that install follow from this line."""

BADGE = """\
[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]\
(https://colab.research.google.com/github/{repository}/blob/main/experiments/notebooks/{name}.ipynb)
"""

INSTALL = """\
import importlib.util
import pathlib
import re
import subprocess
import sys

# The checkout that this notebook is in, or else the repository; a path or a wheel does as well.
CHECKOUT = pathlib.Path("../..")
SOURCE = "git+https://github.com/{repository}"
if (CHECKOUT / "pyproject.toml").exists():
    SOURCE = str(CHECKOUT)

if importlib.util.find_spec("jaxdd") is None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", SOURCE]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        said = re.search("(fatal|ERROR): .*", done.stderr)
        raise SystemExit(
            f"jaxdd is not installed, and pip could not install it from {{SOURCE}} "
            f"({{said[0] if said else done.stderr[-200:]}}). Is there a network? "
            "Set SOURCE to where jaxdd is and run this cell again."
        )
"""

GPU = """\
## On a GPU

```
{command}
```

does it at the scale of the literature: 20,000 steps of 256 real images of each class, and five
networks of width 128 and 1,000 epochs for each score. One such step of distribution matching, for
ten classes of 32×32×3, takes two CPU cores [three seconds](../../docs/speed.md). What any of it
takes on a GPU has not been measured yet.
"""

COMMANDS = {
    "quickstart": "jaxdd compare cmnist --conflict 0.05 --preset paper --out out",
    "own_data": "jaxdd compare FOLDER --rows none auto --preset paper --out out",
    "own_method": 'pipeline.run(data, "out", options.DM(preset="paper"), method=both)',
    "bias": "jaxdd compare FOLDER --rows none auto --preset paper --out out",
}
"""Of each notebook, what does its work at full scale."""

# --- quickstart --------------------------------------------------------------------------------

TITLE = """\
# jaxdd: a small data set that does not inherit the bias of the large one

Handwritten digits in ten colours; 90 % of the samples of a digit have the colour of that digit.
Plain dataset distillation makes a hundred images that teach a network colours. Weights from a
kernel density, which see no colour label, make a hundred images that teach it digits.
The cells took 46 s of processor time on two x86 cores.
"""

SHOW_DATA = """\
import numpy as np

from jaxdd.runs import plot

labels = data.train.labels
conflicting = data.train.attributes != np.array(data.aligned)[labels]
print(f"{len(labels):,} images, {conflicting.mean():.0%} in another colour")
shown = np.stack([data.train.images[labels == k][:10] for k in range(data.num_classes)])
plot.picture(shown / 255)
"""

SHOW_WEIGHTS = """\
import matplotlib.pyplot as plt

relative = np.asarray(density.weights) * np.bincount(labels)[labels]
bins = np.geomspace(relative.min(), relative.max(), 40)
plt.figure(figsize=(6, 3), layout="constrained")
for name, members in {"aligned": ~conflicting, "conflicting": conflicting}.items():
    share = np.asarray(density.weights)[members].sum() / data.num_classes
    plt.hist(relative[members], bins, alpha=0.7, label=f"{name}: {share:.0%} of the weight")
plt.xscale("log")
plt.xlabel("weight, relative to a uniform one")
plt.ylabel("samples")
plt.legend();
"""

SHOW_IMAGES = """\
print(f"step {step}, loss {info['loss'][-1]:.2f}")
plot.picture(state.images, mean=data.mean, std=data.std)
"""

SHOW_SCORES = """\
for name in ("accuracy", "aligned", "conflicting"):
    print(f"{name:<11} {getattr(scores, name).mean():.3f}")
"""

NEXT = """\
## From here

* `benchmarks.load("cmnist", conflict=0.05)` downloads MNIST and colours it; `jaxdd datasets list`
  names the others.
* [Your own data](own_data.ipynb), [your own method](own_method.ipynb), and
  [what your data are biased by](bias.ipynb).
* Without the line that makes the pool reweighted this is plain distillation.
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
    "weights": (WEIGHTS, "pool = sampling.reweight", SHOW_WEIGHTS),
    "distil": (IMAGES, "for step", SHOW_IMAGES),
    "scores": (SCORES, "bool", SHOW_SCORES),
}
"""Sections: text, how the last statement of the README that belongs here begins, the picture."""


def statements() -> list[str]:
    """Returns the statements of the README, without prompts."""
    text = README.read_text(encoding="utf-8")
    return [example.source for example in doctest.DocTestParser().get_examples(text)]


def quickstart() -> list[dict[str, Any]]:
    """Returns the cells that the README's code makes."""
    left, cells = statements(), [_cell("title", TITLE)]
    for name, (text, last, picture) in PARTS.items():
        end = 1 + next(i for i, statement in enumerate(left) if statement.startswith(last))
        cells.append(_cell(f"{name}-text", text))
        cells.append(_cell(name, "".join(left[:end]), code=True))
        cells.append(_cell(f"{name}-shown", picture, code=True))
        left = left[end:]
    return [*cells, _cell("next", NEXT)]


# --- all ---------------------------------------------------------------------------------------


def program(name: str) -> list[dict[str, Any]]:
    """Returns the cells of a program in the percent format."""
    text = (HERE / f"{name}.py").read_text(encoding="utf-8")
    _, *parts = re.split(r"^# %% ([\w-]+)( \[markdown\])?\n", text, flags=re.M)
    cells = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    prose = lambda source: re.sub(r"^# ?", "", source, flags=re.M)
    return [
        _cell(at, prose(source)) if kind else _cell(at, source, code=True)
        for at, kind, source in cells
    ]


def notebook(name: str) -> dict[str, Any]:
    """Returns a notebook in nbformat 4.5, without outputs."""
    title, *cells = quickstart() if name == "quickstart" else program(name)
    badge = _cell("badge", BADGE.format(repository=REPOSITORY, name=name))
    install = _cell("install", INSTALL.format(repository=REPOSITORY), code=True)
    gpu = _cell("gpu", GPU.format(command=COMMANDS[name]))
    return {
        "cells": [badge, title, install, *cells, gpu],
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


def executed(made: dict[str, Any]) -> dict[str, Any]:
    """Returns a notebook with the outputs of a fresh kernel."""
    import nbclient
    import nbformat

    node = nbformat.reads(json.dumps(made), as_version=4)
    place = {"metadata": {"path": str(HERE)}}
    nbclient.NotebookClient(node, resources=place, record_timing=False).execute()
    ran = json.loads(nbformat.writes(node))["cells"]
    for cell in ran:
        if cell["cell_type"] == "code":
            cell["outputs"] = _told(cell["outputs"])
    return made | {"cells": ran}


def _told(outputs):
    """What a cell printed, in one piece, and its pictures, in one format; no warnings."""
    printed = [output for output in outputs if output.get("name") == "stdout"]
    shown = [output for output in outputs if "data" in output]
    for output in shown:
        data = {"text/plain": output["data"]["text/plain"]}
        if "image/png" in output["data"]:
            data["image/png"] = _smaller(output["data"]["image/png"])
        output["data"] = data
    text = [line for output in printed for line in output["text"]]
    return [{"name": "stdout", "output_type": "stream", "text": text}] * bool(text) + shown


def _smaller(png):
    """The picture in 256 colours, which takes a third."""
    file = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(256)
    picture.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def main(*names: str) -> None:
    """Writes the notebooks of these names, or all."""
    for name in names or COMMANDS:
        made = executed(notebook(name))
        text = json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True)
        (HERE / f"{name}.ipynb").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
