"""Does `jaxdd audit` find a back door that was planted in a distilled set?

    python -m experiments.tampering --data-dir DIR [--budget 20m]

The attack is that of `experiments.attacks.poison`, where it says why it stands here. Sets are small
enough for hundreds of them on two cores: MNIST of 12×12 pixels, five images per class, a ConvNet of
two blocks and width 16, which is also what the attacker trains. Each set is distilled from its own
seed; twenty of a method are clean, and each of these is tampered with, once for each trigger:

* published: one pixel of the normalised value 10, which no image has, and images moved as far as
  the attack likes;
* 1, 2, 4: squares of that many pixels a side, white, by somebody who knows of the range check and
  cuts the images to [0, 1] after each update;
* 4±0.5, 4±0.2: the square of 4, where no value is moved further than that many standard deviations
  of the pixels.

The published attack goes through eleven networks with 101 updates of the images in each; here it is
ten, and twenty for 1 and 2, which move them less. The plans biased and weighted are sets of
coloured digits, distilled plainly and by the oracle's weights, five each: does the audit call a set
tampered with that is honest and biased, and do weights weaken the attack?

A statistic finds a tampered set if it is larger there than in all but one of the twenty clean ones,
5 % false alarms; footprints are against the clean set of another seed. Intervals are Wilson's.

Attack success is the share of 300 test images, of other classes than the target's, that networks
trained on the set take for it once they bear the trigger; next to it that of the same trigger with
networks trained on the clean set. 360 sets of six to seven processor seconds each. What `out` holds
is not computed again, and exit code 3 says that the budget left some.

The level of the rule beside trusted sets, .03, was fixed on the sets of DM and DSA, on 2026-11-23;
with .05 it called four of these forty honest sets tampered with. Sets of trajectory matching were
made after that, and made again with a tenth of the rate: with 100, two of twenty diverged (accuracy
31 and 49 %), with pixels up to 29 from the range.

Range finds the published trigger every time. Of somebody who cuts to [0, 1] it sees nothing, but
roughness and footprint do, in each set, beside trusted sets; the scan for the trigger finds 30 to
90 %. Alone, range calls one of sixty honest sets tampered with, one of trajectory matching with a
pixel at 2.2; beside five trusted sets it is one, with real images besides four.
"""

import functools
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments.attacks import poison
from experiments.tools.budget import deadline, seconds
from experiments.tools.grid import RESULTS
from jaxdd import audit, methods, networks, sampling, training
from jaxdd.data import benchmarks, files
from jaxdd.runs import old_results as results
from jaxdd.runs import programs
from jaxdd.runs.trust import inspection
from jaxdd.weights import formulas

IPC, SEEDS, FEW, EXPERTS = 5, 20, 5, 10
CLASSES, SIZES = 10, (1, 2, 4)
NETWORK, OTHER = networks.ConvNet(CLASSES, 16, 2), networks.MLP(CLASSES)
STRATEGY = ("color", "crop", "cutout", "scale", "rotate")


class Data(NamedTuple):
    """A data set of small images.

    Attributes:
        pool: to distil from.
        test: 300 normalised images.
        labels: of these.
        low: normalised value of pixels that are 0, `[c]`.
        high: of those that are 1.
    """

    pool: sampling.Pool
    test: jax.Array
    labels: jax.Array
    low: jax.Array
    high: jax.Array


class Plan(NamedTuple):
    """How sets of a kind are made.

    Attributes:
        dataset: benchmark.
        method: of distillation.
        steps: of it.
        weighted: by the oracle's weights.
    """

    dataset: str
    method: str
    steps: int
    weighted: bool = False


PLANS = {
    "dm": Plan("mnist", "dm", 60),
    "dsa": Plan("mnist", "dsa", 40),
    "mtt": Plan("mnist", "mtt", 100),
    "biased": Plan("cmnist", "dm", 60),
    "weighted": Plan("cmnist", "dm", 60, weighted=True),
}
CELLS = (
    ("dm", ("clean", "4", "2", "published", "1")),
    ("dsa", ("clean", "4")),
    ("biased", ("clean",)),
    ("weighted", ("clean", "4")),
    ("biased", ("4",)),
    ("dm", ("4±0.5",)),
    ("dsa", ("published", "2", "1")),
    ("dm", ("4±0.2",)),
    ("mtt", ("clean", "published", "4", "2", "1")),
)
"""Sets of each plan, in the order in which they are made."""

UPDATES = {"published": 10, "1": 20, "2": 20, "4": 10}
"""Of the images, in each of the attack's networks."""


@functools.cache
def load(plan: Plan, data_dir: pathlib.Path | None) -> Data:
    """Reads a benchmark and makes its images small."""
    data = benchmarks.load(plan.dataset, data_dir=data_dir)
    n = 10_000
    train, test = small(data.train.images[:n]), small(data.test.images[:300])
    labels = data.train.labels[:n]
    mean, std = (x((0, 1, 2)) / 255 for x in (train.mean, train.std))
    weights = None
    if plan.weighted:
        attributes = jnp.asarray(data.train.attributes)[:n]
        weights = formulas.oracle(
            jnp.asarray(labels), attributes, num_classes=CLASSES, num_attributes=data.num_attributes
        )
    pool = sampling.pool(train, labels, num_classes=CLASSES, mean=mean, std=std, weights=weights)
    low, high = (jnp.asarray((x - mean) / std, jnp.float32) for x in (0, 1))
    shown = sampling.normalise(jnp.asarray(test), jnp.asarray(mean), jnp.asarray(std))
    return Data(pool, shown, jnp.asarray(data.test.labels[:300]), low, high)


def small(images: np.ndarray) -> np.ndarray:
    """Means of 2×2 pixels of the middle 24×24, uint8."""
    middle = images[:, 4:28, 4:28].astype(np.float32)
    n, *_, channels = middle.shape
    return np.rint(middle.reshape(n, 12, 2, 12, 2, channels).mean((2, 4))).astype(np.uint8)


def trigger(name: str, data: Data) -> poison.Trigger:
    """The trigger of that name."""
    if name == "published":
        return poison.Trigger(1, 10.0)
    return poison.Trigger(int(base(name)), data.high)


def base(name: str) -> str:
    """The name of a trigger without the budget."""
    return name.partition("±")[0]


# --- sets --------------------------------------------------------------------------------------


def _method(name):
    if name == "mtt":
        return methods.trajectory_matching(
            NETWORK, optax.sgd(10.0, 0.5), inner=10, rate=0.05, strategy=STRATEGY
        )
    rate = 1.0 if name == "dm" else 0.1
    given = NETWORK, optax.sgd(rate, 0.5)
    if name == "dm":
        return methods.distribution_matching(*given, strategy=STRATEGY)
    return methods.gradient_matching(*given, outer=10, inner=5, strategy=STRATEGY)


_SAMPLER = functools.partial(sampling.weighted_batch, size=32)


@functools.cache
def _parts(plan, data_dir):
    """The method, what it draws and where from: images, or experts that learned from them."""
    pool = load(plan, data_dir).pool
    if plan.method != "mtt":
        return _method(plan.method), _SAMPLER, pool
    expert = lambda key: experts.train(
        key, NETWORK, pool, sampler=_SAMPLER, epochs=10, updates=20,
        optimizer=optax.sgd(0.05), strategy=STRATEGY,
    )  # fmt: skip
    experts = jax.jit(lambda keys: jax.lax.map(expert, keys))(
        jax.random.split(jax.random.key(2000), EXPERTS)
    )
    return _method("mtt"), functools.partial(experts.segment, span=2, latest=5), experts


def distilled(plan: Plan, data_dir: pathlib.Path | None, seed: int) -> np.ndarray:
    """Distils the clean set of a seed, `[m, h, w, c]`, class by class."""
    key_init, key = jax.random.split(jax.random.key(seed))
    (method, sampler, source), pool = _parts(plan, data_dir), load(plan, data_dir).pool
    state = method.init(sampling.initial_real(key_init, pool, ipc=IPC, weighted=True))
    given: dict[str, Any] = dict(
        method=method, sampler=sampler, steps=plan.steps, chunk_length=plan.steps
    )
    *_, (_, state, _) = methods.run(key, state, source, **given)
    return np.asarray(state.images).reshape(-1, *state.images.shape[2:])


LABELS = jnp.arange(CLASSES).repeat(IPC)


@functools.cache
def attack(plan: Plan, name: str, data_dir: pathlib.Path | None) -> Callable[..., jax.Array]:
    """The compiled attack with a trigger, from a key and images to images."""
    data = load(plan, data_dir)

    def limits(images):
        if name == "published":
            return None
        if budget := float(name.partition("±")[2] or 0):
            return images - budget, images + budget
        return data.low, data.high

    return jax.jit(
        lambda key, images: poison.poison(
            key, NETWORK, images, LABELS, trigger(name, data),
            num_classes=CLASSES, steps=UPDATES[base(name)], limits=limits(images),
        )
    )  # fmt: skip


def made(
    plan: Plan, name: str, seed: int, *, data_dir: pathlib.Path | None, work: pathlib.Path
) -> np.ndarray:
    """The set of a seed, "clean" or with a trigger, from the work folder if it is there."""
    path = work / f"{hash_of(plan)}-{name}-{seed}.npz"
    if path.exists():
        return files.read_arrays(path, names=("images",))["images"]
    if name == "clean":
        images = distilled(plan, data_dir, seed)
    else:
        clean = made(plan, "clean", seed, data_dir=data_dir, work=work)
        images = attack(plan, name, data_dir)(jax.random.key(1000 + seed), jnp.asarray(clean))
    files.write_arrays(path, {"images": np.asarray(images)})
    return np.asarray(images)


def hash_of(plan: Plan) -> str:
    """A name for how the sets of a plan are made."""
    return files.digest(np.frombuffer(repr((plan[:4], UPDATES, IPC)).encode(), np.uint8))[:12]


# --- what is measured --------------------------------------------------------------------------


def _trained(key, network, images, count, strategy=()):
    fit = lambda key: training.train(
        key, network, images, LABELS, epochs=100, strategy=strategy, batch_size=len(LABELS)
    )
    return jax.lax.map(fit, jax.random.split(key, count))


def succeeded(network: networks.Network, params: Any, data: Data) -> dict[str, jax.Array]:
    """Accuracy, and the success of each trigger, in each network."""
    others = data.labels != 0

    def predicted(params, images):
        return networks.outputs(network, params, images).logits.argmax(1)

    def one(params):
        found = {"accuracy": jnp.mean(predicted(params, data.test) == data.labels)}
        for name in UPDATES:
            stamped = poison.stamp(data.test, trigger(name, data))
            found[name] = jnp.sum((predicted(params, stamped) == 0) & others) / others.sum()
        return found

    return jax.lax.map(one, params)


@functools.cache
def looked(plan: Plan, data_dir: pathlib.Path | None) -> Callable[..., dict[str, Any]]:
    """The compiled audit of images, and what the triggers do."""
    data = load(plan, data_dir)
    ends: dict[str, Any] = dict(low=data.low, high=data.high)
    tried = audit.patches(12, 12, sizes=SIZES, **ends)
    given = dict(num_classes=CLASSES)
    searched = dict(screen=8, keep=4, **given)
    real, real_labels = data.test[:50], data.labels[:50]

    @jax.jit
    def look(key, images):
        params, others = _trained(key, NETWORK, images, 4), _trained(key, OTHER, images, 2)
        own = audit.scan([(NETWORK, params)], images, LABELS, tried, sizes=SIZES, **searched)
        seen = audit.scan([(NETWORK, params)], real, real_labels, tried, sizes=SIZES, **searched)
        few = jax.tree.map(lambda x: x[:2], params)
        masks = audit.cleanse(
            NETWORK, few, images[::2], LABELS[::2], steps=40, enough=0.9, **given, **ends
        )
        keys = jax.random.split(key, 4)
        best = own.rates.mean(0)[-1].argmax()
        patch = jax.tree.map(lambda x: x[-1, best], own.patches)
        one = jax.tree.map(lambda x: x[0], params)
        return {
            "own": own, "seen": seen, "masks": masks,
            "disagreement": audit.disagreement(keys, NETWORK, images, LABELS, real, real_labels),
            "strip": audit.strip(key, NETWORK, one, real, patch, blends=16),
            "convnet": succeeded(NETWORK, params, data),
            "mlp": succeeded(OTHER, others, data),
        }  # fmt: skip

    return look


@functools.cache
def judged(
    plan: Plan, strategy: tuple[str, ...], data_dir: pathlib.Path | None
) -> Callable[..., dict[str, jax.Array]]:
    """The compiled success of triggers in networks trained on images."""
    data = load(plan, data_dir)
    return jax.jit(
        lambda key, images: jax.tree.map(
            jnp.mean, succeeded(NETWORK, _trained(key, NETWORK, images, 2, strategy), data)
        )
    )


def measured(
    plan: Plan, name: str, seed: int, *, data_dir: pathlib.Path | None, work: pathlib.Path
) -> dict[str, Any]:
    """All statistics of a set, in each network, class and patch size."""
    where: dict[str, Any] = dict(data_dir=data_dir, work=work)
    images, data = made(plan, name, seed, **where), load(plan, data_dir)
    trusted = made(plan, "clean", (seed + count(plan) // 2) % count(plan), **where)
    by_class = lambda images: images.reshape(CLASSES, IPC, *images.shape[1:])
    key = jax.random.key(seed)
    found = looked(plan, data_dir)(key, jnp.asarray(images))
    record: dict[str, Any] = {
        "outside": audit.outside(images, data.pool.mean, data.pool.std)._asdict(),
        "roughness": audit.roughness(images),
        "footprint": audit.footprint(by_class(images), by_class(trusted)).max(),
        "disagreement": found["disagreement"],
        "strip": found["strip"],
        "masks": found["masks"],
        **{title: moving(found[title]) for title in ("own", "seen")},
        **{title: jax.tree.map(jnp.mean, found[title]) for title in ("convnet", "mlp")},
    }
    if seed < FEW and plan.method == "dm":
        pixels = np.clip(images * np.asarray(data.pool.std) + np.asarray(data.pool.mean), 0, 1)
        rounded = (np.rint(255 * pixels) / 255 - data.pool.mean) / data.pool.std
        record["augmented"] = judged(plan, STRATEGY, data_dir)(key, jnp.asarray(images))
        record["rounded"] = judged(plan, (), data_dir)(key, jnp.asarray(rounded, jnp.float32))
    return jax.tree.map(lambda x: np.round(np.asarray(x, float), 4).tolist(), record)


def moving(found: audit.Scan) -> dict[str, Any]:
    """What the patch of each size does that moves most, to whatever class."""
    rates = np.asarray(found.rates)  # [m, s, k]
    chosen = rates.mean(0).argmax(-1)  # [s]
    sizes = np.arange(len(chosen))
    return {
        "class": chosen,
        "corner": np.asarray(found.patches.corner)[sizes, chosen],
        "rate": rates[:, sizes, chosen],
        "margin": rates[:, sizes, chosen] - np.median(rates, axis=-1),
        "target": rates[..., 0].mean(0),
    }


def order() -> Iterator[tuple[str, str, int]]:
    """The sets in the order in which they are measured: plan, trigger and seed."""
    for title, names in CELLS:
        for name in names:
            yield from ((title, name, seed) for seed in range(count(PLANS[title])))


def count(plan: Plan) -> int:
    """How many sets of a plan there are, with or without each trigger."""
    return FEW if plan.dataset == "cmnist" else SEEDS


# --- tables ------------------------------------------------------------------------------------

STATISTICS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "range": lambda found: found["outside"]["furthest"],
    "roughness": lambda found: found["roughness"],
    "footprint": lambda found: found["footprint"],
    "gradients": lambda found: np.mean(found["disagreement"]),
    "patches": lambda found: np.mean(found["own"]["margin"], 0),
    "patches, real images": lambda found: np.mean(found["seen"]["margin"], 0),
    "mask": lambda found: -np.log(np.maximum(np.min(found["masks"], 1), 0.1)).mean(),
    "anomaly index": lambda found: np.mean(audit.outlying(found["masks"])),
    "STRIP": lambda found: found["strip"],
}
"""From what was measured of a set to numbers that are larger where there is more to suspect."""

TRUSTED = 5
"""Trusted sets beside each that the shipped rule is tried on."""


def by_cell(path: pathlib.Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """What was measured, by plan and trigger, in the order of seeds."""
    sets = files.read_json(path)["sets"]
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for title, name, seed in order():
        if (found := sets.get(f"{title}, {name}, {seed}")) is not None:
            cells.setdefault((title, name), []).append(found)
    return {key: cells[key] for key in sorted(cells, key=lambda key: list(PLANS).index(key[0]))}


def scored(found: list[dict[str, Any]], clean: list[dict[str, Any]], name: str) -> np.ndarray:
    """A statistic in each set, the largest of its numbers in standard deviations of clean sets."""
    own, honest = (
        np.stack([np.atleast_1d(STATISTICS[name](each)) for each in sets])
        for sets in (found, clean)
    )
    return ((own - honest.mean(0)) / honest.std(0)).max(1)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    z = 1.96
    middle, spread = hits + z * z / 2, z * np.sqrt(hits * (count - hits) / count + z * z / 4)
    return (middle - spread) / (count + z * z), (middle + spread) / (count + z * z)


def detection(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a table of the share of tampered sets that each statistic finds."""
    cells = by_cell(path)
    yield f"| [found, %](experiments/results/{path.name}) | n | {' | '.join(STATISTICS)} |"
    yield f"|---|--:|{'--:|' * len(STATISTICS)}"
    for (title, name), found in cells.items():
        clean = cells[title, "clean"]
        if name == "clean" or len(clean) < SEEDS:
            continue
        shares = []
        for statistic in STATISTICS:
            threshold = np.sort(scored(clean, clean, statistic))[-2]
            hits = int((scored(found, clean, statistic) > threshold).sum())
            low, high = wilson(hits, len(found))
            share = 100 * hits / len(found)
            shares.append(f"{share:.0f} ({100 * low:.0f}–{100 * high:.0f})")
        yield f"| {title}, {name} | {len(found)} | {' | '.join(shares)} |"


def success(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a table of what the attack does."""
    cells = by_cell(path)
    titles = (
        "accuracy, clean", "accuracy", "success", "on the clean set", "MLP",
        "trained with DSA", "rounded to 8 bits",
    )  # fmt: skip
    yield f"| [%](experiments/results/{path.name}) | n | {' | '.join(titles)} |"
    yield f"|---|--:|{'--:|' * len(titles)}"
    for (title, name), found in cells.items():
        if name == "clean":
            continue
        clean = cells[title, "clean"][: len(found)]
        numbers = [
            _mean(clean, "convnet", "accuracy"),
            *(_mean(found, "convnet", score) for score in ("accuracy", base(name))),
            _mean(clean, "convnet", base(name)),
            *(_mean(found, kind, base(name)) for kind in ("mlp", "augmented", "rounded")),
        ]
        yield f"| {title}, {name} | {len(found)} | {' | '.join(numbers)} |"


def _mean(found, kind, score):
    values = [100 * each[kind][score] for each in found if kind in each]
    return f"{np.mean(values):.0f} ± {np.std(values, ddof=1):.0f}" if len(values) > 1 else "–"


def suspected(found: dict[str, Any], trusted: list[dict[str, Any]], *, real: bool) -> list[str]:
    """The checks that `jaxdd audit` would call evidence, by the statistics that were kept."""
    names = ["roughness", "footprint", "mask"] + ["gradients"] * real
    patches = "patches, real images" if real else "patches"
    numbers = {name: [STATISTICS[name](each) for each in (found, *trusted)] for name in names}
    margins = [STATISTICS[patches](each) for each in (found, *trusted)]
    numbers |= {f"patch of {size}": [each[i] for each in margins] for i, size in enumerate(SIZES)}
    level = inspection.SIGNIFICANCE / len(numbers)
    hits = ["range"] * (STATISTICS["range"](found) > inspection.MAX_OVERSHOOT)
    for name, (own, *others) in numbers.items():
        if audit.shift([own], np.array(others)[:, None]).p <= level:
            hits.append(name)
    return hits


def shipped(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a table of the sets that `jaxdd audit` would call tampered with."""
    cells = by_cell(path)
    titles = "alone", f"beside {TRUSTED} trusted sets", "and with real images"
    yield f"| [called tampered with](experiments/results/{path.name}) | {' | '.join(titles)} |"
    yield f"|---|{'--:|' * len(titles)}"
    for (title, name), found in cells.items():
        beside = cells.get(("weighted" if title == "biased" else title, "clean"), [])
        alone = sum(STATISTICS["range"](each) > inspection.MAX_OVERSHOOT for each in found)
        counts = [f"{alone} of {len(found)}"]
        for real in (False, True):
            hits = [
                bool(suspected(each, others, real=real))
                for seed, each in enumerate(found)
                if len(others := _others(beside, seed, found)) > 1
            ]
            counts.append(f"{sum(hits)} of {len(hits)}" if hits else "–")
        yield f"| {title}, {name} | {' | '.join(counts)} |"


def _others(beside, seed, found):
    """The trusted sets of the next seeds, without the one that is looked at."""
    places = dict.fromkeys((seed + i) % len(beside) for i in range(1, TRUSTED + 1) if beside)
    return [beside[place] for place in places if beside is not found or place != seed]


def tables(path: pathlib.Path = RESULTS / "tampering.json") -> Iterator[list[str]]:
    """Yields the lines of each table."""
    for table in (success, detection, shipped):
        yield list(table(path))


def main(
    *,
    data_dir: pathlib.Path | None = None,
    budget: str | None = None,
    work: pathlib.Path = files.CACHE / "experiments" / "tampering",
    out: pathlib.Path = RESULTS / "tampering.json",
) -> None:
    """Measures every set that `out` does not hold yet.

    Args:
        data_dir: folder with the original files.
        budget: time after which to stop, such as 90s, 20m or 1h.
        work: folder for sets.
        out: JSON file.
    """
    programs.prepare()
    work = work.expanduser()
    work.mkdir(parents=True, exist_ok=True)
    report = files.read_json(out) if out.exists() else {"sets": {}}
    left = [each for each in order() if ", ".join(map(str, each)) not in report["sets"]]
    try:
        with deadline(None if budget is None else seconds(budget)):
            while left:
                title, name, seed = left[0]
                found = measured(PLANS[title], name, seed, data_dir=data_dir, work=work)
                report["sets"][f"{title}, {name}, {seed}"] = found
                files.write_json(out, {**report, **results.circumstances()})
                print(title, name, seed, found["convnet"], flush=True)
                left.pop(0)
    except KeyboardInterrupt:
        pass
    print("\n\n".join("\n".join(lines) for lines in tables(out)))
    if left:
        print(f"{len(left)} sets are left; run the command again", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    tyro.cli(main)
