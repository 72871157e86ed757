"""Tests of scoring a finished run: the scores are reproduced, other data are rejected."""

import dataclasses

import numpy as np
import pytest

from jaxdd.data import datasets, files
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
    run_options = finished_run.options_for(folder, data)
    labelled = labelled_sets.read(source, data, factor=run_options.formation)
    (cell,) = matrix.cells(labelled, data, run_options, names=("mlp",), **arguments)
    return cell.score()["accuracy"]


def scores_of(result):
    return files.to_json(result.to_dict())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    return folder, scores_of(pipeline.run(make_data(), folder, OPTIONS, debias="plain"))


def test_the_images_of_a_run_score_as_in_the_run(finished):
    """The augmentation is that of the run, whatever strategy the data have now."""
    folder, result = finished
    images = store.read_synthetic(folder / "synthetic.npz").images
    for strategy in ((), ("crop", "flip")):
        data = make_data(strategy=strategy)
        assert finished_run.score(folder, data, images)["accuracy"] == result["accuracy"]
        assert evaluate(folder, folder, data) == result["accuracy"]


@pytest.mark.filterwarnings("ignore:ZCA")
def test_a_whitened_set_is_scored_through_its_whitening(tmp_path):
    """Checked for the run folder and for an exported set."""
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
    assert evaluate(tmp_path / "npz", folder, data) == result["accuracy"]
    whitening = store.whitening_of(folder)
    changed = whitening._replace(matrix=2 * whitening.matrix)
    store.write_whitening(folder / store.WHITENING, changed)
    with pytest.raises(ValueError, match="whitening.npz"):
        labelled_sets.read(folder, data)


def test_other_data_and_unfinished_runs_are_rejected(finished, tmp_path):
    folder, _ = finished
    with pytest.raises(ValueError, match=datasets.digest(make_data(seed=1))):
        finished_run.options_for(folder, make_data(seed=1))
    with pytest.raises(FileNotFoundError, match="config.json"):
        finished_run.options_for(tmp_path, make_data())
    files.write_json(tmp_path / "config.json", dataclasses.asdict(OPTIONS))
    with pytest.raises(FileNotFoundError, match="synthetic.npz"):
        finished_run.options_for(tmp_path, make_data())
