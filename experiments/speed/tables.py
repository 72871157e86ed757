"""Tables of the measurements of `benchmark`, `folders`, `end_to_end`, `scale` and `waiting`."""

import pathlib

from experiments.speed import scale, waiting
from experiments.tools import markdown, record
from jaxdd.data import files


def tables() -> list[list[str]]:
    """Return all tables of speed."""
    paths = lambda pattern: sorted(record.RESULTS.glob(pattern))
    has_sweeps = lambda path: files.read_json(path)["sweeps"]
    return [
        *(rows(path) for path in paths("benchmark-*.json")),
        *(growth(path) for path in paths("benchmark-*.json") if has_sweeps(path)),
        *(folders(path) for path in paths("folders-*.json")),
        *(end_to_end(path) for path in paths("end-to-end-*.json")),
        *scale.tables(),
        *(table for path in paths("waiting-*.json") for table in waiting.tables(path)),
    ]


def rows(path: pathlib.Path) -> list[str]:
    """Return the table of times and ratios of `experiments.speed.benchmark`."""
    lines = []
    for row in files.read_json(path)["rows"]:
        has_peer = row["peer"] is not None
        peer = f"{row['peer_seconds']:.3g} s" if has_peer else ""
        ratio = f"{row['ratio']:.2f} ± {row['ratio_spread']:.2f}" if has_peer else ""
        own, share = f"{row['seconds']:.3g} s", f"{row['share_of_peak']:.2f}"
        lines.append([row["name"], own, row["peer"] or "", peer, ratio, share])
    titles = (markdown.link("work", path), "jaxdd", "peer", "", "ratio", "share of peak")
    return markdown.table(titles, lines, left=(0, 2))


def growth(path: pathlib.Path) -> list[str]:
    """Return the table of the growth of times with sizes."""
    join = lambda values: ", ".join(f"{x:.3g}" for x in values)
    lines = [
        [
            row["name"],
            row["variable"],
            join(row["values"]),
            join(row["seconds"]),
            f"{row['exponent']:.2f}",
        ]
        for row in files.read_json(path)["sweeps"]
    ]
    titles = (markdown.link("work", path), "grows with", "values", "seconds", "exponent")
    return markdown.table(titles, lines, left=(0, 1))


def folders(path: pathlib.Path) -> list[str]:
    """Return the table of `experiments.speed.folders`."""
    lines = []
    for row in files.read_json(path)["rows"]:
        speeds = [row[name] for name in ("images", "one_thread_per_second", "per_second")]
        ratios = (row["threads_ratio"], row["processes_ratio"])
        numbers = [f"{x:,.0f}" for x in speeds]
        numbers += [f"{ratio['median']:.2f} ± {ratio['spread']:.2f}" for ratio in ratios]
        numbers += [f"{row[name] / 1e6:,.0f} MB" for name in ("anonymous", "resident", "map_bytes")]
        lines.append([str(row["side"]), *numbers, f"{row['seconds_again']:.1f} s"])
    titles = (
        "images", "one thread, per s", "two threads, per s", "ratio", "two processes, ratio",
        "anonymous", "resident", "map", "read again",
    )  # fmt: skip
    return markdown.table([markdown.link("resized to", path), *titles], lines)


def end_to_end(path: pathlib.Path) -> list[str]:
    """Return the table of `experiments.speed.end_to_end`."""
    stages, lines, measured = ("embed", "density", "distill"), [], record.measured(path)
    totals = {
        name: sum(row["seconds"][stage] for stage in stages) for name, row in measured.items()
    }
    for name, row in measured.items():
        numbers = [f"{row['seconds'][stage]:.1f}" for stage in stages]
        _, comma, state = name.partition(",")  # jaxdd in the same state, such as compiled before
        ratio = totals[name] / totals[f"jaxdd{comma}{state}"]
        accuracy = record.percent(row["accuracy"])
        lines.append([name, *numbers, f"{totals[name]:.1f}", f"{ratio:.2f}", accuracy])
    titles = [*(f"{stage}, s" for stage in stages), "total, s", "ratio to jaxdd", "accuracy in %"]
    return markdown.table([markdown.link("by", path), *titles], lines)
