"""Other values where code of a library looks things up: for the time of a block, or for one copy of a function."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from types import FunctionType, MethodType
from typing import Any

__all__ = ["rebound", "replaced"]

_LOCK = threading.Lock()
_OPEN: dict[tuple[int, str], list[_Block]] = {}  # blocks that are running, by attribute, in the order of their starts


class _Block:
    def __init__(self, before: Any) -> None:
        self.before = before


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Within the block, the attribute of a module or an object has this value; afterwards the one that it had.

    Blocks of several threads may overlap: what was there before the first is there after the last.
    """
    key = id(owner), name
    with _LOCK:
        block = _Block(getattr(owner, name))
        blocks = _OPEN.setdefault(key, [])
        blocks.append(block)
        setattr(owner, name, value)
    try:
        yield
    finally:
        with _LOCK:
            place = blocks.index(block)
            del blocks[place]
            if place == len(blocks):
                setattr(owner, name, block.before)
            else:  # whoever came next found this block's value, which is not the one to return to
                blocks[place].before = block.before
            if not blocks:
                del _OPEN[key]


def rebound(function: Callable[..., Any], **instead: Any) -> Callable[..., Any]:
    """A copy of a Python function that finds these values where it looks up globals of these names.

    Unlike `replaced` it changes nothing that other threads can see, or undo.

    Args:
        function: A function or a bound method, undecorated.
        instead: What the copy finds, by name.

    Raises:
        LookupError: The function does not use one of the names, so that another version of it may do what the caller
            means to prevent.
    """
    plain = getattr(function, "__func__", function)
    for name in instead:
        if name not in plain.__code__.co_names:
            raise LookupError(f"{plain.__qualname__} of {plain.__module__} does not use {name}.")
    copy = FunctionType(
        plain.__code__, {**plain.__globals__, **instead}, plain.__name__, plain.__defaults__, plain.__closure__
    )
    copy.__kwdefaults__ = plain.__kwdefaults__
    return copy if plain is function else MethodType(copy, function.__self__)
