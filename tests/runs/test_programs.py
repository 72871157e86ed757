"""How many devices there are, and how XLA compiles, is said once, before the first computation."""

import os
import subprocess
import sys
import types

import pytest

from jaxdd.runs import programs

CORES = """
import os, jax
from jaxdd import parallel
from jaxdd.runs import programs
programs.use_cores()
mesh = parallel.cpu_mesh()
print(jax.device_count(), mesh and mesh.size, os.environ.get("NPROC"))
"""


@pytest.mark.parametrize(
    "told, expected",
    [
        ({}, "1 None None"),
        ({"JAX_NUM_CPU_DEVICES": "1"}, "1 None None"),
        ({"JAX_NUM_CPU_DEVICES": "3"}, f"3 3 {(os.cpu_count() or 1) + 3}"),
        ({"JAX_NUM_CPU_DEVICES": "3", "NPROC": "7"}, "3 3 7"),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, "3 None None"),
    ],
)
def test_devices_that_were_asked_for_share_the_work(told, expected):
    assert in_a_process(CORES, told) == expected


LEVEL = "--xla_backend_optimization_level"


@pytest.mark.parametrize(
    "flags, others, platforms, expected",
    [
        (None, (), None, f"{LEVEL}=1"),
        ("--xla_cpu_use_xnnpack=false", (), None, f"--xla_cpu_use_xnnpack=false {LEVEL}=1"),
        (f"{LEVEL}=3", (), None, f"{LEVEL}=3"),
        ("", ("xla_cuda12",), None, ""),
        ("", ("xla_cuda12",), "cuda", ""),
        ("", ("xla_cuda12",), "cpu", f"{LEVEL}=1"),
    ],
)
def test_cpus_compile_quickly(flags, others, platforms, expected, monkeypatch):
    monkeypatch.setattr(programs.importlib.metadata, "entry_points", lambda group: others)
    config = types.SimpleNamespace(jax_platforms=platforms)
    monkeypatch.setattr(programs, "jax", types.SimpleNamespace(config=config))
    monkeypatch.delenv("XLA_FLAGS")
    if flags is not None:
        monkeypatch.setenv("XLA_FLAGS", flags)
    programs.compile_quickly()
    assert os.environ["XLA_FLAGS"] == expected


def test_a_comparison_on_two_devices_of_a_cpu(tmp_path):
    """The command line with devices of its own, weights by density and views among its rows."""
    options = "--ipc 2 --steps 4 --chunk 2 --batch-size 8 --width 8 --depth 2 --epochs 2"
    options += " --eval-seeds 2 --encoder-steps 2 --encoder-width 8 --conflict 0.1"
    command = ["compare", "cdigits", *options.split(), "--rows", "kde", "tone"]
    script = "import sys; from jaxdd.commands.cli import main; main(sys.argv[1:])"
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    told = {"JAX_NUM_CPU_DEVICES": "2", "XLA_FLAGS": " ".join(flags)}
    shown = in_a_process(script, told, *command, "--out", str(tmp_path / "out"))
    assert "tone" in shown and (tmp_path / "out" / "compare.json").exists()


def in_a_process(script, told, *arguments):
    untold = ("XLA_FLAGS", "NPROC", "JAX_NUM_CPU_DEVICES")
    kept = {name: x for name, x in os.environ.items() if name not in untold}
    environment = kept | {"JAX_PLATFORMS": "cpu"} | told
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()
