"""The interface by which measuring, pruning, training and reporting know a detector.

A family is one subclass of `Detector` in a folder of its own and one line in `yoloprune.detectors.FAMILIES`. What is
abstract here a family must have; the rest has defaults that hold for any network on images.
"""

from __future__ import annotations

import copy
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from yoloprune.errors import UserError
from yoloprune.exclusive import exclusive
from yoloprune.graph import Graph, Group, trace
from yoloprune.graph.tracing.internals import Operator, OperatorMode
from yoloprune.sparsity import Sparsity

from . import GFLOPS_IMGSZ
from .details import Details, History, Look

__all__ = [
    "SETBACK",
    "ClassLayers",
    "Detector",
    "Distillation",
    "Metrics",
    "Part",
    "Trained",
    "Training",
    "relative_change",
    "tensors",
]


SETBACK = 0.9
"""Share of the best mAP (or top-1 accuracy) below which a training has done harm."""


@dataclass(frozen=True)
class Metrics:
    """Accuracy on a validation split, each figure in 0 … 1.

    Attributes:
        map: mAP at IoU .50:.95: of boxes for detection and OBB, of masks for segmentation, of keypoints for pose; top-1
            accuracy for classification.
        map50: mAP at IoU .50, of the same; top-5 accuracy for classification.
        coco_map: Box mAP at IoU .50:.95 by pycocotools; None without COCO-format annotations.
        coco_map50: Box mAP at IoU .50 by pycocotools, or None.
        precision: Of boxes at IoU .50 and confidence .25, the mean over classes; None for classification.
        recall: The same for recall.
        f1: The same for F1.
        detections: Boxes per image at confidence .25, or None.
        ece: Expected calibration error of these boxes: how far confidence and share of matches lie apart, or None.
        images: How many images were evaluated.
        seconds: Wall time of the whole validation.
        details: What stands behind them, if that was asked for and the family knows it.
    """

    map: float
    map50: float
    coco_map: float | None = None
    coco_map50: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    detections: float | None = None
    ece: float | None = None
    images: int = 0
    seconds: float = 0.0
    details: Details | None = None


class ClassLayers(NamedTuple):
    """The layers that put out class logits.

    Attributes:
        names: Module names.
        softmax: Whether a softmax makes scores of them, and not a sigmoid.
        in_order: Whether each output belongs to a place of the image, and not to a query.
        rows: Which of their outputs are meant, by number; None for all.
    """

    names: list[str]
    softmax: bool = False
    in_order: bool = True
    rows: Sequence[int] | None = None


class Part(NamedTuple):
    """A part of a network: its name, and the names of the modules that make it up, those inside them included."""

    name: str
    modules: list[str]

    def has(self, layer: str) -> bool:
        """Whether a module of this name is in the part."""
        return any(layer == name or layer.startswith(f"{name}.") for name in self.modules)


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """What a training draws a pruned network to.

    Attributes:
        teacher: Checkpoint of the unpruned network.
        plan: File of the plan that leads from it to the pruned network.
        output: Gain of the term on predictions.
        feature: Gain of the term on features.
        labels: Gain of the family's own loss; 0 for images without labels.
    """

    teacher: str
    plan: str
    output: float = 1.0
    feature: float = 1.0
    labels: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a training is asked for.

    Attributes:
        data: What `Detector.check_data` takes.
        epochs: Epochs in all.
        imgsz: Image size in px.
        batch: Images per batch; -1 or a share of the GPU's memory where the family can choose.
        device: The device as it was asked for; None chooses.
        seed: Random seed.
        keywords: Further keywords of the family's trainer, which take the place of these.
        seconds: Time that it may take, if that is limited; the epochs are then an estimate.
        rollback: Whether an epoch that harms leads back to the best network and to a lower learning rate.
        distillation: The unpruned network to learn from, if there is one.
        sparsity: Options of group-sparse training, if that is what it is for; the network of the last epoch is its
            result then, since the best validation comes before the channels have separated.
        prune_head: Whether the head's hidden layers take part in that.
        keep: Names or patterns of modules whose output channels take no part in it.
        portable: Whether what `Detector.trace` leaves alone for `portable` takes no part in it.
        instead: What a user can do who lacks a package for training this family.
    """

    data: str
    epochs: int
    imgsz: int
    batch: int | float
    device: str | None
    seed: int
    keywords: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    rollback: bool = False
    distillation: Distillation | None = None
    sparsity: Sparsity | None = None
    prune_head: bool = False
    keep: Sequence[str] = ()
    portable: bool = False
    instead: str


class Trained(NamedTuple):
    """What a training gave.

    Attributes:
        detector: The network of the best epoch (of the last one for `Training.sparsity`).
        epochs: How many epochs it has had.
        metrics: Validation figures of that network, by the names of `yoloprune.pipeline.metrics`; empty without
            validation.
    """

    detector: Detector
    epochs: int
    metrics: dict[str, float]


class Detector(ABC):
    """A network that finds things in images, with all that its family knows of it.

    Attributes:
        network: The network, float32, in evaluation mode, on the CPU; its forward takes images, float32
            (batch, channels, height, width) in 0 … 1.
        unreconstructed: Classes of modules that recovery leaves as they are.
        layouts: Names of the layouts of outputs that `export` takes as `layout`, the default first; empty if it takes
            none.
    """

    network: nn.Module
    unreconstructed: ClassVar[tuple[type[nn.Module], ...]] = ()
    layouts: ClassVar[tuple[str, ...]] = ()

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def family(self) -> str:
        """Name of the family, such as "v8"."""

    @property
    def task(self) -> str:
        """Task, by Ultralytics' names: "detect", "segment", "pose", "obb" or "classify"."""
        return "detect"

    @property
    @abstractmethod
    def names(self) -> dict[int, str]:
        """Class index -> name."""

    @property
    def stride(self) -> int:
        """Height and width of images are multiples of this, in px."""
        return 32

    @property
    def channels(self) -> int:
        """Image channels that it takes."""
        return 3

    @property
    def trained_imgsz(self) -> int | None:
        """Image size in px that the weights were trained at, if the checkpoint says so."""
        return None

    @property
    def trained_on(self) -> str | None:
        """The data that the weights were trained on, if the checkpoint says so."""
        return None

    @property
    @abstractmethod
    def file(self) -> Path:
        """The checkpoint's file, or the name that one would have."""

    @property
    def model(self) -> Any:
        """What a Python user is given: the family's own kind of model, if it has one."""
        return self

    # -- files --------------------------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def recognises(cls, weights: Path) -> bool:
        """Whether a file is a checkpoint of this family; nothing in it runs."""

    @classmethod
    @abstractmethod
    def load(cls, weights: str | Path, *, trust: bool = False) -> Detector:
        """See `yoloprune.detectors.load`."""

    @classmethod
    def holds(cls, model: Any) -> bool:
        """Whether a Python user's model is one of this family."""
        return isinstance(model, cls)

    @classmethod
    def wrap(cls, model: Any) -> Detector:
        """See `yoloprune.detectors.wrap`."""
        given: Detector = model
        return given.holding(copy.deepcopy(given.network).cpu().float().eval())

    @abstractmethod
    def save(self, path: Path, *, float32: bool = False) -> str | None:
        """Write a checkpoint that `load` opens, in float16 where the weights fit and `float32` is off.

        Returns:
            Which weights do not fit float16, if any: a clause such as "'model.2.bn.weight' reaches 7e+04, …".

        Raises:
            UserError: The network holds what cannot be saved.
            OSError: The file cannot be written.
        """

    @abstractmethod
    def holding(self, network: nn.Module) -> Detector:
        """A detector like this one around another network; nothing that either changes later is shared."""

    def with_classes(self, names: Mapping[int, str]) -> Detector:
        """A detector like this one with fresh last class layers for other classes.

        Raises:
            UserError: The family has none to replace.
        """
        raise UserError(f"The class layers of {self.family} cannot be replaced; train it on the data elsewhere first.")

    def settle(self, *, file: Path | None = None, imgsz: int | None = None, data: str | None = None) -> None:
        """Have the detector be that of a file, and use these image size (px) and data where no others are given."""

    def block_foreign_training(self) -> None:
        """Mark the network as pruned, where training without yoloprune would silently build it at its full width."""

    def usage(self, weights: Path, *, imgsz: int | None = None, confidence: float | None = None) -> str:
        """A command that shows what a checkpoint of this family finds in an image.

        Args:
            weights: The checkpoint.
            imgsz: Image size in px, if it is to be said.
            confidence: Least confidence of what is shown, where the command takes one, if it is to be said.
        """
        size = f" --imgsz {imgsz}" if imgsz else ""
        return f"yoloprune val {shlex.quote(str(weights))}{size}"

    @classmethod
    def quiet(cls) -> AbstractContextManager[None]:
        """Within the block, the library behind the family logs nothing."""
        return nullcontext()

    # -- graph and cost -----------------------------------------------------------------------------------------------

    def trace(self, prune_head: bool = False, keep: Sequence[str] = (), portable: bool = False) -> Graph:
        """The dependency graph; the network is not changed.

        Args:
            prune_head: Also prune the head's hidden layers; its outputs always stay.
            keep: Names or patterns of modules whose output channels stay.
            portable: Prune only what the family's own software builds again from a description; see `Options`.

        Raises:
            UserError: `keep` names what the network does not have, or the family has no such description.
        """
        if portable:
            raise UserError("portable is for Ultralytics' networks alone; leave it out.")
        return trace(self.network, self.noise(), freeze=list(keep))

    def noise(self) -> Tensor:
        """An image of noise, as small as the network takes it: (1, channels, height, width), on its device."""
        size = 2 * self.stride
        image = torch.rand(1, self.channels, size, size, generator=torch.Generator().manual_seed(0), device="cpu")
        return image.to(next(self.network.parameters()))

    def predictions(self, output: Any) -> Any:
        """What of the network's output is predicted, without what is handed on beside it."""
        return output

    def gflops(self, imgsz: int = GFLOPS_IMGSZ) -> float:
        """GFLOPs (2 x MACs) for a square image of `imgsz` px, as the family's own tools print them.

        Raises:
            UserError: They cannot be counted.
        """
        return sum(self.layer_flops(imgsz).values()) / 1e9

    @property
    def params(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.network.parameters())

    @exclusive  # another thread may have hooks in the network, which would be copied
    def layer_flops(self, imgsz: int = GFLOPS_IMGSZ) -> dict[str, int]:
        """FLOPs (2 x MACs) of convolutions and matrix products for one square image, by module, in order of execution.

        They are counted in an execution at that size, since what attention and a decoder's queries cost is not in
        proportion to the image; where the network lets it, of shapes alone. Each module's own, without the modules
        inside it.
        """
        shapes = {id(t): t.detach().to("meta") for t in (*self.network.parameters(), *self.network.buffers())}
        try:
            return _counted(copy.deepcopy(self.network, shapes), self.channels, imgsz)
        except Exception:  # the model's code may look at values
            return _counted(copy.deepcopy(self.network), self.channels, imgsz)

    def parts(self) -> list[Part]:
        """Its parts in order, the head last, which keeps its widths unless asked otherwise; empty if it has none."""
        return []

    @property
    def prunes_head(self) -> bool:
        """Whether the head has hidden layers, which lose channels where `prune_head` is asked for."""
        return True

    def head_share(self) -> float:
        """Share of the GFLOPs at 640 px that the head holds, 0 … 1; takes one execution."""
        parts, flops = self.parts(), self.layer_flops()
        if not parts:
            return 0.0
        return sum(value for layer, value in flops.items() if parts[-1].has(layer)) / sum(flops.values())

    def why_it_stays(self, group: Group, graph: Graph, *, prune_head: bool) -> str:
        """One clause that says, to somebody who does not know the graph, why the channels of a frozen group stay."""
        return group.reason

    # -- devices ------------------------------------------------------------------------------------------------------

    def place(self, device: str | None) -> torch.device:
        """The device that is meant by "cpu", "0", "0,1" (the first of several), "mps" …; None chooses.

        Raises:
            UserError: It is not on this machine.
        """
        try:
            if device is None:
                return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
            first = device.partition(",")[0]
            chosen = torch.device("cuda", int(first)) if first.isdecimal() else torch.device(first)
            torch.zeros(1, device=chosen)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"The device {device!r} is not on this machine; leave it out, or give 'cpu'.") from error
        return chosen

    def device_name(self, device: str | None) -> str:
        """What to call that device in a report."""
        place = self.place(device)
        return torch.cuda.get_device_name(place) if place.type == "cuda" else str(place)

    # -- data ---------------------------------------------------------------------------------------------------------

    @abstractmethod
    def check_data(
        self, data: str, *, split: str = "val", labels: bool = True, same_classes: bool = False
    ) -> dict[int, str] | None:
        """Check that data can be used, without downloading anything or running anything that they name.

        Args:
            data: A data YAML, a folder of images, or whatever else the family takes.
            split: The split that must have images.
            labels: Whether some of these must have labels.
            same_classes: Whether the data must have as many classes as the network.

        Returns:
            Class index -> name; None for images alone.

        Raises:
            UserError: They are missing or broken, or do not fit the network.
        """

    def has_labels(self, data: str) -> bool:
        """Whether any training image has a label."""
        return True

    @abstractmethod
    def split_sizes(self, data: str, keywords: Mapping[str, Any]) -> tuple[int, int]:
        """Number of images that a training with these keywords looks at, and of validation images, if any."""

    def fetch(self, data: str, *, trust: bool = False) -> None:
        """Fetch what is missing of the data from where they say; `trust`: also by running a script that they bring.

        Raises:
            UserError: They cannot be fetched.
        """

    @abstractmethod
    def calibration_batches(
        self, data: str, *, images: int, imgsz: int, batch: int | float, device: torch.device
    ) -> list[dict[str, Any]]:
        """Training images without augmentation, evenly spaced over the split in its sorted order, always the same.

        Args:
            data: What `check_data` takes; labels are not needed.
            images: How many images; all, if the split has fewer.
            imgsz: Image size in px.
            batch: Images per batch; 16 where it is below 1.
            device: Where the batches shall lie.

        Returns:
            Batches as `training_loss` takes them: `img` is float32 (B, C, imgsz, imgsz) in 0 … 1, labels beside it.

        Raises:
            UserError: None of the images can be used.
        """

    # -- predictions --------------------------------------------------------------------------------------------------

    @abstractmethod
    def training_loss(self, keywords: Mapping[str, Any]) -> Callable[[nn.Module, dict[str, Any]], Tensor]:
        """The family's loss, with the gains of `keywords`, as a function of (network, batch) that gives a scalar."""

    def ranking_loss(self, seed: int) -> Callable[[nn.Module, dict[str, Any]], Tensor]:
        """A label-free stand-in for it, whose squared gradients are in expectation the predictions' Fisher information.

        By default the outputs are taken for Gaussian, each tensor with its own spread.
        """
        generator = torch.Generator().manual_seed(seed)

        def loss(network: nn.Module, batch: dict[str, Any]) -> Tensor:
            total = torch.zeros(())
            for value in tensors(self.predictions(network(batch["img"]))):
                noise = torch.randn(value.shape, generator=generator, device="cpu").to(value.device)
                total = total.to(value.device) + (noise * value).sum() / value.detach().std().clamp_min(1e-6)
            return total

        return loss

    def class_layers(self) -> ClassLayers:
        """The layers that put out class logits; none if their scores are not to be calibrated."""
        return ClassLayers([])

    def change(self, images: list[Tensor]) -> Callable[[nn.Module], float]:
        """A measure of how far a network's predictions lie from this one's; what a sensitivity is told in.

        Args:
            images: Batches of images on the network's device.

        Returns:
            A function of a network, 0 for this one's, with the attribute `text`: what the figure is.
        """
        return _RelativeChange(self, images)

    def lost(self, images: list[Tensor]) -> Callable[[nn.Module], float]:
        """A measure of what of this network's detections another one has lost, by which limits are chosen."""
        return self.change(images)

    @property
    def quantised(self) -> bool:
        """Whether the network was trained for INT8 and rounds as that does."""
        return False

    @property
    def can_distill(self) -> bool:
        """Whether `Training.distillation` works for this network."""
        return False

    def photograph(self, imgsz: int) -> Tensor:
        """A real image where no others are at hand: (1, channels, imgsz, imgsz), on the CPU; by default noise."""
        return torch.rand(1, self.channels, imgsz, imgsz, generator=torch.Generator().manual_seed(0))

    def outputs(self, images: Tensor) -> list[Tensor]:
        """The output tensors of the network as it is deployed, on the CPU and in float32.

        Args:
            images: (images, channels, height, width), on the CPU.
        """
        with torch.inference_mode():
            return list(tensors(self.predictions(copy.deepcopy(self.network).cpu().float().eval()(images))))

    def typical_difference(self, ours: list[Tensor], theirs: list[Tensor]) -> float:
        """The root mean square of the difference of two networks' `outputs`, relative to that of the first."""
        pairs = zip(ours, theirs, strict=True)
        return float(torch.stack([(a - b).norm() / a.norm().clamp_min(1e-6) for a, b in pairs]).max())

    # -- for the report -----------------------------------------------------------------------------------------------

    def sample(self, data: str, number: int) -> list[Path]:
        """Some image files of the validation split to look at, always the same; none where there are no files."""
        return []

    def look(
        self, images: Sequence[Path], *, imgsz: int, device: str | None = None, confidence: float = 0.25
    ) -> Iterator[Look]:
        """What the network finds in images, from this confidence on; nothing if that cannot be shown.

        Args:
            images: Image files, as `sample` gives them.
            imgsz: Image size in px.
            device: As `place` takes it.
            confidence: Least confidence of what is shown.
        """
        return iter(())

    def history(self, folder: Path) -> History | None:
        """The course of a training from the folder that `train` wrote to; None if it is not kept there."""
        return None

    def loggers(self) -> list[str]:
        """The experiment loggers that its trainings write to here, by their names in `pipeline.loggers`."""
        return []

    def logged(self, logger: str, folder: Path) -> str | None:
        """The latest run that a training into `folder` was in one of these, by the name or id that the logger knows.

        Returns:
            TensorBoard's folder, MLflow's run id, W&B's "project/id"; None if there is nothing to go on with.
        """
        return None

    # -- training, validation, export ---------------------------------------------------------------------------------

    def check_keywords(self, keywords: Mapping[str, Any]) -> None:
        """Check the values of keywords for the family's trainer.

        Raises:
            UserError: A value that it refuses.
        """

    @abstractmethod
    def train(self, start: Path, folder: Path, training: Training) -> Trained:
        """Train the network of a checkpoint as it is, pruned or not, or resume a training that was interrupted.

        Args:
            start: The checkpoint.
            folder: The trainer's folder. What it keeps there lets the same call resume after a kill at any moment.
            training: What to do.

        Raises:
            UserError: The family lacks a package for it, or the folder holds what no training of this run wrote.
        """

    def forget_training(self, folder: Path) -> None:
        """Remove what resuming a training needs, once its result is safe elsewhere."""

    @abstractmethod
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
        """Measure the network on the validation split; nothing is written, the network is not changed.

        Args:
            data: What `check_data` takes.
            imgsz: Image size in px.
            batch: Images per batch.
            device: As `place` takes it.
            verbose: Show what the family's library logs.
            details: Also find `Metrics.details`, where the family can.
            options: Further keywords of its validator.

        Raises:
            UserError: The data or an option cannot be used.
        """

    def fused(self) -> nn.Module:
        """A copy of the network as it predicts fastest, batch norms folded into convolutions where the family can."""
        return copy.deepcopy(self.network).float().eval()

    def export(
        self, path: Path, *, format: str = "onnx", imgsz: int | list[int] = 640, verbose: bool = False, **options: Any
    ) -> Path:
        """Export the network.

        Args:
            path: Where the export goes, in the place of an earlier one once it is complete.
            format: Name of a format in `yoloprune.deploy.formats`.
            imgsz: Image size in px, or height and width.
            verbose: Show what the family's library logs.
            options: Further keywords of its exporter.

        Returns:
            `path`.

        Raises:
            UserError: The format or an option is unknown, or the export is not possible here.
        """
        raise UserError(f"There is no export for {self.family} yet; leave it out (--no-export).")

    def onnx_difference(self, path: Path) -> float:
        """The largest relative difference of any output of an ONNX file, as `export` wrote it, from torch.

        Raises:
            UserError: ONNX Runtime is not installed, or cannot load the file.
        """
        raise UserError(f"An ONNX file of {self.family} cannot be compared with torch yet.")

    def detections(self, images: Tensor, export: Path | None = None) -> list[Tensor]:
        """What is detected in images after non-maximum suppression, whatever the scores.

        Args:
            images: (images, channels, height, width) in 0 … 1, on the CPU.
            export: What `export` wrote, to be run in its own runtime; None: the network itself, as it is deployed.

        Returns:
            For each image (boxes, 6): x1, y1, x2, y2, score, class.

        Raises:
            UserError: There is no such file, or its runtime is not here or cannot load it.
        """
        raise UserError(f"Exports of {self.family} cannot be compared with torch yet.")

    def validate_export(self, path: Path, data: str) -> Metrics:
        """Measure what `export` wrote as `validate` measures the network, in its own runtime, on square images.

        Raises:
            UserError: As `detections` and `validate`.
        """
        raise UserError(f"Exports of {self.family} cannot be validated yet.")

    def photographs(self, imgsz: int) -> Tensor:
        """Real images where no others are at hand: (images, channels, imgsz, imgsz) in 0 … 1; by default noise."""
        return torch.rand(16, self.channels, imgsz, imgsz, generator=torch.Generator().manual_seed(0))


class _RelativeChange:
    """The mean over the tensors of an output of ‖output − target‖² / ‖target‖²."""

    text = "relative squared change of the outputs"

    def __init__(self, detector: Detector, images: list[Tensor]) -> None:
        self._select, self._images = detector.predictions, images
        self._targets = [self._outputs(detector.network, batch) for batch in images]

    def __call__(self, network: nn.Module) -> float:
        total = 0.0
        for batch, target in zip(self._images, self._targets, strict=True):
            total += float(relative_change(self._outputs(network, batch), target)) * len(batch)
        return total / sum(map(len, self._images))

    def _outputs(self, network: nn.Module, batch: Tensor) -> Any:
        with torch.no_grad():
            return self._select(network(batch))


def relative_change(output: Any, target: Any) -> Tensor:
    """Mean over the tensors of an output, nested as it may be, of ‖output − target‖² / ‖target‖²; a scalar."""
    changes = [
        (p.float() - q.float()).square().sum() / q.float().square().sum().clamp_min(1e-12)
        for p, q in zip(tensors(output), tensors(target), strict=True)
    ]
    return torch.stack(changes).mean()


def tensors(output: Any) -> Iterator[Tensor]:
    """The tensors of an output, nested as it may be, in order."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        yield from tensors(list(output.values()))
    elif isinstance(output, (list, tuple)):
        for item in output:
            yield from tensors(item)


def _counted(network: nn.Module, channels: int, imgsz: int) -> dict[str, int]:
    """See `Detector.layer_flops`; puts hooks into the network."""
    weight = next(network.parameters())
    image = torch.zeros(1, channels, imgsz, imgsz, dtype=weight.dtype, device=weight.device)
    counter = _Counter()
    for name, module in network.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: counter.running.append(name))
        module.register_forward_hook(lambda *_: counter.running.pop() and None)
    network.eval()
    with torch.no_grad(), counter:
        network(image)
    return counter.flops


class _Counter(OperatorMode):
    """Counts by torch's own formulas; its `FlopCounterMode` takes ten times as long, to tell modules apart itself."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[str] = []
        self.flops: dict[str, int] = {}

    def __torch_dispatch__(self, operator: Operator, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = operator(*args, **(kwargs or {}))
        if formula := flop_registry.get(operator.overloadpacket):
            name = self.running[-1]
            self.flops[name] = self.flops.get(name, 0) + formula(*args, **(kwargs or {}), out_val=found)
        return found
