"""Decoded images are cached, mapped and verified, and equal those in memory."""

import os
import pathlib
import shutil
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from image_files import cached, save, shades, values

from jaxdd.data import _image_cache, datasets, decoding, files, folders


def names(folder):
    return sorted(path.name for path in pathlib.Path(folder).iterdir())


def same(first, second):
    """Return whether two benchmarks have the same bytes and the same statistics."""
    same = [first.mean, first.std, first.aligned] == [second.mean, second.std, second.aligned]
    return same and datasets.digest(first) == datasets.digest(second)


@pytest.mark.parametrize(
    "layout, bad, resize",
    [
        ("classes", (), None),
        ("classes", (3, 4, 17), 8),
        ("splits", (3, 4, 17), None),
        ("table", (), 8),
        ("table", (3, 4, 17), None),
    ],
)
def test_mapped_images_are_those_in_memory(tmp_path, layout, bad, resize):
    """Each split is a slice of the map and has the drawn or listed rows."""
    if layout == "splits":
        for split in ("train", "test"):
            shades(tmp_path / "data" / split, bad=bad)
    else:
        shades(tmp_path / "data", bad=bad)
    if layout == "table":
        rows = [f"{'ab'[n % 2]}/{n:02}.png,{n % 2},{n % 3},{'train test'.split()[n % 5 == 0]}"
                for n in range(22)]  # fmt: skip
        text = "\n".join(["file,label,attribute,split", *rows])
        (tmp_path / "data" / "metadata.csv").write_text(text)
    how = dict(skip_bad=True, resize=resize)
    plain = folders.read(tmp_path / "data", **how)
    expected = datasets.from_folder(plain, seed=3)
    for _ in range(2):  # decoded, then from the cache
        folder = folders.read(tmp_path / "data", seed=3, cache=tmp_path / "cache", **how)
        assert isinstance(folder.images, np.memmap) and isinstance(plain.images, np.ndarray)
        assert folder.skipped == plain.skipped and len(folder.skipped) == len(bad) * (
            1 + (layout == "splits")
        )
        other = datasets.from_folder(folder, seed=5)
        assert same(expected, other)
        for part in (other.train, other.test):
            assert np.shares_memory(part.images, folder.images)
    assert same(expected, datasets.from_folder(folders.read(tmp_path / "data", seed=3, **how)))


def test_small_sets_are_not_mapped(tmp_path):
    shades(tmp_path / "data")
    size = 22 * 12 * 12 * 3
    folder = folders.read(tmp_path / "data", map_from=size + 1)
    assert not isinstance(folder.images, np.memmap)


def test_the_default_cache_is_pruned(tmp_path, monkeypatch):
    """The default cache is pruned before a file is added; a cache that is passed is not."""
    monkeypatch.setattr(files, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(folders, "MAP_BYTES", 21_000)
    shades(tmp_path / "data")
    for resize in (12, 12, 11):
        folder = folders.read(tmp_path / "data", resize=resize, map_from=1)
        assert isinstance(folder.images, np.memmap) and not folder.images.flags.writeable
    assert len(cached(tmp_path / "cache" / "folders")) == 4
    folders.read(tmp_path / "data", resize=13, map_from=1)
    left = cached(tmp_path / "cache" / "folders")
    assert [pathlib.Path(name).suffix for name in left] == [".json", ".npy"] * 2
    for resize in (12, 11):
        folders.read(tmp_path / "data", resize=resize, cache=tmp_path / "own")
    assert len(cached(tmp_path / "own")) == 4


def decoded(monkeypatch):
    """Return a list to which each image is added when it is decoded."""
    count, fill = [], decoding._fill

    def counted(file, *arguments):
        count.append(pathlib.Path(file).name)
        return fill(file, *arguments)

    monkeypatch.setattr(decoding, "_fill", counted)
    return count


def test_mapped_images_are_decoded_once(tmp_path, monkeypatch):
    shades(tmp_path / "data")
    count, read = (
        decoded(monkeypatch),
        lambda **how: folders.read(
            **(dict(path=tmp_path / "data", seed=0, cache=tmp_path / "cache") | how)
        ),
    )
    first = read()
    assert len(count) == 22
    monkeypatch.chdir(tmp_path)
    assert values(read(path="data")) == values(first) and len(count) == 22
    for changed in (dict(seed=1), dict(resize=9), dict(skip_bad=True)):
        read(**changed)
        read(**changed)
    assert len(count) == 4 * 22


@pytest.mark.parametrize("change", ["content", "time", "more", "fewer", "name"])
def test_changed_files_are_decoded_again(tmp_path, change):
    path = shades(tmp_path / "data") / "a" / "04.png"
    before = folders.read(tmp_path / "data", cache=tmp_path / "cache")
    status = path.stat()
    if change == "content":
        save(path, (99, 0, 7), mode="RGB")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10))
    elif change == "time":
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10))
    elif change == "more":
        save(path.with_name("98.png"), (98, 0, 7), mode="RGB")
    elif change == "fewer":
        path.unlink()
    else:
        path.rename(path.with_name("97.png"))
    after = folders.read(tmp_path / "data", cache=tmp_path / "cache")
    assert len(cached(tmp_path / "cache")) == 4
    assert (values(after) == values(before)) == (change == "time")
    assert values(after) == values(folders.read(tmp_path / "data"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda rows, checksums: rows.write_bytes(rows.read_bytes()[:-1] + b"x"),
        lambda rows, checksums: rows.write_bytes(rows.read_bytes()[:-1]),
        lambda rows, checksums: rows.unlink(),
        lambda rows, checksums: checksums.unlink(),
        lambda rows, checksums: checksums.write_text("{"),
        lambda rows, checksums: checksums.write_text("[]"),
        lambda rows, checksums: checksums.write_text(
            checksums.read_text().replace("a/02.png", "a/06.png")
        ),
    ],
    ids=["byte", "cut", "no rows", "no digests", "no JSON", "list", "another skipped"],
)
def test_damaged_files_are_made_again(tmp_path, damage, monkeypatch):
    shades(tmp_path / "data", bad=[2])
    how = dict(cache=tmp_path / "cache", skip_bad=True)
    expected = values(folders.read(tmp_path / "data", **how))
    checksums, rows = (tmp_path / "cache" / name for name in cached(tmp_path / "cache"))
    damage(rows, checksums)
    count = decoded(monkeypatch)
    for _ in range(2):
        folder = folders.read(tmp_path / "data", **how)
        assert values(folder) == expected and folder.skipped == ("a/02.png",)
    assert len(count) == 22


def test_a_bad_image_leaves_no_file(tmp_path):
    shades(tmp_path / "data", bad=[5])
    for _ in range(2):
        with pytest.raises(ValueError, match=r"b/05\.png does not decode"):
            folders.read(tmp_path / "data", cache=tmp_path / "cache")
        assert cached(tmp_path / "cache") == []


def test_files_that_are_not_images_are_reported_before_decoding(tmp_path, monkeypatch):
    """Also if resizing and a first image in colour make the other headers unnecessary."""
    shades(tmp_path / "data")
    count, last = decoded(monkeypatch), tmp_path / "data" / "b" / "21.png"
    for content in (b"", b"no image"):
        last.write_bytes(content)
        with pytest.raises(ValueError, match=r"b/21\.png.*PNG, JPEG"):
            folders.read(tmp_path / "data", resize=8)
    last.unlink()
    last.symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"b/21\.png does not decode: FileNotFoundError"):
        folders.read(tmp_path / "data", resize=8)
    assert count == []


def test_files_that_a_killed_process_left_are_deleted(tmp_path):
    shades(tmp_path / "data")
    expected = values(folders.read(tmp_path / "data", cache=tmp_path / "cache"))
    checksums, rows = (tmp_path / "cache" / name for name in cached(tmp_path / "cache"))
    left_over = rows.with_name(f".{rows.name}.0123{files.TEMPORARY}")
    left_over.write_bytes(rows.read_bytes()[:900])
    rows.unlink()
    checksums.unlink()
    assert values(folders.read(tmp_path / "data", cache=tmp_path / "cache")) == expected
    assert cached(tmp_path / "cache") == [checksums.name, rows.name]


def test_a_full_disk_leaves_nothing(tmp_path, full_disk):
    shades(tmp_path / "data")
    with pytest.raises(OSError, match="No space left"):
        folders.read(tmp_path / "data", cache=tmp_path / "cache")
    assert cached(tmp_path / "cache") == []


def test_missing_room_is_an_error_before_decoding(tmp_path, monkeypatch):
    shades(tmp_path / "data")
    count = decoded(monkeypatch)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 0, 9_503))
    with pytest.raises(OSError, match="9,504.*9,503"):
        folders.read(tmp_path / "data", cache=tmp_path / "cache")
    assert count == []


def test_two_readers_at_once_decode_once(tmp_path, monkeypatch):
    shades(tmp_path / "data")
    count = decoded(monkeypatch)
    read = lambda _: folders.read(tmp_path / "data", cache=tmp_path / "cache", threads=1)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(read, range(2))
    assert len(count) == 22 and values(one) == values(other)


def test_classes_that_are_too_small_to_split(tmp_path, monkeypatch):
    shades(tmp_path / "data")
    save(tmp_path / "data" / "c" / "x.png", (1, 2, 3), mode="RGB")
    count = decoded(monkeypatch)
    with pytest.raises(ValueError, match="'c'.* 1"):
        folders.read(tmp_path / "data", seed=0, cache=tmp_path / "cache")
    assert count == []


def write_rows(path, *blocks, **facts):
    with _image_cache._row_writer(path, (2, 3), facts) as add:
        for block in blocks:
            add(block)


BLOCKS = [np.full((n, 2, 3), n % 256, np.uint8) for n in (4, 1, 0, 300)]


def test_rows_are_a_memory_map(tmp_path):
    """The number 305 has more digits than the number of rows in the first header."""
    write_rows(tmp_path / "a.npy", *BLOCKS, of="x")
    rows, facts = _image_cache._read_rows(tmp_path / "a.npy")
    assert isinstance(rows, np.memmap) and not rows.flags.writeable and facts == {"of": "x"}
    np.testing.assert_array_equal(rows, np.concatenate(BLOCKS))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), rows)
    assert names(tmp_path) == ["a.json", "a.npy"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda rows, checksums: rows.write_bytes(rows.read_bytes()[:-1] + b"x"),
        lambda rows, checksums: rows.write_bytes(rows.read_bytes()[:-6]),
        lambda rows, checksums: np.save(rows, np.concatenate(BLOCKS)[:, :1]),
        lambda rows, checksums: np.save(rows, np.concatenate(BLOCKS).astype(np.int8)),
        lambda rows, checksums: checksums.write_text("{}"),
        lambda rows, checksums: checksums.write_text("text"),
    ],
    ids=["byte", "cut", "shape", "type", "empty", "text"],
)
def test_damaged_rows_are_rejected(tmp_path, damage):
    write_rows(tmp_path / "a.npy", *BLOCKS)
    damage(tmp_path / "a.npy", tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"a\.(npy is not a readable|json is not readable)"):
        _image_cache._read_rows(tmp_path / "a.npy")


@pytest.mark.parametrize("missing", ["a.npy", "a.json"])
def test_missing_rows(tmp_path, missing):
    write_rows(tmp_path / "a.npy", *BLOCKS)
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError):
        _image_cache._read_rows(tmp_path / "a.npy")


def test_unfinished_rows_leave_the_old_ones(tmp_path):
    write_rows(tmp_path / "a.npy", BLOCKS[0])
    with pytest.raises(ZeroDivisionError):
        with _image_cache._row_writer(tmp_path / "a.npy", (2, 3), {}) as add:
            add(BLOCKS[1])
            raise ZeroDivisionError
    assert _image_cache._read_rows(tmp_path / "a.npy")[0].tolist() == BLOCKS[0].tolist()
    assert names(tmp_path) == ["a.json", "a.npy"]


def test_rows_are_not_held_in_memory(tmp_path):
    """Twelve megabytes are written in four blocks."""
    block = np.zeros((100, 50, 50), np.uint8)
    tracemalloc.start()
    try:
        with _image_cache._row_writer(tmp_path / "a.npy", (50, 50), {}) as add:
            for _ in range(48):
                add(block)
        rows, _ = _image_cache._read_rows(tmp_path / "a.npy")
        assert rows.shape == (4800, 50, 50)
        assert tracemalloc.get_traced_memory()[1] < 4 * 10**6
    finally:
        tracemalloc.stop()
