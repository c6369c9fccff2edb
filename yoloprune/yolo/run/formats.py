"""Ultralytics' export formats: names and file names."""

from __future__ import annotations

from pathlib import Path

from ultralytics.engine.exporter import export_formats

from yoloprune.errors import UserError

from .keywords import did_you_mean

__all__ = ["check_format", "export_path"]


def _suffixes() -> dict[str, str]:
    table = export_formats()
    return {name: suffix for name, suffix in zip(table["Argument"], table["Suffix"], strict=True) if name != "-"}


def check_format(name: str) -> None:
    """Check the name of an export format.

    Raises:
        UserError: Ultralytics has no such format.
    """
    known = _suffixes()
    if name not in known:
        raise UserError(f"Unknown export format {name!r}{did_you_mean(name, known)} ({', '.join(known)}).")


def export_path(weights: Path, name: str) -> Path:
    """Where the export of `weights` goes: beside it, under the name that Ultralytics would give."""
    return weights.with_name(weights.stem + _suffixes()[name])
