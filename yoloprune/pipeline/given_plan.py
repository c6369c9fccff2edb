"""A plan from a file, in place of one that a ranking makes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from yoloprune.detectors.base import Detector
from yoloprune.errors import UserError
from yoloprune.files import readable
from yoloprune.graph import Plan
from yoloprune.resources import resource

from .exact import EXACT, plan_error
from .state import fingerprint

__all__ = ["GivenPlan", "read_plan"]

_REMEDY = "give the plan.json of a run, and the weights that it was made for"


class GivenPlan(NamedTuple):
    """A plan that fits a network.

    Attributes:
        plan: The plan.
        gflops: GFLOPs at 640 px that it leaves.
        note: What it was made for, in a sentence.
    """

    plan: Plan
    gflops: float
    note: str


def read_plan(path: str, detector: Detector) -> GivenPlan:
    """Read a plan and check that it fits.

    Args:
        path: The file, or the name of one in cfg/plans.
        detector: The detector that it is for; left as it is.

    Raises:
        UserError: There is no such plan, or it does not fit this network: other names or shapes, indices that are not
            there, or coupled slices of which it takes some and leaves others.
    """
    published = {file.stem: file for file in resource("cfg", "plans").glob("*.json")}
    file = published.get(path) or Path(path)
    if not file.is_file():
        raise UserError(f"There is no plan '{path}'; {_REMEDY}, or one of {', '.join(sorted(published))}.")
    with readable(file, _REMEDY):
        plan = Plan.load(file)
    error, raised = plan_error(detector, plan)
    if not error < EXACT:
        why = str(raised) if raised else "what it removes is coupled with what it leaves"
        raise UserError(f"The plan '{path}' does not fit this network: {why}; {_REMEDY}.") from raised
    pruned = detector.holding(plan.apply(detector.network))
    if pruned.params == detector.params:
        raise UserError(f"The plan '{path}' removes nothing; {_REMEDY}.")
    own = fingerprint(detector.network)
    note = f"Channels go by the plan {file.name}, nothing is ranked"
    if plan.weights is None:
        note += "; it does not say for which weights it was made."
    elif plan.weights == own:
        note += "; it was made for these weights."
    else:
        note += f"; it was made for other weights ({plan.weights}, not {own}), where other channels may matter."
    return GivenPlan(plan, pruned.gflops(), note)
