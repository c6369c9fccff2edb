"""What stops a run half-way, Ctrl-C and a full disk, and how to continue."""

from __future__ import annotations

import errno
import shlex

from yoloprune.report import Record

from .folder import RunFolder
from .options import Options

__all__ = ["Interrupted", "disk_full", "where_it_stands"]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run; the message says what is finished and how to continue."""


def where_it_stands(folder: RunFolder | None, record: Record, options: Options, *, in_memory: bool = False) -> str:
    """One line on what an interrupted run has finished and how to resume it.

    Args:
        folder: Its folder, if it has one.
        record: What it has measured.
        options: Its options.
        in_memory: Whether it was started in Python with a model in memory, which only Python can give it again.
    """
    if folder is None:
        return "Interrupted; nothing was written."
    done = len(record.steps)
    pruned = done or folder.pruned(1).exists()
    finished = [f"{done} of {options.steps} steps"] if options.steps > 1 else ["pruning"] if pruned else []
    if epochs := _epochs(folder, done + 1):
        finished.append(f"{epochs} epoch{'s' * (epochs > 1)} of fine-tuning")
    stands = f"{' and '.join(finished)} finished" if finished else "nothing finished yet"
    return f"Interrupted ({stands}); continue with: {_resume(folder, options, in_memory)}"


def _epochs(folder: RunFolder, step: int) -> int:
    """Epochs that a step's fine-tuning has behind it."""
    table = folder.train(step) / "results.csv"
    return len(table.read_text().splitlines()) - 1 if table.is_file() else 0


def disk_full(error: OSError, folder: RunFolder | None, options: Options, *, in_memory: bool = False) -> str | None:
    """A sentence on what could not be written for lack of room and how to continue; None for any other error.

    Args:
        error: What was raised.
        folder: The run's folder, if it has one.
        options: The run's options.
        in_memory: As for `where_it_stands`.
    """
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    where = error.filename or (folder.path if folder else "a file")
    then = f"continue with: {_resume(folder, options, in_memory)}" if folder else "start the run again"
    return f"'{where}' cannot be written ({error.strerror}); make room, then {then}"


def _resume(folder: RunFolder, options: Options, in_memory: bool) -> str:
    if in_memory:
        return f"yoloprune.prune(model, resume={str(folder.path)!r})"
    return f"yoloprune prune --resume {shlex.quote(str(folder.path))}" + " --trust" * options.trust
