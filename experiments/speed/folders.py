"""How fast is a folder of images read into a memory map, and in how much memory?

    python -m experiments.speed.folders --out experiments/results/folders-cpu.json

Makes 100,000 JPEGs of 224 pixels, about 11 KB each: 256 images of smooth noise, each in several
hundred files that differ in a comment. `folders.read` reads them with all cores, at most eight
threads, resized to 64 and to 128, into a new cache, then once more from that cache, each in its own
process. The ratio to one thread is over pairs of runs on a few thousand of the files: the median,
and the distance between the quartiles. For comparison, as many independent processes as threads
decode their part of the files. Files come from the page cache. Needs 8 GB of disk.

`anonymous` is the memory that the system cannot reclaim (RssAnon), until the training and the test
set exist. `resident` is everything touched (VmHWM); pages of the map count until memory is needed.

Cost: five minutes on two cores.
"""

import functools
import io
import multiprocessing
import os
import pathlib
import re
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from typing import Any

import numpy as np
import tyro
from PIL import Image

from experiments.tools import record
from jaxdd.data import datasets, decoding, files, folders

SIDES = (64, 128)
CLASSES = 100
CORES = min(8, os.cpu_count() or 1)


def make(root: pathlib.Path, count: int) -> None:
    """Write a folder with a number of JPEGs in a hundred classes."""
    rng = np.random.default_rng(0)
    different = [_jpeg(rng) for _ in range(min(count, 256))]
    for label in range(CLASSES):
        (root / f"{label:02}").mkdir(parents=True)
    for number in range(count):
        start, rest = different[number % len(different)]
        comment = b"\xff\xfe\x00\x0a" + b"%08d" % number
        path = root / f"{number % CLASSES:02}" / f"{number:06}.jpg"
        path.write_bytes(start + comment + rest)


def _jpeg(rng):
    """Return the first two bytes of a JPEG of smooth noise, and the others."""
    small = Image.fromarray(rng.integers(0, 256, (14, 14, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((224, 224), Image.Resampling.BICUBIC))
    noisy = np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noisy).save(stream, "JPEG", quality=85)
    return stream.getvalue()[:2], stream.getvalue()[2:]


def read(root: pathlib.Path, cache: pathlib.Path, side: int, threads: int) -> dict[str, Any]:
    """Read a folder; return seconds and the peak of memory above that at the start."""
    samples, done = [_memory("RssAnon")], threading.Event()

    def watch():
        while not done.wait(0.01):
            samples.append(_memory("RssAnon"))

    before = _memory("VmHWM")
    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    folder = folders.read(root, resize=side, seed=0, cache=cache, threads=threads)
    seconds = time.perf_counter() - start
    datasets.from_folder(folder)
    done.set()
    watcher.join()
    return {
        "seconds": seconds,
        "images": len(folder.labels),
        "anonymous": max(samples) - samples[0],
        "anonymous_before": samples[0],
        "resident": _memory("VmHWM") - before,
    }


def _memory(name):
    """Return a counter of this process in bytes."""
    match = re.search(rf"{name}:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())
    return 1024 * int(match[1]) if match else 0


def time_rounds(
    root: pathlib.Path, cache: pathlib.Path, side: int, rounds: int
) -> list[list[float]]:
    """Return seconds per round: one thread, all threads, one process, all processes."""
    paths = [str(path) for path in sorted(root.glob("*/*.jpg"))]
    parts = [paths[i::CORES] for i in range(CORES)]
    decode = functools.partial(_decode, side)

    def by_threads(threads):
        with tempfile.TemporaryDirectory(dir=cache) as new:
            return read(root, pathlib.Path(new), side, threads)["seconds"]

    def by_processes(parts):
        start = time.perf_counter()
        list(pool.map(decode, parts))
        return time.perf_counter() - start

    with _processes(CORES) as pool:
        by_threads(CORES)
        by_processes(parts)
        return [
            [by_threads(1), by_threads(CORES), by_processes([paths]), by_processes(parts)]
            for _ in range(rounds)
        ]


def _decode(side, paths):
    decoding.decode(paths, (side, side, 3), lambda block: None, threads=1)


def _processes(count):
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


def _call_apart(function, *arguments):
    """Call a function in its own process."""
    with _processes(1) as pool:
        return pool.submit(function, *arguments).result()


def measure(work: pathlib.Path, side: int, *, few: int, rounds: int) -> dict[str, Any]:
    """Return a row of the table."""
    cache = work / f"cache-{side}"
    cache.mkdir()
    first, again = (_call_apart(read, work / "all", cache, side, CORES) for _ in range(2))
    times = np.array(_call_apart(time_rounds, work / "few", cache, side, rounds))
    one, threads, alone, processes = times.T
    return first | {
        "side": side,
        "threads": CORES,
        "seconds_again": again["seconds"],
        "one_thread_per_second": few / float(np.median(one)),
        "per_second": few / float(np.median(threads)),
        "threads_ratio": _summary(one / threads),
        "processes_ratio": _summary(alone / processes),
        "map_bytes": sum(path.stat().st_size for path in cache.glob("*.npy")),
    }


def _summary(ratios):
    low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return {"median": median, "spread": high - low, "each": ratios.tolist()}


def main(
    *,
    count: int = 100_000,
    few: int = 2_000,
    rounds: int = 7,
    work: pathlib.Path | None = None,
    out: pathlib.Path | None = None,
) -> None:
    """Print a row for each size, and write them to `out` as JSON.

    Args:
        count: number of images in the large folder.
        few: number of images in the small folder, which is read with one and with two workers.
        rounds: how often one and two workers are compared.
        work: folder for temporary files.
        out: JSON file.
    """
    with tempfile.TemporaryDirectory(dir=work) as folder:
        place, rows = pathlib.Path(folder), []
        make(place / "all", count)
        make(place / "few", few)
        for side in SIDES:
            rows.append(measure(place, side, few=few, rounds=rounds))
            print(rows[-1], flush=True)
    content = record.circumstances() | {"cores": os.cpu_count(), "rows": rows}
    content["versions"]["pillow"] = metadata.version("pillow")
    if out is not None:
        files.write_json(out, files.to_json(content))


if __name__ == "__main__":
    tyro.cli(main)
