"""Which detector finds the conflicting samples: density, a head on the encoder, or networks?

    python -m experiments.detectors --data-dir DIR

Every detector ends in probabilities of the classes for each sample, from a head or a network that
has not seen it, and these in groups of equal mass (`weights.from_probabilities`); density is the
paper's way as it is. Of the views that cannot see the object, the best one for each data set stands
in `results/shortcuts.json`.

* density: inverse density in the space of an encoder of 30 steps, `weights.by_density`.
* encoder: a head on the same embedding (`probes.crossfit`, power .7).
* networks: ConvNets of width 32 with batch norm along the generalised cross-entropy, 200 steps, two
  folds, the mean of three states (`truncated.crossfit`).
* deep: the deep branch of a ResNet-20 that was trained beside a shallow one, both before one head,
  along the cross-entropy (`depths.crossfit`): 1,000 steps of 128 images, where the paper has 19,000
  of 256 on a GPU; two folds, the mean of three states.

Blocks of classes are those that the surest view has found, for all. *Error of the share* is the
distance of the mean doubt from the true share of conflicting samples, which no detector is told.

Expected, written on 24 November 2026 before the run: networks find corruptions better than the
encoder and worse than the texture, colours as well as the tone, and natural backgrounds not at all,
since clothes are learnt before scenes. Five minutes for each data set on two cores.
Written on the same day before the first run of deep branches: these find corruptions at least as
well as networks along a truncated loss (AUC .92), since depth is what takes them up, colours as
all do, and natural backgrounds no better than the rest. Half an hour for each on one core.
(Corruptions and backgrounds alone were run: it was an hour for each.)

Found (24 November 2026): networks are better than a head on the encoder everywhere, and worse than
the view that sees the bias (AUC .991, .996 and .737 in `results/shortcuts.json`) but for colours,
which all see; on natural backgrounds hardly better than chance. A head on the encoder is better
than its density, with the same AUC among corruptions and colours. What networks say of the share of
conflicting samples is right to half a hundredth on corrupted and grey images, to two with colours.
The seconds are those of a machine with other work. Deep branches find corruptions better than the
encoder and, against what was expected, worse than networks along a truncated loss (AUC .894), at
four times their price and after a fortieth of the paper's images; they find natural backgrounds
worst of all (.619). A GPU would say whether the rest of the way changes that.
"""

import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import tyro

from experiments import shortcuts
from experiments.tools import depths, grid, truncated
from jaxdd import sampling, weights
from jaxdd.data import datasets, files
from jaxdd.runs import components, programs, timing
from jaxdd.runs import old_results as results
from jaxdd.runs.options import make
from jaxdd.weights import probes

DETECTORS = ("density", "encoder", "networks", "deep")
LOOKED_AT = ("ccifar10", "cifar10-s", "bgfmnist", "cmnist", "cfmnist-bg")
DEEP = dict(steps=1000, batch_size=128)
SCORES = {
    "auc": ("AUC", ".3f"),
    "precision": ("precision", ".2f"),
    "conflict_weight_share": ("mass", ".2f"),
    "balance": ("balance", ".2f"),
    "effective_sample_size": ("effective sample size", ".0f"),
    "share_error": ("error of the share", ".3f"),
    "seconds": ("seconds", ".0f"),
}


def detectors(
    key: jax.Array, pool: sampling.Pool, data: datasets.Benchmark, blocks: tuple[int, ...]
) -> dict[str, Callable[[], tuple[jax.Array, jax.Array]]]:
    """Functions to weights and doubts `[n]`, in the order of `DETECTORS`."""
    k = pool.num_classes
    encode = functools.cache(lambda: weights.encode(key, pool, strategy=data.strategy))

    def density():
        found = weights.density(encode().embeddings, pool)
        return weights.from_density(found.log_density, pool), -found.log_density

    def grouped(told):
        of = np.eye(max(blocks) + 1, dtype=np.float32)[list(blocks)]
        seen = weights.from_probabilities(told @ of, pool, blocks=blocks)
        return seen.weights, seen.conflict_score

    def encoder():
        embeddings = encode().embeddings
        told = probes.crossfit(key, embeddings, pool.labels, num_classes=k, power=0.7)
        return grouped(told)

    networks = lambda: grouped(truncated.crossfit(key, pool))
    deep = lambda: grouped(depths.crossfit(key, pool, **DEEP))
    return dict(zip(DETECTORS, (density, encoder, networks, deep), strict=True))


def blocks_of(name: str, path: pathlib.Path, num_classes: int) -> tuple[int, ...]:
    """Blocks of classes by the surest view that is a shortcut; the classes where none is."""
    found = files.read_json(path)["judged"][f"{name}, seed 0"]["views"]
    best = max((each for each in found.values()), key=lambda each: each["z_score"])
    seen = probes.Shortcut(*(best[field] for field in probes.Shortcut._fields))
    return tuple(seen.blocks) if weights.is_shortcut(seen) else tuple(range(num_classes))


def measured(
    detect: Callable[[], tuple[jax.Array, jax.Array]], data: datasets.Benchmark, share: bool
) -> dict[str, float]:
    """The scores of a detector, by the attributes."""
    with timing.timed(took := {}, "seconds"):
        found, doubt = jax.block_until_ready(detect())
    scores = shortcuts.judged(found, doubt, data) | took
    if share:
        labels, attributes = data.train.labels, data.train.attributes
        true = np.mean(attributes != np.asarray(data.aligned)[labels])
        scores["share_error"] = float(abs(doubt.mean() - true))
    return scores


def lines(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of the table of what was measured."""
    titles = [title for title, _ in SCORES.values()]
    yield f"| [data set](experiments/results/{path.name}) | detector | {' | '.join(titles)} |"
    yield f"|---|---|{'--:|' * len(titles)}"
    for name, row in files.read_json(path)["judged"].items():
        for detector, found in row["detectors"].items():
            numbers = [
                format(found[score], digits) if score in found else "–"
                for score, (_, digits) in SCORES.items()
            ]
            yield f"| {name.split(',')[0]} | {detector} | {' | '.join(numbers)} |"


def main(
    *,
    data_dir: pathlib.Path | None = None,
    only: str | None = None,
    out: pathlib.Path = grid.RESULTS / "detectors.json",
) -> None:
    """Asks every detector of which `out` does not hold yet what it says of a data set.

    Args:
        data_dir: folder with the original files.
        only: names of data sets, separated by commas.
        out: JSON file.
    """
    programs.prepare()
    report: dict[str, Any] = files.read_json(out) if out.exists() else {"judged": {}}
    for name in LOOKED_AT if only is None else only.split(","):
        line = f"{name}, seed 0"
        row = report["judged"].setdefault(line, {"detectors": {}})
        missing = [each for each in DETECTORS if each not in row["detectors"]]
        if not missing:
            continue
        options = make(conflict=0.05)
        data = grid.load(name, options, data_dir=data_dir)
        pool = datasets.pool(data)
        blocks = blocks_of(name, grid.RESULTS / "shortcuts.json", pool.num_classes)
        detect = detectors(components.key(options, "encoder"), pool, data, blocks)
        for each in missing:
            row["detectors"][each] = measured(detect[each], data, each != "density")
            row.update(results.circumstances())
            files.write_json(out, report)
    print("\n".join(lines(out)))


if __name__ == "__main__":
    tyro.cli(main)
