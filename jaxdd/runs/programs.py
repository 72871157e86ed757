"""What computation depends on besides options: settings of JAX, compiler options, CPU devices.

`fixed_settings` holds for a block. Call the other functions before the first computation.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import warnings
from collections.abc import Iterator

import jax

from jaxdd.data import files

_PROGRAM_BYTES = 2 * 2**30  # of the default folder of compiled programs
_QUICK_FLAGS = {"--xla_backend_optimization_level": "1"}
if jax.__version_info__ < (0, 11):  # jaxlib is not newer; later versions lack this option
    _QUICK_FLAGS["--xla_cpu_use_fusion_emitters"] = "false"

# Settings of JAX that change random numbers or types, or that would end a run.
_FIXED = {
    "default_prng_impl": "threefry2x32", "threefry_partitionable": True, "enable_x64": False,
    "numpy_dtype_promotion": "standard", "numpy_rank_promotion": "allow",
    "softmax_custom_jvp": False, "legacy_prng_key": "allow", "enable_custom_prng": False,
    "disable_jit": False, "debug_nans": False, "debug_infs": False, "debug_key_reuse": False,
    "check_tracer_leaks": False, "enable_checks": False, "transfer_guard": "allow",
}  # fmt: skip
# The same, without a context manager.
_FIXED_FOR_PROCESS = {
    "random_seed_offset": 0, "high_dynamic_range_gumbel": False,
    "error_checking_behavior_nan": "ignore", "error_checking_behavior_divide": "ignore",
    "error_checking_behavior_oob": "ignore",
}  # fmt: skip
# Settings that may differ between runs, but not within one, with their defaults.
_RECORDED = {
    "default_matmul_precision": None, "disable_most_optimizations": False,
    "high_dynamic_range_gumbel": False, "optimization_level": "UNKNOWN",
}  # fmt: skip
_WITHOUT_EFFECT = re.compile("dump|log|profile|parallel_codegen|host_platform_device_count")


def prepare() -> None:
    """Prepare a process as the command line does."""
    for name, value in _FIXED_FOR_PROCESS.items():
        if hasattr(jax.config, f"jax_{name}"):  # the oldest versions of JAX lack some
            jax.config.update(f"jax_{name}", value)
    keep_programs()
    compile_quickly()
    use_cores()


@contextlib.contextmanager
def fixed_settings() -> Iterator[None]:
    """Fix the settings of JAX that random numbers and types depend on, in this thread.

    Whatever the environment or the caller sets, such as `JAX_ENABLE_X64`, a seed gives one result.
    """
    with contextlib.ExitStack() as stack:
        for name, value in _FIXED.items():
            stack.enter_context(getattr(jax, name)(value))
        yield


def recorded_settings() -> dict[str, str]:
    """Return the settings of JAX and XLA that change results and are not the defaults."""
    values = {n: getattr(jax.config, f"jax_{n}", default) for n, default in _RECORDED.items()}
    changed = {n: str(x) for n, x in values.items() if x != _RECORDED[n]}
    flags = os.environ.get("XLA_FLAGS", "").split()
    flags = sorted(flag for flag in flags if not _WITHOUT_EFFECT.search(flag.split("=")[0]))
    return changed | ({"XLA_FLAGS": " ".join(flags)} if flags else {})


def keep_programs(*, folder: str | os.PathLike | None = None) -> None:
    """Let XLA keep compiled programs on disk for the next process.

    Does nothing if JAX already has a cache, from `JAX_COMPILATION_CACHE_DIR` or the program.

    Args:
        folder: folder for the programs. Defaults to `~/.cache/jaxdd/programs`, like the command
            line, with one folder per machine; beyond 2 GB the oldest programs are deleted.
    """
    if getattr(jax.config, "jax_compilation_cache_dir") is not None:  # noqa: B009
        return
    # A program compiled for one CPU may not run on another one, so each machine has its own.
    default = files.CACHE.expanduser() / "programs" / (platform.node() or "here")
    path = default if folder is None else files.expand(folder)
    if path.exists() and not path.is_dir():
        raise ValueError(f"Expected a folder for compiled programs, got the file {path}.")
    if folder is None:  # files in other folders may not be jaxdd's
        files.prune(path, _PROGRAM_BYTES)
    jax.config.update("jax_compilation_cache_dir", str(path))
    # A process also compiles a hundred programs of few operations, each faster to read than to
    # compile again.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    # An entry that another process is writing, or did not finish, is compiled again.
    warnings.filterwarnings("ignore", "Error reading persistent compilation cache entry")


def compile_quickly() -> None:
    """Let XLA compile for CPUs with fewer optimisations, up to three times as fast.

    Programs are as fast and may differ by rounding. The optimisation level is 1 instead of 3, at
    which a DM step of width 32 compiles in 4.4 s instead of 8.3 s. Before JAX 0.11, XLA also
    uses its older code generator for fused operations: 3.4 s instead of 5.7 s of CPU time for a DM
    step, 4.2 s instead of 6.3 s for an evaluation. An option that `XLA_FLAGS` sets is kept, and
    nothing changes if JAX has devices other than CPUs.
    """
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    accelerated = bool(plugins) or importlib.util.find_spec("libtpu") is not None
    on_cpu = not accelerated or getattr(jax.config, "jax_platforms") == "cpu"  # noqa: B009
    if on_cpu:
        flags = os.environ.get("XLA_FLAGS", "")
        quick = [f"{name}={value}" for name, value in _QUICK_FLAGS.items() if name not in flags]
        os.environ["XLA_FLAGS"] = " ".join([flags, *quick]).strip()


def use_cores() -> None:
    """Prepare for the CPU devices that `JAX_NUM_CPU_DEVICES` sets; see `parallel.cpu_mesh`."""
    # A device that waits for the others blocks a thread of XLA's pool. XLA aborts if no thread is
    # left for the work they wait for, so the pool needs more threads than there are devices. NPROC
    # sets its size.
    devices = getattr(jax.config, "jax_num_cpu_devices")  # noqa: B009
    if devices > 1:
        os.environ.setdefault("NPROC", str((os.cpu_count() or 1) + devices))
