"""Values of options against their annotations."""

from __future__ import annotations

from math import isfinite
from numbers import Real
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from yoloprune.errors import UserError

__all__ = ["typed"]

_EXPECTED = {
    dict: "a mapping",
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
