"""Gradient matching (DC and DSA): real and synthetic images cause similar gradients.

Sources: Zhao, Mopuri and Bilen, "Dataset Condensation with Gradient Matching" (ICLR 2021), DC; Zhao
and Bilen, "Dataset Condensation with Differentiable Siamese Augmentation" (ICML 2021), DSA.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdd import _axes, _checks, augment, networks, sampling, training
from jaxdd.matching import cosine_rows
from jaxdd.methods.protocol import Decode, Method, check_images, identity


class GradientState(NamedTuple):
    """State of gradient matching.

    Attributes:
        images: synthetic images `[k, ipc, h, w, c]`, normalised and never clipped.
        optimizer: state of the images' optimizer.
        params: parameters of the network that is trained on the synthetic set.
        count: steps done, scalar.
    """

    images: jax.Array
    optimizer: optax.OptState
    params: Any
    count: jax.Array


def gradient_matching(
    network: networks.Network,
    optimizer: optax.GradientTransformation,
    *,
    outer: int,
    inner: int,
    distance: Callable[[Any, Any], jax.Array] = cosine_rows,
    strategy: augment.Strategy = (),
    network_optimizer: optax.GradientTransformation | None = None,
    batch_size: int = 256,
    decode: Decode = identity,
    groups: int = 1,
) -> Method:
    """Return gradient matching with weighted real gradients: DC, or DSA with augmentation.

    A step compares, class by class, the gradient of the weighted cross-entropy of the real batch
    with that of the synthetic images. It updates the images by the gradient of the summed
    distances, then trains the network for `inner` epochs on the synthetic set.

    Args:
        network: a `networks.Network`.
        optimizer: optimizer of the images; the reference uses SGD with rate 0.1 and momentum 0.5.
        outer: steps before the network is re-initialised.
        inner: network epochs between two matching steps.
        distance: between two gradients: `matching.cosine_rows`, `squared` or `cosine`.
        strategy: augmentation; one draw per class, shared by real and synthetic images. () for DC.
        network_optimizer: optimizer of the network; SGD with rate 0.01 by default.
        batch_size: batch size of the network's training.
        decode: map from stored images to those the network sees, such as `formation.split`.
        groups: bias groups in a class's batch, see `sampling.grouped`. The distance is summed over
            the groups, as in FairDD. With 1 and the batches of `sampling.grouped`, the real
            gradient is the mean of the groups' gradients, as in COBRA.
    """
    outer, inner = _checks.count("outer", outer), _checks.count("inner", inner)
    strategy, groups = augment.as_strategy(strategy), _checks.count("groups", groups)
    match = functools.partial(
        _match_class,
        network=network,
        distance=distance,
        strategy=strategy,
        decode=decode,
        groups=groups,
    )
    train = functools.partial(
        training.fit,
        network=network,
        optimizer=optax.sgd(0.01) if network_optimizer is None else network_optimizer,
        epochs=inner,
        batch_size=_checks.count("batch_size", batch_size),
        strategy=strategy,
    )

    def train_on(key, params, images):
        images, labels = sampling.flatten(images)
        return train(key, params=params, images=images, labels=labels)

    def init(images):
        check_images(images)
        networks.check_classes(network, images[0, :1], len(images))
        params = network.init(jax.random.key(0), images[0, :1])  # replaced in the first step
        params = _axes.match(params, images)
        return GradientState(images, optimizer.init(images), params, jnp.zeros((), jnp.int32))

    def step(key, state, batch):
        # The reference has an outer loop over matching steps inside a loop over networks. Here both
        # are one loop: the network of a step is in the state, and every `outer` steps a new one
        # replaces it. So a run can stop and resume after any step.
        key_network, key_augment, key_train = jax.random.split(key, 3)
        params = jax.lax.cond(
            state.count % outer == 0,
            lambda: networks.init_params(key_network, network, state.images[0, :1]),
            lambda: state.params,
        )
        # `lax.map` instead of `vmap`: neither the program nor its memory grows with the classes.
        k = len(state.images)
        keys = jax.random.split(key_augment, k)
        values, gradients = jax.lax.map(
            functools.partial(match, params), (keys, jnp.arange(k), batch, state.images)
        )
        images, optimizer_state = training.apply_gradients(
            optimizer, gradients, state.optimizer, state.images
        )
        count = state.count + 1
        # Training just before a re-initialisation would be wasted, so it is skipped.
        params = jax.lax.cond(
            count % outer == 0, lambda: params, lambda: train_on(key_train, params, decode(images))
        )
        return GradientState(images, optimizer_state, params, count), {"loss": values.sum()}

    return Method(init, step)


def _match_class(params, inputs, *, network, distance, strategy, decode, groups):
    """Return the distance of one class and its gradient in the synthetic images."""
    key, label, batch, images = inputs
    # A clone marks this reuse as intended for `jax_debug_key_reuse`.
    augmented = lambda images: augment.siamese(jax.random.clone(key), images, strategy=strategy)[0]
    real, weights = jax.tree.map(lambda x: x.reshape(groups, -1, *x.shape[1:]), batch)
    targets = jax.lax.map(
        lambda group: training.gradient(network, params, augmented(group[0]), label, group[1]),
        (real, weights),
    )
    present = weights.sum(1) > 0  # a group without samples contributes nothing

    def loss(images):
        images = augmented(decode(images))
        cross_entropy = functools.partial(training.cross_entropy, network)
        own = jax.grad(cross_entropy)(params, images, label, jnp.ones(len(images)))
        distances = jax.vmap(lambda target: distance(target, own))(targets)
        return jnp.sum(jnp.where(present, distances, 0))

    return jax.value_and_grad(loss)(images)
