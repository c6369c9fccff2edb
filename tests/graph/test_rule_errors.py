"""Faults of the core's own rules come out, even where zeros in place of values would lead to a second execution."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.nets.case import Net, conv
from yoloprune.errors import UserError
from yoloprune.graph import trace
from yoloprune.graph.rules import COMPOSITES, RULES, RuleError
from yoloprune.graph.tracing.fake_execution import MEMORY_BOUND

X = torch.rand(1, 3, 64, 64)


def _net(middle=lambda net, h: h) -> Net:
    return Net(
        lambda net, x: net.last(middle(net, net.first(x))), first=conv(3, 16), last=conv(16, 4), other=conv(16, 16)
    )


def _once(error: Exception):
    """A rule that fails the first time only, as one does that stumbles over zeros."""
    raised = []

    def rule(call) -> None:
        if not raised:
            raised.append(error)
            raise error

    return rule


def test_an_error_of_a_rule_comes_out_with_the_operator_s_name(monkeypatch) -> None:
    monkeypatch.setitem(RULES, "convolution", _once(IndexError("list index out of range")))
    with pytest.raises(RuleError, match=r"aten::convolution.*IndexError: list index out of range"):
        trace(_net(), X)


def test_also_where_the_model_catches_everything(monkeypatch) -> None:
    def careful(net, h):
        try:
            return net.other(h).sigmoid()
        except Exception:
            return h

    monkeypatch.setitem(RULES, "sigmoid", _once(IndexError("here")))
    with pytest.raises(RuleError, match="aten::sigmoid"):
        trace(_net(careful), X)


def test_also_of_a_function_with_a_rule_of_its_own(monkeypatch) -> None:
    def attend(net, h):
        q = h.flatten(2)
        return F.scaled_dot_product_attention(q, q, q).view_as(h)

    monkeypatch.setitem(COMPOSITES, "scaled_dot_product_attention", _once(KeyError("query")))
    with pytest.raises(RuleError, match="scaled_dot_product_attention"):
        trace(_net(attend), X)


def test_also_of_what_predicts_shapes(monkeypatch) -> None:
    def fail(*args: object) -> None:
        raise IndexError("no such dimension")

    monkeypatch.setitem(MEMORY_BOUND, "relu", fail)
    with pytest.raises(RuleError, match=r"shapes of the operator aten::relu.*no such dimension"):
        trace(_net(lambda net, h: h.relu()), X)


def test_a_wrong_call_is_the_model_s_error_even_if_shapes_cannot_be_told(monkeypatch) -> None:
    with pytest.raises(IndexError, match="Dimension out of range"):
        trace(_net(lambda net, h: torch.cat([h, h], 7)), X)


def test_a_sentence_for_the_user_stays_one(monkeypatch) -> None:
    monkeypatch.setitem(RULES, "relu", _once(UserError("Give other inputs.")))
    with pytest.raises(UserError, match=r"^Give other inputs\.$"):
        trace(_net(lambda net, h: h.relu()), X)


def test_values_are_computed_also_where_the_model_catches_that_they_are_missing() -> None:
    def careful(net, h):
        try:
            positive = h.abs().sum().item() > 0
        except Exception:
            positive = False
        return net.other(h) if positive else h

    graph = trace(_net(careful), X)
    assert any(member[0] == "other.weight" for group in graph.groups for member in group.members)


def test_a_model_that_fails_on_zeros_only_is_executed_with_values() -> None:
    def invert(net, h):
        return h + torch.linalg.inv(h[0, :4, 0, :4]).sum()  # zeros are singular

    assert not trace(_net(invert), X).frozen.all()


def test_a_model_that_fails_before_anything_is_made_up_runs_once() -> None:
    runs = []

    def forward(net, x):
        runs.append(1)
        raise RuntimeError("at once")

    with pytest.raises(RuntimeError, match="at once"):
        trace(Net(forward, a=nn.Linear(3, 3)), X)
    assert len(runs) == 1


def test_modules_are_known_after_one_that_failed_inside() -> None:
    class Fails(nn.Module):
        def forward(self, x):
            raise NotImplementedError

    def careful(net, h):
        try:
            return net.broken(h)
        except NotImplementedError:
            return net.other(h)

    model = _net(careful)
    model.broken = Fails()
    terms = [term.module for term in trace(model, X).cost.terms]
    assert terms == ["first", "other", "last"]
