"""Command-line options: each is in one group, with a help text and a default."""

import dataclasses

import pytest

from jaxdd.commands import arguments
from jaxdd.runs import options


@pytest.mark.parametrize("kind", options.OPTIONS.values())
def test_every_option_is_in_one_group_with_its_default(kind):
    groups = [field.type for field in dataclasses.fields(arguments.grouped(kind))]
    names = [field.name for group in groups for field in dataclasses.fields(group)]
    assert sorted(names) == sorted(field.name for field in dataclasses.fields(kind))
    filled = arguments.grouped(kind)(*(group() for group in groups))
    assert arguments.joined(kind, filled) == kind()


@pytest.mark.parametrize("kind", options.OPTIONS.values())
def test_every_option_has_help(kind):
    for field in dataclasses.fields(kind):
        help_text = (field.metadata or options.DM.__dataclass_fields__["method"].metadata)["help"]
        assert help_text.endswith("."), field.name


def test_values_replace_defaults_of_the_preset():
    groups = [field.type() for field in dataclasses.fields(arguments.grouped(options.DM))]
    filled = arguments.grouped(options.DM)(*groups)
    distillation = dataclasses.replace(filled.distillation, steps=7, preset="paper")
    filled = dataclasses.replace(filled, distillation=distillation)
    assert arguments.joined(options.DM, filled) == options.DM(steps=7, preset="paper")


def test_defaults_in_the_help():
    hint = arguments._default_hint
    assert "quick 100, paper 5000" in hint(options.MTT, "steps")
    assert "3" in hint(options.DM, "depth") and hint(options.DM, "clip") == ""
    assert "quick" in hint(options.DM, "preset") and "paper" not in hint(options.DM, "preset")
