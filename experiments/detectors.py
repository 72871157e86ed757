"""Which detector detects bias-conflicting samples: density, a head on the encoder, or networks?

    python -m experiments.detectors --data-dir DIR

Detectors yield out-of-fold class probabilities for each sample, from which
`weights.from_probabilities` computes weights that balance the groups. Density is the unchanged
method of the paper. The best object-blind features for each data set are in results/shortcuts.json.

* density: inverse density in the space of an encoder of 30 steps, `weights.by_density`.
* encoder: a head on the same embedding (`probes.crossfit`, power 0.7).
* networks: ConvNets of width 32 with batch norm trained with the generalised cross-entropy, 200
  steps, two folds, mean of three checkpoints (`truncated.crossfit`).
* deep: the deep branch of a ResNet-20 that was trained together with a shallow one before a shared
  head (`depths.TwoDepths`): 1,000 steps of 128 images instead of the paper's 19,000 of 256; two
  folds, mean of three checkpoints.

All detectors use the blocks of classes of the best shortcut. *Error of the share* is the distance
of the mean bias-conflict score from the true conflict share, which is not an input of any detector.

Hypothesis, written on 24 November 2026 before the runs: networks detect corruptions better than the
encoder and worse than texture, colours as well as tone, and natural backgrounds not at all, because
clothes are learned before scenes. Deep branches detect corruptions at least as well as networks
(AUC 0.92), colours as well as the others, and natural backgrounds no better.

Cost: five minutes per data set on two cores; an hour for the deep branches.
Result (24 November 2026): networks beat a head on the encoder everywhere, and are worse than the
features that show the bias (AUC 0.991, 0.996 and 0.737 in results/shortcuts.json) except for
colours, which all detect; on natural backgrounds they are hardly better than chance. A head on the
encoder is better than its density, with equal AUC on corruptions and colours. The conflict share
that networks estimate is accurate to 0.005 on corrupted and grey images, to 0.02 with colours. Deep
branches (AUC 0.894) beat the encoder on corruptions but, against the hypothesis, not networks, at
four times their cost and with a fortieth of the paper's training images. On natural backgrounds
they are worst (0.619). Longer training was not tested.
"""

import functools
import itertools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments import shortcuts
from experiments.tools import depths, grid, markdown, record, truncated, words
from jaxdd import sampling, weights
from jaxdd.data import datasets
from jaxdd.runs import components, programs, timing
from jaxdd.runs.options import make
from jaxdd.weights import probes

OUT = grid.RESULTS / "detectors.json"
DETECTORS = ("density", "encoder", "networks", "deep")
DATASETS = ("ccifar10", "cifar10-s", "bgfmnist", "cmnist", "cfmnist-solid-bg")
DEEP: dict[str, Any] = dict(steps=1000, batch_size=128, q=0.0, optimizer=depths.OPTIMIZER)
SCORES = shortcuts.SCORES | {
    "share_error": ("error of the conflict share in points", ".1%"),
    "seconds": ("seconds", ".0f"),
}


def detectors(
    key: jax.Array, pool: sampling.Pool, data: datasets.Benchmark, blocks: tuple[int, ...]
) -> dict[str, Callable[[], tuple[jax.Array, jax.Array]]]:
    """Return functions that compute weights and bias-conflict scores `[n]`, one per detector."""
    encode = functools.cache(lambda: weights.encode(key, pool, strategy=data.strategy).embeddings)

    def density():
        log_density = weights.density(encode(), pool).log_density
        return weights.from_density(log_density, pool), -log_density

    def group(probabilities):
        onehot = np.eye(max(blocks) + 1, dtype=np.float32)[list(blocks)]
        by_group = weights.from_probabilities(probabilities @ onehot, pool, blocks=blocks)
        return by_group.weights, by_group.conflict_score

    def encoder():
        sizes = dict(num_classes=pool.num_classes, power=0.7)
        return group(probes.crossfit(key, encode(), pool.labels, **sizes))

    networks = lambda: group(truncated.crossfit(key, pool))

    def deep():
        network = depths.TwoDepths(pool.num_classes)
        branches = dict(network=network, predictor=network.clone(alone=True))
        return group(truncated.crossfit(key, pool, **branches, **DEEP))

    return dict(zip(DETECTORS, (density, encoder, networks, deep), strict=True))


def blocks_of(name: str, path: pathlib.Path, num_classes: int) -> tuple[int, ...]:
    """Return the blocks of classes of the best shortcut, or single classes without a shortcut."""
    rows = record.measured(path)[f"{name}, seed 0"]["features"]
    best = max(rows.values(), key=lambda row: row["z_score"])
    shortcut = probes.Shortcut(*(best[field] for field in probes.Shortcut._fields))
    is_shortcut = weights.is_shortcut(shortcut)
    return tuple(shortcut.blocks) if is_shortcut else tuple(range(num_classes))


def measure(
    detect: Callable[[], tuple[jax.Array, jax.Array]], data: datasets.Benchmark, share: bool
) -> dict[str, float]:
    """Return the scores of a detector, with the error of the share if it estimates one."""
    with timing.timed(spent := {}, "seconds"):
        sample_weights, conflict_score = jax.block_until_ready(detect())
    scores = shortcuts.score(sample_weights, conflict_score, data) | spent
    if share:
        conflicting = data.train.attributes != np.asarray(data.aligned)[data.train.labels]
        scores["share_error"] = float(abs(conflict_score.mean() - np.mean(conflicting)))
    return scores


def tables(path: pathlib.Path = OUT) -> list[list[str]]:
    """Return the table of the results."""
    rows = [
        [words.title(name), detector, *shortcuts.format_scores(SCORES, scores)]
        for title, scores in record.measured(path).items()
        for name, detector in [title.split(", ")]
    ]
    titles = (markdown.link("data set", path), "detector")
    return [markdown.table([*titles, *(title for title, _ in SCORES.values())], rows, left=(0, 1))]


def tasks(data_dir: pathlib.Path | None) -> record.Tasks:
    """Return functions that measure each detector on each data set."""
    programs.prepare()

    @functools.lru_cache(1)
    def prepare(name):
        options = make(conflict=0.05)
        data = grid.load(name, options, data_dir=data_dir)
        pool = datasets.pool(data)
        blocks = blocks_of(name, grid.RESULTS / "shortcuts.json", pool.num_classes)
        return data, detectors(components.key(options, "encoder"), pool, data, blocks)

    def task(name, detector):
        data, detect = prepare(name)
        return measure(detect[detector], data, detector != "density")

    pairs = itertools.product(DATASETS, DETECTORS)
    return {", ".join(pair): functools.partial(task, *pair) for pair in pairs}


if __name__ == "__main__":
    record.main(OUT, tasks, tables)
