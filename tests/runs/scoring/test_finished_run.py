"""Tests of scoring a finished run: the scores are reproduced, other data are rejected."""

import dataclasses
import pathlib
import re
import shutil

import numpy as np
import pytest

from jaxdd.data import datasets, files
from jaxdd.methods import zca
from jaxdd.runs import options, pipeline
from jaxdd.runs.folder import store
from jaxdd.runs.scoring import finished_run, labelled_sets, matrix
from jaxdd.runs.trust import publication

OPTIONS = options.DM(
    ipc=2, steps=2, batch_size=8, network="mlp", depth=1, epochs=2, eval_seeds=2, chunk=2,
    formation=2,
)  # fmt: skip


def make_data(seed=0, strategy=()):
    images = np.random.default_rng(seed).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    return datasets.from_arrays(images, np.arange(30) % 2, strategy=strategy)


def evaluate(source, folder, data, **arguments):
    """Score the set in `source` with the matrix and the options of the run in `folder`."""
    run_options = finished_run.options_of(files.read_json(folder / "config.json"))
    labelled = labelled_sets.read(source, data)
    (cell,) = matrix.cells(labelled, data, run_options, names=("mlp",), **arguments)
    return cell.score()["accuracy"]


def scores_of(result):
    return files.to_json(result.to_dict())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    return folder, scores_of(pipeline.run(make_data(), folder, OPTIONS, debias="plain"))


@pytest.fixture(scope="module")
def exports(finished, tmp_path_factory):
    """Exports of the run in two formats, and a file that was moved out of its folder."""
    folder = tmp_path_factory.mktemp("exports")
    for form in ("npz", "png"):
        publication.export(finished[0], folder / form, format=form)
    shutil.copy(folder / "npz" / "synthetic.npz", folder / "moved.npz")
    return folder


@pytest.mark.parametrize("name", ["npz", "png", "npz/synthetic.npz", "moved.npz"])
def test_an_exported_set_is_decoded_and_counts_its_stored_bytes(finished, exports, name):
    """Four images of the network in each stored one, which has 64 values."""
    labelled = labelled_sets.read(exports / name, make_data())
    assert labelled.images.shape == (2 * 2 * 4, 8, 8, 1) and labelled.remarks == ()
    assert labelled.num_bytes == 2 * 2 * 64 * (1 if name == "png" else 4)
    if name != "png":
        assert evaluate(exports / name, finished[0], make_data()) == finished[1]["accuracy"]
    with pytest.raises(ValueError, match="formation 2, got 1"):
        labelled_sets.read(exports / name, make_data(), factor=1)
    with pytest.raises(ValueError, match="--pixels unit"):
        labelled_sets.read(exports / name, make_data(), pixels="unit")


def split_with(seed):
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    return datasets.from_arrays(images, np.arange(30) % 2, seed=seed)


@pytest.mark.parametrize("name", ["npz", "png", "npz/synthetic.npz"])
def test_a_set_is_not_scored_on_its_training_samples(finished, exports, name):
    """Another split of the same images is detected, other images are allowed."""
    train = make_data().train.images.tobytes()
    leaked = sum(image.tobytes() in train for image in split_with(1).test.images)
    with pytest.raises(ValueError, match=rf"{leaked} of 6 test images .* seed \(0\)"):
        labelled_sets.read(exports / name, split_with(1))
    remarks = labelled_sets.read(exports / name, make_data(seed=1)).remarks
    assert any("0 of 6 test images" in remark for remark in remarks)


def test_without_its_samples_a_set_is_scored_on_its_own_data_only(exports):
    with pytest.raises(ValueError, match=datasets.digest(split_with(1))):
        labelled_sets.read(exports / "moved.npz", split_with(1))


def test_rows_of_real_images_hold_one_image_each(exports, tmp_path):
    """The row "random" of a comparison with formation is not decoded."""
    synthetic = store.read_synthetic(exports / "moved.npz")
    provenance = {
        **synthetic.provenance,
        "config": synthetic.provenance["config"] | {"row": "random"},
    }
    store.write_synthetic(tmp_path / "set.npz", synthetic._replace(provenance=provenance))
    assert labelled_sets.read(tmp_path / "set.npz", make_data()).images.shape == (4, 8, 8, 1)


def test_the_images_of_a_run_score_as_in_the_run(finished):
    """The augmentation is that of the run, whatever strategy the data have now."""
    folder, result = finished
    images = store.read_synthetic(folder / "synthetic.npz").images
    for strategy in ((), ("crop", "flip")):
        data = make_data(strategy=strategy)
        assert finished_run.score(folder, data, images)["accuracy"] == result["accuracy"]
        assert evaluate(folder, folder, data) == result["accuracy"]


@pytest.mark.filterwarnings("ignore:ZCA")
def test_a_whitened_set_is_scored_through_its_whitening(tmp_path, monkeypatch):
    """Checked for the run folder, for exported sets, and for the code on their cards."""
    run_options = dataclasses.replace(OPTIONS, formation=1, zca="uniform")
    folder, data = tmp_path / "run", make_data()
    result = scores_of(pipeline.run(data, folder, run_options, debias="plain"))
    images = store.read_synthetic(folder / "synthetic.npz").images
    assert finished_run.score(folder, data, images)["accuracy"] == result["accuracy"]
    matrix_of_run = store.whitening_of(folder).matrix
    for form in ("npz", "png"):
        publication.export(folder, tmp_path / form, format=form)
        labelled = labelled_sets.read(tmp_path / form, data)
        np.testing.assert_array_equal(labelled.whitening.matrix, matrix_of_run)
        assert "whitening" in labelled.storage
        monkeypatch.chdir(tmp_path / form)
        code = re.findall(r"```python\n(.*?)```", pathlib.Path("README.md").read_text(), re.S)
        exec(code[0] + code[2], namespace := {})
        seen = zca.whiten(labelled.images, labelled.whitening, data.mean, data.std)
        whitened = namespace["images"].reshape(seen.shape)
        np.testing.assert_allclose(whitened, seen, atol=1e-4)
    assert evaluate(tmp_path / "npz", folder, data) == result["accuracy"]
    shutil.copy(folder / "synthetic.npz", tmp_path / "moved.npz")
    with pytest.raises(ValueError, match="--whiten"):
        labelled_sets.read(tmp_path / "moved.npz", data)
    assert labelled_sets.read(tmp_path / "moved.npz", data, whiten=True).whitening is not None
    whitening = store.whitening_of(folder)
    changed = whitening._replace(matrix=2 * whitening.matrix)
    store.write_whitening(folder / store.WHITENING, changed)
    with pytest.raises(ValueError, match="whitening.npz"):
        labelled_sets.read(folder, data)


def test_other_data_and_unfinished_runs_are_rejected(finished, tmp_path):
    folder, _ = finished
    with pytest.raises(ValueError, match=datasets.digest(make_data(seed=1))):
        finished_run.score(folder, make_data(seed=1), np.zeros((2, 2, 8, 8, 1)))
    files.write_json(tmp_path / "config.json", dataclasses.asdict(OPTIONS))
    with pytest.raises(FileNotFoundError, match="synthetic.npz"):
        labelled_sets.load(tmp_path)
