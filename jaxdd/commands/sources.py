"""Load the data set that a command names: a benchmark, a folder, or a tensorflow-datasets set."""

import importlib
import logging
import pathlib
import sys
from typing import Any

from jaxdd.data import benchmarks, datasets, files, folders
from jaxdd.runs.options import DM

TFDS = "tfds:"
"""Prefix of the names of tensorflow-datasets."""


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
    is_path = pathlib.Path(dataset).exists() or "/" in dataset
    columns: dict[str, Any] = dict(label=options.label, attribute=options.attribute)
    shared: dict[str, Any] = dict(
        skip_bad=options.skip_bad, resize=options.resize, seed=options.seed
    )
    if dataset in benchmarks.NAMES or not (is_path or dataset.startswith(TFDS)):
        return benchmarks.load(
            dataset, data_dir=data_dir, conflict=options.conflict, severity=options.severity,
            test=options.test, **columns, **shared,
        )  # fmt: skip
    if (options.conflict, options.severity, options.test) != (None, None, "uniform"):
        raise ValueError(f"conflict, severity and test are options of benchmarks, got {dataset}")
    if dataset.startswith(TFDS):
        if options.skip_bad or (options.label, options.attribute) != (None, None):
            raise ValueError(
                f"skip-bad, label and attribute are options of folders of images, got {dataset}"
            )
        logging.getLogger("absl").setLevel(logging.ERROR)
        # Imported by name: only this branch needs tensorflow-datasets, which loads slowly.
        builders = importlib.import_module("jaxdd.data.builders")
        return builders.load(dataset.removeprefix(TFDS), data_dir=data_dir, resize=options.resize)
    if data_dir is not None:
        raise ValueError(f"data-dir is for benchmarks and tfds:NAME, {dataset} is a folder")
    folder = folders.read(dataset, **columns, **shared)
    if skipped := folder.skipped:
        names = ", ".join(skipped[:5]) + (", …" if skipped[5:] else "")
        images = "1 image that does" if len(skipped) == 1 else f"{len(skipped)} images that do"
        print(f"jaxdd: left out {images} not decode: {names}", file=sys.stderr)
    return datasets.from_folder(folder, name=files.to_utf8(pathlib.Path(dataset).resolve().name))
