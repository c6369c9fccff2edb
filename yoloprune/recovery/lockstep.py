"""Forward passes that stop at chosen layers, so that many can go through a network side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["Walk", "pause"]

_current = threading.local()


class _Abandoned(BaseException):
    """Ends a pass that is no longer wanted."""


class Walk:
    """A function that runs until it calls `pause`, and goes on at the next `step`.

    A coroutine whose body is ordinary code: a network's forward, with `pause` called from hooks. It runs in a thread
    of its own because Python has no other way to suspend a stack of foreign calls; only one thread runs at a time.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._message: Any = None
        self._error: BaseException | None = None
        self._abandoned = self._done = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self) -> Any:
        """Go on to the next `pause` and return what it was given; None once the function has returned."""
        if self._done:
            return None
        self._go.release()
        self._back.acquire()
        if self._error is not None:
            raise self._error
        return self._message

    def close(self) -> None:
        """End the walk where it stands."""
        self._abandoned = True
        self._go.release()
        self._thread.join()

    def _run(self) -> None:
        _current.walk = self
        try:
            self._await_turn()
            with torch.no_grad():
                self._function()
        except _Abandoned:
            pass
        except BaseException as error:
            self._error = error
        self._message, self._done = None, True
        self._back.release()

    def _await_turn(self) -> None:
        self._go.acquire()
        if self._abandoned:
            raise _Abandoned


def pause(message: Any) -> None:
    """Hand a message to whoever stepped the present walk, and wait for the next step; elsewhere do nothing."""
    walk: Walk | None = getattr(_current, "walk", None)
    if walk is None:
        return  # somebody else runs the network, in a thread of theirs
    walk._message = message
    walk._back.release()
    walk._await_turn()
