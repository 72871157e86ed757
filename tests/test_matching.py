"""Losses against the reference implementation, float64 and values by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxdd import matching, networks, training

RNG = np.random.default_rng(0)
REAL = np.float32(RNG.normal(size=(3, 6, 5)))
SYNTHETIC = np.float32(RNG.normal(size=(3, 2, 5)))
WEIGHTS = np.float32(RNG.uniform(size=(3, 6)))


def from_torch(images):
    """Convert `[…, c, h, w]` to `[…, h, w, c]`."""
    return jnp.asarray(np.moveaxis(images, -3, -1))


@pytest.fixture(scope="module")
def reference(vectors):
    """Return the reference network and its parameters in our layout (theirs is c, h, w)."""
    network = networks.ConvNet(num_classes=10, width=8)
    params = {}
    for i, layer in enumerate((0, 4, 8)):
        kernel = vectors[f"param/features.{layer}.weight"]
        bias = vectors[f"param/features.{layer}.bias"]
        params[f"Conv_{i}"] = {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
        scale = vectors[f"param/features.{layer + 1}.weight"]
        offset = vectors[f"param/features.{layer + 1}.bias"]
        params[f"InstanceNorm_{i}"] = {"scale": scale, "bias": offset}
    kernel = vectors["param/classifier.weight"].reshape(10, 8, 4, 4).transpose(2, 3, 1, 0)
    params["classifier"] = {
        "kernel": kernel.reshape(128, 10),
        "bias": vectors["param/classifier.bias"],
    }
    return network, {"params": jax.tree.map(jnp.asarray, params)}


def assert_close(actual, expected):
    """Compare to 1e-4 of the largest expected value, the accuracy of float32."""
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_the_forward_pass_matches_the_reference(reference, vectors):
    network, params = reference
    features, logits = jax.jit(network.apply)(params, from_torch(vectors["forward_x"]))
    expected = vectors["forward_features"].reshape(4, 8, 4, 4).transpose(0, 2, 3, 1)
    assert_close(features, expected.reshape(4, 128))
    assert_close(logits, vectors["forward_logits"])


@pytest.mark.parametrize("kind", ["dm", "dm_weighted"])
def test_loss_and_image_gradient_are_the_reference(kind, reference, vectors):
    network, params = reference
    real, synthetic = from_torch(vectors["dm_real"]), from_torch(vectors["dm_syn"])
    weights = jnp.asarray(vectors["dm_weights"]) if kind == "dm_weighted" else None

    def features(images):
        flat = images.reshape(-1, *images.shape[2:])
        return network.apply(params, flat).features.reshape(*images.shape[:2], -1)

    def loss(images):
        return matching.distribution(features(real), features(images), weights)

    value, gradient = jax.jit(jax.value_and_grad(loss))(synthetic)
    assert_close(value, vectors[f"{kind}_loss"])
    assert_close(gradient, np.moveaxis(vectors[f"{kind}_grad"], -3, -1))


def test_loss_in_float64_numpy():
    """The loss is Σ_c Σ_d (Σ_i w_ci r_cid / Σ_i w_ci − mean_s s_csd)²."""
    real, synthetic, weights = (np.asarray(x, np.float64) for x in (REAL, SYNTHETIC, WEIGHTS))
    expected = sum(
        ((weights[c] @ real[c] / weights[c].sum() - synthetic[c].mean(0)) ** 2).sum()
        for c in range(3)
    )
    assert matching.distribution(REAL, SYNTHETIC, WEIGHTS) == pytest.approx(expected, rel=1e-5)


def test_constant_weights_are_no_weights():
    plain = float(matching.distribution(REAL, SYNTHETIC))
    for constant in (1.0, 1 / 6, 1e-6):
        weights = jnp.full((3, 6), constant)
        assert matching.distribution(REAL, SYNTHETIC, weights) == pytest.approx(plain, rel=1e-6)
    assert matching.distribution(REAL, SYNTHETIC, jnp.ones((3, 6))) == plain


def test_order_of_samples_and_classes_does_not_matter():
    expected = float(matching.distribution(REAL, SYNTHETIC, WEIGHTS))
    order = [3, 1, 5, 0, 2, 4]
    permuted = matching.distribution(REAL[::-1, order], SYNTHETIC[::-1], WEIGHTS[::-1, order])
    assert permuted == pytest.approx(expected, rel=1e-5)


def test_samples_without_weight_do_not_count():
    weights, far = WEIGHTS.copy(), REAL.copy()
    weights[:, 4:], far[:, 4:] = 0, 1e3
    expected = float(matching.distribution(REAL[:, :4], SYNTHETIC, WEIGHTS[:, :4]))
    assert matching.distribution(far, SYNTHETIC, weights) == pytest.approx(expected, rel=1e-5)


def test_a_class_without_weight_adds_nothing():
    weights, rest = WEIGHTS.copy(), [0, 2]
    weights[1] = 0
    expected = float(matching.distribution(REAL[rest], SYNTHETIC[rest], WEIGHTS[rest]))
    value_and_grad = jax.jit(jax.value_and_grad(matching.distribution, argnums=1))
    loss, gradient = value_and_grad(REAL, SYNTHETIC, weights)
    assert loss == pytest.approx(float(expected), rel=1e-6)
    assert not gradient[1].any() and jnp.isfinite(gradient).all()


def test_gradients_in_all_arguments():
    compiled = jax.jit(matching.distribution)
    # A larger step than the default: smaller differences are not accurate in float32.
    check_grads(compiled, (REAL, SYNTHETIC, WEIGHTS + 0.5), order=1, modes=["rev"], eps=1e-2)


@pytest.mark.parametrize("transform", [jax.jit, lambda f: lambda *x: jax.vmap(f)(*x)[0]])
def test_transforms_agree_with_the_plain_call(transform):
    arguments = (REAL, SYNTHETIC, WEIGHTS)
    batched = transform is not jax.jit
    inputs = [x[None] for x in arguments] if batched else arguments
    expected = float(matching.distribution(*arguments))
    assert transform(matching.distribution)(*inputs) == pytest.approx(float(expected), rel=1e-6)


def test_bfloat16_features_are_summed_in_float32():
    loss = matching.distribution(REAL.astype(jnp.bfloat16), SYNTHETIC.astype(jnp.bfloat16))
    assert loss.dtype == jnp.float32
    assert loss == pytest.approx(float(matching.distribution(REAL, SYNTHETIC)), rel=0.02)


@pytest.mark.parametrize(
    "arguments, value",
    [
        ((REAL[0], SYNTHETIC), r"got \(6, 5\) and \(3, 2, 5\)"),
        ((REAL, SYNTHETIC[:2]), r"got \(3, 6, 5\) and \(2, 2, 5\)"),
        ((REAL, SYNTHETIC[..., :4]), r"got \(3, 6, 5\) and \(3, 2, 4\)"),
        ((REAL, SYNTHETIC, WEIGHTS[:, :5]), r"\(3, 6\), got \(3, 5\)"),
    ],
)
def test_shapes_that_disagree_raise(arguments, value):
    with pytest.raises(ValueError, match=value):
        matching.distribution(*arguments)


# ------------------------------------------------------------------ barycentre


def test_the_barycentre_by_hand():
    """Class 0: groups with means 1 and 7; class 1: means (2, 6), one empty group; class 2: none."""
    real = jnp.array([[0, 2, 7, 7], [1, 3, 50, 50], [9, 9, 9, 9]])[..., None] * 1.0
    real = jnp.concatenate([real, 3 * real], -1)  # two features
    synthetic = jnp.array([[[1.0, 14.0], [3.0, 14.0]], [[0, 0], [0, 0]], [[5, 5], [5, 5]]])
    weights = jnp.array([[1, 1, 2, 2], [0.5, 0.5, 0, 0], [0, 0, 0, 0]])
    value_and_grad = jax.jit(
        jax.value_and_grad(matching.barycentre, argnums=1), static_argnames=("groups", "norm")
    )
    # Differences of the means: (4, 12) − (2, 14), (2, 6) − (0, 0), and nothing for class 2.
    squared, slope = value_and_grad(real, synthetic, weights, groups=2)
    assert squared == pytest.approx(2**2 + 2**2 + 2**2 + 6**2)
    np.testing.assert_allclose(slope[:, 0], [[-2, 2], [-2, -6], [0, 0]], atol=1e-6)
    absolute, slope = value_and_grad(real, synthetic, weights, groups=2, norm=1)
    assert absolute == pytest.approx(2 + 2 + 2 + 6)
    np.testing.assert_allclose(slope[:, 0], [[-0.5, 0.5], [-0.5, -0.5], [0, 0]], atol=1e-6)


def test_the_weight_of_a_whole_group_does_not_matter_but_that_of_a_sample_does():
    of = functools.partial(matching.barycentre, REAL, SYNTHETIC, groups=3)
    scaled = WEIGHTS * np.float32([1, 1, 5, 5, 0.1, 0.1])
    assert of(scaled) == pytest.approx(float(of(WEIGHTS)), rel=1e-5)
    assert of(WEIGHTS * np.float32([1, 5, 1, 1, 1, 1])) != pytest.approx(float(of(WEIGHTS)))
    assert matching.barycentre(REAL, SYNTHETIC, WEIGHTS, groups=1) == pytest.approx(
        float(matching.distribution(REAL, SYNTHETIC, WEIGHTS)), rel=1e-6
    )


@pytest.mark.parametrize(
    "change, value",
    [
        (dict(groups=4), r"4 .*got \(3, 6, 5\)"),
        (dict(groups=0), "got 0"),
        (dict(norm=3), "got 3"),
        (dict(weights=WEIGHTS[:, :5]), r"\(3, 6\), got \(3, 5\)"),
        (dict(real=REAL[0]), r"got \(6, 5\)"),
    ],
)
def test_bad_arguments_of_the_barycentre_raise(change, value):
    with pytest.raises(ValueError, match=value):
        matching.barycentre(**(dict(real=REAL, synthetic=SYNTHETIC, groups=3) | change))


# ------------------------------------------------------------------ gradients


DISTANCES = {
    "cosine-rows": matching.cosine_rows,
    "mse": matching.squared,
    "cosine": matching.cosine,
}


def tree(seed):
    """Return a gradient of a convolution, a dense layer, their biases and a norm's scale."""
    shapes = {
        "Conv": {"kernel": (3, 3, 2, 4), "bias": (4,)},
        "Dense": {"kernel": (6, 5)},
        "scale": (4,),
    }
    leaves, structure = jax.tree.flatten(shapes, is_leaf=lambda x: isinstance(x, tuple))
    rng = np.random.default_rng(seed)
    arrays = [np.float32(rng.normal(size=shape)) for shape in leaves]
    return jax.tree.unflatten(structure, arrays)


def in_float64(name, one, other):
    """Return the three distances in float64, row by row."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(one)]
    others = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(other)]
    length = lambda v: np.sqrt((v**2).sum())
    if name == "mse":
        return sum(((a - b) ** 2).sum() for a, b in zip(leaves, others, strict=True))
    if name == "cosine":
        a, b = (np.concatenate([leaf.ravel() for leaf in side]) for side in (leaves, others))
        return 1 - a @ b / (length(a) * length(b) + 1e-6)
    total = 0.0
    for a, b in zip(leaves, others, strict=True):
        for row in range(a.shape[-1] if a.ndim > 1 else 0):
            g, h = a[..., row].ravel(), b[..., row].ravel()
            total += 1 - g @ h / (length(g) * length(h) + 1e-6)
    return total


@pytest.mark.parametrize("name", DISTANCES)
def test_gradient_distances_in_float64_numpy(name):
    distance = DISTANCES[name](tree(0), tree(1))
    assert distance == pytest.approx(in_float64(name, tree(0), tree(1)), rel=1e-5)
    assert DISTANCES[name](tree(0), tree(0)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", DISTANCES)
def test_the_gradient_at_zero_is_finite(name):
    """Each of nine rows of zeros contributes 1, and its gradient is 0 instead of nan."""
    zero = jax.tree.map(jnp.zeros_like, tree(0))
    value_and_grad = jax.jit(jax.value_and_grad(DISTANCES[name], 1))
    for one, other in ((tree(0), zero), (zero, tree(0)), (zero, zero)):
        value, slope = value_and_grad(one, other)
        assert jnp.isfinite(value) and all(jnp.isfinite(x).all() for x in jax.tree.leaves(slope))
    assert matching.cosine_rows(tree(0), zero) == 9 and matching.cosine(tree(0), zero) == 1


def test_cosines_do_not_depend_on_length_and_rows_not_on_biases():
    longer = jax.tree.map(lambda leaf: 3 * leaf, tree(1))
    for distance in (matching.cosine_rows, matching.cosine):
        assert distance(tree(0), longer) == pytest.approx(
            float(distance(tree(0), tree(1))), rel=1e-4
        )
    changed = tree(1) | {"scale": jnp.ones(4)}
    assert matching.cosine_rows(tree(0), changed) == matching.cosine_rows(tree(0), tree(1))
    assert matching.cosine(tree(0), changed) != matching.cosine(tree(0), tree(1))


@pytest.mark.parametrize("name, kind", [("cosine-rows", "ours"), ("mse", "mse"), ("cosine", "cos")])
def test_gradient_matching_matches_the_reference(name, kind, reference, vectors):
    """Loss and image gradient are summed over three classes."""
    network, params = reference
    real, synthetic = from_torch(vectors["dm_real"]), from_torch(vectors["dm_syn"])

    def gradient(images, label):
        loss = lambda params: training.cross_entropy(
            network, params, images, label, jnp.ones(len(images))
        )
        return jax.grad(loss)(params)

    def distance(label, real, images):
        return DISTANCES[name](gradient(real, label), gradient(images, label))

    value_and_grad = jax.jit(jax.vmap(jax.value_and_grad(distance, 2)))
    values, gradients = value_and_grad(jnp.arange(3), real, synthetic)
    assert_close(values.sum(), vectors[f"gm_{kind}_loss"])
    assert_close(gradients, np.moveaxis(vectors[f"gm_{kind}_grad"], -3, -1))


def test_the_remaining_distance_by_hand():
    """The squared distance to (3, 4) is 25 from (0, 0) and 16 from (3, 0)."""
    tree = lambda x, y: {"a": jnp.array([x]), "b": jnp.array([[y]])}
    assert matching.trajectory(tree(3.0, 0.0), tree(0.0, 0.0), tree(3.0, 4.0)) == pytest.approx(
        0.64
    )
    assert matching.trajectory(tree(3.0, 4.0), tree(0.0, 0.0), tree(3.0, 4.0)) == 0
