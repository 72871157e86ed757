"""From what a user calls a data set to the data."""

import importlib
import logging
import pathlib
import sys

from jaxdd.data import benchmarks, datasets, folders

TFDS = "tfds:"
"""What the name of a tensorflow-datasets set begins with."""


def short(dataset):
    """A word for a data set, as it stands in the names of folders and files."""
    return pathlib.Path(dataset.removeprefix(TFDS)).name or "folder"


def load(dataset, options, data_dir):
    """The benchmark of that name, the images in that folder, or a tensorflow-datasets set."""
    given = pathlib.Path(dataset).exists() or "/" in dataset or dataset.startswith(TFDS)
    if dataset in benchmarks.NAMES or not given:
        return benchmarks.load(
            dataset,
            data_dir=data_dir,
            conflict=options.conflict,
            severity=options.severity,
            seed=options.seed,
            test=options.test,
            label=options.label,
            attribute=options.attribute,
            resize=options.resize,
            skip_bad=options.skip_bad,
        )
    if (options.conflict, options.severity, options.test) != (None, None, "uniform"):
        raise ValueError(f"conflict, severity and test are for benchmarks, {dataset} is none")
    if dataset.startswith(TFDS):
        if options.skip_bad or (options.label, options.attribute) != (None, None):
            raise ValueError(
                f"skip-bad, label and attribute are for folders of images, {dataset} is none"
            )
        logging.getLogger("absl").setLevel(logging.ERROR)
        # By its name: it imports tensorflow-datasets, which nothing else should wait for.
        builders = importlib.import_module("jaxdd.data.builders")
        return builders.load(dataset.removeprefix(TFDS), data_dir=data_dir, resize=options.resize)
    if data_dir is not None:
        raise ValueError(f"data-dir is for benchmarks and tfds:NAME, {dataset} is a folder")
    folder = folders.read(
        dataset,
        resize=options.resize,
        skip_bad=options.skip_bad,
        label=options.label,
        attribute=options.attribute,
        seed=options.seed,
    )
    if folder.skipped:
        names = ", ".join(folder.skipped[:5]) + (", …" if folder.skipped[5:] else "")
        images = (
            "1 image that does"
            if len(folder.skipped) == 1
            else f"{len(folder.skipped)} images that do"
        )
        print(f"jaxdd: left out {images} not decode: {names}", file=sys.stderr)
    name = pathlib.Path(dataset).resolve().name
    return datasets.from_folder(folder, name=name)
