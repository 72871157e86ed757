"""Images of one's own: a folder of PNG files and a table, read, distilled and scored.

Run it by `python -m experiments.examples.own_data`.
"""

import csv
import pathlib

import numpy as np
from PIL import Image

from jaxdd.data import datasets, folders
from jaxdd.runs import options, pipeline


def write(folder: pathlib.Path, *, count: int, conflict: float = 0.1) -> None:
    """Writes bars that lie or stand; most that lie are red, most that stand are blue."""
    draw = np.random.default_rng(0)
    with open(folder / "metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "label", "attribute"])
        for i in range(count):
            lies, red = i % 2, (i % 2) ^ (draw.random() < conflict)
            image, at = np.zeros((16, 16, 3), np.uint8), draw.integers(2, 12)
            image[at : at + 3, :, 0 if red else 2] = 255
            Image.fromarray(image if lies else image.swapaxes(0, 1)).save(folder / f"{i}.png")
            table.writerow([f"{i}.png", ("stands", "lies")[lies], ("blue", "red")[int(red)]])


def main(folder: str = "own-data", *, count: int = 500, **given: int) -> dict:
    """Makes the folder `images` and the run beside it; `given` are options such as steps."""
    images = pathlib.Path(folder, "images")
    images.mkdir(parents=True)
    write(images, count=count)
    data = datasets.from_folder(folders.read(images), name="bars")
    return pipeline.run(data, images.parent / "run", options.DM(**given), debias="kde")


if __name__ == "__main__":
    print(f"accuracy {main()['accuracy']['mean']:.3f}")
