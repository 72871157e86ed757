"""Build and run the notebooks of this folder: `python experiments/notebooks/build.py [NAME …]`.

A notebook is made from a program in the percent format: `# %% NAME` begins a cell of code and
`# %% NAME [markdown]` one of text. quickstart has no program; its code is that of the README, with
pictures between. Each notebook gets a Colab badge, a cell that installs jaxdd, a note on GPUs, and
the outputs of a new kernel (`pip install '.[notebook]'`), without warnings and times.
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
"""Owner and name on GitHub. The owner is not known yet."""

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

# The checkout of this notebook, or else the repository. It may also be a path or a wheel.
CHECKOUT = pathlib.Path("../..")
SOURCE = "git+https://github.com/{repository}"
if (CHECKOUT / "pyproject.toml").exists():
    SOURCE = str(CHECKOUT)

if importlib.util.find_spec("jaxdd") is None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", SOURCE]
    result = subprocess.run(pip, capture_output=True, text=True)
    if result.returncode:
        reason = re.search("(fatal|ERROR): .*", result.stderr)
        raise SystemExit(
            f"pip could not install jaxdd from {{SOURCE}} "
            f"({{reason[0] if reason else result.stderr[-200:]}}). Check the network, or "
            "set SOURCE to the location of jaxdd, and run this cell again."
        )
"""

GPU = """\
## On a GPU

```
{command}
```

runs this at the scale of the literature: 20,000 steps of 256 real images per class, and five
networks of width 128 and 1,000 epochs for each score. One such step of distribution matching, for
ten classes of 32×32×3, takes two CPU cores [three seconds](../../docs/results/speed.md). The time on a GPU
has not been measured yet.
"""

COMMANDS = {
    "quickstart": "jaxdd compare cmnist --conflict 0.05 --preset paper --out out",
    "own_data": "jaxdd compare FOLDER --rows plain auto --preset paper --out out",
    "own_method": 'pipeline.run(data, "out", options.DM(preset="paper"), method=both)',
    "bias": "jaxdd compare FOLDER --rows plain auto --preset paper --out out",
}
"""Command that does the work of each notebook at full scale."""

# --- quickstart --------------------------------------------------------------------------------

TITLE = """\
# jaxdd: a small data set that does not inherit the bias of the large one

Handwritten digits in ten colours; 90 % of the samples of a digit have the colour of that digit.
Plain dataset distillation yields a hundred images from which a network learns colours. With weights
from a kernel density, which uses no colour labels, it learns digits. The cells took 46 s of
processor time on two x86 cores.
"""

SHOW_DATA = """\
import numpy as np

from jaxdd.runs.reports import plot

labels = data.train.labels
conflicting = data.train.attributes != np.array(data.aligned)[labels]
print(f"{len(labels):,} images, {conflicting.mean():.0%} bias-conflicting")
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
  shows the other benchmarks.
* [Your own data](own_data.ipynb), [your own method](own_method.ipynb), and
  [what your data is biased by](bias.ipynb).
* Without the line that calls `sampling.reweight` this is plain distillation.
"""

DATA = """\
## Data

The attributes are the colours. They are used for scores only.
"""

WEIGHTS = """\
## Weights

A briefly trained encoder learns what is easiest, the colour. Dense regions of its embeddings of a
class are the majority; the weight of a sample is one over the density.
"""

IMAGES = """\
## Distillation

A step draws a batch, a new random network and an augmentation, and updates the images. Ten steps
are one XLA program.
"""

SCORES = """\
## Scores

New networks are trained on the set and scored on a test set in which every digit has every colour.
"""

PARTS = {
    "data": (DATA, "pool, task =", SHOW_DATA),
    "weights": (WEIGHTS, "pool = sampling.reweight", SHOW_WEIGHTS),
    "distil": (IMAGES, "for step", SHOW_IMAGES),
    "scores": (SCORES, "bool", SHOW_SCORES),
}
"""Sections: text, beginning of their last statement in the README, and the picture."""


def statements() -> list[str]:
    """Return the statements of the README, without prompts."""
    text = README.read_text(encoding="utf-8")
    return [example.source for example in doctest.DocTestParser().get_examples(text)]


def quickstart() -> list[dict[str, Any]]:
    """Return the cells of the README's code."""
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
    """Return the cells of a program in the percent format."""
    text = (HERE / f"{name}.py").read_text(encoding="utf-8")
    _, *parts = re.split(r"^# %% ([\w-]+)( \[markdown\])?\n", text, flags=re.M)
    cells = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    prose = lambda source: re.sub(r"^# ?", "", source, flags=re.M)
    return [
        _cell(at, prose(source)) if kind else _cell(at, source, code=True)
        for at, kind, source in cells
    ]


def notebook(name: str) -> dict[str, Any]:
    """Return a notebook in nbformat 4.5, without outputs."""
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


def execute(content: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook with the outputs of a new kernel."""
    import nbclient
    import nbformat

    node = nbformat.reads(json.dumps(content), as_version=4)
    place = {"metadata": {"path": str(HERE)}}
    nbclient.NotebookClient(node, resources=place, record_timing=False).execute()
    ran = json.loads(nbformat.writes(node))["cells"]
    for cell in ran:
        if cell["cell_type"] == "code":
            cell["outputs"] = _outputs(cell["outputs"])
    return content | {"cells": ran}


def _outputs(outputs):
    """Return the printed text as one output, and pictures in one format, without warnings."""
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
    """Return the picture in 256 colours, a third of its size."""
    file = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(256)
    picture.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def main(*names: str) -> None:
    """Write the notebooks of these names, or all."""
    for name in names or COMMANDS:
        content = execute(notebook(name))
        text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True)
        (HERE / f"{name}.ipynb").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
