"""Results read back; every number of the README stands in a committed one."""

import dataclasses
import json
import pathlib
import re
import shlex

import numpy as np
import pytest

from experiments import (
    amplification,
    fashion,
    grid,
    kernel,
    published,
    seeds,
    table,
    unlearning,
    variants,
)
from jaxdd.runs import cli, results

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLAIMS = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"\[`([^`]+)`\]\((experiments/results/[^)]+\.json)\)")
MEASURED = re.findall(rf"^\| {LINK.pattern} \|", README, re.M)


def test_the_readme_has_the_demo_and_a_benchmark():
    assert {"demo", "compare"} <= {line.split()[1] for line, _ in MEASURED}


@pytest.mark.parametrize("line, name", MEASURED)
def test_commands_are_those_of_the_file(line, name, monkeypatch):
    """What the command would do is the configuration in the file."""
    program, *arguments = shlex.split(line)
    if program != "jaxdd":
        pytest.skip("made by an experiment, which writes its own configuration")
    config, asked = results.config(results.read(ROOT / name)), {}

    class Stop(Exception):
        pass

    def stop(dataset, options, data_dir):
        asked.update(dataclasses.asdict(options.resolved()), dataset=dataset)
        raise Stop

    monkeypatch.setattr(cli, "_job", stop)
    with pytest.raises(Stop):
        cli._parse(arguments)()
    shared = config.keys() & asked.keys()
    assert "ipc" in shared and {name: asked[name] for name in shared} == {
        name: config[name] for name in shared
    }


@pytest.mark.parametrize(
    "path", sorted(table.RESULTS.rglob("*.json")), ids=lambda path: "/".join(path.parts[-2:])
)
def test_results_say_how_they_were_made(path):
    found = json.loads(path.read_text())
    rows = found if path.name.startswith("transfer") else found.get("rows", found.get("judged"))
    for row in rows.values() if isinstance(rows, dict) else [found]:
        assert row["device"] and row["versions"]["jax"] and row["date"]
        assert "config" not in row or row["config"]["dataset"]


@pytest.mark.parametrize("page", [README, CLAIMS.replace("](results/", "](experiments/results/")])
def test_every_table_of_results_is_generated(page):
    """A table that links to a result or names a score is, line by line, what the files say."""
    shown = [
        block
        for block in re.findall(r"(?:^\|.*\n)+", page, re.M)
        if "](experiments/results/" in block or "samples)" in block or "±" in block
    ]
    generated = ["\n".join(block) + "\n" for block in table.blocks()]
    assert len(shown) >= 2 and [block for block in shown if block not in generated] == []


def swept(dataset, score, **where):
    """The best of a score among all bandwidths and temperatures, or those named."""
    found = json.loads((table.RESULTS / f"defaults-{dataset}.json").read_text())["table"]
    return max(row[score] for row in found if row.items() >= where.items())


def early(name, score):
    """What the early classifier of auto found, in %."""
    found = json.loads((table.RESULTS / "principles.json").read_text())["judged"]
    return 100 * found[name][score]


def benchmarked(name, of):
    """What `of` makes of a row of the benchmark against PyTorch."""
    rows = json.loads((table.RESULTS / "benchmark-cpu.json").read_text())["rows"]
    return next(of(row) for row in rows if (row["name"], row["peer"]) == (name, "torch eager"))


def percent(claim, score, which):
    """A score of the cells of which `which` is true, in %, rounded as the tables are."""
    found = [grid.path(claim.GRID, cell) for cell in claim.cells("quick") if which(cell)]
    return [round(100 * json.loads(path.read_text())[score]["mean"], 1) for path in found]


def tried(dataset, score):
    """A score of the networks by which auto judged uniform weights and its own, in this order."""
    (cell,) = [
        cell for cell in fashion.cells("quick") if (cell.dataset, cell.row) == (dataset, "auto")
    ]
    trials = json.loads(grid.path(fashion.GRID, cell).read_text())["choice"]["trials"]
    return np.array([trials[weights][score] for weights in ("uniform", "best")])


def conflicting(dataset, row):
    which = lambda cell: (cell.dataset, cell.row) == (dataset, row)
    return percent(amplification, "conflicting", which)[0]


@pytest.mark.parametrize(
    "said, number",
    [
        ("an AUC of {:.3f} on cfmnist", lambda: swept("cfmnist", "conflict_auc")),
        ("of {:.2f} among corruptions", lambda: swept("ccifar10", "conflict_auc")),
        ("{:.2f} among natural backgrounds", lambda: swept("bgfmnist", "conflict_auc")),
        ("balance of the bias groups above {:.2f}", lambda: swept("bgfmnist", "group_balance")),
        ("or above {:.2f} among corruptions", lambda: swept("ccifar10", "group_balance")),
        ("the best {:.3f}", lambda: swept("cfmnist", "group_balance")),
        (
            "the default has {:.3f}",
            lambda: swept("cfmnist", "group_balance", factor=0.2, temperature=1.0),
        ),
        (
            "{:.1f}, {:.1f} and {:.1f} % on CMNIST at τ = .5, 1 and 2",
            lambda: percent(kernel, "accuracy", lambda cell: cell.options.bandwidth == 0.2),
        ),
        (
            "they reach {:.1f} % at this scale where the defaults reach {:.1f}",
            lambda: percent(
                variants,
                "accuracy",
                lambda cell: (
                    (cell.options.weighting, cell.options.init)
                    in (("batch", "real"), ("draw", "weighted"))
                ),
            )[::-1],
        ),
        (
            "differs from the label for {:.0f} % of these",
            lambda: early("cmnist .5 % conflict", "coverage"),
        ),
        (
            "and {:.0f} % of those for which it differs conflict",
            lambda: early("cmnist .5 % conflict", "purity"),
        ),
        ("needs {:.0f} MiB", lambda: benchmarked("DM step", lambda row: row["peak_bytes"] / 2**20)),
        (
            "PyTorch itself gets {0:.2f} of the matrix-product rate at width 128, so that twice its speed "
            "would be {1:.2f}",
            lambda: benchmarked(
                "evaluation of five seeds",
                lambda row: [times * row["share_of_peak"] / row["ratio"] for times in (1, 2)],
            ),
        ),
        ("({:.1f} to", lambda: conflicting("cmnist", "random")),
        ("to {:.1f}; [other seeds]", lambda: conflicting("cmnist", "none")),
        (
            "by {:.1f}, {:.1f} and {:.1f} points on conflicting samples",
            lambda: np.subtract(
                *(
                    percent(seeds, "conflicting", lambda cell: cell.row == row)
                    for row in ("random", "none")
                )
            ),
        ),
        (
            "has {:.1f} on real images and {:.1f} on the plain set",
            lambda: percent(published, "accuracy", lambda cell: cell.row in ("random", "none")),
        ),
        (
            "{:.1f} and {:.1f} on conflicting samples:",
            lambda: percent(published, "conflicting", lambda cell: cell.row in ("random", "none")),
        ),
        (
            "LfF gains {:.1f} points, SelecMix {:.1f}",
            lambda: np.subtract(
                percent(unlearning, "accuracy", lambda cell: cell.row == "none"),
                percent(published, "accuracy", lambda cell: cell.row == "none"),
            ),
        ),
        (
            "fixed defaults cost {:.1f} points",
            lambda: np.subtract(
                *percent(
                    fashion,
                    "accuracy",
                    lambda cell: cell.dataset == "fashion_mnist" and cell.row in ("none", "kde"),
                )
            ),
        ),
        (
            "on Fashion-MNIST {:.1f};",
            lambda: np.subtract(
                *percent(
                    fashion,
                    "accuracy",
                    lambda cell: cell.dataset == "fashion_mnist" and cell.row in ("none", "kde"),
                )
            ),
        ),
        (
            "stays {:.1f} points behind the oracle",
            lambda: (
                -np.subtract(
                    *percent(
                        fashion,
                        "accuracy",
                        lambda cell: (
                            cell.dataset == "cfmnist-bg" and cell.row in ("auto", "oracle")
                        ),
                    )
                )
            ),
        ),
        (
            "judge them gain {:.2f} and lose {:.2f}",
            lambda: [
                np.diff(tried("cfmnist-bg", "disagreeing")),
                -np.diff(tried("cfmnist-bg", "overall")),
            ],
        ),
        (
            "{:.2f} of the agreeing and {:.2f} of the disagreeing samples right",
            lambda: [tried("cfmnist-bg", score)[1] for score in ("agreeing", "disagreeing")],
        ),
        (
            "without a bias {:.2f} and {:.2f}",
            lambda: [tried("fashion_mnist", score)[1] for score in ("agreeing", "disagreeing")],
        ),
        (
            "{:.1f} points on conflicting backgrounds",
            lambda: conflicting("bgfmnist", "oracle") - conflicting("bgfmnist", "none"),
        ),
        (
            "{:.1f} on conflicting corruptions",
            lambda: conflicting("ccifar10", "oracle") - conflicting("ccifar10", "none"),
        ),
    ],
)
def test_numbers_in_sentences_are_those_of_the_files(said, number):
    words = re.sub(r"\b0\.", ".", said.format(*np.ravel(number())))
    assert words in " ".join((README + CLAIMS).split())


def test_links_of_the_claims_lead_to_files():
    links = re.findall(r"\]\(([^)#]+)", CLAIMS)
    assert links and [link for link in links if not (ROOT / "experiments" / link).exists()] == []


def test_the_printed_tables_are_markdown(capsys):
    table.main()
    for block in capsys.readouterr().out.split("\n\n"):
        assert len({line.count("|") for line in block.splitlines()}) == 1


# --- numbers and commands ----------------------------------------------------------------------


def test_one_network_has_no_interval():
    assert results.interval({"mean": 0.5, "std": 0.0, "n": 1}) is None
    assert results.percent({"mean": 0.5, "std": 0.0, "n": 1}) == "50.0"
    assert results.interval({"mean": 0.99, "std": 0.02, "n": 3})[1] == 1


@pytest.mark.parametrize(
    "config, line",
    [
        (
            {
                "command": "compare",
                "dataset": "cmnist",
                "conflict": 0.05,
                "ipc": 10,
                "preset": "quick",
                "method": "dm",
                "steps": 200,
                "batch_size": 128,
                "learning_rate": 1.0,
            },
            "jaxdd compare cmnist --conflict 0.05",
        ),
        (
            {
                "command": "run",
                "dataset": "my cats",
                "debias": "kde",
                "skip_bad": True,
                "ipc": 100,
                "learning_rate": 10.0,
            },
            "jaxdd run 'path/to/my cats' --debias kde --ipc 100 --skip-bad",
        ),
        (
            {
                "command": "run",
                "dataset": "cdigits",
                "debias": "none",
                "method": "dsa",
                "preset": "quick",
                "ipc": 10,
                "clip": None,
                "batch_size": 64,
                "init": "noise",
            },
            "jaxdd run cdigits --debias none --method dsa --init noise",
        ),
        (
            {"command": "compare", "dataset": "mnist", "preset": "paper", "width": 64},
            "jaxdd compare mnist --preset paper --width 64",
        ),
        ({"command": "magic", "dataset": "mnist"}, None),
        ({"command": "run", "dataset": "mnist", "preset": "huge"}, None),
    ],
    ids=str,
)
def test_the_command_says_what_differs_from_the_defaults(config, line):
    assert results.command(config) == line


def test_the_command_says_which_rows():
    config = {"command": "compare", "dataset": "cdigits", "ipc": 1}
    line = "jaxdd compare cdigits --ipc 1"
    assert results.command(config, rows=results.ROWS) == line
    assert results.command(config, rows=["random", "auto"]) == f"{line} --rows random auto"


def test_the_command_parses_to_the_same_configuration():
    asked = "run cdigits --debias none --ipc 3 --clip 2.5 --seed 4 --width 8 --bandwidth 0.25"
    called = cli._parse(asked.split()).keywords
    options = dataclasses.asdict(called["options"].resolved())
    line = results.command({"command": "run", "dataset": "cdigits", "debias": "none", **options})
    again = cli._parse(line.split()[1:]).keywords
    assert line.startswith("jaxdd run cdigits --debias none") and len(line) < 100
    assert again["debias"] == "none" and dataclasses.asdict(again["options"].resolved()) == options
