"""Losses of FairDD, COBRA, MTT, CFM, ELF and supervised contrastive learning."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.fidelity.system import (
    System,
    channels_last,
    convnet_params,
    difference,
    flat,
    vectors,
)
from jaxdd import matching, methods, networks, sampling
from jaxdd.methods import cfm, expert_training, spectral
from jaxdd.training import elf
from jaxdd.weights import contrastive

# The state of this optimizer of images is their gradient, and the images do not change.
_GRADIENT = optax.chain(optax.trace(0.0), optax.scale(0.0))


def _gradient(state: Any) -> np.ndarray:
    return np.asarray(state[0].trace)


def _by_group(name: str, **options: Any) -> dict[str, float]:
    """Compare one step of distribution matching with a loss over the bias groups.

    Args:
        name: prefix of the vectors.
        **options: arguments of `distribution_matching`, as functions of the number of groups.
    """
    arrays = vectors("fairdd_cobra")
    params = convnet_params(arrays, "param")
    convnet = networks.ConvNet(3, width=8)
    network = networks.Functions(lambda key, images: params, convnet.apply)
    # Every group has all images of its class, with weight zero for those of other groups.
    groups = arrays["color"].max() + 1
    weights = (arrays["color"][:, None] == np.arange(groups)[:, None]).astype(np.float32)
    real = channels_last(arrays["real"])[:, None].repeat(groups, 1)
    batch = sampling.Batch(*(jnp.asarray(x.reshape(3, -1, *x.shape[3:])) for x in (real, weights)))
    method = methods.distribution_matching(
        network, _GRADIENT, strategy=(), **{key: value(groups) for key, value in options.items()}
    )
    state = method.init(jnp.asarray(channels_last(arrays["syn"])))
    state, info = jax.jit(method.step)(jax.random.key(0), state, batch)
    gradient = channels_last(arrays[f"{name}_grad"])
    return {
        "loss": difference(info["loss"], arrays[f"{name}_loss"]),
        "gradient of the images": difference(_gradient(state.optimizer), gradient),
    }


def _barycentre(groups: int) -> Any:
    return functools.partial(matching.barycentre, groups=groups)


def _mtt() -> dict[str, float]:
    """Compare one step of trajectory matching."""
    arrays = vectors("mtt")
    # Images of a class are adjacent here; a student that sees all at once ignores their order.
    order = np.argsort(arrays["labels"], kind="stable")
    by_class = lambda x: channels_last(x)[order].reshape(3, 2, 16, 16, 3)
    rate = float(arrays["rate"])
    method = methods.trajectory_matching(
        networks.ConvNet(3, width=8), _GRADIENT, rate_optimizer=_GRADIENT,
        inner=int(arrays["inner"]), rate=rate, strategy=(),
    )  # fmt: skip
    start, target = (convnet_params(arrays, name) for name in ("start", "target"))
    state = method.init(jnp.asarray(by_class(arrays["images"])))
    segment = expert_training.Segment(start, target)
    state, info = jax.jit(method.step)(jax.random.key(0), state, segment)
    images, log_rate = map(_gradient, state.optimizer)
    return {
        "loss": difference(info["loss"], arrays["loss"]),
        "gradient of the images": difference(images, by_class(arrays["image_grad"])),
        "gradient of the rate": difference(log_rate / rate, arrays["rate_grad"]),
    }


def _cfm() -> dict[str, float]:
    """Compare statistics of a batch, and the step of each image with the statistics of its own."""
    arrays, network = vectors("cfm"), networks.ConvNet(4, 6, 2, norm=networks.BatchNorm)
    params = convnet_params(arrays, "teacher")
    extract = lambda images: networks.trace_convolutions(network, params, images)[1]
    real = jax.jit(functools.partial(spectral.statistics, num_classes=4, extract=extract))(
        channels_last(arrays["real"]), arrays["labels"]
    )
    measured: dict[str, list[float]] = {}
    add = lambda what, *pair: measured.setdefault(what, []).append(difference(*pair))
    for i, layer in enumerate(real):
        share = layer.class_mass / layer.mass
        add("covariance", spectral.covariance(layer), arrays[f"cov_one_{i}"])
        add("mean", layer.mean, arrays[f"mean_{i}"])
        add("class means", layer.class_means.T * share, arrays[f"class_mean_{i}"])
    guide = cfm.Guide(params, real, *(jnp.full(3, x) for x in (-jnp.inf, jnp.inf)))
    images = jnp.asarray(channels_last(arrays["syn"]).swapaxes(0, 1))
    # Statistics of all images so far ("ema") agree by definition for the first image only.
    for signal, kind, count in (("mean", "own", 3), ("class", "own", 3), ("class", "ema", 1)):
        method = methods.curriculum_matching(
            network, _GRADIENT, length=1, beta=float(arrays["betas"][0]), signal=signal,
            cumulative=kind == "ema", strategy=(),
        )  # fmt: skip
        state, step = method.init(images), jax.jit(method.step)
        for b in range(count):
            state, info = step(jax.random.key(b), state, guide)
            name = f"{signal}_{kind}_{b}"
            add("cross-entropy", info["cross_entropy"], arrays[f"{name}_ce"])
            add("distance", info["distance"], arrays[f"{name}_distance"])
            gradient = channels_last(arrays[f"{name}_grad"])
            add("gradient of the images", _gradient(state.optimizer), gradient)
    return {what: max(values) for what, values in measured.items()}


def _elf() -> dict[str, float]:
    """Compare the three terms and the gradient of their sum."""
    arrays, network = vectors("elf"), networks.ConvNet(10, width=8)
    images, z = (channels_last(arrays[name]) for name in ("images", "convnet/z"))

    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params):
        values, _ = elf._losses(network, params, images, arrays["labels"], z, split=3)
        means = {name: value.mean() for name, value in values.items()}
        return sum(means.values()), means

    (_, terms), gradient = jax.jit(loss)(convnet_params(arrays, "convnet/start"))
    expected = flat(convnet_params(arrays, "convnet/grad"))
    result = {name: difference(value, arrays[f"convnet/{name}"]) for name, value in terms.items()}
    return result | {"gradient of the parameters": difference(flat(gradient), expected)}


def _contrastive() -> dict[str, float]:
    """Compare the loss of both views at three temperatures, and that of the first views alone."""
    arrays = vectors("supcon")
    views = arrays["embeddings"].swapaxes(0, 1)
    value_and_grad = jax.jit(jax.value_and_grad(contrastive.supervised_contrastive))
    measured = {"loss": 0.0, "gradient of the embeddings": 0.0}
    cases = [(f"loss_{t}", f"grad_{t}", 2, t) for t in (0.07, 0.1, 0.5)]
    for *names, count, temperature in [*cases, ("single_loss", "single_grad", 1, 0.1)]:
        embeddings = views[:count].reshape(-1, views.shape[-1])
        labels = np.tile(arrays["labels"], count)
        results = value_and_grad(embeddings, labels, temperature=temperature)
        for what, name, result in zip(measured, names, results, strict=True):
            expected = arrays[name].reshape(np.shape(result))
            measured[what] = max(measured[what], difference(result, expected))
    return measured


SYSTEMS: dict[str, System] = {
    "FairDD, distribution matching": System(
        "[FairDD](https://github.com/zqhang/FairDD) @ 5e6af8e, no licence",
        functools.partial(_by_group, "fairdd", groups=int),
        {"loss": 2e-6, "gradient of the images": 3e-6},
        deviations=[
            (
                "groups in a batch",
                "split of a uniform batch of 256",
                "equally many images each: same expectation unless a group is absent, but far "
                "lower variance, so the row `fairdd` is stronger than FairDD as published",
            ),
            ("group without test images", "accuracy 0", "left out"),
            ("random network with batch norm", "batch statistics", "initial running statistics"),
        ],
    ),
    "COBRA, distribution matching": System(
        "[COBRA](https://github.com/mhmoslemi/COBRA) @ aa567ff, MIT",
        functools.partial(_by_group, "cobra", loss=_barycentre),
        {"loss": 1e-6, "gradient of the images": 2e-6},
        note="Compared with the squared distance.",
        deviations=[
            ("distance", "L1", "squared; L1 in the row `cobra-l1`"),
            (
                "network of a step",
                "trained on the set for 10 epochs (50 or 100 with as many images per class)",
                "random",
            ),
            ("groups in a batch", "split of 600 images of each class", "equally many images each"),
            ("steps", "2,600", "any number"),
        ],
    ),
    "MTT": System(
        "[mtt-distillation](https://github.com/GeorgeCazenavette/mtt-distillation) @ 50dccea, MIT",
        _mtt,
        {"loss": 1e-6, "gradient of the images": 3e-6, "gradient of the rate": 1e-6},
        deviations=[
            (
                "rate",
                "updated directly",
                "its logarithm is updated, so it stays positive; near 0.01 the step is the same",
            ),
            ("images of an inner step", "smaller last batch", "batches can span two permutations"),
            ("experts", "taken in turn", "drawn independently"),
            ("batches of experts", "all images shuffled", "equally many images of each class"),
        ],
    ),
    "CFM": System(
        "[UniDD](https://github.com/bdy9527/UniDD) @ 4afb992, MIT",
        _cfm,
        {
            "covariance": 3e-6,
            "mean": 5e-7,
            "class means": 5e-7,
            "cross-entropy": 3e-7,
            "distance": 1e-6,
            "gradient of the images": 2e-6,
        },
        deviations=[
            (
                "covariance",
                "mean of the covariances of all batches (real images) or steps (synthetic images)",
                "covariance of all images together; from the second image on, this changes the "
                "distance by up to 2 % and the gradient by up to 12 % in this comparison",
            ),
            ("crops, flips and rolls", "per step", "per image"),
            ("β", "no floor", "at least 0.001"),
            ("default signal", "mean (commands), class means (paper)", "class means"),
            (
                "statistics compared",
                "of all images so far with `--ema`, which the README omits",
                "of all images so far",
            ),
            ("initial images", "first of each class", "random"),
            ("stored images", "JPEG", "float32"),
            (
                "CIFAR-100",
                "test images normalised by ImageNet, synthetic images by CIFAR-100",
                "the same constants for both",
            ),
        ],
    ),
    "ELF": System(
        "[ELF](https://github.com/Lirui-Zhao/ELF) @ a16e4f5, no licence",
        _elf,
        {"front": 3e-7, "rear": 1e-6, "task": 5e-7, "gradient of the parameters": 6e-6},
        deviations=[
            ("augmentation", "one operation per batch", "drawn per image"),
            ("features", "of an MTT expert", "of any teacher"),
        ],
    ),
    "Supervised contrastive learning": System(
        "[SupContrast](https://github.com/HobbitLong/SupContrast) @ 66a8fe5, BSD-2-Clause",
        _contrastive,
        {"loss": 1e-6, "gradient of the embeddings": 1e-6},
        note="Compared with `base_temperature` = τ.",
        deviations=[
            ("factor of the loss", "τ / `base_temperature`, 0.07 by default: 1.43 at τ = 0.1", "1")
        ],
    ),
}
"""Systems by title."""
