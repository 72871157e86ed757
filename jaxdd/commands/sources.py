"""Load the data set that a command names: a benchmark, a folder, or a tensorflow-datasets set."""

import importlib
import logging
import pathlib
from typing import Any

from jaxdd.data import benchmarks, datasets, duplicates, files, folders
from jaxdd.runs import processes
from jaxdd.runs.options import DM
from jaxdd.runs.reports import command_line

TFDS = "tfds:"
"""Prefix of the names of tensorflow-datasets."""

# Options of a run that all commands about data have.
_DATA_OPTIONS = (
    "conflict", "severity", "resize", "skip_bad", "label", "attribute", "layout", "seed",
)  # fmt: skip


def short(dataset: str) -> str:
    """Return the name of a data set for file names.

    >>> short("tfds:mnist"), short("/data/pets/"), short(".")
    ('mnist', 'pets', 'folder')
    """
    return pathlib.Path(dataset.removeprefix(TFDS)).name or "folder"


def load(dataset: str, options: DM, data_dir: pathlib.Path | None) -> datasets.Benchmark:
    """Load a data set.

    Args:
        dataset: name of a benchmark, path of a folder of images, or tfds:NAME.
        options: options of a run, of which those of the data set are used.
        data_dir: folder with the original or prepared files of a benchmark or of tfds:NAME.

    Raises:
        ValueError: an unknown benchmark, or an option that is not for this kind of data set.
    """
    path, is_benchmark = pathlib.Path(dataset), dataset in benchmarks.NAMES
    if is_benchmark and data_dir is None and path.is_dir():
        raise ValueError(
            f"{dataset} is a benchmark and a folder; write ./{dataset} for the folder, or pass "
            "data-dir for the benchmark"
        )
    columns: dict[str, Any] = dict(label=options.label, attribute=options.attribute)
    shared: dict[str, Any] = dict(
        skip_bad=options.skip_bad, resize=options.resize, seed=options.seed
    )
    is_tfds = dataset.startswith(TFDS)
    if is_benchmark or not (path.exists() or "/" in dataset or is_tfds):
        if options.layout != "auto":
            raise ValueError(f"layout is an option of folders of images, got {dataset}")
        return benchmarks.load(
            dataset, data_dir=data_dir, conflict=options.conflict, severity=options.severity,
            test=options.test, **columns, **shared,
        )  # fmt: skip
    if (options.conflict, options.severity, options.test) != (None, None, "uniform"):
        raise ValueError(f"conflict, severity and test are options of benchmarks, got {dataset}")
    if is_tfds:
        if options.skip_bad or options.layout != "auto" or {*columns.values()} != {None}:
            raise ValueError(
                "skip-bad, label, attribute and layout are options of folders of images, got "
                f"{dataset}"
            )
        logging.getLogger("absl").setLevel(logging.ERROR)
        # Imported by name: only this branch needs tensorflow-datasets, which loads slowly.
        builders = importlib.import_module("jaxdd.data.builders")
        return builders.load(dataset.removeprefix(TFDS), data_dir=data_dir, resize=options.resize)
    if data_dir is not None:
        raise ValueError(f"data-dir is for benchmarks and tfds:NAME, {dataset} is a folder")
    folder = folders.read(path, layout=options.layout, **columns, **shared)
    name = files.to_utf8(path.resolve().name)
    # Under the name of a benchmark, it would be loaded and cited as that benchmark.
    name = f"./{name}" if name in benchmarks.NAMES else name
    benchmark = datasets.from_folder(folder, name=name)
    if processes.is_first():
        _print_reading(path, folder, benchmark)
    return benchmark


def words(
    dataset: str, options: DM, data_dir: pathlib.Path | None, *, all_options: bool = False
) -> list[str]:
    """Return a data set and its options that differ from the defaults, as on the command line.

    Args:
        dataset: the data set.
        options: options of a run.
        data_dir: folder with the original files, or None.
        all_options: whether to return all options of the run instead of those of the data only.
    """
    folder = [] if data_dir is None else ["--data-dir", str(data_dir)]
    names = None if all_options else _DATA_OPTIONS
    return [dataset, *folder, *command_line.option_words(options, names=names)]


def check_outside(dataset: str, out: pathlib.Path | None) -> None:
    """Raise if results would be written into the folder of images that they are made from."""
    folder = pathlib.Path(dataset)
    if dataset in benchmarks.NAMES or out is None or not folder.is_dir():
        return
    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"out must be outside of the images in {dataset}, got {out}; pass --out")


def _print_reading(path, folder, benchmark):
    """Say how a folder was read."""
    train, test = len(benchmark.train.labels), len(benchmark.test.labels)
    how = "" if folder.test is not None else " (a fifth, drawn at random)"
    notes = [*folder.notes, f"{train} images for training, {test} for testing{how}"]
    copies = duplicates.exact(benchmark).counts()
    counts = {
        "test images have the same pixels as a training image": copies["between"],
        "training images have the same pixels as an earlier one": copies["train"],
        "training images have the same pixels as one of another class": copies["contradictory"],
    }
    notes += [f"{count} {what}" for what, count in counts.items() if count]
    print(*(files.to_utf8(note) for note in (f"read {path}", *notes)), sep="\n")
