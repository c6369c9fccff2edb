"""From what was typed to a run, and what is shown of it. What is imported at the top is light: see `read`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_type_hints

from rich.console import Console

from yoloprune.errors import UserError
from yoloprune.yolo.run.declared import declared
from yoloprune.yolo.run.options import Options
from yoloprune.yolo.run.recipe import merge, read_recipe
from yoloprune.yolo.run.typed import read_text
from yoloprune.yolo.weights_file import check_path

from .keywords import parse_pairs
from .run_command import DEFAULTS
from .screen import Screen

if TYPE_CHECKING:
    from yoloprune.yolo.run.pipeline import Finished, Run

    from .run_command import CommandSpec

__all__ = ["Asked", "Resume", "flag", "read", "start"]

_WITH_RESUME = {"device", "trust"}
_WORTH_A_HINT = 0.05  # mAP


def start(spec: CommandSpec, given: dict[str, Any]) -> None:
    """Do the run of a command and show its result.

    Args:
        spec: What the command is for.
        given: Parameters of the command by name; None for those that were not typed.

    Raises:
        UserError: A mistake in what was typed.
        KeyboardInterrupt: Ctrl-C.
    """
    request = read(spec, given)
    from yoloprune.yolo.run.api import prepare, prepare_resume  # takes seconds
    from yoloprune.yolo.run.own_classes import OtherClassesError

    console = Console()
    screen = Screen(console)
    with console.status("Load and check …"):
        if isinstance(request, Resume):
            run = prepare_resume(request.folder, **request.options, progress=screen)
        else:
            weights, check = request.weights, spec.check
            try:
                run = prepare(weights, request.options, progress=screen, check=lambda yolo: check(yolo, weights))
            except OtherClassesError as error:
                raise UserError(f"{error}: {retyped(spec, given)} --train-epochs 50") from None
    _opening(console, run)
    _closing(console, run.go())


class Asked(NamedTuple):
    """A run that was asked for: the checkpoint and the options."""

    weights: Path
    options: Options


class Resume(NamedTuple):
    """A run to go on with: its folder, and what may be typed again."""

    folder: Path
    options: dict[str, Any]


def read(spec: CommandSpec, given: dict[str, Any]) -> Asked | Resume:
    """Make a request of what was typed, and find what is wrong with it as far as that takes neither torch nor a model.

    Raises:
        UserError: A mistake in what was typed.
    """
    typed = {
        name: value for name, value in given.items() if (value is not None and value is not False) or _off(name, value)
    }
    weights, pairs = _words(typed.pop("words", []), typed.pop("weights", None))
    resume = typed.pop("resume", None)
    if resume is not None:
        more = sorted(typed.keys() - _WITH_RESUME)
        if more or weights or pairs:
            wrong = "the weights" if weights else "the key=value pairs" if pairs else flag(more[0])
            raise UserError(f"--resume goes on with the options that the run was started with; leave out {wrong}.")
        return Resume(Path(resume), typed)
    recipe = typed.pop("recipe", None) or ("digits" if spec.embedded and weights is None else "custom")
    options = merge({**DEFAULTS, **read_recipe(recipe)}, _options(typed, pairs))
    if weights is None:
        if not spec.embedded:
            raise UserError("No weights were given; name a checkpoint: yoloprune prune best.pt --target-ratio 0.5.")
        from yoloprune.yolo.digits import WEIGHTS

        weights = WEIGHTS
    check_path(weights)
    return Asked(Path(weights), options)


def retyped(spec: CommandSpec, given: dict[str, Any]) -> str:
    """The command as it was typed."""
    words = ["yoloprune", spec.name, *(given.get("words") or [])]
    for name, value in given.items():
        if name == "words" or value is None or (value is False and not _off(name, value)):
            continue
        if isinstance(value, bool):
            words.append(flag(name) if value else _off_flag(name))
        else:
            words += [flag(name), str(value)]
    return shlex.join(words)


def flag(name: str) -> str:
    """How an option is typed."""
    what = declared(Options).get(name)
    return what[1].flags[0].split("/")[0] if what and what[1].flags else "--" + name.replace("_", "-")


def _off_flag(name: str) -> str:
    """How a switch is typed to turn it off."""
    flags = declared(Options)[name][1].flags
    return flags[0].split("/")[1] if flags else "--no-" + name.replace("_", "-")


def _off(name: str, value: Any) -> bool:
    """Whether a switch was turned off by its --no- form; one without such a form is off where it was not typed."""
    what = declared(Options).get(name)
    return value is False and what is not None and (not what[1].flags or "/" in what[1].flags[0])


def _words(words: Sequence[str], weights: str | None) -> tuple[str | None, dict[str, Any]]:
    """Weights and key=value pairs from what was typed without an option."""
    files = [word for word in words if "=" not in word]
    if len(files) + (weights is not None) > 1:
        raise UserError(
            f"{files[-1]!r} is not understood; one checkpoint is pruned at a time, and Ultralytics' train keywords are "
            "given as key=value."
        )
    return (files[0] if files else weights), parse_pairs([word for word in words if "=" in word])


def _options(typed: dict[str, Any], pairs: dict[str, Any]) -> dict[str, Any]:
    """Parameters of the command as fields of `Options`."""
    types, fields = get_type_hints(Options), declared(Options)
    options: dict[str, Any] = {"train": pairs}
    for name, value in typed.items():
        if name in fields:
            reader = fields[name][1].read or partial(read_text, flag(name), annotation=types[name])
            options[name] = reader(value) if isinstance(value, str) else value
    if "lr0" in typed:
        if "lr0" in pairs:
            raise UserError(f"--lr0 {typed['lr0']} and lr0={pairs['lr0']} say the same; leave one of them out.")
        pairs["lr0"] = read_text("--lr0", typed["lr0"], float)
    if "budget" in typed and "epochs" in typed:
        raise UserError("--budget decides the epochs; leave --epochs out.")
    if typed.get("no_export"):
        options["export"] = None
    return options


def _opening(console: Console, run: Run) -> None:
    before = run.record.before
    console.print(
        f"[bold]{Path(run.record.weights).name}[/]: YOLO{run.record.family} {run.record.task}, "
        f"{before.gflops:.2f} GFLOPs, {before.params / 1e6:.3f}M parameters",
        highlight=False,
    )


def _closing(console: Console, finished: Finished) -> None:
    from yoloprune.report import closing_table

    record, folder = finished.record, finished.folder
    console.print(closing_table(record))
    after = record.after.metrics
    lost = max((value - after[name] for name, value in record.before.metrics.items() if name in after), default=0.0)
    if lost > _WORTH_A_HINT and not any(row.epochs for row in record.steps):
        console.print("Pruning alone costs accuracy; fine-tuning brings it back: run again with --epochs 30, say.")
    console.print(f"Results in [bold]{folder.path}[/]", highlight=False)
    model = shlex.quote(f"model={folder.weights}")
    console.print(f"Try it with: yolo predict {model} source=image.jpg", highlight=False, soft_wrap=True)
