"""Writing files so that a kill at any moment leaves either the old file or the new one, and reading only files."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from math import inf
from pathlib import Path

from yoloprune.errors import UserError

__all__ = ["around_replacing", "atomic", "check_folder", "check_regular", "clean_leftovers", "readable", "workplace"]

# The number of the process that made them is part of the names of all temporary files and folders here.
_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp(\.[^.]*)?|\.(?:probe|work)-(\d+)-\w{8}")
_in_use: set[Path] = set()  # by this process

around_replacing: list[Callable[[Path, Path], AbstractContextManager]] = []
"""Contexts in which `atomic` renames a complete temporary file; each is made of the path and that file."""

ANEW = "remove it and resume again: it is then made anew"
"""What a user can do about a file of a run that is not as it was."""

_LARGEST = {".json": 64e6, ".yaml": 1e6}  # bytes


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it to `path` when the block ends without an error.

    The suffix is kept, since many writers choose a format by it.

    Raises:
        UserError: `path` is a device or a pipe, which would be replaced too.
        OSError: The file cannot be written; `filename` is `path`, which a failing write alone does not name.

    Examples:
        >>> with atomic("plan.json") as tmp:
        ...     _ = tmp.write_text("{}")
    """
    path = Path(path)
    with suppress(FileNotFoundError, NotADirectoryError):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            raise UserError(f"'{path}' is not a regular file and is not replaced; give another one to write to.")
    tmp = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    _in_use.add(tmp.absolute())
    try:
        yield tmp
        with ExitStack() as around:
            for context in around_replacing:
                around.enter_context(context(path, tmp))
            os.replace(tmp, path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        tmp.unlink(missing_ok=True)
        _in_use.discard(tmp.absolute())


@contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """Within the block, an empty folder inside `folder`, from which a rename puts what was made into place.

    What earlier processes left in `folder` when they were killed is cleaned up first.
    """
    clean_leftovers(folder)
    place = folder.absolute() / f".work-{os.getpid()}-{secrets.token_hex(4)}"
    _in_use.add(place)
    try:
        place.mkdir()
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        _in_use.discard(place)


def clean_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders of this module from a folder, if the process that made them is gone.

    Only names that this module gives are touched. One of this process's own number that it is not using belongs to an
    earlier process of the same number, as containers have them.
    """
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        match = _TEMPORARY.fullmatch(path.name)
        if not match or path.is_symlink() or path.absolute() in _in_use:
            continue
        number = int(match[1] or match[3])
        if number != os.getpid() and _runs(number):
            continue
        with suppress(OSError):  # another process is cleaning up too
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _runs(number: int) -> bool:
    """Whether there is a process of this number, as far as can be told."""
    if os.name == "nt":  # where signal 0 would end it
        return True
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def check_folder(folder: Path) -> None:
    """Check that a folder, made or not yet, can be written to, and leave nothing behind.

    Raises:
        OSError: It cannot; `filename` is the folder of it that exists.
    """
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        # Permission bits do not tell: a read-only file system or a full quota shows only in a write.
        handle, probe = tempfile.mkstemp(prefix=f".probe-{os.getpid()}-", dir=existing)
        os.close(handle)
        Path(probe).unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(existing)) from error


def check_regular(path: str | Path, name: str | None = None) -> None:
    """Check that opening a path cannot block or have an effect, as a pipe or a device can.

    Args:
        path: The path.
        name: What to call it in the message; the path by default.

    Raises:
        UserError: It is no regular file.
        OSError: There is nothing at the path.
    """
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise UserError(f"'{name or path}' is not a regular file.")


@contextmanager
def readable(path: Path, remedy: str = ANEW) -> Iterator[None]:
    """Within the block, which reads a file of a run, whatever that raises becomes a sentence.

    Args:
        path: The file.
        remedy: What a user can do without it.

    Raises:
        UserError: It is missing or damaged.
    """
    try:
        if path.exists() and not (path.is_file() and path.stat().st_size <= _LARGEST.get(path.suffix, inf)):
            raise ValueError  # reading from a pipe might never end, and no such file is that large
        yield
    except (OSError, TypeError, KeyError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"'{path}' is missing or damaged; {remedy}.") from error
