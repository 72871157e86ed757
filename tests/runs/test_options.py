"""Options: presets, bounds, types, and reading them back."""

import dataclasses
import re

import numpy as np
import pytest

from jaxdd.runs import options


def test_presets_and_learning_rates():
    quick, paper = (options.DM(preset=p) for p in ("quick", "paper"))
    assert (quick.steps, quick.width) == (200, 32) and (paper.steps, paper.width) == (20000, 128)
    assert options.DM(ipc=100).learning_rate == 10
    assert options.DM(ipc=100, learning_rate=2.0).learning_rate == 2


def test_presets_of_the_other_methods():
    """The paper preset has ten networks, not 1,000; options of MTT have the names of its code."""
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
    assert options._gradient_loops(ipc) == expected


def test_an_option_of_another_method_is_rejected_with_its_methods():
    for match, fields in (
        ("dc and dsa.*'mtt'", dict(method="mtt", inner=2)),
        ("mtt.*'dm'", dict(num_experts=2)),
        ("expert_rate.*'mtt'", dict(method="mtt", expert_rate=0.1)),
        ("'xx'", dict(method="xx")),
    ):
        with pytest.raises(ValueError, match=match):
            options.make(**fields)
    with pytest.raises(ValueError, match="'mtt'"):
        options.DM(method="mtt")


@pytest.mark.parametrize("method", options.OPTIONS)
def test_stored_options_are_read_back(method):
    chosen = options.make(method=method, ipc=3, strategy=("crop", "scale"))
    stored = {"dataset": "cmnist", "data": "1f", **dataclasses.asdict(chosen)}
    stored["strategy"] = list(stored["strategy"])  # JSON has no tuples
    assert options.from_config(stored) == chosen
    assert options.from_config({"method": method}) == options.make(method=method)


TINY = options.DM(ipc=2, batch_size=8, width=4, depth=2)

BAD = {
    "dm": [
        dict(ipc=0), dict(steps=-1), dict(batch_size=0), dict(eval_seeds=0), dict(resize=0),
        dict(formation=0), dict(seed=-1), dict(batch_size=2**31), dict(candidates=4),
        dict(temperature=0.0), dict(temperature=float("nan")), dict(temperature=1e-300),
        dict(bandwidth=-1.0), dict(bandwidth=float("inf")), dict(bandwidth=1e300),
        dict(learning_rate=-1.0), dict(save_every=-1.0), dict(clip=0.5), dict(clip=float("nan")),
        dict(conflict=1.2), dict(conflict=float("nan")), dict(severity=5),
        dict(init="zz"), dict(weighting="zz"), dict(encoder_layer="zz"), dict(bandwidth_rule="zz"),
        dict(dtype="int8"), dict(training="zz"), dict(preset="zz"), dict(network="zz"),
        dict(strategy=("flop",)), dict(bandwidth_rule="fixed"), dict(suspect=("hue",)),
        dict(exclude=("hue",)), dict(suspect=("tone", "border"), exclude=("tone",)),
    ],
    "dc": [dict(inner=0)],
    "dsa": [dict(ipc=0)],
    "mtt": [dict(num_experts=0), dict(lr_teacher=0.0), dict(max_start_epoch=10),
        dict(max_start_epoch=0)],
    "cfm": [
        dict(beta=0.0), dict(beta_floor=0.2, beta=0.1), dict(ipc=4, steps=10), dict(crop=0.0),
        dict(weighted=("all",)), dict(teacher="convnet"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("method, change", [(m, c) for m, cs in BAD.items() for c in cs], ids=str)
def test_bad_options_are_reported_with_their_value(method, change):
    """The message holds the last option that is changed, and its value."""
    name, value = list(change.items())[-1]
    value = value[0] if isinstance(value, tuple) else value
    with pytest.raises(ValueError, match=rf"(?s){name}.*{re.escape(str(value))}"):
        options.make(
            **({"ipc": 2, "batch_size": 8, "width": 4, "depth": 2} | change), method=method
        )


@pytest.mark.parametrize(
    "change",
    [dict(ipc=1.5), dict(steps=2.5), dict(seed=True), dict(ipc="1"), dict(strategy="crop"),
     dict(temperature="hot"), dict(skip_bad=1)],
    ids=str,
)  # fmt: skip
def test_wrong_types_are_reported(change):
    (name,) = change
    with pytest.raises(TypeError, match=f"{name}.*{change[name]!r}"):
        dataclasses.replace(TINY, **change)


def test_integers_are_accepted_for_floats():
    assert dataclasses.replace(TINY, temperature=2, save_every=0).temperature == 2
    assert not np.isnan(TINY.learning_rate)
