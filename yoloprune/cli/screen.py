"""What a run shows on the terminal: finished phases as lines, the current one with a bar."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from yoloprune.yolo.run.progress import Progress as RunProgress

__all__ = ["Screen"]


class Screen(RunProgress):
    """Progress on a rich console."""

    def __init__(self, console: Console):
        self.console = console
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None)

    def begin(self, phases: int) -> None:
        """The run has this many phases ahead of it."""
        self.bar.update(self.task, total=phases)

    @contextmanager
    def phase(self, title: str, *, speaks: bool = False) -> Iterator[None]:
        """Show the bar during the phase, and a line with its time after it.

        While Ultralytics prints, the bar is away: two programs cannot draw on the same lines.
        """
        started = time.perf_counter()
        if speaks:
            self.console.print(f"[bold]{escape(title)} …[/]")
        self.bar.update(self.task, description=escape(title))
        try:
            if not speaks:
                self.bar.start()
            yield
        finally:
            self.bar.stop()
        self.bar.advance(self.task)
        self.console.print(f"[green]✓[/] {escape(title)} [dim]({time.perf_counter() - started:.1f} s)[/]")

    def say(self, line: str) -> None:
        """Print one line under the phase that found it."""
        self.console.print(f"  {escape(line)}")
