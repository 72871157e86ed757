"""A synthetic set made again from what its manifest says, and compared."""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxdd.data import datasets
from jaxdd.runs import old_results as results
from jaxdd.runs import options, parts, pipeline
from jaxdd.runs.folder import store
from jaxdd.runs.trust import inspection

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
    config = configuration(told)
    skipped = lambda why: inspection.Check("made again", inspection.SKIPPED, why)
    if told is None:
        return skipped("the set has no manifest that says how it was made")
    if data is None:
        return skipped(f"the data, {config.get('dataset')}, are not here; give --data")
    if objection := _objection(config, data):
        return skipped(objection)
    asked = dataclasses.replace(options.read(config), epochs=1, eval_seeds=1)
    if isinstance(asked, options.MTT):
        asked = dataclasses.replace(asked, buffer_path=None)  # somebody else's path
    with tempfile.TemporaryDirectory() as folder:
        how = dict(debias=_debias(config), report=report)
        pipeline.run(data, f"{folder}/run", asked, **how, **parts.cores(asked))
        made = store.read_synthetic(f"{folder}/run/synthetic.npz")
    return _compared(found, made, told.get("kind") == "png")


def configuration(told: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the configuration in a manifest, which is empty where there is none.

    Args:
        told: a manifest, of whom one cannot tell who wrote it.
    """
    provenance = (told or {}).get("provenance")
    config = provenance.get("config") if isinstance(provenance, dict) else None
    return config if isinstance(config, dict) else {}


def _debias(config):
    row = str(config.get("row"))
    return results.KINDS[row].weights if row in results.KINDS else str(config.get("debias"))


def _objection(config, data):
    """Why a set cannot be made again, None if it can."""
    if not config:
        return "its manifest has no configuration"
    if (digest := datasets.digest(data)) != config.get("data"):
        return f"{data.name} has the digest {digest}, the set was made from {config.get('data')}"
    named = config.get("network"), config.get("augmentation"), config.get("strategy")
    if config.get("own_method") or ":" in str(named):  # MODULE:ATTRIBUTE, which would be imported
        return "it was made by a method, a network or an augmentation of somebody's own"
    if config.get("row") in ("random", "random-kde"):
        return "its images are real ones, and nothing was distilled"
    return "its weights were given by hand" if _debias(config) == "given" else None


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
