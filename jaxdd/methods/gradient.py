"""Gradient matching (DC, DSA): gradients that real and synthetic images cause are compared."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdd import _checks, augment, networks, training
from jaxdd.matching import cosine_rows
from jaxdd.methods.protocol import Decode, Method, check_images, descend, identity, labelled


class GradientState(NamedTuple):
    """What gradient matching carries from step to step.

    Attributes:
        images: synthetic, `[k, ipc, h, w, c]`, normalised and never clipped.
        optimizer: state of the images' optimizer.
        params: of the network that is being trained on the synthetic set.
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
    """Gradient matching: DC without augmentation, DSA with it, with weighted real gradients.

    A step is one pass of the reference's outer loop: for each class, the gradient of the weighted
    cross-entropy of the real batch and that of the synthetic images; one update of the images on
    the sum of their distances over the classes; then `inner` epochs of training the network on the
    synthetic set. Every `outer` steps the network is a fresh one, and the training that would come
    just before is left out. Classes follow one another in a loop, so that neither the program nor
    its memory grows with their number.

    Args:
        network: a `networks.Network`.
        optimizer: acts on the images; the reference uses SGD with rate 0.1 and momentum 0.5.
        outer: steps that a network lives for.
        inner: epochs of training between two of them.
        distance: of two gradients, one of `matching.GRADIENT_DISTANCES`.
        strategy: of augmentation, one draw for each class that real and synthetic images share; ()
            for DC.
        network_optimizer: of the network; SGD with rate 0.01 by default.
        batch_size: of the network's training.
        decode: as in `feature_matching`.
        groups: as in `feature_matching`; the distance is summed over groups.

    Raises:
        TypeError: as in `feature_matching`.
        ValueError: as in `feature_matching`, or for loops or batches shorter than one.

    Sources: Zhao, Mopuri and Bilen, "Dataset Condensation with Gradient Matching" (ICLR 2021); Zhao
    and Bilen, "Dataset Condensation with Differentiable Siamese Augmentation" (ICML 2021).
    """
    if outer < 1 or inner < 1:
        raise ValueError(f"outer and inner must be at least 1, found {outer} and {inner}")
    strategy, groups = augment.as_strategy(strategy), _checks.count("groups", groups)
    batch_size = _checks.count("batch_size", batch_size)
    network_optimizer = optax.sgd(0.01) if network_optimizer is None else network_optimizer

    def init(images):
        check_images(images)
        networks.check_classes(network, images[0, :1], len(images))
        params = network.init(jax.random.key(0), images[0, :1])
        return GradientState(images, optimizer.init(images), params, jnp.zeros((), jnp.int32))

    def gradient(params, images, label, weights):
        loss = functools.partial(training.cross_entropy, network)
        return jax.grad(loss)(params, images, label, weights)

    def match(params, one):
        key, label, batch, images = one
        transform = lambda images: augment.siamese(key, images, strategy=strategy)[0]
        real, weights = jax.tree.map(lambda x: x.reshape(groups, -1, *x.shape[1:]), batch)
        targets = jax.lax.map(
            lambda group: training.gradient(network, params, transform(group[0]), label, group[1]),
            (real, weights),
        )
        present = weights.sum(1) > 0

        def loss(images):
            images = transform(decode(images))
            found = gradient(params, images, label, jnp.ones(len(images)))
            distances = jax.vmap(lambda target: distance(target, found))(targets)
            return jnp.sum(distances * present)

        return jax.value_and_grad(loss)(images)

    def trained(key, params, images):
        return training.fit(
            key,
            network,
            params,
            *labelled(decode(images)),
            optimizer=network_optimizer,
            epochs=inner,
            batch_size=batch_size,
            strategy=strategy,
        )

    def step(key, state, batch):
        key_network, key_augment, key_train = jax.random.split(key, 3)
        params = jax.lax.cond(
            state.count % outer == 0,
            lambda: networks.init_params(key_network, network, state.images[0, :1]),
            lambda: state.params,
        )
        k = len(state.images)
        keys = jax.random.split(key_augment, k)
        values, slopes = jax.lax.map(
            functools.partial(match, params), (keys, jnp.arange(k), batch, state.images)
        )
        images, optimizer_state = descend(optimizer, slopes, state.optimizer, state.images)
        count = state.count + 1
        params = jax.lax.cond(
            count % outer == 0, lambda: params, lambda: trained(key_train, params, images)
        )
        return GradientState(images, optimizer_state, params, count), {"loss": values.sum()}

    return Method(init, step)
