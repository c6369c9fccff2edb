"""Ultralytics' first words on a machine, which must not be mixed with JSON."""

from __future__ import annotations

import contextlib
import sys

__all__ = ["import_ultralytics"]


def import_ultralytics(as_json: bool) -> None:
    """Import Ultralytics; where stdout is for JSON, it says on stderr that it writes its settings, and all else."""
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
        import ultralytics  # noqa: F401
