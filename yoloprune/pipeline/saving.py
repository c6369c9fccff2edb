"""Saving with a look at what was saved: the file is read again and must predict what the network in memory does."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from yoloprune.detectors.base import Detector
from yoloprune.errors import UserError

__all__ = ["Saved", "save_checked"]

_ALIKE = 0.05
"""Share of the root mean square of boxes, and of scores, that a saved network may be off: rounding the weights of a
pruned YOLOv8n to float16 takes .001 and .007."""


class Saved(NamedTuple):
    """What a file holds.

    Attributes:
        detector: The detector as it was read again.
        note: A sentence, if the file is in float32 since float16 would change the predictions.
    """

    detector: Detector
    note: str | None


def save_checked(
    detector: Detector, path: Path, *, images: Tensor | None = None, imgsz: int = 640, trust: bool = False
) -> Saved:
    """Write a checkpoint, read it again, and run both networks on real images.

    Args:
        detector: What to save; it is not changed.
        path: The file to write.
        images: Images to compare on, (images, channels, height, width) on the CPU; by default a photograph.
        imgsz: Height and width of that photograph in px.
        trust: Whether the file may hold what only `--trust` loads, since what it was pruned from does.

    Raises:
        UserError: The network puts out values that are not finite, or the file's does not agree with it; the file is
            kept. Or it holds classes that are not saved.
        OSError: The file cannot be written.
    """
    if images is None:
        images = detector.photograph(imgsz)
    expected = detector.outputs(images)
    why = detector.save(path)
    if not all(output.isfinite().all() for output in expected):
        raise UserError(
            f"The network in '{path}' puts out NaN or infinite values on real images; prune less, or fine-tune at a "
            "lower --lr0."
        )

    def read() -> tuple[Detector, float]:
        loaded = type(detector).load(path, trust=trust)
        return loaded, detector.typical_difference(expected, loaded.outputs(images))

    loaded, difference = read()
    if why is None and not difference <= _ALIKE:  # NaN is not
        why = f"rounded to float16 its predictions differ by {difference:.1%}"
        detector.save(path, float32=True)
        loaded, difference = read()
    if not difference <= _ALIKE:
        raise UserError(
            f"The network in '{path}' does not predict what it did before it was saved (it differs by "
            f"{difference:.1%}); do not use it, and report which model it was pruned from."
        )
    return Saved(loaded, why and f"The network is saved in float32, and is not to run in half precision: {why}.")
