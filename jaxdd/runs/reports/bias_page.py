"""The HTML page about the result of looking for a bias in a data set."""

import os
from typing import Any

from jaxdd.data import datasets
from jaxdd.runs import bias
from jaxdd.runs.reports import pages, tables


def write(path: str | os.PathLike, finding: bias.Finding, data: datasets.Benchmark) -> None:
    """Write the page about a finding in `data` as one HTML file, atomically."""
    record = finding.choice.record()
    values: dict[str, Any] = {
        "dataset": data.name, "headline": bias.headline(record), "finding": finding,
        "choice": record, "tables": tables.choice(record), "total": len(data.train.labels),
    }  # fmt: skip
    pages.write(path, pages.TEMPLATES.get_template("bias.html.j2").render(values))
