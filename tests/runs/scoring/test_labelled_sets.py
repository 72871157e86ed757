"""Tests of reading labelled sets: every format gives the same images; others are rejected."""

import jax
import numpy as np
import pytest
from PIL import Image

from jaxdd.data import datasets
from jaxdd.methods import zca
from jaxdd.runs.folder import store
from jaxdd.runs.scoring import labelled_sets

K, IPC, SIZE = 2, 3, (4, 6, 3)
PIXELS = np.random.default_rng(0).integers(0, 256, (K * IPC, *SIZE), dtype=np.uint8)
LABELS = np.arange(K).repeat(IPC)
DATA = datasets.from_arrays(
    np.random.default_rng(1).integers(0, 256, (20, *SIZE), dtype=np.uint8), np.arange(20) % K
)
MEAN, STD = np.float32(DATA.mean), np.float32(DATA.std)
NORMAL = (PIXELS / np.float32(255) - MEAN) / STD
CHANNELS_FIRST = NORMAL.transpose(0, 3, 1, 2)


def ours(path):
    """Return a set that is normalised by other moments than those of the data."""
    mean, std = np.float32((0.5, 0.4, 0.3)), np.float32((0.2, 0.3, 0.4))
    images = ((PIXELS / np.float32(255) - mean) / std).reshape(K, IPC, *SIZE)
    labels = LABELS.reshape(K, IPC).astype(np.int32)
    store.write_synthetic(path / "set.npz", store.Synthetic(images, labels, mean, std, {}))
    return path / "set.npz"


def npz(**arrays):
    def write(path):
        np.savez(path / "set.npz", **arrays)
        return path / "set.npz"

    return write


def png(path):
    for i, (image, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        (path / "set" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / "set" / str(label) / f"{i}.png")
    return path / "set"


def pt(content, name="set.pt"):
    """Return a function that saves one PyTorch file, or several by name."""

    def write(path):
        torch = pytest.importorskip("torch", reason="PyTorch is not installed")
        to_tensor = lambda x: torch.tensor(x) if isinstance(x, np.ndarray) else x
        for file, value in content.items() if name is None else [(name, content)]:
            torch.save(jax.tree.map(to_tensor, value), path / file)
        return path / (name or "images_best.pt")

    return write


FORMS = {
    "jaxdd": (ours, "normalised"),
    "uint8": (npz(images=PIXELS, labels=LABELS), "uint8"),
    "x and y, channels first": (npz(x=PIXELS.transpose(0, 3, 1, 2), y=LABELS), "uint8"),
    "pixels in [0, 1]": (npz(images=PIXELS / 255, labels=LABELS), "in [0, 1]"),
    "normalised, class by class": (npz(images=NORMAL.reshape(K, IPC, *SIZE)), "normalised"),
    "png": (png, "uint8"),
    "DC": (
        pt({"data": [[CHANNELS_FIRST, LABELS]], "accs_all_exps": {"ConvNet": [np.float64(0.5)]}}),
        "normalised",
    ),
    "pair": (pt([CHANNELS_FIRST, LABELS]), "normalised"),
    "MTT": (pt({"images_best.pt": CHANNELS_FIRST, "labels_best.pt": LABELS}, None), "normalised"),
    "MTT without labels": (pt(CHANNELS_FIRST), "normalised"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_same_images(form, tmp_path):
    write, pixels = FORMS[form]
    labelled = labelled_sets.read(write(tmp_path), DATA)
    np.testing.assert_allclose(labelled.images, NORMAL, atol=2e-6)
    np.testing.assert_array_equal(labelled.labels, LABELS)
    assert labelled.images.dtype == np.float32 and labelled.labels.dtype == np.int32
    assert labelled.storage["pixels"] == pixels
    first = form in ("x and y, channels first", "DC", "pair", "MTT", "MTT without labels")
    assert labelled.storage["layout"] == ("nchw" if first else "nhwc")


def test_a_whitening_can_be_fitted_on_the_data(tmp_path):
    path = ours(tmp_path)
    with pytest.warns(UserWarning, match="72"):
        whitened = labelled_sets.read(path, DATA, whiten=True)
        expected = zca.fit(datasets.pool(DATA))
    np.testing.assert_array_equal(whitened.whitening.matrix, expected.matrix)
    plain = labelled_sets.read(path, DATA)
    assert plain.whitening is None and whitened.storage.keys() == {*plain.storage, "whitening"}
    np.testing.assert_array_equal(plain.images, whitened.images)


def test_images_that_hold_smaller_images_are_split(tmp_path):
    data = DATA._replace(train=DATA.train._replace(images=DATA.train.images[:, :4, :4]))
    path = npz(images=PIXELS[:, :4, :4], labels=LABELS)(tmp_path)
    labelled = labelled_sets.read(path, data, factor=2)
    assert labelled.images.shape == (4 * K * IPC, 4, 4, 3)
    np.testing.assert_array_equal(labelled.labels, LABELS.repeat(4))


BAD = {
    "other shape": (npz(images=PIXELS[:, :3], labels=LABELS), r"\(6, 3, 6, 3\)"),
    "no images": (npz(y=LABELS), "got y"),
    "float labels": (npz(images=PIXELS, labels=LABELS / 1), "float64"),
    "labels too few": (npz(images=PIXELS, labels=LABELS[:2]), r"\(2,\)"),
    "another class": (npz(images=PIXELS, labels=LABELS + 1), "got 1..2"),
    "no labels, uneven": (npz(images=PIXELS[:5]), "2 classes, got 5"),
    "nan": (npz(images=NORMAL * np.nan, labels=LABELS), "NaN"),
    "0..255 as floats": (npz(images=PIXELS / 1.0, labels=LABELS), r"[0-9]\.\.2[0-9][0-9]"),
    "int64": (npz(images=PIXELS.astype(int), labels=LABELS), "got int64"),
    "a pickle": (pt({"data": DATA}), "set.pt"),
    "no tensor": (pt({"accs": 3}), "got NoneType"),
    "an empty list": (pt([]), "set.pt"),
}


@pytest.mark.parametrize("case", BAD)
def test_other_content_is_rejected(case, tmp_path):
    write, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        labelled_sets.read(write(tmp_path), DATA)


def test_code_in_a_pickle_is_not_run(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    class Harm:
        def __reduce__(self):
            return (tmp_path / "harm").touch, ()

    torch.save(Harm(), tmp_path / "set.pt")
    with pytest.raises(ValueError, match="set.pt"):
        labelled_sets.read(tmp_path / "set.pt", DATA)
    assert not (tmp_path / "harm").exists()


def test_missing_files_and_other_formats_are_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent does not exist"):
        labelled_sets.read(tmp_path / "absent", DATA)
    (tmp_path / "set.txt").touch()
    with pytest.raises(ValueError, match="got .txt"):
        labelled_sets.read(tmp_path / "set.txt", DATA)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="synthetic.npz"):
        labelled_sets.read(tmp_path, DATA)
