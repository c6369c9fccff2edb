"""What a run would do: the plan of its first step, and what would follow. Nothing is written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from yoloprune.report import Measure, Record, paired_widths

from .context import Context
from .data import DIGITS, write_digits
from .folder import RunFolder, free_folder, wanted_folder
from .options import Options
from .prune import prune_once
from .targets import Target, cost

__all__ = ["Rehearsal", "rehearse"]


@dataclass
class Rehearsal:
    """What is known of a run before it.

    Attributes:
        record: The network as it came, and what there is to say.
        after: The network after the first pruning.
        widths: Layer to output channels before and after the first pruning.
        todo: What would be done, a few words each.
        folder: The output folder that would be made.
    """

    record: Record
    after: Measure
    widths: dict[str, tuple[int, int]]
    todo: list[str]
    folder: Path


def rehearse(run: Context, targets: Sequence[Target]) -> Rehearsal:
    """Plan the first of these targets' steps as the run would, from images where it takes images."""
    options = run.options
    with tempfile.TemporaryDirectory() as scratch:
        data = write_digits(RunFolder(scratch)) if options.data == DIGITS else options.data
        with run.phase(f"Plan for {targets[0]}", "prune"):
            pruned = prune_once(run.original, targets[0], replace(options, data=data), device=run.device)
    for note in pruned.notes:
        run.note(note)
    return Rehearsal(
        run.record,
        Measure(*cost(pruned.detector)),
        paired_widths(run.original.network, pruned.detector.network),
        list(_todo(options, targets)),
        free_folder(wanted_folder(options.project, options.name), exist_ok=options.exist_ok),
    )


def _todo(options: Options, targets: Sequence[Target]) -> Iterator[str]:
    if options.train_epochs:
        yield f"train the unpruned network for {options.train_epochs} epochs, after which other channels may go"
    if options.val:
        yield "validate the original"
    if options.sparse_epochs:
        yield f"train group-sparsely for {options.sparse_epochs} epochs, after which other channels may go"
    for target in targets:
        yield f"prune to {target}" + (" and recover" if options.recover else "")
        if options.epochs:
            yield "fine-tune for " + ("what the budget leaves" if options.budget else f"{options.epochs} epochs")
    if options.val:
        yield "validate and measure latency"
    if options.export:
        yield f"export to {options.export}"
