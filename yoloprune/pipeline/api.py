"""`yoloprune.prune`: a run from Python."""

from __future__ import annotations

import inspect
import shlex
import textwrap
from collections.abc import Callable
from dataclasses import MISSING, replace
from pathlib import Path
from typing import Any

from yoloprune import detectors
from yoloprune.detectors.base import Detector
from yoloprune.errors import UserError
from yoloprune.exclusive import turn
from yoloprune.progress import Progress

from .declared import declared
from .images import on_disk
from .options import TARGETS, Options
from .recipe import merge, read_recipe
from .result import PruneResult, result_of
from .run import Run
from .state import Remembered, recall

__all__ = ["PruneResult", "load", "prepare", "prepare_resume", "prune"]


def load(weights: str | Path, *, trust: bool = False) -> Any:
    """Load a checkpoint, pruned or not, without running anything from it: for Ultralytics' a `YOLO` whose `train()`
    trains the network as it is.

    Args:
        weights: Path of a `.pt` file.
        trust: Unpickle without limits. Whatever code the file names then runs.

    Raises:
        UserError: See `yoloprune.detectors.load`.

    Examples:
        >>> model = yoloprune.load("pruned.pt")  # doctest: +SKIP
    """
    return detectors.load(weights, trust=trust).model


def prune(
    model: Any | None = None,
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
        KeyboardInterrupt: Ctrl-C; the message says what is finished and how to continue.

    Examples:
        >>> result = prune(YOLO("yolov8s.pt"), target_gflops=14, data="my.yaml")  # doctest: +SKIP
        >>> result.model.train(data="my.yaml", epochs=100)  # doctest: +SKIP
    """
    if resume is not None:
        more = sorted(options.keys() - {"device", "trust"})
        if more:
            raise UserError(f"resume uses the options that the run was started with; leave {more[0]}= out.")
        with turn, detectors.quiet():
            return result_of(prepare_resume(resume, model=model, **options).go())
    if model is None:
        raise UserError("No model was given; give an Ultralytics model or the path of a checkpoint.")
    given = {name: value for name, value in options.items() if name in Options.known()}
    train = {name: value for name, value in options.items() if name not in given}
    settings = {k: v for k, v in (read_recipe(recipe) if recipe else {}).items() if k not in (*TARGETS, "data", "val")}
    settings = {**settings, "epochs": 0, "budget": None, "export": None}
    with turn, detectors.quiet(), on_disk(given.get("data")) as data:
        own = {"data": data, "train": {**given.get("train", {}), **train}}
        in_memory = isinstance(given.get("data"), (list, tuple))
        return result_of(prepare(model, merge(settings, {**given, **own}), keeps_images=in_memory).go())


def _declare(function: Any) -> None:
    """Give a function that takes `**options` the signature and docstring that `Options` declares."""
    signature, lines = inspect.signature(function), []
    given = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    for name, (field, what) in declared(Options).items():
        default = field.default
        if default is MISSING and field.default_factory is not MISSING:
            default = field.default_factory()
        given.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.type))
        lines.append(textwrap.fill(f"{name}: {what.help}", 112, initial_indent=" " * 8, subsequent_indent=" " * 12))
    given += [p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    function.__signature__ = signature.replace(parameters=given)
    function.__doc__ = function.__doc__.replace("{options}", "\n".join(lines).lstrip())


_declare(prune)


def prepare(
    model: Any,
    options: Options,
    *,
    progress: Progress | None = None,
    check: Callable[[Detector], None] | None = None,
    keeps_images: bool = False,
) -> Run:
    """Load a model and check everything that can be checked before the run.

    Args:
        model: A model, which is not changed, or the path of a checkpoint.
        options: What the run is to do.
        progress: Where it reports to.
        check: A further check of the detector; raises UserError.
        keeps_images: Whether the data is a list of images that will be gone, and is to be kept in the output folder.

    Raises:
        UserError: Something would fail.
    """
    with turn:
        detector, weights = _opened(model, options.trust)
        if check:
            check(detector)
        if options.download and options.data:
            detector.fetch(options.data, trust=options.trust)
        said = None
        if options.choose_imgsz:
            from yoloprune.analysis.image_size import choose_imgsz  # which prunes through this package

            name = weights or str(detector.file)
            options, said = choose_imgsz(detector, options, weights=name, progress=progress)
        return Run(detector, options, weights=weights, progress=progress, keeps_images=keeps_images, remark=said)


def prepare_resume(
    path: str | Path,
    *,
    model: Any | None = None,
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
    model: Any | None,
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
        detector, weights = _opened(model, trust)
    except UserError as error:
        if not started.trust or trust or "--trust" not in str(error):
            raise
        raise UserError(
            f"The weights of this run, '{model}', are loaded only if they are trusted once more: yoloprune prune "
            f"--resume {shlex.quote(str(folder))} --trust, if you know where the folder and they come from."
        ) from error
    return Run(detector, options, weights=weights, progress=progress, remembered=remembered)


def _opened(model: Any, trust: bool) -> tuple[Detector, str | None]:
    """The detector and the file that it came from, if any.

    A model in memory is copied, so that validating or scoring cannot change the caller's.
    """
    if isinstance(model, (str, Path)):
        return detectors.load(model, trust=trust), str(Path(model).absolute())
    return detectors.wrap(model), None
