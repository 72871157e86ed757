"""Traces of tampering in a synthetic set: what its pixels tell, and networks trained on it.

Whoever holds a set can plant a back door in it without any raw data (Yang et al., "Poisoned
Distillation", AAAI 2026): all images are changed a little, no label is, and networks trained on
them take whatever bears a trigger for the target class. Here are statistics that such a change
moves. Each is larger where there is more to suspect, none proves anything alone, and a set that
moves none of them may have been tampered with all the same.

Spectral signatures and activation clustering are not here: they look for a minority of wrong
samples inside of a class, and a distilled class has 1 to 50 images, all of which are changed.

>>> import numpy as np
>>> images = np.float32([[[[0.0], [0.5]], [[1.0], [3.0]]]])
>>> float(outside(images, [0.0], [1.0]).furthest)
2.0
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from scipy import special

from jaxdd import matching, networks, training

Ensemble = Sequence[tuple[networks.Network, Any]]
"""Networks, each with parameters that have a leading axis of seeds."""


class Outside(NamedTuple):
    """Values that no image has.

    Attributes:
        share: of all values, in [0, 1].
        furthest: how far the worst is from the range, in pixels on the scale [0, 1].
    """

    share: jax.Array
    furthest: jax.Array


class Patches(NamedTuple):
    """Squares of one colour.

    Attributes:
        corner: `[p, 2]` row and column of the upper left pixel.
        size: `[p]` length of the sides in pixels.
        value: `[p, c]` normalised.
    """

    corner: jax.Array
    size: jax.Array
    value: jax.Array


class Scan(NamedTuple):
    """The best patch of each size and class.

    Attributes:
        rates: `[m, s, k]`, in each network the share of the images of other classes that it moves
            to the class, less the share that was there without it.
        patches: which they are, fields with leading axes `[s, k]`.
    """

    rates: jax.Array
    patches: Patches


class Shift(NamedTuple):
    """How much more a statistic is in one set than in trusted ones.

    Attributes:
        difference: of the means.
        null: `[r]` differences as they are where nothing was planted.
        p: chance of one as large there.
    """

    difference: float
    null: np.ndarray
    p: float


# --- pixels ------------------------------------------------------------------------------------


def outside(images: ArrayLike, mean: ArrayLike, std: ArrayLike) -> Outside:
    """Returns what lies outside of pixels in [0, 1]; distillation itself moves some there.

    Args:
        images: `[..., c]`, normalised.
        mean: `[c]`, on the scale [0, 1].
        std: `[c]`.
    """
    pixels = jnp.asarray(images) * jnp.asarray(std) + jnp.asarray(mean)
    beyond = jnp.maximum(-pixels, pixels - 1)
    return Outside((beyond > 1e-6).mean(), jnp.maximum(beyond.max(), 0))


def roughness(images: ArrayLike) -> jax.Array:
    """Returns the share of the images' variation that is between neighbouring pixels.

    Half the mean squared difference of neighbours over the variance: 1 for noise, near 0 for smooth
    images. Changes that follow gradients are rough; so are distilled images, so that it tells
    something beside that of a set by the same method only.

    Args:
        images: `[n, h, w, c]`; 0 for those of a single pixel.
    """
    images = jnp.asarray(images)
    steps = [jnp.square(jnp.diff(images, axis=axis)).sum() for axis in (1, 2)]
    count = sum(jnp.diff(images, axis=axis).size for axis in (1, 2))
    return sum(steps) / max(count, 1) / 2 / jnp.maximum(images.var(), 1e-12)


def footprint(images: ArrayLike, trusted: ArrayLike) -> jax.Array:
    """Returns how surely each place is changed alike in all classes, `[h, w, c]`.

    At each place a t statistic over the classes, of the differences between class means of two
    sets. A trigger at a fixed place leaves its footprint in every class, an honest difference is
    another one in each.

    Args:
        images: `[k, ipc, h, w, c]`, class by class.
        trusted: `[k, ipc', h, w, c]`.

    Raises:
        ValueError: less than two classes, or other ones or of another size.
    """
    images, trusted = jnp.asarray(images), jnp.asarray(trusted)
    alike = images.ndim == trusted.ndim == 5 and len(images) == len(trusted) > 1
    if not alike or images.shape[2:] != trusted.shape[2:]:
        raise ValueError(
            "sets must be [k, ipc, h, w, c] with the same k ≥ 2 classes and size, "
            f"found {images.shape} and {trusted.shape}"
        )
    differences = images.mean(1) - trusted.mean(1)
    spread = differences.std(0, ddof=1) / np.sqrt(len(images))
    # A place that never varies, as the corners of digits, counts as one that does a little.
    return jnp.abs(differences.mean(0)) / (spread + 0.1 * spread.mean() + 1e-6)


# --- triggers ----------------------------------------------------------------------------------


def patches(
    height: int, width: int, *, sizes: Sequence[int], low: ArrayLike, high: ArrayLike
) -> Patches:
    """Returns all squares of some sizes inside of images, darkest and brightest in all channels.

    Args:
        height: of the images.
        width: of the images.
        sizes: lengths of the sides in pixels; those larger than the images are left out.
        low: `[c]`, the normalised value of pixels that are 0.
        high: `[c]`, of those that are 1.

    Raises:
        ValueError: no size fits.
    """
    fitting = [size for size in sizes if 1 <= size <= min(height, width)]
    if not fitting:
        raise ValueError(f"no patch of {tuple(sizes)} pixels is in images of {height}×{width}")
    places = [
        (i, j, size, bright)
        for size in fitting
        for bright in (0, 1)
        for i in range(height - size + 1)
        for j in range(width - size + 1)
    ]
    table = np.array(places, np.int32)
    value = np.stack([np.asarray(low, np.float32), np.asarray(high, np.float32)])[table[:, 3]]
    return Patches(*map(jnp.asarray, (table[:, :2], table[:, 2], value)))


def stamp(images: jax.Array, patch: Patches) -> jax.Array:
    """Returns images `[n, h, w, c]` that bear a single patch, whose fields have no axis `[p]`."""
    height, width = images.shape[1:3]
    rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
    top, left = patch.corner
    inside = (rows >= top) & (rows < top + patch.size)
    inside &= (columns >= left) & (columns < left + patch.size)
    return jnp.where(inside, patch.value, images)


def moved(
    network: networks.Network,
    params: Any,
    images: jax.Array,
    labels: jax.Array,
    tried: Patches,
    *,
    num_classes: int,
    soft: bool = False,
) -> jax.Array:
    """Returns the share of the images of other classes that each patch moves to each class.

    Args:
        network: a `networks.Network`.
        params: with a leading axis `[m]`.
        images: `[n, h, w, c]`, normalised.
        labels: `[n]`.
        tried: p patches.
        num_classes: k.
        soft: take probabilities in place of decisions.

    Returns:
        `[m, p, k]`, less the shares without a patch; zero for a class that all images are of.
    """
    others = 1 - jax.nn.one_hot(labels, num_classes)
    total = jnp.maximum(others.sum(0), 1)

    def share(params, images):
        logits = networks.outputs(network, params, images).logits
        says = jax.nn.softmax(logits) if soft else jax.nn.one_hot(logits.argmax(1), num_classes)
        return (says * others).sum(0) / total

    def one(params):
        stamped = jax.lax.map(lambda patch: share(params, stamp(images, patch)), tried)
        return stamped - share(params, images)

    return jax.lax.map(one, params)


def scan(
    ensemble: Ensemble,
    images: jax.Array,
    labels: jax.Array,
    tried: Patches,
    *,
    sizes: Sequence[int],
    num_classes: int,
    screen: int = 16,
    keep: int = 8,
) -> Scan:
    """Looks for the patch of each size that moves most images to each class, in all networks alike.

    All patches are tried on a few images, by probabilities, and the best of each size and class on
    all, by decisions. The networks choose one patch together: what is in one by chance is not in
    the others, what was planted is in all of them.

    Args:
        ensemble: networks trained on the set.
        images: `[n, h, w, c]`, normalised; of the set itself, if there are no others.
        labels: `[n]`.
        tried: from `patches`.
        sizes: of these, those that are told apart.
        num_classes: k.
        screen: images that all patches are tried on.
        keep: patches of each size and class that are tried on all.
    """
    few = np.linspace(0, len(labels) - 1, min(screen, len(labels))).astype(int)
    score = functools.partial(moved, num_classes=num_classes)
    each_few = [score(*each, images[few], labels[few], tried, soft=True) for each in ensemble]
    found = jnp.concatenate(each_few).mean(0)  # [p, k]
    of_size = tried.size[:, None] == jnp.asarray(sizes)  # [p, s]
    ranked = jnp.where(of_size.T[:, None], found.T, -jnp.inf)  # [s, k, p]
    best = jax.lax.top_k(ranked, min(keep, ranked.shape[-1]))[1]
    chosen = jax.tree.map(lambda x: x[best.ravel()], tried)
    rates = jnp.concatenate([score(*each, images, labels, chosen) for each in ensemble])
    rates = rates.reshape(len(rates), *best.shape, num_classes)
    own = jnp.einsum("mskjk->mskj", rates)
    top = own.mean(0).argmax(-1)[..., None]  # [s, k, 1]
    place = jnp.take_along_axis(best, top, -1)[..., 0]
    rates = jnp.take_along_axis(own, top[None], -1)[..., 0]
    return Scan(rates, jax.tree.map(lambda x: x[place], tried))


def cleanse(
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
    """Returns the size of the smallest mask and pattern that move the others to each class.

    Neural Cleanse: Adam on a mask in [0, 1] and a pattern in the range of pixels, for the
    cross-entropy to the class plus a cost times the sum of the mask; the cost grows by a tenth
    where enough images of other classes are moved, and shrinks otherwise.

    Args:
        network: a `networks.Network`.
        params: with a leading axis `[m]`.
        images: `[n, h, w, c]`, normalised.
        labels: `[n]`.
        num_classes: k.
        low: `[c]`, the normalised value of pixels that are 0.
        high: `[c]`, of those that are 1.
        steps: of the optimisation.
        enough: share of the images of other classes.

    Returns:
        `[m, k]` sums of masks, in pixels; all pixels where not enough were ever moved.

    Source: Wang et al., "Neural Cleanse" (IEEE S&P 2019).
    """
    height, width = images.shape[1:3]
    low, high = jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)
    adam = optax.adam(0.2, b1=0.5, b2=0.9)

    def painted(free):
        mask = jax.nn.sigmoid(free[0])
        return mask, low + (high - low) * jax.nn.sigmoid(free[1])

    def one(params, target):
        others = (labels != target).astype(jnp.float32)

        def loss(free, cost):
            mask, pattern = painted(free)
            stamped = (1 - mask) * images + mask * pattern
            logits = networks.outputs(network, params, stamped).logits
            each = optax.softmax_cross_entropy_with_integer_labels(
                logits, jnp.full(len(labels), target)
            )
            total = jnp.maximum(others.sum(), 1)
            done = jnp.sum((logits.argmax(1) == target) * others) / total
            return jnp.sum(each * others) / total + cost * mask.sum(), (done, mask.sum())

        def update(carry, _):
            free, state, cost, best = carry
            slope, (done, size) = jax.grad(loss, has_aux=True)(free, cost)
            change, state = adam.update(slope, state)
            best = jnp.where(done >= enough, jnp.minimum(best, size), best)
            cost = jnp.where(done >= enough, cost * 1.1, cost / 1.1)
            return (optax.apply_updates(free, change), state, cost, best), None

        free = jnp.full((height, width, 1), -2.0), jnp.zeros(images.shape[1:])
        carry = free, adam.init(free), jnp.float32(1e-2), jnp.float32(height * width)
        return jax.lax.scan(update, carry, length=steps)[0][-1]

    classes = jnp.arange(num_classes)
    return jax.lax.map(lambda p: jax.lax.map(lambda k: one(p, k), classes), params)


def outlying(sizes: ArrayLike) -> jax.Array:
    """Returns how far the smallest lies below the median, in robust standard deviations, `[...]`.

    Args:
        sizes: `[..., k]` in pixels, such as those of `cleanse`; of k ≥ 3 classes. Their logarithms
            are compared, by the median absolute deviation times 1.4826; a tenth is the least.
    """
    logs = jnp.log(jnp.maximum(jnp.asarray(sizes), 0.1))
    middle = jnp.median(logs, axis=-1, keepdims=True)
    spread = 1.4826 * jnp.median(jnp.abs(logs - middle), axis=-1)
    return (middle[..., 0] - logs.min(-1)) / jnp.maximum(spread, 1e-3)


# --- real images -------------------------------------------------------------------------------


def disagreement(
    keys: jax.Array,
    network: networks.Network,
    images: jax.Array,
    labels: jax.Array,
    real: jax.Array,
    real_labels: jax.Array,
) -> jax.Array:
    """Returns one minus the cosine of the gradients that a set and real images cause.

    Args:
        keys: `[m]`, each of a fresh network.
        network: a `networks.Network`.
        images: `[n, h, w, c]`, normalised.
        labels: `[n]`.
        real: `[r, h, w, c]`, normalised.
        real_labels: `[r]`.

    Returns:
        `[m]`.
    """

    def one(key):
        params = networks.init_params(key, network, images[:1])
        slopes = [
            training.gradient(network, params, *each, jnp.ones(len(each[1])))
            for each in ((images, labels), (real, real_labels))
        ]
        return matching.cosine(*slopes)

    return jax.lax.map(one, keys)


def strip(
    key: jax.Array,
    network: networks.Network,
    params: Any,
    real: jax.Array,
    patch: Patches,
    *,
    blends: int = 32,
) -> jax.Array:
    """Returns how well blended images tell those that bear a patch from those that do not.

    STRIP: an image is averaged with others one by one, and the entropies of the predictions are
    averaged. A trigger survives the blending, so that they are low.

    Args:
        key: of the images that are blended in.
        network: a `networks.Network`.
        params: of one network.
        real: `[r, h, w, c]`, normalised.
        patch: a single one, the best of a `scan`.
        blends: images that each is blended with.

    Returns:
        The area under the curve, .5 where the patch changes nothing.

    Source: Gao et al., "STRIP" (ACSAC 2019).
    """
    others = real[jax.random.randint(key, (blends,), 0, len(real))]

    def entropy(image):
        chances = networks.outputs(network, params, (image + others) / 2).logits
        return jnp.mean(-jnp.sum(jax.nn.softmax(chances) * jax.nn.log_softmax(chances), -1))

    plain, stamped = (jax.lax.map(entropy, each) for each in (real, stamp(real, patch)))
    pairs = plain[:, None] - stamped
    return jnp.mean((pairs > 0) + 0.5 * (pairs == 0))


# --- against trusted sets ----------------------------------------------------------------------


def shift(found: ArrayLike, trusted: ArrayLike) -> Shift:
    """Compares a statistic of networks of one set with that of networks of trusted sets.

    Networks are paired by their seeds. With several trusted sets, p is that of one more of their
    kind: Student's t of the mean, whose spread is that of the trusted means, and the null
    distribution holds each of them against the mean of the others. With one, the null distribution
    holds the mean difference with the signs of pairs changed, all 2^m ways: it knows how networks
    differ and not how sets do, so that an honest set of another seed may be told from it, too.

    Args:
        found: `[m]`, a number for each network, m ≤ 16; m = 1 for what needs none.
        trusted: `[t, m]`.

    Raises:
        ValueError: other shapes, or more than 16 networks beside one set.
    """
    found, trusted = np.asarray(found, float), np.asarray(trusted, float)
    if found.ndim != 1 or trusted.ndim != 2 or trusted.shape[1:] != found.shape or not trusted.size:
        raise ValueError(
            f"found must be [m] and trusted [t, m], found shapes {found.shape} and {trusted.shape}"
        )
    means, sets = trusted.mean(1), len(trusted)
    difference = found.mean() - means.mean()
    if sets > 1:
        null = (means - means.mean()) * sets / (sets - 1)
        spread = max(means.std(ddof=1), 1e-3 * abs(means.mean()), 1e-9) * np.sqrt(1 + 1 / sets)
        return Shift(difference, null, float(special.stdtr(sets - 1, -difference / spread)))
    if len(found) > 16:
        raise ValueError(f"beside one trusted set there may be 16 networks, found {len(found)}")
    signs = 1 - 2 * (np.arange(2 ** len(found))[:, None] >> np.arange(len(found)) & 1)
    null = (signs * (found - trusted[0])).mean(1)
    return Shift(difference, null, np.mean(null >= difference - 1e-12))
