"""How the relative scores of all prunable channels are spread, and how that changes over a training."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import atomic

__all__ = ["EDGES", "QUANTILES", "Distribution", "append_row", "distribution", "read_rows"]

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
EDGES = tuple(float(f"{edge:.3g}") for edge in 10 ** np.linspace(-6, 1, 29))
"""Edges of the bins in which scores are counted, four to a decade; the outer bins take what lies beyond."""


@dataclass(frozen=True)
class Distribution:
    """The spread of relative scores at one time.

    Attributes:
        epoch: Finished epochs.
        strength: Strength of the regulariser in that epoch.
        quantiles: The scores below which `QUANTILES` of the channels lie.
        counts: Channels in each bin between `EDGES`, `len(EDGES) - 1` of them.
    """

    epoch: int
    strength: float
    quantiles: tuple[float, ...]
    counts: tuple[int, ...]


def distribution(graph, scores: np.ndarray, *, epoch: int = 0, strength: float = 0.0) -> Distribution:
    """Describe the scores of the channels that may be pruned.

    Args:
        graph: Dependency graph with `frozen` (n_components,).
        scores: Relative scores (n_components,), as `criteria.score(graph, model, "l2")` returns them.
        epoch: Finished epochs.
        strength: Strength of the regulariser.
    """
    own = scores[~graph.frozen]
    counts, _ = np.histogram(np.clip(own, EDGES[0], EDGES[-1]), bins=EDGES)
    quantiles = np.quantile(own, QUANTILES)
    return Distribution(epoch, strength, tuple(quantiles.tolist()), tuple(counts.tolist()))


_HEADER = ["epoch", "strength", *(f"q{q:g}" for q in QUANTILES), *(f"n>={edge:g}" for edge in EDGES[:-1])]


def append_row(path: Path, row: Distribution) -> None:
    """Add one epoch to a CSV file, which is replaced at once.

    Rows of that epoch and of later ones go: a resumed training does an epoch again, a new one starts anew.
    """
    rows = [*(earlier for earlier in (read_rows(path) if path.exists() else []) if earlier.epoch < row.epoch), row]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    for entry in rows:
        writer.writerow([entry.epoch, f"{entry.strength:.6g}", *(f"{q:.6g}" for q in entry.quantiles), *entry.counts])
    with atomic(path) as tmp:
        tmp.write_text(text.getvalue(), encoding="utf-8")


def read_rows(path: Path) -> list[Distribution]:
    """Read what `append_row` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))[1:]
    end = 2 + len(QUANTILES)
    return [
        Distribution(int(line[0]), float(line[1]), tuple(map(float, line[2:end])), tuple(map(int, line[end:])))
        for line in lines
    ]
