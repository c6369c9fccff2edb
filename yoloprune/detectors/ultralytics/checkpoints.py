"""Ultralytics checkpoints: load without running anything from the file, save what stock Ultralytics opens."""

from __future__ import annotations

import copy
import datetime
import io
import pickle
import re
from pathlib import Path

import torch
import ultralytics
from ultralytics.utils import DEFAULT_CFG_DICT

from yoloprune.errors import UserError
from yoloprune.files import atomic
from yoloprune.finite import check_finite, unfit_for_float16

from .families import network_family
from .model import YOLO
from .reading import read_network
from .stock_training import block_stock_training, is_pruned
from .trace import check_runs

__all__ = ["family", "load", "save"]

TRUSTED = re.compile(r"(torch|ultralytics|numpy|collections|builtins|pathlib|torchvision\.transforms)\b")


def load(weights: str | Path, *, trust: bool = False) -> YOLO:
    """Load an Ultralytics checkpoint of any family, float32, in eval mode.

    Nothing in the file can run, from any number of threads (see `unpickling`), and nothing is downloaded
    or installed.

    Args:
        weights: Path of a `.pt` file.
        trust: Unpickle without limits. Whatever code the file names then runs.

    Raises:
        UserError: There is no such file, it is empty, truncated, no checkpoint of an Ultralytics model, a TorchScript
            archive, it names classes from elsewhere and `trust` is off, or it holds weights that are not finite
            or a network that does not run.
    """
    yolo = YOLO.holding(*read_network(weights, trust=trust))
    check_finite(yolo.model, f"'{weights}'")
    check_runs(yolo.model, f"'{weights}'")
    return yolo


def save(yolo: ultralytics.YOLO, path: str | Path, *, float32: bool = False) -> str | None:
    """Write a checkpoint that stock Ultralytics opens, also with `ULTRALYTICS_SAFE_LOAD=1`.

    The network is stored as Ultralytics stores a finished training: float16, without optimizer. One whose weights do
    not fit float16 is stored in float32. A pruned network is marked, so that stock `train()` stops instead of building
    the full width again (see `stock_training`).

    Args:
        yolo: The model; it is not changed.
        path: The file to write, `.pt`; an existing one is replaced at once.
        float32: Store float32 in any case.

    Returns:
        Which weights do not fit float16, if any: a clause such as "'model.2.cv1.bn.weight' reaches 7e+04, …".

    Raises:
        UserError: The network holds a class that is neither Ultralytics' nor torch's.
        OSError: The file cannot be written.
    """
    network = copy.deepcopy(yolo.model).to("cpu", memory_format=torch.contiguous_format)
    if is_pruned(network):
        block_stock_training(network)
    for name in ("criterion", "pt_path"):  # training state, and a path of this machine
        if hasattr(network, name):
            delattr(network, name)
    unfit = unfit_for_float16(network)
    network = (network.float() if unfit or float32 else network.half()).requires_grad_(False)
    given = (yolo.ckpt or {}).get("train_args") or dict(getattr(network, "args", {}))
    train_args = {**DEFAULT_CFG_DICT, **{k: v for k, v in given.items() if k in DEFAULT_CFG_DICT}, "task": yolo.task}
    network.args = {k: v for k, v in train_args.items() if k in {"imgsz", "data", "task", "single_cls"}}
    network.task = yolo.task
    checkpoint = {
        "epoch": -1,
        "best_fitness": None,
        "model": network,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "scaler": None,
        "train_args": train_args,
        "date": datetime.datetime.now().astimezone().isoformat(),
        "version": ultralytics.__version__,
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "docs": "https://docs.ultralytics.com",
    }
    content = io.BytesIO()  # since torch does not say why it cannot write a file
    torch.save(checkpoint, content)
    with atomic(path) as tmp:
        tmp.write_bytes(content.getbuffer())
        foreign = [name for name in _named_classes(tmp) if not TRUSTED.match(name)]
        if foreign:
            raise UserError(f"The network holds {foreign[0]}, which is no class of Ultralytics or torch: not saved.")
    return unfit


def family(yolo: ultralytics.YOLO) -> str:
    """Return a model's family, told by its modules: "v8", "11", "rtdetr" …, as `families.network_family` lists them."""
    return network_family(yolo.model)


def _named_classes(path: Path) -> list[str]:
    """The classes and functions that a checkpoint names beyond torch's own harmless ones; nothing is run."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (ValueError, RuntimeError, pickle.UnpicklingError):
        return []
