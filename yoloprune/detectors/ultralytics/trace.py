"""The dependency graph of an Ultralytics model: what stays by default, and at which size to run it."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import block, head, transformer
from ultralytics.utils.torch_utils import is_qat

from yoloprune.errors import UserError, did_you_mean
from yoloprune.exclusive import exclusive
from yoloprune.graph import Graph, trace

from .portable import check_portable
from .stock_formulas import Limits, limits_of

__all__ = ["ATTENTION", "FIXED_HEADS", "check_runs", "noise", "predictions", "trace_yolo"]

# Their forward reads widths of its input as heads x head_dim, so those widths stay; what surrounds them is pruned.
ATTENTION = (
    block.Attention,
    block.AAttn,
    block.MaxSigmoidAttnBlock,
    block.ImagePoolingAttn,
    transformer.AIFI,
    transformer.TransformerLayer,
    nn.MultiheadAttention,
)
# Heads whose widths are fixed by queries or text embeddings.
FIXED_HEADS = (head.RTDETRDecoder, head.WorldDetect, head.YOLOEDetect)


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


@exclusive
def trace_yolo(model: nn.Module, prune_head: bool = False, keep: Sequence[str] = (), portable: bool = False) -> Graph:
    """Trace an Ultralytics task model (DetectionModel, SegmentationModel …) without changing it.

    Args:
        model: The `.model` of an Ultralytics YOLO.
        prune_head: Also prune the head's hidden layers; its outputs always stay.
        keep: Names or patterns of modules whose output channels stay, such as "model.0" or "model.*.cv1".
        portable: Stay within what rows of a stock `model.yaml` can say.

    Raises:
        UserError: `keep` names what the model does not have, stock rows cannot even say the model as it is, or it was
            trained for INT8.
    """
    if is_qat(model):
        raise UserError(
            "This network was trained for INT8, which pruning would undo; give the checkpoint from before that."
        )
    last = model.model[-1]
    modules = [name for name, _ in model.named_modules()]
    for pattern in keep:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in modules):
            near = did_you_mean(pattern, modules)
            raise UserError(f"keep={pattern!r} is no layer of the model{near} (`yoloprune inspect` names them).")
    limits = Limits()
    if portable:
        check_portable(model)
        limits = limits_of(model)
    freeze: list = [*ATTENTION, *keep, *limits.freeze]
    if not prune_head or isinstance(last, FIXED_HEADS):
        freeze.append(lambda name, module: module is last)
    hook = last.register_forward_hook(lambda module, args, output: predictions(output))
    try:
        with _caches_kept(last):
            return trace(model, torch.zeros_like(noise(model)), freeze=freeze, tie=limits.tie, least=limits.least)
    finally:
        hook.remove()


def check_runs(model: nn.Module, what: str) -> None:
    """Check that a network in eval mode runs, which one from a damaged or made-up file need not.

    Args:
        model: The `.model` of an Ultralytics YOLO; it is not changed.
        what: What to call it in the message.

    Raises:
        UserError: It does not.
    """
    try:
        with torch.no_grad(), _caches_kept(model.model[-1]):
            model(torch.zeros_like(noise(model)))
    except Exception as error:  # its modules may lack anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{what} holds a network that does not run ({reason}); give another checkpoint.") from error


@contextlib.contextmanager
def _caches_kept(last: nn.Module) -> Iterator[None]:
    """Within the block, a head may run: its anchors and strides, cached per image shape, are put back."""
    cached = dict(last.__dict__)
    try:
        yield
    finally:
        last.__dict__.clear()
        last.__dict__.update(cached)


def noise(model: nn.Module) -> Tensor:
    """An image of noise, as small as the model takes it."""
    # an RT-DETR decoder picks 300 queries, so the image must hold that many anchors
    size = 160 if isinstance(model.model[-1], head.RTDETRDecoder) else 64
    stride = int(max(getattr(model, "stride", torch.tensor([32.0])).max(), 32))
    size = -(-size // stride) * stride
    channels = getattr(model, "yaml", {}).get("channels", 3)
    image = torch.rand(1, channels, size, size, generator=torch.Generator().manual_seed(0), device="cpu")
    return image.to(next(model.parameters()))
