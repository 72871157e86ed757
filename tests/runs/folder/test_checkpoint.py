"""Tests of saved states: round trips bit for bit, and what a kill or a full disk leaves."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdd.runs.folder import checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[3]


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
    """Whether two pytrees agree in structure, dtypes and every bit (so that NaN equals NaN)."""
    leaves, structure = jax.tree.flatten(one)
    others, other_structure = jax.tree.flatten(other)
    one, other = (
        [(leaf.dtype, leaf.shape, np.asarray(leaf).tobytes()) for leaf in each]
        for each in (leaves, others)
    )
    return structure == other_structure and one == other


def files(folder):
    return sorted(path.name for path in pathlib.Path(folder).iterdir())


def run_python(script, **environment):
    """Returns what a fresh interpreter prints, and what it complains about."""
    command, environment = [sys.executable, "-W", "error", "-c", script], os.environ | environment
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return result.stdout, result.stderr


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_state_round_trip_is_exact(tmp_path, dtype):
    state = make_state(dtype=dtype)
    checkpoint.save(tmp_path, 5, state)
    step, restored = checkpoint.restore(tmp_path, jax.tree.map(jnp.zeros_like, state))
    assert step == 5 and same_bits(restored, state)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))


def test_leaves_come_back_as_what_like_holds(tmp_path):
    """NumPy keeps 64 bits, empty arrays and empty optimizer states survive, scalars stay."""
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
    """A counter bound to one device could not meet images that are spread over several."""
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
    assert files(tmp_path / "checkpoint") == ["2", "9"], "9 was saved after 10: the run went back"
    checkpoint.save(tmp_path, 10, make_state(0))
    checkpoint.save(tmp_path, 10, make_state(1))
    assert files(tmp_path / "checkpoint") == ["10", "9"]
    step, restored = checkpoint.restore(tmp_path, make_state())
    assert step == 10 and same_bits(restored, make_state(1))


def test_saving_clears_what_a_killed_run_left(tmp_path):
    for name in ("7.new.tmp", "7.old.tmp", "6.orbax-checkpoint-tmp-3"):
        (tmp_path / "checkpoint" / name / "state").mkdir(parents=True)
    assert checkpoint.restore(tmp_path, make_state()) is None
    checkpoint.save(tmp_path, 7, make_state())
    checkpoint.save(tmp_path, 7, make_state())
    assert files(tmp_path / "checkpoint") == ["7"]


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
def test_damaged_state_is_passed_over(tmp_path, damage, capfd):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, make_state(step))
    damage(tmp_path / "checkpoint" / "2")
    step, restored = checkpoint.restore(tmp_path, make_state())
    assert step == 1 and same_bits(restored, make_state(1))
    damage(tmp_path / "checkpoint" / "1")
    with pytest.raises(
        ValueError, match=r"no readable state in .*checkpoint.*\[2, 1\]; delete it and resume"
    ):
        checkpoint.restore(tmp_path, make_state())
    assert capfd.readouterr() == ("", "")


def test_a_renamed_state_is_passed_over(tmp_path):
    """Its manifest knows the step; that of the version before, which does not, is believed."""
    for step in (1, 2):
        checkpoint.save(tmp_path, step, make_state(step))
    (tmp_path / "checkpoint" / "2").rename(tmp_path / "checkpoint" / "5")
    assert checkpoint.restore(tmp_path, make_state())[0] == 1
    path = tmp_path / "checkpoint" / "5" / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest.pop("step") == 2
    path.write_text(json.dumps(manifest))
    assert checkpoint.restore(tmp_path, make_state())[0] == 5


def test_what_orbax_says_of_a_folder_that_is_gone_is_one_line(tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    def fail(*_, **__):
        raise ValueError(
            "NOT_FOUND: Error opening driver: {'context': {'cache_pool': {}}} [tensor]"
        )

    monkeypatch.setattr(ocp.Checkpointer, "save", fail)
    with pytest.raises(OSError, match=r"cannot save the state to .*: the folder is gone, or unwr"):
        checkpoint.save(tmp_path, 1, make_state())


@pytest.mark.parametrize(
    "like, match",
    [
        ({"a": jnp.zeros((2, 3)), "b": jnp.zeros(2)}, r"\['a'\] of shape \[3, 2\].*\[2, 3\]"),
        ({"a": jnp.zeros((3, 2)), "b": jnp.zeros(2, int)}, r"\['b'\].*float32, expected.*int32"),
        ({"a": jnp.zeros((3, 2)), "c": jnp.zeros(2)}, r"holds \['b'\].*expected \['c'\]"),
        ({"a": jnp.zeros((3, 2))}, "holds 2 arrays, expected 1"),
    ],
)
def test_state_must_match_like(tmp_path, like, match):
    checkpoint.save(tmp_path, 1, {"a": jnp.zeros((3, 2)), "b": jnp.zeros(2)})
    with pytest.raises(ValueError, match=match):
        checkpoint.restore(tmp_path, like)


@pytest.mark.parametrize(
    "step, state, error, match",
    [
        (1, {"rate": 0.1}, TypeError, r"\['rate'\] must be an array, found float"),
        (1, {"key": jax.random.key(0)}, TypeError, r"\['key'\] is a PRNG key"),
        (-1, jnp.zeros(1), ValueError, "step must not be negative, found -1"),
    ],
)
def test_state_must_be_arrays(tmp_path, step, state, error, match):
    with pytest.raises(error, match=match):
        checkpoint.save(tmp_path, step, state)
    assert files(tmp_path) == []


def test_state_on_a_full_disk_leaves_the_one_before(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, make_state(1))

    def write(path, _):
        path.mkdir(parents=True)
        (path / "half").touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_orbax_save", write)
    for step in (1, 2):
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save(tmp_path, step, make_state(2))
    assert files(tmp_path / "checkpoint") == ["1"]
    assert same_bits(checkpoint.restore(tmp_path, make_state())[1], make_state(1))


def test_limit_on_the_file_size_is_an_oserror(tmp_path):
    """A file that may not grow (RLIMIT_FSIZE) fails inside TensorStore, as on a full disk."""
    script = f"""
import resource, signal, jax, jax.numpy as jnp
from jaxdd.runs import checkpoint
key, folder = jax.random.key(0), {str(tmp_path)!r}
checkpoint.save(folder, 1, jnp.zeros(10))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    checkpoint.save(folder, 2, jax.random.normal(key, (100_000,)))
except OSError as error:
    assert "cannot save the state" in str(error), error
assert checkpoint.restore(folder, jnp.zeros(10))[0] == 1
print("done")
"""
    assert run_python(script) == ("done\n", "")
    assert files(tmp_path / "checkpoint") == ["1"]


def test_killed_run_leaves_a_whole_state(tmp_path):
    """Every value of state n is n, so a mixture of two states would show."""
    script = f"""
import itertools, jax.numpy as jnp
from jaxdd.runs import checkpoint
for step in itertools.count(1):
    checkpoint.save({str(tmp_path)!r}, step, [jnp.full((300, 300), step), jnp.full(7, step)])
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    while process.poll() is None and not (tmp_path / "checkpoint" / "3").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    like = [jnp.zeros((300, 300), int), jnp.zeros(7, int)]
    step, state = checkpoint.restore(tmp_path, like)
    assert step >= 2 and all((leaf == step).all() for leaf in state)


def test_state_returns_to_several_devices(tmp_path):
    script = f"""
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxdd.runs import checkpoint
mesh = jax.sharding.Mesh(np.array(jax.devices()), ("x",))
split, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["x"], []))
state = {{"images": jax.device_put(jnp.arange(8.0), split), "count": jnp.int32(3)}}
checkpoint.save({str(tmp_path)!r}, 1, state)
_, restored = checkpoint.restore({str(tmp_path)!r}, state)
assert restored["images"].sharding == split and restored["images"].tolist() == list(range(8))
assert jax.jit(lambda s: s["images"] * s["count"])(restored).tolist() == list(range(0, 24, 3))
like = {{"images": jax.device_put(jnp.zeros(8), everywhere), "count": jnp.int32(0)}}
_, moved = checkpoint.restore({str(tmp_path)!r}, like)
assert moved["images"].sharding == everywhere and moved["images"].tolist() == list(range(8))
print(jax.device_count())
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    assert run_python(script, **flags) == ("2\n", "")


def test_orbax_is_imported_only_when_needed():
    script = "import jaxdd.runs.folder.checkpoint, sys; print('orbax.checkpoint' in sys.modules)"
    assert run_python(script) == ("False\n", "")


def test_interrupted_optimisation_is_the_uninterrupted_one(tmp_path):
    """Six steps of Adam are three, a save, a restore and three more, bit for bit."""
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
