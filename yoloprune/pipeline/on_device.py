"""How long the networks of a run take on the backend that they are for: measured as a whole, or by a table."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from yoloprune.deploy.backends import BACKENDS, Run, compiled, interleaved, opened
from yoloprune.deploy.cost_table import Convolution, CostTable, Device, cached, clock_of, convolutions, measure
from yoloprune.deploy.formats import suffix
from yoloprune.deploy.latency_model import LatencyModel
from yoloprune.detectors.base import Detector
from yoloprune.errors import UserError
from yoloprune.execution import evaluation, threads
from yoloprune.graph import Graph, Plan
from yoloprune.progress import counter

from .options import Options
from .targets import OutOfReachError

__all__ = ["NEAR", "OnDevice"]

NEAR = 0.03  # of the target: what users are promised
_ROUNDS = 6  # of planning, measuring and correcting
_SECONDS = 6.0  # of measuring


class OnDevice:
    """Times of networks on a backend of this machine, or on the device that a table was measured on.

    Args:
        detector: The network as it came.
        options: Backend, threads, table, image size.

    Attributes:
        device: Where the times hold.
        own_ms: Milliseconds of the network as it came.
        here: Whether whole networks can be measured: not with another device's table.

    Raises:
        UserError: The table cannot be read, or lacks what the network has; the backend cannot run it.
    """

    def __init__(self, detector: Detector, options: Options) -> None:
        self._imgsz, self._place = options.imgsz, detector.place(options.device)
        if options.latency_table:
            self._table = CostTable.load(Path(options.latency_table).expanduser())
            self.device, self.here = self._table.device, False
            whole = self._table.whole(detector.params, options.imgsz)
            own = _convolutions(detector, options.imgsz)
            self.own_ms = whole or sum(self._table.ms(c.shape, c.inputs, c.outputs) for c in own)
            return
        self.device, self.here = Device.here(options.backend, options.threads), True
        if self.device.backend == "torch" and self._place.type != "cpu":
            self.device = self.device._replace(processor=detector.device_name(options.device))
        self._keep = cached(self.device)
        self._table = CostTable(self.device)
        if self._keep.exists():
            try:
                self._table = CostTable.load(self._keep)
            except UserError:  # of an earlier version
                self._keep.unlink()
        self._original = self._run(detector)
        self._clock = clock_of(self.device, self._place)
        (times,) = self._timed([self._call(self._original, detector)], _SECONDS / 2)
        self.own_ms = median(times)

    def times(self, detector: Detector, target: float | None = None) -> float:
        """Milliseconds of another network, measured `here` in turns with the one that came.

        Args:
            detector: The other network.
            target: Milliseconds; a network that seems to meet them may be lucky, and is measured twice longer.
        """
        calls = [self._call(run, detector) for run in (self._original, self._run(detector))]
        ms = self._against(calls, _SECONDS)
        if target and abs(ms / target - 1) <= NEAR / 2:
            ms = (ms + 2 * self._against(calls, 2 * _SECONDS)) / 3
        return ms

    def _against(self, calls: list[Callable[[], object]], seconds: float) -> float:
        """Milliseconds of the second call, in turns with the network that came."""
        ours, theirs = self._timed(calls, seconds)
        return self.own_ms * median(b / a for a, b in zip(ours, theirs, strict=True))

    def model(self, detector: Detector, graph: Graph, before_ms: float) -> LatencyModel:
        """The network's time as a function of what is kept, from the table, which is completed first.

        Args:
            detector: The network to prune.
            graph: Its graph.
            before_ms: Milliseconds that it takes.
        """
        found = self._measured(detector) if self.here else _convolutions(detector, self._imgsz)
        model = LatencyModel(graph, found, self._table)
        model.fit(np.ones(graph.n_components, bool), before_ms)
        return model

    def completed(self, detector: Detector) -> CostTable:
        """The table with all that a network, the one that came, can come to need."""
        self._measured(detector)
        self._table.networks.append((detector.params, self._imgsz, self.own_ms))
        self._table.save(self._keep)
        return self._table

    def _measured(self, detector: Detector) -> list[Convolution]:
        found = _convolutions(detector, self._imgsz)
        with threads(self.device.threads):
            measure(self._table, found, tell=counter("convolution"), keep=self._keep, device=self._place)
        return found

    def _timed(self, calls: list[Callable[[], object]], seconds: float) -> list[list[float]]:
        with threads(self.device.threads):
            return interleaved(calls, seconds=seconds, clock=self._clock)

    def settle(
        self, model: LatencyModel, plan_of: Callable[[], Plan], pruned: Callable[[Plan], Detector], target: float
    ) -> tuple[Plan, str]:
        """The plan whose network takes the time that was asked for, measured as a whole; and a sentence.

        The model's rest is corrected by what each measured plan took, and the plan is made again.

        Args:
            model: By which plans are made.
            plan_of: Makes the plan for the target.
            pruned: Makes the network of a plan.
            target: Milliseconds.
        """
        if not self.here:
            return plan_of(), f"By the table, {target:.2f} ms on {self.device}; measure there: yoloprune bench."
        first, tried = 0.0, []
        for number in range(_ROUNDS):
            try:
                plan = plan_of()
            except OutOfReachError:  # by the correction
                if not tried:
                    raise
                break
            ms = self.times(pruned(plan), target)
            tried.append((abs(ms / target - 1), number, ms, plan))
            reckoned = model.of_plan(plan)
            first = first or reckoned / ms - 1
            if tried[-1][0] <= NEAR / 2:
                break
            model.rest += ms - reckoned
        away, _, ms, plan = min(tried)
        said = (
            f"Measured {ms:.2f} ms on {self.device}, the unpruned network {self.own_ms:.2f} ms; asked for were "
            f"{target:.2f} ms. The sum over layers was {first:+.1%} off at first."
        )
        return plan, said if away <= NEAR else f"{said} No plan came nearer."

    def _run(self, detector: Detector) -> Run:
        backend = BACKENDS[self.device.backend]
        if backend.format is None:
            return compiled(detector.fused(), device=self._place)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model{suffix(backend.format)}"
            detector.export(path, format=backend.format, imgsz=self._imgsz)
            return opened(path, self.device.backend, threads=self.device.threads)

    def _call(self, run: Run, detector: Detector) -> Callable[[], object]:
        image = np.random.default_rng(0).random((1, detector.channels, self._imgsz, self._imgsz), np.float32)
        return partial(run, image)


def _convolutions(detector: Detector, imgsz: int) -> list[Convolution]:
    weight = next(detector.network.parameters())
    image = torch.zeros(1, detector.channels, imgsz, imgsz, dtype=weight.dtype, device=weight.device)
    with evaluation(detector.network):
        return convolutions(detector.network, image)
