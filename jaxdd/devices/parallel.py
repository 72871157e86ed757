"""Share the work of one program among several devices, with the same results as on one device.

There is one mesh with one axis, from `mesh`, over the devices of all processes. Small arrays are
copied to every device (`replicate`), large ones are split along their rows:

* `split_sampler` and `split_network` split batches of images, and `replicate_state` copies the
  state to all devices after each step. `jit` adds the sums over devices that the losses need, so
  the result is that of one device up to the order of additions.
* `Rows` is an array whose rows are spread over the devices and looked up by index;
  `apply_by_rows` applies a function to all of them.
* `map_rows` gives each device some rows of an array, such as the keys of an evaluation;
  `sum_rows` also sums the results; `thread_rows` uses the threads of one CPU instead.

`split_pool` spreads a training set over devices. `runs.programs` prepares several CPU devices.
"""

import collections
import contextlib
import contextvars
import dataclasses
import functools
import multiprocessing
import threading
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

_WHOLE, _BY_ROW = PartitionSpec(), PartitionSpec(AXIS)

_SETTINGS = (
    "default_prng_impl", "threefry_partitionable", "enable_x64", "default_matmul_precision",
    "numpy_dtype_promotion", "numpy_rank_promotion", "softmax_custom_jvp", "legacy_prng_key",
    "enable_custom_prng", "disable_jit", "debug_nans", "debug_infs", "debug_key_reuse",
    "check_tracer_leaks", "enable_checks", "transfer_guard",
)  # fmt: skip


def mesh(*, devices: Sequence[Any] | None = None) -> Mesh:
    """Return a one-dimensional mesh.

    Args:
        devices: its devices; by default those of all processes.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (AXIS,), devices=devices, axis_types=(AxisType.Auto,))


def cpu_mesh() -> Mesh | None:
    """Return the mesh of several CPU devices set by `JAX_NUM_CPU_DEVICES`, or None without them."""
    if getattr(jax.config, "jax_num_cpu_devices") < 2 or jax.default_backend() != "cpu":  # noqa: B009
        return None
    return mesh()


def is_one_cpu(mesh: Mesh) -> bool:
    """Return whether all devices of a mesh are parts of the CPU of this process."""
    here = jax.process_index()
    return all(x.platform == "cpu" and x.process_index == here for x in mesh.devices.flat)


# --- arrays on several devices -------------------------------------------------------------------


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """Copy every array of a tree to every device of a mesh; `Rows` in it stay as they are.

    Every process must pass the same values. Without a mesh, the tree stays as it is.
    """
    return tree if mesh is None else _place(tree, NamedSharding(mesh, _WHOLE))


def _is_rows(x):
    return isinstance(x, Rows)


def _place(tree, sharding):
    def place(x):
        if _is_rows(x):
            return x
        if sharding.is_fully_addressable:
            # Without aliasing, because donating the result must not delete the caller's array.
            return jax.device_put(x, sharding, may_alias=False)
        # device_put would first send the array around to check that all processes agree.
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(place, tree, is_leaf=_is_rows)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("array",), meta_fields=("count", "mesh")
)
@dataclasses.dataclass(frozen=True)
class Rows:
    """An array `[n, …]` whose rows are spread over the devices of a mesh.

    Attributes:
        array: the rows, padded so that the number of devices divides their number.
        count: n.
        mesh: the devices.
    """

    array: Any
    count: int
    mesh: Mesh

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array without padding."""
        return self.count, *self.array.shape[1:]

    @property
    def dtype(self) -> Any:
        """Type of the array."""
        return self.array.dtype

    def __len__(self):
        return self.count

    def __getitem__(self, indices: ArrayLike) -> jax.Array:
        """Return the rows at indices `[…]` in 0..n−1, replicated over the devices."""
        return _look_up(self.array, indices, mesh=self.mesh)


@functools.partial(jax.jit, static_argnames="mesh")
def _look_up(array, indices, *, mesh):
    # Each device looks up the rows it has and contributes zeros for the others; the sum over the
    # devices is the result. Only these rows are sent, in their own dtype.
    def add(array, indices):
        own = indices - jax.lax.axis_index(AXIS) * len(array)
        present = (own >= 0) & (own < len(array))
        row = lambda i, present: array[i] * present.astype(array.dtype)
        rows = jax.vmap(row)(jnp.where(present, own, 0).ravel(), present.ravel())
        return jax.lax.psum(rows.reshape(*indices.shape, *array.shape[1:]), AXIS)

    in_specs = _BY_ROW, _WHOLE
    return jax.shard_map(add, mesh=mesh, in_specs=in_specs, out_specs=_WHOLE)(array, indices)


def split_rows(array: jax.Array, mesh: Mesh | None) -> Any:
    """Spread an array over the devices of a mesh as `Rows`; return it as it is without a mesh."""
    if mesh is None:
        return array
    rows = _place(pad_rows(array, mesh.size), NamedSharding(mesh, _BY_ROW))
    return Rows(rows, len(array), mesh)


def mesh_of(array: Any) -> Mesh | None:
    """Return the mesh of `Rows`, and None for any other array."""
    return array.mesh if _is_rows(array) else None


def to_local(tree: Any) -> Any:
    """Copy replicated arrays to the default device of this process; leave others as they are."""

    def copy(x):
        if isinstance(x, Tracer) or not isinstance(x, jax.Array):
            return x
        return jnp.asarray(np.asarray(x)) if isinstance(x.sharding, NamedSharding) else x

    return jax.tree.map(copy, tree, is_leaf=_is_rows)


def pad_rows(tree: Any, devices: int) -> Any:
    """Repeat the last row of each array until the number of devices divides that of the rows."""

    def pad(x):
        x = jnp.asarray(x)
        missing = -len(x) % devices
        return jnp.concatenate([x, jnp.repeat(x[-1:], missing, axis=0)]) if missing else x

    return jax.tree.map(pad, tree)


def pad_rows_with_zeros(array: Any, devices: int) -> jax.Array:
    """Add rows of zeros until the number of devices divides that of the rows."""
    array = jnp.asarray(array)
    return jnp.pad(array, [(0, -len(array) % devices)] + [(0, 0)] * (array.ndim - 1))


# --- distillation on several devices -------------------------------------------------------------


def split_sampler(sampler: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Split the samples of each class of a batch over the devices.

    Batches are those of `sampler`. Each device takes its part from its own copy of the pool, so no
    images are sent between devices. If the pool itself is split, the images of the batch are sent.

    Args:
        sampler: `sampler(key, pool) -> batch`.
        mesh: from `mesh`.
    """
    samples = NamedSharding(mesh, PartitionSpec(None, AXIS))

    def split_batch(key, pool):
        batch = sampler(key, pool)
        return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, samples), batch)

    return split_batch


def split_network(network: Any, mesh: Mesh) -> networks.Functions:
    """Split every batch of images that a network or an encoder is applied to.

    Args:
        network: a `networks.Network`, or a `contrastive.Encoder`.
        mesh: from `mesh`.

    Returns:
        The network to use in its place.
    """
    rows = NamedSharding(mesh, _BY_ROW)

    def apply(params, images, **options):
        return network.apply(params, jax.lax.with_sharding_constraint(images, rows), **options)

    return networks.Functions(network.init, apply)


def replicate_state(method: Any, mesh: Mesh) -> Any:
    """Keep the whole state of a method on every device after each step.

    Otherwise the compiler may leave the synthetic images where their gradients were computed, and
    would compile the next chunk again for that placement.

    Args:
        method: a `methods.Method` or `contrastive.Trainer`, of a network from `split_network`.
        mesh: from `mesh`.
    """

    def step(key, state, batch):
        state = constrain_replicated(state, mesh)
        return constrain_replicated(method.step(key, state, batch), mesh)

    return method._replace(step=step)


def constrain_replicated(tree: Any, mesh: Mesh | None) -> Any:
    """Constrain a tree in a compiled program to be replicated over a mesh, if there is one."""
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, _WHOLE))


# --- functions of rows ---------------------------------------------------------------------------


def map_rows(function: Callable, mesh: Mesh) -> Callable:
    """Split the rows of an array over the devices, and join the results.

    Args:
        function: `function(rows, *others)`, such as `evaluate.evaluate`, whose rows are keys. Each
            row of its results depends on that row of `rows` and on the other arguments only.
        mesh: from `mesh`.

    Returns:
        A function of the same arguments with any number of rows, to be compiled by `jit`. Its
        results are replicated.
    """

    def mapped(rows, *others):
        # With check_vma, JAX would sum gradients in `others` over the devices.
        per_device = jax.shard_map(
            function,
            mesh=mesh,
            in_specs=(_BY_ROW, *[_WHOLE] * len(others)),
            out_specs=_BY_ROW,
            check_vma=False,
        )
        n = len(jax.tree.leaves(rows)[0])
        results = per_device(pad_rows(rows, mesh.size), *others)
        return constrain_replicated(jax.tree.map(lambda x: x[:n], results), mesh)

    return mapped


def sum_rows(function: Callable, mesh: Mesh) -> Callable:
    """Split the rows of arrays over the devices, and sum the results.

    As in `microbatch.total`, the last array of `rows` is padded with zeros and the others with
    copies of their last row.

    Args:
        function: `function(rows, *others)`, which returns sums over the rows. A row that is zero in
            the last array of `rows` must contribute zero.
        mesh: from `mesh`.

    Returns:
        A function of the same arguments with any number of rows, to be compiled by `jit`. Its
        result is replicated.
    """

    def summed(rows, *others):
        *inputs, factor = jax.tree.leaves(rows)
        padded = pad_rows(inputs, mesh.size)
        padded.append(pad_rows_with_zeros(factor, mesh.size))
        per_device = jax.shard_map(
            lambda rows, *others: jax.lax.psum(function(rows, *others), AXIS),
            mesh=mesh,
            in_specs=(_BY_ROW, *[_WHOLE] * len(others)),
            out_specs=_WHOLE,
            check_vma=False,
        )
        return per_device(jax.tree.unflatten(jax.tree.structure(rows), padded), *others)

    return summed


def thread_rows(function: Callable) -> Callable:
    """Compile a function of rows that processes each row in a thread of its own on a CPU.

    On other devices, and inside other transformations of JAX, it is `jit`. All functions share one
    thread per core, so they can be called at the same time, see `call_all`.

    Args:
        function: as for `map_rows`.

    Returns:
        The compiled function of all rows.
    """
    # The operations of a small network do not keep all cores busy. On two cores an update of a
    # ConvNet with 100 images takes 37 ms instead of 56 at width 32, and 307 instead of 383 at width
    # 128, when two networks are trained at once.
    compiled = _Compiled(function)

    def mapped(rows, *others):
        n = len(jax.tree.leaves(rows)[0])
        if n == 0 or not _can_use_threads((rows, others)):
            return compiled.jitted(rows, *others)
        rows = jax.tree.map(_clone_key, rows)
        blocks = [jax.tree.map(lambda x, i=i: jnp.asarray(x[i : i + 1]), rows) for i in range(n)]
        return _in_threads(compiled, blocks, others)

    return mapped


def _clone_key(x):
    """Let keys be used again, for example to evaluate several sets by the same networks."""
    is_key = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.random.clone(x) if is_key else x


_FEW_ROWS = 4096  # Rows below which threads cost more than they save.


def apply_by_rows(function: Callable, array: Any, *others: Any) -> Any:
    """Apply a function to all rows of an array, using all devices, or all cores of a CPU.

    `Rows` are processed on the devices that they are on. Any other array is passed to the function
    as a whole, except on a CPU: there an array of 4,096 rows or more is cut into one block per
    core, and the blocks are processed by threads at the same time.

    Args:
        function: as for `map_rows`; it is compiled.
        array: an array `[n, …]`, such as the images of a pool.
        others: its other arguments.

    Returns:
        The results for all rows, on the default device.
    """
    mesh = mesh_of(array)
    if mesh is not None:
        results = jax.jit(map_rows(function, mesh))(array.array, *replicate(others, mesh))
        return jax.tree.map(lambda x: x[: len(array)], to_local(results))
    if len(array) < _FEW_ROWS or not _can_use_threads((array, others)):
        return function(array, *others)
    # The operations of a micro-batch are too small for all cores: whitened patches of 15,000
    # images of 32×32×3 take 12 s on two cores by one program, and 8 s by one program per core.
    cores = multiprocessing.cpu_count()
    blocks = jnp.split(pad_rows(array, cores), cores)
    results = _in_threads(_compiled(function), blocks, others)
    return jax.tree.map(lambda x: x[: len(array)], results)


def _can_use_threads(arguments):
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arguments))
    return jax.default_backend() == "cpu" and not traced


def one_at_a_time(function: Callable) -> Callable:
    """Return the function behind a lock, so that one thread calls it at a time."""
    lock = threading.Lock()

    def locked(*args, **kwargs):
        with lock:
            return function(*args, **kwargs)

    return locked


_threads = one_at_a_time(
    functools.cache(lambda: futures.ThreadPoolExecutor(multiprocessing.cpu_count()))
)
_stopped = contextvars.ContextVar[threading.Event | None]("stopped", default=None)


def _in_threads(compiled, blocks, others):
    others = jax.tree.map(jnp.asarray, others)
    run, stopped, jobs = compiled(blocks[0], *others), _stopped.get(), []

    def compute(block):
        if stopped is not None and stopped.is_set():
            raise futures.CancelledError
        return jax.block_until_ready(run(block, *others))

    try:
        jobs += [_threads().submit(with_settings(compute), block) for block in blocks]
        results = [job.result() for job in jobs]
    finally:
        for job in jobs:
            job.cancel()
        futures.wait(jobs)
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *results)


def call_all(functions: Sequence[Callable[[], Any]], *, mesh: Mesh | None = None) -> list[Any]:
    """Call functions without arguments and return their results.

    On a CPU they run at the same time, as many as there are cores, so that no core is idle while
    the last rows of one function (`thread_rows`) are computed. On other devices, and on the devices
    of a mesh, they run one after another. After an error or Ctrl-C, no further function is started
    and no further row computed.

    >>> call_all([lambda: 1, lambda: 2])
    [1, 2]
    """
    if jax.default_backend() != "cpu" or not (mesh is None or is_one_cpu(mesh)):
        return [function() for function in functions]
    stopped, jobs = threading.Event(), []
    pool = futures.ThreadPoolExecutor(multiprocessing.cpu_count())

    def call(function):
        _stopped.set(stopped)
        return function()

    try:
        jobs += [pool.submit(with_settings(call), function) for function in functions]
        done = futures.wait(jobs, return_when=futures.FIRST_EXCEPTION).done
        for job in done:
            job.result()  # raises the exception of one that failed
        return [job.result() for job in jobs]
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)


def with_settings(function: Callable) -> Callable:
    """Return a function for other threads, which uses the settings of JAX of this thread there.

    Contexts such as `jax.enable_x64` hold in one thread only.
    """
    values = {name: getattr(jax.config, f"jax_{name}") for name in _SETTINGS}

    def wrapped(*args, **kwargs):
        with contextlib.ExitStack() as stack:
            for name, value in values.items():
                if value is not None:
                    stack.enter_context(getattr(jax, name)(value))
            return function(*args, **kwargs)

    return wrapped


class _Compiled:
    """A function that is compiled in the thread of the caller, once per shapes and configuration.

    JAX's configuration contexts, such as `jax.enable_x64` or `jax.default_matmul_precision`, are
    local to a thread. A worker thread that compiles would not see those of the caller.
    """

    def __init__(self, function):
        self.jitted = jax.jit(function)
        self.executables = {}
        self.locks = collections.defaultdict(threading.Lock)  # so that each compiles once

    def __call__(self, *arguments):
        traced = self.jitted.trace(*arguments)
        # For the same shapes, types and configuration, `trace` returns the same jaxpr object.
        places = tuple(getattr(x, "sharding", None) for x in jax.tree.leaves(arguments))
        key = traced.jaxpr, places
        with self.locks[key]:
            if key not in self.executables:
                self.executables[key] = traced.lower().compile()
        return self.executables[key]


def _compiled(function):
    # A partial is a new object each time it is made, so it is identified by its parts.
    partial = functools.partial(function)
    try:
        return _cached(partial.func, partial.args, tuple(sorted(partial.keywords.items())))
    except TypeError:  # if a part cannot be hashed
        return _Compiled(function)


@functools.lru_cache(maxsize=64)
def _cached(function, arguments, options):
    return _Compiled(functools.partial(function, *arguments, **dict(options)))
