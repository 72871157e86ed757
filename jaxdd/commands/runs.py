"""The commands run, compare and demo, which distill sets, and report, which writes a page."""

import contextlib
import dataclasses
import pathlib
import shlex
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import jax

from jaxdd.commands import screen, sources
from jaxdd.commands.arguments import DataSet, File, Folder, Run
from jaxdd.data import datasets, files
from jaxdd.devices import parallel
from jaxdd.runs import bias, components, pipeline, processes, results, weightings
from jaxdd.runs.folder import embedding_file, labels_file, weights_file
from jaxdd.runs.options import DM
from jaxdd.runs.reports import pages
from jaxdd.runs.reports import report as reports

RESUMABLE = "resumable"
"""Note on an exception that interrupted a run whose folder exists."""

_DEMO = DM(ipc=10, conflict=0.1)
# Without auto, whose search takes as long as the other rows together.
_DEMO_ROWS = ("random", "random-density", "plain", "density", "oracle")

_Debias = Annotated[str, lambda: "{" + ",".join(weightings.WEIGHTINGS) + "}"]
_Rows = Annotated[tuple[str, ...], lambda: "{" + ",".join(weightings.rows()) + "} ..."]


@contextlib.contextmanager
def _loaded(
    output, dataset, options, data_dir, weights=None, embedding=None, bias_labels=None
) -> Iterator[dict[str, Any]]:
    """Yield the arguments that `run` and `compare` share, under progress bars."""
    start = time.perf_counter()
    with output.progress() as progress:
        data = sources.load(dataset, options, data_dir)
        if weights is not None:
            weights = weights_file.read_for(weights, data)
        if embedding is not None:
            embedding = embedding_file.read_for(embedding, data)
        if bias_labels is not None:
            bias_labels = labels_file.read_for(bias_labels, data)
        spent = {"data": time.perf_counter() - start}
        arguments: dict[str, Any] = dict(data=data, options=options, spent=spent, report=progress)
        yield arguments | dict(weights=weights, embedding=embedding, bias_labels=bias_labels)


@contextlib.contextmanager
def _resumable(folder, resume):
    """Raise if there is no run to resume; note on an interruption whether there is one now."""
    folder = files.expand(folder)
    if resume and not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} has no run to resume; leave out --resume, or pass the folder with --out"
        )
    try:
        yield
    except (pipeline.Interrupted, KeyboardInterrupt) as stopped:
        if folder.is_dir():
            stopped.add_note(RESUMABLE)
        raise


def _folder(*names, options):
    """Return the default folder of a run or a comparison."""
    return pathlib.Path("runs") / "-".join((*names, f"ipc{options.ipc}", f"seed{options.seed}"))


def run(
    dataset: DataSet,
    *,
    options: DM,
    debias: _Debias = "auto",
    weights: File | None = None,
    embedding: File | None = None,
    bias_labels: File | None = None,
    data_dir: Folder | None = None,
    output: screen.Output = screen.Output(),
    out: Folder | None = None,
    resume: bool = False,
    distributed: bool = False,
    coordinator: Annotated[str, "HOST:PORT"] | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    split_from: int = pipeline.SPLIT_FROM,
) -> None:
    """Distill a synthetic set and score it next to a random subset.

    For the options of another method, see `jaxdd run --method mtt --help`.

    Args:
        dataset: Name of a benchmark (see `jaxdd datasets list`), a folder of images, or tfds:NAME.
        options: Options of the run.
        debias: Weights of the samples: uniform (plain), by density, chosen without bias labels
            (auto), by tone, texture, layout or border of the images, by an embedding, by the bias
            labels of some images (labels) or of all (oracle); or a loss of the bias groups
            (fairdd, cobra, cobra-l1).
        weights: .npy, .npz or .csv file with one weight per training sample, instead of --debias.
        embedding: .npy or .npz file with one row of numbers per training sample, for example by a
            pretrained network, for --debias auto, embedding and labels.
        bias_labels: .csv file with the bias labels of some training images, for example from the
            page of `jaxdd bias`, instead of --debias; columns file or index, and attribute.
        data_dir: Folder with the original files of a benchmark, or with the prepared files of
            tfds:NAME. Defaults to ~/.cache/jaxdd with downloaded files, or the folder of
            tensorflow-datasets.
        output: How much is printed.
        out: Run folder. Defaults to runs/DATASET-METHOD-DEBIAS-ipcIPC-seedSEED.
        resume: Continue the run in the folder.
        distributed: Use the devices of several processes. Start the same command in each of them,
            with the three options below unless the cluster sets them; all must see the run folder.
        coordinator: Address of process 0. Defaults to $JAX_COORDINATOR_ADDRESS.
        num_processes: Number of processes; 1 uses all devices of this process. Defaults to what
            the cluster sets.
        process_id: Number of this process, from 0. Defaults to what the cluster sets.
        split_from: Minimum size in bytes of the training images for splitting them over the devices
            of a distributed run; smaller data are copied to each device.
    """
    joining = (coordinator, num_processes, process_id)
    if not distributed and joining != (None, None, None):
        raise ValueError("--coordinator, --num-processes and --process-id require --distributed")
    implied = {"custom": weights, "labels": bias_labels}
    how = next((name for name, file in implied.items() if file is not None), debias)
    out = out or _folder(sources.short(dataset), options.method, how, options=options)
    sources.check_outside(dataset, out)
    joined = processes.joined(*joining) if distributed else contextlib.nullcontext()
    with _resumable(out, resume), joined:
        devices = components.cpu_devices(options)
        if distributed:
            devices = dict(mesh=parallel.mesh(), split_from=split_from)
        count = num_processes or jax.process_count()
        shared = dict(debias=how, resume=resume, split_from=split_from, num_processes=count)
        # Processes with different commands would wait for each other forever.
        processes.agree(shared | dataclasses.asdict(options))
        loaded = _loaded(output, dataset, options, data_dir, weights, embedding, bias_labels)
        with processes.own_folder(out) as folder, loaded as arguments:
            _agree_on_data(**arguments)
            result = pipeline.run(
                folder=folder, debias=debias, resume=resume, **devices, **arguments
            )
        if processes.is_first():
            shown = {how: result}
            if result.random is not None:
                shown = {"random": results.Result(**vars(result.random)), **shown}
            screen.show(shown, out)
            _print_candidates(result, dataset, options, data_dir, embedding)


def _print_candidates(result, dataset, options, data_dir, embedding):
    """Print commands that show and accept the candidates of an undecided choice of weights."""
    choice = result.choice
    if not choice or choice["verdict"] != "undecided":
        return
    own = [] if embedding is None else ["--embedding", str(embedding)]
    show = shlex.join(["jaxdd", "bias", *sources.words(dataset, options, data_dir), *own])
    first = choice["candidates"][0]["name"]
    accepted = bias.debias_words(choice, first, embedding_path=embedding)
    every = sources.words(dataset, options, data_dir, all_options=True)
    print(
        f"to see the candidates: {show}; to accept {first}: "
        f"{shlex.join(['jaxdd', 'run', *every, *accepted])}"
    )


def _agree_on_data(data, weights, embedding, bias_labels, **_):
    """Raise ValueError if data or files of the user differ between the processes of a run."""
    if jax.distributed.is_initialized():
        digests = {"dataset": data.name, "data": datasets.digest(data)}
        attributes = None if bias_labels is None else bias_labels.attributes
        arrays = dict(weights=weights, embedding=embedding, bias_labels=attributes)
        processes.agree(digests | {name: files.digest(x) for name, x in arrays.items()})


def compare(
    dataset: DataSet,
    *,
    options: DM,
    rows: _Rows = weightings.DEFAULT_ROWS,
    weights: File | None = None,
    embedding: File | None = None,
    bias_labels: File | None = None,
    data_dir: Folder | None = None,
    output: screen.Output = screen.Output(),
    out: Folder | None = None,
    separate: bool = False,
    resume: bool = False,
) -> None:
    """Compare weightings: one synthetic set each, next to random subsets of real images.

    For the options of another method, see `jaxdd compare --method mtt --help`.

    Args:
        dataset: Name of a benchmark (see `jaxdd datasets list`), a folder of images, or tfds:NAME.
        options: Options of every row.
        rows: Rows of the table; `jaxdd run --help` describes the weightings.
        weights: .npy, .npz or .csv file with one weight per training sample, for the row custom.
        embedding: .npy or .npz file with one row of numbers per training sample, for example by a
            pretrained network, for the rows auto, embedding and labels.
        bias_labels: .csv file with the bias labels of some training images, for the row labels;
            columns file or index, and attribute.
        data_dir: Folder with the original files of a benchmark, or with the prepared files of
            tfds:NAME. Defaults to ~/.cache/jaxdd with downloaded files, or the folder of
            tensorflow-datasets.
        output: How much is printed.
        out: Folder of the comparison. Defaults to runs/compare-DATASET-METHOD-ipcIPC-seedSEED.
        separate: Distill every row from batches of its own, as `jaxdd run` does. By default, rows
            of dm share their batches, which is faster.
        resume: Continue the comparison in the folder.
    """
    out = out or _folder("compare", sources.short(dataset), options.method, options=options)
    sources.check_outside(dataset, out)
    loaded = _loaded(output, dataset, options, data_dir, weights, embedding, bias_labels)
    with _resumable(out, resume), loaded as arguments:
        devices = components.cpu_devices(options)
        table = pipeline.compare(
            folder=out, rows=rows, separate=separate, resume=resume, **devices, **arguments
        )
    screen.show(table, out)
    if row := table.get("auto"):
        _print_candidates(row, dataset, options, data_dir, embedding)
    if absent := [name for name in rows if name not in table]:
        print(f"jaxdd: left out {', '.join(absent)}: no bias attributes", file=sys.stderr)


def demo(
    *,
    output: screen.Output = screen.Output(),
    out: Folder = pathlib.Path("demo"),
    resume: bool = False,
) -> None:
    """Compare weightings on coloured digits that come with scikit-learn.

    Args:
        output: How much is printed.
        out: Folder of the comparison.
        resume: Continue the comparison in the folder.
    """
    compare("cdigits", options=_DEMO, rows=_DEMO_ROWS, output=output, out=out, resume=resume)


def write_report(
    source: Run,
    *,
    out: File | None = None,
    figures: bool = False,
    csv: bool = False,
    latex: bool = False,
) -> None:
    """Write one HTML page about a finished run or comparison.

    Args:
        source: Folder of a run or a comparison, or its result.json or compare.json, which give a
            page without images.
        out: HTML file. Defaults to report.html in the folder, or the name of the JSON file with
            .html.
        figures: Also write each figure as SVG and PDF, into a folder named like the page.
        csv: Also write each table as CSV.
        latex: Also write each table as LaTeX (booktabs).
    """
    if out is None:
        out = source / "report.html" if source.is_dir() else source.with_suffix(".html")
    pages.check_path(out)
    folder = out.with_suffix("")
    if folder.exists() and not folder.is_dir() and (figures or csv or latex):
        raise ValueError(f"{folder} is a file, expected a folder for figures and tables")
    report = reports.read(source)
    reports.write(out, report)
    suffixes = [".csv"] * csv + [".tex"] * latex + [".svg", ".pdf"] * figures
    written = reports.export(folder, report, suffixes=suffixes)
    print(f"wrote {out}" + (f" and {len(written)} files in {folder}" if written else ""))
