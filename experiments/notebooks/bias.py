"""The source of bias.ipynb, which build.py makes."""

# %% title [markdown]
# # jaxdd: what is my data biased by?
#
# Two sets of handwritten digits in ten colours. In one the colour is independent of the digit; in
# the other 90 % of the samples of a digit have the colour of that digit, so a network would learn
# colours. This notebook distinguishes them without bias labels. [Choosing
# weights](../../docs/auto.md) explains the method and its limits. The cells took 144 s of processor
# time on two x86 cores.

# %% sizes
import pathlib
import tempfile

WORK = pathlib.Path(tempfile.mkdtemp())  # folder of the pages
CHOOSING = {}  # options of weights.choose, such as another search

# %% data-text [markdown]
# ## Two data sets
#
# For your own data use `datasets.from_arrays(images, labels)` or
# `datasets.from_folder(folders.read(path))`.

# %% data
import functools

import numpy as np

from jaxdd.data import benchmarks
from jaxdd.runs import bias
from jaxdd.runs.reports import bias_page, plot

sets = {
    "unbiased": benchmarks.load("cdigits", conflict=0.9),
    "biased": benchmarks.load("cdigits", conflict=0.1),
}


def sheet(data, *orders):
    """Plot the first eight images of each class in each order."""
    first = functools.partial(plot.first_images, num_classes=data.num_classes, columns=8)
    return plot.picture(*(first(*data.train[:2], order) for order in orders))


sheet(sets["unbiased"], np.arange(1000))

# %% other
sheet(sets["biased"], np.arange(1000))

# %% find-text [markdown]
# ## Looking for a bias
#
# First, the shortcut test compares classifiers on object-blind features (tone, texture, layout)
# with classifiers on baseline features that show the object. A shortcut is a bias. If there is
# none, density weights are searched, and small probe networks check whether the weights help. If
# they do not, weights stay uniform, with a reason.

# %% find
findings = {name: bias.find(data, **CHOOSING) for name, data in sets.items()}
for name, finding in findings.items():
    print(f"{name}: {bias.headline(finding)}")

# %% why-text [markdown]
# Early samples are those that a classifier gets right after hardly any training. If they are easier
# only because of a bias, weights raise the accuracy on the late ones to about the same level.

# %% why
for name, finding in findings.items():
    choice = finding.choice
    print(f"\n{name}: {choice.rejection or 'weights help'}")
    for features, test in choice.shortcuts.items():
        print(f"  {features:<7}: error rate {test.blind:5.1%}, baseline {test.baseline:.1%}")
    for kind, trial in choice.trials.items():
        accuracies = f"{trial.aligned:.2f} on early samples, {trial.conflicting:.2f} on late ones"
        print(f"  {kind:<7} weights: accuracy {accuracies}")

# %% pictures-text [markdown]
# ## What the bias looks like
#
# For each class, left: images with the lowest bias-conflict score; right: those with the highest.
# What all images on the left share, and none on the right, is the bias.


# %% pictures
def extremes(name):
    """Draw the images with the lowest and the highest score, None if no bias was detected."""
    finding = findings[name]
    if finding.conflict_score is not None:
        order = finding.samples[np.argsort(-finding.conflict_score)]
        return sheet(sets[name], order[::-1], order)


extremes("biased")

# %% check-text [markdown]
# ## Was that right?
#
# Here the colours are known. They are used for this check only.

# %% check
for name, finding in findings.items():
    data = sets[name]
    labels, colours = (array[finding.samples] for array in data.train[1:])
    conflicting = colours != np.array(data.aligned)[labels]
    share = np.asarray(finding.choice.weights)[conflicting].sum() / data.num_classes
    print(f"{name}: {conflicting.mean():.0%} bias-conflicting, with {share:.0%} of the weight")
    if finding.auc is not None:
        print(f"  area under the curve of the bias-conflict score: {finding.auc['all']:.3f}")

# %% page-text [markdown]
# ## As a page
#
# `jaxdd bias DATASET` writes the same as one HTML page.

# %% page
for name, finding in findings.items():
    bias_page.write(WORK / f"bias-{name}.html", finding, sets[name])
print(*sorted(path.name for path in WORK.glob("*.html")), sep="\n")

# %% next [markdown]
# ## What to do about it
#
# Pass `choice.weights` to `sampling.reweight(pool, weights)`; `--debias auto` does all of this
# before it distils. If you know that the bias is in the colours, the texture, the place or the
# border, use `weights.by_features(key, pool, weights.blind_features.tone)`
# [directly](../../docs/auto.md). "No bias detected" does not exclude a bias that shows only where
# the object is, such as a background.
