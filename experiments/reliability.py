"""Nothing silently wrong: kills, damaged files, odd options, odd arrays, processes that do not fit.

    python -m experiments.reliability --rounds 1
    python -m experiments.reliability --groups damage options --rounds 2 --budget 20m

Attacks in five groups on a small folder of images, each judged by what it left behind:

* damage: each file of each kind of folder (run, unfinished run, comparison, images, caches) is cut,
  emptied, changed, replaced; then each command that reads it is called.
* options: each option of each command gets bad and odd words and numbers.
* calls: public functions get arrays with other values, types and shapes.
* kills: SIGKILL in every command and method, at times of chance, before and after the renaming of
  files, and at other operations on files; then the command with --resume.
* distributed: two processes that were told different things, that do not come, or that are killed.

The verdict is right (the products are those of an undisturbed command), refused (one line, and
nothing is worse), or one of four failures: traceback, silent (something wrong is believed), worse
(a folder lost something), hang. The round decides all that is left to chance, so that an attack can
be repeated. The record is written after each attack, and a stopped campaign goes on; what failed
before is tried again. About 40 minutes a round on two cores.
"""

import contextlib
import importlib
import os
import pathlib
import resource
import sys
import tempfile
from collections import Counter
from typing import Any, Literal

import jax
import tyro

from experiments.attacks import laboratory as lab
from experiments.tools import budget as budgets
from experiments.tools import grid
from jaxdd.data import files
from jaxdd.runs import old_results as results

Group = Literal["damage", "options", "calls", "kills", "distributed"]

GROUPS: tuple[Group, ...] = ("damage", "options", "calls", "kills", "distributed")

MEMORY = 8 * 2**30
"""Bytes that a process of the campaign may have."""

OUT = grid.RESULTS / "reliability.json"


def main(
    *,
    rounds: int = 1,
    groups: tuple[Group, ...] = GROUPS,
    only: str = "",
    out: pathlib.Path = OUT,
    work: pathlib.Path = pathlib.Path(tempfile.gettempdir()) / "jaxdd-reliability",
    budget: str | None = None,
) -> None:
    """Attacks, and adds what came of it to the record.

    Args:
        rounds: of each group.
        groups: of attacks.
        only: words that the name of an attack must hold.
        out: the record, JSON.
        work: folder for compiled programs, which stay.
        budget: time after which it stops as after Ctrl-C, such as 20m.
    """
    limit_memory()
    keep_programs(work / "programs")
    limit = None if budget is None else budgets.seconds(budget)
    with tempfile.TemporaryDirectory(dir=work) as folder, budgets.deadline(limit):
        laboratory = lab.Laboratory(pathlib.Path(folder))
        for group in groups:
            module = importlib.import_module(f"experiments.attacks.{group}")
            for round_ in range(rounds):
                for attack in module.attacks(laboratory, round_):
                    if only in attack.name:
                        pursue(out, group, attack)
    print(summary(read(out)))


def limit_memory() -> None:
    """Has this process fail, and no other one, should an attack make it ask for all memory."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def keep_programs(folder: pathlib.Path) -> None:
    """Has this process and those that it starts keep all that they compile."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = dict(
        jax_compilation_cache_dir=str(folder),
        jax_persistent_cache_min_compile_time_secs=0.0,
        jax_persistent_cache_min_entry_size_bytes=-1,
    )
    for name, value in kept.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)


def pursue(out: pathlib.Path, group: str, attack: lab.Attack) -> None:
    """Carries out an attack that the record does not have, or has as a failure."""
    record = read(out)
    before = record["attacks"].get(group, {}).get(attack.name, "absent")
    if before in lab.VERDICTS and before not in lab.FAILURES:
        return
    outcome = attack.run()
    add(record, group, attack.name, outcome)
    files.write_json(out, record)
    if outcome.verdict in lab.FAILURES:
        print(f"{group}: {attack.name}: {outcome.verdict}\n  {outcome.command}\n  {outcome.said}")
        sys.stdout.flush()


def read(out: pathlib.Path) -> dict[str, Any]:
    """The record so far."""
    return files.read_json(out) if out.exists() else {"attacks": {}, "failures": []}


def add(record: dict[str, Any], group: str, name: str, outcome: lab.Outcome) -> None:
    """Adds what came of an attack to the record, in the place of what came of it before."""
    record["attacks"].setdefault(group, {})[name] = outcome.verdict
    record["failures"] = [
        failure
        for failure in record["failures"]
        if (failure["group"], failure["name"]) != (group, name)
    ]
    if outcome.verdict in lab.FAILURES:
        record["failures"].append({"group": group, "name": name, **outcome._asdict()})
    record["counts"] = counted(record["attacks"])
    record |= results.circumstances()


def counted(attacks: dict[str, dict[str, str]]) -> dict[str, dict[str, int]]:
    """How many attacks of each group got which verdict."""
    return {
        group: {verdict: Counter(found.values())[verdict] for verdict in lab.VERDICTS}
        for group, found in attacks.items()
    }


def summary(record: dict[str, Any]) -> str:
    """The counts as text."""
    rows = [("", *lab.VERDICTS)]
    rows += [(group, *found.values()) for group, found in record.get("counts", {}).items()]
    return "\n".join("".join(f"{cell:>12}" for cell in row) for row in rows)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        tyro.cli(main)
