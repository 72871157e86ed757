"""A deep and a shallow network that share a linear head, and the predictions of the deep one.

This is a product of experts: the features of both are added before one head, so each learns what
the other has not learned. On corrupted photographs the deep branch learns the bias and the shallow
one the object, so out-of-fold predictions of the deep branch show the bias attribute (Sreelatha et
al., "DeNetDM: Debiasing by Network Depth Modulation", NeurIPS 2024). Meant for a GPU, see
`experiments.detectors`.

>>> import jax, jax.numpy as jnp
>>> network, images = TwoDepths(10, width=4, blocks=1), jnp.zeros((2, 16, 16, 3))
>>> params = network.init(jax.random.key(0), images)
>>> network.clone(alone=True).apply(params, images).features.shape
(2, 16)
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxdd import networks

OPTIMIZER = optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(1e-2, momentum=0.9))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut; `halve` pools instead of using a stride."""

    features: int
    halve: bool
    norm: networks.Module
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map `[n, h, w, i]` to `[n, h, w, features]`, or to half the sides."""
        pool = networks.average_pool if self.halve else lambda images: images
        hidden = networks.Conv(self.features, dtype=self.dtype)(images)
        hidden = pool(nn.relu(self.norm(dtype=self.dtype)(hidden)))
        hidden = networks.Conv(self.features, dtype=self.dtype)(hidden)
        hidden = self.norm(dtype=self.dtype)(hidden)
        if self.halve or images.shape[-1] != self.features:
            images = pool(networks.Conv(self.features, 1, 0, dtype=self.dtype)(images))
            images = self.norm(dtype=self.dtype)(images)
        return nn.relu(hidden + images)


class TwoDepths(nn.Module):
    """A ResNet and three 5×5 convolutions, whose features are added before a linear head.

    Attributes:
        num_classes: number of logits.
        width: channels of the first of three stages; each next stage has twice as many.
        blocks: residual blocks of each stage of the deep branch; 3 make a ResNet-20.
        alone: whether only the deep branch reaches the head, with the same parameters.
        norm: factory of a normalisation module.
        dtype: dtype of the computation; parameters, features and logits stay float32.
    """

    num_classes: int
    width: int = 16
    blocks: int = 3
    alone: bool = False
    norm: networks.Module = networks.BatchNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> networks.Output:
        """Return the features `[n, 4 · width]` and logits of images `[n, h, w, c]`."""
        networks.check_module(self, images)
        deep, shallow = self._deep(images), self._shallow(images)  # both have parameters anyway
        return networks.classify(self, deep if self.alone else deep + shallow)

    def _deep(self, images):
        images = networks.Conv(self.width, dtype=self.dtype)(images)
        images = nn.relu(self.norm(dtype=self.dtype)(images))
        for stage in range(3):
            for block in range(self.blocks):
                features, halve = self.width * 2**stage, stage > 0 and block == 0
                layer = ResidualBlock(features, halve, self.norm, dtype=self.dtype)
                images = layer(images)
        return images.mean((1, 2))

    def _shallow(self, images):
        for factor in (2, 4, 4):
            images = networks.Conv(self.width * factor, 5, 2, dtype=self.dtype)(images)
            images = networks.max_pool(nn.relu(self.norm(dtype=self.dtype)(images)))
        return images.mean((1, 2))
