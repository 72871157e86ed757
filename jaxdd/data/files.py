"""Files that appear whole or not at all: JSON, arrays, and anything else written by a path.

They are written beside their destination, flushed to the disk and renamed; files of JSON lines grow
by whole lines. Rows that need not fit memory are NumPy's .npy, which is mapped, with digests beside
it in JSON.
"""

import contextlib
import glob
import hashlib
import io
import itertools
import json
import math
import os
import pathlib
import secrets
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "jaxdd"
"""Where downloads are kept, and what was made of them or took long to read."""

TEMPORARY = ".tmp"
"""How the names of files and folders end while they are being written."""

LOCK = ".lock"
"""How the names of locks end."""

MAX_UNPACKED_BYTES = 2**30
"""Bytes that the arrays of an .npz file may unpack to, or as many as the file has."""

_ABSENT = "absent"
_SEAL = "blake2b"  # the array in an .npz file that holds the digests of the others
_PREFIX = 6 + 2 + 4 + 10_000  # magic, version, length and header of an .npy file, at most


def expand(path: str | os.PathLike) -> pathlib.Path:
    """Returns a path whose leading ~ or ~NAME is a home folder.

    Raises:
        ValueError: there is no such home.
    """
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path} is in a home folder that is not known here") from error


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
    """Deletes the files of a cache that were touched first, until the others fit a budget.

    What killed processes left half-written is deleted as well, after an hour. Locks stay.

    Args:
        folder: of the files; those in folders below it stay. It may be absent.
        budget: in bytes.
    """
    found = [path for path in pathlib.Path(folder).glob("*") if path.suffix != LOCK]
    files = [(path.stat(), path) for path in found if path.is_file()]
    for status, path in sorted(files, key=lambda entry: -entry[0].st_mtime):
        budget -= status.st_size
        stale = path.name.endswith(TEMPORARY) and time.time() - status.st_mtime > 3600
        if budget < 0 or stale:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def hint(remedy: str) -> Iterator[None]:
    """Adds to what a block refuses what can be done about it.

    Raises:
        ValueError: as the block, with the remedy.

    >>> with hint("delete it and resume"):
    ...     raise ValueError("result.json holds no result")
    Traceback (most recent call last):
    ValueError: result.json holds no result; delete it and resume
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}; {remedy}") from error


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a value as indented JSON, whole or not at all.

    Args:
        path: the file.
        value: dicts, lists, tuples and NamedTuples of numbers, strings, paths, None, and of NumPy
            or JAX scalars and arrays, which become (nested lists of) numbers. NaN becomes null.

    Raises:
        TypeError: a value that JSON cannot hold.
        OSError: the disk is full; the old file is intact.

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
    """Returns `value` in the types of JSON; NaN and infinities, which JSON lacks, become None."""
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
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise TypeError(f"expected values that JSON can hold, found {type(value).__name__}: {value!r}")


def read_json(path: str | os.PathLike) -> Any:
    """Returns the value in a JSON file.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not JSON.
    """
    try:
        found = json.loads(pathlib.Path(path).read_bytes())
        json.dumps(found, ensure_ascii=False).encode()
        return found
    except UnicodeEncodeError as error:
        raise ValueError(f"{path} is not readable as JSON: it holds half a character") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable as JSON: {error}") from error


def append_line(path: str | os.PathLike, record: dict[str, Any]) -> None:
    """Adds a record to a file of JSON lines, visible to other processes on return.

    A last line that a killed process left unfinished is removed first. Missing parent folders are
    made.

    Args:
        path: the file, which one process at a time may write to.
        record: a dict of values as in `write_json`.

    Raises:
        TypeError: a value that JSON cannot hold.

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


def _end_of_lines(file: Any) -> int:
    """Returns the length of an open file up to the end of its last finished line."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    if file.read() in (b"", b"\n"):
        return size
    file.seek(0)
    return file.read().rfind(b"\n") + 1


def read_lines(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Returns the records in a file of JSON lines, oldest first; none if there is no such file.

    Args:
        path: the file.

    Raises:
        ValueError: a line other than an unfinished last one, which is ignored, is not a record.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    return [_record(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _record(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is not readable as JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{where} must hold an object, found {record!r}")
    return record


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


def sealed(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns arrays with one more, the digests by which `read_arrays` knows them again."""
    seal = json.dumps({name: _fingerprint(array) for name, array in arrays.items()})
    return arrays | {_SEAL: np.array(seal)}


def read_arrays(
    path: str | os.PathLike,
    *,
    names: Iterable[str] | None = None,
    no_others: bool = False,
    must_be_sealed: bool = False,
    content: bytes | None = None,
) -> dict[str, np.ndarray]:
    """Returns arrays of an .npz file by name, without pickle.

    Only what is asked for is unpacked, and nothing before the sizes are known: those in the headers
    of the arrays must be those of the archive, together at most `MAX_UNPACKED_BYTES`, or the size of the
    file. Arrays that were `sealed` must have their digests.

    Args:
        path: the file.
        names: of the arrays; those that the file lacks are left out. All by default.
        no_others: whether a file that holds anything beside them is refused.
        must_be_sealed: whether arrays without a digest are refused.
        content: of the file, where it was read and verified before; the path only names it then.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or too large, or holds an array twice.
    """
    with open(path, "rb") if content is None else io.BytesIO(content) as file:
        # A damaged zip file raises nearly anything, from zlib.error to NotImplementedError.
        try:
            limit = max(MAX_UNPACKED_BYTES, file.seek(0, os.SEEK_END))
            with zipfile.ZipFile(file) as archive:
                held = _held(archive)
                asked = list(held if names is None else names)
                if no_others and (surplus := held.keys() - asked):
                    raise _Refused(f"it holds {min(surplus)}, expected {', '.join(asked)} alone")
                return _unpacked(archive, held, asked, must_be_sealed, limit)
        except _Refused as error:
            raise ValueError(f"{path} is not a readable .npz file: {error}") from None
        except Exception as error:
            raise ValueError(f"{path} is not a readable .npz file") from error


def read_array(path: str | os.PathLike) -> np.ndarray:
    """Returns the array of an .npy file, without pickle.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged.
    """
    with open(path, "rb") as file:
        try:
            _check_header(file, "its array", os.fstat(file.fileno()).st_size)
            return np.lib.format.read_array(file, allow_pickle=False)
        except _Refused as error:
            raise ValueError(f"{path} is not a readable .npy file: {error}") from None
        except Exception as error:
            raise ValueError(f"{path} is not a readable .npy file") from error


@contextlib.contextmanager
def row_writer(
    path: str | os.PathLike, shape: tuple[int, ...], facts: dict[str, Any]
) -> Iterator[Callable[[np.ndarray], None]]:
    """Yields a function that adds rows to an .npy file, which appears when the block succeeds.

    Rows are written, not mapped, so that memory holds none of them and a full disk is an error and
    no signal. The digests of what was added appear last, in a file of JSON beside it; rows without
    them are those of a writer that was killed.

    Args:
        path: the file, whose name ends in .npy.
        shape: of a row.
        facts: what else is kept beside the digests, as in `write_json`; the block may add some.

    Yields:
        add(rows), of uint8 [b, *shape], any number of times.

    Raises:
        OSError: the disk is full; the old files are intact.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with row_writer(f"{folder}/a.npy", (2,), {"of": "a"}) as add:
    ...         add(np.uint8([[1, 2]]))
    ...         add(np.uint8([[3, 4], [5, 6]]))
    ...     rows, facts = read_rows(f"{folder}/a.npy")
    >>> type(rows).__name__, rows.tolist(), facts
    ('memmap', [[1, 2], [3, 4], [5, 6]], {'of': 'a'})
    """
    parts = []
    with atomic_path(path) as temporary, open(temporary, "wb") as file:

        def add(rows):
            file.write(np.ascontiguousarray(rows, np.uint8).data)
            parts.append((len(rows), digest(rows)))

        _write_header(file, (0, *shape))
        yield add
        file.seek(0)
        _write_header(file, (sum(count for count, _ in parts), *shape))
    write_json(_beside(path), {"shape": shape, "parts": parts, "facts": facts})
    touch_rows(path)


def read_rows(path: str | os.PathLike) -> tuple[np.memmap, dict[str, Any]]:
    """Maps the rows that a `row_writer` wrote into memory, once they have their digests.

    Args:
        path: the file.

    Returns:
        The rows, read-only, and what was kept with them.

    Raises:
        FileNotFoundError: there is no such file, or no digests beside it.
        ValueError: the rows or the digests are damaged.
    """
    told = read_json(_beside(path))
    try:
        rows = np.lib.format.open_memmap(path, mode="r")
        counts, digests = zip(*told["parts"], strict=True)
        if rows.dtype != np.uint8 or rows.shape != (sum(counts), *told["shape"]):
            raise _Refused(f"it holds {rows.dtype} {rows.shape}, which was not written")
        size = math.prod(rows.shape[1:])
        starts = [rows.offset + size * first for first in itertools.accumulate(counts, initial=0)]

        def is_whole(start, end, expected):
            # Not by the map, whose pages would count as memory of this process.
            return digest(np.fromfile(path, np.uint8, end - start, offset=start)) == expected

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            if not all(pool.map(is_whole, starts, starts[1:], digests)):
                raise _Refused("its rows are not what their digests say")
        return rows, told["facts"]
    except FileNotFoundError:
        raise
    except _Refused as error:
        raise ValueError(f"{path} is not a readable .npy file: {error}") from None
    except Exception as error:
        raise ValueError(f"{path} is not a readable .npy file") from error


def touch_rows(path: str | os.PathLike) -> None:
    """Marks rows as used last, for `prune`, and their digests just before, so that both go."""
    os.utime(_beside(path))
    os.utime(path)


def sweep(folder: str | os.PathLike, name: str) -> None:
    """Deletes what killed processes left of files whose names begin with `name`.

    Only for who holds a lock against those that write such files now.
    """
    for path in pathlib.Path(folder).glob(f".{glob.escape(name)}*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def _write_header(file, shape):
    """Of the same length for any number of rows, for which NumPy leaves room."""
    head = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, head)


def _beside(path):
    return pathlib.Path(path).with_suffix(".json")


class _Refused(ValueError):
    """What can be said of a file; other errors are those of the libraries that read it."""


def _held(archive):
    """The members of an archive by the names of their arrays."""
    names = archive.namelist()
    held = {name.removesuffix(".npy"): name for name in names}
    if len(held) < len(names):
        raise _Refused("it holds an array twice")
    return held


def _unpacked(archive, held, asked, must_be_sealed, limit):
    seal = json.loads(str(_members(archive, held, [_SEAL], 2**20).get(_SEAL, "{}")))
    if lacking := seal.keys() - held.keys():
        raise _Refused(f"{min(lacking)} is missing")
    found = _members(archive, held, [name for name in asked if name != _SEAL], limit)
    for name, array in found.items():
        if (name in seal or must_be_sealed) and seal.get(name) != _fingerprint(array):
            raise _Refused(f"{name} is not what its digest says")
    return found


def _members(archive, held, names, limit):
    """The arrays of these names that an archive holds, if they fit a number of bytes."""
    infos = {name: archive.getinfo(held[name]) for name in names if name in held}
    if (total := sum(info.file_size for info in infos.values())) > limit:
        raise _Refused(f"its arrays have {total:,} bytes, expected at most {limit:,}")
    found = {}
    for name, info in infos.items():
        with archive.open(info) as member:
            _check_header(member, name, info.file_size)
            found[name] = np.lib.format.read_array(member, allow_pickle=False)
    return found


def _check_header(file, name, size):
    """Refuses an array that is not as long as its header says, and goes back to its beginning."""
    head = io.BytesIO(file.read(_PREFIX))
    version = np.lib.format.read_magic(head)
    read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
    shape, _, dtype = read(head)
    if dtype.hasobject:
        raise _Refused(f"Object arrays cannot be read without running code: {name} is one")
    expected = head.tell() + math.prod(shape) * dtype.itemsize
    if size != expected or min(shape, default=0) < 0:
        raise _Refused(f"{name} has {size:,} bytes, but its header says {expected:,}")
    file.seek(0)


def _fingerprint(array):
    head = np.frombuffer(f"{array.dtype.str} {array.shape}".encode(), np.uint8)
    return digest(head, np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def digest(*arrays: np.ndarray | None) -> str:
    """Returns 32 hexadecimal digits that tell the bytes of some arrays from those of others."""
    state = hashlib.blake2b(digest_size=16)
    for array in arrays:
        state.update(b"none" if array is None else np.ascontiguousarray(array).data)
    return state.hexdigest()


def file_digest(path: str | os.PathLike, *, like: str = "") -> str | None:
    """Returns the SHA-256 of a file in hexadecimal digits, None if it cannot be read.

    Args:
        path: the file.
        like: what it will be compared with; 32 digits are BLAKE2b's, as they were kept before.
    """
    short = lambda: hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, short if len(like) == 32 else "sha256").hexdigest()
    except OSError:
        return None


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
