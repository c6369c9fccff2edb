"""Candidates by shape and place, and the choice among them by optimal transport, on cases made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from yoloprune.detectors.yolov7.assignment import candidates, decode, transport

GRID = [(8, 8)]  # one scale, 8 px a cell: an image of 64 px
ANCHORS = [torch.tensor([[2.0, 2.0], [40.0, 40.0]])]  # in cells


def target(image: int, kind: int, x: float, y: float, w: float, h: float) -> list[float]:
    """A target whose box is given in cells."""
    return [image, kind, x / 8, y / 8, w / 8, h / 8]


def cells(found: object) -> set[tuple[int, int]]:
    return set(zip(found.column.tolist(), found.row.tolist(), strict=True))


@pytest.mark.parametrize(
    ("x", "y", "reach", "wanted"),
    [
        (3.3, 4.2, 0.5, {(3, 4), (2, 4), (3, 3)}),
        (3.7, 4.2, 0.5, {(3, 4), (4, 4), (3, 3)}),
        (3.3, 4.2, 1.0, {(3, 4), (2, 4), (4, 4), (3, 3), (3, 5)}),
        (0.3, 7.9, 0.5, {(0, 7)}),
        (0.3, 7.9, 1.0, {(0, 7), (1, 7), (0, 6)}),
    ],
)
def test_candidates_lie_in_the_cell_and_in_near_neighbours(
    x: float, y: float, reach: float, wanted: set[tuple[int, int]]
) -> None:
    found = candidates(torch.tensor([target(1, 5, x, y, 2, 2)]), GRID, ANCHORS, reach)
    assert cells(found) == wanted
    assert len(found.target) == len(wanted)
    assert found.image.unique().tolist() == [1]
    assert found.anchor.unique().tolist() == [0], "the other anchor is twenty times as large"


@pytest.mark.parametrize(("w", "h", "fits"), [(7.9, 2, True), (8.1, 2, False), (0.51, 2, True), (2, 0.49, False)])
def test_candidates_are_of_anchors_less_than_four_times_as_large_or_small(w: float, h: float, fits: bool) -> None:
    found = candidates(torch.tensor([target(0, 0, 4.5, 4.5, w, h)]), GRID, [torch.tensor([[2.0, 2.0]])])
    assert bool(len(found.target)) == fits


def test_no_objects_have_no_candidates_and_no_matches() -> None:
    raw = [torch.zeros(2, 2, 8, 8, 7)]
    found = candidates(torch.zeros(0, 6), GRID, ANCHORS)
    assert all(len(field) == 0 for field in found)
    assert len(transport(raw, torch.zeros(0, 6), found, ANCHORS, [8]).target) == 0


def logit(share: float) -> float:
    return math.log(share / (1 - share))


def predict(raw: Tensor, place: tuple[int, int, int, int], box: tuple[float, float, float, float], kind: int) -> None:
    """Have a prediction say a box (in cells) and a class, surely."""
    _, anchor, row, column = place
    x, y, w, h = box
    sizes = ANCHORS[0][anchor].tolist()
    values = [logit((x - column + 0.5) / 2), logit((y - row + 0.5) / 2)]
    values += [logit(math.sqrt(side / size) / 2) for side, size in zip((w, h), sizes, strict=True)]
    raw[place][:4] = torch.tensor(values)
    raw[place][4] = 4.0
    raw[place][5:] = -4.0
    raw[place][5 + kind] = 4.0


def test_decoding_gives_the_box_from_the_cells_corner() -> None:
    raw = torch.zeros(1, 2, 8, 8, 7)
    predict(raw, (0, 0, 4, 3), (3.2, 4.7, 1.5, 3.0), 1)
    torch.testing.assert_close(decode(raw[0, 0, 4, 3][None], ANCHORS[0][:1]), torch.tensor([[0.2, 0.7, 1.5, 3.0]]))


def test_an_object_takes_the_candidates_that_cost_least() -> None:
    targets = torch.tensor([target(0, 1, 3.3, 4.2, 2, 2)])
    raw = torch.full((1, 2, 8, 8, 7), -3.0)
    raw[..., :4] = -9.0  # tiny boxes: no IoU to speak of
    predict(raw, (0, 0, 3, 3), (3.3, 4.2, 2, 2), 1)
    found = candidates(targets, GRID, ANCHORS)
    matches = transport([raw], targets, found, ANCHORS, [8])
    assert [field.tolist() for field in matches] == [[0], [0], [0], [3], [3], [0]], "the sum of IoUs is 1"
    predict(raw, (0, 0, 4, 3), (3.3, 4.2, 2, 2), 0)
    matches = transport([raw], targets, found, ANCHORS, [8])
    assert cells(matches) == {(3, 3), (3, 4)}, "the sum of IoUs is 2, even if one is of another class"
    predict(raw, (0, 0, 4, 2), (3.3, 4.2, 2, 1), 1)
    matches = transport([raw], targets, found, ANCHORS, [8])
    assert cells(matches) == {(3, 3), (2, 4)}, "half an IoU more is no third match, and the right class costs less"


def test_a_candidate_goes_to_the_object_that_it_costs_least() -> None:
    targets = torch.tensor([target(0, 0, 3.3, 4.2, 2, 2), target(0, 1, 3.3, 4.2, 2, 2)])
    raw = torch.full((1, 2, 8, 8, 7), -3.0)
    raw[..., :4] = -9.0
    for row, column in ((4, 3), (3, 3)):
        predict(raw, (0, 0, row, column), (3.3, 4.2, 2, 2), 1)
    predict(raw, (0, 0, 4, 2), (3.3, 4.2, 2, 1.9), 0)
    matches = transport([raw], targets, candidates(targets, GRID, ANCHORS), ANCHORS, [8])
    owners = {}
    for row, column, owner in zip(matches.row.tolist(), matches.column.tolist(), matches.target.tolist(), strict=True):
        owners.setdefault((column, row), set()).add(owner)
    assert owners[2, 4] == {0}
    assert owners[3, 4] == owners[3, 3] == {1}


def test_images_are_matched_apart() -> None:
    targets = torch.tensor([target(1, 0, 3.3, 4.2, 2, 2), target(0, 1, 5.5, 5.5, 3, 1)])
    raw = torch.randn(2, 2, 8, 8, 7, generator=torch.Generator().manual_seed(0))
    found = candidates(targets, GRID, ANCHORS)
    both = transport([raw], targets, found, ANCHORS, [8])
    assert set(zip(both.image.tolist(), both.target.tolist(), strict=True)) == {(1, 0), (0, 1)}
    for index in (0, 1):
        alone = transport([raw], targets[[index]], candidates(targets[[index]], GRID, ANCHORS), ANCHORS, [8])
        assert cells(alone) == cells(both.select(both.target == index))
