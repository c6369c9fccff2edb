"""What `yoloprune v8` and `yoloprune prune` have in common: the options of a run, and starting it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from yoloprune.yolo.run.declared import OUTPUT, TRAINING, WEIGHTS, Declared, declared
from yoloprune.yolo.run.options import Options
from yoloprune.yolo.run.typed import kinds_of

from .errors import reported

__all__ = ["DEFAULTS", "RECIPE", "CommandSpec", "run_command"]

_TYPES = get_type_hints(Options)

DEFAULTS = {"val": True, "export": "onnx", "project": "runs/prune"}
"""What the command does by default where Python does nothing."""

RECIPE = dict.fromkeys(("epochs", "batch"), "as the recipe says")
"""Options whose default on the command line is the recipe's, for the help."""


@dataclass(frozen=True)
class CommandSpec:
    """How a command that runs the pipeline differs from the others.

    Attributes:
        name: Of the command.
        embedded: Whether the embedded weights are pruned where none are given.
        check: Raises UserError where the command is not for the loaded model; gets the model and its file.
        shown: What stands for the default of an option in its help, by name.
    """

    name: str
    embedded: bool = False
    check: Callable[[Any, Path], None] = lambda *_: None
    shown: dict[str, str] = field(default_factory=dict)


def run_command(spec: CommandSpec, text: str) -> Callable[..., None]:
    """Make the function of a command that runs the pipeline; `text` is its help."""

    def command(**given: Any) -> None:
        with reported():
            from .start import start  # here, so that --help needs neither torch nor Ultralytics

            start(spec, given)

    parameters = [
        *_own(spec),
        *(_parameter(name, *what, spec) for name, what in declared(Options).items() if what[1].panel),
    ]
    parameters.sort(key=lambda p: p.name != "words")  # the argument comes first
    command.__signature__ = inspect.Signature(parameters)
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = text
    return command


def _parameter(name: str, of: Any, what: Declared, spec: CommandSpec) -> inspect.Parameter:
    """The parameter of an option; values are read by `start`, so that a wrong one is answered in one sentence."""
    default = DEFAULTS.get(name, of.default if of.default is not MISSING else None)
    dashed = name.replace("_", "-")
    switch = bool in kinds_of(_TYPES[name])
    flags = what.flags or ((f"--{dashed}/--no-{dashed}",) if switch else (f"--{dashed}",))
    shown = spec.shown.get(name) or what.shown
    if not shown and switch:
        shown = dashed if default else "off" if "/" not in flags[0] else flags[0].split("--")[-1]
    elif not shown and default is not None:
        shown = str(default)
    if switch and "/" not in flags[0]:
        shown = ""
    return _typer_option(
        name, bool if switch else str, *flags, panel=what.panel, text=what.help, shown=shown, metavar=what.metavar
    )


def _typer_option(
    name: str, kind: type, *flags: str, panel: str, text: str, shown: str = "", metavar: str | None = None
) -> inspect.Parameter:
    made = typer.Option(*flags, help=text, rich_help_panel=panel, show_default=shown or False, metavar=metavar)
    annotation = Annotated[kind | None, made]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _own(spec: CommandSpec) -> Iterator[inspect.Parameter]:
    """Parameters that are no options of a run."""
    words = typer.Argument(
        metavar="[WEIGHTS] [KEY=VALUE]...",
        help="Checkpoint (.pt) to prune; any other keyword of Ultralytics' train(), such as optimizer=AdamW mosaic=0.",
        show_default=False,
    )
    yield inspect.Parameter(
        "words", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[list[str] | None, words]
    )
    yield _typer_option(
        "weights", str, "--weights", "-w", panel=WEIGHTS, text="The same checkpoint, as an option.",
        shown=spec.shown.get("weights", ""),
    )  # fmt: skip
    yield _typer_option(
        "recipe", str, "--recipe", panel=WEIGHTS, shown=spec.shown.get("recipe", "custom"),
        text="Options from a YAML file: coco, custom or quick (in cfg/), or a path. Typed ones go first.",
    )  # fmt: skip
    yield _typer_option("lr0", str, "--lr0", panel=TRAINING, text="Initial learning rate.", shown="as the recipe says")
    yield _typer_option("no_export", bool, "--no-export", panel=OUTPUT, text="Do not export the finished model.")
    yield _typer_option(
        "resume", str, "--resume", panel=OUTPUT,
        text="Go on with the interrupted run in this folder, with its own options.",
    )  # fmt: skip
