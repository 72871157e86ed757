"""TFDS builders: prepared sets equal the arrays, and any TFDS set becomes a benchmark.

No test touches the network. Tests on the original MNIST skip where ../shared/data is absent.
"""

import hashlib
import importlib
import importlib.util
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxdd.data import archives, benchmarks, builders, datasets, recipes

NAMES = ("cdigits", "cmnist_fg", "cmnist_pairs", "bgfmnist_few", "cmnist_dd", "cifar10_two")
FIELDS = ("image", "label", "attribute")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Return a folder in which TFDS has prepared the digits."""
    folder = tmp_path_factory.mktemp("tfds")
    tfds.data_source("cdigits/conflict_0.1", data_dir=folder, split="train")
    return folder


@pytest.fixture
def manual(clothes):
    """A manual_dir with random images in the format of MNIST and Fashion-MNIST."""
    return clothes


def source(name, split, data_dir, **config):
    kwargs = {"download_config": tfds.download.DownloadConfig(**config)} if config else None
    return tfds.data_source(
        name, split=split, data_dir=data_dir, download_and_prepare_kwargs=kwargs
    )


def assert_same(examples, data, aligned):
    """Check that examples equal the arrays at their index, each of which occurs once."""
    index = [example["index"] for example in examples]
    assert len(set(index)) == len(index)
    assert sorted(index) == list(range(len(data.labels)))
    for column, name in zip(data, FIELDS, strict=True):
        values = np.array([example[name] for example in examples])
        assert values.shape == column[index].shape and (values == column[index]).all()
    expected = data.attributes[index] == np.array(aligned)[data.labels[index]]
    assert [example["aligned"] for example in examples] == expected.tolist()
    assert examples[0]["image"].dtype == np.uint8


# ------------------------------------------------------------------ builders


@pytest.mark.parametrize("split", ["train", "test"])
def test_prepared_digits_equal_the_arrays(prepared, split):
    expected = benchmarks.load("cdigits", conflict=0.1)
    examples = list(tfds.data_source("cdigits/conflict_0.1", data_dir=prepared, split=split))
    assert_same(examples, getattr(expected, split), expected.aligned)
    shares = {"train": 0.9, "test": 0.1}
    aligned = np.mean([example["aligned"] for example in examples])
    assert aligned == pytest.approx(shares[split], abs=0.02)


def test_preparing_twice_reads_the_first(prepared, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("prepared again")

    monkeypatch.setattr(benchmarks, "load", never)
    again = tfds.data_source("cdigits", data_dir=prepared)
    assert {split: len(examples) for split, examples in again.items()} == {
        "train": 1437,
        "test": 360,
    }


@pytest.mark.parametrize("name", ["cmnist", "cfmnist_bg"])
def test_each_default_config_is_the_default_benchmark(manual, tmp_path, name):
    """A TFDS name without a config gives our default benchmark, with shades or solid colours."""
    ours = name.replace("_", "-")
    expected = benchmarks.load(ours, data_dir=manual)
    train = source(name, "train", tmp_path, manual_dir=manual)
    assert_same(list(train), expected.train, expected.aligned)
    assert_same(list(source(name, "test", tmp_path)), expected.test, expected.aligned)


def test_conflict_and_severity_come_from_the_config(manual, tmp_path):
    name = "cmnist/conflict_0.5_severity_1"
    train = source(name, "train", tmp_path, manual_dir=manual)
    expected = benchmarks.load("cmnist", data_dir=manual, conflict=0.5, severity=1)
    assert_same(list(train), expected.train, expected.aligned)
    other = benchmarks.load("cmnist", data_dir=manual, conflict=0.5)
    assert (other.train.images != expected.train.images).any()


def test_own_config(tmp_path):
    config = builders.Config(name="mine", conflict=0.3)
    train = tfds.data_source(
        "cdigits", split="train", data_dir=tmp_path, builder_kwargs={"config": config}
    )
    expected = benchmarks.load("cdigits", conflict=0.3)
    assert_same(list(train), expected.train, expected.aligned)
    # The name alone suffices, because the folder determines the config.
    again = tfds.data_source("cdigits/mine", split="train", data_dir=tmp_path)
    assert again[0]["index"] == train[0]["index"]


def test_the_default_manual_dir_is_searched(manual, tmp_path):
    (tmp_path / "downloads").mkdir()
    manual.rename(tmp_path / "downloads" / "manual")
    assert len(source("cmnist_bg/conflict_0.2", "train", tmp_path)) == 40


def test_missing_files_are_reported_and_nothing_is_left_behind(manual, tmp_path):
    with pytest.raises(FileNotFoundError, match="mnist: train-images.*cannot be reached"):
        source("cmnist", "train", tmp_path)
    assert not list(tmp_path.rglob("conflict*/*"))
    assert len(source("cmnist", "train", tmp_path, manual_dir=manual / "mnist")) == 40


def test_original_mnist_has_the_checksums_of_tfds(data_dir):
    for path in (data_dir / "mnist").glob("*.gz"):
        info = tfds.builder_cls("cmnist").url_infos[archives.ARCHIVES["mnist"].url + path.name]
        content = path.read_bytes()
        assert (int(info.size), info.filename) == (len(content), path.name)
        assert info.checksum == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_properties_of_a_builder(name, tmp_path):
    builder = tfds.builder(name, data_dir=tmp_path)
    recipe = recipes.RECIPES[name.replace("_", "-")]
    source = recipes.SOURCES[recipe.source]
    info, config = builder.info, builder.builder_config
    assert set(info.features) == {"image", "label", "attribute", "aligned", "index"}
    assert info.supervised_keys == ("image", "label")
    assert info.features["image"].shape == (*source.shape[:2], 3)
    assert info.features["label"].num_classes == 10
    assert info.features["attribute"].num_classes == len(recipe.attributes)
    assert info.homepage.startswith("https://") and info.citation.count("author={") == 2
    severities = 1 if recipe.severity is None else 5
    assert len(builder.builder_configs) == len(recipe.ratios or builders._RATIOS) * severities
    addresses = {"digits": 0, "cifar10": 1}.get(recipe.source, 4)
    assert len(builder.url_infos) == addresses
    assert (config.conflict, config.severity) == (recipe.conflict, None)


def test_every_recipe_is_registered():
    registered = tfds.list_builders(with_community_datasets=False)
    assert {name.replace("-", "_") for name in recipes.RECIPES} <= {*registered}


def test_stock_builders_are_left_alone():
    for name in ("mnist", "fashion_mnist", "cifar10"):
        assert tfds.builder_cls(name).__module__.startswith("tensorflow_datasets.")
    assert not set(dir(builders)) & {"Mnist", "MNIST", "Cifar10"}


def test_data_sources_can_be_pickled(prepared):
    train = source("cdigits", "train", prepared)
    again = pickle.loads(pickle.dumps(train))
    assert len(again) == len(train) and (again[7]["image"] == train[7]["image"]).all()


def test_unknown_configs(tmp_path):
    with pytest.raises(ValueError, match="conflict_0.3 not found(.|\n)*conflict_0.2"):
        tfds.data_source("cdigits/conflict_0.3", data_dir=tmp_path, split="train")
    with pytest.raises(ValueError, match="conflict_0.1_severity_2 not found"):
        tfds.builder("cmnist_fg/conflict_0.1_severity_2", data_dir=tmp_path)


def test_error_without_tfds_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    monkeypatch.delitem(sys.modules, "jaxdd.data.builders")
    with pytest.raises(ImportError, match="pip install tensorflow-datasets importlib_resources"):
        importlib.import_module("jaxdd.data.builders")


def test_imports_stay_light():
    code = (
        "import sys, jaxdd, jaxdd.data.benchmarks\n"
        "heavy = {'tensorflow_datasets', 'tensorflow', 'matplotlib', 'sklearn', 'PIL'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import jaxdd.data.builders, tensorflow_datasets\n"
        "tensorflow_datasets.builder('cmnist')\n"
        "assert 'tensorflow' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


# ------------------------------------------------------------------ any TFDS set as a benchmark


class Shapes(tfds.core.GeneratorBasedBuilder):
    """A set of generated grey images; those of the config `tall` differ in shape."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name)
        for name in ("even", "tall", "unlabelled", "imageless", "trainless")
    ]

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 1)),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
        if self.builder_config.name == "unlabelled":
            features["label"] = np.float32
        if self.builder_config.name == "imageless":
            del features["image"]
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        split = "validation" if self.builder_config.name == "trainless" else "train"
        return {split: self._generate_examples()}

    def _generate_examples(self):
        tall = self.builder_config.name == "tall"
        for i in range(10):
            image = np.full((4 + 4 * (tall and i == 3), 4), 20 * i, np.uint8)
            yield i, {"image": Image.fromarray(image), "label": i % 2}


def test_prepared_digits_become_the_benchmark_again(prepared, monkeypatch):
    """Images, labels and attributes are the same, in the shuffled order of TFDS."""
    expected = benchmarks.load("cdigits", conflict=0.1)
    monkeypatch.delattr(benchmarks, "load")
    data = builders.load("cdigits/conflict_0.1", data_dir=prepared)
    for split in ("train", "test"):
        index = [e["index"] for e in source("cdigits/conflict_0.1", split, prepared)]
        for ours, theirs in zip(getattr(data, split), getattr(expected, split), strict=True):
            assert (ours == theirs[index]).all() and ours.dtype == theirs.dtype
    assert (data.name, data.num_classes, data.num_attributes) == ("cdigits/conflict_0.1", 10, 10)
    assert data.aligned == expected.aligned


def test_sets_are_prepared_when_needed(tmp_path):
    """Of ten images of grey level 20·i in two classes, one of each class becomes a test image."""
    data = builders.load("shapes/even", data_dir=tmp_path)
    assert data.train.images.shape == (8, 4, 4, 1) and data.test.images.shape == (2, 4, 4, 1)
    assert sorted(data.test.labels.tolist()) == [0, 1] and data.num_attributes == 0
    assert data.strategy == datasets.UNFLIPPED
    again = builders.load("shapes/even", data_dir=tmp_path, strategy=["flip", "crop"])
    assert again.strategy == ("flip", "crop")
    for part in (data.train, data.test):
        assert (part.images[:, 0, 0, 0] // 20 % 2 == part.labels).all()
    assert (tmp_path / "shapes" / "even").is_dir()


def test_images_of_several_shapes_are_resized(tmp_path):
    with pytest.raises(ValueError, match=r"\(4, 4, 1\) to \(8, 4, 1\).*resize=32"):
        builders.load("shapes/tall", data_dir=tmp_path)
    data = builders.load("shapes/tall", data_dir=tmp_path, resize=6)
    assert data.train.images.shape == (8, 6, 6, 1)
    # Constant images stay constant.
    assert (np.ptp(data.train.images, axis=(1, 2, 3)) == 0).all()


def test_rgb_images_are_resized_as_pillow_does(prepared):
    data = builders.load("cdigits", data_dir=prepared, resize=9)
    plain = builders.load("cdigits", data_dir=prepared)
    expected = Image.fromarray(plain.train.images[5]).resize((9, 9), Image.Resampling.BILINEAR)
    assert (data.train.images[5] == np.asarray(expected)).all()


@pytest.mark.parametrize(
    "name, options, match",
    [
        ("cdigit", {}, "'cdigit'.*'cdigits'"),
        ("SVHN_croped", {}, "'svhn_cropped'"),
        ("zzzzzzzz", {}, "'zzzzzzzz'$"),
        ("cdigits/conflict_0.3", {}, "^.*conflict_0.3 not found.*conflict_0.2.*$"),
        ("shapes/unlabelled", {}, "'label'.*image, label"),
        ("shapes/imageless", {}, "'image'.*label"),
        ("shapes/trainless", {}, "validation"),
        ("cdigits", dict(resize=0), "1..256.* 0"),
        ("cdigits", dict(strategy=["flipp"]), "'flipp'.*'flip'"),
    ],
)
def test_load_rejects_bad_arguments(tmp_path, name, options, match):
    with pytest.raises(ValueError, match=match) as caught:
        builders.load(name, data_dir=tmp_path, **options)
    assert "\n" not in str(caught.value)


def test_stock_sets_that_only_tensorflow_can_prepare(tmp_path, monkeypatch):
    """The error comes before any request, without TensorFlow as well as without network."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=f"not prepared in {tmp_path}, and only TensorFlow can"):
        builders.load("mnist", data_dir=tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}, and https?://.*cannot be reached"):
        builders.load("mnist", data_dir=tmp_path)


def test_a_format_that_needs_tensorflow_is_reported(prepared, tmp_path):
    """A set of unknown code whose dataset_info states that its files are tfrecord."""
    shutil.copytree(prepared / "cdigits", tmp_path / "foreign")
    path = next((tmp_path / "foreign").rglob("dataset_info.json"))
    path.write_text(path.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="tfrecord"):
        builders.load("foreign/conflict_0.1", data_dir=tmp_path)
