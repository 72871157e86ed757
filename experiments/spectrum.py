"""Where in the spectrum does a bias lie, and which method amplifies it?

    python -m experiments.spectrum --data-dir DIR

Five biases at a reduced size (14 and 16 pixels, 10,000 training and 2,000 test images, ConvNets of
width 16 and depth 2): colour of digits, solid colours behind them, natural backgrounds behind
clothes, corruptions, grey or coloured photographs. A fifth of each class is bias-conflicting
instead of the twentieth of the other experiments, so that accuracies are above chance and a loss
can be measured. There are ten images per class, one set, and three networks of 150 epochs.

The spectrum of the real data is measured in features of three random networks and of one trained on
the data (300 updates). Directions are the eigenvectors of the real covariance Ψ, largest variance
first. The *rank* of the bias is the number of directions that hold half of the energy of the
differences between attribute values (means in which all groups of a class have equal weight); the
rank of the class is defined in the same way. The *share* of the bias is its share of the energy in
the class means after the filter f of a method, b / (b + c) with b = ‖f(Ψ)(Φ − Φ_even)‖² and c =
‖f(Ψ) Φ_even‖², where Φ_even are the class means if all groups have the same weight.

For each set, the accuracy on bias-conflicting test samples and the *dose* are measured. The dose is
the bias in the class means of the set relative to that of the real images, in features of random
networks (1 is as much as in the data, 0 none). A method amplifies a bias if networks are less
accurate than with random real images. Low and high pass match class means around the real mean with
f(λ) = λ and 1 / (λ + β), the latter being kernel ridge regression on features of random networks (β
a tenth of the mean eigenvalue); their images are updated by Adam, because the scale of these losses
changes from step to step.

Hypotheses, written on 23 November 2026 before the run, and results:

1. Colours and solid backgrounds have the lowest ranks; corruptions and natural backgrounds the
   highest; grey is between. Half true: the rank of colours, solid backgrounds and natural
   backgrounds is two; corruptions have rank six, and grey photographs the highest, 22.
2. The share in the class means that DM matches is largest for colours and solid backgrounds, and
   has the order in which DM amplifies the biases. True: the order is solid background, colour of
   digits, corruption, natural background, grey. DM loses against random images on the first two and
   gains on the others, in this order. A bias is amplified if it is more than half of the
   differences between class means.
3. A low pass amplifies colours more than DM, a high pass less, corruptions the other way round.
   Half true: the low pass amplifies colours more than DM, but also the others, and the high pass
   improves one of five sets only. Both learn less of the classes than DM.
4. Trajectory matching, a high pass in theory, amplifies colours less than DM, DC and DSA. Refuted:
   it amplifies the colour of digits most, is between DM and DC for the colour behind them, and has
   larger doses than DM, DC and DSA everywhere.
5. After 20,000 steps DM has the dose of 200 steps and amplifies more. The dose does not change; the
   rest is refuted for colours, where longer runs are better, also on bias-conflicting samples. The
   other three biases were not run.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import cfm
from experiments.tools import grid, markdown, record, small
from jaxdd import methods, networks, sampling, weights
from jaxdd.methods import expert_training, spectral
from jaxdd.runs import programs
from jaxdd.training import teachers

OUT = grid.RESULTS / "spectrum.json"
CONFLICT = 0.2
BIASES = ("cmnist", "cmnist-bg", "bgfmnist", "ccifar10", "cifar10-s")
LONG = 20_000
FILTERS: dict[str, Callable[[Any], spectral.Filter]] = {
    "all": lambda scale: spectral.identity(),
    "low": lambda scale: spectral.linear(),
    "high": lambda scale: spectral.ridge(0.1 * scale),
}
"""Functions from the mean eigenvalue to filters."""
SETS = ("random", "dm", "low", "high", "dc", "dsa", "mtt", "cfm", f"dm {LONG}")
TITLES = "random", "DM", "low pass", "high pass", "DC", "DSA", "MTT", "CFM", f"DM, {LONG:,} steps"
STEPS = {"dm": 200, "low": 200, "high": 200, "dc": 100, "dsa": 100, "mtt": 100}
BATCH = functools.partial(sampling.weighted_batch, size=64)
EXPERT_BATCH = functools.partial(sampling.weighted_batch, size=26)
SEGMENT = functools.partial(expert_training.segment, span=2, starts=6)


def filtered_loss(name: str) -> Any:
    """Return a loss of features centred at the real mean under a filter, independent of scale."""

    def loss(real, synthetic, _):
        k, *_, width = real.shape
        statistics = lambda x: spectral.statistics(
            x.reshape(-1, width), jnp.arange(k).repeat(x.shape[1]), k
        )
        moments = [statistics(real), statistics(synthetic)]
        scale = jnp.trace(spectral.covariance(moments[0])) / width
        passed, origin = FILTERS[name](scale), moments[0].mean
        one, other = (spectral.shift(x, origin) for x in moments)
        return spectral.losses(one, other, passed)[0] / passed.gain(scale) ** 2

    return loss


@functools.cache
def method(name: str, strategy: tuple[str, ...]) -> methods.Method:
    """Return a method by name, one object for all data with the same augmentation."""
    common: dict[str, Any] = dict(network=small.STUDENT, strategy=strategy)
    if name == "dm":
        return methods.distribution_matching(optimizer=optax.sgd(1.0, 0.5), **common)
    if name in FILTERS:
        loss = filtered_loss(name)
        return methods.distribution_matching(optimizer=optax.adam(0.01), loss=loss, **common)
    if name == "mtt":
        return methods.trajectory_matching(optimizer=optax.sgd(10.0, 0.5), inner=10, **common)
    if name == "dc":
        common["strategy"] = ()
    return methods.gradient_matching(optimizer=optax.sgd(0.1, 0.5), outer=10, inner=5, **common)


def make_set(bench: cfm.Bench, name: str) -> jax.Array:
    """Return a set `[k, ipc, h, w, c]` of a method, without weights."""
    if name == "random":
        return bench.images("random")
    if name == "cfm":
        return bench.match_curriculum("oracle", cfm.NONE)
    name, _, steps = name.partition(" ")
    pool, sampler = (bench.pool, BATCH) if name != "mtt" else (train_experts(bench), SEGMENT)
    chosen = method(name, bench.task.strategy)
    start = sampling.initial_real(bench.keys[3], bench.pool, ipc=small.IPC)
    loop = dict(method=chosen, sampler=sampler, steps=int(steps or STEPS[name]))
    return small.run(bench.keys[5], chosen.init(start), pool, **loop).images


def train_experts(bench: cfm.Bench) -> Any:
    """Train three experts for ten epochs."""
    settings: Any = dict(sampler=EXPERT_BATCH, epochs=10, updates=20, strategy=bench.task.strategy)
    train = jax.jit(functools.partial(expert_training.train, network=small.STUDENT, **settings))
    trajectories = [train(key, pool=bench.pool) for key in jax.random.split(bench.keys[6], 3)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trajectories)


def extractors(bench: cfm.Bench) -> dict[str, list[Any]]:
    """Return parameters of random networks and of a trained one."""
    first = sampling.take(bench.pool, jnp.zeros(1, int))
    keys = jax.random.split(bench.keys[2], 3)
    settings: Any = dict(sampler=EXPERT_BATCH, steps=300, strategy=bench.task.strategy)
    train = jax.jit(lambda key, pool: teachers.train_teacher(key, small.STUDENT, pool, **settings))
    return {
        "random": [small.STUDENT.init(key, first) for key in keys],
        "trained": [train(bench.keys[1], bench.pool).params],
    }


@jax.jit
def features(params: Any, images: jax.Array) -> jax.Array:
    """Return the features of images."""
    return networks.outputs(small.STUDENT, params, images).features


class View:
    """Energies of classes and bias in the features of one network."""

    def __init__(self, bench: cfm.Bench, params: Any):
        pool, data = bench.pool, bench.data
        attributes, count = jnp.asarray(data.train.attributes), data.num_attributes
        even = weights.oracle(pool, attributes, num_attributes=count)
        self.params, k = params, pool.num_classes
        extract = lambda images: features(params, sampling.normalise(images, pool.mean, pool.std))
        statistics = functools.partial(spectral.statistics, pool.images, extract=extract, size=256)
        real, fair = (statistics(pool.labels, k, values) for values in (pool.weights, even))
        by_attribute = statistics(attributes, count, even)
        # eigh sorts ascending; the largest variance comes first here.
        spectrum, vectors = jnp.linalg.eigh(spectral.covariance(real))
        self.spectrum = jnp.maximum(spectrum[::-1], 0)
        # Φ = Φ_even + (Φ − Φ_even): the contributions of classes and bias to class means.
        self.fair = fair.class_means - fair.mean
        self.bias = real.class_means - real.mean - self.fair
        rotate = lambda rows: rows @ vectors[:, ::-1]
        self.signals = {
            "class": rotate(self.fair),
            "bias": rotate(by_attribute.class_means - by_attribute.mean),
        }
        self.rotated_bias = rotate(self.bias)

    def measure(self) -> dict[str, Any]:
        """Return ranks, variance up to them, cumulated energies, and bias shares by filter."""
        energies = {name: jnp.square(rows).sum(0) for name, rows in self.signals.items()}
        cumulated = {name: jnp.cumsum(x) / x.sum() for name, x in energies.items()}
        ranks = {name: int(jnp.argmax(x >= 0.5)) + 1 for name, x in cumulated.items()}
        variance = jnp.cumsum(self.spectrum) / self.spectrum.sum()
        shares = {}
        for name, build in FILTERS.items():
            gain = build(self.spectrum.mean()).gain(self.spectrum)
            energy = lambda rows, gain=gain: jnp.sum(jnp.square(gain * rows))
            bias, classes = energy(self.rotated_bias), energy(self.signals["class"])
            shares[name] = bias / (bias + classes)
        return {
            "rank": ranks,
            "variance": {name: variance[rank - 1] for name, rank in ranks.items()},
            "cumulated": cumulated,
            "share": shares,
        }

    def dose(self, images: jax.Array) -> jax.Array:
        """Return the bias in the class means of a set, relative to that in the real ones."""
        means = jnp.stack([features(self.params, x).mean(0) for x in images])
        # Project the deviation of the set from even groups onto the bias of the real images.
        deviation = means - means.mean(0) - self.fair
        return jnp.sum(deviation * self.bias) / jnp.sum(jnp.square(self.bias))


class Bias:
    """A benchmark with the views of its networks, made when first used."""

    def __init__(self, name: str, data_dir: pathlib.Path | None):
        self.bench = cfm.Bench(name, data_dir, conflict=CONFLICT)
        self.views = {
            kind: [View(self.bench, params) for params in networks]
            for kind, networks in extractors(self.bench).items()
        }

    def measure(self, what: str) -> dict[str, Any]:
        """Return the spectrum, averaged over networks, or the scores and dose of a set."""
        if what == "spectrum":
            average = lambda *values: np.mean(values, axis=0)
            return {
                kind: jax.tree.map(average, *(view.measure() for view in views))
                for kind, views in self.views.items()
            }
        images = make_set(self.bench, what)
        dose = np.mean([view.dose(images) for view in self.views["random"]])
        return small.score(images, self.bench.task) | {"dose": float(dose)}


def by_bias(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Return the spectrum and the sets of each bias that was measured."""
    biases: dict[str, dict[str, Any]] = {}
    for title, row in record.measured(path).items():
        name, what = title.split(", ")
        biases.setdefault(name, {})[what] = row
    return {name: biases[name] for name in BIASES if name in biases}


def tables(path: pathlib.Path = OUT) -> list[list[str]]:
    """Return the tables: spectra, then accuracy and bias retention ratio of the sets."""
    biases, link = by_bias(path), markdown.link("bias", path)
    kinds = [(kind, what) for kind in ("random", "trained") for what in ("bias", "class")]
    titles = [f"rank of {what}, {kind}" for kind, what in kinds]
    titles += [f"share, {name} pass" for name in FILTERS]
    rows = []
    for name, bias in biases.items():
        spectrum = bias["spectrum"]
        ranks = [f"{spectrum[kind]['rank'][what]:.1f}" for kind, what in kinds]
        shares = [f"{spectrum['random']['share'][name]:.2f}" for name in FILTERS]
        rows.append([name, *ranks, *shares])
    accuracy = lambda row: record.percent(row and row["conflicting"])
    dose = lambda row: f"{row['dose']:.2f}" if row else "–"
    forms = {"accuracy in % (conflicting test samples)": accuracy, "bias retention ratio": dose}
    return [markdown.table([link, *titles], rows)] + [
        markdown.table(
            [f"{link}, {title}", *TITLES],
            [[name, *(form(bias.get(s)) for s in SETS)] for name, bias in biases.items()],
        )
        for title, form in forms.items()
    ]


def tasks(data_dir: pathlib.Path | None) -> record.Tasks:
    """Return functions that measure each bias, then each set; the long runs come last."""
    programs.prepare()
    bias = functools.lru_cache(1)(functools.partial(Bias, data_dir=data_dir))
    pairs = [(name, what) for name in BIASES for what in ("spectrum", *SETS[:-1])]
    pairs += [(name, SETS[-1]) for name in BIASES]
    return {
        f"{name}, {what}": lambda name=name, what=what: bias(name).measure(what)
        for name, what in pairs
    }


if __name__ == "__main__":
    record.main(OUT, tasks, tables)
