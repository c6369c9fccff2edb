"""Segments, schedules and distributions."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sparsity.small_networks import plain, scatter
from yoloprune.criteria import score
from yoloprune.errors import UserError
from yoloprune.graph import trace
from yoloprune.sparsity import Distribution, Schedule, append_row, distribution, read_rows, schedule
from yoloprune.sparsity.distribution import EDGES, QUANTILES
from yoloprune.sparsity.segments import Segments


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-1, 6), min_size=1, max_size=40))
def test_segments(of: list[int]) -> None:
    ids = np.array(of)
    kept = np.unique(ids[ids >= 0])
    if not len(kept):
        return
    ids[ids >= 0] = np.searchsorted(kept, ids[ids >= 0])  # without gaps
    values = torch.arange(1.0, len(of) + 1)
    segments = Segments(ids, torch.device("cpu"))
    least, greatest = segments.extremes(values)
    own = [values.numpy()[ids == i] for i in range(len(kept))]
    assert segments.count == len(kept)
    assert segments.sum(values).tolist() == [v.sum() for v in own]
    assert least.tolist() == [v.min() for v in own]
    assert greatest.tolist() == [v.max() for v in own]


def test_schedule() -> None:
    assert doctest.testmod(schedule).failed == 0
    assert Schedule(warmup=0.0)(0.0) == 1
    assert Schedule(warmup=0.5, growth=0.25)(1.0) == 0.25
    values = [Schedule(0.3, 8.0)(p) for p in np.linspace(0, 1, 50)]
    assert values == sorted(values)


@pytest.mark.parametrize("wrong", [{"warmup": 1.0}, {"warmup": -0.1}, {"growth": 0.0}, {"growth": float("inf")}])
def test_mistakes_in_schedules(wrong: dict) -> None:
    with pytest.raises(UserError, match=r"no (share|factor)"):
        Schedule(**wrong)


def test_distribution_counts_prunable_channels() -> None:
    model = scatter(plain())
    graph = trace(model, torch.rand(1, 3, 8, 8))
    scores = score(graph, model, "l2")
    scores[np.flatnonzero(~graph.frozen)[0]] = 0.0
    found = distribution(graph, scores, epoch=3, strength=0.5)
    assert sum(found.counts) == 16
    assert found.counts[0] == 1, "a score of 0 is in the lowest bin"
    assert found.quantiles[QUANTILES.index(0.5)] == np.median(scores[~graph.frozen])
    assert len(found.counts) == len(EDGES) - 1


def test_rows_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sparsity.csv"
    rows = [
        Distribution(epoch, 0.25 * epoch, tuple([0.5 * epoch] * len(QUANTILES)), tuple(range(len(EDGES) - 1)))
        for epoch in range(1, 5)
    ]
    for row in rows:
        append_row(path, row)
    assert read_rows(path) == rows
    append_row(path, rows[1])  # a resumed training does epoch 2 again
    assert read_rows(path) == rows[:2]
    append_row(path, rows[0])  # a new training in the same folder
    assert read_rows(path) == rows[:1]
    assert [p.name for p in tmp_path.iterdir()] == ["sparsity.csv"]
