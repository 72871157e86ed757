"""Options of commands: each has one group, a help text, a placeholder and a default."""

import dataclasses
import inspect

import pytest

from jaxdd.commands import cli, reference
from jaxdd.runs import options

COMMANDS = [(name, "dm") for name in reference.COMMANDS]
COMMANDS += [("run", method) for method in options.OPTIONS if method != "dm"]


def parse(*words):
    return cli._parse(list(words)).keywords


@pytest.mark.parametrize("command, method", COMMANDS)
def test_every_option_is_described(command, method):
    known = reference.options(command, method)
    flags = [flag for option in known for flag in option.flags]
    assert len({*flags}) == len(flags)
    for option in known:
        assert option.help.endswith("."), option.name
        assert option.metavar or option.type is bool
        assert option.default or option.value is inspect.Parameter.empty
        assert bool(option.group) == bool(option.flags)


@pytest.mark.parametrize("method", options.OPTIONS)
def test_a_run_has_all_options_of_its_method(method):
    names = {option.name for option in reference.options("run", method)}
    fields = {field.name for field in dataclasses.fields(options.OPTIONS[method])}
    assert fields <= names
    parsed = parse("run", "cdigits", "--method", method)
    assert parsed["options"] == options.make(method=method) and parsed["dataset"] == "cdigits"


def test_commands_know_a_method_registered_after_their_options_were_read(monkeypatch):
    known = reference.options("compare")
    monkeypatch.setattr(options, "OPTIONS", dict(options.OPTIONS))

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Late(options.DM):  # registers itself
        method: str = "late"

    assert parse("compare", "cdigits", "--method", "late")["options"] == Late()
    assert any("late" in option.metavar for option in reference.options("compare"))
    monkeypatch.undo()
    assert reference.options("compare") == known


def test_values_replace_defaults_of_the_preset():
    parsed = parse("run", "cdigits", "--steps", "7", "--preset", "paper", "--seeds", "2")
    assert parsed["options"] == options.DM(steps=7, preset="paper", eval_seeds=2)


@pytest.mark.parametrize("words", [("--strategy", "none"), ("--strategy",)])
def test_none_stands_for_no_values(words):
    assert parse("compare", "cdigits", *words)["options"].strategy == ()


def test_shared_options_reach_the_command(tmp_path):
    (tmp_path / "a.npz").touch()
    parsed = parse(
        "evaluate", str(tmp_path / "a.npz"), "-o", "b.json", "--pixels", "unit", "--conflict", "0.2"
    )
    assert parsed["source"].name == "a.npz" and str(parsed["out"]) == "b.json"
    assert (parsed["set_options"].pixels, parsed["data"].conflict) == ("unit", 0.2)


def test_defaults_in_the_help():
    default = {option.name: option.default for option in reference.options("run", "mtt")}
    assert default["steps"] == "quick 100, paper 5000" and default["depth"] == "3"
    assert "0.1 for cdigits" in default["conflict"] and default["resume"] == "no"
