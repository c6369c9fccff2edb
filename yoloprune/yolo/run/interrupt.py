"""What stops a run half-way, Ctrl-C and a full disk, and how to go on."""

from __future__ import annotations

import errno
import shlex

from yoloprune.report import Record

from .folder import RunFolder

__all__ = ["Interrupted", "disk_full", "where_it_stands"]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run; the message says what is finished and how to go on."""


def where_it_stands(folder: RunFolder | None, record: Record, steps: int) -> str:
    """One line on what an interrupted run has finished and how to resume it."""
    if folder is None:
        return "Interrupted; nothing was written."
    done = len(record.steps)
    finished = [f"{done} of {steps} steps"] if steps > 1 else ["pruning"] if done else []
    if epochs := _epochs(folder, done + 1):
        finished.append(f"{epochs} epoch{'s' * (epochs > 1)} of fine-tuning")
    stands = f"{' and '.join(finished)} finished" if finished else "nothing finished yet"
    return f"Interrupted ({stands}); go on with: {_resume(folder)}"


def _epochs(folder: RunFolder, step: int) -> int:
    """Epochs that a step's fine-tuning has behind it."""
    table = folder.train(step) / "results.csv"
    return len(table.read_text().splitlines()) - 1 if table.is_file() else 0


def disk_full(error: OSError, folder: RunFolder | None) -> str | None:
    """A sentence on what could not be written for lack of room and how to go on; None for any other error."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    where = error.filename or (folder.path if folder else "a file")
    then = f"go on with: {_resume(folder)}" if folder and folder.args.is_file() else "start the run again"
    return f"'{where}' cannot be written ({error.strerror}); make room, then {then}"


def _resume(folder: RunFolder) -> str:
    return f"yoloprune prune --resume {shlex.quote(str(folder.path))}"
