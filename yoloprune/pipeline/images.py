"""Images that are given as they are: arrays in memory, or paths. A run takes them from a list of image files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yoloprune.errors import UserError

__all__ = ["keep", "on_disk"]

_LIST = "images.txt"


@contextmanager
def on_disk(data: Any) -> Iterator[str | None]:
    """What a run takes as `data`, for the time of the block.

    Args:
        data: A path, which is passed on, or a list or tuple of images: paths, or uint8 arrays (H, W, 3) in BGR order,
            as `cv2.imread` and Ultralytics have them, or (H, W) of grey levels.

    Raises:
        UserError: An image is neither.
    """
    if not isinstance(data, (list, tuple)):
        yield data
        return
    if not data:
        raise UserError("data is an empty list; give some images.")
    with tempfile.TemporaryDirectory(prefix="yoloprune-images-") as folder:
        yield str(_write(data, Path(folder)))


def keep(images: str, folder: Path) -> str:
    """Copy what `on_disk` has written into a folder that stays, and return the list of images there."""
    shutil.copytree(Path(images).parent, folder, dirs_exist_ok=True)
    return str(folder / _LIST)


def _write(images: Sequence[Any], folder: Path) -> Path:
    """Write arrays as PNG files, and the list of all images."""
    lines = []
    for number, image in enumerate(images):
        if isinstance(image, (str, Path)):
            if not Path(image).is_file():
                raise UserError(f"There is no image '{image}', which is number {number} in data.")
            lines.append(str(Path(image).absolute()))
            continue
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or not _is_image(image.shape):
            kind = f" of {image.dtype} and shape {image.shape}" if isinstance(image, np.ndarray) else ""
            raise UserError(
                f"Number {number} in data is a {type(image).__name__}{kind}; give paths, or uint8 arrays of shape "
                "(H, W, 3) in BGR order."
            )
        cv2.imwrite(str(folder / f"{number:06d}.png"), image)
        lines.append(f"./{number:06d}.png")
    (folder / _LIST).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder / _LIST


def _is_image(shape: tuple[int, ...]) -> bool:
    return min(shape, default=0) > 0 and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)))
