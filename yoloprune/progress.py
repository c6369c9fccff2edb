"""What a run says while it works. The command line gives it a screen; from Python it is silent.

Code deep inside a phase reports to `current()`, or hands a callback of `counter` to code that knows nothing of runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

__all__ = ["Progress", "counter", "current", "tracked"]

_Item = TypeVar("_Item")


class Progress:
    """Where a run reports to; this base says nothing.

    Attributes:
        hears: Whether what Ultralytics says has somewhere to go; otherwise it must be kept quiet.
    """

    hears = False

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """A phase, from entering to leaving the block.

        Args:
            title: What is done, in a few words.
        """
        token = _current.set(self)
        started = time.perf_counter()
        self._enter(title)
        try:
            yield
        except BaseException:
            self._leave(title, None)
            raise
        else:
            self._leave(title, time.perf_counter() - started)
        finally:
            _current.reset(token)

    def part(self, what: str, done: float, total: float, detail: str = "") -> None:
        """How far the present phase has come with one kind of its work.

        Args:
            what: The kind of work, in the singular or plural as it is counted: "epoch", "calibration image".
            done: How many are done; a fraction of one more where that is known, and 1.5 is shown as "2 of …".
            total: How many there are.
            detail: What is done within the one that is under way.
        """

    def passed(self, what: str, found: str = "") -> None:
        """A landmark inside a long phase, such as the end of an epoch, and a figure that was found there."""

    def say(self, line: str) -> None:
        """One line about what a phase has found."""

    def write_to(self, folder: Path, log: Path) -> None:
        """The run writes to this folder from now on, and what Ultralytics says may go to the log in it."""

    def _enter(self, title: str) -> None:
        """A phase begins."""

    def _leave(self, title: str, seconds: float | None) -> None:
        """The phase is over, or has failed after None seconds."""


_current: ContextVar[Progress] = ContextVar("progress", default=Progress())  # noqa: B039  (the base has no state)


def current() -> Progress:
    """Where the phase that is under way reports to."""
    return _current.get()


def counter(what: str) -> Callable[[float, float], None]:
    """A callback `tell(done, total)` that reports to the phase that is under way when it is made."""
    progress = current()
    return lambda done, total: progress.part(what, done, total)


def tracked(items: Sequence[_Item], what: str, done: int = 0) -> Iterable[_Item]:
    """The items, reporting how many are done; `done` were before."""
    progress, total = current(), done + len(items)
    for number, item in enumerate(items, start=done):
        progress.part(what, number, total)
        yield item
    progress.part(what, total, total)
