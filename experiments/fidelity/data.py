"""Data sets of FairDD and LfF."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.fidelity.system import System, vectors
from jaxdd.data import _filters, corruptions, rendering


def _clothes() -> dict[str, float]:
    """Count the bytes of C-FMNIST that differ: real images, and every level in one colour."""
    expected = vectors("cfmnist_fairdd")
    levels = np.arange(256, dtype=np.uint8)[:, None, None]
    unequal = {}
    for side in ("foreground", "background"):
        cases = [(levels, 1, expected[f"{side[0]}g_table"][:, None, None])]
        cases += [(expected["grey"], color, expected[f"{side}_{color}"]) for color in (1, 3)]
        unequal[side] = 0.0
        for grey, color, images in cases:
            colors = jnp.full(len(grey), color)
            actual = rendering.shade(jnp.asarray(grey), colors, background=side == "background")
            unequal[side] += float(jnp.count_nonzero(actual != images))
    return unequal


_NAMES = {
    "blurs, colours, fog, elastic, mud": (
        "brightness", "contrast", "saturate", "gaussian_blur", "defocus_blur", "zoom_blur", "fog",
        "elastic", "spatter",
    ),
    "pixelate, motion blur": ("pixelate", "motion_blur"),
    "snow": ("snow",),
    "JPEG, mean": ("jpeg",),
}  # fmt: skip


def _corruptions() -> dict[str, float]:
    """Return the largest difference of corrupted images in levels, for JPEG the mean."""
    fixed, random = vectors("corruptions"), vectors("corruptions_random")
    difference = dict.fromkeys(_NAMES, 0.0)
    for what, name in [(what, name) for what, names in _NAMES.items() for name in names]:
        is_fixed = f"{name}_4" in fixed
        images = fixed["images"] if is_fixed else random["image"][None]
        # The weakest and the strongest; only the strongest of those that take long to compile.
        for severity in (1, 4) if is_fixed and name != "jpeg" else (4,):
            expected = (fixed if is_fixed else random)[f"{name}_{severity}"]
            actual = _corrupt(name, images, severity)
            if expected.dtype == np.uint8:
                actual = np.floor(actual + 0.5 + _filters.MARGIN)
            else:
                expected = expected / 32
            measure = np.mean if name == "jpeg" else np.max
            difference[what] = max(difference[what], float(measure(np.abs(actual - expected))))
    return difference


def _corrupt(name, images, severity):
    """Corrupt images with the key of the vectors; return levels that are not rounded."""
    function, settings = corruptions._CORRUPTIONS[name]
    settings = {option: values[severity - 1] for option, values in settings.items()}
    with jax.enable_x64(True):
        key = jax.random.key(severity)
        corrupt = jax.jit(jax.vmap(lambda image: 255 * function(key, image, **settings)))
        return np.asarray(corrupt(images / 255))


SYSTEMS: dict[str, System] = {
    "FairDD, data": System(
        source="[FairDD](https://github.com/zqhang/FairDD) @ 5e6af8e, no licence",
        compare=_clothes,
        tolerance={"foreground": 0, "background": 0},
        unit="unequal bytes",
        note=(
            "There are no stored images for C-MNIST and the grey images of CIFAR10-S; every byte "
            "was compared by hand and is equal. The conflicting samples are drawn differently."
        ),
        deviations=[
            ("padding of 28 pixels", "top and left", 'all sides; `placement="corner"` as there'),
            ("aligned samples", "number rounded down", "differs by at most one image"),
            (
                "m conflicting samples of a class",
                "⌈m/9⌉ of each other colour, up to seven fewer of the last",
                "numbers differ by at most one",
            ),
            ("CIFAR10-S normalised by", "its own moments", "those of CIFAR-10"),
            ("faces shrunk", "linearly", "with a Lanczos filter"),
        ],
    ),
    "LfF, corruptions": System(
        source="[LfF](https://github.com/alinlab/LfF) @ e66796e, no licence",
        compare=_corruptions,
        tolerance={
            "blurs, colours, fog, elastic, mud": 0.02,
            "pixelate, motion blur": 1,
            "snow": 2.5,
            "JPEG, mean": 0.1,
        },
        unit="of 255",
        note=(
            "Compared with our random numbers instead of the authors', before rounding; the "
            "stored images have steps of 1/32 and are from OpenCV 5. With OpenCV 4, which LfF "
            "requires, elastic differs by up to 3.2 of 255 (0.2 on average), because coordinates "
            "are rounded to 1/32 pixel. There are no stored images for shot, impulse and glass; "
            "their mean and root mean square change are equal."
        ),
        deviations=[
            ("levels", "truncated", "rounded: half a level apart on average"),
            ("glass", "truncates in the middle of the blur", "half a level brighter"),
            ("snow", "flakes blurred as 8-bit images", "flakes not rounded"),
            (
                "JPEG",
                "library",
                "own code; 83 to 89 % of bytes equal those of libjpeg-turbo on a larger sample",
            ),
            ("frost", "photographs without a free licence", "drawn, or your photographs"),
            (
                "water drops",
                "Canny edge, approximate distances of OpenCV",
                "shore of wet next to dry pixels, exact distances: images change by a third more",
            ),
            ("groups", "attributes in file order", "drawn; sizes differ by at most one image"),
            (
                "coloured digits",
                "28 pixels in [0, 1]",
                "32 pixels in [-1, 1], mean colours rounded to levels",
            ),
        ],
    ),
}
"""Systems by title."""
