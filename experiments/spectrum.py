"""Where in the spectrum does a bias lie, and which method amplifies it?

    python -m experiments.spectrum --data-dir DIR

Five biases at a reduced size (14 and 16 pixels, 10,000 training and 2,000 test images, ConvNets of
width 16 and depth 2): the colour of digits, solid colours behind them, natural backgrounds behind
clothes, corruptions, grey or coloured photographs. A fifth of each class conflicts, instead of the
twentieth of the other experiments, so that there is something above chance that a method can lose.
Ten images per class, one set, three networks of 150 epochs.

Measured without any distillation, in features of three random networks and of one trained on the
data (300 updates): the directions are the eigenvectors of the real covariance Ψ, the one of most
variance first. The *rank* of the bias is the number of directions that hold half of what tells its
values apart (means of the attribute's values where each group of a class has the same mass), the
rank of the class the same of the classes. The *share* of the bias is that of the energy in the
class means as a method with the filter f sees them, `b / (b + c)` with `b = ‖f(Ψ)(Φ − Φ_even)‖²`
and `c = ‖f(Ψ) Φ_even‖²`, where Φ_even are the class means if each group has the same mass.

Measured of each set: the accuracy on conflicting test samples, and the *dose*, the bias in its
class means over that of the real ones, by random networks; 1 is as much as there is, 0 none. Random
real images stand beside; a method amplifies a bias if networks do worse by it on conflicting
samples. Low and high pass match class means around the real mean through f(λ) = λ and 1 / (λ + β),
the latter being kernel ridge regression on features of random networks (β a tenth of the mean
eigenvalue); their images follow Adam, since the scale of these losses is another at each step.

Hypotheses, written on 23 November 2026 before the run:

1. Colours and solid backgrounds have the lowest ranks, a handful of directions; corruptions and
   natural backgrounds the highest; grey is between, since it is a matter of variances.
2. The share of the bias in what DM matches is largest for colours and solid backgrounds. The order
   of the biases by it is the order in which DM amplifies them.
3. A low pass amplifies colours more than DM, a high pass less, and corruptions the other way round.
4. Trajectory matching, a high pass by the theory, amplifies colours less than DM, DC and DSA.
5. After 20,000 steps DM has a dose of 1 as after 200, and amplifies more, since images that began
   as real ones are real no more, and what is left in them is the class mean.

What came of them, in `experiments/results/spectrum.json`:

1. Half. Two directions hold the colour of digits and the solid one behind them, but also natural
   backgrounds; corruptions need six and grey photographs 22, the most.
2. Holds. By share the order is colour behind, colour of, corruption, background, grey; DM loses
   against random images on the first two and gains on the others, in the same order. In short: a
   bias is amplified where it is more than half of what tells class means apart.
3. Half. The low pass amplifies colours more than DM. But it does so with the others, too, and the
   high pass gains on one of five sets only: either loses what DM learns of the classes.
4. Refuted. Trajectory matching amplifies the colour of digits more than anything else, lies between
   DM and DC with the colour behind them, and has larger doses than DM, DC and DSA everywhere.
5. The dose stays. The rest is refuted by the colours, where it was run: images that have gone
   20,000 steps are better than those of 200, on conflicting samples as well. The other three were
   left for want of time.
"""

import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments import cfm
from experiments.tools import grid
from jaxdd import methods, networks, sampling, weights
from jaxdd.data import files
from jaxdd.methods import experts, spectral
from jaxdd.runs import old_results as results
from jaxdd.runs import programs
from jaxdd.runs.reports import plot
from jaxdd.training import teachers

CONFLICT = 0.2
BIASES = {
    "cmnist": "colour of the digit",
    "cmnist-bg": "colour behind the digit",
    "bgfmnist": "scene behind the garment",
    "ccifar10": "corruption",
    "cifar10-s": "grey or coloured",
}
LONG = 20_000
FILTERS: dict[str, Callable[[Any], spectral.Filter]] = {
    "all": lambda scale: spectral.identity(),
    "low": lambda scale: spectral.linear(),
    "high": lambda scale: spectral.ridge(0.1 * scale),
}
"""Filters by the mean eigenvalue."""
SETS = ("random", "dm", "low", "high", "dc", "dsa", "mtt", "cfm", f"dm {LONG}")


def filtered(name: str) -> Any:
    """A distance of features around the real mean by one of `FILTERS`, free of their scale."""

    def loss(real, synthetic, _):
        k, *_, width = real.shape
        moments = [
            spectral.statistics(each.reshape(-1, width), jnp.arange(k).repeat(each.shape[1]), k)
            for each in (real, synthetic)
        ]
        scale = jnp.trace(spectral.covariance(moments[0])) / width
        passed, origin = FILTERS[name](scale), moments[0].mean
        one, other = (spectral.shift(each, origin) for each in moments)
        return spectral.loss(one, other, passed) / passed.gain(scale) ** 2

    return loss


@functools.cache
def method(name: str, strategy: tuple[str, ...]) -> methods.Method:
    """A method by name, one object for all data with the same augmentation."""
    given: dict[str, Any] = dict(network=cfm.STUDENT, strategy=strategy)
    if name == "dm":
        return methods.distribution_matching(optimizer=optax.sgd(1.0, 0.5), **given)
    if name in FILTERS:
        return methods.feature_matching(optimizer=optax.adam(0.01), loss=filtered(name), **given)
    if name == "mtt":
        return methods.trajectory_matching(optimizer=optax.sgd(10.0, 0.5), inner=10, **given)
    if name == "dc":
        given |= dict(strategy=())
    return methods.gradient_matching(optimizer=optax.sgd(0.1, 0.5), outer=10, inner=5, **given)


STEPS = {"dm": 200, "low": 200, "high": 200, "dc": 100, "dsa": 100, "mtt": 100}
BATCH = functools.partial(sampling.weighted_batch, size=64)
LESSON = functools.partial(sampling.weighted_batch, size=26)
SEGMENT = functools.partial(experts.segment, span=2, latest=5)


def made(bench: cfm.Bench, name: str) -> jax.Array:
    """A set `[k, ipc, h, w, c]` by a method, without weights."""
    if name == "random":
        return bench.images("random")
    if name == "cfm":
        return bench.descended("oracle", cfm.NONE)
    name, _, steps = name.partition(" ")
    strategy, pool, sampler = bench.task.strategy, bench.pool, BATCH
    if name == "mtt":
        pool, sampler = experts(bench), SEGMENT
    used = method(name, strategy)
    start = sampling.initial_real(bench.keys[3], bench.pool, ipc=cfm.IPC)
    given: dict[str, Any] = dict(method=used, sampler=sampler, steps=int(steps or STEPS[name]))
    *_, (_, state, _) = methods.run(bench.keys[5], used.init(start), pool, **given)
    return state.images


def experts(bench: cfm.Bench) -> Any:
    """Three trajectories of ten epochs."""
    given: dict[str, Any] = dict(
        sampler=LESSON, epochs=10, updates=20, strategy=bench.task.strategy
    )
    train = jax.jit(functools.partial(experts.train, network=cfm.STUDENT, **given))
    each = [train(key, pool=bench.pool) for key in jax.random.split(bench.keys[6], 3)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def extractors(bench: cfm.Bench) -> dict[str, list[Any]]:
    """Parameters of networks whose features are looked at."""
    first = sampling.take(bench.pool, jnp.zeros(1, int))
    keys = jax.random.split(bench.keys[2], 3)
    given: dict[str, Any] = dict(sampler=LESSON, steps=300, strategy=bench.task.strategy)
    teach = jax.jit(lambda key, pool: teachers.train_teacher(key, cfm.STUDENT, pool, **given))
    return {
        "random": [cfm.STUDENT.init(key, first) for key in keys],
        "trained": [teach(bench.keys[1], bench.pool).params],
    }


@jax.jit
def features(params: Any, images: jax.Array) -> jax.Array:
    """The features of images as networks see them."""
    return networks.outputs(cfm.STUDENT, params, images).features


class Sight:
    """What the features of one network show of the classes and of the bias."""

    def __init__(self, bench: cfm.Bench, params: Any):
        pool, data = bench.pool, bench.data
        attributes, count = jnp.asarray(data.train.attributes), data.num_attributes
        even = weights.oracle(pool, attributes, num_attributes=count)
        self.params, k = params, pool.num_classes
        see = lambda images: features(params, sampling.normalise(images, pool.mean, pool.std))
        look = functools.partial(spectral.stream_statistics, see, pool.images)
        real, fair = (look(pool.labels, k, by) for by in (pool.weights, even))
        values = look(attributes, count, even)
        self.origin = real.mean
        spectrum, vectors = jnp.linalg.eigh(spectral.covariance(real))
        self.spectrum = jnp.maximum(spectrum[::-1], 0)
        self.bias = (real.class_means - real.mean) - (fair.class_means - fair.mean)
        self.fair = fair.class_means - fair.mean
        along = lambda rows: rows @ vectors[:, ::-1]
        self.signals = {
            "class": along(self.fair),
            "bias": along(values.class_means - values.mean),
        }
        self.parts = along(self.bias), along(self.fair)

    def found(self) -> dict[str, Any]:
        """Ranks, variance up to them, cumulated energies, and the share of the bias by filter."""
        energies = {name: jnp.square(rows).sum(0) for name, rows in self.signals.items()}
        cumulated = {name: jnp.cumsum(each) / each.sum() for name, each in energies.items()}
        ranks = {name: int(jnp.argmax(each >= 0.5)) + 1 for name, each in cumulated.items()}
        variance = jnp.cumsum(self.spectrum) / self.spectrum.sum()
        scale, share = self.spectrum.mean(), {}
        for name, made_by in FILTERS.items():
            gain = made_by(scale).gain(self.spectrum)
            bias, classes = (jnp.sum(jnp.square(gain * rows)) for rows in self.parts)
            share[name] = bias / (bias + classes)
        return {
            "rank": ranks,
            "variance": {name: variance[rank - 1] for name, rank in ranks.items()},
            "cumulated": cumulated,
            "share": share,
        }

    def dose(self, images: jax.Array) -> jax.Array:
        """The bias in the class means of a set, over that in the real ones."""
        means = jnp.stack([features(self.params, each).mean(0) for each in images])
        apart = means - means.mean(0) - self.fair
        return jnp.sum(apart * self.bias) / jnp.sum(jnp.square(self.bias))


def located(sights: dict[str, list[Sight]]) -> dict[str, Any]:
    """What networks of a kind show, on average."""
    average = lambda *each: np.mean(each, axis=0)
    return {
        kind: files.to_json(jax.tree.map(average, *(sight.found() for sight in each)))
        for kind, each in sights.items()
    }


def measured(
    data_dir: pathlib.Path | None, done: dict[str, Any]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields the bias, "spectrum" or the name of a set, and what is not in `done` yet.

    What takes long is last.
    """
    for asked, name in itertools.product((("spectrum", *SETS[:-1]), SETS[-1:]), BIASES):
        missing = [each for each in asked if each not in done.get(name, {})]
        if not missing:
            continue
        bench = cfm.Bench(name, data_dir, conflict=CONFLICT)
        kinds = extractors(bench).items()
        sights = {kind: [Sight(bench, params) for params in each] for kind, each in kinds}
        for each in missing:
            if each == "spectrum":
                found = located(sights)
            else:
                images = made(bench, each)
                dose = np.mean([sight.dose(images) for sight in sights["random"]])
                found = bench.scores(each, images, "plain") | {"dose": float(dose)}
            cfm.log(f"{name} {each}")
            yield name, each, found


def tables(path: pathlib.Path) -> Iterator[list[str]]:
    """Yields the lines of the tables of what was measured: spectra, then sets by each score."""
    found = _begun(path)
    link = f"[bias](experiments/results/{path.name})"
    titles = [
        f"rank of {what}, {kind}" for kind in ("random", "trained") for what in ("bias", "class")
    ]
    titles += [f"share, {each} pass" for each in FILTERS]
    yield [
        f"| {link} | {' | '.join(titles)} |",
        f"|---|{'--:|' * len(titles)}",
        *(
            f"| {' | '.join([name, *_spectrum(each['spectrum'])])} |"
            for name, each in found.items()
        ),
    ]
    for score in ("conflicting", "dose"):
        yield [
            f"| {link}, {score} | {' | '.join(SETS)} |",
            f"|---|{'--:|' * len(SETS)}",
            *(
                f"| {' | '.join([name, *(_score(each.get(of), score) for of in SETS)])} |"
                for name, each in found.items()
            ),
        ]


def _begun(path):
    """What was measured of each bias that has been looked at."""
    return {name: each for name, each in files.read_json(path)["biases"].items() if each}


def _spectrum(found):
    ranks = [found[kind]["rank"][what] for kind in found for what in ("bias", "class")]
    shares = [found["random"]["share"][each] for each in FILTERS]
    return [*(f"{rank:.1f}" for rank in ranks), *(f"{share:.2f}" for share in shares)]


def _score(row, score):
    if row is None:
        return "–"
    return f"{row['dose']:.2f}" if score == "dose" else results.percent(row[score])


def draw(path: pathlib.Path) -> None:
    """Draws where biases lie, and what networks make of the sets, as two PNG files beside it."""
    found = _begun(path)
    energy = lambda each, kind, what: [0.0, *each["spectrum"][kind]["cumulated"][what][:40]]
    lines = lambda kind, what: {
        name: (list(range(41)), energy(each, kind, what)) for name, each in found.items()
    }
    panels = {
        f"{what}, {kind}": lines(kind, what)
        for kind in ("random", "trained")
        for what in ("bias", "class")
    }
    plot.curves(path.with_suffix(".png"), panels, xlabel="directions, by real variance")
    mean = lambda each, of: each.get(of, {}).get("conflicting", {}).get("mean", np.nan)
    plot.heat_maps(
        path.with_name(f"{path.stem}-sets.png"),
        {
            "Accuracy, conflicting test samples": [
                [mean(each, of) for of in SETS] for each in found.values()
            ]
        },
        rows={"bias": list(found)},
        columns={"synthetic set": SETS},
    )


def main(
    *, data_dir: pathlib.Path | None = None, out: pathlib.Path = grid.RESULTS / "spectrum.json"
) -> None:
    """Looks at the biases, makes the sets and scores them.

    It writes after every one, and keeps what the file has.

    Args:
        data_dir: folder with the original files.
        out: JSON file.
    """
    programs.prepare()
    found: dict[str, Any] = files.read_json(out)["biases"] if out.exists() else {}
    found = {name: found.get(name, {}) for name in BIASES}
    for name, each, row in measured(data_dir, found):
        found[name][each] = row
        files.write_json(out, results.circumstances() | {"conflict": CONFLICT, "biases": found})
    draw(out)
    print("\n\n".join("\n".join(lines) for lines in tables(out)))


if __name__ == "__main__":
    tyro.cli(main)
