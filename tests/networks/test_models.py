"""Networks: their sizes, heads, precision and parts, and the inputs that they reject."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import networks

KEY = jax.random.key(0)
SMALL = {
    "convnet": lambda **options: networks.ConvNet(num_classes=3, width=4, **options),
    "mlp": lambda **options: networks.MLP(num_classes=3, **options),
    "lenet": lambda **options: networks.LeNet(num_classes=3, **options),
    "alexnet": lambda **options: networks.AlexNet(num_classes=3, **options),
    "vgg11": lambda **options: networks.VGG11(
        num_classes=3, stages=((4,), (4,), (8, 8), (8, 8), (8, 8)), **options
    ),
    "resnet18": lambda **options: networks.ResNet18(num_classes=3, widths=(4, 4, 8, 8), **options),
}


@functools.cache
def applied(name):
    """Return images that are not square, parameters, and the output of the network.

    The parameters are made by NumPy: a program that initialises a ResNet takes long to compile.
    """
    rng = np.random.default_rng(0)
    images = np.float32(rng.normal(size=(2, 36, 32, 1)))

    def random(path, shape):
        if path[-1].key == "scale":
            return np.ones(shape.shape, np.float32)
        fan_in = np.prod(shape.shape[:-1])  # of a kernel; biases are small
        return np.float32(rng.normal(size=shape.shape) / max(fan_in, 9) ** 0.5)

    shapes = jax.eval_shape(SMALL[name]().init, KEY, images)
    params = jax.tree.map_with_path(random, shapes)
    return images, params, jax.device_get(jax.jit(SMALL[name]().apply)(params, images))


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_the_linear_head_of_the_features(name):
    _, params, (features, logits) = applied(name)
    head = params["params"]["classifier"]
    np.testing.assert_allclose(logits, features @ head["kernel"] + head["bias"], atol=1e-4)
    assert logits.shape == (2, 3) and features.shape == (2, head["kernel"].shape[0])


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_stays_close(name):
    images, params, expected = applied(name)
    output = jax.jit(SMALL[name](dtype=jnp.bfloat16).apply)(params, images)
    assert all(x.dtype == jnp.float32 for x in (*jax.tree.leaves(params), *output))
    scale = np.abs(expected.features).max()
    np.testing.assert_allclose(output.features, expected.features, atol=0.08 * scale)


@pytest.mark.parametrize(
    "name, size",
    [
        ("convnet", 2048),
        ("mlp", 128),
        ("lenet", 84),
        ("alexnet", 3072),
        ("vgg11", 512),
        ("resnet18", 512),
    ],
)
def test_full_size_networks_have_the_reference_feature_size(name, size):
    network = networks.NETWORKS[name](num_classes=10)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    output, _ = jax.eval_shape(network.init_with_output, KEY, images)
    assert output.features.shape == (1, size)


def test_parameter_counts_of_the_reference():
    """ConvNet-3 on 32×32×3 has three 3×3 convolutions, three affine norms and a head 2048 → 10.

    (27·128 + 128) + 2·(9·128·128 + 128) + 3·2·128 + (2048·10 + 10) = 320 010.
    """
    params = jax.eval_shape(networks.ConvNet(10).init, KEY, np.zeros((1, 32, 32, 3), np.float32))
    assert sum(x.size for x in jax.tree.leaves(params)) == 320_010


def test_no_norm_and_other_depths():
    images = np.zeros((1, 16, 16, 1), np.float32)
    network = networks.ConvNet(2, width=4, depth=4, norm=None, pool=networks.max_pool)
    params = jax.eval_shape(network.init, KEY, images)
    assert "InstanceNorm_0" not in params["params"] and "Conv_3" in params["params"]
    assert jax.eval_shape(network.apply, params, images).features.shape == (1, 4)


@pytest.mark.parametrize("name", ["convnet", "vgg11", "resnet18"])
def test_parts_applied_in_turn_give_the_whole(name):
    """The first half of the parts is applied, and then the others."""
    network, (images, params, expected) = SMALL[name](), applied(name)
    stop = networks.count_parts(network) // 2
    hidden = jax.jit(functools.partial(network.apply, stop=stop))(params, images)
    output = jax.jit(functools.partial(network.apply, start=stop))(params, hidden)
    np.testing.assert_allclose(output.logits, expected.logits, atol=1e-5)
    with pytest.raises(ValueError, match="got MLP"):
        networks.count_parts(networks.MLP(3))


IMAGES = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)


@pytest.mark.parametrize(
    "network, images, error, value",
    [
        (networks.MLP(2), jax.ShapeDtypeStruct((2, 8, 8, 3), "u1"), TypeError, "got uint8"),
        (networks.MLP(2), jax.ShapeDtypeStruct((8, 8, 3), "f4"), ValueError, r"got \(8, 8, 3\)"),
        (networks.LeNet(0), IMAGES, ValueError, "num_classes .* got 0"),
        (networks.VGG11(2.5), IMAGES, ValueError, "num_classes .* got 2.5"),
        (networks.ConvNet(2, 0, 1), IMAGES, ValueError, "width .* got 0"),
        (networks.ConvNet(2, 4, -1), IMAGES, ValueError, "depth .* got -1"),
        (networks.ResNet18(2, dtype=jnp.int8), IMAGES, TypeError, "dtype .*int8"),
    ],
)
def test_invalid_images_and_sizes_are_rejected(network, images, error, value):
    with pytest.raises(error, match=value):
        jax.eval_shape(network.init, KEY, images)
