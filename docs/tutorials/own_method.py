"""The source of own_method.ipynb, which build.py makes."""

# %% title [markdown]
# # Write your own method
#
# Replace the network, the loss and the method, and keep the weights, samplers and evaluation of the
# library. The notebook runs in about a minute on two CPU cores. [Extending
# jaxdd](../guides/extending.md) describes the interfaces.

# %% sizes
import functools

from jaxdd import networks, sampling

IPC, SIZE, STEPS = 10, 64, 200  # images per class, real images per class and step, steps
START = functools.partial(sampling.initial_real, weighted=True)  # or sampling.initial_noise
STRATEGY = ("crop",)  # augmentation during distillation
ENCODER_STEPS, EPOCHS, SEEDS = 30, 100, 2
EVALUATED = networks.ConvNet(num_classes=10, width=16, depth=2)  # evaluates the sets

# %% data-text [markdown]
# ## Data, weights and sampler
#
# Load digits, 90 % of them in the colour of their class. The weights use no colour labels. The
# sampler draws samples in proportion to their weights.

# %% data
import jax
import jax.numpy as jnp
import optax

from jaxdd import evaluate, methods, weights
from jaxdd.data import benchmarks, datasets

data = benchmarks.load("cdigits", conflict=0.1)
pool, task = datasets.pool(data), datasets.task(data)
keys = jax.random.split(jax.random.key(0), 4)
density = weights.by_density(keys[0], pool, strategy=task.strategy, steps=ENCODER_STEPS)
pool = sampling.reweight(pool, density.weights)
sampler = functools.partial(sampling.weighted_batch, size=SIZE)

# %% network-text [markdown]
# ## A network
#
# A network is two functions. `init` draws parameters, `apply` returns features and logits. Matching
# uses the features, which in this example are random projections of the pixels.
#


# %% network
def init(key, images):
    return jax.random.normal(key, (images[0].size, 64)) / images[0].size ** 0.5


def apply(params, images):
    features = jax.nn.relu(images.reshape(len(images), -1) @ params)
    return features, features[:, :10]


network = networks.Functions(init, apply)

# %% loss-text [markdown]
# ## A loss
#
# Distribution matching compares mean features. This loss also compares standard deviations, which
# keeps the images of a class diverse.
#


# %% loss
def moments(real, synthetic, weights):
    """Compare features [k, b, d] and [k, m, d]; the weights [k, b] of a class sum to one."""
    mean = jnp.einsum("kb,kbd->kd", weights, real)
    variance = jnp.einsum("kb,kbd->kd", weights, (real - mean[:, None]) ** 2)
    spread = jnp.sqrt(variance + 1e-6) - jnp.sqrt(synthetic.var(1) + 1e-6)
    return jnp.sum((mean - synthetic.mean(1)) ** 2 + spread**2)


optimizer = optax.sgd(2.0, 0.5)
means = methods.distribution_matching(network, optimizer, strategy=STRATEGY)
both = methods.distribution_matching(network, optimizer, loss=moments, strategy=STRATEGY)

# %% method-text [markdown]
# ## A method
#
# A method is two pure functions: `init(images) -> state` and `step(key, state, batch) -> (state,
# info)`. This one wraps any other method and clips its images to the pixel range after each step
# (projected gradient descent).

# %% method
darkest = (0 - pool.mean) / pool.std
brightest = (1 - pool.mean) / pool.std


def within_pixels(method):
    def step(key, state, batch):
        state, info = method.step(key, state, batch)
        return state._replace(images=jnp.clip(state.images, darkest, brightest)), info

    return methods.Method(method.init, step)


candidates = {"means (DM)": means, "moments": both, "moments, within": within_pixels(both)}

# %% run-text [markdown]
# ## Run all of them
#
# All methods start from the same images and take the same number of steps. `methods.run` compiles
# ten steps into one program.

# %% run
start = START(keys[1], pool, ipc=IPC)
sets, losses = {"start": start}, {}
for name, method in candidates.items():
    parts = []
    chunks = methods.run(
        keys[2], method.init(start), pool, method=method, sampler=sampler, steps=STEPS
    )
    for _, state, info in chunks:
        sets[name] = state.images
        parts.append(info["loss"])
    losses[name] = jnp.concatenate(parts)

# %% scores
seeds = jax.random.split(keys[3], SEEDS)
scores = {
    name: evaluate.evaluate(seeds, EVALUATED, images, task, epochs=EPOCHS)
    for name, images in sets.items()
}
print(f"{'':<16} accuracy  conflicting  first and last loss")
for name, score in scores.items():
    line = f"{name:<16} {score.accuracy.mean():8.3f}  {score.conflicting.mean():11.3f}"
    if name in losses:
        line += f"  {losses[name][0]:.3f} {losses[name][-1]:.3f}"
    print(line)

# %% pictures-text [markdown]
# With two networks per set, differences of a hundredth are not significant. Most of the gain comes
# from the weights, which were also used to sample the initial images. The plot shows four images of
# each class: the initial images, then those of the methods in the order of the table.

# %% pictures
from jaxdd.runs.reports import plot

plot.picture(*(images[:, :4] for images in sets.values()), mean=data.mean, std=data.std)

# %% next [markdown]
# ## Next steps
#
# * `pipeline.run(data, folder, options.DM(), method=both)` writes a run folder, which can be
#   resumed, reported and exported. The set is evaluated with `network=`, or with the network of the
#   options if you omit it. Your method ignores the options of the built-in one, such as
#   `learning_rate`.
# * [own_network.py](../../experiments/examples/own_network.py) uses a Flax NNX network;
#   [own_weights.py](../../experiments/examples/own_weights.py) uses your own weights.
