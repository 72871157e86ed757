"""Disk: expert trajectories in a folder, made once and used by many runs.

    manifest.json    what the experts were trained on, and how
    expert-000.npz   parameters after each epoch, by name, [epochs + 1, ...] each

A folder is filled expert by expert; one that was cut short goes on with the next.
"""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxdd.data import files


def fill(
    folder: str | os.PathLike,
    manifest: dict[str, Any],
    expert: Callable[[int], Any],
    *,
    count: int,
    like: Any,
    kind: str = "expert",
    report: Callable[[int], None] = lambda done: None,
    translate: Callable[[dict[str, Any]], dict[str, Any]] = lambda stored: stored,
) -> Any:
    """Returns `count` trajectories: those in the folder, and new ones for those that are not.

    Args:
        folder: made if need be.
        manifest: JSON values that say what the experts depend on; that of the folder must be equal.
        expert: trains expert number i; its parameters have a leading axis of moments.
        count: number of experts.
        like: arrays or shapes of one trajectory.
        kind: what the files are called, and one of them in messages.
        report: called with the number of experts that are there.
        translate: from the manifest in the folder to what is compared; for those of an earlier
            version.

    Returns:
        The parameters with leading axes `[count, moments]`, NumPy arrays.

    Raises:
        ValueError: the folder holds trajectories of something else, a file that is damaged or does
            not fit the network, or values that are not finite; nothing is removed.
        OSError: the disk is full; finished experts are kept.
    """
    folder = pathlib.Path(folder)
    _check_manifest(folder, manifest, kind, translate)
    found = []
    for i in range(count):
        report(i)
        path = folder / f"{kind}-{i:03d}.npz"
        if not path.exists():
            trained = jax.device_get(expert(i))
            _check_finite(
                trained, f"{kind} {i} diverged; try a smaller lr_teacher, or more epochs:"
            )
            files.write_arrays(path, _named(trained))
        found.append(read(path, like))
    report(count)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *found)


def _check_manifest(folder, manifest, kind, translate):
    path = folder / "manifest.json"
    if not path.exists():
        if folder.exists() and any(folder.glob(f"{kind}-*.npz")):
            raise ValueError(
                f"{folder} holds {kind}s without a manifest.json, whose origin is unknown; "
                "delete it and resume"
            )
        files.write_json(path, manifest)
        return
    with files.hint(f"delete {folder} and resume"):
        stored = files.read_json(path)
        if not isinstance(stored, dict):
            raise ValueError(f"{path} must hold an object, found {stored!r}")
    differences = files.differences(translate(stored), manifest)
    if differences:
        raise ValueError(f"{folder} holds {kind}s of something else: {differences}")


def _named(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def read(path: str | os.PathLike, like: Any) -> Any:
    """Returns the parameters in a file, arrays like `like`.

    Raises:
        ValueError: the file is damaged, does not fit, or holds values that are not finite.
    """
    with files.hint("delete it and resume"):
        stored, expected = files.read_arrays(path), _named(like)
    if stored.keys() != expected.keys():
        raise ValueError(
            f"{path} holds parameters of another network: expected {', '.join(sorted(expected))}, "
            f"found {', '.join(sorted(stored))}"
        )
    for name, leaf in expected.items():
        if stored[name].shape != leaf.shape or stored[name].dtype != leaf.dtype:
            raise ValueError(
                f"{path}: {name} must be {leaf.dtype} {leaf.shape}, "
                f"found {stored[name].dtype} {stored[name].shape}"
            )
    _check_finite(stored, f"{path} is damaged or diverged, delete it and resume:")
    return jax.tree.unflatten(jax.tree.structure(like), [stored[name] for name in expected])


def _check_finite(tree, message):
    for name, leaf in _named(tree).items():
        if not np.isfinite(leaf).all():
            raise ValueError(f"{message} {name} has values that are not finite")
