"""Values of options: against their annotations, and times and names as people write them."""

from __future__ import annotations

import re
from math import isfinite
from numbers import Real
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from yoloprune.errors import UserError

__all__ = ["parse_budget", "parse_names", "typed"]

_UNITS = {"s": 1, "m": 60, "h": 3600}
_EXPECTED = {
    dict: "a mapping",
    list: "a list of names",
    str: "a name or a path",
    bool: "true or false",
    float: "a number",
    int: "a whole number",
}


def typed(name: str, value: Any, annotation: Any) -> Any:
    """Return the value of an option as its annotation has it.

    Finite numbers of any kind, NumPy's too, become int or float, whole ones int where an int may be given; a bool is no
    number.

    Raises:
        UserError: The value is of another type.
    """
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    kinds = {get_origin(kind) or kind for kind in kinds}
    if isinstance(value, Real) and not isinstance(value, bool) and isfinite(value):
        if int in kinds and value == int(value):
            return int(value)
        if float in kinds:
            return value if type(value) is int else float(value)
    elif isinstance(value, tuple(kinds - {int, float})):
        return value
    expected = next(text for kind, text in _EXPECTED.items() if kind in kinds)
    leave = ", or leave it out" if NoneType in kinds else ""
    raise UserError(f"{name}={value!r} is not understood; give {expected}{leave}.")


def parse_budget(text: str) -> float:
    """Seconds of a budget such as "90s", "30m", "1.5h" or "1h30m".

    Raises:
        UserError: It is none.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text.replace(" ", "").lower())
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not seconds or "".join(a + b for a, b in parts) != text.replace(" ", "").lower():
        raise UserError(f"{text!r} is no time budget; give one such as 30m, 90s or 1h30m.")
    return seconds


def parse_names(text: str) -> list[str]:
    """Names with commas between them."""
    return [part.strip() for part in text.split(",") if part.strip()]
