"""Options that the commands for one checkpoint share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["KEEP", "Imgsz", "Keep", "Trust", "Weights"]

KEEP = "Modules whose output channels stay: names or patterns, with commas between them, such as 'model.0,model.*.cv1'."

Weights = Annotated[Path, typer.Argument(help="Checkpoint (.pt).", show_default=False)]
Imgsz = Annotated[
    int | None, typer.Option("--imgsz", help="Image size in px.", show_default="what the weights were trained at")
]
Trust = Annotated[bool, typer.Option("--trust", help="Unpickle without restrictions; code in the file runs.")]
Keep = Annotated[str | None, typer.Option("--keep", help=KEEP, show_default=False)]
