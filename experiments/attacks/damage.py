"""Each file of each kind of folder, damaged in ten ways, and what each command makes of it.

A refusal must leave the folder so that it is what it was once the file is put back. What does not
refuse must have made, or kept, what an undisturbed command makes.
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


def missing(path: pathlib.Path, rng: np.random.Generator) -> None:
    path.unlink()


def truncated(path: pathlib.Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(1, max(len(content), 2)))])


def empty(path: pathlib.Path, rng: np.random.Generator) -> None:
    path.write_bytes(b"")


def zeros(path: pathlib.Path, rng: np.random.Generator) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flipped(path: pathlib.Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes()) or bytearray(1)
    content[int(rng.integers(len(content)))] ^= int(rng.integers(1, 256))
    path.write_bytes(content)


def garbage(path: pathlib.Path, rng: np.random.Generator) -> None:
    path.write_bytes(rng.bytes(max(path.stat().st_size, 1)))


def pickled(path: pathlib.Path, rng: np.random.Generator) -> None:
    path.write_bytes(pickle.dumps({"images": print, "weights": print, "accuracy": print}))


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
        found = files.read_json(path)
        name = list(found)[int(rng.integers(len(found)))]
        files.write_json(path, found | {name: [found[name]]})
    else:
        path.write_text('{"step": [1]}\n')


DAMAGES = {
    function.__name__.replace("_", " "): function
    for function in (
        missing,
        truncated,
        empty,
        zeros,
        flipped,
        garbage,
        pickled,
        a_folder,
        wrong_type,
        wrong_shape,
    )
}

# --- kinds of folders --------------------------------------------------------------------------

RUN = (
    "config.json", "result.json", "synthetic.npz", "synthetic.png", "accuracy.png", "weights.npz",
    "weights.png", "embedding.png", "progress.jsonl", "seconds.json", "transfer.json",
    "report.html", "checkpoint/6/manifest.json", "checkpoint/6/state",
)  # fmt: skip
TABLE = (
    "config.json", "compare.json", "synthetic.png", "accuracy.png", "weights.npz", "weights.png",
    "embedding.png", "seconds.json", "rows/kde/config.json", "rows/kde/result.json",
    "rows/kde/synthetic.npz", "rows/kde/synthetic.png", "rows/kde/progress.jsonl",
    "rows/kde/checkpoint/6/manifest.json", "rows/random/result.json", "rows/random/synthetic.npz",
)  # fmt: skip
UNFINISHED = (
    "config.json", "weights.npz", "weights.png", "embedding.png", "progress.jsonl",
    "seconds.json", "checkpoint/4/manifest.json", "checkpoint/4/state",
    "checkpoint/2/manifest.json",
)  # fmt: skip
CHOSEN = ("choice.json", "weights.npz", "result.json", "synthetic.npz")
EXPERTS = ("manifest.json", "expert-000.npz", "expert-001.npz")
ROWS = ("--rows", "random", "kde")
REMAIN = {"progress.jsonl", "transfer.json", "report.html", "checkpoint"}
"""Records that may stay as they are, since a finished run does not need them."""


def attacks(laboratory: lab.Laboratory, round_: int) -> Iterator[lab.Attack]:
    """Yields the attacks of a round, which decides where files are cut and which bytes change."""
    for kind, (names, make, commands) in _kinds(laboratory).items():
        for name in names:
            for way in DAMAGES:
                for command in commands:
                    title = f"{kind}/{name} {way}: {command}, round {round_}"
                    seed = list(title.encode())
                    spoil = functools.partial(_spoiled, laboratory, make, name, way, seed)
                    yield lab.Attack(title, functools.partial(commands[command], spoil, name))
    for name in ("000.png", "150.png", "metadata.csv"):
        for way in DAMAGES:
            for command in ("resume", "transfer", "show"):
                title = f"images/{name} {way}: {command}, round {round_}"
                run = functools.partial(_on_images, laboratory, name, way, command, title)
                yield lab.Attack(title, run)
    for way in DAMAGES:
        title = f"cache/benchmark {way}: load, round {round_}"
        yield lab.Attack(title, functools.partial(_on_cache, laboratory, way, title))
        for name in EXPERTS:
            title = f"cache/{name} {way}: run, round {round_}"
            run = functools.partial(_on_experts, laboratory, name, way, title)
            yield lab.Attack(title, run)


def _kinds(laboratory):
    """For each kind of folder its files, what makes it, and the commands on it."""
    run, table = laboratory.command("run"), laboratory.command("compare", *ROWS)
    auto = laboratory.command("run", "--debias", "auto")
    resumed = {"resume": functools.partial(_resumed, laboratory, run)}
    read = {
        "report": functools.partial(_reported, laboratory),
        "transfer": functools.partial(_transferred, laboratory),
    }
    return {
        "run": (RUN, lambda: complete(laboratory, run), resumed | read),
        "unfinished": (
            UNFINISHED,
            lambda: unfinished(laboratory, run),
            {"resume": functools.partial(_completed, laboratory, run)},
        ),
        "compare": (
            TABLE,
            lambda: laboratory.finished(*table),
            {
                "resume": functools.partial(_resumed, laboratory, table),
                "report": functools.partial(_reported, laboratory),
            },
        ),
        "auto": (
            CHOSEN,
            lambda: laboratory.finished(*auto),
            {
                "resume": functools.partial(_resumed, laboratory, auto),
                "report": functools.partial(_reported, laboratory),
            },
        ),
    }


def complete(laboratory: lab.Laboratory, command: list[Any]) -> pathlib.Path:
    """A finished run with a transfer and a report."""
    folder = laboratory.finished(*command)
    if not (folder / "report.html").exists():
        ended = lab.call(_transfer(laboratory, folder))
        assert ended.code == 0, ended.err
        assert lab.call(["report", folder]).code == 0
    return folder


def unfinished(laboratory: lab.Laboratory, command: list[Any]) -> pathlib.Path:
    """The same run as it was after its second chunk."""
    folder = laboratory.folder / "unfinished"
    if not folder.exists():
        shutil.copytree(laboratory.finished(*command), folder)
        for name in (
            "result.json",
            "accuracy.png",
            "synthetic.npz",
            "synthetic.png",
            "report.html",
            "transfer.json",
        ):
            (folder / name).unlink(missing_ok=True)
        lines = (folder / "progress.jsonl").read_text().splitlines(keepends=True)
        (folder / "progress.jsonl").write_text("".join(lines[:2]))
        _step_back(laboratory, command, folder)
    return folder


def _step_back(laboratory, command, folder):
    """Puts the states of steps 2 and 4 in the place of those of 4 and 6."""
    shutil.rmtree(folder / "checkpoint")
    shorter = [*command]
    shorter[shorter.index("--steps") + 1] = "4"
    shutil.copytree(laboratory.finished(*shorter) / "checkpoint", folder / "checkpoint")


def _transfer(laboratory, folder, *more):
    return ["transfer", folder, "--networks", "mlp", "--dataset", laboratory.images, *more]


class _Spoiled:
    """A copy of a folder with one damaged file, and what it was before."""

    def __init__(self, before, folder, path, said):
        self.before, self.folder, self.path, self.said = before, folder, path, said

    def put_back(self):
        """Puts the file back where it was."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
        shutil.copy2(self.before / self.path.relative_to(self.folder), self.path)


def _spoiled(laboratory, make, name, way, seed):
    before = make()
    folder, rng = laboratory.copied(before), np.random.default_rng(seed)
    path = folder / name
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        path = inside[int(rng.integers(len(inside)))]
    DAMAGES[way](path, rng)
    return _Spoiled(before, folder, path, f"{path.relative_to(folder)} {way}")


# --- commands on a damaged folder --------------------------------------------------------------


def _worse(spoiled):
    """What a refusal changed beside the damaged file."""
    spoiled.put_back()
    return lab.differences(lab.content(spoiled.before), lab.content(spoiled.folder))


def _resumed(laboratory, command, spoil, name):
    """A finished run or comparison is what it was before, but for records."""
    spoiled, again = spoil(), [*command, "--resume", "--out"]
    ended = lab.call([*again, spoiled.folder])
    remain = {name, "checkpoint"} if set(name.split("/")) & REMAIN else set()
    if _pictured(spoiled) or (name == "embedding.png" and not spoiled.path.exists()):
        remain = {name}  # nobody keeps the embeddings
    return lab.judged(
        ended,
        f"{spoiled.said}; {lab.line([*again, 'FOLDER'])}",
        wrong=lambda: lab.differences(
            lab.content(spoiled.before), lab.content(spoiled.folder), but=remain
        ),
        worse=lambda: _worse(spoiled),
    )


def _completed(laboratory, command, spoil, name):
    """An unfinished run becomes what the undisturbed one is, or does so with the file put back."""
    spoiled, again = spoil(), [*command, "--resume", "--out"]
    whole = lab.content(complete(laboratory, command))
    ended = lab.call([*again, spoiled.folder])
    but = {"transfer.json", "report.html"} | ({name} & {"progress.jsonl", "embedding.png"})
    but |= {name} if _pictured(spoiled) else set()
    differing = lambda: lab.differences(whole, lab.content(spoiled.folder), but=but)

    def worse():
        spoiled.put_back()
        second = lab.call([*again, spoiled.folder])
        return second.err if second.code else differing()

    command = f"{spoiled.said}; {lab.line([*again, 'FOLDER'])}"
    return lab.judged(ended, command, wrong=differing, worse=worse)


def _pictured(spoiled):
    """Whether there is another picture in the place of a figure, which is no damage."""
    return spoiled.said.endswith(".png wrong shape")


def _reported(laboratory, spoil, name):
    """The page says what it said of the undamaged folder, maybe with a figure less."""
    spoiled, out = spoil(), laboratory.folder / "page.html"
    kept = lab.content(spoiled.folder)
    ended = lab.call(["report", spoiled.folder, "--out", out])

    def wrong():
        expected = laboratory.folder / "expected.html"
        assert lab.call(["report", spoiled.before, "--out", expected]).code == 0
        more = set(lab.page(out).splitlines()) - set(lab.page(expected).splitlines())
        return f"the page says {sorted(more)}" if more else ""

    return lab.judged(
        ended,
        f"{spoiled.said}; jaxdd report FOLDER",
        wrong=wrong,
        worse=lambda: lab.differences(kept, lab.content(spoiled.folder)),
    )


def _transferred(laboratory, spoil, name):
    """The scores are those of the undamaged folder, and nothing else changes."""
    spoiled = spoil()
    command = _transfer(laboratory, spoiled.folder)
    ended = lab.call(command)
    but = {name} - {"transfer.json"}
    return lab.judged(
        ended,
        f"{spoiled.said}; {lab.line(_transfer(laboratory, 'FOLDER'))}",
        wrong=lambda: lab.differences(
            lab.content(spoiled.before), lab.content(spoiled.folder), but=but | {"checkpoint"}
        ),
        worse=lambda: _worse(spoiled),
    )


# --- damaged images and caches -----------------------------------------------------------------


def _on_images(laboratory, name, way, command, title):
    """Whoever read other images must refuse them, unless they are another sound data set."""
    rng, run = np.random.default_rng(list(title.encode())), laboratory.command("run")
    before = complete(laboratory, run)
    folder = laboratory.copied(before)
    images = pathlib.Path(shutil.copytree(laboratory.images, folder.with_name("images")))
    DAMAGES[way](images / name, rng)
    run[1] = images
    arguments = {
        "resume": [*run, "--resume", "--out", folder],
        "transfer": ["transfer", folder, "--networks", "mlp", "--dataset", images],
        "show": ["datasets", "show", images],
    }[command]
    ended = lab.call(arguments)
    may_differ = command == "show" and way in ("wrong type", "wrong shape")
    return lab.judged(
        ended,
        f"{name} {way}; {lab.line(arguments)}",
        wrong=lambda: "" if may_differ else _other_images(laboratory.images, images),
        worse=lambda: lab.differences(lab.content(before), lab.content(folder)),
    )


def _other_images(images, damaged):
    one, other = folders.read(images), folders.read(damaged)
    return "" if all(map(np.array_equal, one[:4], other[:4])) else "other images were believed"


def _on_cache(laboratory, way, title):
    """A damaged benchmark in the cache is not taken from there."""
    data = datasets.from_folder(folders.read(laboratory.images), name="images", seed=0)
    path = laboratory.fresh().with_name("images.npz")
    benchmarks._keep(path, data)
    DAMAGES[way](path, np.random.default_rng(list(title.encode())))
    command = f"{way}; benchmarks._stored(PATH)"
    try:
        found = benchmarks._stored(path)
    except Exception:
        return lab.Outcome("traceback", command, traceback.format_exc()[-600:])
    if found is None:
        return lab.Outcome("refused", command)
    same = datasets.digest(found) == datasets.digest(data) and found[3:] == data[3:]
    return lab.Outcome("right" if same else "silent", command)


def _on_experts(laboratory, name, way, title):
    """Damaged experts are refused; a run that does not refuse makes the same set."""
    run = laboratory.command("run", method="mtt")
    buffer = laboratory.folder / "experts"
    whole = laboratory.finished(*run, "--buffer-path", buffer)
    folder = laboratory.fresh()
    kept = shutil.copytree(buffer, folder.with_name("kept"))
    path = buffer / "kde" / name
    DAMAGES[way](path, np.random.default_rng(list(title.encode())))
    arguments = [*run, "--buffer-path", buffer, "--out", folder]
    try:
        return lab.judged(
            lab.call(arguments),
            f"{name} {way}; {lab.line(arguments)}",
            wrong=lambda: lab.differences(
                lab.content(whole) | lab.content(kept), lab.content(folder) | lab.content(buffer)
            ),
        )
    finally:
        shutil.rmtree(buffer)
        shutil.copytree(kept, buffer)
