"""One piece of work at a time on models and on what PyTorch is set to, from however many threads."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["exclusive", "turn"]

F = TypeVar("F", bound=Callable[..., Any])

_LOCK = threading.RLock()


def exclusive(function: F) -> F:
    """Let a function wait while another thread is in any function that is decorated so.

    They put a model into inference mode, look into it by hooks and switch kernels of the whole process, so two of them
    would see each other's activations and put back each other's settings. Python runs one thread at a time and PyTorch
    uses all cores for one operator: little would be gained side by side.
    """

    @functools.wraps(function)
    def alone(*args: Any, **kwargs: Any) -> Any:
        with _LOCK:
            return function(*args, **kwargs)

    return alone  # type: ignore[return-value]


turn = threading.RLock()
"""Held by the thread whose run is prepared or under way; those of other threads wait."""
