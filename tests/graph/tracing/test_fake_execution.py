"""Traces without arithmetic: the same graph, and the values themselves wherever something depends on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.exactness import enliven
from yoloprune.graph import mask_error, trace
from yoloprune.graph.tracing import fake_execution, tracer
from yoloprune.graph.tracing.fake_execution import FakeExecution


@pytest.fixture
def runs(monkeypatch):
    """Whether each execution had to have values."""
    seen, execute = [], tracer._execute

    def note(model, inputs, fake):
        seen.append(fake is None)
        return execute(model, inputs, fake)

    monkeypatch.setattr(tracer, "_execute", note)
    return seen


class Two(nn.Module):
    """A stem, two branches of which values may choose one, and an output."""

    def __init__(self, choose) -> None:
        super().__init__()
        self.stem, self.out = nn.Linear(4, 8), nn.Linear(12, 3)
        self.a, self.b = nn.Linear(8, 12), nn.Linear(8, 12)
        self.register_buffer("mean", torch.zeros(8))
        self.choose = choose
        nn.init.constant_(self.stem.bias, 3.0)

    def forward(self, x):
        h = self.stem(x)
        return self.out((self.a if self.choose(self, h) else self.b)(h))


def by_threshold(net, h):
    return bool((h > 1).any())


def by_item(net, h):
    return h.sum().item() > 1


def by_list(net, h):
    return h.flatten().tolist()[0] > 1


def by_array(net, h):
    return h.numpy().max() > 1


def by_count(net, h):
    return h.nonzero().shape[0] > 0


def by_index(net, h):
    return h[:, h.argmax(1)].shape[1] and h.mean().int().float() > 1


def by_buffer(net, h):
    net.mean.copy_(h.mean(0))
    return net.mean.sum() > 1


CHOICES = [by_threshold, by_item, by_list, by_array, by_count, by_index, by_buffer]


@pytest.mark.parametrize("choose", CHOICES)
def test_values_that_decide_are_computed(choose, runs) -> None:
    torch.manual_seed(0)
    model, x = Two(choose), torch.full((2, 4), 0.01)
    graph = trace(model, x)
    assert runs == [False, True]
    assert "a.weight" in {g.name for g in graph.groups if not g.frozen}
    assert not any(member[0].startswith("b.") for g in graph.groups for member in g.members)
    assert not model.mean.any()


class Masked(nn.Module):
    """Its mask comes from shapes alone, as a window attention's does; the index of a pooling is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 2)

    def forward(self, x):
        h = F.max_pool2d(self.conv(x), 2).flatten(2).transpose(1, 2)
        mask = h.new_zeros(h.shape[1], h.shape[1])
        mask[:2] = 1
        scores = (h @ h.transpose(1, 2)) + mask.masked_fill(mask != 0, -100.0)
        return self.out(scores.softmax(-1) @ h)


class Joined(nn.Module):
    """A concatenation of what is computed with what is not, in place as well."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(19, 2, 1)

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        a += a.sigmoid() * 2
        return self.out(torch.cat([a, b.clone(), x.clone(), b], 1))


NETS = {
    "masked": (Masked(), (1, 3, 8, 8)),
    "strided": (
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, (1, 3), padding="same")),
        (1, 3, 9, 7),
    ),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(3, 8, 3, 2, 1, 1), nn.ConvTranspose2d(8, 4, 2, 2)), (2, 3, 5, 4)),
    "grouped": (nn.Sequential(nn.Conv1d(4, 8, 3, dilation=2, groups=2), nn.Conv1d(8, 8, 1, groups=8)), (1, 4, 12)),
    "volume": (nn.Sequential(nn.Conv3d(2, 6, 3, 1, 1), nn.AvgPool3d(2), nn.Conv3d(6, 2, 1)), (1, 2, 4, 4, 4)),
    "unbatched": (nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)), (3, 8, 8)),
    "linear": (nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8, bias=False), nn.Linear(8, 2)), (2, 5, 4)),
    "normalised": (
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Flatten(2), nn.LayerNorm(16)),
        (1, 3, 4, 4),
    ),
    "joined": (Joined(), (1, 3, 4, 4)),
    "recurrent": (nn.GRU(4, 8, 2, batch_first=True), (2, 3, 4)),
}


@pytest.mark.parametrize("size", [1, fake_execution._LARGE])
@pytest.mark.parametrize("net", NETS)
def test_the_graph_is_the_one_with_values(net, size, runs, monkeypatch) -> None:
    model, shape = NETS[net]
    x = torch.randn(shape)
    monkeypatch.setattr(fake_execution, "_LARGE", size)
    found = trace(model, x)
    assert runs == [False]
    monkeypatch.setattr(tracer, "run", lambda model, inputs: tracer._execute(model, inputs, None))
    expected = trace(model, x)
    assert runs == [False, True]
    for name in ("component", "frozen", "tied"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    assert (found.groups[0].name, found.macs()) == (expected.groups[0].name, expected.macs())


def test_channels_last_networks_keep_their_layout(runs) -> None:
    class Viewing(nn.Sequential):
        def forward(self, x):
            return self[1](self[0](x).permute(0, 2, 3, 1).view(1, 64, 8))  # fails on any other layout

    model = Viewing(nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 2)).to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, 8, 8).to(memory_format=torch.channels_last)
    graph = trace(model, x)
    assert runs == [False]
    assert mask_error(model, graph.random_plan(0.5), x) < 1e-5


def test_errors_of_the_model_are_its_own() -> None:
    for layer, shape in (
        (nn.Conv2d(3, 8, 3), (1, 4, 8, 8)),
        (nn.Linear(4, 2), (1, 5)),
        (nn.Conv2d(3, 8, 9), (1, 3, 4, 4)),
    ):
        with pytest.raises(RuntimeError) as plain:
            layer(torch.zeros(shape))
        with pytest.raises(RuntimeError) as traced:
            trace(layer, torch.zeros(shape))
        assert str(traced.value) == str(plain.value)


def test_no_fake_value_stays_in_the_model() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.kept, self.last = nn.Conv2d(3, 8, 1), {}, None

        def forward(self, x):
            self.last = self.kept[x.shape[-1]] = self.conv(x)
            self.register_buffer("late", self.last.mean(), persistent=False)
            return self.last * 2

    model = enliven(Caching())
    model.kept.clear()
    del model.late
    model.last, model.training = "mine", True
    trace(model, torch.randn(1, 3, 8, 8))
    assert (model.kept, model.last, model.training, dict(model.named_buffers())) == ({}, "mine", True, {})


class Long(nn.Module):
    """Many layers; a branch depends on what the first one gave, or on nothing."""

    def __init__(self, *, chooses: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(60))
        self.chooses = chooses

    def forward(self, x):
        first = h = self.layers[0](x)
        for layer in self.layers[1:]:
            h = layer(h).relu()
        return h + first if self.chooses and first.sum().item() > 0 else h


@pytest.mark.parametrize("chooses", [False, True])
def test_dead_values_are_forgotten_and_live_ones_are_not(runs, monkeypatch, chooses):
    most, note = [0], FakeExecution._mark

    def watch(self, tensor):
        note(self, tensor)
        most.append(len(self._fake_storages))

    monkeypatch.setattr(FakeExecution, "_mark", watch)
    trace(Long(chooses=chooses), torch.zeros(2, 4))
    assert runs == ([False, True] if chooses else [False])
    assert len(most) > 100 > 30 > max(most)  # values, and those of them that are remembered at a time
