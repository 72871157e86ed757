"""Disk: sets of image files as their authors publish them, with the columns that they annotate.

Any column may be the class and any other the bias attribute, so that an annotated set is as many
biased benchmarks as it has pairs of columns. A layout turns its names and tables into records, and
from there on `jaxdd.data.folders` reads them as any other images.
"""

import collections
import difflib
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxdd.data import files, folders, layouts

Records = list[dict[str, Any]]
"""One dict for each image: "file" relative to the folder, "split", and the annotated columns."""


class Layout(NamedTuple):
    """How a set lies on a disk.

    Attributes:
        inside: what its folder is called where it was unpacked.
        has: a file or folder in it, by which it is known.
        records: from the folder to its records, train and test.
        label: the column that is the class unless another is asked for.
        attribute: the column that is the bias attribute, None for an unbiased set.
        names: from the folder to what values stand for, by column; others are names themselves.
        size: height and width that its images are resized to unless others are asked for.
        flips: whether a mirrored image keeps its class.
        licence: of the images.
        about: one line for the table.
        count: number of training and test images.
        citation: key in `citations.BIBTEX`.
        attributes: number of values of the attribute.
    """

    inside: tuple[str, ...]
    has: str
    records: Callable[[pathlib.Path], Records]
    label: str
    attribute: str | None
    names: Callable[[pathlib.Path], Mapping[str, Mapping[str, str]]]
    size: int
    licence: str
    about: str
    count: tuple[int, int]
    citation: str
    attributes: int = 2
    flips: bool = True


def read(
    name: str,
    path: str | os.PathLike,
    *,
    label: str | None = None,
    attribute: str | None = None,
    resize: int | None = None,
    skip_bad: bool = False,
    seed: int | None = None,
) -> folders.Folder:
    """Reads a published set of image files.

    Args:
        name: one of `LAYOUTS`.
        path: its folder, or one that holds it under its own or its published name.
        label: the column that is the class; that of the layout by default.
        attribute: the column that is the bias attribute; that of the layout by default.
        resize: height and width to resize the central squares to, 1..256.
        skip_bad: leave out images that do not decode, instead of raising.
        seed: as in `folders.read`.

    Returns:
        The images, with the names that their authors give to classes and attributes.

    Raises:
        TypeError: a size that is no integer.
        FileNotFoundError: a folder that does not hold the set.
        ValueError: a column that it does not have, or files that are not as published.
    """
    layout = LAYOUTS[name]
    root = _root(name, path)
    usual, biased = chosen = _columns(name, layout, label, attribute)
    records = layout.records(root)
    _check_columns(root, records, chosen)
    rows = [
        layouts.Row(
            os.fspath(_inside(root, record["file"])),
            record[usual],
            record[biased] if biased else None,
            record.get("split"),
        )
        for record in records
    ]
    size = layout.size if resize is None else resize
    found = folders.load(root, rows, resize=size, skip_bad=skip_bad, seed=seed)
    names = layout.names(root)
    return found._replace(
        class_names=_named(names, usual, found.class_names),
        attribute_names=found.attribute_names and _named(names, biased, found.attribute_names),
    )


def _root(name, path):
    above, layout = files.expand(path), LAYOUTS[name]
    below = ("", name, *layout.inside, *(f"{name}/{inside}" for inside in layout.inside))
    for folder in (above / part for part in below):
        if any(folder.glob(layout.has)):
            return folder
    raise FileNotFoundError(
        f"{name} is not in {above}: expected a folder with {layout.has}, there or in "
        f"{', '.join(below[1:])}"
    )


def _columns(name, layout, label, attribute):
    if layout.attribute is None and (label, attribute) != (None, None):
        raise ValueError(f"{name} has no columns to choose from, found {label or attribute!r}")
    label = label or layout.label
    if attribute is None:
        attribute = layout.label if layout.attribute == label else layout.attribute
    if label == attribute:
        raise ValueError(f"label and attribute must be two columns, found {label!r} twice")
    return label, attribute


def _check_columns(root, records, chosen):
    if not records:
        raise ValueError(f"{root} holds no images, expected the set as it is published")
    known = [column for column in records[0] if column not in ("file", "split")]
    for column in filter(None, chosen):
        if column not in known:
            near = difflib.get_close_matches(column, known, 1)
            hint = f" (is {near[0]!r} meant?)" if near else ""
            raise ValueError(f"{root} has no column {column!r}{hint}, found {', '.join(known)}")


def _inside(root, name):
    file = root / name
    if not pathlib.Path(os.path.realpath(file)).is_relative_to(os.path.realpath(root)):
        raise ValueError(f"{file} is not in {root}, expected a path relative to it and in it")
    return file


def _named(names, column, values):
    meaning = names.get(column, {})
    if not meaning and set(values) == {"-1", "1"}:  # CelebA: has it or not
        meaning = {"-1": f"not {column}", "1": column}
    return tuple(meaning.get(value, value) for value in values)


# --- layouts -----------------------------------------------------------------------------------


def _celeba(root):
    """The text files of the authors, or the tables that they became on Kaggle."""
    images = root / "img_align_celeba"
    images = images / images.name if (images / images.name).is_dir() else images
    if (root / "list_attr_celeba.txt").is_file():
        lines = _lines(root / "list_attr_celeba.txt")[1:]
        columns = lines[0].split()
        table = {row[0]: row[1:] for row in map(str.split, lines[1:])}
        parts = dict(map(str.split, _lines(_existing(root / "list_eval_partition.txt"))))
    else:
        columns, rows = layouts.read_csv(root / "list_attr_celeba.csv")
        columns = columns[1:]
        table = {row["image_id"]: [row[name] for name in columns] for row in rows}
        rows = layouts.read_csv(_existing(root / "list_eval_partition.csv"))[1]
        parts = {row["image_id"]: row["partition"] for row in rows}
    split = {"0": "train", "2": "test"}
    kept = [file for file in table if parts.get(file) in split]
    return [
        {"file": (images / file).relative_to(root), "split": split[parts[file]]}
        | dict(zip(columns, table[file], strict=True))
        for file in kept
    ]


def _utkface(root):
    """AGE_GENDER_RACE_TIME.jpg; the few names that lack a part are passed over, as everywhere."""
    named = ((file, re.match(r"(\d+)_([01])_([0-4])_\d", file.name)) for file in root.iterdir())
    records = []
    for file, match in sorted(named, key=lambda pair: pair[0].name):
        if match and file.suffix.lower() in layouts.ENDINGS:
            age, gender, race = match.groups()
            adult = str(int(int(age) >= 18))
            told = {"age": age, "adult": adult, "gender": gender, "race": race}
            records.append({"file": file.name, **told})
    return records


def _waterbirds(root):
    columns, rows = layouts.read_csv(root / "metadata.csv")
    wanted = ("img_filename", "y", "place", "split")
    if missing := [name for name in wanted if name not in columns]:
        raise ValueError(f"{root / 'metadata.csv'} has no column {', '.join(missing)}")
    split = {"0": "train", "2": "test"}
    return [
        {"file": row["img_filename"], "y": row["y"], "place": row["place"]}
        | {"split": split[row["split"]]}
        for row in rows
        if row["split"] in split
    ]


def _tiny_imagenet(root):
    """The validation set is what is scored on: the labels of the test set were not published."""
    train = [
        {"file": file.relative_to(root), "class": folder.name, "split": "train"}
        for folder in sorted((root / "train").iterdir())
        for file in sorted(folder.glob("images/*.JPEG"))
    ]
    lines = _lines(_existing(root / "val" / "val_annotations.txt"))
    cells = [line.split("\t")[:2] for line in lines]
    test = [{"file": f"val/images/{f}", "class": y, "split": "test"} for f, y in cells]
    return train + test


def _words(root):
    """The first word for each class of WordNet; both, where two classes have the same."""
    if not (root / "words.txt").is_file():
        return {}
    known = {line.strip() for line in _lines(root / "wnids.txt")}
    pairs = (line.split("\t") for line in _lines(root / "words.txt"))
    words = {y: text.split(",")[0] for y, text in pairs if y in known}
    often = collections.Counter(words.values())
    return {"class": {y: w if often[w] == 1 else f"{w} ({y})" for y, w in words.items()}}


def _imagenette(root):
    return [
        {"file": file.relative_to(root), "class": folder.name, "split": split}
        for part, split in (("train", "train"), ("val", "test"))
        for folder in sorted(_existing(root / part).iterdir())
        for file in sorted(folder.glob("*.JPEG"))
    ]


def _lines(path):
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _existing(path):
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist, expected the set as it is published")
    return path


_NOUNS = {
    "n01440764": "tench", "n02102040": "English springer", "n02979186": "cassette player",
    "n03000684": "chain saw", "n03028079": "church", "n03394916": "French horn",
    "n03417042": "garbage truck", "n03425413": "gas pump", "n03445777": "golf ball",
    "n03888257": "parachute",
}  # fmt: skip

LAYOUTS = {
    "tiny_imagenet": Layout(
        ("tiny-imagenet-200",), "wnids.txt", _tiny_imagenet, "class", None, _words, 64,
        "not stated", "200 classes of ImageNet (unbiased)", (100_000, 10_000), "imagenet", 0,
    ),
    "imagenette": Layout(
        ("imagenette2-160", "imagenette2-320", "imagenette2"), "train/n01440764", _imagenette,
        "class", None, lambda root: {"class": _NOUNS}, 128,
        "not stated", "ten classes of ImageNet (unbiased)", (9_469, 3_925), "imagenet", 0,
    ),
    "celeba": Layout(
        (), "list_attr_celeba.*", _celeba, "Blond_Hair", "Male", lambda root: {}, 64,
        "research only", "faces with forty columns", (162_770, 19_962), "celeba",
    ),
    "utkface": Layout(
        ("UTKFace",), "*_*_*_*.jpg", _utkface, "gender", "race",
        lambda root: {
            "gender": {"0": "male", "1": "female"},
            "race": {"0": "White", "1": "Black", "2": "Asian", "3": "Indian", "4": "Others"},
            "adult": {"0": "minor", "1": "adult"},
        },
        64, "research only", "faces: age, adult, gender, race", (18_966, 4_742), "utkface", 5,
    ),
    "waterbirds": Layout(
        ("waterbird_complete95_forest2water2",), "metadata.csv", _waterbirds, "y", "place",
        lambda root: {
            "y": {"0": "landbird", "1": "waterbird"},
            "place": {"0": "land", "1": "water"},
        },
        64, "not stated", "birds in front of land or water", (4_795, 5_794), "waterbirds",
    ),
}  # fmt: skip
"""Published sets by name."""
