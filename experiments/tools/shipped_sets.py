"""Make the distilled sets that come with jaxdd, and print their roots.

    python -m experiments.tools.shipped_sets --data-dir DIR   # 16 CPU minutes

The roots belong in `jaxdd/runs/trust/shipped.py`. Sets whose folder in jaxdd/sets exists are not
made again: delete it first. Sets of 32×32 images are stored as PNG files, so that all sets together
have less than 3 MB.
"""

import pathlib
import shlex

import tyro

from jaxdd.commands import cli
from jaxdd.runs.folder import manifest
from jaxdd.runs.trust import shipped

SETS = {
    "cdigits-10-plain-ipc10": "cdigits --debias plain --ipc 10",
    "cdigits-10-density-ipc10": "cdigits --debias density --ipc 10",
    "cmnist-5-density-ipc10": "cmnist --debias density --ipc 10",
    "cmnist-5-density-ipc50": "cmnist --debias density --ipc 50 --epochs 100",
    "cfmnist-solid-bg-10-density-ipc10": "cfmnist-solid-bg --debias density --ipc 10",
}
"""Arguments of `jaxdd run` by name of the set."""


def main(*, data_dir: pathlib.Path, work: pathlib.Path = pathlib.Path("runs/shipped")) -> None:
    """Make the sets that are missing.

    Args:
        data_dir: Folder with the original files of MNIST and Fashion-MNIST.
        work: Folder for the runs, which are resumed.
    """
    for name, words in SETS.items():
        folder, run, data = shipped.FOLDER / name, work / name, ["--data-dir", str(data_dir)]
        if not folder.exists():
            resume = ["--resume"] if (run / "config.json").exists() else []
            cli.main(["run", *shlex.split(words), *data, "--out", str(run), *resume])
            form = "npz" if words.startswith("cdigits") else "png"
            score = ["--score", *data] if form == "png" else []
            cli.main(["export", str(run), str(folder), "--format", form, *score])
        print(f'    "{name}": "{manifest.read(folder)["root"]}",')


if __name__ == "__main__":
    tyro.cli(main)
