"""Sizes that remember which labels they count, so that a size which the code derives is told from one that it fixes.

`x.shape[1] // 4` follows when x loses channels, `64` and `self.channels` do not. While a model is traced, sizes of
labelled dimensions are `SymbolicSize`s; they pass through the model's own arithmetic and come back as arguments of
`view`, `split`, `zeros` and so on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, SupportsIndex, TypeGuard

import numpy as np
import torch
from torch import Tensor

from yoloprune.graph.labels import Ledger
from yoloprune.graph.union_find import LABEL_DTYPE

__all__ = ["SymbolicAttribute", "SymbolicCount", "SymbolicShape", "SymbolicSize", "is_fixed"]


class SymbolicSize(int):
    """An integer in a fixed proportion to the number of these labels.

    Arithmetic that is not a proportion (`c + 1`, `c ** -0.5`, `float(c)`) would give another number after pruning
    and yields no size: its labels are frozen, and the result is an ordinary number.

    Attributes:
        labels: int32 (n,).
        ledger: Where the consequences of its use are recorded.
    """

    labels: Tensor
    ledger: Ledger

    def __new__(cls, value: int, labels: Tensor, ledger: Ledger) -> SymbolicSize:
        """See the class."""
        self = super().__new__(cls, value)
        self.labels, self.ledger = labels, ledger
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)  # a model may keep sizes: a copy or a file of it holds plain ones

    def _like(self, value: int) -> int:
        return SymbolicSize(value, self.labels, self.ledger)

    def bind(self, lines: Tensor) -> None:
        """Record that a dimension with these labels, int32 (parts, m), was given this size."""
        self.ledger.keep_proportion(lines, self.labels)

    def _same_labels(self, other: object) -> TypeGuard[SymbolicSize]:
        if not isinstance(other, SymbolicSize) or not len(self.labels):
            return False
        return np.array_equal(self.labels.numpy(), other.labels.numpy())

    def to_plain_int(self) -> int:
        """Freeze the labels, since a value is computed from their number; returns the plain integer."""
        self.ledger.freeze(self.labels, "has its width used as a number")
        return int(self)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, SymbolicSize) or not isinstance(other, (int, float)):
            if isinstance(other, SymbolicSize):
                return self.to_plain_int() * other.to_plain_int()
            return NotImplemented
        return self._like(int(self) * other) if isinstance(other, int) else self.to_plain_int() * other

    __rmul__ = __mul__

    def __neg__(self) -> int:
        return self._like(-int(self))

    def __floordiv__(self, other: Any) -> Any:
        if isinstance(other, int) and int(other) and int(self) % int(other) == 0:
            if not isinstance(other, SymbolicSize):
                return self._like(int(self) // other)
            if isinstance(other, SymbolicCount):
                other.divides(self)
            else:
                self.ledger.keep_proportion(self.labels[None], other.labels)
            return int(self) // int(other)
        return self._plain_arithmetic("__floordiv__", other)

    def __mod__(self, other: Any) -> Any:
        """Code may check whether it divides evenly; any other remainder would be another number after pruning."""
        return self._plain_arithmetic("__mod__", other) if int(self) % other else 0

    def __add__(self, other: Any) -> Any:
        if self._same_labels(other) or (isinstance(other, int) and other == 0):
            return self._like(int(self) + int(other))
        return self._plain_arithmetic("__add__", other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        if self._same_labels(other) or (isinstance(other, int) and other == 0):
            return self._like(int(self) - int(other))
        return self._plain_arithmetic("__sub__", other)

    def __float__(self) -> float:
        return float(self.to_plain_int())

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """NumPy's functions of a size, such as `np.sqrt`."""
        return getattr(ufunc, method)(*_plain(inputs), **options)

    def _plain_arithmetic(self, operator: str, other: Any) -> Any:
        if isinstance(other, SymbolicSize):
            other = other.to_plain_int()
        elif not isinstance(other, (int, float)):
            return NotImplemented
        operand: Any = float(self) if isinstance(other, float) else self.to_plain_int()
        return getattr(operand, operator)(other)


class SymbolicAttribute(SymbolicSize):
    """A size that a module keeps as an attribute and its handler updates; its labels are looked up on use."""

    find: Callable[[], Tensor]

    def __new__(cls, value: int, labels: Callable[[], Tensor], ledger: Ledger) -> SymbolicAttribute:
        """See the class."""
        self = int.__new__(cls, value)
        self.find, self.ledger = labels, ledger
        return self

    @property
    def labels(self) -> Tensor:  # type: ignore[override]  # an attribute there, which nobody sets here
        """See `SymbolicSize`."""
        return self.find()


class SymbolicCount(SymbolicSize):
    """A number of parts that may go as a whole (heads), which a module's handler keeps up to date.

    It has no labels until a dimension is given this size. A size that is divided by it keeps the size of a part.

    Attributes:
        parts: Labels of the parts, int32 (n,), None until a dimension is given this size.
        divided: Labels of the sizes that were divided before that.
        stays: Whether its value was used, so that no part may go.
    """

    parts: Tensor | None
    divided: list[Tensor]
    stays: bool

    def __new__(cls, value: int, ledger: Ledger) -> SymbolicCount:
        """See the class."""
        self = int.__new__(cls, value)
        self.labels, self.ledger = torch.zeros(0, dtype=LABEL_DTYPE, device="cpu"), ledger
        self.parts, self.divided, self.stays = None, [], False
        return self

    def to_plain_int(self) -> int:
        """See `SymbolicSize`; labels that come later are frozen as well."""
        self.stays = True
        if self.parts is not None:
            self.ledger.freeze(self.parts, "is counted, and the number used")
        return int(self)

    def _like(self, value: int) -> int:
        if self.parts is None:  # without labels nothing could follow
            self.to_plain_int()
            return value
        return super()._like(value)

    def bind(self, lines: Tensor) -> None:
        """Take the labels of a dimension of this size as those of the parts."""
        if self.parts is None:
            self.parts = self.labels = lines[0]
            for labels in self.divided:
                self._keep_parts(labels, self.parts)
        self.ledger.tie(torch.cat([lines, self.parts[None]]))
        if self.stays:
            self.to_plain_int()

    def divides(self, size: SymbolicSize) -> None:
        """Record that for every part that goes, the size loses as many channels as a part has."""
        if self.parts is None:
            self.divided.append(size.labels)
        else:
            self._keep_parts(size.labels, self.parts)

    def _keep_parts(self, labels: Tensor, parts: Tensor) -> None:
        if len(labels) % int(self):
            self.ledger.freeze(labels, "is not a multiple of a number of parts")
        else:
            self.ledger.tie(torch.cat([labels.view(int(self), -1).T, parts[None]]))

    def __mul__(self, other: Any) -> Any:
        if self.parts is None:
            return self.to_plain_int() * other
        return super().__mul__(other)

    __rmul__ = __mul__


def _plain_method(operator: str) -> Callable[[SymbolicSize, Any], Any]:
    def method(self: SymbolicSize, other: Any) -> Any:
        return self._plain_arithmetic(operator, other)

    return method


for _operator in ("rsub", "truediv", "rtruediv", "rfloordiv", "pow", "rpow", "divmod"):
    setattr(SymbolicSize, f"__{_operator}__", _plain_method(f"__{_operator}__"))


class SymbolicShape(tuple[int, ...]):
    """A tensor's shape that holds `SymbolicSize`s.

    torch.Size, which cannot be derived from, would hide some uses of them.
    """

    def numel(self) -> int:
        """Product of the sizes, as torch.Size has it."""
        return math.prod(self)

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        found = super().__getitem__(index)
        return SymbolicShape(found) if isinstance(found, tuple) else found

    def __add__(self, other: tuple[int, ...]) -> SymbolicShape:  # type: ignore[override]  # as torch.Size
        return SymbolicShape(super().__add__(tuple(other)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(_plain(self), dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.Size, ([int(n) for n in self],)


def _plain(sizes: Iterable[Any]) -> list[Any]:
    return [n.to_plain_int() if isinstance(n, SymbolicSize) else n for n in sizes]


def is_fixed(size: object) -> bool:
    """Whether a size is written in the code or an attribute, and would stay when channels go."""
    return not isinstance(size, SymbolicSize) and size != -1
