"""Look for a bias in a data set, without distillation.

`find` chooses weights for a part of the training samples, as the weighting "auto" of a run does.
Bias labels are used only to score the result.
"""

import csv
import dataclasses
import functools
import io
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdd import networks, sampling, weights
from jaxdd.data import bias, datasets, duplicates, file_checks, files
from jaxdd.devices import split_pool
from jaxdd.runs import components, weightings
from jaxdd.runs.folder import embedding_file
from jaxdd.runs.options import DM, OWN_EMBEDDING
from jaxdd.weights import formulas

EXIT_CODES = {"none": 0, "biased": 1, "undecided": 3}
"""Exit code of `jaxdd bias` by verdict; 2 is that of invalid input."""

_KINDS = {
    "tone": "in colours and brightness (tone)",
    "texture": "in fine structure (texture)",
    "layout": "in where things are or how they are turned (layout)",
    "border": "in the outer band (border)",
    "embedding": "of unknown kind (embedding)",
    "density": "of unknown kind (density)",
    OWN_EMBEDDING: "in your embedding",
}
"""Words after "a bias" for each candidate."""


class Finding(NamedTuple):
    """The result of looking for a bias.

    Attributes:
        choice: the choice of weights of the analysed samples.
        samples: indices of the training samples that were analysed, `[m]`.
        auc: for each candidate, the area under the curve of its bias-conflict score for
            bias-conflicting samples within the classes; None if bias labels are unknown.
        to_label: indices of training images whose bias labels would help most, `[q]`.
        file_checks: how well properties of the image files predict the class; empty unless the
            data are a folder of images.
        copies: numbers of images that occur more than once, see `duplicates.exact`.
        near_copies: the same of near-duplicates, or None if there are too many images to compare.
        dataset: data set and its options as on the command line, for example
            "cmnist --conflict 0.05"; for commands that are shown.
        commands: for each candidate, the command that distills a set with its weights.
        is_preview: whether the candidates have not been tested yet; there is no verdict then.
    """

    choice: weights.Choice
    samples: np.ndarray
    auc: dict[str, float] | None
    to_label: np.ndarray
    file_checks: Sequence[file_checks.FileCheck]
    copies: Mapping[str, int]
    near_copies: Mapping[str, int] | None
    dataset: str
    commands: dict[str, str]
    is_preview: bool = False


def find(
    data: datasets.Benchmark,
    options: DM = DM(),
    *,
    dataset: str | None = None,
    folder: str | os.PathLike | None = None,
    embedding: ArrayLike | None = None,
    embedding_path: str | os.PathLike | None = None,
    max_samples: int = 15_000,
    ask: int = 20,
    mesh: jax.sharding.Mesh | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    preview: Callable[[Finding], None] = lambda finding: None,
    **choosing: Any,
) -> Finding:
    """Look for a bias in the training set.

    Args:
        data: from `benchmarks.load`, `datasets.from_arrays` or `datasets.from_folder`.
        options: options of a run, of which the seed and the options of weights are used.
        dataset: data set and its options as on the command line. Defaults to the name of the data.
        folder: folder that the images were read from, to check their files.
        embedding: `[n, d]` embedding of all training samples by the user, for one more candidate.
        embedding_path: file of the embedding, for commands that are shown.
        max_samples: maximum number of samples to analyse, an equal share of each class.
        ask: number of images to select for labelling.
        mesh: devices that share the images, from `parallel.mesh`. Defaults to one device.
        progress: called as `progress(done, total)`.
        preview: called once with the candidates before the probe network check, which takes most
            of the time.
        **choosing: options of `weights.choose` that replace those of `options`.
    """
    if max_samples < 1 or ask < 0:
        raise ValueError(
            f"max_samples must be positive and ask at least 0, got {max_samples} and {ask}"
        )
    if embedding is not None:
        embedding = embedding_file.check(np.asarray(embedding), data)
    depth = min(options.depth, networks.max_blocks(data.train.images.shape))
    options = dataclasses.replace(options, depth=depth)
    checks = (
        () if folder is None else file_checks.check(folder, data.train_files, data.train.labels)
    )
    copies, near = duplicates.exact(data).counts(), duplicates.near(data)
    key_samples, key_label = jax.random.split(components.key(options, "bias"))
    samples = _draw(key_samples, data, max_samples)
    train = datasets.select(data.train, samples)
    index = functools.partial(split_pool.pool, mesh=mesh) if mesh else sampling.pool
    pool = datasets.pool(data._replace(train=train), index=index)
    dataset, none = dataset or shlex.quote(data.name), np.zeros(0, int)

    def describe(choice):
        """Return the finding about a choice of weights of the samples."""
        rows = samples[choice.samples]
        analysed, record = datasets.select(data.train, rows), choice.record()
        to_label = none
        if ask and choice.candidates:
            to_label = weights.to_label(key_label, choice.candidates, analysed.labels, count=ask)
        words = functools.partial(debias_words, record, embedding_path=embedding_path)
        names = [candidate.name for candidate in choice.candidates]
        return Finding(
            choice=choice,
            samples=rows,
            auc=_auc(choice, analysed, data),
            to_label=rows[to_label],
            file_checks=checks,
            copies=copies,
            near_copies=None if near is None else near.counts(),
            dataset=dataset,
            commands={name: f"jaxdd run {dataset} {shlex.join(words(name))}" for name in names},
        )

    choice = weightings.choose(
        pool, options, strategy=data.strategy, report=progress,
        embedding=None if embedding is None else embedding[samples],
        preview=lambda choice: preview(describe(choice)._replace(to_label=none, is_preview=True)),
        **choosing,
    )  # fmt: skip
    return describe(choice)


def _draw(key, data, max_samples):
    """Return the sorted indices of the samples to analyse, an equal share of each class."""
    labels = data.train.labels
    counts = np.bincount(labels, minlength=data.num_classes)
    counts = np.maximum(counts * min(1.0, max_samples / len(labels)) // 1, 1)
    # Samples are drawn without replacement: the first ranks of each class in a random order.
    order = np.asarray(jax.random.uniform(key, labels.shape))
    return np.flatnonzero(bias.rank_in_class(order, labels, xp=np) < counts[labels])


def _auc(choice, train, data):
    """Return the area under the curve of each candidate, or None if bias labels are unknown."""
    if train.attributes is None or data.aligned is None:
        return None
    known = [jnp.asarray(x) for x in (train.labels, train.attributes, data.aligned)]
    sizes = dict(num_classes=data.num_classes, num_attributes=data.num_attributes)
    areas = {}
    for candidate in choice.candidates:
        # `diagnose` expects positive weights. Ranks have the same area under the curve as scores.
        ranks = 1 + np.unique(np.asarray(candidate.conflict_score), return_inverse=True)[1]
        diagnostics = formulas.diagnose(jnp.asarray(ranks, jnp.float32), *known, **sizes)
        areas[candidate.name] = float(diagnostics.conflict_auc)
    return areas


def debias_words(
    record: Mapping[str, Any], name: str, *, embedding_path: str | os.PathLike | None = None
) -> list[str]:
    """Return the options of `jaxdd run` that balance the groups of one candidate.

    Args:
        record: record of the choice, `Choice.record`.
        name: name of the candidate.
        embedding_path: file of the embedding of the user.

    >>> debias_words({"best": None}, "layout")
    ['--debias', 'layout']
    """
    if name == OWN_EMBEDDING:
        return ["--debias", "embedding", "--embedding", str(embedding_path)]
    words = ["--debias", name]
    if name == "density" and record["best"]:
        for option in ("encoder_steps", "bandwidth", "temperature"):
            words += [f"--{option.replace('_', '-')}", f"{record['best'][option]:g}"]
    return words


def headline(record: Mapping[str, Any]) -> str:
    """Summarise the record of a choice of weights (`Choice.record`) in a few words.

    >>> headline({"verdict": "biased", "chosen": ["texture", "tone"], "candidates": []})
    'a bias in fine structure (texture) and in colours and brightness (tone)'
    """
    labels = record.get("labels")
    if labels and labels["rejection"] is None:
        return f"{_describe(record['chosen'])}, as {labels['labels']} bias labels show"
    if record["verdict"] == "biased":
        return _describe(record["chosen"])
    names = [candidate["name"] for candidate in record["candidates"]]
    if record["verdict"] == "undecided":
        return f"undecided, perhaps {_describe(names[:1])}"
    if {*names} <= {"density"}:
        return "no evidence of a bias, but the features of the images could not be tested"
    return "no evidence of a bias"


def remarks(record: Mapping[str, Any]) -> list[str]:
    """Return sentences about the bias labels of a choice, if it used any."""
    labels = record.get("labels")
    if not labels:
        return []
    if labels["rejection"] is not None:
        return [f"The {labels['labels']} bias labels were not used: {labels['rejection']}"]
    sentences = []
    if classes := labels["unlabelled_classes"]:
        sentences.append(
            f"Classes without labels, whose majority attribute is a guess: {', '.join(classes)}"
        )
    if attributes := labels["unbalanced"]:
        sentences.append(
            f"Attributes that no class has as majority, not balanced: {', '.join(attributes)}"
        )
    return sentences


def _describe(names):
    """Describe the bias that candidates show in a few words."""
    return f"a bias {' and '.join(_KINDS.get(name, f'in {name}') for name in names)}"


# --- files -------------------------------------------------------------------------------------


def write_json(path: str | os.PathLike, finding: Finding, data: datasets.Benchmark) -> None:
    """Write verdict, evidence, checks of files and commands as JSON, without values of samples."""
    content = {
        "data": data.name,
        "samples": len(finding.samples),
        "training_images": len(data.train.labels),
        **finding.choice.record(),
        "auc": finding.auc,
        "to_label": [_sample_name(data, i) for i in finding.to_label],
        "file_checks": [check._asdict() for check in finding.file_checks],
        "duplicates": finding.copies,
        "near_duplicates": finding.near_copies,
        "commands": finding.commands,
    }
    files.write_json(path, content)


def write_csv(path: str | os.PathLike, finding: Finding, data: datasets.Benchmark) -> None:
    """Write a line per analysed sample: file or index, class, and three columns per candidate.

    `NAME_score` is the bias-conflict score. `NAME_resembles` is the class that the sample
    resembles, or the classes of a block, separated by "; ". `NAME_weight` is the weight as a
    multiple of the uniform one.
    """
    labels = data.train.labels[finding.samples]
    names = data.class_names or tuple(map(str, range(data.num_classes)))
    counts = np.bincount(labels, minlength=data.num_classes)
    columns: dict[str, Sequence[Any]] = {
        "file" if data.train_files else "index": [_sample_name(data, i) for i in finding.samples],
        "class": [names[label] for label in labels],
    }
    for x in finding.choice.candidates:
        blocks, groups = np.asarray(x.blocks), np.asarray(x.groups)
        members = [
            "; ".join(names[k] for k in np.flatnonzero(blocks == b)) for b in range(len(names))
        ]
        columns[f"{x.name}_score"] = [f"{score:.6g}" for score in np.asarray(x.conflict_score)]
        columns[f"{x.name}_resembles"] = [members[group] for group in groups]
        multiples = np.asarray(x.weights) * counts[labels]
        columns[f"{x.name}_weight"] = [f"{multiple:.6g}" for multiple in multiples]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    with files.atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _sample_name(data, index):
    """Return the file of a training sample, or its index if it has none."""
    return data.train_files[index] if data.train_files else int(index)
