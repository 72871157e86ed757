"""Differentiable siamese augmentation (DSA): draw parameters once, apply them to any image.

An `Augmentation` holds the parameters of all operations; those that are not used have identity
values. `draw` returns a random one and `apply` applies it to one image. `siamese` shares one draw
between all images of several batches (real and synthetic); `per_image` draws anew for each image.

Source: Zhao & Bilen, "Dataset Condensation with Differentiable Siamese Augmentation" (ICML 2021).
"""

import difflib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")
"""Operations that do not change the class of most images."""

Strategy = Sequence[str] | Callable[[jax.Array, jax.Array], jax.Array]
"""Names of `OPERATIONS`, or a custom function `augment(key, image) -> image`."""


class Augmentation(NamedTuple):
    """Parameters of the augmentation of one image; those of a batch have a leading axis.

    Attributes:
        brightness: `[]`, added to every value.
        saturation: `[]`, factor on the difference from the mean over channels; 1 changes nothing.
        contrast: `[]`, factor on the difference from the mean over the image; 1 changes nothing.
        shift: `[2]`, pixels (rows, columns) by which the sampling window moves down and right. The
            picture moves up and left.
        flip: `[]` bool, whether to mirror left and right.
        scale: `[2]`, factor on the sampling grid (rows, columns); above 1 the picture shrinks.
        angle: `[]`, counter-clockwise rotation in radians.
        cutout_centre: `[2]` integers, row and column of the centre of the square that is set to 0.
        cutout_size: `[2]` integers, height and width of the square in pixels; 0 for none.
    """

    brightness: jax.Array
    saturation: jax.Array
    contrast: jax.Array
    shift: jax.Array
    flip: jax.Array
    scale: jax.Array
    angle: jax.Array
    cutout_centre: jax.Array
    cutout_size: jax.Array


def identity() -> Augmentation:
    """Return the augmentation that leaves every image unchanged, bit for bit.

    Single operations are variants of it:

    >>> image = jnp.arange(4.0).reshape(2, 2, 1)
    >>> flipped = apply(identity()._replace(flip=True), image)
    >>> print(flipped[:, :, 0])
    [[1. 0.]
     [3. 2.]]
    """
    return Augmentation(
        brightness=jnp.float32(0),
        saturation=jnp.float32(1),
        contrast=jnp.float32(1),
        shift=jnp.zeros(2, jnp.float32),
        flip=jnp.array(False),
        scale=jnp.ones(2, jnp.float32),
        angle=jnp.float32(0),
        cutout_centre=jnp.zeros(2, jnp.int32),
        cutout_size=jnp.zeros(2, jnp.int32),
    )


def draw(
    key: jax.Array, shape: tuple[int, ...], *, strategy: Sequence[str] = OPERATIONS
) -> Augmentation:
    """Draw one operation uniformly from the strategy, and its parameters.

    With U[a, b] uniform, r and s the height and width of the image:

    * color: brightness U[-.5, .5], saturation U[0, 2], contrast U[.5, 1.5]; for normalised images
    * crop: shift of −a, …, a rows and −b, …, b columns, a = int(r/8 + .5), b = int(s/8 + .5)
    * cutout: a square of int(r/2 + .5) × int(s/2 + .5), its centre anywhere in the image
    * flip: with probability 1/2
    * scale: U[1/1.2, 1.2], rows and columns independently
    * rotate: U[-15°, 15°]

    Args:
        key: random key.
        shape: (height, width, channels) of the images; static.
        strategy: names of `OPERATIONS`. A name that occurs twice is drawn twice as often; an empty
            strategy is the identity. Leave out "flip" for digits.

    Source: Zhao & Bilen (ICML 2021), section 3.3, and their code.

    >>> augmentation = draw(jax.random.key(0), (32, 32, 3), strategy=("crop",))
    >>> bool(jnp.all(jnp.abs(augmentation.shift) <= 4)), float(augmentation.angle)
    (True, 0.0)
    """
    if len(shape) != 3:
        raise ValueError(f"shape must be (height, width, channels), got {tuple(shape)}.")
    as_strategy(strategy)  # checks the names
    augmentation = identity()
    if not strategy:
        return augmentation
    choice, *numbers = jax.random.uniform(key, (4,), jnp.float32)
    chosen = jnp.floor(choice * len(strategy))
    # All operations are parametrised and all but one are masked. `lax.switch` would run all its
    # branches under `vmap` anyway, on images instead of a few numbers. Only one operation is used,
    # so all may read the same random numbers.
    for position, name in enumerate(strategy):
        parameters = {
            field: jnp.where(chosen == position, value, getattr(augmentation, field))
            for field, value in _PARAMETERS[name](numbers, *shape[:2]).items()
        }
        augmentation = augmentation._replace(**parameters)
    return augmentation


def apply(augmentation: Augmentation, image: jax.Array) -> jax.Array:
    """Apply an augmentation to one image, differentiably.

    The order is: brightness `x + b`; saturation `m_c + s (x − m_c)`, m_c being the mean over the
    channels of each pixel; contrast `m + k (x − m)`, m being the mean over the image; one bilinear
    resampling, zero outside the image; cutout. With the origin in the middle of the image, the
    output pixel p = (row, column) takes the value at `R(angle) diag(scale) F(flip) p + shift`.
    Flips and shifts by whole pixels are exact. Rotations are in pixels. The reference rotates
    coordinates in [−1, 1], which is the same for square images but shears others.

    On a GPU the gradient is summed by atomic additions in varying order. For bit-identical results,
    set `XLA_FLAGS=--xla_gpu_deterministic_ops=true`.

    Args:
        augmentation: parameters for one image.
        image: `[h, w, c]`, floating; normalised if the colour changes.

    Returns:
        `[h, w, c]` in the dtype of the image, computed in float32 or wider.
    """
    image = jnp.asarray(image)
    _check_images("image", image, "h, w, c")
    values = image.astype(jnp.promote_types(image.dtype, jnp.float32))
    values = _adjust_color(augmentation, values)
    values = _sample(values, *_source_coordinates(augmentation, *image.shape[:2]))
    values = jnp.where(_cutout_mask(augmentation, *image.shape[:2]), 0, values)
    return values.astype(image.dtype)


def siamese(
    key: jax.Array, *batches: jax.Array, strategy: Strategy = OPERATIONS
) -> tuple[jax.Array, ...]:
    """Augment all images of all batches with one shared draw.

    Args:
        key: random key.
        *batches: `[n_i, h, w, c]`, floating, all with the same image shape.
        strategy: names of `OPERATIONS`, or a function of a key and one image, which gets the key
            that `draw` would get.

    Returns:
        A tuple with the augmented batches.

    Source: Zhao & Bilen (ICML 2021), equation 8: A_ω with one ω for real and synthetic images.

    >>> real, synthetic = jnp.ones((256, 32, 32, 3)), jnp.ones((10, 32, 32, 3))
    >>> real, synthetic = jax.jit(siamese)(jax.random.key(0), real, synthetic)
    >>> real.shape, bool(jnp.all(real[:10] == synthetic))
    ((256, 32, 32, 3), True)
    """
    if not batches:
        raise ValueError("siamese needs at least one batch of images, got none.")
    for batch in batches:
        _check_images("each batch", batch, "n, h, w, c")
    shapes = [batch.shape[1:] for batch in batches]
    if len(set(shapes)) > 1:
        raise ValueError(f"All batches must have the same image shape, got {shapes}.")
    transform = _transform(key, shapes[0], strategy)
    return tuple(jax.vmap(transform)(batch) for batch in batches)


def per_image(key: jax.Array, images: jax.Array, *, strategy: Strategy = OPERATIONS) -> jax.Array:
    """Augment each image with a draw of its own, as in the training of networks.

    Args:
        key: random key.
        images: `[n, h, w, c]`, floating.
        strategy: names of `OPERATIONS`, or a function of a key and one image.

    Returns:
        The augmented images `[n, h, w, c]`.

    >>> jax.jit(per_image)(jax.random.key(0), jnp.ones((5, 28, 28, 1))).shape
    (5, 28, 28, 1)
    """
    _check_images("images", images, "n, h, w, c")

    def augment(key, image):
        return _transform(key, image.shape, strategy)(image)

    return jax.vmap(augment)(jax.random.split(key, len(images)), images)


def resized_crop(
    key: jax.Array, image: jax.Array, *, min_area: float = 0.08, flip: bool = True, shift: int = 4
) -> jax.Array:
    """Crop a random part, resize it to the full image, mirror it half of the time, and roll it.

    The part has a share of the area in U[`min_area`, 1] and an aspect ratio exp(U[−log 4/3,
    log 4/3]), both limited by the image. It is rolled cyclically by 0, …, `shift` pixels down and
    right. Pass `functools.partial(resized_crop, flip=False)` as a `Strategy`.

    Args:
        key: random key.
        image: `[h, w, c]`, floating.
        min_area: minimum share of the area, in (0, 1].
        flip: whether to mirror; False for digits.
        shift: maximum roll in pixels.

    Returns:
        `[h, w, c]`, differentiable in the image.

    >>> image = jnp.arange(4.0).reshape(2, 2, 1)
    >>> same = resized_crop(jax.random.key(0), image, min_area=1.0, flip=False, shift=0)
    >>> bool(jnp.all((same >= 0) & (same <= 3)))
    True
    """
    image = jnp.asarray(image)
    _check_images("image", image, "h, w, c")
    if not 0 < min_area <= 1 or shift < 0:
        raise ValueError(
            f"min_area must be in (0, 1] and shift non-negative, got {min_area} and {shift}."
        )
    key_part, key_flip, key_roll = jax.random.split(key, 3)
    area, ratio, *places = jax.random.uniform(key_part, (4,))
    area = min_area + (1 - min_area) * area
    ratio = (4 / 3) ** (2 * ratio - 1)
    sides = jnp.sqrt(area / ratio), jnp.sqrt(area * ratio)
    rolls = jax.random.randint(key_roll, (2,), 0, shift + 1)
    # Cropping, resizing, mirroring and rolling are linear and separable: one matrix `[h, h]` for
    # the rows and one `[w, w]` for the columns do all of it in a single bilinear resampling.
    rows, columns = (
        jnp.roll(_resize_matrix(size, jnp.minimum(side, 1), place), roll, axis=0)
        for size, side, place, roll in zip(image.shape[:2], sides, places, rolls, strict=True)
    )
    columns = jnp.where(flip & jax.random.bernoulli(key_flip), columns[::-1], columns)
    values = image.astype(jnp.promote_types(image.dtype, jnp.float32))
    cropped = jnp.einsum("ih,hwc,jw->ijc", rows, values, columns, precision="highest")
    return cropped.astype(image.dtype)


def _resize_matrix(size, side, place):
    """Return the matrix `[size, size]` that enlarges a part of a line to the whole line.

    The part has `side` times the length; `place` in [0, 1] moves it from the start to the end.
    """
    pixels = jnp.arange(size).astype(side.dtype)
    points = (pixels + 0.5) * side + place * (1 - side) * size - 0.5
    points = jnp.clip(points, 0, size - 1)
    return jax.nn.relu(1 - jnp.abs(points[:, None] - pixels[None]))


def _transform(key, shape, strategy):
    """Return the function of one image given by a strategy and a key."""
    if not callable(strategy):
        return functools.partial(apply, draw(key, shape, strategy=strategy))
    return functools.partial(_apply_custom, strategy, key)


def _apply_custom(strategy: Callable[..., Any], key, image):
    augmented = strategy(key, image)
    if jnp.shape(augmented) != image.shape:
        raise ValueError(
            f"An augmentation must keep the shape {image.shape} of its image, "
            f"got {jnp.shape(augmented)}."
        )
    return augmented


def _crop(u, height, width):
    reach = [int(0.125 * side + 0.5) for side in (height, width)]
    shift = [jnp.floor(v * (2 * r + 1)) - r for v, r in zip(u[:2], reach, strict=True)]
    return {"shift": jnp.stack(shift)}


def _cutout(u, height, width):
    size = [int(0.5 * side + 0.5) for side in (height, width)]
    # A square of even size is half a pixel above and left of its centre. One more place, just
    # outside the image, restores the symmetry between top and bottom and between left and right.
    places = [side + 1 - cut % 2 for side, cut in zip((height, width), size, strict=True)]
    centre = [jnp.floor(v * n).astype(jnp.int32) for v, n in zip(u[:2], places, strict=True)]
    return {"cutout_centre": jnp.stack(centre), "cutout_size": jnp.array(size, jnp.int32)}


# Each function maps three uniform numbers in [0, 1), the height and the width of an image to the
# parameters of an operation.
_PARAMETERS = {
    "color": lambda u, *_: dict(brightness=u[0] - 0.5, saturation=2 * u[1], contrast=u[2] + 0.5),
    "crop": _crop,
    "cutout": _cutout,
    "flip": lambda u, *_: {"flip": u[0] < 0.5},
    "scale": lambda u, *_: {"scale": jnp.stack([v * (1.2 - 1 / 1.2) + 1 / 1.2 for v in u[:2]])},
    "rotate": lambda u, *_: {"angle": jnp.deg2rad(15 * (2 * u[0] - 1))},
}


def _adjust_color(augmentation, image):
    # x + (factor − 1) (x − mean) keeps every bit of the image at factor 1, unlike the usual
    # mean + factor (x − mean). The sum over channels is written out because XLA reduces an axis
    # this short slowly on a CPU: the whole augmentation took three times as long.
    image = image + augmentation.brightness
    channels = image.shape[-1]
    mean = sum(image[..., i : i + 1] for i in range(channels)) / channels
    image = image + (augmentation.saturation - 1) * (image - mean)
    return image + (augmentation.contrast - 1) * (image - jnp.mean(image))


def _source_coordinates(augmentation, height, width):
    """Return where each output pixel is sampled, as rows `[h, w]` and columns `[h, w]`."""
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    down = (jnp.arange(height, dtype=jnp.float32)[:, None] - middle_row) * augmentation.scale[0]
    right = (jnp.arange(width, dtype=jnp.float32) - middle_column) * augmentation.scale[1]
    right = jnp.where(augmentation.flip, -right, right)
    cos, sin = jnp.cos(augmentation.angle), jnp.sin(augmentation.angle)
    rows = cos * down + (sin * right)[None] + augmentation.shift[0] + middle_row
    columns = (cos * right)[None] - sin * down + augmentation.shift[1] + middle_column
    return rows, columns


def _sample(image, rows, columns):
    """Interpolate an image `[h, w, c]` bilinearly at points `[...]`, zero outside: `[..., c]`."""
    # Four gathers per image. Measured for 10 classes × (256 + 10) images of 32 × 32 × 3 on two CPU
    # cores, with the gradient in the 10 × 10 synthetic images in parentheses:
    #
    #   four gathers per image                                        55 ms (10 ms)
    #   four gathers of rows of a layout [pixels, images × channels]  39 ms  (5 ms)
    #   product with the dense interpolation matrix                  309 ms (55 ms)
    #
    # The second form needs shared parameters, so `per_image` would need an implementation of its
    # own.
    height, width, channels = image.shape
    pixels = image.reshape(height * width, channels)
    top, left = jnp.floor(rows), jnp.floor(columns)
    result = 0
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        weight = (1 - jnp.abs(rows - row)) * (1 - jnp.abs(columns - column))
        index = jnp.clip(row.astype(jnp.int32), 0, height - 1) * width
        index += jnp.clip(column.astype(jnp.int32), 0, width - 1)
        value = pixels.at[index].get(mode="promise_in_bounds")
        result += jnp.where(inside, weight, 0)[..., None] * value
    return result


def _cutout_mask(augmentation, height, width):
    """Return the mask `[h, w, 1]` of the square; it begins size // 2 pixels before its centre."""
    centre, size = jnp.asarray(augmentation.cutout_centre), jnp.asarray(augmentation.cutout_size)
    start = centre - size // 2
    rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
    within_rows = (rows >= start[0]) & (rows < start[0] + size[0])
    return within_rows & (columns >= start[1])[None] & (columns < start[1] + size[1])[None]


def as_strategy(strategy: Strategy) -> tuple[str, ...] | Callable[..., Any]:
    """Return names as a hashable tuple, and a function unchanged.

    >>> as_strategy(["crop", "flip"])
    ('crop', 'flip')
    """
    if callable(strategy):
        return strategy
    if isinstance(strategy, str):
        raise TypeError(f"strategy must be a sequence of names, got the string {strategy!r}.")
    for name in strategy:
        if name not in OPERATIONS:
            near = difflib.get_close_matches(str(name), OPERATIONS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"strategy must consist of {OPERATIONS}, got {name!r}.{hint}")
    return tuple(strategy)


def _check_images(name, images, axes):
    if images.ndim != axes.count(",") + 1:
        raise ValueError(f"Expected {name} of shape [{axes}], got {images.shape}.")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, got {images.dtype}; use sampling.normalise.")
