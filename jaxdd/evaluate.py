"""How good a synthetic set is: networks trained on it from scratch, scored by bias group."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxdd import augment, sampling, training


class Scores(NamedTuple):
    """Shares of correct predictions in [0, 1]; what needs attributes is nan without them.

    Attributes:
        accuracy: over all test samples.
        aligned: over those whose attribute is the aligned one of their class.
        conflicting: over the others.
        worst_group: the smallest over the (class, attribute) groups present.
        deo_max: the largest gap, over classes, between the best and the worst group of a class
            (equalised odds, as FairDD reports it).
        deo_mean: the mean of that gap over classes.
        groups: `[k, a]`, nan for an empty group.
    """

    accuracy: jax.Array
    aligned: jax.Array
    conflicting: jax.Array
    worst_group: jax.Array
    deo_max: jax.Array
    deo_mean: jax.Array
    groups: jax.Array


def train(
    key: jax.Array,
    network: nn.Module,
    images: jax.Array,
    labels: jax.Array,
    *,
    epochs: int = 1000,
    batch_size: int = 256,
    strategy: tuple[str, ...] = augment.OPERATIONS,
    **schedule: float,
) -> Any:
    """Trains a fresh network on a labelled set as one loop and returns its parameters.

    The protocol of the distillation literature: SGD, every sample once per epoch in random order,
    one augmentation drawn per image, learning rate divided by ten halfway. (The reference code also
    forgets the momentum there; this does not.)

    Args:
        key: initialisation, order and augmentation.
        network: a module of `jaxdd.networks`.
        images: `[m, h, w, c]`, normalised.
        labels: `[m]`.
        epochs: passes over the set.
        batch_size: samples per update at most; an epoch is cut into updates of equal size, the last
            of which may miss a few.
        strategy: augmentation operations; () for none.
        **schedule: learning rate, momentum and weight decay of `optimizer`.

    Raises:
        ValueError: for shapes that disagree or an empty set.
    """
    images, labels = training.checked(images, labels)
    descent = optimizer(len(labels), epochs=epochs, batch_size=batch_size, **schedule)
    key_init, key_train = jax.random.split(key)
    params = network.init(key_init, images[:1])
    return training.fit(
        key_train,
        network,
        params,
        images,
        labels,
        optimizer=descent,
        epochs=epochs,
        batch_size=batch_size,
        strategy=strategy,
    )


def optimizer(
    num_samples: int,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
) -> optax.GradientTransformation:
    """SGD whose learning rate is divided by ten halfway.

    Args:
        num_samples: in the set.
        epochs: of the training.
        batch_size: samples per update at most.
        learning_rate: of the first half.
        momentum: of SGD.
        weight_decay: added to the gradient.
    """
    halfway = epochs * training.num_updates(num_samples, batch_size) // 2
    schedule = optax.piecewise_constant_schedule(learning_rate, {halfway: 0.1})
    return optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(schedule, momentum=momentum)
    )


def predict(
    network: nn.Module,
    params: Any,
    images: jax.Array,
    *,
    mean: jax.Array,
    std: jax.Array,
    batch_size: int = 500,
) -> jax.Array:
    """Predicts classes `[n]` for uint8 images `[n, h, w, c]`, one batch in memory at a time."""

    def one(image):
        logits = network.apply(params, sampling.normalise(image[None], mean, std)).logits
        return jnp.argmax(logits[0])

    return jax.lax.map(one, images, batch_size=batch_size)


def score(
    predictions: jax.Array,
    labels: jax.Array,
    attributes: jax.Array | None = None,
    aligned: jax.Array | None = None,
    *,
    num_classes: int,
    num_attributes: int = 0,
) -> Scores:
    """Scores predictions overall and by bias group.

    Args:
        predictions: `[n]` classes.
        labels: `[n]`.
        attributes: `[n]` or None.
        aligned: `[k]`, the aligned attribute of each class; None without attributes.
        num_classes: k.
        num_attributes: a.
    """
    correct = (predictions == labels).astype(jnp.float32)
    nan = jnp.full((), jnp.nan)
    if attributes is None or aligned is None:
        groups = jnp.full((num_classes, num_attributes), jnp.nan)
        return Scores(correct.mean(), nan, nan, nan, nan, nan, groups)

    def share(where):
        return jnp.sum(correct * where) / jnp.sum(where)

    conflicting = attributes != jnp.asarray(aligned)[labels]
    group = jnp.asarray(labels, int) * num_attributes + attributes
    total = num_classes * num_attributes
    hits = jax.ops.segment_sum(correct, group, total)
    groups = hits / jax.ops.segment_sum(jnp.ones_like(correct), group, total)
    groups = groups.reshape(num_classes, num_attributes)
    gaps = jnp.nanmax(groups, axis=1) - jnp.nanmin(groups, axis=1)
    return Scores(
        correct.mean(),
        share(~conflicting),
        share(conflicting),
        jnp.nanmin(groups),
        jnp.nanmax(gaps),
        jnp.nanmean(gaps),
        groups,
    )


def evaluate(
    keys: jax.Array,
    network: nn.Module,
    images: jax.Array,
    labels: jax.Array,
    test: tuple[jax.Array, jax.Array, jax.Array | None],
    *,
    aligned: jax.Array | None,
    mean: jax.Array,
    std: jax.Array,
    num_attributes: int = 0,
    train: Callable[..., Any] = train,
    **protocol: Any,
) -> Scores:
    """Trains one fresh network for each key on a labelled set and scores it on the test set.

    Networks come one after another (`lax.map`): a vmap over weights would turn every convolution
    into a grouped one, which is slower on CPU and GPU alike.

    Args:
        keys: `[s]`, one per network.
        network: a module of `jaxdd.networks`.
        images: `[k, ipc, h, w, c]` or `[m, h, w, c]`, normalised.
        labels: `[k, ipc]` or `[m]`.
        test: images uint8 `[n, h, w, c]`, labels `[n]`, attributes `[n]` or None.
        aligned: `[k]` or None.
        mean: `[c]` of the test pixels.
        std: `[c]` of the test pixels.
        num_attributes: a.
        train: this module's `train`, or what stands in for it, such as those of `posthoc`.
        **protocol: its options.

    Returns:
        `Scores` with a leading axis `[s]`.
    """
    images = images.reshape(-1, *images.shape[-3:])
    labels = jnp.reshape(labels, -1)
    test_images, test_labels, attributes = test

    def one(key):
        params = train(key, network, images, labels, **protocol)
        predictions = predict(network, params, test_images, mean=mean, std=std)
        return score(
            predictions,
            test_labels,
            attributes,
            aligned,
            num_classes=network.num_classes,
            num_attributes=num_attributes,
        )

    return jax.lax.map(one, keys)
