"""Does a tube estimated by likelihood serve support vector regression, and what does it cost?

    python -m experiments.svr [--budget 20m]

Five ways to the half-width of the insensitive tube, all else (kernel, box, samples) the same:

* likelihood: `jaxdd.svr.WorkingLikelihoodSVR`, three passes over training residuals;
* leave-one-out: the same from leave-one-out residuals of kernel ridge regression;
* cherkassky-ma: 3 s √(log n / n), with the noise s from residuals of three nearest neighbours (of
  least squares where the kernel is linear), corrected for their degrees of freedom;
* cross-validation: the least squared error of five folds among eight half-widths;
* fixed: 0.1, scikit-learn's default.

Simulated: a linear target of three features and sin(x) / x on [-10, 10], with noise of standard
deviation .2 (outliers: 5 % of normal noise times ten), scored by the root mean squared error to the
target itself. Real: data sets that come with scikit-learn, those for classification as regressions
of one column on the others; two thirds of the samples, 300 at most, are trained on and the others
scored. Features and targets are standardised by the training samples, so that there the fixed
half-width is a tenth of a standard deviation.

100 repeats with new samples, the same for all five. A cell wins or loses where the mean of the
paired differences is more than two standard errors from zero. Seconds are those of one processor,
medians of the repeats. Twenty minutes beside other work; what `out` holds is not computed again,
and exit code 3 says that the budget left some.
"""

import functools
import itertools
import math
import pathlib
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import sklearn
import threadpoolctl
import tyro
from sklearn import datasets, linear_model, model_selection, neighbors, svm

from experiments.tools.budget import deadline, seconds
from experiments.tools.grid import RESULTS
from jaxdd import svr
from jaxdd.data import files
from jaxdd.runs import old_results as results

METHODS = ("likelihood", "leave-one-out", "cherkassky-ma", "cross-validation", "fixed")
OURS = METHODS[:2]
SIZES = (20, 50, 100, 300)
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.5)
"""Half-widths that cross-validation chooses among, in standard deviations of the targets."""

NOISE = 0.2
SLOPES = np.array([1.0, -1.0, 0.5])
COLUMNS = {
    "diabetes": None,
    "iris": "petal width (cm)",
    "wine": "proline",
    "breast_cancer": "mean smoothness",
    "digits": "pixel_4_4",
}
"""The columns that are regressed on the others; None where the data set is a regression."""

Sample = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Features and targets to train on, and to score."""


def epsilon_laplacian(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draws from the density of `jaxdd.svr` with ε = σ."""
    uniform = rng.uniform(0, 2, n)
    size = np.where(uniform < 1, uniform, 1 - np.log(np.maximum(2 - uniform, 1e-300)))
    return size * rng.choice((-1, 1), n) / math.sqrt(8 / 3)


NOISES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "ε-Laplacian": epsilon_laplacian,
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.uniform(-math.sqrt(3), math.sqrt(3), n),
    "Laplace": lambda rng, n: rng.laplace(scale=math.sqrt(0.5), size=n),
    "outliers": lambda rng, n: rng.normal(size=n) * np.where(rng.random(n) < 0.05, 10, 1),
}


def simulated(target: str, noise: str, n: int, rng: np.random.Generator) -> Sample:
    """Draws n samples to train on and 500 without noise."""
    if target == "linear":
        features = rng.uniform(-1, 1, (n + 500, len(SLOPES)))
        truth = features @ SLOPES
    else:
        features = rng.uniform(-10, 10, (n + 500, 1))
        truth = np.sinc(features[:, 0] / np.pi)
    noisy = truth[:n] + NOISE * NOISES[noise](rng, n)
    return features[:n], noisy, features[n:], truth[n:]


@functools.cache
def real(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The features and the targets of a data set that comes with scikit-learn."""
    found = getattr(datasets, f"load_{name}")()
    column = COLUMNS[name]
    if column is None:
        return found.data, found.target
    place = list(found.feature_names).index(column)
    return np.delete(found.data, place, axis=1), found.data[:, place]


def split(name: str, rng: np.random.Generator) -> Sample:
    """Draws two thirds of a data set, 300 at most, to train on; all standardised by these."""
    features, targets = real(name)
    order = rng.permutation(len(targets))
    train, test = np.split(order, [min(300, 2 * len(order) // 3)])
    mean, std = features[train].mean(axis=0), features[train].std(axis=0)
    features = (features - mean) / np.where(std > 0, std, 1)
    targets = (targets - targets[train].mean()) / targets[train].std()
    return features[train], targets[train], features[test], targets[test]


def cherkassky_ma(features: np.ndarray, targets: np.ndarray, kernel: str) -> float:
    """The half-width 3 s √(log n / n)."""
    n, d = features.shape
    if kernel == "linear":
        known, freedom = linear_model.LinearRegression(), d + 1
    else:
        known, freedom = neighbors.KNeighborsRegressor(3), n**0.8 / 3
    left = targets - known.fit(features, targets).predict(features)
    return 3 * math.sqrt((left**2).sum() / (n - freedom)) * math.sqrt(math.log(n) / n)


def cross_validated(model: svm.SVR, features: np.ndarray, targets: np.ndarray) -> float:
    """The half-width with the least squared error of five folds."""
    widths = [share * targets.std() for share in SHARES]
    folds = list(model_selection.KFold(5, shuffle=True, random_state=0).split(features))

    def error(width):
        model.set_params(epsilon=width)
        return sum(
            ((model.fit(features[t], targets[t]).predict(features[v]) - targets[v]) ** 2).sum()
            for t, v in folds
        )

    return min(widths, key=error)


def fitted(method: str, features: np.ndarray, targets: np.ndarray, **options: Any) -> Any:
    """The regression with the half-width of a method."""
    if method in OURS:
        kind = "training" if method == "likelihood" else method
        known = svr.WorkingLikelihoodSVR(residuals=kind, **options)
        return known.fit(features, targets).svr_
    box = float(np.quantile(np.abs(targets - np.median(targets)), 0.95))
    model = svm.SVR(C=box, **options)
    width = 0.1
    if method == "cherkassky-ma":
        width = cherkassky_ma(features, targets, options["kernel"])
    elif method == "cross-validation":
        width = cross_validated(model, features, targets)
    return model.set_params(epsilon=width).fit(features, targets)


def measured(
    name: str, draw: Callable[[np.random.Generator], Sample], repeats: int, **options: Any
) -> dict[str, Any]:
    """Scores every method on the same draws.

    Returns:
        For each method the mean and the standard error of the root mean squared error, the median
        of half-widths and of seconds; and of our methods the paired difference to the others.
    """
    errors, widths, spent = (np.zeros((repeats, len(METHODS))) for _ in range(3))
    for repeat, (place, method) in itertools.product(range(repeats), enumerate(METHODS)):
        rng = np.random.default_rng([zlib.crc32(name.encode()), repeat])
        features, targets, unseen, truth = draw(rng)
        begin = time.process_time()
        model = fitted(method, features, targets, **options)
        spent[repeat, place] = time.process_time() - begin
        widths[repeat, place] = model.epsilon
        errors[repeat, place] = np.sqrt(np.mean((model.predict(unseen) - truth) ** 2))

    def mean(values):
        return {"mean": values.mean(), "error": values.std(ddof=1) / math.sqrt(repeats)}

    return {
        "repeats": repeats,
        "methods": {
            method: mean(errors[:, place])
            | {"width": np.median(widths[:, place]), "seconds": np.median(spent[:, place])}
            for place, method in enumerate(METHODS)
        },
        "paired": {
            own: {
                other: mean(errors[:, METHODS.index(own)] - errors[:, place])
                for place, other in enumerate(METHODS)
                if other != own
            }
            for own in OURS
        },
    }


def cells() -> Iterator[tuple[str, Callable[[np.random.Generator], Sample], dict[str, Any]]]:
    """Yields names, draws and the options of the regression."""
    for target, noise, n in itertools.product(("linear", "nonlinear"), NOISES, SIZES):
        options = {"kernel": "linear"} if target == "linear" else {"kernel": "rbf", "gamma": 0.2}
        yield f"{target}, {noise}, {n}", functools.partial(simulated, target, noise, n), options
    for name in COLUMNS:
        yield name, functools.partial(split, name), {"kernel": "rbf", "gamma": "scale"}


def verdict(difference: dict[str, float]) -> str:
    """Returns won, even or lost.

    >>> verdict({"mean": -0.2, "error": 0.05}), verdict({"mean": 0.2, "error": 0.2})
    ('won', 'even')
    """
    if abs(difference["mean"]) <= 2 * difference["error"]:
        return "even"
    return "won" if difference["mean"] < 0 else "lost"


def counted(found: dict[str, Any], path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a table of cells won, even and lost."""
    pairs = [(own, other) for own in OURS for other in METHODS[2:]]
    titles = " | ".join(f"{own} against {other}" for own, other in pairs)
    yield f"| [won, even, lost](experiments/results/{path.name}) | {titles} |"
    yield f"|---|{'--:|' * len(pairs)}"
    rows = {noise: [name for name in found if f", {noise}, " in name] for noise in NOISES}
    rows |= {f"n = {n}": [name for name in found if name.endswith(f", {n}")] for n in SIZES}
    rows["real data"] = [name for name in found if name in COLUMNS]
    for title, names in rows.items():
        counts = []
        for own, other in pairs:
            said = [verdict(found[name]["paired"][own][other]) for name in names]
            counts.append(", ".join(str(said.count(word)) for word in ("won", "even", "lost")))
        yield f"| {title} | {' | '.join(counts)} |"


def scored(found: dict[str, Any], path: pathlib.Path, title: str) -> Iterator[str]:
    """Yields the lines of a table of errors, the least of each line in bold."""
    yield f"| [{title}](experiments/results/{path.name}) | {' | '.join(METHODS)} |"
    yield f"|---|{'--:|' * len(METHODS)}"
    for name, row in found.items():
        least = min(row["methods"][method]["mean"] for method in METHODS)
        numbers = []
        for score in (row["methods"][method] for method in METHODS):
            number = f"{score['mean']:.3f} ± {score['error']:.3f}"
            numbers.append(f"**{number}**" if score["mean"] == least else number)
        yield f"| {name} | {' | '.join(numbers)} |"


def timed(found: dict[str, Any], path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a table of milliseconds for a fit of the nonlinear target."""
    titles = " | ".join([*METHODS, "cross-validation / likelihood"])
    yield f"| [ms](experiments/results/{path.name}) | {titles} |"
    yield f"|---|{'--:|' * (len(METHODS) + 1)}"
    for n in SIZES:
        rows = [found[f"nonlinear, {noise}, {n}"]["methods"] for noise in NOISES]
        spent = {method: np.mean([row[method]["seconds"] for row in rows]) for method in METHODS}
        numbers = [f"{1000 * value:.1f}" for value in spent.values()]
        numbers.append(f"{spent['cross-validation'] / spent['likelihood']:.1f}")
        yield f"| n = {n} | {' | '.join(numbers)} |"


def tables(path: pathlib.Path) -> Iterator[list[str]]:
    """Yields the tables of results, as lines of Markdown."""
    found = files.read_json(path)["found"]
    curved = {name: row for name, row in found.items() if name.startswith("nonlinear")}
    yield list(counted(found, path))
    yield list(
        scored(
            {n: row for n, row in curved.items() if n.endswith(("20", "300"))},
            path,
            "root mean squared error to the target",
        )
    )
    yield list(scored({name: found[name] for name in COLUMNS}, path, "on test samples"))
    yield list(timed(found, path))


def main(
    *,
    repeats: int = 100,
    budget: str | None = None,
    out: pathlib.Path = RESULTS / "svr.json",
) -> None:
    """Measures every cell that `out` does not hold yet.

    Args:
        repeats: draws of each cell.
        budget: time to stop after, such as 20m.
        out: JSON file.
    """
    out = out.expanduser()
    report = files.read_json(out) if out.exists() else {"found": {}}
    try:
        with deadline(seconds(budget) if budget else None), threadpoolctl.threadpool_limits(1):
            for name, draw, options in cells():
                if name in report["found"]:
                    continue
                report["found"][name] = measured(name, draw, repeats, **options)
                known = results.circumstances()
                known["versions"]["scikit-learn"] = sklearn.__version__
                files.write_json(out, known | report)
                scores = report["found"][name]["methods"]
                print(name, {m: round(float(s["mean"]), 4) for m, s in scores.items()}, flush=True)
    except KeyboardInterrupt:
        sys.exit(3)


if __name__ == "__main__":
    tyro.cli(main)
