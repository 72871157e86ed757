"""Is the verdict about a bias right, on data sets that nobody tuned on?

    python -m experiments.decisions --data-dir DIR
    python -m experiments.decisions --test --seeds 3 --data-dir DIR

Data sets, named on 2026-11-25, before any of the test sets was measured. DEVELOPMENT: all sets of
`experiments.shortcuts`, and faces of 32 pixels, young or old, where gender goes with age in 96 % of
the training images. Everything was chosen on them. TEST: the sets below, 5 % bias-conflicting
unless stated; a wrong label is that of another class, drawn uniformly.

Biased:

* cmnist, fmnist-turn, 5 % wrong labels: coloured digits, turned clothes, with wrong labels.
* ccifar10 1 %: corruptions with 1 % conflicting.
* cifar10-jpeg: classes 5–9 have been JPEG files of quality 10, the others are lossless.
* cifar10-balance: classes 0–4 are warmer, 5–9 colder, by 13 % ± 6 %.
* cifar10-ramp: one side is up to 30 % brighter and the opposite one darker, in ten directions.
* cifar10-blur: one of five widths, up to 1.3 pixels; classes c and c + 5 share one.
* fmnist-frame: a frame of two pixels in one of ten grey levels.
* mnist-stripes: weak stripes in one of ten orientations over digits.
* fmnist-tones: warm dresses and cold coats at 64 pixels, 96 of 12,000 conflicting, as in BFFHQ.
* cmnist-next: coloured digits; all conflicting samples of class c have the colour of class c + 1.
* cfmnist-bg long tail: coloured backgrounds, class sizes falling geometrically to a twentieth.

Unbiased:

* mnist, fashion_mnist, cifar10 with 1 % and with 10 % wrong labels.
* cats and dogs: 4,750 cats and 250 dogs of CIFAR-10.
* fashion_mnist long tail: class sizes falling geometrically to a twentieth.
* turns, colours: quarter turns of clothes, colours of digits, independent of the class.
* equal faces: as many men as women, young and old, of the same photographs.

Special, not counted:

* cmnist without conflict: no conflicting sample, so that nothing can be undone.
* colour is the class: the class is the colour, and the digit goes with it in 95 % (cmnist
  exchanged). Tone shows the object here.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from experiments import shortcuts
from experiments.tools import biased_sets
from jaxdd.data import benchmarks, datasets


class DataSet(NamedTuple):
    """A data set to decide about.

    Attributes:
        source: name of a benchmark, or "faces".
        biased: whether it has a bias; None for a special set, which is not counted.
        change: `change(data, seed=seed)` returns the data set from the source; for "faces" from the
            folder of the faces.
        conflict: share of bias-conflicting samples of the source, None for its default.
        severity: severity of corruptions of the source, None for its default.
    """

    source: str
    biased: bool | None = True
    change: Callable[..., datasets.Benchmark] = lambda data, *, seed: data
    conflict: float | None = None
    severity: int | None = None


def load(
    dataset: DataSet, *, seed: int, data_dir: pathlib.Path | None = None
) -> datasets.Benchmark:
    """Load a data set.

    Args:
        dataset: the data set.
        seed: random seed of attributes, wrong labels and choice of samples.
        data_dir: folder with the original files.

    Raises:
        FileNotFoundError: there are no faces in `data_dir`.
    """
    if dataset.source == "faces":
        folder = pathlib.Path(data_dir or ".", "faces")
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} does not exist; the faces are not public")
        return dataset.change(folder, seed=seed)
    options = dict(conflict=dataset.conflict, severity=dataset.severity, seed=seed)
    return dataset.change(benchmarks.load(dataset.source, data_dir=data_dir, **options), seed=seed)


def _known(setting):
    change = lambda data, *, seed: setting.change(data)
    biased = setting.conflict is not None and setting.conflict < 0.5
    return DataSet(setting.name, biased, change, setting.conflict, setting.severity)


_wrong = lambda share: functools.partial(shortcuts.mislabelled, share=share)
_PLAIN = "mnist", "fashion_mnist", "cifar10"

DEVELOPMENT = {
    **{
        title: _known(setting)
        for title, setting in (shortcuts.DEVELOPMENT | shortcuts.HELD_OUT).items()
    },
    "faces": DataSet("faces", change=biased_sets.faces),
}
"""Data sets that all thresholds and features were chosen on."""

_BIASED = {
    "cmnist 5 % wrong labels": DataSet("cmnist", change=_wrong(0.05), conflict=0.05),
    "fmnist-turn 5 % wrong labels": DataSet("fmnist-turn", change=_wrong(0.05), conflict=0.05),
    "ccifar10 1 %": DataSet("ccifar10", conflict=0.01),
    "cifar10-jpeg": DataSet("cifar10", change=biased_sets.jpeg),
    "cifar10-balance": DataSet("cifar10", change=biased_sets.white_balance),
    "cifar10-ramp": DataSet("cifar10", change=biased_sets.ramp),
    "cifar10-blur": DataSet("cifar10", change=biased_sets.blur),
    "fmnist-frame": DataSet("fashion_mnist", change=biased_sets.frame),
    "mnist-stripes": DataSet("mnist", change=biased_sets.stripes),
    "fmnist-tones": DataSet("fashion_mnist", change=biased_sets.two_tones),
    "cmnist-next": DataSet("mnist", change=biased_sets.next_color),
    "cfmnist-bg long tail": DataSet("cfmnist-bg", change=biased_sets.long_tailed, conflict=0.05),
}
_CATS_AND_DOGS = functools.partial(biased_sets.keep_classes, classes=(3, 5), counts=(4750, 250))
_UNBIASED = {
    **{
        f"{name} {share} % wrong labels": DataSet(name, False, _wrong(share / 100))
        for name in _PLAIN
        for share in (1, 10)
    },
    "cats and dogs": DataSet("cifar10", False, _CATS_AND_DOGS),
    "fashion_mnist long tail": DataSet("fashion_mnist", False, biased_sets.long_tailed),
    "turns": DataSet("fashion_mnist", False, biased_sets.turns),
    "colours": DataSet("cmnist", False, conflict=0.9),
    "equal faces": DataSet("faces", False, biased_sets.equal_faces),
}
_SPECIAL = {
    "cmnist without conflict": DataSet("cmnist", None, conflict=0.0),
    "colour is the class": DataSet("cmnist", None, biased_sets.exchange, conflict=0.05),
}
TEST = _BIASED | _UNBIASED | _SPECIAL
"""Data sets that are measured once, after all thresholds were fixed."""
