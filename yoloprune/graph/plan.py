"""A plan: which indices of which parameter dimensions stay. Data, not code; saved as JSON."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from yoloprune.exclusive import exclusive
from yoloprune.files import atomic
from yoloprune.graph import attributes
from yoloprune.graph.parameters import named_tensors, owners

__all__ = ["Plan"]


@dataclass(frozen=True, repr=False)
class Plan:
    """What stays, and what it costs.

    Attributes:
        keep: parameter name -> dimension -> kept indices, ascending. Dimensions that are not named stay whole.
        shapes: Shape of each named parameter before pruning.
        weights: Digest of the weights that it was made for, if it is to be told from others of the same shapes.
    """

    keep: dict[str, dict[int, list[int]]]
    shapes: dict[str, list[int]]
    _macs: int
    _params: int
    weights: str | None = None

    def __repr__(self) -> str:  # the indices would fill the screen
        return f"<Plan: {len(self.keep)} tensors shrink, {self._macs} MACs and {self._params} parameters are left>"

    def macs(self) -> int:
        """MACs of the pruned network at the traced input."""
        return self._macs

    def params(self) -> int:
        """Parameters of the pruned network."""
        return self._params

    def _check(self, model: nn.Module) -> dict[str, torch.Tensor]:
        tensors = named_tensors(model)
        for name, shape in self.shapes.items():
            if name not in tensors:
                raise ValueError(f"the plan prunes {name!r}, which this model does not have")
            if list(tensors[name].shape) != list(shape):
                raise ValueError(
                    f"the plan was made for {name!r} of shape {list(shape)}, "
                    f"this model's is {list(tensors[name].shape)}"
                )
        for name, dims in self.keep.items():
            shape = self.shapes.get(name, [])
            for dim, kept in dims.items():
                size = shape[dim] if 0 <= dim < len(shape) else 0
                if not kept or kept[0] < 0 or kept[-1] >= size or any(a >= b for a, b in itertools.pairwise(kept)):
                    raise ValueError(f"the plan does not name some of the {size} slices of {name!r} in dimension {dim}")
        return tensors

    def _pruned(self, model: nn.Module) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        """Name, tensor and what takes its place, for each tensor that shrinks."""
        tensors = self._check(model)
        for name, dims in self.keep.items():
            old = tensors.pop(name)
            new = old.detach()
            for dim, indices in dims.items():
                new = new.index_select(dim, torch.as_tensor(indices, device=new.device))
            yield name, old, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new

    def apply_(self, model: nn.Module) -> nn.Module:
        """Remove the slices in place and update the modules' attributes; returns the model.

        Raises:
            ValueError: If the plan was made for another network (nothing is changed then).
        """
        owning, old = owners(model), attributes.shapes(model)
        for name, _, new in self._pruned(model):
            for module, attribute in owning[name]:
                setattr(module, attribute, new)
        attributes.update(model, old)
        return model

    @exclusive  # another thread may have hooks in the model, which would be copied
    def apply(self, model: nn.Module) -> nn.Module:
        """A smaller copy of the model; the model itself is not changed."""
        # what shrinks counts as copied already, so that deepcopy never copies it whole
        smaller = copy.deepcopy(model, {id(old): new for _, old, new in self._pruned(model)})
        attributes.update(smaller, attributes.shapes(model))
        return smaller

    def mask_(self, model: nn.Module) -> nn.Module:
        """Zero what the plan removes and keep the shapes: the same outputs as the pruned model; returns the model."""
        tensors = self._check(model)
        with torch.no_grad():
            for name, dims in self.keep.items():
                for dim, indices in dims.items():
                    gone = np.setdiff1d(np.arange(tensors[name].shape[dim]), indices)
                    tensors[name].index_fill_(dim, torch.from_numpy(gone).to(tensors[name].device), 0)
        return model

    def compose(self, later: Plan) -> Plan:
        """One plan against the original weights, for a `later` plan that was made on the already pruned model."""
        keep = {name: dict(dims) for name, dims in self.keep.items()}
        shapes = dict(self.shapes)
        for name, dims in later.keep.items():
            for dim, indices in dims.items():
                before = keep.setdefault(name, {}).get(dim)
                keep[name][dim] = list(indices) if before is None else [before[i] for i in indices]
            shapes.setdefault(name, later.shapes[name])
        return Plan(keep, shapes, later._macs, later._params, self.weights)

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON, under a temporary name first."""
        data = {"format": 1, "macs": self._macs, "params": self._params, "shapes": self.shapes, "keep": self.keep}
        if self.weights:
            data["weights"] = self.weights
        with atomic(path) as tmp:
            tmp.write_text(json.dumps(data, separators=(",", ":"), sort_keys=True))

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan.

        Raises:
            ValueError: If the file is not a plan.
        """
        try:
            data = json.loads(Path(path).read_text())
            keep = {p: {int(d): list(map(int, i)) for d, i in dims.items()} for p, dims in data["keep"].items()}
            return cls(keep, data["shapes"], data["macs"], data["params"], data.get("weights"))
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a plan ({type(error).__name__}: {error})") from error
