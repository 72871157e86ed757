"""Curriculum frequency matching (CFM): images one after another, from low to high frequencies.

A teacher with batch norm is trained on the real data and frozen. Ψ and Φ of `spectral` are taken at
the input of each of its convolutions, every pixel counting, of the real images once (`guide`). The
images are then made one after another, those of all classes at a time, by descending

    CE(teacher(A(s)), y)  +  η Σ_l [ ‖F(Ψ) − F(Ψ_s)‖ + ‖F(Ψ) G − F(Ψ_s) G_s‖ ],   F(Ψ) = (Ψ + β I)⁻¹

with A a random crop, flip and roll. β falls along a cosine from image to image: the first match the
directions in which the real features vary most, later ones also those in which they vary little.
Weights of the pool enter in three places that can be told apart: what the teacher is trained on,
Ψ, and Φ.

Source: Bo, Liu and Wang, "Understanding Dataset Distillation via Spectral Filtering" (ICLR 2026).
Different here: Ψ and Ψ_s are the covariances of all images that they stand for, where the reference
averages covariances within batches; G is Φ, the paper's, by default, where the commands of the
reference take the mean feature; β has a floor, since Ψ_s of a few images lacks rank and F is 1 / β
in the directions that it lacks.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdd import _checks, augment, networks, sampling, training
from jaxdd.methods import spectral
from jaxdd.methods.protocol import Decode, Method, check_images, identity, update


class Guide(NamedTuple):
    """What the images follow; the batch of every step.

    Attributes:
        params: of the teacher, with its running statistics.
        real: `spectral.Statistics` of the real images at the input of each convolution.
        low: `[c]`, black as networks see it.
        high: `[c]`, white likewise.
    """

    params: Any
    real: tuple[spectral.Statistics, ...]
    low: jax.Array
    high: jax.Array


class CurriculumState(NamedTuple):
    """What curriculum frequency matching carries from step to step.

    Attributes:
        images: synthetic, `[k, ipc, h, w, c]`, normalised and cut to what pixels can be.
        optimizer: state for the images that are being made, one of each class of a part.
        finished: `spectral.Statistics` of those before, at the input of each convolution.
        count: steps done, scalar.
    """

    images: jax.Array
    optimizer: optax.OptState
    finished: tuple[spectral.Statistics, ...]
    count: jax.Array


def guide(
    network: networks.Network,
    params: Any,
    pool: sampling.Pool,
    *,
    signals: sampling.Pool | None = None,
    size: int = 256,
) -> Guide:
    """Measures the real images, drawn into the moments by the weights of the pool.

    Args:
        network: of the teacher, a Linen module with batch norm.
        params: of the teacher.
        pool: whose weights Ψ goes by.
        signals: the same images with the weights that Φ and the mean go by; the pool by default.
        size: images at a time.

    Raises:
        TypeError: as in `networks.trace_convolutions`.
        ValueError: a teacher without running statistics, of other classes or shapes, or one whose
            convolutions cannot be seen.
    """
    first = sampling.take(pool, jnp.zeros(1, int))
    _check_teacher(network, first, pool.num_classes)
    _check_params(network, params, first)

    def extract(images):
        images = sampling.normalise(images, pool.mean, pool.std)
        return networks.trace_convolutions(network, params, images)[1]

    def measured(pool):
        given = pool.images, pool.labels, pool.num_classes, pool.weights
        return spectral.stream_statistics(extract, *given, size=size)

    real = measured(pool)
    if signals is not None:
        real = tuple(map(_signalled, real, measured(signals)))
    low, high = ((x - pool.mean) / pool.std for x in (0.0, 1.0))
    return Guide(params, real, low, high)


def curriculum(beta: float, ipc: int, *, floor: float = 1e-3) -> jax.Array:
    """Returns β of each image, `max(β (1 + cos(π b / ipc)) / 2, floor)` for b = 0 … ipc − 1.

    One image per class has no curriculum: its β is the first.

    Args:
        beta: of the first image.
        ipc: images per class.
        floor: smallest β.

    Raises:
        ValueError: β or its floor is not positive, β is below it, or there is no image.

    >>> [round(float(beta), 4) for beta in curriculum(0.1, 4)]
    [0.1, 0.0854, 0.05, 0.0146]
    """
    ipc = _checks.count("ipc", ipc)
    _checks.positive("floor", floor)
    if not _checks.positive("beta", beta) >= floor:
        raise ValueError(f"beta must be at least its floor of {floor}, found {beta}")
    along = (1 + jnp.cos(math.pi * jnp.arange(ipc) / ipc)) / 2
    return jnp.maximum(beta * along, floor)


def curriculum_matching(
    network: networks.Network,
    optimizer: optax.GradientTransformation,
    *,
    length: int,
    beta: float = 0.1,
    floor: float = 1e-3,
    matching: float = 0.1,
    signal: spectral.Signal = "class",
    cumulative: bool = True,
    parts: int = 1,
    strategy: augment.Strategy = augment.resized_crop,
    decode: Decode = identity,
) -> Method:
    """Curriculum frequency matching (CFM), a step of which is an update of one image of each class.

    `step` takes a `Guide` for its batch: use `guide_sampler` as the sampler and the guide as the pool.
    After `length` steps the next image of each class has its turn; steps beyond the last image go
    on with it. Memory is that of one image per class of a part, and of Ψ. Where not all classes
    have images yet, Φ is that of those that have.

    Args:
        network: of the teacher, a Linen module with batch norm, whose parameters are the guide's.
        optimizer: acts on the images `[k / parts, h, w, c]` and begins afresh with each; the
            reference has Adam(0.5, 0.9) with rates from 0.25 along a cosine to 0 over 1,000 steps.
        length: steps for each image.
        beta: β of the first image, see `curriculum`.
        floor: smallest β.
        matching: η.
        signal: G of `spectral.loss`, "mean" or "class".
        cumulative: Ψ_s and Φ_s are those of all images so far, the finished ones held constant,
            instead of those in the making alone.
        parts: groups of k / parts classes that take turns, `length` steps each, before the next
            image has its own; the reference has 200 classes at a time on ImageNet.
        strategy: of augmentation, drawn for each image.
        decode: as in `distribution.feature_matching`.

    Raises:
        TypeError: for a strategy that is a string.
        ValueError: as in `curriculum`, no steps for an image, a negative η, another signal, or
            parts that do not divide the classes.
    """
    length, strategy = _checks.count("length", length), augment.as_strategy(strategy)
    parts = _checks.count("parts", parts)
    _checks.nonnegative("matching", matching)
    curriculum(beta, 1, floor=floor)
    if signal not in ("mean", "class"):
        raise ValueError(f"signal must be mean or class, found {signal!r}")

    def init(images):
        check_images(images)
        k = len(images)
        _check_teacher(network, images[0, :1], k)
        if k % parts:
            raise ValueError(f"parts must divide the {k} classes, found {parts}")
        shapes = jax.eval_shape(functools.partial(_seen, network), images[:, 0])
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        count = jnp.zeros((), jnp.int32)
        return CurriculumState(images, optimizer.init(images[: k // parts, 0]), nothing, count)

    def look(key, params, images, classes, k):
        """The teacher's logits of augmented images, their classes and moments."""
        shown = decode(images[:, None])
        labels = classes.repeat(shown.shape[1])
        views = shown.reshape(-1, *shown.shape[2:])
        views = augment.per_image(key, views, strategy=strategy)
        found, layers = networks.trace_convolutions(network, params, views)
        return found.logits, labels, _moments(layers, labels, k)

    def step(key, state, guide):
        k, ipc = state.images.shape[:2]
        _check_params(network, guide.params, state.images[0, :1])
        stage = jnp.minimum(state.count // length, ipc * parts - 1)
        turn, classes = stage // parts, stage % parts * (k // parts) + jnp.arange(k // parts)
        frequency = curriculum(beta, ipc, floor=floor)[turn]
        filter = spectral.ridge(frequency)

        def objective(images):
            logits, labels, own = look(key, guide.params, images, classes, k)
            entropy = training.cross_entropies(logits, labels).mean()
            before = jax.lax.stop_gradient(state.finished)
            reached = tuple(map(spectral.merge, before, own)) if cumulative else own
            real = guide.real if parts == 1 else tuple(map(_present, guide.real, reached))
            distance = sum(
                sum(spectral.losses(*pair, filter, signals=("none", signal), squared=False))
                for pair in zip(real, reached, strict=True)
            )
            terms = {"cross_entropy": entropy, "distance": distance}
            return entropy + matching * distance, (terms, own)

        current = state.images[classes, turn]
        grown = jax.value_and_grad(objective, has_aux=True)(current)
        (value, (terms, own)), slope = grown
        begun = _where(state.count % length == 0, optimizer.init(current), state.optimizer)
        current, begun = update(optimizer, slope, begun, current)
        current = jnp.clip(current, guide.low, guide.high)
        images = state.images.at[classes, turn].set(current)
        count = state.count + 1
        joined = tuple(map(spectral.merge, state.finished, own))
        finished = _where(count % length == 0, joined, state.finished)
        info = {"loss": value, **terms, "beta": frequency}
        return CurriculumState(images, begun, finished, count), info

    return Method(init, step)


def guide_sampler(key: jax.Array, guide: Guide) -> Guide:
    """The sampler of `methods.run`, which has nothing to choose: the guide as it is."""
    return guide


def _seen(network, images):
    """The moments of images `[k, h, w, c]` in a fresh teacher, for their shapes."""
    params = network.init(jax.random.key(0), images)
    layers = networks.trace_convolutions(network, params, images)[1]
    return _moments(layers, jnp.arange(len(images)), len(images))


def _moments(layers, labels, num_classes):
    return tuple(
        spectral.statistics(layer.astype(jnp.float32), labels, num_classes) for layer in layers
    )


def _present(real, reached):
    """The real moments with the classes alone that the set has, in their shares among these."""
    kept = real.class_mass * (reached.class_mass > 0)
    return real._replace(class_mass=kept * (real.class_mass.sum() / kept.sum()))


def _signalled(one, other):
    """The moments with the covariance of one, and the mean and classes of another."""
    return other._replace(scatter=one.scatter * other.mass / one.mass)


def _where(condition, one, other):
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), one, other)


def _shapes(network, images):
    return jax.eval_shape(network.init, jax.random.key(0), images)


def _check_teacher(network, images, num_classes):
    networks.check_classes(network, images, num_classes)
    if not networks.split_batch_stats(_shapes(network, images))[1]:
        raise ValueError(
            "a teacher must have batch norm, whose running statistics keep what tells images "
            f"apart, found a {type(network).__name__} without"
        )


def _check_params(network, params, images):
    """Refuses, by shapes alone, parameters of another network."""
    expected, found = _named(_shapes(network, images)), _named(params)
    if other := sorted(expected.items() ^ found.items()):
        name = other[0][0]
        raise ValueError(
            f"the teacher's parameters must be those of its network: {name} must be "
            f"{expected.get(name, 'absent')}, found {found.get(name, 'none')}"
        )


def _named(params):
    """The shapes of parameters by name."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}
