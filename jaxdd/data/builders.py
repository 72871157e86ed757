"""Disk: the biased benchmarks as tensorflow-datasets builders, and any TFDS set as one.

Importing this module registers the builders; none of them needs TensorFlow:

    import tensorflow_datasets as tfds
    import jaxdd.data.builders

    train = tfds.data_source("cmnist/conflict_0.05", split="train")

A config is the share of images that conflict and, where there are shades, how pure they are:
`conflict_0.05_severity_2`; severity is 4 where it is not named. Its examples are the arrays of
`jaxdd.data.benchmarks.load` at seed 0, shuffled by TFDS: `index` is the place of an example there.

Original files are looked for in TFDS's manual_dir (`data_dir/downloads/manual`, unless
`tfds.download.DownloadConfig` names another), in its folder `mnist`, `fashion_mnist` or `cifar10`
or directly; then `jaxdd.data.archives` finds or downloads them. It checks the md5 sum of every
archive that is read; `url_infos` has the sizes and SHA-256 sums under which TFDS itself knows the
files.
"""

import dataclasses
import difflib
import importlib.util
import os
from typing import cast

import numpy as np
import pooch
import requests

from jaxdd.data import archives, benchmarks, citations, datasets

try:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import utils
    from tensorflow_datasets.core.download import checksums
except ImportError as error:
    raise ImportError(
        "jaxdd.data.builders needs tensorflow-datasets: "
        f"pip install tensorflow-datasets importlib_resources pillow ({error})"
    ) from error

_CITATIONS = citations.SOURCES | {"bgfmnist": citations.SOURCES["weights"]}
_CLOTHES = "https://github.com/zalandoresearch/fashion-mnist"


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
    """How biased a benchmark is; once prepared, TFDS tells configs apart by their names alone.

    Attributes:
        conflict: share of each training class that conflicts, in [0, 1].
        severity: 1..4, how pure the shades are; None for the default, or where there are none.
    """

    conflict: float = 0.05
    severity: int | None = None


_RATIOS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def _configs(*severities, ratios=_RATIOS):
    return [
        Config(
            name=f"conflict_{conflict:g}{f'_severity_{severity}' if severity else ''}",
            description=f"{conflict:.1%} of each training class conflict.",
            conflict=conflict,
            severity=severity,
        )
        for severity in (None, *severities)
        for conflict in ratios
    ]


class _Biased(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What all builders share; where `benchmarks` has hyphens, their names have underscores."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = """Not needed: what is missing is downloaded. The original
    files may lie here, directly or in a folder with the name of their data set."""

    SOURCE: str
    PAPER: str
    HOMEPAGE: str
    IMAGE_SHAPE = (32, 32, 3)
    NUM_CLASSES = 10
    NUM_ATTRIBUTES = 10

    def __init__(self, *, file_format="array_record", **options):
        # TFDS's own default, tfrecord, can neither be written nor read without TensorFlow.
        super().__init__(file_format=file_format, **options)

    @utils.classproperty
    @classmethod
    def url_infos(cls):
        """Size and SHA-256 sum of the original files by address, as registered in TFDS."""
        archive = archives.ARCHIVES.get(cls.SOURCE, archives.Archive("", {}))
        known = checksums.get_all_url_infos()
        return {url: known[url] for file in archive.md5 if (url := archive.url + file) in known}

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=self.IMAGE_SHAPE, encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=self.NUM_CLASSES),
            "attribute": tfds.features.ClassLabel(num_classes=self.NUM_ATTRIBUTES),
            "aligned": tfds.features.Scalar(np.bool_, doc="attribute is that of the class"),
            "index": tfds.features.Scalar(
                np.int64, doc="place in the arrays of jaxdd.data.benchmarks"
            ),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{type(self).__doc__} The training set is biased, the test set is "
            "not. `jaxdd.data.benchmarks.load` has the same images as arrays.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage=self.HOMEPAGE,
            citation=f"{_CITATIONS[self.PAPER]}\n\n{_CITATIONS[self.SOURCE]}",
        )

    def _split_generators(self, dl_manager):
        try:
            manual_dir = dl_manager.manual_dir
        except AssertionError:  # there is no such folder, or it is empty
            manual_dir = None
        config = cast(Config, self.builder_config)
        found = benchmarks.load(
            self.name.replace("_", "-"),
            data_dir=manual_dir,
            conflict=config.conflict,
            severity=config.severity,
        )
        return {
            "train": self._generate_examples(found.train, found.aligned),
            "test": self._generate_examples(found.test, found.aligned),
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


class _Shaded(_Biased, skip_registration=True):
    PAPER, HOMEPAGE = "lff", "https://github.com/alinlab/LfF"
    BUILDER_CONFIGS, DEFAULT_BUILDER_CONFIG_NAME = _configs(1, 2, 3, 4), "conflict_0.05"


class _Solid(_Biased, skip_registration=True):
    PAPER, HOMEPAGE = "fairdd", "https://github.com/zqhang/FairDD"
    BUILDER_CONFIGS, DEFAULT_BUILDER_CONFIG_NAME = _configs(), "conflict_0.1"


# The table of benchmarks. TFDS registers cmnist_fg for CmnistFg and so on.


class Cdigits(_Shaded):
    """Scikit-learn's handwritten digits in shades of ten colours on black."""

    SOURCE, IMAGE_SHAPE = "digits", (16, 16, 3)
    DEFAULT_BUILDER_CONFIG_NAME = "conflict_0.1"


class Cmnist(_Shaded):
    """MNIST in shades of ten colours on black."""

    SOURCE = "mnist"


class Cfmnist(_Shaded):
    """Fashion-MNIST in shades of ten colours on black."""

    SOURCE = "fashion_mnist"


class CmnistPairs(_Shaded):
    """MNIST in shades of either of two colours on black, one pair of them for two classes."""

    SOURCE, NUM_ATTRIBUTES = "mnist", 5


class CmnistFg(_Solid):
    """MNIST in ten solid colours on black."""

    SOURCE = "mnist"


class CmnistBg(_Solid):
    """MNIST in black on ten solid colours."""

    SOURCE = "mnist"


class CfmnistFg(_Solid):
    """Fashion-MNIST in ten solid colours on black."""

    SOURCE = "fashion_mnist"


class CfmnistBg(_Solid):
    """Fashion-MNIST in black on ten solid colours."""

    SOURCE = "fashion_mnist"


class CmnistDd(_Shaded):
    """MNIST in shades of ten colours on black, at the ratios of CMNIST-DD."""

    SOURCE = "mnist"
    BUILDER_CONFIGS = _configs(1, 2, 3, 4, ratios=benchmarks.RECIPES["cmnist-dd"].ratios)


class Bgfmnist(_Biased):
    """Fashion-MNIST in front of CIFAR-10 images, one category of them for each class."""

    SOURCE, PAPER, HOMEPAGE = "fashion_mnist", "bgfmnist", "https://arxiv.org/abs/2406.06609"
    BUILDER_CONFIGS, DEFAULT_BUILDER_CONFIG_NAME = _configs(), "conflict_0.05"


class Cbgfmnist(Bgfmnist):
    """Fashion-MNIST in any colour in front of CIFAR-10 images of one category for each class."""


class BgfmnistFew(Bgfmnist):
    """Fashion-MNIST in front of five CIFAR-10 images of one category for each class."""


class FmnistScale(_Biased):
    """Fashion-MNIST in one of five sizes anywhere in the image, one size for two classes."""

    SOURCE, PAPER, HOMEPAGE, NUM_ATTRIBUTES = "fashion_mnist", "jaxdd", _CLOTHES, 5
    BUILDER_CONFIGS, DEFAULT_BUILDER_CONFIG_NAME = _configs(), "conflict_0.05"


class FmnistTexture(_Biased):
    """Fashion-MNIST in one of ten patterns of light and dark, one for each class."""

    SOURCE, PAPER, HOMEPAGE = "fashion_mnist", "jaxdd", _CLOTHES
    BUILDER_CONFIGS, DEFAULT_BUILDER_CONFIG_NAME = _configs(), "conflict_0.05"


class Ccifar10(_Shaded):
    """CIFAR-10 under ten corruptions, one for each class."""

    SOURCE = "cifar10"


class Ccifar10Dd(Ccifar10):
    """CIFAR-10 under ten corruptions, at the ratios of CCIFAR10-DD."""

    BUILDER_CONFIGS = _configs(1, 2, 3, 4, ratios=benchmarks.RECIPES["ccifar10-dd"].ratios)


class Cifar10S(_Solid):
    """CIFAR-10 with classes 0 to 4 mostly in grey and 5 to 9 mostly in colour."""

    SOURCE, NUM_ATTRIBUTES = "cifar10", 2


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    resize: int | None = None,
    strategy: datasets.Strategy | None = None,
) -> datasets.Benchmark:
    """Loads any tensorflow-datasets set of images with integer labels as a benchmark.

    A set that is prepared in `data_dir` (as array_record) is read without TensorFlow and without
    network. One that is not is prepared first: those of this module need no TensorFlow for that,
    those that come with TFDS do.

    Args:
        name: as in `tfds.data_source`: "svhn_cropped", "cmnist/conflict_0.05".
        data_dir: where TFDS keeps its sets; its own default where None.
        resize: height and width to bring every image to, bilinearly; needed where they differ.
        strategy: augmentation operations, as in `jaxdd.data.datasets.from_arrays`; no flips by
            default.

    Returns:
        What `jaxdd.data.datasets.from_arrays` makes of the splits train and test, in their order on
        disk; without a test split, a fifth of train is split off. Image and label are the
        supervised keys of the set, or its features "image" and "label"; attributes are its integers
        "attribute".

    Raises:
        ValueError: an unknown name, config or augmentation operation, a set without images, integer
            labels or a train split, images of several shapes, or a set prepared in a format that
            needs TensorFlow.
        ImportError: a set that only TensorFlow can prepare.
        OSError: original files that are absent and cannot be downloaded.
    """
    if resize is not None:
        resize = datasets.check_integer("resize", resize, 1, 256)
    strategy = datasets.check_strategy(strategy)
    builder = _builder(name, data_dir)
    keys = _columns(name, builder.info)
    if not builder.is_prepared():
        _prepare(name, builder)
    splits = builder.info.splits
    if "train" not in splits:
        raise ValueError(f"{name} has no train split, found {', '.join(splits)}")
    train, test = (
        _read(name, builder, split, keys, resize) if split in splits else None
        for split in ("train", "test")
    )
    return datasets.from_arrays(*train, test=test, strategy=strategy, name=name)


def _builder(name, data_dir):
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(name.split("/")[0].lower(), known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown tensorflow-datasets set {name!r}{hint}") from None
    except ValueError as error:  # an unknown config, in several lines
        raise ValueError(" ".join(str(error).split())) from error
    except Exception as error:  # protobuf's own kind, of a damaged dataset_info.json
        raise ValueError(f"{name} is not readable: {error}") from error


def _columns(name, info):
    features = dict(info.features.items())
    keys = info.supervised_keys or ("image", "label")
    image, label = keys[:2] if all(isinstance(key, str) for key in keys) else ("image", "label")
    found = f"found {', '.join(features)}"
    if not isinstance(features.get(image), tfds.features.Image):
        raise ValueError(f"{name} has no image feature {image!r}, {found}")
    if not _is_integer(features.get(label)):
        raise ValueError(f"{name} has no integer feature {label!r} to be its label, {found}")
    if _is_integer(features.get("attribute")):
        return image, label, "attribute"
    return image, label


def _is_integer(feature):
    return getattr(feature, "shape", None) == () and np.issubdtype(feature.np_dtype, np.integer)


def _prepare(name, builder):
    stock = type(builder).__module__.startswith("tensorflow_datasets.")
    if stock and importlib.util.find_spec("tensorflow") is None:
        raise ImportError(
            f"{name} is not prepared in {builder.data_dir_root}, and only TensorFlow can prepare "
            f"it: there, tfds.builder({name!r}).download_and_prepare(file_format='array_record')"
        )
    url = next(iter(builder.url_infos or ()), "")
    if stock and url.startswith("http"):
        # Asked first, because TFDS goes on trying for minutes where there is no network.
        try:
            pooch.HTTPDownloader(timeout=archives.TIMEOUT)(url, None, None, check_only=True)
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
            "only TensorFlow reads; prepare it as array_record in another data_dir"
        ) from None
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(f"{name} in {builder.data_dir} is damaged: {error}") from error
    images, *integers = zip(*rows, strict=True)
    if resize is not None:
        images = [_resized(image, resize) for image in images]
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        raise ValueError(
            f"the images of {name} must have one shape, found {len(shapes)}, from {shapes[0]} to "
            f"{shapes[-1]}; resize them, for example with resize=32"
        )
    return np.stack(images), *map(np.array, integers)


def _resized(image, size):
    from PIL import Image

    grey = image.shape[-1] == 1
    image = Image.fromarray(image[..., 0] if grey else image)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).reshape(size, size, -1)
