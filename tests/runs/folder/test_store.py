"""The files of a run: round trips bit for bit, killed processes and full disks."""

import errno
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd.data import files
from jaxdd.methods import zca
from jaxdd.runs.folder import store


def make_synthetic(**changes):
    images = np.random.default_rng(0).normal(size=(3, 2, 4, 4, 3)).astype(np.float32)
    labels = np.repeat(np.arange(3, dtype=np.int32)[:, None], 2, axis=1)
    values = dict(images=images, labels=labels, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
    return store.Synthetic(**(values | dict(provenance={"seed": 1, "ipc": 2}) | changes))


def bits(tree):
    """Return structure, dtypes, shapes and bytes of a pytree, in which NaN equals NaN."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(x.dtype, x.shape, np.asarray(x).tobytes()) for x in leaves]


def names(folder):
    return sorted(path.name for path in pathlib.Path(folder).iterdir())


# --- the run -----------------------------------------------------------------------------------


def test_create_writes_the_configuration(tmp_path):
    config = {"method": "dm", "rates": (1.0, 0.1), "kde": {"temperature": 0.5}}
    folder = store.create(tmp_path / "deep" / "run", config)
    assert folder == tmp_path / "deep" / "run" and names(folder) == ["config.json"]
    assert files.read_json(folder / "config.json") == config | {"rates": [1.0, 0.1]}


def test_a_folder_name_with_a_nul_character(tmp_path):
    with pytest.raises(ValueError, match="a.x00b"):
        store.create("a\0b", {})


def test_a_folder_with_a_run_is_kept(tmp_path):
    store.create(tmp_path, {"ipc": 1})
    with pytest.raises(FileExistsError, match="1 there and 10 here"):
        store.create(tmp_path, {"ipc": 10})
    with pytest.raises(FileExistsError, match="--resume"):
        store.create(tmp_path, {"ipc": 1})


def test_resume_continues_the_same_run_only(tmp_path):
    config = {"ipc": 1, "kde": {"temperature": 0.5, "rule": "relative"}, "sizes": (1, 2)}
    store.create(tmp_path, config, resume=True)
    assert store.create(tmp_path, config, resume=True) == tmp_path
    other = {"ipc": 1, "kde": {"temperature": 0.7, "rule": "relative"}, "seed": 3}
    with pytest.raises(ValueError, match="kde.temperature") as error:
        store.create(tmp_path, other, resume=True)
    for part in (
        "kde.temperature is 0.5 there and 0.7 here",
        "seed is 'absent' there and 3 here",
        "sizes is [1, 2] there and 'absent' here",
    ):
        assert part in str(error.value)
    assert str(error.value).count(";") == 2, "only differences are named"
    assert files.read_json(tmp_path / "config.json")["kde"]["temperature"] == 0.5


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_with_other_files_is_kept(tmp_path, resume):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="thesis.tex"):
        store.create(tmp_path, {}, resume=resume)
    assert names(tmp_path) == ["thesis.tex"]


def test_a_run_killed_while_it_wrote_its_configuration(tmp_path):
    (tmp_path / ".config.json.1234.tmp").write_text('{"ip')
    assert store.create(tmp_path, {"ipc": 1}) == tmp_path


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("content, match", [('{"ip', "not readable as JSON"), ("3", "an object")])
def test_a_damaged_configuration_is_reported(tmp_path, content, match, resume):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=f"config.json.*{match}"):
        store.create(tmp_path, {}, resume=resume)


def test_temporary_files_of_killed_runs_are_deleted(tmp_path):
    """Files of commands that may be running and files with similar names are kept."""
    deleted = [tmp_path / ".synthetic.npz.01234567.tmp", tmp_path / "experts/.a.npz.89abcdef.tmp"]
    others = [tmp_path / ".evaluation.json.01234567.tmp", tmp_path / ".own.tmp"]
    (tmp_path / "experts").mkdir()
    for path in deleted + others:
        path.write_bytes(b"half")
    store.sweep(tmp_path)
    assert [path.exists() for path in deleted + others] == [False, False, True, True]


# --- progress ----------------------------------------------------------------------------------


def test_progress_returns_what_was_appended(tmp_path):
    assert store.progress(tmp_path) == []
    for step in range(3):
        store.append(tmp_path, {"step": step, "loss": jnp.float32(step / 2)})
        assert store.progress(tmp_path)[-1] == {"step": step, "loss": step / 2}
    assert len(store.progress(tmp_path)) == 3


@pytest.mark.parametrize("cut", [b'{"step": 1, "lo', b"{", b'{"step": 1}', b"\xff"])
def test_cut_last_line_is_ignored_and_replaced(tmp_path, cut):
    store.append(tmp_path, {"step": 0})
    with open(tmp_path / "progress.jsonl", "ab") as file:
        file.write(cut)
    assert store.progress(tmp_path) == [{"step": 0}]
    store.append(tmp_path, {"step": 2})
    assert store.progress(tmp_path) == [{"step": 0}, {"step": 2}]


def test_a_deleted_folder_is_rejected(tmp_path):
    folder = store.create(tmp_path / "out", {})
    store.check_exists(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="out"):
        store.check_exists(folder)


def test_cut_first_line_is_replaced(tmp_path):
    (tmp_path / "progress.jsonl").write_text('{"st')
    store.append(tmp_path, {"step": 0})
    assert store.progress(tmp_path) == [{"step": 0}]


@pytest.mark.parametrize("line, match", [("{oops", "line 2 is not readable"), ("7", "line 2 must")])
def test_corrupt_progress_is_reported(tmp_path, line, match):
    (tmp_path / "progress.jsonl").write_text('{"step": 0}\n' + line + '\n{"step": 1}\n')
    with pytest.raises(ValueError, match=f"progress.jsonl, {match}"):
        store.progress(tmp_path)


def test_rewind_drops_later_records(tmp_path):
    for step in (0, 10, 20, 30):
        store.append(tmp_path, {"step": step})
    store.append(tmp_path, {"note": "no step"})
    store.rewind(tmp_path, 10)
    assert store.progress(tmp_path) == [{"step": 0}, {"step": 10}, {"note": "no step"}]
    store.append(tmp_path, {"step": 11})
    assert store.progress(tmp_path)[-1] == {"step": 11}


def test_rewind_on_a_full_disk_loses_nothing(tmp_path, full_disk):
    for step in (0, 10):
        store.append(tmp_path, {"step": step})
    with pytest.raises(OSError, match="No space left"):
        store.rewind(tmp_path, 0)
    assert len(store.progress(tmp_path)) == 2 and names(tmp_path) == ["progress.jsonl"]


# --- the synthetic set -------------------------------------------------------------------------


def test_synthetic_round_trip(tmp_path):
    synthetic = make_synthetic(provenance={"accuracy": np.float32(0.5), "loss": np.nan, "π": [1]})
    store.write_synthetic(tmp_path / "a.npz", jax.tree.map(lambda x: x, synthetic))
    read = store.read_synthetic(tmp_path / "a.npz")
    np.testing.assert_array_equal(read.images, synthetic.images)
    np.testing.assert_array_equal(read.labels, synthetic.labels)
    np.testing.assert_array_equal(read.mean, np.float32([0.5, 0.4, 0.3]))
    np.testing.assert_array_equal(read.std, np.float32([0.2, 0.2, 0.1]))
    assert read.provenance == {"accuracy": 0.5, "loss": None, "π": [1]}
    dtypes = [array.dtype.name for array in read[:4]]
    assert dtypes == ["float32", "int32", "float32", "float32"]


def test_synthetic_needs_neither_pickle_nor_jaxdd(tmp_path):
    store.write_synthetic(tmp_path / "a.npz", make_synthetic(images=jnp.ones((3, 2, 4, 4, 3))))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"images", "labels", "mean", "std", "provenance"}
        assert arrays["images"].shape == (3, 2, 4, 4, 3)
        assert json.loads(str(arrays["provenance"])) == {"seed": 1, "ipc": 2}


def test_same_set_gives_the_same_bytes(tmp_path):
    for name in "ab":
        store.write_synthetic(tmp_path / name, make_synthetic())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "changes, error, match",
    [
        ({"images": np.zeros((3, 4, 4, 3), np.float32)}, ValueError, r"\(3, 4, 4, 3\)"),
        ({"images": np.zeros((3, 2, 4, 4, 3))}, ValueError, "float64"),
        ({"images": np.full((3, 2, 4, 4, 3), np.nan, np.float32)}, ValueError, "images .* NaN"),
        ({"labels": np.zeros((3, 2), np.int64)}, ValueError, "int64"),
        ({"labels": np.zeros(6, np.int32)}, ValueError, r"\(6,\)"),
        ({"mean": (0.5,)}, ValueError, r"\(1,\)"),
        ({"labels": np.full((3, 2), 3, np.int32)}, ValueError, r"0\.\.2, got 3"),
        ({"labels": np.full((3, 2), -1, np.int32)}, ValueError, "got -1"),
        ({"images": np.zeros((3, 2, 0, 4, 3), np.float32)}, ValueError, "0, 4, 3"),
        ({"std": (0.5, 0.0, 0.5)}, ValueError, "std must be positive"),
        ({"std": (0.5, np.inf, 0.5)}, ValueError, "std must be finite"),
        ({"provenance": {"x": object()}}, TypeError, "object"),
    ],
)
def test_bad_synthetic_is_not_written(tmp_path, changes, error, match):
    with pytest.raises(error, match=match):
        store.write_synthetic(tmp_path / "a.npz", make_synthetic(**changes))
    assert names(tmp_path) == []


def test_synthetic_on_a_full_disk_leaves_the_old_one(tmp_path, monkeypatch):
    store.write_synthetic(tmp_path / "a.npz", make_synthetic())

    def savez(file, **_):
        file.write(b"PK half a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", savez)
    with pytest.raises(OSError, match="No space left"):
        store.write_synthetic(tmp_path / "a.npz", make_synthetic(provenance={}))
    assert names(tmp_path) == ["a.npz"]
    assert store.read_synthetic(tmp_path / "a.npz").provenance == {"seed": 1, "ipc": 2}


def test_damaged_synthetic_is_reported_or_harmless(tmp_path):
    """A cut file is rejected; a flipped byte is rejected or in a field that is not read."""
    path = tmp_path / "a.npz"
    store.write_synthetic(path, make_synthetic())
    good, data = store.read_synthetic(path), path.read_bytes()
    for at in range(0, len(data), 17):
        path.write_bytes(data[:at])
        with pytest.raises(ValueError, match="a.npz"):
            store.read_synthetic(path)
        path.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
        try:
            read = store.read_synthetic(path)
        except ValueError as error:
            assert "a.npz" in str(error)
        else:
            assert bits(read[:4]) == bits(good[:4]) and read.provenance == good.provenance


@pytest.mark.parametrize("missing", store.Synthetic._fields)
def test_missing_array_is_reported(tmp_path, missing):
    store.write_synthetic(tmp_path / "a.npz", make_synthetic())
    with np.load(tmp_path / "a.npz") as stored:
        np.savez(tmp_path / "b.npz", **{name: stored[name] for name in stored if name != missing})
    with pytest.raises(ValueError, match=f"b.npz.*{missing}"):
        store.read_synthetic(tmp_path / "b.npz")


def test_pickles_are_rejected(tmp_path):
    """An object array would run code when read."""
    store.write_synthetic(tmp_path / "a.npz", make_synthetic())
    with np.load(tmp_path / "a.npz") as stored:
        arrays = dict(stored) | {"provenance": np.array({"seed": 1}, dtype=object)}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match="a.npz"):
        store.read_synthetic(tmp_path / "a.npz")


def test_an_absent_set(tmp_path):
    with pytest.raises(FileNotFoundError):
        store.read_synthetic(tmp_path / "a.npz")


# --- whitening ---------------------------------------------------------------------------------


def test_whitening_round_trip(tmp_path):
    whitening = zca.Whitening(jnp.ones((2, 2, 1)), jnp.eye(4))
    assert store.whitening_of(tmp_path) is None
    store.write_whitening(tmp_path / store.WHITENING, whitening)
    assert bits(store.whitening_of(tmp_path)) == bits(whitening)


@pytest.mark.parametrize(
    "change, match",
    [
        (dict(mean=np.ones((2, 3, 1), np.float32)), r"matrix.*\(4, 4\)"),
        (dict(matrix=np.full((4, 4), np.nan, np.float32)), "matrix"),
        (dict(matrix=np.eye(4)), "float64"),
        (dict(mean=np.ones(4, np.float32)), r"\(4,\)"),
        (dict(mean=np.full((2, 2, 1), -0.5, np.float32)), r"\[0, 1\].*-0\.5"),
    ],
    ids=str,
)
def test_files_without_a_whitening(tmp_path, change, match):
    arrays = dict(mean=np.ones((2, 2, 1), np.float32), matrix=np.eye(4, dtype=np.float32)) | change
    files.write_arrays(tmp_path / "w.npz", arrays)
    with pytest.raises(ValueError, match=match):
        store.read_whitening(tmp_path / "w.npz")
