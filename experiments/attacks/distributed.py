"""Two processes of one run that differ, do not start, are killed, or are resumed.

If their settings differ, both must end with an error of one line each. A process that waits in
vain or loses the other one must end within the time limit, with an error or by SIGABRT. A lost run
is resumed by one process or by two, to the set of one process alone.
"""

import functools
import os
import pathlib
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from experiments.attacks import laboratory as lab
from jaxdd.runs.folder import store

WAIT, PATIENCE, REFUSAL = 20, 10, 40
"""Seconds to wait for others, without a sign of life, and from the start to an error; the last on a
machine that is not busy."""

LOST = (2, -signal.SIGABRT)
"""Exit codes of a process that waits in vain or loses another one."""

CHILD = f"""
import sys
said = sys.argv.pop(1)
import jax, jaxdd
exec(said)
from jaxdd.commands import cli
from jaxdd.runs import processes
processes.INITIALIZATION_TIMEOUT, processes.HEARTBEAT_TIMEOUT = {WAIT}, {PATIENCE}
cli.main()
"""

OTHER = {
    "seed": ("--seed", 1), "ipc": ("--ipc", 2), "steps": ("--steps", 8), "chunk": ("--chunk", 3),
    "batch": ("--batch-size", 9), "epochs": ("--epochs", 3), "networks": ("--eval-seeds", 3),
    "network": ("--network", "lenet"), "rate": ("--learning-rate", 0.5),
    "start": ("--init", "noise"), "weights": ("--debias", "density"), "method": ("--method", "dc"),
    "training": ("--training", "lff"), "type": ("--dtype", "bfloat16"), "resume": ("--resume",),
    "temperature": ("--temperature", 2),
}  # fmt: skip
"""Options that one of two processes is given besides."""

ADDRESSES = ("foo", "localhost:abc", ":80", "localhost:0", "localhost:99999", "localhost:-1")

LINES = re.compile(r"^(\[Gloo\]|[IWEF]\d{4} ).*\n?", re.M)  # which XLA and Gloo log


def attacks(laboratory: lab.Laboratory, round_: int) -> Iterator[lab.Attack]:
    """Yields the attacks of a round, which decides when processes are killed."""
    for name, run in _faults(laboratory, round_).items():
        yield lab.Attack(f"{name}, round {round_}", functools.partial(run))


def _faults(laboratory, round_) -> dict[str, Callable[[], lab.Outcome]]:
    both = functools.partial(_both, laboratory)
    found: dict[str, Callable[[], lab.Outcome]] = {}
    for name, options in OTHER.items():
        found[f"other {name}"] = functools.partial(both, [], [*options])
    found["other data"] = functools.partial(_other_data, laboratory)
    found["other weights"] = functools.partial(_other_weights, laboratory)
    for module in ("jax", "jaxdd"):
        old = f"{module}.__version__ = '0.0.1'"
        found[f"other {module}"] = functools.partial(both, [], [], setup=old)
    waiting = functools.partial(both, [], [], limit=WAIT + REFUSAL, codes=LOST)
    found["another count"] = functools.partial(waiting, numbers=((2, 0), (3, 1)))
    found["another count first"] = functools.partial(waiting, numbers=((3, 0), (2, 1)))
    found["process 0 twice"] = functools.partial(waiting, numbers=((2, 0), (2, 0)))
    found["process 1 twice"] = functools.partial(waiting, numbers=((2, 1), (2, 1)))
    for address in ADDRESSES:
        found[f"address {address}"] = functools.partial(both, [], [], address=address)
    nowhere = "nowhere.invalid:5000"
    found[f"address {nowhere}"] = functools.partial(waiting, address=nowhere)
    for alone in (0, 1):
        found[f"process {alone} alone"] = functools.partial(waiting, numbers=((2, alone),))
    found["somebody else at the port"] = functools.partial(_stranger, laboratory)
    for first, second in ((1, 2), (2, 1), (2, 2)):
        for victim in range(first):
            name = f"process {victim} of {first} killed, resumed by {second}"
            title = f"{name} {round_}"
            run = functools.partial(_killed, laboratory, first, victim, second, title)
            found[name] = run
    found["two make it"] = functools.partial(_killed, laboratory, 2, None, 2, "")
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


def _command(laboratory, folder, number, address, more=()):
    count, process = number
    where = ["--coordinator", address, "--num-processes", count, "--process-id", process]
    run = laboratory.command("run", "--debias", "plain")
    return [*run, *more, "--out", folder, "--distributed", *where]


def _started(laboratory, folder, numbers, address, mores, setup=""):
    """The processes, and the files of what each of them says."""
    found = []
    for i, number in enumerate(numbers):
        said = folder.with_name(f"said{i}")
        told = setup if i else ""
        arguments = [told, *_command(laboratory, folder, number, address, mores[i])]
        found.append((lab.start(CHILD, arguments, said), said))
    return found


def _both(
    laboratory,
    first,
    second,
    *,
    setup="",
    numbers=((2, 0), (2, 1)),
    address=None,
    limit=REFUSAL,
    codes=(2,),
):
    """The verdict on processes that must refuse, all of them, within a number of seconds."""
    folder = laboratory.fresh()
    address = address or f"localhost:{free_port()}"
    mores = [first, second]
    started = _started(laboratory, folder, numbers, address, mores, setup)
    command = "; ".join(
        lab.line(_command(laboratory, "FOLDER", n, address, m))
        for n, m in zip(numbers, mores, strict=False)
    )
    deadline = time.monotonic() + _patience(limit)
    outcomes = [_refused(*each, deadline, command, codes, folder) for each in started]
    return max(outcomes, key=lambda outcome: lab.VERDICTS.index(outcome.verdict))


def _patience(seconds):
    """As many seconds, times the processes that share a core."""
    return seconds * max(1, os.getloadavg()[0] / (os.cpu_count() or 1))


def _refused(process, said, deadline, command, codes, folder):
    ended = lab.wait(process, said, limit=max(deadline - time.monotonic(), 0.1))
    ended = ended._replace(err=LINES.sub("", ended.err))
    if ended.code == 0:
        return lab.Outcome("silent", command, f"exit 0: {ended.err}")
    if ended.code == -signal.SIGABRT and ended.code in codes:
        return lab.Outcome("refused", command)
    there = lambda: "" if not folder.exists() else f"{folder} is there"
    return lab.verdict(ended, command, worse=there, codes=codes)


def _other_data(laboratory):
    """A folder of the same name with other images."""
    other = laboratory.folder / "other" / "images"
    if not other.exists():
        lab.draw_images(other, seed=1)

    folder, address = laboratory.fresh(), f"localhost:{free_port()}"
    commands = [_command(laboratory, folder, (2, i), address) for i in range(2)]
    commands[1][1] = other
    return _commands(folder, commands)


def _other_weights(laboratory):
    folder, address = laboratory.fresh(), f"localhost:{free_port()}"
    commands = []
    for i in range(2):
        weights = folder.with_name(f"weights{i}.npy")
        np.save(weights, np.random.default_rng(i).uniform(0.1, 1, 120))
        more = ["--weights", weights]
        command = _command(laboratory, folder, (2, i), address, more)
        at = command.index("--debias")
        commands.append([*command[:at], *command[at + 2 :]])
    return _commands(folder, commands)


def _commands(folder, commands):
    """The verdict on commands that must refuse each other."""
    started = []
    for i, command in enumerate(commands):
        said = folder.with_name(f"said{i}")
        started.append((lab.start(CHILD, ["", *command], said), said))
    text, deadline = "; ".join(map(lab.line, commands)), time.monotonic() + _patience(REFUSAL)
    outcomes = [_refused(*each, deadline, text, (2,), folder) for each in started]
    return max(outcomes, key=lambda outcome: lab.VERDICTS.index(outcome.verdict))


def _stranger(laboratory):
    """Somebody who says nothing sits at the port of process 0."""
    with socket.create_server(("", 0)) as listening:
        port = listening.getsockname()[1]
        threading.Thread(target=lambda: listening.accept(), daemon=True).start()
        return _both(
            laboratory,
            [],
            [],
            address=f"localhost:{port}",
            limit=WAIT + REFUSAL,
            codes=LOST,
        )


def _killed(laboratory, first, victim, second, title):
    """One of the processes is killed, the other ends; the run is resumed to the set of one."""
    whole = laboratory.finished(*laboratory.command("run", "--debias", "plain"))
    folder, rng = laboratory.fresh(), np.random.default_rng(list(title.encode()))
    outcome = None
    if victim is not None:
        command = f"{first} processes of jaxdd run, process {victim} killed"
        outcome = _lost(laboratory, folder, first, victim, rng, command)
    if outcome is not None and outcome.verdict != "refused":
        return outcome
    command = f"{first} processes, process {victim} killed, resumed by {second}"
    return _resumed(laboratory, folder, second, whole, command)


def _lost(laboratory, folder, count, victim, rng, command):
    address = f"localhost:{free_port()}"
    numbers = [(count, i) for i in range(count)]
    started = _started(laboratory, folder, numbers, address, [[]] * count)
    step = int(rng.choice([0, 2, 4]))
    there = folder / "checkpoint" / str(step) if step else folder / "config.json"
    deadline = time.monotonic() + 120
    while not there.exists() and time.monotonic() < deadline and started[victim][0].poll() is None:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.3))
    started[victim][0].kill()
    started[victim][0].wait()
    command = f"{command} at step {step}"
    if count == 1:
        return lab.Outcome("refused", command)
    process, said = started[1 - victim]
    ended = lab.wait(process, said, limit=_patience(PATIENCE + REFUSAL))
    ended = ended._replace(err=LINES.sub("", ended.err))
    if ended.code in (0, -signal.SIGABRT):  # with 0 the run was finished already
        return lab.Outcome("refused", command)
    return lab.verdict(ended, command, codes=LOST)


def _resumed(laboratory, folder, count, whole, command):
    address = f"localhost:{free_port()}"
    numbers = [(count, i) for i in range(count)]
    started = _started(laboratory, folder, numbers, address, [["--resume"]] * count)
    ends = [lab.wait(*each, limit=180) for each in started]
    outcomes = [
        lab.verdict(
            end._replace(err=LINES.sub("", end.err)),
            command,
            wrong=lambda: _another_set(whole, folder),
            worse=lambda: "it cannot go on",
        )
        for end in ends
    ]
    return max(outcomes, key=lambda outcome: lab.VERDICTS.index(outcome.verdict))


def _another_set(whole: pathlib.Path, folder: pathlib.Path) -> str:
    """In what a set differs from that of one process, but for the order of additions."""
    one, other = (store.read_synthetic(path / "synthetic.npz").images for path in (whole, folder))
    off: Any = np.abs(one - other).max()
    return "" if off < 1e-4 else f"images differ by {off}"
