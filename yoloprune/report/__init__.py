"""What a run found, as data, tables and pictures."""

from __future__ import annotations

from .html import write_html
from .record import Measure, Record, SmallerImage, StepRow, TrainingRow
from .sparsity import draw_sparsity
from .table import closing_table
from .widths import draw_widths, layer_label, layer_widths, paired_widths

__all__ = [
    "Measure",
    "Record",
    "SmallerImage",
    "StepRow",
    "TrainingRow",
    "closing_table",
    "draw_sparsity",
    "draw_widths",
    "layer_label",
    "layer_widths",
    "paired_widths",
    "write_html",
]
