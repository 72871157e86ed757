"""How many devices there are is said once, before the first computation."""

import os
import subprocess
import sys

import pytest

from jaxdd.runs import programs

CORES = """
import os, sys, jax
from jaxdd import parallel
from jaxdd.runs import programs
if sys.argv[1:]:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
programs.use_cores()
mesh = parallel.cores()
print(programs.count_cores(), jax.device_count(), mesh and mesh.size)
"""


@pytest.mark.parametrize(
    "told, expected",
    [
        ({}, "{cores} {devices} {mesh}"),
        ({"JAX_NUM_CPU_DEVICES": "3"}, "{cores} 3 3"),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, "{cores} 3 None"),
    ],
)
def test_cores_are_devices_unless_jax_was_told_of_others(told, expected):
    cores = programs.count_cores()
    devices = min(cores, programs.MOST_CORES)
    found = in_a_process(CORES, told)
    mesh = devices if devices > 1 else None
    assert found == expected.format(cores=cores, devices=devices, mesh=mesh)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be taken away here")
def test_one_core_is_no_mesh():
    assert in_a_process(CORES, {}, "one") == "1 1 None"


def test_a_comparison_on_all_cores(tmp_path):
    """The command line with devices of its own, weights by density and views among its rows."""
    options = "--ipc 2 --steps 4 --chunk 2 --batch-size 8 --width 8 --depth 2 --epochs 2"
    options += " --eval-seeds 2 --encoder-steps 2 --encoder-width 8 --conflict 0.1"
    command = ["compare", "cdigits", *options.split(), "--rows", "none", "kde", "tone"]
    script = "import sys; from jaxdd.runs.cli import main; main(sys.argv[1:])"
    shown = in_a_process(script, {}, *command, "--out", str(tmp_path / "out"))
    assert "tone" in shown and (tmp_path / "out" / "compare.json").exists()


def in_a_process(script, told, *arguments):
    kept = {name: x for name, x in os.environ.items() if name not in ("XLA_FLAGS",)}
    environment = kept | {"JAX_PLATFORMS": "cpu"} | told
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()
