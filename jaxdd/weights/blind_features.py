"""Views: numbers of an image that show a bias and cannot draw the object.

A network of the classes learns what is easiest, and nobody can tell from its embedding whether that
was the object. A view cannot see the object: it holds the tone of an image, its texture or its
border, or just where it is. How well a class is told from it is suspicious by itself, see
`probes`. Which views there are is a prior of what a bias may be; without one, nothing can be said
(Lin et al., "ZIN: When and How to Learn Invariance Without Environment Partition?", 2022).

| view | numbers (32×32×3) | sees | cannot see |
|---|--:|---|---|
| `tone` | 71 | colour, brightness, contrast | where, and what is near what |
| `chroma` | 32 | colour beside the luminance | brightness; nothing of grey images |
| `border` | 71 | tone of the border | the middle |
| `spectrum` | 33 | blur, noise, orientation | colour, phase |
| `noise` | 24 | noise, compression, sharpness | anything larger than three pixels |
| `blocks` | 226 | compression, resolution, fine texture | where, and what is larger than a block |
| `texture` | 321 | all that `tone`, `noise` and `blocks` see | where anything is |
| `layout` | 48 | where anything is: position, size, coarse shape | detail |

A suspect is compared with a rival that sees the object (`COMPARISONS`): tone with `toneless`, to which
all images are equally bright and have no colour; texture with `patches`; layout with `anywhere`, to
which an image is the same wherever it is moved.

A view is a pure function of images `[n, h, w, c]`, floating in [0, 1], of any n, channels and sides
of at least four pixels, to finite numbers `[n, d]`.

>>> import jax.numpy as jnp
>>> tone(jnp.zeros((5, 8, 8, 1))).shape, tone(jnp.zeros((5, 32, 32, 3))).shape
((5, 19), (5, 71))
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdd import _checks
from jaxdd.devices import microbatch

Features = Callable[[jax.Array], jax.Array]
"""From images `[n, h, w, c]` in [0, 1] to numbers `[n, d]`."""

_LEVELS = np.arange(1, 16, dtype=np.float32) / 16
_BLOCK = 8
_PATCHES = 20_000  # that filters are whitened by


def of(images: jax.Array, view: Features) -> jax.Array:
    """Returns a view of many images, `[n, d]`, in micro-batches as one program.

    Args:
        images: `[n, h, w, c]`, uint8 or floating in [0, 1], as a pool holds them.
        view: called with floating images.

    Raises:
        TypeError: images that are neither uint8 nor floating.
        ValueError: a side of the images is less than four pixels.
    """
    _checks.pixel_dtype("images", images)
    if images.ndim != 4 or min(images.shape[1:3]) < 4:
        raise ValueError(
            f"images must be [n, h, w, c] with sides of at least 4 pixels, found {images.shape}"
        )
    return _seen(images, view)


@functools.partial(jax.jit, static_argnames="view")
def _seen(images, view):
    return microbatch.apply(
        lambda part: view(_unit(part)), images, activation_bytes=microbatch.CORE_BYTES
    )


def tone(images: jax.Array) -> jax.Array:
    """Mean, deviation and distribution of every channel, of saturation, and their correlations."""
    n, _, _, c = images.shape
    return _tone(images.reshape(n, -1, c))


def border(images: jax.Array) -> jax.Array:
    """Tone of a border of three sixteenths of the shorter side, in 32×32 pixels six."""
    n, _, _, c = images.shape
    inside = _border(*images.shape[1:3])
    return _tone(images.reshape(n, -1, c)[:, np.flatnonzero(inside)])


def chroma(images: jax.Array) -> jax.Array:
    """Colour beside the luminance, in the border and in the middle.

    Raises:
        ValueError: the images are grey.
    """
    n, h, w, c = images.shape
    if c < 2:
        raise ValueError("chroma needs images in colour, found one channel")
    colour = (images - images.mean(-1, keepdims=True))[..., : c - 1].reshape(n, h * w, c - 1)
    border, found = _border(h, w).ravel(), []
    levels = np.array([-0.2, -0.1, -0.05, 0.05, 0.1, 0.2], np.float32)
    for part in (colour[:, border], colour[:, ~border]):
        coloured = (jnp.abs(part).max(-1) > 2 / 255).mean(1, keepdims=True) + 0.01
        found += [part.mean(1) / coloured, jnp.abs(part).mean(1) / coloured, _share(part, levels)]
    return jnp.concatenate(found, 1)


def spectrum(images: jax.Array) -> jax.Array:
    """Mean log power of the luminance in 16 bands of frequency, and in 6 directions of three."""
    n, h, w, _ = images.shape
    power = jnp.abs(jnp.fft.rfft2(images.mean(-1))) ** 2 / (h * w)
    y, x = np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None]
    band = np.minimum((np.hypot(y, x) * 32).astype(int), 15).ravel()
    direction = (np.arctan2(y, x) % np.pi / np.pi * 6).astype(int).ravel() % 6
    bins = np.zeros((band.size, 16 + 3 * 6), np.float32)
    rows = np.arange(band.size)
    bins[rows, band] = bins[rows, 16 + 6 * np.minimum(band * 3 // 16, 2) + direction] = 1
    bins[0] = 0
    held = bins[:, bins.any(0)]
    return jnp.log(power.reshape(n, -1) + 1e-6) @ (held / held.sum(0))


def noise(images: jax.Array) -> jax.Array:
    """Strength, tails and correlations of what differs from the four neighbours, by channel."""
    near = images[:, :-2, 1:-1] + images[:, 2:, 1:-1] + images[:, 1:-1, :-2] + images[:, 1:-1, 2:]
    rest = images[:, 1:-1, 1:-1] - near / 4
    mean = lambda x: x.mean((1, 2))
    variance = mean(rest**2)
    pairs = [(rest[:, i:], rest[:, : rest.shape[1] - i]) for i in (1, 2) if i < rest.shape[1]] + [
        (rest[:, :, i:], rest[:, :, : rest.shape[2] - i]) for i in (1, 2) if i < rest.shape[2]
    ]
    found = [
        jnp.log(variance + 1e-7),
        jnp.log(mean(rest**4) + 1e-9) - 2 * jnp.log(variance + 1e-5),
        jnp.log(mean(jnp.abs(rest)) + 1e-4),
        *(mean(one * other) / (variance + 1e-7) for one, other in pairs),
    ]
    i, j = np.triu_indices(images.shape[-1], 1)
    among = mean(rest[..., i] * rest[..., j])
    return jnp.concatenate([*found, among / jnp.sqrt((variance[:, i] * variance[:, j]) + 1e-14)], 1)


def blocks(images: jax.Array) -> jax.Array:
    """Log energy of the cosines of blocks of up to 8×8, and how much more the blocks' edges differ.

    Of the luminance and, in colour, of the first and the last channel beside it.
    """
    n, h, w, c = images.shape
    side = min(_BLOCK, 1 << (min(h, w).bit_length() - 1))
    cosines = _cosines(side)
    grey = images.mean(-1)
    planes = [grey] + ([images[..., 0] - grey, images[..., -1] - grey] if c > 1 else [])
    found = []
    for plane in planes:
        cut = plane[:, : h // side * side, : w // side * side]
        cut = cut.reshape(n, h // side, side, w // side, side)
        energy = (jnp.einsum("ui,npiqj,vj->npquv", cosines, cut, cosines) ** 2).mean((1, 2))
        found.append(jnp.log(energy + 1e-6).reshape(n, -1))
    for axis in (1, 2):
        step = jnp.abs(jnp.diff(grey, axis=axis)).mean(3 - axis)
        for period in (2, 4, 8):
            if period < step.shape[1]:
                phase = jnp.stack([step[:, i::period].mean(1) for i in range(period)], 1)
                mean = phase.mean(1, keepdims=True)
                found.append(jnp.log(phase + 1e-3) - jnp.log(mean + 1e-3))
        found.append((jnp.diff(images, axis=axis) == 0).mean((1, 2)))
    return jnp.concatenate(found, 1)


def texture(images: jax.Array) -> jax.Array:
    """`tone`, `noise` and `blocks` together: all that does not ask where anything is."""
    return jnp.concatenate([tone(images), noise(images), blocks(images)], 1)


def layout(images: jax.Array) -> jax.Array:
    """Mean and deviation of the luminance in a grid of 4×4 cells, and in colour mean saturation."""
    n, h, w, c = images.shape
    cells = images[:, : h // 4 * 4, : w // 4 * 4].reshape(n, 4, h // 4, 4, w // 4, c)
    grey = cells.mean(-1)
    parts = [grey.mean((2, 4)), grey.std((2, 4))]
    if c > 1:
        parts.append((cells.max(-1) - cells.min(-1)).mean((2, 4)))
    return jnp.concatenate([part.reshape(n, -1) for part in parts], 1)


def patches(key: jax.Array, images: jax.Array, *, count: int = 128, side: int = 6) -> Features:
    """Returns a view that does see the object, to compare with: whitened patches of the data.

    Each patch is a filter; its responses above and below a threshold are averaged in the four
    quarters of an image. Coates, Ng and Lee, "An Analysis of Single-Layer Networks in Unsupervised
    Feature Learning", 2011, without their clusters.

    Args:
        key: of the patches that are drawn.
        images: `[n, h, w, c]`, as in `of`.
        count: filters.
        side: of a patch in pixels; less where the images are smaller.

    Raises:
        TypeError: images that are neither uint8 nor floating.
        ValueError: no filters, or patches of no pixels.
    """
    respond = _filtered(key, images, count, side)
    stride = 2 if min(images.shape[1:3]) >= 4 * side else 1

    def view(images):
        found = respond(images, stride=stride)
        rows, columns = (np.array_split(np.arange(x), 2) for x in found.shape[1:3])
        quarters = [
            found[:, a[0] : a[-1] + 1, b[0] : b[-1] + 1].mean((1, 2)) for a in rows for b in columns
        ]
        return jnp.concatenate(quarters, 1)

    return view


def anywhere(key: jax.Array, images: jax.Array, *, count: int = 128, side: int = 6) -> Features:
    """Returns a view that sees the object and not where it is: the same for images that are rolled.

    Responses of whitened patches as in `patches`, their mean and root mean square over an image
    whose borders meet; its tone; and the log amplitude of the luminance's low frequencies, up to
    six periods, which coarse shapes differ in.

    Args:
        key: as in `patches`.
        images: as in `patches`.
        count: as in `patches`.
        side: as in `patches`.

    Raises:
        TypeError: as in `patches`.
        ValueError: as in `patches`.
    """
    respond = _filtered(key, images, count, side)

    def view(images):
        h, w = images.shape[1:3]
        found = respond(images, around=True)
        waves = jnp.abs(jnp.fft.rfft2(images.mean(-1))) / np.sqrt(h * w)
        low = np.flatnonzero(np.abs(np.fft.fftfreq(h) * h) <= 6)
        waves = jnp.log(waves[:, low, :7] + 1e-2).reshape(len(images), -1)
        typical = jnp.sqrt((found**2).mean((1, 2)) + 1e-12)
        return jnp.concatenate([found.mean((1, 2)), typical, tone(images), waves], 1)

    return view


def toneless(key: jax.Array, images: jax.Array, *, count: int = 128, side: int = 6) -> Features:
    """Returns a view that sees the object and its texture, but no colour, brightness or contrast.

    `patches`, `noise` and `blocks` of the luminance, standardised image by image.

    Args:
        key: as in `patches`.
        images: as in `patches`.
        count: as in `patches`.
        side: as in `patches`.

    Raises:
        TypeError: as in `patches`.
        ValueError: as in `patches`.
    """
    _checks.pixel_dtype("images", images)
    shape = patches(key, _standard(_unit(images[:_PATCHES])), count=count, side=side)

    def view(images):
        grey = _standard(images)
        return jnp.concatenate([shape(grey), noise(grey), blocks(grey)], 1)

    return view


def _standard(images):
    """Luminance of mean a half and deviation a quarter, `[n, h, w, 1]`."""
    grey = images.mean(-1, keepdims=True)
    mean, deviation = (each((1, 2, 3), keepdims=True) for each in (grey.mean, grey.std))
    return 0.5 + 0.25 * (grey - mean) / (deviation + 1e-2)


class Comparison(NamedTuple):
    """A view that cannot see the object, and what it is compared with.

    Attributes:
        features: the view.
        baseline: from a key and images to a view that sees the object.
    """

    features: Features
    baseline: Callable[[jax.Array, jax.Array], Features] = patches


COMPARISONS: dict[str, Comparison] = {
    "tone": Comparison(tone, toneless),
    "texture": Comparison(texture),
    "layout": Comparison(layout, anywhere),
}
"""Views that cannot see the object, and their rivals."""

NAMED: dict[str, Features] = {name: each.features for name, each in COMPARISONS.items()} | {
    "border": border
}
"""Views that one can ask for by name: border where the object stands in the middle."""


def _filtered(key, images, count, side):
    """From images to the responses of patches of the data above and below a bound."""
    _checks.pixel_dtype("images", images)
    count, side = _checks.count("count", count), _checks.count("side", side)
    n, h, w, c = images.shape
    side = min(side, h // 2, w // 2)
    key_image, key_row, key_column = jax.random.split(key, 3)
    where = (
        jax.random.randint(key_image, (_PATCHES,), 0, n),
        jax.random.randint(key_row, (_PATCHES,), 0, h - side + 1),
        jax.random.randint(key_column, (_PATCHES,), 0, w - side + 1),
    )
    whitened = jax.jit(_whitened, static_argnames=("side", "count"))
    filters, offset, threshold = whitened(images, *where, side=side, count=count)
    kernel = filters.reshape(side, side, c, -1)

    def respond(images, *, stride=1, around=False):
        if around:
            images = jnp.pad(images, ((0, 0), (0, side - 1), (0, side - 1), (0, 0)), "wrap")
        found = jax.lax.conv_general_dilated(
            images, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        found = found - offset
        return jnp.concatenate(
            [jax.nn.relu(found - threshold), jax.nn.relu(-found - threshold)], -1
        )

    return respond


def _whitened(images, which, row, column, *, side, count):
    """Patches as filters `[side² c, count]` of whitened pixels, their offsets and a threshold."""
    cut = lambda i, y, x: jax.lax.dynamic_slice(
        images, (i, y, x, 0), (1, side, side, images.shape[-1])
    ).reshape(-1)
    found = _unit(jax.vmap(cut)(which, row, column))
    centred = found - found.mean(0)
    values, vectors = jnp.linalg.eigh(centred.T @ centred / len(found))
    whiten = vectors / jnp.sqrt(values + 0.01 * values.mean() + 1e-5) @ vectors.T
    chosen = centred[:count] @ whiten
    chosen = chosen / (jnp.linalg.norm(chosen, axis=1, keepdims=True) + 1e-9)
    filters = whiten @ chosen.T
    threshold = jnp.sort(jnp.abs(centred[:2000] @ filters).ravel())[int(0.7 * 2000 * count)]
    return filters, found.mean(0) @ filters, threshold


def _unit(images):
    """Floating images in [0, 1]."""
    return images.astype(jnp.float32) / (255 if images.dtype == jnp.uint8 else 1)


def _tone(pixels):
    """Of `[n, p, c]`."""
    channels = pixels.shape[-1]
    mean, deviation = pixels.mean(1), pixels.std(1)
    black, white = (pixels < 0.5 / 255).mean(1), (pixels > 1 - 0.5 / 255).mean(1)
    found = [mean, deviation, _share(pixels, _LEVELS), black, white]
    if channels > 1:
        saturation = (pixels.max(-1) - pixels.min(-1))[..., None]
        typical = saturation.mean(1)
        found += [typical, saturation.std(1), jnp.log(typical + 1e-3)]
        found.append(_share(saturation, _LEVELS[::2] / 2))
        i, j = np.triu_indices(channels, 1)
        centred = pixels - mean[:, None]
        among = (centred[..., i] * centred[..., j]).mean(1)
        found.append(among / (deviation[:, i] * deviation[:, j] + 1e-4))
    return jnp.concatenate(found, 1)


def _share(values, levels):
    """Share of `[n, p, c]` up to each level, `[n, c · levels]`."""
    below = [(values <= level).mean(1) for level in levels]
    return jnp.concatenate(below, 1)


def _border(h, w):
    """Which pixels belong to the ring, `[h, w]`."""
    wide = max(1, 3 * min(h, w) // 16)
    border = np.ones((h, w), bool)
    border[wide : h - wide, wide : w - wide] = False
    return border


def _cosines(side):
    """The orthonormal cosine transform, `[side, side]`."""
    k, x = np.arange(side)[:, None], np.arange(side)[None]
    scale = np.where(k == 0, 1, np.sqrt(2)) / np.sqrt(side)
    return (scale * np.cos(np.pi * (2 * x + 1) * k / (2 * side))).astype(np.float32)
