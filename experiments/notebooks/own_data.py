"""The notebook own_data.ipynb, which `build.py` makes of this program."""

# %% title [markdown]
# # jaxdd: your own data
#
# From a folder of images and a table of their classes to a small set, its scores, a page about it,
# and files for others. [The page](../../docs/data.md) has all forms that data may come in. The
# cells took 60 s of processor time on two x86 cores.

# %% sizes
import pathlib
import tempfile

from jaxdd.runs import options

WORK = pathlib.Path(tempfile.mkdtemp())  # where all files go; any folder
CHOSEN = options.DM(ipc=10, steps=100, batch_size=64, width=16, depth=2, epochs=100, eval_seeds=2)

# %% folder-text [markdown]
# ## A folder of images and a table
#
# Put your own here. So that this notebook needs none, it writes the digits that come with
# scikit-learn, nine tenths of them in the colour of their class. `label` is needed. `attribute` is
# a known bias and only scores; `split` says what is scored on. Without these two a fifth is split
# off, and nothing is scored by group.

# %% folder
import csv

from PIL import Image

from jaxdd.data import benchmarks

digits = benchmarks.load("cdigits", conflict=0.1)
folder = WORK / "images"
folder.mkdir(exist_ok=True)
with open(folder / "metadata.csv", "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["file", "label", "attribute", "split"])
    for split, part in {"train": digits.train, "test": digits.test}.items():
        for i, (image, label, colour) in enumerate(zip(*part, strict=True)):
            Image.fromarray(image).save(folder / f"{split}-{i}.png")
            table.writerow([f"{split}-{i}.png", label, digits.attribute_names[colour], split])
print(*(folder / "metadata.csv").read_text().splitlines()[:4], sep="\n")

# %% read-text [markdown]
# ## Read
#
# All images are read and checked at once: a file that is missing or does not decode, or a column
# with a typing error, ends here with a line that names it.

# %% read
import numpy as np

from jaxdd.data import datasets, folders
from jaxdd.runs.reports import plot

data = datasets.from_folder(folders.read(folder), name="my-digits")
print(f"{len(data.train.labels):,} images to distil, {len(data.test.labels)} to score on")
print(f"classes {', '.join(data.class_names)}; attributes {', '.join(data.attribute_names)}")

order = np.arange(len(data.train.labels))
first = plot.first_images(*data.train[:2], order, num_classes=data.num_classes, columns=10)
plot.picture(first)

# %% arrays-text [markdown]
# ## Or arrays
#
# Images `[n, h, w]` or `[n, h, w, c]`, uint8 or in [0, 1], and labels from 0. Without `test` a
# fifth is split off.

# %% arrays
same = datasets.from_arrays(*digits.train, test=digits.test, name="my-digits")
print("the same images:", np.array_equal(same.train.images, data.train.images))

# %% compare-text [markdown]
# ## Weights, distillation, scores
#
# Distilled plainly and by density weights, beside a random subset of the real images. What is in
# the folder already is read back, so that a stopped comparison goes on. `auto` instead of `kde`
# [asks first](bias.ipynb) whether weights pay.

# %% compare
from jaxdd.runs import pipeline

rows = ("none", "kde")
found = pipeline.compare(data, WORK / "compared", CHOSEN, rows=rows, resume=True)["rows"]
print(f"{'':<8} accuracy  aligned  conflicting")
for name, row in found.items():
    score = [row[group]["mean"] for group in ("accuracy", "aligned", "conflicting")]
    print(f"{name:<8} {score[0]:8.3f}  {score[1]:7.3f}  {score[2]:11.3f}")
mass = found["kde"]["weights"]["conflict_weight_share"]
print(f"Samples in another colour have {mass:.0%} of the weight.")

# %% images-text [markdown]
# Left plain, right weighted:

# %% images
from jaxdd.runs.folder import store

sets = [store.read_synthetic(WORK / "compared" / "rows" / row / "synthetic.npz") for row in rows]
plot.picture(*(made.images for made in sets), mean=data.mean, std=data.std)

# %% report-text [markdown]
# ## A page, and files for others
#
# The report is one HTML file with all scores, weights and images. The export has the images, a
# table and a card, and a manifest of hashes by which whoever gets it can
# [tell](../../docs/trust.md) that it is what you made.

# %% report
import jaxdd
from jaxdd.runs.reports import report
from jaxdd.runs.trust import publication

report.write(WORK / "report.html", report.read(WORK / "compared"))
publication.export(WORK / "compared" / "rows" / "kde", WORK / "set", format="png")
published = jaxdd.load(WORK / "set")  # verifies before it parses
print(f"verified: images {published.images.shape}, classes {', '.join(published.classes)}")
for path in sorted(WORK.glob("*.html")) + sorted(WORK.glob("set/*")):
    print(path.relative_to(WORK))

# %% next [markdown]
# ## From here
#
# The same on the command line:
#
# ```
# jaxdd compare FOLDER --rows none kde --out compared
# jaxdd report compared
# jaxdd export compared/rows/kde set --format png
# ```
