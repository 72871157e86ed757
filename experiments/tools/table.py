"""The tables of README.md, docs/speed.md and experiments/README.md, made from experiments/results.

    python -m experiments.tools.table

Prints the claims with their numbers, then a row for every comparison: accuracy in % as mean ±
standard deviation, the number of networks, and the minutes that data, weights, distillation and
evaluation took together. The tables of the claims, of transfers, of the benchmark, of the whole way
against PyTorch and of the tube of regression follow. Takes seconds; tests hold the pages to it.
"""

import dataclasses
import importlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments import (
    cfm,
    claims,
    curriculum,
    detectors,
    elf,
    long,
    no_bias,
    seeds,
    spectrum,
    svr,
    tampering,
)
from experiments.attacks import laboratory
from experiments.tools import grid, overview
from jaxdd import kde
from jaxdd.commands import cli
from jaxdd.data import files
from jaxdd.runs import old_results as results
from jaxdd.runs import options
from jaxdd.runs.reports import report

RESULTS = grid.RESULTS
SETS = results.ROWS


def comparisons() -> list[pathlib.Path]:
    """The result files that compare synthetic sets, by name."""
    paths = sorted(RESULTS.glob("*.json"))
    return [path for path in paths if {"none", "kde"} <= _rows(path).keys()]


def _rows(path: pathlib.Path) -> dict[str, Any]:
    try:
        return results.read(path)
    except ValueError:
        return {}  # a result of another kind, such as a map of `experiments.bandwidth`


def command(config: Mapping[str, Any]) -> str:
    """What makes these rows: `jaxdd demo`, or the comparison with its options."""
    demo = {"command": "compare", "dataset": "cdigits", **dataclasses.asdict(cli.DEMO)}
    line = report.command(config)
    return "jaxdd demo" if line == report.command(demo) else str(line)


def cells(path: pathlib.Path, columns: Sequence[str]) -> list[str]:
    """The cells of a row of the table.

    Args:
        path: a result file.
        columns: names of rows in it; "n" and "minutes".

    Returns:
        A cell for each column, "–" where the file has no such row.
    """
    rows = results.read(path)
    networks = {row["accuracy"]["n"] for row in rows.values()}
    special = {
        "n": "–".join(map(str, sorted({min(networks), max(networks)}))),
        "minutes": f"{results.seconds(rows) / 60:.1f}",
    }
    return [
        special.get(name) or results.percent(rows.get(name, {}).get("accuracy")) for name in columns
    ]


def compared() -> Iterator[str]:
    """Yields the lines of the table of comparisons."""
    columns = [*SETS, "n", "minutes"]
    bold = [f"**{name}**" if name == "kde" else name for name in columns]
    yield f"| command | {' | '.join(bold)} |"
    yield f"|---|{'--:|' * len(columns)}"
    for path in comparisons():
        link = f"[`{command(results.config(results.read(path)))}`](experiments/results/{path.name})"
        numbers = [
            f"**{cell}**" if name == "kde" else cell
            for name, cell in zip(columns, cells(path, columns), strict=True)
        ]
        yield f"| {link} | {' | '.join(numbers)} |"


def timed(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a table of what `experiments.speed.benchmark` measured."""
    yield f"| [work](experiments/results/{path.name}) | jaxdd | peer | | ratio | share of peak |"
    yield "|---|--:|---|--:|--:|--:|"
    for row in files.read_json(path)["rows"]:
        peer = "" if row["peer_seconds"] is None else f"{row['peer_seconds']:.3g} s"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} ± {row['ratio_spread']:.2f}"
        yield (
            f"| {row['name']} | {row['seconds']:.3g} s | {row['peer'] or ''} | {peer} | {ratio} | "
            f"{row['share_of_peak']:.2f} |"
        )


def swept(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a table of the growth that `experiments.speed.benchmark --sweep` fits."""
    link = f"[work](experiments/results/{path.name})"
    yield f"| {link} | grows with | values | seconds | exponent |"
    yield "|---|---|--:|--:|--:|"
    for row in files.read_json(path)["sweeps"]:
        values, seconds = (
            ", ".join(f"{x:.3g}" for x in row[name]) for name in ("values", "seconds")
        )
        fitted = f"{values} | {seconds} | {row['exponent']:.2f}"
        yield f"| {row['name']} | {row['variable']} | {fitted} |"


def ended(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a table of what `experiments.speed.end_to_end` measured."""
    found = files.read_json(path)["both"]
    stages = ("embed", "density", "distill")
    titles = (*(f"{stage}, s" for stage in stages), "together, s", "accuracy", "n")
    yield f"| [by](experiments/results/{path.name}) | {' | '.join(titles)} |"
    yield f"|---|{'--:|' * len(titles)}"
    for name, row in found.items():
        seconds = [row["seconds"][stage] for stage in stages]
        numbers = [f"{x:.1f}" for x in (*seconds, sum(seconds))]
        numbers += [results.percent(row["accuracy"]), str(row["accuracy"]["n"])]
        yield f"| {name} | {' | '.join(numbers)} |"


def mapped_folders(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a table of what `experiments.speed.folders` measured."""
    titles = ("images", "one thread, per s", "two threads, per s", "ratio", "of two processes")
    titles = (*titles, "anonymous", "resident", "map", "found again")
    yield f"| [resized to](experiments/results/{path.name}) | {' | '.join(titles)} |"
    yield f"|---|{'--:|' * len(titles)}"
    for row in files.read_json(path)["rows"]:
        numbers = [f"{row[name]:,.0f}" for name in ("images", "one_thread_per_second")]
        numbers += [f"{row['per_second']:,.0f}"]
        ratios = (row["threads_ratio"], row["processes_ratio"])
        numbers += [f"{each['median']:.2f} ± {each['spread']:.2f}" for each in ratios]
        numbers += [f"{row[name] / 1e6:,.0f} MB" for name in ("anonymous", "resident", "map_bytes")]
        yield f"| {row['side']} | {' | '.join(numbers)} | {row['seconds_again']:.1f} s |"


def recognised(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a table of what `experiments.recognition` measured."""
    found = files.read_json(path)["found"]
    sets = list(next(iter(found.values()))["showing"])
    titles = ("recognised", *sets, "network trained on all")
    yield f"| [data set](experiments/results/{path.name}) | {' | '.join(titles)} |"
    yield f"|---|{'--:|' * len(titles)}"
    for name, row in found.items():
        shares = (row["recognised"], *row["showing"].values(), row["all images"])
        yield f"| {name} | {' | '.join(f'{100 * share:.1f}' for share in shares)} |"


def sighted(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a table of what `experiments.shortcuts` measured, means of seeds."""
    seeds: dict[str, list[dict[str, Any]]] = {}
    for title, row in files.read_json(path)["judged"].items():
        seeds.setdefault(title.split(",")[0], []).append(row["views"])
    scores = {
        "z_score": "+.1f",
        "auc": ".3f",
        "precision": ".2f",
        "conflict_weight_share": ".2f",
        "balance": ".2f",
        "effective_sample_size": ".0f",
    }
    titles = ("standard errors", "AUC", "precision", "mass", "balance", "effective sample size")
    yield f"| [data set](experiments/results/{path.name}) | view | n | {' | '.join(titles)} |"
    yield f"|---|---|--:|{'--:|' * len(titles)}"
    for name, found in seeds.items():
        for view in found[0]:
            cells = [
                format(sum(each[view][score] for each in found) / len(found), digits)
                if score in found[0][view]
                else "–"
                for score, digits in scores.items()
            ]
            yield f"| {name} | {view} | {len(found)} | {' | '.join(cells)} |"


def principled(path: pathlib.Path, score: str) -> Iterator[str]:
    """Yields the lines of a table of what the rules of `experiments.auto_rules` chose is worth."""
    found = files.read_json(path)["judged"]
    rules = list(next(iter(found.values()))["rules"])
    yield f"| [data set ({score})](experiments/results/{path.name}) | {' | '.join(rules)} |"
    yield f"|---|{'--:|' * len(rules)}"
    for name, row in found.items():
        numbers = [f"{row['rules'][rule][score]:.2f}" for rule in rules]
        yield f"| {name} | {' | '.join(numbers)} |"


def disagreeing(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a table of the early classifier of `experiments.auto_rules`."""
    titles = "conflicting among disagreeing", "disagreeing among conflicting", "weights pay"
    yield f"| [data set](experiments/results/{path.name}) | {' | '.join(titles)} |"
    yield f"|---|{'--:|' * len(titles)}"
    for name, row in files.read_json(path)["judged"].items():
        shares = (f"{100 * row[score]:.1f}" for score in ("purity", "coverage"))
        yield f"| {name} | {' | '.join(shares)} | {'yes' if row['pays'] else 'no'} |"


def attacked(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a table of what came of the attacks of `experiments.reliability`."""
    counts, titles = files.read_json(path)["counts"], ("attacks", *laboratory.VERDICTS)
    yield f"| [group](experiments/results/{path.name}) | {' | '.join(titles)} |"
    yield f"|---|{'--:|' * len(titles)}"
    for group, found in counts.items():
        numbers = [sum(found.values()), *(found[verdict] for verdict in laboratory.VERDICTS)]
        yield f"| {group} | {' | '.join(map(str, numbers))} |"


def transferred(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a table of what `jaxdd transfer` measured."""
    sets, scores = results.TRANSFERRED, ("accuracy", "conflicting")
    titles = [f"{name}, {results.SCORES[score]}" for name in sets for score in scores]
    titles += ["n", "epochs"]
    yield f"| [evaluated with](experiments/results/{path.name}) | {' | '.join(titles)} |"
    yield f"|---|{'--:|' * len(titles)}"
    for network, row in results.read_transfer(path).items():
        numbers = [results.percent(row[name][score]) for name in sets for score in scores]
        yield f"| {network} | {' | '.join(numbers)} | {row['eval_seeds']} | {row['epochs']} |"


def mapped() -> Iterator[str]:
    """Yields the lines of a table of what `experiments.bandwidth` found of the weights alone."""
    titles = "AUC, best bandwidth", "balance, default", "balance, best"
    yield f"| data set | {' | '.join(titles)} |"
    yield f"|---|{'--:|' * len(titles)}"
    for path in sorted(RESULTS.glob("bandwidth-*.json")):
        found = files.read_json(path)["table"]
        default = (kde.FACTOR, 1.0)
        (own,) = [row for row in found if (row["factor"], row["temperature"]) == default]
        best = [max(row[score] for row in found) for score in ("conflict_auc", "group_evenness")]
        numbers = best[0], own["group_evenness"], best[1]
        link = f"[{path.stem.removeprefix('bandwidth-')}](experiments/results/{path.name})"
        yield f"| {link} | {' | '.join(f'{number:.3f}' for number in numbers)} |"


def tried(cells: Sequence[grid.Cell]) -> Iterator[str]:
    """Yields the lines of a table of the networks that told auto whether its weights pay."""
    titles = "overall", "aligned", "conflicting"
    yield f"| dataset, weights (held-out training samples) | {' | '.join(titles)} |"
    yield f"|---|{'--:|' * len(titles)}"
    known = grid.stored()
    for cell in cells:
        choice = (grid.result(cell, known) or {}).get("choice") or {"trials": {}}
        for weights, trial in choice["trials"].items():
            numbers = " | ".join(f"{trial[score]:.2f}" for score in titles)
            yield f"| {cell.dataset}, {weights} | {numbers} |"


def grids() -> Iterator[grid.Grid]:
    """The grids of the claims, by name."""
    for path in sorted(pathlib.Path(__file__).parents[1].glob("*.py")):
        module = importlib.import_module(f"experiments.{path.stem}")
        if hasattr(module, "GRID"):
            yield module.GRID


def computed() -> Iterator[tuple[grid.Grid, Sequence[grid.Cell]]]:
    """The grids, and the cells of every preset of which there are results."""
    known = grid.stored()
    for found in grids():
        for cells in map(found.cells, options.PRESETS):
            if any(grid.result(cell, known) for cell in cells):
                yield found, cells


def blocks() -> Iterator[list[str]]:
    """Every table that the pages may hold, as lines of Markdown."""
    yield list(claims.lines())
    yield list(overview.lines())
    yield list(compared())
    for found, cells in computed():
        yield from grid.tables(found, cells)
    yield list(tried([cell for cell in no_bias.cells("quick") if cell.row == "auto"]))
    yield list(mapped())
    for path in sorted(RESULTS.glob("transfer-*.json")):
        yield list(transferred(path))
    for path in sorted(RESULTS.glob("recognition.json")):
        yield list(recognised(path))
    for path in sorted(RESULTS.glob("shortcuts*.json")):
        yield list(sighted(path))
    for path in sorted(RESULTS.glob("detectors.json")):
        yield list(detectors.lines(path))
    for path in sorted(RESULTS.glob("auto_rules.json")):
        yield list(principled(path, "balance"))
        yield list(principled(path, "conflicting"))
        yield list(disagreeing(path))
    for path in sorted(RESULTS.glob("reliability.json")):
        yield list(attacked(path))
    for path in sorted(RESULTS.glob("tampering.json")):
        yield from tampering.tables(path)
    for path in sorted(RESULTS.glob("benchmark-*.json")):
        yield list(timed(path))
        if files.read_json(path)["sweeps"]:
            yield list(swept(path))
    for path in sorted(RESULTS.glob("folders-*.json")):
        yield list(mapped_folders(path))
    for path in sorted(RESULTS.glob("end-to-end-*.json")):
        yield list(ended(path))
    for score in seeds.GRID.scores:
        yield list(seeds.lines(seeds.cells("quick"), score))
    for path in sorted(RESULTS.glob("elf.json")):
        yield list(elf.lines(path))
    for path in sorted(RESULTS.glob("cfm.json")):
        yield list(cfm.lines(path))
    for path in sorted(RESULTS.glob("curriculum-*.json")):
        yield list(curriculum.lines(path))
    for path in sorted(RESULTS.glob("spectrum.json")):
        yield from spectrum.tables(path)
    for path in sorted(RESULTS.glob("long-*.json")):
        yield from (list(long.lines(path, score)) for score in ("conflicting", "accuracy"))
    for path in sorted(RESULTS.glob("svr.json")):
        yield from svr.tables(path)


def main() -> None:
    """Prints the tables in Markdown."""
    print("\n\n".join("\n".join(block) for block in blocks()))


if __name__ == "__main__":
    main()
