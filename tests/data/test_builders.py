"""Prepared sets equal the arrays bit for bit, and any TFDS set becomes a benchmark.

No test touches the network. Tests on the original MNIST skip where ../shared/data is absent.
"""

import gzip
import hashlib
import importlib
import importlib.util
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pooch
import pytest
import requests
import tensorflow_datasets as tfds
from PIL import Image

from jaxdd.data import archives, benchmarks, builders, datasets, files

NAMES = ("cdigits", "cmnist", "cfmnist", "cmnist_fg", "cmnist_bg", "cfmnist_fg", "cfmnist_bg")
HARDER = ("cmnist_pairs", "bgfmnist_few", "cbgfmnist", "fmnist_scale", "fmnist_texture")
FIELDS = ("image", "label", "attribute")


def unreachable(*_, **__):
    raise requests.ConnectionError("no network")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network, and an empty cache."""
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", unreachable)
    monkeypatch.setattr(files, "CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder in which TFDS has prepared the digits, asked for nothing but a split."""
    folder = tmp_path_factory.mktemp("tfds")
    tfds.data_source("cdigits/conflict_0.1", data_dir=folder, split="train")
    return folder


@pytest.fixture
def manual(monkeypatch, tmp_path):
    """A manual_dir with twice 40 made-up images for each archive, whose md5 sums are registered."""
    rng = np.random.default_rng(0)
    for name in ("mnist", "fashion_mnist"):
        md5 = {}
        folder = tmp_path / "manual" / name
        folder.mkdir(parents=True)
        for names in (archives.TRAIN, archives.TEST):
            images = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8)
            labels = rng.permutation(np.arange(40, dtype=np.uint8) % 10)
            for file, array in zip(names, (images, labels), strict=True):
                header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
                content = gzip.compress(header + array.tobytes(), mtime=0)
                (folder / file).write_bytes(content)
                md5[file] = hashlib.md5(content).hexdigest()
        archive = archives.ARCHIVES[name]._replace(md5=md5)
        monkeypatch.setitem(archives.ARCHIVES, name, archive)
    return tmp_path / "manual"


def source(name, split, data_dir, **config):
    kwargs = {"download_config": tfds.download.DownloadConfig(**config)} if config else None
    return tfds.data_source(
        name, split=split, data_dir=data_dir, download_and_prepare_kwargs=kwargs
    )


def assert_same(examples, data, aligned, *, all_of_them=True):
    """Every example is the one at its index in the arrays, and none is missing or there twice."""
    index = [example["index"] for example in examples]
    assert len(set(index)) == len(index)
    assert not all_of_them or sorted(index) == list(range(len(data.labels)))
    for column, name in zip(data, FIELDS, strict=True):
        found = np.array([example[name] for example in examples])
        assert found.shape == column[index].shape and (found == column[index]).all()
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
    """One with shades and one in solid colours: TFDS's name without a config against ours."""
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


def test_a_config_of_ones_own(tmp_path):
    config = builders.Config(name="mine", conflict=0.3)
    train = tfds.data_source(
        "cdigits", split="train", data_dir=tmp_path, builder_kwargs={"config": config}
    )
    expected = benchmarks.load("cdigits", conflict=0.3)
    assert_same(list(train), expected.train, expected.aligned)
    # By its name alone, it is read from the folder that it is in.
    again = tfds.data_source("cdigits/mine", split="train", data_dir=tmp_path)
    assert again[0]["index"] == train[0]["index"]


def test_the_default_manual_dir_is_searched(manual, tmp_path):
    (tmp_path / "downloads").mkdir()
    manual.rename(tmp_path / "downloads" / "manual")
    assert len(source("cmnist_bg/conflict_0.2", "train", tmp_path)) == 40


def test_absent_files_are_named_at_once_and_nothing_half_done_is_left(manual, tmp_path):
    with pytest.raises(FileNotFoundError, match="mnist: train-images.*cannot be reached"):
        source("cmnist", "train", tmp_path)
    assert not list(tmp_path.rglob("conflict*/*"))
    assert len(source("cmnist", "train", tmp_path, manual_dir=manual / "mnist")) == 40


def test_original_mnist_in_a_manual_dir(data_dir, tmp_path):
    """The original files have the SHA-256 sums that TFDS has for them; 300 images are compared."""
    for path in (data_dir / "mnist").glob("*.gz"):
        info = builders.Cmnist.url_infos[archives.ARCHIVES["mnist"].url + path.name]
        content = path.read_bytes()
        assert (int(info.size), info.filename) == (len(content), path.name)
        assert info.checksum == hashlib.sha256(content).hexdigest()
    name = "cmnist/conflict_0.02"
    train = source(name, "train", tmp_path, manual_dir=data_dir, max_examples_per_split=300)
    assert len(train) == 300
    expected = benchmarks.load("cmnist", data_dir=data_dir, conflict=0.02)
    assert_same(list(train), expected.train, expected.aligned, all_of_them=False)


@pytest.mark.parametrize("name", NAMES + HARDER)
def test_what_is_known_before_preparing(name, tmp_path):
    builder = tfds.builder(name, data_dir=tmp_path)
    info = builder.info
    assert set(info.features) == {"image", "label", "attribute", "aligned", "index"}
    assert info.supervised_keys == ("image", "label")
    assert info.features["image"].shape == ((16, 16, 3) if name == "cdigits" else (32, 32, 3))
    recipe = benchmarks.RECIPES[name.replace("_", "-")]
    assert info.features["label"].num_classes == 10
    assert info.features["attribute"].num_classes == len(recipe.attributes)
    assert info.homepage.startswith("https://") and info.citation.count("author={") == 2
    severities = 0 if recipe.severity is None else 4
    assert len(builder.builder_configs) == 7 * (1 + severities)
    addresses = 0 if name == "cdigits" else 4
    assert len(builder.url_infos) == addresses
    assert name in tfds.list_builders(with_community_datasets=False)
    config = builder.builder_config
    assert (config.conflict, config.severity) == (recipe.conflict, None)
    assert builder.SOURCE == recipe.source


def test_stock_builders_are_left_alone():
    for name in ("mnist", "fashion_mnist", "cifar10"):
        assert tfds.builder_cls(name).__module__.startswith("tensorflow_datasets.")
    assert not set(dir(builders)) & {"Mnist", "MNIST", "Cifar10"}


def test_workers_can_be_handed_a_data_source(prepared):
    train = source("cdigits", "train", prepared)
    again = pickle.loads(pickle.dumps(train))
    assert len(again) == len(train) and (again[7]["image"] == train[7]["image"]).all()


def test_unknown_configs_are_refused_by_tfds(tmp_path):
    with pytest.raises(ValueError, match="conflict_0.3 not found(.|\n)*conflict_0.2"):
        tfds.data_source("cdigits/conflict_0.3", data_dir=tmp_path, split="train")
    with pytest.raises(ValueError, match="conflict_0.1_severity_2 not found"):
        tfds.builder("cmnist_fg/conflict_0.1_severity_2", data_dir=tmp_path)


def test_without_tfds_one_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    monkeypatch.delitem(sys.modules, "jaxdd.data.builders")
    with pytest.raises(ImportError, match="pip install tensorflow-datasets importlib_resources"):
        importlib.import_module("jaxdd.data.builders")


def test_importing_needs_no_tensorflow_and_jaxdd_no_tfds():
    code = (
        "import sys, jaxdd, jaxdd.data.benchmarks\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        "import jaxdd.data.builders, tensorflow_datasets\n"
        "tensorflow_datasets.builder('cmnist')\n"
        "assert 'tensorflow' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


# ------------------------------------------------------------------ any TFDS set as a benchmark


class Shapes(tfds.core.GeneratorBasedBuilder):
    """Made-up grey images, of which the config `tall` has some of another shape."""

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
    """The same images, labels and attributes, in the order that TFDS has shuffled them into."""
    expected = benchmarks.load("cdigits", conflict=0.1)
    monkeypatch.delattr(benchmarks, "load")
    found = builders.load("cdigits/conflict_0.1", data_dir=prepared)
    for split in ("train", "test"):
        index = [e["index"] for e in source("cdigits/conflict_0.1", split, prepared)]
        for ours, theirs in zip(getattr(found, split), getattr(expected, split), strict=True):
            assert (ours == theirs[index]).all() and ours.dtype == theirs.dtype
    assert (found.name, found.num_classes, found.num_attributes) == ("cdigits/conflict_0.1", 10, 10)
    assert found.aligned == expected.aligned


def test_what_is_not_prepared_is_prepared(tmp_path):
    """Ten images of two classes, 20·i grey: a fifth is split off, one of each class."""
    found = builders.load("shapes/even", data_dir=tmp_path)
    assert found.train.images.shape == (8, 4, 4, 1) and found.test.images.shape == (2, 4, 4, 1)
    assert sorted(found.test.labels.tolist()) == [0, 1] and found.num_attributes == 0
    assert found.strategy == datasets.UNFLIPPED
    again = builders.load("shapes/even", data_dir=tmp_path, strategy=["flip", "crop"])
    assert again.strategy == ("flip", "crop")
    for data in (found.train, found.test):
        assert (data.images[:, 0, 0, 0] // 20 % 2 == data.labels).all()
    assert (tmp_path / "shapes" / "even").is_dir()


def test_images_of_several_shapes_are_resized(tmp_path):
    with pytest.raises(ValueError, match=r"\(4, 4, 1\) to \(8, 4, 1\).*resize=32"):
        builders.load("shapes/tall", data_dir=tmp_path)
    found = builders.load("shapes/tall", data_dir=tmp_path, resize=6)
    assert found.train.images.shape == (8, 6, 6, 1)
    # Constant images stay constant.
    assert (np.ptp(found.train.images, axis=(1, 2, 3)) == 0).all()


def test_rgb_images_are_resized_as_pillow_does(prepared):
    found = builders.load("cdigits", data_dir=prepared, resize=9)
    plain = builders.load("cdigits", data_dir=prepared)
    expected = Image.fromarray(plain.train.images[5]).resize((9, 9), Image.Resampling.BILINEAR)
    assert (found.train.images[5] == np.asarray(expected)).all()


@pytest.mark.parametrize(
    "name, options, match",
    [
        ("cdigit", {}, "unknown tensorflow-datasets set 'cdigit'; did you mean 'cdigits'"),
        ("SVHN_croped", {}, "did you mean 'svhn_cropped'"),
        ("zzzzzzzz", {}, "unknown tensorflow-datasets set 'zzzzzzzz'$"),
        ("cdigits/conflict_0.3", {}, "^.*conflict_0.3 not found.*conflict_0.2.*$"),
        ("shapes/unlabelled", {}, "no integer feature 'label'.*found image, label"),
        ("shapes/imageless", {}, "no image feature 'image', found label"),
        ("shapes/trainless", {}, "shapes/trainless has no train split, found validation"),
        ("cdigits", dict(resize=0), "resize must lie in 1..256, found 0"),
        ("cdigits", dict(strategy=["flipp"]), "found 'flipp'; did you mean 'flip'"),
    ],
)
def test_load_refuses(tmp_path, name, options, match):
    with pytest.raises(ValueError, match=match) as caught:
        builders.load(name, data_dir=tmp_path, **options)
    assert "\n" not in str(caught.value)


def test_stock_sets_that_only_tensorflow_can_prepare(tmp_path, monkeypatch):
    """Refused before anything is asked for, and where TensorFlow is there, without network."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=f"not prepared in {tmp_path}, and only TensorFlow can"):
        builders.load("mnist", data_dir=tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}, and https?://.*cannot be reached"):
        builders.load("mnist", data_dir=tmp_path)


def test_a_format_that_needs_tensorflow_is_named(prepared, tmp_path):
    """A set whose code is unknown and whose files, says its dataset_info, are tfrecord."""
    shutil.copytree(prepared / "cdigits", tmp_path / "foreign")
    path = next((tmp_path / "foreign").rglob("dataset_info.json"))
    path.write_text(path.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="prepared as tfrecord in .*another data_dir"):
        builders.load("foreign/conflict_0.1", data_dir=tmp_path)
