"""The command cite: entries for everything that a run used, and no others."""

import re

import pytest

from jaxdd.commands import cite, cli
from jaxdd.data import citations, files

USED = [
    (dict(dataset="cmnist"), ("density",), "dm weights encoder mnist lff jaxdd"),
    (dict(dataset="cmnist-fg", method="dc"), ("fairdd",), "dc fairdd mnist jaxdd"),
    (dict(dataset="digits"), ("cobra", "cobra-l1"), "dm cobra digits jaxdd"),
    (dict(dataset="cifar100", formation=2), ("plain",), "dm idc cifar10 jaxdd"),
    (dict(dataset="imagenette", training="lff"), ("border",), "dm weights lff imagenet jaxdd"),
    (dict(dataset="bgfmnist"), ("plain",), "dm fashion_mnist weights cifar10 jaxdd"),
    (dict(dataset="cbgfmnist"), ("plain",), "dm fashion_mnist weights cifar10 jaxdd"),
    (dict(dataset="cmnist-pairs"), ("plain",), "dm mnist lff jaxdd"),
    (dict(dataset="my folder", candidates=256), ("oracle",), "dm weights dream jaxdd"),
]


@pytest.mark.parametrize("config, rows, expected", USED)
def test_what_was_used_is_cited(config, rows, expected):
    assert cite.used(config, rows) == expected.split()


def test_every_key_has_one_entry():
    text = "\n".join(citations.BIBTEX.values())
    keys = re.findall(r"^@\w+\{(\w+),\n  title=", text, re.M)
    assert len(keys) == len(citations.BIBTEX)
    assert len(set(keys)) == len(keys)
    for text in citations.BIBTEX.values():
        assert text.count("{") == text.count("}") and text.endswith("}")


def test_a_folder_is_cited(make_run, tmp_path, capsys):
    run = make_run(tmp_path / "run")
    cli.main(["cite", str(run)])
    assert re.findall(r"@\w+\{(\w+),", capsys.readouterr().out) == [
        "zhao2023distribution", "cui2024mitigating", "khosla2020supervised", "jaxdd",
    ]  # fmt: skip
    files.write_json(tmp_path / "run" / "config.json", {"dataset": 1})
    for place, said in ((run, "config.json"), (tmp_path, "expected a run or a comparison")):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["cite", str(place)])
        assert said in capsys.readouterr().err
