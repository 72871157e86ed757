"""Exact Gaussian kernel sums in bounded memory: the computation behind every density.

    log_sum_i = log( sum_j w_j exp(-|x_i - y_j|^2 / 2 h_i^2) ),    mass_i = sum_j w_j

where j runs over the points that share the label of query i. The pairs are processed in tiles, so
that memory grows with the tile and not with the number of pairs. Everything stays in log space:
in 128 dimensions the kernels of most pairs underflow, their logarithms do not.

Points that are split over a mesh axis are passed around a ring. Each device computes with the
piece it has, sends it to its neighbour and receives the next one, until it has seen all pieces. No
device ever holds more than two pieces, and the points are never gathered.
"""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxdd import _axes, _checks

TILE = {"cpu": 512, "gpu": 4096}
"""Default tile by backend; 2,048 for backends that are not listed.

Seconds for 60,000 x 128 in 10 classes on one x86 core with tiles of 128, 256, 384, 512 and 1,024:
3.2, 2.7, 2.5, 2.3 and 3.3. With small tiles, skipping pairs of tiles has a cost. Large tiles
include pairs that share no label, and do not fit the cache. Milliseconds on an H200 with tiles of
1,024, 2,048, 4,096, 8,192 and 16,384: 71, 24, 12, 13 and 19, because launching the kernels of a
small tile takes longer than its sums. Other backends have not been measured.
"""

_DIRECT_DIMENSIONS = 8  # Up to this, subtracting costs no more than expanding and loses no digits.


class Queries(NamedTuple):
    """Samples at which the sums are evaluated.

    Attributes:
        position: `[n, d]`. Centre the points at 0 for accuracy.
        label: `[n]` integers, ascending.
        sample: `[n]` integers, the number of the sample in the data.
        bandwidth: `[n]` h of the kernel. It is not divided into the position, so that a vmap over
            bandwidths shares all distances.
    """

    position: jax.Array
    label: jax.Array
    sample: jax.Array
    bandwidth: jax.Array


class Points(NamedTuple):
    """Samples that are summed over.

    Attributes:
        position: `[m, d]`.
        label: `[m]` integers, ascending.
        sample: `[m]` integers. A point with the number of a query is that query.
        weight: `[m]`, at least 0. A point of weight 0 is absent.
    """

    position: jax.Array
    label: jax.Array
    sample: jax.Array
    weight: jax.Array


class Sums(NamedTuple):
    """Kernel sums of n queries, both `[n]`; `log_sum` is -inf without points."""

    log_sum: jax.Array
    mass: jax.Array


def kernel_sums(
    queries: Queries,
    points: Points,
    *,
    leave_one_out: bool = False,
    tile: int | None = None,
    axis: str | None = None,
) -> Sums:
    """Sum the kernels of all points that share the label of a query, for every query.

    Pairs of tiles without a common label are skipped.

    Args:
        queries: sorted by label.
        points: sorted by label; the piece of this device if `axis` is given.
        leave_one_out: exclude the point that is the query itself.
        tile: largest number of queries and of points whose distances are in memory together.
            Defaults to `TILE` of the backend.
        axis: mesh axis over which the points are split in pieces of equal size (in `shard_map`).
    """
    queries, points, tile = *_widen((queries, points)), _tile(tile)
    sums_over = functools.partial(_local_sums, queries, leave_one_out=leave_one_out, tile=tile)
    if axis is None:
        return sums_over(points)
    size = jax.lax.axis_size(axis)
    neighbours = [(i, (i + 1) % size) for i in range(size)]

    def send(piece):
        return jax.tree.map(lambda x: jax.lax.ppermute(x, axis, neighbours), piece)

    # Each turn starts to send the current piece and sums over it, so that the transfer can overlap
    # with the computation. Partial sums are combined in log space. Only the reverse pass of a
    # gradient keeps all pieces.
    def turn(carry, _):
        piece, sums = carry
        return (send(piece), _combine(sums, sums_over(piece))), None

    (_, total), _ = jax.lax.scan(turn, (send(points), sums_over(points)), length=size - 1)
    return total


def own_sums(queries: Queries, *, tile: int | None = None) -> Sums:
    """Sum the kernels of all queries of a label, the query itself included, for every query.

    The result is that of `kernel_sums` with the queries as points of weight one, at half the cost.

    Args:
        queries: sorted by label, with one bandwidth per label.
        tile: see `kernel_sums`.
    """
    queries = _widen(queries)
    log_sum = _own_log_sum(queries, _tile(tile))
    # Labels are sorted: the mass is the length of the run of equal labels.
    first, last = (
        jnp.searchsorted(queries.label, queries.label, side=side) for side in ("left", "right")
    )
    return Sums(log_sum, (last - first).astype(log_sum.dtype))


# The kernel of a pair is symmetric when both samples have the same bandwidth. So each pair of tiles
# (i, j) with j >= i is computed once: its row sums belong to the queries of tile i, its column sums
# to those of tile j. No logsumexp is needed either: a sum contains the query's own kernel, which
# is 1, so it cannot underflow, and kernels are at most 1, so it cannot overflow.
#
# Differentiating the scan below would keep every tile of distances. The derivative is instead taken
# from `kernel_sums`, whose memory is also bounded in the reverse pass.
@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _own_log_sum(queries: Queries, tile: int) -> jax.Array:
    n = queries.label.size
    chex.assert_shape([queries.label, queries.sample, queries.bandwidth], (n,))
    tiles = jax.tree.map(lambda array: _in_tiles(array, tile), queries)
    present = _in_tiles(jnp.ones(n, queries.position.dtype), tile, fill="constant")
    tile_numbers = jnp.arange(len(present))

    def row(sums, i):
        first = jax.tree.map(lambda array: array[i], (tiles, present))

        def pair(sums, j):
            second = jax.tree.map(lambda array: array[j], (tiles, present))
            skipped = (j < i) | (first[0].label[-1] < second[0].label[0])
            zeros = lambda *pair: _axes.match(jnp.zeros((2, *sums.shape[1:]), sums.dtype), pair)
            rows, columns = jax.lax.cond(skipped, zeros, _symmetric_sums, first, second)
            return sums.at[i].add(rows).at[j].add(jnp.where(i == j, 0, columns)), None

        return jax.lax.scan(pair, sums, tile_numbers)[0], None

    sums, _ = jax.lax.scan(row, _axes.match(jnp.zeros_like(present), queries), tile_numbers)
    return jnp.log(sums.reshape(-1)[:n])


@_own_log_sum.defjvp
def _own_log_sum_jvp(tile, primals, tangents):
    def log_sum(queries):
        ones = jnp.ones_like(queries.bandwidth)
        points = Points(queries.position, queries.label, queries.sample, ones)
        return kernel_sums(queries, points, tile=tile).log_sum

    return _own_log_sum(*primals, tile), jax.jvp(log_sum, primals, tangents)[1]


def _symmetric_sums(
    first: tuple[Queries, jax.Array], second: tuple[Queries, jax.Array]
) -> jax.Array:
    """Return the kernel sums of both tiles over all pairs between them, `[2, tile]`."""
    (query, query_present), (point, point_present) = first, second
    squared = _squared_distances(query.position, point.position)
    squared = jnp.where(query.sample[:, None] == point.sample[None], 0, squared)
    same_class = query.label[:, None] == point.label[None]
    both = jnp.where(same_class, query_present[:, None] * point_present[None], 0)
    kernel = both * jnp.exp(-_rate(query.bandwidth)[:, None] * squared)
    return jnp.stack([kernel.sum(1), kernel.sum(0)])


def _widen(tree):
    """Return the floating arrays of a tree in float32 or wider."""
    floating = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    widen = lambda x: _checks.floating("array", x) if floating(x) else x
    return jax.tree.map(widen, tree)


def _rate(bandwidth: jax.Array) -> jax.Array:
    """Return 1 / 2h², finite for every h, because infinity times a distance of 0 would be nan."""
    return jnp.minimum(0.5 / bandwidth**2, jnp.finfo(bandwidth.dtype).max)


def _tile(tile: int | None) -> int:
    tile = TILE.get(jax.default_backend(), 2048) if tile is None else tile
    return _checks.count("tile", tile)


def _combine(first: Sums, second: Sums) -> Sums:
    log_sum = _logsumexp(jnp.stack([first.log_sum, second.log_sum], -1))
    return Sums(log_sum, first.mass + second.mass)


def _local_sums(queries: Queries, points: Points, *, leave_one_out: bool, tile: int) -> Sums:
    """Return the sums over the points of this device."""
    n, m = queries.label.size, points.label.size
    chex.assert_shape([queries.sample, queries.bandwidth], (n,))
    chex.assert_shape([points.sample, points.weight], (m,))
    query_tiles = jax.tree.map(lambda array: _in_tiles(array, tile), queries)
    point_tiles = jax.tree.map(lambda array: _in_tiles(array, tile), points)
    point_tiles = point_tiles._replace(weight=_in_tiles(points.weight, tile, fill="constant"))

    def row(query):
        def pair(point):
            disjoint = (query.label[-1] < point.label[0]) | (point.label[-1] < query.label[0])
            return jax.lax.cond(disjoint, _empty_sum, _kernel_sum, query, point, leave_one_out)

        # Without checkpoints the reverse pass would keep every tile of distances.
        parts = jax.lax.map(jax.checkpoint(pair, prevent_cse=False), point_tiles)
        return Sums(_logsumexp(parts[:, 0].T), parts[:, 1].sum(0))

    sums = jax.lax.map(jax.checkpoint(row, prevent_cse=False), query_tiles)
    return jax.tree.map(lambda array: array.reshape(-1)[:n], sums)


def _kernel_sum(query: Queries, point: Points, leave_one_out: bool) -> jax.Array:
    """Return the log of the weighted kernel sum, and the mass: `[2, tile of queries]`."""
    weight = point.weight[None]
    same = query.sample[:, None] == point.sample[None]
    present = (query.label[:, None] == point.label[None]) & (weight > 0)
    present &= ~(same & leave_one_out)
    # A sample is at distance 0 from itself; a rounding error there matters when h is small.
    squared = jnp.where(same, 0, _squared_distances(query.position, point.position))
    log_weight = jnp.log(jnp.where(weight > 0, weight, 1))
    exponent = log_weight - _rate(query.bandwidth)[:, None] * squared
    log_sum = _logsumexp(jnp.where(present, exponent, -jnp.inf))
    return jnp.stack([log_sum, jnp.where(present, weight, 0).sum(-1)])


def _empty_sum(query: Queries, point: Points, leave_one_out: bool) -> jax.Array:
    """Return what `_kernel_sum` returns if no label is shared."""
    log_sum_and_mass = jnp.array([[-jnp.inf], [0]], query.position.dtype)
    return _axes.match(jnp.tile(log_sum_and_mass, query.sample.size), (query, point))


def _squared_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return |x_i - y_j|², `[n, m]`.

    Above `_DIRECT_DIMENSIONS` they are computed as |x|² + |y|² - 2xy, by a fast matrix product. The
    expansion cancels badly far from 0, so callers centre the points. A product in bfloat16 or TF32
    would lose small distances, so the precision is "highest".
    """
    if x.shape[1] <= _DIRECT_DIMENSIONS:
        squares = [(a[:, None] - b[None]) ** 2 for a, b in zip(x.T, y.T, strict=True)]
        return functools.reduce(jnp.add, squares)
    product = jnp.matmul(x, y.T, precision="highest")
    squared = (x * x).sum(-1)[:, None] + (y * y).sum(-1)[None] - 2 * product
    # Rounding can make this negative. Adding a constant instead of taking a maximum keeps the
    # derivatives at distance 0 those of a square, where `maximum` has a kink.
    return squared + jax.lax.stop_gradient(jnp.maximum(-squared, 0))


def _logsumexp(x: jax.Array) -> jax.Array:
    """Reduce the last axis; a row of -inf gives -inf with gradient 0 (JAX's gives nan)."""
    top = jax.lax.stop_gradient(x.max(-1))
    top = jnp.where(jnp.isneginf(top), 0, top)
    total = jnp.exp(x - top[..., None]).sum(-1)
    return jnp.where(total == 0, -jnp.inf, top + jnp.log(jnp.where(total == 0, 1, total)))


def _in_tiles(array: jax.Array, tile: int, fill: str = "edge") -> jax.Array:
    """Cut `[n, ...]` into `[tiles, tile, ...]`; the edge fills the last, so labels stay sorted."""
    n = array.shape[0]
    tile = min(tile, n)
    array = jnp.pad(array, [(0, -n % tile)] + [(0, 0)] * (array.ndim - 1), mode=fill)
    return array.reshape(-1, tile, *array.shape[1:])
