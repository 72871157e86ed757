"""Read labelled sets in many formats and bring them to the form that networks are trained on.

| format | where the labels are |
| --- | --- |
| a run, an exported set, or a synthetic.npz of jaxdd | in the file, verified by the manifest |
| .npz with `images` (or `x`) and `labels` (or `y`) | in the file, or images sorted by class |
| a folder of PNG files | see `jaxdd.data.folders`; its test images are ignored |
| .pt with a tensor, `[images, labels]`, a dict, or a list of these (DC, DSA, DM) | in the file |
| `images_*.pt` (MTT) | in `labels_*.pt` in the same folder, or images sorted by class |

Images may be `[m, h, w, c]`, `[m, c, h, w]` or by class, `[k, ipc, ...]`, as uint8, floats in
[0, 1] or normalised floats. PyTorch files are loaded with `weights_only`, so no code in them runs;
this requires PyTorch 2.6 or newer.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxdd.data import datasets, files, folders
from jaxdd.methods import formation, zca
from jaxdd.runs.folder import manifest, store

_MAX_NORMALISED = 16  # larger values are pixels in [0, 255], stored as floating numbers


class LabelledSet(NamedTuple):
    """A set that networks can be trained on; classes may differ in size.

    Images are float32 `[m, h, w, c]`, normalised by the mean and std of the benchmark, and labels
    int32 `[m]`. `storage` is a record of kind, pixels, layout and whitening. Networks see images
    through the whitening.
    """

    images: np.ndarray
    labels: np.ndarray
    storage: Mapping[str, str] = {}
    whitening: zca.Whitening | None = None


class _Raw(NamedTuple):
    """The content of a file; mean and std are those of a set of jaxdd."""

    kind: str
    images: Any
    labels: Any = None
    moments: tuple[np.ndarray, np.ndarray] | None = None
    whitening: zca.Whitening | None = None


def read(
    path: str | os.PathLike, benchmark: datasets.Benchmark, *, factor: int = 1, whiten: bool = False
) -> LabelledSet:
    """Read a set with the classes and the image shape of a benchmark.

    Args:
        path: A file or folder in one of the formats listed at the top of this module.
        benchmark: The data that the set replaces.
        factor: Each image holds factor² smaller ones (`jaxdd.methods.formation`).
        whiten: Fit a ZCA whitening on the training images, unless the set comes with one.

    Raises:
        ImportError: A .pt file without PyTorch.
        ValueError: The file holds no set, or one of other shapes or classes.
    """
    path = files.expand(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a run, a folder, .npz or .pt")
    raw = _read_raw(path)
    try:
        images, labels, layout = _flatten(np.asarray(raw.images), raw.labels, benchmark)
        images, pixels = _normalise(images, raw.moments, benchmark)
        if factor > 1:
            images = np.asarray(formation.split(jnp.asarray(images[:, None]), factor=factor))
            labels = labels.repeat(images.shape[1])
            images = images.reshape(-1, *images.shape[2:])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    storage = {"kind": raw.kind, "pixels": pixels, "layout": layout}
    fit = whiten and raw.whitening is None
    whitening = zca.fit(datasets.pool(benchmark)) if fit else raw.whitening
    if whitening is not None:
        storage["whitening"] = files.digest(*map(np.asarray, whitening))
    return LabelledSet(images, labels, storage, whitening)


# --- formats -----------------------------------------------------------------------------------


def _read_raw(path):
    if path.is_dir():
        if (path / manifest.NAME).exists() or (path / "synthetic.npz").exists():
            return _read_published(path)
        if (path / "config.json").exists():
            raise FileNotFoundError(f"{path} holds no finished run: there is no synthetic.npz")
        return _read_folder(path)
    suffix = path.suffix.lower()
    readers = {".npz": _read_npz, ".pt": _read_torch, ".pth": _read_torch}
    if suffix not in readers:
        raise ValueError(f"{path} must be a folder, .npz or .pt, got {suffix or 'no suffix'}")
    return readers[suffix](path)


def _read_published(folder):
    """Read the set of a run or an export."""
    if not os.path.lexists(folder / manifest.NAME):
        raw, whitening = _read_synthetic(folder / "synthetic.npz"), store.whitening_of(folder)
        return raw._replace(whitening=whitening)
    # The content that was verified is parsed, so that no file can change in between.
    contents, whitening = manifest.check(folder).contents, None
    if (content := contents.get(store.WHITENING)) is not None:
        whitening = store.read_whitening(store.WHITENING, content=content)
    if "synthetic.npz" not in contents:
        return _read_folder(folder)._replace(whitening=whitening)
    raw = _read_synthetic(folder / "synthetic.npz", content=contents["synthetic.npz"])
    return raw._replace(whitening=whitening)


def _read_synthetic(path, content=None):
    synthetic = store.read_synthetic(path, content=content)
    return _Raw("jaxdd", synthetic.images, synthetic.labels, (synthetic.mean, synthetic.std))


def _read_folder(path):
    folder = folders.read(path)
    training = slice(None) if folder.test is None else ~folder.test
    return _Raw("folder of images", folder.images[training], folder.labels[training])


def _read_npz(path):
    arrays = files.read_arrays(path)
    if {"images", "labels", "mean", "std", "provenance"} <= arrays.keys():
        return _read_synthetic(path)
    images, labels = _pick(arrays)
    if images is None:
        names = ", ".join(arrays) or "no arrays"
        raise ValueError(f"{path} must hold images and labels, got {names}")
    return _Raw("npz", images, labels)


def _pick(content):
    """Return images and labels of a mapping under one of their usual names, or None."""
    known = lambda names: next((content[name] for name in names if name in content), None)
    return known(("images", "x", "data")), known(("labels", "y", "targets"))


def _read_torch(path):
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(f"reading {path} requires PyTorch: pip install torch") from error
    labels_path = path.with_name(path.name.replace("images", "labels", 1))
    labels = None
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True)
            if labels_path != path and labels_path.exists():
                labels = torch.load(labels_path, map_location="cpu", weights_only=True)
        images, labels = _tensors(content, labels)
        if not isinstance(images, torch.Tensor):
            raise TypeError(f"images must be a tensor, got {type(images).__name__}")
        images, labels = (None if x is None else x.detach().numpy() for x in (images, labels))
    except Exception as error:  # torch.load raises nearly any exception for a damaged file
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} must hold images and labels as tensors only: {reason}") from error
    return _Raw("pt", images, labels)


def _numpy_scalars():
    """Return the types in pickles of NumPy numbers; DC stores accuracies in its files."""
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
            return tuple(content)
        return _tensors(content[0], labels)  # DC stores a list of experiments
    return content, labels


# --- shapes and values -------------------------------------------------------------------------


def _flatten(images, labels, benchmark):
    """Return images `[m, h, w, c]`, labels `[m]`, and the layout of the stored images."""
    k, (h, w, c) = benchmark.num_classes, benchmark.train.images.shape[1:]
    # Images by class, `[k, ipc, ...]`, carry their labels in the first axis.
    if images.ndim == 5:
        if labels is None:
            labels = np.arange(len(images)).repeat(images.shape[1])
        labels, images = np.reshape(labels, -1), images.reshape(-1, *images.shape[2:])
    layout = {(h, w, c): "nhwc", (c, h, w): "nchw"}.get(images.shape[1:])
    if layout is None or not len(images):
        shapes = f"[m, {h}, {w}, {c}] or [m, {c}, {h}, {w}]"
        raise ValueError(f"images of {benchmark.name} must have shape {shapes}, got {images.shape}")
    if labels is None:
        if len(images) % k:
            raise ValueError(
                "images without labels must be sorted by class, equally many for each of "
                f"{k} classes, got {len(images)}"
            )
        labels = np.arange(k).repeat(len(images) // k)
    images = images.transpose(0, 2, 3, 1) if layout == "nchw" else images
    labels = np.asarray(labels)
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        form = f"{labels.dtype} {labels.shape}"
        raise ValueError(f"labels must be {len(images)} integers, one per image, got {form}")
    if not 0 <= labels.min() <= labels.max() < k:
        raise ValueError(f"labels must lie in 0..{k - 1}, got {labels.min()}..{labels.max()}")
    return images, labels.astype(np.int32), layout


def _normalise(images, moments, benchmark):
    """Return images normalised by the moments of the benchmark, and how they were stored."""
    mean, std = (np.asarray(x, np.float32) for x in (benchmark.mean, benchmark.std))
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise ValueError(f"images must be uint8 or floating, got {images.dtype}")
    if not np.isfinite(images).all():
        raise ValueError("images must be finite, got NaN or infinite values")
    # Sets of jaxdd state their normalisation; that of other sets is inferred from their range.
    if moments is not None:
        if not np.array_equal(moments, (mean, std)):
            images = ((images * moments[1] + moments[0] - mean) / std).astype(np.float32)
        return images, "normalised"
    if images.dtype == np.uint8:
        return (images / np.float32(255) - mean) / std, "uint8"
    low, high = float(images.min()), float(images.max())
    if high > _MAX_NORMALISED:
        span = f"{low:.4g}..{high:.4g}"
        raise ValueError(f"floating images must lie in [0, 1] or be normalised, got {span}")
    if low >= 0 and high <= 1:
        return ((images - mean) / std).astype(np.float32), "in [0, 1]"
    return images.astype(np.float32), "normalised"
