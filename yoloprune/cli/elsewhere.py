"""What others print while a command works: into the run's log instead of onto the screen.

Ultralytics logs, draws bars and prints, libraries warn, worker processes and C code write to the file descriptors
themselves. All of it goes to one file, so that the screen is the command's alone.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

__all__ = ["Log", "elsewhere"]

_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\^_])")


class Log(io.TextIOBase):
    """A text stream into a file: complete lines, without colours and without what a bar has drawn over.

    Until there is a file for them, lines wait in a nameless one.

    Attributes:
        echo: Is given every line too.
        redrawn: Is given each state of a line that redraws itself.
    """

    encoding = "utf-8"

    def __init__(self):
        self.echo = self.redrawn = _ignore
        self._line, self._path = "", None
        self._lock = threading.RLock()
        self._followers: list[int] = []
        with tempfile.TemporaryFile() as file:
            self._descriptor = os.dup(file.fileno())

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """Descriptor of the file, for those who hand it to other processes."""
        return self._descriptor

    def write(self, text: str) -> int:
        """Write those lines that are complete."""
        with self._lock:
            *lines, self._line = (self._line + text).split("\n")
            for line in lines:
                self._append(_final(line))
            drawn, _, last = self._line.rpartition("\r")
            if drawn and last:
                self._line = f"\r{last}"  # a bar redraws its line a thousand times
            if "\r" in self._line:
                self.redrawn(_final(self._line))
        return len(text)

    def move(self, path: Path) -> None:
        """Append to this file from now on; what has waited for it comes first."""
        if path == self._path:
            return
        with self._lock, contextlib.suppress(OSError):
            waiting = b""
            if self._path is None:
                os.lseek(self._descriptor, 0, os.SEEK_SET)
                waiting = os.read(self._descriptor, os.fstat(self._descriptor).st_size)
            no_link = getattr(os, "O_NOFOLLOW", 0)  # in a folder that came from elsewhere it might lead anywhere
            opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | no_link, 0o666)
            os.write(opened, waiting)
            for descriptor in (self._descriptor, *self._followers):
                os.dup2(opened, descriptor)
            os.close(opened)
            self._path = path

    def follow(self, descriptor: int) -> None:
        """Have a file descriptor lead to where the log is, also after a `move`."""
        os.dup2(self._descriptor, descriptor)
        self._followers.append(descriptor)

    def finish(self) -> None:
        """Write the last line, and clean what came by descriptors."""
        with self._lock, contextlib.suppress(OSError):
            if self._line:
                self._append(_final(self._line))
                self._line = ""
            self._followers.clear()
            self.echo = self.redrawn = _ignore  # who has kept the stream may write later
            os.close(self._descriptor)
            self._descriptor = -1  # the number may be another file's soon
            if self._path and re.search(rb"[\x1b\r]", written := self._path.read_bytes()):
                lines = map(_final, written.decode(errors="replace").split("\n"))
                self._path.write_text("\n".join(lines), encoding="utf-8")

    def _append(self, line: str) -> None:
        with contextlib.suppress(OSError):  # a full disk ends a run by what matters, not by its log
            os.write(self._descriptor, f"{line}\n".encode(errors="backslashreplace"))
        self.echo(line)


@contextlib.contextmanager
def elsewhere(log: Log, *, descriptors: bool = True) -> Iterator[tuple[TextIO, TextIO]]:
    """Within the block all that is printed goes to the log, but for what is written to the two streams that it yields.

    Args:
        log: The log; finished at the end.
        descriptors: Whether what is written to the file descriptors goes there too, or else to stderr.

    Yields:
        The streams that were stdout and stderr.
    """
    out, err = sys.stdout, sys.stderr
    logger = logging.getLogger("ultralytics")
    streams = {handler: handler.stream for handler in logger.handlers if isinstance(handler, logging.StreamHandler)}
    with contextlib.ExitStack() as stack:
        stack.callback(log.finish)
        lead = log.follow if descriptors else partial(os.dup2, 2)
        kept = [stack.enter_context(_kept(stream, number, lead)) for number, stream in ((1, out), (2, err))]
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        for handler in streams:
            handler.stream = log  # setStream would flush the one before, which may be closed by now
        try:
            yield kept[0], kept[1]
        finally:
            for handler in logger.handlers:  # Ultralytics may have been imported meanwhile
                if getattr(handler, "stream", None) is log:
                    handler.stream = streams.get(handler, sys.__stdout__ or out)


@contextlib.contextmanager
def _kept(stream: TextIO, number: int, lead: Callable[[int], Any]) -> Iterator[TextIO]:
    """A stream to where `stream` goes, while its file descriptor, if it is this one, leads elsewhere."""
    try:
        own = stream.fileno() == number
    except (AttributeError, OSError, ValueError):  # a notebook's, a test's, or none at all
        own = False
    if not own:
        yield stream or io.StringIO()
        return
    stream.flush()
    with open(os.dup(number), "w", encoding=stream.encoding, errors="backslashreplace") as kept:
        lead(number)
        try:
            yield kept
        finally:
            os.dup2(kept.fileno(), number)


def _ignore(line: str) -> None:
    pass


def _final(line: str) -> str:
    """A line as a terminal would show it in the end."""
    return _ESCAPES.sub("", line.rstrip("\r")).rpartition("\r")[2]
