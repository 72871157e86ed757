"""All commands, in groups, and the options of each: the source of `--help` and of its reference."""

import inspect
from collections.abc import Callable

from jaxdd.commands import arguments, cite, datasets, runs, scoring, sets, trust

GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "make": {"demo": runs.demo, "run": runs.run, "compare": runs.compare},
    "judge": {
        "evaluate": scoring.evaluate_set,
        "profile": scoring.profile_set,
        "report": runs.write_report,
    },
    "publish": {
        "export": trust.export_set,
        "merge": trust.merge_sets,
        "sign": trust.sign_set,
        "verify": trust.verify_set,
        "audit": trust.audit_set,
        "cite": cite.cite,
    },
    "data": {
        "bias": datasets.find_bias,
        "datasets list": datasets.list_datasets,
        "datasets show": datasets.show_dataset,
        "datasets build": datasets.build_dataset,
    },
    "distilled sets": {
        "sets list": sets.list_sets,
        "sets show": sets.show_set,
        "sets verify": sets.verify_sets,
    },
}
"""Commands by group and name."""

COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
"""Commands by name."""


def summary(command: str) -> str:
    """Return the first line of the help of a command.

    >>> summary("datasets list")
    'List the benchmarks with their sizes and licences.'
    """
    return description(command).split("\n", 1)[0]


def description(command: str) -> str:
    """Return the help of a command without its options."""
    return inspect.cleandoc(COMMANDS[command].__doc__ or "").split("\n\nArgs:")[0]


def options(command: str, method: str = "dm") -> list[arguments.Option]:
    """Return the arguments and options of a command, in the order of its help.

    Args:
        command: a name in `COMMANDS`.
        method: distillation method, on which the options of run and compare depend.

    >>> for option in options("datasets show")[:4]:
    ...     print(option.flags, option.metavar, option.default or "required")
    () DATASET required
    ('--test',) {uniform,conflicting} uniform
    ('--seed',) INT 0
    ('--out', '-o') FILE none
    """
    return arguments.of_command(COMMANDS[command], method)
