"""Checkpoints of a run, from which a killed run resumes bit for bit.

    checkpoint/<step>/state           the arrays, in Orbax's format
    checkpoint/<step>/manifest.json   the step, shapes and types, and the checksum of every file

The newest two states are kept. No other module uses Orbax.
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

_MAX_STATES = 2  # the newest, and one to fall back on if it is damaged


def save(folder: str | os.PathLike, step: int, state: Any) -> None:
    """Save the state of a run under checkpoint/<step>, completely or not at all.

    States of later steps are removed, because a run that resumed from an older state replaces them.
    The state is a pytree of arrays of any type and sharding; PRNG keys as `jax.random.key_data`.
    """
    arrays, leaves = _describe(state), jax.tree.leaves(state)
    checkpoints = pathlib.Path(folder) / "checkpoint"
    final = checkpoints / str(int(step))
    partial, replaced = (final.with_suffix(f"{end}{files.TEMPORARY}") for end in (".new", ".old"))
    for leftover in (partial, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        _save_leaves(partial / "state", leaves)
        manifest = {"step": int(step), "arrays": arrays, "files": _checksums(partial)}
        files.write_json(partial / "manifest.json", manifest)
        # A folder cannot replace one that is not empty, so the old state is renamed first.
        if final.exists():
            os.replace(final, replaced)
        os.replace(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    kept = [str(number) for number in _steps(checkpoints) if number <= step][:_MAX_STATES]
    for path in checkpoints.iterdir():
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


def restore(folder: str | os.PathLike, like: Any) -> tuple[int, Any] | None:
    """Return step and state of the newest intact checkpoint, or None if none was saved.

    `like` is a pytree with the structure, shapes and types of the state. NumPy leaves are restored
    as NumPy arrays, JAX arrays with the sharding they have in `like`, and `jax.ShapeDtypeStruct`s
    with theirs or on the default device.
    """
    arrays = _describe(like)
    checkpoints = pathlib.Path(folder) / "checkpoint"
    steps = _steps(checkpoints)
    for step in steps:
        path = checkpoints / str(step)
        if _is_intact(path):
            _check_arrays(files.read_json(path / "manifest.json")["arrays"], arrays, path)
            leaves, structure = jax.tree.flatten(like)
            return step, jax.tree.unflatten(structure, _restore_leaves(path / "state", leaves))
    if steps:
        raise ValueError(
            f"All states in {checkpoints} are damaged, got {steps}; delete the folder."
        )
    return None


def _describe(state: Any) -> list[list[Any]]:
    """Return path, shape and type of every leaf, as written to the manifest."""
    arrays = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path) or "the state"
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise TypeError(f"{name} must be an array, got {type(leaf).__name__}.")
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise TypeError(f"{name} must not be a PRNG key; save its jax.random.key_data.")
        arrays.append([name, list(leaf.shape), np.dtype(leaf.dtype).name])
    return arrays


def _check_arrays(stored, expected, path):
    if stored != expected:
        pairs = zip(stored, expected, strict=False)
        first = next((pair for pair in pairs if pair[0] != pair[1]), None)
        difference = first or (f"{len(stored)} arrays", f"{len(expected)} arrays")
        raise ValueError(f"{path} must hold {difference[1]}, got {difference[0]}.")


def _steps(checkpoints: pathlib.Path) -> list[int]:
    """Return the saved steps, newest first."""
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


def _is_intact(path: pathlib.Path) -> bool:
    # Orbax returns wrong numbers for a flipped bit, and long errors for a missing file. So only
    # folders with matching checksums are read. The stored step shows that the folder was not
    # renamed.
    try:
        manifest = files.read_json(path / "manifest.json")
        return manifest["step"] == int(path.name) and manifest["files"] == _checksums(path)
    except (OSError, ValueError, KeyError, TypeError):
        return False


# --- Orbax ---------------------------------------------------------------------------------------


def _save_leaves(path: pathlib.Path, leaves: list[Any]) -> None:
    # Orbax does not accept empty arrays, and `like` determines them anyway.
    state = {str(i): leaf for i, leaf in enumerate(leaves) if leaf.size}
    path.parent.mkdir(parents=True)
    if not state:
        return
    with _checkpointer() as (ocp, checkpointer):
        try:
            checkpointer.save(path.absolute(), args=ocp.args.StandardSave(state))
        except ValueError as error:  # from TensorStore if the disk is full; its message is long
            full = "No space left on device" in str(error)
            reason = "No space left on device" if full else "the folder is gone or not writable"
            raise OSError(f"Cannot save the state to {path}: {reason}.") from error


def _restore_leaves(path: pathlib.Path, like: list[Any]) -> list[Any]:
    restored = {str(i): _target(leaf) for i, leaf in enumerate(like) if leaf.size}
    if restored:
        with _checkpointer() as (ocp, checkpointer):
            args = ocp.args.StandardRestore(restored)
            restored = checkpointer.restore(path.absolute(), args=args)
    empty = lambda leaf: np.empty(leaf.shape, leaf.dtype)
    arrays = [restored.get(str(i), empty(leaf)) for i, leaf in enumerate(like)]
    return [
        x
        if isinstance(x, jax.Array) or isinstance(leaf, (np.ndarray, np.generic))
        else jnp.array(x)
        for x, leaf in zip(arrays, like, strict=True)
    ]


@contextlib.contextmanager
def _checkpointer() -> Iterator[tuple[Any, Any]]:
    """Yield the Orbax module and a checkpointer that does not wait for other processes."""
    import orbax.checkpoint as ocp  # takes 0.7 s, so commands that need no state do not import it

    if jax.process_count() == 1:
        checkpointer = ocp.Checkpointer(ocp.StandardCheckpointHandler())
    else:  # every process has a folder of its own
        this = jax.process_index()
        options = ocp.options.MultiprocessingOptions(
            primary_host=this, active_processes={this}, barrier_sync_key_prefix=str(this)
        )
        handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
        checkpointer = ocp.Checkpointer(handler, multiprocessing_options=options)
    # Orbax logs the tracebacks of its threads; the error itself is raised as well.
    logger = logging.getLogger("absl")
    disabled, logger.disabled = logger.disabled, True
    try:
        with checkpointer:
            yield ocp, checkpointer
    finally:
        logger.disabled = disabled


def _target(leaf: Any) -> Any:
    """Return the target that makes Orbax restore a leaf with its sharding, or as a NumPy array."""
    # Only a committed array must return to its device. A counter that is bound to device 0 could
    # not be combined with images that are spread over several devices.
    sharding = getattr(leaf, "sharding", None)
    if sharding is None or not getattr(leaf, "committed", True):
        return np.empty(leaf.shape, leaf.dtype)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
