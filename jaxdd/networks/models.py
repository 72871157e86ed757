"""Networks of the distillation literature, from images `[n, h, w, c]` to features and logits."""

import functools
import itertools
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdd.networks.layers import Conv, Dense, InstanceNorm, average_pool, max_pool, no_pool
from jaxdd.networks.protocol import Output

Module = Callable[..., Any]
"""A class of Flax modules, or a function that makes them."""


def check_module(module: nn.Module, images: jax.Array) -> None:
    """Check the input of a network, and the sizes that its class declares.

    Args:
        module: a network with `num_classes` and `dtype`.
        images: its input.
    """
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"Expected images of shape [n, h, w, c], not empty; got {images.shape}.")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"Images must be floating, got {images.dtype}; use sampling.normalise on uint8 images."
        )
    for name, minimum in (("num_classes", 1), ("width", 1), ("blocks", 1), ("depth", 0)):
        size = getattr(module, name, minimum)
        if not isinstance(size, numbers.Integral) or size < minimum:
            raise ValueError(f"{name} must be an integer of at least {minimum}, got {size!r}.")
    if not jnp.issubdtype(module.dtype, jnp.floating):
        raise TypeError(f"dtype must be floating, got {module.dtype}.")


def classify(module: nn.Module, images: jax.Array) -> Output:
    """Flatten images `[n, ...]` to features and apply the linear head of `module`."""
    features = images.reshape(images.shape[0], -1)
    logits = Dense(module.num_classes, dtype=module.dtype, name="classifier")(features)
    return Output(features.astype(jnp.float32), logits.astype(jnp.float32))


def max_blocks(shape: Sequence[int], *, limit: int = 3) -> int:
    """Return how many times the sides of images `[..., h, w, c]` can be halved, at most `limit`.

    >>> max_blocks((60_000, 28, 28, 1)), max_blocks((100, 4, 6, 3))
    (3, 2)
    """
    return min(limit, min(shape[1:3]).bit_length() - 1)


# Networks with `start` and `stop` create the layers of all parts and apply only those in between.
# Flax numbers layers in the order of creation, and their names must not depend on the bounds.


def _in_bounds(i, start, stop):
    return start <= i and (stop is None or i < stop)


class ConvNet(nn.Module):
    """Blocks of 3×3 convolution, norm, activation and 2×2 pooling, then a linear head.

    The default is the literature's ConvNet-3: width 128, instance norm with learned scale and
    shift, ReLU, average pooling; 2,048 features for 32×32 images.

    Attributes:
        num_classes: number of logits.
        width: channels of every block.
        depth: number of blocks; each halves the sides of the images.
        norm: factory of a Flax normalisation module, or None.
        activation: elementwise function.
        pool: function from `[n, h, w, c]` to the pooled images.
        dtype: dtype of the computation; parameters, features and logits are float32.
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
        """Number of parts: one per block."""
        return self.depth

    @nn.compact
    def __call__(self, images: jax.Array, *, start: int = 0, stop: int | None = None) -> Any:
        """Return features and logits of `[n, h, w, c]`; with bounds, see `count_parts`."""
        check_module(self, images)
        for i in range(self.depth):
            conv = Conv(self.width, dtype=self.dtype)
            norm = no_pool if self.norm is None else self.norm(dtype=self.dtype)
            if _in_bounds(i, start, stop):
                images = self.pool(self.activation(norm(conv(images))))
        return classify(self, images) if stop is None else images


class MLP(nn.Module):
    """Two hidden layers of `width` units on the flattened pixels."""

    num_classes: int
    width: int = 128
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> Output:
        """Return features and logits of images `[n, h, w, c]`."""
        check_module(self, images)
        hidden = images.reshape(images.shape[0], -1)
        for _ in range(2):
            hidden = nn.relu(Dense(self.width, dtype=self.dtype)(hidden))
        return classify(self, hidden)


class LeNet(nn.Module):
    """LeNet with ReLU and max pooling, as the distillation literature uses it."""

    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> Output:
        """Return features and logits of images `[n, h, w, c]`."""
        check_module(self, images)
        for features in (6, 16):
            images = max_pool(nn.relu(Conv(features, 5, 0, dtype=self.dtype)(images)))
        hidden = images.reshape(images.shape[0], -1)
        for width in (120, 84):
            hidden = nn.relu(Dense(width, dtype=self.dtype)(hidden))
        return classify(self, hidden)


class AlexNet(nn.Module):
    """The literature's AlexNet for small images: five convolutions, max pooling, no norm."""

    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> Output:
        """Return features and logits of images `[n, h, w, c]`."""
        check_module(self, images)
        layers = ((128, 5, True), (192, 5, True), (256, 3, False), (192, 3, False), (192, 3, True))
        for features, window, pooled in layers:
            images = nn.relu(Conv(features, window, window // 2, dtype=self.dtype)(images))
            images = max_pool(images) if pooled else images
        return classify(self, images)


class VGG11(nn.Module):
    """VGG with eight convolutions, five max poolings (Simonyan and Zisserman) and a linear head."""

    num_classes: int
    norm: Module = InstanceNorm
    stages: Sequence[Sequence[int]] = ((64,), (128,), (256, 256), (512, 512), (512, 512))
    dtype: Any = jnp.float32

    @property
    def parts(self) -> int:
        """Number of parts: one per convolution, with the pooling that follows it."""
        return sum(map(len, self.stages))

    @nn.compact
    def __call__(self, images: jax.Array, *, start: int = 0, stop: int | None = None) -> Any:
        """Return features and logits of `[n, h, w, c]`; with bounds, see `count_parts`."""
        check_module(self, images)
        stage_ends = set(itertools.accumulate(map(len, self.stages)))
        for i, features in enumerate(itertools.chain(*self.stages)):
            conv, norm = Conv(features, dtype=self.dtype), self.norm(dtype=self.dtype)
            if _in_bounds(i, start, stop):
                images = nn.relu(norm(conv(images)))
                images = max_pool(images) if i + 1 in stage_ends else images
        return classify(self, images) if stop is None else images


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut; `halve` gives the first one a stride of two."""

    features: int
    halve: bool
    norm: Module = InstanceNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map `[n, h, w, i]` to `[n, h, w, features]`, or to half the sides."""
        # Every second row and column of a convolution of stride one is one of stride two. On a CPU
        # this is ten times as fast as XLA's gradient of a strided convolution.
        convolve = functools.partial(Conv, self.features, use_bias=False, dtype=self.dtype)
        skip = (lambda x: x[:, ::2, ::2]) if self.halve else no_pool
        hidden = nn.relu(self.norm(dtype=self.dtype)(skip(convolve()(images))))
        hidden = self.norm(dtype=self.dtype)(convolve()(hidden))
        if self.halve or images.shape[-1] != self.features:
            images = convolve(window=1, padding=0)(skip(images))
            images = self.norm(dtype=self.dtype)(images)
        return nn.relu(hidden + images)


class ResNet18(nn.Module):
    """ResNet-18 for small images (He et al.): no pooling at the start, a mean over all pixels."""

    num_classes: int
    norm: Module = InstanceNorm
    widths: Sequence[int] = (64, 128, 256, 512)
    dtype: Any = jnp.float32

    @property
    def parts(self) -> int:
        """Number of parts: the first convolution, and two blocks per width."""
        return 1 + 2 * len(self.widths)

    @nn.compact
    def __call__(self, images: jax.Array, *, start: int = 0, stop: int | None = None) -> Any:
        """Return features and logits of `[n, h, w, c]`; with bounds, see `count_parts`."""
        check_module(self, images)
        conv = Conv(self.widths[0], use_bias=False, dtype=self.dtype)
        norm = self.norm(dtype=self.dtype)
        if _in_bounds(0, start, stop):
            images = nn.relu(norm(conv(images)))
        for i, features in enumerate(width for width in self.widths for _ in range(2)):
            halve = i > 1 and i % 2 == 0
            block = ResidualBlock(features, halve, self.norm, dtype=self.dtype)
            if _in_bounds(1 + i, start, stop):
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
"""Networks by the name that options and commands use."""
