"""Anchors: patches of real images that a teacher is surest of, laid side by side.

RDED (Sun, Shi, Yu and Lin, "On the Diversity and Realism of Distilled Dataset", CVPR 2024) makes a
set without descending anything: of each of some hundred images of a class it keeps the random crop
that a teacher tells best, and factor² of the surest of these crops, shrunk, make an image. It needs
one class in memory at a time, which is why it is what people run on a thousand classes.

A teacher of biased data is surest of what has the bias. Candidates can be drawn by the weights of
the pool, and `stratified` has each place taken by the surest of its own few candidates instead of
the surest of all, which keeps more of what was drawn.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdd import _checks, networks, sampling, training
from jaxdd.methods import formation
from jaxdd.training import teachers

_BATCH = 64  # candidates at a time


class Anchors(NamedTuple):
    """A set, and what it was made of.

    Attributes:
        images: `[k, ipc, h, w, c]`, normalised.
        sources: the sample of the pool that each piece comes from, `[k, ipc, factor²]`.
        losses: the teacher's cross-entropy on each piece, `[k, ipc, factor²]`.
    """

    images: jax.Array
    sources: jax.Array
    losses: jax.Array


def select(
    key: jax.Array,
    pool: sampling.Pool,
    teacher: teachers.Teacher,
    *,
    ipc: int,
    factor: int = 2,
    candidates: int = 300,
    crops: int = 5,
    least: float = 0.08,
    weighted: bool = True,
    stratified: bool = False,
) -> Anchors:
    """Makes a set of the patches that a teacher is surest of, class by class.

    Args:
        key: candidates and crops.
        pool: the real images.
        teacher: of the pool's classes; it sees a patch in the size that it will have, amid zeros.
        ipc: images of each class.
        factor: patches along each side of an image; 1 takes whole crops.
        candidates: images of each class that are looked at. Of a class with fewer all are, and none
            is taken twice as long as there are others.
        crops: of each candidate, the surest of which stands for it.
        least: smallest share of an image's area that a crop has, in (0, 1].
        weighted: draw candidates by the pool's weights, instead of all alike.
        stratified: see the module.

    Raises:
        ValueError: a number below 1, fewer candidates than patches, a share outside of (0, 1], a
            factor beyond the sides, or a teacher of other classes.
    """
    ipc, crops = _checks.count("ipc", ipc), _checks.count("crops", crops)
    height, width = pool.images.shape[1:3]
    if not 1 <= factor <= min(height, width):
        raise ValueError(f"factor must lie in 1..{min(height, width)}, found {factor}")
    places = ipc * factor**2
    if candidates < places:
        raise ValueError(
            f"candidates must be at least the {places} patches of a class, found {candidates}"
        )
    if not 0 < least <= 1:
        raise ValueError(f"least must lie in (0, 1], found {least}")
    first = sampling.take(pool, jnp.zeros(1, int))
    networks.check_classes(teacher.network, first, pool.num_classes)
    key_draw, key_crop = jax.random.split(key)
    drawn = sampling.without_replacement(key_draw, pool, candidates, weighted=weighted)
    size = height // factor, width // factor

    def of_class(label):
        keys = jax.random.split(jax.random.fold_in(key_crop, label), candidates)
        look = lambda key, index: _surest(key, index, label, pool, teacher, crops, least, size)
        found = jax.lax.map(lambda each: look(*each), (keys, drawn[label]), batch_size=_BATCH)
        chosen = _chosen(found[1], drawn[label], places, stratified)
        chosen = chosen.reshape(factor**2, ipc).T.ravel()  # sure and less sure ones in each image
        patches, losses, sources = (x[chosen] for x in (*found, drawn[label]))
        images = formation.join(patches, factor=factor, size=(height, width))
        per_image = lambda x: x.reshape(ipc, factor**2)
        return Anchors(images, per_image(sources), per_image(losses))

    return jax.lax.map(of_class, jnp.arange(pool.num_classes))


def _surest(key, index, label, pool, teacher, crops, least, size):
    """The crop of a sample that the teacher tells best, and its loss."""
    image = sampling.take(pool, index)
    patches = jax.vmap(lambda key: _crop(key, image, least, size))(jax.random.split(key, crops))
    logits = networks.outputs(teacher.network, teacher.params, _amid_zeros(patches, image)).logits
    losses = training.cross_entropies(logits, jnp.full(crops, label))
    return patches[losses.argmin()], losses.min()


def _crop(key, image, least, size):
    """A random part with the shape of the image, resized."""
    area, *place = jax.random.uniform(key, (3,))
    side = jnp.sqrt(least + (1 - least) * area)
    whole = jnp.array(image.shape[:2])
    scale = jnp.array(size) / (side * whole)
    shift = -jnp.stack(place) * (1 - side) * whole * scale
    shape = (*size, image.shape[2])
    return jax.image.scale_and_translate(image, shape, (0, 1), scale, shift, "linear")


def _amid_zeros(patches, image):
    spare = [whole - part for whole, part in zip(image.shape, patches.shape[1:], strict=True)]
    return jnp.pad(patches, ((0, 0), *((n // 2, n - n // 2) for n in spare)))


def _chosen(losses, drawn, places, stratified):
    """Which candidates are taken, the surest first; those drawn again, for want of others, last."""
    again = (drawn[:, None] == drawn) & (jnp.arange(len(drawn)) < jnp.arange(len(drawn))[:, None])
    rounds = again.sum(1)
    if not stratified:
        return jnp.lexsort((losses, rounds))[:places]
    each = len(drawn) // places
    order = jnp.lexsort((losses[: each * places], rounds[: each * places]))
    by_place = order[jnp.argsort(order % places, stable=True)].reshape(places, each)
    return by_place[jnp.argsort(losses[by_place[:, 0]]), 0]
