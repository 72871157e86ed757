"""Files of sample weights: all formats, the order of files, and weights of other samples."""

import json

import numpy as np
import pytest

from jaxdd.data import datasets
from jaxdd.runs.folder import weights_file


@pytest.mark.parametrize(
    "name, write",
    [
        ("w.npy", lambda path, w: np.save(path, w)),
        ("w.npz", lambda path, w: np.savez(path, weights=w, log_density=w[1:])),
        ("w.npz", lambda path, w: np.savez(path, mine=w)),
        ("w.csv", lambda path, w: path.write_text("\n".join(map(str, w)))),
        ("w.csv", lambda path, w: path.write_text("mine\n" + "\n".join(map(str, w)))),
        ("w.csv", np.savetxt),
        ("w.CSV", lambda path, w: path.write_text(
            "\ufefffile, Weight\r\n" + "".join(f"a.png,{x}\r\n" for x in w)
        )),
    ],
    ids=["npy", "npz", "npz of one", "csv", "csv with a heading", "savetxt", "csv with columns"],
)  # fmt: skip
def test_weights_in_all_formats(tmp_path, name, write):
    expected = np.array([0.5, 2, 0, 1e-3])
    write(tmp_path / name, expected)
    np.testing.assert_array_equal(weights_file.read(tmp_path / name, count=4), expected)


@pytest.mark.parametrize(
    "name, content, match",
    [
        ("w.txt", b"1\n2\n", "w.txt"),
        ("w.npy", b"not an array", "w.npy"),
        ("w.npz", b"not arrays", "w.npz"),
        ("w.csv", b"a,b\n1,2\n", "a, b"),
        ("w.csv", b"weight\n1\nx\n", "'x'"),
        ("w.csv", b"1\n2\n3\n", r"2 samples.*\(3,\)"),
        ("w.csv", b"1\n-2\n", r"-2\.0\.\.1\.0"),
        ("w.csv", b"1\nnan\n", "nan"),
        ("w.csv", b"3e38\n3e38\n", r"6e\+38"),
        ("w.csv", b"", "w.csv"),
        ("w.npy", b"", "w.npy"),
        ("w.npy", b"PK\x03\x04", "w.npy"),
        ("w.csv", b"file,weight\na.png\n", "w.csv"),
    ],
)
def test_files_without_weights(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=match):
        weights_file.read(tmp_path / name, count=2)


# --- weights of samples ------------------------------------------------------------------------


FILES = ("a/0.png", "a/1.png", "b/0.png", "b/caf\u00e9.png")


def samples(*, brightness=0, files=FILES, test_files=("b/2.png",)):
    images = np.arange(64, dtype=np.uint8).reshape(4, 4, 4) + np.uint8(brightness)
    data = datasets.from_arrays(images, [0, 0, 1, 1], test=(images, [0, 0, 1, 1]))
    return data._replace(train_files=files, test_files=test_files)


@pytest.mark.parametrize("column", ["file", "File_Name", "filename", "path"])
def test_weights_are_matched_to_files_in_any_order(tmp_path, column):
    """Names may be composed or decomposed, start with ./, and be those of test images."""
    names = ["b/cafe\u0301.png", "./b/0.png", "a/1.png", "b/2.png", "a/0.png"]
    lines = "".join(f"{i},{name}\n" for i, name in enumerate(names))
    (tmp_path / "w.csv").write_text(f"weight,{column}\n{lines}", encoding="utf-8")
    read = weights_file.read_for(tmp_path / "w.csv", samples())
    np.testing.assert_array_equal(read, [4, 2, 1, 0])
    np.savez(tmp_path / "w.npz", weights=np.arange(5.0), files=np.array(names))
    np.testing.assert_array_equal(weights_file.read_for(tmp_path / "w.npz", samples()), read)


@pytest.mark.parametrize(
    "names, match",
    [
        (FILES[:3], "caf.*1 of 4"),
        ((*FILES, "a/9.png"), "a/9.png"),
        ((*FILES, "a/1.png"), "'a/1.png' twice"),
        ((*FILES, "./a/1.png"), "a/1.png' twice"),
        (tuple(name.split("/")[-1] for name in FILES), "0.png"),
    ],
)
def test_missing_unknown_and_repeated_files_are_named(tmp_path, names, match):
    text = "file,weight\n" + "".join(f"{name},1\n" for name in names)
    (tmp_path / "w.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=match):
        weights_file.read_for(tmp_path / "w.csv", samples())


def test_files_of_samples_without_names_are_rejected(tmp_path):
    (tmp_path / "w.csv").write_text("file,weight\n" + "a.png,1\n" * 4)
    with pytest.raises(ValueError, match="arrays"):
        weights_file.read_for(tmp_path / "w.csv", samples(files=()))


@pytest.mark.parametrize("heading", ["", "index"])
def test_the_index_of_a_sorted_table_restores_its_order(tmp_path, heading):
    (tmp_path / "w.csv").write_text(f"{heading},weight\n3,0.5\n0,1\n2,2\n1,4\n")
    read = weights_file.read_for(tmp_path / "w.csv", samples())
    np.testing.assert_array_equal(read, [1, 4, 2, 0.5])
    (tmp_path / "w.csv").write_text(f"{heading},weight\n3,0.5\n0,1\n2,2\n3,4\n")
    with pytest.raises(ValueError, match=r"0\.\.3"):
        weights_file.read_for(tmp_path / "w.csv", samples())


@pytest.mark.parametrize("name", ["w.npz", "weights/auto/w.npz"])
def test_weights_of_a_run_with_other_samples_are_rejected(tmp_path, name):
    """By a hash in the file, wherever it is, or by the configuration of the run."""
    data, other, path = samples(), samples(brightness=1), tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, weights=np.ones(4), samples=weights_file.sample_digest(data))
    assert weights_file.read_for(path, data).sum() == 4
    with pytest.raises(ValueError, match=weights_file.sample_digest(other)):
        weights_file.read_for(path, other)
    np.savez(path, weights=np.ones(4))
    assert weights_file.read_for(path, other).sum() == 4
    (tmp_path / "config.json").write_text(json.dumps({"data": datasets.digest(data)}))
    assert weights_file.read_for(path, data).sum() == 4
    with pytest.raises(ValueError, match=datasets.digest(other)):
        weights_file.read_for(path, other)
