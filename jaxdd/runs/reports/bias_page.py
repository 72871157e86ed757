"""The HTML page about the result of looking for a bias in a data set.

For every candidate, the page shows typical and conflicting images of each class, the evidence, and
what weights would do. It also asks for the bias labels that would help most: with
templates/bias.js, the user labels these images and downloads labels.csv.
"""

import base64
import hashlib
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxdd.data import datasets, files
from jaxdd.runs import bias
from jaxdd.runs.options import OWN_EMBEDDING
from jaxdd.runs.reports import pages, sheet
from jaxdd.weights import candidates, formulas

_MAX_CLASSES = 10  # of a candidate
_MAX_OPEN = 2  # candidates with evidence that are shown unfolded if none is chosen
_MAX_NAMES = 2  # classes of a block that are named
_MAX_EXTREMES = 12  # heaviest images of a candidate, and lightest ones
_NUM_IMAGES = 5, 7  # typical and conflicting images of a class
_NUM_IMAGES_WEAK = 4, 5  # the same for a candidate without evidence


class _Words(NamedTuple):
    """Title and description of the features of a candidate."""

    title: str
    description: str


_WORDS = {
    "tone": _Words(
        "Tone: colours and brightness",
        "Colours, brightness and contrast, wherever they are in the image. They do not show the "
        "shape of the object.",
    ),
    "texture": _Words(
        "Texture: fine patterns",
        "Noise, blur, compression, fabrics and other fine patterns, wherever they are in the "
        "image. They do not show the shape of the object.",
    ),
    "layout": _Words(
        "Layout: where things are",
        "Where in the image something is, how large it is, and in which direction it extends, "
        "without details. This hardly shows the object.",
    ),
    "border": _Words(
        "Border: the outer edge",
        "Colours, brightness and contrast of the outer band of the image. The band usually shows "
        "the background, which may be typical of the object.",
    ),
    "embedding": _Words(
        "Embedding: what a network learns first",
        "What a small network distinguishes after very little training. A network first learns "
        "what is easiest. This may be a bias, but also the class itself.",
    ),
    "density": _Words(
        "Density: unusual images",
        "How unusual an image is in its class, according to a small network after very little "
        "training. If most images of a class share a bias, images without it are unusual, but so "
        "are images that are hard to recognise.",
    ),
    OWN_EMBEDDING: _Words("Your own embedding", "The numbers in your file."),
}


class _Class(NamedTuple):
    """Images of a class that the page shows for one candidate.

    Attributes:
        name: name of the class.
        typical: images that most clearly resemble their class.
        conflicting: for each other class, its name and the images that most clearly resemble it.
        clear: number of images that clearly resemble other classes.
        total: number of analysed images.
    """

    name: str
    typical: list[sheet.Tile]
    conflicting: list[tuple[str, list[sheet.Tile]]]
    clear: int
    total: int


class _Section(NamedTuple):
    """What the page shows of a candidate.

    Attributes:
        candidate: the candidate.
        words: title and description of its features.
        command: the command that uses its weights.
        state: "chosen", "evidence" (some, but not chosen) or "weak".
        is_open: whether it is shown unfolded.
        classes: the classes with the most conflicting images.
        num_omitted: number of classes that are not shown.
        auc: area under the curve of the conflict score, or None if bias labels are unknown.
        evenness: group evenness of the weights, or None if bias labels are unknown.
        heaviest: images with the largest weights, as multiples of the uniform weight.
        lightest: images with the smallest weights, as multiples of the uniform weight.
    """

    candidate: Any
    words: _Words
    command: str
    state: str
    is_open: bool
    classes: list[_Class]
    num_omitted: int
    auc: float | None
    evenness: float | None
    heaviest: list[tuple[str, sheet.Tile]]
    lightest: list[tuple[str, sheet.Tile]]


class _Source(NamedTuple):
    """The analysed images: sheet, indices and labels `[m]`, names of classes, names of images."""

    images: sheet.Sheet
    samples: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    files: Sequence[str]

    def identifier(self, index: int) -> str:
        """Return the file of a training image, or its index if it has none."""
        return self.files[index] if self.files else str(index)

    def tile(self, index: int, name: str, remark: str = "") -> sheet.Tile:
        """Return the place of a training image of a class in the sheet."""
        what = "image" if self.files else "training image"
        return self.images.tile(index, f"{what} {self.identifier(index)} of {name}{remark}")


def write(path: str | os.PathLike, finding: bias.Finding, data: datasets.Benchmark) -> None:
    """Write the page about a finding in a data set as one HTML file, atomically."""
    train, choice = data.train, finding.choice
    source = _Source(
        sheet.Sheet(train.images), finding.samples, train.labels[finding.samples],
        data.class_names or [f"class {k}" for k in range(data.num_classes)],
        data.train_files,
    )  # fmt: skip
    sections = [
        _section(candidate, source, finding, data, rank=rank)
        for rank, candidate in enumerate(choice.candidates)
    ]
    to_label = []
    for i in map(int, finding.to_label):
        name = source.classes[int(train.labels[i])]
        to_label.append((source.identifier(i), name, source.tile(i, name)))
    script = pages.TEMPLATES.get_template("bias.js").render()
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # The browser keeps the labels of these images apart from those of other pages.
    rows = np.asarray(finding.to_label, np.int64)
    storage_key = f"jaxdd {files.digest(train.images[rows], rows)}"
    headline = "looking for a bias" if finding.is_preview else bias.headline(choice.record())
    values: dict[str, Any] = {
        "name": data.name, "headline": headline, "is_preview": finding.is_preview, "choice": choice,
        "dataset": finding.dataset, "sections": sections, "classes": source.classes,
        "count": len(finding.samples), "total": len(train.labels), "checks": finding.file_checks,
        "duplicates": finding.duplicates,
        "to_label": to_label, "known_labels": _count_known_labels(data),
        "column": "file" if data.train_files else "index",
        "picture": source.images.draw(), "script": script, "script_hash": script_hash,
        "storage_key": storage_key, "min_share": candidates.MIN_CONFIDENT_SHARE,
        "min_bimodality": candidates.MIN_BIMODALITY,
    }  # fmt: skip
    pages.write(path, pages.TEMPLATES.get_template("bias.html.j2").render(values))


def _count_known_labels(data):
    """Return the number of training images with a bias label if not all have one, otherwise 0."""
    return 0 if data.bias_labels is None else int((data.bias_labels >= 0).sum())


def _section(candidate, source, finding, data, *, rank) -> _Section:
    """Return what the page shows of a candidate."""
    choice, name = finding.choice, candidate.name
    has_evidence = candidate.is_bimodal or candidate.is_shortcut
    state = "chosen" if name in choice.chosen else "evidence" if has_evidence else "weak"
    is_weak = state == "weak"
    num_open = 0 if choice.verdict == "biased" else _MAX_OPEN if has_evidence else 1
    classes, num_omitted = _classes(candidate, source, is_weak)
    evenness, attributes = None, data.train.attributes
    if attributes is not None:
        arrays = map(jnp.asarray, (candidate.weights, source.labels, attributes[finding.samples]))
        sizes = dict(num_classes=data.num_classes, num_attributes=data.num_attributes)
        evenness = float(formulas.group_evenness(*arrays, **sizes))
    multiples = np.asarray(candidate.weights) * np.bincount(source.labels)[source.labels]
    heaviest, lightest = (_extremes(multiples, source, sign) for sign in (-1, 1))
    return _Section(
        candidate=candidate,
        words=_WORDS.get(
            name, _Words(f"Your embedding {name}", "What the numbers that you passed distinguish.")
        ),
        command=finding.commands[name],
        state=state,
        is_open=state == "chosen" or rank < num_open,
        classes=classes,
        num_omitted=num_omitted,
        auc=None if finding.auc is None else finding.auc.get(name),
        evenness=evenness,
        heaviest=heaviest,
        lightest=lightest,
    )


def _classes(candidate, source, is_weak):
    """Return images of the classes with the most conflicts, and how many classes are left out."""
    score, groups, blocks = map(
        np.asarray, (candidate.conflict_score, candidate.groups, candidate.blocks)
    )
    num_classes = len(source.classes)
    aligned = groups == blocks[source.labels]
    is_clear = ~aligned & (score > candidates.CONFIDENT)
    clear = np.bincount(source.labels[is_clear], minlength=num_classes)
    shown = np.sort(np.argsort(-clear, kind="stable")[:_MAX_CLASSES])
    num_typical, num_conflicting = _NUM_IMAGES_WEAK if is_weak else _NUM_IMAGES
    order = np.argsort(score, kind="stable")
    classes = []
    for k in map(int, shown):
        members, name = order[source.labels[order] == k], source.classes[k]
        first = members[aligned[members]][:num_typical]
        last = members[~aligned[members]][::-1][:num_conflicting]
        resembled: dict[str, list[sheet.Tile]] = {}
        for i in sorted(last, key=lambda i: int(groups[i])):
            like = _block_name(int(groups[i]), blocks, source.classes)
            tile = source.tile(source.samples[i], name, f", like {like}")
            resembled.setdefault(like, []).append(tile)
        tiles = [source.tile(source.samples[i], name, ", typical") for i in first]
        classes.append(_Class(name, tiles, [*resembled.items()], int(clear[k]), len(members)))
    return classes, num_classes - len(shown)


def _block_name(group, blocks, names):
    """Return the names of the classes whose majority is in a group."""
    members = [names[k] for k in np.flatnonzero(np.equal(blocks, group))]
    if len(members) > _MAX_NAMES + 1:
        members[_MAX_NAMES:] = [f"{len(members) - _MAX_NAMES} more"]
    return " or ".join(members)


def _extremes(multiples, source, sign):
    """Return images with the largest (sign -1) or smallest (1) multiples of the uniform weight."""
    order = np.argsort(sign * multiples, kind="stable")
    num_classes = len(source.classes)
    each = max(1, _MAX_EXTREMES // num_classes)
    by_class = [order[source.labels[order] == k][:each] for k in range(num_classes)]
    first = np.concatenate(by_class)
    first = first[np.argsort(sign * multiples[first], kind="stable")][:_MAX_EXTREMES]
    return [
        (f"×{multiples[i]:.2g}" if multiples[i] < 100 else f"×{multiples[i]:.0f}", tile)
        for i in first
        for tile in [source.tile(source.samples[i], source.classes[source.labels[i]])]
    ]
