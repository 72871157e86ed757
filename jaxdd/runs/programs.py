"""Compiled programs, kept on disk for the next process; cores as devices that run them."""

import os
import platform
import warnings

import jax

from jaxdd.data import archives, files

PROGRAM_BYTES = 2 * 2**30
"""Size of the cache of compiled programs."""


def keep_programs(*, folder: str | os.PathLike | None = None) -> None:
    """Has XLA keep what it compiles for the next process.

    Nothing changes where JAX was told a folder already, by `JAX_COMPILATION_CACHE_DIR` or in the
    program. Call it before the first computation.

    Args:
        folder: for the programs; by default one for this machine in `~/.cache/jaxdd/programs`,
            which the command line uses, too, and where what was touched first is deleted beyond
            2 GB.

    Raises:
        ValueError: the folder is a file.
    """
    if getattr(jax.config, "jax_compilation_cache_dir") is not None:  # noqa: B009
        return
    # A program for the CPU is one for the CPU that it was compiled on.
    default = archives.CACHE.expanduser() / "programs" / (platform.node() or "here")
    kept = default if folder is None else files.expanded(folder)
    if kept.exists() and not kept.is_dir():
        raise ValueError(f"{kept} is a file, expected a folder for compiled programs")
    if folder is None:  # another folder may hold what is not ours to delete
        files.prune(kept, PROGRAM_BYTES)
    jax.config.update("jax_compilation_cache_dir", str(kept))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    # What another process is writing, or was killed while it wrote, is compiled again.
    warnings.filterwarnings("ignore", "Error reading persistent compilation cache entry")


MOST_CORES = 8
"""Cores that are devices of their own; more would have too little of a batch each."""


def use_cores() -> None:
    """Makes each core a device, where there is no other kind and JAX was told of none.

    The operations of a small network do not fill two cores, two halves of a batch do: a step of
    distribution matching takes two thirds of the time. `parallel.cores` is their mesh. Call it
    before the first computation. `JAX_NUM_CPU_DEVICES=1` has everything on one device.
    """
    told = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    asked, cores = getattr(jax.config, "jax_num_cpu_devices"), count_cores()  # noqa: B009
    devices = asked if asked > 0 else min(MOST_CORES, cores)
    if told or devices == 1:
        return
    jax.config.update("jax_num_cpu_devices", devices)
    # A device that waits for the others holds a thread of the pool that all compute with. XLA ends
    # the process where none is left for what they wait for: so there are more threads than devices
    # (NPROC is where XLA looks for their number), and no device has other work before it.
    os.environ.setdefault("NPROC", str(cores + devices))
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def count_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
