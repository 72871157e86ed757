"""Other methods that detect a bias: Cleanlab's Datalab, XRM, and SSA.

* `datalab`: the check of Cleanlab 2.9 for spurious correlations between properties of images, such
  as brightness, and classes. It needs no bias labels. Install `cleanlab[image]`.
* `xrm`: cross risk minimisation (Pezeshki et al., arXiv 2309.16748) with linear twins on features.
  It needs no bias labels.
* `ssa`: spread spurious attribute (Nam et al., arXiv 2204.02070) with linear networks on features.
  It needs some bias labels.

XRM and SSA are implemented here from the descriptions in these papers.
"""

import contextlib
import functools
import io
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdd.weights import probes


def datalab(images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return the properties that Datalab reports as spurious, and the scores of all properties.

    A score is the error of a naive Bayes classifier of a single property relative to a baseline;
    scores below a threshold are reported.

    Args:
        images: uint8 `[n, h, w, c]`.
        labels: `[n]`.

    Raises:
        ImportError: cleanlab with its requirements for images is not installed.
    """
    import cleanlab
    import datasets as hugging_face
    from PIL import Image

    pictures = [
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image) for image in images
    ]
    columns = {"image": hugging_face.Image(), "label": hugging_face.Value("int64")}
    data = hugging_face.Dataset.from_dict(
        {"image": pictures, "label": labels.tolist()}, features=hugging_face.Features(columns)
    )
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(action="ignore"),
    ):
        lab = cleanlab.Datalab(data=data, label_name="label", image_key="image", verbosity=0)
        # In one process: forking a process with JAX can deadlock, and images are small.
        lab._imagelab.find_issues = functools.partial(lab._imagelab.find_issues, n_jobs=1)
        lab.find_issues()
    info = lab.get_info("spurious_correlations")
    scores = info["correlations_df"].set_index("property")["score"]
    scores = {name.removesuffix("_score"): float(score) for name, score in scores.items()}
    reported = sorted(name for name, score in scores.items() if score < info["threshold"])
    return {"reported": reported, "scores": scores}


class Twins(NamedTuple):
    """Result of XRM.

    Attributes:
        probabilities: `[n, k]` of the classes by the twin that was not fitted to the sample.
        flipped: share of the labels that were flipped. The setting with the largest is chosen.
    """

    probabilities: jax.Array
    flipped: float


SETTINGS = tuple((rate, decay) for rate in (1e-4, 1e-3) for decay in (1e-5, 1e-3))
"""Learning rates and weight decays of XRM."""


def xrm(
    key: jax.Array, features: jax.Array, labels: jax.Array, *, num_classes: int, steps: int = 2000
) -> Twins:
    """Fit linear twins and return those of the setting that flips the most labels.

    Each sample belongs to one of two twins, which are fitted to their own samples. After each step,
    a sample gets the label that the other twin predicts, with a probability that grows with the
    confidence of this prediction. So the twins learn what most samples of a class have in common.

    Args:
        key: random key.
        features: `[n, d]`.
        labels: `[n]`.
        num_classes: k.
        steps: number of steps, of 128 samples each.
    """
    fit = functools.partial(_fit_twins, key, probes._standardise(features), labels)
    results = [fit(rate, decay, num_classes=num_classes, steps=steps) for rate, decay in SETTINGS]
    probabilities, flipped = max(results, key=lambda result: float(result[1]))
    return Twins(probabilities, float(flipped))


@functools.partial(jax.jit, static_argnames=("num_classes", "steps"))
def _fit_twins(key, x, labels, learning_rate, decay, *, num_classes, steps):
    key_twins, key_steps = jax.random.split(key)
    n, k = len(labels), num_classes
    twin = jax.random.bernoulli(key_twins, shape=(n,)).astype(int)

    def predict(params, rows):
        """Return scores by the own and by the other twin, `[2, b, k]`."""
        scores = jnp.einsum("bd,tdk->tbk", x[rows], params)
        own = twin[rows][None, :, None]
        return jnp.concatenate([jnp.take_along_axis(scores, i, 0) for i in (own, 1 - own)])

    def step(carry, key):
        params, velocity, current = carry
        key_rows, key_flips = jax.random.split(key)
        rows = jax.random.randint(key_rows, (128,), 0, n)

        def loss(params):
            own, other = predict(params, rows)
            errors = optax.softmax_cross_entropy_with_integer_labels(own, current[rows])
            # The sum over classes of their mean error.
            size = jnp.bincount(current[rows], length=k)
            return (errors / size[current[rows]]).sum(), other

        gradient, other = jax.grad(loss, has_aux=True)(params)
        velocity = 0.9 * velocity + gradient + decay * params
        confidence = jax.nn.softmax(other).max(1)
        flips = jax.random.uniform(key_flips, rows.shape) < (confidence - 1 / k) * k / (k - 1)
        new = jnp.where(flips, other.argmax(1), current[rows])
        return (params - learning_rate * velocity, velocity, current.at[rows].set(new)), None

    start = jnp.zeros((2, x.shape[1], k))
    keys = jax.random.split(key_steps, steps)
    (params, _, current), _ = jax.lax.scan(step, (start, start, labels), keys)
    _, other = predict(params, jnp.arange(n))
    return jax.nn.softmax(other), (current != labels).mean()


def ssa(
    key: jax.Array,
    features: jax.Array,
    labels: jax.Array,
    attributes: jax.Array,
    labelled: jax.Array,
    *,
    num_attributes: int,
    folds: int = 3,
    rounds: int = 20,
    steps: int = 50,
) -> jax.Array:
    """Return probabilities of the bias attribute by self-training on balanced groups, `[n, a]`.

    The unlabelled samples are split into folds. For each fold, a linear network is fitted to one
    half of the labelled samples and to confident predictions for the other folds. The other half of
    the labelled samples selects the best round, whose network predicts the fold. For the rarest
    group (class and attribute), all predictions with a probability of at least 0.95 are used. For
    every other group, as many of the most confident predictions are used.

    Args:
        key: random key of folds and halves.
        features: `[n, d]`.
        labels: `[n]`.
        attributes: `[n]`; only those of labelled samples are used.
        labelled: `[m]` indices of the samples with bias labels.
        num_attributes: a.
        folds: number of folds.
        rounds: number of times that predictions are updated.
        steps: steps of gradient descent in each round.
    """
    x, onehot = probes._standardise(features), np.eye(num_attributes, dtype=np.float32)
    labels, attributes = np.asarray(labels), np.asarray(attributes)
    fold = np.array(probes.assign_folds(key, labels, folds=folds))
    fold[labelled] = -1
    fitted, held_out = labelled[::2], labelled[1::2]
    result = onehot[attributes]
    for part in range(folds):
        params, best, chosen = jnp.zeros((x.shape[1], num_attributes)), -1.0, None
        target, weight = onehot[attributes], np.zeros(len(labels), np.float32)
        weight[fitted] = 1 / len(fitted)
        for _ in range(rounds):
            params = _descend(params, *_used(x, target, weight), steps=steps)
            predicted = np.asarray(jax.nn.softmax(x @ params))
            accuracy = (predicted.argmax(1) == attributes)[held_out].mean()
            if accuracy > best:
                best, chosen = accuracy, predicted
            rows = np.flatnonzero((fold >= 0) & (fold != part))
            kept = _balanced(predicted[rows], labels[rows], labels[fitted], attributes[fitted])
            kept = rows[kept]
            target = onehot[np.where(fold < 0, attributes, predicted.argmax(1))]
            weight = np.zeros(len(labels), np.float32)
            weight[fitted], weight[kept] = 1 / len(fitted), 1 / max(len(kept), 1)
        result[fold == part] = chosen[fold == part]
    return jnp.asarray(result)


def _used(x, target, weight):
    """Return the samples with a weight, padded to a power of two so that few programs compile."""
    rows = np.flatnonzero(weight)
    padded = np.resize(rows, 1 << (len(rows) - 1).bit_length())
    return (
        x[padded],
        target[padded],
        np.where(np.arange(len(padded)) < len(rows), weight[padded], 0),
    )


def _balanced(predicted, labels, known_labels, known_attributes, *, threshold=0.95):
    """Return the predictions to train on: as many samples in every group as in the rarest."""
    count = predicted.shape[1]
    known = np.bincount(
        known_labels * count + known_attributes, minlength=labels.max() * count + count
    )
    groups, confidence = labels * count + predicted.argmax(1), predicted.max(1)
    rarest = np.flatnonzero(known)[known[known > 0].argmin()]
    is_sure = confidence >= threshold
    total = known[rarest] + (is_sure & (groups == rarest)).sum()
    order = np.argsort(-confidence, kind="stable")
    kept = []
    for group in np.flatnonzero(known):
        members = order[(groups == group)[order]]
        kept.append(members[: max(total - known[group], 0)])
    kept = np.concatenate(kept)
    return kept[is_sure[kept]]


@functools.partial(jax.jit, static_argnames="steps")
def _descend(params, x, target, weight, *, steps, learning_rate=0.01, decay=5e-4):
    """Take steps of gradient descent with momentum on a weighted cross-entropy."""
    optimiser = optax.chain(
        optax.add_decayed_weights(decay), optax.sgd(learning_rate, momentum=0.9)
    )

    def step(carry, _):
        params, state = carry
        errors = jax.nn.softmax(x @ params) - target
        updates, state = optimiser.update(x.T @ (errors * weight[:, None]), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimiser.init(params)), length=steps)
    return params
