"""Why channels stay, in the words of somebody who does not know the graph."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from ultralytics.nn.modules import DFL

from yoloprune.graph import Graph, Group

from .trace import ATTENTION, FIXED_HEADS

__all__ = ["why_it_stays"]

# why a head's last layers stay, as the graph says it
_PREDICTIONS = ("is given a fixed size", "reaches the model's output", "is weighed against", "is compared with")

# beginnings of the graph's reasons; the first that fits is taken
_PLAIN = {
    "reaches the model's output": "the model puts them out",
    "is tied to": "the code needs as many of them as of others, which stay",
    "passes through": "an operator is not understood, and what it touches stays",
    "is given a fixed size": "the code reshapes them to a size that is written in it",
    "is viewed at sizes": "the code reshapes them to a size that is written in it",
    "is cut at": "the code cuts them at places that are written in it",
    "is a piece of fixed size": "the code cuts them at places that are written in it",
    "is sliced": "the code cuts them at places that are written in it",
    "is read at": "the code picks some of them by their number",
    "is written at": "the code overwrites some of them by their number",
    "is partly written": "the code overwrites some of them by their number",
    "is copied into a part": "the code overwrites some of them by their number",
    "is read by the model's code": "the code decides something by their values",
    "has its width used as a number": "the code computes with how many they are",
    "is counted": "the code computes with how many they are",
    "has its number fixed by the groups": "a grouped layer needs a fixed number of them",
    "is compared with": "their values are compared with each other",
    "is weighed against": "a softmax or a norm weighs them against each other",
    "is not zero when": "they would still count if their weights were zero",
    "is used as an index": "they say where something is, not what it is",
    "decides places": "they say where something is, not what it is",
    "no layer produces": "no layer makes them",
    "meets": "they are combined with values that no layer makes",
    "is summed": "they are combined with values that no layer makes",
}


def why_it_stays(group: Group, graph: Graph, model: nn.Module, *, prune_head: bool) -> str:
    """One clause that says why the channels of a frozen group stay.

    Args:
        group: A frozen group of the graph.
        graph: The model's graph.
        model: An Ultralytics task model.
        prune_head: As the graph was made with.
    """
    modules = dict(model.named_modules())
    layer = group.name.rpartition(".")[0]
    head = model.model[-1]
    inside = _around(modules, layer)
    if not graph.produced[group.components[0]]:
        if any(isinstance(module, DFL) for module in inside):
            return "not learned: turns the bins of a box side into a distance"
        first = next((name for name, module in modules.items() if isinstance(module, nn.Conv2d)), "")
        return "the channels of the image" if layer == first else "no layer makes them: they are an input or a constant"
    if head in inside and isinstance(head, FIXED_HEADS):
        return "queries or text embeddings fix the widths of this kind of head"
    coupled = [m for parameter, dim in group.members if dim == 0 for m in _around(modules, parameter)]
    asked = group.reason == "is kept on request"
    if any(isinstance(module, ATTENTION) for module in (coupled if asked else inside)):
        return "attention divides them into heads of a fixed width"
    if asked:
        stays = head in coupled and not prune_head
        return "in the head, which is pruned with --prune-head only" if stays else "asked for by --keep"
    if head in inside and group.reason.startswith(_PREDICTIONS):
        return "the head's predictions: boxes, classes and the like"
    plain = next((text for start, text in _PLAIN.items() if group.reason.startswith(start)), None)
    return plain or f"the code fixes them ({group.reason})"


def _around(modules: Mapping[str, nn.Module], name: str) -> list[nn.Module]:
    """The modules that something of this name belongs to, from the outermost in."""
    parts = name.split(".")
    return [modules[path] for i in range(1, len(parts) + 1) if (path := ".".join(parts[:i])) in modules]
