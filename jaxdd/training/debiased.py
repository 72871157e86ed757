"""Networks that try to unlearn a bias while they train on a labelled set, without bias labels.

They are what one would do about a biased synthetic set after it was made. Both train a second
network beside the one that counts, which falls for the bias on purpose: by the generalised
cross-entropy it learns most from what it knows already, so what is hard for it conflicts with the
bias. The functions take what `training.train` takes and stand in for it.

>>> import jax, jax.numpy as jnp
>>> from jaxdd import networks
>>> images, labels = jnp.zeros((4, 8, 8, 3)), jnp.arange(4) % 2
>>> network = networks.ConvNet(2, 4, 2)
>>> params = learning_from_failure(jax.random.key(0), network, images, labels, epochs=1)
>>> sorted(params["params"])[0]
'Conv_0'
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdd import _checks, augment, networks, training


def generalised_cross_entropy(logits: jax.Array, labels: jax.Array, *, q: float = 0.7) -> jax.Array:
    """Returns `(1 − p_y^q) / q` for logits `[n, k]` and labels `[n]`.

    Its gradient is that of the cross-entropy times p_y^q. q → 0 is the cross-entropy.

    Raises:
        TypeError: labels that are not integers.
        ValueError: q that is not positive and finite, as float32 calculates, shapes that disagree,
            and (where they are concrete) logits that are not finite or labels out of range.

    Source: Zhang and Sabuncu, "Generalized Cross Entropy Loss" (NeurIPS 2018).

    >>> round(float(generalised_cross_entropy(jnp.zeros((1, 4)), jnp.array([0]), q=1.0)[0]), 6)
    0.75
    """
    if not 1e-30 < q < float("inf"):  # below, q log p is lost in float32
        raise ValueError(f"q must be positive and finite, found {q}")
    if logits.ndim != 2 or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ValueError(f"logits must be floating [n, k], found {logits.dtype} {logits.shape}")
    n, k = _checks.finite("logits", logits).shape
    labels = _checks.integers("labels", labels, k, length=n)
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]
    return -jnp.expm1(q * log_p) / q


class _Update(NamedTuple):
    """What a loss sees of one update: augmented `[b]` samples, and `memory` from the last one."""

    views: jax.Array
    labels: jax.Array
    present: jax.Array
    indices: jax.Array
    memory: Any
    key: jax.Array


def learning_from_failure(
    key: jax.Array,
    network: networks.Network,
    images: jax.Array,
    labels: jax.Array,
    *,
    smoothing: float = 0.7,
    strategy: augment.Strategy = augment.OPERATIONS,
    batch_size: int = 256,
    epochs: int = 1000,
    **schedule: float,
) -> Any:
    """Trains a network on what a biased network gets wrong (LfF).

    A sample weighs `b / (b + d)`, where b and d are its losses under the biased network and this
    one, averaged over updates with `smoothing` and divided by the largest of the class.

    Args:
        key: initialisation, order and augmentation.
        network: a `networks.Network`.
        images: `[m, h, w, c]`, normalised.
        labels: `[m]`.
        smoothing: share of the old average in the new one.
        strategy: of augmentation; () for none.
        batch_size: as in `training.train`.
        epochs: as in `training.train`.
        **schedule: of `training.sgd`.

    Source: Nam et al., "Learning from Failure" (NeurIPS 2020).
    """

    def loss(params, batch):
        own, present, indices, averages = batch.labels, batch.present, batch.indices, batch.memory
        logits = jnp.stack([networks.outputs(network, p, batch.views).logits for p in params])
        each = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.stack([own, own]))
        now = smoothing * averages[:, indices] + (1 - smoothing) * jax.lax.stop_gradient(each)
        averages = averages.at[:, indices].set(jnp.where(present > 0, now, averages[:, indices]))
        of_class = functools.partial(
            jax.ops.segment_max, segment_ids=labels, num_segments=logits.shape[-1]
        )
        largest = jax.vmap(of_class)(averages)
        biased, ours = now / jnp.maximum(largest[:, own], 1e-8)
        weights = biased / (biased + ours + 1e-8)
        trap = generalised_cross_entropy(logits[0], own)
        total = jnp.sum((trap + weights * each[1]) * present) / present.sum()
        return total, averages

    images, labels = training.check_labelled(images, labels, network=network)
    return _two_networks(
        key,
        network,
        images,
        labels,
        loss,
        jnp.zeros((2, len(labels))),
        strategy=strategy,
        batch_size=batch_size,
        epochs=epochs,
        **schedule,
    )


def selective_mixup(
    key: jax.Array,
    network: networks.Network,
    images: jax.Array,
    labels: jax.Array,
    *,
    strategy: augment.Strategy = augment.OPERATIONS,
    batch_size: int = 256,
    epochs: int = 1000,
    **schedule: float,
) -> Any:
    """Trains a network on mixtures of samples that contradict the bias (SelecMix).

    Each sample is mixed with one of its batch, by chance either the sample of its class that the
    biased network finds least similar, or that of another class which it finds most similar;
    similarity is the cosine of features. The share of the sample is uniform in [0, 1], in the image
    as in the label.

    Args:
        key: initialisation, order, augmentation and mixtures.
        network: a `networks.Network`.
        images: `[m, h, w, c]`, normalised.
        labels: `[m]`.
        strategy: of augmentation; () for none.
        batch_size: as in `training.train`.
        epochs: as in `training.train`.
        **schedule: of `training.sgd`.

    Source: Hwang et al., "SelecMix: Debiased Learning by Contradicting-pair Sampling" (NeurIPS
    2022), without the contrastive loss of its biased network.
    """

    def loss(params, batch):
        views, own, present = batch.views, batch.labels, batch.present
        features, logits = networks.outputs(network, params[0], views)
        trap = generalised_cross_entropy(logits, own)
        partner = contradicting_partners(batch.key, jax.lax.stop_gradient(features), own, present)
        share = jax.random.uniform(jax.random.fold_in(batch.key, 1), own.shape)
        column = share[:, None, None, None]
        mixture = column * views + (1 - column) * views[partner]
        mixed = networks.outputs(network, params[1], mixture).logits
        each = [
            optax.softmax_cross_entropy_with_integer_labels(mixed, y) for y in (own, own[partner])
        ]
        ours = share * each[0] + (1 - share) * each[1]
        return jnp.sum((trap + ours) * present) / present.sum(), None

    images, labels = training.check_labelled(images, labels, network=network)
    return _two_networks(
        key,
        network,
        images,
        labels,
        loss,
        None,
        strategy=strategy,
        batch_size=batch_size,
        epochs=epochs,
        **schedule,
    )


def contradicting_partners(
    key: jax.Array, features: jax.Array, labels: jax.Array, present: jax.Array
) -> jax.Array:
    """Returns for each sample the index `[n]` of one that contradicts the bias in `features`.

    By chance the least similar of the same class or the most similar of the others; a sample
    without either is its own.

    Args:
        key: of the chance.
        features: `[n, d]`.
        labels: `[n]`.
        present: `[n]`, zero for what is not to be chosen.

    >>> features = jnp.array([[1., 0.], [.8, .6], [0., 1.], [.6, .8]])
    >>> labels, present = jnp.array([0, 0, 0, 1]), jnp.ones(4)
    >>> found = lambda i: contradicting_partners(jax.random.key(i), features, labels, present)
    >>> sorted({int(found(i)[0]) for i in range(9)})
    [2, 3]
    """
    unit = features / jnp.maximum(jnp.sqrt(jnp.square(features).sum(1, keepdims=True)), 1e-8)
    similar = unit @ unit.T
    chosen, own = present > 0, jnp.arange(len(labels))
    same = (labels[:, None] == labels) & chosen & (own[:, None] != own)
    other = (labels[:, None] != labels) & chosen
    far = jnp.argmin(jnp.where(same, similar, jnp.inf), axis=1)
    near = jnp.argmax(jnp.where(other, similar, -jnp.inf), axis=1)
    take_far = jax.random.bernoulli(key, shape=labels.shape) | ~other.any(1)
    return jnp.where(take_far & same.any(1), far, jnp.where(other.any(1), near, own))


def _two_networks(
    key, network, images, labels, loss, memory, *, strategy, batch_size, epochs, **schedule
):
    """Trains (biased, ours) by `loss(params, batch) -> (loss, memory)` and returns ours."""
    optimizer = training.sgd(len(labels), epochs=epochs, batch_size=batch_size, **schedule)
    key_init, key_train = jax.random.split(key)
    params = tuple(networks.init_params(k, network, images[:1]) for k in jax.random.split(key_init))

    def update(carry, key, indices, present):
        params, state, memory = carry
        key_augment, key_loss = jax.random.split(key)
        views = augment.per_image(key_augment, images[indices], strategy=strategy)
        batch = _Update(views, labels[indices], present, indices, memory, key_loss)
        slope, memory = jax.grad(loss, has_aux=True)(params, batch)
        step, state = optimizer.update(slope, state, params)
        return optax.apply_updates(params, step), state, memory

    carry = training.run_epochs(
        key_train,
        update,
        (params, optimizer.init(params), memory),
        num_samples=len(labels),
        epochs=epochs,
        batch_size=batch_size,
    )
    return carry[0][1]


TRAININGS = {
    "standard": training.train,
    "lff": learning_from_failure,
    "selecmix": selective_mixup,
}
"""Ways to train the networks that a set is evaluated with."""
