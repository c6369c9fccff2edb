"""What exactness tests share: a network in which a wrong channel shows, and the error of a plan.

Where an operator takes statistics over channels (layer norm …), removing a channel and zeroing it are not the same. The
counterpart that is checked then holds the statistics fixed: the masked network is given those of the pruned one.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten_with_path

from yoloprune.graph import Graph, Plan
from yoloprune.graph.budget import chains


def enliven(model: nn.Module, size: int = 8, channels: int = 3) -> nn.Module:
    """Random affine parameters and BN calibrated on activations, in inference mode.

    In a default-initialised network a wrong channel moves the output by less than 1e-6.
    """
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.uniform_(-0.5, 0.5, generator=generator)
            module.momentum = None
    model.train()
    with torch.no_grad():
        model(torch.randn(2, channels, size, size, generator=generator))
    return model.eval()


def randomise(model: nn.Module) -> nn.Module:
    """Random values for all parameters and floating-point buffers, in double precision and inference mode."""
    generator = torch.Generator().manual_seed(0)
    model = model.double().eval()
    for p in model.parameters():
        if p.dim() > 1:
            p.data.normal_(0, (p.shape[1:].numel()) ** -0.5, generator=generator)
        else:
            p.data.uniform_(0.5, 1.5, generator=generator)
    for module in model.modules():
        for name in ("running_mean", "running_var"):
            if getattr(module, name, None) is not None:
                getattr(module, name).uniform_(0.5, 1.5, generator=generator)
    return model


def prunable_share(graph: Graph) -> float:
    """Of the channels that layers produce for other layers, the share that some plan can remove but for the last."""
    hidden = graph.produced.copy()
    for group in graph.groups:
        if group.reason == "reaches the model's output":
            hidden[group.components] = False
    can_go = 0
    for chain in chains(graph, np.zeros(graph.n_components), round_to=1):
        if chain.steps:
            can_go += len(chain.steps[0]) * (len(chain.steps) + 1)
    return can_go / max(hidden.sum(), 1)


class Statistics(TorchDispatchMode):
    """Records the statistics over channels of one execution, or, given a record, repeats them.

    An operator is given the recorded statistics where its input has lost channels and its statistics have not. A batch
    norm in training, by which weights are standardised, loses both: its statistics are taken over what is not zeroed.
    """

    _REDUCTIONS = frozenset(["mean", "var", "std", "var_mean", "std_mean"])

    def __init__(self, record: list | None = None) -> None:
        super().__init__()
        self.record: list = [] if record is None else record
        self.replay = None if record is None else iter(record)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[-1]
        if "batch_norm" in name and any(a is True for a in args[3:6]):
            return self._batch_norm(args, out)
        if name not in self._REDUCTIONS and name not in ("native_layer_norm", "native_group_norm", "_fused_rms_norm"):
            return out
        x = args[0]
        if self.replay is None:
            self.record.append((name, x.shape, out))
            return out
        was, shape, then = next(self.replay)
        assert was == name
        if shape == x.shape:
            return out
        if name in self._REDUCTIONS:
            now, before = (o if isinstance(o, tuple) else (o,) for o in (out, then))
            return then if all(a.shape == b.shape for a, b in zip(now, before, strict=True)) else out
        if name == "native_group_norm":
            _, mean, scale = then
            if mean.shape != out[1].shape:
                return out  # a group is a channel
            groups = mean.shape[1]
            y = (x.reshape(len(x), groups, -1) - mean[..., None]) * scale[..., None]
            affine = [None if a is None else a.view(-1, *[1] * (x.dim() - 2)) for a in args[1:3]]
            y = y.view(x.shape)
        else:
            mean, scale = (then[1], then[2]) if name == "native_layer_norm" else (0, then[1])
            y, affine = (x - mean) * scale, [a if isinstance(a, Tensor) else None for a in (*args[2:4], None)[:2]]
        y = y if affine[0] is None else y * affine[0]
        y = y if affine[1] is None else y + affine[1]
        return y, *then[1:]

    def _batch_norm(self, args: tuple, out: tuple) -> tuple:
        x, weight, bias = args[:3]
        if self.replay is None:
            self.record.append(("batch_norm", x.shape, None))
            return out
        name, shape, _ = next(self.replay)
        assert name == "batch_norm"
        if (shape[0], *shape[2:]) == (x.shape[0], *x.shape[2:]):
            return out
        rows = x.transpose(0, 1).flatten(1)
        kept = rows[:, rows.any(0)]
        y = (x - kept.mean(1)[:, None]) * (kept.var(1, correction=0) + args[-1])[:, None].rsqrt()
        y = y if weight is None else y * weight[:, None]
        return y if bias is None else y + bias[:, None], *out[1:]


def outputs(out: object, drop: str = "") -> list[Tensor]:
    """Floating-point tensors of any output structure, without those under a dictionary key `drop`."""
    if not any(isinstance(t, Tensor) for _, t in tree_flatten_with_path(out)[0]):  # an object of the model's own
        out = [getattr(out, name, None) for name in getattr(out, "__slots__", ())] or vars(out)
    leaves = [(str(path), t) for path, t in tree_flatten_with_path(out)[0]]
    return [
        t.double()
        for path, t in leaves
        if isinstance(t, Tensor) and t.is_floating_point() and not (drop and drop in path)
    ]


def unzero_directions(masked: nn.Module) -> nn.Module:
    """Give weight-normed channels that were zeroed a direction again, which has none at zero: their length is zero."""
    for name, p in masked.named_parameters():
        if name.endswith(("weight_v", "weight.original1")):
            p.data[p.data.flatten(1).abs().sum(1) == 0] = 1
    return masked


@contextlib.contextmanager
def no_fast_path() -> Iterator[None]:
    """Run encoder layers operator by operator: the fused one hides its statistics."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def mask_error(model: nn.Module, plan: Plan, x: Any, drop: str = "", pruned: Plan | None = None) -> float:
    """Largest relative difference between the pruned model and the original with the removed slices zeroed.

    Args:
        model: The original.
        plan: What is removed.
        x: A tensor, or a tuple of positional arguments.
        drop: See `outputs`.
        pruned: Another plan for the smaller model, to show that a wrong index is seen.
    """
    args = x if isinstance(x, tuple) else (x,)
    with torch.no_grad(), no_fast_path():
        with Statistics() as statistics:
            small = outputs((pruned or plan).apply(model)(*args), drop)
        with Statistics(statistics.record):
            masked = outputs(unzero_directions(plan.mask_(copy.deepcopy(model)))(*args), drop)
    assert masked and [m.shape for m in masked] == [p.shape for p in small]
    return max(
        float((m - p).abs().max() / m.abs().max().clamp_min(1e-9))
        for m, p in zip(masked, small, strict=False)
        if m.numel()
    )
