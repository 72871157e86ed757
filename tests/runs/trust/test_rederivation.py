"""Distilling a published set again: what is compared, and what cannot be repeated."""

import pathlib

import numpy as np
import pytest

from jaxdd.data import datasets
from jaxdd.runs import pipeline
from jaxdd.runs.folder import store
from jaxdd.runs.trust import publication, rederivation

IMAGES = np.random.default_rng(0).uniform(0, 1, (3, 2, 4, 4, 1)).astype(np.float32)
LABELS = np.arange(3, dtype=np.int32).repeat(2).reshape(3, 2)


def benchmark():
    images, labels = np.zeros((6, 4, 4, 1), np.uint8), np.arange(6) % 3
    return datasets.from_arrays(images, labels, test=(images, labels), name="mine")


def published(images=IMAGES, provenance=None, **changes):
    if provenance is None:
        data = datasets.digest(benchmark())
        config = {"method": "dm", "dataset": "mine", "debias": "plain", "data": data}
        provenance = {"config": config | changes}
    moments = np.zeros(1, np.float32), np.ones(1, np.float32)
    synthetic = store.Synthetic(images, LABELS, *moments, provenance)
    return publication.Published(synthetic, {"kind": "run"}, {})


@pytest.mark.parametrize(
    "change, has_data, reason",
    [
        ({"provenance": {}}, True, "configuration"),
        ({}, False, "--data"),
        ({"data": "0"}, True, "was made from 0"),
        ({"own_method": "mine:method"}, True, "not part of jaxdd"),
        ({"network": "mine:network"}, True, "not part of jaxdd"),
        ({"augmentation": "mine:turn"}, True, "not part of jaxdd"),
        ({"debias": "custom"}, True, "supplied by the user"),
        ({"debias": "labels", "bias_labels": "0"}, True, "bias labels were supplied"),
        ({"debias": "unheard-of"}, True, "unheard-of"),
        ({"row": "random"}, True, "nothing was distilled"),
        ({"row": "plain", "batch_rows": ["plain", "custom"]}, True, "supplied by the user"),
        ({"row": "plain", "batch_rows": ["plain", "unheard-of"]}, True, "unheard-of"),
        ({"row": "plain", "batch_rows": ["density"]}, True, "share its batches"),
        ({"row": "plain", "batch_rows": 3}, True, "share its batches"),
    ],
)
def test_the_reason_why_a_set_cannot_be_repeated_is_stated(change, has_data, reason):
    data = benchmark() if has_data else None
    check = rederivation.distil_again(published(**change), data)
    assert check.verdict == "not run" and reason in check.why


@pytest.mark.parametrize(
    "difference, verdict",
    [(0, "no evidence found"), (0.01, "no evidence found"), (0.1, "evidence")],
)
def test_images_are_compared_with_a_tolerance(monkeypatch, difference, verdict):
    def run(data, folder, options, *, debias, **_):
        assert (options.epochs, options.eval_seeds, debias) == (1, 1, "plain")
        pathlib.Path(folder).mkdir()
        store.write_synthetic(f"{folder}/synthetic.npz", published().synthetic)

    monkeypatch.setattr(pipeline, "run", run)
    check = rederivation.distil_again(published(IMAGES + np.float32(difference)), benchmark())
    assert check.verdict == verdict and check.numbers["identical"] is (difference == 0)


def test_a_row_is_distilled_again_with_those_that_share_its_batches(monkeypatch):
    def compare(data, folder, options, *, rows, **_):
        assert rows == ["plain", "density"]
        (folder / "rows/density").mkdir(parents=True)
        store.write_synthetic(folder / "rows/density/synthetic.npz", published().synthetic)

    monkeypatch.setattr(pipeline, "compare", compare)
    of_row = published(row="density", batch_rows=["plain", "density"])
    assert rederivation.distil_again(of_row, benchmark()).numbers["identical"]


@pytest.mark.parametrize("provenance", [{}, {"config": "x"}, {"config": None}])
def test_forged_provenance_has_no_configuration(provenance):
    assert published(provenance=provenance).config == {}
