"""Values of options: against their annotations, and as people write them."""

from __future__ import annotations

import re
from math import isfinite
from numbers import Real
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from yoloprune.errors import UserError

__all__ = [
    "kinds_of",
    "parse_budget",
    "parse_count",
    "parse_gflops",
    "parse_ms",
    "parse_names",
    "parse_ratio",
    "parse_speedup",
    "read_text",
    "typed",
]

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}
_EXPECTED = {
    dict: "a mapping",
    list: "a list of names",
    str: "a name or a path",
    bool: "true or false",
    float: "a number",
    int: "a whole number",
}


def kinds_of(annotation: Any) -> set[type]:
    """The types that an annotation allows, `NoneType` among them where None is one."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return {get_origin(kind) or kind for kind in kinds}


def typed(name: str, value: Any, annotation: Any) -> Any:
    """Return the value of an option as its annotation has it.

    Finite numbers of any kind, NumPy's too, become int or float, whole ones int where an int may be given; a bool is no
    number.

    Raises:
        UserError: The value is of another type.
    """
    kinds = kinds_of(annotation)
    if isinstance(value, Real) and not isinstance(value, bool) and isfinite(value):
        if int in kinds and value == int(value):
            return int(value)
        if float in kinds:
            return value if type(value) is int else float(value)
    elif isinstance(value, tuple(kinds - {int, float})):
        return value
    raise UserError(_not_understood(f"{name}={value!r}", kinds))


def read_text(flag: str, text: str, annotation: Any) -> Any:
    """Return what was typed on the command line as the type of its option.

    Raises:
        UserError: It is no number where one is expected.
    """
    kinds = kinds_of(annotation)
    if str in kinds or list in kinds:
        return text
    try:
        number = float(text)
        if float not in kinds and number != int(number):
            raise ValueError
    except (ValueError, OverflowError):
        raise UserError(_not_understood(f"{flag} {text}", kinds - {NoneType})) from None
    return int(number) if int in kinds and isfinite(number) and number == int(number) else number


def _not_understood(given: str, kinds: set[type]) -> str:
    expected = next(text for kind, text in _EXPECTED.items() if kind in kinds)
    leave = ", or leave it out" if NoneType in kinds else ""
    return f"{given} is not understood; give {expected}{leave}."


def parse_gflops(text: str) -> float:
    """GFLOPs as people write them: "6.2", "14G", "14 GFLOPs".

    Raises:
        UserError: It is none of these.
    """
    found = re.fullmatch(r"([-+]?[\d.]+(?:e[-+]?\d+)?)\s*(?:g|gflops?)?", text.strip().lower())
    try:
        return float(found[1]) if found else float(text)
    except ValueError:
        more = (
            "; a share of the model's own GFLOPs is given as --target-ratio 0.5" if text.strip().endswith("%") else ""
        )
        raise UserError(f"--target-gflops {text} is not a number of GFLOPs; write it as 6.2{more}.") from None


def parse_ratio(text: str) -> float:
    """A share: "0.5" or "50%".

    Raises:
        UserError: It is none.
    """
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        return float(number) / (100 if percent else 1)
    except ValueError:
        raise UserError(f"--target-ratio {text} is not a number; write it as 0.5 or 50%.") from None


def parse_ms(text: str) -> float:
    """Milliseconds: "12" or "12 ms".

    Raises:
        UserError: It is none.
    """
    try:
        return float(text.strip().lower().removesuffix("ms"))
    except ValueError:
        raise UserError(f"--target-ms {text} is not a number of milliseconds; write it as 12.") from None


def parse_speedup(text: str) -> float:
    """How many times as fast: "2" or "2x".

    Raises:
        UserError: It is none.
    """
    try:
        return float(text.strip().lower().removesuffix("x"))
    except ValueError:
        raise UserError(f"--target-speedup {text} is not a number; write it as 2.") from None


def parse_count(text: str) -> int:
    """A number of parameters, such as "1500000", "1.5M" or "900k".

    Raises:
        UserError: It is none, or a unit seems to be missing.
    """
    found = re.fullmatch(r"([-+]?[\d.]+(?:e[-+]?\d+)?)\s*([kmgb]?)", text.strip().lower())
    try:
        count = float(found[1]) * _FACTORS[found[2]]
        if 0 < count < 1000 and not found[2]:
            raise UserError(f"--target-params {text} is too few to be meant; write millions as {found[1]}M.")
        return round(count)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{text!r} is not a number of parameters; write it as 1500000 or 1.5M.") from None


def parse_budget(text: str) -> float:
    """Seconds of a budget such as "90s", "30m", "1.5h" or "1h30m".

    Raises:
        UserError: It is none.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text.replace(" ", "").lower())
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not seconds or "".join(a + b for a, b in parts) != text.replace(" ", "").lower():
        raise UserError(f"{text!r} is no time budget; give one such as 30m, 90s or 1h30m.")
    return seconds


def parse_names(text: str) -> list[str]:
    """Names with commas between them."""
    return [part.strip() for part in text.split(",") if part.strip()]
