"""Trajectory matching (MTT): training on synthetic images follows experts of real ones."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdd import _checks, augment, networks, training
from jaxdd.matching import trajectory
from jaxdd.methods import protocol
from jaxdd.methods.protocol import Decode, Method, check_images, identity, labelled


class TrajectoryState(NamedTuple):
    """What trajectory matching carries from step to step.

    Attributes:
        images: synthetic, `[k, ipc, h, w, c]`, normalised and never clipped.
        log_rate: logarithm of the student's learning rate, learned with the images; scalar.
        optimizer: states of the images' optimizer and of the rate's.
    """

    images: jax.Array
    log_rate: jax.Array
    optimizer: tuple[optax.OptState, optax.OptState]


def trajectory_matching(
    network: networks.Network,
    optimizer: optax.GradientTransformation,
    *,
    inner: int,
    rate: float = 0.01,
    rate_optimizer: optax.GradientTransformation | None = None,
    strategy: augment.Strategy = augment.OPERATIONS,
    batch_size: int = 256,
    decode: Decode = identity,
    recompute: bool = True,
) -> Method:
    """Trajectory matching (MTT): a student trained on the synthetic set should follow an expert.

    The student starts where the expert stood, makes `inner` SGD steps on augmented synthetic
    images at a learned rate, and is compared by `matching.trajectory` with where the expert stood
    some epochs later; images and rate descend that loss. `step` takes a `experts.Segment` for
    its batch, so the sampler of the loop is `functools.partial(experts.segment, …)` and its pool
    the experts. Weights of the real data enter as they train the experts.

    Args:
        network: a `networks.Network`.
        optimizer: acts on the images; the reference uses SGD with rate 1000 and momentum 0.5.
        inner: N, steps of the student.
        rate: its first learning rate.
        rate_optimizer: acts on the rate's logarithm, which keeps the rate positive; SGD with rate
            0.1 and momentum 0.5 by default. (At the rate 0.01 these are the steps of the
            reference, which takes the rate itself and 1e-5.)
        strategy: augmentation operations, one drawn for each image and inner step; () for none.
        batch_size: synthetic images of an inner step at most, taken in turn from a random order.
        decode: as in `feature_matching`.
        recompute: keep the student's parameters of every inner step only, and run the step again
            to differentiate it: memory is that of one step whatever `inner` is, for a third more
            time. The gradient is the same. (TESLA, Cui et al., ICML 2023, also holds the parameters
            constant with respect to earlier images, which makes it an approximation.)

    Raises:
        TypeError: for a strategy that is a string.
        ValueError: for an unknown operation in it, less than one inner step or image of a batch, or
            a rate that is not positive and finite.

    Source: Cazenavette et al., "Dataset Distillation by Matching Training Trajectories" (CVPR
    2022).
    """
    strategy, inner = augment.as_strategy(strategy), _checks.count("inner", inner)
    batch_size, rate = _checks.count("batch_size", batch_size), _checks.positive("rate", rate)
    if rate_optimizer is None:
        rate_optimizer = optax.sgd(0.1, momentum=0.5)

    def init(images):
        check_images(images)
        networks.check_classes(network, images[0, :1], len(images))
        first = jnp.log(jnp.asarray(rate, jnp.float32))
        return TrajectoryState(images, first, (optimizer.init(images), rate_optimizer.init(first)))

    def student(key, params, images, rate):
        images, labels = labelled(decode(images))
        key_order, key_augment = jax.random.split(key)
        size = min(batch_size, len(labels))
        passes = -(-inner * size // len(labels))
        orders = jax.random.split(key_order, passes)
        order = jax.vmap(lambda key: jax.random.permutation(key, len(labels)))(orders).ravel()

        def descend(params, one):
            key, chosen = one
            views = augment.per_image(key, images[chosen], strategy=strategy)
            loss = functools.partial(training.cross_entropy, network)
            slope = jax.grad(loss)(params, views, labels[chosen], jnp.ones(size))
            return jax.tree.map(lambda p, g: p - rate * g, params, slope), None

        if recompute:
            descend = jax.checkpoint(descend, prevent_cse=False)
        batches = order[: inner * size].reshape(inner, size)
        return jax.lax.scan(descend, params, (jax.random.split(key_augment, inner), batches))[0]

    def step(key, state, segment):
        def loss(images, log_rate):
            reached = student(key, segment.start, images, jnp.exp(log_rate))
            return trajectory(reached, segment.start, segment.target)

        value, slopes = jax.value_and_grad(loss, (0, 1))(state.images, state.log_rate)
        optimizers = zip(
            (optimizer, rate_optimizer), slopes, state.optimizer, state[:2], strict=True
        )
        (images, images_state), (log_rate, rate_state) = (
            protocol.descend(*each) for each in optimizers
        )
        state = TrajectoryState(images, log_rate, (images_state, rate_state))
        return state, {"loss": value, "rate": jnp.exp(log_rate)}

    return Method(init, step)
