"""The source of own_data.ipynb, which build.py makes."""

# %% title [markdown]
# # Distil your own images
#
# Start with a folder of images. Get a synthetic set, its scores, an HTML report, and files to
# publish. The notebook runs in about a minute on two CPU cores. The guide to [your own
# data](../guides/data.md) describes all formats.

# %% sizes
import pathlib
import tempfile

from jaxdd.runs import options

WORK = pathlib.Path(tempfile.mkdtemp())  # folder of all files
OPTIONS = options.DM(ipc=10, steps=100, batch_size=64, width=16, depth=2, epochs=100, eval_seeds=2)

# %% folder-text [markdown]
# ## A folder, with or without a table
#
# Use your own folder here. One folder of images per class is enough (`cat/1.png`, or `train/cat/…`
# and `test/cat/…`). You need a table `metadata.csv` only for bias labels, or if the images of all
# classes are in one folder. It has the columns `file` and `label`. Two columns are optional:
# `attribute` is a known bias attribute, used for evaluation only, and `split` marks the test
# images.
#
# Without test images, a fifth of the images is held out for testing. **If your images are biased,
# so is this fifth.** Weights against the bias then seem to lower the accuracy. To see whether
# weights help, add test images in which the bias attribute is independent of the class. If the
# accuracy on them is much lower than on held-out training images (`jaxdd run FOLDER/train`), the
# training images may be biased.
#
# This notebook writes scikit-learn's digits and a table. In training, 90 % of the digits have the
# colour of their class; in the test set, colours are random.

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
# ## Read the folder
#
# All images are read and checked. A missing file, an image that does not decode or a misspelt
# column raises an error that names it.

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
# ## Or start with arrays
#
# Images have shape `[n, h, w]` or `[n, h, w, c]`, as uint8 or as floats in [0, 1]. Labels are
# integers from 0. Without `test`, a fifth is held out.

# %% arrays
same = datasets.from_arrays(*digits.train, test=digits.test, name="my-digits")
print("the same images:", np.array_equal(same.train.images, data.train.images))

# %% compare-text [markdown]
# ## Distil and evaluate
#
# Compare plain distillation with density weights, and with a random subset of the real images. With
# `resume=True` the call continues an interrupted comparison. If you do not know whether your data
# are biased, use the row `auto` instead of `density`: it [looks for a bias](bias.ipynb) first. If
# its verdict is undecided, [decide yourself](../concepts/auto.md#if-the-verdict-is-undecided).
#
# A score is the mean over networks trained on one synthetic set. The spread of these networks does
# not show how much the result would change if the distillation were repeated. For that, repeat the
# comparison with other seeds.

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
# The synthetic sets, plain on the left and with density weights on the right:

# %% images
from jaxdd.runs.folder import store

sets = [store.read_synthetic(WORK / "compared" / "rows" / row / "synthetic.npz") for row in names]
plot.picture(*(synthetic.images for synthetic in sets), mean=data.mean, std=data.std)

# %% report-text [markdown]
# ## Report and publish
#
# The report is one HTML file with scores, weights and images. The export has the images, a table, a
# card, and a manifest of checksums with which others can [verify](../guides/publishing.md) it.

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
# ## Next steps
#
# On the command line, with default settings instead of the small ones above:
#
# ```
# jaxdd run FOLDER                            # one set, with the weights of auto
# jaxdd compare FOLDER --rows plain density --out compared
# jaxdd report compared
# jaxdd export compared/rows/density set --format png
# ```
#
# `--preset paper` runs 20,000 steps and trains networks of width 128. It is meant for a GPU, on
# which jaxdd has not been timed yet.
