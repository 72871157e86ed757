"""Griffe extension that renders doctests in docstrings as code blocks."""

import griffe


def fence(text: str) -> str:
    """Put a code fence around every paragraph of a docstring that is a doctest."""
    paragraphs = []
    for paragraph in text.split("\n\n"):
        lines = paragraph.split("\n")
        indent = " " * (len(lines[0]) - len(lines[0].lstrip()))
        if lines[0].lstrip().startswith(">>>"):
            lines = [f"{indent}```pycon", *lines, f"{indent}```"]
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


class DoctestFences(griffe.Extension):
    """Fence the doctests of every object that griffe loads."""

    def on_object(self, *, obj, **_):
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = fence(obj.docstring.value)
