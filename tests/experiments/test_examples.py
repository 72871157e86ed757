"""The examples run at tiny sizes."""

import pytest

from experiments.examples import own_network, own_weights

TINY = dict(
    ipc=1, steps=2, batch_size=8, width=8, depth=1, epochs=2, eval_seeds=1, encoder_steps=2,
    encoder_width=8, strategy=(),
)  # fmt: skip


@pytest.mark.slow
def test_own_network_makes_a_run(tmp_path):
    result = own_network.main(tmp_path / "run", **TINY)
    assert result.config["network"] == "jaxdd.networks.protocol:Functions()"
    assert result.accuracy.n == 1 and (tmp_path / "run" / "synthetic.npz").exists()


@pytest.mark.slow
def test_own_weights_have_a_row(tmp_path):
    rows = own_weights.main(tmp_path / "compared", rows=("plain",), **TINY)
    assert list(rows) == ["random", "plain", "custom"]
    share = {name: row.weights["conflict_weight_share"] for name, row in rows.items()}
    assert share["plain"] == pytest.approx(0.1, abs=0.01) and share["custom"] > 0.5
