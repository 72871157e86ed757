"""The manifest of a run folder, with the size and checksum of every file.

manifest.json is the one integrity record of a folder. A run records each product when it is
written, and seals the manifest when it is finished:

    schema          version of this format
    kind            run, npz or png: what the folder is
    parent          root of the set that this one was exported from, or null
    files           name -> size and SHA-256 of everything that belongs to the set
    arrays          name -> dtype, shape and SHA-256 of the canonical bytes
    classes         names of the classes
    normalisation   mean and std of each channel
    range           lowest and highest normalised value of each channel that the set may have, and
                    the share of its values outside the pixel range [0, 1]
    root            SHA-256 of all of the above in canonical JSON
    figures         name -> size and SHA-256 of pictures, which the root does not cover

A manifest without a root is unfinished. Provenance and scores are in config.json and result.json,
which are listed files.

Canonical bytes are those of the array in C order and little-endian, whatever file it is stored in.
Canonical JSON has sorted keys, no white space, ASCII only, and floats as Python writes them. No
times or paths are recorded, so the same run on the same machine has the same root.
"""

import hashlib
import json
import os
import pathlib
import re
import threading
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdd.data import files
from jaxdd.runs.folder import store

_SCHEMA = 1  # version of the format that is written, and the newest that is read

NAME, SIGNATURE = "manifest.json", "manifest.sig"
"""File names of a manifest and of the signature of its root."""

_KINDS = ("run", "npz", "png")  # of folders that have a sealed manifest

_MAX_BYTES = 2**26  # maximum size of a manifest
_FILE_NAME = re.compile(r"(?:[\w-][\w.-]*/)*[\w-][\w.-]*", re.ASCII)
_FIGURE_NAME = re.compile(r"[\w-]+\.(?:png|svg)|figures\.npz", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UNCOVERED_BY_ROOT = ("root", "figures")
_LOCK = threading.Lock()  # rows of a comparison run in threads that may write to the same manifest

# Names that may be in a folder without being listed: files of hosting services, and what a run
# needs while it works or other commands write. Loading a set never reads them.
_OF_HOSTS = {".cache", ".git", ".gitattributes"}
_OF_RUNS = {
    ".lock", "checkpoint", "experts", "progress.jsonl", "teacher", "timing.json",
    "evaluation.json", "profile.json", "profile.svg", "profile.png", "report", "report.html",
}  # fmt: skip


class Verified(NamedTuple):
    """A folder whose files agree with its manifest.

    Attributes:
        manifest: content of manifest.json.
        contents: the verified bytes of every listed file, by name.
        uncovered: names in the folder that the root does not cover.
    """

    manifest: dict[str, Any]
    contents: dict[str, bytes]
    uncovered: tuple[str, ...]


# --- recording ---------------------------------------------------------------------------------


def record(folder: str | os.PathLike, names: Iterable[str], *, section: str = "files") -> None:
    """Add or update the entries of files, in a manifest that is created if there is none.

    Names are relative to the run folder, such as "weights/auto/weights.npz". The section is "files"
    for what belongs to the set, and "figures" for pictures. If an entry of "files" changes, the
    manifest is unfinished until the next `seal`.
    """
    entries = {name: _entry(pathlib.Path(folder) / name) for name in names}
    with _LOCK:
        content = _read_or_empty(folder)
        _update(folder, content, section, {**content.get(section, {}), **entries})


def forget(folder: str | os.PathLike, names: Iterable[str]) -> None:
    """Remove the entries of files, named relative to the run folder, whether or not they exist."""
    removed = set(names)
    with _LOCK:
        for section in ("files", "figures"):
            content = _read_or_empty(folder)
            entries = content.get(section, {})
            rest = {name: entry for name, entry in entries.items() if name not in removed}
            _update(folder, content, section, rest)


def is_intact(folder: str | os.PathLike, name: str) -> bool:
    """Return whether a file, named relative to the folder, has the checksum in the manifest."""
    content, path = _read_or_empty(folder), pathlib.Path(folder) / name
    entry = content.get("files", {}).get(name) or content.get("figures", {}).get(name)
    return bool(entry) and not path.is_symlink() and path.is_file() and _entry(path) == entry


def seal(
    folder: str | os.PathLike,
    content: Mapping[str, Any],
    *,
    kind: str = "run",
    parent: str | None = None,
) -> str:
    """Complete the manifest of a folder whose files are all recorded, and return its root.

    Args:
        folder: folder of a finished run or of an exported set.
        content: from `describe`, and anything else that the root is to cover.
        kind: run, npz or png.
        parent: root of the set that this one was exported from.
    """
    # A damaged manifest may list names that never existed; only existing files are sealed.
    sections = {
        section: {name: entry for name, entry in entries.items() if _exists(folder, name)}
        for section, entries in _read_or_empty(folder).items()
        if section in ("files", "figures")
    }
    of_folder = {"schema": _SCHEMA, "kind": kind, "parent": parent}
    sealed = files.to_json({**content, **sections, **of_folder})
    sealed["root"] = root(sealed)
    _write(folder, sealed)
    return sealed["root"]


def is_sealed(folder: str | os.PathLike) -> bool:
    """Return whether a folder has a sealed manifest. Its files are not checked."""
    try:
        return bool(read(folder))
    except (OSError, ValueError):
        return False


def _exists(folder, name):
    return bool(_FILE_NAME.fullmatch(name)) and (pathlib.Path(folder) / name).is_file()


def _entry(path):
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": file.tell(), "sha256": digest}


def _read_or_empty(folder):
    """Return the content of a manifest, {} if it is missing or damaged."""
    try:
        content = files.read_json(pathlib.Path(folder) / NAME)
    except (FileNotFoundError, ValueError):
        return {}
    sections = isinstance(content, dict) and [content.get(x, {}) for x in ("files", "figures")]
    is_manifest = sections and all(isinstance(section, dict) for section in sections)
    return content if is_manifest and content.get("schema") == _SCHEMA else {}


def _update(folder, content, section, entries):
    """Replace a section of a manifest; remove the root if it covers the section."""
    if entries == content.get(section, {}):
        return
    if section == "files":
        figures = {"figures": content["figures"]} if "figures" in content else {}
        content = {"schema": _SCHEMA, **figures}
    content = {"schema": _SCHEMA, **content, section: entries}
    _write(folder, content)


def _write(folder, content):
    with files.atomic_path(pathlib.Path(folder) / NAME) as temporary:
        temporary.write_bytes(_text(content))


def _text(content):
    return (json.dumps(content, sort_keys=True, indent=1, allow_nan=False) + "\n").encode("ascii")


# --- hashes ------------------------------------------------------------------------------------


def array_digest(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's canonical bytes: C order, little-endian.

    >>> array_digest(np.float32([[1, 2]])) == array_digest(np.array([[1, 2]], ">f4", order="F"))
    True
    """
    array = np.asarray(array)
    array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    return hashlib.sha256(array.tobytes()).hexdigest()


def root(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the content of a manifest without `root` and `figures`."""
    covered = {name: x for name, x in content.items() if name not in _UNCOVERED_BY_ROOT}
    text = json.dumps(covered, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def describe(synthetic: store.Synthetic, *, pixels: np.ndarray | None = None) -> dict[str, Any]:
    """Return what a manifest states about a set: arrays, classes, normalisation and range.

    `pixels`, uint8 `[k, ipc, h, w, c]`, are those that the folder holds instead of the images.
    """
    stored = {"images": synthetic.images} if pixels is None else {"pixels": pixels}
    stored |= {name: getattr(synthetic, name) for name in ("labels", "mean", "std")}
    arrays = {
        name: {"dtype": array.dtype.name, "shape": array.shape, "sha256": array_digest(array)}
        for name, array in stored.items()
    }
    return files.to_json({
        "arrays": arrays,
        "classes": synthetic.classes,
        "normalisation": {"mean": synthetic.mean, "std": synthetic.std},
        "range": _range(synthetic),
    })  # fmt: skip


def _range(synthetic):
    mean, std = (np.float64(x) for x in (synthetic.mean, synthetic.std))
    low, high, images = -mean / std, (1 - mean) / std, synthetic.images
    axes = tuple(range(images.ndim - 1))
    return {
        "low": np.minimum(low, images.min(axis=axes)),
        "high": np.maximum(high, images.max(axis=axes)),
        "outside": ((images < np.float32(low)) | (images > np.float32(high))).mean(),
    }


# --- verification ------------------------------------------------------------------------------
# A published folder may come from an attacker. Nothing but the JSON of the manifest is parsed
# before every listed file has been hashed, and the bytes that were hashed are returned, so that
# a file cannot be exchanged between its verification and its use.


def read(folder: str | os.PathLike, *, expect: str | None = None) -> dict[str, Any]:
    """Return the content of a sealed manifest after checking its root, which must be `expect`."""
    path = pathlib.Path(folder) / NAME
    if expect is not None and not (isinstance(expect, str) and _SHA256.fullmatch(expect)):
        raise ValueError(f"expect must be 64 lower-case hexadecimal digits, got {expect!r}")
    if not os.path.lexists(path):
        raise FileNotFoundError(f"{folder} has no {NAME}; {advice(path.parent)}")
    if path.is_symlink() or not path.is_file():
        raise ValueError(f"{path} must be a regular file")
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise ValueError(f"{path} must have at most {_MAX_BYTES:,} bytes, got {size:,}")
    content = files.read_json(path)
    version = content.get("schema") if isinstance(content, dict) else None
    if type(version) is not int or version < 1:
        raise ValueError(f"{path} is not a manifest: schema must be a version, got {version!r}")
    if version > _SCHEMA:
        raise ValueError(
            f"{path} has version {version}, but this jaxdd reads up to version {_SCHEMA}; "
            "use a newer jaxdd"
        )
    if "root" not in content:
        raise ValueError(f"{path} is unfinished, it has no root; {advice(path.parent)}")
    _check_root(path, content, expect)
    return content


def _check_root(path, content, expect):
    try:
        computed = root(content)
        is_intact = computed == content["root"] and _text(content) == path.read_bytes()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a manifest: {error}") from error
    if not is_intact:
        raise ValueError(f"{path} was changed: its content has the root {computed}")
    if expect not in (None, computed):
        raise ValueError(f"{path} has the root {computed}, expected {expect}")
    if content.get("kind") not in _KINDS:
        raise ValueError(f"{path} must have one of the kinds {', '.join(_KINDS)}")


def advice(folder: pathlib.Path) -> str:
    """Return advice on a folder without a sealed manifest, for an error message."""
    if (folder / "rows").is_dir():
        return f"the runs of a comparison are in {folder / 'rows'}"
    return "repeat the command of the run with --resume to finish it"


def check(folder: str | os.PathLike, *, expect: str | None = None) -> Verified:
    """Verify every file of a run or of an exported set.

    `expect` is the root that it must have, from another source than the folder.
    """
    folder = pathlib.Path(folder)
    content = read(folder, expect=expect)
    entries = _checked_entries(folder, content)
    if missing := [name for name in entries if not os.path.lexists(folder / name)]:
        raise ValueError(f"{folder / min(missing)} is missing, but {NAME} lists it")
    uncovered = _check_names(folder, content, entries)
    contents = {name: _verified_bytes(folder, name, entry) for name, entry in entries.items()}
    return Verified(content, contents, uncovered)


def _checked_entries(folder, content):
    entries = content.get("files")
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"{folder / NAME} must list files, got {entries!r:.80}")
    for name, entry in entries.items():
        if not _FILE_NAME.fullmatch(name) or name in (NAME, SIGNATURE):
            raise ValueError(f"{folder / NAME} must not list {name!r}")
        if not isinstance(entry, dict) or entry.keys() != {"size", "sha256"}:
            raise ValueError(f"{folder / NAME} must state size and sha256 of {name}")
    return entries


def _verified_bytes(folder, name, entry):
    path = folder / name
    # A link anywhere in the path, also in place of a parent folder, changes the resolved path.
    if os.path.realpath(path) != os.path.join(os.path.realpath(folder), *name.split("/")):
        raise ValueError(f"{path} must not be a link")
    if not path.is_file():
        raise ValueError(f"{path} must be a regular file")
    if (size := path.stat().st_size) != entry["size"]:
        raise ValueError(f"{path} was changed: expected {entry['size']} bytes, got {size}")
    content = path.read_bytes()
    if (digest := hashlib.sha256(content).hexdigest()) != entry["sha256"]:
        raise ValueError(f"{path} was changed: expected SHA-256 {entry['sha256']}, got {digest}")
    return content


def _check_names(folder, content, entries):
    """Names in a folder that the root does not cover; raises for names that are not allowed."""
    is_run, figures = content["kind"] == "run", content.get("figures", {})
    if not isinstance(figures, dict) or not all(map(_FIGURE_NAME.fullmatch, figures)):
        raise ValueError(f"{folder / NAME} must list only pictures as figures, got {figures!r:.80}")
    allowed = _OF_HOSTS | ({*_OF_RUNS, *figures} if is_run else set())
    covered, uncovered = {*entries, NAME, SIGNATURE}, set()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] in allowed:
            uncovered.add(name.parts[0])
        elif name.as_posix() not in covered and (path.is_symlink() or not path.is_dir()):
            raise ValueError(f"{path} is not listed in {NAME}")
    return tuple(sorted(uncovered))
