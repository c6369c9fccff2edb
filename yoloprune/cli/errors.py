"""How commands end when something is wrong: one sentence on stderr and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from yoloprune.errors import UserError

__all__ = ["reported"]

_USER_ERROR = 2
_INTERRUPTED = 130  # what a shell reports for SIGINT


@contextmanager
def reported() -> Iterator[None]:
    """Turn a user's mistake into a sentence and exit code 2, Ctrl-C into a line and exit code 130."""
    try:
        yield
    except UserError as error:
        typer.echo(f"yoloprune: {error}", err=True)
        raise typer.Exit(_USER_ERROR) from None
    except KeyboardInterrupt as error:
        typer.echo(f"\nyoloprune: {str(error) or 'Interrupted; nothing was written.'}", err=True)
        raise typer.Exit(_INTERRUPTED) from None
