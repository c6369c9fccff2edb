"""What is used of PyTorch's private or unstable parts, each behind a name of our own.

Nothing else in `yoloprune` touches them. tests/graph/test_contracts.py checks every one and says in a sentence
what a newer PyTorch has changed. The version in brackets is the newest in which each was seen to work.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload as Operator  # [2.14.1]
from torch.multiprocessing.reductions import StorageWeakRef  # [2.14.1]
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm  # [2.14.1]
from torch.nn.modules.batchnorm import _NormBase as NormBase  # [2.14.1]
from torch.nn.modules.conv import _ConvNd as ConvNd  # [2.14.1]
from torch.nn.modules.conv import _ConvTransposeNd as ConvTransposeNd  # [2.14.1]
from torch.nn.parameter import is_lazy  # [2.14.1]
from torch.overrides import BaseTorchFunctionMode as PassingFunctionMode  # [2.14.1]
from torch.overrides import TorchFunctionMode as FunctionMode  # [2.14.1]
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass  # [2.14.1]
from torch.utils._pytree import tree_leaves, tree_map  # [2.14.1]

__all__ = [
    "GRU_CELL",
    "LSTM_CELL",
    "Argument",
    "BatchNorm",
    "ConvNd",
    "ConvTransposeNd",
    "FunctionMode",
    "NormBase",
    "Operator",
    "OperatorMode",
    "PassingFunctionMode",
    "StorageRef",
    "add_products",
    "composite_kernel",
    "default_generators",
    "draws_random_numbers",
    "has_dynamic_shape",
    "has_own_memory",
    "is_hook_container",
    "is_mutable",
    "is_pointwise",
    "is_shape_query",
    "leaves",
    "map_leaves",
    "newest_opset",
    "operator_arguments",
    "operator_name",
    "padding_of",
    "qualified_name",
    "storage_id",
    "view_base",
]

LSTM_CELL: Operator = torch.ops.aten._thnn_fused_lstm_cell.default  # [2.14.1]
GRU_CELL: Operator = torch.ops.aten._thnn_fused_gru_cell.default  # [2.14.1]


class OperatorMode(TorchDispatchMode):
    """Base of what sees every ATen operator in `__torch_dispatch__` [2.14.1]."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's is untyped

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()  # type: ignore[no-untyped-call]  # torch's is untyped

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch's default wraps the dispatch in a call that imports all of torch._dynamo, over a second


class Argument(NamedTuple):
    """An argument in an operator's schema.

    Attributes:
        name: Its name.
        written: Whether the operator writes into it.
        has_default: Whether it may be left out.
        default: What it is then.
    """

    name: str
    written: bool
    has_default: bool
    default: Any


@functools.cache
def operator_arguments(operator: Operator) -> tuple[Argument, ...]:
    """Arguments in the order of the operator's schema [2.14.1]."""
    return tuple(
        Argument(
            a.name,
            bool(a.alias_info and a.alias_info.is_write),
            a.has_default_value(),
            a.default_value if a.has_default_value() else None,
        )
        for a in operator._schema.arguments
    )


@functools.cache
def operator_name(operator: Operator) -> str:
    """Name without namespace and overload, as "convolution" [2.14.1]."""
    return operator._schema.name.split("::")[-1]


def qualified_name(operator: Callable[..., Any]) -> str:
    """Name with both, as "aten::add.Tensor", or a plain function's name [2.14.1]."""
    if isinstance(operator, Operator):
        return str(operator.name())  # type: ignore[no-untyped-call]  # torch's is untyped
    return operator.__name__


def is_mutable(operator: Operator) -> bool:
    """Whether the operator writes into an argument [2.14.1]."""
    return bool(operator._schema.is_mutable)


def is_pointwise(operator: Operator) -> bool:
    """Whether PyTorch tags the operator as element-wise [2.14.1]."""
    return torch.Tag.pointwise in operator.tags


def draws_random_numbers(operator: Operator) -> bool:
    """Whether PyTorch tags the operator as drawing from a random generator [2.14.1]."""
    return torch.Tag.nondeterministic_seeded in operator.tags


def has_dynamic_shape(operator: Operator) -> bool:
    """Whether PyTorch tags the operator as one whose result's shape depends on values [2.14.1]."""
    return torch.Tag.dynamic_output_shape in operator.tags


def composite_kernel(operator: Operator) -> Callable[..., Any] | None:
    """The kernel that computes an operator by calling other operators, None where it has no such kernel [2.14.1].

    Not `operator.decompose`, which prefers decompositions in Python, is slow and has them for batch norms too.
    """
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    if torch._C._dispatch_has_kernel_for_dispatch_key(qualified_name(operator), key):
        return functools.partial(operator._op_dk, key)
    return None


def is_shape_query(function: Callable[..., Any]) -> bool:
    """Whether a function that a `TorchFunctionMode` is given is the getter of `Tensor.shape` [2.14.1]."""
    return getattr(function, "__self__", None) is Tensor.shape


def leaves(structure: object) -> list[Any]:
    """What nested lists, tuples, dicts and registered containers hold [2.14.1]."""
    return tree_leaves(structure)


def map_leaves(function: Callable[[Any], Any], structure: Any) -> Any:
    """The structure with `function` of every leaf in its place [2.14.1]."""
    return tree_map(function, structure)


def view_base(tensor: Tensor) -> Tensor | None:
    """The tensor that this one is a view of, if any [2.14.1]."""
    return tensor._base if tensor._is_view() else None


def storage_id(tensor: Tensor) -> int:
    """Identity of a tensor's storage, the same for all its views [2.14.1]."""
    return int(tensor.untyped_storage()._cdata)


def has_own_memory(tensor: Tensor) -> bool:
    """Whether a tensor is a plain strided one, whose storage holds its values [2.14.1]."""
    return tensor.layout is torch.strided and not is_lazy(tensor) and not is_traceable_wrapper_subclass(tensor)


class StorageRef:
    """A weak reference to a tensor's storage, which keeps its address from being given to another one [2.14.1]."""

    def __init__(self, tensor: Tensor) -> None:
        self._weak = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]  # torch's is untyped

    def is_dead(self) -> bool:
        """Whether nothing holds the storage any more."""
        return bool(self._weak.expired())  # type: ignore[no-untyped-call]  # torch's is untyped


def default_generators() -> Sequence[torch.Generator]:
    """The generators that operators draw from unless they are given one [2.14.1]."""
    return torch.default_generator, *torch.cuda.default_generators


def is_hook_container(attribute: str) -> bool:
    """Whether a module's attribute of this name holds hooks [2.14.1]."""
    return "hook" in attribute


def add_products(to: list[Tensor], a: list[Tensor], b: list[Tensor], *, factor: float) -> None:
    """Add factor · a · b to tensors in place, many of them in one call [2.14.1]."""
    torch._foreach_addcmul_(to, a, b, value=factor)


def padding_of(convolution: ConvNd) -> list[int]:
    """Padding of a convolution as `torch.nn.functional.pad` takes it, "same" worked out [2.14.1]."""
    return list(convolution._reversed_padding_repeated_twice)


def newest_opset() -> int:
    """The newest version of ONNX's operators that this PyTorch can write [2.14.1]."""
    from torch.onnx._constants import ONNX_MAX_OPSET  # slow to import

    return int(ONNX_MAX_OPSET)
