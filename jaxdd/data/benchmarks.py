"""Load the benchmarks of the field by name.

A biased benchmark is made from an unbiased image set in two steps: attributes are assigned to
samples (`jaxdd.data.bias`) and drawn into the images (`jaxdd.data.rendering`, `corruptions`);
`jaxdd.data.recipes` lists them. Equal arguments give equal bytes on every machine and with every
version of JAX. Benchmarks made from downloaded files are cached in `files.CACHE`.
"""

import difflib
import hashlib
import json
import os
import pathlib
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdd import augment
from jaxdd.data import _arguments, _layouts, archives, bias, datasets, decoding, files, published
from jaxdd.data.datasets import Benchmark, Dataset
from jaxdd.data.recipes import RECIPES, SOURCES

NAMES = (*SOURCES, *RECIPES, *published.LAYOUTS)
"""Names that `load` accepts."""

_CACHE_BYTES = 8 * 2**30  # the least recently used files are deleted first
_RECIPES_VERSION = 2  # increase if the output of a recipe changes


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    seed: int = 0,
    test: str = "uniform",
    **options: Any,
) -> Benchmark:
    """Load a benchmark by its name.

    `NAMES` are those of unbiased image sets, of the biased benchmarks made from them
    (`recipes.RECIPES`), and of published folders: bffhq, celeba, utkface, waterbirds,
    tiny_imagenet, imagenette. `jaxdd datasets list` shows them all with one line each.

    Options, for the benchmarks that have them; None and False mean the default:

    | option | meaning |
    |---|---|
    | conflict | share of each training class that conflicts, in [0, 1]; defaults to .1 for cdigits, cifar10-s, and the -fg, -bg and -solid benchmarks, .005 for bffhq, .05 for all others |
    | severity | strength of shades or corruptions, 1..4; defaults to 4 |
    | placement | "centre" pads 28×28 images by two pixels on all sides, "corner" by four at the top and left as FairDD does |
    | scenes | `Benchmark` of ten classes with the scenes behind bgfmnist, bgfmnist-few and cbgfmnist; defaults to CIFAR-10 |
    | frost | folder of photographs of frost for ccifar10, of which every fifth row and column is used; by default ice crystals are drawn |
    | label, attribute | columns of an annotated set that are the class and the bias attribute |
    | resize | height and width of the images of a published folder, 1..256 |
    | skip_bad | whether to leave out images of a published folder that do not decode |

    Args:
        name: one of `NAMES`.
        data_dir: folder with the original files, in a sub-folder with the name of the set
            (`data_dir/mnist`) or directly. Files that are in neither are downloaded to
            `files.CACHE`. The digits need none.
        seed: random seed of attributes and rendering, in both training and test set; 0 <= seed <
            2**32.
        test: "uniform" for a test set whose attribute is independent of the class (cifar10-s: every
            image with every attribute), "conflicting" for one without aligned samples. The uniform
            test set of bffhq and of annotated sets is as its authors published it.
        **options: see the table above.

    Returns:
        The benchmark.

    Raises:
        ValueError: an unknown name, an option that the benchmark does not have or a value out of
            range, or a file that is not the original.
        OSError: files that are missing and cannot be downloaded.
    """  # noqa: E501
    _check_name(name)
    if data_dir is not None and not files.expand(data_dir).is_dir():
        raise FileNotFoundError(f"data_dir must be a folder, got {data_dir}.")
    options = {k: v for k, v in options.items() if v is not None and v is not False}
    known = _options_of(name)
    for option in options.keys() - known:
        value = getattr(options[option], "name", options[option])
        raise ValueError(f"{name} has no option {option}, got {option}={value!r}.")
    if test not in ("uniform", "conflicting"):
        raise ValueError(f"test must be uniform or conflicting, got {test!r}.")
    if test == "conflicting" and not {"conflict", "attribute"} & known:
        raise ValueError(f"{name} is unbiased and has no test set {test!r}.")
    seed = _arguments.seed(seed)
    if name in SOURCES:
        return _load_source(name, data_dir, **options)
    if name in RECIPES:
        return _load_recipe(name, data_dir, seed=seed, test=test, **options)
    if data_dir is None:
        raise ValueError(f"{name} must be downloaded by hand; give its folder as data_dir.")
    return _load_published(name, data_dir, seed=seed, test=test, **options)


def statistics(benchmark: Benchmark) -> dict[str, float | int | str | None]:
    """Count the content of a benchmark.

    Args:
        benchmark: benchmark with or without attributes.

    Returns:
        Sizes, shape and number of classes; with attributes also the share of conflicting training
        samples, the largest difference between the counts of the conflicting attributes of a class
        ("spread"), the mean over classes of `oracle_sample_sizes` ("oracle ess"), and the p-value
        of the chi-square test that attribute and class of the test samples are independent.
    """
    train, test = benchmark.train, benchmark.test
    numbers = {
        "train": len(train.labels), "test": len(test.labels), "classes": benchmark.num_classes,
        "shape": "×".join(map(str, train.images.shape[1:])),
    }  # fmt: skip
    if train.attributes is None or benchmark.aligned is None:
        return numbers
    counts = group_counts(benchmark, train)
    aligned = np.eye(benchmark.num_attributes, dtype=bool)[list(benchmark.aligned)]
    conflicting = counts[~aligned].reshape(benchmark.num_classes, -1)
    numbers |= {
        "attributes": benchmark.num_attributes,
        "conflict": float(conflicting.sum() / counts.sum()),
        "spread": int(np.ptp(conflicting, axis=1).max()) if conflicting.size else 0,
        "oracle ess": float(oracle_sample_sizes(counts).mean()),
    }
    if test.attributes is not None:
        from scipy.stats import chi2_contingency

        counts = group_counts(benchmark, test)
        result: Any = chi2_contingency(counts[:, counts.any(0)][counts.any(1)])
        numbers["independence p"] = float(result.pvalue)
    return numbers


class Description(NamedTuple):
    """A benchmark as text: sizes, default conflict, licence and one line about its look.

    `size` is height × width × channels, `attributes` the number of values of the bias attribute;
    `citations` are keys in `citations.BIBTEX`.
    """

    train: str
    test: str
    size: str
    attributes: str
    conflict: str
    licence: str
    about: str
    citations: tuple[str, ...]


def describe(name: str) -> Description:
    """Describe a benchmark without loading it.

    Args:
        name: one of `NAMES`.

    >>> describe("cmnist")[:5]
    ('60,000', '10,000', '32×32×3', '10', '0.05')
    """
    _check_name(name)
    if layout := published.LAYOUTS.get(name):
        train, test = (f"{count:,}" for count in layout.count)
        size, values = f"{layout.size}×{layout.size}×3", str(layout.attributes or "–")
        conflict = "–" if layout.conflict is None else f"{layout.conflict:g}"
        facts = layout.licence, layout.about, (layout.citation,)
        return Description(train, test, size, values, conflict, *facts)
    recipe = RECIPES.get(name)
    source = SOURCES[name if recipe is None else recipe.source]
    h, w, c = source.shape
    plain = Description(
        f"{source.train:,}", f"{source.test:,}", f"{h}×{w}×{c}", "–", "–", source.licence,
        "unbiased", (source.citation,),
    )  # fmt: skip
    if recipe is None:
        return plain
    k = len(recipe.attributes)
    return plain._replace(
        test=f"{source.test * (k if recipe.paired else 1):,}", size=f"{h}×{w}×3",
        attributes=str(k), conflict=f"{recipe.conflict:g}",
        licence=recipe.licence or source.licence, about=recipe.about,
        citations=(source.citation, *recipe.citations),
    )  # fmt: skip


def group_counts(benchmark: Benchmark, data: Dataset) -> np.ndarray:
    """Count the samples of each bias group, integers [classes, attributes].

    Samples whose attribute is -1, which is unknown, are not counted.

    Args:
        benchmark: benchmark with attributes.
        data: its training or its test set.
    """
    if data.attributes is None:
        raise ValueError(f"groups need bias attributes, {benchmark.name} has none.")
    counts = np.zeros((benchmark.num_classes, benchmark.num_attributes), int)
    known = data.attributes >= 0
    np.add.at(counts, (data.labels[known], data.attributes[known]), 1)
    return counts


def oracle_sample_sizes(counts: np.ndarray) -> np.ndarray:
    """Return the effective sample size of each class under oracle weights, [k].

    If every group of a class has the same weight, the size is G² / Σ 1/n_g over its G groups.

    Args:
        counts: number of samples of each group, [k, a]; every class has samples.

    >>> oracle_sample_sizes(np.array([[95, 5], [50, 50]]))
    array([ 19., 100.])
    """
    present = counts > 0
    return present.sum(1) ** 2 / (present / np.maximum(counts, 1)).sum(1)


def _check_name(name):
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {type(name).__name__}.")
    if name not in NAMES:
        close = difflib.get_close_matches(name.lower(), NAMES, 1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise ValueError(f"unknown data set {name!r}{hint} Known are {', '.join(NAMES)}.")


def _options_of(name):
    """Return the names of the options of a benchmark."""
    if name in SOURCES:
        return {"placement"}
    if recipe := RECIPES.get(name):
        some = {
            "severity": recipe.severity is not None,
            "scenes": recipe.scenes is not None,
            "frost": "frost" in recipe.attributes,
        }
        return {"conflict", "placement"} | {option for option, has in some.items() if has}
    layout = published.LAYOUTS[name]
    annotated = {"label", "attribute"} if layout.attribute is not None else set()
    return {"resize", "skip_bad"} | annotated | ({"conflict"} if layout.conflict else set())


# --- loaders -----------------------------------------------------------------------------------


def _load_source(name, data_dir, *, placement="centre"):
    """Load an unbiased image set."""
    if placement not in ("centre", "corner"):
        raise ValueError(f"placement must be 'centre' or 'corner', got {placement!r}.")
    source = SOURCES[name]
    strategy = augment.OPERATIONS if source.flips else datasets.UNFLIPPED
    if name == "digits":
        benchmark = datasets.from_arrays(*_digits(), strategy=strategy, name=name)
        return benchmark._replace(class_names=source.classes)
    parts = archives.read(name, data_dir)
    if parts[0][0].ndim == 3:
        pads = (2, 2) if placement == "centre" else (4, 0)
        parts = [(np.pad(x, ((0, 0), pads, pads))[..., None], y) for x, y in parts]
    train, test = (Dataset(images, labels.astype(np.int32)) for images, labels in parts)
    names, moments = source.classes, (source.mean, source.std)
    if source.mean:
        return Benchmark(name, train, test, len(names), 0, None, *moments, strategy, names)
    benchmark = datasets.from_arrays(
        *train, test=test, num_classes=len(names), strategy=strategy, name=name
    )
    return benchmark._replace(class_names=names)


def _digits(*, size=16):
    """Read scikit-learn's 1,797 digits, with levels 0..16 scaled to 0..255 and resized bilinearly.

    `datasets.from_arrays` always makes the same split of them, into 1,437 and 360 images.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    resized = [Image.fromarray(i).resize((size, size), Image.Resampling.BILINEAR) for i in images]
    return np.stack([np.asarray(image) for image in resized]), labels


def _load_recipe(
    name, data_dir, *, seed, test, conflict=None, severity=None, placement="centre", scenes=None,
    frost=None,
):  # fmt: skip
    """Load a biased benchmark from the cache, or make it."""
    recipe = RECIPES[name]
    conflict = _arguments.share("conflict", recipe.conflict if conflict is None else conflict)
    if recipe.ratios and not np.isclose(conflict, recipe.ratios, rtol=0, atol=1e-9).any():
        known = ", ".join(f"{ratio:g}" for ratio in recipe.ratios)
        raise ValueError(f"conflict of {name} must be one of {known}, got {conflict:g}.")
    if recipe.severity is not None:
        severity = recipe.severity if severity is None else severity
        severity = _arguments.integer("severity", severity, 1, 4)
    if scenes is not None and not isinstance(scenes, Benchmark):
        raise TypeError(f"scenes must be a Benchmark, got {type(scenes).__name__}.")
    photographs = None if frost is None else _photographs(frost)

    def make():
        plain = _load_source(recipe.source, data_dir, placement=placement)
        behind = scenes or (recipe.scenes and _load_source("cifar10", data_dir))
        return _make_biased(
            recipe, plain._replace(name=name), behind, conflict=conflict, seed=seed, test=test,
            severity=severity, frost=photographs,
        )  # fmt: skip

    if recipe.source == "digits":
        return make()  # faster than reading a file
    contents = [archives.fingerprint(recipe.source, data_dir)]
    if scenes is not None:
        contents.append(datasets.digest(scenes))
    elif recipe.scenes is not None:
        contents.append(archives.fingerprint("cifar10", data_dir))
    if photographs is not None:
        contents.append(files.digest(photographs))
    key = [_RECIPES_VERSION, name, conflict, seed, test, severity, placement, contents]
    hashed = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    # Files appear whole, and two processes that make the same benchmark write the same bytes.
    path = files.CACHE.expanduser() / "benchmarks" / f"{name}-{hashed[:24]}.npz"
    benchmark = _read_cache(path)
    if benchmark is None:
        benchmark = make()
        _write_cache(path, benchmark)
    return benchmark


@jax.default_matmul_precision("highest")  # so that pixels are the same on every device
def _make_biased(recipe, plain, scenes, *, conflict, seed, test, severity, frost):
    """Assign attributes to an unbiased set and draw them into its images."""
    aligned = recipe.aligned or tuple(range(plain.num_classes))
    factors = recipe.factors or (len(recipe.attributes),)
    scenes_train = scenes_test = None
    if recipe.scenes is not None:
        _check_scenes(scenes, plain)
        scenes_train, scenes_test = recipe.scenes(scenes)

    def bias_part(key, data, scenes, share_of):
        key_attributes, key_look = jax.random.split(key)
        if share_of is None:
            data, attributes = _pair(data, len(recipe.attributes))
        else:
            attributes = _attributes(key_attributes, data.labels, aligned, factors, share_of)
        images = recipe.render(
            key_look, data.images, attributes, severity=severity, scenes=scenes, frost=frost
        )
        # A copy, because a view of a JAX array can be neither written nor passed to PyTorch.
        return Dataset(np.array(images), data.labels, attributes)

    # Conflict share of the test set by number of attribute values; None gives every combination.
    test_share = lambda count: 1 - 1 / count if test == "uniform" else 1.0
    test_share = None if recipe.paired and test == "uniform" else test_share
    # The generator is fixed, because another default (rbg) would give another benchmark.
    key_train, key_test = jax.random.split(jax.random.key(seed, impl="threefry2x32"))
    biased = plain._replace(
        train=bias_part(key_train, plain.train, scenes_train, lambda count: conflict),
        test=bias_part(key_test, plain.test, scenes_test, test_share),
        num_attributes=len(recipe.attributes),
        aligned=aligned,
        attribute_names=recipe.attributes,
    )
    grey = plain.train.images.shape[3] == 1
    return biased._replace(mean=(0.5,) * 3, std=(0.5,) * 3) if grey else biased


_assign = jax.jit(bias.assign, static_argnames=("num_classes", "num_attributes"))


def _attributes(key, labels, aligned, factors, share_of):
    """Draw the attribute of every factor and combine them into one index (row-major)."""
    aligned_factors = np.unravel_index(np.array(aligned), factors)
    keys = [key] if len(factors) == 1 else jax.random.split(key, len(factors))
    drawn = [
        _assign(
            key_factor, labels, num_classes=len(aligned), num_attributes=count,
            conflict=share_of(count), aligned=aligned_factor,
        )
        for key_factor, count, aligned_factor in zip(keys, factors, aligned_factors, strict=True)
    ]  # fmt: skip
    return np.ravel_multi_index(list(map(np.array, drawn)), factors).astype(np.int32)


def _pair(data, num_attributes):
    """Return every image with every attribute."""
    n = len(data.labels)
    repeated = Dataset(*(np.concatenate([field] * num_attributes) for field in data[:2]))
    return repeated, np.repeat(np.arange(num_attributes, dtype=np.int32), n)


def _check_scenes(scenes, plain):
    shape = (*plain.train.images.shape[1:3], 3)
    if scenes.num_classes != 10 or scenes.train.images.shape[1:] != shape:
        raise ValueError(
            f"scenes must be ten classes of images {shape}, got {scenes.num_classes} of "
            f"{scenes.train.images.shape[1:]}."
        )


def _load_published(name, data_dir, *, seed, test, **options):
    if "conflict" in options:
        options["conflict"] = _arguments.share("conflict", options["conflict"])
    folder = published.read(name, data_dir, seed=seed, **options)
    benchmark = datasets.from_folder(folder, strategy=augment.OPERATIONS, name=name)
    if test == "conflicting":
        benchmark = _conflicting(benchmark)
    if not len(benchmark.test.labels):
        raise ValueError(f"{name} has no conflicting test images with these columns.")
    return benchmark


def _conflicting(benchmark):
    """Return a benchmark with the conflicting test images only."""
    test = benchmark.test
    conflicts = test.attributes != np.array(benchmark.aligned)[test.labels]
    return benchmark._replace(test=datasets.select(test, conflicts))


def _photographs(folder):
    """Read every fifth row and column of the photographs in a folder, cut to the smallest of them.

    Corrupted CIFAR-10 shrinks them by linear interpolation, which takes pixels 2, 7, 12, ….
    """
    from PIL import Image

    paths = sorted(
        p for p in pathlib.Path(folder).iterdir() if p.suffix.lower() in _layouts.ENDINGS
    )
    if not paths:
        raise FileNotFoundError(f"no photographs of frost in {folder}")
    photographs = []
    for path in paths:
        try:
            photograph = Image.open(path, formats=decoding.FORMATS).convert("RGB")
        except Exception as error:  # pillow raises OSError, SyntaxError, struct.error and more
            raise ValueError(f"{path} does not decode: {error!r}") from error
        if min(photograph.size) < 5 * 32:
            raise ValueError(f"{path} must have sides of at least 160, got {photograph.size}.")
        photographs.append(np.asarray(photograph)[2::5, 2::5])
    h, w = np.min([p.shape[:2] for p in photographs], axis=0)
    return np.stack([p[:h, :w] for p in photographs])


# --- the cache of biased benchmarks ------------------------------------------------------------


def _write_cache(path, benchmark):
    fields = benchmark._asdict()
    parts = {part: fields.pop(part) for part in ("train", "test")}
    arrays = {f"{p}-{f}": v for p, data in parts.items() for f, v in data._asdict().items()}
    arrays["fields"] = np.array(json.dumps(fields))
    arrays["checksum"] = np.array(files.digest(*arrays.values()))
    try:
        files.prune(path.parent, _CACHE_BYTES - sum(array.nbytes for array in arrays.values()))
        files.write_arrays(path, arrays)
    except OSError as error:
        warnings.warn(f"{benchmark.name} could not be cached: {error}", stacklevel=4)


def _read_cache(path):
    """Return the benchmark in a file of the cache, or None if it is absent or damaged."""
    try:
        arrays = files.read_arrays(path)
        if str(arrays.pop("checksum")) != files.digest(*arrays.values()):
            return None
        os.utime(path)
    except (OSError, ValueError, KeyError):
        return None
    # JSON has lists where the benchmark had tuples.
    fields = json.loads(str(arrays["fields"])).items()
    fields: dict[str, Any] = {k: tuple(v) if type(v) is list else v for k, v in fields}
    for part in ("train", "test"):
        fields[part] = Dataset(*(arrays[f"{part}-{field}"] for field in Dataset._fields))
    return Benchmark(**fields)
