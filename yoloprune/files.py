"""Writing files so that a kill at any moment leaves either the old file or the new one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic", "check_folder"]


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it to `path` when the block ends without an error.

    The suffix is kept, since many writers choose a format by it.

    Raises:
        OSError: The file cannot be written; `filename` is `path`, which a failing write alone does not name.

    Examples:
        >>> with atomic("plan.json") as tmp:
        ...     _ = tmp.write_text("{}")
    """
    path = Path(path)
    tmp = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield tmp
        os.replace(tmp, path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        tmp.unlink(missing_ok=True)


def check_folder(folder: Path) -> None:
    """Check that a folder, made or not yet, can be written to, and leave nothing behind.

    Raises:
        OSError: It cannot; `filename` is the folder of it that exists.
    """
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        # Permission bits do not tell: a read-only file system or a full quota shows only in a write.
        handle, probe = tempfile.mkstemp(prefix=".probe", dir=existing)
        os.close(handle)
        os.unlink(probe)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(existing)) from error
