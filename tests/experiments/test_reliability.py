"""The campaign of attacks: verdicts, record, some cheap attacks, and the committed record."""

import jax
import numpy as np
import pytest

from experiments import reliability
from experiments.attacks import calls, damage, laboratory, layouts, options, sets, settings
from jaxdd.data import files

LEAST = {
    "damage": 400, "options": 250, "calls": 250, "layouts": 200, "sets": 80, "settings": 90,
    "kills": 50, "distributed": 30,
}  # fmt: skip
"""Minimum number of attacks of each group in the committed record."""


@pytest.mark.parametrize(
    "code, message, wrong, worse, verdict",
    [
        (0, "", "", "", "right"),
        (0, "", "synthetic.npz differs", "", "silent"),
        (0, "Traceback (most recent call last):", "", "", "traceback"),
        (1, "jaxdd: no", "", "", "traceback"),
        (2, "jaxdd: no", "", "", "refused"),
        (2, "jaxdd: no\ncontinue with: jaxdd run", "", "", "refused"),
        (2, "jaxdd: no\nsomething", "", "", "traceback"),
        (2, "", "", "", "traceback"),
        (3, "jaxdd: no", "", "", "refused"),
        (2, "jaxdd: no", "", "result.json is missing", "worse"),
        (-9, "", "", "", "traceback"),
        (None, "", "", "", "hang"),
    ],
)
def test_verdicts(code, message, wrong, worse, verdict):
    ended = laboratory.Ended(code, message)
    outcome = laboratory.verdict(ended, "jaxdd", wrong=lambda: wrong, worse=lambda: worse)
    assert outcome.verdict == verdict and (wrong or worse) in outcome.message


def test_exit_codes_of_calls(monkeypatch):
    def main(arguments):
        raise {"refused": SystemExit(2), "mistake": KeyError("gone"), "long": laboratory._Hung}[
            arguments[0]
        ]

    monkeypatch.setattr(laboratory.cli, "main", main)
    ends = [laboratory.call([word]) for word in ("refused", "mistake", "long")]
    assert [end.code for end in ends] == [2, 1, None]
    assert "KeyError: 'gone'" in ends[1].err


def test_contents_are_compared_without_times(tmp_path):
    files.write_json(tmp_path / "result.json", {"accuracy": 0.5, "seconds": 1, "date": "today"})
    np.savez(tmp_path / "synthetic.npz", images=np.zeros(3))
    (tmp_path / "checkpoint" / "4").mkdir(parents=True)
    before = laboratory.content(tmp_path)
    files.write_json(tmp_path / "result.json", {"accuracy": 0.5, "seconds": 2, "date": "now"})
    assert laboratory.differences(before, laboratory.content(tmp_path)) == ""
    np.savez(tmp_path / "synthetic.npz", images=np.ones(3))
    (tmp_path / "result.json").write_text("{")
    (tmp_path / "checkpoint" / "4").rename(tmp_path / "checkpoint" / "6")
    changes = laboratory.differences(before, laboratory.content(tmp_path), but=["checkpoint"])
    assert changes == "result.json differs; synthetic.npz differs"
    (tmp_path / "synthetic.npz").unlink()
    assert "synthetic.npz is missing" in laboratory.differences(
        before, laboratory.content(tmp_path)
    )


def test_the_record_continues_and_failures_are_tried_again(tmp_path):
    out, ran = tmp_path / "record.json", []

    def attack(name, verdict):
        outcome = laboratory.Outcome(verdict, f"jaxdd {name}", "message")
        return laboratory.Attack(name, lambda: ran.append(name) or outcome)

    for name, verdict in (("a", "refused"), ("b", "silent"), ("c", "right")):
        reliability.run_attack(out, "damage", attack(name, verdict))
    record = files.read_json(out)
    (failure,) = record["failures"]
    assert failure["command"] == "jaxdd b" and record["device"] and record["versions"]["jaxdd"]
    assert record["counts"]["damage"] == dict.fromkeys(laboratory.VERDICTS, 0) | {
        "right": 1,
        "refused": 1,
        "silent": 1,
    }
    for name in "abc":
        reliability.run_attack(out, "damage", attack(name, "right"))
    assert ran == ["a", "b", "c", "b"]
    assert files.read_json(out)["failures"] == []


@pytest.mark.parametrize("way", damage.DAMAGES)
def test_every_damage_changes_a_file(way, tmp_path):
    for name in ("config.json", "progress.jsonl", "synthetic.npz", "metadata.csv"):
        path = tmp_path / name
        if path.suffix == ".npz":
            np.savez(path, images=np.zeros(3))
        else:
            path.write_text('{"step": 2}\n' if path.suffix != ".csv" else "file,label\na.png,b\n")
        before = path.read_bytes()
        damage.DAMAGES[way](path, np.random.default_rng(0))
        assert not path.is_file() or path.read_bytes() != before


def test_some_attacks(tmp_path):
    """Cheap attacks are run: options that do not parse, calls without compiling, damage."""
    room = laboratory.Laboratory(tmp_path)
    chosen = [
        attack
        for module, words in (
            (
                options,
                ("run dm ipc -1,", "run dm debias text", "bias severity nan", "show conflict 1.5"),
            ),
            (
                calls,
                ("kde.scott points once nan", "kde.scott points wider", "uniform labels all -1"),
            ),
            (damage, ("cache/benchmark flipped", "cache/benchmark missing")),
        )
        for attack in module.attacks(room, 0)
        if any(word in attack.name for word in words)
    ]
    assert len(chosen) == 9
    assert [attack.run().verdict for attack in chosen] == ["refused"] * 9


def test_verdicts_on_calls(monkeypatch):
    def failing(points, weights, factor):
        raise factor

    for error, verdict in ((KeyError("gone"), "traceback"), (ValueError(""), "traceback")):
        sound = dict(points=0, weights=0, factor=error)
        monkeypatch.setitem(calls.CALLS, "kde.scott", (failing, sound))
        assert calls._call("kde.scott").verdict == verdict
    monkeypatch.setitem(calls.CALLS, "kde.scott", (lambda factor: factor, dict(factor=np.nan)))
    assert calls._call("kde.scott").verdict == "silent"


def test_a_misread_folder_is_silent(tmp_path, monkeypatch):
    lab = laboratory.Laboratory(tmp_path)
    verdicts = {attack.run().verdict for attack in list(layouts.attacks(lab, 0))[:30]}
    assert verdicts == {"right", "refused"}
    swap = lambda names: dict(classes=names[::-1], split=False)
    make = layouts.make
    monkeypatch.setattr(layouts, "CLASSES", (("ant", "bee", "cow"),))
    monkeypatch.setattr(layouts, "make", lambda *a: (swap(make(*a)[0]["classes"]), "swapped"))
    verdicts = {attack.run().verdict for attack in list(layouts.attacks(lab, 0))[:10]}
    assert "silent" in verdicts and "right" not in verdicts


def test_a_misread_set_is_silent(tmp_path, monkeypatch):
    lab = laboratory.Laboratory(tmp_path)
    attack = next(a for a in sets.attacks(lab, 0) if a.name.startswith("unit, nhwc, integers"))
    assert attack.run().verdict == "right"
    monkeypatch.setitem(sets.VALUES, "unit", sets.VALUES["inverted"])
    assert attack.run().verdict == "silent"


def test_settings_return_to_what_they_were():
    with settings.setting("jax_random_seed_offset", 7):
        assert jax.config.jax_random_seed_offset == 7
    assert jax.config.jax_random_seed_offset == 0


@pytest.mark.parametrize("group", LEAST)
def test_nothing_failed(group):
    record = files.read_json(reliability.OUT)
    assert record["counts"] == reliability.count(record["attacks"])
    assert sum(record["counts"][group].values()) >= LEAST[group]
    assert sum(record["counts"][group][verdict] for verdict in laboratory.FAILURES) == 0
    assert record["failures"] == [] and record["device"] and record["date"]
