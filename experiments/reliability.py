"""Does jaxdd fail loudly? Damage, odd input and settings, kills, mismatched processes.

    python -m experiments.reliability --rounds 1
    python -m experiments.reliability --groups damage options --rounds 2 --budget 20m

Attacks in eight groups on a small folder of images; the verdict depends on what an attack leaves:

* damage: each file of each kind of folder (run, unfinished run, comparison, images, caches) is cut,
  emptied, changed or replaced; then each command that reads it is called.
* options: each option of each command gets bad and odd words and numbers.
* calls: public functions get arrays with other values, types and shapes.
* layouts: folders of images are stored as strangers store them; classes and split must be read as
  the pixels of the images say.
* sets: a set is stored in other units, layouts, orders and files, then scored.
* settings: commands run and resume under other settings of JAX.
* kills: SIGKILL in every command and method at random times, before and after files are renamed,
  and at other operations on files; then the command with --resume.
* distributed: two processes with different settings, that do not start, or that are killed.

The verdict is right (the products equal those of an undisturbed command), refused (one line, and
nothing is worse), or one of four failures: traceback, silent (a wrong result is accepted), worse (a
folder lost something), hang. The number of the round is the seed of all randomness, so an attack
can be repeated. The record is written after each attack; failures are tried again.

Cost: 40 minutes per round on two cores.
"""

import contextlib
import importlib
import os
import pathlib
import resource
import tempfile
from collections import Counter
from typing import Any, Literal, get_args

import jax
import tyro

from experiments.attacks import laboratory as lab
from experiments.tools import markdown, record
from jaxdd.data import files

Group = Literal["damage", "options", "calls", "layouts", "sets", "settings", "kills", "distributed"]

GROUPS: tuple[Group, ...] = get_args(Group)
MAX_MEMORY = 8 * 2**30
"""Maximum memory of the process of the campaign, in bytes."""

OUT = record.RESULTS / "reliability.json"

VERDICTS = {"right": "correct", "refused": "rejected", "silent": "silent error", "worse": "loss"}
"""Titles of verdicts in tables."""


def main(
    *,
    rounds: int = 1,
    groups: tuple[Group, ...] = GROUPS,
    only: str = "",
    out: pathlib.Path = OUT,
    work: pathlib.Path = pathlib.Path(tempfile.gettempdir()) / "jaxdd-reliability",
    budget: str | None = None,
) -> None:
    """Run the attacks and add the verdicts to the record.

    Args:
        rounds: number of rounds of each group.
        groups: groups of attacks to run.
        only: text that the name of an attack must contain.
        out: the record, JSON.
        work: folder for compiled programs.
        budget: time after which to stop, such as 20m.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, MAX_MEMORY))
    cache_programs(work / "programs")
    with tempfile.TemporaryDirectory(dir=work) as folder, record.deadline(budget):
        laboratory = lab.Laboratory(pathlib.Path(folder))
        for group in groups:
            module = importlib.import_module(f"experiments.attacks.{group}")
            for round_ in range(rounds):
                for attack in module.attacks(laboratory, round_):
                    if only in attack.name:
                        run_attack(out, group, attack)
    print("\n".join(tables(out)[0]))


def cache_programs(folder: pathlib.Path) -> None:
    """Let this process and its children cache everything that they compile."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = dict(
        jax_compilation_cache_dir=str(folder),
        jax_persistent_cache_min_compile_time_secs=0.0,
        jax_persistent_cache_min_entry_size_bytes=-1,
    )
    for name, value in settings.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)


def run_attack(out: pathlib.Path, group: str, attack: lab.Attack) -> None:
    """Run an attack that is not in the record or failed before, and record the verdict."""
    content = files.read_json(out) if out.exists() else {"attacks": {}, "failures": []}
    verdicts = content["attacks"].setdefault(group, {})
    if verdicts.get(attack.name) in ("right", "refused"):
        return
    outcome = attack.run()
    verdicts[attack.name] = outcome.verdict
    is_other = lambda failure: (failure["group"], failure["name"]) != (group, attack.name)
    content["failures"] = list(filter(is_other, content["failures"]))
    if outcome.verdict in lab.FAILURES:
        content["failures"].append({"group": group, "name": attack.name, **outcome._asdict()})
        command = f"{outcome.verdict}\n  {outcome.command}\n  {outcome.message}"
        print(f"{group}: {attack.name}: {command}", flush=True)
    content["counts"] = count(content["attacks"])
    files.write_json(out, content | record.circumstances())


def count(attacks: dict[str, dict[str, str]]) -> dict[str, dict[str, int]]:
    """Return the number of attacks by group and verdict."""
    return {
        group: {verdict: Counter(verdicts.values())[verdict] for verdict in lab.VERDICTS}
        for group, verdicts in attacks.items()
    }


def tables(path: pathlib.Path = OUT) -> list[list[str]]:
    """Return the table of verdicts by group."""
    content: dict[str, Any] = files.read_json(path)
    rows = [
        [group, str(sum(counts.values())), *(str(counts[verdict]) for verdict in lab.VERDICTS)]
        for group, counts in content["counts"].items()
    ]
    titles = [VERDICTS.get(verdict, verdict) for verdict in lab.VERDICTS]
    return [markdown.table([markdown.link("group", path), "attacks", *titles], rows)]


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        tyro.cli(main)
