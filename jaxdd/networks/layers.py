"""Layers with the initialisation of the distillation literature and float32 parameters.

Weights and biases start uniform in ±1/√fan_in, as in PyTorch, which is neither He's nor LeCun's
initialisation. `dtype` is the type of products and of the output; biases are added in float32.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxdd.networks import convolution, protocol


def _uniform_fan_in(fan_in: int) -> Callable:
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def _expand(channels, like):
    """Return an array `[c]` with leading axes of size one, so that ranks are equal."""
    return jax.lax.broadcast_to_rank(channels, like.ndim)


def _add_bias(products, bias):
    # In bfloat16 the gradient of the bias, a sum over all pixels of a batch, would stop growing at
    # 512 on CPUs: adding 1 no longer changes it. In float32 it is exact up to 2²⁴.
    return (products.astype(jnp.float32) + _expand(bias, products)).astype(products.dtype)


class Conv(nn.Module):
    """Convolution of stride one.

    Attributes:
        features: number of output channels.
        window: side of the kernel in pixels.
        padding: zeros added on every side of the image.
        use_bias: whether to add a bias.
        dtype: dtype of the computation.
    """

    features: int
    window: int = 3
    padding: int = 1
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map `[n, h, w, i]` to `[n, h', w', features]`."""
        shape = (self.window, self.window, images.shape[-1], self.features)
        if min(images.shape[1:3]) + 2 * self.padding < self.window:
            raise ValueError(
                f"Images of {images.shape[1]}×{images.shape[2]} pixels are too small for a "
                f"{self.window}×{self.window} convolution with padding {self.padding}."
            )
        initializer = _uniform_fan_in(math.prod(shape[:3]))
        kernel = self.param("kernel", initializer, shape).astype(self.dtype)
        padding = (self.padding, self.padding)
        output = convolution.conv2d(images.astype(self.dtype), kernel, padding)
        if not self.use_bias:
            return output
        return _add_bias(output, self.param("bias", initializer, (self.features,)))


class Dense(nn.Module):
    """Linear layer with bias."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map `[..., i]` to `[..., features]`."""
        initializer = _uniform_fan_in(inputs.shape[-1])
        kernel = self.param("kernel", initializer, (inputs.shape[-1], self.features))
        bias = self.param("bias", initializer, (self.features,))
        return _add_bias(inputs.astype(self.dtype) @ kernel.astype(self.dtype), bias)


class InstanceNorm(nn.Module):
    """Normalise each channel of each image over its pixels, then scale and shift it.

    Statistics are computed in float32 whatever `dtype` is. On the CPU it is four times faster than
    Flax's `GroupNorm(group_size=1)` (128 ms instead of 461 ms for 1280 images of 32×32×32).

    Attributes:
        epsilon: added to the variance; 1e-5 as in PyTorch (Flax: 1e-6).
        dtype: dtype of the output.
    """

    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the normalised images `[n, h, w, c]`.

        Raises:
            ValueError: for images of one pixel, of which only the shift would remain.
        """
        if images.shape[1:3] == (1, 1):
            raise ValueError(
                "Instance norm needs more than one pixel per image, got 1×1; use larger images, "
                "fewer blocks, or batch norm."
            )
        channels = images.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        images = images.astype(jnp.float32)
        centred = images - images.mean((1, 2), keepdims=True)
        variance = jnp.square(centred).mean((1, 2), keepdims=True)
        # Combine the two factors per image first, so that each pixel is multiplied once.
        factor = _expand(scale, images) * jax.lax.rsqrt(variance + self.epsilon)
        return (centred * factor + _expand(bias, images)).astype(self.dtype)


class BatchNorm(nn.Module):
    """Normalise each channel over all pixels of a batch, then scale and shift it, as in PyTorch.

    `apply_in_training` uses the mean and variance of the batch and moves the running statistics
    towards them (the variance with n − 1 in the denominator); `apply` uses the running statistics
    and no gradient reaches them.

    Running statistics therefore change if a network is trained with `apply_in_training`: in
    `training.fit`, teachers and ELF, and in gradient matching, which trains its network between
    matching steps. They keep their initial values in distribution and trajectory matching, experts
    and debiased training.

    Attributes:
        momentum: share of the old running statistics in the new ones.
        epsilon: added to the variance.
        dtype: dtype of the output.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the normalised images `[n, h, w, c]`."""
        channels = images.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_variance = self.variable("batch_stats", "var", jnp.ones, channels)
        images = images.astype(jnp.float32)
        if self.is_mutable_collection("batch_stats") and not self.is_initializing():
            mean = images.mean((0, 1, 2))
            variance = jnp.square(images - _expand(mean, images)).mean((0, 1, 2))
            count = images.size // channels[0]
            unbiased = variance * (count / max(count - 1, 1))
            for running, batch in ((running_mean, mean), (running_variance, unbiased)):
                running.value = self.momentum * running.value + (1 - self.momentum) * batch
        else:
            mean = jax.lax.stop_gradient(running_mean.value)
            variance = jax.lax.stop_gradient(running_variance.value)
        factor = jax.lax.rsqrt(variance + self.epsilon)
        mean, factor, scale, bias = (_expand(x, images) for x in (mean, factor, scale, bias))
        return ((images - mean) * factor * scale + bias).astype(self.dtype)


def _window_pixels(images):
    # The four pixels of every 2×2 window, each [n, h // 2, w // 2, c], dropping an odd last row or
    # column. Slices rather than a reduction over windows, because bfloat16 reductions that jaxlib
    # 0.12 fuses with a convolution on the CPU return uninitialised memory.
    n, height, width, channels = images.shape
    images = images[:, : height // 2 * 2, : width // 2 * 2]
    windows = images.reshape(n, height // 2, 2, width // 2, 2, channels)
    return [windows[:, :, i, :, j] for i in (0, 1) for j in (0, 1)]


def average_pool(images: jax.Array) -> jax.Array:
    """Halve `[n, h, w, c]` by the mean of 2×2 windows; a side of one leaves it unchanged."""
    if min(images.shape[1:3]) < 2:
        return images
    pixels = _window_pixels(images.astype(jnp.float32))
    return (functools.reduce(jnp.add, pixels) / 4).astype(images.dtype)


def max_pool(images: jax.Array) -> jax.Array:
    """Halve `[n, h, w, c]` by the maximum of 2×2 windows; a side of one leaves it unchanged."""
    if min(images.shape[1:3]) < 2:
        return images
    return functools.reduce(jnp.maximum, _window_pixels(images))


def no_pool(images: jax.Array) -> jax.Array:
    """Return the images unchanged."""
    return images


def trace_convolutions(
    network: Any, params: Any, images: jax.Array
) -> tuple[protocol.Output, tuple[jax.Array, ...]]:
    """Apply a Linen network and also return the input of each of its convolutions.

    Convolutions of one pixel, as in the shortcuts of a ResNet, are left out.

    Args:
        network: a Flax Linen module that contains `Conv` or Flax's convolution.
        params: from its `init`.
        images: `[n, h, w, c]`.

    Returns:
        The output, and the inputs `[n, h', w', c']` in the order of the convolutions.

    Raises:
        ValueError: if the network has no convolution.

    >>> from jaxdd import networks
    >>> network, images = networks.ConvNet(10, width=4, depth=2), jnp.zeros((2, 8, 8, 3))
    >>> _, inputs = trace_convolutions(network, network.init(jax.random.key(0), images), images)
    >>> [x.shape for x in inputs]
    [(2, 8, 8, 3), (2, 4, 4, 4)]
    """
    inputs = []

    def record(apply, arguments, options, context):
        if _window_side(context.module) > 1 and context.method_name == "__call__":
            inputs.append(arguments[0])
        return apply(*arguments, **options)

    with nn.intercept_methods(record):
        output = protocol.outputs(network, params, images)
    if not inputs:
        raise ValueError(
            "The network must be a Linen module with convolutions larger than one pixel; "
            f"got {type(network).__name__}."
        )
    return output, tuple(inputs)


def _window_side(module):
    if isinstance(module, nn.Conv):
        return max(np.atleast_1d(module.kernel_size))
    return module.window if isinstance(module, Conv) else 0
