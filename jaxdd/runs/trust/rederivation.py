"""Distil a published set again from its configuration, and compare the images."""

import dataclasses
import pathlib
import tempfile

import numpy as np

from jaxdd.data import datasets
from jaxdd.runs import components, options, pipeline, progress, weightings
from jaxdd.runs.folder import store
from jaxdd.runs.trust import inspection, publication

# Largest differences of normalised values that rounding on another platform may explain. Between
# two versions of Python and JAX on one machine, 0.0007 and 0.054 were measured.
_TOLERANCE = {"mean": 0.02, "furthest": 0.5}


def distil_again(
    published: publication.Published,
    data: datasets.Benchmark | None,
    *,
    report: progress.Report = progress.silent,
) -> inspection.Check:
    """Distil a set again from its configuration and seed, and compare the images.

    Args:
        published: the set.
        data: the data that it was distilled from, or None if they are not available.
        report: function that is called as the run advances.

    Returns:
        A check whose verdict is evidence of tampering if the images differ by more than rounding.
        It is skipped if the configuration is incomplete or the data differ.
    """
    config = published.config
    if reason := _obstacle(config, data):
        return inspection.Check("distil again", inspection.SKIPPED, reason)
    assert data is not None
    chosen = dataclasses.replace(options.from_config(config), epochs=1, eval_seeds=1)
    if isinstance(chosen, options.MTT):
        chosen = dataclasses.replace(chosen, buffer_path=None)  # a path on another machine
    devices = components.cpu_devices(chosen)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "run"
        if rows := config.get("batch_rows"):
            pipeline.compare(data, path, chosen, rows=rows, report=report, **devices)
            path = path / "rows" / config["row"]
        else:
            weighting = weightings.rows()[_name(config)].weighting
            pipeline.run(data, path, chosen, debias=weighting, report=report, **devices)
        again = store.read_synthetic(path / store.SYNTHETIC)
    return _compare(published, again)


def _name(config):
    """Return the row or the weighting of a set."""
    return str(config.get("row") or config.get("debias"))


def _obstacle(config, data):
    """Return the reason why a set cannot be distilled again, or None."""
    if not config:
        return "the set does not state its configuration"
    if data is None:
        return f"the data, {config.get('dataset')}, are not available; pass --dataset"
    if (digest := datasets.digest(data)) != config.get("data"):
        return f"{data.name} has the hash {digest}, the set was made from {config.get('data')}"
    # A name MODULE:ATTRIBUTE would be imported, and importing runs untrusted code.
    named = config.get("network"), config.get("augmentation"), config.get("strategy")
    if config.get("own_method") or ":" in str(named):
        return "it was made by a method, network or augmentation that is not part of jaxdd"
    shared = config.get("batch_rows") or []
    if not isinstance(shared, list) or (shared and _name(config) not in shared):
        return f"the rows that share its batches are invalid: {shared!r:.80}"
    known = weightings.rows()
    if unknown := [name for name in map(str, (_name(config), *shared)) if name not in known]:
        return f"its weighting, {unknown[0]}, is unknown"
    if not known[_name(config)].distilled:
        return "it holds real images, nothing was distilled"
    # Batches depend on the weights of all rows that share them.
    kinds = {known[name].weighting for name in (_name(config), *shared)}
    if "custom" in kinds:
        return "its weights were supplied by the user"
    if config.get("embedding") and kinds & {*weightings.USING_EMBEDDING}:
        return "its embedding was supplied by the user"
    if config.get("bias_labels") and "labels" in kinds:
        return "its bias labels were supplied by the user"
    return None


def _compare(published, again):
    if published.manifest is not None and published.manifest["kind"] == "png":
        again, _ = publication.round_pixels(again)
    synthetic, images = published.synthetic, again.images
    if images.shape != synthetic.images.shape:
        raise ValueError(
            f"the set has images {synthetic.images.shape}, "
            f"but its configuration yields {images.shape}"
        )
    if np.array_equal(synthetic.images, images):
        why = "its configuration and seed yield identical images"
        return inspection.Check("distil again", inspection.NONE, why, {"identical": True})
    difference = np.abs(images - synthetic.images)
    numbers = {"mean": float(difference.mean()), "furthest": float(difference.max())}
    exceeds = any(numbers[name] > limit for name, limit in _TOLERANCE.items())
    why = (
        f"its configuration and seed yield images that differ by {numbers['mean']:.2g} on average "
        f"and {numbers['furthest']:.2g} at most, {'more' if exceeds else 'not more'} than other "
        "versions or machines explain"
    )
    verdict = inspection.EVIDENCE if exceeds else inspection.NONE
    numbers = {"identical": False, **numbers, "tolerance": _TOLERANCE}
    return inspection.Check("distil again", verdict, why, numbers)
