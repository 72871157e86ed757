"""Kernel sums: what every density is made of.

    log_sum_i = log( sum_j w_j exp(-|x_i - y_j|^2 / 2 h_i^2) ),    mass_i = sum_j w_j

over the points j that have the label of query i. The sums are exact, in log space and tiled:
memory grows with the tile, never with the number of pairs. Where the points are split over a mesh
axis they go round in a ring: each device sends the piece it has to its neighbour until every
device has seen every piece, and no device ever holds more than one of them.
"""

import functools
import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

TILE = {"cpu": 512}
"""Tile for each backend, and 2,048 for those not named.

60,000 x 128 in 10 classes on one x86 core with tiles of 128, 256, 384, 512 and 1,024: 3.2, 2.7,
2.5, 2.3 and 3.3 s. Small tiles pay for every pair that is skipped, large ones for pairs of one tile
that share no label and for leaving the cache. At 512 the product alone takes 3.2 ns a pair, which
is the rate of a large matrix product on that core (80 GFLOP/s), and all together 4.9 ns. The other
backends' tile, which a launch of a kernel should not dominate, has not been measured.
"""

_DIRECT = 8  # Up to this many dimensions, subtracting is as cheap as expanding and loses no digits.


class Queries(NamedTuple):
    """Where the sums are wanted.

    Attributes:
        position: `[n, d]`, best with the points centred at 0.
        label: `[n]` integers, ascending.
        sample: `[n]` integers, which sample of the data this is.
        bandwidth: `[n]` h of the kernel. Apart from the position, so that a vmap over bandwidths
            repeats no distance.
    """

    position: jax.Array
    label: jax.Array
    sample: jax.Array
    bandwidth: jax.Array


class Points(NamedTuple):
    """What the sums are over.

    Attributes:
        position: `[m, d]`.
        label: `[m]` integers, ascending.
        sample: `[m]` integers; a point with the number of a query is that query.
        weight: `[m]`, at least 0; a point of weight 0 is absent.
    """

    position: jax.Array
    label: jax.Array
    sample: jax.Array
    weight: jax.Array


class Sums(NamedTuple):
    """Kernel sums of n queries, both `[n]`; `log_sum` is -inf where there is no point."""

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
    """Sums the kernels of all points of a query's label, for every query.

    Pairs of tiles without a common label are skipped.

    Args:
        queries: sorted by label.
        points: sorted by label; this device's piece where `axis` is given.
        leave_one_out: a point takes no part in the sum of the query that it is.
        tile: largest number of queries and of points whose distances are in memory together; by
            default that of `TILE`.
        axis: mesh axis over which the points are split in pieces of one size (inside `shard_map`).
            Only the reverse pass of a gradient keeps the pieces that came by.

    Raises:
        ValueError: tile < 1.
    """
    tile = _tile(tile)
    here = functools.partial(_local, queries, leave_one_out=leave_one_out, tile=tile)
    if axis is None:
        return here(points)
    size = jax.lax.axis_size(axis)
    neighbours = [(i, (i + 1) % size) for i in range(size)]

    def passed(piece):
        return jax.tree.map(lambda x: jax.lax.ppermute(x, axis, neighbours), piece)

    def turn(carry, _):
        piece, so_far = carry
        return (passed(piece), _joined(so_far, here(piece))), None

    (_, total), _ = jax.lax.scan(turn, (passed(points), here(points)), length=size - 1)
    return total


def own_sums(queries: Queries, *, tile: int | None = None) -> Sums:
    """Sums the kernels of all queries of its label, its own included, for every query.

    What `kernel_sums` gives where the queries are the points and all weigh one, for half the work:
    a pair of tiles is taken once for both of its sides. As no sum is below its own kernel of one,
    none needs the largest exponent taken out. Derivatives are those of `kernel_sums`, whose memory
    is bounded in the reverse pass, too.

    Args:
        queries: sorted by label; those of one label have one bandwidth.
        tile: as in `kernel_sums`.

    Raises:
        ValueError: tile < 1.
    """
    return _own_sums(queries, _tile(tile))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _own_sums(queries: Queries, tile: int) -> Sums:
    n = queries.label.size
    tiles = jax.tree.map(lambda array: _in_tiles(array, tile), queries)
    present = _in_tiles(jnp.ones(n, queries.position.dtype), tile, fill="constant")
    numbers = jnp.arange(len(present))

    def row(sums, i):
        one = jax.tree.map(lambda array: array[i], (tiles, present))

        def pair(sums, j):
            other = jax.tree.map(lambda array: array[j], (tiles, present))
            skipped = (j < i) | (one[0].label[-1] < other[0].label[0])
            nothing = lambda *pair: _varying(jnp.zeros((2, *sums.shape[1:]), sums.dtype), pair)
            rows, columns = jax.lax.cond(skipped, nothing, _symmetric_sums, one, other)
            return sums.at[i].add(rows).at[j].add(jnp.where(i == j, 0, columns)), None

        return jax.lax.scan(pair, sums, numbers)[0], None

    sums, _ = jax.lax.scan(row, _varying(jnp.zeros_like(present), queries), numbers)
    first, last = (
        jnp.searchsorted(queries.label, queries.label, side=side) for side in ("left", "right")
    )
    return Sums(jnp.log(sums.reshape(-1)[:n]), (last - first).astype(sums.dtype))


@_own_sums.defjvp
def _own_sums_jvp(tile, primals, tangents):
    def sums(queries):
        ones = jnp.ones_like(queries.bandwidth)
        points = Points(queries.position, queries.label, queries.sample, ones)
        return kernel_sums(queries, points, tile=tile)

    return _own_sums(*primals, tile), jax.jvp(sums, primals, tangents)[1]


def _symmetric_sums(one: tuple[Queries, jax.Array], other: tuple[Queries, jax.Array]) -> jax.Array:
    """Kernel sums over the pairs of two tiles, for either tile: `[2, tile]`."""
    (query, here), (point, there) = one, other
    squared = _squared_distances(query.position, point.position)
    squared = jnp.where(query.sample[:, None] == point.sample, 0, squared)
    both = (query.label[:, None] == point.label) * here[:, None] * there
    kernel = both * jnp.exp(-_rate(query.bandwidth)[:, None] * squared)
    return jnp.stack([kernel.sum(1), kernel.sum(0)])


def _rate(bandwidth: jax.Array) -> jax.Array:
    """1 / 2h², finite for every h: infinity times the distance 0 of a sample to itself is nan."""
    return jnp.minimum(0.5 / bandwidth**2, jnp.finfo(bandwidth.dtype).max)


def _tile(tile: int | None) -> int:
    tile = TILE.get(jax.default_backend(), 2048) if tile is None else tile
    if not isinstance(tile, numbers.Integral):
        raise TypeError(f"tile must be an integer, found {tile!r}")
    if tile < 1:
        raise ValueError(f"tile must be at least 1, found {tile}")
    return tile


def _joined(one: Sums, other: Sums) -> Sums:
    log_sum = _logsumexp(jnp.stack([one.log_sum, other.log_sum], -1))
    return Sums(log_sum, one.mass + other.mass)


def _local(queries: Queries, points: Points, *, leave_one_out: bool, tile: int) -> Sums:
    n = queries.label.size
    query_tiles = jax.tree.map(lambda array: _in_tiles(array, tile), queries)
    point_tiles = jax.tree.map(lambda array: _in_tiles(array, tile), points)
    point_tiles = point_tiles._replace(weight=_in_tiles(points.weight, tile, fill="constant"))

    def row(query):
        def pair(point):
            apart = (query.label[-1] < point.label[0]) | (point.label[-1] < query.label[0])
            return jax.lax.cond(apart, _nothing, _kernel_sum, query, point, leave_one_out)

        # Without checkpoints the reverse pass would keep every tile of distances.
        parts = jax.lax.map(jax.checkpoint(pair, prevent_cse=False), point_tiles)
        return Sums(_logsumexp(parts[:, 0].T), parts[:, 1].sum(0))

    found = jax.lax.map(jax.checkpoint(row, prevent_cse=False), query_tiles)
    return jax.tree.map(lambda array: array.reshape(-1)[:n], found)


def _kernel_sum(query: Queries, point: Points, leave_one_out: bool) -> jax.Array:
    """Log of the weighted kernel sum, and the mass: `[2, tile of queries]`."""
    same = query.sample[:, None] == point.sample
    present = (query.label[:, None] == point.label) & (point.weight > 0)
    present &= ~(same & leave_one_out)
    # A sample is at distance 0 from itself; a rounding error there matters when h is small.
    squared = jnp.where(same, 0, _squared_distances(query.position, point.position))
    log_weight = jnp.log(jnp.where(point.weight > 0, point.weight, 1))
    exponent = log_weight - _rate(query.bandwidth)[:, None] * squared
    log_sum = _logsumexp(jnp.where(present, exponent, -jnp.inf))
    return jnp.stack([log_sum, jnp.where(present, point.weight, 0).sum(-1)])


def _nothing(query: Queries, point: Points, leave_one_out: bool) -> jax.Array:
    """What `_kernel_sum` gives where no label is shared."""
    log_sum_and_mass = jnp.array([[-jnp.inf], [0]], query.position.dtype)
    return _varying(jnp.tile(log_sum_and_mass, query.sample.size), (query, point))


def _varying(constant: jax.Array, like: Any) -> jax.Array:
    """The constant, varying over the mesh axes that some leaf of `like` varies over.

    Under shard_map both branches of a cond and all carries of a scan must vary over the same ones.
    """
    value = functools.reduce(jnp.add, [leaf.ravel()[0] for leaf in jax.tree.leaves(like)])
    return jnp.where(False, value.astype(constant.dtype), constant)


def _squared_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    if x.shape[1] <= _DIRECT:
        squares = [(a[:, None] - b) ** 2 for a, b in zip(x.T, y.T, strict=True)]
        return functools.reduce(jnp.add, squares)
    product = jnp.matmul(x, y.T, precision="highest")
    squared = (x * x).sum(-1)[:, None] + (y * y).sum(-1) - 2 * product
    # Added, so that all derivatives at distance 0, where `maximum` bends, are those of squares.
    return squared + jax.lax.stop_gradient(jnp.maximum(-squared, 0))


def _logsumexp(x: jax.Array) -> jax.Array:
    """Over the last axis; where all is -inf the result is -inf and the gradient 0, not NaN."""
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
