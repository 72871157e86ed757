"""Compiled programs, kept on disk for the next process, and the CPU devices that run them."""

import importlib.metadata
import importlib.util
import os
import platform
import warnings

import jax

from jaxdd.data import files

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
    default = files.CACHE.expanduser() / "programs" / (platform.node() or "here")
    kept = default if folder is None else files.expand(folder)
    if kept.exists() and not kept.is_dir():
        raise ValueError(f"{kept} is a file, expected a folder for compiled programs")
    if folder is None:  # another folder may hold what is not ours to delete
        files.prune(kept, PROGRAM_BYTES)
    jax.config.update("jax_compilation_cache_dir", str(kept))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    # What another process is writing, or was killed while it wrote, is compiled again.
    warnings.filterwarnings("ignore", "Error reading persistent compilation cache entry")


def prepare() -> None:
    """Prepares a process as the command line does, before its first computation."""
    keep_programs()
    compile_quickly()
    use_cores()


_LEVEL = "--xla_backend_optimization_level"


def compile_quickly() -> None:
    """Has XLA compile for CPUs at optimisation level 1, about twice as fast as at its own, 3.

    What comes out is as fast and may differ by rounding: at width 32 a DM step compiles in 4.4 s
    instead of 8.3, a DSA step in 12 instead of 22. Nothing changes where `XLA_FLAGS` has a level,
    or where JAX has other devices than CPUs. Call it before the first computation.
    """
    others = importlib.metadata.entry_points(group="jax_plugins")
    found = bool(others) or importlib.util.find_spec("libtpu") is not None
    flags = os.environ.get("XLA_FLAGS", "")
    if _LEVEL not in flags and (not found or getattr(jax.config, "jax_platforms") == "cpu"):  # noqa: B009
        os.environ["XLA_FLAGS"] = f"{flags} {_LEVEL}=1".strip()


def use_cores() -> None:
    """Prepares for the CPU devices that `JAX_NUM_CPU_DEVICES` asks for; `parallel.cpu_mesh` has them.

    A device that waits for the others holds a thread of the pool that all compute with, and XLA
    ends the process where none is left for what they wait for. So there are more threads than
    devices: NPROC is where XLA looks for their number. Call it before the first computation.
    """
    devices = getattr(jax.config, "jax_num_cpu_devices")  # noqa: B009
    if devices > 1:
        os.environ.setdefault("NPROC", str((os.cpu_count() or 1) + devices))
