"""The HTML page about the result of looking for a bias in a data set."""

import os
from typing import Any

import numpy as np

from jaxdd.data import datasets
from jaxdd.runs import bias
from jaxdd.runs.reports import figure_data, pages, tables


def write(path: str | os.PathLike, finding: bias.Finding, data: datasets.Benchmark) -> None:
    """Write the page about a finding in `data` as one HTML file, atomically."""
    record, score = finding.choice.record(), finding.conflict_score
    grids = {}
    if score is not None:
        for name, order in (("aligned", score), ("conflicting", -score)):
            samples = finding.samples[np.argsort(order, kind="stable")]
            images = figure_data.first_images(data, samples)
            grids[name] = pages.grid(images, data.class_names, num_classes=data.num_classes)
    values: dict[str, Any] = {
        "dataset": data.name, "headline": bias.headline(finding), "finding": finding,
        "choice": record, "tables": tables.choice(record), "total": len(data.train.labels),
        "grids": grids,
    }  # fmt: skip
    pages.write(path, pages.TEMPLATES.get_template("bias.html.j2").render(values))
