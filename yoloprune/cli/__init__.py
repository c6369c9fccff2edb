"""The command line, `yoloprune`."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line; the entry point of the package."""
    from .app import app

    app(prog_name="yoloprune")
