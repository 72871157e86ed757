"""Two processes on this machine against one, and what is left when one of them is killed."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures

import jax
import numpy as np
import pytest

from jaxdd.commands import cli
from jaxdd.data import files
from jaxdd.runs import processes
from jaxdd.runs.folder import store

RUN = (
    "run cdigits --ipc 2 --batch-size 8 --network mlp --epochs 1 --eval-seeds 3 --steps 6 "
    "--chunk 2 --save-every 0 --debias kde --encoder-steps 2 --encoder-width 4 --strategy"
).split()
SPLIT = "--split-from", "0"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "out"
    cli.main([*RUN, "--out", str(folder)])
    return folder


def start(folder, process, port, patience, *more):
    """One of two processes with one device each, which writes what it says to a file."""
    code = f"""
import functools
from jaxdd import spread
from jaxdd.runs import cli, processes

made = spread.pool

def told(*args, **given):
    pool = made(*args, **given)
    held = [shard.data.shape for shard in pool.images.array.addressable_shards]
    print("held:", *held, "of", len(pool.images))
    return pool

spread.pool = told
processes.joined = functools.partial(processes.joined, patience={patience})
cli.main()
"""
    where = f"--coordinator localhost:{port} --num-processes 2 --process-id {process}".split()
    command = [
        sys.executable,
        "-c",
        code,
        *RUN,
        "--out",
        str(folder),
        "--distributed",
        *SPLIT,
        *where,
        *more,
    ]
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
    for text in said:  # 1,437 rows and a black one
        assert text.read_text().count("held: (719, 16, 16, 3) of 1437") == 1
    kept = [store.read_weights(f / "weights.npz", count=1437) for f in (tmp_path / "out", alone)]
    np.testing.assert_allclose(*kept, rtol=1e-4)
    logs = [files.read_arrays(f / "weights.npz")["log_density"] for f in (tmp_path / "out", alone)]
    np.testing.assert_allclose(*logs, rtol=1e-6)
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


@pytest.mark.slow
def test_processes_with_different_seeds_refuse(tmp_path):
    """Both of them, before anything is written."""
    port = free_port()
    both = [start(tmp_path / "out", i, port, 30, "--seed", str(i)) for i in range(2)]
    try:
        for i, process in enumerate(both):
            assert process.wait(timeout=400) == 2
            said = (tmp_path / f"said{i}").read_text()
            assert "processes 0 (there) and 1 (here) differ: seed is 0 there and 1 here" in said
            who = ("1 more of 2 processes", "process 0")[i]
            assert f"process {i} waits up to 60 s for {who} at localhost:{port}" in said
        assert not (tmp_path / "out").exists()
    finally:
        for process in both:
            process.kill()
            process.wait()


def meet(port, *numbers, wait=30.0):
    """What comes of processes that meet, each with (num_processes, process_id)."""

    def join(number):
        with processes.joined(f"localhost:{port}", *number, wait=wait):
            raise AssertionError("they have been joined")

    with futures.ThreadPoolExecutor() as pool:
        return [future.exception() for future in [pool.submit(join, n) for n in numbers]]


@pytest.mark.parametrize(
    "numbers, part",
    [
        ([(2, 0), (3, 1)], "num_processes is 2 there and 3 here"),
        ([(3, 0), (3, 1), (3, 1)], "process-id must differ between processes, found 1 twice"),
    ],
    ids=["counts", "ids"],
)
def test_processes_that_do_not_fit_are_told(numbers, part):
    for error in meet(free_port(), *numbers):
        assert isinstance(error, ValueError) and part in str(error)


def test_waiting_ends(capsys):
    port = free_port()
    (first,) = meet(port, (3, 0), wait=0.2)
    (second,) = meet(port, (3, 1), wait=0.2)
    assert isinstance(first, processes.Absent) and "only 0 did" in str(first)
    assert isinstance(second, processes.Absent) and f"not at localhost:{port}" in str(second)
    assert "process 0 waits up to 0.2 s for 2 more of 3" in capsys.readouterr().err


def test_who_left_before_all_came_may_come_again():
    port = free_port()
    with futures.ThreadPoolExecutor() as pool:
        first = pool.submit(meet, port, (3, 0))
        with processes._reached(("localhost", port), time.monotonic() + 30) as gone:
            processes._say(gone, {"process_id": 1, "num_processes": 3, **processes._versions()})
        with processes._reached(("localhost", port), time.monotonic() + 30) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n")
        meet(port, (3, 1), (4, 2))  # ends the meeting by another fault than number 1
        (error,) = first.result()
    assert "num_processes is 3 there and 4 here" in str(error)


def test_the_end_of_another_process_is_noticed():
    """They stay connected once they have met; the first one sees when that ends."""
    port, ended = free_port(), threading.Event()
    with futures.ThreadPoolExecutor() as pool:
        met = [pool.submit(processes._meet, f"localhost:{port}", 2, i, 30) for i in range(2)]
        first, second = (future.result() for future in met)
        assert (first.keys(), second.keys()) == ({1}, {0})
        pool.submit(processes._watch, first[1], ended.set)
        assert not ended.wait(0.05)
        processes._close(second)
        assert ended.wait(10)


@pytest.mark.parametrize(
    "error, kind",
    [
        (ValueError("UNKNOWN: Gloo all-reduce failed"), processes.Lost),
        (jax.errors.JaxRuntimeError("Connection reset"), processes.Lost),
        (ValueError("ipc must be at least 1"), ValueError),
    ],
    ids=str,
)
def test_what_xla_says_of_others_is_told_from_what_is_refused(error, kind, monkeypatch):
    """JAX raises the same failure as either, by whether it called the program before."""
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: None)
    with pytest.raises(kind, match=str(error)), processes.joined(None, None, None):
        raise error


def test_the_end_of_the_coordinator_is_noticed():
    """What is said passes in both directions until it closes; XLA's connection stays open."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = processes._relayed(f"127.0.0.1:{listener.getsockname()[1]}", ended.set)
        with socket.create_connection(processes._address(address)) as near:
            far = listener.accept()[0]
            near.sendall(b"to")
            assert far.recv(2) == b"to"
            far.sendall(b"fro")
            assert near.recv(3) == b"fro" and not ended.is_set()
            far.close()
            assert ended.wait(10)
            near.settimeout(0.1)
            with pytest.raises(TimeoutError):
                near.recv(1)


@pytest.mark.parametrize(
    "where, part",
    [
        ("--coordinator foo", "must be HOST:PORT, a port in 1..65535, found 'foo'"),
        ("--coordinator :80", "found ':80'"),
        ("--coordinator host:abc", "found 'host:abc'"),
        ("--coordinator host:0", "found 'host:0'"),
        ("--coordinator host:99999", "found 'host:99999'"),
        ("--num-processes 0", "num-processes must be at least 1, found 0"),
        ("--process-id -1", "process-id must be at least 0, found -1"),
        ("--num-processes 2 --process-id 2", "and below num-processes, 2, found 2"),
        ("--process-id 1 --num-processes 2", "--distributed needs --coordinator HOST:PORT: no"),
    ],
    ids=str,
)
def test_bad_places_are_refused(where, part, tmp_path, capsys, monkeypatch):
    def nowhere(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", nowhere)
    with pytest.raises(SystemExit) as stopped:
        cli.main([*RUN, "--out", str(tmp_path / "out"), "--distributed", *where.split()])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.count("\n") == 1 and part in said


@pytest.mark.parametrize("split", [(), SPLIT], ids=["copies", "split"])
def test_all_devices_of_one_process(alone, tmp_path, split):
    folder = tmp_path / "out"
    cli.main([*RUN, "--out", str(folder), "--distributed", "--num-processes", "1", *split])
    assert_same_set(folder, alone)


def test_one_process_broadcasts_to_itself(tmp_path):
    assert processes.is_first() and processes.broadcast(3) == 3
    with processes.own_folder(tmp_path / "out") as folder:
        assert folder == tmp_path / "out"


def test_where_the_others_are_is_for_distributed_runs(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main([*RUN, "--out", str(tmp_path / "out"), "--num-processes", "2"])
    assert "are for --distributed" in capsys.readouterr().err


def test_rows_at_work_are_not_waited_for(monkeypatch):
    left, stop = [], threading.Event()
    monkeypatch.setattr(processes.os, "_exit", left.append)
    with pytest.raises(SystemExit, match="130"):
        processes.leave(130)
    row = threading.Thread(target=stop.wait, name=f"{processes.ROW}_0")
    row.start()
    processes.leave(130)
    stop.set()
    row.join()
    assert left == [130]
