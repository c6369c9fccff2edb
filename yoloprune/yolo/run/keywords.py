"""Checks of the keywords that are handed on to Ultralytics' `train()`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from yoloprune.errors import UserError
from yoloprune.yolo.guard import check_options

__all__ = ["OPTIMIZERS", "OWN_OPTIONS", "check_keywords", "did_you_mean"]

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


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return '; did you mean X?' for the closest known name, or '; choose one of the known ones'."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else "; choose one of the known ones"


def check_keywords(keywords: Mapping[str, Any]) -> None:
    """Check train keywords by name and value, as Ultralytics itself would.

    Raises:
        UserError: An unknown keyword, one that the run decides, or a value of a wrong type or range.
    """
    for name in keywords:
        if name in OWN_OPTIONS:
            raise UserError(f"{name}=... is an option of the run; give it as --{OWN_OPTIONS[name]}.")
        if name in _RUN_DECIDES:
            raise UserError(f"{name}=... cannot be given: {_RUN_DECIDES[name]}.")
    check_options(keywords)
    optimizer = str(keywords.get("optimizer", "auto"))
    if optimizer.lower() not in map(str.lower, OPTIMIZERS):
        raise UserError(
            f"Unknown optimizer {optimizer!r}{did_you_mean(optimizer, OPTIMIZERS)} ({', '.join(OPTIMIZERS)})."
        )
