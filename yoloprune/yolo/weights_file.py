"""What can be told of a checkpoint from its path alone. Imports nothing slow."""

from __future__ import annotations

from pathlib import Path

from yoloprune.errors import UserError

__all__ = ["check_path"]


def check_path(weights: str | Path) -> None:
    """Check that there is a file that may be a checkpoint.

    Raises:
        UserError: It is an address, is not there, is no ordinary file, or does not end in .pt.
    """
    path = Path(weights)
    if str(path).startswith(("http:/", "https:/")):  # a Path has one of the slashes only
        raise UserError(f"'{str(path).replace(':/', '://', 1)}' is no file; download it and give its path.")
    if not path.exists():
        raise UserError(f"There is no file '{path}'; give the path of a .pt checkpoint (nothing is downloaded).")
    if path.is_dir():
        raise UserError(f"'{path}' is a directory; give the path of a .pt checkpoint.")
    if not path.is_file():  # reading from a pipe or a device might never end
        raise UserError(f"'{path}' is not an ordinary file; give the path of a .pt checkpoint.")
    if path.suffix != ".pt":
        raise UserError(f"'{path}' does not end in .pt; give an Ultralytics checkpoint.")
