"""Assign bias attributes to samples, with exact counts in each class.

A biased data set is made in two independent steps: `assign` decides which attribute each sample has
(most samples of a class share its *aligned* attribute, the others are *conflicting*), and a
function of `jaxdd.data.rendering` draws that attribute into the images.

All draws are integers, so a key gives the same attributes on every backend, with and without `jit`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxdd import _checks


def assign(
    key: jax.Array,
    labels: jax.Array,
    *,
    num_classes: int,
    num_attributes: int,
    conflict: float | jax.Array,
    aligned: jax.Array | None = None,
) -> jax.Array:
    """Draw a bias attribute for every sample, with exact counts in each class.

    Of the n_k samples of class k, round(n_k · conflict) conflict (half rounds to even), chosen at
    random. They are spread over the other attributes so that counts differ by at most one; which
    attributes get the remainder is drawn for each class. With `conflict = 1 - 1/num_attributes` the
    attribute is uniform and independent of the class, as in an unbiased test set.

    This is the protocol of Nam et al. 2020 (LfF), with conflicting samples drawn at random instead
    of taken in file order.

    Args:
        key: random key.
        labels: class of each sample, integers [n] in 0..num_classes-1.
        num_classes: number of classes, k.
        num_attributes: number of attributes, at least 2.
        conflict: share of each class that conflicts, in [0, 1]; may be traced.
        aligned: attribute that each class is aligned with, integers [k]. Defaults to the class
            index modulo `num_attributes`.

    Returns:
        The attribute of each sample, int32 [n].

    >>> labels = jnp.repeat(jnp.arange(2), 100)
    >>> attributes = assign(
    ...     jax.random.key(0), labels, num_classes=2, num_attributes=5, conflict=0.08
    ... )
    >>> jnp.bincount(attributes[:100], length=5).tolist()
    [92, 2, 2, 2, 2]
    """
    if num_attributes < 2:
        raise ValueError(f"num_attributes must be at least 2, got {num_attributes}.")
    labels = _checks.integers("labels", labels, num_classes)
    conflict = _check_share(conflict)
    aligned = jnp.arange(num_classes) % num_attributes if aligned is None else aligned
    aligned = _checks.integers("aligned", aligned, num_attributes, length=num_classes)

    key_samples, key_order = jax.random.split(key)
    counts = jnp.bincount(labels, length=num_classes)
    rank = rank_in_class(jax.random.bits(key_samples, labels.shape, jnp.uint32), labels)
    # One column per attribute in random order. The aligned one gets 2, which is above all draws, so
    # that it comes last and is never chosen below.
    draws = jax.random.uniform(key_order, (num_classes, num_attributes), jnp.float32)
    order = jnp.argsort(draws.at[jnp.arange(num_classes), aligned].set(2.0), axis=1)
    # Cycling through the other attributes by rank makes their counts differ by at most one.
    other = order[labels, rank % (num_attributes - 1)]
    conflicts = rank < jnp.round(counts * conflict)[labels]
    return jnp.where(conflicts, other, aligned[labels]).astype(jnp.int32)


def majority(
    labels: ArrayLike, attributes: ArrayLike, *, num_classes: int, num_attributes: int
) -> jax.Array:
    """Return the most frequent attribute of each class, which is its aligned attribute.

    Args:
        labels: class of each sample, integers [n] in 0..num_classes-1.
        attributes: attribute of each sample, integers [n] in 0..num_attributes-1.
        num_classes: number of classes, k.
        num_attributes: number of attributes.

    Returns:
        One attribute per class, int32 [k]. The smallest index wins a tie; a class without samples
        gets 0.

    >>> labels, attributes = jnp.array([0, 0, 0, 1, 1]), jnp.array([2, 0, 2, 1, 1])
    >>> majority(labels, attributes, num_classes=2, num_attributes=3).tolist()
    [2, 1]
    """
    labels = _checks.integers("labels", labels, num_classes)
    attributes = _checks.integers("attributes", attributes, num_attributes, length=labels.shape[0])
    counts = jnp.zeros((num_classes, num_attributes), jnp.int32).at[labels, attributes].add(1)
    return jnp.argmax(counts, axis=1).astype(jnp.int32)


def rank_in_class(draws: Any, labels: Any, *, xp: Any = jnp) -> Any:
    """Return the rank 0..n_k-1 of each sample among the draws of its class.

    Args:
        draws: a number for each sample [n].
        labels: class of each sample, integers [n].
        xp: array library to compute with, `numpy` or `jax.numpy`.

    Returns:
        Integers [n].

    >>> rank_in_class(jnp.array([0.3, 0.9, 0.1, 0.2]), jnp.array([0, 1, 0, 1])).tolist()
    [1, 1, 0, 0]
    """
    order = xp.lexsort((draws, labels))
    return xp.argsort(order) - xp.searchsorted(labels[order], labels)


def _check_share(conflict):
    # float32 whatever the caller's precision, so that the counts do not depend on it.
    conflict = jnp.asarray(conflict, jnp.float32)
    if conflict.shape:
        raise ValueError(f"conflict must be one number, got an array of shape {conflict.shape}.")
    if not isinstance(conflict, Tracer) and not 0 <= conflict <= 1:
        raise ValueError(f"conflict must lie in [0, 1], got {conflict}.")
    return conflict
