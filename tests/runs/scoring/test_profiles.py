"""Tests of spectral profiles: of real images and of a constant set, in files and as a command."""

import pathlib

import numpy as np
import pytest

from jaxdd.commands import scoring
from jaxdd.data import datasets, files
from jaxdd.methods import spectral
from jaxdd.runs import options
from jaxdd.runs.reports import plot
from jaxdd.runs.scoring import labelled_sets, profiles

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 4, 4, 1), dtype=np.uint8)
DATA = datasets.from_arrays(IMAGES, np.arange(60) % 2, strategy=())
OPTIONS = options.CFM(ipc=2, steps=2, width=2, depth=1, epochs=1, eval_seeds=1)


def test_real_images_keep_their_spectrum_and_a_constant_set_nothing(tmp_path):
    """Both sets have equally many images, so that one compiled program measures them."""
    images, labels = DATA.train.images / np.float32(255), DATA.train.labels
    images = np.float32((images - DATA.mean) / DATA.std)
    real, constant = (
        profiles.measure(labelled_sets.LabelledSet(x, labels), DATA, OPTIONS, num_networks=1)
        for x in (images, np.full_like(images, images.mean()))
    )
    profile = real["profiles"]["random"]
    of_real, of_constant = (x["profiles"]["random"]["sets"]["set"] for x in (real, constant))
    nonzero = np.array(profile["eigenvalues"]) > 1e-6
    np.testing.assert_allclose(np.array(of_real["variance"])[nonzero], 1, rtol=1e-3)
    assert max(of_real["error"]) < 1e-2 and max(of_constant["variance"]) < 1e-4
    assert sum(band["directions"] for band in of_real["bands"]) <= nonzero.sum()
    assert all(abs(band["variance"] - 1) < 1e-3 for band in of_real["bands"])
    files.write_json(tmp_path / "p.json", real)
    plot.profile(tmp_path / "p.svg", real)
    assert profiles.read(tmp_path / "p.json") == real
    assert "<svg" in (tmp_path / "p.svg").read_text()[:500]
    assert "random networks" in next(profiles.lines(real))
    (tmp_path / "p.json").write_text("{}")
    with pytest.raises(ValueError, match="p.json"):
        profiles.read(tmp_path / "p.json")


def test_bands_are_sums_over_directions():
    """Of variances 4, 3, 2 and 1, the first has a share of 0.4, the first two 0.7, all four 1."""
    profile = spectral.Profile(*map(np.array, ([4, 3, 2, 1], [1, 2, 0, 0], [0, 1, 0, 2], [1] * 4)))
    first, second = spectral.bands(profile, shares=(0.4, 1.0))
    assert first == (1, 0.4, 1.0, 0.0) and second[:2] == (3, 0.6)
    assert second.variance == 1 and second.error == pytest.approx(np.sqrt(5 / 3))
    assert len(spectral.bands(profile, shares=(0.1, 0.2, 1.0))) == 2
    for shares in ((0.5, 0.5), (0.0,), (0.5, 1.5)):
        with pytest.raises(ValueError, match=str(shares[-1])):
            spectral.bands(profile, shares=shares)


@pytest.mark.parametrize(
    ("paths", "error", "message"),
    [
        (dict(out="p.txt"), ValueError, "p.txt"),
        (dict(figure="p.pdf"), ValueError, "p.pdf"),
        (dict(figure="none/p.svg"), ValueError, "none/p.svg"),
        (dict(source="absent"), FileNotFoundError, "absent does not exist"),
        (dict(), ValueError, "--dataset"),
    ],
    ids=str,
)
def test_the_command_rejects_bad_paths(paths, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("set.npz", images=IMAGES[:2], labels=[0, 1])
    arguments = {name: pathlib.Path(x) for name, x in ({"source": "set.npz"} | paths).items()}
    with pytest.raises(error, match=message):
        scoring.profile_set(**arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["set.npz"]


def test_numbers_out_of_range_are_rejected():
    labelled = labelled_sets.LabelledSet(np.zeros((1, 4, 4, 1), np.float32), np.zeros(1, int))
    for arguments, message in ((dict(num_networks=0), "0"), (dict(teacher_steps=-1), "-1")):
        with pytest.raises(ValueError, match=message):
            profiles.measure(labelled, DATA, OPTIONS, **arguments)
