"""Chooses encoder length, bandwidth and temperature without bias labels.

Good weights give every bias group of a class the same mass, and nobody knows the groups. But a
classifier that has hardly been trained falls for the bias: the class whose mean is nearest in an
early embedding is the bias attribute of a sample, or nearly so. On coloured MNIST with .5 %
conflicting samples it disagrees with the label of 97 % of these, and 74 % of those for which it
disagrees do conflict (`experiments.principles`). These pseudo-groups stand in for the bias groups, and
the weights that balance them best are chosen.

Where no bias is, the samples that disagree are those that are hard to tell. Which of both it is shows
in networks trained on a few real images drawn by the weights, as a distilled set would be judged:
conflicting samples are no harder than others once the bias is gone, hard ones remain hard. Unless
`pays` finds the former, the choice is uniform weights.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdd import distill, evaluate, kde, networks, parallel, reweight
from jaxdd.data import datasets
from jaxdd.runs import jobs, processes, weighing

SEARCH = {
    "encoder_steps": (1, 3),
    "bandwidth": (0.5, 1, 2, 4),
    "temperature": (0.5, 0.7, 1, 1.4, 2),
}
"""Options that are chosen, and multiples of their own values, tried in all combinations."""

_DRAWS, _IPC, _EPOCHS = 4, 10, 100  # Sets that weights are judged by, images per class, training.
_HELD = 1000  # Samples of either kind that the sets are scored on.


class Trial(NamedTuple):
    """Mean accuracy on held-out samples.

    Attributes:
        overall: of the two below, by their shares of the training set; nan if there is none of one.
        agreeing: where the early classifier agrees with the label.
        disagreeing: where it does not.
        counted: number of disagreeing samples.
    """

    overall: float
    agreeing: float
    disagreeing: float
    counted: int


class Choice(NamedTuple):
    """What was chosen, and why.

    Attributes:
        weights: `[n]`.
        weighed: the density that they follow from; None for uniform weights.
        balances: the values that were tried, and the "balance" of the pseudo-groups with them.
        best: place of the best among these.
        trials: of "uniform" weights and of the "best".
    """

    weights: jax.Array
    weighed: weighing.Weighing | None
    balances: list[dict[str, float]]
    best: int
    trials: dict[str, Trial]


def pseudo_groups(embeddings: jax.Array, labels: jax.Array, *, num_classes: int) -> jax.Array:
    """Returns for every sample the class whose mean embedding is nearest, `[n]`.

    Args:
        embeddings: `[n, d]` of an encoder trained for a short time.
        labels: `[n]`.
        num_classes: k, static; a class without samples is nobody's.

    >>> embeddings = jnp.array([[0.0], [0.2], [1.0], [0.9], [1.1]])
    >>> pseudo_groups(embeddings, jnp.array([0, 0, 0, 1, 1]), num_classes=2).tolist()
    [0, 0, 1, 1, 1]
    """
    count = jax.ops.segment_sum(jnp.ones(len(labels)), labels, num_classes)
    mean = jax.ops.segment_sum(embeddings, labels, num_classes) / jnp.maximum(count, 1)[:, None]
    squared = (mean**2).sum(1) - 2 * jnp.matmul(embeddings, mean.T, precision="highest")
    return jnp.where(count > 0, squared, jnp.inf).argmin(1)


def choose(job: jobs.Job) -> Choice:
    """Tries the values of `SEARCH` and returns the weights of the best, or uniform ones.

    The pseudo-groups are those of the longest encoder.

    Args:
        job: from `jobs.prepare`.

    Raises:
        ValueError: for options that leave nothing to choose, see `checked`.
    """
    options, classes = checked(job.options), job.benchmark.num_classes
    labels = jnp.asarray(job.benchmark.train.labels)
    job.report("choosing weights", 0, 2)
    tried = list(candidates(job._replace(options=options)))
    groups = pseudo_groups(tried[-1][1].embeddings, labels, num_classes=classes)
    balance = lambda weights: float(
        reweight.group_balance(weights, labels, groups, num_classes=classes, num_attributes=classes)
    )
    balances = [{**values, "balance": balance(found.weights)} for values, found in tried]
    order = processes.broadcast(np.array([each["balance"] for each in balances]))
    best, uniform = int(order.argmax()), reweight.uniform(labels, num_classes=classes)
    job.report("choosing weights", 1, 2)
    with jobs.timed(job.seconds, "judge"):
        judged = judge(job, np.asarray(groups))
        plain, weighed = judged(uniform), judged(tried[best][1].weights)
    job.report("choosing weights", 2, 2)
    found = tried[best][1] if pays(plain, weighed) else None
    trials = {"uniform": plain, "best": weighed}
    return Choice(uniform if found is None else found.weights, found, balances, best, trials)


def pays(plain: Trial, weighed: Trial) -> bool:
    """Whether weights bring the disagreeing samples near the agreeing ones, at a bearable price.

    What they gain on disagreeing samples has to be more than chance; more than what these still lie
    behind; and more than half of what is lost on all, or a test set of which two thirds disagree would
    not gain. Chance is two standard errors of the difference of two proportions, at most √(2 / m) for
    m disagreeing samples.

    >>> biased, hard = Trial(0.95, 0.99, 0.1, 400), Trial(0.9, 0.91, 0.3, 400)
    >>> pays(biased, Trial(0.7, 0.7, 0.7, 400)), pays(hard, Trial(0.8, 0.82, 0.4, 400))
    (True, False)
    """
    if not plain.counted:
        return False
    gain, loss = weighed.disagreeing - plain.disagreeing, plain.overall - weighed.overall
    behind = weighed.agreeing - weighed.disagreeing
    return gain > max((2 / plain.counted) ** 0.5, behind, loss / 2)


def checked(options: jobs.Options) -> jobs.Options:
    """Returns the options where the search begins, a bandwidth factor among them.

    Raises:
        ValueError: for a bandwidth rule without a factor, or weights estimated from each batch.
    """
    rules = "mean-distance", "median-distance"
    if options.bandwidth_rule not in rules:
        raise ValueError(
            f"auto chooses the factor of a bandwidth_rule among {' and '.join(rules)}, "
            f"found {options.bandwidth_rule}"
        )
    if options.weighting == "batch":
        raise ValueError("auto chooses weights of the whole set, found weighting batch")
    bandwidth = kde.FACTOR if options.bandwidth is None else options.bandwidth
    return dataclasses.replace(options, bandwidth=bandwidth)


def having(job: jobs.Job, **changed: Any) -> jobs.Job:
    """Returns the job with some options changed; what it has compiled stays as it was."""
    return job._replace(options=dataclasses.replace(job.options, **changed))


def candidates(job: jobs.Job) -> Iterator[tuple[dict[str, float], weighing.Weighing]]:
    """Yields all combinations of `SEARCH` with the weights that follow, the shortest encoder first.

    Args:
        job: with `checked` options.
    """
    for steps in sorted({job.options.encoder_steps * times for times in SEARCH["encoder_steps"]}):
        long = having(job, encoder_steps=steps)
        encoded = weighing.embed(long)
        for times in SEARCH["bandwidth"]:
            narrow = having(long, bandwidth=job.options.bandwidth * times)
            density = weighing.density(narrow, encoded)
            for times in SEARCH["temperature"]:
                one = having(narrow, temperature=job.options.temperature * times)
                values = {name: getattr(one.options, name) for name in SEARCH}
                weights = weighing.weights(one, density.log_density)
                yield values, weighing.Weighing(weights, *density, *encoded)


def judge(job: jobs.Job, groups: np.ndarray) -> Callable[[jax.Array], Trial]:
    """Returns the function from weights `[n]` to their `Trial`.

    A fifth of the agreeing and of the disagreeing samples, no more than a thousand each and no more than
    half of a class, is held out: no set has them, and each set is scored on them. Where none of them
    disagrees nothing is trained.

    Args:
        job: from `jobs.prepare`.
        groups: `[n]` from `pseudo_groups`.
    """
    benchmark, train = job.benchmark, job.benchmark.train
    classes, agrees = benchmark.num_classes, groups == train.labels
    key, key_held = jax.random.split(jobs.key(job.options, "auto"))
    order = np.asarray(jax.random.permutation(key_held, len(agrees)))
    parts = [order[agrees[order] == which] for which in (True, False)]
    held = np.concatenate([part[: min(_HELD, len(part) // 5)] for part in parts])
    size = np.bincount(train.labels)[train.labels[held]]
    held = held[_places(train.labels[held]) < size // 2]
    test = tuple(jnp.asarray(array[held]) for array in (train.images, train.labels, groups))
    network = networks.ConvNet(classes, job.options.encoder_width, job.options.depth)

    def one(row):
        key, images = row
        labels = jnp.broadcast_to(jnp.arange(classes)[:, None], images.shape[:2])
        scores = evaluate.evaluate(
            key[None],
            network,
            images,
            labels,
            test,
            aligned=jnp.arange(classes),
            mean=jnp.asarray(benchmark.mean),
            std=jnp.asarray(benchmark.std),
            num_attributes=classes,
            epochs=_EPOCHS,
            strategy=benchmark.strategy,
        )
        return scores.aligned[0], scores.conflicting[0]

    scored = parallel.thread_rows(lambda rows: jax.lax.map(one, rows))
    share, counted = np.mean(agrees), int((~agrees[held]).sum())

    def trial(weights: jax.Array) -> Trial:
        if not counted:
            return Trial(float("nan"), float("nan"), float("nan"), 0)
        left = (
            (jnp.asarray(weights) + 1e-30).at[held].set(0)
        )  # a class's only weight may be held out
        pool = datasets.pool(benchmark, left)
        images = [
            distill.initial_real(jax.random.fold_in(key, i), pool, ipc=_IPC, weighted=True)
            for i in range(_DRAWS)
        ]
        means = [
            found.mean() for found in scored((jax.random.split(key, _DRAWS), jnp.stack(images)))
        ]
        agreeing, disagreeing = map(float, processes.broadcast(means))
        overall = share * agreeing + (1 - share) * disagreeing
        return Trial(float(overall), agreeing, disagreeing, counted)

    return trial


def _places(labels):
    """Place of each sample among those of its class, `[n]`."""
    order = np.argsort(labels, kind="stable")
    places = np.empty(len(labels), int)
    places[order] = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
    return places


def record(choice: Choice) -> dict[str, Any]:
    """Returns what JSON can hold of a choice under `results.CHOICE`: all but weights and density."""
    best = choice.balances[choice.best]
    trials = {name: trial._asdict() for name, trial in choice.trials.items()}
    return {
        "uniform": choice.weighed is None,
        "best": best,
        "trials": trials,
        "balances": choice.balances,
    }
