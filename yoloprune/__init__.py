"""yoloprune: physically smaller YOLO detectors at the GFLOPs you ask for."""

from __future__ import annotations

__version__ = "0.1.0"
