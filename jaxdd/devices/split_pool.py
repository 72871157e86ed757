"""Training sets whose images are split over devices, if one device cannot hold all of them.

Batches are bit-identical to those of `sampling.pool`.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from jaxdd import _checks, sampling
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

    This function runs on the host and cannot be transformed by JAX.

    Sampled images are bit-identical to those of `sampling.pool`. Each device looks up the images it
    has and the bytes are summed, so that a step sends one batch of bytes between devices and never
    the pool. The rest of the pool, 16 bytes per image, stays on the host until `parallel.replicate`
    copies it.

    Args:
        images: `[n, h, w, c]`, uint8 or floating in [0, 1]: an array, or anything with a shape and
            a dtype whose slices of rows are arrays, such as a memory map. A process reads only the
            rows of its own devices.
        labels: `[n]` integers in [0, num_classes).
        num_classes: number of classes.
        mean: mean of the channels, `[c]`, on the scale [0, 1].
        std: standard deviation of the channels, `[c]`, on the scale [0, 1].
        mesh: from `parallel.mesh`.
        weights: `[n]`, non-negative; uniform by default.
        empty: allow classes without samples.

    Returns:
        A pool whose images are `parallel.Rows`.
    """
    _checks.concrete("split_pool.pool", images, labels, weights)
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
