"""Differentiable siamese augmentation (DSA): draw the parameters once, apply them to any image.

An `Augmentation` holds the parameters of every operation, with identity values for those that are
not in use; `draw` makes one, `apply` puts it on one image. `siamese` shares one draw among all
images of several batches (real and synthetic), `per_image` draws anew for each image.

Zhao & Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021.
"""

import difflib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")
"""Operations that leave the class of most images alone."""

Strategy = Sequence[str] | Callable[[jax.Array, jax.Array], jax.Array]
"""Names out of `OPERATIONS`, or a function of one's own, `augment(key, image) -> image`."""


class Augmentation(NamedTuple):
    """Parameters of the augmentation of one image; a batch of them carries a leading axis.

    Attributes:
        brightness: `[]` added to every value, in the units of the image; 0 changes nothing.
        saturation: `[]` factor on the difference to the mean over the channels; 1 changes nothing.
        contrast: `[]` factor on the difference to the mean over the image; 1 changes nothing.
        shift: `[2]` pixels (rows, columns) by which the window moves down and right, so that the
            picture moves up and left; 0 changes nothing.
        flip: `[]` bool, whether left and right change places.
        scale: `[2]` factor on the sampling grid (rows, columns): above 1 the picture shrinks.
        angle: `[]` radians, counter-clockwise as seen.
        cutout_centre: `[2]` integer row and column of the centre of the square that is set to 0.
        cutout_size: `[2]` integer height and width of the square in pixels; 0 cuts nothing out.
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
    """Returns the augmentation that leaves every image exactly as it is.

    Single operations are built from it:

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
    """Draws one operation uniformly from the strategy, and its parameters.

    With U[a, b] uniform, r and s the height and width of the image:

    * color: brightness U[-.5, .5], saturation U[0, 2], contrast U[.5, 1.5]; needs normalised images
    * crop: shift of -int(r/8 + .5) … int(r/8 + .5) rows, and of columns likewise from s
    * cutout: a square of int(r/2 + .5) × int(s/2 + .5), its centre anywhere in the image
    * flip: with probability 1/2 (otherwise the image stays as it is)
    * scale: U[1/1.2, 1.2], rows and columns independently
    * rotate: U[-15°, 15°]

    The parameters of the other operations are identities. No `lax.switch` is involved, which under
    `vmap` would run all its branches.

    Args:
        key: random key.
        shape: (height, width, channels) of the images in pixels; static.
        strategy: names out of `OPERATIONS`; a name that is given twice is drawn twice as often, and
            an empty strategy gives the identity. Digits leave "flip" out.

    Returns:
        The parameters, for one image or for all images of siamese batches.

    Raises:
        ValueError: the shape has not three axes, or a name is not an operation.
        TypeError: the strategy is a string.

    Reference: Zhao & Bilen, ICML 2021, section 3.3 and its public code.

    >>> augmentation = draw(jax.random.key(0), (32, 32, 3), strategy=("crop",))
    >>> bool(jnp.all(jnp.abs(augmentation.shift) <= 4)), float(augmentation.angle)
    (True, 0.0)
    """
    if len(shape) != 3:
        raise ValueError(f"shape must be (height, width, channels), found {tuple(shape)}")
    check_strategy(strategy)
    augmentation = identity()
    if not strategy:
        return augmentation
    choice, *numbers = jax.random.uniform(key, (4,), jnp.float32)
    chosen = jnp.floor(choice * len(strategy))
    for position, name in enumerate(strategy):
        # Only one operation is chosen, so that all may read the same numbers.
        parameters = _PARAMETERS[name](numbers, *shape[:2])
        used = {
            field: jnp.where(chosen == position, value, getattr(augmentation, field))
            for field, value in parameters.items()
        }
        augmentation = augmentation._replace(**used)
    return augmentation


def apply(augmentation: Augmentation, image: jax.Array) -> jax.Array:
    """Applies an augmentation to one image; differentiable in the image.

    First colour: brightness `x + b`, saturation `m_c + s (x - m_c)` with the mean over the channels
    of each pixel, contrast `m + k (x - m)` with the mean over the image. Then one bilinear
    resampling, zero outside of the image: with the origin in the middle of the image the output
    pixel p = (row, column) takes the value at `R(angle) · diag(scale) · F(flip) · p + shift`.
    Last the cutout. The parameters of a `draw` use one operation only, for which one resampling is
    exact; whole-pixel shifts and flips hit the pixels and blur nothing. A rotation is in pixels, a
    true rotation on oblong images also; the reference code, which rotates coordinates that run
    from -1 to 1, agrees on square images only and shears the others.

    Written as four gathers per image. When a batch shares its parameters there are alternatives;
    for 10 classes × (256 + 10) images of 32×32×3 in `jit` on two CPU cores, and for the gradient
    in the 10 × 10 synthetic ones, the resampling alone took: four gathers per image 55 ms (10 ms),
    four gathers of rows of a `[pixels, images × channels]` layout 39 ms (5 ms), a product with the
    dense interpolation matrix 309 ms (55 ms). All of `siamese` takes 43–68 ms (8 ms), `per_image`
    of 256 images 6 ms; the shared layout would need a second implementation for `per_image`.

    On a GPU the gradient of a gather adds atomically, in no fixed order: for results that agree
    to the last bit set `XLA_FLAGS=--xla_gpu_deterministic_ops=true`.

    Args:
        augmentation: the parameters for one image.
        image: `[h, w, c]` floating point; colour is meant for normalised images.

    Returns:
        `[h, w, c]`, the augmented image in the same dtype (computed in float32 at least).

    Raises:
        ValueError: the image has not three axes.
        TypeError: the image is not of a floating dtype.
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
    """Augments all images of all batches by one and the same draw.

    Args:
        key: random key.
        *batches: each `[n_i, h, w, c]` floating point, of one image shape; the n_i may differ.
        strategy: names out of `OPERATIONS`, as for `draw`, or a function of a key and one image,
            which then gets the keys that draws would have got.

    Returns:
        A tuple of the augmented batches, also when there is one only.

    Raises:
        ValueError: no batch, a batch has not four axes, the image shapes differ, or a name in the
            strategy is not an operation.
        TypeError: a batch is not of a floating dtype.

    Reference: Zhao & Bilen, ICML 2021, equation 8: A_ω with one ω for real and synthetic images.

    >>> real, synthetic = jnp.ones((256, 32, 32, 3)), jnp.ones((10, 32, 32, 3))
    >>> real, synthetic = jax.jit(siamese)(jax.random.key(0), real, synthetic)
    >>> real.shape, bool(jnp.all(real[:10] == synthetic))
    ((256, 32, 32, 3), True)
    """
    if not batches:
        raise ValueError("siamese takes at least one batch of images, found none")
    for batch in batches:
        _check_images("each batch", batch, "n, h, w, c")
    shapes = [batch.shape[1:] for batch in batches]
    if len(set(shapes)) > 1:
        raise ValueError(f"batches must hold images of one shape, found {shapes}")
    transform = _transform(key, shapes[0], strategy)
    return tuple(jax.vmap(transform)(batch) for batch in batches)


def per_image(key: jax.Array, images: jax.Array, *, strategy: Strategy = OPERATIONS) -> jax.Array:
    """Augments each image by a draw of its own, as the training of networks does.

    Args:
        key: random key.
        images: `[n, h, w, c]` floating point.
        strategy: names out of `OPERATIONS`, as for `draw`, or a function of a key and one image,
            which then gets the keys that draws would have got.

    Returns:
        `[n, h, w, c]`, the augmented images.

    Raises:
        ValueError: the images have not four axes, or a name in the strategy is not an operation.
        TypeError: the images are not of a floating dtype.

    >>> jax.jit(per_image)(jax.random.key(0), jnp.ones((5, 28, 28, 1))).shape
    (5, 28, 28, 1)
    """
    _check_images("images", images, "n, h, w, c")

    def augment(key, image):
        return _transform(key, image.shape, strategy)(image)

    return jax.vmap(augment)(jax.random.split(key, len(images)), images)


def resized_crop(
    key: jax.Array, image: jax.Array, *, least: float = 0.08, flip: bool = True, shift: int = 4
) -> jax.Array:
    """Cuts a random part out, resizes it to the whole, flips it half of the time, and rolls it.

    The part has a share of the area in U[`least`, 1] and sides whose ratio is the exponential of
    U[-log 4/3, log 4/3], both cut at the image. It is rolled by 0 … `shift` pixels down and to the
    right, what leaves on one side coming back on the other. One bilinear resampling does it all, as
    a product with a matrix for the rows and one for the columns. As a `Strategy`:
    `functools.partial(resized_crop, flip=False)`.

    Args:
        key: random key.
        image: `[h, w, c]` floating point.
        least: smallest share of the area, in (0, 1].
        flip: whether left and right may change places; not for digits.
        shift: pixels.

    Returns:
        `[h, w, c]`, differentiable in the image.

    Raises:
        ValueError: the image has not three axes, a share outside of (0, 1], or a negative shift.
        TypeError: the image is not of a floating dtype.

    >>> image = jnp.arange(4.0).reshape(2, 2, 1)
    >>> same = resized_crop(jax.random.key(0), image, least=1.0, flip=False, shift=0)
    >>> bool(jnp.all((same >= 0) & (same <= 3)))
    True
    """
    image = jnp.asarray(image)
    _check_images("image", image, "h, w, c")
    if not 0 < least <= 1 or shift < 0:
        raise ValueError(
            f"least must lie in (0, 1] and shift be at least 0, found {least} and {shift}"
        )
    key_part, key_flip, key_roll = jax.random.split(key, 3)
    area, ratio, *places = jax.random.uniform(key_part, (4,))
    area = least + (1 - least) * area
    ratio = (4 / 3) ** (2 * ratio - 1)
    sides = jnp.sqrt(area / ratio), jnp.sqrt(area * ratio)
    rolls = jax.random.randint(key_roll, (2,), 0, shift + 1)
    rows, columns = (
        jnp.roll(_part(size, jnp.minimum(side, 1), place), roll, axis=0)
        for size, side, place, roll in zip(image.shape[:2], sides, places, rolls, strict=True)
    )
    columns = jnp.where(flip & jax.random.bernoulli(key_flip), columns[::-1], columns)
    values = image.astype(jnp.promote_types(image.dtype, jnp.float32))
    found = jnp.einsum("ih,hwc,jw->ijc", rows, values, columns, precision="highest")
    return found.astype(image.dtype)


def _part(size, side, place):
    """The matrix `[size, size]` that resizes a part of a line, `side` being its share."""
    points = (jnp.arange(size) + 0.5) * side + place * (1 - side) * size - 0.5
    points = jnp.clip(points, 0, size - 1)
    return jax.nn.relu(1 - jnp.abs(points[:, None] - jnp.arange(size)))


def _transform(key, shape, strategy):
    """The function of one image that a strategy and a key stand for."""
    if not callable(strategy):
        return functools.partial(apply, draw(key, shape, strategy=strategy))
    return functools.partial(_own, strategy, key)


def _own(strategy: Callable[..., Any], key, image):
    found = strategy(key, image)
    if jnp.shape(found) != image.shape:
        raise ValueError(
            f"an augmentation must return an image of the shape {image.shape} that it got, "
            f"found {jnp.shape(found)}"
        )
    return found


# From three numbers, uniform in [0, 1), to the parameters of one operation.


def _color(u, height, width):
    return {"brightness": u[0] - 0.5, "saturation": 2 * u[1], "contrast": u[2] + 0.5}


def _crop(u, height, width):
    reach = [int(0.125 * side + 0.5) for side in (height, width)]
    return {
        "shift": jnp.stack(
            [jnp.floor(v * (2 * r + 1)) - r for v, r in zip(u[:2], reach, strict=True)]
        )
    }


def _cutout(u, height, width):
    size = [int(0.5 * side + 0.5) for side in (height, width)]
    # An even square lies half a pixel up and left of its centre, so that one more place, just
    # outside of the image, makes top and bottom, left and right alike.
    places = [side + 1 - cut % 2 for side, cut in zip((height, width), size, strict=True)]
    centre = [jnp.floor(v * n).astype(jnp.int32) for v, n in zip(u[:2], places, strict=True)]
    return {"cutout_centre": jnp.stack(centre), "cutout_size": jnp.array(size, jnp.int32)}


def _flip(u, height, width):
    return {"flip": u[0] < 0.5}


def _scale(u, height, width):
    return {"scale": jnp.stack([v * (1.2 - 1 / 1.2) + 1 / 1.2 for v in u[:2]])}


def _rotate(u, height, width):
    return {"angle": jnp.deg2rad(15 * (2 * u[0] - 1))}


_PARAMETERS = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}


def _adjust_color(augmentation, image):
    # x + (factor - 1)(x - mean) leaves the image bit for bit at factor 1; factor (x - mean) + mean
    # would not. The sum over channels is spelt out because XLA reduces so short an axis slowly on
    # CPU: it made the whole augmentation three times slower.
    image = image + augmentation.brightness
    channels = image.shape[-1]
    mean = sum(image[..., i : i + 1] for i in range(channels)) / channels
    image = image + (augmentation.saturation - 1) * (image - mean)
    return image + (augmentation.contrast - 1) * (image - jnp.mean(image))


def _source_coordinates(augmentation, height, width):
    """Where each output pixel is taken from: rows `[h, w]` and columns `[h, w]`, in pixels."""
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    down = (jnp.arange(height, dtype=jnp.float32)[:, None] - middle_row) * augmentation.scale[0]
    right = (jnp.arange(width, dtype=jnp.float32) - middle_column) * augmentation.scale[1]
    right = jnp.where(augmentation.flip, -right, right)
    cos, sin = jnp.cos(augmentation.angle), jnp.sin(augmentation.angle)
    rows = cos * down + sin * right + augmentation.shift[0] + middle_row
    columns = cos * right - sin * down + augmentation.shift[1] + middle_column
    return rows, columns


def _sample(image, rows, columns):
    """Interpolates the image `[h, w, c]` bilinearly at points `[...]`, zero outside: `[..., c]`."""
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
    """True `[h, w, 1]` in the square of `cutout_size` that begins size // 2 before its centre."""
    centre, size = jnp.asarray(augmentation.cutout_centre), jnp.asarray(augmentation.cutout_size)
    start = centre - size // 2
    rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
    within_rows = (rows >= start[0]) & (rows < start[0] + size[0])
    return within_rows & (columns >= start[1]) & (columns < start[1] + size[1])


def as_strategy(strategy: Strategy) -> tuple[str, ...] | Callable[..., Any]:
    """Returns names as a tuple, which can be compared and hashed, and a function as it is.

    Raises:
        ValueError: a name is not an operation.
        TypeError: the strategy is a string.

    >>> as_strategy(["crop", "flip"])
    ('crop', 'flip')
    """
    if callable(strategy):
        return strategy
    check_strategy(strategy)
    return tuple(strategy)


def check_strategy(strategy: Sequence[str]) -> None:
    """Refuses what is no sequence of names out of `OPERATIONS`.

    Raises:
        ValueError: names what was found, and what may have been meant.
        TypeError: for a single string.
    """
    if isinstance(strategy, str):
        raise TypeError(f"strategy must be a sequence of names, found the string {strategy!r}")
    for name in strategy:
        if name not in OPERATIONS:
            near = difflib.get_close_matches(str(name), OPERATIONS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"strategy must be of {OPERATIONS}, found {name!r}{hint}")


def _check_images(name, images, axes):
    if images.ndim != axes.count(",") + 1:
        raise ValueError(f"{name} must be of shape [{axes}], found {images.shape}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"{name} must be of a floating dtype, found {images.dtype}")
