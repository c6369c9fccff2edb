"""The course of a training, as Ultralytics' trainer writes it into results.csv."""

from __future__ import annotations

import csv
from pathlib import Path

from yoloprune.detectors.details import History

__all__ = ["read_history"]

_QUALITY = {
    "segment": "metrics/mAP50-95(M)",
    "pose": "metrics/mAP50-95(P)",
    "classify": "metrics/accuracy_top1",
}
_BOXES = "metrics/mAP50-95(B)"


def read_history(path: Path, task: str) -> History | None:
    """Read the file; None where it is missing, empty or none of Ultralytics'."""
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines(), skipinitialspace=True))
        columns = {name.strip(): [float(row[name]) for row in rows] for name in rows[0]}
        epochs = [round(number) for number in columns["epoch"]]
    except (OSError, ValueError, TypeError, KeyError, IndexError, csv.Error):
        return None
    losses = {name.removeprefix("train/"): values for name, values in columns.items() if name.startswith("train/")}
    rates = next((values for name, values in columns.items() if name.startswith("lr/")), [])
    return History(epochs, losses, columns.get(_QUALITY.get(task, _BOXES), []), rates)
