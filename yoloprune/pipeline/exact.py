"""Whether pruning a model is what its graph says, on the model's own weights; if not, whose channels are to blame."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch

from yoloprune.detectors.base import Detector, tensors
from yoloprune.errors import UserError
from yoloprune.graph import Graph, Plan, mask_error

__all__ = ["EXACT", "check_exact", "plan_error"]

EXACT = 1e-6  # relative, in double precision, where a right plan leaves 1e-12


def check_exact(detector: Detector, graph: Graph, plan: Plan) -> float:
    """Check on the model's own weights that pruning by the plan is zeroing by it.

    Args:
        detector: The detector; it is not changed.
        graph: Its graph.
        plan: A plan for it.

    Returns:
        Largest relative difference of the predictions, on an image of noise and in double precision, in which a
        decoder that sorts by score sees no ties.

    Raises:
        UserError: The predictions differ, or the pruned network does not run. Names the layers whose channels may not
            go, where these can be told. Or the predictions of the model itself are not finite, or the same for every
            image.
    """
    error, raised = plan_error(detector, plan)
    if error < EXACT:
        return error
    if not _puts_out_numbers(detector):
        raise UserError(
            "The model puts out NaN or infinite values before anything is pruned; give a checkpoint from before its "
            "training diverged."
        )
    said = f"differs by {error:.1g} of the largest prediction from"
    if raised:
        said = f"does not run ({type(raised).__name__}: {raised}), unlike"
    layers = _layers_to_blame(detector, graph, plan)
    more = "so it cannot be pruned."
    if layers:
        more = f"namely with the channels of {', '.join(layers)}; keep these (--keep {','.join(layers)})."
    raise UserError(
        f"The pruned network {said} the original with the removed channels zeroed: some block of this model does "
        f"more with its widths than one execution shows, {more}"
    )


def plan_error(detector: Detector, plan: Plan) -> tuple[float, Exception | None]:
    """What `check_exact` looks at: the largest difference; infinite, with what was raised, if that failed."""
    double = copy.deepcopy(detector.network).double()
    try:
        return mask_error(double, plan, detector.noise().double(), select=detector.predictions), None
    except UserError as e:
        raise UserError(
            "The model predicts the same for every image, so nothing can be told of its channels; give a checkpoint of "
            "a training that worked."
        ) from e
    except Exception as e:  # a block with sizes of its own can raise anything
        return float("inf"), e


def _puts_out_numbers(detector: Detector) -> bool:
    double = copy.deepcopy(detector.network).double().eval()
    with torch.no_grad():
        outputs = detector.predictions(double(detector.noise().double()))
    return all(output.isfinite().all() for output in tensors(outputs))


def _layers_to_blame(detector: Detector, graph: Graph, plan: Plan) -> list[str]:
    """A layer of each tied set that alone makes the networks differ; none where only several together do."""
    removed = np.zeros(graph.n_components, bool)
    for s in graph.slices:
        kept = plan.keep.get(s.parameter, {}).get(s.dim)
        if kept is not None:
            removed[np.delete(graph.components_of(s), kept)] = True

    def differ(sets: Sequence[int]) -> bool:
        part = graph.plan(removed & np.isin(graph.tied[:, 0], sets))
        return not plan_error(detector, part)[0] < EXACT

    found = set(_alone(np.unique(graph.tied[removed, 0]).tolist(), differ))
    names: dict[int, str] = {}
    for group in graph.groups:
        names.setdefault(int(graph.tied[group.components[0], 0]), group.name.rpartition(".")[0])
    return [name for number, name in names.items() if number in found]


def _alone(parts: Sequence[int], fails: Callable[[Sequence[int]], bool]) -> list[int]:
    """Those of the parts, which fail together, that fail by themselves, found by halving."""
    if len(parts) == 1:
        return list(parts)
    middle = len(parts) // 2
    return [part for half in (parts[:middle], parts[middle:]) if fails(half) for part in _alone(half, fails)]
