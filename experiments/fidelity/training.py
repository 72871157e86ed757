"""Networks, their training, soft labels, LfF and SelecMix."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from experiments.fidelity.system import (
    System,
    channels_last,
    convnet_params,
    difference,
    flat,
    vectors,
)
from jaxdd import networks, training
from jaxdd.training import debiased, teachers

# --- networks ----------------------------------------------------------------------------------

# Each network with the shape c, h, w of what its first linear layer flattens, in this order in
# PyTorch and as h, w, c here.
_NETWORKS = {
    "MLP": (networks.MLP(10), (3, 32, 32)),
    "LeNet": (networks.LeNet(10), (16, 5, 5)),
    "AlexNet": (networks.AlexNet(10), (192, 4, 4)),
    "VGG11": (networks.VGG11(10), (512, 1, 1)),
    "ResNet18": (networks.ResNet18(10), (512, 1, 1)),
}

_LATER_LAYERS = {"ResidualBlock": 1, "Dense": 2, "classifier": 3, "bias": 4}


def _compare_networks() -> dict[str, float]:
    arrays = vectors("networks")
    images = channels_last(arrays["images"])
    measured = {}
    for name, (network, features) in _NETWORKS.items():
        shapes = jax.eval_shape(network.init, jax.random.key(0), images)
        params = _parameters(shapes, features)
        measured[name] = difference(jax.jit(network.apply)(params, images).logits, arrays[name])
    return measured


def _parameters(shapes: Any, features: tuple[int, int, int]) -> Mapping[str, Any]:
    """Return the parameters for which the vectors were computed, see their README."""
    params = {}
    for k, (path, x) in enumerate(
        sorted(traverse_util.flatten_dict(shapes).items(), key=_position)
    ):
        places = np.arange(1, math.prod(x.shape) + 1)
        values = 2 * ((0.6180339887498949 * places + 0.7548776662466927 * k) % 1) - 1
        match path[-1], x.shape:
            case "scale", _:
                values = 1 + values / 2
            case "bias", _:
                values = values / 10
            case _, (*window, fan_in, outputs):
                if not window and fan_in == math.prod(features):
                    values = values.reshape(outputs, *features)
                else:
                    values = values.reshape(outputs, fan_in, *window)
                values *= math.sqrt(6 / values[0].size)
                values = np.moveaxis(values, (0, 1), (-1, -2)).reshape(x.shape)
        params[path] = np.float32(values)
    return traverse_util.unflatten_dict(params)


def _position(item):
    """Sort layers as PyTorch does, in the order of their definition."""
    return [
        (_LATER_LAYERS.get(kind, 0), int(index or 0), kind)
        for kind, _, index in (name.partition("_") for name in item[0])
    ]


# --- training ----------------------------------------------------------------------------------


def _compare_training() -> dict[str, float]:
    arrays = vectors("training")
    start, expected = (convnet_params(arrays, name) for name in ("start", "no_reset"))
    images, labels = (jnp.asarray(x) for x in (channels_last(arrays["images"]), arrays["labels"]))
    size = dict(epochs=int(arrays["epochs"]), batch_size=len(images))
    params = training.fit(
        jax.random.key(0), networks.ConvNet(3, 4, 2), start, images, labels,
        optimizer=training.sgd(len(images), **size), strategy=(), **size,
    )  # fmt: skip
    return {"parameters after 20 epochs": difference(flat(params), flat(expected))}


def _compare_soft_labels() -> dict[str, float]:
    arrays = vectors("soft")
    divergence = lambda student: teachers._kl_divergences(
        arrays["teacher_logits"], student, temperature=20.0
    ).mean()
    value, gradient = jax.value_and_grad(divergence)(arrays["student_logits"])

    network = networks.ConvNet(10, 8, 2, norm=networks.BatchNorm)
    teacher, start, expected = (
        convnet_params(arrays, name) for name in ("teacher", "start", "after")
    )
    images, epochs = jnp.asarray(channels_last(arrays["images"])), int(arrays["epochs"])
    soft = networks.outputs(network, teacher, images).logits
    optimizer = teachers._soft_label_optimizer(epochs)

    def loss(params):
        output, params = networks.apply_in_training(network, params, images)
        return teachers._kl_divergences(soft, output.logits, temperature=20.0).mean(), params

    state = training.init_state(start, optimizer)
    update = jax.jit(lambda state: training.update_state(state, loss, optimizer)[0])
    for _ in range(epochs):
        state = update(state)
    return {
        "divergence": difference(value, arrays["kl"]),
        "gradient of the logits": difference(gradient, arrays["kl_grad"]),
        "parameters after 12 updates": difference(
            flat(training.merge_params(state)), flat(expected)
        ),
    }


def _compare_lff() -> dict[str, float]:
    arrays = vectors("debiased")
    loss = lambda logits: debiased._biased_losses(logits, arrays["gce_labels"]).sum()
    gradient = jax.grad(loss)(arrays["gce_logits"])
    labels = jnp.asarray(arrays["ema_labels"])
    averages, weights = jnp.full((2, len(labels)), -1.0), []
    for losses, indices in zip(arrays["ema_losses"], arrays["ema_indices"], strict=True):
        new, averages = debiased._relative_losses(
            losses, averages, indices, np.ones(len(indices)), labels, smoothing=0.7, num_classes=3
        )
        weights.append(new)
    return {
        "gradient of the biased loss": difference(gradient, arrays["gce_grad_lff"]),
        "sample weights": difference(np.stack(weights), arrays["ema_weights"]),
    }


def _compare_selecmix() -> dict[str, float]:
    arrays = vectors("debiased")
    features, labels = jnp.asarray(arrays["features"]), jnp.asarray(arrays["labels"])
    partners = lambda same_class: debiased._contradicting_partners(
        same_class, features, labels, jnp.ones(len(labels))
    )
    return {
        "partners of the same class": difference(partners(True), arrays["intra"]),
        "partners of another class": difference(partners(False), arrays["inter"]),
    }


_DC = "[DatasetCondensation](https://github.com/VICO-UoE/DatasetCondensation) @ 53f63a6, MIT"

SYSTEMS: dict[str, System] = {
    "Networks": System(
        _DC,
        _compare_networks,
        {"MLP": 3e-6, "LeNet": 2e-6, "AlexNet": 1e-5, "VGG11": 1e-5, "ResNet18": 1e-5},
        note="Compared on colour images of 32 pixels; the ConvNet is part of the next system.",
        deviations=[
            (
                "grey images",
                "first convolution pads normalised 28 pixels with zeros to 32",
                "padded with black on loading",
            ),
            (
                "head of ResNet18",
                "mean over windows of 4×4",
                "mean over all pixels; the same at 32 pixels",
            ),
            ("ResNet18BN_AP, AlexNetBN", "present", "missing"),
        ],
    ),
    "Training of evaluation networks": System(
        _DC,
        _compare_training,
        {"parameters after 20 epochs": 1e-6},
        note=(
            "Compared with E epochs and without a reset. With the code as published, parameters "
            "differ by up to 17 % of the largest entry of their array after these 20 epochs."
        ),
        deviations=[
            ("epochs", "E + 1", "E"),
            (
                "learning rate divided by ten",
                "after E/2 + 2 epochs, with the momentum reset to zero",
                "after E/2 epochs, momentum kept",
            ),
            (
                "operation of the augmentation",
                "per batch (DSA)",
                "per image; on five sets the accuracy agrees to 0.1 %",
            ),
            ("batches of an epoch", "smaller last batch", "equal sizes"),
        ],
    ),
    "Soft labels": System(
        "[UniDD](https://github.com/bdy9527/UniDD) @ 4afb992, MIT",
        _compare_soft_labels,
        {"divergence": 5e-6, "gradient of the logits": 2e-6, "parameters after 12 updates": 5e-5},
        note="Compared without augmentation and CutMix.",
        deviations=[
            ("augmentation", "resized crops and flips", "that of the data"),
            ("learning rate falls", "per epoch", "per update"),
            (
                "batch",
                "CIFAR-10: 10, 50, 100 for 1, 10, 50 images per class; CIFAR-100: 20, 100, 200",
                "50",
            ),
            ("box of CutMix", "even numbers of pixels", "real-valued sides"),
            (
                "score",
                "best of every tenth epoch in the last fifth, chosen by the test set",
                "last epoch",
            ),
        ],
    ),
    "LfF": System(
        "[LfF](https://github.com/alinlab/LfF) @ e66796e, no licence",
        _compare_lff,
        {"gradient of the biased loss": 1e-6, "sample weights": 1e-6},
        deviations=[
            (
                "optimizer",
                "Adam",
                "SGD with momentum and weight decay, and the schedule of the evaluation",
            ),
            ("augmentation", "none for digits", "that of the evaluation, for both networks"),
        ],
    ),
    "SelecMix": System(
        "[SelecMix](https://github.com/iwhwang/SelecMix) @ 4247e2f, MIT",
        _compare_selecmix,
        {"partners of the same class": 0, "partners of another class": 0},
        note="Partners are compared for given features; the optimizers differ as for LfF.",
        deviations=[
            (
                "features",
                "projection of a ResNet-18 trained by a generalised contrastive loss",
                "biased network of LfF",
            ),
            (
                "partners",
                "from batches of 1,024, used for four updates",
                "from the batch of an update",
            ),
            (
                "all cosines with other classes negative",
                "partner of the same class, since the maximum is over masked products",
                "nearest sample of another class",
            ),
            (
                "no other sample of the class",
                "may be the first of the batch, since the minimum is over equal values",
                "nearest sample of another class",
            ),
        ],
    ),
}
"""Systems by title."""
