"""Convolution of stride one with gradients that are also fast on CPUs.

A distillation step takes gradients through convolutions inside `lax.scan`. There XLA's CPU backend
computes the gradient in the kernel with a naive loop: 3.3 s instead of 0.08 s for 256 images of
16×16×32 on two cores. It also computes the gradient in the images slowly (355 ms instead of 44 ms).
So `conv2d` defines its own derivatives:

* gradient in the images: again a convolution, of the cotangent with the flipped kernel;
* gradient in the kernel: on a CPU one of three sums of matrix products, chosen by shape in
  `_kernel_gradient`; on other devices XLA's own convolution.

Both derivatives are built from `conv2d` and `_kernel_gradient`, so that second derivatives are fast
as well, which halves the time of gradient matching at width 32. Forward mode (`jax.jvp`) is not
defined. Times in this file are for one CPU core unless stated otherwise.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxdd import _axes

# Below this number of input channels one product over all shifts is faster than several.
_FEW_CHANNELS = 16

# Whether a CPU convolution needs an even number of channels to be fast. With JAX 0.10, 128 images
# of 28×28×3 and 32 features take 6.3 ms, and 1.8 ms with a fourth channel of zeros.
_PAD_ODD_CHANNELS = jax.__version_info__ < (0, 12)


def conv2d(images: jax.Array, kernel: jax.Array, padding: tuple[int, int]) -> jax.Array:
    """Convolve images with stride one.

    Args:
        images: `[n, h, w, i]`.
        kernel: `[kh, kw, i, o]`.
        padding: zeros added to the rows and columns on both sides, at most (kh − 1, kw − 1).

    Returns:
        `[n, h + 2·padding − kh + 1, w + 2·padding − kw + 1, o]`.
    """
    # Inside shard_map a custom gradient must vary over the devices exactly as its argument does.
    others = jax.lax.stop_gradient((images, kernel))
    images, kernel = _axes.match(images, others[1]), _axes.match(kernel, others[0])
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


# --- forward -------------------------------------------------------------------------------------


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
    elif _PAD_ODD_CHANNELS and channels > 1 and channels % 2:
        on_cpu = functools.partial(_convolve_with_even_channels, direct)
    else:
        return direct(images, kernel)
    return jax.lax.platform_dependent(images, kernel, cpu=on_cpu, default=direct)


def _convolve_with_even_channels(direct, images, kernel):
    images = jnp.pad(images, [(0, 0), (0, 0), (0, 0), (0, 1)])
    return direct(images, jnp.pad(kernel, [(0, 0), (0, 0), (0, 1), (0, 0)]))


def _convolve_by_product(images, kernel, padding):
    # One matrix product [pixels, window · i] @ [window · i, o]. It wins where the window is larger
    # than the image, as in the last layers of VGG11: 32 images of 2×2×512 take 8.6 ms, XLA's
    # convolution takes 376 ms.
    shifts = _shifts(images, padding, kernel.shape[:2])
    return jnp.concatenate(shifts, -1) @ kernel.reshape(-1, kernel.shape[-1])


def _shifts(images, padding, window):
    """Return, for each place (a, b) of the window, the pixels `[n, h', w', i]` it multiplies."""
    padded = jnp.pad(images, ((0, 0), *((p, p) for p in padding), (0, 0)))
    height, width = (n - k + 1 for n, k in zip(padded.shape[1:3], window, strict=True))
    return [
        padded[:, a : a + height, b : b + width] for a in range(window[0]) for b in range(window[1])
    ]


def _image_gradient(cotangent, kernel, padding):
    flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    full = tuple(k - 1 - p for k, p in zip(kernel.shape[:2], padding, strict=True))
    return conv2d(cotangent, flipped, full)


# --- gradient in the kernel ----------------------------------------------------------------------
#
# With X the padded images and C the cotangent, the gradient at place (a, b) of the window is
#
#     G[a, b] = Σ_{n, y, x} X[n, y + a, x + b]ᵀ C[n, y, x]     (an [i, o] matrix)
#
# The functions below compute the same G and differ in how many copies of X they make, how long
# the matrix products are, and how many multiplications they need.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _kernel_gradient(images, cotangent, padding, window):
    static = dict(padding=padding, window=window)
    if images.shape[-1] < _FEW_CHANNELS:
        on_cpu = functools.partial(_kernel_gradient_by_product, **static)
    elif window == (3, 3) and min(cotangent.shape[1:3]) > 3 and images.dtype.itemsize > 2:
        on_cpu = functools.partial(_kernel_gradient_by_winograd, padding=padding)
    else:
        on_cpu = functools.partial(_kernel_gradient_by_window_rows, **static)
    by_convolution = functools.partial(_kernel_gradient_by_convolution, **static)
    return jax.lax.platform_dependent(images, cotangent, cpu=on_cpu, default=by_convolution)


def _kernel_gradient_forward(images, cotangent, padding, window):
    return _kernel_gradient(images, cotangent, padding, window), (images, cotangent)


def _kernel_gradient_backward(padding, window, residuals, slope):
    # G is bilinear in images and cotangent, and ⟨slope, G⟩ = ⟨conv2d(images, slope), cotangent⟩:
    # the slope acts as a kernel.
    images, cotangent = residuals
    return _image_gradient(cotangent, slope, padding), conv2d(images, slope, padding)


_kernel_gradient.defvjp(_kernel_gradient_forward, _kernel_gradient_backward)


def _kernel_gradient_by_convolution(images, cotangent, padding, window):
    """Compute the kernel gradient as XLA does, by a convolution."""
    shape = (*window, images.shape[-1], cotangent.shape[-1])
    kernel = jnp.zeros_like(cotangent, images.dtype, shape)  # varies over devices like cotangent
    return jax.vjp(lambda kernel: _convolve(images, kernel, padding), kernel)[1](cotangent)[0]


def _kernel_gradient_by_product(images, cotangent, padding, window):
    """Compute the kernel gradient as one matrix product, for few channels."""
    # All window · i shifted channels become rows over all pixels, [window · i, n · h · w], which
    # are multiplied by the cotangent [n · h · w, o] in one product. It copies X once per place of
    # the window, which is cheap for few channels: 1.4 ms for 32 images of 32×32×3 and 32 features.
    # Transposing first is worth its cost, because the product then sums over the contiguous axis.
    shifts = [shift.transpose(3, 0, 1, 2) for shift in _shifts(images, padding, window)]
    rows = jnp.stack(shifts).reshape(math.prod(window) * images.shape[-1], -1)
    product = rows @ cotangent.reshape(-1, cotangent.shape[-1])
    return product.reshape(*window, images.shape[-1], cotangent.shape[-1])


def _kernel_gradient_by_window_rows(images, cotangent, padding, window):
    """Compute the kernel gradient as one matrix product per row of the window."""
    # With the height of the images first, window row a needs the contiguous block a : a + h of X,
    # so only the shifts along the width are copied. 32 images of 16×16×32 and 32 features take
    # 4.6 ms, 8 of 16×16×128 and 128 take 6.4 ms. It is used where the Winograd form is not: for
    # windows other than 3×3, images below 4×4, and bfloat16, whose rounding errors Winograd's sums
    # would amplify.
    height, width, features = cotangent.shape[1:]
    padded = jnp.pad(images, ((0, 0), *((p, p) for p in padding), (0, 0))).transpose(1, 3, 0, 2)
    shifts = jnp.concatenate([padded[..., b : b + width] for b in range(window[1])], 1)
    blocks = [shifts[a : a + height].transpose(1, 0, 2, 3) for a in range(window[0])]
    columns = cotangent.transpose(1, 0, 2, 3).reshape(-1, features)
    products = [block.reshape(len(block), -1) @ columns for block in blocks]
    return jnp.stack(products).reshape(*window, images.shape[-1], features)


def _kernel_gradient_by_winograd(images, cotangent, padding):
    """Compute the gradient of a 3×3 kernel by Winograd's F(3×3, 2×2)."""
    # The images are cut into overlapping 4×4 tiles, the cotangent into 2×2 tiles. In one dimension,
    # a tile (a, b, c, d) and cotangents (g, h) contribute (a g + b h, b g + c h, c g + d h) to the
    # three places of the window: six products. Winograd's identities need four,
    #
    #     m₀ = (a − c) g    m₁ = (b + c)(g + h)    m₂ = (c − b)(g − h)    m₃ = (b − d)(−h)
    #     a g + b h = m₀ + (m₁ + m₂) / 2
    #     b g + c h = (m₁ − m₂) / 2
    #     c g + d h = (m₁ + m₂) / 2 + m₃
    #
    # and in two dimensions 16 where the plain sum needs 36. The last step is linear, so it is
    # applied once, to the sums over all tiles: 16 products [i, tiles] @ [tiles, o]. It takes 2.1 ms
    # for 32 images of 16×16×32 and 32 features, and 3.7 ms for 8 of 16×16×128 and 128.
    # Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016).
    to_even = [(0, 0), *((0, n % 2) for n in cotangent.shape[1:3]), (0, 0)]
    padded = jnp.pad(images, [(0, 0), *((p, p) for p in padding), (0, 0)])
    pixels = _tiles(jnp.pad(padded, to_even), 4, lambda a, b, c, d: (a - c, b + c, c - b, b - d))
    slopes = _tiles(jnp.pad(cotangent, to_even), 2, lambda g, h: (g, g + h, g - h, -h))
    products = jnp.stack([x.T @ slope for x, slope in zip(pixels, slopes, strict=True)])
    products = products.reshape(4, 4, *products.shape[1:])
    output = np.array([[2, 1, 1, 0], [0, 1, -1, 0], [0, 1, 1, 2]], images.dtype) / 2
    return jnp.einsum("ai,bj,ijco->abco", output, output, products)


def _tiles(images, side, transform):
    """Cut images into tiles with a stride of two pixels, and transform both sides of the tiles.

    Returns:
        16 arrays `[n · tiles, c]`, one for each place in the transformed tile.
    """

    def along(axis, array):
        stop = array.shape[axis] - side + 1
        pixels = (jax.lax.slice_in_dim(array, i, i + stop, 2, axis) for i in range(side))
        return transform(*pixels)

    rows = along(1, images)
    return [place.reshape(-1, place.shape[-1]) for row in rows for place in along(2, row)]
