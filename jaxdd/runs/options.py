"""Options of a run: one frozen dataclass per distillation method.

`DM(ipc=10)` or `make(method="mtt", ipc=10)` take omitted fields from the preset and check all
fields, so an options object is always complete, typed and valid. Each field carries its help text,
its group on the command line and its bounds in its metadata.
"""

import dataclasses
import functools
import math
import os
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from jaxdd import augment, networks, weights
from jaxdd.data import files

PRESETS = ("quick", "paper")
"""Presets: quick fits two CPU cores, paper is the scale of the literature on one GPU."""

NETWORKS = tuple(networks.NETWORKS)
"""Networks that options can name."""

TEACHERS = ("convnet-bn", "vgg11-bn", "resnet18-bn")
"""Networks with batch norm that options can name."""

OWN_EMBEDDING = "own-embedding"
"""Name of the candidate bias that an embedding of the user shows."""

CANDIDATES = (*weights.blind_features.NAMED, "embedding", "density", OWN_EMBEDDING)
"""Names of the candidate biases that options can name."""

OPTIONS: "dict[str, type[DM]]" = {}
"""Options class of every method, filled as the classes are defined."""

_MAX_INT = 2**31 - 1
_FLOAT_RANGE = (1e-30, 1e30)  # float32 arithmetic stays finite in this range


class Preset(NamedTuple):
    """Default that depends on the preset.

    Attributes:
        quick: the value, or a function that computes it from options without a `Preset` default.
        paper: value or function for the preset paper; None for the same as `quick`.
    """

    quick: Any
    paper: Any = None

    def value(self, options: "DM") -> Any:
        """Return the default for these options."""
        chosen = self.quick if options.preset == "quick" or self.paper is None else self.paper
        return chosen(options) if callable(chosen) else chosen


def _option(
    default: Any,
    help: str,
    group: str,
    *,
    least: float | None = None,
    most: float | None = None,
    positive: bool = False,
    incidental: bool = False,
    flag: str | None = None,
) -> Any:
    """Define a field of an options class, whose default may be a `Preset`.

    Values must lie in [least, most] or be positive. Incidental options do not affect results.
    `flag` is the name on the command line if it is not that of the field.
    """
    metadata = dict(help=help, group=group, least=least, most=most, positive=positive)
    return dataclasses.field(
        default=default, metadata=metadata | dict(incidental=incidental, flag=flag)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DM:
    """Options of distribution matching, which the other methods have too."""

    # A table: name, type, default, help, group and bounds of each option.
    # fmt: off
    method: str = _option("dm",
        "dm: distribution matching; dc, dsa: gradient matching without and with augmentation; mtt: "
        "trajectory matching; cfm: curriculum frequency matching.", "distillation")
    ipc: int = _option(10, "Synthetic images per class.", "distillation", least=1)
    preset: Literal["quick", "paper"] = _option("quick",
        "Defaults of other options: quick fits two CPU cores, paper is the scale of the literature "
        "on one GPU.", "distillation", incidental=True)
    steps: int = _option(Preset(200, 20_000),
        "Distillation steps: updates of the images.", "distillation", least=0)
    batch_size: int = _option(Preset(128, 256),
        "Real images per class and step.", "distillation", least=1)
    candidates: int | None = _option(None,
        "Real images per class from which k-means selects the batch (DREAM). Defaults to none: the "
        "batch is sampled directly.", "distillation", least=1)
    formation: int = _option(1,
        "Each synthetic image holds formation² smaller images (IDC).", "distillation", least=1)
    learning_rate: float = _option(Preset(lambda options: 10.0 if options.ipc >= 100 else 1.0),
        "Learning rate of the synthetic images. Defaults to 1, or 10 from 100 images per class.",
        "distillation", positive=True)
    init: Literal["weighted", "real", "noise"] = _option("weighted",
        "Initial images: real images sampled by weight, real images sampled uniformly, or noise.",
        "distillation")
    conflict: float | None = _option(None,
        "Share of bias-conflicting samples in each class of a benchmark, 0 to 1.",
        "data", least=0, most=1)
    severity: int | None = _option(None,
        "Severity of the bias of a benchmark, 1 to 4.", "data", least=1, most=4)
    test: Literal["uniform", "conflicting"] = _option("uniform",
        "Test set of a benchmark: attributes independent of the class, or bias-conflicting only.",
        "data")
    resize: int | None = _option(None,
        "Height and width in pixels to which images of a folder are resized. Defaults to the size "
        "of most images, or, if sizes vary, the median of their shorter sides, at most 32.",
        "data", least=1)
    skip_bad: bool = _option(False, "Skip images of a folder that cannot be decoded.", "data")
    label: str | None = _option(None,
        "Column of metadata.csv or of an annotated data set that holds the class. Defaults to a "
        "column named like label.", "data")
    attribute: str | None = _option(None,
        "Column of metadata.csv or of an annotated data set that holds the bias attribute; "
        "gender+age crosses two columns. Defaults to a column named like attribute.", "data")
    layout: Literal["auto", "classes", "splits"] = _option("auto",
        "What the folders inside a folder of images are: classes, or splits that hold classes. "
        "With either, tables are ignored. Defaults to auto: names and tables decide.", "data")
    strategy: tuple[str, ...] | None = _option(None,
        "Operations of the augmentation. Defaults to those of the benchmark, or all but flip for "
        "your own images.", "data")
    zca: Literal["none", "uniform", "weighted"] = _option("none",
        "ZCA whitening of network inputs, fitted on real images with uniform or sample weights. "
        "The set is saved without whitening.", "data")
    bandwidth_rule: Literal["mean-distance", "median-distance", "scott", "silverman",
                            "likelihood", "fixed"] = _option("mean-distance",
        "How the bandwidth of the density follows from the embeddings of a class.", "weights")
    bandwidth: float | None = _option(None,
        "Factor of the bandwidth rule (of the squared bandwidth for the distance rules), or the "
        "bandwidth itself if it is fixed. Defaults to 0.2 for the distance rules, 1 for others.",
        "weights", positive=True)
    temperature: float = _option(1.0,
        "Weights are proportional to density^(-1/temperature).", "weights", positive=True)
    clip: float | None = _option(None,
        "Largest weight, as a multiple of the uniform weight. Defaults to no limit.",
        "weights", least=1)
    weighting: Literal["draw", "mean", "batch"] = _option("draw",
        "draw: batches are sampled by weight; mean: uniform batches with weighted means; batch: "
        "weights are estimated within each batch.", "weights")
    encoder_layer: Literal["projection", "features"] = _option("projection",
        "Layer of the encoder in which the density is estimated.", "weights")
    encoder_steps: int = _option(30,
        "Supervised contrastive training steps of the encoder.", "weights", least=0)
    encoder_width: int = _option(32, "Channels of the encoder.", "weights", least=1)
    suspect: tuple[str, ...] = _option((),
        "Candidate biases that auto may choose although their features can show the object, such "
        "as border. The others may be chosen anyway.", "weights")
    exclude: tuple[str, ...] = _option((),
        "Candidate biases that auto and labels must not use because their features are the object, "
        "such as texture for fabrics.", "weights")
    network: str = _option("convnet",
        f"Network for distillation and evaluation: {', '.join(NETWORKS)}, or MODULE:ATTRIBUTE for "
        "your own network or a function of the number of classes.",
        "network and evaluation")
    width: int = _option(Preset(32, 128),
        "Channels of the ConvNet.", "network and evaluation", least=1)
    depth: int = _option(3, "Blocks of the ConvNet.", "network and evaluation", least=1)
    dtype: Literal["float32", "bfloat16"] = _option("float32",
        "Arithmetic inside the networks.", "network and evaluation")
    epochs: int = _option(Preset(300, 1000),
        "Epochs of each evaluation network.", "network and evaluation", least=1)
    eval_seeds: int = _option(Preset(3, 5),
        "Number of evaluation networks.", "network and evaluation", least=1, flag="seeds")
    training: Literal["standard", "lff", "selecmix"] = _option("standard",
        "Training of the evaluation networks: standard, or one of two debiasing algorithms.",
        "network and evaluation")
    score_every: int | None = _option(None,
        "Steps between evaluations during distillation, for the report. Defaults to none: the set "
        "is evaluated at the end only.", "network and evaluation", least=1, incidental=True)
    chunk: int = _option(Preset(10, 100),
        "Steps between two records of progress, after which a run can be saved.",
        "run", least=1, incidental=True)
    save_every: float = _option(15.0,
        "Seconds between checkpoints; a checkpoint is written when the current chunk ends.",
        "run", least=0, incidental=True)
    seed: int = _option(0, "Random seed of the benchmark and of the run.", "run", least=0)
    # fmt: on

    def __init_subclass__(cls) -> None:
        """Register the options class of a method under its name."""
        OPTIONS[cls.__dict__["method"]] = cls

    def __post_init__(self) -> None:
        """Fill defaults of the preset and check every field."""
        for field, kind in _fields(type(self)).values():
            value = getattr(self, field.name)
            if isinstance(value, Preset):  # after the field `preset`, which has been checked
                object.__setattr__(self, field.name, value.value(self))
            else:
                _check_type(field.name, value, kind)
                _check_bounds(field, value)
        if self.method != (default := type(self).__dataclass_fields__["method"].default):
            raise ValueError(f"method must be {default!r} for these options, got {self.method!r}")
        _check_network("network", self.network, NETWORKS)
        if self.strategy is not None:
            augment.as_strategy(self.strategy)
        self.check_together()

    def check_together(self) -> None:
        """Raise ValueError for values that exclude each other."""
        if self.candidates is not None and self.candidates < self.batch_size:
            raise ValueError(
                f"candidates must be at least the batch_size of {self.batch_size}, "
                f"got {self.candidates}"
            )
        if self.bandwidth_rule == "fixed" and self.bandwidth is None:
            raise ValueError("bandwidth_rule='fixed' requires bandwidth=")
        for name in ("suspect", "exclude"):
            if unknown := {*getattr(self, name)} - {*CANDIDATES}:
                known = ", ".join(CANDIDATES)
                raise ValueError(f"{name} must be any of {known}, got {min(unknown)!r}")
        if both := {*self.suspect} & {*self.exclude}:
            raise ValueError(f"suspect and exclude must not share names, got {min(both)!r} in both")
        if self.zca != "none" and (self.formation > 1 or self.weighting == "batch"):
            other = "weighting='batch'" if self.weighting == "batch" else "formation"
            raise ValueError(f"zca cannot be combined with {other}, got {self.zca!r}")


OPTIONS["dm"] = DM


def _changed(name: str, default: Any, help: str | None = None) -> Any:
    """Define a field of `DM` again with another default, and perhaps another help text."""
    metadata = dict(DM.__dataclass_fields__[name].metadata)
    help = help or metadata["help"].partition(" Defaults to")[0]
    return dataclasses.field(default=default, metadata=metadata | {"help": help})


def _gradient_loops(ipc: int) -> tuple[int, int]:
    """Return (outer, inner) of gradient matching for a number of images per class.

    The reference implementation uses (1, 1), (10, 50), (20, 25), (30, 20), (40, 15) and (50, 10)
    for 1, 10, ... 50 images; other numbers use the entry of the next larger one.
    """
    known = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
    return known[min((n for n in known if n >= ipc), default=50)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DC(DM):
    """Options of gradient matching without augmentation."""

    method: str = "dc"
    # fmt: off
    steps: int = _changed(
        "steps",
        Preset(lambda options: 400 if _gradient_loops(options.ipc)[0] == 1 else 100,
            lambda options: 1000 * _gradient_loops(options.ipc)[0]),
        "Distillation steps: updates of the images. Defaults to quick 100, or 400 for one image "
        "per class, paper 1000 times outer.")
    batch_size: int = _changed("batch_size", Preset(64, 256), "Real images per class and step.")
    learning_rate: float = _changed("learning_rate", 0.1)
    outer: int = _option(Preset(lambda options: _gradient_loops(options.ipc)[0]),
        "Steps before the network is initialised again. Defaults to 1 for one image per class, or "
        "the images per class rounded up to 10, 20, 30, 40 or 50.", "distillation", least=1)
    inner: int = _option(
        Preset(lambda options: min(_gradient_loops(options.ipc)[1], 5),
            lambda options: _gradient_loops(options.ipc)[1]),
        "Epochs for which the network is trained between two steps. Defaults to 1 for one image "
        "per class, or quick 5, paper 50, 25, 20, 15 or 10, less for larger outer.",
        "distillation", least=1)
    chunk: int = _changed("chunk", 10)
    # fmt: on


@dataclasses.dataclass(frozen=True, kw_only=True)
class DSA(DC):
    """Options of gradient matching with siamese augmentation."""

    method: str = "dsa"


_BUFFER_PATH = (
    "Folder of the trained networks, with one subfolder per weighting, to share them between runs. "
    "Defaults to the run folder."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MTT(DM):
    """Options of trajectory matching, named as in the reference implementation."""

    method: str = "mtt"
    # fmt: off
    steps: int = _changed("steps", Preset(100, 5000), "Distillation steps.")
    batch_size: int = _changed("batch_size", 26, "Real images per class and update of an expert.")
    learning_rate: float = _changed("learning_rate", Preset(100.0, 1000.0))
    syn_steps: int = _option(Preset(10, 20),
        "Steps of the student on the synthetic images.", "distillation", least=1)
    expert_epochs: int = _option(2,
        "Epochs of the expert that a student has to match.", "distillation", least=1)
    max_start_epoch: int = _option(Preset(5, 10),
        "Number of epochs of an expert from which a student may start, counted from epoch 0.",
        "distillation", least=1)
    lr_teacher: float = _option(0.01,
        "Learning rate of an expert, and initial learning rate of the student.",
        "distillation", positive=True)
    num_experts: int = _option(Preset(3, 100),
        "Number of expert trajectories.", "distillation", least=1)
    train_epochs: int = _option(Preset(10, 50), "Epochs of an expert.", "distillation", least=1)
    expert_updates: int = _option(Preset(20, 235),
        "Updates per epoch of an expert.", "distillation", least=1)
    buffer_path: str | None = _option(None, _BUFFER_PATH, "distillation", incidental=True)
    chunk: int = _changed("chunk", 10)
    # fmt: on

    def check_together(self) -> None:
        """Raise ValueError for values that exclude each other."""
        super().check_together()
        if self.max_start_epoch + self.expert_epochs > self.train_epochs + 1:
            raise ValueError(
                "max_start_epoch + expert_epochs must be at most "
                f"train_epochs + 1 = {self.train_epochs + 1}, "
                f"got {self.max_start_epoch} + {self.expert_epochs}"
            )


WEIGHTED_PARTS = ("teacher", "covariance", "signal")
"""Parts of curriculum frequency matching that sample weights can enter."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CFM(DM):
    """Options of curriculum frequency matching."""

    method: str = "cfm"
    # fmt: off
    steps: int = _changed(
        "steps",
        Preset(lambda options: 100 * options.ipc * options.class_parts,
            lambda options: 1000 * options.ipc * options.class_parts),
        "Distillation steps: a multiple of images per class times class parts. Defaults to quick "
        "100, paper 1000 times this product.")
    batch_size: int = _changed("batch_size", 13, "Real images per class and update of the teacher.")
    learning_rate: float = _changed("learning_rate", 0.25)
    teacher: str = _option("convnet-bn",
        "Network of the teacher: convnet-bn, vgg11-bn, resnet18-bn, or MODULE:ATTRIBUTE.",
        "distillation")
    teacher_steps: int = _option(Preset(600, 78_000),
        "Training steps of the teacher.", "distillation", least=1)
    lr_teacher: float = _option(0.1,
        "Initial learning rate of the teacher (cosine decay).", "distillation", positive=True)
    beta: float = _option(0.1,
        "Ridge β of the first image of a class; it decreases from image to image.",
        "distillation", positive=True)
    beta_floor: float = _option(1e-3, "Smallest β.", "distillation", positive=True)
    eta: float = _option(0.1,
        "Weight of the spectral loss relative to the teacher's cross-entropy.",
        "distillation", least=0, most=1e30)
    signal: Literal["class", "mean"] = _option("class",
        "Signal to filter: the class means, or the overall mean.", "distillation")
    crop: float = _option(0.08,
        "Smallest share of an image that a random crop keeps.",
        "distillation", positive=True, most=1)
    class_parts: int = _option(1,
        "Groups of classes that are distilled in turn, to save memory.", "distillation", least=1)
    weighted: tuple[str, ...] = _option(WEIGHTED_PARTS,
        "Parts that use the sample weights: any of teacher, covariance and signal.", "distillation")
    buffer_path: str | None = _option(None, _BUFFER_PATH, "distillation", incidental=True)
    chunk: int = _changed("chunk", Preset(50, 500))
    # fmt: on

    def check_together(self) -> None:
        """Raise ValueError for values that exclude each other."""
        super().check_together()
        if self.zca != "none":
            raise ValueError(
                f"cfm keeps images in pixel range; zca must be 'none', got {self.zca!r}"
            )
        if self.steps % (self.ipc * self.class_parts):
            raise ValueError(
                f"steps must be a multiple of ipc={self.ipc} times class_parts={self.class_parts}, "
                f"got {self.steps}"
            )
        if self.beta < self.beta_floor:
            raise ValueError(f"beta must be at least beta_floor={self.beta_floor}, got {self.beta}")
        if unknown := set(self.weighted) - {*WEIGHTED_PARTS}:
            known = ", ".join(WEIGHTED_PARTS)
            raise ValueError(f"weighted must be any of {known}, got {min(unknown)!r}")
        _check_network("teacher", self.teacher, TEACHERS)


def make(*, method: str = "dm", **fields: Any) -> DM:
    """Return the options of a method, a key of `OPTIONS`, from fields of its class.

    >>> make(method="dsa", ipc=1).steps
    400
    >>> make(inner=5)
    Traceback (most recent call last):
    ValueError: inner is an option of dc and dsa, got method 'dm'
    """
    if method not in OPTIONS:
        raise ValueError(f"method must be one of {', '.join(OPTIONS)}, got {method!r}")
    for name in fields:
        owners = [other for other, kind in OPTIONS.items() if name in _fields(kind)]
        if method not in owners:
            text = f"is an option of {' and '.join(owners)}" if owners else "is not an option"
            raise ValueError(f"{name} {text}, got method {method!r}")
    return OPTIONS[method](**fields)


def to_config(options: DM) -> dict[str, Any]:
    """Return the options that results depend on, for a configuration.

    Values of the preset are written out, so the preset is not among them.

    >>> config = to_config(DM(preset="paper"))
    >>> config["steps"], "preset" in config, "chunk" in config
    (20000, False, False)
    """
    fields = _fields(type(options)).values()
    return {x.name: getattr(options, x.name) for x, _ in fields if not x.metadata.get("incidental")}


def from_config(config: Mapping[str, Any]) -> DM:
    """Return the options in a configuration, which may hold other entries too."""
    method = config.get("method", "dm")
    known = _fields(OPTIONS[method]) if method in OPTIONS else {}
    fields = {name: config[name] for name in known if name in config and name != "method"}
    lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return make(method=method, **(fields | lists))


def read_config(path: str | os.PathLike) -> tuple[dict[str, Any], DM]:
    """Return the config.json of a run or a comparison, and the options in it."""
    config = files.read_json(path)
    if not isinstance(config, dict) or not {"dataset", "data", "ipc"} <= config.keys():
        raise ValueError(f"{path} does not hold the configuration of a run")
    try:
        return config, from_config(config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} holds invalid options: {error}") from error


# --- checks ------------------------------------------------------------------------------------


@functools.cache
def _fields(kind: "type[DM]") -> "dict[str, tuple[dataclasses.Field, Any]]":
    """Return the fields of an options class with their types, by name."""
    hints = typing.get_type_hints(kind)
    return {field.name: (field, hints[field.name]) for field in dataclasses.fields(kind)}


def _check_type(name: str, value: Any, kind: Any) -> None:
    if typing.get_origin(kind) is types.UnionType:
        if value is None:
            return
        (kind,) = set(typing.get_args(kind)) - {type(None)}
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            known = ", ".join(map(str, typing.get_args(kind)))
            raise ValueError(f"{name} must be one of {known}, got {value!r}")
        return
    kind = typing.get_origin(kind) or kind
    allowed = (int, float) if kind is float else kind
    # bool is a subclass of int, but True is not a valid number of steps.
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{name} must be {kind.__name__}, got {value!r}")


def _check_bounds(field: "dataclasses.Field", value: Any) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    low, high = field.metadata.get("least"), field.metadata.get("most")
    if field.metadata.get("positive") and not _FLOAT_RANGE[0] < value < _FLOAT_RANGE[1]:
        raise ValueError(f"{field.name} must be positive and finite, got {value}")
    # Written so that nan is out of bounds.
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        limits = f"at least {low}" if high is None else f"in [{low or 0}, {high}]"
        percent = f"; {value:g} % is {value / 100:g}" if high == 1 and 1 < value <= 100 else ""
        raise ValueError(f"{field.name} must be {limits}, got {value}{percent}")
    if not math.isfinite(value) or (isinstance(value, int) and value > _MAX_INT):
        raise ValueError(f"{field.name} must be finite and fit 32 bits, got {value}")


def _check_network(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known and ":" not in value:
        raise ValueError(
            f"{name} must be one of {', '.join(known)}, or MODULE:ATTRIBUTE, got {value!r}"
        )
