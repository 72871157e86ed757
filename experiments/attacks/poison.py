"""A back-door attack on distilled sets, against which `jaxdd audit` is measured.

A known attack is needed to measure the power of a detector. This one follows the description in
Yang, Yan, Zhang and Zhou, "Poisoned Distillation: Injecting Backdoors into Distilled Datasets
Without Raw Data Access", AAAI 2026, arXiv 2502.04229:

1. train a surrogate network on the set;
2. make archetypes, which are images that maximise the logit of a class, one per class; stamp them
   with the trigger and label them with the target;
3. update the images of the set, with their labels, to minimise
   `(1 − α) D(g, g_original) + α D(g, g_archetypes)` for the gradients g that they cause in networks
   along the beginning of a training on the original set. D is one minus the cosine of the flattened
   gradients.

With `limits` the attack is less visible than the published one, which changes pixels without limit.
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
        size: side length in pixels.
        value: value of its pixels, normalised.
        target: the class that it leads to.
    """

    size: int
    value: Any
    target: int = 0


def stamp(images: jax.Array, trigger: Trigger) -> jax.Array:
    """Return images `[..., h, w, c]` with a trigger."""
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
    """Return the images `[m, h, w, c]` of a set with a back door.

    Args:
        key: random key of the networks and the archetypes.
        network: the surrogate.
        images: `[m, h, w, c]`, normalised.
        labels: `[m]`.
        trigger: trigger of the back door; its target may be traced.
        num_classes: k.
        alpha: weight of the archetypes.
        surrogate_steps: full-batch updates of the surrogate of the archetypes.
        archetype_steps: updates of each archetype.
        checkpoints: networks in which gradients are matched. The first is the surrogate, the i-th
            is trained for i updates.
        steps: updates of the images in each network.
        rate: learning rate of Adam, for archetypes and images.
        limits: lowest and highest normalised value; images are clipped after each update.
    """
    key_surrogate, key_archetypes, key_networks = jax.random.split(key, 3)
    train = functools.partial(_train, network=network, images=images, labels=labels)
    surrogate = train(key_surrogate, surrogate_steps)
    shape = (num_classes, *images.shape[1:])
    archetypes = _archetypes(key_archetypes, network, surrogate, shape, archetype_steps, rate)
    stamped, targets = stamp(archetypes, trigger), jnp.full(num_classes, trigger.target)
    gradient = functools.partial(_gradient, network)

    # The state of Adam is carried from network to network, as in one long optimisation.
    def match(images_and_state, step):
        trained = train(jax.random.fold_in(key_networks, step), step)
        params = jax.tree.map(lambda x, y: jnp.where(step == 0, x, y), surrogate, trained)
        original, planted = gradient(params, images, labels), gradient(params, stamped, targets)

        def loss(moved):
            own = gradient(params, moved, labels)
            distances = matching.cosine(own, original), matching.cosine(own, planted)
            return (1 - alpha) * distances[0] + alpha * distances[1]

        return _minimise(loss, images_and_state, steps, rate, limits), None

    start = images, optax.adam(rate).init(images)
    return jax.lax.scan(match, start, jnp.arange(checkpoints))[0][0]


def _minimise(loss, images_and_state, steps, rate, limits=None):
    adam = optax.adam(rate)

    def update(carry, _):
        images, state = carry
        change, state = adam.update(jax.grad(loss)(images), state)
        images = jnp.asarray(optax.apply_updates(images, change))
        return (images if limits is None else jnp.clip(images, *limits), state), None

    return jax.lax.scan(update, images_and_state, length=steps)[0]


def _gradient(network, params, images, labels):
    loss = functools.partial(training.cross_entropy, network)
    return jax.grad(loss)(params, images, labels, jnp.ones(len(labels)))


def _train(key, updates, *, network, images, labels):
    """Return a new network after some full-batch updates on the original set."""
    optimizer = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.01, momentum=0.9))
    params = network.init(key, images[:1])

    def update(_, carry):
        params, state = carry
        slope = _gradient(network, params, images, labels)
        change, state = optimizer.update(slope, state, params)
        return optax.apply_updates(params, change), state

    return jax.lax.fori_loop(0, updates, update, (params, optimizer.init(params)))[0]


def _archetypes(key, network, params, shape, steps, rate):
    """Return one image per class that maximises its logit, starting from noise."""
    # Images are independent, so the trace sums one objective per class.
    loss = lambda images: -jnp.trace(networks.outputs(network, params, images).logits)
    images = jax.random.normal(key, shape)
    return _minimise(loss, (images, optax.adam(rate).init(images)), steps, rate)[0]
