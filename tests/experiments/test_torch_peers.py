"""The peers of the benchmark compute the same as jaxdd; these tests need PyTorch."""

import csv
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxdd
from experiments.speed import tables, workloads
from experiments.tools import record
from jaxdd import augment, evaluate, kde, matching, networks, training
from jaxdd.data import benchmarks
from jaxdd.methods import spectral
from jaxdd.runs import options
from jaxdd.runs.trust import publication
from jaxdd.weights import contrastive

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from experiments.examples import train_in_torch  # noqa: E402
from experiments.speed import torch_peers as peers  # noqa: E402

KEY = jax.random.key(0)
TINY = workloads.Sizes(
    classes=2, real=4, ipc=2, side=8, width=4, steps=1, epochs=1, test=4, batch=4, encoder_width=4,
    points=40, dimension=12,
)  # fmt: skip


def setting(norm=networks.InstanceNorm):
    """A network in both libraries, with a real and a synthetic batch of two classes."""
    network = networks.ConvNet(2, width=4, norm=norm)
    real, synthetic = (
        jax.random.normal(jax.random.key(i), (2, n, 16, 16, 3)) for i, n in enumerate((5, 3))
    )
    params = jax.jit(network.init)(jax.random.key(2), real[0])
    if norm is networks.BatchNorm:
        params["batch_stats"] = jax.tree.map(lambda x: x + 0.3, params["batch_stats"])
    kinds = {networks.InstanceNorm: True, networks.BatchNorm: torch.nn.BatchNorm2d, None: None}
    twin = peers.ConvNet(3, 2, 4, 16, norm=kinds[norm])
    peers.load(twin, jax.device_get(params))
    return network, params, twin, real, synthetic


def torch_images(images):
    axes = (*range(images.ndim - 3), images.ndim - 1, images.ndim - 3, images.ndim - 2)
    return torch.tensor(np.asarray(images.transpose(axes)))


def jax_images(images):
    axes = (*range(images.ndim - 3), images.ndim - 2, images.ndim - 1, images.ndim - 3)
    return images.detach().numpy().transpose(axes)


def twin_of(augmentation):
    """Convert an `augment.Augmentation`, or a batch of them, to that of the peer."""

    as_batch = lambda x: torch.tensor(np.asarray(x))
    return peers.Augmentation(*(as_batch(x) for x in augmentation))


def test_peer_augmentation():
    images = jax.random.normal(KEY, (40, 16, 16, 3))
    keys = jax.random.split(jax.random.key(1), 40)
    drawn = jax.jit(jax.vmap(lambda key: augment.draw(key, (16, 16, 3))))(keys)
    expected = jax.jit(jax.vmap(augment.apply))(drawn, images)
    value = peers.augment(twin_of(drawn), torch_images(images))
    np.testing.assert_allclose(jax_images(value), expected, atol=2e-4)


def test_peer_distribution_matching():
    network, params, twin, real, synthetic = setting()
    weights = jax.random.uniform(KEY, (2, 5))
    weights = weights / weights.sum(1, keepdims=True)

    def loss(synthetic):
        features = lambda x: network.apply(params, x.reshape(-1, 16, 16, 3)).features
        blocks = (features(x).reshape(*x.shape[:2], -1) for x in (real, synthetic))
        return matching.distribution(*blocks, weights)

    expected, slope = jax.jit(jax.value_and_grad(loss))(synthetic)
    images = torch_images(synthetic).requires_grad_()
    same = [lambda x: x] * 2
    weights = torch.tensor(np.asarray(weights))
    value = peers.distribution_loss(twin, same, torch_images(real), weights, images)
    value.backward()
    np.testing.assert_allclose(value.item(), expected, rtol=1e-4)
    np.testing.assert_allclose(jax_images(images.grad), slope, atol=1e-4 * jnp.abs(slope).max())


def test_peer_curriculum_matching():
    """The running statistics of the teacher differ from the initial ones; one image per class."""
    network, params, twin, real, synthetic = setting(networks.BatchNorm)
    labels = np.arange(2)
    shown, images = real.reshape(-1, 16, 16, 3), synthetic[:, 0]

    @jax.jit
    def layers(images):
        return networks.trace_convolutions(network, params, images)[1]

    def loss(images):
        value, own = networks.trace_convolutions(network, params, images)
        total = training.cross_entropies(value.logits, labels).mean()
        for one, other in zip(layers(shown), own, strict=True):
            pair = (
                spectral.statistics(x, y, 2) for x, y in ((one, labels.repeat(5)), (other, labels))
            )
            signals: dict = dict(signals=("none", "class"), squared=False)
            total += 0.1 * sum(spectral.losses(*pair, spectral.ridge(0.1), **signals))
        return total

    expected, slope = jax.jit(jax.value_and_grad(loss))(images)
    known = torch.tensor(labels.repeat(5))
    moments = [peers.moments(torch_images(layer), known, 2) for layer in layers(shown)]
    torch_set = torch_images(images).requires_grad_()
    value = peers.frequency_loss(twin.eval(), torch_set, torch.tensor(labels), moments, 0.1, 0.1)
    value.backward()
    np.testing.assert_allclose(value.item(), expected, rtol=1e-3)
    np.testing.assert_allclose(jax_images(torch_set.grad), slope, atol=1e-3 * jnp.abs(slope).max())


def test_peer_gradient_matching():
    network, params, twin, real, synthetic = setting()
    slope_at = functools.partial(training.gradient, network)
    target = jax.jit(slope_at)(params, real[1], 1, jnp.ones(5))

    def loss(images):
        cross_entropy = lambda p: training.cross_entropy(network, p, images, 1, jnp.ones(3))
        return matching.cosine_rows(target, jax.grad(cross_entropy)(params))

    expected, slope = jax.jit(jax.value_and_grad(loss))(synthetic[1])
    images = torch_images(synthetic[1]).requires_grad_()
    value = peers.gradient_loss(twin, lambda x: x, torch_images(real[1]), images, 1)
    value.backward(inputs=[images])
    np.testing.assert_allclose(value.item(), expected, rtol=1e-3)
    np.testing.assert_allclose(jax_images(images.grad), slope, atol=1e-3 * jnp.abs(slope).max())


def test_peer_contrastive_loss():
    embeddings = jax.random.normal(KEY, (12, 6))
    embeddings = embeddings / jnp.linalg.norm(embeddings, axis=1, keepdims=True)
    labels = jnp.arange(12) % 3
    expected = contrastive.supervised_contrastive(embeddings, labels)
    value = peers.contrastive_loss(*(torch.tensor(np.asarray(x)) for x in (embeddings, labels)))
    np.testing.assert_allclose(value.item(), expected, rtol=1e-5)


def test_peer_densities():
    points, labels = jax.random.normal(KEY, (40, 12)), jnp.arange(2).repeat(20)
    density = functools.partial(kde.class_log_density, num_classes=2)
    expected = jax.jit(density)(points, labels, 0.7)
    value = peers.class_log_density(torch.tensor(np.asarray(points)), 2, 0.7)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    first = np.asarray(points[:20])
    np.testing.assert_allclose(
        workloads._numpy_density(first, first, 0.7), expected[:20], rtol=1e-4
    )


def test_peer_density_of_keops():
    pytest.importorskip("pykeops", reason="PyKeOps is not installed")
    points = np.random.default_rng(0).normal(size=(20, 12)).astype(np.float32)
    value = workloads._keops_density(torch.tensor(points[:9]), torch.tensor(points), 0.7)
    expected = workloads._numpy_density(points[:9], points, 0.7)
    np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_peer_weights():
    points = jax.random.normal(KEY, (20, 12))
    bandwidth = kde.mean_distance(points)
    log_density = kde.class_log_density(points, jnp.zeros(20, int), bandwidth, num_classes=1)
    expected = jax.nn.softmax(-log_density)
    value = peers.inverse_density(torch.tensor(np.asarray(points)), kde.FACTOR)
    np.testing.assert_allclose(value, expected, rtol=1e-3)


@pytest.mark.slow
def test_end_to_end_scores_all_sides_alike(tmp_path, monkeypatch):
    from experiments.speed import end_to_end

    tiny = options.make(
        conflict=0.1, ipc=2, steps=2, batch_size=4, width=4, encoder_width=4, encoder_steps=2,
        epochs=2, eval_seeds=2, chunk=1,
    )  # fmt: skip
    monkeypatch.setattr(end_to_end, "make", lambda **_: tiny)
    data = benchmarks.load("cdigits", conflict=0.1)
    monkeypatch.setattr(end_to_end.grid, "load", lambda *_, **__: data)
    monkeypatch.setattr(end_to_end.jax.config, "update", lambda *_: None)  # would outlive the test
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    wrap = {"torch eager": peers.eager, "torch.compile": peers.eager}  # compiling takes minutes
    monkeypatch.setattr(peers, "WRAPPERS", wrap)
    end_to_end.main(out=tmp_path / "out.json")
    rows = record.measured(tmp_path / "out.json")
    sides = ["jaxdd", *peers.WRAPPERS]
    sides += [f"{side}, compiled before" for side in ("jaxdd", "torch.compile")]
    assert list(rows) == sides
    for row in rows.values():
        assert row["accuracy"]["n"] == 2 and 0 < row["accuracy"]["mean"] < 1
        assert all(row["seconds"][stage] > 0 for stage in end_to_end.STAGES)
    header, _, *lines = tables.end_to_end(tmp_path / "out.json")
    assert "accuracy" in header
    assert [line.split(" | ")[0] for line in lines] == [f"| {side}" for side in sides]


@pytest.mark.parametrize("name", workloads.WORK)
def test_every_peer_runs(name):
    """All peers except those that torch.compile takes minutes to compile."""
    work = workloads.WORK[name](TINY)
    for make in (make for peer, make in work.peers.items() if peer != "torch.compile"):
        timed = make()
        timed.run()
        assert timed.scale > 0
    work.ours.run()
    assert work.flops > 0 and work.bytes > 0 and work.peak_bytes > 0


# --- published sets ----------------------------------------------------------------------------


def accuracy(images, labels, test_images, test_labels):
    """Return the mean accuracy of three networks trained with momentum in plain PyTorch."""
    accuracies = []
    for seed in range(3):
        torch.manual_seed(seed)
        net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
        optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
        for _ in range(100):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
        accuracies.append((net(test_images).argmax(1) == test_labels).float().mean().item())
    return np.mean(accuracies)


def test_png_and_npz_exports_score_alike_in_torch(digits):
    """Scores of files that are read without jaxdd agree within half a point."""
    folder, images, labels = digits
    test = torch.tensor((images.reshape(-1, 64) / 255 - 0.3) / 0.4).float(), torch.tensor(labels)
    with np.load(folder / "npz" / "synthetic.npz", allow_pickle=False) as stored:
        images, labels = (torch.tensor(stored[name]) for name in ("images", "labels"))
    exact = accuracy(images.reshape(50, 64), labels.flatten().long(), *test)
    with open(folder / "png" / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    pixels = np.stack([np.asarray(Image.open(folder / "png" / row["file_name"])) for row in rows])
    images = torch.tensor((pixels.reshape(50, 64) / 255 - 0.3) / 0.4).float()
    rounded = accuracy(images, torch.tensor([int(row["label"]) for row in rows]), *test)
    assert exact > 0.6 and abs(exact - rounded) < 0.005


def test_pt_export_scores_alike_in_torch_and_jaxdd(digits, tmp_path):
    """Mean scores of six networks in each library agree within a point."""
    folder, images, labels = digits
    manifest = publication.export(folder / "run", tmp_path / "out", format="pt")
    published = jaxdd.load(tmp_path / "out", expect=manifest["root"])
    path = tmp_path / "out" / "synthetic.pt"
    in_torch = train_in_torch.main(path, images / 255, labels, seeds=6, epochs=200)
    moments = dict(mean=published.mean, std=published.std)
    task = evaluate.task(images, labels, num_classes=10, strategy=(), **moments)
    keys, network = jax.random.split(KEY, 6), networks.MLP(10)
    scores = evaluate.evaluate(keys, network, published.images, task, epochs=200)
    assert in_torch > 0.6 and abs(scores.accuracy.mean() - in_torch) < 0.01


def test_pt_export_needs_torch(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="torch"):
        publication.export(digits[0] / "run", tmp_path / "out", format="pt")
    assert not any(tmp_path.iterdir())
