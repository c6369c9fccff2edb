"""What a run measured: a typed record that is results.json, results.csv and the source of every table and picture."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from yoloprune.files import atomic

__all__ = ["Measure", "Record", "SmallerImage", "StepRow", "TrainingRow", "Verdict"]


@dataclass
class Measure:
    """A network's cost and quality. Metrics are None where nothing was validated.

    Attributes:
        gflops: GFLOPs at 640 px, as `model.info()` prints them.
        params: Number of parameters.
        size_mb: Size of its checkpoint in MB (10^6 bytes), float16 unless its weights do not fit that.
        latency_ms: Median milliseconds of one image; see `yoloprune.deploy.latency`.
        metrics: Name to value, from Ultralytics' validator (`mAP50-95`, `mAP50`) and, where COCO annotations are
            known, from pycocotools (`COCO mAP50-95`, `COCO mAP50`).
    """

    gflops: float
    params: int
    size_mb: float | None = None
    latency_ms: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class StepRow:
    """One step: what it aimed at, what it reached, and what it cost.

    Attributes:
        step: Number of the step, from 1.
        target: GFLOPs or parameters asked for in this step.
        gflops: GFLOPs at 640 px after pruning.
        params: Parameters after pruning.
        mask_error: Largest relative difference, before recovery, from the predictions of the network before the step
            with the removed channels zeroed.
        epochs: Fine-tuning epochs that were run.
        metrics: Validation of the fine-tuned network by Ultralytics' trainer, or of the pruned one if fine-tuning only
            harmed it; empty without fine-tuning.
        before: Validation of the pruned network before fine-tuning; empty without fine-tuning.
        prune_seconds: Time for tracing, scoring, planning and applying.
        train_seconds: Time for fine-tuning.
    """

    step: int
    target: float
    gflops: float
    params: int
    mask_error: float = 0.0
    epochs: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    prune_seconds: float = 0.0
    train_seconds: float = 0.0
    before: dict[str, float] = field(default_factory=dict)


@dataclass
class TrainingRow:
    """A training before the first step.

    Attributes:
        name: What it was for.
        epochs: Epochs that were run.
        metrics: Validation of what it led to; empty where the run does not validate.
        seconds: Time.
        kept: Whether the run went on with it.
    """

    name: str
    epochs: int
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    kept: bool = True


@dataclass
class SmallerImage:
    """The unpruned network on a smaller image.

    Attributes:
        imgsz: Image size in px.
        gflops: GFLOPs at 640 px of a network that would cost as much at the run's image size.
        metrics: As in `Measure`.
        latency_ms: Median milliseconds of one image of that size.
    """

    imgsz: int
    gflops: float
    metrics: dict[str, float]
    latency_ms: float | None = None


@dataclass
class Verdict:
    """Whether pruning was better than what costs nothing: a smaller image.

    Attributes:
        better: "pruned", "smaller image", or "equal" where the noise is larger than the gap.
        measure: Name of the figure that decides.
        value: That of the pruned network.
        level: That of the unpruned network on an image so small that it costs as much, linear between measured sizes.
        noise: What a gap between the two may owe to the choice of validation images.
        imgsz: Measured image size, in px, to take where a smaller image is better: next to the same cost, and not below
            the pruned network's figure if that can be.
    """

    better: str
    measure: str
    value: float
    level: float
    noise: float
    imgsz: int


@dataclass
class Record:
    """A run from beginning to end.

    Attributes:
        weights: Where the weights came from.
        family: Family of the network, such as `v8`.
        task: Ultralytics task.
        data: Data YAML, if the run used data.
        imgsz: Image size of training, validation and export in px.
        before: The network as it came.
        after: The finished network; None while the run is under way.
        trainings: The finished trainings before the first step.
        steps: The finished steps.
        smaller_images: What the unpruned network does at smaller image sizes of about the pruned one's cost.
        pruned: The step that is pruned and not finished; its epochs are those that were decided on.
        export: Name of the exported file, the verdict on it, and of ONNX its largest relative difference from torch.
        seconds: Phase to seconds.
        notes: What the run had to say, one sentence each.
        head: mAP50-95 before fine-tuning with the head kept and with it pruned too, if both were measured.
        widths: Layer to output channels before and after.
        latency_on: What latencies were measured on.
        verdict: Whether a smaller image would have been better, if that was measured.
        command: The command that was typed, if one was.
        environment: What the run ran on: versions, machine, device.
        logged: Experiment logger -> where it has the run: a folder or an id.
    """

    weights: str
    family: str
    task: str
    imgsz: int
    before: Measure
    data: str | None = None
    after: Measure | None = None
    trainings: list[TrainingRow] = field(default_factory=list)
    steps: list[StepRow] = field(default_factory=list)
    smaller_images: list[SmallerImage] = field(default_factory=list)
    pruned: StepRow | None = None
    export: dict[str, Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    head: list[float] = field(default_factory=list)
    widths: dict[str, tuple[int, int]] = field(default_factory=dict)
    latency_on: str = ""
    verdict: Verdict | None = None
    command: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    logged: dict[str, str] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether the run went to its end."""
        return self.after is not None

    def comparison(self) -> list[tuple[str, str, str, str]]:
        """Rows (what, before, after, change) for tables: cost changes in per cent, accuracy in points."""
        before, after = self.before, self.after or self.before
        cost = [
            ("GFLOPs (640 px)", before.gflops, after.gflops, "{:.2f}"),
            ("Parameters (M)", before.params / 1e6, after.params / 1e6, "{:.3f}"),
        ]
        if before.size_mb and after.size_mb:
            cost.append(("File (MB)", before.size_mb, after.size_mb, "{:.2f}"))
        if before.latency_ms and after.latency_ms:
            cost.append((f"Latency (ms, {self.imgsz} px)", before.latency_ms, after.latency_ms, "{:.2f}"))
        rows = [(name, form.format(a), form.format(b), f"{b / a - 1:+.1%}") for name, a, b, form in cost]
        both = [name for name in before.metrics if name in after.metrics]
        for name, a, b in ((name, before.metrics[name], after.metrics[name]) for name in both):
            rows.append((name, f"{a:.3f}", f"{b:.3f}", f"{b - a:+.3f}"))
        return rows

    def __str__(self) -> str:
        from .table import as_text

        return as_text(self)

    def save(self, path: Path) -> None:
        """Write the record as JSON."""
        with atomic(path) as tmp:
            tmp.write_text(json.dumps({"finished": self.finished, **asdict(self)}, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read a record that `save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        del content["finished"]
        content["before"] = Measure(**content["before"])
        content["after"] = content["after"] and Measure(**content["after"])
        content["trainings"] = [TrainingRow(**row) for row in content["trainings"]]
        content["steps"] = [StepRow(**row) for row in content["steps"]]
        content["smaller_images"] = [SmallerImage(**row) for row in content["smaller_images"]]
        content["verdict"] = content["verdict"] and Verdict(**content["verdict"])
        content["pruned"] = content["pruned"] and StepRow(**content["pruned"])
        content["widths"] = {layer: tuple(pair) for layer, pair in content["widths"].items()}
        return cls(**content)

    def save_csv(self, path: Path) -> None:
        """Write one row per finished step as CSV."""
        rows = [{**(flat := asdict(row)), **flat.pop("metrics")} for row in self.steps]
        nested = ("metrics", "before")
        names = list(dict.fromkeys(name for row in rows for name in row if name not in nested))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with atomic(path) as tmp:
            tmp.write_text(text.getvalue(), encoding="utf-8")
