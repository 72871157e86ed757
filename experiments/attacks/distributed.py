"""Two processes of one run that differ, do not start, are killed, or are resumed.

If their settings differ, both must end with an error of one line. A process whose partner does not
start or is lost must end within the time limit, with an error or by SIGABRT. The run is then
resumed by one process or by two, and must have the set of a single process.
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

WAIT, HEARTBEAT, ERROR = 20, 10, 40
"""Seconds to wait for other processes, without a heartbeat, and from start to error if idle."""

LOST = (2, -signal.SIGABRT)
"""Exit codes of a process whose partner does not start or is lost."""

CHILD = f"""
import sys
setup = sys.argv.pop(1)
import jax, jaxdd
exec(setup)
from jaxdd.commands import cli
from jaxdd.runs import processes
processes.INITIALIZATION_TIMEOUT, processes.HEARTBEAT_TIMEOUT = {WAIT}, {HEARTBEAT}
cli.main()
"""

DIFFERENCES = {
    "seed": ("--seed", 1), "ipc": ("--ipc", 2), "steps": ("--steps", 8), "chunk": ("--chunk", 3),
    "batch": ("--batch-size", 9), "epochs": ("--epochs", 3), "networks": ("--seeds", 3),
    "network": ("--network", "lenet"), "rate": ("--learning-rate", 0.5),
    "start": ("--init", "noise"), "weights": ("--debias", "density"), "method": ("--method", "dc"),
    "training": ("--training", "lff"), "type": ("--dtype", "bfloat16"), "resume": ("--resume",),
    "temperature": ("--temperature", 2),
}  # fmt: skip
"""Options that only one of two processes has."""

ADDRESSES = ("foo", "localhost:abc", ":80", "localhost:0", "localhost:99999", "localhost:-1")
LOG_LINES = re.compile(r"^(\[Gloo\]|[IWEF]\d{4} ).*\n?", re.M)  # lines logged by XLA and Gloo


def attacks(laboratory: lab.Laboratory, round_: int) -> Iterator[lab.Attack]:
    """Yield the attacks of a round; the round seeds the moments of kills."""
    for name, run in _faults(laboratory, round_).items():
        yield lab.Attack(f"{name}, round {round_}", run)


def _faults(laboratory, round_) -> dict[str, Callable[[], lab.Outcome]]:
    both = functools.partial(_both, laboratory)
    waiting = functools.partial(both, limit=WAIT + ERROR, codes=LOST)
    faults: dict[str, Callable[[], lab.Outcome]] = {
        f"other {name}": functools.partial(both, options) for name, options in DIFFERENCES.items()
    }
    faults["other data"] = functools.partial(_other_data, laboratory)
    faults["other weights"] = functools.partial(_other_weights, laboratory)
    for module in ("jax", "jaxdd"):
        setup = f"{module}.__version__ = '0.0.1'"
        faults[f"other {module}"] = functools.partial(both, setup=setup)
    for name, numbers in {
        "another count": ((2, 0), (3, 1)),
        "another count first": ((3, 0), (2, 1)),
        "process 0 twice": ((2, 0), (2, 0)),
        "process 1 twice": ((2, 1), (2, 1)),
        "process 0 alone": ((2, 0),),
        "process 1 alone": ((2, 1),),
    }.items():
        faults[name] = functools.partial(waiting, numbers=numbers)
    for address in ADDRESSES:
        faults[f"address {address}"] = functools.partial(both, address=address)
    nowhere = "nowhere.invalid:5000"
    faults[f"address {nowhere}"] = functools.partial(waiting, address=nowhere)
    faults["another program at the port"] = functools.partial(_other_program, laboratory)
    for first, second in ((1, 2), (2, 1), (2, 2)):
        for victim in range(first):
            name = f"process {victim} of {first} killed, resumed by {second}"
            title = f"{name} {round_}"
            faults[name] = functools.partial(_kill, laboratory, first, victim, second, title)
    faults["two make it"] = functools.partial(_kill, laboratory, 2, None, 2, "")
    return faults


# --- processes ---------------------------------------------------------------------------------


def free_address() -> str:
    """Return an address of this machine with a free port."""
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return f"localhost:{listening.getsockname()[1]}"


def _command(laboratory, folder, number, address, more=()):
    count, process = number
    where = ["--coordinator", address, "--num-processes", count, "--process-id", process]
    run = laboratory.command("run", "--debias", "plain")
    return [*lab.change(run, more), "--out", folder, "--distributed", *where]


def _start(folder, commands, setup=""):
    """Start commands, of which all but the first run `setup`; return processes and stderr files."""
    started = []
    for i, command in enumerate(commands):
        stderr = folder.with_name(f"stderr{i}")
        started.append((lab.start(CHILD, [setup if i else "", *command], stderr), stderr))
    return started


def _wait(process, stderr, limit):
    ended = lab.wait(process, stderr, limit=limit)
    return ended._replace(err=LOG_LINES.sub("", ended.err))


def _on_busy_machine(seconds):
    """Return the seconds multiplied by the number of processes that share a core."""
    return seconds * max(1, os.getloadavg()[0] / (os.cpu_count() or 1))


def _worst(outcomes):
    return max(outcomes, key=lambda outcome: lab.VERDICTS.index(outcome.verdict))


# --- processes that must refuse ----------------------------------------------------------------


def _both(
    laboratory, options=(), *, numbers=((2, 0), (2, 1)), address=None, setup="", **limits
) -> lab.Outcome:
    """Start processes, of which the second has more options."""
    folder, address = laboratory.fresh(), address or free_address()
    commands = [
        _command(laboratory, folder, number, address, options if i else ())
        for i, number in enumerate(numbers)
    ]
    return _refusal(folder, commands, setup, **limits)


def _refusal(folder, commands, setup="", *, limit=ERROR, codes=(2,)):
    """Return the verdict on commands that must all end with an error within a number of seconds."""
    started, text = _start(folder, commands, setup), "; ".join(map(lab.line, commands))
    deadline = time.monotonic() + _on_busy_machine(limit)

    def verdict(process, stderr):
        ended = _wait(process, stderr, max(deadline - time.monotonic(), 0.1))
        if ended.code == 0:
            return lab.Outcome("silent", text, f"exit 0: {ended.err}")
        if ended.code == -signal.SIGABRT and ended.code in codes:
            return lab.Outcome("refused", text)
        exists = lambda: f"{folder} exists" if folder.exists() else ""
        return lab.verdict(ended, text, worse=exists, codes=codes)

    return _worst([verdict(*pair) for pair in started])


def _other_data(laboratory):
    """Use a folder of the same name with other images."""
    other = laboratory.folder / "other" / "images"
    if not other.exists():
        lab.draw_images(other, seed=1)
    folder, address = laboratory.fresh(), free_address()
    commands = [_command(laboratory, folder, (2, i), address) for i in range(2)]
    commands[1][1] = other
    return _refusal(folder, commands)


def _other_weights(laboratory):
    folder, address, commands = laboratory.fresh(), free_address(), []
    for i in range(2):
        weights = folder.with_name(f"weights{i}.npy")
        np.save(weights, np.random.default_rng(i).uniform(0.1, 1, 120))
        command = _command(laboratory, folder, (2, i), address, ["--weights", weights])
        # --weights excludes --debias, which is removed with its value.
        place = command.index("--debias")
        commands.append([*command[:place], *command[place + 2 :]])
    return _refusal(folder, commands)


def _other_program(laboratory):
    """Let a program that never answers listen at the port of process 0."""
    with socket.create_server(("", 0)) as listening:
        address = f"localhost:{listening.getsockname()[1]}"
        threading.Thread(target=lambda: listening.accept(), daemon=True).start()
        return _both(laboratory, address=address, limit=WAIT + ERROR, codes=LOST)


# --- processes that are killed -----------------------------------------------------------------


def _kill(laboratory, first, victim, second, title):
    """Kill a process. The other one must end, and resuming the run must give the same set."""
    whole = laboratory.finished(*laboratory.command("run", "--debias", "plain"))
    folder, rng = laboratory.fresh(), np.random.default_rng(list(title.encode()))
    if victim is not None:
        command = f"{first} processes of jaxdd run, process {victim} killed"
        outcome = _lose(laboratory, folder, first, victim, rng, command)
        if outcome.verdict != "refused":
            return outcome
    text = f"{first} processes, process {victim} killed, resumed by {second}"
    address = free_address()
    again = ["--resume"] * folder.exists()
    commands = [_command(laboratory, folder, (second, i), address, again) for i in range(second)]
    different = lambda: _other_set(whole, folder)
    return _worst(
        [
            lab.verdict(ended, text, wrong=different, worse=lambda: "cannot continue")
            for ended in [_wait(*pair, limit=180) for pair in _start(folder, commands)]
        ]
    )


def _lose(laboratory, folder, count, victim, rng, command):
    address = free_address()
    commands = [_command(laboratory, folder, (count, i), address) for i in range(count)]
    started = _start(folder, commands)
    process, step = started[victim][0], int(rng.choice([0, 2, 4]))
    path = folder / "checkpoint" / str(step) if step else folder / "config.json"
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.3))
    process.kill()
    process.wait()
    command = f"{command} at step {step}"
    if count == 1:
        return lab.Outcome("refused", command)
    ended = _wait(*started[1 - victim], limit=_on_busy_machine(HEARTBEAT + ERROR))
    if ended.code in (0, -signal.SIGABRT):  # with code 0 the run had finished
        return lab.Outcome("refused", command)
    return lab.verdict(ended, command, codes=LOST)


def _other_set(whole: pathlib.Path, folder: pathlib.Path) -> str:
    """Return how a set differs from that of one process, except for the order of additions."""
    one, other = (store.read_synthetic(path / "synthetic.npz").images for path in (whole, folder))
    difference: Any = np.abs(one - other).max()
    return "" if difference < 1e-4 else f"images differ by {difference}"
