"""What costs nothing: the unpruned network on a smaller image, which a pruned one should be better than."""

from __future__ import annotations

import numpy as np

from yoloprune.report import SmallerImage, Verdict

from .context import Context

__all__ = ["compare_image_sizes"]

_ALIKE = 0.01  # mAP50-95: what images of a few hundred cannot tell apart, where nothing is resampled
_SURE = 1.64  # standard deviations: one such gap in twenty is chance
_SAID = {
    "smaller image": "on these data a smaller image is the better choice",
    "pruned": "pruning is the better choice",
    "equal": "the two are equal within the noise",
}
_BOTH = " A part of each may keep more than either: yoloprune frontier."


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
    gap, noise = metrics[name] - level, _noise(run, [f.imgsz for f in found], (share - x0) / (x1 - x0))
    seen, chance = round(gap, 3), round(noise, 3)  # as they are shown
    better = "smaller image" if seen < -chance else "pruned" if seen > chance else "equal"
    nearest = found[-1].imgsz  # where the size below keeps less than the pruned network, the one above
    run.record.verdict = Verdict(better, name, metrics[name], round(level, 5), round(noise, 5), nearest)
    run.note(
        f"For comparison, the unpruned network has {name} {told}, with no pruning; the pruned one {metrics[name]:.3f} "
        f"at {imgsz} px ({share:.0%}): {_SAID[better]}.{_BOTH * (better != 'pruned')}"
    )


def _noise(run: Context, sizes: list[int], place: float) -> float:
    """How large a gap chance makes: the bootstrap's, on the same images for all networks, or a usual figure.

    Args:
        run: The run, its networks validated.
        sizes: Image sizes that the unpruned network was validated at.
        place: Where the pruned network's cost lies between the first of these (0) and the next (1), or the whole image.
    """
    names = ["after", *(_what(imgsz) for imgsz in sizes), "before"][:3]
    samples = [run.details[what].samples.get("map") if what in run.details else None for what in names]
    if not all(samples) or len({len(each) for each in samples}) > 1:
        return _ALIKE
    pruned, below, above = map(np.array, samples)
    return _SURE * float(np.std(pruned - (below + (above - below) * place)))


def _measured(run: Context, imgsz: int) -> SmallerImage:
    title = f"Validate the original at {imgsz} px"
    metrics = run.validate(run.original, title, imgsz=imgsz, what=_what(imgsz))
    return SmallerImage(imgsz, run.record.before.gflops * (imgsz / run.options.imgsz) ** 2, metrics)


def _what(imgsz: int) -> str:
    return f"{imgsz} px"
