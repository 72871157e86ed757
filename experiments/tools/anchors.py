"""Anchors: patches of real images that a teacher classifies best, side by side.

RDED (Sun, Shi, Yu and Lin, "On the Diversity and Realism of Distilled Dataset", CVPR 2024) makes a
set without gradient descent. For each of some hundred images of a class, it keeps the random crop
with the smallest loss of a teacher. The best of these crops become the images, or patches of images
that hold factor² each. Only one class is in memory at a time, so the method scales to a thousand
classes.

A teacher of biased data is most confident on biased images. Candidates can be drawn by the weights
of the pool. With `stratified`, each place takes the best of a few candidates of its own instead of
the best of all, which keeps the chosen images closer to the weights.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdd import networks, sampling, training
from jaxdd.methods import formation
from jaxdd.training import teachers

_BATCH = 64  # candidates at a time


class Anchors(NamedTuple):
    """A set and its sources.

    Attributes:
        images: `[k, ipc, h, w, c]`, normalised.
        sources: the sample of the pool of each piece, `[k, ipc, factor²]`.
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
    factor: int = 1,
    candidates: int = 300,
    crops: int = 5,
    least: float = 0.08,
    weighted: bool = True,
    stratified: bool = False,
) -> Anchors:
    """Return the set of the patches with the smallest losses, class by class.

    Args:
        key: random key of candidates and crops.
        pool: the real images.
        teacher: teacher of the pool's classes; it gets a patch in its final size, padded with
            zeros.
        ipc: images of each class.
        factor: patches along each side of an image; 1 takes whole crops. The authors take 1 for
            images of 32 and 64 pixels (CIFAR, Tiny-ImageNet) and 2 for ImageNet.
        candidates: number of images of each class that are tried; all of a smaller class.
        crops: number of crops of each candidate, of which the best is used.
        least: smallest share of an image's area in a crop, in (0, 1].
        weighted: whether candidates are drawn by the pool's weights.
        stratified: whether each place has candidates of its own.
    """
    height, width = pool.images.shape[1:3]
    places, size, shape = ipc * factor**2, (height // factor, width // factor), (height, width)
    if candidates < places:
        raise ValueError(f"candidates must be at least ipc × factor² = {places}, got {candidates}")
    first = sampling.take(pool, jnp.zeros(1, int))
    networks.check_classes(teacher.network, first, pool.num_classes)
    key_draw, key_crop = jax.random.split(key)
    drawn = sampling.without_replacement(key_draw, pool, candidates, weighted=weighted)

    def best_crop(key, index, label):
        image = sampling.take(pool, index)
        crop = jax.vmap(lambda key: _crop(key, image, least, size))
        return best_patch(teacher, crop(jax.random.split(key, crops)), label, shape)

    def of_class(label):
        keys = jax.random.split(jax.random.fold_in(key_crop, label), candidates)
        # One class, and 64 candidates of it, are in memory at a time.
        score = lambda pair: best_crop(*pair, label)
        patches, losses = jax.lax.map(score, (keys, drawn[label]), batch_size=_BATCH)
        chosen = spread(choose(losses, drawn[label], places, stratified=stratified), factor)
        images = formation.join(patches[chosen], factor=factor, size=shape)
        sources, losses = (x[chosen].reshape(ipc, factor**2) for x in (drawn[label], losses))
        return Anchors(images, sources, losses)

    return jax.lax.map(of_class, jnp.arange(pool.num_classes))


def best_patch(
    teacher: teachers.Teacher, patches: jax.Array, label: ArrayLike, shape: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    """Return the one of patches `[m, h, w, c]` with the smallest loss, and this loss.

    Args:
        teacher: teacher of the classes.
        patches: parts of one image; they are padded with zeros to `shape`.
        label: class of the image.
        shape: height and width of whole images.
    """
    outputs = networks.outputs(teacher.network, teacher.params, _pad(patches, shape))
    losses = training.cross_entropies(outputs.logits, jnp.full(len(patches), label))
    return patches[losses.argmin()], losses.min()


def spread(chosen: jax.Array, factor: int) -> jax.Array:
    """Return patches `[ipc · factor²]`, smallest loss first, in the order of `formation.join`.

    Each image gets patches from all ranks: the first place of all images has the best ones.
    """
    return chosen.reshape(factor**2, -1).T.ravel()


def _crop(key, image, least, size):
    """Return a random part with the aspect ratio of the image, resized."""
    area, *place = jax.random.uniform(key, (3,))
    # The share of the area is uniform, so both sides shrink by its square root.
    side = jnp.sqrt(least + (1 - least) * area)
    whole = jnp.array(image.shape[:2])
    scale = jnp.array(size) / (side * whole)
    shift = -jnp.stack(place) * (1 - side) * whole * scale
    shape = (*size, image.shape[2])
    return jax.image.scale_and_translate(image, shape, (0, 1), scale, shift, "linear")


def _pad(patches, shape):
    spare = [whole - part for whole, part in zip(shape, patches.shape[1:3], strict=True)]
    return jnp.pad(patches, ((0, 0), *((n // 2, n - n // 2) for n in spare), (0, 0)))


def choose(
    losses: jax.Array, drawn: jax.Array, places: int, *, stratified: bool = False
) -> jax.Array:
    """Return the chosen candidates `[places]`, smallest loss first.

    Candidates that were drawn repeatedly, in a class with too few images, come last: they are
    sorted by how often they were drawn before, then by loss.

    Args:
        losses: of the candidates, `[n]`.
        drawn: sample of each candidate, `[n]`.
        places: number of candidates to choose.
        stratified: whether each place has candidates of its own.
    """
    earlier = jnp.arange(len(drawn)) < jnp.arange(len(drawn))[:, None]
    rounds = ((drawn[:, None] == drawn) & earlier).sum(1)
    if not stratified:
        return jnp.lexsort((losses, rounds))[:places]
    count = len(drawn) // places
    order = jnp.lexsort((losses[: count * places], rounds[: count * places]))
    by_place = order[jnp.argsort(order % places, stable=True)].reshape(places, count)
    return by_place[jnp.argsort(losses[by_place[:, 0]]), 0]
