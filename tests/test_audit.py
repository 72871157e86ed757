"""Statistics of tampering, by hand and for linear networks with a trigger."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdd import audit, networks

SIDE, K = 4, 3


def linear(scale):
    """A network whose logits are linear in the pixels."""
    init = lambda key, images: scale * jax.random.normal(key, (images[0].size, K))
    apply = lambda params, images: ((flat := images.reshape(len(images), -1)), flat @ params)
    return networks.Functions(init, apply)


def random_images(ipc=2, k=K, side=SIDE, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 1, (k, ipc, side, side, 1)).astype(np.float32)


# --- pixels ------------------------------------------------------------------------------------


def test_out_of_range_is_measured_on_the_scale_of_pixels():
    images = np.array([[-1.0], [0.0], [1.0], [3.0]])  # pixels 0, .5, 1, 2
    share, furthest = audit.out_of_range(images, [0.5], [0.5])
    assert (float(share), float(furthest)) == (0.25, 1.0)


@pytest.mark.parametrize(
    "image, expected",
    [
        ([[0.0, 1.0], [1.0, 0.0]], 2.0),  # all steps are 1, the variance is 1/4
        ([[0.0, 0.0], [1.0, 1.0]], 1.0),  # half of the steps are 1
        ([[1.0, 1.0], [1.0, 1.0]], 0.0),
    ],
)
def test_roughness_is_half_the_mean_squared_step_over_the_variance(image, expected):
    images = np.array(image)[None, ..., None]
    assert float(audit.roughness(images)) == pytest.approx(expected, abs=1e-6)


def test_a_footprint_is_where_all_classes_change_in_the_same_way():
    trusted = random_images()
    changed = random_images(seed=1)
    changed[:, :, 3, 2] = trusted[:, :, 3, 2] + 0.5
    footprint = np.asarray(audit.footprint(changed, trusted))
    assert np.unravel_index(footprint.argmax(), footprint.shape) == (3, 2, 0)
    other = np.delete(footprint.ravel(), 14)
    assert footprint.max() > 3 * np.median(other)


@pytest.mark.parametrize("ours, theirs", [((1, 4), (1, 4)), ((2, 4), (3, 4)), ((3, 4), (3, 5))])
def test_footprints_need_equal_classes_and_sizes(ours, theirs):
    sets = (random_images(k=k, side=side) for k, side in (ours, theirs))
    with pytest.raises(ValueError, match=r"got \(\d, 2"):
        audit.footprint(*sets)


# --- triggers ----------------------------------------------------------------------------------


def test_patches_are_all_squares_inside_of_the_images():
    candidates = audit.patches(3, 4, sizes=(1, 2, 9), low=[-1.0, -2.0], high=[1.0, 2.0])
    assert len(candidates.size) == 2 * (12 + 6)
    assert (np.asarray(candidates.corner) + np.asarray(candidates.size)[:, None] <= (3, 4)).all()
    assert {tuple(x) for x in np.asarray(candidates.value).tolist()} == {(-1.0, -2.0), (1.0, 2.0)}
    with pytest.raises(ValueError, match=r"\(5,\).*3×4"):
        audit.patches(3, 4, sizes=(5,), low=[0.0], high=[1.0])


@pytest.fixture(scope="module")
def planted():
    """Statistics of three linear networks that assign images with a white corner to class 1."""
    network, labels = linear(0.1), np.arange(K).repeat(4)
    images = random_images(ipc=4).reshape(-1, SIDE, SIDE, 1)
    images[:, 0] = images[:, 3, 3] = 0
    images[np.arange(len(labels)), 0, labels] = 1  # one pixel per class
    params = np.array([network.init(jax.random.key(i), images) for i in range(3)])
    params[:, :K], params[:, 15] = 3 * np.eye(K), [0, 9, 0]
    candidates = audit.patches(SIDE, SIDE, sizes=(1, 2), low=[0.0], high=[1.0])

    @jax.jit
    def measure(params, images):
        classes = dict(num_classes=K)
        ensemble = [(network, params[:2]), (network, params[2:])]
        scan = audit.scan_patches(
            ensemble, images, labels, candidates, sizes=(1, 2), screen=4, keep=2, **classes
        )
        masks = audit.neural_cleanse(
            network, params, images, labels, low=[0.0], high=[1.0], **classes
        )
        patch = jax.tree.map(lambda x: x[0, 1], scan.patches)
        area = audit.strip(jax.random.key(0), network, params[0], images, patch, blends=4)
        keys = jax.random.split(jax.random.key(1), 2)
        real = audit.gradient_disagreement(keys, network, images, labels, images[:8], labels[:8])
        same = audit.gradient_disagreement(keys, network, images, labels, images, labels)
        return scan, masks, area, real, same

    return jax.tree.map(np.asarray, measure(*map(jnp.asarray, (params, images))))


def test_the_patch_that_moves_all_networks_is_detected(planted):
    scan = planted[0]
    assert scan.rates.shape == (3, 2, K)
    assert scan.patches.corner[0, 1].tolist() == [3, 3] and scan.patches.value[0, 1] == 1
    assert (scan.patches.size == [[1] * K, [2] * K]).all()
    assert (scan.rates[:, 0, 1] > 0.5).all()
    assert scan.rates[:, 0, [0, 2]].mean(0).max() < scan.rates[:, 0, 1].min()


def test_the_smallest_mask_leads_to_the_planted_class(planted):
    masks = planted[1]
    assert masks.shape == (3, K) and (masks.argmin(1) == 1).all() and masks[:, 1].max() < 1


def test_blends_keep_the_trigger_and_gradients_of_the_same_images_agree(planted):
    _, _, area, real, same = planted
    assert area > 0.8
    assert (real > 0.01).all() and np.abs(same).max() < 1e-4


def test_the_anomaly_index_is_in_robust_standard_deviations():
    # Logarithms 0, 3, 4, 5, 6: the median is 4, the absolute deviations 4, 1, 0, 1, 2.
    assert float(audit.anomaly_index(np.exp([0.0, 3, 4, 5, 6]))) == pytest.approx(
        4 / 1.4826, rel=1e-5
    )


# --- against trusted sets ----------------------------------------------------------------------


def test_one_trusted_set_is_compared_by_signs_of_pairs():
    difference, null, p = audit.compare([2.0, 3.0], [[1.0, 1.0]])
    assert (difference, p) == (1.5, 0.25)
    assert sorted(null) == [-1.5, -0.5, 0.5, 1.5]


@pytest.mark.parametrize("own", [3.0, 1.0])
def test_several_trusted_sets_are_compared_by_student_t(own):
    means = np.array([0.0, 1.0, 2.0, 2.5])
    comparison = audit.compare([own], means[:, None])
    t = (own - means.mean()) / (means.std(ddof=1) * np.sqrt(1 + 1 / 4))
    assert comparison.p == pytest.approx(stats.t.sf(t, 3), rel=1e-4)
    assert comparison.null == pytest.approx(
        [m - np.delete(means, i).mean() for i, m in enumerate(means)]
    )


@pytest.mark.parametrize(
    "values, trusted, match",
    [
        ([[1.0]], [[1.0]], r"\(1, 1\)"),
        ([1.0, 2.0], [[1.0]], r"\(2,\) and \(1, 1\)"),
        (np.ones(17), np.ones((1, 17)), "got 17"),
    ],
)
def test_compare_checks_shapes(values, trusted, match):
    with pytest.raises(ValueError, match=match):
        audit.compare(values, trusted)
