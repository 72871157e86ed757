"""Saved states: bit-exact round trips, and what a kill, damage or a full disk leaves behind."""

import errno
import os
import pathlib
import resource
import shutil
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxdd.devices import parallel
from jaxdd.runs.folder import checkpoint


class State(NamedTuple):
    images: Any
    optimizer: Any
    key: Any


def make_state(seed=0, dtype=jnp.float32):
    pixels = np.random.default_rng(seed).normal(size=(3, 2, 4, 4, 3))
    pixels[0, 0, 0, 0] = np.nan, -0.0, np.inf
    images = jnp.asarray(pixels, dtype)
    optimizer = optax.chain(optax.clip(1.0), optax.adam(0.1)).init(images)
    return State(images, optimizer, jax.random.key_data(jax.random.key(seed)))


def same_bits(one, other):
    """Return whether two pytrees agree in structure, types and every bit (NaN equals NaN)."""
    bits = lambda leaf: (leaf.dtype, leaf.shape, np.asarray(leaf).tobytes())
    return jax.tree.map(bits, one) == jax.tree.map(bits, other)


def names(folder):
    return sorted(path.name for path in pathlib.Path(folder).iterdir())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_state_round_trip_is_exact(tmp_path, dtype):
    state = make_state(dtype=dtype)
    checkpoint.save(tmp_path, 5, state)
    step, restored = checkpoint.restore(tmp_path, jax.tree.map(jnp.zeros_like, state))
    assert step == 5 and same_bits(restored, state)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))


def test_leaves_are_restored_as_the_type_in_like(tmp_path):
    """NumPy arrays keep 64 bits; empty arrays, scalars and empty optimizer states are kept."""
    state = {
        "numpy": np.array([0.1, 1e300]),
        "scalar": np.float64(0.1),
        "empty": jnp.zeros((0, 3)),
        "flag": jnp.array(True),
        "none": None,
        "nothing": optax.EmptyState(),
        "odd/name.[0]": jnp.arange(2),
    }
    checkpoint.save(tmp_path, 1, state)
    _, restored = checkpoint.restore(tmp_path, state)
    assert same_bits(restored, state)
    assert isinstance(restored["numpy"], np.ndarray) and isinstance(restored["empty"], jax.Array)
    shapes = jax.eval_shape(make_state)
    checkpoint.save(tmp_path, 2, make_state())
    assert same_bits(checkpoint.restore(tmp_path, shapes)[1], make_state())


def test_uncommitted_arrays_stay_uncommitted(tmp_path):
    """A counter bound to one device cannot be combined with images split over several."""
    state = {"free": jnp.arange(3), "bound": jax.device_put(jnp.arange(3), jax.devices()[0])}
    checkpoint.save(tmp_path, 1, state)
    _, restored = checkpoint.restore(tmp_path, state)
    assert not restored["free"].committed and restored["bound"].committed


def test_nothing_saved_gives_none(tmp_path):
    assert checkpoint.restore(tmp_path, make_state()) is None
    (tmp_path / "checkpoint").mkdir()
    assert checkpoint.restore(tmp_path, make_state()) is None


def test_newest_two_states_are_kept(tmp_path):
    for step in (2, 10, 9):
        checkpoint.save(tmp_path, step, make_state(step))
    assert names(tmp_path / "checkpoint") == ["2", "9"], "9 was saved after 10: the run went back"
    checkpoint.save(tmp_path, 10, make_state(0))
    checkpoint.save(tmp_path, 10, make_state(1))
    assert names(tmp_path / "checkpoint") == ["10", "9"]
    step, restored = checkpoint.restore(tmp_path, make_state())
    assert step == 10 and same_bits(restored, make_state(1))


def test_saving_removes_what_a_killed_run_left(tmp_path):
    for name in ("7.new.tmp", "7.old.tmp", "6.orbax-checkpoint-tmp-3"):
        (tmp_path / "checkpoint" / name / "state").mkdir(parents=True)
    assert checkpoint.restore(tmp_path, make_state()) is None
    checkpoint.save(tmp_path, 7, make_state())
    checkpoint.save(tmp_path, 7, make_state())
    assert names(tmp_path / "checkpoint") == ["7"]


def damage_half_written(checkpoint):
    for path in checkpoint.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_one_bit(checkpoint):
    path = max((p for p in checkpoint.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def damage_manifest(checkpoint):
    (checkpoint / "manifest.json").unlink()


def damage_missing_file(checkpoint):
    max((p for p in checkpoint.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size).unlink()


@pytest.mark.parametrize(
    "damage", [damage_half_written, damage_one_bit, damage_manifest, damage_missing_file]
)
def test_damaged_states_are_skipped(tmp_path, damage, capfd):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, make_state(step))
    damage(tmp_path / "checkpoint" / "2")
    step, restored = checkpoint.restore(tmp_path, make_state())
    assert step == 1 and same_bits(restored, make_state(1))
    damage(tmp_path / "checkpoint" / "1")
    with pytest.raises(ValueError, match=r"\[2, 1\]"):
        checkpoint.restore(tmp_path, make_state())
    assert capfd.readouterr() == ("", "")


def test_renamed_states_are_skipped(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, make_state(step))
    (tmp_path / "checkpoint" / "2").rename(tmp_path / "checkpoint" / "5")
    assert checkpoint.restore(tmp_path, make_state())[0] == 1


@pytest.mark.parametrize(
    "like, expected",
    [
        ({"a": jnp.zeros((2, 3)), "b": jnp.zeros(2)}, r"\[2, 3\].*got.*\[3, 2\]"),
        ({"a": jnp.zeros((3, 2)), "b": jnp.zeros(2, int)}, "int32.*got.*float32"),
        ({"a": jnp.zeros((3, 2)), "c": jnp.zeros(2)}, r"\['c'\].*got.*\['b'\]"),
        ({"a": jnp.zeros((3, 2))}, "1 arrays, got 2 arrays"),
    ],
)
def test_state_must_match_like(tmp_path, like, expected):
    checkpoint.save(tmp_path, 1, {"a": jnp.zeros((3, 2)), "b": jnp.zeros(2)})
    with pytest.raises(ValueError, match=expected):
        checkpoint.restore(tmp_path, like)


@pytest.mark.parametrize(
    "state, value",
    [({"rate": 0.1}, r"\['rate'\].*float"), ({"key": jax.random.key(0)}, r"\['key'\].*key_data")],
)
def test_state_must_be_arrays(tmp_path, state, value):
    with pytest.raises(TypeError, match=value):
        checkpoint.save(tmp_path, 1, state)
    assert names(tmp_path) == []


def test_a_full_disk_leaves_the_state_before(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, make_state(1))

    def write(path, _):
        path.mkdir(parents=True)
        (path / "half").touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_save_leaves", write)
    for step in (1, 2):
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save(tmp_path, step, make_state(2))
    assert names(tmp_path / "checkpoint") == ["1"]
    assert same_bits(checkpoint.restore(tmp_path, make_state())[1], make_state(1))


def test_a_limit_of_the_file_size_is_an_oserror(tmp_path):
    """A file that may not grow fails inside of TensorStore, as on a full disk."""
    checkpoint.save(tmp_path, 1, np.zeros(10))
    _, maximum = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, maximum))
    try:
        with pytest.raises(OSError, match=str(tmp_path)):
            checkpoint.save(tmp_path, 2, np.random.default_rng(0).normal(size=100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoint.restore(tmp_path, np.zeros(10))[0] == 1
    assert names(tmp_path / "checkpoint") == ["1"]


class Killed(BaseException):
    """Replaces a signal that ends the process."""


@pytest.mark.parametrize("call", ["write_json", "first replace", "second replace"])
def test_a_kill_leaves_a_state_that_can_be_restored(tmp_path, call, monkeypatch):
    """Saving step 2 again is killed before the manifest is written or a folder is renamed."""
    for step in (1, 2):
        checkpoint.save(tmp_path, step, make_state(step))
    replace, calls = os.replace, []

    def killed(*_):
        raise Killed

    def replace_once(*paths):
        calls.append(paths)
        if call == "first replace" or len(calls) == 2:
            raise Killed
        replace(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        if call == "write_json":
            patch.setattr(checkpoint.files, "write_json", killed)
        else:
            patch.setattr(
                checkpoint, "os", types.SimpleNamespace(replace=replace_once, PathLike=os.PathLike)
            )
        with pytest.raises(Killed):
            checkpoint.save(tmp_path, 2, make_state(3))
    expected = 1 if call == "second replace" else 2
    step, restored = checkpoint.restore(tmp_path, make_state())
    assert step == expected and same_bits(restored, make_state(expected))
    checkpoint.save(tmp_path, 2, make_state(3))
    assert names(tmp_path / "checkpoint") == ["1", "2"]


def test_states_return_to_several_devices(tmp_path, mesh):
    by_row, everywhere = (
        NamedSharding(mesh, PartitionSpec(*axes)) for axes in ([parallel.AXIS], [])
    )
    state = {"images": jax.device_put(jnp.arange(8.0), by_row), "count": jnp.int32(3)}
    checkpoint.save(tmp_path, 1, state)
    _, restored = checkpoint.restore(tmp_path, state)
    assert restored["images"].sharding == by_row and same_bits(restored, state)
    product = jax.jit(lambda s: s["images"] * s["count"])(restored)
    assert product.tolist() == list(range(0, 24, 3))
    like = {"images": jax.device_put(jnp.zeros(8), everywhere), "count": jnp.int32(0)}
    _, moved = checkpoint.restore(tmp_path, like)
    assert moved["images"].sharding == everywhere and same_bits(moved, state)


def test_interrupted_optimisation_is_the_uninterrupted_one(tmp_path):
    """Six steps of Adam equal three steps, a save, a restore and three more, bit for bit."""
    optimizer = optax.adam(0.1)

    @jax.jit
    def advance(state):
        updates, optimizer_state = optimizer.update(jnp.sin(state[0]), state[1])
        return optax.apply_updates(state[0], updates), optimizer_state

    def run(state, steps):
        for _ in range(steps):
            state = advance(state)
        return state

    start = jnp.linspace(0, 3, 50)
    state = (start, optimizer.init(start))
    checkpoint.save(tmp_path, 3, run(state, 3))
    _, restored = checkpoint.restore(tmp_path, state)
    assert same_bits(run(restored, 3), run(state, 6))
