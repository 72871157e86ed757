"""Build and run the tutorials: `python docs/tutorials/build.py [NAME …]`.

A notebook is made from a program in the percent format: `# %% NAME` begins a code cell and
`# %% NAME [markdown]` a text cell. Each notebook gets a Colab badge, a cell that installs jaxdd,
and the outputs of a new kernel (`pip install '.[notebook]'`), without warnings and times.
"""

import base64
import configparser
import io
import json
import pathlib
import re
import sys
from typing import Any

from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = sorted(path.stem for path in HERE.glob("*.py") if path.stem != "build")

_SETUP = configparser.ConfigParser()
_SETUP.read(HERE.parents[1] / "setup.cfg", encoding="utf-8")
REPOSITORY = _SETUP["metadata"]["url"].removeprefix("https://github.com/")

BADGE = """\
[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]\
(https://colab.research.google.com/github/{repository}/blob/main/docs/tutorials/{name}.ipynb)
"""

INSTALL = """\
# What pip installs where jaxdd is missing. It may also be a path, or the URL of a wheel.
SOURCE = "git+https://github.com/{repository}"

import importlib.util
import re
import subprocess
import sys

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
    title, *cells = program(name)
    badge = _cell("badge", BADGE.format(repository=REPOSITORY, name=name))
    install = _cell("install", INSTALL.format(repository=REPOSITORY), code=True)
    return {
        "cells": [badge, title, install, *cells],
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


def code(content: dict[str, Any]) -> list[str]:
    """Return the sources of the code cells of a notebook."""
    return ["".join(x["source"]) for x in content["cells"] if x["cell_type"] == "code"]


def with_outputs(content: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook with the outputs of an old version, whose cells have the same names."""
    names = "execution_count", "outputs"
    ran = {cell["id"]: {n: cell[n] for n in names if n in cell} for cell in old["cells"]}
    return content | {"cells": [cell | ran.get(cell["id"], {}) for cell in content["cells"]]}


def main(*names: str) -> None:
    """Write the notebooks with these names, or all.

    A notebook is executed only if its code after the cell that installs jaxdd is new.
    """
    for name in names or PROGRAMS:
        content, path = notebook(name), HERE / f"{name}.ipynb"
        old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cells": []}
        same = code(old)[1:] == code(content)[1:]
        content = with_outputs(content, old) if same else execute(content)
        text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True)
        path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
