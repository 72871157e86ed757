"""Join synthetic sets that were distilled apart, for example of classes that were added later."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdd.data import benchmarks, files
from jaxdd.runs import class_names
from jaxdd.runs.folder import manifest, samples, store
from jaxdd.runs.trust import publication


def merge(sources: Sequence[str | os.PathLike], folder: str | os.PathLike) -> dict[str, Any]:
    """Write a set with the images of several sets, whose classes are matched by name.

    Images are joined as pixels, without the normalisation of their sets: the mean and std of the
    merged set are 0 and 1. Classes are in the order of their numbers, or else in that in which the
    sets name them.

    Args:
        sources: at least two folders of runs, of exported or of merged sets, or bare files. Each is
            verified.
        folder: folder to write to, absent or empty. It appears complete or not at all.

    Returns:
        The manifest. Its entry "sources" has the root, the classes and the configuration of each
        set, or of the sets that a merged one was made from. It lists samples.npz, the hashes of
        training samples, if all sources have them.

    Raises:
        FileExistsError: the folder has files, or is a file or a link.
        FileNotFoundError: there is no set.
        ValueError: a source is damaged, or the sets do not fit together: other sizes or channels,
            unequal numbers of images per class, no names of classes, or ZCA whitening.
    """
    if len(sources) < 2:
        raise ValueError(f"merge needs at least two sets, got {len(sources)}")
    folder = files.expand(folder)
    publication.check_destination(folder)
    sets = {files.expand(path): publication.read(path) for path in sources}
    if len(sets) < len(sources):
        raise ValueError(f"sets must differ, got {', '.join(map(str, sources))}")
    _check(sets)
    merged = _join(list(sets.values()))
    stated = [statement for published in sets.values() for statement in _statements(published)]
    content = manifest.describe(merged) | {"kind": "npz", "sources": stated}
    known = [samples.read(x) for s in sets.values() if (x := s.contents.get(samples.NAME))]
    with publication.atomic_folder(folder) as temporary:
        store.write_synthetic(temporary / store.SYNTHETIC, merged)
        if len(known) == len(sets):
            hashes = {"samples": np.unique(np.concatenate(known))}
            files.write_arrays(temporary / samples.NAME, hashes)
        files.write_json(temporary / "config.json", merged.provenance["config"])
        card = publication.merged_card(merged, content)
        (temporary / "README.md").write_text(card, "utf-8")
        manifest.record(temporary, [path.name for path in temporary.iterdir()])
        manifest.seal(temporary, content, kind="npz")
    return manifest.read(folder)


def _check(sets):
    """Reject sets whose images have other forms, or whose classes have no names."""
    (first, reference), *others = sets.items()
    for path, published in sets.items():
        zca = published.config.get("zca", "none")
        if zca != "none" or store.WHITENING in published.contents:
            raise ValueError(f"{path} was distilled with ZCA whitening ({zca}); merge sets without")
    for path, published in others:
        shapes = [x.synthetic.images.shape[2:] for x in (published, reference)]
        if shapes[0] != shapes[1]:
            sizes = [" × ".join(map(str, shape)) for shape in shapes]
            raise ValueError(
                f"images of {path} are {sizes[0]} (height, width, channels), those of {first} "
                f"{sizes[1]}; distil again with the same --resize"
            )
        formations = [publication.formation_of(x.config) for x in (published, reference)]
        if formations[0] != formations[1]:
            raise ValueError(
                f"{path} has formation {formations[0]}, {first} {formations[1]}; distil again with "
                "the same --formation"
            )
    # Without names, classes are numbers, which mean the same only in sets of the same data.
    unnamed = [path for path, published in sets.items() if not _is_named(published)]
    data = {_data(published) for published in sets.values()}
    if unnamed and (len(unnamed) < len(sets) or len(data) > 1 or None in data):
        raise ValueError(
            f"{unnamed[0]} has no names of classes, so they cannot be matched with those of other "
            "data; distil again with data._replace(class_names=...)"
        )


def _is_named(published):
    return bool(published.synthetic.provenance.get("class_names"))


def _data(published):
    """Return what identifies the classes of a set without names: a benchmark, or the data."""
    dataset = published.config.get("dataset")
    return dataset if dataset in benchmarks.NAMES else published.config.get("data")


def _join(sets):
    """Return the set with the images of all sets, as pixels."""
    names: dict[str, str] = {}
    pixels: dict[str, list[np.ndarray]] = {}
    for published in sets:
        synthetic = published.synthetic
        own = [class_names.canonical(name) for name in synthetic.classes]
        images = publication.to_pixels(synthetic).astype(np.float32)
        for key, name in zip(own, synthetic.classes, strict=True):
            names.setdefault(key, name)
        for place, label in np.ndenumerate(synthetic.labels):
            pixels.setdefault(own[label], []).append(images[place])
    if all(name.isdecimal() for name in names):
        names = {name: names[name] for name in sorted(names, key=int)}
    _check_counts(pixels, names)
    images = np.stack([np.stack(pixels[name]) for name in names])
    k, ipc, *_, channels = images.shape
    labels = np.arange(k, dtype=np.int32).repeat(ipc).reshape(k, ipc)
    moments = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    formation = publication.formation_of(sets[0].config)
    provenance: dict[str, Any] = {"config": {} if formation == 1 else {"formation": formation}}
    if _is_named(sets[0]):
        provenance["class_names"] = list(names.values())
    return store.Synthetic(images, labels, *moments, provenance)


def _check_counts(pixels, names):
    counts: dict[int, list[str]] = {}
    for name, images in pixels.items():
        counts.setdefault(len(images), []).append(names[name])
    if len(counts) > 1:
        listed = "; ".join(f"{n} for {', '.join(x[:5])}" for n, x in sorted(counts.items()))
        raise ValueError(f"each class must have as many images as the others, got {listed}")


def _statements(published):
    """Return the root, the classes and the configuration of a set, or of those it was merged from.

    The configuration states the data, the method and the weights, and may be forged.
    """
    content = published.manifest or {"root": None}
    own = {"classes": published.synthetic.classes, "config": published.config}
    return content.get("sources", [{"root": content["root"], **own}])
