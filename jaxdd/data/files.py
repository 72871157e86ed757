"""Read and write files that appear whole or not at all: JSON, JSON lines and arrays.

Files are written under a temporary name, flushed to the disk and renamed. Files of JSON lines grow
by whole lines.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import pathlib
import secrets
import stat
import time
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "jaxdd"
"""Folder of downloads, and of files that are made from them or slow to read."""

TEMPORARY = ".tmp"
"""Ending of the names of files and folders while they are being written."""

LOCK = ".lock"
"""Ending of the names of locks."""

MAX_UNPACKED_BYTES = 2**30
"""Bytes that the arrays of an .npz file may unpack to, if the file itself is not larger."""

_STALE = 3600  # age in seconds at which a temporary file counts as left by a killed process
_PREFIX = 6 + 2 + 4 + 10_000  # magic, version, length and header of an .npy file, at most


def expand(path: str | os.PathLike) -> pathlib.Path:
    """Return a path with a leading ~ or ~NAME replaced by the home folder."""
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path} is in an unknown home folder") from error


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yield a temporary path in the same folder that replaces `path` when the block succeeds.

    If the block fails, the temporary file is deleted and the old file stays as it was. Missing
    parent folders are made.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        yield temporary
        # Without the flush, a power failure could leave the new name with an empty file.
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
    """Delete the least recently used files of a cache until the others fit a budget.

    Temporary files count towards the budget, but other processes may be writing them, so they are
    deleted only if they have not changed for an hour. Locks and sub-folders are kept.

    Args:
        folder: the cache; it may be absent.
        budget: maximal size in bytes.
    """
    entries = []
    for path in pathlib.Path(folder).glob("*"):
        with contextlib.suppress(OSError):  # deleted or renamed by another process
            status = path.stat()
            if stat.S_ISREG(status.st_mode) and path.suffix != LOCK:
                entries.append((status, path))
    for status, path in sorted(entries, key=lambda entry: -entry[0].st_mtime):
        budget -= status.st_size
        temporary = path.name.endswith(TEMPORARY)
        if time.time() - status.st_mtime > _STALE if temporary else budget < 0:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def hint(remedy: str) -> Iterator[None]:
    """Append a hint to the message of a ValueError raised in the block.

    >>> with hint("delete it and resume"):
    ...     raise ValueError("result.json holds no result")
    Traceback (most recent call last):
    ValueError: result.json holds no result; delete it and resume
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}; {remedy}") from error


# --- JSON --------------------------------------------------------------------------------------


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write a value as indented JSON.

    Args:
        path: the file.
        value: dicts, lists, tuples and NamedTuples of numbers, strings, paths, None, and of NumPy
            or JAX scalars and arrays, which become numbers or nested lists. NaN becomes null.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_json(f"{folder}/result.json", {"accuracy": np.float32([0.5, np.nan])})
    ...     read_json(f"{folder}/result.json")
    {'accuracy': [0.5, None]}
    """
    text = json.dumps(to_json(value), indent=2) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def to_json(value: Any) -> Any:
    """Return a value in the types of JSON; NaN and infinities become None."""
    if isinstance(value, dict):
        return {str(name): to_json(item) for name, item in value.items()}
    if hasattr(value, "_asdict"):
        return to_json(value._asdict())
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        return to_json(np.asarray(value).tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, str):
        return to_utf8(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    raise TypeError(f"expected values that JSON can hold, got {type(value).__name__}: {value!r}")


def to_utf8(text: str) -> str:
    r"""Return text with escapes for surrogates, which UTF-8 cannot encode, as in names of files.

    >>> to_utf8("caf\udce9")
    'caf\\udce9'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def read_json(path: str | os.PathLike) -> Any:
    """Return the value in a JSON file.

    Raises:
        ValueError: the file is not JSON.
    """
    try:
        value = json.loads(pathlib.Path(path).read_bytes())
        # A lone surrogate can be escaped in JSON, but it could not be written again as UTF-8.
        json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError as error:
        raise ValueError(f"{path} is not readable as JSON: it contains half a character") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable as JSON: {error}") from error


def append_line(path: str | os.PathLike, record: dict[str, Any]) -> None:
    """Append a record to a file of JSON lines.

    A last line that a killed process left unfinished is removed first. Missing parent folders are
    made. Only one process at a time may write to the file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     append_line(f"{folder}/progress.jsonl", {"step": 0})
    ...     append_line(f"{folder}/progress.jsonl", {"step": 1})
    ...     read_lines(f"{folder}/progress.jsonl")
    [{'step': 0}, {'step': 1}]
    """
    line, path = json.dumps(to_json(record)) + "\n", pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        file.truncate(_end_of_lines(file))
        file.write(line.encode())


def _end_of_lines(file):
    """Return the length of an open file up to the end of its last finished line."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    if file.read() in (b"", b"\n"):
        return size
    file.seek(0)
    return file.read().rfind(b"\n") + 1


def read_lines(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Return the records in a file of JSON lines; an empty list if it does not exist.

    An unfinished last line is ignored.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    return [_record(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _record(line, where):
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is not readable as JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{where} must be an object, got {record!r}")
    return record


# --- arrays ------------------------------------------------------------------------------------


def write_arrays(path: str | os.PathLike, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays by name as an .npz file; object arrays are rejected."""
    if objects := [name for name, x in arrays.items() if np.asarray(x).dtype.hasobject]:
        raise ValueError(f"arrays must not hold objects, got {objects[0]} for {path}")
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        named: dict[str, Any] = arrays
        np.savez(file, **named)  # its allow_pickle needs NumPy 2.2


def read_arrays(
    path: str | os.PathLike,
    *,
    names: Iterable[str] | None = None,
    no_others: bool = False,
    content: bytes | None = None,
) -> dict[str, np.ndarray]:
    """Return arrays of an .npz file by name, without pickle.

    Before an array is unpacked, its header must agree with the archive, and all together may have
    at most `MAX_UNPACKED_BYTES`, or the size of the file.

    Args:
        path: the file.
        names: names of the arrays; those that the file lacks are left out. Defaults to all.
        no_others: whether to reject a file with other arrays.
        content: content of the file, if it was read before; the path is only used in messages then.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged or too large, or holds an array twice.
    """
    stream = open(path, "rb") if content is None else io.BytesIO(content)
    with stream as file, _named_errors(path, ".npz"):
        limit = max(MAX_UNPACKED_BYTES, file.seek(0, os.SEEK_END))
        with zipfile.ZipFile(file) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
            if len(members) < len(archive.namelist()):
                raise _Unreadable("it holds an array twice")
            wanted = list(members if names is None else names)
            if no_others and (surplus := members.keys() - wanted):
                raise _Unreadable(f"expected {', '.join(wanted)} only, got {min(surplus)}")
            infos = {name: archive.getinfo(members[name]) for name in wanted if name in members}
            # Checked before any allocation, because a small archive can unpack to terabytes.
            if (total := sum(info.file_size for info in infos.values())) > limit:
                raise _Unreadable(f"its arrays must have at most {limit:,} bytes, got {total:,}")
            arrays = {}
            for name, info in infos.items():
                with archive.open(info) as member:
                    arrays[name] = _read_npy(member, name, info.file_size)
            return arrays


def read_array(path: str | os.PathLike) -> np.ndarray:
    """Return the array of an .npy file, without pickle."""
    with open(path, "rb") as file, _named_errors(path, ".npy"):
        return _read_npy(file, "its array", os.fstat(file.fileno()).st_size)


def write_tensors(
    path: str | os.PathLike, arrays: dict[str, np.ndarray], metadata: dict[str, str]
) -> None:
    """Write arrays by name, and texts by name, as a .safetensors file.

    Raises:
        ImportError: the library safetensors is not installed.
    """
    content = _safetensors(path).save(
        {name: np.ascontiguousarray(x) for name, x in arrays.items()}, metadata
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def read_tensors(
    path: str | os.PathLike, *, content: bytes | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays of a .safetensors file by name, and its metadata.

    Args:
        path: the file.
        content: content of the file, if it was read before; the path is only used in messages then.

    Raises:
        FileNotFoundError: the file does not exist.
        ImportError: the library safetensors is not installed.
        ValueError: the file is damaged.
    """
    library = _safetensors(path)
    content = pathlib.Path(path).read_bytes() if content is None else content
    with _named_errors(path, ".safetensors"):
        arrays = {name: x.copy() for name, x in library.load(content).items()}
        # The file begins with the length of a header in JSON, which the library has checked.
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return arrays, header.get("__metadata__", {})


def _safetensors(path):
    try:
        import safetensors.numpy  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(f"{path} needs safetensors: pip install safetensors") from error
    return safetensors.numpy


class _Unreadable(ValueError):
    """An error whose message explains what is wrong, unlike those of NumPy and zipfile."""


@contextlib.contextmanager
def _named_errors(path, kind):
    """Raise ValueError for any error of a damaged file, from zlib.error to NotImplementedError."""
    try:
        yield
    except _Unreadable as error:
        raise ValueError(f"{path} is not a readable {kind} file: {error}") from None
    except Exception as error:
        raise ValueError(f"{path} is not a readable {kind} file") from error


def _read_npy(file, name, size):
    """Read an array after checking that its length agrees with its header."""
    head = io.BytesIO(file.read(_PREFIX))
    version = np.lib.format.read_magic(head)
    shape, _, dtype = getattr(np.lib.format, f"read_array_header_{version[0]}_0")(head)
    if dtype.hasobject:
        raise _Unreadable(f"{name} is an object array, which cannot be read without running code")
    expected = head.tell() + math.prod(shape) * dtype.itemsize
    if size != expected or min(shape, default=0) < 0:
        raise _Unreadable(f"{name} must have {expected:,} bytes by its header, got {size:,}")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def digest(*arrays: np.ndarray | None) -> str:
    """Return a BLAKE2b hash of the bytes of arrays, 32 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=16)
    for array in arrays:
        state.update(b"none" if array is None else np.ascontiguousarray(array).data)
    return state.hexdigest()


def sha256(path: str | os.PathLike) -> str | None:
    """Return the SHA-256 of a file in hexadecimal digits, or None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def differences(stored: dict[str, Any], current: dict[str, Any]) -> str:
    """Return a sentence on the values in which two (nested) dicts differ, or an empty string.

    >>> differences({"ipc": 1, "seed": 0}, {"ipc": 10, "seed": 0})
    'ipc is 1 there and 10 here'
    """
    stored, current = _flat(stored), _flat(current)
    return "; ".join(
        f"{name} is {stored.get(name, 'absent')!r} there and {current.get(name, 'absent')!r} here"
        for name in sorted(stored | current)
        if name not in stored or name not in current or stored[name] != current[name]
    )


def _flat(config, prefix=""):
    flat = {}
    for name, value in config.items():
        is_nested = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{name}.") if is_nested else {prefix + name: value}
    return flat
