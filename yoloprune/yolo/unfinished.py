"""Measurements of a long work on disk, so that the same work goes on where it was interrupted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from yoloprune.files import atomic

__all__ = ["Unfinished"]


class Unfinished:
    """Results that come one by one, each of them on disk before the next is worked for.

    A file that belongs to other work, or is damaged, is begun anew.

    Args:
        path: JSON file; None keeps nothing.
        work: Whatever decides the results, as bytes.

    Attributes:
        results: What has been found so far.
    """

    def __init__(self, path: Path | None, work: Iterable[bytes]) -> None:
        digest = hashlib.sha256()
        for part in work:
            digest.update(part)
        self.path, self._work = path, digest.hexdigest()
        self.results: list[Any] = []
        if path is not None and path.is_file():
            with suppress(ValueError, KeyError, TypeError, RecursionError):
                known = json.loads(path.read_text(encoding="utf-8"))
                if known["work"] == self._work and all(map(_is_measured, known["results"])):
                    self.results = list(known["results"])

    def add(self, result: Any) -> None:
        """Write down one more result; numbers and lists of them come back as they were."""
        self.results.append(result)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(self.path) as tmp:
                tmp.write_text(json.dumps({"work": self._work, "results": self.results}), encoding="utf-8")


def _is_measured(result: Any) -> bool:
    """Whether this is a number, or a list of numbers."""
    return all(type(value) in (int, float) for value in (result if isinstance(result, list) else [result]))
