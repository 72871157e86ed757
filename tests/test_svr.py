"""Tubes against known densities and a dense search, invariances, scikit-learn's checks."""

import itertools

import jax
import numpy as np
import pytest
import threadpoolctl
from scipy import optimize, stats
from sklearn import svm
from sklearn.utils import estimator_checks

from jaxdd import svr
from jaxdd.svr import WorkingLikelihoodSVR

SETS = np.random.default_rng(0).standard_t(4, (1000, 30)).astype(np.float32)
many = jax.jit(jax.vmap(svr.fit))


@pytest.fixture(scope="module")
def tubes():
    return jax.tree.map(np.asarray, many(SETS))


def inverse(shares, half_width, scale):
    """Return quantiles of an ε-Laplacian."""
    beyond = np.abs(2 * shares - 1) * (half_width + scale) - half_width
    tail = half_width - scale * np.log1p(-np.clip(beyond, 0, None) / scale)
    return np.sign(shares - 0.5) * np.where(beyond < 0, beyond + half_width, tail)


def mean_loss(residuals, half_width, scale):
    """Return the mean of −log density over the last axis, in float64."""
    excess = np.maximum(np.abs(residuals) - np.asarray(half_width)[..., None], 0)
    return np.log(2 * (half_width + scale)) + excess.mean(-1) / scale


def outside(tube):
    """Return the share of the density outside of its tube."""
    return tube.scale / (tube.scale + tube.half_width)


KNOWN = [(0.3, 1.0), (1.0, 2.0), (3.0, 0.5)]


# --- known densities ----------------------------------------------------------------------


@pytest.mark.parametrize("half_width, scale", KNOWN)
def test_known_tubes_are_recovered(half_width, scale):
    """Evenly spaced quantiles, which have no sampling error, give the tube within 2 %."""
    tube = svr.fit(inverse((np.arange(20_000) + 0.5) / 20_000, half_width, scale))
    np.testing.assert_allclose(tube[:2], (half_width, scale), rtol=0.02)
    entropy = np.log(2 * (half_width + scale)) + scale / (scale + half_width)
    assert tube.loss == pytest.approx(entropy, abs=1e-3)


@pytest.mark.parametrize("half_width, scale", KNOWN)
def test_standard_errors_are_those_of_the_information_matrix(half_width, scale):
    """Over 500 samples of n = 4,000, they are σ√((2 − p) / p(1 − p)n) and σ / √(np)."""
    n, p = 4000, scale / (scale + half_width)
    draws = inverse(np.random.default_rng(1).random((500, n)), half_width, scale)
    estimates = np.array([svr.fit(draw)[:2] for draw in draws])
    errors = scale * np.array([np.sqrt((2 - p) / (p * (1 - p) * n)), 1 / np.sqrt(n * p)])
    np.testing.assert_allclose(estimates.std(axis=0), errors, rtol=0.15)
    assert (np.abs(estimates.mean(axis=0) - (half_width, scale)) < errors / 2).all()


def test_the_tube_of_normal_noise():
    """The share outside is 2Φ(−ε) and its mean excess is σ, which gives ε = .8485."""

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
    """The noise is Laplace for ε = 0 and uniform for σ = 0; outliers reduce ε."""
    shares = (np.arange(5_000) + 0.5) / 5_000
    laplace = svr.fit(inverse(shares, 0.0, 2.0))
    assert laplace.half_width < 0.05 and laplace.scale == pytest.approx(2, rel=0.01)
    uniform = svr.fit(2 * shares - 1)
    assert uniform.half_width == pytest.approx(1, rel=1e-3) and uniform.scale < 1e-3
    normal = stats.norm.ppf(shares)
    outliers = np.where(np.arange(5_000) % 20 == 0, 10, 1) * normal
    assert svr.fit(outliers).half_width < 0.5 * svr.fit(normal).half_width


def test_small_normal_samples_can_look_uniform():
    """A third of normal samples look uniform if n = 20, and about one in 1,000 if n = 100."""
    rng = np.random.default_rng(2)
    shares = [
        np.mean([svr.fit(rng.normal(size=n)).scale == 0 for _ in range(1000)]) for n in (20, 100)
    ]
    assert 0.28 < shares[0] < 0.4 and shares[1] < 0.01


# --- the optimum -------------------------------------------------------------------------------


def test_the_fit_is_as_good_as_a_dense_search(tubes):
    """The search is over a float64 grid of scales and of half-widths between the residuals."""
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
    assert np.median(least - tubes.loss) < 0.01  # a point of the grid has nearly the same loss


def test_the_fit_is_a_local_optimum(tubes):
    """Changing ε or σ by a thousandth increases the loss, in float64."""
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
    for values, expected in zip(many(mixed), tubes, strict=True):
        np.testing.assert_array_equal(values, expected)
    for unit in (2.0**-20, 2.0**20):  # powers of two, so that no bit is rounded
        width, scale, loss = many(SETS * np.float32(unit))
        np.testing.assert_array_equal(width, tubes.half_width * unit)
        np.testing.assert_array_equal(scale, tubes.scale * unit)
        np.testing.assert_allclose(loss, tubes.loss + np.log(unit), atol=1e-4)


def test_the_loss_is_that_of_the_fit():
    tube = svr.fit(SETS[0])
    assert mean_loss(SETS[0], tube.half_width, tube.scale) == pytest.approx(tube.loss, abs=1e-5)
    assert isinstance(tube.loss, np.floating) and tube.loss.dtype == np.float32


# --- special cases ------------------------------------------------------------------------


def test_residuals_that_are_mostly_zero():
    """If all but one are zero, ε = 0 and σ is the mean."""
    tube = svr.fit(np.array([0.0] * 9 + [5.0]))
    assert tube.half_width == 0 and tube.scale == pytest.approx(0.5)


@pytest.mark.parametrize(
    "residuals, error, match",
    [
        (np.array([1.0, np.nan, 2.0]), ValueError, "finite"),
        (np.array([1.0, np.inf, 2.0]), ValueError, "finite"),
        (np.array([1.0, 2.0]), ValueError, r"got shape \(2,\)"),
        (np.ones((4, 3)), ValueError, r"got shape \(4, 3\)"),
        (np.full(7, 0.5), ValueError, "got 7 that are all 0.5"),
        (np.zeros(4), ValueError, "got 4 that are all 0.0"),
        (np.arange(5), TypeError, "int64"),
        ([1, 2, 3], TypeError, "int32"),
    ],
)
def test_fit_checks_residuals(residuals, error, match):
    with pytest.raises(error, match=match):
        svr.fit(residuals)


# --- leave-one-out ------------------------------------------------------------


def test_leaving_one_out_is_fitting_to_the_others(monkeypatch):
    """Ridge regression with an intercept, each sample left out by hand."""
    rng = np.random.default_rng(4)
    features, n = rng.normal(size=(12, 3)), 12
    targets = features @ (1.0, 2.0, 3.0) + rng.normal(size=n) + 5
    gram = features @ features.T
    monkeypatch.setattr(svr, "_PENALTIES", (0.3,))
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
    values = jax.jit(svr.leave_one_out)(gram, targets)
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-3)


def test_equal_samples_are_fitted_by_their_mean():
    """The residuals of 0, 1 and 5 are their differences to the mean of the other two."""
    values = svr.leave_one_out(np.full((3, 3), 2.0), np.array([0.0, 1.0, 5.0]))
    np.testing.assert_allclose(values, (-3, -1.5, 4.5), rtol=1e-6)


@pytest.mark.parametrize(
    "gram, targets, match",
    [
        (np.eye(4), np.ones(5), r"got \(5,\) and \(4, 4\)"),
        (np.eye(2), np.ones(2), "got 2"),
        (np.eye(3), np.array([1.0, np.nan, 1.0]), "targets.*nan"),
    ],
)
def test_leave_one_out_checks_its_arguments(gram, targets, match):
    with pytest.raises(ValueError, match=match):
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
    """By hand, a fit and an estimate of the tube alternate twice, followed by a last fit."""
    x, y = curve
    box = np.quantile(np.abs(y - np.median(y)), 0.95)
    model = svm.SVR(gamma=0.7, C=box, epsilon=np.subtract(*np.quantile(y, (0.75, 0.25))) / 13.49)
    for _ in range(2):
        tube = svr.fit(y - model.fit(x, y).predict(x))
        model.set_params(epsilon=float(tube.half_width))
    ours = WorkingLikelihoodSVR(gamma=0.7, passes=2).fit(x, y)
    np.testing.assert_array_equal(ours.predict(x), model.fit(x, y).predict(x))
    assert ours.half_width_ == tube.half_width and ours.scale_ == tube.scale


@pytest.mark.parametrize("options", [{}, {"residuals": "leave-one-out"}, {"kernel": "linear"}])
def test_the_unit_and_level_of_targets_do_not_matter(options, curve):
    x, y = curve
    small, large = (
        WorkingLikelihoodSVR(**options).fit(x, targets) for targets in (y, 1024 * y + 4096)
    )
    assert large.half_width_ == pytest.approx(1024 * small.half_width_, rel=0.02)
    np.testing.assert_allclose(large.predict(x), 1024 * small.predict(x) + 4096, atol=1024 * 0.02)


def test_constant_targets_give_a_tube_of_width_zero():
    model = WorkingLikelihoodSVR().fit(np.arange(6.0)[:, None], np.full(6, 2.0))
    assert model.half_width_ == 0 and model.predict([[9.0]]) == pytest.approx(2)


@pytest.mark.parametrize(
    "options, error, match",
    [
        ({"kernel": "poly"}, ValueError, "got 'poly'"),
        ({"residuals": "test"}, ValueError, "got 'test'"),
        ({"gamma": "auto"}, ValueError, "got 'auto'"),
        ({"gamma": -1.0}, ValueError, "gamma.*-1"),
        ({"C": 0.0}, ValueError, "C.*0"),
        ({"passes": 0}, ValueError, "passes.*0"),
        ({"passes": 1.5}, TypeError, "passes.*1.5"),
    ],
)
def test_the_estimator_checks_its_options(options, error, match, curve):
    with pytest.raises(error, match=match):
        WorkingLikelihoodSVR(**options).fit(*curve)
