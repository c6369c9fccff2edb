"""What a measurement reads off its own process."""

from __future__ import annotations

import contextlib
import platform
import resource
from pathlib import Path

__all__ = ["forget_peak", "peak_megabytes"]


def forget_peak() -> None:
    """Where the system can (Linux), let the peak start again from what is resident now: imports peak higher."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_megabytes() -> float:
    """Largest resident memory of this process so far, MB (10⁶ bytes)."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
