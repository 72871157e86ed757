"""Options in the groups of the help: all of them, once, with the defaults that they have."""

import dataclasses

import pytest

from jaxdd.commands import cli, grouping
from jaxdd.runs import options


@pytest.mark.parametrize("kind", options.OPTIONS.values(), ids=options.OPTIONS)
def test_every_option_is_in_one_group_and_explained(kind):
    names = [name for group in grouping.MAIN for name in grouping.GROUPS[group]]
    fields = {field.name for field in dataclasses.fields(kind)}
    assert len(names) == len(set(names)) and fields <= set(names)
    assert set(grouping.MAIN) == set(grouping.GROUPS)
    assert fields == grouping.documented(kind).keys() == grouping.defaults(kind).keys()
    assert grouping.joined(kind, grouping.grouped(kind)(*(
        group.type() for group in dataclasses.fields(grouping.grouped(kind))
    ))) == kind()  # fmt: skip


def test_the_help_has_groups_and_the_defaults_of_both_presets(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", "--method", "mtt", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert stopped.value.code == 0
    assert "data options" in text and "weights options" in text and "--expert-epochs" in text
    assert "(default: quick 100, paper 5000)" in text and "--grouped" not in text


def test_options_of_all_groups_arrive():
    asked = {}

    def command(*, options: cli.Options) -> None:
        """Keeps what it was asked."""
        asked.update(dataclasses.asdict(options))

    words = "--ipc 3 --strategy crop flip --clip 2 --width 8 --seed 5 --skip-bad".split()
    cli._app({"run": command, "demo": cli.demo}, "dsa").cli(args=["run", *words])()
    expected = options.DSA(
        ipc=3, strategy=("crop", "flip"), clip=2.0, width=8, seed=5, skip_bad=True
    )
    assert asked == dataclasses.asdict(expected)
