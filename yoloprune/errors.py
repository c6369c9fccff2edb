"""The one exception for mistakes that a user can mend, and a hint that many of them end with."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["UserError", "did_you_mean"]


class UserError(ValueError):
    """A mistake in what the user gave: one sentence that names the value and what to do.

    The command line prints the sentence and exits with code 2; from Python it is an ordinary exception.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return '; did you mean X?' for the closest known name, or '; choose one of the known ones'."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else "; choose one of the known ones"
