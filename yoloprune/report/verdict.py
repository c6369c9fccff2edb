"""Whether it was worth it, in words, and what to type next."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .page import Network, Words, best_confidence
from .record import Record

__all__ = ["Usage", "comparison_words", "run_words"]

Usage = Callable[[str, int, float | None], str]
"""The command that uses a checkpoint at an image size in px and from a confidence on, where one is recommended."""

_EPOCHS = 30  # what to try where a run has not fine-tuned
_SURE = 1.64  # standard deviations: one such gap in twenty is chance
_HEADLINES = {
    "pruned": ("good", "Worth it: better than a smaller image at the same cost"),
    "smaller image": ("bad", "A smaller image is the better choice here"),
    "equal": ("even", "A tie with a smaller image at the same cost"),
}


def run_words(record: Record, networks: Sequence[Network], weights: str, usage: Usage) -> Words:
    """The verdict on a run.

    Args:
        record: The run.
        networks: The network before and after.
        weights: The pruned checkpoint, as it is typed.
        usage: How a checkpoint is used.
    """
    before, after = networks
    share = after.measure.gflops / before.measure.gflops
    lines = _kept(before, after, share)
    mood, headline = "even", f"{1 - share:.0%} fewer GFLOPs"
    if not after.measure.metrics:
        headline = f"{1 - share:.0%} fewer GFLOPs; what is left of the accuracy was not measured"
    elif verdict := record.verdict:
        mood, headline = _HEADLINES[verdict.better]
        gap = verdict.value - verdict.level
        lines.append(
            f"The unpruned network has {verdict.measure} {_on_smaller_images(record)}, so about {verdict.level:.3f} at "
            f"this cost: pruning is {abs(gap):.3f} {'ahead' if gap >= 0 else 'behind'}, and gaps below "
            f"{verdict.noise:.3f} are chance on these validation images."
        )
    lines += _confidence(before, after)
    return Words(mood, headline, lines, *_next(record, after, weights, usage))


def _on_smaller_images(record: Record) -> str:
    """What was measured of the unpruned network next to the cost of the pruned one."""
    whole, sizes = record.before, record.smaller_images
    found = [f"{next(iter(s.metrics.values())):.3f} at {s.imgsz} px ({s.gflops / whole.gflops:.0%})" for s in sizes]
    if len(sizes) == 1 and record.verdict.level > next(iter(sizes[0].metrics.values())):
        found.append(f"{next(iter(whole.metrics.values())):.3f} at {record.imgsz} px (100%)")
    return " and ".join(found)


def _kept(before: Network, after: Network, share: float) -> list[str]:
    if not after.measure.metrics:
        return [f"{share:.0%} of the GFLOPs are left. Validation was off (--val turns it on)."]
    name, own = next(iter(before.measure.metrics.items()))
    now = after.measure.metrics[name]
    kept = f"{now / own:.0%} of the {name}" if own else name
    text = f"{share:.0%} of the GFLOPs keep {kept} ({own:.3f} → {now:.3f})"
    if before.measure.latency_ms and after.measure.latency_ms:
        was, is_now = before.measure.latency_ms, after.measure.latency_ms
        text += f" and take {is_now / was:.0%} of the time ({was:.1f} → {is_now:.1f} ms)"
    return [text + "."]


def _confidence(before: Network, after: Network) -> list[str]:
    best, was = best_confidence(after.details), best_confidence(before.details)
    if not best or not was:
        return []
    return [f"Recommended confidence: {best[0]:.2f} (F1 {best[1]:.3f}; before it was {was[0]:.2f} with {was[1]:.3f})."]


def _next(record: Record, after: Network, weights: str, usage: Usage) -> tuple[str, str]:
    """What to do next, as a clause and a command."""
    best = best_confidence(after.details)
    metrics = list(after.measure.metrics.values())
    if not metrics:
        return "To know what it keeps", shlex.join(["yoloprune", "val", weights, *_data(record)])
    lost = next(iter(record.before.metrics.values())) - metrics[0]
    trained = any(row.epochs for row in record.steps)
    if lost > 0.01 and not trained and record.command and "--budget" not in record.command:
        return "Nothing was fine-tuned yet, so that is next", _with_epochs(record.command)
    if record.verdict and record.verdict.better == "smaller image":
        if not Path(record.weights).is_file():
            return "Use the unpruned network on smaller images", f"imgsz={record.verdict.imgsz}"
        return "Use the unpruned network on smaller images", usage(record.weights, record.verdict.imgsz, None)
    return "Use it", usage(weights, record.imgsz, best[0] if best else None)


def _data(record: Record) -> list[str]:
    return ["--data", record.data] if record.data else []


def _with_epochs(command: str) -> str:
    """The command with fine-tuning, into a folder of its own."""
    without = re.sub(r" --(epochs[ =]\S+|exist-ok)(?= |$)", "", command)
    return f"{without} --epochs {_EPOCHS}"


def comparison_words(
    networks: Sequence[Network], weights: Sequence[str], imgsz: Sequence[int], usages: Sequence[Usage]
) -> Words:
    """The verdict on several checkpoints: which is best, and whether a cheaper one is as good within the noise.

    Args:
        networks: The networks, validated on the same images.
        weights: Their checkpoints, as they are typed.
        imgsz: Image size of each, in px.
        usages: How each is used.
    """
    name = next(iter(networks[0].measure.metrics))
    values = [network.measure.metrics[name] for network in networks]
    best = int(np.argmax(values))
    alike = [i for i in range(len(networks)) if values[best] - values[i] <= _noise(networks[best], networks[i])]
    chosen = min(alike, key=lambda i: networks[i].measure.gflops)
    top = networks[best]
    lines = [f"{top.label} has the highest {name}, {values[best]:.3f}, at {top.measure.gflops:.2f} GFLOPs."]
    for i, network in enumerate(networks):
        if i != best:
            gap, noise = values[best] - values[i], _noise(top, network)
            lines.append(
                f"{network.label}: {values[i]:.3f} at {network.measure.gflops / top.measure.gflops:.0%} of its GFLOPs; "
                f"the gap of {gap:.3f} is {'chance' if gap <= noise else 'real'} (noise {noise:.3f})."
            )
    if chosen != best:
        headline = f"{networks[chosen].label} is as good as {top.label} and cheaper"
    elif top.measure.gflops <= min(network.measure.gflops for network in networks):
        headline = f"{top.label} is the best choice: none is more accurate or cheaper"
    else:
        headline = f"{top.label} is the most accurate; what is cheaper is less so"
    confidence = best_confidence(networks[chosen].details)
    command = usages[chosen](weights[chosen], imgsz[chosen], confidence[0] if confidence else None)
    return Words("even", headline, lines, "Use it", command)


def _noise(one: Network, other: Network) -> float:
    """How large a gap chance makes, by the bootstrap over the same images; 0 if nothing is known."""
    if one is other:
        return 0.0
    samples = [network.details.samples.get("map", []) if network.details else [] for network in (one, other)]
    if not samples[0] or len(samples[0]) != len(samples[1]):
        return 0.0
    return _SURE * float(np.std(np.subtract(*samples)))
