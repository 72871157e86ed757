"""Runs and resumed runs under other settings of JAX: the same set, or one line that refuses.

A seed must mean one result. A setting that only checks or reports may not change anything; one that
changes numbers must be fixed by the run, or recorded and refused when the run is resumed.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax

from experiments.attacks import damage
from experiments.attacks import laboratory as lab
from jaxdd.data import files

SETTINGS: dict[str, Any] = {
    "jax_enable_x64": True,
    "jax_threefry_partitionable": False,
    "jax_default_prng_impl": "rbg",
    "jax_default_prng_impl ": "unsafe_rbg",
    "jax_enable_custom_prng": True,
    "jax_legacy_prng_key": "error",
    "jax_random_seed_offset": 7,
    "jax_high_dynamic_range_gumbel": True,
    "jax_softmax_custom_jvp": True,
    "jax_default_matmul_precision": "highest",
    "jax_default_matmul_precision ": "bfloat16",
    "jax_numpy_rank_promotion": "raise",
    "jax_numpy_dtype_promotion": "strict",
    "jax_explicit_x64_dtypes": "error",
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_debug_key_reuse": True,
    "jax_check_tracer_leaks": True,
    "jax_enable_checks": True,
    "jax_check_static_indices": True,
    "jax_disable_jit": True,
    "jax_transfer_guard": "disallow",
    "jax_transfer_guard ": "log",
    "jax_thread_guard": True,
    "jax_log_compiles": True,
    "jax_explain_cache_misses": True,
    "jax_traceback_filtering": "off",
    "jax_compiler_enable_remat_pass": False,
    "jax_use_direct_linearize": False,
    "jax_enable_compilation_cache": False,
    "jax_persistent_cache_min_compile_time_secs": 100.0,
    "jax_optimization_level": "O1",
    "jax_error_checking_behavior_nan": "raise",
    "jax_captured_constants_warn_bytes": 1,
}
"""Settings of JAX with other values; a trailing space allows a second value of the same setting."""

COMMANDS = {"run": ["--debias", "density"], "compare": ["--rows", "random", "density"]}


def attacks(laboratory: lab.Laboratory, round_: int) -> Iterator[lab.Attack]:
    """Yield the attacks of a round, which is the seed of the commands."""
    for name, value in SETTINGS.items():
        title = f"{name.strip()}={value}"
        for command in COMMANDS:
            run = functools.partial(_run, laboratory, command, name.strip(), value, round_)
            yield lab.Attack(f"{command} with {title}, round {round_}", run)
        run = functools.partial(_resume, laboratory, name.strip(), value)
        yield lab.Attack(f"resume with {title}, round {round_}", run)


@contextlib.contextmanager
def setting(name: str, value: Any) -> Iterator[None]:
    """Give a setting of JAX another value for a while."""
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _run(laboratory, command, name, value, round_):
    arguments = laboratory.command(command, "--seed", round_, *COMMANDS[command])
    expected = lab.content(laboratory.finished(*arguments))
    return _call(laboratory.fresh(), arguments, name, value, expected)


def _resume(laboratory, name, value):
    arguments = laboratory.command("run")
    expected = lab.content(laboratory.finished(*arguments))
    folder = laboratory.copy(damage.unfinished(laboratory, arguments))
    return _call(folder, [*arguments, "--resume"], name, value, expected)


def _call(folder, arguments, name, value, expected):
    with setting(name, value):
        ended = lab.call([*arguments, "--out", folder])
    text = f"{name.upper()}={value} {lab.line([*arguments, '--out', folder])}"

    def wrong():
        recorded = files.read_json(folder / "config.json").get("settings", {})
        is_new = "--resume" not in arguments
        if is_new and name.removeprefix("jax_") in recorded:
            return ""
        return lab.differences(expected, lab.content(folder), but=["report.html"])

    return lab.verdict(ended, text, wrong=wrong)
