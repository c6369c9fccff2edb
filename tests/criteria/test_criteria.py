"""Criteria on a network small enough to work out by hand."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from yoloprune.criteria import CRITERIA, score
from yoloprune.criteria.relative import relative
from yoloprune.errors import UserError


class Tiny(nn.Module):
    """conv (1 to 2) - batch norm - depthwise conv - linear (2 to 1), on 1 x 1 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.bn = nn.BatchNorm2d(2, eps=0.0)
        self.dw = nn.Conv2d(2, 2, 1, groups=2, bias=False)
        self.fc = nn.Linear(2, 1)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))
            self.conv.bias.copy_(torch.tensor([0.5, -1.0]))
            self.bn.weight.copy_(torch.tensor([3.0, -0.5]))
            self.bn.bias.copy_(torch.tensor([0.0, 1.0]))
            self.dw.weight.copy_(torch.tensor([2.0, 1.0]).view(2, 1, 1, 1))
            self.fc.weight.copy_(torch.tensor([[4.0, -2.0]]))
            self.fc.bias.fill_(7.0)

    def forward(self, x):
        return self.fc(self.dw(self.bn(self.conv(x))).flatten(1))


def tiny_graph() -> SimpleNamespace:
    """Components 0 and 1: the two hidden channels; 2: input; 3: output (both frozen)."""
    members = ["conv.weight", "conv.bias", "bn.weight", "bn.bias", "bn.running_mean", "dw.weight"]
    slices = [SimpleNamespace(parameter=n, dim=0, start=2 * i, size=2) for i, n in enumerate(members)]
    slices += [
        SimpleNamespace(parameter="fc.weight", dim=1, start=12, size=2),
        SimpleNamespace(parameter="conv.weight", dim=1, start=14, size=1),
        SimpleNamespace(parameter="fc.weight", dim=0, start=15, size=1),
        SimpleNamespace(parameter="fc.bias", dim=0, start=16, size=1),
    ]
    return SimpleNamespace(
        slices=slices,
        component=np.array([0, 1] * 7 + [2, 3, 3]),
        n_components=4,
        frozen=np.array([False, False, True, True]),
        groups=[
            SimpleNamespace(components=np.array([0, 1])),
            SimpleNamespace(components=np.array([2])),
            SimpleNamespace(components=np.array([3])),
        ],
        parameters=lambda model: {**dict(model.named_parameters()), **dict(model.named_buffers())},
    )


L2 = np.array([1 + 0.25 + 9 + 0 + 4 + 16, 4 + 1 + 0.25 + 1 + 1 + 4])
L1 = np.array([1 + 0.5 + 3 + 0 + 2 + 4, 2 + 1 + 0.5 + 1 + 1 + 2])
BATCHES = [torch.tensor([1.0, 3.0]).view(2, 1, 1, 1), torch.tensor([-2.0]).view(1, 1, 1, 1)]


def loss(model, batch):
    return model(batch).square().mean()


def everything(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def test_l2_counts_every_member_of_a_channel():
    np.testing.assert_allclose(score(tiny_graph(), Tiny(), "l2", relative=False)[:2], L2)


def test_l1_counts_every_member_of_a_channel():
    np.testing.assert_allclose(score(tiny_graph(), Tiny(), "l1", relative=False)[:2], L1)


def test_l2_is_relative_to_the_upper_half_of_the_group_by_default():
    np.testing.assert_allclose(score(tiny_graph(), Tiny())[:2], L2 / L2.max())


def test_frozen_parameters_still_have_a_magnitude():
    model = Tiny().requires_grad_(False)
    np.testing.assert_allclose(score(tiny_graph(), model, "l2", relative=False)[:2], L2)


def test_lamp_is_the_share_of_what_is_at_least_as_large():
    np.testing.assert_allclose(score(tiny_graph(), Tiny(), "lamp")[:2], [1.0, L2[1] / L2.sum()])


def test_bn_scale_is_gamma():
    np.testing.assert_allclose(score(tiny_graph(), Tiny(), "bn_scale")[:2], [3.0, 0.5])


def test_bn_scale_says_when_channels_have_no_batch_norm():
    graph = tiny_graph()
    graph.frozen[2] = False  # the input channel: no batch norm, alone in its group, so its relative norm is 1
    with pytest.warns(UserWarning, match="1 of 3 prunable channels have no batch norm"):
        scores = score(graph, Tiny(), "bn_scale")
    np.testing.assert_allclose(scores[2], (3.0 + 0.5) / 2)


def test_bn_scale_without_any_batch_norm_is_an_error():
    model = Tiny()
    model.bn = nn.Identity()
    graph = tiny_graph()
    graph.slices = [s for s in graph.slices if not s.parameter.startswith("bn.")]
    with pytest.raises(UserError, match="needs batch norms"):
        score(graph, model, "bn_scale")


def hand_gradients(batch):
    """d loss / d parameter, channel by channel, of mean((fc(dw(bn(conv x))))^2) in evaluation mode."""
    a, b = np.array([1.0, 2.0]), np.array([0.5, -1.0])
    gamma, beta, d, f = np.array([3.0, -0.5]), np.array([0.0, 1.0]), np.array([2.0, 1.0]), np.array([4.0, -2.0])
    x = batch.numpy().reshape(-1, 1).astype(float)
    conv = x * a + b
    bn = conv * gamma + beta
    y = (bn * d) @ f + 7.0
    dy = (2 * y / len(x))[:, None]
    return {
        "conv.weight": (a, (dy * f * d * gamma * x).sum(0)),
        "conv.bias": (b, (dy * f * d * gamma).sum(0)),
        "bn.weight": (gamma, (dy * f * d * conv).sum(0)),
        "bn.bias": (beta, (dy * f * d).sum(0)),
        "dw.weight": (d, (dy * f * bn).sum(0)),
        "fc.weight": (f, (dy * bn * d).sum(0)),
    }


def test_taylor_sums_absolute_slice_products_over_batches():
    want = sum(sum(np.abs(w * g) for w, g in hand_gradients(batch).values()) for batch in BATCHES) / 2
    got = score(tiny_graph(), Tiny(), "taylor", batches=BATCHES, loss=loss)[:2]
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_hessian_averages_squared_gradients_over_all_batches():
    rows = [hand_gradients(batch) for batch in BATCHES]
    want = sum(0.5 * rows[0][n][0] ** 2 * (rows[0][n][1] ** 2 + rows[1][n][1] ** 2) / 2 for n in rows[0])
    got = score(tiny_graph(), Tiny(), "hessian", batches=BATCHES, loss=loss)[:2]
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("name", ["taylor", "hessian"])
def test_gradient_criteria_leave_the_model_as_it_was(name):
    model = Tiny().train()
    model.dw.eval()
    model.conv.weight.requires_grad_(False)
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    before = everything(model)
    with torch.no_grad():
        score(tiny_graph(), model, name, batches=BATCHES, loss=loss)
        assert not torch.is_grad_enabled()
    assert [model.training, model.bn.training, model.dw.training] == [True, True, False]
    assert [model.conv.weight.requires_grad, model.bn.weight.requires_grad] == [False, True]
    assert model.conv.weight.grad is None
    assert torch.equal(model.fc.weight.grad, torch.ones(1, 2))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", ["taylor", "hessian"])
def test_gradient_criteria_do_not_depend_on_requires_grad(name):
    open_, closed = Tiny(), Tiny().requires_grad_(False)
    a, b = (score(tiny_graph(), m, name, batches=BATCHES, loss=loss) for m in (open_, closed))
    np.testing.assert_array_equal(a, b)


def test_requires_grad_and_modes_are_put_back_after_an_error():
    model = Tiny().train()
    model.conv.weight.requires_grad_(False)
    with pytest.raises(ZeroDivisionError):
        score(tiny_graph(), model, "taylor", batches=BATCHES, loss=lambda m, b: 1 / 0)
    assert [model.training, model.conv.weight.requires_grad] == [True, False]


def test_random_is_seeded():
    a, b, c = (score(tiny_graph(), Tiny(), "random", seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


@pytest.mark.parametrize("name", [n for n, entry in CRITERIA.items() if not entry.needs_batches])
def test_deterministic_and_finite(name):
    a, b = (score(tiny_graph(), Tiny(), name) for _ in range(2))
    assert (a.dtype, a.shape) == (np.float64, (4,))
    assert np.isfinite(a).all()
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("name", ["l1", "l2", "lamp", "bn_scale"])
def test_equal_scores_give_no_nan(name, value):
    model = Tiny()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(value)
    scores = score(tiny_graph(), model, name)
    assert np.isfinite(scores).all()
    assert scores[0] == scores[1]


def test_relative_compares_with_the_upper_half():
    graph = tiny_graph()
    graph.groups[0].components = np.arange(4)
    graph.groups = graph.groups[:1]
    np.testing.assert_allclose(relative(graph, np.array([1.0, 0.0, 3.0, 5.0])), np.array([1.0, 0.0, 3.0, 5.0]) / 4)


def test_half_precision_weights_score_like_their_float_copies():
    half = Tiny().half()
    np.testing.assert_allclose(
        score(tiny_graph(), half, relative=False), score(tiny_graph(), copy.deepcopy(half).float(), relative=False)
    )


def test_every_criterion_is_documented():
    assert {"l1", "l2", "lamp", "bn_scale", "taylor", "hessian", "random"} <= set(CRITERIA)
    assert all(len(entry.doc) > 40 for entry in CRITERIA.values())


def test_unknown_criterion_names_the_choices():
    with pytest.raises(UserError, match=r"'l3'.*bn_scale.*taylor"):
        score(tiny_graph(), Tiny(), "l3")


def test_taylor_without_batches_or_loss_says_what_to_give():
    with pytest.raises(UserError, match=r"pass batches="):
        score(tiny_graph(), Tiny(), "taylor", loss=loss)
    with pytest.raises(UserError, match=r"pass loss="):
        score(tiny_graph(), Tiny(), "taylor", batches=BATCHES)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda m, b: m(b).squeeze(), r"shape \(2,\) for batch 0"),
        (lambda m, b: 1.0, "float for batch 0"),
        (lambda m, b: m(b).detach().mean(), "does not depend on the weights"),
        (lambda m, b: m(b).mean() * float("nan"), "nan for batch 0"),
    ],
)
def test_a_bad_loss_is_named(bad, message):
    with pytest.raises(UserError, match=message):
        score(tiny_graph(), Tiny(), "taylor", batches=BATCHES, loss=bad)


def test_weights_that_are_not_finite_are_an_error():
    model = Tiny()
    with torch.no_grad():
        model.conv.weight[0] = float("inf")
    with pytest.raises(UserError, match="not finite"):
        score(tiny_graph(), model, "l2")
