"""Several devices: the same numbers, from all of them together.

A one-dimensional mesh is all there is: `mesh()` lays it over the devices of all processes. What is
small is on every device (`replicate`), what is large is split along its rows:

* `split_sampler` splits the batches that a method draws, `split_network` whatever a network is
  applied to, and `replicate_state` puts the state together again after each step: `jit` adds the
  sums over the devices that the losses need. The result is that of one device up to the order of additions.
* `Rows` are an array of which each device holds some, looked up by index; `apply_by_rows` goes through
  all of them.
* `map_rows` gives each device some rows of an array, such as the keys of an evaluation, and
  `sum_rows` adds up what they make of them; `thread_rows` gives them to the threads of one CPU.

A training set that devices share, and densities of its samples, are in `spread`; what several
devices of one CPU need beforehand is in `runs.programs`.
"""

import dataclasses
import functools
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from jaxdd import networks

AXIS = "devices"
"""Name of the mesh axis."""


def mesh(*, devices: Sequence[Any] | None = None) -> Mesh:
    """Lays a line over the devices.

    Args:
        devices: all devices of all processes where omitted.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (AXIS,), devices=devices, axis_types=(AxisType.Auto,))


def cpu_mesh() -> Mesh | None:
    """Returns the mesh of the devices that `JAX_NUM_CPU_DEVICES` made of a CPU; None without it."""
    if getattr(jax.config, "jax_num_cpu_devices") < 2 or jax.default_backend() != "cpu":  # noqa: B009
        return None
    return mesh()


def is_one_cpu(mesh: Mesh) -> bool:
    """Whether all devices of a mesh are parts of the CPU of this process."""
    here = jax.process_index()
    return all(each.platform == "cpu" and each.process_index == here for each in mesh.devices.flat)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts a copy of every array of a tree on every device.

    Every process must come with the same values. The images of `spread.pool` stay where they are.
    """
    return _place(tree, NamedSharding(mesh, PartitionSpec()))


def split(tree: Any, mesh: Mesh) -> Any:
    """Splits every array of a tree along its first axis, which the devices must divide.

    Every process must come with the whole of the same values.

    Raises:
        ValueError: for an array whose rows are not a multiple of the devices.
    """
    for leaf in jax.tree.leaves(tree):
        if not leaf.ndim or len(leaf) % mesh.size:
            raise ValueError(f"{mesh.size} devices cannot share the rows of shape {leaf.shape}")
    return _place(tree, NamedSharding(mesh, PartitionSpec(AXIS)))


def _place(tree, sharding):
    def place(x):
        if _is_shared(x):
            return x
        if sharding.is_fully_addressable:
            # A donated argument must not take the caller's array along, which could be aliased.
            return jax.device_put(x, sharding, may_alias=False)
        # device_put would send the array round to see that every process has the same.
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(place, tree, is_leaf=_is_shared)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("array",), meta_fields=("count", "mesh")
)
@dataclasses.dataclass(frozen=True)
class Rows:
    """An array `[n, …]` whose rows the devices of a mesh share, from `spread.pool`.

    Attributes:
        array: the rows, and black ones after them, so that the devices divide their number.
        count: n.
        mesh: the devices.
    """

    array: Any
    count: int
    mesh: Mesh

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the array."""
        return self.count, *self.array.shape[1:]

    @property
    def dtype(self) -> Any:
        """That of the array."""
        return self.array.dtype

    def __len__(self):
        return self.count

    def __getitem__(self, indices: ArrayLike) -> jax.Array:
        """Looks up rows at indices `[…]` from 0 to n - 1; whole on every device."""
        return _looked_up(self.array, indices, mesh=self.mesh)


def split_rows(array: jax.Array, mesh: Mesh | None) -> Any:
    """Returns an array as `Rows` that the devices of a mesh share; as it is without a mesh."""
    if mesh is None:
        return array
    return Rows(split(pad_rows(array, mesh.size), mesh), len(array), mesh)


@functools.partial(jax.jit, static_argnames="mesh")
def _looked_up(held, indices, *, mesh):
    """Each device looks up what it has, and they add it up: 0 but for one of them."""

    def add(held, indices):
        own = indices - jax.lax.axis_index(AXIS) * len(held)
        has = (own >= 0) & (own < len(held))
        zeroed = jax.vmap(lambda i, has: held[i] * has.astype(held.dtype))
        found = zeroed(jnp.where(has, own, 0).ravel(), has.ravel())
        return jax.lax.psum(found.reshape(*indices.shape, *held.shape[1:]), AXIS)

    whole, part = PartitionSpec(), PartitionSpec(AXIS)
    return jax.shard_map(add, mesh=mesh, in_specs=(part, whole), out_specs=whole)(held, indices)


def mesh_of(array: Any) -> Mesh | None:
    """Returns the mesh whose devices share the rows of an array; None where they do not."""
    return array.mesh if isinstance(array, Rows) else None


def _is_shared(x):
    return isinstance(x, Rows)


def to_local(tree: Any) -> Any:
    """Brings what is whole on every device of a mesh to the default device of this process.

    Other arrays are returned as they are.
    """

    def bring(x):
        spread = isinstance(x, jax.Array) and isinstance(x.sharding, NamedSharding)
        return jnp.asarray(np.asarray(x)) if spread else x

    return jax.tree.map(bring, tree, is_leaf=_is_shared)


def apply_by_rows(function: Callable, array: Any, *others: Any) -> Any:
    """Applies a function of rows to all of them, each device to those that it holds.

    Args:
        function: as in `map_rows`; where devices share no rows it is called as it is, by a CPU for
            a block of rows in each thread.
        array: such as the images of `spread.pool`.
        others: its other arguments.

    Returns:
        What it makes of the rows, on the default device.
    """
    mesh = mesh_of(array)
    if mesh is None:
        return _by_threads(function, array, *others)
    found = jax.jit(map_rows(function, mesh))(array.array, *replicate(others, mesh))
    return jax.tree.map(lambda x: x[: len(array)], to_local(found))


_FEW = 4096  # rows that are not worth threads


def _by_threads(function, array, *others):
    """Applies a function of rows to a block of them in each thread of a CPU.

    Of 15,000 images of 32×32×3 whitened patches take 8 s on two cores, and 12 all at once, since
    the operations of a micro-batch are too small for both.
    """
    threads, n = multiprocessing.cpu_count(), len(array)
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((array, others)))
    if n < _FEW or traced or jax.default_backend() != "cpu":
        return function(array, *others)
    whole = pad_rows(array, threads)
    size = len(whole) // threads
    blocks = [whole[i * size : (i + 1) * size] for i in range(threads)]
    with futures.ThreadPoolExecutor(threads) as pool:
        each = lambda block: jax.block_until_ready(function(block, *others))
        found = list(pool.map(each, blocks))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[:n], *found)


def split_sampler(sampler: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Splits the samples of each class of a batch over the devices.

    The batch is the one that `sampler` draws; each device takes its part of it out of its own copy
    of the pool, so that no image travels. Of a `spread.pool`, the images of the batch do.

    Args:
        sampler: `sampler(key, pool) -> batch`.
        mesh: from `mesh`.
    """
    samples = NamedSharding(mesh, PartitionSpec(None, AXIS))

    def drawn(key, pool):
        batch = sampler(key, pool)
        return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, samples), batch)

    return drawn


def split_network(network: Any, mesh: Mesh) -> Any:
    """Splits every batch of images that a network or an encoder is applied to.

    Args:
        network: a `networks.Network`, or a `contrastive.Encoder`.
        mesh: from `mesh`.

    Returns:
        What `methods`, `contrastive`, `training` and `evaluate` take in its place.
    """
    rows = NamedSharding(mesh, PartitionSpec(AXIS))

    def apply(params, images):
        return network.apply(params, jax.lax.with_sharding_constraint(images, rows))

    return networks.Functions(network.init, apply)


def replicate_state(method: Any, mesh: Mesh) -> Any:
    """Has every step of a method end with its whole state on every device.

    Left to itself the compiler may leave the synthetic images where their gradients came up, and
    compile the next chunk anew for what it finds there.

    Args:
        method: a `methods.Method` or `contrastive.Trainer`, of a split network.
        mesh: from `mesh`.
    """

    def step(key, state, batch):
        return constrain_replicated(
            method.step(key, constrain_replicated(state, mesh), batch), mesh
        )

    return method._replace(step=step)


def constrain_replicated(tree: Any, mesh: Mesh | None) -> Any:
    """Has what a program computes end up as a whole on every device of a mesh, if there is one."""
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


def map_rows(function: Callable, mesh: Mesh) -> Callable:
    """Gives every device some of the rows of an array, and joins what it makes of them.

    Args:
        function: `function(rows, *others)`, each row of whose results depends on that row and the
            other arguments alone; such as `evaluate.evaluate`, whose rows are keys.
        mesh: from `mesh`.

    Returns:
        The function of all rows, of which there may be any number; `jit` it. Its results are whole
        on every device.
    """

    def mapped(rows, *others):
        whole, part = PartitionSpec(), PartitionSpec(AXIS)
        # No device hears of another in here: a gradient of what all share is not summed over them.
        each = jax.shard_map(
            function,
            mesh=mesh,
            in_specs=(part, *[whole] * len(others)),
            out_specs=part,
            check_vma=False,
        )
        n = len(jax.tree.leaves(rows)[0])
        found = jax.tree.map(lambda x: x[:n], each(pad_rows(rows, mesh.size), *others))
        return constrain_replicated(found, mesh)

    return mapped


def sum_rows(function: Callable, mesh: Mesh) -> Callable:
    """Gives every device some of the rows of an array, and adds up what it makes of them.

    Args:
        function: as in `map_rows`, but for its result, which is a sum over rows; rows of zeros,
            which fill up the last device's, must add nothing.
        mesh: from `mesh`.

    Returns:
        The function of all rows; `jit` it. Its result is whole on every device.
    """

    def added(rows, *others):
        whole, part = PartitionSpec(), PartitionSpec(AXIS)
        each = jax.shard_map(
            lambda rows, *others: jax.lax.psum(function(rows, *others), AXIS),
            mesh=mesh,
            in_specs=(part, *[whole] * len(others)),
            out_specs=whole,
            check_vma=False,
        )
        return each(jax.tree.map(lambda x: pad_rows_with_zeros(x, mesh.size), rows), *others)

    return added


def thread_rows(function: Callable, *, threads: int | None = None) -> Callable:
    """Compiles `map_rows` for the threads of one CPU; on other devices it is `jit`.

    The operations of a small network do not fill the cores: on two of them an update of a ConvNet
    with 100 images takes 37 ms instead of 56 at width 32, and 307 instead of 383 at width 128, when
    two networks are trained at once.

    Args:
        function: as in `map_rows`.
        threads: at most as many rows at once; the number of cores where omitted.
    """
    compiled = jax.jit(function)
    threads = multiprocessing.cpu_count() if threads is None else threads

    def mapped(rows, *others):
        if jax.default_backend() != "cpu":
            return compiled(rows, *others)
        n = len(jax.tree.leaves(rows)[0])
        each = [jax.tree.map(lambda x, i=i: x[i : i + 1], rows) for i in range(n)]
        pool = futures.ThreadPoolExecutor(threads)
        try:
            found = list(pool.map(lambda row: jax.block_until_ready(compiled(row, *others)), each))
        finally:
            pool.shutdown(cancel_futures=True)
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *found)

    return mapped


def pmap_rows(function: Callable, *, devices: Sequence[Any] | None = None) -> Callable:
    """Compiles `map_rows` by `jax.pmap`, for devices of this process.

    Args:
        function: as in `map_rows`.
        devices: all local devices where omitted.
    """
    devices = jax.local_devices() if devices is None else devices

    def mapped(rows, *others):
        cut = lambda x: x.reshape(len(devices), -1, *x.shape[1:])
        parts = jax.tree.map(cut, pad_rows(rows, len(devices)))
        found = compiled(len(others))(parts, *others)
        n = len(jax.tree.leaves(rows)[0])
        return jax.tree.map(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])[:n], found)

    @functools.cache
    def compiled(others):
        return jax.pmap(function, devices=devices, in_axes=(0, *[None] * others))

    return mapped


def pad_rows(tree: Any, devices: int) -> Any:
    """Repeats the last row of each array until the devices divide their number."""

    def fill(x):
        x = jnp.asarray(x)
        more = -len(x) % devices
        return jnp.concatenate([x, jnp.repeat(x[-1:], more, axis=0)]) if more else x

    return jax.tree.map(fill, tree)


def pad_rows_with_zeros(array: Any, devices: int) -> jax.Array:
    """Adds rows of zeros until the devices divide their number."""
    array = jnp.asarray(array)
    return jnp.pad(array, [(0, -len(array) % devices)] + [(0, 0)] * (array.ndim - 1))
