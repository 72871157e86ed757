"""Arrays inside `jax.shard_map`, where JAX tracks over which mesh axes each array varies."""

import functools
from typing import Any

import jax
import jax.numpy as jnp


def is_mapped() -> bool:
    """Return whether the caller is inside `jax.shard_map`."""
    return bool(jax.sharding.get_abstract_mesh().manual_axes)


def match(tree: Any, like: Any) -> Any:
    """Mark the arrays of a tree as varying over the mesh axes that the leaves of `like` vary over.

    Both branches of a cond, and the carry of a scan before and after a step, must vary over the
    same axes, and JAX sums the gradient in an array that does not vary over the devices. Outside
    `shard_map` the tree is returned as it is.
    """
    if not is_mapped():
        return tree
    value = functools.reduce(jnp.add, map(_first_number, jax.tree.leaves(like)))
    return jax.tree.map(lambda x: jnp.where(False, value.astype(x.dtype), x), tree)


def _first_number(leaf):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return leaf.ravel()[0].astype(jnp.float32)
