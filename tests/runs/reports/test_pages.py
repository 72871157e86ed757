"""Tests of what pages share: pictures show the pixels of the images."""

import io

import numpy as np
from PIL import Image

from jaxdd.runs.reports import pages


def test_a_picture_has_the_size_and_colours_of_the_images():
    images = np.zeros((2, 3, 4, 5, 3))
    images[1] = 1
    (picture,) = pages.grid(images, ()).pictures
    pixels = np.asarray(Image.open(io.BytesIO(picture.png)))
    assert pixels.shape == (picture.height, picture.width, 4)
    assert picture.height >= 8 and picture.width >= 15
    assert pixels[0, 0, :3].tolist() == [0, 0, 0] and pixels[-1, 0, :3].tolist() == [255] * 3


def test_a_grid_states_what_it_omits():
    images = np.zeros((22, 11, 2, 2, 1))
    grid = pages.grid(images, "abcdefghijklmnopqrstuv")
    assert grid.names == list("abcdefghijklmnopqrst") and grid.columns == 10
    assert len(grid.pictures) == 1
    assert grid.omitted == [("classes", 20, 22), ("images per class", 10, 11)]
    single = pages.grid(images[:3, :1], (), num_classes=30)
    assert single.names == ["0", "1", "2"] and len(single.pictures) == 3
    assert single.omitted == [("classes", 3, 30)]
