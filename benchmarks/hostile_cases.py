"""What an attempt of `hostile.py` is: files that try something, a command that reads them, and how that ends."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import os
import pickle
import shlex
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
import ultralytics
import yaml
from ultralytics.nn.tasks import DetectionModel

__all__ = ["Call", "Outcome", "Place", "Write", "attempt", "checkpoint", "laughs", "run_command"]


@dataclass(frozen=True)
class Place:
    """An empty folder for the files of an attempt, with the harmless ones that belong to them.

    Attributes:
        folder: The folder.
    """

    folder: Path

    @property
    def canary(self) -> Path:
        """What is there afterwards if anything of the files ran, or the network or pip was asked for."""
        return self.folder / "executed"

    @property
    def code(self) -> str:
        """Python that leaves the canary."""
        return f"__import__('os').makedirs({str(self.canary)!r}, exist_ok=True)"

    @property
    def call(self) -> Call:
        """What leaves the canary when it is unpickled."""
        return Call(os.mkdir, str(self.canary))

    def path(self, name: str) -> Path:
        """A path in the folder."""
        return self.folder / name

    def saved(self, content: Any, name: str = "evil.pt", **options: Any) -> Path:
        """A file of `torch.save`."""
        torch.save(content, self.path(name), **options)
        return self.path(name)

    def written(self, content: bytes, name: str = "evil.pt") -> Path:
        """A file."""
        self.path(name).write_bytes(content)
        return self.path(name)

    def piped(self, name: str) -> Path:
        """A pipe, which whoever opens it waits for, in the place of a file that may be there."""
        self.path(name).unlink(missing_ok=True)
        os.mkfifo(self.path(name))
        return self.path(name)

    def evil(self) -> Path:
        """A checkpoint that leaves the canary when it is unpickled."""
        return self.saved(checkpoint(more=self.call))

    def weights(self) -> Path:
        """A harmless checkpoint."""
        return self.saved(checkpoint(), "weights.pt")

    def data(self, **more: Any) -> Path:
        """The data YAML of four images, with further keys."""
        root = self.path("data")
        for split, index in [("train", 0), ("train", 1), ("val", 0), ("val", 1)]:
            image, label = root / f"images/{split}/{index}.png", root / f"labels/{split}/{index}.txt"
            image.parent.mkdir(parents=True, exist_ok=True)
            label.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(image), np.full((64, 64, 3), 40 * index, np.uint8))
            label.write_text("0 .5 .5 .5 .5\n")
        content = {"path": str(root), "train": "images/train", "val": "images/val", "names": {0: "a", 1: "b"}, **more}
        (root / "data.yaml").write_text(yaml.safe_dump(content))
        return root / "data.yaml"


Write = Callable[[Place], str]
"""Writes the files of an attempt and returns the words after `yoloprune` of the command that reads them."""


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        executed: Whether something ran, or the network or pip was asked for.
        traceback: Last line of the exception that a user would have seen as a traceback; "" where there was none.
        code: Exit code of the command.
        seconds: Its processor time, which other processes hardly move.
        said: The last line that it printed.
    """

    executed: bool
    traceback: str
    code: int
    seconds: float
    said: str


def attempt(write: Write, folder: Path) -> Outcome:
    """Write files into an empty folder and do what their command does, in this process."""
    place = Place(folder)
    words, before = shlex.split(write(place)), Path.cwd()
    start = time.process_time()
    os.chdir(folder)
    try:
        with _watched(place):
            problem, code, printed = run_command(words)
    finally:
        os.chdir(before)
    said = [line for line in printed.splitlines() if line.strip()]
    return Outcome(place.canary.exists(), problem, code, time.process_time() - start, said[-1] if said else "")


def run_command(words: list[str]) -> tuple[str, int, str]:
    """Do what `yoloprune WORDS` does: the last line of its traceback, its exit code, and what it prints."""
    from yoloprune.cli.app import app

    printed, problem, code = io.StringIO(), "", 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            app(words, prog_name="yoloprune")
        except SystemExit as end:
            code = int(end.code or 0)
        except Exception as error:
            problem, code = traceback.format_exception_only(error)[-1].strip(), 1
    return problem, code, printed.getvalue()


@contextlib.contextmanager
def _watched(place: Place) -> Iterator[None]:
    """Within the block, whoever asks for the network, pip or a downloader leaves the canary and gets an error."""

    def caught(*args: Any, **kwargs: Any) -> None:
        place.canary.mkdir(exist_ok=True)
        raise OSError("there is no network here")

    def start(self: Any, command: Any, *args: Any, **kwargs: Any) -> None:
        words = command.split() if isinstance(command, str) else [str(word) for word in command]
        if {"pip", "uv", "curl", "wget"} & {Path(word).name for word in words}:
            caught()
        popen(self, command, *args, **kwargs)

    popen = subprocess.Popen.__init__
    with (
        mock.patch("socket.socket.connect", caught),
        mock.patch("socket.getaddrinfo", caught),
        mock.patch.object(subprocess.Popen, "__init__", start),
    ):
        yield


class Call:
    """Unpickling this calls a function, or a class with the arguments of its constructor."""

    def __init__(self, function: Callable, *args: Any) -> None:
        self.parts = function, args

    def __reduce__(self) -> tuple[Callable, tuple[Any, ...]]:
        return self.parts


def checkpoint(**more: Any) -> dict[str, Any]:
    """The content of a harmless checkpoint of a tiny detector, with further keys."""
    network = pickle.loads(_network())
    return {"model": network, "ema": None, "epoch": -1, "train_args": {"imgsz": 64, "task": "detect"}, **more}


@functools.cache
def _network() -> bytes:
    rows = yaml.safe_load((Path(ultralytics.__file__).parent / "cfg/models/v8/yolov8.yaml").read_text())
    rows |= {"scales": {"n": [0.33, 0.125, 1024]}, "scale": "n", "nc": 2}
    network = DetectionModel(copy.deepcopy(rows), verbose=False).half()
    network.names, network.args = {0: "a", 1: "b"}, {"imgsz": 64, "task": "detect"}
    return pickle.dumps(network)


def laughs() -> str:
    """A YAML file of half a kilobyte that stands for a billion values."""
    return "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
