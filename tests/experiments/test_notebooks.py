"""The notebooks do what they say, in this process; as committed they were run whole by Jupyter."""

import ast
import doctest
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
from jaxdd.runs import options
from jaxdd.weights import contrastive

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "experiments" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SMALL = networks.ConvNet(10, width=8, depth=1)
ENCODER = contrastive.Encoder(networks.ConvNet(10, width=4, depth=1, norm=None))

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind=None):
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if kind in (None, cell["cell_type"])]


def code(path):
    return ["".join(cell["source"]) for cell in cells(path, "code")]


def printed(path):
    """What the cells of a notebook printed when Jupyter ran it."""
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


@each
def test_was_run_from_the_first_cell_to_the_last(path):
    ran = cells(path, "code")
    assert [cell["execution_count"] for cell in ran] == list(range(1, len(ran) + 1))
    outputs = [output for cell in ran for output in cell["outputs"]]
    kinds = {output["output_type"] for output in outputs}
    assert "stream" in kinds <= {"display_data", "execute_result", "stream"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}
    assert any("image/png" in output.get("data", {}) for output in outputs)


@each
def test_outputs_are_small_and_of_no_machine(path):
    outputs = json.dumps([cell["outputs"] for cell in cells(path, "code")])
    assert path.stat().st_size < 300_000
    assert not re.search(r"(?<![\w/])/(home|root|tmp|work|usr|Users|private)/", outputs)
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 1_000_000


def test_what_is_said_is_what_came_out():
    assert float(re.search(r"conflicting (\S+)", printed(FOLDER / "quickstart.ipynb"))[1]) > 0.6
    found = printed(FOLDER / "bias.ipynb")
    assert "one: no bias found\nother: a bias that is learnt before the classes\n" in found


# --- as built ----------------------------------------------------------------------------------


def test_each_is_built_and_each_program_is_a_notebook(build):
    assert sorted(build.COMMANDS) == [path.stem for path in NOTEBOOKS]
    programs = {path.stem for path in FOLDER.glob("*.py")} - {"build"}
    assert programs == set(build.COMMANDS) - {"quickstart"}


@each
def test_is_what_the_script_builds(build, path):
    made = build.notebook(path.stem)
    sources = [(cell["id"], cell["source"]) for cell in cells(path)]
    assert sources == [(cell["id"], cell["source"]) for cell in made["cells"]]
    assert made["metadata"] == json.loads(path.read_text(encoding="utf-8"))["metadata"]


@each
def test_the_badge_leads_to_the_notebook(build, path):
    (link,) = re.findall(
        r"\]\((https://colab\.\S+/github/\S+)\)", "".join(cells(path)[0]["source"])
    )
    place = path.relative_to(ROOT).as_posix()
    assert link.endswith(f"/github/{build.REPOSITORY}/blob/main/{place}")


@each
def test_links_lead_to_files(path):
    text = "\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)", text)
    assert targets and [each for each in targets if not (FOLDER / each).exists()] == []


@each
def test_says_what_a_gpu_would_take(path):
    (last,) = [cell for cell in cells(path) if cell["id"] == "gpu"]
    text = "".join(last["source"])
    assert re.search('preset[ =]"?paper', text) and "has not been measured" in text


def test_quickstart_has_the_code_of_the_readme_and_pictures():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = doctest.DocTestParser().get_examples(text)
    blocks = code(FOLDER / "quickstart.ipynb")
    theirs = [block for block in blocks[1:] if "plt." not in block and "print(" not in block]
    assert "\n".join(theirs) + "\n" == "".join(example.source for example in examples)
    assert len([block for block in blocks[1:] if block not in theirs]) == 4


# --- jaxdd, where it is missing ----------------------------------------------------------------


@pytest.fixture
def pip(monkeypatch):
    """Runs the cell that installs as if jaxdd were missing; calls of pip that end like this."""

    def run(path, stderr, *, missing=True):
        called, space = [], {}

        def called_pip(command, **options):
            called.append(command)
            return types.SimpleNamespace(returncode=bool(stderr), stderr=stderr)

        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "run", called_pip)
            if missing:
                patch.setattr(importlib.util, "find_spec", lambda name: None)
            exec(code(path)[0], space)
        return called, space

    return run


@each
def test_installs_only_where_jaxdd_is_missing(path, pip, monkeypatch):
    monkeypatch.chdir(path.parent)
    assert pip(path, "", missing=False)[0] == []
    called, space = pip(path, "")
    assert called == [[sys.executable, "-m", "pip", "install", "--quiet", space["SOURCE"]]]
    assert (path.parent / space["SOURCE"] / "pyproject.toml").exists()


@pytest.mark.parametrize(
    "stderr, reason",
    [
        ("error: in git\n  fatal: no such host\nnote: not pip\n", "fatal: no such host"),
        ("WARNING: retrying\nERROR: no version of setuptools\n", "ERROR: no version of setuptools"),
        ("No module named pip", "No module named pip"),
    ],
)
def test_without_a_network_says_what_was_tried(build, pip, monkeypatch, tmp_path, stderr, reason):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        pip(NOTEBOOKS[0], stderr)
    assert stopped.value.code == (
        "jaxdd is not installed, and pip could not install it from "
        f"git+https://github.com/{build.REPOSITORY} ({reason}). Is there a network? "
        "Set SOURCE to where jaxdd is and run this cell again."
    )


# --- run ---------------------------------------------------------------------------------------


def execute(name, given=(), changes=()):
    """Runs a notebook but its first cell, which installs.

    Args:
        name: the notebook.
        given: names and values, instead of those that the cell "sizes" gives them.
        changes: of the code, what is there once and what stands there instead.

    Returns:
        All names, and what the last expression of each cell shows.
    """
    path, space, shown = FOLDER / f"{name}.ipynb", {"__name__": name}, {}
    whole = "\n".join(code(path))
    assert [old for old, _ in changes if whole.count(old) != 1] == []
    for cell, source in list(zip(cells(path, "code"), code(path), strict=True))[1:]:
        for old, new in changes:
            source = source.replace(old, new)
        *body, last = ast.parse(source).body
        if not isinstance(last, ast.Expr):
            body.append(last)
        exec(compile(ast.Module(body, []), cell["id"], "exec"), space)
        if isinstance(last, ast.Expr):
            shown[cell["id"]] = eval(compile(ast.Expression(last.value), cell["id"], "eval"), space)
        if cell["id"] == "sizes":
            assert set(dict(given)) <= set(space)
            space.update(given)
    return types.SimpleNamespace(**space), shown


def test_quickstart(capsys, monkeypatch):
    """The README's test runs this code whole; here are fewer steps and smaller networks."""
    import matplotlib

    matplotlib.use("agg")
    monkeypatch.setattr(weights, "default_encoder", lambda pool: ENCODER)
    changes = {
        "by_density(key_weights, pool,": "by_density(key_weights, pool, steps=2,",
        "width=16, depth=2": "width=8, depth=1",
        "size=64": "size=8",
        "steps=20": "steps=2",
        "epochs=60": "epochs=2",
    }
    found, shown = execute("quickstart", changes=changes.items())
    assert found.step == 2 and np.isfinite(found.info["loss"]).all()
    assert "10% in another colour" in (told := capsys.readouterr().out)
    assert f"accuracy    {found.scores.accuracy.mean():.3f}" in told
    assert shown["data-shown"].size == (338, 338) and shown["distil-shown"].size == (338, 338)


def test_own_data(tmp_path, capsys):
    tiny = dict(ipc=1, steps=2, batch_size=8, width=8, depth=1, epochs=2, eval_seeds=1)
    tiny |= dict(encoder_steps=2, encoder_width=8, strategy=())
    found, shown = execute("own_data", dict(WORK=tmp_path, CHOSEN=options.DM(**tiny)))
    assert len(list((tmp_path / "images").glob("*.png"))) == 1437 + 360
    assert "the same images: True" in capsys.readouterr().out
    assert list(found.found) == ["random", "none", "kde"]
    assert found.found["kde"]["config"]["dataset"] == "my-digits"
    assert found.found["kde"]["conflicting"]["mean"] is not None
    assert (
        found.published.images.shape == (10, 1, 16, 16, 3) and (tmp_path / "report.html").exists()
    )
    assert shown["images"].size == (76, 338)


def test_own_method(monkeypatch):
    """From noise, where there is far to go."""
    monkeypatch.setattr(weights, "default_encoder", lambda pool: ENCODER)
    small = dict(SIZE=8, STEPS=50, ENCODER_STEPS=2, EPOCHS=2, JUDGE=SMALL)
    found, _ = execute("own_method", small | dict(START=sampling.initial_noise, STRATEGY=()))
    for losses in found.losses.values():
        assert losses.shape == (50,) and losses[-10:].max() < losses[0] / 2
    start, _, free, within = found.sets.values()
    assert (within >= found.darkest).all() and (within <= found.brightest).all()
    assert not np.array_equal(free, within) and not np.array_equal(start, within)
    assert set(found.scores) == set(found.sets)


def test_bias(tmp_path, capsys):
    judge = functools.partial(
        weights.check_with_probe_networks,
        jax.random.key(3),
        strategy=(),
        network=SMALL,
        sets=2,
        epochs=30,
    )
    search = weights.Search((15,), (0.2,), (1.0,), encoder=ENCODER)
    choosing = dict(search=search, comparisons={}, check=judge)
    found, shown = execute("bias", dict(WORK=tmp_path, CHOOSING=choosing))
    told = capsys.readouterr().out
    assert (
        "one: no bias found, though no view of the images was compared\nother: a bias that" in told
    )
    one, other = (found.found[name].choice for name in ("one", "other"))
    assert one.density is None and one.rejection is not None and other.rejection is None
    assert other.trials["best"].conflicting > other.trials["uniform"].conflicting + 0.2
    assert found.found["other"].auc > 0.9 and found.found["one"].auc is None
    assert shown["pictures"].width > 2 * shown["other"].width and found.surest("one") is None
    assert {path.name for path in tmp_path.iterdir()} == {"bias-one.html", "bias-other.html"}
