"""Build the package, which setup.cfg describes.

PyPI shows the README outside the repository, so its relative links are made absolute.
"""

import configparser
import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent


def readme(text: str, repository: str) -> str:
    """Return the README with links to the files on the main branch of the repository."""
    relative = r"(?!https?:|#)"
    text = re.sub(rf"(!\[[^]]*\]\(){relative}", rf"\1{repository}/raw/main/", text)
    return re.sub(rf"(\]\(){relative}", rf"\1{repository}/blob/main/", text)


if __name__ == "__main__":
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    setuptools.setup(
        long_description=readme(text, config["metadata"]["url"]),
        long_description_content_type="text/markdown",
    )
