"""Out-of-fold predictions of networks that learn what most samples of a class have in common.

A network that is trained briefly, with a loss that ignores exceptions, separates classes by what
most of their samples have in common: by the bias, if that is learned before the object (Nam et al.,
"Learning from Failure", NeurIPS 2020). Its out-of-fold predictions are input to
`weights.from_probabilities`. `experiments.detectors` compares them with object-blind features.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from jaxdd import augment, networks, sampling, training
from jaxdd.devices import microbatch
from jaxdd.methods import expert_training
from jaxdd.training import debiased
from jaxdd.weights import probes

ADAM = optax.adam(1e-3)


def crossfit(
    key: jax.Array,
    pool: sampling.Pool,
    *,
    network: networks.Network | None = None,
    predictor: networks.Network | None = None,
    folds: int = 2,
    steps: int = 200,
    checkpoints: int = 3,
    batch_size: int = 256,
    q: float = 0.7,
    strategy: augment.Strategy = (),
    optimizer: optax.GradientTransformation = ADAM,
) -> jax.Array:
    """Return out-of-fold probabilities of the classes, `[n, k]`.

    For each fold a network is trained on the other folds. Its log-probabilities are averaged over
    checkpoints, because it is unknown at which step the bias has been learned but not the object.

    Args:
        key: random key of the folds, the networks and their batches.
        pool: the samples, two or more of each class; their weights are not used.
        network: hashable; defaults to a ConvNet of width 32 with batch norm.
        predictor: network that predicts with the trained parameters, such as a part of `network`.
        folds: two or more.
        steps: updates of each network.
        checkpoints: number of states that are averaged, evenly over the steps.
        batch_size: samples per update, the same number of each class.
        q: exponent of `debiased.generalised_cross_entropy`; 0 is the cross-entropy.
        strategy: augmentation. One that changes colours or hides parts also hides a bias.
        optimizer: optimizer of the parameters.
    """
    smallest = int(pool.count.argmin())
    if pool.count[smallest] < 2:
        raise ValueError(f"each class needs two samples, class {smallest} has one")
    if network is None:  # batch norm, since instance norm would remove contrast and brightness
        depth = networks.max_blocks(pool.images.shape)
        network = networks.ConvNet(pool.num_classes, 32, depth, norm=networks.BatchNorm)
    predictor = network if predictor is None else predictor
    for candidate in (network, predictor):
        networks.check_classes(candidate, sampling.take(pool, pool.order[:1]), pool.num_classes)
    truncated_loss = functools.partial(debiased.generalised_cross_entropy, q=q)
    loss = training.cross_entropies if q == 0 else truncated_loss
    method = expert_training.supervised_training(network, optimizer, strategy=strategy, loss=loss)
    per_class = max(1, batch_size // pool.num_classes)
    sampler = functools.partial(sampling.weighted_batch, size=per_class)
    stages = tuple(steps * (i + 1) // checkpoints for i in range(checkpoints))
    return _crossfit(key, pool, (network, predictor), method, sampler, folds, stages)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5, 6))
def _crossfit(key, pool, pair, method, sampler, folds, stages):
    network, predictor = pair
    key_folds, key_networks = jax.random.split(key)
    fold = probes.assign_folds(key_folds, pool.labels, folds=folds)
    n, k = len(pool.labels), pool.num_classes
    first = sampling.take(pool, pool.order[:1])

    def predict(state, indices):
        params = training.merge_params(state)
        logits = lambda i: networks.outputs(predictor, params, sampling.take(pool, i)).logits
        return jax.nn.log_softmax(microbatch.apply(logits, indices, max_images=500))

    def held_out(scores, i):
        # Weight zero excludes the fold without changing shapes, so all folds share one program.
        rest = sampling.reweight(pool, (fold != i).astype(jnp.float32))
        # Folds may differ by one sample; the fill value n is dropped by the update below.
        indices = jnp.nonzero(fold == i, size=-(-n // folds), fill_value=n)[0]
        key_network, key_steps = jax.random.split(jax.random.fold_in(key_networks, i))

        def step(i, state):
            key_draw, key_step = jax.random.split(jax.random.fold_in(key_steps, i))
            return method.step(key_step, state, sampler(key_draw, rest))[0]

        state = method.init(networks.init_params(key_network, network, first))
        total, done = 0.0, 0
        for stage in stages:
            state, done = jax.lax.fori_loop(done, stage, step, state), stage
            total = total + predict(state, indices)
        return scores.at[indices].set(total / len(stages), mode="drop"), None

    scores, _ = jax.lax.scan(held_out, jnp.zeros((n, k)), jnp.arange(folds))
    return jax.nn.softmax(scores)
