"""Networks that learn what most samples of a class have in common, and what they say of the others.

Trained for a short time along a loss that lets go of exceptions, a network tells the classes by
whatever most samples of each show: with a bias that is learnt before the object, by the bias (Nam
et al., "Learning from Failure", NeurIPS 2020). What it says of samples that it has not seen is what
`weights.from_probabilities` takes. `experiments.detectors` compares it with what views show.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from jaxdd import _checks, augment, networks, sampling, training
from jaxdd.devices import microbatch
from jaxdd.methods import experts
from jaxdd.training import debiased
from jaxdd.weights import probes

ADAM = optax.adam(1e-3)


def default_network(pool: sampling.Pool, *, width: int = 32) -> networks.ConvNet:
    """Returns a ConvNet with batch norm: instance norm would take contrast and brightness away.

    Args:
        pool: the samples.
        width: channels.
    """
    depth = networks.max_blocks(pool.images.shape)
    return networks.ConvNet(pool.num_classes, width, depth, norm=networks.BatchNorm)


def crossfit(
    key: jax.Array,
    pool: sampling.Pool,
    *,
    network: networks.Network | None = None,
    asked: networks.Network | None = None,
    folds: int = 2,
    steps: int = 200,
    checkpoints: int = 3,
    batch_size: int = 256,
    q: float = 0.7,
    strategy: augment.Strategy = (),
    optimizer: optax.GradientTransformation = ADAM,
) -> jax.Array:
    """Returns probabilities of the classes by networks that have not seen the sample, `[n, k]`.

    The samples of each class are dealt out to the folds, and for each fold a network is trained on
    the others. Its log-probabilities are averaged over some states on the way, since nobody knows
    when the bias is learnt and the object is not.

    Args:
        key: of the folds, the networks and their batches.
        pool: the samples; their weights play no part.
        network: hashable; `default_network` where omitted.
        asked: what is applied with the trained parameters in its place, such as a part of it.
        folds: two or more. Every class needs two samples.
        steps: updates of each network.
        checkpoints: states whose log-probabilities are averaged, evenly over the steps.
        batch_size: samples of all classes together, as many of each.
        q: of `debiased.generalised_cross_entropy`; 0 is the cross-entropy.
        strategy: of augmentation. One that changes colours or hides parts hides a bias as well.
        optimizer: of the parameters.

    Raises:
        TypeError: for a strategy that is a string.
        ValueError: numbers that are too small, a class of one sample, a network of other classes,
            or q that is negative.
    """
    for name, number in dict(steps=steps, checkpoints=checkpoints, batch_size=batch_size).items():
        _checks.count(name, number)
    _checks.count("folds", folds, minimum=2)
    q = float(_checks.nonnegative("q", q))
    least = int(pool.count.argmin())
    if pool.count[least] < 2:
        raise ValueError(f"every class needs two samples, class {least} has {pool.count[least]}")
    network = default_network(pool) if network is None else network
    asked = network if asked is None else asked
    for each in (network, asked):
        networks.check_classes(each, sampling.take(pool, pool.order[:1]), pool.num_classes)
    truncate = functools.partial(debiased.generalised_cross_entropy, q=q)
    loss = training.cross_entropies if q == 0 else truncate
    method = experts.supervised_training(network, optimizer, strategy=strategy, loss=loss)
    sampler = functools.partial(
        sampling.weighted_batch, size=max(1, batch_size // pool.num_classes)
    )
    stages = tuple(steps * (i + 1) // checkpoints for i in range(checkpoints))
    return _crossfit(key, pool, (network, asked), method, sampler, folds, stages)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5, 6))
def _crossfit(key, pool, pair, method, sampler, folds, stages):
    key_folds, key_networks = jax.random.split(key)
    fold = probes.assign_folds(key_folds, pool.labels, folds=folds)

    n, k = len(pool.labels), pool.num_classes

    def held_out(told, i):
        rest = sampling.reweight(pool, (fold != i).astype(jnp.float32))
        indices = jnp.nonzero(fold == i, size=-(-n // folds), fill_value=n)[0]
        scores = _scores(jax.random.fold_in(key_networks, i), pool, rest, pair, method, sampler)
        return told.at[indices].set(scores(stages, indices), mode="drop"), None

    told, _ = jax.lax.scan(held_out, jnp.zeros((n, k)), jnp.arange(folds))
    return jax.nn.softmax(told)


def _scores(key, pool, rest, pair, method, sampler):
    """From steps and indices to mean log-probabilities after so many steps on the rest."""
    network, asked = pair
    key_network, key_steps = jax.random.split(key)

    def step(i, descent):
        key_draw, key_step = jax.random.split(jax.random.fold_in(key_steps, i))
        return method.step(key_step, descent, sampler(key_draw, rest))[0]

    def says(descent, indices):
        params = training.merge_params(descent)
        logits = lambda i: networks.outputs(asked, params, sampling.take(pool, i)).logits
        return jax.nn.log_softmax(microbatch.apply(logits, indices, max_images=500))

    def scores(stages, indices):
        first = sampling.take(pool, pool.order[:1])
        descent = method.init(networks.init_params(key_network, network, first))
        total, done = 0.0, 0
        for stage in stages:
            descent, done = jax.lax.fori_loop(done, stage, step, descent), stage
            total = total + says(descent, indices)
        return total / len(stages)

    return scores
