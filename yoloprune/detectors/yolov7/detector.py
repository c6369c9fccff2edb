"""YOLOv7 and the original, anchor-based YOLOv5 as a `Detector`."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from ultralytics.engine.model import Model

from yoloprune.detectors.base import ClassLayers, Detector, Trained, Training
from yoloprune.detectors.ultralytics import exporting, outputs
from yoloprune.detectors.ultralytics.detector import UltralyticsDetector
from yoloprune.detectors.ultralytics.model import with_network
from yoloprune.detectors.ultralytics.trace import check_runs, trace_yolo
from yoloprune.errors import UserError
from yoloprune.finite import check_finite
from yoloprune.graph import Graph
from yoloprune.paths import check_path

from . import official, pickles
from .exported import with_exported_head
from .model import YOLO
from .network import Network
from .training import for_ultralytics, forget

__all__ = ["YOLOv7Detector"]


class YOLOv7Detector(UltralyticsDetector):
    """A detector of the YOLOv7 or the YOLOv5 repository.

    Args:
        yolo: The model that holds the network.
    """

    network: Network
    layouts: ClassVar[tuple[str, ...]] = ("v8", "official")

    @property
    def family(self) -> str:
        """By the modules that it has: "v7" or "v5"."""
        return self.network.family

    @property
    def file(self) -> Path:
        """The checkpoint's file; of a fresh network, a name for one."""
        return Path(self.network.pt_path or f"yolo{self.family}.pt")

    # -- files --------------------------------------------------------------------------------------------------------

    @classmethod
    def recognises(cls, weights: Path) -> bool:
        """Whether the file names classes of these repositories, or is a plain one of ours."""
        return pickles.recognises(weights)

    @classmethod
    def load(cls, weights: str | Path, *, trust: bool = False) -> YOLOv7Detector:
        """Load an official checkpoint, or one of ours; `trust` changes nothing, since nothing needs it.

        Raises:
            UserError: See `yoloprune.detectors.load`.
        """
        check_path(weights)
        yolo = YOLO.holding(*pickles.read_network(weights))
        check_finite(yolo.model, f"'{weights}'")
        check_runs(yolo.model, f"'{weights}'")
        return cls(yolo)

    @classmethod
    def holds(cls, model: Any) -> bool:
        """Whether this is a `Network`, or an Ultralytics model around one."""
        return isinstance(model.model if isinstance(model, Model) else model, Network)

    @classmethod
    def wrap(cls, model: Any) -> Detector:
        """See `yoloprune.detectors.wrap`."""
        if isinstance(model, Network):
            network = copy.deepcopy(model).cpu().float().eval()
            check_finite(network, "The given model")
            return cls(YOLO.around(network))
        return super().wrap(model)

    def save(self, path: Path, *, float32: bool = False) -> str | None:
        """Write a checkpoint that the official repository opens, and a plain one beside it; see `official.save`."""
        given = (self.model.ckpt or {}).get("train_args") or self.model.overrides
        return official.save(self.network, path, given, float32=float32)

    def usage(self, weights: Path, *, imgsz: int | None = None, confidence: float | None = None) -> str:
        """How the official repositories, both alike, run it."""
        size = f" --img-size {imgsz}" if imgsz else ""
        sure = f" --conf-thres {confidence:.2f}" if confidence is not None else ""
        command = f"python detect.py --weights {shlex.quote(str(weights))}{size}{sure} --source image.jpg"
        return f"{command}   (in the official repository)"

    # -- graph and cost -----------------------------------------------------------------------------------------------

    def trace(self, prune_head: bool = False, keep: Sequence[str] = (), portable: bool = False) -> Graph:
        """The dependency graph; the head has no hidden layers, so that `prune_head` changes nothing.

        Raises:
            UserError: See `trace_yolo`; or `portable` is asked for, and no stock head takes these anchors.
        """
        if portable:
            raise UserError(f"portable is for Ultralytics' own families, and this is YOLO{self.family}; leave it out.")
        return trace_yolo(self.network, True, keep)

    @property
    def prunes_head(self) -> bool:
        """No: all that it has are its predictions."""
        return False

    # -- predictions --------------------------------------------------------------------------------------------------

    def class_layers(self) -> ClassLayers:
        """The convolutions of all scales, of which the rows of objectness count."""
        head, at = self.network.head, f"model.{len(self.network.model) - 1}"
        rows = [anchor * head.no + 4 for anchor in range(head.na)]
        return ClassLayers([f"{at}.m.{i}" for i in range(head.nl)], rows=rows)

    def outputs(self, images: Tensor) -> list[Tensor]:
        """The output of the network as the exporter runs it."""
        return outputs.run(outputs.deployed(with_exported_head(self.network)), images)

    # -- training -----------------------------------------------------------------------------------------------------

    def train(self, start: Path, folder: Path, training: Training) -> Trained:
        """Train through Ultralytics' trainer; see `training`."""
        return super().train(*for_ultralytics(start, folder, training, lambda path: self.load(path).network))

    def forget_training(self, folder: Path) -> None:
        """Remove the state of a training from the trainer's folder, and what it started from."""
        super().forget_training(folder)
        forget(folder)

    # -- export -------------------------------------------------------------------------------------------------------

    def export(
        self,
        path: Path,
        *,
        format: str = "onnx",
        imgsz: int | list[int] = 640,
        verbose: bool = False,
        layout: str = "v8",
        **options: Any,
    ) -> Path:
        """Export through Ultralytics' exporter.

        Args:
            path: See `Detector.export`.
            format: See there.
            imgsz: See there.
            verbose: See there.
            layout: "v8" gives (1, 4 + classes, n), boxes and scores as YOLOv8 puts them out; "official" (1, n, 5 +
                classes), boxes, objectness and class probabilities as the official code does.
            options: See there.

        Raises:
            UserError: See there; or there is no such layout.
        """
        if layout not in self.layouts:
            raise UserError(f"There is no layout {layout!r} of outputs; give one of {', '.join(self.layouts)}.")
        if layout == "official" and options.get("nms"):
            raise UserError("nms=True puts out detections, which have no official layout; leave one of the two out.")
        yolo = with_network(self.model, with_exported_head(self.network, official=layout == "official"))
        return exporting.export(yolo, path, format=format, imgsz=imgsz, verbose=verbose, **options)

    def _as_ours(self, output: Tensor) -> Tensor:
        """An official layout as YOLOv8's, in which a score is objectness times class probability."""
        if output.shape[-1] != self.network.head.no:
            return output
        return torch.cat((output[..., :4], output[..., 4:5] * output[..., 5:]), -1).transpose(1, 2)

    def onnx_difference(self, path: Path) -> float:
        """Compare with ONNX Runtime on a photograph, in the layout that the file has."""
        image, theirs = exporting.run_onnx(path, self.channels)
        of_rows = theirs[0].shape[-1] == self.network.head.no
        network = outputs.deployed(with_exported_head(self.network, official=of_rows))
        ours = outputs.run(network, image)
        if of_rows:  # boxes and scores, which count apart, are rows then
            ours, theirs = [x.transpose(1, 2) for x in ours], [x.transpose(1, 2) for x in theirs]
        return outputs.furthest(network, ours, theirs)
