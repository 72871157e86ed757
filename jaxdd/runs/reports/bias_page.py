"""Look for a bias in a data set, without distillation, and write a page about it.

`find` chooses weights for a part of the training samples, as `weights.choose` does, and scores how
likely each sample conflicts with the bias. Bias labels are used only to score that result.
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
from jaxdd.runs.reports import figure_data, pages, tables
from jaxdd.weights import formulas


class Finding(NamedTuple):
    """The result of looking for a bias.

    Attributes:
        choice: The choice of weights; its rejection is None if a bias was detected.
        samples: Indices of the training samples that were analysed, `[m]`.
        conflict_score: Score of each sample, `[m]`, larger if it is more likely bias-conflicting;
            None if no bias was detected.
        auc: Area under the curve of the score for conflicting samples, or None if the bias labels
            are unknown.
    """

    choice: weights.Choice
    samples: np.ndarray
    conflict_score: np.ndarray | None
    auc: float | None


def find(
    data: datasets.Benchmark,
    *,
    seed: int = 0,
    max_samples: int = 15_000,
    mesh: jax.sharding.Mesh | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> Finding:
    """Look for a bias in the training set.

    Args:
        data: From `benchmarks.load`, `datasets.from_arrays` or `datasets.from_folder`.
        seed: Random seed of the samples, features, encoders and probe networks.
        max_samples: Number of samples to analyse at most; every class contributes its share.
        mesh: Devices that share the images, from `parallel.mesh`. Defaults to one device.
        progress: Called as `progress(done, total)`.
        **options: Options of `weights.choose`, such as a shorter `search`.
    """
    key_samples, key = jax.random.split(jax.random.key(seed))
    labels = data.train.labels
    share = min(1.0, max_samples / len(labels))
    counts = np.ceil(np.bincount(labels, minlength=data.num_classes) * share)
    # Samples are drawn without replacement: the first ranks of each class in a random order.
    order = np.asarray(jax.random.uniform(key_samples, labels.shape))
    samples = np.flatnonzero(bias.rank_in_class(order, labels, xp=np) < counts[labels])
    train = datasets.select(data.train, samples)
    index = functools.partial(split_pool.pool, mesh=mesh) if mesh else sampling.pool
    pool = datasets.pool(data._replace(train=train), index=index)
    choice = weights.choose(key, pool, strategy=data.strategy, report=progress, **options)
    score = _conflict_score(choice)
    return Finding(choice, samples, score, _auc(score, train, data))


def _conflict_score(choice):
    if choice.features:
        # Features are treated as independent: a sample is aligned if it is aligned with all of
        # the biases, with probability Π(1 - p).
        scores = [np.asarray(x.conflict_score) for x in choice.features.values()]
        return 1 - np.prod([1 - score for score in scores], 0)
    return None if choice.density is None else -np.asarray(choice.density.log_density)


def _auc(score, train, data):
    if score is None or train.attributes is None or data.aligned is None:
        return None
    # `diagnose` expects weights, which are not negative. Ranks have the same AUC.
    ranks = np.unique(score, return_inverse=True)[1].astype(np.float32)
    arrays = map(jnp.asarray, (ranks, train.labels, train.attributes, data.aligned))
    sizes = dict(num_classes=data.num_classes, num_attributes=data.num_attributes)
    return float(formulas.diagnose(*arrays, **sizes).conflict_auc)


def headline(finding: Finding) -> str:
    """Return the finding in a few words."""
    if finding.choice.features:
        return f"a bias in the {finding.choice.feature_names} of the images"
    if finding.conflict_score is not None:
        return "a bias that is learned before the classes"
    untested = "" if finding.choice.shortcuts else ", but the shortcut test was not possible"
    return f"no bias detected{untested}"


def write(path: str | os.PathLike, finding: Finding, data: datasets.Benchmark) -> None:
    """Write the page about a finding in `data` as one HTML file, atomically."""
    record, score = finding.choice.record(), finding.conflict_score
    grids = {}
    if score is not None:
        for name, order in (("aligned", score), ("conflicting", -score)):
            samples = finding.samples[np.argsort(order, kind="stable")]
            images = figure_data.first_images(data, samples)
            grids[name] = pages.grid(images, data.class_names, num_classes=data.num_classes)
    values: dict[str, Any] = {
        "dataset": data.name, "headline": headline(finding), "finding": finding, "choice": record,
        "tables": tables.choice(record), "total": len(data.train.labels), "grids": grids,
    }  # fmt: skip
    pages.write(path, pages.TEMPLATES.get_template("bias.html.j2").render(values))
