"""A hook of mkdocs: README.md, experiments/README.md and CHANGELOG.md are pages of the site.

Links in the repository lead to files as they lie there. Here they lead to where the pages have
them; what no page shows, such as a result, is copied along.
"""

import pathlib
import posixpath
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]

PAGES = {
    "README.md": "index.md",
    "experiments/README.md": "experiments/index.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files of the repository that are pages, and what the site calls them."""

LINK = re.compile(r"\[([^\[\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")


def place(path: str) -> str:
    """Returns where the site has a file of the repository.

    >>> place("docs/how.md"), place("README.md"), place("LICENSE")
    ('how.md', 'index.md', 'LICENSE')
    """
    return PAGES.get(path, path.removeprefix("docs/"))


def source(page: str) -> str:
    """Returns which file of the repository a page is.

    >>> source("how.md"), source("index.md")
    ('docs/how.md', 'README.md')
    """
    return {site: path for path, site in PAGES.items()}.get(page, f"docs/{page}")


def links(path: str) -> list[str]:
    """Returns the files of the repository that a page of it links to, the page being `path`."""
    found = (match[2] for match in LINK.finditer((ROOT / path).read_text(encoding="utf-8")))
    return [posixpath.normpath(posixpath.join(posixpath.dirname(path), link)) for link in found]


def on_files(files, config):
    """Adds the pages, and the files that any page links to."""
    from mkdocs.structure.files import File

    for path, site in PAGES.items():
        files.append(File.generated(config, site, abs_src_path=str(ROOT / path)))
    pages = [source(file.src_uri) for file in files.documentation_pages()]
    for path in {place(path): path for page in pages for path in links(page)}.values():
        if (ROOT / path).is_file() and files.get_file_from_path(place(path)) is None:
            files.append(File.generated(config, place(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns the links of a page to where the site has their files; folders it does not have."""
    path = source(page.file.src_uri)
    here = posixpath.dirname(page.file.src_uri)

    def turned(match):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[2]))
        if (ROOT / target).is_dir():
            return match[1]
        return f"[{match[1]}]({posixpath.relpath(place(target), here or '.')}{match[3] or ''})"

    return LINK.sub(turned, markdown)
