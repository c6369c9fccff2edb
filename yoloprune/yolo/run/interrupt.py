"""Ctrl-C during a run."""

from __future__ import annotations

from yoloprune.report import Record

from .folder import RunFolder

__all__ = ["Interrupted", "where_it_stands"]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run; the message says what is finished and how to go on."""


def where_it_stands(folder: RunFolder | None, record: Record, steps: int) -> str:
    """One line on what an interrupted run has finished and how to resume it."""
    if folder is None:
        return "Interrupted; nothing was written."
    done = len(record.steps)
    finished = (
        f"{done} of {steps} steps finished" if steps > 1 else "pruning finished" if done else "nothing finished yet"
    )
    return f"Interrupted ({finished}); go on with: yoloprune prune --resume {folder.path}"
