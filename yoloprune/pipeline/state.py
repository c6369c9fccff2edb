"""What a run remembers on disk, so that it can be taken up again after any interruption."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from yoloprune.errors import UserError
from yoloprune.files import ANEW, readable
from yoloprune.report import Record
from yoloprune.yaml_files import read_yaml

from .folder import RunFolder
from .manifest import STATE
from .options import Options

__all__ = ["Remembered", "fingerprint", "recall"]

_READ = (".pt", ".json", ".yaml")  # what a resumed run reads; tables and pictures are for people, who may edit them


@dataclass
class Remembered:
    """An unfinished (or finished) run as its folder tells it.

    Attributes:
        folder: The run's folder.
        options: The options that it was started with.
        weights: The weights that it was started with; None for a model handed over in Python.
        fingerprint: Fingerprint of those weights.
        record: What it has measured so far; None if it was stopped before the first measurement.
    """

    folder: RunFolder
    options: Options
    weights: str | None
    fingerprint: str
    record: Record | None


def fingerprint(network: nn.Module) -> str:
    """A digest of all weights, so that a run is not taken up with others."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def recall(path: str | Path) -> Remembered:
    """Read the folder of an earlier run, and keep other runs out of it until `RunFolder.close`.

    Raises:
        UserError: It is not the folder of a run, another process is at work in it, or its files are damaged or changed.
    """
    folder = RunFolder(path)
    if not folder.args.is_file():
        raise UserError(f"{path} is not the folder of a pruning run (it has no args.yaml); give the one to resume.")
    folder.lock()
    try:
        return _recalled(folder)
    except BaseException:
        folder.close()
        raise


def _recalled(folder: RunFolder) -> Remembered:
    with readable(folder.path / STATE, "start the run anew"):
        folder.reopen()
    folder.check_links()
    changed = folder.manifest.changed(*_READ)
    if changed == folder.args:
        raise UserError(
            f"'{changed}' is not what the run was started with; put it back as it was, or start a new run with other "
            "options."
        )
    if changed:
        raise UserError(f"'{changed}' is not as the run wrote it; {ANEW}.")
    with readable(folder.args, "start the run anew"):
        args = read_yaml(folder.args)
        weights, digest = args.pop("weights"), args.pop("fingerprint")
        if args.keys() - Options.known():
            raise KeyError
    options, record = Options(**args), None
    if folder.results.is_file():
        with readable(folder.results):
            record = Record.load(folder.results)
    return Remembered(folder, options, weights, digest, record)
