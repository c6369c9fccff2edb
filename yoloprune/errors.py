"""The one exception for mistakes that a user can mend."""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(ValueError):
    """A mistake in what the user gave: one sentence that names the value and what to do.

    The command line prints the sentence and exits with code 2; from Python it is an ordinary exception.
    """
