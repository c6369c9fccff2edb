"""Contexts that keep Ultralytics off the network, away from pip, and quiet."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from ultralytics.cfg import get_cfg
from ultralytics.data import utils as data_utils
from ultralytics.nn import tasks
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER, checks, downloads

from yoloprune.errors import UserError, did_you_mean
from yoloprune.replaced import replaced

__all__ = ["check_options", "local_checkpoints", "offline", "plain", "quiet"]


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Within the block, Ultralytics neither runs `pip install` for a missing package nor fetches its plotting font."""
    with replaced(checks, "AUTOINSTALL", False), replaced(data_utils, "check_font", lambda *args, **kwargs: None):
        yield


@contextlib.contextmanager
def local_checkpoints(trust: bool = False) -> Iterator[None]:
    """Within the block, Ultralytics loads checkpoints as `weights_only` unless `trust`, from the given path only.

    Its own search would turn `yolov5n.pt` into `yolov5nu.pt` and download that.
    """
    with (
        offline(),
        replaced(tasks, "SAFE_LOAD", tasks.SAFE_LOAD or not trust),
        replaced(downloads, "attempt_download_asset", lambda file, *args, **kwargs: str(file)),
    ):
        yield


@contextlib.contextmanager
def quiet(verbose: bool = False) -> Iterator[None]:
    """Within the block, unless `verbose`, Ultralytics logs nothing (its errors are exceptions) and shows no bar."""
    if verbose:
        yield
        return
    level = LOGGER.level
    LOGGER.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        LOGGER.setLevel(level)


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
