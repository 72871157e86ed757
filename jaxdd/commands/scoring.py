"""The commands that look at any set: its scores by networks × protocols, and its spectrum."""

import dataclasses
import pathlib
from typing import Literal

import rich.console
import rich.table
import tyro

from jaxdd.commands import screen, sources
from jaxdd.data import benchmarks, datasets
from jaxdd.runs import old_results as results
from jaxdd.runs import options, parts
from jaxdd.runs.folder import guides, store
from jaxdd.runs.scoring import cells, matrix, profiles, transfer
from jaxdd.runs.scoring import sets as stored_sets
from jaxdd.training import teachers

Protocol = Literal["plain", "soft", "kd", "elf"]
Which = Literal["set", "random", "noise"]


def data_of(folder, dataset, data_dir):
    """The data that a run was made from."""
    config, asked = transfer.configuration(folder)
    dataset = str(config["dataset"] if dataset is None else dataset)
    if dataset not in benchmarks.NAMES and not dataset.startswith(sources.TFDS):
        if not pathlib.Path(dataset).is_dir():
            raise ValueError(
                f"{folder} was made from {dataset}, which is no folder here; say with --dataset "
                "where its images are, or tfds:NAME; for arrays there is jaxdd.runs.scoring.transfer"
            )
    return sources.load(dataset, asked, data_dir)


def evaluate_set(
    source: tyro.conf.Positional[pathlib.Path],
    *,
    networks: tuple[str, ...] = ("convnet",),
    protocol: tuple[Protocol, ...] = ("plain",),
    sets: tuple[Which, ...] = ("set",),
    seeds: int | None = None,
    epochs: int | None = None,
    width: int | None = None,
    depth: int | None = None,
    seed: int | None = None,
    zca: bool = False,
    teacher_steps: int = matrix.Teaching().steps,
    teacher_weights: pathlib.Path | None = None,
    teacher: pathlib.Path | None = None,
    dataset: str | None = None,
    conflict: float | None = None,
    severity: int | None = None,
    resize: int | None = None,
    data_dir: pathlib.Path | None = None,
    out: pathlib.Path | None = None,
) -> None:
    """Score any set with networks of several kinds, trained in several ways.

    Rows that the output holds already, with the same switches, are not computed again. soft, kd and
    elf ask a teacher that saw all training data: compare with --sets random noise.

    Args:
        source: folder of a finished run, an exported set, .npz, a folder of images, or .pt.
        networks: convnet, mlp, lenet, alexnet, vgg11, resnet18, the first and last two also with
            batch norm as convnet-bn, or MODULE:ATTRIBUTE.
        protocol: plain, soft labels, logit distillation (kd), or distillation features (elf).
        sets: the set, as many random real images, noise images.
        seeds: networks of each kind; those of the run, or 3.
        epochs: of each; those of the run, or 300.
        width: channels of the ConvNet; that of the run, or 32.
        depth: blocks of the ConvNet; that of the run, or 3.
        seed: of the networks, and of a benchmark; that of the run, or 0.
        zca: whiten what networks see, fitted on all training images; sets of a run that did so have
            their whitening.
        teacher_steps: updates that a teacher is trained for.
        teacher_weights: .npy, .npz or .csv with a weight for each training sample, by which a
            teacher draws them; it sees the data as they are without.
        teacher: folder of a teacher that is asked instead, such as RUN/teacher of a run by cfm.
        dataset: what the set stands for, a benchmark, a folder of images or tfds:NAME; that of a
            run is known.
        conflict: share of bias-conflicting samples of a benchmark, 0 to 1.
        severity: of a benchmark, 1 to 4.
        resize: height and width in pixels that the images of a folder dataset are resized to.
        data_dir: folder with the original files.
        out: JSON file; by default evaluation-SOURCE.json.
    """
    out = pathlib.Path(f"evaluation-{source.resolve().stem}.json") if out is None else out
    _check_paths(source, out)
    given = dict(eval_seeds=seeds, epochs=epochs, width=width, depth=depth, seed=seed)
    given = {name: value for name, value in given.items() if value is not None}
    about = dict(conflict=conflict, severity=severity, resize=resize)
    about = {name: value for name, value in about.items() if value is not None}
    asked, benchmark = _asked(source, given, about, dataset, data_dir)
    weights = None
    if teacher_weights is not None:
        weights = store.read_weights(teacher_weights, count=len(benchmark.train.labels))
    known = None if teacher is None else teacher_in(teacher, benchmark)
    teaching = matrix.Teaching(steps=teacher_steps, weights=weights, teacher=known)
    progress = screen.Progress()
    with progress.bar:
        found = stored_sets.read(source, benchmark, factor=asked.formation)
        if zca and found.whitening is None:
            found = stored_sets.whitened(found, benchmark)
        wanted = matrix.evaluations(
            found.images,
            found.labels,
            benchmark,
            asked,
            names=networks,
            protocols=protocol,
            which=sets,
            stored=found.about,
            whitening=found.whitening,
            teaching=teaching,
            report=progress,
        )
        rows = cells.fill(out, wanted)
    _show(rows, out)


def profile_set(
    source: tyro.conf.Positional[pathlib.Path],
    *,
    networks: int = 3,
    teacher_steps: int = 0,
    weights: pathlib.Path | None = None,
    dataset: str | None = None,
    conflict: float | None = None,
    severity: int | None = None,
    resize: int | None = None,
    data_dir: pathlib.Path | None = None,
    out: pathlib.Path | None = None,
    figure: pathlib.Path | None = None,
) -> None:
    """Say how much of the real variance and class signal a set keeps, direction by direction.

    Directions are the eigenvectors of the real features' covariance, of random networks like that
    of the run; the set stands beside as many random real images. No bias label is used.

    Args:
        source: folder of a finished run, an exported set, .npz, a folder of images, or .pt.
        networks: random ones, which profiles are means over.
        teacher_steps: updates of networks trained on the real images, for a second profile; none
            are trained by default.
        weights: .npy, .npz or .csv with a weight for each training sample, by which the real images
            count; all count alike without. A run has its own in weights.npz.
        dataset: what the set stands for, a benchmark, a folder of images or tfds:NAME; that of a
            run is known.
        conflict: share of bias-conflicting samples of a benchmark, 0 to 1.
        severity: of a benchmark, 1 to 4.
        resize: height and width in pixels that the images of a folder dataset are resized to.
        data_dir: folder with the original files.
        out: JSON file; by default profile.json in the folder of a run, where its report finds it,
            and profile-SOURCE.json for others.
        figure: SVG or PNG file; by default that of the JSON with .svg.
    """
    run = (source / "config.json").exists()
    if out is None:
        out = (
            source / "profile.json"
            if run
            else pathlib.Path(f"profile-{source.resolve().stem}.json")
        )
    figure = out.with_suffix(".svg") if figure is None else figure
    _check_paths(source, out)
    if figure.suffix not in (".svg", ".png") or not figure.parent.is_dir():
        raise ValueError(f"figure must be a file that ends in .svg or .png, found {figure}")
    about = dict(conflict=conflict, severity=severity, resize=resize)
    about = {name: value for name, value in about.items() if value is not None}
    asked, benchmark = _asked(source, {}, about, dataset, data_dir)
    counted = None
    if weights is not None:
        counted = store.read_weights(weights, count=len(benchmark.train.labels))
    progress = screen.Progress()
    with progress.bar:
        found = stored_sets.read(source, benchmark, factor=asked.formation)
        made = profiles.measure(
            found.images,
            found.labels,
            benchmark,
            asked,
            networks=networks,
            teacher_steps=teacher_steps,
            weights=counted,
            report=progress,
        )
    if run:
        made["set"] = store.digests(source)["synthetic.npz"]
    profiles.write(out, figure, made)
    print("\n".join(profiles.lines(made)))
    print(f"wrote {out} and {figure}")


def teacher_in(folder: pathlib.Path, benchmark: datasets.Benchmark) -> teachers.Teacher:
    """Returns the teacher that a run by cfm left in a folder, its data being these.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it saw other data, or a file in the folder is damaged.
    """

    def network(manifest):
        names = ("teacher", "width", "depth", "dtype")
        if missing := [name for name in names if name not in manifest]:
            raise ValueError(f"the manifest in {folder} must name a network; it lacks {missing[0]}")
        asked = options.make(method="cfm", **{name: manifest[name] for name in names})
        return parts.named_teacher(benchmark, asked.resolved())

    digest = datasets.digest(benchmark)
    return guides.read(folder, datasets.pool(benchmark), network, data=digest)


def _check_paths(source, out):
    """Refuses a source that is not there, and an output that cannot be written."""
    if out.is_dir() or out.suffix != ".json":
        raise ValueError(f"out must be a file that ends in .json, found {out}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"out must be in a folder that is there, found {out}")
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist, expected a run, a folder, .npz or .pt")


def _asked(source, given, about, dataset, data_dir):
    """The options and the data of a run, or those that are given."""
    if (source / "config.json").exists():
        if about:
            raise ValueError(f"{source} knows its data; leave out {', '.join(about)}")
        benchmark = data_of(source, dataset, data_dir)
        asked = transfer.options_for(source, benchmark)
        return dataclasses.replace(asked, **given).resolved(), benchmark
    if dataset is None:
        raise ValueError(f"{source} is no run; say with --dataset what it stands for")
    asked = options.DM(**{**given, **about}).resolved()
    return asked, sources.load(dataset, asked, data_dir)


def _show(rows, out):
    """Prints the accuracies of each row, the level of their spread, and what flatters them."""
    table = rich.table.Table(
        caption="± over networks on one set, which tells nothing of other sets"
    )
    titles = ("network", "protocol", "set", "accuracy %", "conflicting", "bytes beside/of set")
    for column in titles:
        table.add_column(column, no_wrap=True)
    for row in rows.values():
        scores = [results.percent(row[score]) for score in ("accuracy", "conflicting")]
        least = min(row["extra_bytes"].values()) if row["extra_bytes"] else 0
        size = f"{least:,}/{row['set_bytes']:,}"
        table.add_row(row["network"], row["protocol"], row["set"], *scores, size)
    console = rich.console.Console()
    console.print(table)
    if any(row["extra_bytes"] for row in rows.values()):
        console.print(
            "soft, kd and elf use a teacher that saw all training data; what they add is the set's "
            "own only as far as random and noise rows do without it",
            soft_wrap=True,
        )
    console.print(f"wrote {out}", markup=False, highlight=False, soft_wrap=True)
