"""Which images a page shows, and what it says of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from yoloprune.detectors.details import Look
from yoloprune.report.pictures import show


def _look(number: int, boxes: list[list[float]], classes: list[int] | None = None, **more: np.ndarray) -> Look:
    image = np.full((40, 60, 3), 128, np.uint8)
    found = np.array(boxes, float).reshape(-1, 4)
    return Look(
        Path(f"{number}.jpg"), image, found, np.full(len(found), 0.8), np.array(classes or [0] * len(found)), **more
    )


BOX = [5.0, 5.0, 25.0, 25.0]


def test_lost_and_new_boxes_are_counted() -> None:
    before = [_look(0, [BOX, [30, 5, 55, 30]])]
    after = [_look(0, [[6, 5, 26, 25], BOX, [30, 5, 55, 30]], [0, 0, 1])]  # one box twice, one of another class
    (shown,) = show([before, after], {0: "cat", 1: "dog"})
    assert shown.captions == ["2 found", "3 found, 1 lost, 2 new"]
    assert shown.kind == "changed most"


def test_the_most_changed_come_first_and_typical_ones_last() -> None:
    before = [_look(i, [BOX] * 1 if i < 3 else []) for i in range(8)]
    after = [_look(i, [] if i == 2 else [BOX] if i < 3 else [BOX, [30, 5, 55, 30]] if i == 7 else []) for i in range(8)]
    shown = show([before, after], {0: "cat"})
    assert [one.name for one in shown[:2]] == ["7.jpg", "2.jpg"]
    assert {one.name for one in shown if one.kind == "typical"} == {"0.jpg", "1.jpg"}


def test_pictures_have_the_colours_of_what_happened() -> None:
    (shown,) = show([[_look(0, [BOX])], [_look(0, [[30, 10, 50, 30]])]], {0: "cat"})
    before, after = (cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for jpeg in shown.jpegs)
    assert before.shape == (480, 720, 3)
    red, orange = np.array([192, 57, 43]), np.array([217, 130, 43])
    assert np.abs(before[180, 60].astype(int) - red).max() < 60  # the left side of a lost box
    assert np.abs(after[240, 360].astype(int) - orange).max() < 60  # that of a new one


def test_three_networks_and_turned_boxes() -> None:
    corners = np.array([[[15.0, 3], [27, 15], [15, 27], [3, 15]]])
    looks = [[_look(0, [BOX], corners=corners)], [_look(0, [])], [_look(0, [BOX], corners=corners)]]
    (shown,) = show(looks, {0: "ship"})
    assert shown.captions == ["1 found", "0 found, 1 lost", "1 found"]


def test_classes_without_boxes() -> None:
    before = [_look(i, [])._replace(scores=np.array([0.9]), classes=np.array([0])) for i in range(2)]
    after = [before[0], before[1]._replace(classes=np.array([1]))]
    shown = show([before, after], {0: "cat", 1: "dog"})
    assert shown[0].captions == ["cat 0.90", "dog 0.90"] and shown[1].captions == ["cat 0.90", "cat 0.90"]


def test_a_family_that_shows_nothing() -> None:
    assert show([[], []], {}) == []
