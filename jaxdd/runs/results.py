"""Results of runs: scores of a synthetic set and the circumstances of their measurement.

result.json of a run holds one `Result`, compare.json one per row. Reports, tables and the terminal
read results through `read` and format their numbers with the functions below.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import scipy

from jaxdd import __version__
from jaxdd.data import files

SCORES = {
    "accuracy": "all",
    "aligned": "aligned",
    "conflicting": "conflicting",
    "worst_group": "worst group",
}
"""Scores that tables and figures show, with their titles."""

_SHARED_STAGES = ("data", "embed", "density")  # shared by all rows of a comparison

STAGES = (*_SHARED_STAGES, "choose", "whiten", "experts", "distill", "evaluate")
"""Timed stages of a run, in order. "compile" is the time of XLA within all of them."""

MIN_GROUP_SIZE = 10
"""Minimum number of test images of a group for its accuracy to be shown."""


class Score(NamedTuple):
    """A score over several networks trained on one set.

    Attributes:
        mean: mean in [0, 1]; nan where the test set does not determine it.
        std: standard deviation over the networks (n - 1), 0 for a single network.
        n: number of networks.
        each: the score of every network, or empty.
    """

    mean: float = math.nan
    std: float = 0.0
    n: int = 0
    each: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Score":
        """Build a score from its JSON form, in which nan is null."""
        number = lambda name: math.nan if content.get(name) is None else float(content[name])
        each = tuple(math.nan if x is None else float(x) for x in content.get("each", ()))
        return cls(number("mean"), number("std"), int(content.get("n", 0)), each)


class Breakdown(NamedTuple):
    """Sizes and accuracies by class `[k]`, or by class and attribute `[k, a]`.

    Attributes:
        names: names along the last axis, or empty.
        train: number of training images, None if it is unknown.
        test: number of test images.
        mean: accuracy, mean over networks; nan for an empty group.
        std: standard deviation over networks.
    """

    names: tuple[str, ...]
    train: np.ndarray | None
    test: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Breakdown":
        """Build a breakdown from its JSON form, in which nan is null."""
        train = None if content["train"] is None else np.array(content["train"], int)
        shares = (np.array(content[name], float) for name in ("mean", "std"))
        return cls(tuple(content["names"]), train, np.array(content["test"], int), *shares)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Scores of one set of images.

    Attributes:
        accuracy: over all test images.
        aligned: over bias-aligned test images.
        conflicting: over bias-conflicting test images.
        worst_group: smallest accuracy over the groups in the test set.
        deo_max: largest gap between groups of one class (equalised odds).
        deo_mean: mean of these gaps over the classes with test images of at least two groups.
        deo_classes: number of these classes, if attributes of the test images are known.
        by_class: sizes and accuracies of classes, if they were recorded.
        by_group: the same by class and attribute, if those of the test images are known.
        learned: whether networks do better than predicting a single class, see `has_learned`.
    """

    accuracy: Score = Score()
    aligned: Score = Score()
    conflicting: Score = Score()
    worst_group: Score = Score()
    deo_max: Score = Score()
    deo_mean: Score = Score()
    deo_classes: int | None = None
    by_class: Breakdown | None = None
    by_group: Breakdown | None = None
    learned: bool | None = None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], timing: Mapping[str, Any] = {}) -> Self:
        """Build scores from their JSON form, with date and seconds of a result from `timing`."""
        try:
            content = {**content, **timing}
            names = [field.name for field in dataclasses.fields(cls)]
            fields = {name: content[name] for name in names if content.get(name) is not None}
            plain = {"learned", "deo_classes"}
            for name in Scores.__dataclass_fields__.keys() & fields.keys() - plain:
                kind = Breakdown if name.startswith("by_") else Score
                fields[name] = kind.from_dict(fields[name])
            if "random" in fields:
                fields["random"] = Scores.from_dict(fields["random"])
            if not math.isfinite(fields["accuracy"].mean):
                raise ValueError("accuracy must have a mean")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"expected scores: {error}") from error
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, without fields that are None."""
        return files.to_json({n: _json(x) for n, x in vars(self).items() if x is not None})


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Result(Scores):
    """The result of a run, or of one row of a comparison.

    Attributes:
        config: the configuration, as in config.json.
        random: scores of a random subset of the same size, of a run.
        weights: diagnostics of the sample weights, see `weights.formulas.diagnose`.
        choice: record of the choice of weights, if they were chosen.
        seed: seed of the run.
        device: kind of the first device.
        versions: versions of Python and the packages that numbers depend on.
        date: day on which the run finished, ISO format.
        seconds: wall time by stage.
    """

    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    random: Scores | None = None
    weights: dict[str, float | None] = dataclasses.field(default_factory=dict)
    choice: dict[str, Any] | None = None
    seed: int | None = None
    device: str | None = None
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    date: str | None = None
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def timeless(self) -> dict[str, Any]:
        """Return the JSON form without date and wall times, equal for equal runs."""
        return {n: x for n, x in self.to_dict().items() if n not in ("date", "seconds")}


def _json(value):
    if isinstance(value, Scores):
        return value.to_dict()
    return value._asdict() if isinstance(value, (Score, Breakdown)) else value


def circumstances() -> dict[str, Any]:
    """Return device and versions, which a number depends on."""
    versions = {"python": platform.python_version(), "jaxdd": __version__}
    for name in ("jax", "jaxlib", "flax", "optax", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {"device": str(jax.devices()[0].device_kind), "versions": versions}


def read(path: str | os.PathLike) -> dict[str, Result]:
    """Read the results in a JSON file.

    Args:
        path: result.json of a run, next to its timing.json, or compare.json of a comparison.

    Returns:
        Results by row. A run has two rows, "random" and the weighting that it was distilled with.
    """
    path = pathlib.Path(path)
    content = files.read_json(path)
    try:
        if isinstance(content, dict) and isinstance(content.get("rows"), dict):
            return {name: Result.from_dict(row) for name, row in content["rows"].items()}
        result = Result.from_dict(content, read_timing(path.parent))
    except ValueError as error:
        raise ValueError(f"{path} holds no result of a run or a comparison: {error}") from error
    name = str(result.config.get("row") or result.config.get("debias") or "distilled")
    if result.random is None or name == "random":
        return {name: result}
    baseline = Result(**vars(result.random), config=result.config)
    return {"random": baseline, name: result}


def read_timing(folder: str | os.PathLike) -> dict[str, Any]:
    """Return `date` and `seconds` from timing.json of a run, as far as they can be read."""
    try:
        content = files.read_json(pathlib.Path(folder) / "timing.json")
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict) or not isinstance(content.get("seconds"), dict):
        return {}
    seconds = {name: x for name, x in content["seconds"].items() if finite(x) is not None}
    date = content.get("date")
    return {"seconds": seconds} | ({"date": date} if isinstance(date, str) else {})


def shared_config(rows: Mapping[str, Result]) -> dict[str, Any]:
    """Return the configuration that all rows share.

    >>> shared_config({"plain": Result(config={"ipc": 1, "row": "plain"}),
    ...                "density": Result(config={"ipc": 1, "row": "density"})})
    {'ipc': 1}
    """
    first, *others = [row.config for row in rows.values() if row.config] or [{}]
    shared = lambda name: all(name in x and x[name] == first[name] for x in others)
    return {name: value for name, value in first.items() if shared(name)}


# --- numbers as text ---------------------------------------------------------------------------


def finite(value: Any) -> float | None:
    """Return a finite number, or None for anything else: nan, infinities, text, booleans."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and abs(value) < math.inf else None


def number(value: Any, form: str) -> str:
    """Return a number in a format, or a dash for anything else.

    >>> number(0.8541, ".2f"), number(float("nan"), ".2f"), number(None, ".2f")
    ('0.85', '–', '–')
    """
    return "–" if finite(value) is None else format(value, form)


def percent(score: Score | None) -> str:
    """Return mean ± standard deviation in percent, without the deviation of a single network.

    >>> percent(Score(0.9157, 0.007, 3)), percent(Score(0.5, 0.0, 1)), percent(Score())
    ('91.6 ± 0.7', '50.0', '–')
    """
    if score is None or finite(score.mean) is None:
        return "–"
    has_spread = finite(score.std) is not None and score.n > 1
    return f"{100 * score.mean:.1f}" + (f" ± {100 * score.std:.1f}" if has_spread else "")


def interval(score: Score | None) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of the mean over networks, clipped to [0, 1].

    Student's t with n - 1 degrees of freedom. None for fewer than two networks or no spread.

    >>> low, high = interval(Score(0.5, 0.01, 3))
    >>> f"{low:.4f} {high:.4f}"  # 4.3027 standard errors on either side
    '0.4752 0.5248'
    """
    if score is None or score.n < 2 or not finite(score.std) or finite(score.mean) is None:
        return None
    half = float(scipy.special.stdtrit(score.n - 1, 0.975)) * score.std / score.n**0.5
    return max(score.mean - half, 0.0), min(score.mean + half, 1.0)


# --- what a result implies ---------------------------------------------------------------------


def _chance(scores: Scores) -> float | None:
    """Return the share of the largest class in the test set, None if it is unknown."""
    if scores.by_class is None or not scores.by_class.test.sum():
        return None
    return float(scores.by_class.test.max() / scores.by_class.test.sum())


def has_learned(scores: Scores) -> bool | None:
    """Return whether networks do better than predicting the most frequent class.

    The accuracy, or that on bias-aligned images, must exceed chance by three standard errors of the
    test set and by a tenth of the smaller of chance and 1 - chance. None without a known test set.

    >>> by_class = Breakdown((), *np.full((4, 10), 1000))
    >>> has_learned(Scores(accuracy=Score(0.105), by_class=by_class))
    False
    >>> has_learned(Scores(accuracy=Score(0.15), by_class=by_class))
    True
    """
    share = _chance(scores)
    if share is None or scores.by_class is None:
        return None
    # The standard error of a share p of n test images is sqrt(p (1 - p) / n).
    error = (share * (1 - share) / int(scores.by_class.test.sum())) ** 0.5
    threshold = share + max(3 * error, min(share, 1 - share) / 10)
    return any(mean > threshold for mean in (scores.accuracy.mean, scores.aligned.mean))


def remark(result: Result) -> str | None:
    """Return a sentence about a row whose networks learned nothing, None for any other row."""
    share = _chance(result)
    if result.learned is not False or share is None or result.by_class is None:
        return None
    more = " more than the bias" if result.config.get("test") == "conflicting" else ""
    return (
        f"networks show no sign of learning{more} on {result.by_class.test.sum():,} test images: "
        f"accuracy {100 * result.accuracy.mean:.1f} %, predicting one class {100 * share:.1f} %"
    )


def smallest_group(scores: Scores) -> int | None:
    """Return the number of test images in the smallest non-empty group, None if unknown."""
    counts = np.zeros(0, int) if scores.by_group is None else scores.by_group.test
    return int(counts[counts > 0].min()) if (counts > 0).any() else None


def total_seconds(rows: Mapping[str, Result]) -> float:
    """Return the wall time of all rows; stages that rows share count once.

    >>> total_seconds({"plain": Result(seconds={"data": 4, "distill": 10}),
    ...                "density": Result(seconds={"data": 4, "distill": 11, "compile": 9})})
    25.0
    """
    per_row = [row.seconds for row in rows.values()]
    shared = sum(max((x.get(stage, 0) for x in per_row), default=0) for stage in _SHARED_STAGES)
    own = sum(x.get(stage, 0) for x in per_row for stage in STAGES if stage not in _SHARED_STAGES)
    return float(shared + own)
