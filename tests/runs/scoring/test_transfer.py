"""The set of a run on other networks: the run's own score, read back, refused for other data."""

import dataclasses
import shutil

import numpy as np
import pytest

from jaxdd.data import datasets, files
from jaxdd.runs import old_results as results
from jaxdd.runs import options, parts, pipeline
from jaxdd.runs.folder import store, whitenings
from jaxdd.runs.scoring import matrix, sets, transfer
from jaxdd.runs.trust import publication

OPTIONS = options.DM(
    ipc=2,
    steps=2,
    batch_size=8,
    network="mlp",
    depth=1,
    epochs=2,
    eval_seeds=2,
    chunk=2,
    formation=2,
)


def squares(seed=0, strategy=()):
    images = np.random.default_rng(seed).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    return datasets.from_arrays(images, np.arange(30) % 2, strategy=strategy)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    return folder, pipeline.run(squares(), folder, OPTIONS, debias="none")


def test_the_network_of_the_run_scores_as_in_the_run(finished):
    folder, result = finished
    found = transfer.transfer(folder, squares(), names=("mlp",))["mlp"]
    assert found["synthetic"]["accuracy"] == result["accuracy"]
    assert found["random"]["accuracy"] == result["random"]["accuracy"]
    assert found["epochs"] == 2 and found["versions"] == result["versions"]


def test_other_images_score_as_those_of_the_run(finished):
    folder, result = finished
    images = store.read_synthetic(folder / "synthetic.npz").images
    assert transfer.score(folder, squares(), images)["accuracy"] == result["accuracy"]
    with pytest.raises(ValueError, match="made from other data than arrays is now: digest"):
        transfer.score(folder, squares(seed=1), images)


def test_any_evaluation_scores_the_set_of_a_run_as_the_run_did(finished):
    folder, result = finished
    asked = transfer.options_for(folder, squares()).resolved()
    found = sets.read(folder, squares(), factor=asked.formation)
    (cell,) = matrix.evaluations(found.images, found.labels, squares(), asked, names=("mlp",))
    assert cell.score()["accuracy"] == result["accuracy"]


@pytest.mark.filterwarnings("ignore:ZCA of 64 values")
def test_a_whitened_set_is_scored_through_its_whitening_wherever_it_goes(tmp_path):
    """By transfer, by its images, by any evaluation, and out of an export."""
    asked = dataclasses.replace(OPTIONS, formation=1, zca="plain")
    result = pipeline.run(squares(), tmp_path / "run", asked, debias="none")
    found = transfer.transfer(tmp_path / "run", squares(), names=("mlp",))["mlp"]
    assert found["synthetic"]["accuracy"] == result["accuracy"]
    assert found["random"]["accuracy"] == result["random"]["accuracy"]
    images = store.read_synthetic(tmp_path / "run" / "synthetic.npz").images
    scored = transfer.score(tmp_path / "run", squares(), images)
    assert scored["accuracy"] == result["accuracy"]
    for form in ("npz", "png"):
        publication.export(tmp_path / "run", tmp_path / form, format=form)
        given = sets.read(tmp_path / form, squares())
        np.testing.assert_array_equal(
            given.whitening.matrix, whitenings.of(tmp_path / "run").matrix
        )
        assert "whitened (ZCA)" in (tmp_path / form / "README.md").read_text()
    given = sets.read(tmp_path / "npz", squares())
    (cell,) = matrix.evaluations(
        given.images, given.labels, squares(), asked.resolved(), names=("mlp",),
        stored=given.about, whitening=given.whitening,
    )  # fmt: skip
    assert cell.score()["accuracy"] == result["accuracy"]
    assert "whitening" in cell.settings["stored"]
    made = whitenings.of(tmp_path / "run")
    whitenings.write(tmp_path / "run" / store.WHITENING, made._replace(matrix=2 * made.matrix))
    with pytest.raises(ValueError, match="whitening.npz is missing, or not the set that the run"):
        transfer.transfer(tmp_path / "run", squares(), names=("mlp",), eval_seeds=1)
    with pytest.raises(ValueError, match="whitening.npz has the SHA-256"):
        sets.read(tmp_path / "run", squares())


def test_a_whitening_that_lies_beside_a_set_without_one_is_not_looked_at(finished):
    folder, result = finished
    (folder / store.WHITENING).write_bytes(b"none of this run's")
    found = transfer.transfer(folder, squares(), names=("mlp",))["mlp"]
    (folder / store.WHITENING).unlink()
    assert found["synthetic"]["accuracy"] == result["accuracy"]


def test_what_was_evaluated_is_read_back(finished, monkeypatch):
    """With as many epochs and seeds; the other networks stay in the file."""
    folder, _ = finished
    first = transfer.transfer(folder, squares(), names=("mlp",))["mlp"]
    known = results.sealed({**first, "eval_seeds": 1})
    files.write_json(folder / "transfer.json", {"mlp": first, "lenet": known})
    found = transfer.transfer(folder, squares(), names=("mlp", "lenet"), eval_seeds=1)
    assert found["mlp"]["synthetic"]["accuracy"]["n"] == 1 and found["lenet"] == known
    monkeypatch.setattr(parts, "build", lambda *_: pytest.fail("evaluated again"))
    again = transfer.transfer(folder, squares(), names=("mlp",), eval_seeds=1)
    assert again == {"mlp": found["mlp"]} and again["mlp"] != first
    assert files.read_json(folder / "transfer.json").keys() == {"mlp", "lenet"}


def test_what_a_killed_transfer_left_is_swept_unless_one_is_at_work(finished):
    folder, _ = finished
    left = folder / ".transfer.json.01234567.tmp"
    left.write_bytes(b"half")
    with store.lock(folder), pytest.raises(BlockingIOError, match="another process is at work"):
        transfer.transfer(folder, squares(), names=())
    assert left.exists()
    (folder / "transfer.json").write_text("{}")
    assert transfer.transfer(folder, squares(), names=()) == {} and not left.exists()


def test_refuses(finished, tmp_path):
    folder, _ = finished
    with pytest.raises(ValueError, match="unknown network 'lenet5'; known are convnet, mlp"):
        transfer.transfer(folder, squares(), names=("lenet5",))
    with pytest.raises(ValueError, match="made from other data than arrays is now: digest"):
        transfer.transfer(folder, squares(seed=1))
    with pytest.raises(FileNotFoundError, match="holds no run: there is no config.json"):
        transfer.transfer(tmp_path, squares())
    files.write_json(tmp_path / "config.json", dataclasses.asdict(OPTIONS))
    with pytest.raises(FileNotFoundError, match="no finished run: there is no synthetic.npz"):
        transfer.transfer(tmp_path, squares())
    (tmp_path / "synthetic.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="does not hold the configuration of a run"):
        transfer.transfer(tmp_path, squares())


@pytest.mark.parametrize(
    "damage", [b"[]", b'{"mlp": 3}', b'{"mlp": {"synthetic": {}}}', b'{"mlp": ']
)
def test_damaged_results_are_named_before_any_work(finished, tmp_path, monkeypatch, damage):
    folder = shutil.copytree(finished[0], tmp_path / "out")
    (folder / "transfer.json").write_bytes(damage)
    monkeypatch.setattr(parts, "build", lambda *_: pytest.fail("evaluated"))
    with pytest.raises(ValueError, match="transfer.json"):
        transfer.transfer(folder, squares(), names=("mlp",))


def test_networks_train_by_the_augmentation_of_the_run(finished, monkeypatch):
    """Whatever strategy the data come with today."""
    folder, result = finished
    (folder / "transfer.json").unlink(missing_ok=True)
    data = squares(strategy=("crop", "flip"))
    found = transfer.transfer(folder, data, names=("mlp",))["mlp"]
    assert found["synthetic"]["accuracy"] == result["accuracy"]
