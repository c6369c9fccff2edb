"""One-pass reconstruction: re-solve every layer of a pruned network towards the original's outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from yoloprune.graph.tracing.internals import BatchNorm, ConvNd

from ..calibration import call_order, collect, contractions, groups_of, patches
from ..errors import UserError
from ..exclusive import exclusive
from ..execution import evaluation, forward, full_precision
from ..graph import Plan
from .activated import Activated, fit_activated
from .lockstep import Walk, pause
from .memory import bytes_held
from .moments import Moments

__all__ = ["LayerFit", "Reconstruction", "reconstruct"]


class LayerFit(NamedTuple):
    """How well one layer was re-solved.

    Attributes:
        name: Module name.
        error: Mean squared error towards the original outputs, relative to their variance.
        samples: Output positions that were used.
    """

    name: str
    error: float
    samples: int


@dataclass
class Reconstruction:
    """What `reconstruct` did.

    Attributes:
        layers: One entry per re-solved layer, in order of execution.
        skipped: Convolutions and linear layers that kept their sliced weights: transposed, called several times,
            sharing their weight, not called at all, or of a class that was to be skipped.
        batches: How many of the calibration batches were used.
        seconds: Wall time.
    """

    layers: list[LayerFit] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    batches: int = 0
    seconds: float = 0.0


@exclusive
def reconstruct(
    pruned: nn.Module,
    original: nn.Module,
    plan: Plan,
    batches: Iterable[Any],
    *,
    ridge: float = 0.1,
    positions: int = 40_000,
    steps: int = 10,
    skip: Sequence[type[nn.Module]] = (),
    memory: float = 8e9,
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Reconstruction:
    """Re-solve the layers of a pruned network, in place, so that it computes again what the original computed.

    All calibration batches walk through the original and the pruned network side by side. When they reach a
    convolution or a linear layer, its weights are solved by ridge least squares from its real inputs, which already
    come from re-solved layers, to the original layer's outputs at the kept channels; the mean of what is left goes
    into the bias, or into the running mean of the batch norm that follows. Where an activation follows, the fit goes on
    behind it, see `fit_activated`. So errors do not pile up, and later layers compensate for earlier ones. (Layer-wise
    least squares as in He et al., Channel Pruning, ICCV 2017, and ThiNet, Luo et al., ICCV 2017, with the asymmetric
    inputs of Zhang et al., TPAMI 2016, in a single pass.)

    In memory are the activations of all batches at one depth of both networks, which `memory` bounds, and one layer's
    samples and second moments.

    Args:
        pruned: `plan.apply(original)`; its weights and batch norm means are changed.
        original: The network before pruning; unchanged.
        plan: The plan that leads from one to the other.
        batches: Calibration batches without labels; about 100 images are enough.
        ridge: Pull towards the present weights, relative to the mean variance of a layer's inputs.
        positions: At most so many output positions per layer are used, drawn evenly over the batches.
        steps: Steps of the fit behind the activation; 0 for least squares alone.
        skip: Module classes whose layers compute a fixed function and must stay as they are.
        memory: Bytes that activations may take. Where not all batches fit, evenly spaced ones are used, at least one.
        seed: Seed of that draw.
        tell: Is told after each layer how many are done, and of how many.

    Returns:
        What was solved and how well.

    Raises:
        UserError: If there are no batches, or `pruned` is not what the plan makes of `original`.
    """
    started = time.perf_counter()
    given = collect(batches, "Reconstruction")
    solver = _Solver(pruned, original, plan, ridge, positions, steps, tuple(skip), seed)
    with evaluation(pruned, original), full_precision():
        each = bytes_held(lambda: forward(original, given[0]), solver.large.values())
        solver.run(_fitting(given, memory, each), tell)
    solver.report.seconds = time.perf_counter() - started
    return solver.report


def _fitting(batches: tuple[Any, ...], memory: float, each: int) -> tuple[Any, ...]:
    """As many evenly spaced batches as can wait in both networks side by side, at `each` bytes per network."""
    count = max(1, min(len(batches), int(memory / (2 * max(each, 1)))))
    return tuple(batches[i * len(batches) // count] for i in range(count))


class _Solver:
    def __init__(self, pruned: nn.Module, original: nn.Module, plan: Plan, ridge: float, positions: int,
                 steps: int, skip: tuple[type[nn.Module], ...], seed: int) -> None:  # fmt: skip
        self.pruned, self.original = pruned, original
        self.ridge, self.positions, self.steps = ridge, positions, steps
        self.generator = torch.Generator().manual_seed(seed)
        self.report = Reconstruction()
        fixed = {id(part) for module in original.modules() if isinstance(module, skip) for part in module.modules()}
        self.large = {name: m for name, m in contractions(original).items() if id(m) not in fixed}
        self.small = contractions(pruned)
        self.kept = {name: plan.keep.get(f"{name}.weight", {}).get(0) for name in self.large}
        for name, module in self.large.items():
            rows = module.weight.shape[0] if self.kept[name] is None else len(self.kept[name])
            if name not in self.small or self.small[name].weight.shape[0] != rows:
                raise UserError(f"Layer {name!r} of the pruned network is not what the plan makes of the original.")

    def run(self, batches: tuple[Any, ...], tell: Callable[[int, int], None]) -> None:
        self.report.batches = len(batches)
        names, norms, activations = call_order(self.original, self.large, lambda: forward(self.original, batches[0]))
        everything = [n for n, m in self.original.named_modules() if isinstance(m, (ConvNd, nn.Linear))]
        self.report.skipped = [name for name in everything if name not in names]
        norms = {name: self.pruned.get_submodule(norm) for name, norm in norms.items()}
        handles = [
            self.large[name].register_forward_hook(lambda m, args, out, name=name: pause((name, out))) for name in names
        ] + [
            self.small[name].register_forward_pre_hook(lambda m, args, name=name: pause((name, args[0])))
            for name in names
        ]
        targets = [Walk(lambda b=b: forward(self.original, b)) for b in batches]
        walks = [Walk(lambda b=b: forward(self.pruned, b)) for b in batches]
        try:
            for name in names:
                moments, samples = None, []
                for number, (target, walk) in enumerate(zip(targets, walks, strict=True)):
                    (name_y, y), (name_x, x) = target.step() or ("", None), walk.step() or ("", None)
                    if not name_y == name_x == name:
                        raise UserError(
                            f"Calibration batch {number} runs through the layers in another order than batch 0 "
                            f"(at {name!r}); reconstruction needs a fixed order."
                        )
                    xs, ys, weight = self._samples(name, x, y, len(batches))
                    if moments is None:
                        intercept = self.small[name].bias is not None or name in norms
                        moments = Moments(xs, ys, intercept)
                    moments.add(xs, ys, weight)
                    samples.append((xs, ys, torch.full((len(xs),), weight, device=xs.device)))
                norm = norms.get(name)
                before = norm.running_mean.clone() if norm is not None else None
                error = self._solve(name, moments, norm)
                if name in activations and moments.intercept and self.steps and groups_of(self.small[name]) == 1:
                    self._go_on(name, samples, activations[name], norm, before)
                self.report.layers.append(LayerFit(name, error, sum(len(xs) for xs, _, _ in samples)))
                tell(len(self.report.layers), len(names))
            for walk in targets + walks:
                walk.step()
        finally:
            for handle in handles:
                handle.remove()
            for walk in targets + walks:
                walk.close()

    def _samples(self, name: str, x: Tensor, y: Tensor, batches: int) -> tuple[Tensor, Tensor, float]:
        """Inputs and wanted outputs of a layer at some positions, and for how many positions each stands."""
        module = self.small[name]
        if not isinstance(module, nn.Linear):
            channel = 1 if y.dim() == len(module.kernel_size) + 2 else 0
            y = y.movedim(channel, -1)
        y = y.reshape(-1, y.shape[-1])
        total, wanted = len(y), max(1, self.positions // batches)
        if total > wanted:
            chosen = torch.randperm(total, generator=self.generator, device="cpu")[:wanted].to(y.device)
        else:
            chosen = torch.arange(total, device=y.device)
        ys = y[chosen].float()
        if self.kept[name] is not None:
            ys = ys[:, torch.as_tensor(self.kept[name], device=y.device)]
        xs = patches(module, x, chosen).float()
        return xs, ys.reshape(len(chosen), groups_of(module), -1), total / len(chosen)

    def _solve(self, name: str, moments: Moments, norm: BatchNorm | None) -> float:
        module = self.small[name]
        shape, groups = module.weight.shape, groups_of(module)
        weight, shift, error = moments.solve(module.weight.detach().reshape(groups, shape[0] // groups, -1), self.ridge)
        with torch.no_grad():
            module.weight.copy_(weight.reshape(shape))
            if module.bias is not None:
                module.bias.copy_(shift.reshape(-1))
            elif norm is not None:
                norm.running_mean.sub_(shift.reshape(-1).to(norm.running_mean.dtype))
        return error

    @torch.no_grad()
    def _go_on(self, name: str, samples: list[tuple[Tensor, Tensor, Tensor]], activation: nn.Module,
               norm: BatchNorm | None, before: Tensor | None) -> None:  # fmt: skip
        """Fit a layer behind its activation; `before` is the batch norm's running mean before the layer was solved."""
        module = self.small[name]
        x, y, counts = (torch.cat(parts) for parts in zip(*samples, strict=True))
        one = torch.ones(y.shape[-1], device=y.device)
        if norm is None or before is None:
            shift = module.bias.float()
            behind = Activated(activation, one, 0 * one)
        else:
            scale = torch.rsqrt(norm.running_var.float() + norm.eps) * (norm.weight.float() if norm.affine else one)
            offset = (norm.bias.float() if norm.affine else 0 * one) - before.float() * scale
            shift = module.bias.float() if module.bias is not None else (before - norm.running_mean).float()
            behind = Activated(activation, scale, offset)
        weight, shift = fit_activated(
            x[:, 0],
            y[:, 0],
            counts,
            module.weight.flatten(1).float(),
            shift,
            behind,
            ridge=self.ridge,
            steps=self.steps,
        )
        module.weight.copy_(weight.reshape(module.weight.shape))
        if module.bias is not None:
            module.bias.copy_(shift)
        elif norm is not None and before is not None:
            norm.running_mean.copy_(before - shift)
