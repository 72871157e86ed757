"""Notebooks run from the first cell to the last, and hold what Jupyter and Colab expect."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "experiments" / "notebooks").glob("*.ipynb"))

RUN = """
import json, pathlib, sys
import matplotlib.pyplot as plt

drawn, space = [], {"__name__": "__main__"}
plt.show = lambda: (drawn.append(len(plt.gcf().axes)), plt.close("all"))
for cell in json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), cell["id"], "exec"), space)
accuracy = {name: float(each.accuracy.mean()) for name, each in space["scores"].items()}
print(json.dumps({"drawn": drawn, "accuracy": accuracy}))
"""


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_format(path):
    """The fields that nbformat 4.5 requires, and no others; nothing of an execution is kept."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert set(notebook["metadata"]["kernelspec"]) == {"name", "display_name", "language"}
    assert notebook["metadata"]["language_info"]["name"] == "python"
    fields = {"cell_type", "id", "metadata", "source"}
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("markdown", "code")
        of_code = {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert set(cell) == fields | of_code and cell["metadata"] == {}
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell["id"])
        assert all(isinstance(line, str) for line in cell["source"])
        assert all(line.endswith("\n") for line in cell["source"][:-1])
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_installs_only_where_jaxdd_is_missing(path, monkeypatch):
    first = next("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code")
    space, called = {}, []
    monkeypatch.setattr(subprocess, "run", lambda command, check: called.append(command))
    exec(first, space)
    assert called == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exec(first, space)
    repository = space["REPOSITORY"]
    assert called == [[sys.executable, "-m", "pip", "install", "--quiet", repository]]
    assert (path.parent / repository / "pyproject.toml").exists()


def test_quickstart_shows_what_the_weights_are_worth():
    path = ROOT / "experiments" / "notebooks" / "quickstart.ipynb"
    run = subprocess.run(
        [sys.executable, "-c", RUN, str(path)],
        capture_output=True,
        text=True,
        timeout=480,
        env={**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["drawn"] == [1, 1, 2]
    assert found["accuracy"]["density weights"] > 0.6 > 0.45 > found["accuracy"]["plain"]
