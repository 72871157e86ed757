"""The notebook bias.ipynb, which `build.py` makes of this program."""

# %% title [markdown]
# # jaxdd: what is my data biased by?
#
# Two sets of handwritten digits in ten colours. In one the colour says nothing; in the other nine
# tenths of a digit have the colour of that digit, and a network would learn colours. Which is
# which? No bias label is used to find out. [The page](../../docs/auto.md) says how, and when it
# fails. The cells took 144 s of processor time on two x86 cores.

# %% sizes
import pathlib
import tempfile

WORK = pathlib.Path(tempfile.mkdtemp())  # where the pages go; any folder
CHOOSING = {}  # options of weights.choose, such as a search of one's own

# %% data-text [markdown]
# ## Two sets
#
# Put yours here: `datasets.from_arrays(images, labels)`, or
# `datasets.from_folder(folders.read(path))`.

# %% data
import functools

import numpy as np

from jaxdd.data import benchmarks
from jaxdd.runs.reports import bias_page, plot

sets = {
    "one": benchmarks.load("cdigits", conflict=0.9),
    "other": benchmarks.load("cdigits", conflict=0.1),
}


def sheet(data, *orders):
    """Of each class the first eight images by each order."""
    of_classes = functools.partial(plot.first_images, num_classes=data.num_classes, columns=8)
    return plot.picture(*(of_classes(*data.train[:2], order) for order in orders))


sheet(sets["one"], np.arange(1000))

# %% other
sheet(sets["other"], np.arange(1000))

# %% find-text [markdown]
# ## Asking
#
# First heads on views that cannot see the object (tone, texture, layout) are compared with heads
# that can: where the view errs less, what is learnt most easily is not the object. Else weights are
# made by the density of early embeddings, and networks trained on a few images say whether they
# pay. If not, weights stay uniform, with a reason.

# %% find
found = {name: bias_page.find(data, **CHOOSING) for name, data in sets.items()}
for name, finding in found.items():
    print(f"{name}: {bias_page.headline(finding)}")

# %% why-text [markdown]
# Early samples are those that a classifier gets right which has hardly been trained. Where they are
# the easier ones just because of a bias, weights bring the late ones near them.

# %% why
for name, finding in found.items():
    choice = finding.choice
    print(f"\n{name}: {choice.rejection or 'weights pay'}")
    for view, told in choice.shortcuts.items():
        print(f"  head on {view:<7}: {told.blind:5.1%} errors, its rival {told.baseline:.1%}")
    for kind, trial in choice.trials.items():
        on = f"{trial.aligned:.2f} on early samples, {trial.conflicting:.2f} on late ones"
        print(f"  {kind:<7} weights: accuracy {on}")

# %% pictures-text [markdown]
# ## What it looks like
#
# Of each class the images that agree most surely with what most of it have in common, and right of
# the gap those that conflict with it most surely. What all on the left share, and none on the
# right, is the bias. For one there are none.


# %% pictures
def surest(name):
    """Those that agree and those that conflict; None where nothing was found."""
    if (doubt := found[name].doubt) is not None:
        order = found[name].samples[np.argsort(-doubt)]
        return sheet(sets[name], order[::-1], order)


surest("other")

# %% check-text [markdown]
# ## Was that right?
#
# Here the colours are known. They score what was found, and did nothing else.

# %% check
for name, finding in found.items():
    data = sets[name]
    labels, colours = (array[finding.samples] for array in data.train[1:])
    conflicting = colours != np.array(data.aligned)[labels]
    mass = np.asarray(finding.choice.weights)[conflicting].sum() / data.num_classes
    print(f"{name}: {conflicting.mean():.0%} in another colour, with {mass:.0%} of the weight")
    if finding.auc is not None:
        print(f"  told from the others with an area under the curve of {finding.auc:.3f}")

# %% page-text [markdown]
# ## As a page
#
# `jaxdd bias DATASET` writes the same on one HTML page, which can be sent.

# %% page
for name, finding in found.items():
    bias_page.write(WORK / f"bias-{name}.html", finding, sets[name])
print(*sorted(path.name for path in WORK.glob("*.html")), sep="\n")

# %% next [markdown]
# ## What to do about it
#
# `choice.weights` are what `sampling.reweight(pool, weights)` takes; `--debias auto` does all of
# this before it distils. If you know that a bias lies in the colours, the texture, the place or the
# border, `weights.by_features(key, pool, weights.blind_features.tone)` [weighs by
# it](../../docs/auto.md#you-know-what-is-no-object) without asking. "No bias found" excludes none
# that shows only where the object is, such as a background.
