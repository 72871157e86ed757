"""Was a synthetic set tampered with? The checks of `jaxdd.audit`, their verdicts, and a page.

Every check ends with one of four verdicts: evidence; no evidence found, which is less than clean;
not run, because something is missing; not applicable, because it cannot work on a set of a few
images per class.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdd import audit, networks, training
from jaxdd.data import datasets, files
from jaxdd.methods import formation
from jaxdd.runs import old_results as results
from jaxdd.runs.folder import store
from jaxdd.runs.reports import pages

EVIDENCE, NONE, SKIPPED, USELESS = "evidence", "no evidence found", "not run", "not applicable"
"""The verdicts."""

MAX_OVERSHOOT = 1.0
"""How far from [0, 1] a pixel may be, on that scale; as in `publication.load`."""

SMALL = 2, 1 / 32
"""Sides in pixels and share of the image that a patch has at most which no honest set obeys."""

SIGNIFICANCE = 0.03
"""Chance of a false alarm against trusted sets of the same kind, of all statistics together.

That is by Student's t, which is too sure of few sets: with .05 four of 40 honest sets were called
tampered with, with .03 none without and two with real images (`experiments.tampering`, sets of DM
and DSA, 2026-11-23)."""

_NOT_APPLICABLE = {
    "spectral signatures": "they look for a minority of outliers inside of a class; here a class "
    "has a few images, and tampering changes all of them",
    "activation clustering": "it looks for a class in two clusters, one of them small; here a "
    "class has a few images, and tampering changes all of them",
}
_ABOUT = {
    "roughness": "share of the variation that is between neighbouring pixels",
    "footprint": "how surely one place is changed alike in all classes",
    "mask": "minus the logarithm of the smallest mask that leads to a class, in pixels (Neural "
    "Cleanse)",
    "STRIP": "how well blends tell real images with the best patch from those without (area under "
    "the curve)",
    "gradients": "one minus the cosine of the gradients that the set and real images cause",
}


class Effort(NamedTuple):
    """How thoroughly networks are asked.

    Attributes:
        seeds: networks of each kind.
        width: of the ConvNet.
        epochs: of their training.
        sizes: sides of patches in pixels.
        screen: images that all patches are tried on.
        steps: of each mask.
        most: images that masks and patches are tried on.
    """

    seeds: int = 4
    width: int = 32
    epochs: int = 100
    sizes: tuple[int, ...] = (1, 2, 4)
    screen: int = 4
    steps: int = 40
    most: int = 50


EFFORTS = {
    "quick": Effort(),
    "paper": Effort(10, 128, 300, (1, 2, 3, 4, 5), 16, 200, 200),
}
"""Two CPU cores in a few minutes, and one GPU."""


class Check(NamedTuple):
    """What one check found.

    Attributes:
        name: of the check.
        verdict: one of the four.
        why: in one sentence.
        numbers: behind it.
    """

    name: str
    verdict: str
    why: str
    numbers: Mapping[str, Any] = {}


# --- the whole ---------------------------------------------------------------------------------


def inspect(
    found: store.Synthetic,
    *,
    trusted: Sequence[store.Synthetic] = (),
    data: datasets.Benchmark | None = None,
    effort: Effort = EFFORTS["quick"],
    seed: int = 0,
    tiles: int = 1,
    kinds: Sequence[networks.Network] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Check]:
    """Runs all checks that a set allows.

    Args:
        found: the set.
        trusted: others of the same kind that are known to be sound, such as sets made again from
            other seeds; three or more tell how such sets differ.
        data: real images; a hundred are used.
        effort: how thoroughly.
        seed: of networks and real images.
        tiles: each image of the sets holds tiles² smaller ones, as those of IDC do.
        kinds: of networks, hashable; a ConvNet and an MLP by default.
        progress: called as `progress(done, total)`, once for each set.

    Raises:
        ValueError: trusted sets of another shape, or data of other classes or images.
    """
    for number, other in enumerate(trusted, 1):
        _check_alike(f"trusted set {number}", other, found)
    real = None if data is None else _sample(data, found, seed)
    trusted = [_cut(_as_in(other, found), tiles) for other in trusted]
    checks, found = [_range(found)], _cut(found, tiles)
    if found.images.shape[0] < 2:
        why = "the set has one class, and these ask what leads to another"
        return [*checks, Check("networks", SKIPPED, why), *_not_applicable()]
    count = 1 + len(trusted)
    told = []
    for done, each in enumerate((found, *trusted)):
        progress(done, count)
        told.append(_told(each, real, effort, tuple(kinds), seed))
    progress(count, count)
    checks += [_patches(told[0], found.classes, on_real=data is not None), _cleansed(told[0])]
    checks += _against([each["statistics"] for each in told], found, trusted, data)
    return checks + _not_applicable()


def headline(checks: Sequence[Check]) -> str:
    """Returns what was found in a few words; never that a set is clean."""
    named = [check.name for check in checks if check.verdict == EVIDENCE]
    return f"evidence of tampering: {', '.join(named)}" if named else "no evidence found"


def write(
    path: str | os.PathLike, name: str, checks: Sequence[Check], *, about: Mapping[str, Any]
) -> None:
    """Writes the page, and the same as JSON beside it.

    Args:
        path: the HTML file; the JSON file has its name and .json.
        name: of the set.
        checks: from `inspect`.
        about: what was looked at, by words.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    path = files.expand(path)
    values = {"name": name, "headline": headline(checks), "checks": checks, "about": dict(about)}
    pages.write(path, pages.TEMPLATES.get_template("audit.html.j2").render(values))
    told = [check._asdict() for check in checks]
    record = {"set": name, "headline": headline(checks), "about": dict(about), "checks": told}
    files.write_json(path.with_suffix(".json"), {**record, **results.circumstances()})


# --- what is looked at -------------------------------------------------------------------------


def _check_alike(name, other, found):
    if other.images.shape != found.images.shape:
        raise ValueError(
            f"{name} must hold images [k, ipc, h, w, c] {found.images.shape} as the set does, "
            f"found {other.images.shape}"
        )


def _as_in(other, found):
    """A set normalised as another one is."""
    pixels = other.images * np.float32(other.std) + np.float32(other.mean)
    images = (pixels - np.float32(found.mean)) / np.float32(found.std)
    return other._replace(images=images.astype(np.float32), mean=found.mean, std=found.std)


def _cut(found, tiles):
    """A set of the images that networks see."""
    images = np.asarray(formation.split(jnp.asarray(found.images), factor=tiles))
    return found._replace(images=images, labels=found.labels.repeat(tiles**2, axis=1))


def _sample(data, found, seed):
    """A hundred real images and labels, normalised as the set."""
    shape = data.train.images.shape[1:]
    if (data.num_classes, *shape) != (len(found.images), *found.images.shape[2:]):
        raise ValueError(
            f"{data.name} must hold {len(found.images)} classes of images "
            f"{found.images.shape[2:]} as the set does, found {data.num_classes} of {shape}"
        )
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(data.train.labels))[:100]
    images = data.train.images[chosen] / np.float32(255)
    images = (images - np.float32(found.mean)) / np.float32(found.std)
    return images.astype(np.float32), data.train.labels[chosen].astype(np.int32)


def _flat(found):
    """Images `[m, h, w, c]` and labels `[m]`, sorted by class."""
    order = np.argsort(found.labels, axis=None, kind="stable")
    images = found.images.reshape(-1, *found.images.shape[2:])[order]
    return images, found.labels.ravel()[order].astype(np.int32)


def _told(found, real, effort, kinds, seed):
    """What networks trained on a set tell of it."""
    images, labels = _flat(found)
    ends = tuple(tuple(map(float, (x - found.mean) / found.std)) for x in (0, 1))
    program = _program(effort, kinds, len(found.images), images.shape[1:], ends)
    told = jax.device_get(program(jax.random.key(seed), images, labels, real))
    rates = told["scan"].rates
    statistics = {"roughness": np.array([audit.roughness(images)])}
    for place, size in enumerate(_sizes(effort, images.shape[1:])):
        top = rates[:, place].mean(0).argmax()
        margin = rates[:, place, top] - np.median(rates[:, place], axis=-1)
        statistics[f"patch of {size}"] = margin
    statistics["mask"] = -np.log(np.maximum(told["masks"].min(-1), 0.1))
    if real is not None:
        statistics |= {"gradients": told["gradients"], "STRIP": told["strip"][None]}
    return {**told, "statistics": statistics, "area": images[0, ..., 0].size}


def _sizes(effort, shape):
    return tuple(size for size in effort.sizes if size <= min(shape[:2]))


@functools.cache
def _program(effort, kinds, k, shape, ends):
    """The compiled measurements of a set."""
    depth = max(1, min(3, int(np.log2(min(shape[:2])))))
    kinds = kinds or (networks.ConvNet(k, effort.width, depth), networks.MLP(k))
    sizes = _sizes(effort, shape)
    tried = audit.patches(*shape[:2], sizes=sizes, low=ends[0], high=ends[1])

    @jax.jit
    def measured(key, images, labels, real):
        keys = jax.random.split(key, effort.seeds)
        ensemble = [(kind, _fitted(keys, kind, images, labels, effort)) for kind in kinds]
        on, of = (images, labels) if real is None else real
        few = np.linspace(0, len(of) - 1, min(effort.most, len(of))).astype(int)
        scan = audit.scan(
            ensemble, on[few], of[few], tried, sizes=sizes, num_classes=k, screen=effort.screen
        )
        few = np.linspace(0, len(labels) - 1, min(effort.most, len(labels))).astype(int)
        masks = audit.cleanse(
            *ensemble[0], images[few], labels[few], num_classes=k, low=ends[0], high=ends[1],
            steps=effort.steps, enough=0.9,
        )  # fmt: skip
        told = {"scan": scan, "masks": masks}
        if real is not None:
            told["gradients"] = audit.disagreement(keys, kinds[0], images, labels, *real)
            best = scan.rates.mean(0)[-1].argmax()
            patch = jax.tree.map(lambda x: x[-1, best], scan.patches)
            first = jax.tree.map(lambda x: x[0], ensemble[0][1])
            told["strip"] = audit.strip(key, kinds[0], first, real[0], patch)
        return told

    return measured


def _fitted(keys, network, images, labels, effort):
    fit = lambda key: training.train(
        key, network, images, labels, epochs=effort.epochs, strategy=()
    )
    return jax.lax.map(fit, keys)


# --- verdicts ----------------------------------------------------------------------------------


def _range(found):
    share, furthest = map(float, audit.outside(found.images, found.mean, found.std))
    why = (
        f"{100 * share:.1f} % of the values are no pixels in [0, 1], the furthest by {furthest:.3g}"
    )
    verdict = EVIDENCE if furthest > MAX_OVERSHOOT else NONE
    return Check(
        "range", verdict, why, {"share": share, "furthest": furthest, "may": MAX_OVERSHOOT}
    )


def _patches(told, classes, *, on_real):
    """Small patches that all networks obey."""
    lines = _best_patches(told, classes)
    small = [size for size in lines if int(size) <= min(SMALL[0], (SMALL[1] * told["area"]) ** 0.5)]
    obeyed = [size for size in small if lines[size]["agreeing"] == 1]
    seen = f"{'real images' if on_real else 'images of the set'} of other classes"
    if obeyed:
        size, line = obeyed[0], lines[obeyed[0]]
        why = (
            f"a patch of {size}×{size} pixels at {line['corner']} moves {100 * line['mean']:.0f} % "
            f"of the {seen} to {line['class']}, at least half of them in each network"
        )
        return Check("patches", EVIDENCE, why, lines)
    most = f"the largest mean of any size is {max(x['mean'] for x in lines.values()):.0%}"
    if not small:
        return Check("patches", SKIPPED, f"no patch is small beside so small images; {most}", lines)
    why = f"none of {' or '.join(small)} pixels a side moves half of the {seen} in every network"
    return Check("patches", NONE, f"{why}; {most}", lines)


def _best_patches(told, classes):
    """The patch of each size that moves most images to a class."""
    rates, corners, sizes = told["scan"].rates, *told["scan"].patches[:2]
    lines = {}
    for place, size in enumerate(sizes[:, 0]):
        top = int(rates[:, place].mean(0).argmax())
        each = rates[:, place, top]
        lines[str(size)] = {
            "class": classes[top],
            "corner": corners[place, top].tolist(),
            "mean": float(each.mean()),
            "least": float(each.min()),
            "agreeing": float((each >= 0.5).mean()),
        }
    return lines


def _cleansed(told):
    """Neural Cleanse as it was published, whose threshold is not that of so small a set."""
    masks, classes = told["masks"], told["masks"].shape[1]
    if classes < 3:
        return Check(
            "Neural Cleanse", SKIPPED, f"its index compares 3 classes or more, not {classes}"
        )
    index = float(np.mean(audit.outlying(masks)))
    why = (
        f"its anomaly index is {index:.1f}; its usual threshold, 2, is not that of networks of "
        "a few images, so that masks count against those of trusted sets only"
    )
    return Check("Neural Cleanse", SKIPPED, why, {"index": index, "masks": masks.tolist()})


def _against(statistics, found, trusted, data):
    """One check for each statistic, against those of the trusted sets."""
    names = list(statistics[0])
    if data is None:
        yield Check("gradients, STRIP", SKIPPED, "they need real images; give --data")
    if not trusted:
        why = "there is no trusted set to compare with; make the set again from other seeds"
        yield Check(", ".join((*names, "footprint")), SKIPPED, why)
        return
    values = {name: [each[name] for each in statistics] for name in names}
    if marks := _footprints(found, trusted):
        values["footprint"] = marks
    else:
        yield Check("footprint", SKIPPED, "it needs equally many images in all classes of all sets")
    for name, (own, *others) in values.items():
        if name == "footprint" and len(trusted) == 1:
            why = f"its t statistic is {own[0]:.1f} at the surest place; one set has no null"
            yield Check(name, SKIPPED, why, {"found": own.tolist()})
            continue
        yield _compared(name, own, others, len(values))


def _compared(name, own, others, count):
    if len(others) == 1 and len(own) == 1:
        why = (
            f"{own[0]:.3g} against {others[0][0]:.3g}; one trusted set does not tell how sets vary"
        )
        return Check(name, SKIPPED, why, {"found": own.tolist(), "trusted": others[0].tolist()})
    shift = audit.shift(own, np.stack(others))
    numbers = {"found": own.tolist(), "trusted": [x.tolist() for x in others]}
    numbers |= {"difference": shift.difference, "null": shift.null.tolist(), "p": shift.p}
    what = _ABOUT.get(name, "margin of the class that the best such patch moves most images to")
    means = f"{np.mean(own):.3g} against {np.mean(others):.3g}, p = {shift.p:.2g}; {what}"
    if len(others) == 1:
        why = f"{means}; this p is over networks: one trusted set does not tell how sets vary"
        return Check(name, SKIPPED, why, numbers)
    verdict = EVIDENCE if shift.p <= SIGNIFICANCE / count else NONE
    return Check(name, verdict, means, numbers)


def _footprints(found, trusted):
    """The surest place of each set against the (other) trusted ones, None where it has none."""
    sets = [cut for each in (found, *trusted) if (cut := _by_class(each)) is not None]
    if len(sets) <= len(trusted):
        return None
    marks = []
    for number, each in enumerate(sets):
        others = [other for place, other in enumerate(sets) if place not in (0, number)]
        most = [float(audit.footprint(each, other).max()) for other in others]
        marks.append(np.array([np.mean(most) if most else np.nan]))
    return marks


def _by_class(found):
    images, labels = _flat(found)
    counts = np.bincount(labels, minlength=len(found.images))
    if len(set(counts)) > 1:
        return None
    return images.reshape(len(counts), -1, *images.shape[1:])


def _not_applicable():
    return [Check(name, USELESS, why) for name, why in _NOT_APPLICABLE.items()]
