"""Whether a smaller image would have been better, on made-up figures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from yoloprune.detectors.details import Details
from yoloprune.pipeline.smaller_image import compare_image_sizes
from yoloprune.report import Measure, Record


def _run(of_size: dict[int, float], spread: float | None) -> Any:
    """A run at 640 px whose unpruned network has .500, and what it has on smaller images."""
    notes: list[str] = []
    record = Record("a.pt", "v8", "detect", 640, Measure(8.0, 1, metrics={"mAP50-95": 0.5}))
    details = {} if spread is None else {what: _details(spread, sign) for what, sign in (("before", 1), ("after", -1))}

    def validate(detector: Any, title: str, *, imgsz: int, what: str) -> dict[str, float]:
        if spread is not None:
            details[what] = _details(spread, 1)
        return {"mAP50-95": of_size[imgsz]}

    options, original = SimpleNamespace(imgsz=640), SimpleNamespace(stride=32)
    return SimpleNamespace(
        options=options, original=original, record=record, details=details, validate=validate, note=notes.append,
        notes=notes,
    )  # fmt: skip


def _details(spread: float, sign: int) -> Details:
    return Details(samples={"map": [0.4 + sign * spread, 0.4 - sign * spread] * 10})


@pytest.mark.parametrize(
    ("value", "spread", "better"),
    [
        (0.46, None, "pruned"),
        (0.445, None, "equal"),  # .442 on a smaller image, and .01 is nothing
        (0.40, None, "smaller image"),
        (0.46, 0.0001, "pruned"),
        (0.46, 0.02, "equal"),  # resamples move the two apart by .04, one standard deviation
        (0.40, 0.02, "equal"),
        (0.30, 0.02, "smaller image"),
    ],
)
def test_a_gap_counts_if_it_is_larger_than_the_noise(value: float, spread: float | None, better: str) -> None:
    run = _run({512: 0.43, 544: 0.45}, spread)
    compare_image_sizes(run, (530 / 640) ** 2, {"mAP50-95": value})
    verdict = run.record.verdict
    assert verdict.better == better
    assert verdict.value == value and 0.40 < verdict.level < 0.46
    assert verdict.noise == pytest.approx(0.01 if spread is None else 1.64 * 2 * spread, rel=0.01)
    assert verdict.imgsz in (512, 544)
    said = {"pruned": "pruning is the", "equal": "equal within", "smaller image": "a smaller image is the"}
    assert said[better] in run.notes[0]
    assert ("yoloprune frontier" in run.notes[0]) == (better != "pruned")
