"""`yoloprune.prune`: a run from Python."""

from __future__ import annotations

import copy
import inspect
import shlex
import textwrap
from collections.abc import Callable
from dataclasses import MISSING, replace
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.engine.model import Model

from yoloprune.errors import UserError
from yoloprune.yolo import checkpoints
from yoloprune.yolo.downloading import fetch
from yoloprune.yolo.finite import check_finite
from yoloprune.yolo.guard import quiet
from yoloprune.yolo.model import YOLO

from .declared import declared
from .images import on_disk
from .network import with_network
from .options import TARGETS, Options
from .pipeline import Run
from .progress import Progress
from .recipe import merge, read_recipe
from .result import PruneResult, result_of
from .state import Remembered, recall
from .turn import turn

__all__ = ["PruneResult", "prepare", "prepare_resume", "prune"]


def prune(
    model: Model | str | Path | None = None,
    *,
    recipe: str | None = "custom",
    resume: str | Path | None = None,
    **options: Any,
) -> PruneResult:
    """Prune an Ultralytics model to the GFLOPs, parameters or share of GFLOPs asked for.

    By default the model is pruned, recovered from images and nothing else: no training, no validation, no files.
    Nothing is printed; `print(result.report)` shows what was measured.
    GFLOPs are reckoned at 640 px, as `model.info()` prints them, whatever `imgsz` is.

    Args:
        model: A model of Ultralytics (YOLO, RTDETR, YOLOWorld), which is not changed, or the path of a checkpoint.
        recipe: Options from a YAML file, in whose place `options` come: a name in cfg/ or a path. Targets, epochs, data
            and export are not taken from it.
        resume: Folder of an interrupted run; it goes on with its own options, and only `model` (for a run that was
            started with a model in memory), `device` and `trust` may be given beside it.
        **options: As follows; any other name is a keyword of Ultralytics' `train()`. `data` may also be a list of
            images: paths, or uint8 arrays (H, W, 3) in BGR order, as `cv2.imread` gives them.
        {options}

    Returns:
        The pruned model, the plan and what was measured.

    Raises:
        UserError: A mistake in the arguments, before any work is done.
        KeyboardInterrupt: Ctrl-C; the message says what is finished and how to go on.

    Examples:
        >>> result = prune(YOLO("yolov8s.pt"), target_gflops=14, data="my.yaml")  # doctest: +SKIP
        >>> result.model.train(data="my.yaml", epochs=100)  # doctest: +SKIP
    """
    if resume is not None:
        more = sorted(options.keys() - {"device", "trust"})
        if more:
            raise UserError(f"resume goes on with the options that the run was started with; leave {more[0]}= out.")
        with turn, quiet():
            return result_of(prepare_resume(resume, model=model, **options).go())
    if model is None:
        raise UserError("No model was given; give an Ultralytics model or the path of a checkpoint.")
    given = {name: value for name, value in options.items() if name in Options.known()}
    train = {name: value for name, value in options.items() if name not in given}
    settings = {k: v for k, v in (read_recipe(recipe) if recipe else {}).items() if k not in (*TARGETS, "data", "val")}
    settings = {**settings, "epochs": 0, "budget": None, "export": None}
    with turn, quiet(), on_disk(given.get("data")) as data:
        own = {"data": data, "train": {**given.get("train", {}), **train}}
        in_memory = isinstance(given.get("data"), (list, tuple))
        return result_of(prepare(model, merge(settings, {**given, **own}), keeps_images=in_memory).go())


def _declare(function: Callable) -> None:
    """Give a function that takes `**options` the signature and docstring that `Options` declares."""
    signature, lines = inspect.signature(function), []
    given = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    for name, (field, what) in declared(Options).items():
        default = field.default if field.default is not MISSING else field.default_factory()
        given.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.type))
        lines.append(textwrap.fill(f"{name}: {what.help}", 112, initial_indent=" " * 8, subsequent_indent=" " * 12))
    given += [p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    function.__signature__ = signature.replace(parameters=given)
    function.__doc__ = function.__doc__.replace("{options}", "\n".join(lines).lstrip())


_declare(prune)


def prepare(
    model: Model | str | Path,
    options: Options,
    *,
    progress: Progress | None = None,
    check: Callable[[YOLO], None] | None = None,
    keeps_images: bool = False,
) -> Run:
    """Load a model and check everything that can be checked before the run.

    Args:
        model: A model, which is not changed, or the path of a checkpoint.
        options: What the run is to do.
        progress: Where it reports to.
        check: A further check of the loaded model; raises UserError.
        keeps_images: Whether the data is a list of images that will be gone, and is to be kept in the output folder.

    Raises:
        UserError: Something would fail.
    """
    with turn:
        yolo, weights = _opened(model, options.trust)
        if check:
            check(yolo)
        if options.download and options.data:
            fetch(options.data, yolo.task, trust=options.trust)
        return Run(yolo, options, weights=weights, progress=progress, keeps_images=keeps_images)


def prepare_resume(
    path: str | Path,
    *,
    model: Model | str | Path | None = None,
    device: str | None = None,
    trust: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Take up an interrupted run, with its own options.

    Args:
        path: Its folder.
        model: The model that it was started with, if that was one in memory.
        device: Another device than the run was started with.
        trust: Whether the weights may be unpickled without restrictions; that it was allowed when the run was started
            does not count, since the folder may have come from elsewhere.
        progress: Where the run reports to.

    Raises:
        UserError: `path` is no run, another process is at work in it, or its weights are gone or changed.
    """
    with turn:
        remembered = recall(path)
        try:
            return _taken_up(remembered, model, device, trust, progress)
        except BaseException:
            remembered.folder.close()
            raise


def _taken_up(
    remembered: Remembered,
    model: Model | str | Path | None,
    device: str | None,
    trust: bool,
    progress: Progress | None,
) -> Run:
    folder, started = remembered.folder.path, remembered.options
    options = replace(started, trust=trust, device=device if device is not None else started.device)
    model = model or remembered.weights
    if model is None:
        raise UserError(f"The run in {folder} was started with a model in memory; give that model again.")
    try:
        yolo, weights = _opened(model, trust)
    except UserError as error:
        if not started.trust or trust or "--trust" not in str(error):
            raise
        raise UserError(
            f"The weights of this run, '{model}', are loaded only if they are trusted once more: yoloprune prune "
            f"--resume {shlex.quote(str(folder))} --trust, if you know where the folder and they come from."
        ) from error
    return Run(yolo, options, weights=weights, progress=progress, remembered=remembered)


def _opened(model: Model | str | Path, trust: bool) -> tuple[YOLO, str | None]:
    """The model and the file that it came from, if any.

    A model in memory is copied, float32 on the CPU, so that validating or scoring cannot change the caller's.
    """
    if isinstance(model, (str, Path)):
        return checkpoints.load(model, trust=trust), str(Path(model).absolute())
    if isinstance(model, Model) and isinstance(model.model, nn.Module):
        check_finite(model.model, "The given model")
        return with_network(model, copy.deepcopy(model.model).cpu().float().eval()), None
    raise UserError(
        f"The given {type(model).__name__} is no PyTorch model of Ultralytics; give a YOLO of a .pt file, or the path "
        "of one."
    )
