"""Tests of files that appear whole or not at all."""

import errno
import pathlib
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
