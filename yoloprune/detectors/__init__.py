"""The detectors that can be pruned: their interface in `base`, one folder for each family of implementations.

Imports neither torch nor a family until one is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yoloprune.errors import UserError
from yoloprune.paths import check_path

if TYPE_CHECKING:
    from .base import Detector
    from .ultralytics.exported import Exported

__all__ = ["FAMILIES", "GFLOPS_IMGSZ", "exported", "family_title", "load", "quiet", "wrap"]

GFLOPS_IMGSZ = 640
"""Image size in px at which GFLOPs are counted: the one of `model.info()` and of the published tables, whatever size
the network is trained and validated at."""

FAMILIES = [
    "yoloprune.detectors.yolov7.detector:YOLOv7Detector",
    "yoloprune.detectors.ultralytics.detector:UltralyticsDetector",
]
"""The implementations as `module:class`. The first that recognises a file or a model takes it; the last one says what
is wrong with what none recognises."""

_TITLES = {"rtdetr": "RT-DETR", "world": "YOLO-World", "yoloe": "YOLOE", "unknown": "YOLO"}


def family_title(family: str) -> str:
    """What people call a family, such as "YOLOv8" for "v8"."""
    return _TITLES.get(family, f"YOLO{family}")


def load(weights: str | Path, *, trust: bool = False) -> Detector:
    """Load a checkpoint of any family, float32, in evaluation mode, on the CPU.

    Nothing in the file can run, from any number of threads, and nothing is downloaded or installed.

    Args:
        weights: Path of a checkpoint.
        trust: Unpickle without limits. Whatever code the file names then runs.

    Raises:
        UserError: There is no such file, it is damaged or no checkpoint of a known family, it names classes from
            elsewhere and `trust` is off, or it holds weights that are not finite or a network that does not run.
    """
    check_path(weights)
    families = _families()
    family = next((f for f in families if f.recognises(Path(weights))), families[-1])
    return family.load(weights, trust=trust)


def wrap(model: Any) -> Detector:
    """The detector of a model in memory, on a copy of its network: float32, in evaluation mode, on the CPU.

    Raises:
        UserError: The model is of no known family, or its weights are not finite.
    """
    for family in _families():
        if family.holds(model):
            return family.wrap(model)
    raise UserError(
        f"The given {type(model).__name__} is no PyTorch model of a known family; give a YOLO of a .pt file, or the "
        "path of one."
    )


def exported(path: str | Path) -> Exported:
    """Load what `yoloprune export` wrote, in its own runtime, to be run and validated without the checkpoint.

    Raises:
        UserError: The runtime cannot load it or is not installed, or it does not say what it was exported for.
    """
    from .ultralytics.exported import Exported

    return Exported(Path(path))


@contextmanager
def quiet(verbose: bool = False) -> Iterator[None]:
    """Within the block, unless `verbose`, the libraries behind the families log nothing."""
    with ExitStack() as stack:
        for family in () if verbose else _families():
            stack.enter_context(family.quiet())
        yield


def _families() -> list[type[Detector]]:
    found = []
    for name in FAMILIES:
        module, _, of = name.partition(":")
        found.append(getattr(import_module(module), of))
    return found
