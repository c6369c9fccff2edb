"""What a plan leaves, by trial: prune, recover from some of the calibration images, measure on the others."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from ultralytics.nn.modules import DFL

from yoloprune.calibration import evaluation
from yoloprune.graph import Plan
from yoloprune.recovery import reconstruct
from yoloprune.yolo.planning.agreement import disagreement
from yoloprune.yolo.planning.limit import TRIALS
from yoloprune.yolo.run.progress import counter

__all__ = ["Trial"]

_POSITIONS = 6_000  # of each layer's outputs: a third of a final recovery's, enough to tell networks apart


class Trial:
    """Measures plans for one network, without labels.

    The error of a plan is 1 - mAP50-95 of the network, pruned and reconstructed from two thirds of the images, against
    the unpruned one's detections on the other third; see `disagreement`.

    Args:
        network: The network; left as it is.
        batches: Calibration batches with images under `img`, on the network's device.
        seed: Seed of the reconstructions.
    """

    def __init__(self, network: nn.Module, batches: list[dict[str, Any]], seed: int) -> None:
        self._network, self._seed = network, seed
        self._measured: list[tuple[Plan, float]] = []
        self._fit, held = _split(batches)
        with evaluation(network):
            self._change = disagreement(network, held)

    def __call__(self, plan: Plan) -> float:
        """The error of a plan; one that was measured before, as when a limit changes nothing, is not measured again."""
        for known, error in self._measured:
            if known == plan:
                return error
        pruned = plan.apply(self._network).eval()
        tell, number = counter("trial"), len(self._measured)
        reconstruct(
            pruned,
            self._network,
            plan,
            self._fit,
            skip=(DFL,),
            positions=_POSITIONS,
            seed=self._seed,
            tell=lambda done, total: tell(number + 0.99 * done / total, TRIALS),
        )
        error = self._change(pruned)
        self._measured.append((plan, error))
        return error


def _split(batches: list[dict[str, Any]]) -> tuple[list[Tensor], list[Tensor]]:
    """Images to recover from and images to measure on, two to one; a single one serves for both."""
    images = [batch["img"] for batch in batches]
    if len(images) == 1:
        images = list(images[0].split(max(1, len(images[0]) // 3)))
    if len(images) < 3:
        return images[:1], images[-1:]
    return [image for i, image in enumerate(images) if i % 3 != 2], images[2::3]
