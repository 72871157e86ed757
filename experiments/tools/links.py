"""Check the external links of all pages: `python -m experiments.tools.links`. Needs a network.

Prints every link that does not answer with success, and the pages that have it. The exit code is 1
if there are any. Tests check all other links.
"""

import collections
import concurrent.futures
import pathlib
import re
import sys
import urllib.error
import urllib.request

from docs import repository_pages

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINK = re.compile(r"https?://[^\s\"'<>`\\)\]]+")
AGENT = {"User-Agent": "Mozilla/5.0 (jaxdd link check)"}


def external_links() -> dict[str, list[str]]:
    """Return the pages of the repository that have an external link, by link.

    Links to an unknown owner on GitHub are left out.
    """
    paths = [*repository_pages.PAGES, *(ROOT / "docs").rglob("*.md")]
    pages = collections.defaultdict(list)
    for path in map(pathlib.Path, paths):
        name = str(path.relative_to(ROOT) if path.is_absolute() else path)
        for link in sorted(set(LINK.findall(repository_pages.text_of(name)))):
            if "OWNER" not in link:
                pages[link.rstrip(".,;:")].append(name)
    return dict(pages)


def problem(link: str) -> str | None:
    """Return why a link does not work, or None."""
    for method in ("HEAD", "GET"):  # some servers only answer to GET
        request = urllib.request.Request(link, headers=AGENT, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30):
                return None
        except (urllib.error.URLError, OSError, ValueError) as error:
            reason = str(error)
    return reason


def main() -> None:
    """Check all links and print those that do not work."""
    pages = external_links()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        reasons = dict(zip(pages, pool.map(problem, pages), strict=True))
    broken = {link: reason for link, reason in reasons.items() if reason}
    for link, reason in broken.items():
        print(f"{link}: {reason} ({', '.join(pages[link])})")
    print(f"{len(pages) - len(broken)} of {len(pages)} external links work")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
