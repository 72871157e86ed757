"""Tests of labelled sets: every format gives the same images and classes; others are rejected."""

import json

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


def ours(path, form="npz", **provenance):
    """Return a set that is normalised by other moments than those of the data."""
    if form == "safetensors":
        pytest.importorskip("safetensors")
    mean, std = np.float32((0.5, 0.4, 0.3)), np.float32((0.2, 0.3, 0.4))
    images = ((PIXELS / np.float32(255) - mean) / std).reshape(K, IPC, *SIZE)
    labels = LABELS.reshape(K, IPC).astype(np.int32)
    path = path / f"set.{form}"
    store.write_synthetic(path, store.Synthetic(images, labels, mean, std, provenance))
    return path


def npz(**arrays):
    def write(path):
        np.savez(path / "set.npz", **arrays)
        return path / "set.npz"

    return write


def tensors(**arrays):
    def write(path):
        numpy = pytest.importorskip("safetensors.numpy")
        contiguous = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
        numpy.save_file(contiguous, path / "set.safetensors")
        return path / "set.safetensors"

    return write


def png(path):
    for i, (image, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        (path / "set" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / "set" / str(label) / f"{i}.png")
    return path / "set"


def pt(content, name="set.pt", *, gradients=False):
    """Return a function that saves one PyTorch file, or several by name.

    With gradients, the content is the images, and they are a parameter next to their labels.
    """

    def write(path):
        nonlocal content
        torch = pytest.importorskip("torch", reason="PyTorch is not installed")
        to_tensor = lambda x: torch.tensor(x) if isinstance(x, np.ndarray) else x
        if gradients:
            content = {"images": torch.nn.Parameter(torch.tensor(content)), "labels": LABELS}
        for file, value in content.items() if name is None else [(name, content)]:
            torch.save(jax.tree.map(to_tensor, value), path / file)
        return path / (name or "images_best.pt")

    return write


FORMS = {
    "jaxdd": (ours, "normalised"),
    "uint8": (npz(images=PIXELS, labels=LABELS), "bytes"),
    "int64": (npz(images=PIXELS.astype(int), labels=LABELS), "bytes"),
    "0..255 as floats": (npz(images=PIXELS / 1.0, labels=LABELS), "bytes"),
    "x and y, channels first": (npz(x=PIXELS.transpose(0, 3, 1, 2), y=LABELS), "bytes"),
    "pixels in [0, 1]": (npz(images=PIXELS / 255, labels=LABELS), "unit"),
    "pixels in [-1, 1]": (npz(images=PIXELS / 127.5 - 1, labels=LABELS), "signed"),
    "normalised, class by class": (npz(images=NORMAL.reshape(K, IPC, *SIZE)), "normalised"),
    "other moments": (
        npz(images=(PIXELS / 255 - 0.5) / 0.25, labels=LABELS, mean=0.5, std=[0.25] * 3),
        "normalised",
    ),
    "safetensors": (tensors(images=PIXELS, labels=LABELS), "bytes"),
    "safetensors, normalised": (
        tensors(images=CHANNELS_FIRST * 2, labels=LABELS, mean=MEAN, std=STD / 2),
        "normalised",
    ),
    "our .safetensors": (lambda path: ours(path, "safetensors"), "normalised"),
    "png": (png, "bytes"),
    "DC": (
        pt({"data": [[CHANNELS_FIRST, LABELS]], "accs_all_exps": {"ConvNet": [np.float64(0.5)]}}),
        "normalised",
    ),
    "pair": (pt([CHANNELS_FIRST, LABELS]), "normalised"),
    "MTT": (pt({"images_best.pt": CHANNELS_FIRST, "labels_best.pt": LABELS}, None), "normalised"),
    "torch, needs gradients": (pt(CHANNELS_FIRST, gradients=True), "normalised"),
    "our .pt": (
        pt({"data": [[CHANNELS_FIRST * 2, LABELS]], "mean": DATA.mean, "std": STD / 2}),
        "normalised",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_same_images(form, tmp_path):
    write, pixels = FORMS[form]
    labelled = labelled_sets.read(write(tmp_path), DATA)
    np.testing.assert_allclose(labelled.images, NORMAL, atol=2e-6)
    np.testing.assert_array_equal(labelled.labels, LABELS)
    assert labelled.images.dtype == np.float32 and labelled.labels.dtype == np.int32
    assert labelled.storage["pixels"] == pixels
    is_first = form in ("x and y, channels first", "safetensors, normalised")
    is_first |= labelled.storage["kind"] == "pt"
    assert labelled.storage["layout"] == ("nchw" if is_first else "nhwc")


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
    assert labelled.num_bytes == PIXELS[:, :4, :4].size
    np.testing.assert_array_equal(labelled.labels, LABELS.repeat(4))


BAD = {
    "other shape": (npz(images=PIXELS[:, :3], labels=LABELS), r"\(6, 3, 6, 3\)"),
    "no images": (npz(y=LABELS), "got y"),
    "float labels": (npz(images=PIXELS, labels=LABELS / 1), "float64"),
    "labels too few": (npz(images=PIXELS, labels=LABELS[:2]), r"\(2,\)"),
    "another class": (npz(images=PIXELS, labels=LABELS + 1), "count from 0, got 1..2"),
    "negative": (npz(images=PIXELS, labels=LABELS - 1), "count from 0, got -1..0"),
    "an absent class": (npz(images=PIXELS, labels=0 * LABELS), "1 of 2 classes: 1"),
    "soft labels": (npz(images=PIXELS, labels=np.eye(2)[LABELS]), r"float64 \(6, 2\)"),
    "no labels": (npz(images=PIXELS), "--labels"),
    "MTT without labels": (pt(CHANNELS_FIRST), "--labels"),
    "too few classes": (npz(images=PIXELS.reshape(1, 6, *SIZE)), "1 of 2 classes: 1"),
    "nan": (npz(images=NORMAL * np.nan, labels=LABELS), "NaN"),
    "complex": (npz(images=PIXELS * 1j, labels=LABELS), "complex128"),
    "bool": (npz(images=PIXELS > 9, labels=LABELS), "bool"),
    "16 bits": (npz(images=PIXELS * np.uint16(257), labels=LABELS), r"0\.\.255 .*got"),
    "a mask": (npz(images=PIXELS // 128, labels=LABELS), r"got 0\.\.1;"),
    "divided twice": (npz(images=PIXELS / 255**2, labels=LABELS), r"\.\.0\.0039"),
    "divided by 128": (npz(images=PIXELS / 128, labels=LABELS), r"\.\.1\.99"),
    "whitened": (npz(images=0.3 * NORMAL, labels=LABELS), "whitened"),
    "mean of bytes": (npz(images=NORMAL, labels=LABELS, mean=125, std=60), "125"),
    "moments of pixels": (
        npz(images=PIXELS / 255, labels=LABELS, mean=DATA.mean, std=DATA.std),
        "--pixels",
    ),
    "a pickle": (pt({"data": DATA}), "set.pt"),
    "no tensor": (pt({"accs": 3}), "got NoneType"),
    "an empty list": (pt([]), "set.pt"),
}


@pytest.mark.parametrize("case", BAD)
def test_other_content_is_rejected(case, tmp_path):
    write, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        labelled_sets.read(write(tmp_path), DATA)


# --- labels and classes ------------------------------------------------------------------------


def write_labels(path, form):
    if form == "npy":
        np.save(path, LABELS)
    elif form == "npz":
        np.savez(path, y=LABELS)
    else:
        values = {
            "txt": map(str, LABELS),
            "csv": ["label", *map(NAMED.class_names.__getitem__, LABELS)],
        }
        path.write_text("\n".join(values[form]))
    return path


NAMED = DATA._replace(class_names=("cat", "dog"))


@pytest.mark.parametrize("form", ["npy", "npz", "txt", "csv"])
def test_labels_can_be_in_a_file_of_their_own(form, tmp_path):
    order = np.array([3, 0, 4, 1, 5, 2])
    stored = labelled_sets.load(npz(images=PIXELS[order])(tmp_path))
    path = write_labels(tmp_path / f"labels.{form}", form)
    labelled = labelled_sets.adapt(stored, NAMED, labels=path)
    np.testing.assert_array_equal(labelled.labels, LABELS)
    np.testing.assert_allclose(labelled.images, NORMAL[order], atol=2e-6)


def test_images_sorted_by_class_need_an_option(tmp_path):
    path = npz(images=PIXELS)(tmp_path)
    np.testing.assert_array_equal(labelled_sets.read(path, DATA, labels="sorted").labels, LABELS)
    for images, message in ((PIXELS[:5], "got 5"), (PIXELS, "leave out --labels")):
        labels = {} if len(images) == 5 else {"labels": LABELS}
        path = npz(images=images, **labels)(tmp_path)
        with pytest.raises(ValueError, match=message):
            labelled_sets.read(path, DATA, labels="sorted")


def test_a_folder_is_matched_by_the_names_of_its_classes(tmp_path):
    """Whatever their order in the data, and with accents in either encoding."""
    png(tmp_path)
    for number, name in enumerate(("cafe\u0301", "zoo")):
        (tmp_path / "set" / str(number)).rename(tmp_path / "set" / name)
    data = DATA._replace(class_names=("zoo", "caf\u00e9"))
    labelled = labelled_sets.read(tmp_path / "set", data)
    np.testing.assert_array_equal(labelled.labels, 1 - LABELS)
    np.testing.assert_allclose(labelled.images, NORMAL, atol=2e-6)


@pytest.mark.parametrize(
    ("known", "missing", "additional"),
    [
        (("cat", "dog", "owl"), "'owl'", "none"),
        (("cat", "owl"), "'owl'", "'dog'"),
        (("Cat", "dog"), "'Cat'", "'cat'"),
        (("cat",), "none", "'dog'"),
    ],
)
def test_other_classes_are_named(known, missing, additional, tmp_path):
    png(tmp_path)
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / "set" / str(number)).rename(tmp_path / "set" / name)
    data = DATA._replace(class_names=known, num_classes=len(known))
    with pytest.raises(ValueError, match=f"missing: {missing}; additional: {additional}"):
        labelled_sets.read(tmp_path / "set", data)


def test_classes_next_to_the_images_decide(tmp_path):
    """Names of label numbers, names as labels, and those in the provenance of a set of jaxdd."""
    names = np.array(["dog", "cat"])
    for arrays in ({"labels": LABELS, "classes": names}, {"labels": names[LABELS]}):
        labelled = labelled_sets.read(npz(images=PIXELS, **arrays)(tmp_path), NAMED)
        np.testing.assert_array_equal(labelled.labels, 1 - LABELS)
    path = ours(tmp_path, class_names=["dog", "cat"])
    np.testing.assert_array_equal(labelled_sets.read(path, NAMED).labels, 1 - LABELS)
    with pytest.raises(ValueError, match="missing: 'owl'; additional: 'dog'"):
        labelled_sets.read(path, NAMED._replace(class_names=("cat", "owl")))
    other = npz(images=PIXELS, labels=LABELS + 1, classes=names)(tmp_path)
    with pytest.raises(ValueError, match="got 1..2"):
        labelled_sets.read(other, NAMED)


def test_only_the_first_of_several_sets_in_a_file_is_read(tmp_path):
    content = {"data": [[CHANNELS_FIRST, LABELS], [CHANNELS_FIRST, LABELS]]}
    labelled = labelled_sets.read(pt(content)(tmp_path), DATA)
    assert len(labelled.labels) == len(LABELS)
    assert any("2 sets" in remark for remark in labelled.remarks)


def test_our_own_pt_states_what_made_it(tmp_path):
    """Formation and whitening are in its configuration, names in any form."""
    content = {"data": [[CHANNELS_FIRST, LABELS]], "mean": DATA.mean, "std": DATA.std}
    content |= {"classes": {"dog": 0, "cat": 1}}
    write = lambda config: pt(content | {"config": config})(tmp_path)
    config = {"dataset": "mine", "data": datasets.digest(NAMED), "formation": 2}
    labelled = labelled_sets.read(write(json.dumps(config)), NAMED)
    np.testing.assert_array_equal(labelled.labels, (1 - LABELS).repeat(4))
    with pytest.raises(ValueError, match="weighted"):
        labelled_sets.read(write(json.dumps(config | {"zca": "weighted"})), NAMED, whiten=True)
    for other in ("3", "a name", '{"ipc": 3}', 3):
        assert labelled_sets.load(write(other)).config == {}


def test_numbers_are_positions_and_are_reported(tmp_path):
    labelled = labelled_sets.read(png(tmp_path), NAMED)
    np.testing.assert_array_equal(labelled.labels, LABELS)
    assert any("'0' is 'cat'" in remark for remark in labelled.remarks)
    for number in (1, 0):  # classes 1 and 2
        (tmp_path / "set" / str(number)).rename(tmp_path / "set" / str(number + 1))
    with pytest.raises(ValueError, match="count from 0, got 1..2"):
        labelled_sets.read(tmp_path / "set", NAMED)


def test_test_images_in_a_set_are_counted(tmp_path):
    images = np.concatenate([DATA.test.images[:2], PIXELS[:4]])
    path = npz(images=images / 255, labels=[0, 1, 0, 1, 0, 1])(tmp_path)
    remarks = labelled_sets.read(path, DATA).remarks
    assert any("2 of 6" in remark for remark in remarks)


def test_single_channels_may_be_left_out(tmp_path):
    data = datasets.from_arrays(DATA.train.images[..., :1], DATA.train.labels)
    expected = labelled_sets.read(npz(images=PIXELS[..., :1], labels=LABELS)(tmp_path), data)
    labelled = labelled_sets.read(npz(images=PIXELS[..., 0], labels=LABELS)(tmp_path), data)
    np.testing.assert_array_equal(labelled.images, expected.images)


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
