"""What can be told of a data set from its path alone. Imports nothing slow."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from yoloprune.errors import UserError, did_you_mean

__all__ = ["check_data_path", "shipped_data"]


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
