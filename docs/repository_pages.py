"""MkDocs hook that builds the site from files of the repository.

It adds README.md, experiments/README.md, CHANGELOG.md and the tutorials, which are notebooks with
stored outputs. Links point to files of the repository, as on GitHub. The hook rewrites them to
addresses of the site and copies linked files that are not pages, such as results.
"""

import base64
import json
import pathlib
import posixpath
import re
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]

PAGES = {
    "README.md": "index.md",
    "experiments/README.md": "experiments/index.md",
    "CHANGELOG.md": "changelog.md",
} | {
    f"docs/tutorials/{path.name}": f"tutorials/{path.stem}.md"
    for path in sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
}
"""Pages that are not Markdown files in docs/, and their paths in the site."""

HIDDEN_CELLS = ("badge", "install")
"""Cells of a notebook that only Colab needs."""

LINK = re.compile(r"\[([^\[\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")
IMAGE = re.compile(r"(?<!\[)!\[[^\[\]]*\]\(([^)\s]+)\)")


def site_path(path: str) -> str:
    """Return the path in the site of a file of the repository.

    >>> site_path("docs/glossary.md"), site_path("README.md"), site_path("LICENSE")
    ('glossary.md', 'index.md', 'LICENSE')
    """
    return PAGES.get(path, path.removeprefix("docs/"))


def repository_path(page: str) -> str:
    """Return the path in the repository of a page of the site.

    >>> repository_path("glossary.md"), repository_path("index.md")
    ('docs/glossary.md', 'README.md')
    """
    return {site: path for path, site in PAGES.items()}.get(page, f"docs/{page}")


def resolve(path: str, link: str) -> str:
    """Return the repository path that a relative link in the file `path` points to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def text_of(path: str) -> str:
    """Return a page of the repository as Markdown."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".ipynb"):
        return notebook_text(json.loads(text), posixpath.basename(path).removesuffix(".ipynb"))
    return text


def notebook_text(notebook: dict[str, Any], name: str) -> str:
    """Return the cells of a notebook and their stored outputs as Markdown."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["id"] in HIDDEN_CELLS:
            continue
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {"text/plain": output.get("text")})
            if "image/png" in data:
                parts.append(f"![Output of the code above]({name}-{cell['id']}.png)")
            else:
                parts.append(f"```text\n{''.join(data['text/plain']).rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def notebook_images(notebook: dict[str, Any], name: str) -> dict[str, bytes]:
    """Return the images that `notebook_text` refers to, by file name."""
    return {
        f"{name}-{cell['id']}.png": base64.b64decode(output["data"]["image/png"])
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    }


def linked_files(path: str) -> list[str]:
    """Return the repository paths that a page links to."""
    return [resolve(path, match[2]) for match in LINK.finditer(text_of(path))]


def on_files(files, config):
    """Add the pages outside docs/, the tutorials, and all linked files."""
    from mkdocs.structure.files import File

    for path, site in PAGES.items():
        files.append(File.generated(config, site, content=text_of(path)))
        if path.endswith(".ipynb"):
            notebook = json.loads((ROOT / path).read_text(encoding="utf-8"))
            for name, png in notebook_images(notebook, pathlib.Path(path).stem).items():
                files.append(File.generated(config, f"tutorials/{name}", content=png))
    pages = [repository_path(file.src_uri) for file in files.documentation_pages()]
    for path in {path for page in pages for path in linked_files(page)}:
        site = site_path(path)
        if (ROOT / path).is_file() and files.get_file_from_path(site) is None:
            files.append(File.generated(config, site, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Rewrite links to paths in the site, and let images open in full size.

    Links to folders become plain text.
    """
    path = repository_path(page.file.src_uri)
    if path == "README.md":
        page.meta["hide"] = ["navigation"]  # tabs lead to all other pages
    folder = posixpath.dirname(page.file.src_uri) or "."

    def rewrite(match):
        target = resolve(path, match[2])
        if (ROOT / target).is_dir():
            return match[1]
        return f"[{match[1]}]({posixpath.relpath(site_path(target), folder)}{match[3] or ''})"

    # On GitHub, Markdown inside of <details> needs no attribute.
    markdown = re.sub(r"^<details>", "<details markdown>", markdown, flags=re.M)
    return IMAGE.sub(r"[\g<0>](\1)", LINK.sub(rewrite, markdown))
