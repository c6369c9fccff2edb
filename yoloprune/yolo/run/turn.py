"""One run at a time in a process: torch's and Ultralytics' global state would be shared by two of them."""

from __future__ import annotations

import threading

__all__ = ["turn"]

turn = threading.RLock()
"""Held by the thread whose run is prepared or under way; those of other threads wait."""
