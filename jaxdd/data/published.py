"""Read published sets of image files, with the columns that their authors annotate.

Any column may be the class and any other the bias attribute, so every pair of columns is a biased
benchmark. A layout turns the names and tables of a set into records, which `jaxdd.data.folders`
reads like any other images.
"""

import collections
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxdd.data import _layouts, _tables, folders


class Layout(NamedTuple):
    """Layout of a published set on disk.

    Attributes:
        folders: names that its folder may have.
        marker: glob of a file or folder in it, by which it is recognised.
        records: function from the folder to its records: a dict for each image with "file"
            relative to the folder, "split", and the annotated columns.
        label: default column of the class.
        attribute: default column of the bias attribute, None for an unbiased set.
        names: function from the folder to the meaning of values, by column; values of other columns
            are names themselves.
        size: default height and width to resize images to.
        licence: licence of the images.
        about: one line for the table of benchmarks.
        count: number of training and test images.
        citation: key in `citations.BIBTEX`.
        attributes: number of values of the attribute.
        conflict: default share of conflicting training images, if the set comes with several; then
            it is the second argument of `records`.
    """

    folders: tuple[str, ...]
    marker: str
    records: Callable[..., list[dict[str, Any]]]
    label: str
    attribute: str | None
    names: Callable[[pathlib.Path], Mapping[str, Mapping[str, str]]]
    size: int
    licence: str
    about: str
    count: tuple[int, int]
    citation: str
    attributes: int = 2
    conflict: float | None = None


def read(
    name: str,
    path: str | os.PathLike,
    *,
    label: str | None = None,
    attribute: str | None = None,
    conflict: float | None = None,
    resize: int | None = None,
    skip_bad: bool = False,
    seed: int | None = None,
) -> folders.Folder:
    """Read a published set of image files.

    Args:
        name: one of `LAYOUTS`.
        path: its folder, or the parent folder of one with the name of the set or its published
            name.
        label: column of the class. The defaults of this and the next three are in the layout.
        attribute: column of the bias attribute. "gender+age" crosses two columns: each pair of
            values is one value.
        conflict: share of conflicting training images.
        resize: height and width to resize the central squares to, 1..256.
        skip_bad: whether to leave out images that do not decode, instead of raising.
        seed: random seed of the test images, a fifth, if the set has no splits; None for no split.

    Returns:
        The images, with the names that their authors give to classes and attributes.
    """
    layout = LAYOUTS[name]
    root = _root(name, folders.check_folder(path))
    label = label or layout.label
    if attribute is None:
        attribute = layout.label if layout.attribute == label else layout.attribute
    conflict = layout.conflict if conflict is None else conflict
    records = layout.records(root, *([] if conflict is None else [conflict]))
    if not records:
        raise ValueError(f"{root} has no images; expected the set as it is published.")
    columns = [column for column in records[0] if column not in ("file", "split")]
    crossed = () if attribute is None else _tables.crossed_columns(attribute, columns)
    _check_columns(root, columns, (label, *crossed))
    rows = []
    for record in records:
        file = os.fspath(root / record["file"])
        _layouts.check_inside(root, file)
        bias = _tables.cross(file, [record[column] for column in crossed]) if crossed else None
        rows.append(_layouts.Row(file, record[label], bias, record.get("split")))
    size = layout.size if resize is None else resize
    folder = folders.load(root, rows, resize=size, skip_bad=skip_bad, seed=seed)
    names = layout.names(root)
    classes = _meaning(names, (label,), folder.class_names)
    attributes = folder.attribute_names and _meaning(names, crossed, folder.attribute_names)
    return folder._replace(class_names=classes, attribute_names=attributes)


def _root(name, path):
    layout = LAYOUTS[name]
    inside = ("", name, *layout.folders, *(f"{name}/{folder}" for folder in layout.folders))
    for folder in (path / part for part in inside):
        if any(folder.glob(layout.marker)):
            return folder
    raise FileNotFoundError(
        f"{name} is not in {path}: expected a folder with {layout.marker}, there or in "
        f"{', '.join(inside[1:])}"
    )


def _check_columns(root, columns, chosen):
    for column in chosen:
        if chosen.count(column) > 1:
            raise ValueError(
                f"label and attribute of {root} must be different columns, got {column!r} twice."
            )
        if column not in columns:
            hint = _tables.close_match(column, columns)
            raise ValueError(f"{root} has no column {column!r}{hint}, got {', '.join(columns)}.")


def _meaning(names, columns, values):
    """Return the meaning of the values of a column, or of crossed columns."""
    values_of = zip(*map(_tables.uncross, values), strict=True) if columns[1:] else [values]
    parts = []
    for column, part in zip(columns, values_of, strict=True):
        meaning = names.get(column, {})
        if not meaning and set(part) == {"-1", "1"}:  # the columns of CelebA
            meaning = {"-1": f"not {column}", "1": column}
        parts.append([meaning.get(value, value) for value in part])
    return tuple(_tables.cross(column, part) for part in zip(*parts, strict=True))


# --- layouts -----------------------------------------------------------------------------------


def _bffhq(root, conflict):
    """Read names that end in _AGE_GENDER; `valid` is not read."""
    train = _existing(root / f"{100 * conflict:g}pct")
    folders = [(train / "align", "train"), (train / "conflict", "train"), (root / "test", "test")]
    records = []
    for folder, split in folders:
        for file in sorted(_existing(folder).rglob("*.png"), key=lambda file: file.parts):
            match = re.fullmatch(r".*_([01])_([01])", file.stem)
            if match is None:
                raise ValueError(f"{file} must have a name that ends in _AGE_GENDER, both 0 or 1.")
            columns = {"age": match[1], "gender": match[2], "split": split}
            records.append({"file": file.relative_to(root), **columns})
    return records


def _celeba(root):
    """Read the text files of the authors, or the tables of the version on Kaggle."""
    images = root / "img_align_celeba"
    images = images / images.name if (images / images.name).is_dir() else images
    if (root / "list_attr_celeba.txt").is_file():
        lines = _lines(root / "list_attr_celeba.txt")[1:]
        columns = lines[0].split()
        table = {row[0]: row[1:] for row in map(str.split, lines[1:])}
        parts = dict(map(str.split, _lines(_existing(root / "list_eval_partition.txt"))))
    else:
        columns, rows = _tables.read_csv(root / "list_attr_celeba.csv")
        columns = columns[1:]
        table = {row["image_id"]: [row[name] for name in columns] for row in rows}
        rows = _tables.read_csv(_existing(root / "list_eval_partition.csv"))[1]
        parts = {row["image_id"]: row["partition"] for row in rows}
    split = {"0": "train", "2": "test"}
    files = [file for file in table if parts.get(file) in split]
    return [
        {"file": (images / file).relative_to(root), "split": split[parts[file]]}
        | dict(zip(columns, table[file], strict=True))
        for file in files
    ]


def _utkface(root):
    """Read names AGE_GENDER_RACE_TIME.jpg; ignore the few incomplete ones, as is customary."""
    records = []
    for file in sorted(root.iterdir(), key=lambda file: file.name):
        match = re.match(r"(\d+)_([01])_([0-4])_\d", file.name)
        if match and file.suffix.lower() in _layouts.ENDINGS:
            age, gender, race = match.groups()
            adult = str(int(int(age) >= 18))
            columns = {"age": age, "adult": adult, "gender": gender, "race": race}
            records.append({"file": file.name, **columns})
    return records


def _waterbirds(root):
    columns, rows = _tables.read_csv(root / "metadata.csv")
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
    """Use the validation set for testing: the labels of the published test set are secret."""
    lines = _lines(_existing(root / "val" / "val_annotations.txt"))
    cells = [line.split("\t")[:2] for line in lines]
    test = [{"file": f"val/images/{f}", "class": y, "split": "test"} for f, y in cells]
    return _class_folders(root, "train", "train", "images/*.JPEG") + test


def _class_folders(root, folder, split, pattern):
    """Return the images in a folder for each class."""
    return [
        {"file": file.relative_to(root), "class": inside.name, "split": split}
        for inside in sorted(_existing(root / folder).iterdir())
        for file in sorted(inside.glob(pattern))
    ]


def _words(root):
    """Return the first word of each WordNet class, with its number if classes share the word."""
    if not (root / "words.txt").is_file():
        return {}
    known = {line.strip() for line in _lines(root / "wnids.txt")}
    pairs = (line.split("\t") for line in _lines(root / "words.txt"))
    words = {y: text.split(",")[0] for y, text in pairs if y in known}
    counts = collections.Counter(words.values())
    return {"class": {y: w if counts[w] == 1 else f"{w} ({y})" for y, w in words.items()}}


def _imagenette(root):
    parts = ("train", "train"), ("val", "test")
    return [row for part in parts for row in _class_folders(root, *part, "*.JPEG")]


def _lines(path):
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _existing(path):
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected the set as it is published")
    return path


_NOUNS = {
    "n01440764": "tench", "n02102040": "English springer", "n02979186": "cassette player",
    "n03000684": "chain saw", "n03028079": "church", "n03394916": "French horn",
    "n03417042": "garbage truck", "n03425413": "gas pump", "n03445777": "golf ball",
    "n03888257": "parachute",
}  # fmt: skip

LAYOUTS = {
    # The file names do not say which age or gender 0 and 1 are.
    "bffhq": Layout(
        (), "*pct", _bffhq, "age", "gender", lambda root: {}, 64, "CC BY-NC-SA 4.0",
        "gender of young and old faces", (19_200, 1_000), "bffhq", conflict=0.005,
    ),
    "tiny_imagenet": Layout(
        ("tiny-imagenet-200",), "wnids.txt", _tiny_imagenet, "class", None, _words, 64,
        "not stated", "200 classes of ImageNet", (100_000, 10_000), "imagenet", 0,
    ),
    "imagenette": Layout(
        ("imagenette2-160", "imagenette2-320", "imagenette2"), "train/n01440764", _imagenette,
        "class", None, lambda root: {"class": _NOUNS}, 128,
        "not stated", "ten classes of ImageNet", (9_469, 3_925), "imagenet", 0,
    ),
    "celeba": Layout(
        (), "list_attr_celeba.*", _celeba, "Blond_Hair", "Male", lambda root: {}, 64,
        "research only", "faces with forty annotated columns", (162_770, 19_962), "celeba",
    ),
    "utkface": Layout(
        ("UTKFace",), "*_*_*_*.jpg", _utkface, "gender", "race",
        lambda root: {
            "gender": {"0": "male", "1": "female"},
            "race": {"0": "White", "1": "Black", "2": "Asian", "3": "Indian", "4": "Others"},
            "adult": {"0": "minor", "1": "adult"},
        },
        64, "research only", "faces with age, gender and race", (18_966, 4_742), "utkface", 5,
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
