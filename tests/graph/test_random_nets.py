"""Random compositions of what real networks do to channels: every plan is exact, whatever meets whatever."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.graph.exactness import randomise
from tests.graph.nets.case import conv
from yoloprune.graph import mask_error, trace

_MOST = 64  # channels of any tensor


class Op(NamedTuple):
    """A function of one tensor (2, width, 6, 6), of widths that are multiples of `parts`; `width` is its result's."""

    apply: Callable[[Tensor], Tensor]
    parts: int = 1
    width: Callable[[int], int] = lambda w: w


class Pair(NamedTuple):
    """A function of two tensors, whose widths must be the same if `equal_widths`."""

    apply: Callable[[Tensor, Tensor], Tensor]
    width: Callable[[int, int], int] = lambda a, b: a
    equal_widths: bool = True


def _heads(x: Tensor) -> Tensor:
    y = x.view(len(x), 2, -1, 36).mT
    return ((y @ y.mT * 0.1).softmax(-1) @ y).mT.reshape(x.shape)


OPS = {
    "add one": Op(lambda x: x + 1),
    "copies": Op(lambda x: torch.cat([x, x, -x], 1), width=lambda w: 3 * w),
    "evens": Op(lambda x: x[:, ::2], 2, lambda w: w // 2),
    "first three": Op(lambda x: x[:, :3], width=lambda w: min(w, 3)),
    "flip": Op(lambda x: x.flip(1)),
    "gate": Op(lambda x: x * x.mean((2, 3), keepdim=True).sigmoid()),
    "glu": Op(lambda x: F.glu(x, 1), 2, lambda w: w // 2),
    "half": Op(lambda x: x[:, x.shape[1] // 2 :], 2, lambda w: w // 2),
    "halves swapped": Op(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), 2),
    "heads": Op(_heads, 2),
    "interleaved": Op(lambda x: torch.stack([x, x.relu()], 2).flatten(1, 2), width=lambda w: 2 * w),
    "last four": Op(lambda x: x[:, -4:], width=lambda w: min(w, 4)),
    "maximum of pairs": Op(lambda x: x.view(len(x), -1, 2, 6, 6).amax(2), 2, lambda w: w // 2),
    "middle": Op(lambda x: x[:, x.shape[1] // 4 : x.shape[1] // 4 * 3], 4, lambda w: w // 2),
    "normalised": Op(lambda x: F.normalize(x, dim=1)),
    "padded": Op(lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)), width=lambda w: w + 3),
    "parts in reverse": Op(lambda x: torch.cat(x.unflatten(1, (2, -1)).unbind(1)[::-1], 1), 2),
    "patches": Op(lambda x: F.fold(F.unfold(x, 3, padding=1), (6, 6), 3, padding=1)),
    "pixel shuffle": Op(lambda x: F.avg_pool2d(F.pixel_shuffle(x, 2), 2), 4, lambda w: w // 4),
    "quarter and rest": Op(lambda x: torch.cat(x.split([x.shape[1] // 4, x.shape[1] // 4 * 3], 1)[::-1], 1), 4),
    "relu": Op(torch.relu),
    "repeated": Op(lambda x: x.repeat(1, 2, 1, 1), width=lambda w: 2 * w),
    "repeated in place": Op(lambda x: x.repeat_interleave(2, 1), width=lambda w: 2 * w),
    "second channel": Op(lambda x: x * x[:, 1:2]),
    "shuffle": Op(lambda x: x.view(len(x), 2, -1, 6, 6).transpose(1, 2).reshape(x.shape), 2),
    "sigmoid": Op(torch.sigmoid),
    "softmax over parts": Op(lambda x: x.view(len(x), 2, -1, 6, 6).softmax(1).view(x.shape), 2),
    "sum over channels": Op(lambda x: x * x.sum(1, keepdim=True)),
    "sum over thirds": Op(lambda x: x.view(len(x), 3, -1, 6, 6).sum(1), 3, lambda w: w // 3),
    "zeros beside": Op(lambda x: torch.cat([x, torch.zeros_like(x)], 1), width=lambda w: 2 * w),
}
PAIRS = {
    "add": Pair(torch.add),
    "cat": Pair(lambda a, b: torch.cat([a, b], 1), lambda a, b: a + b, equal_widths=False),
    "gate by another": Pair(lambda a, b: a * b.sum(1, keepdim=True), equal_widths=False),
    "maximum": Pair(torch.maximum),
    "multiply": Pair(torch.mul),
    "one by one": Pair(lambda a, b: torch.stack([a, b], 2).flatten(1, 2), lambda a, b: 2 * a),
}
LAYERS = {
    "batch norm": lambda w: (nn.BatchNorm2d(w), w),
    "depthwise": lambda w: (conv(w, w, 3, groups=w), w),
    "depthwise, twice as wide": lambda w: (conv(w, 2 * w, 3, groups=w), 2 * w),
    "grouped": lambda w: (conv(w, 12, 3, groups=2 if w % 2 == 0 else 1), 12),
    "to eight": lambda w: (conv(w, 8), 8),
    "to twelve": lambda w: (conv(w, 12, 3), 12),
    "transposed": lambda w: (nn.ConvTranspose2d(w, 6, 3, padding=1), 6),
}
NAMES = sorted(OPS | PAIRS | LAYERS)


class Program(nn.Module):
    """A convolution, then one step after another on any of the last tensors, and two convolutions to outputs.

    Args:
        steps: Name of a step, and which of the last tensors it takes; steps that do not fit are left out.
    """

    def __init__(self, steps: list[tuple[str, int, int]]) -> None:
        super().__init__()
        self.first, self.layers = conv(3, 12), nn.ModuleList()
        self.steps: list[Callable[[Program, list[Tensor]], Tensor]] = []  # given the network, since copies are pruned
        widths = [12]
        for name, i, j in steps:
            i, j = max(0, len(widths) - 1 - i), max(0, len(widths) - 1 - j)
            if (made := self._step(name, widths, i, j)) and made[1] <= _MOST:
                self.steps.append(made[0])
                widths.append(made[1])
        self.last, self.other = conv(widths[-1], 4), conv(widths[len(widths) // 2], 3)

    def _step(self, name: str, widths: list[int], i: int, j: int) -> tuple[Callable, int] | None:
        if op := OPS.get(name):
            fits = widths[i] % op.parts == 0 and widths[i] > op.parts
            return (lambda net, seen: op.apply(seen[i]), op.width(widths[i])) if fits else None
        if pair := PAIRS.get(name):
            fits = not pair.equal_widths or widths[i] == widths[j]
            return (lambda net, seen: pair.apply(seen[i], seen[j]), pair.width(widths[i], widths[j])) if fits else None
        layer, width = LAYERS[name](widths[i])
        number = len(self.layers)
        self.layers.append(layer)
        return lambda net, seen: net.layers[number](seen[i]), width

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (2, 4, 6, 6) and (2, 3, 6, 6)."""
        seen = [self.first(x)]
        for step in self.steps:
            seen.append(step(self, seen))
        return self.last(seen[-1]), self.other(seen[len(seen) // 2])


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=9),
    seed=st.integers(0, 3),
)
def test_random_programs_are_exact(steps, seed) -> None:
    torch.manual_seed(seed)
    model, x = randomise(Program(steps)), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        assume(all(1e-6 < out.abs().max() < 1e6 for out in model(x)))
    graph = trace(model, x)
    assert not graph.unsupported
    for ratio in (0.5, 0.8):
        assert mask_error(model, graph.random_plan(ratio, seed), x) < 1e-7
