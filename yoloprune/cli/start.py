"""From what was typed to a run, and what is shown of it. What is imported at the top is light: see `read`."""

from __future__ import annotations

import json
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_type_hints

from yoloprune.detectors import family_title
from yoloprune.errors import UserError
from yoloprune.paths import check_data_path, check_path
from yoloprune.pipeline.declared import declared
from yoloprune.pipeline.options import Options
from yoloprune.pipeline.recipe import merge, read_recipe
from yoloprune.pipeline.typed import read_text

from .options import read_words
from .run_command import DEFAULTS
from .screen import Screen

if TYPE_CHECKING:
    from yoloprune.pipeline.run import Finished, Run

    from .run_command import CommandSpec

__all__ = ["Asked", "Resume", "flag", "read", "start"]

_SHOWN = {"json", "quiet", "verbose"}
_WITH_RESUME = {"device", "trust"} | _SHOWN
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
    shown = {name: bool(given.get(name)) for name in _SHOWN}
    with Screen.open(verbose=shown["verbose"], quiet=shown["quiet"], as_json=shown["json"]) as screen:
        with screen.waiting("Load and check"):
            run = _prepare(spec, given, request, screen)
        if isinstance(request, Asked):
            run.record.command = retyped(spec, given)
        _opening(screen, run, request)
        if isinstance(request, Asked) and request.dry:
            from .dry_run import show_dry_run

            show_dry_run(screen, run.rehearse(), as_json=shown["json"])
            return
        finished = run.go()
        if shown["json"]:
            content = json.loads(finished.folder.results.read_text(encoding="utf-8"))
            screen.json({**content, "save_dir": str(finished.folder.path)})
        else:
            _closing(screen, finished)


def _prepare(spec: CommandSpec, given: dict[str, Any], request: Asked | Resume, screen: Screen) -> Run:
    from yoloprune.pipeline.api import prepare, prepare_resume  # takes seconds
    from yoloprune.pipeline.own_classes import OtherClassesError

    if isinstance(request, Resume):
        return prepare_resume(request.folder, **request.options, progress=screen)
    weights, check = request.weights, spec.check
    try:
        return prepare(weights, request.options, progress=screen, check=lambda detector: check(detector, weights))
    except OtherClassesError as error:
        raise UserError(f"{error}: {retyped(spec, given)} --train-epochs 50") from None


class Asked(NamedTuple):
    """A run that was asked for: the checkpoint, the options, the recipe's name, and whether it is only planned."""

    weights: Path
    options: Options
    recipe: str
    dry: bool = False


class Resume(NamedTuple):
    """A run to resume: its folder, and what may be typed again."""

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
    weights, pairs = read_words([typed.pop("word", None), *typed.pop("words", [])], typed.pop("weights", None))
    resume = typed.pop("resume", None)
    if resume is not None:
        return _read_resume(Path(resume), typed, weights, pairs)
    recipe = typed.pop("recipe", None) or ("digits" if spec.embedded and weights is None else "custom")
    dry = typed.pop("dry_run", False)
    options = merge({**DEFAULTS, **read_recipe(recipe)}, read_options(typed, pairs))
    if weights is None:
        if not spec.embedded:
            raise UserError(
                f"No weights were given; name a checkpoint: yoloprune {spec.name} best.pt --target-ratio 0.5."
            )
        from yoloprune.demo.digits import WEIGHTS

        weights = WEIGHTS
    check_path(weights)
    if options.data != "digits":
        check_data_path(options.data)
    return Asked(weights, options, recipe, dry)


def _read_resume(folder: Path, typed: dict[str, Any], weights: Path | None, pairs: dict[str, Any]) -> Resume:
    more = sorted(typed.keys() - _WITH_RESUME)
    if more or weights or pairs:
        wrong = "the weights" if weights else "the key=value pairs" if pairs else flag(more[0])
        raise UserError(f"--resume uses the options that the run was started with; leave out {wrong}.")
    if not (folder / "args.yaml").is_file():
        raise UserError(f"{folder} is not the folder of a pruning run (it has no args.yaml); give the one to resume.")
    return Resume(folder, {name: value for name, value in typed.items() if name not in _SHOWN})


def retyped(spec: CommandSpec, given: dict[str, Any]) -> str:
    """The command as it was typed, the weights first."""
    first = [given["word"]] if given.get("word") else []
    words = ["yoloprune", spec.name, *first, *(given.get("words") or [])]
    for name, value in sorted(given.items(), key=lambda item: item[0] != "weights"):
        if name in ("word", "words") or value is None or (value is False and not _off(name, value)):
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


def read_options(typed: dict[str, Any], pairs: dict[str, Any]) -> dict[str, Any]:
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


def _opening(screen: Screen, run: Run, request: Asked | Resume) -> None:
    """Which network, to what target, and how, in two lines."""
    record, options = run.record, run.options
    before = record.before
    screen.line(
        f"{Path(record.weights).name}: {family_title(record.family)} {record.task}, {before.gflops:.2f} GFLOPs, "
        f"{before.params / 1e6:.3f}M parameters, to be pruned to {run.target}",
        "bold",
    )
    how = f"Recipe {request.recipe}" if isinstance(request, Asked) else f"Resumed from {request.folder}"
    data = {None: "no data", "digits": "the embedded digits"}.get(options.data, options.data)
    screen.line(f"{how}: {_training(options)}, {data}, images of {options.imgsz} px")


def _training(options: Options) -> str:
    each = f" in each of {options.steps} steps" if options.steps > 1 else ""
    if options.budget:
        return f"as many epochs{each} as fit into {options.budget / 60:.3g} min"
    return f"{options.epochs} epoch{'s' * (options.epochs > 1)}{each}" if options.epochs else "no training"


def _closing(screen: Screen, finished: Finished) -> None:
    from yoloprune.report import closing_table

    record, folder = finished.record, finished.folder
    screen.result(closing_table(record))
    for note in record.notes:
        screen.line(note)
    name, before = next(iter(record.before.metrics.items()), ("", 0.0))  # mAP50-95, or top-1
    if before - record.after.metrics.get(name, before) > _WORTH_A_HINT and not any(row.epochs for row in record.steps):
        screen.line("Pruning alone costs accuracy; fine-tuning brings it back: run again with --epochs 30, say.")
    screen.line(f"Results in {folder.path}", "bold")
    screen.line(f"Try it with: {finished.detector.usage(folder.weights)}")
