"""The regulariser's gradient against autograd, and what it does to the members of a group."""

from __future__ import annotations

import copy
import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.sparsity.small_networks import Residual, Shared, plain, scatter
from yoloprune.errors import UserError
from yoloprune.graph import trace
from yoloprune.sparsity import SCOPES, GroupSparsity, regulariser

X = torch.rand(2, 3, 8, 8)


def penalty(graph, model: nn.Module, strength: float, alpha: float, scope: str) -> torch.Tensor:
    """R, channel by channel, as the docstrings define it; γ is held fixed."""
    tensors = graph.parameters(model)
    norms = {id(m.weight) for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
    outputs = {
        id(m.weight): 1 if isinstance(m, nn.ConvTranspose2d) and m.groups == 1 else 0
        for m in model.modules()
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))
    }
    group_of = {int(c): i for i, group in enumerate(graph.groups) for c in group.components}
    scores: dict[tuple, torch.Tensor] = {}  # (group, channel) -> I
    for piece in graph.slices:
        tensor = tensors[piece.parameter]
        if not isinstance(tensor, nn.Parameter):
            continue
        if scope == "convolutions" and tensor.ndim == 1:
            continue
        if scope == "layer" and outputs.get(id(tensor)) != piece.dim:
            continue
        if scope == "bn" and id(tensor) not in norms:
            continue
        for index in range(piece.size):
            component = int(graph.component[piece.start + index])
            if graph.frozen[component]:
                continue
            part = tensor.select(piece.dim, index).square().sum()
            grouped = scope in ("group", "convolutions")
            key = (group_of[component], component) if grouped else (piece.start, index)
            scores[key] = scores.get(key, 0.0) + part
    if scope == "bn":
        return strength * sum(value.sqrt() for value in scores.values())
    total = 0.0
    for (group, _), value in scores.items():
        own = [v.item() for (other, _), v in scores.items() if other == group]
        span = max(own) - min(own)
        exponent = (max(own) - value.item()) / span if span > 1e-5 * max(own) else 0.0
        total = total + 2 ** (alpha * exponent) * value
    return strength * total


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def zero_gradients(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)


@settings(max_examples=12, deadline=None)
@given(
    width=st.sampled_from([4, 6, 10]),
    kind=st.sampled_from(["residual", "shared", "plain"]),
    scope=st.sampled_from(sorted(SCOPES)),
    alpha=st.sampled_from([0.0, 2.0, 4.0]),
    seed=st.integers(0, 99),
)
def test_gradient_is_that_of_the_penalty(width: int, kind: str, scope: str, alpha: float, seed: int) -> None:
    model = {"residual": Residual, "shared": Shared, "plain": plain}[kind](width)
    scatter(model, seed).double()
    graph = trace(model, X.double())
    if kind == "shared" and scope == "bn":
        with pytest.raises(UserError, match="nothing prunable"):
            GroupSparsity(graph, model, scope=scope)
        return
    zero_gradients(model)
    penalty(graph, model, 0.3, alpha, scope).backward()
    expected = gradients(model)
    zero_gradients(model)
    GroupSparsity(graph, model, strength=0.6, alpha=alpha, scope=scope)(0.5)
    found = gradients(model)
    assert any(g.any() for g in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_every_kind_of_layer_takes_part() -> None:
    model = scatter(Residual())
    graph = trace(model, X)
    zero_gradients(model)
    GroupSparsity(graph, model)()
    untouched = {name for name, p in model.named_parameters() if not p.grad.any()}
    assert untouched == {"fc.bias"}, "only the output's own bias belongs to no prunable channel"


def test_it_adds_to_what_is_there() -> None:
    model = scatter(plain())
    graph = trace(model, X)
    sparsity = GroupSparsity(graph, model, strength=0.1)
    zero_gradients(model)
    sparsity()
    alone = gradients(model)
    model.zero_grad()
    model(X).square().mean().backward()
    loss = gradients(model)
    sparsity()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, loss[name] + alone[name])


@pytest.mark.parametrize("scope", sorted(SCOPES))
@pytest.mark.parametrize("value", [0.0, 0.25, 1e-20])
def test_equal_scores_give_no_nan(scope: str, value: float) -> None:
    model = plain()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    graph = trace(model, X)
    zero_gradients(model)
    GroupSparsity(graph, model, strength=0.5, scope=scope)()
    for parameter in model.parameters():
        assert parameter.grad.isfinite().all()
    if value == 0.25 and scope == "group":  # γ = 1 on both sides
        torch.testing.assert_close(model[3].weight.grad, 2 * model[3].weight.detach())


def test_weak_channels_shrink_up_to_two_to_the_alpha_as_fast() -> None:
    model = scatter(plain())
    graph = trace(model, X)
    zero_gradients(model)
    GroupSparsity(graph, model, strength=0.5, alpha=3.0)()
    rate = (model[1].weight.grad / model[1].weight).detach()
    torch.testing.assert_close(rate.aminmax().min, torch.tensor(1.0))
    torch.testing.assert_close(rate.aminmax().max, torch.tensor(8.0))


def test_frozen_parameters_and_those_without_gradient_count_but_stay() -> None:
    model = scatter(plain())
    graph = trace(model, X)
    zero_gradients(model)
    GroupSparsity(graph, model)()
    expected = model[1].weight.grad.clone()
    model[0].weight.requires_grad_(False).grad = None
    model[1].bias.grad = None
    model[1].weight.grad.zero_()
    GroupSparsity(graph, model)()
    assert model[0].weight.grad is None
    assert model[1].bias.grad is None
    assert torch.equal(model[1].weight.grad, expected), "the frozen weights still count in the score"
    model.zero_grad()
    GroupSparsity(graph, model)()  # nothing to add to
    assert all(p.grad is None for p in model.parameters())


def test_frozen_channels_stay_alone() -> None:
    model = scatter(plain())
    graph = trace(model, X, freeze=["3"])
    zero_gradients(model)
    GroupSparsity(graph, model)()
    assert not model[4].weight.grad.any()
    assert not model[6].weight.grad.any()
    assert model[3].weight.grad.any(), "its inputs are prunable"


def test_half_precision_and_memory_format() -> None:
    model = scatter(plain())
    graph = trace(model, X)
    zero_gradients(model)
    GroupSparsity(graph, model, strength=0.1)()
    expected = gradients(model)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    for network, tolerance in ((last, 1e-5), (copy.deepcopy(model).bfloat16(), 2e-2)):
        zero_gradients(network)
        GroupSparsity(graph, network, strength=0.1)()
        for name, gradient in gradients(network).items():
            torch.testing.assert_close(gradient.float(), expected[name], rtol=tolerance, atol=tolerance)


def member_norms(graph, model: nn.Module, group) -> np.ndarray:
    """The norm of each member of a group at each channel, (members, channels)."""
    tensors, rows = graph.parameters(model), []
    for piece in graph.slices:
        tensor = tensors[piece.parameter]
        if (piece.parameter, piece.dim) in group.members and isinstance(tensor, nn.Parameter):
            others = [d for d in range(tensor.ndim) if d != piece.dim]
            squares = tensor.detach().square()
            vector = (squares.sum(others) if others else squares).double().numpy()
            component = graph.component[piece.start : piece.start + piece.size]
            rows.append([vector[component == c].sum() for c in group.components])
    return np.sqrt(np.array(rows))


def test_members_of_a_group_shrink_in_step() -> None:
    """Only full grouping takes the same channels down in every member; the others leave some members as they are."""
    start = scatter(plain(), seed=3)
    with torch.no_grad():  # affines of like size, so that a member's own order is not the group's
        for norm in (start[1], start[4]):
            norm.bias.fill_(0.5)
            norm.weight.uniform_(0.9, 1.1)
    graph = trace(start, X)
    group = next(g for g in graph.groups if g.name == "3.weight")
    falls = {}
    for scope in SCOPES:
        model = copy.deepcopy(start)
        sparsity = GroupSparsity(graph, model, strength=1e-3, scope=scope)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        before = member_norms(graph, model, group)
        for _ in range(60):
            zero_gradients(model)
            sparsity()
            optimizer.step()
        falls[scope] = member_norms(graph, model, group) / before  # what is left, by member and channel
    between_members = np.corrcoef(falls["group"])
    assert between_members.min() > 0.95
    np.testing.assert_allclose(falls["group"][1], falls["group"][2], rtol=1e-5)  # scale and shift: exactly in step
    assert np.allclose(falls["bn"][0], 1), "slimming leaves the kernels as they are"
    assert np.allclose(falls["layer"][1:3], 1), "without grouping the norms stay as they are"
    weakest = falls["group"].mean(0).argmin()
    assert (falls["group"][:, weakest] < 0.9).all(), "every member of the weakest channel shrinks"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"strength": -1.0}, "strength=-1.0 is no strength"),
        ({"strength": float("nan")}, "strength=nan is no strength"),
        ({"alpha": -1.0}, "alpha=-1.0 is out of range"),
        ({"scope": "all"}, "Unknown scope 'all'; choose one of group, convolutions, layer, bn"),
    ],
)
def test_mistakes_in_settings(settings: dict, sentence: str) -> None:
    model = plain()
    with pytest.raises(UserError, match=sentence):
        GroupSparsity(trace(model, X), model, **settings)


def test_mistakes_in_models() -> None:
    graph = trace(plain(), X)
    with pytest.raises(UserError, match="not the one that was traced"):
        GroupSparsity(graph, plain(width=6))
    one = nn.Conv2d(3, 4, 1)
    graph = trace(one, X)
    with pytest.raises(UserError, match="nothing prunable"):
        GroupSparsity(graph, one)


def test_the_example_runs() -> None:
    assert doctest.testmod(regulariser).failed == 0
