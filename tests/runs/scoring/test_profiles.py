"""The spectral profile of a set: kept by the real images, lost by one; on disk, as a command."""

import dataclasses

import numpy as np
import pytest

from jaxdd.commands import scoring
from jaxdd.data import datasets
from jaxdd.methods import spectral
from jaxdd.runs import old_results as results
from jaxdd.runs import options
from jaxdd.runs.scoring import profiles

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 4, 4, 1), dtype=np.uint8)
DATA = datasets.from_arrays(IMAGES, np.arange(60) % 2, strategy=())
ASKED = options.CFM(ipc=2, steps=2, width=2, depth=1, epochs=1, eval_seeds=1).resolved()


def test_the_real_images_keep_their_spectrum_and_a_grey_set_nothing(tmp_path):
    """The set is all real images and then, with the same program, as many that are the mean."""
    real, labels = DATA.train.images / np.float32(255), DATA.train.labels
    real = np.float32((real - DATA.mean) / DATA.std)
    made = [
        profiles.measure(images, labels, DATA, ASKED, networks=1)
        for images in (real, 0 * real + real.mean())
    ]
    whole, none = (found["profiles"]["random"]["sets"]["set"] for found in made)
    kept = np.array(made[0]["profiles"]["random"]["eigenvalues"]) > 1e-6
    np.testing.assert_allclose(np.array(whole["variance"])[kept], 1, rtol=1e-3)
    assert max(whole["error"]) < 1e-2 and max(none["variance"]) < 1e-4
    assert sum(band["directions"] for band in whole["bands"]) <= kept.sum()
    assert all(abs(band["variance"] - 1) < 1e-3 for band in whole["bands"])
    profiles.write(tmp_path / "p.json", tmp_path / "p.svg", made[0])
    assert results.read_profile(tmp_path / "p.json") == results.sealed(made[0])
    assert "<svg" in (tmp_path / "p.svg").read_text()[:500]
    assert "random networks" in next(profiles.lines(made[0]))


def test_bands_are_sums_over_directions():
    """Variances 4, 3, 2, 1: the first holds 0.4, the first two 0.7 of them, all four 1."""
    profile = spectral.Profile(*map(np.array, ([4, 3, 2, 1], [1, 2, 0, 0], [0, 1, 0, 2], [1] * 4)))
    first, second = spectral.bands(profile, shares=(0.4, 1.0))
    assert first == (1, 0.4, 1.0, 0.0) and second[:2] == (3, 0.6)
    assert second.variance == 1 and second.error == pytest.approx(np.sqrt(5 / 3))
    assert len(spectral.bands(profile, shares=(0.1, 0.2, 1.0))) == 2
    for shares in ((0.5, 0.5), (0.0,), (0.5, 1.5)):
        with pytest.raises(ValueError, match=r"shares must rise within \(0, 1\], found"):
            spectral.bands(profile, shares=shares)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (dict(out="p.txt"), ValueError, "out must be a file that ends in .json"),
        (dict(figure="p.pdf"), ValueError, "figure must be a file that ends in .svg or .png"),
        (dict(figure="none/p.svg"), ValueError, "found none/p.svg"),
        (dict(source="absent"), FileNotFoundError, "absent does not exist"),
        (dict(), ValueError, "is no run; say with --dataset"),
    ],
    ids=str,
)
def test_the_command_refuses(given, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    paths = {name: scoring.pathlib.Path(path) for name, path in given.items()}
    with pytest.raises(error, match=message):
        scoring.profile_set(**{"source": scoring.pathlib.Path("set"), **paths})
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_numbers_that_cannot_be():
    images = np.zeros((1, 4, 4, 1), np.float32)
    asked = dataclasses.replace(ASKED, seed=1)
    for given, message in (
        (dict(networks=0), "networks must be at least 1, found 0"),
        (dict(teacher_steps=-1), "teacher_steps must be at least 0, found -1"),
    ):
        with pytest.raises(ValueError, match=message):
            profiles.measure(images, np.zeros(1, int), DATA, asked, **given)
