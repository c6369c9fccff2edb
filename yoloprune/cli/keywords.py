"""Values as people type them: key=value pairs."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from yoloprune.errors import UserError

__all__ = ["parse_pairs", "with_precision"]


_BITS = {"half": 16, "int8": 8}


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


def with_precision(keywords: dict[str, Any]) -> dict[str, Any]:
    """The keywords with `half=True` and `int8=True` said as Ultralytics says it since 8.4: `quantize=16`, `quantize=8`.

    Raises:
        UserError: Two of them are given, or one that is neither true nor false.
    """
    given = [name for name in ("half", "int8", "quantize") if name in keywords]
    if not given or given == ["quantize"]:
        return keywords
    name, value = given[0], keywords[given[0]]
    if len(given) > 1:
        raise UserError(f"{' and '.join(f'{n}=' for n in given)} all set the precision; give quantize= alone.")
    if not isinstance(value, bool):
        raise UserError(f"{name}={value} is not understood; give quantize={_BITS[name]}.")
    rest = {n: v for n, v in keywords.items() if n != name}
    return {**rest, "quantize": _BITS[name]} if value else rest


def _value(text: str) -> Any:
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
