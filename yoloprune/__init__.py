"""yoloprune: physically smaller YOLO detectors at the GFLOPs you ask for.

The general core, `yoloprune.graph`, needs torch alone; `yoloprune.prune` and `yoloprune.load`, which opens a checkpoint
without running anything from it, bring in Ultralytics when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yoloprune.detectors.ultralytics.trainers.pruned import KeepPruned, keep_pruned
    from yoloprune.pipeline.api import PruneResult, load, prune

__all__ = ["KeepPruned", "PruneResult", "keep_pruned", "load", "prune"]
__version__ = "0.1.0"

_LAZY = {
    "KeepPruned": "yoloprune.detectors.ultralytics.trainers.pruned",
    "PruneResult": "yoloprune.pipeline.api",
    "keep_pruned": "yoloprune.detectors.ultralytics.trainers.pruned",
    "load": "yoloprune.pipeline.api",
    "prune": "yoloprune.pipeline.api",
}
_PACKAGES = {"criteria", "detectors", "graph", "recovery", "report", "sparsity"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name in _PACKAGES:  # `import yoloprune; yoloprune.graph.trace(...)`
        return import_module(f"yoloprune.{name}")
    raise AttributeError(f"module 'yoloprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_PACKAGES})
