"""The number of heads of an attention module, derived from its layers after heads were removed."""

from __future__ import annotations

from torch import nn

from yoloprune.graph.attributes import Shapes

__all__ = ["update_num_heads"]


def update_num_heads(attention: nn.Module, old: Shapes, layer: str = "qkv") -> None:
    """Update the number and the joint width of heads from the rows of the layer that makes queries.

    A head keeps its own width, which is a size in the module's code or scales its scores.
    """
    rows, before = attention.get_parameter(f"{layer}.weight").shape[0], old[f"{layer}.weight"][0]
    for name in ("num_heads", "attn_dim", "key_attn_dim", "val_attn_dim"):
        if isinstance(getattr(attention, name, None), int):
            setattr(attention, name, getattr(attention, name) * rows // before)
    if hasattr(attention, "attention_bias_cache"):
        vars(attention)["attention_bias_cache"] = {}  # it holds the biases of all heads before
