"""Networks and convolutions against their definition, torch's initialisation and bfloat16."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.test_util import check_grads

from jaxdd import evaluate, methods, networks, sampling

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


def convolve_by_loops(images, kernel, padding):
    """The definition, in float64: Σ over the window of pixel times weight."""
    (rows, columns), (kh, kw) = padding, kernel.shape[:2]
    padded = np.pad(images.astype(np.float64), ((0, 0), (rows,) * 2, (columns,) * 2, (0, 0)))
    height, width = padded.shape[1] - kh + 1, padded.shape[2] - kw + 1
    out = np.zeros((len(images), height, width, kernel.shape[3]))
    for y in range(height):
        for x in range(width):
            window = padded[:, y : y + kh, x : x + kw]
            out[:, y, x] = np.einsum("nhwi,hwio->no", window, kernel)
    return out


def random(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize(
    "size, window, padding",
    [
        ((7, 6), 3, (1, 1)),
        ((7, 6), 5, (0, 0)),
        ((7, 6), 5, (2, 1)),
        ((7, 6), 1, (0, 0)),
        ((2, 2), 3, (1, 1)),
        ((1, 6), 3, (2, 1)),
        ((4, 3), 5, (2, 2)),
    ],
)
def test_conv2d_is_a_convolution(size, window, padding):
    """Images smaller than the window take another way on the CPU."""
    images, kernel = random((2, *size, 3)), random((window, window, 3, 4), 1)
    found = networks.conv2d(images, kernel, padding)
    expected = convolve_by_loops(np.asarray(images), np.asarray(kernel), padding)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_conv2d_of_other_channels(channels):
    """An odd number of which goes with a channel of zeros on the CPU, where JAX is before 0.12."""
    images, kernel = random((2, 5, 4, channels)), random((3, 3, channels, 2), 1)
    found = networks.conv2d(images, kernel, (1, 1))
    expected = convolve_by_loops(np.asarray(images), kernel, (1, 1))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    "size, window, padding",
    [
        ((6, 7), (3, 3), (1, 1)),
        ((6, 7), (5, 5), (0, 0)),
        ((6, 7), (2, 2), (1, 0)),
        ((6, 7), (1, 1), (0, 0)),
        ((6, 7), (3, 2), (2, 1)),
        ((2, 2), (3, 3), (1, 1)),
        ((1, 3), (3, 3), (1, 2)),
    ],
)
def test_gradients_of_conv2d_are_those_of_lax(size, window, padding):
    images, kernel = random((2, *size, 3)), random((*window, 3, 4), 1)

    def plain(images, kernel):
        return jax.lax.conv_general_dilated(
            images,
            kernel,
            (1, 1),
            [(p, p) for p in padding],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    @jax.jit
    def gradients(images, kernel):
        cotangent = jnp.sin(plain(images, kernel))
        ours = functools.partial(networks.conv2d, padding=padding)
        return [jax.vjp(each, images, kernel)[1](cotangent) for each in (ours, plain)]

    found, expected = gradients(images, kernel)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("side", [4, 2])
@pytest.mark.parametrize("channels", [2, networks._FEW])
def test_second_order_gradients_of_conv2d(side, channels):
    images, kernel = random((1, side, side, channels)), random((3, 3, channels, 2), 1)

    def gradient_norm(images, kernel):
        loss = lambda kernel: jnp.sum(jnp.sin(networks.conv2d(images, kernel, (1, 1))))
        return jnp.sum(jnp.square(jax.grad(loss)(kernel)))

    check_grads(jax.jit(gradient_norm), (images, kernel), order=1, modes=["rev"], rtol=2e-2)


@pytest.mark.parametrize("padding, window", [((1, 1), (3, 3)), ((0, 1), (2, 3)), ((2, 0), (5, 1))])
def test_all_kernel_gradients_are_the_same_number(padding, window):
    images = random((2, 6, 5, 3))
    height, width = (n + 2 * p - k + 1 for n, p, k in zip((6, 5), padding, window, strict=True))
    given = images, random((2, height, width, 4), 1), padding, window
    expected = networks._kernel_gradient_by_convolution(*given)
    for other in (networks._kernel_gradient_by_product, networks._kernel_gradient_by_rows):
        np.testing.assert_allclose(other(*given), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", [(1, 1), (0, 1), (2, 0)])
@pytest.mark.parametrize("size", [(8, 8), (7, 6), (4, 9)])
def test_winograds_kernel_gradient_is_the_sum_over_pixels(size, padding):
    """Places of the window one by one, in float64; odd sides end in half a tile."""
    images = random((3, *size, 5))
    cotangent = random((3, *(n + 2 * p - 2 for n, p in zip(size, padding, strict=True)), 4), 1)
    padded = np.pad(np.asarray(images, float), ((0, 0), *((p, p) for p in padding), (0, 0)))
    height, width = cotangent.shape[1:3]
    expected = [
        [
            np.einsum("nhwi,nhwo->io", padded[:, i : i + height, j : j + width], cotangent)
            for j in range(3)
        ]
        for i in range(3)
    ]
    found = networks._kernel_gradient_by_tiles(images, cotangent, padding)
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())


@functools.cache
def applied(name):
    """Images that are no squares, parameters, and what the network makes of them."""
    images = random((2, 36, 32, 1))
    params = jax.jit(SMALL[name]().init)(KEY, images)
    return images, params, jax.jit(SMALL[name]().apply)(params, images)


@pytest.mark.parametrize("name", SMALL)
def test_features_and_logits(name):
    """Logits are the linear head of the features, whatever the network."""
    _, params, (features, logits) = applied(name)
    head = params["params"]["classifier"]
    np.testing.assert_allclose(logits, features @ head["kernel"] + head["bias"], atol=1e-4)
    assert logits.shape == (2, 3) and features.shape == (2, head["kernel"].shape[0])


def test_images_that_leave_one_pixel_to_instance_norm_are_refused():
    """VGG11 on MNIST: its last stage would give the same whatever the image is."""
    images = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    with pytest.raises(ValueError, match="needs more than one pixel, found 1×1"):
        networks.count_classes(networks.VGG11(10), images)
    assert networks.count_classes(networks.VGG11(10, networks.BatchNorm), images) == 10


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
    """ConvNet-3 on 32×32×3: 3 → 128 → 128 → 128 by 3×3, three affine norms, 2048 → 10.

    (27·128 + 128) + 2·(9·128·128 + 128) + 3·2·128 + (2048·10 + 10) = 320 010.
    """
    images = jnp.zeros((1, 32, 32, 3))
    params = jax.eval_shape(networks.ConvNet(10).init, KEY, images)
    assert sum(x.size for x in jax.tree.leaves(params)) == 320_010


def test_initialisation_is_uniform_in_one_over_the_root_of_fan_in():
    """Second layer: fan_in = 9·64 = 576, bound 1/24, standard deviation 1/24/√3, bias included."""
    network = networks.ConvNet(10, width=64)
    params = jax.jit(network.init)(KEY, jnp.zeros((1, 8, 8, 3)))["params"]
    for values in params["Conv_1"].values():
        assert jnp.abs(values).max() <= 1 / 24
        assert jnp.std(values) == pytest.approx(1 / 24 / 3**0.5, rel=0.2)
    assert jnp.abs(params["Conv_1"]["kernel"]).max() > 0.99 / 24


def test_instance_norm_by_hand():
    """Pixels 0, 2 of one channel: mean 1, variance 1, so ∓1 / √(1 + 1e-5)."""
    images = jnp.array([0.0, 2.0]).reshape(1, 1, 2, 1)
    norm = networks.InstanceNorm()
    found = norm.apply(norm.init(KEY, images), images).ravel()
    np.testing.assert_allclose(found, np.array([-1, 1]) / np.sqrt(1 + 1e-5), rtol=1e-6)


def test_instance_norm_ignores_contrast_and_brightness_of_each_image():
    images = random((3, 8, 8, 2))
    norm = networks.InstanceNorm()
    params = norm.init(KEY, images)
    changed = images * jnp.array([1.0, 2, 5])[:, None, None, None] + 3
    np.testing.assert_allclose(norm.apply(params, changed), norm.apply(params, images), atol=1e-4)


def test_pools_by_hand():
    images = jnp.arange(9.0).reshape(1, 3, 3, 1)
    assert networks.average_pool(images).ravel().tolist() == [2.0]  # (0 + 1 + 3 + 4) / 4
    assert networks.max_pool(images).ravel().tolist() == [4.0]
    one = images[:, :1]
    assert networks.average_pool(one) is one


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_stays_close(name):
    images, params, expected = applied(name)
    found = jax.jit(SMALL[name](dtype=jnp.bfloat16).apply)(params, images)
    assert all(x.dtype == jnp.float32 for x in (*jax.tree.leaves(params), *found))
    scale = jnp.abs(expected.features).max()
    np.testing.assert_allclose(found.features, expected.features, atol=0.08 * scale)


def test_no_norm_and_other_depths():
    images = random((1, 16, 16, 1))
    network = networks.ConvNet(2, width=4, depth=4, norm=None, pool=networks.max_pool)
    params = jax.eval_shape(network.init, KEY, images)
    assert "InstanceNorm_0" not in params["params"] and "Conv_3" in params["params"]
    assert jax.eval_shape(network.apply, params, images).features.shape == (1, 4)


def test_too_small_an_image_is_named():
    with pytest.raises(ValueError, match="images of 4×4 pixels are too small for a 5×5"):
        networks.LeNet(10).init(KEY, jnp.zeros((1, 4, 4, 1)))


IMAGES = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
BYTES, SINGLE = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.uint8), jax.ShapeDtypeStruct((8, 8, 3), "f4")


@pytest.mark.parametrize(
    "network, images, error, message",
    [
        (networks.ConvNet(2, 4, 1), BYTES, TypeError, "must be floating, .* found uint8"),
        (networks.MLP(2), SINGLE, ValueError, r"\[n, h, w, c\] .* found \(8, 8, 3\)"),
        (
            networks.LeNet(0),
            IMAGES,
            ValueError,
            "num_classes must be an integer of at least 1, found 0",
        ),
        (
            networks.AlexNet(-1),
            IMAGES,
            ValueError,
            "num_classes must be an integer of at least 1, found -1",
        ),
        (
            networks.VGG11(2.5),
            IMAGES,
            ValueError,
            "num_classes must be an integer of at least 1, found 2.5",
        ),
        (
            networks.ConvNet(2, 0, 1),
            IMAGES,
            ValueError,
            "width must be an integer of at least 1, found 0",
        ),
        (
            networks.ConvNet(2, 4, -1),
            IMAGES,
            ValueError,
            "depth must be an integer of at least 0, found -1",
        ),
        (networks.ConvNet(2, 4, 1, norm="x"), IMAGES, TypeError, "norm must be .* found 'x'"),
        (networks.ResNet18(2, dtype=jnp.int8), IMAGES, TypeError, "dtype must be floating"),
    ],
)
def test_what_no_network_can_be_made_of_is_refused(network, images, error, message):
    with pytest.raises(error, match=message):
        jax.eval_shape(network.init, KEY, images)


# ------------------------------------------------------------------ networks of one's own


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(48, 5, rngs=rngs)
        self.classifier = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, images):
        features = jnp.tanh(self.hidden(images.reshape(len(images), -1)))
        return features, self.classifier(features)


def nnx_init(key, images):
    return nnx.split(Nnx(nnx.Rngs(key)))[1]


def nnx_apply(params, images):
    structure = nnx.split(nnx.eval_shape(lambda: Nnx(nnx.Rngs(0))))[0]
    return nnx.merge(structure, params)(images)


def plain_init(key, images):
    return {"features": jax.random.normal(key, (48, 5)) / 7, "classifier": jnp.zeros((5, 3))}


def plain_apply(params, images):
    features = jnp.tanh(jnp.einsum("nhwc,hwcd->nd", images, params["features"].reshape(4, 4, 3, 5)))
    return [features, features @ params["classifier"]]


@pytest.mark.parametrize(
    "network",
    [
        networks.MLP(num_classes=3, width=16),
        networks.Functions(nnx_init, nnx_apply),
        networks.Functions(plain_init, plain_apply),
    ],
    ids=["linen", "nnx", "functions"],
)
def test_any_network_distils_and_is_evaluated(network):
    """Three classes of one colour each: the loss falls, and networks learn it."""
    labels = np.arange(30) % 3
    images = np.random.default_rng(0).integers(0, 90, (30, 4, 4, 3)).astype(np.uint8)
    images[np.arange(30), :, :, labels] += 150
    statistics = dict(num_classes=3, mean=(0.4,) * 3, std=(0.3,) * 3)
    pool = sampling.pool(images, labels, **statistics)
    method = methods.distribution_matching(network, optax.adam(0.1), strategy=())
    state = method.init(sampling.initial_noise(KEY, pool, ipc=2))
    sampler = lambda key, pool: sampling.uniform_batch(key, pool, 10)
    ((_, state, info),) = methods.run(
        KEY, state, pool, method=method, sampler=sampler, steps=40, chunk_length=40
    )
    assert info["loss"][-10:].mean() < info["loss"][:10].mean()
    task = evaluate.task(images, labels, **statistics, strategy=())
    score = jax.jit(
        lambda images: evaluate.evaluate(
            KEY[None], network, images, task, epochs=60, learning_rate=0.1
        )
    )
    assert score(state.images).accuracy[0] > 0.9
    networks.check_classes(network, state.images[0], 3)
    with pytest.raises(ValueError, match="there are 4 classes, found a network of 3"):
        networks.check_classes(network, state.images[0], 4)


@pytest.mark.parametrize(
    "found, shapes",
    [
        (lambda n: jnp.zeros((n, 3)), r"\(2, 3\)"),
        (lambda n: (jnp.zeros((n, 3)), jnp.zeros((n, 2, 2, 4))), r"\(\(2, 3\), \(2, 2, 2, 4\)\)"),
        (lambda n: (jnp.zeros((4, n)), jnp.zeros((3, n))), r"\(\(4, 2\), \(3, 2\)\)"),
        (lambda n: (jnp.zeros((n, 4)), jnp.zeros(n)), r"\(\(2, 4\), \(2,\)\)"),
        (lambda n: (jnp.zeros((n, 4)), jnp.zeros((n, 3)), 0), r"\(\(2, 4\), \(2, 3\), \(\)\)"),
        (lambda n: None, "None"),
    ],
    ids=["logits", "swapped", "transposed", "no classes", "three", "nothing"],
)
def test_what_is_no_pair_of_features_and_logits_is_refused(found, shapes):
    network = networks.Functions(lambda key, images: (), lambda params, images: found(len(images)))
    with pytest.raises(TypeError, match=f"logits .n, k.. for n = 2 images, found shapes {shapes}$"):
        networks.outputs(network, (), jnp.zeros((2, 4, 4, 3)))


def test_features_of_any_shape_are_flattened():
    network = networks.Functions(None, lambda params, images: (images, images[:, 0, 0]))
    images = random((2, 4, 5, 3))
    features, logits = networks.outputs(network, (), images)
    np.testing.assert_array_equal(features, images.reshape(2, 60))
    assert logits.shape == (2, 3)
