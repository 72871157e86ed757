"""The biased benchmarks as tensorflow-datasets builders, and any TFDS set as a benchmark.

Importing this module registers a builder for each of `recipes.RECIPES`, none of which needs
TensorFlow. Where names of benchmarks have hyphens, names of builders have underscores:

    import tensorflow_datasets as tfds
    import jaxdd.data.builders

    train = tfds.data_source("cmnist/conflict_0.05", split="train")

A config is named after the share of conflicting images and, for shades and corruptions, the
severity if it is not 4: `conflict_0.05_severity_2`. Examples are the arrays of
`jaxdd.data.benchmarks.load` at seed 0, shuffled by TFDS; `index` is the row of an example in them.

Original files are looked for in the manual_dir of TFDS (`data_dir/downloads/manual` by default), in
its folder `mnist`, `fashion_mnist` or `cifar10` or directly; `jaxdd.data.archives` downloads those
that are missing.
"""

import dataclasses
import difflib
import importlib.util
import os
from typing import cast

import numpy as np
import requests

from jaxdd import augment
from jaxdd.data import _arguments, archives, benchmarks, citations, datasets, recipes

try:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import utils
    from tensorflow_datasets.core.download import checksums
except ImportError as error:
    raise ImportError(
        "jaxdd.data.builders needs tensorflow-datasets: "
        f"pip install tensorflow-datasets importlib_resources pillow ({error})"
    ) from error

_RATIOS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_HOMEPAGES = {
    "lff": "https://github.com/alinlab/LfF",
    "fairdd": "https://github.com/zqhang/FairDD",
    "weights": "https://arxiv.org/abs/2406.06609",
    "jaxdd": "https://github.com/zalandoresearch/fashion-mnist",
}


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
    """Strength of the bias of a benchmark. Prepared configs are identified by name alone.

    Attributes:
        conflict: share of each training class that conflicts, in [0, 1].
        severity: 1..4, or None for the default or if the benchmark has none.
    """

    conflict: float = 0.05
    severity: int | None = None


class _Biased(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of all builders of this module."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = """Not needed: missing files are downloaded. The original files
    may be here, directly or in a folder with the name of their data set."""

    RECIPE: recipes.Recipe

    def __init__(self, *, file_format="array_record", **options):
        # The default of TFDS, tfrecord, can neither be written nor read without TensorFlow.
        super().__init__(file_format=file_format, **options)

    @utils.classproperty
    @classmethod
    def url_infos(cls):
        """Size and SHA-256 of the original files by address, as registered in TFDS."""
        archive = archives.ARCHIVES.get(cls.RECIPE.source, archives.Archive("", {}))
        known = checksums.get_all_url_infos()
        return {url: known[url] for file in archive.md5 if (url := archive.url + file) in known}

    def _info(self):
        recipe, source = self.RECIPE, recipes.SOURCES[self.RECIPE.source]
        features = {
            "image": tfds.features.Image(shape=(*source.shape[:2], 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=len(source.classes)),
            "attribute": tfds.features.ClassLabel(num_classes=len(recipe.attributes)),
            "aligned": tfds.features.Scalar(np.bool_, doc="attribute is that of the class"),
            "index": tfds.features.Scalar(
                np.int64, doc="row in the arrays of jaxdd.data.benchmarks"
            ),
        }
        papers = recipe.citations[:1] or ("jaxdd",)
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{type(self).__doc__} The training set is biased, the test set is "
            "not. `jaxdd.data.benchmarks.load` has the same images as arrays.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage=_HOMEPAGES[papers[0]],
            citation="\n\n".join(citations.BIBTEX[key] for key in (*papers, source.citation)),
        )

    def _split_generators(self, dl_manager):
        try:
            manual_dir = dl_manager.manual_dir
        except AssertionError:  # the folder is missing or empty
            manual_dir = None
        config = cast(Config, self.builder_config)
        benchmark = benchmarks.load(
            self.name.replace("_", "-"),
            data_dir=manual_dir,
            conflict=config.conflict,
            severity=config.severity,
        )
        return {
            "train": self._generate_examples(benchmark.train, benchmark.aligned),
            "test": self._generate_examples(benchmark.test, benchmark.aligned),
        }

    def _generate_examples(self, data, aligned):
        from PIL import Image

        for index, (image, label, attribute) in enumerate(zip(*data, strict=True)):
            yield (
                index,
                {
                    "image": Image.fromarray(image),
                    "label": label,
                    "attribute": attribute,
                    "aligned": attribute == aligned[label],
                    "index": index,
                },
            )


def _configs(recipe):
    severities = (None,) if recipe.severity is None else (None, 1, 2, 3, 4)
    return [
        Config(
            name=f"conflict_{conflict:g}{f'_severity_{severity}' if severity else ''}",
            description=f"{conflict:.1%} of each training class conflict.",
            conflict=conflict,
            severity=severity,
        )
        for severity in severities
        for conflict in recipe.ratios or _RATIOS
    ]


def _builder_class(name, recipe):
    """Make the builder class of a recipe; TFDS registers `CmnistFg` as cmnist_fg."""
    attributes = {
        "__doc__": f"{recipe.source} with a bias: {recipe.about}.",
        "__module__": __name__,
        "RECIPE": recipe,
        "BUILDER_CONFIGS": _configs(recipe),
        "DEFAULT_BUILDER_CONFIG_NAME": f"conflict_{recipe.conflict:g}",
    }
    return type("".join(map(str.capitalize, name.split("-"))), (_Biased,), attributes)


# Data sources that are sent to worker processes find their builder by module and name.
_builders = (_builder_class(name, recipe) for name, recipe in recipes.RECIPES.items())
globals().update({builder.__name__: builder for builder in _builders})


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    resize: int | None = None,
    strategy: augment.Strategy | None = None,
) -> datasets.Benchmark:
    """Load any tensorflow-datasets set of images with integer labels as a benchmark.

    A set that is prepared in `data_dir` (as array_record) is read without TensorFlow and without
    network access. Others are prepared first: sets that come with TFDS need TensorFlow for that,
    those of this module do not.

    Args:
        name: as for `tfds.data_source`: "svhn_cropped", "cmnist/conflict_0.05".
        data_dir: folder of TFDS for its sets. Defaults to that of TFDS.
        resize: height and width to resize all images to, bilinearly; needed if they differ.
        strategy: augmentation operations, as for `datasets.from_arrays`. Defaults to all but flips.

    Returns:
        The result of `datasets.from_arrays` for the splits train and test, in their order on disk.
        A fifth of train is split off if there is no test split. Image and label are the supervised
        keys of the set, or its features "image" and "label"; attributes are its integer feature
        "attribute".

    Raises:
        ImportError: a set that only TensorFlow can prepare.
        OSError: original files that are missing and cannot be downloaded.
    """
    if resize is not None:
        resize = _arguments.integer("resize", resize, 1, 256)
    if strategy is not None:
        augment.as_strategy(strategy)  # checked before any download
    builder = _builder(name, data_dir)
    keys = _columns(name, builder.info)
    if not builder.is_prepared():
        _prepare(name, builder)
    splits = builder.info.splits
    if "train" not in splits:
        raise ValueError(f"{name} has no train split, got {', '.join(splits)}.")
    train = _read(name, builder, "train", keys, resize)
    test = _read(name, builder, "test", keys, resize) if "test" in splits else None
    return datasets.from_arrays(*train, test=test, strategy=strategy, name=name)


def _builder(name, data_dir):
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(name.split("/")[0].lower(), known, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown tensorflow-datasets set {name!r}{hint}") from None
    except ValueError as error:  # an unknown config; the message has several lines
        raise ValueError(" ".join(str(error).split())) from error
    except Exception as error:  # from protobuf if dataset_info.json is damaged
        raise ValueError(f"{name} is not readable: {error}") from error


def _columns(name, info):
    features = dict(info.features.items())
    keys = info.supervised_keys or ("image", "label")
    image, label = keys[:2] if all(isinstance(key, str) for key in keys) else ("image", "label")
    if not isinstance(features.get(image), tfds.features.Image):
        raise ValueError(f"{name} has no image feature {image!r}, got {', '.join(features)}.")
    if not _is_integer(features.get(label)):
        raise ValueError(
            f"{name} has no integer feature {label!r} for the label, got {', '.join(features)}."
        )
    return image, label, *["attribute"] * _is_integer(features.get("attribute"))


def _is_integer(feature):
    return getattr(feature, "shape", None) == () and np.issubdtype(feature.np_dtype, np.integer)


def _prepare(name, builder):
    stock = type(builder).__module__.startswith("tensorflow_datasets.")
    if stock and importlib.util.find_spec("tensorflow") is None:
        raise ImportError(
            f"{name} is not prepared in {builder.data_dir_root}, and only TensorFlow can prepare "
            f"it; run tfds.builder({name!r}).download_and_prepare(file_format='array_record') "
            "where TensorFlow is installed."
        )
    url = next(iter(builder.url_infos or ()), "")
    if stock and url.startswith("http"):
        # Checked first, because TFDS keeps trying for minutes if there is no network.
        try:
            requests.head(url, allow_redirects=True, timeout=archives.TIMEOUT)
        except requests.ConnectionError as error:
            raise FileNotFoundError(
                f"{name} is not prepared in {builder.data_dir_root}, and {url} cannot be reached"
            ) from error
    builder.download_and_prepare(file_format="array_record")


def _read(name, builder, split, keys, resize):
    try:
        source = builder.as_data_source(split)
        rows = [[example[key] for key in keys] for example in source]
    except NotImplementedError:
        raise ValueError(
            f"{name} is prepared as {builder.info.file_format.value} in {builder.data_dir}, which "
            "only TensorFlow reads; prepare it as array_record in another data_dir."
        ) from None
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(f"{name} in {builder.data_dir} is damaged: {error}") from error
    images, *integers = zip(*rows, strict=True)
    if resize is not None:
        images = [_resize(image, resize) for image in images]
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        raise ValueError(
            f"the images of {name} must have one shape, got {len(shapes)} from {shapes[0]} to "
            f"{shapes[-1]}; resize them, for example with resize=32."
        )
    return np.stack(images), *map(np.array, integers)


def _resize(image, size):
    from PIL import Image

    grey = image.shape[-1] == 1
    image = Image.fromarray(image[..., 0] if grey else image)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).reshape(size, size, -1)
