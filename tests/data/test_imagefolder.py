"""Imagefolder layouts of Hugging Face are read as the library `datasets` reads them."""

import os

import numpy as np
import pytest
from image_files import save, write_table

from jaxdd.data import folders

LAYOUTS = {
    "classes": ["cat/0.png", "cat/1.png", "dog/2.png"],
    "splits of classes": ["train/cat/0.png", "train/dog/1.png", "test/cat/2.png"],
    "validation": ["train/cat/0.png", "train/dog/1.png", "validation/cat/2.png"],
    "three splits": ["training/a/0.png", "training/b/1.png", "dev/a/2.png", "testing/b/3.png"],
    "words of splits": ["my-train/a/0.png", "my-train/b/1.png", "my-test/a/2.png"],
    "csv": ["0.png", "1.png", "metadata.csv"],
    "jsonl": ["0.png", "1.png", "metadata.jsonl"],
    "parquet": ["0.png", "1.png", "metadata.parquet"],
    "a table drops the classes": ["cat/0.png", "dog/1.png", "metadata.csv"],
    "a table per split": ["train/0.png", "train/1.png", "train/metadata.csv"]
    + ["test/2.png", "test/metadata.csv"],
    "images below tables": ["train/i/0.png", "train/i/1.png", "train/metadata.jsonl"]
    + ["validation/i/2.png", "validation/metadata.jsonl"],
    "images without a row": ["0.png", "1.png", "metadata.csv", "9.png"],
}


def write(root, files):
    """Write images whose value is their name, and tables of the images below them."""
    images = [file for file in files if file.endswith(".png")]
    for file in images:
        save(root / file, 10 * int(file[-5]))
    for file in files:
        if not file.endswith(".png"):
            folder, listed = os.path.dirname(file), [i for i in images if not i.endswith("9.png")]
            names = [os.path.relpath(i, folder or ".") for i in listed if i.startswith(folder)]
            labels = ["xyx"[int(name[-5])] for name in names]
            write_table(root / file, {"file_name": names, "label": labels})


def expected(root, cache):
    """Return the value, the label and the split of each image as `datasets` reads them."""
    hf = pytest.importorskip("datasets")
    splits = hf.load_dataset("imagefolder", data_dir=str(root), cache_dir=str(cache))
    test = "test" if "test" in splits else "validation"
    return sorted(
        (int(np.asarray(row["image"])[0, 0]), label if isinstance(label, str) else names[label], s)
        for s, used in (("train", "train"), ("test", test))
        for row in splits.get(used, ())
        for label, names in [(row["label"], getattr(splits[used].features["label"], "names", ()))]
    )


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("name", LAYOUTS)
def test_imagefolder_layouts(tmp_path, name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write(tmp_path / "data", LAYOUTS[name])
    folder = folders.read(tmp_path / "data")
    test = [False] * len(folder.labels) if folder.test is None else folder.test
    rows = zip(folder.images[:, 0, 0, 0].tolist(), folder.labels, test, strict=True)
    read = sorted((v, folder.class_names[y], "test" if t else "train") for v, y, t in rows)
    assert read == expected(tmp_path / "data", tmp_path / "cache")
