"""The source of bias.ipynb, which build.py makes."""

# %% title [markdown]
# # Is my data biased?
#
# Look for a bias without bias labels. This notebook does so for two sets of digits in ten colours.
# In the first, the colour is independent of the class. In the second, 90 % of the digits have the
# colour of their class, so a network would learn colours. It runs in a few minutes on two CPU
# cores.
#
# On the command line: `jaxdd bias FOLDER`. [How `auto` decides](../concepts/auto.md) explains the
# tests and their limitations.

# %% data-text [markdown]
# ## Data
#
# Load both sets and plot them. For your own images use `datasets.from_arrays(images, labels)` or
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
# ## Look for a bias
#
# `bias.find` tests several candidates. Each candidate is one kind of features: tone, texture,
# layout or border of the images, or the embedding of a briefly trained encoder. It divides the
# samples of a class into groups. A bias is likely if features that cannot show the object predict
# the class better than features that can. Otherwise small probe networks check whether balancing
# the groups helps. The verdict is "biased", "undecided" or "none".

# %% find
findings = {name: bias.find(data) for name, data in sets.items()}
for name, finding in findings.items():
    print(f"{name}: {bias.headline(finding.choice.record())}")

# %% why-text [markdown]
# ## Evidence
#
# A sample that clearly conflicts with a bias is either an exception to this bias or has a wrong
# label. To distinguish the two, some probe networks are trained on uniformly sampled images, others
# on images sampled by weight. Weights are accepted only if the gain on conflicting samples [is
# large enough](../concepts/auto.md#the-decision).

# %% why
for name, finding in findings.items():
    print(f"\n{name}:")
    for candidate in finding.choice.candidates:
        share = candidate.confident_share
        clear = "" if np.isnan(share) else f": {share:.1%} of the samples clearly conflict"
        print(f"  {candidate.name}{clear}")
        for kind, trial in candidate.trials.items():
            print(
                f"    {kind} sampling: accuracy {trial.aligned:.2f} on aligned samples, "
                f"{trial.conflicting:.2f} on conflicting ones"
            )

# %% pictures-text [markdown]
# ## Look at the bias
#
# For each class, plot the images with the lowest bias-conflict score on the left and those with the
# highest on the right. The bias is what the images on the left share and those on the right lack.


# %% pictures
def extremes(name):
    """Draw the images with the lowest and the highest score of the strongest candidate."""
    finding = findings[name]
    score = np.asarray(finding.choice.candidates[0].conflict_score)
    order = finding.samples[np.argsort(-score)]
    return sheet(sets[name], order[::-1], order)


extremes("biased")

# %% check-text [markdown]
# ## Check the answer
#
# The colours of these digits were not used above, but they are known, so you can check the answer.
# The [conflict AUC](../glossary.md#diagnostics-of-weights) is 0.5 by chance and 1 if all
# conflicting samples score higher than the aligned ones.

# %% check
for name, finding in findings.items():
    data = sets[name]
    labels, colours = (array[finding.samples] for array in data.train[1:])
    conflicting = colours != np.array(data.aligned)[labels]
    share = np.asarray(finding.choice.weights)[conflicting].sum() / data.num_classes
    print(f"{name}: {conflicting.mean():.0%} bias-conflicting, with {share:.0%} of the weight")
    for candidate, area in finding.auc.items():
        print(f"  conflict AUC of {candidate}: {area:.3f}")

# %% page-text [markdown]
# ## Write a page
#
# `jaxdd bias DATASET` writes the same evidence as one HTML page:
#
# ![Top of the page for the biased digits: verdict, what to do next, and typical and conflicting
# images](../images/screenshot_bias.png)

# %% page
import pathlib
import tempfile

folder = pathlib.Path(tempfile.mkdtemp())
for name, finding in findings.items():
    bias_page.write(folder / f"bias-{name}.html", finding, sets[name])
print(*sorted(path.name for path in folder.iterdir()), sep="\n")

# %% next [markdown]
# ## Next steps
#
# * Distil with the weights: `jaxdd run FOLDER` first makes the same tests. In Python, use
#   `sampling.reweight(pool, finding.choice.weights)` with `finding = findings["biased"]` and
#   `pool = datasets.pool(sets["biased"])`. There is one weight for each of the images
#   `finding.samples`, at most 15,000 by default (`bias.find(…, max_samples=…)`).
# * Declare a known bias: `jaxdd run FOLDER --debias tone`, or `weights.by_features(key, pool,
#   weights.blind_features.tone)` with `key = jax.random.key(0)` ([declaring a
#   nuisance](../concepts/auto.md#declaring-a-known-nuisance)).
# * [If the verdict is undecided](../concepts/auto.md#if-the-verdict-is-undecided), look at the
#   images, compare weights, or label images. The page asks for 20 bias labels. These suffice for
#   colours and patterns, but not for faces or turns ([how
#   often](../guides/weights.md#a-few-bias-labels)). `jaxdd bias FOLDER --ask 100` asks for more.
#
# **Limitations**
#
# * "No evidence of a bias" does not exclude a bias that no candidate shows, such as a natural
#   background. Layout shows where things are and how they are turned. But a bias of the object
#   itself, such as its orientation, is not always detected.
# * Compare weights on *unbiased* test images. If your whole folder is biased, so is the fifth that
#   is held out by default. On these images the bias helps, and correct weights lower the accuracy.
