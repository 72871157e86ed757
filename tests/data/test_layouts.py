"""Classes and splits from the names in a folder: read as they are meant, or rejected."""

import pytest
from image_files import save, table

from jaxdd.data import folders


def write(root, *files):
    """Write files; those that end like images are images, .csv has file and label."""
    for value, file in enumerate(files):
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".txt", ".db", ".json", ".xml", ".mat"):
            path.write_text("{}")
        elif path.suffix == ".csv":
            path.write_text("file,label\n0.png,x\n1.png,y\n")
        else:
            save(path, value, format="PNG")


def describe(folder):
    """Return the classes, and the numbers of training and of test images, None without splits."""
    test = None if folder.test is None else int(folder.test.sum())
    return "/".join(folder.class_names), len(folder.labels) - (test or 0), test


READ = {
    "classes": (["cat/x.png", "dog/y.png"], ("cat/dog", 2, None)),
    "endings": (["cat/x.JFIF", "cat/y.jpe", "dog/z.pbm", "dog/w.Jpeg"], ("cat/dog", 4, None)),
    "frames": (
        [f"{y}/{i}.png" for y in ("run", "walk") for i in ("010", "020", "030")],
        ("run/walk", 6, None),
    ),
    "letters": (["A/0.png", "a/1.png"], ("A/a", 2, None)),
    "a class in two normal forms": (
        ["train/caf\u00e9/0.png", "train/b/1.png", "test/cafe\u0301/2.png"],
        ("b/caf\u00e9", 2, 1),
    ),
    "floats": (["10.0/x.png", "9.5/x.png", "0.0/x.png", "-1/x.png"], ("-1/0.0/9.5/10.0", 4, None)),
    "training, testing": (
        ["Training/a/0.png", "Training/b/1.png", "Testing/a/2.png", "Testing/b/3.png"],
        ("a/b", 2, 2),
    ),
    "train, dev": (["train/a/0.png", "train/b/1.png", "dev/a/2.png"], ("a/b", 2, 1)),
    "train, validation": (["train/a/0.png", "train/b/1.png", "validation/a/2.png"], ("a/b", 2, 1)),
    "validation next to test": (
        ["train/a/0.png", "train/b/1.png", "valid/a/2.png", "val/a/2.png", "test/b/3.png"],
        ("a/b", 2, 1),
    ),
    "words of splits": (
        ["seg_train/a/0.png", "seg_train/b/1.png", "seg_test2017/a/2.png"],
        ("a/b", 2, 1),
    ),
    "camel case": (["TrainSet/a/0.png", "TrainSet/b/1.png", "TestSet/a/2.png"], ("a/b", 2, 1)),
    "train only": (["train/a/0.png", "train/b/1.png"], ("a/b", 2, None)),
    "a train among vehicles": (
        ["bus/0.png", "car/1.png", "train/2.png"],
        ("bus/car/train", 3, None),
    ),
    "a folder of folders": (["archive/all/a/0.png", "archive/all/b/1.png"], ("a/b", 2, None)),
    "splits in a folder": (
        ["data/train/a/0.png", "data/train/b/1.png", "data/test/a/2.png"],
        ("a/b", 2, 1),
    ),
    "a folder in splits": (
        ["train/images/a/0.png", "train/images/b/1.png", "test/images/a/2.png"],
        ("a/b", 2, 1),
    ),
    "a table per split": (
        ["train/metadata.csv", "train/0.png", "train/1.png"]
        + ["test/metadata.csv", "test/0.png", "test/1.png"],
        ("x/y", 2, 2),
    ),
    "a table per split, images in folders": (
        ["train/metadata.csv", "train/images/0.png", "train/images/1.png"]
        + ["val/metadata.csv", "val/images/0.png", "val/images/1.png"],
        ("x/y", 2, 2),
    ),
    "a table above shards": (["Labels.csv", "part0/0.png", "part1/1.png"], ("x/y", 2, None)),
    "a table next to images": (
        ["images/metadata.csv", "images/0.png", "images/1.png"],
        ("x/y", 2, None),
    ),
    "a table and masks": (["labels.csv", "0.png", "1.png", "masks/x0.png"], ("x/y", 2, None)),
    "tables of splits": (["train.csv", "0.png", "1.png"], ("x/y", 2, None)),
    "service folders": (
        ["a/0.png", "a/@eaDir/0.png/0.png", "b/1.png", "$RECYCLE.BIN/x.txt", "__MACOSX/a/0.png"]
        + ["a/Thumbnails/0.png", "b/.ipynb_checkpoints/1.png", "lost+found/x.png"],
        ("a/b", 2, None),
    ),
    "runs of jaxdd": (
        ["a/0.png", "b/1.png", "runs/mine/config.json", "runs/mine/manifest.json"]
        + ["runs/mine/synthetic.png", "runs/mine/rows/plain/weights.png"],
        ("a/b", 2, None),
    ),
    # Published sets, as they are unpacked.
    "imagenet": (
        [
            f"{part}/{y}/{y}_{i}.JPEG"
            for part in ("train", "val")
            for y in ("n01", "n02")
            for i in (1, 2)
        ],
        ("n01/n02", 4, 4),
    ),
    "food101": (
        [
            "images/pie/10.jpg",
            "images/tea/29.jpg",
            "meta/train.txt",
            "meta/classes.txt",
            "README.txt",
        ],
        ("pie/tea", 2, None),
    ),
    "cub200": (
        [
            "images/001.Albatross/a_1.jpg",
            "images/002.Auk/b_2.jpg",
            "attributes/a.txt",
            "images.txt",
        ],
        ("001.Albatross/002.Auk", 2, None),
    ),
    "caltech101": (
        ["101_ObjectCategories/BACKGROUND_Google/image_0001.jpg"]
        + ["101_ObjectCategories/ant/image_0001.jpg", "Annotations/ant/a.mat"],
        ("BACKGROUND_Google/ant", 2, None),
    ),
    "cats and dogs of Microsoft": (
        ["PetImages/Cat/0.jpg", "PetImages/Dog/0.jpg", "PetImages/Cat/Thumbs.db", "readme.txt"],
        ("Cat/Dog", 2, None),
    ),
    "face masks": (["with_mask/1.png", "without_mask/2.png"], ("with_mask/without_mask", 2, None)),
}


@pytest.mark.parametrize("name", READ)
def test_layouts_that_are_read(tmp_path, name):
    files, expected = READ[name]
    write(tmp_path, *files)
    assert describe(folders.read(tmp_path)) == expected


CLASSES = ["ant/3.png", "bee/17.png"]
REJECTED = {
    "nothing": ([], "data has no images.*.png .jpg"),
    "images in no folder": (["x.png"], r"x\.png is in no class.*metadata.csv"),
    "images next to classes": (["cat/x.png", "y.png"], r"y\.png is in no class"),
    "a class without images": (["cat/x.png", "dog/x.txt"], "dog has no images.*.png .jpg"),
    "test only": (["test/cat/x.png", "val/dog/x.png"], "no training images, got val, test"),
    "splits among others": (
        ["train/x/x.png", "test/x/x.png", "other/x/x.png"],
        r"\(test, train\) next to other.*--layout",
    ),
    "a split of classes among classes": (
        ["train/a/0.png", "train/b/1.png", *CLASSES],
        "train.*ant",
    ),
    "a test folder among classes": ([*CLASSES, "test/900.png"], "test.*ant, bee"),
    "two spellings of train": (
        ["train/a/0.png", "Train/a/1.png", "train/b/2.png", "test/a/3.png"],
        "Train and train",
    ),
    "two names of train": (
        ["train/a/0.png", "training/a/1.png", "train/b/2.png", "test/a/3.png"],
        "train and training",
    ),
    "splits in classes": (
        ["a/train/0.png", "a/test/1.png", "b/train/2.png"],
        "a has folders of splits",
    ),
    "unlabelled test images": (
        ["train/a/0.png", "train/b/1.png", "test/900.png"],
        r"test/900\.png is in no class.*data/train",
    ),
    "images in splits": (["train/0.png", "test/1.png"], r"train/0\.png is in no class"),
    "images and masks": (
        [f"{part}/{y}/{i}.png" for part in ("images", "masks") for y in "ab" for i in (0, 1)],
        r"images, masks.*--layout classes",
    ),
    "masks next to classes": ([*CLASSES, "Masks/3.png"], "(Masks)"),
    "photos and sketches of the same samples": (
        [f"{part}/{i}.png" for part in ("photo", "sketch") for i in (17, 203, 418)],
        "photo, sketch",
    ),
    "images and masks in classes": (
        [
            f"{y}/{part}/{i}.png"
            for y in ("COVID", "Normal")
            for part in ("images", "masks")
            for i in "07"
        ],
        r"COVID.*images, masks",
    ),
    "masks next to their images": (
        ["benign/a (1).png", "benign/a (1)_mask.png", "normal/b (1).png"],
        r"a \(1\)_mask",
    ),
    "domains of classes": (
        [f"{domain}/{y}/{i}.png" for domain in ("art", "photo") for y in "ab" for i in "07"],
        "art, photo, which all hold a, b",
    ),
    "domains of folders of classes": (
        [
            f"{domain}/images/{y}/{i}.png"
            for domain in ("dslr", "webcam")
            for y in "ab"
            for i in "07"
        ],
        "dslr, webcam, which all hold a, b",
    ),
    "images in no split of a table": (
        ["Train/train.csv", "Train/0.png", "Train/1.png", "Test/test.csv", "Test/0.png"]
        + ["Test/1.png", "Meta/meta.csv", "Meta/0.png", "Meta/1.png"],
        r"Meta/0\.png is in no split",
    ),
    "splits in another language": (
        [
            f"{split}/{y}/{i}.png"
            for split in ("Lerndaten", "Testdaten")
            for y in "ab"
            for i in "07"
        ],
        "Lerndaten, Testdaten.*a, b",
    ),
    "classes that differ in capitals": (["Cat/0.png", "cat/1.png", "dog/2.png"], "'Cat' and 'cat'"),
    "shards": (["part0/3.png", "part1/17.png"], "part0, part1"),
    "numbered folders of images": (
        ["images_001/3.png", "images_002/17.png"],
        "images_001, images_002",
    ),
    "one folder": (["images/0.png", "images/1.png"], "images; expected a folder for each class"),
    "classes that differ invisibly": (
        ["cat/0.png", "cat\u200b/1.png", "dog/2.png"],
        r"'cat\\u200b'",
    ),
    "classes in two normal forms": (["caf\u00e9/0.png", "cafe\u0301/1.png"], "accents"),
    "classes in two widths": (["A1/0.png", "\uff21\uff11/1.png"], "width"),
    "equal numbers": (["1/0.png", "1.0/1.png", "2/3.png"], "'1' and '1.0'"),
    "a class without training images": (
        ["train/cat/x.png", "train/a/x.png", "test/dog/x.png"],
        "'dog'",
    ),
    "two tables": (["metadata.csv", "labels.csv", "0.png", "1.png"], "labels.csv and metadata.csv"),
    # Published sets that need a table, or their benchmark.
    "celeba": (["img_align_celeba/000001.jpg", "list_attr_celeba.txt"], "img_align_celeba"),
    "utkface": (["UTKFace/1_0_0_1.jpg.chip.jpg", "UTKFace/2_0_1_2.jpg.chip.jpg"], "UTKFace"),
    "flowers102": (["jpg/image_00001.jpg", "jpg/image_00002.jpg", "imagelabels.mat"], "jpg"),
    "tiny imagenet": (
        [f"train/{y}/images/{y}_{i}.JPEG" for y in ("n01", "n02") for i in (0, 1)]
        + ["val/images/val_0.JPEG", "val/val_annotations.txt", "test/images/test_0.JPEG"],
        "images",
    ),
    "cats and dogs of Kaggle": (
        ["train/cat.0.jpg", "train/dog.0.jpg", "test1/1.jpg"],
        "in no class",
    ),
    "bffhq": (["0.5pct/align/0/1_0_0.png", "test/1_0_0.png", "valid/2_0_0.png"], "test, valid"),
    "HAM10000": (
        ["HAM10000_images_part_1/ISIC_27.jpg", "HAM10000_images_part_2/ISIC_3.jpg"],
        "part_1",
    ),
    "ISIC": (
        ["ISIC_2019_Training_Input/ISIC_0.jpg", "ISIC_2019_Test_Input/ISIC_9.jpg"],
        "in no class",
    ),
}


@pytest.mark.parametrize("name", REJECTED)
def test_layouts_that_are_rejected(tmp_path, name):
    files, message = REJECTED[name]
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", *files)
    with pytest.raises(ValueError, match=message) as caught:
        folders.read(tmp_path / "data")
    assert "\n" not in str(caught.value)


def test_an_option_decides_between_two_readings(tmp_path):
    write(tmp_path, "train/a/0.png", "train/b/1.png", "test/a/2.png", "other/3.png", "labels.csv")
    splits = folders.read(tmp_path, layout="splits")
    assert describe(splits) == ("a/b", 2, 1) and any("other" in note for note in splits.notes)
    classes = folders.read(tmp_path, layout="classes")
    assert describe(classes) == ("other/test/train", 4, None)
    with pytest.raises(ValueError, match="'both'"):
        folders.read(tmp_path, layout="both")


def test_what_is_skipped_is_counted(tmp_path):
    files = ["a/0.png", "b/1.png", "a/@eaDir/0.png/0.png", "a/x.txt", "b/y.TXT", "b/desktop.db"]
    write(tmp_path, *files)
    notes = folders.read(tmp_path).notes
    assert "skipped files: 2 .txt, 1 .db" in notes and any("1 in a/@eaDir" in n for n in notes)
    assert "2 images of 2 classes: a 1, b 1" in notes


def test_a_table_of_ham10000_names_its_columns(tmp_path):
    """Files without ending, in folders that the table does not name."""
    save(tmp_path / "HAM10000_images_part_1" / "ISIC_27.jpg")
    save(tmp_path / "HAM10000_images_part_2" / "ISIC_3.jpg")
    text = "lesion_id,image_id,dx,sex\n1,ISIC_27,bkl,male\n2,ISIC_3,nv,female\n"
    (tmp_path / "HAM10000_metadata.csv").write_text(text)
    with pytest.raises(ValueError, match="'label'.*--label"):
        folders.read(tmp_path)
    folder = folders.read(tmp_path, label="dx", attribute="sex")
    assert folder.class_names == ("bkl", "nv") and folder.attribute_names == ("female", "male")


def test_the_columns_of_class_and_attribute_differ(tmp_path):
    table(tmp_path, "file,label,place\na.png,x,1\nb.png,y,2", "a.png", "b.png")
    assert folders.read(tmp_path, attribute="place").attribute_names == ("1", "2")
    with pytest.raises(ValueError, match="label and attribute.*'label' twice"):
        folders.read(tmp_path, attribute="label")


@pytest.mark.parametrize("hidden", ["", "."])
def test_links(tmp_path, hidden):
    """Links to images inside are read; links that lead out, and links to folders, are rejected."""
    root = tmp_path / "data"
    write(tmp_path, "data/a/0.png", "data/b/1.png", f"data/{hidden}kept/2.png", "outside/3.png")
    (root / "a" / "link.png").symlink_to(f"../{hidden}kept/2.png")
    assert len(folders.read(root).labels) == 4 - len(hidden)
    for target in ("kept", "../outside", "../outside/3.png"):
        link = root / "b" / f"more{target[-4:]}"
        link.symlink_to(root / target.replace("kept", f"{hidden}kept"))
        with pytest.raises(ValueError, match=link.name):
            folders.read(root, skip_bad=True)
        link.unlink()
