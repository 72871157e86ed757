"""Selection and preparation of images: RDED, DREAM, IDC and ZCA."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from experiments.fidelity.system import System, channels_last, convnet_params, difference, vectors
from experiments.tools import anchors
from jaxdd import networks, sampling
from jaxdd.methods import formation, zca
from jaxdd.training import teachers

# --- ZCA ---------------------------------------------------------------------------------------


def _compare_zca() -> dict[str, float]:
    arrays = vectors("zca")
    images = channels_last(arrays["images"])
    n, *shape = images.shape
    flat = np.arange(images[0].size).reshape(3, 4, 4).transpose(1, 2, 0).ravel()
    order = np.ix_(flat, flat)
    pool = sampling.pool(images, np.zeros(n, int), num_classes=1, mean=(0.4,) * 3, std=(0.2,) * 3)
    # A covariance divided by n − 1 instead of n: U (Λ n / (n − 1) + ε)^(−1/2) Uᵀ.
    share = (n - 1) / n
    with warnings.catch_warnings(action="ignore"):  # fewer images than values
        fitted = zca.fit(pool, epsilon=0.1 * share)
    whitening = fitted._replace(matrix=fitted.matrix * share**0.5)
    moments = jnp.zeros(3), jnp.ones(3)
    whitened = zca.whiten(images, whitening, *moments)
    units = jnp.eye(len(flat)).reshape(-1, *shape)
    inverse = zca.unwhiten(units, whitening, *moments) - whitening.mean
    return {
        "mean": difference(whitening.mean.ravel(), arrays["mean"][0, flat]),
        "matrix": difference(whitening.matrix, arrays["matrix"][order]),
        "whitened images": difference(whitened, channels_last(arrays["whitened"])),
        "inverse": difference(inverse.reshape(-1, len(flat)), arrays["inverse"][order]),
    }


# --- RDED --------------------------------------------------------------------------------------


def _compare_rded() -> dict[str, float]:
    arrays = vectors("rded_dream")
    patches = channels_last(arrays["patches"])
    teacher = teachers.Teacher(
        convnet_params(arrays, "teacher"), networks.ConvNet(3, 6, 2, norm=networks.BatchNorm)
    )
    score = functools.partial(anchors.best_patch, teacher, label=arrays["label"], shape=(8, 8))
    best, losses = jax.lax.map(score, patches)
    chosen = anchors.choose(losses, jnp.arange(len(losses)), 8)
    mixed = formation.join(best[anchors.spread(chosen, 2)], factor=2, size=(8, 8))
    return {
        "chosen patches": difference(best[chosen], channels_last(arrays["chosen"])),
        "images of four": difference(mixed, channels_last(arrays["mixed"])),
    }


# --- DREAM -------------------------------------------------------------------------------------


def _compare_dream() -> dict[str, float]:
    arrays = vectors("rded_dream")
    points, picks = arrays["dream_points"], arrays["dream_picks"]
    images = jnp.asarray(points).reshape(1, len(points), 2, 2, 2)
    candidates = sampling.Batch(images, jnp.full((1, len(points)), 1 / len(points)))
    sampler = sampling.representative(
        lambda key, pool: candidates,
        lambda images: images.reshape(len(images), -1),
        size=len(picks),
        iterations=100,
    )
    chosen = sampler(jax.random.key(0), None).images
    return {"chosen images": difference(chosen.reshape(len(picks), -1), points[picks])}


# --- IDC ---------------------------------------------------------------------------------------


def _compare_idc() -> dict[str, float]:
    arrays = vectors("idc")
    images = channels_last(arrays["images"])
    split = functools.partial(formation.split, factor=2)
    pieces = split(images).reshape(2, 4, *images.shape[1:])
    gradient = jax.grad(lambda images: jnp.square(split(images)).sum())(images)
    return {
        "decoded images": difference(pieces[:, :, ::2, ::2], channels_last(arrays["decoded"])),
        "gradient": difference(gradient, channels_last(arrays["grad_of_sum_squares"])),
    }


SYSTEMS: dict[str, System] = {
    "ZCA of MTT": System(
        source=(
            "[kornia](https://github.com/kornia/kornia) @ b4f5a78, Apache-2.0, as "
            "[MTT](https://github.com/GeorgeCazenavette/mtt-distillation) @ 50dccea, MIT, calls it"
        ),
        compare=_compare_zca,
        tolerance={"mean": 1e-6, "matrix": 2e-6, "whitened images": 5e-6, "inverse": 2e-6},
        note="Scaled for this comparison.",
        deviations=[
            (
                "covariance divided by",
                "n − 1",
                "the sum of the weights (n without weights), since weighted data have no n: "
                "1e-4 at 10,000 images",
            )
        ],
    ),
    "RDED": System(
        source="[RDED](https://github.com/LINs-lab/RDED) @ 3f6453d, no licence",
        compare=_compare_rded,
        tolerance={"chosen patches": 0, "images of four": 0},
        deviations=[
            ("crops", "whole pixels", "real-valued sides and positions"),
            ("images", "JPEG", "not compressed"),
            (
                "candidates",
                "drawn uniformly",
                "also by weights, and separately for each place of the set",
            ),
        ],
    ),
    "DREAM": System(
        source="[DREAM](https://github.com/Yanqing0327/DREAM) @ 595e3c1, no licence",
        compare=_compare_dream,
        tolerance={"chosen images": 0},
        note="[Other differences](../comparison/dream.md) concern the whole method.",
        deviations=[
            ("empty cluster", "centre moves to zero", "centre stays"),
            (
                "k-means",
                "every tenth inner loop, up to 100 iterations over all images of a class, "
                "features of the network in training",
                "every step, ten iterations over drawn candidates, features of a random network",
            ),
        ],
    ),
    "IDC": System(
        source=(
            "[IDC](https://github.com/snu-mllab/Efficient-Dataset-Condensation) @ ceac95a, MIT"
        ),
        compare=_compare_idc,
        tolerance={"decoded images": 3e-7, "gradient": 4e-7},
        note="[Other differences](../comparison/dream.md) concern the whole method.",
        deviations=[
            (
                "factor that does not divide a side",
                "padded with grey, equal pieces that hold padding or a part of the next",
                "pieces differ by one pixel",
            ),
            ("decoders multi and bound", "present", "missing"),
        ],
    ),
}
"""Systems by title."""
