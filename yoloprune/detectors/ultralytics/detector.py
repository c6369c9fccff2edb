"""Ultralytics' networks of every family and task as a `Detector`."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from ultralytics.engine.model import Model
from ultralytics.nn.modules import DFL
from ultralytics.utils.torch_utils import is_qat

from yoloprune.detectors import GFLOPS_IMGSZ
from yoloprune.detectors.base import ClassLayers, Detector, Metrics, Part, Trained, Training
from yoloprune.detectors.details import CONFIDENCE, History, Look
from yoloprune.errors import UserError
from yoloprune.finite import check_finite
from yoloprune.graph import Graph, Group

from . import checkpoints, datasets, devices, exporting, loggers, looks, outputs
from .calibration_data import calibration_batches, split_sizes, training_loss
from .cost import gflops
from .differences import PredictionChange, lost_detections
from .downloading import fetch
from .exported import Exported, found_boxes
from .families import network_family
from .guard import check_options, quiet
from .heads import can_distill, class_layers, class_names, refit_classes
from .model import YOLO, with_network
from .parts import parts
from .probe import sampled_fisher_loss
from .reasons import why_it_stays
from .stock_training import block_stock_training
from .trace import noise, predictions, trace_yolo
from .trainers.continuation import Continuation
from .trainers.history import read_history
from .trainers.training import train, training_metrics
from .validation import validate

__all__ = ["UltralyticsDetector"]


class UltralyticsDetector(Detector):
    """A detector (segmenter, classifier …) of Ultralytics.

    Args:
        yolo: The model that holds the network.
    """

    unreconstructed: ClassVar[tuple[type[nn.Module], ...]] = (DFL,)

    def __init__(self, yolo: YOLO) -> None:
        self._yolo = yolo

    @property
    def model(self) -> YOLO:
        """Ultralytics' model, whose `train()` trains the network as it is."""
        return self._yolo

    @property
    def network(self) -> nn.Module:
        """Ultralytics' task model."""
        return self._yolo.model

    @property
    def family(self) -> str:
        """As `families.network_family` lists them."""
        return network_family(self.network)

    @property
    def task(self) -> str:
        """Ultralytics' task."""
        return self._yolo.task

    @property
    def names(self) -> dict[int, str]:
        """Class index -> name."""
        return class_names(self.network)

    @property
    def stride(self) -> int:
        """The largest stride of the head, 32 px at least."""
        return max(int(self.network.stride.max()), 32)

    @property
    def channels(self) -> int:
        """Image channels that it takes."""
        return self.network.yaml.get("channels", 3)

    @property
    def trained_imgsz(self) -> int | None:
        """Image size in px that the weights were trained at."""
        own = self._yolo.overrides.get("imgsz")
        return max(own) if isinstance(own, list) else own

    @property
    def trained_on(self) -> str | None:
        """The data that the weights were trained on."""
        return ((self._yolo.ckpt or {}).get("train_args") or {}).get("data")

    @property
    def file(self) -> Path:
        """The checkpoint's file; of a model from a YAML, the name of that."""
        return Path(getattr(self.network, "pt_path", None) or Path(self.network.yaml["yaml_file"]).name)

    # -- files --------------------------------------------------------------------------------------------------------

    @classmethod
    def recognises(cls, weights: Path) -> bool:
        """Any file: as the last family it says what is wrong with those that nobody knows."""
        return True

    @classmethod
    def load(cls, weights: str | Path, *, trust: bool = False) -> UltralyticsDetector:
        """See `checkpoints.load`."""
        return cls(checkpoints.load(weights, trust=trust))

    @classmethod
    def holds(cls, model: Any) -> bool:
        """Whether this is a YOLO, RTDETR or YOLOWorld with a network in torch."""
        return isinstance(model, Model) and isinstance(model.model, nn.Module)

    @classmethod
    def wrap(cls, model: Model) -> UltralyticsDetector:
        """See `yoloprune.detectors.wrap`."""
        check_finite(model.model, "The given model")
        return cls(with_network(model, copy.deepcopy(model.model).cpu().float().eval()))

    def save(self, path: Path, *, float32: bool = False) -> str | None:
        """Write a checkpoint that stock Ultralytics opens too; see `checkpoints.save`."""
        return checkpoints.save(self._yolo, path, float32=float32)

    def holding(self, network: nn.Module) -> UltralyticsDetector:
        """A detector like this one around another network."""
        return type(self)(with_network(self._yolo, network))

    def with_classes(self, names: Mapping[int, str]) -> UltralyticsDetector:
        """A detector like this one with fresh last class layers for other classes; see `heads.refit_classes`."""
        network = copy.deepcopy(self.network)
        refit_classes(network, len(names))
        network.names = dict(names)
        return self.holding(network)

    def settle(self, *, file: Path | None = None, imgsz: int | None = None, data: str | None = None) -> None:
        """Have Ultralytics name exports by the file, and use this image size and data where no others are given."""
        yolo = self._yolo
        args = {name: value for name, value in (("imgsz", imgsz), ("data", data)) if value is not None}
        yolo.overrides |= args
        yolo.model.args = {**yolo.model.args, **args}
        if (yolo.ckpt or {}).get("train_args"):
            yolo.ckpt = {**yolo.ckpt, "train_args": {**yolo.ckpt["train_args"], **args}}
        if file is not None:
            yolo.model.pt_path = yolo.ckpt_path = yolo.model_name = yolo.overrides["model"] = str(file)

    def block_foreign_training(self) -> None:
        """See `stock_training`."""
        block_stock_training(self.network)

    def usage(self, weights: Path, *, imgsz: int | None = None, confidence: float | None = None) -> str:
        """Ultralytics' command."""
        size = [f"imgsz={imgsz}"] if imgsz else []
        sure = [f"conf={confidence:.2f}"] if confidence is not None else []
        return shlex.join(["yolo", "predict", f"model={weights}", *size, *sure, "source=image.jpg"])

    @classmethod
    def quiet(cls) -> AbstractContextManager[None]:
        """Within the block, Ultralytics logs nothing."""
        return quiet()

    # -- graph and cost -----------------------------------------------------------------------------------------------

    def trace(self, prune_head: bool = False, keep: Sequence[str] = (), portable: bool = False) -> Graph:
        """The dependency graph; see `trace.trace_yolo`."""
        return trace_yolo(self.network, prune_head, keep, portable)

    def noise(self) -> Tensor:
        """An image of noise, as small as the network takes it."""
        return noise(self.network)

    def predictions(self, output: Any) -> Any:
        """The head's output without the features that it hands on."""
        return predictions(output)

    def gflops(self, imgsz: int = GFLOPS_IMGSZ) -> float:
        """GFLOPs as `model.info()` prints them."""
        return gflops(self.network, imgsz)

    def parts(self) -> list[Part]:
        """Backbone, neck and head."""
        return parts(self.network)

    def why_it_stays(self, group: Group, graph: Graph, *, prune_head: bool) -> str:
        """See `reasons.why_it_stays`."""
        return why_it_stays(group, graph, self.network, prune_head=prune_head)

    # -- devices ------------------------------------------------------------------------------------------------------

    def place(self, device: str | None) -> torch.device:
        """The device that Ultralytics takes."""
        return devices.place(device)

    def device_name(self, device: str | None) -> str:
        """What to call that device in a report."""
        return devices.device_name(device)

    # -- data ---------------------------------------------------------------------------------------------------------

    def check_data(
        self, data: str, *, split: str = "val", labels: bool = True, same_classes: bool = False
    ) -> dict[int, str] | None:
        """See `datasets.check_data`."""
        network, nc = self.network, len(self.names) if same_classes else None
        checked = datasets.check_data(data, self.task, split=split, labels=labels, network=network, nc=nc)
        alone = self.task != "classify" and not datasets.is_yaml(datasets.find_data(data))
        return None if alone else dict(checked["names"])

    def has_labels(self, data: str) -> bool:
        """Whether any training image has a label."""
        checked = datasets.check_data(data, self.task, split="train", labels=False, network=self.network)
        return datasets.has_labels(checked, "train", self.task)

    def split_sizes(self, data: str, keywords: Mapping[str, Any]) -> tuple[int, int]:
        """Number of images that a training with Ultralytics' `fraction` looks at, and of validation images, if any."""
        return split_sizes(self._yolo, data, fraction=keywords.get("fraction", 1.0))

    def fetch(self, data: str, *, trust: bool = False) -> None:
        """See `downloading.fetch`."""
        fetch(data, self.task, trust=trust)

    def calibration_batches(
        self, data: str, *, images: int, imgsz: int, batch: int | float, device: torch.device
    ) -> list[dict[str, Any]]:
        """Training images through Ultralytics' own datasets."""
        return calibration_batches(self._yolo, data, images=images, imgsz=imgsz, batch=batch, device=device)

    # -- predictions --------------------------------------------------------------------------------------------------

    def training_loss(self, keywords: Mapping[str, Any]) -> Callable[[nn.Module, dict[str, Any]], Tensor]:
        """Ultralytics' loss."""
        return training_loss(self._yolo, keywords)

    def ranking_loss(self, seed: int) -> Callable[[nn.Module, dict[str, Any]], Tensor]:
        """See `probe.sampled_fisher_loss`."""
        return sampled_fisher_loss(seed)

    def class_layers(self) -> ClassLayers:
        """The class layers of all scales, and of both branches of an end-to-end head."""
        return class_layers(self.network)

    def change(self, images: list[Tensor]) -> PredictionChange:
        """The divergence of class scores and boxes, where the head has such predictions."""
        return PredictionChange(self.network, images)

    def lost(self, images: list[Tensor]) -> Callable[[nn.Module], float]:
        """1 - mAP50-95 against this network's own detections, where boxes are plain."""
        return lost_detections(self.network, images)

    @property
    def can_distill(self) -> bool:
        """Whether the head makes class scores and boxes on a grid."""
        return can_distill(self.network)

    @property
    def quantised(self) -> bool:
        """Whether it has Ultralytics' quantisation-aware training behind it."""
        return is_qat(self.network)

    def photograph(self, imgsz: int) -> Tensor:
        """Ultralytics' `bus.jpg`."""
        return outputs.photograph(imgsz, imgsz, self.channels)

    def photographs(self, imgsz: int) -> Tensor:
        """Ultralytics' two pictures, cropped and mirrored."""
        return outputs.photographs(imgsz, self.channels)

    def outputs(self, images: Tensor) -> list[Tensor]:
        """The outputs of the network as the exporter runs it."""
        return outputs.run(outputs.deployed(self.network), images)

    def typical_difference(self, ours: list[Tensor], theirs: list[Tensor]) -> float:
        """Boxes and scores count apart; see `outputs.typical`."""
        return outputs.typical(self.network, ours, theirs)

    # -- for the report -----------------------------------------------------------------------------------------------

    def sample(self, data: str, number: int) -> list[Path]:
        """Images of the validation split, or of the training split where there is none."""
        return looks.sample(self._yolo, data, number)

    def look(
        self, images: Sequence[Path], *, imgsz: int, device: str | None = None, confidence: float = CONFIDENCE
    ) -> Iterator[Look]:
        """What Ultralytics' predictor finds."""
        return looks.look(self._yolo, images, imgsz=imgsz, device=device, confidence=confidence)

    def history(self, folder: Path) -> History | None:
        """From Ultralytics' results.csv."""
        return read_history(folder / "results.csv", self.task)

    def loggers(self) -> list[str]:
        """Those that `yolo settings` has on."""
        return loggers.loggers()

    def logged(self, logger: str, folder: Path) -> str | None:
        """See `loggers.logged`."""
        return loggers.logged(logger, folder)

    # -- training, validation, export ---------------------------------------------------------------------------------

    def check_keywords(self, keywords: Mapping[str, Any]) -> None:
        """Check the values of keywords as Ultralytics itself does."""
        check_options(keywords)

    def train(self, start: Path, folder: Path, training: Training) -> Trained:
        """Train through Ultralytics' trainer; see `trainers.training`."""
        if training.distillation and not self.can_distill:
            raise UserError(f"{type(self.network.model[-1]).__name__} heads cannot be distilled.")
        yolo = train(start, folder, training)
        trainer = yolo.trainer
        return Trained(type(self)(yolo), trainer.epoch + 1, training_metrics(trainer.measured, yolo.task))

    def forget_training(self, folder: Path) -> None:
        """Remove the state of a training from the trainer's folder."""
        Continuation(folder).discard()

    def validate(
        self,
        data: str,
        *,
        imgsz: int = 640,
        batch: int = 16,
        device: str | None = None,
        verbose: bool = False,
        details: bool = False,
        **options: Any,
    ) -> Metrics:
        """Measure with Ultralytics' validator and pycocotools; see `validation.validate`."""
        asked = {"imgsz": imgsz, "batch": batch, "device": device, "verbose": verbose, "details": details}
        return validate(self._yolo, data, **asked, **options)

    def fused(self) -> nn.Module:
        """A copy with batch norms folded into convolutions, as Ultralytics predicts."""
        return copy.deepcopy(self.network).float().fuse(verbose=False).eval()

    def export(
        self, path: Path, *, format: str = "onnx", imgsz: int | list[int] = 640, verbose: bool = False, **options: Any
    ) -> Path:
        """Export through Ultralytics' exporter; see `exporting.export`."""
        return exporting.export(self._yolo, path, format=format, imgsz=imgsz, verbose=verbose, **options)

    def onnx_difference(self, path: Path) -> float:
        """Compare with ONNX Runtime on a photograph; see `exporting.onnx_difference`."""
        return exporting.onnx_difference(self._yolo, path)

    def detections(self, images: Tensor, export: Path | None = None) -> list[Tensor]:
        """Through Ultralytics' own runtimes and suppression; see `exported`."""
        head = self.network.model[-1]
        if export is None:
            found = [self.outputs(batch)[0] for batch in images.split(4)]
            return found_boxes(head, self.task, torch.cat(found))
        file = Exported(export)
        return found_boxes(head, self.task, self._as_ours(file.outputs(images)[0]), suppressed=file.suppresses)

    def _as_ours(self, output: Tensor) -> Tensor:
        """An export's output in the layout of `outputs`."""
        return output

    def validate_export(self, path: Path, data: str) -> Metrics:
        """Through Ultralytics' validator."""
        return Exported(path).validate(data)
