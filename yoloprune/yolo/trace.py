"""The dependency graph of an Ultralytics model: what stays by default, and at which size to run it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import block, head, transformer

from yoloprune.errors import UserError
from yoloprune.graph import Graph, Plan, mask_error, trace

__all__ = ["check_exact", "predictions", "trace_yolo"]

_EXACT = 1e-6  # relative, in double precision, where a right plan leaves 1e-12

# Their forward reads widths of its input as heads x head_dim, so those widths stay; what surrounds them is pruned.
_ATTENTION = (
    block.Attention,
    block.AAttn,
    block.MaxSigmoidAttnBlock,
    block.ImagePoolingAttn,
    transformer.AIFI,
    transformer.TransformerLayer,
    nn.MultiheadAttention,
)
# Heads whose widths are fixed by queries or text embeddings.
_FIXED_HEADS = (head.RTDETRDecoder, head.WorldDetect, head.YOLOEDetect)


def predictions(output: Any) -> Any:
    """What an Ultralytics head returns, without the `feats` among it.

    Heads hand their inputs on beside their predictions, as shapes for the loss. Were these taken for outputs of the
    model, the widest layers of the neck could never lose a channel.
    """
    if isinstance(output, dict):
        return {key: predictions(value) for key, value in output.items() if key != "feats"}
    if isinstance(output, (list, tuple)):
        return type(output)(predictions(value) for value in output)
    return output


def trace_yolo(model: nn.Module, prune_head: bool = False) -> Graph:
    """Trace an Ultralytics task model (DetectionModel, SegmentationModel …) without changing it.

    Args:
        model: The `.model` of an Ultralytics YOLO.
        prune_head: Also prune the head's hidden layers; its outputs always stay.
    """
    last = model.model[-1]
    freeze: list = list(_ATTENTION)
    if not prune_head or isinstance(last, _FIXED_HEADS):
        freeze.append(lambda name, module: module is last)
    cached = dict(last.__dict__)  # anchors and strides are cached per image shape
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused encoder layer is one opaque operator
    hook = last.register_forward_hook(lambda module, args, output: predictions(output))
    try:
        return trace(model, torch.zeros_like(_image(model)), freeze=freeze)
    finally:
        hook.remove()
        torch.backends.mha.set_fastpath_enabled(fast)
        last.__dict__.clear()
        last.__dict__.update(cached)


def check_exact(model: nn.Module, plan: Plan) -> float:
    """Check on the model's own weights that pruning by the plan is zeroing by it.

    Args:
        model: As for `trace_yolo`; it is not changed.
        plan: A plan for it.

    Returns:
        Largest relative difference of the predictions, on an image of noise and in double precision, in which a
        decoder that sorts by score sees no ties.

    Raises:
        UserError: The predictions differ, or the pruned network does not run.
    """
    try:
        error = mask_error(copy.deepcopy(model).double(), plan, _image(model).double(), select=predictions)
        said = f"differs by {error:.1g} of the largest prediction from"
    except Exception as e:  # a block with sizes of its own can raise anything
        error, said = float("inf"), f"does not run ({type(e).__name__}: {e}), unlike"
    if not error < _EXACT:
        raise UserError(
            f"The pruned network {said} the original with the removed channels zeroed: some block of this model does "
            "more with its widths than one execution shows, so it cannot be pruned."
        )
    return error


def _image(model: nn.Module) -> Tensor:
    """An image of noise, as small as the model takes it."""
    # an RT-DETR decoder picks 300 queries, so the image must hold that many anchors
    size = 160 if isinstance(model.model[-1], head.RTDETRDecoder) else 64
    stride = int(max(getattr(model, "stride", torch.tensor([32.0])).max(), 32))
    size = -(-size // stride) * stride
    channels = getattr(model, "yaml", {}).get("channels", 3)
    noise = torch.rand(1, channels, size, size, generator=torch.Generator().manual_seed(0))
    return noise.to(next(model.parameters()))
