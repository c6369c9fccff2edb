"""What a run says while it works. The command line gives it a screen; from Python it is silent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Progress"]


class Progress:
    """Where a run reports its phases to; this base says nothing."""

    def begin(self, phases: int) -> None:
        """The run has this many phases ahead of it."""

    @contextmanager
    def phase(self, title: str, *, speaks: bool = False) -> Iterator[None]:
        """A phase, from entering to leaving the block.

        Args:
            title: What is done, in a few words.
            speaks: Whether Ultralytics prints its own lines and bars meanwhile.
        """
        yield

    def say(self, line: str) -> None:
        """One line about what a phase has found."""
