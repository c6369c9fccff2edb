"""The regulariser of group-sparse training (DepGraph, Fang et al., CVPR 2023, section 3.3)."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yoloprune.graph.tracing.internals import add_products

from ..errors import UserError
from .replay import Replay
from .scopes import SCOPES
from .segments import Segments

__all__ = ["SCOPES", "GroupSparsity", "check_settings"]

_EQUAL = 1e-5  # scores that differ by less than this share of the greatest are equal: float32 sums are no better


class _Piece(NamedTuple):
    """A slice that takes part: dimension `dim` of a tensor, `size` indices long."""

    dim: int
    size: int


def check_settings(strength: float, alpha: float, scope: str) -> None:
    """Refuse settings of the regulariser that make no sense.

    Raises:
        UserError: A value is out of its range, or there is no such scope.
    """
    if not 0 <= strength < float("inf"):
        raise UserError(f"strength={strength} is no strength; give a finite number from 0.")
    if not 0 <= alpha <= 16:
        raise UserError(f"alpha={alpha} is out of range; give a number from 0 to 16 (the paper uses 4).")
    if scope not in SCOPES:
        raise UserError(f"Unknown scope {scope!r}; choose one of {', '.join(SCOPES)}.")


class GroupSparsity:
    """Adds the gradient of the group-sparsity regulariser to `.grad`.

    The regulariser (equations 4 and 5 of section 3.3) is

        R = strength · Σ_g Σ_k γ_{g,k} · I(g,k),   I(g,k) = Σ_{w∈g} ‖w[k]‖²,
        γ_{g,k} = 2^{alpha · (I_max − I_k) / (I_max − I_min)},

    with I_max and I_min over the channels of group g: the weakest channels shrink 2^alpha times as fast as the
    strongest, and everything that would be removed with a channel shrinks with it. γ is a factor and not
    differentiated, so the gradient at w[k] is 2 · strength · γ_{g,k} · w[k]. A weight that lies in an output channel of
    one group and an input channel of another gets both.

    γ is computed at every call. That costs one pass over the weights (benchmarks/sparsity.md), and leaves no state: a
    training that is resumed, and each process of a distributed one, has the same γ if it has the same weights, bit for
    bit, since all sums are done in a fixed order.

    - Channels whose scores are equal get γ = 1.
    - Parameters with `requires_grad=False`, and those without a gradient at the time of the call, count in I and get no
      gradient. Frozen channels (of the graph) are left alone.
    - With gradient accumulation, call it once per optimizer step; with a GradScaler, after `unscale_`; with clipping,
      before it; with DistributedDataParallel, in every process, after `backward`, built from the wrapped `.module`.
    - It is meant for SGD. Adam divides a gradient by its own size, and with it any regulariser that is added to it.

    Args:
        graph: What `yoloprune.graph.trace` found in this model.
        model: The network, where it will be trained: move it to its device first.
        strength: Factor on the whole. The paper's recipes use 1e-4 (ImageNet) to 5e-4 (CIFAR) over 100 epochs.
        alpha: Growth of γ from strong to weak channels.
        scope: `group` as above; for comparison `convolutions` (groups without norms and biases), `layer` (no grouping:
            γ and I of each layer's own output channels), or `bn`: the L1 norm of batch norm scales, whatever `alpha`
            (Network Slimming, Liu et al., ICCV 2017).

    Raises:
        UserError: Settings out of range, a model that is not the traced one or lies on several devices, or nothing in
            it that the scope could act on.

    Examples:
        In a training loop of one's own, three lines:

        >>> from yoloprune.graph import trace
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        >>> images = torch.rand(2, 3, 8, 8)
        >>> graph = trace(model, images)  # 1
        >>> sparsity = GroupSparsity(graph, model, strength=1e-3)  # 2, before DistributedDataParallel(model)
        >>> for step in range(3):
        ...     model(images).square().mean().backward()  # with a GradScaler: scaler.scale(loss).backward()
        ...     # scaler.unscale_(optimizer)
        ...     sparsity()  # 3; or sparsity(schedule(step / steps)) with a Schedule
        ...     _ = torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        ...     optimizer.step()  # scaler.step(optimizer); scaler.update()
        ...     optimizer.zero_grad()
    """

    def __init__(self, graph, model: nn.Module, *, strength: float = 1e-3, alpha: float = 4.0, scope: str = "group"):
        check_settings(strength, alpha, scope)
        self.strength, self.alpha, self.scope = strength, alpha, scope
        tensors = graph.parameters(model)
        if any(name not in tensors or tensors[name].shape != shape for name, shape in graph.shapes.items()):
            raise UserError("The model is not the one that was traced; trace this model and use that graph.")
        division = SCOPES[scope](graph, model)
        if not len(division.group):
            raise UserError(f"Scope {scope!r} finds nothing prunable in the model to act on.")
        pieces: dict[str, list[_Piece]] = {}
        for i in division.slices:  # slices of one parameter follow one another
            piece = graph.slices[i]
            pieces.setdefault(piece.parameter, []).append(_Piece(piece.dim, piece.size))
        self._parameters = [tensors[name] for name in pieces]
        self._pieces = list(pieces.values())
        self._sizes = [piece.size for own in self._pieces for piece in own]
        devices = {parameter.device for parameter in self._parameters}
        if len(devices) > 1:
            raise UserError(f"The model lies on {len(devices)} devices; group sparsity needs it on one.")
        device = devices.pop()
        self._scores = Segments(division.score, device)
        self._groups = Segments(division.group, device)
        self._score_of = torch.from_numpy(division.score).to(device)  # -1: the last, which is 0
        self._group_of = torch.from_numpy(division.group).to(device)
        self._factors = Replay(self._sums_of_gammas, self._parameters)

    @torch.no_grad()
    def __call__(self, scale: float = 1.0) -> None:
        """Add the gradient, `scale` times as strong, to `.grad` of every parameter that takes part and has one."""
        alike, broadcast = [], []  # apart, since PyTorch fuses those of equal shapes
        for parameter, factor in zip(self._parameters, self._factors(), strict=True):
            if parameter.grad is not None:
                own = alike if factor.shape == parameter.shape else broadcast
                own.append((parameter.grad, parameter, factor))
        for part in filter(None, (alike, broadcast)):
            add_products(*map(list, zip(*part, strict=True)), factor=2 * self.strength * scale)

    def _sums_of_gammas(self) -> list[Tensor]:
        """For each parameter the γ of the channels that a weight lies in, added up."""
        precise = [p.float() if p.dtype in (torch.float16, torch.bfloat16) else p for p in self._parameters]
        squares = (_sums(p * p, pieces) for p, pieces in zip(precise, self._pieces, strict=True))
        scores = self._scores.sum(torch.cat([vector for own in squares for vector in own]))
        weights = F.pad(self._slimming(scores) if self.scope == "bn" else self._growing(scores), (0, 1))
        slices = iter(weights[self._score_of].split(self._sizes))
        factors = []
        for parameter, pieces in zip(self._parameters, self._pieces, strict=True):
            factor = reduce(add, [_along(next(slices), piece.dim, parameter.ndim) for piece in pieces])
            factors.append(factor.to(parameter.dtype))
        return factors

    def _growing(self, scores: Tensor) -> Tensor:
        """γ of each score (equation 5)."""
        least, greatest = self._groups.extremes(scores)
        span = greatest - least
        differ = span > _EQUAL * greatest
        span = torch.where(differ, span, 1.0)  # so that no gradient is 0 / 0
        exponent = (greatest[self._group_of] - scores) / span[self._group_of]
        return torch.exp2(self.alpha * exponent * differ[self._group_of])

    @staticmethod
    def _slimming(scores: Tensor) -> Tensor:
        """What makes 2 · γ · w the sign of w, the subgradient of |w|, for scores w²."""
        return torch.where(scores > 0, 0.5 * scores.rsqrt(), 0.0)


def _along(vector: Tensor, dim: int, ndim: int) -> Tensor:
    """The vector as a tensor of `ndim` dimensions that varies along `dim`."""
    if ndim == 1:
        return vector
    return vector.view([-1 if d == dim else 1 for d in range(ndim)])


def _sums(squares: Tensor, pieces: list[_Piece]) -> list[Tensor]:
    """‖w[i]‖² along the dimension of each piece (size,), of the squares of a parameter."""
    if squares.ndim == 1:
        return [squares] * len(pieces)
    vectors = []
    for piece in pieces:
        # leading dimensions first: several times as fast on a CPU as all at once
        after = squares.sum(tuple(range(piece.dim))) if piece.dim else squares
        vectors.append(after.flatten(1).sum(1) if after.numel() > len(after) else after.flatten())
    return vectors
