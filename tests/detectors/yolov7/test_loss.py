"""The loss: the official implementation's figures, and what must hold on cases made by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from yoloprune.detectors.yolov7 import build
from yoloprune.detectors.yolov7.loss import Gains, detection_loss, published_gains

from .references import reference, rule

ANCHORS = torch.tensor(
    [[[12, 16], [19, 36], [40, 28]], [[36, 75], [76, 55], [72, 146]], [[142, 110], [192, 243], [459, 401]]]
).float()
STRIDES = [8, 16, 32]
ONE = Gains(1.0, 1.0, 1.0)
TARGETS = torch.tensor(
    [[0, 2, 0.3, 0.4, 0.3, 0.3], [1, 0, 0.6, 0.55, 0.12, 0.2], [1, 4, 0.2, 0.8, 0.5, 0.35], [1, 4, 0.21, 0.8, 0.5, 0.3]]
)


def raw(classes: int = 5, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, size, size, 5 + classes, generator=generator) for size in (16, 8, 4)]


def loss(values: list[Tensor], targets: Tensor = TARGETS, **more: object) -> Tensor:
    return detection_loss(values, targets, anchors=ANCHORS, strides=STRIDES, gains=more.pop("gains", ONE), **more)


@pytest.mark.parametrize("name", ["yolov7-tiny", "yolov7"])
def test_items_and_total_are_the_official_ones(name: str) -> None:
    expected, made = reference(name, "training"), rule()
    network = build(name).double()
    network.load_state_dict(made.fill(network.state_dict()))
    network.float().train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        values = network(made.image(expected["size"]).float())
    given, hyp = expected["loss"], expected["loss"]["hyp"]
    terms = detection_loss(
        values,
        torch.tensor(given["targets"]),
        anchors=network.head.anchors * network.head.stride.view(-1, 1, 1),
        strides=network.head.stride.tolist(),
        gains=Gains(hyp["box"], hyp["obj"], hyp["cls"]),
    )
    items = [*terms.tolist(), terms.sum().item()]
    assert items == pytest.approx(given["items"], rel=1e-5)
    assert 2 * terms.sum().item() == pytest.approx(given["total"], rel=1e-5)
    assert published_gains(network) == Gains(hyp["box"], hyp["obj"], hyp["cls"])


@pytest.mark.parametrize("transported", [True, False])
def test_descending_finds_the_objects(transported: bool) -> None:
    values = [v.requires_grad_() for v in raw()]
    optimizer = torch.optim.Adam(values, lr=0.1)
    first = loss(values, transported=transported).detach()
    for _ in range(150):
        optimizer.zero_grad()
        terms = loss(values, transported=transported)
        terms.sum().backward()
        optimizer.step()
    assert (terms < 0.2 * first).all()
    score = torch.cat([v.detach().flatten(1, 3) for v in values], 1)
    scores = score[..., 4:5].sigmoid() * score[..., 5:].sigmoid()
    best = [{kind for kind in range(5) if scores[image, :, kind].max() > 0.7} for image in (0, 1)]
    assert best == [{2}, {0, 4}]


def test_gains_scale_their_terms() -> None:
    torch.testing.assert_close(loss(raw(), gains=Gains(0.05, 0.7, 0.3)), loss(raw()) * torch.tensor([0.05, 0.7, 0.3]))


@pytest.mark.parametrize("transported", [True, False])
def test_images_without_objects_have_objectness_to_learn(transported: bool) -> None:
    values = [v.requires_grad_() for v in raw()]
    terms = loss(values, torch.zeros(0, 6), transported=transported)
    assert terms[[0, 2]].tolist() == [0, 0]
    terms.sum().backward()
    assert all(v.grad[..., 4].gt(0).all() for v in values), "all must say less"


def test_one_class_is_not_learnt() -> None:
    targets = TARGETS.clone()
    targets[:, 1] = 0
    assert loss(raw(classes=1), targets)[2] == 0


def test_what_objectness_shall_be_has_no_gradient() -> None:
    values = [v.requires_grad_() for v in raw()]
    loss(values)[1].backward()
    assert all(v.grad[..., [0, 1, 2, 3, 5]].abs().max() == 0 for v in values)


def test_scales_count_by_their_balance() -> None:
    values = [torch.zeros(2, 3, size, size, 6) for size in (16, 8, 4)]
    nothing = torch.zeros(0, 6)
    one = torch.tensor(2.0).log()
    torch.testing.assert_close(loss(values, nothing)[1], one * (4 + 1 + 0.4))
    four = detection_loss(
        [torch.zeros(2, 3, size, size, 6) for size in (16, 8, 4, 2)],
        nothing,
        anchors=torch.ones(4, 3, 2),
        strides=[8, 16, 32, 64],
        gains=ONE,
    )
    torch.testing.assert_close(four[1], one * (4 + 1 + 0.25 + 0.06))


def test_auxiliary_heads_count_a_quarter() -> None:
    nothing = torch.zeros(0, 6)
    lead, auxiliary = raw(), raw(seed=1)
    expected = loss(lead, nothing) + loss(auxiliary, nothing) / 4
    torch.testing.assert_close(loss([*lead, *auxiliary], nothing), expected)


def test_auxiliary_heads_are_matched_by_what_the_lead_predicts_in_all_neighbours() -> None:
    auxiliary = [v.requires_grad_() for v in raw(seed=1)]
    moved = {seed: raw(seed=seed) for seed in (0, 2)}
    taken = {}
    for seed, lead in moved.items():
        for v in auxiliary:
            v.grad = None
        loss([*lead, *auxiliary])[0].backward()
        taken[seed] = [v.grad[..., 0].ne(0) for v in auxiliary]
    assert any((a != b).any() for a, b in zip(taken[0], taken[2], strict=True))
    lead = [v.detach().clone().requires_grad_() for v in raw()]
    loss(lead)[0].backward()
    alone = sum(int(v.grad[..., 0].ne(0).sum()) for v in lead)
    assert sum(int(t.sum()) for t in taken[0]) > alone, "a wider neighbourhood has more to choose from"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    values = [v.to(dtype) for v in raw()]
    with torch.autocast("cpu", torch.bfloat16):
        terms = loss(values)
    assert terms.dtype == torch.float32
    torch.testing.assert_close(terms, loss([v.float() for v in values]))


def test_extreme_predictions_give_finite_losses() -> None:
    values = [(v * 1e4).requires_grad_() for v in raw()]
    terms = loss(values)
    terms.sum().backward()
    assert terms.isfinite().all()
    assert all(v.grad.isfinite().all() for v in values)


def test_images_need_not_be_square() -> None:
    wide = [v[:, :, : len(v[0, 0]) // 2] for v in raw()]
    assert loss(wide).isfinite().all()
