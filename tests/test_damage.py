"""Every file of a finished run, damaged in every way, and what the commands make of it."""

import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

import jaxdd
from jaxdd import sampling
from jaxdd.data import benchmarks, datasets, files
from jaxdd.runs import old_results as results
from jaxdd.runs import options, pipeline
from jaxdd.runs.folder import manifest, store
from jaxdd.runs.reports import plot, report

TINY = options.DM(
    ipc=2, batch_size=8, network="mlp", depth=2, epochs=1, eval_seeds=1, chunk=2, steps=2,
    encoder_steps=2, encoder_width=4, strategy=(),
)  # fmt: skip
EXPECTED = (ValueError, TypeError, OSError)  # which the command line turns into one line and 2


class Made(Exception):
    """It came so far that it computes."""


def wrong_type(path):
    if path.suffix == ".npz":
        np.savez(path, images=["a"], weights=["a"])
    elif path.suffix == ".png":
        Image.new("RGB", (8, 8)).save(path, "GIF")
    else:
        path.write_text("[1]\n")


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "flipped": flipped,
    "wrong type": wrong_type,
    "pickle": lambda path: path.write_bytes(pickle.dumps({"accuracy": print})),
}
READ = {
    "resume": {"config.json", "result.json", *store.PRODUCTS},
    "report": {
        "config.json",
        "result.json",
        "synthetic.npz",
        "weights.png",
        "embedding.png",
        "figures.npz",
    },
}
"""What each command needs whole; the other files are figures that are drawn again, or records."""


@pytest.fixture(scope="module")
def data():
    return benchmarks.load("cdigits")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    pipeline.run(data, folder, TINY, debias="kde")
    return folder


@pytest.fixture(scope="module", autouse=True)
def drawn_quickly():
    """Figures of a few pixels."""

    def draw(path, *_, **__):
        with files.atomic_path(path) as temporary:
            Image.new("L", (4, 4)).save(temporary, "PNG")

    with pytest.MonkeyPatch.context() as patched:
        for name in ("synthetic_grid", "accuracy_bars", "weights_by_group", "embedding_map"):
            patched.setattr(plot, name, draw)
        yield


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def said(function):
    """The line that a command ends with, "made" where it begins to compute, or None."""
    try:
        function()
    except Made:
        return "made"
    except EXPECTED as error:
        assert "\n" not in str(error)
        return str(error)


@pytest.fixture
def commands(data, monkeypatch):
    """The commands on a folder, stopped where they would compute."""

    def made(*_, **__):
        raise Made

    monkeypatch.setattr(pipeline._Attempt, "source", made)

    return {
        "resume": lambda folder: pipeline.run(data, folder, TINY, debias="kde", resume=True),
        "report": report.read,
    }


FILES = (
    "config.json", "progress.jsonl", "seconds.json", "weights.npz", "weights.png", "embedding.png",
    "figures.npz", "synthetic.npz", "synthetic.png", "accuracy.png", "result.json", "manifest.json",
    "checkpoint/2/manifest.json",
)  # fmt: skip


def test_all_files_of_a_run_are_looked_at(finished):
    assert {path.name for path in finished.iterdir()} == {
        ".lock", "checkpoint", *(name for name in FILES if "/" not in name)
    }  # fmt: skip


def test_the_manifest_of_a_run_knows_data_weights_and_scores(finished, data):
    found = jaxdd.load(finished)
    made, scores = found.manifest["provenance"], found.manifest["scores"]
    weights = files.read_arrays(finished / "weights.npz")["weights"]
    drawn = sampling.reweight(datasets.pool(data), weights).weights
    assert made["weights"] == manifest.array_digest(np.asarray(drawn))
    assert made["source"] == {"name": "cdigits", "blake2b": datasets.digest(data)}
    assert made["config"] == files.read_json(finished / "config.json")
    assert scores["conflicting"] == files.read_json(finished / "result.json")["conflicting"]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_damage(finished, tmp_path, commands, name, damage):
    """Made again, or named in one line; no command makes the folder worse."""
    folder = shutil.copytree(finished, tmp_path / "out")
    path, before = folder / name, contents(folder)
    DAMAGES[damage](path)
    damaged = contents(folder)
    for command in ("report", "resume"):
        line = said(lambda command=command: commands[command](folder))
        if line is not None and line != "made":
            assert str(path) in line or (damage == "missing" and str(folder) in line)
            assert contents(folder) == damaged
        elif command == "resume" and line == "made":
            assert name in store.PRODUCTS or (name, damage) == ("result.json", "missing")
            assert contents(folder) == damaged
        elif command == "resume":
            assert name not in READ["resume"]
            assert contents(folder) | {path: b""} == before | {path: b""}
            assert name != "manifest.json" or contents(folder) == before
            drawn = name.endswith(".png") and (name, damage) != ("embedding.png", "missing")
            assert not drawn or store.is_drawn(path)
        else:
            optional = damage == "missing" and name in (
                "result.json",
                "weights.png",
                "embedding.png",
                "figures.npz",
            )
            assert optional or name not in READ[command]
            assert contents(folder) == damaged


@pytest.mark.parametrize("name, damage", [("synthetic.npz", "missing"), ("weights.npz", "flipped")])
def test_what_was_damaged_is_made_again(finished, data, tmp_path, name, damage):
    """From the last state, to the very bytes, with the scores that it had."""
    folder = shutil.copytree(finished, tmp_path / "out")
    DAMAGES[damage](folder / name)
    result = pipeline.run(data, folder, TINY, debias="kde", resume=True)
    assert (folder / name).read_bytes() == (finished / name).read_bytes()
    before = results.read_result(finished / "result.json")
    same = ("accuracy", "random", "weights", "digests")
    assert {part: result[part] for part in same} == {part: before[part] for part in same}


def test_a_set_without_a_state_to_make_it_from(finished, data, tmp_path):
    """Nothing is distilled anew unless the user says so."""
    folder = shutil.copytree(finished, tmp_path / "out")
    (folder / "synthetic.npz").write_bytes(b"")
    states = folder / "checkpoint"
    for state in states.iterdir():
        flipped(state / "manifest.json")
    resume = lambda: pipeline.run(data, folder, TINY, debias="kde", resume=True)
    assert f"no readable state in {states}" in said(resume)
    shutil.rmtree(states)
    assert f"delete {folder / 'result.json'} and resume to distil anew" in said(resume)


def test_a_folder_without_digests_is_believed_if_its_set_is_readable(finished, tmp_path, commands):
    folder = shutil.copytree(finished, tmp_path / "out")
    result = files.read_json(folder / "result.json")
    del result["digests"], result["digest"]
    files.write_json(folder / "result.json", result)
    assert [said(lambda c=c: c(folder)) for c in commands.values()] == [None, None]
    flipped(folder / "synthetic.npz")
    assert said(lambda: commands["resume"](folder)) == "made"
    assert "its command with --resume makes it again" in said(lambda: commands["report"](folder))


@pytest.mark.parametrize("command", READ)
def test_a_changed_score_is_no_result(finished, tmp_path, commands, command):
    """One figure of one number, in a file that is as well-formed as before."""
    folder = shutil.copytree(finished, tmp_path / "out")
    path = folder / "result.json"
    text = path.read_text()
    at = text.index('"mean": 0.') + len('"mean": 0.')
    path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    line = said(lambda: commands[command](folder))
    assert f"{path}" in line and "it is not what its digest says" in line


@pytest.mark.parametrize("command", ["report"])
def test_a_changed_configuration_is_not_that_of_the_result(finished, tmp_path, commands, command):
    folder = shutil.copytree(finished, tmp_path / "out")
    config = files.read_json(folder / "config.json")
    files.write_json(folder / "config.json", config | {"epochs": 7})
    line = said(lambda: commands[command](folder))
    assert "config.json is not what the result was made with: epochs is 7 there and 1 here" in line


def test_a_damaged_figure_of_an_unfinished_run_is_drawn_again(finished, tmp_path, commands):
    folder = shutil.copytree(finished, tmp_path / "out")
    (folder / "result.json").unlink()
    (folder / "weights.png").write_bytes(b"")
    assert said(lambda: commands["resume"](folder)) == "made"
    assert store.is_drawn(folder / "weights.png")


def test_what_killed_writes_left_is_swept(finished, tmp_path, commands):
    """But not what an evaluation may be writing at the time, nor what is no temporary file."""
    folder = shutil.copytree(finished, tmp_path / "out")
    swept = [folder / ".synthetic.npz.01234567.tmp", folder / "experts" / ".a.npz.89abcdef.tmp"]
    kept = [folder / ".evaluation.json.01234567.tmp", folder / ".mine.tmp"]
    (folder / "experts").mkdir()
    for path in swept + kept:
        path.write_bytes(b"half")
    commands["resume"](folder)
    assert [path.exists() for path in swept + kept] == [False, False, True, True]


@pytest.mark.parametrize(
    "change, match",
    [
        ({"accuracy": {"mean": "x"}}, "result.json: mean of accuracy is out of range, found 'x'"),
        ({"accuracy": {"mean": None}}, "result.json: the accuracy must have a mean, found none"),
        ({"random": None}, "result.json, random: expected an accuracy, found none"),
        (
            {"weights": {"conflict_weight_share": "x"}},
            "result.json: conflict_weight_share must be a number, found",
        ),
        ({"weights": None}, "result.json: weights must hold names and values, found None"),
        ({"digests": [1]}, "result.json: digests must hold names and values"),
    ],
    ids=str,
)
def test_results_that_are_none(finished, tmp_path, change, match):
    files.write_json(tmp_path / "result.json", files.read_json(finished / "result.json") | change)
    with pytest.raises(ValueError, match=f"{match}.*; delete it and resume"):
        results.read_result(tmp_path / "result.json")


@pytest.mark.parametrize(
    "change", [{"ipc": -7}, {"preset": "zz"}, {"ipc": "x"}, {"ipc": float("nan")}]
)
@pytest.mark.parametrize("command", ["report"])
def test_options_that_cannot_be(finished, tmp_path, commands, command, change):
    folder = shutil.copytree(finished, tmp_path / "out")
    config = files.read_json(folder / "config.json")
    files.write_json(folder / "config.json", config | change)
    with pytest.raises(ValueError, match="config.json holds options that cannot be: "):
        commands[command](folder)
