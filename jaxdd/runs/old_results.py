"""What was measured, read back: the rows of a run or a comparison, and how to write their numbers.

A result is a dict as in result.json: accuracies by group, weights, seconds, device, versions, date
and configuration. `read` checks that a file holds some; the other functions make text of them.
"""

import contextlib
import datetime
import hashlib
import json
import os
import pathlib
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.special

from jaxdd import __version__
from jaxdd.data import files
from jaxdd.weights import blind_features

SCORES = {
    "accuracy": "all",
    "aligned": "aligned",
    "conflicting": "conflicting",
    "worst_group": "worst group",
}
"""The accuracies of a row, and what they are called in print."""

SHARED = ("data", "embed", "density")
"""Stages that the rows of a comparison share."""

STAGES = (*SHARED, "choose", "judge", "whiten", "experts", "distill", "evaluate")
"""All stages, in order ("judge" in older results only); "compile" is the part of all of them that
XLA compiled."""


class Kind(NamedTuple):
    """What a row of a comparison is.

    Attributes:
        weights: one of `pipeline.DEBIAS`.
        distilled: whether its images are; they are real ones otherwise.
        folder: of the weights, in the folder of the comparison.
        about: the same in words.
    """

    weights: str
    distilled: bool
    folder: str
    about: str


KINDS = {
    "random": Kind("none", False, "", "real images, drawn uniformly"),
    "random-kde": Kind("kde", False, "", "real images, drawn by the density weights"),
    "none": Kind("none", True, "", "distilled with uniform weights"),
    "kde": Kind("kde", True, "", "distilled with density weights, which know no bias label"),
    "auto": Kind(
        "auto", True, "auto",
        "distilled with weights chosen without bias labels; uniform ones, where others do not pay",
    ),
    **{
        name: Kind(
            name, True, name,
            f"distilled with weights by the {name} of the images, which know no bias label",
        )
        for name in blind_features.NAMED
    },
    "oracle": Kind("oracle", True, "", "distilled with weights made from the bias labels"),
    "fairdd": Kind(
        "fairdd", True, "", "distilled with a loss for every bias group, made from the bias labels"
    ),
    "given": Kind("given", True, "given", "distilled with weights that were given"),
}  # fmt: skip
"""All rows that there are."""

ROWS = ("random", "random-kde", "none", "kde", "auto", "oracle")
"""Rows of a comparison, unless others are asked for."""

TRANSFERRED = ("random", "synthetic")
"""The sets that other networks are trained on."""

CHOICE = {"uniform", "best", "trials", "candidates"}
"""Names in the record of a choice of weights."""

SHORTCUT = {"blocks", "blind", "baseline", "z_score"}
"""Names in what it says of each view."""

TRIAL = {"overall", "aligned", "conflicting", "count"}
"""Names in each of its trials."""

TRIED = {"encoder_steps", "bandwidth", "temperature", "evenness"}
"""Names in its best values and in each of its balances."""


LEAST = 10
"""Test images that a group must have for its accuracy to be shown."""


def sealed(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a result with a digest of itself, by which readers know that it is unchanged."""
    return {**result, "digest": _digest(result)}


def _digest(result):
    rest = {name: value for name, value in files.to_json(result).items() if name != "digest"}
    text = json.dumps(rest, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _check_seal(result, where):
    if result.get("digest", digest := _digest(result)) != digest:
        raise ValueError(f"{where}: it is not what its digest says, so it was changed or damaged")


def read(path: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Reads the results in a JSON file.

    Args:
        path: a file like result.json, of a run, or compare.json, of several rows.

    Returns:
        Name of the row -> result. A run has two rows, "random" and what it was distilled with.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not JSON, or holds no such result.
    """
    found = files.read_json(path)
    found = found if isinstance(found, dict) else {}
    rows, config = (
        value if isinstance(value, dict) else {}
        for value in (found.get("rows"), found.get("config"))
    )
    if not rows and "accuracy" in found:
        name = str(config.get("row") or config.get("debias") or "distilled")
        random = {"random": found["random"]} if "random" in found and name != "random" else {}
        rows = {**random, name: found}
    if not rows:
        raise ValueError(f"{path} holds no result of a run or a comparison")
    for name, row in rows.items():
        _check_row(row, f"{path}, row {name}")
        _check_seal(row, f"{path}, row {name}")
    return {name: {"config": {}, **row} for name, row in rows.items()}


def read_result(path: str | os.PathLike) -> dict[str, Any]:
    """Returns the result.json of a run.

    Raises:
        ValueError: it does not hold a result, or scores that are none.
    """
    with files.hint("delete it and resume"):
        result = files.read_json(path)
        if not isinstance(result, dict) or not {"random", "weights", *SCORES} <= result.keys():
            raise ValueError(f"{path} does not hold a result")
        for row, where in ((result, str(path)), (result["random"], f"{path}, random")):
            _check_row(row, where)
            if absent := [name for name in SCORES if name not in row]:
                raise ValueError(f"{where}: there is no {absent[0]}")
            if finite(row["accuracy"].get("mean")) is None:
                raise ValueError(f"{where}: the accuracy must have a mean, found none")
        weights = result["weights"]
        if not isinstance(weights, dict):
            raise ValueError(f"{path}: weights must hold names and values, found {weights!r}")
        if wrong := [name for name, x in weights.items() if x is not None and finite(x) is None]:
            raise ValueError(f"{path}: {wrong[0]} must be a number, found {weights[wrong[0]]!r}")
        _check_seal(result, str(path))
    return result


def read_comparison(path: str | os.PathLike) -> dict[str, Any]:
    """Returns compare.json, without rows where there is none.

    Raises:
        ValueError: it does not hold rows of results.
    """
    if not pathlib.Path(path).exists():
        return {"rows": {}, "finished": False}
    with files.hint("delete it and resume"):
        table = files.read_json(path)
        if not isinstance(table, dict) or not isinstance(table.get("rows"), dict):
            raise ValueError(f"{path} does not hold a comparison")
        for name, row in table["rows"].items():
            _check_row(row, f"{path}, row {name}")
            _check_seal(row, f"{path}, row {name}")
    return table


def is_finished(path: str | os.PathLike) -> bool:
    """Returns whether compare.json says so or, where it is older and silent, the last picture.

    Args:
        path: of compare.json, which may be absent.
    """
    path = pathlib.Path(path)
    found = files.read_json(path) if path.exists() else {"finished": False}
    picture = path.with_name("synthetic.png")
    return not isinstance(found, dict) or found.get("finished", picture.exists()) is True


def read_seconds(path: str | os.PathLike) -> dict[str, float]:
    """Returns the seconds of each stage that earlier attempts took.

    There are none where the file is missing or holds something else: no run fails for its timings.
    """
    try:
        found = files.read_json(path)
    except (OSError, ValueError):
        return {}
    timings = isinstance(found, dict) and all(finite(x) is not None for x in found.values())
    return found if timings else {}


def read_choice(path: str | os.PathLike) -> dict[str, Any]:
    """Returns the record of a choice of weights.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        choice = files.read_json(path)
        check_choice(choice, str(path))
        _check_seal(choice, str(path))
    except ValueError as error:
        raise ValueError(
            f"{path} does not hold the record of a choice; delete it and resume"
        ) from error
    choice.pop("digest", None)
    return choice


def circumstances() -> dict[str, Any]:
    """Returns device, versions and date, without which no number can be judged."""
    versions = {"python": platform.python_version(), "jaxdd": __version__}
    for name in ("jax", "jaxlib", "flax", "optax", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "device": str(jax.devices()[0].device_kind),
        "versions": versions,
        "date": datetime.date.today().isoformat(),
    }


def read_transfer(path: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Reads the results of `jaxdd transfer`.

    Args:
        path: a file like transfer.json.

    Returns:
        Network -> {"random": result, "synthetic": result, "epochs": …}.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not JSON, or holds no such result.
    """
    with files.hint("delete it and transfer again"):
        found = files.read_json(path)
        if not isinstance(found, dict) or not all(isinstance(row, dict) for row in found.values()):
            raise ValueError(f"{path} holds no results by network")
        for network, row in found.items():
            for name in TRANSFERRED:
                _check_row(row.get(name), f"{path}, {network}, {name}")
            _check_seal(row, f"{path}, {network}")
    return found


def read_profile(path: str | os.PathLike) -> dict[str, Any]:
    """Reads the result of `jaxdd profile`.

    Args:
        path: a file like profile.json.

    Returns:
        As `jaxdd.runs.scoring.profiles.measure`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not JSON, holds no profile, or was changed.
    """
    with files.hint("delete it and profile again"):
        found = files.read_json(path)
        if not isinstance(found, dict) or not isinstance(found.get("profiles"), dict):
            raise ValueError(f"{path} holds no profiles")
        _check_seal(found, path)
        if "digest" not in found:
            raise ValueError(f"{path} has no digest, as one of an earlier version")
    return found


def read_evaluation(path: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Reads the results of `jaxdd evaluate`.

    Args:
        path: the JSON file that it wrote.

    Returns:
        Name of the row -> result.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not JSON, or holds no such result.
    """
    with files.hint("delete it and evaluate again"):
        found = files.read_json(path)
        if not isinstance(found, dict):
            raise ValueError(f"{path} holds no evaluations by name")
        for name, row in found.items():
            _check_row(row, f"{path}, {name}")
            _check_seal(row, f"{path}, {name}")
    return found


def _check_row(row: Any, where: str) -> None:
    if not isinstance(row, dict) or not isinstance(row.get("accuracy"), dict):
        raise ValueError(f"{where}: expected an accuracy, found none")
    for name in SCORES:
        score = row.get(name)
        if not isinstance(score, dict | None):
            raise ValueError(f"{where}: {name} must hold mean, std and n, found {score!r}")
        for part, limit in (("mean", 1), ("std", 1), ("n", float("inf"))):
            value = (score or {}).get(part)
            if value is not None and (
                isinstance(value, (bool, str, list, dict))
                or (value == value and not 0 <= value <= limit)
            ):
                raise ValueError(f"{where}: {part} of {name} is out of range, found {value!r}")
    for part in ("config", "weights", "seconds", "versions", "choice", "digests"):
        if not isinstance(row.get(part), dict | None):
            raise ValueError(f"{where}: {part} must hold names and values, found {row[part]!r}")
    if row.get("choice"):
        check_choice(row["choice"], where)
    for part, depth in (("by_class", 1), ("by_group", 2)):
        if row.get(part) is not None:
            _check_parts(row[part], depth, f"{where}: {part}")


def _check_parts(found, depth, where):
    """Refuses sizes and accuracies by class or group that are not of the same shape."""
    names = ("train", "test", "mean", "std")
    if not isinstance(found, dict) or not {"names", *names} <= found.keys():
        raise ValueError(f"{where} must hold names, {', '.join(names)}")
    if not isinstance(found["names"], list) or not all(isinstance(n, str) for n in found["names"]):
        raise ValueError(f"{where}: names must be words, found {found['names']!r}")
    shapes = set()
    for name in names:
        try:
            values = np.array(found[name], float)  # None is NaN
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {name} must hold numbers") from error
        shapes.add(values.shape)
        counted = name in ("train", "test")
        if values.ndim != depth or not values.size or not _are(values, counted):
            kind = "sizes" if counted else "shares in [0, 1]"
            raise ValueError(f"{where}: {name} must be {kind} in {depth} dimensions")
    if len(shapes) > 1 or len(found["names"]) not in (0, next(iter(shapes))[-1]):
        raise ValueError(f"{where} must be of one shape, found {sorted(shapes)}")


def check_choice(choice: Any, where: str) -> None:
    """Refuses what is no record of a choice of weights.

    Args:
        choice: as `pipeline` writes it; those of earlier versions have no views or no objection.
        where: what the message begins with.

    Raises:
        ValueError: names are missing, in it or in its shortcuts, trials or balances.
    """
    later = {"rejection", "features", "shortcuts", "digest"}
    if not isinstance(choice, dict) or choice.keys() - later != CHOICE:
        found = ", ".join(sorted(choice)) if isinstance(choice, dict) else repr(choice)
        raise ValueError(f"{where}: choice must hold {', '.join(sorted(CHOICE))}, found {found}")
    trials, balances = choice["trials"], choice["candidates"]
    named = lambda found, names: isinstance(found, dict) and names <= found.keys()
    told = choice.get("shortcuts", {})
    if not isinstance(told, dict) or not all(named(found, SHORTCUT) for found in told.values()):
        raise ValueError(f"{where}: shortcuts must hold {', '.join(sorted(SHORTCUT))}")
    if choice.get("features") is not None:
        if not set(str(choice["features"]).split(" and ")) <= told.keys():
            raise ValueError(f"{where}: view must be of shortcuts, found {choice['view']!r}")
        return
    if not named(trials, {"best"}) or not all(named(trial, TRIAL) for trial in trials.values()):
        raise ValueError(f"{where}: trials must hold best, and each {', '.join(sorted(TRIAL))}")
    if not isinstance(balances, list) or not all(
        named(found, TRIED) for found in (choice["best"], *balances)
    ):
        raise ValueError(f"{where}: best and balances must hold {', '.join(sorted(TRIED))}")


def config(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the configuration that all rows share.

    >>> config({"none": {"config": {"ipc": 1, "row": "none"}},
    ...         "kde": {"config": {"ipc": 1, "row": "kde"}}})
    {'ipc': 1}
    """
    first, *others = [row["config"] for row in rows.values() if row.get("config")] or [{}]
    return {
        name: value
        for name, value in first.items()
        if all(name in other and other[name] == value for other in others)
    }


def check_config(path: str | os.PathLike, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuses a config.json that is not the one that finished rows were made with.

    That of a version before this one, which later rows were added to, is believed.

    Raises:
        ValueError: names what differs.
    """
    found, told = files.read_json(path), config(rows)
    told = {name: value for name, value in told.items() if name != "row" or name in found}
    if told and "augmentation" in found and (text := files.differences(found, told)):
        raise ValueError(f"{path} is not what the result was made with: {text}")


def finite(value: Any) -> float | None:
    """Returns a number, or None for what is none: NaN, infinities, text, truth values."""
    found = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if found and abs(value) < float("inf") else None


def number(value: Any, form: str) -> str:
    """Returns a number in a format, or a dash for what is none.

    >>> number(0.8541, ".2f"), number(float("nan"), ".2f"), number(None, ".2f")
    ('0.85', '–', '–')
    """
    return "–" if finite(value) is None else format(value, form)


def percent(score: Mapping[str, Any] | None) -> str:
    """Returns mean ± standard deviation in percent.

    The deviation of a single network, and a mean that is None or NaN, are left out.

    >>> percent({"mean": 0.9157, "std": 0.007, "n": 3}), percent({"mean": 0.5, "std": 0.0, "n": 1})
    ('91.6 ± 0.7', '50.0')
    >>> percent({"mean": float("nan")})
    '–'
    """
    score = score or {}
    mean, std = (finite(score.get(part)) for part in ("mean", "std"))
    if mean is None:
        return "–"
    if std is not None and (score.get("n") or 0) > 1:
        return f"{100 * mean:.1f} ± {100 * std:.1f}"
    return f"{100 * mean:.1f}"


def interval(score: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """Returns the 95 % interval of the mean over n networks by Student's t, cut to [0, 1].

    With fewer than two networks, or no spread among them, there is none.

    >>> low, high = interval({"mean": 0.5, "std": 0.01, "n": 3})
    >>> f"{low:.4f} {high:.4f}"  # 4.3027 standard errors on either side
    '0.4752 0.5248'
    """
    mean, std, n = (finite((score or {}).get(part)) for part in ("mean", "std", "n"))
    if mean is None or not std or not n or n < 2:
        return None
    half = float(scipy.special.stdtrit(n - 1, 0.975)) * std / n**0.5
    return max(mean - half, 0.0), min(mean + half, 1.0)


def _are(values, counted):
    """Whether an array holds sizes, or else shares, which may be unknown."""
    if counted:
        return np.isfinite(values).all() and (values >= 0).all() and not (values % 1).any()
    return not ((values < 0) | (values > 1)).any()


def chance(row: Mapping[str, Any]) -> float | None:
    """Returns the share of the largest class in the test set, None where it is not known."""
    counts = (row.get("by_class") or {}).get("test")
    return max(counts) / sum(counts) if counts and sum(counts) else None


def learnt(row: Mapping[str, Any]) -> bool | None:
    """Returns whether networks do better than to name one class throughout.

    Their accuracy, or that on aligned samples, must exceed chance by three standard errors of the
    test set and by a tenth of what is rarer, a hit or a miss. A network that learnt nothing but the
    bias has learnt something.

    Args:
        row: a result; None follows where its test set is not known.

    >>> test = {"by_class": {"test": [1000] * 10}}
    >>> learnt({**test, "accuracy": {"mean": 0.105}}), learnt({**test, "accuracy": {"mean": 0.15}})
    (False, True)
    """
    share = chance(row)
    if share is None:
        return None
    count = sum(row["by_class"]["test"])
    error = (share * (1 - share) / count) ** 0.5
    least = share + max(3 * error, min(share, 1 - share) / 10)
    found = [finite((row.get(name) or {}).get("mean")) for name in ("accuracy", "aligned")]
    return any(mean is not None and mean > least for mean in found)


def remark(row: Mapping[str, Any]) -> str | None:
    """Returns a sentence about a row whose networks learnt nothing that shows, None about another.

    >>> row = {"learnt": False, "accuracy": {"mean": 0.105}, "by_class": {"test": [1000] * 10}}
    >>> remark(row)[-70:]
    'test images: 10.5 % right, and naming one class throughout gets 10.0 %'
    """
    if row.get("learnt") is not False or (share := chance(row)) is None:
        return None
    conflicting = (row.get("config") or {}).get("test") == "conflicting"
    return (
        f"its networks show no sign of learning{' more than the bias' if conflicting else ''} in "
        f"{sum(row['by_class']['test']):,} test images: "
        f"{percent({'mean': (row.get('accuracy') or {}).get('mean')})} % right, and naming one "
        f"class throughout gets {100 * share:.1f} %"
    )


def smallest_group(row: Mapping[str, Any]) -> int | None:
    """Returns the test images of the smallest group that has some, None where it is not known.

    >>> smallest_group({"by_group": {"test": [[40, 3], [0, 40]]}})
    3
    """
    counts = (row.get("by_group") or {}).get("test") or []
    return min((int(n) for line in counts for n in line if n), default=None)


def seconds(rows: Mapping[str, Mapping[str, Any]]) -> float:
    """Returns the wall time of all rows: what they share once, distillation and evaluation each.

    >>> seconds({"none": {"seconds": {"data": 4, "distill": 10}},
    ...          "kde": {"seconds": {"data": 4, "distill": 11, "compile": 9}}})
    25.0
    """
    spent = [row.get("seconds") or {} for row in rows.values()]
    once = sum(max((finite(each.get(stage)) or 0 for each in spent), default=0) for stage in SHARED)
    return float(
        once
        + sum(finite(each.get(stage)) or 0 for each in spent for stage in STAGES[len(SHARED) :])
    )
