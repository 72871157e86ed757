"""Look for a bias in a data set, without distillation.

`find` chooses weights for a part of the training samples, as `weights.choose` does. Bias labels are
used only to score the result.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdd import sampling, weights
from jaxdd.data import bias, datasets
from jaxdd.devices import split_pool
from jaxdd.weights import formulas


class Finding(NamedTuple):
    """The result of looking for a bias.

    Attributes:
        choice: the choice of weights of the analysed samples.
        samples: indices of the training samples that were analysed, `[m]`.
        auc: for each candidate, the area under the curve of its bias-conflict score for
            bias-conflicting samples within the classes; None if bias labels are unknown.
        to_label: indices of training images whose bias labels would help most, `[q]`.
        file_checks: records of the checks of image files; empty if the data are not a folder.
        dataset: data set and its options as on the command line, for example
            "cmnist --conflict 0.05"; for commands that are shown.
        conflict_score: score of each sample, `[m]`, larger if it is more likely bias-conflicting;
            None if no bias was detected.
    """

    choice: weights.Choice
    samples: np.ndarray
    auc: dict[str, float] | None
    to_label: np.ndarray
    file_checks: Sequence[dict[str, Any]]
    dataset: str
    conflict_score: np.ndarray | None


def find(
    data: datasets.Benchmark,
    *,
    dataset: str | None = None,
    seed: int = 0,
    max_samples: int = 15_000,
    mesh: jax.sharding.Mesh | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> Finding:
    """Look for a bias in the training set.

    Args:
        data: from `benchmarks.load`, `datasets.from_arrays` or `datasets.from_folder`.
        dataset: data set and its options as on the command line. Defaults to the name of the data.
        seed: random seed of the samples, features, encoders and probe networks.
        max_samples: number of samples to analyse at most; every class contributes its share.
        mesh: devices that share the images, from `parallel.mesh`. Defaults to one device.
        progress: called as `progress(done, total)`.
        **options: options of `weights.choose`, such as a shorter `search`.
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
    none = np.zeros(0, int)
    auc = _auc(score, train, data)
    return Finding(choice, samples, auc, none, (), dataset or data.name, score)


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
    return {"all": float(formulas.diagnose(*arrays, **sizes).conflict_auc)}


def headline(finding: Finding) -> str:
    """Return the finding in a few words."""
    if finding.choice.features:
        return f"a bias in the {finding.choice.feature_names} of the images"
    if finding.conflict_score is not None:
        return "a bias that is learned before the classes"
    untested = "" if finding.choice.shortcuts else ", but the shortcut test was not possible"
    return f"no bias detected{untested}"
