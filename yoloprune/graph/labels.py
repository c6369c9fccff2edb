"""Integer labels that accompany tensor values: what they are, and how they are united.

A label is one index of one dimension of one parameter or buffer ("index i of dimension d of p"). A tensor carries any
number of label *planes*; each plane is an int32 tensor of the tensor's own shape that gives, for every element, the
slice it belongs to. A plane varies along some dimensions and is a stride-0 broadcast along the others, so labels cost
no memory and PyTorch's own view operators move them exactly.

In the terms of DepGraph (Fang et al., CVPR 2023): labels that move along an edge are the inter-layer dependency
(f_i^- <-> f_j^+, eq. 3), and an operator that hands its input labels to its output is the intra-layer dependency of an
operator with sch(f^-) = sch(f^+) (eq. 4).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from yoloprune.graph.tracing.internals import StorageRef
from yoloprune.graph.union_find import LABEL_DTYPE, UnionFind

__all__ = [
    "CostTerm",
    "Labels",
    "Ledger",
    "Slice",
    "compact",
    "dim_from_end",
    "lines_along",
    "same_labels",
    "shrinking_dim",
    "varying_dims",
]

_AHEAD = 1 << 16  # labels that are allocated at once


class Slice(NamedTuple):
    """Labels `start … start + size - 1` are the indices 0 … size - 1 of dimension `dim` of `parameter`."""

    parameter: str
    dim: int
    start: int
    size: int


class CostTerm(NamedTuple):
    """MACs of one operator: `macs` times, for each label vector, the share of its labels that is kept."""

    module: str
    operator: str
    macs: int
    vectors: tuple[Tensor, ...]


@dataclass(frozen=True)
class Labels:
    """Label planes of one tensor.

    Attributes:
        planes: int32 tensors of the tensor's shape, stride 0 where a plane does not vary.
        zero: Whether zeroing the labelled slices makes these values zero (a sigmoid's output is not).
        channel_free: A constant fill (`torch.zeros`): it has no channels of its own and fits any width.
    """

    planes: tuple[Tensor, ...] = ()
    zero: bool = False
    channel_free: bool = False


def varying_dims(plane: Tensor) -> tuple[int, ...]:
    """Dimensions along which the plane's labels differ."""
    sizes = plane.shape
    return tuple([d for d, stride in enumerate(plane.stride()) if stride and sizes[d] > 1])


def shrinking_dim(plane: Tensor) -> int | None:
    """The dimension along which the plane loses channels: the fastest in memory of those along which it varies."""
    return min(varying_dims(plane), key=lambda d: plane.stride(d), default=None)


def dim_from_end(plane: Tensor) -> int | None:
    """`shrinking_dim` counted from the end (-1 is the last), which broadcasting does not change."""
    dim = shrinking_dim(plane)
    return None if dim is None else dim - plane.dim()


def compact(plane: Tensor, keep: Iterable[int] | None = None) -> Tensor:
    """The plane with every dimension outside `keep` (by default: every broadcast one) cut to size 1."""
    keep = varying_dims(plane) if keep is None else tuple(keep)
    return plane[tuple(slice(None) if d in keep else slice(0, 1) for d in range(plane.dim()))]


def lines_along(plane: Tensor, dim: int) -> Tensor:
    """The plane as lines along a dimension, int32 (lines, size)."""
    return compact(plane).movedim(dim, -1).reshape(-1, plane.shape[dim])


def same_labels(a: Tensor, b: Tensor) -> bool:
    """Whether two planes are the same memory with the same shape and strides."""
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()


def _distinct_rows(parts: Tensor) -> Tensor:
    """A copy without repeated rows: attention yields the same ones for every token."""
    first: dict[bytes, int] = {}
    for number, row in enumerate(parts.numpy()):
        first.setdefault(row.tobytes(), number)
    return parts[list(first.values())]


@dataclass
class Ledger:
    """What one execution says about labels, recorded as it happens and resolved once at the end.

    Attributes:
        slices: Dimensions of parameters and buffers that were given labels.
        union_find: Which labels belong together.
        frozen: Labels that must stay, int32 (n,), each with the reason.
        producers: Labels of layers' outputs, each int32 (n,).
        ties: Labels of parts that lose equally many, each int32 (parts, length).
        costs: MACs of the operators.
        statistics: Operators that take statistics over prunable channels.
        unsupported: Operators without a rule that carried labels, with how often.
        links: Pairs of layers of which the first feeds the second, in the order of the execution.
        reached: Parameters and buffers that some operator was given.
        size: Number of labels so far; label 0 is that of constants.
    """

    slices: list[Slice] = field(default_factory=list)
    union_find: UnionFind = field(default_factory=UnionFind)
    frozen: list[tuple[Tensor, str]] = field(default_factory=list)
    producers: list[Tensor] = field(default_factory=list)
    ties: list[Tensor] = field(default_factory=list)
    costs: list[CostTerm] = field(default_factory=list)
    statistics: set[str] = field(default_factory=set)
    unsupported: dict[str, int] = field(default_factory=dict)
    links: dict[tuple[str, str], None] = field(default_factory=dict)
    reached: set[str] = field(default_factory=set)
    size: int = 1
    _tied: dict[tuple[int, torch.Size, tuple[int, ...]], StorageRef] = field(default_factory=dict)
    _numbers: Tensor = field(default_factory=lambda: torch.empty(0, dtype=LABEL_DTYPE, device="cpu"))
    _first: int = 1

    def allocate(self, parameter: str, tensor: Tensor) -> Labels:
        """Give every dimension of a parameter one fresh label per index (none where the size is 1)."""
        planes = []
        for dim, size in enumerate(tensor.shape):
            if size > 1:
                self.slices.append(Slice(parameter, dim, self.size, size))
                vector = self._fresh(size)
                planes.append(vector.as_strided(tensor.shape, [int(d == dim) for d in range(tensor.dim())]))
        return Labels(tuple(planes), zero=True)

    def _fresh(self, count: int) -> Tensor:
        """The next labels, cut from larger tensors: small ones would lie between activations and pin their memory."""
        if self.size + count > self._first + len(self._numbers):
            self._first = self.size
            end = self.size + max(count, _AHEAD)
            self._numbers = torch.arange(self.size, end, dtype=LABEL_DTYPE, device="cpu")  # whatever the default device
        start = self.size - self._first
        self.size += count
        return self._numbers[start : start + count]

    def producing(self) -> np.ndarray:
        """Whether each label is an output of some layer, bool (labels,)."""
        mask = np.zeros(self.size, bool)
        for labels in self.producers:
            mask[labels.numpy()] = True
        return mask

    def unite(self, a: Tensor, b: Tensor) -> None:
        """Record that labels at the same position (after broadcasting) belong together."""
        if same_labels(a, b):
            return
        a, b = torch.broadcast_tensors(a, b)  # type: ignore[no-untyped-call]  # torch's is untyped
        self.union_find.add(a.reshape(-1), b.reshape(-1), self.size)

    def unite_along(self, plane: Tensor, dims: Iterable[int]) -> Tensor:
        """Unite the labels along `dims`; returns the plane broadcast along them."""
        for d in dims:
            if plane.shape[d] > 1 and plane.stride(d) != 0:
                first = plane.narrow(d, 0, 1)
                self.unite(compact(plane), compact(first, varying_dims(first)))
                plane = first.expand(plane.shape)
        return plane

    def freeze(self, labels: Tensor, reason: str) -> None:
        """Record that these labels must stay, and why."""
        labels = compact(labels).reshape(-1)
        if len(labels) > self.size:  # each label once, found without sorting
            seen = torch.zeros(self.size, dtype=torch.bool, device="cpu")
            seen[labels] = True
            labels = seen.nonzero().squeeze(1)
        self.frozen.append((labels, reason))

    def report_unsupported(self, operator: str, carried: Iterable[Labels]) -> None:
        """Record an operator that no rule covers, and freeze what it touches."""
        self.unsupported[operator] = self.unsupported.get(operator, 0) + 1
        for labels in carried:
            self.freeze_all(labels, f"passes through {operator}, for which there is no rule")

    def freeze_all(self, labels: Labels | None, reason: str) -> None:
        """Freeze every plane of a tensor."""
        for plane in labels.planes if labels else ():
            self.freeze(plane, reason)

    def tie(self, parts: Tensor) -> None:
        """Record that parts (rows of a 2-D tensor) may lose different labels, but must lose equally many."""
        parts = _distinct_rows(parts)
        if parts.shape[0] > 1 and parts.shape[1] > 0:
            self.ties.append(parts)

    def keep_proportion(self, lines: Tensor, width: Tensor) -> None:
        """Record that a dimension whose size the code derives from another's keeps its proportion to it.

        Args:
            lines: Labels along the dimension, int32 (parts, m).
            width: Labels that its size was derived from, int32 (n,).
        """
        if torch.isin(lines, width).all():
            return  # their own width
        part = math.gcd(lines.shape[-1], len(width))
        self.tie(torch.cat([lines.reshape(-1, part), width.reshape(-1, part)]))

    def keep_rectangular(self, plane: Tensor) -> None:
        """Record that a plane that varies along several dimensions must stay a rectangle.

        The fastest dimension in memory is the one that shrinks: only then does the order of what is kept survive.
        """
        dims = varying_dims(plane)
        if len(dims) < 2:
            return
        key = (plane.data_ptr(), plane.shape, plane.stride())
        if key in self._tied and not self._tied[key].is_dead():  # a freed buffer's address may have come back
            return
        self._tied[key] = StorageRef(plane)
        small = compact(plane, dims)
        fast = min(dims, key=plane.stride)
        self.tie(small.movedim(fast, -1).reshape(-1, plane.shape[fast]))

    def rebroadcast(self, plane: Tensor) -> Tensor:
        """Find the dimensions along which a materialised plane is constant, and broadcast it along them again."""
        found = plane
        for d in varying_dims(plane):
            small = compact(found)
            first = small.narrow(d, 0, 1)
            if torch.equal(small, first.expand(small.shape)):
                found = found.narrow(d, 0, 1).expand(plane.shape)
        # a part would keep the whole in memory
        return found if found is plane else compact(found).clone().expand(plane.shape)

    def merge(
        self,
        shape: Sequence[int],
        operands: Sequence[tuple[Sequence[int], Labels | None]],
        where: str,
        strict: bool = True,
    ) -> tuple[Tensor, ...]:
        """Unite the labels of broadcast operands element by element; returns the planes of the result.

        Planes that shrink along the same dimension become one; planes along different dimensions coexist.
        With `strict`, a label that meets an operand with a real extent but without labels there is frozen: that
        operand's channel has no owner and cannot go.

        Args:
            shape: Shape of the result.
            operands: (shape, labels) of each tensor operand.
            where: The operator, for the reason of a freeze.
            strict: See above.
        """
        clusters: dict[int, tuple[list[Tensor], set[int]]] = {}
        for i, (_, labels) in enumerate(operands):
            for plane in labels.planes if labels else ():
                plane = plane.expand(shape)
                shrinks = shrinking_dim(plane)
                if shrinks is not None:
                    planes, owners = clusters.setdefault(shrinks, ([], set()))
                    planes.append(plane)
                    owners.add(i)
        out = {}
        for shrinks, (planes, owners) in clusters.items():
            dims = {d for plane in planes for d in varying_dims(plane)}
            first = out[shrinks] = max(planes, key=lambda plane: len(varying_dims(plane)))
            for plane in planes:
                if plane is not first and not same_labels(plane, first):
                    self.unite(compact(first, dims), compact(plane, dims))
            if strict:
                for i, (own, labels) in enumerate(operands):
                    if i in owners or (labels and labels.channel_free):
                        continue
                    offset = len(shape) - len(own)
                    if shrinks >= offset and own[shrinks - offset] > 1:
                        self.freeze(out.pop(shrinks), f"meets values without prunable channels in {where}")
                        break
        for shrinks in list(out):
            if any(shrinks in varying_dims(plane) for other, plane in out.items() if other != shrinks):
                self.freeze(out.pop(shrinks), f"meets parts of fixed number in {where}")
        return tuple(out.values())
