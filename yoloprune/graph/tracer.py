"""One execution of a network under a dispatch mode that carries labels beside values."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from yoloprune.calibration import forward
from yoloprune.errors import UserError
from yoloprune.graph.attributes import counts, has_handler, resizes_splits, widths
from yoloprune.graph.beside import Beside
from yoloprune.graph.fused import written_out
from yoloprune.graph.labels import Labels, Ledger, compact, shrinking, varying
from yoloprune.graph.madeup import MadeUp, ValuesNeededError
from yoloprune.graph.meetings import LABEL
from yoloprune.graph.outputs import output_tensors
from yoloprune.graph.parameters import named_tensors
from yoloprune.graph.requests import Requests
from yoloprune.graph.rules import COMPOSITES, RULES, Call, RuleError
from yoloprune.graph.rules.pointwise import pointwise
from yoloprune.graph.unchanged import Unchanged
from yoloprune.graph.widths import Attribute, Count, Sizes, Width

__all__ = ["run"]

_SILENT = frozenset(
    ["size", "stride", "dim", "is_same_size", "_local_scalar_dense", "record_stream", "equal", "sym_size"]
)


def _noting(method: Callable) -> Callable:
    """Note an error that is not the model's own, which the model's code might catch."""

    @functools.wraps(method)
    def noting(self: _Tracer, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except (RuleError, UserError, ValuesNeededError) as error:
            self.raised = self.raised or error
            raise

    return noting


class _Tracer(TorchDispatchMode):
    def __init__(self, model: nn.Module, made_up: MadeUp | None, unchanged: Unchanged) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.made_up, self.unchanged = made_up, unchanged
        self.thread = threading.get_ident()
        self.raised: Exception | None = None  # the first error that is not the model's own
        # an index or a mask has no channels of its own
        self.own = {id(t): name for name, t in named_tensors(model).items() if t.is_floating_point()}
        self.found: Beside[Labels] = Beside()
        self.modules = dict(model.named_modules())  # going through them takes long in deep networks
        self.names = {id(m): name for name, m in self.modules.items()}
        self.stack: list[nn.Module] = []
        # storages in which values that were zero are not any more, for all their views
        self.soiled: dict[int, Any] = {}
        self.requests = Requests(self.widths, COMPOSITES, self.whole, self.read)
        self.watched: Beside[tuple[Tensor, str]] = Beside()
        self.origin: Beside[frozenset[str]] = Beside()  # the layers that a tensor comes from
        self.paused = False

    def close(self) -> None:
        """Let go of all labels but those in the ledger."""
        for beside in (self.found, self.watched, self.origin):
            beside.clear()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch's default wraps the dispatch in a call that imports all of torch._dynamo, over a second

    def labels(self, tensor: Tensor) -> Labels | None:
        if watched := self.watched.get(tensor):
            self.ledger.freeze(*watched)
        labels = self.found.get(tensor)
        if labels is None and id(tensor) in self.own:
            labels = self.found[tensor] = self.ledger.allocate(self.own[id(tensor)], tensor)
        if labels and labels.zero and self.soiled and tensor.untyped_storage().data_ptr() in self.soiled:
            labels = replace(labels, zero=False)
        return labels

    def put(self, tensor: Tensor, labels: Labels) -> None:
        if id(tensor) not in self.own:
            self.found[tensor] = labels

    def widths(self, tensor: Tensor) -> Sizes:
        """The tensor's shape, with a `Width` for each dimension that may shrink."""
        sizes: list[int] = list(tensor.shape)
        labels = self.labels(tensor)
        for layer in labels.layers if labels else ():
            d = shrinking(layer)
            if d is not None:
                line = layer[tuple(slice(None) if e == d else 0 for e in range(layer.dim()))]
                sizes[d] = Width(sizes[d], line, self.ledger)
        return Sizes(sizes)

    def attribute(self, tensor: Tensor, dim: int) -> Attribute:
        """The size of a parameter's dimension, as an attribute that follows it."""
        return Attribute(tensor.shape[dim], lambda: self._line(tensor, dim), self.ledger)

    def _line(self, tensor: Tensor, dim: int) -> Tensor:
        labels = self.labels(tensor)
        layers = [layer for layer in (labels.layers if labels else ()) if varying(layer) == (dim,)]
        return compact(layers[0]).reshape(-1) if layers else torch.zeros(0, dtype=LABEL, device="cpu")

    def follow_attributes(self) -> None:
        """Put numbers that are told from those which the code fixes where modules keep widths and counts of heads."""
        for m in self.modules.values():
            for name in counts(m):
                if isinstance(value := getattr(m, name), int):
                    setattr(m, name, Count(value, self.ledger))
            for name, (parameter, dim) in widths(m).items():
                tensor, value = m._parameters.get(parameter), vars(m).get(name)
                if tensor is None or id(tensor) not in self.own:
                    continue
                if dim is None and tuple(tensor.shape) == value:
                    setattr(m, name, tuple(self.attribute(tensor, d) for d in range(tensor.dim())))
                elif dim is not None and tensor.shape[dim] == value:
                    setattr(m, name, self.attribute(tensor, dim))

    @_noting
    def read(self, tensor: Tensor) -> None:
        """A tensor's values are about to leave for Python or NumPy, where nothing follows them."""
        if self.made_up:
            self.made_up.read(tensor)
        self.unchanged.save(tensor)  # NumPy may write into it
        self.ledger.freeze_all(self.labels(tensor), "is read by the model's code")

    def enter(self, module: nn.Module, inputs: Any) -> None:
        """A module's forward begins, perhaps that of another model in another thread."""
        if threading.get_ident() == self.thread:
            self.stack.append(module)

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """A module's forward has ended."""
        if threading.get_ident() == self.thread:
            self.stack.pop()

    def watch(self, tensor: Tensor, labels: Tensor, reason: str) -> None:
        """Freeze these labels once the tensor is used."""
        self.watched[tensor] = labels, reason

    def call(self, name: str, func: Any, args: tuple, kwargs: dict, out: Any) -> Call:
        """What a rule is given."""
        module = self.stack[-1] if self.stack else None
        return Call(
            name,
            func,
            args,
            kwargs,
            out,
            self.ledger,
            self.names.get(id(module), ""),
            self.requests.current,
            module is not None and has_handler(module),
            module is not None and resizes_splits(module),
            self.labels,
            self.put,
            self.watch,
        )

    def link(self, args: tuple, kwargs: dict, out: Any) -> None:
        """Note which layers feed which: a layer is what owns a parameter that is used with other tensors."""
        layers, fed = set(), set()
        for value in (*args, *kwargs.values()):
            for tensor in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(tensor, Tensor):
                    if id(tensor) in self.own:
                        name = self.own[id(tensor)]
                        self.ledger.reached.add(name)
                        layers.add(name.rpartition(".")[0])
                    fed |= self.origin.get(tensor) or frozenset()
        for layer in layers:
            self.ledger.links.update(dict.fromkeys((a, layer) for a in fed if a != layer))
        origin = frozenset(layers or fed)
        for tensor in out if isinstance(out, (list, tuple)) else (out,):
            if isinstance(tensor, Tensor) and id(tensor) not in self.own:
                self.origin[tensor] = origin

    @_noting
    def whole(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """Run a function that has a rule of its own, without the rules for the operators inside."""
        self.paused = True
        try:
            out = func(*args, **kwargs)
            with _blamed(func):
                self.link(args, kwargs, out)
                COMPOSITES[func.__name__](self.call(func.__name__, func, args, kwargs, out))
        finally:
            self.paused = False
        return out

    @_noting
    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[-1]
        if apart := written_out(func):
            with self:
                return apart(*args, **kwargs)
        self.unchanged.before(func, args, kwargs)
        out = self.made_up.run(name, func, args, kwargs) if self.made_up else func(*args, **kwargs)
        if not self.paused:
            with _blamed(func):
                self.follow(name, func, args, kwargs, out)
        return out

    def follow(self, name: str, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
        """Say what an operator that has run does to labels."""
        self.link(args, kwargs, out)
        base = name[:-1] if name.endswith("_") and not name.startswith("__") else name
        call = self.call(base, func, args, kwargs, out)
        handler = RULES.get(base)
        if handler is None and torch.Tag.pointwise in func.tags:
            handler = pointwise
        if handler is not None:
            handler(call)
            if base != name and (labels := self.found.get(args[0])) and labels.layers and not labels.zero:
                storage = args[0].untyped_storage()
                self.soiled[storage.data_ptr()] = storage
        elif base not in _SILENT:
            self._unknown(base, args, kwargs)

    def _unknown(self, name: str, args: tuple, kwargs: dict) -> None:
        carried = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        carried = [labels for t in carried if (labels := self.labels(t)) and labels.layers]
        if carried:
            self.ledger.unknown(name, carried)


@contextmanager
def _blamed(func: Any) -> Iterator[None]:
    """Errors are those of the rule for an operator."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise RuleError(func, "labels", error) from error


@contextmanager
def _unfused(modules: Collection[nn.Module]) -> Iterator[None]:
    """Have recurrent layers run operator by operator: fused, each is a single opaque one.

    Layers of attention do so anyhow under a `TorchFunctionMode`.
    """
    recurrent = any(isinstance(m, nn.RNNBase) for m in modules)
    libraries = (torch.backends.mkldnn, torch.backends.cudnn) if recurrent else ()  # they also make convolutions fast
    before = [library.set_flags(False)[0] for library in libraries]
    try:
        yield
    finally:
        for library, enabled in zip(libraries, before, strict=True):
            library.set_flags(enabled)


def run(model: nn.Module, example_inputs: Any) -> Ledger:
    """Run the model once in inference mode and write down what its operators say about labels.

    At first without the arithmetic of products and convolutions; with it, from the start, where a value is needed, or
    where the model's own code fails after something was made up. An error of a rule is never a reason for that.

    Args:
        model: Any module; nothing of it changes, see `Unchanged`.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.

    Raises:
        RuleError: A rule for an operator failed.
        UserError: The model returns no tensors, or a layer is given no values.
        Exception: Whatever the model raises.
    """
    return _execute(model, example_inputs, MadeUp()) or _execute(model, example_inputs, None)


def _execute(model: nn.Module, example_inputs: Any, made_up: MadeUp | None) -> Ledger | None:
    """Run the model once; None if that needs the values that were made up."""
    modules = list(model.modules())
    with Unchanged(modules, output_tensors(example_inputs)) as unchanged:
        tracer = _Tracer(model, made_up, unchanged)
        try:
            out = _forward(tracer, model, modules, example_inputs)
        except Exception:
            if tracer.raised is None:
                if made_up and made_up.used:
                    return None
                raise
    # whether or not the model's code caught it
    if isinstance(tracer.raised, ValuesNeededError):
        tracer.raised = None  # its traceback would keep the activations
        return None
    if tracer.raised is not None:
        raise tracer.raised
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
        with torch.no_grad(), _unfused(modules), tracer, tracer.requests:
            return forward(model, example_inputs)
    finally:
        for handle in handles:
            handle.remove()
