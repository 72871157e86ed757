"""Is there a bias, and what does it look like? A page about a data set, without distilling it.

`find` chooses weights for a part of the training samples, as `weights.choose` does, and says which
of them conflict most surely with the bias that the weights undo. `render` makes a page of it. Bias
attributes score what was found and do nothing else.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdd import sampling, weights
from jaxdd.data import bias, datasets
from jaxdd.devices import split_pool
from jaxdd.runs.reports import pages, plot
from jaxdd.weights import formulas

_CLASSES, _COLUMNS = 20, 8  # of the pictures, at most


class Finding(NamedTuple):
    """What was found.

    Attributes:
        choice: of weights for the samples; its rejection is None where there is a bias.
        samples: `[m]` indices of the training samples that were looked at.
        doubt: `[m]`, larger where a sample conflicts more surely; None where there is no bias.
        auc: of finding the conflicting samples by it, None where attributes are not known.
    """

    choice: weights.Choice
    samples: np.ndarray
    doubt: np.ndarray | None
    auc: float | None


def find(
    data: datasets.Benchmark,
    *,
    seed: int = 0,
    most: int = 15_000,
    mesh: jax.sharding.Mesh | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **choosing: Any,
) -> Finding:
    """Looks for a bias in the training set.

    Args:
        data: from `benchmarks.load`, `datasets.from_arrays` or `datasets.from_folder`.
        seed: of the samples, the views, the encoders and the networks that judge.
        most: samples that are looked at, of each class its share.
        mesh: from `parallel.mesh`, whose devices share the images; None for one device.
        progress: called as `progress(done, total)`.
        **choosing: options of `weights.choose`, such as a shorter `search`.
    """
    key_samples, key = jax.random.split(jax.random.key(seed))
    labels = data.train.labels
    share = min(1.0, most / len(labels))
    kept = np.ceil(np.bincount(labels, minlength=data.num_classes) * share)
    draws = np.asarray(jax.random.uniform(key_samples, labels.shape))
    samples = np.flatnonzero(bias.rank_in_class(draws, labels, xp=np) < kept[labels])
    train = datasets.select(data.train, samples)
    index = functools.partial(split_pool.pool, mesh=mesh) if mesh else sampling.pool
    pool = datasets.pool(data._replace(train=train), index=index)
    choice = weights.choose(key, pool, strategy=data.strategy, report=progress, **choosing)
    doubt = _doubt(choice)
    return Finding(choice, samples, doubt, _auc(doubt, train, data))


def _doubt(choice):
    if choice.feature_names is not None:
        return 1 - np.prod(
            [1 - np.asarray(each.conflict_score) for each in choice.features.values()], 0
        )
    return None if choice.density is None else -np.asarray(choice.density.log_density)


def _auc(doubt, train, data):
    if doubt is None or train.attributes is None or data.aligned is None:
        return None
    ranks = np.unique(doubt, return_inverse=True)[1].astype(np.float32)  # no negative weights
    known = map(jnp.asarray, (ranks, train.labels, train.attributes, data.aligned))
    sizes = dict(num_classes=data.num_classes, num_attributes=data.num_attributes)
    return float(formulas.diagnose(*known, **sizes).conflict_auc)


def headline(found: Finding) -> str:
    """Returns what was found in a few words."""
    if found.choice.feature_names is not None:
        return f"a bias in the {found.choice.feature_names} of the images"
    if found.doubt is not None:
        return "a bias that is learnt before the classes"
    unseen = "" if found.choice.shortcuts else ", though no view of the images was compared"
    return f"no bias found{unseen}"


def write(path: str | os.PathLike, found: Finding, data: datasets.Benchmark) -> None:
    """Writes the page, whole or not at all.

    Args:
        path: the HTML file.
        found: from `find`.
        data: the same.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    pages.write(path, render(found, data))


def render(found: Finding, data: datasets.Benchmark) -> str:
    """Returns the page as HTML.

    Args:
        found: from `find`.
        data: the same.
    """
    choice = found.choice.record()
    values: dict[str, Any] = {
        "dataset": data.name,
        "headline": headline(found),
        "found": found,
        "choice": choice,
        "balances": pages.by_temperature(choice),
        "total": len(data.train.labels),
        "grids": {} if found.doubt is None else _grids(found, data),
    }
    return pages.TEMPLATES.get_template("findings.html.j2").render(values)


def _grids(found, data):
    """The images that agree with the bias most surely, and those that conflict."""
    names = list(map(str, data.class_names or range(data.num_classes)))[:_CLASSES]
    cut = [("classes", len(names), data.num_classes)] if data.num_classes > len(names) else []

    def draw(doubt):
        drawn = _surest(found.samples, doubt, data)
        zero = np.zeros(drawn.shape[-1])
        return pages.grid(drawn, mean=zero, std=zero + 1, names=names, cut=cut)

    return {"agree": draw(-found.doubt), "conflict": draw(found.doubt)}


def _surest(samples, doubt, data):
    """Of each class the images of largest doubt; white where there are fewer."""
    order = samples[np.argsort(-doubt, kind="stable")]
    sizes = dict(num_classes=min(data.num_classes, _CLASSES), columns=_COLUMNS)
    return plot.first_images(data.train.images, data.train.labels, order, **sizes)
