"""Noise by resampling, without a network."""

from __future__ import annotations

import numpy as np
import pytest

from yoloprune.detectors.details import Details, calibration_error, found_again, resampled


def _detector(images: int, share_right: float) -> dict[str, np.ndarray]:
    """Two objects of two classes in each image, each with one box, of which a share is right."""
    rng = np.random.default_rng(1)
    number = 2 * images
    right = np.repeat((rng.random(number) < share_right)[:, None], 10, axis=1)
    of_image, classes = np.repeat(np.arange(images), 2), np.tile([0, 1], images)
    return {
        "right": right,
        "scores": rng.uniform(0.3, 1, number),
        "classes": classes,
        "images": of_image,
        "object_classes": classes,
        "object_images": of_image,
    }


def test_a_perfect_detector_has_no_noise() -> None:
    found = resampled(**_detector(40, 1.0), number=40, confidence=0.25)
    assert found["map"] == pytest.approx([1.0] * len(found["map"]))
    assert found["f1"] == pytest.approx([1.0] * len(found["f1"]))


def test_a_blind_detector_has_nothing_and_no_objects_no_figures() -> None:
    none = {name: np.zeros((0, 10) if name == "right" else 0, int) for name in ("right", "scores", "classes", "images")}
    objects = {"object_classes": np.array([0, 1]), "object_images": np.array([0, 1])}
    assert set(resampled(**none, **objects, number=2, confidence=0.25)["map"]) == {0.0}
    nothing = {name: np.zeros(0, int) for name in objects}
    assert resampled(**none, **nothing, number=2, confidence=0.25) == {}


def test_more_images_are_less_noise() -> None:
    few, many = (np.std(resampled(**_detector(n, 0.7), number=n, confidence=0.25)["f1"]) for n in (20, 500))
    assert 2.5 < few / many < 10  # the root of 25, roughly
    assert np.mean(resampled(**_detector(500, 0.7), number=500, confidence=0.25)["f1"]) == pytest.approx(0.7, abs=0.03)


def test_calibration_error_is_the_gap_between_confidence_and_what_is_right() -> None:
    scores = np.repeat([0.32, 0.93], [100, 300])
    right = np.arange(400) % 100 < np.where(scores < 0.5, 32, 93)
    assert calibration_error(scores, right) == pytest.approx(0.0, abs=1e-9)
    assert calibration_error(scores, np.ones(400, bool)) == pytest.approx((100 * 0.68 + 300 * 0.07) / 400)
    assert calibration_error(np.ones(3), np.zeros(3, bool)) == 1.0  # a confidence of 1 has a bin too


def test_networks_share_their_resamples() -> None:
    """What one network and a slightly worse one have in common is not noise of their gap."""
    good = _detector(60, 0.7)
    worse = {**good, "right": good["right"].copy()}
    worse["right"][np.flatnonzero(worse["right"][:, 0])[:3]] = False
    a, b = (np.array(resampled(**each, number=60, confidence=0.25)["f1"]) for each in (good, worse))
    assert np.std(a - b) < 0.5 * np.std(a)


def test_found_again_matches_boxes_of_the_same_class_once() -> None:
    one = Details(boxes={"a": [[0, 0, 0, 10, 10], [0, 1, 0, 11, 10], [1, 50, 50, 60, 60]], "b": [[0, 0, 0, 5, 5]]})
    assert found_again(one, one) == 1
    assert found_again(one, Details()) == 0
    assert found_again(Details(), one) is None
    assert found_again(Details(boxes={"a": []}), one) is None
    assert found_again(one, Details(boxes={"a": [[0, 0, 0, 10, 10]]})) == 0.25  # one box stands for one
    assert found_again(one, Details(boxes={"a": [[0, 50, 50, 60, 60]], "b": [[0, 0, 0, 5, 2]]})) == 0
    assert found_again(one, Details(boxes={"a": [[1, 51, 50, 61, 60]], "b": [[0, 0, 0, 5, 4], [0, 0, 0, 5, 5]]})) == 0.5
