"""Statistics that reveal tampering with a synthetic set.

An attacker who holds a set can plant a backdoor in it without any real data (Yang et al., "Poisoned
Distillation", AAAI 2026): all images change a little, no label changes, and networks trained on
them assign every image with a trigger to a target class. The statistics below respond to such
changes. Each is larger for more suspicious sets. None of them is proof on its own, and a set may
have been tampered with even if none is large.

Spectral signatures and activation clustering are not included: they detect a minority of bad
samples in a class, but a distilled class has 1 to 50 images, and the attack changes all of them.

>>> import numpy as np
>>> images = np.float32([[[[0.0], [0.5]], [[1.0], [3.0]]]])
>>> [float(x) for x in out_of_range(images, [0.0], [1.0])]
[0.25, 2.0]
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy
from jax.typing import ArrayLike

from jaxdd import matching, networks, training


class Patches(NamedTuple):
    """Squares of one colour.

    Attributes:
        corner: `[p, 2]` row and column of the upper left pixel.
        size: `[p]` side length in pixels.
        value: `[p, c]`, normalised.
    """

    corner: jax.Array
    size: jax.Array
    value: jax.Array


class PatchScan(NamedTuple):
    """The best patch of each size and class.

    Attributes:
        rates: `[m, s, k]`, for each network the share of the images of other classes that the patch
            moves to the class, minus the share without the patch.
        patches: the patches, with leading axes `[s, k]`.
    """

    rates: jax.Array
    patches: Patches


class Comparison(NamedTuple):
    """Comparison of a statistic of one set with trusted sets.

    Attributes:
        difference: difference of the means.
        null: `[r]` differences without tampering.
        p: probability of a difference at least as large without tampering.
    """

    difference: float
    null: np.ndarray
    p: float


# --- pixels ------------------------------------------------------------------------------------


def out_of_range(images: ArrayLike, mean: ArrayLike, std: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Return the share of values outside the range of pixels, [0, 1], and the largest distance.

    Args:
        images: `[..., c]`, normalised.
        mean: `[c]`, on the scale [0, 1].
        std: `[c]`, on the scale [0, 1].
    """
    # Idea: distillation moves some pixels slightly outside [0, 1]; published triggers are far out.
    pixels = jnp.asarray(images) * jnp.asarray(std) + jnp.asarray(mean)
    distance = jnp.maximum(-pixels, pixels - 1)
    return (distance > 1e-6).mean(), jnp.maximum(distance.max(), 0)


def roughness(images: ArrayLike) -> jax.Array:
    """Return the share of the variance of images that comes from differences between neighbours.

    The value is 1 for noise and near 0 for smooth images. Compare it only with sets of the same
    method, because distilled images are rough as well.

    Args:
        images: `[n, h, w, c]`. The value is 0 for images of a single pixel.
    """
    # Idea: perturbations along gradients vary from pixel to pixel, natural images do not.
    # Formula: mean (x_i − x_j)² over neighbours / 2 var(x), von Neumann's ratio in two dimensions.
    images = jnp.asarray(images)
    squares = [jnp.square(jnp.diff(images, axis=axis)).sum() for axis in (1, 2)]
    count = sum(jnp.diff(images, axis=axis).size for axis in (1, 2))
    return sum(squares) / max(count, 1) / 2 / jnp.maximum(images.var(), 1e-12)


def footprint(images: ArrayLike, trusted: ArrayLike) -> jax.Array:
    """Return how consistently each pixel differs from a trusted set in all classes, `[h, w, c]`.

    Args:
        images: `[k, ipc, h, w, c]`, class by class.
        trusted: `[k, ipc', h, w, c]`.
    """
    images, trusted = jnp.asarray(images), jnp.asarray(trusted)
    is_comparable = images.ndim == trusted.ndim == 5 and len(images) == len(trusted) > 1
    if not is_comparable or images.shape[2:] != trusted.shape[2:]:
        raise ValueError(
            "sets must be [k, ipc, h, w, c] with the same k ≥ 2 classes and size, "
            f"got {images.shape} and {trusted.shape}"
        )
    # Idea: a trigger at a fixed place changes that place alike in every class, whereas clean
    # differences between two sets have different signs in different classes.
    # Formula: |t| = |mean_k d_k| / (std_k d_k / √k) for differences d_k of class means.
    differences = images.mean(1) - trusted.mean(1)
    error = differences.std(0, ddof=1) / np.sqrt(len(images))
    # Pixels that never vary, such as the corners of digits, would divide by 0.
    return jnp.abs(differences.mean(0)) / (error + 0.1 * error.mean() + 1e-6)


# --- triggers ----------------------------------------------------------------------------------


def patches(
    height: int, width: int, *, sizes: Sequence[int], low: ArrayLike, high: ArrayLike
) -> Patches:
    """Return all black and all white squares of the given sizes inside an image.

    Args:
        height: height of the images.
        width: width of the images.
        sizes: side lengths in pixels. Those larger than the images are skipped.
        low: `[c]`, the normalised value of pixel 0.
        high: `[c]`, the normalised value of pixel 1.
    """
    fitting = [size for size in sizes if 1 <= size <= min(height, width)]
    if not fitting:
        raise ValueError(f"no patch of {tuple(sizes)} pixels fits images of {height}×{width}")
    corners = [
        (i, j, size, is_bright)
        for size in fitting
        for is_bright in (0, 1)
        for i, j in np.ndindex(height - size + 1, width - size + 1)
    ]
    table = np.array(corners, np.int32)
    value = np.stack([np.asarray(low, np.float32), np.asarray(high, np.float32)])[table[:, 3]]
    return Patches(*map(jnp.asarray, (table[:, :2], table[:, 2], value)))


def _stamp(images: jax.Array, patch: Patches) -> jax.Array:
    """Paste one patch, whose fields have no axis `[p]`, into images `[n, h, w, c]`."""
    height, width = images.shape[1:3]
    rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
    top, left = patch.corner
    inside = (rows >= top) & (rows < top + patch.size)
    inside &= (columns >= left) & (columns < left + patch.size)
    return jnp.where(inside, patch.value, images)


def _moved_shares(network, params, images, labels, candidates, *, num_classes, soft=False):
    """Return the share of the images of other classes that each patch moves to each class.

    The shares are `[m, p, k]`, minus those without a patch; `soft` uses probabilities instead of
    predicted classes.
    """
    others = 1 - jax.nn.one_hot(labels, num_classes)
    total = jnp.maximum(others.sum(0), 1)

    def shares(params, images):
        logits = networks.outputs(network, params, images).logits
        hard = jax.nn.one_hot(logits.argmax(1), num_classes)
        return ((jax.nn.softmax(logits) if soft else hard) * others).sum(0) / total

    def of_network(params):
        stamped = jax.lax.map(lambda patch: shares(params, _stamp(images, patch)), candidates)
        return stamped - shares(params, images)

    return jax.lax.map(of_network, params)


def scan_patches(
    ensemble: Sequence[tuple[networks.Network, Any]],
    images: jax.Array,
    labels: jax.Array,
    candidates: Patches,
    *,
    sizes: Sequence[int],
    num_classes: int,
    screen: int = 16,
    keep: int = 8,
) -> PatchScan:
    """For each size and class, search for the patch that moves most images to the class.

    Args:
        ensemble: networks trained on the set, each with parameters of a leading axis of seeds.
        images: `[n, h, w, c]`, normalised; of the set itself if there are no others.
        labels: `[n]` classes.
        candidates: from `patches`.
        sizes: side lengths that are reported separately.
        num_classes: k.
        screen: number of images that all patches are tried on.
        keep: number of patches per size and class that are tried on all images.
    """
    # Idea: one patch is chosen for all networks together. A pattern that one network learned by
    # chance is not in the others, but a planted one is in all of them. All candidates are screened
    # on a few images by probabilities, which also rank patches that change no predicted class. The
    # best are then scored on all images by predicted classes.
    few = np.linspace(0, len(labels) - 1, min(screen, len(labels))).astype(int)
    shares = functools.partial(_moved_shares, num_classes=num_classes)
    screened = [shares(*each, images[few], labels[few], candidates, soft=True) for each in ensemble]
    mean_shares = jnp.concatenate(screened).mean(0)  # [p, k]
    has_size = candidates.size[:, None] == jnp.asarray(sizes)  # [p, s]
    ranked = jnp.where(has_size.T[:, None], mean_shares.T, -jnp.inf)  # [s, k, p]
    best = jax.lax.top_k(ranked, min(keep, ranked.shape[-1]))[1]
    chosen = jax.tree.map(lambda x: x[best.ravel()], candidates)
    rates = jnp.concatenate([shares(*each, images, labels, chosen) for each in ensemble])
    rates = rates.reshape(len(rates), *best.shape, num_classes)
    to_own_class = jnp.einsum("mskjk->mskj", rates)  # each patch for the class it was kept for
    top = to_own_class.mean(0).argmax(-1)[..., None]  # [s, k, 1]
    place = jnp.take_along_axis(best, top, -1)[..., 0]
    rates = jnp.take_along_axis(to_own_class, top[None], -1)[..., 0]
    return PatchScan(rates, jax.tree.map(lambda x: x[place], candidates))


def neural_cleanse(
    network: networks.Network,
    params: Any,
    images: jax.Array,
    labels: jax.Array,
    *,
    num_classes: int,
    low: ArrayLike,
    high: ArrayLike,
    steps: int = 100,
    enough: float = 0.95,
) -> jax.Array:
    """Return the size of the smallest mask that moves images of other classes to each class.

    Args:
        network: a `networks.Network`.
        params: parameters with a leading axis `[m]`.
        images: `[n, h, w, c]`, normalised.
        labels: `[n]` classes.
        num_classes: k.
        low: `[c]`, the normalised value of pixel 0.
        high: `[c]`, the normalised value of pixel 1.
        steps: number of optimisation steps.
        enough: share of the images of other classes that must be moved.

    Returns:
        `[m, k]` sums of masks in pixels; all pixels if not enough images were ever moved.

    Source: Wang et al., "Neural Cleanse" (IEEE S&P 2019).
    """
    # Idea: a backdoor is a shortcut, so a small mask leads to its target class and to no other.
    # Formula: minimise CE(f((1 − m) x + m p), class) + cost · Σ m over mask m and pattern p with
    # Adam. The cost grows by a tenth while enough images are moved, and shrinks otherwise.
    height, width = images.shape[1:3]
    low, high = jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)
    adam = optax.adam(0.2, b1=0.5, b2=0.9)

    def mask_and_pattern(free):
        return jax.nn.sigmoid(free[0]), low + (high - low) * jax.nn.sigmoid(free[1])

    def smallest_mask(params, target):
        others = (labels != target).astype(jnp.float32)
        targets = jnp.full(len(labels), target)
        total = jnp.maximum(others.sum(), 1)

        def loss(free, cost):
            mask, pattern = mask_and_pattern(free)
            stamped = (1 - mask) * images + mask * pattern
            logits = networks.outputs(network, params, stamped).logits
            losses = training.cross_entropies(logits, targets)
            moved = jnp.sum((logits.argmax(1) == target) * others) / total
            return jnp.sum(losses * others) / total + cost * mask.sum(), (moved, mask.sum())

        def update(carry, _):
            free, state, cost, best = carry
            grads, (moved, size) = jax.grad(loss, has_aux=True)(free, cost)
            updates, state = adam.update(grads, state)
            best = jnp.where(moved >= enough, jnp.minimum(best, size), best)
            cost = jnp.where(moved >= enough, cost * 1.1, cost / 1.1)
            return (optax.apply_updates(free, updates), state, cost, best), None

        free = jnp.full((height, width, 1), -2.0), jnp.zeros(images.shape[1:])
        carry = free, adam.init(free), jnp.float32(1e-2), jnp.float32(height * width)
        return jax.lax.scan(update, carry, length=steps)[0][-1]

    classes = jnp.arange(num_classes)
    of_network = lambda params: jax.lax.map(lambda k: smallest_mask(params, k), classes)
    return jax.lax.map(of_network, params)


def anomaly_index(sizes: ArrayLike) -> jax.Array:
    """Return how many robust standard deviations the smallest mask lies below the median, `[...]`.

    Args:
        sizes: `[..., k]` in pixels, from `neural_cleanse`; k ≥ 3 classes. Sizes below 0.1 count
            as 0.1.

    Source: Wang et al., "Neural Cleanse" (IEEE S&P 2019), here for logarithms of sizes.
    """
    # Formula: (median − min) / (1.4826 · median |x − median|), which is the standard deviation of
    # a normal distribution, for x = log size.
    logs = jnp.log(jnp.maximum(jnp.asarray(sizes), 0.1))
    middle = jnp.median(logs, axis=-1, keepdims=True)
    spread = 1.4826 * jnp.median(jnp.abs(logs - middle), axis=-1)
    return (middle[..., 0] - logs.min(-1)) / jnp.maximum(spread, 1e-3)


# --- real images -------------------------------------------------------------------------------


def gradient_disagreement(
    keys: jax.Array,
    network: networks.Network,
    images: jax.Array,
    labels: jax.Array,
    real: jax.Array,
    real_labels: jax.Array,
) -> jax.Array:
    """Return one minus the cosine of the gradients on a set and on real images, `[m]`.

    Args:
        keys: `[m]`, one per fresh network.
        network: a `networks.Network`.
        images: `[n, h, w, c]`, normalised.
        labels: `[n]` classes.
        real: `[r, h, w, c]`, normalised.
        real_labels: `[r]` classes.
    """
    # Idea: distillation aligns the gradients of set and data; a planted trigger pulls them apart.

    def of_network(key):
        params = networks.init_params(key, network, images[:1])
        gradients = [
            training.gradient(network, params, *samples, jnp.ones(len(samples[1])))
            for samples in ((images, labels), (real, real_labels))
        ]
        return matching.cosine(*gradients)

    return jax.lax.map(of_network, keys)


def strip(
    key: jax.Array,
    network: networks.Network,
    params: Any,
    real: jax.Array,
    patch: Patches,
    *,
    blends: int = 32,
) -> jax.Array:
    """Return how well the entropy of blended images separates those with a patch from the others.

    Args:
        key: random key for the choice of images to blend with.
        network: a `networks.Network`.
        params: parameters of one network.
        real: `[r, h, w, c]`, normalised.
        patch: a single one, the best of `scan_patches`.
        blends: number of images that each image is blended with.

    Returns:
        The area under the ROC curve, 0.5 if the patch changes nothing.

    Source: Gao et al., "STRIP" (ACSAC 2019).
    """
    # Idea: average an image with others, one at a time. A trigger survives the blending, so its
    # predictions stay certain and their mean entropy is low.
    others = real[jax.random.randint(key, (blends,), 0, len(real))]

    def mean_entropy(image):
        logits = networks.outputs(network, params, (image + others) / 2).logits
        return jnp.mean(-jnp.sum(jax.nn.softmax(logits) * jax.nn.log_softmax(logits), -1))

    plain, stamped = (jax.lax.map(mean_entropy, images) for images in (real, _stamp(real, patch)))
    # AUC = P(plain > stamped) + P(plain = stamped) / 2 over all pairs.
    differences = plain[:, None] - stamped
    return jnp.mean((differences > 0) + 0.5 * (differences == 0))


# --- trusted sets ------------------------------------------------------------------------------


def compare(values: ArrayLike, trusted: ArrayLike) -> Comparison:
    """Compare a statistic of a set with that of trusted sets; networks of equal seed are paired.

    With several trusted sets, p is the probability that one more set of their kind differs as much.
    With a single one, p only covers the variation between networks and not between sets, so that a
    clean set of another seed may also differ significantly.

    Args:
        values: `[m]`, one number per network, m ≤ 16; m = 1 for statistics without networks.
        trusted: `[t, m]`.
    """
    values, trusted = np.asarray(values, float), np.asarray(trusted, float)
    is_paired = values.ndim == 1 and trusted.ndim == 2 and trusted.shape[1:] == values.shape
    if not is_paired or not trusted.size:
        raise ValueError(
            f"values must be [m] and trusted [t, m], got {values.shape} and {trusted.shape}"
        )
    means, sets = trusted.mean(1), len(trusted)
    difference = values.mean() - means.mean()
    if sets > 1:
        # Student's t for one new observation: its standard error is s √(1 + 1/t), with t − 1
        # degrees of freedom. The null values are each trusted set against the mean of the others.
        null = (means - means.mean()) * sets / (sets - 1)
        spread = max(means.std(ddof=1), 1e-3 * abs(means.mean()), 1e-9) * np.sqrt(1 + 1 / sets)
        return Comparison(
            difference, null, float(scipy.special.stdtr(sets - 1, -difference / spread))
        )
    if len(values) > 16:
        raise ValueError(f"expected at most 16 networks for one trusted set, got {len(values)}")
    # Exact sign test: all 2^m ways to exchange the two sets within pairs of networks.
    signs = 1 - 2 * (np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1)
    null = (signs * (values - trusted[0])).mean(1)
    return Comparison(difference, null, np.mean(null >= difference - 1e-12))
