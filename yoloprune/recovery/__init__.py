"""Getting accuracy back without training, from a few unlabelled calibration batches."""

from __future__ import annotations

from .norms import recalibrate_bn
from .reconstruction import LayerFit, Reconstruction, reconstruct
from .scores import ScoreFit, calibrate_scores

__all__ = ["LayerFit", "Reconstruction", "ScoreFit", "calibrate_scores", "recalibrate_bn", "reconstruct"]
