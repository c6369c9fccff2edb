"""Where the files that ship with the package are: recipes, dataset descriptions, embedded data and weights."""

from __future__ import annotations

from pathlib import Path

__all__ = ["resource"]

_PACKAGE = Path(__file__).resolve().parent


def resource(*parts: str) -> Path:
    """Return the path of a file or folder that ships with yoloprune.

    A wheel carries the folders `cfg`, `datasets` and `weights` inside the package; in a checkout (and an editable
    install) they are at the repository root.

    Args:
        *parts: The path below the repository root, such as `"weights", "yolov8n-digits.pt"`.

    Raises:
        FileNotFoundError: The installation lacks that file.

    Examples:
        >>> resource("cfg").is_dir()
        True
    """
    for root in (_PACKAGE / "_data", _PACKAGE.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise FileNotFoundError(f"{'/'.join(parts)} is not part of this installation of yoloprune; install it again")
