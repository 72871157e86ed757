"""How fast is jaxdd compared with PyTorch, scikit-learn, PyKeOps and NumPy, and the hardware?

    python -m experiments.speed.benchmark --out experiments/results/benchmark-cpu.json
    python -m experiments.speed.benchmark --preset paper --sweep --out benchmark-gpu.json

jaxdd, its peers and a matrix product are timed in turn in one run: `seconds` are medians over the
rounds, `spread` is the distance between the quartiles, and `ratio` the median of peer / jaxdd round
by round. `share_of_peak` is the FLOPs counted by hand in `experiments.speed.workloads`, per second,
relative to that matrix product; `roofline_seconds` is the larger of FLOPs / rate and bytes / copy
rate. jaxdd compiles as on its command line. Peers that are not installed are left out.

Use a quiet machine. `load` is the load average after the row. If it is far above the number of
cores, timing in turn does not help, because threads of PyTorch wait for each other and slow down
much more.
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
from experiments.tools import record
from jaxdd.data import files
from jaxdd.runs import programs

PRESETS = {"quick": workloads.Sizes(), "paper": workloads.Sizes(steps=20, epochs=20, test=10_000)}
"""Sizes for a CPU and for a GPU; an evaluation of the literature has a thousand epochs."""

SWEEPS = {
    "kde": ("points", "dimension", "classes"),
    "dm": ("classes", "ipc", "side", "width", "real"),
    "contrastive": ("batch",),
}
"""Sizes that are varied for each piece of work."""


def time_in_turn(
    candidates: dict[str, workloads.Timed], *, rounds: int, least: float = 0.2
) -> dict[str, list[float]]:
    """Return the seconds of each candidate for one piece of work, one number per round.

    Each round times every candidate once, for at least `least` seconds.
    """
    # Timing in turn exposes all candidates to the same load of the machine.
    repeats = {}
    for name, candidate in candidates.items():
        first = _seconds(candidate.run, 1)  # includes warm-up
        again = first if first > 10 * least else _seconds(candidate.run, 1)
        repeats[name] = max(1, math.ceil(least / again))
    times = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            times[name].append(_seconds(candidate.run, repeats[name]) * candidate.scale)
    return times


def _seconds(run, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def measure(name: str, work: workloads.Work, *, rounds: int) -> list[dict[str, Any]]:
    """Time a piece of work and its peers; return a row per peer, or one without a peer."""
    product, product_flops = workloads.matrix_product(work.precision, work.dtype)
    copy, copied = workloads.copy()
    candidates = {"jaxdd": work.ours, "product": product, "copy": copy}
    candidates |= {peer: make() for peer, make in work.peers.items()}
    times = time_in_turn(candidates, rounds=rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    rate, copy_rate = product_flops / medians["product"], copied / medians["copy"]
    common = {
        "name": name,
        "seconds": medians["jaxdd"],
        "spread": _spread(times["jaxdd"]),
        "share_of_peak": work.flops / medians["jaxdd"] / rate,
        "peak_bytes": work.peak_bytes,
        "compile_seconds": work.compile_seconds,
        "flops": work.flops,
        "bytes": work.bytes,
        "peak_flops_per_second": rate,
        "copy_bytes_per_second": copy_rate,
        "roofline_seconds": max(work.flops / rate, work.bytes / copy_rate),
        "rounds": rounds,
        "load": os.getloadavg()[0],
    }
    return [common | _peer(peer, times) for peer in list(work.peers) or [None]]


def _peer(peer, times):
    seconds = times.get(peer, [math.nan] * len(times["jaxdd"]))
    # The median of ratios, not the ratio of medians: rounds share the load of the machine.
    ratios = [other / own for own, other in zip(times["jaxdd"], seconds, strict=True)]
    return {
        "peer": peer,
        "peer_seconds": statistics.median(seconds),
        "peer_spread": _spread(seconds),
        "ratio": statistics.median(ratios),
        "ratio_spread": _spread(ratios),
    }


def _spread(values):
    low, high = np.quantile(values, (0.25, 0.75))
    return float(high - low)


def growth(name: str, variable: str, sizes: workloads.Sizes, *, rounds: int) -> dict[str, Any]:
    """Time a piece of work at a quarter, half and all of one size.

    Returns:
        The values, the seconds, and the exponent p of the best line log seconds = p log value + b.
    """
    whole = getattr(sizes, variable)
    values = [max(1, whole // part) for part in (4, 2, 1)]
    works = {str(v): workloads.WORK[name](sizes._replace(**{variable: v})).ours for v in values}
    times = time_in_turn(works, rounds=rounds)
    seconds = [statistics.median(times[str(v)]) for v in values]
    exponent = float(np.polyfit(np.log(values), np.log(seconds), 1)[0])
    fit = {"values": values, "seconds": seconds, "exponent": exponent}
    return {"name": name, "variable": variable} | fit


MILLION = 1_000_000

TITLES = {
    "dm": "DM step",
    "dsa": "DSA match step",
    "cfm": "CFM step",
    "kde": "KDE per class",
    "evaluate": "evaluation of five seeds",
    "contrastive": "contrastive step",
}


def cases(only: list[str], sizes: workloads.Sizes) -> dict[str, Callable[[], workloads.Work]]:
    """Return the pieces of work to measure, by the name of the row."""
    works = {
        title: functools.partial(workloads.WORK[name], sizes)
        for name, title in TITLES.items()
        if name in only
    }
    if "evaluate" in only and sizes.width > 32:
        narrow = sizes._replace(width=32)
        title = "evaluation of five seeds, width 32"
        works[title] = functools.partial(workloads.evaluation, narrow)
    if sizes == PRESETS["paper"]:
        half = sizes._replace(dtype="bfloat16")
        works |= {
            f"{TITLES[name]}, bfloat16": functools.partial(workloads.WORK[name], half)
            for name in ("dm", "evaluate")
            if name in only
        }
    if "kde" in only and sizes == PRESETS["paper"]:
        single = sizes._replace(classes=1)
        works["KDE, all in one class"] = functools.partial(workloads.density, single)
        million = sizes._replace(points=MILLION, dimension=512)
        works["KDE per class, a million samples"] = functools.partial(workloads.density, million)
    return works


def circumstances() -> dict[str, Any]:
    """Return device, versions and date, with the versions of the peers."""
    content = record.circumstances() | {"cores": os.cpu_count()}
    for name in ("torch", "scikit-learn", "pykeops"):
        try:
            content["versions"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            print(f"{name} is not installed: left out")
    return content


def main(
    *,
    only: str = ",".join(workloads.WORK),
    out: pathlib.Path | None = None,
    preset: Literal["quick", "paper"] = "quick",
    rounds: int = 5,
    sweep: bool = False,
) -> None:
    """Print the table, and write it to `out` as JSON.

    Args:
        only: what to measure, of dm, dsa, cfm, kde, evaluate and contrastive, separated by commas.
        out: JSON file.
        preset: sizes for a CPU or a GPU.
        rounds: number of timings.
        sweep: whether to fit the growth of the time with every size.
    """
    programs.compile_quickly()
    chosen, sizes = only.split(","), PRESETS[preset]
    if unknown := set(chosen) - set(workloads.WORK):
        raise SystemExit(f"--only takes {', '.join(workloads.WORK)}, got {', '.join(unknown)}")
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
