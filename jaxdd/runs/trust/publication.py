"""Published synthetic sets: verify and read them, and export them from runs.

A published set is a folder with a sealed manifest (`jaxdd.runs.folder.manifest`): that of a run, or
an exported folder with only what others need.

    npz    synthetic.npz as the run wrote it
    png    images/CLASS/NUMBER.png and metadata.csv, which `jaxdd.data.folders` reads
    pt     as npz, and synthetic.pt, the list that PyTorch scripts of the field load
    safetensors  as npz, and synthetic.safetensors with the same arrays
    hub    a Hugging Face data set repository: as npz, and train.parquet, which the library
           `datasets` reads; of a set of PNG files: as png, and train.parquet

All of them have README.md (a data set card), config.json, result.json, samples.npz (hashes of the
training samples), and whitening.npz if the run has one. A .pt file is a pickle: it is written for
others and never read.
"""

import contextlib
import csv
import hashlib
import io
import json
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
from jaxdd.runs import results, weightings
from jaxdd.runs.folder import manifest, samples, store
from jaxdd.runs.reports import pages
from jaxdd.runs.reports.command_line import command_line
from jaxdd.runs.trust import shipped

FORMATS = ("npz", "png")
"""Formats that sets are read from."""

EXPORTS = (*FORMATS, "pt", "safetensors", "hub")
"""Formats that sets are exported to."""

MAX_OVERSHOOT = 1.0
"""Maximum distance of pixels from [0, 1] in a set that is loaded without `expect`."""

_SET, _TABLE, _CARD = "synthetic.npz", "metadata.csv", "README.md"
_COPIED = ("config.json", "result.json", store.WHITENING, samples.NAME)
_COLUMNS = ("file_name", "label", "class")
_PNG_MODES = {1: "L", 3: "RGB"}  # keys: number of channels
_HUB_LICENCES = {"cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-sa-4.0", "mit"}


class Published(NamedTuple):
    """A synthetic set and the manifest that it was verified by.

    Attributes:
        synthetic: the set.
        manifest: content of manifest.json, None for a bare file.
        contents: verified bytes of all listed files, by name.
    """

    synthetic: store.Synthetic
    manifest: dict[str, Any] | None
    contents: dict[str, bytes]

    @property
    def config(self) -> dict[str, Any]:
        """Configuration that the set states, {} if it states none. It may be forged."""
        config = self.synthetic.provenance.get("config")
        return config if isinstance(config, dict) else {}


def formation_of(config: Mapping[str, Any]) -> int:
    """Return f for a configuration whose images hold f² smaller ones; 1 if it does not say."""
    row = weightings.rows().get(str(config.get("row")))
    is_real = row is not None and not row.distilled
    return 1 if is_real else int(config.get("formation", 1))


# --- reading -----------------------------------------------------------------------------------


def load(path: str | os.PathLike, *, expect: str | None = None) -> store.Synthetic:
    """Verify a published set, then read it.

    All files are compared with the manifest before any of them is parsed, and the arrays with those
    that it states. Pickles, object arrays, surplus, missing, duplicate or too large arrays, and
    values that are not finite or outside the stated range are rejected. Without `expect`, pixels
    must also lie within `MAX_OVERSHOOT` of [0, 1].

    Args:
        path: folder of a run or of an exported set, a bare synthetic.npz or .safetensors, or the
            name of a set that comes with jaxdd (`jaxdd sets list`).
        expect: root that the manifest must have, or SHA-256 of a bare file. It is evidence only if
            it comes from another source than the set. Defaults to the known root of a set that
            comes with jaxdd.

    Returns:
        The set. If there is no manifest, a warning states what could not be checked.

    Raises:
        FileNotFoundError: there is no set.
        ValueError: the set failed a check, and nothing of it was used.
    """
    published = read(path, expect=expect)
    if expect is None:
        pixels = to_pixels(published.synthetic)
        if not -MAX_OVERSHOOT <= pixels.min() <= pixels.max() <= 1 + MAX_OVERSHOOT:
            raise ValueError(
                f"{path}: pixels must lie in {-MAX_OVERSHOOT:g}..{1 + MAX_OVERSHOOT:g} unless "
                f"expect= is the root of the set, got {pixels.min():.4g}..{pixels.max():.4g}"
            )
    if published.manifest is None:
        known = "its hash is the expected one" if expect else "it may have been changed by anyone"
        warnings.warn(
            f"{path} has no manifest: its origin is unknown, and {known}. Checked were its arrays, "
            "their shapes and types, labels, finite values and the range of pixels.",
            stacklevel=3,
        )
    return published.synthetic


def read(path: str | os.PathLike, *, expect: str | None = None) -> Published:
    """Verify and read a published set as `load` does, without a limit on its pixels.

    Args:
        path: folder of a run or of an exported set, a bare synthetic.npz or .safetensors, or the
            name of a set that comes with jaxdd.
        expect: root that the manifest must have, or SHA-256 of a bare file.

    Raises:
        FileNotFoundError: there is no set.
        ValueError: the set failed a check.
    """
    path = shipped.resolve(path)
    expect = shipped.root_of(path) if expect is None else expect
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; expected a run, an exported set, .npz or .safetensors"
        )
    if not path.is_dir():
        return _read_bare(path, expect)
    if os.path.lexists(path / manifest.NAME):
        return _read_verified(path, manifest.check(path, expect=expect))
    if expect is not None:
        raise ValueError(f"{path} has no {manifest.NAME}, expected one with the root {expect}")
    if not (path / _SET).exists():
        raise FileNotFoundError(f"{path} has no {_SET}; {manifest.advice(path)}")
    return _read_bare(path / _SET, None)


def _read_verified(folder, verified):
    content, pixels = verified.manifest, None
    if content["kind"] == "png":
        synthetic, pixels = _from_png(folder, verified)
    else:
        stored = _listed(folder, verified, _SET)
        synthetic = store.read_synthetic(folder / _SET, content=stored)
    description = manifest.describe(synthetic, pixels=pixels)
    stated = {name: content.get(name) for name in description}
    if description != stated:
        difference = files.differences(stated, description)
        raise ValueError(f"{folder} does not hold the set of its manifest: {difference}")
    return Published(synthetic, content, verified.contents)


def _read_bare(path, expect):
    if path.suffix.lower() not in (".npz", ".safetensors"):
        raise ValueError(
            f"{path} must be a folder, .npz or .safetensors; pickles (.pt, .pkl) are not read "
            "because they can run code"
        )
    if not path.is_file():
        raise ValueError(f"{path} must be a regular file")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if expect not in (None, digest):
        raise ValueError(
            f"{path} has the SHA-256 {digest}, expected {expect}; to check the root of a manifest, "
            "load its folder"
        )
    return Published(store.read_synthetic(path, content=content), None, {path.name: content})


def _listed(folder, verified, name):
    if name not in verified.contents:
        raise ValueError(f"{folder} has a manifest that does not list {name}")
    return verified.contents[name]


def _from_png(folder, verified):
    table, config = (_listed(folder, verified, name) for name in (_TABLE, "config.json"))
    # Sizes come from the manifest, so that the limit is checked before an image is decoded, and
    # names come from the table, but only listed files can be opened.
    try:
        shape = verified.manifest["arrays"]["pixels"]["shape"]
        moments = (verified.manifest["normalisation"][name] for name in ("mean", "std"))
        pixels, labels, names = _from_table(table, verified.contents, shape)
        mean, std = (np.asarray(value, np.float32) for value in moments)
        images = (pixels / np.float32(255) - mean) / std
        arrays = store.checked(images, labels, mean, std)
        provenance = {"config": json.loads(config), "class_names": names}
    except Exception as error:  # Pillow raises many kinds of errors for damaged files
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder} is not a readable set of PNG files: {reason}") from error
    return store.Synthetic(**arrays, provenance=provenance), pixels


def _from_table(table, contents, shape):
    """Pixels `[k, ipc, h, w, c]`, labels `[k, ipc]` and names `[k]`, ordered by metadata.csv."""
    k, ipc, *size = shape
    if math.prod(shape) > files.MAX_UNPACKED_BYTES:
        raise ValueError(f"expected at most {files.MAX_UNPACKED_BYTES:,} bytes, got shape {shape}")
    rows = list(csv.DictReader(io.StringIO(table.decode(), newline=""), strict=True))
    if len(rows) != k * ipc or any(tuple(row) != _COLUMNS for row in rows):
        raise ValueError(f"{_TABLE} must have {k * ipc} rows of {', '.join(_COLUMNS)}")
    pixels = np.stack([_decode_png(contents[row["file_name"]], tuple(size)) for row in rows])
    labels = np.array([int(row["label"]) for row in rows], np.int32)
    return pixels.reshape(shape), labels.reshape(k, ipc), [row["class"] for row in rows[::ipc]]


def _decode_png(content, size):
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        height, width, channels = size
        if (image.size, image.mode) != ((width, height), _PNG_MODES.get(channels)):
            raise ValueError(f"expected images {size}, got {image.mode} of {image.size}")
        return np.asarray(image).reshape(size)


def to_pixels(synthetic: store.Synthetic) -> np.ndarray:
    """Return pixels `[k, ipc, h, w, c]`. Distillation moves some of them outside [0, 1]."""
    return synthetic.images * np.float64(synthetic.std) + np.float64(synthetic.mean)


def round_pixels(synthetic: store.Synthetic) -> tuple[store.Synthetic, np.ndarray]:
    """Return a set clipped to [0, 1] and rounded to eight bits, and its uint8 pixels."""
    pixels = np.rint(255 * np.clip(to_pixels(synthetic), 0, 1)).astype(np.uint8)
    images = (pixels / np.float32(255) - synthetic.mean) / synthetic.std
    return synthetic._replace(images=images), pixels


# --- exporting ---------------------------------------------------------------------------------


def export(
    source: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    format: str = "npz",
    measure: Callable[[np.ndarray], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Write a verified set for others: its files, a data set card and a manifest of its own.

    Args:
        source: folder of a run or of an exported set.
        folder: folder to write to, absent or empty. It appears complete or not at all.
        format: one of `EXPORTS`. PNG files hold eight bits: pixels are rounded and clipped to
            [0, 1].
        measure: maps the normalised images of the PNG files to their scores. By default the effect
            of rounding is not measured.

    Returns:
        The manifest, whose parent is the root of the source.

    Raises:
        FileExistsError: the folder has files, or is a file or a link.
        FileNotFoundError: the source has no manifest.
        ImportError: PyTorch is missing for the format pt, PyArrow for hub, or safetensors.
        ValueError: the source is damaged, the folder is inside a set, or PNG files cannot hold
            the number of channels.
    """
    if format not in EXPORTS:
        raise ValueError(f"format must be one of {', '.join(EXPORTS)}, got {format!r}")
    if measure is not None and format != "png":
        raise ValueError(f"measure is for the format png, which rounds pixels; got {format}")
    source, folder = shipped.resolve(source), files.expand(folder)
    check_destination(folder)
    verified = manifest.check(source, expect=shipped.root_of(source))
    published = _read_verified(source, verified)
    is_8bit = format == "png" or verified.manifest["kind"] == "png"
    if is_8bit and format not in ("png", "hub"):
        raise ValueError(f"{source} has eight bits; export the run that it came from")
    with atomic_folder(folder) as temporary:
        for name in _COPIED:
            if name in published.contents:
                (temporary / name).write_bytes(published.contents[name])
        if is_8bit:
            content = _write_png(temporary, published.synthetic, measure)
            if measure is None:  # those of a set of PNG files are known
                content["rounding"] = verified.manifest.get("rounding", content["rounding"])
        else:
            (temporary / _SET).write_bytes(published.contents[_SET])
            content = manifest.describe(published.synthetic)
        if format == "pt":
            _write_pt(temporary / "synthetic.pt", published.synthetic, published.config)
        elif format == "safetensors":
            store.write_synthetic(temporary / "synthetic.safetensors", published.synthetic)
        elif format == "hub":
            _write_parquet(temporary / "train.parquet", published.synthetic)
        content |= {x: verified.manifest[x] for x in ("sources",) if x in verified.manifest}
        described = {"kind": "png" if is_8bit else "npz", "parent": verified.manifest["root"]}
        card = _card(source, published, content | described, is_hub=format == "hub")
        (temporary / _CARD).write_text(card, "utf-8")
        paths = (path for path in temporary.rglob("*") if path.is_file())
        manifest.record(temporary, [path.relative_to(temporary).as_posix() for path in paths])
        manifest.seal(temporary, content, **described)
    return manifest.read(folder)


def check_destination(folder: pathlib.Path) -> None:
    """Raise unless a set can be written to a folder: one that is absent or empty, in no set."""
    is_empty = folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())
    if os.path.lexists(folder) and not is_empty:
        raise FileExistsError(f"{folder} is not an empty folder; choose another")
    check_outside(folder)


def check_outside(path: pathlib.Path) -> None:
    """Reject a path inside a set, whose manifest would not list it.

    Raises:
        ValueError: the path is inside a set.
    """
    for parent in path.resolve().parents:
        if (parent / manifest.NAME).is_file():
            raise ValueError(f"{path} is inside the set {parent}; choose another place")


@contextlib.contextmanager
def atomic_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a temporary folder that replaces another one when the block succeeds."""
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


def _write_pt(path, synthetic, config):
    """Write `{"data": [[images, labels]]}`, images float32 `[n, c, h, w]`, labels int64 `[n]`.

    `mean`, `std`, `classes` and `config` (JSON) say what they mean.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("the format pt needs PyTorch: pip install torch") from error
    images = synthetic.images.reshape(-1, *synthetic.images.shape[2:]).transpose(0, 3, 1, 2)
    images = torch.tensor(np.ascontiguousarray(images))
    labels = torch.tensor(synthetic.labels.reshape(-1)).long()
    stated = {"mean": synthetic.mean.tolist(), "std": synthetic.std.tolist()}
    stated |= {"classes": list(synthetic.classes), "config": json.dumps(config)}
    torch.save({"data": [[images, labels]], **stated}, path)


def _write_parquet(path, synthetic):
    """Write a table with the PNG file and the label of each image.

    Its metadata has the features of the library `datasets`: an image and a label with class names.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("the format hub needs PyArrow: pip install pyarrow") from error
    pixels = round_pixels(synthetic)[1]
    pixels = pixels.reshape(-1, *pixels.shape[2:])
    features = {
        "image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": synthetic.classes}
    }  # fmt: skip
    images = [{"bytes": _encode_png(image), "path": None} for image in pixels]
    file = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    labels = synthetic.labels.reshape(-1).astype(np.int64)
    columns = {"image": pyarrow.array(images, file), "label": pyarrow.array(labels)}
    stated = {"huggingface": json.dumps({"info": {"features": features}})}
    pyarrow.parquet.write_table(pyarrow.table(columns, metadata=stated), path)


def _encode_png(pixels):
    """Return the content of a PNG file of uint8 pixels [h, w, c]."""
    if (channels := pixels.shape[-1]) not in _PNG_MODES:
        raise ValueError(f"PNG files have 1 or 3 channels, got {channels}; export as npz")
    stream = io.BytesIO()
    image = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _write_png(folder, synthetic, measure):
    k, ipc = synthetic.images.shape[:2]
    rounded, pixels = round_pixels(synthetic)
    exact = to_pixels(synthetic)
    furthest = max(0.0, float(-exact.min()), float(exact.max() - 1))
    rounding = {"cut": ((exact < 0) | (exact > 1)).mean(), "furthest": furthest}
    rounding["scores"] = None if measure is None else measure(rounded.images)
    class_digits, image_digits = (len(str(count - 1)) for count in (k, ipc))
    with open(folder / _TABLE, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(_COLUMNS)
        for i, j in np.ndindex(k, ipc):
            name = f"images/{i:0{class_digits}}/{j:0{image_digits}}.png"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(_encode_png(pixels[i, j]))
            label = int(synthetic.labels[i, j])
            table.writerow((name, label, synthetic.classes[label]))
    return manifest.describe(rounded, pixels=pixels) | {"rounding": rounding}


def _card(source, published, content, is_hub):
    """The data set card: Markdown with a head of YAML."""
    if "sources" in content:
        return merged_card(published.synthetic, content, is_hub=is_hub)
    try:
        config, result = (json.loads(published.contents[name]) for name in _COPIED[:2])
        scores = results.Result.from_dict(result)
        rows = {"this set": scores, "a random subset of as many real images": scores.random}
        if measured := (content.get("rounding") or {}).get("scores"):
            rounded = results.Scores.from_dict(measured)
            rows = {"this set, as PNG files": rounded, "before rounding": scores} | rows
            del rows["this set"]
        dataset, weighting = config["dataset"], config.get("row") or config["debias"]
        table = {
            row: [results.percent(getattr(of_row, name)) for name in results.SCORES]
            for row, of_row in rows.items()
        }
        licence = benchmarks.describe(dataset).licence if dataset in benchmarks.NAMES else None
        identifier = str(licence).lower().replace(" ", "-")
        values = {
            "synthetic": published.synthetic, "config": config, "result": scores, "table": table,
            "scores": results.SCORES, "dataset": dataset, "content": content,
            "licence": licence, "is_hub": is_hub,
            "licence_identifier": identifier if identifier in _HUB_LICENCES else "unknown",
            "method": config.get("own_method") or config["method"], "weighting": weighting,
            "command": command_line(config, rows=config.get("batch_rows") or [weighting]),
            "formation": formation_of(config),
        }  # fmt: skip
        template = pages.TEMPLATES.overlay(autoescape=False).get_template("card.md.j2")
        return template.render(values)
    except (KeyError, TypeError, AttributeError, ValueError, jinja2.TemplateError) as error:
        raise ValueError(
            f"{source} must list config.json and result.json of a run for the card, got {error!r}"
        ) from error


def merged_card(
    synthetic: store.Synthetic, content: Mapping[str, Any], *, is_hub: bool = False
) -> str:
    """Return the data set card of a merged set, for the content of its manifest."""
    template = pages.TEMPLATES.overlay(autoescape=False).get_template("merged.md.j2")
    return template.render(synthetic=synthetic, content=content, is_hub=is_hub)
