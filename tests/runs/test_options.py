"""Every method has options of its own; presets fill them, what is wrong is named, old are read."""

import dataclasses

import numpy as np
import pytest

from jaxdd.runs import options


def test_presets_and_learning_rates():
    quick, paper = (options.DM(preset=p) for p in ("quick", "paper"))
    assert (quick.steps, quick.width) == (200, 32) and (paper.steps, paper.width) == (20000, 128)
    assert options.DM(ipc=100).learning_rate == 10
    assert options.DM(ipc=100, learning_rate=2.0).learning_rate == 2


def test_presets_of_the_other_methods():
    """1,000 networks in the literature, ten here; MTT in the words of its code."""
    paper, quick = (options.make(method="dsa", preset=p) for p in ("paper", "quick"))
    assert (paper.outer, paper.inner, paper.steps, paper.batch_size) == (10, 50, 10_000, 256)
    assert (quick.outer, quick.inner, quick.steps, quick.batch_size) == (10, 5, 100, 64)
    assert options.make(method="dc", ipc=1).steps == 400
    paper = options.make(method="mtt", preset="paper")
    assert (paper.syn_steps, paper.expert_epochs, paper.max_start_epoch) == (20, 2, 10)
    assert (paper.num_experts, paper.train_epochs, paper.learning_rate) == (100, 50, 1000.0)


@pytest.mark.parametrize(
    "ipc, expected",
    [(1, (1, 1)), (2, (10, 50)), (10, (10, 50)), (11, (20, 25)), (50, (50, 10)), (99, (50, 10))],
)
def test_loops_of_the_reference(ipc, expected):
    assert options.gradient_loops(ipc) == expected


def test_loops_need_an_image():
    with pytest.raises(ValueError, match="ipc must be at least 1, found 0"):
        options.gradient_loops(0)


def test_an_option_of_another_method_is_refused_with_its_owner():
    with pytest.raises(ValueError, match="^inner is an option of dc and dsa, found it with mtt$"):
        options.make(method="mtt", inner=2)
    with pytest.raises(ValueError, match="^num_experts is an option of mtt, found it with dm$"):
        options.make(num_experts=2)
    with pytest.raises(ValueError, match="^expert_rate is no option, found it with mtt$"):
        options.make(method="mtt", expert_rate=0.1)
    with pytest.raises(ValueError, match="method must be one of dm, dc, dsa, mtt, cfm, found 'xx'"):
        options.make(method="xx")


@pytest.mark.parametrize("method", options.OPTIONS)
def test_what_is_stored_is_read_back(method):
    asked = options.make(method=method, ipc=3, strategy=("crop", "scale"))
    stored = {"dataset": "cmnist", "data": "1f", **dataclasses.asdict(asked)}
    stored["strategy"] = list(stored["strategy"])  # as JSON has it
    assert options.from_config(stored) == asked
    assert options.from_config({"method": method}) == options.make(method=method)


def test_configurations_of_the_version_before_are_read():
    """They held the options of all methods; those of mtt had other names."""
    every = dict(outer=None, inner=None, experts=None, expert_rate=0.01, span=None, latest=None)
    every |= dict(expert_epochs=None, expert_updates=None, buffer=None, encoder_width=32)
    assert options.from_config({"method": "dm", "ipc": 1, **every}) == options.DM(ipc=1)
    gradient = options.from_config({"method": "dsa", "ipc": 1, **every, "outer": 2, "inner": 3})
    assert gradient == options.DSA(ipc=1, outer=2, inner=3)
    trajectory = {"method": "mtt", **every, "inner": 4, "experts": 5, "expert_epochs": 9, "span": 2}
    trajectory |= {"latest": 6, "expert_rate": 0.5, "buffer": "b", "expert_updates": 7}
    assert options.from_config(trajectory) == options.MTT(
        syn_steps=4, num_experts=5, train_epochs=9, expert_epochs=2, max_start_epoch=6,
        lr_teacher=0.5, buffer_path="b", expert_updates=7,
    )  # fmt: skip


TINY = options.DM(ipc=2, batch_size=8, width=4, depth=2)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(ipc=0), "ipc must be at least 1 .*found 0"),
        (dict(steps=-1), "steps must be at least 0 .*found -1"),
        (dict(batch_size=0), "batch_size must be at least 1"),
        (dict(eval_seeds=0), "eval_seeds must be at least 1"),
        (dict(temperature=0.0), "temperature must be positive and finite, found 0.0"),
        (dict(temperature=float("nan")), "temperature must be positive and finite, found nan"),
        (dict(bandwidth=-1.0), "bandwidth must be positive and finite, found -1.0"),
        (dict(bandwidth=float("inf")), "bandwidth must be positive and finite, found inf"),
        (dict(learning_rate=-1.0), "learning_rate must be positive"),
        (dict(clip=float("nan")), "clip must be at least 1, found nan"),
        (dict(conflict=float("nan")), r"conflict must lie in \[0, 1\], found nan"),
        (dict(conflict=1.2), r"conflict must lie in \[0, 1\], found 1.2"),
        (dict(severity=5), r"severity must lie in \[1, 4\], found 5"),
        (dict(resize=0), "resize must be at least 1 .*found 0"),
        (dict(clip=0.5), "clip must be at least 1, found 0.5"),
        (dict(temperature=1e-300), "temperature must be positive and finite, found 1e-300"),
        (dict(bandwidth=1e300), "bandwidth must be positive and finite, found 1e[+]300"),
        (dict(save_every=-1.0), "save_every must be at least 0 and finite, found -1.0"),
        (dict(batch_size=2**31), "batch_size must be at least 1 and fit 32 bits, found 2147483648"),
        (dict(seed=-1), "seed must be at least 0 .*found -1"),
        (dict(candidates=4), "candidates must be at least .* 8, found 4"),
        (dict(formation=0), "formation must be at least 1"),
        (dict(bandwidth_rule="fixed"), "the fixed bandwidth rule needs a bandwidth"),
        (dict(init="zz"), "init must be one of weighted, real, noise, found 'zz'"),
        (dict(weighting="zz"), "weighting must be one of draw, mean, batch, found 'zz'"),
        (dict(embedding="zz"), "embedding must be one of projection, features, found 'zz'"),
        (dict(bandwidth_rule="zz"), "bandwidth_rule must be one of mean-distance, .*found 'zz'"),
        (dict(dtype="int8"), "dtype must be one of float32, bfloat16, found 'int8'"),
        (dict(training="zz"), "training must be one of plain, lff, selecmix, found 'zz'"),
        (dict(preset="zz"), "preset must be one of quick, paper, found 'zz'"),
        (dict(network="zz"), "network must be one of convnet, .*or MODULE:ATTRIBUTE, found 'zz'"),
        (dict(strategy=("flop",)), "strategy must be of .* found 'flop'; did you mean 'flip'"),
    ],
    ids=str,
)
def test_bad_options(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


@pytest.mark.parametrize(
    "method, change, message",
    [
        ("dc", dict(inner=0), "inner must be at least 1"),
        ("mtt", dict(num_experts=0), "num_experts must be at least 1"),
        ("mtt", dict(lr_teacher=0.0), "lr_teacher must be positive"),
        ("mtt", dict(max_start_epoch=9), r"beyond the 10 train_epochs, found 9 \+ 2"),
        ("dsa", dict(ipc=0), "ipc must be at least 1"),
        ("cfm", dict(beta=0.0), "beta must be positive and finite, found 0.0"),
        ("cfm", dict(beta=0.1, beta_floor=0.2), "beta must be at least its beta_floor of 0.2"),
        ("cfm", dict(ipc=4, steps=10), "steps must be a multiple of the 4 images .*found 10"),
        ("cfm", dict(crop=0.0), r"crop must lie in \(0, 1\].*found 0.0 and 0.1"),
        ("cfm", dict(weighted=("all",)), "weighted must be of teacher, covariance, signal, found"),
        ("cfm", dict(teacher="convnet"), "teacher must be one of convnet-bn, .*found 'convnet'"),
    ],
)
def test_bad_options_of_other_methods(method, change, message):
    with pytest.raises(ValueError, match=message):
        options.make(method=method, **change)


@pytest.mark.parametrize(
    "change",
    [dict(ipc=1.5), dict(steps=2.5), dict(seed=True), dict(ipc="1"), dict(strategy="crop"),
     dict(temperature="hot"), dict(skip_bad=1)],
    ids=str,
)  # fmt: skip
def test_wrong_types_are_named(change):
    (name,) = change
    with pytest.raises(TypeError, match=f"{name} must be .*, found"):
        dataclasses.replace(TINY, **change)


def test_whole_numbers_serve_where_any_number_does():
    assert dataclasses.replace(TINY, temperature=2, save_every=0).temperature == 2
    assert not np.isnan(TINY.learning_rate)
