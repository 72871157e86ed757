"""What do several GPUs hold and send in a step on ImageNet-1K? Compiled, not run.

    python -m experiments.speed.scale

Steps of distribution matching and of the encoder are compiled for 1, 8, 16 and 64 simulated devices
from shapes alone, with the images of the training set split over the devices. XLA's memory analysis
gives the bytes on a device, and the text of the program what is sent: `sent_bytes` is the size of
the results of all collectives of a step on a device. The operations are those that jaxdd uses on
GPUs, but compiled by XLA for CPUs in float32; a GPU also needs workspace of its libraries, and
half of the activations in bfloat16.

Times are estimates: FLOPs counted by hand at 30 % of 989 TFLOP/s (H100, bfloat16), and bytes by the
formula of a ring, 2 (N − 1) / N · bytes / bandwidth, at 450 GB/s in a node of eight GPUs (NVLink)
and at 50 GB/s between nodes.

Cost: 10 minutes on two cores.
"""

import functools
import itertools
import math
import os
import pathlib
import re
from collections import Counter
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from experiments.speed import workloads
from experiments.tools import markdown, record
from jaxdd import methods, networks, sampling
from jaxdd.devices import parallel
from jaxdd.runs import programs
from jaxdd.weights import contrastive

OUT = record.RESULTS / "scale.json"
DEVICES = (1, 8, 16, 64)
NODE = 8  # devices that NVLink connects
RATE, NVLINK, NETWORK = 0.3 * 989e12, 450e9, 50e9
WIDTH, ENCODER_WIDTH = 128, 32


class Setting(NamedTuple):
    """Sizes of a step.

    Attributes:
        side: height and width of the images, which have three channels.
        depth: blocks of the ConvNet of width 128.
        images: training images.
        classes: their classes, all of which a step updates.
        real: real images per class and step.
        ipc: synthetic images per class.
    """

    side: int
    depth: int
    images: int
    classes: int
    real: int
    ipc: int


SETTINGS = {
    "64 pixels, 1,000 classes": Setting(64, 4, 1_281_167, 1000, 64, 10),
    "224 pixels, 1,000 classes": Setting(224, 6, 1_281_167, 1000, 16, 1),
    "224 pixels, 10 classes": Setting(224, 6, 12_812, 10, 256, 10),
}


def measure(work: str, setting: Setting, devices: int) -> dict[str, Any]:
    """Compile a step for a number of devices and return its bytes, collectives and FLOPs."""
    mesh = parallel.mesh(devices=jax.devices()[:devices]) if devices > 1 else None
    step, state, flops = STEPS[work](setting, mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    number = jax.ShapeDtypeStruct((), jnp.int32)
    arguments = _replicated((key, state), mesh), _pool(setting, mesh), _replicated(number, mesh)
    with mock.patch.object(jax.lax, "platform_dependent", _on_accelerator):
        lowered = jax.jit(step, donate_argnums=0).lower(*arguments)
    compiled: Any = lowered.compile()
    memory = compiled.memory_analysis()
    pool_bytes = -(-setting.images // devices) * setting.side**2 * 3
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes
    peak += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    sent = collectives(compiled.as_text())
    return {
        "devices": devices,
        "pool_bytes": pool_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "peak_bytes": peak,
        "collectives": dict(Counter(kind for kind, _ in sent)),
        "sent_bytes": sum(size for _, size in sent),
        "flops": flops / devices,
    }


def _on_accelerator(*arguments, default, **_):
    """Replace `jax.lax.platform_dependent` by the branch of GPUs and TPUs."""
    return default(*arguments)


def _replicated(tree, mesh):
    if mesh is None:
        return tree
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), tree)


def _pool(setting, mesh):
    """Return the shapes of a pool, with its images split over the devices."""
    n, k = setting.images, setting.classes
    shape = setting.side, setting.side, 3

    def of(dtype, *shape) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    pool = sampling.Pool(
        images=of(jnp.uint8, n, *shape), labels=of(jnp.int32, n), weights=of(jnp.float32, n),
        order=of(jnp.int32, n), start=of(jnp.int32, k), count=of(jnp.int32, k),
        cumulative=of(jnp.float32, n), mean=of(jnp.float32, 3), std=of(jnp.float32, 3),
    )  # fmt: skip
    if mesh is None:
        return pool
    by_row = NamedSharding(mesh, PartitionSpec(parallel.AXIS))
    rows = jax.ShapeDtypeStruct((n + -n % mesh.size, *shape), jnp.uint8, sharding=by_row)
    return _replicated(pool, mesh)._replace(images=parallel.Rows(rows, n, mesh))


def distribution_matching(setting: Setting, mesh: Any) -> tuple[Any, Any, float]:
    """Return a DM step, the shapes of its state, and its FLOPs on all devices."""
    network = networks.ConvNet(setting.classes, WIDTH, setting.depth)
    sampler = functools.partial(sampling.weighted_batch, size=setting.real)
    if mesh is not None:
        network = parallel.split_network(network, mesh)
        sampler = parallel.split_sampler(sampler, mesh)
    method = methods.distribution_matching(network, optax.sgd(1.0, momentum=0.5))
    method = method if mesh is None else parallel.replicate_state(method, mesh)
    images = jnp.zeros((setting.classes, setting.ipc, setting.side, setting.side, 3))
    state = jax.eval_shape(method.init, jax.eval_shape(lambda: images))

    def step(key_and_state, pool, number):
        key, state = key_and_state
        key_batch, key_step = jax.random.split(jax.random.fold_in(key, number))
        return method.step(key_step, state, sampler(key_batch, pool))

    cost = workloads.convnet_cost(WIDTH, setting.side, depth=setting.depth)
    return step, state, setting.classes * (setting.real + 2 * setting.ipc) * cost.flops


def encoder(setting: Setting, mesh: Any) -> tuple[Any, Any, float]:
    """Return a step of the encoder, the shapes of its state, and its FLOPs on all devices."""
    network = networks.ConvNet(setting.classes, ENCODER_WIDTH, norm=None)
    trainer = contrastive.trainer(contrastive.Encoder(network), optax.adam(1e-3), mesh=mesh)
    image = jax.ShapeDtypeStruct((1, setting.side, setting.side, 3), jnp.float32)
    state = jax.eval_shape(trainer.init, jax.eval_shape(lambda: jax.random.key(0)), image)

    def step(key_and_state, pool, number):
        key, state = key_and_state
        return contrastive.update(key, trainer, pool, state, number)

    cost = workloads.convnet_cost(ENCODER_WIDTH, setting.side)
    views = 2 * max(2 * setting.classes, 256 // setting.classes * setting.classes)
    # Forward twice, since activations are not kept for the backward pass.
    return step, state, views * (4 * cost.flops - cost.first_flops)


STEPS = {"DM": distribution_matching, "encoder": encoder}


# --- collectives in the text of a program --------------------------------------------------------

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "u64": 8}
_KINDS = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
_COLLECTIVE = re.compile(rf"= (\(.*?\)|\S+) ({_KINDS})(?:-start)?\(")
_CALLED = re.compile(r"(?:body|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


def collectives(text: str) -> list[tuple[str, int]]:
    """Return kind and bytes of the results of each collective that a program executes.

    Args:
        text: HLO of the compiled program. Bodies of loops count once per iteration.
    """
    # A computation begins with a line without indentation that ends in "{".
    blocks = re.split(r"^(?=\S.*\{$)", text, flags=re.M)
    computations, entry = {}, ""
    for block in blocks:
        if match := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", block.split("\n", 1)[0]):
            computations[match[2]] = block.splitlines()[1:]
            entry = match[2] if match[1] else entry

    @functools.cache
    def executed(name):
        sent = []
        for line in computations[name]:
            if match := _COLLECTIVE.search(line):
                sent.append((match[2], _size(match[1])))
                continue
            trips = int(match[1]) if (match := _TRIPS.search(line)) else 1
            for called in _CALLED.findall(line):
                sent += executed(called) * trips if called in computations else []
        return sent

    return executed(entry)


def _size(shapes):
    sizes = re.findall(r"(\w+)\[([\d,]*)\]", shapes)
    return sum(_BYTES[kind] * math.prod(int(x) for x in of.split(",") if x) for kind, of in sizes)


# --- tables --------------------------------------------------------------------------------------


def tasks(_: pathlib.Path | None) -> record.Tasks:
    """Return the steps to compile, by work, setting and number of devices."""
    # One device is compiled for ten classes only: it cannot hold all training images.
    return {
        f"{work}, {name}, {devices} devices": functools.partial(measure, work, setting, devices)
        for (name, setting), work, devices in itertools.product(SETTINGS.items(), STEPS, DEVICES)
        if devices > 1 or setting.classes == 10
    }


def seconds(row: dict[str, Any]) -> tuple[float, float]:
    """Return the estimated seconds of a step for computing and for sending, see the module."""
    n = row["devices"]
    bandwidth = NVLINK if n <= NODE else NETWORK
    return row["flops"] / RATE, 2 * (n - 1) / n * row["sent_bytes"] / bandwidth


def tables(path: pathlib.Path = OUT) -> list[list[str]]:
    """Return the table of memory, collectives and estimated times."""
    measured, rows = record.measured(path), []
    for name, row in measured.items():
        computing, sending = seconds(row)
        step, devices = name.rsplit(", ", 1)
        memory = [f"{row[f'{x}_bytes'] / 1e9:.2f}" for x in ("pool", "temporary", "peak")]
        sent = [str(sum(row["collectives"].values())), f"{row['sent_bytes'] / 1e6:.1f}"]
        times = [f"{1000 * x:.3g}" for x in (computing, sending)]
        rows.append([step, devices.split()[0], *memory, *sent, *times])
    titles = (
        "devices", "images, GB", "temporary, GB", "peak, GB", "collectives", "sent, MB",
        "computing, ms", "sending, ms",
    )  # fmt: skip
    return [markdown.table([markdown.link("step", path), *titles], rows)]


if __name__ == "__main__":
    programs.compile_quickly()
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={max(DEVICES)}"
    record.main(OUT, tasks, tables)
