"""One process at a time in the folder of a run."""

from __future__ import annotations

import errno
import os
import socket
import weakref
from contextlib import suppress
from pathlib import Path

from yoloprune.errors import UserError

__all__ = ["LOCK", "FolderLock"]

LOCK = ".lock"
"""Name of the file that a process holds while it works in a folder."""

_BYTE = 1 << 20  # the locked byte, behind the holder's name, since Windows lets nobody read what is locked
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # whose target would be written to
_held: set[Path] = set()  # by this process, to which the system grants a lock a second time


class FolderLock:
    """The right to write into a folder, from the making of this object to its `release` or the end of the process.

    The system gives the lock back when the process ends, however it does, so that none is stale. Processes forked from
    it, such as those of data loaders, do not inherit it: one that outlives a kill does not keep the folder.

    Args:
        folder: The folder, which is there.

    Raises:
        UserError: Another run is working in the folder, or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder.absolute() / LOCK
        if self._path in _held:
            raise UserError(_in_use(folder, "this process"))
        try:
            handle = _taken(self._path)
        except OSError as error:
            raise UserError(f"The folder '{folder}' cannot be written ({error.strerror}).") from error
        if handle is None:
            raise UserError(_in_use(folder, _holder(self._path)))
        _held.add(self._path)
        self.release = weakref.finalize(self, _let_go, self._path, handle, os.getpid())


def _taken(path: Path) -> int | None:
    """An open and locked file of that path, or None where another process has it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o644)
        try:
            _lock(handle)
            same = path.exists() and os.path.samestat(os.fstat(handle), path.stat())
            if same:  # and not one that was removed, with its folder perhaps, before it was locked here
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return handle
        except OSError as error:
            os.close(handle)
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                return None
            raise
        os.close(handle)


def _lock(handle: int) -> None:
    """Lock an open file.

    Raises:
        OSError: Another process holds the lock.
    """
    if os.name == "nt":
        import msvcrt

        os.lseek(handle, _BYTE, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _BYTE)  # flock's locks would be inherited by forks


def _let_go(path: Path, handle: int, process: int) -> None:
    _held.discard(path)
    if os.getpid() == process:
        with suppress(OSError):  # Windows does not remove what is open
            path.unlink()
    os.close(handle)
    if os.name == "nt":
        with suppress(OSError):
            path.unlink()


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()[:200] or "another process"
    except (OSError, UnicodeDecodeError):
        return "another process"


def _in_use(folder: Path, holder: str) -> str:
    return f"Another run ({holder}) is working in the folder '{folder}'; wait until it has ended, or stop it."
