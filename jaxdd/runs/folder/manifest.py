"""Disk: the manifest of a synthetic set. What it is, where it comes from, and the hashes of it all.

    schema          version of this format
    kind            run, npz or png: what the folder is
    parent          root of the set that this one was exported from, or null
    arrays          name -> dtype, shape, SHA-256 of the canonical bytes
    files           name -> size and SHA-256
    classes         their names
    normalisation   mean and std of each channel
    range           lowest and highest normalised value of each channel that the set may have, and
                    the share of its values outside of pixels in [0, 1]
    provenance      source data, weights, method, configuration, seed, device, versions
    scores          what was measured, as in result.json
    root            SHA-256 of all of the above in canonical JSON

Canonical bytes are those of the array in C order and little-endian, whatever file holds it.
Canonical JSON has sorted keys, no white space, ASCII only and floats as Python writes them. Neither
times nor places are in it, so that the same run on the same machine has the same root.
"""

import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdd.data import files
from jaxdd.runs import old_results as results
from jaxdd.runs.folder import store

SCHEMA = 1
"""The version of the format that is written, and the newest that is read."""

NAME, SIGNATURE = "manifest.json", "manifest.sig"
"""The files of a manifest and of a signature of its root."""

KINDS = ("run", "npz", "png")
"""What a folder with a manifest may be."""

_LARGEST = 2**26  # bytes of a manifest
_FILE = re.compile(r"(?:[\w-][\w.-]*/)*[\w-][\w.-]*", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}")
_HOSTED = {".cache", ".git", ".gitattributes"}  # what those that host data sets put beside them
_BESIDE = {  # what a run needs or draws, and what other commands write, without being published
    ".lock", "checkpoint", "experts", "progress.jsonl", "seconds.json", "teacher",
    "synthetic.png", "accuracy.png", "weights.png", "embedding.png", "figures.npz", "evaluation.json",
    "profile.json", "profile.svg", "profile.png", "report.html", "report",
}  # fmt: skip
_UNSTABLE = ("seconds", "date", "digests", "digest")  # in a result, and not in its manifest
_MADE = ("config", "device", "versions", "seed")


class Checked(NamedTuple):
    """A folder whose files are those of its manifest.

    Attributes:
        manifest: its content.
        contents: of the files that it lists, by name; these very bytes were verified.
        uncovered: names in the folder that it says nothing about.
    """

    manifest: dict[str, Any]
    contents: dict[str, bytes]
    uncovered: tuple[str, ...]


# --- hashes ------------------------------------------------------------------------------------


def array_digest(array: np.ndarray) -> str:
    """Returns the SHA-256 of an array's canonical bytes: C order, little-endian.

    >>> array_digest(np.float32([[1, 2]])) == array_digest(np.array([[1, 2]], ">f4", order="F"))
    True
    """
    array = np.asarray(array)
    array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    return hashlib.sha256(array.tobytes()).hexdigest()


def canonical(value: Any) -> bytes:
    """Returns a value of JSON in the one form that is hashed.

    >>> canonical({"b": [1.5, None], "a": "x"})
    b'{"a":"x","b":[1.5,null]}'
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def root(content: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a manifest's content, but for the root that it states."""
    return hashlib.sha256(
        canonical({name: value for name, value in content.items() if name != "root"})
    ).hexdigest()


# --- what a manifest says ----------------------------------------------------------------------


def describe(synthetic: store.Synthetic, *, pixels: np.ndarray | None = None) -> dict[str, Any]:
    """Returns what a manifest says of a set itself: arrays, classes, normalisation and range.

    Args:
        synthetic: the set.
        pixels: uint8 [k, ipc, h, w, c], where these are kept instead of its images.
    """
    kept = {"images": synthetic.images} if pixels is None else {"pixels": pixels}
    kept |= {name: getattr(synthetic, name) for name in ("labels", "mean", "std")}
    arrays = {
        name: {"dtype": array.dtype.name, "shape": array.shape, "sha256": array_digest(array)}
        for name, array in kept.items()
    }
    return files.to_json({
        "arrays": arrays,
        "classes": classes(synthetic),
        "normalisation": {"mean": synthetic.mean, "std": synthetic.std},
        "range": _range(synthetic),
    })  # fmt: skip


def classes(synthetic: store.Synthetic) -> list[str]:
    """Returns the names of the classes, their numbers where they have none."""
    count = len(synthetic.images)
    names = synthetic.provenance.get("class_names") or ()
    named = isinstance(names, (list, tuple)) and len(names) == count
    return [str(name) for name in (names if named else range(count))]


def _range(synthetic):
    mean, std = (np.float64(x) for x in (synthetic.mean, synthetic.std))
    low, high, images = -mean / std, (1 - mean) / std, synthetic.images
    axes = tuple(range(images.ndim - 1))
    return {
        "low": np.minimum(low, images.min(axis=axes)),
        "high": np.maximum(high, images.max(axis=axes)),
        "outside": ((images < np.float32(low)) | (images > np.float32(high))).mean(),
    }


def described_files(folder: str | os.PathLike, names: Iterable[str]) -> dict[str, Any]:
    """Returns the size and the SHA-256 of those of the named files that are in a folder."""
    paths = {name: pathlib.Path(folder) / name for name in names}
    return {
        name: {"size": path.stat().st_size, "sha256": files.file_digest(path)}
        for name, path in paths.items()
        if path.is_file()
    }


def write(folder: str | os.PathLike, content: Mapping[str, Any]) -> str:
    """Writes manifest.json, whole or not at all, and returns its root.

    Args:
        folder: of the set.
        content: all but schema and root.

    Raises:
        OSError: the disk is full; the old file is intact.
    """
    made = files.to_json({**content, "schema": SCHEMA})
    made["root"] = root(made)
    with files.atomic_path(pathlib.Path(folder) / NAME) as temporary:
        temporary.write_bytes(_text(made))
    return made["root"]


def _text(content):
    return (json.dumps(content, sort_keys=True, indent=1, allow_nan=False) + "\n").encode("ascii")


# --- the manifest of a run ---------------------------------------------------------------------


def keep(folder: str | os.PathLike) -> None:
    """Writes the manifest of a finished run, unless one is there that it agrees with.

    Args:
        folder: of a finished run, whose products are those that it made.

    Raises:
        ValueError: the set or the result is damaged.
    """
    if is_kept(folder):
        return
    synthetic = store.read_synthetic(pathlib.Path(folder) / "synthetic.npz")
    listed = described_files(folder, ("config.json", *store.PRODUCTS))
    told = _told(folder, synthetic.provenance.get("weights"))
    write(folder, {"kind": "run", "parent": None, "files": listed, **describe(synthetic), **told})


def is_kept(folder: str | os.PathLike) -> bool:
    """Returns whether a run has a manifest, and the files and the result that it tells of."""
    folder = pathlib.Path(folder)
    try:
        found = read(folder)
        for name, told in _files(found, folder):
            _verified(folder, name, told)
        _check_result(folder, found)
    except (OSError, ValueError):
        return False
    return True


def _told(folder, weights):
    """What a manifest takes from result.json, and the hash of the weights."""
    result = files.to_json(results.read_result(pathlib.Path(folder) / "result.json"))
    config = result.get("config") or {}
    made = {name: result.get(name) for name in _MADE} | {
        "source": {"name": config.get("dataset"), "blake2b": config.get("data")},
        "method": config.get("own_method") or config.get("method"),
        "debias": config.get("row") or config.get("debias"),
        "weights": weights,
    }
    scores = {name: x for name, x in result.items() if name not in (*_UNSTABLE, *_MADE)}
    return {"provenance": made, "scores": scores}


# --- verification ------------------------------------------------------------------------------


def read(folder: str | os.PathLike, *, expect: str | None = None) -> dict[str, Any]:
    """Returns the content of a manifest that has the root that it states.

    Args:
        folder: of the set.
        expect: the root that it must have.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: it is a link, damaged, of a newer version, or has another root.
    """
    path = pathlib.Path(folder) / NAME
    if expect is not None and not (isinstance(expect, str) and _HASH.fullmatch(expect)):
        raise ValueError(f"expect must be 64 hexadecimal digits in lower case, found {expect!r}")
    if not os.path.lexists(path):
        raise FileNotFoundError(f"{folder} has no {NAME}; {advice(path.parent)}")
    if path.is_symlink() or not path.is_file():
        kind = "a link" if path.is_symlink() else "no file"
        raise ValueError(f"{path} is {kind}, expected a file")
    if (size := path.stat().st_size) > _LARGEST:
        raise ValueError(f"{path} has {size:,} bytes, expected at most {_LARGEST:,}")
    found = files.read_json(path)
    version = found.get("schema") if isinstance(found, dict) else None
    if type(version) is not int or version < 1:
        raise ValueError(f"{path} is no manifest: schema must be a version, found {version!r}")
    if version > SCHEMA:
        raise ValueError(
            f"{path} is of version {version}, newer than version {SCHEMA}, which this jaxdd reads; "
            "use a newer jaxdd"
        )
    _check_root(path, found, expect)
    return found


def advice(folder: pathlib.Path) -> str:
    """Returns where else a set is that a folder does not hold, or how it gets its manifest."""
    if (folder / "rows").is_dir():
        return f"the runs of a comparison are in {folder / 'rows'}"
    return "a finished run gets one by its command with --resume"


def _check_root(path, found, expect):
    try:
        made = root(found)
        sound = made == found.get("root") and _text(found) == path.read_bytes()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no manifest: {error}") from error
    if not sound:
        raise ValueError(
            f"{path} was changed: it does not state its root, {made}, or not as written"
        )
    if expect not in (None, made):
        raise ValueError(f"{path} has the root {made}, expected {expect}")
    if found.get("kind") not in KINDS:
        raise ValueError(f"{path} must be of a kind out of {', '.join(KINDS)}")


def check(folder: str | os.PathLike, *, expect: str | None = None) -> Checked:
    """Verifies a folder by its manifest; nothing but JSON is parsed.

    Args:
        folder: of a run or of an exported set.
        expect: the root that it must have, from somewhere else than the folder.

    Returns:
        The manifest, and the bytes that were verified.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: the manifest is damaged, newer or another; a file is changed, missing, a link
            or not in it; or the result of a run is not what it says.
    """
    folder = pathlib.Path(folder)
    found = read(folder, expect=expect)
    listed = dict(_files(found, folder))
    if missing := [name for name in listed if not os.path.lexists(folder / name)]:
        raise ValueError(f"{folder} lacks {min(missing)}, which its manifest lists")
    uncovered = _others(folder, found["kind"], listed)
    contents = {name: _verified(folder, name, told) for name, told in listed.items()}
    if found["kind"] == "run":
        _check_result(folder, found)
    return Checked(found, contents, uncovered)


def _files(found, folder):
    """The files that a manifest lists, if it may list them."""
    listed = found.get("files")
    if not isinstance(listed, dict) or not listed:
        raise ValueError(f"{folder}/{NAME} must list files, found {listed!r:.80}")
    for name, told in listed.items():
        if not _FILE.fullmatch(name) or name in (NAME, SIGNATURE):
            raise ValueError(f"{folder}/{NAME} lists {name!r}, which is no name of a file of a set")
        if not isinstance(told, dict) or told.keys() != {"size", "sha256"}:
            raise ValueError(f"{folder}/{NAME} must give size and sha256 of {name}")
    return listed.items()


def _verified(folder, name, told):
    """The bytes of a file, if they are those that a manifest tells of."""
    path = folder / name
    if os.path.realpath(path) != os.path.join(os.path.realpath(folder), *name.split("/")):
        raise ValueError(f"{path} is a link, expected a file")
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    if (size := path.stat().st_size) != told["size"]:
        raise ValueError(f"{path} has {size} bytes, its manifest says {told['size']}")
    content = path.read_bytes()
    if (digest := hashlib.sha256(content).hexdigest()) != told["sha256"]:
        raise ValueError(f"{path} has the SHA-256 {digest}, its manifest says {told['sha256']}")
    return content


def _others(folder, kind, listed):
    """The names in a folder that may be beside the files of a set; raises for others."""
    of_run = kind == "run"
    beside, uncovered = _HOSTED | (_BESIDE if of_run else set()), set()
    known = {*listed, NAME, SIGNATURE} | ({"result.json"} if of_run else set())
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] in beside:
            uncovered.add(name.parts[0])
        elif name.as_posix() not in known and (path.is_symlink() or not path.is_dir()):
            raise ValueError(
                f"{folder} holds {name.as_posix()!r}, which its manifest does not list"
            )
    return tuple(sorted(uncovered))


def _check_result(folder, found):
    provenance = found.get("provenance")
    weights = provenance.get("weights") if isinstance(provenance, dict) else None
    told = _told(folder, weights)
    stated = {name: found.get(name) for name in told}
    if told != stated:
        difference = files.differences(stated, told)
        raise ValueError(f"{folder / 'result.json'} is not what the manifest says: {difference}")
