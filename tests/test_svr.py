"""Tubes against known densities and a dense search, invariances, the checks of scikit-learn."""

import itertools

import jax
import numpy as np
import pytest
import threadpoolctl
from scipy import optimize, stats
from sklearn import svm
from sklearn.utils import estimator_checks

from experiments import svr as experiment
from jaxdd import svr
from jaxdd.data import files
from jaxdd.svr import WorkingLikelihoodSVR

SETS = np.random.default_rng(0).standard_t(4, (1000, 30)).astype(np.float32)
many = jax.jit(jax.vmap(svr.fit))


@pytest.fixture(scope="module")
def tubes():
    return jax.tree.map(np.asarray, many(SETS))


def inverse(shares, half_width, scale):
    """Residuals below which these shares of an ε-Laplacian lie."""
    beyond = np.abs(2 * shares - 1) * (half_width + scale) - half_width
    tail = half_width - scale * np.log1p(-np.clip(beyond, 0, None) / scale)
    return np.sign(shares - 0.5) * np.where(beyond < 0, beyond + half_width, tail)


def mean_loss(residuals, half_width, scale):
    """−log density, averaged over the last axis, in float64."""
    excess = np.maximum(np.abs(residuals) - np.asarray(half_width)[..., None], 0)
    return np.log(2 * (half_width + scale)) + excess.mean(-1) / scale


def outside(tube):
    """The share that the density puts outside of its tube."""
    return tube.scale / (tube.scale + tube.half_width)


KNOWN = [(0.3, 1.0), (1.0, 2.0), (3.0, 0.5)]


# --- what it must recover ----------------------------------------------------------------------


@pytest.mark.parametrize("half_width, scale", KNOWN)
def test_known_tubes_are_recovered(half_width, scale):
    """From evenly spaced quantiles, which have no sampling error, within 2 %."""
    tube = svr.fit(inverse((np.arange(20_000) + 0.5) / 20_000, half_width, scale))
    np.testing.assert_allclose(tube[:2], (half_width, scale), rtol=0.02)
    entropy = np.log(2 * (half_width + scale)) + scale / (scale + half_width)
    assert tube.loss == pytest.approx(entropy, abs=1e-3)


@pytest.mark.parametrize("half_width, scale", KNOWN)
def test_errors_of_draws_are_those_of_the_information(half_width, scale):
    """Of 500 samples of n = 4,000: standard errors σ√((2 − p) / p(1 − p)n) and σ / √(np)."""
    n, p = 4000, scale / (scale + half_width)
    draws = inverse(np.random.default_rng(1).random((500, n)), half_width, scale)
    found = np.array([svr.fit(draw)[:2] for draw in draws])
    errors = scale * np.array([np.sqrt((2 - p) / (p * (1 - p) * n)), 1 / np.sqrt(n * p)])
    np.testing.assert_allclose(found.std(axis=0), errors, rtol=0.15)
    assert (np.abs(found.mean(axis=0) - (half_width, scale)) < errors / 2).all()


def test_the_tube_of_normal_noise():
    """In the population the share outside is 2Φ(−ε) and its mean excess σ: ε = .8485."""

    def scale(width):
        return stats.norm.pdf(width) / stats.norm.sf(width) - width

    def surplus(width):
        return 2 * stats.norm.sf(width) - scale(width) / (scale(width) + width)

    width = optimize.brentq(surplus, 0.5, 1.5)
    tube = svr.fit(stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000))
    assert tube.half_width == pytest.approx(width, rel=0.002)
    assert tube.half_width == pytest.approx(0.848, abs=0.002)
    assert tube.scale == pytest.approx(scale(width), rel=0.002)
    assert outside(tube) == pytest.approx(0.396, abs=0.002)


def test_other_noise():
    """Laplace's density is that of ε = 0, the uniform one that of σ = 0; outliers shrink."""
    shares = (np.arange(5_000) + 0.5) / 5_000
    laplace = svr.fit(inverse(shares, 0.0, 2.0))
    assert laplace.half_width < 0.05 and laplace.scale == pytest.approx(2, rel=0.01)
    uniform = svr.fit(2 * shares - 1)
    assert uniform.half_width == pytest.approx(1, rel=1e-3) and uniform.scale < 1e-3
    normal = stats.norm.ppf(shares)
    outliers = np.where(np.arange(5_000) % 20 == 0, 10, 1) * normal
    assert svr.fit(outliers).half_width < 0.5 * svr.fit(normal).half_width


def test_a_small_sample_may_be_taken_for_uniform():
    """Of normal residuals a third of the samples of 20 are, one in a thousand or so of 100."""
    rng = np.random.default_rng(2)
    shares = [
        np.mean([svr.fit(rng.normal(size=n)).scale == 0 for _ in range(1000)]) for n in (20, 100)
    ]
    assert 0.28 < shares[0] < 0.4 and shares[1] < 0.01


# --- the optimum -------------------------------------------------------------------------------


def test_no_dense_search_finds_a_better_tube(tubes):
    """On a grid of half-widths that are not among the residuals, and of scales, in float64."""
    sets = SETS.astype(np.float64)
    inside = tubes.scale > 0
    attained = mean_loss(sets[inside], tubes.half_width[inside], tubes.scale[inside])
    np.testing.assert_allclose(tubes.loss[inside], attained, atol=1e-5)
    magnitudes = np.abs(sets)
    np.testing.assert_allclose(
        tubes.loss[~inside], np.log(2 * magnitudes[~inside].max(axis=1)), atol=1e-5
    )
    least = np.full(len(sets), np.inf)
    for share in np.linspace(0, 1, 60):
        width = share * magnitudes.max(axis=1)
        excess = np.maximum(magnitudes - width[:, None], 0).mean(axis=1)
        scales = np.geomspace(0.02, 5, 80) * magnitudes.mean(axis=1)[:, None]
        losses = np.log(2 * (width[:, None] + scales)) + excess[:, None] / scales
        least = np.minimum(least, losses.min(axis=1))
    assert (tubes.loss <= least + 1e-5).all()
    assert np.median(least - tubes.loss) < 0.01  # the grid comes near, so it is the same function


def test_nothing_near_the_optimum_is_better(tubes):
    """A thousandth of either, in float64."""
    inside = tubes.scale > 0
    sets, width, scale = (x[inside].astype(float) for x in (SETS, tubes.half_width, tubes.scale))
    own = mean_loss(sets, width, scale)
    for wider, larger in itertools.product((0.999, 1.0, 1.001), repeat=2):
        assert (own <= mean_loss(sets, width * wider, scale * larger) + 1e-6).all()


def test_a_vmap_is_a_loop_over_numpy(tubes):
    for residuals, *tube in zip(SETS[:100], *tubes, strict=False):
        np.testing.assert_allclose(tube, svr.fit(residuals.astype(np.float64)), atol=1e-4)


def test_order_and_sign_do_not_matter_and_units_carry_over(tubes):
    rng = np.random.default_rng(3)
    mixed = rng.permuted(SETS, axis=1) * rng.choice((-1, 1), SETS.shape).astype(np.float32)
    for found, expected in zip(many(mixed), tubes, strict=True):
        np.testing.assert_array_equal(found, expected)
    for unit in (2.0**-20, 2.0**20):  # powers of two, so that no bit is rounded
        width, scale, loss = many(SETS * np.float32(unit))
        np.testing.assert_array_equal(width, tubes.half_width * unit)
        np.testing.assert_array_equal(scale, tubes.scale * unit)
        np.testing.assert_allclose(loss, tubes.loss + np.log(unit), atol=1e-4)


def test_the_loss_is_that_of_the_fit():
    tube = svr.fit(SETS[0])
    assert svr.loss(SETS[0], tube.half_width, tube.scale) == pytest.approx(tube.loss, abs=1e-5)
    assert isinstance(tube.loss, np.floating) and tube.loss.dtype == np.float32


# --- degenerate and bad ------------------------------------------------------------------------


def test_few_that_are_not_zero():
    """Where all but one are zero, ε = 0 and σ is the mean."""
    tube = svr.fit(np.array([0.0] * 9 + [5.0]))
    assert tube.half_width == 0 and tube.scale == pytest.approx(0.5)


@pytest.mark.parametrize(
    "residuals, error, said",
    [
        (np.array([1.0, np.nan, 2.0]), ValueError, "finite"),
        (np.array([1.0, np.inf, 2.0]), ValueError, "finite"),
        (np.array([1.0, 2.0]), ValueError, r"n ≥ 3, found shape \(2,\)"),
        (np.ones((4, 3)), ValueError, r"\[n\].*found shape \(4, 3\)"),
        (np.full(7, 0.5), ValueError, "must differ, found 7 that are all 0.5"),
        (np.zeros(4), ValueError, "must differ, found 4 that are all 0.0"),
        (np.arange(5), TypeError, "floating, found int64"),
        ([1, 2, 3], TypeError, "floating, found int32"),
    ],
)
def test_bad_residuals_are_named(residuals, error, said):
    with pytest.raises(error, match=said):
        svr.fit(residuals)


@pytest.mark.parametrize(
    "half_width, scale, said", [(-1.0, 1.0, "half-width"), (1.0, 0.0, "scale"), (np.nan, 1, "half")]
)
def test_no_density_without_a_scale(half_width, scale, said):
    with pytest.raises(ValueError, match=said):
        svr.loss(SETS[0], half_width, scale)


# --- residuals that were not fitted ------------------------------------------------------------


def test_leaving_one_out_is_fitting_to_the_others(monkeypatch):
    """Ridge regression with an intercept, each sample left out by hand."""
    rng = np.random.default_rng(4)
    features, n = rng.normal(size=(12, 3)), 12
    targets = features @ (1.0, 2.0, 3.0) + rng.normal(size=n) + 5
    gram = features @ features.T
    monkeypatch.setattr(svr, "PENALTIES", (0.3,))
    centred = features - features.mean(axis=0)
    penalty = 0.3 * np.trace(centred @ centred.T) / n
    expected = np.empty(n)
    for i in range(n):
        others = np.arange(n) != i
        mean, level = features[others].mean(axis=0), targets[others].mean()
        left = features[others] - mean
        normal = left.T @ left + penalty * np.eye(3)
        slopes = np.linalg.solve(normal, left.T @ (targets[others] - level))
        expected[i] = targets[i] - level - (features[i] - mean) @ slopes
    np.testing.assert_allclose(svr.leave_one_out(gram, targets), expected, rtol=1e-9)
    found = jax.jit(svr.leave_one_out)(gram, targets)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_samples_that_are_all_the_same_are_fitted_by_their_mean():
    """Of 0, 1, 5, each misses the mean of the other two."""
    found = svr.leave_one_out(np.full((3, 3), 2.0), np.array([0.0, 1.0, 5.0]))
    np.testing.assert_allclose(found, (-3, -1.5, 4.5), rtol=1e-6)


@pytest.mark.parametrize(
    "gram, targets, said",
    [
        (np.eye(4), np.ones(5), r"found shapes \(5,\) and \(4, 4\)"),
        (np.eye(2), np.ones(2), "at least 3, found 2"),
        (np.eye(3), np.array([1.0, np.nan, 1.0]), "targets must be finite"),
    ],
)
def test_bad_kernels_are_named(gram, targets, said):
    with pytest.raises(ValueError, match=said):
        svr.leave_one_out(gram, targets)


# --- the estimator -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Skipping check")
@pytest.mark.parametrize("residuals", ["training", "leave-one-out"])
def test_the_checks_of_scikit_learn(residuals):
    with threadpoolctl.threadpool_limits(1):
        estimator_checks.check_estimator(WorkingLikelihoodSVR(residuals=residuals))


@pytest.fixture(scope="module")
def curve():
    rng = np.random.default_rng(5)
    x = rng.uniform(-3, 3, (150, 1))
    return x, np.sin(x[:, 0]) + rng.uniform(-0.3, 0.3, 150)


def test_the_passes_alternate(curve):
    """By hand: fit, tube of the residuals, twice, and a last fit."""
    x, y = curve
    box = np.quantile(np.abs(y - np.median(y)), 0.95)
    model = svm.SVR(gamma=0.7, C=box, epsilon=np.subtract(*np.quantile(y, (0.75, 0.25))) / 13.49)
    for _ in range(2):
        tube = svr.fit(y - model.fit(x, y).predict(x))
        model.set_params(epsilon=float(tube.half_width))
    found = WorkingLikelihoodSVR(gamma=0.7, passes=2).fit(x, y)
    np.testing.assert_array_equal(found.predict(x), model.fit(x, y).predict(x))
    assert found.half_width_ == tube.half_width and found.scale_ == tube.scale


@pytest.mark.parametrize("options", [{}, {"residuals": "leave-one-out"}, {"kernel": "linear"}])
def test_targets_may_have_any_unit_and_level(options, curve):
    x, y = curve
    small, large = (
        WorkingLikelihoodSVR(**options).fit(x, targets) for targets in (y, 1024 * y + 4096)
    )
    assert large.half_width_ == pytest.approx(1024 * small.half_width_, rel=0.02)
    np.testing.assert_allclose(large.predict(x), 1024 * small.predict(x) + 4096, atol=1024 * 0.02)


def test_constant_targets_leave_the_tube():
    found = WorkingLikelihoodSVR().fit(np.arange(6.0)[:, None], np.full(6, 2.0))
    assert found.half_width_ == 0 and found.predict([[9.0]]) == pytest.approx(2)


@pytest.mark.parametrize(
    "options, error, said",
    [
        ({"kernel": "poly"}, ValueError, "kernel must be one of linear, rbf, found 'poly'"),
        ({"residuals": "test"}, ValueError, "residuals must be one of .* found 'test'"),
        ({"gamma": "auto"}, ValueError, "gamma must be positive or 'scale', found 'auto'"),
        ({"gamma": -1.0}, ValueError, "gamma must be positive"),
        ({"C": 0.0}, ValueError, "C must be positive"),
        ({"passes": 0}, ValueError, "passes must be at least 1, found 0"),
        ({"passes": 1.5}, TypeError, "passes must be an integer"),
    ],
)
def test_bad_options_are_named(options, error, said, curve):
    with pytest.raises(error, match=said):
        WorkingLikelihoodSVR(**options).fit(*curve)


# --- the experiment ----------------------------------------------------------------------------


def test_noises_have_the_same_standard_deviation():
    rng = np.random.default_rng(6)
    draws = {name: draw(rng, 40_000) for name, draw in experiment.NOISES.items()}
    core = np.abs(draws.pop("outliers")) < 3
    assert 0.03 < 1 - core.mean() < 0.05  # of 5 %, a quarter is within three
    for name, draw in draws.items():
        assert draw.std() == pytest.approx(1, abs=0.02), name
    tube = svr.fit(draws["ε-Laplacian"])
    assert tube.half_width == pytest.approx(tube.scale, rel=0.1)


def test_cherkassky_ma_by_hand():
    """Residuals ±1 of a level line leave 4 / (4 − 2): 3 · √2 · √(log 4 / 4)."""
    x, y = np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([1.0, -1.0, 1.0, -1.0])
    expected = 3 * np.sqrt(2) * np.sqrt(np.log(4) / 4)
    assert experiment.cherkassky_ma(x, y, "linear") == pytest.approx(expected)


def test_results_are_resumed_and_the_same_again(monkeypatch, tmp_path):
    cells = [cell for cell in experiment.cells() if cell[0] == "nonlinear, uniform, 20"]
    monkeypatch.setattr(experiment, "cells", lambda: iter(cells))
    out = tmp_path / "svr.json"
    experiment.main(repeats=2, out=out)
    first = files.read_json(out)
    assert first["versions"]["scikit-learn"] and first["date"]
    monkeypatch.setattr(experiment, "measured", lambda *given, **options: pytest.fail("again"))
    experiment.main(repeats=2, out=out)
    monkeypatch.undo()
    name, draw, options = cells[0]
    (again, before) = experiment.measured(name, draw, 2, **options), first["found"][name]
    for method in experiment.METHODS:
        assert again["methods"][method]["mean"] == before["methods"][method]["mean"]
        assert again["methods"][method]["width"] == before["methods"][method]["width"]
    difference = before["paired"]["likelihood"]["fixed"]["mean"]
    means = [before["methods"][method]["mean"] for method in ("likelihood", "fixed")]
    assert difference == pytest.approx(means[0] - means[1])


def test_every_cell_of_the_committed_results_is_there():
    found = files.read_json(experiment.RESULTS / "svr.json")["found"]
    assert list(found) == [name for name, *_ in experiment.cells()]
    assert {row["repeats"] for row in found.values()} == {100}
