"""Saving with a look at what was saved: the file is read again and must predict what the network in memory does."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import ultralytics
from torch import Tensor, nn

from yoloprune.errors import UserError
from yoloprune.yolo import checkpoints, outputs

__all__ = ["Saved", "save_checked"]

_ALIKE = 0.05
"""Share of the root mean square of boxes, and of scores, that a saved network may be off: rounding the weights of a
pruned YOLOv8n to float16 takes .001 and .007."""


class Saved(NamedTuple):
    """What a file holds.

    Attributes:
        network: The network as it was read again, float32, in evaluation mode.
        note: A sentence, if the file is in float32 since float16 would change the predictions.
    """

    network: nn.Module
    note: str | None


def save_checked(
    yolo: ultralytics.YOLO, path: Path, *, images: Tensor | None = None, imgsz: int = 640, trust: bool = False
) -> Saved:
    """Write a checkpoint as `checkpoints.save` does, read it again, and run both networks on real images.

    Args:
        yolo: The model; it is not changed.
        path: The file to write, `.pt`.
        images: Images to compare on, (images, channels, height, width) on the CPU; by default a photograph.
        imgsz: Height and width of that photograph in px.
        trust: Whether the file may hold what only `--trust` loads, since what it was pruned from does.

    Raises:
        UserError: The network puts out values that are not finite, or the file's does not agree with it; the file is
            kept. Or it holds classes that are not saved.
        OSError: The file cannot be written.
    """
    if images is None:
        images = outputs.photograph(imgsz, imgsz, yolo.model.yaml.get("channels", 3))
    network = outputs.deployed(yolo.model)
    expected = outputs.run(network, images)
    why = checkpoints.save(yolo, path)
    if not all(output.isfinite().all() for output in expected):
        raise UserError(
            f"The network in '{path}' puts out NaN or infinite values on real images; prune less, or fine-tune at a "
            "lower --lr0."
        )

    def read() -> tuple[nn.Module, float]:
        loaded = checkpoints.load(path, trust=trust).model
        return loaded, outputs.typical(network, expected, outputs.run(outputs.deployed(loaded), images))

    loaded, difference = read()
    if why is None and not difference <= _ALIKE:  # NaN is not
        why = f"rounded to float16 its predictions differ by {difference:.1%}"
        checkpoints.save(yolo, path, float32=True)
        loaded, difference = read()
    if not difference <= _ALIKE:
        raise UserError(
            f"The network in '{path}' does not predict what it did before it was saved (it differs by "
            f"{difference:.1%}); do not use it, and report which model it was pruned from."
        )
    return Saved(loaded, why and f"The network is saved in float32, and is not to run in half precision: {why}.")
