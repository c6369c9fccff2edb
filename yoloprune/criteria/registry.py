"""The table of criteria and the one function that scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..errors import UserError
from ..exclusive import exclusive
from ..execution import full_precision
from .relative import relative as relative_score

__all__ = ["CRITERIA", "Criterion", "Inputs", "criterion", "score"]


@dataclass(frozen=True)
class Inputs:
    """What a criterion may need beside graph and model.

    Attributes:
        batches: Calibration batches; a sequence that can be gone over more than once.
        loss: `loss(model, batch)` gives a scalar tensor.
        seed: Seed of the criteria that draw random numbers.
        influence: How much a layer's effect on the loss counts, in `output_error`.
        tell: Is told after each batch how many are done, and of how many.
    """

    batches: tuple[Any, ...] = ()
    loss: Callable[[nn.Module, Any], Tensor] | None = None
    seed: int = 0
    influence: float = 0.25
    tell: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True)
class Criterion:
    """One way to score.

    Attributes:
        name: What `score(criterion=...)` is called with.
        doc: One paragraph on what it measures, with its source.
        function: Maps (graph, model, inputs) to float64 scores (n_components,), higher = keep.
        needs_batches: Calibration batches must be given.
        needs_loss: A loss function must be given.
        relative: By default each score is divided by its group's typical score (see `relative`).
        per_mac: Power of the MACs that the channel's removal saves, by which its score is divided by default.
    """

    name: str
    doc: str
    function: Callable[[Any, nn.Module, Inputs], np.ndarray]
    needs_batches: bool
    needs_loss: bool
    relative: bool
    per_mac: float


CRITERIA: dict[str, Criterion] = {}


def criterion(
    name: str, *, needs_batches: bool = False, needs_loss: bool = False, relative: bool = False, per_mac: float = 0.0
) -> Callable[[Callable], Callable]:
    """Enter the decorated function in `CRITERIA` under `name`; its docstring becomes the entry's `doc`."""

    def register(function: Callable) -> Callable:
        doc = " ".join((function.__doc__ or "").split())
        CRITERIA[name] = Criterion(name, doc, function, needs_batches, needs_loss, relative, per_mac)
        return function

    return register


@exclusive
def score(
    graph,
    model: nn.Module,
    criterion: str = "l2",
    *,
    batches: Iterable[Any] | None = None,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    relative: bool | None = None,
    per_mac: float | None = None,
    seed: int = 0,
    influence: float = Inputs.influence,
    tell: Callable[[int, int], None] = Inputs.tell,
) -> np.ndarray:
    """Score every component of the graph; the model is left as it was.

    Args:
        graph: What `yoloprune.graph.trace` returned for this model.
        model: The network.
        criterion: A name in `CRITERIA`.
        batches: Calibration batches, for the criteria that look at data. Criteria with a loss hand them to it as they
            are; the others call `model(batch)`, or `model(*batch)` for a tuple or list.
        loss: For the gradient criteria, and if wanted for `output_error`: `loss(model, batch)` returns a scalar tensor.
        relative: Whether scores are divided by the typical score of their group, so that one threshold suits all
            groups. By default what the criterion's entry says.
        per_mac: Power of the MACs that removal saves, by which scores are divided so that the budget is spent where it
            is cheap; 0 for none. By default what the criterion's entry says.
        seed: Seed for `random`.
        influence: For `output_error` with a loss: 0 asks only how much each layer's output changes, 1 only what that
            does to the loss if it stays small. The less is removed, the more of it is right.
        tell: For criteria that look at data: is told after each batch how many are done, and of how many.

    Returns:
        float64 array (n_components,), finite, higher = keep. Frozen components have some finite score without meaning.

    Raises:
        UserError: For an unknown criterion, missing batches or loss, or scores that are not finite.

    Examples:
        >>> scores = score(graph, model, "taylor", batches=loader, loss=lambda m, b: criterion(m(b[0]), b[1]))
    """
    entry = CRITERIA.get(criterion)
    if entry is None:
        raise UserError(f"Unknown criterion {criterion!r}; choose one of {', '.join(sorted(CRITERIA))}.")
    given = () if batches is None else tuple(batches)
    if entry.needs_batches and not given:
        raise UserError(f"Criterion {criterion!r} looks at data, but no batches were given; pass batches=[...].")
    if entry.needs_loss and loss is None:
        raise UserError(
            f"Criterion {criterion!r} needs gradients, but no loss was given; "
            "pass loss=function(model, batch) that returns a scalar tensor."
        )
    with full_precision():
        scores = entry.function(graph, model, Inputs(given, loss, seed, influence, tell))
    if not np.isfinite(scores).all():
        raise UserError(
            f"Criterion {criterion!r} gave {np.count_nonzero(~np.isfinite(scores))} scores that are not finite; "
            "check the weights for NaN or infinity."
        )
    if entry.relative if relative is None else relative:
        scores = relative_score(graph, scores)
    power = entry.per_mac if per_mac is None else per_mac
    if power:
        scores = scores / np.maximum(graph.cost.savings(), 1.0) ** power
    return scores
