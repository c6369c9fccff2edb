"""A trace leaves the model, its inputs and the random generators as they were, whatever the forward pass changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.nets.case import Net, conv
from yoloprune.graph import trace
from yoloprune.graph.tracing.snapshot import storage_id


def counts(net, h):
    net.steps += 1
    net.mean.mul_(0.9).add_(0.1 * h.mean((0, 2, 3)))


def decides(net, h):  # so that the model runs a second time
    counts(net, h)
    return bool((h > 1).any())


def part(net, h):
    net.mean[2:4] = 7.0
    net.mean.view(4, 4)[0].copy_(h[0, :4, 0, 0])


def by_numpy(net, h):
    net.mean.numpy()[:] = 3.0
    net.steps.data.add_(1)


def other_memory(net, h):
    net.mean.data = net.mean + 1
    net.steps.resize_(4)
    net.first.weight.data = F.normalize(net.first.weight.data)


def several_at_once(net, h):
    torch._foreach_mul_([net.mean, net.var], 2.0)
    torch.add(net.mean, 1, out=net.var)


def statistics(net, h):
    F.batch_norm(h, net.mean, net.var, training=True)


def weights(net, h):
    net.first.weight.mul_(2)
    net.last.bias.zero_()


def plain_tensors(net, h):
    net.cache.add_(1)
    net.kept["x"].add_(1)
    net.listed[0].fill_(5)


def attributes(net, h):
    net.mean = h.mean((0, 2, 3))
    net.seen = h
    net.kept["new"] = h


CHANGES = [
    counts, decides, part, by_numpy, other_memory, several_at_once, statistics, weights, plain_tensors, attributes
]  # fmt: skip


def _net(change, *, fails: bool) -> Net:
    def forward(net, x):
        h = net.first(x)
        change(net, h)
        x.sub_(1)
        if fails:
            raise KeyError("the model's own")
        return net.last(h)

    model = Net(
        forward,
        first=conv(3, 16),
        last=conv(16, 4),
        mean=torch.rand(16),
        var=torch.rand(16) + 1,
        steps=torch.tensor(3),
    )
    model.cache, model.kept, model.listed = torch.rand(3), {"x": torch.rand(2)}, [torch.rand(2)]
    return model.train()


def _state(model: Net, x: torch.Tensor) -> dict[str, torch.Tensor]:
    plain = {"cache": model.cache, "kept": model.kept["x"], "listed": model.listed[0], "input": x}
    return {**model.state_dict(keep_vars=True), **plain}


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "raises"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_the_forward_pass_changes_is_put_back(change, fails) -> None:
    model, x = _net(change, fails=fails), torch.rand(2, 3, 8, 8)
    held = _state(model, x)
    before = {name: (t, storage_id(t), t.detach().clone()) for name, t in held.items()}
    keys = set(vars(model)), set(model.kept)
    if fails:
        with pytest.raises(KeyError, match="the model's own"):
            trace(model, x)
    else:
        trace(model, x)
    assert _state(model, x).keys() == before.keys()
    for name, t in _state(model, x).items():
        same, place, value = before[name]
        assert t is same, name
        assert storage_id(t) == place, name
        assert torch.equal(t, value), name
    assert (set(vars(model)), set(model.kept)) == keys
    assert model.training


def test_random_numbers_of_the_user_go_on_where_they_were() -> None:
    own = torch.Generator().manual_seed(3)

    def draw(net, h):
        h = F.dropout(h, 0.5, training=True) + torch.rand(1)
        return h + torch.randn(1, generator=own)

    model = Net(lambda net, x: net.last(draw(net, net.first(x))), first=conv(3, 16), last=conv(16, 4))
    states = torch.random.get_rng_state(), own.get_state()
    trace(model, torch.zeros(1, 3, 8, 8))
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert torch.equal(own.get_state(), states[1])


def test_nothing_is_copied_where_nothing_changes(monkeypatch) -> None:
    copies = []
    monkeypatch.setattr(torch.UntypedStorage, "clone", lambda self: copies.append(self))
    trace(nn.Sequential(conv(3, 16), nn.BatchNorm2d(16), nn.ReLU(inplace=True), conv(16, 4)), torch.rand(1, 3, 8, 8))
    assert not copies
