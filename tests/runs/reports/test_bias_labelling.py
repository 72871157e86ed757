"""Tests of the page about a bias in a browser: labelling, storage, and a page without scripts."""

import csv
import pathlib
import shutil

import numpy as np
import pytest

from jaxdd import weights
from jaxdd.data import datasets, duplicates
from jaxdd.runs import bias
from jaxdd.runs.reports import bias_page

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("needs chromium on the PATH", allow_module_level=True)

COUNT = 20


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def write(path, *, files=(), to_label=range(COUNT)):
    """Write the page of a data set of 24 images of two classes, with one candidate."""
    n = 24
    images = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), np.uint8)
    labels = np.arange(n) % 2
    data = datasets.from_arrays(images, labels, test=(images, labels))._replace(train_files=files)
    groups = np.where(np.arange(n) < 4, 1 - labels, labels)
    candidate = weights.Candidate(
        "tone", np.full(n, 1 / 12), np.linspace(1, 0, n), groups, (0, 1), 0.5, 0.1
    )
    choice = weights.Choice(np.full(n, 1 / 12), "undecided", (), (candidate,))
    commands = {"tone": "jaxdd run some/folder --debias tone"}
    indices = np.array(to_label)
    copies = duplicates.exact(data).counts()
    finding = bias.Finding(
        choice, np.arange(n), None, indices, (), copies, None, "some/folder", commands
    )
    bias_page.write(path, finding, data)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    names = tuple(f'a/{i}, "{i}".png' for i in range(24))
    return write(tmp_path_factory.mktemp("page") / "bias.html", files=names)


@pytest.fixture
def open_page(browser, path):
    """Return `open_page(path, **options of the context)`; errors and requests are checked."""
    contexts = []

    def open_page(path=path, context=None, **options):
        if context is None:
            context = browser.new_context(**options)
            contexts.append(context)
        context.set_default_timeout(10_000)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto(pathlib.Path(path).as_uri())
        return page

    errors, requests = [], []
    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
    assert {url.partition(":")[0] for url in requests} <= {"file", "data", "blob"}


def add_values(page, *values):
    for value in values:
        page.fill("#value", value)
        page.keyboard.press("Enter")
    page.focus("#stage")


def download(page, folder):
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "labels.csv"
    download.value.save_as(folder / "labels.csv")
    with open(folder / "labels.csv", encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_twenty_images_are_labelled_by_keyboard(open_page, tmp_path):
    page = open_page()
    add_values(page, "man", " old  woman, 1 ")
    for i in range(COUNT):
        page.keyboard.press("12"[i % 3 == 0])
    assert page.inner_text("#status") == "20 of 20 labelled. Download the file now."
    values = ["old woman, 1" if i % 3 == 0 else "man" for i in range(COUNT)]
    rows = [[f'a/{i}, "{i}".png', value] for i, value in enumerate(values)]
    assert download(page, tmp_path) == [["file", "attribute"], *rows]


def test_keys_move_skip_undo_and_relabel(open_page, tmp_path):
    page = open_page(write(tmp_path / "index.html", to_label=[11, 5, 7, 2]))
    add_values(page, "a", "b")
    caption = lambda: page.inner_text("#caption").split(":")[0]
    page.keyboard.press("1")  # 11 is a
    page.keyboard.press("s")  # 5 has no label
    page.keyboard.press("2")  # 7 is b
    page.keyboard.press("2")  # 2 is b
    assert caption() == "Image 2 of 4"  # the only one without a label
    page.keyboard.press("u")  # 2 has no label
    assert caption() == "Image 4 of 4"
    page.keyboard.press("ArrowRight")
    assert caption() == "Image 1 of 4"
    page.keyboard.press("2")  # 11 is b now
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("9")  # no such value
    page.click("#strip li:nth-child(3) button")
    page.keyboard.press("1")  # 7 is a now
    assert "Images without a label are left out" in page.inner_text("#status")
    assert download(page, tmp_path) == [["index", "attribute"], ["11", "b"], ["7", "a"]]


def test_labels_are_kept_for_their_page_only(open_page, path, tmp_path):
    page = open_page()
    assert page.is_disabled("#download")
    add_values(page, "a", "A", "b")  # A is a
    page.keyboard.press("2")
    assert page.inner_text("#status").startswith("1 of 20 labelled. At least two values")
    second = open_page(context=page.context)
    assert second.inner_text("#strip li:first-child b") == "b"
    second.focus("#stage")
    second.keyboard.press("1")
    page.wait_for_function("document.querySelectorAll('.labelled').length === 2")
    other = open_page(write(tmp_path / "other.html", to_label=[1, 2]), context=page.context)
    assert other.inner_text("#status").startswith("0 of 2 labelled")
    page.click("[data-do=clear]")
    assert page.inner_text("#status").startswith("0 of 20")


def test_labelling_works_without_storage(browser, open_page, path, tmp_path):
    context = browser.new_context()
    refuse = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('no') }})"
    context.add_init_script(refuse)
    page = open_page(context=context)
    assert "cannot keep the labels" in page.inner_text("#storage")
    add_values(page, "a", "b")
    page.click("#values >> text=2 b")
    assert download(page, tmp_path)[1][1] == "b"
    context.close()


def test_without_scripts_everything_but_labelling_is_shown(open_page):
    page = open_page(java_script_enabled=False)
    assert page.is_hidden("#tagger") and page.is_visible("noscript")
    assert page.inner_text("noscript pre").splitlines()[0] == "file,attribute"
    assert page.locator("#strip li").count() == COUNT
    assert 'a/3, "3".png' in page.inner_text("#strip")
    for tile in page.locator(".candidate .tile").all()[:3]:
        assert tile.bounding_box()["width"] == 64


def test_the_page_fits_a_narrow_screen(open_page):
    page = open_page(viewport={"width": 360, "height": 640})
    for details in page.locator("details").all():
        details.evaluate("node => node.open = true")
    add_values(page, "x" * 60, "y")
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_commands_are_copied(open_page):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.click(".command button >> nth=0")
    page.wait_for_function("document.querySelector('.command button').textContent === 'Copied'")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == "jaxdd run some/folder --bias-labels labels.csv"
