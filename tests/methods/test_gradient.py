"""Gradient matching against the formula written out, its network, weights, groups and checks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from toy import BATCH, IMAGES, KEY, LINEAR, NETWORK, OPTIMIZER, POOL, SAMPLER

from jaxdd import augment, matching, methods, sampling

DSA = methods.gradient_matching(NETWORK, OPTIMIZER, outer=2, inner=1, strategy=("crop", "scale"))
STEP, STATE = jax.jit(DSA.step), DSA.init(IMAGES)


def new_network(key):
    return jax.jit(NETWORK.init)(jax.random.split(key, 3)[0], IMAGES[0, :1])


def test_a_step_is_the_written_out_formula():
    """The formula: class by class, with one augmentation for both sides, then SGD on the images."""
    params = new_network(KEY)
    keys = jax.random.split(jax.random.split(KEY, 3)[1], 3)

    def gradient(images, label, weights):
        def loss(params):
            logits = NETWORK.apply(params, images).logits
            return -weights @ jax.nn.log_softmax(logits)[:, label]

        return jax.grad(loss)(params)

    def distance(key, label, real, weights, images):
        real, images = augment.siamese(key, real, images, strategy=("crop", "scale"))
        target, own = gradient(real, label, weights), gradient(images, label, jnp.full(2, 0.5))
        return matching.cosine_rows(target, own)

    gradients = jax.jit(jax.vmap(jax.value_and_grad(distance, 4)))
    weights = np.asarray(BATCH.weights)
    weights = weights / weights.sum(1, keepdims=True)
    values, expected = gradients(keys, jnp.arange(3), BATCH.images, weights, IMAGES)
    after, info = STEP(KEY, STATE, BATCH)
    np.testing.assert_allclose(info["loss"], values.sum(), rtol=1e-4)
    scale = jnp.abs(expected).max()
    np.testing.assert_allclose((IMAGES - after.images) / 0.5 / scale, expected / scale, atol=2e-3)


def test_the_network_is_new_every_outer_steps_and_trained_in_between():
    """With outer = 2, steps 0 and 2 initialise and train it; steps 1 and 3 only use it."""
    kernels, state = [], STATE
    for i in range(4):
        state, _ = STEP(jax.random.key(i), state, SAMPLER(jax.random.key(i), POOL))
        kernels.append(np.array(state.params["params"]["classifier"]["kernel"]))
    for i in (0, 2):
        initial = new_network(jax.random.key(i))["params"]["classifier"]["kernel"]
        assert 0 < np.abs(kernels[i] - initial).max() < 0.1
    assert (kernels[1] == kernels[0]).all() and (kernels[2] != kernels[1]).any()
    assert state.count == 4


def test_weights_select_the_real_samples():
    """One sample with all the weight acts like a batch of copies; equal images have distance 0."""
    single = jnp.zeros((3, 8)).at[:, 5].set(1.0)
    repeated = sampling.Batch(BATCH.images[:, [5] * 8], jnp.full_like(BATCH.weights, 1 / 8))
    batches = BATCH._replace(weights=single), repeated
    after, expected = (STEP(KEY, STATE, batch)[0].images for batch in batches)
    np.testing.assert_allclose(after, expected, atol=1e-4)
    same = BATCH.images.at[:, :2].set(IMAGES)
    weights = jnp.zeros((3, 8)).at[:, :2].set(1.0)
    state, info = STEP(KEY, STATE, sampling.Batch(same, weights))
    assert abs(float(info["loss"])) < 1e-3
    np.testing.assert_allclose(state.images, IMAGES, atol=1e-3)
    state, _ = STEP(KEY, STATE, BATCH._replace(weights=0 * single))
    assert jnp.isfinite(state.images).all()


@pytest.mark.parametrize("classes, ipc, shape", [(1, 1, (8, 8, 1)), (12, 3, (6, 10, 4))])
def test_other_class_counts_and_image_shapes(classes, ipc, shape):
    pool = toy.make_pool((5,) * classes, shape=shape)
    options = dict(outer=2, inner=1, strategy=("crop",))
    method = methods.gradient_matching(toy.linear(classes), OPTIMIZER, **options)
    images = toy.initial_real(KEY, pool, ipc=ipc)
    state, info = toy.run(method, method.init(images), 3, pool=pool, chunk_length=3)[3]
    assert state.images.shape == (classes, ipc, *shape) and np.isfinite(state.images).all()
    assert info["loss"].shape == (3,)


def test_resuming_is_bit_identical():
    """With outer = 3, resuming includes steps that reuse and that replace the network."""
    method = methods.gradient_matching(LINEAR, OPTIMIZER, outer=3, inner=1)
    toy.assert_resumes_bit_for_bit(method, method.init(IMAGES))


def test_a_custom_augmentation_is_bit_identical_to_the_named_one():
    def custom(key, image):
        return augment.apply(augment.draw(key, image.shape, strategy=("crop", "cutout")), image)

    def step(strategy):
        options = dict(outer=2, inner=1, strategy=strategy)
        method = methods.gradient_matching(LINEAR, OPTIMIZER, **options)
        return jax.jit(method.step)(KEY, method.init(IMAGES), BATCH)

    toy.equal(step(custom), step(("crop", "cutout")))


def test_the_program_does_not_grow_with_the_classes():
    def lines(classes):
        method = methods.gradient_matching(toy.linear(classes), OPTIMIZER, outer=2, inner=1)
        images, real = (jnp.zeros((classes, n, 8, 8, 3)) for n in (2, 8))
        state = jax.eval_shape(method.init, images)
        batch = sampling.Batch(real, jnp.ones((classes, 8)))
        return jax.jit(method.step).lower(KEY, state, batch).as_text().count("\n")

    assert lines(100) == pytest.approx(lines(10), rel=0.05)


def test_the_distance_is_summed_over_groups_with_samples():
    """Two equal groups give twice the distance of one; an empty group contributes nothing."""
    options = dict(outer=2, inner=1, strategy=("crop",))
    fair, plain = (
        methods.gradient_matching(LINEAR, OPTIMIZER, groups=g, **options) for g in (2, 1)
    )
    twice = sampling.Batch(*(jnp.concatenate([x, x], 1) for x in BATCH))
    once = twice._replace(weights=twice.weights.at[:, 8:].set(0))
    state, step = plain.init(IMAGES), jax.jit(fair.step)
    expected = float(jax.jit(plain.step)(KEY, state, BATCH)[1]["loss"])
    assert float(step(KEY, state, twice)[1]["loss"]) == pytest.approx(2 * expected, rel=1e-4)
    assert float(step(KEY, state, once)[1]["loss"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "change, error, value",
    [
        (dict(outer=0), ValueError, "outer.*got 0"),
        (dict(outer=1.5), TypeError, "outer.*got 1.5"),
        (dict(inner=-1), ValueError, "inner.*got -1"),
        (dict(inner=2.0), TypeError, "inner.*got 2.0"),
        (dict(groups=0), ValueError, "groups.*got 0"),
        (dict(batch_size=0), ValueError, "batch_size.*got 0"),
    ],
)
def test_invalid_counts_raise(change, error, value):
    with pytest.raises(error, match=value):
        methods.gradient_matching(NETWORK, OPTIMIZER, **(dict(outer=1, inner=1) | change))


def test_invalid_initial_images_raise():
    with pytest.raises(ValueError, match="2 .*got 3"):
        DSA.init(jnp.zeros((2, 1, 8, 8, 3)))
    with pytest.raises(ValueError, match=r"got \(2, 8, 8, 3\)"):
        DSA.init(jnp.zeros((2, 8, 8, 3)))
