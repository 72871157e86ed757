"""Disk: labelled sets of anybody, brought to the form that networks are trained on.

| what | where the labels are |
| --- | --- |
| a run, an exported set, or a synthetic.npz of jaxdd | in it, verified by its manifest |
| .npz with `images` (or `x`) and `labels` (or `y`) | in it, or class by class |
| a folder of PNG files | see `jaxdd.data.folders`, its test images left out |
| .pt with a tensor, `[images, labels]` or a dict; `data`, a list of such (DC, DSA, DM) | in it |
| `images_*.pt` (MTT) | in `labels_*.pt` beside it, or class by class |

Images may be `[m, h, w, c]` or `[m, c, h, w]`, or those of each class, `[k, ipc, …]`; uint8,
floating in [0, 1], or normalised. Files of PyTorch are read as tensors and numbers alone
(`weights_only`), so that no code in them runs; that needs PyTorch 2.6 or newer.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxdd.data import datasets, files, folders
from jaxdd.methods import formation, zca
from jaxdd.runs.folder import manifest, store, whitenings

_NAMES = {"images": ("images", "x", "data"), "labels": ("labels", "y", "targets")}


class Labelled(NamedTuple):
    """A set as networks see it.

    Attributes:
        images: float32 `[m, h, w, c]`, normalised by the moments of the data.
        labels: int32 `[m]`.
        about: how it was stored, in words by name: kind, pixels and layout.
        whitening: what networks see the images through, where the set came with one.
    """

    images: np.ndarray
    labels: np.ndarray
    about: dict[str, str]
    whitening: zca.Whitening | None = None


def read(path: str | os.PathLike, benchmark: datasets.Benchmark, *, factor: int = 1) -> Labelled:
    """Reads a set as one of the classes of a benchmark.

    Args:
        path: see the module.
        benchmark: the data that it stands for, whose moments and shape count.
        factor: each image holds factor² smaller ones (`jaxdd.methods.formation`).

    Raises:
        FileNotFoundError: there is nothing.
        ImportError: a .pt file without PyTorch.
        ValueError: what is there is no set, or one of other shapes or classes.
    """
    path = files.expand(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist, expected a run, a folder, .npz or .pt")
    found = _stored(path)
    try:
        images, labels, layout = _laid_out(np.asarray(found.images), found.labels, benchmark)
        images, scale = _normalised(images, found.moments, benchmark)
        if factor > 1:
            images = np.asarray(formation.split(jnp.asarray(images[:, None]), factor=factor))
            labels = labels.repeat(images.shape[1])
            images = images.reshape(-1, *images.shape[2:])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    about = {"kind": found.kind, "pixels": scale, "layout": layout}
    return _seen_through(Labelled(images, labels, about), found.whitening)


def whitened(found: Labelled, benchmark: datasets.Benchmark) -> Labelled:
    """Returns a set with a whitening, fitted on the training images of what it stands for.

    Raises:
        ValueError: images that are too large, as in `zca.fit`.
    """
    return _seen_through(found, zca.fit(datasets.pool(benchmark)))


def _seen_through(found, whitening):
    if whitening is None:
        return found
    digest = files.digest(*map(np.asarray, whitening))
    return found._replace(about=found.about | {"whitening": digest}, whitening=whitening)


class _Stored(NamedTuple):
    kind: str
    images: Any
    labels: Any = None
    moments: tuple[np.ndarray, np.ndarray] | None = None
    whitening: zca.Whitening | None = None


def _stored(path):
    suffix = path.suffix.lower()
    if path.is_dir():
        if (path / manifest.NAME).exists() or (path / "synthetic.npz").exists():
            return _published(path)
        if (path / "config.json").exists():
            raise FileNotFoundError(f"{path} holds no finished run: there is no synthetic.npz")
        return _folder(path)
    if suffix == ".npz":
        return _npz(path)
    if suffix in (".pt", ".pth"):
        return _torch(path)
    raise ValueError(f"{path} must be a folder, .npz or .pt, found {suffix or 'no ending'}")


def _published(folder):
    """A set whose manifest, if it has one, lists what is there: nothing is read unverified."""
    contents = {}
    if os.path.lexists(folder / manifest.NAME):
        contents = manifest.check(folder).contents
        if "synthetic.npz" not in contents:
            return _folder(folder)._replace(whitening=_whitening(folder, contents))
    found = _synthetic(folder / "synthetic.npz", content=contents.get("synthetic.npz"))
    return found._replace(whitening=_whitening(folder, contents))


def _whitening(folder, contents):
    """What goes with a folder's set; of what its manifest lists, if it has one."""
    if not contents:
        return whitenings.of(folder)
    content = contents.get(store.WHITENING)
    return None if content is None else whitenings.read(store.WHITENING, content=content)


def _synthetic(path, content=None):
    found = store.read_synthetic(path, content=content)
    return _Stored("jaxdd", found.images, found.labels, (found.mean, found.std))


def _folder(path):
    found = folders.read(path)
    kept = slice(None) if found.test is None else ~found.test
    return _Stored("folder of images", found.images[kept], found.labels[kept])


def _npz(path):
    stored = files.read_arrays(path)
    if {"images", "labels", "mean", "std", "provenance"} <= stored.keys():
        return _synthetic(path)
    named = {
        k: next((stored[n] for n in names if n in stored), None) for k, names in _NAMES.items()
    }
    if named["images"] is None:
        raise ValueError(f"{path} must hold images and labels, found {', '.join(stored) or 'none'}")
    return _Stored("npz", named["images"], named["labels"])


def _torch(path):
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(f"{path} needs PyTorch to be read: pip install torch") from error
    try:
        beside = path.with_name(path.name.replace("images", "labels", 1))
        labels = None
        with torch.serialization.safe_globals(_accuracies()):
            found = torch.load(path, map_location="cpu", weights_only=True)
            if beside != path and beside.exists():
                labels = torch.load(beside, map_location="cpu", weights_only=True)
        images, labels = _tensors(found, labels)
        if not isinstance(images, torch.Tensor):
            raise TypeError(f"found {type(images).__name__} for the images")
        images, labels = (None if x is None else x.detach().numpy() for x in (images, labels))
    except Exception as error:  # a file that is none raises nearly anything
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} must hold images and labels as tensors alone: {reason}"
        ) from error
    return _Stored("pt", images, labels)


def _accuracies():
    """What NumPy's numbers are made of, which DC saves beside its sets: no code among it."""
    scalar, (kind, _) = np.float64().__reduce__()
    names = (f"numpy.{core}.multiarray.scalar" for core in ("core", "_core"))  # NumPy 1 and 2
    return [*((scalar, name) for name in names), np.dtype, type(kind)]


def _tensors(found: Any, labels: Any) -> tuple[Any, Any]:
    """Images and labels of the forms in which the field writes them."""
    if isinstance(found, Mapping):
        if isinstance(found.get("data"), Sequence):
            return _tensors(found["data"], labels)
        named = (next((found[n] for n in names if n in found), None) for names in _NAMES.values())
        images, own = named
        return images, labels if own is None else own
    if isinstance(found, Sequence):  # of DC's experiments, the first
        return _tensors(found[0], labels) if len(found) != 2 or _is_pair(found[0]) else tuple(found)
    return found, labels


def _is_pair(found):
    return isinstance(found, Sequence) and len(found) == 2


def _laid_out(images, labels, benchmark):
    """Images `[m, h, w, c]`, labels `[m]`, and how the images were laid out."""
    k, (h, w, c) = benchmark.num_classes, benchmark.train.images.shape[1:]
    if images.ndim == 5:
        of_class = np.arange(len(images)).repeat(images.shape[1])
        labels = of_class if labels is None else np.reshape(labels, -1)
        images = images.reshape(-1, *images.shape[2:])
    layout = {(h, w, c): "nhwc", (c, h, w): "nchw"}.get(images.shape[1:])
    if layout is None or not len(images):
        raise ValueError(
            f"images must be [m, {h}, {w}, {c}] or [m, {c}, {h}, {w}], those of {benchmark.name}, "
            f"found {images.shape}"
        )
    if labels is None:
        if len(images) % k:
            raise ValueError(
                f"images without labels must be class by class, as many for each of {k} classes, "
                f"found {len(images)}"
            )
        labels = np.arange(k).repeat(len(images) // k)
    images = images.transpose(0, 2, 3, 1) if layout == "nchw" else images
    return images, _codes(np.asarray(labels), len(images), k), layout


def _codes(labels, m, k):
    if labels.shape != (m,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be {m} integers, one for each image, found {labels.dtype} {labels.shape}"
        )
    if not 0 <= labels.min() <= labels.max() < k:
        raise ValueError(f"labels must lie in 0..{k - 1}, found {labels.min()}..{labels.max()}")
    return labels.astype(np.int32)


def _normalised(images, moments, benchmark):
    """Images normalised by the moments of the benchmark, and what they were."""
    mean, std = (np.asarray(each, np.float32) for each in (benchmark.mean, benchmark.std))
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise ValueError(f"images must be uint8 or floating, found {images.dtype}")
    if not np.isfinite(images).all():
        raise ValueError("images must be finite, found NaN or infinite values")
    if moments is not None and np.array_equal(moments, (mean, std)):
        return images, "normalised"
    if moments is not None:
        return ((images * moments[1] + moments[0] - mean) / std).astype(np.float32), "normalised"
    if images.dtype == np.uint8:
        return (images / np.float32(255) - mean) / std, "uint8"
    low, high = float(images.min()), float(images.max())
    if high > 16:
        raise ValueError(
            f"floating images must lie in [0, 1] or be normalised, found {low:.4g}..{high:.4g}"
        )
    if 0 <= low and high <= 1:
        return ((images - mean) / std).astype(np.float32), "in [0, 1]"
    return images.astype(np.float32), "normalised"
