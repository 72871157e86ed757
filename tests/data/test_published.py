"""Published sets are read from small folders with their layout."""

import functools

import numpy as np
import pytest
from PIL import Image

from jaxdd import augment
from jaxdd.commands import cli
from jaxdd.data import benchmarks, folders, published

RNG = np.random.default_rng(0)


def save(path, value=0, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def firsts(data):
    return data.images[:, 0, 0, 0].tolist()


# --- folders -----------------------------------------------------------------------------------


def bffhq(root):
    """Value 10 y + b, plus 100 in the test set; 0.5 % and 1 % conflicting."""
    root = root / "bffhq"
    for share in ("0.5pct", "1pct"):
        for y in (0, 1):
            save(root / share / "align" / str(y) / f"7_{y}_{y}.png", 11 * y)
            save(root / share / "conflict" / str(y) / f"8_{y}_{1 - y}.png", 9 * y + 1)
    save(root / "1pct" / "align" / "1" / "more_1_1.png", 11)
    for y, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
        save(root / "test" / f"12{y}{b}_{y}_{b}.png", 100 + 10 * y + b)
    save(root / "valid" / "5_0_0.png", 255)


def tiny_imagenet(root):
    root = root / "tiny-imagenet-200"
    for i, y in enumerate(("n02", "n01", "n03")):
        for j in range(2):
            save(root / "train" / y / "images" / f"{y}_{j}.JPEG", 20 * i)
        save(root / "val" / "images" / f"val_{i}.JPEG", 20 * i + 100)
    save(root / "test" / "images" / "test_0.JPEG")
    (root / "wnids.txt").write_text("n02\nn01\nn03\n")
    (root / "words.txt").write_text("n01\tcrane, bird\nn02\tegg\nn03\tcrane\nn04\tother\n")
    lines = [f"val_{i}.JPEG\t{y}\t0\t0\t9\t9\n" for i, y in enumerate(("n02", "n01", "n03"))]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))


def imagenette(root):
    for part in ("train", "val"):
        for y in published._NOUNS:
            save(root / "imagenette2-160" / part / y / f"{part}_{y}.JPEG", size=(20, 30))
    (root / "imagenette2-160" / "noisy_imagenette.csv").write_text("path\n")


CELEBRITIES = [  # file, blond, male, smiling, partition
    (f"{i:06}.jpg", *row)
    for i, row in enumerate(
        [(1, -1, 1, 0)] * 3
        + [(1, 1, -1, 0)]
        + [(-1, 1, 1, 0)] * 3
        + [(-1, -1, -1, 0)]
        + [(1, 1, 1, 1)]
        + [(1, -1, 1, 2), (1, 1, 1, 2), (-1, 1, 1, 2)]
    )
]


def celeba(root, kaggle=False):
    root = root / "celeba"
    names = ["Blond_Hair", "Male", "Smiling"]
    inside = root / "img_align_celeba" / ("img_align_celeba" if kaggle else "")
    for value, (file, *_) in enumerate(CELEBRITIES):
        save(inside / file, 10 * value, (12, 14))
    attributes = [[file, *map(str, row)] for file, *row, _ in CELEBRITIES]
    parts = [[file, str(part)] for file, *_, part in CELEBRITIES]
    if kaggle:
        lines = [",".join(row) for row in [["image_id", *names], *attributes]]
        (root / "list_attr_celeba.csv").write_text("\n".join(lines))
        lines = [",".join(row) for row in [["image_id", "partition"], *parts]]
        (root / "list_eval_partition.csv").write_text("\n".join(lines))
        return
    lines = [str(len(attributes)), " ".join(names), *("  ".join(row) for row in attributes)]
    (root / "list_attr_celeba.txt").write_text("\n".join(lines))
    lines = [" ".join(row) for row in parts]
    (root / "list_eval_partition.txt").write_text("\n".join(lines))


def utkface(root):
    """Write UTKFace with twelve faces, and one whose file name lacks the race."""
    for i in range(12):
        age, gender, race = (7, 40)[i % 2], i // 6, (0, 0, 0, 3)[i % 4]
        save(root / "UTKFace" / f"{age}_{gender}_{race}_2017{i:02}.jpg.chip.jpg")
    save(root / "UTKFace" / "61_1_20170109142408075.jpg.chip.jpg")


def waterbirds(root):
    root = root / "waterbird_complete95_forest2water2"
    rows = ["img_id,img_filename,y,split,place,place_filename"]
    samples = [(0, 0, 0)] * 3 + [(0, 1, 0), (1, 0, 1), (0, 0, 2), (0, 1, 2), (1, 1, 2)]
    samples += [(1, 1, 0)] * 3
    for i, (y, place, split) in enumerate(samples):
        save(root / f"{y}.Bird" / f"{i}.jpg", 10 * i, (20, 12))
        rows.append(f"{i},{y}.Bird/{i}.jpg,{y},{split},{place},/l/lake/{i}.jpg")
    (root / "metadata.csv").write_text("\n".join(rows))


WRITERS = dict(
    bffhq=bffhq,
    tiny_imagenet=tiny_imagenet,
    imagenette=imagenette,
    celeba=celeba,
    utkface=utkface,
    waterbirds=waterbirds,
)


def test_every_layout_is_tested():
    assert WRITERS.keys() == published.LAYOUTS.keys()


@pytest.mark.parametrize("name", WRITERS)
def test_show_counts_images_and_classes(tmp_path, name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    WRITERS[name](tmp_path)
    cli.main(["datasets", "show", name, "--data-dir", str(tmp_path), "--resize", "8"])
    lines = capsys.readouterr().out.splitlines()
    shown = dict(line.split(maxsplit=1) for line in lines if len(line.split()) == 2)
    expected = dict(
        bffhq=("4", "4", "2"),
        tiny_imagenet=("6", "3", "3"),
        imagenette=("10", "10", "10"),
        celeba=("8", "3", "2"),
        utkface=("9", "3", "2"),
        waterbirds=("7", "3", "2"),
    )
    assert (shown["train"], shown["test"], shown["classes"]) == expected[name]
    assert shown["shape"] == "8×8×3"
    annotated = published.LAYOUTS[name].attribute is not None
    assert annotated == ("training images of each group" in "\n".join(lines))


@pytest.mark.parametrize("inside", ["", "bffhq"])
def test_bffhq(tmp_path, inside):
    """Class and attribute are the digits at the end of a name."""
    bffhq(tmp_path)
    data = benchmarks.load("bffhq", data_dir=tmp_path / inside)
    assert data.train.images.shape == (4, 64, 64, 3)
    assert firsts(data.train) == [0, 11, 1, 10] and firsts(data.test) == [100, 101, 110, 111]
    for part in (data.train, data.test):
        tens, ones = np.divmod(np.array(firsts(part)) % 100, 10)
        np.testing.assert_array_equal((part.labels, part.attributes), (tens, ones))
    assert data.class_names == ("0", "1") and data.strategy == augment.OPERATIONS
    more = benchmarks.load("bffhq", data_dir=tmp_path, conflict=0.01, test="conflicting")
    assert len(more.train.labels) == 5 and len(more.test.labels) == 2


def test_bad_bffhq_folders_are_rejected(tmp_path):
    bffhq(tmp_path)
    load = functools.partial(benchmarks.load, "bffhq", data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="/5pct does not exist"):
        load(conflict=0.05)
    save(tmp_path / "bffhq" / "test" / "face_2_0.png")
    with pytest.raises(ValueError, match="face_2_0.png"):
        load()
    (tmp_path / "bffhq" / "test").rename(tmp_path / "tests")
    with pytest.raises(FileNotFoundError, match="bffhq/test does not exist"):
        load()


def test_classes_of_tiny_imagenet_have_words(tmp_path):
    """Two classes have the word crane and are distinguished by number; numbers give the order."""
    tiny_imagenet(tmp_path)
    data = benchmarks.load("tiny_imagenet", data_dir=tmp_path)
    assert data.class_names == ("crane (n01)", "egg", "crane (n03)")
    assert data.train.images.shape == (6, 64, 64, 3)
    assert data.test.labels.tolist() == [1, 0, 2]
    np.testing.assert_allclose(firsts(data.test), [100, 120, 140], atol=2)


@pytest.mark.parametrize("kaggle", [False, True])
def test_columns_of_celeba_are_class_and_attribute(tmp_path, kaggle):
    celeba(tmp_path, kaggle)
    data = benchmarks.load("celeba", data_dir=tmp_path, resize=8)
    assert data.class_names == ("not Blond_Hair", "Blond_Hair")
    assert data.attribute_names == ("not Male", "Male")
    assert data.aligned == (1, 0)
    assert benchmarks.group_counts(data, data.train).tolist() == [[1, 3], [3, 1]]
    other = benchmarks.load("celeba", data_dir=tmp_path, label="Male", attribute="Smiling")
    assert other.class_names == ("not Male", "Male") and other.train.images.shape[1] == 64
    swapped = benchmarks.load("celeba", data_dir=tmp_path, label="Male", resize=8)
    assert swapped.attribute_names == data.class_names


def test_an_attribute_may_have_more_values_than_classes_and_groups_may_be_missing(tmp_path):
    utkface(tmp_path)
    data = benchmarks.load("utkface", data_dir=tmp_path, label="adult", resize=8)
    assert data.class_names == ("minor", "adult") and data.attribute_names == ("White", "Indian")
    counts = benchmarks.group_counts(data, data.train)
    assert counts[0, 1] == 0 < counts[1, 1]


def test_a_test_set_of_conflicting_images(tmp_path):
    waterbirds(tmp_path)
    data = benchmarks.load("waterbirds", data_dir=tmp_path, resize=8, test="conflicting")
    assert data.class_names == ("landbird", "waterbird") and data.aligned == (0, 1)
    np.testing.assert_array_equal(data.test.attributes, [1])


BAD = [
    ("celeba", {"label": "Blond"}, "'Blond'.*'Blond_Hair'"),
    ("celeba", {"attribute": "Blond_Hair"}, "'Blond_Hair' twice"),
    ("celeba", {"conflict": 0.1}, "conflict=0.1"),
    ("bffhq", {"conflict": 1.5}, "conflict.*1.5"),
    ("tiny_imagenet", {"label": "class"}, "label='class'"),
    ("mnist", {"attribute": "x"}, "attribute='x'"),
    ("cifar10", {"resize": 8}, "resize=8"),
    ("imagenette", {"test": "conflicting"}, "'conflicting'"),
]


@pytest.mark.parametrize("name, options, message", BAD)
def test_bad_columns(tmp_path, name, options, message):
    if name in WRITERS:
        WRITERS[name](tmp_path)
    with pytest.raises(ValueError, match=message):
        benchmarks.load(name, data_dir=tmp_path, **options)


def test_missing_sets(tmp_path):
    with pytest.raises(ValueError, match="celeba.*data_dir"):
        benchmarks.load("celeba")
    with pytest.raises(FileNotFoundError, match="celeba is not in .* with list_attr_celeba"):
        benchmarks.load("celeba", data_dir=tmp_path)
    waterbirds(tmp_path)
    table = tmp_path / "waterbird_complete95_forest2water2" / "metadata.csv"
    text = table.read_text()
    table.write_text(text.replace("0.Bird/0.jpg", "../../x.jpg"))
    with pytest.raises(ValueError, match="must be inside"):
        benchmarks.load("waterbirds", data_dir=tmp_path)
    table.write_text(text.replace("place,", "where,", 1))
    with pytest.raises(ValueError, match="no column place"):
        benchmarks.load("waterbirds", data_dir=tmp_path)


# --- folders with several columns --------------------------------------------------------------


def photographs(folder):
    """Write two classes with three columns of attributes; no dog is in the rain."""
    rows = ["file,kind,place,weather,camera"]
    for i in range(16):
        kind, weather = ("cat", "dog")[i % 2], ("sun", "rain")[i % 4 == 2]
        save(folder / f"{i}.png", 10 * i)
        rows.append(f"{i}.png,{kind},{('in', 'out', 'else')[i % 3]},{weather},only")
    (folder / "metadata.csv").write_text("\n".join(rows))
    return folder


def test_columns_of_a_table_are_chosen(tmp_path):
    photographs(tmp_path)
    folder = folders.read(tmp_path, label="kind", attribute="weather")
    assert (folder.class_names, folder.attribute_names) == (("cat", "dog"), ("rain", "sun"))
    np.testing.assert_array_equal(folder.attributes, [1, 1, 0, 1] * 4)
    assert folders.read(tmp_path, label="kind").attributes is None
    assert folders.read(tmp_path, label="weather", attribute="kind").class_names[0] == "rain"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"attribute": "place"}, "has no column 'label'"),
        ({"label": "kind", "attribute": "wether"}, "'wether'.*'weather'"),
        ({"label": "kind", "attribute": "kind"}, "'kind' twice"),
        ({"label": "kind", "attribute": "camera"}, "16 images.*'only'"),
        ({"label": "kind", "attribute": "file"}, "file and attribute.*'file' twice"),
    ],
)
def test_bad_columns_of_a_table(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        folders.read(photographs(tmp_path), **options)


def test_attributes_that_are_names_are_rejected(tmp_path):
    photographs(tmp_path)
    table = tmp_path / "metadata.csv"
    lines = table.read_text().splitlines()
    numbered = [f"{lines[0]},id", *(f"{line},{i}" for i, line in enumerate(lines[1:]))]
    table.write_text("\n".join(numbered))
    with pytest.raises(ValueError, match="16 different"):
        folders.read(tmp_path, label="kind", attribute="id")


def test_folders_without_a_table_have_no_columns(tmp_path):
    save(tmp_path / "cat" / "x.png")
    with pytest.raises(ValueError, match="attribute='place'.*metadata.csv"):
        folders.read(tmp_path, attribute="place")


def test_classes_that_look_alike_are_rejected(tmp_path):
    """The letter é is encoded in one character and in two."""
    for name in ("caf\u00e9", "cafe\u0301"):
        save(tmp_path / name / "x.png")
    with pytest.raises(ValueError, match="accents"):
        folders.read(tmp_path)
