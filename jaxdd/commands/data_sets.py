"""The commands about data: what there is, what is in it, and whether it is biased."""

import functools
import pathlib
import time
from typing import Literal

import numpy as np
import rich.console
import rich.table
import rich.text
import tyro

from jaxdd.commands import screen, sources
from jaxdd.data import benchmarks
from jaxdd.devices import parallel
from jaxdd.runs import options
from jaxdd.runs.reports import bias_page, plot

MEANING = (
    "conflict: share of the training images without the attribute of most of their class; spread: "
    "by how many images the other attributes of a class differ at most; independence p: of the "
    "test that attribute and class of the test images have nothing to do with each other"
)
"""What the words of `show_dataset` mean."""


def find_bias(
    dataset: tyro.conf.Positional[str],
    *,
    conflict: float | None = None,
    severity: int | None = None,
    resize: int | None = None,
    skip_bad: bool = False,
    label: str | None = None,
    attribute: str | None = None,
    seed: int = 0,
    data_dir: pathlib.Path | None = None,
    out: pathlib.Path | None = None,
) -> None:
    """Say whether a data set has a bias, and show it on one HTML page; nothing is distilled.

    Args:
        dataset: name of a benchmark (see `jaxdd datasets list`), a folder of images, or tfds:NAME.
        conflict: share of bias-conflicting samples in each class of a benchmark, 0 to 1.
        severity: of the benchmark's bias, 1 to 4.
        resize: height and width in pixels that the images of a folder are resized to.
        skip_bad: leave out images of a folder that do not decode.
        label: column that is the class, of an annotated set or of metadata.csv.
        attribute: column that is the bias attribute, likewise.
        seed: of the benchmark, and of all that is drawn.
        data_dir: folder with the original files (of tfds:NAME, where it is prepared).
        out: the HTML file; by default bias-DATASET.html.
    """
    out = pathlib.Path(f"bias-{sources.short(dataset)}.html") if out is None else out
    check_page(out)
    asked = options.DM(
        conflict=conflict,
        severity=severity,
        resize=resize,
        skip_bad=skip_bad,
        label=label,
        attribute=attribute,
        seed=seed,
    )
    data = sources.load(dataset, asked, data_dir)
    progress = screen.Progress()
    with progress.bar:
        report_to = functools.partial(progress, "looking for a bias")
        found = bias_page.find(data, seed=seed, mesh=parallel.cpu_mesh(), progress=report_to)
    bias_page.write(out, found, data)
    print(f"{data.name}: {bias_page.headline(found)}")
    print(f"wrote {out}")


def check_page(out):
    """Refuses a path that is not one for an HTML page, before any work is done for it."""
    if out.is_dir() or not out.name:
        raise ValueError(f"out must be a file for the page, found the folder {out}")
    if out.suffix not in (".html", ".htm"):
        raise ValueError(f"out must end in .html, found {out}")


def list_datasets() -> None:
    """List the benchmarks, with sizes and licences."""
    table = rich.table.Table(box=None, padding=(0, 2, 0, 0))
    for column in ("name", "train", "test", "image", "conflict", "what", "licence"):
        table.add_column(column, no_wrap=column not in ("what", "licence"))
    for name in benchmarks.NAMES:
        train, test, size, _, conflict, licence, about = benchmarks.describe(name)
        table.add_row(name, train, test, size, conflict, about, licence)
    rich.console.Console().print(table)


def show_dataset(
    dataset: tyro.conf.Positional[str],
    *,
    conflict: float | None = None,
    severity: int | None = None,
    test: Literal["uniform", "conflicting"] = "uniform",
    resize: int | None = None,
    skip_bad: bool = False,
    label: str | None = None,
    attribute: str | None = None,
    seed: int = 0,
    data_dir: pathlib.Path | None = None,
    out: pathlib.Path | None = None,
) -> None:
    """Count what a data set is made of, and draw aligned and conflicting images of each class.

    Args:
        dataset: name of a benchmark, a folder of images, or tfds:NAME.
        conflict: share of bias-conflicting samples in each class of a benchmark, 0 to 1.
        severity: of the benchmark's bias, 1 to 4.
        test: test set of a benchmark, unbiased or bias-conflicting only.
        resize: height and width in pixels that the images of a folder are resized to.
        skip_bad: leave out images of a folder that do not decode.
        label: column that is the class, of an annotated set or of metadata.csv.
        attribute: column that is the bias attribute, likewise.
        seed: of the benchmark.
        data_dir: folder with the original files (of tfds:NAME, where it is prepared).
        out: PNG file for the contact sheet; none is drawn without it.
    """
    if out is not None and (out.is_dir() or not out.name):
        raise ValueError(f"out must be a file for the picture, found the folder {out}")
    asked = options.DM(
        conflict=conflict,
        severity=severity,
        test=test,
        resize=resize,
        skip_bad=skip_bad,
        label=label,
        attribute=attribute,
        seed=seed,
    )
    start = time.perf_counter()
    benchmark = sources.load(dataset, asked, data_dir)
    seconds = time.perf_counter() - start
    for name, value in benchmarks.statistics(benchmark).items():
        print(f"{name:<16}{value:.4g}" if isinstance(value, float) else f"{name:<16}{value}")
    print(f"{'seconds':<16}{seconds:.2f}")
    if benchmark.train.attributes is not None:
        print(MEANING)
    if benchmark.train.attributes is not None:
        _groups(benchmark)
    if out is not None:
        _contact_sheet(out, benchmark)
        print(f"wrote {out}")


def _groups(benchmark, *, most=20):
    """Prints how many training images each group has; that of the aligned attribute is bold."""
    counts = benchmarks.group_counts(benchmark, benchmark.train)
    names = benchmark.attribute_names or tuple(map(str, range(benchmark.num_attributes)))
    classes = benchmark.class_names or tuple(map(str, range(benchmark.num_classes)))
    if max(counts.shape) > most:
        print(f"groups          {counts.size}, of which {(counts == 0).sum()} are empty")
        return
    print("training images of each group; bold is what most of a class have, its aligned one")
    table = rich.table.Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("class")
    for name in names:
        table.add_column(rich.text.Text(name), justify="right")
    for name, row, aligned in zip(classes, counts, benchmark.aligned, strict=True):
        cells = [f"[bold]{n}[/bold]" if i == aligned else str(n) for i, n in enumerate(row)]
        table.add_row(rich.text.Text(name), *cells)
    rich.console.Console().print(table)
    if len(set(benchmark.aligned)) == 1 < benchmark.num_classes:
        print(
            f"every class is aligned with {names[benchmark.aligned[0]]}: aligned and conflicting "
            "say which attribute is rare, not which class goes with it; compare the groups"
        )


def build_dataset(
    dataset: tyro.conf.Positional[str],
    *,
    conflict: float | None = None,
    severity: int | None = None,
    test: Literal["uniform", "conflicting"] = "uniform",
    seed: int = 0,
    data_dir: pathlib.Path | None = None,
) -> None:
    """Make a benchmark and keep it in the cache (~/.cache/jaxdd), where later runs find it.

    Args:
        dataset: name of a benchmark.
        conflict: share of bias-conflicting samples in each class, 0 to 1.
        severity: of the bias, 1 to 4.
        test: test set, unbiased or bias-conflicting only.
        seed: of the benchmark.
        data_dir: folder with the original files; without it they are downloaded.
    """
    if dataset not in benchmarks.RECIPES:
        known = ", ".join(benchmarks.RECIPES)
        raise ValueError(f"what is made and kept are {known}; {dataset} is read as it is")
    show_dataset(
        dataset, conflict=conflict, severity=severity, test=test, seed=seed, data_dir=data_dir
    )


def _contact_sheet(path, benchmark, *, columns=8):
    """Draws the first training images of each class; white where there are fewer."""
    train = benchmark.train
    sets = {"training images": np.ones(len(train.labels), bool)}
    if benchmark.aligned is not None:
        aligned = train.attributes == np.array(benchmark.aligned)[train.labels]
        sets = {"aligned": aligned, "conflicting": ~aligned}
    sizes = dict(num_classes=benchmark.num_classes, columns=columns)
    drawn = {
        name: plot.by_class(train.images, train.labels, np.flatnonzero(kept), **sizes)
        for name, kept in sets.items()
    }
    zero, one = ((value,) * train.images.shape[3] for value in (0.0, 1.0))
    plot.comparison(path, drawn, mean=zero, std=one)
