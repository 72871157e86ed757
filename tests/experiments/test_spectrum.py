"""The experiment on the directions of biases: shares, ranks and doses of known biases."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import spectrum
from experiments.tools import small
from jaxdd.data import datasets, files

RNG = np.random.default_rng(0)
LABELS = np.arange(200) % 10
PARAMS = small.STUDENT.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def view(attributes):
    """Return the view of images whose brightness is the attribute, and their pool."""
    images = RNG.integers(0, 60, (200, 8, 8, 3)) + 60 * (attributes % 3)[:, None, None, None]
    images += (LABELS * 3)[:, None, None, None]
    images = images.astype(np.uint8)
    whole = images, LABELS, attributes
    data = datasets.from_arrays(*whole, test=whole, strategy=())
    pool = datasets.pool(data)
    bench = types.SimpleNamespace(pool=pool, data=data)
    return spectrum.View(bench, PARAMS), pool


def by_class(pool, chosen):
    """Return the chosen samples of each class, normalised, `[k, m, h, w, c]`."""
    images = (jnp.asarray(pool.images) / 255 - pool.mean) / pool.std
    return jnp.stack([images[chosen & (LABELS == label)] for label in range(10)])


def test_dose_is_one_for_real_images_and_zero_for_even_groups():
    """16 of 20 samples of a class have its own attribute and 4 the next; 4 of each are even."""
    turn = np.arange(200) // 10
    attributes = (LABELS + (turn >= 16)) % 3
    shown, pool = view(attributes)
    assert shown.dose(by_class(pool, turn >= 0)) == pytest.approx(1, abs=1e-4)
    assert shown.dose(by_class(pool, turn < 16)) > 1.3
    even = shown.dose(by_class(pool, turn >= 12))
    assert abs(even) < 0.3


def test_without_a_bias_its_share_is_zero():
    shown, _ = view(np.arange(200) // 10 % 2)
    measured = shown.measure()
    assert max(measured["share"].values()) < 1e-6


def test_a_bias_of_brightness_is_in_the_first_directions():
    turn = np.arange(200) // 10
    shown, _ = view((LABELS + (turn >= 16)) % 3)
    measured = shown.measure()
    assert measured["rank"]["bias"] <= 3 and measured["share"]["all"] > 0.3
    assert measured["cumulated"]["bias"][-1] == pytest.approx(1, abs=1e-5)
    assert np.all(np.diff(measured["cumulated"]["class"]) >= 0)


def test_identity_filter_leaves_the_distance_of_class_means():
    """The loss is then the sum of squared differences of class means over 100."""
    real, synthetic = RNG.normal(size=(10, 6, 5)), RNG.normal(size=(10, 2, 5))
    measured = spectrum.filtered_loss("all")(
        jnp.asarray(real, jnp.float32), jnp.asarray(synthetic, jnp.float32), None
    )
    np.testing.assert_allclose(
        measured, np.sum((real.mean(1) - synthetic.mean(1)) ** 2) / 100, rtol=1e-5
    )


@pytest.mark.parametrize("name", spectrum.FILTERS)
def test_losses_do_not_depend_on_the_scale_of_features(name):
    real, synthetic = (jnp.asarray(RNG.normal(size=(10, m, 5)), jnp.float32) for m in (6, 2))
    loss = spectrum.filtered_loss(name)
    np.testing.assert_allclose(
        loss(3 * real, 3 * synthetic, None), 9 * loss(real, synthetic, None), rtol=1e-4
    )


def test_results_make_tables_and_figures(tmp_path):
    cumulated = list(np.linspace(0, 1, 64))
    kind = {
        "rank": {"bias": 2.0, "class": 5.0},
        "variance": {"bias": 0.3, "class": 0.6},
        "cumulated": {"bias": cumulated, "class": cumulated},
        "share": dict.fromkeys(spectrum.FILTERS, 0.25),
    }
    score = {"mean": 0.5, "std": 0.1, "n": 3}
    row = {"conflicting": score, "dose": 1.0}
    measured = {"cmnist, spectrum": {"random": kind, "trained": kind}, "cmnist, dm": row}
    path = tmp_path / "spectrum.json"
    files.write_json(path, {"measured": measured})
    spectra, conflicting, dose = spectrum.tables(path)
    assert spectra[-1] == "| cmnist | 2.0 | 5.0 | 2.0 | 5.0 | 0.25 | 0.25 | 0.25 |"
    assert conflicting[-1].startswith("| cmnist | – | 50.0 ± 10.0 | –")
    assert dose[-1].startswith("| cmnist | – | 1.00 | –")
