"""What all parts of a run share: network, options, folder, record, and where it reports to."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from yoloprune import detectors
from yoloprune.detectors.base import Detector
from yoloprune.detectors.details import Details, found_again
from yoloprune.files import atomic, readable
from yoloprune.graph import Plan
from yoloprune.progress import Progress
from yoloprune.report import Record

from .folder import RunFolder
from .metrics import FOUND_AGAIN, named_metrics
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
        details: What stands behind the figures of validations, by what was validated.
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
    details: dict[str, Details] = field(default_factory=dict)

    def note(self, line: str) -> None:
        """Say something that belongs in the report too."""
        self.progress.say(line)
        if line not in self.record.notes:  # as a resumed run says again
            self.record.notes.append(line)

    def remember(self) -> None:
        """Write down what the run has done so far."""
        if self.folder:
            self.record.save(self.folder.results)
            self.record.save_csv(self.folder.table)

    def recall_details(self) -> None:
        """Take up what the validations before an interruption found."""
        if self.folder and self.folder.details.is_file():
            with readable(self.folder.details):
                found = json.loads(self.folder.details.read_text(encoding="utf-8"))
                self.details = {what: Details(**one) for what, one in found.items()}

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

    def validate(
        self, detector: Detector, title: str, *, imgsz: int | None = None, what: str | None = None
    ) -> dict[str, float]:
        """Validate a network on the run's data.

        Args:
            detector: The network.
            title: Of the phase.
            imgsz: Image size in px; by default the run's.
            what: Under which name the report finds the details; None: it needs none.
        """
        options = self.options
        with self.phase(title, "validate") as clock:
            metrics = detector.validate(
                options.data,
                imgsz=imgsz or options.imgsz,
                batch=options.validation_batch,
                device=options.device,
                verbose=self.progress.hears,
                details=what is not None,
            )
        self.validation_seconds = clock.seconds
        if what is not None and metrics.details:
            self.details[what] = metrics.details
            self._save_details()
        named = named_metrics(metrics, detector.task)
        if metrics.details and (before := self.details.get("before")):
            again = found_again(before, metrics.details)
            named |= {} if again is None else {FOUND_AGAIN: round(again, 5)}
        return named

    def _save_details(self) -> None:
        if self.folder:
            self.folder.details.parent.mkdir(exist_ok=True)
            with atomic(self.folder.details) as tmp:
                content = {what: asdict(details) for what, details in self.details.items()}
                tmp.write_text(json.dumps(content) + "\n", encoding="utf-8")


def read_result(weights: Path, plan: Path, *, trust: bool) -> tuple[Detector, Plan]:
    """A network that the run wrote, and its plan; `trust` as when the original was loaded."""
    with readable(weights):
        detector = detectors.load(weights, trust=trust)
    with readable(plan):
        return detector, Plan.load(plan)
