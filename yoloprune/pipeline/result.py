"""`PruneResult`: what `yoloprune.prune` gives, to look at, to save and to export."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from yoloprune.deploy.formats import check_can_export, check_format, export_path
from yoloprune.detectors import family_title
from yoloprune.detectors.base import Detector
from yoloprune.errors import UserError
from yoloprune.files import clean_leftovers
from yoloprune.graph import Plan
from yoloprune.report import Record

from .run import Finished
from .saving import save_checked

__all__ = ["PruneResult", "result_of"]


@dataclass(repr=False)
class PruneResult:
    """What `prune` gives.

    Attributes:
        detector: The pruned detector.
        plan: What was kept, against the original weights.
        metrics: `{"before": {...}, "after": {...}}` with GFLOPs, parameters and what was validated.
        report: Everything that was measured; `print(result.report)` shows the closing table.
        save_dir: The output folder, or None if the run wrote none.
        weights: The checkpoint of the pruned network, or None as long as it is in no file.

    Examples:
        >>> result = yoloprune.prune("yolov8s.pt", target_gflops=14, data="my.yaml")  # doctest: +SKIP
        >>> result.save("small.pt")  # doctest: +SKIP
        >>> result.export("openvino")  # doctest: +SKIP
    """

    detector: Detector
    plan: Plan
    metrics: dict[str, dict[str, float]]
    report: Record
    save_dir: Path | None
    weights: Path | None = None

    @property
    def model(self) -> Any:
        """The pruned model of the kind that its family has: a `YOLO` whose `train()` trains the network as it is."""
        return self.detector.model

    def save(self, path: str | Path) -> Path:
        """Write the pruned network as a checkpoint, which stock `ultralytics.YOLO` opens too.

        The file is read again and compared on a photograph. `model` then holds the weights that the file does, rounded
        to float16 unless that would change the predictions, which a warning says.

        Args:
            path: The file to write, `.pt`; an existing one is replaced at once, folders are made.

        Returns:
            `path`.

        Raises:
            UserError: The path does not end in `.pt`, or the file does not hold what the model does.
            OSError: The file cannot be written.

        Examples:
            >>> result.save("small.pt")  # doctest: +SKIP
            PosixPath('small.pt')
        """
        path = Path(path)
        if path.suffix != ".pt":
            raise UserError(f"A checkpoint ends in '.pt', which '{path}' does not.")
        path.parent.mkdir(parents=True, exist_ok=True)
        clean_leftovers(path.parent)
        saved, note = save_checked(self.detector, path, imgsz=self.report.imgsz)
        self.detector.network.load_state_dict(saved.network.state_dict())
        if note:
            warnings.warn(note, stacklevel=2)
        if self.weights is None:
            self.weights = path
            self.detector.settle(file=path)
        return path

    def export(self, format: str = "onnx", path: str | Path | None = None, **options: Any) -> Path:
        """Export the pruned network through Ultralytics' exporter, whether or not it was saved.

        Args:
            format: Ultralytics' name of a format: "onnx", "engine", "openvino", "torchscript", ….
            path: Where the export goes; by default beside the pruned checkpoint, or, as long as it is in no file, as
                `NAME-pruned.onnx` beside the checkpoint that was pruned.
            options: Any other option of Ultralytics' `export`, e.g. `dynamic`, `opset`, `quantize`; `imgsz` is the
                run's by default.

        Returns:
            The file or folder that was written.

        Raises:
            UserError: The format or an option is unknown, or this machine lacks what the format needs.

        Examples:
            >>> result.export("onnx", dynamic=True)  # doctest: +SKIP
            PosixPath('runs/prune/prune/pruned.onnx')
        """
        check_format(format)
        check_can_export(format)
        path = Path(path) if path else export_path(self.detector.file, format)
        return self.detector.export(path, format=format, **{"imgsz": self.report.imgsz, **options})

    def __repr__(self) -> str:
        rows = self.report.comparison()
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [
            f"  {name:<{widths[0]}}  {before:>{widths[1]}} -> {after:>{widths[2]}}  {change:>{widths[3]}}"
            for name, before, after, change in rows
        ]
        return "\n".join([f"PruneResult: {self._title()}", *lines, f"  {self._where()}"])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        heading = "".join(f"<th>{text}</th>" for text in ("", "before", "after", "change"))
        rows = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.report.comparison()
        )
        caption = f"<caption>{escape(self._title())}<br>{escape(self._where())}</caption>"
        return f"<table>{caption}<tr>{heading}</tr>{rows}</table>"

    def _title(self) -> str:
        return f"{Path(self.report.weights).name} ({family_title(self.report.family)} {self.report.task}) pruned"

    def _where(self) -> str:
        return f"in {self.weights}" if self.weights else 'in memory; result.save("pruned.pt") writes it'


def result_of(finished: Finished) -> PruneResult:
    """What `prune` gives of a finished run."""
    record, folder = finished.record, finished.folder
    assert record.after is not None  # it is finished
    metrics = {
        moment: {"gflops": m.gflops, "params": m.params, **m.metrics}
        for moment, m in (("before", record.before), ("after", record.after))
    }
    path, weights = (folder.path, folder.weights) if folder else (None, None)
    return PruneResult(finished.detector, finished.plan, metrics, record, path, weights)
