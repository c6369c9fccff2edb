"""Python attributes that must follow when a module's tensors have shrunk: one small handler per module class.

@attribute_handler(MyBlock)
def _(block, old):            # old: {"conv.weight": torch.Size([64, 32, 3, 3]), …}, shapes before pruning
block.width = block.conv.out_channels
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping

import torch
from torch import nn

__all__ = ["PROVIDERS", "attribute_handler", "resizes_splits", "update"]

Handler = Callable[[nn.Module, Mapping[str, torch.Size]], None]
_HANDLERS: dict[type, Handler] = {}
_RESIZES: set[type] = set()
# top-level package of a module class -> module that registers its handlers, imported when such a class is met
PROVIDERS: dict[str, str] = {"ultralytics": "yoloprune.yolo.handlers"}


def attribute_handler(*classes: type, resizes_splits: bool = False) -> Callable[[Handler], Handler]:
    """Register a handler for module classes and their subclasses; children are updated before their parents.

    Args:
        classes: Module classes.
        resizes_splits: The handler updates the sizes with which the module's forward splits a tensor into unequal
            parts, so the parts need not stay as they are.
    """

    def register(handler: Handler) -> Handler:
        for cls in classes:
            _HANDLERS[cls] = handler
            if resizes_splits:
                _RESIZES.add(cls)
        return handler

    return register


def _load_provider(cls: type) -> None:
    provider = PROVIDERS.get(cls.__module__.partition(".")[0])
    if provider:
        importlib.import_module(provider)


def resizes_splits(module: nn.Module) -> bool:
    """Whether this module's handler updates the sizes of its splits."""
    _load_provider(type(module))
    return any(cls in _RESIZES for cls in type(module).__mro__)


def update(model: nn.Module, old: Mapping[str, torch.Size]) -> None:
    """Update every module's attributes after its tensors have shrunk; `old` holds shapes before, by dotted name."""
    for name, module in reversed(list(model.named_modules())):
        _load_provider(type(module))
        prefix = f"{name}." if name else ""
        for cls in type(module).__mro__:
            if cls in _HANDLERS:
                _HANDLERS[cls](module, {k[len(prefix) :]: s for k, s in old.items() if k.startswith(prefix)})
                break


@attribute_handler(nn.modules.conv._ConvNd)
def _conv(conv: nn.modules.conv._ConvNd, old: Mapping[str, torch.Size]) -> None:
    shape, before = conv.weight.shape, old["weight"]
    inner, outer = (0, 1) if conv.transposed else (1, 0)
    if conv.groups > 1 and conv.groups == conv.in_channels:  # depthwise: a group is a channel
        conv.groups = shape[0] * conv.groups // before[0]
    conv.in_channels = shape[inner] * (1 if conv.transposed else conv.groups)
    conv.out_channels = shape[outer] * (conv.groups if conv.transposed else 1)


@attribute_handler(nn.Linear)
def _linear(linear: nn.Linear, old: Mapping[str, torch.Size]) -> None:
    linear.out_features, linear.in_features = linear.weight.shape


@attribute_handler(nn.modules.batchnorm._NormBase)
def _batch_norm(norm: nn.modules.batchnorm._NormBase, old: Mapping[str, torch.Size]) -> None:
    for tensor in (norm.weight, norm.running_mean):
        if tensor is not None:
            norm.num_features = tensor.shape[0]


@attribute_handler(nn.GroupNorm)
def _group_norm(norm: nn.GroupNorm, old: Mapping[str, torch.Size]) -> None:
    if norm.weight is not None:
        if norm.num_groups == norm.num_channels:
            norm.num_groups = norm.weight.shape[0]
        norm.num_channels = norm.weight.shape[0]


@attribute_handler(nn.LayerNorm)
def _layer_norm(norm: nn.LayerNorm, old: Mapping[str, torch.Size]) -> None:
    if norm.weight is not None:
        norm.normalized_shape = tuple(norm.weight.shape)


@attribute_handler(nn.Embedding)
def _embedding(embedding: nn.Embedding, old: Mapping[str, torch.Size]) -> None:
    embedding.num_embeddings, embedding.embedding_dim = embedding.weight.shape


@attribute_handler(nn.PReLU)
def _prelu(prelu: nn.PReLU, old: Mapping[str, torch.Size]) -> None:
    prelu.num_parameters = prelu.weight.numel()
