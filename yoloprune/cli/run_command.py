"""What `yoloprune v8`, `v7`, `v5` and `prune` have in common: the options of a run, and starting it."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from yoloprune.deploy.formats import SUFFIXES
from yoloprune.errors import UserError
from yoloprune.pipeline.declared import DATA, OUTPUT, PRUNING, TARGET, TRAINING, WEIGHTS, Declared, declared
from yoloprune.pipeline.options import Options
from yoloprune.pipeline.typed import kinds_of

from .errors import reported
from .options import with_default

__all__ = [
    "DEFAULTS",
    "PAIRS",
    "PANELS",
    "RECIPE",
    "CommandSpec",
    "Flag",
    "flag_of",
    "flags_of",
    "of_family",
    "run_command",
]

_TYPES = get_type_hints(Options)

DEFAULTS = {"val": True, "export": "onnx", "project": "runs/prune"}
"""What the command does by default where Python does nothing."""

RECIPE = dict.fromkeys(("epochs", "batch", "lr0"), "as the recipe says")
"""Options whose default on the command line is the recipe's, for the help."""

PANELS = (TARGET, DATA, PRUNING, TRAINING, OUTPUT, WEIGHTS)
"""The headings of the help, in its order."""

PAIRS = "Any other keyword of Ultralytics' train(), such as optimizer=AdamW mosaic=0."
"""What is said of the key=value pairs."""

_PATHS = {"weights", "recipe", "data", "project", "resume"}


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


@dataclass(frozen=True)
class Flag:
    """An option of the command line, as the help shows it.

    Attributes:
        name: Name of the parameter.
        names: What is typed, as typer takes it: `--val/--no-val` for a switch that can be turned off.
        panel: Heading in the help.
        text: What it means.
        default: What stands for the default; "" where there is none.
        metavar: What stands for the value; "" for a switch.
        among: Values that a shell may complete.
    """

    name: str
    names: tuple[str, ...]
    panel: str
    text: str
    default: str = ""
    metavar: str = ""
    among: Collection[str] = ()

    def parameter(self) -> inspect.Parameter:
        """The parameter for typer; values are read by `start`, so that a wrong one is answered in one sentence."""
        text = with_default(self.text, self.default)
        option = typer.Option(
            *self.names,
            help=text,
            rich_help_panel=self.panel,
            show_default=False,
            metavar=self.metavar,
            autocompletion=lambda incomplete: [value for value in self.among if value.startswith(incomplete)],
        )
        annotation = Annotated[(str if self.metavar else bool) | None, option]
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def run_command(spec: CommandSpec, text: str) -> Callable[..., None]:
    """Make the function of a command that runs the pipeline; `text` is its help."""

    def command(**given: Any) -> None:
        with reported():
            from .start import start  # here, so that --help needs neither torch nor Ultralytics

            start(spec, given)

    parameters = [*_words(), *(flag.parameter() for flag in flags_of(spec.shown))]
    command.__signature__ = inspect.Signature(parameters)
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = text
    return command


def of_family(detector: Any, weights: Path, family: str, called: str) -> None:
    """Check that a command of one family is given a detector of it.

    Args:
        detector: The loaded detector.
        weights: Its file.
        family: The family's name, such as "v8".
        called: What people call it.

    Raises:
        UserError: It is another's, or for another task.
    """
    if detector.family != family or detector.task != "detect":
        raise UserError(
            f"{weights} is a {detector.family} model for the task {detector.task!r}, not a {called} detector; "
            f"use: yoloprune prune --weights {shlex.quote(str(weights))}"
        )


def flags_of(shown: Mapping[str, str]) -> list[Flag]:
    """The options of a command that runs the pipeline, heading by heading.

    Args:
        shown: What stands for the default of an option, by name, where its declaration does not say it.
    """
    options = (_flag(name, *what, shown.get(name, "")) for name, what in declared(Options).items() if what[1].panel)
    return sorted([*options, *_own(shown)], key=lambda flag: PANELS.index(flag.panel))


def flag_of(name: str, shown: str = "") -> Flag:
    """The option of a run of this name; `shown` stands for another default."""
    return _flag(name, *declared(Options)[name], shown)


def _flag(name: str, of: Any, what: Declared, given: str) -> Flag:
    kinds, dashed = kinds_of(_TYPES[name]), name.replace("_", "-")
    default = DEFAULTS.get(name, of.default if of.default is not MISSING else None)
    if bool in kinds:
        names = what.flags or (f"--{dashed}/--no-{dashed}",)
        shown = what.shown if "/" in names[0] else ""
        if "/" in names[0] and not shown:
            shown = "on" if default else "off" if "/--no-" in names[0] else names[0].rpartition("--")[2]
        return Flag(name, names, what.panel, what.help, shown)
    shown = given or what.shown or ("" if default is None else str(default))
    metavar = "<path>" if name in _PATHS else "<number>" if kinds & {int, float} else "<name>"
    metavar = "<names>" if list in kinds else metavar
    among = SUFFIXES if name == "export" else what.among or ()
    return Flag(name, what.flags or (f"--{dashed}",), what.panel, what.help, shown, what.metavar or metavar, among)


def _own(defaults: Mapping[str, str]) -> list[Flag]:
    """Options that are no options of a run."""
    shown = defaults.get
    return [
        Flag("lr0", ("--lr0",), TRAINING, "Initial learning rate.", shown("lr0", ""), "<number>"),
        Flag("no_export", ("--no-export",), OUTPUT, "Do not export the finished model."),
        Flag(
            "resume",
            ("--resume",),
            OUTPUT,
            "Continue the interrupted run in this folder, with its own options.",
            metavar="<path>",
        ),
        Flag("dry_run", ("--dry-run",), OUTPUT, "Plan, say what would be done, and write nothing."),
        Flag("json", ("--json",), OUTPUT, "Print what results.json holds, and nothing else, on stdout."),
        Flag("quiet", ("--quiet",), OUTPUT, "Print the closing table alone."),
        Flag("verbose", ("--verbose",), OUTPUT, "Show what Ultralytics says too, which otherwise only log.txt holds."),
        Flag("weights", ("--weights", "-w"), WEIGHTS, "The checkpoint, as an option.", shown("weights", ""), "<path>"),
        Flag(
            "recipe",
            ("--recipe",),
            WEIGHTS,
            "Options from a YAML file: coco, custom or quick (in cfg/), or a path. Typed ones go first.",
            shown("recipe", "custom"),
            "<path>",
            ("coco", "custom", "quick"),
        ),
    ]


def _words() -> list[inspect.Parameter]:
    """What is typed without an option. `read` sorts it, so that the weights may be missing or come last."""
    weights = typer.Argument(metavar="WEIGHTS", help="Checkpoint (.pt) to prune.", show_default=False)
    pairs = typer.Argument(
        metavar="KEY=VALUE",
        help=PAIRS,
        show_default=False,
    )
    kinds = {"word": Annotated[str | None, weights], "words": Annotated[list[str] | None, pairs]}
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in kinds.items()
    ]
