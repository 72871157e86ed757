"""The page about a run: whole, escaped, true to the result, and readable in a browser."""

import base64
import contextlib
import dataclasses
import errno
import html
import html.parser
import io
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from experiments.tools import table
from jaxdd.commands import cli, screen
from jaxdd.data import datasets, files
from jaxdd.runs import old_results as results
from jaxdd.runs.folder import store
from jaxdd.runs.reports import figure_data, plot, report

RESULTS = [table.RESULTS / "demo.json"]
SCORES = ("accuracy", "aligned", "conflicting", "worst_group")
CONFIG = {
    "command": "compare",
    "dataset": "cdigits",
    "data": "0f3a",
    "method": "dm",
    "ipc": 12,
    "conflict": 0.1,
    "severity": None,
    "preset": "quick",
    "steps": 40,
    "batch_size": 128,
    "width": 32,
    "learning_rate": 1.0,
    "skip_bad": False,
    "seed": 7,
}


class Page(html.parser.HTMLParser):
    """Every element with its attributes, the texts, and what was left open or closed twice."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "html"):
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def row(mean, seed=0, name="kde"):
    rng = np.random.default_rng(seed)
    scores = {
        score: dict(mean=mean * rng.uniform(0.8, 1), std=rng.uniform(0.01, 0.02), n=5)
        for score in SCORES
    }
    return {
        **scores,
        "weights": {
            "conflict_auc": 0.987,
            "conflict_weight_share": 0.854,
            "group_evenness": 0.91,
            "effective_sample_size": 1218.4,
        },
        "seconds": {"data": 4.25, "compile": 16.0, "embed": 9.5, "density": 2.0, "evaluate": 22.75},
        "device": "cpu",
        "versions": {"python": "3.11.7", "jax": "0.10.2"},
        "date": "2026-11-21",
        "config": {**CONFIG, "row": name},
    }


def png(size=(30, 20)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def synthetic(path, names=None, k=3, ipc=12):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(k, ipc, 8, 8, 3)).astype(np.float32)
    labels = np.arange(k, dtype=np.int32)[:, None].repeat(ipc, 1)
    one = np.full(3, 0.5, np.float32)
    store.write_synthetic(path, store.Synthetic(images, labels, one, one, {"class_names": names}))


def make_compare(folder, **names):
    """A finished comparison, without the computing."""
    store.create(folder, CONFIG)
    rows = {name: row(0.5 + 0.1 * i, i, name) for i, name in enumerate(("random", "none", "kde"))}
    for name, each in rows.items():
        inner = store.create(folder / "rows" / name, {**CONFIG, "row": name})
        files.write_json(inner / "result.json", each)
        synthetic(inner / "synthetic.npz", **names)
    files.write_json(folder / "compare.json", {"rows": rows})
    for file in ("weights.png", "embedding.png", "synthetic.png", "accuracy.png"):
        (folder / file).write_bytes(png())
    return folder


def make_run(folder):
    config = {**CONFIG, "command": "run", "debias": "kde"}
    store.create(folder, config)
    files.write_json(folder / "result.json", {**row(0.9), "random": row(0.4, 3), "config": config})
    synthetic(folder / "synthetic.npz", ["a", "b", "c"])
    (folder / "weights.png").write_bytes(png())
    return folder


@pytest.fixture(params=[make_compare, make_run, None], ids=["compare", "run", "json"])
def source(request, tmp_path):
    if request.param is None:
        return RESULTS[0]
    return request.param(tmp_path / "source")


def test_the_page_is_whole_and_carries_all_it_shows(source):
    text = report.render(report.read(source))
    found = Page(text)
    assert text.startswith("<!doctype html>")
    assert found.all("html")[0]["lang"] == "en" and len(found.all("h1")) == 1
    assert not any(found.all(tag) for tag in ("script", "link", "iframe", "object", "base"))
    for attributes in (attributes for _, attributes in found.found):
        assert not {"href", "srcset", "onload", "action"} & attributes.keys()
        assert attributes.get("src", "data:").startswith("data:")
    policy = next(m["content"] for m in found.all("meta") if "http-equiv" in m)
    assert "default-src 'none'" in policy
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.S)
    assert "--page" in style and not re.search(r"url\(|@import|//", style)


def test_pictures_are_those_of_the_folder_and_are_described(tmp_path):
    found = Page(report.render(report.read(make_compare(tmp_path / "a", names=["x", "y", "z"]))))
    images = found.all("img")
    contents = [base64.b64decode(image["src"].partition(",")[2]) for image in images]
    assert len(images) == 5 and contents[3:] == [png(), png()]
    for image, content in zip(images, contents, strict=True):
        assert image["alt"]
        with Image.open(io.BytesIO(content)) as opened:
            assert opened.size == (int(image["width"]), int(image["height"]))
    assert "set kde" in images[2]["alt"] and "x, y, z" in images[2]["alt"]
    assert "Drawn: the first 10 of 12 images per class." in found.texts


def test_tables_have_headers(source):
    found = Page(report.render(report.read(source)))
    scopes = [attributes.get("scope") for attributes in found.all("th")]
    assert set(scopes) == {"col", "row"}
    assert all(attributes.get("aria-label") for attributes in found.all("table"))


def numbers(text):
    """The numbers of a text, in the order they are read."""
    return re.findall(r"\d[\d,]*(?:\.\d+)*", text)


def spelled(value, name=""):
    """Every way in which the page may show what stands in a result."""
    if isinstance(value, dict):
        if {"mean", "std", "n"} <= value.keys():
            ends = results.interval(value) or ()
            yield from (f"{100 * x:.1f}" for x in (value["mean"], value["std"], *ends))
        for key, item in value.items():
            yield from spelled(item, key)
    elif isinstance(value, (str, bool)) or value is None:
        yield from numbers(str(value))
    else:
        yield from (str(value), f"{value:.2f}", f"{value:.3f}", f"{value:,.1f}", f"{value:,.0f}")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_number_is_one_of_the_result(path):
    known = {*spelled(json.loads(path.read_text())), "95", "5", "1", "0"}  # and those of the prose
    known.add(f"{results.seconds(results.read(path)):,.0f}")
    found = Page(report.render(report.read(path)))
    assert found.texts and not [n for text in found.texts for n in numbers(text) if n not in known]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_accuracy_of_the_result_is_shown(path):
    texts = set(Page(report.render(report.read(path))).texts)
    for each in json.loads(path.read_text())["rows"].values():
        for score in SCORES:
            assert f"{100 * each[score]['mean']:.1f} ± {100 * each[score]['std']:.1f}" in texts
        assert f"{each['weights']['conflict_weight_share']:.2f}" in texts


@pytest.mark.parametrize("uniform", [True, False])
def test_a_choice_of_weights_is_told(tmp_path, uniform):
    values = [
        dict(encoder_steps=30, bandwidth=0.2, temperature=t, evenness=b)
        for t, b in ((0.7, 0.62), (1.0, 0.93))
    ]
    trial = dict(overall=0.953, aligned=0.991, conflicting=0.127, count=641)
    chosen = dict(uniform=uniform, best=values[1], candidates=values, trials={"best": trial})
    rows = {"none": row(0.3), "auto": {**row(0.9), "choice": chosen}}
    files.write_json(tmp_path / "result.json", {"rows": rows})
    texts = Page(report.render(report.read(tmp_path / "result.json"))).texts
    assert {"Choice of the weights: auto", "99.1", "12.7", "641", "0.62", "30, 0.2"} <= set(texts)
    (told,) = (text for text in texts if text.startswith("The pseudo-groups"))
    assert "30 steps" in told and "temperature 1." in told
    assert ("Uniform weights were kept" in told) == uniform
    chosen["rejection"] = "could not be judged: 1 held-out samples disagree"
    files.write_json(tmp_path / "result.json", {"rows": rows})
    page = Page(report.render(report.read(tmp_path / "result.json"))).texts
    assert any("were kept: could not be judged: 1" in text for text in page) == uniform
    files.write_json(tmp_path / "bad.json", {"rows": {"auto": {**row(0.9), "choice": {"best": 1}}}})
    with pytest.raises(ValueError, match="row auto: choice must hold balances.*found best"):
        report.read(tmp_path / "bad.json")


def test_the_view_that_shows_a_bias_is_told(tmp_path):
    """What it and the patches got wrong; no search and no trials, for there were none."""
    found = {"tone": dict(blocks=[0, 1, 1], blind=0.053, baseline=0.104, z_score=22.31)}
    chosen = dict(uniform=False, best=None, candidates=[], trials={}, rejection=None)
    rows = {"auto": {**row(0.9), "choice": chosen | dict(features="tone", shortcuts=found)}}
    files.write_json(tmp_path / "result.json", {"rows": rows})
    texts = Page(report.render(report.read(tmp_path / "result.json"))).texts
    assert {"tone", "2", "5.3", "10.4", "+22.3"} <= set(texts)
    assert any(text.startswith("Tone, which cannot draw the object") for text in texts)
    assert not any("pseudo-groups" in text or "conflicting" in text for text in texts)


@pytest.mark.parametrize(
    "part, value, message",
    [
        ("shortcuts", {"tone": {}}, "shortcuts must hold blind, blocks, deviations"),
        ("features", "tone", "view must be of shortcuts, found 'tone'"),
        ("trials", {}, "trials must hold best"),
        ("candidates", [{}], "best and balances must hold balance, bandwidth"),
        ("best", 3, "best and balances must hold balance, bandwidth"),
    ],
)
def test_a_damaged_choice_is_named(tmp_path, part, value, message):
    tried = dict.fromkeys(results.TRIED, 1)
    choice = {
        "uniform": False,
        "best": tried,
        "candidates": [tried],
        "trials": {"best": dict.fromkeys(results.TRIAL, 1)},
    }
    for changed in ({}, {part: value}):
        rows = {"auto": {**row(0.9), "choice": choice | changed}}
        files.write_json(tmp_path / "result.json", {"rows": rows})
        with pytest.raises(ValueError, match=message) if changed else contextlib.nullcontext():
            report.read(tmp_path / "result.json")


def test_other_networks_are_told(tmp_path):
    folder = make_run(tmp_path / "run")
    one = {"accuracy": {"mean": 0.123, "std": 0.004, "n": 3}}
    two = {"accuracy": {"mean": 0.456, "std": 0.0, "n": 1}, "conflicting": {"mean": 0.321}}
    rows = {"vgg11": {"random": one, "synthetic": two, "epochs": 40, "eval_seeds": 3}}
    files.write_json(folder / "transfer.json", rows)
    found = report.render(report.read(folder))
    line = re.search(r"<tr><th[^>]*>vgg11.*?</tr>", found, re.S)[0]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", line)
    assert cells == ["12.3 ± 0.4", "–", "45.6", "32.1", "3", "40"]


def profiled(folder, **given):
    """What `jaxdd profile` writes into the folder of a run, of two directions."""
    curves = {"variance": [1.0, 0.5], "error": [0.1, 0.9]}
    bands = [{"directions": 2, "share": 0.99, "variance": 0.75, "error": 0.25}]
    sets = {name: {**curves, "bands": bands} for name in ("set", "random")}
    profiles = {"random": {"eigenvalues": [2.0, 1.0], "signal": [1.0, 1.0], "sets": sets}}
    found = {"data": "cdigits", "per_set": 36, "profiles": profiles}
    found |= {"set": store.digests(folder)["synthetic.npz"], **given}
    files.write_json(folder / "profile.json", results.sealed(found))


def test_what_the_set_keeps_is_told(tmp_path):
    folder = make_run(tmp_path / "run")
    assert "What the set keeps" not in report.render(report.read(folder))
    profiled(folder)
    found = report.read(folder)
    page = report.render(found)
    (line,) = re.findall(r"<tr><th[^>]*>2</th>.*?</tr>", page, re.S)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", line)
    assert cells == ["99.0 %", "0.75", "0.75", "0.25", "0.25"]
    assert "In features of random networks." in Page(page).texts
    names = {path.name for path in report.write_figures(tmp_path, found)}
    assert {"profile.svg", "profile.pdf"} <= names


def test_the_profile_of_another_set_or_a_changed_one_is_refused(tmp_path):
    folder = make_run(tmp_path / "run")
    profiled(folder, set="abc")
    with pytest.raises(ValueError, match="profile.json is of another set; delete it and profile"):
        report.read(folder)
    profiled(folder)
    path = folder / "profile.json"
    whole = path.read_text()
    for text, message in (
        (whole.replace("0.75", "0.95"), "changed or damaged; delete it and profile again"),
        ("{}", "holds no profiles; delete it"),
        (whole.replace('"digest"', '"x"'), "has no digest, as one of an earlier version"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            report.read(folder)


def test_bars_have_the_length_of_their_numbers(tmp_path):
    """The interval of 3 networks is 4.3027 * 0.01 / sqrt(3) = 0.02484 on either side of 0.5."""
    known = {"mean": 0.5, "std": 0.01, "n": 3}
    rows = {"kde": {"accuracy": known, "aligned": known}, "none": {"accuracy": {"mean": 0.25}}}
    files.write_json(tmp_path / "result.json", {"rows": rows})
    text = report.render(report.read(tmp_path / "result.json"))
    bars = re.findall(r'<div class="bar">.*?</div>', text, re.S)
    styles = [re.findall(r'class="(\w+)" style="(.*?)"', bar) for bar in bars]
    whole = [("fill", "width:50.00%"), ("interval", "left:47.52%;width:4.97%")]
    assert styles == [whole, [("fill", "width:25.00%")], whole, []]
    assert [bar.count("<i") for bar in bars] == [2, 1, 2, 0]


EVIL = "</td></style><img src=x onerror=\"alert(1)\" title='{{ 7 * 7 }}'>&amp;"


def test_no_string_of_a_result_is_markup(tmp_path):
    """Whatever a result names, in text and in attributes, is shown letter by letter."""
    trial = dict.fromkeys(results.TRIAL, 0.5)
    tried = dict.fromkeys(results.TRIED, EVIL)
    choice = dict(uniform=True, best=tried, candidates=[tried], trials={"best": trial, EVIL: trial})
    hostile = {"device": EVIL, "date": EVIL, "versions": {EVIL: EVIL}, "seconds": {"data": EVIL}}
    config = {"dataset": EVIL, "command": EVIL, EVIL: EVIL, "ipc": EVIL, "seed": [EVIL]}
    rows = {EVIL: {**row(0.5), **hostile, "config": config, "choice": choice}}
    files.write_json(tmp_path / "result.json", {"rows": rows})
    found = report.read(tmp_path / "result.json")
    nets = {EVIL: dict.fromkeys(results.TRANSFERRED, row(0.5))}
    page = Page(report.render(found._replace(transfer=nets)))
    assert page.texts.count(EVIL) >= 12 and "49" not in " ".join(page.texts)
    assert not page.all("img") and all("onerror" not in a for _, a in page.found)


def test_names_are_text(tmp_path):
    """A class, a data set or a row may be called like markup."""
    folder = make_compare(tmp_path / "a", names=[EVIL, "y", "z"])
    config = {**CONFIG, "dataset": EVIL}
    files.write_json(folder / "config.json", config)
    found = Page(report.render(report.read(folder)))
    assert EVIL in found.texts and all("onerror" not in a for _, a in found.found)
    assert EVIL in [attributes.get("title") for attributes in found.all("span")]
    assert f"each of the classes {EVIL}, y, z." in found.all("img")[0]["alt"]
    assert len(found.all("img")) == 5


def test_what_is_not_a_number_is_a_dash(tmp_path):
    path = tmp_path / "result.json"
    nothing = {"mean": float("nan"), "std": None, "n": 1}
    weights = dict.fromkeys(row(0.5)["weights"])
    unknown = {"aligned": nothing, "worst_group": None, "weights": weights}
    path.write_text(json.dumps(row(0.5) | unknown))
    found = Page(report.render(report.read(path)))
    words = " ".join(found.texts).lower()
    assert "–" in found.texts
    assert not {"nan", "none", "null", "inf"} & set(re.findall(r"[a-z]+", words))


def test_a_run_that_is_not_finished_says_how_to_go_on(tmp_path):
    folder = make_run(tmp_path / "a b")
    (folder / "result.json").unlink()
    store.append(folder, {"step": 20})
    message = r"unfinished run, at step 20 of 40; continue it with: jaxdd run .*'.*a b' --resume"
    with pytest.raises(ValueError, match=message):
        report.read(folder)
    folder = make_compare(tmp_path / "c")
    (folder / "synthetic.png").unlink()
    with pytest.raises(
        ValueError,
        match=(
            "unfinished run; continue its rows random, none, kde with: "
            "jaxdd compare cdigits .*--rows random none kde --out .*/c --resume$"
        ),
    ):
        report.read(folder)


@pytest.mark.parametrize("picture", [True, False])
@pytest.mark.parametrize("said", [True, False, None, "missing"], ids=str)
def test_a_comparison_is_finished_when_it_says_so(tmp_path, said, picture):
    """By its last picture only where compare.json has no word of it; without it, nothing is."""
    folder = make_compare(tmp_path / "a")
    rows = results.read(folder / "compare.json")
    if said == "missing":
        (folder / "compare.json").unlink()
    elif said is not None:
        files.write_json(folder / "compare.json", {"rows": rows, "finished": said})
    if not picture:
        (folder / "synthetic.png").unlink()
    if said is True or (said is None and picture):
        assert report.read(folder).rows == rows
    else:
        with pytest.raises(ValueError, match="holds an unfinished run"):
            report.read(folder)


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing does not exist"):
        report.read(tmp_path / "nothing")
    make_run(tmp_path / "one")
    with pytest.raises(ValueError, match=r"no run folder \(no config.json\); it holds one"):
        report.read(tmp_path)


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("result.json", b"{", "result.json is not readable as JSON"),
        ("result.json", b"[1]", "result.json holds no result"),
        ("result.json", b'{"accuracy": 3}', "expected an accuracy"),
        ("result.json", b'{"accuracy": {"mean": 91.6}}', "out of range, found 91.6"),
        ("result.json", b'{"accuracy": {"mean": "x"}}', "mean of accuracy is out of range"),
        ("result.json", b'{"accuracy": {}, "aligned": 1}', "aligned must hold mean, std and n"),
        ("result.json", b'{"accuracy": {}, "seconds": 1}', "seconds must hold names and values"),
        ("config.json", b"[]", "config.json must hold an object"),
        ("result.json", b"[" * 100_000, "result.json is not readable as JSON"),
        ("transfer.json", b"[]", "transfer.json holds no results by network"),
        ("transfer.json", b'{"vgg11": {"random": {}}}', "vgg11, random: expected an accuracy"),
        ("weights.png", png()[:60], "weights.png is not a readable PNG file"),
        ("weights.png", b"GIF89a", "weights.png is not a readable PNG file"),
        ("synthetic.npz", b"PK", "synthetic.npz is not a readable synthetic set"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_damaged_files_are_named(tmp_path, file, content, message):
    folder = make_run(tmp_path / "run")
    (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        report.read(folder)


def test_the_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    out, found = tmp_path / "report.html", report.read(RESULTS[0])
    report.write(out, found)
    before = out.read_bytes()
    assert before.startswith(b"<!doctype html>")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            report.write(out, found._replace(config={}))
    assert out.read_bytes() == before and list(tmp_path.iterdir()) == [out]


def test_tiles_keep_every_pixel_and_leave_transparent_gaps():
    """Two classes of three 4 x 4 images: 4 + 1 + 4 pixels high and 4 + 1 + 4 + 1 + 4 wide."""
    images = np.linspace(-1, 1, 2 * 3 * 16).reshape(2, 3, 4, 4, 1).astype(np.float32)
    tiles = plot.tiles(images, mean=[0.5], std=[0.5])
    assert tiles.shape == (9, 14, 4) and tiles.dtype == np.uint8
    assert (tiles[4] == 0).all() and (tiles[:, [4, 9]] == 0).all()
    grey = (images[1, 2, ..., 0] * 0.5 + 0.5) * 255
    np.testing.assert_allclose(tiles[5:, 10:, 0], grey, atol=0.5)
    assert (tiles[5:, 10:, 3] == 255).all()


# --- in a browser ------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
).split()
MEASURE = """
<!doctype html><body><script>
const frame = document.createElement("iframe");
frame.style = "border:0; height:800px; width:WIDTHpx";
frame.onload = () => {
  const inner = frame.contentDocument, root = inner.documentElement;
  const color = inner.defaultView.getComputedStyle(inner.body).backgroundColor;
  const images = [...inner.images].map(image => [
    image.complete, image.naturalWidth, image.naturalHeight, image.getBoundingClientRect().width]);
  document.title = JSON.stringify(
    {width: root.clientWidth, content: root.scrollWidth, images, color});
};
frame.srcdoc = PAGE;
document.body.append(frame);
</script>
"""


def measured(text, width, tmp_path, *, scheme="light"):
    """What a browser makes of the page in a window of that width."""
    outer = tmp_path / "outer.html"
    given = json.dumps(text).replace("</", "<\\/")
    outer.write_text(MEASURE.replace("WIDTH", str(width)).replace("PAGE", given), encoding="utf-8")
    chosen = f"--blink-settings=preferredColorScheme={('dark', 'light').index(scheme)}"
    command = [
        CHROMIUM,
        *FLAGS,
        chosen,
        f"--user-data-dir={tmp_path / scheme}",
        "--virtual-time-budget=5000",
        "--window-size=1300,900",
        "--dump-dom",
        outer.as_uri(),
    ]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>(.*?)</title>", found.stdout, re.S)
    assert title, found.stderr[-2000:]
    return json.loads(html.unescape(title[1]))


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_shows_all_pictures_and_nothing_sticks_out(tmp_path):
    long = "a class with a name that is much too long for any screen" * 3
    text = report.render(report.read(make_compare(tmp_path / "a", names=[long, "y", "z"])))
    for width in (400, 1200):
        found = measured(text, width, tmp_path)
        assert found["width"] == width and found["content"] <= width
        assert len(found["images"]) == 5
        assert all(complete and min(sizes) > 0 for complete, *sizes in found["images"])


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_set_to_dark_shows_a_dark_page(tmp_path):
    text = report.render(report.read(RESULTS[0]))
    colors = [measured(text, 800, tmp_path, scheme=scheme)["color"] for scheme in ("light", "dark")]
    light, dark = (sum(map(int, re.findall(r"\d+", color))) for color in colors)
    assert light > 700 and dark < 100


def test_the_command_line_writes_the_page(tmp_path, capsys):
    out = tmp_path / "page.html"
    cli.main(["report", str(make_run(tmp_path / "run")), "--out", str(out)])
    assert f"wrote {out}" in capsys.readouterr().out
    assert Page(out.read_text(encoding="utf-8")).texts
    result = tmp_path / "run" / "result.json"
    for arguments in ([tmp_path], [RESULTS[0], "--out", tmp_path], [result, "--out", result]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["report", *map(str, arguments)])
        assert stopped.value.code == 2 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "config, line",
    [
        (
            {
                "command": "compare",
                "dataset": "cmnist",
                "conflict": 0.05,
                "ipc": 10,
                "preset": "quick",
                "method": "dm",
                "steps": 200,
                "batch_size": 128,
                "learning_rate": 1.0,
            },
            "jaxdd compare cmnist --conflict 0.05",
        ),
        (
            {
                "command": "run",
                "dataset": "my cats",
                "debias": "kde",
                "skip_bad": True,
                "ipc": 100,
                "learning_rate": 10.0,
            },
            "jaxdd run 'path/to/my cats' --debias kde --ipc 100 --skip-bad",
        ),
        (
            {
                "command": "run",
                "dataset": "cdigits",
                "debias": "none",
                "method": "dsa",
                "preset": "quick",
                "ipc": 10,
                "clip": None,
                "batch_size": 64,
                "init": "noise",
            },
            "jaxdd run cdigits --debias none --method dsa --init noise",
        ),
        (
            {"command": "compare", "dataset": "mnist", "preset": "paper", "width": 64},
            "jaxdd compare mnist --preset paper --width 64",
        ),
        ({"command": "magic", "dataset": "mnist"}, None),
        ({"command": "run", "dataset": "mnist", "preset": "huge"}, None),
    ],
    ids=str,
)
def test_the_command_says_what_differs_from_the_defaults(config, line):
    assert report.command(config) == line


def test_the_command_says_which_rows():
    config = {"command": "compare", "dataset": "cdigits", "ipc": 1}
    line = "jaxdd compare cdigits --ipc 1"
    assert report.command(config, rows=results.ROWS) == line
    assert report.command(config, rows=["random", "auto"]) == f"{line} --rows random auto"


def test_the_command_parses_to_the_same_configuration():
    asked = "run cdigits --debias none --ipc 3 --clip 2.5 --seed 4 --width 8 --bandwidth 0.25"
    called = cli._parse(asked.split()).keywords
    options = dataclasses.asdict(called["options"].resolved())
    line = report.command({"command": "run", "dataset": "cdigits", "debias": "none", **options})
    again = cli._parse(line.split()[1:]).keywords
    assert line.startswith("jaxdd run cdigits --debias none") and len(line) < 100
    assert again["debias"] == "none" and dataclasses.asdict(again["options"].resolved()) == options


# --- classes, groups, curves and figures -------------------------------------------------------


def shares(test, mean, names=()):
    zero = [[0.0] * len(row) for row in mean] if isinstance(mean[0], list) else [0.0] * len(mean)
    return dict(names=list(names), train=test, test=test, mean=mean, std=zero)


def texts_of(tmp_path, result):
    files.write_json(tmp_path / "result.json", result)
    return Page(report.render(report.read(tmp_path / "result.json"))).texts


def test_classes_and_groups_are_told_with_their_sizes(tmp_path):
    parts = {
        "by_class": shares([1012, 52], [0.875, 0.25], ["cat", "dog"]),
        "by_group": shares([[1003, 9], [40, 12]], [[0.9, 0.5], [0.222, 0.333]], ["red", "blue"]),
    }
    texts = texts_of(tmp_path, row(0.9) | parts)
    assert {"Accuracy by class", "87.5 ± 0.0", "1,012", "cat", "red", "blue"} <= set(texts)
    assert {"22.2", "33.3", "1,003 / 1,003", "9 / 9"} <= set(texts)
    assert "50.0" not in texts  # nine images
    assert "worst group" not in texts
    assert any("the smallest group has 9 test images" in text for text in texts)
    parts["by_group"] = shares([[3, 4], [4, 3]], [[0.9, 0.5], [0.2, 0.3]])
    texts = texts_of(tmp_path, row(0.9) | parts)
    assert "Groups" in texts and "3 / 3" in texts and "90.0" not in texts


def test_columns_without_a_number_are_left_out(tmp_path):
    unknown = dict.fromkeys(("aligned", "conflicting", "worst_group"))
    weights = dict.fromkeys(row(0.5)["weights"]) | {"effective_sample_size": 12.0}
    texts = texts_of(tmp_path, row(0.5) | unknown | {"weights": weights})
    assert not {"aligned", "conflicting", "worst group", "balance of the groups"} & set(texts)
    assert {"all", "effective samples per class", "12"} <= set(texts)


def test_a_run_that_did_not_learn_says_so(tmp_path, capsys):
    poor = row(0.1) | {"by_class": shares([500, 500], [0.5, 0.5]), "learnt": False}
    assert any("its networks show no sign of learning" in text for text in texts_of(tmp_path, poor))
    screen.show({"kde": poor, "none": row(0.9)}, tmp_path)
    error = capsys.readouterr().err
    assert (
        error.startswith("jaxdd: kde: its networks show no sign of learning in ")
        and error.count("\n") == 1
    )
    assert "naming one class throughout gets 50.0 %" in error


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with all that its page can show."""
    folder = make_run(tmp_path_factory.mktemp("report") / "run")
    labels = np.arange(30) % 3
    images = np.random.default_rng(0).integers(0, 255, (30, 4, 4, 3), np.uint8)
    part = datasets.Dataset(images, labels, labels[::-1])
    data = datasets.Benchmark(
        "made", part, part, 3, 3, (0, 1, 2), (0.5,) * 3, (0.5,) * 3, (), (EVIL, "$b_", "c"), ()
    )
    weights = np.linspace(1, 3, 30)
    figure_data.write(
        folder / figure_data.FILE, data, weights, plane=plot.plane(images[:, 0, :, 0])
    )
    files.write_arrays(folder / "weights.npz", files.sealed({"weights": weights}))
    for step in (10, 20):
        store.append(folder, {"step": step, "loss": 1 / step, "accuracy": 0.5, "x": EVIL})
    store.append(folder, {"note": "no step"})
    return folder


def test_the_page_shows_curves_and_what_has_weight(whole):
    found = Page(report.render(report.read(whole)))
    assert {"Along the way", "What has weight: kde", "heaviest real images"} <= set(found.texts)
    assert all("onerror" not in attributes for _, attributes in found.found)
    alts = [image["alt"] for image in found.all("img")]
    assert sum("Curves" in alt for alt in alts) == 1 and any("lightest real" in a for a in alts)


def test_figures_and_tables_are_written_beside_the_page(whole, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "FORMATS", (".svg",))  # tests of `plot` draw the other
    out = tmp_path / "page.html"
    cli.main(["report", str(whole), "--out", str(out), "--figures", "--csv", "--latex"])
    found = {path.name for path in (tmp_path / "page").iterdir()}
    figures = ("accuracy", "along-the-way", "synthetic-kde", "weights-kde", "real-kde")
    drawn = {f"{name}.svg" for name in (*figures, "embedding-kde")}
    assert drawn | {"accuracy.csv", "accuracy.tex", "weights.csv", "seconds.tex"} <= found
    assert f"and {len(found)} files in {tmp_path / 'page'}" in capsys.readouterr().out
    assert (tmp_path / "page" / "accuracy.csv").read_text().startswith("row,all,all std,all low,")
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        cli.main(["report", str(whole), "--out", str(tmp_path / "file.html"), "--csv"])
    assert "file is a file, expected a folder" in capsys.readouterr().err
