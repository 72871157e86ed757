"""Templates are shipped, pictures are whole, tables of a search have a line for each encoder."""

import configparser
import io
import pathlib

import numpy as np
from PIL import Image

from jaxdd.runs.reports import pages


def test_templates_are_installed_with_the_package():
    root = pathlib.Path(pages.__file__).parents[3]
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    listed = {
        path
        for package, globs in config["options.package_data"].items()
        for glob in globs.split()
        for path in root.joinpath(*package.split(".")).glob(glob)
    }
    held = {path for path in (root / "jaxdd").rglob("*.*") if path.suffix in (".j2", ".css")}
    assert len(held) == 8 and held <= listed


def test_a_picture_of_images_has_their_size_and_colours():
    images = np.zeros((2, 3, 4, 5, 3))
    images[1] = 1
    found = pages.tiles(images, mean=np.zeros(3), std=np.ones(3))
    pixels = np.asarray(Image.open(io.BytesIO(found.png)))
    assert pixels.shape == (found.height, found.width, 4)
    assert found.height >= 8 and found.width >= 15
    assert pixels[0, 0, :3].tolist() == [0, 0, 0] and pixels[-1, 0, :3].tolist() == [255] * 3


def test_a_search_has_a_line_for_each_encoder_and_bandwidth():
    tried = [
        dict(encoder_steps=steps, bandwidth=0.2, temperature=t, evenness=balance)
        for steps, t, balance in [(30, 1.0, 0.5), (30, 2.0, 0.6), (90, 1.0, 0.7)]
    ]
    assert pages.by_temperature({"candidates": tried}) == {"30, 0.2": [0.5, 0.6], "90, 0.2": [0.7]}


def test_means_of_scores():
    assert pages.mean({"mean": 0.123, "std": 0.01}) == "12.3" and pages.mean(None) == "–"
