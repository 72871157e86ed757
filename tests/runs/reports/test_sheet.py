"""Tests of the picture of all images of a page."""

import io

import numpy as np
from PIL import Image

from jaxdd.runs.reports import sheet


def pixels_of(picture, tile):
    """Return the pixels of a tile as a page shows them: after a border of one pixel."""
    whole = np.asarray(Image.open(io.BytesIO(picture.content)))
    x, y = picture.pitch[0] * tile.column + 1, picture.pitch[1] * tile.row + 1
    return whole[y : y + picture.size[1], x : x + picture.size[0]]


def test_every_image_has_its_pixels_once():
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 5, 3), np.uint8)
    page = sheet.Sheet(images)
    tiles = {i: page.tile(i, f"image {i}") for i in (7, *range(40))}
    assert page.tile(7, "again") == tiles[7]._replace(description="again")
    picture = page.draw()
    assert picture.kind == "png" and picture.size == (5, 6) and picture.pitch == (7, 8)
    assert len({tile[:2] for tile in tiles.values()}) == 40
    for i, tile in tiles.items():
        np.testing.assert_array_equal(pixels_of(picture, tile), images[i])


def test_images_are_scaled_by_whole_factors():
    scales = {}
    for side in (5, 32, 64, 96):
        page = sheet.Sheet(np.zeros((1, side, side, 1), np.uint8))
        page.tile(0, "")
        scales[side] = page.draw()[-3:]
    expected = {5: (13, 19, 38), 32: (2, 3, 6), 64: (1, 2, 3), 96: (1, 1, 2)}
    assert scales == expected


def test_large_pictures_are_compressed(monkeypatch):
    monkeypatch.setattr(sheet, "_MAX_PNG_BYTES", 100)
    page = sheet.Sheet(np.random.default_rng(0).integers(0, 256, (1, 20, 20, 3), np.uint8))
    page.tile(0, "")
    assert page.draw().kind == "jpeg"


def test_a_sheet_without_images_has_no_picture():
    assert sheet.Sheet(np.zeros((1, 2, 2, 1), np.uint8)).draw() is None
