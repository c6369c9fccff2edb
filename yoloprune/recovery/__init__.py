"""Getting accuracy back without training, from a few unlabelled calibration batches."""

from __future__ import annotations

from .norms import recalibrate_bn
from .reconstruction import LayerFit, Reconstruction, reconstruct

__all__ = ["LayerFit", "Reconstruction", "recalibrate_bn", "reconstruct"]
