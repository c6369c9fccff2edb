"""What all parts of a run share: network, options, folder, record, and where it reports to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from yoloprune import detectors
from yoloprune.detectors.base import Detector
from yoloprune.files import readable
from yoloprune.graph import Plan
from yoloprune.progress import Progress
from yoloprune.report import Record

from .folder import RunFolder
from .metrics import named_metrics
from .on_device import OnDevice
from .options import Options
from .saving import save_checked

if TYPE_CHECKING:
    from .time_budget import TimeBudget

__all__ = ["Clock", "Context", "read_result"]


class Clock:
    """How long a phase took, in seconds; known after `stop`."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.seconds = 0.0

    def stop(self) -> None:
        """The phase has ended."""
        self.seconds = round(time.perf_counter() - self._started, 2)


@dataclass
class Context:
    """A run under way.

    Attributes:
        original: The detector to prune.
        options: What to do.
        record: What is known and measured so far.
        progress: Where to report to.
        folder: The output folder, once there is one.
        budget: What is left of a time budget, if there is one.
        validation_seconds: What the last validation took.
        images: A few calibration images on the CPU, once a pruning has looked at some.
        device: Where networks are to be faster, if the target is a time.
    """

    original: Detector
    options: Options
    record: Record
    progress: Progress
    folder: RunFolder | None
    budget: TimeBudget | None = None
    validation_seconds: float = 0.0
    images: Tensor | None = None
    device: OnDevice | None = None

    def note(self, line: str) -> None:
        """Say something that belongs in the report too."""
        self.progress.say(line)
        self.record.notes.append(line)

    def remember(self) -> None:
        """Write down what the run has done so far."""
        if self.folder:
            self.record.save(self.folder.results)
            self.record.save_csv(self.folder.table)

    @contextmanager
    def phase(self, title: str, kind: str) -> Iterator[Clock]:
        """A phase on the screen, whose time counts under `kind`; see `Progress.phase`."""
        clock = Clock()
        with self.progress.phase(title):
            yield clock
        clock.stop()
        self.record.seconds[kind] = round(self.record.seconds.get(kind, 0.0) + clock.seconds, 2)

    def save(self, detector: Detector, path: Path) -> Detector:
        """Write a checkpoint, and return the detector with the network that the file holds, to continue with.

        Raises:
            UserError: That is not the network that was saved; see `save_checked`.
        """
        options = self.options
        loaded, note = save_checked(detector, path, images=self.images, imgsz=options.imgsz, trust=options.trust)
        if note and note not in self.record.notes:
            self.note(note)
        return detector.holding(loaded.network)

    def validate(self, detector: Detector, title: str, imgsz: int | None = None) -> dict[str, float]:
        """Validate a network on the run's data, as a phase of this title; by default at the run's image size."""
        options = self.options
        with self.phase(title, "validate") as clock:
            metrics = detector.validate(
                options.data,
                imgsz=imgsz or options.imgsz,
                batch=int(options.batch) if options.batch >= 1 else 16,
                device=options.device,
                verbose=self.progress.hears,
            )
        self.validation_seconds = clock.seconds
        return named_metrics(metrics, detector.task)


def read_result(weights: Path, plan: Path, *, trust: bool) -> tuple[Detector, Plan]:
    """A network that the run wrote, and its plan; `trust` as when the original was loaded."""
    with readable(weights):
        detector = detectors.load(weights, trust=trust)
    with readable(plan):
        return detector, Plan.load(plan)
