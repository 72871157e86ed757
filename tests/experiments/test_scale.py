"""Steps compiled for several devices: what is sent, and a dry run on small images."""

import json

import pytest

from experiments.speed import scale

PROGRAM = """HloModule step

%body (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  ROOT %sum = f32[4]{0} all-reduce(%x), to_apply=%add
}

ENTRY %main (x: u8[2,3]) -> f32[4] {
  %x = u8[2,3]{1,0} parameter(0)
  %all = (u8[4,3]{1,0}, bf16[5]{0}) all-gather(%x, %y), dimensions={0}
  ROOT %loop = f32[4]{0} while(%z), body=%body, backend_config={"known_trip_count":{"n":"3"}}
}
"""


def test_collectives_in_loops_count_once_per_iteration():
    """4 × 3 bytes and 5 × 2 bytes are gathered; 4 × 4 bytes are summed three times."""
    sent = scale.collectives(PROGRAM)
    assert sorted(sent) == [("all-gather", 22)] + 3 * [("all-reduce", 16)]


def test_estimated_seconds():
    """Eight devices of a node each send 2 · 7/8 of 450 GB in 1.75 s; 16 use the network."""
    row = {"devices": 8, "flops": scale.RATE, "sent_bytes": 450e9}
    assert scale.seconds(row) == pytest.approx((1, 1.75))
    row = {"devices": 16, "flops": scale.RATE, "sent_bytes": 50e9}
    assert scale.seconds(row) == pytest.approx((1, 1.875))


def test_dry_run_on_small_images(tmp_path, monkeypatch):
    """Four devices hold three of ten images each and sum the bytes of the batch of 2 × 4 images."""
    monkeypatch.setattr(scale, "WIDTH", 4)
    monkeypatch.setattr(scale, "ENCODER_WIDTH", 4)
    setting = scale.Setting(8, 1, images=10, classes=2, real=4, ipc=2)
    names = {1: "DM, small, 1 devices", 4: "DM, small, 4 devices"}
    measured = {name: scale.measure("DM", setting, n) for n, name in names.items()}
    one, four = measured.values()
    assert one["sent_bytes"] == 0 and one["collectives"] == {}
    assert four["pool_bytes"] == 3 * 8 * 8 * 3
    assert four["sent_bytes"] >= 8 * 8 * 8 * 3 and "all-reduce" in four["collectives"]
    assert one["flops"] == 4 * four["flops"]
    assert 0 < four["temporary_bytes"] < four["peak_bytes"]
    path = tmp_path / "scale.json"
    path.write_text(json.dumps({"measured": measured}))
    [table] = scale.tables(path)
    assert table[2].startswith("| DM, small | 1 |") and table[3].startswith("| DM, small | 4 |")


def test_the_encoder_is_compiled_too(monkeypatch):
    monkeypatch.setattr(scale, "ENCODER_WIDTH", 4)
    setting = scale.Setting(8, 1, images=10, classes=2, real=4, ipc=2)
    assert scale.measure("encoder", setting, 4)["sent_bytes"] > 0
