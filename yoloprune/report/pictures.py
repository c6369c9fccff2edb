"""The same images as several networks see them: which to show, and the boxes on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from yoloprune.detectors.details import Look, match

from .figure import COLORS, network_color

__all__ = ["CANDIDATES", "Shown", "show"]

CANDIDATES = 24
"""Images that are looked at to choose from."""

_CHANGED, _TYPICAL = 4, 2
_SIDE = 720  # px, the longer one of a picture


class Shown(NamedTuple):
    """One image.

    Attributes:
        name: Its file name.
        kind: "changed most" or "typical".
        jpegs: It with what each network finds, as JPEG files.
        captions: A few words on what each network finds.
    """

    name: str
    kind: str
    jpegs: list[bytes]
    captions: list[str]


class _Matched(NamedTuple):
    """Which boxes of the reference a network has lost and which of its own are new, as masks."""

    lost: np.ndarray
    new: np.ndarray

    @property
    def change(self) -> int:
        return int(self.lost.sum() + self.new.sum())


def show(looks: Sequence[Sequence[Look]], names: Mapping[int, str]) -> list[Shown]:
    """Choose the images on which most has changed, and some typical ones, and draw them.

    Args:
        looks: What each network, the reference first, finds in the same images.
        names: Class index -> name.
    """
    if len({len(each) for each in looks}) != 1 or not looks[0]:
        return []
    images = [list(each) for each in zip(*looks, strict=True)]
    matched = [[_match(image[0], other) for other in image] for image in images]
    changes = np.array([sum(each.change for each in image) for image in matched])
    order = np.argsort(-changes, kind="stable")
    most = [i for i in order if changes[i] > 0][:_CHANGED]
    seen = [i for i in order if i not in most and any(len(look.scores) for look in images[i])]
    middle = float(np.median(changes))
    usual = sorted(seen, key=lambda i: (abs(changes[i] - middle), -len(images[i][0].scores)))[:_TYPICAL]
    return [_shown(images[i], matched[i], kind, names) for kind, some in _kinds(most, usual) for i in some]


def _kinds(most: list[int], usual: list[int]) -> list[tuple[str, list[int]]]:
    return [("changed most", most), ("typical", usual)]


def _match(reference: Look, other: Look) -> _Matched:
    """Match boxes of the same class, the surest first; without boxes (classification) the best classes."""
    if not len(reference.boxes) and not len(other.boxes) and len(reference.scores) and len(other.scores):
        differs = np.array([reference.classes[0] != other.classes[0]])
        return _Matched(differs, differs)
    surest = np.argsort(-reference.scores, kind="stable")
    lost, new = match(reference.boxes[surest], reference.classes[surest], other.boxes, other.classes)
    lost[surest] = lost.copy()
    return _Matched(lost, new)


def _shown(image: list[Look], matched: list[_Matched], kind: str, names: Mapping[int, str]) -> Shown:
    jpegs, captions = [], []
    lost_anywhere = np.any([each.lost for each in matched[1:]], axis=0) if len(matched) > 1 else matched[0].lost
    for number, (look, found) in enumerate(zip(image, matched, strict=True)):
        picture = _Picture(look)
        if not len(look.boxes) and len(look.scores):
            captions.append(f"{names.get(int(look.classes[0]), look.classes[0])} {look.scores[0]:.2f}")
        else:
            own = network_color(1)
            if number == 0:
                colors = [COLORS["bad"] if gone else own for gone in lost_anywhere]
                captions.append(f"{len(look.boxes)} found")
            else:
                colors = [COLORS["n2"] if new else own for new in found.new]
                picture.boxes(image[0], [COLORS["bad"]] * len(image[0].boxes), names, only=found.lost, dashed=True)
                told = [f"{len(look.boxes)} found"]
                told += [f"{found.lost.sum()} lost"] * bool(found.lost.any())
                told += [f"{found.new.sum()} new"] * bool(found.new.any())
                captions.append(", ".join(told))
            picture.boxes(look, colors, names)
        jpegs.append(picture.jpeg())
    return Shown(image[0].file.name, kind, jpegs, captions)


class _Picture:
    """An image at the size of the page, to draw on."""

    def __init__(self, look: Look) -> None:
        image = look.image if look.drawn is None else look.drawn
        self.scale = _SIDE / max(image.shape[:2])
        kind = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_CUBIC
        self.image = cv2.resize(image, None, fx=self.scale, fy=self.scale, interpolation=kind)

    def boxes(
        self,
        look: Look,
        colors: Sequence[str],
        names: Mapping[int, str],
        *,
        only: np.ndarray | None = None,
        dashed: bool = False,
    ) -> None:
        """Draw boxes with class and confidence, the surest on top."""
        for i in np.argsort(look.scores):
            if only is not None and not only[i]:
                continue
            color = tuple(int(colors[i][k : k + 2], 16) for k in (1, 3, 5))
            corners = _corners(look.boxes[i]) if look.corners is None else look.corners[i]
            corners = np.round(corners * self.scale).astype(int)
            for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
                self._line(start, end, color, dashed)
            x, y = corners[corners.sum(1).argmin()]
            text = f"{names.get(int(look.classes[i]), look.classes[i])} {look.scores[i]:.2f}"
            usual = colors[i] == network_color(1)
            self._label(text, x, y, color, most=int(np.ptp(corners[:, 0])) if usual else None)

    def jpeg(self) -> bytes:
        """The picture as a JPEG file."""
        return cv2.imencode(".jpg", self.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()

    def _label(self, text: str, x: int, y: int, color: tuple[int, ...], most: int | None) -> None:
        """Write on a strip, unless that is wider than `most`."""
        text = text.encode("ascii", "replace").decode()  # what OpenCV's font has
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.55, 1)
        if most is not None and width > most:
            return
        x = max(min(x, self.image.shape[1] - width - 6), 0)
        y = max(y, height + 8)
        cv2.rectangle(self.image, (x, y - height - 8), (x + width + 6, y), color, -1)
        cv2.putText(self.image, text, (x + 3, y - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255,) * 3, 1, cv2.LINE_AA)

    def _line(self, start: np.ndarray, end: np.ndarray, color: tuple[int, ...], dashed: bool) -> None:
        pieces = max(int(np.abs(end - start).max()) // 16, 1) if dashed else 1
        for piece in range(pieces):
            ends = (piece / pieces, (piece + (0.55 if dashed else 1)) / pieces)
            one, two = (tuple(np.round(start + (end - start) * t).astype(int).tolist()) for t in ends)
            cv2.line(self.image, one, two, color, 3, cv2.LINE_AA)


def _corners(box: np.ndarray) -> np.ndarray:
    """(4, 2) of (left, top, right, bottom)."""
    x0, y0, x1, y1 = box
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
