"""Disk: synthetic sets as they are published. Verified before they are read, and exported.

A published set is a folder with a manifest (`jaxdd.runs.folder.manifest`): that of a run, or an exported
one that holds only what others need.

    npz    synthetic.npz as the run wrote it
    png    images/CLASS/NUMBER.png and metadata.csv, which `jaxdd.data.folders` reads
    pt     as npz, and synthetic.pt, the list that PyTorch scripts of the field load

All have README.md, a data set card, and whitening.npz where the run has one. A .pt file is a
pickle: it is written for others, never read.
"""

import contextlib
import csv
import hashlib
import io
import math
import os
import pathlib
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jinja2
import numpy as np
from PIL import Image

from jaxdd.data import benchmarks, files
from jaxdd.runs import old_results as results
from jaxdd.runs.folder import manifest, store
from jaxdd.runs.reports import pages, report

FORMATS = ("npz", "png")
"""What a set is read from."""

EXPORTS = (*FORMATS, "pt")
"""What a set can be exported as."""

MARGIN = 1.0
"""How far from [0, 1] pixels may lie in a set whose root nobody expected."""

_SET, _TABLE, _CARD = "synthetic.npz", "metadata.csv", "README.md"
_COLUMNS = ("file_name", "label", "class")
_MODES = {1: "L", 3: "RGB"}


class Published(NamedTuple):
    """A synthetic set of k classes with ipc images each.

    Attributes:
        images: float32 [k, ipc, h, w, c], normalised pixels: (pixel - mean) / std, pixel in [0, 1].
        labels: int32 [k, ipc].
        mean: float32 [c], what was subtracted from each channel.
        std: float32 [c], what each channel was divided by.
        classes: k names.
        manifest: what `jaxdd.runs.folder.manifest` describes, None where there is none.
    """

    images: np.ndarray
    labels: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    classes: tuple[str, ...]
    manifest: dict[str, Any] | None


# --- reading -----------------------------------------------------------------------------------


def load(path: str | os.PathLike, *, expect: str | None = None) -> Published:
    """Reads a published set, after it was verified.

    The hashes of all files are compared with the manifest's before any of them is parsed, and what
    is parsed are the bytes that were hashed. Arrays must then be those that the manifest tells of.
    Pickles, object arrays, arrays that are surplus, missing, twice there or larger than
    `files.MAX_UNPACKED_BYTES` are refused, and so are NaN and infinite values, and those out of the range
    that the manifest states; without `expect` also pixels beyond `MARGIN`.

    Args:
        path: the folder of a run or of an exported set, or a bare synthetic.npz.
        expect: the root that the manifest must have; of a bare file, its SHA-256. It proves
            something where it comes from somewhere else than the set.

    Returns:
        The set. Without a manifest, a warning says what could not be checked.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: anything in it is not as it should be; nothing of it was used.
    """
    path = files.expand(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist, expected a run, an exported set or .npz")
    if path.is_dir() and os.path.lexists(path / manifest.NAME):
        found = _verified(path, manifest.check(path, expect=expect))
        return found if expect is not None else _checked_pixels(path, found)
    if path.is_dir() and expect is not None:
        raise ValueError(f"{path} has no {manifest.NAME}, expected one with the root {expect}")
    if path.is_dir() and not (path / _SET).exists():
        raise FileNotFoundError(f"{path} holds no {_SET}; {manifest.advice(path)}")
    return _bare(path / _SET if path.is_dir() else path, expect)


def load_to_audit(path: str | os.PathLike, *, expect: str | None = None) -> Published:
    """Reads a set as `load` does, also one whose pixels are far from any: an audit says so.

    It also says what a set without a manifest lacks, of which there is no warning.

    Args:
        path: as for `load`.
        expect: as for `load`.

    Raises:
        FileNotFoundError: as `load`.
        ValueError: as `load`, but for pixels beyond `MARGIN`.
    """
    path = files.expand(path)
    bare = path / _SET if path.is_dir() else path
    if expect is None and path.is_dir() and os.path.lexists(path / manifest.NAME):
        expect = manifest.read(path)["root"]
    elif expect is None and bare.suffix.lower() == ".npz" and bare.is_file():
        path, expect = bare, hashlib.sha256(bare.read_bytes()).hexdigest()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*has no manifest", UserWarning)
        return load(path, expect=expect)


def _verified(folder, checked):
    told = checked.manifest
    synthetic, pixels = (_from_png if told["kind"] == "png" else _from_npz)(folder, checked)
    found = manifest.describe(synthetic, pixels=pixels)
    stated = {name: told.get(name) for name in found}
    if found != stated:
        raise ValueError(
            f"{folder} does not hold the set of its manifest: {files.differences(stated, found)}"
        )
    return Published(*synthetic[:4], tuple(found["classes"]), told)


def _bare(path, expect):
    if path.suffix.lower() != ".npz":
        raise ValueError(
            f"{path} must be a folder or an .npz file; pickles (.pt, .pkl) run code when they are "
            "read, and are not"
        )
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if expect not in (None, digest):
        raise ValueError(
            f"{path} has the SHA-256 {digest}, expected {expect}; the root of a manifest is "
            "expected of its folder"
        )
    synthetic = store.read_synthetic(path, content=content)
    found = Published(*synthetic[:4], tuple(manifest.classes(synthetic)), None)
    if expect is None:
        _checked_pixels(path, found)
    known = "it is the file expected" if expect else "nothing says whose it is or if it was changed"
    warnings.warn(
        f"{path} has no manifest, thus no provenance, and {known}; checked were its arrays, their "
        "shapes and types, labels, finite values and the range of pixels",
        stacklevel=3,
    )
    return found


def _checked_pixels(path, found):
    """A set that nobody vouches for, unless its pixels are far from any."""
    pixels = to_pixels(found)
    if not -MARGIN <= pixels.min() <= pixels.max() <= 1 + MARGIN:
        raise ValueError(
            f"{path}: pixels must lie in {-MARGIN:g}..{1 + MARGIN:g} unless expect=ROOT says that "
            f"they may not, found {pixels.min():.4g}..{pixels.max():.4g}"
        )
    return found


def _content(folder, checked, name):
    if name not in checked.contents:
        raise ValueError(f"{folder} has a manifest that does not list {name}")
    return checked.contents[name]


def _from_npz(folder, checked):
    content = _content(folder, checked, _SET)
    return store.read_synthetic(folder / _SET, content=content), None


def _from_png(folder, checked):
    table = _content(folder, checked, _TABLE)
    try:
        told = checked.manifest["arrays"]["pixels"]["shape"]
        moments = (checked.manifest["normalisation"][name] for name in ("mean", "std"))
        pixels, labels, names = _from_table(table, checked.contents, told)
        mean, std = (np.asarray(value, np.float32) for value in moments)
        images = (pixels / np.float32(255) - mean) / std
        arrays = store.checked(images, labels, mean, std)
    except Exception as error:  # Pillow raises nearly anything
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder} is not a readable set of PNG files: {reason}") from error
    return store.Synthetic(**arrays, provenance={"class_names": names}), pixels


def _from_table(table, contents, shape):
    """Pixels `[k, ipc, h, w, c]`, labels `[k, ipc]` and names `[k]`, ordered by metadata.csv."""
    k, ipc, *size = shape
    if math.prod(shape) > files.MAX_UNPACKED_BYTES:
        raise ValueError(
            f"expected at most {files.MAX_UNPACKED_BYTES:,} bytes of pixels, found {shape}"
        )
    rows = list(csv.DictReader(io.StringIO(table.decode(), newline=""), strict=True))
    if len(rows) != k * ipc or any(tuple(row) != _COLUMNS for row in rows):
        raise ValueError(f"{_TABLE} must have {k * ipc} rows of {', '.join(_COLUMNS)}")
    pixels = np.stack([_decoded(contents[row["file_name"]], tuple(size)) for row in rows])
    labels = np.array([int(row["label"]) for row in rows], np.int32)
    return pixels.reshape(shape), labels.reshape(k, ipc), [row["class"] for row in rows[::ipc]]


def _decoded(content, size):
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        height, width, channels = size
        if (image.size, image.mode) != ((width, height), _MODES.get(channels)):
            raise ValueError(f"expected images {size}, found {image.mode} of {image.size}")
        return np.asarray(image).reshape(size)


def to_pixels(synthetic: store.Synthetic | Published) -> np.ndarray:
    """Returns pixels [k, ipc, h, w, c] in [0, 1], but for what distillation moved outside."""
    return synthetic.images * np.float64(synthetic.std) + np.float64(synthetic.mean)


# --- exporting ---------------------------------------------------------------------------------


def export(
    source: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    format: str = "npz",
    measure: Callable[[np.ndarray], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Writes a set for others, whole or not at all: its files, a card and a manifest.

    Args:
        source: a run, or an exported set; it is verified first.
        folder: where to; absent or empty.
        format: one of `EXPORTS`. PNG files hold eight bits, which rounds, and cuts pixels outside
            of [0, 1].
        measure: from the images of the PNG files, normalised, to their scores, as
            `jaxdd.runs.scoring.finished_run.score` finds them; they are not measured without it.

    Returns:
        The manifest, whose parent is the root of the source.

    Raises:
        FileExistsError: there are files in the folder, or it is a file or a link.
        FileNotFoundError: the source has no manifest.
        ImportError: pt without PyTorch.
        ValueError: the source is damaged, the folder is inside of a set, or the images have a
            number of channels that PNG files do not have.
    """
    if format not in EXPORTS:
        raise ValueError(f"format must be one of {', '.join(EXPORTS)}, found {format!r}")
    if measure is not None and format != "png":
        raise ValueError(f"{format} is not rounded, and has the scores of the run")
    source, folder = (files.expand(path) for path in (source, folder))
    _check_place(folder)
    checked = manifest.check(source)
    found = _verified(source, checked)
    with _whole(folder) as temporary:
        if format == "png":
            about = _write_png(temporary, found, measure)
        else:
            about = _write_npz(temporary, found, checked)
        if format == "pt":
            _write_pt(temporary, found)
        if store.WHITENING in checked.contents:
            (temporary / store.WHITENING).write_bytes(checked.contents[store.WHITENING])
        told = {name: checked.manifest.get(name) for name in ("provenance", "scores")}
        kind = "png" if format == "png" else "npz"
        content = {"kind": kind, "parent": checked.manifest["root"], **told, **about}
        try:
            (temporary / _CARD).write_text(card(found, content), encoding="utf-8")
        except (KeyError, TypeError, AttributeError, jinja2.TemplateError) as error:
            raise ValueError(f"{source} has a manifest without what a card says") from error
        names = (path.relative_to(temporary).as_posix() for path in temporary.rglob("*"))
        manifest.write(
            temporary, content | {"files": manifest.described_files(temporary, sorted(names))}
        )
    return manifest.read(folder)


def _check_place(folder):
    """Raises for a place that is taken, and for one where a set would be no longer what it is."""
    is_empty = folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())
    if os.path.lexists(folder) and not is_empty:
        raise FileExistsError(f"{folder} is not an empty folder; choose another")
    check_outside(folder)


def check_outside(path: pathlib.Path) -> None:
    """Refuses a place inside of a set, which would no longer be what its manifest says.

    Raises:
        ValueError: names the set.
    """
    for parent in path.resolve().parents:
        if (parent / manifest.NAME).is_file():
            raise ValueError(f"{path} is inside of the set {parent}, which would not list it")


@contextlib.contextmanager
def _whole(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder beside another, whose place it takes when the block succeeds."""
    folder = folder.absolute()
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}{files.TEMPORARY}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_npz(folder, found, checked):
    if found.manifest["kind"] == "png":
        raise ValueError("the source has eight bits; export the run that it came from")
    (folder / _SET).write_bytes(checked.contents[_SET])
    return {name: found.manifest[name] for name in ("arrays", "classes", "normalisation", "range")}


def _write_pt(folder, found):
    """`{"data": [[images, labels]]}`, images float32 [n, c, h, w] and labels int64 [n]."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("the format pt needs PyTorch: pip install torch") from error
    images = found.images.reshape(-1, *found.images.shape[2:]).transpose(0, 3, 1, 2)
    pair = [
        torch.tensor(np.ascontiguousarray(images)),
        torch.tensor(found.labels.reshape(-1)).long(),
    ]
    told = {"mean": found.mean.tolist(), "std": found.std.tolist(), "classes": list(found.classes)}
    torch.save({"data": [pair], **told}, folder / "synthetic.pt")


def _write_png(folder, found, measure):
    k, ipc, *_, channels = found.images.shape
    if channels not in _MODES:
        raise ValueError(f"PNG files hold 1 or 3 channels, found {channels}; export as npz")
    kept, pixels, lost = _rounded(found)
    scores = None if measure is None else measure(kept.images)
    wide, long = (len(str(count - 1)) for count in (k, ipc))
    with open(folder / _TABLE, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(_COLUMNS)
        for i, j in np.ndindex(k, ipc):
            name = f"images/{i:0{wide}}/{j:0{long}}.png"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(pixels[i, j] if channels == 3 else pixels[i, j, ..., 0])
            image.save(folder / name, "PNG", optimize=True)
            table.writerow((name, int(found.labels[i, j]), found.classes[found.labels[i, j]]))
    return {**manifest.describe(kept, pixels=pixels), "rounding": {**lost, "scores": scores}}


def _rounded(found):
    """A set of eight bits, its pixels as uint8, and what the others lost."""
    exact = to_pixels(found)
    pixels = np.rint(255 * np.clip(exact, 0, 1)).astype(np.uint8)
    images = (pixels / np.float32(255) - found.mean) / found.std
    made = store.Synthetic(images, *found[1:4], provenance={"class_names": list(found.classes)})
    furthest = max(0.0, float(-exact.min()), float(exact.max() - 1))
    return made, pixels, {"cut": ((exact < 0) | (exact > 1)).mean(), "furthest": furthest}


def card(found: Published, content: Mapping[str, Any]) -> str:
    """Returns the data set card of an exported set, in Markdown under a head of YAML.

    Args:
        found: the set that is exported.
        content: of the manifest of the export, but for its files.
    """
    made = content["provenance"]
    name, config = made["source"]["name"], made["config"] or {}
    licence = benchmarks.describe(name)[5] if name in benchmarks.NAMES else None
    rows = {
        "this set": content["scores"],
        "as many random real images": content["scores"]["random"],
    }
    if measured := (content.get("rounding") or {}).get("scores"):
        rows = {"this set, as PNG files": measured, "before rounding": rows.pop("this set"), **rows}
    values = {
        "found": found, "made": made, "rows": rows, "scores": results.SCORES, "licence": licence,
        "name": name, "content": content, "formation": config.get("formation", 1),
        "whitened": config.get("zca", "none") != "none",
        "command": report.command(config, rows=[made["debias"]]),
    }  # fmt: skip
    page = pages.TEMPLATES.overlay(autoescape=False).get_template("card.md.j2")
    return page.render(values)
