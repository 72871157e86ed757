"""Flax networks of the distillation literature, each returning features and logits.

All of them take images `[n, h, w, c]` of any size and channel count, start from the initialisation
of the reference code (weights *and* biases uniform in ±1/√fan_in, which is neither He's nor
LeCun's), and compute in `dtype` with float32 parameters. `ConvNet` is the network that sets are
distilled with; the others measure how a set transfers.

>>> import jax, jax.numpy as jnp
>>> network = ConvNet(num_classes=10, width=8)
>>> images = jnp.zeros((2, 32, 32, 3))
>>> params = network.init(jax.random.key(0), images)
>>> features, logits = network.apply(params, images)
>>> features.shape, logits.shape
((2, 128), (2, 10))
"""

import functools
import itertools
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

Module = Callable[..., Any]


class Output(NamedTuple):
    """What a network returns: features `[n, d]` before the classifier, and logits `[n, k]`."""

    features: jax.Array
    logits: jax.Array


class Network(Protocol):
    """What distillation and evaluation ask of a network: two pure functions.

    Any object with these is a network: a Flax Linen module, `Functions` around a Flax NNX or
    Equinox one, a class of one's own. It must be stateless and treat images one by one; no dropout.

    Batch norm keeps to that, because running statistics are a part of the parameters, the
    collection "batch_stats" of Flax, and `apply` goes by them. A network that has them is a Linen
    module, or takes `mutable=["batch_stats"]` as one does. Only where it is trained (`apply_in_training`)
    do a batch's own statistics count.
    """

    def init(self, key: jax.Array, images: jax.Array, /) -> Any:
        """Returns fresh parameters, a tree of arrays, for images like these `[n, h, w, c]`."""
        ...

    def apply(self, params: Any, images: jax.Array, /) -> Any:
        """Returns `(features [n, ...], logits [n, k])`, an `Output` or any pair, differentiably."""
        ...


class Functions(NamedTuple):
    """A `Network` of two functions.

    >>> def init(key, images):
    ...     return jax.random.normal(key, (images[0].size, 10)) / images[0].size
    >>> def apply(params, images):
    ...     features = images.reshape(len(images), -1)
    ...     return features, features @ params
    >>> outputs(Functions(init, apply), jnp.zeros((12, 10)), jnp.zeros((2, 2, 2, 3))).logits.shape
    (2, 10)
    """

    init: Callable[[jax.Array, jax.Array], Any]
    apply: Callable[[Any, jax.Array], Any]


def outputs(network: Network, params: Any, images: jax.Array) -> Output:
    """Applies a network and checks, by shapes alone, that it gives what the protocol says.

    Args:
        network: any `Network`.
        params: from its `init`.
        images: `[n, h, w, c]`.

    Returns:
        Features flattened to `[n, d]`, and logits `[n, k]`.

    Raises:
        TypeError: it does not return a pair of arrays `[n, ...]` and `[n, k]`.
    """
    return _as_output(network.apply(params, images), len(images))


def _as_output(found, n):
    match jax.tree.map(jnp.shape, found):
        case ((rows, *_), (others, _)) if rows == others == n:
            features, logits = found
            return Output(features.reshape(n, -1), logits)
        case shapes:
            raise TypeError(
                f"a network must return (features [n, ...], logits [n, k]) for n = {n} images, "
                f"found shapes {shapes}"
            )


def split_batch_stats(params: Any) -> tuple[Any, dict[str, Any]]:
    """Returns the parameters that are learned, and the running statistics, {} where none are kept.

    >>> split_batch_stats({"params": 1, "batch_stats": 2}), split_batch_stats([3])
    (({'params': 1}, {'batch_stats': 2}), ([3], {}))
    """
    if not (isinstance(params, Mapping) and "batch_stats" in params):
        return params, {}
    learned = {name: value for name, value in params.items() if name != "batch_stats"}
    return learned, {"batch_stats": params["batch_stats"]}


def apply_in_training(network: Any, params: Any, images: jax.Array, **part: int) -> tuple[Any, Any]:
    """Applies a network as it trains: batch norm goes by the batch, and its statistics move.

    Args:
        network: any `Network`.
        params: from its `init`.
        images: `[n, h, w, c]`, or what enters the part.
        **part: start and stop, of a network that can be applied in `parts`.

    Returns:
        What the network returns, an `Output` where it is applied to the end, and the parameters
        with the statistics moved.

    Raises:
        TypeError: as in `outputs`.
    """
    learned, statistics = split_batch_stats(params)
    if statistics:
        found, moved = network.apply(params, images, mutable=["batch_stats"], **part)
        params = {**learned, **moved}
    else:
        found = network.apply(params, images, **part)
    return found if "stop" in part else _as_output(found, len(images)), params


def trace_convolutions(
    network: Any, params: Any, images: jax.Array
) -> tuple[Output, tuple[jax.Array, ...]]:
    """Applies a Linen network, and returns also what entered each of its convolutions.

    Convolutions of one pixel, as in the shortcuts of a ResNet, do not count.

    Args:
        network: a Flax Linen module with convolutions of this module, or of Flax.
        params: from its `init`.
        images: `[n, h, w, c]`.

    Returns:
        What it returns, and the inputs `[n, h', w', c']` in the order of the convolutions.

    Raises:
        TypeError: as in `outputs`.
        ValueError: no convolution was met.

    >>> network, images = ConvNet(10, width=4, depth=2), jnp.zeros((2, 8, 8, 3))
    >>> _, inputs = trace_convolutions(network, network.init(jax.random.key(0), images), images)
    >>> [each.shape for each in inputs]
    [(2, 8, 8, 3), (2, 4, 4, 4)]
    """
    inputs = []

    def tap(apply, arguments, options, context):
        if _window(context.module) > 1 and context.method_name == "__call__":
            inputs.append(arguments[0])
        return apply(*arguments, **options)

    with nn.intercept_methods(tap):
        found = outputs(network, params, images)
    if not inputs:
        raise ValueError(
            "a network whose layers are looked at must be a Linen module with convolutions, "
            f"found {type(network).__name__} without"
        )
    return found, tuple(inputs)


def _window(module):
    """The side of a convolution in pixels, 0 of other modules."""
    if isinstance(module, nn.Conv):
        return max(np.atleast_1d(module.kernel_size))
    return module.window if isinstance(module, Conv) else 0


def count_parts(network: Any) -> int:
    """Returns the number of parts that a network can be applied in, one after another.

    `apply(params, images, stop=i)` gives the images `[n, h, w, c]` after i parts,
    `apply(params, those, start=i)` goes on to the `Output`.

    Raises:
        ValueError: the network is of one piece.

    >>> count_parts(ConvNet(10)), count_parts(VGG11(10)), count_parts(ResNet18(10))
    (3, 8, 9)
    """
    found = getattr(network, "parts", None)
    if found is None:
        raise ValueError(
            "a network that is split must be a ConvNet, a VGG11, a ResNet18 or another with parts, "
            f"found {type(network).__name__}"
        )
    return found


def max_blocks(shape: Sequence[int], *, limit: int = 3) -> int:
    """Returns how many blocks, each of which halves the sides, images of a shape allow, or `limit`.

    >>> max_blocks((60_000, 28, 28, 1)), max_blocks((100, 4, 6, 3))
    (3, 2)
    """
    return min(limit, min(shape[1:3]).bit_length() - 1)


def init_params(key: jax.Array, network: Network, images: jax.Array) -> Any:
    """Returns fresh parameters of a network, all of them of the device that the key belongs to.

    A scale that starts at one is the same on every device. Where parameters are trained inside of
    `shard_map`, JAX would take it for shared and add up its gradient over the devices.

    Args:
        key: of the initialisation.
        network: any `Network`.
        images: `[n, h, w, c]` like those to come.
    """
    params = network.init(key, images)
    if not _inside_shard_map():
        return params
    own = jax.random.bits(key)
    return jax.tree.map(lambda x: jnp.where(False, own.astype(x.dtype), x), params)


def check_classes(network: Network, images: jax.Array, num_classes: int) -> None:
    """Refuses, by shapes alone, a network of another number of classes.

    Args:
        network: any `Network`.
        images: `[n, h, w, c]` like those to come.
        num_classes: of the data.

    Raises:
        ValueError: names both numbers.
        TypeError: as in `outputs`.
    """
    found = count_classes(network, images)
    if found != num_classes:
        raise ValueError(f"there are {num_classes} classes, found a network of {found}")


def count_classes(network: Network, images: jax.Array) -> int:
    """Returns, by shapes alone, how many logits a network has.

    Args:
        network: any `Network`.
        images: `[n, h, w, c]` like those to come.

    Raises:
        TypeError: as in `outputs`.

    >>> count_classes(MLP(num_classes=7), jnp.zeros((1, 4, 4, 3)))
    7
    """
    params = jax.eval_shape(network.init, jax.random.key(0), images)
    return jax.eval_shape(functools.partial(outputs, network), params, images).logits.shape[1]


def _inside_shard_map():
    return bool(jax.sharding.get_abstract_mesh().manual_axes)


_FEW = 16  # channels below which one product over all shifts is faster than several


_PAIRED = jax.__version_info__ < (0, 12)
"""Whether a convolution on the CPU wants channels in pairs: JAX 0.10 takes 6.3 ms on one core for
128 images of 28×28×3 and 32 features, and 1.8 with a fourth channel of zeros; 0.12 needs none."""


def _convolve(images, kernel, padding):
    direct = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(1, 1),
        padding=[(p, p) for p in padding],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    channels = images.shape[-1]
    if any(side < k for side, k in zip(images.shape[1:3], kernel.shape[:2], strict=True)):
        on_cpu = functools.partial(_convolve_by_product, padding=padding)
    elif _PAIRED and channels > 1 and channels % 2:
        on_cpu = functools.partial(_convolve_in_pairs, direct)
    else:
        return direct(images, kernel)
    return jax.lax.platform_dependent(images, kernel, cpu=on_cpu, default=direct)


def _convolve_in_pairs(direct, images, kernel):
    """The convolution with a channel of zeros more."""
    images = jnp.pad(images, [(0, 0), (0, 0), (0, 0), (0, 1)])
    return direct(images, jnp.pad(kernel, [(0, 0), (0, 0), (0, 1), (0, 0)]))


def _convolve_by_product(images, kernel, padding):
    """The convolution as one matrix product, rows being pixels and columns their neighbours."""
    shifts = _shifts(images, padding, kernel.shape[:2])
    return jnp.concatenate(shifts, -1) @ kernel.reshape(-1, kernel.shape[-1])


def _shifts(images, padding, window):
    """The parts `[n, h', w', c]` of the padded images that each place of the window meets."""
    padded = jnp.pad(images, ((0, 0), *((p, p) for p in padding), (0, 0)))
    height, width = (n - k + 1 for n, k in zip(padded.shape[1:3], window, strict=True))
    return [
        padded[:, i : i + height, j : j + width] for i in range(window[0]) for j in range(window[1])
    ]


def _kernel_gradient_by_product(images, cotangent, padding, window):
    """The weight gradient as one matrix product over all shifted copies of the images.

    The copies are laid out as rows, `[shift and channel, image and pixel]`: the product then runs
    over the contiguous axis, which is worth more than the transposition costs.
    """
    shifts = [shift.transpose(3, 0, 1, 2) for shift in _shifts(images, padding, window)]
    rows = jnp.stack(shifts).reshape(math.prod(window) * images.shape[-1], -1)
    product = rows @ cotangent.reshape(-1, cotangent.shape[-1])
    return product.reshape(*window, images.shape[-1], cotangent.shape[-1])


def _kernel_gradient_by_rows(images, cotangent, padding, window):
    """The weight gradient as one matrix product for each row of the window.

    With the height of the images first, a row of the window meets a contiguous part of them, so
    that copies are made of the shifts along the width alone.
    """
    height, width, features = cotangent.shape[1:]
    padded = jnp.pad(images, ((0, 0), *((p, p) for p in padding), (0, 0))).transpose(1, 3, 0, 2)
    shifts = jnp.concatenate([padded[..., j : j + width] for j in range(window[1])], 1)
    met = [shifts[i : i + height].transpose(1, 0, 2, 3) for i in range(window[0])]
    pulled = cotangent.transpose(1, 0, 2, 3).reshape(-1, features)
    products = [part.reshape(len(part), -1) @ pulled for part in met]
    return jnp.stack(products).reshape(*window, images.shape[-1], features)


def _kernel_gradient_by_tiles(images, cotangent, padding):
    """The weight gradient of a 3×3 window by Winograd's F(3×3, 2×2), as 16 matrix products.

    Tiles of 4×4 pixels meet 2×2 of the cotangent, by one product for each place in a tile where
    the sum over all shifts multiplies 36 times (Lavin and Gray, Fast Algorithms for Convolutional
    Neural Networks, 2016).
    """
    fill = [(0, 0), *((0, n % 2) for n in cotangent.shape[1:3]), (0, 0)]
    padded = jnp.pad(images, [(0, 0), *((p, p) for p in padding), (0, 0)])
    met = _tiled(jnp.pad(padded, fill), 4, lambda a, b, c, d: (a - c, b + c, c - b, b - d))
    pulled = _tiled(jnp.pad(cotangent, fill), 2, lambda a, b: (a, a + b, a - b, -b))
    products = jnp.stack([each.T @ other for each, other in zip(met, pulled, strict=True)])
    products = products.reshape(4, 4, *products.shape[1:])
    half = np.array([[2, 1, 1, 0], [0, 1, -1, 0], [0, 1, 1, 2]], images.dtype) / 2
    return jnp.einsum("ai,bj,ijco->abco", half, half, products)


def _tiled(images, side, combine):
    """What `combine` makes of the pixels of tiles that begin at every second one.

    Along the height, then along the width: for each place `[n · tiles, c]`.
    """

    def along(axis, array):
        ends = array.shape[axis] - side + 1
        pixels = (jax.lax.slice_in_dim(array, i, i + ends, 2, axis) for i in range(side))
        return combine(*pixels)

    rows = along(1, images)
    return [place.reshape(-1, place.shape[-1]) for row in rows for place in along(2, row)]


def _kernel_gradient_by_convolution(images, cotangent, padding, window):
    shape = (*window, images.shape[-1], cotangent.shape[-1])
    zero = jnp.zeros_like(cotangent, images.dtype, shape)  # which varies like the cotangent
    return jax.vjp(lambda kernel: _convolve(images, kernel, padding), zero)[1](cotangent)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _kernel_gradient(images, cotangent, padding, window):
    static = dict(padding=padding, window=window)
    if images.shape[-1] < _FEW:
        product = functools.partial(_kernel_gradient_by_product, **static)
    elif window == (3, 3) and min(cotangent.shape[1:3]) > 3 and images.dtype.itemsize > 2:
        product = functools.partial(_kernel_gradient_by_tiles, padding=padding)
    else:
        product = functools.partial(_kernel_gradient_by_rows, **static)
    by_convolution = functools.partial(_kernel_gradient_by_convolution, **static)
    return jax.lax.platform_dependent(images, cotangent, cpu=product, default=by_convolution)


def _kernel_gradient_forward(images, cotangent, padding, window):
    return _kernel_gradient(images, cotangent, padding, window), (images, cotangent)


def _kernel_gradient_backward(padding, window, residuals, slope):
    """As a kernel, the slope meets the images and the cotangent as any other kernel does."""
    images, cotangent = residuals
    return _image_gradient(cotangent, slope, padding), conv2d(images, slope, padding)


_kernel_gradient.defvjp(_kernel_gradient_forward, _kernel_gradient_backward)


def _image_gradient(cotangent, kernel, padding):
    flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    full = tuple(k - 1 - p for k, p in zip(kernel.shape[:2], padding, strict=True))
    return conv2d(cotangent, flipped, full)


def conv2d(images: jax.Array, kernel: jax.Array, padding: tuple[int, int]) -> jax.Array:
    """Convolves with stride one, with gradients that stay fast inside compiled loops.

    XLA's CPU backend runs a kernel gradient (and, less badly, an image gradient) inside `lax.scan`
    with a naive loop: 3.3 s instead of 0.08 s for 256 images of 16×16×32 on two cores. So the image
    gradient is written as a convolution with the flipped kernel (everywhere; 44 ms instead of
    355 ms), and the kernel gradient on the CPU as matrix products, on other backends as XLA's own
    convolution. With few channels it is one product over `[window · i, n · h · w]` rows, which
    takes 1.4 ms for 32 images of 32×32×3 and 32 features; with a window of 3×3 Winograd's (2.1 ms
    for 32 images of 16×16×32 and 32 features, and 3.7 for 8 of 16×16×128 and 128); else one for
    each row of the window over images with their height first (4.6 and 6.4 ms there, and in place
    of Winograd's for images below 4×4 and numbers below 32 bits; all on one core). Its own
    gradients are again `conv2d`, which halves the time of a gradient of gradients at width 32.
    So is, on the CPU, a convolution whose window is larger than the image, as in the last layers of
    VGG11: XLA takes 376 ms for 32 images of 2×2×512, the product 8.6. The image gradient is again
    `conv2d`, so higher orders in reverse mode are fast too; forward mode (`jax.jvp`) is not
    defined.

    Args:
        images: `[n, h, w, i]`.
        kernel: `[kh, kw, i, o]`.
        padding: zeros added to the rows and columns on both sides, at most (kh − 1, kw − 1).

    Returns:
        `[n, h + 2·padding − kh + 1, w + 2·padding − kw + 1, o]`.
    """
    if _inside_shard_map():  # where a gradient must vary over the devices as its argument does
        images, kernel = (
            jnp.where(False, jax.lax.stop_gradient(other.ravel()[0]), one)
            for one, other in ((images, kernel), (kernel, images))
        )
    return _conv2d(images, kernel, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv2d(images, kernel, padding):
    return _convolve(images, kernel, padding)


def _conv2d_forward(images, kernel, padding):
    return _conv2d(images, kernel, padding), (images, kernel)


def _conv2d_backward(padding, residuals, cotangent):
    images, kernel = residuals
    kernel_gradient = _kernel_gradient(images, cotangent, padding, kernel.shape[:2])
    return _image_gradient(cotangent, kernel, padding), kernel_gradient


_conv2d.defvjp(_conv2d_forward, _conv2d_backward)


def uniform_fan_in(fan_in: int) -> Callable:
    """Initializer U(−1/√fan_in, 1/√fan_in), the reference code's for weights and biases."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


class Conv(nn.Module):
    """Convolution of stride one with bias; `padding` zeros on every side."""

    features: int
    window: int = 3
    padding: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Convolves `[n, h, w, i]` to `[n, h', w', features]`."""
        shape = (self.window, self.window, images.shape[-1], self.features)
        if min(images.shape[1:3]) + 2 * self.padding < self.window:
            raise ValueError(
                f"images of {images.shape[1]}×{images.shape[2]} pixels are too small for a "
                f"{self.window}×{self.window} convolution with padding {self.padding}"
            )
        initializer = uniform_fan_in(math.prod(shape[:3]))
        kernel = self.param("kernel", initializer, shape)
        bias = self.param("bias", initializer, (self.features,))
        images, kernel, bias = (x.astype(self.dtype) for x in (images, kernel, bias))
        return conv2d(images, kernel, (self.padding, self.padding)) + bias


class Dense(nn.Module):
    """Linear layer with bias."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps `[..., i]` to `[..., features]`."""
        initializer = uniform_fan_in(inputs.shape[-1])
        kernel = self.param("kernel", initializer, (inputs.shape[-1], self.features))
        bias = self.param("bias", initializer, (self.features,))
        inputs, kernel, bias = (x.astype(self.dtype) for x in (inputs, kernel, bias))
        return inputs @ kernel + bias


class InstanceNorm(nn.Module):
    """Normalises every channel of every image over its pixels, then scales and shifts it.

    Four times faster on the CPU than flax's `GroupNorm(group_size=1)` (128 ms against 461 ms for
    1280 images of 32×32×32); statistics are float32 whatever `dtype` is.

    Attributes:
        epsilon: added to the variance; 1e-5 as in torch, where flax has 1e-6.
        dtype: of the result.
    """

    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Returns the normalised images, `[n, h, w, c]`.

        Raises:
            ValueError: of one pixel nothing but the shift would be left.
        """
        if images.shape[1:3] == (1, 1):
            raise ValueError(
                "instance norm needs more than one pixel, found 1×1: the images are too small for "
                "so deep a network; take larger ones, fewer blocks, or batch norm"
            )
        channels = images.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        images = images.astype(jnp.float32)
        centred = images - images.mean((1, 2), keepdims=True)
        variance = jnp.square(centred).mean((1, 2), keepdims=True)
        # Factors of whole images first, so that each pixel is multiplied once.
        return (centred * (scale * jax.lax.rsqrt(variance + self.epsilon)) + bias).astype(
            self.dtype
        )


class BatchNorm(nn.Module):
    """Normalises every channel over all pixels of a batch, then scales and shifts it, as in torch.

    In `apply_in_training` by the mean and variance of the batch, which move the running ones towards them
    (the variance over n − 1); in `apply` by the running ones. No gradient reaches these. They move
    in `training`, `teachers` and `elf`, not in distillation, experts and `debiased`.

    Attributes:
        momentum: share of the old running statistics in the new ones.
        epsilon: added to the variance.
        dtype: of the result.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Returns the normalised images, `[n, h, w, c]`."""
        channels = images.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        running = [
            self.variable("batch_stats", name, start, channels)
            for name, start in (("mean", jnp.zeros), ("var", jnp.ones))
        ]
        images = images.astype(jnp.float32)
        mean, variance = (jax.lax.stop_gradient(each.value) for each in running)
        if self.is_mutable_collection("batch_stats") and not self.is_initializing():
            mean = images.mean((0, 1, 2))
            variance = jnp.square(images - mean).mean((0, 1, 2))
            count = images.size // channels[0]
            unbiased = variance * (count / max(count - 1, 1))
            for each, now in zip(running, (mean, unbiased), strict=True):
                each.value = self.momentum * each.value + (1 - self.momentum) * now
        normal = (images - mean) * jax.lax.rsqrt(variance + self.epsilon)
        return (normal * scale + bias).astype(self.dtype)


def _corners(images):
    """The four pixels of every 2×2 window, each `[n, h // 2, w // 2, c]`, without an odd last row.

    Slices and not a reduction over windows, because bfloat16 reductions that jaxlib 0.12 fuses
    behind a convolution on the CPU return unwritten memory.
    """
    n, height, width, channels = images.shape
    images = images[:, : height // 2 * 2, : width // 2 * 2]
    windows = images.reshape(n, height // 2, 2, width // 2, 2, channels)
    return [windows[:, :, i, :, j] for i in (0, 1) for j in (0, 1)]


def average_pool(images: jax.Array) -> jax.Array:
    """Halves `[n, h, w, c]` by the mean of 2×2 windows; a side of one pixel is left alone."""
    if min(images.shape[1:3]) < 2:
        return images
    corners = _corners(images.astype(jnp.float32))
    return (functools.reduce(jnp.add, corners) / 4).astype(images.dtype)


def max_pool(images: jax.Array) -> jax.Array:
    """Halves `[n, h, w, c]` by the maximum of 2×2 windows; a side of one pixel is left alone."""
    return images if min(images.shape[1:3]) < 2 else functools.reduce(jnp.maximum, _corners(images))


def no_pool(images: jax.Array) -> jax.Array:
    """Leaves the images as they are."""
    return images


def check_module(module: nn.Module, images: jax.Array) -> None:
    """Refuses images that are none, and fields of a network that it cannot be made of.

    Args:
        module: a network of this kind, with `num_classes`, `dtype` and maybe others of its fields.
        images: what it was given.

    Raises:
        ValueError: images that are not `[n, h, w, c]` or empty; a size that is no positive integer.
        TypeError: images or a `dtype` that are not floating; a layer that cannot be called.
    """
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"images must be [n, h, w, c] and not empty, found {images.shape}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"images must be floating, as sampling.normalise makes them, found {images.dtype}"
        )
    for name, least in (("num_classes", 1), ("width", 1), ("blocks", 1), ("depth", 0)):
        found = getattr(module, name, least)
        if not isinstance(found, numbers.Integral) or found < least:
            raise ValueError(f"{name} must be an integer of at least {least}, found {found!r}")
    for name in ("norm", "activation", "pool"):
        found = getattr(module, name, None)
        if found is not None and not callable(found):
            raise TypeError(f"{name} must be a function or a class of modules, found {found!r}")
    if not jnp.issubdtype(module.dtype, jnp.floating):
        raise TypeError(f"dtype must be floating, found {module.dtype}")


def classify(module: nn.Module, images: jax.Array) -> Output:
    """Flattens images `[n, ...]` to features and adds the linear head of `module`, in its setup."""
    features = images.reshape(images.shape[0], -1)
    logits = Dense(module.num_classes, dtype=module.dtype, name="classifier")(features)
    return Output(features.astype(jnp.float32), logits.astype(jnp.float32))


def _is_asked(i, start, stop):
    """Whether part i is applied. All are made all the same: Flax counts them to name them."""
    return start <= i and (stop is None or i < stop)


class ConvNet(nn.Module):
    """Blocks of 3×3 convolution, norm, activation and 2×2 pooling, then a linear head.

    The default is the literature's ConvNet-3: width 128, instance norm with learned affine,
    ReLU, average pooling; 2,048 features for 32×32 images.

    Attributes:
        num_classes: number of logits.
        width: channels of every block.
        depth: number of blocks; images are halved that many times.
        norm: factory of a flax normalisation module, or None.
        activation: elementwise function.
        pool: function from `[n, h, w, c]` to the pooled images.
        dtype: of the computation; parameters, features and logits stay float32.
    """

    num_classes: int
    width: int = 128
    depth: int = 3
    norm: Module | None = InstanceNorm
    activation: Callable = nn.relu
    pool: Callable = average_pool
    dtype: Any = jnp.float32

    @property
    def parts(self) -> int:
        """The blocks."""
        return self.depth

    @nn.compact
    def __call__(self, images: jax.Array, *, start: int = 0, stop: int | None = None) -> Any:
        """Returns the features and logits of images `[n, h, w, c]`, or see `parts`."""
        check_module(self, images)
        for i in range(self.depth):
            conv = Conv(self.width, dtype=self.dtype)
            norm = no_pool if self.norm is None else self.norm(dtype=self.dtype)
            if _is_asked(i, start, stop):
                images = self.pool(self.activation(norm(conv(images))))
        return classify(self, images) if stop is None else images


class MLP(nn.Module):
    """Two hidden layers of `width` units on the flattened pixels."""

    num_classes: int
    width: int = 128
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> Output:
        """Returns the features and logits of images `[n, h, w, c]`."""
        check_module(self, images)
        hidden = images.reshape(images.shape[0], -1)
        for _ in range(2):
            hidden = nn.relu(Dense(self.width, dtype=self.dtype)(hidden))
        return classify(self, hidden)


class LeNet(nn.Module):
    """LeCun's network with ReLU and max pooling, as the distillation literature uses it."""

    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> Output:
        """Returns the features and logits of images `[n, h, w, c]`."""
        check_module(self, images)
        for features in (6, 16):
            images = max_pool(nn.relu(Conv(features, 5, 0, dtype=self.dtype)(images)))
        hidden = images.reshape(images.shape[0], -1)
        for width in (120, 84):
            hidden = nn.relu(Dense(width, dtype=self.dtype)(hidden))
        return classify(self, hidden)


class AlexNet(nn.Module):
    """The reference code's five-convolution AlexNet for small images, max pooling, no norm."""

    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> Output:
        """Returns the features and logits of images `[n, h, w, c]`."""
        check_module(self, images)
        layers = ((128, 5, True), (192, 5, True), (256, 3, False), (192, 3, False), (192, 3, True))
        for features, window, pooled in layers:
            images = nn.relu(Conv(features, window, window // 2, dtype=self.dtype)(images))
            images = max_pool(images) if pooled else images
        return classify(self, images)


class VGG11(nn.Module):
    """VGG with eight convolutions and five poolings (Simonyan & Zisserman), one linear head."""

    num_classes: int
    norm: Module = InstanceNorm
    pool: Callable = average_pool
    stages: Sequence[Sequence[int]] = ((64,), (128,), (256, 256), (512, 512), (512, 512))
    dtype: Any = jnp.float32

    @property
    def parts(self) -> int:
        """The convolutions; a pooling belongs to the one before."""
        return sum(map(len, self.stages))

    @nn.compact
    def __call__(self, images: jax.Array, *, start: int = 0, stop: int | None = None) -> Any:
        """Returns the features and logits of images `[n, h, w, c]`, or see `parts`."""
        check_module(self, images)
        last = set(itertools.accumulate(map(len, self.stages)))
        for i, features in enumerate(itertools.chain(*self.stages)):
            conv, norm = Conv(features, dtype=self.dtype), self.norm(dtype=self.dtype)
            if _is_asked(i, start, stop):
                images = nn.relu(norm(conv(images)))
                images = self.pool(images) if i + 1 in last else images
        return classify(self, images) if stop is None else images


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut; `halve` pools in place of a stride."""

    features: int
    halve: bool
    norm: Module = InstanceNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps `[n, h, w, i]` to `[n, h, w, features]`, or to half of the sides."""
        pool = average_pool if self.halve else no_pool
        hidden = Conv(self.features, dtype=self.dtype)(images)
        hidden = pool(nn.relu(self.norm(dtype=self.dtype)(hidden)))
        hidden = self.norm(dtype=self.dtype)(Conv(self.features, dtype=self.dtype)(hidden))
        if self.halve or images.shape[-1] != self.features:
            images = pool(Conv(self.features, 1, 0, dtype=self.dtype)(images))
            images = self.norm(dtype=self.dtype)(images)
        return nn.relu(hidden + images)


class ResNet18(nn.Module):
    """ResNet-18 for small images (He et al.), instance norm, average pooling for strides."""

    num_classes: int
    norm: Module = InstanceNorm
    widths: Sequence[int] = (64, 128, 256, 512)
    dtype: Any = jnp.float32

    @property
    def parts(self) -> int:
        """The first convolution, of 3×3 without pooling, and two blocks for each width."""
        return 1 + 2 * len(self.widths)

    @nn.compact
    def __call__(self, images: jax.Array, *, start: int = 0, stop: int | None = None) -> Any:
        """Returns the features and logits of images `[n, h, w, c]`, or see `parts`."""
        check_module(self, images)
        conv, norm = Conv(self.widths[0], dtype=self.dtype), self.norm(dtype=self.dtype)
        if _is_asked(0, start, stop):
            images = nn.relu(norm(conv(images)))
        for i, features in enumerate(width for width in self.widths for _ in range(2)):
            halve = i > 1 and i % 2 == 0
            block = ResidualBlock(features, halve, self.norm, dtype=self.dtype)
            if _is_asked(1 + i, start, stop):
                images = block(images)
        return classify(self, images.mean((1, 2))) if stop is None else images


NETWORKS = {
    "convnet": ConvNet,
    "mlp": MLP,
    "lenet": LeNet,
    "alexnet": AlexNet,
    "vgg11": VGG11,
    "resnet18": ResNet18,
}
