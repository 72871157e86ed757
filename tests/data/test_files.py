"""Tests of files that appear whole or not at all."""

import errno
import io
import pathlib
import pickle
import tracemalloc
import zipfile
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd.data import files


def names(folder):
    return sorted(path.name for path in pathlib.Path(folder).iterdir())


class Pair(NamedTuple):
    left: str
    right: list


def test_json_converts_arrays_and_scalars(tmp_path):
    value = {
        "accuracy": np.float32(0.5),
        "steps": jnp.arange(3),
        "low": jnp.asarray(1.5, jnp.bfloat16),
        "nan": float("nan"),
        "array": np.array([1.0, np.inf]),
        "flag": np.bool_(True),
        "path": pathlib.Path("a/b"),
        "pair": (1, None),
        3: Pair("x", []),
    }
    files.write_json(tmp_path / "deep" / "result.json", value)
    assert files.read_json(tmp_path / "deep" / "result.json") == {
        "accuracy": 0.5,
        "steps": [0, 1, 2],
        "low": 1.5,
        "nan": None,
        "array": [1.0, None],
        "flag": True,
        "path": "a/b",
        "pair": [1, None],
        "3": {"left": "x", "right": []},
    }


def test_json_refuses_what_it_cannot_hold(tmp_path):
    files.write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError, match="found set: {1}"):
        files.write_json(tmp_path / "a.json", {"x": {1}})
    assert files.read_json(tmp_path / "a.json") == 1


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\xfa"])
def test_corrupt_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match="a.json is not readable as JSON"):
        files.read_json(tmp_path / "a.json")


def test_full_disk_leaves_the_old_file_and_no_temporary(tmp_path, full_disk):
    path = tmp_path / "a.json"
    path.write_text("1\n")
    with pytest.raises(OSError, match="No space left"):
        files.write_json(path, 2)
    assert names(tmp_path) == ["a.json"] and files.read_json(path) == 1


def test_disk_filling_up_in_mid_write_leaves_the_old_file(tmp_path):
    """Half of the bytes are written, then the disk is full: as seen from inside the block."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"):
        with files.atomic_path(path) as temporary:
            temporary.write_bytes(b"ne")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == ["a.bin"] and path.read_bytes() == b"old"


def test_file_keeps_the_usual_permissions(tmp_path):
    """Results are shared: a temporary file readable only by its owner must not become one."""
    (tmp_path / "usual").touch()
    files.write_json(tmp_path / "a.json", 1)
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_half_a_character_in_json_is_named(tmp_path):
    """A lone surrogate, which no file in UTF-8 can hold."""
    (tmp_path / "a.json").write_text('{"a": "\\ud800"}')
    with pytest.raises(ValueError, match="a.json is not .* JSON: it holds half a character"):
        files.read_json(tmp_path / "a.json")


# --- arrays ------------------------------------------------------------------------------------

ARRAYS = {"x": np.arange(6.0).reshape(2, 3), "word": np.array("é"), "none": np.zeros((0, 3), bool)}


def member(array, *, claimed=None):
    """An array as .npy, under a header that may claim another shape."""
    stream = io.BytesIO()
    if claimed is None:
        np.save(stream, array)
    else:
        head = dict(shape=claimed, fortran_order=False, descr=array.dtype.str)
        np.lib.format.write_array_header_1_0(stream, head)
        stream.write(array.tobytes())
    return stream.getvalue()


def test_arrays_that_were_asked_for(tmp_path):
    path = tmp_path / "a.npz"
    files.write_arrays(path, files.sealed(ARRAYS))
    for found, names in (
        (files.read_arrays(path), {*ARRAYS}),
        (files.read_arrays(path, names=["x", "absent"], must_be_sealed=True), {"x"}),
    ):
        assert found.keys() == names
        for name in names:
            assert found[name].dtype == ARRAYS[name].dtype
            np.testing.assert_array_equal(found[name], ARRAYS[name])


@pytest.mark.parametrize("other", [np.zeros((2, 3)), ARRAYS["x"].T, ARRAYS["x"].astype(np.int64)])
def test_other_arrays_than_those_that_were_sealed(tmp_path, other):
    """Of other values, another shape or type, in a file that is whole."""
    np.savez(tmp_path / "a.npz", **(files.sealed(ARRAYS) | {"x": other}))
    with pytest.raises(ValueError, match="a.npz is not .*: x is not what its digest says"):
        files.read_arrays(tmp_path / "a.npz")
    assert files.read_arrays(tmp_path / "a.npz", names=["word"]) == {"word": ARRAYS["word"]}


def test_an_array_that_was_sealed_must_be_there(tmp_path):
    arrays = files.sealed(ARRAYS)
    del arrays["x"]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match="a.npz is not .*: x is missing"):
        files.read_arrays(tmp_path / "a.npz", names=["word"])


@pytest.mark.parametrize(
    "members, match",
    [
        ({"x": member(np.zeros((9, 9)), claimed=(9, 8))}, "x has 776 bytes, .* says 704"),
        ({"x": member(np.zeros(9), claimed=(-1,))}, "x has 200 bytes, but its header says"),
        ({"x": member(np.array([print]))}, "Object arrays cannot be read .*: x is one"),
        ({"x": member(np.zeros(400))}, "its arrays have 3,328 bytes, expected at most 2,000"),
        ({"x": b"text"}, "a.npz is not a readable .npz file$"),
        ({"x": member(np.zeros(9))[:70]}, "a.npz is not a readable .npz file$"),
    ],
    ids=["longer", "negative", "pickle", "bomb", "text", "cut"],
)
def test_archives_that_are_not_unpacked(tmp_path, monkeypatch, members, match):
    monkeypatch.setattr(files, "MAX_UNPACKED_BYTES", 2000)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    with pytest.raises(ValueError, match=match):
        files.read_arrays(tmp_path / "a.npz")


def test_what_is_not_asked_for_is_not_unpacked(tmp_path):
    """A surplus member of 100 MB, and one whose header claims 12 GB."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", member(np.zeros(3)))
        archive.writestr("surplus.npy", bytes(10**8))
        archive.writestr("lie.npy", member(np.zeros(10**6), claimed=(1_600_000_000,)))
    tracemalloc.start()
    try:
        assert files.read_arrays(tmp_path / "a.npz", names=["x"])["x"].tolist() == [0, 0, 0]
        with pytest.raises(ValueError, match="lie has 8,000,128 bytes, .* says 12,800,000,128"):
            files.read_arrays(tmp_path / "a.npz", names=["lie"])
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("read", [files.read_arrays, files.read_array])
@pytest.mark.parametrize("content", [b"", b"PK", pickle.dumps([1])], ids=["empty", "cut", "pickle"])
def test_what_holds_no_arrays_is_named_without_advice_to_unpickle(tmp_path, read, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=r"a is not a readable \.np[yz] file$"):
        read(tmp_path / "a")


# --- rows that are mapped ----------------------------------------------------------------------


def write_rows(path, *blocks, **facts):
    with files.row_writer(path, (2, 3), facts) as add:
        for block in blocks:
            add(block)


BLOCKS = [np.full((n, 2, 3), n % 256, np.uint8) for n in (4, 1, 0, 300)]


def test_rows_are_a_map_of_numpys(tmp_path):
    """Of 305 rows, a number with more digits than the header had when it was begun."""
    write_rows(tmp_path / "a.npy", *BLOCKS, of="x")
    rows, facts = files.read_rows(tmp_path / "a.npy")
    assert isinstance(rows, np.memmap) and not rows.flags.writeable and facts == {"of": "x"}
    np.testing.assert_array_equal(rows, np.concatenate(BLOCKS))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), rows)
    assert names(tmp_path) == ["a.json", "a.npy"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda rows, told: rows.write_bytes(rows.read_bytes()[:-1] + b"x"),
        lambda rows, told: rows.write_bytes(rows.read_bytes()[:-6]),
        lambda rows, told: np.save(rows, np.concatenate(BLOCKS)[:, :1]),
        lambda rows, told: np.save(rows, np.concatenate(BLOCKS).astype(np.int8)),
        lambda rows, told: told.write_text("{}"),
        lambda rows, told: told.write_text("text"),
    ],
    ids=["byte", "cut", "shape", "type", "empty", "text"],
)
def test_rows_that_were_not_written_so(tmp_path, damage):
    write_rows(tmp_path / "a.npy", *BLOCKS)
    damage(tmp_path / "a.npy", tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"a\.(npy is not a readable|json is not readable)"):
        files.read_rows(tmp_path / "a.npy")


@pytest.mark.parametrize("missing", ["a.npy", "a.json"])
def test_rows_that_are_not_there(tmp_path, missing):
    write_rows(tmp_path / "a.npy", *BLOCKS)
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError):
        files.read_rows(tmp_path / "a.npy")


def test_rows_that_were_not_finished_leave_the_old_ones(tmp_path):
    write_rows(tmp_path / "a.npy", BLOCKS[0])
    with pytest.raises(ZeroDivisionError):
        with files.row_writer(tmp_path / "a.npy", (2, 3), {}) as add:
            add(BLOCKS[1])
            raise ZeroDivisionError
    assert files.read_rows(tmp_path / "a.npy")[0].tolist() == BLOCKS[0].tolist()
    assert names(tmp_path) == ["a.json", "a.npy"]


def test_rows_are_not_held_in_memory(tmp_path):
    """Twelve megabytes in blocks of a quarter."""
    block = np.zeros((100, 50, 50), np.uint8)
    tracemalloc.start()
    try:
        with files.row_writer(tmp_path / "a.npy", (50, 50), {}) as add:
            for _ in range(48):
                add(block)
        rows, _ = files.read_rows(tmp_path / "a.npy")
        assert rows.shape == (4800, 50, 50)
        assert tracemalloc.get_traced_memory()[1] < 4 * 10**6
    finally:
        tracemalloc.stop()


def test_what_was_left_is_swept_up_and_locks_stay(tmp_path):
    for name in (".a-1.npy.ff.tmp", ".a-2.json.ff.tmp", ".b-1.npy.ff.tmp", "a-1.npy", "a.lock"):
        (tmp_path / name).write_text("text")
    files.sweep(tmp_path, "a")
    assert names(tmp_path) == [".b-1.npy.ff.tmp", "a-1.npy", "a.lock"]
    files.prune(tmp_path, -1)
    assert names(tmp_path) == ["a.lock"]


# --- lines -------------------------------------------------------------------------------------


def test_lines_begin_a_folder_and_hold_what_json_holds(tmp_path):
    path = tmp_path / "deep" / "cells.jsonl"
    assert files.read_lines(path) == []
    files.append_line(path, {"cell": "a", "mean": np.float32(0.5), "std": float("nan")})
    assert path.read_text() == '{"cell": "a", "mean": 0.5, "std": null}\n'


def test_what_json_cannot_hold_adds_no_line(tmp_path):
    files.append_line(tmp_path / "cells.jsonl", {"cell": "a"})
    with pytest.raises(TypeError, match="found set: {1}"):
        files.append_line(tmp_path / "cells.jsonl", {"cell": {1}})
    assert files.read_lines(tmp_path / "cells.jsonl") == [{"cell": "a"}]
