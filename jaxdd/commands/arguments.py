"""Command-line arguments: the options of a method, in groups, as tyro needs them."""

import dataclasses
import functools
from typing import Annotated, Any, get_type_hints

import tyro

from jaxdd.runs import options
from jaxdd.runs.options import DM


@functools.cache
def grouped(kind: type[DM]) -> type:
    """Return a dataclass of dataclasses, one per group of options, for tyro to parse."""
    hints, groups = get_type_hints(kind), []
    for group in options.GROUPS:
        members = [
            _member(kind, field, hints[field.name])
            for field in dataclasses.fields(kind)
            if field.metadata.get("group", "distillation") == group
        ]
        members.sort(key=lambda member: member[0] != "method")
        name = group.replace(" ", "_")
        dataclass: Any = dataclasses.make_dataclass(name, members, namespace={"__doc__": None})
        groups.append((name, dataclass))
    return dataclasses.make_dataclass("Grouped", groups)


def _member(kind, field, hint):
    """Return name, annotated type and default of an option; None stands for the preset."""
    help_text = field.metadata.get("help") or DM.__dataclass_fields__[field.name].metadata["help"]
    fields: dict[str, Any] = dict(
        help=help_text, help_behavior_hint=_default_hint(kind, field.name)
    )
    if field.name == "method":
        fields["metavar"] = "{" + ",".join(options.OPTIONS) + "}"
    default = field.default
    if isinstance(default, options.Preset):
        hint, default = hint | None, None
    return field.name, Annotated[hint, tyro.conf.arg(**fields)], dataclasses.field(default=default)


def joined(kind: type[DM], groups: Any) -> DM:
    """Return the options in a parsed instance of `grouped(kind)`."""
    values: dict[str, Any] = {}
    for group in options.GROUPS:
        values |= vars(getattr(groups, group.replace(" ", "_")))
    for field in dataclasses.fields(kind):
        if isinstance(field.default, options.Preset) and values[field.name] is None:
            del values[field.name]  # so that the preset decides
    return kind(**values)


def _default_hint(kind: type[DM], name: str) -> str:
    """Return the note on the default of an option in the help, by preset if they differ.

    >>> _default_hint(DM, "steps"), _default_hint(DM, "depth"), _default_hint(DM, "clip")
    ('(default: quick 200, paper 20000)', '(default: 3)', '')
    """
    presets: list[Any] = [dict(preset=preset) for preset in options.PRESETS]
    values = [_text(getattr(kind(**preset), name)) for preset in presets]
    if name != "preset" and len(set(values)) > 1:
        text = ", ".join(f"{p} {v}" for p, v in zip(options.PRESETS, values, strict=True))
        return f"(default: {text})"
    return "" if values[0] == "none" else f"(default: {values[0]})"


def _text(value):
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
