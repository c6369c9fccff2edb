"""Sizes that remember whose width they are, so that a size which the code derives is told from one that it fixes.

`x.shape[1] // 4` follows when x loses channels, `64` and `self.channels` do not. While a model is traced, sizes of
labelled dimensions are `Width`s; they go through the model's own arithmetic and come back as arguments of `view`,
`split`, `zeros` and the like.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yoloprune.graph.labels import Ledger

__all__ = ["Attribute", "Count", "Sizes", "Width", "fixed"]


class Width(int):
    """An integer in a fixed proportion to the number of these labels.

    Arithmetic that is not a proportion (`c + 1`, `c ** -0.5`, `float(c)`) would give another number after pruning
    and is no size: its labels are frozen, and the result is an ordinary number.

    Attributes:
        labels: int32 (n,).
        ledger: Where it is written down what follows from its use.
    """

    labels: Tensor
    ledger: Ledger

    def __new__(cls, value: int, labels: Tensor, ledger: Ledger) -> Width:
        """See the class."""
        self = super().__new__(cls, value)
        self.labels, self.ledger = labels, ledger
        return self

    def __reduce__(self) -> tuple:
        return int, (int(self),)  # a model may keep sizes: a copy or a file of it holds plain ones

    def _like(self, value: int) -> Width:
        return Width(value, self.labels, self.ledger)

    def meet(self, lines: Tensor) -> None:
        """A dimension with these labels, int32 (parts, m), was given this size."""
        self.ledger.follow(lines, self.labels)

    def _same(self, other: Any) -> bool:
        return isinstance(other, Width) and np.array_equal(self.labels.numpy(), other.labels.numpy())

    def used_as_number(self) -> int:
        """Freeze the labels, since a value is computed from their number; returns the plain integer."""
        self.ledger.freeze(self.labels, "has its width used as a number")
        return int(self)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Width) or not isinstance(other, (int, float)):
            if isinstance(other, Width):
                return self.used_as_number() * other.used_as_number()
            return NotImplemented
        return self._like(int(self) * other) if isinstance(other, int) else self.used_as_number() * other

    __rmul__ = __mul__

    def __neg__(self) -> Width:
        return self._like(-int(self))

    def __floordiv__(self, other: Any) -> Any:
        if isinstance(other, int) and int(other) and int(self) % int(other) == 0:
            if not isinstance(other, Width):
                return self._like(int(self) // other)
            if isinstance(other, Count):
                other.divides(self)
            else:
                self.ledger.follow(self.labels[None], other.labels)
            return int(self) // int(other)
        return self._number("__floordiv__", other)

    def __mod__(self, other: Any) -> Any:
        """Whether it divides evenly is asked in passing; another remainder would be another number after pruning."""
        return self._number("__mod__", other) if int(self) % other else 0

    def __add__(self, other: Any) -> Any:
        if self._same(other) or (isinstance(other, int) and other == 0):
            return self._like(int(self) + int(other))
        return self._number("__add__", other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        if self._same(other) or (isinstance(other, int) and other == 0):
            return self._like(int(self) - int(other))
        return self._number("__sub__", other)

    def __float__(self) -> float:
        return float(self.used_as_number())

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """NumPy's functions of a size, such as `np.sqrt`."""
        return getattr(ufunc, method)(*(n.used_as_number() if isinstance(n, Width) else n for n in inputs), **options)

    def _number(self, operator: str, other: Any) -> Any:
        if isinstance(other, Width):
            other = other.used_as_number()
        elif not isinstance(other, (int, float)):
            return NotImplemented
        operand: Any = float(self) if isinstance(other, float) else self.used_as_number()
        return getattr(operand, operator)(other)


class Attribute(Width):
    """A width that a module keeps as an attribute, and its handler up to date; its labels are looked up on use."""

    def __new__(cls, value: int, labels: Callable[[], Tensor], ledger: Ledger) -> Attribute:
        """See the class."""
        self = int.__new__(cls, value)
        self.find, self.ledger = labels, ledger
        return self

    @property
    def labels(self) -> Tensor:
        """See `Width`."""
        return self.find()


class Count(Width):
    """A number of parts that may go as a whole (heads), which a module's handler keeps up to date.

    It has no labels until a dimension is given this size. A width that is divided by it keeps the size of a part.
    """

    def __new__(cls, value: int, ledger: Ledger) -> Count:
        """See the class."""
        self = super().__new__(cls, value, np.zeros(0, np.int32), ledger)
        self.parts: Tensor | None = None
        self.waiting: list[Tensor] = []
        self.stays = False
        return self

    def used_as_number(self) -> int:
        """See `Width`; labels that come later are frozen then."""
        self.stays = True
        if self.parts is not None:
            self.ledger.freeze(self.parts, "is counted, and the number used")
        return int(self)

    def meet(self, lines: Tensor) -> None:
        """Take the labels of a dimension of this size as those of the parts."""
        if self.parts is None:
            self.parts = self.labels = lines[0]
            for width in self.waiting:
                self._keep_parts(width)
        self.ledger.tie(torch.cat([lines, self.parts[None]]))
        if self.stays:
            self.used_as_number()

    def divides(self, width: Width) -> None:
        """The width loses as many channels as a part has for every part that goes."""
        if self.parts is None:
            self.waiting.append(width.labels)
        else:
            self._keep_parts(width.labels)

    def _keep_parts(self, width: Tensor) -> None:
        if len(width) % int(self):
            self.ledger.freeze(width, "is not a multiple of a number of parts")
        else:
            self.ledger.tie(torch.cat([width.view(int(self), -1).T, self.parts[None]]))

    def __mul__(self, other: Any) -> Any:
        if self.parts is None:
            return self.used_as_number() * other
        return super().__mul__(other)

    __rmul__ = __mul__


def _numeric(operator: str) -> Callable[[Width, Any], Any]:
    def method(self: Width, other: Any) -> Any:
        return self._number(operator, other)

    return method


for _operator in ("rsub", "truediv", "rtruediv", "rfloordiv", "pow", "rpow", "divmod"):
    setattr(Width, f"__{_operator}__", _numeric(f"__{_operator}__"))


class Sizes(tuple):
    """A tensor's shape with `Width`s in it; torch.Size, which cannot be derived from, would hide some uses of them."""

    def numel(self) -> int:
        """Product of the sizes, as torch.Size has it."""
        return math.prod(self)

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return Sizes(found) if isinstance(index, slice) else found

    def __add__(self, other: tuple) -> Sizes:
        return Sizes(super().__add__(tuple(other)))

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array([n.used_as_number() if isinstance(n, Width) else n for n in self], dtype)

    def __reduce__(self) -> tuple:
        return torch.Size, ([int(n) for n in self],)


def fixed(size: Any) -> bool:
    """Whether a size is written in the code or an attribute, and would stay when channels go."""
    return not isinstance(size, Width) and size != -1
