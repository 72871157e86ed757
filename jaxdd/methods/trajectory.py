"""Trajectory matching (MTT): training on synthetic images follows experts of the real data.

Source: Cazenavette et al., "Dataset Distillation by Matching Training Trajectories" (CVPR 2022).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdd import _checks, augment, matching, networks, sampling, training
from jaxdd.methods.protocol import Decode, Method, check_images, identity


class TrajectoryState(NamedTuple):
    """State of trajectory matching.

    Attributes:
        images: synthetic images `[k, ipc, h, w, c]`, normalised and never clipped.
        log_rate: logarithm of the student's learning rate, which is learned; scalar.
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
    """Return trajectory matching (MTT).

    A student starts at parameters of an expert and makes `inner` SGD steps on augmented synthetic
    images at a learned rate. `matching.trajectory` compares it with the expert some epochs later,
    and images and rate are updated by the gradient of that loss.

    The batch of a step is an `expert_training.Segment`: run the method with the experts as the pool
    and `functools.partial(expert_training.segment, ...)` as the sampler. Sample weights act through
    the training of the experts.

    Args:
        network: a `networks.Network`.
        optimizer: optimizer of the images; the reference uses SGD with rate 1000 and momentum 0.5.
        inner: SGD steps of the student.
        rate: initial learning rate of the student.
        rate_optimizer: optimizer of the logarithm of the rate, which keeps the rate positive.
            Defaults to SGD with rate 0.1 and momentum 0.5: near a rate of 0.01 these are the steps
            of the reference, which updates the rate itself with 1e-5.
        strategy: augmentation, drawn per image and inner step; () for none.
        batch_size: maximum number of synthetic images in an inner step.
        decode: map from stored images to those the network sees, such as `formation.split`.
        recompute: store only the student's parameters of each inner step and run the step again to
            differentiate it. Memory is then that of one step for any `inner`, for a third more
            time, and the gradient is the same.
    """
    if rate_optimizer is None:
        rate_optimizer = optax.sgd(0.1, momentum=0.5)
    student = functools.partial(
        _train_student,
        network=network,
        inner=_checks.count("inner", inner),
        batch_size=_checks.count("batch_size", batch_size),
        strategy=augment.as_strategy(strategy),
        recompute=recompute,
    )
    _checks.positive("rate", rate)

    def init(images):
        check_images(images)
        networks.check_classes(network, images[0, :1], len(images))
        log_rate = jnp.log(jnp.asarray(rate, jnp.float32))
        return TrajectoryState(
            images, log_rate, (optimizer.init(images), rate_optimizer.init(log_rate))
        )

    def step(key, state, segment):
        def loss(images, log_rate):
            params = student(key, segment.start, decode(images), jnp.exp(log_rate))
            return matching.trajectory(params, segment.start, segment.target)

        value, gradients = jax.value_and_grad(loss, (0, 1))(state.images, state.log_rate)
        (images_state, rate_state), (by_images, by_rate) = state.optimizer, gradients
        step = training.apply_gradients
        images, images_state = step(optimizer, by_images, images_state, state.images)
        log_rate, rate_state = step(rate_optimizer, by_rate, rate_state, state.log_rate)
        state = TrajectoryState(images, log_rate, (images_state, rate_state))
        return state, {"loss": value, "rate": jnp.exp(log_rate)}

    return Method(init, step)


def _train_student(key, params, images, rate, *, network, inner, batch_size, strategy, recompute):
    """Return the parameters after `inner` SGD steps on images `[k, m, h, w, c]`."""
    # Batches are cut from one sequence of random permutations, so that every image is used equally
    # often. A batch may span the end of one permutation and the start of the next.
    images, labels = sampling.flatten(images)
    key_order, key_augment = jax.random.split(key)
    size = min(batch_size, len(labels))
    passes = -(-inner * size // len(labels))
    orders = jax.random.split(key_order, passes)
    order = jax.vmap(lambda key: jax.random.permutation(key, len(labels)))(orders).ravel()
    batches = order[: inner * size].reshape(inner, size)

    def sgd(params, inputs):
        key, batch = inputs
        views = augment.per_image(key, images[batch], strategy=strategy)
        loss = functools.partial(training.cross_entropy, network)
        gradient = jax.grad(loss)(params, views, labels[batch], jnp.ones(size))
        return jax.tree.map(lambda p, g: (p - rate * g).astype(p.dtype), params, gradient), None

    # The gradient in the images runs back through all inner steps. Unrolled, it stores the
    # activations of each: N steps need N times the memory. `jax.checkpoint` stores only the
    # parameters between steps and recomputes the activations of one step at a time (as TESLA, Cui
    # et al., ICML 2023; TESLA also drops terms of the gradient, which this does not).
    if recompute:
        sgd = jax.checkpoint(sgd, prevent_cse=False)  # not needed inside `scan`
    return jax.lax.scan(sgd, params, (jax.random.split(key_augment, inner), batches))[0]
