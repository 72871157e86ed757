"""Results that are computed one by one and saved after each, so an experiment can be stopped."""

import contextlib
import datetime
import os
import pathlib
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import tyro

from jaxdd.data import files
from jaxdd.runs import pipeline, results

RESULTS = pathlib.Path(__file__).parents[1] / "results"

Tasks = Mapping[str, Callable[[], Mapping[str, Any]]]
"""Functions that compute the entries of a file of results, by name."""


def circumstances() -> dict[str, Any]:
    """Return device, versions and date of a measurement."""
    return results.circumstances() | {"date": datetime.date.today().isoformat()}


def log(task: str, done: int = 0, total: int = 0, **_: Any) -> None:
    """Print the beginning and the end of a task to stderr, with the time."""
    if done in (0, total):
        print(time.strftime("%H:%M:%S"), task, f"{done}/{total}", file=sys.stderr, flush=True)


def fill(path: pathlib.Path, tasks: Tasks) -> dict[str, Any]:
    """Compute the entries that a file of results lacks, and save the file after each.

    Args:
        path: JSON file with entries by name under "measured".
        tasks: functions that compute the entries.

    Returns:
        All entries of the file.
    """
    content = files.read_json(path) if path.exists() else {"measured": {}}
    for name, measure in tasks.items():
        if name not in content["measured"]:
            content["measured"][name] = measure()
            files.write_json(path, files.to_json(content | circumstances()))
            log(name)
    return content["measured"]


def run(path: pathlib.Path, tasks: Tasks, budget: str | None) -> None:
    """Fill a file of results; exit with code 3 when the budget is over."""
    try:
        with deadline(budget):
            fill(path.expanduser(), tasks)
    except (KeyboardInterrupt, pipeline.Interrupted):
        print("stopped; run the command again", file=sys.stderr)
        sys.exit(3)


def main(
    default: pathlib.Path,
    tasks: Callable[[pathlib.Path | None], Tasks],
    tables: Callable[[pathlib.Path], list[list[str]]],
) -> None:
    """Run the command line of an experiment whose results are one file.

    Args:
        default: the file.
        tasks: from the folder with the original files to the tasks.
        tables: of the complete file.
    """

    def command(
        *,
        data_dir: pathlib.Path | None = None,
        only: str = "",
        budget: str | None = None,
        out: pathlib.Path = default,
    ) -> None:
        """Compute the entries that `out` lacks, and print the tables if no entry is left.

        Args:
            data_dir: folder with the original files.
            only: text that the name of an entry must contain.
            budget: time after which to stop, such as 90s, 20m or 1h.
            out: JSON file.
        """
        run(out, {name: task for name, task in tasks(data_dir).items() if only in name}, budget)
        if not only:
            show(tables(out))

    tyro.cli(command)


def show(tables: Iterable[list[str]]) -> None:
    """Print tables with an empty line between them."""
    print("\n\n".join("\n".join(lines) for lines in tables))


def measured(path: pathlib.Path) -> dict[str, Any]:
    """Return the entries that `fill` wrote."""
    return files.read_json(path)["measured"]


def percent(score: Mapping[str, Any] | None) -> str:
    """Return mean ± standard deviation of a stored score in percent, – without a score."""
    return results.percent(None if score is None else results.Score.from_dict(score))


def seconds(budget: str) -> float:
    """Return the seconds of a time such as 90s, 20m or 1.5h.

    >>> seconds("20m")
    1200.0
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if not match:
        raise ValueError(f"budget must be a number with s, m or h, such as 20m, got {budget!r}")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


@contextlib.contextmanager
def deadline(budget: str | None, *, again: float = 30.0) -> Iterator[None]:
    """Interrupt the block like Ctrl-C when the budget is over.

    Args:
        budget: a time such as 20m; None for no limit.
        again: seconds after which the interrupt is repeated until the block ends, since Python
            drops exceptions that are raised during garbage collection.
    """
    if budget is None:
        yield
        return
    wait, ended = seconds(budget), threading.Event()

    def interrupt():
        delay = wait
        while not ended.wait(min(delay, threading.TIMEOUT_MAX)):
            os.kill(os.getpid(), signal.SIGINT)
            delay = again

    # Shells start background processes with SIGINT ignored; this restores the default.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        signal.signal(signal.SIGINT, before)
