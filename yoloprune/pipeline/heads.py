"""Whether keeping the head costs accuracy, and the sentence that says so."""

from __future__ import annotations

from dataclasses import replace

from yoloprune.detectors.base import Detector

from .context import Context
from .options import Options
from .prune import prune_once
from .targets import Cost, Target

__all__ = ["compare_heads", "compares_heads", "head_advice", "kept_head", "still_compares_heads"]

_CLEARLY_MORE = 0.02  # mAP50-95; below, the two heads are equal within the noise of a small validation set


def compares_heads(detector: Detector, options: Options) -> bool:
    """Whether a run measures what pruning the head too would keep: it validates, recovers and keeps a head."""
    able = detector.task == "detect" and detector.can_distill and detector.prunes_head
    return bool(options.compare_heads and options.val and options.recover and not options.prune_head and able)


def head_advice(target: Target, kept: float, pruned: float) -> str | None:
    """A sentence, if the mAP50-95 with a pruned head is clearly more than with a kept one."""
    if pruned - kept <= _CLEARLY_MORE:
        return None
    return (
        f"Keeping the head costs: at {target} and before fine-tuning, mAP50-95 is {kept:.3f} with the "
        f"head kept and {pruned:.3f} with its hidden layers pruned too; --prune-head does that."
    )


def kept_head(detector: Detector, options: Options, target: Target, own: Cost) -> str | None:
    """A sentence on what the rest of the network must lose where the head is kept, before the long work begins."""
    if options.prune_head or options.plan or target.gflops is None or not detector.prunes_head:
        return None
    head, share = detector.head_share(), target.share(own)
    if not head:
        return None
    return (
        f"The head is kept and holds {head:.0%} of the GFLOPs: to leave {share:.0%} in all, the rest must lose "
        f"{(1 - share) / (1 - head):.0%} of its own (with --prune-head the head's hidden layers lose channels too)."
    )


def still_compares_heads(run: Context) -> bool:
    """Whether the comparison is to be made and has not been, in this run or before it was interrupted."""
    return compares_heads(run.original, run.options) and not run.record.head


def compare_heads(run: Context, before: Detector, kept: Detector, target: Target) -> None:
    """Say whether pruning the head's hidden layers of `before` too would keep clearly more, before fine-tuning."""
    with run.phase("Compare with a pruned head", "compare"):
        other = prune_once(before, target, replace(run.options, prune_head=True), device=run.device).detector
    figures = [
        run.validate(of, f"Validate with {what} head")["mAP50-95"]
        for of, what in ((kept, "the kept"), (other, "a pruned"))
    ]
    run.record.head = figures
    advice = head_advice(target, *figures)
    if advice:
        run.note(advice)
