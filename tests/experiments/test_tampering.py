"""The attack against which the audit is measured, and the tables of its results."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from experiments import tampering
from experiments.attacks import poison
from jaxdd import networks, training


def test_an_attack_stays_within_limits_and_plants_the_trigger():
    init = lambda key, images: 0.1 * jax.random.normal(key, (images[0].size, 3))
    apply = lambda params, images: ((flat := images.reshape(len(images), -1)), flat @ params)
    network = networks.Functions(init, apply)
    images = jax.random.uniform(jax.random.key(0), (6, 3, 3, 1))
    labels, ones = jnp.arange(3).repeat(2), jnp.ones(6)
    trigger = poison.Trigger(1, 1.0)

    @jax.jit
    def attack(key, images):
        given = dict(num_classes=3, surrogate_steps=2, archetype_steps=2, checkpoints=2, steps=20)
        moved = poison.poison(key, network, images, labels, trigger, limits=(0.0, 1.0), **given)
        slope = lambda images: training.gradient(network, params, images, labels, ones)
        params = init(key, images)
        return moved, slope(images)[-1, 0], slope(moved)[-1, 0]

    moved, before, after = attack(jax.random.key(1), images)
    assert 0 <= moved.min() and moved.max() <= 1 and not np.array_equal(moved, images)
    assert after < before  # descent increases the weight of the corner for the target
    assert (poison.stamp(images, trigger) != images).sum() == 6


def record(rough, seed):
    """Return the measurements of a set that differs in roughness only."""
    noise = np.random.default_rng(seed).normal(size=20) / 100
    scan = {"margin": (0.2 + noise[:12].reshape(4, 3)).tolist()}
    scores = {name: 0.5 + noise[0] for name in ("1", "2", "4", "published", "accuracy")}
    return {
        "outside": {"furthest": 0.3 + noise[1], "share": 0.1}, "roughness": rough + noise[2],
        "footprint": 3 + noise[3], "disagreement": (0.4 + noise[:4]).tolist(),
        "strip": 0.5 + noise[4], "own": scan, "seen": scan, "convnet": scores, "mlp": scores,
        "masks": (20 + noise.reshape(2, 10)).tolist(),
    }  # fmt: skip


def test_tables_count_sets_beyond_all_but_one_clean_set(tmp_path):
    path = tmp_path / "tampering.json"
    sets = {f"dm, clean, {seed}": record(0.4, seed) for seed in range(20)}
    sets |= {f"dm, 4, {seed}": record(0.6, 20 + seed) for seed in range(20)}
    path.write_text(json.dumps({"measured": sets}))
    success, detection, reported = tampering.tables(path)
    assert "| dm, 4 | 20 | 50 ± 1 | 50 ± 1 | 50 ± 1 | 50 ± 1 | 50 ± 1 | – | – |" in success
    columns = [cell.strip() for cell in detection[0].split("|")]
    shares = [cell.strip() for cell in detection[2].split("|")]
    assert shares[columns.index("roughness")] == "100 (84–100)"
    assert int(shares[columns.index("footprint")].split()[0]) < 30
    assert reported[3].startswith("| white square of 4×4 pixels | 50 % | 0 of 20 | 20 of 20 |")
