"""What `mask_error` sees, and what it leaves alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.nets.case import between
from yoloprune.errors import UserError
from yoloprune.graph import mask_error, trace

X = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)).double()

BEYOND_SIGHT = {
    "quotient": lambda net, x: x * (1.0 / x.shape[1]),
    "logarithm": lambda net, x: x * math.log(x.shape[1]),
    "difference": lambda net, x: x * (100.0 - x.shape[1]),
    "another course": lambda net, x: F.layer_norm(x, x.shape[1:]) if x.shape[1] > 12 else x,
    "a branch": lambda net, x: x.relu() if x.shape[1] > 12 else x.sigmoid(),
}


def error(model: nn.Module, inputs: object = X, **options: object) -> float:
    return mask_error(model, trace(model, inputs).random_plan(0.5), inputs, **options)


@pytest.mark.parametrize("middle", BEYOND_SIGHT.values(), ids=BEYOND_SIGHT.keys())
def test_what_a_trace_does_not_see(middle) -> None:
    assert error(between(middle)().double()) > 1e-3


def test_nothing_is_left_where_all_is_seen() -> None:
    model = between(lambda net, x: net.n(x).relu(), n=nn.BatchNorm2d(16))().double().train()
    model.n.running_var.fill_(2.0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    assert error(model) < 1e-12
    assert model.training
    assert model.n.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_is_not_finite_counts_where_it_differs() -> None:
    where = torch.zeros(4, dtype=torch.bool).index_fill_(0, torch.tensor([1]), True)[None, :, None, None]
    model = between(lambda net, x: x.relu())().double()
    hook = model.register_forward_hook(lambda module, args, out: out.masked_fill(where, float("nan")))
    assert error(model) < 1e-12
    hook.remove()
    hook = model.register_forward_hook(lambda module, args, out: out * float("nan"))
    assert error(model) == float("inf")
    hook.remove()
    model.register_forward_hook(lambda module, args, out: out / torch.tensor(8.0 - module.first.out_channels))
    assert error(model) == float("inf")


def test_part_of_the_output_and_inputs_by_name() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> dict:
            y = self.a(x)
            return {"right": self.b(y), "wrong": self.b(y) * (1.0 / y.shape[1])}

    inputs = {"x": torch.rand(2, 4).double()}
    assert error(Net().double(), inputs) > 1e-3
    assert error(Net().double(), inputs, select=lambda out: out["right"]) < 1e-12


@pytest.mark.parametrize("dead", ["last", "first"])
def test_outputs_that_nothing_changes_show_nothing(dead) -> None:
    model = between(lambda net, x: x.relu())().double()
    getattr(model, dead).weight.data.zero_()
    with pytest.raises(UserError, match="outputs are the same for another input, bit for bit"):
        error(model)
    model.register_forward_hook(lambda module, args, out: out + 1e-9 * args[0].mean())
    assert error(model) < 1e-12


def test_all_zero_outputs_show_nothing_and_other_constants_beside_them_do_no_harm() -> None:
    model = between(lambda net, x: x.relu())().double()
    hook = model.register_forward_hook(lambda module, args, out: (out * 0, out.new_ones(3)))
    with pytest.raises(UserError, match="cannot show a wrong channel"):
        error(model)
    hook.remove()
    model.register_forward_hook(lambda module, args, out: (out, out.new_ones(3)))
    assert error(model) < 1e-12


def test_words_are_another_input_in_another_order() -> None:
    model = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 8), nn.Linear(8, 2)).double()
    words = torch.arange(5)[None]
    assert error(model, words) < 1e-12
    state = torch.random.get_rng_state()
    model[2].weight.data.zero_()
    with pytest.raises(UserError, match="same for another input"):
        error(model, words)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert error(model, torch.ones(1, 1, dtype=torch.long)) == 0  # there is no other order of one word
