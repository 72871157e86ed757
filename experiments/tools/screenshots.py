"""Take screenshots of the report and of the bias page of the small digits, for the documentation.

    python -m experiments.tools.screenshots

Needs playwright and Chromium, and exits with a message without them. Without --report and --bias it
computes `jaxdd demo` and `jaxdd bias` first, which takes a few minutes.
"""

import contextlib
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator

import tyro
from PIL import Image

from experiments.tools import figures
from jaxdd.commands import cli
from jaxdd.data import files

WIDTH, HEIGHTS = 1100, {"report": 880, "bias": 1640}
_COLORS = 128


@contextlib.contextmanager
def open_browser() -> Iterator:
    """Yield a headless browser; exit if there is none."""
    try:
        from playwright import sync_api
    except ImportError:
        sys.exit("screenshots need playwright: pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_api.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        except sync_api.Error as error:
            sys.exit(f"screenshots need Chromium: {error}")
        yield browser
        browser.close()


def compute(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Write the report and the bias page of the small digits into a folder."""
    pages = {"report": folder / "demo" / "report.html", "bias": folder / "bias.html"}
    for command in (
        ["demo", "--out", str(folder / "demo")],
        ["report", str(folder / "demo")],
        ["bias", "cdigits", "--out", str(pages["bias"])],
    ):
        with contextlib.suppress(SystemExit):  # the exit code of `jaxdd bias` is its verdict
            cli.main(command)
    return pages


def take(pages: dict[str, pathlib.Path], out: pathlib.Path) -> None:
    """Save the top of each page, in the light theme, as screenshot_NAME.png."""
    with open_browser() as browser, tempfile.TemporaryDirectory() as folder:
        for name, page in pages.items():
            size = {"width": WIDTH, "height": HEIGHTS[name]}
            tab = browser.new_page(viewport=size, color_scheme="light", device_scale_factor=1.25)
            tab.goto(page.resolve().as_uri())
            raw = pathlib.Path(folder) / f"{name}.png"
            tab.screenshot(path=raw)
            with Image.open(raw) as image:
                few = image.convert("RGB").quantize(_COLORS, dither=Image.Dither.NONE)
            path = out / f"screenshot_{name}.png"
            with files.atomic_path(path) as temporary:
                few.save(temporary, "PNG", optimize=True)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main(
    *,
    report: pathlib.Path | None = None,
    bias: pathlib.Path | None = None,
    out: pathlib.Path = figures.ROOT / figures.IMAGES,
) -> None:
    """Take the screenshots.

    Args:
        report: report of a finished `jaxdd demo`; computed if one of the pages is missing.
        bias: page of a finished `jaxdd bias cdigits`.
        out: folder of the PNG files.
    """
    with tempfile.TemporaryDirectory() as folder:
        if report and bias:
            pages = {"report": report, "bias": bias}
        else:
            with open_browser():
                pass  # exits without a browser before minutes of computation
            pages = compute(pathlib.Path(folder))
        take(pages, out)


if __name__ == "__main__":
    tyro.cli(main)
