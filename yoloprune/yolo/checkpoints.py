"""Ultralytics checkpoints: load without running anything from the file, save what stock Ultralytics opens."""

from __future__ import annotations

import copy
import datetime
import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import NoReturn

import torch
import ultralytics
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.tasks import BaseModel, _SafeLoad
from ultralytics.utils import DEFAULT_CFG_DICT

from yoloprune.errors import UserError
from yoloprune.files import atomic
from yoloprune.yolo.families import network_family
from yoloprune.yolo.finite import check_finite, unfit_for_float16
from yoloprune.yolo.guard import local_checkpoints, plain, quiet
from yoloprune.yolo.mark import is_pruned, mark
from yoloprune.yolo.model import YOLO

__all__ = ["family", "load", "save"]

ZIP_MAGIC = b"PK\x03\x04"
NO_MODEL = (
    "'{}' holds no Ultralytics model (a state_dict alone is not enough); give the .pt that Ultralytics' training wrote."
)
REFUSED = "refused; pass --trust to load it all the same, and only if you know where the file comes from."
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # first pickle of torch.save before torch 1.6
TRUSTED = re.compile(r"(torch|ultralytics|numpy|collections|builtins|pathlib|torchvision\.transforms)\b")


def load(weights: str | Path, *, trust: bool = False) -> YOLO:
    """Load an Ultralytics checkpoint of any family, float32, in eval mode.

    The file is read with torch's `weights_only` unpickler and Ultralytics' list of known classes, so nothing in it can
    run. Nothing is downloaded or installed.

    Args:
        weights: Path of a `.pt` file.
        trust: Unpickle without limits. Whatever code the file names then runs.

    Raises:
        UserError: There is no such file, it is empty, truncated, no checkpoint of an Ultralytics model, a TorchScript
            archive, it names classes from elsewhere and `trust` is off, or it holds weights that are not finite.
    """
    path = Path(weights)
    _check_file(path)
    try:
        with quiet(), local_checkpoints(trust):
            yolo = YOLO(str(path.absolute()))
    except Exception as e:  # a damaged or foreign pickle can raise anything
        _explain(path, e, trust)
    if not isinstance(yolo.model, BaseModel):
        raise UserError(NO_MODEL.format(path))
    if not trust:
        _check_rows(path, yolo.model.yaml)
    check_finite(yolo.model, f"'{path}'")
    return yolo


def save(yolo: ultralytics.YOLO, path: str | Path, *, float32: bool = False) -> str | None:
    """Write a checkpoint that stock Ultralytics opens, also with `ULTRALYTICS_SAFE_LOAD=1`.

    The network is stored as Ultralytics stores a finished training: float16, without optimizer. One whose weights do
    not fit float16 is stored in float32. A pruned network is marked, so that stock `train()` stops instead of building
    the full width again (see `yoloprune.yolo.mark`).

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
        mark(network)
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


def _check_file(path: Path) -> None:
    """Refuse what can be told from the path and the first bytes."""
    if str(path).startswith(("http:/", "https:/")):  # a Path has one of the slashes only
        raise UserError(f"'{str(path).replace(':/', '://', 1)}' is no file; download it and give its path.")
    if not path.exists():
        raise UserError(f"There is no file '{path}'; give the path of a .pt checkpoint (nothing is downloaded).")
    if path.is_dir():
        raise UserError(f"'{path}' is a directory; give the path of a .pt checkpoint.")
    if path.suffix != ".pt":
        raise UserError(f"'{path}' does not end in .pt; give an Ultralytics checkpoint.")
    try:
        with path.open("rb") as file:
            head = file.read(len(LEGACY_MAGIC))
    except OSError as e:
        raise UserError(f"'{path}' cannot be read: {e.strerror}.") from None
    if not head:
        raise UserError(f"'{path}' is empty.")
    if not head.startswith(ZIP_MAGIC):
        if head != LEGACY_MAGIC:
            raise UserError(f"'{path}' is not a PyTorch checkpoint.")
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = [Path(name).name for name in archive.namelist()]
            if archive.testzip():  # torch does not compare checksums
                raise zipfile.BadZipFile
    except zipfile.BadZipFile:
        raise UserError(f"'{path}' is truncated or damaged; copy or download it again.") from None
    if "constants.pkl" in names:
        raise UserError(
            f"'{path}' is a TorchScript archive, which cannot be pruned; give the .pt it was exported from."
        )
    if "data.pkl" not in names:
        raise UserError(f"'{path}' is a zip archive but not a PyTorch checkpoint.")


def _explain(path: Path, error: Exception, trust: bool) -> NoReturn:
    """Turn what loading raised into one sentence."""
    reason = error.__cause__ if isinstance(error, TypeError) and error.__cause__ else error
    if isinstance(reason, pickle.UnpicklingError) and not trust:
        known = set(_SafeLoad._registry or ())
        foreign = [n for n in _named_classes(path) if n not in known and not n.startswith("torch.")]
        what = f"names '{foreign[0]}', which is no part of a model" if foreign else "cannot be read without running it"
        raise UserError(f"'{path}' {what} and may run any code: {REFUSED}") from None
    if isinstance(reason, ModuleNotFoundError):
        raise UserError(f"'{path}' needs the Python module '{reason.name}', which is not installed.") from None
    if isinstance(reason, (RuntimeError, EOFError, pickle.UnpicklingError)):
        raise UserError(f"'{path}' is truncated or damaged; copy or download it again.") from None
    if isinstance(error, (TypeError, AttributeError, KeyError)):
        raise UserError(NO_MODEL.format(path)) from None
    raise UserError(f"'{path}' is not an Ultralytics checkpoint: {plain(error)}") from error


def _check_rows(path: Path, rows: dict) -> None:
    """Refuse a `model.yaml` by which a later training would run code: Ultralytics evals it and calls what it names."""
    try:
        if rows.get("activation"):
            _SafeLoad.activation(rows["activation"])
    except TypeError:
        raise UserError(
            f"'{path}' has the activation '{rows['activation']}', which is no torch.nn call: {REFUSED}"
        ) from None
    for row in [*rows["backbone"], *rows["head"]]:
        layer = getattr(tasks, row[2], None)  # where Ultralytics looks names without a dot up
        if layer is not None and not (isinstance(layer, type) and issubclass(layer, nn.Module)):
            raise UserError(f"'{path}' has '{row[2]}' among its layers, which is none: {REFUSED}")


def _named_classes(path: Path) -> list[str]:
    """The classes and functions that a checkpoint names beyond torch's own harmless ones; nothing is run."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (ValueError, RuntimeError, pickle.UnpicklingError):
        return []
