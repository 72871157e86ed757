"""The files of a run folder.

    config.json      configuration, compared when the run is resumed
    timing.json      wall time by stage so far, and the date on which the run finished
    progress.jsonl   one record per line, appended during the distillation
    checkpoint/      newest states, see `jaxdd.runs.folder.checkpoint`
    weights.npz      sample weights, and choice.json how they were chosen
    whitening.npz    ZCA whitening through which networks see the set, if any
    synthetic.npz    the synthetic set, readable without pickle and without jaxdd
    result.json      scores, device, versions and configuration
    samples.npz      hashes of the training samples, see `jaxdd.runs.folder.samples`
    manifest.json    checksums of the products, see `jaxdd.runs.folder.manifest`

Files are written atomically: next to their destination, flushed to disk and renamed.
"""

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import filelock
import jax.numpy as jnp
import numpy as np

from jaxdd.data import files
from jaxdd.methods import zca
from jaxdd.runs import results

SYNTHETIC, WHITENING, RESULT = "synthetic.npz", "whitening.npz", "result.json"
"""Products of a run."""

# Temporary files of killed runs, except those of a report, a profile or an evaluation, which other
# commands may be writing.
_LITTER = re.compile(r"\.(?!evaluation\.|profile\.|report\.html).+\.[0-9a-f]{8}\.tmp")

# --- the run -----------------------------------------------------------------------------------


def create(
    folder: str | os.PathLike, config: dict[str, Any], *, resume: bool = False
) -> pathlib.Path:
    """Create the folder of a run with its config.json, or check the folder of a resumed run.

    The configuration is a (nested) dict of JSON values. With `resume` the folder may hold this run;
    otherwise it must be absent or empty.
    """
    if "\0" in os.fspath(folder):
        raise ValueError(f"the name of a run folder must not hold NUL, got {os.fspath(folder)!r}")
    folder, config = files.expand(folder), files.to_json(config)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, expected the folder of a run")
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "config.json").exists():
        _check_same_run(folder, config, resume)
        return folder
    # Ignore temporary files of a run that was killed while it wrote config.json.
    others = sorted(p.name for p in folder.iterdir() if not p.name.endswith(files.TEMPORARY))
    if others:
        raise FileExistsError(
            f"{folder} holds no run (no config.json) but other files ({', '.join(others[:3])}); "
            "choose another --out"
        )
    files.write_json(folder / "config.json", config)
    return folder


def _check_same_run(folder, config, resume):
    with files.hint("the run cannot be resumed without it; choose another --out"):
        stored = files.read_json(folder / "config.json")
        if not isinstance(stored, dict):
            raise ValueError(f"{folder / 'config.json'} must hold an object, got {stored!r}")
    differences = files.differences(stored, config)
    if not resume and differences:
        raise FileExistsError(f"{folder} holds another run ({differences}); choose another --out")
    if not resume:
        raise FileExistsError(
            f"{folder} holds this run already; add --resume to continue it, or choose another --out"
        )
    if differences:
        raise ValueError(f"cannot resume {folder} with another configuration: {differences}")


@contextlib.contextmanager
def lock(folder: str | os.PathLike) -> Iterator[None]:
    """Lock a run folder against other processes while a block works in it.

    The lock of a killed process is released.

    Raises:
        BlockingIOError: another process works in the folder.
    """
    try:
        acquired = filelock.FileLock(pathlib.Path(folder) / ".lock", timeout=0).acquire()
    except filelock.Timeout:
        raise BlockingIOError(
            f"another process works in {folder}; wait for it, or choose another --out"
        ) from None
    with acquired:
        yield


def sweep(folder: str | os.PathLike) -> None:
    """Delete temporary files that killed runs left in a locked folder and its subfolders."""
    for path in pathlib.Path(folder).rglob(f".*{files.TEMPORARY}"):
        if _LITTER.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def check_exists(folder: str | os.PathLike) -> None:
    """Raise FileNotFoundError if the folder of a run was deleted during the run."""
    if not (pathlib.Path(folder) / "config.json").exists():
        raise FileNotFoundError(f"{folder} was deleted during the run")


# --- timing, progress and result ---------------------------------------------------------------


def write_timing(
    folder: str | os.PathLike, seconds: Mapping[str, float], *, date: str | None = None
) -> None:
    """Write timing.json: wall time by stage, and the date of a finished run."""
    content = {"seconds": dict(seconds)} | ({} if date is None else {"date": date})
    files.write_json(pathlib.Path(folder) / "timing.json", content)


def append(folder: str | os.PathLike, record: dict[str, Any]) -> None:
    """Append a record to progress.jsonl; records of a distillation hold their "step"."""
    files.append_line(pathlib.Path(folder) / "progress.jsonl", record)


def progress(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """Return the records of progress.jsonl, oldest first; an unfinished last line is ignored."""
    return files.read_lines(pathlib.Path(folder) / "progress.jsonl")


def rewind(folder: str | os.PathLike, step: int) -> None:
    """Drop the records of progress.jsonl after a step, which the resumed run will write again."""
    with files.hint("delete it and resume"):
        records = progress(folder)
        if any(not isinstance(record.get("step", 0), int) for record in records):
            raise ValueError(f"{folder}/progress.jsonl: steps must be numbers")
    lines = [json.dumps(record) + "\n" for record in records if record.get("step", step) <= step]
    with files.atomic_path(pathlib.Path(folder) / "progress.jsonl") as temporary:
        temporary.write_text("".join(lines))


def read_result(folder: str | os.PathLike) -> results.Result:
    """Return the result of a finished run, with its date and wall times."""
    content = files.read_json(path := pathlib.Path(folder) / RESULT)
    with files.hint(f"{path} is damaged; resume the run"):
        return results.Result.from_dict(content, results.read_timing(folder))


# --- the synthetic set -------------------------------------------------------------------------


class Synthetic(NamedTuple):
    """A synthetic set of k classes with ipc images each, as it is published.

    Attributes:
        images: float32 [k, ipc, h, w, c], normalised pixels: (pixel - mean) / std, pixel in [0, 1].
        labels: int32 [k, ipc].
        mean: float32 [c], what was subtracted from each channel.
        std: float32 [c], what each channel was divided by.
        provenance: where the set comes from, a dict of JSON values.
    """

    images: np.ndarray
    labels: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    provenance: dict[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, or their numbers if they have no names."""
        count = len(self.images)
        names = self.provenance.get("class_names") or ()
        is_complete = isinstance(names, (list, tuple)) and len(names) == count
        return tuple(str(name) for name in (names if is_complete else range(count)))


def write_synthetic(path: str | os.PathLike, synthetic: Synthetic) -> None:
    """Write a synthetic set as an .npz file without pickle, or as a .safetensors file.

    The provenance is stored as one JSON string. Equal sets give equal bytes.
    """
    images, labels = np.asarray(synthetic.images), np.asarray(synthetic.labels)
    mean, std = (np.asarray(value, np.float32) for value in (synthetic.mean, synthetic.std))
    arrays = checked(images, labels, mean, std)
    provenance = json.dumps(files.to_json(synthetic.provenance))
    if _is_safetensors(path):
        files.write_tensors(path, arrays, {"provenance": provenance})
    else:
        files.write_arrays(path, {**arrays, "provenance": np.array(provenance)})


def read_synthetic(path: str | os.PathLike, *, content: bytes | None = None) -> Synthetic:
    """Read a synthetic set from a file, or from the content of a file that was read before."""
    names = Synthetic._fields
    try:
        if _is_safetensors(path):
            arrays, metadata = files.read_tensors(path, content=content)
            stored = {**arrays, "provenance": np.array(metadata["provenance"])}
            if surplus := stored.keys() - {*names}:
                raise ValueError(f"expected {', '.join(names)} only, got {min(surplus)}")
        else:
            stored = files.read_arrays(path, names=names, no_others=True, content=content)
        # Files of machines with another byte order are also valid.
        native = lambda array: np.asarray(array, array.dtype.newbyteorder("="))
        arrays = checked(*(native(stored[name]) for name in names[:4]))
        provenance = json.loads(str(stored["provenance"].item()))
        if not isinstance(provenance, dict):
            raise ValueError(f"provenance must be an object, got {provenance!r}")
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a readable synthetic set: {error}") from error
    return Synthetic(**arrays, provenance=provenance)


def _is_safetensors(path):
    return pathlib.Path(path).suffix.lower() == ".safetensors"


def checked(
    images: np.ndarray, labels: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the arrays of a `Synthetic` by name; ValueError if they do not fit together."""
    if images.ndim != 5 or not images.size:
        raise ValueError(f"images must have shape [k, ipc, h, w, c], got {images.shape}")
    expected = {
        "images": (images, np.float32, images.shape),
        "labels": (labels, np.int32, images.shape[:2]),
        "mean": (mean, np.float32, images.shape[-1:]),
        "std": (std, np.float32, images.shape[-1:]),
    }
    for name, (array, dtype, shape) in expected.items():
        if array.shape != shape or array.dtype != dtype:
            form = f"{np.dtype(dtype).name} {shape}"
            raise ValueError(f"{name} must be {form}, got {array.dtype.name} {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite, got NaN or infinite values")
    k = len(images)
    if not 0 <= labels.min() <= labels.max() < k:
        raise ValueError(f"labels must lie in 0..{k - 1}, got {labels.min()}..{labels.max()}")
    if (std <= 0).any():
        raise ValueError(f"std must be positive, got {std}")
    return {name: array for name, (array, _, _) in expected.items()}


# --- whitening ---------------------------------------------------------------------------------


def write_whitening(path: str | os.PathLike, whitening: zca.Whitening) -> None:
    """Write the whitening through which networks see a set."""
    files.write_arrays(path, {name: np.asarray(x) for name, x in whitening._asdict().items()})


def read_whitening(path: str | os.PathLike, *, content: bytes | None = None) -> zca.Whitening:
    """Read the whitening of a set from a file, or from the content of a file."""
    arrays = files.read_arrays(path, content=content)
    size = arrays["mean"].size if "mean" in arrays else 0
    for name, ndim, values in (("mean", 3, size), ("matrix", 2, size**2)):
        array = arrays.get(name, np.empty(0))
        if (array.ndim, array.size) != (ndim, values) or not values:
            raise ValueError(f"{path} does not hold a whitening: got {name} of shape {array.shape}")
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise ValueError(f"{path}: {name} must be finite float32, got {array.dtype}")
    low, high = arrays["mean"].min(), arrays["mean"].max()
    if not -1e-3 <= low <= high <= 1 + 1e-3:
        raise ValueError(
            f"{path}: mean must be of images with pixels in [0, 1], got {low:.3g}..{high:.3g}"
        )
    return zca.Whitening(*(jnp.asarray(arrays[name]) for name in zca.Whitening._fields))


def whitening_of(folder: str | os.PathLike) -> zca.Whitening | None:
    """Return the whitening of a run, None if it has none."""
    path = pathlib.Path(folder) / WHITENING
    return read_whitening(path) if path.exists() else None
