"""Files appear whole or not at all, and damaged ones are rejected."""

import errno
import io
import os
import pathlib
import pickle
import sys
import time
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


def test_json_rejects_other_types(tmp_path):
    files.write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError, match="set: {1}"):
        files.write_json(tmp_path / "a.json", {"x": {1}})
    assert files.read_json(tmp_path / "a.json") == 1


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\xfa"])
def test_corrupt_json_is_reported(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match="a.json is not readable as JSON"):
        files.read_json(tmp_path / "a.json")


def test_full_disk_leaves_the_old_file_and_no_temporary(tmp_path, full_disk):
    path = tmp_path / "a.json"
    path.write_text("1\n")
    with pytest.raises(OSError, match="No space left"):
        files.write_json(path, 2)
    assert names(tmp_path) == ["a.json"] and files.read_json(path) == 1


def test_a_disk_that_fills_up_while_writing_leaves_the_old_file(tmp_path):
    """The disk is full after half of the bytes have been written inside the block."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"):
        with files.atomic_path(path) as temporary:
            temporary.write_bytes(b"ne")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == ["a.bin"] and path.read_bytes() == b"old"


def test_file_keeps_the_usual_permissions(tmp_path):
    """The permissions of a temporary file, readable only by its owner, are not kept."""
    (tmp_path / "usual").touch()
    files.write_json(tmp_path / "a.json", 1)
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_half_a_character_in_json_is_reported(tmp_path):
    """A lone surrogate cannot be written as UTF-8."""
    (tmp_path / "a.json").write_text('{"a": "\\ud800"}')
    with pytest.raises(ValueError, match="a.json is not .*half a character"):
        files.read_json(tmp_path / "a.json")


# --- arrays ------------------------------------------------------------------------------------

ARRAYS = {"x": np.arange(6.0).reshape(2, 3), "word": np.array("é"), "none": np.zeros((0, 3), bool)}


def member(array, *, claimed=None):
    """Return the bytes of an .npy file whose header may state another shape than its array."""
    stream = io.BytesIO()
    if claimed is None:
        np.save(stream, array)
    else:
        head = dict(shape=claimed, fortran_order=False, descr=array.dtype.str)
        np.lib.format.write_array_header_1_0(stream, head)
        stream.write(array.tobytes())
    return stream.getvalue()


def test_arrays_by_name(tmp_path):
    path = tmp_path / "a.npz"
    files.write_arrays(path, ARRAYS)
    for arrays, names in (
        (files.read_arrays(path), {*ARRAYS}),
        (files.read_arrays(path, names=["x", "absent"]), {"x"}),
    ):
        assert arrays.keys() == names
        for name in names:
            assert arrays[name].dtype == ARRAYS[name].dtype
            np.testing.assert_array_equal(arrays[name], ARRAYS[name])


@pytest.mark.parametrize(
    "members, match",
    [
        ({"x": member(np.zeros((9, 9)), claimed=(9, 8))}, "x.* 704 .* 776"),
        ({"x": member(np.zeros(9), claimed=(-1,))}, "x.* 200"),
        ({"x": member(np.array([print]))}, "x is an object array"),
        ({"x": member(np.zeros(400))}, "2,000.*3,328"),
        ({"x": b"text"}, "a.npz is not a readable .npz file$"),
        ({"x": member(np.zeros(9))[:70]}, "a.npz is not a readable .npz file$"),
    ],
    ids=["longer", "negative", "pickle", "bomb", "text", "cut"],
)
def test_bad_archives_are_not_unpacked(tmp_path, monkeypatch, members, match):
    monkeypatch.setattr(files, "MAX_UNPACKED_BYTES", 2000)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    with pytest.raises(ValueError, match=match):
        files.read_arrays(tmp_path / "a.npz")


def test_tensors_with_metadata(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    path, arrays = tmp_path / "a.safetensors", {"x": np.arange(6.0).reshape(2, 3).T}
    files.write_tensors(path, arrays, {"word": "é"})
    np.testing.assert_array_equal(numpy.load_file(path)["x"], arrays["x"])
    for content in (None, path.read_bytes()):
        read, metadata = files.read_tensors(path, content=content)
        np.testing.assert_array_equal(read["x"], arrays["x"])
        assert metadata == {"word": "é"} and read["x"].flags.writeable
    numpy.save_file(arrays, path)
    assert files.read_tensors(path)[1] == {}
    for damaged in (path.read_bytes()[:-1], b"text", b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="a.safetensors is not a readable .safetensors file"):
            files.read_tensors(path)
    with pytest.raises(FileNotFoundError):
        files.read_tensors(tmp_path / "absent.safetensors")


def test_tensors_without_their_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for call in (lambda x: files.write_tensors(x, {}, {}), files.read_tensors):
        with pytest.raises(ImportError, match="a.safetensors needs .*pip install safetensors"):
            call(tmp_path / "a.safetensors")
    assert not any(tmp_path.iterdir())


def test_other_arrays_are_not_unpacked(tmp_path):
    """The archives have a surplus array of 100 MB, and one whose header states 12 GB."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", member(np.zeros(3)))
        archive.writestr("surplus.npy", bytes(10**8))
        archive.writestr("lie.npy", member(np.zeros(10**6), claimed=(1_600_000_000,)))
    tracemalloc.start()
    try:
        assert files.read_arrays(tmp_path / "a.npz", names=["x"])["x"].tolist() == [0, 0, 0]
        with pytest.raises(ValueError, match="lie.*12,800,000,128.*8,000,128"):
            files.read_arrays(tmp_path / "a.npz", names=["lie"])
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("read", [files.read_arrays, files.read_array])
@pytest.mark.parametrize("content", [b"", b"PK", pickle.dumps([1])], ids=["empty", "cut", "pickle"])
def test_other_files_are_reported_without_advice_to_unpickle(tmp_path, read, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=r"a is not a readable \.np[yz] file$"):
        read(tmp_path / "a")


# --- caches ------------------------------------------------------------------------------------


def age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_prune_deletes_the_least_recently_used(tmp_path):
    for seconds, name in ((30, "a"), (20, "b"), (10, "c"), (90, "d.lock")):
        (tmp_path / name).write_bytes(bytes(10))
        age(tmp_path / name, seconds)
    files.prune(tmp_path, 25)
    assert names(tmp_path) == ["b", "c", "d.lock"]
    files.prune(tmp_path, -1)
    assert names(tmp_path) == ["d.lock"]
    files.prune(tmp_path / "absent", 0)


def test_prune_deletes_only_stale_temporary_files(tmp_path):
    """A fresh temporary file belongs to another process and is kept, however small the budget."""
    for seconds, name in ((10, f".fresh{files.TEMPORARY}"), (4000, f".stale{files.TEMPORARY}")):
        (tmp_path / name).write_bytes(bytes(10))
        age(tmp_path / name, seconds)
    files.prune(tmp_path, -1)
    assert names(tmp_path) == [f".fresh{files.TEMPORARY}"]


def test_prune_tolerates_files_that_disappear(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(bytes(10))
    glob = pathlib.Path.glob
    monkeypatch.setattr(pathlib.Path, "glob", lambda *a: [tmp_path / "gone", *glob(*a)])
    files.prune(tmp_path, 100)
    assert names(tmp_path) == ["a"]


# --- lines -------------------------------------------------------------------------------------


def test_lines_of_json(tmp_path):
    path = tmp_path / "deep" / "cells.jsonl"
    assert files.read_lines(path) == []
    files.append_line(path, {"cell": "a", "mean": np.float32(0.5), "std": float("nan")})
    assert path.read_text() == '{"cell": "a", "mean": 0.5, "std": null}\n'


def test_a_bad_record_adds_no_line(tmp_path):
    files.append_line(tmp_path / "cells.jsonl", {"cell": "a"})
    with pytest.raises(TypeError, match="set: {1}"):
        files.append_line(tmp_path / "cells.jsonl", {"cell": {1}})
    assert files.read_lines(tmp_path / "cells.jsonl") == [{"cell": "a"}]
