"""What a run found, as data, tables, pictures and a page."""

from __future__ import annotations

from .record import Measure, Record, SmallerImage, StepRow, TrainingRow, Verdict
from .sparsity import draw_sparsity
from .table import closing_table
from .widths import block_of, layer_label, layer_widths, paired_widths

__all__ = [
    "Measure",
    "Record",
    "SmallerImage",
    "StepRow",
    "TrainingRow",
    "Verdict",
    "block_of",
    "closing_table",
    "draw_sparsity",
    "layer_label",
    "layer_widths",
    "paired_widths",
]
