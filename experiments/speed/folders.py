"""How fast a folder of images is read into a map, and in how much memory.

    python -m experiments.speed.folders --out experiments/results/folders-cpu.json

Makes 100,000 JPEGs of 224 pixels, about 11 KB each: 256 images of smooth noise, each in several
hundred files that differ in a comment. `folders.read` reads them with all cores, at most eight
threads, resized to 64 and to 128, into a new cache, and then once more from that cache, each in a
process of its own whose memory is looked at every hundredth of a second. The ratio to one thread is
that of pairs of runs over a few thousand of the files, one after the other: the median, and the
distance between the quartiles. What the machine's cores give is measured between the pairs: as many
processes as threads, which share nothing, each of which decodes its part of the files, against one
that decodes them all. Files come from the page cache of the system. Needs 8 GB of disk and five
minutes on two cores.

`anonymous` is what the process holds and the system cannot take back (RssAnon), until the training
and the test set are there. `resident` is all that it has touched (VmHWM): their statistics read the
map once, and its pages count as long as nobody else needs the memory.
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

from jaxdd.data import datasets, decoding, files, folders
from jaxdd.runs import results

SIDES = (64, 128)
CLASSES = 100


def make(root: pathlib.Path, count: int) -> None:
    """Writes a folder of that many JPEGs in a hundred classes."""
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
    """The two bytes that a JPEG of smooth noise begins with, and the others."""
    small = Image.fromarray(rng.integers(0, 256, (14, 14, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((224, 224), Image.Resampling.BICUBIC))
    noisy = np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noisy).save(stream, "JPEG", quality=85)
    return stream.getvalue()[:2], stream.getvalue()[2:]


def read(root: pathlib.Path, cache: pathlib.Path, side: int, threads: int) -> dict[str, Any]:
    """Reads a folder; seconds, and the most memory meanwhile, less what the process began with."""
    most, done = [_memory("RssAnon")], threading.Event()

    def watch():
        while not done.wait(0.01):
            most.append(_memory("RssAnon"))

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
        "anonymous": max(most) - most[0],
        "anonymous_before": most[0],
        "resident": _memory("VmHWM") - before,
    }


def _memory(name):
    """Bytes that the system counts under a name."""
    found = re.search(rf"{name}:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0


def rounds_of(root: pathlib.Path, cache: pathlib.Path, side: int, rounds: int) -> list[list[float]]:
    """Seconds of each round: one thread, one for each core, one process, one for each core."""
    paths = [str(path) for path in sorted(root.glob("*/*.jpg"))]
    parts = [paths[i :: _cores()] for i in range(_cores())]
    decode = functools.partial(_decode, side)

    def by_threads(threads):
        with tempfile.TemporaryDirectory(dir=cache) as new:
            return read(root, pathlib.Path(new), side, threads)["seconds"]

    def by_processes(parts):
        start = time.perf_counter()
        list(pool.map(decode, parts))
        return time.perf_counter() - start

    with _spawning(_cores()) as pool:
        by_threads(_cores())
        by_processes(parts)
        return [
            [by_threads(1), by_threads(_cores()), by_processes([paths]), by_processes(parts)]
            for _ in range(rounds)
        ]


def _decode(side, paths):
    decoding.decode(paths, (side, side, 3), lambda block: None, threads=1)


def _cores():
    return min(8, os.cpu_count() or 1)


def _apart(function, *arguments):
    """Calls a function in a process of its own."""
    with _spawning(1) as pool:
        return pool.submit(function, *arguments).result()


def _spawning(count):
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


def measure(work: pathlib.Path, side: int, *, few: int, rounds: int) -> dict[str, Any]:
    """A row of the table."""
    cache = work / f"cache-{side}"
    cache.mkdir()
    first, again = (_apart(read, work / "all", cache, side, _cores()) for _ in range(2))
    timed = np.array(_apart(rounds_of, work / "few", cache, side, rounds))
    one, threads, alone, processes = timed.T
    return {
        "side": side,
        "threads": _cores(),
        "images": first["images"],
        "seconds": first["seconds"],
        "seconds_again": again["seconds"],
        "one_thread_per_second": few / float(np.median(one)),
        "per_second": few / float(np.median(threads)),
        "threads_ratio": _middle(one / threads),
        "processes_ratio": _middle(alone / processes),
        "anonymous": first["anonymous"],
        "anonymous_before": first["anonymous_before"],
        "resident": first["resident"],
        "map_bytes": sum(path.stat().st_size for path in cache.glob("*.npy")),
    }


def _middle(ratios):
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return {"median": middle, "spread": high - low, "each": ratios.tolist()}


def main(
    *,
    count: int = 100_000,
    few: int = 2_000,
    rounds: int = 7,
    work: pathlib.Path | None = None,
    out: pathlib.Path | None = None,
) -> None:
    """Prints a row for each size, and writes them to `out` as JSON.

    Args:
        count: JPEGs of the large folder.
        few: JPEGs of the folder of the pairs.
        rounds: pairs of threads, and of processes.
        work: folder for all of it, which is emptied at the end.
        out: JSON file.
    """
    rows = []
    with tempfile.TemporaryDirectory(dir=work) as folder:
        place = pathlib.Path(folder)
        make(place / "all", count)
        make(place / "few", few)
        for side in SIDES:
            rows.append(measure(place, side, few=few, rounds=rounds))
            print(rows[-1], flush=True)
    found = results.circumstances()
    found["versions"]["pillow"] = metadata.version("pillow")
    if out is not None:
        files.write_json(out, files.to_json(found | {"cores": os.cpu_count(), "rows": rows}))


if __name__ == "__main__":
    tyro.cli(main)
