"""The number of heads of an attention module, as its layers tell it after heads have gone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

__all__ = ["fewer_heads"]


def fewer_heads(attention: nn.Module, old: Mapping[str, torch.Size], layer: str = "qkv") -> None:
    """Update `num_heads` from the rows of the layer that makes queries: a head keeps its width."""
    rows, before = attention.get_parameter(f"{layer}.weight").shape[0], old[f"{layer}.weight"][0]
    attention.num_heads = attention.num_heads * rows // before
