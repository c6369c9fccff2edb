"""Scores that mean again what they meant: an affine map of class logits, fitted to the original's without labels.

Least squares shrinks rare, strong outputs towards the mean, and most of what a class layer puts out is background. So a
reconstructed detector ranks its boxes well and is sure of none: at the confidence that users choose it sees little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..calibration import collect
from ..errors import UserError
from ..exclusive import exclusive
from ..execution import evaluation, forward, full_precision

__all__ = ["ScoreFit", "calibrate_scores"]

_BINS = 8192
_LOWEST, _HIGHEST = -40.0, 40.0  # logits: beyond them a score is 0 or 1 in float32
_STEPS = 50  # of Newton's method, which takes about five
_SCALES = (0.2, 5.0)  # what a factor may be; beyond it the two networks do not score the same things


class ScoreFit(NamedTuple):
    """The affine map that one class layer's logits were given.

    Attributes:
        name: Module name.
        scale: What logits were multiplied by.
        shift: What was added to them.
        before: Cross-entropy towards the original's scores, in excess of their own entropy, before; per logit.
        after: The same after.
    """

    name: str
    scale: float
    shift: float
    before: float
    after: float


@exclusive
def calibrate_scores(
    pruned: nn.Module,
    original: nn.Module,
    layers: Sequence[str],
    batches: Iterable[Any],
    *,
    softmax: bool = False,
    in_order: bool = True,
    rows: Sequence[int] | None = None,
) -> list[ScoreFit]:
    """Fit the class logits of a pruned network to the scores of the original by an affine map for each class layer.

    z -> a z + b minimises the binary cross-entropy towards the original's scores over all positions and classes
    (Platt scaling, Platt 1999, with the original's scores in the place of labels), or z -> a z the cross-entropy of a
    softmax (temperature scaling, Guo et al., ICML 2017). It is folded into the layer; ranks within a layer stay.

    Args:
        pruned: The pruned network; the layers' weights and biases are changed in place.
        original: The network before pruning, whose layers of the same names have the same outputs; unchanged.
        layers: Names of convolutions or linear layers that put out class logits, or of contrastive layers, with the
            parameters `logit_scale`, which is exponentiated, and `bias`.
        batches: Calibration batches without labels, as `yoloprune.recovery.reconstruct` takes them.
        softmax: Whether a softmax over the last dimension makes scores of the logits, and not a sigmoid.
        rows: Which output channels of the layers are logits to fit, where others are something else and stay as they
            are; None for all.
        in_order: Whether a position of the one network's output is that of the other's. Where it is not, as for the
            queries of a decoder, the logits of each batch are paired by rank.

    Returns:
        The map of each layer. A layer that is not called, or for which there is no map that helps, keeps its weights.

    Raises:
        UserError: If there are no batches, or a layer's outputs differ in shape between the networks.
    """
    given = collect(batches, "Calibration of scores")
    pairs = {name: (original.get_submodule(name), pruned.get_submodule(name)) for name in layers}
    wanted: dict[str, list[Tensor]] = {name: [] for name in layers}
    seen: dict[str, _Sigmoid | _Softmax] = {name: _Softmax() if softmax else _Sigmoid() for name in layers}

    def chosen(out: Tensor) -> Tensor:
        return out if rows is None else out[:, list(rows)]

    def compare(name: str, logits: Tensor) -> None:
        target = wanted[name].pop(0) if wanted[name] else None
        if target is None or target.shape != logits.shape:
            raise UserError(f"Layer {name!r} of the pruned network does not put out what it does in the original.")
        if in_order:
            seen[name].add(logits.float(), target)
        else:
            seen[name].add(logits.float().flatten().sort()[0], target.flatten().sort()[0])

    handles = []
    for name, (large, small) in pairs.items():
        handles.append(
            large.register_forward_hook(_hook(lambda out, name=name: wanted[name].append(chosen(out).float())))
        )
        handles.append(small.register_forward_hook(_hook(lambda out, name=name: compare(name, chosen(out)))))
    try:
        with evaluation(pruned, original), full_precision(), torch.no_grad():
            for batch in given:
                forward(original, batch)
                forward(pruned, batch)
    finally:
        for handle in handles:
            handle.remove()
    fits = []
    for name, (_, layer) in pairs.items():
        a, b, before, after = _least(seen[name])
        _fold(layer, a, b, slice(None) if rows is None else list(rows))
        fits.append(ScoreFit(name, a, b, before, after))
    return fits


def _hook(function: Callable[[Tensor], None]) -> Callable[[nn.Module, Any, Tensor], None]:
    def hook(module: nn.Module, args: Any, out: Tensor) -> None:
        function(out.detach())

    return hook


@torch.no_grad()
def _fold(layer: nn.Module, scale: float, shift: float, rows: slice | list[int]) -> None:
    if hasattr(layer, "logit_scale"):
        layer.logit_scale.add_(torch.tensor(scale).log().to(layer.logit_scale))
    else:
        layer.weight[rows] *= scale
    if layer.bias is not None:
        layer.bias[rows] = layer.bias[rows] * scale + shift


def _least(entropy: _Sigmoid | _Softmax) -> tuple[float, float, float, float]:
    """Scale and shift of the least cross-entropy, by Newton's method with halved steps, and it before and after."""
    at = torch.tensor([1.0, 0.0], dtype=torch.float64)
    if not entropy.count:
        return 1.0, 0.0, 0.0, 0.0
    before = value = entropy(at)[0]
    for _ in range(_STEPS):
        _, gradient, hessian = entropy(at)
        try:
            step = torch.linalg.solve(hessian, gradient)
        except torch.linalg.LinAlgError:  # all logits are alike: nothing can be told
            break
        while float(step.abs().max()) > 1e-6 and not entropy(at - step)[0] <= value:
            step = step / 2
        if not float(step.abs().max()) > 1e-6:
            break
        at = at - step
        value = entropy(at)[0]
    if not (_SCALES[0] <= float(at[0]) <= _SCALES[1] and value < before):
        return 1.0, 0.0, before, before
    return float(at[0]), float(at[1]), before, value


class _Sigmoid:
    """Binary cross-entropy of mapped logits: all that it takes is a histogram of the logits and two sums."""

    def __init__(self) -> None:
        self.count = 0
        self._bins = torch.zeros(2, _BINS, dtype=torch.float64)  # how many logits, and their sum
        self._target = self._product = self._own = 0.0

    def add(self, z: Tensor, target: Tensor) -> None:
        """Logits and the original's, of one shape."""
        z, p = z.flatten().double(), target.flatten().double().sigmoid()
        bins = ((z - _LOWEST) * (_BINS / (_HIGHEST - _LOWEST))).long().clamp_(0, _BINS - 1)
        self._bins[0] += torch.bincount(bins, minlength=_BINS).cpu()
        self._bins[1] += torch.bincount(bins, weights=z, minlength=_BINS).cpu()
        self._target += float(p.sum())
        self._product += float((p * z).sum())
        self._own += float(F.binary_cross_entropy(p, p, reduction="sum"))
        self.count += len(z)

    def __call__(self, at: Tensor) -> tuple[float, Tensor, Tensor]:
        """Value, gradient (2,) and Hessian (2, 2) at (scale, shift)."""
        n, total = self._bins[:, self._bins[0] > 0]
        z = total / n
        x = torch.stack([z, torch.ones_like(z)])
        y = at @ x
        sums = torch.tensor([self._product, self._target], dtype=torch.float64)
        p = y.sigmoid()
        value = float((n * F.softplus(y)).sum() - at @ sums) - self._own
        return value / self.count, (x @ (n * p) - sums) / self.count, (x * (n * p * (1 - p))) @ x.T / self.count


class _Softmax:
    """Cross-entropy of a softmax of scaled logits; a shift changes nothing."""

    def __init__(self) -> None:
        self.count = 0
        self._z: list[Tensor] = []
        self._p: list[Tensor] = []

    def add(self, z: Tensor, target: Tensor) -> None:
        """Logits and the original's, (..., classes) each."""
        self._z.append(z.double().cpu().flatten(0, -2))
        self._p.append(target.double().cpu().flatten(0, -2).softmax(-1))
        self.count += len(self._z[-1])

    def __call__(self, at: Tensor) -> tuple[float, Tensor, Tensor]:
        """Value, gradient (2,) and Hessian (2, 2) at (scale, shift)."""
        z, p = torch.cat(self._z), torch.cat(self._p)
        q = (at[0] * z).softmax(-1)
        value = F.kl_div((at[0] * z).log_softmax(-1), p, reduction="batchmean")
        mean = (q * z).sum(-1)
        first = (mean - (p * z).sum(-1)).mean()
        second = ((q * z.square()).sum(-1) - mean.square()).mean()
        one = torch.ones((), dtype=torch.float64)
        return float(value), torch.stack([first, 0 * one]), torch.diag(torch.stack([second, one]))
