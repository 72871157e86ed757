"""Audit a synthetic set for tampering: run the statistics of `jaxdd.audit` and evaluate them.

Every check ends with one of four verdicts: evidence; no evidence found, which does not mean that
the set is clean; not run, because something is missing; or not applicable, because the check cannot
work on a set of a few images per class.
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
from jaxdd.runs import class_names, results
from jaxdd.runs.folder import store
from jaxdd.runs.reports import pages
from jaxdd.runs.trust import publication

EVIDENCE, NONE, SKIPPED = "evidence", "no evidence found", "not run"
"""Verdicts of a check. The fourth is "not applicable"."""

SIGNIFICANCE = 0.03
"""Probability of a false alarm against trusted sets, over all statistics together.

It is nominal. Student's t is too confident for few sets: at 0.05, 4 of 40 clean sets raised an
alarm, at 0.03 none, or two with real images (`experiments.tampering`, sets of DM and DSA)."""

# A patch is evidence if it has at most this side in pixels and this share of an image.
_MAX_PATCH_SIDE, _MAX_PATCH_SHARE = 2, 1 / 32

_REAL_IMAGES = 100  # maximum number of real images that are used
_MEANINGS = {
    "roughness": "share of the variance between neighbouring pixels",
    "footprint": "how consistently one pixel differs in all classes",
    "mask": "negative logarithm of the smallest mask that leads to a class, in pixels (Neural "
    "Cleanse)",
    "STRIP": "how well blended images reveal the best patch (area under the ROC curve)",
    "gradients": "one minus the cosine of the gradients on the set and on real images",
}
_PATCH_MEANING = "margin of the class that the best patch of this size moves most images to"


class Effort(NamedTuple):
    """The number of networks, and how thoroughly they are searched.

    Attributes:
        seeds: networks of each kind.
        width: width of the ConvNet.
        epochs: epochs of their training.
        sizes: side lengths of patches in pixels.
        screen: number of images that all patches are tried on.
        steps: optimisation steps for each mask.
        images: maximum number of images that masks and the best patches are tried on.
    """

    seeds: int = 4
    width: int = 32
    epochs: int = 100
    sizes: tuple[int, ...] = (1, 2, 4)
    screen: int = 4
    steps: int = 40
    images: int = 50


EFFORTS = {"quick": Effort(), "paper": Effort(10, 128, 300, (1, 2, 3, 4, 5), 16, 200, 200)}
"""Presets for two CPU cores and a few minutes, and for one GPU."""


class Check(NamedTuple):
    """The result of one check.

    Attributes:
        name: name of the check.
        verdict: one of the four verdicts listed in the module docstring.
        why: the reason, one sentence.
        numbers: numbers that the verdict is based on.
    """

    name: str
    verdict: str
    why: str
    numbers: Mapping[str, Any] = {}


_FEW = "in a class, but a class has a few images here, and tampering changes all of them"
_NOT_APPLICABLE = [
    Check("spectral signatures", "not applicable", f"it looks for a minority of outliers {_FEW}"),
    Check("activation clustering", "not applicable", f"it looks for a small cluster {_FEW}"),
]


def inspect(
    synthetic: store.Synthetic,
    *,
    trusted: Sequence[store.Synthetic] = (),
    data: datasets.Benchmark | None = None,
    effort: Effort = EFFORTS["quick"],
    seed: int = 0,
    tiles: int = 1,
    kinds: Sequence[networks.Network] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Check]:
    """Run all checks that are possible for a set.

    Args:
        synthetic: the set.
        trusted: clean sets of the same kind, such as sets distilled again with other seeds. Use
            five; with two or fewer, hardly any difference is evidence.
        data: real images, of which 100 are used.
        effort: how thorough the search is.
        seed: seed of the networks and of the choice of real images.
        tiles: each image contains tiles² smaller ones, see `methods.formation`.
        kinds: hashable networks to train. Defaults to a ConvNet and an MLP.
        progress: called as `progress(done, total)`, once per set.
    """
    for number, other in enumerate(trusted, 1):
        config = other.provenance.get("config")
        factor = publication.formation_of(config if isinstance(config, dict) else {})
        if other.images.shape != synthetic.images.shape or (config and factor != tiles):
            raise ValueError(
                f"trusted set {number} must have images {synthetic.images.shape} and formation "
                f"{tiles} like the audited set, got {other.images.shape} and {factor}"
            )
    real = None if data is None else _sample(data, synthetic, seed)
    checks = [_check_range(synthetic)]
    sets = [synthetic, *(_normalise_like(other, synthetic) for other in trusted)]
    sets = [_split_tiles(each, tiles) for each in sets]
    if len(synthetic.images) < 2:
        why = "the set has one class, and these checks look for what leads to another class"
        return [*checks, Check("networks", SKIPPED, why), *_NOT_APPLICABLE]
    measured = []
    for done, each in enumerate(sets):
        progress(done, len(sets))
        measured.append(_measure(each, real, effort, tuple(kinds), seed))
    progress(len(sets), len(sets))
    (scan, masks, _), has_data = measured[0], data is not None
    area = int(np.prod(sets[0].images.shape[2:4]))
    return [
        *checks,
        _check_patches(scan, sets[0].classes, area=area, on_real=has_data),
        _check_masks(masks),
        *_compare_all([statistics for *_, statistics in measured], sets, has_data=has_data),
        *_NOT_APPLICABLE,
    ]


def headline(checks: Sequence[Check]) -> str:
    """Return the outcome in a few words. It never says that a set is clean."""
    names = [check.name for check in checks if check.verdict == EVIDENCE]
    return f"evidence of tampering: {', '.join(names)}" if names else NONE


def write(
    path: str | os.PathLike, name: str, checks: Sequence[Check], *, about: Mapping[str, Any]
) -> None:
    """Write an HTML page, and a JSON file of the same name next to it.

    Args:
        path: the HTML file.
        name: name of the set.
        checks: from `inspect`.
        about: facts about the audit, for the table at the top of the page.
    """
    path = files.expand(path)
    values = {"name": name, "headline": headline(checks), "checks": checks, "about": dict(about)}
    pages.write(path, pages.TEMPLATES.get_template("audit.html.j2").render(values))
    record = {"set": name, "headline": headline(checks), "about": dict(about)}
    record["checks"] = [check._asdict() for check in checks]
    files.write_json(path.with_suffix(".json"), {**record, **results.circumstances()})


# --- sets --------------------------------------------------------------------------------------


def _normalise_like(other, synthetic):
    """Return a set with the normalisation and the order of classes of another one."""
    mean, std = np.float32(synthetic.mean), np.float32(synthetic.std)
    pixels = other.images * np.float32(other.std) + np.float32(other.mean)
    images = ((pixels - mean) / std).astype(np.float32)
    positions = _positions(other, _names(synthetic), "the audited set")
    order, labels = np.argsort(positions), positions[other.labels]
    return synthetic._replace(images=images[order], labels=labels[order])


def _positions(synthetic, names, of):
    """Return the position of each class of a set among named classes."""
    if not (own := _names(synthetic)):
        return np.arange(len(synthetic.images), dtype=np.int32)
    positions = class_names.positions(own, names, of=of)
    if sorted(positions) != list(range(len(own))):
        raise ValueError(f"the set must have the classes 0 to {len(own) - 1}, got {', '.join(own)}")
    return positions


def _names(synthetic):
    return synthetic.classes if synthetic.provenance.get("class_names") else ()


def _split_tiles(synthetic, tiles):
    """A set of the images that networks see."""
    images = np.asarray(formation.split(jnp.asarray(synthetic.images), factor=tiles))
    return synthetic._replace(images=images, labels=synthetic.labels.repeat(tiles**2, axis=1))


def _sample(data, synthetic, seed):
    """Real images and labels, normalised like the set."""
    classes = np.argsort(_positions(synthetic, data.class_names, data.name))  # of the set
    shape, expected = data.train.images.shape[1:], synthetic.images.shape[2:]
    if (data.num_classes, *shape) != (len(synthetic.images), *expected):
        raise ValueError(
            f"{data.name} must have {len(synthetic.images)} classes of images {expected} like the "
            f"audited set, got {data.num_classes} of {shape}"
        )
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(data.train.labels))[:_REAL_IMAGES]
    images = data.train.images[chosen] / np.float32(255)
    images = (images - np.float32(synthetic.mean)) / np.float32(synthetic.std)
    return images.astype(np.float32), classes[data.train.labels[chosen]].astype(np.int32)


def _sorted_by_class(synthetic):
    """Images `[m, h, w, c]` and labels `[m]`, sorted by class."""
    order = np.argsort(synthetic.labels, axis=None, kind="stable")
    images = synthetic.images.reshape(-1, *synthetic.images.shape[2:])[order]
    return images, synthetic.labels.ravel()[order].astype(np.int32)


def _grouped_by_class(synthetic):
    """Images `[k, ipc, h, w, c]`, None if the classes have different sizes."""
    images, labels = _sorted_by_class(synthetic)
    counts = np.bincount(labels, minlength=len(synthetic.images))
    if len(set(counts)) > 1:
        return None
    return images.reshape(len(counts), -1, *images.shape[1:])


# --- measurements ------------------------------------------------------------------------------


def _measure(synthetic, real, effort, kinds, seed):
    """Return the best patches, the masks `[m, k]`, and statistics `[m]` by name of a set."""
    images, labels = _sorted_by_class(synthetic)
    low, high = (tuple(map(float, (x - synthetic.mean) / synthetic.std)) for x in (0, 1))
    program = _compiled(effort, kinds, len(synthetic.images), images.shape[1:], low, high)
    scan, masks, with_data = jax.device_get(program(jax.random.key(seed), images, labels, real))
    statistics = {"roughness": np.array([audit.roughness(images)])}
    for place, size in enumerate(_fitting_sizes(effort, images.shape[1:])):
        rates = scan.rates[:, place]
        top = rates.mean(0).argmax()
        statistics[f"patch of {size}"] = rates[:, top] - np.median(rates, axis=-1)
    statistics["mask"] = -np.log(np.maximum(masks.min(-1), 0.1))
    return scan, masks, statistics | with_data


def _fitting_sizes(effort, shape):
    return tuple(size for size in effort.sizes if size <= min(shape[:2]))


@functools.cache
def _compiled(effort, kinds, k, shape, low, high):
    """The compiled measurements of sets of one shape: networks, patches, masks, real images."""
    depth = max(1, min(3, int(np.log2(min(shape[:2])))))
    kinds = kinds or (networks.ConvNet(k, effort.width, depth), networks.MLP(k))
    sizes = _fitting_sizes(effort, shape)
    candidates = audit.patches(*shape[:2], sizes=sizes, low=low, high=high)

    def evenly(count):
        return np.linspace(0, count - 1, min(effort.images, count)).astype(int)

    @jax.jit
    def measure(key, images, labels, real):
        keys = jax.random.split(key, effort.seeds)
        ensemble = [(kind, _train(keys, kind, images, labels, effort)) for kind in kinds]
        shown, shown_labels = (images, labels) if real is None else real
        few = evenly(len(shown_labels))
        scan = audit.scan_patches(
            ensemble, shown[few], shown_labels[few], candidates, sizes=sizes, num_classes=k,
            screen=effort.screen,
        )  # fmt: skip
        few = evenly(len(labels))
        masks = audit.neural_cleanse(
            *ensemble[0], images[few], labels[few], num_classes=k, low=low, high=high,
            steps=effort.steps, enough=0.9,
        )  # fmt: skip
        if real is None:
            return scan, masks, {}
        gradients = audit.gradient_disagreement(keys, kinds[0], images, labels, *real)
        best = scan.rates.mean(0)[-1].argmax()
        patch = jax.tree.map(lambda x: x[-1, best], scan.patches)
        params = jax.tree.map(lambda x: x[0], ensemble[0][1])
        area = audit.strip(key, kinds[0], params, real[0], patch)
        return scan, masks, {"gradients": gradients, "STRIP": area[None]}

    return measure


def _train(keys, network, images, labels, effort):
    train = lambda key: training.train(
        key, network, images, labels, epochs=effort.epochs, strategy=()
    )
    return jax.lax.map(train, keys)


# --- verdicts ----------------------------------------------------------------------------------


def _check_range(synthetic):
    share, furthest = map(
        float, audit.out_of_range(synthetic.images, synthetic.mean, synthetic.std)
    )
    why = f"{share:.1%} of the values are outside the range of pixels, by {furthest:.3g} at most"
    limit = publication.MAX_OVERSHOOT
    numbers = {"share": share, "furthest": furthest, "limit": limit}
    return Check("range", EVIDENCE if furthest > limit else NONE, why, numbers)


def _check_patches(scan, names, *, area, on_real):
    """Check for small patches that move images to a class in all networks."""
    by_size = _best_patches(scan, names)
    max_side = min(_MAX_PATCH_SIDE, (_MAX_PATCH_SHARE * area) ** 0.5)
    small = {size: best for size, best in by_size.items() if int(size) <= max_side}
    images = f"{'real images' if on_real else 'images of the set'} of other classes"
    for size, best in small.items():
        if best["networks"] == 1:
            why = (
                f"a patch of {size}×{size} pixels at {best['corner']} moves {best['mean']:.0%} of "
                f"the {images} to {best['class']}, at least half of them in each network"
            )
            return Check("patches", EVIDENCE, why, by_size)
    largest = f"the largest mean of any size is {max(x['mean'] for x in by_size.values()):.0%}"
    if not small:
        why = f"the images are too small for a patch to be small; {largest}"
        return Check("patches", SKIPPED, why, by_size)
    why = (
        f"no patch of {' or '.join(small)} pixels a side moves half of the {images} in all networks"
    )
    return Check("patches", NONE, f"{why}; {largest}", by_size)


def _best_patches(scan, names):
    """The patch of each size that moves most images to a class."""
    best = {}
    for place, size in enumerate(scan.patches.size[:, 0]):
        top = int(scan.rates[:, place].mean(0).argmax())
        rates = scan.rates[:, place, top]
        best[str(size)] = {
            "class": names[top],
            "corner": scan.patches.corner[place, top].tolist(),
            "mean": float(rates.mean()),
            "minimum": float(rates.min()),
            "networks": float((rates >= 0.5).mean()),
        }
    return best


def _check_masks(masks):
    """Run Neural Cleanse as published; its threshold does not hold for so small a set."""
    classes = masks.shape[1]
    if classes < 3:
        why = f"its index compares 3 classes or more, got {classes}"
        return Check("Neural Cleanse", SKIPPED, why)
    index = float(np.mean(audit.anomaly_index(masks)))
    why = (
        f"its anomaly index is {index:.1f}; the usual threshold, 2, is not valid for networks "
        "trained on a few images, so masks only count in comparison with trusted sets"
    )
    return Check("Neural Cleanse", SKIPPED, why, {"index": index, "masks": masks.tolist()})


def _compare_all(statistics, sets, *, has_data):
    """Return one check per statistic, compared with those of the trusted sets."""
    names, num_trusted = list(statistics[0]), len(sets) - 1
    if not has_data:
        yield Check("gradients, STRIP", SKIPPED, "they need real images; pass --dataset")
    if not num_trusted:
        why = "there is no trusted set to compare with; distil the set again with other seeds"
        yield Check(", ".join((*names, "footprint")), SKIPPED, why)
        return
    values = {name: [each[name] for each in statistics] for name in names}
    if footprints := _footprints(sets):
        values["footprint"] = footprints
    else:
        why = "it needs the same number of images in all classes of all sets"
        yield Check("footprint", SKIPPED, why)
    for name, (own, *others) in values.items():
        if name == "footprint" and num_trusted == 1:
            why = f"its largest t statistic is {own[0]:.1f}; a null distribution needs several sets"
            yield Check(name, SKIPPED, why, {"set": own.tolist()})
        else:
            yield _compare(name, own, others, count=len(values))


def _compare(name, own, others, *, count):
    numbers = {"set": own.tolist(), "trusted": [values.tolist() for values in others]}
    means = f"{np.mean(own):.3g} against {np.mean(others):.3g}"
    if len(others) == 1 and len(own) == 1:
        why = f"{means}; a single trusted set does not show how sets vary"
        return Check(name, SKIPPED, why, numbers)
    comparison = audit.compare(own, np.stack(others))
    numbers |= {"difference": comparison.difference, "p": comparison.p}
    numbers["null"] = comparison.null.tolist()
    why = f"{means}, p = {comparison.p:.2g}; {_MEANINGS.get(name, _PATCH_MEANING)}"
    if len(others) == 1:
        why += "; p is over networks only, a single trusted set does not show how sets vary"
        return Check(name, SKIPPED, why, numbers)
    # Bonferroni: the significance level is shared by all statistics.
    verdict = EVIDENCE if comparison.p <= SIGNIFICANCE / count else NONE
    return Check(name, verdict, why, numbers)


def _footprints(sets):
    """Return the largest footprint of each set against the other trusted ones, if possible."""
    grouped: list[Any] = [_grouped_by_class(synthetic) for synthetic in sets]
    if any(images is None for images in grouped):
        return None
    footprints = []
    for number, images in enumerate(grouped):
        others = [other for place, other in enumerate(grouped) if place not in (0, number)]
        largest = [float(audit.footprint(images, other).max()) for other in others]
        footprints.append(np.array([np.mean(largest) if largest else np.nan]))
    return footprints
