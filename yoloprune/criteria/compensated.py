"""Importance from what removal does to the layers behind after they were re-solved: channels go one after another."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from yoloprune.graph.tracing.internals import ConvTransposeNd

from ..calibration import groups_of, patches
from .consumers import Consumer, observed
from .registry import Inputs, criterion

__all__ = ["compensated_error"]

_POSITIONS = 10_000  # of each layer's outputs, over all batches
_LARGEST = 2304  # inputs times kernel positions: beyond it each kernel position stands for itself
_RIDGE = 0.1  # that of reconstruction
_BLOCKS = 16  # in which a tied set goes; the last one stays


@criterion("compensated_error", needs_batches=True, per_mac=1.0)
def compensated_error(graph, model: nn.Module, inputs: Inputs) -> np.ndarray:
    """Error that removal causes in the consuming layers after least squares over the inputs that are left.

    As `output_error`, but channels go one block after another, the cheapest per MAC saved first, and after each the
    layers behind are re-solved: Optimal Brain Surgeon (Hassibi & Stork, 1992) on each layer's output, with the
    covariance of the patches that it sees. What makes up for a lost channel becomes dearer, so no set of channels that
    say the same goes as a whole, and outputs that are gone count no more.
    """
    sampler = _Sampler(max(1, _POSITIONS // len(inputs.batches)), inputs.seed)
    consumers = list(observed(graph, model, inputs, sampler.see))
    produced = {s.parameter: graph.components_of(s) for s in graph.slices if s.dim == 0}
    names = {id(t): name for name, t in graph.parameters(model).items()}
    layers, fixed, met = [], np.zeros(graph.n_components), np.zeros(graph.n_components, bool)
    for consumer in consumers:
        met[consumer.consumed] = True
        if consumer.name in sampler.seen:
            rows = produced.get(names[id(consumer.module.weight)])
            layers.append(_Layer(consumer, sampler.seen[consumer.name], rows))
        else:  # transposed or in groups: each input for itself
            errors = consumer.moments.errors(consumer.centred)
            each = np.broadcast_to(consumer.consumed, (len(errors) // len(consumer.consumed), len(consumer.consumed)))
            np.add.at(fixed, each.ravel(), errors)
    savings = np.maximum(graph.cost.savings(), 1.0)
    scores = _removed_in_turn(graph, layers, fixed, savings, met) * savings
    scores[~met] = scores.max(initial=1.0) * savings[~met]
    return scores


def _removed_in_turn(
    graph, layers: list[_Layer], fixed: np.ndarray, savings: np.ndarray, met: np.ndarray
) -> np.ndarray:
    """Error per MAC saved at which each component goes, never falling from one block to the next."""
    behind: dict[int, list[_Layer]] = {}
    for layer in layers:
        for component in np.unique(np.concatenate([layer.consumed, layer.produced])):
            behind.setdefault(int(component), []).append(layer)

    def costs() -> np.ndarray:
        found = fixed.copy()
        for layer in layers:
            np.add.at(found, layer.consumed, layer.costs)
        return found

    levels, gone, level, cost = np.full(graph.n_components, np.nan), np.zeros(graph.n_components, bool), 0.0, costs()
    sets = [parts for parts in _tied_sets(graph) if met[np.concatenate(parts)].all()]
    while sets:
        best = None
        for number, parts in enumerate(sets):
            size = max(1, len(parts[0]) // _BLOCKS)
            left = [part[~gone[part]] for part in parts]
            block = np.concatenate([part[np.argsort(cost[part], kind="stable")[:size]] for part in left])
            price = cost[block].mean() / savings[block].mean()
            if best is None or price < best[0]:
                best = price, number, block, len(left[0]) - size <= size
        price, number, block, last = best
        level = max(level, price)
        levels[block], gone[block] = level, True
        if last:
            sets.pop(number)
        touched = {id(layer): layer for component in block for layer in behind.get(int(component), ())}
        going = np.zeros(graph.n_components, bool)
        going[block] = True
        for layer in touched.values():
            layer.remove(going)
        cost = costs()
    stays = np.isnan(levels)
    levels[stays] = (level or 1.0) * (2 + cost[stays] / cost[stays].max(initial=1e-300))
    return levels


def _tied_sets(graph) -> Iterator[list[np.ndarray]]:
    """The parts of each tied set that has more than one channel; they lose channels in step."""
    for number in np.unique(graph.tied[graph.tied[:, 0] >= 0, 0]):
        members = np.flatnonzero(graph.tied[:, 0] == number)
        kinds = graph.tied[members, 1]
        parts = [members[kinds == kind] for kind in np.unique(kinds)]
        if len(parts[0]) > 1:
            yield parts


class _Sampler:
    """Covariances of what layers see at some of their output positions, around the mean."""

    def __init__(self, positions: int, seed: int) -> None:
        self._positions = positions
        self._generator = torch.Generator().manual_seed(seed)
        self.seen: dict[str, _Covariance] = {}

    @torch.no_grad()
    def see(self, name: str, module: nn.Module, x: Tensor, y: Tensor) -> None:
        """A call of a layer."""
        if isinstance(module, ConvTransposeNd) or groups_of(module) != 1:
            return
        linear = isinstance(module, nn.Linear)
        total = y.numel() // y.shape[-1 if linear else y.dim() - 1 - len(module.kernel_size)]
        if total > self._positions:
            chosen = torch.randperm(total, generator=self._generator)[: self._positions].to(y.device)
        else:
            chosen = torch.arange(total, device=y.device)
        seen = patches(module, x, chosen)[:, 0].float()
        if seen.shape[1] > _LARGEST:
            seen = seen.unflatten(1, (module.weight.shape[1], -1)).transpose(1, 2).flatten(0, 1)
        self.seen.setdefault(name, _Covariance(seen)).add(seen)


class _Covariance:
    def __init__(self, x: Tensor) -> None:
        self._origin = x.mean(0)  # large means do not eat the digits
        self._count, self._sum, self._products = 0, 0.0, 0.0

    def add(self, x: Tensor) -> None:
        x = x - self._origin
        self._count += len(x)
        self._sum = self._sum + x.sum(0, dtype=torch.float64)
        self._products = self._products + (x.T @ x).double()

    def matrix(self, centred: bool) -> Tensor:
        """float64 (inputs, inputs)."""
        mean = self._sum / self._count
        found = self._products / self._count - torch.outer(mean, mean)
        if not centred:
            mean = mean + self._origin
            found = found + torch.outer(mean, mean)
        return found


class _Layer:
    """A layer whose inputs go and whose weights are re-solved after each.

    Attributes:
        consumed: Component of each input channel, int (inputs,).
        produced: Component of each output, int (outputs,); empty where they cannot go.
        costs: Error that the removal of each input channel would cause now, float64 (inputs,); 0 for those gone.
    """

    def __init__(self, consumer: Consumer, covariance: _Covariance, produced: np.ndarray | None) -> None:
        self.consumed = consumer.consumed
        self.produced = np.zeros(0, np.int64) if produced is None else produced
        matrix = covariance.matrix(consumer.centred)
        weight = consumer.module.weight.detach().double()
        weight = weight.reshape(*weight.shape[:2], -1).to(matrix.device)  # (outputs, inputs, kernel)
        weight = weight * consumer.moments.shares().to(matrix.device).sqrt().reshape(-1, 1, 1)
        inputs, kernel = weight.shape[1:]
        if len(matrix) == inputs:  # each kernel position for itself, as if it were an output of its own
            weight = weight.transpose(1, 2)
            self._rows, self._kernel = kernel, 1
        else:
            self._rows, self._kernel = 1, kernel
        self._weight = weight.reshape(-1, len(matrix)).clone()
        damping = _RIDGE * matrix.diagonal().mean() + 1e-12
        self._inverse = torch.linalg.inv(matrix + damping * torch.eye(len(matrix)).to(matrix))
        self._here = np.ones(inputs, bool)
        self._reckon()

    def remove(self, components: np.ndarray) -> None:
        """Let the inputs and outputs of these components, bool (components,), go and re-solve the rest."""
        going = np.flatnonzero(components[self.consumed] & self._here)
        if len(going):
            at = torch.as_tensor((going[:, None] * self._kernel + np.arange(self._kernel)).ravel())
            at = at.to(self._inverse.device)
            columns = self._inverse[:, at]
            ratio = torch.linalg.solve(columns[at], columns.T)
            self._weight -= self._weight[:, at] @ ratio
            self._inverse -= columns @ ratio
            self._here[going] = False
        lost = np.flatnonzero(components[self.produced])
        if len(lost):
            rows = (lost[:, None] * self._rows + np.arange(self._rows)).ravel()
            self._weight[torch.as_tensor(rows).to(self._weight.device)] = 0
        self._reckon()

    def _reckon(self) -> None:
        """tr(W_c (H⁻¹_cc)⁻¹ W_cᵀ) for each input channel c that is left, H being the damped covariance."""
        self.costs = np.zeros(len(self._here))
        left, kernel = np.flatnonzero(self._here), self._kernel
        at = torch.as_tensor(left).to(self._inverse.device)
        blocks = self._inverse.view(len(self._here), kernel, -1, kernel)[at, :, at]
        weight = self._weight.view(-1, len(self._here), kernel)[:, at]
        energy = torch.einsum("onj,onk->njk", weight, weight)
        found = torch.linalg.solve(blocks, energy).diagonal(dim1=1, dim2=2).sum(1)
        self.costs[left] = found.clamp_min(0).cpu().numpy()
