"""From what was typed to a run, and what is shown of it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from yoloprune.errors import UserError
from yoloprune.report import closing_table
from yoloprune.yolo import digits
from yoloprune.yolo.run.api import prepare, prepare_resume
from yoloprune.yolo.run.options import Options
from yoloprune.yolo.run.pipeline import Finished, Run
from yoloprune.yolo.run.recipe import merge, read_recipe

from .keywords import parse_batch, parse_count, parse_number, parse_pairs
from .screen import Screen

if TYPE_CHECKING:
    from .run_command import Kind

__all__ = ["start"]

_WITH_RESUME = {"device"}
_WORTH_A_HINT = 0.05  # mAP
_DEFAULTS = {"val": True, "export": "onnx", "project": "runs/prune"}  # of the command, where `Options` has none
_OFF = {"trust": False, "exist_ok": False}  # switches that count as typed only where they are on


def start(kind: Kind, given: dict[str, Any]) -> None:
    """Do the run of a command and show its result.

    Args:
        kind: What the command is for.
        given: Parameters of the command by name; None for those that were not typed.

    Raises:
        UserError: A mistake in what was typed.
        KeyboardInterrupt: Ctrl-C.
    """
    console = Console()
    with console.status("Load and check …"):
        run = _prepare(kind, given, Screen(console))
    _opening(console, run)
    _closing(console, run.go())


def _prepare(kind: Kind, given: dict[str, Any], screen: Screen) -> Run:
    typed = {name: value for name, value in given.items() if value is not None and value is not _OFF.get(name)}
    if not typed.get("pairs"):
        typed.pop("pairs", None)
    resume, weights = typed.pop("resume", None), typed.pop("weights", None)
    if resume is not None:
        more = sorted(typed.keys() - _WITH_RESUME)
        if more or weights:
            raise UserError(
                f"--resume goes on with the options that the run was started with; leave out "
                f"{_as_typed('weights' if weights else more[0])}."
            )
        return prepare_resume(resume, device=typed.get("device"), progress=screen)
    recipe = typed.pop("recipe", None) or kind.recipe(weights is not None)
    options = merge({**_DEFAULTS, **(read_recipe(recipe) if recipe else {})}, _options(typed))
    if weights is None:
        if not kind.embedded:
            raise UserError("No weights were given; name a checkpoint with --weights.")
        weights = digits.WEIGHTS
    return prepare(weights, options, progress=screen, check=lambda yolo: kind.check(yolo, weights))


def _as_typed(name: str) -> str:
    return "the key=value pairs" if name == "pairs" else "--" + name.replace("_", "-")


def _options(typed: dict[str, Any]) -> dict[str, Any]:
    """Parameters of the command as fields of `Options`."""
    options = {name: value for name, value in typed.items() if name in Options.known()}
    options["train"] = parse_pairs(typed.get("pairs", ()))
    if "lr0" in typed:
        if "lr0" in options["train"]:
            raise UserError(
                f"--lr0 {typed['lr0']} and lr0={options['train']['lr0']} say the same; leave one of them out."
            )
        options["train"]["lr0"] = typed["lr0"]
    if "budget" in typed and "epochs" in typed:
        raise UserError("--budget decides the epochs; leave --epochs out.")
    for name, example in (("target_gflops", "6.2"), ("target_ratio", "0.5")):
        if name in typed:
            options[name] = parse_number(_as_typed(name), typed[name], example)
    if "target_params" in typed:
        options["target_params"] = parse_count(typed["target_params"])
    if "batch" in typed:
        options["batch"] = parse_batch(typed["batch"])
    if "sensitivity" in typed:
        options["sensitivity"] = str(typed["sensitivity"].absolute())
    if "export" in typed or "format" in typed:
        options["export"] = typed.get("format", "onnx") if typed.get("export", True) else None
    if "project" in typed:
        options["project"] = str(typed["project"])
    return options


def _opening(console: Console, run: Run) -> None:
    before = run.record.before
    console.print(
        f"[bold]{Path(run.record.weights).name}[/]: YOLO{run.record.family} {run.record.task}, "
        f"{before.gflops:.2f} GFLOPs, {before.params / 1e6:.3f}M parameters",
        highlight=False,
    )


def _closing(console: Console, finished: Finished) -> None:
    record, folder = finished.record, finished.folder
    console.print(closing_table(record))
    after = record.after.metrics
    lost = max((value - after[name] for name, value in record.before.metrics.items() if name in after), default=0.0)
    if lost > _WORTH_A_HINT and not any(row.epochs for row in record.steps):
        console.print("Pruning alone costs accuracy; fine-tuning brings it back: run again with --epochs 30, say.")
    console.print(f"Results in [bold]{folder.path}[/]", highlight=False)
    model = shlex.quote(f"model={folder.weights}")
    console.print(f"Try it with: yolo predict {model} source=image.jpg", highlight=False, soft_wrap=True)
