"""What can be told of a checkpoint and of data from their paths alone. Imports nothing slow."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from yoloprune.errors import UserError, did_you_mean

__all__ = ["check_data_path", "check_path", "shipped_data", "told_apart"]


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


def check_data_path(data: str | None) -> None:
    """Check that there is a file or folder, or a data YAML of this name that Ultralytics ships; None is left alone.

    Raises:
        UserError: There is none.
    """
    if data is None or Path(data).exists():
        return
    shipped = shipped_data()
    if data in shipped:
        return
    near = did_you_mean(data, shipped) if "/" not in data and data.endswith((".yaml", ".yml")) else ""
    raise UserError(f"There is no data YAML or folder '{data}'{near if 'mean' in near else '; give its path.'}")


def shipped_data() -> list[str]:
    """Names of the data YAMLs that Ultralytics ships, found without importing it."""
    package = find_spec("ultralytics")
    folder = Path(package.origin).parent / "cfg" / "datasets" if package else Path()
    return sorted(path.name for path in folder.glob("*.yaml"))


def told_apart(paths: list[str]) -> list[str]:
    """File names, with as many folders before them as tell them apart.

    Raises:
        UserError: One path is there twice.
    """
    parts = [Path(path).absolute().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(each[-depth:]) for each in parts]
        if len(set(labels)) == len(labels):
            return labels
    twice = next(path for path, label in zip(paths, labels, strict=True) if labels.count(label) > 1)
    raise UserError(f"'{twice}' is named twice; give different checkpoints.")
