"""The commands about sets that come with jaxdd."""

from jaxdd.commands import cli
from jaxdd.data import files
from jaxdd.runs.trust import shipped

NAME = "cdigits-10-density-ipc10"


def test_sets_are_listed_shown_and_verified(capsys):
    cli.main(["sets", "list"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in shipped.ROOTS) and "CC BY 4.0" in printed
    cli.main(["sets", "show", NAME])
    printed = capsys.readouterr().out
    assert "jaxdd run cdigits --debias density\n" in printed and "| this set |" in printed
    cli.main(["sets", "verify"])
    printed = capsys.readouterr().out
    assert all(
        f"{name}: all" in printed and root in printed for name, root in shipped.ROOTS.items()
    )
    cli.main(["sets", "verify", NAME])
    assert capsys.readouterr().out.count("root") == 2


def test_commands_accept_the_name_of_a_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.main(["verify", NAME])
    printed = capsys.readouterr().out
    assert shipped.ROOTS[NAME] in printed and "not verified" not in printed
    cli.main(["cite", NAME])
    assert "cui2024mitigating" in capsys.readouterr().out
    cli.main(["export", NAME, "copy"])
    assert files.read_json("copy/manifest.json")["parent"] == shipped.ROOTS[NAME]
    cli.main(["evaluate", NAME, "--networks", "mlp", "--epochs", "1", "--seeds", "1"])
    (row,) = files.read_json(f"evaluation-{NAME}.json").values()
    assert row["network"] == "mlp" and row["accuracy"]["n"] == 1
