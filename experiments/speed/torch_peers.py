"""Implementations in straightforward eager PyTorch, which the benchmark compares with jaxdd.

Nothing in jaxdd needs it. Images are [n, channels, height, width]. `wrap` is `torch.compile`,
`channels_last` or `eager`, applied to a network. tests/experiments/test_torch_peers.py checks that
losses and gradients equal those of jaxdd.
"""

import functools
import itertools
import math
import random
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

# torch.compile gives up on a function that it has compiled this often. All networks of a benchmark
# have the same forward function, and each compiles a version per shape, with and without gradient.
torch._dynamo.config.recompile_limit = 64

OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")


class Augmentation(NamedTuple):
    """Parameters for a batch, with a leading axis of one or of the batch; see `jaxdd.augment`."""

    brightness: torch.Tensor
    saturation: torch.Tensor
    contrast: torch.Tensor
    shift: torch.Tensor
    flip: torch.Tensor
    scale: torch.Tensor
    angle: torch.Tensor
    cutout_centre: torch.Tensor
    cutout_size: torch.Tensor


def draw(n: int, side: int, strategy, device) -> Augmentation:
    """Draw one operation and its parameters for each of `n` square images."""
    chosen = torch.randint(len(strategy), (n,), device=device)
    u, v, w = torch.rand(3, n, device=device)

    def where(name, value, otherwise):
        used = (
            chosen == strategy.index(name) if name in strategy else torch.zeros_like(chosen).bool()
        )
        return torch.where(used if value.ndim == 1 else used[:, None], value, otherwise)

    pair = torch.stack([u, v], 1)
    reach, cut = int(side / 8 + 0.5), int(side / 2 + 0.5)
    return Augmentation(
        brightness=where("color", u - 0.5, 0.0),
        saturation=where("color", 2 * v, 1.0),
        contrast=where("color", w + 0.5, 1.0),
        shift=where("crop", torch.floor(pair * (2 * reach + 1)) - reach, 0.0),
        flip=where("flip", u < 0.5, False),
        scale=where("scale", pair * (1.2 - 1 / 1.2) + 1 / 1.2, 1.0),
        angle=where("rotate", torch.deg2rad(15 * (2 * u - 1)), 0.0),
        cutout_centre=where("cutout", torch.floor(pair * (side + 1)), 0.0),
        cutout_size=where("cutout", torch.full_like(pair, cut), 0.0),
    )


def augment(one: Augmentation, images: torch.Tensor, operations=OPERATIONS) -> torch.Tensor:
    """Apply the named operations, all others being identities."""
    if "color" in operations:
        brightness, saturation, contrast = (x[:, None, None, None] for x in one[:3])
        images = images + brightness
        mean = images.mean(1, keepdim=True)
        images = (images - mean) * saturation + mean
        mean = images.mean((1, 2, 3), keepdim=True)
        images = (images - mean) * contrast + mean
    if {"crop", "flip", "scale", "rotate"} & set(operations):
        images = _resample(one, images)
    if "cutout" in operations:
        start = one.cutout_centre - one.cutout_size // 2
        end = start + one.cutout_size
        rows, columns = (torch.arange(n, device=images.device) for n in images.shape[2:])
        rows = (rows >= start[:, :1]) & (rows < end[:, :1])
        columns = (columns >= start[:, 1:]) & (columns < end[:, 1:])
        images = images.masked_fill((rows[:, :, None] & columns[:, None])[:, None], 0)
    return images


def _resample(one, images):
    height, width = images.shape[2:]
    device, middle = images.device, ((height - 1) / 2, (width - 1) / 2)
    down = (torch.arange(height, device=device) - middle[0])[None, :, None] * one.scale[:, :1, None]
    right = (torch.arange(width, device=device) - middle[1])[None, None] * one.scale[:, 1:, None]
    right = torch.where(one.flip[:, None, None], -right, right)
    cos, sin = torch.cos(one.angle)[:, None, None], torch.sin(one.angle)[:, None, None]
    rows = cos * down + sin * right + one.shift[:, :1, None]
    columns = cos * right - sin * down + one.shift[:, 1:, None]
    grid = torch.stack([columns / middle[1], rows / middle[0]], -1)
    return functional.grid_sample(
        images, grid.expand(len(images), -1, -1, -1), padding_mode="zeros", align_corners=True
    )


def siamese(strategy, side: int, device) -> Callable[[torch.Tensor], torch.Tensor]:
    """Draw one operation; return the function that applies it to any batch."""
    if not strategy:
        return lambda images: images
    # All images of a class share one operation and its parameters, as in the published code.
    name = (random.choice(strategy),)
    one = draw(1, side, name, device)
    return lambda images: augment(one, images, name)


def per_image(images: torch.Tensor, strategy) -> torch.Tensor:
    """Augment each image by its own operation."""
    return augment(draw(len(images), images.shape[2], strategy, images.device), images, strategy)


class ConvNet(nn.Module):
    """The literature's ConvNet; returns flattened features and logits.

    `norm` is True for instance norm, a module such as nn.BatchNorm2d, or None for none.
    """

    def __init__(self, channels, num_classes, width, side, *, depth=3, norm=True):
        super().__init__()
        widths = [channels] + [width] * depth
        blocks = []
        for i, o in itertools.pairwise(widths):
            blocks += [nn.Conv2d(i, o, 3, padding=1)]
            blocks += [nn.GroupNorm(o, o) if norm is True else norm(o)] if norm else []
            blocks += [nn.ReLU(), nn.AvgPool2d(2)]
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width * (side // 2**depth) ** 2, num_classes)

    def forward(self, images):
        features = self.blocks(images).flatten(1)
        return features, self.classifier(features)


def eager(network: nn.Module) -> Callable:
    """Leave a network as it is."""
    return network


def channels_last(network: nn.Module) -> Callable:
    """Lay a network and its images out with the channels last."""
    last = torch.channels_last
    network.to(memory_format=last)
    return lambda images: network(images.contiguous(memory_format=last))


WRAPPERS = {
    "torch eager": eager,
    "torch channels-last": channels_last,
    "torch.compile": torch.compile,
}
if torch.cuda.is_available():
    WRAPPERS["torch.compile, CUDA graphs"] = functools.partial(
        torch.compile, mode="reduce-overhead"
    )


def in_bfloat16(wrap: Callable[[nn.Module], Callable]) -> Callable[[nn.Module], Callable]:
    """Return a wrapper that also computes the network in bfloat16 where PyTorch allows it."""

    def wrapped(network):
        inner = wrap(network)

        def outputs(images):
            with torch.autocast(images.device.type, torch.bfloat16):
                features, logits = inner(images)
            return features.float(), logits.float()

        return outputs

    return wrapped


def reset(network: nn.Module) -> None:
    """Initialise a network again, as torch does."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.GroupNorm):
            layer.reset_parameters()


def load(network: ConvNet, params) -> None:
    """Copy the parameters of a `jaxdd.networks.ConvNet` (as NumPy arrays)."""
    statistics, params = params.get("batch_stats", {}), params["params"]
    layers = {"Conv": nn.Conv2d, "InstanceNorm": nn.GroupNorm, "BatchNorm": nn.BatchNorm2d}
    with torch.no_grad():
        for name, kind in layers.items():
            layers_of_kind = [layer for layer in network.blocks if isinstance(layer, kind)]
            for i, layer in enumerate(layers_of_kind):
                values = params[f"{name}_{i}"]
                weight = (
                    values["kernel"].transpose(3, 2, 0, 1) if name == "Conv" else values["scale"]
                )
                layer.weight.copy_(torch.tensor(weight))
                layer.bias.copy_(torch.tensor(values["bias"]))
                if name == "BatchNorm":
                    layer.running_mean.copy_(torch.tensor(statistics[f"{name}_{i}"]["mean"]))
                    layer.running_var.copy_(torch.tensor(statistics[f"{name}_{i}"]["var"]))
        kernel = params["classifier"]["kernel"]
        width = next(x for x in reversed(network.blocks) if isinstance(x, nn.Conv2d)).out_channels
        side = math.isqrt(len(kernel) // width)
        kernel = kernel.reshape(side, side, width, -1).transpose(3, 2, 0, 1)
        network.classifier.weight.copy_(torch.tensor(kernel.reshape(len(kernel), -1)))
        network.classifier.bias.copy_(torch.tensor(params["classifier"]["bias"]))


def distribution_loss(network, transforms, real, weights, synthetic):
    """The loss of distribution matching, class after class as in the published code.

    `real` is a list of [b, c, h, w], `synthetic` [k, ipc, c, h, w], `weights` [k, b].
    """
    loss = 0
    for transform, images, weight, block in zip(transforms, real, weights, synthetic, strict=True):
        with torch.no_grad():
            target = weight @ network(transform(images))[0]
        loss = loss + (target - network(transform(block))[0].mean(0)).square().sum()
    return loss


def gradient_loss(network, transform, real, synthetic, label):
    """The loss of gradient matching for one class, cosine distance row by row."""
    params = [p for p in network.parameters() if p.ndim > 1]

    def gradient(images, create_graph):
        logits = network(transform(images))[1]
        labels = torch.full((len(images),), label, device=images.device)
        loss = functional.cross_entropy(logits, labels)
        return torch.autograd.grad(loss, params, create_graph=create_graph)

    distance = 0
    for target, own in zip(gradient(real, False), gradient(synthetic, True), strict=True):
        target, own = target.flatten(1), own.flatten(1)
        lengths = target.norm(dim=1) * own.norm(dim=1)
        distance = distance + (1 - (target * own).sum(1) / (lengths + 1e-6)).sum()
    return distance


def moments(images, labels, num_classes):
    """Return the covariance of the pixels that enter a convolution, and Φ."""
    flat = images.flatten(2).transpose(1, 2)
    centred = flat.reshape(-1, flat.shape[2])
    centred = centred - centred.mean(0)
    classes = functional.one_hot(labels, num_classes).to(flat.dtype)
    return centred.T @ centred / len(centred), flat.mean(1).T @ classes / len(flat)


def frequency_loss(network, images, labels, real, beta, eta):
    """The loss of curriculum frequency matching; `real` are moments at each convolution's input."""
    seen, hooks = [], []
    for layer in network.blocks:
        if isinstance(layer, nn.Conv2d):
            hooks.append(layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])))
    logits = network(images)[1]
    for hook in hooks:
        hook.remove()
    loss = functional.cross_entropy(logits, labels)
    for layer_input, (psi, phi) in zip(seen, real, strict=True):
        own, signal = moments(layer_input, labels, phi.shape[1])
        ridge = beta * torch.eye(len(psi), device=psi.device)
        one, other = (torch.linalg.inv(each + ridge) for each in (psi, own))
        loss = loss + eta * ((one - other).norm() + (one @ phi - other @ signal).norm())
    return loss


def contrastive_loss(embeddings, labels, temperature=0.1):
    """The supervised contrastive loss."""
    similarity = embeddings @ embeddings.T / temperature
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive = (labels[:, None] == labels) & ~itself
    total = similarity.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
    share = torch.where(positive, similarity - total, 0)
    return -(share.sum(1) / positive.sum(1).clamp(min=1)).mean()


class Pool(NamedTuple):
    """Training images uint8 [n, c, h, w] sorted by class, equally many of each, on the device."""

    images: torch.Tensor
    num_classes: int

    def batch(self, label: int, size: int) -> torch.Tensor:
        """Draw `size` normalised images of a class."""
        each = len(self.images) // self.num_classes
        indices = torch.randint(each, (size,), device=self.images.device) + label * each
        return normalise(self.images[indices])


class WeightedPool(NamedTuple):
    """Training images uint8 [n, c, h, w] of every class, and their weights [n], on the device."""

    images: list[torch.Tensor]
    weights: list[torch.Tensor]

    def batch(self, label: int, size: int) -> torch.Tensor:
        """Draw `size` normalised images of a class by their weights."""
        return normalise(self.images[label][torch.multinomial(self.weights[label], size, True)])

    def subset(self, label: int, size: int) -> torch.Tensor:
        """Draw images like `batch`, each at most once."""
        return normalise(self.images[label][torch.multinomial(self.weights[label], size)])


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Convert uint8 to float32 of mean and standard deviation one half."""
    return (images.float() / 255 - 0.5) / 0.5


def distribution_matching(
    pool: Pool | WeightedPool, *, width, real, ipc, wrap=eager, images=None, strategy=OPERATIONS
) -> Callable[[], float]:
    """Return a function that does one DM step, including sampling and initialisation.

    `images` [k, ipc, c, h, w] are updated; noise by default.
    """
    num_classes, (channels, side, _), device = described(pool)
    with torch.device(device):
        network = ConvNet(channels, num_classes, width, side)
    features = wrap(network)
    if images is None:
        shape = num_classes, ipc, channels, side, side
        images = torch.randn(shape, device=device, requires_grad=True)
    optimizer = torch.optim.SGD([images], lr=1.0, momentum=0.5)
    weights = torch.full((num_classes, real), 1 / real, device=device)

    def step():
        reset(network)
        transforms = [siamese(strategy, side, device) for _ in range(num_classes)]
        batches = (pool.batch(label, real) for label in range(num_classes))
        loss = distribution_loss(features, transforms, batches, weights, images)
        optimizer.zero_grad()
        loss.backward(inputs=[images])
        optimizer.step()
        return loss.detach()

    return step


def described(pool: Pool | WeightedPool):
    """Return the number of classes, the shape of an image, and the device of a pool."""
    if isinstance(pool, WeightedPool):
        return len(pool.images), pool.images[0].shape[1:], pool.images[0].device
    return pool.num_classes, pool.images.shape[1:], pool.images.device


def gradient_matching(pool: Pool, *, width, real, ipc) -> Callable[[], float]:
    """Return a function that does one DSA match step. (torch.compile has no double backward.)"""
    shape, device = pool.images.shape[1:], pool.images.device
    with torch.device(device):
        network = ConvNet(shape[0], pool.num_classes, width, shape[1])
    images = torch.randn(pool.num_classes, ipc, *shape, device=device, requires_grad=True)
    optimizer = torch.optim.SGD([images], lr=0.1, momentum=0.5)

    def step():
        reset(network)
        optimizer.zero_grad()
        for label in range(pool.num_classes):
            transform = siamese(OPERATIONS, shape[1], device)
            batch = pool.batch(label, real)
            gradient_loss(network, transform, batch, images[label], label).backward(inputs=[images])
        optimizer.step()

    return step


def curriculum_matching(pool: Pool, *, width) -> Callable[[], float]:
    """Return a function that does one CFM step: an update of one image of each class.

    The teacher is untrained, which takes as long.
    """
    shape, device = pool.images.shape[1:], pool.images.device
    with torch.device(device):
        network = ConvNet(shape[0], pool.num_classes, width, shape[1], norm=nn.BatchNorm2d).eval()
    network.requires_grad_(False)
    labels = torch.arange(pool.num_classes, device=device)
    images = torch.randn(pool.num_classes, *shape, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([images], lr=0.25, betas=(0.5, 0.9))
    batch, inputs = normalise(pool.images[: 4 * len(labels)]), []
    for layer in network.blocks:
        if isinstance(layer, nn.Conv2d):
            inputs.append(moments(batch, labels.repeat(4), len(labels)))
        batch = layer(batch)

    def step():
        rolls = [random.randint(0, 4) for _ in range(2)]
        views = torch.roll(per_image(images, ("scale", "flip")), rolls, (2, 3))
        loss = frequency_loss(network, views, labels, inputs, 0.1, 0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # Pixels in [0, 1] are normalised to [-1, 1].
        with torch.no_grad():
            images.clamp_(-1, 1)
        return loss.detach()

    return step


def evaluation(pool: Pool, images, labels, *, width, seeds, epochs, wrap=eager):
    """Return a function that trains `seeds` networks on a set and gives their test accuracies.

    The test set is all of the pool's, labelled by class. The set must fit one batch.
    """
    device, (channels, side, _) = pool.images.device, pool.images.shape[1:]
    each = len(pool.images) // pool.num_classes
    test_labels = torch.arange(pool.num_classes, device=device).repeat_interleave(each)
    with torch.device(device):
        network = ConvNet(channels, pool.num_classes, width, side)
    logits = wrap(network)

    def train():
        reset(network)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [epochs // 2], 0.1)
        for _ in range(epochs):
            order = torch.randperm(len(images), device=device)
            views = per_image(images[order], OPERATIONS)
            loss = functional.cross_entropy(logits(views)[1], labels[order])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    @torch.no_grad()
    def accuracy():
        batches = (logits(normalise(b))[1].argmax(1) for b in pool.images.split(500))
        return (torch.cat(list(batches)) == test_labels).float().mean()

    def run():
        scores = []
        for _ in range(seeds):
            train()
            scores.append(accuracy())
        return torch.stack(scores)

    return run


def contrastive(pool: Pool | WeightedPool, *, width, batch, wrap=eager, strategy=OPERATIONS):
    """Return a function that does one step of supervised contrastive training, and the encoder."""
    num_classes, (channels, side, _), device = described(pool)
    each = batch // num_classes
    labels = torch.arange(num_classes, device=device).repeat_interleave(each).repeat(2)
    with torch.device(device):
        network = ConvNet(channels, num_classes, width, side, norm=False)
        size = network.classifier.in_features
        head = nn.Sequential(nn.Linear(size, 128), nn.ReLU(), nn.Linear(128, 128))
    features = wrap(network)
    params = [*network.blocks.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(params, lr=1e-3)
    encoder = lambda images: functional.normalize(head(features(images)[0]))

    def step():
        images = torch.cat([pool.batch(label, each) for label in range(num_classes)])
        views = torch.cat([per_image(images, strategy) for _ in range(2)])
        loss = contrastive_loss(encoder(views), labels)
        optimizer.zero_grad()
        loss.backward(inputs=params)
        optimizer.step()
        return loss.detach()

    return step, encoder


def embeddings(
    pool: WeightedPool, *, width, batch, steps, strategy, wrap=eager
) -> list[torch.Tensor]:
    """Train an encoder and return the embeddings of each class."""
    step, encoder = contrastive(pool, width=width, batch=batch, strategy=strategy, wrap=wrap)
    for _ in range(steps):
        step()
    with torch.no_grad():
        return [
            torch.cat([encoder(normalise(part)) for part in images.split(500)])
            for images in pool.images
        ]


def inverse_density(embeddings: torch.Tensor, factor: float) -> torch.Tensor:
    """Weights of a class from its embeddings; `factor` is that of jaxdd's `mean_distance`."""
    # Half the mean squared distance of points is the sum of their variances.
    bandwidth = math.sqrt(factor * embeddings.var(0, correction=0).sum())
    return torch.softmax(-class_log_density(embeddings, 1, bandwidth), 0)


def class_log_density(embeddings, num_classes, bandwidth, tile=2000):
    """Log kernel density of each sample under its class; classes sorted and of one size."""
    blocks, parts = embeddings.reshape(num_classes, -1, embeddings.shape[1]), []
    normaliser = math.log(blocks.shape[1])
    normaliser += embeddings.shape[1] * math.log(bandwidth * math.sqrt(2 * math.pi))
    for points in blocks:
        for queries in points.split(tile):
            squared = torch.cdist(queries, points).square()
            parts.append(torch.logsumexp(squared / (-2 * bandwidth**2), 1) - normaliser)
    return torch.cat(parts)
