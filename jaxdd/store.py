"""Layer 3, disk: the run folder. What a run was asked, how it went, where it stands, what it made.

    config.json      the configuration, compared when a run is resumed
    seconds.json     the time spent on each stage so far
    progress.jsonl   one record per line, appended while the run goes on
    checkpoint/      the newest states, see `jaxdd.checkpoint`
    synthetic.npz    the synthetic set, readable without pickle and without jaxdd
    result.json      the scores

Every file appears whole or not at all: it is written beside its destination, flushed to the disk
and renamed.
"""

import contextlib
import json
import math
import os
import pathlib
import secrets
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import filelock
import jax
import numpy as np

TEMPORARY = ".tmp"
"""How the names of files and folders end while they are being written."""

_ABSENT = "absent"

# --- files -------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path` that takes its place when the block succeeds.

    The temporary file is flushed to the disk and renamed; if the block, the flush or the rename
    fails, it is removed and the old file stays as it was. Missing parent folders are made.

    Args:
      path: the destination.

    Yields:
      The path to write to. Its suffix is not that of `path`.

    Raises:
      OSError: the disk is full, or the folder cannot be written to.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def prune(folder: str | os.PathLike, budget: int) -> None:
    """Deletes the files of a cache that were written or touched first, until the others fit a budget.

    What killed processes left half-written is deleted as well, after an hour.

    Args:
      folder: of the files; those in folders below it stay. It may be absent.
      budget: in bytes.
    """
    files = [(path.stat(), path) for path in pathlib.Path(folder).glob("*") if path.is_file()]
    for status, path in sorted(files, key=lambda entry: -entry[0].st_mtime):
        budget -= status.st_size
        stale = path.name.endswith(TEMPORARY) and time.time() - status.st_mtime > 3600
        if budget < 0 or stale:
            path.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """Returns `value` in the types of JSON; NaN and infinities, which JSON lacks, become None."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise TypeError(f"expected values that JSON can hold, found {type(value).__name__}: {value!r}")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a value as indented JSON, whole or not at all.

    Args:
      path: the file.
      value: dicts, lists, tuples and NamedTuples of numbers, strings, paths, None, and of NumPy or
        JAX scalars and arrays, which become (nested lists of) numbers. NaN becomes null.

    Raises:
      TypeError: a value that JSON cannot hold.
      OSError: the disk is full; the old file is intact.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_json(f"{folder}/result.json", {"accuracy": np.float32([0.5, np.nan])})
    ...     read_json(f"{folder}/result.json")
    {'accuracy': [0.5, None]}
    """
    text = json.dumps(_plain(value), indent=2) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | os.PathLike) -> Any:
    """Returns the value in a JSON file.

    Args:
      path: the file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not JSON.
    """
    try:
        return json.loads(pathlib.Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable as JSON: {error}") from error


# --- the run -----------------------------------------------------------------------------------


def create(
    folder: str | os.PathLike, config: dict[str, Any], *, resume: bool = False
) -> pathlib.Path:
    """Makes the folder of a run and writes config.json, or checks the folder of a resumed run.

    Args:
      folder: the run folder; absent, empty, or (with `resume`) holding this very run.
      config: the configuration, a dict of JSON values, nested at will.
      resume: continue the run in the folder if there is one.

    Returns:
      The folder.

    Raises:
      FileExistsError: the folder holds a run and `resume` is off, or holds other files.
      ValueError: the run in the folder has another configuration, or its config.json is damaged.
      TypeError: `config` is not a dict of JSON values.
    """
    if not isinstance(config, dict):
        raise TypeError(f"config must be a dict, found {type(config).__name__}")
    folder, config = pathlib.Path(folder).expanduser(), _plain(config)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, expected the folder of a run")
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "config.json").exists():
        _check_same_run(folder, config, resume)
    else:
        _check_empty(folder)
        write_json(folder / "config.json", config)
    return folder


@contextlib.contextmanager
def alone(folder: str | os.PathLike) -> Iterator[None]:
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


def _check_empty(folder: pathlib.Path) -> None:
    # What a killed run left while writing its config.json is no reason to refuse.
    others = sorted(p.name for p in folder.iterdir() if not p.name.endswith(TEMPORARY))
    if others:
        raise FileExistsError(
            f"{folder} holds no run (no config.json) but other files ({', '.join(others[:3])}); "
            "choose another --out"
        )


def _check_same_run(folder: pathlib.Path, config: dict[str, Any], resume: bool) -> None:
    stored = read_json(folder / "config.json")
    if not isinstance(stored, dict):
        raise ValueError(f"{folder / 'config.json'} must hold an object, found {stored!r}")
    found = differences(stored, config)
    if not resume:
        if found:
            raise FileExistsError(f"{folder} holds another run ({found}); choose another --out")
        raise FileExistsError(
            f"{folder} holds this very run; pass --resume to continue it or choose another --out"
        )
    if found:
        raise ValueError(f"cannot resume {folder} with another configuration: {found}")


def differences(stored: dict[str, Any], given: dict[str, Any]) -> str:
    """Returns a sentence on the values in which two (nested) dicts differ, "" if they do not.

    >>> differences({"ipc": 1, "seed": 0}, {"ipc": 10, "seed": 0})
    'ipc is 1 there and 10 here'
    """
    stored, given = _flat(stored), _flat(given)
    return "; ".join(
        f"{name} is {stored.get(name, _ABSENT)!r} there and {given.get(name, _ABSENT)!r} here"
        for name in sorted(stored | given)
        if name not in stored or name not in given or stored[name] != given[name]
    )


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


# --- progress ----------------------------------------------------------------------------------


def append(folder: str | os.PathLike, record: dict[str, Any]) -> None:
    """Adds a record to progress.jsonl, visible to other processes on return.

    A last line that a killed run left unfinished is removed first.

    Args:
      folder: the run folder.
      record: a dict of values as in `write_json`; those of a loop hold their "step".

    Raises:
      TypeError: a value that JSON cannot hold.
    """
    line = json.dumps(_plain(record)) + "\n"
    path = pathlib.Path(folder) / "progress.jsonl"
    with open(path, "ab+") as file:
        file.truncate(_end_of_lines(file))
        file.write(line.encode())


def _end_of_lines(file: Any) -> int:
    """Returns the length of an open file up to the end of its last finished line."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    if file.read() in (b"", b"\n"):
        return size
    file.seek(0)
    return file.read().rfind(b"\n") + 1


def progress(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """Returns the records of progress.jsonl, oldest first; none if there is no such file.

    Args:
      folder: the run folder.

    Raises:
      ValueError: a line other than an unfinished last one, which is ignored, is not a record.
    """
    path = pathlib.Path(folder) / "progress.jsonl"
    if not path.exists():
        return []
    finished, _, _ = path.read_bytes().rpartition(b"\n")
    lines = finished.split(b"\n") if finished else []
    return [_record(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _record(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is not readable as JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{where} must hold an object, found {record!r}")
    return record


def rewind(folder: str | os.PathLike, step: int) -> None:
    """Drops the records after a step, which a run resumed there will write again.

    Args:
      folder: the run folder.
      step: the last step to keep; records without a "step" are kept.

    Raises:
      ValueError: progress.jsonl is damaged.
    """
    records = progress(folder)
    for record in records:
        if not isinstance(record.get("step", step), int):
            raise ValueError(f"{folder}/progress.jsonl: step must be a number, found {record}")
    kept = [record for record in records if record.get("step", step) <= step]
    with atomic_path(pathlib.Path(folder) / "progress.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))


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

    images: jax.Array
    labels: jax.Array
    mean: jax.Array
    std: jax.Array
    provenance: dict[str, Any]


def write_synthetic(path: str | os.PathLike, synthetic: Synthetic) -> None:
    """Writes a synthetic set as an .npz file without pickle, whole or not at all.

    The same set gives the same bytes. `provenance` is an array of one JSON string.

    Args:
      path: the file.
      synthetic: the set.

    Raises:
      ValueError: wrong shapes or dtypes, NaN or infinite values.
      TypeError: provenance that is not a dict of JSON values.
      OSError: the disk is full; the old file is intact.
    """
    if not isinstance(synthetic.provenance, dict):
        raise TypeError(f"provenance must be a dict, found {type(synthetic.provenance).__name__}")
    provenance = np.array(json.dumps(_plain(synthetic.provenance)))
    images, labels = np.asarray(synthetic.images), np.asarray(synthetic.labels)
    mean, std = (np.asarray(value, np.float32) for value in (synthetic.mean, synthetic.std))
    arrays = _checked(images, labels, mean, std)
    write_arrays(path, {**arrays, "provenance": provenance})


def read_synthetic(path: str | os.PathLike) -> Synthetic:
    """Returns the synthetic set in an .npz file.

    Args:
      path: the file.

    Returns:
      The set, in NumPy arrays.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, lacks an array, or holds one of wrong shape or dtype.
    """
    try:
        stored = read_arrays(path)
        arrays = _checked(*(stored[name] for name in Synthetic._fields[:4]))
        provenance = json.loads(str(stored["provenance"]))
        if not isinstance(provenance, dict):
            raise ValueError(f"provenance must be an object, found {provenance!r}")
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a readable synthetic set: {error}") from error
    return Synthetic(**arrays, provenance=provenance)


def write_arrays(path: str | os.PathLike, arrays: dict[str, np.ndarray]) -> None:
    """Writes named arrays as an .npz file, whole or not at all.

    Args:
      path: the file.
      arrays: what is stored under which name; no object arrays.

    Raises:
      OSError: the disk is full; the old file is intact.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Returns all arrays of an .npz file by name, without pickle.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged.
    """
    with open(path, "rb") as file:
        # A damaged zip file raises nearly anything, from zlib.error to NotImplementedError.
        try:
            with np.load(file, allow_pickle=False) as stored:
                return dict(stored)
        except Exception as error:
            raise ValueError(f"{path} is not a readable .npz file: {error}") from error


def _checked(
    images: np.ndarray, labels: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the arrays by name if they make a synthetic set."""
    if images.ndim != 5:
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
    if (std <= 0).any():
        raise ValueError(f"std must be positive, found {std}")
    return {name: array for name, (array, _, _) in expected.items()}
