"""Disk: the run folder. What a run was asked, how it went, where it stands, what it made.

    config.json      the configuration, compared when a run is resumed
    seconds.json     the time spent on each stage so far
    progress.jsonl   one record per line, appended while the run goes on
    checkpoint/      the newest states, see `jaxdd.runs.folder.checkpoint`
    synthetic.npz    the synthetic set, readable without pickle and without jaxdd
    whitening.npz    what networks see it through, where it was asked for
    result.json      the scores

Every file appears whole or not at all: it is written beside its destination, flushed to the disk
and renamed.
"""

import contextlib
import csv
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import filelock
import numpy as np
from PIL import Image

from jaxdd.data import files

PRODUCTS = ("synthetic.npz", "weights.npz", "choice.json", "whitening.npz")
"""What a run makes, but for its scores and figures."""

WHITENING = "whitening.npz"
"""What networks see the set through, where it was asked for."""

_LITTER = re.compile(r"\.(?!evaluation\.json|profile\.|report\.html).+\.[0-9a-f]{8}\.tmp")

# --- the run -----------------------------------------------------------------------------------


def create(
    folder: str | os.PathLike,
    config: dict[str, Any],
    *,
    resume: bool = False,
    translate: Callable[[dict[str, Any]], dict[str, Any]] = lambda stored: stored,
) -> pathlib.Path:
    """Makes the folder of a run and writes config.json, or checks the folder of a resumed run.

    Args:
        folder: the run folder; absent, empty, or (with `resume`) holding this very run.
        config: the configuration, a dict of JSON values, nested at will.
        resume: continue the run in the folder if there is one.
        translate: from the configuration in the folder to what is compared; for folders of an
            earlier version.

    Returns:
        The folder.

    Raises:
        FileExistsError: the folder holds a run and `resume` is off, or holds other files.
        ValueError: the run in the folder has another configuration, or its config.json is damaged;
            or the folder's name holds a NUL character.
        TypeError: `config` is not a dict of JSON values.
    """
    if not isinstance(config, dict):
        raise TypeError(f"config must be a dict, found {type(config).__name__}")
    if "\0" in os.fspath(folder):
        raise ValueError(f"the name of a run folder must not hold NUL, found {os.fspath(folder)!r}")
    folder, config = files.expand(folder), files.to_json(config)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, expected the folder of a run")
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "config.json").exists():
        _check_same_run(folder, config, resume, translate)
    else:
        _check_empty(folder)
        files.write_json(folder / "config.json", config)
    return folder


@contextlib.contextmanager
def lock(folder: str | os.PathLike) -> Iterator[None]:
    """Keeps other processes out of the folder of a run while a block works in it.

    A process that is killed leaves the folder free.

    Args:
        folder: from `create`.

    Raises:
        BlockingIOError: another process is at work in the folder.
    """
    lock = filelock.FileLock(pathlib.Path(folder) / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise BlockingIOError(
            f"another process is at work in {folder}; wait for it, or choose another --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


def litter(folder: str | os.PathLike) -> list[pathlib.Path]:
    """Returns what killed runs left half-written in a folder and those below it.

    What other commands may be writing there is none of it.
    """
    found = pathlib.Path(folder).rglob(f".*{files.TEMPORARY}")
    return [path for path in found if _LITTER.fullmatch(path.name) and path.is_file()]


def sweep(folder: str | os.PathLike) -> None:
    """Deletes the `litter` in a folder from `create`, which must be locked."""
    for path in litter(folder):
        path.unlink(missing_ok=True)


def digests(folder: str | os.PathLike) -> dict[str, str]:
    """Returns the SHA-256 of each of the `PRODUCTS` in a folder."""
    found = {name: files.file_digest(pathlib.Path(folder) / name) for name in PRODUCTS}
    return {name: digest for name, digest in found.items() if digest is not None}


def lacking(folder: str | os.PathLike, recorded: Mapping[str, str] | None) -> list[str]:
    """Returns the `PRODUCTS` of a finished run that are missing or damaged.

    Args:
        folder: the run folder.
        recorded: what `digests` returned when the run was finished, maybe in shorter digests; None
            for one of an earlier version, whose synthetic set must be readable.
    """
    folder = pathlib.Path(folder)
    if recorded is not None:
        found = lambda name: files.file_digest(folder / name, like=str(recorded[name]))
        return [name for name in PRODUCTS if name in recorded and found(name) != recorded[name]]
    try:
        read_synthetic(folder / "synthetic.npz")
    except (OSError, ValueError):
        return ["synthetic.npz"]
    return []


def _check_empty(folder: pathlib.Path) -> None:
    # What a killed run left while writing its config.json is no reason to refuse.
    others = sorted(p.name for p in folder.iterdir() if not p.name.endswith(files.TEMPORARY))
    if others:
        raise FileExistsError(
            f"{folder} holds no run (no config.json) but other files ({', '.join(others[:3])}); "
            "choose another --out"
        )


def _check_same_run(folder, config, resume, translate) -> None:
    with files.hint("the run cannot be resumed without it, choose another --out"):
        stored = files.read_json(folder / "config.json")
        if not isinstance(stored, dict):
            raise ValueError(f"{folder / 'config.json'} must hold an object, found {stored!r}")
    found = files.differences(translate(stored), config)
    if not resume:
        if found:
            raise FileExistsError(f"{folder} holds another run ({found}); choose another --out")
        raise FileExistsError(
            f"{folder} holds this very run; pass --resume to continue it or choose another --out"
        )
    if found:
        raise ValueError(f"cannot resume {folder} with another configuration: {found}")


def check_set(folder: str | os.PathLike, recorded: Mapping[str, str] | None) -> None:
    """Refuses a synthetic set, or its whitening, that is not the one that a finished run wrote.

    Args:
        folder: the run folder.
        recorded: as in `lacking`.

    Raises:
        ValueError: the set is missing or damaged.
    """
    path = pathlib.Path(folder) / "synthetic.npz"
    with files.hint("its command with --resume makes it again"):
        if recorded is None:
            read_synthetic(path)
        elif wrong := {path.name, WHITENING} & {*lacking(folder, recorded)}:
            path = path.with_name(min(wrong))
            raise ValueError(f"{path} is missing, or not the set that the run wrote")


def check_there(folder: str | os.PathLike) -> None:
    """Refuses to go on in a folder that was deleted, or half of it, instead of making it anew.

    Raises:
        FileNotFoundError: there is no configuration in the folder any more.
    """
    if not (pathlib.Path(folder) / "config.json").exists():
        raise FileNotFoundError(f"{folder} is gone, expected the folder that the run began in")


# --- progress ----------------------------------------------------------------------------------


def append(folder: str | os.PathLike, record: dict[str, Any]) -> None:
    """Adds a record to progress.jsonl, as `files.append_line` does.

    Args:
        folder: the run folder.
        record: a dict of values as in `files.write_json`; those of a loop hold their "step".

    Raises:
        TypeError: a value that JSON cannot hold.
    """
    files.append_line(pathlib.Path(folder) / "progress.jsonl", record)


def progress(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """Returns the records of progress.jsonl, oldest first; none if there is no such file.

    Args:
        folder: the run folder.

    Raises:
        ValueError: a line other than an unfinished last one, which is ignored, is not a record.
    """
    return files.read_lines(pathlib.Path(folder) / "progress.jsonl")


def rewind(folder: str | os.PathLike, step: int) -> None:
    """Drops the records after a step, which a run resumed there will write again.

    Args:
        folder: the run folder.
        step: the last step to keep; records without a "step" are kept.

    Raises:
        ValueError: progress.jsonl is damaged.
    """
    with files.hint("delete it and resume"):
        records = progress(folder)
        for record in records:
            if not isinstance(record.get("step", step), int):
                raise ValueError(f"{folder}/progress.jsonl: step must be a number, found {record}")
    kept = [record for record in records if record.get("step", step) <= step]
    with files.atomic_path(pathlib.Path(folder) / "progress.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))


# --- weights -----------------------------------------------------------------------------------


def read_weights(path: str | os.PathLike, *, count: int) -> np.ndarray:
    """Reads the weights of samples, those of a run or anybody's.

    Args:
        path: .npy; .npz with an array "weights", or a single one; or .csv with a column of numbers,
            under a heading or not, or else with one headed weight or weights.
        count: number of samples.

    Returns:
        `[count]`, floating.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no weights, or those of another number of samples.
    """
    path = pathlib.Path(path)
    try:
        found = _READERS[path.suffix.lower()](path)
        values = np.asarray(found, float)
    except KeyError as error:
        raise ValueError(f"weights must be in .npy, .npz or .csv, found {path}: {error}") from error
    except (TypeError, ValueError, IndexError, csv.Error) as error:
        raise ValueError(f"{path} does not hold weights: {error}") from error
    if values.shape != (count,):
        raise ValueError(
            f"{path} does not hold the weights of {count} samples, found shape {values.shape}"
        )
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(
            f"{path}: weights must be finite and at least 0, found {values.min()}..{values.max()}"
        )
    if values.sum() > np.finfo(np.float32).max:
        raise ValueError(f"{path}: weights must have a sum in float32, found {values.sum()}")
    return values


def _from_npz(path):
    arrays = files.read_arrays(path, names=["weights"]) or files.read_arrays(path)
    if "weights" not in arrays and len(arrays) != 1:
        raise ValueError(f'no array "weights" among {", ".join(arrays) or "none"}')
    return arrays.get("weights", next(iter(arrays.values())))


def _from_csv(path):
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    column = next((head.index(name) for name in ("weight", "weights") if name in head), None)
    if column is None and len(head) != 1:
        raise ValueError(f"no column weight or weights among {', '.join(head) or 'none'}")
    has_heading = column is not None or not _is_number(head[0])
    return [row[column or 0] for row in rows[has_heading:]]


def _is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return True


_READERS = {".npy": files.read_array, ".npz": _from_npz, ".csv": _from_csv}


# --- the synthetic set -------------------------------------------------------------------------


class Synthetic(NamedTuple):
    """A synthetic set of k classes with ipc images each, as it is published.

    Attributes:
        images: float32 [k, ipc, h, w, c], normalised pixels: (pixel - mean) / std, pixel in [0, 1].
        labels: int32 [k, ipc].
        mean: float32 [c], what was subtracted from each channel.
        std: float32 [c], what each channel was divided by.
        provenance: where the set comes from, a dict of JSON values.
    """

    images: np.ndarray
    labels: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    provenance: dict[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, or their numbers if they have no names."""
        count = len(self.images)
        names = self.provenance.get("class_names") or ()
        is_complete = isinstance(names, (list, tuple)) and len(names) == count
        return tuple(str(name) for name in (names if is_complete else range(count)))


def write_synthetic(path: str | os.PathLike, synthetic: Synthetic) -> None:
    """Writes a synthetic set as an .npz file without pickle, whole or not at all.

    The same set gives the same bytes. `provenance` is an array of one JSON string.

    Args:
        path: the file.
        synthetic: the set.

    Raises:
        ValueError: wrong shapes or dtypes, NaN or infinite values, labels that are no class.
        TypeError: provenance that is not a dict of JSON values.
        OSError: the disk is full; the old file is intact.
    """
    if not isinstance(synthetic.provenance, dict):
        raise TypeError(f"provenance must be a dict, found {type(synthetic.provenance).__name__}")
    provenance = np.array(json.dumps(files.to_json(synthetic.provenance)))
    images, labels = np.asarray(synthetic.images), np.asarray(synthetic.labels)
    mean, std = (np.asarray(value, np.float32) for value in (synthetic.mean, synthetic.std))
    arrays = checked(images, labels, mean, std)
    files.write_arrays(path, {**arrays, "provenance": provenance})


def read_synthetic(path: str | os.PathLike, *, content: bytes | None = None) -> Synthetic:
    """Returns the synthetic set in an .npz file.

    Args:
        path: the file.
        content: of the file, where it was read before, as in `files.read_arrays`.

    Returns:
        The set, in NumPy arrays.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, lacks an array, holds another, or one of wrong shape or
            dtype, or other values than it may.
    """
    names = Synthetic._fields
    try:
        stored = files.read_arrays(path, names=names, no_others=True, content=content)
        arrays = checked(*(_native(stored[name]) for name in names[:4]))
        provenance = json.loads(str(stored["provenance"].item()))
        if not isinstance(provenance, dict):
            raise ValueError(f"provenance must be an object, found {provenance!r}")
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a readable synthetic set: {error}") from error
    return Synthetic(**arrays, provenance=provenance)


def _native(array):
    """An array in the byte order of this machine."""
    return np.asarray(array, array.dtype.newbyteorder("="))


def checked(
    images: np.ndarray, labels: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the arrays of a `Synthetic` by name, if they make one.

    Raises:
        ValueError: wrong shapes or dtypes, NaN or infinite values, labels that are no class.
    """
    if images.ndim != 5 or not images.size:
        raise ValueError(f"images must have shape [k, ipc, h, w, c], found {images.shape}")
    expected = {
        "images": (images, np.float32, images.shape),
        "labels": (labels, np.int32, images.shape[:2]),
        "mean": (mean, np.float32, images.shape[-1:]),
        "std": (std, np.float32, images.shape[-1:]),
    }
    for name, (array, dtype, shape) in expected.items():
        if array.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, found {array.shape}")
        if array.dtype != dtype:
            raise ValueError(f"{name} must be {np.dtype(dtype).name}, found {array.dtype.name}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite, found NaN or infinite values")
    k = len(images)
    if not 0 <= labels.min() <= labels.max() < k:
        found = f"{labels.min()}..{labels.max()}"
        raise ValueError(f"labels must lie in 0..{k - 1}, found {found}")
    if (std <= 0).any():
        raise ValueError(f"std must be positive, found {std}")
    return {name: array for name, (array, _, _) in expected.items()}


# --- figures -----------------------------------------------------------------------------------


def picture_size(path: str | os.PathLike) -> tuple[int, int]:
    """Returns width and height of a PNG file whose checksums are right.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or no PNG file.
    """
    with open(path, "rb") as file:
        # A damaged file raises nearly anything, from SyntaxError to zlib.error.
        try:
            with Image.open(file, formats=["PNG"]) as image:
                image.verify()
                return image.size
        except Exception as error:
            raise ValueError(f"{path} is not a readable PNG file") from error


def is_drawn(path: str | os.PathLike) -> bool:
    """Returns whether a figure is there and whole."""
    try:
        return bool(picture_size(path))
    except (OSError, ValueError):
        return False
