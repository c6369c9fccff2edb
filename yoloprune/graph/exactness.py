"""Whether a plan is exact on a network: the pruned one returns what the original does with the removed slices zeroed.

Where an operator takes statistics over channels (layer norm …), removing a channel and zeroing it are not the same. The
counterpart that is checked then holds the statistics fixed: the masked network is given those of the pruned one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from yoloprune.errors import UserError
from yoloprune.exclusive import exclusive
from yoloprune.execution import evaluation, forward, full_precision
from yoloprune.graph.plan import Plan
from yoloprune.graph.tracing.internals import (
    Operator,
    OperatorMode,
    PassingFunctionMode,
    leaves,
    map_leaves,
    operator_name,
)
from yoloprune.graph.tracing.outputs import output_tensors

__all__ = ["Statistics", "difference", "mask_error", "masked", "outputs"]

_OF_CHANNELS = frozenset(["native_layer_norm", "native_group_norm", "_fused_rms_norm"])
_VISIBLE = 1e-6  # a difference that shows by itself that the outputs depend on the channels
Noted = tuple[str, torch.Size, Any]  # operator, shape of its input, what it returned
_REDUCTIONS = frozenset(["mean", "var", "std", "var_mean", "std_mean"])


@exclusive
def mask_error(
    model: nn.Module,
    plan: Plan,
    example_inputs: Any,
    select: Callable[[Any], Any] = lambda output: output,
    *,
    allow_constant: bool = False,
) -> float:
    """Measure how far the pruned network is from the original with the removed slices zeroed.

    Args:
        model: The network that the plan was made for; it is not changed.
        plan: What is removed.
        example_inputs: As for `trace`. In double precision (model and inputs) nothing but errors is left.
        select: What of the output is compared; by default all of it.
        allow_constant: Whether outputs may depend on parameters alone, and not on the inputs.

    Returns:
        Largest difference of any output tensor, relative to the largest value in it; infinite where the two networks
        take different statistics or their outputs have different shapes.

    Raises:
        UserError: All outputs are the same for another input, bit for bit, so that no wrong channel might show, and
            `allow_constant` is off.
        Exception: Whatever the pruned network raises.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 1)).double()
        >>> x = torch.rand(1, 3, 8, 8).double()
        >>> mask_error(net, trace(net, x).random_plan(0.5), x) < 1e-12
        True
    """
    statistics = Statistics()
    small = outputs(plan.apply(model), example_inputs, statistics, select)
    large = masked(model, plan)
    try:
        found = outputs(large, example_inputs, Statistics(statistics.record), select)
    except _DivergedError:
        return float("inf")
    error = difference(found, small)
    if (
        not allow_constant
        and error < _VISIBLE
        and _is_constant(large, example_inputs, Statistics(statistics.record), select, found)
    ):
        raise UserError(
            "The network's outputs are the same for another input, bit for bit, so they cannot show a wrong channel; "
            "give weights and inputs with which its outputs depend on what it sees."
        )
    return error


def _is_constant(
    model: nn.Module, example_inputs: Any, statistics: Statistics, select: Callable[[Any], Any], found: list[Tensor]
) -> bool:
    """Whether a network returns the same for another input; False where that cannot be determined."""
    other = _other_inputs(example_inputs)
    if other is None:
        return False
    try:
        now = outputs(model, other, statistics, select)
    except Exception:  # the model's code may refuse such an input, or take another path
        return False
    return len(now) == len(found) and all(torch.equal(a, b) for a, b in zip(now, found, strict=True))


def _other_inputs(example_inputs: Any) -> Any | None:
    """Inputs with other values: noise is added to floating-point tensors, or integers are rolled."""
    given = [t for t in leaves(example_inputs) if isinstance(t, Tensor)]
    generator = torch.Generator().manual_seed(1)
    floating = any(t.is_floating_point() for t in given)

    def change(t: Any) -> Any:
        if not isinstance(t, Tensor) or (floating and not t.is_floating_point()):
            return t
        if not floating:
            return t.roll(1)
        return t + torch.rand(t.shape, generator=generator, device="cpu").to(t)

    other = map_leaves(change, example_inputs)
    changed = [t for t in leaves(other) if isinstance(t, Tensor)]
    return None if all(torch.equal(a, b) for a, b in zip(given, changed, strict=True)) else other


def masked(model: nn.Module, plan: Plan) -> nn.Module:
    """A copy of the network in which the removed slices are zero.

    Weight-normed channels are given a direction again, which zero does not have; their length is zero.
    """
    network = plan.mask_(copy.deepcopy(model))
    for name, p in network.named_parameters():
        if name.endswith(("weight_v", "weight.original1")):
            p.data[p.data.flatten(1).abs().sum(1) == 0] = 1
    return network


def outputs(
    model: nn.Module,
    example_inputs: Any,
    statistics: Statistics,
    select: Callable[[Any], Any] = lambda output: output,
) -> list[Tensor]:
    """The network's outputs in inference mode, its floating-point tensors as float64, under `statistics`."""
    with evaluation(model), torch.no_grad(), full_precision(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with statistics, PassingFunctionMode():  # under which attention runs operator by operator, statistics and all
            found = select(forward(model, example_inputs))
    return [t.double() for t in output_tensors(found) if t.is_floating_point()]


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    """Largest difference relative to the largest value of its tensor.

    Infinite where shapes differ, or where values are not finite in one of the two only or in a whole tensor.
    """
    if [t.shape for t in a] != [t.shape for t in b] or not any(t.numel() for t in a):
        return float("inf")
    found = [0.0]
    for one, other in zip(a, b, strict=True):
        finite = one.isfinite()
        if not torch.equal(finite, other.isfinite()) or (finite.numel() and not finite.any()):
            return float("inf")
        if finite.any():
            one, other = one[finite], other[finite]
            found.append(float((one - other).abs().max() / one.abs().max().clamp_min(1e-9)))
    return max(found)


class _DivergedError(Exception):
    """An execution takes other statistics than the one that it was to repeat."""


class Statistics(OperatorMode):
    """Records the statistics over channels of one execution, or, given a record, repeats them.

    An operator is given the recorded statistics where its input has lost channels and its statistics have not. A batch
    norm in training, by which weights are standardised, loses both: its statistics are taken over what is not zeroed.

    Args:
        record: What another execution's `record` has become.
    """

    def __init__(self, record: list[Noted] | None = None) -> None:
        super().__init__()
        self.record: list[Noted] = [] if record is None else record
        self._replay = None if record is None else iter(record)

    def __torch_dispatch__(
        self, func: Operator, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = operator_name(func)
        if "batch_norm" in name and any(a is True for a in args[3:6]):
            return self._batch_norm(args, out)
        if name not in _REDUCTIONS and name not in _OF_CHANNELS:
            return out
        x = args[0]
        if self._replay is None:
            self.record.append((name, x.shape, out))
            return out
        shape, then = self._next(self._replay, name)
        if shape == x.shape:
            return out
        if name in _REDUCTIONS:
            now, before = (o if isinstance(o, tuple) else (o,) for o in (out, then))
            return then if all(a.shape == b.shape for a, b in zip(now, before, strict=True)) else out
        if then[1].shape != out[1].shape:
            return out  # what goes has statistics of its own: a group of one channel, a head
        if name == "native_group_norm":
            _, mean, scale = then
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

    @staticmethod
    def _next(replay: Iterator[Noted], name: str) -> tuple[torch.Size, Any]:
        was, shape, result = next(replay, ("", torch.Size(), None))
        if was != name:
            raise _DivergedError
        return shape, result

    def _batch_norm(self, args: tuple[Any, ...], out: tuple[Any, ...]) -> tuple[Any, ...]:
        x, weight, bias = args[:3]
        if self._replay is None:
            self.record.append(("batch_norm", x.shape, None))
            return out
        shape, _ = self._next(self._replay, "batch_norm")
        if (shape[0], *shape[2:]) == (x.shape[0], *x.shape[2:]):
            return out
        rows = x.transpose(0, 1).flatten(1)
        kept = rows[:, rows.any(0)]
        y = (x - kept.mean(1)[:, None]) * (kept.var(1, correction=0) + args[-1])[:, None].rsqrt()
        y = y if weight is None else y * weight[:, None]
        return y if bias is None else y + bias[:, None], *out[1:]
