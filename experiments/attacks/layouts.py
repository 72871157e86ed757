"""Folders of images in the layouts of strangers: read as they mean, or refused.

The pixels of each image say its class and split, so that a reading can be compared with the truth
whatever the folder looks like. A layout is drawn from independent parts: where classes and splits
are stored, how folders, columns and values are called, and what else lies in the folder.
"""

import contextlib
import csv
import functools
import json
import pathlib
import shutil
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from experiments.attacks import laboratory as lab
from jaxdd.data import datasets, folders

NUMBER = 200
"""Layouts per round."""

SPLITS = (
    ("train", "test"), ("Train", "Test"), ("TRAIN", "TEST"), ("training", "testing"),
    ("Training", "Testing"), ("train", "val"), ("train", "valid"), ("train", "validation"),
    ("train", "dev"), ("training", "validation"), ("train", "eval"), ("seg_train", "seg_test"),
    ("training_set", "test_set"), ("train_images", "test_images"), ("trainset", "testset"),
)  # fmt: skip
CLASSES: tuple[tuple[str, ...], ...] = (
    ("ant", "bee", "cow"), ("0", "1", "2"), ("1", "2", "10"), ("0.0", "1.0", "10.0"),
    ("-1", "0", "1"), ("01", "02", "10"), ("n01440764", "n01443537", "n01484850"),
    ("café", "naïve", "plain"), ("train", "plane", "ship"), ("images", "data", "labels"),
    ("a b", "a_b", "a-b"), ("A", "B", "C"), ("$x$", "p%1", "{q}"), ("真", "偽", "他"),
    ("001.Black_footed", "002.Laysan", "010.Sooty"), ("True", "False", "None"),
)  # fmt: skip
TABLES = ("metadata", "Metadata", "labels", "annotations", "train", "data", "METADATA")
FILE_COLUMNS = ("file", "file_name", "filename", "image", "path", "File", "id")
LABEL_COLUMNS = ("label", "Label", "class", "category", "target")
ENDINGS = (".png", ".PNG", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".jfif", ".jpeg")


# --- parts of a layout -------------------------------------------------------------------------


def _nothing(folder, rng):
    pass


def _service_folder(folder, rng):
    names = ("@eaDir", "__MACOSX", ".ipynb_checkpoints", "$RECYCLE.BIN", ".thumbnails",
             "System Volume Information", "lost+found", ".git", "#recycle", ".@__thumb",
             "@Recycle", ".Trash-1000", "__pycache__")  # fmt: skip
    inside = folder if rng.random() < 0.5 else _some_folder(folder, rng)
    path = inside / str(rng.choice(names))
    path.mkdir()
    if rng.random() < 0.7:
        _draw(path / "thumb.png", 250, 0, 0)


def _service_file(folder, rng):
    names = (".DS_Store", "Thumbs.db", "desktop.ini", "._000.png", ".nfs000", "README.txt")
    (_some_folder(folder, rng) / str(rng.choice(names))).write_bytes(b"\0\1\2")


def _masks(folder, rng):
    """Put a mask for each image into a folder parallel to the images."""
    images = [path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS]
    for path in images:
        mask = folder / "masks" / path.relative_to(folder)
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(mask.with_suffix(".png"))


def _sample_sheet(folder, rng):
    _draw(folder / str(rng.choice(["sheet.png", "preview.png", "logo.png"])), 250, 0, 0)


def _empty_folder(folder, rng):
    (folder / str(rng.choice(["empty", "unlabeled", "tmp"]))).mkdir()


def _linked_class(folder, rng):
    """Replace a folder of images by a link to it outside of the folder."""
    path, outside = _some_folder(folder, rng), folder.with_name("outside")
    if path != folder:
        shutil.move(path, outside)
        path.symlink_to(outside, target_is_directory=True)


def _linked_inside(folder, rng):
    path = _some_folder(folder, rng)
    outside = folder.with_name("outside")
    outside.mkdir()
    _draw(outside / "x.png", 250, 0, 0)
    (path / "more").symlink_to(outside, target_is_directory=True)


def _finished_run(folder, rng):
    run = folder / "results"
    run.mkdir()
    for name in ("config.json", "manifest.json", "result.json"):
        (run / name).write_text("{}")
    _draw(run / "synthetic.png", 250, 0, 0)


def _other_size(folder, rng):
    path = next(p for p in sorted(folder.rglob("*")) if p.suffix.lower() in ENDINGS)
    with Image.open(path) as image:
        image.convert("RGB").resize((7, 7)).save(path)


def _unlabelled(folder, rng):
    """Add test images without classes, as competitions do."""
    path = folder / str(rng.choice(["test", "unlabelled", "submission"]))
    if not path.exists():
        path.mkdir()
        _draw(path / "900.png", 250, 0, 0)


def _archive(folder, rng):
    (_some_folder(folder, rng) / "images.zip").write_bytes(b"PK\5\6" + bytes(18))


CLUTTER: tuple[Callable[..., None], ...] = (
    _nothing, _nothing, _nothing, _service_folder, _service_folder, _service_file, _masks,
    _sample_sheet, _empty_folder, _linked_class, _linked_inside, _finished_run, _other_size,
    _unlabelled, _archive,
)  # fmt: skip


def _some_folder(folder, rng):
    holding = sorted({p.parent for p in folder.rglob("*") if p.suffix.lower() in ENDINGS})
    return holding[int(rng.integers(len(holding)))]


def _draw(path, label, split, number):
    """Draw an image of one colour: class, split and number, far enough apart for JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    formats = {".jfif": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
    form = formats.get(path.suffix.lower(), path.suffix.lower()[1:].upper())
    color = (20 + 40 * label, 200 * split + 20, 4 * number) if label < 250 else (250, 120, 250)
    with open(path, "wb") as file:
        Image.new("RGB", (8, 8), color).save(
            file, form, **({"lossless": True} if form == "WEBP" else {})
        )


# --- layouts -----------------------------------------------------------------------------------


def _write_table(path, kind, columns, rows, rng):
    if kind == "jsonl":
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
        path.with_suffix(".jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif kind == "parquet":
        import pyarrow.parquet  # pyright: ignore[reportMissingImports]

        table = pyarrow.table(dict(zip(columns, zip(*rows, strict=True), strict=True)))
        pyarrow.parquet.write_table(table, path.with_suffix(".parquet"))
    else:
        encoding = "utf-8-sig" if rng.random() < 0.2 else "utf-8"
        delimiter = "\t" if kind == "tsv" else ";" if rng.random() < 0.1 else ","
        with open(path.with_suffix(f".{kind}"), "w", newline="", encoding=encoding) as file:
            csv.writer(file, delimiter=delimiter).writerows([columns, *rows])


def make(folder: pathlib.Path, rng: np.random.Generator) -> tuple[dict[str, Any], str]:
    """Make a folder in a random layout.

    Returns:
        The truth (class names, and whether there is a split), and the layout in words.
    """
    choose = lambda options: options[int(rng.integers(len(options)))]
    classes, splits = choose(CLASSES), choose(SPLITS) if rng.random() < 0.6 else None
    style = choose(["folders", "folders", "nested", "table", "table", "table per split"])
    endings = (".png",) if rng.random() < 0.7 else (choose(ENDINGS), choose(ENDINGS))
    if rng.random() < 0.1:  # the same names in another normal form of Unicode
        classes = tuple(unicodedata.normalize("NFD", name) for name in classes)
    rows, depth = [], choose(["", "", "images", "data"])
    for i in range(24):
        label, test = i % 3, splits is not None and i % 4 == 3
        split = splits[test] if splits else ""
        name = f"{i:03d}{endings[i % len(endings)]}"
        parts = {
            "folders": (split, classes[label], name),
            "nested": (split, classes[label], "images", name),
            "table": (depth, name),
            "table per split": (split, depth, name),
        }[style]
        path = pathlib.Path(folder, *(part for part in parts if part))
        _draw(path, label, test, i)
        rows.append((path, classes[label], split))
    words = [style, "/".join(classes), "/".join(splits or ("no split",)), "".join(endings), depth]
    if style.startswith("table"):
        words += _add_tables(folder, rows, style, splits, rng, choose)
    clutter = choose(CLUTTER)
    clutter(folder, rng)
    return {"classes": classes, "split": splits is not None}, ", ".join([*words, clutter.__name__])


def _add_tables(folder, rows, style, splits, rng, choose):
    stem, kind = choose(TABLES), choose(["csv", "csv", "tsv", "jsonl", "parquet"])
    file_column, label_column = choose(FILE_COLUMNS), choose(LABEL_COLUMNS)
    per_split = style == "table per split" and splits is not None
    columns = [file_column, label_column]
    where = [folder / split for split in splits] if per_split else [folder]
    is_beside = rng.random() < 0.5  # paths relative to the images instead of the folder
    for place in where:
        inside = [row for row in rows if not per_split or place in row[0].parents]
        base = place
        if is_beside and not per_split and len({row[0].parent for row in inside}) == 1:
            base = place = inside[0][0].parent
        content = [(row[0].relative_to(base).as_posix(), row[1]) for row in inside]
        if splits and not per_split:
            content = [(*pair, row[2]) for pair, row in zip(content, inside, strict=True)]
        _write_table(
            place / stem, kind, columns + (["split"] if splits and not per_split else []),
            content, rng,
        )  # fmt: skip
    return [f"{stem}.{kind}", file_column, label_column, "next to the images" if is_beside else ""]


# --- the verdict -------------------------------------------------------------------------------


def attacks(laboratory: lab.Laboratory, round_: int) -> Iterator[lab.Attack]:
    """Yield the attacks of a round, which seeds the layouts."""
    for number in range(NUMBER):
        run = functools.partial(_attack, laboratory, round_, number)
        yield lab.Attack(f"layout {number}, round {round_}", run)


def _attack(laboratory, round_, number):
    folder = laboratory.fresh()
    truth, words = make(folder, np.random.default_rng([round_, number]))
    try:
        with contextlib.redirect_stderr(None):
            read = folders.read(folder, resize=8)
            benchmark = datasets.from_folder(read)
    except (ValueError, FileNotFoundError, ImportError) as error:
        text = str(error)
        is_clear = bool(text) and "\n" not in text
        return lab.Outcome("refused" if is_clear else "traceback", words, text)
    except Exception:
        return lab.Outcome("traceback", words, traceback.format_exc()[-900:])
    fault = misread(read, benchmark, truth)
    return lab.Outcome("silent" if fault else "right", words, fault)


def misread(folder: folders.Folder, benchmark: datasets.Benchmark, truth: dict[str, Any]) -> str:
    """Return what of a reading differs from what the pixels say, "" for nothing."""
    plain = lambda name: unicodedata.normalize("NFC", name)
    pixels = folder.images[:, 4, 4].astype(int)
    label, test, number = (pixels[:, 0] - 20) / 40, pixels[:, 1] > 120, pixels[:, 2] / 4
    if (pixels[:, 0] > 200).any():
        return f"{(pixels[:, 0] > 200).sum()} images that belong to no class"
    if sorted(np.round(number)) != list(range(24)):
        return f"{len(number)} images instead of 24"
    names = [plain(folder.class_names[i]) for i in folder.labels]
    expected = [plain(truth["classes"][round(i)]) for i in label]
    if any(not same(*pair) for pair in zip(names, expected, strict=True)):
        return f"classes {sorted(set(names))} instead of {sorted(set(expected))}"
    if truth["split"] and (folder.test is None or (folder.test != test).any()):
        return "another split"
    if folder.test is not None and not truth["split"]:
        return "a split that is not there"
    return "" if benchmark.num_classes == 3 else f"{benchmark.num_classes} classes"


def same(name: str, expected: str) -> bool:
    """Return whether two names of a class are equal, as text or as numbers."""
    try:
        return float(name) == float(expected)
    except ValueError:
        return name == expected
