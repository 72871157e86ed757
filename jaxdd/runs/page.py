"""Screen: self-contained HTML pages. Elements, tables and pictures, escaped by default.

A page needs nothing but itself: pictures are inlined, there is no script, and its content security
policy forbids the browser to load anything. Strings become text; what is HTML already is marked as
`Html`, so that a name like `<script>` can only ever be shown.
"""

import base64
import html
from collections.abc import Iterable, Sequence
from typing import Any


class Html(str):
    """A string that is HTML, which `element` takes as it is."""


_VOID = {"img", "meta"}


def element(name: str, /, *children: Any, **attributes: Any) -> Html:
    """Returns an HTML element.

    Args:
        name: of the element.
        *children: what it holds: `Html` as it is, everything else as escaped text; None is left out.
        **attributes: with `_` for `-` and a `_` behind the words of Python, as in `class_="wide"`;
            None is left out.

    >>> element("p", "a < b, ", element("b", 3), class_="note", title=None)
    '<p class="note">a &lt; b, <b>3</b></p>'
    """
    given = {key.rstrip("_").replace("_", "-"): v for key, v in attributes.items() if v is not None}
    words = "".join(f' {key}="{html.escape(str(value))}"' for key, value in given.items())
    return Html(
        f"<{name}{words}>" if name in _VOID else f"<{name}{words}>{join(*children)}</{name}>"
    )


def join(*children: Any) -> Html:
    """Returns what an element would hold.

    >>> join("a < b ", element("b", 3), None)
    'a &lt; b <b>3</b>'
    """
    return Html(
        "".join(
            child if isinstance(child, Html) else html.escape(str(child), quote=False)
            for child in children
            if child is not None
        )
    )


def section(title: str, *children: Any) -> Html:
    """Returns a section under a heading.

    >>> section("Seconds", "none")
    '<section><h2>Seconds</h2>none</section>'
    """
    return element("section", element("h2", title), *children)


def table(caption: str, header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> Html:
    """Returns a table that scrolls sideways where the screen is narrower than its cells.

    Args:
        caption: what the numbers are.
        header: one cell per column.
        rows: of cells; the first is the header of its row.
    """
    head = element("tr", *(element("th", cell, scope="col") for cell in header))
    body = (
        element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in rest))
        for first, *rest in rows
    )
    cells = element("table", element("thead", head), element("tbody", *body), aria_label=caption)
    return element("figure", element("figcaption", caption), scrolling(cells, class_="scroll"))


def scrolling(content: Any, **attributes: Any) -> Html:
    """Returns a box that scrolls sideways, with the keyboard too, where its content is wider."""
    return element(
        "div", content, role="group", aria_label="scrolls sideways", tabindex=0, **attributes
    )


def facts(pairs: Iterable[tuple[str, Any]], **attributes: Any) -> Html:
    """Returns a list of names and their values.

    >>> facts([("seed", 0)])
    '<dl><div><dt>seed</dt><dd>0</dd></div></dl>'
    """
    return element(
        "dl",
        *(element("div", element("dt", name), element("dd", value)) for name, value in pairs),
        **attributes,
    )


def picture(png: bytes, *, alt: str, size: tuple[int, int], **attributes: Any) -> Html:
    """Returns an image that carries its own bytes.

    Args:
        png: content of a PNG file.
        alt: what it shows, for those who do not see it.
        size: width and height in pixels, which keep its place while the page is laid out.
        **attributes: of the element.
    """
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    width, height = size
    return element("img", src=source, alt=alt, width=width, height=height, **attributes)


def figure(content: Any, caption: Any, **attributes: Any) -> Html:
    """Returns a figure with its caption, if any, below."""
    caption = caption and element("figcaption", caption)
    return element("figure", content, caption, **attributes)


def bar(name: str, value: float | None, text: str, *, interval: Any = None) -> Html:
    """Returns a line of a bar chart: name, bar, interval and the number.

    Args:
        name: left of the bar.
        value: its length in [0, 1], or None for no bar.
        text: right of the bar.
        interval: ends of a line across the bar's end, both in [0, 1], or None.
    """
    parts = []
    if value is not None:
        parts.append(element("i", class_="fill", style=f"width:{100 * value:.2f}%"))
    if interval is not None:
        low, high = interval
        place = f"left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"
        parts.append(element("i", class_="interval", style=place))
    track = element("span", *parts, class_="track")
    return element(
        "div",
        element("span", name, class_="name"),
        track,
        element("span", text, class_="value"),
        class_="bar",
    )


def document(title: str, *children: Any) -> str:
    """Returns the whole page.

    Args:
        title: of the browser's tab.
        *children: of its body.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("title", title),
        element("style", Html(_STYLE)),
    )
    body = element("body", element("main", *children))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


_STYLE = """
:root {
  color-scheme: light dark;
  --text: #1d2125; --soft: #5c6670; --line: #dfe3e8; --page: #fbfbfa; --card: #ffffff;
  --track: #eceff2; --accent: #0072b2;
  --accuracy: #5b6470; --aligned: #0072b2; --conflicting: #d55e00; --worst: #cc79a7;
}
@media (prefers-color-scheme: dark) {
  :root {
    --text: #e7e9ec; --soft: #a3acb6; --line: #343a41; --page: #15181b; --card: #1d2125;
    --track: #2b3138; --accent: #5cb3e6;
    --accuracy: #aab3bd; --aligned: #4aa8e0; --conflicting: #f0854a; --worst: #dd94bd;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
}
main {
  max-width: 66rem; margin: 0 auto; padding: clamp(1.25rem, 4vw, 3.5rem) clamp(1rem, 4vw, 2rem);
}
h1, h2, h3 { line-height: 1.2; text-wrap: balance; overflow-wrap: anywhere; }
h1 { font-size: clamp(1.6rem, 5vw, 2.3rem); letter-spacing: -.02em; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; letter-spacing: -.01em; margin: 0 0 .75rem; }
h3 { font-size: 1rem; margin: 0 0 .6rem; }
p { max-width: 44rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
section { margin-top: 2.75rem; }
.kind { color: var(--soft); margin: 0 0 .4rem; font-size: .9rem; }
.lead { font-size: 1.15rem; }
figure { margin: 0; }
.note, figcaption { color: var(--soft); font-size: .88rem; }
.scroll {
  overflow-x: auto; border: 1px solid var(--line); border-radius: .6rem; background: var(--card);
}
.scroll:focus-visible, .pan:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .9rem; text-align: right; vertical-align: top; white-space: nowrap; }
thead th {
  font-size: .82rem; font-weight: 600; line-height: 1.3; color: var(--soft);
  vertical-align: bottom; white-space: normal;
}
tbody tr { border-top: 1px solid var(--line); }
th:first-child {
  text-align: left; position: sticky; left: 0; background: var(--card); z-index: 1;
}
td small { display: block; color: var(--soft); font-size: .78rem; }
dl {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(9.5rem, 45%), 1fr));
  gap: .75rem 1.5rem; margin: 0;
}
dt { color: var(--soft); font-size: .82rem; }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.legend { grid-template-columns: 1fr; gap: .3rem; margin-top: 1rem; }
.legend div { display: flex; gap: .75rem; align-items: baseline; }
.legend dt { flex: 0 0 6.5rem; color: var(--text); font-weight: 600; font-size: .88rem; }
.legend dd { color: var(--soft); font-size: .88rem; }
.charts, .grids { display: grid; gap: 1.25rem; }
.charts { grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.grids { grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
.card {
  padding: 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; min-width: 0;
}
.bar {
  display: grid; grid-template-columns: 6.5rem 1fr 3.2rem; gap: .6rem; align-items: center;
  font-size: .88rem; line-height: 1.9; font-variant-numeric: tabular-nums;
}
.bar .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bar .value { text-align: right; }
.track { position: relative; height: .8rem; background: var(--track); border-radius: .2rem; }
.fill { position: absolute; inset: 0 auto 0 0; border-radius: .2rem; background: var(--color); }
.interval {
  position: absolute; top: 50%; border-top: 2px solid var(--text); transform: translateY(-1px);
}
.interval::before, .interval::after {
  content: ""; position: absolute; top: -5px; height: 8px; border-left: 2px solid var(--text);
}
.interval::before { left: 0; }
.interval::after { right: 0; }
.accuracy { --color: var(--accuracy); }
.aligned { --color: var(--aligned); }
.conflicting { --color: var(--conflicting); }
.worst_group { --color: var(--worst); }
.tiles { display: grid; grid-template-columns: auto 1fr; gap: .5rem; justify-content: start; }
.names {
  display: grid; grid-auto-rows: 1fr; color: var(--soft); font-size: .78rem; text-align: right;
}
.names span {
  align-self: center; max-width: 6rem; line-height: 1;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
}
img { display: block; max-width: 100%; height: auto; }
.tiles img { width: 100%; image-rendering: pixelated; }
.paper { background: #fff; border-radius: .4rem; padding: .5rem; }
figcaption { max-width: 44rem; margin-bottom: .7rem; }
.card figcaption { margin: .7rem 0 0; }
.grids h3 { display: flex; justify-content: space-between; gap: 1rem; }
.drawn { max-width: 46rem; }
.drawn.wide { max-width: none; }
.pan { overflow-x: auto; }
.wide img { min-width: 40rem; }
figure + .drawn { margin-top: 1.25rem; }
pre {
  margin: 0 0 1rem; padding: .9rem 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; white-space: pre-wrap; overflow-wrap: anywhere;
}
code { font: .92em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); }
@media print { .card, .scroll, pre { break-inside: avoid; } body { background: none; } }
"""
