"""Two processes on this machine against one, and what is left when one of them is killed."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxdd.data import files
from jaxdd.runs import cli, processes, store

RUN = (
    "run cdigits --ipc 2 --batch-size 8 --network mlp --epochs 1 --eval-seeds 3 --steps 6 "
    "--chunk 2 --save-every 0 --debias none --strategy"
).split()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "out"
    cli.main([*RUN, "--out", str(folder)])
    return folder


def start(folder, process, port, patience):
    """One of two processes with one device each, which writes what it says to a file."""
    code = (
        "import functools; from jaxdd.runs import cli, processes; "
        f"processes.joined = functools.partial(processes.joined, patience={patience}); cli.main()"
    )
    where = f"--coordinator localhost:{port} --num-processes 2 --process-id {process}".split()
    command = [sys.executable, "-c", code, *RUN, "--out", str(folder), "--distributed", *where]
    root = str(pathlib.Path(cli.__file__).parents[2])
    flags = os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=1")
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    with open(folder.with_name(f"said{process}"), "wb") as said:
        return subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=environment)


def free_port():
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


@pytest.fixture
def together(tmp_path, request):
    """Both processes, as patient as the test says; none outlives it."""
    port = free_port()
    both = [start(tmp_path / "out", process, port, request.param) for process in range(2)]
    yield both
    for process in both:
        process.kill()
        process.wait()


def assert_same_set(folder, other):
    one, two = (store.read_synthetic(f / "synthetic.npz").images for f in (folder, other))
    np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("together", [30], indirect=True, ids=["patient"])
def test_two_processes_make_the_set_of_one(together, alone, tmp_path):
    said = [tmp_path / f"said{process}" for process in range(2)]
    for process, text in zip(together, said, strict=True):
        assert process.wait(timeout=400) == 0, text.read_text()
    assert_same_set(tmp_path / "out", alone)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {path.name for path in alone.iterdir()}
    assert f"wrote {tmp_path / 'out'}" in said[0].read_text()
    assert "wrote" not in said[1].read_text()
    results = [files.read_json(folder / "result.json") for folder in (tmp_path / "out", alone)]
    assert results[0]["accuracy"]["n"] == results[1]["accuracy"]["n"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("together", [5], indirect=True, ids=["impatient"])
def test_a_lost_process_ends_the_run_and_another_can_go_on(together, alone, tmp_path, capsys):
    """The second is killed after the first chunk; the run is resumed by one process alone."""
    folder, deadline = tmp_path / "out", time.monotonic() + 400
    while not (folder / "checkpoint" / "2").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    together[1].send_signal(signal.SIGKILL)
    assert together[0].wait(timeout=60) == 3
    said = (tmp_path / "said0").read_text()
    assert "jaxdd: process 0 lost touch with another one" in said
    assert "continue with: jaxdd run cdigits" in said and "--resume" in said
    assert not (folder / "result.json").exists()
    cli.main([*RUN, "--out", str(folder), "--resume"])
    assert_same_set(folder, alone)


def test_all_devices_of_one_process(alone, tmp_path):
    folder = tmp_path / "out"
    cli.main([*RUN, "--out", str(folder), "--distributed", "--num-processes", "1"])
    assert_same_set(folder, alone)


def test_one_process_broadcasts_to_itself(tmp_path):
    assert processes.is_first() and processes.broadcast(3) == 3
    with processes.own_folder(tmp_path / "out") as folder:
        assert folder == tmp_path / "out"


def test_where_the_others_are_is_for_distributed_runs(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main([*RUN, "--out", str(tmp_path / "out"), "--num-processes", "2"])
    assert "are for --distributed" in capsys.readouterr().err
