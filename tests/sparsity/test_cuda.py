"""On a GPU the regulariser is recorded once and replayed; the gradient is the one that the CPU adds."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.sparsity.small_networks import Residual
from yoloprune.graph import trace
from yoloprune.sparsity import SCOPES, GroupSparsity

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that CUDA can use")


@pytest.mark.parametrize("scope", SCOPES)
def test_each_step_has_the_gradient_of_the_cpu(scope: str) -> None:
    torch.manual_seed(0)
    model = Residual().double()
    graph = trace(model, torch.rand(2, 3, 8, 8).double())
    other = copy.deepcopy(model).cuda()
    both = [(m, GroupSparsity(graph, m, strength=0.1, scope=scope)) for m in (model, other)]
    for step in range(4):
        for m, regulariser in both:
            for number, parameter in enumerate(m.parameters()):
                parameter.grad = None if number == step else torch.ones_like(parameter)
            regulariser(0.5)
        for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
            assert (ours.grad is None) == (theirs.grad is None)
            if ours.grad is not None:
                assert torch.allclose(ours.grad, theirs.grad.cpu(), rtol=1e-12)
        with torch.no_grad():
            for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
                ours.mul_(1 + torch.rand_like(ours))
                if step == 1:  # to another place
                    theirs.data = ours.data.cuda()
                else:
                    theirs.copy_(ours)
