"""Properties of image files that predict the class are reported, others are not."""

import numpy as np
import pytest
from image_files import save
from PIL import Image

from jaxdd.data import file_checks

LABELS = np.arange(60) % 2


def check(folder, labels=LABELS, names=None):
    """Return the checks of 0.png, 1.png, … by name."""
    names = [f"{i}.png" for i in range(len(labels))] if names is None else names
    return {x.name: x for x in file_checks.check(folder, names, np.asarray(labels))}


def test_the_size_of_nine_files_in_ten_is_that_of_their_class(tmp_path):
    """Three of 30 files of each class have the size of the other class, so 54 of 60 are right."""
    for i, y in enumerate(LABELS):
        save(tmp_path / f"{i}.png", size=((12, 12), (12, 16))[y if i >= 6 else 1 - y])
    size = check(tmp_path)["size"]
    assert size.accuracy == pytest.approx(0.9) and size.chance == 0.5 and size.count == 60
    assert size.standard_error == pytest.approx((0.25 / 60) ** 0.5) and size.significant
    assert size.reading.startswith("size alone predicts the class for 90 % of the files")
    assert size.typical == {0: "12×12 (90 %)", 1: "12×16 (90 %)"}
    assert check(tmp_path)["aspect ratio"].typical == {0: "1", 1: "0.75"}


def test_formats_modes_and_metadata(tmp_path):
    """Of unequal classes, 48 and 12, chance is the share of the larger one, .8."""
    for i in range(60):
        rare, path = i % 5 == 0, tmp_path / f"{i}.png"
        options = dict(mode="RGB", dpi=(72, 72)) if rare else dict(mode="L")
        save(path, format="BMP" if rare else "PNG", **options)
    checks = check(tmp_path, np.arange(60) % 5 == 0)
    assert [checks[name].accuracy for name in ("format", "colour mode", "metadata")] == [1] * 3
    assert {x.chance for x in checks.values()} == {0.8}
    assert checks["format"].typical == {0: "PNG (100 %)", 1: "BMP (100 %)"}
    assert "size" not in checks and "JPEG quality" not in checks


def test_unequal_classes_are_no_finding(tmp_path):
    """The accuracy of predicting the larger class, .95, is chance."""
    rng = np.random.default_rng(0)
    for i in range(100):
        save(tmp_path / f"{i}.png", size=tuple(rng.integers(10, 14, 2).tolist()))
    checks = check(tmp_path, np.arange(100) < 5)
    assert not any(x.significant or x.reading for x in checks.values())
    assert {x.chance for x in checks.values()} == {0.95}


@pytest.mark.parametrize("quality", [1, 30, 75, 100])
def test_the_quality_of_jpeg_files_is_read_from_their_tables(tmp_path, quality):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    names = [f"{i}.jpg" for i in range(40)]
    for i, name in enumerate(names):
        options = dict(quality=quality if i % 2 else 50)
        Image.fromarray(noise).save(tmp_path / name, **options)
    checks = check(tmp_path, LABELS[:40], names)
    assert checks["JPEG quality"].typical == {0: "50", 1: str(quality)}
    assert checks["JPEG quality"].accuracy == 1
    assert "what the images show" in checks["file size per pixel"].reading


def test_only_jpeg_files_have_a_quality(tmp_path):
    """Files 0, 4, … of class 0 are PNG; those without a readable header do not count."""
    for i, y in enumerate(LABELS):
        options = dict(format="PNG") if i % 4 == 0 else dict(format="JPEG", quality=(40, 90)[y])
        save(tmp_path / f"{i}.png", **options)
    (tmp_path / "1.png").write_text("no image")
    checks = check(tmp_path)
    assert checks["JPEG quality"].count == 44 and checks["format"].count == 59


def test_few_files(tmp_path):
    """Four files are too few for a finding, and one class needs none."""
    for i in range(4):
        save(tmp_path / f"{i}.png", size=(12, 12 + i % 2))
    assert not check(tmp_path, LABELS[:4])["size"].significant
    assert check(tmp_path, [0, 1])["size"].accuracy == 0
    assert check(tmp_path, [0, 0, 0, 0]) == {} and check(tmp_path, []) == {}
    with pytest.raises(ValueError, match="1, 2"):
        file_checks.check(tmp_path, ["0.png", "1.png"], np.zeros(1, int))
