"""XLA's options and CPU devices are set before the first computation, and never overridden."""

import os
import subprocess
import sys
import types

import jax
import pytest

from jaxdd.runs import programs


@pytest.fixture
def config(monkeypatch):
    """Replace the part of JAX's configuration that these functions read."""
    config = types.SimpleNamespace(jax_platforms=None, jax_num_cpu_devices=-1)
    monkeypatch.setattr(programs, "jax", types.SimpleNamespace(config=config))
    return config


@pytest.mark.parametrize(
    "devices, threads, expected",
    [(-1, None, None), (1, None, None), (3, None, str((os.cpu_count() or 1) + 3)), (3, "7", "7")],
)
def test_more_threads_than_cpu_devices(devices, threads, expected, config, monkeypatch):
    config.jax_num_cpu_devices = devices
    monkeypatch.setenv("NPROC", threads or "")
    if threads is None:
        monkeypatch.delenv("NPROC")
    programs.use_cores()
    assert os.environ.get("NPROC") == expected


LEVEL = "--xla_backend_optimization_level"
EMITTERS = " --xla_cpu_use_fusion_emitters=false" if jax.__version_info__ < (0, 11) else ""


@pytest.mark.parametrize(
    "flags, plugins, platforms, expected",
    [
        (None, (), None, f"{LEVEL}=1{EMITTERS}"),
        ("--xla_cpu_x=1", (), None, f"--xla_cpu_x=1 {LEVEL}=1{EMITTERS}"),
        (f"{LEVEL}=3", (), None, f"{LEVEL}=3{EMITTERS}"),
        (f"{LEVEL}=3{EMITTERS}", (), None, f"{LEVEL}=3{EMITTERS}"),
        ("", ("xla_cuda12",), None, ""),
        ("", ("xla_cuda12",), "cuda", ""),
        ("", ("xla_cuda12",), "cpu", f"{LEVEL}=1{EMITTERS}"),
    ],
)
def test_cpus_compile_quickly(flags, plugins, platforms, expected, config, monkeypatch):
    monkeypatch.setattr(programs.importlib.metadata, "entry_points", lambda group: plugins)
    config.jax_platforms = platforms
    monkeypatch.delenv("XLA_FLAGS")
    if flags is not None:
        monkeypatch.setenv("XLA_FLAGS", flags)
    programs.compile_quickly()
    assert os.environ["XLA_FLAGS"] == expected


def test_a_run_on_two_devices_of_a_cpu(tmp_path):
    """Run the command line with `JAX_NUM_CPU_DEVICES` in a new process, before JAX has devices."""
    options = "--ipc 2 --steps 4 --chunk 2 --batch-size 8 --width 8 --depth 1 --epochs 2"
    options += " --seeds 2 --conflict 0.1 --debias plain --strategy crop"
    command = [sys.executable, "-m", "jaxdd", "run", "cdigits", *options.split()]
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    environment = {name: value for name, value in os.environ.items() if name != "NPROC"}
    environment |= {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "XLA_FLAGS": " ".join(flags),
    }
    command += ["--out", str(tmp_path / "out")]
    subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert (tmp_path / "out" / "result.json").exists()
