"""Disk: the state of a run, from which a killed one goes on to the same bits.

    checkpoint/<step>/state           the arrays, in Orbax's format
    checkpoint/<step>/manifest.json   the step, their shapes, and the checksum of every file

The newest two states are kept. Only this module knows Orbax.
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdd.data import files

_KEPT = 2  # the newest state, and one to fall back on should it prove unreadable


def save(folder: str | os.PathLike, step: int, state: Any) -> None:
    """Saves the state of a run under checkpoint/<step>, whole or not at all.

    The newest two states are kept. States of later steps, which a run that went back to an older
    state is about to replace, are removed.

    Args:
        folder: the run folder.
        step: the number of steps done.
        state: a pytree of arrays of any dtype and sharding; PRNG keys as `jax.random.key_data`.

    Raises:
        ValueError: `step` is negative.
        TypeError: a leaf that is not an array.
        OSError: the disk is full, or the folder gone; the states saved before are intact.
    """
    if step < 0:
        raise ValueError(f"step must not be negative, found {step}")
    arrays, leaves = _describe(state), jax.tree.leaves(state)
    checkpoints = pathlib.Path(folder) / "checkpoint"
    final = checkpoints / str(int(step))
    partial, replaced = (final.with_suffix(f"{end}{files.TEMPORARY}") for end in (".new", ".old"))
    for leftover in (partial, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        _orbax_save(partial / "state", leaves)
        files.write_json(
            partial / "manifest.json",
            {"step": int(step), "arrays": arrays, "files": _checksums(partial)},
        )
        if final.exists():
            os.replace(final, replaced)
        os.replace(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    kept = [number for number in _steps(checkpoints) if number <= step][:_KEPT]
    for other in checkpoints.iterdir():
        if other.name not in map(str, kept):
            shutil.rmtree(other, ignore_errors=True)


def restore(folder: str | os.PathLike, like: Any) -> tuple[int, Any] | None:
    """Returns the newest state that is whole, or None if none was saved.

    A newest state that is damaged or in the folder of another step, recognised by its manifest, is
    passed over for the one before.

    Args:
        folder: the run folder.
        like: a pytree with the structure, shapes and dtypes of the state. NumPy leaves come back as
            NumPy arrays, JAX arrays with the sharding they have here, `jax.ShapeDtypeStruct`s with
            theirs or on the default device.

    Returns:
        The step, and the state bit for bit as it was saved.

    Raises:
        ValueError: the saved state has another structure, other shapes or dtypes than `like`; or
            states were saved and none is readable.
        TypeError: a leaf of `like` that has no shape and dtype.
    """
    arrays = _describe(like)
    checkpoints = pathlib.Path(folder) / "checkpoint"
    steps = _steps(checkpoints)
    for step in steps:
        if _is_whole(checkpoints / str(step)):
            stored = files.read_json(checkpoints / str(step) / "manifest.json")["arrays"]
            _check_like(stored, arrays, checkpoints / str(step))
            leaves, structure = jax.tree.flatten(like)
            leaves = _orbax_restore(checkpoints / str(step) / "state", leaves)
            return step, jax.tree.unflatten(structure, leaves)
    if steps:
        raise ValueError(
            f"no readable state in {checkpoints}: found only damaged steps {steps}; "
            "delete it and resume"
        )
    return None


def _describe(state: Any) -> list[list[Any]]:
    """Returns path, shape and dtype of every leaf, as they are written to the manifest."""
    arrays = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path) or "the state"
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise TypeError(f"{name} must be an array, found {type(leaf).__name__}")
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise TypeError(f"{name} is a PRNG key; keep its jax.random.key_data in the state")
        arrays.append([name, list(leaf.shape), np.dtype(leaf.dtype).name])
    return arrays


def _check_like(stored: list[list[Any]], like: list[list[Any]], path: pathlib.Path) -> None:
    for found, expected in zip(stored, like, strict=False):
        if found != expected:
            text = ["{} of shape {} and dtype {}".format(*array) for array in (found, expected)]
            raise ValueError(f"{path} holds {text[0]}, expected {text[1]}")
    if len(stored) != len(like):
        raise ValueError(f"{path} holds {len(stored)} arrays, expected {len(like)}")


def _steps(checkpoints: pathlib.Path) -> list[int]:
    """Returns the saved steps, newest first."""
    names = (path.name for path in checkpoints.iterdir()) if checkpoints.is_dir() else ()
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def _checksums(folder: pathlib.Path) -> dict[str, str]:
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "manifest.json":
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            sums[path.relative_to(folder).as_posix()] = digest
    return sums


def _is_whole(checkpoint: pathlib.Path) -> bool:
    # Orbax returns wrong numbers for a flipped bit and floods the terminal over a missing file, so
    # it is only shown folders that are known to be good.
    try:
        manifest = files.read_json(checkpoint / "manifest.json")
        step = manifest.get("step", int(checkpoint.name))  # which the version before did not keep
        return step == int(checkpoint.name) and manifest["files"] == _checksums(checkpoint)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # Orbax logs pages of its threads' tracebacks; the error itself arrives as an exception.
    logger = logging.getLogger("absl")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled


def _orbax_save(path: pathlib.Path, leaves: list[Any]) -> None:
    # Orbax refuses empty arrays; like knows all that there is to know about them.
    state = {str(i): leaf for i, leaf in enumerate(leaves) if leaf.size}
    path.parent.mkdir(parents=True)
    if not state:
        return
    import orbax.checkpoint as ocp  # 0.7 s, which reading a result need not wait for

    with _quiet(), _checkpointer() as checkpointer:
        try:
            checkpointer.save(path.absolute(), args=ocp.args.StandardSave(state))
        except ValueError as error:  # so TensorStore reports a full disk, on a page of JSON
            full = "No space left on device" in str(error)
            reason = "No space left on device" if full else "the folder is gone, or unwritable"
            raise OSError(f"cannot save the state to {path}: {reason}") from error


def _orbax_restore(path: pathlib.Path, like: list[Any]) -> list[Any]:
    restored = {str(i): _target(leaf) for i, leaf in enumerate(like) if leaf.size}
    if restored:
        import orbax.checkpoint as ocp

        with _quiet(), _checkpointer() as checkpointer:
            args = ocp.args.StandardRestore(restored)
            restored = checkpointer.restore(path.absolute(), args=args)
    return [_as(leaf, restored.get(str(i))) for i, leaf in enumerate(like)]


def _checkpointer() -> Any:
    """Returns a checkpointer that waits for no other process: each has a folder of its own."""
    import orbax.checkpoint as ocp

    if jax.process_count() == 1:
        return ocp.Checkpointer(ocp.StandardCheckpointHandler())
    this = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=str(this)
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def _target(leaf: Any) -> Any:
    """Returns what tells Orbax how to hand out a leaf: with a sharding, or as a NumPy array."""
    # Only a committed array has a device that it must return to. A counter bound to device 0 could
    # no longer meet images spread over several devices.
    sharding = getattr(leaf, "sharding", None)
    if sharding is None or not getattr(leaf, "committed", True):
        return np.empty(leaf.shape, leaf.dtype)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _as(like: Any, array: Any) -> jax.Array | np.ndarray:
    """Returns what Orbax restored (None for an empty array) as the kind of array that `like` is."""
    array = np.empty(like.shape, like.dtype) if array is None else array
    if isinstance(array, jax.Array) or isinstance(like, (np.ndarray, np.generic)):
        return array
    return jnp.array(array)
