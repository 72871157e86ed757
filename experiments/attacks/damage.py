"""Damage each file of each kind of folder in ten ways, and call every command that reads it.

A command that rejects the file must leave the folder such that restoring the file restores
everything. A command that succeeds must have the products of an undisturbed command.
"""

import functools
import pathlib
import pickle
import shutil
import traceback
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from experiments.attacks import laboratory as lab
from jaxdd.data import benchmarks, datasets, files, folders

# --- ways to damage a file ---------------------------------------------------------------------


def truncated(path: pathlib.Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(1, max(len(content), 2)))])


def flipped(path: pathlib.Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes()) or bytearray(1)
    content[int(rng.integers(len(content)))] ^= int(rng.integers(1, 256))
    path.write_bytes(content)


def a_folder(path: pathlib.Path, rng: np.random.Generator) -> None:
    path.unlink()
    path.mkdir()


def wrong_type(path: pathlib.Path, rng: np.random.Generator) -> None:
    if path.suffix == ".npz":
        np.savez(path, **{name: np.array(["a"]) for name in files.read_arrays(path)})
    elif path.suffix == ".png":
        Image.new("RGB", (8, 8)).save(path, "GIF")
    else:
        path.write_text("[1]\n")


def wrong_shape(path: pathlib.Path, rng: np.random.Generator) -> None:
    if path.suffix == ".npz":
        arrays = files.read_arrays(path)
        np.savez(path, **{name: np.stack([array, array]) for name, array in arrays.items()})
    elif path.suffix == ".png":
        Image.new("RGB", (3, 5)).save(path, "PNG")
    elif path.suffix == ".csv":
        rows = path.read_text().splitlines()
        path.write_text("\n".join(row.rpartition(",")[0] for row in rows) + "\n")
    elif path.suffix == ".json":
        content = files.read_json(path)
        name = list(content)[int(rng.integers(len(content)))]
        files.write_json(path, content | {name: [content[name]]})
    else:
        path.write_text('{"step": [1]}\n')


PICKLE = pickle.dumps({"images": print, "weights": print, "accuracy": print})
DAMAGES = {
    "missing": lambda path, rng: path.unlink(),
    "truncated": truncated,
    "empty": lambda path, rng: path.write_bytes(b""),
    "zeros": lambda path, rng: path.write_bytes(bytes(path.stat().st_size)),
    "flipped": flipped,
    "garbage": lambda path, rng: path.write_bytes(rng.bytes(max(path.stat().st_size, 1))),
    "pickled": lambda path, rng: path.write_bytes(PICKLE),
    "a folder": a_folder,
    "wrong type": wrong_type,
    "wrong shape": wrong_shape,
}

# --- kinds of folders --------------------------------------------------------------------------

RUN = (
    "config.json", "result.json", "synthetic.npz", "samples.npz", "synthetic.png", "accuracy.png",
    "weights.npz", "weights.png", "embedding.png", "figures.npz", "progress.jsonl", "timing.json",
    "manifest.json", "report.html", "checkpoint/6/manifest.json", "checkpoint/6/state",
)  # fmt: skip
TABLE = (
    "config.json", "compare.json", "manifest.json", "synthetic.png", "accuracy.png",
    "weights/density/weights.npz", "weights/density/weights.png", "weights/density/embedding.png",
    "weights/density/figures.npz", "weights/density/timing.json", "rows/density/config.json",
    "rows/density/result.json", "rows/density/synthetic.npz", "rows/density/synthetic.png",
    "rows/density/manifest.json", "rows/density/progress.jsonl",
    "rows/density/checkpoint/6/manifest.json", "rows/random/result.json",
    "rows/random/synthetic.npz",
)  # fmt: skip
UNFINISHED = (
    "config.json", "weights.npz", "weights.png", "embedding.png", "figures.npz", "progress.jsonl",
    "manifest.json", "checkpoint/4/manifest.json", "checkpoint/4/state",
    "checkpoint/2/manifest.json",
)  # fmt: skip
CHOSEN = ("choice.json", "weights.npz", "result.json", "synthetic.npz")
EXPERTS = ("manifest.json", "settings.json", "expert-000.npz", "expert-001.npz")
IMAGES = ("000.png", "150.png", "metadata.csv")
REMAIN = {"progress.jsonl", "report.html", "checkpoint"}
"""Records that may stay damaged, because a finished run does not need them."""


def attacks(laboratory: lab.Laboratory, round_: int) -> Iterator[lab.Attack]:
    """Yield the attacks of a round; the round seeds the places of cuts and changed bytes."""
    partial = functools.partial
    for way in DAMAGES:
        for kind, (names, make, commands) in _kinds(laboratory).items():
            for name in names:
                for command, run in commands.items():
                    title = f"{kind}/{name} {way}: {command}, round {round_}"
                    damage = partial(_damage, laboratory, make, name, way, title)
                    yield lab.Attack(title, partial(run, laboratory, damage, name))
        for name in IMAGES:
            for command in ("resume", "show"):
                title = f"images/{name} {way}: {command}, round {round_}"
                run = partial(_on_images, laboratory, name, way, command, title)
                yield lab.Attack(title, run)
        title = f"cache/benchmark {way}: load, round {round_}"
        yield lab.Attack(title, partial(_on_cache, laboratory, way, title))
        for name in EXPERTS:
            title = f"cache/{name} {way}: run, round {round_}"
            yield lab.Attack(title, partial(_on_experts, laboratory, name, way, title))


def _kinds(laboratory):
    """Return each kind of folder: its files, the function that makes it, and commands on it."""
    run = laboratory.command("run")
    table = laboratory.command("compare", "--rows", "random", "density")
    auto = laboratory.command("run", "--debias", "auto")
    resume = lambda command: {"resume": functools.partial(_resume, command)}
    report = {"report": _report}
    return {
        "run": (RUN, lambda: complete(laboratory, run), resume(run) | report),
        "unfinished": (
            UNFINISHED,
            lambda: unfinished(laboratory, run),
            {"resume": functools.partial(_complete, run)},
        ),
        "compare": (TABLE, lambda: laboratory.finished(*table), resume(table) | report),
        "auto": (CHOSEN, lambda: laboratory.finished(*auto), resume(auto) | report),
    }


def complete(laboratory: lab.Laboratory, command: list[Any]) -> pathlib.Path:
    """Return a finished run with a report."""
    folder = laboratory.finished(*command)
    if not (folder / "report.html").exists():
        assert lab.call(["report", folder]).code == 0
    return folder


def unfinished(laboratory: lab.Laboratory, command: list[Any]) -> pathlib.Path:
    """Return the same run as it was after its second chunk."""
    folder = laboratory.folder / "unfinished"
    if not folder.exists():
        shutil.copytree(laboratory.finished(*command), folder)
        for name in (
            "result.json",
            "accuracy.png",
            "synthetic.npz",
            "synthetic.png",
            "report.html",
        ):
            (folder / name).unlink(missing_ok=True)
        lines = (folder / "progress.jsonl").read_text().splitlines(keepends=True)
        (folder / "progress.jsonl").write_text("".join(lines[:2]))
        shutil.rmtree(folder / "checkpoint")
        # Only the newest checkpoints are kept, so those of earlier steps come from a shorter run.
        shorter = [*command]
        shorter[shorter.index("--steps") + 1] = "4"  # has the checkpoints of steps 2 and 4
        shutil.copytree(laboratory.finished(*shorter) / "checkpoint", folder / "checkpoint")
    return folder


class _Damaged:
    """A copy of a folder with one damaged file, and the original."""

    def __init__(self, before, folder, path, way):
        self.before, self.folder, self.path = before, folder, path
        self.title = f"{path.relative_to(folder)} {way}"
        # A command need not notice that a figure was replaced by another picture.
        self.is_other_picture = self.title.endswith(".png wrong shape")

    def restore(self):
        """Restore the file."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
        shutil.copy2(self.before / self.path.relative_to(self.folder), self.path)

    def changes(self, *but):
        """Return in which files the folder differs from the original."""
        return lab.differences(lab.content(self.before), lab.content(self.folder), but=but)

    def changes_once_restored(self):
        """Return in which other files the folder differs from the original."""
        self.restore()
        return self.changes()


def _damage(laboratory, make, name, way, title):
    before, rng = make(), np.random.default_rng(list(title.encode()))
    folder = laboratory.copy(before)
    path = folder / name
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        path = inside[int(rng.integers(len(inside)))]
    DAMAGES[way](path, rng)
    return _Damaged(before, folder, path, way)


# --- commands on a damaged folder --------------------------------------------------------------


def _resume(command, laboratory, damage, name):
    """Resume a finished run or comparison, which must not change except for records."""
    damaged, again = damage(), [*command, "--resume", "--out"]
    ended = lab.call([*again, damaged.folder])
    but = {name, "checkpoint"} if set(name.split("/")) & REMAIN else set()
    if damaged.is_other_picture or (name == "embedding.png" and not damaged.path.exists()):
        but = {name}  # embeddings are not stored
    but |= _reported(ended, name)
    return lab.verdict(
        ended,
        f"{damaged.title}; {lab.line([*again, 'FOLDER'])}",
        wrong=lambda: damaged.changes(*but),
        worse=damaged.changes_once_restored,
    )


def _reported(ended, name):
    """Return the name of a figure, or of its data, if a warning says that it is not written."""
    return {name} if f"{pathlib.Path(name).name} could not be drawn" in ended.err else set()


def _complete(command, laboratory, damage, name):
    """Resume an unfinished run; its products must be undisturbed, at the latest after restoring."""
    damaged, again = damage(), [*command, "--resume", "--out"]
    whole = lab.content(complete(laboratory, command))
    ended = lab.call([*again, damaged.folder])
    but = {"report.html"} | ({name} & {"progress.jsonl", "embedding.png"})
    but |= {name} if damaged.is_other_picture else set()
    but |= _reported(ended, name)
    changes = lambda: lab.differences(whole, lab.content(damaged.folder), but=but)

    def worse():
        damaged.restore()
        second = lab.call([*again, damaged.folder])
        return second.err if second.code else changes()

    command = f"{damaged.title}; {lab.line([*again, 'FOLDER'])}"
    return lab.verdict(ended, command, wrong=changes, worse=worse)


def _report(laboratory, damage, name):
    """Write a report, whose text may have fewer lines than that of the undamaged folder."""
    damaged, out = damage(), laboratory.folder / "page.html"
    before = lab.content(damaged.folder)
    ended = lab.call(["report", damaged.folder, "--out", out])

    def wrong():
        if name == "timing.json":  # a dash replaces an unknown date or time
            return ""
        expected = laboratory.folder / "expected.html"
        assert lab.call(["report", damaged.before, "--out", expected]).code == 0
        more = set(lab.page(out).splitlines()) - set(lab.page(expected).splitlines())
        return f"the page says {sorted(more)}" if more else ""

    return lab.verdict(
        ended,
        f"{damaged.title}; jaxdd report FOLDER",
        wrong=wrong,
        worse=lambda: lab.differences(before, lab.content(damaged.folder)),
    )


# --- damaged images and caches -----------------------------------------------------------------


def _on_images(laboratory, name, way, command, title):
    """Commands must reject other images, unless these are another valid data set."""
    run = laboratory.command("run")
    before = complete(laboratory, run)
    folder = laboratory.copy(before)
    images = pathlib.Path(shutil.copytree(laboratory.images, folder.with_name("images")))
    DAMAGES[way](images / name, np.random.default_rng(list(title.encode())))
    run[1] = images
    arguments = {
        "resume": [*run, "--resume", "--out", folder],
        "show": ["datasets", "show", images],
    }[command]
    may_differ = command == "show" and way in ("wrong type", "wrong shape")

    def wrong():
        one, other = folders.read(laboratory.images), folders.read(images)
        same = all(map(np.array_equal, one[:4], other[:4]))
        return "" if may_differ or same else "other images were accepted"

    return lab.verdict(
        lab.call(arguments),
        f"{name} {way}; {lab.line(arguments)}",
        wrong=wrong,
        worse=lambda: lab.differences(lab.content(before), lab.content(folder)),
    )


def _on_cache(laboratory, way, title):
    """A damaged benchmark in the cache must not be used."""
    data = datasets.from_folder(folders.read(laboratory.images), name="images", seed=0)
    path = laboratory.fresh().with_name("images.npz")
    benchmarks._write_cache(path, data)
    DAMAGES[way](path, np.random.default_rng(list(title.encode())))
    command = f"{way}; benchmarks._read_cache(PATH)"
    try:
        stored = benchmarks._read_cache(path)
    except Exception:
        return lab.Outcome("traceback", command, traceback.format_exc()[-600:])
    if stored is None:
        return lab.Outcome("refused", command)
    same = datasets.digest(stored) == datasets.digest(data) and stored[3:] == data[3:]
    return lab.Outcome("right" if same else "silent", command)


def _on_experts(laboratory, name, way, title):
    """Damaged experts must be rejected, or the run must make the same set."""
    run = laboratory.command("run", method="mtt")
    buffer = laboratory.folder / "experts"
    whole = laboratory.finished(*run, "--buffer-path", buffer)
    folder = laboratory.fresh()
    copy = shutil.copytree(buffer, folder.with_name("copy"))
    DAMAGES[way](buffer / "density" / name, np.random.default_rng(list(title.encode())))
    arguments = [*run, "--buffer-path", buffer, "--out", folder]
    try:
        return lab.verdict(
            lab.call(arguments),
            f"{name} {way}; {lab.line(arguments)}",
            wrong=lambda: lab.differences(
                lab.content(whole) | lab.content(copy), lab.content(folder) | lab.content(buffer)
            ),
        )
    finally:
        shutil.rmtree(buffer)
        shutil.copytree(copy, buffer)
