"""Devices as Ultralytics takes them."""

from __future__ import annotations

import torch
from ultralytics.utils.torch_utils import get_cpu_info, select_device

from yoloprune.errors import UserError
from yoloprune.execution import own_settings

__all__ = ["device_name", "place"]


def place(device: str | int | None) -> torch.device:
    """The device that Ultralytics takes; the first of several. Threads and the current GPU, which it sets, stay.

    Raises:
        UserError: It is not on this machine, or no device is called so.
    """
    try:
        with own_settings():
            return select_device(device, verbose=False)
    except (ValueError, RuntimeError, AssertionError) as error:
        raise UserError(f"The device {device!r} is not on this machine; leave it out, or give 'cpu'.") from error


def device_name(device: str | int | None) -> str:
    """What to call that device in a report."""
    chosen = place(device)
    if chosen.type == "cuda":
        return torch.cuda.get_device_name(chosen)
    threads = torch.get_num_threads()
    return f"{get_cpu_info()}, {threads} thread{'s' * (threads > 1)}" if chosen.type == "cpu" else str(chosen)
