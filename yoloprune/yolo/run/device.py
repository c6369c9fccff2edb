"""Checks of the device."""

from __future__ import annotations

from ultralytics.utils.torch_utils import select_device

from yoloprune.errors import UserError

__all__ = ["check_device"]


def check_device(device: str | None) -> None:
    """Check that Ultralytics can use the device on this machine.

    Raises:
        UserError: It is not there, or no device is called so.
    """
    try:
        select_device(device, verbose=False)
    except (ValueError, RuntimeError, AssertionError) as error:
        raise UserError(f"The device {device!r} is not on this machine; leave it out, or give 'cpu'.") from error
