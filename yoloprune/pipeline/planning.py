"""How channels are ranked for a target, and how unevenly layers may give them, by trial."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any, NamedTuple

from torch import Tensor

from yoloprune.detectors.base import Detector
from yoloprune.execution import evaluation
from yoloprune.graph import Plan
from yoloprune.progress import counter
from yoloprune.recovery import reconstruct

from .targets import OutOfReachError

__all__ = ["TRIALS", "Limited", "Trial", "best_limit", "ranking_options", "rankings"]

_SHARES = (0.9, 0.6, 0.3, 0.0)  # least width of a layer, in widths that layers would have if all gave the same share
TRIALS = len(_SHARES)


class Limited(NamedTuple):
    """The limit that kept most.

    Attributes:
        max_pruning_ratio: Share of its channels that a layer may lose.
        error: Error of the plan with this limit.
        unlimited: Error of the plan without one.
    """

    max_pruning_ratio: float
    error: float
    unlimited: float


def best_limit(plan_of: Callable[..., Plan], error_of: Callable[[Plan], float], share: float) -> Limited:
    """Try some limits on what one layer may lose, from nearly even widths to none, and return the best.

    Args:
        plan_of: Makes the plan that reaches the target, given `max_pruning_ratio`.
        error_of: Measures a plan; see `Trial`.
        share: Share of the cost that is to stay; a layer's cost goes with the square of the widths.

    Raises:
        OutOfReachError: The target is out of reach even without a limit.
    """
    errors = {}
    for part in _SHARES:
        limit = 1 - part * sqrt(share)
        try:
            errors[limit] = error_of(plan_of(max_pruning_ratio=limit))
        except OutOfReachError:
            if not part:
                raise
    best = min(errors, key=lambda limit: errors[limit])  # of equals the first, the most even one
    return Limited(best, errors[best], errors[1.0])


# The effect on predictions is a figure for small changes, so the less the more goes. On held-out COCO images (YOLOv8n,
# head pruned, 320 px) each of 85, 70 and 50 % of the GFLOPs has its best near this.
_INFLUENCE = 0.5  # times the square of the share that stays

# What many removals do together is less than the sum, since the layers behind are re-solved for all of them (which
# `compensated_error` knows): expensive channels go sooner than their errors alone would have it. On two halves of those
# images, each measured with networks made from the other, powers of 1, about 1.2, 1.3 and about 1.4 left a mean
# mAP50-95 of .094, .124, .124 and .115 at 50 %, and of .279, .281, .282 and .278 at 70 %; on one half .319, .316 and
# .316 (1, 1.2, 1.4) at 85 %, and with the head kept .192, .276, .278 and .280 (1, 1.2, 1.3, 1.45) at 85 %, .105, .109
# and .140 (1.2, 1.3, 1.45) at 70 %.
_SAVING_POWER = {"output_error": 1.3, "compensated_error": 1.0}


def rankings(criterion: str, tries: bool) -> tuple[str, ...]:
    """The criteria that a trial chooses between when one is asked for; that one first.

    On halves of COCO images plain errors are ahead at 70 % of the GFLOPs (mAP50-95 .288 and .277), errors after
    compensation at 50 % (.156 and .194).
    """
    return tuple(_SAVING_POWER) if tries and criterion == "output_error" else (criterion,)


def ranking_options(criterion: str, share: float) -> dict[str, Any]:
    """Keywords of `yoloprune.criteria.score` for a criterion that weighs errors by the MACs saved.

    Args:
        criterion: Its name.
        share: Share of the cost that is to stay, between 0 and 1.
    """
    return {"influence": _INFLUENCE * share**2, "per_mac": _SAVING_POWER[criterion]}


_POSITIONS = 12_000  # of each layer's outputs: a third of a final recovery's, enough to tell networks apart


class Trial:
    """Measures plans for one network, without labels.

    The error of a plan is 1 - mAP50-95 of the network, pruned and reconstructed from two thirds of the images, against
    the unpruned one's detections on the other third; see `disagreement`.

    Args:
        detector: The detector; its network is left as it is.
        batches: Calibration batches with images under `img`, on the network's device.
        seed: Seed of the reconstructions.
        trials: How many plans are measured at most, for the progress that is shown.
    """

    def __init__(self, detector: Detector, batches: list[dict[str, Any]], seed: int, trials: int = TRIALS) -> None:
        self._detector, self._seed, self._trials = detector, seed, trials
        self._measured: list[tuple[Plan, float]] = []
        self._fit, held = _split(batches)
        with evaluation(detector.network):
            self._lost = detector.lost(held)

    def __call__(self, plan: Plan) -> float:
        """The error of a plan; one that was measured before, as when a limit changes nothing, is not measured again."""
        for known, error in self._measured:
            if known == plan:
                return error
        network = self._detector.network
        pruned = plan.apply(network).eval()
        tell, number = counter("trial"), len(self._measured)
        reconstruct(
            pruned,
            network,
            plan,
            self._fit,
            skip=self._detector.unreconstructed,
            positions=_POSITIONS,
            steps=0,
            seed=self._seed,
            tell=lambda done, total: tell(number + 0.99 * done / total, self._trials),
        )
        error = self._lost(pruned)
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
