"""What users may tell a trace: layers that stay or lose equally many, sizes and operators of their own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.graph.exactness import randomise
from tests.graph.nets.case import Net, conv
from yoloprune.errors import UserError
from yoloprune.graph import attribute_handler, mask_error, rule, trace
from yoloprune.graph.rules import RULES

X = torch.randn(2, 3, 4, 4, dtype=torch.float64)


def _net() -> nn.Module:
    return randomise(
        Net(lambda net, x: net.c(net.b(net.a(x).relu()).relu()), a=conv(3, 16), b=conv(16, 16), c=conv(16, 4))
    )


def _live(graph) -> set[str]:
    return {g.name for g in graph.groups if not g.frozen}


@pytest.mark.parametrize(
    ("freeze", "live"),
    [
        (["a"], {"b.weight"}),
        (["[ab]"], set()),
        ([nn.Conv2d], set()),
        ([lambda name, module: getattr(module, "in_channels", 0) == 16], {"a.weight"}),
    ],
)
def test_freeze(freeze, live) -> None:
    assert _live(trace(_net(), X, freeze=freeze)) == live


@pytest.mark.parametrize("tie", [("a", "b"), (("a.weight", 0, 0, 16), ("b.weight", 0, 0, 16))])
def test_tied_layers_lose_equally_many(tie) -> None:
    model = _net()
    graph = trace(model, X, tie=[tie])
    scores = torch.arange(graph.n_components, dtype=torch.float64).numpy()  # those of the first layer are the lowest
    plan = graph.budget_plan(scores, target_macs=0.4 * graph.macs(), round_to=1)
    pruned = plan.apply(model)
    assert pruned.a.out_channels == pruned.b.out_channels < 16
    assert mask_error(model, plan, X) < 1e-9


def test_layers_keep_what_they_are_asked_to() -> None:
    model = _net()
    pruned = trace(model, X, least={"a": 11}).random_plan(1.0).apply(model)
    assert (pruned.a.out_channels, pruned.b.out_channels) == (11, 1)
    graph = trace(model, X, tie=[("a", "b")], least={"a": 9})
    scores = torch.ones(graph.n_components, dtype=torch.float64).numpy()
    pruned = graph.budget_plan(scores, target_macs=0.63 * graph.macs(), round_to=4).apply(model)
    assert pruned.a.out_channels == pruned.b.out_channels == 12
    with pytest.raises(ValueError, match="below the smallest reachable"):
        graph.budget_plan(scores, target_macs=0.5 * graph.macs(), round_to=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"least": {"z": 4}}, "no layer with output channels"),
        ({"freeze": ["z"]}, "no layer of the model"),
        ({"tie": [("a", "z")]}, "no layer with output channels"),
        ({"tie": [("a", "c")]}, "parts of equal size"),
        ({"tie": [(("a.weight", 0, 0, 99), ("b.weight", 0, 0, 99))]}, "which there is not"),
    ],
)
def test_mistakes_are_named(options, message) -> None:
    with pytest.raises(UserError, match=message):
        trace(_net(), X, **options)


class Halves(nn.Module):
    """A module with a size of its own, by which its forward cuts."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.half = conv(3, 16), 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner(x)
        return x[:, : self.half] * x[:, self.half :]


def test_a_size_of_ones_own_stays_until_a_handler_keeps_it_up_to_date(monkeypatch) -> None:
    model = randomise(nn.Sequential(Halves(), conv(8, 4)))
    assert not _live(trace(model, X))
    monkeypatch.setattr("yoloprune.graph.attributes._HANDLERS", dict(_handlers()))

    @attribute_handler(Halves)
    def _(module, old) -> None:
        module.half = module.inner.out_channels // 2

    graph = trace(model, X)
    plan = graph.random_plan(0.5, 0)
    assert plan.apply(model)[0].half == 4
    assert mask_error(model, plan, X) < 1e-9


def test_an_operator_of_ones_own_stays_until_it_has_a_rule(monkeypatch) -> None:
    library = torch.library.Library("yoloprune_tests", "DEF")
    library.define("hard_mish(Tensor x) -> Tensor")
    library.impl("hard_mish", lambda x: x * (x + 2).clamp(0, 2) / 2, "CPU")
    model = randomise(
        Net(lambda net, x: net.b(torch.ops.yoloprune_tests.hard_mish(net.a(x))), a=conv(3, 16), b=conv(16, 4))
    )
    graph = trace(model, X)
    assert graph.unsupported == {"hard_mish": 1}
    assert not _live(graph)
    monkeypatch.setitem(RULES, "hard_mish", None)  # so that the rule goes with the test

    @rule("hard_mish")
    def hard_mish(call) -> None:
        if labels := call.labels(call.args[0]):
            call.put(call.out, labels)

    graph = trace(model, X)
    assert not graph.unsupported
    assert _live(graph) == {"a.weight"}
    assert mask_error(model, graph.random_plan(0.5, 0), X) < 1e-9


def _handlers() -> dict:
    from yoloprune.graph.attributes import _HANDLERS

    return _HANDLERS
