"""Tests of the evaluation matrix: rows computed once, their settings, teachers and their bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import networks
from jaxdd.commands import scoring
from jaxdd.data import datasets, files
from jaxdd.runs import networks as named_networks
from jaxdd.runs import options, results
from jaxdd.runs.scoring import labelled_sets, matrix
from jaxdd.training import teachers

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1), dtype=np.uint8)
DATA = datasets.from_arrays(IMAGES, np.arange(12) % 2, strategy=())
SET = np.random.default_rng(1).normal(size=(3, 4, 4, 1)).astype(np.float32)
LABELS = np.array([0, 1, 1])
OPTIONS = options.DM(width=2, depth=1, epochs=1, eval_seeds=1)
SCORES = {name: {"mean": 0.5, "std": 0.0, "n": 1, "each": [0.5]} for name in results.SCORES}


def make_cells(**arguments):
    return matrix.cells(labelled_sets.LabelledSet(SET, LABELS), DATA, OPTIONS, **arguments)


def counting_cell(name, settings, calls):
    return matrix.Cell(name, settings, lambda: calls.append(name) or SCORES)


def test_a_cell_is_computed_once_for_its_settings(tmp_path):
    """A cell with another number of epochs is computed again; other rows in the file stay."""
    calls, path = [], tmp_path / "rows.json"
    first = [counting_cell(name, {"epochs": 1}, calls) for name in "ab"]
    assert matrix.fill(path, first).keys() == {"a", "b"}
    matrix.fill(path, first)
    assert calls == ["a", "b"]
    rows = matrix.fill(path, [counting_cell("b", {"epochs": 2}, calls)])
    assert calls == ["a", "b", "b"] and rows["b"]["epochs"] == 2
    assert matrix.read(path).keys() == {"a", "b"} and rows.keys() == {"b"}


def test_rows_that_another_process_wrote_in_the_meantime_stay(tmp_path):
    path = tmp_path / "rows.json"

    def slow():
        matrix.fill(path, [counting_cell("b", {}, [])])
        return SCORES

    matrix.fill(path, [matrix.Cell("a", {}, slow)])
    assert files.read_json(path).keys() == {"a", "b"}


def test_a_stopped_evaluation_keeps_finished_rows(tmp_path):
    def stop():
        raise KeyboardInterrupt

    path = tmp_path / "rows.json"
    with pytest.raises(KeyboardInterrupt):
        matrix.fill(path, [counting_cell("a", {}, []), matrix.Cell("b", {}, stop)])
    assert files.read_json(path).keys() == {"a"}


@pytest.mark.parametrize("content", ["[]", '{"a": 3}', '{"a": {"accuracy": 1}}', '{"a": '])
def test_a_damaged_file_is_reported(tmp_path, content):
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="rows.json.*; delete it and evaluate again"):
        matrix.fill(path, [])


def test_networks_with_batch_norm_can_be_scored():
    (cell,) = make_cells(names=("convnet-bn",))
    assert cell.settings["network"] == "convnet-bn"


def test_rows_list_the_settings_that_affect_them():
    """Sets differ in their images only, teachers in their training data."""
    settings = {
        cell.name: cell.settings
        for cell in make_cells(protocols=("standard", "kd"), sets=("set", "noise"))
    }
    assert settings.keys() == {
        f"convnet {protocol} {name}" for protocol in ("standard", "kd") for name in ("set", "noise")
    }
    row = settings["convnet kd set"]
    assert row["teacher"] == {"data": "uniform weights", "steps": 2000, "batch_size": 26}
    assert (row["labels"], row["epoch"], row["level"]) == ("hard", "last", "networks on one set")
    assert settings["convnet standard set"]["teacher"] is None
    noise = settings["convnet kd noise"]
    assert {name for name in row if row[name] != noise[name]} == {"set", "images"}
    weights = np.arange(1.0, len(DATA.train.labels) + 1)
    (other,) = make_cells(protocols=("kd",), teacher=matrix.TeacherOptions(weights=weights))
    assert {name for name in row if row[name] != other.settings[name]} == {"teacher"}


def test_a_trained_teacher_can_be_passed():
    network = networks.ConvNet(2, 2, 1)
    params = network.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    teacher = teachers.Teacher(params, network)
    teacher_options = matrix.TeacherOptions(teacher=teacher)
    (cell,) = make_cells(protocols=("soft",), teacher=teacher_options)
    record = cell.settings["teacher"]
    assert record.keys() == {"network", "parameters"} and record["network"] == repr(network)
    row = cell.score()
    assert row["extra_bytes"] == {"teacher": teachers.num_bytes(teacher)}
    assert 0 <= row["accuracy"]["mean"] <= 1
    with pytest.raises(ValueError, match="elf"):
        make_cells(protocols=("elf",), teacher=teacher_options)


def test_random_real_images_have_the_class_sizes_of_the_set():
    (cell,) = make_cells(sets=("random",))
    images, labels = cell.score.args[2]
    assert images.shape == SET.shape and labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("name", named_networks.NAMES)
def test_the_teacher_has_the_features_that_the_network_needs(name):
    """ConvNets with instance norm, as wide as the front, on images of 32 pixels; shapes only."""
    network = named_networks.build(name, 10, width=OPTIONS.width, depth=3)
    teacher = matrix._teacher_network(network, jnp.zeros((1, 32, 32, 3)), OPTIONS)
    width = {"vgg11": 512, "resnet18": 512}.get(name.partition("-")[0], OPTIONS.width)
    assert teacher.width == width and teacher.norm is networks.InstanceNorm
    if getattr(network, "parts", None) is not None:
        assert teacher.depth == 3


def test_a_row_with_a_teacher_counts_its_bytes(tmp_path):
    """Features have 3 · 2·2·2 floats, the model 9·2+2, 4 and 8·2+2."""
    cells = make_cells(protocols=("elf",), teacher=matrix.TeacherOptions(1, 2))
    row = matrix.fill(tmp_path / "rows.json", cells)["convnet elf set"]
    assert row["extra_bytes"] == {"features": 4 * 3 * 2 * 2 * 2, "feature_model": 4 * (20 + 4 + 18)}
    assert row["set_bytes"] == 4 * SET.size and 0 <= row["accuracy"]["mean"] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(names=("lenet5",)), "'lenet5'"),
        (dict(protocols=("fast",)), "'fast'"),
        (dict(teacher=matrix.TeacherOptions(0)), "got 0"),
        (dict(sets=("test",)), "'test'"),
        (dict(names=("mlp",), protocols=("elf",)), "MLP"),
    ],
)
def test_unknown_names_are_rejected_before_any_work(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_cells(**arguments)


def test_every_set_has_a_file_of_its_own(tmp_path, monkeypatch):
    """Also sets whose names differ after a dot; only the folder of a run is written to."""
    monkeypatch.chdir(tmp_path)
    make = lambda name, **fields: labelled_sets.StoredSet(tmp_path / name, "npz", SET, **fields)
    for name in ("run-0.05", "run-0.01", "set.npz", "set.pt", ".hidden"):
        out = scoring._output_path("evaluation", make(name), None)
        assert out.name == f"evaluation-{name}.json" and out.resolve().parent == tmp_path
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").touch()
    run = make("run", is_run=True)
    assert scoring._output_path("profile", run, None) == tmp_path / "run" / "profile.json"
    for stored in (run, make("set.npz")):
        with pytest.raises(ValueError, match="other.json is inside the set"):
            scoring._output_path("profile", stored, tmp_path / "run" / "other.json")


def test_the_command_rejects_bad_paths_before_any_work(tmp_path):
    source, absent = tmp_path / "set.npz", tmp_path / "absent"
    np.savez(source, images=SET, labels=LABELS)
    cdigits = dict(dataset="cdigits")
    for path, arguments, error, message in (
        (source, {}, ValueError, "--dataset"),
        (source, cdigits | {"out": absent / "out.json"}, FileNotFoundError, "absent/out.json"),
        (absent, cdigits, FileNotFoundError, "absent does not exist"),
        (source, cdigits | {"out": tmp_path}, ValueError, str(tmp_path)),
        (source, cdigits | {"out": tmp_path / "out.json"}, ValueError, r"\(3, 4, 4, 1\)"),
    ):
        with pytest.raises(error, match=message):
            scoring.evaluate_set(path, **arguments)
