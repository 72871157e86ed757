"""Generated parts of pages."""

import re

from experiments.tools import reference
from jaxdd.runs import options


def test_text_between_the_markers_is_replaced():
    text = f"before\n\n{reference.BEGIN}\nold\n{reference.END}\n\nafter\n"
    page = reference.with_generated(text, ["new"])
    assert page == f"before\n\n{reference.BEGIN}\n\nnew\n\n{reference.END}\n\nafter\n"
    assert reference.with_generated(page, ["new"]) == page


def test_every_option_of_every_command_is_listed():
    lines = reference.commands()
    starts = {line[4:]: i for i, line in enumerate(lines) if line.startswith("### jaxdd ")}
    shared = lines[lines.index("## Options of run and compare") :]
    for command in reference.reference.COMMANDS:
        start = starts[f"jaxdd {command}"]
        section = lines[
            start : next(i for i in range(start + 1, len(lines)) if lines[i][:2] == "##")
        ]
        for method in options.OPTIONS:
            for option in reference.reference.options(command, method):
                listed = "\n".join(section + (shared if command in ("run", "compare") else []))
                name = option.flags[0] if option.flags else option.metavar
                assert re.search(rf"`{re.escape(name)}(?!\w)", listed)


def test_options_by_method_state_what_differs():
    rows = reference.of_methods()
    assert ["`--expert-epochs INT`", "mtt", "2"] in [row[:3] for row in rows]
    assert {row[1] for row in rows if row[0] == "`--lr-teacher FLOAT`"} == {"mtt", "cfm"}
    assert not any(row[0].startswith("`--ipc") for row in rows)


def test_gallery_lists_every_benchmark_once():
    names = re.findall(r"^\| `(\S+)` \|", "\n".join(reference.gallery()), re.M)
    assert sorted(names) == sorted(reference.benchmarks.NAMES)
    assert "| `cmnist` | digits in shades of ten colours (LfF) | 0.05 | 4 | " in "\n".join(
        reference.gallery()
    )
