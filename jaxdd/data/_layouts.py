"""Read classes, attributes and splits of images from the names and the tables of a folder.

`read` lists the files of a folder once, decides what sub-folders and tables mean, and says so in
notes. It raises where two readings are possible. docs/guides/data.md has the rules. No image is
opened.
"""

import collections
import dataclasses
import functools
import itertools
import os
import pathlib
import re
from typing import NamedTuple

from jaxdd.data import _tables

ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm",
    ".pgm", ".pbm", ".pnm",
)  # fmt: skip
"""Endings of the names of images."""

_LAYOUTS = ("auto", "classes", "splits")

_SERVICE_FOLDERS = {
    "__macosx", "__pycache__", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot",
    "$recycle.bin", "system volume information", "lost+found", "thumbnails", "thumbs",
}  # fmt: skip
_RUN_FILES = {
    "config.json", "manifest.json", "result.json", "compare.json", "progress.jsonl", "timing.json",
    "synthetic.npz",
}  # fmt: skip
# Folders with such names hold a part of every sample, or a part of the samples of every class.
_SHARD_WORDS = {"part", "shard", "chunk", "batch", "fold"}
_PART_WORDS = _SHARD_WORDS | set(
    "image images img imgs jpegimages jpg jpeg png picture pictures photo photos rgb depth data "
    "dataset input inputs target targets output outputs mask masks label labels annotation "
    "annotations segmentation segmentations seg ground truth gt unlabeled unlabelled "
    "submission".split()
)
_TABLE_WORDS = {"metadata", "meta", "label", "labels", "annotation", "annotations", "data"}
_EXPECTED_ENDINGS = f"expected names that end in {' '.join(ENDINGS)}"
_EXPECTED_CLASSES = "expected a folder for each class, or a table such as metadata.csv"
_OR_CLASSES = "pass --layout classes if they are classes"


class Row(NamedTuple):
    """An image of a folder.

    Attributes:
        file: path of the image.
        label: its class.
        attribute: its bias attribute, None if it is unknown.
        split: train or test, or None.
    """

    file: str
    label: str
    attribute: str | None = None
    split: str | None = None


def read(
    root: pathlib.Path, *, label: str | None, attribute: str | None, layout: str
) -> tuple[list[Row], list[str]]:
    """Return the images of a folder, and sentences that say how the folder was read.

    Args:
        root: the folder, which exists.
        label: column of the tables with the class, see `folders.read`.
        attribute: column of the tables with the bias attribute, or crossed columns.
        layout: what the folders inside are: "classes", "splits", or "auto" to infer it.

    Returns:
        The images in the order of the tables or of their paths, and the sentences.
    """
    if layout not in _LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(_LAYOUTS)}, got {layout!r}.")
    listing = _Listing([], [], collections.Counter(), {}, [], [])
    _list_folder(root, "", listing)
    given = {"label": label, "attribute": attribute}
    if listing.tables and layout == "auto":
        rows, notes = _read_tables(root, listing, given)
    elif {*given.values()} != {None}:
        options = " and ".join(f"{use}={name!r}" for use, name in given.items() if name)
        raise ValueError(f"{options} needs a table, such as {root / 'metadata.csv'}.")
    else:
        rows, notes = _read_folders(root, listing, layout)
        notes += [f"table that is not read: {table}" for table in listing.tables]
    rows = _choose_splits(root, rows, notes)
    if listing.others:
        counts = (f"{count} {ending}" for ending, count in listing.others.most_common())
        notes.append(f"skipped files: {', '.join(counts)}")
    if ignored := [f"{count} in {folder}" for folder, count in listing.ignored.items() if count]:
        notes.append(f"ignored images of service folders and jaxdd runs: {', '.join(ignored)}")
    return rows, notes


def check_inside(root: pathlib.Path, path: str | os.PathLike) -> None:
    """Raise if a path leads out of a folder, by links or by `..`."""
    if not _is_inside(root, path):
        raise ValueError(f"{path} must be inside {root}, but is {os.path.realpath(path)}.")


def _is_inside(root, path):
    return pathlib.Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


# --- files -------------------------------------------------------------------------------------


class _Listing(NamedTuple):
    """The files of a folder, with paths relative to it, in the order of the paths.

    Attributes:
        images: files that end like images.
        tables: files that are named like tables.
        others: number of other files, by ending.
        ignored: number of images in each folder that is ignored.
        links: links to images that lead out.
        folders: folders that are not ignored.
    """

    images: list[str]
    tables: list[str]
    others: collections.Counter[str]
    ignored: dict[str, int]
    links: list[str]
    folders: list[str]


def _list_folder(root, prefix, listing):
    """Add the files below a folder, whose relative path is `prefix`, to a listing."""
    with os.scandir(root / prefix) as entries:
        visible = sorted((e for e in entries if e.name[0] != "."), key=lambda e: e.name)
    if prefix and len(_RUN_FILES & {entry.name for entry in visible}) > 1:
        listing.ignored[prefix[:-1]] = _count_images(root / prefix)
        return
    listing.folders.append(prefix)
    for entry in visible:
        path, (stem, ending) = prefix + entry.name, os.path.splitext(entry.name)
        if entry.is_dir():
            if entry.name.lower() in _SERVICE_FOLDERS:
                listing.ignored[path] = _count_images(entry.path)
            elif entry.is_symlink():  # which could lead back here
                _reject_link(root, path)
            else:
                _list_folder(root, path + "/", listing)
        # Not is_file: a dangling link must fail to decode instead of being skipped.
        elif ending.lower() in ENDINGS:
            leads_out = entry.is_symlink() and not _is_inside(root, entry.path)
            (listing.links if leads_out else listing.images).append(path)
        elif ending.lower() in _tables.ENDINGS and _is_table(stem):
            listing.tables.append(path)
        else:
            listing.others[ending.lower() or entry.name] += 1


def _reject_link(root, path):
    target = os.path.realpath(root / path)
    raise ValueError(f"{root / path} is a link to {target}; expected links to images in {root}.")


def _is_table(stem):
    words = _tables.words(stem)
    return bool(words & _TABLE_WORDS or (words and words <= _tables.SPLIT_WORDS.keys()))


def _count_images(folder):
    names = itertools.chain.from_iterable(names for _, _, names in os.walk(folder))
    return sum(os.path.splitext(name)[1].lower() in ENDINGS for name in names)


def _choose_splits(root, rows, notes):
    """Return the rows to train and to test on; validation images are for testing without others."""
    counts = collections.Counter(row.split for row in rows)
    if counts.keys() == {None}:
        return rows
    if "train" not in counts:
        raise ValueError(f"{root} has no training images, got {', '.join(counts)}.")
    if len(counts) == 1:
        notes.append("all images are for training")
        return [row._replace(split=None) for row in rows]
    test = "test" if "test" in counts else "val"
    if test == "val":
        notes.append(f"the {counts['val']} validation images are for testing")
    elif "val" in counts:
        notes.append(f"the {counts['val']} validation images are not read")
    return [
        row._replace(split="train" if row.split == "train" else "test")
        for row in rows
        if row.split in ("train", test)
    ]


# --- images in folders -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Part:
    """Images below a folder, whose relative path is `prefix`."""

    paths: list[str]
    prefix: str = ""
    split: str | None = None

    @functools.cached_property
    def groups(self) -> dict[str, list[str]]:
        """The images by their folder inside this one; those in none are under ""."""
        groups = {}
        for path in self.paths:
            name, slash, _ = path[len(self.prefix) :].partition("/")
            groups.setdefault(name if slash else "", []).append(path)
        return groups

    def inside(self, name, split=None):
        """Return the part in a folder inside this one."""
        paths = self.groups.get(name, [])
        return _Part(paths, f"{self.prefix}{name}/", split or self.split)


def _read_folders(root, listing, layout):
    if listing.links:
        _reject_link(root, listing.links[0])
    if not listing.images:
        raise ValueError(f"{root} has no images; {_EXPECTED_ENDINGS}.")
    parts, notes = [_Part(listing.images)], []
    if layout == "auto":
        parts = _unwrapped(parts)
        notes += [f"images are in {part.prefix[:-1]}" for part in parts if part.prefix]
    if layout == "splits" or (layout == "auto" and _has_splits(root, *parts)):
        parts = _unwrapped(_split_parts(root, *parts, notes))
    for part in parts:
        if stray := part.groups.get(""):
            hint = f", or pass {root / parts[0].prefix}" if part.split in ("val", "test") else ""
            raise ValueError(f"{root / stray[0]} is in no class; {_EXPECTED_CLASSES}{hint}.")
        if layout == "auto":
            _check_classes(root, listing, part)
    names = {name for part in parts for name in part.groups}
    if len(names) == 1 and layout == "auto":
        folder = root / parts[0].prefix / names.pop()
        raise ValueError(f"all images are in {folder}; {_EXPECTED_CLASSES}, or {_OR_CLASSES}.")
    labels = {name: _tables.normalize(name) for name in names}
    for part in parts:
        earlier = {}
        for name in part.groups:
            if (other := earlier.setdefault(labels[name], name)) != name:
                raise ValueError(
                    f"{root}: folders {other!r} and {name!r} differ only in blanks, accents or "
                    "invisible characters; rename or join them."
                )
    rows = [
        Row(os.path.join(root, path), labels[name], None, part.split)
        for part in parts
        for name, paths in part.groups.items()
        for path in paths
    ]
    return rows, [*notes, "classes are the names of folders"]


def _unwrapped(parts):
    """Return the parts in the only folder that has images, while this holds folders only."""
    names = {name for part in parts for name in part.groups}
    if len(names) == 1 and names != {""}:
        inner = [part.inside(*names) for part in parts]
        if not any("" in part.groups for part in inner):
            return _unwrapped(inner)
    return parts


def _has_splits(root, part):
    """Return whether the folders in a part are splits; raise if only some are."""
    groups = part.groups
    splits = {name: split for name in groups if (split := _tables.split_of(name))}
    if len(splits) == len(groups):
        return True
    # A folder train among other vehicles is a class, unless it holds classes itself.
    if len({*splits.values()}) > 1 or any(
        (name.lower() in _tables.SPLIT_WORDS and name.lower() != "train")
        or len(part.inside(name).groups.keys() - {""}) > 1
        for name in splits
    ):
        others = ", ".join(sorted(groups.keys() - splits.keys())) or "images"
        raise ValueError(
            f"{root / part.prefix} has folders of splits ({', '.join(splits)}) next to {others}; "
            "pass --layout splits to read the splits only, or --layout classes if all are classes."
        )
    return False


def _split_parts(root, part, notes):
    """Return the parts in folders of splits, training images first."""
    names = {"train": [], "val": [], "test": [], None: []}
    for name in part.groups:
        names[_tables.split_of(name)].append(name)
    if others := names.pop(None):
        notes.append(f"folders that are not read: {', '.join(others)}")
    for split in ("train", "test" if names["test"] else "val"):
        if len(names[split]) > 1:
            raise ValueError(
                f"{root / part.prefix} has {len(names[split])} folders for {split}, "
                f"{' and '.join(names[split])}; rename or join them, or {_OR_CLASSES}."
            )
    used = {split: folders for split, folders in names.items() if folders}
    notes += [f"{split} images are in {', '.join(folders)}" for split, folders in used.items()]
    return [part.inside(name, split) for split in used for name in used[split]]


def _check_classes(root, listing, part):
    """Raise if the folders in a part do not look like classes."""
    groups, folder = part.groups, root / part.prefix
    for path in listing.folders:
        name = path.removeprefix(part.prefix).rstrip("/")
        is_class = path.startswith(part.prefix) and name and "/" not in name
        # A folder of runs has nothing but what is ignored.
        if is_class and name not in groups and not any(p.startswith(path) for p in listing.ignored):
            raise ValueError(f"{root / path} has no images; {_EXPECTED_ENDINGS}.")
    inner_parts = _unwrapped([part.inside(name) for name in groups])
    folders = {
        name: inner.groups.keys() - {""} for name, inner in zip(groups, inner_parts, strict=True)
    }
    for name, inner in folders.items():
        if len({_tables.split_of(n) for n in inner} - {None}) > 1:
            raise ValueError(f"{folder / name} has folders of splits; expected splits of classes.")
        if len(inner) > 1 and all(map(_holds_parts, inner)):
            raise ValueError(
                f"{folder / name} has folders for parts of the same samples "
                f"({', '.join(sorted(inner))}); expected images only, or a table that names them."
            )
    if len(groups) > 1 and len(shared := sorted(set.intersection(*map(set, folders.values())))) > 1:
        raise ValueError(
            f"{folder} has the folders {', '.join(groups)}, which all hold {', '.join(shared)}; "
            f"rearrange them if the inner folders are the classes, or {_OR_CLASSES}."
        )
    if others := _parallel_folders(part):
        raise ValueError(
            f"{folder} has folders that may hold parts of the same samples or shards "
            f"({', '.join(others)}); pass the folder with the classes, or {_OR_CLASSES}."
        )
    stems = {os.path.splitext(path)[0] for path in part.paths}
    mask = re.compile(r"[-_ ](mask|gt|seg|segmentation)\d*$")
    masks = [stem for stem in stems if mask.search(stem) and mask.sub("", stem) in stems]
    if masks:
        raise ValueError(
            f"{root / masks[0]} and {len(masks) - 1} others may be masks of other images; move "
            "them out, or name the images in a table."
        )


def _holds_parts(name):
    """Return whether a folder is called like one that holds parts of samples, or of a class."""
    words = _tables.words(name)
    return bool(words) and words <= _PART_WORDS


def _parallel_folders(part):
    """Return the names of folders that hold images and masks of the same samples, or shards."""
    groups = part.groups
    stems = [
        {os.path.splitext(path[len(part.prefix) + len(name) :])[0] for path in paths}
        for name, paths in groups.items()
    ]
    # Classes may be numbered alike, evenly. Other equal names are those of the same samples.
    numbers = sorted({int(digits) for stem in stems[0] if (digits := re.sub(r"\D", "", stem))})
    is_numbered = len({b - a for a, b in itertools.pairwise(numbers)}) == 1
    is_alike = len(stems[0]) > 2 and not is_numbered and all(x == stems[0] for x in stems)
    without_digits = {re.sub(r"\d", "", name) for name in groups}
    is_sharded = len(without_digits) == 1 and bool(_SHARD_WORDS & _tables.words(*without_digits))
    if len(groups) > 1 and (is_alike or is_sharded):
        return list(groups)
    return [name for name in groups if len(groups) > 1 and _holds_parts(name)]


# --- images in tables --------------------------------------------------------------------------


def _read_tables(root, listing, given):
    _check_tables(root, listing.tables)
    rows, notes, earlier, table_splits = [], [], {}, []
    spellings, images = collections.defaultdict(set), _Images(root, listing.images)

    def plain(use, text):
        normal = _tables.normalize(text)
        spellings[f"{use} {normal!r}"].add(text)
        return normal

    for table in listing.tables:
        columns, entries = _tables.read(root / table, given)
        used = ", ".join(f"{use} is {'+'.join(names)}" for use, names in columns.items())
        notes.append(f"table {table}: {used}")
        table_splits += [_tables.split_of(os.path.basename(table))] * len(entries)
        for where, name, label, attribute, split in entries:
            file = images.find(where, os.path.dirname(table), name)
            first = earlier.setdefault(os.path.realpath(root / file), where)
            if first != where:
                raise ValueError(f"{where}: {name} is already in {first}.")
            attribute = attribute and plain("attribute", attribute)
            rows.append(Row(file, plain("label", label), attribute, split))
    if not rows:
        raise ValueError(f"{root / listing.tables[0]} has no rows; expected one for each image.")
    _check_all_or_none(root / listing.tables[0], "split", [row.split for row in rows])
    if joined := [value for value, forms in spellings.items() if len(forms) > 1]:
        notes.append(f"joined spellings in Unicode of {', '.join(joined)}")
    if unused := len({*listing.images} - {row.file for row in rows}):
        notes.append(f"{unused} images are in no table and are not read")
    # Without a column, splits are those that all folders, or else all tables, are named after.
    folder_splits = [_folder_split(row.file) for row in rows]
    splits = table_splits if None in folder_splits else folder_splits
    if rows[0].split is None and len({*splits} - {None}) > 1 and None in splits:
        image = rows[splits.index(None)].file
        raise ValueError(f"{root / image} is in no split, unlike others; expected a column split.")
    if rows[0].split is None and None not in splits:
        rows = [row._replace(split=split) for row, split in zip(rows, splits, strict=True)]
    return [row._replace(file=os.path.join(root, row.file)) for row in rows], notes


def _folder_split(path):
    """Return the split that a folder on a path is named after, or None."""
    names = path.split(os.sep)[:-1]
    return next((split for name in names if (split := _tables.split_of(name))), None)


def _check_tables(root, tables):
    """Raise if a folder has several tables that are not those of different splits."""
    for folder in map(os.path.dirname, tables):
        names = [name for name in tables if os.path.dirname(name) == folder]
        if len({_tables.split_of(os.path.basename(name)) for name in names}) < len(names):
            raise ValueError(f"{root / folder} must have one table, got {' and '.join(names)}.")


def _check_all_or_none(table, column, values):
    count = sum(value is not None for value in values)
    if 0 < count < len(values):
        raise ValueError(
            f"{table} must give the {column} of all rows or of none, got {count} of "
            f"{len(values)}; the first row without is {values.index(None) + 1}."
        )


class _Images:
    """Finds the images that tables name."""

    def __init__(self, root, paths):
        self._root, self._paths = root, set(paths)

    @functools.cached_property
    def _by_name(self):
        names = collections.defaultdict(set)
        for path in self._paths:
            name = _tables.normalize(path)
            base = os.path.basename(name)
            for key in (name, base, os.path.splitext(base)[0]):
                names[key].add(path)
        return names

    def find(self, where, folder, name):
        """Return the relative path of an image that the table in a folder names.

        The name may be written in another form of Unicode, or lack the ending or inner folders if
        there is just one such image in the folder.
        """
        path = os.path.normpath(os.path.join(folder, name))
        if os.path.isabs(name) or path.split(os.sep)[0] == "..":
            raise ValueError(f"{where}: file must be relative to the table, got {name!r}.")
        if path in self._paths:
            return path
        if (self._root / path).is_file():
            if not _is_inside(self._root, self._root / path):
                raise ValueError(f"{where}: file must be inside {self._root}, got {name!r}.")
            return path
        for key in (_tables.normalize(path), _tables.normalize(name)):
            similar, inside = self._by_name[key.replace("\\", "/")], os.path.join(folder, "")
            if len(candidates := [path for path in similar if path.startswith(inside)]) == 1:
                return candidates[0]
        raise FileNotFoundError(f"{where}: {self._root / path} does not exist")
