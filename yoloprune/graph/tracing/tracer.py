"""One execution of a network under a dispatch mode that carries labels along with values."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from yoloprune.errors import UserError
from yoloprune.execution import forward
from yoloprune.graph.attributes import counts, has_handler, resizes_splits, widths
from yoloprune.graph.labels import Labels, Ledger, compact, shrinking_dim, varying_dims
from yoloprune.graph.parameters import named_tensors
from yoloprune.graph.rules import COMPOSITES, RULES, Call, RuleError
from yoloprune.graph.rules.pointwise import pointwise
from yoloprune.graph.tracing.decomposition import decomposition
from yoloprune.graph.tracing.fake_execution import FakeExecution, ValuesNeededError
from yoloprune.graph.tracing.internals import Operator, OperatorMode, is_pointwise, leaves, operator_name
from yoloprune.graph.tracing.outputs import output_tensors
from yoloprune.graph.tracing.python_calls import CallInterceptor
from yoloprune.graph.tracing.snapshot import ModelSnapshot
from yoloprune.graph.tracing.symbolic_sizes import SymbolicAttribute, SymbolicCount, SymbolicShape, SymbolicSize
from yoloprune.graph.tracing.weak_tensor_map import WeakTensorMap
from yoloprune.graph.union_find import LABEL_DTYPE

__all__ = ["run"]

# operators without a rule that say nothing about channels
_SHAPE_QUERIES = frozenset(
    ["size", "stride", "dim", "is_same_size", "_local_scalar_dense", "record_stream", "equal", "sym_size"]
)

P = ParamSpec("P")
R = TypeVar("R")


def _recording_errors(method: Callable[Concatenate[_Tracer, P], R]) -> Callable[Concatenate[_Tracer, P], R]:
    """Record an error that is not the model's own, since the model's code might catch it."""

    @functools.wraps(method)
    def recording(self: _Tracer, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except (RuleError, UserError, ValuesNeededError) as error:
            self.error = self.error or error
            raise

    return recording


class _Tracer(OperatorMode):
    """Carries labels along with the values of one execution, and records in a ledger what operators say about them.

    Args:
        model: The network.
        fake: What runs the operators without arithmetic, None to compute all values.
        snapshot: What saves tensors before they are changed.
    """

    def __init__(self, model: nn.Module, fake: FakeExecution | None, snapshot: ModelSnapshot) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.fake, self.snapshot = fake, snapshot
        self.thread = threading.get_ident()
        self.error: Exception | None = None  # the first error that is not the model's own
        # an index or a mask has no channels of its own
        self.parameter_names = {id(t): name for name, t in named_tensors(model).items() if t.is_floating_point()}
        self.labels_of: WeakTensorMap[Labels] = WeakTensorMap()
        self.modules = dict(model.named_modules())  # iterating over them is slow in deep networks
        self.module_names = {id(m): name for name, m in self.modules.items()}
        self.stack: list[nn.Module] = []
        # storages in which an in-place operator has made zeros something else, by address, for all their views
        self.nonzero_storages: dict[int, torch.UntypedStorage] = {}
        self.interceptor = CallInterceptor(self.symbolic_shape, COMPOSITES, self.run_composite, self.read)
        self.frozen_on_use: WeakTensorMap[tuple[Tensor, str]] = WeakTensorMap()
        self.source_layers: WeakTensorMap[frozenset[str]] = WeakTensorMap()  # the layers that a tensor comes from
        self.paused = False

    def close(self) -> None:
        """Let go of all labels but those in the ledger."""
        for tensor_map in (self.labels_of, self.frozen_on_use, self.source_layers):
            tensor_map.clear()

    def labels(self, tensor: Tensor) -> Labels | None:
        """Labels of a tensor, freshly allocated where it is a parameter or buffer that was not seen before."""
        if frozen := self.frozen_on_use.get(tensor):
            self.ledger.freeze(*frozen)
        labels = self.labels_of.get(tensor)
        if labels is None and id(tensor) in self.parameter_names:
            labels = self.labels_of[tensor] = self.ledger.allocate(self.parameter_names[id(tensor)], tensor)
        if labels and labels.zero and self._was_made_nonzero(tensor):
            labels = replace(labels, zero=False)
        return labels

    def _was_made_nonzero(self, tensor: Tensor) -> bool:
        return bool(self.nonzero_storages) and tensor.untyped_storage().data_ptr() in self.nonzero_storages

    def put(self, tensor: Tensor, labels: Labels) -> None:
        """Label a tensor that an operator returned."""
        if id(tensor) not in self.parameter_names:
            self.labels_of[tensor] = labels

    def symbolic_shape(self, tensor: Tensor) -> SymbolicShape:
        """The tensor's shape, with a `SymbolicSize` for each dimension that may shrink."""
        sizes: list[int] = list(tensor.shape)
        labels = self.labels(tensor)
        for plane in labels.planes if labels else ():
            d = shrinking_dim(plane)
            if d is not None:
                line = plane[tuple(slice(None) if e == d else 0 for e in range(plane.dim()))]
                sizes[d] = SymbolicSize(sizes[d], line, self.ledger)
        return SymbolicShape(sizes)

    def attribute(self, tensor: Tensor, dim: int) -> SymbolicAttribute:
        """The size of a parameter's dimension, as an attribute that follows it."""
        return SymbolicAttribute(tensor.shape[dim], lambda: self._line(tensor, dim), self.ledger)

    def _line(self, tensor: Tensor, dim: int) -> Tensor:
        labels = self.labels(tensor)
        planes = [plane for plane in (labels.planes if labels else ()) if varying_dims(plane) == (dim,)]
        return compact(planes[0]).reshape(-1) if planes else torch.zeros(0, dtype=LABEL_DTYPE, device="cpu")

    def follow_attributes(self) -> None:
        """Make the sizes and head counts that modules keep as attributes symbolic: code that reads them follows."""
        for m in self.modules.values():
            for name in counts(m):
                if isinstance(value := getattr(m, name), int):
                    setattr(m, name, SymbolicCount(value, self.ledger))
            sizes = widths(m)
            own = dict(m.named_parameters(recurse=False)) if sizes else {}
            for name, (parameter, dim) in sizes.items():
                tensor, value = own.get(parameter), vars(m).get(name)
                if tensor is None or id(tensor) not in self.parameter_names:
                    continue
                if dim is None and tuple(tensor.shape) == value:
                    setattr(m, name, tuple(self.attribute(tensor, d) for d in range(tensor.dim())))
                elif dim is not None and tensor.shape[dim] == value:
                    setattr(m, name, self.attribute(tensor, dim))

    @_recording_errors
    def read(self, tensor: Tensor) -> None:
        """Freeze a tensor whose values are about to leave for Python or NumPy, where nothing follows them."""
        if self.fake:
            self.fake.read(tensor)
        self.snapshot.save(tensor)  # NumPy may write into it
        self.ledger.freeze_all(self.labels(tensor), "is read by the model's code")

    def enter(self, module: nn.Module, inputs: Any) -> None:
        """A module's forward begins; it may belong to another model in another thread."""
        if threading.get_ident() == self.thread:
            self.stack.append(module)

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """A module's forward has ended."""
        if threading.get_ident() == self.thread:
            self.stack.pop()

    def freeze_on_use(self, tensor: Tensor, labels: Tensor, reason: str) -> None:
        """Freeze these labels once the tensor is used."""
        self.frozen_on_use[tensor] = labels, reason

    def call(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> Call:
        """What a rule is given."""
        module = self.stack[-1] if self.stack else None
        return Call(
            name,
            func,
            args,
            kwargs,
            out,
            self.ledger,
            self.module_names.get(id(module), ""),
            self.interceptor.current,
            module is not None and has_handler(module),
            module is not None and resizes_splits(module),
            self.labels,
            self.put,
            self.freeze_on_use,
        )

    def link(self, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Record which layers feed which: a layer is what owns a parameter that is used with other tensors."""
        layers: set[str] = set()
        fed: set[str] = set()
        for value in (*args, *kwargs.values()):
            for tensor in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(tensor, Tensor):
                    if id(tensor) in self.parameter_names:
                        name = self.parameter_names[id(tensor)]
                        self.ledger.reached.add(name)
                        layers.add(name.rpartition(".")[0])
                    fed |= self.source_layers.get(tensor) or frozenset()
        for layer in layers:
            self.ledger.links.update(dict.fromkeys((a, layer) for a in fed if a != layer))
        sources = frozenset(layers or fed)
        for tensor in out if isinstance(out, (list, tuple)) else (out,):
            if isinstance(tensor, Tensor) and id(tensor) not in self.parameter_names:
                self.source_layers[tensor] = sources

    @_recording_errors
    def run_composite(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function that has a rule of its own, and skip the rules for the operators inside."""
        self.paused = True
        try:
            out = func(*args, **kwargs)
            with _rule_errors(func):
                self.link(args, kwargs, out)
                COMPOSITES[func.__name__](self.call(func.__name__, func, args, kwargs, out))
        finally:
            self.paused = False
        return out

    @_recording_errors
    def __torch_dispatch__(
        self, func: Operator, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = operator_name(func)
        if decomposed := decomposition(func):
            with self:
                return decomposed(*args, **kwargs)
        self.snapshot.before(func, args, kwargs)
        out = self.fake.run(name, func, args, kwargs) if self.fake else func(*args, **kwargs)
        if not self.paused:
            with _rule_errors(func):
                self.apply_rule(name, func, args, kwargs, out)
        return out

    def apply_rule(self, name: str, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Apply the rule of an operator that has run, and freeze what it touches where it has none."""
        self.link(args, kwargs, out)
        base = name[:-1] if name.endswith("_") and not name.startswith("__") else name
        call = self.call(base, func, args, kwargs, out)
        handler = RULES.get(base)
        if handler is None and is_pointwise(func):
            handler = pointwise
        if handler is not None:
            handler(call)
            if base != name and (labels := self.labels_of.get(args[0])) and labels.planes and not labels.zero:
                storage = args[0].untyped_storage()
                self.nonzero_storages[storage.data_ptr()] = storage
        elif base not in _SHAPE_QUERIES:
            self._report_unsupported(base, args, kwargs)

    def _report_unsupported(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = [t for t in leaves((args, kwargs)) if isinstance(t, Tensor)]
        carried = [labels for t in tensors if (labels := self.labels(t)) and labels.planes]
        if carried:
            self.ledger.report_unsupported(name, carried)


@contextmanager
def _rule_errors(func: Callable[..., Any]) -> Iterator[None]:
    """Turn whatever a rule raises into a `RuleError` that names its operator."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise RuleError(func, "labels", error) from error


@contextmanager
def _unfused_rnns(modules: Collection[nn.Module]) -> Iterator[None]:
    """Have recurrent layers run operator by operator, since a fused kernel is a single opaque operator.

    Attention layers do so anyway under a `TorchFunctionMode`.
    """
    with ExitStack() as stack:
        if any(isinstance(m, nn.RNNBase) for m in modules):  # the libraries also make convolutions fast
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


def run(model: nn.Module, example_inputs: Any) -> Ledger:
    """Run the model once in inference mode and record what its operators say about labels.

    The first attempt skips the arithmetic of products and convolutions. It is repeated with all values where one of
    them is needed, or where the model's own code fails on a fake one; an error of a rule is never repeated.

    Args:
        model: Any module; nothing of it changes, see `ModelSnapshot`.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.

    Raises:
        RuleError: A rule for an operator failed.
        UserError: The model returns no tensors, or a layer is given no values.
        Exception: Whatever the model raises.
    """
    ledger = _execute(model, example_inputs, FakeExecution()) or _execute(model, example_inputs, None)
    assert ledger is not None  # with all values computed, none can be missing
    return ledger


def _execute(model: nn.Module, example_inputs: Any, fake: FakeExecution | None) -> Ledger | None:
    """Run the model once; None if that needs the values that were faked."""
    modules = list(model.modules())
    with ModelSnapshot(modules, output_tensors(example_inputs)) as snapshot:
        tracer = _Tracer(model, fake, snapshot)
        try:
            out = _forward(tracer, model, modules, example_inputs)
        except Exception:
            if tracer.error is None:
                if fake and fake.used:
                    return None
                raise
    # whether or not the model's code caught it
    if isinstance(tracer.error, ValuesNeededError):
        tracer.error = None  # its traceback would keep the activations
        return None
    if tracer.error is not None:
        raise tracer.error
    outputs = list(output_tensors(out))
    if not outputs:
        raise UserError(f"The model returns no tensors but {type(out).__name__}, so nothing says what must stay.")
    for t in outputs:
        tracer.ledger.freeze_all(tracer.labels(t), "reaches the model's output")
    tracer.close()
    return tracer.ledger


def _forward(tracer: _Tracer, model: nn.Module, modules: Collection[nn.Module], example_inputs: Any) -> Any:
    handles = [
        hooks.register_module_forward_pre_hook(tracer.enter),
        hooks.register_module_forward_hook(tracer.leave, always_call=True),
    ]
    try:
        tracer.follow_attributes()
        model.eval()
        with torch.no_grad(), _unfused_rnns(modules), tracer, tracer.interceptor:
            return forward(model, example_inputs)
    finally:
        for handle in handles:
            handle.remove()
