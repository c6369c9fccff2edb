"""yoloprune: physically smaller YOLO detectors at the GFLOPs you ask for.

The general core, `yoloprune.graph`, needs torch alone; `yoloprune.prune` brings in Ultralytics, when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yoloprune.yolo.run.api import PruneResult, prune

__all__ = ["PruneResult", "prune"]
__version__ = "0.1.0"

_LAZY = {"PruneResult": "yoloprune.yolo.run.api", "prune": "yoloprune.yolo.run.api"}
_PACKAGES = {"criteria", "graph", "recovery", "report", "sparsity", "yolo"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name in _PACKAGES:  # `import yoloprune; yoloprune.graph.trace(...)`
        return import_module(f"yoloprune.{name}")
    raise AttributeError(f"module 'yoloprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_PACKAGES})
