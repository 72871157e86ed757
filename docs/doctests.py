"""An extension of griffe: doctests in docstrings become code."""

import griffe


def fenced(text: str) -> str:
    """Returns a docstring with a fence around every paragraph that is a doctest."""
    found = []
    for paragraph in text.split("\n\n"):
        lines = paragraph.split("\n")
        indent = " " * (len(lines[0]) - len(lines[0].lstrip()))
        if lines[0].lstrip().startswith(">>>"):
            lines = [f"{indent}```pycon", *lines, f"{indent}```"]
        found.append("\n".join(lines))
    return "\n\n".join(found)


class Doctests(griffe.Extension):
    """Puts fences into the docstrings of everything that is loaded."""

    def on_object(self, *, obj, **_):
        """Called for every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
