"""Every public function of the core under JAX's transformations and debugging settings."""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from jaxdd import augment as augmentation
from jaxdd import evaluate, kde, kernel_sums, matching, methods, networks, sampling, training
from jaxdd import weights as weighting
from jaxdd.devices import microbatch, parallel, split_pool
from jaxdd.methods import cfm, expert_training, formation, spectral, zca
from jaxdd.training import debiased, elf, teachers
from jaxdd.weights import blind_features, candidates, contrastive, feature_weights, formulas, probes

RNG = np.random.default_rng(0)
KEY = jax.random.key(3)
LABELS = np.array([0, 0, 0, 1, 1, 1], np.int32)
ATTRIBUTES = np.array([0, 0, 1, 1, 0, 1], np.int32)
ALIGNED = np.array([0, 1], np.int32)
POINTS = RNG.normal(size=(6, 3)).astype(np.float32)
WEIGHTS = RNG.uniform(0.2, 1, 6).astype(np.float32)
PIXELS = RNG.uniform(0.1, 0.9, (6, 4, 4, 1)).astype(np.float32)
IMAGES = RNG.normal(size=(2, 2, 4, 4, 1)).astype(np.float32)
FLAT = IMAGES.reshape(4, 4, 4, 1)
SET = FLAT, np.array([0, 0, 1, 1], np.int32)
MOMENTS = np.full(1, 0.5, np.float32), np.full(1, 0.25, np.float32)
NETWORK = networks.ConvNet(2, 2, 1, norm=None)
NORMED = networks.ConvNet(2, 2, 1, norm=networks.BatchNorm)
ENCODER = contrastive.Encoder(NETWORK, hidden=2, dimension=2)
PARAMS = jax.jit(NETWORK.init)(KEY, FLAT)
NORMED_PARAMS = jax.jit(NORMED.init)(KEY, FLAT)
OPTIMIZER = optax.sgd(0.1)
STRATEGY = ("flip",)
CLASSES = dict(num_classes=2)
SIZES = dict(num_classes=2, num_attributes=2)


def make_pool(labels=LABELS, num_classes=2):
    statistics = dict(num_classes=num_classes, mean=(0.5,), std=(0.25,))
    return sampling.pool(PIXELS, labels, weights=WEIGHTS, **statistics)


POOL = make_pool()
LARGE_POOL = sampling.pool(
    np.tile(PIXELS[:, :2, :2], (4, 1, 1, 1)),
    np.tile(LABELS, 4),
    **CLASSES,
    mean=(0.5,),
    std=(0.25,),
)
BATCH = sampling.uniform_batch(KEY, POOL, 2)
MIXTURE = sampling.mixture(POOL, [WEIGHTS, WEIGHTS[::-1].copy()])
TASK = evaluate.task(
    np.uint8(255 * PIXELS), LABELS, ATTRIBUTES, ALIGNED, **SIZES, mean=(0.5,), std=(0.25,),
    strategy=STRATEGY,
)  # fmt: skip
SAMPLER = functools.partial(sampling.uniform_batch, size=2)
TRAINING = dict(epochs=1, strategy=())
TEACHER = teachers.Teacher(NORMED_PARAMS, NORMED)
FEATURES = np.abs(RNG.normal(size=(4, 2, 2, 2))).astype(np.float32)
STATISTICS = spectral.statistics(POINTS, LABELS, 2)
QUERIES = kernel_sums.Queries(POINTS, LABELS, np.arange(6), np.full(6, 0.8, np.float32))
EMBED = lambda images: images.reshape(len(images), -1)


class Case(NamedTuple):
    """A call of a public function.

    Attributes:
        call: function of arrays and trees of arrays; a key is the first.
        arguments: its arguments.
        grad: positions of the arguments that it can be differentiated in.
        is_cheap: False for functions that train networks, which are traced only once.
    """

    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    grad: tuple[int, ...] = ()
    is_cheap: bool = True


def trained(call, *arguments):
    return Case(call, arguments, is_cheap=False)


def one_step(method, pool, sampler):
    call = lambda key, images, pool: methods.steps(
        key, method.init(images), pool, 0, method=method, sampler=sampler, length=1
    )
    return trained(call, KEY, IMAGES, pool)


DM = methods.distribution_matching(NETWORK, OPTIMIZER, strategy=STRATEGY)
DC = methods.gradient_matching(NETWORK, OPTIMIZER, outer=2, inner=1, strategy=STRATEGY)
MTT = methods.trajectory_matching(NETWORK, OPTIMIZER, inner=1, strategy=STRATEGY)
CFM = methods.curriculum_matching(NORMED, OPTIMIZER, length=1)
SEGMENT = lambda key, experts: expert_training.segment(key, experts, span=1, starts=2)
EXPERTS = jax.tree.map(lambda x: jnp.stack([jnp.stack([x, 1.1 * x, 1.2 * x])]), PARAMS)
GUIDE = cfm.guide(NORMED, NORMED_PARAMS, POOL)
GUIDE_SAMPLER = cfm.guide_sampler
TRAINER = contrastive.trainer(ENCODER, OPTIMIZER, strategy=STRATEGY)
ENCODED = contrastive.init(KEY, TRAINER, POOL)
WHITENING = zca.Whitening(np.zeros((4, 4, 1), np.float32), np.eye(16, dtype=np.float32) * 2)
MOMENTS = np.full(1, 0.4, np.float32), np.full(1, 0.2, np.float32)
STATE = training.init_state(PARAMS, OPTIMIZER)
SUPERVISED = expert_training.supervised_training(NETWORK, OPTIMIZER, strategy=STRATEGY)

CASES = {
    "kernel_sums.kernel_sums": Case(
        lambda x, w: kernel_sums.kernel_sums(
            QUERIES._replace(position=x), kernel_sums.Points(x, LABELS, np.arange(6), w), tile=4
        ),
        (POINTS, WEIGHTS), (0, 1),
    ),
    "kernel_sums.own_sums": Case(
        lambda x: kernel_sums.own_sums(QUERIES._replace(position=x), tile=4), (POINTS,), (0,)
    ),
    "kde.log_density": Case(
        lambda x, y, h, w: kde.log_density(x, y, h, weights=w),
        (POINTS, POINTS[:4] + 0.1, np.float32(0.8), WEIGHTS[:4]), (0, 1, 2, 3),
    ),
    "kde.class_log_density": Case(
        lambda x, labels, h: kde.class_log_density(x, labels, h, **CLASSES),
        (POINTS, LABELS, np.float32(0.8)), (0, 2),
    ),
    "kde.scott": Case(lambda x, w: kde.scott(x, weights=w), (POINTS, WEIGHTS), (0, 1)),
    "kde.silverman": Case(lambda x, w: kde.silverman(x, weights=w), (POINTS, WEIGHTS), (0, 1)),
    "kde.mean_distance": Case(
        lambda x, w, f: kde.mean_distance(x, weights=w, factor=f),
        (POINTS, WEIGHTS, np.float32(0.3)), (0, 1, 2),
    ),
    "kde.median_distance": Case(
        lambda key, x: kde.median_distance(key, x, pairs=8), (KEY, POINTS), (1,)
    ),
    "kde.class_bandwidth": Case(
        lambda x, labels: kde.class_bandwidth(kde.mean_distance, x, labels, **CLASSES),
        (POINTS, LABELS), (0,),
    ),
    "kde.likelihood": Case(
        lambda x, labels, h: kde.likelihood(x, labels, h, **CLASSES),
        (POINTS, LABELS, np.float32([0.5, 1, 2])), (2,),
    ),
    "matching.distribution": Case(
        matching.distribution,
        (POINTS.reshape(2, 3, 3), POINTS[:4].reshape(2, 2, 3), WEIGHTS.reshape(2, 3)), (0, 1, 2),
    ),
    "matching.barycentre": Case(
        lambda *x: matching.barycentre(*x, groups=3),
        (POINTS.reshape(2, 3, 3), POINTS[:4].reshape(2, 2, 3), WEIGHTS.reshape(2, 3)), (0, 1, 2),
    ),
    "matching.cosine_rows": Case(matching.cosine_rows, (POINTS, POINTS[::-1]), (0, 1)),
    "matching.squared": Case(matching.squared, (POINTS, POINTS[::-1]), (0, 1)),
    "matching.cosine": Case(matching.cosine, (POINTS, POINTS[::-1]), (0, 1)),
    "matching.trajectory": Case(matching.trajectory, (POINTS, POINTS + 1, POINTS[::-1]), (0, 1, 2)),
    "augment.draw": Case(lambda key: augmentation.draw(key, (4, 4, 1)), (KEY,)),
    "augment.apply": Case(
        lambda key, image: augmentation.apply(augmentation.draw(key, (4, 4, 1)), image),
        (KEY, FLAT[0]), (1,),
    ),
    "augment.siamese": Case(
        lambda key, a, b: augmentation.siamese(key, a, b), (KEY, FLAT, FLAT[:1] + 1), (1, 2)
    ),
    "augment.per_image": Case(augmentation.per_image, (KEY, FLAT), (1,)),
    "augment.resized_crop": Case(augmentation.resized_crop, (KEY, FLAT[0]), (1,)),
    "sampling.pool": Case(
        lambda images, labels, weights: sampling.pool(
            images, labels, weights=weights, **CLASSES, mean=(0.5,), std=(0.25,)
        ),
        (PIXELS, LABELS, WEIGHTS), (0, 2),
    ),
    "sampling.reweight": Case(
        lambda weights: sampling.reweight(POOL, weights), (WEIGHTS,), (0,)
    ),
    "sampling.normalise": Case(sampling.normalise, (PIXELS, *MOMENTS), (0, 1, 2)),
    "sampling.take": Case(
        lambda images, i: sampling.take(POOL._replace(images=images), i),
        (PIXELS, np.array([[3, 1]])), (0,),
    ),
    "sampling.flatten": Case(sampling.flatten, (IMAGES,), (0,)),
    "sampling.without_replacement": Case(
        lambda key, w: sampling.without_replacement(
            key, POOL._replace(weights=w), 2, weighted=True
        ),
        (KEY, WEIGHTS),
    ),
    "sampling.with_replacement": Case(
        lambda key, pool: sampling.with_replacement(key, pool, 2), (KEY, POOL)
    ),
    "sampling.uniform_batch": Case(
        lambda key, images, w: sampling.uniform_batch(
            key, POOL._replace(images=images, weights=w), 2
        ),
        (KEY, PIXELS, WEIGHTS), (1, 2),
    ),
    "sampling.weighted_batch": Case(
        lambda key, images: sampling.weighted_batch(key, POOL._replace(images=images), 2),
        (KEY, PIXELS), (1,),
    ),
    "sampling.density_weighted": Case(
        lambda key, images, h: sampling.density_weighted(SAMPLER, EMBED, bandwidth=h)(
            key, POOL._replace(images=images)
        ),
        (KEY, PIXELS, np.float32(2)), (1, 2),
    ),
    "sampling.representative": Case(
        lambda key, images: sampling.representative(SAMPLER, EMBED, size=1, iterations=2)(
            key, POOL._replace(images=images)
        ),
        (KEY, PIXELS), (1,),
    ),
    "sampling.grouped": Case(
        lambda key, images: sampling.grouped(SAMPLER, groups=2)(
            key, make_pool(2 * LABELS + ATTRIBUTES, 4)._replace(images=images)
        ),
        (KEY, PIXELS), (1,),
    ),
    "sampling.mixture": Case(
        lambda w, v: sampling.mixture(POOL, [w, v]).weights, (WEIGHTS, WEIGHTS[::-1].copy()), (0, 1)
    ),
    "sampling.mixture_batch": Case(
        lambda key, images: sampling.mixture_batch(
            key, MIXTURE._replace(pool=MIXTURE.pool._replace(images=images)), 2
        ),
        (KEY, PIXELS), (1,),
    ),
    "sampling.initial_noise": Case(
        lambda key: sampling.initial_noise(key, POOL, ipc=2), (KEY,)
    ),
    "sampling.initial_real": Case(
        lambda key, images: sampling.initial_real(key, POOL._replace(images=images), ipc=2),
        (KEY, PIXELS), (1,),
    ),
    "evaluate.task": Case(
        lambda images: evaluate.task(images, LABELS, **CLASSES, mean=(0.5,), std=(0.25,)),
        (np.uint8(255 * PIXELS),),
    ),
    "evaluate.predict": Case(
        lambda params, images: evaluate.predict(
            NETWORK, params, images, mean=MOMENTS[0], std=MOMENTS[1]
        ),
        (PARAMS, PIXELS),
    ),
    "evaluate.score": Case(
        lambda predictions, labels, attributes: evaluate.score(
            predictions, labels, attributes, ALIGNED, **SIZES
        ),
        (LABELS[::-1], LABELS, ATTRIBUTES),
    ),
    "evaluate.evaluate": trained(
        lambda key, images: evaluate.evaluate(key[None], NETWORK, images, TASK, epochs=1),
        KEY, IMAGES,
    ),
    "convolution.conv2d": Case(
        lambda x, k: networks.conv2d(x, k, (1, 1)),
        (FLAT, RNG.normal(size=(3, 3, 1, 2)).astype(np.float32)), (0, 1),
    ),
    "layers.average_pool": Case(networks.average_pool, (FLAT,), (0,)),
    "layers.max_pool": Case(networks.max_pool, (FLAT,), (0,)),
    "protocol.outputs": Case(
        lambda params, x: networks.outputs(NETWORK, params, x), (PARAMS, FLAT), (0, 1)
    ),
    "protocol.apply_in_training": Case(
        lambda params, x: networks.apply_in_training(NORMED, params, x), (NORMED_PARAMS, FLAT),
        (0, 1),
    ),
    "layers.trace_convolutions": Case(
        lambda params, x: networks.trace_convolutions(NETWORK, params, x), (PARAMS, FLAT), (0, 1)
    ),
    "protocol.init_params": Case(
        lambda key, x: networks.init_params(key, NETWORK, x), (KEY, FLAT)
    ),
    "protocol.split_batch_stats": Case(networks.split_batch_stats, (NORMED_PARAMS,), (0,)),
    "microbatch.apply": Case(
        lambda x: microbatch.apply(jnp.sin, x, max_images=4), (POINTS,), (0,)
    ),
    "microbatch.total": Case(
        lambda x, w: microbatch.total(lambda x, w: (w[:, None] * x).sum(0), x, w),
        (POINTS, WEIGHTS), (0, 1),
    ),
    "parallel.pad_rows": Case(lambda x: parallel.pad_rows(x, 4), (POINTS,), (0,)),
    "parallel.pad_rows_with_zeros": Case(
        lambda x: parallel.pad_rows_with_zeros(x, 4), (POINTS,), (0,)
    ),
    "parallel.to_local": Case(parallel.to_local, (POINTS,), (0,)),
    "parallel.apply_by_rows": Case(
        lambda x: parallel.apply_by_rows(jnp.sin, x), (POINTS,), (0,)
    ),
    "parallel.thread_rows": Case(
        lambda x: parallel.thread_rows(jnp.sin)(x), (POINTS,), (0,)
    ),
    "fitting.weighted_mean": Case(training.weighted_mean, (WEIGHTS, WEIGHTS[::-1]), (0, 1)),
    "fitting.cross_entropy": Case(
        lambda params, x, w: training.cross_entropy(NETWORK, params, x, SET[1], w),
        (PARAMS, FLAT, WEIGHTS[:4]), (0, 1, 2),
    ),
    "fitting.gradient": Case(
        lambda params, x, w: training.gradient(NETWORK, params, x, SET[1], w),
        (PARAMS, FLAT, WEIGHTS[:4]), (0, 1, 2),
    ),
    "fitting.train": trained(
        lambda key, x, y: training.train(key, NETWORK, x, y, **TRAINING), KEY, *SET
    ),
    "fitting.fit": trained(
        lambda key, p, x, y: training.fit(key, NETWORK, p, x, y, optimizer=OPTIMIZER, **TRAINING),
        KEY, PARAMS, *SET,
    ),
    "fitting.train_with_loss": trained(
        lambda key, x, y: training.train_with_loss(
            key, NETWORK, x,
            lambda params, key, i: (
                training.cross_entropies(
                    networks.outputs(NETWORK, params, jnp.asarray(x)[i]).logits, jnp.asarray(y)[i]
                ),
                params,
            ),
            epochs=1,
        ),
        KEY, *SET,
    ),
    "fitting.update_state": trained(
        lambda state, x: training.update_state(
            state,
            lambda p: (training.cross_entropy(NETWORK, p, x, SET[1], jnp.ones(4)), p),
            OPTIMIZER,
        ),
        STATE, FLAT,
    ),
    "fitting.init_state": Case(lambda p: training.init_state(p, OPTIMIZER), (PARAMS,), (0,)),
    "fitting.merge_params": Case(training.merge_params, (STATE,)),
    "fitting.run_epochs": Case(
        lambda key, x: training.run_epochs(
            key,
            lambda carry, key, i, present: carry
            + (jnp.asarray(x)[i, 0] * present.astype(x.dtype)).sum(),
            x[0, 0],
            num_samples=6, epochs=2, batch_size=4,
        ),
        (KEY, POINTS), (1,),
    ),
    "fitting.check_labelled": Case(training.check_labelled, SET, (0,)),
    "debiased.generalised_cross_entropy": Case(
        lambda x: debiased.generalised_cross_entropy(x, LABELS), (POINTS,), (0,)
    ),
    "debiased.learning_from_failure": trained(
        lambda key, x, y: debiased.learning_from_failure(key, NETWORK, x, y, **TRAINING), KEY, *SET
    ),
    "debiased.selective_mixup": trained(
        lambda key, x, y: debiased.selective_mixup(key, NETWORK, x, y, **TRAINING), KEY, *SET
    ),
    "elf.teacher_features": Case(
        lambda x: elf.teacher_features(TEACHER, x), (FLAT,), (0,)
    ),
    "elf.train": trained(
        lambda key, x, y, f: elf.train(key, NORMED, x, y, features=f, **TRAINING),
        KEY, *SET, FEATURES,
    ),
    "teachers.train_teacher": trained(
        lambda key, pool: teachers.train_teacher(
            key, NORMED, pool, sampler=SAMPLER, steps=1
        ).params,
        KEY, POOL,
    ),
    "teachers.batch_update": trained(
        lambda key, state, batch: teachers.batch_update(NETWORK, OPTIMIZER, STRATEGY)(
            key, state, batch
        ),
        KEY, STATE, BATCH,
    ),
    "teachers.train_on_logits": trained(
        lambda key, x, y: teachers.train_on_logits(
            key, NETWORK, x, y, teacher=TEACHER, **TRAINING
        ),
        KEY, *SET,
    ),
    "teachers.train_on_soft_labels": trained(
        lambda key, x, y: teachers.train_on_soft_labels(
            key, NETWORK, x, y, teacher=TEACHER, **TRAINING
        ),
        KEY, *SET,
    ),
    "blind_features.compute": Case(
        lambda x: blind_features.compute(x, blind_features.border), (PIXELS,)
    ),
    "blind_features.tone": Case(blind_features.tone, (PIXELS,)),
    "blind_features.border": Case(blind_features.border, (PIXELS,)),
    "blind_features.noise": Case(blind_features.noise, (PIXELS,), (0,)),
    "blind_features.blocks": Case(blind_features.blocks, (PIXELS,), (0,)),
    "blind_features.texture": Case(blind_features.texture, (PIXELS,)),
    "blind_features.layout": Case(blind_features.layout, (np.tile(PIXELS, (1, 2, 2, 1)),)),
    "blind_features.patches": Case(
        lambda key, x: blind_features.patches(key, x, count=2, side=2)(x), (KEY, PIXELS)
    ),
    "blind_features.translation_invariant": trained(
        lambda key, x: blind_features.translation_invariant(key, x, count=2, side=2)(x),
        KEY, PIXELS,
    ),
    "blind_features.toneless": trained(
        lambda key, x: blind_features.toneless(key, x, count=2, side=2)(x), KEY, PIXELS
    ),
    "choice.pseudo_groups": Case(
        lambda x: weighting.pseudo_groups(x, LABELS, **CLASSES), (POINTS,)
    ),
    "contrastive.supervised_contrastive": Case(
        lambda x: contrastive.supervised_contrastive(x, LABELS),
        (POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True),), (0,),
    ),
    "contrastive.init": trained(lambda key, pool: contrastive.init(key, TRAINER, pool), KEY, POOL),
    "contrastive.update": trained(
        lambda key, pool, state: contrastive.update(key, TRAINER, pool, state, 0, batch_size=4),
        KEY, POOL, ENCODED,
    ),
    "contrastive.embed": Case(
        lambda params, pool: contrastive.embed(ENCODER, params, pool), (ENCODED.params, POOL)
    ),
    "density_weights.encode": trained(
        lambda key, pool: weighting.encode(key, pool, strategy=(), encoder=ENCODER, steps=1),
        KEY, POOL,
    ),
    "density_weights.density": Case(
        lambda x, h: weighting.density(x, POOL, bandwidth=h), (POINTS, np.float32(0.8)), (0, 1)
    ),
    "density_weights.from_density": Case(
        lambda x, t, limit: weighting.from_density(x, POOL, temperature=t, clip=limit),
        (3 * WEIGHTS, np.float32(0.7), np.float32(1.4)), (0, 1),
    ),
    "density_weights.by_density": trained(
        lambda key, pool: weighting.by_density(key, pool, strategy=(), encoder=ENCODER, steps=1),
        KEY, POOL,
    ),
    "density_weights.density_candidates": trained(
        lambda key, pool: [
            x.weights
            for _, x in weighting.density_candidates(
                key, pool, strategy=(),
                search=weighting.Search((1,), (0.2,), (1.0,), encoder=ENCODER),
            )
        ],
        KEY, POOL,
    ),
    "density_weights.oracle": Case(
        lambda attributes: weighting.oracle(POOL, attributes, num_attributes=2), (ATTRIBUTES,)
    ),
    "feature_weights.by_features": trained(
        lambda key, pool: weighting.by_features(key, pool, blind_features.border), KEY, POOL
    ),
    "feature_weights.by_values": trained(
        lambda key, pool, x: feature_weights.by_values(key, pool, x), KEY, POOL, POINTS
    ),
    "feature_weights.predict_groups": trained(
        lambda key, x: feature_weights.predict_groups(key, x, LABELS, num_groups=2), KEY, POINTS
    ),
    "feature_weights.posterior": Case(
        lambda p: feature_weights.posterior(jnp.stack([p, 1 - p], 1), LABELS), (WEIGHTS,), (0,)
    ),
    "feature_weights.conflict_score": Case(
        lambda p: feature_weights.conflict_score(jnp.stack([p, 1 - p], 1), LABELS), (WEIGHTS,), (0,)
    ),
    "candidates.folds_key": Case(candidates.folds_key, (KEY,)),
    "candidates.feature_values": Case(
        lambda pool: candidates.feature_values(KEY, pool, ["tone"], strategy=()), (POOL,)
    ),
    "candidates.feature_probabilities": trained(
        lambda key, pool: candidates.feature_probabilities(key, pool, ["tone"], strategy=()),
        KEY, POOL,
    ),
    "feature_weights.from_probabilities": Case(
        lambda p, limit: weighting.from_probabilities(jnp.stack([p, 1 - p], 1), POOL, clip=limit),
        (WEIGHTS * 0.9, np.float32(1.5)), (0,),
    ),
    "feature_weights.by_feature_sets": Case(
        lambda p: weighting.by_feature_sets(
            POOL,
            2 * [feature_weights.FeatureWeights(WEIGHTS, jnp.stack([p, 1 - p], 1), LABELS)],
        ),
        (WEIGHTS * 0.9,), (0,),
    ),
    "formulas.uniform": Case(lambda labels: formulas.uniform(labels, **CLASSES), (LABELS,)),
    "formulas.inverse_density": Case(
        lambda x, t: formulas.inverse_density(x, LABELS, temperature=t, **CLASSES),
        (WEIGHTS, np.float32(0.7)), (0, 1),
    ),
    "formulas.clip": Case(
        lambda w, limit: formulas.clip(w, LABELS, limit=limit, **CLASSES),
        (WEIGHTS, np.float32(1.2)), (0, 1),
    ),
    "formulas.oracle": Case(
        lambda a: formulas.oracle(LABELS, a, **SIZES), (ATTRIBUTES,)
    ),
    "formulas.balance_groups": Case(
        lambda m: formulas.balance_groups(LABELS, m, **CLASSES), (3 * PIXELS[:, :2, 0, 0],), (0,)
    ),
    "formulas.effective_sample_size": Case(
        lambda w: formulas.effective_sample_size(w, LABELS, **CLASSES), (WEIGHTS,), (0,)
    ),
    "formulas.group_evenness": Case(
        lambda w: formulas.group_evenness(w, LABELS, ATTRIBUTES, **SIZES), (WEIGHTS,), (0,)
    ),
    "formulas.diagnose": Case(
        lambda w: formulas.diagnose(w, LABELS, ATTRIBUTES, ALIGNED, **SIZES), (WEIGHTS,), (0,)
    ),
    "probes.crossfit": trained(
        lambda key, x: probes.crossfit(key, x, LABELS, **CLASSES, folds=2, steps=2), KEY, POINTS
    ),
    "probes.assign_folds": Case(lambda key: probes.assign_folds(key, LABELS, folds=2), (KEY,)),
    "cfm.guide": trained(lambda pool: cfm.guide(NORMED, NORMED_PARAMS, pool), POOL),
    "cfm.curriculum": Case(lambda beta: cfm.curriculum(beta, 3), (np.float32(0.1),), (0,)),
    "distribution.distribution_matching": one_step(DM, POOL, SAMPLER),
    "distribution.mean_features": trained(
        methods.mean_features(NETWORK, strategy=STRATEGY),
        KEY,
        sampling.mixture_batch(KEY, MIXTURE, 2),
    ),
    "gradient.gradient_matching": one_step(DC, POOL, SAMPLER),
    "trajectory.trajectory_matching": one_step(MTT, EXPERTS, SEGMENT),
    "cfm.curriculum_matching": one_step(CFM, GUIDE, GUIDE_SAMPLER),
    "expert_training.train": trained(
        lambda key, pool: expert_training.train(
            key, NETWORK, pool, sampler=SAMPLER, epochs=1, updates=1, strategy=()
        ),
        KEY, POOL,
    ),
    "expert_training.segment": Case(SEGMENT, (KEY, EXPERTS), (1,)),
    "expert_training.supervised_training": trained(
        SUPERVISED.step, KEY, SUPERVISED.init(PARAMS), BATCH
    ),
    "formation.split": Case(lambda x: formation.split(x, factor=2), (IMAGES,), (0,)),
    "formation.join": Case(
        lambda x: formation.join(x, factor=2), (IMAGES.reshape(1, 4, 4, 4, 1),), (0,)
    ),
    "fitting.apply_gradients": Case(
        lambda g, v: training.apply_gradients(OPTIMIZER, g, OPTIMIZER.init(v), v),
        (POINTS, POINTS), (0, 1),
    ),
    "spectral.statistics": Case(
        lambda x, w: spectral.statistics(x, LABELS, 2, w, size=4), (POINTS, WEIGHTS), (0, 1)
    ),
    "spectral.merge": Case(spectral.merge, (STATISTICS, STATISTICS), (0, 1)),
    "spectral.shift": Case(spectral.shift, (STATISTICS, POINTS[0]), (0, 1)),
    "spectral.covariance": Case(spectral.covariance, (STATISTICS,), (0,)),
    "spectral.losses": Case(
        lambda x, beta: spectral.losses(
            STATISTICS, spectral.statistics(x, LABELS, 2), spectral.ridge(beta)
        ),
        (POINTS + 1, np.float32(0.1)), (0, 1),
    ),
    "spectral.profile": Case(
        lambda x: spectral.profile(STATISTICS, spectral.statistics(x, LABELS, 2)), (POINTS,)
    ),
    "zca.fit": Case(
        lambda pool: zca.fit(pool, weighted=True),
        (LARGE_POOL,),
    ),
    "zca.whiten": Case(zca.whiten, (IMAGES, WHITENING, *MOMENTS), (0,)),
    "zca.unwhiten": Case(zca.unwhiten, (IMAGES, WHITENING, *MOMENTS), (0,)),
    "zca.whiten_pool": Case(
        lambda images: zca.whiten_pool(POOL._replace(images=images), WHITENING), (PIXELS,), (0,)
    ),
    "zca.whiten_task": Case(
        lambda images: zca.whiten_task(TASK, WHITENING).images, (PIXELS,)
    ),
}  # fmt: skip

STATIC = {
    *("augment.identity", "augment.as_strategy", "layers.no_pool", "models.check_module"),
    *("models.classify", "models.max_blocks", "protocol.count_parts", "protocol.check_classes"),
    *("protocol.count_classes", "protocol.identity", "protocol.check_images", "elf.split_point"),
    *("elf.front_shape", "elf.extra_bytes", "fitting.sgd", "fitting.num_updates"),
    *("teachers.num_bytes", "contrastive.trainer", "density_weights.default_encoder"),
    "microbatch.bytes_per_row",
    *("probe_networks.rejection", "probe_networks.required_gain"),
    *("feature_weights.is_shortcut", "formulas.check_limit"),
    "candidates.check_embeddings",
    *("cfm.guide_sampler", "spectral.identity", "spectral.linear", "spectral.ridge"),
    *("loop.steps", "loop.chunk", "loop.batch", "zca.check_size"),
    *("parallel.mesh", "parallel.cpu_mesh", "parallel.is_one_cpu", "parallel.replicate"),
    *("parallel.split_rows", "parallel.mesh_of", "parallel.split_sampler"),
    *("parallel.split_network", "parallel.replicate_state", "parallel.constrain_replicated"),
    *("parallel.map_rows", "parallel.sum_rows", "parallel.with_settings"),
    *("parallel.call_all", "parallel.one_at_a_time"),
}
"""Functions of sizes, shapes and functions, or that place arrays on devices."""

ON_HOST = {
    "loop.run": lambda key, x: next(
        methods.run(key, DM.init(x), POOL, method=DM, sampler=SAMPLER, steps=1)
    ),
    "choice.choose": lambda key, x: weighting.choose(key, POOL, strategy=()),
    "probe_networks.check_with_probe_networks": lambda key, x: weighting.check_with_probe_networks(
        key, POOL, LABELS, strategy=()
    ),
    "candidates.by_candidate": lambda key, x: weighting.by_candidate(
        key, POOL, "tone", strategy=()
    ),
    "candidates.from_features": lambda key, x: candidates.from_features(
        key, POOL, POINTS, name="mine"
    ),
    "candidates.from_density": lambda key, x: candidates.from_density(x, LABELS, POOL),
    "candidates.find_blocks": lambda key, x: candidates.find_blocks(x, LABELS),
    "label_weights.to_label": lambda key, x: weighting.to_label(key, [], LABELS, count=1),
    "label_weights.from_labels": lambda key, x: weighting.from_labels(
        key, POOL, LABELS[:2], LABELS[:2], strategy=()
    ),
    "probes.partitions": lambda key, x: probes.partitions(x, LABELS),
    "evaluate.summary": lambda key, x: evaluate.summary(evaluate.Scores(*[x] * 8)),
    "feature_weights.shortcuts": lambda key, x: weighting.shortcuts(key, POOL),
    "probes.shortcut": lambda key, x: probes.shortcut(x[0], x[0], LABELS),
    "spectral.bands": lambda key, x: spectral.bands(spectral.Profile(*[x] * 4)),
    "split_pool.pool": lambda key, x: split_pool.pool(
        x, LABELS, **CLASSES, mean=(0.5,), std=(0.25,), mesh=parallel.mesh()
    ),
}
"""Functions that compute on the host and cannot be transformed."""

EXECUTED = (
    *("kernel_sums.own_sums", "kde.class_log_density", "convolution.conv2d"),
    *("microbatch.total", "density_weights.density", "formulas.clip", "sampling.weighted_batch"),
)
"""Functions with derivatives, control flow or micro-batches of their own, which are also run."""


def is_floating(x):
    return jnp.issubdtype(x.dtype, jnp.floating)


def is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def cast(arguments, dtype):
    """Return the arguments with floating arrays of another dtype."""
    return jax.tree.map(lambda x: np.asarray(x).astype(dtype) if is_floating(x) else x, arguments)


def pair(arguments):
    """Return two different calls as arrays with one more axis."""

    def change(x):
        if is_key(x):
            return jnp.stack([jax.random.fold_in(x, i) for i in range(2)])
        return jnp.stack([x, 0.9 * x]) if is_floating(x) else jnp.stack([x, x])

    return jax.tree.map(lambda x: change(jnp.asarray(x)), arguments)


def total(case, *arguments):
    """Return a sum of the results, weighted differently."""
    wave = lambda x: jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
    leaves = jax.tree.leaves(case.call(*arguments))
    return sum(jnp.sum(x * wave(x)) for x in leaves if is_floating(x))


def gradient(case, *arguments):
    return jax.grad(jax.checkpoint(functools.partial(total, case)), case.grad)(*arguments)


def test_every_public_function_has_a_case():
    core = "kernel_sums kde matching augment sampling evaluate networks devices training weights"
    modules = [f"jaxdd.{name}" for name in [*core.split(), "methods"]]
    for name in list(modules):
        folder = getattr(importlib.import_module(name), "__path__", ())
        modules += [module.name for module in pkgutil.iter_modules(folder, f"{name}.")]
    public = {
        f"{name.rsplit('.', 1)[1]}.{label}"
        for name in modules
        for label, value in vars(importlib.import_module(name)).items()
        if label[0] != "_" and inspect.isroutine(value) and value.__module__ == name
    }
    assert public <= CASES.keys() | STATIC | ON_HOST.keys()
    assert (STATIC | CASES.keys() | ON_HOST.keys()) - {"loop.chunk"} <= public


@pytest.mark.parametrize("name", CASES)
def test_strict_settings_and_gradients(name):
    """Ranks and dtypes are never promoted implicitly; a checkpoint has a gradient."""
    case = CASES[name]
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        jax.eval_shape(case.call, *case.arguments)
    if case.grad:
        jax.eval_shape(functools.partial(gradient, case), *case.arguments)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.is_cheap])
def test_batches_precisions_raw_keys_and_devices(name, mesh):
    """A batch in float64 with raw keys, float16, and a different call in bfloat16 per device."""
    case = CASES[name]
    raw = lambda x: jax.random.key_data(x) if is_key(x) else x
    with jax.enable_x64(True):
        wide = jax.tree.map(raw, cast(case.arguments, np.float64))
        jax.eval_shape(jax.vmap(case.call), *jax.tree.map(lambda x: np.stack([x, x]), wide))
    jax.eval_shape(case.call, *cast(case.arguments, np.float16))
    calls = jax.tree.map(
        lambda x: jnp.stack([jnp.asarray(x)] * 4), cast(case.arguments, jnp.bfloat16)
    )

    def on_device(*calls):
        result = case.call(*jax.tree.map(lambda x: x[0], calls))
        return jax.tree.map(lambda x: jnp.asarray(x)[None], result)

    split = PartitionSpec(parallel.AXIS)
    jax.eval_shape(jax.shard_map(on_device, mesh=mesh, in_specs=split, out_specs=split), *calls)


@pytest.mark.parametrize("name", EXECUTED)
def test_jit_vmap_and_gradient_are_those_of_single_calls(name):
    """With checks of nan, infinity, transfers and key reuse; the slope by central differences."""
    case = CASES[name]
    two = pair(case.arguments)
    calls = [jax.tree.map(lambda x, i=i: x[i], two) for i in range(2)]
    expected = [case.call(*call) for call in calls]
    both = jax.jit(lambda first, two: (case.call(*first), jax.vmap(case.call)(*two)))
    with (
        jax.debug_nans(True), jax.debug_infs(True), jax.transfer_guard("disallow"),
        jax.debug_key_reuse(True),
    ):  # fmt: skip
        one, batch = both(calls[0], two)
    chex.assert_trees_all_close(one, expected[0], rtol=1e-4, atol=1e-6)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *expected)
    chex.assert_trees_all_close(batch, stacked, rtol=1e-4, atol=1e-6)
    with jax.enable_x64(True):
        wide = list(cast(case.arguments, np.float64))
        wave = lambda x: np.cos(np.arange(np.size(x))).reshape(np.shape(x))
        step = [jax.tree.map(wave, wide[i]) for i in case.grad]

        def moved(t):
            new = list(wide)
            for i, direction in zip(case.grad, step, strict=True):
                new[i] = jax.tree.map(lambda x, d: x + t * d, wide[i], direction)
            return new

        # Some functions compute in float32 whatever their arguments are.
        value = jax.jit(functools.partial(total, case))
        slope = (value(*moved(1e-3)) - value(*moved(-1e-3))) / 2e-3
        gradients = jax.jit(functools.partial(gradient, case))(*wide)
        along = jax.tree.map(np.vdot, list(gradients), step)
        np.testing.assert_allclose(sum(jax.tree.leaves(along)), slope, rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize("name", ON_HOST)
def test_functions_on_the_host_say_so(name):
    function = name.split(".")[1]
    with pytest.raises(TypeError, match=rf"{function} .*traced"):
        jax.eval_shape(ON_HOST[name], KEY, IMAGES)


def test_disabled_jit():
    for name in ("formulas.inverse_density", "matching.cosine_rows"):
        case = CASES[name]
        with jax.disable_jit():
            result = case.call(*case.arguments)
        chex.assert_trees_all_close(result, jax.jit(case.call)(*case.arguments), rtol=1e-5)


def test_distillation_under_every_debugging_setting_gives_the_same_set():
    """Density weights, and two steps of distribution matching."""
    images = DM.init(sampling.initial_real(KEY, POOL, ipc=1))

    def distil():
        result = weighting.by_density(
            jax.random.key(0), POOL, strategy=(), encoder=ENCODER, steps=2
        )
        pool = sampling.reweight(POOL, result.weights)
        arguments = dict(method=DM, sampler=SAMPLER, steps=2, chunk_length=2)
        ((_, state, _),) = methods.run(jax.random.key(1), images, pool, **arguments)
        return result.weights, state.images

    plain = distil()
    with (
        jax.debug_nans(True), jax.debug_infs(True), jax.debug_key_reuse(True),
        jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"),
    ):  # fmt: skip
        checked = distil()
    chex.assert_trees_all_equal(checked, plain)
