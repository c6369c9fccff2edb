"""Whether keeping the head costs accuracy, and the sentence that says so."""

from __future__ import annotations

from yoloprune.yolo.model import YOLO
from yoloprune.yolo.trainers.distill import can_distill

from .options import Options
from .target import Target

__all__ = ["compares_heads", "head_advice"]

_CLEARLY_MORE = 0.02  # mAP50-95; below, the two heads are alike on a small validation set


def compares_heads(yolo: YOLO, options: Options) -> bool:
    """Whether a run measures what pruning the head too would keep: it validates, recovers and keeps a head.

    Not with a sensitivity table, which was measured for one of the two heads.
    """
    able = yolo.task == "detect" and can_distill(yolo.model)
    return bool(options.val and options.recover and not options.prune_head and not options.sensitivity and able)


def head_advice(target: Target, kept: float, pruned: float) -> str | None:
    """A sentence, if the mAP50-95 with a pruned head is clearly more than with a kept one."""
    if pruned - kept <= _CLEARLY_MORE:
        return None
    return (
        f"Keeping the head costs: at {target} and before fine-tuning, mAP50-95 is {kept:.3f} with the "
        f"head kept and {pruned:.3f} with its hidden layers pruned too; --prune-head does that."
    )
