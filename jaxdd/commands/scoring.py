"""Commands that measure any set: its scores by network and protocol, and its spectral profile."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import rich.console
import rich.table

from jaxdd.commands import screen, sources
from jaxdd.commands.arguments import DataSet, File, Folder, Set
from jaxdd.commands.datasets import DataArguments
from jaxdd.data import benchmarks, datasets, files
from jaxdd.runs import pretrained, results
from jaxdd.runs.folder import store, weights_file
from jaxdd.runs.reports import plot
from jaxdd.runs.scoring import finished_run, labelled_sets, matrix, profiles
from jaxdd.runs.trust import publication

_Protocol = Literal["standard", "soft", "kd", "elf"]
_SetName = Literal["set", "random", "noise"]
_Pixels = Literal["unit", "bytes", "signed", "normalised", "imagenet"]
_Networks = Annotated[tuple[str, ...], "NETWORK ..."]


def _of_set(help_text: str) -> Any:
    """Return a field of `SetArguments`, without a default."""
    return dataclasses.field(default=None, metadata=dict(help=help_text, group="set"))


@dataclasses.dataclass(frozen=True)
class SetArguments:
    """Options of a set that does not state what its numbers mean."""

    # fmt: off
    pixels: _Pixels | None = _of_set(
        "How pixels are stored: in [0, 1], in 0..255, in [-1, 1], or normalised by the moments of "
        "the data or of ImageNet. Defaults to what the set states, or a guess that is printed.")
    labels: Annotated[str, "FILE"] | None = _of_set(
        "File with the number or name of the class of each image (.npy, .npz, .pt, or text with "
        "one per line), or the word sorted if images are sorted by class, with equally many of "
        "each. Defaults to the labels of the set.")
    formation: int | None = _of_set(
        "Each image holds formation² smaller ones. Defaults to what the set states, or 1.")
    # fmt: on

    def read(
        self, stored: labelled_sets.StoredSet, benchmark: datasets.Benchmark, **options: Any
    ) -> labelled_sets.LabelledSet:
        """Return a set as networks are trained on it, and print what was assumed."""
        labelled = labelled_sets.adapt(
            stored, benchmark, pixels=self.pixels, labels=self.labels, factor=self.formation,
            **options,
        )  # fmt: skip
        for remark in labelled.remarks:
            print(f"{stored.path}: {remark}")
        return labelled


def evaluate_set(
    source: Set,
    *,
    networks: _Networks = ("convnet",),
    protocol: tuple[_Protocol, ...] = ("standard",),
    sets: tuple[_SetName, ...] = ("set",),
    seeds: int | None = None,
    epochs: int | None = None,
    width: int | None = None,
    depth: int | None = None,
    seed: int | None = None,
    whiten: bool = False,
    teacher_steps: int = matrix.TeacherOptions().steps,
    teacher_weights: File | None = None,
    teacher_dir: Folder | None = None,
    set_options: SetArguments = SetArguments(),
    dataset: DataSet | None = None,
    data: DataArguments = DataArguments(),
    output: screen.Output = screen.Output(),
    out: File | None = None,
) -> None:
    """Score any set with several networks and training protocols.

    Rows that the output file already holds with the same settings are not computed again. The
    protocols soft, kd and elf use a teacher that has seen all training data: compare their scores
    with --sets random noise.

    Args:
        source: Folder of a finished run, of an exported set or of images, an .npz, .safetensors or
            .pt file, or the name of a set that comes with jaxdd (see `jaxdd sets list`).
        networks: Networks to train: convnet, mlp, lenet, alexnet, vgg11 or resnet18; convnet-bn,
            vgg11-bn or resnet18-bn with batch norm; or MODULE:ATTRIBUTE.
        protocol: Hard labels (standard), soft labels (soft), logit distillation (kd), or feature
            distillation (elf).
        sets: Images to score: the set, as many random real images, or as many noise images.
        seeds: Number of networks of each kind. Defaults to that of the run, or 3.
        epochs: Training epochs. Defaults to those of the run, or 300.
        width: Channels of the ConvNet. Defaults to those of the run, or 32.
        depth: Blocks of the ConvNet. Defaults to those of the run, or 3.
        seed: Random seed of the networks, and of the data unless the set states them. Defaults to
            that of the run, or 0.
        whiten: Whiten images with a ZCA fitted on all training images. Sets of runs with --zca
            already have their whitening.
        teacher_steps: Updates of a teacher.
        teacher_weights: .npy, .npz or .csv file with one weight per training sample, by which the
            batches of the teacher are drawn. Defaults to uniform.
        teacher_dir: Folder of a trained teacher to use instead of training one, such as
            RUN/teacher of a cfm run.
        set_options: Options of the set.
        dataset: Name of the benchmark that the set replaces, a folder of images, or tfds:NAME.
            Defaults to the benchmark of the run.
        data: Options of the data set.
        output: How much is printed.
        out: JSON file; `jaxdd report` reads it from the folder of a run. Defaults to
            evaluation.json in the folder of a run, or evaluation-SET.json.
    """
    stored = labelled_sets.load(source, layout=data.layout)
    out = _output_path("evaluation", stored, out)
    network_options = dict(eval_seeds=seeds, epochs=epochs, width=width, depth=depth, seed=seed)
    run_options, benchmark = _load(stored, dataset, data, **network_options)
    teacher_options = matrix.TeacherOptions(
        teacher_steps, weights=_read_weights(teacher_weights, benchmark)
    )
    if teacher_dir is not None:
        digest, pool = datasets.digest(benchmark), datasets.pool(benchmark)
        trained = pretrained.read_teacher(teacher_dir, pool, benchmark.num_classes, data=digest)
        teacher_options = teacher_options._replace(teacher=trained)
    with output.progress() as progress:
        labelled = set_options.read(stored, benchmark, whiten=whiten)
        cells = matrix.cells(
            labelled, benchmark, run_options, names=networks, protocols=protocol, sets=sets,
            teacher=teacher_options, report=progress,
        )  # fmt: skip
        rows = matrix.fill(out, cells)
    _show(rows, out)


def profile_set(
    source: Set,
    *,
    seeds: int = 3,
    teacher_steps: int = 0,
    weights: File | None = None,
    set_options: SetArguments = SetArguments(),
    dataset: DataSet | None = None,
    data: DataArguments = DataArguments(),
    output: screen.Output = screen.Output(),
    out: File | None = None,
    figure: File | None = None,
) -> None:
    """Measure how much of the variance and class signal of the real images a set keeps.

    Directions are the eigenvectors of the covariance of the real features, computed with random
    networks like that of the run. As many random real images are measured for comparison. No bias
    labels are used.

    Args:
        source: Folder of a finished run, of an exported set or of images, or an .npz, .safetensors
            or .pt file.
        seeds: Number of random networks; profiles are means over them.
        teacher_steps: Updates of a network trained on the real images, for a second profile.
            Defaults to none.
        weights: .npy, .npz or .csv file with one weight per training sample, such as weights.npz
            of a run. Defaults to uniform.
        set_options: Options of the set.
        dataset: Name of the benchmark that the set replaces, a folder of images, or tfds:NAME.
            Defaults to the benchmark of the run.
        data: Options of the data set.
        output: How much is printed.
        out: JSON file; `jaxdd report` reads it from the folder of a run. Defaults to profile.json
            in the folder of a run, or profile-SET.json.
        figure: SVG or PNG file. Defaults to the name of the JSON file with .svg.
    """
    stored = labelled_sets.load(source, layout=data.layout)
    out = _output_path("profile", stored, out)
    figure = figure or out.with_suffix(".svg")
    if figure.suffix not in (".svg", ".png") or not figure.parent.is_dir():
        raise ValueError(f"figure must be an .svg or .png file in an existing folder, got {figure}")
    run_options, benchmark = _load(stored, dataset, data)
    if not stored.is_run and ":" in run_options.network:
        # Importing it would run code that the publisher of the set chose.
        raise ValueError(f"{source}: the network {run_options.network} is not part of jaxdd")
    sample_weights = _read_weights(weights, benchmark)
    with output.progress() as progress:
        labelled = set_options.read(stored, benchmark)
        profile = profiles.measure(
            labelled, benchmark, run_options, num_networks=seeds, teacher_steps=teacher_steps,
            weights=sample_weights, report=progress,
        )  # fmt: skip
    if stored.is_run:
        profile["set"] = files.sha256(stored.path / store.SYNTHETIC)
    files.write_json(out, profile)
    print("\n".join(profiles.lines(profile)))
    drawn = plot.attempt(str(figure), lambda: plot.profile(figure, profile)) is None
    print(f"wrote {out} and {figure}" if drawn else f"wrote {out}")


def load_run_data(
    config: Mapping[str, Any], dataset: str | None, data_dir: pathlib.Path | None
) -> datasets.Benchmark:
    """Load the data that a run was made from.

    Args:
        config: Configuration of the run.
        dataset: Path of the images, or tfds:NAME. Defaults to the name in the configuration.
        data_dir: Folder with the original files.
    """
    dataset = str(config["dataset"] if dataset is None else dataset)
    named = dataset in benchmarks.NAMES or dataset.startswith(sources.TFDS)
    if not named and not pathlib.Path(dataset).is_dir():
        raise ValueError(
            f"the set was made from {dataset}, which is not a folder here; pass its images "
            "or tfds:NAME as --dataset, or use jaxdd.runs.scoring for arrays"
        )
    return sources.load(dataset, finished_run.options_of(config), data_dir)


def _read_weights(path, benchmark):
    return None if path is None else weights_file.read_for(path, benchmark)


def _output_path(kind, stored, out):
    """Return the JSON file to write, after checks before any work."""
    default = pathlib.Path(f"{kind}-{stored.path.resolve().name}.json")
    default = stored.path / f"{kind}.json" if stored.is_run else default
    out = default if out is None else out
    if out.is_dir() or out.suffix != ".json":
        raise ValueError(f"out must be a file that ends in .json, got {out}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"out must be in an existing folder, got {out}")
    if out.resolve() != default.resolve() or not stored.is_run:
        publication.check_outside(out)
    return out


def _load(stored, dataset, data, **network_options):
    """Return options and data: those that the set states, or those on the command line."""
    changed: dict[str, Any] = {k: v for k, v in network_options.items() if v is not None}
    config, names = stored.config, data.changed()
    if not {"dataset", "data"} <= config.keys():
        if dataset is None:
            raise ValueError(
                f"{stored.path} is not a run; pass --dataset with the data that it replaces"
            )
        run_options = data.make_options(**changed)
        return run_options, sources.load(dataset, run_options, data.data_dir)
    if stored.is_run and names:
        raise ValueError(f"a run has its own data options; leave out {', '.join(names)}")
    # The options of the data that a set was made from include the seed of their split, which is
    # also the default for other data, as these may be the same images.
    made_from = str(config["dataset"])
    is_own = not names and sources.short(dataset or made_from) == sources.short(made_from)
    if stored.is_run or is_own:
        benchmark = load_run_data(config, dataset, data.data_dir)
    else:
        seed = changed.get("seed", config.get("seed", 0))
        data_options = data.make_options(seed=seed)
        benchmark = sources.load(dataset or made_from, data_options, data.data_dir)
    if stored.is_run:
        finished_run.check_data(config, benchmark)
    elif isinstance(config.get("augmentation"), str):
        raise ValueError(f"{stored.path} was made with an augmentation that is not part of jaxdd")
    return dataclasses.replace(finished_run.options_of(config), **changed), benchmark


def _show(rows, out):
    """Print the scores of each row and the bytes that its protocol needs."""
    table = rich.table.Table(caption="± standard deviation over networks trained on one set")
    for column in ("network", "protocol", "set", "accuracy %", "conflicting", "extra/set bytes"):
        table.add_column(column, no_wrap=True)
    for row in rows.values():
        scores = results.Scores.from_dict(row)
        extra = min(row["extra_bytes"].values()) if row["extra_bytes"] else 0
        table.add_row(
            row["network"], row["protocol"], row["set"], results.percent(scores.accuracy),
            results.percent(scores.conflicting), f"{extra:,}/{row['set_bytes']:,}",
        )  # fmt: skip
    console = rich.console.Console()
    console.print(table)
    if any(row["extra_bytes"] for row in rows.values()):
        console.print(
            "soft, kd and elf use a teacher that has seen all training data; compare with the rows "
            "of random images and noise to see what the set contributes",
            soft_wrap=True,
        )
    console.print(f"wrote {out}", markup=False, highlight=False, soft_wrap=True)
