"""Sets of strangers in other forms, scored by `jaxdd evaluate`: as they mean, or refused.

The same thirty real images are stored in other units, layouts, orders and files. Whatever the form,
the mean image of each class must be read as it is.
"""

import functools
import importlib.util
import itertools
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from experiments.attacks import laboratory as lab
from jaxdd.data import datasets, folders
from jaxdd.runs.scoring import labelled_sets

IPC, CLASSES = 10, 3
TOLERANCE = 0.1
"""Maximum difference between mean images, in standard deviations of the pixels."""
UNKNOWABLE = {"inverted", "nwhc"}
"""Forms that no reader can recognise, so that every result is right."""

_IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)


def _overshoot(unit, moments):
    unit = unit.copy()
    unit.reshape(-1)[[unit.argmin(), unit.argmax()]] = -0.02, 1.02
    return unit


VALUES: dict[str, Callable[..., np.ndarray]] = {
    "uint8": lambda unit, moments: (unit * 255).round().astype(np.uint8),
    "integers": lambda unit, moments: (unit * 255).round().astype(np.int64),
    "0..255 as floats": lambda unit, moments: unit * 255,
    "unit": lambda unit, moments: unit,
    "unit float16": lambda unit, moments: unit.astype(np.float16),
    "unit float64": lambda unit, moments: unit.astype(np.float64),
    "unit, beyond by .02": _overshoot,
    "signed": lambda unit, moments: unit * 2 - 1,
    "half signed": lambda unit, moments: unit - 0.5,
    "normalised": lambda unit, moments: (unit - moments[0]) / moments[1],
    "imagenet": lambda unit, moments: (unit - _IMAGENET[0]) / _IMAGENET[1],
    "0..100": lambda unit, moments: unit * 100,
    "inverted": lambda unit, moments: 1 - unit,
}
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nhwc": lambda images: images,
    "nchw": lambda images: images.transpose(0, 3, 1, 2),
    "nwhc": lambda images: images.transpose(0, 2, 1, 3),
    "chwn": lambda images: images.transpose(3, 1, 2, 0),
    "flat": lambda images: images.reshape(len(images), -1),
    "by class": lambda images: images.reshape(CLASSES, -1, *images.shape[1:]),
}
LABELS: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
    "integers": lambda labels: labels,
    "uint8": lambda labels: labels.astype(np.uint8),
    "floats": lambda labels: labels.astype(np.float32),
    "from one": lambda labels: labels + 1,
    "one-hot": lambda labels: np.eye(CLASSES, dtype=np.float32)[labels],
    "column": lambda labels: labels[:, None],
    "names": lambda labels: np.array([f"c{i}" for i in labels]),
    "text": lambda labels: np.array([str(i) for i in labels]),
    "none": lambda labels: None,
}
NAMES: dict[str, tuple[str, ...]] = {
    "same": ("c0", "c1", "c2"), "capitals": ("C0", "C1", "C2"), "numbers": ("0", "1", "2"),
    "another order": ("z", "y", "x"), "one differs": ("c0", "c1", "b"),
    "padded": ("c00", "c01", "c02"), "one more": ("c0", "c1", "c2", "a"),
    "one less": ("c1", "c2"), "spaces": ("c0 ", " c1", "c2"), "full width": ("ｃ0", "c1", "c2"),
}  # fmt: skip


def attacks(laboratory: lab.Laboratory, round_: int) -> Iterator[lab.Attack]:
    """Yield the attacks of a round, which draws the images."""
    product, partial, order = itertools.product, functools.partial, ("sorted", "shuffled")
    forms = [
        *product(VALUES, ["nhwc"], ["integers", "none"], order),
        *product(["unit"], LAYOUTS, ["integers", "none"], ["sorted"]),
        *product(["uint8"], ["nhwc"], LABELS, order),
    ]
    has_torch = importlib.util.find_spec("torch") is not None
    for suffix, form in product(("npz", "pt") if has_torch else ("npz",), dict.fromkeys(forms)):
        title = f"{', '.join(form)}.{suffix}, round {round_}"
        yield lab.Attack(title, partial(_arrays, laboratory, round_, suffix, *form))
    for name in NAMES:
        title = f"folders of classes: {name}, round {round_}"
        yield lab.Attack(title, partial(_folder, laboratory, round_, NAMES[name]))


@functools.cache
def _data(folder: pathlib.Path, round_: int):
    """Return images in [0, 1] and labels of a set, sorted by class, and the data."""
    benchmark = datasets.from_folder(folders.read(folder))
    rng, labels = np.random.default_rng(round_), np.asarray(benchmark.train.labels)
    rows = [rng.choice(np.flatnonzero(labels == k), IPC, replace=False) for k in range(CLASSES)]
    images = benchmark.train.images[np.concatenate(rows)] / np.float32(255)
    return images, np.arange(CLASSES).repeat(IPC), benchmark


def _arrays(laboratory, round_, suffix, value, layout, label, order):
    images, labels, benchmark = _data(laboratory.images, round_)
    moments = tuple(np.asarray(x, np.float32) for x in (benchmark.mean, benchmark.std))
    if order == "shuffled":
        rows = np.random.default_rng(round_).permutation(len(labels))
        images, labels = images[rows], labels[rows]
    images, labels = LAYOUTS[layout](VALUES[value](images, moments)), LABELS[label](labels)
    path = laboratory.fresh().with_name(f"set.{suffix}")
    if suffix == "npz":
        np.savez(path, **{"images": images} | ({} if labels is None else {"labels": labels}))
    else:
        import torch  # pyright: ignore[reportMissingImports]

        tensors = [torch.from_numpy(images.copy())]
        if labels is not None and labels.dtype.kind != "U":
            tensors.append(torch.from_numpy(labels.copy()))
        torch.save(tensors if len(tensors) > 1 else tensors[0], path)
    return _score(laboratory, round_, path, is_knowable=not UNKNOWABLE & {value, layout})


def _folder(laboratory, round_, names):
    images, labels, _ = _data(laboratory.images, round_)
    folder = laboratory.fresh()
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        name = names[label] if label < len(names) else names[0]
        (folder / name).mkdir(parents=True, exist_ok=True)
        pixels = (image * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{i}.png")
    for name in names[CLASSES:]:
        (folder / name).mkdir()
        Image.new("RGB", (8, 8)).save(folder / name / "0.png")
    return _score(laboratory, round_, folder)


def _score(laboratory, round_, path, is_knowable=True):
    arguments = [
        "evaluate", path, "--dataset", laboratory.images, "--networks", "mlp", "--seeds", 1,
        "--epochs", 1, "--out", path.with_name("evaluation.json"),
    ]  # fmt: skip

    def wrong():
        images, labels, benchmark = _data(laboratory.images, round_)
        expected = _means((images - benchmark.mean) / benchmark.std, labels)
        read = labelled_sets.read(path, benchmark)
        difference = np.abs(_means(read.images, read.labels) - expected).max()
        is_right = difference < TOLERANCE or not is_knowable
        return "" if is_right else f"mean images differ by {difference:.2f}"

    return lab.verdict(lab.call(arguments), lab.line(arguments), wrong=wrong)


def _means(images, labels):
    return np.stack([images[labels == k].mean(0) for k in range(CLASSES)])
