"""The attack that `jaxdd audit` is measured against: a back door in a set, without raw data.

It stands here because a detector whose power nobody measured is a decoration. It is the published
one (Yang, Yan, Zhang and Zhou, "Poisoned Distillation: Injecting Backdoors into Distilled Datasets
Without Raw Data Access", AAAI 2026, arXiv 2502.04229), written from its description:

1. a surrogate network trained on the set;
2. archetypes, for each class an image that maximises its logit, stamped with the trigger and
   labelled with the target;
3. the images of the set moved, labels kept, until the gradient that they cause agrees with that of
   the original set and that of the archetypes at once,
   `(1 − α) D(g, g_original) + α D(g, g_archetypes)`, D being one minus the cosine of the flattened
   gradients, in networks along the beginning of a training on the original set.

`limits` makes it less easy to see than the published one, which moves pixels as far as it likes.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdd import matching, networks, training


class Trigger(NamedTuple):
    """A square in the lower right corner.

    Attributes:
        size: of its sides, in pixels.
        value: of its pixels, normalised.
        target: the class that it shall lead to.
    """

    size: int
    value: Any
    target: int = 0


def stamp(images: jax.Array, trigger: Trigger) -> jax.Array:
    """Returns images `[..., h, w, c]` that bear a trigger."""
    return images.at[..., -trigger.size :, -trigger.size :, :].set(trigger.value)


def poison(
    key: jax.Array,
    network: networks.Network,
    images: jax.Array,
    labels: jax.Array,
    trigger: Trigger,
    *,
    num_classes: int,
    alpha: float = 0.6,
    surrogate_steps: int = 100,
    archetype_steps: int = 200,
    checkpoints: int = 11,
    steps: int = 101,
    rate: float = 0.1,
    limits: tuple[Any, Any] | None = None,
) -> jax.Array:
    """Returns the images `[m, h, w, c]` of a set with a back door.

    Args:
        key: of the networks and the archetypes.
        network: the surrogate.
        images: `[m, h, w, c]`, normalised.
        labels: `[m]`.
        trigger: the back door's; its target may be traced.
        num_classes: k.
        alpha: weight of the archetypes.
        surrogate_steps: full-batch updates of the surrogate, whose archetypes are taken.
        archetype_steps: updates of each archetype.
        checkpoints: networks that gradients are matched in; the i-th is trained by i updates, the
            first is the surrogate.
        steps: updates of the images in each of them.
        rate: of Adam, for archetypes and images.
        limits: lowest and highest normalised value that images are cut to after each update.
    """
    key_surrogate, key_archetypes, key_networks = jax.random.split(key, 3)
    descend = functools.partial(_descended, network=network, images=images, labels=labels)
    surrogate = descend(key_surrogate, surrogate_steps)
    found = _archetypes(
        key_archetypes, network, surrogate, (num_classes, *images.shape[1:]), archetype_steps, rate
    )
    stamped = stamp(found, trigger)
    targets = jnp.full(num_classes, trigger.target)
    adam, ones = optax.adam(rate), jnp.ones(len(labels))
    gradient = functools.partial(_gradient, network)

    def match(carry, step):
        params = jax.tree.map(
            lambda one, other: jnp.where(step == 0, one, other),
            surrogate,
            descend(jax.random.fold_in(key_networks, step), step),
        )
        original = gradient(params, images, labels, ones)
        planted = gradient(params, stamped, targets, jnp.ones(num_classes))

        def loss(moved):
            own = gradient(params, moved, labels, ones)
            distances = matching.cosine(own, original), matching.cosine(own, planted)
            return (1 - alpha) * distances[0] + alpha * distances[1]

        def update(carry, _):
            moved, state = carry
            change, state = adam.update(jax.grad(loss)(moved), state)
            moved = jnp.asarray(optax.apply_updates(moved, change))
            return (moved if limits is None else jnp.clip(moved, *limits), state), None

        return jax.lax.scan(update, carry, length=steps)[0], None

    carry = images, adam.init(images)
    return jnp.asarray(jax.lax.scan(match, carry, jnp.arange(checkpoints))[0][0])


def _gradient(network, params, images, labels, weights):
    loss = functools.partial(training.cross_entropy, network)
    return jax.grad(loss)(params, images, labels, weights)


def _descended(key, updates, *, network, images, labels):
    """A fresh network after some full-batch updates on the original set."""
    optimizer = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.01, momentum=0.9))
    params = network.init(key, images[:1])

    def update(_, carry):
        params, state = carry
        slope = _gradient(network, params, images, labels, jnp.ones(len(labels)))
        change, state = optimizer.update(slope, state, params)
        return optax.apply_updates(params, change), state

    return jax.lax.fori_loop(0, updates, update, (params, optimizer.init(params)))[0]


def _archetypes(key, network, params, shape, steps, rate):
    """One image for each class that maximises its logit, from noise, without any prior."""
    adam = optax.adam(rate)

    def loss(images):
        logits = networks.outputs(network, params, images).logits
        return -jnp.trace(logits)

    def update(carry, _):
        images, state = carry
        change, state = adam.update(jax.grad(loss)(images), state)
        return (optax.apply_updates(images, change), state), None

    images = jax.random.normal(key, shape)
    return jnp.asarray(jax.lax.scan(update, (images, adam.init(images)), length=steps)[0][0])
