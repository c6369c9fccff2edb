"""A pruned network's layers as rows of a stock `model.yaml`, and which of its tensors each row takes.

A row says few widths; the others follow by formula (a C2f's hidden layers are as wide as its halves). A pruned block
obeys none of them, so it is written out: convolutions, bottlenecks and concatenations are rows of their own, in which
every width can be said. What cannot be written out (attention, a shortcut around an SPPF, the head) stays a row of its
block, and fits where the widths obey the formula; `portable` tells.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from ultralytics.nn.modules import block, conv, head

from yoloprune.errors import UserError

__all__ = ["PSA", "RULES", "Row", "description", "rows_of"]

PSA = (block.PSABlock,)
_SCALES = "nsmlx"
_MOST = 10_000  # channels; no row has more

RULES: Mapping[str, str] = {
    "Conv": "a row's channels are multiples of 8",
    "Bottleneck": "a row's channels are multiples of 8",
    "SPPF": "with a shortcut, its hidden layer has half of its input's channels",
    "C2PSA": "as many channels come out as go in, and the feed-forward layer has twice the attention's",
    "C3k2": "with attention, the bottleneck has half of the attention's channels and the feed-forward layer twice",
    "Detect": "hidden widths of a head follow from its first input and the number of classes",
    "Segment": "hidden widths of a head follow from its first input and the numbers of classes and masks",
    "Pose": "hidden widths of a head follow from its first input and the numbers of classes and keypoints",
    "OBB": "hidden widths of a head follow from its first input and the number of classes",
}
"""What decides the widths that a row does not say, by its module."""


@dataclass(eq=False)
class Row:
    """A row of a `model.yaml`.

    Attributes:
        sources: The rows that it reads; None is the image.
        module: Name of the module, as `parse_model` knows it.
        args: Its arguments, as the YAML has them.
        origin: Name of the module in the pruned network that it stands for.
        tensors: What its module's `state_dict` is to hold.
        layers: The layers of the pruned network that it is (part of).
        repeats: The row's number of repeats.
        listed: Whether it reads a list, as Concat and heads do, also of one.
    """

    sources: list[Row | None]
    module: str
    args: list[Any]
    origin: str
    tensors: dict[str, Tensor]
    layers: set[int]
    repeats: int = 1
    listed: bool = False


@dataclass
class _Writer:
    """Collects the rows of one network in order.

    Attributes:
        rows: The rows so far.
        layer: The layer that is being written.
    """

    rows: list[Row] = field(default_factory=list)
    layer: int = 0

    def add(
        self,
        name: str,
        module: nn.Module | None,
        args: list[Any],
        source: Row | list[Row] | None,
        *,
        kind: str | None = None,
        tensors: dict[str, Tensor] | None = None,
        repeats: int = 1,
    ) -> Row:
        """Add a row with the tensors of `module`, or with `tensors`."""
        listed = isinstance(source, list)
        row = Row(
            sources=source if listed else [source],
            module=kind or type(module).__name__,
            args=args,
            origin=name,
            tensors=(module.state_dict() if module else {}) if tensors is None else tensors,
            layers={self.layer},
            repeats=repeats,
            listed=listed,
        )
        self.rows.append(row)
        return row


def rows_of(network: nn.Module) -> list[Row]:
    """The rows that a network's layers become, in order.

    Args:
        network: An Ultralytics task model with unfused layers; it is not changed.

    Raises:
        UserError: A layer is of a kind that no rows are known for, or its in- and outputs cannot be said.
    """
    writer, outputs = _Writer(), []
    for index, layer in enumerate(network.model):
        writer.layer = index
        write = _WRITERS.get(type(layer))
        if write is None:
            known = ", ".join(sorted({kind.__name__ for kind in _WRITERS}))
            raise UserError(
                f"model.{index} is a {type(layer).__name__}, which has no portable form; those have: {known}."
            )
        indices = layer.f if isinstance(layer.f, list) else [layer.f]
        before = [outputs[i] if i >= 0 else (outputs[index + i] if index + i >= 0 else None) for i in indices]
        outputs.append(write(writer, f"model.{index}", layer, before if isinstance(layer.f, list) else before[0]))
    if _is_depthwise(network.model[-1]):
        _keep_depthwise(writer.rows)
    return writer.rows


def description(network: nn.Module, rows: list[Row]) -> dict[str, Any]:
    """The `model.yaml` of these rows; beside what Ultralytics reads it says which rows each layer has become."""
    numbers = {row: number for number, row in enumerate(rows)}

    def source(row: Row | None, at: int) -> int:
        return -1 if row is None or numbers[row] == at - 1 else numbers[row]

    written = []
    for at, row in enumerate(rows):
        sources = [source(s, at) for s in row.sources]
        written.append([sources if row.listed else sources[0], row.repeats, row.module, copy.deepcopy(row.args)])
    old, last = network.yaml, network.model[-1]
    layers_in_backbone = len(old["backbone"]) - ("pruned_by" in old)  # the mark is a row in front
    backbone = sum(min(row.layers) < layers_in_backbone for row in rows)
    ours = ("backbone", "head", "pruned_by", "scales", "scale", "depth_multiple", "width_multiple", "max_channels")
    more = {"kpt_shape": list(last.kpt_shape)} if hasattr(last, "kpt_shape") else {}
    return {
        **{key: copy.deepcopy(value) for key, value in old.items() if key not in ours},
        "nc": last.nc,
        **more,
        # older Ultralytics needs a scale for C3k2, and a file's name may choose any: all are alike
        "scales": {scale: [1.0, 1.0, _MOST] for scale in _SCALES},
        "scale": _SCALES[0],
        "rows_of_layer": {
            layer: [numbers[row] for row in rows if layer in row.layers] for layer in range(len(network.model))
        },
        "backbone": written[:backbone],
        "head": written[backbone:],
    }


def _conv(writer: _Writer, name: str, module: conv.Conv, source: Row | None, kept: slice | None = None) -> Row:
    """A Conv, or those of its output channels that are named."""
    tensors = module.state_dict()
    if kept is not None:
        tensors = {key: tensor[kept] if tensor.ndim else tensor for key, tensor in tensors.items()}
    inner = module.conv
    kernel, stride, padding, dilation = (
        _number(size) for size in (inner.kernel_size, inner.stride, inner.padding, inner.dilation)
    )
    usual = conv.autopad(kernel, None, dilation)
    args = [len(tensors["conv.weight"]), kernel, stride, None if padding == usual else padding, inner.groups, dilation]
    args.append(not isinstance(module.act, nn.Identity))
    defaults = [None, 1, 1, None, 1, 1, True]
    while args[-1] == defaults[len(args) - 1]:
        args.pop()
    return writer.add(name, None, args, source, kind="Conv", tensors=tensors)


def _bottleneck(writer: _Writer, name: str, module: block.Bottleneck, source: Row | None) -> Row:
    hidden, out = module.cv1.conv.out_channels, module.cv2.conv.out_channels
    kernels = [_number(c.conv.kernel_size) for c in (module.cv1, module.cv2)]
    args = [out, module.add, module.cv2.conv.groups, kernels, _ratio(hidden, out)]
    return writer.add(name, module, args, source)


def _c2f(writer: _Writer, name: str, module: block.C2f, source: Row | None) -> Row:
    if any(isinstance(m, PSA) for m in module.modules()):
        return _attentive_c3k2(writer, name, module, source)
    half = module.cv1.conv.out_channels // 2
    parts = [_conv(writer, f"{name}.cv1", module.cv1, source, s) for s in (slice(half), slice(half, None))]
    for i, inner in enumerate(module.m):
        parts.append(_WRITERS[type(inner)](writer, f"{name}.m.{i}", inner, parts[-1]))
    joined = writer.add(name, None, [1], parts, kind="Concat")
    return _conv(writer, f"{name}.cv2", module.cv2, joined)


def _c3(writer: _Writer, name: str, module: block.C3, source: Row | None) -> Row:
    inner = _conv(writer, f"{name}.cv1", module.cv1, source)
    for i, bottleneck in enumerate(module.m):
        inner = _bottleneck(writer, f"{name}.m.{i}", bottleneck, inner)
    side = _conv(writer, f"{name}.cv2", module.cv2, source)
    joined = writer.add(name, None, [1], [inner, side], kind="Concat")
    return _conv(writer, f"{name}.cv3", module.cv3, joined)


def _sppf(writer: _Writer, name: str, module: block.SPPF, source: Row | None) -> Row:
    times, kernel = getattr(module, "n", 3), module.m.kernel_size
    if getattr(module, "add", False):  # no row adds two others
        return writer.add(name, module, [module.cv2.conv.out_channels, kernel, times, True], source)
    parts = [_conv(writer, f"{name}.cv1", module.cv1, source)]
    for _ in range(times):
        parts.append(writer.add(f"{name}.m", None, [kernel, 1, kernel // 2], parts[-1], kind="nn.MaxPool2d"))
    joined = writer.add(name, None, [1], parts, kind="Concat")
    return _conv(writer, f"{name}.cv2", module.cv2, joined)


def _c2psa(writer: _Writer, name: str, module: block.C2PSA, source: Row | None) -> Row:
    given, out = module.cv1.conv.in_channels, module.cv2.conv.out_channels
    if given != out:
        raise UserError(
            f"{name} takes {given} channels and puts out {out}, but a stock C2PSA row has one number for both "
            f"({RULES['C2PSA']}); prune with --portable, which stays within what rows say."
        )
    args = [out, _ratio(module.cv1.conv.out_channels // 2, out)]
    return writer.add(name, module, args, source, repeats=len(module.m))


def _attentive_c3k2(writer: _Writer, name: str, module: block.C3k2, source: Row | None) -> Row:
    out, first = module.cv2.conv.out_channels, module.m[0][0]
    args = [out, True, _ratio(module.cv1.conv.out_channels // 2, out), True, first.cv2.conv.groups, first.add]
    return writer.add(name, module, args, source, repeats=len(module.m))


def _upsample(writer: _Writer, name: str, module: nn.Upsample, source: Row | None) -> Row:
    return writer.add(name, module, [module.size, module.scale_factor, module.mode], source, kind="nn.Upsample")


def _concat(writer: _Writer, name: str, module: conv.Concat, source: list[Row]) -> Row:
    return writer.add(name, module, [module.d], source)


def _head(writer: _Writer, name: str, module: head.Detect, source: list[Row]) -> Row:
    if isinstance(module, head.Segment):
        args = ["nc", module.nm, module.npr]
    elif isinstance(module, head.Pose):
        args = ["nc", "kpt_shape"]
    else:
        args = ["nc", module.ne] if isinstance(module, head.OBB) else ["nc"]
    return writer.add(name, module, args, source)


_HEADS = (head.Detect, head.Segment, head.Segment26, head.Pose, head.Pose26, head.OBB, head.OBB26)
_WRITERS: Mapping[type[nn.Module], Callable[..., Row]] = {
    conv.Conv: _conv,
    block.Bottleneck: _bottleneck,
    block.C2f: _c2f,
    block.C3k2: _c2f,
    block.C3: _c3,
    block.C3k: _c3,
    block.SPPF: _sppf,
    block.C2PSA: _c2psa,
    nn.Upsample: _upsample,
    conv.Concat: _concat,
    **dict.fromkeys(_HEADS, _head),
}


def _is_depthwise(last: nn.Module) -> bool:
    """Whether the head's class branches are depthwise, as from YOLO11 on."""
    return isinstance(last.cv3[0][0], nn.Sequential)


def _keep_depthwise(rows: list[Row]) -> None:
    """Leave a C3k2 among the rows, by whose presence `parse_model` chooses the head's kind.

    Where none is left, a 1×1 convolution that only another one reads becomes a C3k2 of no repeats with it: such a block
    is its first convolution and its last.

    Raises:
        UserError: There is no such pair.
    """
    if any(row.module == "C3k2" for row in rows):
        return
    for first, second in itertools.pairwise(rows):
        pair = (first, second)
        if (
            all(row.module == "Conv" and len(row.args) == 1 for row in pair)  # 1×1, activated
            and second.sources == [first]
            and not any(first in row.sources for row in rows if row is not second)
            and first.args[0] % 2 == 0
        ):
            tensors = {f"cv{n}.{key}": t for n, row in enumerate(pair, 1) for key, t in row.tensors.items()}
            second.module, second.repeats, second.sources, second.tensors = "C3k2", 0, first.sources, tensors
            second.args = [second.args[0], False, _ratio(first.args[0] // 2, second.args[0])]
            second.layers |= first.layers
            rows.remove(first)
            return
    raise UserError("The head's class branches are depthwise, and no row is left that would say so (a C3k2).")


def _ratio(hidden: int, out: int) -> float:
    """An `e` with which `int(out * e)` is `hidden`."""
    return hidden / out if int(out * (hidden / out)) == hidden else (hidden + 0.5) / out


def _number(size: int | tuple[int, ...]) -> int | list[int]:
    """A kernel size, stride, padding … as a YAML has it."""
    if isinstance(size, int):
        return size
    return size[0] if len(set(size)) == 1 else list(size)
