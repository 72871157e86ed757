"""What a run depends on: the options of every method, and presets for what is not said.

Each method has a dataclass of its own, such as `DM` or `MTT`, so that an option that a method does
not have is an error; `make` finds it by the name of the method, `read` by a configuration that was
stored.
"""

import dataclasses
import functools
import os
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from jaxdd import augment, networks
from jaxdd.data import files

Resolved = Any
"""Options of any method that are filled, with None only where None means something."""

PRESETS = {
    "quick": dict(steps=200, batch_size=128, width=32, epochs=300, eval_seeds=3, chunk=10),
    "paper": dict(steps=20000, batch_size=256, width=128, epochs=1000, eval_seeds=5, chunk=100),
}
"""Distribution matching on two CPU cores, and at the literature's scale."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DM:
    """Options of distribution matching, which the other methods have too.

    Fields left at None are filled in by the preset or the data set.
    """

    method: Literal["dm"] = "dm"
    """dm: distribution matching; dc, dsa: gradient matching without, with augmentation; mtt:
    trajectory matching; cfm: curriculum frequency matching."""
    ipc: int = 10
    """Synthetic images per class."""
    conflict: float | None = None
    """Share of bias-conflicting samples in each class of a benchmark, 0 to 1."""
    severity: int | None = None
    """Severity of the benchmark's bias, 1 to 4."""
    test: Literal["uniform", "conflicting"] = "uniform"
    """Test set of a benchmark: attribute independent of the class, or bias-conflicting only."""
    resize: int | None = None
    """Height and width in pixels that the images of a folder are resized to."""
    skip_bad: bool = False
    """Leave out images of a folder that do not decode."""
    label: str | None = None
    """Column that is the class, of an annotated set or of metadata.csv."""
    attribute: str | None = None
    """Column that is the bias attribute, likewise."""
    strategy: tuple[str, ...] | None = None
    """Augmentation: some of color crop cutout flip scale rotate, or none; by default that of the
    benchmark, for images of your own all but flip."""
    zca: Literal["none", "plain", "weighted"] = "none"
    """Whitening of what networks see (ZCA), in the distillation and when they are scored: fitted on
    all real images alike, or by the weights. The set is kept, and drawn, as pixels."""
    preset: Literal["quick", "paper"] = "quick"
    """quick fits two CPU cores, paper is the literature's scale for one GPU."""
    steps: int | None = None
    """Distillation steps; of dc and dsa, updates of the images; of cfm, updates of all images of a
    class together, as many of each, times class_parts."""
    batch_size: int | None = None
    """Real images per class and step; of mtt and cfm, per class and update of an expert or
    a teacher."""
    candidates: int | None = None
    """Real images per class, out of which k-means picks the batch (DREAM); without it all are."""
    formation: int = 1
    """Each synthetic image holds formation² smaller ones (IDC)."""
    network: str = "convnet"
    """Network that the set is distilled with and evaluated on: convnet, mlp, lenet, alexnet, vgg11,
    resnet18, or MODULE:ATTRIBUTE, a network of your own or a function of the number of classes."""
    width: int | None = None
    """Channels of the ConvNet."""
    depth: int = 3
    """Blocks of the ConvNet."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic inside the networks."""
    learning_rate: float | None = None
    """Of the synthetic images; for dm 1 below IPC 100 and 10 from there on, for dc and dsa 0.1, for
    mtt 100, for cfm 0.25."""
    init: Literal["weighted", "real", "noise"] = "weighted"
    """Initial images: real ones drawn by the weights, real ones drawn uniformly, or noise."""
    weighting: Literal["draw", "mean", "batch"] = "draw"
    """Weights draw the batch, weigh a uniform batch, or are estimated from each batch."""
    bandwidth_rule: Literal[
        "mean-distance", "median-distance", "scott", "silverman", "likelihood", "fixed"
    ] = "mean-distance"
    """How the kernel's bandwidth follows from the embeddings of a class."""
    bandwidth: float | None = None
    """Factor of the rule (of the squared bandwidth for the distances), or the fixed bandwidth."""
    temperature: float = 1.0
    """Weights are proportional to density^(-1/temperature)."""
    clip: float | None = None
    """Largest weight, as a multiple of the uniform one."""
    embedding: Literal["projection", "features"] = "projection"
    """Layer of the encoder in which the density is estimated."""
    encoder_steps: int = 30
    """Supervised contrastive training steps of the encoder."""
    encoder_width: int = 32
    """Channels of the encoder's ConvNet."""
    epochs: int | None = None
    """Epochs of each evaluation network."""
    eval_seeds: int | None = None
    """Number of networks a set is evaluated with."""
    training: Literal["standard", "lff", "selecmix"] = "standard"
    """How they train: as usual, or unlearning a bias by LfF or SelecMix."""
    score_every: int | None = None
    """Steps after which the set is scored on the way, for the report; by default only at the end.
    Each time takes as long as an evaluation, and changes nothing of the set."""
    chunk: int | None = None
    """Steps compiled into one call; a run is saved and logged between calls."""
    save_every: float = 15.0
    """Seconds after which the state is saved, when the current chunk ends."""
    seed: int = 0
    """Seed of the benchmark, the encoder, the distillation and the evaluation."""

    INCIDENTAL: ClassVar = ("preset", "chunk", "save_every", "score_every", "buffer_path")
    """Fields that no result depends on, once the others are resolved."""

    _LEAST: ClassVar = dict(
        ipc=1, steps=0, batch_size=1, width=1, depth=1, encoder_steps=0, encoder_width=1, epochs=1,
        eval_seeds=1, chunk=1, seed=0, formation=1, candidates=1, outer=1, inner=1, syn_steps=1,
        num_experts=1, train_epochs=1, expert_updates=1, expert_epochs=1, max_start_epoch=0,
        resize=1, teacher_steps=1, score_every=1, class_parts=1,
    )  # fmt: skip

    def preset_values(self) -> dict[str, Any]:
        """Returns what the preset says of fields that are None."""
        return PRESETS[self.preset] | {"learning_rate": 10.0 if self.ipc >= 100 else 1.0}

    def resolved(self) -> "Resolved":
        """Fills what is None from the preset and checks words, types and numbers.

        Raises:
            TypeError: a value of the wrong type.
            ValueError: names the option, what was found and what was expected.
        """
        _check_types(self)
        _check_numbers(self, self._LEAST)
        given = {n: v for n, v in self.preset_values().items() if getattr(self, n) is None}
        options: Resolved = dataclasses.replace(self, **given)
        options.check_together(options)
        return options

    @staticmethod
    def check_together(options: "Resolved") -> None:
        """Raises ValueError for values that do not go with each other."""
        if options.candidates is not None and options.candidates < options.batch_size:
            raise ValueError(
                f"candidates must be at least the batch_size of {options.batch_size}, "
                f"found {options.candidates}"
            )
        if options.bandwidth_rule == "fixed" and options.bandwidth is None:
            raise ValueError("the fixed bandwidth rule needs a bandwidth, found none")
        if options.zca != "none" and (options.formation > 1 or options.weighting == "batch"):
            found = "weighting batch" if options.weighting == "batch" else "formation"
            raise ValueError(f"zca is of whole images, weighed before they are, found {found} too")
        if options.clip is not None and not options.clip >= 1:
            raise ValueError(f"clip must be at least 1, found {options.clip}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DC(DM):
    """Options of gradient matching without augmentation."""

    method: Literal["dc"] = "dc"
    """Gradient matching without augmentation."""
    outer: int | None = None
    """Updates that a network lives for."""
    inner: int | None = None
    """Epochs that it is trained for between two of them."""

    def preset_values(self) -> dict[str, Any]:
        """Returns what the preset says: in the literature, 1,000 networks."""
        outer, inner = loops(self.ipc)
        common = PRESETS[self.preset] | dict(outer=outer, inner=inner, learning_rate=0.1)
        if self.preset == "paper":
            return common | dict(steps=1000 * outer, chunk=10)
        steps = 400 if outer == 1 else 100  # a network each, or ten networks
        return common | dict(steps=steps, inner=min(inner, 5), batch_size=64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DSA(DC):
    """Options of gradient matching with siamese augmentation."""

    method: Literal["dsa"] = "dsa"
    """Gradient matching with siamese augmentation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MTT(DM):
    """Options of trajectory matching, in the words of its reference code."""

    method: Literal["mtt"] = "mtt"
    """Trajectory matching."""
    syn_steps: int | None = None
    """Steps of the student on the synthetic images."""
    expert_epochs: int | None = None
    """Epochs of the expert that a student should catch up with."""
    max_start_epoch: int | None = None
    """Last epoch of the expert from which a student starts."""
    lr_teacher: float = 0.01
    """Learning rate of an expert, and the first one of the student."""
    num_experts: int | None = None
    """Expert trajectories."""
    train_epochs: int | None = None
    """Epochs of an expert's training."""
    expert_updates: int | None = None
    """Updates in an epoch of it."""
    buffer_path: str | None = None
    """Folder of trajectories, a sub-folder for each kind of weights; the run's by default."""

    def preset_values(self) -> dict[str, Any]:
        """Returns what the preset says of fields that are None."""
        trajectories = {
            "quick": dict(
                steps=100, syn_steps=10, learning_rate=100.0, num_experts=3, train_epochs=10,
                expert_updates=20, max_start_epoch=5,
            ),
            "paper": dict(
                steps=5000, syn_steps=20, learning_rate=1000.0, num_experts=100, train_epochs=50,
                expert_updates=235, max_start_epoch=10, chunk=10,
            ),
        }  # fmt: skip
        common = dict(batch_size=26, expert_epochs=2)
        return PRESETS[self.preset] | common | trajectories[self.preset]

    @staticmethod
    def check_together(options: Resolved) -> None:
        """Raises ValueError for values that do not go with each other."""
        DM.check_together(options)
        if options.max_start_epoch + options.expert_epochs > options.train_epochs:
            raise ValueError(
                "max_start_epoch + expert_epochs must not go beyond the "
                f"{options.train_epochs} train_epochs, found {options.max_start_epoch} + "
                f"{options.expert_epochs}"
            )


WEIGHTED = ("teacher", "covariance", "signal")
"""Where weights can enter curriculum frequency matching."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CFM(DM):
    """Options of curriculum frequency matching."""

    method: Literal["cfm"] = "cfm"
    """Curriculum frequency matching."""
    teacher: str = "convnet-bn"
    """Network of the teacher: convnet-bn, vgg11-bn, resnet18-bn, or MODULE:ATTRIBUTE."""
    teacher_steps: int | None = None
    """Updates of its training."""
    lr_teacher: float = 0.1
    """Learning rate of its first update, which falls along a cosine."""
    beta: float = 0.1
    """Ridge β of the first image of a class, which falls from image to image."""
    beta_floor: float = 1e-3
    """Smallest β."""
    eta: float = 0.1
    """Share η of the matched spectra beside the teacher's cross-entropy."""
    signal: Literal["class", "mean"] = "class"
    """What the filter is applied to: the class means, or the mean of all."""
    crop: float = 0.08
    """Smallest share of an image that a random crop keeps."""
    class_parts: int = 1
    """Equal groups of classes that take turns with each image, for less memory."""
    weighted: tuple[str, ...] = WEIGHTED
    """What goes by the weights: some of teacher, covariance and signal, or none."""
    buffer_path: str | None = None
    """Folder of teachers, a sub-folder for each kind of weights; the run's by default."""

    def preset_values(self) -> dict[str, Any]:
        """Returns what the preset says: in the literature, 200 epochs of CIFAR-10."""
        updates, teacher_steps = {"quick": (100, 600), "paper": (1000, 78000)}[self.preset]
        common = dict(batch_size=13, learning_rate=0.25, teacher_steps=teacher_steps)
        steps = updates * self.ipc * self.class_parts
        return PRESETS[self.preset] | common | dict(steps=steps, chunk=updates // 2)

    @staticmethod
    def check_together(options: Resolved) -> None:
        """Raises ValueError for values that do not go with each other."""
        DM.check_together(options)
        if options.zca != "none":
            raise ValueError("cfm keeps images within the range of pixels, found zca, too")
        if options.steps % (options.ipc * options.class_parts):
            raise ValueError(
                f"steps must be a multiple of the {options.ipc} images per class, which are made "
                f"one after another in class_parts = {options.class_parts}, found {options.steps}"
            )
        if options.beta < options.beta_floor:
            raise ValueError(
                f"beta must be at least its beta_floor of {options.beta_floor}, "
                f"found {options.beta}"
            )
        if not (0 < options.crop <= 1 and 0 <= options.eta < 1e30):
            raise ValueError(
                "crop must lie in (0, 1], and eta be at least 0 and finite, found "
                f"{options.crop} and {options.eta}"
            )
        if unknown := set(options.weighted) - {*WEIGHTED}:
            raise ValueError(f"weighted must be of {', '.join(WEIGHTED)}, found {min(unknown)!r}")
        if options.teacher not in TEACHERS and ":" not in options.teacher:
            raise ValueError(
                f"teacher must be one of {', '.join(TEACHERS)}, or MODULE:ATTRIBUTE, "
                f"found {options.teacher!r}"
            )


Options = DM | DC | DSA | MTT | CFM
"""The options of a run, of whatever method."""

METHODS = {"dm": DM, "dc": DC, "dsa": DSA, "mtt": MTT, "cfm": CFM}
"""The options of each method."""

NETWORKS = tuple(networks.NETWORKS)
"""Networks that have names."""

TEACHERS = ("convnet-bn", "vgg11-bn", "resnet18-bn")
"""Networks that have names, and batch norm."""

_RENAMED = {
    "inner": "syn_steps",
    "span": "expert_epochs",
    "latest": "max_start_epoch",
    "expert_rate": "lr_teacher",
    "experts": "num_experts",
    "expert_epochs": "train_epochs",
    "buffer": "buffer_path",
}
"""What the options of mtt were called in configurations that have a span."""


def make(*, method: str = "dm", **given: Any) -> Options:
    """Returns the options of a method.

    Args:
        method: one of `METHODS`.
        **given: fields of its dataclass.

    Raises:
        ValueError: an unknown method, or an option that it does not have.

    >>> make(method="dsa", ipc=1).resolved().outer
    1
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, found {method!r}")
    check_known(method, given)
    return METHODS[method](**given)


def check_known(method: str, names: Iterable[str]) -> None:
    """Refuses options that a method does not have, by a sentence that says whose they are.

    Raises:
        ValueError: names the option.

    >>> check_known("dm", ["inner"])
    Traceback (most recent call last):
    ValueError: inner is an option of dc and dsa, found it with dm
    """
    for name in names:
        owners = [other for other, kind in METHODS.items() if name in _fields(kind)]
        if method not in owners:
            whose = f"is an option of {' and '.join(owners)}" if owners else "is no option"
            raise ValueError(f"{name} {whose}, found it with {method}")


def read(config: Mapping[str, Any]) -> Options:
    """Returns the options in a stored configuration, also in one of an earlier version.

    Fields that it does not have get their defaults, what are no options is left out.

    Raises:
        ValueError: for an unknown method.
    """
    config = dict(config)
    if "span" in config:
        config |= {new: config.get(old) for old, new in _RENAMED.items()}
        config["lr_teacher"] = config["lr_teacher"] or MTT.lr_teacher
    method = config.pop("method", "dm")
    known = _fields(METHODS[method]) if method in METHODS else {}
    given = {name: config[name] for name in known if name in config}
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return make(method=method, **(given | lists))


def loops(ipc: int) -> tuple[int, int]:
    """Returns (outer, inner) of gradient matching for a number of images per class.

    The reference's numbers, (1, 1) (10, 50) (20, 25) (30, 20) (40, 15) (50, 10), hold up to the
    next of them in the list.

    Raises:
        ValueError: for less than one image.
    """
    known = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
    if ipc < 1:
        raise ValueError(f"ipc must be at least 1, found {ipc}")
    return known[min((n for n in known if n >= ipc), default=50)]


@functools.cache
def _fields(kind):
    """The types of a dataclass's fields by name."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _check_types(options):
    """Refuses words that are no choices, and values that are not of their field's type."""
    for name, kind in _fields(type(options)).items():
        _check_type(name, getattr(options, name), kind)
    if options.network not in NETWORKS and ":" not in options.network:
        raise ValueError(
            f"network must be one of {', '.join(NETWORKS)}, or MODULE:ATTRIBUTE, "
            f"found {options.network!r}"
        )
    if options.strategy is not None:
        augment.check_strategy(options.strategy)


def _check_type(name, value, kind):
    if typing.get_origin(kind) is types.UnionType:
        kinds = typing.get_args(kind)
        if value is None and type(None) in kinds:
            return
        (kind,) = set(kinds) - {type(None)}
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            known = ", ".join(map(str, typing.get_args(kind)))
            raise ValueError(f"{name} must be one of {known}, found {value!r}")
        return
    kind = typing.get_origin(kind) or kind
    allowed = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{name} must be {kind.__name__}, found {value!r}")


_POSITIVE = {
    "temperature", "bandwidth", "learning_rate", "lr_teacher", "beta", "beta_floor",
}  # fmt: skip


def _check_numbers(options, least):
    for name, value in dataclasses.asdict(options).items():
        if value is None:
            continue
        if name in least and not least[name] <= value < 2**31:
            raise ValueError(
                f"{name} must be at least {least[name]} and fit 32 bits, found {value}"
            )
        positive = name in _POSITIVE
        if positive and not 1e-30 < value < 1e30:  # what float32 can calculate with
            raise ValueError(f"{name} must be positive and finite, found {value}")
    for name, (low, high) in dict(conflict=(0, 1), severity=(1, 4)).items():
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise ValueError(f"{name} must lie in [{low}, {high}], found {value}")
    if not 0 <= options.save_every < float("inf"):
        raise ValueError(f"save_every must be at least 0 and finite, found {options.save_every}")


def read_config(path: str | os.PathLike) -> tuple[dict[str, Any], Options]:
    """Returns the config.json of a run or a comparison, and the options in it.

    Raises:
        ValueError: it does not hold a configuration, or options that none may have.
    """
    found = files.read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold an object, found {found!r}")
    if not {"dataset", "data", "ipc"} <= found.keys():
        raise ValueError(f"{path} does not hold the configuration of a run")
    try:
        asked = read(found)
        asked.resolved()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} holds options that cannot be: {error}") from error
    return found, asked
