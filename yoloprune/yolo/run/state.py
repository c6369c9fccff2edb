"""What a run remembers on disk, so that it can be taken up again after any interruption."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from yoloprune.errors import UserError
from yoloprune.report import Record
from yoloprune.yaml_files import read_yaml

from .folder import RunFolder
from .options import Options

__all__ = ["Remembered", "fingerprint", "intact", "recall"]


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
    """Read the folder of an earlier run.

    Raises:
        UserError: It is not the folder of a run, or its files are damaged.
    """
    folder = RunFolder(path)
    if not folder.args.is_file():
        raise UserError(f"{path} is not the folder of a pruning run (it has no args.yaml); give the one to resume.")
    with intact(folder.args, "start the run anew"):
        args = read_yaml(folder.args)
        weights, digest = args.pop("weights"), args.pop("fingerprint")
        if args.keys() - Options.known():
            raise KeyError
    options, record = Options(**args), None
    if folder.results.is_file():
        with intact(folder.results, "remove it and resume again: the run then begins at its first step"):
            record = Record.load(folder.results)
    return Remembered(folder, options, weights, digest, record)


@contextmanager
def intact(path: Path, otherwise: str) -> Iterator[None]:
    """Within the block, which reads a file of a run, whatever that raises becomes a sentence.

    Args:
        path: The file.
        otherwise: What a user can do without it.

    Raises:
        UserError: It is missing or damaged.
    """
    try:
        yield
    except (OSError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise UserError(f"'{path}' is missing or damaged; {otherwise}.") from error
