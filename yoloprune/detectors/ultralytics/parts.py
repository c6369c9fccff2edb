"""Backbone, neck and head of an Ultralytics network."""

from __future__ import annotations

from torch import nn

from yoloprune.detectors.base import Part

from .stock_training import is_marked

__all__ = ["parts"]


def parts(model: nn.Module) -> list[Part]:
    """The parts that an Ultralytics task model has: its backbone and its neck, if its YAML tells, and its head.

    The YAML's "backbone" rows are the backbone, the last module is the head, the rest is the neck.
    """
    last = len(model.model) - 1
    rows = (getattr(model, "yaml", None) or {}).get("backbone")
    if rows is None:
        found = {"backbone and neck": range(last)}
    else:
        middle = min(len(rows) - is_marked(model), last)  # the mark is a row in front of the backbone's own
        found = {"backbone": range(middle), "neck": range(middle, last)}
    found["head"] = range(last, last + 1)
    return [Part(name, [f"model.{number}" for number in numbers]) for name, numbers in found.items() if numbers]
