"""A folder of experts: filled once, gone on with when cut short, refused for something else."""

import numpy as np
import pytest

from jaxdd.runs.folder import buffers

MANIFEST = {"network": "convnet", "data": "abc"}


def expert(i, shape=(2, 2)):
    return {
        "layer": {"kernel": np.full((4, *shape), float(i)), "bias": np.arange(4.0)[:, None] + i}
    }


def fill(folder, *, count=3, manifest=MANIFEST, train=expert, like=None, report=lambda done: None):
    return buffers.fill(
        folder,
        manifest,
        train,
        count=count,
        like=expert(0) if like is None else like,
        report=report,
    )


def test_what_was_trained_comes_back_and_is_not_trained_again(tmp_path):
    done = []
    found = fill(tmp_path / "new" / "folder", report=done.append)
    assert done == [0, 1, 2, 3] and found["layer"]["kernel"].shape == (3, 4, 2, 2)
    assert found["layer"]["kernel"][:, 0, 0, 0].tolist() == [0, 1, 2]
    again = fill(tmp_path / "new" / "folder", train=None)
    np.testing.assert_array_equal(again["layer"]["bias"], found["layer"]["bias"])


def test_a_folder_cut_short_goes_on_with_the_next_expert(tmp_path):
    """Killed while the third was trained, with what its writing left behind."""
    trained = []

    def once(i):
        trained.append(i)
        if i == 2 and trained.count(2) == 1:
            raise KeyboardInterrupt
        return expert(i)

    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, train=once)
    (tmp_path / ".expert-002.npz.1234.tmp").write_bytes(b"half")
    assert len(fill(tmp_path, train=once)["layer"]["bias"]) == 3 and trained == [0, 1, 2, 2]
    assert len(fill(tmp_path, train=None, count=2)["layer"]["bias"]) == 2


def test_experts_of_something_else(tmp_path):
    fill(tmp_path)
    with pytest.raises(ValueError, match="something else: data is 'abc' there and 'xyz' here"):
        fill(tmp_path, manifest=MANIFEST | {"data": "xyz"})
    with pytest.raises(
        ValueError, match=r"layer/kernel must be float64 \(4, 3, 2\), found .* \(4, 2, 2\)"
    ):
        fill(tmp_path, like=expert(0, (3, 2)))
    with pytest.raises(
        ValueError, match="another network: expected other, found layer/bias, layer"
    ):
        fill(tmp_path, like={"other": np.zeros(4)})
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ValueError, match="without a manifest.json"):
        fill(tmp_path)


def test_damaged_files_are_named_and_kept(tmp_path):
    fill(tmp_path)
    path = tmp_path / "expert-001.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(
        ValueError, match="expert-001.npz is not a readable .*; delete it and resume"
    ):
        fill(tmp_path)
    assert path.exists()
    np.savez(path, **{"layer/kernel": np.full((4, 2, 2), np.nan), "layer/bias": np.zeros((4, 1))})
    with pytest.raises(ValueError, match="expert-001.npz is damaged .* layer/kernel has values"):
        fill(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold an object.*; delete .* and resume"):
        fill(tmp_path)


def test_a_diverged_expert_is_not_kept(tmp_path):
    diverged = lambda i: {"x": np.array([0, np.inf])}
    with pytest.raises(ValueError, match="expert 0 diverged; try a smaller lr_teacher"):
        fill(tmp_path, train=diverged, like={"x": np.zeros(2)})
    assert not list(tmp_path.glob("expert-*"))
