"""MkDocs hook that adds README.md, experiments/README.md and CHANGELOG.md to the site.

Links in these pages and in docs/ point to files of the repository. The hook rewrites them to
addresses of the site and copies linked files that are not pages, such as results.
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
"""Pages outside docs/, and their paths in the site."""

LINK = re.compile(r"\[([^\[\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")


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


def linked_files(path: str) -> list[str]:
    """Return the repository paths that a page links to."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return [resolve(path, match[2]) for match in LINK.finditer(text)]


def on_files(files, config):
    """Add the pages outside docs/ and all linked files."""
    from mkdocs.structure.files import File

    for path, site in PAGES.items():
        files.append(File.generated(config, site, abs_src_path=str(ROOT / path)))
    pages = [repository_path(file.src_uri) for file in files.documentation_pages()]
    for path in {path for page in pages for path in linked_files(page)}:
        site = site_path(path)
        if (ROOT / path).is_file() and files.get_file_from_path(site) is None:
            files.append(File.generated(config, site, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Rewrite links to paths in the site. Links to folders become plain text."""
    path = repository_path(page.file.src_uri)
    folder = posixpath.dirname(page.file.src_uri) or "."

    def rewrite(match):
        target = resolve(path, match[2])
        if (ROOT / target).is_dir():
            return match[1]
        return f"[{match[1]}]({posixpath.relpath(site_path(target), folder)}{match[3] or ''})"

    return LINK.sub(rewrite, markdown)
