"""Read labelled sets in many formats and bring them to the form that networks are trained on.

| format | where the labels are |
| --- | --- |
| a run, an exported set, or a file of either | in the file, verified by the manifest |
| .npz or .safetensors with `images` (or `x`, `data`), `labels` (or `y`, `targets`) | in the file |
| a folder of images | see `jaxdd.data.folders`; its test images are ignored |
| .pt with a tensor, `[images, labels]`, a dict, or a list of these (DC, DSA, DM) | in the file |
| `images_*.pt` (MTT) | in `labels_*.pt` in the same folder |

Images may be `[m, h, w, c]`, `[m, c, h, w]`, `[m, h, w]` if the data have one channel, or by class,
`[k, ipc, ...]`, which needs no labels. Next to the images, a .npz or the dict in a .pt may hold the
`mean` and `std` by which they are normalised, and `classes`, the names of labels 0, 1, ….
PyTorch files are loaded with `weights_only`, so no code in them runs; this requires PyTorch 2.6 or
newer.
"""

import contextlib
import csv
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxdd import _checks
from jaxdd.data import datasets, duplicates, files, folders
from jaxdd.methods import formation, zca
from jaxdd.runs import class_names
from jaxdd.runs.folder import manifest, samples, store
from jaxdd.runs.scoring import pixel_conventions
from jaxdd.runs.trust import publication, shipped

_MAX_LEAK = 0.01  # share of test images that may be training samples; data have duplicates


class StoredSet(NamedTuple):
    """The content of a file or folder.

    Attributes:
        path: what was read; the folder, for a file that the manifest of its folder lists.
        kind: "jaxdd", "folder of images", "npz", "safetensors" or "pt".
        images: integers or floating numbers, in one of the layouts at the top of this module.
        labels: integers or class names, or None.
        moments: mean and std by which images are normalised, or None.
        classes: names of labels 0, 1, …; empty if they have none.
        config: configuration of the run that made the set, {} if unknown. It may be forged.
        whitening: through which networks see the set, or None.
        samples: hashes of its training samples, or None.
        remarks: what was read, for the user.
        is_run: whether it is the folder of a run.
        is_8bit: whether `images` were read from files with 8 bits per value.
    """

    path: pathlib.Path
    kind: str
    images: np.ndarray
    labels: np.ndarray | None = None
    moments: tuple[np.ndarray, np.ndarray] | None = None
    classes: tuple[str, ...] = ()
    config: Mapping[str, Any] = {}
    whitening: zca.Whitening | None = None
    samples: np.ndarray | None = None
    remarks: tuple[str, ...] = ()
    is_run: bool = False
    is_8bit: bool = False


class LabelledSet(NamedTuple):
    """A set that networks can be trained on; classes may differ in size.

    Attributes:
        images: float32 `[m, h, w, c]`, normalised by the mean and std of the data.
        labels: int32 `[m]`, positions of the classes of the data.
        storage: kind, pixels, layout and whitening of the stored set.
        whitening: through which networks see the images, or None.
        num_bytes: bytes of the stored images. Defaults to those of `images`.
        remarks: what was assumed, and what the user should know.
    """

    images: np.ndarray
    labels: np.ndarray
    storage: Mapping[str, str] = {}
    whitening: zca.Whitening | None = None
    num_bytes: int | None = None
    remarks: tuple[str, ...] = ()


def read(path: str | os.PathLike, benchmark: datasets.Benchmark, **options: Any) -> LabelledSet:
    """Read a set for a benchmark: `load`, then `adapt` with the options."""
    return adapt(load(path), benchmark, **options)


def adapt(
    stored: StoredSet,
    benchmark: datasets.Benchmark,
    *,
    pixels: str | None = None,
    labels: str | os.PathLike | None = None,
    factor: int | None = None,
    whiten: bool = False,
) -> LabelledSet:
    """Bring a set to the classes, the image shape and the normalisation of a benchmark.

    Args:
        stored: From `load`.
        benchmark: The data that the set replaces.
        pixels: How pixels are stored, one of `pixel_conventions.CONVENTIONS`. Defaults to a guess.
        labels: For a set without labels, a file with a number or name of a class for each image
            (.npy, .npz, .pt, or text with one per line), or "sorted" for images sorted by class,
            equally many of each.
        factor: Each image holds factor² smaller ones. Defaults to what the set states, or 1.
        whiten: Fit a ZCA whitening on the training images, unless the set comes with one.

    Raises:
        ValueError: Other shapes, classes or pixels than those of the benchmark, no labels, or test
            images that the set was made from.
    """
    try:
        images, layout = _flatten(stored.images, benchmark)
        classes, remarks = _labels(stored, len(images), benchmark, labels)
        remarks = (*stored.remarks, *remarks, *_check_samples(stored, benchmark))
        images, convention = _normalise(stored, images, benchmark, pixels)
        stated = publication.formation_of(stored.config)
        factor = stated if factor is None else _checks.count("formation", factor)
        if stored.config and factor != stated:
            raise ValueError(f"the set has formation {stated}, got {factor}")
        if factor > 1:
            images = np.asarray(formation.split(jnp.asarray(images[:, None]), factor=factor))
            classes = classes.repeat(images.shape[1])
            images = images.reshape(-1, *images.shape[2:])
        whitening = _whitening(stored, benchmark, whiten)
    except ValueError as error:
        raise ValueError(f"{stored.path}: {error}") from error
    storage = {"kind": stored.kind, "pixels": convention, "layout": layout}
    if whitening is not None:
        storage["whitening"] = files.digest(*map(np.asarray, whitening))
    remarks += _duplicates(images, benchmark)
    if stored.moments is None and pixels is None and stored.images.dtype.kind == "f":
        remarks += (f"pixels are taken as {convention}; pass --pixels if they are not",)
    num_bytes = stored.images.size if stored.is_8bit else stored.images.nbytes
    return LabelledSet(images, classes, storage, whitening, num_bytes, remarks)


# --- formats -----------------------------------------------------------------------------------


def load(path: str | os.PathLike, *, layout: str = "auto") -> StoredSet:
    """Read a set in one of the formats listed at the top of this module.

    Args:
        path: A file or folder, or the name of a set that comes with jaxdd.
        layout: What the folders inside a folder of images are, see `folders.read`.

    Raises:
        FileNotFoundError: There is no such file, or an unfinished run.
        ImportError: A .pt file without PyTorch.
        ValueError: The file holds no set, or does not agree with its manifest.
    """
    path = shipped.resolve(path)
    if not path.exists():
        known = "a run, a folder, .npz, .safetensors or .pt"
        raise FileNotFoundError(f"{path} does not exist; expected {known}")
    if not path.is_dir() and (path.parent / manifest.NAME).exists():
        if path.name in manifest.read(path.parent).get("files", {}):
            path = path.parent
    if path.is_dir():
        if (path / manifest.NAME).exists() or (path / store.SYNTHETIC).exists():
            return _load_published(path)
        if (path / "config.json").exists():
            raise FileNotFoundError(f"{path} holds no finished run: there is no {store.SYNTHETIC}")
        return _load_folder(path, layout)
    suffix = path.suffix.lower()
    readers = {
        ".npz": _load_arrays, ".safetensors": _load_arrays, ".pt": _load_torch, ".pth": _load_torch
    }  # fmt: skip
    if suffix not in readers:
        known = ".npz, .safetensors or .pt"
        raise ValueError(f"{path} must be a folder, {known}, got {suffix or 'no suffix'}")
    return readers[suffix](path)


def _load_published(path):
    """Read the set of a run or an export, or a single file of either."""
    published = publication.read(path)
    synthetic, contents = published.synthetic, published.contents
    whitening, hashes = (contents.get(name) for name in (store.WHITENING, samples.NAME))
    if whitening is not None:
        whitening = store.read_whitening(store.WHITENING, content=whitening)
    elif published.manifest is None and path.is_dir():
        whitening = store.whitening_of(path)
    names = synthetic.classes if synthetic.provenance.get("class_names") else ()
    kind = (published.manifest or {"kind": "run"})["kind"]
    return StoredSet(
        path, "jaxdd", synthetic.images, synthetic.labels, (synthetic.mean, synthetic.std), names,
        published.config, whitening, None if hashes is None else samples.read(hashes),
        is_run=path.is_dir() and kind == "run", is_8bit=kind == "png",
    )  # fmt: skip


def _load_folder(path, layout):
    folder = folders.read(path, layout=layout)
    training = slice(None) if folder.test is None else ~folder.test
    images, labels = folder.images[training], folder.labels[training]
    about: dict[str, Any] = {"classes": folder.class_names, "remarks": folder.notes}
    return StoredSet(path, "folder of images", images, labels, **about)


def _load_arrays(path):
    kind = path.suffix.lower()[1:]
    arrays, metadata = (files.read_arrays(path), {}) if kind == "npz" else files.read_tensors(path)
    if {*store.Synthetic._fields} <= arrays.keys() | metadata.keys():
        return _load_published(path)
    images, labels = _pick(arrays)
    if images is None:
        names = ", ".join(arrays) or "no arrays"
        raise ValueError(f"{path} must hold images and labels, got {names}")
    return StoredSet(path, kind, images, labels, **_statements(path, arrays))


def _pick(content):
    """Return images and labels of a mapping under one of their usual names, or None."""
    known = lambda names: next((content[name] for name in names if name in content), None)
    return known(("images", "x", "data")), known(("labels", "y", "targets"))


def _statements(path, content):
    """Return moments, classes and configuration that are stored next to images."""
    stated: dict[str, Any] = {}
    if {"mean", "std"} <= content.keys():
        mean, std = (np.asarray(content[name], np.float32).reshape(-1) for name in ("mean", "std"))
        if not ((mean >= 0) & (mean <= 1)).all() or not ((std > 0) & (std <= 1)).all():
            raise ValueError(f"{path}: mean and std must be on the scale [0, 1], got {mean}, {std}")
        stated["moments"] = mean, std
    keys = ("classes", "class_names", "class_to_idx")
    if (names := next((content[key] for key in keys if key in content), None)) is not None:
        names = sorted(names, key=names.__getitem__) if isinstance(names, Mapping) else names
        stated["classes"] = tuple(np.asarray(names).astype(str).reshape(-1).tolist())
    with contextlib.suppress(TypeError, ValueError):  # other projects store other things
        config = json.loads(content.get("config"))
        if isinstance(config, dict) and {"dataset", "data"} <= config.keys():
            stated["config"] = config  # of `publication.export`
    return stated


def _load_torch(path):
    labels_path = path.with_name(path.name.replace("images", "labels", 1))
    content, labels = _torch_content(path), None
    if labels_path != path and labels_path.exists():
        labels = _torch_content(labels_path)
    stated = _statements(path, content) if isinstance(content, Mapping) else {}
    try:
        images, labels = _tensors(content, labels)
        if not isinstance(images, np.ndarray):
            raise TypeError(f"images must be a tensor, got {type(images).__name__}")
        labels = None if labels is None else np.asarray(labels)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} must hold images and labels as tensors: {error}") from error
    sets = content.get("data") if isinstance(content, Mapping) else content
    if isinstance(sets, list) and len(sets) > 1 and isinstance(sets[0], list):
        stated["remarks"] = (f"the file holds {len(sets)} sets, of which the first is read",)
    return StoredSet(path, "pt", images, labels, **stated)


def _torch_content(path):
    """Return the content of a .pt file with arrays in place of tensors."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(f"reading {path} requires PyTorch: pip install torch") from error

    def to_arrays(x):
        if isinstance(x, torch.Tensor):
            x = x.detach()
            return (x.float() if x.dtype == torch.bfloat16 else x).numpy()
        if isinstance(x, Mapping):
            return {name: to_arrays(value) for name, value in x.items()}
        return [to_arrays(value) for value in x] if isinstance(x, (list, tuple)) else x

    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            return to_arrays(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch.load raises nearly any exception for a damaged file
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} must hold images and labels as tensors only: {reason}") from error


def _numpy_scalars():
    """Return what pickles of NumPy numbers refer to; DC stores accuracies in its files."""
    scalar, (dtype, _) = np.float64().__reduce__()
    names = (f"numpy.{core}.multiarray.scalar" for core in ("core", "_core"))  # NumPy 1 and 2
    return [*((scalar, name) for name in names), np.dtype, type(dtype)]


def _tensors(content: Any, labels: Any) -> tuple[Any, Any]:
    """Return images and labels of the forms that published code writes."""
    if isinstance(content, Mapping):
        if isinstance(content.get("data"), Sequence):
            return _tensors(content["data"], labels)
        images, own_labels = _pick(content)
        return images, labels if own_labels is None else own_labels
    if isinstance(content, Sequence):
        is_pair = lambda x: isinstance(x, Sequence) and len(x) == 2
        if is_pair(content) and not is_pair(content[0]):
            return content[0], content[1]
        return _tensors(content[0], labels)  # DC stores a list of experiments
    return content, labels


# --- classes -----------------------------------------------------------------------------------


def _labels(stored, count, benchmark, source):
    """Return labels `[count]`, positions of the classes of a benchmark, and remarks."""
    k, names, known = benchmark.num_classes, stored.classes, benchmark.class_names
    labels = stored.labels
    if source is not None and labels is not None:
        raise ValueError(f"the set has labels; leave out --labels, got {source}")
    if labels is None and stored.images.ndim == 5:  # by class: the first axis is the label
        labels = np.arange(len(stored.images)).repeat(stored.images.shape[1])
    elif labels is None:
        labels = _other_labels(source, count, k)
    labels = np.asarray(labels)
    labels = labels.reshape(-1) if stored.images.ndim == 5 else labels
    if labels.dtype.kind in "US":
        names, labels = np.unique(labels.astype(str), return_inverse=True)
        names = tuple(names.tolist())
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        form = f"{labels.dtype} {labels.shape}"
        raise ValueError(f"labels must be {count} integers, one per image, got {form}")
    _check_range(labels, len(names) or k)
    remarks = ()
    if names:
        positions = class_names.positions(names, known, of=benchmark.name)
        labels = positions[labels]
        _check_range(labels, k)
        is_numbered = all(name.isdecimal() for name in names)
        if is_numbered == bool(known) and {*names} != {*known}:  # not matched by name
            targets = [known[p] if known else f"class {p}" for p in positions[:5]]
            pairs = (f"{a!r} is {b!r}" for a, b in zip(names, targets, strict=False))
            remarks = (f"classes are matched by their numbers: {', '.join(pairs)}",)
    if len(absent := np.setdiff1d(np.arange(k), labels)):
        names = [known[label] if known else str(label) for label in absent[:5]]
        raise ValueError(
            f"the set has no images of {len(absent)} of {k} classes: {', '.join(names)}"
        )
    return labels.astype(np.int32), remarks


def _check_range(labels, k):
    if not 0 <= labels.min() <= labels.max() < k:
        raise ValueError(
            f"labels must lie in 0..{k - 1}, as classes count from 0, "
            f"got {labels.min()}..{labels.max()}"
        )


def _other_labels(source, count, k):
    """Return labels that are not stored with the images."""
    if source is None:
        raise ValueError(
            "the set has no labels; pass --labels FILE, or --labels sorted if its images are "
            f"sorted by class, equally many for each of {k} classes"
        )
    if str(source) != "sorted":
        return _read_labels(files.expand(source))
    if count % k:
        raise ValueError(f"sorted images must be equally many for each of {k} classes, got {count}")
    return np.arange(k).repeat(count // k)


def _read_labels(path):
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return files.read_array(path)
    if suffix == ".npz":
        arrays = files.read_arrays(path)
        labels = next(iter(arrays.values())) if len(arrays) == 1 else _pick(arrays)[1]
        if labels is None:
            raise ValueError(f"{path} must hold labels, got {', '.join(arrays) or 'no arrays'}")
        return labels
    if suffix in (".pt", ".pth"):
        return np.asarray(_torch_content(path))
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if any(len(row) != 1 for row in rows):
        raise ValueError(f"{path} must hold one label per line, got {len(rows[0])} columns")
    values = [row[0].strip() for row in rows]
    values = values[1:] if values and values[0].lower() in ("label", "labels", "class") else values
    is_number = all(value.lstrip("-").isdecimal() for value in values)
    return np.array([int(x) for x in values]) if is_number else np.array(values, str)


# --- data --------------------------------------------------------------------------------------


def _check_samples(stored, benchmark):
    """Raise ValueError if a set is about to be scored on images that it was made from."""
    config, test, digest = stored.config, benchmark.test.images, datasets.digest(benchmark)
    made_from = config.get("data")
    if made_from == digest or (made_from is None and stored.samples is None):
        return ()
    origin = (
        f"the set was made from other data ({config.get('dataset')}) than {benchmark.name}: digest "
        f"{made_from} there, got {digest}"
    )
    if made_from is None:
        origin = "the set was merged from sets of other data"
    if stored.samples is None:
        raise ValueError(f"{origin}; test images may be training samples of the set")
    leaked = int(samples.contained(test, stored.samples).sum())
    if leaked > _MAX_LEAK * len(test):
        raise ValueError(
            f"{leaked} of {len(test)} test images of {benchmark.name} are training samples of the "
            f"set; use the data, the options of data and the seed ({config.get('seed')}) that it "
            "was made with"
        )
    return (f"{origin}; {leaked} of {len(test)} test images are training samples of the set",)


def _duplicates(images, benchmark):
    """Return a remark if images of a set, rounded to 8 bits, are test images."""
    unit = images * np.float32(benchmark.std) + np.float32(benchmark.mean)
    rounded = np.rint(255 * np.clip(unit, 0, 1)).astype(np.uint8)
    test = duplicates.digests(benchmark.test.images)
    count = int(np.isin(duplicates.digests(rounded), test).sum())
    of = f"{len(images)} images of the set are test images of {benchmark.name}"
    return (f"{count} of {of}, which inflates its scores",) if count else ()


def _flatten(images, benchmark):
    """Return images `[m, h, w, c]` and the layout of the stored images."""
    h, w, c = benchmark.train.images.shape[1:]
    shape = images.shape
    images = images.reshape(-1, *shape[2:]) if images.ndim == 5 else images
    images = images[..., None] if c == 1 and images.ndim == 3 else images
    layout = {(h, w, c): "nhwc", (c, h, w): "nchw"}.get(images.shape[1:])
    if layout is None or not len(images):
        shapes = f"[m, {h}, {w}, {c}] or [m, {c}, {h}, {w}]"
        raise ValueError(f"images of {benchmark.name} must have shape {shapes}, got {shape}")
    return images if layout == "nhwc" else images.transpose(0, 2, 3, 1), layout


def _normalise(stored, images, benchmark, convention):
    moments = stored.moments
    is_own = stored.kind == "jaxdd" or bool(stored.config)
    if is_own and convention is not None:
        raise ValueError(f"the set states its pixels; leave out --pixels {convention}")
    if moments is not None and not is_own:
        if convention is None and images.dtype.kind == "f" and images.min() >= 0:
            raise ValueError(
                f"the set states that its images are normalised, but none of their values is below "
                f"0, got {images.min():.4g}..{images.max():.4g}; pass --pixels"
            )
        moments = moments if convention is None else None
    return pixel_conventions.normalise(images, benchmark, convention=convention, moments=moments)


def _whitening(stored, benchmark, whiten):
    """Return the whitening of a set, or one of the training images."""
    needed = "none" if stored.whitening is not None else stored.config.get("zca", "none")
    if needed != "none" and not (whiten and needed == "uniform"):
        option = " or pass --whiten" if needed == "uniform" else ""
        raise ValueError(f"networks see the set whitened ({needed}); read its folder{option}")
    if stored.whitening is None and whiten:
        return zca.fit(datasets.pool(benchmark))
    return stored.whitening
