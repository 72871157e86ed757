"""The README and the documentation pages agree with the code and with the results."""

import ast
import functools
import json
import pathlib
import posixpath
import re
import shlex

import pytest

from docs import repository_pages
from experiments import claims
from experiments.tools import grid, overview, table
from experiments.tools import reference as generated
from jaxdd.commands import cli, reference, runs
from jaxdd.runs import options

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    *repository_pages.PAGES,
    *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md"))),
]
OTHER_OPTIONS = {
    "docs/comparison/cobra.md": {"--mode"},
    "docs/comparison/dream.md": {"--interval", "--metric", "--reproduce"},
    "docs/comparison/mtt.md": {"--mom", "--subset", "--texture"},
    "docs/comparison/sre2l_rded.md": {"--mipc", "--num-crop"},
    "docs/results/fidelity.md": {"--ema"},
}
"""Options of other codebases, by page."""

LINK = re.compile(r"""(?:\]\(|(?:src|href)=")(?!https?:|mailto:)([^)"#\s]*)(?:#([^)"\s]+))?[)"]""")


def read(path):
    """Return a page as Markdown; of a notebook, its text and its code without outputs."""
    if path.endswith(".ipynb"):
        cells = json.loads((ROOT / path).read_text(encoding="utf-8"))["cells"]
        text = [{**cell, "outputs": []} for cell in cells]
        return repository_pages.notebook_text({"cells": text}, "")
    return repository_pages.text_of(path)


def without_code(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


# --- the README --------------------------------------------------------------------------------


def test_readme_begins_with_demo_and_test_commands():
    blocks = re.findall(r"^```\w*\n(.*?)^```", README, re.M | re.S)
    commands = [block.strip() for block in blocks if block.startswith("pip install")]
    assert commands[:2] == [
        "pip install . && jaxdd demo --out demo",
        "pip install '.[test]' && pytest",
    ]


def test_python_of_the_readme_runs(monkeypatch, tmp_path):
    (code,) = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
    small = "ipc=10, steps=2, epochs=2, eval_seeds=1, width=8, depth=2, encoder_steps=2"
    assert "ipc=10" in code
    monkeypatch.chdir(tmp_path)
    exec(code.replace("ipc=10", small), {})
    assert (tmp_path / "run" / "result.json").is_file()


def test_readme_is_short():
    words = [word for word in without_code(README).split() if re.search("[A-Za-z]", word)]
    assert len(words) <= 700


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=lambda claim: claim.text)
def test_commands_of_the_readme_match_the_results(claim, monkeypatch):
    """Each command has the configuration of the results and gives both rows of the table."""
    loaded, compared = [], []

    def load(dataset, chosen, data_dir):
        loaded.append(dataset)

    def compare(**arguments):
        compared.append(arguments)
        return dict.fromkeys(arguments["rows"])

    monkeypatch.setattr(runs.sources, "load", load)
    monkeypatch.setattr(runs.pipeline, "compare", compare)
    monkeypatch.setattr(runs.screen, "show", lambda rows, out: None)
    cli._parse(shlex.split(claims.command(claim))[1:])()
    (arguments,) = compared
    assert loaded == [claim.dataset] and {"plain", claim.weighted} <= set(arguments["rows"])
    for cell in claims.pair(claim):
        chosen = cell._replace(options=arguments["options"])
        assert grid.configuration(chosen) == grid.configuration(cell)


# --- all pages ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
def test_links_resolve(path):
    for target, anchor in LINK.findall(without_code(read(path))):
        file = (ROOT / path).parent / target if target else ROOT / path
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", read(str(file.resolve().relative_to(ROOT))), re.M)
            assert anchor in {overview.anchor(heading) for heading in headings}, (target, anchor)


def with_root_links(path):
    """Return the text of a page, with links relative to the root of the repository."""
    folder = posixpath.dirname(path)
    resolve = lambda match: f"]({posixpath.normpath(posixpath.join(folder, match[1]))}"
    return re.sub(r"\]\((?!https?:|#)([^)#\s]+)", resolve, read(path))


def test_tables_of_numbers_are_generated():
    """A table that links to a result or names a score equals a generated one, line by line."""
    generated = {"\n".join(block) + "\n" for block in table.blocks()}
    tables = re.findall(r"(?:^\|.*\n)+", "\n\n".join(map(with_root_links, PAGES)), re.M)
    marks = "](experiments/results/", "samples)", "±"
    shown = [block for block in tables if any(mark in block for mark in marks)]
    assert len(shown) > 30 and [block for block in shown if block not in generated] == []


@pytest.mark.parametrize("path", generated.PAGES)
def test_generated_parts_are_up_to_date(path):
    """`python -m experiments.tools.reference` writes them."""
    text = read(path)
    assert generated.with_generated(text, generated.PAGES[path]()) == text


@functools.cache
def flags(command, method="dm"):
    """Return the options of a command of jaxdd."""
    return {"--help"}.union(*(option.flags for option in reference.options(command, method)))


@functools.cache
def all_options():
    """Return the options of jaxdd and of the experiments, and those of other programs in use."""
    known = {"--version", "--tyro-write-completion", "--strict"}
    for command in reference.COMMANDS:
        methods = options.OPTIONS if command == "run" else ["dm"]
        known = known.union(*(flags(command, method) for method in methods))
    for path in (ROOT / "experiments").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.arg):  # tyro makes options of the parameters of `main`
                known.add(f"--{node.arg.replace('_', '-')}")
    return known


def code_lines(text):
    """Return the lines of code blocks, and all inline code."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    inline = re.findall(r"`([^`\n]+)`", without_code(text))
    return [*"\n".join(blocks).replace("\\\n", " ").splitlines(), *inline]


@pytest.mark.parametrize("path", PAGES)
def test_documented_options_exist(path):
    """Options of a jaxdd command are options of that command, and others of some program.

    Names with underscores or capitals are options of other codebases.
    """
    for line in code_lines(read(path)):
        line = line.split(" # ")[0]
        used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*(?![\w])", line))
        command = re.match(r"jaxdd (datasets \w+|\w+)", line.split("&& ")[-1])
        if command and command[1] in reference.COMMANDS and "|" not in line:
            method = re.search(r"--method (\w+)", line)
            known = flags(command[1], method[1] if method else "dm")
        else:
            known = all_options() | OTHER_OPTIONS.get(path, set())
        assert used <= known, (line, used - known)


def test_contributing_names_every_package():
    packages = {path.parent.name for path in (ROOT / "jaxdd").rglob("__init__.py")} - {"jaxdd"}
    assert {name for name in packages if f"`{name}/`" not in read("docs/contributing.md")} == set()


def test_reference_lists_every_package_and_top_level_module():
    """Pages show the modules of a package without listing them (`show_submodules`)."""
    pages = "".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    paths = [*(ROOT / "jaxdd").glob("*.py"), *(ROOT / "jaxdd").glob("*/__init__.py")]
    names = {path.parent.name if path.name == "__init__.py" else path.stem for path in paths}
    public = {f"jaxdd.{name}" for name in names if name[0] != "_"} - {"jaxdd.jaxdd"}
    assert set(re.findall(r"^::: (\S+)$", pages, re.M)) == public


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"([\w/]+\.md)$", read("mkdocs.yml"), re.M)
    assert sorted(listed) == sorted(map(repository_pages.site_path, PAGES))


def test_tutorials_show_the_stored_outputs():
    """On the site a notebook has its text, code, printed text and images, but no install cell."""
    cells = [
        dict(id="install", cell_type="code", source=["import pip"], outputs=[]),
        dict(id="title", cell_type="markdown", source=["# Title\n", "Text"]),
        dict(id="plot", cell_type="code", source=["1 + 1"], outputs=[
            {"text": ["2\n"]}, {"data": {"image/png": "AAAA", "text/plain": ["<Figure>"]}}]),
    ]  # fmt: skip
    notebook = {"cells": cells}
    shown = "# Title\nText\n\n```python\n1 + 1\n```\n\n```text\n2\n```\n\n"
    image = "![Output of the code above](name-plot.png)\n"
    assert repository_pages.notebook_text(notebook, "name") == shown + image
    assert repository_pages.notebook_images(notebook, "name") == {"name-plot.png": b"\0\0\0"}
