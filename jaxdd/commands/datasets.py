"""Commands about data: list the benchmarks, describe a data set, and look for a bias in it."""

import dataclasses
import functools
import pathlib
import shlex
import sys
import time
from typing import Any, Literal

import numpy as np
import rich.console
import rich.table
import rich.text

from jaxdd.commands import screen, sources
from jaxdd.commands.arguments import DATA_DIR, DataSet, File, Folder
from jaxdd.data import benchmarks, duplicates
from jaxdd.devices import parallel
from jaxdd.runs import bias, options, results
from jaxdd.runs.folder import embedding_file
from jaxdd.runs.reports import bias_page, pages, plot

_LEGEND = (
    "conflict: share of training images without the majority attribute of their class; "
    "spread: largest difference in size between the other groups of a class; "
    "oracle ess: effective sample size of weights that balance the groups, mean over classes; "
    "independence p: p-value of the test that attribute and class of the test images are "
    "independent"
)

_MAX_GROUPS = 20  # larger tables of group sizes are not printed
_MAX_SMALL = 5  # number of small groups that are named
_Test = Literal["uniform", "conflicting"]


@dataclasses.dataclass(frozen=True)
class DataArguments:
    """Options of a data set that several commands share; their help is that of `options.DM`."""

    conflict: float | None = None
    severity: int | None = None
    resize: int | None = None
    skip_bad: bool = False
    label: str | None = None
    attribute: str | None = None
    layout: Literal["auto", "classes", "splits"] = "auto"
    data_dir: Folder | None = dataclasses.field(
        default=None, metadata=dict(help=DATA_DIR, group="data")
    )

    def values(self) -> dict[str, Any]:
        """Return the options of the data by name."""
        return {name: x for name, x in vars(self).items() if name != "data_dir"}

    def changed(self) -> list[str]:
        """Return the names of options that differ from their defaults, without data_dir."""
        defaults = type(self)().values()
        return [name for name, value in self.values().items() if value != defaults[name]]

    def make_options(self, **others: Any) -> options.DM:
        """Return the options of a run on this data; `others` are further options."""
        return options.DM(**self.values(), **others)


def find_bias(
    dataset: DataSet,
    *,
    data: DataArguments = DataArguments(),
    suspect: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    embedding: File | None = None,
    max_samples: int = 15_000,
    ask: int = 20,
    seed: int = 0,
    output: screen.Output = screen.Output(),
    out: File | None = None,
    json: File | None = None,
    csv: File | None = None,
) -> None:
    """Look for a bias in a data set and write an HTML page about it, without distillation.

    The exit code is 0 without evidence of a bias, 1 if the tests detected a bias, 3 if they are
    undecided, and 2 for invalid input.

    Args:
        dataset: Name of a benchmark (see `jaxdd datasets list`), a folder of images, or tfds:NAME.
        data: Options of the data set.
        suspect: Candidates that may be chosen although their features can show the object, such as
            border.
        exclude: Candidates that must not be chosen because their features are the object, such as
            texture for fabrics.
        embedding: .npy or .npz file with one row of numbers per training image, for example by a
            pretrained network, for one more candidate.
        max_samples: Maximum number of training images to analyse.
        ask: Number of images whose bias labels the page asks for.
        seed: Random seed of the benchmark and of the analysis.
        output: How much is printed.
        out: HTML file. Defaults to bias-DATASET.html.
        json: JSON file for the verdict and the evidence. Defaults to none.
        csv: CSV file for the scores and weights of each image, by candidate. Defaults to none.
    """
    out = out or pathlib.Path(f"bias-{sources.short(dataset)}.html")
    pages.check_path(out)
    _check_outputs(dataset, {"out": out, "json": json, "csv": csv})
    run_options = data.make_options(seed=seed, suspect=suspect, exclude=exclude)
    benchmark = sources.load(dataset, run_options, data.data_dir)
    rows = None if embedding is None else embedding_file.read_for(embedding, benchmark)
    words = sources.words(dataset, run_options, data.data_dir)
    progress = output.progress()

    def preview(finding):
        bias_page.write(out, finding, benchmark)
        progress.bar.console.print(f"wrote {out} with candidates that are not tested yet")

    with progress:
        finding = bias.find(
            benchmark, run_options, dataset=shlex.join(words),
            folder=dataset if benchmark.train_files else None, embedding=rows,
            embedding_path=embedding, max_samples=max_samples, ask=ask, mesh=parallel.cpu_mesh(),
            progress=functools.partial(progress, "looking for a bias"),
            preview=preview,
        )  # fmt: skip
    bias_page.write(out, finding, benchmark)
    if json is not None:
        bias.write_json(json, finding, benchmark)
    if csv is not None:
        bias.write_csv(csv, finding, benchmark)
    choice = finding.choice.record()
    print(f"{benchmark.name}: {bias.headline(choice)}")
    if choice["verdict"] == "undecided":
        print(f"if this is a bias: {finding.commands[choice['candidates'][0]['name']]}")
    print(f"wrote {' and '.join(str(path) for path in (out, json, csv) if path is not None)}")
    sys.exit(bias.EXIT_CODES[choice["verdict"]])


def _check_outputs(dataset, paths):
    """Raise ValueError before any work if files cannot be written, or would mix with the images."""
    known = {name: path.absolute() for name, path in paths.items() if path is not None}
    for name, path in known.items():
        sources.check_outside(dataset, path)
        if path.is_dir() or not path.name:
            raise ValueError(f"{name} must be a file, got the folder {paths[name]}")
    if len({*known.values()}) < len(known):
        raise ValueError(f"{', '.join(known)} must be different files, got {paths['out']} twice")


def list_datasets() -> None:
    """List the benchmarks with their sizes and licences."""
    table = rich.table.Table(box=None, padding=(0, 2, 0, 0))
    for column in ("name", "train", "test", "image", "conflict", "description", "licence"):
        table.add_column(column, no_wrap=column not in ("description", "licence"))
    for name in benchmarks.NAMES:
        row = benchmarks.describe(name)
        table.add_row(name, row.train, row.test, row.size, row.conflict, row.about, row.licence)
    rich.console.Console().print(table)


def show_dataset(
    dataset: DataSet,
    *,
    data: DataArguments = DataArguments(),
    test: _Test = "uniform",
    seed: int = 0,
    out: File | None = None,
) -> None:
    """Print the sizes of a data set, and draw aligned and conflicting images of each class.

    Args:
        dataset: Name of a benchmark, a folder of images, or tfds:NAME.
        data: Options of the data set.
        test: Test set of a benchmark: unbiased, or bias-conflicting images only.
        seed: Random seed of the benchmark.
        out: PNG file for a contact sheet. Defaults to none.
    """
    if out is not None and (out.is_dir() or not out.name):
        raise ValueError(f"out must be a PNG file, got the folder {out}")
    sources.check_outside(dataset, out)
    start = time.perf_counter()
    benchmark = sources.load(dataset, data.make_options(test=test, seed=seed), data.data_dir)
    seconds = time.perf_counter() - start
    numbers = benchmarks.statistics(benchmark)
    numbers["duplicates"] = _count(duplicates.exact(benchmark))
    numbers["near-duplicates"] = _count(duplicates.near(benchmark))
    for name, value in numbers.items():
        print(f"{name:<16}{value:.4g}" if isinstance(value, float) else f"{name:<16}{value}")
    print(f"{'seconds':<16}{seconds:.2f}")
    if benchmark.train.attributes is not None:
        print(_LEGEND)
        _print_groups(benchmark, benchmark.train)
    elif (some := benchmark.bias_labels) is not None:
        print(f"attribute known for {(some >= 0).sum():,} of {len(some):,} training images")
        _print_groups(benchmark, benchmark.train._replace(attributes=some))
    if out is not None:
        _write_contact_sheet(out, benchmark)
        print(f"wrote {out}")


def _count(copies):
    if copies is None:
        return f"not counted among more than {duplicates.MAX_IMAGES:,} images"
    return "{train} in training, {test} in test, {between} between them".format(**copies.counts())


def _print_groups(benchmark, train):
    """Print the training images of each group, the aligned group of each class in bold."""
    counts = benchmarks.group_counts(benchmark, train)
    classes = benchmark.class_names or tuple(map(str, range(benchmark.num_classes)))
    names = benchmark.attribute_names or tuple(map(str, range(benchmark.num_attributes)))
    is_small = (counts > 0) & (counts < results.MIN_GROUP_SIZE)
    if small := [f"{classes[k]} × {names[a]} {counts[k, a]}" for k, a in np.argwhere(is_small)]:
        shown = "; ".join(small[:_MAX_SMALL] + ["…"] * (len(small) > _MAX_SMALL))
        print(
            f"groups with fewer than {results.MIN_GROUP_SIZE} training images: {len(small)} of "
            f"{(counts > 0).sum()} ({shown})"
        )
    if max(counts.shape) > _MAX_GROUPS:
        print(f"groups          {counts.size}, of which {(counts == 0).sum()} are empty")
        return
    aligned_groups = benchmark.aligned or [None] * len(counts)
    bold = "; the bias-aligned group of a class is bold" if benchmark.aligned else ""
    print(f"training images of each group{bold}")
    table = rich.table.Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("class")
    for name in names:
        table.add_column(rich.text.Text(name), justify="right")
    for name, row, aligned in zip(classes, counts, aligned_groups, strict=True):
        cells = [f"[bold]{n}[/bold]" if i == aligned else str(n) for i, n in enumerate(row)]
        table.add_row(rich.text.Text(name), *cells)
    rich.console.Console().print(table)
    if benchmark.aligned and len(set(benchmark.aligned)) == 1 < benchmark.num_classes:
        print(
            f"{names[benchmark.aligned[0]]} is the majority attribute of every class: aligned and "
            "conflicting say which attribute is rare, not which class has it; compare the groups"
        )


def build_dataset(
    dataset: DataSet,
    *,
    data: DataArguments = DataArguments(),
    test: _Test = "uniform",
    seed: int = 0,
) -> None:
    """Generate a benchmark and store it in the cache (~/.cache/jaxdd) for later runs.

    Args:
        dataset: Name of a generated benchmark.
        data: Options of the data set.
        test: Test set: unbiased, or bias-conflicting images only.
        seed: Random seed of the benchmark.
    """
    benchmarks.describe(dataset)  # raises if there is none of this name
    if dataset not in benchmarks.RECIPES:
        known = ", ".join(benchmarks.RECIPES)
        raise ValueError(f"{dataset} is read from its files; generated benchmarks are {known}")
    show_dataset(dataset, data=data, test=test, seed=seed)


def _write_contact_sheet(path, benchmark):
    """Draw the first training images of each class, by group if bias labels are known."""
    train, num_classes = benchmark.train, benchmark.num_classes
    sets = {"training images": np.ones(len(train.labels), bool)}
    if benchmark.aligned is not None:
        aligned = train.attributes == np.array(benchmark.aligned)[train.labels]
        sets = {"aligned": aligned, "conflicting": ~aligned}
    draw = functools.partial(plot.first_images, num_classes=num_classes, columns=8)
    first = functools.partial(draw, train.images, train.labels)
    images = {name: first(np.flatnonzero(members)) for name, members in sets.items()}
    plot.comparison(path, images)
