"""Does `jaxdd audit` detect a back door in a distilled set?

    python -m experiments.tampering --data-dir DIR

The attack is that of `experiments.attacks.poison`. Sets are small, so that two cores suffice for
hundreds: MNIST at 12×12 pixels, five images per class, a ConvNet of two blocks and width 16, which
the attacker also uses. Each set is distilled from its own seed; twenty of a method are clean, and
each of these is poisoned once with each trigger:

* published: one pixel of the normalised value 10, which no image has, without a limit on images;
* 1, 2, 4: white squares with sides of that many pixels, by an attacker who knows of the range check
  and clips images to [0, 1] after each update;
* 4±0.5, 4±0.2: the square of 4, where no value moves by more than that many standard deviations.

The published attack has eleven networks with 101 updates of the images in each. Here it has ten
updates, and twenty for 1 and 2, which move images less. The plans biased and weighted are coloured
digits, distilled with uniform and with oracle weights, five sets each. They show whether the audit
reports clean but biased sets, and whether weights weaken the attack.

A statistic detects a tampered set if it exceeds that of all but one of the twenty clean ones, which
means 5 % false alarms. Footprints are relative to the clean set of another seed. Intervals are
Wilson's. Attack success is the share of 300 test images of other classes that networks trained on
the set assign to the target once they carry the trigger, compared with networks trained on the
clean set. The level of the rule with trusted sets, 0.03, was chosen on the sets of DM and DSA on
2026-11-23; 0.05 reported four of these forty clean sets. Sets of trajectory matching were made
after that, and again with a tenth of the learning rate, because with 100 two of twenty diverged.

Cost: 360 sets of six to seven processor seconds each; with exit code 3, some are missing.
"""

import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import stats

from experiments.attacks import poison
from experiments.tools import markdown, record, small
from jaxdd import audit, methods, networks, sampling, training
from jaxdd.data import benchmarks, files
from jaxdd.methods import expert_training
from jaxdd.runs import programs
from jaxdd.runs.trust import inspection, publication
from jaxdd.weights import formulas

OUT = record.RESULTS / "tampering.json"
IPC, SEEDS, FEW, EXPERTS = 5, 20, 5, 10
CLASSES, SIZES = 10, (1, 2, 4)
LABELS = jnp.arange(CLASSES).repeat(IPC)
NETWORK, OTHER = networks.ConvNet(CLASSES, 16, 2), networks.MLP(CLASSES)
STRATEGY = ("color", "crop", "cutout", "scale", "rotate")


class Data(NamedTuple):
    """A data set of small images.

    Attributes:
        pool: training images.
        test: 300 normalised images.
        labels: classes of the test images.
        low: normalised value of pixels that are 0, `[c]`.
        high: normalised value of pixels that are 1.
    """

    pool: sampling.Pool
    test: jax.Array
    labels: jax.Array
    low: jax.Array
    high: jax.Array


class Plan(NamedTuple):
    """How sets of a kind are made; `weighted` for oracle weights."""

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
"""Updates of the images in each network of the attack."""


@functools.cache
def load(plan: Plan, data_dir: pathlib.Path | None) -> Data:
    """Read a benchmark and shrink its images."""
    data = benchmarks.load(plan.dataset, data_dir=data_dir)
    n = 10_000
    train, test = shrink(data.train.images[:n]), shrink(data.test.images[:300])
    labels = data.train.labels[:n]
    mean, std = (x((0, 1, 2)) / 255 for x in (train.mean, train.std))
    sizes, weights = dict(num_classes=CLASSES), None
    if plan.weighted:
        attributes, count = jnp.asarray(data.train.attributes)[:n], data.num_attributes
        weights = formulas.oracle(jnp.asarray(labels), attributes, num_attributes=count, **sizes)
    pool = sampling.pool(train, labels, mean=mean, std=std, weights=weights, **sizes)
    low, high = (jnp.asarray((x - mean) / std, jnp.float32) for x in (0, 1))
    normal = sampling.normalise(jnp.asarray(test), jnp.asarray(mean), jnp.asarray(std))
    return Data(pool, normal, jnp.asarray(data.test.labels[:300]), low, high)


def shrink(images: np.ndarray) -> np.ndarray:
    """Return means of 2×2 pixels of the middle 24×24, uint8."""
    middle = images[:, 4:28, 4:28].astype(np.float32)
    n, *_, channels = middle.shape
    return np.rint(middle.reshape(n, 12, 2, 12, 2, channels).mean((2, 4))).astype(np.uint8)


def trigger(name: str, data: Data) -> poison.Trigger:
    """Return the trigger with a name."""
    if name == "published":
        return poison.Trigger(1, 10.0)
    return poison.Trigger(int(base(name)), data.high)


def base(name: str) -> str:
    """Return the name of a trigger without its limit."""
    return name.partition("±")[0]


# --- sets --------------------------------------------------------------------------------------


def _method(name):
    if name == "mtt":
        optimizer = optax.sgd(10.0, 0.5)
        return methods.trajectory_matching(
            NETWORK, optimizer, inner=10, rate=0.05, strategy=STRATEGY
        )
    if name == "dm":
        return methods.distribution_matching(NETWORK, optax.sgd(1.0, 0.5), strategy=STRATEGY)
    optimizer = optax.sgd(0.1, 0.5)
    return methods.gradient_matching(NETWORK, optimizer, outer=10, inner=5, strategy=STRATEGY)


_SAMPLER = functools.partial(sampling.weighted_batch, size=32)


@functools.cache
def _parts(plan, data_dir):
    """Return the method, the sampler, and its source: images, or experts trained on them."""
    pool = load(plan, data_dir).pool
    if plan.method != "mtt":
        return _method(plan.method), _SAMPLER, pool
    expert = lambda key: expert_training.train(
        key, NETWORK, pool, sampler=_SAMPLER, epochs=10, updates=20,
        optimizer=optax.sgd(0.05), strategy=STRATEGY,
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(2000), EXPERTS)
    trajectories = jax.jit(lambda keys: jax.lax.map(expert, keys))(keys)
    return (
        _method("mtt"),
        functools.partial(expert_training.segment, span=2, starts=6),
        trajectories,
    )


def distil(plan: Plan, data_dir: pathlib.Path | None, seed: int) -> np.ndarray:
    """Distil the clean set of a seed, `[m, h, w, c]`, class by class."""
    key_init, key = jax.random.split(jax.random.key(seed))
    (method, sampler, source), pool = _parts(plan, data_dir), load(plan, data_dir).pool
    state = method.init(sampling.initial_real(key_init, pool, ipc=IPC, weighted=True))
    loop = dict(method=method, sampler=sampler, steps=plan.steps, chunk_length=plan.steps)
    images = small.run(key, state, source, **loop).images
    return np.asarray(images).reshape(-1, *images.shape[2:])


@functools.cache
def attack(plan: Plan, name: str, data_dir: pathlib.Path | None) -> Callable[..., jax.Array]:
    """Return the compiled attack with a trigger, from a key and images to images."""
    data = load(plan, data_dir)

    def limits(images):
        if name == "published":
            return None
        if distance := float(name.partition("±")[2] or 0):
            return images - distance, images + distance
        return data.low, data.high

    return jax.jit(
        lambda key, images: poison.poison(
            key, NETWORK, images, LABELS, trigger(name, data),
            num_classes=CLASSES, steps=UPDATES[base(name)], limits=limits(images),
        )
    )  # fmt: skip


def make_set(
    plan: Plan, name: str, seed: int, *, data_dir: pathlib.Path | None, work: pathlib.Path
) -> np.ndarray:
    """Return the set of a seed, "clean" or with a trigger; read it if it is in the work folder."""
    settings = files.digest(np.frombuffer(repr((plan[:4], UPDATES, IPC)).encode(), np.uint8))[:12]
    path = work / f"{settings}-{name}-{seed}.npz"
    if path.exists():
        return files.read_arrays(path, names=("images",))["images"]
    if name == "clean":
        images = distil(plan, data_dir, seed)
    else:
        clean = make_set(plan, "clean", seed, data_dir=data_dir, work=work)
        images = attack(plan, name, data_dir)(jax.random.key(1000 + seed), jnp.asarray(clean))
    files.write_arrays(path, {"images": np.asarray(images)})
    return np.asarray(images)


# --- measurements ------------------------------------------------------------------------------


def _train(key, network, images, count, strategy=()):
    fit = lambda key: training.train(
        key, network, images, LABELS, epochs=100, strategy=strategy, batch_size=len(LABELS)
    )
    return jax.lax.map(fit, jax.random.split(key, count))


def success_rates(network: networks.Network, params: Any, data: Data) -> dict[str, jax.Array]:
    """Return accuracy and the success of each trigger, for each network."""
    others = data.labels != 0

    def rates(params):
        predict = lambda images: networks.outputs(network, params, images).logits.argmax(1)
        scores = {"accuracy": jnp.mean(predict(data.test) == data.labels)}
        for name in UPDATES:
            stamped = poison.stamp(data.test, trigger(name, data))
            scores[name] = jnp.sum((predict(stamped) == 0) & others) / others.sum()
        return scores

    return jax.lax.map(rates, params)


@functools.cache
def audit_program(plan: Plan, data_dir: pathlib.Path | None) -> Callable[..., dict[str, Any]]:
    """Return the compiled audit of images, with the success of the triggers."""
    data = load(plan, data_dir)
    ends: dict[str, Any] = dict(low=data.low, high=data.high)
    patches = audit.patches(12, 12, sizes=SIZES, **ends)
    real, real_labels = data.test[:50], data.labels[:50]

    @jax.jit
    def run(key, images):
        params, others = _train(key, NETWORK, images, 4), _train(key, OTHER, images, 2)
        scan = lambda images, labels: audit.scan_patches(
            [(NETWORK, params)], images, labels, patches, sizes=SIZES, screen=8, keep=4,
            num_classes=CLASSES,
        )  # fmt: skip
        own = scan(images, LABELS)
        # Neural Cleanse optimises a mask per class and network; two networks and half of the images
        # keep it as cheap as the other checks.
        pair = jax.tree.map(lambda x: x[:2], params)
        masks = audit.neural_cleanse(
            NETWORK, pair, images[::2], LABELS[::2], steps=40, enough=0.9, num_classes=CLASSES,
            **ends,
        )  # fmt: skip
        keys = jax.random.split(key, 4)
        best = own.rates.mean(0)[-1].argmax()
        patch = jax.tree.map(lambda x: x[-1, best], own.patches)
        first = jax.tree.map(lambda x: x[0], params)
        return {
            "own": own, "seen": scan(real, real_labels), "masks": masks,
            "disagreement": audit.gradient_disagreement(
                keys, NETWORK, images, LABELS, real, real_labels
            ),
            "strip": audit.strip(key, NETWORK, first, real, patch, blends=16),
            "convnet": success_rates(NETWORK, params, data),
            "mlp": success_rates(OTHER, others, data),
        }  # fmt: skip

    return run


@functools.cache
def success_program(
    plan: Plan, strategy: tuple[str, ...], data_dir: pathlib.Path | None
) -> Callable[..., dict[str, jax.Array]]:
    """Return the compiled success of triggers in networks trained with an augmentation."""
    data = load(plan, data_dir)
    rates = lambda key, images: success_rates(
        NETWORK, _train(key, NETWORK, images, 2, strategy), data
    )
    return jax.jit(lambda key, images: jax.tree.map(jnp.mean, rates(key, images)))


def measure(
    plan: Plan, name: str, seed: int, *, data_dir: pathlib.Path | None, work: pathlib.Path
) -> dict[str, Any]:
    """Return all statistics of a set, for each network, class and patch size."""
    where: Any = dict(data_dir=data_dir, work=work)
    images, data = make_set(plan, name, seed, **where), load(plan, data_dir)
    # Use a clean set of another seed, because the footprint of a set relative to itself is zero.
    trusted = make_set(plan, "clean", (seed + count(plan) // 2) % count(plan), **where)
    by_class = lambda images: images.reshape(CLASSES, IPC, *images.shape[1:])
    key = jax.random.key(seed)
    report = audit_program(plan, data_dir)(key, jnp.asarray(images))
    share, furthest = audit.out_of_range(images, data.pool.mean, data.pool.std)
    row: dict[str, Any] = {
        "outside": {"share": share, "furthest": furthest},
        "roughness": audit.roughness(images),
        "footprint": audit.footprint(by_class(images), by_class(trusted)).max(),
        **{title: report[title] for title in ("disagreement", "strip", "masks")},
        **{title: strongest(report[title]) for title in ("own", "seen")},
        **{title: jax.tree.map(jnp.mean, report[title]) for title in ("convnet", "mlp")},
    }
    if seed < FEW and plan.method == "dm":
        pixels = np.clip(images * np.asarray(data.pool.std) + np.asarray(data.pool.mean), 0, 1)
        rounded = (np.rint(255 * pixels) / 255 - data.pool.mean) / data.pool.std
        row["augmented"] = success_program(plan, STRATEGY, data_dir)(key, jnp.asarray(images))
        rounded = jnp.asarray(rounded, jnp.float32)
        row["rounded"] = success_program(plan, (), data_dir)(key, rounded)
    return jax.tree.map(lambda x: np.round(np.asarray(x, float), 4).tolist(), row)


def strongest(scan: audit.PatchScan) -> dict[str, Any]:
    """Return the effect of the patch of each size that moves most images to a class."""
    rates = np.asarray(scan.rates)  # [m, s, k]
    chosen = rates.mean(0).argmax(-1)  # [s]
    sizes = np.arange(len(chosen))
    return {
        "class": chosen,
        "corner": np.asarray(scan.patches.corner)[sizes, chosen],
        "rate": rates[:, sizes, chosen],
        "margin": rates[:, sizes, chosen] - np.median(rates, axis=-1),
        "target": rates[..., 0].mean(0),
    }


def order() -> Iterator[tuple[str, str, int]]:
    """Yield plan, trigger and seed of the sets in the order in which they are measured."""
    for title, names in CELLS:
        for name in names:
            yield from ((title, name, seed) for seed in range(count(PLANS[title])))


def count(plan: Plan) -> int:
    """Return the number of sets of a plan, for each trigger."""
    return FEW if plan.dataset == "cmnist" else SEEDS


# --- tables ------------------------------------------------------------------------------------

# From the measurements of a set to numbers that are larger for more suspicious sets.
STATISTICS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "range": lambda row: row["outside"]["furthest"],
    "roughness": lambda row: row["roughness"],
    "footprint": lambda row: row["footprint"],
    "gradients": lambda row: np.mean(row["disagreement"]),
    "patches": lambda row: np.mean(row["own"]["margin"], 0),
    "patches, real images": lambda row: np.mean(row["seen"]["margin"], 0),
    "mask": lambda row: -np.log(np.maximum(np.min(row["masks"], 1), 0.1)).mean(),
    "anomaly index": lambda row: np.mean(audit.anomaly_index(row["masks"])),
    "STRIP": lambda row: row["strip"],
}
TRUSTED = 5
"""Number of trusted sets with which the rule of `jaxdd audit` is tried."""

Rows = list[dict[str, Any]]


def by_cell(path: pathlib.Path) -> dict[tuple[str, str], Rows]:
    """Return the measurements by plan and trigger, in the order of seeds."""
    measured, cells = record.measured(path), {}
    for title, name, seed in order():
        if (row := measured.get(f"{title}, {name}, {seed}")) is not None:
            cells.setdefault((title, name), []).append(row)
    return {key: cells[key] for key in sorted(cells, key=lambda key: list(PLANS).index(key[0]))}


def z_scores(rows: Rows, clean: Rows, name: str) -> np.ndarray:
    """Return the largest z-score of a statistic in each set, relative to the clean sets."""
    own, honest = (
        np.stack([np.atleast_1d(STATISTICS[name](row)) for row in sets]) for sets in (rows, clean)
    )
    return ((own - honest.mean(0)) / honest.std(0)).max(1)


def tables(path: pathlib.Path = OUT) -> list[list[str]]:
    """Return the tables: what the attack does, detection by statistic, and by `jaxdd audit`."""
    cells = by_cell(path)
    return [_success(cells, path), _detection(cells, path), _reported(cells, path)]


def _success(cells, path):
    rows = []
    for (title, name), tampered in cells.items():
        if name == "clean":
            continue
        clean, key = cells[title, "clean"][: len(tampered)], base(name)
        columns = [
            (clean, "convnet", "accuracy"), (tampered, "convnet", "accuracy"),
            (tampered, "convnet", key), (clean, "convnet", key),
            *((tampered, kind, key) for kind in ("mlp", "augmented", "rounded")),
        ]  # fmt: skip
        numbers = [_mean(*column) for column in columns]
        rows.append([f"{title}, {name}", str(len(tampered)), *numbers])
    titles = (
        "n", "accuracy, clean", "accuracy", "success", "on the clean set", "MLP",
        "trained with DSA", "rounded to 8 bits",
    )  # fmt: skip
    return markdown.table([markdown.link("%", path), *titles], rows)


def _mean(rows, kind, score):
    values = [100 * row[kind][score] for row in rows if kind in row]
    return f"{np.mean(values):.0f} ± {np.std(values, ddof=1):.0f}" if len(values) > 1 else "–"


def _detection(cells, path):
    rows = []
    for (title, name), tampered in cells.items():
        clean = cells[title, "clean"]
        if name == "clean" or len(clean) < SEEDS:
            continue
        shares = []
        for statistic in STATISTICS:
            # Second largest of twenty clean sets: 5 % false alarms.
            threshold = np.sort(z_scores(clean, clean, statistic))[-2]
            hits = int((z_scores(tampered, clean, statistic) > threshold).sum())
            low, high = stats.binomtest(hits, len(tampered)).proportion_ci(method="wilson")
            shares.append(f"{100 * hits / len(tampered):.0f} ({100 * low:.0f}–{100 * high:.0f})")
        rows.append([f"{title}, {name}", str(len(tampered)), *shares])
    return markdown.table([markdown.link("detected, %", path), "n", *STATISTICS], rows)


def evidence(row: dict[str, Any], trusted: Rows, *, real: bool) -> list[str]:
    """Return the checks that `jaxdd audit` would report, from the stored statistics."""
    names = ["roughness", "footprint", "mask"] + ["gradients"] * real
    patches = "patches, real images" if real else "patches"
    numbers = {name: [STATISTICS[name](r) for r in (row, *trusted)] for name in names}
    margins = [STATISTICS[patches](r) for r in (row, *trusted)]
    numbers |= {f"patch of {size}": [m[i] for m in margins] for i, size in enumerate(SIZES)}
    # Bonferroni correction over the checks, as in `jaxdd audit`.
    level = inspection.SIGNIFICANCE / len(numbers)
    hits = ["range"] * (STATISTICS["range"](row) > publication.MAX_OVERSHOOT)
    for name, (own, *others) in numbers.items():
        if audit.compare([own], np.array(others)[:, None]).p <= level:
            hits.append(name)
    return hits


_KINDS = {
    "clean": "clean",
    "published": "published: one pixel of the value 10",
    "4": "white square of 4×4 pixels",
    "2": "white square of 2×2 pixels",
    "1": "white square of 1×1 pixel",
    "4±0.5": "4×4, changes up to 0.5 standard deviations",
    "4±0.2": "4×4, changes up to 0.2 standard deviations",
}
_COLOURED = {"biased": "coloured digits, plain", "weighted": "coloured digits, oracle"}


def _reported(cells, path):
    """The table of `jaxdd audit` by kind of set; sets of MNIST by all methods together."""
    groups = {
        label: {(title, name): sets for (title, name), sets in cells.items()
                if name == kind and title not in _COLOURED}
        for kind, label in _KINDS.items()
    }  # fmt: skip
    groups |= {
        f"{_COLOURED[title]}, {_KINDS[name]}": {(title, name): sets}
        for (title, name), sets in cells.items()
        if title in _COLOURED
    }
    rows = []
    for label, group in groups.items():
        if group:
            rates = [
                row["convnet"][base(name)]
                for (_, name), sets in group.items()
                for row in sets
                if name != "clean"
            ]
            hits = [x for (title, _), sets in group.items() for x in _hits(cells, title, sets)]
            counts = [f"{sum(x)} of {len(x)}" for x in zip(*hits, strict=True)]
            success = f"{100 * np.mean(rates):.0f} %" if rates else "–"
            rows.append([label, success, *counts])
    titles = "success of the attack", "alone", f"with {TRUSTED} trusted sets", "and real images"
    return markdown.table([markdown.link("reported as tampered", path), *titles], rows)


def _hits(cells, title, sets):
    """Return whether each set is reported: alone, with trusted sets, and with real images."""
    clean = cells.get(("weighted" if title == "biased" else title, "clean"), [])
    return [
        (STATISTICS["range"](row) > publication.MAX_OVERSHOOT,
         *(bool(evidence(row, trusted, real=real)) for real in (False, True)))
        for seed, row in enumerate(sets)
        if len(trusted := _trusted(clean, seed, sets)) > 1
    ]  # fmt: skip


def _trusted(clean, seed, sets):
    """Return the clean sets of the next seeds, without the set in question."""
    places = dict.fromkeys((seed + i) % len(clean) for i in range(1, TRUSTED + 1) if clean)
    return [clean[place] for place in places if clean is not sets or place != seed]


def tasks(data_dir: pathlib.Path | None) -> record.Tasks:
    """Return functions that measure every set."""
    programs.prepare()
    work = (files.CACHE / "experiments" / "tampering").expanduser()
    work.mkdir(parents=True, exist_ok=True)
    return {
        f"{title}, {name}, {seed}": functools.partial(
            measure, PLANS[title], name, seed, data_dir=data_dir, work=work
        )
        for title, name, seed in order()
    }


if __name__ == "__main__":
    record.main(OUT, tasks, tables)
