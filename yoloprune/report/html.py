"""The report of a run as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape

from yoloprune.files import atomic

from .record import Record
from .table import step_metrics

__all__ = ["write_html"]


def write_html(record: Record, picture: Path, path: Path) -> None:
    """Write the report.

    Args:
        record: A finished run.
        picture: PNG file of the widths, which is embedded.
        path: HTML file to write.
    """
    environment = Environment(loader=PackageLoader("yoloprune.report"), autoescape=select_autoescape())
    text = environment.get_template("report.html").render(
        record=record,
        name=Path(record.weights).name,
        rows=record.comparison(),
        step_metrics=step_metrics(record),
        changed={layer: pair for layer, pair in record.widths.items() if pair[0] != pair[1]},
        picture=base64.b64encode(picture.read_bytes()).decode(),
    )
    with atomic(path) as tmp:
        tmp.write_text(text, encoding="utf-8")
