"""What the process is set to, and how a device computes a layer, changes no group."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.graph.exactness import prunable_share
from tests.graph.nets import CASES
from yoloprune.graph import mask_error, trace
from yoloprune.graph.tracing import fake_execution


class Cells(nn.Module):
    """Two steps of recurrent cells as a GPU computes them: a kernel for what the CPU does operator by operator."""

    def __init__(self, kind: type[nn.LSTMCell] | type[nn.GRUCell], fused: bool) -> None:
        super().__init__()
        self.stem, self.cell, self.head, self.fused = nn.Linear(3, 12), kind(12, 10), nn.Linear(10, 4), fused

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cell, x = self.cell, self.stem(x)
        if not self.fused:
            state = cell(x, cell(x))
            return self.head(state[0] if isinstance(state, tuple) else state)
        h = c = x.new_zeros(len(x), cell.hidden_size)
        for _ in range(2):
            given, kept = x @ cell.weight_ih.T, h @ cell.weight_hh.T
            if isinstance(cell, nn.LSTMCell):
                h, c, _ = torch.ops.aten._thnn_fused_lstm_cell(given, kept, c, cell.bias_ih, cell.bias_hh)
            else:
                h, _ = torch.ops.aten._thnn_fused_gru_cell(given, kept, h, cell.bias_ih, cell.bias_hh)
        return self.head(h)


def labels(model: nn.Module, inputs: tuple) -> dict:
    graph = trace(model, inputs)
    assert not graph.unsupported
    return {frozenset(group.members): group.frozen for group in graph.groups}


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell])
def test_a_recurrent_kernel_is_followed_like_its_operators(kind) -> None:
    x = torch.randn(2, 3)
    assert labels(Cells(kind, fused=True), (x,)) == labels(Cells(kind, fused=False), (x,))


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_inference_mode_changes_nothing(case) -> None:
    with torch.inference_mode():
        assert prunable_share(trace(case.build(), case.inputs())) == pytest.approx(case.share)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_activations_that_are_not_computed_change_nothing(case, monkeypatch) -> None:
    monkeypatch.setattr(fake_execution, "_LARGE", 1)  # small ones are
    assert prunable_share(trace(case.build(), case.inputs())) == pytest.approx(case.share)


_SAME = ["chunk", "channel shuffle", "LSTM, bidirectional", "packed heads", "MultiheadAttention", "GCN, dense"]


@pytest.mark.parametrize("name", _SAME)
def test_another_default_device_changes_nothing(name) -> None:
    case = next(case for case in CASES if case.name == name)
    model, inputs = case.build().double(), tuple(x.double() if x.is_floating_point() else x for x in case.inputs())
    with torch.device("meta"):
        graph = trace(model, inputs)
        assert prunable_share(graph) == pytest.approx(case.share)
        assert mask_error(model, graph.random_plan(0.5, 0), inputs) < 1e-9
