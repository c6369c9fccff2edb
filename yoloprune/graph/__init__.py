"""DepGraph from one execution: coupled parameters of any network, and removing them together.

    graph = trace(model, example_inputs)
    plan = graph.random_plan(ratio=0.5, seed=0)
    smaller = plan.apply(model)

`attribute_handler` tells the graph of sizes that modules of one's own keep, `rule` what operators of one's own do.
"""

from __future__ import annotations

from yoloprune.graph.attributes import attribute_handler
from yoloprune.graph.core import Graph, Group, trace
from yoloprune.graph.exactness import mask_error
from yoloprune.graph.labels import Labels
from yoloprune.graph.matrices import Matrix
from yoloprune.graph.plan import Plan
from yoloprune.graph.rules import Call, rule

__all__ = ["Call", "Graph", "Group", "Labels", "Matrix", "Plan", "attribute_handler", "mask_error", "rule", "trace"]
