"""Checks of the keywords that are handed on to Ultralytics' `train()`, `val()` and `export()`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yoloprune.errors import UserError, did_you_mean
from yoloprune.yolo.guard import check_options

__all__ = ["COMMAND_DECIDES", "OPTIMIZERS", "OWN_OPTIONS", "check_keywords"]

OPTIMIZERS = ("SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop", "auto")
"""What Ultralytics' trainer can build, in any case; it finds out after the model and the data are loaded."""

OWN_OPTIONS = {
    "data": "data",
    "epochs": "epochs",
    "batch": "batch",
    "imgsz": "imgsz",
    "device": "device",
    "seed": "seed",
    "project": "project",
    "name": "name",
    "exist_ok": "exist-ok",
    "resume": "resume",
    "model": "weights",
    "format": "format",
}
"""Ultralytics keywords that the run itself decides, and the option of the command line that says the same."""

_RUN_DECIDES = {
    "task": "the checkpoint says which task it was trained for",
    "mode": "the run trains, validates and exports by itself",
    "save": "the run needs the checkpoints of the fine-tuning",
    "save_dir": "the output folder is set by --project and --name",
    "pretrained": "fine-tuning always starts from the pruned weights",
    "cfg": "a run is configured by options and key=value pairs",
    "quantize": "quantisation would replace the pruned network's layers; quantise the finished model",
}

COMMAND_DECIDES = {
    "model": "the weights are the first argument",
    "task": "the checkpoint says which task it was trained for",
    "mode": "the command says what is done",
    "verbose": "the command decides what is shown",
}
"""Ultralytics keywords that a command for one checkpoint decides, and how."""


def check_keywords(
    keywords: Mapping[str, Any],
    options: Mapping[str, str] = OWN_OPTIONS,
    decided: Mapping[str, str] = _RUN_DECIDES,
) -> None:
    """Check keywords by name and value, as Ultralytics itself would.

    Args:
        keywords: What is to be handed on.
        options: Keywords that are options of yoloprune, and how those are called; by default those of a run.
        decided: Keywords that cannot be given, and why; by default those of a run.

    Raises:
        UserError: An unknown keyword, one of `options` or `decided`, or a value of a wrong type or range.
    """
    for name in keywords:
        if name in options:
            raise UserError(f"{name}=... is an option of its own; give it as --{options[name]}.")
        if name in decided:
            raise UserError(f"{name}=... cannot be given: {decided[name]}.")
    check_options(keywords)
    optimizer = str(keywords.get("optimizer", "auto"))
    if optimizer.lower() not in map(str.lower, OPTIMIZERS):
        raise UserError(
            f"Unknown optimizer {optimizer!r}{did_you_mean(optimizer, OPTIMIZERS)} ({', '.join(OPTIMIZERS)})."
        )
