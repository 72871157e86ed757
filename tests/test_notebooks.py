"""The notebook is the README's code with pictures, and holds what Jupyter and Colab expect."""

import doctest
import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDER = ROOT / "experiments" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build", FOLDER / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code(path):
    return ["".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_format(path):
    """The fields that nbformat 4.5 requires, and no others."""
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
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell["id"])
        assert all(isinstance(line, str) for line in cell["source"])
        assert all(line.endswith("\n") for line in cell["source"][:-1])
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_was_run_from_the_first_cell_to_the_last_or_not_at_all(path):
    ran = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in ran]
    outputs = [output for cell in ran for output in cell["outputs"]]
    if counts != [None] * len(ran):
        assert counts == list(range(1, len(ran) + 1))
        assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert {output["output_type"] for output in outputs} <= {
        "display_data",
        "execute_result",
        "stream",
    }
    assert [output for output in outputs if output.get("name") == "stderr"] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_installs_only_where_jaxdd_is_missing(path, monkeypatch):
    space, called = {}, []
    monkeypatch.setattr(subprocess, "run", lambda command, check: called.append(command))
    exec(code(path)[0], space)
    assert called == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exec(code(path)[0], space)
    repository = space["REPOSITORY"]
    assert called == [[sys.executable, "-m", "pip", "install", "--quiet", repository]]
    assert (path.parent / repository / "pyproject.toml").exists()


def test_quickstart_is_what_the_script_builds(build):
    found = cells(FOLDER / "quickstart.ipynb")
    sources = [(cell["id"], cell["source"]) for cell in found]
    assert sources == [(cell["id"], cell["source"]) for cell in build.notebook()["cells"]]


def test_quickstart_has_the_code_of_the_readme_and_pictures():
    """The README is run as a doctest, so that the notebook need not be."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = doctest.DocTestParser().get_examples(text)
    blocks = code(FOLDER / "quickstart.ipynb")
    theirs = [block for block in blocks[1:] if "plt." not in block and "print(" not in block]
    assert "\n".join(theirs) + "\n" == "".join(example.source for example in examples)
    others = [block for block in blocks[1:] if block not in theirs]
    assert len(others) == 4 and all("plt.show()" in block for block in others[:3])
