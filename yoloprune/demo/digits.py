"""The embedded default: a small detection set of real handwritten digits, and a YOLOv8n trained on it.

The repository keeps the 1,797 digits of 8x8 px (UCI, CC BY 4.0, see datasets/README.md). `write` places them at many
scales, contrasts and polarities on shaded, noisy canvases; the same files come out each time, so that the set need not
be stored and a measured mAP can be measured again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from yoloprune.errors import UserError
from yoloprune.files import atomic
from yoloprune.resources import resource

__all__ = ["WEIGHTS", "write"]

_IMAGES = resource("datasets") / "digits.npz"

WEIGHTS = resource("weights") / "yolov8n-digits.pt"
"""The embedded checkpoint: YOLOv8n, 10 classes, trained on `write`'s training canvases (see weights/README.md)."""

_SEED = 1797
_SIZE = 160  # px, canvas height and width
_CANVASES = {"train": 512, "val": 128}
_VAL_SHARE = 0.2  # of the digits of each class
_PER_CANVAS = (2, 6)
_HEIGHTS = (20, 88)  # px, drawn log-uniformly
_GAP = 2  # px left free between boxes
_MIN_CONTRAST = 70  # grey levels between ink and paper
_INK_EDGE = 0.45  # share of full ink at which a stroke ends


class _Box(NamedTuple):
    """A digit on a canvas: class and extent of its ink in px; right and bottom are exclusive."""

    label: int
    left: int
    top: int
    right: int
    bottom: int

    def near(self, other: _Box) -> bool:
        """Whether fewer than `_GAP` px lie between the two."""
        return (
            self.left < other.right + _GAP
            and other.left < self.right + _GAP
            and self.top < other.bottom + _GAP
            and other.top < self.bottom + _GAP
        )


def write(root: str | Path) -> Path:
    """Write the digits detection set under `root`, the same bytes each time, in about three seconds and 29 MB.

    The layout is Ultralytics': images/{train,val}/*.png (160x160 px), labels/{train,val}/*.txt, and annotations in
    COCO's format for the validation part (annotations/instances_val.json; category ids are class + 1, image ids are
    the numbers in the file names, as Ultralytics' `save_json` writes them).

    Args:
        root: Folder to write to; made if absent. Files of an earlier call are replaced.

    Returns:
        The data YAML, root/digits.yaml. Its paths are relative to itself, so that the folder can be moved.

    Raises:
        UserError: The embedded digits are missing from this installation.

    Examples:
        >>> data = write("runs/digits")  # doctest: +SKIP
        >>> YOLO(WEIGHTS).val(data=data, imgsz=160)  # doctest: +SKIP
    """
    if not _IMAGES.is_file():
        raise UserError(f"the embedded digits are missing ({_IMAGES}): install yoloprune again, or pass --data")
    with np.load(_IMAGES) as stored:
        images, labels = stored["images"], stored["labels"]
    root = Path(root)
    for split, instances in zip(_CANVASES, _split(labels), strict=True):
        _write_split(root, split, images[instances], labels[instances])
    data = root / "digits.yaml"  # last: it stands for a complete set
    names = "".join(f"  {digit}: '{digit}'\n" for digit in range(10))
    _write_bytes(data, f"train: images/train\nval: images/val\nnames:\n{names}".encode())
    return data


def _split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and of the validation digits: disjoint, with every class in the same share."""
    rng = np.random.default_rng(_SEED)
    per_class = [rng.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
    cuts = [round(len(indices) * _VAL_SHARE) for indices in per_class]
    train = np.concatenate([indices[cut:] for indices, cut in zip(per_class, cuts, strict=True)])
    val = np.concatenate([indices[:cut] for indices, cut in zip(per_class, cuts, strict=True)])
    return train, val


def _write_split(root: Path, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Write the canvases, label files and (for val) COCO annotations of one split."""
    for kind in ("images", "labels"):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    annotations = []
    for number, (canvas, boxes) in enumerate(_canvases(split, images, labels), start=1):
        stem = f"{number:06d}"
        _write_bytes(root / "images" / split / f"{stem}.png", cv2.imencode(".png", canvas)[1].tobytes())
        lines = (
            f"{b.label} {(b.left + b.right) / 2 / _SIZE:.6f} {(b.top + b.bottom) / 2 / _SIZE:.6f} "
            f"{(b.right - b.left) / _SIZE:.6f} {(b.bottom - b.top) / _SIZE:.6f}\n"
            for b in boxes
        )
        _write_bytes(root / "labels" / split / f"{stem}.txt", "".join(lines).encode())
        annotations += [(number, box) for box in boxes]
    if split == "val":
        (root / "annotations").mkdir(exist_ok=True)
        _write_bytes(root / "annotations" / "instances_val.json", json.dumps(_coco(annotations)).encode())


def _coco(annotations: list[tuple[int, _Box]]) -> dict:
    """Pairs (image id, box) in COCO's annotation format."""
    return {
        "info": {"description": "UCI handwritten digits (CC BY 4.0) on generated canvases"},
        "images": [
            {"id": number, "file_name": f"{number:06d}.png", "width": _SIZE, "height": _SIZE}
            for number in range(1, _CANVASES["val"] + 1)
        ],
        "annotations": [
            {
                "id": index,
                "image_id": image,
                "category_id": box.label + 1,
                "bbox": [box.left, box.top, box.right - box.left, box.bottom - box.top],
                "area": (box.right - box.left) * (box.bottom - box.top),
                "iscrowd": 0,
            }
            for index, (image, box) in enumerate(annotations, start=1)
        ],
        "categories": [{"id": digit + 1, "name": str(digit)} for digit in range(10)],
    }


def _write_bytes(path: Path, content: bytes) -> None:
    with atomic(path) as tmp:
        tmp.write_bytes(content)


def _canvases(split: str, images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, list[_Box]]]:
    """Compose the canvases of one split, each uint8 (_SIZE, _SIZE, 3) in BGR, with the boxes of its digits.

    The digits are dealt out in shuffled rounds, so that all are used about equally often.
    """
    rng = np.random.default_rng([_SEED, list(_CANVASES).index(split)])
    deck: list[int] = []
    for _ in range(_CANVASES[split]):
        canvas = _background(rng)
        boxes: list[_Box] = []
        for _ in range(rng.integers(*_PER_CANVAS, endpoint=True)):
            if not deck:
                deck = rng.permutation(len(labels)).tolist()
            ink = _enlarge(images[deck[-1]], rng)
            box = _place(ink.shape, int(labels[deck[-1]]), boxes, rng)
            if box is not None:  # a digit that finds no room waits for the next canvas
                deck.pop()
                boxes.append(box)
                _paint(canvas, ink, box, rng)
        canvas += rng.normal(0, rng.uniform(0, 5), (_SIZE, _SIZE, 1)).astype(np.float32)
        yield np.clip(np.rint(canvas), 0, 255).astype(np.uint8), boxes


def _background(rng: np.random.Generator) -> np.ndarray:
    """Paper: a tinted grey with slow shading and a few faint strokes, float32 (_SIZE, _SIZE, 3)."""
    shading = cv2.resize(rng.normal(0, 12, (4, 4)).astype(np.float32), (_SIZE, _SIZE), interpolation=cv2.INTER_CUBIC)
    canvas = rng.uniform(30, 225) + rng.normal(0, 10, 3) + shading[..., None]
    canvas = np.ascontiguousarray(canvas, dtype=np.float32)
    for _ in range(rng.integers(0, 4)):
        start, end = rng.integers(0, _SIZE, (2, 2)).tolist()
        colour = (canvas[start[1], start[0]] + rng.normal(0, 18)).tolist()
        cv2.line(canvas, start, end, colour, int(rng.integers(1, 5)))
    return canvas


def _enlarge(digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A digit of 8x8 at a random size and width, cropped to its ink: opacity in [0, 1], float32 (height, width).

    Interpolation alone would leave strokes as blurred as the 8x8 pixels; the contrast about the stroke's edge is raised
    with the scale, so that an edge is about two px wide at every size and the box is well defined.
    """
    height = np.exp(rng.uniform(*np.log(_HEIGHTS)))
    scale = height / (np.ptp(np.flatnonzero(digit.max(1) > 16 * _INK_EDGE)) + 1)
    size = np.rint([8 * scale * rng.uniform(0.85, 1.25), 8 * scale]).astype(int)
    ink = cv2.resize(digit.astype(np.float32) / 16, size.tolist(), interpolation=cv2.INTER_CUBIC)
    ink = np.clip((ink - _INK_EDGE) * scale / 2 + 0.5, 0, 1)
    rows, columns = np.flatnonzero(ink.max(1) > 0.5), np.flatnonzero(ink.max(0) > 0.5)
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _place(shape: tuple[int, int], label: int, taken: list[_Box], rng: np.random.Generator) -> _Box | None:
    """A free place for ink of this shape (height, width), or None if twenty tries find none."""
    height, width = shape
    if max(shape) > _SIZE:
        return None
    for _ in range(20):
        left, top = int(rng.integers(0, _SIZE - width + 1)), int(rng.integers(0, _SIZE - height + 1))
        box = _Box(label, left, top, left + width, top + height)
        if not any(box.near(other) for other in taken):
            return box
    return None


def _paint(canvas: np.ndarray, ink: np.ndarray, box: _Box, rng: np.random.Generator) -> None:
    """Blend the ink into the canvas in place, darker or lighter than the paper under it by a clear margin."""
    paper = canvas[box.top : box.bottom, box.left : box.right]
    level = paper.mean()
    room = np.array([level, 255 - level]) - _MIN_CONTRAST  # to black, to white
    darker = rng.random() * room.clip(0).sum() < room[0]
    contrast = _MIN_CONTRAST + rng.random() * room[0 if darker else 1]
    colour = level + (-contrast if darker else contrast) + rng.normal(0, 10, 3)
    paper += ink[..., None] * (colour.astype(np.float32) - paper)
