"""The source of own_data.ipynb, which build.py makes."""

# %% title [markdown]
# # jaxdd: your own data
#
# From a folder of images and a table of their classes to a small set, its scores, a report, and
# files to publish. [Data](../../docs/guides/data.md) describes all formats. The cells took 60 s of
# processor time on two x86 cores.

# %% sizes
import pathlib
import tempfile

from jaxdd.runs import options

WORK = pathlib.Path(tempfile.mkdtemp())  # folder of all files
OPTIONS = options.DM(ipc=10, steps=100, batch_size=64, width=16, depth=2, epochs=100, eval_seeds=2)

# %% folder-text [markdown]
# ## A folder of images and a table
#
# Use your own here. This notebook writes scikit-learn's digits, 90 % of them in the colour of their
# class. The column `label` is required. `attribute` is a known bias, used for scores only; `split`
# names the test images. Without these two columns a fifth is split off for the test, and there are
# no scores by group.

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
# All images are read and checked: a file that is missing or cannot be decoded, or a misspelt
# column, raises an error that names it.

# %% read
import numpy as np

from jaxdd.data import datasets, folders
from jaxdd.runs.reports import plot

data = datasets.from_folder(folders.read(folder), name="my-digits")
print(f"{len(data.train.labels):,} training and {len(data.test.labels)} test images")
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
# Plain distillation and density weights, with a random subset of the real images. Finished parts of
# the folder are read back, so an interrupted comparison can be resumed. `auto` instead of `density`
# first [checks](bias.ipynb) whether weights help.

# %% compare
from jaxdd.runs import pipeline

names = ("plain", "density")
rows = pipeline.compare(data, WORK / "compared", OPTIONS, rows=names, resume=True)
print(f"{'':<8} accuracy  aligned  conflicting")
for name, row in rows.items():
    means = [row.accuracy.mean, row.aligned.mean, row.conflicting.mean]
    print(f"{name:<8} {means[0]:8.3f}  {means[1]:7.3f}  {means[2]:11.3f}")
share = rows["density"].weights["conflict_weight_share"]
print(f"Bias-conflicting samples have {share:.0%} of the weight.")

# %% images-text [markdown]
# Left plain, right weighted:

# %% images
from jaxdd.runs.folder import store

sets = [store.read_synthetic(WORK / "compared" / "rows" / row / "synthetic.npz") for row in names]
plot.picture(*(synthetic.images for synthetic in sets), mean=data.mean, std=data.std)

# %% report-text [markdown]
# ## A report, and files to publish
#
# The report is one HTML file with all scores, weights and images. The export has the images, a
# table, a card, and a manifest of checksums, with which others can [verify](../../docs/guides/publishing.md)
# it.

# %% report
import jaxdd
from jaxdd.runs.reports import report
from jaxdd.runs.trust import publication

report.write(WORK / "report.html", report.read(WORK / "compared"))
publication.export(WORK / "compared" / "rows" / "density", WORK / "set", format="png")
published = jaxdd.load(WORK / "set")  # verifies the files before it reads them
print(f"verified: images {published.images.shape}, classes {', '.join(published.classes)}")
for path in sorted(WORK.glob("*.html")) + sorted(WORK.glob("set/*")):
    print(path.relative_to(WORK))

# %% next [markdown]
# ## From here
#
# The same on the command line:
#
# ```
# jaxdd compare FOLDER --rows plain density --out compared
# jaxdd report compared
# jaxdd export compared/rows/density set --format png
# ```
