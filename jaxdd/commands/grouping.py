"""The options of a method in groups, as `--help` shows them, with the defaults of each preset."""

import ast
import dataclasses
import functools
import inspect
import textwrap
from typing import Annotated, Any, get_type_hints

import tyro

from jaxdd.runs import options

GROUPS = {
    "data": (
        "conflict", "severity", "test", "resize", "skip_bad", "label", "attribute", "strategy",
        "zca",
    ),
    "weights": (
        "weighting", "weighted", "bandwidth_rule", "bandwidth", "temperature", "clip",
        "embedding", "encoder_steps", "encoder_width",
    ),
    "distillation": (
        "method", "ipc", "preset", "steps", "batch_size", "candidates", "formation",
        "learning_rate", "init", "outer", "inner", "syn_steps", "expert_epochs",
        "max_start_epoch", "lr_teacher", "num_experts", "train_epochs", "expert_updates",
        "teacher", "teacher_steps", "beta", "beta_floor", "eta", "signal", "crop", "class_parts",
        "buffer_path",
    ),
    "network_and_evaluation": (
        "network", "width", "depth", "dtype", "epochs", "eval_seeds", "training", "score_every",
    ),
    "run": ("chunk", "save_every", "seed"),
}  # fmt: skip
"""Every option of every method, by what it is about."""

MAIN = ("distillation", "data", "weights", "network_and_evaluation", "run")
"""The groups in the order of the help."""


@functools.cache
def grouped(kind: type) -> type:
    """Returns a dataclass of dataclasses, one for each group, that tyro makes a parser of.

    Args:
        kind: of options, such as `options.DM`.
    """
    hints, about, told = get_type_hints(kind), documented(kind), defaults(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    groups = []
    for group in MAIN:
        members = []
        for name in GROUPS[group]:
            if name in fields:
                word = tyro.conf.arg(help=about[name], help_behavior_hint=told[name])
                default = dataclasses.field(default=fields[name].default)
                members.append((name, Annotated[hints[name], word], default))
        made: Any = dataclasses.make_dataclass(group, members, namespace={"__doc__": None})
        groups.append((group, made))
    return dataclasses.make_dataclass("Grouped", groups)


def joined(kind: type, found: Any) -> Any:
    """Returns the options that a filled `grouped(kind)` holds."""
    given: dict[str, Any] = {}
    for group in MAIN:
        given |= vars(getattr(found, group))
    return kind(**given)


def defaults(kind: type) -> dict[str, str]:
    """Returns what the help says of each option's default; presets differ in some.

    What is off by default, or follows from the data as the option's sentence says, has no word.

    >>> defaults(options.DM)["steps"], defaults(options.DM)["depth"], defaults(options.DM)["clip"]
    ('(default: quick 200, paper 20000)', '(default: 3)', '')
    """
    made: list[Any] = [kind(preset=preset).resolved() for preset in options.PRESETS]
    found = {}
    for field in dataclasses.fields(kind):
        values = [_shown(getattr(each, field.name)) for each in made]
        if field.name == "preset":
            told = _shown(field.default)
        elif len(set(values)) == 1:
            told = values[0]
        else:
            told = ", ".join(f"{p} {v}" for p, v in zip(options.PRESETS, values, strict=True))
        found[field.name] = "" if told == "none" else f"(default: {told})"
    return found


def _shown(value):
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def documented(kind: type) -> dict[str, str]:
    """Returns the sentences below the fields of a dataclass and of those that it comes from.

    >>> documented(options.DSA)["ipc"]
    'Synthetic images per class.'
    """
    found: dict[str, str] = {}
    for each in reversed([base for base in kind.__mro__ if dataclasses.is_dataclass(base)]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        body = getattr(tree, "body")  # noqa: B009
        for line, below in zip(body, body[1:], strict=False):
            if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr):
                name, text = ast.unparse(line.target), ast.literal_eval(below.value)
                found[name] = " ".join(text.split())
    return {field.name: found[field.name] for field in dataclasses.fields(kind)}
