"""The committed notebooks are complete, equal what build.py makes, and run at a small size."""

import ast
import functools
import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from jaxdd import networks, sampling, weights
from jaxdd.runs import bias, options
from jaxdd.weights import contrastive

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SMALL = networks.ConvNet(10, width=8, depth=1)
ENCODER = contrastive.Encoder(networks.ConvNet(10, width=4, depth=1, norm=None))

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind=None):
    content = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in content if kind in (None, cell["cell_type"])]


def code(path):
    return ["".join(cell["source"]) for cell in cells(path, "code")]


def printed(path):
    """Return what the cells of a notebook printed when it was built."""
    outputs = [output for cell in cells(path, "code") for output in cell["outputs"]]
    return "".join(line for output in outputs for line in output.get("text", ()))


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build", FOLDER / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- as committed ------------------------------------------------------------------------------


@each
def test_format_is_nbformat_4_5(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    for cell in notebook["cells"]:
        fields = {"cell_type", "id", "metadata", "source"}
        fields |= {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert set(cell) == fields and re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell["id"])
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)


@each
def test_cells_were_run_in_order(path):
    ran = cells(path, "code")
    assert [cell["execution_count"] for cell in ran] == list(range(1, len(ran) + 1))
    outputs = [output for cell in ran for output in cell["outputs"]]
    kinds = {output["output_type"] for output in outputs}
    assert "stream" in kinds <= {"display_data", "execute_result", "stream"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}
    assert any("image/png" in output.get("data", {}) for output in outputs)


@each
def test_outputs_are_small_and_name_no_folder_of_a_machine(path):
    outputs = json.dumps([cell["outputs"] for cell in cells(path, "code")])
    assert path.stat().st_size < 300_000
    assert not re.search(r"(?<![\w/])/(home|root|tmp|work|usr|Users|private)/", outputs)


def test_outputs_agree_with_the_text():
    text = printed(FOLDER / "quickstart.ipynb")
    assert float(re.search(r"conflicting (\S+)", text)[1]) > 0.6
    text = printed(FOLDER / "bias.ipynb")
    assert "unbiased: no evidence of a bias" in text and "biased: a bias" in text


# --- as built ----------------------------------------------------------------------------------


@each
def test_notebook_equals_its_source(build, path):
    content = build.notebook(path.stem)
    sources = [(cell["id"], cell["source"]) for cell in cells(path)]
    assert sources == [(cell["id"], cell["source"]) for cell in content["cells"]]
    place = path.relative_to(ROOT).as_posix()
    assert f"/github/{build.REPOSITORY}/blob/main/{place})" in "".join(cells(path)[0]["source"])


def test_every_program_is_built(build):
    assert build.PROGRAMS == [path.stem for path in NOTEBOOKS]


def test_only_new_code_is_executed(build, monkeypatch, tmp_path):
    """New text, and another place to install jaxdd from, leave the outputs as they are."""
    text, content = NOTEBOOKS[0].read_text(encoding="utf-8"), build.notebook(NOTEBOOKS[0].stem)
    path = tmp_path / NOTEBOOKS[0].name
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setattr(build, "notebook", lambda name: content)
    monkeypatch.setattr(build, "execute", lambda content: pytest.fail("executed"))
    old = text.replace("git+https://", "https://").replace("jaxdd bias", "jaxdd audit")
    assert len(old) != len(text)
    path.write_text(old, encoding="utf-8")
    build.main(path.stem)
    assert path.read_text(encoding="utf-8") == text
    path.write_text(text.replace("import numpy", "import  numpy"), encoding="utf-8")
    with pytest.raises(pytest.fail.Exception, match="executed"):
        build.main(path.stem)


@each
def test_links_lead_to_files(path):
    text = "\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)", text)
    assert targets and [target for target in targets if not (FOLDER / target).exists()] == []


# --- the cell that installs jaxdd --------------------------------------------------------------


@pytest.fixture
def install(monkeypatch):
    """Run the first cell of a notebook, with a fake pip that writes this stderr."""

    def run(path, stderr, *, missing=True):
        calls, names = [], {}
        result = types.SimpleNamespace(returncode=bool(stderr), stderr=stderr)
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "run", lambda command, **_: calls.append(command) or result)
            if missing:
                patch.setattr(importlib.util, "find_spec", lambda name: None)
            exec(code(path)[0], names)
        return calls, names

    return run


def test_jaxdd_is_installed_only_if_it_is_missing(build, install):
    source = f"git+https://github.com/{build.REPOSITORY}"
    assert install(NOTEBOOKS[0], "", missing=False)[0] == []
    calls, _ = install(NOTEBOOKS[0], "")
    assert calls == [[sys.executable, "-m", "pip", "install", "--quiet", source]]


@pytest.mark.parametrize(
    "stderr, reason",
    [
        ("error: in git\n  fatal: no such host\nnote: not pip\n", "fatal: no such host"),
        ("No module named pip", "No module named pip"),
    ],
)
def test_a_failed_installation_is_explained(build, install, stderr, reason):
    with pytest.raises(SystemExit, match=f"{build.REPOSITORY}.*{reason}"):
        install(NOTEBOOKS[0], stderr)


# --- run ---------------------------------------------------------------------------------------


def execute(name, values=(), changes=()):
    """Run a notebook except its first cell, which installs.

    Args:
        name: the notebook.
        values: values by name that replace those in the cell "sizes".
        changes: replacements in the code, by the text that they replace, which must occur once.

    Returns:
        All names, and the value of the last expression of each cell.
    """
    values, changes = dict(values), dict(changes)
    path, names, shown = FOLDER / f"{name}.ipynb", {"__name__": name}, {}
    whole = "\n".join(code(path))
    assert [old for old in changes if whole.count(old) != 1] == []
    for cell, source in list(zip(cells(path, "code"), code(path), strict=True))[1:]:
        for old, new in changes.items():
            source = source.replace(old, new)
        *body, last = ast.parse(source).body
        if not isinstance(last, ast.Expr):
            body.append(last)
        exec(compile(ast.Module(body, []), cell["id"], "exec"), names)
        if isinstance(last, ast.Expr):
            shown[cell["id"]] = eval(compile(ast.Expression(last.value), cell["id"], "eval"), names)
        if cell["id"] == "sizes":
            assert set(values) <= set(names)
            names.update(values)
    return types.SimpleNamespace(**names), shown


def test_quickstart(capsys, monkeypatch):
    """The notebook runs with fewer steps and smaller networks than the test of the README."""
    import matplotlib

    matplotlib.use("agg")
    monkeypatch.setattr(weights, "default_encoder", lambda pool: ENCODER)
    changes = {
        "steps=10": "steps=2",
        "width=16, depth=2": "width=8, depth=1",
        "size=64": "size=8",
        "steps=20": "steps=2",
        "epochs=60": "epochs=2",
    }
    names, shown = execute("quickstart", changes=changes)
    assert names.step == 2 and np.isfinite(names.info["loss"]).all()
    output = capsys.readouterr().out
    assert "10% bias-conflicting" in output
    assert f"accuracy    {names.scores.accuracy.mean():.3f}" in output
    assert shown["data-shown"].size == shown["distil-shown"].size == (338, 338)


def test_own_data(tmp_path, capsys):
    tiny = dict(ipc=1, steps=2, batch_size=8, width=8, depth=1, epochs=2, eval_seeds=1)
    tiny |= dict(encoder_steps=2, encoder_width=8, strategy=())
    names, shown = execute("own_data", dict(WORK=tmp_path, OPTIONS=options.DM(**tiny)))
    assert len(list((tmp_path / "images").glob("*.png"))) == 1437 + 360
    assert "the same images: True" in capsys.readouterr().out
    assert list(names.rows) == ["random", "plain", "density"]
    assert names.rows["density"].config["dataset"] == "my-digits"
    assert np.isfinite(names.rows["density"].conflicting.mean)
    assert names.published.images.shape == (10, 1, 16, 16, 3)
    assert (tmp_path / "report.html").exists() and shown["images"].size == (76, 338)


def test_own_method(monkeypatch):
    """The images start from noise, so that the losses decrease clearly."""
    monkeypatch.setattr(weights, "default_encoder", lambda pool: ENCODER)
    small = dict(SIZE=8, STEPS=50, ENCODER_STEPS=2, EPOCHS=2, EVALUATED=SMALL)
    names, _ = execute("own_method", small | dict(START=sampling.initial_noise, STRATEGY=()))
    for losses in names.losses.values():
        assert losses.shape == (50,) and losses[-10:].max() < losses[0] / 2
    start, _, free, within = names.sets.values()
    assert (within >= names.darkest).all() and (within <= names.brightest).all()
    assert not np.array_equal(free, within) and not np.array_equal(start, within)
    assert set(names.scores) == set(names.sets)


def test_bias(monkeypatch, capsys):
    check = functools.partial(
        weights.check_with_probe_networks, jax.random.key(3), strategy=(), network=SMALL, sets=2,
        epochs=30,
    )  # fmt: skip
    search = weights.Search((15,), (0.2,), (1.0,), encoder=ENCODER)
    find = functools.partial(bias.find, search=search, comparisons={}, check=check)
    monkeypatch.setattr(bias, "find", find)
    names, shown = execute("bias")
    output = capsys.readouterr().out
    assert "unbiased: no evidence of a bias" in output
    assert re.search(r"\nbiased: .*a bias in colours and brightness \(tone\)", output)
    choices = [names.findings[name].choice for name in ("unbiased", "biased")]
    assert choices[0].verdict == "none" and choices[1].verdict in ("biased", "undecided")
    trials = choices[1].candidates[0].trials
    assert trials["weighted"].conflicting > trials["uniform"].conflicting
    assert names.findings["biased"].auc["tone"] > 0.9
    assert shown["pictures"] is not None and len(list(names.folder.glob("bias-*.html"))) == 2
