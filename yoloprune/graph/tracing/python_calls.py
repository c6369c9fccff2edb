"""Calls as the model's own code writes them, before PyTorch turns every size in them into a plain number."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from yoloprune.graph.tracing.internals import FunctionMode, is_shape_query, leaves
from yoloprune.graph.tracing.symbolic_sizes import SymbolicShape, SymbolicSize

__all__ = ["CallInterceptor", "PythonCall"]

_VIEWS = frozenset(["view", "reshape", "expand", "broadcast_to", "repeat"])
_LIKE_ANOTHER = {"view_as": "view", "reshape_as": "reshape", "expand_as": "expand"}  # they take another tensor's shape
_FILLS = frozenset(["zeros", "ones", "empty", "rand", "randn", "full"])
_NEW = frozenset(["new_zeros", "new_ones", "new_empty", "new_full"])
# calls whose sizes the rules read, or in which a size only says what belongs together
_SIZES = _VIEWS | _FILLS | _NEW
_SIZES |= {"split", "split_with_sizes", "narrow", "chunk", "__getitem__", "__setitem__", "unflatten"}
_SIZES |= {"layer_norm", "rms_norm"}
# position and name of the argument that counts groups, which may follow a size
_GROUPS = {f"conv{kind}{d}d": (6, "groups") for kind in ("", "_transpose") for d in (1, 2, 3)}
_GROUPS["group_norm"] = (1, "num_groups")
_VALUE_READS = frozenset(["tolist", "numpy", "__array__", "__dlpack__"])

Sizes = tuple[Any, ...]  # ints and SymbolicSizes, None where the code left one open


class PythonCall(NamedTuple):
    """A call in the model's code, with its sizes still symbolic.

    Attributes:
        name: Name of the function or method.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def view_sizes(self, source: Sequence[int]) -> Sizes | None:
        """Sizes that a view, an expansion or a repetition asks for, one per dimension of the result."""
        if self.name == "unflatten":
            dim = self._argument(1, "dim")
            if not isinstance(dim, int):
                return None
            dim %= len(source)
            sizes = tuple(self._argument(2, "sizes"))
            return (-1,) * dim + sizes + (-1,) * (len(source) - dim - 1)
        if self.name not in _VIEWS:
            return None
        return self._sizes(self.args[1:])

    def fill_sizes(self) -> Sizes | None:
        """Sizes of a newly made tensor."""
        if self.name in _NEW:
            return self._sizes(self.args[1:2] if self.name == "new_full" else self.args[1:])
        if self.name in _FILLS:
            return self._sizes(self.args[:1] if self.name == "full" else self.args)
        return None

    def split_sizes(self, count: int) -> Sizes | None:
        """Sizes that a split asks for; a single one holds for each of the `count` pieces."""
        if self.name not in ("split", "split_with_sizes"):
            return None
        sizes = next(
            (self.kwargs[k] for k in ("split_size_or_sections", "split_size", "split_sizes") if k in self.kwargs), None
        )
        if sizes is None:
            sizes = self.args[1]
        return (sizes,) * count if isinstance(sizes, int) else tuple(sizes)

    def normalized_shape(self) -> Sizes | None:
        """Shape over which a layer norm or RMS norm is asked for."""
        if self.name not in ("layer_norm", "rms_norm"):
            return None
        shape = self._argument(1, "normalized_shape")
        return (shape,) if isinstance(shape, int) else tuple(shape)

    def weight(self) -> Tensor | None:
        """The weight of a norm."""
        weight = self._argument(2, "weight")
        return weight if isinstance(weight, Tensor) else None

    def groups(self) -> int | None:
        """The number of groups that a convolution or a norm is asked for, None if this is neither."""
        if self.name not in _GROUPS:
            return None
        groups: int | None = self._argument(*_GROUPS[self.name])
        return 1 if groups is None else groups

    def number_arguments(self) -> tuple[Any, ...]:
        """Arguments that are not sizes: a `SymbolicSize` among them is used as a number."""
        if self.name in _GROUPS:
            position, name = _GROUPS[self.name]
            others = (v for k, v in self.kwargs.items() if k != name)
            return *self.args[:position], *self.args[position + 1 :], *others
        if self.name in ("full", "new_full"):
            return (self._argument(1 + (self.name == "new_full"), "fill_value"),)
        if self.name == "__setitem__":
            return (self.args[2],)
        return () if self.name in _SIZES else (*self.args, *self.kwargs.values())

    def slice_bounds(self, dim: int) -> tuple[Any, Any] | None:
        """Start and stop of the slice along `dim`, None where the code left them open."""
        if self.name == "narrow":
            start, length = self._argument(2, "start"), self._argument(3, "length")
            return start, start + length
        if self.name not in ("__getitem__", "__setitem__"):
            return None
        index = self.args[1] if isinstance(self.args[1], tuple) else (self.args[1],)
        taken = sum(i is not None and i is not Ellipsis and not isinstance(i, bool) for i in index)
        at = 0
        for entry in index:
            if entry is Ellipsis:
                at += self.args[0].dim() - taken
            elif isinstance(entry, slice):
                if at == dim:
                    return entry.start, entry.stop
                at += 1
            elif isinstance(entry, Tensor) and entry.dtype == torch.bool:
                at += entry.dim()
            elif not isinstance(entry, int) or isinstance(entry, bool):
                at += 1
        return None

    def _argument(self, position: int, name: str) -> Any:
        return self.args[position] if position < len(self.args) else self.kwargs.get(name)

    def _sizes(self, given: tuple[Any, ...]) -> Sizes | None:
        if not given:
            given = tuple(self.kwargs[k] for k in ("size", "shape", "repeats") if k in self.kwargs)
        if len(given) == 1 and isinstance(given[0], (tuple, list)):
            given = tuple(given[0])
        return given if given and all(isinstance(n, int) for n in given) else None


class CallInterceptor(FunctionMode):
    """Records which call the model's code is in, and answers with `SymbolicSize`s when the code asks for a shape.

    Args:
        symbolic_shape: Shape of a tensor, with a `SymbolicSize` for each labelled dimension.
        composites: Names of the functions that are run by `run_composite`.
        run_composite: Called with (function, args, kwargs); returns what the function returns.
        read: Called with a tensor before its values leave for Python or NumPy past all operators.

    Attributes:
        current: The innermost call that the model's code is in.
    """

    def __init__(
        self,
        symbolic_shape: Callable[[Tensor], SymbolicShape],
        composites: Container[str],
        run_composite: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any],
        read: Callable[[Tensor], None],
    ) -> None:
        super().__init__()
        self.symbolic_shape, self.composites = symbolic_shape, composites
        self.run_composite, self.read = run_composite, read
        self.current: PythonCall | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if is_shape_query(func):
            return self.symbolic_shape(args[0])
        name = getattr(func, "__name__", "")
        if name == "size":
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            return self.symbolic_shape(args[0]) if dim is None else self.symbolic_shape(args[0])[dim]
        if name in ("numel", "nelement"):
            return math.prod(self.symbolic_shape(args[0]))
        if name == "__len__" and isinstance(size := next(iter(self.symbolic_shape(args[0])), None), SymbolicSize):
            size.to_plain_int()
        if name in _VALUE_READS:
            self.read(args[0])
        if name == "tensor_split" and isinstance(sections := args[1] if len(args) > 1 else kwargs.get("sections"), int):
            dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
            if args[0].shape[dim] % sections == 0:  # into equal parts, as chunk does
                func, name, args, kwargs = torch.chunk, "chunk", (args[0], sections, dim), {}
        call = PythonCall(name, args, kwargs)
        if name in _LIKE_ANOTHER:
            call = PythonCall(_LIKE_ANOTHER[name], (args[0], *self.symbolic_shape(_other(args, kwargs))), {})
        for leaf in leaves(call.number_arguments()):
            for size in leaf if isinstance(leaf, SymbolicShape) else (leaf,):
                if isinstance(size, SymbolicSize):
                    size.to_plain_int()
        if name in self.composites:
            return self.run_composite(func, args, kwargs)
        outer, self.current = self.current, call
        try:
            return func(*args, **kwargs)
        finally:
            self.current = outer


def _other(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The tensor whose shape is asked for."""
    other: Tensor = args[1] if len(args) > 1 else kwargs["other"]
    return other
