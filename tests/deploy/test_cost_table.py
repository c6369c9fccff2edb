"""Tables of what convolutions cost, and the time of a network that follows from them."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from yoloprune.deploy import cost_table
from yoloprune.deploy.backends import interleaved
from yoloprune.deploy.cost_table import Convolution, CostTable, Device, Grid, clock_of, convolutions, measure
from yoloprune.deploy.latency_model import LatencyModel
from yoloprune.errors import UserError
from yoloprune.graph import budget, trace

HERE = Device("a processor", "onnxruntime", "1", 1, None)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.SiLU())
        self.b = nn.Sequential(nn.Conv2d(64, 64, 3, 1, "same", groups=64), nn.ReLU())
        self.c = nn.Conv2d(64, 32, 1)
        self.out = nn.Conv2d(32, 4, 1)

    def forward(self, x):
        return self.out(self.c(self.b(self.a(x))))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def by_formula(found: list[Convolution], cost) -> CostTable:
    """A table of made-up figures: cost(inputs, outputs)."""
    table = CostTable(HERE)
    for conv in found:
        inputs = [0] if conv.shape.groups == 0 else [1, 64]
        outputs = list(range(1, 65))
        ms = [[cost(i or 1, o) for o in outputs] for i in inputs]
        table.grids[conv.shape] = Grid(inputs, outputs, ms)
    return table


def test_convolutions_are_told_apart_by_all_but_their_widths(net: Net) -> None:
    found = convolutions(net, torch.zeros(1, 3, 32, 48))
    assert [(c.name, c.inputs, c.outputs) for c in found] == [
        ("a.0", 3, 64), ("b.0", 64, 64), ("c", 64, 32), ("out", 32, 4)
    ]  # fmt: skip
    a, b, c, out = (conv.shape for conv in found)
    assert (a.stride, a.height, a.width, a.groups, a.activation) == ((2, 2), 32, 48, 1, "SiLU")
    assert (b.padding, b.height, b.width, b.groups, b.activation) == ((1, 1), 16, 24, 0, "ReLU")
    assert c == out


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "ncnn", "torch"])
def test_a_table_is_measured_kept_and_not_measured_again(net: Net, backend: str, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip(backend)
    found = convolutions(net, torch.zeros(1, 3, 32, 32))
    table, told = CostTable(Device.here(backend, 1)), []
    measure(table, found, tell=lambda done, total: told.append((done, total)), keep=tmp_path / "x" / "table.json")
    assert told[-1][0] == told[-1][1] == len(told)
    for grid in table.grids.values():
        ms = np.array(grid.ms)
        assert ms.shape == (len(grid.inputs), len(grid.outputs)) and (ms > 0).all()
        assert (np.diff(ms, axis=0) >= 0).all() and (np.diff(ms, axis=1) >= 0).all()
    read = CostTable.load(tmp_path / "x" / "table.json")
    assert read == table
    monkeypatch.setattr(cost_table, "_milliseconds", lambda *_: pytest.fail("it was measured before"))
    measure(read, found)


def test_on_one_thread_the_time_of_other_work_does_not_count() -> None:
    nap = partial(time.sleep, 0.02)
    (alone,) = interleaved([nap], seconds=0, clock=clock_of(HERE))
    (several,) = interleaved([nap], seconds=0, clock=clock_of(HERE._replace(threads=2)))
    assert min(alone) < 10 < 20 <= min(several)
    assert (
        clock_of(HERE._replace(backend="torch"), "cuda") is clock_of(HERE._replace(threads=None)) is time.perf_counter
    )


def test_between_measured_widths_costs_are_linear() -> None:
    grid = Grid([16, 32], [8, 16], [[1.0, 2.0], [3.0, 6.0]])
    assert grid.at(16, 8) == 1.0 and grid.at(32, 16) == 6.0
    assert grid.at(24, 12) == pytest.approx(3.0)
    assert grid.at(8, 8) == 1.0 and grid.at(99, 99) == 6.0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no latency table"),
        ("[]", "is no latency table"),
        ('{"device": {}, "networks": [], "convolutions": []}', "is no latency table"),
        ("[" * 100_000, "is no latency table"),
        (None, "There is no latency table"),
    ],
)
def test_files_that_are_no_tables(content: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=said):
        CostTable.load(path)


def test_negative_and_missing_figures_are_no_table(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    by_formula(convolutions(net, torch.zeros(1, 3, 32, 32)), lambda i, o: i * o).save(path)
    good = json.loads(path.read_text())
    for spoil in (
        lambda row, _: row["ms"][0].pop(),
        lambda row, _: row["ms"][0].__setitem__(0, -1.0),
        lambda row, _: row["ms"][0].__setitem__(0, math.inf),
        lambda row, _: row["ms"][0].__setitem__(0, 10**400),
        lambda row, _: row["ms"].clear(),
        lambda row, _: row["outputs"].__setitem__(slice(None), [8] * len(row["outputs"])),
        lambda row, _: row["outputs"].__setitem__(slice(None), [str(width) for width in row["outputs"]]),
        lambda row, _: row.update(outputs=[], ms=[[] for _ in row["inputs"]]),
        lambda row, _: row.update(kernel="33"),
        lambda _, content: content["networks"].append([1000, 64, math.nan]),
        lambda _, content: content["networks"].append([1000, 64, -1.0]),
        lambda _, content: content["networks"].append([math.inf, 64, 1.0]),
        lambda _, content: content["device"].update(threads="many"),
    ):
        content = json.loads(json.dumps(good))
        spoil(content["convolutions"][0], content)
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match="is no latency table"):
            CostTable.load(path)


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "table.json")
    with pytest.raises(UserError, match="is not a regular file"):
        CostTable.load(tmp_path / "table.json")


def test_a_table_of_another_network_says_what_it_lacks(net: Net) -> None:
    found = convolutions(net, torch.zeros(1, 3, 32, 32))
    table = by_formula(found[1:], lambda i, o: i * o)
    with pytest.raises(UserError, match="has no convolution of 3x3 on 32x32 px; measure this network"):
        LatencyModel(trace(net, torch.zeros(1, 3, 32, 32)), found, table)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), ratio=st.floats(0.1, 0.8))
def test_the_time_of_a_plan_is_that_of_the_pruned_network(seed: int, ratio: float) -> None:
    net = Net().eval()
    found = convolutions(net, torch.zeros(1, 3, 32, 32))
    table = by_formula(found, lambda i, o: float(i * o))
    graph = trace(net, torch.zeros(1, 3, 32, 32))
    model = LatencyModel(graph, found, table)
    model.rest = 5.0
    plan = graph.random_plan(ratio, seed)
    smaller = convolutions(plan.apply(net).eval(), torch.zeros(1, 3, 32, 32))
    expected = 5.0 + sum((1 if c.shape.groups == 0 else c.inputs) * c.outputs for c in smaller)
    assert model.of_plan(plan) == pytest.approx(expected)


def test_the_rest_makes_the_sum_what_was_measured_and_savings_are_slopes(net: Net) -> None:
    found = convolutions(net, torch.zeros(1, 3, 32, 32))
    graph = trace(net, torch.zeros(1, 3, 32, 32))
    model = LatencyModel(graph, found, by_formula(found, lambda i, o: float(i * o)))
    everything = np.ones(graph.n_components, bool)
    model.fit(everything, 10_000.0)
    assert model(everything) == pytest.approx(10_000)
    saved = model.savings()
    group = next(g for g in graph.groups if g.name.startswith("c."))
    # an output of `c` costs 64 there and 4 in `out`
    assert saved[group.components] == pytest.approx(64 + 4)
    assert (saved >= 0).all() and saved.max() == 68


def test_widths_end_where_the_cost_falls(net: Net) -> None:
    graph = trace(net, torch.zeros(1, 3, 32, 32))
    found = convolutions(net, torch.zeros(1, 3, 32, 32))
    table = by_formula(found, lambda i, o: float(-(-o // 16) * 16))
    model = LatencyModel(graph, found, table)
    scores = np.random.default_rng(0).random(graph.n_components)
    everything = model(np.ones(graph.n_components, bool))
    gone = budget.search(graph, scores, 0.6 * everything, 8, model, in_blocks=True)
    plan = graph.plan(gone)
    assert model.of_plan(plan) <= 0.6 * everything
    for name in ("a.0.weight", "b.0.weight", "c.weight"):
        width = len(plan.keep.get(name, {}).get(0, range(graph.shapes[name][0])))
        assert width % 16 == 0, f"{name} has {width} channels, which cost as much as {-(-width // 16) * 16}"


def test_layers_are_never_timed_in_another_backend_than_the_one_asked_for(net: Net) -> None:
    table = CostTable(HERE._replace(backend="tensorrt"))
    with pytest.raises(UserError, match="tensorrt cannot time single layers here"):
        measure(table, convolutions(net, torch.zeros(1, 3, 32, 32)))
    assert not table.grids


def test_devices_are_told_apart() -> None:
    one = cost_table.cached(HERE)
    assert one.name.startswith("onnxruntime-") and one == cost_table.cached(HERE)
    others = [HERE._replace(threads=2), HERE._replace(version="2"), HERE._replace(precision="bf16")]
    assert len({one, *map(cost_table.cached, others)}) == 4
    assert str(HERE) == "onnxruntime 1, 1 thread on a processor"
    assert dataclasses.asdict(Grid([0], [1], [[1.0]])) == {"inputs": [0], "outputs": [1], "ms": [[1.0]]}
