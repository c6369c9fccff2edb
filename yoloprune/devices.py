"""What is asked of any kind of device."""

from __future__ import annotations

import torch

__all__ = ["synchronise"]


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was given: all but the CPU run behind Python's back."""
    if device.type == "mps":
        torch.mps.synchronize()  # there is but one
    elif wait := getattr(getattr(torch, device.type, None), "synchronize", None):
        wait(device)
