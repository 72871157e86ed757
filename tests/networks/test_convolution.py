"""Convolutions and their gradients against the definition in float64 and against XLA's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxdd import networks
from jaxdd.networks import convolution


def random(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def convolve_by_definition(images, kernel, padding):
    """Compute in float64, at each pixel: Σ over the window of pixel times weight."""
    (rows, columns), (kh, kw) = padding, kernel.shape[:2]
    padded = np.pad(np.asarray(images, float), ((0, 0), (rows,) * 2, (columns,) * 2, (0, 0)))
    height, width = padded.shape[1] - kh + 1, padded.shape[2] - kw + 1
    out = np.zeros((len(images), height, width, kernel.shape[3]))
    for y in range(height):
        for x in range(width):
            window = padded[:, y : y + kh, x : x + kw]
            out[:, y, x] = np.einsum("nhwi,hwio->no", window, kernel)
    return out


@pytest.mark.parametrize(
    "size, channels, window, padding",
    [
        ((7, 6), 3, 3, (1, 1)),
        ((7, 6), 4, 5, (0, 0)),
        ((7, 6), 5, 5, (2, 1)),
        ((7, 6), 1, 1, (0, 0)),
        ((2, 2), 3, 3, (1, 1)),
        ((1, 6), 3, 3, (2, 1)),
        ((4, 3), 2, 5, (2, 2)),
    ],
)
def test_conv2d_matches_the_definition(size, channels, window, padding):
    """CPUs treat images smaller than the window, and odd numbers of channels, differently."""
    images, kernel = random((2, *size, channels)), random((window, window, channels, 4), 1)
    expected = convolve_by_definition(images, np.asarray(kernel), padding)
    conv2d = jax.jit(networks.conv2d, static_argnums=2)
    np.testing.assert_allclose(conv2d(images, kernel, padding), expected, atol=1e-4)


@pytest.mark.parametrize(
    "size, window, padding",
    [
        ((6, 7), (3, 3), (1, 1)),
        ((6, 7), (5, 5), (0, 0)),
        ((6, 7), (3, 2), (2, 1)),
        ((2, 2), (3, 3), (1, 1)),
        ((1, 3), (3, 3), (1, 2)),
    ],
)
def test_gradients_of_conv2d_match_those_of_lax(size, window, padding):
    images, kernel = random((2, *size, 3)), random((*window, 3, 4), 1)

    def reference(images, kernel):
        return jax.lax.conv_general_dilated(
            images,
            kernel,
            (1, 1),
            [(p, p) for p in padding],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    @jax.jit
    def gradients(images, kernel):
        cotangent = jnp.sin(reference(images, kernel))
        ours = functools.partial(networks.conv2d, padding=padding)
        return [jax.vjp(f, images, kernel)[1](cotangent) for f in (ours, reference)]

    for ours, expected in zip(*gradients(images, kernel), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize("side, channels", [(4, 2), (4, convolution._FEW_CHANNELS), (2, 2)])
def test_second_order_gradients_of_conv2d(side, channels):
    images, kernel = random((1, side, side, channels)), random((3, 3, channels, 2), 1)

    def gradient_norm(images, kernel):
        loss = lambda kernel: jnp.sum(jnp.sin(networks.conv2d(images, kernel, (1, 1))))
        return jnp.sum(jnp.square(jax.grad(loss)(kernel)))

    check_grads(jax.jit(gradient_norm), (images, kernel), order=1, modes=["rev"], rtol=2e-2)


@pytest.mark.parametrize(
    "size, padding", [((8, 8), (1, 1)), ((7, 6), (1, 1)), ((7, 6), (2, 0)), ((4, 9), (0, 1))]
)
def test_all_kernel_gradients_match_the_sum_over_pixels(size, padding):
    """Compared with float64 sums, also for odd sides, which end with half a Winograd tile."""
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
    close = functools.partial(
        np.testing.assert_allclose, desired=expected, atol=2e-6 * np.abs(expected).max()
    )

    @jax.jit
    def gradients(images, cotangent):
        arguments = images, cotangent, padding
        return [
            convolution._kernel_gradient_by_winograd(*arguments),
            convolution._kernel_gradient_by_window_rows(*arguments, (3, 3)),
            convolution._kernel_gradient_by_product(*arguments, (3, 3)),
            convolution._kernel_gradient_by_convolution(*arguments, (3, 3)),
        ]

    for gradient in gradients(images, cotangent):
        close(gradient)


def test_kernel_gradients_of_oblong_windows():
    images, cotangent = random((2, 6, 5, 3)), random((2, 6, 5, 4), 1)
    arguments = images, cotangent, (2, 0), (5, 1)
    expected = convolution._kernel_gradient_by_convolution(*arguments)
    for function in (
        convolution._kernel_gradient_by_product,
        convolution._kernel_gradient_by_window_rows,
    ):
        actual = jax.jit(function, static_argnums=(2, 3))(*arguments)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
