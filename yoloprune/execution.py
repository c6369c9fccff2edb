"""How a network is run: on what, in which mode, in which precision."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from .replaced import replaced

__all__ = ["evaluation", "forward", "full_precision", "own_settings", "threads"]


def forward(model: nn.Module, batch: Any) -> Any:
    """Call the model on one batch: a tensor, a tuple or list of positional, or a dict of keyword arguments."""
    if isinstance(batch, dict):
        return model(**batch)
    if isinstance(batch, (tuple, list)):
        return model(*batch)
    return model(batch)


@contextmanager
def evaluation(*models: nn.Module) -> Iterator[None]:
    """Put the models into evaluation mode and every module's own mode back at the end."""
    with ExitStack() as modes:
        for module in {module for model in models for module in model.modules()}:
            modes.enter_context(replaced(module, "training", module.training))
        for model in models:
            model.eval()
        yield


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Within the block PyTorch computes on so many threads; None: on as many as before."""
    before = torch.get_num_threads()
    try:
        if number:
            torch.set_num_threads(number)
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


@contextmanager
def own_settings() -> Iterator[None]:
    """What the block sets of the process's threads, current GPU and Python's random state is as before after it."""
    device = torch.cuda.current_device() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    state = random.getstate()
    try:
        with threads(None):
            yield
    finally:
        random.setstate(state)
        if device is not None:
            torch.cuda.set_device(device)


def full_precision() -> AbstractContextManager[None]:
    """Compute convolutions on GPUs in float32; by default PyTorch rounds what they are given to 10 bits (TF32)."""
    cudnn = torch.backends.cudnn
    if hasattr(cudnn, "conv"):  # since PyTorch 2.9, which refuses to tell `allow_tf32` where the two ways are mixed
        return replaced(cudnn.conv, "fp32_precision", "ieee")
    return replaced(cudnn, "allow_tf32", False)
