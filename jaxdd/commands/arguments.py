"""Options of the commands: names, help and defaults, and the functions that tyro parses.

Parameters of a command are its options; those without a default are arguments without a name.
Their help is the `Args` section of its docstring, where "Defaults to X." at the end states the
default. `Annotated[type, "DIR"]` gives the placeholder of the value, or a function that returns it
where entries of a registry are choices. A parameter whose type is a dataclass stands for its
fields, whose help is in their metadata. A second string in `Annotated` is the name on the command
line if it is not that of the parameter.
"""

import dataclasses
import functools
import inspect
import pathlib
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from jaxdd import augment
from jaxdd.data import benchmarks
from jaxdd.runs import options

Run = Annotated[pathlib.Path, "RUN"]
Set = Annotated[pathlib.Path, "SET"]
Folder = Annotated[pathlib.Path, "DIR"]
File = Annotated[pathlib.Path, "FILE"]
DataSet = Annotated[str, "DATASET"]

_METAVARS = {
    "method": lambda: "{" + ",".join(options.OPTIONS) + "}",
    "network": "NETWORK", "teacher": "NETWORK",
    "label": "COLUMN", "attribute": "COLUMN", "buffer_path": "DIR",
    "strategy": "{none," + ",".join(augment.OPERATIONS) + "} ...",
    "suspect": "{none," + ",".join(options.CANDIDATES) + "} ...",
    "exclude": "{none," + ",".join(options.CANDIDATES) + "} ...",
    "weighted": "{none," + ",".join(options.WEIGHTED_PARTS) + "} ...",
}  # fmt: skip
DATA_DIR = (
    "Folder with the original files of a benchmark, or with the prepared files of tfds:NAME. "
    "Defaults to ~/.cache/jaxdd with downloaded files, or the folder of tensorflow-datasets."
)
"""Help of the option data_dir."""

_SHORT = {"out": ("-o",), "verbose": ("-v",), "quiet": ("-q",)}


class Option(NamedTuple):
    """An option of a command, or an argument without a name.

    Attributes:
        name: name of the parameter or field in Python.
        flags: names on the command line, the long one first; empty for an argument.
        metavar: placeholder of the value, such as DIR; empty for an option without a value.
        help: one or more sentences.
        default: the default as text; empty for a required option.
        group: title of the group of options in the help; empty for an argument.
        type: type of the value.
        value: the default for tyro; `inspect.Parameter.empty` for a required option.
    """

    name: str
    flags: tuple[str, ...]
    metavar: str
    help: str
    default: str
    group: str
    type: Any
    value: Any


def of_command(function: Callable[..., None], method: str = "dm") -> list[Option]:
    """Return the arguments and options of a command, in the order of its help.

    Args:
        function: a command.
        method: distillation method, for commands that have its options.
    """
    known = [option for group in _of_parameters(function, method).values() for option in group]
    return sorted(known, key=lambda option: (option.group != "", option.group != "options"))


def parser(
    function: Callable[..., None], method: str = "dm", *, known: Iterable[Option] | None = None
) -> Callable[..., Any]:
    """Return a function that tyro calls with parsed options, and that returns the command to run.

    Args:
        function: a command.
        method: distillation method, for commands that have its options.
        known: options to complete in a shell. Defaults to those of the command.
    """
    # For tyro, a group of options is a dataclass.
    groups: dict[str, list[Option]] = {}
    for option in of_command(function, method) if known is None else known:
        groups.setdefault(option.group, []).append(option)
    parameters = []
    for title, members in groups.items():
        fields = [(x.name, _for_tyro(x), x.value) for x in members]
        if title in ("", "options"):
            parameters += [_parameter(*field) for field in fields]
            continue
        fields = [(name, kind, dataclasses.field(default=x)) for name, kind, x in fields]
        name = title.removesuffix(" options").replace(" ", "_")
        group: Any = dataclasses.make_dataclass(name, fields, namespace={"__doc__": None})
        kind = Annotated[group, tyro.conf.arg(name=name)]
        parameters.append(_parameter(f"group_{name}", kind, group()))

    def parsed(**values):
        for name, value in list(values.items()):
            if dataclasses.is_dataclass(value):
                values |= vars(values.pop(name))
        return functools.partial(function, **_assembled(function, method, values))

    parsed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    parsed.__annotations__ = {p.name: p.annotation for p in parameters}
    return tyro.conf.configure(*_MARKERS)(parsed)


_MARKERS = (
    tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone,
)  # fmt: skip


def _parameter(name, annotation, default):
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, annotation=annotation, default=default)


def _for_tyro(option):
    """Return the annotated type of an option."""
    hint = f"(default: {option.default})" if option.default else ""
    described = tyro.conf.arg(
        name=option.flags[0].removeprefix("--") if option.flags else None,
        aliases=option.flags[1:] or None, metavar=option.metavar or None, help=option.help,
        help_behavior_hint=hint,
    )  # fmt: skip
    kind = option.type if option.flags else tyro.conf.Positional[option.type]
    if option.metavar.startswith("{"):
        choices: Any = Literal[tuple(option.metavar.strip("{} .").split(","))]
        kind = tuple[choices, ...] if option.metavar.endswith("...") else choices
        kind = kind | None if option.value is None else kind
    return Annotated[kind, described]


def _assembled(function, method, values):
    """Return the arguments of a command from parsed values by option."""
    values = {name: () if x == ("none",) else x for name, x in values.items()}
    arguments: dict[str, Any] = {}
    for name, members in _of_parameters(function, method).items():
        kind: Any = _dataclass(typing.get_type_hints(function)[name], method)
        if kind is None:
            arguments[name] = values[name]
            continue
        fields: dict[str, Any] = {x.name: values[x.name] for x in members}
        for field in dataclasses.fields(kind):
            if isinstance(field.default, options.Preset) and fields[field.name] is None:
                del fields[field.name]  # so that the preset decides
        arguments[name] = kind(**fields)
    return arguments


def _of_parameters(function, method):
    """Return the options that each parameter of a command stands for."""
    hints, help_texts = typing.get_type_hints(function, include_extras=True), _help(function)
    known = {}
    for parameter in inspect.signature(function).parameters.values():
        name, hint = parameter.name, hints[parameter.name]
        if (kind := _dataclass(hint, method)) is not None:
            known[name] = [*_of_fields(kind)]
            continue
        group = "options" if parameter.kind == parameter.KEYWORD_ONLY else ""
        known[name] = [_option(name, hint, parameter.default, help_texts[name], group)]
    return known


def _of_fields(kind) -> Iterator[Option]:
    """Yield the options of a dataclass, grouped."""
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {x: x.metadata or options.DM.__dataclass_fields__[x.name].metadata
              for x in dataclasses.fields(kind)}  # fmt: skip
    order = list(dict.fromkeys(["distillation", *(x["group"] for x in fields.values())]))
    for field, about in sorted(
        fields.items(), key=lambda x: (order.index(x[1]["group"]), x[0].name != "method")
    ):
        hint, default = hints[field.name], field.default
        is_preset = isinstance(default, options.Preset)
        if is_preset:
            hint, default = hint | None, None
        group = f"{about['group']} options".strip()
        option = _option(field.name, hint, default, about["help"], group, flag=about.get("flag"))
        if is_preset and "Defaults to" not in about["help"]:
            option = option._replace(default=_by_preset(kind, field.name))
        yield option


def _dataclass(hint, method):
    """Return the dataclass that a parameter stands for, or None."""
    if hint is options.DM:
        return options.OPTIONS[method]
    return hint if dataclasses.is_dataclass(hint) else None


def _help(function):
    """Return the help of each parameter, from the docstring."""
    section = inspect.cleandoc(function.__doc__ or "").partition("\nArgs:\n")[2]
    entries = re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", section, re.M)
    return {name: " ".join(text.split()) for name, text in entries}


def _option(name, hint, default, text, group, flag=None):
    kind, notes = _unpacked(hint)
    # In `File | None`, the notes are inside of the union.
    is_optional = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
    if is_optional:
        (kind,) = [x for x in typing.get_args(kind) if x is not type(None)]
        kind, notes = _unpacked(kind)
    metavar, flag, *_ = (*notes, flag) if notes else (_METAVARS.get(name, ""), flag)
    metavar = metavar() if callable(metavar) else metavar
    flags = (f"--{(flag or name).replace('_', '-')}", *_SHORT.get(name, ())) if group else ()
    text, _, stated = text.partition("Defaults to ")
    if not stated and default is not inspect.Parameter.empty:
        stated = _by_benchmark(name) or _text(default)
    return Option(
        name, flags, str(metavar or _metavar(kind)), text.strip(), stated.removesuffix("."), group,
        kind | None if is_optional else kind, default,
    )  # fmt: skip


def _unpacked(hint):
    """Return a type and what annotates it."""
    is_annotated = typing.get_origin(hint) is Annotated
    return typing.get_args(hint)[0] if is_annotated else hint, getattr(hint, "__metadata__", ())


def _metavar(kind):
    """Return the placeholder of a value of a type.

    >>> _metavar(int), _metavar(Literal["a", "b"]), _metavar(tuple[Literal["a", "b"], ...])
    ('INT', '{a,b}', '{a,b} ...')
    """
    if typing.get_origin(kind) is tuple:
        return f"{_metavar(typing.get_args(kind)[0])} ..."
    if typing.get_origin(kind) is Literal:
        return "{" + ",".join(typing.get_args(kind)) + "}"
    return (
        "" if kind is bool else {pathlib.Path: "FILE", str: "NAME"}.get(kind, kind.__name__.upper())
    )


def _by_preset(kind: type[options.DM], name: str) -> str:
    """Return the default of an option by preset.

    >>> _by_preset(options.DM, "steps"), _by_preset(options.DM, "width")
    ('quick 200, paper 20000', 'quick 32, paper 128')
    """
    values: list[Any] = [dict(preset=preset) for preset in options.PRESETS]
    texts = [_text(getattr(kind(**value), name)) for value in values]
    both = ", ".join(f"{preset} {x}" for preset, x in zip(options.PRESETS, texts, strict=True))
    return texts[0] if len({*texts}) == 1 else both


def _by_benchmark(name):
    """Return the default of an option that depends on the benchmark, or ""."""
    if name == "severity":
        return "/".join(
            sorted({f"{x.severity}" for x in benchmarks.RECIPES.values() if x.severity})
        )
    if name != "conflict":
        return ""
    names: dict[str, list[str]] = {}
    for benchmark in benchmarks.NAMES:
        names.setdefault(benchmarks.describe(benchmark).conflict, []).append(benchmark)
    names.pop("–", None)
    usual = max(names, key=lambda value: len(names[value]))
    others = [f"{value} for {', '.join(x)}" for value, x in names.items() if value != usual]
    return "; ".join([usual, *others])


def _text(value):
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
