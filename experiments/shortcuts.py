"""What do views that cannot see the object see? Tone and texture on nine data sets.

    python -m experiments.shortcuts --data-dir DIR

For each data set and seed, and for each view of `views.NAMED`:

* is it a shortcut: errors of a head on the view and of one on patches, in the blocks of classes
  where the first does best, and by how many standard errors it errs less;
* does it find the conflicting samples: area under the curve (AUC) of one less the probability of
  the group of the sample's own class, within the classes, and the share of conflicting samples
  among as many of the least probable as there are conflicting ones (precision);
* what are weights worth that give its groups equal mass: mass on conflicting samples, balance of
  the bias groups and effective sample size, by the attributes.

Fixed on 2026-11-22 on these nine sets, all of which had been looked at before: tone and texture as
the views that are asked, the threshold of three standard errors, blocks of at most three quarters
of the samples and at least half as sure as the best, on one half of 15,000 samples, and the other
half for the comparison; and of the
weights the power .7 of the loss, and a tenth of the samples as the share that is taken to conflict
before looking. No other data set had been opened then.

Colour and brightness are seen by tone, corruptions by texture, grey images by either. Among natural
backgrounds both see clothes rather than scenes, and neither is a shortcut; nor is anything
where no bias is. Coloured digits and clothes are told by patches as well as by tone, so that auto
goes by its search there. A minute for each set and seed on two cores.
"""

import itertools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from sklearn import metrics

from experiments.tools import grid
from jaxdd import reweight, sampling, views, weights
from jaxdd.data import datasets, files
from jaxdd.runs import parts, results, timing
from jaxdd.runs.options import make

BIASED = "cmnist", "cfmnist", "cfmnist-bg", "ccifar10", "cifar10-s", "bgfmnist"
UNBIASED = "mnist", "fashion_mnist", "cifar10"


def seen(key: jax.Array, pool: sampling.Pool, data: datasets.Benchmark) -> dict[str, Any]:
    """What every view sees of a pool, and whether it is a shortcut.

    Args:
        key: of the comparison and the folds.
        pool: the training samples.
        data: what they are; what it knows of attributes judges and is used for nothing else.
    """
    with timing.timed(seconds := {}, "compare"):
        found = weights.shortcuts(key, pool, blind=views.NAMED)
    told = {}
    for name, view in views.NAMED.items():
        certain = found[name].deviations > weights.CERTAIN
        blocks = found[name].blocks if certain else tuple(range(data.num_classes))
        with timing.timed(took := {}, "weigh"):
            by_view = jax.block_until_ready(weights.by_view(key, pool, view, blocks=blocks))
        told[name] = {**found[name]._asdict(), **took}
        if data.train.attributes is not None:
            told[name] |= judged(by_view, blocks, data)
    return {"views": told, "seconds": seconds["compare"], "samples": len(pool.labels)}


def judged(
    found: weights.Seen, blocks: tuple[int, ...], data: datasets.Benchmark
) -> dict[str, float]:
    """How well a view finds the conflicting samples, by the attributes."""
    labels, attributes = data.train.labels, data.train.attributes
    conflicts = attributes != np.asarray(data.aligned)[labels]
    own = np.asarray(blocks)[labels]
    doubt = 1 - np.asarray(found.groups)[np.arange(len(labels)), own]
    classes = [np.flatnonzero(labels == k) for k in np.unique(labels[conflicts])]
    known = labels, attributes, np.asarray(data.aligned)
    sizes = dict(num_classes=data.num_classes, num_attributes=data.num_attributes)
    diagnosis = reweight.diagnose(found.weights, *map(jnp.asarray, known), **sizes)
    return {
        "auc": float(
            np.mean([metrics.roc_auc_score(conflicts[own], doubt[own]) for own in classes])
        ),
        "precision": float(conflicts[np.argsort(-doubt)[: conflicts.sum()]].mean()),
        "balance": float(diagnosis.group_balance),
        "conflict_mass": float(diagnosis.conflict_mass),
        "effective_sample_size": float(diagnosis.effective_sample_size),
    }


def main(
    *,
    seeds: int = 1,
    data_dir: pathlib.Path | None = None,
    out: pathlib.Path = grid.RESULTS / "shortcuts.json",
    only: str | None = None,
) -> None:
    """Looks at every data set and seed that `out` does not hold yet.

    Args:
        seeds: of data, comparison and folds.
        data_dir: folder with the original files.
        out: JSON file.
        only: names of benchmarks, separated by commas.
    """
    out = out.expanduser()
    report = files.read_json(out) if out.exists() else {"judged": {}}
    names = (*BIASED, *UNBIASED) if only is None else only.split(",")
    for seed, name in itertools.product(range(seeds), names):
        title = f"{name}, seed {seed}"
        if title in report["judged"]:
            continue
        options = make(conflict=0.05 if name in BIASED else None, seed=seed).resolved()
        data = grid.load(name, options, data_dir=data_dir)
        found = seen(parts.key(options, "encoder"), datasets.pool(data), data)
        report["judged"][title] = {**found, **results.circumstances()}
        files.write_json(out, report)
        print(title, {view: round(each["deviations"], 1) for view, each in found["views"].items()})


if __name__ == "__main__":
    tyro.cli(main)
