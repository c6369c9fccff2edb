"""Python attributes that must follow when a module's tensors have shrunk: one small handler per module class.

@attribute_handler(MyBlock)
def update_width(block, old):  # old: {"conv.weight": torch.Size([64, 32, 3, 3]), …}, shapes before pruning
block.width = block.conv.out_channels
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from yoloprune.graph.tracing.internals import ConvNd, ConvTransposeNd, NormBase

__all__ = [
    "PROVIDERS",
    "Shapes",
    "attribute_handler",
    "counts",
    "has_handler",
    "resize_convolution",
    "resizes_splits",
    "shapes",
    "update",
    "widths",
]

Shapes = Mapping[str, torch.Size]  # of tensors, by dotted name
Handler = Callable[[Any, Shapes], None]  # (module, shapes before pruning)
H = TypeVar("H", bound=Handler)
Sizes = Mapping[str, tuple[str, int | None]]  # attribute -> (parameter, dimension or None for its whole shape)

_HANDLERS: dict[type, Handler] = {}
_RESIZES: set[type] = set()
_COUNTS: dict[type, tuple[str, ...]] = {}
_WIDTHS: dict[type, Sizes] = {}
# top-level package of a module class -> module that registers its handlers, imported when such a class is first seen
PROVIDERS: dict[str, str] = {
    "timm": "yoloprune.graph.handlers.timm",
    "torch_geometric": "yoloprune.graph.handlers.torch_geometric",
    "torchvision": "yoloprune.graph.handlers.torchvision",
    "ultralytics": "yoloprune.detectors.ultralytics.handlers",
}


def attribute_handler(
    *classes: type[nn.Module],
    resizes_splits: bool = False,
    counts: tuple[str, ...] = (),
    widths: Sizes | None = None,
) -> Callable[[H], H]:
    """Register a handler for module classes and their subclasses; children are updated before their parents.

    Args:
        classes: Module classes.
        resizes_splits: The handler updates the sizes with which the module's forward splits a tensor into unequal
            parts, so the parts need not stay as they are.
        counts: Attributes that count heads or other parts which may go as a whole, and which the handler updates.
        widths: Attributes that are as large as a dimension of a parameter (None: as its shape), and which the handler
            updates: code that reads them follows.

    Examples:
        >>> class Halves(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.conv, self.half = nn.Conv2d(3, 16, 1), 8
        ...
        ...     def forward(self, x):
        ...         x = self.conv(x)
        ...         return x[:, : self.half] * x[:, self.half :]
        >>> @attribute_handler(Halves)
        ... def update_half(module, old):  # old: {"conv.weight": torch.Size([16, 3, 1, 1]), "conv.bias": …}
        ...     module.half = module.conv.out_channels // 2
    """

    def register(handler: H) -> H:
        for cls in classes:
            _HANDLERS[cls] = handler
            if resizes_splits:
                _RESIZES.add(cls)
            _COUNTS[cls], _WIDTHS[cls] = counts, widths or {}
        return handler

    return register


def _load_provider(cls: type) -> None:
    provider = PROVIDERS.get(cls.__module__.partition(".")[0])
    if provider:
        importlib.import_module(provider)


def has_handler(module: nn.Module) -> bool:
    """Whether the attributes that this module's forward reads are updated, so that sizes taken from them follow.

    A subclass with a forward of its own may read others, of which the handler of its base knows nothing.
    """
    _load_provider(type(module))
    forward: Callable[..., Any] = type(module).forward
    known = next((cls for cls in type(module).__mro__ if cls in _HANDLERS), None)
    return known is not None and (
        forward is getattr(known, "forward", None) or forward.__module__.startswith("torch.nn.modules.")
    )


def resizes_splits(module: nn.Module) -> bool:
    """Whether this module's handler updates the sizes of its splits."""
    _load_provider(type(module))
    return any(cls in _RESIZES for cls in type(module).__mro__)


def counts(module: nn.Module) -> tuple[str, ...]:
    """Attributes of this module that count parts which may go as a whole."""
    _load_provider(type(module))
    return next((_COUNTS[cls] for cls in type(module).__mro__ if cls in _COUNTS), ())


def widths(module: nn.Module) -> Sizes:
    """Attributes of this module that are as large as a dimension of one of its parameters."""
    _load_provider(type(module))
    return next((_WIDTHS[cls] for cls in type(module).__mro__ if cls in _WIDTHS), {})


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Shapes of the model's tensors by every name they have, as `update` wants them from before the pruning."""
    return {name: tensor.shape for name, tensor in model.state_dict(keep_vars=True).items()}


def update(model: nn.Module, old: Shapes) -> None:
    """Update every module's attributes after its tensors have shrunk; `old` holds shapes before, by dotted name."""
    below: dict[str, dict[str, torch.Size]] = {"": dict(old)}
    for name, shape in old.items():
        for dot in (i for i, c in enumerate(name) if c == "."):
            below.setdefault(name[:dot], {})[name[dot + 1 :]] = shape
    for name, module in reversed(list(model.named_modules())):
        _load_provider(type(module))
        for cls in type(module).__mro__:
            if cls in _HANDLERS:
                _HANDLERS[cls](module, below.get(name, {}))
                break


@attribute_handler(ConvTransposeNd, widths={"in_channels": ("weight", 0), "out_channels": ("weight", 1)})
@attribute_handler(ConvNd, widths={"out_channels": ("weight", 0), "in_channels": ("weight", 1)})
def resize_convolution(conv: ConvNd, old: Shapes) -> None:
    """Channels and groups of a convolution, as its weight has them."""
    outer, inner = conv.weight.shape[:2]
    if conv.transposed:
        outer, inner = inner, outer
    if conv.groups > 1 and conv.groups == conv.in_channels:  # depthwise: a group is a channel
        conv.groups = conv.weight.shape[0] * conv.groups // (conv.in_channels if conv.transposed else conv.out_channels)
    conv.in_channels = inner * (1 if conv.transposed else conv.groups)
    conv.out_channels = outer * (conv.groups if conv.transposed else 1)


@attribute_handler(nn.Linear, widths={"out_features": ("weight", 0), "in_features": ("weight", 1)})
def _linear(linear: nn.Linear, old: Shapes) -> None:
    linear.out_features, linear.in_features = linear.weight.shape


@attribute_handler(NormBase, widths={"num_features": ("weight", 0)})
def _batch_norm(norm: NormBase, old: Shapes) -> None:
    for tensor in (norm.weight, norm.running_mean):
        if tensor is not None:
            norm.num_features = tensor.shape[0]


@attribute_handler(nn.GroupNorm, widths={"num_channels": ("weight", 0)})
def _group_norm(norm: nn.GroupNorm, old: Shapes) -> None:
    if norm.weight is not None:
        if norm.num_groups == norm.num_channels:
            norm.num_groups = norm.weight.shape[0]
        norm.num_channels = norm.weight.shape[0]


@attribute_handler(nn.LayerNorm, nn.RMSNorm, widths={"normalized_shape": ("weight", None)})
def _layer_norm(norm: nn.LayerNorm | nn.RMSNorm, old: Shapes) -> None:
    if norm.weight is not None:
        norm.normalized_shape = tuple(norm.weight.shape)


@attribute_handler(nn.Embedding, widths={"num_embeddings": ("weight", 0), "embedding_dim": ("weight", 1)})
def _embedding(embedding: nn.Embedding, old: Shapes) -> None:
    embedding.num_embeddings, embedding.embedding_dim = embedding.weight.shape


@attribute_handler(nn.PReLU, widths={"num_parameters": ("weight", 0)})
def _prelu(prelu: nn.PReLU, old: Shapes) -> None:
    prelu.num_parameters = prelu.weight.numel()


@attribute_handler(nn.Bilinear)
def _bilinear(bilinear: nn.Bilinear, old: Shapes) -> None:
    bilinear.out_features, bilinear.in1_features, bilinear.in2_features = bilinear.weight.shape


@attribute_handler(nn.RNNBase, widths={"input_size": ("weight_ih_l0", 1), "hidden_size": ("weight_hh_l0", 1)})
def _recurrent(rnn: nn.RNNBase, old: Shapes) -> None:
    shapes = {name: p.shape for name, p in rnn.named_parameters(recurse=False)}
    rnn.input_size, rnn.hidden_size = shapes["weight_ih_l0"][1], shapes["weight_hh_l0"][0] // _gates(rnn)
    rnn.proj_size = shapes["weight_hr_l0"][0] if rnn.proj_size else 0


def _gates(rnn: nn.RNNBase) -> int:
    return {"LSTM": 4, "GRU": 3}.get(rnn.mode, 1)


@attribute_handler(nn.RNNCellBase, widths={"input_size": ("weight_ih", 1), "hidden_size": ("weight_hh", 1)})
def _recurrent_cell(cell: nn.RNNCellBase, old: Shapes) -> None:
    cell.input_size, cell.hidden_size = cell.weight_ih.shape[1], cell.weight_hh.shape[1]


@attribute_handler(nn.MultiheadAttention)
def _attention(attention: nn.MultiheadAttention, old: Shapes) -> None:
    attention.embed_dim = attention.out_proj.weight.shape[1]  # head_dim stays: heads go as a whole
    attention.num_heads = attention.embed_dim // attention.head_dim
    packed = attention.in_proj_weight is not None  # queries, keys and values have one projection
    attention.kdim = attention.embed_dim if packed else attention.k_proj_weight.shape[1]
    attention.vdim = attention.embed_dim if packed else attention.v_proj_weight.shape[1]


@attribute_handler(nn.Transformer)
def _transformer(transformer: nn.Transformer, old: Shapes) -> None:
    for stack in (transformer.encoder, transformer.decoder):
        if isinstance(stack, (nn.TransformerEncoder, nn.TransformerDecoder)):
            transformer.d_model = stack.layers[0].self_attn.out_proj.out_features
