"""Distribution matching: real and synthetic features of random networks are compared."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import optax

from jaxdd import _checks, augment, networks
from jaxdd.devices import microbatch
from jaxdd.matching import distribution
from jaxdd.methods.protocol import Decode, Method, check_images, descend, identity


class State(NamedTuple):
    """Synthetic images `[k, ipc, h, w, c]`, normalised and never clipped; the optimizer's state."""

    images: jax.Array
    optimizer: optax.OptState


def feature_matching(
    network: networks.Network,
    optimizer: optax.GradientTransformation,
    *,
    loss: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] = distribution,
    strategy: augment.Strategy = augment.OPERATIONS,
    decode: Decode = identity,
    groups: int = 1,
    cache: int | None = None,
) -> Method:
    """Matches real and synthetic features of random networks along any loss.

    Every step draws a fresh random network, shared by all classes, and one augmentation for each
    class, shared by its real and synthetic images, and descends the loss of the flattened features.
    The real side carries no gradient.

    Args:
        network: a `networks.Network`.
        optimizer: acts on the images `[k, ipc, h, w, c]`; the reference of distribution matching
            uses SGD with learning rate 1 (10 from IPC 100 on) and momentum 0.5.
        loss: of real features `[k, b, d]`, synthetic ones `[k, m, d]` and the real samples' weights
            `[k, b]`, whose rows sum to one; a scalar.
        strategy: of augmentation; () for none.
        decode: from the images of the state to those the network sees, `[k, m, h, w, c]`, for
            example `formation.split`.
        groups: number of groups that a class's batch consists of, see `sampling.grouped`. They
            count as classes of their own, which share the class's synthetic features; a group without
            weight has weights of zero.
        cache: bytes of micro-batches on the CPU, as in `microbatch.apply`.

    Raises:
        TypeError: for a strategy that is a string.
        ValueError: for an unknown operation in it, or less than one group.

    >>> from jaxdd import networks
    >>> def means_and_variances(real, synthetic, weights):
    ...     target = (weights[..., None] * real).sum(1)
    ...     spread = (weights[..., None] * real**2).sum(1) - target**2
    ...     distance = jnp.sum((target - synthetic.mean(1)) ** 2)
    ...     return distance + jnp.sum((spread - synthetic.var(1)) ** 2)
    >>> network = networks.ConvNet(num_classes=3, width=8)
    >>> method = feature_matching(network, optax.sgd(1.0, 0.5), loss=means_and_variances)
    """
    strategy, groups = augment.as_strategy(strategy), _checks.count("groups", groups)

    def init(images):
        check_images(images)
        return State(images, optimizer.init(images))

    def features(params, images):
        # Samples before classes: split over devices, the samples of all classes are one axis still.
        k, b = images.shape[:2]
        flat = images.swapaxes(0, 1).reshape(b * k, *images.shape[2:])
        found = microbatch.apply(
            lambda images: networks.outputs(network, params, images).features,
            flat,
            activation_bytes=cache,
        )
        return found.reshape(b, k, -1).swapaxes(0, 1)

    def step(key, state, batch):
        key_network, key_augment = jax.random.split(key)
        params = networks.init_params(key_network, network, state.images[0, :1])
        keys = jax.random.split(key_augment, len(state.images))
        transform = functools.partial(_siamese, keys, strategy)
        real = features(params, transform(batch.images))
        real = real.reshape(len(real) * groups, -1, real.shape[-1])
        weights = batch.weights.reshape(len(real), -1)

        def objective(images):
            synthetic = features(params, transform(decode(images)))
            return loss(real, synthetic.repeat(groups, axis=0), weights)

        value, gradient = jax.value_and_grad(objective)(state.images)
        return State(*descend(optimizer, gradient, state.optimizer, state.images)), {"loss": value}

    return Method(init, step)


def distribution_matching(
    network: networks.Network,
    optimizer: optax.GradientTransformation,
    *,
    strategy: augment.Strategy = augment.OPERATIONS,
    decode: Decode = identity,
    groups: int = 1,
    cache: int | None = None,
) -> Method:
    """Distribution matching (DM; Zhao & Bilen, WACV 2023) with weighted real means.

    It is `feature_matching` along `matching.distribution`. With `groups` the loss is a sum over
    groups as well: FairDD (Zhou et al., 2025). For this squared distance its gradient is that of the groups'
    barycentre, which `reweight.oracle` weights give, times the number of groups in the batch.

    Args:
        network: as in `feature_matching`.
        optimizer: as in `feature_matching`.
        strategy: as in `feature_matching`.
        decode: as in `feature_matching`.
        groups: as in `feature_matching`.
        cache: as in `feature_matching`.

    Raises:
        TypeError: as in `feature_matching`.
        ValueError: as in `feature_matching`.
    """
    return feature_matching(
        network, optimizer, strategy=strategy, decode=decode, groups=groups, cache=cache
    )


def _siamese(keys, strategy, images):
    """Augments `[k, b, h, w, c]`, one draw for each class."""
    one = lambda key, batch: augment.siamese(key, batch, strategy=strategy)[0]
    return jax.vmap(one)(keys, images)
