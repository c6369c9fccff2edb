"""What the model's own code asked for, before PyTorch turns every size into a plain number."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from yoloprune.graph.tracing.symbolic_sizes import SymbolicShape, SymbolicSize

__all__ = ["CallInterceptor", "PythonCall"]

_SHAPE = Tensor.shape
_VIEWS = frozenset(["view", "reshape", "expand", "broadcast_to", "repeat"])
_AS = {"view_as": "view", "reshape_as": "reshape", "expand_as": "expand"}  # the shape of another tensor is asked for
_FILLS = frozenset(["zeros", "ones", "empty", "rand", "randn", "full"])
_NEW = frozenset(["new_zeros", "new_ones", "new_empty", "new_full"])
# calls whose sizes the rules read, or in which a width only says what belongs together
_SIZES = _VIEWS | _FILLS | _NEW
_SIZES |= {"split", "split_with_sizes", "narrow", "chunk", "__getitem__", "__setitem__", "unflatten"}
_SIZES |= {"layer_norm", "rms_norm"}
# place and name of the argument that counts groups, which may follow a width
_GROUPS = {f"conv{kind}{d}d": (6, "groups") for kind in ("", "_transpose") for d in (1, 2, 3)}
_GROUPS["group_norm"] = (1, "num_groups")
_LEAVES = frozenset(["tolist", "numpy", "__array__", "__dlpack__"])


class PythonCall(NamedTuple):
    """A call as the model's code wrote it."""

    name: str
    args: tuple
    kwargs: dict

    def view_sizes(self, source: Sequence[int]) -> tuple | None:
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

    def fill_sizes(self) -> tuple | None:
        """Sizes of a newly made tensor."""
        if self.name in _NEW:
            return self._sizes(self.args[1:2] if self.name == "new_full" else self.args[1:])
        if self.name in _FILLS:
            return self._sizes(self.args[:1] if self.name == "full" else self.args)
        return None

    def split_sizes(self, count: int) -> tuple | None:
        """Sizes that a split asks for; one that is given once holds for every piece."""
        if self.name not in ("split", "split_with_sizes"):
            return None
        sizes = next(
            (self.kwargs[k] for k in ("split_size_or_sections", "split_size", "split_sizes") if k in self.kwargs), None
        )
        if sizes is None:
            sizes = self.args[1]
        return (sizes,) * count if isinstance(sizes, int) else tuple(sizes)

    def normalized_shape(self) -> tuple | None:
        """Shape over which a norm is asked for."""
        if self.name not in ("layer_norm", "rms_norm"):
            return None
        shape = self._argument(1, "normalized_shape")
        return (shape,) if isinstance(shape, int) else tuple(shape)

    def weight(self) -> Tensor | None:
        """What a norm multiplies by."""
        return self._argument(2, "weight")

    def groups(self) -> Any:
        """The number of groups that a convolution or a norm is asked for."""
        if self.name not in _GROUPS:
            return None
        groups = self._argument(*_GROUPS[self.name])
        return 1 if groups is None else groups

    def number_arguments(self) -> tuple:
        """Arguments that are no sizes: a width among them is used as a number."""
        if self.name in _GROUPS:
            place, name = _GROUPS[self.name]
            return *self.args[:place], *self.args[place + 1 :], *(v for k, v in self.kwargs.items() if k != name)
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
        for place in index:
            if place is Ellipsis:
                at += self.args[0].dim() - taken
            elif isinstance(place, slice):
                if at == dim:
                    return place.start, place.stop
                at += 1
            elif isinstance(place, Tensor) and place.dtype == torch.bool:
                at += place.dim()
            elif not isinstance(place, int) or isinstance(place, bool):
                at += 1
        return None

    def _argument(self, position: int, name: str) -> Any:
        return self.args[position] if position < len(self.args) else self.kwargs.get(name)

    def _sizes(self, given: tuple) -> tuple | None:
        if not given:
            given = tuple(self.kwargs[k] for k in ("size", "shape", "repeats") if k in self.kwargs)
        if len(given) == 1 and isinstance(given[0], (tuple, list)):
            given = tuple(given[0])
        return given if given and all(isinstance(n, int) for n in given) else None


class CallInterceptor(TorchFunctionMode):
    """Notes the call that the model's code is in, and answers with `SymbolicSize`s when it asks for a shape.

    Args:
        symbolic_shape: Shape of a tensor, with a `SymbolicSize` for each labelled dimension.
        composites: Functions that are run by `run_composite`, called with (function, args, kwargs).
        run_composite: See above.
        read: Called with a tensor before its values leave for Python or NumPy past all operators.
    """

    def __init__(
        self,
        symbolic_shape: Callable[[Tensor], SymbolicShape],
        composites: Container[str],
        run_composite: Callable[[Any, tuple, dict], Any],
        read: Callable[[Tensor], None],
    ) -> None:
        super().__init__()
        self.symbolic_shape, self.composites, self.run_composite, self.read = (
            symbolic_shape,
            composites,
            run_composite,
            read,
        )
        self.current: PythonCall | None = None

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__self__", None) is _SHAPE:
            return self.symbolic_shape(args[0])
        name = getattr(func, "__name__", "")
        if name == "size":
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            return self.symbolic_shape(args[0]) if dim is None else self.symbolic_shape(args[0])[dim]
        if name in ("numel", "nelement"):
            return math.prod(self.symbolic_shape(args[0]))
        if name == "__len__" and isinstance(size := next(iter(self.symbolic_shape(args[0])), None), SymbolicSize):
            size.to_plain_int()
        if name in _LEAVES:
            self.read(args[0])
        if name == "tensor_split" and isinstance(sections := args[1] if len(args) > 1 else kwargs.get("sections"), int):
            dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
            if args[0].shape[dim] % sections == 0:  # into equal parts, as chunk
                func, name, args, kwargs = torch.chunk, "chunk", (args[0], sections, dim), {}
        python_call = PythonCall(name, args, kwargs)
        if name in _AS:
            python_call = PythonCall(_AS[name], (args[0], *self.symbolic_shape(_other(args, kwargs))), {})
        for leaf in tree_leaves(python_call.number_arguments()):
            for size in leaf if isinstance(leaf, SymbolicShape) else (leaf,):
                if isinstance(size, SymbolicSize):
                    size.to_plain_int()
        if name in self.composites:
            return self.run_composite(func, args, kwargs)
        outer, self.current = self.current, python_call
        try:
            return func(*args, **kwargs)
        finally:
            self.current = outer


def _other(args: tuple, kwargs: dict) -> Tensor:
    """The tensor whose shape is asked for."""
    return args[1] if len(args) > 1 else kwargs["other"]
