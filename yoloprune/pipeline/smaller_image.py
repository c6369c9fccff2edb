"""What costs nothing: the unpruned network on a smaller image, which a pruned one should be better than."""

from __future__ import annotations

from yoloprune.report import SmallerImage

from .context import Context

__all__ = ["compare_image_sizes"]

_ALIKE = 0.01  # mAP50-95: what images of a few hundred cannot tell apart


def compare_image_sizes(run: Context, share: float, metrics: dict[str, float]) -> None:
    """Validate the unpruned network at the image sizes whose cost is next to the pruned one's, and say which is better.

    The size below comes first; where the pruned network keeps more than it, the one above is asked too, and between the
    two mAP is taken to be linear in cost.

    Args:
        run: The run, its original validated.
        share: Part of the cost that the pruned network has left: of the GFLOPs, or of the time if that was the target.
        metrics: Its validation at the run's image size.
    """
    imgsz, stride = run.options.imgsz, run.original.stride
    own, name = run.record.before, next(iter(metrics))
    below = int(imgsz * share**0.5 / stride) * stride
    if not stride <= below < imgsz or own.metrics[name] <= 0:
        return
    found = [_measured(run, below)]
    if found[0].metrics[name] < metrics[name] and below + stride < imgsz:
        found.append(_measured(run, below + stride))
    run.record.smaller_images = found
    sizes = [*((f.gflops / own.gflops, f.metrics[name]) for f in found), (1.0, own.metrics[name])]
    (x0, y0), (x1, y1) = sizes[:2]
    level = y0 + (y1 - y0) * (share - x0) / (x1 - x0)
    told = " and ".join(
        f"{f.metrics[name]:.3f} at {f.imgsz} px ({f.gflops / own.gflops:.0%} of the cost)" for f in found
    )
    gap = metrics[name] - level
    verdict = (
        "on these data a smaller image is the better choice"
        if gap < -_ALIKE
        else "pruning is the better choice"
        if gap > _ALIKE
        else "the two are equal within the noise"
    )
    run.note(
        f"For comparison, the unpruned network has {name} {told}, at no trouble; the pruned one {metrics[name]:.3f} at "
        f"{imgsz} px ({share:.0%}): {verdict}."
    )


def _measured(run: Context, imgsz: int) -> SmallerImage:
    metrics = run.validate(run.original, f"Validate the original at {imgsz} px", imgsz=imgsz)
    return SmallerImage(imgsz, run.record.before.gflops * (imgsz / run.options.imgsz) ** 2, metrics)
