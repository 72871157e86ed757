"""Tests of the page about a run: complete, escaped, true to the result, readable in a browser."""

import base64
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
from jaxdd.commands import cli
from jaxdd.data import datasets, files
from jaxdd.runs import results
from jaxdd.runs.folder import manifest, store
from jaxdd.runs.reports import figure_data, plot, report

RESULTS = [table.RESULTS / "demo.json"]
EVIL = "</td></style><img src=x onerror=\"alert(1)\" title='{{ 7 * 7 }}'>&amp;"
CONFIG = {
    "command": "compare", "dataset": "cdigits", "data": "0f3a", "method": "dm", "ipc": 12,
    "conflict": 0.1, "severity": None, "preset": "quick", "steps": 40, "batch_size": 128,
    "width": 32, "learning_rate": 1.0, "skip_bad": False, "seed": 7, "score_every": 10,
}  # fmt: skip


class Page(html.parser.HTMLParser):
    """The elements of a page with their attributes, and its texts. Every element must be closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "html"):
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


# --- folders -----------------------------------------------------------------------------------


def make_result(mean, name, **fields):
    scores = {score: results.Score(mean, 0.02, 5) for score in results.SCORES}
    return results.Result(
        **scores,
        weights={"conflict_auc": 0.987, "effective_sample_size": 1218.4},
        seconds={"data": 4.25, "compile": 16.0, "evaluate": 22.75},
        device="cpu",
        versions={"python": "3.11.7", "jax": "0.10.2"},
        date="2026-11-21",
        config={**CONFIG, "row": name},
        **fields,
    )


def write_run(folder, result, config, names):
    """Write the folder of a finished run, without the computation."""
    store.create(folder, config)
    files.write_json(folder / "result.json", result.to_dict())
    images = np.random.default_rng(0).normal(size=(3, 12, 8, 8, 3)).astype(np.float32)
    labels = np.arange(3, dtype=np.int32)[:, None].repeat(12, 1)
    half = np.full(3, 0.5, np.float32)
    synthetic = store.Synthetic(images, labels, half, half, {"class_names": names})
    store.write_synthetic(folder / "synthetic.npz", synthetic)
    manifest.record(folder, ("config.json", "result.json", "synthetic.npz"))


def make_comparison(folder, names=("x", "y", "z")):
    store.create(folder, CONFIG)
    rows = {
        name: make_result(0.5 + 0.1 * i, name)
        for i, name in enumerate(("random", "plain", "density"))
    }
    for name, row in rows.items():
        write_run(folder / "rows" / name, row, {**CONFIG, "row": name}, list(names))
    content = {name: row.to_dict() for name, row in rows.items()}
    files.write_json(folder / "compare.json", {"rows": content})
    return folder


def make_run(folder, names=(EVIL, "$b_", "c")):
    """Write a run whose page has every section, and whose names contain HTML."""
    config = {**CONFIG, "command": "run", "debias": "density"}
    trial = dict(overall=0.5, aligned=0.75, conflicting=0.25, count=12)
    tried = dict(encoder_steps=30, bandwidth=0.2, temperature=1.0, evenness=EVIL)
    candidate = dict(
        name=EVIL, blocks=[0, 1, 2], bimodality=EVIL, confident_share=None, shortcut=None,
        trials={"uniform": trial, EVIL: trial}, rejection=EVIL, effective_sample_size=9.0,
    )  # fmt: skip
    choice = dict(
        verdict="undecided", uniform=True, chosen=[], candidates=[candidate], best=tried,
        search=[tried],
    )  # fmt: skip
    sizes = np.array([30, 6, 24])
    by_class = results.Breakdown(names, sizes, sizes, np.full(3, 0.5), np.zeros(3))
    result = make_result(
        0.9, "density", random=results.Scores(accuracy=results.Score(0.4)), choice=choice,
        by_class=by_class,
    )  # fmt: skip
    write_run(folder, result, config, list(names))
    labels = np.arange(30) % 3
    images = np.random.default_rng(0).integers(0, 255, (30, 4, 4, 3), np.uint8)
    part, half = datasets.Dataset(images, labels, labels[::-1]), (0.5,) * 3
    data = datasets.Benchmark("name", part, part, 3, 3, (0, 1, 2), half, half, (), names, ())
    weights, plane = np.linspace(1, 3, 30), plot.plane(images[:, 0, :, 0])
    figure_data.write(folder / figure_data.FILE, data, weights, plane=plane)
    files.write_arrays(folder / "weights.npz", {"weights": weights})
    for step in (10, 20):
        store.append(folder, {"step": step, "loss": 1 / step, "accuracy": 0.5, "x": EVIL})
    store.append(folder, {"note": "no step"})
    row = dict(network=EVIL, protocol="standard", set="set", eval_seeds=3, epochs=40)
    row["accuracy"] = dict(mean=0.123, std=0.004, n=3)
    files.write_json(folder / "evaluation.json", {"mlp standard set": row})
    write_profile(folder)
    return folder


def write_profile(folder, **fields):
    """Write a profile of two directions, as `jaxdd profile` does."""
    bands = [{"directions": 2, "share": 0.99, "variance": 0.75, "error": 0.25}]
    values = {"variance": [1.0, 0.5], "error": [0.1, 0.9], "bands": bands}
    profiles = {"random": {"sets": {"set": values, "random": values}}}
    content = {"data": "cdigits", "per_set": 36, "profiles": profiles}
    content["set"] = files.sha256(folder / "synthetic.npz")
    files.write_json(folder / "profile.json", content | fields)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return make_comparison(tmp_path_factory.mktemp("report") / "comparison")


@pytest.fixture(scope="module")
def rendered(run, comparison):
    """The page of a run, of a comparison and of a result in JSON; each is rendered once."""
    sources = {"run": run, "comparison": comparison, "json": RESULTS[0]}
    return {name: report.render(report.read(source)) for name, source in sources.items()}


@pytest.fixture(params=["run", "comparison", "json"])
def text(rendered, request):
    return rendered[request.param]


# --- the page ----------------------------------------------------------------------------------


def test_the_page_is_complete_and_loads_nothing(text):
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert page.all("html")[0]["lang"] == "en" and len(page.all("h1")) == 1
    assert not any(page.all(tag) for tag in ("script", "link", "iframe", "object", "base"))
    for _, attributes in page.elements:
        assert not {"href", "srcset", "onload", "action"} & attributes.keys()
        assert attributes.get("src", "data:").startswith("data:")
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert "default-src 'none'" in policy
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.S)
    assert "--page" in style and not re.search(r"url\(|@import|//", style)


def test_tables_have_headers_and_pictures_descriptions(text):
    page = Page(text)
    assert {attributes.get("scope") for attributes in page.all("th")} == {"col", "row"}
    assert all(attributes.get("aria-label") for attributes in page.all("table"))
    for image in page.all("img"):
        content = base64.b64decode(image["src"].partition(",")[2])
        with Image.open(io.BytesIO(content)) as opened:
            assert opened.size == (int(image["width"]), int(image["height"]))
        assert image["alt"]


def test_a_comparison_shows_the_set_of_every_row(rendered):
    page = Page(rendered["comparison"])
    alts = [image["alt"] for image in page.all("img")]
    assert len(alts) == 3 and "set density" in alts[2] and "x, y, z" in alts[2]
    assert "Shown: the first 10 of 12 images per class." in page.texts


def test_a_run_shows_every_section(rendered):
    page = Page(rendered["run"])
    headings = {
        "Accuracy", "During distillation", "Accuracy by group", "Accuracy by class",
        "Other networks", "Spectral profile", "Synthetic images", "Sample weights",
        "Sample weights: density", "Choice of the weights: density", "How to repeat it",
        "Configuration", "Wall time",
    }  # fmt: skip
    assert headings <= set(page.texts)
    assert {"90.0 ± 2.0", "12.3 ± 0.4", "0.75", "0.987", "1,218", "75.0"} <= set(page.texts)
    alts = " ".join(image["alt"] for image in page.all("img"))
    assert all(word in alts for word in ("Curves", "lightest real", "Histogram", "Scatter"))


def test_strings_of_a_result_are_escaped(rendered):
    page = Page(rendered["run"])
    assert page.texts.count(EVIL) >= 4 and "49" not in " ".join(page.texts)
    assert all("onerror" not in attributes for _, attributes in page.elements)
    assert any(f"each of the classes {EVIL}, $b_, c." in x["alt"] for x in page.all("img"))


def test_bars_have_the_length_of_their_numbers(tmp_path):
    """The interval of 3 networks is 4.3027 · 0.01 / √3 = 0.02484 on either side of 0.5."""
    score = {"mean": 0.5, "std": 0.01, "n": 3}
    rows = {"density": {"accuracy": score, "aligned": score}, "plain": {"accuracy": {"mean": 0.25}}}
    files.write_json(tmp_path / "result.json", {"rows": rows})
    text = report.render(report.read(tmp_path / "result.json"))
    bars = re.findall(r'<div class="bar">.*?</div>', text, re.S)
    styles = [re.findall(r'class="(\w+)" style="(.*?)"', bar) for bar in bars]
    half = [("fill", "width:50.00%"), ("interval", "left:47.52%;width:4.97%")]
    assert styles == [half, [("fill", "width:25.00%")], half, []]


def test_unknown_numbers_are_dashes(tmp_path):
    content = make_result(0.5, "density", choice=None).to_dict()
    content |= {"aligned": {"mean": None, "std": None, "n": 1}, "weights": {"conflict_auc": None}}
    files.write_json(tmp_path / "result.json", content)
    words = " ".join(Page(report.render(report.read(tmp_path / "result.json"))).texts).lower()
    assert "–" in words and not {"nan", "null", "inf"} & set(re.findall(r"[a-z]+", words))


def test_a_worst_group_of_few_images_is_hidden_and_poor_networks_are_reported(tmp_path):
    counts = np.array([[500, 9], [40, 451]])
    group = results.Breakdown((), counts, counts, np.full((2, 2), 0.5), np.zeros((2, 2)))
    classes = results.Breakdown((), *[counts.sum(1)] * 2, np.full(2, 0.5), np.zeros(2))
    row = make_result(0.1, "density", by_class=classes, by_group=group, learned=False)
    files.write_json(tmp_path / "result.json", row.to_dict())
    texts = Page(report.render(report.read(tmp_path / "result.json"))).texts
    assert "worst group" not in texts and any("has 9 test images" in text for text in texts)
    assert any("no sign of learning" in text for text in texts)


NUMBER = r"\d[\d,]*(?:\.\d+)*"


def spellings(value):
    """Yield every way in which the page may write a value of a result."""
    if isinstance(value, dict):
        if {"mean", "std"} <= value.keys():  # a score or a breakdown
            shares = [*np.ravel(value["mean"]), *np.ravel(value["std"])]
            if "n" in value:
                shares += results.interval(results.Score.from_dict(value)) or ()
            yield from (f"{100 * x:.1f}" for x in shares if x is not None)
        for name, item in value.items():
            yield from (*re.findall(NUMBER, name), *spellings(item))
    elif isinstance(value, list):
        for item in value:
            yield from spellings(item)
    elif isinstance(value, (str, bool)) or value is None:
        yield from re.findall(NUMBER, str(value))
    else:
        yield from (str(value), f"{value:.2f}", f"{value:.3f}", f"{value:,.1f}", f"{value:,.0f}")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_number_is_one_of_the_result(path):
    """All accuracies but those of tiny groups are shown, and no number that the result lacks."""
    content, rows = json.loads(path.read_text()), results.read(path)
    known = {*spellings(content), "95", "0.5", "1", f"{results.total_seconds(rows):,.0f}"}
    texts = Page(report.render(report.read(path))).texts
    assert texts and not [n for x in texts for n in re.findall(NUMBER, x) if n not in known]
    for row in rows.values():
        is_tiny = (results.smallest_group(row) or np.inf) < results.MIN_GROUP_SIZE
        for name in results.SCORES:
            if not (is_tiny and name == "worst_group"):
                assert results.percent(getattr(row, name)) in texts


# --- reading -----------------------------------------------------------------------------------


def test_an_unfinished_run_shows_how_to_resume_it(tmp_path):
    folder = make_run(tmp_path / "a b", ("a", "b", "c"))
    (folder / "result.json").unlink()
    store.append(folder, {"step": 20})
    with pytest.raises(ValueError, match=r"step 20 of 40; .*jaxdd run .*'.*a b' --resume"):
        report.read(folder)
    folder = make_comparison(tmp_path / "c")
    (folder / "compare.json").unlink()
    with pytest.raises(ValueError, match=r"--rows random plain density --out .*/c --resume$"):
        report.read(folder)


def test_other_folders_are_reported(tmp_path, run):
    with pytest.raises(FileNotFoundError, match="nothing does not exist"):
        report.read(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no config.json"):
        report.read(run.parent)


@pytest.mark.parametrize(
    "name, content",
    [
        ("result.json", "{"),
        ("result.json", "[1]"),
        ("result.json", '{"accuracy": 3}'),
        ("result.json", '{"accuracy": {"mean": 0.9}}'),
        ("config.json", "[]"),
        ("config.json", '{"command": "run"}'),
        ("evaluation.json", "[]"),
        ("evaluation.json", '{"vgg11": {"random": {}}}'),
        ("profile.json", "{}"),
        ("profile.json", '{"profiles": {}, "set": "abc"}'),
        ("figures.npz", "PK"),
        ("synthetic.npz", "PK"),
        ("progress.jsonl", "[]\n{}\n"),
    ],
    ids=str,
)
def test_damaged_files_are_reported(tmp_path, run, name, content):
    """Valid files with another checksum than in the manifest count as damaged."""
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=name):
        report.read(folder)


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    out, known = tmp_path / "report.html", report.read(RESULTS[0])
    report.write(out, known)
    before = out.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        report.write(out, known._replace(config={}))
    assert out.read_bytes() == before and list(tmp_path.iterdir()) == [out]


# --- the command -------------------------------------------------------------------------------


def test_figures_and_tables_are_exported(run, tmp_path):
    names = {
        path.name for path in report.export(tmp_path, report.read(run), suffixes=[".svg", ".csv"])
    }
    figures = (
        "accuracy", "curves", "profile", "synthetic-density", "weights-density", "real-density",
        "embedding-density",
    )  # fmt: skip
    assert {f"{name}.svg" for name in figures} <= names
    assert {"accuracy.csv", "weights.csv", "seconds.csv"} <= names
    assert names == {path.name for path in tmp_path.iterdir()}


def test_a_figure_that_cannot_be_drawn_becomes_a_remark(run, tmp_path, monkeypatch):
    def draw(path, **_):
        raise RuntimeError("no font <x>")

    monkeypatch.setattr(plot, "weights_by_group", draw)
    content = report.read(run)
    with pytest.warns(UserWarning, match="weights-.*no font <x>"):
        page = Page(report.render(content))
    assert any("no font <x>" in text for text in page.texts)
    with pytest.warns(UserWarning, match="weights-.*no font <x>"):
        paths = report.export(tmp_path, content, suffixes=[".svg"])
    names = {path.name for path in paths}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert "accuracy.svg" in names and not any(name.startswith("weights-") for name in names)


def test_the_command_writes_page_and_tables(tmp_path, capsys):
    out = tmp_path / "page.html"
    cli.main(["report", str(RESULTS[0]), "--out", str(out), "--csv", "--latex"])
    assert Page(out.read_text(encoding="utf-8")).texts
    names = {path.name for path in (tmp_path / "page").iterdir()}
    assert {"accuracy.csv", "accuracy.tex", "weights.csv", "seconds.tex"} <= names
    assert f"and {len(names)} files in {tmp_path / 'page'}" in capsys.readouterr().out
    assert (tmp_path / "page" / "accuracy.csv").read_text().startswith("row,all,all std,all low,")


def test_the_command_rejects_bad_paths_in_one_line(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for arguments in (
        [tmp_path],
        [RESULTS[0], "--out", tmp_path],
        [run, "--out", tmp_path / "page.json"],
        [run, "--out", tmp_path / "file.html", "--csv"],
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["report", *map(str, arguments)])
        assert stopped.value.code == 2 and capsys.readouterr().err.count("\n") == 1


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


def measure(text, width, tmp_path, *, scheme="light"):
    """Return sizes and colours of the page in a window of that width."""
    outer = tmp_path / "outer.html"
    page = json.dumps(text).replace("</", "<\\/")
    outer.write_text(MEASURE.replace("WIDTH", str(width)).replace("PAGE", page), encoding="utf-8")
    command = [
        CHROMIUM,
        *FLAGS,
        f"--blink-settings=preferredColorScheme={('dark', 'light').index(scheme)}",
        f"--user-data-dir={tmp_path / scheme}",
        "--virtual-time-budget=5000",
        "--window-size=1300,900",
        "--dump-dom",
        outer.as_uri(),
    ]
    output = subprocess.run(command, capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>(.*?)</title>", output.stdout, re.S)
    assert title, output.stderr[-2000:]
    return json.loads(html.unescape(title[1]))


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_shows_all_pictures_within_the_window(rendered, tmp_path, width):
    sizes = measure(rendered["run"], width, tmp_path)
    assert sizes["width"] == width and sizes["content"] <= width
    assert len(sizes["images"]) == 7
    assert all(complete and min(rest) > 0 for complete, *rest in sizes["images"])


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_set_to_dark_shows_a_dark_page(rendered, tmp_path):
    schemes = ("light", "dark")
    colors = [measure(rendered["json"], 800, tmp_path, scheme=x)["color"] for x in schemes]
    light, dark = (sum(map(int, re.findall(r"\d+", color))) for color in colors)
    assert light > 700 and dark < 100
