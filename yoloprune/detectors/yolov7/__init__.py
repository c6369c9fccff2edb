"""YOLOv7 and the original, anchor-based YOLOv5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from yoloprune.errors import UserError, did_you_mean
from yoloprune.resources import resource
from yoloprune.yaml_files import read_yaml

if TYPE_CHECKING:
    from .network import Network

__all__ = ["FORMS", "NAMES", "architecture", "build"]

_YOLOV5 = ("yolov5n", "yolov5s", "yolov5m", "yolov5l", "yolov5x")
NAMES = (
    "yolov7-tiny",
    "yolov7-tiny-silu",
    "yolov7",
    "yolov7x",
    "yolov7-w6",
    "yolov7-e6",
    "yolov7-d6",
    "yolov7-e6e",
    *_YOLOV5,
)
FORMS = ("training", "deploy")


def architecture(name: str, form: str = "training", nc: int = 80) -> dict[str, Any]:
    """The description of a network: `nc`, `anchors`, multiples, and rows of `backbone` and `head`.

    Args:
        name: One of `NAMES`.
        form: "training", with implicit knowledge and auxiliary heads, or "deploy"; YOLOv5 has one form.
        nc: Classes.

    Raises:
        UserError: There is no such network or form.
    """
    for value, known, what in ((name, NAMES, "network of YOLOv7 or YOLOv5"), (form, FORMS, "form")):
        if value not in known:
            raise UserError(f"{value!r} is no {what}{did_you_mean(value, known)}; there are {', '.join(known)}.")
    cfg = read_yaml(resource("cfg", "models", f"{'yolov5' if name in _YOLOV5 else name}.yaml"))
    ends = {key: cfg.pop(key) for key in FORMS}
    if name in _YOLOV5:
        cfg["depth_multiple"], cfg["width_multiple"] = cfg.pop("scales")[name]
    return {**cfg, "head": cfg["head"] + ends[form], "nc": nc}


def build(name: str, form: str = "training", nc: int = 80) -> Network:
    """A network with fresh weights, in training mode.

    Args:
        name: One of `NAMES`.
        form: "training" or "deploy", as in `architecture`.
        nc: Classes.

    Raises:
        UserError: There is no such network or form.

    Examples:
        >>> build("yolov7-tiny", form="deploy", nc=2).head.nc
        2
    """
    from .network import Network

    return Network.from_yaml(architecture(name, form, nc))
