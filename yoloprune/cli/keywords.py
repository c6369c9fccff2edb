"""Values as people type them: key=value pairs and numbers with a unit."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from yoloprune.errors import UserError

__all__ = ["parse_batch", "parse_count", "parse_number", "parse_pairs"]

_UNITS = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}


def parse_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """Turn `key=value` words into a dictionary; values are read as Ultralytics reads them.

    Raises:
        UserError: A word is not of this form, or a key is there twice.
    """
    keywords = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier() or not value:
            raise UserError(f"{pair!r} is not understood; Ultralytics' train keywords are given as key=value.")
        if key in keywords:
            raise UserError(f"{key}= is given twice; leave one of them out.")
        keywords[key] = _value(value)
    return keywords


def _value(text: str) -> Any:
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def parse_count(text: str) -> int:
    """Read a number of parameters, such as `1500000`, `1.5M` or `900k`.

    Raises:
        UserError: It is not a number.
    """
    factor = _UNITS.get(text[-1:].lower(), 1)
    try:
        return round(float(text[:-1] if factor != 1 else text) * factor)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{text!r} is not a number of parameters; write it as 1500000 or 1.5M.") from error


def parse_number(option: str, text: str, example: str) -> float:
    """Read the number that an option was given.

    Raises:
        UserError: It is none; the message shows the example.
    """
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{option} {text} is not a number; write it as {example}.") from error


def parse_batch(text: str) -> float:
    """Read a batch size as a number; `Options` says which ones there are.

    Raises:
        UserError: It is none.
    """
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"batch={text} is no number; give a number of images, -1, or a share of GPU memory.") from error
