"""The HTML page about the result of looking for a bias in a data set.

The page shows random images of each class, before everything else unless a bias was detected. For
every candidate, it shows typical and conflicting images of each class, the evidence, and what
weights would do. It also asks for the bias labels that would help most: with templates/bias.js, the
user labels these images and downloads labels.csv.
"""

import base64
import hashlib
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdd.data import datasets, files
from jaxdd.runs import bias
from jaxdd.runs.options import OWN_EMBEDDING
from jaxdd.runs.reports import pages, sheet
from jaxdd.weights import candidates, feature_weights, formulas, probe_networks

_MAX_CLASSES = 10  # of a candidate, and of the random images
_MAX_OPEN = 2  # candidates with evidence that are shown unfolded if none is chosen
_MAX_NAMES = 2  # classes of a block that are named
_MAX_EXTREMES = 12  # heaviest images of a candidate, and lightest ones
_NUM_RANDOM = 12  # random images of a class
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
        "Texture: fine structure, noise, sharpness, compression",
        "Fine structure, wherever it is in the image. It does not show the shape of the object.",
    ),
    "layout": _Words(
        "Layout: where things are, for example shifted or rotated",
        "Where bright and dark areas are, without details. A silhouette can show the class. "
        "Conflicting images may then merely have an unusual shape or pose.",
    ),
    "border": _Words(
        "Border: the outer band, for example a background",
        "Colours, brightness and contrast of the outer band of the image. A background may also be "
        "typical of the object, as the sky is of ships.",
    ),
    "embedding": _Words(
        "Embedding: anything that a small network learns first",
        "Anything that a small network distinguishes after very little training. It first learns "
        "what is easiest: a bias, or the class itself.",
    ),
    "density": _Words(
        "Density: unusual images",
        "How unusual an image is in its class, according to a small network after very little "
        "training. If most images of a class share a bias, images without it are unusual, but so "
        "are images that are hard to recognise.",
    ),
    OWN_EMBEDDING: _Words("Your own embedding", "The numbers in your file."),
}


class _Test(NamedTuple):
    """A row of the table of evidence: what is tested, its value, its threshold, and the result.

    `what`, `value` and `threshold` are pairs of the text and a remark in small print.
    """

    what: tuple[str, str]
    value: tuple[str, str]
    threshold: tuple[str, str]
    is_passed: bool


class _Class(NamedTuple):
    """Images of a class that the page shows for one candidate.

    Attributes:
        name: name of the class.
        typical: random images of those that clearly resemble their class.
        conflicting: for each other class, its name and the images that most clearly resemble it.
        clear: share of images that clearly resemble other classes.
    """

    name: str
    typical: list[sheet.Tile]
    conflicting: list[tuple[str, list[sheet.Tile]]]
    clear: float


class _Section(NamedTuple):
    """What the page shows of a candidate.

    Attributes:
        candidate: the candidate.
        words: title and description of its features.
        command: the command that uses its weights.
        state: "chosen", "evidence" (some, but not chosen) or "weak".
        is_open: whether it is shown unfolded.
        tests: rows of the table of evidence.
        conclusion: how the verdict follows from the evidence.
        classes: the classes with the most conflicting images.
        num_omitted: number of classes that are not shown.
        evenness: group evenness of the weights, or None if bias labels are unknown.
        heaviest: images with the largest weights, as multiples of the uniform weight.
        lightest: images with the smallest weights, as multiples of the uniform weight.
    """

    candidate: Any
    words: _Words
    command: str
    state: str
    is_open: bool
    tests: list[_Test]
    conclusion: str
    classes: list[_Class]
    num_omitted: int
    evenness: float | None
    heaviest: list[tuple[str, sheet.Tile]]
    lightest: list[tuple[str, sheet.Tile]]


class _Source(NamedTuple):
    """The analysed images.

    Attributes:
        images: sheet of all images of the page.
        samples: index of each analysed image in the training set, `[m]`.
        labels: class of each analysed image, `[m]`.
        order: positions of the analysed images in a fixed random order, `[m]`.
        classes: names of the classes.
        files: names of the training images, or empty.
    """

    images: sheet.Sheet
    samples: np.ndarray
    labels: np.ndarray
    order: np.ndarray
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
        np.asarray(jax.random.permutation(jax.random.key(0), len(finding.samples))),
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
        "random": _random_images(source), "known": _known_labels(finding, data),
        "dataset": finding.dataset, "sections": sections, "classes": source.classes,
        "count": len(finding.samples), "total": len(train.labels), "checks": finding.file_checks,
        "copies": finding.copies, "near_copies": finding.near_copies,
        "to_label": to_label,
        "known_labels": 0 if data.bias_labels is None else int((data.bias_labels >= 0).sum()),
        "column": "file" if data.train_files else "index",
        "picture": source.images.draw(), "script": script, "script_hash": script_hash,
        "storage_key": storage_key,
    }  # fmt: skip
    pages.write(path, pages.TEMPLATES.get_template("bias.html.j2").render(values))


def _known_labels(finding, data):
    """Return what the bias labels of all images show, or None if they are unknown.

    These are the share of bias-conflicting images, and name and area under the curve of the
    candidate that ranks these images best.
    """
    if not finding.auc:
        return None
    rows = datasets.select(data.train, finding.samples)
    share = np.mean(rows.attributes != np.take(data.aligned, rows.labels))
    best = max(finding.auc, key=lambda name: np.nan_to_num(finding.auc[name]))
    return {"share": share, "best": best, "auc": finding.auc[best]}


def _random_images(source):
    """Return the names of at most ten classes with random images of each."""
    order, num_classes = source.order, len(source.classes)
    shown = np.linspace(0, num_classes - 1, min(num_classes, _MAX_CLASSES)).astype(int)
    images = []
    for k in map(int, shown):
        members, name = order[source.labels[order] == k], source.classes[k]
        tiles = [source.tile(source.samples[i], name) for i in members[:_NUM_RANDOM]]
        images.append((name, tiles))
    return images


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
        tests=_tests(candidate),
        conclusion=_conclusion(candidate, state),
        classes=classes,
        num_omitted=num_omitted,
        evenness=evenness,
        heaviest=heaviest,
        lightest=lightest,
    )


def _tests(candidate):
    """Return the rows of the table of evidence. Tests that were not made have none."""
    tests = []
    if candidate.shortcut is not None:
        tests.append(_shortcut_test(candidate))
    if not np.isnan(candidate.bimodality):
        tests.append(_conflict_test(candidate))
    if candidate.trials:
        tests.append(_probe_network_test(candidate))
    return tests


def _shortcut_test(candidate):
    test = candidate.shortcut
    standard_error = (test.baseline - test.blind) / test.z_score if test.z_score else 0.0
    margin = max(feature_weights.MIN_ACCURACY_GAIN, feature_weights.MIN_Z_SCORE * standard_error)
    is_grouped = len({*test.blocks}) < len(test.blocks)
    wrong = "a wrong group of classes" if is_grouped else "the wrong class"
    return _Test(
        what=("Shortcut test", f"images put into {wrong}, from this aspect alone"),
        value=(_percent(test.blind), ""),
        threshold=(
            f"below {_percent(max(test.baseline - margin, 0))}",
            f"clearly less than the {_percent(test.baseline)} from features that show the object",
        ),
        is_passed=candidate.is_shortcut,
    )


def _conflict_test(candidate):
    if candidate.bimodality:
        share = f"{_percent(candidate.confident_share)} of all images conflict clearly"
        value = _percent(candidate.bimodality), share
    else:
        value = "–", "too few clear conflicts, or too few clearly typical images"
    return _Test(
        what=("Clear conflicts", "their number, divided by that of ambiguous images"),
        value=value,
        threshold=(
            f"at least {_percent(candidates.MIN_BIMODALITY, 0)}",
            f"and at least {_percent(candidates.MIN_CONFIDENT_SHARE, 0)} of all images",
        ),
        is_passed=candidate.is_bimodal,
    )


def _probe_network_test(candidate):
    before, after = candidate.trials["uniform"], candidate.trials["weighted"]
    count = f"{before.count} conflicting images"
    if before.count < probe_networks.MIN_CONFLICTING:
        value = count, ""
        threshold = f"at least {probe_networks.MIN_CONFLICTING}", "for a reliable result"
    else:
        change = f"from {_percent(before.conflicting, 0)} to {_percent(after.conflicting, 0)}"
        value = _points(after.conflicting - before.conflicting), f"{change}, on {count}"
        required, reason = probe_networks.required_gain(before, after)
        threshold = f"more than {_points(required)}", reason
    what = "Small networks", "gain in accuracy on conflicting images if trained with the weights"
    return _Test(what, value, threshold, candidate.rejection is None)


def _percent(share, digits=1):
    return f"{100 * share:,.{digits}f} %"


def _points(difference):
    return f"{100 * difference:+.1f} points"


def _conclusion(candidate, state):
    """Return how the verdict follows from the evidence of a candidate."""
    if state == "chosen":
        if candidate.is_shortcut:
            return "The shortcut test detects a bias, so weights against it were chosen."
        if candidate.is_bimodal:
            return (
                "The clear conflicts suggest a bias, and the small networks confirm it, so weights "
                "against it were chosen."
            )
        return "The weights help small networks, so they were chosen."
    if candidate.is_shortcut:
        reason = "The shortcut test detects a bias, but more clearly for another candidate."
    elif candidate.trials and candidate.rejection is None:
        reason = "The weights help small networks, but this candidate was excluded."
    elif candidate.is_bimodal and candidate.rejection:
        reason = "The clear conflicts suggest a bias, but the small networks do not confirm it."
    elif candidate.is_bimodal:
        reason = "The clear conflicts suggest a bias, but were not tested with small networks."
    else:
        reason = (
            "No test detects a bias." if _tests(candidate) else "This candidate was not tested."
        )
    return (
        f"{reason} So these weights were not chosen automatically. You can use them if you see a "
        "bias in the images."
    )


def _classes(candidate, source, is_weak):
    """Return images of the classes with the most conflicts, and how many classes are left out."""
    score, groups, blocks = map(
        np.asarray, (candidate.conflict_score, candidate.groups, candidate.blocks)
    )
    num_classes = len(source.classes)
    aligned = groups == blocks[source.labels]
    is_clear = ~aligned & (score > candidates.CONFIDENT)
    counts = np.bincount(source.labels, minlength=num_classes)
    clear = np.bincount(source.labels[is_clear], minlength=num_classes)
    shown = np.sort(np.argsort(-clear, kind="stable")[:_MAX_CLASSES])
    num_typical, num_conflicting = _NUM_IMAGES_WEAK if is_weak else _NUM_IMAGES
    order = np.argsort(score, kind="stable")
    classes = []
    for k in map(int, shown):
        members, name = order[source.labels[order] == k], source.classes[k]
        # Half of the images of a class, in random order: the most typical ones are alike.
        low = np.isin(source.order, members[: (len(members) + 1) // 2]) & aligned[source.order]
        first = source.order[low][:num_typical]
        last = members[~aligned[members]][::-1][:num_conflicting]
        resembled: dict[str, list[sheet.Tile]] = {}
        for i in sorted(last, key=lambda i: int(groups[i])):
            like = _block_name(int(groups[i]), blocks, source.classes)
            tile = source.tile(source.samples[i], name, f", like {like}")
            resembled.setdefault(like, []).append(tile)
        tiles = [source.tile(source.samples[i], name, ", typical") for i in first]
        classes.append(_Class(name, tiles, [*resembled.items()], clear[k] / max(counts[k], 1)))
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
