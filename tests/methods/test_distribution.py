"""Distribution matching against the formulas written out."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from toy import BATCH, IMAGES, KEY, LINEAR, NETWORK, OPTIMIZER, POOL, SAMPLER, equal

from jaxdd import augment, matching, methods, networks, sampling
from jaxdd.methods import formation

METHOD = methods.distribution_matching(NETWORK, OPTIMIZER, strategy=("crop",))


@jax.jit
@chex.assert_max_traces(n=1)
def STEP(key, state, batch):
    """A step that may be traced only once for all tests of this file."""
    return METHOD.step(key, state, batch)


STATE = METHOD.init(IMAGES)


def test_a_step_is_the_written_out_formula():
    """The formula: one network, an augmentation per class, weighted means, SGD with momentum."""
    key_network, key_augment = jax.random.split(KEY)
    params = jax.jit(NETWORK.init)(key_network, IMAGES[0, :1])
    keys = jax.random.split(key_augment, 3)

    @jax.jit
    @jax.value_and_grad
    def loss(images, key, real, weights):
        real, synthetic = augment.siamese(key, real, images, strategy=("crop",))
        target = weights @ NETWORK.apply(params, real).features
        return jnp.sum((target - NETWORK.apply(params, synthetic).features.mean(0)) ** 2)

    classes = zip(IMAGES, keys, *BATCH, strict=True)
    values, gradients = zip(*(loss(*inputs) for inputs in classes), strict=True)
    after, info = STEP(KEY, STATE, BATCH)
    assert float(info["loss"]) == pytest.approx(float(sum(values)), rel=1e-4)
    gradient = np.stack(gradients)
    expected = IMAGES - 0.5 * gradient
    np.testing.assert_allclose(after.images, expected, atol=1e-4 * np.abs(gradient).max())


def test_constant_weights_are_plain_distribution_matching_to_the_bit():
    batch = SAMPLER(KEY, toy.make_pool())
    plain = batch._replace(weights=jnp.ones_like(batch.weights) / 8)
    equal(STEP(KEY, STATE, batch), STEP(KEY, STATE, plain))


def test_the_loss_falls():
    chunks = toy.run(METHOD, STATE, 60, chunk_length=20).values()
    first, *_, last = [info["loss"].mean() for _, info in chunks]
    assert last < first


@pytest.mark.parametrize("classes, shape", [(1, (8, 8, 1)), (12, (6, 10, 4))])
def test_other_class_counts_and_image_shapes(classes, shape):
    pool = toy.make_pool((5,) * classes, shape=shape)
    options = dict(strategy=("crop", "color"))
    method = methods.distribution_matching(toy.linear(classes), OPTIMIZER, **options)
    images = toy.initial_real(KEY, pool, ipc=2)
    state, _ = toy.run(method, method.init(images), 2, pool=pool, chunk_length=2)[2]
    assert state.images.shape == (classes, 2, *shape) and np.isfinite(state.images).all()


def test_bfloat16_follows_float32():
    network = networks.ConvNet(num_classes=3, width=4, depth=1, dtype=jnp.bfloat16)
    method = methods.distribution_matching(network, OPTIMIZER, strategy=("crop",))
    half, _ = jax.jit(method.step)(KEY, STATE, BATCH)
    full, _ = STEP(KEY, STATE, BATCH)
    assert half.images.dtype == jnp.float32
    assert jnp.abs(half.images - full.images).max() < 0.1 * jnp.abs(full.images - IMAGES).max()


def means_and_variances(real, synthetic, weights):
    target = (weights[..., None] * real).sum(1)
    spread = (weights[..., None] * real**2).sum(1) - target**2
    return jnp.sum((target - synthetic.mean(1)) ** 2 + (spread - synthetic.var(1)) ** 2)


def test_a_custom_loss_is_minimised():
    """The loss is of means and weighted variances of sin(x W); one step of SGD is done by hand."""
    method = methods.distribution_matching(
        LINEAR, optax.sgd(0.5), loss=means_and_variances, strategy=()
    )
    params = LINEAR.init(jax.random.split(KEY)[0], IMAGES[0])

    @jax.jit
    @jax.value_and_grad
    def loss(images):
        total = 0.0
        for c in range(3):
            weights = BATCH.weights[c]
            real, synthetic = (LINEAR.apply(params, x[c])[0] for x in (BATCH.images, images))
            mean = weights @ real
            variance = weights @ (real - mean) ** 2
            total += jnp.sum((mean - synthetic.mean(0)) ** 2)
            total += jnp.sum((variance - synthetic.var(0)) ** 2)
        return total

    value, gradient = loss(IMAGES)
    after, info = jax.jit(method.step)(KEY, method.init(IMAGES), BATCH)
    assert float(info["loss"]) == pytest.approx(float(value), rel=1e-4)
    np.testing.assert_allclose(after.images, IMAGES - 0.5 * gradient, atol=1e-5)


def test_smaller_micro_batches_give_the_same_step():
    """All eight images of a class are processed at once or one at a time."""
    whole, single = (
        jax.jit(
            methods.distribution_matching(
                LINEAR, OPTIMIZER, strategy=("crop",), activation_bytes=size
            ).step
        )
        for size in (None, 1)
    )
    assert "while" in single.lower(KEY, STATE, BATCH).as_text()
    results = whole(KEY, STATE, BATCH), single(KEY, STATE, BATCH)
    chex.assert_trees_all_close(*results, rtol=1e-5, atol=1e-6)


def test_a_custom_augmentation_is_bit_identical_to_the_named_one():
    def custom(key, image):
        return augment.apply(augment.draw(key, image.shape, strategy=("crop", "cutout")), image)

    steps = (
        jax.jit(methods.distribution_matching(LINEAR, OPTIMIZER, strategy=strategy).step)
        for strategy in (custom, ("crop", "cutout"))
    )
    equal(*(step(KEY, STATE, BATCH) for step in steps))


def test_the_gradient_of_fairdd_is_that_of_cobra_times_the_groups():
    """Σ_g ‖μ_g − s‖² has the gradient 2 G (s − mean of μ_g) for the G groups of a class."""
    labels = np.repeat([0, 1, 2, 4, 5], [15, 5, 9, 20, 10])  # class 1 has no sample of group 1
    moments = dict(mean=(0.5,) * 3, std=(0.5,) * 3)
    pool = sampling.pool(POOL.images, labels, num_classes=6, empty=True, **moments)
    sampler = sampling.grouped(functools.partial(sampling.uniform_batch, size=6), groups=2)
    batch = sampler(KEY, pool)
    assert batch.images.shape == (3, 12, 8, 8, 3)

    def update(**options):
        method = methods.distribution_matching(LINEAR, optax.sgd(1.0), strategy=(), **options)
        return jax.jit(method.step)(KEY, method.init(IMAGES), batch)[0].images - IMAGES

    cobra = update(loss=functools.partial(matching.barycentre, groups=2))
    fairdd, groups = update(groups=2), np.array([2, 1, 2])[:, None, None, None, None]
    scale = jnp.abs(fairdd).max()
    np.testing.assert_allclose(fairdd / scale, groups * cobra / scale, atol=1e-4)


def test_decoding_affects_the_network_only():
    """The loss is that of the decoded images; the state keeps the stored ones."""
    split = functools.partial(formation.split, factor=2)
    options = dict(strategy=())
    stored = methods.distribution_matching(LINEAR, OPTIMIZER, decode=split, **options)
    decoded = methods.distribution_matching(LINEAR, OPTIMIZER, **options)
    after, info = jax.jit(stored.step)(KEY, STATE, BATCH)
    assert after.images.shape == IMAGES.shape and (after.images != IMAGES).any()
    expected = jax.jit(decoded.step)(KEY, decoded.init(split(IMAGES)), BATCH)[1]["loss"]
    assert float(info["loss"]) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        methods.distribution_matching,
        functools.partial(methods.gradient_matching, outer=1, inner=1),
        functools.partial(methods.trajectory_matching, inner=1),
    ],
)
def test_unknown_strategies_raise(make):
    with pytest.raises(TypeError, match="'flip'"):
        make(NETWORK, OPTIMIZER, strategy="flip")
    with pytest.raises(ValueError, match="'flop'.*'flip'"):
        make(NETWORK, OPTIMIZER, strategy=["flop"])


@pytest.mark.parametrize(
    "images, error, value",
    [
        (np.full((3, 1, 8, 8, 3), np.nan), ValueError, "nan"),
        (np.zeros((3, 1, 8, 8, 3), np.uint8), TypeError, "uint8"),
        (np.zeros((3, 8, 8, 3)), ValueError, r"got \(3, 8, 8, 3\)"),
        (np.zeros((3, 0, 8, 8, 3)), ValueError, r"got \(3, 0, 8, 8, 3\)"),
    ],
)
def test_invalid_initial_images_raise(images, error, value):
    with pytest.raises(error, match=value):
        METHOD.init(images)


def test_mean_features_of_a_shared_batch_give_the_step_of_each_weighting():
    """The distance of means needs of the batch only its weighted mean features."""
    weights = np.random.default_rng(0).dirichlet(np.ones(8), (2, 3))  # [r, k, b]
    prepare = jax.jit(methods.mean_features(NETWORK, strategy=("crop",)))
    features = prepare(KEY, BATCH._replace(weights=jnp.moveaxis(jnp.asarray(weights), 0, -1)))
    for r in range(2):
        alone = BATCH._replace(weights=jnp.asarray(weights[r], jnp.float32))
        expected, info = STEP(KEY, STATE, alone)
        of_row = jax.tree.map(lambda x, r=r: x[r], features)
        actual, shared_info = jax.jit(METHOD.step)(KEY, STATE, of_row)
        np.testing.assert_allclose(actual.images, expected.images, atol=1e-5)
        assert float(shared_info["loss"]) == pytest.approx(float(info["loss"]), rel=1e-4)
