"""Layers by hand: initialisation, norms, pools, and sums that bfloat16 cannot hold."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import networks

KEY = jax.random.key(0)


def random(shape, seed=0):
    return np.float32(np.random.default_rng(seed).normal(size=shape))


def test_initialisation_is_uniform_in_one_over_the_root_of_fan_in():
    """Fan-in is 9·64 = 576: bound 1/24, standard deviation 1/24/√3, bias included."""
    images = np.zeros((1, 8, 8, 64), np.float32)
    params = jax.device_get(jax.jit(networks.Conv(64).init)(KEY, images))["params"]
    for values in params.values():
        assert np.abs(values).max() <= 1 / 24
        assert np.std(values) == pytest.approx(1 / 24 / 3**0.5, rel=0.2)
    assert np.abs(params["kernel"]).max() > 0.99 / 24


@pytest.mark.parametrize(
    "layer, shape",
    [
        (networks.Conv(2, dtype=jnp.bfloat16), (8, 64, 64, 1)),
        (networks.Dense(2, jnp.bfloat16), (32768, 1)),
    ],
)
def test_gradient_of_the_bias_is_exact_in_bfloat16(layer, shape):
    """The sum of 32,768 outputs has the slope 32,768 in the bias; a bfloat16 sum stops at 512."""
    inputs = np.ones(shape, np.float32)
    params = jax.jit(layer.init)(KEY, inputs)
    total = lambda params: layer.apply(params, inputs).astype(jnp.float32).sum()
    slope = jax.jit(jax.grad(total))(params)["params"]["bias"]
    assert slope.dtype == jnp.float32 and slope.tolist() == [32768, 32768]
    assert jax.eval_shape(layer.apply, params, inputs).dtype == jnp.bfloat16


def test_instance_norm_by_hand():
    """Pixels 0, 2 of one channel: mean 1, variance 1, so ∓1 / √(1 + 1e-5)."""
    images = jnp.array([0.0, 2.0]).reshape(1, 1, 2, 1)
    norm = networks.InstanceNorm()
    output = norm.apply(norm.init(KEY, images), images).ravel()
    np.testing.assert_allclose(output, np.array([-1, 1]) / np.sqrt(1 + 1e-5), rtol=1e-6)


def test_instance_norm_ignores_contrast_and_brightness_of_each_image():
    images = random((3, 8, 8, 2))
    norm = networks.InstanceNorm()
    params = norm.init(KEY, images)
    changed = images * np.float32([1, 2, 5])[:, None, None, None] + 3
    apply = jax.jit(norm.apply)
    np.testing.assert_allclose(apply(params, changed), apply(params, images), atol=1e-4)


def test_batch_norm_by_hand():
    """Values 0, 2 have mean 1, variance 1, unbiased 2; running statistics start at (0, 1)."""
    images = jnp.array([0.0, 2.0]).reshape(2, 1, 1, 1)
    norm = networks.BatchNorm()
    params = norm.init(KEY, images)
    output, updated = norm.apply(params, images, mutable=["batch_stats"])
    np.testing.assert_allclose(output.ravel(), np.array([-1, 1]) / np.sqrt(1 + 1e-5), rtol=1e-6)
    assert updated["batch_stats"]["mean"] == pytest.approx(0.1)
    assert updated["batch_stats"]["var"] == pytest.approx(0.9 * 1 + 0.1 * 2)
    fixed = norm.apply(params, images).ravel()  # running statistics: mean 0, variance 1
    np.testing.assert_allclose(fixed, np.array([0, 2]) / np.sqrt(1 + 1e-5), rtol=1e-6)


def test_pools_by_hand():
    images = jnp.arange(9.0).reshape(1, 3, 3, 1)
    assert networks.average_pool(images).ravel().tolist() == [2.0]  # (0 + 1 + 3 + 4) / 4
    assert networks.max_pool(images).ravel().tolist() == [4.0]
    row = images[:, :1]
    assert networks.average_pool(row) is row


def test_images_too_small_for_the_window_are_rejected():
    with pytest.raises(ValueError, match="4×4 .* 5×5"):
        networks.LeNet(10).init(KEY, jnp.zeros((1, 4, 4, 1)))


def test_instance_norm_rejects_images_of_one_pixel():
    """The last stage of VGG11 on 28×28 images would return the same for every image."""
    images = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    with pytest.raises(ValueError, match="got 1×1"):
        networks.count_classes(networks.VGG11(10), images)
    assert networks.count_classes(networks.VGG11(10, networks.BatchNorm), images) == 10


def test_trace_needs_convolutions():
    network, images = networks.MLP(2, width=3), jnp.zeros((1, 2, 2, 1))
    with pytest.raises(ValueError, match="got MLP"):
        networks.trace_convolutions(network, network.init(KEY, images), images)


def test_trace_lists_the_inputs_of_all_convolutions_except_shortcuts():
    network, images = networks.ResNet18(10, norm=networks.BatchNorm), jnp.zeros((2, 16, 16, 3))
    shapes = jax.eval_shape(network.init, KEY, images)
    _, inputs = jax.eval_shape(
        functools.partial(networks.trace_convolutions, network), shapes, images
    )
    assert [x.shape[-1] for x in inputs] == [3, *[64] * 5, *[128] * 4, *[256] * 4, *[512] * 3]
    assert inputs[-1].shape == (2, 2, 2, 512)
