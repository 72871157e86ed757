"""What a run depends on, and the presets that fill in what is not said."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from jaxdd import distill

PRESETS = {
    "quick": dict(
        steps=200, batch_size=128, width=32, epochs=300, eval_seeds=3, chunk=10, encoder_width=32
    ),
    "paper": dict(
        steps=20000,
        batch_size=256,
        width=128,
        epochs=1000,
        eval_seeds=5,
        chunk=100,
        encoder_width=32,
    ),
}
"""Distribution matching on two CPU cores, and at the literature's scale."""

TRAJECTORIES = {
    "quick": dict(
        steps=100,
        inner=10,
        learning_rate=100.0,
        batch_size=26,
        experts=3,
        expert_epochs=10,
        expert_updates=20,
        span=2,
        latest=5,
    ),
    "paper": dict(
        steps=5000,
        inner=20,
        learning_rate=1000.0,
        batch_size=26,
        experts=100,
        expert_epochs=50,
        expert_updates=235,
        span=2,
        latest=10,
        chunk=10,
    ),
}
"""What differs for trajectory matching."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What a run depends on. Fields left at None are filled in by the preset or the data set."""

    method: Literal["dm", "dc", "dsa", "mtt"] = "dm"
    """Distribution matching, gradient matching without or with augmentation, or trajectory matching."""
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
    preset: Literal["quick", "paper"] = "quick"
    """quick fits two CPU cores, paper is the literature's scale for one GPU."""
    steps: int | None = None
    """Distillation steps; of dc and dsa, updates of the images."""
    outer: int | None = None
    """Updates that a network of dc and dsa lives for."""
    inner: int | None = None
    """Epochs that it is trained for between two of them; of mtt, steps of the student."""
    batch_size: int | None = None
    """Real images per class and step; of mtt, per class and update of an expert."""
    candidates: int | None = None
    """Real images per class, among which k-means picks the batch (DREAM); all are taken without it."""
    formation: int = 1
    """Each synthetic image holds formation² smaller ones (IDC)."""
    experts: int | None = None
    """Expert trajectories of mtt."""
    expert_epochs: int | None = None
    """Epochs of an expert."""
    expert_updates: int | None = None
    """Updates in an epoch of an expert."""
    expert_rate: float = 0.01
    """Learning rate of an expert, and the first one of the student."""
    span: int | None = None
    """Epochs of the expert that a student should catch up with."""
    latest: int | None = None
    """Last epoch of the expert from which a student starts."""
    buffer: str | None = None
    """Folder of expert trajectories, one sub-folder for each kind of weights; by default in the run's."""
    network: Literal["convnet", "mlp", "lenet", "alexnet", "vgg11", "resnet18"] = "convnet"
    """Network that the set is distilled with and evaluated on."""
    width: int | None = None
    """Channels of the ConvNet."""
    depth: int = 3
    """Blocks of the ConvNet."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic inside the networks."""
    learning_rate: float | None = None
    """Of the synthetic images; for dm 1 below IPC 100 and 10 from there on, for dc and dsa 0.1, for mtt 100."""
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
    encoder_width: int | None = None
    """Channels of the encoder's ConvNet."""
    epochs: int | None = None
    """Epochs of each evaluation network."""
    eval_seeds: int | None = None
    """Number of networks a set is evaluated with."""
    training: Literal["plain", "lff", "selecmix"] = "plain"
    """How they train: as usual, or unlearning a bias by LfF or SelecMix."""
    chunk: int | None = None
    """Steps compiled into one call; a run is saved and logged between calls."""
    save_every: float = 15.0
    """Seconds after which the state is saved, when the current chunk ends."""
    seed: int = 0
    """Seed of the benchmark, the encoder, the distillation and the evaluation."""

    def resolved(self) -> "Options":
        """Fills what is None from the preset and checks the numbers.

        Raises:
            ValueError: names the option, what was found and what was expected.
        """
        preset = dict(PRESETS[self.preset], learning_rate=10.0 if self.ipc >= 100 else 1.0)
        if self.method == "mtt":
            preset |= TRAJECTORIES[self.preset]
        elif self.method != "dm":
            preset |= self._loops()
        missing = {name: v for name, v in preset.items() if getattr(self, name) is None}
        options = dataclasses.replace(self, **missing)
        whole = dict(
            ipc=1,
            steps=0,
            batch_size=1,
            width=1,
            depth=1,
            encoder_steps=0,
            encoder_width=1,
            epochs=1,
            eval_seeds=1,
            chunk=1,
            seed=0,
            formation=1,
            candidates=options.batch_size,
            outer=1,
            inner=1,
            experts=1,
            expert_epochs=1,
            expert_updates=1,
            span=1,
            latest=0,
        )
        for name, least in whole.items():
            if getattr(options, name) is None:
                continue  # of another method
            if not least <= getattr(options, name) < 2**31:
                raise ValueError(
                    f"{name} must be at least {least} and fit 32 bits, found {getattr(options, name)}"
                )
        for name in ("temperature", "bandwidth", "learning_rate", "expert_rate"):
            value = getattr(options, name)
            if value is not None and not 1e-30 < value < 1e30:  # what float32 can calculate with
                raise ValueError(f"{name} must be positive and finite, found {value}")
        if not 0 <= options.save_every < np.inf:
            raise ValueError(
                f"save_every must be at least 0 and finite, found {options.save_every}"
            )
        if options.method == "mtt" and options.latest + options.span > options.expert_epochs:
            raise ValueError(
                f"latest + span must not go beyond the {options.expert_epochs} expert_epochs, "
                f"found {options.latest} + {options.span}"
            )
        if options.bandwidth_rule == "fixed" and options.bandwidth is None:
            raise ValueError("the fixed bandwidth rule needs a bandwidth, found none")
        if options.clip is not None and not options.clip >= 1:
            raise ValueError(f"clip must be at least 1, found {options.clip}")
        return options

    def _loops(self):
        """What the preset says of gradient matching: 1,000 networks in the literature."""
        if self.ipc < 1:
            return {}  # refused below
        outer, inner = distill.loops(self.ipc)
        if self.preset == "paper":
            return dict(steps=1000 * outer, outer=outer, inner=inner, learning_rate=0.1, chunk=10)
        steps = 400 if outer == 1 else 100  # a network each, or ten networks
        return dict(steps=steps, outer=outer, inner=min(inner, 5), learning_rate=0.1, batch_size=64)


def read(config: Mapping[str, Any]) -> Options:
    """Returns the options in a configuration: the fields that it knows, the others by default.

    >>> read({"dataset": "cmnist", "ipc": 1}) == Options(ipc=1)
    True
    """
    known = {field.name for field in dataclasses.fields(Options)}
    return Options(**{name: value for name, value in config.items() if name in known})
