"""Tests of differentiable siamese augmentation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import ndimage

from jaxdd import augment


def normal_images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


# Jitted, because compiling one operation after the other takes most of the time.
apply = jax.jit(augment.apply)
siamese = jax.jit(augment.siamese, static_argnames="strategy")
draw = jax.jit(augment.draw, static_argnames=("shape", "strategy"))
per_image = jax.jit(augment.per_image, static_argnames="strategy")


def only(**parameters):
    """Return an augmentation with these parameters and otherwise identity values."""
    return augment.identity()._replace(
        **{name: jnp.asarray(value) for name, value in parameters.items()}
    )


# One augmentation per operation, none of them an identity.
EXAMPLES = {
    "color": only(brightness=0.3, saturation=1.7, contrast=0.6),
    "crop": only(shift=(-1.0, 2.0)),
    "cutout": only(cutout_centre=(2, 5), cutout_size=(4, 4)),
    "flip": only(flip=True),
    "scale": only(scale=(1.15, 0.9)),
    "rotate": only(angle=0.2),
}
IDENTITY = augment.identity()


@functools.cache
def many_draws(count=2000, shape=(32, 32, 3), seed=1, **options):
    keys = jax.random.split(jax.random.key(seed), count)
    return jax.jit(jax.vmap(lambda key: augment.draw(key, shape, **options)))(keys)


def operations_used(draws):
    """Return which operations each draw uses, [n] bool by name; inactive flips do not count."""

    def differs(*fields):
        differences = [
            np.any(np.reshape(getattr(draws, f) != getattr(IDENTITY, f), (len(draws.flip), -1)), 1)
            for f in fields
        ]
        return np.any(differences, axis=0)

    return {
        "color": differs("brightness", "saturation", "contrast"),
        "crop": differs("shift"),
        "cutout": differs("cutout_size"),
        "flip": differs("flip"),
        "scale": differs("scale"),
        "rotate": differs("angle"),
    }


# The reference implementation


def parameters_from_reference(name, draws):
    """Translate the uniform and integer numbers of the reference into an `Augmentation`."""
    if name == "color":
        return only(brightness=draws[0] - 0.5, saturation=2 * draws[1], contrast=draws[2] + 0.5)
    if name == "crop":
        return only(shift=np.array(draws, np.float32))
    if name == "cutout":
        return only(cutout_centre=np.array(draws, np.int32), cutout_size=(16, 16))
    if name == "flip":
        return only(flip=draws[0] < 0.5)
    if name == "scale":  # the first draw of the reference is along x, the columns
        return only(scale=np.array([u * (1.2 - 1 / 1.2) + 1 / 1.2 for u in draws[::-1]]))
    return only(angle=np.deg2rad((2 * draws[0] - 1) * 15))


@pytest.mark.parametrize("name", augment.OPERATIONS)
@pytest.mark.parametrize("sharing", ["siamese", "each"])
def test_agrees_with_the_reference_implementation(name, sharing, vectors):
    images = jnp.asarray(vectors["aug_x"]).transpose(0, 2, 3, 1)
    expected = vectors[f"aug_{sharing}_{name}"].transpose(0, 2, 3, 1)
    prefix = f"aug_{sharing}_{name}_draw"
    count = sum(key.startswith(prefix) for key in vectors)
    for i, image in enumerate(images):
        draws = [vectors[f"{prefix}{j}"][0 if sharing == "siamese" else i] for j in range(count)]
        augmented = apply(parameters_from_reference(name, draws), image)
        assert np.abs(augmented - expected[i]).max() < 1e-4 * np.abs(expected[i]).max()


# Values derived by hand


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (7, 9, 3), (20, 12, 4), (1, 1, 1)])
def test_identity_leaves_every_bit(shape):
    image = normal_images(*shape)
    np.testing.assert_array_equal(apply(augment.identity(), image), image)


def test_brightness_adds():
    image = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(2, 2, 1)
    augmented = apply(only(brightness=-0.25), image)
    np.testing.assert_array_equal(augmented.ravel(), [0.75, 1.75, 2.75, 3.75])


def test_saturation_by_hand():
    """Pixels (0, 3, 6) and (1, 1, 1) have channel means 3 and 1.

    Factor 2 doubles the differences: (3-6, 3, 3+6) and (1, 1, 1); factor 0 leaves the means.
    """
    image = jnp.array([[[0.0, 3.0, 6.0], [1.0, 1.0, 1.0]]])
    doubled = apply(only(saturation=2.0), image)
    np.testing.assert_allclose(doubled, [[[-3, 3, 9], [1, 1, 1]]], atol=1e-6)
    grey = apply(only(saturation=0.0), image)
    np.testing.assert_allclose(grey, [[[3, 3, 3], [1, 1, 1]]], atol=1e-6)


def test_contrast_by_hand():
    """Values 1, 2, 3, 6 have mean 3; factor 1/2 halves the differences: 2, 2.5, 3, 4.5."""
    image = jnp.array([1.0, 2.0, 3.0, 6.0]).reshape(2, 1, 2)
    augmented = apply(only(contrast=0.5), image)
    np.testing.assert_allclose(augmented.ravel(), [2, 2.5, 3, 4.5], atol=1e-6)


def test_color_order_by_hand():
    """A pixel (0, 2) becomes (1, 3) by brightness, (0, 4) by saturation, (1, 3) by contrast."""
    image = jnp.array([[[0.0, 2.0]]])
    augmented = apply(only(brightness=1.0, saturation=2.0, contrast=0.5), image)
    np.testing.assert_allclose(augmented, [[[1, 3]]], atol=1e-6)


def test_saturation_leaves_grey_images_unchanged():
    image = normal_images(6, 6, 1)
    np.testing.assert_array_equal(apply(only(saturation=1.9), image), image)


def test_flip_exchanges_left_and_right():
    image = normal_images(5, 6, 2)
    np.testing.assert_array_equal(apply(only(flip=True), image), image[:, ::-1])


def test_shift_fills_with_zeros():
    """The window moves one row down and two columns left, on a 4×4 image with values 1, 2, …

    The result has rows 1, 2, 3 and an empty one, and two empty columns followed by columns 0, 1.
    """
    image = jnp.arange(1.0, 17.0).reshape(4, 4, 1)
    augmented = apply(only(shift=(1.0, -2.0)), image)[:, :, 0]
    expected = [[0, 0, 5, 6], [0, 0, 9, 10], [0, 0, 13, 14], [0, 0, 0, 0]]
    np.testing.assert_array_equal(augmented, expected)


def test_a_shift_beyond_the_image_gives_zeros():
    assert not jnp.any(apply(only(shift=(0.0, 9.0)), normal_images(4, 4, 1)))


@pytest.mark.parametrize(
    ("centre", "size", "rows", "columns"),
    [
        ((3, 3), 2, (2, 4), (2, 4)),  # an even square lies half a pixel up and left
        ((3, 3), 3, (2, 5), (2, 5)),
        ((0, 8), 4, (0, 2), (6, 8)),  # clipped at the top and, from outside, at the right
        ((7, 0), 3, (6, 8), (0, 2)),
        ((4, 4), 0, (0, 0), (0, 0)),
    ],
)
def test_cutout_by_hand(centre, size, rows, columns):
    """The square of 8×8 ones covers [centre - size // 2, centre - size // 2 + size) each way."""
    expected = np.ones((8, 8, 2))
    expected[slice(*rows), slice(*columns)] = 0
    augmented = apply(only(cutout_centre=centre, cutout_size=(size, size)), jnp.ones((8, 8, 2)))
    np.testing.assert_array_equal(augmented, expected)


@pytest.mark.parametrize("side", [4, 5])
def test_a_quarter_turn_is_counter_clockwise(side):
    image = normal_images(side, side, 3)
    augmented = apply(only(angle=np.float32(np.pi / 2)), image)
    np.testing.assert_allclose(augmented, np.rot90(image), atol=2e-5)


def test_a_quarter_turn_of_an_oblong_image_is_in_pixels():
    """The central 4×4 of a 4×8 image is rotated like a square; the rest is 0.

    (A rotation in coordinates from -1 to 1 would squeeze all eight columns into the four rows.)
    """
    image = normal_images(4, 8, 1)
    augmented = apply(only(angle=np.float32(np.pi / 2)), image)
    np.testing.assert_allclose(augmented[:, 2:6], np.rot90(image[:, 2:6]), atol=2e-5)
    np.testing.assert_allclose(augmented[:, :1], 0, atol=2e-5)
    np.testing.assert_allclose(augmented[:, 7:], 0, atol=2e-5)


def test_scale_two_by_hand():
    """The output pixel at 1.5 + d is read at 1.5 + 2 d: at -1.5, 0.5, 2.5 and 4.5.

    Pixels 1, 2, 3, 4 become 0, (1 + 2) / 2, (3 + 4) / 2, 0: a smaller picture.
    """
    image = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1)
    augmented = apply(only(scale=(1.0, 2.0)), image)
    np.testing.assert_allclose(augmented.ravel(), [0, 1.5, 3.5, 0], atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8, 3), (28, 28, 1), (20, 12, 4), (7, 9, 2)])
def test_composition_agrees_with_scipy(shape):
    """All geometric operations together: source = R(angle) · scale · flip · p + shift, in float64.

    `affine_transform` reads the output pixel o at M o + t; about the middle m, t = m - M m + shift.
    """
    angle, scale, shift = 0.3, (1.1, 0.85), (1.0, -2.0)
    image = np.asarray(normal_images(*shape), np.float64)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.diag(scale) @ np.diag([1, -1])
    middle = (np.array(shape[:2]) - 1) / 2
    offset = middle - matrix @ middle + shift
    expected = [
        ndimage.affine_transform(channel, matrix, offset, order=1, mode="grid-constant")
        for channel in np.moveaxis(image, -1, 0)
    ]
    augmented = apply(only(angle=angle, scale=scale, shift=shift, flip=True), image)
    np.testing.assert_allclose(augmented, np.moveaxis(expected, 0, -1), atol=1e-4)


# Draws


def test_each_operation_is_drawn_equally_often():
    """Each of six occurs in 1000 of 6000 draws (visible flips in 500), with deviation up to 29."""
    used = operations_used(many_draws(6000))
    counts = {name: int(where.sum()) for name, where in used.items()}
    for name, count in counts.items():
        assert abs(count - (500 if name == "flip" else 1000)) < 5 * 29, counts
    assert np.sum(list(used.values()), axis=0).max() == 1


@pytest.mark.parametrize("name", augment.OPERATIONS)
def test_only_the_requested_operation_occurs(name):
    used = operations_used(many_draws(strategy=(name,)))
    for other, where in used.items():
        if other != name:
            assert not where.any()
    # A crop by zero pixels (1 in 81) and half of the flips have no effect.
    assert used[name].mean() > {"flip": 0.4, "crop": 0.95}.get(name, 0.999)


def test_flip_is_left_out_for_digits():
    digits = tuple(name for name in augment.OPERATIONS if name != "flip")
    used = operations_used(many_draws(strategy=digits))
    assert not used["flip"].any()
    assert all(where.any() for name, where in used.items() if name != "flip")


def test_an_empty_strategy_is_the_identity():
    parameters = augment.draw(jax.random.key(0), (8, 8, 3), strategy=())
    jax.tree.map(np.testing.assert_array_equal, parameters, IDENTITY)


def assert_uniform(values, low, high):
    """Check bounds, mean and extremes of a sample of uniform numbers."""
    values = np.asarray(values, np.float64)
    assert low <= values.min() < low + 0.02 * (high - low)
    assert high - 0.02 * (high - low) < values.max() <= high
    error = (high - low) / np.sqrt(12 * values.size)
    assert abs(values.mean() - (low + high) / 2) < 5 * error


def test_parameters_of_color_scale_and_rotate_are_uniform():
    color = many_draws(strategy=("color",))
    assert_uniform(color.brightness, -0.5, 0.5)
    assert_uniform(color.saturation, 0, 2)
    assert_uniform(color.contrast, 0.5, 1.5)
    correlation = np.corrcoef(np.stack([color.brightness, color.saturation, color.contrast]))
    assert np.abs(correlation - np.eye(3)).max() < 5 / np.sqrt(2000)
    scale = many_draws(strategy=("scale",)).scale
    assert_uniform(scale[:, 0], 1 / 1.2, 1.2)
    assert_uniform(scale[:, 1], 1 / 1.2, 1.2)
    assert abs(np.corrcoef(scale.T)[0, 1]) < 5 / np.sqrt(2000)
    assert_uniform(many_draws(strategy=("rotate",)).angle, -np.pi / 12, np.pi / 12 + 1e-7)


@pytest.mark.parametrize(
    ("shape", "reach"), [((32, 32, 3), (4, 4)), ((28, 28, 1), (4, 4)), ((20, 8, 4), (3, 1))]
)
def test_shifts_are_whole_and_take_every_value(shape, reach):
    """int(32/8 + .5) = 4, int(28/8 + .5) = 4, int(20/8 + .5) = 3, int(8/8 + .5) = 1."""
    shifts = np.asarray(many_draws(shape=shape, strategy=("crop",)).shift)
    for axis in (0, 1):
        expected = np.arange(-reach[axis], reach[axis] + 1)
        np.testing.assert_array_equal(np.unique(shifts[:, axis]), expected)


def test_cutout_centres_take_every_place():
    """Odd sizes (5 of 10 rows) have centres 0 … 9, even ones (4 of 7 columns) 0 … 7."""
    draws = many_draws(shape=(10, 7, 1), strategy=("cutout",))
    np.testing.assert_array_equal(np.unique(draws.cutout_size, axis=0), [[5, 4]])
    np.testing.assert_array_equal(np.unique(draws.cutout_centre[:, 0]), np.arange(10))
    np.testing.assert_array_equal(np.unique(draws.cutout_centre[:, 1]), np.arange(8))


def test_different_keys_differ_and_equal_keys_agree():
    images = normal_images(8, 16, 16, 3)
    results = [per_image(jax.random.key(seed), images) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(results[0], results[1])
    assert jnp.any(results[0] != results[2])


# Batches


@pytest.mark.parametrize("seed", range(4))
def test_siamese_shares_one_draw(seed):
    key, shape = jax.random.key(seed), (12, 12, 3)
    real, synthetic = normal_images(5, *shape), normal_images(2, *shape, seed=1)
    augmentation = draw(key, shape)
    for augmented, batch in zip(siamese(key, real, synthetic), (real, synthetic), strict=True):
        expected = jnp.stack([apply(augmentation, image) for image in batch])
        np.testing.assert_allclose(augmented, expected, atol=1e-5)


def test_siamese_of_one_batch_is_a_tuple_of_one():
    (augmented,) = siamese(jax.random.key(0), jnp.ones((3, 8, 8, 1)), strategy=("cutout",))
    assert augmented.shape == (3, 8, 8, 1)


def test_per_image_draws_anew_for_each_image():
    """More than 10 of the crops of 32 copies of an image differ; 81 crops are possible."""
    image = normal_images(1, 32, 32, 1)
    images = jnp.repeat(image, 32, axis=0)
    augmented = per_image(jax.random.key(0), images, strategy=("crop",))
    assert len(np.unique(np.asarray(augmented).reshape(32, -1), axis=0)) > 10


@pytest.mark.parametrize("shape", [(28, 28, 1), (8, 8, 3), (20, 12, 4), (5, 7, 2), (1, 1, 1)])
def test_per_image_is_apply_of_draw_at_every_size(shape):
    """Image i gets the draw of key i; sixty draws use all operations."""
    images = normal_images(60, *shape)
    augmented = per_image(jax.random.key(0), images)
    draws = many_draws(60, shape, seed=0)
    assert all(where.any() for where in operations_used(draws).values()) or shape == (1, 1, 1)
    draws = jax.tree.map(np.asarray, draws)
    for i, image in enumerate(np.asarray(images)):
        expected = apply(augment.Augmentation(*(leaf[i] for leaf in draws)), image)
        np.testing.assert_allclose(augmented[i], expected, atol=1e-4)


# Custom functions


def custom(key, image):
    return augment.apply(augment.draw(key, image.shape, strategy=("crop", "rotate")), image)


def test_a_custom_function_is_bit_identical_to_the_named_operations():
    key, real, synthetic = jax.random.key(1), normal_images(5, 8, 8, 3), normal_images(2, 8, 8, 3)
    for augmented, expected in zip(
        siamese(key, real, synthetic, strategy=custom),
        siamese(key, real, synthetic, strategy=("crop", "rotate")),
        strict=True,
    ):
        np.testing.assert_array_equal(augmented, expected)
    augmented = per_image(key, real, strategy=custom)
    np.testing.assert_array_equal(augmented, per_image(key, real, strategy=("crop", "rotate")))
    assert (augmented[0] != real[0]).any()


@pytest.mark.parametrize("strategy", [lambda key, x: x[1:], lambda key, x: x.mean()])
def test_a_custom_function_that_changes_the_shape_raises(strategy):
    images = jnp.ones((2, 8, 8, 3))
    for augmented in (augment.siamese, augment.per_image):
        with pytest.raises(ValueError, match=r"\(8, 8, 3\).*got \("):
            augmented(jax.random.key(0), images, strategy=strategy)


def test_a_resized_crop_is_a_resampled_part():
    """The crop of a ramp is a ramp with a slope of at most one, constant at the border."""
    ramp = jnp.stack(jnp.meshgrid(jnp.arange(6.0), jnp.arange(6.0), indexing="ij"), -1)
    crop = functools.partial(augment.resized_crop, image=ramp, min_area=0.3, shift=0)
    crops = np.asarray(jax.jit(jax.vmap(crop))(jax.random.split(jax.random.key(0), 40)))
    rows, columns = crops[:, :, 0, 0], crops[:, 0, :, 1]
    np.testing.assert_allclose(crops[..., 0], rows[:, :, None] + np.zeros((1, 1, 6)), atol=1e-5)
    flipped = columns[:, 0] > columns[:, -1]
    assert 8 < flipped.sum() < 32
    for lines in (rows, np.where(flipped[:, None], columns[:, ::-1], columns)):
        steps = np.diff(lines, axis=1)
        assert lines.min() >= 0 and lines.max() <= 5 and steps.max() <= 1 + 1e-5
        inner = steps[:, 1:-1]
        np.testing.assert_allclose(inner, inner[:, :1] + np.zeros((1, 3)), atol=1e-5)
        assert (inner > 0.4).all() and inner.min() < 0.7


# Transformations


@pytest.mark.parametrize("transform", ["plain", "vmap"])
def test_transformations_agree(transform):
    images = normal_images(len(EXAMPLES), 9, 9, 3)
    augmentations = jax.tree.map(lambda *leaves: jnp.stack(leaves), *EXAMPLES.values())
    pairs = list(zip(EXAMPLES.values(), images, strict=True))
    expected = jnp.stack([apply(a, x) for a, x in pairs])
    transformed = {
        "plain": lambda a, x: jnp.stack([augment.apply(a, x) for a, x in pairs]),
        "vmap": jax.vmap(apply),
    }[transform]
    np.testing.assert_allclose(transformed(augmentations, images), expected, atol=1e-5)


def test_siamese_over_classes_equals_a_loop():
    keys = jax.random.split(jax.random.key(3), 4)
    real, synthetic = normal_images(4, 3, 8, 8, 2), normal_images(4, 2, 8, 8, 2)
    augmented = jax.jit(jax.vmap(siamese))(keys, real, synthetic)
    for c in range(4):
        single = siamese(keys[c], real[c], synthetic[c])
        for all_classes, expected in zip(augmented, single, strict=True):
            np.testing.assert_allclose(all_classes[c], expected, atol=1e-5)


@pytest.mark.parametrize("name", augment.OPERATIONS)
def test_gradient_in_the_image(name):
    image = normal_images(6, 7, 2)
    check_grads(lambda x: apply(EXAMPLES[name], x), (image,), 1, atol=1e-2, rtol=1e-2)


def test_gradient_of_a_crop_is_one_inside_the_crop():
    """A 3×3 image moved by one row and one column keeps its upper left 2×2 pixels."""
    gradient = jax.grad(lambda x: apply(only(shift=(-1.0, -1.0)), x).sum())
    expected = [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    np.testing.assert_array_equal(gradient(jnp.ones((3, 3, 1)))[:, :, 0], expected)


@pytest.mark.parametrize("name", augment.OPERATIONS)
def test_bfloat16_is_rounded_once(name):
    """Both ways are in one program, so that XLA treats equal arithmetic equally."""

    @jax.jit
    def both(image):
        wide = augment.apply(EXAMPLES[name], image.astype(jnp.float32))
        return augment.apply(EXAMPLES[name], image), wide.astype(jnp.bfloat16)

    actual, expected = both(normal_images(32, 32, 3).astype(jnp.bfloat16))
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_array_equal(actual, expected)


def test_one_trace_for_many_keys():
    traces = []

    @jax.jit
    def augmented(key, images):
        traces.append(None)
        return siamese(key, images)

    for seed in range(8):
        augmented(jax.random.key(seed), jnp.ones((2, 8, 8, 3)))
    assert len(traces) == 1


def test_memory_of_siamese_is_a_few_times_the_batch():
    """There is no dense interpolation matrix (64 MiB) and no copy of the batch per tap."""
    images = jax.ShapeDtypeStruct((16, 64, 64, 3), jnp.float32)
    lowered = jax.jit(augment.siamese).lower(jax.random.key(0), images)
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 4 * 4 * images.size


# Bad inputs


def test_unknown_operations_name_the_nearest():
    with pytest.raises(ValueError, match="'rotation'.*'rotate'\\?"):
        augment.draw(jax.random.key(0), (8, 8, 3), strategy=("crop", "rotation"))
    with pytest.raises(ValueError, match=r"'xyz'\.$"):
        augment.draw(jax.random.key(0), (8, 8, 3), strategy=("xyz",))


def test_a_string_as_strategy_raises():
    with pytest.raises(TypeError, match="'flip'"):
        augment.siamese(jax.random.key(0), jnp.ones((2, 8, 8, 3)), strategy="flip")
    with pytest.raises(TypeError, match="'flip'"):
        augment.as_strategy("flip")
    assert augment.as_strategy(augment.apply) is augment.apply


@pytest.mark.parametrize(
    ("call", "error", "value"),
    [
        (lambda k: augment.draw(k, (8, 8)), ValueError, r"got \(8, 8\)"),
        (lambda k: augment.apply(IDENTITY, jnp.ones((2, 8, 8, 3))), ValueError, r"got \(2, 8"),
        (lambda k: augment.apply(IDENTITY, jnp.ones((8, 8, 3), int)), TypeError, "int32"),
        (lambda k: augment.per_image(k, jnp.ones((8, 8, 3))), ValueError, r"got \(8, 8, 3\)"),
        (lambda k: augment.per_image(k, jnp.ones((2, 8, 8, 3), "uint8")), TypeError, "uint8"),
        (lambda k: augment.siamese(k), ValueError, "none"),
        (lambda k: augment.siamese(k, jnp.ones((8, 8, 3))), ValueError, r"got \(8, 8, 3\)"),
        (
            lambda k: augment.siamese(k, jnp.ones((2, 8, 8, 3)), jnp.ones((2, 8, 8, 1))),
            ValueError,
            r"\[\(8, 8, 3\), \(8, 8, 1\)\]",
        ),
        (lambda k: augment.resized_crop(k, jnp.ones((8, 8, 3)), min_area=0.0), ValueError, "0.0"),
    ],
)
def test_invalid_inputs_raise(call, error, value):
    with pytest.raises(error, match=value):
        call(jax.random.key(0))
