"""Rows that are computed once, with all their switches; teachers of the right shape."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import networks
from jaxdd.commands import scoring
from jaxdd.data import datasets, files
from jaxdd.runs import old_results as results
from jaxdd.runs import options, parts
from jaxdd.runs.scoring import cells, matrix
from jaxdd.training import teachers

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1), dtype=np.uint8)
DATA = datasets.from_arrays(IMAGES, np.arange(12) % 2, strategy=())
SET = np.random.default_rng(1).normal(size=(3, 4, 4, 1)).astype(np.float32)
LABELS = np.array([0, 1, 1])
OPTIONS = options.DM(width=2, depth=1, epochs=1, eval_seeds=1).resolved()
SCORE = {name: {"mean": 0.5, "std": 0.0, "n": 1, "each": [0.5]} for name in results.SCORES}


def wanted(**given):
    return matrix.evaluations(SET, LABELS, DATA, OPTIONS, **given)


def counting(name, settings, calls):
    return cells.Cell(name, settings, lambda: calls.append(name) or SCORE)


def test_a_cell_is_computed_once_for_its_settings(tmp_path):
    """Another number of epochs computes it anew; other rows in the file stay."""
    calls, path = [], tmp_path / "rows.json"
    first = [counting(name, {"epochs": 1}, calls) for name in "ab"]
    assert cells.fill(path, first).keys() == {"a", "b"}
    cells.fill(path, first)
    assert calls == ["a", "b"]
    found = cells.fill(path, [counting("b", {"epochs": 2}, calls)])
    assert calls == ["a", "b", "b"] and found["b"]["epochs"] == 2
    assert files.read_json(path).keys() == {"a", "b"} and found.keys() == {"b"}


def test_what_another_process_wrote_meanwhile_stays(tmp_path):
    path = tmp_path / "rows.json"

    def slow():
        cells.fill(path, [counting("b", {}, [])])
        return SCORE

    cells.fill(path, [cells.Cell("a", {}, slow)])
    assert files.read_json(path).keys() == {"a", "b"}


def test_a_number_that_was_changed_is_refused(tmp_path):
    path = tmp_path / "rows.json"
    cells.fill(path, [counting("a", {}, [])])
    path.write_text(path.read_text().replace("0.5", "0.9"))
    with pytest.raises(ValueError, match="changed or damaged; delete it and evaluate again"):
        cells.fill(path, [])


def test_a_stopped_evaluation_keeps_what_it_had(tmp_path):
    def stop():
        raise KeyboardInterrupt

    path = tmp_path / "rows.json"
    with pytest.raises(KeyboardInterrupt):
        cells.fill(path, [counting("a", {}, []), cells.Cell("b", {}, stop)])
    assert files.read_json(path).keys() == {"a"}


def test_every_row_lists_its_switches():
    """Sets differ in their images alone, teachers in what they saw."""
    found = {
        cell.name: cell.settings
        for cell in wanted(protocols=("plain", "kd"), which=("set", "noise"))
    }
    assert found.keys() == {f"convnet {p} {s}" for p in ("plain", "kd") for s in ("set", "noise")}
    row = found["convnet kd set"]
    assert row["teacher"] == {"data": "as they are", "steps": 2000, "batch_size": 26}
    assert (row["labels"], row["epoch"], row["level"]) == ("hard", "last", "networks on one set")
    assert found["convnet plain set"]["teacher"] is None
    noise = found["convnet kd noise"]
    assert {name for name in row if row[name] != noise[name]} == {"set", "images"}
    weighed = matrix.Teaching(weights=np.arange(1.0, len(DATA.train.labels) + 1))
    (other,) = wanted(protocols=("kd",), teaching=weighed)
    assert {name for name in row if row[name] != other.settings[name]} == {"teacher"}


def test_a_teacher_that_is_given_is_asked_instead_of_a_new_one():
    network = networks.ConvNet(2, 2, 1)
    given = teachers.Teacher(network.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1))), network)
    teaching = matrix.Teaching(teacher=given)
    (cell,) = wanted(protocols=("soft",), teaching=teaching)
    told = cell.settings["teacher"]
    assert told.keys() == {"network", "parameters"} and told["network"] == repr(network)
    row = cell.score()
    assert (
        row["extra_bytes"] == {"teacher": teachers.num_bytes(given)}
        and 0 <= row["accuracy"]["mean"]
    )
    with pytest.raises(ValueError, match="elf trains a teacher that fits each network, found one"):
        wanted(protocols=("elf",), teaching=teaching)


def test_real_images_and_noise_are_as_many_of_each_class_as_the_set():
    cell = wanted(which=("random",))[0]
    images, labels = cell.score.args[2]
    assert images.shape == SET.shape and labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("name", parts.JUDGES)
def test_the_teacher_has_the_features_that_the_network_needs(name):
    """ConvNets of instance norm, as wide as the front, on images of 32 pixels; by shapes alone."""
    network = parts.named_network(dataclasses.replace(OPTIONS, network=name, depth=3), 10)
    images = jnp.zeros((1, 32, 32, 3))
    found = matrix.teacher_network(network, images, OPTIONS)
    width = {"vgg11": 512, "resnet18": 512}.get(name.partition("-")[0], OPTIONS.width)
    assert found.width == width and found.norm is networks.InstanceNorm
    if getattr(network, "parts", None) is not None:
        assert found.depth == 3


def test_a_row_with_a_teacher_counts_its_bytes(tmp_path):
    """Features are 3 images of 2×2 pixels and 2 channels; the model 9·2+2, 4 and 8·2+2 floats."""
    found = cells.fill(
        tmp_path / "rows.json", wanted(protocols=("elf",), teaching=matrix.Teaching(1, 2))
    )
    row = found["convnet elf set"]
    assert row["extra_bytes"] == {"features": 4 * 3 * 2 * 2 * 2, "feature_model": 4 * (20 + 4 + 18)}
    assert row["set_bytes"] == 4 * SET.size and 0 <= row["accuracy"]["mean"] <= 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(names=("lenet5",)), "unknown network 'lenet5'; known are convnet, mlp"),
        (dict(protocols=("fast",)), "unknown protocol 'fast'; known are plain, soft, kd, elf"),
        (dict(teaching=matrix.Teaching(0)), "at least 1 step, found 0"),
        (dict(which=("test",)), "unknown set 'test'; known are set, random, noise"),
        (dict(names=("mlp",), protocols=("elf",)), "must be a ConvNet, a VGG11, .* found MLP"),
    ],
)
def test_what_there_is_not_is_refused_before_any_work(given, message):
    with pytest.raises(ValueError, match=message):
        wanted(**given)


def test_the_command_refuses_before_any_work(tmp_path):
    source = tmp_path / "set.npz"
    np.savez(source, images=SET, labels=LABELS)
    with pytest.raises(ValueError, match="is no run; say with --dataset what it stands for"):
        scoring.evaluate_set(source)
    with pytest.raises(FileNotFoundError, match="out must be in a folder that is there"):
        scoring.evaluate_set(source, dataset="cdigits", out=tmp_path / "none" / "out.json")
    with pytest.raises(FileNotFoundError, match="none does not exist, expected a run"):
        scoring.evaluate_set(tmp_path / "none", dataset="cdigits")
    with pytest.raises(ValueError, match="out must be a file that ends in .json"):
        scoring.evaluate_set(source, dataset="cdigits", out=tmp_path)
    with pytest.raises(ValueError, match=r"images must be \[m, 16, 16, 3\]"):
        scoring.evaluate_set(source, dataset="cdigits", out=tmp_path / "out.json")
