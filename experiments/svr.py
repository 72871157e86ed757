"""Does a tube estimated by likelihood help support vector regression, and what does it cost?

    python -m experiments.svr

Five ways to choose the half-width of the insensitive tube; kernel, box and samples are the same:

* likelihood: `jaxdd.svr.WorkingLikelihoodSVR`, three passes over training residuals;
* leave-one-out: the same estimator with leave-one-out residuals of kernel ridge regression;
* cherkassky-ma: 3 s √(log n / n), with the noise s from residuals of three nearest neighbours (of
  least squares for the linear kernel), corrected for their degrees of freedom;
* cross-validation: the one of eight half-widths with the smallest squared error in five folds;
* fixed: 0.1, scikit-learn's default.

Simulated: a linear target of three features and sin(x) / x on [-10, 10], with noise of standard
deviation 0.2 (outliers: 5 % of normal noise times ten), scored by the root mean squared error to
the target. Real: data sets of scikit-learn; in those for classification, one column is regressed on
the others. Two thirds of the samples, at most 300, are used for training. Features and targets are
standardised by the training samples. 100 repeats with new samples, the same for all five. A cell
counts as won or lost if the mean paired difference exceeds two standard errors. Seconds are
processor time, medians over repeats.

Cost: twenty minutes; with exit code 3, some cells are missing.
"""

import functools
import itertools
import math
import pathlib
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import threadpoolctl
from sklearn import datasets, linear_model, model_selection, neighbors, svm

from experiments.tools import markdown, record
from jaxdd import svr

OUT = record.RESULTS / "svr.json"
METHODS = ("likelihood", "leave-one-out", "cherkassky-ma", "cross-validation", "fixed")
TITLES = dict(zip(METHODS, (*METHODS[:2], "Cherkassky and Ma", METHODS[3], "default"), strict=True))
"""Titles of the methods in tables."""

OURS = METHODS[:2]
SIZES = (20, 50, 100, 300)
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.5)
"""Half-widths for cross-validation, in standard deviations of the targets."""

NOISE = 0.2
SLOPES = np.array([1.0, -1.0, 0.5])
COLUMNS = {
    "diabetes": None,
    "iris": "petal width (cm)",
    "wine": "proline",
    "breast_cancer": "mean smoothness",
    "digits": "pixel_4_4",
}
"""Columns that are regressed on the others; None if the data set is a regression."""

Sample = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Features and targets for training, then for scoring."""


def epsilon_laplacian(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw from the density of `jaxdd.svr` with ε = σ."""
    uniform = rng.uniform(0, 2, n)
    # Inverse distribution function: uniform on [0, 1] with probability 1/2, then exponential.
    size = np.where(uniform < 1, uniform, 1 - np.log(np.maximum(2 - uniform, 1e-300)))
    return size * rng.choice((-1, 1), n) / math.sqrt(8 / 3)


NOISES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "ε-Laplacian": epsilon_laplacian,
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.uniform(-math.sqrt(3), math.sqrt(3), n),
    "Laplace": lambda rng, n: rng.laplace(scale=math.sqrt(0.5), size=n),
    "outliers": lambda rng, n: rng.normal(size=n) * np.where(rng.random(n) < 0.05, 10, 1),
}


def simulate(target: str, noise: str, n: int, rng: np.random.Generator) -> Sample:
    """Draw n training samples, and 500 without noise."""
    if target == "linear":
        features = rng.uniform(-1, 1, (n + 500, len(SLOPES)))
        truth = features @ SLOPES
    else:
        features = rng.uniform(-10, 10, (n + 500, 1))
        truth = np.sinc(features[:, 0] / np.pi)
    noisy = truth[:n] + NOISE * NOISES[noise](rng, n)
    return features[:n], noisy, features[n:], truth[n:]


@functools.cache
def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the features and targets of a data set of scikit-learn."""
    data, column = getattr(datasets, f"load_{name}")(), COLUMNS[name]
    if column is None:
        return data.data, data.target
    place = list(data.feature_names).index(column)
    return np.delete(data.data, place, axis=1), data.data[:, place]


def split(name: str, rng: np.random.Generator) -> Sample:
    """Draw two thirds of a data set, at most 300, for training; standardise all by these."""
    features, targets = load(name)
    train, test = np.split(rng.permutation(len(targets)), [min(300, 2 * len(targets) // 3)])
    mean, std = features[train].mean(axis=0), features[train].std(axis=0)
    features = (features - mean) / np.where(std > 0, std, 1)
    targets = (targets - targets[train].mean()) / targets[train].std()
    return features[train], targets[train], features[test], targets[test]


def cherkassky_ma(features: np.ndarray, targets: np.ndarray, kernel: str) -> float:
    """Return the half-width 3 s √(log n / n)."""
    n, d = features.shape
    if kernel == "linear":
        model, freedom = linear_model.LinearRegression(), d + 1
    else:
        model, freedom = neighbors.KNeighborsRegressor(3), n**0.8 / 3
    # Noise variance with the degrees of freedom of the fit (Cherkassky and Ma, 2004).
    residuals = targets - model.fit(features, targets).predict(features)
    return 3 * math.sqrt((residuals**2).sum() / (n - freedom)) * math.sqrt(math.log(n) / n)


def cross_validate(model: svm.SVR, features: np.ndarray, targets: np.ndarray) -> float:
    """Return the half-width with the least squared error of five folds."""
    folds = list(model_selection.KFold(5, shuffle=True, random_state=0).split(features))

    def error(width):
        model.set_params(epsilon=width)
        return sum(
            ((model.fit(features[t], targets[t]).predict(features[v]) - targets[v]) ** 2).sum()
            for t, v in folds
        )

    return min((share * targets.std() for share in SHARES), key=error)


def fit(method: str, features: np.ndarray, targets: np.ndarray, **options: Any) -> Any:
    """Fit the regression with the half-width of a method."""
    if method in OURS:
        residuals = "training" if method == "likelihood" else method
        estimator = svr.WorkingLikelihoodSVR(residuals=residuals, **options)
        return estimator.fit(features, targets).svr_
    box = float(np.quantile(np.abs(targets - np.median(targets)), 0.95))
    model, width = svm.SVR(C=box, **options), 0.1
    if method == "cherkassky-ma":
        width = cherkassky_ma(features, targets, options["kernel"])
    elif method == "cross-validation":
        width = cross_validate(model, features, targets)
    return model.set_params(epsilon=width).fit(features, targets)


def measure(
    name: str, draw: Callable[[np.random.Generator], Sample], repeats: int, **options: Any
) -> dict[str, Any]:
    """Score every method on the same samples.

    Returns:
        For each method the mean and standard error of the root mean squared error, and the medians
        of half-widths and seconds; for our methods the paired differences to the others.
    """
    errors, widths, spent = (np.zeros((repeats, len(METHODS))) for _ in range(3))
    for repeat, (place, method) in itertools.product(range(repeats), enumerate(METHODS)):
        rng = np.random.default_rng([zlib.crc32(name.encode()), repeat])
        features, targets, unseen, truth = draw(rng)
        begin = time.process_time()
        model = fit(method, features, targets, **options)
        spent[repeat, place] = time.process_time() - begin
        widths[repeat, place] = model.epsilon
        errors[repeat, place] = np.sqrt(np.mean((model.predict(unseen) - truth) ** 2))
    summary = lambda x: {"mean": x.mean(), "error": x.std(ddof=1) / math.sqrt(repeats)}
    by_method = dict(zip(METHODS, errors.T, strict=True))
    return {
        "repeats": repeats,
        "methods": {
            method: summary(by_method[method])
            | {"width": np.median(widths[:, i]), "seconds": np.median(spent[:, i])}
            for i, method in enumerate(METHODS)
        },
        "paired": {
            own: {m: summary(by_method[own] - by_method[m]) for m in METHODS if m != own}
            for own in OURS
        },
    }


def cells() -> Iterator[tuple[str, Callable[[np.random.Generator], Sample], dict[str, Any]]]:
    """Yield names, samplers and the options of the regression."""
    for target, noise, n in itertools.product(("linear", "nonlinear"), NOISES, SIZES):
        options = {"kernel": "linear"} if target == "linear" else {"kernel": "rbf", "gamma": 0.2}
        yield f"{target}, {noise}, {n}", functools.partial(simulate, target, noise, n), options
    for name in COLUMNS:
        yield name, functools.partial(split, name), {"kernel": "rbf", "gamma": "scale"}


def verdict(difference: dict[str, float]) -> str:
    """Return won, even or lost.

    >>> verdict({"mean": -0.2, "error": 0.05}), verdict({"mean": 0.2, "error": 0.2})
    ('won', 'even')
    """
    if abs(difference["mean"]) <= 2 * difference["error"]:
        return "even"
    return "won" if difference["mean"] < 0 else "lost"


def tables(path: pathlib.Path = OUT) -> list[list[str]]:
    """Return the tables: counts of cells, errors on both kinds of data, and times."""
    measured = record.measured(path)
    few = [n for n in measured if n.startswith("nonlinear") and n.endswith(("20", "300"))]
    return [
        _counts(measured, path),
        _errors(measured, few, markdown.link("root mean squared error to the target", path)),
        _errors(measured, COLUMNS, markdown.link("on test samples", path)),
        _times(measured, path),
    ]


def _counts(measured, path):
    pairs = [(own, other) for own in OURS for other in METHODS[2:]]
    groups = {noise: [name for name in measured if f", {noise}, " in name] for noise in NOISES}
    groups |= {f"n = {n}": [name for name in measured if name.endswith(f", {n}")] for n in SIZES}
    groups["real data"] = list(COLUMNS)
    rows = []
    for title, names in groups.items():
        counts = []
        for own, other in pairs:
            verdicts = [verdict(measured[name]["paired"][own][other]) for name in names]
            counts.append(", ".join(str(verdicts.count(v)) for v in ("won", "even", "lost")))
        rows.append([title, *counts])
    titles = [f"{own} against {TITLES[other]}" for own, other in pairs]
    return markdown.table([markdown.link("won, even, lost", path), *titles], rows)


def _errors(measured, names, corner):
    """The errors of each method, the least of each row in bold."""
    rows = []
    for name in names:
        scores = [measured[name]["methods"][method] for method in METHODS]
        least = min(score["mean"] for score in scores)
        texts = [f"{score['mean']:.3f} ± {score['error']:.3f}" for score in scores]
        bold = [score["mean"] == least for score in scores]
        rows.append([name, *(f"**{t}**" if b else t for t, b in zip(texts, bold, strict=True))])
    return markdown.table([corner, *TITLES.values()], rows)


def _times(measured, path):
    """Milliseconds for a fit of the nonlinear target."""
    rows = []
    for n in SIZES:
        fits = [measured[f"nonlinear, {noise}, {n}"]["methods"] for noise in NOISES]
        spent = {method: np.mean([row[method]["seconds"] for row in fits]) for method in METHODS}
        ratio = spent["cross-validation"] / spent["likelihood"]
        rows.append([f"n = {n}", *(f"{1000 * x:.1f}" for x in spent.values()), f"{ratio:.1f}"])
    ratio = "cross-validation / likelihood"
    titles = [markdown.link("milliseconds per fit", path), *TITLES.values(), ratio]
    return markdown.table(titles, rows)


def tasks(data_dir: pathlib.Path | None = None, *, repeats: int = 100) -> record.Tasks:
    """Return functions that measure every cell; no files are needed."""
    return {
        name: functools.partial(measure, name, draw, repeats, **options)
        for name, draw, options in cells()
    }


if __name__ == "__main__":
    with threadpoolctl.threadpool_limits(1):
        record.main(OUT, tasks, tables)
