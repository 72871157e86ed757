"""How fast jaxdd is: against PyTorch, scikit-learn, PyKeOps and NumPy, and against the hardware.

    python -m experiments.speed.benchmark --out experiments/results/benchmark-cpu.json
    python -m experiments.speed.benchmark --preset paper --sweep --out benchmark-gpu.json

jaxdd, its peers and a matrix product take turns in one run: `seconds` are medians over the rounds,
`spread` is the distance between the quartiles, and `ratio` the median of peer / jaxdd round by
round. `share_of_peak` is the FLOPs counted by hand in `experiments.speed.workloads` over the time
and the rate of that matrix product; `roofline_seconds` is the larger of FLOPs / rate and bytes /
copy rate. jaxdd compiles as its command line does. The PyTorch peers are in
`experiments.speed.torch_peers`; what is not installed is left out with a note.

Run it on a quiet machine. `load` is the load average after the row; where it is well above the
number of cores, taking turns does not help, since PyTorch's threads wait for each other and lose
far more.
"""

import functools
import math
import os
import pathlib
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any, Literal

import numpy as np
import tyro

from experiments.speed import workloads
from jaxdd.data import files
from jaxdd.runs import programs, results

PRESETS = {
    "quick": workloads.Sizes(),
    "paper": workloads.Sizes(steps=100, epochs=1000, test=10_000),
}
"""A 250th of the evaluation protocol for a CPU, and all of it for a GPU."""

SWEEPS = {
    "kde": ("points", "dimension", "classes"),
    "dm": ("classes", "ipc", "side", "width", "real"),
    "contrastive": ("batch",),
}
"""Which sizes are varied for which piece of work."""


def interleaved(
    candidates: dict[str, workloads.Timed], *, rounds: int, least: float = 0.2
) -> dict[str, list[float]]:
    """Times all candidates in turn, `rounds` times, each for at least `least` seconds.

    Returns:
        Seconds for one piece of work, one number for each round.
    """
    repeats = {}
    for name, candidate in candidates.items():
        first = _seconds(candidate.run, 1)  # warms up, and may be far slower than the next
        again = first if first > 10 * least else _seconds(candidate.run, 1)
        repeats[name] = max(1, math.ceil(least / again))
    found = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            found[name].append(_seconds(candidate.run, repeats[name]) * candidate.scale)
    return found


def _seconds(run, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def measure(name: str, work: workloads.Work, *, rounds: int) -> list[dict[str, Any]]:
    """Times a piece of work with all of its peers; a row for each peer, or one without."""
    product, product_flops = workloads.matrix_product(work.precision)
    copy, copied = workloads.copy()
    candidates = {"jaxdd": work.ours, "product": product, "copy": copy}
    candidates |= {peer: make() for peer, make in work.peers.items()}
    found = interleaved(candidates, rounds=rounds)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    ours = statistics.median(found["jaxdd"])
    rate = product_flops / statistics.median(found["product"])
    copy_rate = copied / statistics.median(found["copy"])
    common = {
        "name": name,
        "seconds": ours,
        "spread": _spread(found["jaxdd"]),
        "share_of_peak": work.flops / ours / rate,
        "peak_bytes": work.peak_bytes,
        "compile_seconds": work.compile_seconds,
        "flops": work.flops,
        "bytes": work.bytes,
        "peak_flops_per_second": rate,
        "copy_bytes_per_second": copy_rate,
        "roofline_seconds": max(work.flops / rate, work.bytes / copy_rate),
        "rounds": rounds,
        "load": load,
    }
    rows = []
    for peer in list(work.peers) or [None]:
        seconds = found.get(peer, [math.nan] * rounds)
        ratios = [other / own for own, other in zip(found["jaxdd"], seconds, strict=True)]
        rows.append(
            common
            | {
                "peer": peer,
                "peer_seconds": statistics.median(seconds),
                "peer_spread": _spread(seconds),
                "ratio": statistics.median(ratios),
                "ratio_spread": _spread(ratios),
            }
        )
    return rows


def _spread(values):
    low, high = np.quantile(values, (0.25, 0.75))
    return float(high - low)


def growth(name: str, variable: str, sizes: workloads.Sizes, *, rounds: int) -> dict[str, Any]:
    """Times a piece of work at a quarter, half and all of one size, and fits the growth.

    Returns:
        The values, the seconds, and the exponent p of the best line log seconds = p log value + b.
    """
    whole = getattr(sizes, variable)
    values = [max(1, whole // part) for part in (4, 2, 1)]
    works = {str(v): workloads.WORK[name](sizes._replace(**{variable: v})).ours for v in values}
    found = interleaved(works, rounds=rounds)
    seconds = [statistics.median(found[str(v)]) for v in values]
    exponent = float(np.polyfit(np.log(values), np.log(seconds), 1)[0])
    return {
        "name": name,
        "variable": variable,
        "values": values,
        "seconds": seconds,
        "exponent": exponent,
    }


def cases(only: list[str], sizes: workloads.Sizes) -> dict[str, Callable[[], workloads.Work]]:
    """What to measure, under the name of its row."""
    named = {
        "dm": ("DM step", sizes),
        "dsa": ("DSA match step", sizes),
        "cfm": ("CFM step", sizes),
        "kde": ("KDE per class", sizes),
        "evaluate": ("evaluation of five seeds", sizes),
        "contrastive": ("contrastive step", sizes),
    }
    found = {
        title: functools.partial(workloads.WORK[name], chosen)
        for name, (title, chosen) in named.items()
        if name in only
    }
    if "evaluate" in only and sizes.width > 32:
        narrow = sizes._replace(width=32)
        found["evaluation of five seeds, width 32"] = functools.partial(
            workloads.evaluation, narrow
        )
    if "kde" in only and sizes == PRESETS["paper"]:
        found["KDE, all in one class"] = functools.partial(
            workloads.density, sizes._replace(classes=1)
        )
    return found


def circumstances() -> dict[str, Any]:
    """Device, versions and date, those of the peers too."""
    found = results.circumstances()
    for name in ("torch", "scikit-learn", "pykeops"):
        try:
            found["versions"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            print(f"{name} is not installed: left out")
    return found | {"cores": os.cpu_count()}


def main(
    *,
    only: str = ",".join(workloads.WORK),
    out: pathlib.Path | None = None,
    preset: Literal["quick", "paper"] = "quick",
    rounds: int = 5,
    sweep: bool = False,
) -> None:
    """Prints the table, and writes it to `out` as JSON.

    Args:
        only: what to measure, of dm, dsa, cfm, kde, evaluate and contrastive, separated by commas.
        out: JSON file.
        preset: sizes for a CPU or a GPU.
        rounds: how often everything is timed.
        sweep: fit how the time grows with every size.
    """
    programs.compile_quickly()
    chosen, sizes = only.split(","), PRESETS[preset]
    unknown = set(chosen) - set(workloads.WORK)
    if unknown:
        raise SystemExit(f"--only takes {', '.join(workloads.WORK)}, found {', '.join(unknown)}")
    report = circumstances() | {"preset": preset, "rows": [], "sweeps": []}
    print(f"{'':36} {'seconds':>9} {'peer':>13} {'seconds':>9} {'ratio':>6} {'peak':>5} {'MiB':>6}")
    for title, make in cases(chosen, sizes).items():
        for row in measure(title, make(), rounds=rounds):
            report["rows"].append(row)
            print(
                "{name:36} {seconds:9.4f} {p:>13} {peer_seconds:9.4f} {ratio:6.2f} "
                "{share_of_peak:5.2f} {m:6.0f}".format(
                    **row, p=row["peer"] or "", m=row["peak_bytes"] / 2**20
                ),
                flush=True,
            )
        if out is not None:
            files.write_json(out, report)
    for name in chosen if sweep else ():
        for variable in SWEEPS.get(name, ()):
            row = growth(name, variable, sizes, rounds=rounds)
            report["sweeps"].append(row)
            print("{name} ~ {variable}^{exponent:.2f} over {values}".format(**row), flush=True)
        if out is not None:
            files.write_json(out, report)


if __name__ == "__main__":
    tyro.cli(main)
