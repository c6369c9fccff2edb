"""How an option is declared: once, as a field of `Options` that carries all that is said and checked of it.

The command line, the signature and docstring of `yoloprune.prune`, recipes, args.yaml and README's table come from it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import Field, dataclass, field, fields
from typing import Any

from yoloprune.errors import UserError, did_you_mean

__all__ = [
    "DATA",
    "OUTPUT",
    "PRUNING",
    "TARGET",
    "TRAINING",
    "WEIGHTS",
    "Declared",
    "check_range",
    "declared",
    "option",
]

WEIGHTS = "Weights"
TARGET = "Target (exactly one)"
DATA = "Data and device"
PRUNING = "Pruning"
TRAINING = "Training"
OUTPUT = "Output"


@dataclass(frozen=True)
class Declared:
    """What is declared of an option beside its name, type and default.

    Attributes:
        help: What it means, one sentence or two.
        panel: Under which heading the command line's help shows it; "" where it is no option of the command line.
        flags: Its names on the command line; by default --name, and --name/--no-name for a switch.
        shown: What stands for the default in help texts where the field's own does not say it.
        metavar: What stands for the value in help texts.
        read: Makes a value of what was typed on the command line; by default the field's type says how.
        least: The smallest value allowed.
        above: Values must be larger than this.
        most: The largest value allowed.
        below: Values must be smaller than this.
        among: The values allowed.
        in_recipes: Whether a recipe may set it.
    """

    help: str
    panel: str
    flags: tuple[str, ...] = ()
    shown: str = ""
    metavar: str | None = None
    read: Callable[[str], Any] | None = None
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    among: Collection[str] | None = None
    in_recipes: bool = True


def option(default: Any, help: str, *, panel: str, **more: Any) -> Any:
    """A field of `Options`; `more` are the other attributes of `Declared`."""
    metadata = {"declared": Declared(help, panel, **more)}
    if isinstance(default, (list, dict)):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def declared(owner: Any) -> dict[str, tuple[Field, Declared]]:
    """The fields of a dataclass made of options, and what is declared of each, by name."""
    return {f.name: (f, f.metadata["declared"]) for f in fields(owner)}


def check_range(name: str, value: Any, what: Declared) -> None:
    """Check a value of the right type against what is declared.

    Raises:
        UserError: It is out of range.
    """
    if value is None:
        return
    if what.least is not None and value < what.least:
        raise UserError(f"{name}={value} is too small; the least is {what.least}.")
    if what.most is not None and value > what.most:
        raise UserError(f"{name}={value} is too large; the most is {what.most}.")
    if what.above is not None and not value > what.above:
        raise UserError(f"{name}={value} is out of range; give a number above {what.above:g}.")
    if what.below is not None and not value < what.below:
        raise UserError(f"{name}={value} is out of range; give a number below {what.below:g}.")
    if what.among is not None and value not in what.among:
        raise UserError(f"{name}={value!r} is unknown{did_you_mean(str(value), what.among)} ({', '.join(what.among)}).")
