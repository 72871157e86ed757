"""What do views that cannot see the object see? Tone, texture and layout on many data sets.

    python -m experiments.shortcuts --data-dir DIR
    python -m experiments.shortcuts --held-out --seeds 5 --data-dir DIR

For each data set and seed, and for each view of `ASKED`:

* is it a shortcut: errors of a head on the view and of one on its rival, in the blocks of classes
  where the first does best, and by how many standard errors it errs less;
* does it find the conflicting samples: area under the curve (AUC) of one less the probability of
  the group of the sample's own class, within the classes, and the share of conflicting samples
  among as many of the least probable as there are conflicting ones (precision);
* what are weights worth that give its groups equal mass: mass on conflicting samples, balance of
  the bias groups and effective sample size, by the attributes.

Fixed on 2026-11-22: of the weights the power .7 of the loss, and a tenth of the samples as the
share that is taken to conflict before looking; blocks of at most three quarters of the samples and
at least half as sure as the best, on one half of 15,000 samples, and the other half for the
comparison; three standard errors. Tone and texture were asked then, beside patches, and the
held-out sets were opened, once. Neither saw a mark or a place, so that these two became development
sets. Fixed on 2026-11-23 on the eleven: layout beside `blind_features.anywhere`, tone beside
`blind_features.toneless`, a hundredth of the samples that have to be told better besides, and blocks at
least three quarters as sure as the best. Then two biases were made that nobody had looked at, a bar
across photographs and clothes turned by quarters, the latter also where the turns say nothing of
the class. After these, on cifar10-two, cifar10-s and ccifar10-noise (.19, .99 and .66): a
correlation of a half, from which on the doubts of two views are about the same bias. It changes
nothing where one view is a shortcut. On 2026-11-24, after all of this was fixed, five further sets
were made to be held out and run once: cbgfmnist, bgfmnist-few, fmnist-texture, fmnist-scale and
cmnist-pairs.

Colour and brightness are seen by tone, corruptions by texture, grey images by either, places by
layout. Among natural backgrounds all see clothes rather than scenes, and none is a shortcut; nor is
anything where no bias is. Digits are told as well by their shape as by a colour that 5 % do not
have, so that auto goes by its search there. Two minutes for each set and seed on two cores.
"""

import functools
import itertools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from sklearn import metrics

from experiments import auto_rules
from experiments.tools import grid
from jaxdd import sampling, weights
from jaxdd.data import datasets, files
from jaxdd.runs import components, timing
from jaxdd.runs import old_results as results
from jaxdd.runs.options import make
from jaxdd.weights import blind_features, formulas


class Look(NamedTuple):
    """A data set to look at.

    Attributes:
        name: of the benchmark.
        conflict: share of conflicting samples, None without a bias.
        severity: of the corruptions, where it is not the default.
        change: what is done to it besides.
    """

    name: str
    conflict: float | None = None
    severity: int | None = None
    change: Callable[[datasets.Benchmark], datasets.Benchmark] = lambda data: data


def mislabelled(data: datasets.Benchmark, *, share: float) -> datasets.Benchmark:
    """Gives a share of the training samples the label of another class, each as likely."""
    train, rng = data.train, np.random.default_rng(0)
    n, k = len(train.labels), data.num_classes
    wrong = rng.permutation(n) < round(share * n)
    others = (train.labels + rng.integers(1, k, n)) % k
    labels = np.where(wrong, others, train.labels).astype(train.labels.dtype)
    return data._replace(train=train._replace(labels=labels))


_BIASED = "cmnist", "cfmnist", "cfmnist-bg", "ccifar10", "cifar10-s", "bgfmnist"
_UNBIASED = "mnist", "fashion_mnist", "cifar10"
_HARDER = "cbgfmnist", "bgfmnist-few", "fmnist-texture", "fmnist-scale", "cmnist-pairs"
_PLACED = "cifar10-mark", "fmnist-place", "cifar10-two"
DEVELOPMENT = {
    **{name: Look(name, 0.05) for name in (*_BIASED, *_PLACED)},
    **{name: Look(name) for name in _UNBIASED},
}
HELD_OUT = {
    "ccifar10-noise": Look("ccifar10-noise", 0.05),
    "ccifar10-noise 1 %": Look("ccifar10-noise", 0.01),
    "ccifar10-noise severity 2": Look("ccifar10-noise", 0.05, 2),
    "cifar10-s 1 %": Look("cifar10-s", 0.01),
    "cifar10-bar": Look("cifar10-bar", 0.05),
    "fmnist-turn": Look("fmnist-turn", 0.05),
    "fmnist-turn without a bias": Look("fmnist-turn", 0.75),
    **{name: Look(name, 0.05) for name in _HARDER},
    "digits": Look("digits"),
    "cifar10 unequal classes": Look("cifar10", change=auto_rules.unequal),
    **{
        f"{name} 5 % wrong labels": Look(name, change=functools.partial(mislabelled, share=0.05))
        for name in _UNBIASED
    },
}

ASKED = blind_features.COMPARISONS | {"border": blind_features.Comparison(blind_features.border)}


def seen(key: jax.Array, pool: sampling.Pool, data: datasets.Benchmark) -> dict[str, Any]:
    """What every view sees of a pool, and whether it is a shortcut.

    Args:
        key: of the comparison and the folds.
        pool: the training samples.
        data: what they are; what it knows of attributes judges and is used for nothing else.
    """
    with timing.timed(seconds := {}, "compare"):
        found = weights.shortcuts(key, pool, comparisons=ASKED)
    told, every = {}, tuple(range(data.num_classes))
    for name, (view, _) in ASKED.items():
        blocks = found[name].blocks if weights.is_shortcut(found[name]) else every
        with timing.timed(took := {}, "weigh"):
            by_view = jax.block_until_ready(weights.by_features(key, pool, view, blocks=blocks))
        told[name] = {**found[name]._asdict(), **took}
        if data.train.attributes is not None:
            told[name] |= judged(by_view.weights, by_view.conflict_score, data)
    return {"views": told, "seconds": seconds["compare"], "samples": len(pool.labels)}


def judged(found: jax.Array, doubt: jax.Array, data: datasets.Benchmark) -> dict[str, float]:
    """How well weights and doubts `[n]` find the conflicting samples, by the attributes."""
    labels, attributes = data.train.labels, data.train.attributes
    conflicts, doubt = attributes != np.asarray(data.aligned)[labels], np.asarray(doubt)
    classes = [np.flatnonzero(labels == k) for k in np.unique(labels[conflicts])]
    known = labels, attributes, np.asarray(data.aligned)
    sizes = dict(num_classes=data.num_classes, num_attributes=data.num_attributes)
    diagnosis = formulas.diagnose(found, *map(jnp.asarray, known), **sizes)
    return {
        "auc": float(
            np.mean([metrics.roc_auc_score(conflicts[own], doubt[own]) for own in classes])
        ),
        "precision": float(conflicts[np.argsort(-doubt)[: conflicts.sum()]].mean()),
        "balance": float(diagnosis.group_evenness),
        "conflict_weight_share": float(diagnosis.conflict_weight_share),
        "effective_sample_size": float(diagnosis.effective_sample_size),
    }


def main(
    *,
    held_out: bool = False,
    seeds: int = 1,
    data_dir: pathlib.Path | None = None,
    out: pathlib.Path | None = None,
    only: str | None = None,
) -> None:
    """Looks at every data set and seed that `out` does not hold yet.

    Args:
        held_out: look at `HELD_OUT` instead of `DEVELOPMENT`.
        seeds: of data, comparison and folds.
        data_dir: folder with the original files.
        out: JSON file.
        only: titles of data sets, separated by commas.
    """
    looks = HELD_OUT if held_out else DEVELOPMENT
    name = "shortcuts-held-out.json" if held_out else "shortcuts.json"
    out = (grid.RESULTS / name if out is None else out).expanduser()
    report = files.read_json(out) if out.exists() else {"judged": {}}
    asked = looks if only is None else only.split(",")
    for seed, title in itertools.product(range(seeds), asked):
        line, look = f"{title}, seed {seed}", looks[title]
        if line in report["judged"]:
            continue
        options = make(conflict=look.conflict, severity=look.severity, seed=seed)
        data = look.change(grid.load(look.name, options, data_dir=data_dir))
        found = seen(components.key(options, "encoder"), datasets.pool(data), data)
        report["judged"][line] = {**found, **results.circumstances()}
        files.write_json(out, report)
        print(line, {view: round(each["z_score"], 1) for view, each in found["views"].items()})


if __name__ == "__main__":
    tyro.cli(main)
