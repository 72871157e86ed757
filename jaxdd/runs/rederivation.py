"""A synthetic set made again from what its manifest says, and compared."""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxdd.data import datasets
from jaxdd.runs import inspection, options, pipeline, results, store

TOLERANCE = {"mean": 0.02, "furthest": 0.5}
"""Differences of normalised values that rounding on another platform may lead to; between two
versions of Python and JAX on one machine 0.0007 and 0.054 were measured."""


def again(
    found: inspection.Images,
    told: Mapping[str, Any] | None,
    data: datasets.Benchmark | None,
    *,
    report: Callable[..., None] = pipeline.silent,
) -> inspection.Check:
    """Distils a set again from its configuration and seed, and compares the images.

    Args:
        found: the set.
        told: its manifest, None where there is none.
        data: what it was made from, as its manifest says, None where they are not here.
        report: called as `report(task, done, total, **fields)`.

    Returns:
        Evidence where the images differ by more than `TOLERANCE`. Not run where the manifest does
        not say enough, or the data are others.
    """
    skipped = lambda why: inspection.Check("made again", inspection.SKIPPED, why)
    if told is None:
        return skipped("the set has no manifest that says how it was made")
    config = (told.get("provenance") or {}).get("config")
    if not isinstance(config, Mapping):
        return skipped("its manifest has no configuration")
    debias = str(results.KINDS[row].weights if (row := config.get("row")) else config.get("debias"))
    if data is None:
        return skipped(f"the data, {config.get('dataset')}, are not here; give --data")
    if objection := _objection(config, debias, data):
        return skipped(objection)
    asked = dataclasses.replace(options.read(config), epochs=1, eval_seeds=1)
    with tempfile.TemporaryDirectory() as folder:
        pipeline.run(data, f"{folder}/run", asked, debias=debias, report=report)
        made = store.read_synthetic(f"{folder}/run/synthetic.npz")
    return _compared(found, made, told.get("kind") == "png")


def _objection(config, debias, data):
    """Why a set cannot be made again, None if it can."""
    if (digest := datasets.digest(data)) != config.get("data"):
        return f"{data.name} has the digest {digest}, the set was made from {config.get('data')}"
    if config.get("own_method") or ":" in str(config.get("network")):
        return "it was made by a method or a network of somebody's own"
    if config.get("row") in ("random", "random-kde"):
        return "its images are real ones, and nothing was distilled"
    return "its weights were given by hand" if debias == "given" else None


def _compared(found, made, rounded):
    if made.images.shape != found.images.shape:
        raise ValueError(
            f"the set holds images {found.images.shape}, "
            f"its configuration makes {made.images.shape}"
        )
    if np.array_equal(found.images, made.images):
        why = "its configuration and seed give the same bits here"
        return inspection.Check("made again", inspection.NONE, why, {"same bits": True})
    images = made.images
    if rounded:
        pixels = np.clip(images * made.std + made.mean, 0, 1)
        images = (np.rint(255 * pixels) / 255 - made.mean) / made.std
    apart = np.abs(images - found.images)
    numbers = {"same bits": False, "mean": float(apart.mean()), "furthest": float(apart.max())}
    beyond = any(numbers[name] > most for name, most in TOLERANCE.items())
    why = (
        f"its configuration and seed give images that differ by {numbers['mean']:.2g} on average "
        f"and {numbers['furthest']:.2g} at most, {'more' if beyond else 'no more'} than other "
        "versions or machines explain"
    )
    verdict = inspection.EVIDENCE if beyond else inspection.NONE
    return inspection.Check("made again", verdict, why, numbers | {"may": TOLERANCE})
