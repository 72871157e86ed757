"""The source of quickstart.ipynb, which build.py makes."""

# %% title [markdown]
# # Quickstart
#
# Distil 1,437 small digits into ten images per class. Each class has its own colour, which 90 % of
# its digits have. Networks trained on a plainly distilled set therefore learn the colours. Density
# weights counteract this without colour labels. The notebook runs in about a minute on two CPU
# cores.

# %% data-text [markdown]
# ## Data
#
# Load a benchmark and plot ten images of each class. The colours are the bias attribute; they are
# used for evaluation only.

# %% data
import functools

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

from jaxdd import evaluate, methods, networks, sampling, weights
from jaxdd.data import benchmarks, datasets
from jaxdd.runs.reports import plot

data = benchmarks.load("cdigits", conflict=0.1)
pool, task = datasets.pool(data), datasets.task(data)

# %% data-shown
labels = data.train.labels
conflicting = data.train.attributes != np.array(data.aligned)[labels]
print(f"{len(labels):,} images, {conflicting.mean():.0%} bias-conflicting")
shown = np.stack([data.train.images[labels == k][:10] for k in range(data.num_classes)])
plot.picture(shown / 255)

# %% weights-text [markdown]
# ## Weights
#
# Train a small encoder for a few steps. It learns the easiest feature first, the colour. The weight
# of a sample is the inverse density of its embedding within its class, so [rare colours gain
# weight](../concepts/density_weights.md).

# %% weights
key_weights, key_start, key_run, key_score = jax.random.split(jax.random.key(0), 4)
density = weights.by_density(key_weights, pool, strategy=task.strategy, steps=10)
pool = sampling.reweight(pool, density.weights)

# %% weights-shown
relative = np.asarray(density.weights) * np.bincount(labels)[labels]
bins = np.geomspace(relative.min(), relative.max(), 40)
plt.figure(figsize=(6, 3), layout="constrained")
for name, members in {"aligned": ~conflicting, "conflicting": conflicting}.items():
    share = np.asarray(density.weights)[members].sum() / data.num_classes
    plt.hist(relative[members], bins, alpha=0.7, label=f"{name}: {share:.0%} of the weight")
plt.xscale("log")
plt.xlabel("weight / uniform weight")
plt.ylabel("samples")
plt.legend()
plt.show()

# %% distil-text [markdown]
# ## Distillation
#
# Distribution matching moves the synthetic images until random networks map them to the same mean
# features as real images. Batches are sampled in proportion to the weights. To get plain
# distillation, leave out the line with `sampling.reweight`.

# %% distil
network = networks.ConvNet(task.num_classes, width=16, depth=2)
method = methods.distribution_matching(network, optax.sgd(1.0, 0.5), strategy=task.strategy)
sampler = functools.partial(sampling.weighted_batch, size=64)
state = method.init(sampling.initial_real(key_start, pool, ipc=10, weighted=True))
chunks = methods.run(key_run, state, pool, method=method, sampler=sampler, steps=20)
for step, state, info in chunks:  # log, save or evaluate here
    print(f"step {step}, loss {info['loss'][-1]:.2f}")

# %% distil-shown
plot.picture(state.images, mean=data.mean, std=data.std)

# %% scores-text [markdown]
# ## Evaluation
#
# Train new networks on the synthetic set and evaluate them on test digits whose colour is
# independent of the class.

# %% scores
scores = evaluate.evaluate(jax.random.split(key_score), network, state.images, task, epochs=60)
for name in ("accuracy", "aligned", "conflicting"):
    print(f"{name:<11} {getattr(scores, name).mean():.3f}")

# %% command-line [markdown]
# ## On the command line
#
# ```
# jaxdd demo --out demo     # compares five sets, in about a minute
# jaxdd report demo         # writes demo/report.html
# ```
#
# The report shows accuracies with intervals, the synthetic sets, and the real images with the
# largest and smallest weights:
#
# ![Top of the report: accuracy of five sets on all, aligned and conflicting test
# images](../images/screenshot_report.png)

# %% next [markdown]
# ## Next steps
#
# * Other data: [Is my data biased?](bias.ipynb), [Distil your own images](own_data.ipynb), and the
#   [gallery of benchmarks](../gallery.md).
# * Other methods: [Write your own method](own_method.ipynb).
# * Full scale: `jaxdd compare cmnist --conflict 0.05 --preset paper` runs 20,000 steps and trains
#   networks of width 128. It is meant for a GPU, on which jaxdd has not been timed yet.
