"""Contexts that keep Ultralytics off the network, away from pip and from code in files, and quiet.

Ultralytics is one per process, and so are these: they begin when the first thread enters and end when the last one
leaves, with everything as it was.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

from ultralytics import utils
from ultralytics.cfg import get_cfg
from ultralytics.nn import tasks
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER, checks, downloads, patches
from ultralytics.utils.events import events

from yoloprune.errors import UserError, did_you_mean
from yoloprune.replaced import replaced

from .reading import read_checkpoint

__all__ = ["check_options", "offline", "plain", "quiet"]


class NotDownloadedError(UserError, ConnectionError):
    """A file is not there and would have to be downloaded; Ultralytics goes without what is dispensable."""


def _shared(make: Callable[[], AbstractContextManager[None]]) -> Callable[[], AbstractContextManager[None]]:
    """Have all blocks, of all threads, in one context: the first one enters it and the last one leaves it."""
    lock, inside, stack = threading.Lock(), 0, contextlib.ExitStack()

    @functools.wraps(make)
    @contextlib.contextmanager
    def shared() -> Iterator[None]:
        nonlocal inside
        with lock:
            if not inside:
                stack.enter_context(make())
            inside += 1
        try:
            yield
        finally:
            with lock:
                inside -= 1
                if not inside:
                    stack.close()

    return shared


@_shared
@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Within the block, Ultralytics downloads and installs nothing, and no file that it reads runs anything.

    Checkpoints are read by `reading`, from the given path only: Ultralytics' own search would turn
    `yolov5n.pt` into `yolov5nu.pt` and download that. `model.yaml` is not evaluated.
    """
    functions = {
        checks.check_font: _local_font,
        downloads.safe_download: _no_download,
        downloads.attempt_download_asset: _as_named,
        patches.torch_load: _torch_load,
        tasks.torch_safe_load: _torch_safe_load,
    }
    values = {"AUTOINSTALL": False, "ONLINE": False, "SAFE_LOAD": True}
    with _everywhere(functions, values), replaced(events, "enabled", False):
        yield


@_shared
@contextlib.contextmanager
def _silence() -> Iterator[None]:
    # the logger remembers which levels it writes, and only looks at `disabled` each time; bars look at the level
    with warnings.catch_warnings(), replaced(LOGGER, "level", logging.CRITICAL), replaced(LOGGER, "disabled", True):
        warnings.simplefilter("ignore")
        yield


def quiet(verbose: bool = False) -> AbstractContextManager[None]:
    """Within the block, unless `verbose`, Ultralytics logs nothing (its errors are exceptions) and shows no bar."""
    return contextlib.nullcontext() if verbose else _silence()


@contextlib.contextmanager
def _everywhere(functions: Mapping[Callable, Callable], values: Mapping[str, Any]) -> Iterator[None]:
    """Replace functions and constants in every module of Ultralytics that has them, under whatever name.

    Ultralytics imports most of its functions by name, each module its own; so what a module that is first imported
    within the block has got of them is put back too.
    """
    usual = {name: getattr(utils, name) for name in values}
    before = {
        (module, name): getattr(module, name) for module in _modules() for name in values if hasattr(module, name)
    }
    _rebind({id(old): new for old, new in functions.items()})
    for module, name in before:
        setattr(module, name, values[name])
    try:
        yield
    finally:
        _rebind({id(new): old for old, new in functions.items()})
        for module in _modules():
            for name in values:
                if hasattr(module, name):
                    setattr(module, name, before.get((module, name), usual[name]))


def _modules() -> list[ModuleType]:
    return [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "ultralytics"]


def _rebind(functions: Mapping[int, Callable]) -> None:
    for module in _modules():
        for name, value in list(vars(module).items()):
            if id(value) in functions:
                setattr(module, name, functions[id(value)])


def _local_font(font: str = "Arial.ttf") -> str:
    from matplotlib import font_manager  # slow to import

    return font_manager.findfont("DejaVu Sans")


def _no_download(url: str | Path, *args: Any, **kwargs: Any) -> None:
    raise NotDownloadedError(f"'{url}' would have to be downloaded, and nothing is; download it and give its path.")


def _as_named(file: str | Path, *args: Any, **kwargs: Any) -> str:
    return str(file)


def _torch_load(file: str | Path, *args: Any, **kwargs: Any) -> Any:
    if not Path(file).exists():
        raise NotDownloadedError(f"There is no file '{file}' (nothing is downloaded).")
    return read_checkpoint(file)


def _torch_safe_load(weight: str | Path, safe_only: bool | None = None) -> tuple[Any, str]:
    return _torch_load(weight), str(weight)


def check_options(options: Mapping[str, Any]) -> None:
    """Check keyword arguments that are meant for Ultralytics: names, types and ranges.

    Raises:
        UserError: An unknown name or a value that Ultralytics refuses.
    """
    for name in options:
        if name not in DEFAULT_CFG_DICT:
            near = did_you_mean(str(name), DEFAULT_CFG_DICT)
            raise UserError(f"'{name}' is not an option of Ultralytics{near} (https://docs.ultralytics.com/usage/cfg).")
    try:
        get_cfg(overrides=dict(options))
    except (SyntaxError, TypeError, ValueError) as e:
        raise UserError(plain(e)) from None


def plain(error: BaseException) -> str:
    """The message of an Ultralytics exception as one line, without colours and emojis."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).encode("ascii", "ignore").decode()
    return " ".join(text.split()).removeprefix("ERROR ")
