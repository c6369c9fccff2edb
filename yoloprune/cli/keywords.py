"""Values as people type them: key=value pairs."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from yoloprune.errors import UserError

__all__ = ["parse_pairs"]


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
