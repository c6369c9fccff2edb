"""Options that the commands for one checkpoint share, and their reading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from yoloprune.errors import UserError
from yoloprune.paths import check_path
from yoloprune.pipeline.typed import read_text

from .keywords import parse_pairs

__all__ = [
    "Data",
    "Device",
    "Download",
    "Imgsz",
    "Json",
    "Keep",
    "Trust",
    "Verbose",
    "Weights",
    "WeightsToo",
    "read_weights",
    "read_whole",
    "read_words",
    "with_default",
]


def with_default(text: str, default: str) -> str:
    """A help text that ends with what stands for the default, in typer's manner but without its parentheses."""
    return f"{text} [dim]\\[default: {escape(default)}][/]" if default else text


Weights = Annotated[
    str | None, typer.Argument(metavar="WEIGHTS", help="Checkpoint (.pt); also as --weights.", show_default=False)
]
WeightsToo = Annotated[str | None, typer.Option("--weights", "-w", hidden=True)]
Data = Annotated[
    str | None,
    typer.Option("--data", help=with_default("Data YAML.", "what the weights were trained on"), metavar="<path>"),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", help=with_default("cpu, 0, mps …, as in Ultralytics.", "Ultralytics chooses"), metavar="<name>"
    ),
]
Download = Annotated[
    bool,
    typer.Option(
        "--download", help="Fetch the data from the URL that the data YAML names, if they are absent.", metavar=""
    ),
]
Imgsz = Annotated[
    str | None,
    typer.Option(
        "--imgsz", help=with_default("Image size in px.", "what the weights were trained at"), metavar="<number>"
    ),
]
Keep = Annotated[
    str | None,
    typer.Option(
        "--keep",
        help="Modules whose output channels stay: names or patterns, with commas between them, such as "
        "'model.0,model.*.cv1'.",
        show_default=False,
        metavar="<names>",
    ),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Unpickle without restrictions; code in the file runs.", metavar="")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.", metavar="")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show what Ultralytics says, too.", metavar="")]


def read_whole(flag: str, text: str | None, least: int | None = None) -> int | None:
    """A whole number that was typed for an option; None where nothing was.

    Raises:
        UserError: It is none, or too small.
    """
    number = None if text is None else read_text(flag, text, int)
    if number is not None and least is not None and number < least:
        raise UserError(f"{flag} {text} is too small; the least is {least}.")
    return number


def read_words(words: Sequence[str | None], weights: str | None) -> tuple[Path | None, dict[str, Any]]:
    """Sort what was typed without an option into the checkpoint and key=value pairs.

    Args:
        words: What was typed; None where nothing was.
        weights: What was typed as --weights.

    Raises:
        UserError: There is more than one checkpoint, or a pair is not understood.
    """
    given = [word for word in words if word is not None]
    pairs = [word for word in given if "=" in word and word.partition("=")[0].isidentifier()]
    files = [word for word in given if word not in pairs]
    if len(files) + (weights is not None) > 1:
        raise UserError(
            f"{files[-1]!r} is not understood; one checkpoint is taken at a time, and Ultralytics' keywords are given "
            "as key=value."
        )
    path = files[0] if files else weights
    return path if path is None else Path(path), parse_pairs(pairs)


def read_weights(words: Sequence[str | None], weights: str | None, command: str) -> tuple[Path, dict[str, Any]]:
    """The same for a command that needs a checkpoint, which must be there.

    Raises:
        UserError: It is not.
    """
    path, pairs = read_words(words, weights)
    if path is None:
        raise UserError(f"No weights were given; name a checkpoint: yoloprune {command} best.pt.")
    check_path(path)
    return path, pairs
