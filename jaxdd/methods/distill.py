"""Distillation methods as pairs of pure functions, and the loop that compiles them.

A method is `Method(init, step)`; networks, optimizer and augmentation are handed in. What is drawn
from the real data is a function too, `draw(key, pool) -> Batch`, so that weights can enter as a
weighted mean (`sampling.uniform_batch`), through the draw itself (`sampling.weighted_batch`), or be
estimated anew from each batch (`draws.density_weighted`).
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdd import _checks, augment, networks, sampling, training
from jaxdd.devices import microbatch
from jaxdd.matching import cosine_rows, distribution, trajectory
from jaxdd.methods.protocol import Decode, Method, check_images, descend, identity


class State(NamedTuple):
    """Synthetic images `[k, ipc, h, w, c]`, normalised and never clipped; the optimizer's state."""

    images: jax.Array
    optimizer: optax.OptState


def matching(
    network: networks.Network,
    optimizer: optax.GradientTransformation,
    *,
    loss: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] = distribution,
    strategy: augment.Strategy = augment.OPERATIONS,
    decode: Decode = identity,
    groups: int = 1,
    cache: int | None = None,
) -> Method:
    """Matches real and synthetic features of random networks along any loss.

    Every step draws a fresh random network, shared by all classes, and one augmentation for each
    class, shared by its real and synthetic images, and descends the loss of the flattened features.
    The real side carries no gradient.

    Args:
        network: a `networks.Network`.
        optimizer: acts on the images `[k, ipc, h, w, c]`; the reference of distribution matching
            uses SGD with learning rate 1 (10 from IPC 100 on) and momentum 0.5.
        loss: of real features `[k, b, d]`, synthetic ones `[k, m, d]` and the real samples' weights
            `[k, b]`, whose rows sum to one; a scalar.
        strategy: of augmentation; () for none.
        decode: from the images of the state to those the network sees, `[k, m, h, w, c]`, for
            example `formation.split`.
        groups: number of groups that a class's batch consists of, see `draws.grouped`. They count
            as classes of their own, which share the class's synthetic features; a group without
            weight has weights of zero.
        cache: bytes of micro-batches on the CPU, as in `microbatch.apply`.

    Raises:
        TypeError: for a strategy that is a string.
        ValueError: for an unknown operation in it, or less than one group.

    >>> from jaxdd import networks
    >>> def means_and_variances(real, synthetic, weights):
    ...     target = (weights[..., None] * real).sum(1)
    ...     spread = (weights[..., None] * real**2).sum(1) - target**2
    ...     distance = jnp.sum((target - synthetic.mean(1)) ** 2)
    ...     return distance + jnp.sum((spread - synthetic.var(1)) ** 2)
    >>> network = networks.ConvNet(num_classes=3, width=8)
    >>> method = matching(network, optax.sgd(1.0, 0.5), loss=means_and_variances)
    """
    strategy, groups = augment.as_strategy(strategy), _checks.count("groups", groups)

    def init(images):
        check_images(images)
        return State(images, optimizer.init(images))

    def features(params, images):
        # Samples before classes: split over devices, the samples of all classes are one axis still.
        k, b = images.shape[:2]
        flat = images.swapaxes(0, 1).reshape(b * k, *images.shape[2:])
        found = microbatch.apply(
            lambda images: networks.outputs(network, params, images).features,
            flat,
            activation_bytes=cache,
        )
        return found.reshape(b, k, -1).swapaxes(0, 1)

    def step(key, state, batch):
        key_network, key_augment = jax.random.split(key)
        params = networks.init_params(key_network, network, state.images[0, :1])
        keys = jax.random.split(key_augment, len(state.images))
        transform = functools.partial(_siamese, keys, strategy)
        real = features(params, transform(batch.images))
        real = real.reshape(len(real) * groups, -1, real.shape[-1])
        weights = batch.weights.reshape(len(real), -1)

        def objective(images):
            synthetic = features(params, transform(decode(images)))
            return loss(real, synthetic.repeat(groups, axis=0), weights)

        value, gradient = jax.value_and_grad(objective)(state.images)
        return State(*descend(optimizer, gradient, state.optimizer, state.images)), {"loss": value}

    return Method(init, step)


def distribution_matching(
    network: networks.Network,
    optimizer: optax.GradientTransformation,
    *,
    strategy: augment.Strategy = augment.OPERATIONS,
    decode: Decode = identity,
    groups: int = 1,
    cache: int | None = None,
) -> Method:
    """Distribution matching (DM; Zhao & Bilen, WACV 2023) with weighted real means.

    It is `matching` along `matching.distribution`. With `groups` the loss is a sum over groups as
    well: FairDD (Zhou et al., 2025). For this squared distance its gradient is that of the groups'
    barycentre, which `reweight.oracle` weights give, times the number of groups in the batch.

    Args:
        network: as in `matching`.
        optimizer: as in `matching`.
        strategy: as in `matching`.
        decode: as in `matching`.
        groups: as in `matching`.
        cache: as in `matching`.

    Raises:
        TypeError: as in `matching`.
        ValueError: as in `matching`.
    """
    return matching(
        network, optimizer, strategy=strategy, decode=decode, groups=groups, cache=cache
    )


class GradientState(NamedTuple):
    """What gradient matching carries from step to step.

    Attributes:
        images: synthetic, `[k, ipc, h, w, c]`, normalised and never clipped.
        optimizer: state of the images' optimizer.
        params: of the network that is being trained on the synthetic set.
        count: steps done, scalar.
    """

    images: jax.Array
    optimizer: optax.OptState
    params: Any
    count: jax.Array


def gradient_matching(
    network: networks.Network,
    optimizer: optax.GradientTransformation,
    *,
    outer: int,
    inner: int,
    distance: Callable[[Any, Any], jax.Array] = cosine_rows,
    strategy: augment.Strategy = (),
    network_optimizer: optax.GradientTransformation | None = None,
    batch_size: int = 256,
    decode: Decode = identity,
    groups: int = 1,
) -> Method:
    """Gradient matching: DC without augmentation, DSA with it, with weighted real gradients.

    A step is one pass of the reference's outer loop: for each class, the gradient of the weighted
    cross-entropy of the real batch and that of the synthetic images; one update of the images on
    the sum of their distances over the classes; then `inner` epochs of training the network on the
    synthetic set. Every `outer` steps the network is a fresh one, and the training that would come
    just before is left out. Classes follow one another in a loop, so that neither the program nor
    its memory grows with their number.

    Args:
        network: a `networks.Network`.
        optimizer: acts on the images; the reference uses SGD with rate 0.1 and momentum 0.5.
        outer: steps that a network lives for.
        inner: epochs of training between two of them.
        distance: of two gradients, one of `matching.GRADIENT`.
        strategy: of augmentation, one draw for each class that real and synthetic images share; ()
            for DC.
        network_optimizer: of the network; SGD with rate 0.01 by default.
        batch_size: of the network's training.
        decode: as in `matching`.
        groups: as in `matching`; the distance is summed over groups.

    Raises:
        TypeError: as in `matching`.
        ValueError: as in `matching`, or for loops or batches shorter than one.

    Sources: Zhao, Mopuri and Bilen, "Dataset Condensation with Gradient Matching" (ICLR 2021); Zhao
    and Bilen, "Dataset Condensation with Differentiable Siamese Augmentation" (ICML 2021).
    """
    if outer < 1 or inner < 1:
        raise ValueError(f"outer and inner must be at least 1, found {outer} and {inner}")
    strategy, groups = augment.as_strategy(strategy), _checks.count("groups", groups)
    batch_size = _checks.count("batch_size", batch_size)
    network_optimizer = optax.sgd(0.01) if network_optimizer is None else network_optimizer

    def init(images):
        check_images(images)
        networks.check_classes(network, images[0, :1], len(images))
        params = network.init(jax.random.key(0), images[0, :1])
        return GradientState(images, optimizer.init(images), params, jnp.zeros((), jnp.int32))

    def gradient(params, images, label, weights):
        loss = functools.partial(training.cross_entropy, network)
        return jax.grad(loss)(params, images, label, weights)

    def match(params, one):
        key, label, batch, images = one
        transform = lambda images: augment.siamese(key, images, strategy=strategy)[0]
        real, weights = jax.tree.map(lambda x: x.reshape(groups, -1, *x.shape[1:]), batch)
        targets = jax.lax.map(
            lambda group: training.gradient(network, params, transform(group[0]), label, group[1]),
            (real, weights),
        )
        present = weights.sum(1) > 0

        def loss(images):
            images = transform(decode(images))
            found = gradient(params, images, label, jnp.ones(len(images)))
            distances = jax.vmap(lambda target: distance(target, found))(targets)
            return jnp.sum(distances * present)

        return jax.value_and_grad(loss)(images)

    def trained(key, params, images):
        return training.fit(
            key,
            network,
            params,
            *_labelled(decode(images)),
            optimizer=network_optimizer,
            epochs=inner,
            batch_size=batch_size,
            strategy=strategy,
        )

    def step(key, state, batch):
        key_network, key_augment, key_train = jax.random.split(key, 3)
        params = jax.lax.cond(
            state.count % outer == 0,
            lambda: networks.init_params(key_network, network, state.images[0, :1]),
            lambda: state.params,
        )
        k = len(state.images)
        keys = jax.random.split(key_augment, k)
        values, slopes = jax.lax.map(
            functools.partial(match, params), (keys, jnp.arange(k), batch, state.images)
        )
        images, optimizer_state = descend(optimizer, slopes, state.optimizer, state.images)
        count = state.count + 1
        params = jax.lax.cond(
            count % outer == 0, lambda: params, lambda: trained(key_train, params, images)
        )
        return GradientState(images, optimizer_state, params, count), {"loss": values.sum()}

    return Method(init, step)


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
    some epochs later; images and rate descend that loss. `step` takes a `trajectories.Segment` for
    its batch, so the draw of the loop is `functools.partial(trajectories.segment, …)` and its pool
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
        decode: as in `matching`.
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
        images, labels = _labelled(decode(images))
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
        (images, images_state), (log_rate, rate_state) = (descend(*each) for each in optimizers)
        state = TrajectoryState(images, log_rate, (images_state, rate_state))
        return state, {"loss": value, "rate": jnp.exp(log_rate)}

    return Method(init, step)


def _labelled(images):
    """Flattens `[k, m, h, w, c]` to images `[k·m, h, w, c]` and their classes."""
    return images.reshape(-1, *images.shape[2:]), jnp.arange(len(images)).repeat(images.shape[1])


def _siamese(keys, strategy, images):
    """Augments `[k, b, h, w, c]`, one draw for each class."""
    one = lambda key, batch: augment.siamese(key, batch, strategy=strategy)[0]
    return jax.vmap(one)(keys, images)


def steps(
    key: jax.Array,
    state: Any,
    pool: Any,
    first: jax.Array | int,
    *,
    method: Method,
    draw: Callable[[jax.Array, Any], Any],
    length: int,
) -> tuple[Any, dict[str, jax.Array]]:
    """Runs `length` steps as one loop: draw, network, augmentation, loss and update.

    Step i uses `fold_in(key, i)`, so (key, i) alone says what happens next. This is a pure function
    to `jit`, `vmap` or differentiate; `chunk` is it compiled.

    Args:
        key: of the whole run.
        state: from `method.init` or earlier steps.
        pool: the real data, on the device.
        first: number of the first step.
        method: what a step is.
        draw: `draw(key, pool) -> batch`.
        length: number of steps, static.

    Returns:
        The state, and the info of every step as `[length]` arrays.

    Raises:
        TypeError: for a step that does not return a state like the one it got and a dict of scalars
            with "loss".
    """

    def body(state, i):
        key_draw, key_step = jax.random.split(jax.random.fold_in(key, i))
        found = method.step(key_step, state, draw(key_draw, pool))
        _check_step(found, state)
        return found

    return jax.lax.scan(body, state, first + jnp.arange(length))


def _check_step(found, state):
    """Refuses, by shapes alone, what the protocol of a method does not allow."""
    shapes = lambda tree: jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)
    if not (isinstance(found, tuple) and len(found) == 2):
        raise TypeError(f"a step must return the pair (state, info), found {shapes(found)}")
    after, info = found
    if jax.tree.structure(after) != jax.tree.structure(state) or shapes(after) != shapes(state):
        raise TypeError(
            "a step must return a state of the structure, shapes and dtypes that it got, found "
            f"{shapes(after)} for {shapes(state)}"
        )
    if not isinstance(info, dict) or "loss" not in info or any(map(jnp.shape, info.values())):
        raise TypeError(
            f'a step must report a dict of scalars, "loss" among them, found {shapes(info)}'
        )


chunk = jax.jit(steps, static_argnames=("method", "draw", "length"), donate_argnames=("state",))
"""`steps` compiled, its state donated.

Method and draw are compared by identity: make them once, since another `functools.partial` of the
same function compiles the steps again.
"""


def run(
    key: jax.Array,
    state: Any,
    pool: sampling.Pool,
    *,
    method: Method,
    draw: sampling.Draw,
    steps: int,
    first: int = 0,
    chunk_length: int = 10,
) -> Iterator[tuple[int, Any, dict[str, jax.Array]]]:
    """Yields `(step, state, info)` after each compiled chunk until `steps` steps are done.

    `info` holds an array `[steps of the chunk]` for each scalar of the method. The yielded state is
    given up to the next chunk: save or copy what you want to keep before you ask for more; the
    state that was handed in stays. A run begun again with `first` = a yielded step and its state
    goes on to the same bits, since chunks start at the same steps.

    Raises:
        ValueError: for a loss that is not finite, a chunk of no steps, a negative number of them,
            or a first step beyond the last.
    """
    chunk_length = _checks.count("chunk_length", chunk_length)
    steps, first = (_checks.count(n, x, least=0) for n, x in (("steps", steps), ("first", first)))
    if first > steps:
        raise ValueError(f"first must not be beyond the {steps} steps, found {first}")
    state = jax.tree.map(jnp.copy, state)
    for start in range(first, steps, chunk_length):
        length = min(chunk_length, steps - start)
        state, info = chunk(
            key, state, pool, jnp.asarray(start), method=method, draw=draw, length=length
        )
        if not jnp.isfinite(info["loss"]).all():
            step = start + int(jnp.argmin(jnp.isfinite(info["loss"])))
            raise ValueError(f"the loss is not finite at step {step}; try a smaller learning rate")
        yield start + length, state, info
