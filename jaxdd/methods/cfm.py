"""Curriculum frequency matching (CFM): optimise images one after another, guided by a teacher.

A teacher with batch norm is trained on the real data and frozen. At the input of each of its
convolutions, the covariance Ψ and the class signal Φ of the real images are measured once (`guide`,
see `spectral`); every position of a feature map counts. The synthetic images are then optimised one
after another, one per class at a time, by minimising

    CE(teacher(A(s)), y)  +  η Σ_l [ ‖F(Ψ) − F(Ψ_s)‖ + ‖F(Ψ) G − F(Ψ_s) G_s‖ ],   F(Ψ) = (Ψ + β I)⁻¹

over layers l, where A is a random crop, flip and roll. F weights a direction by 1 / (λ + β). The
curriculum lowers β along a cosine from image to image: the first images match the directions of
large variance, later images also those of small variance.

Sample weights can act in three places: in the training of the teacher, in Ψ and in Φ.

Source: Bo, Liu and Wang, "Understanding Dataset Distillation via Spectral Filtering" (ICLR 2026).
Differences: Ψ and Ψ_s are covariances over all images of a set, where the reference averages
covariances within batches. G is Φ by default, as in the paper; the reference's commands use the
mean feature. β has a floor, because Ψ_s of few images is singular and F is then 1 / β in its null
space. A is drawn for each image, in the reference for all images of a step together. The
reference starts from the first images of each class and stores the set as JPEG files. Its README
compares the real images with those of a step alone (`cumulative=False`); a command in its code
sets `--ema`, which compares them with all images so far.

The reference's code does as badly as this one at small scale. On CIFAR-10 with its published
teacher, ten images per class and 100 updates, networks trained with hard labels reached 29.0 % on
its images, 30.5 % on those of this module and 31.1 % on real images.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdd import _axes, _checks, augment, networks, sampling, training
from jaxdd.methods import spectral
from jaxdd.methods.protocol import Decode, Method, check_images, identity


class Guide(NamedTuple):
    """The teacher and its statistics of the real images, which are the batch of every step.

    Attributes:
        params: parameters of the teacher, with its running statistics.
        real: `spectral.Statistics` of the real images at the input of each convolution.
        low: `[c]`, normalised value of a black pixel.
        high: `[c]`, normalised value of a white pixel.
    """

    params: Any
    real: tuple[spectral.Statistics, ...]
    low: jax.Array
    high: jax.Array


class CurriculumState(NamedTuple):
    """State of curriculum frequency matching.

    Attributes:
        images: synthetic images `[k, ipc, h, w, c]`, normalised and clipped to the pixel range.
        optimizer: state for the current images, one per class of a part.
        finished: `spectral.Statistics` of the finished images at the input of each convolution.
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
    """Measure the weighted statistics of the real images in a trained teacher.

    Args:
        network: teacher network, a Linen module with batch norm.
        params: parameters of the teacher.
        pool: real images with the weights for Ψ.
        signals: the same images with the weights for Φ and the mean; `pool` by default.
        size: images processed at a time.
    """
    first = sampling.take(pool, jnp.zeros(1, int))
    _check_teacher(network, first, pool.num_classes)
    _check_params(network, params, first)

    def extract(images):
        images = sampling.normalise(images, pool.mean, pool.std)
        return networks.trace_convolutions(network, params, images)[1]

    def measure(pool):
        arguments = pool.images, pool.labels, pool.num_classes, pool.weights
        return spectral.statistics(*arguments, extract=extract, size=size)

    real = measure(pool)
    if signals is not None:
        real = tuple(map(_combine, real, measure(signals)))
    low, high = ((x - pool.mean) / pool.std for x in (0.0, 1.0))
    return Guide(params, real, low, high)


def guide_sampler(key: jax.Array, guide: Guide) -> Guide:
    """Return the guide as the batch of every step; this is the sampler for `methods.run`."""
    return guide


def curriculum(beta: float, ipc: int, *, floor: float = 1e-3) -> jax.Array:
    """Return β of each image, `max(β (1 + cos(π b / ipc)) / 2, floor)` for b = 0, …, ipc − 1.

    Args:
        beta: β of the first image.
        ipc: images per class.
        floor: minimum β.

    >>> [round(float(beta), 4) for beta in curriculum(0.1, 4)]
    [0.1, 0.0854, 0.05, 0.0146]
    """
    ipc = _checks.count("ipc", ipc)
    known = _checks.values(_checks.positive("beta", beta))
    lowest = _checks.values(_checks.positive("floor", floor))
    if known is not None and lowest is not None and not known >= lowest:
        raise ValueError(f"beta must be at least its floor {floor}, got {beta}.")
    factors = (1 + jnp.cos(math.pi * jnp.arange(ipc, dtype=float) / ipc)) / 2
    return jnp.maximum(beta * factors, floor)


def curriculum_matching(
    network: networks.Network,
    optimizer: optax.GradientTransformation,
    *,
    length: int,
    beta: float = 0.1,
    floor: float = 1e-3,
    matching_weight: float = 0.1,
    signal: spectral.Signal = "class",
    cumulative: bool = True,
    parts: int = 1,
    strategy: augment.Strategy = augment.resized_crop,
    decode: Decode = identity,
) -> Method:
    """Return curriculum frequency matching (CFM).

    A step updates one image of each class. After `length` steps the method moves to the next image
    of each class; it stays at the last. The batch of a step is a `Guide`: run the method with the
    guide as the pool and `guide_sampler` as the sampler.

    Args:
        network: teacher network, a Linen module with batch norm.
        optimizer: optimizer of the images `[k / parts, h, w, c]`, initialised again for each. The
            reference uses Adam(0.5, 0.9), with a rate that falls from 0.25 to 0 along a cosine over
            1,000 steps.
        length: steps per image.
        beta: β of the first image, see `curriculum`.
        floor: minimum β.
        matching_weight: η.
        signal: G, "class" for Φ or "mean" for the mean feature.
        cumulative: compare the real statistics with those of all images so far, the finished ones
            held constant, instead of those of the current images alone.
        parts: divide the classes into this many parts, which take turns of `length` steps. Memory
            is that of one image per class of a part. The reference uses 200 classes at a time on
            ImageNet. Until every class has an image, Φ is that of the classes that have one.
        strategy: augmentation, drawn per image.
        decode: map from stored images to those the network sees, such as `formation.split`.
    """
    schedule = functools.partial(curriculum, beta, floor=floor)
    schedule(1)  # checks the arguments
    if signal not in ("mean", "class"):
        raise ValueError(f"signal must be 'mean' or 'class', got {signal!r}.")
    parts, length = _checks.count("parts", parts), _checks.count("length", length)
    _checks.nonnegative("matching_weight", matching_weight)
    strategy = augment.as_strategy(strategy)
    measure = functools.partial(_measure, network=network, strategy=strategy, decode=decode)

    objective = functools.partial(
        _objective,
        measure=measure,
        matching_weight=matching_weight,
        signal=signal,
        cumulative=cumulative,
        all_classes=parts == 1,
    )
    init = functools.partial(_init, network=network, optimizer=optimizer, parts=parts)
    arguments = dict(optimizer=optimizer, objective=objective, schedule=schedule)
    step = functools.partial(_step, length=length, parts=parts, **arguments)
    return Method(init, step)


def _init(images, *, network, optimizer, parts):
    check_images(images)
    k = len(images)
    _check_teacher(network, images[0, :1], k)
    if k % parts:
        raise ValueError(f"parts must divide the {k} classes, got {parts}.")

    def statistics(images):
        params = network.init(jax.random.key(0), images)
        layers = networks.trace_convolutions(network, params, images)[1]
        return _statistics(layers, jnp.arange(k), k)

    # Statistics of no images; their shapes follow from the network.
    shapes = jax.eval_shape(statistics, images[:, 0])
    finished = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    finished = _axes.match(finished, images)
    optimizer_state = optimizer.init(images[: k // parts, 0])
    return CurriculumState(images, optimizer_state, finished, jnp.zeros((), jnp.int32))


def _step(key, state, guide, *, optimizer, objective, schedule, length, parts):
    # The step count determines the images that are optimised: in stage 0 image 0 of the first part
    # of the classes, in stage 1 image 0 of the second part, and so on.
    k, ipc = state.images.shape[:2]
    stage = jnp.minimum(state.count // length, ipc * parts - 1)
    image, classes = stage // parts, stage % parts * (k // parts) + jnp.arange(k // parts)
    beta = schedule(ipc)[image]
    value_and_grad = jax.value_and_grad(objective, has_aux=True)
    current = state.images[classes, image]
    (value, (terms, own)), gradient = value_and_grad(
        current, key, guide, state.finished, classes, spectral.ridge(beta)
    )
    is_first = state.count % length == 0
    optimizer_state = _select(is_first, optimizer.init(current), state.optimizer)
    current, optimizer_state = training.apply_gradients(
        optimizer, gradient, optimizer_state, current
    )
    low, high = (jax.lax.broadcast_to_rank(x, current.ndim) for x in (guide.low, guide.high))
    current = jnp.clip(current, low, high)
    images = state.images.at[classes, image].set(current)
    count = state.count + 1
    merged = tuple(map(spectral.merge, state.finished, own))
    finished = _select(count % length == 0, merged, state.finished)
    info = {"loss": value, **terms, "beta": beta}
    return CurriculumState(images, optimizer_state, finished, count), info


def _objective(
    images,
    key,
    guide,
    finished,
    classes,
    ridge,
    *,
    measure,
    matching_weight,
    signal,
    cumulative,
    all_classes,
):
    """Return the loss of the current images, its terms and the statistics of the images."""
    k = len(guide.real[0].class_mass)
    logits, labels, own = measure(key, guide.params, images, classes, k)
    entropy = training.cross_entropies(logits, labels).mean()
    # Statistics merge exactly, so the finished images need not be seen again.
    finished = jax.lax.stop_gradient(finished)
    synthetic = tuple(map(spectral.merge, finished, own)) if cumulative else own
    real = guide.real
    if not all_classes:
        real = tuple(map(_present_classes, real, synthetic))
    # The signal "none" is the identity: ‖F(Ψ) − F(Ψ_s)‖.
    distance = sum(
        sum(spectral.losses(*layer, ridge, signals=("none", signal), squared=False))
        for layer in zip(real, synthetic, strict=True)
    )
    terms = {"cross_entropy": entropy, "distance": distance}
    return entropy + matching_weight * distance, (terms, own)


def _measure(key, params, images, classes, k, *, network, strategy, decode):
    """Return the teacher's logits of augmented images, their labels and statistics by layer."""
    decoded = decode(images[:, None])
    labels = classes.repeat(decoded.shape[1])
    views = decoded.reshape(-1, *decoded.shape[2:])
    views = augment.per_image(key, views, strategy=strategy)
    output, layers = networks.trace_convolutions(network, params, views)
    return output.logits, labels, _statistics(layers, labels, k)


def _statistics(layers, labels, num_classes):
    return tuple(
        spectral.statistics(layer.astype(jnp.float32), labels, num_classes) for layer in layers
    )


def _present_classes(real, synthetic):
    """Return real statistics without the weight of classes that have no synthetic image."""
    # Otherwise the first parts would also have to match the classes that have no image yet.
    mass = jnp.where(synthetic.class_mass > 0, real.class_mass, 0)
    return real._replace(class_mass=mass * (real.class_mass.sum() / mass.sum()))


def _combine(covariances, signals):
    """Return the covariance of one set of statistics with the means of another."""
    return signals._replace(scatter=covariances.scatter * signals.mass / covariances.mass)


def _select(condition, a, b):
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def _shapes(network, images):
    return jax.eval_shape(network.init, jax.random.key(0), images)


def _check_teacher(network, images, num_classes):
    networks.check_classes(network, images, num_classes)
    if not networks.split_batch_stats(_shapes(network, images))[1]:
        raise ValueError(
            "A teacher must have batch norm, whose running statistics preserve differences in "
            f"brightness and contrast between images, got a {type(network).__name__} without."
        )


def _check_params(network, params, images):
    """Reject, by shapes alone, parameters of another network."""
    expected, actual = _shapes_by_name(_shapes(network, images)), _shapes_by_name(params)
    if differences := sorted(expected.items() ^ actual.items()):
        name = differences[0][0]
        raise ValueError(
            f"The parameters are not those of the teacher: {name} must have shape "
            f"{expected.get(name, 'none')}, got {actual.get(name, 'none')}."
        )


def _shapes_by_name(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}
