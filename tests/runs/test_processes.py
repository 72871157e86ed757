"""Two processes match one, and resume to the same bits if one of them is killed."""

import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from jaxdd.commands import cli
from jaxdd.data import files
from jaxdd.runs import pipeline, processes
from jaxdd.runs.folder import store, weights_file

RUN = (
    "run cdigits --ipc 2 --batch-size 8 --network mlp --epochs 1 --seeds 2 --steps 4 "
    "--chunk 2 --save-every 0 --debias density --encoder-steps 2 --encoder-width 4 --strategy"
).split()
SPLIT = "--split-from", "0"
RESUME_AND_RUN = """
import sys
import jax
from jaxdd.commands import cli

other_folder, *words = sys.argv[1:]
shutdown, jax.distributed.shutdown = jax.distributed.shutdown, lambda: None
cli.main(words)
jax.distributed.initialize = lambda *_, **__: None  # the processes are still connected
words[words.index("--out") + 1] = other_folder
words.remove("--resume")
cli.main(words)
shutdown()
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return the run folder of a single process."""
    folder = tmp_path_factory.mktemp("alone") / "out"
    cli.main([*RUN, "--out", str(folder)])
    return folder


def start_two(folder, *options, program=("-m", "jaxdd")):
    """Start two processes with one device each, whose output goes to output0 and output1."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    flags = os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=1")
    root = str(pathlib.Path(cli.__file__).parents[2])
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    command = [sys.executable, *program, *RUN, "--out", str(folder), "--distributed", *SPLIT]
    command += ["--coordinator", f"localhost:{port}", "--num-processes", "2"]
    both = []
    for i in range(2):
        with open(folder.with_name(f"output{i}"), "wb") as output:
            arguments = [*command, "--process-id", str(i), *(x.format(i=i) for x in options)]
            both.append(subprocess.Popen(arguments, stdout=output, stderr=output, env=environment))
    return both


def finish(both, folder):
    """Wait for two processes, and return their exit codes and outputs."""
    try:
        codes = [process.wait(timeout=400) for process in both]
    finally:
        for process in both:
            process.kill()
    return codes, [folder.with_name(f"output{i}").read_text() for i in range(2)]


def images(folder):
    return np.asarray(store.read_synthetic(folder / "synthetic.npz").images)


@pytest.mark.slow
def test_two_processes_resume_after_a_loss_and_match_one(alone, tmp_path):
    """The second process is killed after the first chunk; the first ends soon after.

    Two new processes resume the run, and then make the same run without an interruption.
    """
    folder, whole, deadline = tmp_path / "out", tmp_path / "whole", time.monotonic() + 400
    both = start_two(folder)
    while not (folder / "checkpoint" / "2").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    both[1].kill()
    killed = time.monotonic()
    (code, _), (output, _) = finish(both, folder)
    assert time.monotonic() - killed < processes.HEARTBEAT_TIMEOUT + 10
    assert code in (2, -6), output
    assert code == -6 or "--resume" in output
    assert not (folder / "result.json").exists()
    written = (folder / "weights.npz").stat().st_mtime_ns
    both = start_two(folder, "--resume", program=("-c", RESUME_AND_RUN, str(whole)))
    codes, outputs = finish(both, folder)
    assert codes == [0, 0], outputs
    np.testing.assert_array_equal(images(folder), images(whole))
    assert f"wrote {folder}" in outputs[0] and "wrote" not in outputs[1]
    assert {path.name for path in folder.iterdir()} == {path.name for path in alone.iterdir()}
    assert (folder / "weights.npz").stat().st_mtime_ns == written
    assert [record["step"] for record in store.progress(folder)] == [2, 4]
    np.testing.assert_allclose(images(folder), images(alone), atol=1e-5)
    weights = [weights_file.read(f / "weights.npz", count=1437) for f in (folder, alone)]
    np.testing.assert_allclose(*weights, rtol=1e-4)
    results = [files.read_json(f / "result.json") for f in (folder, alone)]
    assert results[0]["accuracy"]["n"] == results[1]["accuracy"]["n"] == 2


@pytest.mark.slow
def test_processes_with_different_seeds_end_with_an_error(tmp_path):
    folder = tmp_path / "out"
    codes, outputs = finish(start_two(folder, "--seed", "{i}"), folder)
    assert codes == [2, 2], outputs
    assert all("seed is 0 there and 1 here" in output for output in outputs)
    assert not folder.exists()


@pytest.mark.parametrize(
    "error, kind",
    [
        (ValueError("UNKNOWN: Gloo all-reduce failed"), ConnectionError),
        (jax.errors.JaxRuntimeError("UNAVAILABLE: Connection reset"), ConnectionError),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), RuntimeError),
        (ValueError("ipc must be at least 1"), ValueError),
    ],
    ids=str,
)
def test_only_lost_connections_become_connection_errors(error, kind, monkeypatch):
    """JAX raises a failure of XLA as a RuntimeError or, from a cached program, a ValueError."""
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: None)
    with pytest.raises(kind, match=str(error)), processes.joined(None, None, None):
        raise error


@pytest.mark.parametrize(
    "options, value",
    [
        ("--coordinator foo", "'foo'"),
        ("--coordinator host:99999", "'host:99999'"),
        ("--coordinator :80", "':80'"),
        ("--num-processes 0", "got 0"),
        ("--process-id -1", "got -1"),
        ("--num-processes 2 --process-id 2", "got 2 of 2"),
        ("--process-id 1 --num-processes 2", "--coordinator"),
    ],
)
def test_invalid_addresses_and_numbers_are_rejected(options, value, tmp_path, capsys, monkeypatch):
    def no_cluster(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", no_cluster)
    with pytest.raises(SystemExit) as stopped:
        cli.main([*RUN, "--out", str(tmp_path / "out"), "--distributed", *options.split()])
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and message.count("\n") == 1 and value in message


def test_all_devices_of_one_process(tmp_path, monkeypatch):
    """They form the mesh of the run; `test_pipeline` checks what a run on a mesh computes."""

    class Called(Exception):
        pass

    def run(*_, **fields):
        raise Called(fields["mesh"].size, fields["split_from"])

    monkeypatch.setattr(pipeline, "run", run)
    command = [*RUN, "--out", str(tmp_path / "out"), "--distributed", "--num-processes", "1"]
    with pytest.raises(Called) as called:
        cli.main([*command, *SPLIT])
    assert called.value.args == (jax.device_count(), 0)


def test_one_process_broadcasts_to_itself(tmp_path):
    assert processes.is_first() and processes.broadcast(3) == 3
    with processes.own_folder(tmp_path / "out") as folder:
        assert folder == tmp_path / "out"


def test_leaving_does_not_wait_for_rows(monkeypatch):
    codes, stop = [], threading.Event()
    monkeypatch.setattr(processes.os, "_exit", codes.append)
    with pytest.raises(SystemExit, match="130"):
        processes.leave(130)
    row = threading.Thread(target=stop.wait, name=f"{processes.ROW_THREADS}_0")
    row.start()
    processes.leave(130)
    stop.set()
    row.join()
    assert codes == [130]
