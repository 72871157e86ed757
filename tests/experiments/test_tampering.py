"""The attack that the audit is measured against, and what its tables say."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import tampering
from experiments.attacks import poison
from jaxdd import networks, training


def test_an_attack_stays_within_its_limits_and_turns_the_gradient_to_the_trigger():
    init = lambda key, images: 0.1 * jax.random.normal(key, (images[0].size, 3))
    apply = lambda params, images: ((flat := images.reshape(len(images), -1)), flat @ params)
    network = networks.Functions(init, apply)
    images = jax.random.uniform(jax.random.key(0), (6, 3, 3, 1))
    labels, ones = jnp.arange(3).repeat(2), jnp.ones(6)
    trigger = poison.Trigger(1, 1.0)

    @jax.jit
    def attacked(key, images):
        given = dict(num_classes=3, surrogate_steps=2, archetype_steps=2, checkpoints=2, steps=20)
        moved = poison.poison(key, network, images, labels, trigger, limits=(0.0, 1.0), **given)
        slope = lambda images: training.gradient(network, params, images, labels, ones)
        params = init(key, images)
        return moved, slope(images)[-1, 0], slope(moved)[-1, 0]

    moved, before, after = attacked(jax.random.key(1), images)
    assert 0 <= moved.min() and moved.max() <= 1 and not np.array_equal(moved, images)
    assert after < before  # descending it gives the corner more weight for the target
    assert (poison.stamp(images, trigger) != images).sum() == 6


@pytest.mark.parametrize("hits, low, high", [(0, 0.0, 0.161), (20, 0.839, 1.0), (10, 0.299, 0.701)])
def test_wilson_intervals_are_those_of_the_books(hits, low, high):
    assert tampering.wilson(hits, 20) == pytest.approx((low, high), abs=1e-3)


def record(rough, seed):
    """What is measured of a set, all but its roughness as in any other."""
    noise = np.random.default_rng(seed).normal(size=20) / 100
    scan = {"margin": (0.2 + noise[:12].reshape(4, 3)).tolist()}
    scores = {name: 0.5 + noise[0] for name in ("1", "2", "4", "published", "accuracy")}
    return {
        "outside": {"furthest": 0.3 + noise[1], "share": 0.1}, "roughness": rough + noise[2],
        "footprint": 3 + noise[3], "disagreement": (0.4 + noise[:4]).tolist(),
        "strip": 0.5 + noise[4], "own": scan, "seen": scan, "convnet": scores, "mlp": scores,
        "masks": (20 + noise.reshape(2, 10)).tolist(),
    }  # fmt: skip


def test_tables_count_the_sets_beyond_all_but_one_of_the_clean_ones(tmp_path):
    path = tmp_path / "tampering.json"
    sets = {f"dm, clean, {seed}": record(0.4, seed) for seed in range(20)}
    sets |= {f"dm, 4, {seed}": record(0.6, 20 + seed) for seed in range(20)}
    path.write_text(json.dumps({"sets": sets}))
    success, detection, shipped = tampering.tables(path)
    assert "| dm, 4 | 20 | 50 ± 1 | 50 ± 1 | 50 ± 1 | 50 ± 1 | 50 ± 1 | – | – |" in success
    columns = [cell.strip() for cell in detection[0].split("|")]
    found = [cell.strip() for cell in detection[2].split("|")]
    assert found[columns.index("roughness")] == "100 (84–100)"
    assert int(found[columns.index("footprint")].split()[0]) < 30
    assert "20 of 20" in shipped[3]
    assert shipped[3].startswith("| dm, 4 | 0 of 20 |")
