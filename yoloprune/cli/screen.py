"""What a command shows on the terminal: finished phases as lines, and under them what the present one is doing."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType, RenderResult
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from yoloprune.errors import UserError
from yoloprune.progress import Progress as RunProgress

from .elsewhere import Log, elsewhere

__all__ = ["Screen"]

_SETTLED = 2.0  # seconds after which a speed is worth telling
_SCANNING = re.compile(r"Scanning .* (\d+)/(\d+)\b")  # Ultralytics' bar while it reads labels


class Screen(RunProgress):
    """Progress on a rich console; `Screen.open` makes it.

    On a terminal the present phase has a line with a bar, which is gone when the phase is over. Elsewhere, in a pipe or
    a log, nothing but whole lines is written.

    Args:
        console: Where it is shown.
        output: Where JSON goes.
        log: Takes what others print.
        quiet: Only results are shown.
    """

    hears = True

    def __init__(self, console: Console, output: TextIO, log: Log, *, quiet: bool):
        self._console, self._output, self._log, self._quiet = console, output, log, quiet
        self._plain = not console.is_terminal or console.is_dumb_terminal
        self._begun = ("", 0.0, 0.0)  # the kind of work under way, how much was done when it was first told of, when
        self._found = ""
        self._bar = _Bar(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=16),
            _State(table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=console,
            transient=True,
            disable=self._plain or quiet,
            redirect_stdout=False,
            redirect_stderr=False,
            refresh_per_second=8,
            expand=True,
        )

    @classmethod
    @contextmanager
    def open(cls, *, verbose: bool = False, quiet: bool = False, as_json: bool = False) -> Iterator[Screen]:
        """Within the block the terminal shows what the screen is given and nothing that others print.

        Args:
            verbose: What others print, Ultralytics above all, is shown too.
            quiet: Only results are shown.
            as_json: stdout is for JSON alone, all else goes to stderr.

        Raises:
            UserError: Both verbose and quiet.
        """
        if verbose and quiet:
            raise UserError("--verbose and --quiet contradict each other; leave one of them out.")
        log = Log()
        with elsewhere(log, descriptors=not verbose) as (out, err):
            screen = cls(_Console(file=err if as_json else out, highlight=False), out, log, quiet=quiet)
            log.redrawn = screen._see
            if verbose:
                log.echo = screen.line
            try:
                yield screen
            finally:
                screen._bar.stop()

    def line(self, text: str, style: str = "") -> None:
        """One line of text, folded at the width of a terminal and left whole elsewhere."""
        if not self._quiet:
            self._console.print(Text(text, style), soft_wrap=self._plain)

    def result(self, *shown: RenderableType) -> None:
        """What the command was asked for, also where it is to be quiet."""
        for one in shown:
            self._console.print(one, soft_wrap=self._plain and isinstance(one, str), markup=False)

    def json(self, content: Any) -> None:
        """The result as JSON, on stdout."""
        self._output.write(json.dumps(content, indent=1) + "\n")
        self._output.flush()

    @contextmanager
    def waiting(self, title: str) -> Iterator[None]:
        """A short phase, of which nothing remains on the screen."""
        self._enter(title)
        try:
            yield
        finally:
            self._leave(title, None)

    def part(self, what: str, done: float, total: float, detail: str = "") -> None:
        """Show how far the present phase is, and from the speed so far how long the rest of this work takes."""
        if self._plain or self._quiet or not self._bar.tasks:
            return
        now = time.monotonic()
        if what != self._begun[0] or done < self._begun[1]:
            self._begun = (what, done, now)
        _, first, begun = self._begun
        ends = None
        if done > first and now - begun >= _SETTLED:
            ends = now + (now - begun) * (total - done) / (done - first)
        state = f"{what} {ceil(done)} of {total}" + (f", {detail}" if detail else "")
        self._bar.update(self._bar.tasks[0].id, completed=done, total=total, state=state, ends=ends, found=self._found)

    def passed(self, what: str, found: str = "") -> None:
        """Print a line where there is no bar; beside the bar, what was found last is shown."""
        self._found = found
        if self._plain:
            self.say(f"{what}: {found}" if found else what)

    def say(self, line: str) -> None:
        """Print one line under the phase that found it."""
        self.line(f"  {line}")

    def write_to(self, folder: Path, log: Path) -> None:
        """Say so, and put what others print into the log."""
        self._log.move(log)
        self.line(f"Output in {folder}; what Ultralytics says is in {log.name}")

    def _enter(self, title: str) -> None:
        self._log.write(f"--- {title}\n")
        self._begun, self._found = ("", 0.0, 0.0), ""
        self._bar.add_task(title, total=None, state="", ends=None, found="")
        self._bar.start()

    def _leave(self, title: str, seconds: float | None) -> None:
        self._bar.stop()
        for task in self._bar.tasks:
            self._bar.remove_task(task.id)
        if seconds is not None and not self._quiet:
            parts = ("✓ ", "green"), title, (f" ({_time(seconds)})", "dim")
            self._console.print(Text.assemble(*parts), soft_wrap=self._plain)

    def _see(self, drawn: str) -> None:
        """Ultralytics has redrawn a bar."""
        if found := _SCANNING.search(drawn):
            self.part("label file", int(found[1]), int(found[2]))


class _Console(Console):
    """A console that is as wide as the terminal that it writes to, wherever the standard streams lead."""

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and lines."""
        if self._width is None and self.is_terminal and not self.is_dumb_terminal:
            try:
                return ConsoleDimensions(*os.get_terminal_size(self.file.fileno()))
            except (OSError, ValueError):
                pass
        return super().size


class _Bar(Progress):
    """A bar that leaves room behind it for the ^C that a terminal writes, which would begin another line."""

    def get_renderable(self) -> RenderableType:
        """The bar, a little narrower than the terminal."""
        return _Narrower(super().get_renderable())


class _Narrower(NamedTuple):
    """What is shown, three columns narrower."""

    shown: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.shown, options.update(width=max(options.max_width - 3, 1)))


class _State(ProgressColumn):
    """What is under way, how long it will take, and what was found last."""

    def render(self, task: Task) -> Text:
        """One line; a narrow terminal shows its beginning."""
        state, ends, found = (task.fields[name] for name in ("state", "ends", "found"))
        left = f"{_clock(max(ends - time.monotonic(), 0.0))} left" if ends else ""
        return Text(", ".join(filter(None, (state, left, found))))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{_clock(seconds)} min" if seconds < 3600 else _clock(seconds)
