"""A training set that is spread over devices: its images, and densities of its samples.

Each device holds some of the images, where one cannot hold them all; those that are drawn are the
same to the bit. The points of a kernel density go round a ring and are never gathered.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from jaxdd import _checks, kde, sampling
from jaxdd.devices import parallel


def pool(
    images: Any,
    labels: ArrayLike,
    *,
    num_classes: int,
    mean: sampling.Values,
    std: sampling.Values,
    mesh: Mesh,
    weights: sampling.Values | None = None,
    empty: bool = False,
) -> sampling.Pool:
    """Index a training set like `sampling.pool`, with its images split over the devices of a mesh.

    Sampled images are bit-identical to those of `sampling.pool`. Each device looks up the images it
    has and the bytes are summed, so one batch of bytes travels per step and never the pool. The
    rest of the pool, 16 bytes per image, stays on the host until `parallel.replicate` copies it.

    Args:
        images: `[n, h, w, c]`, uint8 or floating in [0, 1]: an array, or anything with a shape and
            a dtype whose slices of rows are arrays, such as a memory map. A process reads only the
            rows of its own devices.
        labels: `[n]` integers in [0, num_classes).
        num_classes: number of classes.
        mean: of the channels, `[c]`, on the scale [0, 1].
        std: of the channels, `[c]`, on the scale [0, 1].
        mesh: from `parallel.mesh`.
        weights: `[n]`, non-negative; uniform by default.
        empty: allow classes without samples.

    Returns:
        A pool whose images are `parallel.Rows`.
    """
    n, *shape = images.shape
    # Index the labels and weights with one pixel per image in place of the images.
    pixels = np.zeros((n, *(1 for _ in shape[:-1]), *shape[-1:]), images.dtype)
    statistics: dict[str, Any] = dict(num_classes=num_classes, mean=mean, std=std)
    index = sampling.pool(pixels, labels, weights=weights, empty=empty, **statistics)
    padded = n + -n % mesh.size

    def read(block):
        start, stop, _ = block[0].indices(padded)
        rows = np.asarray(images[start : min(stop, n)])
        if len(rows) and rows.dtype != np.uint8:
            _checks.pixels("images", rows)
        return np.pad(rows, [(0, stop - start - len(rows))] + [(0, 0)] * len(shape))

    by_row = NamedSharding(mesh, PartitionSpec(parallel.AXIS))
    rows = jax.make_array_from_callback((padded, *shape), by_row, read)
    return index._replace(images=parallel.Rows(rows, n, mesh))


def log_density(
    queries: jax.Array,
    points: jax.Array,
    bandwidth: jax.Array | float,
    *,
    mesh: Mesh,
    weights: jax.Array | None = None,
    leave_one_out: bool = False,
    tile: int | None = None,
) -> jax.Array:
    """Computes `kde.log_density` with queries and points split over the devices.

    The points go round a ring: one of D devices holds n / D queries and two pieces of m / D points
    at a time, and the density of no other queries.

    Args:
        queries: [n, d] floating.
        points: [m, d] floating.
        bandwidth: h > 0, a scalar in the unit of the coordinates.
        mesh: from `parallel.mesh`.
        weights: [m], at least 0; equal where omitted.
        leave_one_out: point i takes no part in the density of query i.
        tile: largest number of queries and of points whose distances are in memory together.

    Returns:
        [n] log densities in nats.
    """
    density = functools.partial(
        kde.log_density, leave_one_out=leave_one_out, tile=tile, axis=parallel.AXIS
    )
    ring = _ring(lambda q, x, w, h: density(q, x, h, weights=w), mesh)
    found = ring(*_split(queries, points, weights, mesh.size), bandwidth)
    return found[: len(queries)]


def class_log_density(
    embeddings: jax.Array,
    labels: jax.Array,
    bandwidth: jax.Array | float,
    *,
    num_classes: int,
    mesh: Mesh,
    weights: jax.Array | None = None,
    leave_one_out: bool = False,
    tile: int | None = None,
) -> jax.Array:
    """Computes `kde.class_log_density` with the samples split over the devices.

    Args:
        embeddings: [n, d] floating.
        labels: [n] integers in [0, num_classes), in any order.
        bandwidth: h > 0, a scalar or one per class [num_classes].
        num_classes: number of classes, static.
        mesh: from `parallel.mesh`.
        weights: [n], at least 0; equal where omitted.
        leave_one_out: a sample takes no part in its own density.
        tile: largest number of samples on either side of a tile of distances.

    Returns:
        [n] log densities in nats.
    """
    density = functools.partial(
        kde.class_log_density,
        num_classes=num_classes,
        leave_one_out=leave_one_out,
        tile=tile,
        axis=parallel.AXIS,
    )
    ring = _ring(lambda y, x, w, h: density(x, y, h, weights=w), mesh)
    found = ring(*_split(labels, embeddings, weights, mesh.size), bandwidth)
    return found[: len(embeddings)]


def _split(beside, points, weights, devices):
    """Fills up points, what goes with them, and weights, by points that weigh nothing."""
    weights = jnp.ones(len(points)) if weights is None else weights
    filled = parallel.pad_rows((beside, points), devices)
    return *filled, parallel.pad_rows_with_zeros(weights, devices)


def _ring(density, mesh):
    part = PartitionSpec(parallel.AXIS)
    return jax.shard_map(
        density, mesh=mesh, in_specs=(part, part, part, PartitionSpec()), out_specs=part
    )
