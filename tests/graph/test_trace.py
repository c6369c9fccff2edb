"""The general core on small nets with answers worked out by hand, and exactness on torchvision models."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from tests.graph.exactness import enliven
from tests.graph.nets.case import Net
from yoloprune.errors import UserError
from yoloprune.graph import Plan, mask_error, trace, union_find


def live(graph):
    return {g.name: g for g in graph.groups if not g.frozen}


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 1)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.out(x + self.b(self.a(x).relu()))


class Split(nn.Module):
    """C2f in small: two halves, one goes through a layer, all are joined."""

    def __init__(self) -> None:
        super().__init__()
        self.cv1, self.m, self.cv2 = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(24, 4, 1)

    def forward(self, x):
        y = list(self.cv1(x).chunk(2, 1))
        y.append(y[-1] + self.m(y[-1]))
        return self.cv2(torch.cat(y, 1))


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = self.a(x)
        n, c, h, w = x.shape
        return self.b(x.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w))


class Flatten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 64, 4)

    def forward(self, x):
        return self.b(self.a(x).relu().flatten(1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.proj = nn.Linear(3, 16), nn.Linear(16, 96), nn.Linear(32, 16)
        self.out = nn.Linear(16, 2)

    def forward(self, x):
        x = self.embed(x.flatten(2).transpose(1, 2))
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 4, -1).permute(2, 0, 3, 1, 4).unbind(0)
        a = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.out(x + self.proj(a.transpose(1, 2).reshape(b, n, -1)))


NETS = [Residual, Split, Shuffle, Flatten, Attention]


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_small_nets_are_exact(net, seed) -> None:
    model, x = enliven(net()), torch.randn(2, 3, 8, 8)
    graph = trace(model, x)
    assert not graph.unsupported
    plan = graph.random_plan(0.5, seed)
    assert plan.keep
    assert mask_error(model, plan, x) < 1e-4


def test_residual_group_by_hand() -> None:
    graph = trace(Residual(), torch.zeros(1, 3, 8, 8))
    groups = live(graph)
    assert set(groups) == {"stem.weight", "a.weight"}
    assert groups["stem.weight"].size == 8
    assert set(groups["stem.weight"].members) == {
        ("stem.weight", 0),
        ("stem.bias", 0),
        ("a.weight", 1),
        ("b.weight", 0),
        ("b.bias", 0),
        ("out.weight", 1),
    }
    assert set(groups["a.weight"].members) == {("a.weight", 0), ("a.bias", 0), ("b.weight", 1)}
    out = next(g for g in graph.groups if g.name == "out.weight")
    assert out.frozen and "output" in out.reason
    assert graph.macs() == 64 * (3 * 8 * 9 + 8 * 12 + 12 * 8 + 8 * 2)


def test_split_halves_lose_equally_many_but_different_channels() -> None:
    graph = trace(Split(), torch.zeros(1, 3, 8, 8))
    kept = graph.random_plan(0.5, 3).keep["cv1.weight"][0]
    first, second = [i for i in kept if i < 8], [i - 8 for i in kept if i >= 8]
    assert len(first) == len(second) == 4
    assert first != second


def test_an_index_that_is_off_by_one_is_seen() -> None:
    model, x = enliven(Residual()), torch.randn(2, 3, 8, 8)
    plan = trace(model, x).random_plan(0.5, 0)
    kept = plan.keep["b.weight"][0]
    wrong = next(i for i in range(8) if i not in kept)
    keep = {name: {d: list(i) for d, i in dims.items()} for name, dims in plan.keep.items()}
    keep["b.weight"][0] = sorted([*kept[1:], wrong])
    broken = Plan(keep, plan.shapes, plan.macs(), plan.params())
    with torch.no_grad():
        masked, pruned = plan.mask_(copy.deepcopy(model))(x), broken.apply(model)(x)
    assert (masked - pruned).abs().max() / masked.abs().max() > 1e-3


def test_operators_without_a_rule_are_named_and_freeze() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.b(torch.fft.rfft(self.a(x)).real.repeat(1, 2)[:, :8])

    graph = trace(Odd(), torch.zeros(1, 3))
    assert "_fft_r2c" in graph.unsupported
    assert next(g for g in graph.groups if g.name == "a.weight").frozen


def test_a_model_without_tensors_in_its_output_is_refused() -> None:
    net = Net(lambda net, x: {"loss": net.a(x).sum().item()}, a=nn.Linear(3, 8))
    with pytest.raises(UserError, match="returns no tensors but dict"):
        trace(net, torch.zeros(1, 3))


def test_an_expert_that_no_token_reaches_is_named() -> None:
    net = Net(lambda net, x: net.b(net.a(x)[:0]), a=nn.Linear(3, 8), b=nn.Linear(8, 2))
    with pytest.raises(UserError, match=r"No values reach b with these example inputs"):
        trace(net, torch.zeros(1, 3))


def test_modules_that_the_execution_never_reached_are_named() -> None:
    class Branches(nn.Module):
        """An auxiliary head that only trains, experts of which one is chosen, a weight that is used past its module."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.aux = nn.Conv2d(3, 8, 1), nn.Sequential(nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
            self.experts = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(3))
            self.used, self.bare, self.out = nn.Linear(8, 8), nn.ParameterList([torch.rand(8)]), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            x = self.experts[1](self.stem(x))
            return self.out(torch.einsum("bchw,dc->bdhw", x, self.used.weight))

    assert trace(Branches(), torch.zeros(1, 3, 8, 8)).uncalled == [
        "aux.0", "aux.1", "experts.0", "experts.2", "bare"
    ]  # fmt: skip
    assert trace(nn.TransformerEncoderLayer(16, 4, batch_first=True), torch.rand(1, 5, 16)).uncalled == []


def test_freeze_by_name_type_and_predicate() -> None:
    for freeze in ("a", lambda name, module: name == "a"):
        graph = trace(Residual(), torch.zeros(1, 3, 8, 8), freeze=[freeze])
        assert set(live(graph)) == {"stem.weight"}
    assert not live(trace(Residual(), torch.zeros(1, 3, 8, 8), freeze=[nn.Conv2d]))


def test_plan_round_trip_and_compose(tmp_path) -> None:
    model, x = enliven(Residual()), torch.randn(2, 3, 8, 8)
    first = trace(model, x).random_plan(0.25, 0)
    half = first.apply(model)
    second = trace(half, x).random_plan(0.5, 1)
    first.compose(second).save(tmp_path / "plan.json")
    loaded = Plan.load(tmp_path / "plan.json")
    assert torch.equal(loaded.apply(model)(x), second.apply(half)(x))
    assert loaded.params() == sum(p.numel() for p in second.apply(half).parameters())
    assert repr(loaded) == (
        f"<Plan: {len(loaded.keep)} tensors shrink, {loaded.macs()} MACs and {loaded.params()} parameters are left>"
    )
    with pytest.raises(ValueError, match="was made for"):
        first.apply_(half)
    (tmp_path / "broken.json").write_text(json.dumps({"keep": []}))
    with pytest.raises(ValueError, match="is not a plan"):
        Plan.load(tmp_path / "broken.json")


def test_trace_and_apply_leave_the_model_as_it_was() -> None:
    model = enliven(Residual()).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    graph = trace(model, torch.randn(2, 3, 8, 8))
    graph.random_plan(0.5).apply(model)
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert graph.random_plan(0.5, 7).keep == graph.random_plan(0.5, 7).keep


def test_a_tensor_that_the_model_caches_brings_no_labels_into_the_next_trace() -> None:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.cache = nn.Linear(4, 8), nn.Linear(8, 2), None

        def forward(self, x):
            first = self.a(x)
            if self.cache is None:
                self.cache = first
            return self.b(first + self.cache)

    model = Cached()
    assert live(trace(model, torch.randn(1, 4)))
    assert model.cache is None  # what a trace's forward pass keeps goes with it
    model(torch.randn(1, 4))
    second = trace(model, torch.randn(1, 4))  # now the cache is a constant, whose channels stay
    assert next(g for g in second.groups if g.name == "a.weight").frozen


@settings(max_examples=25, deadline=None)
@given(
    widths=st.lists(st.integers(2, 24), min_size=2, max_size=4),
    ratio=st.floats(0, 1),
    seed=st.integers(0, 1000),
    groups=st.sampled_from([1, 2]),
)
def test_random_chains_are_exact(widths, ratio, seed, groups) -> None:
    torch.manual_seed(seed)
    layers, last = [], 4
    for w in widths:
        w *= groups
        layers += [nn.Conv2d(last, w, 3, padding=1, groups=groups), nn.BatchNorm2d(w), nn.SiLU()]
        last = w
    model = enliven(nn.Sequential(*layers, nn.Conv2d(last, 3, 1)), channels=4)
    x = torch.randn(1, 4, 8, 8)
    plan = trace(model, x).random_plan(ratio, seed)
    assert mask_error(model, plan, x) < 1e-4


@settings(max_examples=25, deadline=None)
@example(share=0.2, seed=1, round_to=1)  # one channel is 2.5 to 4 % of the cost there: found by hypothesis
@example(share=0.2023511481517927, seed=508, round_to=1)
@given(share=st.floats(0.2, 0.99), seed=st.integers(0, 1000), round_to=st.sampled_from([1, 8]))
def test_budget_is_met(share, seed, round_to) -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 96, 3), nn.ReLU(), nn.Conv2d(96, 4, 1))
    graph = trace(model, torch.zeros(1, 3, 16, 16))
    scores = torch.rand(graph.n_components, generator=torch.Generator().manual_seed(seed)).double().numpy()
    target = share * graph.macs()
    plan = graph.budget_plan(scores, target_macs=target, round_to=round_to)
    assert plan.macs() <= target
    if round_to == 1:
        assert plan.macs() >= 0.98 * target
    pruned = plan.apply(model)
    assert all(m.out_channels % round_to == 0 for m in (pruned[0], pruned[2]))
    assert plan.params() == sum(p.numel() for p in pruned.parameters())
    assert trace(pruned, torch.zeros(1, 3, 16, 16)).macs() == plan.macs()


@settings(max_examples=25, deadline=None)
@given(limit=st.floats(0.3, 0.95), seed=st.integers(0, 1000), round_to=st.sampled_from([1, 8]))
def test_no_layer_loses_more_than_the_limit(limit, seed, round_to) -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 96, 3), nn.ReLU(), nn.Conv2d(96, 4, 1))
    graph = trace(model, torch.zeros(1, 3, 16, 16))
    scores = torch.rand(graph.n_components, generator=torch.Generator().manual_seed(seed)).double().numpy()
    scores[graph.groups[0].components] *= 1e-3  # the first layer, which without a limit would lose all but one step
    target = 0.85 * graph.macs()
    pruned = graph.budget_plan(scores, target_macs=target, round_to=round_to, max_pruning_ratio=limit).apply(model)
    kept = pruned[0].out_channels, pruned[2].out_channels
    assert all(k >= (1 - limit) * width - 1e-4 for k, width in zip(kept, (64, 96), strict=True))
    assert round_to > 1 or kept[0] < 64
    with pytest.raises(ValueError, match="smallest reachable"):
        graph.budget_plan(scores, target_macs=target / 8, round_to=round_to, max_pruning_ratio=0.3)


def test_unreachable_budget_names_the_smallest() -> None:
    graph = trace(Residual(), torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="smallest reachable"):
        graph.budget_plan(torch.ones(graph.n_components).numpy(), target_macs=1, round_to=1)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v2", "shufflenet_v2_x1_0", "resnext50_32x4d"])
def test_torchvision_models_are_exact(name) -> None:
    torch.manual_seed(0)
    model, x = enliven(torchvision.models.get_model(name), size=64), torch.randn(1, 3, 64, 64)
    graph = trace(model, x)
    assert not graph.unsupported
    assert mask_error(model, graph.random_plan(0.4, 0), x) < 1e-4


@pytest.mark.parametrize("name", ["densenet121", "swin_t"])
def test_meetings_that_are_united_on_the_way_give_the_same_graph(name, monkeypatch) -> None:
    model, image = getattr(torchvision.models, name)(weights=None), torch.zeros(1, 3, 64, 64)
    whole = trace(model, image)
    monkeypatch.setattr(union_find, "_AT_ONCE", 1000)
    folded = trace(model, image)
    assert np.array_equal(whole.component, folded.component)
    assert np.array_equal(whole.frozen, folded.frozen)
    assert np.array_equal(whole.tied, folded.tied)
    assert [g.reason for g in whole.groups] == [g.reason for g in folded.groups]
