"""Milliseconds of a network on a device as a function of what is kept: the cost by which a plan is searched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from yoloprune.graph import Graph, Plan

from .cost_table import Convolution, CostTable

__all__ = ["LatencyModel"]


class LatencyModel:
    """The sum of what the convolutions cost, and a rest that stays: what no convolution is, and what the sum misses.

    (Additive models of measured operators: Cai et al., ProxylessNAS, ICLR 2019, Sec. 3.2; Yang et al., NetAdapt,
    ECCV 2018, Sec. 3.3.)

    Args:
        graph: The graph of the network.
        convolutions: Its convolutions, by the names that the graph knows; others keep their widths.
        table: What they cost.

    Attributes:
        rest: Milliseconds beside the convolutions; set it so that the sum is what was measured.

    Raises:
        UserError: The table lacks a shape.
    """

    def __init__(self, graph: Graph, convolutions: Sequence[Convolution], table: CostTable) -> None:
        self._convolutions, self._table = list(convolutions), table
        self.rest = 0.0
        self._n_components = graph.n_components
        components = {(s.parameter, s.dim): graph.components_of(s) for s in graph.slices}
        self._of: list[tuple[np.ndarray | None, np.ndarray | None]] = []  # of inputs and outputs of each convolution
        for conv in self._convolutions:
            table.ms(conv.shape, conv.inputs, conv.outputs)
            outputs, inputs = (components.get((f"{conv.name}.weight", dim)) for dim in (0, 1))
            self._of.append((outputs if conv.shape.groups == 0 else inputs, outputs))

    def __call__(self, kept: np.ndarray) -> float:
        """Milliseconds; `kept` is bool (n_components,)."""
        widths = []
        for conv, (inputs, outputs) in zip(self._convolutions, self._of, strict=True):
            i = conv.inputs if inputs is None else conv.inputs * np.count_nonzero(kept[inputs]) / len(inputs)
            widths.append((i, conv.outputs if outputs is None else np.count_nonzero(kept[outputs])))
        return self._sum(widths)

    def of_plan(self, plan: Plan) -> float:
        """Milliseconds of what a plan leaves."""
        widths = []
        for conv in self._convolutions:
            kept = plan.keep.get(f"{conv.name}.weight", {})
            i = len(kept[1]) * max(conv.shape.groups, 1) if 1 in kept else conv.inputs
            widths.append((i, len(kept[0]) if 0 in kept else conv.outputs))
        return self._sum(widths)

    def _sum(self, widths: Sequence[tuple[float, float]]) -> float:
        """Milliseconds for the inputs and outputs of each convolution."""
        pairs = zip(self._convolutions, widths, strict=True)
        return self.rest + sum(self._table.ms(conv.shape, *of) for conv, of in pairs)

    def fit(self, kept: np.ndarray, measured: float) -> None:
        """Set the rest so that what is kept takes as long as it was measured to."""
        self.rest += measured - self(kept)

    def savings(self) -> np.ndarray:
        """Milliseconds that each component's removal saves on average while all others stay, float64 (n_components,).

        The mean slope over the upper half of each layer's widths, as kernels cost in steps.
        """
        saved = np.zeros(self._n_components)
        for conv, (inputs, outputs) in zip(self._convolutions, self._of, strict=True):
            i, o = conv.inputs, conv.outputs
            whole = self._table.ms(conv.shape, i, o)
            if outputs is not None:
                np.add.at(saved, outputs, (whole - self._table.ms(conv.shape, i, o / 2)) / (o / 2))
            if inputs is not None and conv.shape.groups != 0:
                each = (whole - self._table.ms(conv.shape, i / 2, o)) / (i / 2) * i / len(inputs)
                np.add.at(saved, inputs, each)
        return saved
