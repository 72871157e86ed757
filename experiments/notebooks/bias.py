"""The source of bias.ipynb, which build.py makes."""

# %% title [markdown]
# # jaxdd: what is my data biased by?
#
# Two sets of handwritten digits in ten colours. In one the colour is independent of the digit; in
# the other 90 % of the samples of a digit have the colour of that digit, so a network would learn
# colours. This notebook distinguishes them without bias labels. [Choosing
# weights](../../docs/concepts/auto.md) explains the method and its limits. The cells took 144 s of processor
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
# Several kinds of features are candidates: tone, texture, layout and border of the images, and the
# embedding of an encoder that has hardly been trained. Each divides the samples of a class into
# groups. If features that cannot show the object predict the classes better than features that
# can, they show a bias. Otherwise small probe networks check whether weights that balance the
# groups help. The verdict is "biased", "undecided" or "none".

# %% find
findings = {name: bias.find(data, **CHOOSING) for name, data in sets.items()}
for name, finding in findings.items():
    print(f"{name}: {bias.headline(finding.choice.record())}")

# %% why-text [markdown]
# Samples that clearly conflict with the groups are exceptions to a bias, or samples with a wrong
# label; ambiguous ones are hard. Without a bias, most conflicts are ambiguous, and weights do not
# help the networks.

# %% why
for name, finding in findings.items():
    print(f"\n{name}:")
    for candidate in finding.choice.candidates:
        share = candidate.confident_share
        clear = "" if np.isnan(share) else f": {share:.1%} of the samples clearly conflict"
        print(f"  {candidate.name}{clear}")
        for kind, trial in candidate.trials.items():
            accuracies = f"{trial.aligned:.2f} if aligned, {trial.conflicting:.2f} if conflicting"
            print(f"    accuracy with {kind} weights: {accuracies}")

# %% pictures-text [markdown]
# ## What the bias looks like
#
# For each class, left: images with the lowest bias-conflict score of the strongest candidate;
# right: those with the highest. What all images on the left share, and none on the right, is the
# bias.


# %% pictures
def extremes(name):
    """Draw the images with the lowest and the highest score of the strongest candidate."""
    finding = findings[name]
    score = np.asarray(finding.choice.candidates[0].conflict_score)
    order = finding.samples[np.argsort(-score)]
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
    for candidate, area in finding.auc.items():
        print(f"  area under the curve of the bias-conflict score by {candidate}: {area:.3f}")

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
# [directly](../../docs/concepts/auto.md). "No evidence of a bias" does not exclude a bias that shows only
# where the object is, such as a background.
